"""Where batches end: a pure function of the log.

Whoever reads a partition, whenever, from the first cut or from a later one, finds the same cuts. That is what lets a
batch's range of offsets be its name, and a backend that honours the name see every record once, whatever crashed in
between. So nothing here may depend on a clock, on what was fetched together, or on what a sink did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """What the cut has to know of one message: where it is, when the broker appended it, and how much it holds.

    ``records`` is 0 for a heartbeat, which is nothing but a message of a later interval.
    """

    offset: int
    append_ms: int
    records: int
    size: int


@dataclass(frozen=True, slots=True)
class CutRule:
    """How long (in append time), how many records and how many bytes a batch may be; all at least 1."""

    interval_ms: int
    max_records: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Range:
    """The offsets of one batch: ``start`` belongs to it, ``end`` does not."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Token:
    """The name of a batch, the same whenever it is delivered.

    It carries the topic's id and not its name: offsets of a topic that was deleted and made again begin at 0 again.
    ``rows`` names a part of the batch, from a row to the one behind the last, where it had to be divided. ``only`` names
    a selection of its records, where a replay delivers no more than that.
    """

    topic_id: str
    partition: int
    start: int
    end: int
    rows: tuple[int, int] | None = None
    only: str | None = None

    def __str__(self) -> str:
        only = "" if self.only is None else f":only-{self.only}"
        part = "" if self.rows is None else f":{self.rows[0]}-{self.rows[1]}"
        return f"{self.topic_id}:{self.partition}:{self.start}-{self.end}{only}{part}"


class Cutter:
    """Cuts one partition, message by message, beginning at ``start_offset``, which is a cut.

    A batch ends only between messages: before one whose append time lies in another interval than the open batch's,
    before one that would take a batch that holds something over the rule's records or bytes, after one that reaches
    them, and after one that leaves it without a record. So a heartbeat ends the batch before it and is one of its own:
    a partition that has fallen idle is delivered and committed to its end, instead of lagging by a message for ever,
    and by one that expires. Ranges follow each other without a gap, even where the log has gaps.
    """

    def __init__(self, start_offset: int, rule: CutRule) -> None:
        self._rule = rule
        self._start = start_offset
        self._interval: int | None = None
        self._records = 0
        self._size = 0

    @property
    def start(self) -> int:
        """Offset of the last cut: where the open batch begins."""
        return self._start

    @property
    def ends_ms(self) -> int | None:
        """Append time from which on no message can belong to the open batch; None when there is none."""
        return None if self._interval is None else (self._interval + 1) * self._rule.interval_ms

    def before(self, message: Message) -> Range | None:
        """Return the range that ends before the next message; :meth:`add` takes it, after that."""
        return self.reach(message.offset, message.append_ms) or (
            self.close(message.offset) if self._interval is not None and self._overflows(message) else None
        )

    def add(self, message: Message) -> Range | None:
        """Take the next message into the open batch, and return the range that it ends, if it does."""
        self._interval = message.append_ms // self._rule.interval_ms
        self._records += message.records
        self._size += message.size
        full = self._records >= self._rule.max_records or self._size >= self._rule.max_bytes
        return self.close(message.offset + 1) if full or not self._records else None

    def reach(self, offset: int, append_ms: int) -> Range | None:
        """Return the range that is closed by the mere time of the message at ``offset``, whatever that message holds.

        For a message that cannot be read, and so cannot be pushed.
        """
        if self._interval is None or append_ms // self._rule.interval_ms == self._interval:
            return None
        return self.close(offset)

    def close(self, end: int) -> Range:
        """End the open batch before offset ``end``.

        From outside only for a log whose next messages have expired: nobody can ever read this batch's range again,
        so no other cut of it can come about.
        """
        closed = Range(self._start, end)
        self._start = end
        self._interval = None
        self._records = 0
        self._size = 0
        return closed

    def _overflows(self, message: Message) -> bool:
        return (
            self._records + message.records > self._rule.max_records or self._size + message.size > self._rule.max_bytes
        )
