"""The values every room speaks: what goes into a model and what comes out. Knows neither torch nor any model.

The three sampling and loading classes are the only places where a default stands.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

from mmgen.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

Kind: TypeAlias = Literal["text", "image"]
Part: TypeAlias = Union[str, "Image.Image"]


_RATIO = re.compile(r"0*[1-9]\d{0,3}:0*[1-9]\d{0,3}", re.ASCII)


@dataclass(frozen=True)
class TextSampling:
    """How words are chosen."""

    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 0.9  # smallest set of tokens with at least this probability; 1 keeps all
    top_k: int = 0  # the k likeliest tokens; 0 keeps all
    repetition_penalty: float = 1.0  # divides the logits of what was said already (arXiv 1909.05858); 1 is none
    max_tokens: int = 256  # most tokens of words in one reply; pictures do not count

    def __post_init__(self) -> None:
        _at_least("temperature", self.temperature, 0)
        _check_tops(self.top_p, self.top_k)
        _at_least("max tokens", self.max_tokens, 1)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UsageError(f"repetition penalty {self.repetition_penalty:g} is not above 0", "1 is no penalty")


@dataclass(frozen=True)
class ImageSampling:
    """How image tokens are chosen."""

    temperature: float = 0.7  # softens (above 1) or sharpens the choice of each image token
    top_p: float = 0.9  # smallest set of codes with at least this probability; 1 keeps all
    top_k: int = 0  # the k likeliest codes; 0 keeps all
    guidance: float = 3.0  # how strongly the whole prompt pulls; 1 is no guidance
    image_guidance: float = 1.2  # how strongly the pictures in the prompt pull (vary, interleave)
    negative_prompt: str | None = None  # what to steer away from, where the family has it
    ratio: str | None = None  # width:height, where the family has it

    def __post_init__(self) -> None:
        _at_least("temperature", self.temperature, 0)
        _check_tops(self.top_p, self.top_k)
        _at_least("guidance", self.guidance, 0)
        _at_least("image guidance", self.image_guidance, 0)
        if self.ratio is not None and _RATIO.fullmatch(self.ratio) is None:
            raise UsageError(f"{self.ratio!r} is no ratio", "give width:height in whole numbers, as in 16:9")


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is brought into memory, and run."""

    dtype: str = "auto"  # auto | bfloat16 | float16 | float32
    device_map: str = "auto"  # auto | cpu | cuda | cuda:N | balanced | sequential | FILE.json
    quantize: str | None = None  # 4bit | 8bit | quanto-int8
    attn: str = "auto"  # auto | sdpa | flash_attention_2 | eager
    revision: str | None = None  # branch, tag or commit on the Hub
    offline: bool = False  # use only what is on this machine
    fit_check: bool = True  # refuse what cannot fit into memory
    window: int | None = None  # most places of a picture looked at in one pass; None chooses, 1 is one by one

    def __post_init__(self) -> None:
        if self.window is not None:
            _at_least("window", self.window, 1)


@dataclass(frozen=True)
class Turn:
    """An earlier turn of a conversation."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Request:
    """Parts in, and what may come out."""

    parts: tuple[Part, ...]
    want: frozenset[Kind]
    text: TextSampling = field(default_factory=TextSampling)
    image: ImageSampling = field(default_factory=ImageSampling)
    seed: int = 0
    completion: bool = False  # continue the text: no end-of-turn after the prompt
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture that came out."""

    image: Image.Image
    seed: int
    codes: tuple[int, ...] | None = None  # VQ codes in row-major order, where the family has them
    passes: int | None = None  # of the network, to choose the codes

    @property
    def effort(self) -> str:
        """What it took, in words."""
        if not self.codes or not self.passes:
            return f"seed {self.seed}"
        n = len(self.codes)
        return f"seed {self.seed}: {n} image tokens in {self.passes} passes, {n / self.passes:.1f} each"


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
    """One reply of many is whole: no piece of it follows."""


Piece: TypeAlias = str | Picture | Progress  # str is newly finished text: print it as it comes

WORDS: frozenset[Kind] = frozenset({"text"})
PICTURES: frozenset[Kind] = frozenset({"image"})
BOTH: frozenset[Kind] = WORDS | PICTURES


MAX_SEED = 2**32 - 1  # torch's CPU generator keeps the low 32 bits of a seed


def fresh_seed() -> int:
    """Draw a seed for a user who gave none."""
    import secrets  # a twentieth of what help takes

    return secrets.randbelow(2**31)


_MOST = 1e9  # beyond any use, and well within float32


def _check_tops(top_p: float, top_k: int) -> None:
    if not 0 < top_p <= 1:
        raise UsageError(f"top-p {top_p:g} is not a probability", "it is above 0 and at most 1; 1 keeps all")
    _at_least("top-k", top_k, 0)


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value <= _MOST:
        raise UsageError(f"{name} {value:g} is out of range", f"it is a number of at least {least}")
