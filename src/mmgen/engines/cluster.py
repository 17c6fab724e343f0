"""A model on the machines of a Ray cluster: actors that each opened the checkpoint, and a loop that loses no request.

The only module that knows Ray, of which it takes the core alone. What was tried of it: attempts are counted here, as
Ray's own retries never end with a request that ends its worker; and workers that died are made anew here, so that the
time for which they read weights is nobody's.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints import aliases, catalog
from mmgen.engines.asked import Asked, Numbered
from mmgen.engines.worker import End, Worker, packed, versions
from mmgen.errors import CannotGoOnError, MmgenError, UsageError, first_line
from mmgen.limits import GROUP
from mmgen.model import Model
from mmgen.outputs.terminal import results_apart
from mmgen.request import Kind, Loading, Request

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint

_MOST_DEATHS = 3  # of its worker, after which a request has failed
_DEPTH = 2  # groups that a worker has, so that it never waits for the next
_CONNECT_SECONDS = 3.0
_QUIET_SECONDS = 20.0  # seconds without any worker, after which that is said


@dataclass(frozen=True)
class Manner:
    """How many workers there are, and how they are asked.

    Attributes:
        workers: how many; None is one for each GPU, or for each machine where there are none.
        gpus: of each worker; None is 1 where there are any.
        group: requests that a worker answers together, at most.
        patience: seconds that a worker has for each request of a group; None is without end.
        strict, pixel_limit: of pictures, as in mmgen.limits.
    """

    workers: int | None = None
    gpus: float | None = None
    group: int = GROUP
    patience: float | None = None
    strict: bool = False
    pixel_limit: int | None = None


class Cluster(Model):
    """A checkpoint that is opened by the workers of a Ray cluster, once each.

    Pictures may come unread (images.open_unread): they go to workers as the bytes of their files.

    Args:
        address: HOST:PORT of its head, or auto: as RAY_ADDRESS says, or the one on this machine.
        identity: of the weights, which each worker must find, too.
        say: is told of workers that died.

    Raises:
        MmgenError: the package or the cluster is not there, or has no room.
    """

    takes_unread = True

    def __init__(
        self,
        address: str,
        checkpoint: Checkpoint,
        loading: Loading,
        want: frozenset[Kind],
        identity: str,
        manner: Manner = Manner(),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        from mmgen import families

        self.name, self.revision, self._identity = checkpoint.name, checkpoint.revision, identity
        self.abilities, self.note = families.abilities(checkpoint), checkpoint.note
        self.abilities.check(self.name, want)
        self._manner, self._say = manner, say
        # A folder lies at the same place everywhere; all else each machine finds by its name
        is_folder = checkpoint.repo is None and checkpoint.name not in aliases.ALIASES
        name = str(checkpoint.folder.resolve()) if is_folder else checkpoint.name
        own = catalog.identity(checkpoint)
        limits = (manner.strict, manner.pixel_limit)
        self._told = pickle.dumps((name, checkpoint.revision, loading, want, own, limits))
        self._undo = ExitStack()
        self._ray = _connected(address)
        self._undo.callback(self._ray.shutdown)
        self._undo.enter_context(results_apart())  # Ray says on stdout which of its processes died
        try:
            self._n_workers, self._needs = _room(self._ray.nodes(), manner)
        except MmgenError:
            self.close()
            raise
        self._hands: list[_Hand] = []
        self._n_deaths = 0  # of workers while they opened the checkpoint, one after another

    def close(self) -> None:
        """Leave the cluster; its workers end with that."""
        self._undo.close()

    @property
    def identity(self) -> str:
        """Say which weights these are: those that this machine finds under the name."""
        return self._identity

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, End]]:
        """Answer a stream of requests, in groups, each by one worker; none is lost with a worker.

        A group whose worker died, or took too long, is answered one by one; and what ends its worker or its time alone
        has failed.

        Raises:
            CannotGoOnError: workers cannot open the checkpoint, or the cluster is gone.
        """
        asked = Asked(iter(requests), self._manner.group * self._n_workers, self._n_workers)
        try:
            while asked.pull() or any(hand.groups for hand in self._hands):
                while len(self._hands) < min(self._n_workers, asked.n_open):
                    self._hands.append(self._hand())
                for depth in range(_DEPTH):
                    for hand in self._hands:
                        if not hand.opening and len(hand.groups) == depth and (group := asked.next_group(depth)):
                            self._send(hand, group)
                self._wait()
                for hand in [*self._hands]:
                    yield from self._look(hand, asked)
        except self._ray.exceptions.RaySystemError as failure:
            raise CannotGoOnError(
                f"the Ray cluster is gone: {first_line(failure)}", "what is done is kept: try again"
            ) from failure
        finally:
            for hand in self._hands:
                hand.end(self._ray)
            self._hands.clear()

    def _hand(self) -> _Hand:
        actor = self._ray.remote(**self._needs)(Worker).remote()
        return _Hand(actor, actor.open.remote(versions(), self._told), time.monotonic())

    def _send(self, hand: _Hand, group: list[Numbered]) -> None:
        if not hand.groups:
            hand.since = time.monotonic()
        hand.groups.append((group, hand.actor.answer.remote([packed(request) for _, request in group])))

    def _wait(self) -> None:
        """Wait until a worker has something, or has had its time."""
        refs = [hand.opening or hand.groups[0][1] for hand in self._hands if hand.opening or hand.groups]
        self._ray.wait(refs, num_returns=1, timeout=1.0, fetch_local=False)
        openings = [hand.since for hand in self._hands if hand.opening and not hand.is_missed]
        if openings and len(openings) == len(self._hands) and time.monotonic() - max(openings) > _QUIET_SECONDS:
            self._say("note: no worker is there yet: the cluster may have no room, or they still read the weights")
            for hand in self._hands:
                hand.is_missed = True

    def _look(self, hand: _Hand, asked: Asked) -> Iterator[tuple[int, End]]:
        """Take what a worker has; where it is gone, or has had its time, put another in its place."""
        failures = self._ray.exceptions
        gone = (failures.RayActorError, failures.WorkerCrashedError, failures.ObjectLostError)
        try:
            if hand.opening:
                if self._is_there(hand.opening):
                    if (error := self._ray.get(hand.opening)) is not None:
                        raise CannotGoOnError(error.message, error.hint)
                    hand.opening, self._n_deaths = None, 0
                return
            while hand.groups and self._is_there(hand.groups[0][1]):
                group, answers = hand.groups[0]
                try:
                    found = self._ray.get(answers)
                except failures.RayTaskError as failure:
                    error = MmgenError(f"a worker failed: {first_line(failure.cause or failure)}", "report this")
                    found = None if len(group) > 1 else [(0, [error])]
                hand.groups.popleft()
                hand.since = time.monotonic()
                if found is None:
                    asked.alone += group
                    continue
                for index, pieces in found:
                    yield from ((group[index][0], piece) for piece in pieces)
                asked.answered(group)
        except gone:
            yield from self._replace(hand, asked)
            return
        patience = self._manner.patience
        if hand.groups and patience and time.monotonic() - hand.since > patience * len(hand.groups[0][0]):
            yield from self._replace(hand, asked, is_late=True)

    def _replace(self, hand: _Hand, asked: Asked, *, is_late: bool = False) -> Iterator[tuple[int, End]]:
        """Put another worker in the place of one that is gone, or has had its time."""
        hand.end(self._ray)
        self._n_deaths += hand.opening is not None
        if self._n_deaths >= _MOST_DEATHS:
            hint = "mmgen may not be installed there, or memory may not suffice: fewer --workers, or a smaller model"
            raise CannotGoOnError(f"workers die as they open {self.name}", hint)
        if not is_late:  # Ray names the same causes whatever it died of: none is named here
            self._say("note: a worker died; what it had is tried again")
        first = hand.groups.popleft()[0] if hand.groups else []
        for group, _ in hand.groups:  # not begun
            asked.back += group
        asked.deaths.update({number: asked.deaths.get(number, 0) + 1 for number, _ in first if not is_late})
        error: MmgenError | None = None
        if len(first) == 1 and is_late:
            error = MmgenError(f"not answered in {self._manner.patience:g} s", "wait longer with --item-timeout")
        elif len(first) == 1 and asked.deaths[first[0][0]] >= _MOST_DEATHS:
            error = MmgenError(f"its worker died {_MOST_DEATHS} times", "leave it out; Ray's logs may say of what")
        if error is None:
            asked.alone += first
        else:
            asked.answered(first)
            yield first[0][0], error
        self._hands[self._hands.index(hand)] = self._hand()

    def _is_there(self, ref: Any) -> bool:
        return bool(self._ray.wait([ref], timeout=0)[0])


@dataclass
class _Hand:
    """A worker, as it is seen from here.

    Attributes:
        opening: what comes once it has opened the checkpoint; None: it has.
        since: when it began with that, or with the first of its groups.
        groups: what it has to answer, with what comes then.
        is_missed: that it is not there yet was said.
    """

    actor: Any
    opening: Any
    since: float
    groups: deque[tuple[list[Numbered], Any]] = field(default_factory=deque)
    is_missed: bool = False

    def end(self, ray: Any) -> None:
        with suppress(Exception):  # of whatever is gone already
            ray.kill(self.actor)


def _connected(address: str) -> Any:
    """Join a cluster that is there; none is started.

    Raises:
        MmgenError: it cannot be joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # seconds for which it is tried
    try:
        import ray
    except ImportError:
        raise MmgenError("--ray takes a package that is not installed", "pip install 'mmgen-cli[ray]'") from None
    shown = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    start = "start one with: ray start --head, and name it as in --ray auto or --ray HOST:6379"
    if shown != "auto":
        host, _, port = shown.rpartition(":")
        if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UsageError(f"--ray {shown} is no address of a cluster", "auto, or HOST:PORT, as in 10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as failure:
            raise MmgenError(f"no Ray cluster at {shown}: {failure.strerror or 'no answer'}", start) from None
    try:
        with _silent():
            ray.init(shown, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as failure:
        if shown == "auto" and "Could not find" in str(failure):
            raise MmgenError("no Ray cluster is on this machine", start) from None
        hint = "the token of the cluster goes in RAY_AUTH_TOKEN with RAY_AUTH_MODE=token; or it is gone"
        raise MmgenError(f"the Ray cluster at {shown} does not let us in: {first_line(failure)}", hint) from None
    except (ray.exceptions.RayError, RuntimeError) as failure:
        raise MmgenError(f"cannot join the Ray cluster at {shown}: {first_line(failure)}", start) from None
    return ray


@contextmanager
def _silent() -> Iterator[None]:
    """Have the libraries below Python say nothing on stderr: what matters is raised."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _room(nodes: Sequence[dict[str, Any]], manner: Manner) -> tuple[int, dict[str, Any]]:
    """Say how many workers there are to be, and what each needs of a machine: as many CPUs as leave room for all.

    Raises:
        MmgenError: there is no room for so many.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    n_gpus = sum(each.get("GPU", 0) for each in alive)
    gpus = min(1.0, n_gpus) if manner.gpus is None else manner.gpus
    if gpus:
        n_most = sum(int(each.get("GPU", 0) // gpus) for each in alive)
    else:
        n_most = sum(int(each.get("CPU", 0)) for each in alive)
    n_machines = sum(each.get("CPU", 0) >= 1 for each in alive)
    n = manner.workers or (n_most if gpus else n_machines)
    if not 0 < n <= n_most:
        hint = "fewer --workers, a smaller share in --worker-gpus, or more machines"
        raise MmgenError(f"the cluster has room for {n_most} worker{'s' * (n_most != 1)}", hint)
    shares = range(int(max(each.get("CPU", 0) for each in alive)), 1, -1)
    cpus = next((share for share in shares if sum(int(each.get("CPU", 0) // share) for each in alive) >= n), 1)
    needs = {"num_cpus": 1 if gpus else cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
    return n, {**needs, "scheduling_strategy": "SPREAD"}
