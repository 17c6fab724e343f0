"""Janus and Janus-Pro: words about pictures, and pictures from words. Knows nothing of the command line.

Janus: arXiv 2410.13848; Janus-Pro: arXiv 2501.17811. One language model with two ways in for pictures: features of a
vision tower to look at, VQ codes to draw. For our loops these become ids beyond the words': first a code c as V + c,
then every feature of every picture that was asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import cast
from weakref import WeakValueDictionary

import torch
from PIL import Image
from torch import Tensor
from transformers.models.janus.configuration_janus import JanusConfig, JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusForConditionalGeneration, JanusVQVAE
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import read_config, read_image_processor
from mmgen.decoding.grammar import PromptIds
from mmgen.families.autoregressive import AutoregressiveModel, load_with_codec, unnormalise
from mmgen.families.template_prompt import TemplatePrompter
from mmgen.model import Abilities
from mmgen.request import WORDS, Loading, Request

_KEEP_WHOLE = ("model.generation_aligner", "model.generation_head")  # 4-bit weights need inputs of 64 values, not of 8


class JanusWithCodec(JanusForConditionalGeneration):
    """Stock Janus with its VQ in float32 and on one device, as pixels are best made."""

    # Plain lists, as transformers declares them.
    _keep_in_fp32_modules_strict = ["vqmodel"]  # noqa: RUF012
    _no_split_modules = [*JanusForConditionalGeneration._no_split_modules, "JanusVQVAE"]  # noqa: RUF012


class Prompter(TemplatePrompter):
    """Writes prompts for one checkpoint of model type "janus"."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = read_config(JanusConfig, checkpoint)
        vision = cast(JanusVisionConfig, config.vision_config)
        super().__init__(checkpoint, config.get_text_config().max_position_embeddings)
        self.image_processor = read_image_processor(checkpoint)
        self.n_features: int = vision.num_image_tokens
        size, n_codes = config.get_text_config().vocab_size, cast(JanusVQVAEConfig, config.vq_config).num_patches ** 2
        self.vocabulary = self.make_vocabulary("boi_token", size=size, n_codes=n_codes)
        pad = self.generation.get("pad_token_id")
        self._pad: int = self.named("pad_token") if pad is None else pad
        self._has_system_prompt = bool(checkpoint.read_json("processor_config.json").get("use_default_system_prompt"))

    def picture_length(self, image: Image.Image) -> int:
        """Say how many ids a picture in a prompt takes: begin-image, features, end-of-image."""
        return self.n_features + 2

    def canvas(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Lead away from a prompt of the same length that says nothing (transformers, modeling_janus.py, generate)."""
        v = self.vocabulary
        nothing = tuple(id_ if id_ in (v.bos, v.begin_image) else self._pad for id_ in ids)
        return PromptIds(tuple(ids), unconditional=nothing)

    def preface(self, request: Request) -> str:
        """Put the system prompt before questions where the processor does; never before what is to be drawn."""
        asked = request.want == WORDS and not request.completion
        return DEFAULT_SYSTEM_PROMPT if asked and self._has_system_prompt else ""


def load(
    checkpoint: Checkpoint, loading: Loading, abilities: Abilities, prompter: Prompter, _: Sequence[Request]
) -> Janus:
    """Load a checkpoint of model type "janus"."""
    model = load_with_codec(JanusWithCodec, checkpoint, loading, _KEEP_WHOLE)
    return Janus(checkpoint, abilities, prompter, model, loading.window)


class Janus(AutoregressiveModel):
    """A loaded Janus checkpoint."""

    prompter: Prompter
    model: JanusWithCodec
    _vq: JanusVQVAE

    def __init__(
        self,
        checkpoint: Checkpoint,
        abilities: Abilities,
        prompter: Prompter,
        model: JanusWithCodec,
        window: int | None,
    ) -> None:
        self._n_words = prompter.vocabulary.size
        self._n_codes: int = cast(JanusVQVAE, model.model.vqmodel).config.num_embeddings
        self._pictures: WeakValueDictionary[int, Image.Image] = WeakValueDictionary()  # as long as a request has them
        self._numbers = count()
        code_ids = range(self._n_words, self._n_words + self._n_codes)
        super().__init__(checkpoint, abilities, prompter, model, window, code_ids, model.model.generation_head)

    def picture_ids(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Give each picture the next ids that are free; it is looked at when they are read."""
        v, n = self.prompter.vocabulary, self.prompter.n_features
        found = []
        for image in images:
            number = next(self._numbers)
            self._pictures[number] = image
            first = self._n_words + self._n_codes + number * n
            found.append([v.begin_image, *range(first, first + n), v.end_image])
        return found

    @torch.inference_mode()
    def features(self, image: Image.Image) -> Tensor:
        """Look at a picture: [n, D], a vector for each place it takes in a prompt."""
        pixels = self.prompter.image_processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]
        weight = self._embedding.weight
        seen = self.model.model.get_image_features(pixels.to(weight.device, weight.dtype), return_dict=True)
        return seen.pooler_output[0]

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        pixels = self._vq.decode(cast(torch.LongTensor, codes.flatten(1).to(self._vq.device)))
        return unnormalise(pixels, self.prompter.image_processor)

    def _embed(self, ids: Tensor) -> Tensor:
        """Turn ids [r, T] of words, codes and features into vectors [r, T, D]."""
        vectors: Tensor = self._embedding(ids.clamp(max=self._n_words - 1))
        if int(ids.max()) < self._n_words:
            return vectors
        codes = ids - self._n_words
        made = self.model.prepare_embeddings_for_image_generation(codes.clamp(0, self._n_codes - 1))
        vectors = torch.where((codes >= 0)[..., None], made.to(vectors.device, vectors.dtype), vectors)
        places = codes - self._n_codes
        numbers = places.div(self.prompter.n_features, rounding_mode="floor")
        for number in sorted(set(numbers[places >= 0].tolist())):
            mine = numbers == number
            features = self.features(self._pictures[number]).to(vectors.device, vectors.dtype)
            vectors[mine] = features[places[mine] % self.prompter.n_features]
        return vectors
