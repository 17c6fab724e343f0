"""Write docs/models.md: which of transformers' image-text-to-text types work, from what the tests run.

python -m tools.models_table
"""

from __future__ import annotations

from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from mmgen.families.standing import OTHERS, PACKAGES, TESTED, UNASKED

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_HEAD = """\
# Model types

mmgen takes what transformers lists as image-text-to-text. Of each type below it says what is known of it. None was run
with real weights: tests run a tiny random checkpoint of the real classes, and compare every id with plain transformers.
"""


def text() -> str:
    """Write the page."""
    listed = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    rest = listed - TESTED - PACKAGES.keys() - OTHERS.keys() - UNASKED
    by_package = {
        package: sorted(name for name, each in PACKAGES.items() if each == package) for package in {*PACKAGES.values()}
    }
    rows = [
        ("run by tests", sorted(TESTED & listed)),
        *((f"expected to work, with the package {package}", names) for package, names in sorted(by_package.items())),
        ("expected to work", sorted(rest)),
        ("without a chat template as a rule: --complete at most", sorted(UNASKED)),
    ]
    lines = [f"| {about} ({len(names)}) | {' '.join(names)} |" for about, names in rows]
    others = [f"| refused: {why} | {name} |" for name, why in sorted(OTHERS.items())]
    head = f"transformers lists {len(listed)} types. Anole is a Chameleon with a decoder of pictures.\n"
    return "\n".join([_HEAD, head, "| | types |", "|---|---|", *lines, *others, ""])


if __name__ == "__main__":
    PAGE.write_text(text())
