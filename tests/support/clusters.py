"""Ray clusters of several machines on this one, in which a picture can end its worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

MMGEN = [sys.executable, "-m", "mmgen"]
HEAD = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 200_000_000}


@dataclass
class Machines:
    """A cluster of machines with one CPU each."""

    cluster: Any
    environment: dict[str, str]
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, **environment: str) -> Any:
        with patch.dict(os.environ, self.environment | environment):
            node = self.cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
        self.nodes.append(node)
        return node

    def lose(self) -> None:
        """Lose a machine that is not the head, and all that ran on it."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def workers(self) -> list[psutil.Process]:
        """Give the workers of mmgen on these machines."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()]
        found = []
        for raylet in raylets:
            for process in psutil.Process(raylet).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                        found.append(process)
        return found

    def command(self, *arguments: str) -> list[str]:
        return [*MMGEN, *arguments, "--ray", self.address]

    def run(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=folder, env=os.environ | {"RAY_AUTH_MODE": "disabled"} | environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip


@contextmanager
def machines(n: int = 2, **environment: str) -> Iterator[Machines]:
    """Start so many machines: a head, and others."""
    from ray.cluster_utils import Cluster

    poison = str(Path(__file__).with_name("poison"))
    on_sigterm = signal.getsignal(signal.SIGTERM)  # for which Ray has a handler of its own
    settings = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": poison, "RAY_USAGE_STATS_ENABLED": "0"} | environment
    with patch.dict(os.environ, settings):
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    found = Machines(cluster, settings)
    try:
        for _ in range(n - 1):
            found.add()
        yield found
    finally:
        with patch.dict(os.environ, settings):
            cluster.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def head(**environment: str) -> Iterator[str]:
    """Start a head as from a shell; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    program = str(Path(sys.executable).with_name("ray"))
    address = f"127.0.0.1:{port}"
    with subprocess.Popen(
        [program, "start", "--head", "--block", "--num-cpus=1", f"--port={port}", "--include-dashboard=false"],
        env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as started:  # fmt: skip
        try:
            wait_until(lambda: _listens(port))
            yield address
        finally:
            os.killpg(started.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
