"""Heartbeats: empty messages that end an interval in which nothing more comes.

A batch ends when a message of a later interval follows. Where none does, an empty one does it: for the cut it is a
message like any other, so that whoever reads the partition, with whatever interval, finds it in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException

from shared.codec import heartbeat_headers
from shared.kafka import Properties, producer, producer_properties
from shared.log import Throttle, get_logger
from shared.refusal import Refusal, refusal

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer

    from shared.config import KafkaConfig
    from shared.metrics import Book

GRACE_MS: Final = 1000
"""How long an interval is over before a heartbeat says so: what is on its way comes first, and makes it needless."""
AGAIN_MS: Final = 5000
"""How long a heartbeat may take to come back before another is sent."""
FORBIDDEN_MS: Final = 60_000
"""How long none is sent after one that this user may not write: the right may be given meanwhile."""
PURGE_SECONDS: Final = 1.0
"""How long a client that can produce no more may take to say what it gives up."""

_FORBIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class BrokerClock:
    """What the broker's clock shows, as far as the append times of its messages tell.

    The local clock, unless the broker's is ahead. Where the local one is ahead, a heartbeat comes too early, and its
    append time tells by how much.
    """

    def __init__(
        self,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_ms = wall_ms
        self._clock = clock
        self._seen_ms = 0
        self._seen_at = 0.0

    def see(self, append_ms: int) -> None:
        """Learn that the broker's clock has shown this."""
        if append_ms > self._estimate_ms():
            self._seen_ms = append_ms
            self._seen_at = self._clock()

    def now_ms(self) -> int:
        """Return the local clock or the broker's, whichever is ahead."""
        return max(self._wall_ms(), self._estimate_ms())

    def _estimate_ms(self) -> int:
        return self._seen_ms + int((self._clock() - self._seen_at) * 1000) if self._seen_ms else 0


class Heart:
    """Appends heartbeats to partitions; one for each sink, used by its thread alone.

    Without the right to write to the topic it says what that means, and tries one heartbeat every ``FORBIDDEN_MS``. The
    producer is made, by ``connect``, with the first heartbeat, and anew when it has failed for good.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        topic: str,
        client_id: str,
        clock: BrokerClock,
        throttle: Throttle,
        book: Book,
        connect: Callable[[Properties], Producer] = producer,
    ) -> None:
        self._config = config
        self._connect = connect
        self._topic = topic
        self._client_id = client_id
        self._clock = clock
        self._throttle = throttle
        self._book = book
        self._log = get_logger("heartbeat")
        self._producer: Producer | None = None
        self._not_before: dict[int, int] = {}
        self._forbidden = False
        self._quiet_until = 0
        self._fatal: str | None = None

    def beat(self, partition: int, ends_ms: int) -> None:
        """Append a heartbeat when the interval that ends at ``ends_ms`` (append time) is over; called often."""
        now = self._clock.now_ms()
        if now < max(ends_ms + GRACE_MS, self._not_before.get(partition, 0), self._quiet_until):
            return
        self._not_before[partition] = now + AGAIN_MS
        if self._forbidden:
            # This one tries it for all partitions.
            self._quiet_until = now + FORBIDDEN_MS

        def appended(error: KafkaError | None, message: Message) -> None:
            self._appended(partition, ends_ms, error, message)

        try:
            self._connected().produce(
                self._topic,
                b"",
                partition=partition,
                headers=[*heartbeat_headers(self._client_id)],
                on_delivery=appended,
            )
        except BufferError as error:
            self._failed(Refusal.QUEUE_FULL, str(error))
        except KafkaException as exception:
            self._failed(refusal(exception.args[0].code()), str(exception))

    def poll(self) -> None:
        """Hear what became of the heartbeats; never blocks."""
        if self._producer is not None:
            self._producer.poll(0)

    def close(self) -> None:
        """Let go of the producer; heartbeats that are under way may be lost, which harms nothing."""
        if self._producer is not None:
            self._producer.flush(1.0)
            self._producer = None

    def _connected(self) -> Producer:
        if self._producer is not None and self._fatal is not None:
            self._throttle.log(
                self._log,
                "error",
                ("heartbeat", "fatal"),
                "the Kafka client can append no more heartbeats, starting anew",
                error=self._fatal,
            )
            self._producer.purge()
            self._producer.flush(PURGE_SECONDS)
            self._producer = None
        if self._producer is None:
            self._fatal = None
            self._producer = self._connect(
                producer_properties(self._config, self._client_id, queue_messages=10_000, queue_bytes=1 << 20)
                # A heartbeat is worth nothing later: another is sent then.
                | {"message.timeout.ms": str(AGAIN_MS), "linger.ms": "0", "error_cb": self._hear}
            )
        return self._producer

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()
            if error.code() in _FORBIDDEN:
                self._forbid()

    def _appended(self, partition: int, ends_ms: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            if error.code() in _FORBIDDEN:
                self._forbid()
                self._count_error(refusal(error.code()))
            else:
                self._failed(refusal(error.code()), error.str())
            return
        self._book.add("kafka_produced_messages_total", 1, topic=self._topic)
        if self._forbidden:
            self._forbidden, self._quiet_until = False, 0
            self._log.info("heartbeats can be written again", topic=self._topic)
        kind, append_ms = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME and append_ms < ends_ms:
            # Our clock is ahead of the broker's: this one fell into the interval that it was to end.
            self._not_before[partition] = self._clock.now_ms() + ends_ms - append_ms

    def _forbid(self) -> None:
        self._quiet_until = self._clock.now_ms() + FORBIDDEN_MS
        if not self._forbidden:
            self._forbidden = True
            self._log.warning(
                "heartbeats cannot be written, so the last batch of a partition that falls idle is delivered only when"
                " it gets its next record: allow this user to write to the topic; it is tried again every"
                f" {FORBIDDEN_MS // 1000} s",
                topic=self._topic,
            )

    def _failed(self, reason: Refusal, error: str) -> None:
        self._count_error(reason)
        self._throttle.log(
            self._log, "warning", ("heartbeat",), "a heartbeat could not be appended; it is tried again", error=error
        )

    def _count_error(self, reason: Refusal) -> None:
        self._book.add("kafka_produce_errors_total", 1, topic=self._topic, reason=reason.value)
