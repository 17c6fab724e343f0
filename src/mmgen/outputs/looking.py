"""What is to be done about each item: found out, and its pictures opened, in threads ahead of the model.

Knows items, writers and the journal; refuses to know models. The net for an item stands here, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition

from mmgen.errors import MmgenError, OutOfMemoryError, unexpected
from mmgen.inputs.finding import check_file, is_url
from mmgen.limits import Limits
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import FileEntry, Item, Origin, Result, key_of
from mmgen.outputs.writers import Writer
from mmgen.request import Request

_READERS = 4  # threads; what they do, reading and decoding pictures, runs side by side
MOST_PIXELS = 192_000_000  # of pictures that wait: 16 of 12 megapixels, 576 MB


@dataclass
class Entry:
    """An item on its way.

    Attributes:
        key: stands for all that its result depends on.
        state: how it stands in the journal (see outputs.journal.State).
        skip: nothing is to be done; is_foreign: as somebody else wrote what stands in its place.
        request: what to compute, if anything is.
        result: what is known of it so far; all of it, when it is settled.
        began, seconds: on the engine's shared clock when it was given to the model, and its share when it was done.
        followers: equal items, which get its result.
    """

    item: Item
    key: str
    state: str = "new"
    files: list[FileEntry] = field(default_factory=list)
    skip: bool = False
    is_foreign: bool = False
    request: Request | None = None
    result: Result = field(default_factory=Result)
    is_settled: bool = False
    began: float = 0.0
    seconds: float = 0.0
    followers: list[Entry] = field(default_factory=list)


def look(
    item: Item,
    origin: Origin,
    writer: Writer,
    limits: Limits,
    journal: Journal | None,
    *,
    opens: bool = True,
    reads: bool = True,
) -> Entry | None:
    """Find out what is to be done about an item, and open its pictures; None: it is another shard's. In threads."""
    entry = Entry(item, key_of(item.item_id))
    try:
        if item.error is not None:
            raise item.error
        # What the result depends on. Without a journal to compare with, pictures are told by their names.
        contents = []
        for source in item.sources:
            if journal is None or is_url(source):
                contents.append(source)
            else:
                check_file(source)
                entry.files.append(journal.file_entry(source))
                contents.append(entry.files[-1]["sha256"])
        entry.key = origin.key(item, contents)
        if not limits.takes(entry.key):
            return None
        if journal is not None:
            entry.state = journal.state(entry.key, item.item_id)
        if entry.state == "done" and journal and writer.is_there(item, lambda: journal.result(entry.key)):
            entry.skip = True
        else:
            last = journal.last(item.item_id) if journal is not None else None
            entry.skip = entry.is_foreign = writer.is_foreign(item, last)
        entry.is_settled = entry.skip
        if opens and not entry.skip:
            entry.request = item.open(limits.strict, reads)
    except MmgenError as error:
        entry.result, entry.is_settled = Result(error=error), True
    except Exception as failure:  # noqa: BLE001 -- the net: one bad picture never ends the others
        entry.result, entry.is_settled = Result(error=caught(failure, item)), True
    if entry.result.error is not None:
        entry.state = entry.state if journal is None or opens else "failed"
    return entry if limits.takes(entry.key) else None


def caught(failure: Exception, item: Item) -> MmgenError:
    """Make an item's error of whatever was raised over it: its file, the type and the place."""
    name = item.image or ", ".join(item.sources)
    about = f"{name}: " if name else ""
    if isinstance(failure, MemoryError):
        return OutOfMemoryError(f"{about}memory does not suffice", "give a smaller picture, or ask for fewer at once")
    return unexpected(about, failure)


def ahead(make: Callable[[Item], Entry | None], items: Iterable[Item], n_ahead: int) -> Iterator[Entry | None]:
    """Apply a function in threads, as far ahead of who reads as memory allows; results come in order.

    Args:
        n_ahead: steps, at most.
    """
    waiting: deque[Future[Entry | None]] = deque()
    pixels, n_given, changed = 0, 0, Condition()  # pixels: of what was made and not given yet

    def made(number: int, item: Item) -> Entry | None:
        nonlocal pixels
        with changed:  # who reads waits for the next one: that one is made in any case
            changed.wait_for(lambda: pixels <= MOST_PIXELS or number <= n_given)
        entry = make(item)
        with changed:
            pixels += n_pixels(entry)
        return entry

    def given(future: Future[Entry | None]) -> Entry | None:
        nonlocal pixels, n_given
        entry = future.result()
        with changed:
            pixels, n_given = pixels - n_pixels(entry), n_given + 1
            changed.notify_all()
        return entry

    with ThreadPoolExecutor(_READERS, "mmgen-reader") as readers:
        try:
            for number, item in enumerate(items):
                waiting.append(readers.submit(made, number, item))
                while len(waiting) > n_ahead or (len(waiting) > 1 and pixels > MOST_PIXELS):
                    yield given(waiting.popleft())
            while waiting:
                yield given(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()
            with changed:
                n_given = 1 << 62  # nobody waits any more
                changed.notify_all()


def n_pixels(entry: Entry | None) -> int:
    """Count the pixels of an entry's pictures."""
    if entry is None or entry.request is None:
        return 0
    return sum(image.width * image.height for image in entry.request.images)
