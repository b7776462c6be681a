"""A table from 64-bit keys to numbers that answers for a whole column at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

MISSING: Final = -1
_EMPTY: Final = np.uint64(0)
_FIRST_SLOTS: Final = 64
_FULLEST: Final = 0.25
"""Slots that are taken at most: few keys then meet another where they want to be."""


def mix(keys: Keys, more: npt.NDArray[np.integer] | int) -> Keys:
    """Hash ``more`` into keys; of equal length, or one for all. The order of calls matters."""
    mixed = keys ^ (np.asarray(more).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(29)
    return mixed


class Lookup:
    """Open addressing over numpy arrays: entries are put one by one, and asked for by the column.

    Bounded: a new key beyond ``limit`` is refused. Keys are hashes already; 0 cannot be one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys = np.zeros(_FIRST_SLOTS, np.uint64)
        self._values = np.full(_FIRST_SLOTS, MISSING, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, key: int, value: int) -> bool:
        """Set what a key stands for; False when there is no room for another key."""
        slot = self._slot(key)
        if self._keys[slot] == _EMPTY:
            if self._count >= self._limit:
                return False
            if self._count + 1 > _FULLEST * len(self._keys):
                self._grow()
                slot = self._slot(key)
            self._keys[slot] = key
            self._count += 1
        self._values[slot] = value
        return True

    def get(self, keys: Keys) -> npt.NDArray[np.int64]:
        """What each key stands for, or MISSING."""
        last = np.uint64(len(self._keys) - 1)
        slot = (keys & last).astype(np.int64)
        found = self._keys[slot]
        values = np.where(found == keys, self._values[slot], MISSING)
        open_ = np.flatnonzero((found != keys) & (found != _EMPTY))
        while len(open_):
            slot[open_] = (slot[open_] + 1) & int(last)
            found = self._keys[slot[open_]]
            hit = found == keys[open_]
            values[open_[hit]] = self._values[slot[open_[hit]]]
            open_ = open_[~hit & (found != _EMPTY)]
        return values

    def _slot(self, key: int) -> int:
        """Where a key is, or the empty slot where it would be."""
        last = len(self._keys) - 1
        slot = key & last
        while self._keys[slot] not in {_EMPTY, np.uint64(key)}:
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._keys = np.zeros(2 * len(keys), np.uint64)
        self._values = np.full(2 * len(keys), MISSING, np.int64)
        for key, value in zip(keys.tolist(), values.tolist(), strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot], self._values[slot] = key, value
