"""Short names of models, with what is known of each beforehand. The one table outside the families that names models.

Sizes and licences are for choosing by; before a model is loaded its own files are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT = "demo"

_READS = ("caption", "ask")
_DRAWS = ("caption", "ask", "draw")
_ALL = ("caption", "ask", "draw", "vary", "interleave")


@dataclass(frozen=True)
class Alias:
    """A model that goes by a short name."""

    target: Path | str  # a folder of the package, or a repository on the Hub
    does: Sequence[str]  # the commands it is good for
    n_bytes: int  # of its weights, about: in bfloat16, or as stored for a folder
    licence: str | None
    gated: bool | None = False  # its owner must grant access first


ALIASES: Mapping[str, Alias] = {
    "demo": Alias(Path(__file__).parent / "demo", _ALL, 11_562_382, "Apache-2.0"),
    "anole-7b": Alias("leloy/Anole-7b-v0.1-hf", _ALL, 14_200_000_000, "Chameleon research licence"),
    "chameleon-7b": Alias("facebook/chameleon-7b", _READS, 14_000_000_000, "Chameleon research licence", gated=True),
    "chameleon-30b": Alias("facebook/chameleon-30b", _READS, 68_600_000_000, "Chameleon research licence", gated=True),
    "llama-3.2-11b-vision": Alias(
        "meta-llama/Llama-3.2-11B-Vision-Instruct", _READS, 21_400_000_000, "Llama 3.2 licence", gated=True
    ),
    "idefics2-8b": Alias("HuggingFaceM4/idefics2-8b", _READS, 16_800_000_000, "Apache-2.0"),
    "gemma-3-4b": Alias("google/gemma-3-4b-it", _READS, 8_600_000_000, "Gemma terms", gated=True),
    "smolvlm": Alias("HuggingFaceTB/SmolVLM-Instruct", _READS, 4_400_000_000, "Apache-2.0"),
    "smolvlm-256m": Alias("HuggingFaceTB/SmolVLM-256M-Instruct", _READS, 520_000_000, "Apache-2.0"),
    "smolvlm2-500m": Alias("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", _READS, 1_000_000_000, "Apache-2.0"),
    "qwen3-vl-2b": Alias("Qwen/Qwen3-VL-2B-Instruct", _READS, 4_260_000_000, "Apache-2.0"),
    "qwen3-vl-4b": Alias("Qwen/Qwen3-VL-4B-Instruct", _READS, 8_880_000_000, "Apache-2.0"),
    "qwen2.5-vl-3b": Alias("Qwen/Qwen2.5-VL-3B-Instruct", _READS, 7_500_000_000, "Qwen research licence"),
    "qwen2.5-vl-7b": Alias("Qwen/Qwen2.5-VL-7B-Instruct", _READS, 16_600_000_000, "Apache-2.0"),
    "florence-2-base": Alias("florence-community/Florence-2-base-ft", _READS, 460_000_000, "MIT"),
    "janus-pro-1b": Alias("deepseek-community/Janus-Pro-1B", _DRAWS, 4_200_000_000, "DeepSeek licence"),
    "janus-pro-7b": Alias("deepseek-community/Janus-Pro-7B", _DRAWS, 14_800_000_000, "DeepSeek licence"),
    "emu3-chat": Alias("BAAI/Emu3-Chat-hf", _READS, 17_600_000_000, "Apache-2.0"),
    "emu3-gen": Alias("BAAI/Emu3-Gen-hf", ("draw",), 17_600_000_000, "Apache-2.0"),
}


def gigabytes(n_bytes: float) -> str:
    """Write a number of bytes as people say it."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
