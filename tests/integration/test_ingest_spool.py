"""Promise **durable**, the half of ingest: while Kafka is away, refuses a topic, or the disk is full, the spool has it.

One broker for all tests, killed and started again; what one test leaves spooled, another delivers.
"""

from __future__ import annotations

import os
import resource
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from deploy.local.books import sent
from deploy.local.kafka import Broker, DockerKafka, KafkaUnavailable, broker, free_port
from shared.kafka import admin
from tests.builders import v5_datagram, v5_record
from tests.counter_builders import counters_datagram, counters_sample, interface_record
from tests.integration.programs import Ingest, Programs, Settings, merged, of_records
from tests.integration.topic import RecordsTopic, column, drops, records
from tests.integration.traffic import flows, send

pytestmark = pytest.mark.integration

AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "super.users": "User:nobody",
}
"""Whoever connects may do what no rule forbids."""


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module, which its tests start and kill; it does not run yet, but has its port."""
    try:
        ours = broker(tmp_path_factory.mktemp("own") / "kafka", free_port(), settings=AUTHORIZED)
    except KafkaUnavailable as error:
        pytest.skip(f"a broker that may be killed has to be our own: {error}")
    yield ours
    if isinstance(ours, DockerKafka):
        ours.remove()
    else:
        ours.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "spool"


def spooling(directory: Path, more: Settings | None = None) -> Settings:
    """Settings of one worker with a spool."""
    return merged({"ingest": {"workers": 1, "spool": {"directory": str(directory)}}}, more or {})


def spread(count: int, first: int = 0) -> list[bytes]:
    """Datagrams of one record each, told by their sequence numbers, of flows in all partitions."""
    return [v5_datagram(v5_record(src_port=1024 + one % 64), sequence=one) for one in range(first, first + count)]


def until_spooled(ingest: Ingest, count: int) -> None:
    """Wait until so many records are in the spool, and nowhere else."""

    def spooled() -> bool:
        metrics = ingest.metrics()
        return metrics.total("ingest_spool_records") == metrics.total("ingest_records_in_flight") == count

    ingest.until(spooled, f"{count} records in the spool")


def by_partition(messages: list[Message]) -> dict[int, list[int]]:
    """The sequence numbers of the records in each partition, in their order there, each where it is first."""
    found: dict[int, list[int]] = {}
    for message in messages:
        partition = message.partition()
        assert partition is not None
        found.setdefault(partition, []).extend(column(records([message]), "sequence_num"))
    return {partition: list(dict.fromkeys(numbers)) for partition, numbers in found.items()}


def test_nothing_is_lost_while_kafka_is_away_whoever_is_killed(
    own_broker: Broker, programs: Programs, topic_prefix: str, directory: Path
) -> None:
    """The broker, then a worker, then all of ingest are killed, and it is stopped once: all that was received arrives.

    In each partition it has the order in which it was received, across all of that.
    """
    own_broker.start()
    settings = spooling(directory)
    first = programs.ingest(own_broker.bootstrap_servers, topic_prefix, settings).until_ready()
    send(spread(200), first.port())
    first.until_delivered(200)
    assert first.metrics().total("ingest_spool_written_records_total") == 0
    assert list(directory.glob("**/*.spool")) == []
    own_broker.kill()

    send(spread(300, 200), first.port())
    until_spooled(first, 300)
    told = first.event("messages go to the spool until Kafka takes them")
    assert told["reason"] == "no acknowledgement"
    os.kill(first.workers()["worker-0"], signal.SIGKILL)
    first.workers(replaced=1)
    until_spooled(first, 300)
    assert drops(first.ledger()) == {}
    assert first.ledger()["received"]["from_spool"] == 0
    assert first.event("a worker died and is replaced; what its sockets have queued is kept")["records_lost"] == 0
    send(spread(300, 500), first.port())
    until_spooled(first, 600)
    first.kill()

    # Nobody can tell it how many partitions there are.
    second = programs.ingest(own_broker.bootstrap_servers, topic_prefix, settings)
    second.workers()
    until_spooled(second, 600)
    assert second.ledger()["received"]["from_spool"] == 600
    send(spread(100, 800), second.port())
    second.until_received(100)
    assert second.stop() == 0
    books = second.final_ledger()
    line = of_records(books)
    assert (line.received, line.delivered, line.in_flight, drops(books)) == (700, 0, 700, {})

    third = programs.ingest(own_broker.bootstrap_servers, topic_prefix, settings)
    third.workers()
    send(spread(100, 900), third.port())
    third.until_received(100)
    own_broker.start()
    line = third.until_delivered(800)
    assert (line.received, line.dropped) == (800, 0)
    send(spread(100, 1000), third.port())
    third.until_delivered(900)
    third.until(lambda: third.metrics().total("ingest_spool_bytes") == 0, "empty on disk")
    assert third.stop() == 0

    numbers = by_partition(RecordsTopic(own_broker.bootstrap_servers, topic_prefix).read())
    assert len(numbers) == 4
    assert all(found == sorted(found) for found in numbers.values())
    assert sorted(one for found in numbers.values() for one in found) == list(range(1100))


class Outage:
    """Two instances that were under load while their broker was killed and started again; the disk of one was full."""

    def __init__(self, own_broker: Broker, programs: Programs, home: Path) -> None:
        self.prefixes = [f"t-{uuid.uuid4().hex[:8]}." for _ in range(2)]
        own_broker.start()
        small = {"kafka": {"properties": {"queue.buffering.max.kbytes": 256}}}
        self._servers = servers = own_broker.bootstrap_servers
        self.roomy = programs.ingest(servers, self.prefixes[0], spooling(home / "roomy"))
        self.full = programs.ingest(servers, self.prefixes[1], spooling(home / "full", small))
        for ingest in (self.roomy, self.full):
            send(spread(10), ingest.until_ready().port())
            ingest.until_delivered(10)
        arguments = ("--exporters", "40", "--count", "9000", "--rate", "1500")
        generator = programs.run("ingest", "generate", "--to", f"127.0.0.1:{self.roomy.port()}", *arguments)
        self.roomy.until(lambda: generator.status or self.roomy.balance().delivered > 1000, "delivering")
        own_broker.kill()
        # A file that may not grow any more is to a writer what a full disk is.
        resource.prlimit(self.full.workers()["worker-0"], resource.RLIMIT_FSIZE, (150_000, 150_000))
        flood = ("--protocol", "v5", "--exporters", "9", "--count", "600", "--uniform")
        said = programs.generate(self.full.port(), *flood)
        self.full.until_received(10 + said["datagrams"]["NETFLOW_V5"])
        self.full.until(lambda: drops(self.full.ledger()).get("spool_full"), "full")
        self.full.until(lambda: self.full.metrics().total("ingest_outbox_records") == 0, "spooled or dropped")
        self.books = self.full.ledger()
        self.bytes = self.full.metrics().total("ingest_spool_bytes")
        self.roomy.until(lambda: self.roomy.metrics().total("ingest_spool_records") > 10_000, "spooling")
        own_broker.start()
        assert generator.wait() == 0
        self.sent = 10 + sum(one.records for one in sent(generator.output).values())

    def identities(self, number: int) -> set[int]:
        """The records that are in the topic of an instance; a message may be there twice."""
        return set(column(RecordsTopic(self._servers, self.prefixes[number]).records(), "record_id"))


@pytest.fixture(scope="module")
def outage(own_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """An outage under load that is over."""
    home = tmp_path_factory.mktemp("outage")
    with Programs(home / "programs") as programs:
        yield Outage(own_broker, programs, home)


def test_a_broker_that_is_killed_under_load_costs_nothing(outage: Outage) -> None:
    """What comes meanwhile goes to the spool, and the traffic behind it: in the end everything is in the topic."""
    ingest = outage.roomy
    line = ingest.until_delivered(outage.sent)
    assert (line.received, line.delivered, line.dropped) == (outage.sent, outage.sent, 0)
    assert len(outage.identities(0)) == outage.sent
    ingest.until(lambda: ingest.metrics().total("ingest_spool_active") == 0, "done with the spool")
    ingest.event("Kafka takes messages again, and has all that was in the spool or is about to")
    assert ingest.metrics().total("ingest_spool_bytes") == 0
    assert ingest.stop() == 0


def test_a_disk_that_is_full_costs_the_newest(outage: Outage) -> None:
    """What the disk takes is kept, the rest is dropped, counted and told; ingest lives, and delivers what was kept."""
    ingest = outage.full
    assert drops(outage.books).keys() == {"spool_full"}
    told = ingest.event("the spool has a problem", reason="disk_full")
    assert told["level"] == "error"
    assert "free some space, or set ingest.spool.max_bytes" in told["problem"]
    assert ingest.event("dropped", reason="spool_full")["level"] == "error"
    assert ingest.metrics().total("ingest_spool_errors_total", reason="disk_full") > 0
    assert 0 < outage.bytes <= 150_000
    kept = of_records(outage.books).in_flight
    assert kept > 0
    assert ingest.until_delivered(10 + kept).delivered == 10 + kept
    assert len(outage.identities(1)) == 10 + kept
    assert ingest.metrics().total("ingest_worker_restarts_total") == 0


def test_a_topic_that_is_refused_holds_up_no_other(
    own_broker: Broker, programs: Programs, topic_prefix: str, directory: Path
) -> None:
    """What may not be written waits in the spool, and arrives when it may; the other topic goes on meanwhile."""
    own_broker.start()
    ingest = programs.ingest(own_broker.bootstrap_servers, topic_prefix, spooling(directory)).until_ready()
    send(flows(10), ingest.port())
    ingest.until_delivered(10)
    topic = RecordsTopic(own_broker.bootstrap_servers, topic_prefix)
    client = admin(topic.config)
    rule = AclBinding(
        ResourceType.TOPIC,
        topic.name,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    for future in client.create_acls([rule]).values():
        future.result(30.0)
    count = iter(range(10, 10_000))

    def said() -> dict[str, object] | None:
        # One more record each time: a rule takes effect some time after it was made.
        send(flows(1, next(count)), ingest.port())
        lines = ingest.events("Kafka refuses the topic; its messages wait in the spool, and are tried again")
        return lines[-1] if lines else None

    refused = ingest.until(said, "refused")
    assert refused is not None
    assert refused["topic"] == topic.name
    assert refused["reason"] == "not_authorized"
    counters = [counters_datagram(counters_sample(interface_record(1), sequence=one), sequence=one) for one in (1, 2)]
    send(counters, ingest.port())
    ingest.until(lambda: ingest.ledger()["counters"]["delivered"] == 2, "counter samples delivered")
    ingest.until_received(next(count) + 2)
    line = ingest.balance()
    assert line.delivered < line.received
    assert drops(ingest.ledger()) == {}
    rules = AclBindingFilter(
        rule.restype,
        rule.name,
        rule.resource_pattern_type,
        rule.principal,
        rule.host,
        rule.operation,
        rule.permission_type,
    )
    for future in client.delete_acls([rules]).values():
        future.result(30.0)
    line = ingest.until_settled()
    assert (line.delivered, line.dropped) == (line.received, 0)
    numbers = column(topic.records(), "sequence_num")
    assert list(dict.fromkeys(numbers)) == sorted(set(numbers))
    assert len(set(numbers)) == line.received
    assert ingest.metrics().total("ingest_worker_restarts_total") == 0
