from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from deploy.local.kafka import free_port
from ingest.producer import RecordProducer
from ingest.refusal import Refusal
from ingest.spool import Quota, SpoolLog
from ingest.window import BY_KEY
from shared import codec
from shared.config import KafkaConfig
from shared.kafka import MAX_MESSAGE_BYTES, producer_properties
from shared.metrics import Book, total

PATIENCE_SECONDS = 20.0
TOPIC = "dc1.flows.records"
NAME = "ingest-host-worker-0-17"
MOCK = {"test.mock.num.brokers": "1"}
"""The Kafka client brings a small broker of its own, which makes a topic of four partitions when it is asked for one."""


class Sending:
    """A producer, its books, and what it refused."""

    def __init__(
        self, bootstrap_servers: str, properties: Mapping[str, str] | None = None, spool: SpoolLog | None = None
    ) -> None:
        self.book = Book()
        self.refused: list[tuple[Refusal, int]] = []
        config = KafkaConfig(bootstrap_servers=bootstrap_servers)
        self.producer = RecordProducer(
            producer_properties(config, "test") | dict(properties or {}),
            TOPIC,
            NAME,
            self.book,
            lambda refusal, records: self.refused.append((refusal, records)),
            spool=spool,
        )
        self.producer.start()

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return total(self.book.snapshot(), name, **labels)

    def settle(self) -> None:
        """Poll until nothing is in flight."""
        until(self._nothing_in_flight, "everything answered")

    def _nothing_in_flight(self) -> bool:
        self.producer.poll()
        return self.producer.in_flight_records == 0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what} in time"
        time.sleep(0.005)


def records(number: int, text: str = "") -> pa.RecordBatch:
    """So many records, each with the same text."""
    columns = {"record_id": pa.array(range(number), pa.uint64()), "application_id": pa.array([text] * number)}
    return pa.record_batch(columns)


@pytest.fixture
def sending() -> Iterator[Sending]:
    """A producer with a broker that answers."""
    ours = Sending("127.0.0.1:1", MOCK)
    yield ours
    ours.producer.close(0.0, lambda: None)


@pytest.fixture
def unheard() -> Iterator[Sending]:
    """A producer whose queue takes two messages, and no broker anywhere."""
    ours = Sending(f"127.0.0.1:{free_port()}", {"queue.buffering.max.messages": "2"})
    yield ours
    ours.producer.close(0.0, lambda: None)


def messages_of(sending: Sending, count: int) -> list[Message]:
    """So many messages, as the broker has them."""
    (broker,) = sending.producer._started().list_topics(timeout=PATIENCE_SECONDS).brokers.values()
    consumer = Consumer({"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "test"})
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(4)])
    found: list[Message] = []

    def enough() -> bool:
        found.extend(consumer.consume(count - len(found), 0.1))
        return len(found) == count

    until(enough, f"{count} messages")
    consumer.close()
    return found


def test_messages_go_where_they_are_sent(sending: Sending) -> None:
    """Each goes to the partition that it was sent to, with the headers and the records that it has."""
    for partition in (2, 0, 3):
        sending.producer.send(partition, records(partition + 1))
    sending.settle()
    found = {message.partition(): message for message in messages_of(sending, 3)}
    assert found.keys() == {0, 2, 3}
    for partition in (0, 2, 3):
        message = found[partition]
        assert message.key() is None
        assert message.headers() == codec.headers(partition + 1, NAME)
        value = message.value()
        assert value is not None
        assert codec.decode(value).to_batches()[0].equals(records(partition + 1))


def test_messages_of_one_key_go_to_one_partition(sending: Sending) -> None:
    """Without a partition of its own a message goes where all with its key go, and carries the key."""
    keys = [b"192.0.2.%d" % number for number in range(8)]
    for key in (*keys, *keys):
        sending.producer.send(BY_KEY, records(1), key)
    sending.settle()
    places: dict[object, set[object]] = {}
    for message in messages_of(sending, 16):
        places.setdefault(message.key(), set()).add(message.partition())
    assert set(places) == set(keys)
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) > 1


def test_what_was_acknowledged_is_counted(sending: Sending) -> None:
    """Messages, records, bytes and the time it took are counted on acknowledgement, not before."""
    batches = [records(number) for number in (1, 10, 100)]
    for batch in batches:
        sending.producer.send(1, batch)
    assert sending.producer.in_flight_records == 111
    assert sending.counted("kafka_produced_records_total") == 0
    sending.settle()
    size = sum(codec.encode(batch).size for batch in batches)
    assert {
        name: sending.counted(name, topic=TOPIC)
        for name in (
            "kafka_produced_messages_total",
            "kafka_produced_records_total",
            "kafka_produced_bytes_total",
            "kafka_produce_seconds",
            "kafka_queue_messages",
            "kafka_queue_bytes",
        )
    } == {
        "kafka_produced_messages_total": 3,
        "kafka_produced_records_total": 111,
        "kafka_produced_bytes_total": size,
        "kafka_produce_seconds": 3,
        "kafka_queue_messages": 0,
        "kafka_queue_bytes": 0,
    }
    assert (sending.producer.in_flight_records, sending.refused) == (0, [])


def test_what_waits_for_its_acknowledgement_is_shown(unheard: Sending) -> None:
    """Messages and bytes in the queue are gauges: they tell how long an outage may still last."""
    unheard.producer.send(0, records(10))
    unheard.producer.poll()
    assert unheard.counted("kafka_queue_messages", topic=TOPIC) == 1
    assert unheard.counted("kafka_queue_bytes", topic=TOPIC) == codec.encode(records(10)).size


def test_a_full_queue_refuses_and_keeps_what_it_has(unheard: Sending) -> None:
    """What there is no room for is counted, told and forgotten; what was taken before is not touched."""
    for number in (5, 7, 11, 13):
        unheard.producer.send(0, records(number))
    assert unheard.refused == [(Refusal.QUEUE_FULL, 11), (Refusal.QUEUE_FULL, 13)]
    assert unheard.counted("kafka_produce_errors_total", topic=TOPIC, reason="queue_full") == 2
    assert unheard.producer.in_flight_records == 12


def test_a_message_that_kafka_would_refuse_is_refused_at_once(sending: Sending) -> None:
    """One that is too large is counted as such, and those after it go on."""
    sending.producer.send(0, records(2, "x" * MAX_MESSAGE_BYTES))
    assert sending.refused == [(Refusal.TOO_LARGE, 2)]
    assert sending.producer.in_flight_records == 0
    sending.producer.send(0, records(3))
    sending.settle()
    assert sending.counted("kafka_produced_records_total") == 3
    assert sending.counted("kafka_produce_errors_total", topic=TOPIC, reason="too_large") == 1


def test_a_partition_that_is_not_there_is_told(sending: Sending) -> None:
    """The refusal comes with the answer to the message, and its records are not in flight any more."""
    sending.producer.send(99, records(4))
    sending.settle()
    assert sending.refused == [(Refusal.UNKNOWN_TOPIC, 4)]
    assert (sending.producer.in_flight_records, sending.counted("kafka_produced_records_total")) == (0, 0)


def test_closing_waits_for_the_acknowledgements(sending: Sending) -> None:
    """What was sent before is acknowledged when close returns."""
    for partition in range(4):
        sending.producer.send(partition, records(25))
    sending.producer.close(PATIENCE_SECONDS, lambda: None)
    assert sending.counted("kafka_produced_records_total") == 100
    assert sending.refused == []


def test_closing_gives_up_when_its_time_is_over(unheard: Sending) -> None:
    """What no broker has acknowledged by then is counted as such, and whoever waits is told meanwhile."""
    unheard.producer.send(0, records(5))
    unheard.producer.send(1, records(7))
    calls: list[int] = []
    unheard.producer.close(0.5, lambda: calls.append(unheard.producer.in_flight_records))
    assert calls
    assert set(calls) == {12}
    assert sorted(unheard.refused) == [(Refusal.NOT_ACKNOWLEDGED, 5), (Refusal.NOT_ACKNOWLEDGED, 7)]
    assert unheard.producer.in_flight_records == 0
    assert unheard.counted("kafka_queue_messages") == 0


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        pytest.param(KafkaError(KafkaError._ALL_BROKERS_DOWN), None, id="brokers that are away come again"),
        pytest.param(
            KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap", fatal=True),
            "a gap",
            id="a lost sequence does not",
        ),
    ],
)
def test_only_a_fatal_error_ends_a_client(unheard: Sending, error: KafkaError, fatal: str | None) -> None:
    """The client says itself when it can produce no more, and whoever has it starts anew."""
    unheard.producer._hear(error)
    assert unheard.producer.fatal == fatal


def test_a_producer_that_was_not_started_says_so() -> None:
    """To send before start is a mistake of ours."""
    producer = RecordProducer({}, TOPIC, NAME, Book(), lambda _refusal, _records: None)
    with pytest.raises(RuntimeError, match="not started"):
        producer.send(0, records(1))


# --- with a spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolLog]:
    """The spool of the topic, opened."""
    ours = SpoolLog(tmp_path / TOPIC, Quota(1 << 30, [0], 0))
    ours.open()
    yield ours
    ours.close()


def test_what_a_full_queue_does_not_take_goes_to_the_spool(spool: SpoolLog) -> None:
    """With all that is in the queue; nothing is refused, and all of it is in flight."""
    unheard = Sending(f"127.0.0.1:{free_port()}", {"queue.buffering.max.messages": "2"}, spool)
    for number in (5, 7, 11, 13):
        unheard.producer.send(0, records(number))
    assert unheard.refused == []
    assert (spool.messages, spool.records) == (4, 36)
    assert unheard.producer.in_flight_records == 36
    unheard.producer.close(0.0, lambda: None)
    assert (spool.messages, unheard.refused) == (4, [])


def test_what_is_not_acknowledged_at_the_end_is_kept_and_sent_by_the_next(tmp_path: Path, spool: SpoolLog) -> None:
    """As it was: partition, key, headers and records; in its order, and before what comes."""
    unheard = Sending(f"127.0.0.1:{free_port()}", spool=spool)
    sent = [(number % 3, None) if number % 2 else (BY_KEY, b"192.0.2.%d" % number) for number in range(1, 21)]
    for number, (partition, key) in enumerate(sent, 1):
        unheard.producer.send(partition, records(number), key)
    unheard.producer.close(0.0, lambda: None)
    assert unheard.refused == []
    assert unheard.producer.in_flight_records == 210
    assert unheard.counted("kafka_queue_messages") == 0
    spool.close()

    again = SpoolLog(tmp_path / TOPIC, Quota(1 << 30, [0], 0))
    assert again.open().records == 210
    heard = Sending("127.0.0.1:1", MOCK, again)
    assert heard.producer.in_flight_records == 210
    heard.producer.send(1, records(21))
    heard.settle()
    assert again.bytes == 0
    messages = messages_of(heard, 21)
    where: dict[int | None, list[int]] = {}
    for message in messages:
        value = message.value()
        assert value is not None
        number = codec.decode(value).num_rows
        assert message.headers() == codec.headers(number, NAME)
        if number <= 20:
            partition, key = sent[number - 1]
            assert message.key() == key
            assert partition in {BY_KEY, message.partition()}
        where.setdefault(message.partition(), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in where.values())
    heard.producer.close(PATIENCE_SECONDS, lambda: None)
    again.close()


def test_with_a_spool_nothing_is_written_while_kafka_answers(spool: SpoolLog) -> None:
    """It is there for trouble alone."""
    heard = Sending("127.0.0.1:1", MOCK, spool)
    for partition in range(4):
        heard.producer.send(partition, records(25))
    heard.settle()
    assert heard.counted("kafka_produced_records_total") == 100
    heard.producer.close(PATIENCE_SECONDS, lambda: None)
    assert heard.counted("ingest_spool_written_records_total") == 0
    assert list(spool.directory.iterdir()) == []


def test_a_message_that_kafka_would_refuse_is_not_spooled(spool: SpoolLog) -> None:
    """It would be refused again and again."""
    heard = Sending("127.0.0.1:1", MOCK, spool)
    heard.producer.send(0, records(2, "x" * MAX_MESSAGE_BYTES))
    assert heard.refused == [(Refusal.TOO_LARGE, 2)]
    assert spool.messages == 0
    heard.producer.close(PATIENCE_SECONDS, lambda: None)


def test_a_partition_that_is_not_there_does_not_stop_the_spool(spool: SpoolLog) -> None:
    """What was meant for it goes to any other, and what is behind it arrives too."""
    heard = Sending("127.0.0.1:1", MOCK, spool)
    heard.producer.send(99, records(4))
    heard.producer.send(1, records(5))
    heard.settle()
    assert heard.refused == []
    assert heard.counted("kafka_produced_records_total") == 9
    heard.producer.close(PATIENCE_SECONDS, lambda: None)
