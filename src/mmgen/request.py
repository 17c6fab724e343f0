"""The values every room speaks: a model's inputs and its outputs. Knows neither torch nor any model.

Each option that Python has too is a field here: its default, its help and its check stand in no other place.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args

from mmgen.errors import UsageError
from mmgen.text import is_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

Kind: TypeAlias = Literal["text", "image"]
Role: TypeAlias = Literal["system", "user", "assistant"]
Part: TypeAlias = Union[str, "Image.Image"]
Reason: TypeAlias = Literal["end", "length", "cancelled"]


_RATIO = re.compile(r"0*[1-9]\d{0,3}:0*[1-9]\d{0,3}", re.ASCII)


def option(
    default: Any, about: str, *flags: str, metavar: str | None = None, heading: str = "", env: bool = True
) -> Any:
    """Declare a field that is an option of the command line, too: its default, its help, and how it is given.

    Args:
        flags: `--field-name` if there are none; `--no-...` of a field that is True turns it off.
        heading: under which help lists it, if not under that of its dataclass.
        env: it has an environment variable, MMGEN_ and its flag's name.
    """
    return field(
        default=default, metadata={"help": about, "flags": flags, "metavar": metavar, "heading": heading, "env": env}
    )


@dataclass(frozen=True)
class TextSampling:
    """How words are chosen."""

    temperature: float = option(0.0, "Sampling temperature of words; 0 is greedy: the likeliest token.", metavar="T")
    # The smallest set of tokens that have this probability together (Holtzman et al., arXiv 1904.09751).
    top_p: float = option(0.9, "Nucleus sampling: among the likeliest tokens that make up P; 1 is all.", metavar="P")
    top_k: int = option(0, "Sample among the K likeliest tokens; 0 is all.", metavar="K")
    min_p: float = option(0.0, "Sample among what is at least P times as likely as the likeliest; 0: all.", metavar="P")
    # Divides the logits of what was said already (Keskar et al., arXiv 1909.05858).
    repetition_penalty: float = option(1.0, "Above 1: avoid words that were said; 1 is no penalty.", metavar="R")
    max_tokens: int = option(256, "Maximum length of an answer, in tokens of words.", metavar="N")
    json_schema: str | None = option(
        None, "Answer in JSON of the schema in FILE, or with an error (package llguidance).", metavar="FILE"
    )
    # Of models that think before they answer.
    max_thought_tokens: int | None = option(
        None, "Maximum length of thoughts, in tokens; as the context allows if not given.", metavar="N"
    )

    def __post_init__(self) -> None:
        _at_least("temperature", self.temperature, 0)
        _check_tops(self.top_p, self.top_k, self.min_p)
        _at_least("max tokens", self.max_tokens, 1)
        if self.max_thought_tokens is not None:
            _at_least("max thought tokens", self.max_thought_tokens, 1)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UsageError(f"repetition penalty {self.repetition_penalty:g} is not above 0", "1 is no penalty")


@dataclass(frozen=True)
class ImageSampling:
    """How image tokens are chosen."""

    temperature: float = option(0.7, "Sampling temperature of image tokens; 0 is greedy.", metavar="T")
    top_p: float = option(0.9, "Nucleus sampling: among the likeliest tokens that make up P; 1 is all.", metavar="P")
    top_k: int = option(0, "Sample among the K likeliest tokens; 0 is all.", metavar="K")
    min_p: float = option(0.0, "Sample among what is at least P times as likely as the likeliest; 0: all.", metavar="P")
    guidance: float = option(
        3.0, "CFG scale: how strongly the prompt pulls (classifier-free guidance); 1 is none.", metavar="G"
    )
    image_guidance: float = option(1.2, "CFG scale of the pictures in the prompt; 1 is none.", metavar="G")
    negative_prompt: str | None = option(None, "What to steer away from, if the model can.", metavar="WORDS")
    ratio: str | None = option(None, "Aspect ratio, width to height, as in 16:9, if the model can.", metavar="W:H")

    def __post_init__(self) -> None:
        _at_least("temperature", self.temperature, 0)
        _check_tops(self.top_p, self.top_k, self.min_p)
        _at_least("guidance", self.guidance, 0)
        _at_least("image guidance", self.image_guidance, 0)
        if self.ratio is not None and _RATIO.fullmatch(self.ratio) is None:
            raise UsageError(f"{self.ratio!r} is no ratio", "give width:height in whole numbers, as in 16:9")


Sampling: TypeAlias = TextSampling | ImageSampling

_ROWS = re.compile(r"0*([1-9]\d{0,4})(%?)", re.ASCII)


@dataclass(frozen=True)
class Edit:
    """How a picture is made anew through its own codes; see decoding.coupling."""

    strength: float | None = option(
        None, "Edit IMAGE through its codes. How far: from 0, IMAGE itself, to 1, the words alone; 0.5 with --from.",
        metavar="S", env=False,
    )  # fmt: skip
    source_prompt: str | None = option(
        None, "Edit IMAGE, which shows this; its file or the model says so if not given.", "--from",
        metavar="WORDS", env=False,
    )  # fmt: skip
    keep: str | None = option(
        None, "Keep so many rows of image tokens from the top, or a share as in 40%; draw the rest.",
        metavar="ROWS", env=False,
    )  # fmt: skip
    drafts: int = option(1, "With --mask: take of M the one that what lies below fits best.", metavar="M", env=False)

    def __post_init__(self) -> None:
        _at_least("drafts", self.drafts, 1)
        if self.drafts > 1 and self.couples:
            raise UsageError("--drafts is about --mask, without --strength and --from", "leave one out")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise UsageError(f"strength {self.strength:g} is out of range", "from 0, the picture, to 1, the words")
        if self.source_prompt is not None and not self.source_prompt.strip():
            raise UsageError("--from is empty", "say what the picture shows, or leave it out")
        if not is_text(self.source_prompt or ""):
            raise UsageError("--from is not UTF-8 text", "check the terminal's or the script's encoding")
        if self.keep is not None and _ROWS.fullmatch(self.keep) is None:
            raise UsageError(f"--keep {self.keep} is no number of rows", "as in 12, or a share as in 40%")

    @property
    def couples(self) -> bool:
        """Whether what is drawn follows the source, where that goes with the words."""
        return self.strength is not None or self.source_prompt is not None

    @property
    def how_far(self) -> float:
        """Its strength; half of the way if only the words of the source are given."""
        return 0.5 if self.strength is None else self.strength


Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantize = Literal["4bit", "8bit", "quanto-int8"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is brought into memory, and run."""

    dtype: Dtype = option("auto", "Number format of the weights; auto looks at device and size.")
    device_map: str = option(
        "auto", "auto, cpu, cuda, cuda:N, balanced, sequential or a JSON file of modules.", metavar="MAP"
    )
    quantize: Quantize | None = option(None, "Quantize the weights: bitsandbytes, or Quanto.")
    attn: Attention = option("auto", "Attention implementation.")
    revision: str | None = option(None, "Branch, tag or commit on the Hub.", metavar="REV")
    offline: bool = option(False, "Use only models that are on this machine.")
    fit_check: bool = option(True, "Load even what seems too large for this machine.", "--no-fit-check")
    max_pixels: int | None = option(None, "Scale pictures with more than N pixels down, first of all.", metavar="N")
    encode: bool = option(False, "Encode every picture anew, even one that has its codes in its file.")
    window: int | None = option(
        None,
        "Image tokens looked at in one pass: in float32 the pictures are the same. Chosen by itself if not given.",
        metavar="N",
    )

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, Dtype)
        _one_of("attention", self.attn, Attention)
        if self.quantize is not None:
            _one_of("quantisation", self.quantize, Quantize)
        if self.max_pixels is not None:
            _at_least("max pixels", self.max_pixels, 1)
        if self.window is not None:
            _at_least("window", self.window, 1)


@dataclass(frozen=True)
class Turn:
    """An earlier turn of a conversation; one of the system, which says how to answer, stands before all others."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Request:
    """Parts in, and what may come out.

    Attributes:
        cancelled: once it is set, the reply ends at the model's next step.
    """

    parts: tuple[Part, ...]
    want: frozenset[Kind]
    text: TextSampling = field(default_factory=TextSampling)
    image: ImageSampling = field(default_factory=ImageSampling)
    seed: int = 0
    completion: bool = False  # continue the text: no end-of-turn after the prompt
    history: tuple[Turn, ...] = ()
    template_args: tuple[tuple[str, object], ...] = ()  # variables of the checkpoint's chat template
    choices: tuple[str, ...] = ()  # the only answers that may come, if there are any
    edit: Edit | None = None  # the picture is made of the codes of `source`, which is none of the parts
    source: Image.Image | None = None
    mask: Image.Image | None = None  # of the size of source, or of its codes: white is drawn anew
    best_of: int = 1  # pictures that are drawn, of which the one of this rank comes, as the model judges
    rank: int = 0
    cancelled: Event = field(default_factory=Event, compare=False, repr=False)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation: earlier turns and this one."""
        return (*self.history, Turn("user", self.parts))

    def without_images(self) -> Request:
        """Give the same request, of words alone."""
        return replace(self, parts=tuple(part for part in self.parts if isinstance(part, str)))

    @property
    def system(self) -> str | None:
        """The system prompt, if there is one."""
        parts = [part for turn in self.history if turn.role == "system" for part in turn.parts]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None

    @property
    def images(self) -> list[Image.Image]:
        """The pictures of the conversation, in order."""
        return [part for turn in self.turns for part in turn.parts if not isinstance(part, str)]


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture that came out; where it has codes, its image says how it was made, too (see codes.carry)."""

    image: Image.Image
    seed: int
    codes: tuple[int, ...] | None = None  # VQ codes in row-major order, where the family has them
    passes: int | None = None  # of the network, to choose the codes
    kept: int | None = None  # codes that are those of the picture it was made of, at their places
    prompt: str | None = None  # where the request has none: what it was drawn from
    score: float | None = None  # how well it shows its prompt, as the model judges, in nats: to be compared, not added

    def __repr__(self) -> str:
        return f"<Picture {self.image.width} x {self.image.height}, seed {self.seed}>"

    @property
    def effort(self) -> str:
        """Say in words how many passes it took."""
        if not self.codes or not self.passes:
            return f"seed {self.seed}"
        n = len(self.codes)
        kept = "" if self.kept is None else f", {self.kept} kept"
        judged = "" if self.score is None else f"; judged {self.score:.3g}"
        return f"seed {self.seed}: {n} image tokens{kept} in {self.passes} passes, {n / self.passes:.1f} each{judged}"


@dataclass(frozen=True)
class Thought:
    """Newly finished words of a model's thoughts, which are no part of its answer."""

    text: str


@dataclass(frozen=True)
class Progress:
    """Image tokens of the picture under way.

    Attributes:
        sketch: decodes the rows that are whole when it is called: the picture, transparent where nothing is yet, or
            None if no row is whole.
    """

    done: int
    total: int
    sketch: Callable[[], Image.Image | None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Done:
    """The end of a reply.

    Attributes:
        reason: end, as the model ended it; length, as max_tokens or the context did; cancelled, as its request was.
        n_tokens: tokens of words and image codes that came.
        chances: of each choice, in their order: how likely it is as a whole answer, among them.
        n_prompt: tokens of the prompt, where they are counted.
    """

    reason: Reason = "end"
    n_tokens: int = 0
    chances: tuple[float, ...] = ()
    n_prompt: int = field(default=0, compare=False)


Piece: TypeAlias = str | Thought | Picture | Progress  # str is newly finished text: print it as it comes

WORDS: frozenset[Kind] = frozenset({"text"})
PICTURES: frozenset[Kind] = frozenset({"image"})
BOTH: frozenset[Kind] = WORDS | PICTURES


MAX_SEED = 2**32 - 1  # torch's CPU generator keeps the low 32 bits of a seed


def fresh_seed() -> int:
    """Draw a seed for a user who gave none."""
    import secrets  # a twentieth of what help takes

    return secrets.randbelow(2**31)


def check_seed(seed: int) -> int:
    """Check a seed; it comes back.

    Raises:
        UsageError: out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"the seed {seed} is out of range", f"it goes from 0 to {MAX_SEED}")
    return seed


_MOST = 1e9  # beyond any use, and well within float32


def _check_tops(top_p: float, top_k: int, min_p: float) -> None:
    if not 0 < top_p <= 1:
        raise UsageError(f"top-p {top_p:g} is not a probability", "it is above 0 and at most 1; 1 keeps all")
    if not 0 <= min_p < 1:
        raise UsageError(f"min-p {min_p:g} is out of range", "it is at least 0 and below 1; 0 keeps all")
    _at_least("top-k", top_k, 0)


def _one_of(name: str, value: str, literal: Any) -> None:
    if value not in get_args(literal):
        raise UsageError(f"unknown {name}: {value}", f"one of {', '.join(get_args(literal))}")


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value <= _MOST:
        raise UsageError(f"{name} {value:g} is out of range", f"it is a number of at least {least}")
