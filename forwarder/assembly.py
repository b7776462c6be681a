"""What is read of one partition on its way into batches: the open one, and those that wait for their acknowledgement."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from forwarder.consumer import Partition
from forwarder.cut import CutRule, Cutter, Message, Range, Token
from shared.codec import CorruptMessageError, decode, merge
from shared.record import COLUMN, Column


@dataclass(frozen=True, slots=True)
class Held:
    """One message that was read: its facts, and its value as Kafka has it."""

    facts: Message
    value: bytes


@dataclass(slots=True, eq=False)
class Batch:
    """A batch whose cut is in the log, from then on until the sink has acknowledged it.

    ``records`` is how many the ledger has of it; ``messages`` is empty once they became columns.
    """

    token: Token
    messages: list[Held]
    records: int
    oldest_ms: int | None
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch as columns, and what was wrong with its messages.

    ``corrupt`` are the messages that cannot be decoded, each with the reason; they are not in the table.
    """

    table: pa.Table
    corrupt: tuple[tuple[Held, str], ...]


@dataclass(slots=True)
class Assembly:
    """The batches of one partition; made at its assignment, and gone with it."""

    partition: Partition
    rule: CutRule
    cutter: Cutter = field(init=False)
    open: list[Held] = field(default_factory=list)
    waiting: deque[Batch] = field(default_factory=deque)
    """Cut and not acknowledged, or acknowledged behind one that is not, in the order of the log."""
    stopped_ms: int | None = None
    """Append time of the message that the partition stands still at."""

    def __post_init__(self) -> None:
        self.cutter = Cutter(self.partition.position, self.rule)

    def push(self, held: Held) -> list[Batch]:
        """Take the next message, and return the batches that it closes."""
        closed = []
        for one in self.cutter.push(held.facts):
            # A range that ends behind the message holds it.
            if one.end > held.facts.offset:
                self.open.append(held)
            closed.append(self._close(one))
        if self.cutter.start <= held.facts.offset:
            self.open.append(held)
        return closed

    def reach(self, offset: int, append_ms: int) -> list[Batch]:
        """Return the batch that is closed by the mere time of a message that cannot be read."""
        return [self._close(one) for one in self.cutter.reach(offset, append_ms)]

    def skip(self, low: int) -> list[Batch]:
        """Go on at ``low``, since the messages before it have expired; what was read before them is a batch."""
        closed = [self._close(self.cutter.close(self.partition.position))] if self.open else []
        self.cutter = Cutter(low, self.rule)
        return closed

    def acknowledge(self, batch: Batch) -> None:
        """Note that the sink has a batch, and move the partition's lowest cut over all that it has without a gap."""
        batch.acknowledged = True
        while self.waiting and self.waiting[0].acknowledged:
            self.partition.acknowledged = self.waiting.popleft().token.end

    @property
    def idle(self) -> bool:
        """Whether all that the partition has is acknowledged."""
        return self.partition.ended and not self.open and not self.waiting

    @property
    def records(self) -> int:
        """How many records of this partition are in the ledger's flight."""
        return sum(held.facts.records for held in self.open) + sum(
            batch.records for batch in self.waiting if not batch.acknowledged
        )

    @property
    def oldest_ms(self) -> int | None:
        """Append time of the oldest message that was reached and is not acknowledged."""
        for batch in self.waiting:
            if not batch.acknowledged and batch.oldest_ms is not None:
                return batch.oldest_ms
        return self.open[0].facts.append_ms if self.open else self.stopped_ms

    def _close(self, one: Range) -> Batch:
        messages, self.open = self.open, []
        token = Token(self.partition.topic_id, self.partition.number, one.start, one.end)
        records = sum(held.facts.records for held in messages)
        batch = Batch(token, messages, records, messages[0].facts.append_ms if messages else None)
        self.waiting.append(batch)
        return batch


NOTHING: Final = b""
"""The value of a heartbeat."""


def decode_batch(messages: list[Held]) -> Decoded:
    """Make one table of the messages of a batch, in their order; what cannot be decoded is left out and told."""
    tables, corrupt = [], []
    for held in messages:
        if held.value == NOTHING and held.facts.records == 0:
            continue
        try:
            tables.append(read_value(held.value))
        except CorruptMessageError as error:
            corrupt.append((held, str(error)))
    return Decoded(merge(tables), tuple(corrupt))


def read_value(value: bytes, columns: Mapping[str, Column] = COLUMN) -> pa.Table:
    """Return the rows of one message, sound to the last byte: one bad message must not harm a whole batch.

    ``columns`` are those of the topic, by name. Raises CorruptMessageError, and nothing else, whatever the bytes are.
    """
    try:
        table = decode(value, columns)
        names = table.column_names
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise CorruptMessageError(f"not a sound Arrow stream: {error}") from error
    if len(set(names)) < len(names):
        raise CorruptMessageError("a column comes twice")
    return table
