"""Chameleon's and Anole's prompts: parts to ids, with images as their codes. Imports no torch, so that a prompt can be
refused before anything heavy is imported.

Layout (arXiv 2405.09818; facebookresearch/chameleon): bos, the parts in order, end-of-turn; an image is
begin-image, its codes row by row, end-of-image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmgen.decoding.grammar import Canvas, PromptIds, Vocabulary
from mmgen.errors import MmgenError
from mmgen.families.prompting import TokenPrompter
from mmgen.request import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.checkpoints.catalog import Checkpoint

_LETTERS = str.maketrans("ABCDEFGHIJ", "0123456789")


class Prompter(TokenPrompter):
    """Writes prompts for one checkpoint of model type "chameleon".

    Raises:
        MmgenError: the vocabulary is not one of this family.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = checkpoint.config
        self.context = config.get("max_position_embeddings", 4096)
        # Ids are taken from the names: those in the config vary by vintage (bos 1 instead of 0, for one).
        names = config.get("vocabulary_map")
        if not isinstance(names, dict) or not names:  # stock classes cannot do without it either
            raise MmgenError(f"{self.name}: config.json has no vocabulary_map", "is this checkpoint complete?")

        def id_of(token: str) -> int:
            return names[token] if token in names else self.token_id(token)

        side = math.isqrt(count_codes(config))
        self.end_of_turn = id_of("<reserved08706>")
        self.vocabulary = v = Vocabulary(
            size=config.get("vocab_size", 65536),
            bos=id_of("<s>"),
            ends=frozenset([id_of("</s>")]),
            begin_image=id_of("<racm3:break>"),
            end_image=id_of("<eoss>"),
            placeholder=id_of("<image>"),
            code_ids=read_code_ids(names, (config.get("vq_config") or {}).get("num_embeddings", 8192)),
            canvas=Canvas(side, side),
        )
        others = (self.tokenizer.token_to_id(token) for token in ("<pad>", "<unk>"))
        marks = (v.bos, *v.ends, self.end_of_turn, v.begin_image, v.end_image, v.placeholder, *others, *v.code_ids)
        self.structural = frozenset(id_ for id_ in marks if id_ is not None)

    def image_length(self, image: Image.Image) -> int:
        """Say how many ids an image in a prompt takes: the same for all."""
        return self.vocabulary.canvas.n_codes + 2

    def grid(self, image: Image.Image) -> tuple[int, int]:
        """Say how many rows and columns of codes an image in a prompt is: the same for all."""
        return self.vocabulary.canvas.rows, self.vocabulary.canvas.columns

    def image_ids(self, encoded: Sequence[Sequence[int]]) -> list[int]:
        """Write an image, given its rows of codes, as it stands in a prompt."""
        v = self.vocabulary
        return [v.begin_image, *(v.code_ids[code] for row in encoded for code in row), v.end_image]

    def lay_out(self, request: Request, images: Sequence[Sequence[int]]) -> PromptIds:
        """Write a request's prompt: every turn but the last ends, and that too unless it is to be continued."""
        if any(turn.role == "system" for turn in request.history) or request.template_args:
            raise MmgenError(f"{self.name} was made without a chat template and system prompts", "leave them out")
        ids, waiting = [self.vocabulary.bos], iter(images)
        for turn in request.turns:
            for part in turn.parts:
                ids += self.text_ids(part) if isinstance(part, str) else next(waiting)
            ids.append(self.end_of_turn)
        return PromptIds(tuple(ids[:-1] if request.completion else ids), tuple(map(tuple, images)))


def read_code_ids(names: Mapping[str, int], n_embeddings: int) -> tuple[int, ...]:
    """Find the id of each VQ code in a Chameleon vocabulary.

    Code c is named IMGIMG + the decimal digits of c as letters (A=0 ... J=9) + Z
    (transformers, models/chameleon/modeling_chameleon.py, ChameleonImageVocabularyMapping).

    Raises:
        MmgenError: the names are not one for each code.
    """
    ids = {int(name[6:-1].translate(_LETTERS)): id_ for name, id_ in names.items() if name.startswith("IMGIMG")}
    if sorted(ids) != list(range(n_embeddings)) or len(set(ids.values())) != n_embeddings:
        message = f"config.json names {len(ids)} image codes, the codebook has {n_embeddings}"
        raise MmgenError(message, "is this checkpoint complete?")
    return tuple(ids[code] for code in range(n_embeddings))


# --- sizes, by the config ------------------------------------------------------------------------------------------


_MAPS = 6  # of an image's full size that the decoder holds at once in float32, as measured for Chameleon's


def count_codes(config: Mapping[str, Any]) -> int:
    """Count the codes of a square image: each level of the VQ but the first halves its sides."""
    vq, widths = _read(config)
    side: int = vq.get("resolution", 512) // 2 ** (len(widths) - 1)
    return side * side


def decoder_bytes(config: Mapping[str, Any], n_codes: int) -> int:
    """Say how many bytes the decoder takes in passing for an image of so many codes."""
    vq, widths = _read(config)
    n_pixels = n_codes * 4 ** (len(widths) - 1)
    return int(_MAPS * 4 * n_pixels * widths[0] * vq.get("base_channels", 128))


def _read(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[int]]:
    vq = config.get("vq_config") or {}
    return vq, vq.get("channel_multiplier") or (1, 1, 2, 2, 4)
