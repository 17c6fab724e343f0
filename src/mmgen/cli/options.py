"""The command line's options: each a field of a dataclass, here or in request.py, with its help and its check."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import partial, wraps
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from mmgen.checkpoints import aliases
from mmgen.errors import UsageError
from mmgen.inputs.selection import PICTURE_ENDINGS
from mmgen.limits import Limits
from mmgen.outputs.terminal import Notes
from mmgen.request import Edit, ImageSampling, Loading, TextSampling, check_seed, option
from mmgen.text import is_text

_MOST_PICTURES = 10**6  # of one prompt: their names are all looked at before the first is drawn
RESULT, SAMPLING, MODEL, MANY = HEADINGS = ("Result", "Sampling", "Model", "Many")


# --- how they become options --------------------------------------------------------------------------------------


def only(*names: str, **renamed: str) -> Callable[[str], str | None]:
    """Take these fields of a group alone, some by another name."""
    return {**{name: name for name in names}, **renamed}.get


def without(*names: str) -> Callable[[str], str | None]:
    """Take all fields of a group but these."""
    return lambda name: None if name in names else name


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let Typer see each field of a command's dataclass parameters as an option.

    A group is `name: Group`, or `name: Annotated[Group, only(...)]` for a part of it; the defaults are the group's own,
    or those of the value that the command gives it.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], dict[str, str]]] = {}  # and the fields that are taken, with their names here
    for parameter in inspect.signature(command).parameters.values():
        group, *marks = get_args(hints[parameter.name]) or [hints[parameter.name]]
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
            continue
        name_of = marks[0] if marks else without()
        names = {each.name: name for each in fields(group) if (name := name_of(each.name)) is not None}
        groups[parameter.name] = (group, names)
        types, given = get_type_hints(group), parameter.default
        for each in (each for each in fields(group) if each.name in names):
            default = each.default if given is parameter.empty else getattr(given, each.name)
            about = _about(each, names[each.name], _HEADINGS.get(group, RESULT))
            option_of = partial(inspect.Parameter, names[each.name], parameter.KEYWORD_ONLY)
            # The flag of what is true by default turns it off.
            default = False if default is True else default
            parameters.append(option_of(default=default, annotation=Annotated[types[each.name], about]))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, (group, names) in groups.items():
            values = {own: given.pop(flag) for own, flag in names.items()}
            is_off = {each.name for each in fields(group) if each.default is True}
            given[name] = group(**{own: not value if own in is_off else value for own, value in values.items()})
        command(**given)

    del run.__wrapped__  # Typer would look through it
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which inspect looks for first
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _about(each: Field[Any], name: str, heading: str) -> Any:
    given = each.metadata
    flags = given["flags"] if given["flags"] and name == each.name else (f"--{name.replace('_', '-')}",)
    long = next((flag for flag in flags if flag.startswith("--")), name)
    return typer.Option(
        *flags,
        envvar=f"MMGEN_{long.strip('-').replace('-', '_').upper()}" if given["env"] else None,
        metavar=given["metavar"],
        help=given["help"],
        rich_help_panel=given["heading"] or heading,
        autocompletion=complete_model if name == "model" else None,
    )


class HeadedCommand(TyperCommand):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write them, heading by heading."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Arguments", *HEADINGS, "Other")}
        for each in self.get_params(ctx):
            is_argument = each.param_type_name == "argument"
            heading = "Arguments" if is_argument else getattr(each, "rich_help_panel", None) or "Other"
            if (row := each.get_help_record(ctx)) is not None:
                rows[heading].append(row)
        for heading, listed in rows.items():
            if listed:
                with formatter.section(heading):
                    formatter.write_dl(listed)


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Complete a model's short name in the shell, with what it can do."""
    return [(name, " ".join(alias.does)) for name, alias in aliases.ALIASES.items() if name.startswith(incomplete)]


# --- groups that only the command line has ------------------------------------------------------------------------


@dataclass(frozen=True)
class JobOptions:
    """With what model a command works, how much of its items it does, and what it says."""

    as_json: bool = option(False, "Print JSON, an object a line.", "--json")
    quiet: bool = option(False, "Say nothing but errors.", "-q", "--quiet")
    seed: int | None = option(
        None, "Repeat a result; picture i of several uses N + i. Random if not given.", metavar="N", heading=SAMPLING
    )
    model: str = option(
        aliases.DEFAULT, "An alias (see mmgen models), a folder or a Hub id.", "-m", "--model",
        metavar="NAME", heading=MODEL,
    )  # fmt: skip
    endpoint: str | None = option(
        None, "Ask the OpenAI-compatible server at URL; -m names one of its models.", metavar="URL", heading=MODEL
    )
    keep_alive: str | None = option(
        None, "Keep the model loaded in the background, for so long without work, as in 10m.", metavar="TIME",
        heading=MODEL,
    )  # fmt: skip
    ray: str | None = option(
        None, "Let a Ray cluster work: auto, or HOST:PORT of its head. Each worker opens the model.", metavar="ADDRESS",
        heading=MANY,
    )  # fmt: skip
    workers: int | None = option(
        None, "With --ray: how many; one for each GPU if not given, or for each machine where there are none.",
        metavar="N", heading=MANY,
    )  # fmt: skip
    worker_gpus: float | None = option(
        None, "With --ray: GPUs of each worker; a share of one will do.", metavar="N", heading=MANY
    )
    jsonl: str | None = option(
        None, "Keep results in FILE, an object a line; the same again does what is missing.",
        metavar="FILE", heading=MANY, env=False,
    )  # fmt: skip
    html: str | None = option(None, "Write a page to look at, when done.", metavar="FILE", heading=MANY, env=False)
    plan: bool = option(
        False,
        "Only count: new, done, stale (to be done again), failed, left (not ours), rewrite (no model needed).",
        heading=MANY,
        env=False,
    )

    def __post_init__(self) -> None:
        if self.jsonl == "-":
            raise UsageError("--jsonl keeps results in a file", "--json prints them")
        if self.endpoint is not None and self.keep_alive is not None:
            raise UsageError("--endpoint has the model already, and --keep-alive would load it", "leave one out")
        if self.ray is not None and (self.endpoint is not None or self.keep_alive is not None):
            raise UsageError("--ray opens the model on its own workers", "leave --endpoint and --keep-alive out")
        if self.ray is None and (self.workers is not None or self.worker_gpus is not None):
            raise UsageError("--workers and --worker-gpus are about --ray", "add --ray auto")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers} is out of range", "it is a number of at least 1")
        if self.worker_gpus is not None and not 0 <= self.worker_gpus <= 1024:
            raise UsageError(
                f"--worker-gpus {self.worker_gpus:g} is out of range", "a number of GPUs, or a share as in 0.5"
            )
        check_seeds(self.seed)

    @property
    def is_batch(self) -> bool:
        """Whether a flag says that there is more to it than lines on stdout."""
        return self.jsonl is not None or self.html is not None or self.plan


@dataclass(frozen=True)
class FindOptions:
    """Which pictures are meant."""

    recursive: bool = option(False, "Look into the folders below, too.", "-r", "--recursive", env=False)
    include: list[str] | None = option(
        None, "In folders, only names like this, as in '*.png'. Repeatable.", metavar="PATTERN", env=False
    )
    exclude: list[str] | None = option(
        None, "In folders, no names like this. Repeatable.", metavar="PATTERN", env=False
    )
    files_from: str | None = option(
        None, "Read the pictures' paths from FILE, one a line; - is stdin.", metavar="FILE", env=False
    )
    image_column: str | None = option(
        None,
        "Of .parquet files: the column of the pictures; found by its name if not given.",
        metavar="COLUMN",
        env=False,
    )
    key_column: str | None = option(
        None, "Of .parquet files: the column by which pictures are called; rows are counted if not given.",
        metavar="COLUMN", env=False,
    )  # fmt: skip
    prompt_column: str | None = option(
        None, "Of .parquet files: the column that says what to ask about each picture.", metavar="COLUMN", env=False
    )
    null: bool = option(False, "Paths in --files-from end with NUL, as of find -print0.", "-0", "--null", env=False)


@dataclass(frozen=True)
class SidecarOptions:
    """Where words go, if they go into files beside the pictures."""

    sidecar: bool = option(False, "Write the words of photo.jpg to photo.txt beside it, or under --outdir.", env=False)
    outdir: str | None = option(None, "Folder for sidecars.", metavar="DIR", env=False)
    ext: str = option(".txt", "File extension of sidecars.", metavar="EXT", env=False)
    sidecar_name: Literal["stem", "name"] = option("stem", "Call them a.txt, or a.png.txt.", env=False)
    xmp: bool = option(False, "Write XMP in place of text, to a.xmp: what programs for photos read.", env=False)
    prefix: str = option(
        "", "Put this before the words in sidecars. Here and in prompts {stem}, {name} and {folder} stand for the "
        "picture's, {caption} and {json.FIELD} for what its .txt and .json say.", metavar="WORDS", env=False,
    )  # fmt: skip
    suffix: str = option("", "Put this after the words in sidecars.", metavar="WORDS", env=False)
    multiline: bool = option(False, "Keep the lines of an answer; a sidecar holds one line otherwise.", env=False)
    existing: Literal["skip", "overwrite", "append", "prepend"] = option(
        "skip", "Sidecars that were there before, or were edited: leave them, overwrite them, or add to them once.",
        env=False,
    )  # fmt: skip
    with_name: bool = option(
        False, "Print the path before the words, of one picture too.", "-H", "--with-name", heading=RESULT, env=False
    )
    print0: bool = option(False, "End lines with NUL, as for xargs -0.", heading=RESULT, env=False)

    def __post_init__(self) -> None:
        if not self.sidecar and (self.outdir is not None or self.prefix or self.suffix or self.existing != "skip"):
            raise UsageError("--outdir, --prefix, --suffix and --existing are about --sidecar", "add --sidecar")
        if not self.sidecar and (self.multiline or self.xmp or self.sidecar_name != "stem"):
            raise UsageError("--multiline, --xmp and --sidecar-name are about --sidecar", "add --sidecar")
        if self.xmp and self.existing in ("append", "prepend"):
            raise UsageError(f"--existing {self.existing} is about text, and --xmp is none", "leave one out")
        if not is_text(self.prefix + self.suffix):
            raise UsageError("--prefix or --suffix is not UTF-8 text", "check the terminal's or the script's encoding")
        if f".{self.ext.removeprefix('.').lower()}".endswith(PICTURE_ENDINGS):
            raise UsageError(f"--ext {self.ext} is the ending of a picture", "as in --ext .txt")
        if not re.fullmatch(r"\.?[^./\0]+(\.[^./\0]+)*", self.ext):
            raise UsageError(f"--ext {self.ext!r} is no ending of a file's name", "as in --ext .txt")


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are saved, and what is shown of them meanwhile."""

    output: str | None = option(
        None,
        "File to write: .png, .jpg or .webp; - is stdout. Of many: a folder/, or names made of {stem}, {slug}, {seed}, "
        "{index} and {n}. Named by prompt and seed if not given.",
        "-o", "--output", metavar="FILE", env=False,
    )  # fmt: skip
    n: int = option(1, "How many pictures of each prompt.", "-n", metavar="N")
    force: bool = option(False, "Overwrite what exists.", "-f", "--force", env=False)
    metadata: bool = option(True, "Leave prompt, model and seed out of the files.", "--no-metadata")
    verbose: bool = option(False, "Say what each picture took to draw.", "-v", "--verbose")
    previews: bool = option(True, "On a terminal, do not show pictures as they grow.", "--no-preview")
    show: bool = option(False, "On a terminal, show each finished picture in coloured blocks, which stay.")

    def notes(self, quiet: bool) -> Notes:
        """Give what says things beside the result."""
        return Notes(quiet, self.verbose, self.previews, self.show)


_HEADINGS: dict[type[Any], str] = {TextSampling: SAMPLING, ImageSampling: SAMPLING, Edit: SAMPLING, Loading: MODEL}
_HEADINGS |= dict.fromkeys((FindOptions, SidecarOptions, Limits), MANY)

# --- single ones, which several commands have ---------------------------------------------------------------------

Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image", metavar="IMAGE", rich_help_panel=RESULT, help="A picture: file or http(s) address. Repeat for more."
    ),
]


def output(metavar: str, about: str) -> Any:
    """Declare where a command writes."""
    return typer.Option("-o", "--output", metavar=metavar, rich_help_panel=RESULT, help=about)


def _like(context: typer.Context, path: str | None) -> str | None:
    """Let what a picture's file says stand in for what is not given: prompt, model, seed, sampling."""
    if path is None:
        return None
    from mmgen.outputs.pictures import read_metadata

    note: dict[str, Any] = dict(read_metadata(path) or {})
    if not isinstance(note.get("prompt"), str):
        raise UsageError(f"{path} does not say how it was made", "mmgen info shows what a file says")
    sampling = note.pop("sampling", None)
    if isinstance(sampling, dict) and isinstance(sampling.get("image"), dict):
        note |= sampling["image"]
    edit = note.pop("edit", None)
    if isinstance(edit, dict):
        note |= {name: value for name, value in edit.items() if name != "mask"}
    note["prompt"] = [note["prompt"]] if context.command.name == "draw" else note["prompt"]
    taken = {param.name for param in context.command.params} & {*note} - {"output", "n", "like"}
    context.default_map = {str(name): note[name] for name in taken if note[name] is not None}
    return path


Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="PICTURE",
        rich_help_panel=RESULT,
        help="Take prompt, model, seed and settings from a picture's file; flags override.",
        is_eager=True,
        callback=_like,
    ),
]

Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        rich_help_panel=MANY,
        help="Many: one prompt a line, JSON lines of prompt, images, seed, output and more, or a .csv; - reads stdin.",
    ),
]


Comments = Annotated[
    bool,
    typer.Option("--comments", rich_help_panel=MANY, help="In --prompts, pass over lines that begin with #."),
]


def check_seeds(seed: int | None, n: int = 1, flag: str = "-n") -> None:
    """Check how many pictures are wanted, by a flag, and their seeds."""
    if not 1 <= n <= _MOST_PICTURES:
        raise UsageError(f"{flag} {n} is out of range", f"it is a number from 1 to {_MOST_PICTURES}")
    if seed is not None:
        check_seed(seed)
        check_seed(seed + n - 1)
