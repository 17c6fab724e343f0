"""A conversation as a page of Markdown, with its pictures beside it. Refuses to know models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import UsageError
from mmgen.files import check_writable, whole_file
from mmgen.outputs.pictures import save_image
from mmgen.outputs.records import plain_name
from mmgen.request import Role, Turn
from mmgen.text import clean

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Shown:
    """A picture in a conversation, and what it is called: its path, or the words it was drawn from."""

    image: Image.Image
    title: str


@dataclass(frozen=True)
class Said:
    """A turn of a conversation, with its pictures' names."""

    role: Role
    parts: tuple[str | Shown, ...]

    def turn(self) -> Turn:
        """Give it as a model takes it."""
        return Turn(self.role, tuple(part if isinstance(part, str) else part.image for part in self.parts))


def save_page(path: str, model: str, talk: Sequence[Said], own: set[str]) -> list[str]:
    """Save a conversation as Markdown, with its pictures as PNG files beside it, and say what was written.

    Args:
        own: files that may be overwritten, to which those that are written are added.

    Raises:
        MmgenError: a file exists or cannot be written, or the name is not one of Markdown.
    """
    page = Path(path)
    if page.suffix.lower() not in (".md", ".markdown"):
        raise UsageError(f"{path} is not a name for Markdown", "end it in .md, as in story.md")
    name = plain_name(model)
    blocks = [f"# A conversation with {name}"]
    pictures: dict[str, Image.Image] = {}
    for said in talk:
        blocks.append(f"**{'You' if said.role == 'user' else name}:**")
        for part in said.parts:
            if isinstance(part, str):
                blocks.append(clean(part).strip())
                continue
            beside = page.with_name(f"{page.stem}-{len(pictures) + 1}.png")
            pictures[str(beside)] = part.image
            blocks.append(f"![{_plain(part.title)}]({link(Path(beside.name))})")
    for file in (path, *pictures):
        if file not in own and os.path.lexists(file):
            raise UsageError(f"{file} exists", "choose another name")
    check_writable(page.absolute().parent)
    for file, image in pictures.items():
        save_image(image, file)
        own.add(file)
    with whole_file(path) as opened:
        opened.write(("\n\n".join(filter(None, blocks)) + "\n").encode(errors="replace"))
    own.add(path)
    return [path, *pictures]


def _plain(title: str) -> str:
    """Make words fit for a link's text (CommonMark 6.3)."""
    return " ".join("".join(f"\\{letter}" if letter in "\\[]" else letter for letter in clean(title)).split())


def link(path: Path) -> str:
    """Write a path as a Markdown link's target (CommonMark 6.3): in angle brackets where it has spaces or brackets."""
    text = str(path)
    return f"<{text}>" if any(letter in text for letter in " ()<>") else text
