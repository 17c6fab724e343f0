"""Tiny random checkpoints of many model types of transformers, with their real classes and without meaning.

A type is a file of tests/support/types: the small files of a checkpoint, as the Hub has them, the tokens of its
tokenizer, and its answers as plain transformers gave them, with torchvision installed and Pillow's image processor.
`python -m tests.support.many_types` writes those anew; it needs a torchvision that can be imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import GenerationConfig, PreTrainedModel

from tests.support.chat_checkpoints import make_tokenizer
from tests.support.replies import image, without_end

_TABLE = Path(__file__).with_name("types")
TYPES = sorted(path.stem for path in _TABLE.glob("*.json"))
CHATS = [name for name in TYPES if "answers" in json.loads((_TABLE / f"{name}.json").read_text())]

QUESTION = "What do these show?"
N_TOKENS = 10
_WIDE = 0.15  # standard deviation of the weights: wide enough that random logits are no near ties


def _blocks(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw a picture of large blocks of colours: unlike noise, it is another one after any averaging, too."""
    return image(seed, (4, 3)).resize(size, Image.Resampling.NEAREST)


PICTURES = {
    "one": [_blocks(1, (64, 48))],
    "other": [_blocks(2, (64, 48))],
    "two": [_blocks(1, (64, 48)), _blocks(3, (50, 70))],
    "none": [],
    "grey": [_blocks(4, (40, 40)).convert("L").convert("RGB")],
    "thin": [_blocks(5, (300, 20))],
}


@cache
def row(name: str) -> dict[str, Any]:
    """Read what the table says of a type."""
    found: dict[str, Any] = json.loads((_TABLE / f"{name}.json").read_text())
    return found


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint of a type, as a download of it would look."""
    about = row(name)
    folder.mkdir(parents=True, exist_ok=True)
    # 1) The tokenizer: the tokens of the table, those that are numbered as a pattern and how many
    tokens = [
        each if isinstance(each, str) else [each["like"].format(n) for n in range(each["n"])]
        for each in about["tokens"]
    ]
    flat = [token for each in tokens for token in ([each] if isinstance(each, str) else each)]
    make_tokenizer(flat, adds_bos=about["adds_bos"], **about["named"]).save_pretrained(folder)
    # 2) The processor's files
    (folder / "processor_config.json").write_text(json.dumps(about["processor"]))
    if about["template"] is not None:
        (folder / "chat_template.jinja").write_text(about["template"])
    # 3) The weights
    network = getattr(transformers, about["config"]["architectures"][0])
    torch.manual_seed(0)
    model: PreTrainedModel = network(network.config_class.from_dict(about["config"])).eval()
    generator = torch.Generator().manual_seed(about.get("seed", 1))
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, _WIDE, generator=generator)
            elif "gate" in part:
                parameter.fill_(1.0)
    model.generation_config = GenerationConfig(**about["generation"])
    model.save_pretrained(folder)
    return folder


def plain_answer(model: Any, processor: Any, images: Sequence[Image.Image], arguments: dict[str, Any]) -> list[int]:
    """Ask as transformers' chat guide does (docs/source/en/chat_templating_multimodal.md); ids without an end."""
    content = [*({"type": "image", "image": each} for each in images), {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **arguments,
    )
    out = model.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)
    ends = model.generation_config.eos_token_id
    ids = [int(id_) for id_ in out[0, inputs["input_ids"].shape[1] :]]
    return without_end(ids, ends if isinstance(ends, list) else [ends])


def main() -> None:
    """Write the answers of all types with a chat template."""
    import tempfile

    import torchvision  # noqa: F401 -- the answers are those of an installation that has it

    for name in TYPES:
        if row(name)["template"] is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            build(name, Path(folder))
            processor = transformers.AutoProcessor.from_pretrained(folder)
            processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
            model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
            answers: dict[str, Any] = {}
            for case, images in PICTURES.items():
                try:
                    answers[case] = plain_answer(model, processor, images, row(name).get("arguments", {}))
                except RuntimeError as error:  # transformers itself cannot take it
                    answers[case] = str(error).splitlines()[0]
            about = {key: value for key, value in row(name).items() if key != "answers"}
            text = json.dumps(about, indent=1, ensure_ascii=False)[:-2]
            lines = ",\n".join(f"  {json.dumps(case)}: {json.dumps(ids)}" for case, ids in answers.items())
            (_TABLE / f"{name}.json").write_text(f'{text},\n "answers": {{\n{lines}\n }}\n}}\n')
            print(name, {case: ids if isinstance(ids, str) else len(ids) for case, ids in answers.items()})


if __name__ == "__main__":
    main()
