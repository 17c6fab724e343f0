"""Random checkpoints in the shape of real ones: what they draw means nothing, and every step costs what it would.

`tiny` tries the benchmarks themselves. `290m` has 290 million parameters beside the picture codec: as wide as a small
model, but with the vocabulary (65,536) and the codebook (8,192) of a large one. `7b` has the shape of Anole-7b in all.
Pictures are square; `side` codes in a row, 16 pixels to a code.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.utils import TensorInfo
from safetensors.torch import save_file
from transformers import ChameleonConfig, ChameleonProcessor
from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil

import mmgen
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import read_image_processor
from mmgen.checkpoints.x86 import pack
from mmgen.decoding.body import join
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.families.chameleon import Anole, Chameleon
from mmgen.families.chameleon_prompt import Prompter
from mmgen.model import Abilities
from mmgen.request import Loading
from tests.support.checkpoints import make_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PIXELS_PER_CODE = 16


@dataclass(frozen=True)
class Shape:
    """The sizes of one; of the picture codec those of Anole-7b, if nothing is said.

    Attributes:
        inner: width of the feed-forward layers.
        codebook: codes there are.
        side: codes in a row of a picture, unless another number is asked for.
    """

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int = 65536
    codebook: int = 8192
    side: int = 32
    vq_channels: int = 128
    vq_latents: int = 256
    vq_blocks: int = 2


SHAPES = {
    "tiny": Shape(64, 2, 4, 128, vocabulary=1024, codebook=64, side=4, vq_channels=32, vq_latents=16, vq_blocks=1),
    "290m": Shape(1024, 16, 16, 1792, side=16),
    "7b": Shape(4096, 32, 32, 11008),
}


def make_in_memory(
    folder: Path, name: str, device: torch.device, dtype: torch.dtype, *, side: int | None = None, seed: int = 0
) -> Chameleon:
    """Make a model on a device, with nothing of its weights on disk.

    Args:
        folder: for the small files: config, tokenizer, processor.
        name: of a shape.
        side: codes in a row of a picture; None is the shape's own.
    """
    config = _write_small_files(folder, SHAPES[name], side)
    model = _random(config, device, dtype, seed)
    join(model.get_decoder())  # as it is loaded
    pack(model.get_decoder())
    headers = {
        key: TensorInfo("F32", list(value.shape), (0, value.nbytes)) for key, value in model.state_dict().items()
    }
    checkpoint = Checkpoint(f"random {name}", folder, None, config.to_dict(), headers)  # its size decides on threads

    class Random(Chameleon):
        def load(self) -> Anole:
            self._image_processor = read_image_processor(checkpoint)
            return model

    return Random(checkpoint, Loading(), Abilities(), Prompter(checkpoint))


def save(folder: Path, name: str, dtype: torch.dtype, *, side: int | None = None, seed: int = 0) -> Path:
    """Write a whole checkpoint, weights and all, and return its folder."""
    config = _write_small_files(folder, SHAPES[name], side)
    model = _random(config, torch.device("cpu"), dtype, seed)
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _random(config: ChameleonConfig, device: torch.device, dtype: torch.dtype, seed: int) -> Anole:
    torch.manual_seed(seed)
    with _default_dtype(dtype), device:
        model = Anole(config)
    model.model.vqmodel.float()  # as it is loaded
    return model.eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _write_small_files(folder: Path, shape: Shape, side: int | None) -> ChameleonConfig:
    folder.mkdir(parents=True, exist_ok=True)
    side = side or shape.side
    size_px = side * _PIXELS_PER_CODE
    tokenizer = make_tokenizer(shape.codebook)
    config = ChameleonConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
        vq_config={
            "embed_dim": shape.vq_latents,
            "latent_channels": shape.vq_latents,
            "num_embeddings": shape.codebook,
            "resolution": size_px,
            "base_channels": shape.vq_channels,
            "channel_multiplier": [1, 1, 2, 2, 4],
            "num_res_blocks": shape.vq_blocks,
            "attn_resolutions": None,
            "attn_type": "vanilla",
        },
        vocabulary_map=tokenizer.get_vocab(),
        architectures=["ChameleonForConditionalGeneration"],
    )
    config.save_pretrained(folder)
    image_processor = ChameleonImageProcessorPil(
        size={"shortest_edge": size_px}, crop_size={"height": size_px, "width": size_px}
    )
    ChameleonProcessor(image_processor, tokenizer, image_seq_length=side**2).save_pretrained(folder)
    return config


def open_subject(name: str, dtype: str, device: torch.device, codes: int | None, folder: Path) -> AutoregressiveModel:
    """Load the built-in model, or make a random one in memory, the same each time."""
    if name == "demo":
        loading = mmgen.Loading(dtype=dtype, device_map=str(device))
        return cast(AutoregressiveModel, mmgen.load("demo", loading))
    side = None if codes is None else math.isqrt(codes)
    return make_in_memory(folder, name, device, DTYPES["bfloat16" if dtype == "auto" else dtype], side=side)
