"""Kafka that is away, and workers that are killed: what was received arrives, or is in the books."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka.admin import NewTopic

from deploy.local.books import sent
from deploy.local.kafka import Broker, DockerKafka, KafkaUnavailable, broker, free_port
from shared.kafka import RECORDS, admin
from shared.kafka import topic as wanted_topic
from tests.builders import data_set, field, ipv4, mapped, number, template, v9_datagram, v9_templates
from tests.integration.programs import ONE_WORKER, Ingest, Programs, freeze, merged, of_records, state
from tests.integration.topic import RecordsTopic, column, drops, identities, sums
from tests.integration.traffic import EXPORTER, flows, send

pytestmark = pytest.mark.integration

HELD = {"ingest": {"message": {"max_age_ms": 3_600_000}}}
"""Records wait in the worker for their message to fill."""


@pytest.fixture
def ingest(programs: Programs, kafka: str, topic_prefix: str) -> Ingest:
    """An ingest that is ready."""
    return programs.ingest(kafka, topic_prefix).until_ready()


@pytest.fixture
def topic(kafka: str, topic_prefix: str) -> RecordsTopic:
    """Its topic."""
    return RecordsTopic(kafka, topic_prefix)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module, which its tests start and kill; it does not run yet, but has its port."""
    try:
        ours = broker(tmp_path_factory.mktemp("own") / "kafka", free_port())
    except KafkaUnavailable as error:
        pytest.skip(f"a broker that may be killed has to be our own: {error}")
    yield ours
    if isinstance(ours, DockerKafka):
        ours.remove()
    else:
        ours.kill()


# --- Kafka is away


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    own_broker: Broker, programs: Programs, topic_prefix: str
) -> None:
    """Ingest stays up, is not ready and says so, and delivers what it received meanwhile when the broker comes."""
    ingest = programs.ingest(own_broker.bootstrap_servers, topic_prefix, ONE_WORKER)
    ingest.workers()
    send(flows(100), ingest.port())
    ingest.until_received(100)
    assert ingest.get("/livez").status_code == httpx.codes.OK
    assert ingest.get("/readyz").status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert ingest.checks() == {
        "serving": (True, "serving"),
        "workers": (True, "1 of 1 workers receive"),
        "kafka": (False, "no broker has answered yet"),
        "state": (
            False,
            f"{topic_prefix}flows.exporters is not read to its end: no broker has told anything of it yet",
        ),
    }
    assert ingest.balance().in_flight == ingest.metrics().total("ingest_outbox_records") == 100
    own_broker.start()
    ingest.until_ready()
    ingest.until_delivered(100)
    topic = RecordsTopic(own_broker.bootstrap_servers, topic_prefix)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(100))
    assert ingest.checks()["kafka"] == (True, f"{topic.name} has 4 partitions")
    assert ingest.metrics().total("ingest_worker_restarts_total") == 0
    assert drops(ingest.ledger()) == {}
    assert ingest.stop() == 0


def test_a_stop_before_any_broker_has_answered_waits_for_one(
    own_broker: Broker, programs: Programs, topic_prefix: str
) -> None:
    """What was received is held for as long as a stop may take, and delivered when a broker comes meanwhile."""
    ingest = programs.ingest(own_broker.bootstrap_servers, topic_prefix, ONE_WORKER)
    ingest.workers()
    send(flows(100), ingest.port())
    ingest.until_received(100)
    ingest.send_signal(signal.SIGTERM)
    own_broker.start()
    assert ingest.wait(90.0) == 0
    topic = RecordsTopic(own_broker.bootstrap_servers, topic_prefix)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(100))
    assert drops(ingest.final_ledger()) == {}


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(
    own_broker: Broker, programs: Programs, topic_prefix: str
) -> None:
    """While it is away the queue grows, and then each record is in the topic, once; the books balance all the time."""
    own_broker.start()
    ingest = programs.ingest(own_broker.bootstrap_servers, topic_prefix).until_ready()
    arguments = ("--exporters", "60", "--count", "4500", "--rate", "1500")
    generator = programs.run("ingest", "generate", "--to", f"127.0.0.1:{ingest.port()}", *arguments)
    ingest.until(lambda: generator.status or ingest.balance().delivered > 1000, "delivering")
    own_broker.kill()
    ingest.until(lambda: ingest.balance().in_flight > 10_000, "holding what Kafka does not take")
    assert ingest.get("/livez").status_code == ingest.get("/readyz").status_code == httpx.codes.OK
    own_broker.start()
    assert generator.wait() == 0
    expected = sent(generator.output)
    total = sum(one.records for one in expected.values())
    line = ingest.until_delivered(total)
    assert (line.received, line.delivered, line.dropped) == (total, total, 0)
    topic = RecordsTopic(own_broker.bootstrap_servers, topic_prefix)
    table = topic.records()
    assert sums(table) == expected
    assert len(identities(table)) == total
    assert ingest.received() == sum(json.loads(generator.output)["datagrams"].values())
    assert ingest.metrics().total("kafka_produced_records_total", topic=topic.name) == total
    assert ingest.metrics().total("kafka_produce_errors_total") == 0
    assert ingest.metrics().total("ingest_worker_restarts_total") == 0
    assert ingest.stop() == 0
    assert of_records(ingest.final_ledger()).delivered == total


SMALL_QUEUE = {"kafka": {"properties": {"queue.buffering.max.kbytes": 64}}}


class Abandoned:
    """An ingest whose Kafka went away for good, and which was then told to stop."""

    def __init__(self, ingest: Ingest) -> None:
        self.ingest = ingest
        self.books = ingest.ledger()
        self.errors = ingest.metrics().total("kafka_produce_errors_total", reason="queue_full")
        self.alive = ingest.get("/livez").status_code
        self.restarts = ingest.metrics().total("ingest_worker_restarts_total")
        ingest.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def abandoned(own_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abandoned]:
    """An ingest with a small queue that was flooded while its broker was dead.

    It was told to stop, which takes as long as it waits for acknowledgements: half a minute. Other tests run meanwhile,
    and the last one of this module sees how it ended.
    """
    own_broker.start()
    with Programs(tmp_path_factory.mktemp("abandoned")) as programs:
        ingest = programs.ingest(own_broker.bootstrap_servers, f"t-{uuid.uuid4().hex[:8]}.", SMALL_QUEUE).until_ready()
        send(flows(10), ingest.port())
        ingest.until_delivered(10)
        own_broker.kill()
        said = programs.generate(ingest.port(), "--protocol", "v5", "--exporters", "9", "--count", "600", "--uniform")
        ingest.until_received(10 + said["datagrams"]["NETFLOW_V5"])
        ingest.until(lambda: drops(ingest.ledger()).get("queue_full"), "full")
        ingest.until(lambda: ingest.metrics().total("ingest_outbox_records") == 0, "handed over or refused")
        yield Abandoned(ingest)


def test_what_the_queue_has_no_room_for_is_counted_and_told(abandoned: Abandoned) -> None:
    """Beyond its bound records are dropped with a reason and an error in the log; ingest lives, and reads its sockets."""
    books = abandoned.books
    assert books["received"]["datagrams"] == 610
    line = of_records(books)
    assert (line.received, line.delivered) == (18_010, 10)
    assert drops(books).keys() == {"queue_full"}
    assert books["before_reception"] == {"socket_drops": 0}
    assert 0 < line.in_flight < line.received - 10
    assert abandoned.errors > 0
    assert (abandoned.alive, abandoned.restarts) == (httpx.codes.OK, 0)
    told = abandoned.ingest.event("dropped", reason="queue_full")
    assert (told["level"], told["during"], told["unit"]) == ("error", "produce", "records")


def test_records_wait_for_a_topic_that_is_missing(
    programs: Programs, kafka: str, topic_prefix: str, topic: RecordsTopic
) -> None:
    """Where it may not be made, ingest says which topic and how to make it, and delivers when it is there."""
    ingest = programs.ingest(kafka, topic_prefix, merged(ONE_WORKER, {"kafka": {"create_topics": False}}))
    send(flows(100), ingest.port())
    ingest.until_received(100)
    what = f"The topic {topic.name} is missing, and kafka.create_topics is false; create it: kafka-topics.sh"
    told = ingest.until(
        lambda: [line for line in ingest.events("a topic is not as it has to be") if topic.name in line["problem"]],
        "said",
    )[0]
    assert told["problem"].startswith(what)
    assert ingest.get("/readyz").status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert told["problem"] in ingest.checks()["kafka"][1]
    assert ingest.get("/livez").status_code == httpx.codes.OK
    assert ingest.balance().in_flight == 100
    client = admin(topic.config)
    settings = dict(wanted_topic(topic.config, RECORDS).settings)
    for future in client.create_topics([NewTopic(topic.name, 3, 1, config=settings)]).values():
        future.result(30.0)
    ingest.until_ready()
    ingest.until_delivered(100)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(100))
    assert topic.partitions == 3
    assert drops(ingest.ledger()) == {}


def test_a_stop_before_any_broker_came_is_clean(programs: Programs, topic_prefix: str) -> None:
    """There is nobody to deliver to: what was received is counted as not acknowledged, and the end comes at once."""
    ingest = programs.ingest(f"127.0.0.1:{free_port()}", topic_prefix, ONE_WORKER)
    ingest.workers()
    send(flows(50), ingest.port())
    ingest.until_received(50)
    assert ingest.stop() == 0
    books = ingest.final_ledger()
    assert of_records(books).received == 50
    assert drops(books) == {"not_acknowledged": 50}
    assert ingest.event("dropped", reason="not_acknowledged")["count"] > 0


# --- workers


def test_what_the_socket_of_a_killed_worker_had_queued_is_read_by_the_next(ingest: Ingest, topic: RecordsTopic) -> None:
    """The others go on meanwhile, the dead one is replaced, and not one datagram is lost or read twice."""
    killed = ingest.workers()["worker-0"]
    freeze(ingest, [killed])
    send(flows(200), ingest.port())
    ingest.until(lambda: ingest.received() > 0, "the other worker receiving")
    assert ingest.get("/livez").status_code == httpx.codes.OK
    assert ingest.received() < 200
    os.kill(killed, signal.SIGKILL)
    assert ingest.workers(replaced=1)["worker-0"] != killed
    ingest.until_delivered(200)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(200))
    assert ingest.received() == 200
    assert drops(ingest.ledger()) == {}
    assert ingest.metrics().total("ingest_worker_restarts_total") == 1
    assert ingest.metrics().total("ingest_datagrams_received_total", protocol="v5") == 200
    ingest.until_ready()
    assert ingest.event("a worker died and is replaced; what its sockets have queued is kept")["exit_code"] == -9


def test_what_a_killed_worker_held_is_in_the_books(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """Records that it had decoded and Kafka had not are dropped with a reason; those of the others arrive."""
    ingest = programs.ingest(kafka, topic_prefix, HELD).until_ready()
    send(flows(200), ingest.port())
    ingest.until(lambda: ingest.balance().in_flight == 200, "everything held")
    os.kill(ingest.workers()["worker-1"], signal.SIGKILL)
    ingest.workers(replaced=1)
    lost = drops(ingest.ledger())["worker_died"]
    assert 0 < lost < 200
    assert ingest.balance().in_flight == 200 - lost
    dropped = {"stage": "worker", "reason": "worker_died", "unit": "records"}
    assert ingest.metrics().total("ingest_dropped_total", **dropped) == lost
    told = ingest.event("a worker died and is replaced; what its sockets have queued is kept")
    assert told["records_lost"] == lost
    assert ingest.stop() == 0
    books = ingest.final_ledger()
    line = of_records(books)
    assert (line.received, line.delivered, line.in_flight) == (200, 200 - lost, 0)
    assert drops(books) == {"worker_died": lost}
    assert len(identities(RecordsTopic(kafka, topic_prefix).records())) == 200 - lost


FIELDS = (field(8, 4), field(12, 4), field(1, 4), field(2, 4))
RECORD = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(100, 4) + number(1, 4)


def test_a_template_that_one_worker_has_heard_is_known_to_all_of_them(ingest: Ingest, topic: RecordsTopic) -> None:
    """It came in one datagram; data of its exporter is decoded by every worker, and by those that are started later."""
    send([v9_datagram(v9_templates(template(256, *FIELDS)))], ingest.port())
    ingest.until(lambda: ingest.metrics().total("ingest_templates") == 1, "the template known")
    send([v9_datagram(data_set(256, RECORD), sequence=1 + one) for one in range(60)], ingest.port())
    ingest.until_delivered(60)
    for replaced, pid in enumerate(ingest.workers().values(), 1):
        os.kill(pid, signal.SIGKILL)
        ingest.workers(replaced)
    ingest.until_ready()
    send([v9_datagram(data_set(256, RECORD), sequence=61 + one) for one in range(60)], ingest.port())
    ingest.until_delivered(120)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(1, 121))
    assert ingest.metrics().total("ingest_parked_sets") == 0
    assert not any(ingest.ledger()["dropped"].values())
    assert len(ingest.json("/api/v1/templates")) == 1


def test_workers_whose_supervisor_was_killed_deliver_what_they_have_and_end(
    programs: Programs, kafka: str, topic_prefix: str
) -> None:
    """Nothing is left running, and what had been received is in Kafka, although nobody told them to stop."""
    ingest = programs.ingest(kafka, topic_prefix, HELD).until_ready()
    pids = ingest.workers().values()
    send(flows(100), ingest.port())
    ingest.until(lambda: ingest.balance().in_flight == 100, "everything held")
    ingest.send_signal(signal.SIGKILL)
    ingest.wait()
    ingest.until(lambda: all(state(pid) in {"", "Z"} for pid in pids), "ended")
    assert sorted(column(RecordsTopic(kafka, topic_prefix).records(), "sequence_num")) == list(range(100))


def test_one_worker_alone_does_everything(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """With one worker there is no group of sockets to spread over, and nothing is missing."""
    ingest = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    send(flows(50), ingest.port())
    ingest.until_delivered(50)
    assert len(ingest.workers()) == 1
    os.kill(ingest.workers()["worker-0"], signal.SIGKILL)
    ingest.workers(replaced=1)
    send(flows(50, 50), ingest.port())
    ingest.until_delivered(100)
    ingest.send_signal(signal.SIGINT)
    assert ingest.wait() == 0
    assert of_records(ingest.final_ledger()).delivered == 100
    table = RecordsTopic(kafka, topic_prefix).records()
    assert sorted(column(table, "sequence_num")) == list(range(100))
    assert set(column(table, "sampler_address")) == {mapped(EXPORTER)}


# --- the end of the one that was told to stop while Kafka was away


def test_a_stop_while_kafka_is_away_ends_in_its_time(abandoned: Abandoned) -> None:
    """What no broker acknowledged by then is counted, record by record, and the exit is a clean one."""
    assert abandoned.ingest.wait(90.0) == 0
    books = abandoned.ingest.final_ledger()
    dropped = drops(books)
    before, after = of_records(abandoned.books), of_records(books)
    assert (after.received, after.delivered, after.in_flight) == (before.received, 10, 0)
    assert dropped.keys() == {"queue_full", "not_acknowledged"}
    assert dropped["not_acknowledged"] == before.in_flight
    assert abandoned.ingest.event("dropped", reason="not_acknowledged")["level"] == "error"
