"""What a record's datagram tells of it, and the columns that come from that alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.headers import Headers, Index
from shared.record import CLOCK, COLUMN, POSITION, TIME

Columns = dict[str, pa.Array]

ICMP: Final = 1
ICMPV6: Final = 58

TYPE_NAMES: Final = {
    0: "SFLOW_5",
    1: "NETFLOW_V1",
    5: "NETFLOW_V5",
    7: "NETFLOW_V7",
    9: "NETFLOW_V9",
    10: "IPFIX",
}
"""By version word; sFlow's has 32 bits, of which the upper 16 are 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What the datagrams tell of n records: arrays of length n, in the machine's byte order."""

    source: npt.NDArray[np.uint8]
    """[n, 16]"""
    domain: npt.NDArray[np.uint32]
    sequence: npt.NDArray[np.uint32]
    exported_ns: npt.NDArray[np.int64]
    uptime_ms: npt.NDArray[np.uint32] | None
    """The exporter's uptime when it sent the datagram; None where the protocol's header does not tell."""
    received_ns: npt.NDArray[np.int64]
    identity: npt.NDArray[np.uint64]
    """Hash of sampler and datagram."""
    position: npt.NDArray[np.int64]
    """Where the record begins in its datagram, in bytes."""
    booted_ms: npt.NDArray[np.int64] | None = None
    """When the exporter's uptime began, by its options data; negative where it did not tell."""

    @classmethod
    def spread(
        cls,
        headers: Headers,
        of: Index,
        position: npt.NDArray[np.int64],
        booted_ms: npt.NDArray[np.int64] | None = None,
    ) -> Origin:
        """What the headers' rows ``of`` tell, one for each record."""
        return cls(
            source=headers.source.take(of, axis=0),
            domain=headers.domain.take(of),
            sequence=headers.sequence.take(of),
            exported_ns=headers.exported_ns.take(of),
            uptime_ms=None if headers.uptime_ms is None else headers.uptime_ms.take(of),
            received_ns=headers.received_ns.take(of),
            identity=headers.identity.take(of),
            position=position,
            booted_ms=booted_ms,
        )

    def take(self, which: Index) -> Origin:
        """What they tell of these records, in this order."""
        return Origin(
            source=self.source[which],
            domain=self.domain[which],
            sequence=self.sequence[which],
            exported_ns=self.exported_ns[which],
            uptime_ms=None if self.uptime_ms is None else self.uptime_ms[which],
            received_ns=self.received_ns[which],
            identity=self.identity[which],
            position=self.position[which],
            booted_ms=None if self.booted_ms is None else self.booted_ms[which],
        )


def record_ids(identity: npt.NDArray[np.uint64], position: npt.NDArray[np.int64], part: int) -> npt.NDArray[np.uint64]:
    """Mix the hash of a datagram, the byte offset of a record in it, and which part of the record this is."""
    mixed = (position.astype(np.uint64) << np.uint64(3)) + np.uint64(part + 1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= identity
    # The finaliser of SplitMix64: every bit of the input moves every bit of the result.
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def common_columns(version: int, origin: Origin) -> Columns:
    """The columns that come from the datagram alone."""
    count = len(origin.domain)
    return {
        "type": columns.constant_name(TYPE_NAMES[version], count),
        "record_id": columns.primitive(record_ids(origin.identity, origin.position, 0), pa.uint64()),
        "time_received": columns.primitive(origin.received_ns, TIME),
        "time_exported": columns.primitive(origin.exported_ns // 1_000_000, CLOCK),
        "sampler_address": columns.primitive(origin.source, COLUMN["sampler_address"].type),
        "observation_domain_id": columns.primitive(origin.domain, pa.uint32()),
        "sequence_num": columns.primitive(origin.sequence, pa.uint32()),
    }


def icmp_from_port(proto: npt.NDArray[np.uint8], dst_port: npt.NDArray[np.uint16]) -> Columns:
    """Type and code that NetFlow v5 and v9 carry as the destination port, of the records that are ICMP."""
    valid = (proto == ICMP) | (proto == ICMPV6)
    if not valid.any():
        return {}
    return {
        "icmp_type": columns.primitive((dst_port >> 8).astype(np.uint8), pa.uint8(), valid),
        "icmp_code": columns.primitive((dst_port & 0xFF).astype(np.uint8), pa.uint8(), valid),
    }


def ordered(made: Columns) -> pa.RecordBatch:
    """Columns as a batch, in the order of the record."""
    names = sorted(made, key=POSITION.__getitem__)
    return pa.RecordBatch.from_arrays([made[name] for name in names], names)
