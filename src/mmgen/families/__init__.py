"""Which family opens which checkpoint, and what it can give. Without torch: a family's module is imported on demand.

A model type without a family of its own is left to `chat`, which takes it by its chat template and its processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from mmgen.checkpoints import catalog, fit, machine
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.decoding.grammar import count_codes
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, WORDS, Kind, Loading, Request


@dataclass(frozen=True)
class Family:
    """How one family is opened, and what it can do.

    Attributes:
        module: in mmgen.families, with `load(checkpoint, loading, abilities, prompter, requests) -> Model`.
        prompter: module with `Prompter(checkpoint)` whose `check(request)` refuses before the weights are read.
        abilities: of a checkpoint that can draw.
        draws_with: a checkpoint that has tensors of one of these prefixes can draw.
        picture_tokens: how many tokens a picture is that it draws, by its config.
    """

    module: str
    prompter: str
    abilities: Abilities
    draws_with: tuple[str, ...] = ()
    picture_tokens: Callable[[Mapping[str, Any]], int] = lambda config: 0


_DECODER = "model.vqmodel.decoder."  # of pictures, from their codes
_FAMILIES = {
    "chameleon": Family(
        "chameleon", "chameleon_prompt", Abilities(), draws_with=(_DECODER,), picture_tokens=count_codes
    ),
    "emu3": Family(
        "emu3",
        "emu3",
        Abilities(varies=False, mixes=False, negative_prompt=True, ratio=True),
        draws_with=(_DECODER, "vqmodel.decoder."),
        picture_tokens=lambda config: 90 * 91,  # of the usual 720 x 720 pixels; each row ends with a token of its own
    ),
    "janus": Family(
        "janus",
        "janus",
        Abilities(varies=False, mixes=False),
        draws_with=(_DECODER,),
        picture_tokens=lambda config: (config.get("vision_config") or {}).get("num_image_tokens", 576),
    ),
}
_CHAT = Family("chat", "chat_inputs", Abilities(WORDS))  # all others, as far as their templates and processors say
_GUIDANCE_ROWS = 3  # of a picture under way, at most
_MAPS = 6  # of a picture's full size that its decoder holds at once in float32, as measured for Chameleon's


def open_model(
    checkpoint: Checkpoint,
    loading: Loading,
    want: frozenset[Kind] = WORDS,
    requests: Sequence[Request] = (),
    before_torch: Callable[[], None] = machine.check_torchvision,
) -> Model:
    """Open a checkpoint, having checked first, without its weights, that it can do what is wanted.

    Args:
        want: what has to come out of it.
        requests: what it will be asked first, if known: a prompt that is too long fails before anything heavy, and
            what only pictures need may be left out if there are none.
        before_torch: is called before anything heavy is imported.

    Raises:
        MmgenError: of an unknown family, unable to do what is wanted, or too large.
    """
    family, able = _family(checkpoint), abilities(checkpoint)
    able.check(checkpoint.name, want, requests)
    if loading.fit_check and checkpoint.n_bytes > fit.SMALL:
        fit.check(checkpoint, loading, machine.look(with_gpus=loading.device_map != "cpu"), reply(checkpoint, want))
    catalog.check_tokenizer(checkpoint)
    before_torch()
    prompter = import_module(f"mmgen.families.{family.prompter}").Prompter(checkpoint)
    for request in requests:
        prompter.check(request)
    module = import_module(f"mmgen.families.{family.module}")
    model: Model = module.load(checkpoint, loading, able, prompter, requests)
    return model


def abilities(checkpoint: Checkpoint) -> Abilities:
    """Say what a checkpoint can be asked for, from its family and its tensors' names."""
    family = _family(checkpoint)
    draws = any(tensor.startswith(family.draws_with) for tensor in checkpoint.tensors)
    return family.abilities if draws else replace(family.abilities, gives=WORDS)


def reply(checkpoint: Checkpoint, want: frozenset[Kind]) -> fit.Reply:
    """Say what a reply may take: the cache of all guidance rows together, and what decodes a picture."""
    if "image" not in want:
        return fit.USUAL
    config = checkpoint.config
    n_codes = picture_tokens(checkpoint)
    if want == BOTH:  # as long as it likes, and every row has room for all of it
        n_tokens = _GUIDANCE_ROWS * int(config.get("max_position_embeddings", 4096))
    else:
        n_tokens = fit.TOKENS + _GUIDANCE_ROWS * n_codes
    vq = config.get("vq_config") or {}
    widths = vq.get("channel_multiplier") or (1, 1, 2, 2, 4)  # each level but one doubles height and width
    n_values = n_codes * 4 ** (len(widths) - 1) * widths[0] * vq.get("base_channels", 128)
    return fit.Reply(n_tokens, _MAPS * 4 * n_values)


def picture_tokens(checkpoint: Checkpoint) -> int:
    """Say how many tokens a picture is that a checkpoint draws; 0 if it draws none."""
    return _family(checkpoint).picture_tokens(checkpoint.config) if "image" in abilities(checkpoint).gives else 0


def _family(checkpoint: Checkpoint) -> Family:
    return _FAMILIES.get(checkpoint.model_type, _CHAT)
