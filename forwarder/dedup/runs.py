"""Messages in the order of the log, as dedup sees them: when each was appended, and how many keys it brings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Runs = Sequence[tuple[int, int]]
"""Append time in milliseconds and number of rows of each message, in the order of the log."""


class LogTime:
    """Counts append time in eras of equal length, and never goes back.

    When another broker leads, a message that was appended later may have an earlier time. It counts for the latest time
    that was seen. Whoever begins at the first message that has the time of an era, or a later one, knows from there on
    the same latest time as whoever began earlier: all before it was earlier.
    """

    def __init__(self, era_ms: int) -> None:
        self._era_ms = era_ms
        self._latest_ms = 0

    def messages(self, runs: Runs, counted: Mask | None, largest: int) -> Messages:
        """Return the messages that bring keys.

        ``counted`` tells which rows are keys, None that all are. Messages without any are as if they were not there. One
        that brings more than ``largest`` becomes several.
        """
        if not runs:
            nothing = np.zeros(0, np.int64)
            return Messages(nothing, nothing)
        append_ms, rows = np.array(runs, np.int64).T
        ends = np.cumsum(rows)
        if counted is not None:
            ends = np.concatenate(([0], np.cumsum(counted)))[ends]
        brings = np.diff(ends, prepend=0)
        append_ms, brings = append_ms[brings > 0], brings[brings > 0]
        if brings.size:
            append_ms = np.maximum(np.maximum.accumulate(append_ms), self._latest_ms)
            self._latest_ms = int(append_ms[-1])
            append_ms, brings = _divided(append_ms, brings, largest)
        return Messages(append_ms // self._era_ms, np.cumsum(brings))


class Messages:
    """The messages of one call: their eras, which do not decrease, and where the keys of each end."""

    def __init__(self, eras: Times, ends: Times) -> None:
        self._eras = eras
        self._ends = ends
        self._next = 0

    def take(self) -> tuple[int, int, int] | None:
        """Take the next message: its era, and where its keys begin and end. None when there is no other."""
        if self._next == len(self._ends):
            return None
        at = self._next
        self._next += 1
        return int(self._eras[at]), int(self._ends[at - 1]) if at else 0, int(self._ends[at])

    def take_more(self, room: int) -> int:
        """Take those behind it that are of the same era, as far as it and they bring at most ``room`` keys together.

        Returns where the keys of the last one end.
        """
        first = self._next - 1
        begin = int(self._ends[first - 1]) if first else 0
        same = int(np.searchsorted(self._eras, self._eras[first], "right"))
        fitting = int(np.searchsorted(self._ends, begin + room, "right"))
        self._next = max(self._next, min(same, fitting))
        return int(self._ends[self._next - 1])


def _divided(append_ms: Times, brings: Times, largest: int) -> tuple[Times, Times]:
    """Divide messages that bring more than ``largest``, each part but the last being of that size."""
    if brings.max() <= largest:
        return append_ms, brings
    parts = -(-brings // largest)
    divided = np.full(int(parts.sum()), largest, np.int64)
    divided[np.cumsum(parts) - 1] = brings - (parts - 1) * largest
    return np.repeat(append_ms, parts), divided
