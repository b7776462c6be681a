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

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer

    from shared.config import KafkaConfig

GRACE_MS: Final = 1000
"""How long an interval is over before a heartbeat says so: what is on its way comes first, and makes it needless."""
AGAIN_MS: Final = 5000
"""How long a heartbeat may take to come back before another is sent."""

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

    Without the right to write to the topic it says once what that means, and does nothing more. The producer is made,
    by ``connect``, with the first heartbeat.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        topic: str,
        client_id: str,
        clock: BrokerClock,
        throttle: Throttle,
        connect: Callable[[Properties], Producer] = producer,
    ) -> None:
        self._config = config
        self._connect = connect
        self._topic = topic
        self._client_id = client_id
        self._clock = clock
        self._throttle = throttle
        self._log = get_logger("heartbeat")
        self._producer: Producer | None = None
        self._not_before: dict[int, int] = {}
        self._forbidden = False

    def beat(self, partition: int, ends_ms: int) -> None:
        """Append a heartbeat when the interval that ends at ``ends_ms`` (append time) is over; called often."""
        now = self._clock.now_ms()
        if self._forbidden or now < ends_ms + GRACE_MS or now < self._not_before.get(partition, 0):
            return
        self._not_before[partition] = now + AGAIN_MS
        try:
            if self._producer is None:
                self._producer = self._connect(
                    producer_properties(self._config, self._client_id, queue_messages=10_000, queue_bytes=1 << 20)
                    # A heartbeat is worth nothing later: another is sent then.
                    | {"message.timeout.ms": str(AGAIN_MS), "linger.ms": "0"}
                )

            def appended(error: KafkaError | None, message: Message) -> None:
                self._appended(partition, ends_ms, error, message)

            self._producer.produce(
                self._topic,
                b"",
                partition=partition,
                headers=[*heartbeat_headers(self._client_id)],
                on_delivery=appended,
            )
        except (BufferError, KafkaException) as error:
            self._failed(str(error))

    def poll(self) -> None:
        """Hear what became of the heartbeats; never blocks."""
        if self._producer is not None:
            self._producer.poll(0)

    def close(self) -> None:
        """Let go of the producer; heartbeats that are under way may be lost, which harms nothing."""
        if self._producer is not None:
            self._producer.flush(1.0)
            self._producer = None

    def _appended(self, partition: int, ends_ms: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            if error.code() in _FORBIDDEN:
                self._forbidden = True
                self._log.warning(
                    "heartbeats cannot be written, so the last batch of a partition that falls idle is delivered only when"
                    " it gets its next record: allow this user to write to the topic",
                    topic=self._topic,
                )
            else:
                self._failed(error.str())
            return
        kind, append_ms = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME and append_ms < ends_ms:
            # Our clock is ahead of the broker's: this one fell into the interval that it was to end.
            self._not_before[partition] = self._clock.now_ms() + ends_ms - append_ms

    def _failed(self, reason: str) -> None:
        self._throttle.log(
            self._log, "warning", ("heartbeat",), "a heartbeat could not be appended; it is tried again", error=reason
        )
