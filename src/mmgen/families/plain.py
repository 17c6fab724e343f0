"""Model types without a chat template, a row each: what no template says of how they are asked. Imports no torch.

The prompts are those of transformers' documentation (docs/source/en/model_doc, a page a type).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint


@dataclass(frozen=True)
class Plain:
    """How a model of one type is asked.

    Attributes:
        caption: words that ask for a caption; none: the picture alone does.
        asks: it takes words of the user's, too.
        ends_itself: its `generate` knows what ends a reply, and must not be told.
        n_beams: of the search that replies are found by where nothing is random.
    """

    caption: str = ""
    asks: bool = True
    ends_itself: bool = False
    n_beams: int = 1


ROWS = {
    "blip": Plain(ends_itself=True),
    "blip-2": Plain(),
    "florence2": Plain("<CAPTION>", n_beams=3),
    "git": Plain(),
    "instructblip": Plain("Describe this image."),
    "kosmos-2": Plain("An image of"),
    "paligemma": Plain("caption en"),
    "pix2struct": Plain(asks=False),
}


def row(checkpoint: Checkpoint) -> Plain | None:
    """Give the row of a checkpoint's type, unless it has a chat template after all."""
    files = ("processor_config.json", "tokenizer_config.json", "chat_template.json")
    has_template = (checkpoint.folder / "chat_template.jinja").is_file() or any(
        checkpoint.read_json(file).get("chat_template") for file in files
    )
    return None if has_template else ROWS.get(checkpoint.model_type)
