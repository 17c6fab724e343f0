"""Chameleon (words about pictures) and Anole (pictures too, interleaved). Knows nothing of the command line.

Chameleon: arXiv 2405.09818. Anole: arXiv 2407.06135. Stock transformers classes load the checkpoint, with Anole's
picture decoder added; the decoding loops are ours, because stock `forward` masks every image token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from transformers.models.chameleon.configuration_chameleon import ChameleonConfig, ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import read_image_processor
from mmgen.decoding.vq import VQDecoder
from mmgen.errors import MmgenError
from mmgen.families.autoregressive import AutoregressiveModel, load_with_codec
from mmgen.families.chameleon_prompt import Prompter
from mmgen.model import Abilities
from mmgen.request import PICTURES, Loading, Request

# In the VQ's encoder: small pictures gain by company, large ones only take more memory. Their codes are those of each
# alone, but for near ties.
_PIXELS_AT_ONCE = 2**16


class ChameleonOfWords(ChameleonForConditionalGeneration):
    """Stock Chameleon with its VQ in float32: under bfloat16 the encoder's choice of the nearest code flips."""

    # Plain lists, as transformers declares them.
    _keep_in_fp32_modules_strict = ["vqmodel"]  # noqa: RUF012
    _no_split_modules = [*ChameleonForConditionalGeneration._no_split_modules, "ChameleonVQVAE"]  # noqa: RUF012


class Anole(ChameleonOfWords):
    """Chameleon with the VQ's decoder, under the tensor names of the original checkpoints."""

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        vq = cast(ChameleonVQVAEConfig, config.vq_config)
        self.model.vqmodel.decoder = VQDecoder(
            base_channels=vq.base_channels,
            channel_multiplier=vq.channel_multiplier,
            num_res_blocks=vq.num_res_blocks,
            latent_channels=vq.latent_channels,
            resolution=vq.resolution,
            attn_resolutions=vq.attn_resolutions or (),
            attention=vq.attn_type == "vanilla",
            out_channels=vq.in_channels,
        )


def load(
    checkpoint: Checkpoint, loading: Loading, abilities: Abilities, prompter: Prompter, _: Sequence[Request]
) -> Chameleon:
    """Load a checkpoint of model type "chameleon".

    Raises:
        MmgenError: float16 was asked for, in which this family overflows, or the weights do not fit the config.
    """
    if loading.dtype == "float16":
        raise MmgenError("Chameleon and Anole overflow in float16", "use --dtype bfloat16, or float32 on a CPU")
    model_class = Anole if abilities.gives >= PICTURES else ChameleonOfWords
    return Chameleon(checkpoint, abilities, prompter, load_with_codec(model_class, checkpoint, loading), loading.window)


class Chameleon(AutoregressiveModel):
    """A loaded Chameleon or Anole checkpoint."""

    prompter: Prompter
    _vq: Any  # ChameleonVQVAE, with Anole's decoder

    def __init__(
        self,
        checkpoint: Checkpoint,
        abilities: Abilities,
        prompter: Prompter,
        model: ChameleonOfWords,
        window: int | None,
    ) -> None:
        super().__init__(checkpoint, abilities, prompter, model, window)
        self._image_processor = read_image_processor(checkpoint)
        self._vq.to(memory_format=torch.channels_last)

    def picture_ids(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Turn pictures into the ids that stand for each in a prompt: their codes."""
        return [self.prompter.picture_ids(codes) for codes in self.encode(images)]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Turn pictures into their VQ codes, row-major; resized and cropped as the checkpoint's processor says."""
        return [codes for start in range(0, len(images), 16) for codes in self._encode(images[start : start + 16])]

    def _encode(self, images: Sequence[Image.Image]) -> list[list[int]]:
        pixels = self._image_processor(images=list(images), return_tensors="pt")["pixel_values"]  # [n, 3, H, W]
        weight = self._vq.quant_conv.weight
        codes: list[list[int]] = []
        for some in pixels.split(max(1, _PIXELS_AT_ONCE // pixels[0, 0].numel())):
            found = self._vq.encode(some.to(weight.device, weight.dtype)).image_tokens
            codes += found.view(len(some), -1).tolist()
        return codes

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        rows = self._vq.quantize.embedding(codes.to(self._vq.quant_conv.weight.device))  # [B, h, w, z]
        latents = self._vq.post_quant_conv(rows.permute(0, 3, 1, 2))  # channels last, as the embedding lies
        pixels: Tensor = self._vq.decoder(latents)
        return pixels
