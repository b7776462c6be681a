"""A table from 64-bit keys to numbers that answers for a whole column at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

MISSING: Final = -1
_EMPTY: Final = 0
_FIRST_SLOTS: Final = 64
_FULLEST: Final = 0.25
"""Slots that are taken at most: few keys then meet another where they want to be."""
_SLOT: Final = np.dtype("V16")
"""A key and its value, side by side: to look at both costs one access to memory."""


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
    """Open addressing over a numpy array: entries are put one by one, and asked for by the column.

    Bounded: a new key beyond ``limit`` is refused. Keys are hashes already; 0 cannot be one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots = _blank(_FIRST_SLOTS)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, key: int, value: int) -> bool:
        """Set what a key stands for; False when there is no room for another key."""
        slot = self._slot(key)
        if int(self._slots[slot, 0]) == _EMPTY:
            if self._count >= self._limit:
                return False
            if self._count + 1 > _FULLEST * len(self._slots):
                self._grow()
                slot = self._slot(key)
            self._slots[slot, 0] = key
            self._count += 1
        self._slots.view(np.int64)[slot, 1] = value
        return True

    def get(self, keys: Keys) -> npt.NDArray[np.int64]:
        """What each key stands for, or MISSING."""
        last = len(self._slots) - 1
        slot = (keys & np.uint64(last)).view(np.int64)
        slots = self._slots.view(_SLOT)[:, 0]
        found = slots.take(slot).view(np.uint64).reshape(-1, 2)
        values = found[:, 1].view(np.int64).copy()
        # In an empty slot stands MISSING: only who meets another's entry has to look further.
        open_ = np.flatnonzero((found[:, 0] != keys) & (found[:, 0] != _EMPTY))
        wanted, slot = keys.take(open_), slot.take(open_)
        while len(open_):
            slot = (slot + 1) & last
            found = slots.take(slot).view(np.uint64).reshape(-1, 2)
            values[open_] = found[:, 1].view(np.int64)
            further = np.flatnonzero((found[:, 0] != wanted) & (found[:, 0] != _EMPTY))
            open_, wanted, slot = open_.take(further), wanted.take(further), slot.take(further)
        return values

    def _slot(self, key: int) -> int:
        """Where a key is, or the empty slot where it would be."""
        last = len(self._slots) - 1
        slot = key & last
        while int(self._slots[slot, 0]) not in {_EMPTY, key}:
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        """Move to twice as many slots, all entries at a time: a large table must not stop who puts one more."""
        entries = self._slots[self._slots[:, 0] != _EMPTY]
        self._slots = _blank(2 * len(self._slots))
        last = np.uint64(len(self._slots) - 1)
        slot = entries[:, 0] & last
        while len(entries):
            free = np.flatnonzero(self._slots[slot, 0] == _EMPTY)
            # Of those that want one slot the first gets it; the others go on to the next.
            _, first = np.unique(slot[free], return_index=True)
            placed = free[first]
            self._slots[slot[placed]] = entries[placed]
            left = np.ones(len(entries), np.bool_)
            left[placed] = False
            entries, slot = entries[left], (slot[left] + np.uint64(1)) & last


def _blank(count: int) -> npt.NDArray[np.uint64]:
    """Empty slots: a key and its value each, the value as its two's complement."""
    slots = np.zeros((count, 2), np.uint64)
    slots.view(np.int64)[:, 1] = MISSING
    return slots
