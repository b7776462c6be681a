"""Which sequence each exporter goes on with: what tells its own datagrams from those that somebody forged.

A redefinition of a template is passed on to all instances only when datagrams say it that continue the sequence in
which the exporter has been heard. Who does not see that sequence has to guess it. A sequence is given up for another
one only when it has fallen silent, as it does when the exporter begins anew; one that goes on is not displaced by
whatever else is sent in the exporter's name.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.headers import Heard

WINDOW: Final = {9: 1 << 12, 10: 1 << 16}
"""A number that lies no further away continues a sequence: datagrams (NetFlow v9) or data records (IPFIX)."""

SILENCE_MS: Final = 30_000
LONGEST_SILENCE_MS: Final = 600_000
SILENT_GAPS: Final = 4
"""A sequence is silent when nothing of it came for the first of these, or for so many of its own longest gaps."""

FOLLOWERS: Final = 3
"""So many datagrams make a sequence that may take the place of one that is silent."""

NONE: Final = -1

Numbers = npt.NDArray[np.int64]


class Streams:
    """The sequence of each exporter and observation domain, by rows that the caller gives. One thread at a time.

    A sequence has a number of its own, so that what was said in it can be told from what was said in another.
    ``steady_ms`` is how long a sequence has to last until what it says counts.
    """

    def __init__(self, steady_ms: int) -> None:
        self._steady_ms = steady_ms
        self._next = 0
        # Of the sequence that each exporter is known by: its number, where it is, since when, and its last datagram.
        self._of = np.full(0, NONE, np.int64)
        self._at = np.zeros(0, np.int64)
        self._since = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.int64)
        self._gap = np.zeros(0, np.int64)
        self._window = np.zeros(0, np.int64)
        # The same of another one that was heard, and how many of its datagrams.
        self._other = np.full(0, NONE, np.int64)
        self._other_at = np.zeros(0, np.int64)
        self._other_since = np.zeros(0, np.int64)
        self._other_count = np.zeros(0, np.int64)

    def hear(self, rows: Numbers, heard: Heard) -> None:
        """Take in what a worker heard: ``rows`` of length n, -1 where there is none. Other protocols are left out."""
        if heard.version not in WINDOW:
            return
        listed = rows >= 0
        row = rows[listed]
        if len(row) == 0:
            return
        self._grow(int(row.max()) + 1)
        sequence = heard.sequence[listed].astype(np.int64)
        received = heard.received_ns[listed] // 1_000_000
        self._begin(row, sequence, received, WINDOW[heard.version])
        ahead = _distance(sequence, self._at[row])
        near = np.abs(ahead) <= self._window[row]
        self._go_on(row[near], ahead[near], received[near])
        if not near.all():
            self._go_elsewhere(row[~near], sequence[~near], received[~near])

    def number(self, row: int, sequence: int) -> int:
        """The number of the sequence that a datagram of this exporter continues, or NONE."""
        if not 0 <= row < len(self._of):
            return NONE
        for number, at in ((self._of[row], self._at[row]), (self._other[row], self._other_at[row])):
            ahead = (sequence - int(at) + (1 << 31)) % (1 << 32) - (1 << 31)
            if number != NONE and abs(ahead) <= self._window[row]:
                return int(number)
        return NONE

    def trusted(self, row: int) -> int:
        """The number of the sequence that this exporter has been heard in for long enough, or NONE."""
        if not 0 <= row < len(self._of) or self._seen[row] - self._since[row] < self._steady_ms:
            return NONE
        return int(self._of[row])

    def _begin(self, row: Numbers, sequence: Numbers, received: Numbers, window: int) -> None:
        """What comes first of an exporter begins its sequence."""
        new = self._of[row] == NONE
        if not new.any():
            return
        # Backwards, so that the first of several stays.
        first = row[new][::-1]
        self._of[first] = self._next + np.arange(len(first))
        self._next += len(first)
        self._at[first] = sequence[new][::-1]
        self._since[first] = self._seen[first] = received[new][::-1]
        self._window[first] = window

    def _go_on(self, row: Numbers, ahead: Numbers, received: Numbers) -> None:
        """Move the sequences on to the furthest of these."""
        touched, place = np.unique(row, return_inverse=True)
        furthest = np.zeros(len(touched), np.int64)
        np.maximum.at(furthest, place, ahead)
        last = self._seen[touched]
        np.maximum.at(last, place, received)
        gap = self._gap[touched]
        # A gap is remembered for some dozens of batches.
        self._gap[touched] = np.maximum(gap - (gap >> 5), last - self._seen[touched])
        self._seen[touched] = last
        self._at[touched] = (self._at[touched] + furthest) % (1 << 32)

    def _go_elsewhere(self, row: Numbers, sequence: Numbers, received: Numbers) -> None:
        """Take note of another sequence, and go over to it where the one that was known is silent."""
        order = np.argsort(row, kind="stable")
        row, sequence, received = row[order], sequence[order], received[order]
        begins = np.flatnonzero(np.diff(row, prepend=NONE))
        ends = np.append(begins[1:], len(row)) - 1
        row, count = row[begins], ends - begins + 1
        window = self._window[row]
        # Of each exporter the first and the last are looked at: what lies between would have to be forged to fit.
        joins = (self._other[row] != NONE) & _follows(sequence[begins], self._other_at[row], window)
        whole = _follows(sequence[ends], sequence[begins], window * count)
        anew = ~(joins & whole)
        self._other[row[anew]] = self._next + np.arange(int(np.count_nonzero(anew)))
        self._next += int(np.count_nonzero(anew))
        self._other_since[row[anew]] = np.where(whole, received[begins], received[ends])[anew]
        self._other_count[row[anew]] = 0
        self._other_count[row] += np.where(whole, count, 1)
        self._other_at[row] = sequence[ends]
        silence = np.clip(SILENT_GAPS * self._gap[row], SILENCE_MS, LONGEST_SILENCE_MS)
        over = (self._other_count[row] >= FOLLOWERS) & (received[ends] - self._seen[row] >= silence)
        moved = row[over]
        self._of[moved], self._at[moved] = self._other[moved], self._other_at[moved]
        self._since[moved], self._seen[moved] = self._other_since[moved], received[ends][over]
        self._gap[moved] = 0
        self._other[moved] = NONE

    def _grow(self, rows: int) -> None:
        if rows <= len(self._of):
            return
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                fill = NONE if name in {"_of", "_other"} else 0
                grown = np.full(max(rows, 2 * len(column), 64), fill, np.int64)
                grown[: len(column)] = column
                setattr(self, name, grown)


def _distance(sequence: Numbers, base: Numbers) -> Numbers:
    """How far each number lies from another: modulo 2^32, and signed."""
    distance: Numbers = ((sequence - base + (1 << 31)) % (1 << 32)) - (1 << 31)
    return distance


def _follows(sequence: Numbers, base: Numbers, window: Numbers) -> npt.NDArray[np.bool_]:
    return np.abs(_distance(sequence, base)) <= window
