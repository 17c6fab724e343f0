"""From a command's flags to what answers: a checkpoint, opened in this process, or a model behind an address."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints import aliases
from mmgen.cli.options import JobOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.files import noticed, raise_on_interrupt, said_lately
from mmgen.limits import Limits
from mmgen.model import Model
from mmgen.outputs.terminal import Notes
from mmgen.request import Kind, Loading, Request

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint

_PATIENCE = 300.0  # seconds without a word, after which a server counts as stalled
_SKETCHES = 8  # of a picture that grows on the terminal
_ELSEWHERE = (
    "revision",
    "offline",
    "max_pixels",
)  # of Loading, these mean something for a model behind an address, too


def find(job: JobOptions, limits: Limits, loading: Loading, want: frozenset[Kind], notes: Notes) -> Checkpoint | Model:
    """Find what answers: no weights are read, but a server may be started.

    Raises:
        MmgenError: there is no such model, or no such server.
    """
    if job.endpoint is None and (job.keep_alive is None or job.plan):  # counting takes no model
        from mmgen.checkpoints import catalog

        if limits.item_timeout is not None and job.ray is None and job.keep_alive is None:
            raise UsageError("--item-timeout is about --endpoint and --ray", "leave it out")
        found = catalog.find(job.model, revision=loading.revision, offline=loading.offline)
        if job.ray is None or job.plan:
            return found
        from mmgen.engines import cluster

        notes.progress(f"joining the Ray cluster at {job.ray}")
        workers = cluster.Manner(
            job.workers, job.worker_gpus, limits.group, limits.item_timeout, limits.strict, limits.pixel_limit
        )
        return cluster.Cluster(job.ray, found, loading, want, identity(found, loading), workers, notes.say)
    from mmgen.engines import keeping
    from mmgen.engines.endpoint import Endpoint, Manner

    patience = _PATIENCE if limits.item_timeout is None else limits.item_timeout
    sketches = _SKETCHES if notes.previews else 0
    manner = Manner(limits.concurrency, patience, loading.max_pixels, sketches, job.seed is not None)
    if (idle := job.keep_alive) is not None:
        keeping.seconds_of(idle, "--keep-alive")
        notes.progress(f"finding the server of {job.model}")

        def ensure() -> str:
            return keeping.ensure(job.model, loading, idle)

        kept = Endpoint("http://mmgen", None, None, manner, ensure(), ensure)
        kept.name = job.model
        return kept
    for each in fields(Loading):
        if getattr(loading, each.name) != each.default and each.name not in _ELSEWHERE:
            flag = (*each.metadata["flags"], f"--{each.name.replace('_', '-')}")[0]
            raise UsageError(f"{flag} is up to the server behind --endpoint", "leave it out, or give it to mmgen serve")
    key = os.environ.get("MMGEN_API_KEY") or os.environ.get("OPENAI_API_KEY")
    return Endpoint(job.endpoint or "", None if job.model == aliases.DEFAULT else job.model, key, manner)


def identity(found: Checkpoint | Model, loading: Loading) -> str:
    """Say which weights answer, and how they are shown pictures: in the keys of journals."""
    if isinstance(found, Model):
        return found.identity
    from mmgen.checkpoints import catalog

    said = catalog.identity(found)
    if loading.max_pixels is not None:
        said += f", {loading.max_pixels} pixels"
    return f"{said}, encoded" if loading.encode else said


def open_model(
    found: Checkpoint | Model,
    loading: Loading,
    want: frozenset[Kind],
    requests: Sequence[Request],
    notes: Notes,
) -> Model:
    """Open a model, and pass on its own note about itself."""
    try:
        model: Model
        if isinstance(found, Model):
            found.abilities.check(found.name, want, requests)
            model = found
        else:
            model = load(found, loading, want, requests, notes)
    finally:
        notes.clear()
    raise_on_interrupt()  # from now on something is in hand
    if model.note and not notes.quiet and not said_lately(model.note):
        notes.say(f"note: {model.note}")
    return model


def load(
    checkpoint: Checkpoint, loading: Loading, want: frozenset[Kind], requests: Sequence[Request], notes: Notes
) -> Model:
    """Load a checkpoint into this process, in any thread."""
    from mmgen import families

    def prepare() -> None:
        _hide_broken_torchvision()
        if notes.is_live:
            _show_loading(f"loading {checkpoint.name}", notes)

    notes.progress(f"loading {checkpoint.name}")
    with noticed():
        _quiet(notes)
        return families.open_model(checkpoint, loading, want, requests, prepare)


def _quiet(notes: Notes) -> None:
    """Keep the libraries' reports and bars off the terminal, which is ours: what matters in them is raised."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if notes.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if notes.quiet:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()  # transformers asks it, too
    for library in ("accelerate", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _show_loading(text: str, notes: Notes) -> None:
    """Have the tensors counted that transformers reads, in place of the bar that it would draw itself."""
    from transformers.utils.logging import set_tqdm_hook

    def count(tensors: Collection[Any]) -> Iterator[Any]:
        for number, tensor in enumerate(tensors):
            notes.progress(text, number / len(tensors))
            yield tensor

    def hook(bar: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return count(args[0]) if args and isinstance(args[0], Collection) else bar(*args, **kwargs)

    set_tqdm_hook(hook)


def _hide_broken_torchvision() -> None:
    """Let our own process do without a torchvision that cannot be imported, as one that was made for another torch."""
    from mmgen.checkpoints import fit

    try:
        fit.check_torchvision()
    except MmgenError:
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # so it is not found
