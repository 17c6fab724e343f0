"""What the tests of chatting checkpoints share: open one, ask it, copy it with a fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmgen import families
from mmgen.checkpoints import catalog
from mmgen.families.chat import Chat
from mmgen.request import Done, Loading, Request, TextSampling

N_TOKENS = 12
SHORT = TextSampling(max_tokens=N_TOKENS)
FLAT = TextSampling(temperature=1.0, top_p=1.0, max_tokens=N_TOKENS)


def opened(folder: Path, *requests: Request, **loading: Any) -> Chat:
    chosen = Loading(**{"dtype": "float32", "device_map": "cpu"} | loading)
    found = families.open_model(catalog.find(str(folder)), chosen, requests=requests)
    assert isinstance(found, Chat)
    return found


def image(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def gathered(model: Chat, requests: list[Request]) -> list[Any]:
    found: list[Any] = ["" for _ in requests]
    ended = set()
    for index, piece in model.replies(requests):
        assert index not in ended
        if isinstance(piece, str):
            found[index] += piece
        else:
            ended.add(index)
            if not isinstance(piece, Done):
                found[index] = piece
    assert ended == set(range(len(requests)))
    return found


def copied(folder: Path, new: Path, without: str | None = None, **changes: Any) -> Path:
    """Copy a checkpoint, without a file, with changes to its config."""
    shutil.copytree(folder, new)
    if without:
        (new / without).unlink()
    if changes:
        config = json.loads((new / "config.json").read_text()) | changes
        (new / "config.json").write_text(json.dumps(config))
    return new
