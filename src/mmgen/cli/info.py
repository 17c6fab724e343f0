"""`mmgen info`: what pictures say of themselves, without a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmgen.cli import options

EXAMPLES = """\b
Examples:
  $ mmgen info snowman.png
  $ mmgen info drawn/ --json
"""


@options.grouped
def info(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", show_default=False, help="Pictures: files, folders, patterns."),
    ] = None,
    *,
    find: options.FindOptions,
    job: Annotated[options.JobOptions, options.only("as_json")],
) -> None:
    """Say what pictures say of themselves: how they were made, where mmgen or a program like it wrote that down.

    No model is loaded.
    """
    from mmgen.cli.given import find_pictures
    from mmgen.errors import MmgenError
    from mmgen.inputs.finding import NotFoundError
    from mmgen.outputs.pictures import describe
    from mmgen.outputs.terminal import Notes, emit
    from mmgen.text import as_line, clean, folded, on_a_line

    n_failed = 0
    for found in find_pictures(images or [], find, counts=False).found:
        try:
            if isinstance(found, NotFoundError):
                raise found
            said = describe(found.name)
        except MmgenError as error:
            n_failed += 1
            Notes().error(error, about="" if found.name in error.message else found.name)
            continue
        if job.as_json:
            emit(as_line(said))
            continue
        emit(f"{on_a_line(found.name)}\n")
        shown = {name: value for name, value in said.items() if name != "image" and value is not None}
        emit("".join(f"  {name:<10}{clean(folded(_text(value)))}\n" for name, value in shown.items()))
    if n_failed:
        raise typer.Exit(1)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items() if each is not None)
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
