"""Which family opens which checkpoint, and what it can give. Without torch: a family's module is imported on demand.

A model type without a family of its own is left to `chat`, which takes it by its chat template and its processor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmgen import catalog, fit, machine
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
        picture_tokens: how many tokens a picture is that it draws, by its config.
    """

    module: str
    prompter: str
    draws_with: tuple[str, ...]
    varies: bool = True
    mixes: bool = True
    negative_prompt: bool = False
    ratio: bool = False
    picture_tokens: Callable[[Mapping[str, Any]], int] = lambda config: 0


def _vq_codes(config: Mapping[str, Any]) -> int:
    """Count the codes of a picture: each level of the VQ but the first halves its sides."""
    vq = config.get("vq_config") or {}
    side: int = vq.get("resolution", 512) // 2 ** (len(vq.get("channel_multiplier", (1, 1, 2, 2, 4))) - 1)
    return side * side


_FAMILIES = {
    "chameleon": Family(
        "chameleon", prompter="chameleon_prompt", draws_with=("model.vqmodel.decoder.",), picture_tokens=_vq_codes
    ),
    "emu3": Family(
        "emu3",
        prompter="emu3",
        draws_with=("model.vqmodel.decoder.", "vqmodel.decoder."),
        varies=False,
        mixes=False,
        negative_prompt=True,
        ratio=True,
        picture_tokens=lambda config: 90 * 91,  # of the usual 720 x 720 pixels; each row ends with a token of its own
    ),
    "janus": Family(
        "janus",
        prompter="janus",
        draws_with=("model.vqmodel.decoder.",),
        varies=False,
        mixes=False,
        picture_tokens=lambda config: (config.get("vision_config") or {}).get("num_image_tokens", 576),
    ),
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
        requests: what it will be asked first, if known: a prompt that is too long fails before anything heavy, and
            what only pictures need may be left out if there are none.

    Raises:
        MmgenError: not found, not a checkpoint, of an unknown family, unable to do what is wanted, or too large.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    family = _FAMILIES.get(checkpoint.model_type)
    able = abilities(checkpoint)
    able.check(name, want, requests)
    if loading.fit_check and checkpoint.n_bytes > fit.SMALL:
        fit.check(checkpoint, loading, machine.look(), cached_tokens(checkpoint, want))
    catalog.check_tokenizer(checkpoint)
    if "torch" not in sys.modules:
        # Threads that spin while they wait make a small model up to 20 times slower on a busy machine (GNU OpenMP).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if family is not None and requests:
        prompter = import_module(f"mmgen.families.{family.prompter}").Prompter(checkpoint)
        for request in requests:
            prompter.check(request)
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


def cached_tokens(checkpoint: Checkpoint, want: frozenset[Kind]) -> int:
    """Say how many tokens the cache of one reply may hold, all guidance rows together."""
    if want == BOTH:  # as long as it likes, and every row has room for all of it
        return _GUIDANCE_ROWS * int(checkpoint.config.get("max_position_embeddings", 4096))
    return fit.TOKENS + (_GUIDANCE_ROWS * picture_tokens(checkpoint) if "image" in want else 0)


def picture_tokens(checkpoint: Checkpoint) -> int:
    """Say how many tokens a picture is that a checkpoint draws; 0 if it draws none."""
    family = _FAMILIES.get(checkpoint.model_type)
    draws = "image" in abilities(checkpoint).gives
    return family.picture_tokens(checkpoint.config) if family is not None and draws else 0
