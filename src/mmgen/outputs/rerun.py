"""The command that makes a record's item again, as one would type it. Refuses to know models and files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmgen import tasks
from mmgen.checkpoints.aliases import DEFAULT
from mmgen.request import ImageSampling, TextSampling

_KINDS = {"caption": ["text"], "ask": ["text"], "draw": ["image"], "vary": ["image"], "interleave": ["text", "image"]}


def rerun(record: Mapping[str, object], images: Sequence[str]) -> str:
    """Write the command that makes a record's item again, fit for a shell; nothing if no command does.

    Args:
        record: an item as `Job.record` writes it, or as somebody else changed it.
        images: where the pictures lie that were given.
    """
    command, prompt, seed = record.get("command"), record.get("prompt"), record.get("seed")
    if not isinstance(command, str) or command not in _KINDS or not isinstance(prompt, str):
        return ""
    positional = list(images) if command in ("caption", "vary") else []
    if command != "caption" and (command, prompt) != ("vary", tasks.VARY):
        positional.append(prompt)
    options: list[str] = []
    if command in ("ask", "interleave"):
        options += [word for image in images for word in ("--image", image)]
    if command == "interleave":  # which has no folder of its own accord
        output = record.get("output")
        options += ["-o", f"{Path(output).name if isinstance(output, str) else 'story'}-again"]
    if isinstance(seed, int):
        options += ["--seed", str(seed)]
    options += [*_model_options(record.get("model")), *_sampling_options(command, record.get("sampling"))]
    dashed = any(word.startswith("-") for word in positional)
    words = [command, *options, "--", *positional] if dashed else [command, *positional, *options]
    if any("\0" in word for word in words):
        return ""
    return " ".join(map(_quoted, ["mmgen", *words]))


def _model_options(model: object) -> list[str]:
    name, revision = _fields(model).get("name"), _fields(model).get("revision")
    options = ["-m", name] if isinstance(name, str) and name != DEFAULT else []
    return [*options, "--revision", revision] if isinstance(revision, str) else options


def _sampling_options(command: str, by_kind: object) -> list[str]:
    """List what differs from the command's defaults."""
    text = tasks.INTERLEAVE_TEXT if command == "interleave" else TextSampling()
    usual: dict[str, dict[str, object]] = {"text": asdict(text), "image": asdict(ImageSampling())}
    options: list[str] = []
    for kind in _KINDS[command]:
        values = _fields(_fields(by_kind).get(kind))
        for name, default in usual[kind].items():
            value = values.get(name)
            if (command, kind) == ("interleave", "image"):  # which takes --top-p and --top-k for both
                name = {"temperature": "image_temperature"}.get(name, name)
                default = value if name in ("top_p", "top_k") else default
            if isinstance(value, str | int | float) and value != default:
                options += [f"--{name.replace('_', '-')}", str(value)]
    return options


def _fields(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _quoted(word: str) -> str:
    r"""Quote a word for a shell; what would not show is spelled in bytes (`$'\x1b'`: bash, zsh, ksh; POSIX 2024)."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_spelled, re.sub(r"([\\'])", r"\\\1", word))) + "'"


def _spelled(letter: str) -> str:
    if letter.isprintable():
        return letter
    as_in_file_names = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", as_in_file_names))
