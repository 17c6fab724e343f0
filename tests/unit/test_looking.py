"""What is opened ahead of the model: in order, and no further than memory allows."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from mmgen.outputs.looking import Entry, ahead
from mmgen.outputs.records import Item
from mmgen.request import WORDS, Request

SHAPE = Request((), WORDS)


@pytest.mark.parametrize(("side", "fewest", "most"), [(10, 25, 33), (9000, 1, 9)])
def test_entries_come_in_order_and_large_ones_not_far_ahead(side: int, fewest: int, most: int) -> None:
    picture = Image.new("1", (side, side))  # 81 megapixels the second time: three are more than may wait
    n_made = furthest = 0

    def make(item: Item) -> Entry:
        nonlocal n_made
        n_made += 1
        return Entry(item, "", request=Request((picture,), WORDS))

    given: list[str] = []
    for entry in ahead(make, (Item(SHAPE, str(number)) for number in range(100)), 32):
        assert entry is not None
        time.sleep(0.005)  # a model, in whose time readers read
        furthest = max(furthest, n_made - len(given))
        given.append(entry.item.prompt)
    assert given == [str(number) for number in range(100)]
    assert fewest <= furthest <= most


@pytest.mark.timeout(20)
def test_who_stops_early_is_not_waited_for() -> None:
    picture = Image.new("1", (14_500, 14_500))  # each is more than may wait
    entries = ahead(
        lambda item: Entry(item, "", request=Request((picture,), WORDS)), (Item(SHAPE, str(n)) for n in range(100)), 32
    )
    next(iter(entries))
    time.sleep(0.2)  # readers wait
    entries.close()  # type: ignore[attr-defined]  # it is a generator


def test_what_cannot_be_made_is_raised_where_it_is_read() -> None:
    def make(item: Item) -> Entry:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(ahead(make, [Item(SHAPE, "a")], 4))
