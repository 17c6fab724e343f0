"""Any checkpoint that transformers lists as image-text-to-text: words about images. Knows no model by name.

Its own chat template writes the prompt, its own processor prepares the images, transformers' `generate` runs it. What a
user types is text: words that the checkpoint would read as its own control tokens are refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, wraps
from hashlib import sha256
from itertools import chain
from typing import Any, cast

import torch
from transformers import BatchFeature, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from mmgen.checkpoints import fit
from mmgen.checkpoints.loading import load_model
from mmgen.decoding.constraint import Constraint, own_tokenizer
from mmgen.decoding.pieces import Detokenizer
from mmgen.errors import MmgenError
from mmgen.families.chat_prompter import Prompter
from mmgen.families.generation import log_likelihoods, stream
from mmgen.families.in_memory import InMemoryModel, free_bytes
from mmgen.request import Done, Picture, Piece, Reason, Request, Thought

# Small, and some have inputs of four dimensions, on which bitsandbytes' search for outliers fails (0.50.2,
# backends/default/ops.py).
_PROJECTOR = "model.multi_modal_projector"


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
        self._n_prompt = len(prompt)
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
            yield Done(reason, self._n_words, n_prompt=self._n_prompt)


class Chat(InMemoryModel):
    """A loaded checkpoint with a chat template, or a base checkpoint without one.

    Attributes:
        model: the whole of it, or what words alone need until the first image comes.
    """

    prompter: Prompter
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
        if self.model is None and any(request.images for request in requests[:1]):
            self._check_fit(requests[0])
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
        if self._sees:
            _remember_images(self.model)
        # Its weights are here by now: the next load must not ask the network for them.
        self.checkpoint = replace(self.checkpoint, missing=(), missing_bytes=0)

    def _check_fit(self, request: Request) -> None:
        """Refuse pictures for which there is no memory beside the weights; say so if they take much of the context."""
        context, n_tokens = self.prompter.context, self.prompter.measure(request)[0]
        if n_tokens > context // 4:
            note = f"{n_tokens} of {context} tokens go to the pictures of one question; --max-pixels N makes them fewer"
            self.note = f"{self.note}. {note}" if self.note else note
        if self.loading.fit_check and self.checkpoint.n_bytes > fit.SMALL:
            machine = fit.look(with_gpus=self.loading.device_map != "cpu")
            fit.check(self.checkpoint, self.loading, machine, self.memory([request]))

    def memory(self, requests: Sequence[Request]) -> fit.Reply:
        """Say what memory requests take that are answered at once, beside the weights."""
        measured = [self.prompter.measure(request) for request in requests]
        lengths, n_bytes = [n for n, _ in measured], sum(n for _, n in measured)
        n_padded = len(requests) * max(lengths)
        dtype = fit.dtype_name(self.loading, self.checkpoint.n_bytes, on_gpu=torch.cuda.is_available())
        passing = fit.looking_bytes(self.checkpoint, dtype, n_padded, n_bytes)
        if len({*lengths}) > 1:  # then attention takes a mask: of truth values, and once more of numbers
            passing += 5 * n_padded * max(lengths)
        return fit.Reply(n_padded + len(requests) * requests[0].text.max_tokens, passing)

    def count_fitting(self, requests: Sequence[Request]) -> int:
        """Say how many of these, from the first, fit into half of the memory that is free."""
        n_rows = len(requests)
        if not any(request.images for request in requests):
            return n_rows
        room = free_bytes(self.model.device) // 2
        per_token = fit.cache_per_token(self.checkpoint, str(self.model.dtype).removeprefix("torch."))
        while n_rows > 1:
            takes = self.memory(requests[:n_rows])
            if takes.tokens * per_token + takes.decoding <= room:
                break
            n_rows -= 1
        return n_rows

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
        seeds, text = [request.seed for request in requests], requests[0].text
        constraints: list[Constraint | None] = [None] * len(requests)
        if text.json_schema is not None:
            marks = self.prompter.thought_marks
            for row, ids in enumerate(self.prompter.prompt_ids(inputs, len(requests))):
                thinks = [id_ for id_ in ids if id_ in marks][-1:] == [*marks[:1]] != []
                opens_after = marks[1] if thinks else None
                constraints[row] = Constraint(self._own_tokenizer, text.json_schema, self.stops(), opens_after)
        yield from stream(self.model, self.moved(inputs), text, seeds, n_tokens, self.stops(), constraints)

    @property
    def _n_ids(self) -> int:
        """Count the ids that a choice is made of; some heads have none for the id that stands for an image."""
        return max(self.model.get_output_embeddings().weight.shape[0], len(self.prompter.tokenizer))

    @cached_property
    def _own_tokenizer(self) -> Any:
        return own_tokenizer(self.prompter.tokenizer.backend_tokenizer.to_str(), self._n_ids, self.stops())

    def likelihoods(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely a batch of answers is, as `score` does."""
        words = [answer for answer in answers if isinstance(answer, str)]
        if len(words) < len(answers):
            raise MmgenError(f"{self.name} cannot say how likely a picture is", "give answers in words")
        self.prompter.check_words(words)
        ids = self.prompter.tokenizer(words, add_special_tokens=False)["input_ids"]
        inputs = self.prompter.write([request] * len(ids))
        prompt = self.prompter.prompt_ids(inputs, 1)[0]
        if (
            [id_ for id_ in prompt if id_ in self.prompter.thought_marks][-1:]
            == [*self.prompter.thought_marks[:1]]
            != []
        ):
            hint = "a template may take --template-arg enable_thinking=false"
            raise MmgenError(f"{self.name} thinks before it answers: no answer is likely by itself", hint)
        self.prompter.check_length(request, len(prompt), max(map(len, ids)))
        return log_likelihoods(self.model, self.moved(inputs), ids, self.stops())

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


def _remember_images(model: PreTrainedModel) -> None:
    """Let a model keep what its vision tower made of the last images: asked about them again, it need not look again.

    Models of transformers that have `get_image_features` call it on the part that a head is put on.
    """
    inner: Any = getattr(model, "model", None)
    if not hasattr(inner, "get_image_features"):
        return
    look = inner.get_image_features
    kept: dict[bytes, Any] = {}

    @wraps(look)  # `generate` asks for its signature
    def recall(*args: Any, **kwargs: Any) -> Any:
        named, digest = dict[Any, Any](enumerate(args)) | kwargs, sha256()
        for name, value in named.items():
            if isinstance(value, torch.Tensor):
                bits = value.contiguous().flatten().view(torch.uint8).cpu().numpy()
                digest.update(f"{name} {value.shape} {value.dtype}".encode() + bytes(bits))
            elif value is None or isinstance(value, str | int | float):
                digest.update(f"{name} {value!r}".encode())
            else:  # whatever it is, it may differ where it looks the same
                return look(*args, **kwargs)
        if digest.digest() not in kept:
            kept.clear()
            kept[digest.digest()] = look(*args, **kwargs)
        return kept[digest.digest()]

    inner.get_image_features = recall
