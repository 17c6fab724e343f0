"""Which items of a command are done, and how many at a time: options, as those in request.py. Knows no model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmgen.errors import UsageError
from mmgen.request import option

GROUP = 16  # requests that a model in memory answers together, at most; as many named items are few


@dataclass(frozen=True)
class Limits:
    """Which items are done, and how many at a time."""

    fail_fast: bool = option(False, "Stop at the first that fails.", env=False)
    limit: int | None = option(None, "Stop after N that had to be computed.", metavar="N", env=False)
    shard: str | None = option(None, "Do only the I-th of N parts: one part a machine.", metavar="I/N", env=False)
    batch_size: int | None = option(None, "Most at a time. Found by itself if not given.", metavar="N")
    concurrency: int = option(8, "With --endpoint: so many under way at once.", metavar="N")
    item_timeout: float | None = option(
        None,
        "Seconds after which it has failed: a server that sends nothing, 300 if not given; with --ray, an item.",
        metavar="S",
    )
    pixel_limit: int | None = option(
        None, "Refuse pictures of more than N pixels; 179 million if not given.", metavar="N"
    )
    strict: bool = option(False, "Refuse pictures that lack their last rows, too.")

    def __post_init__(self) -> None:
        least_one = {
            "concurrency": self.concurrency,
            "batch-size": self.batch_size,
            "limit": self.limit,
            "pixel-limit": self.pixel_limit,
        }
        for flag, value in least_one.items():
            if value is not None and value < 1:
                raise UsageError(f"--{flag} {value} is out of range", "it is a number of at least 1")
        if self.item_timeout is not None and not 0 < self.item_timeout < 1e6:
            raise UsageError(f"--item-timeout {self.item_timeout:g} is out of range", "it is a number of seconds")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise UsageError(f"--shard {self.shard} is out of range", "as in 1/4 for the first of 4")

    @property
    def group(self) -> int:
        """Most items at a time."""
        return self.batch_size or GROUP

    def takes(self, key: str) -> bool:
        """Whether an item of this key, hex digits, is of the part that is to be done."""
        i, n = self.part or (1, 1)
        return int(key[:8], 16) % n == i - 1

    @property
    def part(self) -> tuple[int, int] | None:
        """(i, n): only the i-th of n parts, from 1, chosen by key."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard or "", re.ASCII)
        if self.shard is not None and found is None:
            raise UsageError(f"--shard {self.shard} is not I/N", "as in --shard 1/4 for the first of four parts")
        return (int(found[1]), int(found[2])) if found else None
