"""Which family opens which checkpoint, and what it can give. Without torch: a family's module is imported on demand.

A model type without a family of its own is left to `chat`, which takes it by its chat template and its processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from mmgen.checkpoints import catalog, fit
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.errors import MmgenError, unexpected
from mmgen.families import chameleon_prompt, plain
from mmgen.families.standing import refuse_others
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, WORDS, Kind, Loading, Request
from mmgen.tasks import scaled


@dataclass(frozen=True)
class Family:
    """How one family is opened, and what it can do.

    Attributes:
        module: in mmgen.families, with `load(checkpoint, loading, abilities, prompter, requests) -> Model`.
        abilities: of a checkpoint that can draw.
        prompter: module with `Prompter(checkpoint)` whose `check(request)` refuses before the weights are read.
        image_tokens: how many tokens an image is that it draws, by its config.
        codec: in the names of its image codec's tensors, which stay in float32; those of the decoder are `decoder.`
            within it.
    """

    module: str
    abilities: Abilities
    prompter: str
    image_tokens: Callable[[Mapping[str, Any]], int] = lambda config: 0
    codec: str = "vqmodel."


_JUDGE = "Does this picture show {}? Answer yes or no."
_FAMILIES = {
    "chameleon": Family("chameleon", Abilities(), "chameleon_prompt", chameleon_prompt.count_codes),
    "emu3": Family(
        "emu3",
        Abilities(varies=False, mixes=False, negative_prompt=True, ratio=True, judge=_JUDGE),
        "emu3",
        lambda config: 90 * 91,  # of the usual 720 x 720 pixels; each row ends with a token of its own
    ),
    "janus": Family(
        "janus",
        Abilities(varies=False, mixes=False, judge=_JUDGE),
        "janus",
        lambda config: (config.get("vision_config") or {}).get("num_image_tokens", 576),
    ),
}
_CAPTIONER = Family("captioner", Abilities(WORDS), "captioner")  # those that have no chat template
_CHAT = Family("chat", Abilities(WORDS), "chat_prompter")  # all others, as far as their templates and processors say
_GUIDANCE_ROWS = 3  # of an image under way, at most


def open_model(
    checkpoint: Checkpoint,
    loading: Loading,
    want: frozenset[Kind] = WORDS,
    requests: Sequence[Request] = (),
    before_torch: Callable[[], None] = fit.check_torchvision,
) -> Model:
    """Open a checkpoint, having checked first, without its weights, that it can do what is wanted.

    Args:
        want: what has to come out of it.
        requests: what it will be asked first, if known, in the same words: a prompt that is too long fails before
            anything heavy, of several by its words alone; and what only pictures need may be left out if there are
            none.
        before_torch: is called before anything heavy is imported.

    Raises:
        MmgenError: of an unknown family, unable to do what is wanted, or too large.
    """
    if checkpoint.model_type not in _FAMILIES:
        refuse_others(checkpoint.name, checkpoint.model_type)
    family, able = _family(checkpoint), abilities(checkpoint)
    able.check(checkpoint.name, want, requests)
    if loading.fit_check and checkpoint.n_bytes > fit.SMALL:
        fit.check(checkpoint, loading, fit.look(with_gpus=loading.device_map != "cpu"), reply(checkpoint, want))
    catalog.check_tokenizer(checkpoint)
    before_torch()
    if loading.max_pixels is not None:
        requests = [scaled(request, loading.max_pixels) for request in requests]
    try:
        prompter = import_module(f"mmgen.families.{family.prompter}").Prompter(checkpoint)
        for request in requests[:1]:
            prompter.check(request if len(requests) == 1 else request.without_images())
        loads = import_module(f"mmgen.families.{family.module}").load
        model: Model = loads(checkpoint, loading, able, prompter, requests)
    except MmgenError:
        raise
    except Exception as failure:  # the net: libraries raise what they like over a damaged checkpoint
        raise unexpected(f"{checkpoint.name} cannot be opened: ", failure) from failure
    return model


def abilities(checkpoint: Checkpoint) -> Abilities:
    """Say what a checkpoint can be asked for, from its family and its tensors' names."""
    family = _family(checkpoint)
    if family is _CAPTIONER:
        return replace(family.abilities, asks=plain.ROWS[checkpoint.model_type].asks)
    draws = any(f"{family.codec}decoder." in tensor for tensor in checkpoint.tensors)
    return family.abilities if draws else replace(family.abilities, gives=WORDS)


def reply(checkpoint: Checkpoint, want: frozenset[Kind]) -> fit.Reply:
    """Say what a reply may take: the cache of all guidance rows together, and what decodes a picture."""
    codec, n_codes = _family(checkpoint).codec, picture_tokens(checkpoint)
    if "image" not in want:
        return fit.Reply(codec=codec)
    if want == BOTH:  # as long as it likes, and every row has room for all of it
        n_tokens = _GUIDANCE_ROWS * int(checkpoint.config.get("max_position_embeddings", 4096))
    else:
        n_tokens = fit.TOKENS + _GUIDANCE_ROWS * n_codes
    return fit.Reply(n_tokens, chameleon_prompt.decoder_bytes(checkpoint.config, n_codes), codec)


def picture_tokens(checkpoint: Checkpoint) -> int:
    """Say how many tokens a picture is that a checkpoint draws; 0 if it draws none."""
    return _family(checkpoint).image_tokens(checkpoint.config) if "image" in abilities(checkpoint).gives else 0


def _family(checkpoint: Checkpoint) -> Family:
    return _FAMILIES.get(checkpoint.model_type) or (_CHAT if plain.row(checkpoint) is None else _CAPTIONER)
