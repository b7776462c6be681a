"""A Kafka that tests can take away, and the client in front of it, as far as the backlog sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from ingest.refusal import Refusal
from ingest.window import Sent, Window
from shared import codec


@dataclass
class FakeKafka:
    """A topic: what was appended to each partition, by number; and what a client is answered.

    Messages are told apart by the number of the record in them.
    """

    away: bool = False
    refuses: Refusal | None = None
    partitions: int = 4
    log: dict[int, list[int]] = field(default_factory=dict)

    def append(self, partition: int, value: bytes) -> None:
        """Keep a message."""
        self.log.setdefault(partition, []).append(number_of(value))

    def first_seen(self) -> dict[int, list[int]]:
        """The numbers in each partition, each where it is first."""
        return {partition: list(dict.fromkeys(numbers)) for partition, numbers in self.log.items()}


class FakeClient:
    """Takes messages as long as there is room, and hands them to Kafka in its order when it is polled."""

    def __init__(self, kafka: FakeKafka, window: Window, room_messages: int = 1 << 30) -> None:
        self.kafka = kafka
        self.window = window
        self.room_messages = room_messages
        self.acknowledged: Callable[[Sent], None] = lambda _: None
        self.refuse: Callable[[Sent, Refusal], None] = lambda _sent, _refusal: None
        self.miss: Callable[[int], None] = lambda _: None
        self._queue: list[tuple[Sent, bytes]] = []

    def hand(self, sent: Sent, value: bytes | pa.Buffer) -> Refusal | None:
        """Take a message, or say why not."""
        if len(self._queue) >= self.room_messages:
            return Refusal.QUEUE_FULL
        if not self.kafka.away and sent.partition >= self.kafka.partitions:
            self.miss(sent.partition)
            return Refusal.UNKNOWN_TOPIC
        self.window.add(sent)
        self._queue.append((sent, bytes(value)))
        return None

    def poll(self, count: int = 1 << 30, *, acknowledge: bool = True) -> None:
        """Let Kafka have so many messages, and hear its answers; or let them be lost, as when a connection breaks."""
        if self.kafka.away:
            return
        if self.kafka.refuses is not None:
            # A topic that is refused is so for all that waits: one and not the next would be another order.
            count = len(self._queue)
        answered, self._queue = self._queue[:count], self._queue[count:]
        for at, (sent, value) in enumerate(answered):
            if self.kafka.refuses is None and not acknowledge:
                # They are appended, and nobody hears of it: the client waits for an answer still.
                self.kafka.append(sent.partition, value)
                self._queue.insert(at, (sent, value))
                continue
            self.window.remove(sent)
            if self.kafka.refuses is not None:
                self.refuse(sent, self.kafka.refuses)
            else:
                self.kafka.append(max(sent.partition, 0), value)
                self.acknowledged(sent)


def batch_of(number: int) -> pa.RecordBatch:
    """A message of one record that says which it is."""
    return pa.record_batch({"record_id": pa.array([number], pa.uint64())})


def number_of(value: bytes) -> int:
    """Which message this is."""
    (number,) = codec.decode(value)["record_id"].to_pylist()
    assert isinstance(number, int)
    return number
