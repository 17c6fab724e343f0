"""From requests to what a model of words and pictures is fed: by the checkpoint's own chat template and processor.

Knows no format by name. What a user types is text: words that the checkpoint would read as its own control tokens
are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jinja2
from transformers import BatchFeature
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import AutoProcessor

from mmgen.checkpoints import machine
from mmgen.checkpoints.loading import one_line, read_config
from mmgen.errors import MmgenError, TooLongError
from mmgen.request import Part, Request

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint

_EXTRAS = ("torchvision", "num2words")  # packages that some processors want


class Prompter:
    """Writes prompts for one checkpoint.

    Attributes:
        config: of the checkpoint.
        context: most positions of prompt and reply; None if the config does not say.

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
        self._name = checkpoint.name
        self._processor = _load_processor(checkpoint)
        self.tokenizer: Any = self._processor.tokenizer
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.context: int | None = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        self._template: str | dict[str, str] | None = self._processor.chat_template
        self._picture_mark: str | None = getattr(self._processor, "image_token", None)
        self._control_tokens = self._find_control_tokens()

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered, as far as that is known without looking at the pictures.

        Raises:
            MmgenError: a question to a checkpoint without a chat template, a control token among the words that were
                typed, or a prompt that is too long by its words alone.
        """
        if request.completion and request.history:
            raise MmgenError("a text to continue has no earlier turns", "leave out --complete, or the history")
        if not request.completion and self._template is None:
            raise MmgenError(
                f"{self._name} has no chat template: it continues texts and answers no questions",
                "give it the beginning of a text, with --complete",
            )
        if self._picture_mark is None and request.completion and request.images:
            raise MmgenError(
                f"{self._name} cannot continue a text with pictures: its processor names no token for them",
                "leave out the pictures, or --complete",
            )
        typed = [turn.parts for turn in request.history if turn.role == "user"]  # an answer is the checkpoint's own
        for text in (part for parts in (*typed, request.parts) for part in parts if isinstance(part, str)):
            self._check_words(text)
        written = self._written(request)
        self._check_length(request, len(self.tokenizer(written, add_special_tokens=False)["input_ids"]))

    def write(self, requests: Sequence[Request]) -> BatchFeature:
        """Write requests as one batch, padded on the left; all are questions or all are texts to continue.

        Raises:
            MmgenError: any of them cannot be answered.
        """
        if requests[0].completion:
            images = [[image.convert("RGB") for image in request.images] for request in requests]
            text = [self._written(request) for request in requests]
            prepare = partial(self._processor, text=text, images=images if any(images) else None, padding=True)
        else:
            prepare = partial(
                self._processor.apply_chat_template,
                [_messages(request) for request in requests],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True},
            )
        try:
            inputs: BatchFeature = prepare(return_tensors="pt")
        except ValueError as error:  # what a processor says of a picture that it cannot take
            raise self._refusal(error) from error
        for request, length in zip(requests, inputs["attention_mask"].sum(1).tolist(), strict=True):
            self._check_length(request, length)
        return inputs

    def decode(self, ids: Sequence[int]) -> str:
        """Turn a reply's ids into text, without the special ones."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _check_length(self, request: Request, length: int) -> None:
        if self.context is not None and length + 1 > self.context:
            raise TooLongError(length, 1, self.context, in_conversation=bool(request.history))

    def _written(self, request: Request) -> str:
        """Write a prompt as text, with one mark in place of each picture."""
        if request.completion:
            return "".join(part if isinstance(part, str) else self._picture_mark or "" for part in request.parts)
        try:
            written: str = self._processor.apply_chat_template(
                _messages(request), add_generation_prompt=True, tokenize=False
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:  # the template is the checkpoint's, not ours
            raise self._refusal(error) from error
        return written

    def _refusal(self, error: Exception) -> MmgenError:
        return MmgenError(
            f"{self._name} cannot take this prompt: {one_line(error)}", "change the prompt, or the pictures in it"
        )

    def _check_words(self, text: str) -> None:
        found = next((token for token in self._control_tokens if token in text), None)
        if found is not None:
            raise MmgenError(
                f"the prompt says {found}, which is a control token of {self._name}",
                f"write it in another way, such as {found[0]} {found[1:]}",
            )

    def _find_control_tokens(self) -> list[str]:
        """List what stands for more than its letters: special tokens, and any other added token of the template."""
        template = self._template or ""
        written = template if isinstance(template, str) else "".join(template.values())
        found = {
            token.content
            for token in self.tokenizer.added_tokens_decoder.values()
            if token.special or (token.content.strip() and token.content in written)
        }
        return sorted({*found, self._picture_mark or ""} - {""}, key=len, reverse=True)


def _messages(request: Request) -> list[dict[str, Any]]:
    """Write a conversation as chat templates take it (transformers, docs/source/en/chat_templating_multimodal.md)."""
    return [{"role": turn.role, "content": [_content(part) for part in turn.parts]} for turn in request.turns]


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": part.convert("RGB")}


def _load_processor(checkpoint: Checkpoint) -> Any:
    """Load what prepares text and pictures, and see that it can do both."""
    try:
        processor = AutoProcessor.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (ImportError, ValueError, OSError) as error:
        package = next((name for name in _EXTRAS if name in str(error).lower()), None)
        if package is None or isinstance(error, OSError):  # which may have it in a path
            raise _no_processor(checkpoint, error) from error
        raise MmgenError(
            f"{checkpoint.name} needs the package {package} to prepare pictures", machine.install_command(package)
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise _no_processor(checkpoint, None)
    return processor


def _no_processor(checkpoint: Checkpoint, error: Exception | None) -> MmgenError:
    why = f": {one_line(error).partition('. If you were')[0]}" if error else ""  # it goes on about the Hub
    return MmgenError(
        f"{checkpoint.name} has no processor for text and pictures{why}",
        "copy processor_config.json or preprocessor_config.json beside the weights",
    )
