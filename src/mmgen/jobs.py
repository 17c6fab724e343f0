"""The engine: items through a model, one or a million. Skip what is done, open pictures ahead, keep order, count.

Knows items, writers and the journal; refuses to know which command asked, and how a model works.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile

from mmgen.errors import CannotGoOnError, MmgenError, kind_of
from mmgen.files import aside, first_interrupt
from mmgen.limits import GROUP, Limits
from mmgen.model import Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.looking import MOST_PIXELS, Entry, ahead, caught, look, n_pixels
from mmgen.outputs.records import Item, Origin, Record, Result, in_order
from mmgen.outputs.terminal import Drawing, Notes, emit, how_far, pace
from mmgen.outputs.writers import Writer
from mmgen.request import Done, Picture, Piece, Progress, Request, Thought
from mmgen.text import as_line, clean, folded

_KINDS = 3  # of errors that the last line names


@dataclass
class Job:
    """One command's items, on their way through its model."""

    origin: Origin
    writer: Writer  # takes the results
    notes: Notes
    open_model: Callable[[Sequence[Request]], Model]  # for requests that stand for all, or none; called once, if at all
    limits: Limits
    journal: Journal | None = None  # of this and earlier runs
    as_json: bool = False  # print records
    reads: bool = True  # pictures; or the model does, from the bytes of their files
    n_expected: int | None = None  # items of a list, if they were counted for whoever watches the progress

    counts: Counter[str] = field(default_factory=Counter)  # of items: done, skipped, failed
    _kinds: Counter[str] = field(default_factory=Counter)  # of errors
    _n_items: int | None = None
    _stopping: bool = False
    _interrupted: int = 0  # the number of the signal
    _entries: dict[int, Entry] = field(default_factory=dict)  # by number: those that are not written yet
    _next: int = 0  # the number of the first of them
    _asked: list[int] = field(default_factory=list)  # the numbers of those that were given to the model, in turn
    _under_way: dict[int, float] = field(default_factory=dict)  # those not answered yet: how much of each is done
    _own_failure: Exception | None = None  # raised by what the model pulls from
    _started: float = 0.0
    _opened: float = 0.0  # when the model was there; until then nothing could be done
    _ticked: float = 0.0
    _clock: float = 0.0  # goes on by 1/n seconds a second while n items are under way, so that each gets its share

    def __post_init__(self) -> None:
        self._drawing = Drawing(self.notes)
        self._started = self._opened = self._ticked = time.monotonic()

    def plan(self, items: Iterable[Item]) -> dict[str, int]:
        """Count what would be done, without doing it; a copy of what is done counts as done.

        Where there is some, also: left, as somebody else wrote it, and rewrite, which takes no model.
        """
        counts: Counter[str] = Counter({"new": 0, "done": 0, "stale": 0, "failed": 0})
        for entry in ahead(lambda item: self._look(item, opens=False), items, 2 * GROUP):
            if entry is None:
                continue
            item, state = entry.item, entry.state
            if entry.skip:
                state = "left" if entry.is_foreign else "done"
            elif self.journal is not None and state in ("done", "copy"):
                is_there = item.output is not None and os.path.lexists(item.output)
                if self.writer.recall(item, self.journal.result(entry.key)) is not None:
                    state = "rewrite" if state == "done" and is_there else "done"
                else:
                    state = "new" if self.journal.last(item.item_id) is None else "stale"
            counts[state] += 1
        return dict(counts)

    def run(self, items: Iterable[Item], n_items: int | None = None) -> Counter[str]:
        """Do what is to be done; write results in the order of the items.

        Args:
            n_items: how many there are, if that is known. One alone is shown as it comes, and its error is raised.

        Raises:
            MmgenError: the only item failed, or results cannot be written.
            KeyboardInterrupt: it was interrupted; what was in hand is finished and kept.
            SystemExit: likewise, by SIGTERM or SIGHUP; with the code that a shell gives to who ends by those.
        """
        self._n_items = n_items
        try:
            with ExitStack() as self._undo:
                waiting = self._undo.enter_context(closing(self._waiting(items)))
                for number, piece in self._undo.enter_context(closing(self._answers(waiting))):
                    self._take(number, piece)
                    self._write_settled()
                self._write_settled()
        except BaseException as failure:
            if n_items == 1:
                self.notes.clear()
                self.writer.end_early(failure)
            raise
        if self._interrupted == signal.SIGINT:
            raise KeyboardInterrupt
        if self._interrupted:
            raise SystemExit(128 + self._interrupted)
        return self.counts

    def summary(self) -> str:
        """Say in a line how it went."""
        seconds, done = time.monotonic() - self._started, self.counts["done"]
        said = ", ".join(f"{self.counts[ending]} {ending}" for ending in ("done", "skipped", "failed"))
        if self.counts["failed"] > 1:
            said += f" ({', '.join(f'{n} {kind}' for kind, n in self._kinds.most_common(_KINDS))})"
        return f"{said} in {seconds:.1f} s" + (f", {pace(done / seconds)}" if done and seconds > 0 else "")

    def n_left(self, count: Callable[[], int] | None) -> int | None:
        """Say how many items of a batch that was stopped are left, if that is known, or can be counted."""
        n_items = count() if self._n_items is None and count else self._n_items
        return None if n_items is None else n_items - self.counts.total()

    # 1) Compute: the model pulls requests, and its pieces come back

    def _look(self, item: Item, opens: bool = True) -> Entry | None:
        return look(item, self.origin, self.writer, self.limits, self.journal, opens=opens, reads=self.reads)

    def _waiting(self, items: Iterable[Item]) -> Generator[Request | None]:
        """Give the requests that are to be computed; None where the model should answer what it has."""
        n_computed = n_group = pixels = 0
        numbered = enumerate(entry for entry in ahead(self._look, items, 2 * self.limits.group) if entry is not None)
        for number, entry in numbered:
            if self._stopping or n_computed == self.limits.limit:
                break
            # 1) Not to be computed: it is skipped, has failed, or an equal item has a result by now
            self._recall(entry)
            n_computed += not entry.is_settled
            equals = (each for each in self._entries.values() if each.key == entry.key and each.request)
            equal = next((each for each in equals if each.result.copied is None), None)
            self._entries[number] = entry
            if not entry.is_settled and equal is not None:
                equal.followers.append(entry)
                entry.result, entry.is_settled = equal.result, equal.is_settled
            elif not entry.is_settled:
                # 2) To be computed
                self._tick()
                entry.began = self._clock
                self._asked.append(number)
                self._under_way[number] = 0.0
                n_group, pixels = n_group + 1, pixels + n_pixels(entry)
                yield entry.request
                if n_group == self.limits.group or pixels > MOST_PIXELS:
                    n_group = pixels = 0
                    yield None
                continue
            if self.limits.fail_fast and entry.result.error is not None:
                break
            if number - self._next > 2 * self.limits.group:  # what else is settled is held meanwhile
                yield None
            self._write_settled()

    def _recall(self, entry: Entry) -> None:
        """Bring back the result of an equal item, if the journal has one by now."""
        if self.journal is None or entry.is_settled:
            return
        entry.state = self.journal.state(entry.key, entry.item.item_id)
        if entry.state in ("done", "copy"):
            recalled = self.writer.recall(entry.item, self.journal.result(entry.key))
            entry.result, entry.is_settled = recalled or entry.result, recalled is not None

    def _answers(self, waiting: Iterator[Request | None]) -> Generator[tuple[int, Piece | Done | MmgenError]]:
        """Open the model once there is something to do, and let it answer."""
        first = list(takewhile(lambda request: request is not None, islice(waiting, self.limits.group)))
        if not first:
            return
        asked = [self._entries[number].item for number in self._asked]
        is_same = len({(item.prompt, len(item.sources)) for item in asked}) == 1  # if its words are too long, all are
        known = [request for request in first if request is not None]
        model = self.open_model(known if is_same and (len(known) > 1 or self._n_items == 1) else [])
        self._opened = self._ticked = time.monotonic()
        # Ctrl-C finishes what is in hand; of a few items that were named, the first one ends it all.
        if self.journal is not None or self._n_items is None or self._n_items > GROUP:
            self._undo.enter_context(first_interrupt(self._stop))
        group = deque([*first, None])
        first.clear()  # lest its images stay to the end
        known.clear()
        n_before = 0  # that were asked of earlier streams
        while True:
            stream = chain((group.popleft() for _ in range(len(group))), self._pulled(waiting))
            try:
                for index, piece in model.replies(stream):
                    yield self._asked[n_before + index], piece
                return
            except Exception as failure:
                if isinstance(failure, MmgenError) or failure is self._own_failure:
                    raise
                group.clear()
                yield from self._ask_again(model, failure)
                n_before = len(self._asked)

    def _pulled(self, waiting: Iterator[Request | None]) -> Iterator[Request | None]:
        """Hand requests to a model, and take note of a failure that is not the model's."""
        try:
            yield from waiting
        except Exception as failure:
            self._own_failure = failure
            raise

    def _ask_again(self, model: Model, failure: Exception) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Ask one at a time what a model had taken as it failed: an item over which it fails alone has the error."""
        left = [self._entries[number] for number in self._under_way]
        for number, entry in zip(list(self._under_way), left, strict=True):
            if len(left) == 1 or entry.request is None:
                yield number, caught(failure, entry.item)
                return
            entry.result = Result()
            try:
                for _, piece in model.replies([entry.request]):
                    yield number, piece
            except MmgenError:
                raise
            except Exception as again:  # noqa: BLE001 -- the net: one item never ends the others
                yield number, caught(again, entry.item)

    def _take(self, number: int, piece: Piece | Done | MmgenError) -> None:
        """Take what came of an item."""
        self._tick()
        entry = self._entries[number]
        if isinstance(piece, Progress):
            self._under_way[number] = piece.done / piece.total
            if number == next((each for each, share in self._under_way.items() if share), number):
                self._drawing.show(piece, str(number), None if self._n_items == 1 else self._how_far())
        elif isinstance(piece, Thought):
            entry.result.thoughts += piece.text
        elif isinstance(piece, str | Picture):
            self._under_way[number] = 0.0
            if isinstance(piece, Picture):
                self.notes.detail(piece.effort)
                self.notes.picture(piece.image)
            entry.result.pieces.append(piece)
            if self._n_items == 1:
                self.notes.clear()
                self.writer.take(entry.item, piece, self.origin.record(entry.item))
        else:
            entry.result.error = piece if isinstance(piece, MmgenError) else None
            if isinstance(piece, Done) and entry.request is not None:
                entry.result.chances = dict(zip(entry.request.choices, piece.chances, strict=False))
            entry.seconds = self._clock - entry.began
            del self._under_way[number]
            if entry.result.thoughts:
                self.notes.detail(f"thought: {folded(entry.result.thoughts)}")
            for each in (entry, *entry.followers):
                each.result, each.is_settled = entry.result, True

    def _tick(self) -> None:
        now = time.monotonic()
        self._clock += (now - self._ticked) / max(1, len(self._under_way))
        self._ticked = now

    def _stop(self, number: int) -> None:
        self._interrupted, self._stopping = number, True
        self.notes.say("finishing what is in hand; Ctrl-C again stops at once")

    # 2) Write: results in the order of the items, a record before its file

    def _write_settled(self) -> None:
        """Write results as far as they are there without a gap."""
        while (entry := self._entries.get(self._next)) is not None and entry.is_settled:
            del self._entries[self._next]
            self._next += 1
            self.notes.clear()
            if entry.skip:
                self.counts["skipped"] += 1
            else:
                self._write(entry, entry.result)
            self._show_progress()

    def _write(self, entry: Entry, result: Result) -> None:
        item, error = entry.item, result.error
        last = self.journal.last(item.item_id) if self.journal is not None else None
        begun: Record = {**self.origin.record(item), "seconds": round(entry.seconds, 3)}
        if result.thoughts:
            begun["thoughts"] = clean(result.thoughts).strip()
        if result.chances:
            begun["chances"] = result.chances
        record = begun.copy()
        if error is None:
            try:
                # 1) The file beside its place, 2) the record, with the old file put aside, 3) the file in its place
                with self.writer.stage(item, result, record, last) as replaced:
                    self._keep(entry, record, nullcontext() if replaced is None else aside(replaced))
            except CannotGoOnError:
                raise
            except MmgenError as failure:
                error, record = failure, begun
        if error is not None:
            record["error"] = error.message
            if last is not None and "written" in last:
                record["written"] = last["written"]  # by which what stands there is still known as ours
            self._keep(entry, record, nullcontext())
        if self.as_json:
            emit(as_line(in_order(record)))
        if error is None:
            self.counts["done"] += 1
            return
        self.counts["failed"] += 1
        self._kinds[kind_of(error)] += 1
        if self._n_items == 1 and item.line is None:
            raise error
        about = f"line {item.line}" if item.line else item.image or folded(item.prompt)[:60]
        self.notes.error(error, about="" if item.image and item.image in error.message else about)
        self._stopping = self._stopping or self.limits.fail_fast

    def _keep(self, entry: Entry, record: Record, meanwhile: AbstractContextManager[None]) -> None:
        """Write a record into the journal, if there is one."""
        if self.journal is None:
            return
        marked: Record = {**record, "key": entry.key, "place": entry.item.item_id, "files": entry.files}
        if self.origin.drawn_seed is not None:
            marked["drawn_seed"] = self.origin.drawn_seed
        if self.origin.given_seed is not None:
            marked["given_seed"] = self.origin.given_seed
        with meanwhile:
            self.journal.append(marked)

    # What is said meanwhile

    def _show_progress(self) -> None:
        if self._n_items != 1 and self.counts["done"] + self.counts["failed"]:
            self.notes.progress(*self._how_far())

    def _how_far(self) -> tuple[str, float | None]:
        """Say how many are done of how many, how quickly, and how long the rest takes."""
        done, seconds = self.counts["done"] + self.counts["failed"], time.monotonic() - self._opened
        n_held = sum(entry.is_settled and not entry.skip for entry in self._entries.values())
        in_hand = n_held + sum(self._under_way.values())  # in items
        speed = (done + in_hand) / max(seconds, 1e-3)
        return how_far(self._next, self._n_items or self.n_expected, in_hand, speed)
