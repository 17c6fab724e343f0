"""What runs on the machines of a cluster, and how requests come to it. Knows neither Ray nor who asks."""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any, TypeAlias

from mmgen import __version__
from mmgen.checkpoints import catalog
from mmgen.errors import MmgenError, UsageError, unexpected
from mmgen.request import Done, Piece, Progress, Request

End: TypeAlias = Piece | Done | MmgenError


def versions() -> dict[str, str]:
    """Give the versions by which answers may differ."""
    return {"mmgen": __version__, **{name: version(name) for name in ("torch", "transformers")}}


def packed(request: Request) -> bytes:
    """Write a request as it is sent; what is unread of it as the bytes of its file."""
    values = {each.name: getattr(request, each.name) for each in fields(request) if each.name != "cancelled"}
    parts: list[object] = []
    for part in request.parts:
        file: Any = getattr(part, "fp", None)  # see images.open_unread
        parts.append((getattr(part, "filename", ""), file.getvalue()) if isinstance(file, io.BytesIO) else part)
    return pickle.dumps({**values, "parts": parts})


class Worker:
    """What runs on the machines of the cluster."""

    def open(self, wanted: dict[str, str], told: bytes) -> MmgenError | None:
        """Open the checkpoint, all of it; say what is in the way."""
        own = versions()
        if own != wanted:
            unlike = ", ".join(f"{name} {own[name]}, not {wanted[name]}" for name in own if own[name] != wanted[name])
            return MmgenError(
                f"a worker on {socket.gethostname()} has {unlike}", "install the same versions everywhere"
            )
        from mmgen import families
        from mmgen.families.in_memory import InMemoryModel
        from mmgen.inputs.images import set_pixel_limit

        name, revision, loading, want, identity, (self._strict, pixel_limit) = pickle.loads(told)
        if pixel_limit is not None:
            set_pixel_limit(pixel_limit)
        try:
            checkpoint = catalog.find(name, revision=revision, offline=loading.offline)
            if catalog.identity(checkpoint) != identity:
                hint = "copy the folder there, or remove what is in its place"
                return MmgenError(f"{name} has other weights on {socket.gethostname()}", hint)
            self._model = families.open_model(checkpoint, loading, want)
            if isinstance(self._model, InMemoryModel):
                self._model.load_for([])  # now, lest it be a request's time
        except MmgenError as error:
            return _plain(error)
        except Exception as failure:  # noqa: BLE001 -- it is told to who asked, in another process
            return unexpected(f"{name}: ", failure)
        return None

    def answer(self, packed: Sequence[bytes]) -> list[tuple[int, list[End]]]:
        """Answer a group: (index within it, its pieces and its end), each once."""
        ends: dict[int, list[End]] = {}
        requests: list[tuple[int, Request]] = []
        for index, each in enumerate(packed):
            try:
                requests.append((index, self._unpacked(each)))
            except MmgenError as error:
                ends[index] = [_plain(error)]
        numbers = [index for index, _ in requests]
        for number, piece in self._model.replies([*(request for _, request in requests), None]):
            if not isinstance(piece, Progress):
                ends.setdefault(numbers[number], []).append(_plain(piece) if isinstance(piece, MmgenError) else piece)
        return list(ends.items())

    def _unpacked(self, packed: bytes) -> Request:
        from mmgen.inputs.images import read_image

        values = pickle.loads(packed)
        parts = (
            read_image(io.BytesIO(part[1]), part[0], strict=self._strict) if isinstance(part, tuple) else part
            for part in values["parts"]
        )
        return Request(**{**values, "parts": tuple(parts)})


def _plain(error: MmgenError) -> MmgenError:
    """Give an error as one that can be sent: of a kind that is made of its two lines."""
    return (UsageError if isinstance(error, UsageError) else MmgenError)(error.message, error.hint)
