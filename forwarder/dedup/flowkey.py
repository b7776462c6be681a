"""Which flow a record tells of, and who saw it: as numbers of 64 bits that are equal for equal flows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forwarder.dedup.keyset import Keys, Mask, Places, odd_words

EGRESS: Final = 1
"""``flow_direction`` of what was metered at egress (RFC 5102 §5.11.1); all else counts as ingress."""
ICMP: Final = (1, 58)
"""ICMP and ICMPv6: some exporters put type and code in the place of a port, others do not."""

Step = tuple[np.uint64, np.uint64]


@dataclass(frozen=True, slots=True)
class FlowKeys:
    """Columns of equal length: of each record its flow, that flow as seen by its observer, and whether it has a lease.

    A flow is what has the same addresses, ports and protocol, in this direction, in one routing domain. Two flows have
    one key with a probability of 2^-64, in a way that nobody can bring about who does not know the secret. An observer
    is an exporter with the direction in which it meters; not its observation domains, which are parts of it that see
    different packets.
    """

    flows: Keys
    seen_by: Keys
    leased: Mask


class FlowKeying:
    """Makes keys of records; the same for the same ``secret``."""

    def __init__(self, secret: str) -> None:
        words = odd_words(secret, 18)
        self._steps: tuple[Step, ...] = tuple(zip(words[::2], words[1::2], strict=True))

    def keys(self, table: pa.Table, rows: Places | None = None) -> FlowKeys:
        """The keys of a table's records; ``rows`` tells where in the table they are, in the order that comes out.

        A record is not leased when it lacks an address, or was sampled.
        """
        addressed = _valid(table, "src_addr") & _valid(table, "dst_addr")
        leased = addressed & (_numbers(table, "sampling_rate") <= 1)
        step = iter(self._steps)
        flows = np.zeros(table.num_rows, np.uint64)
        for word in (*_address(table, "src_addr"), *_address(table, "dst_addr"), _transport(table), _domain(table)):
            _mix(flows, word, next(step))
        seen_by = flows.copy()
        egress = _numbers(table, "flow_direction") == EGRESS
        for word in (*_address(table, "sampler_address"), egress.astype(np.uint64)):
            _mix(seen_by, word, next(step))
        if rows is None:
            return FlowKeys(flows, seen_by, leased)
        return FlowKeys(flows[rows], seen_by[rows], leased[rows])


def _mix(hashed: Keys, word: Keys, step: Step) -> None:
    """Take a word in. Two rounds, so that words that differ in few bits do not cancel each other out."""
    hashed ^= word
    hashed ^= hashed >> np.uint64(32)
    hashed *= step[0]
    hashed ^= hashed >> np.uint64(29)
    hashed *= step[1]


def _valid(table: pa.Table, name: str) -> Mask:
    """Where a column has a value."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.bool_)
    column = table.column(name)
    return np.asarray(column.is_valid()) if column.null_count else np.ones(table.num_rows, np.bool_)


def _numbers(table: pa.Table, name: str) -> Keys:
    """A column of numbers; 0 where it has no value."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.uint64)
    column = table.column(name)
    return np.asarray(column.fill_null(0) if column.null_count else column).astype(np.uint64)


def _address(table: pa.Table, name: str) -> tuple[Keys, Keys]:
    """The two halves of an address; 0 where there is none."""
    if name not in table.column_names or not table.num_rows:
        return np.zeros(table.num_rows, np.uint64), np.zeros(table.num_rows, np.uint64)
    column = table.column(name)
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    halves = np.frombuffer(array.buffers()[1], np.uint64)[2 * array.offset :][: 2 * len(array)].reshape(-1, 2)
    if array.null_count:
        halves = np.where(np.asarray(array.is_valid())[:, None], halves, np.uint64(0))
    return halves[:, 0], halves[:, 1]


def _transport(table: pa.Table) -> Keys:
    """Protocol and ports as one number; without the ports for ICMP."""
    proto = _numbers(table, "proto")
    ports = _numbers(table, "src_port") << np.uint64(16) | _numbers(table, "dst_port")
    return proto << np.uint64(32) | np.where((proto == ICMP[0]) | (proto == ICMP[1]), np.uint64(0), ports)


def _domain(table: pa.Table) -> Keys:
    """The routing domain: the name of the ingress VRF; else its id, which is the exporter's own, and 0 without a VRF."""
    domain = _numbers(table, "ingress_vrf_id")
    if "ingress_vrf_name" not in table.column_names:
        return domain
    column = table.column("ingress_vrf_name")
    for at, chunk in zip(np.cumsum([0, *map(len, column.chunks)]), column.chunks, strict=False):
        # A name that stands behind no row costs as much as another; both came in the message.
        named = np.array([_hash_name(name) for name in chunk.dictionary.to_pylist()], np.uint64)
        valid = np.flatnonzero(np.asarray(chunk.is_valid()))
        domain[at + valid] = named[np.asarray(pc.drop_null(chunk.indices))]
    return domain


def _hash_name(name: str | None) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") if name else 0
