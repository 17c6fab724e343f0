"""Prompts for any checkpoint that transformers lists as image-text-to-text, and what they take. See `chat`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import read_config
from mmgen.errors import MmgenError, TooLongError
from mmgen.families.processors import load_processor
from mmgen.families.templates import Template, refusal
from mmgen.request import WORDS, Request

# What processors were seen to raise over a picture of an odd shape.
_UNFIT = (MmgenError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError)


class Prompter:
    """Writes prompts for one checkpoint.

    Attributes:
        config: of the checkpoint.
        name: of the checkpoint, as the user called it.
        processor: transformers', of text and pictures.
        context: most positions of prompt and reply, if the config says.
        template: writes conversations.
        thought_marks: ids that begin and end thoughts; none, if the model does not think before it answers.

    Raises:
        MmgenError: transformers does not list it as image-text-to-text, or it has no processor that can run here.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise MmgenError(
                f'{checkpoint.name} is of model type "{checkpoint.model_type}", which mmgen does not know',
                "it takes the image-text-to-text models of the transformers that is installed",
            )
        self.config = read_config(CONFIG_MAPPING[checkpoint.model_type], checkpoint)
        self.context: int = getattr(self.config.get_text_config(), "max_position_embeddings", None) or 2**31
        self.name = checkpoint.name
        self.processor = load_processor(checkpoint)
        self.tokenizer: Any = self.processor.tokenizer
        self.template = Template(self.processor, checkpoint.name)
        self.tokenizer.padding_side = "left"
        self._measured: dict[tuple[int, int], tuple[int, int]] = {}  # by size of a picture
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        ids = self.tokenizer.convert_tokens_to_ids(self.template.thoughts or ())
        self.thought_marks: tuple[int, ...] = tuple(ids)
        # Special tokens, and any other added token of the template, stand for more than their letters.
        template = str(self.processor.chat_template or "")
        found = {
            token.content
            for token in self.tokenizer.added_tokens_decoder.values()
            if token.special or (token.content.strip() and token.content in template)
        }
        mark = str(getattr(self.processor, "image_token", None) or "")  # some are an AddedToken
        self._control_tokens = sorted({*found, mark} - {""}, key=len, reverse=True)

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered, as far as that is known without looking at the images.

        Raises:
            MmgenError: a question to a checkpoint without a chat template, a control token among the words that were
                typed, or a prompt that is too long by its words alone.
        """
        text = self.template.written(request)
        typed = [turn.parts for turn in request.turns if turn.role == "user"]  # an answer is the checkpoint's own
        self.check_words([part for parts in typed for part in parts if isinstance(part, str)])
        self.check_length(request, len(self.tokenizer(text, add_special_tokens=False)["input_ids"]))

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that the checkpoint would read as its own control tokens."""
        for token in self._control_tokens:
            if any(token in part for part in words):
                raise MmgenError(
                    f"the prompt says {token}, which is a control token of {self.name}",
                    f"write it in another way, such as {token[0]} {token[1:]}",
                )

    def write(self, requests: Sequence[Request]) -> BatchFeature:
        """Write requests that were checked as one batch, padded on the left; all are questions, or to be continued.

        Raises:
            MmgenError: any of them is too long with its images, or has one that the processor cannot take.
        """
        request = requests[0]
        if request.completion or self.template.takes_strings:
            images = [[image.convert("RGB") for image in request.images] for request in requests]
            text = [self.template.written(request) for request in requests]
            bos = self.tokenizer.bos_token  # which a template may have written
            marked = {"add_special_tokens": False} if bos and text[0].startswith(bos) else {}
            prepare = partial(self.processor, text=text, images=images if any(images) else None, padding=True, **marked)
        else:
            prepare = partial(
                self.processor.apply_chat_template,
                [self.template.messages(request) for request in requests],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True},
                **dict(request.template_args),
            )
        return self.prepared(requests, prepare)

    def prepared(self, requests: Sequence[Request], prepare: Callable[..., BatchFeature]) -> BatchFeature:
        """Let a processor prepare requests, and check their lengths."""
        try:
            inputs = prepare(return_tensors="pt")
        except ValueError as error:  # of an image that it cannot take
            raise refusal(self.name, error) from error
        for request, ids in zip(requests, self.prompt_ids(inputs, len(requests)), strict=True):
            self.check_length(request, len(ids))
        return inputs

    def prompt_ids(self, inputs: BatchFeature, n_rows: int) -> list[list[int]]:
        """List the ids that stand before each reply, without padding; none where an encoder reads them."""
        if "input_ids" not in inputs or self.config.is_encoder_decoder:
            return [[] for _ in range(n_rows)]
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        return [ids[own.bool()].tolist() for ids, own in zip(inputs["input_ids"], mask, strict=True)]

    def measure(self, request: Request) -> tuple[int, int]:
        """Say how many tokens a prompt is, and how many bytes the processor makes of its pictures.

        Blank pictures are measured, once for each size; sizes are rounded up by an eighth at most, so that those of a
        folder are few.
        """
        words = "".join(part for turn in request.turns for part in turn.parts if isinstance(part, str))
        n_tokens, n_bytes = len(self.tokenizer(words)["input_ids"]), 0
        for image in request.images:
            size = (_rounded_up(image.width), _rounded_up(image.height))
            if size not in self._measured:
                self._measured[size] = self._measure(size)
            n_tokens, n_bytes = n_tokens + self._measured[size][0], n_bytes + self._measured[size][1]
        return n_tokens, n_bytes

    def _measure(self, size: tuple[int, int]) -> tuple[int, int]:
        blank = Request((Image.new("RGB", size), "a"), WORDS, completion=self.processor.chat_template is None)
        try:
            inputs = self.write([blank])
        except TooLongError as error:
            return error.length, 0
        except _UNFIT:  # the item itself will say so
            return 0, 0
        shape = inputs["input_ids"].shape if "input_ids" in inputs else None
        tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
        return len(self.prompt_ids(inputs, 1)[0]), sum(value.nbytes for value in tensors if value.shape != shape)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn a reply's ids into text, without the special ones."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def check_length(self, request: Request, length: int, least: int = 1) -> None:
        """Refuse a prompt of a length that leaves no room for so many tokens."""
        if length + least > self.context:
            raise TooLongError(length, least, self.context, in_conversation=bool(request.history))


def _rounded_up(side_px: int) -> int:
    step = 1 << max(0, side_px.bit_length() - 4)
    return -(-side_px // step) * step
