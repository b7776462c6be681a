"""The sets of NetFlow v9 and IPFIX datagrams, found in lockstep: one step for the k-th set of every datagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.headers import Headers, Index, gather, word16

SET_HEADER_BYTES: Final = 4
FEW: Final = 16
"""With fewer datagrams than this left, walking each of them costs less than a step over all."""


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """Sets of a batch, in the order of datagrams and then of their place: arrays of length m."""

    row: Index
    """Which of the datagrams."""
    start: Index
    """Where the set's body begins in the buffer."""
    length: Index
    """Bytes of the body, without the set's header."""
    number: npt.NDArray[np.uint16]
    """The set id."""

    def take(self, which: Index | npt.NDArray[np.bool_]) -> Sets:
        """These sets, in this order."""
        return Sets(self.row[which], self.start[which], self.length[which], self.number[which])

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class DataSets:
    """Data sets and what is needed to decode them later: arrays of length m beside the headers' rows."""

    buffer: npt.NDArray[np.uint8]
    headers: Headers
    """One row a set."""
    start: Index
    length: Index
    position: Index
    """Where the body begins in its datagram."""
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, which: Index) -> DataSets:
        """These sets, in this order, over the same buffer."""
        return DataSets(
            self.buffer,
            self.headers.take(which),
            self.start[which],
            self.length[which],
            self.position[which],
            [self.keys[index] for index in which.tolist()],
        )

    def bodies(self) -> bytes:
        """All bodies, one after the other."""
        view = memoryview(self.buffer)  # type: ignore[arg-type]  # a numpy array is a buffer
        ends = (self.start + self.length).tolist()
        return b"".join(map(view.__getitem__, map(slice, self.start.tolist(), ends)))

    @staticmethod
    def join(parts: list[DataSets]) -> DataSets:
        """The sets of all parts, which are of one protocol, over a buffer of their own."""
        if len(parts) == 1:
            return parts[0]
        ends = np.cumsum([len(part.buffer) for part in parts]).tolist()
        return DataSets(
            buffer=np.concatenate([part.buffer for part in parts]),
            headers=Headers.join([part.headers for part in parts]),
            start=np.concatenate([part.start + end - len(part.buffer) for part, end in zip(parts, ends, strict=True)]),
            length=np.concatenate([part.length for part in parts]),
            position=np.concatenate([part.position for part in parts]),
            keys=[key for part in parts for key in part.keys],
        )


def find_sets(
    buffer: npt.NDArray[np.uint8], begin: Index, end: Index
) -> tuple[Sets, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find the sets between ``begin`` and ``end`` of each datagram, [n] each.

    Returns the sets, and for each datagram whether a set reached beyond its end and whether a set's length was too
    small to be true. Either ends that datagram: where the next set begins is unknown. Zeros to the end are padding.
    """
    rows: list[Index] = []
    places: list[Index] = []
    lengths: list[Index] = []
    numbers: list[npt.NDArray[np.uint16]] = []
    beyond = np.zeros(len(begin), np.bool_)
    too_small = np.zeros(len(begin), np.bool_)
    at = begin.astype(np.int64)
    active = np.flatnonzero(at + SET_HEADER_BYTES <= end)
    while len(active) >= FEW:
        here = at[active]
        head = gather(buffer, here, SET_HEADER_BYTES)
        number, length = word16(head, 0), word16(head, 2).astype(np.int64)
        small = length < SET_HEADER_BYTES
        too_small[active] = small
        for index in np.flatnonzero((length == 0) & (number == 0)).tolist():
            too_small[active[index]] = buffer[here[index] : end[active[index]]].any()
        over = ~small & (here + length > end[active])
        beyond[active] = over
        good = ~(small | over)
        rows.append(active[good])
        places.append(here[good])
        lengths.append(length[good])
        numbers.append(number[good])
        active = active[good]
        at[active] = here[good] + length[good]
        active = active[at[active] + SET_HEADER_BYTES <= end[active]]
    for row in active.tolist():
        _walk(buffer, row, int(at[row]), int(end[row]), (rows, places, lengths, numbers), (beyond, too_small))
    if not rows:
        nothing = np.zeros(0, np.int64)
        return Sets(nothing, nothing, nothing, nothing.astype(np.uint16)), beyond, too_small
    of = np.concatenate(rows)
    place = np.concatenate(places)
    # Within a datagram a later set lies further on, whatever the order of the datagrams in the buffer.
    order = np.lexsort((place, of))
    sets = Sets(
        of[order],
        place[order] + SET_HEADER_BYTES,
        np.concatenate(lengths)[order] - SET_HEADER_BYTES,
        np.concatenate(numbers)[order],
    )
    return sets, beyond, too_small


def _walk(
    buffer: npt.NDArray[np.uint8],
    row: int,
    at: int,
    end: int,
    found: tuple[list[Index], list[Index], list[Index], list[npt.NDArray[np.uint16]]],
    wrong: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
) -> None:
    """The same for one datagram, set by set."""
    octets = buffer[at:end].tobytes()
    places: list[int] = []
    lengths: list[int] = []
    numbers: list[int] = []
    here, size = 0, len(octets)
    while here + SET_HEADER_BYTES <= size:
        number = octets[here] << 8 | octets[here + 1]
        length = octets[here + 2] << 8 | octets[here + 3]
        if length < SET_HEADER_BYTES:
            wrong[1][row] = bool(octets[here:].strip(b"\0"))
            break
        if here + length > size:
            wrong[0][row] = True
            break
        places.append(at + here)
        lengths.append(length)
        numbers.append(number)
        here += length
    found[0].append(np.full(len(places), row, np.int64))
    found[1].append(np.array(places, np.int64))
    found[2].append(np.array(lengths, np.int64))
    found[3].append(np.array(numbers, np.uint16))
