"""Messages on their way to Kafka, each with somebody who wants to know what became of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from ingest.producer import PURGE_SECONDS
from ingest.refusal import REFUSALS, Refusal
from shared.codec import Headers
from shared.kafka import Properties, producer
from shared.metrics import Book

WAIT_SECONDS: Final = 0.1
"""How long one wait for acknowledgements takes: so late is anything else noticed meanwhile."""

Settled = Callable[[Refusal | None], None]
"""Told once of each message: None when Kafka has acknowledged it, else why it did not take it."""


class Counting(Protocol):
    """Where counts go."""

    def add(self, name: str, value: float = 1, **labels: str | int) -> None:
        """Raise a counter."""


class Tally:
    """Counts of one thread, for another one to enter in its book: those that belong together at once.

    The books would not balance in between, and whoever looks at them may look at any time.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, float, dict[str, str | int]]] = []
        self._closed: deque[list[tuple[str, float, dict[str, str | int]]]] = deque()

    def add(self, name: str, value: float = 1, **labels: str | int) -> None:
        """Raise a counter, with the next ``close``."""
        if value:
            self._open.append((name, value, labels))

    def close(self) -> None:
        """What was counted up to now belongs together, and is complete."""
        if self._open:
            self._closed.append(self._open)
            self._open = []

    def enter(self, book: Book) -> None:
        """Enter all that is complete. Called by the thread that takes snapshots of the book."""
        while self._closed:
            for name, value, labels in self._closed.popleft():
                book.add(name, value, **labels)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it is produced; ``rows`` is what its topic counts."""

    topic: str
    value: bytes | pa.Buffer | None
    rows: int
    key: bytes | None
    headers: Headers
    partition: int


@dataclass(slots=True)
class _Waiting:
    rows: int = 0
    octets: int = 0
    messages: dict[int, tuple[Letter, Settled]] = field(default_factory=dict)


class Outgoing:
    """A producer of messages to any topic. One thread uses it; its client is made with the first message."""

    def __init__(self, properties: Properties, counting: Counting) -> None:
        self._properties = properties
        self._counting = counting
        self._client: Producer | None = None
        self._waiting = _Waiting()
        self._next = 0
        self._fatal: str | None = None

    @property
    def messages(self) -> int:
        """Messages that are neither acknowledged nor refused yet."""
        return len(self._waiting.messages)

    @property
    def rows(self) -> int:
        """Rows in those messages."""
        return self._waiting.rows

    @property
    def octets(self) -> int:
        """Bytes of those messages."""
        return self._waiting.octets

    def put(self, letter: Letter, settled: Settled, deadline: float = 0.0) -> None:
        """Send a message. While the queue is full, waits until ``deadline``, by the monotonic clock, and no longer."""
        number, self._next = self._next, self._next + 1

        def delivered(error: KafkaError | None, _: Delivered) -> None:
            self._settle(number, None if error is None else REFUSALS.get(error.code(), Refusal.OTHER))

        client = self._started()
        self._waiting.messages[number] = (letter, settled)
        self._waiting.rows += letter.rows
        self._waiting.octets += _size(letter)
        while True:
            try:
                client.produce(
                    letter.topic,
                    letter.value,
                    letter.key,
                    partition=letter.partition,
                    headers=letter.headers,
                    on_delivery=delivered,
                )
            except BufferError:
                if time.monotonic() < deadline:
                    client.poll(WAIT_SECONDS)
                    continue
                self._settle(number, Refusal.QUEUE_FULL)
            except KafkaException as exception:
                self._settle(number, REFUSALS.get(exception.args[0].code(), Refusal.OTHER))
            return

    def poll(self) -> None:
        """Settle what was acknowledged or refused meanwhile. Does not block, unless the client has broken."""
        if self._client is not None:
            self._client.poll(0)
            if self._fatal is not None:
                self.give_up()

    def flush(self, deadline: float, alive: Callable[[], None]) -> None:
        """Wait until all is settled, or until ``deadline``; ``alive`` is called every now and then meanwhile."""
        while self._waiting.messages and self._fatal is None and time.monotonic() < deadline:
            self._started().poll(WAIT_SECONDS)
            alive()

    def give_up(self) -> None:
        """Settle all that is under way as not acknowledged; the next message gets a client of its own."""
        client, self._client = self._client, None
        if client is not None:
            client.purge()
            client.flush(PURGE_SECONDS)
        self._fatal = None
        for number in list(self._waiting.messages):
            self._settle(number, Refusal.NOT_ACKNOWLEDGED)

    def _started(self) -> Producer:
        if self._client is None:
            self._client = producer(self._properties | {"error_cb": self._hear})
        return self._client

    def _settle(self, number: int, refusal: Refusal | None) -> None:
        found = self._waiting.messages.pop(number, None)
        if found is None:
            # It was given up before the client said what became of it.
            return
        letter, settled = found
        self._waiting.rows -= letter.rows
        self._waiting.octets -= _size(letter)
        topic = letter.topic
        if refusal is None:
            self._counting.add("kafka_produced_messages_total", 1, topic=topic)
            self._counting.add("kafka_produced_records_total", letter.rows, topic=topic)
            self._counting.add("kafka_produced_bytes_total", _size(letter), topic=topic)
        else:
            self._counting.add("kafka_produce_errors_total", 1, topic=topic, reason=refusal.value)
        settled(refusal)

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()


def _size(letter: Letter) -> int:
    return 0 if letter.value is None else len(letter.value)
