"""Counter samples of sFlow on a real Kafka: from UDP to their topic, and from there to whoever follows it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from shared import codec
from shared.config import KafkaConfig
from shared.counters import COLUMN
from shared.kafka import COUNTERS, RECORDS, full_name, partition_count
from shared.text import json_rows
from tests.counter_builders import (
    counters_datagram,
    counters_sample,
    ethernet_record,
    interface_record,
    port_name_record,
    record,
    text,
    words,
)
from tests.integration.programs import Ingest, Programs, Settings
from tests.integration.topic import RecordsTopic, column, content
from tests.integration.traffic import flows, send

pytestmark = pytest.mark.integration

AGENTS = ("192.0.2.10", "2001:db8::10")
PORTS = 5
ROUNDS = 4
PATIENCE_SECONDS = 30.0


def datagrams() -> list[bytes]:
    """What two switches with a host each send, round after round."""
    described = record(2000, text("db-1") + bytes(16) + words(3, 2) + text("6.1"))
    return [
        counters_datagram(
            *(
                counters_sample(
                    interface_record(port, octets=1000 * port + turn), ethernet_record(), port_name_record(f"e{port}"),
                    source=port, sequence=turn,
                )
                for port in range(1, PORTS + 1)
            ),
            counters_sample(described, source=1, source_class=2, expanded=True),
            agent=agent,
            sequence=turn,
        )
        for turn in range(1, ROUNDS + 1)
        for agent in AGENTS
    ]  # fmt: skip


SAMPLES = len(AGENTS) * ROUNDS * (PORTS + 1)


def messages(config: KafkaConfig) -> list[Message]:
    """Everything in the topic of counters."""
    name = full_name(config, COUNTERS)
    consumer = Consumer({"bootstrap.servers": config.bootstrap_servers, "group.id": "plain"})
    try:
        partitions = [TopicPartition(name, number, 0) for number in range(partition_count(config, COUNTERS))]
        wanted = sum(consumer.get_watermark_offsets(one, timeout=PATIENCE_SECONDS)[1] for one in partitions)
        consumer.assign(partitions)
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{len(found)} of {wanted} messages read"
            found += consumer.consume(wanted - len(found), 0.1)
    finally:
        consumer.close()
    assert all(message.error() is None for message in found)
    return found


def account(ingest: Ingest) -> dict[str, Any]:
    """The books on counter samples."""
    counters: dict[str, Any] = ingest.ledger()["counters"]
    return counters


def rows(message: Message) -> list[dict[str, Any]]:
    """The rows of a message as JSON has them."""
    return list(json_rows(codec.decode(content(message), COLUMN)))


def test_counters_come_to_their_topic_and_to_whoever_follows_it(
    kafka: str, topic_prefix: str, programs: Programs
) -> None:
    """Each sample is a row in a message of its exporter, beside the flow records, whose books do not see them."""
    ingest = programs.ingest(kafka, topic_prefix).until_ready()
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix)
    send(datagrams(), ingest.port())
    send(flows(10), ingest.port())
    ingest.until(lambda: account(ingest)["delivered"] == SAMPLES, "all samples delivered")
    ingest.until_delivered(10)
    books = ingest.ledger()
    assert books["counters"] == {
        "received": SAMPLES,
        "from_spool": 0,
        "delivered": SAMPLES,
        "dropped": {},
        "in_flight": 0,
    }
    assert (books["received"]["records"], books["delivered"]) == (10, {"records": 10})

    found = messages(config)
    for message in found:
        key = message.key()
        assert isinstance(key, bytes)
        assert {row["sampler_address"] for row in rows(message)} == {key.decode()}
        headers = message.headers()
        assert isinstance(headers, list)
        assert codec.read_headers(headers).records == len(rows(message))
    told = [row for message in found for row in rows(message)]
    assert len(told) == SAMPLES
    for agent in AGENTS:
        of_agent = {message.partition() for message in found if message.key() == agent.encode()}
        assert len(of_agent) == 1
        interfaces = sorted(
            (row["if_index"], row["if_in_octets"], row["port_name"])
            for row in told
            if row["sampler_address"] == agent and "if_index" in row
        )
        assert interfaces == sorted(
            (port, 1000 * port + turn, f"e{port}") for port in range(1, PORTS + 1) for turn in range(1, ROUNDS + 1)
        )
    assert RecordsTopic(kafka, topic_prefix).records().num_rows == 10

    metrics = ingest.metrics()
    topic = full_name(config, COUNTERS)
    assert metrics.total("ingest_counters_decoded_total") == SAMPLES
    assert metrics.total("kafka_produced_records_total", topic=topic) == SAMPLES
    assert metrics.total("kafka_produced_messages_total", topic=topic) == len(found)
    assert metrics.total("kafka_produced_records_total", topic=full_name(config, RECORDS)) == 10

    where: Settings = {"kafka": {"bootstrap_servers": kafka, "topic_prefix": topic_prefix}, "log": {"format": "json"}}
    words_of_tail = ("forwarder", "tail", "--counters", "--from-beginning", "--count", str(SAMPLES))
    tail = programs.run(*words_of_tail, "--format", "json", settings=where)
    assert tail.wait() == 0, tail.last_words()
    shown = [json.loads(line) for line in tail.output.splitlines()]
    assert sorted(map(repr, shown)) == sorted(map(repr, told))
    table = programs.run(*words_of_tail, "--format", "table", settings=where)
    assert table.wait() == 0, table.last_words()
    lines = [line for line in table.output.splitlines() if line and not line.startswith("time ")]
    assert len(lines) == SAMPLES
    assert sum("db-1" in line for line in lines) == len(AGENTS) * ROUNDS
    assert sum(" e3 " in line and "1G" in line and " up " in line for line in lines) == len(AGENTS) * ROUNDS

    assert ingest.stop() == 0
    assert ingest.final_ledger()["counters"]["delivered"] == SAMPLES


def test_names_that_counters_tell_reach_flows_of_every_worker(
    kafka: str, topic_prefix: str, programs: Programs
) -> None:
    """A worker that never saw an agent's counters joins the names that another one was told."""
    ingest = programs.ingest(kafka, topic_prefix).until_ready()
    send(datagrams(), ingest.port())
    ingest.until(lambda: account(ingest)["delivered"] == SAMPLES, "all samples delivered")
    topic = RecordsTopic(kafka, topic_prefix)
    sample = words(1, 32, 1, 3, 1000, 5000, 0, 3, 4, 0)
    flow = counters_datagram(sample, agent=AGENTS[0])
    # Sources are spread over workers: of so many each gets some.
    sent = 0

    def all_named() -> bool:
        nonlocal sent
        before = sent
        for number in range(1, 33):
            send([flow], ingest.port(), source=f"127.9.1.{number}")
        sent += 32
        ingest.until_delivered(sent)
        table = topic.records()
        assert table.num_rows == sent - before
        return column(table, "in_if_name") == ["e3"] * table.num_rows

    ingest.until(all_named, "every flow has the name of its interface")
