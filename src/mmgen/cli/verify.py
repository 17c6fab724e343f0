"""`mmgen verify`: draw pictures again from what their files say, and compare code for code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mmgen.cli import options
from mmgen.errors import MmgenError, refused
from mmgen.request import PICTURES, ImageSampling, Loading, Picture, Request

if TYPE_CHECKING:
    from mmgen.model import Model
    from mmgen.outputs.terminal import Notes

EXAMPLES = """\b
Examples:
  $ mmgen verify snowman.png
  $ mmgen verify drawn/
"""
_NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError)
_NEAR_TIE = 0.01  # nats: what rounding moves, in bfloat16 most of all
_ELSE = "draw it again with mmgen draw --like"


@dataclass(frozen=True)
class _Claim:
    """What a file says of its picture.

    Attributes:
        loading: what it needs: model, revision, and with what it was drawn.
        codes: as they stand in it; decoded: the digest of what they were decoded to.
        is_edited: its pixels are not those that it was written with.
    """

    name: str
    model: str
    loading: Loading
    request: Request
    codes: tuple[int, ...]
    n_columns: int
    codebook: str
    decoded: str
    is_edited: bool


@options.grouped
def verify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", show_default=False, help="Pictures: files, folders, patterns."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", metavar="NAME", rich_help_panel=options.MODEL,
            help="Where the model is, if not where the file says.",
        ),
    ] = None,
    *,
    find: options.FindOptions,
    job: Annotated[options.JobOptions, options.only("quiet")],
    loading: Annotated[Loading, options.only("device_map", "offline", "fit_check")],
) -> None:  # fmt: skip
    """Draw pictures again from what their files say, and compare code for code.

    Prints a line each: the path, and that it is equal, or at which code it departs and by how much. Where any is not
    equal the exit code is 1.
    """
    from mmgen.cli.given import find_pictures
    from mmgen.inputs.finding import NotFoundError
    from mmgen.outputs.terminal import Notes, emit
    from mmgen.text import on_a_line

    notes, is_well = Notes(job.quiet), True
    claims: dict[tuple[str, Loading], list[_Claim]] = {}
    for found in find_pictures(images or [], find, counts=False).found:
        try:
            if isinstance(found, NotFoundError):
                raise found
            claim = _claim(found.name, model, loading)
        except MmgenError as error:
            is_well = False
            notes.error(error, about="" if found.name in error.message else found.name)
            continue
        claims.setdefault((claim.model, claim.loading), []).append(claim)
    for (name, way), some in claims.items():
        try:
            for claim, finding in _compared(name, way, some, notes):
                is_well = is_well and finding.startswith("equal")
                emit(f"{on_a_line(claim.name)}\t{finding}\n")
        except MmgenError as error:
            is_well = False
            notes.error(error, about=f"{some[0].name}{' and others' if len(some) > 1 else ''}")
    if not is_well:
        raise typer.Exit(1)


def _claim(name: str, model: str | None, loading: Loading) -> _Claim:
    """Read what a file says of its picture.

    Raises:
        MmgenError: it says nothing, or not enough to draw it again.
    """
    from mmgen.codes import codes_in, digest
    from mmgen.inputs.images import open_image
    from mmgen.outputs.pictures import read_metadata

    note = cast("dict[str, Any] | None", read_metadata(name))
    if note is None:
        raise MmgenError(f"{name} does not say how it was made", "mmgen info shows what a file says")
    if note.get("command", "draw") != "draw":
        made = {"vary": "a variation of a picture", "interleave": "a page of a story"}.get(
            note["command"], "no drawing"
        )
        raise MmgenError(f"{name} is {made}, which it does not hold", "drawings from words alone can be verified")
    rows = codes_in(note)
    if rows is None:
        raise MmgenError(f"{name} has no codes in it", _ELSE)
    with refused(f"{name} says how it was made in a way that is not understood", _ELSE, *_NOT_UNDERSTOOD):
        way = replace(
            loading, revision=note["revision"], dtype=note["dtype"], quantize=note["quantize"], window=note["window"]
        )
        known = {each.name for each in fields(ImageSampling)}
        sampling = {key: value for key, value in note["sampling"]["image"].items() if key in known}
        request = Request((note["prompt"],), PICTURES, image=ImageSampling(**sampling), seed=int(note["seed"]))
        codes = tuple(code for row in rows for code in row)
        decoded, is_edited = note.get("decoded", note["pixels"]), digest(open_image(name)) != note["pixels"]
        return _Claim(
            name, model or note["model"], way, request, codes, len(rows[0]), note["codebook"], decoded, is_edited
        )


def _compared(name: str, loading: Loading, claims: Sequence[_Claim], notes: Notes) -> Iterator[tuple[_Claim, str]]:
    """Draw what is claimed of one model, and say of each how it compares."""
    from mmgen.checkpoints import catalog
    from mmgen.cli.opening import open_model

    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    model = open_model(checkpoint, loading, PICTURES, [], notes)
    findings: dict[int, str] = {}
    n_said = 0
    for index, piece in model.replies([claim.request for claim in claims]):
        if isinstance(piece, Picture):
            findings[index] = _finding(model, claims[index], piece)
        elif isinstance(piece, MmgenError):
            findings[index] = f"cannot be drawn: {piece.message}"
        while n_said in findings:  # in their order
            yield claims[n_said], findings.pop(n_said)
            n_said += 1


def _finding(model: Model, claim: _Claim, picture: Picture) -> str:
    from mmgen.codes import note_of

    made, codes = note_of(picture.image.info) or {}, picture.codes or ()
    if made.get("codebook") != claim.codebook or len(codes) != len(claim.codes):
        return f"was drawn by another model than {model.name}: its codes mean something else"
    place = next((at for at, (a, b) in enumerate(zip(codes, claim.codes, strict=True)) if a != b), None)
    if place is not None:
        row, column = divmod(place, claim.n_columns)
        beaten = model.margin(claim.request, claim.codes, place)
        return (
            f"departs at code {place + 1} of {len(codes)} (row {row + 1}, column {column + 1}), "
            f"where another code is better by {beaten:.3g} nats{': a near tie' if beaten < _NEAR_TIE else ''}"
        )
    if claim.is_edited:
        return "was edited: its codes are equal, and its pixels are not what was written"
    return "equal" if made["pixels"] == claim.decoded else "equal in its codes; here they decode to other pixels"
