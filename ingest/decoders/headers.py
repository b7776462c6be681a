"""What every protocol's header tells, as columns: one row a datagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from ingest.decoders.datagrams import HEADROOM_BYTES, Datagrams

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Headers:
    """The headers of n datagrams of one protocol: arrays of length n, in the machine's byte order."""

    version: int
    """The version word; 0 for sFlow."""
    source: npt.NDArray[np.uint8]
    """Address that the exporter is known by, [n, 16]."""
    domain: npt.NDArray[np.uint32]
    """Observation domain; NetFlow v9's source id; NetFlow v5's engine type << 8 | engine id."""
    sequence: npt.NDArray[np.uint32]
    exported_ns: npt.NDArray[np.int64]
    uptime_ms: npt.NDArray[np.uint32] | None
    """None for IPFIX, whose header does not tell."""
    received_ns: npt.NDArray[np.int64]
    identity: npt.NDArray[np.uint64]
    """xxh3_64 of the source's 16 bytes and the datagram."""
    source_port: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.domain)

    def take(self, rows: Index) -> Headers:
        """The headers of these rows, in this order."""
        return Headers(
            version=self.version,
            source=self.source.take(rows, axis=0),
            domain=self.domain.take(rows),
            sequence=self.sequence.take(rows),
            exported_ns=self.exported_ns.take(rows),
            uptime_ms=None if self.uptime_ms is None else self.uptime_ms.take(rows),
            received_ns=self.received_ns.take(rows),
            identity=self.identity.take(rows),
            source_port=self.source_port.take(rows),
        )

    @staticmethod
    def join(parts: list[Headers]) -> Headers:
        """The rows of all parts, which are of one protocol."""
        first = parts[0]
        return Headers(
            version=first.version,
            source=np.concatenate([part.source for part in parts]),
            domain=np.concatenate([part.domain for part in parts]),
            sequence=np.concatenate([part.sequence for part in parts]),
            exported_ns=np.concatenate([part.exported_ns for part in parts]),
            uptime_ms=None
            if first.uptime_ms is None
            else np.concatenate([part.uptime_ms for part in parts if part.uptime_ms is not None]),
            received_ns=np.concatenate([part.received_ns for part in parts]),
            identity=np.concatenate([part.identity for part in parts]),
            source_port=np.concatenate([part.source_port for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What was heard from exporters, for the count of losses: arrays of length n, one row a datagram."""

    version: int
    source: npt.NDArray[np.uint8]
    """[n, 16]"""
    domain: npt.NDArray[np.uint32]
    sequence: npt.NDArray[np.uint32]
    units: npt.NDArray[np.uint32]
    """How far the exporter's next number is from this one: flows (v5, v7), 1 (v9), data records (IPFIX); 0 for v1."""
    exact: npt.NDArray[np.bool_]
    """False where a set could not be decoded, so that its records could not be counted."""
    records: npt.NDArray[np.uint32]
    """Data records of flows that were decoded at once."""
    undecoded: npt.NDArray[np.uint32]
    """Sets that were not: broken ones, and those that wait for their template."""
    uptime_ms: npt.NDArray[np.uint32] | None
    received_ns: npt.NDArray[np.int64]


def gather(buffer: npt.NDArray[np.uint8], at: Index, width: int) -> npt.NDArray[np.uint8]:
    """Bytes at ``at`` and the ``width`` - 1 after them, all of which the buffer has, [n, width]."""
    if len(at) == 0:
        return np.zeros((0, width), np.uint8)
    taken: npt.NDArray[np.uint8] = _windows_of(buffer, width)[at].view(np.uint8).reshape(-1, width)
    return taken


def _windows_of(buffer: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.void]:
    """All windows of a width, as a view: each is one item, which is copied in one go."""
    return np.ndarray((len(buffer) - width + 1,), np.dtype((np.void, width)), buffer, strides=(1,))


def windows(buffer: npt.NDArray[np.uint8], at: Index, width: int) -> npt.NDArray[np.uint8]:
    """The same where the buffer may end before the window does: what lies beyond is zeros."""
    last = len(buffer) - width
    if len(at) == 0 or int(at.max()) <= last:
        return gather(buffer, at, width)
    taken = np.zeros((len(at), width), np.uint8) if last < 0 else gather(buffer, np.minimum(at, last), width)
    beyond = np.flatnonzero(at > last)
    begin = max(0, last)
    tail = np.concatenate([buffer[begin:], np.zeros(width, np.uint8)])
    # What begins beyond the end is zeros altogether.
    taken[beyond] = gather(tail, np.minimum(at[beyond], len(buffer)) - begin, width)
    return taken


def word16(octets: npt.NDArray[np.uint8], at: int) -> npt.NDArray[np.uint16]:
    """Big-endian 16-bit words at ``at`` of each row."""
    return octets[:, at : at + 2].view(">u2")[:, 0].astype(np.uint16)


def word32(octets: npt.NDArray[np.uint8], at: int) -> npt.NDArray[np.uint32]:
    """Big-endian 32-bit words at ``at`` of each row."""
    return octets[:, at : at + 4].view(">u4")[:, 0].astype(np.uint32)


def identities(datagrams: Datagrams, rows: Index, sampler: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Hash the sampler's address, [n, 16], and the bytes of each datagram, by way of the free bytes before it."""
    begin = datagrams.offset[rows] - HEADROOM_BYTES
    _windows_of(datagrams.buffer, HEADROOM_BYTES)[begin] = sampler.view(f"V{HEADROOM_BYTES}")[:, 0]
    end = datagrams.offset[rows] + datagrams.length[rows]
    view = memoryview(datagrams.buffer)  # type: ignore[arg-type]  # a numpy array is a buffer
    pieces = map(view.__getitem__, map(slice, begin.tolist(), end.tolist()))
    return np.fromiter(map(xxhash.xxh3_64_intdigest, pieces), np.uint64, len(rows))
