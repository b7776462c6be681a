from __future__ import annotations

import ipaddress
import os
import shutil
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from ingest.decoders.datagrams import HEADROOM_BYTES
from ingest.generator.batch import Counts
from ingest.generator.expected import expected_records
from ingest.generator.scenario import Scenario
from ingest.generator.traffic import BLOCK, Traffic
from shared.errors import ConfigError
from tests.ingest.plain_reader import Read, Reader, Record, address, flow_time_ms, integer

SMALL: Final = Scenario(exporters=30, rate=50, refresh=20)
PROTOCOLS: Final = ("v5", "v9", "ipfix", "mix")
TYPES: Final = {5: "NETFLOW_V5", 9: "NETFLOW_V9", 10: "IPFIX"}


def read_all(traffic: Traffic, count: int) -> list[Read]:
    """Read the first `count` datagrams of the traffic."""
    reader = Reader()
    return [
        reader.read(int(batch.address[index]), batch.payload(index))
        for batch in traffic.batches(count)
        for index in range(len(batch))
    ]


def payloads(traffic: Traffic, count: int) -> list[bytes]:
    """The bytes of the first `count` datagrams."""
    return [batch.payload(index) for batch in traffic.batches(count) for index in range(len(batch))]


# --- content


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("uniform", [False, True], ids=["varied", "uniform"])
def test_totals_are_what_is_in_the_datagrams(protocol: str, uniform: bool) -> None:
    """Whoever reads the datagrams counts as many records, bytes and packets as the totals say."""
    traffic = Traffic(replace(SMALL, protocol=protocol, uniform=uniform))
    read: dict[str, Counts] = defaultdict(Counts)
    for datagram in read_all(traffic, 700):
        octets = sum(integer(record, 1) for record in datagram.flows)
        packets = sum(integer(record, 2) for record in datagram.flows)
        read[TYPES[datagram.version]] += Counts(1, len(datagram.flows), octets, packets, len(datagram.options))
    assert traffic.totals(700) == read


COLUMNS: Final = {
    "src_addr": (8, 27),
    "dst_addr": (12, 28),
    "next_hop": (15, 62),
    "proto": (4,),
    "src_port": (7,),
    "dst_port": (11,),
    "tcp_flags": (6,),
    "ip_tos": (5,),
    "in_if": (10,),
    "out_if": (14,),
    "src_as": (16,),
    "dst_as": (17,),
    "src_net_len": (9, 29),
    "dst_net_len": (13, 30),
    "src_vlan": (58,),
    "dst_vlan": (59,),
    "src_mac": (56,),
    "dst_mac": (80,),
    "flow_direction": (61,),
    "flow_end_reason": (136,),
    "ipv6_flow_label": (31,),
    "user_name": (371,),
    "application_name": (96,),
    "bytes": (1,),
    "packets": (2,),
}


def as_in_record(column: str, record: Record) -> object:
    """What a column of the flow record should be, by the datagram's bytes; None where it has none of the elements."""
    found = [record[0, element] for element in COLUMNS[column] if (0, element) in record]
    if not found:
        return None
    if column.endswith("_addr") or column == "next_hop":
        return address(found[0])
    if column.endswith("_mac"):
        return found[0]
    if column.endswith("_name"):
        return found[0].decode()
    return int.from_bytes(found[0], "big")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_expected_records_are_what_is_in_the_datagrams(protocol: str) -> None:
    """Every column that a test may expect of a collector has the value that stands in the datagram, in its order."""
    traffic = Traffic(replace(SMALL, protocol=protocol))
    rows = expected_records(traffic, 250).to_pylist()
    found = [(read, record) for read in read_all(traffic, 250) for record in read.flows]
    assert len(rows) == len(found)
    for row, (read, record) in zip(rows, found, strict=True):
        assert {name: row.get(name) for name in COLUMNS} == {name: as_in_record(name, record) for name in COLUMNS}
        assert row["type"] == TYPES[read.version]
        assert row["sequence_num"] == read.sequence
        assert row["observation_domain_id"] == read.domain
        assert row["sampler_address"] == address(read.source.to_bytes(4, "big"))
        assert row["etype"] == (0x86DD if (0, 27) in record else 0x0800)
        assert row["flows"] == 1
        for name, start in (("time_flow_start", True), ("time_flow_end", False)):
            assert round(row[name].timestamp() * 1000) == flow_time_ms(read, record, start=start)
        seconds = struct.unpack_from("!I", read.header, 4 if read.version == 10 else 8)[0]
        assert row["time_exported"].timestamp() // 1 == seconds


def test_sampling_rates_are_those_that_the_exporter_tells() -> None:
    """The rate is in v5's header, in v9's options for the system or for a sampler, and in IPFIX's for the domain."""
    traffic = Traffic(SMALL)
    told: dict[tuple[int, int], int] = {}
    expected: list[int] = []
    for read in read_all(traffic, 400):
        if read.version == 5:
            word = int.from_bytes(read.header[22:24], "big")
            assert word >> 14 == 1
            told[read.source, 0] = word & 0x3FFF
        for record in read.options:
            if (0, 34) in record:
                told[read.source, 0] = integer(record, 34)
            elif (0, 50) in record:
                told[read.source, integer(record, 48)] = integer(record, 50)
            elif (0, 305) in record:
                told[read.source, 0] = (integer(record, 305) + integer(record, 306)) // integer(record, 305)
        for record in read.flows:
            sampler = integer(record, 48) if (0, 48) in record else 0
            expected.append(told[read.source, sampler])
    assert expected_records(traffic, 400)["sampling_rate"].to_pylist() == expected


def test_what_benchmarks_send_has_21_fields_in_58_bytes_and_24_records() -> None:
    """The fullest v9 datagram is what collectors are compared with: 24 records of 21 fields and 58 bytes."""
    reads = read_all(Traffic(replace(SMALL, protocol="v9", uniform=True)), 120)
    full = [read for read in reads if not read.templates]
    assert {len(read.flows) for read in full} == {24}
    assert {(len(record), sum(map(len, record.values()))) for read in full for record in read.flows} == {(21, 58)}


def test_ipfix_has_all_that_makes_it_hard() -> None:
    """Variable lengths in both forms, foreign elements, counters of reduced size and beyond 32 bits, and padding."""
    reads = read_all(Traffic(replace(SMALL, protocol="ipfix")), 2000)
    records = [record for read in reads for record in read.flows]
    lengths = {
        name: {len(record[name]) for record in records if name in record}
        for name in ((0, 1), (0, 2), (0, 371), (32473, 103), (32473, 101))
    }
    assert lengths[0, 1] == {5, 8}
    assert lengths[0, 2] == {3, 4, 8}
    assert lengths[0, 371] >= {9, 260}
    assert lengths[32473, 103] >= {0, 40}
    assert lengths[32473, 101] == {4}
    assert max(integer(record, 1) for record in records) > 2**32
    assert {len(read.padding) for read in reads} > {0}
    assert not any(any(read.padding) for read in reads)
    assert {
        tuple(sorted(key for key in record if key[1] in {149, 143})) for read in reads for record in read.options
    } == {
        ((0, 149),),
        ((0, 143), (0, 149)),
        (),
    }


# --- the exporters


@pytest.mark.parametrize(
    ("protocol", "step"),
    [
        ("v5", lambda read: len(read.flows)),
        ("v9", lambda read: 1),
        ("ipfix", lambda read: read.records),
    ],
    ids=["v5 counts flows", "v9 counts datagrams", "ipfix counts data records"],
)
def test_sequence_numbers_follow_the_rule_of_the_protocol(protocol: str, step: Callable[[Read], int]) -> None:
    """A sequence number moves on by what its protocol counts, through 2^32 too."""
    wrapped = False
    following: dict[int, int] = {}
    for read in read_all(Traffic(replace(SMALL, protocol=protocol, exporters=6)), 6 * 130):
        if read.source in following:
            assert read.sequence == following[read.source]
        following[read.source] = (read.sequence + step(read)) % 2**32
        wrapped |= following[read.source] < read.sequence
    assert wrapped


@pytest.mark.parametrize("protocol", ["v9", "ipfix"])
def test_templates_come_first_and_are_repeated(protocol: str) -> None:
    """An exporter's first datagram has its templates; then they come once in so many, not from all at once."""
    reads = read_all(Traffic(replace(SMALL, protocol=protocol)), 30 * 61)
    of_exporter: dict[int, list[bool]] = defaultdict(list)
    for read in reads:
        of_exporter[read.source].append(bool(read.templates))
    places = {source: np.flatnonzero(announced) for source, announced in of_exporter.items()}
    assert all(place[0] == 0 for place in places.values())
    assert all(set(np.diff(place[1:])) == {20} for place in places.values())
    assert len({int(place[1]) for place in places.values()}) > 5


def test_exporters_have_addresses_of_their_own_and_speak_one_protocol() -> None:
    """Exporters are spread over 127.0.0.0/8, no two share an address, and in a mix each keeps to its protocol."""
    traffic = Traffic(Scenario(exporters=5000))
    spoken: dict[int, set[int]] = defaultdict(set)
    for batch in traffic.batches(12_000):
        for source, kind in zip(batch.address.tolist(), batch.type_index.tolist(), strict=True):
            spoken[source].add(kind)
    assert len(spoken) == 5000
    assert all(len(kinds) == 1 for kinds in spoken.values())
    assert all(ipaddress.ip_address(source) in ipaddress.ip_network("127.0.0.0/8") for source in spoken)
    assert len({source >> 16 for source in spoken}) == 256


def test_uptime_goes_through_its_wrap() -> None:
    """Some exporters' uptime passes 2^32 ms during the traffic, with flows that began before and ended after."""
    split = 0
    for read in read_all(Traffic(replace(SMALL, protocol="v9")), 1500):
        (uptime,) = struct.unpack_from("!I", read.header, 4)
        split += sum(integer(record, 22) > integer(record, 21) for record in read.flows)
        if uptime > 2**31:
            assert flow_time_ms(read, read.flows[0], start=True) > SMALL.start_ms - 100_000
    assert split


def test_flows_are_recent() -> None:
    """A flow began at most 70 seconds before it was exported, ended not after it, and began not after it ended."""
    rows = expected_records(Traffic(SMALL), 300).select(["time_exported", "time_flow_start", "time_flow_end"])
    exported, start, end = (column.to_numpy().astype("datetime64[ms]").astype(int) for column in rows.columns)
    assert (exported - start).max() <= 70_000
    assert (end - start).min() >= 0
    # IPFIX says the time of export in whole seconds, and that of a flow in milliseconds.
    assert (end - exported).max() < 1000


# --- repeating


def test_the_same_scenario_sends_the_same_bytes() -> None:
    """Seed and start time are all that there is: the rest of the run changes nothing."""
    assert payloads(Traffic(SMALL), 300) == payloads(Traffic(SMALL), 300)


@pytest.mark.parametrize(
    "other",
    [replace(SMALL, seed=2), replace(SMALL, start_ms=SMALL.start_ms + 1000)],
    ids=["seed", "start time"],
)
def test_another_seed_or_start_time_repeats_no_datagram(other: Scenario) -> None:
    """Each run is new to a collector that remembers the last one."""
    assert not {*payloads(Traffic(SMALL), 500)} & {*payloads(Traffic(other), 500)}


def test_no_datagram_of_an_exporter_comes_twice() -> None:
    """Nothing in a run is a repetition of what its exporter has sent."""
    traffic = Traffic(SMALL)
    sent = Counter(
        (int(batch.address[index]), batch.payload(index))
        for batch in traffic.batches(4000)
        for index in range(len(batch))
    )
    assert max(sent.values()) == 1


@pytest.mark.parametrize("count", [1, 29, BLOCK - 1, BLOCK, BLOCK + 5])
def test_a_part_is_the_same_as_in_the_whole(count: int) -> None:
    """How many datagrams are wanted does not change those before."""
    whole = payloads(Traffic(SMALL), BLOCK + 40)
    assert payloads(Traffic(SMALL), count) == whole[:count]


def test_a_batch_can_be_decoded_without_a_socket() -> None:
    """A batch gives a decoder the same bytes and sources that a socket would, with room before each datagram."""
    batch = next(Traffic(SMALL).batches(200))
    datagrams = batch.datagrams(received_ns=17)
    assert [datagrams.payload(index) for index in range(200)] == payloads(Traffic(SMALL), 200)
    assert datagrams.source.tobytes() == b"".join(address(int(each).to_bytes(4, "big")) for each in batch.address)
    taken = np.zeros(len(datagrams.buffer), int)
    for offset, length in zip(datagrams.offset, datagrams.length, strict=True):
        taken[offset - HEADROOM_BYTES : offset + length] += 1
    assert (taken == 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "sflow"}, "choose one of v5, v9, ipfix, mix"),
        ({"exporters": 2}, "mix needs 3"),
        ({"protocol": "v9", "exporters": 0}, "v9 needs 1"),
        ({"exporters": 2**24}, "exporters"),
        ({"seed": -1}, "seed"),
        ({"rate": -1.0}, "rate"),
        ({"refresh": 1}, "refresh"),
        ({"start_ms": 0}, "start time"),
        ({"start_ms": 2**32 * 1000}, "start time"),
    ],
    ids=str,
)
def test_a_scenario_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    """What cannot be sent is said when it is asked for."""
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **change)


# --- another reader


@pytest.mark.peers
def test_tshark_reads_the_same(tmp_path: Path) -> None:
    """Wireshark finds nothing malformed, and its sums of bytes and packets are ours."""
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    traffic = Traffic(SMALL)
    capture = tmp_path / "generated.pcap"
    with capture.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for batch in traffic.batches(600):
            for index in range(len(batch)):
                datagram = struct.pack("!HHHH", 40000, 2055, 8 + int(batch.length[index]), 0) + batch.payload(index)
                packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
                packet += struct.pack("!II", int(batch.address[index]), 0x7F000001) + datagram
                file.write(struct.pack("=IIII", 1_700_000_000, index, len(packet), len(packet)) + packet)
    names = ["cflow.version", "cflow.octets", "cflow.packets"]
    fields = [word for name in [*names, "_ws.malformed", "_ws.expert.message"] for word in ("-e", name)]
    output = subprocess.run(
        [tshark, "-r", str(capture), "-d", "udp.port==2055,cflow", "-T", "fields", *fields],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    read: dict[str, Counts] = defaultdict(Counts)
    for line in output.splitlines():
        version, octets, packets, malformed, expert = line.split("\t")
        assert not malformed
        assert not expert
        sums = [sum(map(int, values.split(","))) for values in (octets, packets)]
        read[TYPES[int(version)]] += Counts(1, 0, *sums)
    expected = {
        kind: Counts(count.datagrams, 0, count.bytes, count.packets) for kind, count in traffic.totals(600).items()
    }
    assert read == expected
