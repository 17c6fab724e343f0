"""Pictures made anew through their codes: what sources show, and what their codes are. Knows no family.

How it is done stands in decoding.coupling.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from PIL import Image

from mmgen import tasks
from mmgen.codes import Rows, note_of
from mmgen.decoding.coupling import Source
from mmgen.decoding.grammar import Canvas, PromptIds
from mmgen.decoding.replies import LanguageModel, edit, generate_text
from mmgen.families.in_memory import InMemoryModel
from mmgen.families.prompting import TokenPrompter
from mmgen.inputs.masks import forced
from mmgen.request import Done, Edit, ImageSampling, Picture, Piece, Request


class EditingModel(InMemoryModel):
    """A loaded checkpoint whose pictures are codes."""

    prompter: TokenPrompter
    language_model: LanguageModel

    @abstractmethod
    def prompts(self, requests: Sequence[Request]) -> list[PromptIds]:
        """Write the prompts of requests."""

    @abstractmethod
    def stored(self, image: Image.Image, grid: tuple[int, int] | None) -> Rows | None:
        """Give the codes in a picture's file, if they are this model's, and of this grid."""

    @abstractmethod
    def encode_to(self, image: Image.Image, canvas: Canvas) -> Sequence[int]:
        """Turn an image into the codes of a picture to draw, in row-major order; it is cut to its proportions."""

    def edit(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        """Answer requests that are edited alike."""
        edits = [request.edit or Edit() for request in requests]
        images = [_source_of(request) for request in requests]
        # 1) What is to be drawn and, if that counts, what the sources show: in words
        shown = [each.source_prompt or _said_of(image) for each, image in zip(edits, images, strict=True)]
        needed = [not _words(request) or each.couples for request, each in zip(requests, edits, strict=True)]
        unsaid = [index for index, words in enumerate(shown) if needed[index] and words is None]
        for index, words in zip(unsaid, self._captions([images[index] for index in unsaid]), strict=True):
            shown[index] = words
        drawn = [
            replace(request, parts=(_words(request) or words or "",))
            for request, words in zip(requests, shown, strict=True)
        ]
        prompts = self.prompts(drawn)
        described = []
        if edits[0].couples:
            of_sources = [replace(each, parts=(words or "",)) for each, words in zip(drawn, shown, strict=True)]
            described = self.prompts(of_sources)
        # 2) Their codes
        canvas = prompts[0].canvas or self.prompter.vocabulary.canvas
        sources = [self._source(request, canvas) for request in requests]
        # 3) The pictures
        how = edits[0].how_far, edits[0].drafts
        for index, piece in edit(self.language_model, drawn, prompts, sources, described, *how):
            if isinstance(piece, Picture) and not _words(requests[index]):
                piece = replace(piece, prompt=_words(drawn[index]))
            yield index, piece

    def _captions(self, images: Sequence[Image.Image]) -> list[str]:
        captions = [""] * len(images)
        requests = [tasks.caption(image) for image in images]
        if images:
            for index, piece in generate_text(self.language_model, requests, self.prompts(requests)):
                captions[index] += piece if isinstance(piece, str) else ""
        return captions

    def _source(self, request: Request, canvas: Canvas) -> Source:
        image = _source_of(request)
        rows = self.stored(image, (canvas.rows, canvas.columns))
        codes = self.encode_to(image, canvas) if rows is None else [code for row in rows for code in row]
        is_forced = forced(request, canvas.rows, canvas.columns)
        return Source(
            torch.tensor(canvas.lay_out(codes, -1)),
            torch.tensor(canvas.lay_out(is_forced, True)),
            is_own=rows is not None and _is_drawn_alike(image, request.image),
        )


def _source_of(request: Request) -> Image.Image:
    """Give the picture that is edited."""
    assert request.source is not None  # who makes the request opens it
    return request.source


def _words(request: Request) -> str:
    return "".join(part for part in request.parts if isinstance(part, str))


def _said_of(image: Image.Image) -> str | None:
    """Give the words that a picture was drawn from, where its file says so: those of a change do not describe it."""
    note = note_of(image.info) or {}
    describes = note.get("command") == "draw" or "edit" in note
    return note["prompt"] if describes and isinstance(note.get("prompt"), str) else None


def _is_drawn_alike(image: Image.Image, sampling: ImageSampling) -> bool:
    """Whether a picture's codes were chosen as they are to be now, by what its file says."""
    said = ((note_of(image.info) or {}).get("sampling") or {}).get("image")
    if not isinstance(said, dict):
        return False
    now, by_default = asdict(sampling), asdict(ImageSampling())
    return all(said.get(name, by_default[name]) == value for name, value in now.items() if name != "ratio")
