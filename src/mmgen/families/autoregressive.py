"""A family whose replies our own decoding loops make: requests in batches, prompts to pieces. Knows no one family.

A family writes its prompts and gives its network; what a request gets does not depend on those decoded beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mmgen.checkpoints import machine
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.fit import SMALL
from mmgen.checkpoints.loading import load_model
from mmgen.checkpoints.packing import packed
from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import PromptIds
from mmgen.decoding.replies import LanguageModel, draw, generate_text, interleave
from mmgen.decoding.stepwise import Network
from mmgen.errors import MmgenError, OutOfMemoryError
from mmgen.families.attention import ask_twice
from mmgen.families.in_memory import InMemoryModel
from mmgen.families.token_prompt import TokenPrompter
from mmgen.model import Abilities
from mmgen.request import BOTH, PICTURES, WORDS, Done, Loading, Piece, Request

ModelT = TypeVar("ModelT", bound=PreTrainedModel)

_CODEC = "model.vqmodel"  # never quantised: its errors would show in every pixel


class AutoregressiveModel(InMemoryModel):
    """A loaded checkpoint of such a family.

    Args:
        window: see request.Loading.
        code_ids: code_ids[c] is the id of VQ code c; as the vocabulary says, if not given.
        code_head: hidden [..., D] -> logits [..., K] over the codes; the codes' rows of the model's head, if not given.

    Attributes:
        model: the transformers model.
        language_model: what the decoding loops need of it.
    """

    prompter: TokenPrompter

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
        on_cpu = model.device.type == "cpu"
        is_small = on_cpu and checkpoint.n_bytes <= SMALL
        super().__init__(checkpoint, abilities, prompter, is_small=is_small)
        self.model = model
        self._decoder: torch.nn.Module = model.get_decoder()
        self._embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
        self._vq = model.get_submodule(_CODEC)
        v, head = prompter.vocabulary, cast(torch.nn.Linear, model.lm_head)
        ids = torch.tensor(v.code_ids if code_ids is None else code_ids, device=self._embedding.weight.device)
        code_head = code_head or CodeHead(head, ids)
        model.lm_head = packed(head)
        ask_twice(model)
        network = Network(self._body, model.lm_head, code_head, ids)
        pass_tokens = 128 if not on_cpu else 64 if is_small else 16  # a pass of a small one takes long to set off
        self.language_model = LanguageModel(
            network, v, prompter.context, prompter.decode, self.decode, window, pass_tokens
        )

    @abstractmethod
    def picture_ids(self, images: Sequence[Image.Image]) -> list[list[int]]:
        """Turn pictures into the ids that stand for each in a prompt."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        """Answer requests that are decoded alike."""
        prompts = self._write(requests)
        if len(requests) > 1 and self._cache_bytes(requests[0], prompts) > _free_bytes(self.model.device) // 2:
            raise OutOfMemoryError(f"{self.name} has no memory for {len(requests)} requests at once")
        ways = {WORDS: generate_text, PICTURES: draw, BOTH: interleave}
        yield from ways[requests[0].want](self.language_model, requests, prompts)

    def prompt(self, request: Request) -> PromptIds:
        """Write a request's prompt.

        Raises:
            MmgenError: too long for the context.
        """
        return self._write([request])[0]

    def _write(self, requests: Sequence[Request]) -> list[PromptIds]:
        """Write the prompts of requests, all their pictures seen together."""
        images = {id(image): image for request in requests for image in request.images}
        ids = dict(zip(images, self.picture_ids(list(images.values())), strict=True))
        return [self.prompter.write(request, lambda image: ids[id(image)]) for request in requests]

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
        return self._decoder(
            inputs_embeds=self._embed(ids),
            position_ids=positions,
            past_key_values=cache,
            attention_mask=mask,
            use_cache=True,
        ).last_hidden_state

    def _cache_bytes(self, request: Request, prompts: Sequence[PromptIds]) -> int:
        """Count the bytes that the keys and values of such requests take, in all batches that are decoded at once."""
        config = self.model.config.get_text_config()
        n_heads = config.num_key_value_heads or config.num_attention_heads
        n_values = n_heads * config.hidden_size // config.num_attention_heads  # of a key, and of a value
        per_token = 2 * config.num_hidden_layers * n_values * self._embedding.weight.element_size()
        draws = request.want != WORDS
        n_places = self.language_model.vocabulary.canvas(prompts[0].grid).n_places
        n_tokens = max(len(prompt.ids) for prompt in prompts) + (n_places + 1 if draws else request.text.max_tokens)
        return self.n_lanes * len(prompts) * (3 if draws else 1) * n_tokens * per_token


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
