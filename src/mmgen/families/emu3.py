"""Emu3: words about images, and images of any ratio from words. Knows nothing of the command line.

Emu3: arXiv 2409.18869. One vocabulary of words and VQ codes; an image says its size in words and ends every row of
codes with a token of its own: `<|image start|>H*W<|image token|>`, H rows of W codes and an end of line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from torch import Tensor
from transformers.models.emu3.configuration_emu3 import Emu3Config
from transformers.models.emu3.modeling_emu3 import Emu3ForConditionalGeneration, Emu3TextModel
from transformers.models.emu3.processing_emu3 import Emu3Processor

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.decoding.grammar import Canvas, PromptIds
from mmgen.errors import MmgenError
from mmgen.families.autoregressive import AutoregressiveModel, CodecInFloat32, normalise, unnormalise
from mmgen.families.prompting import TemplatePrompter
from mmgen.families.templates import refusal
from mmgen.request import WORDS, Request

_CODE = "<|visual token {:06}|>"
_END_OF_ROW = "<|extra_200|>"  # in transformers' modeling_emu3.py too, Emu3ImageVocabularyMapping


class Prompter(TemplatePrompter):
    """Writes prompts for one checkpoint of model type "emu3".

    Attributes:
        factor: how many pixels high and wide a code is.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, Emu3Config)
        self._area: int = checkpoint.read_json("processor_config.json").get("image_area", Emu3Processor.image_area)
        self.factor: int = self.image_processor.spatial_factor
        self.start = (self.named("bos_token"),)  # the processor puts it there, not the tokenizer
        self._begin, self._end_of_file = self.named("boi_token"), self.named("eof_token")
        names = [*(_CODE.format(code) for code in range(self.config.vq_config.codebook_size)), _END_OF_ROW]
        *code_ids, self._row_end = (self.token_id(name) for name in names)
        self.vocabulary = self.make_vocabulary("image_wrapper_token", code_ids, self.canvas(None))

    def canvas(self, ratio: str | None) -> Canvas:
        """Say how many rows and columns of codes an image of this ratio has, of the area that Emu3 draws."""
        width, height = map(int, (ratio or Emu3Processor.ratio).split(":"))
        side = (self._area / (width * height)) ** 0.5 / self.factor  # processing_emu3.py, calculate_generate_size
        rows, columns = round(height * side), round(width * side)
        if not rows or not columns:
            raise MmgenError(f"a picture of ratio {ratio} is too thin to draw", "choose one nearer to 1:1")
        return Canvas(rows, columns, self._row_end)

    def image_length(self, image: Image.Image) -> int:
        """Say how many ids an image in a prompt takes: those of its size, its rows, and two at the end."""
        rows, columns = self.grid(image)
        return len(self._size(rows, columns)) + 1 + rows * (columns + 1) + 2

    def grid(self, image: Image.Image) -> tuple[int, int]:
        """Say how many rows and columns of codes an image in a prompt is."""
        rows, columns = (n_px // self.factor for n_px in self.prepare(image)["image_sizes"][0].tolist())
        return rows, columns

    def prepare(self, image: Image.Image) -> Any:
        """Make an image pixels of a size that the codec takes.

        Raises:
            MmgenError: it is too thin.
        """
        if image.height in (1, 3):  # the processor would take its rows for colours
            image = image.resize((2 * image.width, 2 * image.height))
        try:
            return self.image_processor(images=[image.convert("RGB")], return_tensors="pt")
        except ValueError as error:  # which is how its smart_resize refuses
            raise refusal(self.name, error) from error

    def image_ids(self, encoded: Sequence[Sequence[int]]) -> list[int]:
        """Write an image, given its rows of codes, as it stands in a prompt."""
        v = self.vocabulary
        ids = [id_ for row in encoded for id_ in (*(v.code_ids[code] for code in row), self._row_end)]
        return [*self._size(len(encoded), len(encoded[0])), v.begin_image, *ids, self._end_of_file, v.end_image]

    def lay_out(self, request: Request, images: Sequence[Sequence[int]]) -> PromptIds:
        """Write a request's prompt; words to be drawn stand alone, without a template."""
        return super().lay_out(request if request.want == WORDS else replace(request, completion=True), images)

    def image_prompt(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Append the size; guide away from the negative prompt, or from nothing said, of the same size."""
        source = request.source  # whose proportions stay
        canvas = self.canvas(request.image.ratio or (f"{source.width}:{source.height}" if source else None))
        size = self._size(canvas.rows, canvas.columns)
        negative = self.text_ids(request.image.negative_prompt or "")
        return PromptIds((*ids, *size), unconditional=(*self.start, *negative, *size), canvas=canvas)

    def _size(self, rows: int, columns: int) -> list[int]:
        """Write begin-image and an image's size."""
        return [self._begin, *self.text_ids(f"{rows}*{columns}")]


class Emu3WithCodec(CodecInFloat32, Emu3ForConditionalGeneration):
    """Stock Emu3 with its VQ in float32, as its authors run it (github.com/baaivision/Emu3, README)."""

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that published checkpoints load: their tensors have older names, which transformers knows."""
        return False


class Emu3(AutoregressiveModel):
    """A loaded Emu3 checkpoint."""

    network = Emu3WithCodec
    decoder_class = Emu3TextModel
    prompter: Prompter

    def encode(self, images: Sequence[Image.Image]) -> list[list[list[int]]]:
        """Turn images into rows of their VQ codes, resized as the checkpoint's processor says."""
        found = []
        for given in map(self.prompter.prepare, images):
            pixels = given["pixel_values"].to(self._vq.device)
            found.append(self._vq.encode(pixels, given["image_sizes"]).image_tokens[0].tolist())
        return found

    def encode_to(self, image: Image.Image, canvas: Canvas) -> list[int]:
        """Turn an image into the codes of a picture to draw, in row-major order."""
        pixels = normalise(image, canvas, self.prompter.factor, self.prompter.image_processor)
        return self._vq.encode(pixels.to(self._vq.device), [pixels.shape[2:]]).image_tokens[0].flatten().tolist()

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        return unnormalise(self._vq.decode(codes.to(self._vq.device)), self.prompter.image_processor)


load = Emu3
