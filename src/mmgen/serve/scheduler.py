"""Requests that wait become batches of one model; batches under way advance in turn, a step each. Knows no HTTP."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mmgen.errors import MmgenError, unexpected
from mmgen.limits import GROUP
from mmgen.model import Model
from mmgen.request import Done, Picture, Piece, Progress, Request, Thought
from mmgen.serve.errors import BusyError

if TYPE_CHECKING:
    from PIL import Image

_MOST_PIXELS = 600_000_000  # of pictures that wait: 1.8 GB
_LANES = 2  # batches of one kind under way: while one is, a second takes what came meanwhile

Event: TypeAlias = "Piece | Done | MmgenError | Sketch"


@dataclass(frozen=True)
class Sketch:
    """The rows of a picture that are finished, transparent below."""

    image: Image.Image


@dataclass(eq=False)
class Ticket:
    """A request on its way.

    Attributes:
        tell: is called with what comes of it, an end last, in the scheduler's thread.
        follows: whoever asked wants to hear how far it is.
        sketches: pictures as they grow that are wanted, spread evenly over the time that it takes.
        n_sketches: that were made.
        has_begun: some of the answer came.
    """

    request: Request
    tell: Callable[[Event], None]
    follows: bool = False
    sketches: int = 0
    n_sketches: int = 0
    has_begun: bool = False

    @property
    def n_pixels(self) -> int:
        """Pixels of its pictures, which are held until it ends."""
        request = self.request
        images = [*request.images, *filter(None, (request.source, request.mask))]
        return sum(image.width * image.height for image in images)


@dataclass(eq=False)
class _Batch:
    tickets: dict[int, Ticket]  # by number; those that have not ended
    replies: Iterator[tuple[int, Piece | Done | MmgenError]]


class Scheduler:
    """Answers requests in a thread of its own, in which the model is loaded, too.

    Args:
        open_model: loads it.
        most_waiting: requests that wait; more are refused.
        on_failure: is called if it cannot be loaded.

    Attributes:
        model: once it is loaded.
        counts: tokens, pictures, passes and batches so far.
        seconds: of work so far.
        idle_since: when the last request ended (time.monotonic), None while there is one.
    """

    def __init__(
        self,
        open_model: Callable[[], Model],
        most_waiting: int,
        on_failure: Callable[[MmgenError], None] = lambda _: None,
    ) -> None:
        self.model: Model | None = None
        self.counts, self.seconds = Counter[str](), 0.0
        self.idle_since: float | None = time.monotonic()
        self._open_model, self._most_waiting, self._on_failure = open_model, most_waiting, on_failure
        self._waiting: deque[Ticket] = deque()
        self._alone: set[Ticket] = set()  # those whose batch failed
        self._under_way: list[_Batch] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="mmgen-scheduler", daemon=True)

    def start(self) -> None:
        """Load the model, and begin."""
        self._thread.start()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take requests, all or none.

        Raises:
            BusyError: too many wait, or their pictures would take too much memory.
        """
        with self._changed:
            n_pixels = sum(each.n_pixels for each in (*self._waiting, *tickets))
            if len(self._waiting) + len(tickets) > self._most_waiting or (self._waiting and n_pixels > _MOST_PIXELS):
                raise BusyError(f"{len(self._waiting)} requests wait already")
            self._waiting.extend(tickets)
            self.idle_since = None
            self._changed.notify()

    @property
    def n_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @property
    def n_under_way(self) -> int:
        """Requests that are being answered."""
        return sum(len(batch.tickets) for batch in self._under_way)

    def close(self, *, at_once: bool = False) -> None:
        """End once all is answered; at once: drop it at the next step."""
        with self._changed:
            self._is_closing = True
            if at_once:
                for ticket in (*self._waiting, *(each for b in self._under_way for each in b.tickets.values())):
                    ticket.request.cancelled.set()
            self._changed.notify()

    def _run(self) -> None:
        try:
            self.model = self._open_model()
        except Exception as failure:  # noqa: BLE001 -- whatever it is, whoever waits for the model has to hear of it
            error = _error_of(failure)
            with self._changed:
                for ticket in self._waiting:
                    ticket.tell(error)
                self._most_waiting = 0
            self._on_failure(error)
            return
        self.idle_since = self.idle_since and time.monotonic()  # to load it was work, too
        while True:
            with self._changed:
                while not self._waiting and not self._under_way:
                    self.idle_since = self.idle_since or time.monotonic()
                    if self._is_closing:
                        return
                    self._changed.wait()
                begun = [*self._begun(self.model)]
            self._under_way += begun
            began = time.monotonic()
            for batch in list(self._under_way):
                self._step(batch)
            self.seconds += time.monotonic() - began

    def _begun(self, model: Model) -> Iterator[_Batch]:
        """Take what waits and has a lane, those that are answered alike together."""
        lanes = Counter(next(iter(batch.tickets.values())).request.want for batch in self._under_way if batch.tickets)
        kept, is_busy = deque[Ticket](), bool(self._under_way)
        while self._waiting:
            first = self._waiting.popleft()
            want = first.request.want
            if first.request.cancelled.is_set():
                first.tell(Done("cancelled"))
                continue
            if lanes[want] >= _LANES or (is_busy and not model.takes_turns):
                kept.append(first)
                continue
            kind, tickets, others = model.kind(first.request), [first], deque[Ticket]()
            while self._waiting and len(tickets) < GROUP and first not in self._alone:
                each = self._waiting.popleft()
                alike = each not in self._alone and each.request.want == want and model.kind(each.request) == kind
                (tickets if alike else others).append(each)
            self._waiting.extendleft(reversed(others))
            lanes[want], is_busy = lanes[want] + 1, True
            self.counts["batches"] += 1
            yield _Batch(dict(enumerate(tickets)), iter(model.replies([each.request for each in tickets])))
        self._waiting = kept

    def _step(self, batch: _Batch) -> None:
        """Let a batch go on to its next piece."""
        try:
            number, piece = next(batch.replies)
        except StopIteration:
            self._under_way.remove(batch)
            for ticket in batch.tickets.values():
                ticket.tell(MmgenError("the model ended without an answer", "try another seed"))
            return
        except Exception as failure:  # noqa: BLE001 -- the net: one request never ends the others
            self._under_way.remove(batch)
            left = list(batch.tickets.values())
            for ticket in left:
                if len(left) == 1 or ticket.has_begun:
                    self._alone.discard(ticket)
                    ticket.tell(_error_of(failure))
                    continue
                self._alone.add(ticket)  # asked again, and the one over which the model fails has the error
                with self._changed:
                    self._waiting.append(ticket)
            return
        ticket = batch.tickets[number]
        if isinstance(piece, Done | MmgenError):
            del batch.tickets[number]
            self._alone.discard(ticket)
            self.counts["tokens"] += piece.n_tokens if isinstance(piece, Done) else 0
        elif isinstance(piece, str | Thought | Picture):
            ticket.has_begun = True
        if isinstance(piece, Picture):
            self.counts.update(pictures=1, passes=piece.passes or 0)
        elif isinstance(piece, Progress):
            if not ticket.follows:
                return
            share = piece.done / max(1, piece.total)
            if share < 1 and ticket.n_sketches < ticket.sketches * share and piece.sketch is not None:
                image = piece.sketch()
                if image is not None:
                    ticket.n_sketches += 1
                    ticket.tell(Sketch(image))
        ticket.tell(piece)


def _error_of(failure: Exception) -> MmgenError:
    return failure if isinstance(failure, MmgenError) else unexpected("", failure)
