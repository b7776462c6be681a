"""From where a partition is read, and what nobody will read any more."""

from __future__ import annotations

import time
from typing import cast

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from ingest.outbox import MessageBounds
from ingest.undecoded.chunk import Answer
from ingest.undecoded.group import GROUP, ScanBounds, UndecodedGroup
from ingest.undecoded.outgoing import Tally
from ingest.undecoded.settle import Settler
from shared.config import KafkaConfig
from shared.kafka import (
    UNDECODED,
    admin,
    consumer,
    consumer_properties,
    ensure_topics,
    full_name,
    producer,
    producer_properties,
)
from shared.metrics import Book, total
from tests.ingest.undecoded.made import PRODUCER
from tests.ingest.undecoded.test_settle import MemoryPost

TOPIC, PARTITION = "flows.undecoded", 3
PATIENCE_SECONDS = 60.0


class FakeConsumer:
    """A consumer of a partition whose log has these ends, and of a group that has committed so far."""

    def __init__(self, committed: int, low: int, high: int) -> None:
        self.at = committed
        self.ends = (low, high)
        self.forgets = False
        self.assigned: list[int] = []

    def committed(self, names: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        """What the group has committed."""
        assert timeout > 0
        return [TopicPartition(name.topic, name.partition, self.at) for name in names]

    def get_watermark_offsets(self, _name: TopicPartition, timeout: float) -> tuple[int, int]:
        """The ends of the log."""
        assert timeout > 0
        return self.ends

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        """Note it, or not."""
        assert not asynchronous
        if self.forgets:
            raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
        self.at = offsets[0].offset

    def incremental_assign(self, names: list[TopicPartition]) -> None:
        """Note from where it is read."""
        self.assigned += [name.offset for name in names]

    def pause(self, names: list[TopicPartition]) -> None:
        """Do nothing."""


def lost(client: FakeConsumer, assignments: int = 1) -> float:
    """How many messages are counted as lost while a partition is assigned so often."""
    config, tally, book = KafkaConfig(), Tally(), Book()
    settler = Settler(config, PRODUCER, MessageBounds(), lambda _: "", tally, MemoryPost(tally))
    group = UndecodedGroup(config, "test", ScanBounds(), settler, lambda _: Answer([], []), lambda _: ())
    for _ in range(assignments):
        group._on_assign(cast(Consumer, client), [TopicPartition(TOPIC, PARTITION)])
    tally.enter(book)
    return total(book.snapshot(), "ingest_undecoded_lost_messages_total")


@pytest.mark.parametrize(
    ("committed", "low", "high", "gone", "begin"),
    [
        pytest.param(OFFSET_INVALID, 0, 9, 0, 0, id="never read, and all is there"),
        pytest.param(OFFSET_INVALID, 40, 90, 40, 40, id="never read, and its start is gone"),
        pytest.param(OFFSET_INVALID, 40, 40, 40, 40, id="never read, and all is gone"),
        pytest.param(60, 40, 90, 0, 60, id="read further than what is gone"),
        pytest.param(30, 40, 90, 10, 40, id="not read as far as what is gone"),
        pytest.param(99, 40, 90, 0, 40, id="made anew"),
    ],
)
def test_what_expired_unread_is_counted_once(committed: int, low: int, high: int, gone: int, begin: int) -> None:
    """However often the partition changes hands before anything more comes."""
    client = FakeConsumer(committed, low, high)
    assert lost(client, assignments=3) == gone
    assert client.assigned == [begin] * 3


def test_an_offset_that_cannot_be_committed_does_not_keep_the_partition_from_being_read() -> None:
    """It may be counted again then, which is better than never."""
    client = FakeConsumer(OFFSET_INVALID, 40, 90)
    client.forgets = True
    assert lost(client) == 40
    assert client.assigned == [40]


@pytest.mark.integration
def test_a_group_that_never_ran_writes_down_what_it_found_gone(kafka: str, topic_prefix: str) -> None:
    """On a real Kafka: the offset is committed while the partition is being assigned, and the loss is counted once."""
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix)
    assert not ensure_topics(config, [UNDECODED]).problems
    name = full_name(config, UNDECODED)
    sending = producer(producer_properties(config, "test"))
    for _ in range(7):
        sending.produce(name, b"", partition=0)
    assert sending.flush(PATIENCE_SECONDS) == 0
    ours = admin(config)
    for future in ours.delete_records([TopicPartition(name, 0, -1)]).values():
        future.result(PATIENCE_SECONDS)
    client = consumer(consumer_properties(config, topic_prefix + GROUP, "asking"))
    book = Book()
    for _ in range(2):
        tally = Tally()
        settler = Settler(config, PRODUCER, MessageBounds(), lambda _: "", tally, MemoryPost(tally))
        group = UndecodedGroup(config, "test", ScanBounds(), settler, lambda _: Answer([], []), lambda _: ())
        group.start(1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not group._places:
            assert time.monotonic() < deadline, "nothing is assigned"
            time.sleep(0.05)
        group.stop()
        group.join()
        tally.enter(book)
        (committed,) = client.committed([TopicPartition(name, 0)], timeout=PATIENCE_SECONDS)
        assert committed.offset == 7
    client.close()
    assert total(book.snapshot(), "ingest_undecoded_lost_messages_total") == 7
