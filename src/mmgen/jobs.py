"""Many items through one model: skip what is done, open pictures ahead, survive an item's error, keep order, count.

Knows items, sinks and the journal; refuses to know which command asked, and how a model works.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from types import FrameType

from mmgen.ahead import ahead
from mmgen.errors import CannotGoOnError, MmgenError, OutOfMemoryError
from mmgen.inputs.finding import check_file, is_url
from mmgen.model import Model
from mmgen.outputs.journal import Journal, State, key_of
from mmgen.outputs.preview import Drawing
from mmgen.outputs.records import GROUP, Choice, Item, Job, Outcome
from mmgen.outputs.terminal import Notes, duration, emit
from mmgen.outputs.writers import Sink
from mmgen.request import Picture, Progress, Request
from mmgen.text import as_line


@dataclass
class Counts:
    """How many items ended how."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def is_notable(self) -> bool:
        """Whether there is more to say than that a few items are done."""
        return bool(self.skipped or self.done > GROUP or (self.failed and self.done + self.failed > 1))


@dataclass
class _Ready:
    """An item that has been looked at: what to do about it."""

    item: Item
    key: str
    state: State = "new"
    files: list[dict[str, object]] = field(default_factory=list)
    skip: bool = False  # nothing is to be done
    is_foreign: bool = False  # somebody else wrote what stands in its place
    request: Request | None = None  # what to compute
    outcome: Outcome | None = None  # what is known without


class Batch:
    """One command's items.

    Args:
        job: command and model.
        model_id: what stands for the model's content in keys.
        sink: takes the results.
        open_model: opens the model for requests that stand for all, or for none; called once there is something to do.
        journal: of this and earlier runs, or None.
        as_json: print records.
        drawn_seed: the seed that was drawn, if none was given.
    """

    def __init__(
        self,
        job: Job,
        model_id: str,
        sink: Sink,
        notes: Notes,
        open_model: Callable[[Sequence[Request]], Model],
        choice: Choice,
        journal: Journal | None = None,
        *,
        as_json: bool = False,
        drawn_seed: int | None = None,
    ) -> None:
        self.counts = Counts()
        self._job, self._model_id, self._sink, self._notes = job, model_id, sink, notes
        self._drawing = Drawing(notes)
        self._open_model = open_model
        self._choice, self._journal, self._as_json, self._drawn_seed = choice, journal, as_json, drawn_seed
        self._model: Model | None = None
        self._stopping = self._interrupted = False
        self._settled: dict[int, tuple[_Ready, Outcome | None]] = {}  # not yet written: an earlier one is not there
        self._under_way: dict[int, float] = {}  # pictures that are drawn side by side: the share that is done
        self._next = 0
        self._started = self._since = time.monotonic()
        self._n_items: int | None = None

    def plan(self, items: Iterable[Item]) -> dict[str, int]:
        """Count what would be done, without doing it; a copy of what is done counts as done.

        Where there is some, also: left, as somebody else wrote it, and rewrite, which takes no model.
        """
        counts: Counter[str] = Counter({"new": 0, "done": 0, "stale": 0, "failed": 0})
        for ready in ahead(lambda item: self._look(item, opens=False), items, 2 * GROUP):
            if ready is None:
                continue
            item, state = ready.item, str(ready.state)
            if ready.skip:
                state = "left" if ready.is_foreign else "done"
            elif self._journal is not None and state in ("done", "copy"):
                is_there = item.output is not None and os.path.lexists(item.output)
                if self._sink.recall(item, self._journal.result(ready.key)) is not None:
                    state = "rewrite" if state == "done" and is_there else "done"
                else:
                    state = "new" if self._journal.last(item.place) is None else "stale"
            counts[state] += 1
        return dict(counts)

    def run(self, items: Iterable[Item], n_items: int | None = None) -> Counts:
        """Do what is to be done, in groups; write results in the order of the items.

        Args:
            n_items: how many there are, if that is known. The error of one alone is the command's.

        Raises:
            MmgenError: the only item failed, or results cannot be written.
            KeyboardInterrupt: it was interrupted; what was in hand is finished and kept.
        """
        self._n_items = n_items
        with ExitStack() as self._undo:
            number = n_computed = 0
            group: dict[int, _Ready] = {}
            for ready in ahead(self._look, items, 2 * self._choice.group):
                if self._stopping or n_computed == self._choice.limit:
                    break
                if ready is None:
                    continue
                if self._journal is not None and not ready.skip and ready.outcome is None:
                    self._recall(ready, self._journal)
                if ready.skip or ready.outcome is not None:
                    self._settled[number] = (ready, ready.outcome)
                else:
                    group[number] = ready
                    n_computed += 1
                number += 1
                is_over = self._choice.fail_fast and ready.outcome is not None and ready.outcome.error is not None
                waits = number - self._next > 2 * self._choice.group  # for few: what else is settled is held meanwhile
                if group and (len(group) == self._choice.group or is_over or waits):
                    self._compute(group)
                    group = {}
                self._write_settled()
            if group and not self._stopping:
                self._compute(group)
            self._write_settled()
        if self._interrupted:
            raise KeyboardInterrupt
        return self.counts

    def summary(self) -> str:
        """Say in a line how it went."""
        seconds, counts = time.monotonic() - self._started, self.counts
        rate = f", {_rate(counts.done / seconds)}" if counts.done and seconds > 0 else ""
        return f"{counts.done} done, {counts.skipped} skipped, {counts.failed} failed in {seconds:.1f} s{rate}"

    # Looking

    def _look(self, item: Item, opens: bool = True) -> _Ready | None:
        """Find out what is to be done about an item, and open its pictures; None: it is another shard's. In threads."""
        ready = _Ready(item, key_of(item.place))  # of one that cannot be opened; else its own
        try:
            if item.error is not None:
                raise item.error
            self._find_key(ready)
            if not self._is_ours(ready):
                return None
            if self._journal is None:
                ready.skip = ready.is_foreign = self._sink.is_foreign(item, None)
            else:
                self._find_state(ready, self._journal)
            if opens and not ready.skip and ready.outcome is None:
                ready.request = item.open()
        except MmgenError as error:
            if not self._is_ours(ready):
                return None
            ready.outcome = Outcome(error=error)
            if self._journal is not None and not opens:
                ready.state = "failed"
        return ready

    def _is_ours(self, ready: _Ready) -> bool:
        """Say whether an item is of the shard that is to be done."""
        if self._choice.part is None:
            return True
        i, n = self._choice.part
        return int(ready.key[:8], 16) % n == i - 1

    def _find_key(self, ready: _Ready) -> None:
        """Say what the result depends on. Without a journal to compare with, pictures are told by their names."""
        item = ready.item
        contents = []
        for source in item.sources:
            if self._journal is None or is_url(source):
                contents.append(source)
            else:
                check_file(source)
                ready.files.append(self._journal.file_entry(source))
                contents.append(str(ready.files[-1]["sha256"]))
        ready.key = key_of(self._job.command, self._model_id, item.depends_on(contents))

    def _find_state(self, ready: _Ready, journal: Journal) -> None:
        item = ready.item
        ready.state = journal.state(ready.key, item.place)
        if ready.state == "done" and self._sink.is_there(item, lambda: journal.result(ready.key)):
            ready.skip = True
        else:
            ready.skip = ready.is_foreign = self._sink.is_foreign(item, journal.last(item.place))

    def _recall(self, ready: _Ready, journal: Journal) -> None:
        """Take over the result of an equal item, if there is one by now."""
        ready.state = journal.state(ready.key, ready.item.place)
        if ready.state in ("done", "copy"):
            ready.outcome = self._sink.recall(ready.item, journal.result(ready.key))

    # Computing

    def _compute(self, group: Mapping[int, _Ready]) -> None:
        """Put a group to the model, identical items once."""
        leaders: dict[str, int] = {}
        followers: dict[int, list[int]] = {}
        for number, ready in group.items():
            followers.setdefault(leaders.setdefault(ready.key, number), []).append(number)
        requests = [ready.request for number in followers if (ready := group[number]).request is not None]
        if self._model is None:
            shapes = {(ready.item.prompt, len(ready.item.sources)) for ready in group.values()}
            is_same = len(shapes) == 1  # one too long, all too long
            self._model = self._open_model(requests if is_same else [])
            self._started = self._since = time.monotonic()
            self._finish_on_interrupt()
        for number, outcome in self._answers(self._model, dict(zip(followers, requests, strict=True))):
            for each in followers[number]:
                self._settled[each] = (group[each], outcome)
            self._write_settled()

    def _answers(self, model: Model, requests: Mapping[int, Request]) -> Iterator[tuple[int, Outcome]]:
        """Answer requests, in halves where memory does not suffice for all."""
        numbers = list(requests)
        outcomes = {number: Outcome() for number in numbers}
        too_much = []
        for position, piece in model.replies(list(requests.values())):
            number = numbers[position]
            if isinstance(piece, Progress):
                self._under_way[number] = piece.done / piece.total
                if number == min(self._under_way):  # of those side by side only the first is shown
                    self._show_drawing(number, piece)
                continue
            self._under_way.pop(number, None)
            if isinstance(piece, str | Picture):
                if isinstance(piece, Picture):
                    self._notes.detail(piece.effort)
                outcomes[number].pieces.append(piece)
            elif isinstance(piece, OutOfMemoryError) and len(numbers) > 1:
                too_much.append(number)
                outcomes.pop(number)
            else:
                outcome = outcomes.pop(number)
                outcome.error = piece if isinstance(piece, MmgenError) else None
                yield number, outcome
        yield from outcomes.items()  # of a model that does not say when it is done
        half = (len(too_much) + 1) // 2
        for part in (too_much[:half], too_much[half:]):
            if part:
                yield from self._answers(model, {number: requests[number] for number in part})

    def _show_drawing(self, number: int, progress: Progress) -> None:
        which = f"picture {number + 1}{f' of {self._n_items}' if self._n_items else ''}, " if self._n_items != 1 else ""
        self._drawing.show(progress, which)

    # Writing

    def _write_settled(self) -> None:
        """Write results as far as they are there without a gap."""
        while self._next in self._settled:
            ready, outcome = self._settled.pop(self._next)
            self._next += 1
            self._notes.clear()
            if outcome is None:
                self.counts.skipped += 1
            else:
                self._write(ready, outcome)
            self._show_progress()

    def _write(self, ready: _Ready, outcome: Outcome) -> None:
        item, error = ready.item, outcome.error
        last = self._journal.last(item.place) if self._journal is not None else None
        record: dict[str, object] = {}
        now = time.monotonic()
        seconds, self._since = now - self._since, now

        def keep(result: Mapping[str, object]) -> None:
            record.clear()
            record.update(self._job.record(item, seconds, result))
            if self._journal is not None:
                with nullcontext() if "error" in result else self._sink.cleared(item):
                    self._journal.append(record | self._marks(ready))

        if error is None:
            try:
                self._sink.write(item, outcome, last, keep)
            except CannotGoOnError:
                raise
            except MmgenError as failure:
                error = failure
        if error is not None:
            written = {"written": last["written"]} if last is not None and "written" in last else {}
            keep({"error": error.message, **written})  # by which what stands there is still known as ours
        if self._as_json:
            emit(as_line(record))
        if error is None:
            self.counts.done += 1
            return
        self.counts.failed += 1
        if self._n_items == 1 and item.line is None:
            raise error
        self._complain(item, error)
        self._stopping = self._stopping or self._choice.fail_fast

    def _marks(self, ready: _Ready) -> dict[str, object]:
        """Say what a journal keeps of an item besides its result."""
        marks: dict[str, object] = {"key": ready.key, "place": ready.item.place, "files": ready.files}
        return marks if self._drawn_seed is None else marks | {"drawn_seed": self._drawn_seed}

    def _complain(self, item: Item, error: MmgenError) -> None:
        about = f"line {item.line}" if item.line else item.image or _short(item.prompt)
        self._notes.error(error, about="" if item.image and item.image in error.message else about)

    def _show_progress(self) -> None:
        done, seconds = self.counts.done + self.counts.failed, time.monotonic() - self._started
        if self._n_items == 1 or not done:
            return
        computed = sum(outcome is not None for _, outcome in self._settled.values())
        in_hand = computed + sum(self._under_way.values())  # as much as so many items
        rate = (done + in_hand) / max(seconds, 1e-3)
        left = ""
        if self._n_items is not None and self._next < self._n_items:
            left = f", {duration((self._n_items - self._next - in_hand) / rate)} left"
        of = f" of {self._n_items}" if self._n_items is not None else ""
        self._notes.progress(f"{self._next}{of}, {_rate(rate)}{left}")

    def _finish_on_interrupt(self) -> None:
        """Let Ctrl-C finish what is in hand; a second one stops at once. A few items that were named: the first."""
        is_small = self._journal is None and self._n_items is not None and self._n_items <= GROUP
        is_ours = threading.current_thread() is threading.main_thread()
        if is_ours and not is_small and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._undo.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, self._interrupt))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = self._stopping = True
        self._notes.say("finishing what is in hand; Ctrl-C again stops at once")


def _rate(per_second: float) -> str:
    return f"{per_second:.2g} a second" if per_second < 10 else f"{per_second:.0f} a second"


def _short(text: str, n_letters: int = 60) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= n_letters else folded[: n_letters - 2] + " …"
