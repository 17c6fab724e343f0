"""Pictures made of another's codes: given back where nothing changes, kept where they are to be, from every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.decoding.replies import guidance_row
from mmgen.decoding.sampling import EDITS_STREAM, Noise, choose, guidance_weights, mix
from mmgen.decoding.stepwise import Cache, extend
from mmgen.errors import MmgenError, UsageError
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.inputs.images import open_image
from mmgen.request import Edit, ImageSampling, Loading
from tests.support.every_family import DRAWING, FAMILIES
from tests.support.opening import opened
from tests.support.replies import gathered, image
from tools.demo.judge import fresh_renders

PROMPT, OTHER = "a red cat on the grass", "a blue cat on the grass"


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    model = opened("demo", Loading(dtype="float32"))
    assert isinstance(model, AutoregressiveModel)
    return model


@pytest.fixture(scope="module")
def source(model: AutoregressiveModel) -> mmgen.Drawn:
    return mmgen.draw(model, PROMPT, seed=7)[0]


def own(model: AutoregressiveModel, picture: mmgen.Drawn, folder: Path) -> Image.Image:
    return open_image(picture.save(folder / "own.png"))


@pytest.mark.parametrize("strength", [0, 0.4, 1])
def test_words_that_change_nothing_give_the_source_back(
    model: AutoregressiveModel, source: mmgen.Drawn, tmp_path: Path, strength: float
) -> None:
    picture = own(model, source, tmp_path)
    [same] = mmgen.vary(model, picture, PROMPT, strength=strength, seed=3)
    assert same.codes == source.codes
    assert same.image.tobytes() == source.image.tobytes()
    [same] = mmgen.vary(model, source, PROMPT, strength=strength, source_prompt=PROMPT, seed=4)
    assert same.codes == source.codes
    scenes, renders = fresh_renders(3, seed=5)
    for scene, render in zip(scenes, renders, strict=True):
        [code_ids] = model.prompts([tasks.ask("a", [render])])[0].images
        [same] = mmgen.vary(model, render, scene.caption, strength=strength, source_prompt=scene.caption, seed=5)
        v = model.prompter.vocabulary
        assert [v.code_ids[code] for code in same.codes or ()] == list(code_ids[1:-1])


def test_strength_0_is_the_source_whatever_the_words_say(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    [same] = mmgen.vary(model, source, "a house at night", strength=0, seed=3)
    assert (same.codes, same.kept) == (source.codes, 144)


def test_the_words_of_the_source_are_its_own_or_the_models(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    said = mmgen.vary(model, source, OTHER, strength=1, seed=3, source_prompt=PROMPT)[0]
    assert mmgen.vary(model, source, OTHER, strength=1, seed=3)[0].codes == said.codes
    [render] = fresh_renders(1, seed=5)[1]
    caption = mmgen.caption(model, render)
    said = mmgen.vary(model, render, OTHER, strength=1, seed=3, source_prompt=caption)[0]
    assert mmgen.vary(model, render, OTHER, strength=1, seed=3)[0].codes == said.codes
    [kept] = mmgen.vary(model, render, keep=6, seed=3)
    assert kept.prompt == caption
    [kept] = mmgen.vary(model, source, keep=6, seed=3)
    assert kept.prompt == PROMPT


def test_the_words_of_a_change_do_not_describe_what_came_of_it(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    [changed] = mmgen.vary(model, source, "make it blue", seed=3)
    [kept] = mmgen.vary(model, changed, keep="50%", seed=3)
    assert kept.prompt == mmgen.caption(model, changed.image)


def test_kept_rows_stay_and_the_rest_follows_step_by_step(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    [found] = mmgen.vary(model, source, OTHER, keep=5, seed=3)
    codes, expected = source.codes or (), list((source.codes or ())[: 5 * 12])
    request = tasks.draw(OTHER, seed=3)
    network, v = model.language_model.network, model.prompter.vocabulary
    weights = guidance_weights(3, 1.2, has_pictures=False)
    [prompt] = model.prompts([request])
    rows = [[*guidance_row(v, kind, prompt), *(v.code_ids[code] for code in expected)] for kind in weights]
    noise, cache = Noise(3, EDITS_STREAM), Cache(2, 200)
    for _ in expected:
        noise.row(len(v.code_ids) + 1)  # drawn where a code is kept, too

    class Rest:
        def uniform(self, size: int) -> torch.Tensor:
            return noise.uniform(size + 1)[:-1]

    with torch.inference_mode():
        hidden = extend(network, cache, range(2), rows)
        while len(expected) < 144:
            mixed = mix(network.code_head(hidden)[None], list(weights.values()))
            expected += choose(mixed, request.image, [Rest()]).tolist()  # type: ignore[list-item]  # noise all the same
            hidden = extend(network, cache, range(2), [[v.code_ids[expected[-1]]]] * 2)
    assert found.codes == tuple(expected)
    assert found.codes != codes


def test_a_small_share_keeps_a_row_at_least(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    [found] = mmgen.vary(model, source, OTHER, keep="1%", seed=3)
    assert (found.codes or ())[:12] == (source.codes or ())[:12]


@pytest.mark.parametrize("by", ["codes", "pixels"])
def test_what_a_mask_leaves_black_stays(model: AutoregressiveModel, source: mmgen.Drawn, by: str) -> None:
    mask = Image.new("L", (12, 12))
    mask.paste(255, (4, 4, 8, 8))
    if by == "pixels":
        mask = Image.new("RGB", (96, 96))
        mask.paste((200, 200, 200), (33, 33, 57, 64))  # touches codes 4 to 7 of each direction
    [found] = mmgen.vary(model, source, OTHER, mask=mask, seed=3)
    places = [place for place, (a, b) in enumerate(zip(found.codes or (), source.codes or (), strict=True)) if a != b]
    assert places
    assert {(place // 12 in range(4, 8), place % 12 in range(4, 8)) for place in places} == {(True, True)}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"strength": 2}, "strength 2 is out of range"),
    ({"strength": 0.5, "temperature": 0}, "a picture cannot be edited at temperature 0"),
    ({"keep": "0"}, "--keep 0 is no number of rows"),
    ({"keep": "many"}, "--keep many is no number of rows"),
    ({"keep": 12}, "--keep 12 leaves nothing to draw"),
    ({"keep": "100%"}, "--keep 100% leaves nothing to draw"),
    ({"drafts": 0, "mask": Image.new("L", (12, 12), 255)}, "drafts 0 is out of range"),
    ({"drafts": 2}, "--drafts is about --mask"),
    ({"drafts": 2, "strength": 1, "mask": Image.new("L", (12, 12), 255)}, "--drafts is about --mask"),
    ({"mask": Image.new("L", (13, 12), 255)}, "the mask is 13 x 12"),
    ({"mask": Image.new("L", (12, 12))}, "the mask has no white"),
    ({"source_prompt": " "}, "--from is empty"),
    ({"source_prompt": "a \udcff cat"}, "--from is not UTF-8 text"),
    ({"source_prompt": "a cat " * 3000, "strength": 1}, "tokens"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_edited_is_refused(
    model: AutoregressiveModel, source: mmgen.Drawn, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(MmgenError, match=message):
        mmgen.vary(model, source, OTHER, **given)


def test_an_edit_needs_words_to_follow(model: AutoregressiveModel, source: mmgen.Drawn) -> None:
    with pytest.raises(UsageError, match="--strength needs words"):
        mmgen.vary(model, source, strength=0.5)


# --- every family -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWING)
def test_every_family_edits_alike_in_batches_and_windows(name: str, tmp_path: Path) -> None:
    found = []
    folder = FAMILIES[name].make(tmp_path)
    free = ImageSampling(temperature=1.0, top_p=1.0)
    for window, together in ((1, False), (8, False), (8, True)):
        model = opened(folder, Loading(dtype="float32", device_map="cpu", window=window))
        sources = [
            mmgen.draw(model, "a cat", seed=2, image=free)[0],
            mmgen.draw(model, "a cat", seed=3, image=free)[0],
        ]
        pictures = [own(model, each, tmp_path) for each in sources]
        with pytest.raises(AssertionError):
            assert mmgen.vary(model, pictures[0], "a boat", strength=1, seed=1)[0].codes == sources[0].codes
        for picture, source in zip(pictures, sources, strict=True):
            for strength, words in ((0, "a boat"), (0.5, "a cat"), (1, "a cat")):
                [same] = mmgen.vary(model, picture, words, strength=strength, seed=1, image=free)
                assert same.codes == source.codes, "stored in its file, and given back"
        foreign = [
            tasks.vary(image(6), "a boat", image=free, seed=5, edit=Edit(0.3, "a cat")),
            tasks.vary(pictures[0], "a boat", image=free, seed=6, edit=Edit(0.6)),
            tasks.vary(pictures[1], "a boat", image=free, seed=7, edit=Edit(1, keep="50%")),
            tasks.vary(pictures[1], "a boat", image=free, seed=7, edit=Edit(1, keep="50%")),
        ]
        some = gathered(model, foreign) if together else [gathered(model, [each])[0] for each in foreign]
        found.append([picture.codes for picture in some])
        [given] = mmgen.vary(model, image(6), "a cat", strength=1, source_prompt="a cat", seed=1, image=free)
        assert given.kept == len(given.codes or ())
    assert found[0] == found[1] == found[2]
