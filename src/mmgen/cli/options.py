"""The options that commands share, each declared once, and their checks. Defaults stand in request.py."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mmgen import aliases
from mmgen.errors import UsageError
from mmgen.request import Loading

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
        help="File to write: .png, .jpg or .webp; - is stdout. Named by prompt and seed if not given.",
    ),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite what exists.")]
NoMetadata = Annotated[
    bool,
    typer.Option("--no-metadata", envvar="MMGEN_NO_METADATA", help="Leave prompt, model and seed out of the files."),
]
AsJson = Annotated[bool, typer.Option("--json", envvar="MMGEN_JSON", help="Print JSON, an object a line.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", envvar="MMGEN_QUIET", help="Say nothing but errors.")]


def loading(
    revision: str | None,
    dtype: Dtype,
    device_map: str,
    quantize: Quantize | None,
    attn: Attention,
    offline: bool,
    no_fit_check: bool = False,
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
    )


def check_number(n: int) -> None:
    """Check how many pictures are wanted."""
    if n < 1:
        raise UsageError(f"-n {n} is out of range", "it is a number of at least 1")
