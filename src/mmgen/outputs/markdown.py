"""Stories as Markdown: their words, and links to their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmgen.outputs.records import RecordPart


def markdown(parts: Sequence[RecordPart], link: Callable[[Path], str]) -> str:
    """Write a story: words as they are, pictures as paragraphs of their own; what is added to it later follows."""
    text, n_images = "", 0
    for part in parts:
        if "text" in part:
            text += part["text"]
            continue
        n_images += 1
        gap = "\n" * max(0, 2 - (len(text) - len(text.rstrip("\n")))) if text else ""
        text += f"{gap}![picture {n_images}]({link(Path(part['image']))})\n\n"
    return text


def link(path: Path) -> str:
    """Write a path as a Markdown link's target (CommonMark 6.3): in angle brackets where it has spaces or brackets."""
    text = str(path)
    return f"<{text}>" if any(letter in text for letter in " ()<>") else text


def page_of(parts: Sequence[RecordPart]) -> bytes:
    """Write index.md, which stands beside its pictures."""
    return (markdown(parts, lambda path: path.name).rstrip("\n") + "\n").encode()
