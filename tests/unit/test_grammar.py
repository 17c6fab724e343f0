"""The token grammar as a property: whatever a network says, words and pictures come out whole."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen.codes import Maker
from mmgen.decoding.grammar import Canvas, PromptIds, Vocabulary
from mmgen.decoding.replies import LanguageModel, draw, generate_text, interleave
from mmgen.decoding.stepwise import Cache, Network
from mmgen.errors import MmgenError
from mmgen.families.chameleon_prompt import read_code_ids
from mmgen.request import BOTH, PICTURES, WORDS, Done, ImageSampling, Picture, Progress, Request, TextSampling

N = 4  # codes in a picture
CODES = (9, 4, 7, 6, 5)  # ids of codes 0..4, in no order
V = Vocabulary(
    size=20,
    bos=0,
    ends=frozenset([2]),
    begin_image=11,
    end_image=10,
    placeholder=13,
    code_ids=CODES,
    canvas=Canvas(2, 2),
)


class Babble:
    """A network that says anything, by a hash of the last id and its position; it notes what each row is fed."""

    def __init__(self, seed: int, urge: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(20, 300, 16, generator=generator)
        self.weight = torch.randn(16, 20, generator=generator) * 2
        self.urge = urge
        self.fed: dict[int, list[int]] = {}

    def body(self, ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        for row, line, places in zip(cache.rows, ids.tolist(), positions.tolist(), strict=True):
            self.fed.setdefault(row, []).extend(line)
            assert places[-1] < cache.capacity
        return self.table[ids, positions]

    def head(self, hidden: Tensor) -> Tensor:
        logits = hidden @ self.weight
        logits[:, V.begin_image] += self.urge
        logits[:, list(V.ends)] -= 10 * self.urge
        return logits

    def language_model(self, context: int) -> LanguageModel:
        code_ids = torch.tensor(CODES)
        network = Network(self.body, self.head, lambda hidden: (hidden @ self.weight)[..., code_ids], code_ids)
        return LanguageModel(
            network,
            V,
            context,
            lambda ids: "".join(chr(97 + id_) for id_ in ids),
            lambda codes: torch.zeros(1, 3, 2, 2),
            lambda: Maker("c", "d", len(CODES), "float32"),
            window=1,  # so that what is fed is what was chosen
        )


def request(want: frozenset, seed: int, max_tokens: int) -> Request:
    text = TextSampling(temperature=1.0, top_p=1.0, max_tokens=max_tokens)
    return Request(parts=("x",), want=want, text=text, image=ImageSampling(temperature=1.0, top_p=1.0), seed=seed)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    context=st.integers(2, 60),
    n_prompt=st.integers(1, 10),
    max_tokens=st.integers(1, 40),
    urge=st.floats(0, 20),
)
def test_words_and_pictures_come_whole_and_within_the_context(
    seed: int, context: int, n_prompt: int, max_tokens: int, urge: float
) -> None:
    n_prompt = min(n_prompt, context - 1)
    network = Babble(seed, urge)
    prompt = PromptIds((V.bos,) + (14,) * (n_prompt - 1))
    pieces = [
        piece for _, piece in interleave(network.language_model(context), [request(BOTH, seed, max_tokens)], [prompt])
    ]

    fed = network.fed[0]
    assert len(fed) <= context
    assert fed[:n_prompt] == list(prompt.ids), "the prompt is fed once, and first"
    said = "".join(
        "B" if id_ == V.begin_image else "E" if id_ == V.end_image else "c" if id_ in CODES else "w"
        for id_ in fed[n_prompt:]
    )
    assert re.fullmatch(rf"(w*Bc{{{N}}}E)*w*", said), said
    pictures = [piece for piece in pieces if isinstance(piece, Picture)]
    assert len(pictures) == said.count("B")
    assert [picture.seed for picture in pictures] == [seed + k for k in range(len(pictures))]
    fed_codes = [CODES.index(id_) for id_ in fed if id_ in CODES]
    assert fed_codes == [code for picture in pictures for code in picture.codes]


def test_the_main_row_is_never_fed_twice() -> None:
    network = Babble(3, urge=4.0)
    pieces = [
        piece
        for _, piece in interleave(network.language_model(200), [request(BOTH, 1, 60)], [PromptIds((V.bos, 14, 14))])
    ]
    pictures = [piece for piece in pieces if isinstance(piece, Picture)]
    assert len(pictures) >= 3
    words = sum(len(piece) for piece in pieces if isinstance(piece, str))
    # bos and the prompt, each word (begin-image is one), and of each picture its codes and end.
    # The last word is not fed, unless it began a picture.
    assert 3 + words + len(pictures) * (N + 1) - len(network.fed[0]) in (0, 1)
    # The guidance rows restart: row 1 holds all pictures so far, so from the second picture on it is fed them again.
    assert len(network.fed[1]) > len(pictures) * (N + 1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), context=st.integers(4, 40), n_rows=st.integers(1, 4))
def test_words_alone_never_hold_a_picture(seed: int, context: int, n_rows: int) -> None:
    network = Babble(seed, urge=20.0)
    prompts = [PromptIds((V.bos,) + (14,) * row) for row in range(min(n_rows, context - 1))]
    requests = [request(WORDS, seed + row, 30) for row in range(len(prompts))]
    for index, piece in generate_text(network.language_model(context), requests, prompts):
        if isinstance(piece, Done):
            assert piece.reason in ("end", "length")
            continue
        assert not set(piece) & {chr(97 + id_) for id_ in (*CODES, V.begin_image, V.end_image, V.placeholder)}
        assert 0 <= index < len(prompts)


def test_a_picture_is_all_that_draw_gives() -> None:
    network = Babble(0, urge=0.0)
    pieces = [
        piece for _, piece in draw(network.language_model(30), [request(PICTURES, 5, 9)], [PromptIds((V.bos, 14))])
    ]
    assert [type(piece).__name__ for piece in pieces] == ["Progress"] * N + ["Picture", "Done"]
    assert len(pieces[-2].codes) == N == pieces[-1].n_tokens


@pytest.mark.parametrize("names", [{"IMGIMGAZ": 4}, {"IMGIMGAZ": 4, "IMGIMGBZ": 4}, {"IMGIMGAZ": 4, "IMGIMGCZ": 5}])
def test_a_vocabulary_that_does_not_name_each_code_once_is_refused(names: dict[str, int]) -> None:
    with pytest.raises(MmgenError, match="image codes"):
        read_code_ids(names, 2)


@given(st.permutations(range(23)))
def test_a_shuffled_vocabulary_still_round_trips(order: list[int]) -> None:
    def name(code: int) -> str:
        return "IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"

    ids = read_code_ids({name(code): 4 + place for place, code in enumerate(order)} | {"<image>": 99}, 23)
    assert [ids.index(4 + place) for place in range(23)] == list(order)


def test_rows_of_a_picture_are_parted_and_guided_as_the_prompt_says() -> None:
    network = Babble(3, 0)
    language_model = network.language_model(60)
    prompt = PromptIds((V.bos, 14, 16), unconditional=(V.bos, 17), canvas=Canvas(3, 2, 15))
    pieces = [piece for _, piece in draw(language_model, [request(PICTURES, 5, 9)], [prompt])]
    codes = pieces[-2].codes
    assert pieces[:-2] == [Progress(done, 6) for done in range(1, 7)]
    ids = [CODES[code] for code in codes]
    drawn = [*ids[:2], 15, *ids[2:4], 15, ids[4]]
    filler = 0  # the shorter row is filled up, where nothing looks
    assert network.fed[0] == [V.bos, 14, 16, V.begin_image, *drawn]
    assert network.fed[1] == [V.bos, 17, V.begin_image, filler, *drawn]
