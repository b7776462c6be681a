"""One ingest with two workers on a real Kafka: what goes in by UDP comes out of the topic, and the books say so."""

from __future__ import annotations

import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.books import sent
from ingest.generator.scenario import Scenario
from ingest.generator.traffic import Traffic
from ingest.partition import partitions
from shared import codec
from shared.metrics import METRICS, PREFIX
from tests import sflow_builders
from tests.builders import (
    SYSTEM,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    ipv4,
    mapped,
    number,
    template,
    v5_datagram,
    v5_record,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
)
from tests.integration.programs import Ingest, Programs, of_records
from tests.integration.topic import RecordsTopic, column, content, identities, records, sums
from tests.integration.traffic import send

pytestmark = pytest.mark.integration

PROTOCOLS = {"v5": "NETFLOW_V5", "v9": "NETFLOW_V9", "ipfix": "IPFIX", "sflow": "SFLOW_5"}
"""The metrics' word for a protocol, and the record's."""
LISTENERS = ("udp://[::]:0", "udp://127.0.0.1:0")
FIELDS = (field(8, 4), field(12, 4), field(7, 2), field(11, 2), field(4, 1), field(1, 4), field(2, 4))
DATA = (
    ipv4("192.0.2.1")
    + ipv4("198.51.100.2")
    + number(4711, 2)
    + number(53, 2)
    + number(17, 1)
    + number(100, 4)
    + number(2, 4)
)


@pytest.fixture(scope="module")
def prefix() -> str:
    """The module's topics are its own."""
    return f"t-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="module")
def ingest(kafka: str, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """The one ingest of this module, ready; it ends cleanly, with books that balance."""
    with Programs(tmp_path_factory.mktemp("ingest")) as programs:
        ours = programs.ingest(kafka, prefix, {"ingest": {"listen": list(LISTENERS)}})
        yield ours.until_ready()
        assert ours.stop() == 0
        assert of_records(ours.final_ledger()).in_flight == 0


@pytest.fixture(scope="module")
def whole_topic(ingest: Ingest, kafka: str, prefix: str) -> RecordsTopic:
    """The topic, from its beginning."""
    assert ingest.status is None
    return RecordsTopic(kafka, prefix)


@pytest.fixture
def topic(ingest: Ingest, whole_topic: RecordsTopic) -> RecordsTopic:
    """The topic, from where the test before left it."""
    ingest.until_settled()
    whole_topic.read()
    return whole_topic


class Since:
    """What an ingest has counted since this was made."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._metrics = ingest.metrics()
        self._ledger = ingest.ledger()

    def metric(self, name: str, **labels: str) -> int:
        """By how much a counter rose."""
        return self._ingest.metrics().total(name, **labels) - self._metrics.total(name, **labels)

    def received(self) -> int:
        """Datagrams."""
        return self._ingest.received() - int(self._ledger["received"]["datagrams"])

    def records(self) -> tuple[int, int]:
        """Records that were decoded, and those that Kafka has acknowledged, by the ledger."""
        books = self._ingest.ledger()
        return tuple(
            books[account]["records"] - self._ledger[account]["records"] for account in ("received", "delivered")
        )

    def dropped(self) -> dict[str, int]:
        """What was dropped, by unit and reason."""
        before, now = self._ledger["dropped"], self._ingest.ledger()["dropped"]
        rose = {
            f"{unit} {reason}": count - before[unit].get(reason, 0)
            for unit, reasons in now.items()
            for reason, count in reasons.items()
        }
        return {what: count for what, count in rose.items() if count}

    def until(self, datagrams: int, delivered: int) -> None:
        """Wait until so many datagrams were received and so many records delivered."""
        self._ingest.until(
            lambda: self.received() >= datagrams and self.records()[1] >= delivered,
            f"{datagrams} datagrams received and {delivered} records delivered",
        )


def test_everything_that_was_sent_is_in_kafka(ingest: Ingest, topic: RecordsTopic, programs: Programs) -> None:
    """Sums of records, bytes and packets of each protocol are those of the generator, with hundreds of exporters.

    So are ledger and metrics, and each message is as it has to be: own partition, headers, append time, bounds.
    """
    since = Since(ingest)
    said = programs.generate(ingest.port(), "--exporters", "400", "--count", "4000")
    expected = sent(json.dumps(said))
    datagrams, total = sum(said["datagrams"].values()), sum(one.records for one in expected.values())
    assert datagrams == 4000
    since.until(datagrams, total)

    messages = topic.read()
    table = records(messages)
    assert sums(table) == expected
    assert len(identities(table)) == total
    assert len(set(column(table, "sampler_address"))) == 400

    assert since.records() == (total, total)
    assert since.dropped() == {}
    protocols = {label: kind for label, kind in PROTOCOLS.items() if kind in said["datagrams"]}
    assert len(protocols) == len(said["datagrams"]) >= 3
    assert {
        label: (
            since.metric("ingest_datagrams_received_total", protocol=label, listener=LISTENERS[0]),
            since.metric("ingest_records_decoded_total", protocol=label),
        )
        for label in protocols
    } == {label: (said["datagrams"][kind], expected[kind].records) for label, kind in protocols.items()}
    assert since.metric("ingest_options_records_total") == sum(said["options_records"].values())
    assert since.metric("kafka_produced_records_total", topic=topic.name) == total
    assert since.metric("kafka_produced_messages_total", topic=topic.name) == len(messages)
    assert since.metric("kafka_produced_bytes_total", topic=topic.name) == sum(
        len(content(message)) for message in messages
    )
    assert since.metric("kafka_produce_seconds_count", topic=topic.name) == len(messages)
    assert since.metric("ingest_exporter_datagrams_total") == datagrams

    producers = set()
    for message in messages:
        (batch,) = codec.decode(content(message)).to_batches()
        assert set(partitions(batch, topic.partitions).tolist()) == {message.partition()}
        assert message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME
        assert message.key() is None
        assert (batch.num_rows <= 1000, batch.nbytes <= 262_144) == (True, True)
        headers = dict(message.headers() or [])
        name = (headers.pop("producer") or b"").decode()  # type: ignore[union-attr]  # ours have bytes
        assert re.fullmatch(r"ingest-.+-worker-[01]-\d+", name)
        producers.add(name)
        assert headers == {
            "schema": b"1",
            "content-type": b"application/vnd.apache.arrow.stream",
            "records": b"%d" % batch.num_rows,
        }
    assert len(producers) == 2
    assert topic.partitions == 4


def one_of_each(domain: int) -> list[bytes]:
    """A datagram of NetFlow v5, one of v9 and one of IPFIX, each with one record of an observation domain."""
    described = template(300, *FIELDS)
    return [
        v5_datagram(v5_record(), engine_id=domain),
        v9_datagram(v9_templates(described), data_set(300, DATA), source_id=domain),
        ipfix_message(ipfix_templates(described), data_set(300, DATA), domain=domain),
    ]


def test_any_protocol_is_taken_on_any_listener_over_both_address_families(ingest: Ingest, topic: RecordsTopic) -> None:
    """Each datagram is told apart by its version word, and its exporter is the address that it came from."""
    since = Since(ingest)
    ways = [
        (0, "127.1.1.1", "127.0.0.1"),
        (0, "127.1.1.2", "127.3.3.3"),
        (0, "::1", "::1"),
        (1, "127.1.1.3", "127.0.0.1"),
    ]
    for domain, (listener, source, to) in enumerate(ways, 1):
        send(one_of_each(domain), ingest.port(listener), source, to)
    since.until(12, 12)
    table = topic.records()
    found = zip(
        column(table, "type"), column(table, "observation_domain_id"), column(table, "sampler_address"), strict=True
    )
    assert Counter(found) == Counter(
        (kind, domain, mapped(source))
        for domain, (_, source, _) in enumerate(ways, 1)
        for kind in ("NETFLOW_V5", "NETFLOW_V9", "IPFIX")
    )
    assert {
        (listener, protocol): since.metric("ingest_datagrams_received_total", listener=name, protocol=protocol)
        for listener, name in enumerate(LISTENERS)
        for protocol in ("v5", "v9", "ipfix")
    } == {(listener, protocol): (3, 1)[listener] for listener in (0, 1) for protocol in ("v5", "v9", "ipfix")}
    assert since.records() == (12, 12)
    assert since.dropped() == {}


def test_a_second_instance_takes_no_port_from_the_first(
    ingest: Ingest, topic: RecordsTopic, kafka: str, prefix: str, programs: Programs
) -> None:
    """It says which port is taken and what to do, and exits with 1; the first goes on to receive everything."""
    since = Since(ingest)
    second = programs.ingest(kafka, prefix, {"ingest": {"listen": [f"udp://[::]:{ingest.port()}"]}})
    sends = 0
    while second.status is None:
        send([v5_datagram(v5_record(), sequence=sends)], ingest.port(), "127.1.2.1")
        sends += 1
    assert second.wait() == 1
    assert f"cannot listen on udp://[::]:{ingest.port()}: the port is in use" in second.log
    assert "another instance of this one" in second.log
    assert "Traceback" not in second.log
    send([v5_datagram(v5_record(), sequence=sends)], ingest.port(), "127.1.2.1")
    since.until(sends + 1, sends + 1)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(sends + 1))
    assert since.metric("ingest_datagrams_received_total") == sends + 1


def test_an_http_port_that_is_taken_is_named(ingest: Ingest, kafka: str, prefix: str, programs: Programs) -> None:
    """The same for the port of the metrics: a clear sentence, exit 1, and no socket left behind."""
    http = ingest.event("serving HTTP")["port"]
    second = programs.ingest(kafka, prefix, {"ingest": {"http": {"listen": f"127.0.0.1:{http}"}}})
    assert second.wait() == 1
    assert f"cannot serve HTTP on 127.0.0.1:{http}: another process serves this port" in second.log
    assert "ingest.http.listen" in second.log
    assert "Traceback" not in second.log
    assert ingest.get("/livez").status_code == httpx.codes.OK


SHOWN = (
    "ingest_datagrams_received_total",
    "ingest_bytes_received_total",
    "ingest_socket_drops_total",
    "ingest_socket_buffer_bytes",
    "ingest_records_decoded_total",
    "ingest_exporter_datagrams_total",
    "ingest_exporter_records_total",
    "ingest_exporter_last_seen_timestamp_seconds",
    "ingest_templates",
    "ingest_exporters",
    "ingest_parked_bytes",
    "ingest_workers",
    "ingest_decode_seconds",
    "ingest_batch_records",
    "kafka_produced_messages_total",
    "kafka_produced_records_total",
    "kafka_produced_bytes_total",
    "kafka_produce_seconds",
    "kafka_queue_messages",
    "kafka_queue_bytes",
    "build_info",
)
"""The metrics that dashboards rely on, of an ingest that has received something and lost nothing."""


def test_a_scrape_shows_the_metrics_that_are_promised(ingest: Ingest) -> None:
    """Prometheus can read it; each metric is one of the list, has its kind, labels and help, and ours are all there."""
    since = Since(ingest)
    send(one_of_each(9), ingest.port(), "127.1.3.1")
    since.until(3, 3)
    answer = ingest.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    declared = {PREFIX + metric.name.removesuffix("_total"): metric for metric in METRICS}
    assert families.keys() <= declared.keys()
    for name, family in families.items():
        metric = declared[name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        assert all(set(one.labels) - {"le"} == set(metric.labels) for one in family.samples)
    assert {PREFIX + name.removesuffix("_total") for name in SHOWN} <= families.keys()
    assert ingest.metrics().total("ingest_workers") == 2
    assert ingest.metrics().total("ingest_socket_buffer_bytes", listener=LISTENERS[0]) > 0


def test_the_api_has_the_promised_shapes(ingest: Ingest) -> None:
    """Ledger, exporters, templates, probes and their documentation answer JSON of a known form."""
    since = Since(ingest)
    send(one_of_each(77), ingest.port(), "127.1.4.1")
    since.until(3, 3)
    books = ingest.ledger()
    assert {"received", "delivered", "dropped", "in_flight"} <= books.keys()
    assert {"datagrams", "records"} <= books["received"].keys()
    assert {"datagrams", "sets", "records"} <= books["dropped"].keys()
    assert "records" in books["delivered"].keys() & books["in_flight"].keys()

    ours = [one for one in ingest.json("/api/v1/exporters", limit=100_000) if one["exporter"] == "127.1.4.1"]
    assert sorted(one["version"] for one in ours) == [5, 9, 10]
    for one in ours:
        assert (one["observation_domain_id"], one["datagrams"], one["records"]) == (77, 1, 1)
        assert (one["sequence_lost"], one["sequence_uncertain"], one["restarts"]) == (0, 0, 0)
        assert one["first_seen"] == one["last_seen"] > 1.7e9
    assert len(ingest.json("/api/v1/exporters", limit=2)) == 2

    templates = ingest.json("/api/v1/templates", exporter="127.1.4.1")
    assert sorted(one["version"] for one in templates) == [9, 10]
    assert all(
        one["fields"] == [[0, 8, 4], [0, 12, 4], [0, 7, 2], [0, 11, 2], [0, 4, 1], [0, 1, 4], [0, 2, 4]]
        for one in templates
    )
    assert all((one["template_id"], one["options"], one["scope_fields"]) == (300, False, 0) for one in templates)

    for path in ("/livez", "/readyz"):
        assert ingest.json(path)["ok"] is True
    assert ingest.checks().keys() == {"serving", "workers", "kafka", "state"}
    assert {"/api/v1/ledger", "/api/v1/exporters", "/api/v1/templates", "/metrics"} <= ingest.json("/openapi.json")[
        "paths"
    ].keys()
    assert "swagger" in ingest.get("/docs").text
    assert ingest.get("/api/v1/nothing").status_code == httpx.codes.NOT_FOUND
    assert ingest.get("/api/v1/exporters", limit="many").status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_what_an_exporter_lost_is_told(ingest: Ingest) -> None:
    """Gaps in its sequence are counted, by the rule of its protocol, and nothing is lost of any other exporter."""
    gone = [
        datagram for at in (0, 1, 5) for datagram in [v9_datagram(v9_templates(template(300, *FIELDS)), sequence=at)]
    ]
    flows = [v5_datagram(*[v5_record()] * 10, sequence=at) for at in (0, 10, 50)]
    send(gone + flows, ingest.port(), "127.1.5.1")
    ingest.until(
        lambda: ingest.metrics().total("ingest_sequence_lost_total", exporter="127.1.5.1") == 3 + 30, "33 units lost"
    )
    ours = [one for one in ingest.json("/api/v1/exporters", limit=100_000) if one["exporter"] == "127.1.5.1"]
    assert {one["version"]: one["sequence_lost"] for one in ours} == {9: 3, 5: 30}
    others = [one for one in ingest.json("/api/v1/exporters", limit=100_000) if one not in ours]
    assert [one for one in others if one["sequence_lost"] or one["restarts"]] == []


def test_what_an_agent_and_an_exporter_report_of_losses_is_told(ingest: Ingest) -> None:
    """Samples that are missing, samples that the agent dropped, and totals of options data, over several workers."""
    agent, exporter = "127.1.6.1", "127.1.6.2"
    for turn, at in enumerate((1, 2, 6)):
        samples = [
            sflow_builders.flow_sample(sequence=at, drops=100 * at),
            sflow_builders.expanded_flow_sample(sequence=at, source=(0, 1 << 24)),
            sflow_builders.counters_sample(sequence=turn),
        ]
        # A socket of its own, by which another worker may get it.
        send([sflow_builders.datagram(*samples, agent=agent, sequence=turn)], ingest.port(), agent)
    options = v9_options_templates(v9_options_template(400, (field(SYSTEM, 4),), (field(166, 8),)))
    for turn, value in enumerate((1000, 1007)):
        data = data_set(400, number(0, 4) + number(value, 8))
        send([v9_datagram(options, data, sequence=turn)], ingest.port(), exporter)

    def of(name: str, **labels: str) -> float:
        return ingest.metrics().total(name, **labels)

    ingest.until(lambda: of("ingest_samples_lost_total", exporter=agent) == 6, "6 samples lost")
    ingest.until(lambda: of("ingest_exporter_reported_total", exporter=exporter) == 7, "7 flows that were not sent")
    assert of("ingest_samples_lost_total", exporter=agent, kind="flow") == 6
    assert of("ingest_samples_agent_dropped_total", exporter=agent, kind="flow") == 500
    assert of("ingest_exporter_reported_total", exporter=exporter, statistic="not_sent_flows") == 7
    # Options records are not flow records.
    assert of("ingest_exporter_records_total", exporter=exporter) == 0
    assert of("ingest_table_full_total") == 0
    shown = {one["exporter"]: one for one in ingest.json("/api/v1/exporters", limit=100_000)}
    assert shown[agent]["samples"] == {
        "flow": {"data_sources": 2, "lost": 6, "dropped_by_agent": 500},
        "counters": {"data_sources": 1, "lost": 0},
    }
    assert shown[agent]["sequence_lost"] == 0
    assert shown[exporter]["reported"] == {"system 0": {"not_sent_flows": 1007}}


# The last one: spoiled datagrams of other tests' exporters tell of losses that there were not.
def rubbish(count: int) -> list[bytes]:
    """Datagrams with the version word of a protocol and chance behind it, and real ones that were spoiled."""
    chance = random.Random(20_240_229)
    random_ones = [
        chance.choice((0, 5, 9, 10, 77)).to_bytes(2) + chance.randbytes(chance.choice((0, 1, 20, 100, 1400)))
        for _ in range(count)
    ]
    real = next(Traffic(Scenario(exporters=30)).batches(count))
    spoiled = []
    for index in range(len(real)):
        payload = bytearray(real.payload(index))
        for _ in range(chance.choice((1, 3, 30))):
            payload[chance.randrange(2, len(payload))] = chance.randrange(256)
        spoiled.append(bytes(payload[: chance.randrange(2, len(payload) + 1)]))
    both = random_ones + spoiled
    chance.shuffle(both)
    return both


def test_rubbish_harms_nobody(ingest: Ingest, topic: RecordsTopic) -> None:
    """Thousands of malformed datagrams are counted one and all, no worker dies, and what is well formed still counts."""
    since = Since(ingest)
    payloads = rubbish(1000)
    for begin in range(0, len(payloads), 250):
        send(payloads[begin : begin + 250], ingest.port(), f"127.66.{begin // 250}.1")
        ingest.until(lambda: since.received() >= begin + 250, "read")  # noqa: B023 - called before the next round
    send(one_of_each(5), ingest.port(), "127.67.0.1")
    since.until(len(payloads) + 3, 3)
    ingest.until_settled()
    assert since.received() == len(payloads) + 3
    assert since.metric("ingest_worker_restarts_total") == 0
    assert ingest.get("/livez").status_code == httpx.codes.OK
    assert ingest.checks()["workers"] == (True, "2 of 2 workers receive")
    table = topic.records()
    ours = [one for one in column(table, "sampler_address") if one == mapped("127.67.0.1")]
    assert len(ours) == 3
    decoded, delivered = since.records()
    assert decoded == delivered == table.num_rows
    dropped = since.dropped()
    assert {"datagrams unknown_version", "datagrams truncated", "sets truncated"} <= dropped.keys()
    assert not any(what.startswith("records") for what in dropped)
    assert sum(dropped.values()) == since.metric("ingest_dropped_total")
