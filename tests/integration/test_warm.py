"""What one instance has heard of an exporter, the others know: by the topic of templates and options data."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import httpx
import pytest
from confluent_kafka import Producer

from deploy.local.kafka import Broker
from shared.kafka import EXPORTERS, admin, full_name
from tests.builders import (
    SYSTEM,
    data_set,
    field,
    fixed,
    ipv4,
    number,
    template,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
)
from tests.integration.programs import ONE_WORKER, Ingest, Programs, merged
from tests.integration.state_topic import keys, messages
from tests.integration.topic import RecordsTopic, column
from tests.integration.traffic import EXPORTER, send

pytestmark = pytest.mark.integration

FIELDS = (field(8, 4), field(12, 4), field(1, 4), field(2, 4))
RECORD = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(100, 4) + number(1, 4)
OTHER_FIELDS = (field(8, 4), field(12, 4), field(2, 4), field(1, 4), field(10, 4))
OTHER_RECORD = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(1, 4) + number(100, 4) + number(3, 4)
FORGED_FIELDS = (field(12, 4), field(8, 4), field(2, 4), field(1, 4))
INTERFACES = v9_options_template(300, (field(SYSTEM, 4),), (field(10, 4), field(82, 16)))
INTERFACE_3 = number(1, 4) + number(3, 4) + fixed("Te0/3", 16)
ENTRY = f"{EXPORTER}/0/template-v9/256/"
STEADY = {"ingest": {"templates": {"steady_seconds": 1}}}
"""An exporter need not be heard for a minute until its redefinitions are believed."""


def teaching(sequence: int = 0, fields: Sequence[bytes] = FIELDS) -> bytes:
    """A datagram with the template alone."""
    return v9_datagram(v9_templates(template(256, *fields)), sequence=sequence)


def data(count: int, first: int, record: bytes = RECORD) -> list[bytes]:
    """Datagrams of one record each, without the template."""
    return [v9_datagram(data_set(256, record), sequence=first + one) for one in range(count)]


def undecoded(ingest: Ingest) -> int:
    """Sets that could not be decoded when they came."""
    return sum(one["undecoded_sets"] for one in ingest.json("/api/v1/exporters"))


def published(ingest: Ingest, count: int = 1) -> None:
    """Wait until it has published so many entries."""
    ingest.until(lambda: ingest.metrics().total("ingest_state_published_total") >= count, f"{count} published")


def followed(ingest: Ingest, count: int) -> None:
    """Wait until it has read so many entries."""
    ingest.until(lambda: ingest.metrics().total("ingest_state_followed_total") >= count, f"{count} followed")


@pytest.fixture
def topic(kafka: str, topic_prefix: str) -> RecordsTopic:
    """The records."""
    return RecordsTopic(kafka, topic_prefix)


@pytest.fixture
def pair(programs: Programs, kafka: str, topic_prefix: str) -> list[Ingest]:
    """Two instances, ready."""
    both = [programs.ingest(kafka, topic_prefix, merged(ONE_WORKER, STEADY)) for _ in range(2)]
    return [one.until_ready() for one in both]


# --- what one has heard


@pytest.mark.parametrize("end", [pytest.param(signal.SIGTERM, id="stopped"), pytest.param(signal.SIGKILL, id="killed")])
def test_an_instance_that_has_just_started_decodes_the_first_data(
    programs: Programs, kafka: str, topic_prefix: str, topic: RecordsTopic, end: signal.Signals
) -> None:
    """**warm**: all that ever heard the template are gone, and one that starts with nothing on its disk knows it.

    It is not ready before; then each worker decodes the first datagram with data at once.
    """
    first = programs.ingest(kafka, topic_prefix).until_ready()
    send([teaching()], first.port())
    published(first)
    first.send_signal(end)
    first.wait()
    second = programs.ingest(kafka, topic_prefix).until_ready()
    assert second.checks()["state"] == (True, f"{full_name(topic.config, EXPORTERS)} is read")
    (known,) = second.json("/api/v1/templates")
    assert (known["exporter"], known["template_id"], known["origin"], known["holds"]) == (EXPORTER, 256, "topic", True)
    send(data(20, 1), second.port())
    second.until_delivered(20)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(1, 21))
    assert undecoded(second) == 0
    assert second.metrics().total("ingest_state_published_total") == 0


def test_what_is_heard_last_is_known_to_the_next(programs: Programs, kafka: str, topic_prefix: str) -> None:
    """**warm**: a template that comes while an instance stops is published before its end."""
    first = programs.ingest(kafka, topic_prefix, merged(ONE_WORKER, {"ingest": {"drain_seconds": 1}})).until_ready()
    first.send_signal(signal.SIGTERM)
    first.event("stopping")
    send([teaching()], first.port())
    assert first.wait() == 0
    second = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    assert [one["origin"] for one in second.json("/api/v1/templates")] == ["topic"]


def test_what_one_hears_the_other_knows(pair: list[Ingest], topic: RecordsTopic) -> None:
    """**warm**: the exporter moves from one instance to the other, and both know its template and its interfaces."""
    fields = (*FIELDS, field(10, 4))
    send(
        [
            teaching(fields=fields),
            v9_datagram(v9_options_templates(INTERFACES), data_set(300, INTERFACE_3), sequence=1),
        ],
        pair[0].port(),
    )
    published(pair[0], 3)
    followed(pair[1], 3)
    pair[1].until(lambda: pair[1].json("/api/v1/options"), "knowing the interface")
    for place, one in enumerate((pair[1], pair[0], pair[1])):
        send(data(10, 2 + 10 * place, RECORD + number(3, 4)), one.port())
        one.until_settled()
    pair[0].until_delivered(10)
    pair[1].until_delivered(20)
    assert set(column(topic.records(), "in_if_name")) == {"Te0/3"}
    assert [undecoded(one) for one in pair] == [0, 0]
    (known,) = pair[1].json("/api/v1/options")
    assert (known["kind"], known["value"], known["origin"]) == ("interface_name", "Te0/3", "topic")
    assert [one.metrics().total("ingest_state_published_total") for one in pair] == [3, 0]


def test_two_that_hear_an_exporter_in_turns_tell_it_once(pair: list[Ingest], topic: RecordsTopic) -> None:
    """**warm**: each hears its template again and again; there is one entry, and nobody tells what is known."""
    send([teaching()], pair[0].port())
    published(pair[0])
    followed(pair[1], 1)
    for turn in range(1, 40):
        send([teaching(2 * turn), *data(1, 2 * turn + 1)], pair[turn % 2].port())
    for one in pair:
        one.until_delivered(19)
    assert [key.startswith(ENTRY) for key in keys(topic.config)] == [True]
    assert [undecoded(one) for one in pair] == [0, 0]
    assert pair[1].metrics().total("ingest_state_contested_templates") == 0


def test_a_redefinition_is_known_to_the_other(pair: list[Ingest], topic: RecordsTopic) -> None:
    """**warm**: what the exporter says twice in its own sequence both know; what comes from elsewhere, neither."""
    hearing, other = pair
    send([teaching()], hearing.port())
    published(hearing)
    followed(other, 1)
    sequence, begun = 1, time.monotonic()
    while time.monotonic() - begun < 2:
        send([*data(1, sequence), teaching(sequence + 1)], hearing.port())
        sequence += 2
        time.sleep(0.02)
    for one in range(5):
        send([teaching(3_000_000_000 + one, FORGED_FIELDS)], hearing.port())
    send([teaching(sequence)], hearing.port())
    hearing.until(lambda: hearing.metrics().total("ingest_state_contested_templates") == 1, "told something else")
    assert len(keys(topic.config)) == 1
    send([teaching(sequence + 1 + one, OTHER_FIELDS) for one in range(2)], hearing.port())
    published(hearing, 2)
    followed(other, 2)
    other.until(
        lambda: [len(one["fields"]) for one in other.json("/api/v1/templates") if one["holds"]] == [5],
        "knowing the redefinition",
    )
    topic.read()
    send(data(20, sequence + 3, OTHER_RECORD), other.port())
    other.until_delivered(20)
    table = topic.records()
    assert (set(column(table, "bytes")), set(column(table, "in_if"))) == ({100}, {3})
    assert undecoded(other) == 0


# --- what is in the topic, or not


def test_what_is_no_entry_is_left_out_counted_and_named(
    programs: Programs, kafka: str, topic_prefix: str, topic: RecordsTopic
) -> None:
    """All others are read, before it and after it."""
    first = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    send([teaching()], first.port())
    published(first)
    name = full_name(topic.config, EXPORTERS)
    (ours,) = messages(topic.config)
    stranger = Producer({"bootstrap.servers": kafka})
    stranger.produce(name, (ours.value() or b"")[:-10], ours.key(), partition=ours.partition() or 0)
    stranger.produce(name, b"hello", b"somebody else's")
    stranger.flush(30.0)
    send([v9_datagram(v9_templates(template(257, *FIELDS)), sequence=1)], first.port())
    published(first, 2)
    for one in (first, programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()):
        followed(one, 4)
        assert sorted(known["template_id"] for known in one.json("/api/v1/templates")) == [256, 257]
        assert {
            reason: one.metrics().total("ingest_state_skipped_total", reason=reason)
            for reason in ("corrupt", "not_ours")
        } == {"corrupt": 1, "not_ours": 1}
        told = one.event("an entry of the topic of templates is left out", reason="corrupt")
        assert (told["topic"], told["partition"], ENTRY in told["key"]) == (name, ours.partition(), True)


def test_a_topic_that_was_deleted_is_filled_again(
    programs: Programs, kafka: str, topic_prefix: str, topic: RecordsTopic
) -> None:
    """Those who hear an exporter tell what they know of it, when the topic is another one."""
    ingest = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    send([teaching()], ingest.port())
    published(ingest)
    name = full_name(topic.config, EXPORTERS)
    client = admin(topic.config)
    client.delete_topics([name])[name].result(30.0)
    ingest.event("the topic of templates was made anew: what is known is published again")
    published(ingest, 2)
    assert [key.startswith(ENTRY) for key in keys(topic.config)] == [True]


# --- when Kafka is away


def test_an_instance_that_cannot_read_the_topic_is_ready_after_a_while_and_says_so(
    programs: Programs, kafka: str, topic_prefix: str, topic: RecordsTopic
) -> None:
    """It decodes what it hears itself; it publishes nothing, since it does not know what is there."""
    settings = merged(ONE_WORKER, {"ingest": {"templates": {"wait_seconds": 3}}, "kafka": {"create_topics": False}})
    ingest = programs.ingest(kafka, topic_prefix, settings)
    ingest.workers()
    ok, detail = ingest.checks()["state"]
    assert (ok, full_name(topic.config, EXPORTERS) in detail) == (False, True)
    ingest.until(lambda: ingest.checks()["state"][0], "no longer waiting")
    assert "not read to its end after 3 s (ingest.templates.wait_seconds)" in ingest.checks()["state"][1]
    told = ingest.event("ready without what other instances know of exporters")
    assert told["level"] == "warning"
    assert ingest.get("/readyz").status_code == httpx.codes.SERVICE_UNAVAILABLE
    missing = [line["problem"] for line in ingest.events("a topic is not as it has to be")]
    assert any(f"--create --topic {full_name(topic.config, EXPORTERS)} --partitions 4 " in one for one in missing)
    send([teaching(), *data(5, 1)], ingest.port())
    ingest.until(lambda: ingest.balance().in_flight == 5, "decoded")


def test_a_broker_that_comes_later_gets_what_was_heard_meanwhile(
    private_kafka: Broker, programs: Programs, topic_prefix: str
) -> None:
    """**warm**: a template that came while no broker answered is published when one does."""
    kafka = private_kafka.bootstrap_servers
    first = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    private_kafka.kill()
    send([teaching(), *data(5, 1)], first.port())
    first.until(lambda: first.balance().in_flight == 5, "decoded")
    assert first.get("/readyz").status_code == httpx.codes.OK
    private_kafka.start()
    published(first)
    first.kill()
    second = programs.ingest(kafka, topic_prefix, ONE_WORKER).until_ready()
    send(data(5, 6), second.port())
    second.until_delivered(5)
    assert undecoded(second) == 0
