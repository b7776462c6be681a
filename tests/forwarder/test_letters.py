"""What becomes of dead letters on their way to Kafka, with a client that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from forwarder import letters
from forwarder.letters import CORRUPT, KafkaLetterbox, Letter
from shared.config import KafkaConfig
from shared.kafka import Properties, TopicReport
from shared.metrics import Book

TOPIC = "flows.deadletter"
LETTER = Letter(b"12345", [], CORRUPT, 3)


@dataclass(slots=True)
class FakeClient:
    """A client that acknowledges what it is given when it is flushed; not after it has failed for good.

    What has happened to it, it tells when it is asked: ``events``.
    """

    properties: Properties
    full: Exception | None = None
    code: int | None = None
    dead: bool = False
    events: list[KafkaError] = field(default_factory=list)
    waiting: list[tuple[bytes, Callable[..., None]]] = field(default_factory=list)

    def produce(self, _topic: str, value: bytes, *, on_delivery: Callable[..., None], **_: Any) -> None:  # noqa: ANN401
        """Take a message."""
        if self.dead:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if self.full is not None:
            raise self.full
        self.waiting.append((value, on_delivery))

    def poll(self, _timeout: float) -> None:
        """Tell what has happened."""
        events, self.events = self.events, []
        for event in events:
            self.properties["error_cb"](event)

    def flush(self, timeout: float) -> int:
        """Answer all that waits."""
        self.poll(timeout)
        waiting, self.waiting = self.waiting, []
        for value, tell in waiting:
            tell(None if self.code is None else KafkaError(self.code), FakeMessage(value))
        return 0

    def purge(self) -> None:
        """Nothing waits after a flush."""

    def fail(self, error: KafkaError) -> None:
        """Something happens to it."""
        self.dead = error.fatal()
        self.events.append(error)


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A message as the client tells of it."""

    octets: bytes

    def value(self) -> bytes:
        """Its value."""
        return self.octets


@dataclass(slots=True)
class Putting:
    """A letterbox, its clients and its books."""

    clients: list[FakeClient] = field(default_factory=list)
    book: Book = field(default_factory=Book)
    box: KafkaLetterbox = field(init=False)

    def __post_init__(self) -> None:
        """Make the box."""
        self.box = KafkaLetterbox(KafkaConfig(), "test", self.book, self._connect)

    def _connect(self, properties: Properties) -> Producer:
        self.clients.append(FakeClient(properties))
        return cast(Producer, self.clients[-1])


@pytest.fixture
def putting(monkeypatch: pytest.MonkeyPatch) -> Putting:
    """A letterbox whose topic is there."""

    def ensured(_config: KafkaConfig, _names: Sequence[str], _timeout_seconds: float) -> TopicReport:
        return TopicReport()

    monkeypatch.setattr(letters, "ensure_topics", ensured)
    return Putting()


@pytest.mark.parametrize(
    ("error", "clients"),
    [
        pytest.param(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "fenced", fatal=True), 2, id="for good"),
        pytest.param(KafkaError(KafkaError._ALL_BROKERS_DOWN), 1, id="for now"),
    ],
)
def test_a_client_that_has_failed_for_good_is_replaced(putting: Putting, error: KafkaError, clients: int) -> None:
    """Letters go on then, with a new one; nothing that passes by itself costs the client."""
    assert putting.box.put([LETTER]) is None
    putting.clients[0].fail(error)
    assert [putting.box.put([LETTER]) for _ in range(3)] == [None] * 3
    assert len(putting.clients) == clients


def test_what_is_put_away_is_counted(putting: Putting) -> None:
    """In messages and bytes of their values, by topic."""
    assert putting.box.put([LETTER, LETTER]) is None
    assert putting.book.snapshot() == {
        "kafka_produced_messages_total": {(TOPIC,): 2},
        "kafka_produced_bytes_total": {(TOPIC,): 2 * len(LETTER.value)},
    }


@pytest.mark.parametrize(
    ("full", "code", "reason"),
    [
        pytest.param(BufferError("queue is full"), None, "queue_full", id="full"),
        pytest.param(KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), None, "too_large", id="too large"),
        pytest.param(None, KafkaError.TOPIC_AUTHORIZATION_FAILED, "not_authorized", id="forbidden"),
        pytest.param(None, KafkaError._MSG_TIMED_OUT, "not_acknowledged", id="late"),
    ],
)
def test_what_cannot_be_put_away_is_counted_with_its_reason(
    putting: Putting, full: Exception | None, code: int | None, reason: str
) -> None:
    """Whoever puts it is told, to put it again; each try counts."""
    putting.box.put([])
    putting.clients[0].full, putting.clients[0].code = full, code
    for _ in range(2):
        assert str(putting.box.put([LETTER])).startswith(f"dead letters cannot be put into {TOPIC}")
    assert putting.book.snapshot() == {"kafka_produce_errors_total": {(TOPIC, reason): 2}}
