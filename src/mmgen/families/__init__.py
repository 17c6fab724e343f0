"""Which family opens which checkpoint, and what it can give. Without torch: a family's module is imported on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmgen import catalog, fit, machine
from mmgen.catalog import Checkpoint
from mmgen.errors import MmgenError
from mmgen.model import Model
from mmgen.request import BOTH, WORDS, Kind, Loading, Request


@dataclass(frozen=True)
class Family:
    """How one family is opened.

    Attributes:
        module: in mmgen.families, with `load(checkpoint, loading) -> Model`.
        prompter: module without torch, with `Prompter(checkpoint)` whose `check(request)` refuses early.
        draws_with: a checkpoint that has tensors of this prefix can draw.
        picture_tokens: how many tokens a picture is that it draws, by its config.
    """

    module: str
    prompter: str
    draws_with: str
    picture_tokens: Callable[[Mapping[str, Any]], int] | None = None


def _vq_codes(config: Mapping[str, Any]) -> int:
    """Count the codes of a picture: each level of the VQ but the first halves its sides."""
    vq = config.get("vq_config") or {}
    side: int = vq.get("resolution", 512) // 2 ** (len(vq.get("channel_multiplier", (1, 1, 2, 2, 4))) - 1)
    return side * side


_FAMILIES = {
    "chameleon": Family("chameleon", "chameleon_prompt", "model.vqmodel.decoder.", picture_tokens=_vq_codes),
}
_GUIDANCE_ROWS = 3  # of a picture under way, at most


def open_model(
    name: str,
    loading: Loading | None = None,
    want: frozenset[Kind] = WORDS,
    requests: Sequence[Request] = (),
) -> Model:
    """Open a checkpoint, having checked first, without its weights, that it can do what is wanted.

    Args:
        name: alias, folder or Hub id.
        want: what has to come out of it.
        requests: what it will be asked first, if known: a prompt that is too long fails before anything heavy.

    Raises:
        MmgenError: not found, not a checkpoint, of an unknown family, unable to give what is wanted, or too large.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    family = _family_of(checkpoint)
    missing = want - gives(checkpoint)
    if missing:
        raise MmgenError(
            f"{name} cannot draw: it describes pictures and has no decoder to make them",
            "draw with -m demo (built in) or -m anole-7b",
        )
    catalog.check_tokenizer(checkpoint)
    if requests:
        prompter = import_module(f"mmgen.families.{family.prompter}").Prompter(checkpoint)
        for request in requests:
            prompter.check(request)
    if loading.fit_check and checkpoint.n_bytes > fit.SMALL:
        drawn = _GUIDANCE_ROWS * picture_tokens(checkpoint) if "image" in want else 0
        fit.check(checkpoint, loading, machine.look(), fit.TOKENS + drawn)
    if "torch" not in sys.modules:
        # Threads that spin while they wait make a small model up to 20 times slower on a busy machine (GNU OpenMP).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    model: Model = import_module(f"mmgen.families.{family.module}").load(checkpoint, loading)
    return model


def gives(checkpoint: Checkpoint) -> frozenset[Kind]:
    """Say what can come out of a checkpoint, from its tensors' names."""
    prefix = _family_of(checkpoint).draws_with
    return BOTH if any(tensor.startswith(prefix) for tensor in checkpoint.tensors) else WORDS


def picture_tokens(checkpoint: Checkpoint) -> int:
    """Say how many tokens a picture is that a checkpoint draws; 0 if it draws none."""
    count = _family_of(checkpoint).picture_tokens
    return count(checkpoint.config) if count and "image" in gives(checkpoint) else 0


def _family_of(checkpoint: Checkpoint) -> Family:
    family = _FAMILIES.get(checkpoint.model_type)
    if family is None:
        raise MmgenError(
            f'{checkpoint.name} is of model type "{checkpoint.model_type}", which mmgen does not know',
            "known: " + ", ".join(sorted(_FAMILIES)),
        )
    return family
