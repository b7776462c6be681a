"""Data before its template, across stops and across instances: **patient** on a real Kafka."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from ingest.pipeline import Pipeline
from ingest.undecoded import message
from shared import codec, deadletter
from shared.config import KafkaConfig
from shared.kafka import DEADLETTER, UNDECODED, full_name, partition_count, producer, producer_properties
from tests.builders import UNIX_SECONDS, data_set, field, ipv4, mapped, number, template, v9_datagram, v9_templates
from tests.ingest.collector import packed
from tests.ingest.undecoded import made
from tests.integration.programs import Ingest, Programs, Settings, merged
from tests.integration.topic import RecordsTopic, column, content, identities
from tests.integration.traffic import EXPORTER, send

pytestmark = pytest.mark.integration

SOON: Settings = {
    "kafka": {"properties": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}},
    "ingest": {"workers": 1, "templates": {"undecoded": {"scan_seconds": 1}}},
}
"""The topic is read every second, and the group notices soon who comes and who is gone."""

OTHER = "127.9.0.2"
FIELDS = (field(8, 4), field(12, 4), field(1, 4))


def announced(template_id: int = 256) -> bytes:
    """A datagram with the template."""
    return v9_datagram(v9_templates(template(template_id, *FIELDS)), sequence=9_999)


def data(first: int, count: int, template_id: int = 256, records: int = 2) -> list[bytes]:
    """Datagrams of records that the template describes; each differs from the others by its sequence number."""
    one = ipv4("192.0.2.1") + ipv4("198.51.100.1") + number(1500, 4)
    return [v9_datagram(data_set(template_id, *[one] * records), sequence=first + at) for at in range(count)]


def ids_at_once(payloads: list[bytes], exporter: str = EXPORTER, template_id: int = 256) -> list[int]:
    """The ids that these datagrams' records have when the template is known."""
    pipeline = Pipeline()
    source = mapped(exporter)
    pipeline.decode(packed([announced(template_id)], source))
    decoded = pipeline.decode(packed(payloads, source))
    return sorted(value for batch in decoded.batches for value in batch.column("record_id").to_pylist())


def waiting(ingest: Ingest) -> int:
    """Sets that wait in memory, or are on their way to the topic."""
    return int(ingest.ledger()["parked"]["in_flight"])


def messages(kafka: str, topic_prefix: str, topic: str) -> list[Message]:
    """Everything in a topic."""
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix)
    name = full_name(config, topic)
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "plain", "auto.offset.reset": "earliest"})
    found: list[Message] = []
    try:
        for partition in range(partition_count(config, topic)):
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10.0)
            consumer.assign([TopicPartition(name, partition, low)])
            while low < high:
                (one,) = consumer.consume(1, 10.0)
                assert one.error() is None
                found.append(one)
                low = (one.offset() or 0) + 1
    finally:
        consumer.close()
    return found


def produce(kafka: str, topic_prefix: str, value: bytes, headers: codec.Headers) -> None:
    """Put a message of our own making into the topic of what waits."""
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix)
    client = producer(producer_properties(config, "test"))
    client.produce(full_name(config, UNDECODED), value, b"192.0.2.1", headers=headers)
    assert client.flush(10.0) == 0


def test_what_waits_at_a_stop_is_decoded_by_another_instance(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """The stopped one hands it over, the one with the template decodes it: each record once, ids as when at once."""
    first = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    payloads, others = data(0, 40), data(100, 10, template_id=300)
    send(payloads, first.port())
    send(others, first.port(), OTHER)
    first.until(lambda: waiting(first) == 50, "waiting")
    assert first.stop() == 0
    books = first.final_ledger()
    assert books["parked"] == {"received": 50, "decoded": 0, "appended": 50, "dropped": {}, "in_flight": 0}
    assert books["received"]["records"] == 0

    second = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    second.until(lambda: second.ledger()["undecoded"]["appended"] >= 50, "read, and appended again")
    send([announced()], second.port())
    send([announced(300)], second.port(), OTHER)
    second.until_delivered(100)
    found = RecordsTopic(kafka, topic_prefix).records()
    wanted = ids_at_once(payloads) + ids_at_once(others, OTHER, 300)
    assert sorted(identities(found)) == sorted(wanted)
    assert set(found["time_exported"].cast("int64").to_pylist()) == {UNIX_SECONDS * 1000}
    again = second.ledger()["undecoded"]
    assert (again["decoded"], again["dropped"]) == (50, {})
    assert second.stop() == 0
    second.final_ledger()


def test_instances_share_what_waits(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """Each reads partitions of its own, and one that stops leaves its own to the other; no record comes twice."""
    first = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    exporters = [f"127.9.0.{at}" for at in range(1, 31)]
    payloads = data(0, 3)
    for exporter in exporters:
        send(payloads, first.port(), exporter)
    first.until(lambda: waiting(first) == 90, "waiting")
    assert first.stop() == 0
    both = [programs.ingest(kafka, topic_prefix, SOON).until_ready() for _ in range(2)]

    def shared() -> bool:
        return all(one.ledger()["undecoded"]["appended"] > 0 for one in both)

    both[0].until(shared, "read by both")
    for exporter in exporters[:15]:
        send([announced()], both[0].port(), exporter)
        send([announced()], both[1].port(), exporter)
    both[0].until(lambda: sum(one.balance().delivered for one in both) == 90, "decoded by both")
    assert all(one.balance().delivered > 0 for one in both)
    assert both[0].stop() == 0
    of_the_first = both[0].final_ledger()["delivered"]["records"]
    for exporter in exporters[15:]:
        send([announced()], both[1].port(), exporter)
    both[1].until_delivered(180 - of_the_first)
    found = identities(RecordsTopic(kafka, topic_prefix).records())
    assert sorted(found) == sorted(one for exporter in exporters for one in ids_at_once(payloads, exporter))
    assert both[1].stop() == 0


def test_a_killed_reader_loses_nothing(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """What it has read and not settled is read again by its successor; what comes twice has equal ids."""
    first = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    payloads = data(0, 400)
    send(payloads, first.port())
    first.until(lambda: waiting(first) == 400, "waiting")
    assert first.stop() == 0
    second = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    second.until(lambda: second.ledger()["undecoded"]["appended"] > 0, "read, and appended again")
    for replaced in range(3):
        (pid,) = second.workers(replaced).values()
        os.kill(pid, signal.SIGKILL)
    second.workers(3)
    second.until(lambda: second.metrics().total("ingest_workers") == 1, "running again")
    send([announced()], second.port())
    topic = RecordsTopic(kafka, topic_prefix)
    found: set[int] = set()

    def all_there() -> bool:
        found.update(column(topic.records(), "record_id"))
        return len(found) >= 800

    second.until(all_there, "all records there", 120.0)
    assert sorted(found) == ids_at_once(payloads)
    assert second.stop() == 0


def test_what_memory_has_no_room_for_waits_in_kafka(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """An exporter over its bound: nothing is dropped, all is decoded when the template comes, each record once."""
    bounds = {"ingest": {"templates": {"parking": {"exporter_max_bytes": 20_000, "max_bytes": 1_000_000}}}}
    ingest = programs.ingest(kafka, topic_prefix, merged(SOON, bounds)).until_ready()
    payloads = data(0, 300, records=20)
    for begin in range(0, len(payloads), 50):
        send(payloads[begin : begin + 50], ingest.port())
        ingest.until_received(begin + 50)
    ingest.until(lambda: ingest.ledger()["parked"]["received"] == 300, "parked")
    books = ingest.ledger()
    assert books["parked"]["appended"] + books["parked"]["in_flight"] == 300
    assert waiting(ingest) * 240 < 20_000
    ingest.until(lambda: ingest.ledger()["parked"]["appended"] > 200, "handed over")
    send([announced()], ingest.port())
    ingest.until_delivered(6000)
    assert sorted(identities(RecordsTopic(kafka, topic_prefix).records())) == ids_at_once(payloads)
    assert ingest.ledger()["dropped"]["sets"] == {}
    assert ingest.stop() == 0
    ingest.final_ledger()


def test_what_can_never_be_decoded_is_a_dead_letter(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """What waited for an hour, what is no message, and a version that nobody knew: counted, and kept untouched."""
    ingest = programs.ingest(kafka, topic_prefix, SOON).until_ready()
    since_ns = time.time_ns() - 3600 * 1_000_000_000
    old = made.waiting(b"one", b"two", b"three", received_ns=since_ns)
    value = message.encode(old).to_pybytes()
    produce(kafka, topic_prefix, value, message.headers(old, "test"))
    produce(kafka, topic_prefix, b"no stream at all", codec.headers(4, "test"))
    unknown: codec.Headers = [("schema", b"2"), ("records", b"5"), ("first-parked", b"%d" % since_ns)]
    produce(kafka, topic_prefix, b"of the future", unknown)
    expected = {"template_never_came": 3, "corrupt": 4, "unknown_schema": 5}
    ingest.until(lambda: ingest.ledger()["undecoded"]["dropped"] == expected, "given up")
    books = ingest.ledger()
    assert books["dropped"]["sets"] == expected
    assert (books["undecoded"]["received"], books["undecoded"]["appended"]) == (12, 0)
    assert ingest.metrics().total("ingest_undecoded_expired_total") == 3

    found = {deadletter.read(headers_of(one)).reason: one for one in messages(kafka, topic_prefix, DEADLETTER)}
    assert {reason: content(one) for reason, one in found.items()} == {
        "template_never_came": value,
        "corrupt": b"no stream at all",
        "unknown_schema": b"of the future",
    }
    dead = found["template_never_came"]
    letter = deadletter.read(headers_of(dead))
    assert (letter.stage, letter.topic, letter.sink) == ("ingest", f"{topic_prefix}{UNDECODED}", None)
    assert letter.first_failure_ms == since_ns // 1_000_000
    assert letter.offset in range(3)
    assert dead.key() == b"192.0.2.1"
    assert codec.read_headers(headers_of(dead)).records == 3
    assert ingest.metrics().total("ingest_worker_restarts_total") == 0
    assert ingest.stop() == 0
    ingest.final_ledger()


def headers_of(one: Message) -> list[tuple[str, Any]]:
    """A message's headers as pairs."""
    found = one.headers()
    assert isinstance(found, list)
    return found
