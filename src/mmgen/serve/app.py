"""The paths of the server: bodies in, whole answers or events out. Knows no model by name."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from mmgen import __version__
from mmgen.errors import MmgenError, first_line
from mmgen.inputs.images import read_header, read_image
from mmgen.model import Abilities
from mmgen.request import PICTURES
from mmgen.serve.answers import Answer, Pictures, Replies, Words
from mmgen.serve.bodies import Asked, ChatBody, ImageBody, Open, explained, hole, read_body, read_chat, read_pictures
from mmgen.serve.errors import FieldError, RefusedError, error_body, status_of
from mmgen.serve.scheduler import Scheduler

_PATIENCE = 2.0  # seconds for an answer to begin, or to be refused by its status, before a stream does
_READERS = 4  # bodies whose pictures are opened at once

_Whole = TypeVar("_Whole")


@dataclass(frozen=True)
class Served:
    """What is served, as it is told.

    Attributes:
        identity: of its weights, as it stands in the keys of journals.
    """

    name: str
    revision: str | None
    identity: str
    abilities: Abilities
    note: str | None = None

    def entry(self) -> dict[str, Any]:
        """Write it as an entry of /v1/models."""
        able = {**asdict(self.abilities), "gives": sorted(self.abilities.gives)}
        told = {**asdict(self), "version": __version__, "abilities": able}
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "mmgen", "mmgen": told}


def make_app(served: Served, scheduler: Scheduler, open_url: Open, seen: Counter[tuple[str, int]]) -> FastAPI:
    """Make the application.

    Args:
        open_url: opens the picture of an `image_url`.
        seen: how many requests there were, by path and status.
    """
    app = FastAPI(title="mmgen serve", version=__version__, docs_url=None, redoc_url=None)
    paths = _Paths(served, scheduler, open_url, seen)
    for path in (paths.health, paths.models, paths.metrics):
        app.get(f"{'/v1' if path == paths.models else ''}/{path.__name__}")(path)
    app.post("/v1/chat/completions")(paths.chat)
    app.post("/v1/images/generations")(paths.generate)
    for name in ("edits", "variations"):
        app.post(f"/v1/images/{name}")(paths.edit)
    for kind in (MmgenError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refused)
    return app


class _Paths:
    """What is answered at each path."""

    def __init__(self, served: Served, scheduler: Scheduler, open_url: Open, seen: Counter[tuple[str, int]]) -> None:
        self._served, self._scheduler, self._open_url = served, scheduler, open_url
        self._readers, self._registry = asyncio.Semaphore(_READERS), CollectorRegistry()
        self._registry.register(_Counts(scheduler, seen))

    async def health(self) -> Response:
        """Say whether the model is loaded."""
        is_ready = self._scheduler.model is not None
        return JSONResponse({"status": "ok" if is_ready else "loading"}, 200 if is_ready else 503)

    async def models(self) -> dict[str, Any]:
        """Say what is served."""
        return {"object": "list", "data": [self._served.entry()]}

    async def metrics(self) -> Response:
        """Count, as Prometheus reads it."""
        return PlainTextResponse(generate_latest(self._registry).decode())

    async def chat(self, request: Request, body: ChatBody) -> Response:
        """Answer in words or, of modalities text and image, in words and pictures."""
        return await self._answer(request, body.model, lambda: read_chat(body, self._open_url))

    async def generate(self, request: Request, body: ImageBody) -> Response:
        """Draw from words."""
        return await self._answer(request, body.model, lambda: read_pictures(body, None, None))

    async def edit(self, request: Request) -> Response:
        """Draw from a picture, and from words if there are some."""
        files: dict[str, bytes] = {}
        try:
            form = await _Form(request.headers, request.stream(), max_files=4, max_fields=100).parse()
        except (MultiPartException, KeyError) as failure:
            raise FieldError("body", f"this is no multipart/form-data: {first_line(failure)}") from failure
        async with AsyncExitStack() as stack:
            stack.push_async_callback(form.close)
            for name, value in form.multi_items():
                name = name.removesuffix("[]")
                if isinstance(value, UploadFile):
                    if name in files or name not in ("image", "mask"):
                        raise FieldError(name[:100], "one image is taken, and one mask", "leave the others out")
                    files[name] = await value.read()
        body = read_body(ImageBody, {name: value for name, value in form.items() if isinstance(value, str)})
        if "image" not in files:
            raise FieldError("image", "there is no image", "send it as a file, in multipart/form-data")

        def read() -> Asked:
            mask = hole(read_header(io.BytesIO(files["mask"]), "the mask")) if "mask" in files else None
            return read_pictures(body, read_image(io.BytesIO(files["image"]), "the image"), mask)

        return await self._answer(request, body.model, read)

    async def _answer(self, request: Request, model: str | None, read: Callable[[], Asked]) -> Response:
        served = self._served
        if model and model != served.name:
            message = f"the model {model[:100]!r} is not served here"
            raise RefusedError(404, message, f"{served.name} is", "model")
        async with self._readers:
            asked = await asyncio.to_thread(read)
        for each in asked.requests:
            served.abilities.check(served.name, each.want, [each])
        style: Answer = Words(asked, served.name)
        if asked.requests[0].want == PICTURES:
            kind = "image_generation" if request.url.path.endswith("generations") else "image_edit"
            style = Pictures(asked, served.name, kind)
        replies = Replies(self._scheduler, asked)
        if not asked.stream:
            return JSONResponse(await _unless_gone(request, style.whole(replies)))
        try:
            await replies.begin(_PATIENCE)
        except BaseException:
            replies.drop()
            raise
        return StreamingResponse(style.stream(replies), media_type="text/event-stream")


async def _refused(_: Request, failure: Exception) -> Response:
    match failure:
        case RequestValidationError():
            failure = explained(failure.errors())
        case HTTPException():
            failure = RefusedError(failure.status_code, str(failure.detail))
    assert isinstance(failure, MmgenError)
    status = status_of(failure)
    return JSONResponse(error_body(failure), status, {"Retry-After": "1"} if status in (429, 503) else None)


class _Form(MultiPartParser):
    """A form whose files stay in memory: what a body may have is bounded before it comes here."""

    spool_max_size = 2**62


class _Counts:
    """What /metrics tells."""

    def __init__(self, scheduler: Scheduler, seen: Counter[tuple[str, int]]) -> None:
        self._scheduler, self._seen = scheduler, seen

    def collect(self) -> Iterator[Metric]:
        """Give every count."""
        requests = CounterMetricFamily("mmgen_requests", "Requests, by path and status.", labels=("path", "status"))
        for (path, status), n in list(self._seen.items()):
            requests.add_metric((path, str(status)), n)
        yield requests
        for name in ("tokens", "pictures", "passes", "batches"):
            yield CounterMetricFamily(f"mmgen_{name}", f"{name.capitalize()} so far.", self._scheduler.counts[name])
        yield CounterMetricFamily("mmgen_busy_seconds", "Seconds of work so far.", self._scheduler.seconds)
        waiting, under_way = self._scheduler.n_waiting, self._scheduler.n_under_way
        yield GaugeMetricFamily("mmgen_waiting", "Requests that wait.", waiting)
        yield GaugeMetricFamily("mmgen_under_way", "Requests that are being answered.", under_way)


async def _unless_gone(request: Request, whole: Awaitable[_Whole]) -> _Whole:
    """Wait for an answer, unless whoever asked goes away before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(whole), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise RefusedError(499, "whoever asked is gone")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
