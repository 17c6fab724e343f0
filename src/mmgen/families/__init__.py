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
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, WORDS, Kind, Loading, Request


@dataclass(frozen=True)
class Family:
    """How one family is opened, and what it cannot do.

    Attributes:
        module: in mmgen.families, with `load(checkpoint, loading) -> Model`.
        prompter: module with `Prompter(checkpoint)` whose `check(request)` refuses before the weights are read.
        draws_with: a checkpoint that has tensors of one of these prefixes can draw.
        varies, mixes, negative_prompt, ratio: see mmgen.model.Abilities.
    """

    module: str
    prompter: str
    draws_with: tuple[str, ...]
    varies: bool = True
    mixes: bool = True
    negative_prompt: bool = False
    ratio: bool = False


_FAMILIES = {
    "chameleon": Family("chameleon", prompter="chameleon_prompt", draws_with=("model.vqmodel.decoder.",)),
    "emu3": Family(
        "emu3",
        prompter="emu3",
        draws_with=("model.vqmodel.decoder.", "vqmodel.decoder."),
        varies=False,
        mixes=False,
        negative_prompt=True,
        ratio=True,
    ),
    "janus": Family("janus", prompter="janus", draws_with=("model.vqmodel.decoder.",), varies=False, mixes=False),
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
        MmgenError: not found, not a checkpoint, of an unknown family, or unable to do what is wanted.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    family = _FAMILIES.get(checkpoint.model_type)
    able = abilities(checkpoint)
    able.check(name, want, requests)
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
    model.abilities = able
    return model


def abilities(checkpoint: Checkpoint) -> Abilities:
    """Say what a checkpoint can be asked for, from its family and its tensors' names."""
    family = _FAMILIES.get(checkpoint.model_type)
    if family is None:
        return Abilities(WORDS, varies=False, mixes=False)
    draws = any(tensor.startswith(family.draws_with) for tensor in checkpoint.tensors)
    return Abilities(BOTH if draws else WORDS, family.varies, family.mixes, family.negative_prompt, family.ratio)
