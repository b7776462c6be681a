"""Counter samples on their way to Kafka: gathered, cut into messages of one exporter each, keyed by its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.outbox import MessageBounds, compact
from ingest.producer import RecordProducer
from ingest.refusal import Refusal
from ingest.window import BY_KEY
from shared.codec import merge
from shared.counters import COLUMN
from shared.text import format_addresses

NAME_BYTES: Final = 5
"""An index of a dictionary, or an offset into a list, with a bit for whether it is null."""

ITEM_BYTES: Final = 24
"""What an item of a list takes at most: a MAC address as text."""


class CounterOutbox:
    """Counter rows that wait to become messages. Bounded in bytes; what is over the bound is refused.

    A message has the rows of one exporter, and the columns that any of these fills: what a switch and what a host tell
    has little in common.
    """

    def __init__(self, bounds: MessageBounds, max_bytes: int) -> None:
        self._bounds = bounds
        self._max_bytes = max_bytes
        self._batches: list[pa.RecordBatch] = []
        self._oldest_ns = 0
        self.rows = 0
        self.bytes = 0

    def add(self, batch: pa.RecordBatch, now_ns: int) -> bool:
        """Take a batch in; False when there is no room for it."""
        size = batch.nbytes
        if self.bytes + size > self._max_bytes:
            return False
        if not self._batches:
            self._oldest_ns = now_ns
        self._batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += size
        return True

    def due(self, now_ns: int) -> bool:
        """Whether it is time to send: the oldest row is old enough, or the room is half full."""
        if not self.rows:
            return False
        return 2 * self.bytes >= self._max_bytes or now_ns - self._oldest_ns >= self._bounds.max_age_ns

    def take(self) -> Iterator[tuple[bytes, pa.RecordBatch]]:
        """Empty the outbox: each message's key, which is the exporter's address as text, and its rows."""
        batches, self._batches = self._batches, []
        self.rows = self.bytes = 0
        if not batches:
            return
        (whole,) = merge([pa.Table.from_batches([batch]) for batch in batches], COLUMN).to_batches()
        addresses = whole.column("sampler_address").dictionary_encode()
        keys = [text.encode() for text in format_addresses(addresses.dictionary).to_pylist()]
        of = np.frombuffer(addresses.indices.buffers()[1], np.int32)[: len(addresses)]
        ordered = pc.take(whole, pa.array(np.argsort(of, kind="stable")), boundscheck=False)
        counts = np.bincount(of, minlength=len(keys))
        yield from self._messages(ordered, keys, np.concatenate([[0], np.cumsum(counts)]))

    def clear(self) -> None:
        """Forget everything; the caller has counted it."""
        self._batches = []
        self.rows = self.bytes = 0

    def _messages(
        self, ordered: pa.RecordBatch, keys: Sequence[bytes], ends: npt.NDArray[np.int64]
    ) -> Iterator[tuple[bytes, pa.RecordBatch]]:
        """Each exporter's rows, which lie between two of ``ends``, with the columns that they fill."""
        filled = _filled(ordered, ends[:-1])
        fixed, varying = _sizes(ordered)
        row_bytes = fixed @ filled
        is_name = np.array([pa.types.is_dictionary(field.type) for field in ordered.schema])
        for number, key in enumerate(keys):
            places = np.flatnonzero(filled[:, number])
            names = np.flatnonzero(is_name[places]).tolist()
            begin, end = int(ends[number]), int(ends[number + 1])
            while begin < end:
                some = varying[begin : min(end, begin + self._bounds.max_records)]
                size = np.cumsum(some + row_bytes[number])
                count = max(1, int(np.searchsorted(size, self._bounds.max_bytes, "right")))
                yield key, compact(ordered.slice(begin, count).select(places.tolist()), names)
                begin += count


def _sizes(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bytes that a row takes in each column, [columns], and what each row takes besides in texts and lists, [rows]."""
    fixed = np.zeros(batch.num_columns, np.int64)
    varying = np.zeros(batch.num_rows, np.int64)
    for at, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type):
            fixed[at] = NAME_BYTES
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            varying += lengths.fill_null(0).to_numpy(zero_copy_only=False)
        elif pa.types.is_list(column.type):
            fixed[at] = NAME_BYTES
            lengths = pc.list_value_length(column)
            varying += ITEM_BYTES * lengths.fill_null(0).to_numpy(zero_copy_only=False)
        else:
            fixed[at] = -(-column.type.bit_width // 8)
    return fixed, varying


def _filled(batch: pa.RecordBatch, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether a column has any value in a part of the batch, [columns, parts]; each part ends where the next begins."""
    filled = np.ones((batch.num_columns, len(begins)), np.bool_)
    for at, column in enumerate(batch.columns):
        if column.null_count:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            filled[at] = np.logical_or.reduceat(valid, begins)
    return filled


class CounterStream:
    """What a worker does with counter samples: an outbox, and a producer of their own.

    Their own, so that neither they nor the flow records ever wait for the other's topic. Never blocks but in
    :meth:`close`. ``refused`` is told of every row that Kafka did not take.
    """

    def __init__(
        self, outbox: CounterOutbox, producer: RecordProducer, refused: Callable[[Refusal, int], None]
    ) -> None:
        self._outbox = outbox
        self._producer = producer
        self._refused = refused

    @property
    def in_flight(self) -> int:
        """Rows that are neither acknowledged nor refused yet."""
        return self._outbox.rows + self._producer.in_flight_records

    @property
    def fatal(self) -> str | None:
        """Why the client can produce no more, when it says that."""
        return self._producer.fatal

    def start(self) -> None:
        """Make the client; does not wait for a broker."""
        self._producer.start()

    def add(self, batch: pa.RecordBatch, now_ns: int) -> None:
        """Take rows in."""
        if not self._outbox.add(batch, now_ns):
            self._refused(Refusal.QUEUE_FULL, batch.num_rows)

    def send(self, now_ns: int, *, everything: bool = False) -> None:
        """Send what is old enough, or everything."""
        if everything or self._outbox.due(now_ns):
            for key, message in self._outbox.take():
                self._producer.send(BY_KEY, message, key)

    def poll(self) -> None:
        """Count what was acknowledged or refused meanwhile."""
        self._producer.poll()

    def shelter(self) -> None:
        """Have all that comes, and all that only the client has, in the spool, if there is one."""
        self._producer.shelter()

    def close(self, wait_seconds: float, alive: Callable[[], None]) -> None:
        """Wait for the acknowledgement of what was sent; what has none in time, or was never sent, is refused."""
        self._producer.close(wait_seconds, alive)
        if self._outbox.rows:
            self._refused(Refusal.NOT_ACKNOWLEDGED, self._outbox.rows)
            self._outbox.clear()
