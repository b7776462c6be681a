"""Counter samples on their way to Kafka: a message an exporter, keyed by its address, with what its rows tell."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.counters import CounterOutbox, CounterStream
from ingest.outbox import MessageBounds
from ingest.refusal import Refusal
from ingest.window import BY_KEY
from shared import codec
from shared.counters import COLUMN, COLUMNS
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
from tests.ingest.collector import Collector

SECOND_NS = 1_000_000_000
ROOM = 1 << 24


def batch(*payloads: bytes) -> pa.RecordBatch:
    """The counter rows of datagrams."""
    (made,) = Collector().feed(*payloads).counters
    return made


def switch(agent: str, *interfaces: int) -> bytes:
    """A datagram with an interface a sample."""
    samples = [
        counters_sample(interface_record(number, octets=number), ethernet_record(), source=number)
        for number in interfaces
    ]
    return counters_datagram(*samples, agent=agent)


def host(agent: str, name: str = "db-1") -> bytes:
    """A datagram of a host."""
    described = record(2000, text(name) + bytes(16) + words(3, 2) + text("6.1"))
    load = record(2003, struct.pack("!3f", 0.1, 0.25, 1.5) + words(*range(17)))
    return counters_datagram(counters_sample(described, load, source=1, source_class=2), agent=agent)


def rows(message: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    return list(json_rows(message))


def test_a_message_is_of_one_exporter_and_keyed_by_it() -> None:
    """Rows of several batches and exporters, mixed, become a message for each exporter, in the order in which they came."""
    outbox = CounterOutbox(MessageBounds(), ROOM)
    assert outbox.add(batch(switch("192.0.2.1", 1, 2), switch("2001:db8::5", 9), host("192.0.2.7")), 0)
    assert outbox.add(batch(switch("192.0.2.1", 3)), 0)
    assert outbox.rows == 5
    messages = dict(outbox.take())
    assert {key: [row.get("if_index") for row in rows(message)] for key, message in messages.items()} == {
        b"192.0.2.1": [1, 2, 3],
        b"2001:db8::5": [9],
        b"192.0.2.7": [None],
    }
    assert (outbox.rows, outbox.bytes, list(outbox.take())) == (0, 0, [])


def test_a_message_has_the_columns_that_its_rows_fill() -> None:
    """What a switch tells is no burden to what a host does, and the order is that of the schema."""
    outbox = CounterOutbox(MessageBounds(), ROOM)
    outbox.add(batch(switch("192.0.2.1", 1), host("192.0.2.7")), 0)
    for message in dict(outbox.take()).values():
        names = message.schema.names
        assert names == [column.name for column in COLUMNS if column.name in set(names)]
        assert all(message.column(name).null_count < message.num_rows for name in names)
        assert ("if_in_octets" in names) != ("host_cpu_idle_ms" in names)


def test_names_travel_only_where_they_are_used() -> None:
    """The names of one exporter's interfaces are not in another's messages."""
    outbox = CounterOutbox(MessageBounds(), ROOM)
    payloads = [
        counters_datagram(counters_sample(interface_record(), port_name_record(f"port-{n}")), agent=f"192.0.2.{n}")
        for n in range(1, 100)
    ]
    outbox.add(batch(*payloads), 0)
    for key, message in outbox.take():
        number = key.decode().rpartition(".")[2]
        assert message.column("port_name").dictionary.to_pylist() == [f"port-{number}"]


@pytest.mark.parametrize(
    "bounds",
    [pytest.param(MessageBounds(max_records=7), id="rows"), pytest.param(MessageBounds(max_bytes=3000), id="bytes")],
)
def test_messages_are_bounded(bounds: MessageBounds) -> None:
    """An exporter with more rows than a message may have gets several, and none is lost."""
    outbox = CounterOutbox(bounds, ROOM)
    outbox.add(batch(*[switch("192.0.2.1", *range(10 * n, 10 * n + 10)) for n in range(10)]), 0)
    messages = [message for _, message in outbox.take()]
    assert len(messages) > 5
    for message in messages:
        assert message.num_rows <= bounds.max_records
        assert message.nbytes <= bounds.max_bytes or message.num_rows == 1
    assert [row["if_in_octets"] for message in messages for row in rows(message)] == list(range(100))


def test_rows_are_sent_when_they_are_old_enough_or_many() -> None:
    """The oldest row decides, or half of the room."""
    whole = batch(switch("192.0.2.1", 1, 2))
    outbox = CounterOutbox(MessageBounds(max_age_ns=SECOND_NS), 3 * whole.nbytes)
    assert not outbox.due(10 * SECOND_NS)
    outbox.add(whole, 0)
    assert not outbox.due(SECOND_NS - 1)
    assert outbox.due(SECOND_NS)
    outbox.add(whole, SECOND_NS // 2)
    assert outbox.due(SECOND_NS // 2)


def test_what_there_is_no_room_for_is_refused() -> None:
    """A batch over the bound is not taken, and what was there before it is as it was."""
    whole = batch(switch("192.0.2.1", 1, 2))
    outbox = CounterOutbox(MessageBounds(), whole.nbytes)
    assert outbox.add(whole, 0)
    assert not outbox.add(whole, 0)
    assert outbox.rows == 2
    outbox.clear()
    assert outbox.add(whole, 0)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9), st.booleans()), min_size=1, max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_nothing_is_lost_or_changed(batches: list[list[tuple[int, int, bool]]]) -> None:
    """Whatever is put in comes out once, and through the codec as it was."""
    outbox = CounterOutbox(MessageBounds(max_records=5), ROOM)
    expected = []
    for content in batches:
        made = batch(
            *(
                host(f"192.0.2.{agent}") if is_host else switch(f"192.0.2.{agent}", number)
                for agent, number, is_host in content
            )
        )
        outbox.add(made, 0)
        expected += rows(made)
    found = []
    for key, message in outbox.take():
        table = codec.merge([codec.decode(codec.encode(message), COLUMN)], COLUMN)
        assert table.column_names == message.schema.names
        for row in json_rows(table):
            assert row["sampler_address"].encode() == key
            found.append(row)
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


class FakeProducer:
    """Keeps what it is handed; what was not settled is in flight."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes | None]] = []
        self.in_flight_records = 0
        self.fatal: str | None = None
        self.polls = 0
        self.closed = False

    def start(self) -> None:
        """Do nothing."""

    def send(self, partition: int, message: pa.RecordBatch, key: bytes | None = None) -> None:
        """Note the message."""
        self.sent.append((partition, message.num_rows, key))
        self.in_flight_records += message.num_rows

    def poll(self) -> None:
        """Settle everything."""
        self.in_flight_records = 0

    def close(self, wait_seconds: float, alive: Callable[[], None]) -> None:
        """Note that it was closed."""
        self.poll()
        self.closed = True


def stream(room: int = ROOM) -> tuple[CounterStream, FakeProducer, list[tuple[Refusal, int]]]:
    """A stream over a fake producer, and what it refuses."""
    producer, refused = FakeProducer(), list[tuple[Refusal, int]]()
    outbox = CounterOutbox(MessageBounds(), room)
    made = CounterStream(outbox, producer, lambda refusal, count: refused.append((refusal, count)))  # type: ignore[arg-type]  # a fake
    return made, producer, refused


def test_a_stream_sends_what_is_due_by_key_and_knows_what_is_in_flight() -> None:
    """Rows are in flight from when they are taken until Kafka has settled them."""
    counters, producer, refused = stream()
    counters.start()
    counters.add(batch(switch("192.0.2.1", 1, 2), host("192.0.2.7")), 0)
    counters.send(SECOND_NS - 1)
    assert (producer.sent, counters.in_flight) == ([], 3)
    counters.send(SECOND_NS)
    assert producer.sent == [(BY_KEY, 2, b"192.0.2.1"), (BY_KEY, 1, b"192.0.2.7")]
    assert counters.in_flight == 3
    counters.poll()
    assert counters.in_flight == 0
    assert refused == []


def test_a_stream_accounts_for_what_it_cannot_send() -> None:
    """What has no room, and what was never sent when it closes, is refused row by row."""
    whole = batch(switch("192.0.2.1", 1, 2))
    counters, producer, refused = stream(whole.nbytes)
    counters.add(whole, 0)
    counters.add(whole, 0)
    assert refused == [(Refusal.QUEUE_FULL, 2)]
    counters.close(1.0, lambda: None)
    assert producer.closed
    assert refused[1:] == [(Refusal.NOT_ACKNOWLEDGED, 2)]
    assert counters.in_flight == 0


def test_a_stream_sends_everything_when_told() -> None:
    """A worker that stops does not wait for rows to grow old."""
    counters, producer, _ = stream()
    counters.add(batch(host("192.0.2.7")), 0)
    counters.send(1, everything=True)
    assert len(producer.sent) == 1
