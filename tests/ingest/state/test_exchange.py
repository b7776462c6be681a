"""Instances that follow and publish on a real Kafka, without workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from structlog.testing import CapturingLogger

from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.layout import Field, Layout, Template
from ingest.decoders.templates import Word
from ingest.state.exchange import StateTopic
from ingest.state.knowledge import Changes, Knowledge
from shared.config import KafkaConfig
from shared.kafka import EXPORTERS, admin, ensure_topics, full_name, partition_count
from shared.metrics import Book, total
from tests.builders import mapped

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 60.0
EDGE = mapped("192.0.2.1")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what} in time"
        time.sleep(0.02)


class Instance:
    """What one knows, and its thread."""

    def __init__(self, config: KafkaConfig, seed: int) -> None:
        self.config = config
        self.book = Book()
        self.lines = CapturingLogger()
        self.told = Changes()
        self.knowledge = Knowledge(
            lambda _: -1, 60.0, clock=time.monotonic, clock_ms=lambda: time.time_ns() // 1_000_000, seed=seed
        )
        logger = structlog.wrap_logger(self.lines, processors=[], wrapper_class=structlog.stdlib.BoundLogger)
        self.state = StateTopic(
            config, self.knowledge, self.book, logger, self._tell, wait_seconds=PATIENCE_SECONDS, name=f"test-{seed}"
        )
        self.state.start()

    def find(self) -> None:
        """Tell it what the topic is, as whoever sees to the topics does."""
        self.state.found(ensure_topics(self.config, [EXPORTERS]).topics[EXPORTERS])

    def until_ready(self) -> None:
        """Wait until it has read the topic."""
        self.find()
        until(lambda: self.state.check().ok, "ready")

    def hear(self, *template_ids: int) -> None:
        """Datagrams with templates."""
        layout = Layout(9, (Field(0, 8, 4), Field(0, 1, 8)), options=False, scopes=0)
        now_ns = time.time_ns()
        for template_id in template_ids:
            key = EDGE + (9).to_bytes(2) + (template_id // 512).to_bytes(4) + template_id.to_bytes(2)
            self.knowledge.hear([Word(key, Template(template_id, layout, 12), True, 7, 1000, now_ns, now_ns)])

    def counted(self, name: str, **labels: str) -> int:
        """What it counts."""
        return int(total(self.book.snapshot(), name, **labels))

    def _tell(self, changes: Changes) -> None:
        self.told.templates += changes.templates
        self.told.facts += changes.facts


@pytest.fixture
def make(kafka: str, topic_prefix: str) -> Iterator[Callable[[], Instance]]:
    """Makes instances on a topic of the test's own, and stops them all."""
    made: list[Instance] = []
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix)

    def one() -> Instance:
        made.append(Instance(config, len(made) + 1))
        return made[-1]

    yield one
    for instance in made:
        instance.state.stop()
    assert [line for instance in made for line in instance.lines.calls if line.method_name == "error"] == []


def test_instances_know_what_any_of_them_heard(make: Callable[[], Instance]) -> None:
    """Templates one by one, tables by the page; what comes back to whoever told it changes nothing."""
    first, second = make(), make()
    for one in (first, second):
        one.until_ready()
    first.hear(*range(256, 306))
    first.knowledge.hear_facts(Fact(Kind.INTERFACE_NAME, EDGE, 9, 0, about, f"Te0/{about}") for about in range(600))
    until(lambda: len(second.told.templates) == 50 and len(second.told.facts) == 600, "told")
    assert dict(second.knowledge.templates()) == dict(first.knowledge.templates())
    assert {fact.about: fact.value for fact in second.told.facts} == {about: f"Te0/{about}" for about in range(600)}
    until(lambda: first.counted("ingest_state_followed_total") == 53, "read by itself")
    assert (first.told.templates, first.told.facts) == ([], [])
    assert first.counted("ingest_state_published_total", kind="template") == 50
    assert first.counted("ingest_state_published_total", kind="table") == 3
    assert second.counted("ingest_state_published_total") == 0
    assert second.counted("ingest_state_skipped_total") == 0


def test_an_instance_is_ready_when_it_knows_everything(make: Callable[[], Instance]) -> None:
    """Not a message earlier; and one whose topic nobody can tell of waits."""
    first = make()
    first.until_ready()
    first.hear(*range(256, 256 + 60))
    until(lambda: first.counted("ingest_state_published_total") == 60, "published")
    second = make()
    assert not second.state.check().ok
    assert "no broker has told anything of it yet" in second.state.check().detail
    second.find()
    until(lambda: second.state.check().ok, "ready")
    assert len(second.knowledge.templates()) == 60
    (line,) = [line.kwargs for line in second.lines.calls if line.method_name == "info"]
    assert (line["messages"], line["templates"]) == (60, 60)


def test_what_the_topic_no_longer_has_is_not_waited_for(make: Callable[[], Instance]) -> None:
    """Retention and compaction leave holes, at the beginning and at the end."""
    first = make()
    first.until_ready()
    first.hear(*range(256, 296))
    until(lambda: first.counted("ingest_state_published_total") == 40, "published")
    name = full_name(first.config, EXPORTERS)
    client = admin(first.config)
    everything = [TopicPartition(name, number, -1) for number in range(partition_count(first.config, EXPORTERS))]
    for future in client.delete_records(everything).values():
        future.result(PATIENCE_SECONDS)
    second = make()
    second.until_ready()
    assert second.knowledge.templates() == ()


def test_partitions_that_are_added_are_followed(make: Callable[[], Instance]) -> None:
    """Keys change their place then; which version is the newest does not depend on it."""
    first, second = make(), make()
    for one in (first, second):
        one.until_ready()
    first.hear(256)
    until(lambda: len(second.told.templates) == 1, "told")
    name = full_name(first.config, EXPORTERS)
    client = admin(first.config)
    for future in client.create_partitions([NewPartitions(name, 6)]).values():
        future.result(PATIENCE_SECONDS)
    until(lambda: partition_count(first.config, EXPORTERS) == 6, "six partitions")
    for one in (first, second):
        one.find()
    first.hear(*range(257, 297))
    until(lambda: len(second.knowledge.templates()) == 41, "told")
    assert second.counted("ingest_state_skipped_total") == 0


def test_what_was_heard_last_is_published_before_the_end(make: Callable[[], Instance]) -> None:
    """As far as its exporter may; an instance that stops takes nothing with it that others could need."""
    first = make()
    first.until_ready()
    first.hear(*range(256, 316))
    first.state.stop()
    assert first.counted("ingest_state_published_total") == 60
    second = make()
    second.until_ready()
    assert len(second.knowledge.templates()) == 60
