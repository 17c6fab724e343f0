"""Janus and Janus-Pro: words about images, and images from words. Knows nothing of the command line.

Janus: arXiv 2410.13848; Janus-Pro: arXiv 2501.17811. One language model with two ways in for images: features of a
vision tower to look at, VQ codes to draw. For our loops these become ids beyond the words': first a code c as V + c,
then every feature of every image that was asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from weakref import WeakValueDictionary

import torch
from PIL import Image
from torch import Tensor
from transformers.models.janus.configuration_janus import JanusConfig
from transformers.models.janus.modeling_janus import JanusForConditionalGeneration
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT
from transformers.models.llama.modeling_llama import LlamaModel

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.decoding.grammar import Canvas, PromptIds
from mmgen.families.autoregressive import AutoregressiveModel, CodecInFloat32, normalise, unnormalise
from mmgen.families.prompting import TemplatePrompter
from mmgen.request import WORDS, Request


class Prompter(TemplatePrompter):
    """Writes prompts for one checkpoint of model type "janus".

    Attributes:
        n_features: of an image.
        images: by the id of their first feature, as long as a request has them.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, JanusConfig)
        size, vq = self.config.get_text_config().vocab_size, self.config.vq_config
        codes = range(size, size + vq.num_embeddings)
        self.vocabulary = self.make_vocabulary("boi_token", codes, Canvas(vq.num_patches, vq.num_patches))
        self.n_features: int = self.config.vision_config.num_image_tokens
        self.images: WeakValueDictionary[int, Image.Image] = WeakValueDictionary()
        self._free_ids = count(codes.stop, self.n_features)
        self._pad: int = self.generated("pad_token")

    def image_length(self, image: Image.Image) -> int:
        """Say how many ids an image in a prompt takes: begin-image, features, end-of-image."""
        return self.n_features + 2

    def image_ids(self, encoded: Image.Image) -> list[int]:
        """Give an image the next ids that are free; it is looked at when they are read."""
        first = next(self._free_ids)
        self.images[first] = encoded
        return [self.vocabulary.begin_image, *range(first, first + self.n_features), self.vocabulary.end_image]

    def image_prompt(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Guide away from a prompt of the same length that says nothing (transformers, modeling_janus.py, generate)."""
        kept = (self.vocabulary.bos, self.vocabulary.begin_image)
        return PromptIds(tuple(ids), unconditional=tuple(id_ if id_ in kept else self._pad for id_ in ids))

    def preface(self, request: Request) -> str:
        """Put the system prompt before questions where the processor does; never before what is to be drawn."""
        asked = request.want == WORDS and not request.completion
        return DEFAULT_SYSTEM_PROMPT if asked and self.processor.use_default_system_prompt else ""


class JanusWithCodec(CodecInFloat32, JanusForConditionalGeneration):
    """Stock Janus with its VQ in float32."""


class Janus(AutoregressiveModel):
    """A loaded Janus checkpoint."""

    network = JanusWithCodec
    decoder_class = LlamaModel
    keep_whole = ("model.generation_aligner", "model.generation_head")  # 4-bit weights need inputs of 64 values, not 8
    prompter: Prompter
    model: JanusWithCodec

    def encode(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        """Leave images as they are until their ids are read."""
        return images

    def features(self, image: Image.Image) -> Tensor:
        """Look at an image: [n, D], a vector for each position it takes in a prompt."""
        pixels = self.prompter.image_processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]
        weight = self._embedding.weight
        seen = self.model.model.get_image_features(pixels.to(weight.device, weight.dtype), return_dict=True)
        return seen.pooler_output[0]

    def encode_to(self, image: Image.Image, canvas: Canvas) -> list[int]:
        """Turn an image into the codes of a picture to draw, in row-major order."""
        factor = 2 ** (len(self._vq.config.channel_multiplier) - 1)
        pixels = normalise(image, canvas, factor, self.prompter.image_processor)
        return self._vq.encode(pixels.to(self._vq.device)).image_tokens.flatten().tolist()

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        return unnormalise(self._vq.decode(codes.flatten(1).to(self._vq.device)), self.prompter.image_processor)

    def _code_head(self, code_ids: Tensor) -> Callable[[Tensor], Tensor]:
        return self.model.model.generation_head

    def _embed(self, ids: Tensor) -> Tensor:
        """Turn ids [r, T] of words, codes and features into vectors [r, T, D]."""
        v, n = self.prompter.vocabulary, self.prompter.n_features
        vectors: Tensor = self._embedding(ids.clamp(max=v.size - 1))
        if int(ids.max()) < v.size:
            return vectors
        codes = (ids - v.size).clamp(0, len(v.code_ids) - 1)
        made = self.model.prepare_embeddings_for_image_generation(codes).to(vectors.device, vectors.dtype)
        vectors = torch.where((ids >= v.size)[..., None], made, vectors)
        beyond = v.size + len(v.code_ids)
        offsets = (ids - beyond) % n  # within the image
        for first in sorted(set((ids - offsets)[ids >= beyond].tolist())):
            mine = ids - offsets == first
            vectors[mine] = self.features(self.prompter.images[first]).to(vectors.device, vectors.dtype)[offsets[mine]]
        return vectors


load = Janus
