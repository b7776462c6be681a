"""A set of 64-bit keys in one array, for many keys at a time: open addressing with linear probing."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LEAST_CAPACITY: Final = 64
LEAST_TAIL: Final = 128
ROOM: Final = 2.5
"""Places for each key that is expected: chains stay short, and a set that grows to what was expected never moves."""
FULLEST: Final = 0.5
LOOSEST: Final = 4
"""Places for each key beyond which :meth:`KeySet.seal` gives memory back."""
STEP: Final = 1 << 20
"""Places that are moved at a time when the set grows."""

_HALF: Final = np.uint64(32)


def odd_words(secret: str, count: int) -> tuple[np.uint64, ...]:
    """Return ``count`` odd numbers that nobody knows who does not know the secret, and that are always the same."""
    digest = hashlib.shake_256(secret.encode()).digest(8 * count)
    return tuple(word | np.uint64(1) for word in np.frombuffer(digest, "<u8").astype(np.uint64))


class KeySet:
    """Keys that are there or not; they can be added, and go only all together.

    Keys have to be spread evenly over their upper 32 bits, which say where a key is looked for first. Whoever can choose
    keys with equal upper bits makes each of them slower, so callers mix what comes from outside with a secret; what the
    set answers never depends on that. ``expected`` keys fit without growing.
    """

    def __init__(self, expected: int = 0) -> None:
        self._capacity = max(LEAST_CAPACITY, int(expected * ROOM))
        # Behind the last place there is a tail that chains may run into, so that none wraps around.
        self._tail = LEAST_TAIL
        self._reach = 0  # The furthest that a key is from its first place.
        self._zero = False  # The key 0, since a 0 in the array is an empty place.
        self._count = 0
        self._slots: Keys = np.zeros(self._capacity + self._tail, np.uint64)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._slots.nbytes

    def find(self, keys: Keys) -> Mask:
        """Tell of each key whether it is there."""
        at = self._first_place(keys)
        found = self._slots.take(at, mode="wrap")
        hit: Mask = found == keys
        todo = np.flatnonzero((found != 0) & ~hit)
        wanted, at = keys[todo], at[todo]
        for _ in range(self._reach):
            if not todo.size:
                break
            at += 1
            found = self._slots.take(at, mode="wrap")
            here = found == wanted
            hit[todo[here]] = True
            left = np.flatnonzero((found != 0) & ~here)
            todo, wanted, at = todo[left], wanted[left], at[left]
        if not keys.all():
            hit[keys == 0] = self._zero
        return hit

    def add(self, keys: Keys) -> Mask:
        """Put keys in, and tell of each whether it was there before, or stands earlier among these."""
        if keys.all():
            return self._add(keys)
        seen = np.ones(len(keys), np.bool_)
        others = np.flatnonzero(keys)
        seen[others] = self._add(keys[others])
        if not self._zero:
            seen[np.flatnonzero(keys == 0)[0]] = False
            self._zero = True
            self._count += 1
        return seen

    def seal(self) -> None:
        """Give back memory that is not needed, when no key will be added for now."""
        if self._capacity > max(LEAST_CAPACITY, LOOSEST * self._count):
            keys = self._slots[self._slots != 0]
            self._capacity = max(LEAST_CAPACITY, int(self._count * ROOM))
            self._reach = 0
            self._slots = np.zeros(self._capacity + self._tail, np.uint64)
            self._place(keys)

    def _first_place(self, keys: Keys) -> Places:
        at = keys >> _HALF
        at *= np.uint64(self._capacity)
        at >>= _HALF
        return at.view(np.int64)

    def _add(self, keys: Keys) -> Mask:
        while self._count + len(keys) > self._capacity * FULLEST:
            self._grow()
        seen = np.zeros(len(keys), np.bool_)
        slots, at, todo, depth = self._slots, self._first_place(keys), np.arange(len(keys)), 0
        # All keys go along their chains in step. So equal keys come to an empty place together, where the earliest wins.
        while todo.size:
            self._reach_to(depth)
            found = slots.take(at, mode="wrap")
            here = found == keys
            free = np.flatnonzero(found == 0)
            if free.size:
                won = self._claim(at[free], keys[free], todo[free].view(np.uint64))
                here[free] = slots.take(at[free], mode="wrap") == keys[free]
                seen[todo[here]] = True
                seen[todo[free[won]]] = False
            else:
                seen[todo[here]] = True
            left = np.flatnonzero(~here)
            todo, keys, at = todo[left], keys[left], at[left] + 1
            depth += 1
        return seen

    def _claim(self, at: Places, keys: Keys, order: Keys) -> Mask:
        """Write keys into empty places; of several that want one, the earliest gets it. Returns which did."""
        # Of several values for one place numpy keeps the last; so the order, backwards, leaves the earliest there.
        self._slots[at[::-1]] = order[::-1]
        won: Mask = self._slots.take(at, mode="wrap") == order
        self._slots[at[won]] = keys[won]
        self._count += int(np.count_nonzero(won))
        return won

    def _place(self, keys: Keys) -> None:
        """Put in keys that are not there and differ from each other."""
        at, depth = self._first_place(keys), 0
        while keys.size:
            self._reach_to(depth)
            free = self._slots.take(at, mode="wrap") == 0
            self._slots[at[free]] = keys[free]
            left = np.flatnonzero(self._slots.take(at, mode="wrap") != keys)
            keys, at = keys[left], at[left] + 1
            depth += 1

    def _reach_to(self, depth: int) -> None:
        """Note how far a key is from its first place, and keep the tail longer than that."""
        self._reach = max(self._reach, depth)
        if depth >= self._tail:
            self._tail *= 2
            self._slots.resize(self._capacity + self._tail, refcheck=False)

    def _grow(self) -> None:
        """Double the capacity in place: the memory is extended, not copied, and keys move from the top down.

        A key's first place at least doubles, so what is moved never lands below what is still to be moved, down to
        twice the reach; what lies below that is moved in one step.
        """
        end, lowest = len(self._slots), 2 * self._reach
        self._capacity *= 2
        self._reach = 0
        self._slots.resize(self._capacity + self._tail, refcheck=False)
        while end:
            begin = max(0, end - STEP)
            if begin < lowest:
                begin = 0
            part = self._slots[begin:end]
            keys = part[part != 0]
            part[:] = 0
            del part  # A view must not outlive the memory, which may be extended again.
            self._place(keys)
            end = begin
