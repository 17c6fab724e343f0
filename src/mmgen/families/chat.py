"""Any checkpoint that transformers lists as image-text-to-text: words about images. Knows no model by name.

Its own chat template writes the prompt, its own processor prepares the images, transformers' `generate` runs it. What a
user types is text: words that the checkpoint would read as its own control tokens are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from transformers import BatchFeature, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import load_model, read_config
from mmgen.decoding.replies import Detokenizer
from mmgen.errors import MmgenError, TooLongError
from mmgen.families.generation import log_likelihoods, stream
from mmgen.families.in_memory import InMemoryModel
from mmgen.families.processors import load_processor
from mmgen.families.templates import Template, refusal
from mmgen.request import Done, Picture, Piece, Reason, Request, Thought

# Small, and some have inputs of four dimensions, on which bitsandbytes' search for outliers fails (0.50.2,
# backends/default/ops.py).
_PROJECTOR = "model.multi_modal_projector"


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

    def decode(self, ids: Sequence[int]) -> str:
        """Turn a reply's ids into text, without the special ones."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def check_length(self, request: Request, length: int) -> None:
        if length + 1 > self.context:
            raise TooLongError(length, 1, self.context, in_conversation=bool(request.history))


class Reply:
    """One reply under way: its thoughts, if the model thinks before it answers, and its answer.

    Args:
        prompt: ids before it, which may open the thoughts.

    Attributes:
        most_tokens: that it may take in all.
    """

    def __init__(self, prompter: Prompter, request: Request, prompt: Sequence[int]) -> None:
        self._request, sampling = request, request.text
        self._room = room = prompter.context - len(prompt)
        self._decode, self._marks = prompter.decode, prompter.thought_marks
        self._text = Detokenizer(prompter.decode, strip=not request.completion)
        if request.completion and prompt:
            self._text.push(prompt[-1])  # a first word keeps the space before it only after another
        self._n_thoughts = self._n_words = 0
        marks = [id_ for id_ in prompt if id_ in self._marks]
        self._thinks = bool(marks) and marks[-1] == self._marks[0]  # the prompt opens them
        self._most_thoughts = min(sampling.max_thought_tokens or room, room)
        self._most_words = sampling.max_tokens
        self.most_tokens = min(room, self._most_words + self._most_thoughts * bool(self._marks))
        self.is_over = False

    def push(self, id_: int) -> Iterator[Piece | Done | MmgenError]:
        """Take one more id."""
        begin, end = self._marks or (None, None)
        if self._thinks or (id_ == begin and not self._n_words):
            self._n_thoughts += 1
            new = "" if id_ in (begin, end) else self._text.push(id_)
            if id_ == end:
                new = self._text.end()
                self._text = Detokenizer(self._decode, strip=True)
            self._thinks = id_ != end
            if new:
                yield Thought(new)
        else:
            self._n_words += 1
            if new := self._text.push(id_):
                yield new
        if self._request.cancelled.is_set():
            yield from self.end("cancelled")
        n_left = min(self._most_words - self._n_words, self._room - self._n_words - self._n_thoughts)
        if not self.is_over and (n_left == 0 or (self._thinks and self._n_thoughts == self._most_thoughts)):
            yield from self.end("length")

    def end(self, reason: Reason) -> Iterator[Piece | Done | MmgenError]:
        """End it: in an error, if there were thoughts and no answer."""
        self.is_over = True
        new = self._text.end()
        if new:
            yield Thought(new) if self._thinks else new
        if self._n_thoughts and not self._n_words and reason != "cancelled":
            yield MmgenError(
                f"{self._n_thoughts} tokens of thought, and no answer",
                "allow more with --max-thought-tokens, or try --template-arg enable_thinking=false",
            )
        else:
            yield Done(reason, self._n_words)


class Chat(InMemoryModel):
    """A loaded checkpoint with a chat template, or a base checkpoint without one.

    Attributes:
        model: the whole of it, or what words alone need until the first image comes.
    """

    prompter: Prompter
    most_rows = 8
    _sees = False

    def load_for(self, requests: Sequence[Request]) -> None:
        """Load the weights; without what only images need, as long as no request has one, where the model allows it.

        Raises:
            MmgenError: the one request that there is cannot be answered, or the weights do not fit.
        """
        sees = not requests or any(request.images for request in requests)
        if self.model is not None and (self._sees or not sees):
            return
        if self.model is None and len(requests) == 1:
            self.prompter.write(requests)  # looks at the images too; with many that would take as long as answering
        self.model = None  # to make room
        config = self.prompter.config
        model_class = cast(type[PreTrainedModel], MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
        of_words: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        self._sees = sees or of_words is None or of_words.config_class is not config.sub_configs.get("text_config")
        self.model = load_model(
            model_class if self._sees else of_words,
            self.checkpoint,
            self.loading,
            keep_whole=[_PROJECTOR],
            may_ignore=() if self._sees else ("",),  # what is stored for images has no place in a model of words
        )
        # Its weights are here by now: the next load must not ask the network for them.
        self.checkpoint = replace(self.checkpoint, missing=(), missing_bytes=0)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer requests of one kind."""
        inputs = self.prompter.write(requests)
        prompts = self.prompter.prompt_ids(inputs, len(requests))
        replies = {row: Reply(self.prompter, request, prompts[row]) for row, request in enumerate(requests)}
        n_tokens = max(reply.most_tokens for reply in replies.values())
        stops = self.stops()
        with closing(self.steps(inputs, requests, n_tokens)) as steps:
            for ids in chain(steps, [None]):  # None: the checkpoint has a way of its own to stop
                for row, reply in list(replies.items()):
                    is_over = ids is None or ids[row] in stops
                    for piece in reply.end("end") if ids is None or is_over else reply.push(ids[row]):
                        yield row, piece
                    if reply.is_over:
                        del replies[row]
                if not replies:
                    return

    def steps(self, inputs: BatchFeature, requests: Sequence[Request], n_tokens: int) -> Generator[Sequence[int]]:
        """Generate, and give the ids of each step, one for each request."""
        seeds = [request.seed for request in requests]
        yield from stream(self.model, self.moved(inputs), requests[0].text, seeds, n_tokens, self.stops())

    def score(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely whole answers are, in nats; see Model."""
        words = [answer for answer in answers if isinstance(answer, str)]
        if len(words) < len(answers):
            return super().score(request, answers)
        self.load_for([request])
        ids = self.prompter.tokenizer(words, add_special_tokens=False)["input_ids"]
        inputs = self.moved(self.prompter.write([request] * len(ids)))
        return log_likelihoods(self.model, inputs, ids, self.stops())

    def moved(self, inputs: BatchFeature) -> dict[str, torch.Tensor]:
        """Bring inputs to the model's device, and images into the type of its weights."""
        device = "cpu" if self.model.device.type == "meta" else self.model.device  # offloaded, it fetches them itself
        moved = dict(inputs.to(device, dtype=self.model.dtype))
        return {name: moved[name] for name in ("input_ids", "attention_mask")} if not self._sees else moved

    def stops(self) -> list[int]:
        """List the ids that end a reply: the checkpoint's own, or else the tokenizer's."""
        stops = getattr(self.model.generation_config, "eos_token_id", None)
        if stops is None:
            stops = self.prompter.tokenizer.eos_token_id
        return stops if isinstance(stops, list) else [] if stops is None else [stops]


load = Chat
