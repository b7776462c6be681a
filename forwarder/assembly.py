"""What is read of one partition on its way into batches: the open one, and those that wait for their acknowledgement."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forwarder.consumer import Partition
from forwarder.cut import Cutter, Message, Range, Token
from forwarder.shape import Shape
from shared.codec import CorruptMessageError, Headers, decode, merge, merged_rows, read_headers

MOST_AHEAD: Final = 1000
"""Batches of a partition that a sink may have behind one that it does not take; nothing more is read of it then."""


@dataclass(frozen=True, slots=True)
class Held:
    """One message that was read: its facts, and its value and headers as Kafka has them."""

    facts: Message
    value: bytes
    headers: Headers = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Batch:
    """A batch whose cut is in the log, from then on until the sink has acknowledged it.

    ``records`` is how many the ledger has of it; ``messages`` is empty once they became columns.
    """

    token: Token
    shape: Shape
    messages: list[Held]
    records: int
    oldest_ms: int | None
    repeated: int = 0
    """Records that were there before, and are not delivered."""
    others: int = 0
    """Records whose flow counts by another observation, and that are not delivered."""
    handed: bool = False
    """Whether it was given to the sink, which may have it from then on."""
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch as columns, and what was wrong with its messages.

    ``runs`` has the append time and the number of rows of each sound message, in the order of the log; ``rows`` tells
    where in the table the rows are, in that order, or is None where they are in it. ``corrupt`` are the messages that
    cannot be decoded, each with the reason; they are not in the table.
    """

    table: pa.Table
    runs: tuple[tuple[int, int], ...]
    rows: npt.NDArray[np.int64] | None
    corrupt: tuple[tuple[Held, str], ...]


@dataclass(slots=True)
class Assembly:
    """The batches of one partition; made at its assignment, and gone with it.

    The first batch begins at the partition's lowest cut that is not acknowledged. What is read before that is there to
    be remembered (:attr:`remembers`), and belongs to no batch.
    """

    partition: Partition
    cutter: Cutter = field(init=False)
    open: list[Held] = field(default_factory=list)
    waiting: deque[Batch] = field(default_factory=deque)
    """Cut and not acknowledged, or acknowledged behind one that is not, in the order of the log."""
    ahead: int = 0
    """How many of these are acknowledged, and cannot be committed before one that is not."""
    stopped_ms: int | None = None
    """Append time of the message that the partition stands still at."""
    _begin: int = field(init=False)

    def __post_init__(self) -> None:
        self._cut_from(self.partition.acknowledged)

    def remembers(self, offset: int) -> bool:
        """Whether the message at an offset was delivered before, and is read only to be remembered."""
        return offset < self._begin

    def push(self, held: Held) -> list[Batch]:
        """Take the next message, and return the batches that it closes: none, one, or two."""
        before = self._close(self.cutter.before(held.facts))
        self.open.append(held)
        return before + self._close(self.cutter.add(held.facts))

    def reach(self, offset: int, append_ms: int) -> list[Batch]:
        """Return the batch that is closed by the mere time of a message that cannot be read."""
        return self._close(self.cutter.reach(offset, append_ms))

    def skip(self, low: int) -> tuple[list[Batch], int]:
        """Go on at ``low``, since the messages before it have expired; what was read before them is a batch.

        Returns that batch, if any, and how many messages have expired that were not delivered.
        """
        if low <= self._begin:
            return [], 0
        gone = low - max(self.partition.position, self._begin)
        closed = self._close(self.cutter.close(self.partition.position)) if self.open else []
        self._cut_from(low)
        return closed, gone

    def hand(self, batch: Batch) -> None:
        """Note that a batch is given to the sink."""
        batch.handed = True
        self.partition.settled = False

    def acknowledge(self, batch: Batch) -> None:
        """Note that the sink has a batch, and move the partition's lowest cut over all that it has without a gap."""
        batch.acknowledged = True
        self.ahead += 1
        while self.waiting and self.waiting[0].acknowledged:
            self.partition.acknowledged = self.waiting.popleft().token.end
            self.ahead -= 1
        self.partition.settled = not any(one.handed for one in self.waiting)

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

    def _cut_from(self, offset: int) -> None:
        self._begin = offset
        self.partition.course.cut(offset)
        self.cutter = Cutter(offset, self.partition.course.shape.rule)

    def _close(self, one: Range | None) -> list[Batch]:
        if one is None:
            return []
        course = self.partition.course
        messages, self.open = self.open, []
        token = Token(self.partition.topic_id, self.partition.number, one.start, one.end)
        records = sum(held.facts.records for held in messages)
        batch = Batch(token, course.shape, messages, records, messages[0].facts.append_ms if messages else None)
        self.waiting.append(batch)
        if course.cut(one.end):
            self.cutter = Cutter(one.end, course.shape.rule)
        return [batch]


NOTHING: Final = b""
"""The value of a heartbeat."""


def hold(message: Any) -> Held:  # noqa: ANN401 - a message of the Kafka client, or a fake one
    """Take a message as the cut needs it.

    Raises:
        UnknownSchemaError: this program does not know what it holds.
    """
    told = message.headers() or []
    info, value = read_headers(told), message.value() or NOTHING
    records = _count(value) if info.records is None else info.records
    return Held(Message(message.offset(), message.timestamp()[1], records, len(value)), value, told)


def _count(value: bytes) -> int:
    """How many records a message has whose headers do not say it; 0 when it cannot be decoded."""
    try:
        return int(decode(value).num_rows)
    except CorruptMessageError:
        return 0


def decode_batch(messages: list[Held]) -> Decoded:
    """Make one table of the messages of a batch; what cannot be decoded is left out and told."""
    tables, runs, corrupt = [], [], []
    for held in messages:
        if held.value == NOTHING and held.facts.records == 0:
            continue
        try:
            tables.append(decode(held.value))
            runs.append((held.facts.append_ms, tables[-1].num_rows))
        except CorruptMessageError as error:
            corrupt.append((held, str(error)))
    return Decoded(merge(tables), tuple(runs), merged_rows(tables), tuple(corrupt))
