"""Messages to Kafka, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from shared import codec
from shared.kafka import MAX_MESSAGE_BYTES, Properties, producer
from shared.metrics import Book

PURGE_SECONDS: Final = 5.0
"""How long the client may take to say what it gives up; what it has not named by then is given up as well."""


BY_KEY: Final = -1
"""No partition in particular: the client chooses it by the hash of the message's key."""


class Refusal(StrEnum):
    """Why Kafka did not take the records of a message."""

    QUEUE_FULL = "queue_full"
    """The queue to Kafka has no room, since brokers are away or too slow."""
    TOO_LARGE = "too_large"
    NOT_AUTHORIZED = "not_authorized"
    UNKNOWN_TOPIC = "unknown_topic"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """Still without an acknowledgement when the time to stop was over."""
    OTHER = "other"


REFUSALS: Final[Mapping[int, Refusal]] = {
    KafkaError.MSG_SIZE_TOO_LARGE: Refusal.TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: Refusal.TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Refusal.NOT_AUTHORIZED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Refusal.NOT_AUTHORIZED,
    KafkaError.UNKNOWN_TOPIC_OR_PART: Refusal.UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_TOPIC: Refusal.UNKNOWN_TOPIC,  # noqa: SLF001 - what the client calls its own codes
    KafkaError._UNKNOWN_PARTITION: Refusal.UNKNOWN_TOPIC,  # noqa: SLF001 - what the client calls its own codes
    KafkaError._PURGE_QUEUE: Refusal.NOT_ACKNOWLEDGED,  # noqa: SLF001 - what the client calls its own codes
    KafkaError._PURGE_INFLIGHT: Refusal.NOT_ACKNOWLEDGED,  # noqa: SLF001 - what the client calls its own codes
}


class RecordProducer:
    """Produces messages of rows to one topic, by explicit partition or by key, and counts what was acknowledged.

    Never blocks: a full queue refuses the message. Acknowledgements are counted in :meth:`poll`, which is to be called
    often. Made after the process was spawned, since the client's threads do not survive a fork.
    """

    def __init__(
        self, properties: Properties, topic: str, name: str, book: Book, refused: Callable[[Refusal, int], None]
    ) -> None:
        self._properties = properties
        self._topic = topic
        self._name = name
        self._book = book
        self._refused = refused
        self._client: Producer | None = None
        self._encoder = codec.Encoder(MAX_MESSAGE_BYTES)
        self._acknowledged: list[tuple[int, int, float]] = []
        self.in_flight_records = 0
        self._in_flight_bytes = 0
        self._in_flight_messages = 0
        self.fatal: str | None = None
        """Why the client can produce no more, when it says that; the process has to start anew."""

    def start(self) -> None:
        """Make the client; does not wait for a broker."""
        self._client = producer(self._properties | {"error_cb": self._hear})

    def send(self, partition: int, batch: pa.RecordBatch, key: bytes | None = None) -> None:
        """Hand one message over. What the queue has no room for is refused, counted and told.

        With :data:`BY_KEY` for its partition, a message goes where all with its key go.
        """
        client = self._started()
        # The client copies the value, so that the encoder's memory is free again after this.
        records, value = batch.num_rows, self._encoder.encode(batch)
        size, begun = len(value), time.monotonic()

        def acknowledged(error: KafkaError | None, _: Message) -> None:
            self._settle(records, size)
            if error is None:
                self._acknowledged.append((records, size, time.monotonic() - begun))
            else:
                self._refuse(REFUSALS.get(error.code(), Refusal.OTHER), records)

        try:
            client.produce(
                self._topic,
                value,
                key,
                partition=partition,
                headers=codec.headers(records, self._name),
                on_delivery=acknowledged,
            )
        except BufferError:
            self._refuse(Refusal.QUEUE_FULL, records)
            return
        except KafkaException as exception:
            self._refuse(REFUSALS.get(exception.args[0].code(), Refusal.OTHER), records)
            return
        self._in_flight_messages += 1
        self.in_flight_records += records
        self._in_flight_bytes += size

    def poll(self) -> None:
        """Count what was acknowledged or refused meanwhile. Does not block."""
        self._started().poll(0)
        self._count_acknowledged()
        self._book.set("kafka_queue_messages", self._in_flight_messages, topic=self._topic)
        self._book.set("kafka_queue_bytes", self._in_flight_bytes, topic=self._topic)

    def close(self, wait_seconds: float, alive: Callable[[], None]) -> None:
        """Wait for the acknowledgement of all that was sent; what has none in time is given up and counted.

        ``alive`` is called every now and then meanwhile.
        """
        client = self._started()
        deadline = time.monotonic() + wait_seconds
        while len(client) and time.monotonic() < deadline:
            client.flush(0.2)
            self._count_acknowledged()
            alive()
        if len(client):
            client.purge()
        client.flush(PURGE_SECONDS)
        self.poll()
        if self.in_flight_records:
            self._refuse(Refusal.NOT_ACKNOWLEDGED, self.in_flight_records)
            self._in_flight_messages = self.in_flight_records = self._in_flight_bytes = 0

    def _started(self) -> Producer:
        if self._client is None:
            raise RuntimeError("the producer was not started")
        return self._client

    def _count_acknowledged(self) -> None:
        """Count all messages that were acknowledged since the last time at once: that is cheaper than one by one."""
        if not self._acknowledged:
            return
        records, sizes, seconds = zip(*self._acknowledged, strict=True)
        self._acknowledged.clear()
        self._book.add("kafka_produced_messages_total", len(records), topic=self._topic)
        self._book.add("kafka_produced_records_total", sum(records), topic=self._topic)
        self._book.add("kafka_produced_bytes_total", sum(sizes), topic=self._topic)
        self._book.observe_many("kafka_produce_seconds", seconds, topic=self._topic)

    def _settle(self, records: int, size: int) -> None:
        self._in_flight_messages -= 1
        self.in_flight_records -= records
        self._in_flight_bytes -= size

    def _refuse(self, refusal: Refusal, records: int) -> None:
        self._book.add("kafka_produce_errors_total", 1, topic=self._topic, reason=refusal.value)
        self._refused(refusal, records)

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error.str()
