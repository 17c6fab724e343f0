"""Chameleon (words about images) and Anole (images too, interleaved). Knows nothing of the command line.

Chameleon: arXiv 2405.09818. Anole: arXiv 2407.06135. Stock transformers classes load the checkpoint, with Anole's
image decoder added; the decoding loops are ours, because stock `forward` masks every image token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.chameleon.configuration_chameleon import ChameleonConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration, ChameleonModel

from mmgen.checkpoints.loading import read_image_processor
from mmgen.decoding.grammar import Canvas
from mmgen.decoding.vq import VQDecoder
from mmgen.errors import MmgenError
from mmgen.families.autoregressive import AutoregressiveModel, CodecInFloat32
from mmgen.request import PICTURES

# In the VQ's encoder: small images gain by company, large ones only take more memory. Their codes are those of each
# alone, but for near ties.
_PIXELS_AT_ONCE = 2**16


class ChameleonOfWords(CodecInFloat32, ChameleonForConditionalGeneration):
    """Stock Chameleon with its VQ in float32."""


class Anole(ChameleonOfWords):
    """Chameleon with the VQ's decoder, under the tensor names of the original checkpoints."""

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        self.model.vqmodel.decoder = VQDecoder(config.vq_config)


class Chameleon(AutoregressiveModel):
    """A loaded Chameleon or Anole checkpoint."""

    decoder_class = ChameleonModel

    def load(self) -> PreTrainedModel:
        """Load the weights.

        Raises:
            MmgenError: float16 was asked for, in which this family overflows, or the weights do not fit the config.
        """
        if self.loading.dtype == "float16":
            raise MmgenError("Chameleon and Anole overflow in float16", "use --dtype bfloat16, or float32 on a CPU")
        self.network = Anole if self.abilities.gives >= PICTURES else ChameleonOfWords
        self._image_processor = read_image_processor(self.checkpoint)
        model = super().load()
        cast(Any, model).model.vqmodel.to(memory_format=torch.channels_last)
        return model

    def encode(self, images: Sequence[Image.Image]) -> list[list[list[int]]]:
        """Turn images into rows of their VQ codes; resized and cropped as the checkpoint's processor says."""
        if not images:
            return []
        pixels = self._image_processor(images=list(images), return_tensors="pt")["pixel_values"]  # [n, 3, H, W]
        codes: list[list[list[int]]] = []
        for some in pixels.split(max(1, _PIXELS_AT_ONCE // pixels[0, 0].numel())):
            found = self._vq.encode(some.to(self._vq.device, self._vq.dtype)).image_tokens
            codes += found.view(len(some), self.prompter.vocabulary.canvas.rows, -1).tolist()
        return codes

    def encode_to(self, image: Image.Image, canvas: Canvas) -> list[int]:
        """Turn an image into the codes of a picture to draw, in row-major order."""
        return [code for row in self.encode([image])[0] for code in row]

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        rows = self._vq.quantize.embedding(codes.to(self._vq.device))  # [B, h, w, z]
        latents = self._vq.post_quant_conv(rows.permute(0, 3, 1, 2))  # channels last, as the embedding lies
        pixels: Tensor = self._vq.decoder(latents)
        return pixels


load = Chameleon
