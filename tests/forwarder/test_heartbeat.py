from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from forwarder.heartbeat import AGAIN_MS, FORBIDDEN_MS, GRACE_MS, BrokerClock, Heart
from shared.codec import read_headers
from shared.config import KafkaConfig
from shared.kafka import Properties
from shared.log import Throttle
from shared.metrics import Book, total
from tests.fakes import FakeClock

ENDS_MS = 60_000


@dataclass(slots=True)
class FakeProducer:
    """A producer whose messages get `append_ms`, or fail with `code`, at the next poll."""

    append_ms: int = ENDS_MS + GRACE_MS
    code: int | None = None
    full: Exception | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[Callable[..., None]] = field(default_factory=list)
    clients: list[Properties] = field(default_factory=list)

    def connect(self, properties: Properties) -> Producer:
        """Note that a client is made, and of what."""
        self.clients.append(properties)
        return cast(Producer, self)

    def fail(self, code: int, *, fatal: bool) -> None:
        """Tell of an error that is none of a message's."""
        self.clients[-1]["error_cb"](KafkaError(code, "fenced", fatal=fatal))

    def produce(self, topic: str, value: bytes, *, on_delivery: Callable[..., None], **more: Any) -> None:  # noqa: ANN401
        """Take a message."""
        if self.full is not None:
            raise self.full
        self.sent.append({"topic": topic, "value": value, **more})
        self.waiting.append(on_delivery)

    def poll(self, _timeout: float) -> None:
        """Tell what became of the messages."""
        waiting, self.waiting = self.waiting, []
        for tell in waiting:
            tell(None if self.code is None else KafkaError(self.code), self)

    def timestamp(self) -> tuple[int, int]:
        """When the broker appended the message that is told about."""
        return TIMESTAMP_LOG_APPEND_TIME, self.append_ms

    def flush(self, _timeout: float) -> None:
        """Do nothing."""

    def purge(self) -> None:
        """Give up what no broker has answered."""
        self.waiting, waiting = [], self.waiting
        for tell in waiting:
            tell(KafkaError(KafkaError._PURGE_INFLIGHT), self)


@pytest.fixture
def clock() -> FakeClock:
    """The local clock, at the end of the interval."""
    return FakeClock(ENDS_MS / 1000)


@pytest.fixture
def fake() -> FakeProducer:
    """A producer of a broker whose clock agrees with ours."""
    return FakeProducer()


@pytest.fixture
def book() -> Book:
    """What is counted."""
    return Book()


@pytest.fixture
def heart(clock: FakeClock, fake: FakeProducer, book: Book) -> Heart:
    """A heart on that clock and producer."""
    return Heart(
        KafkaConfig(),
        topic="flows.records",
        client_id="test",
        clock=BrokerClock(clock.ms, clock),
        throttle=Throttle(),
        book=book,
        connect=fake.connect,
    )


def test_a_heartbeat_is_an_empty_message_of_its_partition(heart: Heart, clock: FakeClock, fake: FakeProducer) -> None:
    """A second after its interval is over, a partition gets an empty message whose headers say what it is."""
    clock.advance(GRACE_MS / 1000 - 0.001)
    heart.beat(4, ENDS_MS)
    assert fake.sent == []
    clock.advance(0.001)
    heart.beat(4, ENDS_MS)
    (sent,) = fake.sent
    assert (sent["topic"], sent["value"], sent["partition"]) == ("flows.records", b"", 4)
    info = read_headers(sent["headers"])
    assert (info.heartbeat, info.records) == (True, 0)


def test_a_heartbeat_is_given_time_to_come_back(heart: Heart, clock: FakeClock, fake: FakeProducer) -> None:
    """Another one is sent when the first did not come back, and not before; other partitions do not wait for it."""
    clock.advance(GRACE_MS / 1000)
    for _ in range(3):
        heart.beat(0, ENDS_MS)
        heart.beat(1, ENDS_MS)
    assert [sent["partition"] for sent in fake.sent] == [0, 1]
    clock.advance(AGAIN_MS / 1000)
    heart.beat(0, ENDS_MS)
    assert [sent["partition"] for sent in fake.sent] == [0, 1, 0]


def test_a_broker_whose_clock_is_behind_is_waited_for(heart: Heart, clock: FakeClock, fake: FakeProducer) -> None:
    """A heartbeat that fell into the interval that it was to end tells when the next one can do it."""
    fake.append_ms = ENDS_MS - 7000
    clock.advance(GRACE_MS / 1000)
    heart.beat(0, ENDS_MS)
    heart.poll()
    clock.advance(6.999)
    heart.beat(0, ENDS_MS)
    assert len(fake.sent) == 1
    clock.advance(0.001)
    heart.beat(0, ENDS_MS)
    assert len(fake.sent) == 2


def test_without_the_right_to_write_it_is_quiet_for_a_while(
    heart: Heart, clock: FakeClock, fake: FakeProducer, book: Book
) -> None:
    """While the broker forbids it, one heartbeat is tried now and then, whatever its partition."""
    fake.code = KafkaError.TOPIC_AUTHORIZATION_FAILED
    clock.advance(GRACE_MS / 1000)
    for tries in (1, 2, 3):
        heart.beat(0, ENDS_MS)
        heart.beat(1, ENDS_MS)
        if tries == 1:
            # Both were sent before anything was known.
            fake.sent.pop()
            fake.waiting.pop()
        heart.poll()
        assert len(fake.sent) == tries
        clock.advance((FORBIDDEN_MS - 1) / 1000)
        heart.beat(0, ENDS_MS)
        heart.beat(1, ENDS_MS)
        assert len(fake.sent) == tries
        clock.advance(0.001)
    counted = total(book.snapshot(), "kafka_produce_errors_total", topic="flows.records", reason="not_authorized")
    assert counted == 3


def test_when_the_right_to_write_is_given_heartbeats_go_on(heart: Heart, clock: FakeClock, fake: FakeProducer) -> None:
    """Nothing has to be started again: the one that is tried tells, and then all partitions have theirs."""
    fake.code = KafkaError.TOPIC_AUTHORIZATION_FAILED
    clock.advance(GRACE_MS / 1000)
    heart.beat(0, ENDS_MS)
    heart.poll()
    fake.code = None
    clock.advance(FORBIDDEN_MS / 1000)
    for partition in (1, 2, 3):
        heart.beat(partition, ENDS_MS)
    heart.poll()
    for partition in (2, 3):
        heart.beat(partition, ENDS_MS)
    assert [sent["partition"] for sent in fake.sent] == [0, 1, 2, 3]


@pytest.mark.parametrize("fatal", [True, False])
def test_a_client_that_can_append_no_more_is_replaced(
    heart: Heart, clock: FakeClock, fake: FakeProducer, book: Book, *, fatal: bool
) -> None:
    """The next heartbeat has a client of its own; what the old one had is given up. Other errors pass by themselves."""
    clock.advance(GRACE_MS / 1000)
    heart.beat(0, ENDS_MS)
    fake.fail(KafkaError.INVALID_PRODUCER_EPOCH if fatal else KafkaError._ALL_BROKERS_DOWN, fatal=fatal)
    for _ in range(3):
        clock.advance(AGAIN_MS / 1000)
        heart.beat(0, ENDS_MS)
    assert len(fake.clients) == (2 if fatal else 1)
    given_up = total(book.snapshot(), "kafka_produce_errors_total", reason="not_acknowledged")
    assert given_up == (1 if fatal else 0)


def test_a_client_that_fails_since_it_may_not_write_is_not_replaced_at_once(
    heart: Heart, clock: FakeClock, fake: FakeProducer
) -> None:
    """Where not even the client may be one that writes, the next is made after a while."""
    clock.advance(GRACE_MS / 1000)
    heart.beat(0, ENDS_MS)
    fake.fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED, fatal=True)
    clock.advance((FORBIDDEN_MS - 1) / 1000)
    heart.beat(0, ENDS_MS)
    assert len(fake.clients) == 1
    clock.advance(0.001)
    heart.beat(0, ENDS_MS)
    assert len(fake.clients) == 2


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        pytest.param(BufferError("queue is full"), "queue_full", id="full"),
        pytest.param(KafkaException(KafkaError(KafkaError._STATE)), "other", id="state"),
    ],
)
def test_a_heartbeat_that_cannot_be_sent_is_sent_later(
    heart: Heart, clock: FakeClock, fake: FakeProducer, book: Book, failure: Exception, reason: str
) -> None:
    """A failure harms nothing but this heartbeat, and is counted with its reason; so is what arrives."""
    fake.full = failure
    clock.advance(GRACE_MS / 1000)
    heart.beat(0, ENDS_MS)
    fake.full, fake.code = None, KafkaError._MSG_TIMED_OUT
    for sent in (1, 2):
        clock.advance(AGAIN_MS / 1000)
        heart.beat(0, ENDS_MS)
        heart.poll()
        assert len(fake.sent) == sent
        fake.code = None
    heart.close()
    counted = book.snapshot()
    errors = {("flows.records", reason): 1, ("flows.records", "not_acknowledged"): 1}
    assert counted["kafka_produce_errors_total"] == errors
    assert counted["kafka_produced_messages_total"] == {("flows.records",): 1}


def test_the_brokers_clock_counts_when_it_is_ahead_of_ours() -> None:
    """The estimate follows the local clock, or the last append time and what has passed since, if that is later."""
    clock = FakeClock(1000.0)
    broker = BrokerClock(clock.ms, clock)
    assert broker.now_ms() == 1_000_000
    broker.see(990_000)
    assert broker.now_ms() == 1_000_000
    broker.see(1_005_000)
    clock.advance(2.0)
    assert broker.now_ms() == 1_007_000
    broker.see(1_006_000)
    assert broker.now_ms() == 1_007_000
