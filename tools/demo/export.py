"""Write the checkpoint folder: configs, processor, tokenizer, weights in bfloat16. Stock formats only."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    ChameleonProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from .model import CONTEXT, model_config
from .render import SIZE
from .tokenizer import BOS, END_IMAGE, EOS, FIRST_CODE, PAD
from .vq_model import VQ

CODES_PER_PICTURE = (SIZE // 8) ** 2
VQ_PREFIX = "model.vqmodel."
CODE_LOGITS = 0.7  # their scale: sampled at mmgen's temperature of 0.7, codes then come as they were trained, at 1


def rounded(vq: VQ) -> VQ:
    """Round weights to bfloat16 values in place, so that codes do not change when they are stored."""
    with torch.no_grad():
        for tensor in vq.state_dict().values():
            tensor.copy_(tensor.bfloat16().float())
    return vq


def export(folder: Path, tokenizer: PreTrainedTokenizerFast, vq: VQ, weights: Mapping[str, Tensor], card: str) -> None:
    """Write everything to a fresh folder, then put it in the place of the old one.

    Args:
        weights: of the transformer, by their names in ChameleonForConditionalGeneration.
        card: README.md.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    config = model_config(tokenizer)
    config.architectures = ["ChameleonForConditionalGeneration"]
    config.dtype = "bfloat16"
    config.save_pretrained(fresh)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=128).save_pretrained(fresh)
    image_processor = ChameleonImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_convert_rgb=True
    )
    ChameleonProcessor(image_processor, tokenizer, image_seq_length=CODES_PER_PICTURE).save_pretrained(fresh)
    image_processor.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    tensors = {VQ_PREFIX + name: t for name, t in vq.state_dict().items()} | dict(weights)
    head = tensors["lm_head.weight"].clone()
    head[FIRST_CODE:END_IMAGE] *= CODE_LOGITS
    tensors["lm_head.weight"] = head
    save_file(
        {name: tensors[name].detach().bfloat16().contiguous() for name in sorted(tensors)},
        fresh / "model.safetensors",
        {"format": "pt"},
    )
    (fresh / "model.safetensors").chmod(0o644)
    (fresh / "README.md").write_text(card, "utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def check_stock(folder: Path) -> None:
    """Fail unless stock transformers loads the folder with exactly the decoder unexpected, and nothing missing."""
    model, report = ChameleonForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    unexpected = {name for name in report["unexpected_keys"] if not name.startswith(f"{VQ_PREFIX}decoder.")}
    names = json.dumps(sorted(unexpected | set(report["missing_keys"]) | set(map(str, report["mismatched_keys"]))))
    if names != "[]":
        raise SystemExit(f"the checkpoint does not fit stock transformers: {names}")
    processor = ChameleonProcessor.from_pretrained(folder)
    first = processor.tokenizer("a red cat").input_ids[0]
    found = (first, processor.image_seq_length, model.config.max_position_embeddings)
    if found != (BOS, CODES_PER_PICTURE, CONTEXT):
        raise SystemExit("the checkpoint's processor does not load as it was saved")
