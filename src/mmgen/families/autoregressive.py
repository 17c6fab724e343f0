"""A family whose replies our own decoding loops make: requests to prompts, prompts to pieces. Knows no one family.

A family writes its prompts and gives its network and its image codec.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, ClassVar, cast

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import PreTrainedModel

from mmgen.checkpoints.fit import SMALL, cache_per_token
from mmgen.checkpoints.loading import load_model
from mmgen.checkpoints.tuning import choose, shortest
from mmgen.checkpoints.x86 import IS_X86, least_tokens, packed
from mmgen.codes import Maker, Rows, stored
from mmgen.decoding.body import Body, fits, join
from mmgen.decoding.constraint import Constraint, own_tokenizer
from mmgen.decoding.grammar import Canvas, PromptIds
from mmgen.decoding.graphs import Pass, Replayed
from mmgen.decoding.jacobi import TIMED, choose_window
from mmgen.decoding.replies import LanguageModel, draw, generate_text, interleave
from mmgen.decoding.scoring import margin, score_pictures, score_words
from mmgen.decoding.stepwise import Cache, Network, forward
from mmgen.errors import MmgenError, OutOfMemoryError, TooLongError
from mmgen.families.editing import EditingModel
from mmgen.families.in_memory import free_bytes, in_threads, measure_threads
from mmgen.families.prompting import TokenPrompter
from mmgen.request import BOTH, PICTURES, WORDS, Done, Picture, Piece, Request

_CODEC = "model.vqmodel"
_TIMED = 64_000_000  # bytes of weights in as many layers as are timed, which is enough to be slow to read
_PASSES = 4  # that are timed together: threads have to be made anew where the last had another number
_log = logging.getLogger("mmgen")


class CodecInFloat32:
    """Keeps the image codec of the stock class that it is inherited with in float32, and on one device."""

    # In bfloat16 the choice of the nearest code flips.
    _keep_in_fp32_modules_strict: set[str] | list[str] | None = ["vqmodel"]  # noqa: RUF012 -- as transformers declares it

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # the stock class comes after this one
        model = cast(PreTrainedModel, self)
        model._no_split_modules = {*(model._no_split_modules or ()), type(model.get_submodule(_CODEC)).__name__}


class AutoregressiveModel(EditingModel):
    """A loaded checkpoint of such a family.

    Attributes:
        network: its class of transformers; a family's own.
        decoder_class: its language model, whose layers are those of decoding.body.
        keep_whole: modules that are never quantised, beside the codec, whose errors would show in every pixel.
        language_model: what the decoding loops need of it.
    """

    network: type[PreTrainedModel]
    decoder_class: ClassVar[type[torch.nn.Module]]
    keep_whole: ClassVar[tuple[str, ...]] = ()
    prompter: TokenPrompter
    takes_turns = True

    def load_for(self, requests: Sequence[Request]) -> None:
        """Load the weights, and make ready what the decoding loops need of them."""
        if self.model is not None:
            return
        self.model = model = self.load()
        is_cpu = model.device.type == "cpu"
        self._most_threads = torch.get_num_threads()
        self._token_bytes = cache_per_token(self.checkpoint, str(model.dtype).removeprefix("torch."))
        self._decoder: torch.nn.Module = model.get_decoder()
        self._embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
        self._vq: Any = model.get_submodule(_CODEC)
        prompter = self.prompter
        code_ids = torch.tensor(prompter.vocabulary.code_ids, device=self._embedding.weight.device)
        code_head = self._code_head(code_ids)
        model.lm_head = packed(cast(torch.nn.Linear, model.lm_head), least_tokens(self._decoder))
        self._own_body: Pass | None = None
        if self._fits(self._decoder):
            self._own_body = Body(self._decoder, asks_twice=IS_X86 and is_cpu and model.dtype == torch.bfloat16)
            if model.device.type == "cuda" and self.loading.quantize is None:
                self._own_body = Replayed(self._own_body)
        network = Network(self._body, model.lm_head, code_head, code_ids)
        pass_tokens = 128 if not is_cpu else 64 if self.checkpoint.n_bytes <= SMALL else 16
        self.n_threads, self.n_lanes, self.n_alone, *times = self._tune(network)
        self.language_model = LanguageModel(
            network,
            prompter.vocabulary,
            prompter.context,
            prompter.decode,
            self._decode_in_all_threads,
            self._maker,
            self.loading.window,
            lambda n_rows: choose_window(model.device, n_rows, pass_tokens, times if all(times) else ()),
            self._constrain,
        )

    def _tune(self, network: Network) -> list[int]:
        """Choose threads and lanes as they are quickest on this processor; time passes of jacobi.TIMED in microseconds.

        If that is not measured, it is one thread for a small model, which takes long to set off a pass, and no times.
        """
        is_cpu = self.model.device.type == "cpu"
        n = self._most_threads if is_cpu and self.checkpoint.n_bytes <= SMALL else 0
        fixed = [min(n, 1), n, min(n, 1), *(0 for _ in TIMED)]
        if not is_cpu or self._own_body is None:
            return fixed
        layers = cast(Any, self._decoder).layers
        n_layers = max(1, int(len(layers) * min(1.0, _TIMED / self.checkpoint.n_bytes)))
        body = Body(self._decoder, n_layers=n_layers)
        part = replace(network, body=lambda ids, *rest: body(self._embed(ids), *rest))

        def make_pass(n_threads: int, n_rows: int, n_tokens: int) -> None:
            cache = Cache(n_rows, 64 + n_tokens)
            cache.lengths = [64] * n_rows
            with torch.inference_mode(), in_threads(n_threads):
                for _ in range(_PASSES):
                    forward(part, cache, range(n_rows), network.code_ids[:1].expand(n_rows, n_tokens))

        def at_once(n: int, *how: int) -> None:
            if n == 1:  # here, as it will be: beside a pool's threads GNU OpenMP lets its own sleep sooner
                make_pass(*how)
                return
            with ThreadPoolExecutor(n) as pool:
                for done in [pool.submit(make_pass, *how) for _ in range(n)]:
                    done.result()

        def measure() -> list[int]:
            n_threads, n_lanes, n_alone = measure_threads(at_once, self._most_threads)
            # One picture is drawn alone, several in all lanes
            how = {1: (1, n_alone)}
            ways = [partial(at_once, *how.get(size[0], (n_lanes, n_threads)), *size) for size in TIMED]
            return [n_threads, n_lanes, n_alone, *(round(1e6 * seconds) for seconds in shortest(ways, 0.4))]

        shapes = [tuple(each.shape) for each in layers[0].parameters()]
        return choose(
            "threads, lanes, threads alone, microseconds of passes",
            (shapes, len(layers), self.model.dtype),
            fixed,
            measure,
        )

    def _decode_in_all_threads(self, codes: Tensor) -> Tensor:
        """Decode as `decode` does, alone and in lanes alike: the number of threads can change the last bits."""
        with in_threads(self._most_threads):
            return self.decode(codes)

    def load(self) -> PreTrainedModel:
        """Load the weights.

        Raises:
            MmgenError: flash attention cannot be used, a device map leaves the codec out, or the weights do not fit.
        """
        whole = [_CODEC, *self.keep_whole]
        model = load_model(self.network, self.checkpoint, self.loading, keep_whole=whole, join=self._join)
        if next(model.get_submodule(_CODEC).parameters()).is_meta:
            raise MmgenError("the device map leaves the picture codec without a device", f"give {_CODEC} a device")
        if self.loading.attn == "flash_attention_2" and not self._fits(model.get_decoder()):
            raise MmgenError(
                f"{self.name} cannot use --attn flash_attention_2: its layers are of a kind of their own, or spread",
                "leave --attn out, or use --attn sdpa: PyTorch's own fast kernels",
            )
        return model

    @abstractmethod
    def encode(self, images: Sequence[Image.Image]) -> Sequence[Any]:
        """Turn images into what the prompter makes ids of: rows of codes, if the family looks at those."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        """Answer requests that are decoded alike."""
        prompts = self.prompts(requests)
        if len(requests) > 1 and self._cache_bytes(requests[0], prompts) > free_bytes(self.model.device) // 2:
            raise OutOfMemoryError(f"{self.name} has no memory for {len(requests)} requests at once")
        if requests[0].edit is not None:
            yield from self.edit(requests)
            return
        ways = {WORDS: generate_text, PICTURES: draw, BOTH: interleave}
        yield from ways[requests[0].want](self.language_model, requests, prompts)

    def likelihoods(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely a batch of answers is, as `score` does."""
        words = [self.prompter.text_ids(answer) for answer in answers if isinstance(answer, str)]
        codes = [answer.codes for answer in answers if isinstance(answer, Picture) and answer.codes]
        [prompt] = self.prompts([request])
        if len(words) == len(answers):
            length, longest = len(prompt.ids), max(map(len, words))
            if length + longest > self.prompter.context:
                raise TooLongError(length, longest, self.prompter.context)
            return score_words(self.language_model, prompt, words)
        if len(codes) < len(answers):
            hint = "give words, or pictures that this model drew"
            raise MmgenError("some answers have neither words nor codes", hint)
        v = self.prompter.vocabulary
        canvas = prompt.canvas or v.canvas
        for each in codes:
            if len(each) != canvas.rows * canvas.columns or max(each) >= len(v.code_ids):
                raise MmgenError(f"{self.name} draws no picture of such codes", "ask with the ratio it was drawn in")
        return score_pictures(self.language_model, prompt, codes)

    def margin(self, request: Request, codes: Sequence[int], place: int) -> float:
        """Say how far a picture is from having the next of these codes; see Model."""
        with torch.inference_mode():
            return margin(self.language_model, request, self.prompts([request])[0], codes, place)

    def prompts(self, requests: Sequence[Request]) -> list[PromptIds]:
        """Write the prompts of requests, all their images seen together.

        Raises:
            MmgenError: too long for the context, or beyond the checkpoint's chat template.
        """
        images = {id(image): image for request in requests for image in request.images}
        grid_of = self.prompter.grid
        encoded: dict[int, Any] = {each: self.stored(image, grid_of(image)) for each, image in images.items()}
        n_stored = sum(rows is not None for rows in encoded.values())
        if n_stored:
            _log.info("%d of %d pictures are looked at by the codes in their files", n_stored, len(images))
        anew = [each for each, rows in encoded.items() if rows is None]
        encoded |= zip(anew, self.encode([images[each] for each in anew]), strict=True)
        ids = {each: self.prompter.image_ids(rows) for each, rows in encoded.items()}
        return [self.prompter.write(request, [ids[id(image)] for image in request.images]) for request in requests]

    def stored(self, image: Image.Image, grid: tuple[int, int] | None) -> Rows | None:
        """Give the codes in a picture's file, if they are this model's, and of this grid."""
        if self.loading.encode or not image.info or grid is None:
            return None
        rows = stored(image, self._digests[0])
        return rows if rows and (len(rows), len(rows[0])) == grid else None

    @cached_property
    def _digests(self) -> tuple[str, str]:
        """Digests of codebook and decoder: 16 hex digits of SHA-256 over their tensors, which are float32 always."""
        tensors = sorted(self._vq.state_dict().items())
        parts = [name.partition(".")[0] for name, _ in tensors]
        digests = []
        for wanted in (("quantize",), ("decoder", "post_quant_conv")):
            found = sha256()
            for part, (_, tensor) in zip(parts, tensors, strict=True):
                if part in wanted:
                    found.update(tensor.contiguous().cpu().numpy())
            digests.append(found.hexdigest()[:16])
        return digests[0], digests[1]

    def _constrain(self, schema: str | None) -> Constraint | None:
        """Give what keeps a reply to a JSON schema."""
        v = self.prompter.vocabulary
        return None if schema is None else Constraint(self._own_tokenizer, schema, v.ends)

    @cached_property
    def _own_tokenizer(self) -> Any:
        v = self.prompter.vocabulary
        return own_tokenizer(self.prompter.tokenizer.to_str(), v.size, sorted(v.ends))

    def _maker(self) -> Maker:
        dtype = str(self.model.dtype).removeprefix("torch.")
        n_codes = len(self.prompter.vocabulary.code_ids)
        return Maker(*self._digests, n_codes, dtype, self.loading.quantize, self.loading.window)

    def _fits(self, decoder: torch.nn.Module) -> bool:
        return type(decoder) is self.decoder_class and fits(decoder)

    def _join(self, decoder: torch.nn.Module) -> bool:
        return self._fits(decoder) and join(decoder)

    def _embed(self, ids: Tensor) -> Tensor:
        """Turn ids [r, T] into vectors [r, T, D]."""
        return self._embedding(ids)

    def _body(self, ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        """See decoding.stepwise.Network."""
        vectors = self._embed(ids)
        if self._own_body is not None:
            return self._own_body(vectors, positions, cache, visible)
        if visible is None:
            n_tokens, n_slots = ids.shape[1], cache.extent
            visible = torch.ones(1, 1, n_tokens, n_slots, dtype=torch.bool, device=ids.device).tril(n_slots - n_tokens)
        dtype = self._embedding.weight.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)  # transformers adds it to the scores
        mask.masked_fill_(~visible, torch.finfo(dtype).min)
        return self._decoder(
            inputs_embeds=vectors,
            position_ids=positions,
            past_key_values=cache,
            attention_mask=mask,
            use_cache=True,
        ).last_hidden_state

    def _code_head(self, code_ids: Tensor) -> Callable[[Tensor], Tensor]:
        """Make the head of image codes: inside an image nothing else may follow, so their rows of the head suffice.

        Returns:
            hidden [..., D] -> logits [..., K], in the order of the codes.
        """
        head: torch.nn.Linear = self.model.lm_head
        device = head.weight.device
        if device.type == "meta":  # kept off its device by accelerate: it only works as a whole
            return lambda hidden: head(hidden)[..., code_ids]
        rows = torch.nn.Linear(head.in_features, len(code_ids), bias=False, device="meta")
        rows.weight = torch.nn.Parameter(head.weight[code_ids], requires_grad=False)
        rows = packed(rows)
        return lambda hidden: rows(hidden.to(device))

    def _cache_bytes(self, request: Request, prompts: Sequence[PromptIds]) -> int:
        """Count the bytes that the keys and values of such requests take, in all batches that are decoded at once."""
        n_rows, n_new = 1, request.text.max_tokens
        if request.want != WORDS:
            n_rows, n_new = 3, (prompts[0].canvas or self.prompter.vocabulary.canvas).n_places + 1
        n_rows *= 1 + (request.edit is not None)  # the words of its source, too
        n_tokens = max(len(prompt.ids) for prompt in prompts) + n_new
        return max(1, self.n_lanes) * len(prompts) * n_rows * n_tokens * self._token_bytes


def normalise(image: Image.Image, canvas: Canvas, factor: int, image_processor: Any) -> Tensor:
    """Make an image pixels [1, 3, H, W] as a codec takes them, so many times as high and wide as a canvas of codes."""
    size = (factor * canvas.columns, factor * canvas.rows)
    fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8).view(1, size[1], size[0], 3)
    mean, std = torch.tensor([image_processor.image_mean, image_processor.image_std])[..., None, None]
    return (pixels.permute(0, 3, 1, 2) / 255 - mean) / std


def unnormalise(pixels: Tensor, image_processor: Any) -> Tensor:
    """Undo what an image processor does: pixels [B, 3, H, W] as the model has them -> float32, about in [-1, 1]."""
    pixels = pixels.float()
    mean, std = pixels.new_tensor([image_processor.image_mean, image_processor.image_std])[..., None, None]
    return 2 * (pixels * std + mean) - 1
