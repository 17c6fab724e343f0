"""Tiny random checkpoints of the families that draw through a chat template, with their real processors.

Run from tests alone. Linear layers that 4-bit weights may touch have inputs of a multiple of 64, as a CPU needs it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3Processor,
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.emu3.configuration_emu3 import Emu3TextConfig, Emu3VQVAEConfig
from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

_CORPUS = (
    "You are a helpful assistant. USER: Describe this picture. What is in this picture? ASSISTANT:",
    "a red cat on the grass, a snowman in the snow, a blue boat at sunset, a house at night",
    "<|User|>: Can you draw a snowman and explain how to build one? First roll three balls. <|Assistant|>:",
)
HIDDEN = 64


def make_tokenizer(
    special: Sequence[str], *, names: dict[str, str], bos: str, eos: str, pad: str, adds_bos: bool
) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer whose first ids are the special tokens.

    Args:
        names: special tokens by their part, such as image_token.
        adds_bos: by itself, before every text.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=len(special) + 256 + 60,
        special_tokens=list(special),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if adds_bos:
        tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, special.index(bos))])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=names,
        clean_up_tokenization_spaces=False,
    )


def _widen(model: PreTrainedModel, unsaid: Sequence[int]) -> None:
    """Make random logits no near ties, codes of a codebook unlike, and the structural ids never the likeliest word."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                module.weight.normal_(std=0.25)
            elif isinstance(module, nn.Conv2d | nn.Conv3d):
                module.reset_parameters()
        model.lm_head.weight[list(unsaid)] = 0


# --- Janus --------------------------------------------------------------------------------------------------------

JANUS_SIDE = 4  # codes in one row of a picture
JANUS_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|User|>: {% else %}<|Assistant|>: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image_placeholder>\n{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %}\n\n{% else %}<end>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
_JANUS_TOKENS = ("<begin>", "<end>", "<pad>", "<image_placeholder>", "<begin_of_image>", "<end_of_image>")


def make_janus(folder: Path, *, positions: int = 256, system_prompt: bool = False, seed: int = 0) -> Path:
    """Write a whole Janus checkpoint and return its folder; its pictures are 16 x 16 pixels, 4 x 4 codes of 64.

    Args:
        positions: length of the context.
        system_prompt: the processor puts its system prompt before conversations.
    """
    tokenizer = make_tokenizer(
        _JANUS_TOKENS,
        names={"image_token": _JANUS_TOKENS[3], "boi_token": _JANUS_TOKENS[4], "eoi_token": _JANUS_TOKENS[5]},
        bos="<begin>",
        eos="<end>",
        pad="<pad>",
        adds_bos=True,
    )
    n_tokens = JANUS_SIDE**2
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=8 * JANUS_SIDE,
            patch_size=8,
            projection_dim=HIDDEN,
            mlp_ratio=2.0,
            num_image_tokens=n_tokens,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=64,
            latent_channels=32,
            base_channels=32,
            channel_multiplier=[1, 1, 2],
            num_res_blocks=1,
            projection_dim=HIDDEN,
            image_token_embed_dim=HIDDEN,
        ),
        image_token_id=3,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config)
        _widen(model, range(2, 6))
    # Fresh, because one made from the config would forget begin-image when it is read again.
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=1, pad_token_id=2, generation_kwargs={"boi_token_id": 4}
    )
    model.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    size = {"height": 8 * JANUS_SIDE, "width": 8 * JANUS_SIDE}
    image_processor = JanusImageProcessorPil(size=size, image_mean=half, image_std=half)
    JanusProcessor(
        image_processor,
        tokenizer,
        chat_template=JANUS_TEMPLATE,
        use_default_system_prompt=system_prompt,
        num_image_tokens=n_tokens,
    ).save_pretrained(folder)
    return folder


# --- Emu3 ---------------------------------------------------------------------------------------------------------

EMU3_AREA = 48 * 48  # pixels of a picture that is drawn; 6 x 6 codes
EMU3_CODES = 32
EMU3_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %} {% else %}<|extra_204|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_EMU3_NAMED = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}


def make_emu3(folder: Path, *, positions: int = 256, seed: int = 0) -> Path:
    """Write a whole Emu3 checkpoint and return its folder; its pictures are of about 48 x 48 pixels, of 32 codes.

    Args:
        positions: length of the context.
    """
    codes = [f"<|visual token {code:06}|>" for code in reversed(range(EMU3_CODES))]
    words = ("<|extra_203|>", "<|extra_204|>", "<|endoftext|>")  # begin and end of a text, filling
    special = (*words, *_EMU3_NAMED.values(), "<|extra_200|>", *codes)
    tokenizer = make_tokenizer(special, names=_EMU3_NAMED, bos=words[0], eos=words[1], pad=words[2], adds_bos=False)
    config = Emu3Config(
        text_config=Emu3TextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ),
        vq_config=Emu3VQVAEConfig(
            codebook_size=EMU3_CODES,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1],
            num_res_blocks=1,
            attn_resolutions=[],
            hidden_size=32,
        ),
        vocabulary_map=tokenizer.get_vocab(),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Emu3ForConditionalGeneration(config)
        _widen(model, range(2, len(special) - len(codes)))
        _spread_codes(model.model.vqmodel)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    image_processor = Emu3ImageProcessor(min_pixels=16 * 16, max_pixels=48 * 48, image_mean=half, image_std=half)
    Emu3Processor(image_processor, tokenizer, chat_template=EMU3_TEMPLATE).save_pretrained(folder)
    settings = folder / "processor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "image_area": EMU3_AREA}))
    return folder


def _spread_codes(vq: Emu3VQVAE) -> None:
    """Set the codebook to what the encoder makes of noise, so that pictures have many codes.

    As they are made, latents hardly differ beside their size, and in float32 every code would be a near tie.
    """
    with torch.no_grad():
        noise = torch.rand(EMU3_CODES, 1, 3, 32, 32) * 2 - 1
        hidden = vq.encoder(noise.repeat(1, vq.config.temporal_downsample_factor, 1, 1, 1))
        latents = vq.quant_conv(hidden.permute(0, 2, 1, 3, 4))  # [K, z, 1, h, w]
        std, mean = torch.std_mean(latents, dim=(0, 2, 3, 4))  # [z]
        layer = vq.quant_conv.conv
        layer.weight.div_(std.view(-1, 1, 1, 1, 1))
        layer.bias.sub_(mean).div_(std)
        vq.quantize.embedding.weight.copy_((latents[:, :, 0, 1, 1] - mean) / std)
