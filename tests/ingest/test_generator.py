from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from ingest.__main__ import main
from ingest.decoders.datagrams import HEADROOM_BYTES
from ingest.generator.batch import Batch, Counts
from ingest.generator.expected import expected_records
from ingest.generator.pace import SAFE_BURST, SECOND_NS, TICK_NS, Pace
from ingest.generator.scenario import Scenario
from ingest.generator.sender import Sender, Target
from ingest.generator.traffic import BLOCK, Traffic
from ingest.generator.transmit import Limits, transmit
from shared.errors import ConfigError

SMALL: Final = Scenario(exporters=30, rate=50, refresh=20)
PROTOCOLS: Final = ("v5", "v9", "ipfix", "mix")
TYPES: Final = {5: "NETFLOW_V5", 9: "NETFLOW_V9", 10: "IPFIX"}
VARIABLE: Final = 65535

Fields = tuple[tuple[int, int, int], ...]
Record = dict[tuple[int, int], bytes]

# NetFlow v5's record as the v9 elements that mean the same; 0 is padding.
V5_FIELDS: Final[Fields] = tuple(
    (0, element, length)
    for element, length in [
        *[
            (8, 4),
            (12, 4),
            (15, 4),
            (10, 2),
            (14, 2),
            (2, 4),
            (1, 4),
            (22, 4),
            (21, 4),
            (7, 2),
            (11, 2),
            (0, 1),
            (6, 1),
        ],
        *[(4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (0, 2)],
    ]
)


@dataclass
class Read:
    """A datagram as the reader of this test understands it."""

    source: int
    version: int
    sequence: int
    domain: int
    header: bytes
    flows: list[Record] = field(default_factory=list)
    options: list[Record] = field(default_factory=list)
    templates: list[int] = field(default_factory=list)
    padding: bytes = b""

    @property
    def records(self) -> int:
        """Data records, those of options among them."""
        return len(self.flows) + len(self.options)


class Reader:
    """Reads datagrams one by one, field by field, with nothing of the product's: slow, and easy to believe."""

    def __init__(self) -> None:
        self._templates: dict[tuple[int, int, int], tuple[Fields, bool]] = {}

    def read(self, source: int, payload: bytes) -> Read:
        """Read a datagram; templates are kept by exporter, domain and id."""
        version, count = struct.unpack_from("!HH", payload)
        if version == 5:
            sequence, domain = struct.unpack_from("!IH", payload, 16)
            read = Read(source, 5, sequence, domain, payload[:24])
            for at in range(24, len(payload), 48):
                read.flows.append(self._record(V5_FIELDS, payload, at)[0])
            assert count == len(read.flows)
            return read
        size = 20 if version == 9 else 16
        sequence, domain = struct.unpack_from("!II", payload, size - 8)
        read = Read(source, version, sequence, domain, payload[:size])
        at = size
        while at < len(payload):
            set_id, length = struct.unpack_from("!HH", payload, at)
            self._set(read, set_id, payload[at + 4 : at + length])
            at += length
        assert at == len(payload)
        assert count == (len(payload) if version == 10 else read.records + len(read.templates))
        return read

    def _set(self, read: Read, set_id: int, content: bytes) -> None:
        if set_id < 256:
            options = set_id in {1, 3}
            assert set_id in {(0, 2)[read.version == 10], (1, 3)[read.version == 10]}
            at = 0
            while at + 4 < len(content):
                at = self._template(read, content, at, options=options)
            read.padding += content[at:]
            return
        fields, options = self._templates[read.source, read.domain, set_id]
        least = sum(1 if length == VARIABLE else length for _, _, length in fields)
        at = 0
        while len(content) - at >= least:
            record, at = self._record(fields, content, at)
            (read.options if options else read.flows).append(record)
        assert len(content) - at < 4
        read.padding += content[at:]

    def _template(self, read: Read, content: bytes, at: int, *, options: bool) -> int:
        template_id, count = struct.unpack_from("!HH", content, at)
        at += 4
        if options:
            (second,) = struct.unpack_from("!H", content, at)
            at += 2
            # v9 says the bytes of scopes and of options, IPFIX the number of fields and how many of them are scopes.
            count = (count + second) // 4 if read.version == 9 else count
        fields = []
        for _ in range(count):
            element, length = struct.unpack_from("!HH", content, at)
            at += 4
            enterprise = 0
            if read.version == 10 and element & 0x8000:
                (enterprise,) = struct.unpack_from("!I", content, at)
                at += 4
            fields.append((enterprise, element & 0x7FFF, length))
        self._templates[read.source, read.domain, template_id] = tuple(fields), options
        read.templates.append(template_id)
        return at

    @staticmethod
    def _record(fields: Fields, content: bytes, at: int) -> tuple[Record, int]:
        record: Record = {}
        for enterprise, element, fixed in fields:
            length = fixed
            if fixed == VARIABLE:
                length, at = content[at], at + 1
                if length == 255:
                    length, at = int.from_bytes(content[at : at + 2], "big"), at + 2
            record[enterprise, element] = content[at : at + length]
            assert len(record[enterprise, element]) == length
            at += length
        return record, at


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


def integer(record: Record, element: int) -> int:
    """An element of IANA's as a number."""
    return int.from_bytes(record[0, element], "big")


def address(content: bytes) -> bytes:
    """An address as the record has it, of 16 bytes."""
    return content if len(content) == 16 else bytes(10) + b"\xff\xff" + content


def flow_time_ms(read: Read, record: Record, *, start: bool) -> int:
    """When a flow began or ended, by each protocol's own arithmetic, in milliseconds since 1970."""
    if read.version == 10:
        return integer(record, 152 if start else 153)
    uptime, seconds, nanoseconds = struct.unpack_from("!III", read.header, 4)
    age = (uptime - integer(record, 22 if start else 21)) % 2**32
    fraction = nanoseconds // 1_000_000 if read.version == 5 else 0
    return int(seconds) * 1000 + int(fraction) - int(age)


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


# --- pace


def test_bursts_fit_a_small_receive_buffer() -> None:
    """At a safe rate no burst is larger than what 212,992 bytes hold, however long the sender was held up."""
    pace, sent = Pace(2000), []
    for tick in (0, 1, 2, 3, 1000, 1001, 1002):
        sent.append(pace.due(tick * TICK_NS))
        pace.sent(sent[-1])
    assert sent == [1, 10, 10, 10, SAFE_BURST, 10, 10]


@pytest.mark.parametrize("rate", [0.5, 7, 2000, 150_000])
def test_the_rate_is_kept(rate: float) -> None:
    """A sender that is not held up sends as many in 20 seconds as the rate says, but for a tick."""
    pace, now_ns, sent = Pace(rate), 0, 0
    while now_ns < 20 * SECOND_NS:
        due = pace.due(now_ns)
        if due:
            pace.sent(due)
            sent += due
        else:
            now_ns += max(1, pace.wait_ns(now_ns))
    assert abs(sent - rate * 20) <= 1 + rate * TICK_NS / SECOND_NS


def test_nothing_is_due_within_a_tick_of_a_burst() -> None:
    """Datagrams go in bursts with time between them, so that a fast sender does not spin."""
    pace = Pace(1_000_000)
    pace.sent(pace.due(0))
    half = TICK_NS // 2
    assert (pace.due(half), pace.wait_ns(half)) == (0, TICK_NS - half)
    assert pace.due(TICK_NS) == 5000


# --- the socket


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A socket that listens on loopback, with the buffer that Linux gives by default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


@pytest.fixture
def sender(receiver: socket.socket) -> Iterator[Sender]:
    """A sender to that socket."""
    sending = Sender(Target.parse(f"127.0.0.1:{receiver.getsockname()[1]}"))
    sending.start()
    yield sending
    sending.close()


def test_datagrams_arrive_from_the_exporters_addresses(receiver: socket.socket, sender: Sender) -> None:
    """One socket sends for all exporters: what arrives has their addresses, and the bytes that were made."""
    batch = next(Traffic(SMALL).batches(200))
    messages = sender.prepare(batch)
    arrived = []
    for first in range(0, 200, 20):
        assert sender.send(messages, first, first + 20).all()
        arrived += [receiver.recvfrom(2048) for _ in range(20)]
    assert [payload for payload, _ in arrived] == [batch.payload(index) for index in range(200)]
    assert [host for _, (host, _) in arrived] == [str(ipaddress.ip_address(int(each))) for each in batch.address]
    assert len({port for _, (_, port) in arrived}) == 1
    assert len({host for _, (host, _) in arrived}) == SMALL.exporters


def test_ipv6_loopback_gets_all_from_one_address() -> None:
    """To an IPv6 address the same datagrams go, from the address that the kernel chooses."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.settimeout(10)
        sending = Sender(Target.parse(f"[::1]:{listening.getsockname()[1]}"))
        sending.start()
        batch = next(Traffic(SMALL).batches(10))
        assert sending.send(sending.prepare(batch), 0, 10).all()
        arrived = [listening.recvfrom(2048) for _ in range(10)]
        sending.close()
    assert [payload for payload, _ in arrived] == [batch.payload(index) for index in range(10)]
    assert {host for _, (host, *_) in arrived} == {"::1"}


def test_what_the_kernel_refuses_is_counted_and_the_rest_is_sent(receiver: socket.socket, sender: Sender) -> None:
    """A datagram that is too long for UDP is not sent; those before and after it are."""
    batch = next(Traffic(SMALL).batches(5))
    buffer = np.concatenate([batch.buffer, np.zeros(70_000, np.uint8)])
    length = batch.length.copy()
    length[2] = 70_000
    taken = sender.send(sender.prepare(replace(batch, buffer=buffer, length=length)), 0, 5)
    assert taken.tolist() == [True, True, False, True, True]
    assert sender.refusals.not_sent == {"EMSGSIZE": 1}
    assert [receiver.recv(2048) for _ in range(4)] == [batch.payload(index) for index in (0, 1, 3, 4)]


def test_nobody_needs_to_listen(receiver: socket.socket, sender: Sender) -> None:
    """When the port is closed the sender knows it, and goes on: UDP waits for nobody."""
    receiver.close()
    batch = next(Traffic(SMALL).batches(100))
    messages = sender.prepare(batch)
    assert sender.send(messages, 0, 100).all()
    assert sender.refusals.nobody_listens
    assert sender.send(messages, 0, 100).all()
    assert not sender.refusals.not_sent


@pytest.mark.parametrize(
    ("text", "shown", "spreads"),
    [
        ("127.0.0.1:2055", "127.0.0.1:2055", True),
        ("127.9.9.9:1", "127.9.9.9:1", True),
        ("[::1]:4739", "[::1]:4739", False),
        ("192.0.2.1:2055", "192.0.2.1:2055", False),
        ("localhost:2055", "127.0.0.1:2055", True),
    ],
)
def test_a_target_is_an_address_and_a_port(text: str, shown: str, spreads: bool) -> None:
    """Only to IPv4 loopback can exporters have addresses of their own."""
    target = Target.parse(text)
    assert (str(target), target.spreads) == (shown, spreads)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", ":2055", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x", "no.invalid:1"]
)
def test_a_target_that_cannot_be_is_refused(text: str) -> None:
    """The message has the argument as it was written."""
    with pytest.raises(ConfigError, match="--to"):
        Target.parse(text)


# --- sending at a rate


def never() -> bool:
    """Nobody says stop."""
    return False


def silent(_datagrams: int, _seconds: float) -> None:
    """Nobody wants to know how far it is."""


def test_what_was_sent_is_what_the_traffic_holds(sender: Sender) -> None:
    """The books of a run are those of its datagrams."""
    traffic = Traffic(replace(SMALL, rate=20_000))
    sent = transmit(traffic, sender, Limits(count=150), stopped=never, progress=silent)
    assert sent.totals == traffic.totals(150)
    assert sent.not_sent == 0


def test_what_was_not_sent_is_not_in_the_books(sender: Sender) -> None:
    """Datagrams that the kernel refused are counted apart, and their flows are not counted."""

    class Spoiled(Traffic):
        def batches(self, count: int | None = None) -> Iterator[Batch]:
            for batch in super().batches(count):
                length = batch.length.copy()
                length[0] = 70_000
                yield replace(batch, buffer=np.concatenate([batch.buffer, np.zeros(70_000, np.uint8)]), length=length)

    traffic = Spoiled(replace(SMALL, protocol="v5", rate=0))
    sent = transmit(traffic, sender, Limits(count=20), stopped=never, progress=silent)
    assert sent.not_sent == 1
    assert sent.totals["NETFLOW_V5"].datagrams == 19
    (first,) = Traffic(traffic.scenario).totals(1).values()
    assert sent.totals["NETFLOW_V5"] + first == Traffic(traffic.scenario).totals(20)["NETFLOW_V5"]


def test_sending_stops_when_it_is_told_to(sender: Sender) -> None:
    """Whoever says stop gets the books up to there."""
    bursts: list[int] = []
    traffic = Traffic(replace(SMALL, rate=5000))
    sent = transmit(
        traffic,
        sender,
        Limits(),
        stopped=lambda: len(bursts) >= 3,
        progress=lambda datagrams, _: bursts.append(datagrams),
    )
    assert sum(count.datagrams for count in sent.totals.values()) == bursts[-1]
    assert sent.totals == traffic.totals(bursts[-1])


# --- the command


def test_the_command_says_what_it_sent(receiver: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object, by the record's types, and its start time repeats the run."""
    port = receiver.getsockname()[1]
    line = [
        "generate",
        "--to",
        f"127.0.0.1:{port}",
        "--exporters",
        "9",
        "--count",
        "60",
        "--rate",
        "3000",
        "--seed",
        "5",
    ]
    assert main([*line, "--start-time", "2026-01-31T12:00:00.250Z"]) == 0
    output = capsys.readouterr()
    told = json.loads(output.out)
    totals = Traffic(Scenario(exporters=9, seed=5, rate=3000, start_ms=1_769_860_800_250)).totals(60)
    for name in ("datagrams", "records", "bytes", "packets", "options_records"):
        assert told[name] == {kind: getattr(count, name) for kind, count in totals.items()}
    assert (told["seed"], told["exporters"], told["not_sent"]) == (5, 9, 0)
    assert told["start_time"] == "2026-01-31T12:00:00.250Z"
    assert told["duration_seconds"] > 0
    assert output.err == ""


def test_the_command_says_once_that_nobody_listens(receiver: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port is told on standard error, and is no failure."""
    port = receiver.getsockname()[1]
    receiver.close()
    assert main(["generate", "--to", f"127.0.0.1:{port}", "--count", "50", "--rate", "0"]) == 0
    assert capsys.readouterr().err.count("nobody listens") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "sflow"], "sFlow cannot be generated yet"),
        (["--exporters", "2"], "mix needs 3"),
        (["--count", "0"], "--count 0"),
        (["--duration", "-1"], "--duration -1"),
        (["--to", "nowhere"], "HOST:PORT"),
        (["--start-time", "noon"], "--start-time noon"),
        (["--start-time", "nan"], "--start-time nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_command_says_what_it_cannot_do(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done ends with status 2 and a sentence, and nothing is sent."""
    assert main(["generate", *arguments]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_its_books(receiver: socket.socket, number: signal.Signals) -> None:
    """After SIGINT or SIGTERM the books are printed, for exactly what has arrived, and the status is 0."""
    command = [sys.executable, "-m", "ingest", "generate", "--to", f"127.0.0.1:{receiver.getsockname()[1]}"]
    with subprocess.Popen(
        [*command, "--rate", "200", "--exporters", "6"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        arrived = len(receiver.recv(2048)) and 1
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    told = json.loads(output)
    receiver.setblocking(False)
    for _ in range(sum(told["datagrams"].values()) - arrived):
        receiver.recv(2048)
    with pytest.raises(BlockingIOError):
        receiver.recv(2048)
    assert (process.returncode, errors) == (0, b"")


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
