"""Models that are asked without a chat template: about one picture, in words of their own kind. See `plain`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import BatchFeature

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.errors import MmgenError, UsageError
from mmgen.families import chat, chat_prompter, plain
from mmgen.families.generation import stream
from mmgen.request import Request
from mmgen.tasks import CAPTION


class Prompter(chat_prompter.Prompter):
    """Writes prompts for one checkpoint: its picture, and the user's words or those of its own kind.

    Attributes:
        row: how it is asked.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.row = cast(plain.Plain, plain.row(checkpoint))

    def words(self, request: Request) -> str:
        """Give the words of a prompt; the caption prompt that nobody typed becomes the model's own."""
        typed = "".join(part for part in request.parts if isinstance(part, str)).strip()
        return self.row.caption if typed == CAPTION else typed

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered, as far as that is known without looking at the images."""
        if request.text.json_schema is not None:
            raise UsageError(f"{self.name} was not made to answer in JSON", "leave --json-schema out")
        if request.history or request.template_args:
            raise UsageError(f"{self.name} has no chat template: it takes one question at a time", "ask it anew")
        if not request.images and not request.parts:
            raise MmgenError(f"{self.name} answers nothing without a picture", "give one with --image")
        if len(request.images) > 1:
            raise UsageError(f"{self.name} looks at one picture at a time", "give one picture")
        words = self.words(request)
        if words and not self.row.asks:
            raise UsageError(f"{self.name} describes pictures, and takes no words", "caption the picture")
        if words != self.row.caption:
            self.check_words([words])
        self.check_length(request, len(self.tokenizer(words)["input_ids"]))

    def write(self, requests: Sequence[Request]) -> BatchFeature:
        """Write requests with the same words as one batch.

        Raises:
            MmgenError: one has no picture, is too long, or has a picture that the processor cannot take.
        """
        if not all(request.images for request in requests):
            raise MmgenError(f"{self.name} answers nothing without a picture", "give one with --image")
        words = self.words(requests[0])
        text = {"text": [words] * len(requests), "padding": True} if words else {}
        images = [request.images[0].convert("RGB") for request in requests]
        return self.prepared(requests, partial(self.processor, images=images, **text))


class Captioner(chat.Chat):
    """A loaded checkpoint of such a type."""

    prompter: Prompter

    def kind(self, request: Request) -> object:
        """Say which requests are decoded alike: those with the same words."""
        return super().kind(request), self.prompter.words(request)

    def steps(self, inputs: BatchFeature, requests: Sequence[Request], n_tokens: int) -> Generator[Sequence[int]]:
        """Generate, and give the ids of each step, one for each request."""
        row, sampling, stops = self.prompter.row, requests[0].text, self.stops()
        if row.n_beams > 1 and sampling.temperature == 0:
            yield from self._by_beams(inputs, n_tokens)
            return
        seeds = [request.seed for request in requests]
        yield from stream(self.model, self.moved(inputs), sampling, seeds, n_tokens, () if row.ends_itself else stops)

    def _by_beams(self, inputs: BatchFeature, n_tokens: int) -> Iterator[Sequence[int]]:
        with torch.inference_mode():
            model: Any = self.model
            n_beams = self.prompter.row.n_beams
            out: Tensor = model.generate(
                **self.moved(inputs), max_new_tokens=n_tokens, num_beams=n_beams, do_sample=False
            )
        n_before = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        yield from out[:, n_before:].T.tolist()


load = Captioner
