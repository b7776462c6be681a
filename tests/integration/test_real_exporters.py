"""Real exporters, fed with traffic that is known: what they export arrives in Kafka with the sums that it had."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from shared import codec
from shared.config import KafkaConfig
from tests.builders import mapped
from tests.integration.namespaces import Wire, program, run
from tests.integration.open_vswitch import Switch
from tests.integration.programs import Ingest, Programs
from tests.integration.test_counters import messages, rows
from tests.integration.test_softflowd import OF_A_FLOW, VERSIONS, Capture, Key, conversations, key_of, packet
from tests.integration.topic import RecordsTopic, drops, sums

pytestmark = [pytest.mark.integration, pytest.mark.peers]

PATIENCE_SECONDS: Final = 60.0
ETHERNET_BYTES, FCS_BYTES = 14, 4
INTERNAL: Final = 0x3FFFFFFF
"""What sFlow v5 has for an interface that is no port of the agent."""

Flows = dict[Key, tuple[int, int]]
"""Packets and bytes of each flow."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The traffic of all these tests."""
    return Capture(tmp_path_factory.mktemp("capture") / "traffic.pcap")


@pytest.fixture(scope="module")
def config(kafka: str) -> KafkaConfig:
    """A Kafka, with topics of this module's own."""
    return KafkaConfig(bootstrap_servers=kafka, topic_prefix=f"t-{uuid.uuid4().hex[:8]}.", partitions=4)


@pytest.fixture(scope="module")
def ingest(config: KafkaConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """What they export to; it ends cleanly, with books that balance and nothing dropped."""
    with Programs(tmp_path_factory.mktemp("ingest")) as programs:
        ours = programs.ingest(config.bootstrap_servers, config.topic_prefix)
        yield ours.until_ready()
        assert ours.stop() == 0
        books = ours.final_ledger()
        assert not any(reasons for reasons in books["dropped"].values())
        assert not books["counters"]["dropped"]


@pytest.fixture
def topic(ingest: Ingest, config: KafkaConfig) -> RecordsTopic:
    """The topic, read up to its end: a test finds what came since its begin."""
    ingest.until_settled()
    topic = RecordsTopic(config.bootstrap_servers, config.topic_prefix)
    topic.read()
    return topic


@pytest.fixture
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """A running Open vSwitch between two namespaces; it exports nothing yet."""
    # A path of a socket has no more than 107 characters, so this is not the test's own folder.
    with Wire() as first, Wire() as second, Switch(tmp_path_factory.mktemp("ovs"), first, second) as ours:
        yield ours


def expected(capture: Capture, version: str = "10", more_per_packet: int = 0) -> Flows:
    """The flows of the capture that a version can tell; `more_per_packet` is what an exporter counts besides IP."""
    return {
        key: (flow.packets, flow.octets + more_per_packet * flow.packets) for key, flow in capture.of(version).items()
    }


def flows(table: pa.Table) -> Flows:
    """The flows of records, those of the same flow added up."""
    packets, octets = Counter[Key](), Counter[Key]()
    for row in table.select(OF_A_FLOW).to_pylist():
        packets[key_of(row)] += row["packets"]
        octets[key_of(row)] += row["bytes"]
    return {key: (count, octets[key]) for key, count in packets.items()}


def totals(found: Flows) -> tuple[int, int]:
    """Packets and bytes of all flows together."""
    return sum(packets for packets, _ in found.values()), sum(octets for _, octets in found.values())


def only(table: pa.Table, name: str) -> Any:  # noqa: ANN401 - whatever the column has
    """The value that all records have in a column."""
    (value,) = table[name].unique().to_pylist()
    return value


def arrived(ingest: Ingest, topic: RecordsTopic, packets: int) -> pa.Table:
    """Wait until records of so many packets came for this test, and return them; nothing comes besides."""
    table = topic.records()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (have := totals(flows(table))[0] if table.num_rows else 0) < packets:
        assert time.monotonic() < deadline, f"{have} of {packets} packets told"
        time.sleep(0.1)
        table = codec.merge([table, topic.records()])
    ingest.until_settled()
    table = codec.merge([table, topic.records()])
    assert drops(ingest.ledger()) == {}
    return table


# --- pmacct


@dataclass(frozen=True, slots=True)
class Ended:
    """What one flow of two directions had, as pmacct says when it ends it."""

    source: str
    packets: int
    octets: int


def pmacctd(directory: Path, capture: Capture, *settings: str) -> str:
    """Have pmacct read the capture; returns what it says of it."""
    where = program("pmacctd", "pmacct")
    ours = [
        "daemonize: false", "debug: true", f"pcap_savefile: {capture.path}", f"pidfile: {directory / 'pid'}",
        "aggregate: src_host, dst_host, src_port, dst_port, proto, tos",
    ]  # fmt: skip
    path = directory / "pmacctd.conf"
    path.write_text("".join(f"{line}\n" for line in (*ours, *settings)), encoding="utf-8")
    # Its core and its plugin end each by itself when the capture does; a core that is the later says 1. Whether it told
    # everything is to be seen from what it said.
    return run(where, "-f", str(path), well=(0, 1))


def ended_flows(said: str) -> Iterator[Ended]:
    """The directions of flows that had packets."""
    for source, *numbers in re.findall(
        r"EXPIRED: seq:\d+ \[(\S+)\]:.* octets>:(\d+) packets>:(\d+) octets<:(\d+) packets<:(\d+) ", said
    ):
        octets, packets, octets_back, packets_back = map(int, numbers)
        yield from (Ended(source, *one) for one in ((packets, octets), (packets_back, octets_back)) if one[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_nfprobe_of_pmacct(capture: Capture, ingest: Ingest, topic: RecordsTopic, tmp_path: Path, version: str) -> None:
    """Each flow has the packets and bytes of the capture, all together those that pmacct says of the flows it ends."""
    receiver = f"nfprobe_receiver: 127.0.0.1:{ingest.port()}"
    said = pmacctd(tmp_path, capture, "plugins: nfprobe[a]", receiver, f"nfprobe_version: {version}")
    wanted = expected(capture, version)
    # It keeps flows of IPv6 too when it exports none.
    own = [one for one in ended_flows(said) if version != "5" or ":" not in one.source]
    assert own

    table = arrived(ingest, topic, totals(wanted)[0])
    assert flows(table) == wanted
    assert sums(table).keys() == {VERSIONS[version]}
    assert (table.num_rows, *totals(flows(table))) == (
        len(own), sum(one.packets for one in own), sum(one.octets for one in own)
    )  # fmt: skip


def test_sfprobe_of_pmacct(capture: Capture, ingest: Ingest, topic: RecordsTopic, tmp_path: Path) -> None:
    """Every packet is a record, up to the last datagram, which pmacct does not send when the capture ends.

    It cuts the Ethernet header off, says that the packet begins with IP, and adds a check sequence to its length.
    """
    # A datagram has room for no more; how many the last one holds depends on when it begins a new one.
    unsent_at_most = 10
    receiver = f"sfprobe_receiver: 127.0.0.1:{ingest.port()}"
    agent = ("sfprobe_agentip: 192.0.2.77", "sfprobe_agentsubid: 5")
    said = pmacctd(tmp_path, capture, "plugins: sfprobe[a]", receiver, *agent)
    sizes = [len(packet(key, size)) - ETHERNET_BYTES for key, size in conversations()]
    own = [int(octets) for octets in re.findall(r"\(len = (\d+), captured = \d+\)", said)]
    assert own == sizes

    table = arrived(ingest, topic, len(sizes) - unsent_at_most)
    sent = list(conversations())[: table.num_rows]
    packets, octets = Counter[Key](), Counter[Key]()
    for key, size in sent:
        packets[key] += 1
        octets[key] += len(packet(key, size)) - ETHERNET_BYTES + FCS_BYTES
    assert flows(table) == {key: (count, octets[key]) for key, count in packets.items()}
    assert sums(table).keys() == {"SFLOW_5"}
    assert only(table, "sampling_rate") == 1
    assert only(table, "sampler_address") == mapped("192.0.2.77")
    assert only(table, "observation_domain_id") == 5
    assert only(table, "in_if") == only(table, "out_if") == INTERNAL


# --- fprobe


def test_fprobe(capture: Capture, ingest: Ingest, topic: RecordsTopic, tmp_path: Path) -> None:
    """It listens on a wire on which the capture is replayed; each flow has the packets and bytes of the capture."""
    where = program("fprobe", "fprobe")
    wanted = expected(capture, "5")
    # It sends full datagrams only, until it is told to end.
    assert len(wanted) % 30 == 0
    with Wire() as wire, (tmp_path / "log").open("w+b") as log:
        # In the foreground, its log on its output. It drops packets without a word when its queue is full.
        command = [where, "-l", f"2:{wire.near}", "-q", "10000", "-B", "4096", "-s", "1", "-d", "4"]
        process = subprocess.Popen(
            [*command, "-i", wire.near, "-f", "ip", f"127.0.0.1:{ingest.port()}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while b"collector #1" not in (said := Path(log.name).read_bytes()):
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
            wire.replay(capture.path, sum(flow.packets for flow in capture.flows.values()))
            table = arrived(ingest, topic, totals(wanted)[0])
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert flows(table) == wanted
    assert table.num_rows == len(wanted)
    assert sums(table).keys() == {"NETFLOW_V5"}


# --- Open vSwitch


def forwarded(switch: Switch, capture: Capture) -> tuple[int, int]:
    """Send the traffic through a switch; returns the packets and bytes that it counted on the port they came in by."""
    packets = sum(flow.packets for flow in capture.flows.values())
    switch.first.replay(capture.path, packets)
    switch.until_forwarded(packets)
    own = switch.statistics(switch.first)
    assert switch.second.received() == packets
    assert own.received_packets == packets
    return own.received_packets, own.received_bytes


def test_sflow_of_open_vswitch(
    capture: Capture, ingest: Ingest, topic: RecordsTopic, config: KafkaConfig, switch: Switch
) -> None:
    """Every packet is a record with the length of its frame on a wire, from port to port by their ifIndex and name.

    The counters of its interfaces come to say what the switch counted.
    """
    switch.export("sFlow", ingest.port(), "agent=lo", "sampling=1", "polling=1", "header=128")
    packets, octets = forwarded(switch, capture)

    table = arrived(ingest, topic, packets)
    assert flows(table) == expected(capture, more_per_packet=ETHERNET_BYTES + FCS_BYTES)
    assert totals(flows(table)) == (packets, octets + FCS_BYTES * packets)
    assert table.num_rows == packets
    assert sums(table).keys() == {"SFLOW_5"}
    assert only(table, "sampling_rate") == 1
    assert (only(table, "in_if"), only(table, "out_if")) == (switch.first.index, switch.second.index)
    assert only(table, "sampler_address") == mapped("127.0.0.1")

    def counters() -> dict[str, Any]:
        told: list[dict[str, Any]] = [row for message in messages(config) for row in rows(message)]
        complete = [
            row for row in told if row.get("if_index") == switch.first.index and row.get("if_in_octets") == octets
        ]
        return complete[-1] if complete else {}

    last: Mapping[str, Any] = switch.until(counters, "counters of all the traffic")
    assert last["if_in_ucast_pkts"] == packets
    assert last["port_name"] == switch.first.near

    # Its data sources number their samples without a gap, each kind for itself.
    exporters = ingest.json("/api/v1/exporters")
    (agent,) = [one for one in exporters if (one["exporter"], one["version"]) == ("127.0.0.1", 0)]
    assert agent["samples"]["flow"] == {"data_sources": 1, "lost": 0, "dropped_by_agent": 0}
    assert agent["samples"]["counters"]["lost"] == 0


def test_ipfix_of_open_vswitch(capture: Capture, ingest: Ingest, topic: RecordsTopic, switch: Switch) -> None:
    """Each flow is told where it comes in and where it goes out, each time with the packets and bytes of IP it had."""
    cache = ("cache_active_timeout=1", "cache_max_flows=10000")
    switch.export("IPFIX", ingest.port(), "sampling=1", "obs_domain_id=7", "obs_point_id=3", *cache)
    packets, octets = forwarded(switch, capture)
    exported = switch.exported_flows(2 * packets)

    table = arrived(ingest, topic, 2 * packets)
    assert table.num_rows == exported
    assert sums(table).keys() == {"IPFIX"}
    for direction, out_if in ((0, None), (1, switch.second.index)):
        one_way = table.filter([value == direction for value in table["flow_direction"].to_pylist()])
        assert flows(one_way) == expected(capture)
        assert totals(flows(one_way)) == (packets, octets - ETHERNET_BYTES * packets)
        assert (only(one_way, "in_if"), only(one_way, "out_if")) == (switch.first.index, out_if)
        # Records bring the names of their interfaces.
        name = None if out_if is None else switch.second.near
        assert (only(one_way, "in_if_name"), only(one_way, "out_if_name")) == (switch.first.near, name)
    assert only(table, "observation_domain_id") == 7


def test_netflow_of_open_vswitch(capture: Capture, ingest: Ingest, topic: RecordsTopic, switch: Switch) -> None:
    """Each flow of IPv4 has its packets, and their bytes with the Ethernet header; ports are those of OpenFlow."""
    switch.export("NetFlow", ingest.port(), "active_timeout=1")
    forwarded(switch, capture)

    wanted = expected(capture, "5", more_per_packet=ETHERNET_BYTES)
    table = arrived(ingest, topic, totals(wanted)[0])
    assert flows(table) == wanted
    assert sums(table).keys() == {"NETFLOW_V5"}
    ports = (switch.openflow_port(switch.first), switch.openflow_port(switch.second))
    assert (only(table, "in_if"), only(table, "out_if")) == ports
