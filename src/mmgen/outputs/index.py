"""Whole numbers found by whole numbers, in a fifth of what a dict takes."""

from __future__ import annotations

from array import array


class Index:
    """Numbers of 64 bits by hashes of 64 bits, in 24 to 48 bytes a pair.

    Open addressing with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L).
    """

    def __init__(self) -> None:
        self._n = 0
        self._keys, self._values = _empty(8), _empty(8)  # a key of 0 is a place that is free

    def get(self, key: int) -> int | None:
        """Give the number of a key, if it has one."""
        place = self._place(key or 1)
        return self._values[place] if self._keys[place] else None

    def put(self, key: int, value: int) -> None:
        """Give a key its number."""
        place = self._place(key or 1)
        if not self._keys[place]:
            self._n += 1
            if 3 * self._n > 2 * len(self._keys):
                self._grow()
                place = self._place(key or 1)
            self._keys[place] = key or 1
        self._values[place] = value

    def _place(self, key: int) -> int:
        """Find where a key is, or would be."""
        mask, keys = len(self._keys) - 1, self._keys
        place = key & mask
        while (there := keys[place]) and there != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values = _empty(2 * len(keys)), _empty(2 * len(keys))
        for key, value in zip(keys, values, strict=True):
            if key:
                place = self._place(key)
                self._keys[place], self._values[place] = key, value


def _empty(n: int) -> array[int]:
    return array("q", bytes(8 * n))
