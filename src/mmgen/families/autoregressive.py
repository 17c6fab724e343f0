"""A family whose replies our own decoding loops make: requests in batches, prompts to pieces. Knows no one family.

A family writes its prompts and gives its network; what a request gets does not depend on those decoded beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mmgen.ahead import side_by_side
from mmgen.checkpoints import machine
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.fit import SMALL
from mmgen.checkpoints.loading import load_model, ran_out_of_memory
from mmgen.checkpoints.packing import packed
from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import Prompt
from mmgen.decoding.replies import Speaker, draw, say, tell
from mmgen.decoding.stepwise import Network
from mmgen.errors import MmgenError, OutOfMemoryError
from mmgen.families.attention import ask_twice
from mmgen.families.token_prompt import TokenPrompter
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, PICTURES, WORDS, Done, Loading, Picture, Piece, Request

ModelT = TypeVar("ModelT", bound=PreTrainedModel)

_CODEC = "model.vqmodel"  # never quantised: its errors would show in every pixel
_MOST_REQUESTS = 16  # in one batch; more gain little, and the first result comes later


class SpeakingModel(Model):
    """A loaded checkpoint of such a family.

    Args:
        window: see request.Loading.
        code_ids: code_ids[c] is the id of VQ code c; as the vocabulary says, if not given.
        code_head: hidden [..., D] -> logits [..., K] over the codes; the codes' rows of the model's head, if not given.

    Attributes:
        model: the transformers model.
        prompter: writes its prompts.
        speaker: what the decoding loops need of it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        abilities: Abilities,
        prompter: TokenPrompter,
        model: PreTrainedModel,
        window: int | None,
        code_ids: Sequence[int] | None = None,
        code_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.revision, self.note = checkpoint.name, checkpoint.revision, checkpoint.note
        self.abilities, self.prompter, self.model = abilities, prompter, model
        self._language_model: torch.nn.Module = model.get_decoder()
        self._embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
        self._vq = model.get_submodule(_CODEC)
        self._is_small = model.device.type == "cpu" and checkpoint.n_bytes <= SMALL
        self._n_lanes = torch.get_num_threads() if self._is_small else 1  # of batches side by side
        v, head = prompter.vocabulary, cast(torch.nn.Linear, model.lm_head)
        ids = torch.tensor(v.code_ids if code_ids is None else code_ids, device=self._embedding.weight.device)
        code_head = code_head or CodeHead(head, ids)
        model.lm_head = packed(head)
        ask_twice(model)
        network = Network(self._body, model.lm_head, code_head, ids)
        self.speaker = Speaker(
            network, v, prompter.context, prompter.decode, self.decode, window, is_small=self._is_small
        )

    @abstractmethod
    def picture_ids(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Turn pictures into the ids that stand for each in a prompt."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""

    def prompt(self, request: Request) -> Prompt:
        """Write a request's prompt.

        Raises:
            MmgenError: too long for the context, or beyond what the checkpoint can do.
        """
        self._check(request)
        return self._write([request])[0]

    def reply(self, request: Request) -> Iterator[Piece]:
        """Answer one request, piece by piece."""
        for _, piece in self._answer([request], [self.prompt(request)]):
            yield piece

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer many requests, those that are decoded alike in batches; each gets what it would get alone."""
        n_lanes = min(self._n_lanes, len(requests)) or 1

        def lane(first: int) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
            for index, piece in self._lane(requests[first::n_lanes]):
                yield first + index * n_lanes, piece

        yield from side_by_side([lane(first) for first in range(n_lanes)])

    def _lane(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        checked: list[int] = []
        for index, request in enumerate(requests):
            try:
                self._check(request)
            except MmgenError as error:
                yield index, error
            else:
                checked.append(index)
        prompts = dict(zip(checked, self._write([requests[index] for index in checked]), strict=True))
        alike: dict[object, list[int]] = {}
        for index, prompt in prompts.items():
            request = requests[index]
            kind = (request.want, request.text, request.image, bool(prompt.pictures), prompt.grid)
            alike.setdefault(index if request.want == BOTH else kind, []).append(index)
        for indices in alike.values():
            indices.sort(key=lambda index: len(prompts[index].ids))  # those of one length waste no padding
            size = self._group_size(requests[indices[0]], [prompts[index] for index in indices])
            for start in range(0, len(indices), size):
                group = indices[start : start + size]
                ended: Done | MmgenError = Done()
                whole: set[int] = set()  # pictures, some of which are there before the others
                try:
                    for position, piece in self._answer([requests[i] for i in group], [prompts[i] for i in group]):
                        yield group[position], piece
                        if isinstance(piece, Picture) and requests[group[position]].want == PICTURES:
                            whole.add(group[position])
                except MmgenError as error:
                    ended = error
                for index in group:
                    yield index, Done() if index in whole else ended

    def _check(self, request: Request) -> None:
        self.abilities.check(self.name, request.want, [request])
        self.prompter.check(request)

    def _write(self, requests: Sequence[Request]) -> list[Prompt]:
        """Write the prompts of requests that were checked, all their pictures seen together."""
        images = {id(image): image for request in requests for image in request.images}
        with self._threads():
            ids = dict(zip(images, self.picture_ids(list(images.values())), strict=True))
        return [self.prompter.write(request, lambda image: ids[id(image)]) for request in requests]

    def _answer(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> Iterator[tuple[int, Piece]]:
        want = requests[0].want
        pieces: Iterator[tuple[int, Piece]]
        if want == BOTH:
            pieces = ((0, piece) for piece in tell(self.speaker, requests[0], prompts[0]))
        else:
            pieces = (say if want == WORDS else draw)(self.speaker, requests, prompts)
        while True:
            try:
                # For each piece anew: neither must leak to the caller in between.
                with torch.inference_mode(), self._threads():
                    found = next(pieces, None)
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"{self.name} ran out of memory", "ask for fewer at once, or try --quantize 4bit"
                ) from error
            if found is None:
                return
            yield found

    def _embed(self, ids: Tensor) -> Tensor:
        """Turn ids [r, T] into vectors [r, T, D]."""
        return self._embedding(ids)

    def _body(self, ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        """See decoding.stepwise.Network."""
        mask = None  # plain causal order
        if visible is not None:
            dtype = self._embedding.weight.dtype
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)  # transformers adds it to the scores
            mask.masked_fill_(~visible, torch.finfo(dtype).min)
        return self._language_model(
            inputs_embeds=self._embed(ids),
            position_ids=positions,
            past_key_values=cache,
            attention_mask=mask,
            use_cache=True,
        ).last_hidden_state

    def _group_size(self, request: Request, prompts: Sequence[Prompt]) -> int:
        """How many requests to decode at once: what half of the free memory can cache, and not beyond the gain."""
        config = self.model.config.get_text_config()
        n_heads = config.num_key_value_heads or config.num_attention_heads
        n_values = n_heads * config.hidden_size // config.num_attention_heads  # of a key, and of a value
        per_token = 2 * config.num_hidden_layers * n_values * self._embedding.weight.element_size()
        draws = request.want != WORDS
        n_tokens = max(len(prompt.ids) for prompt in prompts)
        n_places = self.speaker.vocabulary.canvas(prompts[0].grid).n_places
        n_tokens += n_places + 1 if draws else request.text.max_tokens
        n_rows = 3 if draws else 1
        n_bytes = _free_bytes(self.model.device) // 2 // self._n_lanes
        return max(1, min(_MOST_REQUESTS, n_bytes // (n_rows * n_tokens * per_token)))

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Compute in one thread where the model is small: it would wait for the others more than it gains."""
        if not self._is_small:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class CodeHead:
    """The rows of the head that belong to image codes, in the order of the codes: hidden [..., D] -> logits [..., K].

    Inside a picture nothing else may follow, and the head's other rows are most of its bytes. Where weights are packed
    they are a copy.
    """

    def __init__(self, head: torch.nn.Linear, code_ids: Tensor) -> None:
        self._code_ids, self._device = code_ids, head.weight.device
        self._head: torch.nn.Linear | None = None
        if head.weight.is_meta:  # kept off its device by accelerate: it only works as a whole
            self._head = head
        else:
            first = int(code_ids[0])
            in_order = bool((code_ids == torch.arange(first, first + len(code_ids), device=code_ids.device)).all())
            weight = head.weight[first : first + len(code_ids)] if in_order else head.weight[code_ids]
            rows = torch.nn.Linear(head.in_features, len(code_ids), bias=False, device="meta")
            rows.weight = torch.nn.Parameter(weight, requires_grad=False)
            self._rows = packed(rows)

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._head is not None:
            logits: Tensor = self._head(hidden)
            return logits[..., self._code_ids]
        return cast(Tensor, self._rows(hidden.to(self._device)))


def load_with_codec(
    model_class: type[ModelT], checkpoint: Checkpoint, loading: Loading, keep_whole: Sequence[str] = ()
) -> ModelT:
    """Load the weights of such a family, its picture codec never quantised.

    Args:
        keep_whole: more modules that are never quantised.

    Raises:
        MmgenError: flash attention is asked for, a device map leaves the codec out, or the weights do not fit.
    """
    if loading.attn == "flash_attention_2":
        raise MmgenError(
            f"{checkpoint.name} cannot use --attn flash_attention_2: the cache of fixed size needs a mask",
            "leave --attn out, or use --attn sdpa: PyTorch's own fast kernels",
        )
    model = load_model(model_class, checkpoint, loading, keep_whole=[_CODEC, *keep_whole])
    if next(model.get_submodule(_CODEC).parameters()).is_meta:
        raise MmgenError("the device map leaves the picture codec without a device", f"give {_CODEC} a device")
    return model


def unnormalise(pixels: Tensor, image_processor: Any) -> Tensor:
    """Undo what an image processor does: pixels [B, 3, H, W] as the model has them -> float32, about in [-1, 1]."""
    pixels = pixels.float()
    mean, std = pixels.new_tensor([image_processor.image_mean, image_processor.image_std])[..., None, None]
    return 2 * (pixels * std + mean) - 1


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, and unused
        return torch.cuda.mem_get_info(device)[0] + spare
    return machine.ram()[0]
