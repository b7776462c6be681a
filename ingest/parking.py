"""Data sets that wait for their template, bounded."""

from __future__ import annotations

import sys
from collections import Counter
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

RECEIVED_AT: Final = ROW.fields["received_ns"][1] if ROW.fields is not None else 0


@dataclass(frozen=True, slots=True)
class ParkingBounds:
    """How much waits, and how long. What is over a bound is dropped, the newest first, and counted."""

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
    """Data sets by the key of the template that they wait for, each key's in their order. One thread uses it."""

    def __init__(self, bounds: ParkingBounds | None = None) -> None:
        self._bounds = bounds or ParkingBounds()
        self._waiting: dict[bytes, _Waiting] = {}
        self._of_exporter: Counter[bytes] = Counter()
        self.bytes = 0
        self.sets = 0

    def add(self, sets: DataSets) -> Counter[Fault]:
        """Take sets in, with copies of their bytes; returns what there was no room for."""
        refused: Counter[Fault] = Counter()
        rows = _rows(sets).tobytes()
        version = sets.headers.version
        for index, (key, start, length) in enumerate(
            zip(sets.keys, sets.start.tolist(), sets.length.tolist(), strict=True)
        ):
            assert key[16:18] == version.to_bytes(2)
            waiting = self._waiting.get(key)
            size = length + SET_BYTES + (KEY_BYTES if waiting is None else 0)
            if self.bytes + size > self._bounds.total_bytes:
                refused[Fault.PARKING_FULL] += 1
                continue
            if self._of_exporter[key[:16]] + size > self._bounds.exporter_bytes:
                refused[Fault.PARKING_QUOTA] += 1
                continue
            if waiting is None:
                waiting = self._waiting[key] = _Waiting([], 0)
            row = rows[index * ROW.itemsize : (index + 1) * ROW.itemsize]
            waiting.sets.append(row + sets.buffer[start : start + length].tobytes())
            waiting.longest = max(waiting.longest, length)
            self._count(key[:16], size, 1)
        return refused

    def release(self, key: bytes, shortest: int) -> DataSets | None:
        """Give back the sets that wait for this key and have ``shortest`` bytes or more; None when there are none."""
        waiting = self._waiting.get(key)
        if waiting is None or waiting.longest < shortest:
            return None
        whole = shortest + ROW.itemsize
        released = [item for item in waiting.sets if len(item) >= whole]
        self._keep(key, waiting, [item for item in waiting.sets if len(item) < whole])
        return _joined(key, released)

    def expire(self, now_ns: int) -> int:
        """Drop what has waited too long; returns how many sets. Called now and then: it looks at every set."""
        oldest = now_ns - self._bounds.wait_ns
        before = self.sets
        for key, waiting in list(self._waiting.items()):
            young = [item for item in waiting.sets if _received(item) >= oldest]
            if len(young) < len(waiting.sets):
                self._keep(key, waiting, young)
        return before - self.sets

    def clear(self) -> int:
        """Forget everything; returns how many sets waited."""
        waiting = self.sets
        self._waiting.clear()
        self._of_exporter.clear()
        self.bytes = self.sets = 0
        return waiting

    def _keep(self, key: bytes, waiting: _Waiting, kept: list[bytes]) -> None:
        """Let all but these go."""
        gone = len(waiting.sets) - len(kept)
        octets = sum(map(len, waiting.sets)) - sum(map(len, kept)) + gone * (SET_BYTES - ROW.itemsize)
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
