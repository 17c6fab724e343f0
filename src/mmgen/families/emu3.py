"""Emu3: words about pictures, and pictures of any ratio from words. Knows nothing of the command line.

Emu3: arXiv 2409.18869. One vocabulary of words and VQ codes; a picture says its size in words and ends every row of
codes with a token of its own: `<|image start|>H*W<|image token|>`, H rows of W codes and an end of line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from transformers.models.emu3.configuration_emu3 import Emu3Config, Emu3VQVAEConfig
from transformers.models.emu3.image_processing_emu3 import smart_resize
from transformers.models.emu3.modeling_emu3 import Emu3ForConditionalGeneration, Emu3VQVAE
from transformers.models.emu3.processing_emu3 import Emu3Processor

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import read_config, read_image_processor
from mmgen.decoding.grammar import PromptIds
from mmgen.errors import MmgenError
from mmgen.families.autoregressive import AutoregressiveModel, load_with_codec, unnormalise
from mmgen.families.template_prompt import TemplatePrompter
from mmgen.model import Abilities
from mmgen.request import WORDS, Loading, Request

_CODE = "<|visual token {:06}|>"
_END_OF_ROW = "<|extra_200|>"  # in transformers' modeling_emu3.py too, Emu3ImageVocabularyMapping


class Emu3WithCodec(Emu3ForConditionalGeneration):
    """Stock Emu3 with its VQ in float32, as its authors run it (github.com/baaivision/Emu3, README), on one device."""

    # Plain lists, as transformers declares them.
    _keep_in_fp32_modules_strict = ["vqmodel"]  # noqa: RUF012
    _no_split_modules = [*Emu3ForConditionalGeneration._no_split_modules, "Emu3VQVAE"]  # noqa: RUF012

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that published checkpoints load: their tensors have older names, which transformers knows."""
        return False


class Prompter(TemplatePrompter):
    """Writes prompts for one checkpoint of model type "emu3"."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = read_config(Emu3Config, checkpoint)
        super().__init__(checkpoint, config.get_text_config().max_position_embeddings)
        self.image_processor = read_image_processor(checkpoint)
        self._area: int = checkpoint.read_json("processor_config.json").get("image_area", Emu3Processor.image_area)
        self._factor: int = self.image_processor.spatial_factor
        self.start = (self.named("bos_token"),)  # the processor puts it there, not the tokenizer
        self._begin, self._end_of_file = self.named("boi_token"), self.named("eof_token")
        names, n_embeddings = config.vocabulary_map or {}, cast(Emu3VQVAEConfig, config.vq_config).codebook_size
        try:
            code_ids = tuple(names[_CODE.format(code)] for code in range(n_embeddings))
            row_end = names[_END_OF_ROW]
        except KeyError as error:
            raise MmgenError(f"{checkpoint.name}: the vocabulary has no {error}", "is it complete?") from error
        size, (height, width) = config.get_text_config().vocab_size, self.grid(None)
        self.vocabulary = self.make_vocabulary(
            "image_wrapper_token", size=size, n_codes=height * width, code_ids=code_ids, row_end=row_end
        )

    def grid(self, ratio: str | None) -> tuple[int, int]:
        """Say how many rows and columns of codes a picture of this ratio has, of the area that Emu3 draws."""
        width, height = map(int, (ratio or Emu3Processor.ratio).split(":"))
        side = (self._area / (width * height)) ** 0.5 / self._factor  # processing_emu3.py, calculate_generate_size
        rows, columns = round(height * side), round(width * side)
        if not rows or not columns:
            raise MmgenError(f"a picture of ratio {ratio} is too thin to draw", "choose one nearer to 1:1")
        return rows, columns

    def picture_length(self, image: Image.Image) -> int:
        """Say how many ids a picture in a prompt takes: those of its size, its rows, and two at the end."""
        width, height = _prepare(image).size
        if max(height, width) > 200 * min(height, width):
            raise MmgenError(f"a picture of {width} x {height} pixels is too thin for {self.checkpoint.name}", "cut it")
        least, most = self.image_processor.min_pixels, self.image_processor.max_pixels
        height_px, width_px = smart_resize(height, width, self._factor, least, most)
        rows, columns = height_px // self._factor, width_px // self._factor
        return len(self._size(rows, columns)) + 1 + rows * (columns + 1) + 2

    def picture_ids(self, codes: Tensor) -> list[int]:
        """Write a picture, given its codes [h, w], as it stands in a prompt."""
        v = self.vocabulary
        lines = [[*(v.code_ids[code] for code in row), cast(int, v.row_end)] for row in codes.tolist()]
        ids = [id_ for line in lines for id_ in line]
        return [*self._size(*codes.shape), v.begin_image, *ids, self._end_of_file, v.end_image]

    def ids(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> list[int]:
        """Turn a conversation into ids; words to be drawn stand alone, without a template."""
        return super().ids(request if request.want == WORDS else replace(request, completion=True), encode)

    def canvas(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Append the size; guidance leads away from the negative prompt, or from nothing said, of the same size."""
        rows, columns = self.grid(request.image.ratio)
        size = self._size(rows, columns)
        negative = self.text_ids(request.image.negative_prompt or "")
        return PromptIds((*ids, *size), unconditional=(*self.start, *negative, *size), grid=(rows, columns))

    def _size(self, rows: int, columns: int) -> list[int]:
        """Write begin-image and a picture's size."""
        return [self._begin, *self.text_ids(f"{rows}*{columns}")]


def load(
    checkpoint: Checkpoint, loading: Loading, abilities: Abilities, prompter: Prompter, _: Sequence[Request]
) -> Emu3:
    """Load a checkpoint of model type "emu3"."""
    return Emu3(checkpoint, abilities, prompter, load_with_codec(Emu3WithCodec, checkpoint, loading), loading.window)


class Emu3(AutoregressiveModel):
    """A loaded Emu3 checkpoint."""

    prompter: Prompter
    _vq: Emu3VQVAE

    def picture_ids(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Turn pictures into the ids that stand for each in a prompt: its size and its codes."""
        return [self.prompter.picture_ids(self.encode(image)) for image in images]

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> Tensor:
        """Turn a picture into its VQ codes [h, w] int64, resized as the checkpoint's processor says."""
        given = self.prompter.image_processor(images=[_prepare(image)], return_tensors="pt")
        codes: Tensor = self._vq.encode(given["pixel_values"].to(self._vq.device), given["image_sizes"]).image_tokens[0]
        return codes

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        pixels = self._vq.decode(codes.to(self._vq.device))
        return unnormalise(pixels, self.prompter.image_processor)


def _prepare(image: Image.Image) -> Image.Image:
    """Make a picture RGB, and none of 1 or 3 pixels' height: the processor would take its rows for colours."""
    if image.height in (1, 3):
        image = image.resize((2 * image.width, 2 * image.height))
    return image.convert("RGB")
