from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import structlog
from confluent_kafka.admin import NewPartitions, NewTopic
from structlog.testing import CapturingLogger

from ingest.topics import TopicWatch
from shared.config import KafkaConfig
from shared.kafka import (
    COUNTERS,
    DEADLETTER,
    EXPORTERS,
    RECORDS,
    UNDECODED,
    TopicFacts,
    admin,
    full_name,
    partition_count,
    topic,
)
from shared.web import Check

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 30.0


class Watched:
    """A watch on the topic of a test's own, and what it told."""

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self.name = full_name(config, RECORDS)
        self.found: list[int] = []
        self.lines = CapturingLogger()
        logger = structlog.wrap_logger(self.lines, processors=[], wrapper_class=structlog.stdlib.BoundLogger)
        self.exporters: list[TopicFacts] = []
        self.watch = TopicWatch(config, self.found.append, self.exporters.append, logger)

    def look(self) -> Check:
        """Have it look once, as its thread does every now and then."""
        self.watch._look()
        return self.watch.check()

    def create(self, partitions: int, **settings: str) -> None:
        """Make the topic, as an operator would."""
        wanted = dict(topic(self.config, RECORDS).settings) | {
            name.replace("_", "."): one for name, one in settings.items()
        }
        new = NewTopic(self.name, num_partitions=partitions, replication_factor=1, config=wanted)
        client = admin(self.config)
        for future in client.create_topics([new]).values():
            future.result(PATIENCE_SECONDS)
        self.until_there_are(partitions)

    def grow(self, partitions: int) -> None:
        """Give the topic more partitions."""
        client = admin(self.config)
        for future in client.create_partitions([NewPartitions(self.name, partitions)]).values():
            future.result(PATIENCE_SECONDS)
        self.until_there_are(partitions)

    def until_there_are(self, partitions: int) -> None:
        """Wait until the broker shows what it has done."""
        until(lambda: partition_count(self.config, RECORDS) == partitions, f"{partitions} partitions")

    def told(self, level: str) -> list[str]:
        """Everything that was logged at a level, in words."""
        return [str(call.kwargs) for call in self.lines.calls if call.method_name == level]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what} in time"
        time.sleep(0.02)


def watched(kafka: str, topic_prefix: str, **more: object) -> Watched:
    """A watch on a topic that is not there yet."""
    values = {"bootstrap_servers": kafka, "topic_prefix": topic_prefix, "partitions": 3, **more}
    return Watched(KafkaConfig.model_validate(values))


def test_a_missing_topic_is_made_and_its_partitions_are_told_once(kafka: str, topic_prefix: str) -> None:
    """Where that is allowed, the topic is there after the first look; whoever waits for it is told once."""
    ours = watched(kafka, topic_prefix)
    assert ours.watch.check() == Check("kafka", ok=False, detail="no broker has answered yet")
    assert ours.look() == Check("kafka", ok=True, detail=f"{ours.name} has 3 partitions")
    assert ours.look().ok
    assert ours.found == [3]
    assert {facts.name for facts in ours.exporters} == {full_name(ours.config, EXPORTERS)}
    assert ours.lines.calls == []


def test_a_missing_topic_that_may_not_be_made_is_named_with_the_command_that_makes_it(
    kafka: str, topic_prefix: str
) -> None:
    """It is said once in the log, and in the probe for as long as it is so; it recovers by itself.

    All others are named as well, and records do not wait for them.
    """
    ours = watched(kafka, topic_prefix, create_topics=False)
    for _ in range(2):
        check = ours.look()
        assert not check.ok
        assert f"The topic {ours.name} is missing, and kafka.create_topics is false" in check.detail
        assert f"kafka-topics.sh --bootstrap-server {kafka} --create --topic {ours.name} --partitions 3" in check.detail
    records, *others = ours.told("warning")
    assert ours.found == []
    assert ours.exporters == []
    assert f"--topic {ours.name} " in records
    for topic_name in (COUNTERS, EXPORTERS, UNDECODED, DEADLETTER):
        assert any(f"--topic {full_name(ours.config, topic_name)} " in one for one in others)
    ours.create(5)
    assert ours.look() == Check("kafka", ok=True, detail=f"{ours.name} has 5 partitions")
    assert ours.found == [5]


def test_more_partitions_are_noticed_and_what_that_means_is_said(kafka: str, topic_prefix: str) -> None:
    """Flows change their partition then, which voids the recognition of duplicates for a while."""
    ours = watched(kafka, topic_prefix)
    ours.look()
    ours.grow(4)
    assert ours.look().detail == f"{ours.name} has 4 partitions"
    assert ours.found == [3, 4]
    (line,) = ours.told("warning")
    assert "more partitions" in line
    assert "duplicates" in line


def test_a_topic_that_breaks_a_promise_is_named_once_and_used(kafka: str, topic_prefix: str) -> None:
    """Ingest can deliver to it all the same; the command that mends it is in the log."""
    ours = watched(kafka, topic_prefix)
    ours.create(2, message_timestamp_type="CreateTime")
    assert ours.look().ok
    assert ours.look().ok
    (line,) = ours.told("warning")
    assert "message.timestamp.type=CreateTime" in line
    assert "kafka-configs.sh" in line


def test_it_watches_in_a_thread_of_its_own_until_it_is_stopped(kafka: str, topic_prefix: str) -> None:
    """What it finds is told from there, and the thread ends when it is told to."""
    ours = watched(kafka, topic_prefix)
    ours.watch.start()
    until(lambda: ours.found == [3], "found")
    until(lambda: ours.watch.check().ok, "well")
    ours.watch.stop()
    ours.watch._thread.join(PATIENCE_SECONDS)
    assert not ours.watch._thread.is_alive()
