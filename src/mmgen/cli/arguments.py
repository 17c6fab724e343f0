"""From a command's flags to items that run: inputs, destinations, the model. The same for every command."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import typer

from mmgen.cli import opening
from mmgen.cli.given import PromptLines
from mmgen.cli.naming import check_outputs, check_page, no_path
from mmgen.cli.options import JobOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.files import raise_on_interrupt, uninterrupted
from mmgen.inputs.finding import Found, NotFoundError
from mmgen.inputs.placeholders import expand
from mmgen.inputs.prompts import PromptLine
from mmgen.inputs.selection import Selection, left_out
from mmgen.limits import GROUP, Limits
from mmgen.model import Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Item, Origin, is_random
from mmgen.outputs.sidecars import Sidecars
from mmgen.outputs.terminal import Notes, emit
from mmgen.outputs.writers import Writer
from mmgen.request import PICTURES, Loading, Request, fresh_seed

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint
    from mmgen.jobs import Job


@dataclass(frozen=True)
class Command:
    """A command's flags, as they hold for all its items.

    Attributes:
        shape: the request of every item, but for its own parts and its own seed.
        remark: a note on what was typed, once it is being done.
    """

    name: str
    shape: Request
    job: JobOptions
    limits: Limits
    loading: Loading
    notes: Notes
    remark: str = ""

    def __post_init__(self) -> None:
        self.notes.listen()
        if self.limits.pixel_limit is not None:
            from mmgen.inputs.images import set_pixel_limit

            set_pixel_limit(self.limits.pixel_limit)

    @cached_property
    def first_seed(self) -> int:
        """The seed that was given, or one that is drawn, once."""
        return fresh_seed() if self.job.seed is None else self.job.seed

    def streams(self, n_items: int | None) -> bool:
        """Whether the result is shown as it comes: there is one, and nothing else is wanted of it."""
        return n_items == 1 and not (self.job.as_json or self.job.is_batch)

    def of_prompts(
        self, lines: PromptLines, seed: int, *, takes_images: bool = True
    ) -> Iterator[tuple[Item, str, int | None]]:
        """Make items of prompts, with how many are wanted of each, if its line says so; see `items`."""
        for number, line in lines:
            if isinstance(line, MmgenError):
                yield Item(self.shape, "", images=() if takes_images else None, line=number, error=line), "", None
                continue
            shape, error = self.shape, None
            try:
                shape = self._sampled(line)
            except MmgenError as failure:
                error = failure
            yield Item(
                replace(shape, seed=seed if line.seed is None else line.seed), line.text, error=error,
                images=line.images if takes_images else line.images or None, sources=tuple(line.sources()),
                output=line.output, line=number, own_seed=self.job.seed is not None or line.seed is not None,
            ), "", line.n  # fmt: skip

    def _sampled(self, line: PromptLine) -> Request:
        """Give the shape of a request, sampled as its line says.

        Raises:
            MmgenError: a value is out of range, or of no use to this command.
        """
        draws = "image" in self.shape.want
        useless = [name for name in line.sampling if not draws and name != "temperature"]
        if useless or (line.n is not None and self.shape.want != PICTURES):
            raise MmgenError(f"{self.name} has no use for {(*useless, 'n')[0]}", "leave it out of the line")
        if draws:
            return replace(self.shape, image=replace(self.shape.image, **line.sampling))
        return replace(self.shape, text=replace(self.shape.text, **line.sampling))

    def of_pictures(
        self, found: Iterable[Found | NotFoundError], prompt: str, seed: int, ending: str = ".txt"
    ) -> Iterator[tuple[Item, str, None]]:
        """Make items of pictures, with where each lies below the folder that was named; see `items`.

        Args:
            prompt: with placeholders.
            ending: of the files with their captions.
        """
        for each in found:
            error: MmgenError | None = each if isinstance(each, NotFoundError) else None
            below, words = "" if isinstance(each, NotFoundError) else each.below, prompt
            try:
                if not isinstance(each, NotFoundError):
                    words = each.words or expand(prompt, each.name, ending, each.beside)
            except MmgenError as failure:
                error = failure
            yield Item(
                replace(self.shape, seed=seed), words, image=each.name, sources=(getattr(each, "source", each.name),),
                own_seed=self.job.seed is not None, error=error,
            ), below, None  # fmt: skip

    def items(
        self,
        asked: Iterable[tuple[Item, str, int | None]],
        path: Callable[[Item, int, str], str | None] = no_path,
        n: int = 1,
        best_of: int = 1,
    ) -> Iterator[Item]:
        """Make `n` items of each that was asked, if it says no other number: of so many seeds, or ranks among the best.

        Args:
            path: names the file of an item, given which of those asked it is, from 1, and where its picture lies below
                the folder that was named; or raises MmgenError, and then that is what comes of the item.
        """
        seen: Counter[int] = Counter()
        for index, (item, below, own_n) in enumerate(asked, 1):
            mark = hash((item.prompt, item.images))
            again = seen[mark] if item.image is None else 0  # a picture has its own name
            seen[mark] += 1
            for i in range(own_n or n):
                seed, rank = (item.request.seed + i, 0) if best_of == 1 else (item.request.seed, i)
                request = replace(item.request, seed=seed, best_of=best_of, rank=rank, cancelled=Event())
                one = replace(item, request=request, number=i, again=again)
                try:
                    if item.error is not None or i >= best_of > 1:
                        raise item.error or UsageError(f"n is more than --best-of {best_of}", "say fewer")
                    yield replace(one, output=path(one, index, below))
                except MmgenError as error:
                    yield replace(one, output=None, error=error)
                    break

    def run(
        self,
        items: Callable[[int], Iterable[Item]],
        writer: Writer,
        n_items: int | None = None,
        own_journal: Path | None = None,
        force: bool | None = None,
        selection: Selection | None = None,
        count: Callable[[], int] | None = None,
    ) -> None:
        """Run items, and end the command: in failure if any of them failed.

        Args:
            items: makes them, given the first seed.
            n_items: how many there are, if that is known.
            own_journal: where results are kept, in a folder that the command fills, if --jsonl does not say.
            force: of picture files: overwrite what exists. It is looked for first, if they are few and named.
            selection: by which pictures were found.
            count: looks how many items there are; where that is not known, for whoever stops it.
        """
        from mmgen.jobs import Job  # not on the way to --help

        job, loading, notes = self.job, self.loading, self.notes
        listed: list[Item] | None = None
        if force is not None and n_items is not None and job.jsonl is None and own_journal is None:
            listed = list(items(self.first_seed))
            check_outputs([item.output for item in listed if item.output not in (None, "-")], force)
        with self._journal(own_journal) as journal, ExitStack() as stack:
            # 1) The seed: the one that was given, or that the journal began with
            kept, before = (journal.drawn_seed, journal.last_seed) if journal else (None, None)
            if force is False and not job.plan and job.seed is not None and before not in (None, job.seed):
                raise UsageError(f"this batch has the seed {before}", f"give --seed {before}, or begin anew with -f")
            seed = self.first_seed if kept is None or job.seed is not None else kept

            # 2) The model; its weights are read once an item needs them
            model = opening.find(job, self.limits, loading, self.shape.want, notes)
            if isinstance(model, Model):
                stack.callback(model.close)

            # 3) The items
            found = items(seed) if listed is None else listed
            model_id = opening.identity(model, loading) if journal else ""
            origin = Origin(
                self.name, model.name, model.revision, model_id, seed if job.seed is None else None, job.seed
            )
            opened = partial(self._opened, model, seed)
            n_expected = count() if count is not None and n_items is None and notes.is_live else None
            reads = not (isinstance(model, Model) and model.takes_unread)
            running = Job(origin, writer, notes, opened, self.limits, journal, job.as_json, reads, n_expected)
            if job.plan:
                emit(", ".join(f"{name} {n}" for name, n in running.plan(found).items()) + "\n")
                self._say_left_out(selection)
                return
            try:
                running.run(found, n_items)
            finally:
                is_kept = journal is not None or isinstance(writer, Sidecars)
                self._say_how_it_went(running, is_kept, self._say_left_out(selection), count)
                if job.html is not None and journal is not None:
                    from mmgen.outputs.export import Export

                    Export([*journal.records()], Path(job.html), f"mmgen {self.name}", Path(), notes).write()
        if running.counts["failed"]:
            raise typer.Exit(1)

    def _opened(self, found: Checkpoint | Model, seed: int, requests: Sequence[Request]) -> Model:
        """Open the model, and say what is to be said as work begins."""
        if isinstance(found, Model):
            found.check(self.shape)
        model = opening.open_model(found, self.loading, self.shape.want, requests, self.notes)
        if self.remark:
            self.notes.say(f"note: {self.remark}")
        if self.job.seed is None and is_random(self.shape):
            self.notes.say(f"seed: {seed}")
        return model

    def _say_how_it_went(self, running: Job, is_kept: bool, n_left_out: int, count: Callable[[], int] | None) -> None:
        """Say in a line what was done, unless it is plain to see; is_kept: the same command can go on from it."""
        self.notes.clear()
        counts, is_stopped = running.counts, isinstance(sys.exception(), KeyboardInterrupt | SystemExit)
        is_notable = counts["skipped"] or counts["done"] > GROUP or (counts["failed"] and counts.total() > 1)
        if (counts or not is_stopped) and (is_kept or is_notable):
            self.notes.say(running.summary() + (f", {n_left_out} left out" if n_left_out else ""))
        if is_stopped and is_kept and counts:
            n_left = running.n_left(count)
            self.notes.say(f"stopped, {'some' if n_left is None else n_left} left; the same command goes on")

    def _say_left_out(self, selection: Selection | None) -> int:
        """Say which files of folders were left out, and count them."""
        if selection is not None and selection.not_entered:
            self.notes.say(f"note: {min(selection.not_entered)} has pictures in folders within it: -r takes them in")
        if selection is not None and selection.left_out:
            self.notes.say(left_out(selection))
        return len(selection.left_out) if selection else 0

    @contextmanager
    def _journal(self, own: Path | None) -> Iterator[Journal | None]:
        """Open the journal that --jsonl names, or the folder's own, or one for a while if only a page is wanted."""
        path = Path(self.job.jsonl) if self.job.jsonl is not None else own
        if self.job.html is not None:
            check_page(Path(self.job.html))
        if path is None and self.job.html is None:
            yield None
            return
        raise_on_interrupt()
        with tempfile.TemporaryDirectory(prefix="mmgen-") if path is None else nullcontext() as folder:
            path = path or Path(str(folder)) / "journal.jsonl"
            if self.job.plan and not path.exists():
                yield None
                return
            if path == own:
                with suppress(OSError):  # the journal says so
                    path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                with uninterrupted():  # until it is known that a new one is to be taken away
                    journal = stack.enter_context(Journal(path))
                yield journal
