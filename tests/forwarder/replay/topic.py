"""A topic that can be asked as a replay asks Kafka, and a sink's life with it, as it was before the replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from forwarder.assembly import Assembly, Batch, decode_batch, hold
from forwarder.consumer import Partition
from forwarder.course import Course, Noted, read_note
from forwarder.cut import Token
from forwarder.delivery import Finished, Parcel
from forwarder.replay.plan import Delivered, Leg, Seen
from forwarder.shape import Shape
from forwarder.shaping import Shaper
from forwarder.sinks.base import Done, Outcome
from shared import codec
from shared.kafka import KafkaAway
from tests.fakes import TOPIC_ID, FakeMessage

Content = tuple[pa.Table, pa.Table | None]


class Topic:
    """A log with gaps; it is read `chunk` messages at a time."""

    def __init__(self, chunk: int = 100) -> None:
        self.messages: dict[int, list[FakeMessage]] = defaultdict(list)
        self.ends: dict[int, int] = defaultdict(int)
        self.lows: dict[int, int] = defaultdict(int)
        self.positions: dict[int, int] = {}
        self.chunk = chunk
        self.ended: Collection[int] = ()
        self.finished: list[int] = []

    def append(
        self, partition: int, append_ms: int, value: bytes, headers: codec.Headers, *, gap: int = 0
    ) -> FakeMessage:
        """Append a message, behind so many offsets that are no messages."""
        message = FakeMessage((partition, self.ends[partition] + gap), append_ms, value, tuple(headers))
        self.messages[partition].append(message)
        self.ends[partition] = message.offset() + 1
        return message

    def there(self, partition: int, offset: int = 0) -> list[FakeMessage]:
        """Its messages from an offset on, as far as they have not expired."""
        least = max(offset, self.lows[partition])
        return [one for one in self.messages[partition] if one.offset() >= least]

    # --- what a plan asks

    def bounds(self, partition: int) -> tuple[int, int]:
        """Where the log begins and ends."""
        return self.lows[partition], self.ends[partition]

    def offset_at(self, partition: int, ms: int) -> int:
        """The first offset from a time on."""
        found = (one.offset() for one in self.there(partition) if one.append_ms >= ms)
        return next(found, self.ends[partition])

    def look(self, partition: int, offset: int) -> Seen | None:
        """The first message from an offset on."""
        return next((Seen(one.offset(), one.append_ms) for one in self.there(partition, offset)), None)

    # --- what a replay reads

    def begin(self, legs: Sequence[Leg]) -> None:
        """Read from there on."""
        self.positions = {leg.number: leg.read for leg in legs}

    def read(self, most: int, seconds: float) -> list[FakeMessage]:
        """What comes next, of all partitions."""
        found: list[FakeMessage] = []
        for number, position in self.positions.items():
            taken = self.there(number, position)[: min(most, self.chunk)]
            if taken:
                self.positions[number] = taken[-1].offset() + 1
            found += taken
        self.ended = [number for number, position in self.positions.items() if not self.there(number, position)]
        return found

    def finish(self, partition: int) -> None:
        """Read it no more."""
        del self.positions[partition]
        self.finished.append(partition)
        self.ended = [number for number in self.ended if number != partition]


@dataclass
class Group:
    """What a sink's group has committed of one partition, and what it has delivered."""

    number: int = 0
    committed: int | None = None
    note: str = ""
    delivered: dict[Token, Content] = field(default_factory=dict)

    @property
    def told(self) -> dict[int, Delivered]:
        """What it tells a replay."""
        if self.committed is None:
            return {}
        return {self.number: Delivered(self.committed, read_note(self.note))}

    def told_without_shapes(self) -> dict[int, Delivered]:
        """What it would tell if its notes were lost."""
        return {number: Delivered(one.committed, Noted()) for number, one in self.told.items()}

    def live(self, topic: Topic, shape: Shape, deliver: int, commit: int, *, clean: bool) -> None:
        """Run as a forwarder does that delivers some batches and commits some of them, and then stops or is killed."""
        low, high = topic.bounds(self.number)
        start = max(low, low if self.committed is None else self.committed)
        course = Course.plan(read_note(self.note), start, high, shape)
        self.committed, self.note = start, course.note()
        partition = Partition(self.number, TOPIC_ID, start, start, start, high, course)
        assembly, shaper = Assembly(partition), Shaper(course.ahead, TOPIC_ID)
        first = topic.look(self.number, start)
        read = start
        if course.remembers and first is not None:
            read = min(start, topic.offset_at(self.number, course.oldest_ms(first.append_ms)))
        closed: list[Batch] = []
        for message in topic.there(self.number, read):
            held = hold(message)
            if assembly.remembers(held.facts.offset):
                shaper.remember(decode_batch([held]))
            else:
                closed += assembly.push(held)
        for number, batch in enumerate(closed[:deliver]):
            shaped = shaper.shape(batch.shape, decode_batch(batch.messages))
            if shaped.table.num_rows or (shaped.sums is not None and shaped.sums.num_rows):
                before = self.delivered.setdefault(batch.token, (shaped.table, shaped.sums))
                assert same(before, (shaped.table, shaped.sums))
            if clean or number < commit:
                assembly.acknowledge(batch)
        if partition.acknowledged > self.committed or clean:
            self.committed = partition.acknowledged
            self.note = course.note(self.committed if clean else None)


class Backend:
    """Takes batches at once, and keeps them by their tokens; one that comes again has to be the same."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.has: dict[Token, Content] = {}
        self.has_room = True
        self.outcome = outcome
        self._finished: list[Finished] = []

    def submit(self, parcel: Parcel) -> None:
        """Take it."""
        content = (parcel.table, parcel.sums)
        assert same(self.has.setdefault(parcel.token, content), content)
        self._finished.append(Finished(parcel, Done() if self.outcome is None else self.outcome))  # type: ignore[arg-type]

    def take_finished(self) -> list[Finished]:
        """What it took since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, timeout: float) -> bool:
        """Do not wait."""
        return bool(self._finished)


def same(one: Content, other: Content) -> bool:
    """Whether two batches have the same rows in the same order, and the same sums."""
    if not one[0].equals(other[0]):
        return False
    if one[1] is None or other[1] is None:
        return one[1] is other[1]
    return bool(one[1].equals(other[1]))


class Kafka(Topic):
    """A topic, and what groups have committed: `groups` by their names, `marks` of the replay's own."""

    def __init__(self, chunk: int = 100) -> None:
        super().__init__(chunk)
        self.groups: dict[str, dict[int, Delivered]] = {}
        self.marks: dict[int, tuple[int, str | None]] = {}
        self.away_after: int | None = None
        """How many times bookmarks can be kept before that begins to fail."""

    def delivered(self, group: str, partitions: int) -> dict[int, Delivered]:
        """What a group has committed."""
        return self.groups.get(group, {})

    def bookmarks(self, partitions: int) -> dict[int, tuple[int, str | None]]:
        """How far the replay has come."""
        return dict(self.marks)

    def mark(self, offsets: Mapping[int, tuple[int, str]]) -> None:
        """Keep how far it has come, unless that is to fail."""
        if self.away_after is not None:
            self.away_after -= 1
            if self.away_after < 0:
                raise KafkaAway("no broker answers")
        self.marks |= offsets

    def forget(self) -> None:
        """Remove the bookmarks."""
        self.marks.clear()
