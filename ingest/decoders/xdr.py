"""Tagged structures in XDR (RFC 4506), found in lockstep: a tag, a length, and a body, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.headers import Index, windows, word32

HEADER_BYTES: Final = 8
FEW: Final = 16
"""With fewer lists than this left, walking each of them costs less than a step over all."""


_Found = tuple[Index, Index, Index, npt.NDArray[np.uint32]]
"""What one step found: of which lists, and the bodies' begins, lengths and tags."""


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """Structures found in lists: arrays of length m, in the order of the lists and then of their place."""

    row: Index
    """Which of the lists."""
    start: Index
    """Where the body begins in the buffer."""
    length: Index
    """Bytes of the body."""
    tag: npt.NDArray[np.uint32]

    def take(self, which: Index | npt.NDArray[np.bool_]) -> Tagged:
        """These structures, in this order."""
        if which.dtype == np.bool_:
            if np.count_nonzero(which) == len(which):
                return self
            which = np.flatnonzero(which)
        return Tagged(self.row.take(which), self.start.take(which), self.length.take(which), self.tag.take(which))

    def __len__(self) -> int:
        return len(self.row)


def among(tags: npt.NDArray[np.uint32], numbers: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Which tags are one of these numbers; the sooner told, the earlier those come that are there."""
    found = np.zeros(len(tags), np.bool_)
    for number in numbers:
        found |= tags == number
        if found.all():
            break
    return found


def find_tagged(
    buffer: npt.NDArray[np.uint8], begin: Index, end: Index, count: Index
) -> tuple[Tagged, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find up to ``count`` structures between ``begin`` and ``end`` of each list, [n] each.

    Returns them, and for each list whether a structure reached beyond its end, and whether the list ended before it
    had as many as it counts. Either costs what follows in that list, and nothing else.
    """
    found: list[_Found] = []
    beyond = np.zeros(len(begin), np.bool_)
    at, left = begin.astype(np.int64), count.astype(np.int64)
    active = np.flatnonzero((left > 0) & (at + HEADER_BYTES <= end))
    here, ends, wanted = at.take(active), end.take(active), left.take(active)
    while len(active) >= FEW:
        head = windows(buffer, here, HEADER_BYTES)
        tag, length, start = word32(head, 0), word32(head, 4).astype(np.int64), here + HEADER_BYTES
        whole = start + length <= ends
        if np.count_nonzero(whole) < len(whole):
            beyond[active[~whole]] = True
            active, start, ends, wanted = active[whole], start[whole], ends[whole], wanted[whole]
            tag, length = tag[whole], length[whole]
        found.append((active, start, length, tag))
        # Opaque data is padded to a multiple of four; some agents leave the padding out of the length.
        here, wanted = start + ((length + 3) & ~3), wanted - 1
        more = (wanted > 0) & (here + HEADER_BYTES <= ends)
        if np.count_nonzero(more) < len(more):
            left[active[~more]] = wanted[~more]
            active, here, ends, wanted = active[more], here[more], ends[more], wanted[more]
    # A step finds no list that the one before it did not. Mostly all lists are as long as each other.
    side_by_side = bool(found) and len(active) == 0 and len(found[0][0]) == len(found[-1][0])
    at[active], left[active] = here, wanted
    for row in active.tolist():
        one, beyond[row], left[row] = _walk(buffer, row, int(at[row]), int(end[row]), int(left[row]))
        found.append(one)
    if not found:
        none = np.zeros(0, np.int64)
        return Tagged(none, none, none, none.astype(np.uint32)), beyond, left > 0
    return _in_order(found, side_by_side=side_by_side), beyond, (left > 0) & ~beyond


def _in_order(found: list[_Found], *, side_by_side: bool) -> Tagged:
    """What was found, in the order of the lists and then of the steps; side by side where each step found all lists."""
    of, start, length, tag = zip(*found, strict=True)
    if side_by_side:
        return Tagged(np.repeat(of[0], len(of)), *(np.stack(parts, axis=1).ravel() for parts in (start, length, tag)))
    made = Tagged(*(np.concatenate(parts) for parts in (of, start, length, tag)))
    return made.take(np.lexsort((made.start, made.row)))


def _walk(buffer: npt.NDArray[np.uint8], row: int, at: int, end: int, count: int) -> tuple[_Found, bool, int]:
    """The same for one list, structure by structure."""
    octets = buffer[at:end].tobytes()
    starts: list[int] = []
    lengths: list[int] = []
    tags: list[int] = []
    here, beyond = 0, False
    while count > 0 and here + HEADER_BYTES <= len(octets):
        length = int.from_bytes(octets[here + 4 : here + 8])
        if here + HEADER_BYTES + length > len(octets):
            beyond = True
            break
        starts.append(at + here + HEADER_BYTES)
        lengths.append(length)
        tags.append(int.from_bytes(octets[here : here + 4]))
        here += HEADER_BYTES + ((length + 3) & ~3)
        count -= 1
    found = (
        np.full(len(starts), row, np.int64),
        np.array(starts, np.int64),
        np.array(lengths, np.int64),
        np.array(tags, np.uint32),
    )
    return found, beyond, count
