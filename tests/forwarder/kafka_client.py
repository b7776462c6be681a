"""A consumer and an admin client that answer as the real ones do, from a log that a test has written down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tests.fakes import TOPIC_ID, FakeMessage

MOST_ASKED = 300
"""Requests after which a test has gone on for ever."""


@dataclass(frozen=True, slots=True)
class FakeError:
    """What the client hands over instead of a message."""

    number: int
    code: int

    def error(self) -> KafkaError:
        """What is the matter."""
        return KafkaError(self.code)

    def partition(self) -> int:
        """Of which partition."""
        return self.number

    def offset(self) -> int:
        """At which offset."""
        return 0


def end(number: int = 0) -> FakeError:
    """The end of a partition."""
    return FakeError(number, KafkaError._PARTITION_EOF)


def at(offset: int, append_ms: int = 0, number: int = 0) -> FakeMessage:
    """A message at an offset."""
    return FakeMessage((number, offset), append_ms, b"", (("schema", b"1"),))


@dataclass(slots=True)
class Broker:
    """One topic: `messages` are (offset, append time) of each partition, and offsets between them are no messages."""

    messages: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    lows: Mapping[int, int] = field(default_factory=dict)
    highs: Mapping[int, int] = field(default_factory=dict)
    committed: dict[int, tuple[int, str | None]] = field(default_factory=dict)
    asked: int = 0

    def list_offsets(self, wanted: Mapping[TopicPartition, OffsetSpec], **_: object) -> dict[TopicPartition, Any]:
        """The offsets that are asked for; -1 where no message has the time or a later one."""
        self.asked += 1
        assert self.asked < MOST_ASKED, "asks for ever"
        return {
            name: _done(SimpleNamespace(offset=self._offset(name.partition, spec))) for name, spec in wanted.items()
        }

    def _offset(self, number: int, spec: OffsetSpec) -> int:
        if spec is OffsetSpec.earliest():
            return self.lows.get(number, 0)
        if spec is OffsetSpec.latest():
            return self.highs.get(number, 0)
        found = (offset for offset, append_ms in self.messages.get(number, ()) if append_ms >= spec._value)
        return next(found, -1)

    def describe_topics(self, topics: object, **_: object) -> dict[str, Any]:
        """The topic, whatever it is called."""
        told = _done(SimpleNamespace(topic_id=TOPIC_ID, partitions=[SimpleNamespace(id=one) for one in self.highs]))
        return _Whatever(told)  # type: ignore[return-value]


class _Whatever:
    def __init__(self, told: object) -> None:
        self._told = told

    def __getitem__(self, name: object) -> object:
        return self._told


def _done(result: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


class FakeClient:
    """A consumer whose polls return what the test has put into `polls`, one after the other."""

    def __init__(self, broker: Broker | None = None) -> None:
        self.broker = broker or Broker()
        self.polls: list[list[FakeMessage | FakeError]] = []
        self.sought: list[tuple[int, int]] = []
        self.assigned: dict[int, int] = {}
        self.paused: set[int] = set()
        self.giving: Collection[int] = ()
        self.taking: Collection[int] = ()
        self.answers = Event()
        """Whether the broker answers, and lets it leave."""
        self.answers.set()
        self.left = Event()
        self.refusing: KafkaError | None = None
        """What it is told instead of a commit."""
        self._on_assign: Callable[..., None] | None = None
        self._on_revoke: Callable[..., None] | None = None

    def subscribe(
        self, topics: object, on_assign: Callable[..., None], on_revoke: Callable[..., None], **_: object
    ) -> None:
        """Join."""
        self._on_assign, self._on_revoke = on_assign, on_revoke

    def consume(self, most: int, seconds: float) -> list[FakeMessage | FakeError]:
        """What the test wants; first partitions are taken away and given."""
        giving, taking, self.giving, self.taking = self.giving, self.taking, (), ()
        if taking and self._on_revoke is not None:
            self._on_revoke(self, [TopicPartition("flows", number) for number in taking])
        if giving and self._on_assign is not None:
            self._on_assign(self, [TopicPartition("flows", number) for number in giving])
        return self.polls.pop(0) if self.polls else []

    def assign(self, names: Sequence[TopicPartition]) -> None:
        """Begin."""
        self.assigned = {name.partition: name.offset for name in names}

    def incremental_assign(self, names: Sequence[TopicPartition]) -> None:
        """Begin these."""
        self.assigned |= {name.partition: name.offset for name in names}

    def incremental_unassign(self, names: Sequence[TopicPartition]) -> None:
        """End these; what is paused stays so."""
        for name in names:
            del self.assigned[name.partition]

    def seek(self, name: TopicPartition) -> None:
        """Go back."""
        self.sought.append((name.partition, name.offset))

    def pause(self, names: Sequence[TopicPartition]) -> None:
        """Fetch these no more."""
        self.paused |= {name.partition for name in names}

    def resume(self, names: Sequence[TopicPartition]) -> None:
        """Fetch these again."""
        self.paused -= {name.partition for name in names}

    def committed(self, names: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """What the group has committed."""
        told = ((name, *self.broker.committed.get(name.partition, (-1001, None))) for name in names)
        return [TopicPartition(name.topic, name.partition, offset, note or "") for name, offset, note in told]

    def commit(self, offsets: Sequence[TopicPartition], **_: object) -> list[TopicPartition]:
        """Keep offsets and what stands beside them."""
        if self.refusing is not None:
            raise KafkaException(self.refusing)
        self.broker.committed |= {name.partition: (name.offset, name.metadata) for name in offsets}
        return list(offsets)

    def close(self) -> None:
        """Leave, when the broker answers."""
        self.answers.wait()
        self.left.set()
