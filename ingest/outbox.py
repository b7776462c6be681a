"""Decoded records on their way to Kafka: gathered, split by partition, cut into messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders.columns import compacted
from ingest.partition import partitions
from shared.codec import merge

MESSAGES_AT_ONCE: Final = 1.5
"""Full messages per partition that are gathered before all are cut together: halved, it makes two of three quarters."""

LARGE_DICTIONARY: Final = 64
LARGE_DICTIONARY_BYTES: Final = 4096
LARGE_SHARE: Final = 64
"""A dictionary with more entries or bytes than this, that would be more than one part in so many of a message, is cut
down for each message: it would travel whole with every one."""

SLACK_SHARE: Final = 16
"""Where records differ in size, messages are made smaller than their bound by one part in so many: of those made to fit
it in the mean, every other would be too large."""


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
        cut = _Cut(ordered, self._bounds)
        begin = 0
        for partition, end in enumerate(ends):
            for message in cut.messages(begin, end):
                yield partition, message
            begin = end

    def clear(self) -> None:
        """Forget everything; the caller has counted it."""
        self._batches = []
        self.records = self.bytes = 0


class _Cut:
    """How a batch is cut into messages: by number, and where its records differ in size, by that too.

    The batch was gathered, so that its columns begin where their memory does. Sizes are differences of offsets: to ask
    Arrow for the size of a part costs more than to encode it.
    """

    def __init__(self, batch: pa.RecordBatch, bounds: MessageBounds) -> None:
        self._batch = batch
        self._max_bytes = bounds.max_bytes
        self._bits = 0
        """What a record takes in columns where each value takes the same room, indices of dictionaries among them."""
        self._names_bytes = 0
        """What dictionaries take that travel whole with every message."""
        self._offsets: list[tuple[npt.NDArray[np.int32], int]] = []
        """Of the other columns: where each value begins, and bytes to one of these steps."""
        self._nested: list[int] = []
        """Places of columns of which only Arrow knows."""
        self._large: list[int] = []
        """Places of columns whose dictionary is large."""
        mean = -(-batch.get_total_buffer_size() // batch.num_rows)
        message_bytes = min(bounds.max_bytes, bounds.max_records * mean)
        for at, field in enumerate(batch.schema):
            self._measure(at, field.type, message_bytes)
        self._even = not (self._offsets or self._nested or self._large)
        most_bytes = bounds.max_bytes if self._even else bounds.max_bytes - bounds.max_bytes // SLACK_SHARE
        self._most = max(1, min(bounds.max_records, most_bytes // mean))

    def messages(self, begin: int, end: int) -> Iterator[pa.RecordBatch]:
        """The records [begin, end) as messages of about equal size."""
        count = end - begin
        pieces = -(-count // self._most)
        for piece in range(pieces):
            yield from self._fitting(begin + count * piece // pieces, begin + count * (piece + 1) // pieces)

    def _measure(self, at: int, kind: pa.DataType, message_bytes: int) -> None:
        column = self._batch.column(at)
        self._bits += int(column.null_count > 0)
        if pa.types.is_dictionary(kind):
            self._bits += kind.index_type.bit_width
            if _is_large(column.dictionary, message_bytes):
                self._large.append(at)
            else:
                self._names_bytes += int(column.dictionary.nbytes)
        elif pa.types.is_string(kind) or pa.types.is_list(kind):
            step = 1 if pa.types.is_string(kind) else kind.value_type.bit_width // 8
            self._bits += 32
            self._offsets.append((np.frombuffer(column.buffers()[1], np.int32), step))
        elif pa.types.is_nested(kind):
            self._nested.append(at)
        else:
            self._bits += kind.bit_width

    def _fitting(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """The records [first, last) as one message, or as several where long texts lie together: Kafka takes no more."""
        message = compact(self._batch.slice(first, last - first), self._large)
        if self._even or last - first == 1 or self._size(first, last, message) <= self._max_bytes:
            yield message
            return
        middle = (first + last) // 2
        yield from self._fitting(first, middle)
        yield from self._fitting(middle, last)

    def _size(self, first: int, last: int, message: pa.RecordBatch) -> int:
        """Bytes of a message's columns, or a little more."""
        size = -(-self._bits * (last - first) // 8) + self._names_bytes + len(message.schema.names)
        size += sum(step * int(offsets[last] - offsets[first]) + 4 for offsets, step in self._offsets)
        size += sum(int(message.column(at).nbytes) for at in self._nested)
        return size + sum(int(message.column(at).dictionary.nbytes) for at in self._large)


def _merged(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = merge([pa.Table.from_batches([batch]) for batch in batches])
    (batch,) = table.to_batches()
    return batch


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
