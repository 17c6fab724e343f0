"""Chameleon's and Anole's prompts: parts to ids, with pictures as their codes. Without torch, so that a prompt can be
refused before anything heavy is imported.

Layout (arXiv 2405.09818; facebookresearch/chameleon): bos, the parts in order, end-of-turn; a picture is
begin-image, its codes row by row, end-of-image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from mmgen.decoding.grammar import Prompt, Vocabulary, read_code_ids
from mmgen.errors import MmgenError, TooLongError
from mmgen.request import Part, Request

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.catalog import Checkpoint

_END_OF_TURN = "<reserved08706>"


class Prompter:
    """Writes prompts for one checkpoint.

    Args:
        checkpoint: of model type "chameleon".

    Raises:
        MmgenError: the vocabulary is not one of this family.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # what a user types is text, "</s>" too
        self.context: int = checkpoint.config.get("max_position_embeddings", 4096)
        self.vocabulary = _read_vocabulary(checkpoint, self._tokenizer)
        structural = {self._tokenizer.token_to_id(token) for token in ("<pad>", "<unk>")} - {None}
        v = self.vocabulary
        self._structural = structural | {v.bos, v.eos, v.end_of_turn, v.begin_image, v.end_image, v.placeholder}
        self._structural.update(v.code_ids)

    def write(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> Prompt:
        """Write a request's prompt.

        Args:
            encode: picture -> its codes, row-major.

        Raises:
            TooLongError: too long for the context.
        """
        self.check(request)
        v = self.vocabulary
        ids, pictures = [v.bos], []
        for parts, ends in self._turns(request):
            for part in parts:
                if isinstance(part, str):
                    ids += self.text_ids(part)
                else:
                    codes = [v.code_ids[code] for code in encode(part)]
                    pictures.append((v.begin_image, *codes, v.end_image))
                    ids += pictures[-1]
            if ends:
                ids.append(v.end_of_turn)
        return Prompt(tuple(ids), tuple(pictures))

    def check(self, request: Request) -> None:
        """Raise TooLongError if the prompt and the least that is wanted do not fit into the context."""
        v = self.vocabulary
        length = 1
        for parts, ends in self._turns(request):
            length += ends
            length += sum(len(self.text_ids(part)) if isinstance(part, str) else v.picture_length for part in parts)
        least = 1 if "text" in request.want else v.picture_length
        if length + least > self.context:
            raise TooLongError(length, least, self.context, in_conversation=bool(request.history))

    def text_ids(self, text: str) -> list[int]:
        """Turn typed text into ids; no id with a structural meaning ever comes out."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in self._structural and end - start > 1:
                # An added token that the tokenizer does not know as special: split the text inside it.
                middle = (start + end) // 2
                return self.text_ids(text[:middle]) + self.text_ids(text[middle:])
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn words' ids into text, without the special ones."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _turns(self, request: Request) -> list[tuple[tuple[Part, ...], bool]]:
        """List the parts of each turn and whether an end-of-turn follows."""
        return [*((turn.parts, True) for turn in request.history), (request.parts, not request.completion)]


def _read_vocabulary(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Vocabulary:
    """Take ids from the names: those in the config vary by vintage (bos 1 instead of 0, for one)."""
    config = checkpoint.config
    names: dict[str, int] = config.get("vocabulary_map") or {}
    if not isinstance(names, dict) or not names:  # stock classes cannot do without it either
        raise MmgenError(f"{checkpoint.name}: config.json has no vocabulary_map", "is this checkpoint complete?")
    special = _read_json(checkpoint.folder / "tokenizer_config.json")

    def id_of(name: str) -> int:
        id_ = names.get(name, tokenizer.token_to_id(name))
        if id_ is None:
            raise MmgenError(f"{checkpoint.name}: the vocabulary has no {name}", "is this checkpoint complete?")
        return id_

    def named(key: str, otherwise: str) -> int:
        entry = special.get(key) or otherwise
        return id_of(entry["content"] if isinstance(entry, dict) else entry)

    vq = config.get("vq_config") or {}
    halvings = len(vq.get("channel_multiplier", (1, 1, 2, 2, 4))) - 1
    side = vq.get("resolution", 512) // 2**halvings
    try:
        code_ids = read_code_ids(names, vq.get("num_embeddings", 8192))
    except ValueError as error:
        raise MmgenError(f"{checkpoint.name}: {error}", "is this checkpoint complete?") from error
    return Vocabulary(
        size=config.get("vocab_size", 65536),
        bos=named("bos_token", "<s>"),
        eos=named("eos_token", "</s>"),
        end_of_turn=named("sep_token", _END_OF_TURN),
        begin_image=id_of("<racm3:break>"),
        end_image=id_of("<eoss>"),
        placeholder=id_of("<image>"),
        code_ids=code_ids,
        n_codes=side * side,
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
