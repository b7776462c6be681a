"""Data sets that wait for their template, bounded: the part of the promise **patient** that is kept in memory."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ingest.decoders.fault import Fault
from ingest.decoders.headers import Headers
from ingest.decoders.sets import DataSets

ROW: Final = np.dtype(
    [
        ("source", np.uint8, 16),
        ("domain", np.uint32),
        ("sequence", np.uint32),
        ("exported_ns", np.int64),
        ("uptime_ms", np.uint32),
        ("received_ns", np.int64),
        ("identity", np.uint64),
        ("source_port", np.uint16),
        ("position", np.int64),
    ]
)
"""What a set's datagram told, packed: what is needed to decode the set later as if it were now."""

SET_BYTES: Final = ROW.itemsize + 64
KEY_BYTES: Final = 400
"""What a set costs beside its own bytes, and what the first one that waits for a template costs more: measured with
tracemalloc, and rounded up."""

SHARE: Final = 16
"""Room is made for one part in so many of a bound at once, so that what leaves together makes large messages."""

RECEIVED_AT: Final = ROW.fields["received_ns"][1] if ROW.fields is not None else 0


@dataclass(frozen=True, slots=True)
class ParkingBounds:
    """How much waits here, and how long."""

    total_bytes: int = 64 << 20
    exporter_bytes: int = 8 << 20
    wait_ns: int = 30 * 60 * 1_000_000_000


@dataclass(slots=True)
class _Waiting:
    """Sets that wait for one template: each its row and its body, in the order in which they came."""

    sets: list[bytes]
    longest: int
    """Bytes of the longest body."""


class Parking:
    """Data sets by the key of the template that they wait for, each key's in their order. One thread uses it.

    When a bound is reached, those that have waited longest leave, to wait in Kafka: of one exporter when it is over its
    own bound, of all when there is no room for anybody. They leave within an allowance; when that is used up, the
    newest is refused, so that a flood cannot drive out what came before it.
    """

    def __init__(self, bounds: ParkingBounds | None = None) -> None:
        self._bounds = bounds or ParkingBounds()
        self._waiting: dict[bytes, _Waiting] = {}
        self._of_exporter: Counter[bytes] = Counter()
        self._leaving: list[DataSets] = []
        self.bytes = 0
        self.sets = 0
        self.allowance = 0
        """How many bytes may leave now; set by whoever takes them."""
        self.reserved = 0
        """How many of these are not for exporters that are over their own bound."""
        self.parked = 0
        """Sets that were taken in, ever."""
        self.released = 0
        """Sets that were given back to be decoded, ever."""

    def add(self, sets: DataSets) -> Counter[Fault]:
        """Take sets in, with copies of their bytes; returns what there was no room for."""
        refused: Counter[Fault] = Counter()
        rows = _rows(sets).tobytes()
        version = sets.headers.version
        for index, (key, start, length) in enumerate(
            zip(sets.keys, sets.start.tolist(), sets.length.tolist(), strict=True)
        ):
            assert key[16:18] == version.to_bytes(2)
            fault = self._make_room(key, length)
            if fault is not None:
                refused[fault] += 1
                continue
            waiting = self._waiting.get(key)
            size = self._size(key, length)
            if waiting is None:
                waiting = self._waiting[key] = _Waiting([], 0)
            row = rows[index * ROW.itemsize : (index + 1) * ROW.itemsize]
            waiting.sets.append(row + sets.buffer[start : start + length].tobytes())
            waiting.longest = max(waiting.longest, length)
            self._count(key[:16], size, 1)
            self.parked += 1
        return refused

    def release(self, key: bytes, shortest: int) -> DataSets | None:
        """Give back the sets that wait for this key and have ``shortest`` bytes or more; None when there are none."""
        waiting = self._waiting.get(key)
        if waiting is None or waiting.longest < shortest:
            return None
        whole = shortest + ROW.itemsize
        released = [item for item in waiting.sets if len(item) >= whole]
        self._keep(key, waiting, [item for item in waiting.sets if len(item) < whole])
        self.released += len(released)
        return _joined(key, released)

    def expire(self, now_ns: int) -> int:
        """Let go what has waited here for too long, or drop it where the allowance ends; returns how many were dropped.

        Called now and then: it looks at every set.
        """
        oldest = now_ns - self._bounds.wait_ns
        dropped = 0
        for key, waiting in list(self._waiting.items()):
            young = [item for item in waiting.sets if _received(item) >= oldest]
            if len(young) == len(waiting.sets):
                continue
            old = [item for item in waiting.sets if _received(item) < oldest]
            if sum(map(_item_size, old)) <= self.allowance:
                self._leave(key, old)
            else:
                dropped += len(old)
            self._keep(key, waiting, young)
        return dropped

    @property
    def leaving(self) -> int:
        """How many sets have left since :meth:`take_leaving` was called."""
        return sum(map(len, self._leaving))

    def take_leaving(self) -> list[DataSets]:
        """The sets that have left since the last call, each part of one key; they are the caller's now."""
        leaving, self._leaving = self._leaving, []
        return leaving

    def drain(self) -> Iterator[DataSets]:
        """Give everything back, one key after the other: at the end, when nothing can wait here any more."""
        while self._waiting:
            key, waiting = next(iter(self._waiting.items()))
            sets = _joined(key, waiting.sets)
            self._keep(key, waiting, [])
            yield sets

    def clear(self) -> int:
        """Forget everything; returns how many sets waited."""
        waiting = self.sets
        self._waiting.clear()
        self._of_exporter.clear()
        self.bytes = self.sets = 0
        return waiting

    def _size(self, key: bytes, length: int) -> int:
        """What a set of this length would take."""
        return length + SET_BYTES + (0 if key in self._waiting else KEY_BYTES)

    def _make_room(self, key: bytes, length: int) -> Fault | None:
        """Let others go where there is no room for this set; why there is still none, or None."""
        bounds, exporter = self._bounds, key[:16]
        over = self.bytes + self._size(key, length) - bounds.total_bytes
        if over > 0 and not self._let_go(b"", over, bounds.total_bytes, self.allowance):
            return Fault.PARKING_FULL
        # Its own key may have left, so its size is asked for anew.
        over = self._of_exporter[exporter] + self._size(key, length) - bounds.exporter_bytes
        if over > 0 and not self._let_go(exporter, over, bounds.exporter_bytes, self.allowance - self.reserved):
            return Fault.PARKING_QUOTA
        return None

    def _let_go(self, exporter: bytes, over: int, bound: int, allowance: int) -> bool:
        """Let the oldest sets go, of this exporter or of all, until there is room; False when that cannot be."""
        wanted = max(over, bound // SHARE)
        held = self._of_exporter[exporter] if exporter else self.bytes
        if held < over or allowance < wanted:
            return False
        going: list[tuple[bytes, int]] = []
        room = 0
        for key, waiting in self._waiting.items():
            if room >= wanted:
                break
            if key.startswith(exporter):
                count = 0
                for item in waiting.sets:
                    if room >= wanted:
                        break
                    room += _item_size(item)
                    count += 1
                going.append((key, count))
        for key, count in going:
            waiting = self._waiting[key]
            self._leave(key, waiting.sets[:count])
            self._keep(key, waiting, waiting.sets[count:])
        return True

    def _leave(self, key: bytes, items: list[bytes]) -> None:
        self.allowance -= sum(map(_item_size, items))
        self._leaving.append(_joined(key, items))

    def _keep(self, key: bytes, waiting: _Waiting, kept: list[bytes]) -> None:
        """Let all but these go."""
        gone = len(waiting.sets) - len(kept)
        octets = sum(map(_item_size, waiting.sets)) - sum(map(_item_size, kept))
        waiting.sets = kept
        if kept:
            waiting.longest = max(map(len, kept)) - ROW.itemsize
        else:
            del self._waiting[key]
            octets += KEY_BYTES
        self._count(key[:16], -octets, -gone)

    def _count(self, exporter: bytes, size: int, sets: int) -> None:
        self.bytes += size
        self.sets += sets
        self._of_exporter[exporter] += size
        if self._of_exporter[exporter] <= 0:
            del self._of_exporter[exporter]


def _item_size(item: bytes) -> int:
    """What a set is counted with; that of the key comes to it."""
    return len(item) + SET_BYTES - ROW.itemsize


def _received(item: bytes) -> int:
    return int.from_bytes(item[RECEIVED_AT : RECEIVED_AT + 8], sys.byteorder, signed=True)


def _rows(sets: DataSets) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rows = np.zeros(len(sets), ROW)
    headers = sets.headers
    rows["source"], rows["domain"], rows["sequence"] = headers.source, headers.domain, headers.sequence
    rows["exported_ns"], rows["received_ns"] = headers.exported_ns, headers.received_ns
    rows["identity"], rows["source_port"], rows["position"] = headers.identity, headers.source_port, sets.position
    if headers.uptime_ms is not None:
        rows["uptime_ms"] = headers.uptime_ms
    return rows


def _joined(key: bytes, items: list[bytes]) -> DataSets:
    rows = np.frombuffer(b"".join(item[: ROW.itemsize] for item in items), ROW)
    version = int.from_bytes(key[16:18])
    length = np.array([len(item) for item in items], np.int64) - ROW.itemsize
    return DataSets(
        buffer=np.frombuffer(b"".join(item[ROW.itemsize :] for item in items), np.uint8),
        headers=Headers(
            version=version,
            source=np.ascontiguousarray(rows["source"]),
            domain=rows["domain"],
            sequence=rows["sequence"],
            exported_ns=rows["exported_ns"],
            uptime_ms=rows["uptime_ms"] if version == 9 else None,
            received_ns=rows["received_ns"],
            identity=rows["identity"],
            source_port=rows["source_port"],
        ),
        start=np.cumsum(length) - length,
        length=length,
        position=np.ascontiguousarray(rows["position"]),
        keys=[key] * len(items),
    )
