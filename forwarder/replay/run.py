"""A replay at work: read → cut → decode → dedup → select → deliver, in one thread, with the sink's own threads behind it.

What is in memory is bounded as in the service of a sink: the open batch of each partition, and the delivery's queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from forwarder.aggregate import Aggregation
from forwarder.assembly import MOST_AHEAD, Assembly, Batch, Held, decode_batch, hold
from forwarder.consumer import Partition
from forwarder.course import Course
from forwarder.delivery import Finished, Parcel
from forwarder.replay.tally import Tally
from forwarder.shaping import NOTHING, Shaped, Shaper
from forwarder.sinks.base import Done
from shared.errors import SluicewayError, UnknownSchemaError

if TYPE_CHECKING:
    import pyarrow as pa

    from forwarder.cut import Token
    from forwarder.replay.plan import Leg
    from forwarder.replay.selection import Selection
    from forwarder.shape import Shape

POLL_MESSAGES: Final = 100
POLL_SECONDS: Final = 0.1
MARK_SECONDS: Final = 1.0
"""How often it is kept how far the replay has come."""


class Reader(Protocol):
    """What is read: :class:`forwarder.replay.kafka.KafkaLog`, which says what each of these does, or a fake."""

    def begin(self, legs: Sequence[Leg]) -> None:
        """Read from the beginnings on."""
        ...

    def read(self, most: int, seconds: float) -> Sequence[Any]:
        """Return what comes."""
        ...

    @property
    def ended(self) -> Collection[int]:
        """Partitions of which nothing is left."""
        ...

    def finish(self, partition: int) -> None:
        """Read nothing more of a partition."""
        ...


class Target(Protocol):
    """Where batches go: :class:`forwarder.delivery.Delivery`, or :class:`Nowhere`."""

    @property
    def has_room(self) -> bool:
        """Whether another batch may be handed over."""
        ...

    def submit(self, parcel: Parcel) -> None:
        """Take a batch."""
        ...

    def take_finished(self) -> list[Finished]:
        """Return what has finished since the last call."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait until something has finished."""
        ...


class Nowhere:
    """Takes batches and does nothing with them: a dry run."""

    def __init__(self) -> None:
        self._finished: list[Finished] = []

    @property
    def has_room(self) -> bool:
        """Always."""
        return True

    def submit(self, parcel: Parcel) -> None:
        """Be done with it."""
        self._finished.append(Finished(parcel, Done()))

    def take_finished(self) -> list[Finished]:
        """Return what was handed over."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, _timeout: float) -> bool:
        """Never wait."""
        return bool(self._finished)


class Pace:
    """How many records may be delivered in a second; None is as many as there are. ``clock`` gives seconds."""

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._next = clock()

    @property
    def seconds_left(self) -> float:
        """Until the next batch may go."""
        return 0.0 if self._rate is None else max(0.0, self._next - self._clock())

    def spend(self, records: int) -> None:
        """Count a batch that goes."""
        if self._rate is not None:
            self._next = max(self._next, self._clock()) + records / self._rate


class CutsDifferError(SluicewayError):
    """The log is not cut as it was: what would be delivered is not what was."""


@dataclass(slots=True)
class Strand:
    """One partition at work."""

    leg: Leg
    assembly: Assembly
    shaper: Shaper
    tally: Tally = field(default_factory=Tally)
    begins: Token | None = None
    """The first batch that was delivered, or had nothing to be delivered."""
    ends: Token | None = None
    read: bool = False
    """Whether all of it was read."""

    @property
    def reached(self) -> int:
        """The offset up to which the sink has everything."""
        return self.assembly.partition.acknowledged

    @property
    def position(self) -> int:
        """The offset that is read next."""
        return self.assembly.partition.position


class Replay:
    """Delivers the batches of ``legs``; :meth:`turn` is called until it is :attr:`finished`.

    ``shapers`` of a topic have its id for their secret. With a selection, what is delivered of a batch has a token of
    its own.
    """

    def __init__(
        self,
        legs: Sequence[Leg],
        topic_id: str,
        *,
        reader: Reader,
        target: Target,
        selection: Selection,
        pace: Pace,
    ) -> None:
        self._reader = reader
        self._target = target
        self._selection = selection
        self._mark = selection.mark
        self._pace = pace
        self.strands = {leg.number: self._strand(leg, topic_id) for leg in legs}
        self._backlog: deque[Batch] = deque()
        self._parcels: dict[Parcel, tuple[Batch, int]] = {}
        self._sums: dict[str, Aggregation] = {}

    def start(self) -> None:
        """Begin to read."""
        self._reader.begin([strand.leg for strand in self.strands.values()])

    @property
    def finished(self) -> bool:
        """Whether the sink has everything."""
        return all(strand.read for strand in self.strands.values()) and not self.in_hand

    @property
    def in_hand(self) -> bool:
        """Whether the sink has something that it has not acknowledged, or is about to get it."""
        return bool(self._parcels or self._backlog)

    @property
    def tally(self) -> Tally:
        """What was counted of all partitions."""
        return sum((strand.tally for strand in self.strands.values()), Tally())

    def turn(self) -> None:
        """Do the next piece of work, or wait a little for something to do."""
        self.settle()
        self._submit()
        if self._backlog and self._target.has_room:
            # Nothing is read while something waits for its time, nor while it waits for room.
            time.sleep(min(self._pace.seconds_left, POLL_SECONDS))
        elif self._backlog or not self._may_read:
            self._target.wait(POLL_SECONDS)
        else:
            for message in self._reader.read(POLL_MESSAGES, POLL_SECONDS):
                self._push(message)
            for number in list(self._reader.ended):
                self._end(self.strands[number])

    @property
    def _may_read(self) -> bool:
        strands = self.strands.values()
        return not all(one.read for one in strands) and all(one.assembly.ahead < MOST_AHEAD for one in strands)

    def stop(self, seconds: float) -> bool:
        """Deliver nothing more, and wait so long for what the sink has in hand; return whether that is done."""
        self._backlog.clear()
        deadline = time.monotonic() + seconds
        self.settle()
        while self._parcels and (left := deadline - time.monotonic()) > 0:
            self._target.wait(min(left, POLL_SECONDS))
            self.settle()
        return not self._parcels

    def settle(self) -> None:
        """Take the sink's acknowledgements."""
        for finished in self._target.take_finished():
            batch, records = self._parcels.pop(finished.parcel)
            if not isinstance(finished.outcome, Done):
                raise SluicewayError(
                    f"the sink refuses the batch {batch.token} for good: {finished.outcome.detail}. Mend the sink or"
                    " its settings; the same command goes on with this batch"
                )
            strand = self.strands[batch.token.partition]
            refused = sum(finished.refused.values())
            strand.tally.refused += refused
            strand.tally.delivered += records - refused
            strand.assembly.acknowledge(batch)

    # --- from messages to batches

    def _strand(self, leg: Leg, topic_id: str) -> Strand:
        course = Course(list(leg.epochs))
        partition = Partition(leg.number, topic_id, leg.read, leg.begin, leg.begin, leg.stop, course)
        shaper = Shaper([self._shape(shape) for shape in course.ahead], topic_id)
        return Strand(leg, Assembly(partition), shaper)

    def _shape(self, shape: Shape) -> Shape:
        """What is selected of a batch is added up when it is selected."""
        return shape if self._selection.is_all else shape.model_copy(update={"aggregate": None})

    def _push(self, message: Any) -> None:  # noqa: ANN401 - a message of the Kafka client, or a fake one
        strand = self.strands[message.partition()]
        if strand.read:
            return
        try:
            held = hold(message)
        except UnknownSchemaError as error:
            raise SluicewayError(
                f"partition {message.partition()} cannot be replayed behind offset {message.offset()}: {error}"
            ) from error
        strand.assembly.partition.position = held.facts.offset + 1
        if strand.assembly.remembers(held.facts.offset):
            strand.shaper.remember(decode_batch([held]))
            return
        self._backlog.extend(batch for batch in self._cut(strand, held) if self._is_wanted(strand, batch))
        if strand.assembly.cutter.start >= min(strand.leg.end, strand.leg.stop):
            self._finish(strand)

    def _cut(self, strand: Strand, held: Held) -> list[Batch]:
        """Take a message, and return the batches that it closes; where cuts are known, there have to be some."""
        assembly, leg, offset = strand.assembly, strand.leg, held.facts.offset
        closed: list[Batch] = []
        if not leg.exact:
            for cut in leg.cuts:
                if assembly.open and assembly.cutter.start < cut <= offset:
                    closed += self._close(assembly, cut)
        closed += assembly.push(held)
        ranges = [(batch.token.start, batch.token.end) for batch in closed] + [(assembly.cutter.start, offset + 1)]
        for start, end in ranges:
            over = [cut for cut in leg.cuts if start < cut < end]
            if leg.exact and over:
                raise CutsDifferError(
                    f"partition {leg.number} was cut at offset {over[0]}, and now a batch reaches from {start} over it:"
                    " the group's offset was moved by hand, or this is a defect. Nothing of it was delivered; replay"
                    " into a sink that has nothing of the range (--into OTHER)"
                )
        return closed

    def _close(self, assembly: Assembly, cut: int) -> list[Batch]:
        ends_ms = assembly.cutter.ends_ms
        return [] if ends_ms is None else assembly.reach(cut, ends_ms)

    def _end(self, strand: Strand) -> None:
        """Close what is open when there is nothing behind it: the group's offset is a cut, and the end of the log."""
        if not strand.read:
            closed = self._close(strand.assembly, strand.leg.stop)
            self._backlog.extend(batch for batch in closed if self._is_wanted(strand, batch))
            self._finish(strand)

    def _is_wanted(self, strand: Strand, batch: Batch) -> bool:
        # Not its token's start: the log may have a gap there.
        return batch.messages[0].facts.offset < strand.leg.end

    def _finish(self, strand: Strand) -> None:
        strand.read = True
        self._reader.finish(strand.leg.number)

    # --- from batches to the sink

    def _submit(self) -> None:
        """Hand over what is cut, as long as there is room and it is time."""
        while self._backlog and self._target.has_room and not self._pace.seconds_left:
            batch = self._backlog.popleft()
            strand = self.strands[batch.token.partition]
            messages, size = len(batch.messages), sum(held.facts.size for held in batch.messages)
            decoded = decode_batch(batch.messages)
            batch.messages = []
            shaped = strand.shaper.shape(self._shape(batch.shape), decoded)
            if batch.token.end <= strand.leg.first:
                # It is before the range: it was made for what dedup remembers of it.
                strand.assembly.acknowledge(batch)
                continue
            strand.begins, strand.ends = strand.begins or batch.token, batch.token
            rows = decoded.table.num_rows
            corrupt = max(0, batch.records - rows) + sum(held.facts.records == 0 for held, _ in decoded.corrupt)
            strand.tally += Tally(
                messages=messages,
                bytes=size,
                batches=1,
                records=rows + corrupt,
                corrupt=corrupt,
                duplicate=shaped.exact,
                other_exporter=shaped.dropped,
            )
            self._hand(strand, batch, shaped, rows - shaped.exact - shaped.dropped)

    def _hand(self, strand: Strand, batch: Batch, shaped: Shaped, records: int) -> None:
        """Hand a batch to the sink, if anything is left of it that it shall have."""
        table, sums, token = shaped.table, shaped.sums, batch.token
        if not self._selection.is_all:
            table, sums = self._selected(table, batch.shape)
            strand.tally.not_selected += records - table.num_rows
            records = table.num_rows
            token = replace(token, only=self._mark)
            if batch.shape.aggregate is not None and not batch.shape.aggregate.keep_raw:
                table = NOTHING
        if not table.num_rows and (sums is None or not sums.num_rows):
            strand.assembly.acknowledge(batch)
            return
        parcel = Parcel(token, table, sums)
        self._parcels[parcel] = batch, records
        self._pace.spend(records)
        self._target.submit(parcel)

    def _selected(self, table: pa.Table, shape: Shape) -> tuple[pa.Table, pa.Table | None]:
        table = self._selection.pick(table)
        if shape.aggregate is None:
            return table, None
        sums = self._sums.setdefault(shape.fingerprint, Aggregation(shape.aggregate.rule))
        return table, sums.apply(table).table


def progress(strands: Mapping[int, Strand]) -> tuple[int, int]:
    """How many messages of all were read."""
    read = sum(min(one.position, one.leg.end) - one.leg.read for one in strands.values())
    return read, sum(one.leg.end - one.leg.read for one in strands.values())
