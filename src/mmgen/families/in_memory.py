"""A model whose weights are in this process: requests in groups, in halves where memory does not suffice.

Knows neither how a reply is computed nor any family.
"""

from __future__ import annotations

import gc
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

import torch

from mmgen.checkpoints import catalog, fit
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import ran_out_of_memory
from mmgen.checkpoints.tuning import shortest
from mmgen.errors import MmgenError, OutOfMemoryError
from mmgen.families.judging import ranked, ways_to_write
from mmgen.limits import GROUP
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, PICTURES, Done, Loading, Picture, Piece, Request, Thought
from mmgen.tasks import scaled

_Piece = TypeVar("_Piece")
Numbered = tuple[int, Request]


class InMemoryModel(Model):
    """A loaded checkpoint.

    Args:
        requests: what it will be asked first, if known.

    Attributes:
        model: the transformers model, once it is loaded.
        prompter: writes its prompts; its `check(request)` refuses without looking at images.
        most_rows: most requests of a batch.
        n_threads: that it computes in, where all there are would wait for each other more than they gain; 0: all.
        n_lanes: batches at once, in so many threads each; 0: one.
        n_alone: threads for one picture by itself, whose passes look at several places.
    """

    model: Any = None
    prompter: Any
    most_rows = GROUP
    n_threads = n_lanes = n_alone = 0

    def __init__(
        self,
        checkpoint: Checkpoint,
        loading: Loading,
        abilities: Abilities,
        prompter: Any,
        requests: Sequence[Request] = (),
    ) -> None:
        self.name, self.revision, self.note = checkpoint.name, checkpoint.revision, checkpoint.note
        self.checkpoint, self.loading, self.abilities, self.prompter = checkpoint, loading, abilities, prompter
        self.load_for(requests)

    def close(self) -> None:
        """Give the weights' memory back; asked again, they are loaded again."""
        self.model = None
        for held in ("language_model", "_decoder", "_embedding", "_vq", "_own_tokenizer", "_digests"):
            self.__dict__.pop(held, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def identity(self) -> str:
        """Say which weights these are, in the keys of journals: the Hub's commit, or a digest."""
        return catalog.identity(self.checkpoint)

    @abstractmethod
    def load_for(self, requests: Sequence[Request]) -> None:
        """Bring into memory what these requests need, as far as it is not there; all, if there are none.

        Raises:
            MmgenError: the weights do not fit, or the checkpoint is not whole.
        """

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer requests that are decoded alike: of one kind, and with equally many pictures.

        Yields:
            (index among them, its next piece, or the Done or the error that ends it).

        Raises:
            MmgenError: one of them cannot be answered, or memory does not suffice for all.
        """

    def count_fitting(self, requests: Sequence[Request]) -> int:
        """Say how many of these, from the first, should be answered at once, as far as that is known beforehand."""
        return len(requests)

    def kind(self, request: Request) -> object:
        """Say which requests are decoded alike: those for which this is equal.

        Padding with pictures would not be without effect: where cross-attention finds nothing that it may look at,
        before the first picture, it looks at all there is.
        """
        arguments, n_images = str(request.template_args), len(request.images)
        edited = request.edit, request.source and request.source.size
        return request.want, request.text, request.image, request.completion, n_images, arguments, edited

    @abstractmethod
    def likelihoods(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely a batch of answers is, as `score` does."""

    def score(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely whole answers are, in nats, batch by batch; see Model."""
        request = scaled(request, self.loading.max_pixels)
        self.load_for([request])
        self.prompter.check(request)
        scores: list[float] = []
        while len(scores) < len(answers):
            left = answers[len(scores) :][: self.most_rows]
            batch = left[: max(1, self.count_fitting([request] * len(left)))]
            try:
                with torch.inference_mode(), in_threads(self.n_threads):
                    scores += self.likelihoods(request, batch)
            except RuntimeError as failure:
                if not ran_out_of_memory(failure):
                    raise
                if len(batch) == 1:
                    raise self._no_memory() from None
                self.most_rows = len(batch) // 2
        return scores

    def _choose(self, request: Request) -> Iterator[Piece | Done | MmgenError]:
        """Answer with the likeliest of a request's choices.

        An answer is as likely as all ways together in which a model may write it: with a capital or without, and with a
        full stop or without (after Holtzman et al., arXiv 2104.08315: ways of writing compete).
        """
        ways = {way: number for number, choice in enumerate(request.choices) for way in ways_to_write(choice)}
        try:
            scores = self.score(replace(request, choices=()), list(ways))
        except MmgenError as error:
            yield error
            return
        each = torch.full((len(ways), len(request.choices)), -torch.inf, dtype=torch.float64)
        each[range(len(ways)), list(ways.values())] = torch.tensor(scores, dtype=torch.float64)
        chances = each.logsumexp(0).softmax(0)
        yield request.choices[int(chances.argmax())]
        yield Done(n_tokens=1, chances=tuple(chances.tolist()))

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a stream of requests in groups; each gets what it would get alone."""
        for group in _groups(requests):
            if self.loading.max_pixels is not None:
                group = [(number, scaled(request, self.loading.max_pixels)) for number, request in group]
            self.load_for([request for _, request in group])
            yield from ranked(self, [(number, request) for number, request in group if request.best_of > 1])
            group = [(number, request) for number, request in group if request.best_of == 1]
            if not group:
                continue
            lanes = range(min(max(1, self.n_lanes), len(group)))
            is_picture = len(group) == 1 and group[0][1].want == PICTURES
            n_threads = self.n_alone if is_picture else self.n_threads
            yield from side_by_side([self._lane(group[lane :: len(lanes)], n_threads) for lane in lanes])
            del group  # and its images, while the next is pulled

    def _lane(self, group: Sequence[Numbered], n_threads: int) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a group, batch by batch of what is decoded alike."""
        alike: dict[object, list[Numbered]] = {}
        for number, request in group:
            try:
                self.abilities.check(self.name, request.want, [request])
                self.prompter.check(request)
            except MmgenError as error:
                yield number, error
                continue
            if request.choices:
                yield from ((number, piece) for piece in self._choose(request))
                continue
            alike.setdefault(number if request.want == BOTH else self.kind(request), []).append((number, request))
        for batch in alike.values():
            while batch:
                n_rows = max(1, min(self.most_rows, self.count_fitting([request for _, request in batch])))
                yield from self._batch(batch[:n_rows], n_threads)
                del batch[:n_rows]

    def _batch(
        self, batch: Sequence[Numbered], n_threads: int, before: Mapping[tuple[int, type], int] | None = None
    ) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a batch; if it fails, what is left of it in halves: one bad request must not end the others.

        Args:
            before: letters of words and of thoughts of each request that were given as it failed, and come anew.
        """
        left = {number: request for number, request in batch if not request.cancelled.is_set()}
        yield from ((number, Done("cancelled")) for number, _ in batch if number not in left)
        numbers = list(left)
        passed, said = Counter[tuple[int, type]](), Counter(before or {})
        pieces = self.answer(list(left.values()))
        error: MmgenError | None = None
        try:
            while left:
                with torch.inference_mode(), in_threads(n_threads):  # anew each time: neither leaks to the caller
                    row, piece = next(pieces)
                number = numbers[row]
                if isinstance(piece, str | Thought):
                    text, which = piece if isinstance(piece, str) else piece.text, (number, type(piece))
                    n_known = max(0, min(len(text), said[which] - passed[which]))
                    passed[which] += len(text)
                    if n_known == len(text):
                        continue
                    piece = type(piece)(text[n_known:])
                if isinstance(piece, Done) and piece.reason == "length" and left[number].text.json_schema is not None:
                    piece = MmgenError("the answer is no whole JSON yet", "allow more with --max-tokens")
                if isinstance(piece, Done | MmgenError):
                    del left[number]
                yield number, piece
        except RuntimeError as failure:
            if not ran_out_of_memory(failure):
                raise
            error = self._no_memory()
        except MmgenError as failure:
            error = failure.with_traceback(None)  # which would keep this frame, and its images
        if isinstance(error, OutOfMemoryError):
            self.most_rows = max(1, len(numbers) // 2)  # of the batches to come, too
        if error is not None and len(numbers) == 1:
            yield numbers[0], error
            return
        waiting = list(left.items())
        for half in (waiting[: len(waiting) // 2], waiting[len(waiting) // 2 :]):
            if half:
                yield from self._batch(half, n_threads, passed | said)

    def _no_memory(self) -> OutOfMemoryError:
        hint = "ask for fewer at once, give smaller pictures, or try --quantize 4bit"
        return OutOfMemoryError(f"{self.name} ran out of memory", hint)


def _groups(requests: Iterable[Request | None]) -> Iterator[list[Numbered]]:
    """Pull requests, with their numbers, until there are enough for a group, nothing waits, or the stream ends."""
    group: list[Numbered] = []
    n_pulled = 0
    for request in requests:
        if request is not None:
            group.append((n_pulled, request))
            n_pulled += 1
        if group and (request is None or len(group) == GROUP):
            yield group
            group = []
    if group:
        yield group


def side_by_side(lanes: Sequence[Iterator[_Piece]]) -> Iterator[_Piece]:
    """Run iterators in a thread each; what they give comes as it is made. One alone needs no thread."""
    if len(lanes) == 1:
        yield from lanes[0]
        return
    made: SimpleQueue[_Piece | None] = SimpleQueue()
    stopping = Event()

    def run(lane: Iterator[_Piece]) -> None:
        try:
            for each in lane:
                made.put(each)
                if stopping.is_set():
                    return
        finally:
            made.put(None)

    with ThreadPoolExecutor(len(lanes), "mmgen-lane") as runners:
        futures = [runners.submit(run, lane) for lane in lanes]
        try:
            n_running = len(lanes)
            while n_running:
                if (each := made.get()) is None:
                    n_running -= 1
                else:
                    yield each
        finally:
            stopping.set()
        for future in futures:
            future.result()


@contextmanager
def in_threads(n: int) -> Iterator[None]:
    """Compute in n threads meanwhile; 0: in as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_threads(at_once: Callable[[int, int, int, int], object], most: int) -> tuple[int, int, int]:
    """Find in how many threads a pass is quickest, alone and in lanes, and how many lanes there should be.

    Threads that wait for each other, and spin, stand still as soon as another process wants a core: a picture of 0.2 s
    was seen to take a minute. So more than one have to gain much, unless they sleep soon (OMP_WAIT_POLICY).

    Args:
        at_once: makes so many passes at once, each in so many threads, over so many rows, with so many tokens in each.
        most: threads there are.

    Returns:
        Threads of each lane, lanes, and threads for one picture by itself: passes of 16 tokens.
    """
    counts = [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
    times = shortest([partial(at_once, 1, n, 1, n_tokens) for n_tokens in (1, 16) for n in counts], 0.2)
    products = [one * many for one, many in zip(times[: len(counts)], times[len(counts) :], strict=True)]
    worth = 0.9 if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" else 0.67  # of one thread's time
    many = times[len(counts) :]
    n_alone = counts[many.index(min(many))] if min(many) < worth * many[0] else 1
    n_threads = counts[products.index(min(products))] if min(products) < worth**2 * products[0] else 1
    ways = [partial(at_once, most, 1, max(1, GROUP // most), 4), partial(at_once, 1, n_threads, GROUP, 4)]
    beside, whole = shortest(ways, 0.1)
    if most > 1 and beside < 1.25 * whole:  # pixels gain by lanes, too
        return 1, most, n_alone
    return n_threads, 1, n_alone


def free_bytes(device: torch.device) -> int:
    """Say how much memory is free where a model is."""
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, and unused
        return torch.cuda.mem_get_info(device)[0] + spare
    return fit.ram()[0]
