"""`mmgen serve`: a model that stays loaded, behind an OpenAI-compatible address."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.inputs.selection import is_installed
from mmgen.outputs.terminal import Notes, emit
from mmgen.request import BOTH, Loading, option

if TYPE_CHECKING:
    from mmgen.model import Model

EXAMPLES = """\b
Examples:
  $ mmgen serve --list
  $ mmgen serve --stop
"""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_PACKAGES = ("fastapi", "uvicorn", "multipart", "prometheus_client")


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, and to whom."""

    host: str = option("127.0.0.1", "Address to listen at; another takes --api-key or --insecure.", metavar="HOST")
    port: int = option(8686, "Port to listen at; 0 is any that is free.", metavar="PORT")
    socket: str | None = option(None, "Listen at a socket in place of a port.", metavar="PATH", env=False)
    api_key: str | None = option(None, "Key that every request has to bring.", metavar="KEY")
    insecure: bool = option(False, "Listen to other machines without a key.", env=False)
    cors: list[str] | None = option(
        None, "Let scripts of pages of this origin ask, as in https://example.org. Repeatable.", metavar="ORIGIN",
        env=False,
    )  # fmt: skip
    fetch_images: bool = option(False, "Fetch pictures from the web where a request has their address.", env=False)
    queue: int = option(256, "Requests that wait at most; more are refused.", metavar="N")
    idle: str | None = option(None, "End after so long without work, as in 10m.", metavar="TIME", env=False)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UsageError(f"--port {self.port} is out of range", "from 0 to 65535; 0 is any that is free")
        if self.queue < 1:
            raise UsageError(f"--queue {self.queue} is out of range", "it is a number of at least 1")
        if self.api_key == "":
            raise UsageError("--api-key is empty", "give one, or leave it out")
        if self.host not in _LOCAL and not (self.api_key or self.insecure or self.socket):
            raise UsageError(
                f"whoever reaches {self.host} could use this model", "set a key with --api-key, or say --insecure"
            )


@options.grouped
def serve(
    list_: Annotated[
        bool, typer.Option("--list", rich_help_panel=options.RESULT, help="List the servers of --keep-alive.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", rich_help_panel=options.RESULT, help="Stop the servers of --keep-alive.")
    ] = False,
    *,
    serving: ServeOptions,
    job: Annotated[options.JobOptions, options.only("model", "quiet")],
    loading: Loading,
) -> None:
    """Keep a model loaded, behind an OpenAI-compatible address.

    Whoever speaks OpenAI's API can use it, and so can mmgen itself, with --endpoint. Ctrl-C and SIGTERM finish what
    is under way, and end it.
    """
    from mmgen.engines import keeping

    if list_ or stop:
        for server in keeping.running():
            if stop:
                server.stop()
            emit(f"{server.model}\t{server.pid}\t{server.socket}\n")
        return
    missing = [package for package in _PACKAGES if not is_installed(package)]
    if missing:
        raise MmgenError("mmgen serve takes packages that are not installed", "pip install 'mmgen-cli[serve]'")
    _serve(serving, job.model, loading, Notes(job.quiet))


def _serve(serving: ServeOptions, name: str, loading: Loading, notes: Notes) -> None:
    import asyncio  # not on the way to --help

    from mmgen import families
    from mmgen.checkpoints import catalog
    from mmgen.cli import opening
    from mmgen.engines.keeping import seconds_of
    from mmgen.outputs.records import plain_name
    from mmgen.serve import running
    from mmgen.serve.app import Served
    from mmgen.serve.guard import Rules, names_of
    from mmgen.serve.scheduler import Scheduler

    idle = None if serving.idle is None else seconds_of(serving.idle, "--idle")
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    able = families.abilities(checkpoint)
    served = Served(plain_name(name), checkpoint.revision, opening.identity(checkpoint, loading), able, checkpoint.note)

    def say(text: str) -> None:
        if not notes.quiet:
            print(text, file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):  # until the server hears of them itself
        signal.signal(number, lambda *_: sys.exit(0))
    place = running.listen(serving.host, serving.port, serving.socket)
    failures: list[MmgenError] = []

    def load() -> Model:
        want = BOTH if able.gives == BOTH and able.mixes else able.gives
        model = opening.load(checkpoint, loading, want, [], notes)
        notes.clear()
        say(f"{served.name} is loaded: {', '.join(able.tasks)}")
        return model

    def failed(error: MmgenError) -> None:
        failures.append(error)
        server.end()

    scheduler = Scheduler(load, serving.queue, failed)
    try:
        # Who listens to other machines is called by names that are not known here
        is_local = serving.host in _LOCAL and not (serving.socket or serving.api_key)
        names = names_of(serving.host) if is_local else None
        rules = Rules(serving.api_key, names, tuple(serving.cors or ()))
        server = running.build(served, scheduler, place, rules, say=say, from_web=serving.fetch_images, idle=idle)
        say(f"{served.name} at {place.name}")
        scheduler.start()
        asyncio.run(server.serve(sockets=[place.socket]))
    finally:
        scheduler.close(at_once=True)
        place.forget()
    if failures:
        raise failures[0]
