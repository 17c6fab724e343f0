"""Any checkpoint that transformers lists as image-text-to-text: words about pictures. Knows no model by name.

Its own chat template writes the prompt, its own processor prepares the pictures, transformers' `generate` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import load_model
from mmgen.decoding.pieces import Detokenizer
from mmgen.families.chat_inputs import Prompter
from mmgen.families.generation import stream
from mmgen.families.in_memory import InMemoryModel
from mmgen.model import Abilities
from mmgen.request import Done, Loading, Piece, Reason, Request

# Small, and some have inputs of four dimensions, on which bitsandbytes' search for outliers fails (0.50.2,
# backends/default/ops.py).
_PROJECTOR = "model.multi_modal_projector"


def load(
    checkpoint: Checkpoint, loading: Loading, abilities: Abilities, prompter: Prompter, requests: Sequence[Request]
) -> Chat:
    """Load a checkpoint of any model type that is image-text-to-text for transformers.

    Args:
        requests: what it will be asked first, if known. If none has a picture, what only pictures need is left out
            where the model can do without.

    Raises:
        MmgenError: the one request that there is cannot be answered, or the weights do not fit.
    """
    if len(requests) == 1:
        prompter.write(requests)  # looks at the pictures too; with many that would take as long as answering
    sees = not requests or any(request.images for request in requests)
    return Chat(checkpoint, loading, abilities, prompter, sees)


class Chat(InMemoryModel):
    """A loaded checkpoint with a chat template, or a base checkpoint without one.

    Attributes:
        model: the transformers model: the whole of it, or what words alone need until the first picture comes.
    """

    prompter: Prompter
    model: PreTrainedModel
    most_rows = 8

    def __init__(
        self, checkpoint: Checkpoint, loading: Loading, abilities: Abilities, prompter: Prompter, sees: bool
    ) -> None:
        super().__init__(checkpoint, abilities, prompter)
        self._checkpoint, self._loading = checkpoint, loading
        self._holds: Literal["nothing", "words", "everything"] = "nothing"
        self._hold(sees)

    def prepare(self, requests: Sequence[Request]) -> None:
        """Load what is for pictures, if there are any."""
        self._hold(any(request.images for request in requests))

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        """Answer requests of one kind."""
        inputs = self.prompter.write(requests)
        room = requests[0].text.max_tokens
        limits = [room] * len(requests)
        if self.prompter.context is not None:
            limits = [min(room, self.prompter.context - n) for n in inputs["attention_mask"].sum(1).tolist()]
        texts = [Detokenizer(self.prompter.decode, strip=not request.completion) for request in requests]
        if requests[0].completion:
            for text, last in zip(texts, inputs["input_ids"][:, -1].tolist(), strict=True):
                text.push(last)  # a first word keeps the space before it only after another
        stops, seeds = self._stops(), [request.seed for request in requests]
        under_way = dict.fromkeys(range(len(requests)), 0)  # the words that each has
        with closing(stream(self.model, self._moved(inputs), requests[0].text, seeds, max(limits), stops)) as steps:
            for ids in chain(steps, [None]):  # None: the checkpoint has a way of its own to stop
                for row in list(under_way):
                    reason: Reason | None = None
                    if ids is None or ids[row] in stops:
                        reason = "end"
                    else:
                        under_way[row] += 1
                        if new := texts[row].push(ids[row]):
                            yield row, new
                        if requests[row].cancelled.is_set():
                            reason = "cancelled"
                        elif under_way[row] == limits[row]:
                            reason = "length"
                    if reason is not None:
                        if new := texts[row].end():
                            yield row, new
                        yield row, Done(reason, under_way.pop(row))
                if not under_way:
                    return

    def _hold(self, sees: bool) -> None:
        """Have the model in memory: all of it if it has to see, else what words need if it has a class for that."""
        if self._holds == "everything" or (self._holds == "words" and not sees):
            return
        if self._holds == "words":
            del self.model  # to make room
            self._holds = "nothing"
        config = self.prompter.config
        whole = cast(type[PreTrainedModel], MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
        words = None if sees else _class_for_words(config)
        anything = ("",)  # as a prefix: what is stored for pictures has no place in a model of words
        self.model = load_model(
            words or whole,
            self._checkpoint,
            self._loading,
            keep_whole=[_PROJECTOR],
            may_ignore=() if words is None else anything,
        )
        # Its weights are here by now: the next load must not ask the network for them.
        self._checkpoint = replace(self._checkpoint, missing=(), missing_bytes=0)
        self._holds = "everything" if words is None else "words"

    def _moved(self, inputs: Any) -> dict[str, torch.Tensor]:
        """Bring inputs to the model's device, and pictures into the type of its weights."""
        if self._holds == "words":
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        device = self.model.device
        moved = {}
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                dtype = self.model.dtype if value.is_floating_point() else value.dtype
                # A model that is partly offloaded fetches its inputs itself.
                value = value.to(dtype) if device.type == "meta" else value.to(device, dtype)
            moved[name] = value
        return moved

    def _stops(self) -> list[int]:
        """List the ids that end a reply: the checkpoint's own, or else the tokenizer's."""
        generation = self.model.generation_config
        stops = generation.eos_token_id if generation is not None else None
        if stops is None:
            stops = self.prompter.tokenizer.eos_token_id
        return stops if isinstance(stops, list) else [] if stops is None else [cast(int, stops)]


def _class_for_words(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Find the class that runs a checkpoint's language model by itself, where transformers has one."""
    found = cast(type[PreTrainedModel] | None, MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None))
    is_text_alone = found is not None and found.config_class is config.sub_configs.get("text_config")
    return found if is_text_alone else None
