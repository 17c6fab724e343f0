"""What commands do between their flags and their result: read a prompt, check outputs, find pictures, open the model,
answer one request as it comes, or many as a batch.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import typer

from mmgen import signals
from mmgen.checkpoints import catalog, machine
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.cli.naming import JOURNAL
from mmgen.cli.options import FindOptions, JobOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.inputs import prompts
from mmgen.inputs.finding import PICTURE_ENDINGS, Found, NotFoundError, Selection, check_file, find, is_url, read_names
from mmgen.inputs.prompts import Prompt
from mmgen.model import Model
from mmgen.outputs.preview import Drawing
from mmgen.outputs.records import Choice, Item, Job
from mmgen.outputs.terminal import Notes, emit
from mmgen.outputs.writers import Sidecars, Sink
from mmgen.request import Kind, Loading, Picture, Progress, Request, fresh_seed
from mmgen.text import is_text

_PAGE = b'<meta name="generator" content="mmgen">'


def read_prompt(words: str, hint: str) -> str:
    """Take a prompt from the command line, or from stdin if it is `-`.

    Raises:
        UsageError: not text, or a picture's name by mistake; the hint says where that belongs.
    """
    if words == "-":
        try:
            words = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError as failure:
            raise UsageError("the prompt on stdin is not UTF-8 text", "give words, not a picture") from failure
    return check_prompt(words, hint)


def check_prompt(words: str, hint: str) -> str:
    """Check that a prompt is text.

    Raises:
        UsageError: it is not, or a picture's name by mistake; the hint says where that belongs.
    """
    if _is_file_name(words):
        raise UsageError(f"the prompt is the name of a file: {words}", hint)
    if not is_text(words):
        raise UsageError("the prompt is not UTF-8 text", "check the terminal's or the script's encoding")
    if not words.strip():
        raise UsageError("the prompt is empty", "say in words what you want")
    return words


def _is_file_name(words: str) -> bool:
    if words.lower().endswith(PICTURE_ENDINGS) and len(words.split()) == 1:
        return True
    return "." in words and os.path.isfile(words)  # noqa: PTH113 -- Path.is_file raises on a prompt that is too long


def check_stdin(words: str | None, given: FindOptions) -> None:
    """Check that stdin is not read both for a prompt and for names."""
    if given.files_from == "-" and words == "-":
        raise UsageError("both the prompt and --files-from are -", "stdin holds one")


# Pictures


def is_one(names: Sequence[str], given: FindOptions) -> bool:
    """Say whether exactly one picture is named: no folder, no pattern, no list."""
    if given.files_from is not None or len(names) != 1:
        return False
    name = names[0]
    if is_url(name) or Path(name).is_file():
        return True
    return not Path(name).is_dir() and not _is_pattern(name)


def _is_pattern(name: str) -> bool:
    return any(letter in name for letter in "*?[")


def find_pictures(names: Sequence[str], given: FindOptions) -> Callable[[], Iterator[Found | NotFoundError]]:
    """Gather where pictures are; the call that comes back looks for them, from the beginning each time.

    Raises:
        MmgenError: nothing was named, or something that is not there.
    """
    files_from = given.files_from
    if not names and files_from is None:
        raise UsageError("missing IMAGE", "name files, folders or addresses, or a list of them with --files-from")
    if given.null and files_from is None:
        raise UsageError("-0 says how paths in --files-from end", "leave it out, or add --files-from")
    for name in names:
        if not (is_url(name) or _is_pattern(name) or os.path.lexists(name)):
            check_file(name)
    selection = Selection(given.recursive, tuple(given.include or ()), tuple(given.exclude or ()))

    def look() -> Iterator[Found | NotFoundError]:
        listed = read_names(files_from, null=given.null) if files_from is not None else ()
        found = find(chain(names, listed), selection)
        first = next(found, None)
        if first is None:
            raise MmgenError(f"no pictures in {'stdin' if files_from == '-' else files_from}", "write one path a line")
        yield first
        yield from found

    return look


def count(look: Callable[[], Iterator[object]], given: FindOptions) -> int | None:
    """Count pictures for whoever watches the progress; None if nobody does, or their names come through a pipe."""
    is_there_once = given.files_from is not None and not Path(given.files_from).is_file()  # stdin, <(find ...)
    return None if is_there_once or not sys.stderr.isatty() else sum(1 for _ in look())


# Prompts


def read_prompts(
    words: Sequence[str], file: str | None, hint: str
) -> Callable[[], Iterator[tuple[int | None, Prompt | MmgenError]]]:
    """Gather prompts, from the command line or a file; the call that comes back gives them, with their lines.

    Raises:
        UsageError: there are none, or some in both places; the hint is for the name of a picture.
    """
    if file is None and not words:
        raise UsageError("missing PROMPT", "say in words what you want, or give a file of prompts with --prompts")
    if file is not None and words:
        raise UsageError("prompts both on the command line and in --prompts", "leave one out")
    if list(words).count("-") > 1:
        raise UsageError("two prompts are -", "stdin holds one")
    said = [Prompt(read_prompt(each, hint)) for each in words]

    def read() -> Iterator[tuple[int | None, Prompt | MmgenError]]:
        if file is None:
            yield from ((None, each) for each in said)
        else:
            yield from prompts.read_prompts(file)

    return read


# The model


def open_model(
    found: str | Checkpoint,
    loading: Loading,
    want: frozenset[Kind],
    requests: Sequence[Request],
    notes: Notes,
) -> Model:
    """Find the model, if only its name is given, and open it, with its own note about itself."""
    from mmgen import families

    notes.progress(f"loading {found if isinstance(found, str) else found.name}")
    try:
        with signals.noticed():
            if isinstance(found, str):
                found = catalog.find(found, revision=loading.revision, offline=loading.offline)
            _quiet(notes)
            model = families.open_model(found, loading, want, requests, _hide_broken_torchvision)
    finally:
        notes.clear()
    signals.raise_on_interrupt()  # from now on something is in hand
    if model.note:
        notes.say(f"note: {model.note}")
    return model


def _quiet(notes: Notes) -> None:
    """Keep the libraries' reports and bars off the terminal, which is ours: what matters in them is raised."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if notes.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if notes.quiet:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()  # transformers asks it, too
    for library in ("accelerate", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _hide_broken_torchvision() -> None:
    """Let our own process do without a torchvision that cannot be imported, as one that was made for another torch."""
    try:
        machine.check_torchvision()
    except MmgenError:
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # so it is not found


def stream(model: Model, request: Request, notes: Notes, take: Callable[[str | Picture], None]) -> None:
    """Answer one request, piece by piece as it comes."""
    drawing = Drawing(notes)
    try:
        for piece in model.reply(request):
            if isinstance(piece, Progress):
                drawing.show(piece)
            else:
                notes.clear()
                take(piece)
                if isinstance(piece, Picture):
                    notes.detail(piece.effort)
    finally:
        notes.clear()


# Many


@dataclass(frozen=True)
class Command:
    """What the flags say of all items of a command.

    Attributes:
        by_chance: results depend on the seed, so that whoever wants them again has to know it.
    """

    name: str
    job: JobOptions
    choice: Choice
    loading: Loading
    want: frozenset[Kind]
    by_chance: bool
    notes: Notes

    @cached_property
    def first_seed(self) -> int:
        """The seed that was given, or one that is drawn, once."""
        return fresh_seed() if self.job.seed is None else self.job.seed


def open_for(
    command: Command, requests: Sequence[Request], first_seed: int, checkpoint: Checkpoint | None = None
) -> Model:
    """Open the model of a command, and say the seed that was drawn."""
    model = open_model(checkpoint or command.job.model, command.loading, command.want, requests, command.notes)
    if command.by_chance and command.job.seed is None:
        command.notes.say(f"seed: {first_seed}")
    return model


def run_batch(
    command: Command,
    sink: Callable[[Job], Sink],
    items: Callable[[int], Iterable[Item]],
    n_items: int | None = None,
    journal_path: Path | None = None,
) -> None:
    """Do many items, and end the command: in failure if any of them failed.

    Args:
        items: makes them, given the first seed.
        n_items: how many there are, if that is known.
        journal_path: where results are kept if --jsonl does not say.
    """
    from mmgen.jobs import Batch, Counts
    from mmgen.outputs.journal import Journal

    many, notes, loading = command.job, command.notes, command.loading
    if many.html is not None:
        check_page(Path(many.html))
    with ExitStack() as stack:
        journal = None
        path = Path(many.jsonl) if many.jsonl is not None else journal_path
        if path is not None or many.html is not None:
            signals.raise_on_interrupt()
        if path is None and many.html is not None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmgen-"))) / "journal.jsonl"
        if path is not None and not (many.plan and not path.exists()):
            if path == journal_path:  # in a folder that the command fills
                with suppress(OSError):  # the journal says so
                    path.parent.mkdir(parents=True, exist_ok=True)
            with signals.uninterrupted():  # until it is known that a new one is to be taken away
                journal = stack.enter_context(Journal(path))
        kept = journal.drawn_seed if journal else None
        seed = command.first_seed if kept is None or many.seed is not None else kept
        checkpoint = catalog.find(many.model, revision=loading.revision, offline=loading.offline)
        job = Job(command.name, checkpoint.name, checkpoint.revision)
        kind = sink(job)
        is_silent = isinstance(kind, Sidecars)  # on stdout
        batch = Batch(
            job, catalog.identity(checkpoint) if journal else "", kind, notes,
            lambda requests: open_for(command, requests, seed, checkpoint), command.choice, journal,
            as_json=many.as_json, drawn_seed=seed if many.seed is None else None,
        )  # fmt: skip
        if many.plan:
            emit(", ".join(f"{name} {n}" for name, n in batch.plan(items(seed)).items()) + "\n")
            return
        try:
            counts = batch.run(items(seed), n_items)
        finally:
            notes.clear()
            is_stopped_early = isinstance(sys.exception(), KeyboardInterrupt) and batch.counts == Counts()
            if not is_stopped_early and (journal is not None or batch.counts.is_notable or is_silent):
                notes.say(batch.summary())
            if many.html is not None and journal is not None:
                from mmgen.outputs.export import write_report

                write_report(journal.records(), Path(many.html), f"mmgen {command.name}")
    if counts.failed:
        raise typer.Exit(1)


def run_pictures(
    command: Command,
    sink: Callable[[Job], Sink],
    items: Callable[[int], Iterator[Item]],
    n_items: int | None,
    folder: Path | None,
    *,
    force: bool,
) -> None:
    """Do many items that are written to files, having checked that they can be.

    Args:
        folder: the batch's own, which it goes on filling and keeps its journal in, if there is one.
    """
    if n_items is not None and command.job.jsonl is None:
        paths = [item.output for item in items(command.first_seed) if item.output is not None]
        if paths != ["-"]:
            check_outputs(paths, force)
    run_batch(command, sink, items, n_items, folder / JOURNAL if folder is not None else None)


# Outputs


def check_outputs(paths: Sequence[str], force: bool) -> None:
    """Check that files can be written and, unless forced, that none exists."""
    from mmgen.files import check_writable
    from mmgen.outputs.pictures import format_of

    for path in paths:
        if Path(path).is_dir():
            raise UsageError(f"{path} is a folder", "name a file in it with -o")
        format_of(path)
        if not force and os.path.lexists(path):
            raise UsageError(f"{path} exists", "choose another name with -o, or overwrite it with -f")
    for folder in {Path(path).parent: None for path in paths}:
        check_writable(folder)


def check_page(path: Path) -> None:
    """Check that a page can be written, and that what it replaces is one of ours."""
    from mmgen.files import check_writable

    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path} is not a name for a page", "end it in .html, as in --html report.html")
    if os.path.lexists(path) and not (path.is_file() and _PAGE in path.read_bytes()):
        raise UsageError(f"{path} exists, and is no page of mmgen's", "choose another name with --html")
    check_writable(path.parent)


def check_folder(output: str | None, force: bool) -> str:
    """Check that a folder can be made, or filled: an empty one or, if forced, any."""
    from mmgen.files import check_writable

    if output is None:
        raise UsageError("no folder for the story", "name one with -o, as in -o story")
    folder = Path(output)
    if not os.path.lexists(folder):
        check_writable(folder.absolute().parent)
    elif not folder.is_dir():
        raise UsageError(f"{output} is not a folder", "choose another place with -o")
    elif not force and any(folder.iterdir()):
        raise UsageError(f"{output} is not empty", "choose another folder with -o, or overwrite what is in it with -f")
    else:
        check_writable(folder)
    return output
