"""Data sets that wait for their template, bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
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

OVERHEAD_BYTES: Final = 200
"""What a parked set costs beside its own bytes, measured with sys.getsizeof and rounded up."""


@dataclass(frozen=True, slots=True)
class ParkingBounds:
    """How much waits, and how long. What is over a bound is dropped, the newest first, and counted."""

    total_bytes: int = 64 << 20
    exporter_bytes: int = 8 << 20
    wait_ns: int = 30 * 60 * 1_000_000_000


class Parking:
    """Data sets by the key of the template that they wait for, each key's in their order. One thread uses it."""

    def __init__(self, bounds: ParkingBounds | None = None) -> None:
        self._bounds = bounds or ParkingBounds()
        self._waiting: dict[bytes, deque[tuple[int, bytes, bytes]]] = {}
        self._of_exporter: Counter[bytes] = Counter()
        self.bytes = 0
        self.sets = 0

    def add(self, sets: DataSets) -> Counter[Fault]:
        """Take sets in, with copies of their bytes; returns what there was no room for."""
        refused: Counter[Fault] = Counter()
        rows = _rows(sets).tobytes()
        version = sets.headers.version
        for index, (key, received, start, length) in enumerate(
            zip(
                sets.keys,
                sets.headers.received_ns.tolist(),
                sets.start.tolist(),
                sets.length.tolist(),
                strict=True,
            )
        ):
            assert key[16:18] == version.to_bytes(2)
            size, exporter = length + OVERHEAD_BYTES, key[:16]
            if self.bytes + size > self._bounds.total_bytes:
                refused[Fault.PARKING_FULL] += 1
            elif self._of_exporter[exporter] + size > self._bounds.exporter_bytes:
                refused[Fault.PARKING_QUOTA] += 1
            else:
                row = rows[index * ROW.itemsize : (index + 1) * ROW.itemsize]
                body = sets.buffer[start : start + length].tobytes()
                self._waiting.setdefault(key, deque()).append((received, row, body))
                self._count(exporter, size, 1)
        return refused

    def release(self, keys: Iterable[bytes]) -> list[DataSets]:
        """Give back the sets that wait for these keys: one item a key that had any."""
        return [_joined(key, waiting) for key in keys if (waiting := self._take(key))]

    def expire(self, now_ns: int) -> int:
        """Drop what has waited too long; returns how many sets. Called now and then: it looks at every key."""
        oldest = now_ns - self._bounds.wait_ns
        dropped = 0
        for key in list(self._waiting):
            waiting = self._waiting[key]
            while waiting and waiting[0][0] < oldest:
                _, _, body = waiting.popleft()
                self._count(key[:16], -len(body) - OVERHEAD_BYTES, -1)
                dropped += 1
            if not waiting:
                del self._waiting[key]
        return dropped

    def clear(self) -> int:
        """Forget everything; returns how many sets waited."""
        waiting = self.sets
        self._waiting.clear()
        self._of_exporter.clear()
        self.bytes = self.sets = 0
        return waiting

    def _take(self, key: bytes) -> deque[tuple[int, bytes, bytes]] | None:
        waiting = self._waiting.pop(key, None)
        for _, _, body in waiting or ():
            self._count(key[:16], -len(body) - OVERHEAD_BYTES, -1)
        return waiting

    def _count(self, exporter: bytes, size: int, sets: int) -> None:
        self.bytes += size
        self.sets += sets
        self._of_exporter[exporter] += size
        if self._of_exporter[exporter] <= 0:
            del self._of_exporter[exporter]


def _rows(sets: DataSets) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rows = np.zeros(len(sets), ROW)
    headers = sets.headers
    rows["source"], rows["domain"], rows["sequence"] = headers.source, headers.domain, headers.sequence
    rows["exported_ns"], rows["received_ns"] = headers.exported_ns, headers.received_ns
    rows["identity"], rows["source_port"], rows["position"] = headers.identity, headers.source_port, sets.position
    if headers.uptime_ms is not None:
        rows["uptime_ms"] = headers.uptime_ms
    return rows


def _joined(key: bytes, waiting: deque[tuple[int, bytes, bytes]]) -> DataSets:
    rows = np.frombuffer(b"".join(row for _, row, _ in waiting), ROW)
    version = int.from_bytes(key[16:18])
    length = np.array([len(body) for _, _, body in waiting], np.int64)
    return DataSets(
        buffer=np.frombuffer(b"".join(body for _, _, body in waiting), np.uint8),
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
        keys=[key] * len(waiting),
    )
