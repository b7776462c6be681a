"""Decoded records on their way to Kafka: gathered, split by partition, cut into messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from ingest.partition import partitions
from shared.codec import merge

MESSAGES_AT_ONCE: Final = 8
"""Full messages per partition that are gathered before all are cut together: what is left over then matters little."""

LARGE_DICTIONARY: Final = 64
"""A dictionary with more entries than this is made again for each message: it would travel whole with every one."""


@dataclass(frozen=True, slots=True)
class MessageBounds:
    """When records are sent: at the first of these."""

    max_records: int = 1000
    max_bytes: int = 262_144
    max_age_ns: int = 1_000_000_000


class Outbox:
    """Record batches that wait to become messages. Bounded in bytes; what is over the bound is refused.

    All partitions are cut at a time, when each has several full messages or the oldest record reaches its age: one
    sort and one gathering for tens of thousands of records, instead of buffers that each grow by a few.
    """

    def __init__(self, bounds: MessageBounds, max_bytes: int) -> None:
        self._bounds = bounds
        self._max_bytes = max_bytes
        self._batches: list[pa.RecordBatch] = []
        self._oldest_ns = 0
        self.records = 0
        self.bytes = 0

    def add(self, batch: pa.RecordBatch, now_ns: int) -> bool:
        """Take a batch in; False when there is no room for it."""
        size = batch.nbytes
        if self.bytes + size > self._max_bytes:
            return False
        if not self._batches:
            self._oldest_ns = now_ns
        self._batches.append(batch)
        self.records += batch.num_rows
        self.bytes += size
        return True

    def due(self, partition_count: int, now_ns: int) -> bool:
        """Whether it is time to send."""
        if not self.records:
            return False
        enough = partition_count * self._bounds.max_records * MESSAGES_AT_ONCE
        return self.records >= enough or now_ns - self._oldest_ns >= self._bounds.max_age_ns

    def take(self, partition_count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Empty the outbox: each message's partition and its records.

        Records of different layouts share messages, with the columns that any of them has.
        """
        batches, self._batches = self._batches, []
        self.records = self.bytes = 0
        if not batches:
            return
        whole = batches[0] if len(batches) == 1 else _merged(batches)
        of = partitions(whole, partition_count)
        order = np.argsort(of, kind="stable")
        ordered = whole.take(pa.array(order))
        ends = np.cumsum(np.bincount(of, minlength=partition_count)).tolist()
        most = self._records_a_message(ordered)
        large = large_dictionaries(ordered)
        begin = 0
        for partition, end in enumerate(ends):
            count = end - begin
            pieces = -(-count // most)
            for piece in range(pieces):
                first, last = begin + count * piece // pieces, begin + count * (piece + 1) // pieces
                yield partition, compact(ordered.slice(first, last - first), large)
            begin = end

    def clear(self) -> None:
        """Forget everything; the caller has counted it."""
        self._batches = []
        self.records = self.bytes = 0

    def _records_a_message(self, batch: pa.RecordBatch) -> int:
        mean = max(1, batch.nbytes // batch.num_rows)
        return int(max(1, min(self._bounds.max_records, self._bounds.max_bytes // mean)))


def _merged(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = merge([pa.Table.from_batches([batch]) for batch in batches])
    (batch,) = table.to_batches()
    return batch


def large_dictionaries(batch: pa.RecordBatch) -> list[int]:
    """Places of the columns whose dictionary is large."""
    return [
        at
        for at, field in enumerate(batch.schema)
        if pa.types.is_dictionary(field.type) and len(batch.column(at).dictionary) > LARGE_DICTIONARY
    ]


def compact(batch: pa.RecordBatch, large: list[int]) -> pa.RecordBatch:
    """The batch with its large dictionaries cut down to what its rows use."""
    for at in large:
        encoded = batch.column(at).dictionary_decode().dictionary_encode()
        batch = batch.set_column(at, batch.schema.field(at), encoded)
    return batch
