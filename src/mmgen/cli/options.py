"""The options that commands share, each declared once, and their checks. Defaults stand in request.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mmgen import aliases, tasks
from mmgen.errors import UsageError
from mmgen.finding import PICTURE_ENDINGS
from mmgen.items import GROUP, Choice
from mmgen.request import Loading
from mmgen.streams import is_text

DEFAULT_MODEL = aliases.DEFAULT

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantize = Literal["4bit", "8bit", "quanto-int8"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Complete a model's short name in the shell, with what it can do."""
    return [(name, " ".join(alias.does)) for name, alias in aliases.ALIASES.items() if name.startswith(incomplete)]


# The model

ModelName = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        envvar="MMGEN_MODEL",
        metavar="NAME",
        help="An alias (see mmgen models), a folder or a Hub id.",
        autocompletion=complete_model,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(envvar="MMGEN_REVISION", metavar="REV", help="Branch, tag or commit on the Hub."),
]
DtypeName = Annotated[
    Dtype,
    typer.Option("--dtype", envvar="MMGEN_DTYPE", help="Number format; auto looks at device and size."),
]
DeviceMap = Annotated[
    str,
    typer.Option(
        envvar="MMGEN_DEVICE_MAP",
        metavar="MAP",
        help="auto, cpu, cuda, cuda:N, balanced, sequential or a JSON file of modules.",
    ),
]
QuantizeBits = Annotated[
    Quantize | None,
    typer.Option("--quantize", envvar="MMGEN_QUANTIZE", help="Squeeze the weights: bitsandbytes, or Quanto."),
]
AttentionName = Annotated[
    Attention,
    typer.Option("--attn", envvar="MMGEN_ATTN", help="Attention implementation."),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", envvar="MMGEN_OFFLINE", help="Use only models that are on this machine."),
]

NoFitCheck = Annotated[
    bool,
    typer.Option(
        "--no-fit-check", envvar="MMGEN_NO_FIT_CHECK", help="Load even what seems too large for this machine."
    ),
]

Window = Annotated[
    int | None,
    typer.Option(
        envvar="MMGEN_WINDOW",
        metavar="N",
        help="Image tokens looked at in one pass: in float32 the pictures are the same. Chosen by itself if not given.",
    ),
]

# Sampling

Seed = Annotated[
    int | None,
    typer.Option(
        envvar="MMGEN_SEED", metavar="N", help="Repeat a result; picture i of several uses N + i. Random if not given."
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(envvar="MMGEN_MAX_TOKENS", metavar="N", help="Most tokens of words in an answer."),
]
Temperature = Annotated[
    float,
    typer.Option(envvar="MMGEN_TEMPERATURE", metavar="T", help="How freely to choose; 0 takes the likeliest."),
]
ImageTemperature = Annotated[
    float,
    typer.Option(envvar="MMGEN_IMAGE_TEMPERATURE", metavar="T", help="How freely to choose in pictures."),
]
TopP = Annotated[
    float,
    typer.Option(envvar="MMGEN_TOP_P", metavar="P", help="Choose among the likeliest that make up P; 1 is all."),
]
TopK = Annotated[
    int,
    typer.Option(envvar="MMGEN_TOP_K", metavar="K", help="Choose among the K likeliest; 0 is all."),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(envvar="MMGEN_REPETITION_PENALTY", metavar="R", help="Above 1: avoid words that were said."),
]
Number = Annotated[
    int,
    typer.Option("-n", envvar="MMGEN_N", metavar="N", help="How many pictures of each prompt."),
]
Guidance = Annotated[
    float,
    typer.Option(envvar="MMGEN_GUIDANCE", metavar="G", help="How strongly the prompt pulls; 1 is no guidance."),
]
ImageGuidance = Annotated[
    float,
    typer.Option(envvar="MMGEN_IMAGE_GUIDANCE", metavar="G", help="How strongly the pictures given pull."),
]

NegativePrompt = Annotated[
    str | None,
    typer.Option(envvar="MMGEN_NEGATIVE_PROMPT", metavar="WORDS", help="What to steer away from, if the model can."),
]
Ratio = Annotated[
    str | None,
    typer.Option(envvar="MMGEN_RATIO", metavar="W:H", help="Width to height, as in 16:9, if the model can."),
]

# Input and output

Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="IMAGE", help="A picture: file or http(s) address. Repeat for more."),
]
ImageFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write: .png, .jpg or .webp; - is stdout. Of many: a folder/, or names made of {stem}, {slug}, "
        "{seed}, {index} and {n}. Named by prompt and seed if not given.",
    ),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite what exists.")]
NoMetadata = Annotated[
    bool,
    typer.Option("--no-metadata", envvar="MMGEN_NO_METADATA", help="Leave prompt, model and seed out of the files."),
]
AsJson = Annotated[bool, typer.Option("--json", envvar="MMGEN_JSON", help="Print JSON, an object a line.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", envvar="MMGEN_VERBOSE", help="Say what each picture took to draw.")
]
NoPreview = Annotated[
    bool,
    typer.Option("--no-preview", envvar="MMGEN_NO_PREVIEW", help="On a terminal, do not show pictures as they grow."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", envvar="MMGEN_QUIET", help="Say nothing but errors.")]


# Many at once

Recursive = Annotated[bool, typer.Option("-r", "--recursive", help="Look into the folders below, too.")]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="In folders, only names like this, as in '*.png'. Repeatable."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="In folders, no names like this. Repeatable."),
]
FilesFrom = Annotated[
    str | None,
    typer.Option("--files-from", metavar="FILE", help="Read the pictures' paths from FILE, one a line; - is stdin."),
]
Null = Annotated[bool, typer.Option("-0", "--null", help="Paths in --files-from end with NUL, as of find -print0.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Many: one prompt a line, or JSON lines of prompt, images, seed, output; - reads stdin.",
    ),
]
Jsonl = Annotated[
    str | None,
    typer.Option(
        "--jsonl", metavar="FILE", help="Keep results in FILE, an object a line; the same again does what is missing."
    ),
]
Sidecar = Annotated[
    bool, typer.Option("--sidecar", help="Write the words of photo.jpg to photo.txt beside it, or under --outdir.")
]
OutDir = Annotated[str | None, typer.Option("--outdir", metavar="DIR", help="Folder for sidecars.")]
Ext = Annotated[str, typer.Option("--ext", metavar="EXT", help="Ending of sidecars.")]
Prefix = Annotated[str, typer.Option("--prefix", metavar="WORDS", help="Put this before the words in sidecars.")]
Suffix = Annotated[str, typer.Option("--suffix", metavar="WORDS", help="Put this after the words in sidecars.")]
Existing = Annotated[
    Literal["skip", "overwrite"],
    typer.Option("--existing", help="Sidecars that were there before, or were edited: leave or overwrite them."),
]
Html = Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a page to look at, when done.")]
Plan = Annotated[bool, typer.Option("--plan", help="Only count: new, done, stale (to be done again), failed.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first that fails.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="Stop after N that had to be computed.")]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Do only the I-th of N parts: one part a machine.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", envvar="MMGEN_BATCH_SIZE", metavar="N", help="Most at a time. Found by itself if not given."
    ),
]


@dataclass(frozen=True)
class Many:
    """How many items are done.

    Attributes:
        jsonl: the journal.
        html: the page.
        plan: count only.
        choice: which, and how many at a time.
    """

    jsonl: str | None
    html: str | None
    plan: bool
    choice: Choice

    @property
    def is_asked_for(self) -> bool:
        """Whether a flag says that there is more to it than lines on stdout."""
        return self.jsonl is not None or self.html is not None or self.plan


@dataclass(frozen=True)
class Texts:
    """Where words go, if they go into files beside the pictures."""

    sidecar: bool
    outdir: str | None
    ext: str
    prefix: str
    suffix: str
    existing: str

    def __post_init__(self) -> None:
        if not self.sidecar and (self.outdir is not None or self.prefix or self.suffix or self.existing != "skip"):
            raise UsageError("--outdir, --prefix, --suffix and --existing are about --sidecar", "add --sidecar")
        if not is_text(self.prefix + self.suffix):
            raise UsageError("--prefix or --suffix is not UTF-8 text", "check the terminal's or the script's encoding")
        if f".{self.ext.removeprefix('.').lower()}".endswith(PICTURE_ENDINGS):
            raise UsageError(f"--ext {self.ext} is the ending of a picture", "as in --ext .txt")
        if not re.fullmatch(r"\.?[^./\0]+(\.[^./\0]+)*", self.ext):
            raise UsageError(f"--ext {self.ext!r} is no ending of a file's name", "as in --ext .txt")


def many(
    jsonl: str | None,
    html: str | None,
    plan: bool,
    fail_fast: bool,
    limit: int | None,
    shard: str | None,
    batch_size: int | None,
) -> Many:
    """Gather how many items are to be done."""
    if jsonl == "-":
        raise UsageError("--jsonl keeps results in a file", "--json prints them")
    part = None
    if shard is not None:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard, re.ASCII)
        if found is None:
            raise UsageError(f"--shard {shard} is not I/N", "as in --shard 1/4 for the first of four parts")
        part = (int(found[1]), int(found[2]))
    return Many(jsonl, html, plan, Choice(GROUP if batch_size is None else batch_size, limit, part, fail_fast))


def loading(
    revision: str | None,
    dtype: Dtype,
    device_map: str,
    quantize: Quantize | None,
    attn: Attention,
    offline: bool,
    no_fit_check: bool = False,
    window: int | None = None,
) -> Loading:
    """Gather how a checkpoint is to be loaded."""
    return Loading(
        dtype=dtype,
        device_map=device_map,
        quantize=quantize,
        attn=attn,
        revision=revision,
        offline=offline,
        fit_check=not no_fit_check,
        window=window,
    )


def check_seeds(seed: int | None, n: int = 1) -> None:
    """Check how many pictures are wanted, and their seeds."""
    if n < 1:
        raise UsageError(f"-n {n} is out of range", "it is a number of at least 1")
    if seed is not None:
        tasks.check_seed(seed)
        tasks.check_seed(seed + n - 1)
