"""Messages to Kafka, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ingest.backlog import Backlog
from ingest.refusal import FINAL, REFUSALS, UNKNOWN_PARTITION, Refusal, refusal
from ingest.spool import SpoolFault, SpoolLog
from ingest.window import BY_KEY, Sent, Window
from shared import codec
from shared.kafka import MAX_MESSAGE_BYTES, Properties, producer
from shared.metrics import Book

__all__ = ["BY_KEY", "PURGE_SECONDS", "REFUSALS", "RecordProducer", "Refusal"]

PURGE_SECONDS: Final = 5.0
"""How long the client may take to say what it gives up; what it has not named by then is given up as well."""

SPOOLED_SECONDS: Final = 5.0
"""How long a producer with a spool waits for acknowledgements at its end: what has none then is kept on disk."""


class RecordProducer:
    """Produces messages of rows to one topic, by explicit partition or by key, and counts what was acknowledged.

    Never blocks. What a full queue, or Kafka, does not take is refused; or kept in the spool, when there is one, until
    Kafka takes it: see :mod:`ingest.backlog`. Acknowledgements are counted in :meth:`poll`, which is to be called often.
    Made after the process was spawned, since the client's threads do not survive a fork.
    """

    def __init__(
        self,
        properties: Properties,
        topic: str,
        name: str,
        book: Book,
        refused: Callable[[Refusal, int], None],
        *,
        spool: SpoolLog | None = None,
        failed: Callable[[SpoolFault], None] = lambda _: None,
    ) -> None:
        self._properties = properties
        self._topic = topic
        self._name = name
        self._book = book
        self._refused = refused
        self._client: Producer | None = None
        self._encoder = codec.Encoder(MAX_MESSAGE_BYTES)
        self._acknowledged: list[tuple[int, int, float]] = []
        self._window = Window()
        self._spool = spool
        self._backlog: Backlog | None = None
        if spool is not None:
            self._backlog = Backlog(topic, spool, self._window, self._hand_over, book, refused, failed)
        self._closing = False
        self.fatal: str | None = None
        """Why the client can produce no more, when it says that; the process has to start anew."""

    @property
    def in_flight_records(self) -> int:
        """Records that were sent and are neither acknowledged nor refused yet, those in the spool among them."""
        return self._window.records_in_memory + (0 if self._spool is None else self._spool.records)

    @property
    def draining(self) -> bool:
        """Whether messages go from the spool to the client, one turn after the other."""
        return self._backlog is not None and self._backlog.draining

    def start(self) -> None:
        """Make the client; does not wait for a broker."""
        self._client = producer(self._properties | {"error_cb": self._hear})

    def send(self, partition: int, batch: pa.RecordBatch, key: bytes | None = None) -> None:
        """Hand one message over. What there is no room for is refused, counted and told.

        With :data:`~ingest.window.BY_KEY` for its partition, a message goes where all with its key go.
        """
        self._started()
        # The client copies the value, so that the encoder's memory is free again after this.
        value = self._encoder.encode(batch)
        headers = codec.headers(batch.num_rows, self._name)
        sent = Sent(partition, key, headers, batch.num_rows, len(value), time.monotonic())
        if self._backlog is not None:
            sent.batch = batch
            self._backlog.send(sent, value)
            return
        refused = self._hand_over(sent, value)
        if refused is not None:
            self._refused(refused, sent.records)

    def poll(self) -> None:
        """Count what was acknowledged or refused meanwhile, and send what waits in the spool. Does not block."""
        self._started().poll(0)
        self._count_acknowledged()
        if self._backlog is not None:
            self._backlog.turn()
        self._show_queue()

    def shelter(self) -> None:
        """Have all that comes, and all that only the client has, in the spool, if there is one."""
        if self._backlog is not None:
            self._backlog.shelter()

    def close(self, wait_seconds: float, alive: Callable[[], None]) -> None:
        """Wait for the acknowledgement of all that was sent.

        What has none in time is kept in the spool; without one it is given up and counted. ``alive`` is called every
        now and then meanwhile.
        """
        client = self._started()
        if self._spool is not None and self._spool.is_open:
            wait_seconds = min(wait_seconds, SPOOLED_SECONDS)
        deadline = time.monotonic() + wait_seconds
        while (len(client) or self._unread) and time.monotonic() < deadline:
            if len(client):
                client.flush(0.2)
            else:
                client.poll(0.05)
            self.poll()
            alive()
        self.shelter()
        self._closing = True
        if len(client):
            client.purge()
        client.flush(PURGE_SECONDS)
        self._count_acknowledged()
        self.shelter()
        for sent in list(self._window):
            # Not even given up by the client: nobody will hear of it any more.
            self._window.remove(sent)
            self._give_up(sent)
        self._show_queue()

    @property
    def _unread(self) -> bool:
        return self._backlog is not None and self._backlog.unread

    def _started(self) -> Producer:
        if self._client is None:
            raise RuntimeError("the producer was not started")
        return self._client

    def _hand_over(self, sent: Sent, value: bytes | pa.Buffer) -> Refusal | None:
        """Give a message to the client; why it does not take it, when it does not."""
        try:
            self._started().produce(
                self._topic,
                value,
                sent.key,
                partition=sent.partition,
                headers=sent.headers,
                on_delivery=partial(self._answer, sent),
            )
        except BufferError:
            return self._count_error(Refusal.QUEUE_FULL)
        except KafkaException as exception:
            code = exception.args[0].code()
            if code == UNKNOWN_PARTITION and self._backlog is not None:
                self._backlog.miss(sent.partition)
            return self._count_error(refusal(code))
        self._window.add(sent)
        return None

    def _answer(self, sent: Sent, error: KafkaError | None, _: Message) -> None:
        """What the client says of a message in the end, while it is polled."""
        if not self._window.remove(sent):
            return
        if error is None:
            self._acknowledged.append((sent.records, sent.size, time.monotonic() - sent.begun))
            if self._backlog is not None:
                self._backlog.acknowledged(sent)
            return
        code = error.code()
        if self._closing and code not in FINAL:
            self._give_up(sent)
            return
        reason = self._count_error(refusal(code))
        if self._backlog is None:
            self._refused(reason, sent.records)
            return
        if code == UNKNOWN_PARTITION:
            self._backlog.miss(sent.partition)
        self._backlog.refuse(sent, reason, final=code in FINAL)

    def _give_up(self, sent: Sent) -> None:
        """At the end: what lies in the spool stays there."""
        if sent.place is None:
            self._refused(self._count_error(Refusal.NOT_ACKNOWLEDGED), sent.records)

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

    def _count_error(self, reason: Refusal) -> Refusal:
        self._book.add("kafka_produce_errors_total", 1, topic=self._topic, reason=reason.value)
        return reason

    def _show_queue(self) -> None:
        self._book.set("kafka_queue_messages", len(self._window), topic=self._topic)
        self._book.set("kafka_queue_bytes", self._window.bytes, topic=self._topic)

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error.str()
