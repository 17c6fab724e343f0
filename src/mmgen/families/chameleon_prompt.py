"""Chameleon's and Anole's prompts: parts to ids, with pictures as their codes. Without torch, so that a prompt can be
refused before anything heavy is imported.

Layout (arXiv 2405.09818; facebookresearch/chameleon): bos, the parts in order, end-of-turn; a picture is
begin-image, its codes row by row, end-of-image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mmgen.decoding.grammar import PromptIds, Vocabulary, count_codes, read_code_ids
from mmgen.errors import MmgenError
from mmgen.families.token_prompt import TokenPrompter
from mmgen.request import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.checkpoints.catalog import Checkpoint

_END_OF_TURN = "<reserved08706>"


class Prompter(TokenPrompter):
    """Writes prompts for one checkpoint of model type "chameleon".

    Raises:
        MmgenError: the vocabulary is not one of this family.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, checkpoint.config.get("max_position_embeddings", 4096))
        self.vocabulary = v = self._read_vocabulary()
        others = (self.tokenizer.token_to_id(token) for token in ("<pad>", "<unk>"))
        marks = (v.bos, v.eos, v.end_of_turn, v.begin_image, v.end_image, v.placeholder, *others)
        self.structural = frozenset(id_ for id_ in (*marks, *v.code_ids) if id_ is not None)

    def picture_length(self, image: Image.Image) -> int:
        """Say how many ids a picture in a prompt takes: the same for all."""
        return self.vocabulary.picture_length

    def picture_ids(self, codes: Sequence[int]) -> list[int]:
        """Write a picture, given its codes row by row, as it stands in a prompt."""
        v = self.vocabulary
        return [v.begin_image, *(v.code_ids[code] for code in codes), v.end_image]

    def write(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> PromptIds:
        """Write a request's prompt: every turn but the last ends, and that too unless it is to be continued."""
        v = self.vocabulary
        ids, pictures = [v.bos], []
        for turn in request.turns:
            for part in turn.parts:
                if isinstance(part, str):
                    ids += self.text_ids(part)
                else:
                    pictures.append(tuple(encode(part)))
                    ids += pictures[-1]
            ids.append(v.end_of_turn)
        if request.completion:
            ids.pop()
        self.check_length(request, len(ids), 1 if "text" in request.want else v.picture_length)
        return PromptIds(tuple(ids), tuple(pictures))

    def _read_vocabulary(self) -> Vocabulary:
        """Take ids from the names: those in the config vary by vintage (bos 1 instead of 0, for one)."""
        config, name = self.checkpoint.config, self.checkpoint.name
        names: dict[str, int] = config.get("vocabulary_map") or {}
        if not isinstance(names, dict) or not names:  # stock classes cannot do without it either
            raise MmgenError(f"{name}: config.json has no vocabulary_map", "is this checkpoint complete?")
        special = self.checkpoint.read_json("tokenizer_config.json")

        def id_of(token: str) -> int:
            id_ = names.get(token, self.tokenizer.token_to_id(token))
            if id_ is None:
                raise MmgenError(f"{name}: the vocabulary has no {token}", "is this checkpoint complete?")
            return id_

        def named(key: str, otherwise: str) -> int:
            entry = special.get(key) or otherwise
            return id_of(entry["content"] if isinstance(entry, dict) else entry)

        try:
            code_ids = read_code_ids(names, (config.get("vq_config") or {}).get("num_embeddings", 8192))
        except ValueError as error:
            raise MmgenError(f"{name}: {error}", "is this checkpoint complete?") from error
        return Vocabulary(
            size=config.get("vocab_size", 65536),
            bos=named("bos_token", "<s>"),
            eos=named("eos_token", "</s>"),
            end_of_turn=named("sep_token", _END_OF_TURN),
            begin_image=id_of("<racm3:break>"),
            end_image=id_of("<eoss>"),
            placeholder=id_of("<image>"),
            code_ids=code_ids,
            n_codes=count_codes(config),
        )
