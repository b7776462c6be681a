"""From memory to the topic: what goes, how much of it, and what is counted when it does not arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from deploy.local.kafka import free_port
from ingest.refusal import Refusal
from ingest.undecoded import message
from ingest.undecoded.handover import GATHERED_BYTES, QUEUE_BYTES, Allowance, Handover
from shared.config import KafkaConfig
from shared.kafka import producer_properties
from shared.metrics import Book, total
from tests.builders import mapped
from tests.ingest.undecoded.made import PRODUCER, bodies, waiting

TOPIC = "dc1.flows.undecoded"
PATIENCE_SECONDS = 20.0
SECOND = 1_000_000_000
MOCK = {"test.mock.num.brokers": "1"}
"""The Kafka client brings a small broker of its own, which makes a topic of four partitions when it is asked for one."""


class Handing:
    """A handover, its book, and what it refused."""

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, str] = MappingProxyType({}),
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.book = Book()
        self.refused: list[tuple[Refusal, int]] = []
        config = KafkaConfig(bootstrap_servers=bootstrap_servers)
        self.handover = Handover(
            producer_properties(config, "test") | dict(properties),
            TOPIC,
            PRODUCER,
            self.book,
            lambda refusal, sets: self.refused.append((refusal, sets)),
            Allowance(1000.0, 100_000),
            queue_bytes,
        )

    def settle(self) -> None:
        """Poll until nothing is in flight."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.handover.in_flight:
            assert time.monotonic() < deadline, "not everything answered in time"
            self.handover.poll()
            time.sleep(0.005)

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return total(self.book.snapshot(), name, **labels)

    def messages(self, count: int) -> list[Message]:
        """So many messages, as the broker has them."""
        (broker,) = self.handover._outgoing._started().list_topics(timeout=PATIENCE_SECONDS).brokers.values()
        consumer = Consumer({"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "test"})
        consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(4)])
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages"
            found.extend(consumer.consume(count - len(found), 0.1))
        consumer.close()
        return found


@pytest.fixture
def handing() -> Iterator[Handing]:
    """A handover with a broker that answers."""
    ours = Handing("127.0.0.1:1", MOCK)
    yield ours
    ours.handover.close(0.0, nothing)


@pytest.fixture
def unheard() -> Iterator[Handing]:
    """A handover whose queue takes two messages, and no broker anywhere."""
    ours = Handing(f"127.0.0.1:{free_port()}", {"queue.buffering.max.messages": "2"})
    yield ours
    ours.handover.close(0.0, nothing)


def nothing() -> None:
    """Do nothing."""


def test_an_exporters_sets_travel_together(handing: Handing) -> None:
    """A message an exporter, keyed by it, whichever templates its sets wait for; each has all that decoding needs."""
    first, second = mapped("192.0.2.1"), mapped("192.0.2.2")
    handing.handover.send(
        [
            waiting(b"a", b"b", exporter=first),
            waiting(b"c", exporter=second),
            waiting(b"d", exporter=first, template_id=300),
        ]
    )
    assert handing.handover.in_flight == 4
    handing.settle()
    found = {one.key(): one for one in handing.messages(2)}
    assert found.keys() == {b"192.0.2.1", b"192.0.2.2"}
    (sets,) = message.decode(found[b"192.0.2.1"].value() or b"")
    assert bodies(sets) == [b"a", b"b", b"d"]
    assert found[b"192.0.2.1"].headers() == message.headers(sets, PRODUCER)
    assert handing.counted("ingest_undecoded_produced_total") == 4
    assert handing.counted("kafka_produced_messages_total", topic=TOPIC) == 2
    assert handing.refused == []


def test_at_the_end_everything_goes(handing: Handing) -> None:
    """Part after part, whatever the allowance says; and is waited for."""
    assert handing.handover.room(SECOND) == 100_000
    size = 3 * GATHERED_BYTES // 500
    handing.handover.send_all((waiting(bytes(size), template_id=256 + at) for at in range(500)), 0.0)
    assert handing.handover.room(SECOND) == 0
    handing.handover.close(time.monotonic() + PATIENCE_SECONDS, nothing)
    assert handing.counted("ingest_undecoded_produced_total") == 500
    assert (handing.handover.in_flight, handing.refused) == (0, [])


def test_what_the_queue_has_no_room_for_is_refused(unheard: Handing) -> None:
    """It is counted set by set, and what is queued waits for its broker."""
    for at in range(4):
        unheard.handover.send([waiting(b"a", b"b", template_id=256 + at)])
    assert unheard.refused == [(Refusal.QUEUE_FULL, 2)] * 2
    assert unheard.handover.in_flight == 4
    assert unheard.counted("kafka_produce_errors_total", topic=TOPIC, reason="queue_full") == 2


def test_what_is_not_acknowledged_at_the_end_is_refused(unheard: Handing) -> None:
    """The one who stops is not held up, and every set is counted."""
    alive: list[int] = []
    unheard.handover.send([waiting(b"a", b"b", b"c")])
    unheard.handover.close(time.monotonic() + 0.3, lambda: alive.append(1))
    assert unheard.refused == [(Refusal.NOT_ACKNOWLEDGED, 3)]
    assert (unheard.handover.in_flight, unheard.counted("ingest_undecoded_produced_total")) == (0, 0)
    assert alive


def test_without_anything_to_send_there_is_no_client(unheard: Handing) -> None:
    """Most workers never hand anything over."""
    unheard.handover.poll()
    unheard.handover.close(0.0, nothing)
    assert unheard.handover._outgoing._client is None


# --- how much may go


def test_the_allowance_is_what_was_saved_and_what_comes() -> None:
    """All at once at first, then so much a second, and never more than the burst."""
    allowance = Allowance(1000.0, 5000)
    assert allowance.level(SECOND) == 5000
    allowance.spend(6000)
    assert allowance.level(SECOND) == -1000
    assert allowance.level(2 * SECOND) == 0
    assert allowance.level(4 * SECOND) == 2000
    assert allowance.level(100 * SECOND) == 5000


def test_what_is_sent_is_taken_off_the_allowance(handing: Handing) -> None:
    """By the bytes of the messages: what many exporters send takes more than what one does."""
    assert handing.handover.room(SECOND) == 100_000
    assert handing.handover.reserved == 50_000
    handing.handover.send([waiting(bytes(40_000))])
    left = handing.handover.room(SECOND)
    assert 50_000 < left < 60_000
    handing.handover.send([waiting(b"a", exporter=mapped(f"192.0.2.{at}")) for at in range(5)])
    assert handing.handover.room(SECOND) < left - 5 * 1000


def test_an_unheard_queue_takes_no_more() -> None:
    """While Kafka does not answer, sets wait in memory as long as there is room, and are not moved into a queue."""
    handing = Handing(f"127.0.0.1:{free_port()}", queue_bytes=50_000)
    handing.handover.send([waiting(bytes(40_000))])
    assert 0 < handing.handover.room(SECOND) < 10_000
    handing.handover.send([waiting(bytes(40_000))])
    assert handing.handover.room(SECOND) == 0
    handing.handover.close(0.0, nothing)
