from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
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
from tests.ingest.plain_reader import SCOPE, Read, Reader, Record, address, flow_time_ms, integer
from tests.ingest.plain_sflow import COUNTERS, DISCARDED, EXPANDED_COUNTERS, EXPANDED_FLOW, FLOW, Sample

SMALL: Final = Scenario(exporters=32, rate=50, refresh=20)
PROTOCOLS: Final = ("v5", "v9", "ipfix", "sflow", "mix", "v9-bare", "v9-grouped", "v9-bare-grouped")
TYPES: Final = {0: "SFLOW_5", 5: "NETFLOW_V5", 9: "NETFLOW_V9", 10: "IPFIX"}
RECEIVED_NS: Final = 1_700_000_000_123_456_000


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


def counted(datagram: Read) -> Counts:
    """What a reader counts in a datagram."""
    octets = sum(integer(record, 1) for record in datagram.flows)
    packets = sum(integer(record, 2) for record in datagram.flows)
    frames = [int(str(sample.row["bytes"])) for sample in datagram.samples]
    return Counts(
        datagrams=1,
        records=len(datagram.flows) + len(frames),
        bytes=octets + sum(frames),
        packets=packets + len(frames),
        options_records=len(datagram.options),
        counters=len(datagram.counters),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("uniform", [False, True], ids=["varied", "uniform"])
def test_totals_are_what_is_in_the_datagrams(protocol: str, uniform: bool) -> None:
    """Whoever reads the datagrams counts as many records, bytes, packets and counters as the totals say."""
    traffic = Traffic(replace(SMALL, protocol=protocol, uniform=uniform))
    read: dict[str, Counts] = defaultdict(Counts)
    for datagram in read_all(traffic, 700):
        read[TYPES[datagram.version]] += counted(datagram)
    assert traffic.totals(700) == read


@pytest.mark.parametrize("count", [1, 31, 32, 33, 200, 650])
def test_totals_are_those_of_any_beginning(count: int) -> None:
    """The totals of the first datagrams are those of a reader that stops there."""
    traffic = Traffic(SMALL)
    read: dict[str, Counts] = defaultdict(Counts)
    for datagram in read_all(traffic, 700)[:count]:
        read[TYPES[datagram.version]] += counted(datagram)
    assert traffic.totals(count) == read


CISCO: Final = 9
COLUMNS: Final[dict[str, tuple[int | tuple[int, int], ...]]] = {
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
    "src_sgt": (34000, (CISCO, 1232)),
    "dst_sgt": (34001, (CISCO, 1233)),
    "ingress_vrf_id": (234,),
    "egress_vrf_id": (235,),
    "application_id": (95,),
    "user_name": (371,),
    "application_name": (96,),
    "bytes": (1,),
    "packets": (2,),
}


def as_in_record(column: str, record: Record) -> object:
    """What a column of the flow record should be, by the datagram's bytes; None where it has none of the elements."""
    elements = [element if isinstance(element, tuple) else (0, element) for element in COLUMNS[column]]
    found = [record[element] for element in elements if element in record]
    if not found:
        return None
    if column.endswith("_addr") or column == "next_hop":
        return address(found[0])
    if column.endswith("_mac"):
        return found[0]
    if column.endswith("_name"):
        return found[0].decode()
    if column == "application_id":
        return f"{found[0][0]}:{int.from_bytes(found[0][1:], 'big')}"
    return int.from_bytes(found[0], "big")


@pytest.mark.parametrize("protocol", ["v5", "v9", "ipfix", "mix"])
def test_expected_records_are_what_is_in_the_datagrams(protocol: str) -> None:
    """Every column that a test may expect of a collector has the value that stands in the datagram, in its order."""
    traffic = Traffic(replace(SMALL, protocol=protocol))
    rows = [row for row in expected_records(traffic, 450).to_pylist() if row["type"] != "SFLOW_5"]
    reads = read_all(traffic, 450)
    booted_ms = {read.source: integer(record, 160) for read in reads for record in read.options if (0, 160) in record}
    found = [(read, record) for read in reads for record in read.flows]
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
            told_ms = flow_time_ms(read, record, booted_ms.get(read.source, 0), start=start)
            assert round(row[name].timestamp() * 1000) == told_ms
        seconds = struct.unpack_from("!I", read.header, 4 if read.version == 10 else 8)[0]
        assert row["time_exported"].timestamp() // 1 == seconds


@pytest.mark.parametrize("protocol", ["sflow", "mix"])
@pytest.mark.parametrize("uniform", [False, True], ids=["varied", "uniform"])
def test_expected_records_are_what_is_in_the_samples(protocol: str, uniform: bool) -> None:
    """Of sFlow, the columns that a test may expect are those that the samples tell, with their values, and no others."""
    traffic = Traffic(replace(SMALL, protocol=protocol, uniform=uniform))
    table = expected_records(traffic, 800, received_ns=RECEIVED_NS)
    rows = [row for row in table.to_pylist() if row["type"] == "SFLOW_5"]
    found = [(read, sample) for read in read_all(traffic, 800) for sample in read.samples]
    assert len(rows) == len(found) > 700
    for row, (read, sample) in zip(rows, found, strict=True):
        for name in ("time_flow_start", "time_flow_end"):
            assert round(row.pop(name).timestamp() * 1e6) == RECEIVED_NS // 1000
        assert {name: value for name, value in row.items() if value is not None} == sample.row | {
            "type": "SFLOW_5",
            "sampler_address": address(read.source.to_bytes(4, "big")),
            "observation_domain_id": read.domain,
            "sequence_num": read.sequence,
        }


def test_sampling_rates_are_those_that_the_exporter_tells() -> None:
    """Rates are in v5's header and in sFlow's samples; options have the system's, samplers' and selectors', templates'."""
    traffic = Traffic(SMALL)
    told: dict[tuple[int, str, int], int] = {}
    expected: list[int] = []
    kinds: set[str] = set()
    for read in read_all(traffic, 1200):
        if read.version == 5:
            word = int.from_bytes(read.header[22:24], "big")
            assert word >> 14 == 1
            told[read.source, "system", 0] = word & 0x3FFF
        for record in read.options:
            for kind, number, rate in rates(record):
                told[read.source, kind, number] = rate
        for record, template in zip(read.flows, read.flow_templates, strict=True):
            sampler = next((integer(record, element) for element in (48, 302) if (0, element) in record), 0)
            keys = (("sampler", sampler), ("template", template), ("system", 0))
            kind, rate = next((key[0], told[read.source, *key]) for key in keys if (read.source, *key) in told)
            kinds.add(f"{TYPES[read.version]} {kind}")
            expected.append(rate)
        expected += [int(str(sample.row["sampling_rate"])) for sample in read.samples if sample.kind != DISCARDED]
    rows = expected_records(traffic, 1200)["sampling_rate"].to_pylist()
    assert [rate for rate in rows if rate is not None] == expected
    assert kinds == {
        "NETFLOW_V5 system",
        *(f"{kind} {by}" for kind in ("NETFLOW_V9", "IPFIX") for by in ("system", "sampler", "template")),
    }


def rates(record: Record) -> Iterator[tuple[str, int, int]]:
    """By what a record of options tells a sampling rate, of which one, and the rate."""
    template = record.get((SCOPE, 5)) or record.get((0, 145))
    if (0, 34) in record:
        yield "system", 0, integer(record, 34)
    elif (0, 50) in record:
        yield "sampler", integer(record, 48), integer(record, 50)
    elif (0, 310) in record:
        assert integer(record, 304) == 3
        yield "sampler", integer(record, 302), integer(record, 310) // integer(record, 309)
    elif (0, 305) in record:
        rate = (integer(record, 305) + integer(record, 306)) // integer(record, 305)
        if template:
            yield "template", int.from_bytes(template, "big"), rate
        else:
            yield "system", 0, rate


NAMED: Final = (
    ("in_if", "in_if_name", "interface"),
    ("out_if", "out_if_name", "interface"),
    ("ingress_vrf_id", "ingress_vrf_name", "vrf"),
    ("egress_vrf_id", "egress_vrf_name", "vrf"),
    ("src_sgt", "src_sgt_name", "sgt"),
    ("dst_sgt", "dst_sgt_name", "sgt"),
    ("application_id", "application_name", "application"),
)


def names(record: Record) -> Iterator[tuple[str, object, str]]:
    """What a record of options names: a kind, which one, and its name."""

    def text(element: int, enterprise: int = 0) -> str:
        return record[enterprise, element].rstrip(b"\0").decode()

    if (0, 82) in record:
        # IOS-XR's way: where the name is the description with other signs, the description is the name.
        name, description = text(82), text(83)
        yield "interface", integer(record, 10), description if description.replace("/", "_") == name else name
    if (0, 236) in record:
        yield "vrf", integer(record, 234), text(236)
    if (0, 96) in record:
        assert text(94)
        yield "application", as_in_record("application_id", record), text(96)
    for tag, name_of in (((0, 34000), (0, 34002)), ((CISCO, 1232), (CISCO, 1234))):
        if tag in record:
            yield "sgt", int.from_bytes(record[tag], "big"), text(name_of[1], name_of[0])


@pytest.mark.parametrize("protocol", ["v9", "ipfix"])
def test_expected_names_are_those_that_options_tell(protocol: str) -> None:
    """Interfaces, VRFs, groups and applications have the names of their exporter's tables, and some are in no table."""
    traffic = Traffic(replace(SMALL, protocol=protocol))
    reads = read_all(traffic, 32 * 41)
    told = {
        (read.source, kind, number): name
        for read in reads
        for record in read.options
        for kind, number, name in names(record)
    }
    rows = expected_records(traffic, 32 * 41, named=True).to_pylist()
    sources = [read.source for read in reads for _ in read.flows]
    seen: dict[str, set[object]] = defaultdict(set)
    for row, source in zip(rows, sources, strict=True):
        for number, name, kind in NAMED:
            if row[number] is not None:
                assert row[name] == told.get((source, kind, row[number]))
                seen[name].add(row[name])
    assert seen.keys() == {name for _, name, _ in NAMED}
    assert all(len(seen[name]) > 3 for name in seen)
    assert all((None in seen[name]) == (kind in {"sgt", "application"}) for _, name, kind in NAMED)
    # No two exporters in a row call their interfaces the same.
    assert len({name for (_, kind, _), name in told.items() if kind == "interface"}) == 80


@pytest.mark.parametrize("protocol", ["v9", "ipfix"])
def test_exporters_say_how_much_they_have_sent(protocol: str) -> None:
    """Elements 40, 41 and 42 are the octets, datagrams and flow records that their exporter had sent before."""
    sent: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    statistics = 0
    for read in read_all(Traffic(replace(SMALL, protocol=protocol)), 32 * 65):
        for record in read.options:
            if (0, 40) in record:
                assert [integer(record, element) for element in (40, 41, 42)] == sent[read.source]
                statistics += 1
        for at, size in enumerate((read.size, 1, len(read.flows))):
            sent[read.source][at] += size
    assert statistics >= 32 * 3


def test_what_benchmarks_send_has_21_fields_in_58_bytes_and_24_records() -> None:
    """The fullest v9 datagram is what collectors are compared with: 24 records of 21 fields and 58 bytes."""
    reads = read_all(Traffic(replace(SMALL, protocol="v9", uniform=True)), 120)
    full = [read for read in reads if not read.templates]
    assert {len(read.flows) for read in full} == {24}
    assert {(len(record), sum(map(len, record.values()))) for read in full for record in read.flows} == {(21, 58)}


V9_UNIFORM: Final = "7609e3c3e7ba6640f867849779631ff5de7adfb0484c6884ca119578ee341e18"


def test_what_benchmarks_send_stays_the_same() -> None:
    """Not a byte of the v9 traffic of benchmarks changes from one version to the next: old results can be compared."""
    sent = payloads(Traffic(Scenario(protocol="v9", exporters=30, rate=50, uniform=True)), 3000)
    assert hashlib.sha256(b"".join(sent)).hexdigest() == V9_UNIFORM


def test_sflow_of_benchmarks_has_7_samples_with_128_bytes_of_tcp_and_a_switch_record() -> None:
    """The fullest sFlow datagram is what collectors are compared with, and uniform traffic has nothing else."""
    traffic = Traffic(replace(SMALL, protocol="sflow", uniform=True))
    told = {"src_vlan", "dst_vlan", "tcp_flags", "src_mac", "ip_ttl"}
    for payload, read in zip(payloads(traffic, 300), read_all(traffic, 300), strict=True):
        assert (len(read.samples), len(read.counters), len(payload)) == (7, 0, 1540)
        for number, sample in enumerate(read.samples):
            body = payload[28 + 216 * number : 28 + 216 * (number + 1)]
            words = struct.unpack("!54I", body)
            assert words[:2] == (FLOW, 208)
            assert words[9:13] == (2, 1, 144, 1)
            assert words[15] == 128
            assert words[48:50] == (1001, 16)
            assert (sample.row["proto"], sample.row["etype"]) == (6, 0x0800)
            assert told <= sample.row.keys()


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


@pytest.mark.parametrize(
    ("protocol", "kinds"),
    [
        (
            "v9",
            {
                "-1:1 34 35",
                "-1:1 48 49 50 84",
                "-1:1 10 82 83",
                "-1:5 305 306",
                "-1:1 234 236",
                "-1:1 94 95 96",
                "-1:1 34000 34002",
                "-1:1 40 41 42",
            },
        ),
        (
            "ipfix",
            {
                "149 304 305 306",
                "145 149 304 305 306",
                "302 304 309 310",
                "149 160",
                "10 82 83",
                "234 236",
                "94 95 96",
                "9:1232 9:1234",
                "40 41 42 143 149",
            },
        ),
    ],
    ids=["v9", "ipfix"],
)
def test_options_are_of_every_kind(protocol: str, kinds: set[str]) -> None:
    """Options have rates by all that a rate can be of, names of all that has one, the clock, and what was exported."""
    reads = read_all(Traffic(replace(SMALL, protocol=protocol)), 32 * 21)
    elements = {tuple(sorted(record)) for read in reads for record in read.options}
    assert {
        " ".join(f"{enterprise}:{element}" if enterprise else str(element) for enterprise, element in each)
        for each in elements
    } == kinds


def test_sflow_has_all_that_makes_it_hard() -> None:
    """Both forms of samples, discards, every wrapping of packets, all that is known of their way, and the unknown."""
    reads = read_all(Traffic(replace(SMALL, protocol="sflow")), 32 * 41)
    samples = [sample for read in reads for sample in (*read.samples, *read.counters)]
    assert {sample.kind for sample in samples} == {FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED}
    rows = [sample.row for sample in samples]
    wanted = (
        {"src_vlan", "inner_vlan"},
        {"mpls_labels", "as_path", "bgp_communities"},
        {"mpls_labels", "ipv6_flow_label"},
        {"src_sgt", "src_vlan"},
        {"src_sgt", "vni"},
        {"next_hop", "bgp_next_hop", "ipv6_flow_label"},
        {"icmp_type"},
        {"drop_reason", "out_if"},
        {"drop_reason", "sampling_rate"},
    )
    assert all(any(columns <= row.keys() for row in rows) for columns in wanted)
    assert {row.get("proto") for row in rows} >= {1, 6, 17, 47, 58}
    assert 0x3FFFFFFF in {row.get("in_if") for row in rows}
    assert {185} < {row.get("fragment_offset") for row in rows}
    assert {row.get("forwarding_status") for row in rows} >= {64, 128, 129, 131, 133, 137}
    assert any("forwarding_status" in row and "drop_reason" not in row and "out_if" not in row for row in rows)
    assert {tag for sample in samples for tag in sample.records} == {
        *(1, 2, 5, 7, 1001, 1005),
        *(2000, 2001, *range(2003, 2011)),
    }
    assert any(read.unknown for read in reads)


# --- the exporters


@pytest.mark.parametrize(
    ("protocol", "step"),
    [
        ("v5", lambda read: len(read.flows)),
        ("v9", lambda read: 1),
        ("ipfix", lambda read: read.records),
        ("sflow", lambda read: 1),
    ],
    ids=["v5 counts flows", "v9 counts datagrams", "ipfix counts data records", "sflow counts datagrams"],
)
def test_sequence_numbers_follow_the_rule_of_the_protocol(protocol: str, step: Callable[[Read], int]) -> None:
    """A sequence number moves on by what its protocol counts, through 2^32 too."""
    wrapped = False
    following: dict[tuple[int, int], int] = {}
    for read in read_all(Traffic(replace(SMALL, protocol=protocol, exporters=6)), 6 * 130):
        stream = read.source, read.domain
        if stream in following:
            assert read.sequence == following[stream]
        following[stream] = (read.sequence + step(read)) % 2**32
        wrapped |= following[stream] < read.sequence
    assert wrapped
    assert len(following) == (12 if protocol == "sflow" else 6)


def test_samples_are_numbered_by_their_data_source() -> None:
    """Each source counts its flow samples, its discards and its counters by itself, and its pool grows by the rate."""
    last: dict[tuple[int, int, int, tuple[int, int]], Sample] = {}
    wrapped = False
    for read in read_all(Traffic(replace(SMALL, protocol="sflow", exporters=6)), 6 * 130):
        for sample in (*read.samples, *read.counters):
            kind = {EXPANDED_FLOW: FLOW, EXPANDED_COUNTERS: COUNTERS}.get(sample.kind, sample.kind)
            key = read.source, read.domain, kind, sample.source
            if key in last:
                assert sample.sequence == (last[key].sequence + 1) % 2**32
                wrapped |= sample.sequence == 0
                if kind == FLOW:
                    assert (sample.pool - last[key].pool) % 2**32 == sample.row["sampling_rate"]
                    assert (sample.drops - last[key].drops) % 2**32 in {0, 1} or sample.sequence == 0
            last[key] = sample
    assert wrapped
    assert {kind for _, _, kind, _ in last} == {FLOW, COUNTERS, DISCARDED}
    assert {index for _, domain, _, (_, index) in last if domain == 0} == {*range(1, 9)}


def test_a_sub_agent_does_not_mix_the_forms_of_samples() -> None:
    """An agent with large interface numbers uses expanded samples alone, one without them compact ones alone."""
    kinds: dict[int, set[int]] = defaultdict(set)
    large: dict[int, set[bool]] = defaultdict(set)
    for read in read_all(Traffic(replace(SMALL, protocol="sflow")), 32 * 41):
        for sample in (*read.samples, *read.counters):
            kinds[read.domain].add(sample.kind)
            if sample.source[0] == 0:
                large[read.domain].add(sample.source[1] >= 1 << 24)
    assert kinds == {0: {FLOW, COUNTERS, DISCARDED}, 1: {EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED}}
    assert large == {0: {False}, 1: {True}}


def test_no_packet_leaves_by_the_interface_that_it_came_in_by() -> None:
    """Of every sample the interface that took the packet is its source, and the one that it left by is another."""
    for read in read_all(Traffic(replace(SMALL, protocol="sflow")), 32 * 41):
        for sample in read.samples:
            assert sample.row["in_if"] in {sample.source[1], 0x3FFFFFFF}
            assert sample.row.get("out_if") != sample.source[1]


@pytest.mark.parametrize("protocol", ["v9", "ipfix"])
def test_templates_come_first_and_are_repeated(protocol: str) -> None:
    """An exporter's first datagram has its templates, its second its tables; then they come once in so many each.

    Not all exporters announce themselves at the same time.
    """
    reads = read_all(Traffic(replace(SMALL, protocol=protocol)), 32 * 61)
    of_exporter: dict[int, list[bool]] = defaultdict(list)
    tables: dict[int, list[bool]] = defaultdict(list)
    for read in reads:
        of_exporter[read.source].append(bool(read.templates))
        tables[read.source].append(bool(read.options_templates) and not read.templates)
        assert read.templates or read.options_templates or not read.options
    places = {source: np.flatnonzero(announced) for source, announced in of_exporter.items()}
    assert all(place[0] == 0 for place in places.values())
    assert all(table[:2] == [False, True] for table in tables.values())
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
            assert flow_time_ms(read, read.flows[0], 0, start=True) > SMALL.start_ms - 100_000
    assert split


def test_flows_are_recent() -> None:
    """A flow began at most 70 seconds before it was exported, ended not after it, and began not after it ended."""
    told = expected_records(Traffic(SMALL), 400)
    rows = told.select(["time_exported", "time_flow_start", "time_flow_end"]).drop_null()
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
        ({"protocol": "netflow"}, "choose one of v5, v9, ipfix, sflow, mix"),
        ({"exporters": 3}, "mix needs 4"),
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
@pytest.mark.parametrize("protocol", ["v5", "v9", "ipfix", "sflow"])
def test_tshark_reads_the_same(protocol: str, tmp_path: Path) -> None:
    """Wireshark finds nothing malformed, and its sums of bytes and packets are ours.

    It does not know what hosts count, nor discarded packets, and does not skip what it does not know: the first are
    left out here, and the second are not in the sums.
    """
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    traffic = Traffic(replace(SMALL, protocol=protocol))
    datagrams = [
        (read, payload)
        for read, payload in zip(read_all(traffic, 600), payloads(traffic, 600), strict=True)
        if not any(2000 in sample.records for sample in read.counters)
    ]
    capture = tmp_path / "generated.pcap"
    with capture.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for index, (read, payload) in enumerate(datagrams):
            datagram = struct.pack("!HHHH", 40000, 6343 if read.version == 0 else 2055, 8 + len(payload), 0) + payload
            packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
            packet += struct.pack("!II", read.source, 0x7F000001) + datagram
            file.write(struct.pack("=IIII", 1_700_000_000, index, len(packet), len(packet)) + packet)
    names = ["cflow.octets", "cflow.packets", "sflow_245.header.frame_length", "_ws.malformed", "_ws.expert.severity"]
    fields = [word for name in names for word in ("-e", name)]
    output = subprocess.run(
        [tshark, "-r", str(capture), "-d", "udp.port==2055,cflow", "-T", "fields", *fields],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    lines = output.splitlines()
    assert len(lines) == len(datagrams)
    for line, (read, _) in zip(lines, datagrams, strict=True):
        octets, packets, frames, malformed, severities = line.split("\t")
        assert not malformed
        # What is said of packets in samples is no fault of sFlow's: a segment that ends a connection, for instance.
        assert not read.version or not severities
        assert all(int(severity) < ERROR for severity in severities.split(",") if severity)
        known = [sample for sample in read.samples if sample.kind != DISCARDED]
        if read.version:
            assert Counts(1, len(read.flows), summed(octets), summed(packets), len(read.options)) == counted(read)
        else:
            assert summed(frames) == sum(int(str(sample.row["bytes"])) for sample in known)


ERROR: Final = 0x00800000
"""What tshark calls an error."""


def summed(values: str) -> int:
    """The sum of what tshark shows of a field in a packet."""
    return sum(int(value) for value in values.split(",") if value)
