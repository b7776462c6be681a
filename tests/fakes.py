"""Stand-ins for what a test must not depend on: time, a broker, a backend."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from forwarder.consumer import Listener, Partition, place
from forwarder.course import Course, read_note
from forwarder.cut import Token
from forwarder.letters import Letter
from forwarder.shape import Shape
from forwarder.sinks.base import Done, Health, Outcome, Refused
from shared.errors import StartError

TOPIC_ID = "1mOjQ0ZpTCmJ8oWzvJ2vAA"


class FakeClock:
    """A clock that goes only when it is told to; in seconds, as a monotonic clock or as Unix time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        """Seconds."""
        return self.seconds

    def ms(self) -> int:
        """Whole milliseconds."""
        return round(self.seconds * 1000)

    def ns(self) -> int:
        """Whole nanoseconds, exact to the microsecond."""
        return round(self.seconds * 1_000_000) * 1000

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class MemorySink:
    """A backend that keeps what it gets, by token, as one that honours tokens does.

    It refuses batches that hold a record of `refuses`. It answers `answers[token's partition]`, one after the other, before it is done with a batch; an exception among
    them is raised. While `gate` is closed (cleared), a delivery waits in it.
    """

    def __init__(self, *, opens: bool = True) -> None:
        self.opens = opens
        self.refuses: set[int] = set()
        """Ids of records that it will never take."""
        self.answers: dict[int, list[Outcome | Exception]] = defaultdict(list)
        self.gate = threading.Event()
        self.gate.set()
        self.tables: dict[Token, pa.Table] = {}
        self.sums: dict[Token, pa.Table] = {}
        self.tries: list[Token] = []
        self.running: set[Token] = set()
        self.most_running: dict[int, int] = defaultdict(int)
        self.ok = True
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open, or not."""
        if not self.opens:
            raise StartError("the backend is not there")

    def deliver(self, table: pa.Table, token: Token, sums: pa.Table | None = None) -> Outcome:
        """Keep the batch, or answer what was asked for."""
        with self._lock:
            self.tries.append(token)
            self.running.add(token)
            ours = sum(one.partition == token.partition for one in self.running)
            self.most_running[token.partition] = max(self.most_running[token.partition], ours)
            answer = self.answers[token.partition].pop(0) if self.answers[token.partition] else Done()
        try:
            self.gate.wait()
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Done) and self.refuses & set(_ids(table)):
                return Refused("no such record")
            if isinstance(answer, Done):
                with self._lock:
                    self.tables[token] = table
                    if sums is not None:
                        self.sums[token] = sums
            return answer
        finally:
            with self._lock:
                self.running.discard(token)

    def health(self) -> Health:
        """As the test wants it."""
        return Health(self.ok, "is well" if self.ok else "is not well")

    def close(self) -> None:
        """Do nothing."""

    def record_ids(self) -> list[int]:
        """Every record that it has, one time for each token that brought it."""
        return [identity for table in self.tables.values() for identity in _ids(table)]


def _ids(table: pa.Table) -> list[int]:
    return table["record_id"].to_pylist() if "record_id" in table.column_names else []


class FakeLetterbox:
    """Keeps dead letters, unless it has a trouble to tell first."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.troubles: list[str] = []

    def put(self, letters: Sequence[Letter]) -> str | None:
        """Keep them, or tell the next trouble."""
        if self.troubles:
            return self.troubles.pop(0)
        self.letters += letters
        return None


class FakePulse:
    """Keeps what heartbeats it was asked for; `append` may put them into a log."""

    def __init__(self, append: Callable[[int, int], object] = lambda _partition, _ends_ms: None) -> None:
        self.beats: list[tuple[int, int]] = []
        self.closed = False
        self._append = append

    def beat(self, partition: int, ends_ms: int) -> None:
        """Note the heartbeat."""
        self.beats.append((partition, ends_ms))
        self._append(partition, ends_ms)

    def poll(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A message as the Kafka client hands it over, as far as we look at it."""

    at: tuple[int, int]
    append_ms: int
    content: bytes | None
    pairs: tuple[tuple[str, str | bytes | None], ...]

    def partition(self) -> int:
        """Its partition."""
        return self.at[0]

    def offset(self) -> int:
        """Its offset."""
        return self.at[1]

    def timestamp(self) -> tuple[int, int]:
        """Kind of time, and when the broker appended it, in milliseconds."""
        return TIMESTAMP_LOG_APPEND_TIME, self.append_ms

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        """Its headers."""
        return list(self.pairs)

    def value(self) -> bytes | None:
        """Its value."""
        return self.content

    def key(self) -> bytes | None:
        """It has none."""
        return None

    def error(self) -> None:
        """It is none."""


@dataclass(slots=True)
class FakeTopic:
    """A topic, and the offsets and notes that a group has committed: what outlives every consumer.

    `lows` are the first offsets that the log still has.
    """

    messages: dict[int, list[FakeMessage]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    lows: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def append(
        self, partition: int, append_ms: int, value: bytes | None, headers: Sequence[tuple[str, str | bytes | None]]
    ) -> FakeMessage:
        """Append a message, and return it."""
        message = FakeMessage((partition, len(self.messages[partition])), append_ms, value, tuple(headers))
        self.messages[partition].append(message)
        return message

    def end(self, partition: int) -> int:
        """The offset that the next message gets."""
        return len(self.messages[partition])


class FakeLog:
    """A consumer of a `FakeTopic` with the rules of `LogConsumer`; the test gives and takes its partitions.

    What `give`, `revoke` and `lose` ask for happens in the next `poll`, as with the real one.
    """

    def __init__(self, topic: FakeTopic, listener: Listener, shape: Shape, partitions: Sequence[int] = ()) -> None:
        self.topic = topic
        self.shape = shape
        self.listener = listener
        self.ours: dict[int, Partition] = {}
        self.joined = False
        self.complaint: str | None = None
        self.paused = False
        self.closed = False
        self.mute = False
        """Whether it says nothing more to the group, as if it had been killed."""
        self.polls = 0
        self.failure: Exception | None = None
        self._orders: list[Callable[[], None]] = []
        if partitions:
            self.give(partitions)

    def open(self) -> None:
        """Do nothing."""

    def give(self, numbers: Sequence[int]) -> None:
        """Assign partitions."""
        self._orders.append(lambda: self._assign(numbers))

    def revoke(self, numbers: Sequence[int]) -> None:
        """Take partitions away in order."""
        self._orders.append(lambda: self._revoke(numbers))

    def lose(self, numbers: Sequence[int]) -> None:
        """Take partitions away as if we had been away."""
        self._orders.append(lambda: self._forget(numbers))

    def order(self, what: Callable[[], None]) -> None:
        """Do something inside the next poll, before it reads."""
        self._orders.append(what)

    def pass_by(self, number: int, low: int) -> None:
        """Let the log's start pass the reader of a partition; called inside a poll."""
        self.topic.lows[number] = low
        self.listener.expired(self.ours[number], low)
        self.ours[number].position = low

    def poll(self, max_messages: int, timeout: float) -> Sequence[FakeMessage]:
        """Return what is there."""
        self.polls += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        orders, self._orders = self._orders, []
        for order in orders:
            order()
        taken: list[FakeMessage] = []
        if not self.paused:
            for partition in self.ours.values():
                if partition.stopped is None and not partition.held:
                    messages = self.topic.messages[partition.number][partition.position :][: max_messages - len(taken)]
                    taken += messages
                    partition.position += len(messages)
                    # As from Kafka, the end is told with the messages before it, whatever becomes of them then.
                    partition.ended = partition.position >= self.topic.end(partition.number)
        if not taken:
            time.sleep(0.001)
        return taken

    def commit(self) -> None:
        """Commit at once."""
        for partition in () if self.mute else self.ours.values():
            if partition.acknowledged > partition.committed:
                self._note(partition, None)

    def _note(self, partition: Partition, settled: int | None) -> None:
        partition.committed = self.topic.committed[partition.number] = partition.acknowledged
        self.topic.notes[partition.number] = partition.course.note(settled)

    def _commit_last(self, numbers: Sequence[int]) -> None:
        if self.mute:
            return
        for number in numbers:
            one = self.ours[number]
            if one.settled or one.acknowledged > one.committed:
                self._note(one, one.acknowledged if one.settled else None)

    def stop(self, partition: Partition, offset: int, reason: str) -> None:
        """Read no more of it."""
        partition.stand_still(offset, reason)

    def hold(self, partition: Partition) -> None:
        """Return nothing of it from now on."""
        partition.held = True

    def release(self, partition: Partition) -> None:
        """Return its messages again."""
        partition.held = False

    def pause(self) -> None:
        """Return nothing from now on."""
        self.paused = True

    def resume(self) -> None:
        """Return messages again."""
        self.paused = False

    def refresh_highs(self) -> None:
        """Learn where the partitions end."""
        for partition in self.ours.values():
            partition.high = self.topic.end(partition.number)

    def close(self) -> None:
        """Commit, and leave."""
        self._commit_last(list(self.ours))
        self.ours.clear()
        self.closed = True

    def crash(self) -> None:
        """Be gone without a word."""
        self.ours.clear()
        self.closed = True

    def _assign(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            low, high = self.topic.lows[number], self.topic.end(number)
            committed = self.topic.committed.get(number, -1)
            where = place(committed, low, high, number)
            course = Course.plan(read_note(self.topic.notes.get(number)), where.offset, high, self.shape)
            partition = Partition(number, TOPIC_ID, where.offset, where.offset, where.offset, high, course)
            self._note(partition, None)
            partition.position = max(low, self._memorable(partition))
            self.ours[number] = partition
            self.listener.assigned(partition, where.expired)
        self.joined = True

    def _memorable(self, partition: Partition) -> int:
        """The first offset that has to be known again."""
        messages, begin = self.topic.messages[partition.number], partition.acknowledged
        if not partition.course.remembers or not messages:
            return begin
        since = partition.course.oldest_ms(messages[min(begin, len(messages) - 1)].append_ms)
        return next((at for at, one in enumerate(messages[:begin]) if one.append_ms >= since), begin)

    def _revoke(self, numbers: Sequence[int]) -> None:
        self.listener.revoking(numbers)
        self._commit_last(numbers)
        self._forget(numbers)

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            del self.ours[number]
        self.listener.gone(numbers)
