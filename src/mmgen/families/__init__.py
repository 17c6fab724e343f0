"""Which family opens which checkpoint, and what it can give. Without torch: a family's module is imported on demand.

A model type without a family of its own is left to `chat`, which takes it by its chat template and its processor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from mmgen import catalog
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
    """

    module: str
    prompter: str
    draws_with: str


_FAMILIES = {
    "chameleon": Family("chameleon", prompter="chameleon_prompt", draws_with="model.vqmodel.decoder."),
}


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
        requests: what it will be asked first, if known: a prompt that is too long fails before anything heavy, and
            what only pictures need may be left out if there are none.

    Raises:
        MmgenError: not found, not a checkpoint, of an unknown family, or unable to give what is wanted.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    if not want <= gives(checkpoint):
        raise MmgenError(
            f"{name} cannot draw: it answers in words and has no decoder to make pictures",
            "draw with -m demo (built in) or -m anole-7b",
        )
    family = _FAMILIES.get(checkpoint.model_type)
    if family is not None and requests:
        prompter = import_module(f"mmgen.families.{family.prompter}").Prompter(checkpoint)
        for request in requests:
            prompter.check(request)
    if "torch" not in sys.modules:
        # Threads that spin while they wait make a small model up to 20 times slower on a busy machine (GNU OpenMP).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    model: Model
    if family is None:  # all others: what their chat templates and processors say, or a refusal
        model = import_module("mmgen.families.chat").load(checkpoint, loading, requests)
    else:
        model = import_module(f"mmgen.families.{family.module}").load(checkpoint, loading)
    return model


def gives(checkpoint: Checkpoint) -> frozenset[Kind]:
    """Say what can come out of a checkpoint, from its tensors' names."""
    family = _FAMILIES.get(checkpoint.model_type)
    draws = family is not None and any(tensor.startswith(family.draws_with) for tensor in checkpoint.tensors)
    return BOTH if draws else WORDS
