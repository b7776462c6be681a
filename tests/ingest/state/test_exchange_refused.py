"""What the thread of the state counts when Kafka does not take an entry; no Kafka is needed for that."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError

from ingest.state.exchange import StateTopic
from ingest.state.knowledge import Due, Knowledge
from shared.config import KafkaConfig
from shared.log import get_logger
from shared.metrics import Book


class Publishing(Knowledge):
    """Notes what has to be published again."""

    def __init__(self) -> None:
        super().__init__(lambda _: -1, 60.0, clock=time.monotonic, clock_ms=lambda: 0, seed=1)
        self.again: list[Due] = []

    def refused(self, due: Due) -> None:
        """Note it."""
        self.again.append(due)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "not_authorized"),
        (KafkaError.MSG_SIZE_TOO_LARGE, "too_large"),
        (KafkaError._PURGE_QUEUE, "not_acknowledged"),
        (KafkaError.NOT_ENOUGH_REPLICAS, "other"),
    ],
)
def test_an_entry_that_is_not_taken_is_counted_with_its_reason(code: int, reason: str) -> None:
    """One of those that all messages to Kafka have; and it is published again."""
    book, knowledge = Book(), Publishing()
    topic = StateTopic(
        KafkaConfig(), knowledge, book, get_logger("test"), lambda _: None, wait_seconds=1.0, name="test"
    )
    due = Due(b"item", (b"key", b"value"), [])
    topic._refused(due, KafkaError(code))
    assert knowledge.again == [due]
    assert book.snapshot() == {"kafka_produce_errors_total": {("flows.exporters", reason): 1}}
