"""Numbers for keys of 64 bits, given as the keys come, a column at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.lookup import Keys

NO_ROOM: Final = -1
_EMPTY: Final = -1
_FIRST_SLOTS: Final = 256
_FULLEST: Final = 0.25
"""Slots that are taken at most: few keys then meet another where they want to be."""

Index = npt.NDArray[np.int64]


class Numbering:
    """Gives keys, which are hashes already, the numbers from 0 on. Bounded: a new key beyond ``limit`` gets none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Open addressing: a slot has the number of a key, and a number its key.
        self._slots = np.full(_FIRST_SLOTS, _EMPTY, np.int64)
        self._keys: Keys = np.zeros(0, np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> Keys:
        """The key of each number."""
        return self._keys[: self._count]

    def number(self, keys: Keys) -> tuple[Index, Index]:
        """The number of each key, or NO_ROOM; and where the keys stand that are new, in the order of their numbers."""
        numbers = self.find(keys)
        missing = np.flatnonzero(numbers == NO_ROOM)
        room = self._limit - self._count
        if len(missing) == 0 or room == 0:
            return numbers, missing[:0]
        _, first = np.unique(keys[missing], return_index=True)
        new = missing[np.sort(first)[:room]]
        self._add(keys[new])
        numbers[missing] = self.find(keys[missing])
        return numbers, new

    def find(self, keys: Keys) -> Index:
        """The number of each key, NO_ROOM where it has none."""
        last = np.uint64(len(self._slots) - 1)
        slot = (keys & last).astype(np.int64)
        numbers = self._slots[slot]
        if self._count == 0:
            return numbers
        open_ = np.flatnonzero((self._keys[numbers] != keys) & (numbers != _EMPTY))
        while len(open_):
            slot[open_] = (slot[open_] + 1) & int(last)
            numbers[open_] = found = self._slots[slot[open_]]
            open_ = open_[(self._keys[found] != keys[open_]) & (found != _EMPTY)]
        return numbers

    def _add(self, keys: Keys) -> None:
        """Give new keys, each of which is there once, the next numbers."""
        before, self._count = self._count, self._count + len(keys)
        if self._count > len(self._keys):
            more = min(max(self._count, 2 * len(self._keys)), self._limit) - len(self._keys)
            self._keys = np.pad(self._keys, (0, more))
        self._keys[before : self._count] = keys
        if self._count > _FULLEST * len(self._slots):
            slots = len(self._slots)
            while self._count > _FULLEST * slots:
                slots *= 2
            self._slots = np.full(slots, _EMPTY, np.int64)
            before = 0
        self._place(np.arange(before, self._count))

    def _place(self, numbers: Index) -> None:
        last = len(self._slots) - 1
        slot = (self._keys[numbers] & np.uint64(last)).astype(np.int64)
        while len(numbers):
            free = self._slots[slot] == _EMPTY
            self._slots[slot[free]] = numbers[free]
            # Of several that want one slot one has it; the others go on to the next.
            left = self._slots[slot] != numbers
            numbers, slot = numbers[left], (slot[left] + 1) & last
