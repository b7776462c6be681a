"""A real exporter: softflowd replays a capture to a running ingest, and its flows arrive as it counted them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import starmap
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from deploy.local.books import Lake, Sums
from ingest.decoders import Datagrams, Decoded
from ingest.exporters import Exporters
from ingest.pipeline import Pipeline
from shared import codec
from shared.config import KafkaConfig
from tests.builders import mapped
from tests.forwarder.records import eventually
from tests.frames import IPV4, IPV6, SECONDS, address, ethernet, pcap
from tests.integration.forwarders import Forwarder
from tests.integration.programs import Ingest, Programs, of_records
from tests.integration.topic import RecordsTopic, drops, sums

pytestmark = [pytest.mark.integration, pytest.mark.peers]

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
STEP_MS: Final = 10
VERSIONS: Final = {"5": "NETFLOW_V5", "9": "NETFLOW_V9", "10": "IPFIX"}
"""softflowd's word for a protocol, and the record's."""

OF_A_FLOW: Final = ["src_addr", "dst_addr", "proto", "src_port", "dst_port", "bytes", "packets"]
TIMES: Final = ["time_flow_start", "time_flow_end"]

Key = tuple[bytes, bytes, int, int, int]
"""Source and destination address, protocol, and its ports."""


@dataclass(slots=True)
class Flow:
    """What the packets of one direction add up to, and when they came, in milliseconds after the capture's first."""

    packets: int = 0
    octets: int = 0
    times_ms: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What softflowd says that it exported, and the datagrams that it sent."""

    records: int
    datagrams: int
    octets: Mapping[int, int]
    packets: Mapping[int, int]
    payloads: list[bytes]


def transport(protocol: int, port: int, to_port: int, size: int) -> bytes:
    """A header of the protocol and so many bytes behind it; an echo request or reply has no ports."""
    content = bytes(size)
    if protocol == TCP:
        return struct.pack("!HHIIBBHHH", port, to_port, 1, 1, 5 << 4, 0x10, 8192, 0, 0) + content
    if protocol == UDP:
        return struct.pack("!HHHH", port, to_port, 8 + size, 0) + content
    return bytes((8 if protocol == ICMP else 128, 0, 0, 0, 0, 1, 0, 1)) + content


def packet(key: Key, size: int) -> bytes:
    """A packet in its Ethernet frame."""
    src, dst, protocol, port, to_port = key
    content = transport(protocol, port, to_port, size)
    if len(src) == 4:
        start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 1, 0, 64, protocol, 0)
        return ethernet(start + src + dst + content, IPV4)
    return ethernet(struct.pack("!IHBB", 6 << 28, len(content), protocol, 64) + src + dst + content, IPV6)


def conversations() -> Iterator[tuple[Key, int]]:
    """Packets in their order: both address families, three protocols, flows of one packet and of many, some answered."""
    for host in range(1, 31):
        for client, server in ((f"192.0.2.{host}", "198.51.100.1"), (f"2001:db8::{host:x}", "2001:db8:1::1")):
            here, there = address(client), address(server)
            echo = ICMP if len(here) == 4 else ICMP6
            for turn in range(host):
                yield (here, there, TCP, 40_000 + host, 443), 7 * turn
                if turn % 3 == 0:
                    yield (there, here, TCP, 443, 40_000 + host), 100 * turn
            yield (here, there, UDP, 5000 + host, 53), 30
            yield (here, there, echo, 0, 0), 56


def timed(at: int, frame: bytes) -> bytes:
    """A frame in a capture file, with its time."""
    seconds, ms = divmod(at * STEP_MS, 1000)
    return struct.pack("<IIII", SECONDS + seconds, ms * 1000, len(frame), len(frame)) + frame


class Capture:
    """A capture file, and the flows that are in it by direction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flows: dict[Key, Flow] = {}
        frames = []
        for at, (key, size) in enumerate(conversations()):
            frame = packet(key, size)
            flow = self.flows.setdefault(key, Flow())
            flow.packets += 1
            flow.octets += len(frame) - 14
            flow.times_ms.append(at * STEP_MS)
            frames.append(frame)
        path.write_bytes(pcap(()) + b"".join(starmap(timed, enumerate(frames))))

    def of(self, version: str) -> dict[Key, Flow]:
        """The flows that this version can export: NetFlow v5 has no IPv6."""
        return {key: flow for key, flow in self.flows.items() if version != "5" or len(key[0]) == 4}

    def span_ms(self, key: Key) -> tuple[int, int]:
        """When the first and the last packet of a conversation came: softflowd counts by direction, but times both."""
        src, dst, protocol, port, to_port = key
        ways = (key, (dst, src, protocol, to_port, port))
        times_ms = [time for way in ways if way in self.flows for time in self.flows[way].times_ms]
        return min(times_ms), max(times_ms)


@pytest.fixture(scope="module")
def softflowd() -> str:
    """Where the program is."""
    found = shutil.which(
        "softflowd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    )
    if found is None:
        pytest.skip("softflowd is not installed (Debian, Ubuntu: apt-get install softflowd)")
    return found


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The capture that is replayed."""
    return Capture(tmp_path_factory.mktemp("capture") / "traffic.pcap")


@pytest.fixture(scope="module")
def config(kafka: str) -> KafkaConfig:
    """A Kafka, with topics of this module's own."""
    return KafkaConfig(bootstrap_servers=kafka, topic_prefix=f"t-{uuid.uuid4().hex[:8]}.", partitions=4)


@pytest.fixture(scope="module")
def ingest(softflowd: str, config: KafkaConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """What softflowd exports to; it ends cleanly, with books that balance and nothing dropped."""
    assert softflowd
    with Programs(tmp_path_factory.mktemp("ingest")) as programs:
        ours = programs.ingest(config.bootstrap_servers, config.topic_prefix)
        yield ours.until_ready()
        assert ours.stop() == 0
        books = ours.final_ledger()
        assert not any(reasons for reasons in books["dropped"].values())


@pytest.fixture(scope="module")
def topic(ingest: Ingest, config: KafkaConfig) -> RecordsTopic:
    """The topic; each test reads what came since the one before."""
    assert ingest.status is None
    return RecordsTopic(config.bootstrap_servers, config.topic_prefix)


def replay(softflowd: str, capture: Capture, version: str, port: int) -> Replayed:
    """Have softflowd export the capture to a port, and to a socket of ours besides."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as copies:
        copies.bind(("127.0.0.1", 0))
        # What was sent over the loopback interface waits in the socket when the program has ended.
        copies.setblocking(False)
        to = f"127.0.0.1:{port},127.0.0.1:{copies.getsockname()[1]}"
        # With a control socket it would wait for commands after the capture's end.
        command = [softflowd, "-d", "-a", "-r", str(capture.path), "-v", version, "-n", to, "-c", "none"]
        command += ["-p", str(capture.path.parent / "pid")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        said = done.stdout + done.stderr
        payloads = []
        while True:
            try:
                payloads.append(copies.recv(65_535))
            except BlockingIOError:
                break
    exported = re.search(r"Flows exported: \d+ \((\d+) records\) in (\d+) packets \(0 failures\)", said)
    assert exported is not None, said
    by_protocol = re.findall(r"\((\d+)\): +(\d+) +(\d+) ", said)
    assert by_protocol, said
    return Replayed(
        records=int(exported[1]),
        datagrams=int(exported[2]),
        octets={int(protocol): int(octets) for protocol, octets, _ in by_protocol},
        packets={int(protocol): int(packets) for protocol, _, packets in by_protocol},
        payloads=payloads,
    )


def plain(octets: bytes) -> bytes:
    """An address of 4 bytes where it is one of IPv4."""
    return octets[12:] if octets.startswith(mapped("0.0.0.0")[:12]) else octets


def key_of(row: Mapping[str, Any]) -> Key:
    """Which flow a record is of; what is in the ports of an echo request is no port."""
    echo = row["proto"] in {ICMP, ICMP6}
    ports = (0, 0) if echo else (row["src_port"], row["dst_port"])
    return plain(row["src_addr"]), plain(row["dst_addr"]), row["proto"], *ports


@pytest.mark.parametrize("version", VERSIONS)
def test_the_flows_of_a_real_exporter_arrive_as_it_counted_them(
    softflowd: str, capture: Capture, ingest: Ingest, topic: RecordsTopic, version: str
) -> None:
    """Records, bytes and packets are those of softflowd's own statistics, and of each flow those of the capture."""
    before, counted = ingest.balance(), ingest.metrics()
    received = ingest.received()
    exported = replay(softflowd, capture, version, ingest.port())
    line = ingest.until_delivered(before.delivered + exported.records)
    table = topic.records()

    assert sums(table).keys() == {VERSIONS[version]}
    assert table.num_rows == exported.records == line.received - before.received
    rows = table.select(OF_A_FLOW).to_pylist()
    octets, packets = Counter[int](), Counter[int]()
    for row in rows:
        octets[row["proto"]] += row["bytes"]
        packets[row["proto"]] += row["packets"]
    assert (octets, packets) == (exported.octets, exported.packets)
    flows = capture.of(version)
    assert {key_of(row): (row["packets"], row["bytes"]) for row in rows} == {
        key: (flow.packets, flow.octets) for key, flow in flows.items()
    }

    assert ingest.received() - received == exported.datagrams
    label = {"5": "v5", "9": "v9", "10": "ipfix"}[version]
    now = ingest.metrics()
    for name, expected in (
        ("ingest_datagrams_received_total", exported.datagrams),
        ("ingest_records_decoded_total", exported.records),
    ):
        assert now.total(name, protocol=label) - counted.total(name, protocol=label) == expected
    assert drops(ingest.ledger()) == {}


def decoded(exported: Replayed) -> Decoded:
    """What the decoders make of the datagrams."""
    count = len(exported.payloads)
    assert count == exported.datagrams
    return Pipeline().decode(Datagrams.pack(exported.payloads, [mapped("127.0.0.1")] * count, [9] * count, [0] * count))


@pytest.mark.parametrize(("version", "slack_ms"), [("5", 1), ("9", 1000), ("10", 0)])
def test_the_flows_of_a_real_exporter_have_their_times(
    softflowd: str, capture: Capture, version: str, slack_ms: int
) -> None:
    """Flows begin when their first packet came, and last as long as their packets, those of both directions.

    The header of NetFlow v9 has whole seconds beside the uptime, so its flows may lie up to a second off.
    """
    exported = replay(softflowd, capture, version, 9)
    table = codec.merge([pa.Table.from_batches([batch]) for batch in decoded(exported).batches])
    rows = table.select([*OF_A_FLOW, *TIMES]).to_pylist()
    assert len(rows) == exported.records
    for row in rows:
        first_ms, last_ms = capture.span_ms(key_of(row))
        begin_ms = row["time_flow_start"].timestamp() * 1000 - SECONDS * 1000
        assert abs(begin_ms - first_ms) <= slack_ms
        assert row["time_flow_end"] - row["time_flow_start"] == timedelta(milliseconds=last_ms - first_ms)


@pytest.mark.parametrize(
    "version",
    [
        "5",
        "9",
        pytest.param(
            "10",
            marks=pytest.mark.xfail(
                strict=True,
                reason="softflowd's IPFIX sequence number counts the records of the message itself, where RFC 7011 "
                "counts those before it: messages of different sizes look like losses",
            ),
        ),
    ],
)
def test_a_real_exporter_that_lost_nothing_is_not_said_to(softflowd: str, capture: Capture, version: str) -> None:
    """Its sequence numbers leave no gap by our rules."""
    exported = replay(softflowd, capture, version, 9)
    exporters = Exporters()
    for heard in decoded(exported).heard:
        exporters.hear(heard)
    assert exporters.settle(everything=True) == {}
    (facts,) = exporters.facts()
    assert (facts.datagrams, facts.uncertain, facts.restarts) == (exported.datagrams, 0, 0)


def test_they_arrive_in_the_lake(
    softflowd: str, capture: Capture, ingest: Ingest, config: KafkaConfig, tmp_path: Path
) -> None:
    """Through Kafka and the forwarder the same sums reach the Parquet files; what was sent again is there once."""
    before = ingest.balance()
    exported = {version: replay(softflowd, capture, version, ingest.port()) for version in VERSIONS}
    ingest.until_delivered(before.delivered + sum(one.records for one in exported.values()))
    forwarder = Forwarder(config, tmp_path / "lake", tmp_path / "logs")
    try:
        topic = RecordsTopic(config.bootstrap_servers, config.topic_prefix)
        table = topic.records()
        whole = sums(table)
        once = sums(table.take(np.unique(table["record_id"], return_index=True)[1]))
        lake = Lake(tmp_path / "lake")
        eventually(lambda: lake.received_since(0) == once, "everything in the lake", 60.0)
        assert forwarder.stop() == 0
    finally:
        if forwarder.process.poll() is None:
            forwarder.kill()
    for version, kind in VERSIONS.items():
        one = exported[version]
        share = Sums(one.records, sum(one.octets.values()), sum(one.packets.values()))
        times = whole[kind].records // share.records
        assert whole[kind] == Sums(*(times * number for number in (share.records, share.bytes, share.packets)))
    assert of_records(ingest.ledger()).dropped == 0
