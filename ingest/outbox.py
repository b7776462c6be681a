"""Decoded records on their way to Kafka: gathered, split by partition, cut into messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders.columns import compacted
from ingest.partition import partitions
from shared.codec import merge

MESSAGES_AT_ONCE: Final = 2
"""Full messages per partition that are gathered before all are cut together: what is left over then matters little."""

LARGE_DICTIONARY: Final = 64
LARGE_DICTIONARY_BYTES: Final = 4096
LARGE_SHARE: Final = 64
"""A dictionary with more entries or bytes than this, that would be more than one part in so many of a message, is cut
down for each message: it would travel whole with every one."""


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
        # The order is made of the batch's own places: there is nothing to check.
        ordered = pc.take(whole, pa.array(order), boundscheck=False)
        ends = np.cumsum(np.bincount(of, minlength=partition_count)).tolist()
        most = self._records_a_message(ordered)
        widths = _Widths.of(ordered, most)
        begin = 0
        for partition, end in enumerate(ends):
            count = end - begin
            pieces = -(-count // most)
            for piece in range(pieces):
                first, last = begin + count * piece // pieces, begin + count * (piece + 1) // pieces
                part = ordered.slice(first, last - first)
                for message in (part,) if widths.even else self._fitting(part, widths):
                    yield partition, message
            begin = end

    def clear(self) -> None:
        """Forget everything; the caller has counted it."""
        self._batches = []
        self.records = self.bytes = 0

    def _records_a_message(self, batch: pa.RecordBatch) -> int:
        mean = max(1, -(-batch.nbytes // batch.num_rows))
        return int(max(1, min(self._bounds.max_records, self._bounds.max_bytes // mean)))

    def _fitting(self, batch: pa.RecordBatch, widths: _Widths) -> Iterator[pa.RecordBatch]:
        """The records as one message, or as several where long texts lie together: Kafka refuses what is too large."""
        message = compact(batch, widths.large)
        if batch.num_rows == 1 or widths.size(message) <= self._bounds.max_bytes:
            yield message
            return
        half = batch.num_rows // 2
        yield from self._fitting(batch.slice(0, half), widths)
        yield from self._fitting(batch.slice(half), widths)


@dataclass(frozen=True, slots=True)
class _Widths:
    """What tells the size of the messages that a batch is cut into; to ask Arrow for it costs more than to encode them."""

    bits: int
    """What a record takes in columns where each value takes the same room, indices of dictionaries among them."""
    varying: list[int]
    """Places of the other columns."""
    names: list[int]
    """Places of dictionary columns."""
    large: list[int]
    """Places of those whose dictionary is large."""

    @classmethod
    def of(cls, batch: pa.RecordBatch, records: int) -> _Widths:
        """The widths of a batch that is cut into messages of so many records or a little less."""
        bits, varying, names, large = 0, [], [], []
        message_bytes = batch.nbytes * records // batch.num_rows
        for at, field in enumerate(batch.schema):
            if _is_even(field.type):
                # A bit more for whether it is null.
                bits += (32 if pa.types.is_dictionary(field.type) else field.type.bit_width) + 1
            else:
                varying.append(at)
            if pa.types.is_dictionary(field.type):
                names.append(at)
                if _is_large(batch.column(at).dictionary, message_bytes):
                    large.append(at)
        return cls(bits, varying, names, large)

    @property
    def even(self) -> bool:
        """Whether records by their mean size make messages by size, as they are."""
        return not self.varying and not self.large

    def size(self, message: pa.RecordBatch) -> int:
        """Bytes of a message's columns, or a little more."""
        size = -(-self.bits * int(message.num_rows) // 8)
        size += sum(int(message.column(at).nbytes) for at in self.varying)
        return size + sum(int(message.column(at).dictionary.nbytes) for at in self.names)


def _merged(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = merge([pa.Table.from_batches([batch]) for batch in batches])
    (batch,) = table.to_batches()
    return batch


def _is_even(kind: pa.DataType) -> bool:
    """Whether each value of a column takes the same room, so that records by their mean size make messages by size."""
    return not (pa.types.is_string(kind) or pa.types.is_nested(kind))


def _is_large(dictionary: pa.Array, message_bytes: int) -> bool:
    size = int(dictionary.nbytes)
    return (len(dictionary) > LARGE_DICTIONARY or size > LARGE_DICTIONARY_BYTES) and size * LARGE_SHARE > message_bytes


def compact(batch: pa.RecordBatch, large: list[int]) -> pa.RecordBatch:
    """The batch with its large dictionaries cut down to what its rows use."""
    for at in large:
        column = batch.column(at)
        indices = column.indices
        rows = np.frombuffer(indices.buffers()[1], np.int32)[indices.offset :][: len(indices)].astype(np.int64)
        valid = None
        if indices.null_count:
            valid = indices.is_valid().to_numpy(zero_copy_only=False)
            rows = np.where(valid, rows, 0)
        batch = batch.set_column(at, batch.schema.field(at), compacted(rows, valid, column.dictionary))
    return batch
