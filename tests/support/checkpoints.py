"""Tiny random checkpoints in the format of Anole, made on the spot: right in every shape and name, without meaning.

Run from tests alone. Every linear layer's inputs are a multiple of 64, which is what 4-bit weights need on a CPU.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil

from mmgen.decoding.vq import VQDecoder

SIZE_PX = 16  # pictures are 16 x 16 pixels, 4 x 4 codes
N_PICTURE_CODES = 16

_CORPUS = (
    "Describe this picture. What is in this picture? Generate a variation of this image.",
    "a red cat on the grass, a snowman in the snow, a blue boat at sunset, a house at night",
    "Can you draw a snowman and explain how to build one? First roll three balls, then stack them.",
)
_VQ = {
    "embed_dim": 16,
    "latent_channels": 16,
    "resolution": SIZE_PX,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": None,
    "attn_type": "vanilla",
}


def code_name(code: int) -> str:
    """Name the vocabulary entry of a VQ code: `IMGIMG`, its decimal digits as letters, `Z`."""
    return "IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z"


def make_tokenizer(n_codes: int = 64, *, shuffled: bool = False, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer whose first ids lie as Anole's do; it adds `<s>` and nothing else.

    Args:
        n_codes: size of the VQ codebook.
        shuffled: give the codes' ids in random order.
        seed: of that order.
    """
    codes = [code_name(code) for code in range(n_codes)]
    if shuffled:
        random.Random(seed).shuffle(codes)
    named = ["<s>", "<pad>", "</s>", "<unk>", *codes, "<eoss>", "<racm3:break>", "<reserved08706>", "<image>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=len(named) + 256 + 60,
        special_tokens=named,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        sep_token="<reserved08706>",
        clean_up_tokenization_spaces=False,
    )


def make_checkpoint(
    folder: Path,
    *,
    decoder: bool = True,
    shuffled: bool = False,
    n_codes: int = 64,
    positions: int = 256,
    n_shards: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Write a whole checkpoint and return its folder.

    The config is as odd as the real one: its bos is the tokenizer's pad, and it has no pad.

    Args:
        folder: made if it does not exist.
        decoder: with the VQ decoder (Anole), or without (Chameleon: words only).
        shuffled: the vocabulary map from codes to ids is not monotonic.
        n_codes: size of the VQ codebook.
        positions: length of the context; a picture takes 18 of it.
        n_shards: files the weights are spread over; more than one comes with an index.
        dtype: of the stored weights.
        seed: of the weights and of the shuffled map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(n_codes, shuffled=shuffled, seed=seed)
    vocabulary = tokenizer.get_vocab()
    config = ChameleonConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        initializer_range=0.2,  # wide enough that random logits are no near ties
        vq_config={**_VQ, "num_embeddings": n_codes},
        vocabulary_map=vocabulary,
        architectures=["ChameleonForConditionalGeneration"],
    )
    tensors = {name: tensor.to(dtype) for name, tensor in _weights(config, decoder=decoder, seed=seed).items()}
    config.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}\n')
    _save(folder, tensors, n_shards)
    image_processor = ChameleonImageProcessorPil(
        size={"shortest_edge": SIZE_PX}, crop_size={"height": SIZE_PX, "width": SIZE_PX}
    )
    ChameleonProcessor(image_processor, tokenizer, image_seq_length=N_PICTURE_CODES).save_pretrained(folder)
    return folder


def _weights(config: ChameleonConfig, *, decoder: bool, seed: int) -> dict[str, Tensor]:
    """Random weights under the names of a stored checkpoint; the codebook is spread over what the encoder gives."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ChameleonForConditionalGeneration(config)
        vq = model.model.vqmodel
        for module in vq.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        with torch.no_grad():
            noise = torch.rand(vq.config.num_embeddings, 3, SIZE_PX, SIZE_PX) * 2 - 1
            vq.quantize.embedding.weight.copy_(vq.quant_conv(vq.encoder(noise))[:, :, 1, 1])
        tensors = dict(model.state_dict())
        if decoder:
            pixels = VQDecoder(config.vq_config)
            tensors |= {f"model.vqmodel.decoder.{name}": tensor for name, tensor in pixels.state_dict().items()}
    return tensors


def _save(folder: Path, tensors: dict[str, Tensor], n_shards: int) -> None:
    if n_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number in range(n_shards):
        name = f"model-{number + 1:05}-of-{n_shards:05}.safetensors"
        shard = {key: tensors[key] for key in sorted(tensors)[number::n_shards]}
        weight_map |= dict.fromkeys(shard, name)
        save_file(shard, folder / name, metadata={"format": "pt"})
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
