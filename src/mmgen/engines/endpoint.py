"""A model behind the address of an OpenAI-compatible server: so many requests under way, tried again where that helps.

Imports neither torch nor transformers. What goes over the connection stands in engines.wire.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from mmgen import __version__
from mmgen.engines import wire
from mmgen.engines.events import AgainError, Answer, error_of
from mmgen.errors import CannotGoOnError, MmgenError, UsageError, first_line, unexpected
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, PICTURES, Done, Picture, Piece, Progress, Request
from mmgen.tasks import IMAGE_MARK, scaled
from mmgen.text import from_json

if TYPE_CHECKING:
    import httpx2

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)  # seconds between attempts, about
_LONGEST_PAUSE = 60.0  # seconds that a server may ask for
_STALLS = 3  # after which a server that sends nothing is asked no more
_CONNECT_SECONDS = 10.0
_MOST_BYTES = 200_000_000  # of an answer

_Answer: TypeAlias = Piece | Done | MmgenError


@dataclass(frozen=True)
class Manner:
    """How a server is asked.

    Attributes:
        concurrency: requests under way.
        patience: seconds without a byte, after which the server counts as stalled.
        max_pixels: pictures with more are scaled down before they are sent.
        sketches: of each picture, that are shown while it is drawn.
        own_seed: the seed was given: other servers than mmgen's are told it for pictures, too.
    """

    concurrency: int = 8
    patience: float = 300.0
    max_pixels: int | None = None
    sketches: int = 0
    own_seed: bool = False


class Endpoint(Model):
    """A model behind an address.

    Args:
        address: of the server, with or without /v1.
        served: which of its models; None is the first.
        key: goes with every request, as a bearer token.
        socket: path of the socket that the server listens at, in place of the address's host and port.
        revive: is called where nobody listens, before another attempt.

    Raises:
        MmgenError: it cannot be reached, or does not serve the model.
    """

    def __init__(
        self,
        address: str,
        served: str | None = None,
        key: str | None = None,
        manner: Manner = Manner(),
        socket: str | None = None,
        revive: Callable[[], object] = lambda: None,
    ) -> None:
        import httpx2

        try:
            url = httpx2.URL(address.rstrip("/"))
            valid = url.scheme in ("http", "https") and bool(url.host)
        except (httpx2.InvalidURL, UnicodeError):
            valid = False
        if not valid:
            raise UsageError("the endpoint is no http(s) address", "as in --endpoint http://127.0.0.1:8686")
        base = url if url.path.endswith("/v1") else url.copy_with(path=f"{url.path.rstrip('/')}/v1")
        self._shown = socket or str(url.copy_with(userinfo=b"", query=None))
        self._manner, self._revive, self._is_mmgen = manner, revive, False
        try:
            self._http = httpx2.Client(
                base_url=base,
                headers={"User-Agent": f"mmgen/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})},
                timeout=httpx2.Timeout(manner.patience, connect=_CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=manner.concurrency + 1),
                # Certificates take as long to read as an answer takes to come
                transport=httpx2.HTTPTransport(uds=socket, verify=False) if socket else None,
                verify=url.scheme == "https",
                trust_env=socket is None,
            )
        except (ImportError, ValueError) as failure:  # of a proxy in the environment that the client cannot use
            raise MmgenError(f"cannot use a proxy: {first_line(failure)}", "unset ALL_PROXY and HTTPS_PROXY") from None
        try:
            self._find(served)
        except MmgenError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    @property
    def identity(self) -> str:
        """Say which weights these are, as the server tells; else by what it calls them."""
        own = f", {self._manner.max_pixels} pixels" if self._manner.max_pixels is not None else ""
        told = self._identity
        return told if own in told else told + own

    def _find(self, served: str | None) -> None:
        """Ask what is served, and take the model."""
        listed: Any = self._try(lambda: self._read("models"), _if_there).get("data")
        models = {each["id"]: each for each in listed or () if isinstance(each, dict) and "id" in each}
        if not models or (served is not None and served not in models):
            known = f"it serves {', '.join(models)}" if models else "it lists no models"
            raise UsageError(f"{self._shown} does not serve {served or 'anything'}", known)
        self._served = self.name = served or next(iter(models))
        told = models[self._served].get("mmgen")
        self._is_mmgen, told = isinstance(told, dict), told if isinstance(told, dict) else {}
        self._identity, self.revision = str(told.get("identity", self.name)), told.get("revision")
        able = {name: value for name, value in (told.get("abilities") or {}).items() if hasattr(Abilities(), name)}
        self.abilities = Abilities(**{**able, "gives": frozenset(able.get("gives", BOTH))}) if able else _ANY
        self.note = told.get("note")

    def check(self, request: Request) -> None:
        """Refuse what this server cannot be asked.

        Raises:
            MmgenError: it cannot.
        """
        super().check(request)
        edit = request.edit
        wanted = {
            "--choices": request.choices,
            "--complete": request.completion and request.want != BOTH,
            "--best-of": request.best_of > 1,
            "--strength, --from, --keep and --drafts": edit and (edit.couples or edit.keep or edit.drafts > 1),
        }
        for flag in (flag for flag, value in wanted.items() if value and not self._is_mmgen):
            raise UsageError(f"{flag}: {self._shown} cannot, as it is not mmgen's", "leave it out, or use mmgen serve")

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, _Answer]]:
        """Answer a stream of requests, several under way at once; one alone is passed on as it comes.

        Raises:
            CannotGoOnError: the server is gone; what was under way has its error by then.
        """
        pulled, under_way = iter(requests), set[int]()
        first = list(islice((request for request in pulled if request is not None), 2))
        is_live, n, is_over = len(first) == 1, 0, False
        made: SimpleQueue[tuple[int, _Answer]] = SimpleQueue()
        gone: CannotGoOnError | None = None
        while True:
            while not is_over and gone is None and len(under_way) < self._manner.concurrency:
                try:
                    request = first.pop(0) if first else next(pulled)
                except StopIteration:
                    is_over = True
                    break
                if request is None and under_way:
                    break  # what is under way comes first
                if request is not None:
                    under_way.add(n)
                    # Not waited for where the program ends: a thread of a pool would be
                    threading.Thread(target=self._answer, args=(n, request, is_live, made.put), daemon=True).start()
                    n += 1
            if not under_way:
                break
            number, piece = made.get()
            if isinstance(piece, Done | MmgenError):
                under_way.discard(number)
            if isinstance(piece, CannotGoOnError):
                gone, piece = piece, MmgenError(piece.message, piece.hint)
            yield number, piece
        if gone is not None and not is_live:
            raise gone

    def _answer(self, number: int, request: Request, is_live: bool, put: Callable[[tuple[int, _Answer]], None]) -> None:
        """Answer a request, in a thread; words come as they are made if it `is_live`, else once they are whole."""
        kept: list[Piece | Done] = []
        said = False

        def attempt() -> None:
            nonlocal said
            kept.clear()
            for piece in self._pieces(request):
                if is_live or isinstance(piece, Progress):
                    said = said or isinstance(piece, str | Picture)
                    put((number, piece))
                else:
                    kept.append(piece)

        try:
            self.check(request)
            request = scaled(request, self._manner.max_pixels)
            self._try(attempt, lambda _: not (said or request.cancelled.is_set()))
            for piece in kept:
                put((number, piece))
        except MmgenError as error:
            put((number, error))
        except Exception as failure:  # noqa: BLE001 -- the net for an item, as this thread has none above it
            put((number, unexpected(f"{self._shown}: ", failure)))

    def _try(self, attempt: Callable[[], Any], may_again: Callable[[MmgenError], bool]) -> Any:
        """Make attempts until one is through.

        Raises:
            MmgenError: none is.
            CannotGoOnError: nobody listens there.
        """
        import httpx2

        n_stalls = 0
        for pause in (*_PAUSES, None):
            asked, error = 0.0, MmgenError("")
            try:
                return attempt()
            except AgainError as failure:
                asked, error = failure.pause, MmgenError(f"{self._shown}: {failure}", "try again later")
            except httpx2.ConnectError as failure:
                hint = "start it (mmgen serve), or check the address"
                error = CannotGoOnError(f"cannot reach {self._shown}: {first_line(failure)}", hint)
            except httpx2.ReadTimeout:
                n_stalls += 1
                error = MmgenError(
                    f"{self._shown} sent nothing for {self._manner.patience:g} s", "wait longer with --item-timeout"
                )
            except (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError) as failure:
                error = MmgenError(f"{self._shown} broke off: {first_line(failure)}", "try again")
            if pause is None or n_stalls >= _STALLS or not may_again(error):
                raise error
            time.sleep(max(min(asked, _LONGEST_PAUSE), pause * random.uniform(0.5, 1.0)))
            if isinstance(error, CannotGoOnError):
                self._revive()
        raise AssertionError("unreachable")

    # --- one attempt ----------------------------------------------------------------------------------------------

    def _pieces(self, request: Request) -> Iterator[Piece | Done]:
        """Ask once, and give what comes."""
        path, sent = self._written(request)
        answer = Answer(request)
        with self._http.stream("POST", path, **sent) as response:
            self._check(response, sent.get("json") or sent.get("data"))
            if "event-stream" not in response.headers.get("content-type", ""):
                yield from answer.take(_json(response))
            else:
                for line in _lines(response):
                    if request.cancelled.is_set():
                        yield Done("cancelled")
                        return
                    if line.startswith(":"):
                        yield from answer.progress(line)
                    elif line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        if (event := from_json(data)) is None:
                            raise AgainError("the answer is damaged")
                        yield from answer.take(event)
        if answer.end is None:
            raise AgainError("the answer broke off")
        yield answer.end

    def _written(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Write a request as it is sent: where to, and what."""
        if request.want != PICTURES:
            body = {"model": self._served, **wire.chat(request), "stream": True}
            return "chat/completions", {"json": {**body, "stream_options": {"include_usage": True}}}
        fields = {"model": self._served, **wire.picture(request)}
        if self._is_mmgen or self._manner.own_seed:
            fields["seed"] = request.seed
        if self._is_mmgen:
            fields |= {"stream": True, "partial_images": self._manner.sketches}
        else:
            fields["prompt"] = fields["prompt"].replace(IMAGE_MARK, "").strip()
        source = request.source or next(iter(request.images), None)
        if source is None:
            return "images/generations", {"json": fields}
        files = {"image": ("image.png", wire.png(source), "image/png")}
        if request.mask is not None:
            files["mask"] = ("mask.png", wire.png(request.mask, is_hole=not self._is_mmgen), "image/png")
        return "images/edits", {"data": {name: str(value) for name, value in fields.items()}, "files": files}

    def _read(self, path: str) -> dict[str, Any]:
        with self._http.stream("GET", path) as response:
            self._check(response)
            return _json(response)

    def _check(self, response: httpx2.Response, sent: dict[str, Any] | None = None) -> None:
        """Raise what a response's status says, if it is no success."""
        status = response.status_code
        if status < 300:
            return
        body = _body(response).decode(errors="replace")
        said = (from_json(body) or {}).get("error") or from_json(body) or body or response.reason_phrase
        error = error_of(said, sent)
        if status in (408, 425, 429) or (status >= 500 and status != 501):
            asked = response.headers.get("retry-after", "")
            raise AgainError(f"{error.message} ({status})", float(asked) if asked.isdecimal() else 0.0)
        if status in (401, 403):
            raise MmgenError(f"{self._shown}: {error.message}", "give its key in MMGEN_API_KEY")
        told = error.message if self._is_mmgen else f"{self._shown}: {error.message} ({status})"
        raise MmgenError(told, error.hint)


def _if_there(error: MmgenError) -> bool:
    return not isinstance(error, CannotGoOnError)


def _json(response: httpx2.Response) -> dict[str, Any]:
    found = from_json(_body(response).decode(errors="replace"))
    if found is None:
        raise MmgenError("the server sent no JSON object", "check the address: it ends in /v1, or in nothing")
    return found


def _lines(response: httpx2.Response) -> Iterator[str]:
    """Give the lines of a stream of events: JSON within them may have characters at which str.splitlines ends one."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip(b"\r").decode(errors="replace") for line in lines)
        if len(rest) > _MOST_BYTES:
            raise MmgenError(f"the server sent more than {_MOST_BYTES:,} bytes", "check the address")


def _body(response: httpx2.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise MmgenError(f"the server sent more than {_MOST_BYTES:,} bytes", "check the address")
    return bytes(body)


_ANY = Abilities(negative_prompt=True, ratio=True)  # of a server that does not tell
