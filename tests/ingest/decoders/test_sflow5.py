"""sFlow version 5, from bytes to columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Datagrams, Decoded, Fault, Oddity, Unit
from ingest.decoders import sflow_elements as kinds
from ingest.decoders.xdr import FEW
from ingest.exporters import Exporters, address_text
from tests import counter_builders
from tests import sflow_builders as make
from tests.builders import UPTIME_MS, mac, mapped, v5_datagram, v5_record
from tests.fuzz import looked_at
from tests.ingest.collector import (
    RECEIVED_NS,
    Collector,
    Row,
    faults,
    in_order,
    nothing_wrong,
    one,
    packed,
    rows,
    told,
)
from tests.ingest.decoders.known_flow_records import HOP, PATH, RECORDS
from tests.ingest.decoders.known_packets import INNER, INNER_LINK, LINK, PACKETS, TCP, UDP, Sampled, four, six
from tests.sflow_builders import (
    DST6,
    DST_MAC,
    MOST,
    OTHER_RECORDS,
    SRC,
    SRC6,
    SRC_MAC,
    UNKNOWN,
    counters_sample,
    datagram,
    discarded,
    discarded_packet,
    ethernet,
    ethernet_record,
    expanded_flow_sample,
    flow_sample,
    gateway,
    ip_record,
    ipv4_packet,
    mpls,
    mpls_record,
    multiple,
    nat,
    nat_ports,
    opaque,
    router,
    sampled_header,
    socket,
    switch,
    tagged,
    tcp,
    tunnel_vni,
    typed_address,
    udp,
    user,
    vlan,
    vxlan,
    words,
)

AGENT: Final = "192.0.2.100"
"""The agent of most tests: the address that the datagrams come from."""
BYTES_OF_A_HEADER: Final = 28
"""Of a datagram, with an IPv4 agent address."""
INTERNAL: Final = 0x3FFFFFFF
TRUNCATED: Final = (Fault.TRUNCATED, Unit.SETS)
BAD_LENGTH: Final = (Fault.BAD_LENGTH, Unit.SETS)
BESIDE: Final = pytest.mark.parametrize("beside", [0, 3 * FEW], ids=["alone", "beside many"])
"""Alone a datagram is walked, beside many others all advance together."""


def fed(*samples: bytes, decapsulate: Collection[str] = ()) -> Decoded:
    """What comes of one datagram with these samples."""
    return Collector(decapsulate=decapsulate).feed(datagram(*samples, agent=AGENT))


def said(*records: bytes, decapsulate: Collection[str] = ()) -> Row:
    """What the records of one sample say: the sample itself says nothing but that it is one packet."""
    decoded = fed(flow_sample(*records, rate=0, input_if=0, output_if=0), decapsulate=decapsulate)
    assert nothing_wrong(decoded)
    row = told(one(decoded))
    assert row.pop("packets") == 1
    return row


# --- a datagram and its samples


def test_everything_that_a_sample_says() -> None:
    """A row has what the datagram, the sample and its records say, and is one packet of one flow."""
    frame = ethernet(vlan(10, ipv4_packet(tcp())))
    payload = datagram(
        flow_sample(sampled_header(frame, frame_length=1518), switch(10, 20), rate=1024, input_if=3, output_if=4),
        agent="203.0.113.1",
        sub_agent=7,
        sequence=99,
    )
    decoded = Collector().feed(payload)
    row = one(decoded)
    assert row.pop("record_id")
    assert row == {
        "type": "SFLOW_5",
        "time_received": RECEIVED_NS,
        "time_flow_start": RECEIVED_NS,
        "time_flow_end": RECEIVED_NS,
        "sampler_address": mapped("203.0.113.1"),
        "source_address": mapped(AGENT),
        "observation_domain_id": 7,
        "sequence_num": 99,
        "sampling_rate": 1024,
        "bytes": 1518,
        "packets": 1,
        "flows": 1,
        **LINK,
        **four(),
        **TCP,
        "src_vlan": 10,
        "dst_vlan": 20,
        "in_if": 3,
        "out_if": 4,
    }
    assert nothing_wrong(decoded)
    assert decoded.version.tolist() == [0]


def test_flow_samples_of_both_forms_say_the_same() -> None:
    """The expanded form has wider words, and nothing else."""
    header = sampled_header(ethernet(ipv4_packet(tcp())))
    compact = fed(flow_sample(header, rate=64, input_if=5, output_if=6))
    expanded = fed(expanded_flow_sample(header, rate=64, input_if=(0, 5), output_if=(0, 6)))
    assert told(one(compact)) == told(one(expanded))
    wide = one(fed(expanded_flow_sample(header, input_if=(0, 0x80000001), output_if=(0, 0x7FFFFFFF))))
    assert (wide["in_if"], wide["out_if"]) == (0x80000001, 0x7FFFFFFF)


def test_samples_of_a_datagram_are_records_each() -> None:
    """Samples of every form, and equal ones among them, are told apart by their place."""
    header = sampled_header(ethernet(ipv4_packet(udp())))
    samples = [
        flow_sample(header),
        counters_sample(),
        expanded_flow_sample(header),
        flow_sample(header),
        discarded_packet(header),
        tagged(77, b"else"),
        discarded_packet(header),
        expanded_flow_sample(header),
        flow_sample(),
    ]
    decoded = fed(*samples)
    assert len(rows(decoded)) == 7
    assert len({row["record_id"] for row in rows(decoded)}) == 7
    assert Counter(row.get("drop_reason") for row in rows(decoded)) == {None: 5, 258: 2}


def test_a_datagram_without_samples_is_none_the_worse() -> None:
    """A datagram may have nothing to tell but its sequence number."""
    decoded = fed()
    assert rows(decoded) == []
    assert nothing_wrong(decoded)
    assert [heard.sequence.tolist() for heard in decoded.heard] == [[1]]


def test_a_sample_without_records_is_a_packet() -> None:
    """An agent may sample a packet and say nothing of it."""
    assert said() == {}


@pytest.mark.parametrize(("rate", "expected"), [(0, None), (1, 1), (400, 400), (MOST, MOST)])
@pytest.mark.parametrize("sample", [flow_sample, expanded_flow_sample], ids=["compact", "expanded"])
def test_the_rate_is_the_samples(sample: Callable[..., bytes], rate: int, expected: int | None) -> None:
    """One of so many packets; 0 is a rate that is not known."""
    assert one(fed(sample(rate=rate))).get("sampling_rate") == expected


def test_a_discarded_packet_has_no_rate() -> None:
    """Notifications are limited in number, so nothing may be computed from how many there are."""
    assert "sampling_rate" not in one(fed(discarded_packet()))


INTERFACES = [
    pytest.param(0, 1, 1, id="an ifIndex"),
    pytest.param(0, INTERNAL - 1, INTERNAL - 1, id="the largest ifIndex of the compact form"),
    pytest.param(0, INTERNAL, INTERNAL, id="the device itself"),
    pytest.param(0, 0, None, id="not known"),
    pytest.param(2, 0, None, id="several"),
    pytest.param(2, 5, None, id="five"),
    pytest.param(1, 258, None, id="discarded"),
    pytest.param(3, 7, None, id="a form that there is not"),
]


@pytest.mark.parametrize(("form", "value", "expected"), INTERFACES)
@pytest.mark.parametrize(("column", "side"), [("in_if", "input_if"), ("out_if", "output_if")], ids=["in", "out"])
def test_an_interface_has_a_form(column: str, side: str, form: int, value: int, expected: int | None) -> None:
    """Only what is an ifIndex fills the column: 0 is one that is not known, and other forms tell something else."""
    compact: dict[str, Any] = {side: form << 30 | value}
    expanded: dict[str, Any] = {side: (form, value)}
    assert one(fed(flow_sample(**compact))).get(column) == expected
    assert one(fed(expanded_flow_sample(**expanded))).get(column) == expected


def test_the_device_itself_has_a_form_of_its_own_in_expanded_samples() -> None:
    """All ones there are what the compact form writes with 30 of them."""
    row = one(fed(expanded_flow_sample(input_if=(0, UNKNOWN), output_if=(0, UNKNOWN))))
    assert (row["in_if"], row["out_if"]) == (INTERNAL, INTERNAL)


@pytest.mark.parametrize("count", [0, 1, 2, 0x3FFFFFFF])
def test_a_packet_to_several_interfaces_was_forwarded(count: int) -> None:
    """How many they were has no column, but that the packet went out has."""
    for sample in (flow_sample(output_if=multiple(count)), expanded_flow_sample(output_if=(2, count))):
        row = one(fed(sample))
        assert row["forwarding_status"] == 64
        assert "out_if" not in row
        assert "drop_reason" not in row


REASONS = [
    pytest.param(0, 131, id="net unreachable"),
    pytest.param(1, 131, id="host unreachable"),
    pytest.param(3, 131, id="port unreachable"),
    pytest.param(4, 133, id="fragmentation needed"),
    pytest.param(9, 129, id="net prohibited"),
    pytest.param(10, 129, id="host prohibited"),
    pytest.param(13, 129, id="communication prohibited"),
    pytest.param(15, 131, id="the last of ICMP's codes"),
    pytest.param(16, 128, id="no code of ICMP's"),
    pytest.param(255, 128, id="not assigned"),
    pytest.param(256, 128, id="unknown"),
    pytest.param(257, 137, id="TTL exceeded"),
    pytest.param(258, 129, id="access list"),
    pytest.param(259, 128, id="no buffer space"),
    pytest.param(260, 139, id="RED"),
    pytest.param(261, 138, id="traffic shaping"),
    pytest.param(262, 133, id="packet too big"),
    pytest.param(269, 131, id="blackhole route"),
    pytest.param(279, 132, id="unresolved neighbour"),
    pytest.param(280, 140, id="multicast reverse path"),
    pytest.param(281, 131, id="not routable"),
    pytest.param(302, 140, id="unicast reverse path"),
    pytest.param(303, 128, id="split horizon"),
    pytest.param(372, 128, id="beyond what is published"),
    pytest.param(0xFFFF, 128, id="the largest of the column"),
]


@pytest.mark.parametrize(("reason", "status"), REASONS)
def test_a_discarded_packet_says_why(reason: int, status: int) -> None:
    """The reason is told as sent, and as a status of RFC 7270, by each way in which an agent may tell it."""
    header = sampled_header(ethernet(ipv4_packet(tcp())))
    for sample in (
        flow_sample(header, output_if=discarded(reason)),
        expanded_flow_sample(header, output_if=(1, reason)),
        discarded_packet(header, reason=reason),
    ):
        row = one(fed(sample))
        assert (row["drop_reason"], row["forwarding_status"]) == (reason, status)
        assert "out_if" not in row
        assert {name: row[name] for name in four()} == four()


def test_a_notification_of_a_discard_has_plain_interfaces() -> None:
    """Both are an ifIndex or 0, where the packet came in and where it would have gone out."""
    row = one(fed(discarded_packet(input_if=0x40000003, output_if=0x80000004)))
    assert (row["in_if"], row["out_if"]) == (0x40000003, 0x80000004)
    row = one(fed(discarded_packet(input_if=0, output_if=0)))
    assert not {"in_if", "out_if"} & row.keys()


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(flow_sample(output_if=discarded(0x10000)), id="compact"),
        pytest.param(expanded_flow_sample(output_if=(1, MOST)), id="expanded"),
        pytest.param(discarded_packet(reason=MOST), id="notification"),
    ],
)
def test_a_reason_too_large_for_its_column_is_null_and_counted(sample: bytes) -> None:
    """The packet was discarded all the same."""
    decoded = fed(sample)
    row = one(decoded)
    assert row["forwarding_status"] == 128
    assert "drop_reason" not in row
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}


# --- flow records


OF_RECORDS: Final = pytest.mark.parametrize(
    ("record", "expected"), [pytest.param(known.record, known.expected, id=known.name) for known in RECORDS]
)


@OF_RECORDS
def test_a_record_fills_its_columns_and_no_other(record: bytes, expected: Row) -> None:
    """Each record that has columns fills them, in samples of every form."""
    assert said(record) == expected
    for sample in (expanded_flow_sample(record, rate=0, input_if=(0, 0), output_if=(0, 0)), discarded_packet(record)):
        row = told(one(fed(sample)))
        assert {name: value for name, value in row.items() if name in expected} == expected


@OF_RECORDS
def test_records_do_not_depend_on_those_beside_them(record: bytes, expected: Row) -> None:
    """A record that fills its columns in one sample leaves those of the sample before and after it alone."""
    samples = [flow_sample(*each, rate=0, input_if=0, output_if=0) for each in ((), (record,), ())]
    found = [told(row) for row in rows(fed(*samples))]
    assert sorted(found, key=len)[:2] == [{"packets": 1}] * 2 if expected else True
    assert {"packets": 1, **expected} in found


@pytest.mark.parametrize("sampled", [pytest.param(sampled, id=sampled.name) for sampled in PACKETS])
def test_a_sampled_header_fills_its_columns(sampled: Sampled) -> None:
    """Record 1: each kind of packet, and the length that the frame had on the wire."""
    header = sampled_header(sampled.packet, protocol=sampled.protocol, frame_length=9018)
    assert said(header) == {"bytes": 9018, **sampled.expected}


@pytest.mark.parametrize(
    "sampled", [pytest.param(sampled, id=sampled.name) for sampled in PACKETS if sampled.tunnel is not None]
)
def test_the_configuration_tells_which_tunnels_are_entered(sampled: Sampled) -> None:
    """Of the tunnels that are named the inner packet is the flow; the frame is as long as it was."""
    header = sampled_header(sampled.packet, protocol=sampled.protocol, frame_length=1500)
    assert sampled.tunnel is not None
    assert said(header, decapsulate={sampled.tunnel}) == {"bytes": 1500, **sampled.inner}


def test_every_record_that_fills_columns_is_tried() -> None:
    """Each number that the decoder knows has its line in the table above."""
    tried = {int.from_bytes(known.record[:4]) for known in RECORDS}
    assert tried | {1} == kinds.KNOWN_FLOW_RECORDS


@pytest.mark.parametrize("size", [0, 1, 13, 14, 34, 61, 62, 63, 64, 128, 256, 512, 513, 1400])
def test_a_header_may_have_any_length(size: int) -> None:
    """Bytes that fill a header up to a multiple of four are none of it, and what is longer than is read is no fault."""
    frame = ethernet(ipv4_packet(tcp(content=bytes(1400))))[:size]
    row = said(sampled_header(frame, frame_length=1458), switch(1, 2))
    assert (row["bytes"], row["src_vlan"], row["dst_vlan"]) == (1458, 1, 2)
    assert ("dst_port" in row) == (size >= 38)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 14, 20, 40])
def test_a_header_ends_where_it_says(size: int) -> None:
    """Bytes of its record behind a header are none of it, whatever they look like."""
    short = [
        flow_sample(sampled_header(sampled.packet, protocol=sampled.protocol, frame_length=64, length=size))
        for sampled in PACKETS
        if len(sampled.packet) >= size
    ]
    cut = [
        flow_sample(sampled_header(sampled.packet[:size], protocol=sampled.protocol, frame_length=64))
        for sampled in PACKETS
        if len(sampled.packet) >= size
    ]
    found, expected = fed(*short), fed(*cut)
    assert [told(row) for row in rows(found)] == [told(row) for row in rows(expected)]
    assert nothing_wrong(found)


def test_a_record_may_be_longer_than_is_known() -> None:
    """What a later version of a record has at its end is left alone."""
    for known in RECORDS:
        tag, body = known.record[:4], known.record[8:]
        longer = tag + words(len(body) + 8) + body + b"\xa5" * 8
        of_another = {} if int.from_bytes(tag) == 1001 else known.expected
        assert said(longer, switch(1, 2)) == {**of_another, "src_vlan": 1, "dst_vlan": 2}


# --- records beside one another

BOTH = [
    pytest.param(
        (sampled_header(ethernet(vlan(10, ipv4_packet(tcp())))), switch(30, 40)),
        {"src_vlan": 30, "dst_vlan": 40},
        id="a switch's VLAN before the frame's tag",
    ),
    pytest.param(
        (sampled_header(ethernet(vlan(10, ipv4_packet(tcp())))), switch(UNKNOWN, 40)),
        {"src_vlan": 10, "dst_vlan": 40},
        id="the frame's tag where the switch does not know",
    ),
    pytest.param(
        (
            sampled_header(ethernet(ipv4_packet(tcp())), frame_length=900),
            ethernet_record(length=64),
            ip_record(length=50),
        ),
        {"bytes": 900, "src_addr": mapped(SRC), "etype": 0x0800},
        id="the frame's length before those of records 2 and 3",
    ),
    pytest.param(
        (sampled_header(ethernet(vlan(10, ipv4_packet(tcp())))), make.vlan_tunnel(100)),
        {"src_vlan": 100, "inner_vlan": 10},
        id="a tag that was taken off before the frame's",
    ),
    pytest.param(
        (sampled_header(ethernet(vlan(10, vlan(11, ipv4_packet(tcp()))))), make.vlan_tunnel(100, 20)),
        {"src_vlan": 100, "inner_vlan": 20},
        id="tags that were taken off before the frame's",
    ),
    pytest.param(
        (sampled_header(ethernet(ipv4_packet(tcp()))), make.vlan_tunnel(100)),
        {"src_vlan": 100, "inner_vlan": None},
        id="a tag that was taken off of a frame that had no other",
    ),
    pytest.param(
        (sampled_header(ethernet(vlan(10, ipv4_packet(tcp())))), make.vlan_tunnel(100), switch(30, 40)),
        {"src_vlan": 30, "dst_vlan": 40, "inner_vlan": 10},
        id="a switch's VLAN before a tag that was taken off",
    ),
    pytest.param(
        (ethernet_record(length=64), ip_record(length=50)), {"bytes": 64}, id="record 2's length before record 3's"
    ),
    pytest.param(
        (ethernet_record(etype=0x86DD), ip_record(src=SRC6, dst=DST6)),
        {"etype": 0x86DD, "src_mac": mac(SRC_MAC), "dst_mac": mac(DST_MAC), "src_addr": mapped(SRC6)},
        id="Ethernet and IPv6",
    ),
    pytest.param(
        (sampled_header(ethernet(ipv4_packet(tcp()))), socket(local="10.9.9.9", local_port=1, proxied=True)),
        {"src_addr": mapped(SRC), "src_port": 40000, "dst_port": 443},
        id="the packet before the socket",
    ),
    pytest.param(
        (socket(local=SRC, local_port=1), socket(local="10.9.9.9", local_port=2, proxied=True)),
        {"src_addr": mapped(SRC), "src_port": 1},
        id="the socket before the one behind the proxy",
    ),
    pytest.param(
        (sampled_header(ethernet(mpls(5, 6, content=ipv4_packet(tcp())))), mpls_record(None, (9,))),
        {"mpls_labels": [5, 6]},
        id="the frame's labels before the record's",
    ),
    pytest.param(
        (router("203.0.113.1", 8, 9), mpls_record("203.0.113.2", (9,))),
        {"next_hop": mapped("203.0.113.2"), "mpls_labels": [9]},
        id="the next hop of the label switched path",
    ),
    pytest.param(
        (sampled_header(ethernet(ipv4_packet(vxlan(5, ethernet(ipv4_packet()))))), tunnel_vni(7)),
        {"vni": 7},
        id="the network that the agent tells before the frame's",
    ),
]


@pytest.mark.parametrize(("records", "expected"), BOTH)
def test_of_records_that_tell_of_one_column_one_counts(records: tuple[bytes, ...], expected: Row) -> None:
    """Which record counts does not depend on their order in the sample."""
    for order in (records, records[::-1]):
        row = said(*order)
        assert {name: row.get(name) for name in expected} == expected


def test_labels_of_frames_and_of_records_stand_beside_one_another() -> None:
    """In one batch, a sample has its labels from the frame and another from the record."""
    header = sampled_header(ethernet(mpls(5, content=ipv4_packet(tcp()))))
    decoded = fed(flow_sample(header), flow_sample(mpls_record(None, (7, 8))), flow_sample())
    assert [row.get("mpls_labels") for row in rows(decoded)] == [[5], [7, 8], None]


TWICE = [
    pytest.param(switch(1, 2), switch(3, 4), {"src_vlan": 3, "dst_vlan": 4}, id="1001"),
    pytest.param(
        sampled_header(ethernet(mpls(1, 2, content=ipv4_packet(udp())))),
        sampled_header(ethernet(mpls(3, content=ipv4_packet(tcp()))), frame_length=99),
        {"bytes": 99, **LINK, **four(), **TCP, "mpls_labels": [3]},
        id="1",
    ),
    pytest.param(
        gateway(path=PATH, communities=(1, 2)),
        gateway(path=((make.SEQUENCE, (9,)),), communities=(3,)),
        HOP | {"next_hop_as": 9, "dst_as": 9, "as_path": [9], "bgp_communities": [3]},
        id="1003",
    ),
    pytest.param(user("alice"), user("bob"), {"user_name": "bob"}, id="1004"),
]


@pytest.mark.parametrize(("first", "second", "expected"), TWICE)
def test_of_a_record_that_stands_twice_the_last_counts(first: bytes, second: bytes, expected: Row) -> None:
    """A sample has each record once; of one that it has twice the last counts, whole."""
    assert said(first, second) == expected


def test_many_headers_of_one_sample_cost_one() -> None:
    """However many sampled headers a sample has, one is taken apart."""
    headers = [sampled_header(b"")] * 2000 + [sampled_header(ethernet(ipv4_packet(tcp())))]
    row = said(*headers)
    assert row["dst_port"] == 443


@pytest.mark.parametrize("when", [0, 1, 1_700_000_000_987_654_321, (1 << 63) - 1])
def test_a_packet_that_says_when_it_was_seen_is_a_flow_of_then(when: int) -> None:
    """Record 1043 is nearer to the packet than the time of reception; a sample without it has that, beside it too."""
    for samples in ((flow_sample(make.timestamp(when)),), (flow_sample(make.timestamp(when)), flow_sample())):
        found = rows(fed(*samples))
        times = [(row["time_flow_start"], row["time_flow_end"]) for row in found]
        assert times == [(when, when), (RECEIVED_NS, RECEIVED_NS)][: len(samples)]


def test_a_time_out_of_all_range_is_counted() -> None:
    """What no clock can tell is not believed."""
    decoded = fed(flow_sample(make.timestamp(1 << 63)))
    assert one(decoded)["time_flow_start"] == RECEIVED_NS
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}


# --- what is skipped


@pytest.mark.parametrize("kind", sorted(OTHER_RECORDS))
def test_a_record_without_columns_is_counted_by_its_number(kind: int) -> None:
    """What has no column is skipped by its length, and the records beside it are read."""
    decoded = fed(flow_sample(switch(1, 2), tagged(kind, OTHER_RECORDS[kind]), router("203.0.113.1", 8, 9)))
    row = one(decoded)
    assert (row["src_vlan"], row["src_net_len"]) == (1, 8)
    assert dict(decoded.skipped) == {f"flow record 0:{kind}": 1}
    assert nothing_wrong(decoded)


def test_every_record_that_is_known_by_number_is_tried() -> None:
    """Each number that is counted as itself has a body in the table of the builders."""
    assert OTHER_RECORDS.keys() == kinds.COUNTED_FLOW_RECORDS


@pytest.mark.parametrize(
    ("kind", "enterprise"), [(0, 0), (5, 0), (999, 0), (4095, 0), (1, 1), (1001, 4413), (1, 0xFFFFF)]
)
def test_what_nobody_knows_is_counted_together(kind: int, enterprise: int) -> None:
    """Records and samples of numbers that are not known share one word each: an agent cannot make up new ones."""
    record = tagged(kind, b"abcde", enterprise=enterprise)
    decoded = fed(flow_sample(record, switch(1, 2), record))
    assert one(decoded)["src_vlan"] == 1
    assert dict(decoded.skipped) == {"flow record unknown": 2}
    if kind not in {1, 5} or enterprise:
        decoded = fed(flow_sample(), tagged(kind, b"abcde", enterprise=enterprise), flow_sample())
        assert len(rows(decoded)) == 2
        assert dict(decoded.skipped) == {"sample unknown": 1}
    assert nothing_wrong(decoded)


# --- whose it is


AGENTS = [
    pytest.param("203.0.113.1", mapped("203.0.113.1"), id="IPv4"),
    pytest.param("2001:db8::a", mapped("2001:db8::a"), id="IPv6"),
    pytest.param("0.0.0.0", mapped("0.0.0.0"), id="IPv4, all zeros"),
    pytest.param(None, mapped(AGENT), id="not known: who sent it"),
]


@pytest.mark.parametrize(("agent", "expected"), AGENTS)
@BESIDE
def test_an_exporter_is_its_agent_address(agent: str | None, expected: bytes, beside: int) -> None:
    """The agent says who it is, whatever address the datagram comes from; that is told when it differs."""
    payload = datagram(flow_sample(switch(1, 2)), agent=agent, sub_agent=0xFFFFFFFF)
    others = [datagram(flow_sample(), agent="2001:db8::b", sequence=at) for at in range(beside)]
    decoded = Collector().feed(*others, payload, *others)
    (row,) = (row for row in rows(decoded) if row.get("src_vlan") == 1)
    assert row["sampler_address"] == expected
    assert row["observation_domain_id"] == 0xFFFFFFFF
    assert row.get("source_address") == (None if expected == mapped(AGENT) else mapped(AGENT))
    assert nothing_wrong(decoded)


def test_an_observation_is_the_same_wherever_it_comes_from() -> None:
    """A datagram that is mirrored by another address has the same identity; one of another agent has not."""
    payload = datagram(flow_sample(), agent="203.0.113.1")

    def identity(content: bytes, source: str) -> int:
        number: int = one(Collector().feed(content, source=mapped(source)))["record_id"]
        return number

    assert identity(payload, "192.0.2.1") == identity(payload, "192.0.2.2")
    others = [
        identity(datagram(flow_sample(), agent="203.0.113.2"), "192.0.2.1"),
        identity(datagram(flow_sample(), agent="203.0.113.1", sub_agent=1), "192.0.2.1"),
        identity(datagram(flow_sample(), agent="203.0.113.1", sequence=2), "192.0.2.1"),
        identity(datagram(flow_sample(), agent=None), "192.0.2.1"),
        identity(datagram(flow_sample(), agent=None), "192.0.2.2"),
    ]
    assert len({identity(payload, "192.0.2.1"), *others}) == 6


def test_what_is_heard_of_an_agent() -> None:
    """Each datagram counts one in the sequence of its agent and sub-agent, and tells how much could be read."""
    payloads = [
        datagram(flow_sample(), flow_sample(), agent="203.0.113.1", sub_agent=3, sequence=10),
        datagram(flow_sample(), tagged(1, b"short"), agent="203.0.113.1", sub_agent=3, sequence=11),
        datagram(flow_sample(), tagged(1, b"", length=MOST), agent="2001:db8::1", sequence=MOST),
    ]
    (heard,) = Collector().feed(*payloads).heard
    assert heard.version == 0
    assert [octets.tobytes() for octets in heard.source] == [mapped("203.0.113.1")] * 2 + [mapped("2001:db8::1")]
    assert heard.domain.tolist() == [3, 3, 0]
    assert heard.sequence.tolist() == [10, 11, MOST]
    assert heard.units.tolist() == [1, 1, 1]
    assert heard.exact.tolist() == [True] * 3
    assert heard.records.tolist() == [2, 1, 1]
    assert heard.undecoded.tolist() == [0, 1, 1]
    assert heard.uptime_ms is not None
    assert heard.uptime_ms.tolist() == [UPTIME_MS] * 3


def test_datagrams_that_are_missing_are_lost() -> None:
    """Losses are counted by agent and sub-agent: numbers of one do not fill gaps of another."""
    exporters = Exporters()
    for sub_agent, numbers in ((0, (1, 2, 5)), (1, (3, 4, 9))):
        payloads = [datagram(flow_sample(), agent="203.0.113.1", sub_agent=sub_agent, sequence=at) for at in numbers]
        for heard in Collector().feed(*payloads).heard:
            exporters.hear(heard)
    assert exporters.settle(everything=True) == {"203.0.113.1": 2 + 4}


Numbered = tuple[str, int, kinds.SampleKind, tuple[int, int], int, int | None]
"""Agent, sub-agent, kind, data source, sequence number, drops."""


def numbered(decoded: Decoded) -> list[Numbered]:
    """How samples are numbered, in any order."""
    found: list[Numbered] = []
    for part in decoded.samples:
        drops = [None] * len(part.row) if part.drops is None else part.drops.tolist()
        for at, row in enumerate(part.row.tolist()):
            agent = address_text(part.headers.source[row].tobytes())
            source = int(part.source_class[at]), int(part.source_index[at])
            found.append((agent, int(part.headers.domain[row]), part.kind, source, int(part.sequence[at]), drops[at]))
    return sorted(found)


FLOW, COUNTERS, DISCARDED = kinds.SampleKind
NUMBERED = [
    pytest.param(
        flow_sample(sequence=7, source_id=2 << 24 | 5, drops=9), (FLOW, (2, 5), 7, 9), id="flow sample, compact"
    ),
    pytest.param(
        flow_sample(sequence=MOST, source_id=MOST, drops=MOST), (FLOW, (255, 0xFFFFFF), MOST, MOST), id="all ones"
    ),
    pytest.param(
        expanded_flow_sample(sequence=7, source=(1, 1 << 24), drops=9), (FLOW, (1, 1 << 24), 7, 9), id="flow, expanded"
    ),
    pytest.param(
        counter_builders.counters_sample(sequence=7, source=5, source_class=2),
        (COUNTERS, (2, 5), 7, None),
        id="counters",
    ),
    pytest.param(
        counter_builders.counters_sample(sequence=7, source=1 << 24, source_class=3, expanded=True),
        (COUNTERS, (3, 1 << 24), 7, None),
        id="counters, expanded",
    ),
    pytest.param(
        discarded_packet(sequence=7, source=(0, MOST), drops=9), (DISCARDED, (0, MOST), 7, 9), id="discarded packet"
    ),
]


@pytest.mark.parametrize(("sample", "wanted"), NUMBERED)
def test_each_sample_tells_its_number(sample: bytes, wanted: tuple[Any, ...]) -> None:
    """By which data source it is, in which form ever, and what the agent says it has dropped."""
    decoded = Collector().feed(datagram(sample, agent="203.0.113.1", sub_agent=4), datagram(sample, agent=None))
    assert numbered(decoded) == [("192.0.2.100", 0, *wanted), ("203.0.113.1", 4, *wanted)]
    (part,) = decoded.samples
    assert part.headers.uptime_ms is not None
    assert part.headers.uptime_ms.tolist() == [UPTIME_MS] * 2


def test_samples_that_cannot_be_read_have_no_number() -> None:
    """They look lost, which they are; those beside them have theirs."""
    samples = [
        flow_sample(sequence=1),
        tagged(1, b"short"),
        counters_sample(sequence=3),
        tagged(2, b""),
        tagged(9, b""),
    ]
    for cut in range(len(flow_sample(sequence=5))):
        payload = datagram(*samples, flow_sample(sequence=5))
        decoded = Collector().feed(payload[: len(payload) - cut] if cut else payload)
        told = [(kind, number) for _, _, kind, _, number, _ in numbered(decoded)]
        assert told == ([(FLOW, 1), (FLOW, 5), (COUNTERS, 3)] if cut == 0 else [(FLOW, 1), (COUNTERS, 3)])


def test_protocols_share_a_batch() -> None:
    """Datagrams of sFlow and of NetFlow beside one another are each read by their own version."""
    sflow, netflow = datagram(flow_sample(switch(1, 2)), agent=AGENT), v5_datagram(v5_record())
    decoded = Collector().feed(sflow, netflow, sflow[:-1], netflow)
    assert [row["type"] for row in rows(decoded)].count("NETFLOW_V5") == 2
    assert [row["type"] for row in rows(decoded)].count("SFLOW_5") == 1
    assert decoded.version.tolist() == [0, 5, 0, 5]


@pytest.mark.parametrize("version", [0, 1, 2, 4, 6, 0xFFFF])
def test_other_versions_of_sflow_are_not_known(version: int) -> None:
    """Version 5 is read and no other."""
    decoded = Collector().feed(datagram(flow_sample(), version=version, agent=AGENT))
    assert faults(decoded) == {(Fault.UNKNOWN_VERSION, Unit.DATAGRAMS): 1}
    assert decoded.version.tolist() == [0xFFFF]


# --- what is broken


RICH: Final = datagram(
    flow_sample(sampled_header(ethernet(vlan(10, ipv4_packet(tcp())))), switch(10, 20), router("203.0.113.1", 24, 16)),
    expanded_flow_sample(
        gateway(path=PATH, communities=(1, 2)), user("alice", "bob"), mpls_record("203.0.113.2", (5,))
    ),
    counters_sample(),
    discarded_packet(ip_record(src=SRC6, dst=DST6), nat("203.0.113.7", "2001:db8::8"), nat_ports(1, 2), reason=257),
    flow_sample(socket(), tunnel_vni(9), tagged(1037, OTHER_RECORDS[1037])),
    agent="2001:db8::a",
)


def test_a_datagram_cut_at_any_byte_gives_the_samples_that_are_whole() -> None:
    """What lies before the cut is read as ever, and what is cut is counted once, alone or beside all other cuts."""
    collector = Collector()
    whole = [told(row) for row in rows(collector.feed(RICH))]
    assert len(whole) == 4
    cuts = [RICH[:size] for size in range(len(RICH) + 1)]
    together = Datagrams.pack(cuts, [mapped(AGENT)] * len(cuts), [6343] * len(cuts), range(len(cuts)))
    decoded = collector.take(together)
    found: list[list[Row]] = [[] for _ in cuts]
    for row in rows(decoded):
        found[row["time_received"]].append(told(row))
    assert found[-1] == whole
    assert all(row in whole for each in found for row in each)
    numbers = [len(each) for each in found]
    assert numbers == sorted(numbers)
    assert sum((*decoded.faults.values(), *decoded.oddities.values())) == len(RICH)
    for size in range(0, len(RICH), 5):
        decoded = collector.feed(cuts[size])
        assert [told(row) for row in rows(decoded)] == found[size]
        assert sum((*decoded.faults.values(), *decoded.oddities.values())) == 1


def test_a_sample_cut_at_any_byte_is_lost_alone() -> None:
    """When a sample says that it ends early, what it holds is read up to there, and the samples beside it are whole."""
    records = (sampled_header(ethernet(ipv4_packet(tcp()))), gateway(path=PATH, communities=(1,)), user("alice"))
    collector, content = Collector(), flow_sample(*records)[8:]
    full = told(one(fed(flow_sample(*records))))
    before, after = flow_sample(switch(1, 2)), discarded_packet(reason=300)
    for size in range(len(content)):
        decoded = collector.feed(datagram(before, tagged(make.FLOW, content[:size]), after, agent=AGENT))
        found = rows(decoded)
        assert [row["src_vlan"] for row in found if "src_vlan" in row] == [1]
        assert [row["drop_reason"] for row in found if "drop_reason" in row] == [300]
        assert len(found) == 2 + (size >= 32)
        for row in found:
            if not {"src_vlan", "drop_reason"} & row.keys():
                assert told(row).items() <= full.items()
        assert sum((*decoded.faults.values(), *decoded.oddities.values())) == 1


@OF_RECORDS
def test_a_record_cut_at_any_byte_says_no_more_than_the_whole(record: bytes, expected: Row) -> None:
    """A record that ends early is counted, unless what is missing has no column; the one behind it is read."""
    tag, body, collector = int.from_bytes(record[:4]), record[8:], Collector()
    for size in range(len(body)):
        sample = flow_sample(tagged(tag, body[:size]), tunnel_vni(77), rate=0, input_if=0, output_if=0)
        decoded = collector.feed(datagram(sample, agent=AGENT))
        row = told(one(decoded))
        assert (row.pop("packets"), row.pop("vni")) == (1, 77)
        assert all(expected[name] == value for name, value in row.items())
        assert sum(decoded.faults.values()) == 1 or (row == expected and nothing_wrong(decoded))
        assert not decoded.oddities


HEADERS = [
    pytest.param(b"\0", (Fault.TRUNCATED, Unit.DATAGRAMS), id="one byte"),
    pytest.param(words(5)[:3], (Fault.UNKNOWN_VERSION, Unit.DATAGRAMS), id="less than a version"),
    pytest.param(words(5), (Fault.TRUNCATED, Unit.DATAGRAMS), id="a version alone"),
    pytest.param(words(5, 1), (Fault.TRUNCATED, Unit.DATAGRAMS), id="no address"),
    pytest.param(words(5, 2, 0, 0, 0, 0, 0, 0, 0), (Fault.TRUNCATED, Unit.DATAGRAMS), id="IPv6, no count"),
    pytest.param(words(5, 3, 0, 0, 0, 0), (Fault.BAD_LENGTH, Unit.DATAGRAMS), id="an address of type 3"),
    pytest.param(words(5, MOST, 0, 0, 0, 0), (Fault.BAD_LENGTH, Unit.DATAGRAMS), id="an address of any type"),
    pytest.param(words(5, MOST), (Fault.BAD_LENGTH, Unit.DATAGRAMS), id="an address of any type, and no more"),
]


@pytest.mark.parametrize(("payload", "fault"), HEADERS)
@BESIDE
def test_a_header_that_cannot_be_read_costs_its_datagram(
    payload: bytes, fault: tuple[Fault, Unit], beside: int
) -> None:
    """Without an agent there is nobody whose sample it could be."""
    others = [datagram(flow_sample(), agent=AGENT, sequence=at) for at in range(beside)]
    decoded = Collector().feed(*others, payload, *others)
    assert faults(decoded) == {fault: 1}
    assert len(rows(decoded)) == 2 * beside


@pytest.mark.parametrize("behind", [b"\0\5" + bytes(14), bytes(16)], ids=["that makes a version", "of zeros"])
def test_a_version_is_not_read_beyond_its_datagram(behind: bytes) -> None:
    """Two bytes are no version of sFlow, whatever an older datagram left behind them in the buffer."""
    buffer = np.frombuffer(bytearray(bytes(16) + b"\0\0" + behind), np.uint8)
    source = np.frombuffer(mapped(AGENT), np.uint8).reshape(1, 16)
    numbers = (np.array([16]), np.array([2]), source, np.array([6343], np.uint16), np.array([RECEIVED_NS]))
    decoded = Collector().take(Datagrams(buffer, *numbers, np.zeros(1, np.int16)))
    assert faults(decoded) == {(Fault.UNKNOWN_VERSION, Unit.DATAGRAMS): 1}


LYING_SAMPLES = [
    pytest.param(tagged(make.FLOW, b""), {BAD_LENGTH: 1}, id="a flow sample of nothing"),
    pytest.param(tagged(make.FLOW, bytes(31)), {BAD_LENGTH: 1}, id="a flow sample too short"),
    pytest.param(tagged(make.EXPANDED_FLOW, bytes(43)), {BAD_LENGTH: 1}, id="an expanded one too short"),
    pytest.param(tagged(make.DISCARDED, bytes(31)), {BAD_LENGTH: 1}, id="a discard too short"),
]


@pytest.mark.parametrize(("sample", "expected"), LYING_SAMPLES)
@BESIDE
def test_a_bad_sample_costs_only_itself(sample: bytes, expected: dict[tuple[Fault, Unit], int], beside: int) -> None:
    """The samples before and behind it are read."""
    good = flow_sample(switch(1, 2))
    decoded = Collector().feed(
        datagram(good, sample, good, agent=AGENT), *(datagram(good, sequence=at) for at in range(beside))
    )
    assert len(rows(decoded)) == 2 + beside
    assert faults(decoded) == expected


ENDLESS = [
    pytest.param(datagram(flow_sample(), count=MOST, agent=AGENT), 1, {}, {Oddity.COUNT_MISMATCH: 1}, id="samples"),
    pytest.param(datagram(count=MOST, agent=AGENT), 0, {}, {Oddity.COUNT_MISMATCH: 1}, id="samples, and none is there"),
    pytest.param(
        datagram(flow_sample(), flow_sample(length=MOST), flow_sample(), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="bytes of a sample",
    ),
    pytest.param(
        datagram(flow_sample(), tagged(99, b"", length=0x7FFFFFFC), flow_sample(), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="bytes of a sample that nobody knows",
    ),
    pytest.param(
        datagram(flow_sample(switch(1, 2), count=MOST), flow_sample(), agent=AGENT),
        2,
        {},
        {Oddity.COUNT_MISMATCH: 1},
        id="records",
    ),
    pytest.param(
        datagram(flow_sample(switch(1, 2), tagged(1, b"", length=MOST), switch(3, 4)), flow_sample(), agent=AGENT),
        2,
        {TRUNCATED: 1},
        {},
        id="bytes of a record",
    ),
    pytest.param(
        datagram(flow_sample(sampled_header(ethernet(ipv4_packet()), length=MOST), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="bytes of a header",
    ),
    pytest.param(
        datagram(flow_sample(sampled_header(bytes(64), length=65), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="one byte of a header",
    ),
    pytest.param(
        datagram(flow_sample(gateway(segments=MOST), switch(1, 2)), agent=AGENT),
        1,
        {(Fault.BAD_COUNT, Unit.SETS): 1},
        {},
        id="segments of a path",
    ),
    pytest.param(
        datagram(flow_sample(gateway(segments=17), switch(1, 2)), agent=AGENT),
        1,
        {(Fault.BAD_COUNT, Unit.SETS): 1},
        {},
        id="one segment of a path more than is read",
    ),
    pytest.param(
        datagram(
            flow_sample(tagged(1003, typed_address(SRC) + words(1, 2, 3, 1, 2, MOST, 7, 8, 9)), switch(1, 2)),
            agent=AGENT,
        ),
        1,
        {TRUNCATED: 1},
        {},
        id="numbers of a path",
    ),
    pytest.param(
        datagram(
            flow_sample(tagged(1003, typed_address(SRC) + words(1, 2, 3, 2, 2, 1, 7, 2, 4, 8, 9)), switch(1, 2)),
            agent=AGENT,
        ),
        1,
        {TRUNCATED: 1},
        {},
        id="numbers of a path's second segment",
    ),
    pytest.param(
        datagram(flow_sample(tagged(1003, typed_address(SRC) + words(1, 2, 3, 0, MOST)), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="communities",
    ),
    pytest.param(
        datagram(flow_sample(make.vlan_tunnel(5, count=MOST), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="tags that were taken off",
    ),
    pytest.param(
        datagram(flow_sample(tagged(1004, words(106, MOST) + b"alice!!!"), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="letters of a name",
    ),
    pytest.param(
        datagram(flow_sample(tagged(1006, typed_address(SRC) + words(MOST, 5)), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="labels",
    ),
    pytest.param(
        datagram(flow_sample(tagged(1002, words(2)), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="bytes of an address",
    ),
    pytest.param(
        datagram(flow_sample(tagged(1007, typed_address(SRC) + words(2)), switch(1, 2)), agent=AGENT),
        1,
        {TRUNCATED: 1},
        {},
        id="bytes of a second address",
    ),
]


@pytest.mark.parametrize(("payload", "count", "expected", "odd"), ENDLESS)
@BESIDE
def test_a_length_or_a_count_that_lies_is_counted_and_costs_what_it_is_of(
    payload: bytes, count: int, expected: dict[tuple[Fault, Unit], int], odd: dict[Oddity, int], beside: int
) -> None:
    """However much is promised, no more than is there is read; nothing is made up from what lies behind."""
    others = [datagram(flow_sample(switch(7, 7)), sequence=at) for at in range(beside)]
    decoded = Collector().feed(*others, payload, *others)
    assert faults(decoded) == expected
    assert dict(decoded.oddities) == odd
    found = [row for row in rows(decoded) if row.get("src_vlan") != 7]
    assert len(found) == count
    assert not {"user_name", "as_path", "dst_as", "bgp_communities", "mpls_labels", "bytes"} & {
        name for row in found for name in row
    }


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(ip_record(proto=0x106), id="protocol"),
        pytest.param(ip_record(src_port=0x10035), id="source port"),
        pytest.param(ip_record(dst_port=MOST), id="destination port"),
        pytest.param(ip_record(tcp_flags=0x10002), id="flags"),
        pytest.param(ip_record(tos=0x100, src=SRC6, dst=DST6), id="priority"),
        pytest.param(ethernet_record(etype=0x10800), id="EtherType"),
        pytest.param(socket(proto=0x111), id="protocol of a socket"),
        pytest.param(socket(port=0x10000), id="port of a socket"),
    ],
)
def test_a_number_too_large_for_its_column_is_null_and_counted(record: bytes) -> None:
    """A word of 32 bits that tells no port is not made one by cutting it."""
    good = said(ip_record(src=SRC6, dst=DST6) if record[3] == 4 else ip_record() if record[3] == 3 else socket())
    decoded = fed(flow_sample(record, rate=0, input_if=0, output_if=0))
    row = told(one(decoded))
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}
    if int.from_bytes(record[:4]) == 2:
        assert row == {"packets": 1, "bytes": 1500, **LINK}
    else:
        assert len(good.keys() - row.keys()) == 1


# --- together and alone


def varied(count: int) -> list[bytes]:
    """Datagrams that differ in everything: samples, records, agents, and what is wrong with them."""
    records = [known.record for known in RECORDS] + [
        sampled_header(sampled.packet, protocol=sampled.protocol) for sampled in PACKETS
    ]
    payloads = []
    for at in range(count):
        chosen = [records[(at * 7 + step * 11) % len(records)] for step in range(at % 5)]
        samples = [
            flow_sample(*chosen, rate=at, output_if=discarded(at) if at % 3 else 4),
            expanded_flow_sample(*chosen[::-1], output_if=(at % 4, at)),
            discarded_packet(*chosen[:1], reason=at),
            counters_sample(),
            tagged(at % 3, bytes(at % 40)),
        ]
        payload = datagram(*samples[: at % 6], agent=(SRC, DST6, None)[at % 3], sub_agent=at % 2, sequence=at)
        payloads.append(payload if at % 4 else payload[: len(payload) - at % 50])
    return payloads


def summed(parts: list[Decoded]) -> tuple[list[Row], dict[str, int]]:
    """The records of several batches in an order of their own, and everything that was counted."""
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update({f"{fault} {unit}": number for (fault, unit), number in part.faults.items()})
        counted.update({str(oddity): number for oddity, number in part.oddities.items()})
        counted.update(part.skipped)
        counted["heard"] += sum(len(heard.sequence) for heard in part.heard)
        counted["records"] += sum(int(heard.records.sum()) for heard in part.heard)
        counted["undecoded"] += sum(int(heard.undecoded.sum()) for heard in part.heard)
    return sorted((row for part in parts for row in in_order(part)), key=lambda row: row["record_id"]), dict(counted)


def test_datagrams_walked_together_give_what_each_gives_alone() -> None:
    """Many datagrams advance together and few are walked one by one: nothing but speed depends on it."""
    payloads = varied(6 * FEW)
    alone = summed([Collector().feed(payload) for payload in payloads])
    assert summed([Collector().feed(*payloads)]) == alone
    assert summed([Collector().feed(*payloads[::-1])]) == alone
    assert len(alone[0]) > 100
    assert len({row["record_id"] for row in alone[0]}) == len(alone[0])


@st.composite
def drawn(draw: st.DrawFn) -> bytes:
    """A datagram of any samples and records, of which some numbers lie and some bytes are changed."""
    record = st.one_of(
        st.sampled_from([known.record for known in RECORDS]),
        st.builds(
            lambda sampled, length: sampled_header(sampled.packet, protocol=sampled.protocol, length=length),
            st.sampled_from(PACKETS),
            st.one_of(st.none(), st.none(), st.integers(0, 200), st.just(MOST)),
        ),
        st.builds(tagged, st.sampled_from([*sorted(kinds.KNOWN_FLOW_RECORDS), 5, 1037]), st.binary(max_size=80)),
    )
    number = st.one_of(st.integers(0, 5), st.integers(0, MOST))
    count = st.one_of(st.none(), st.none(), st.none(), number)
    records = st.lists(record, max_size=4)
    samples = []
    for _ in range(draw(st.integers(0, 4))):
        build: Callable[..., bytes] | None = draw(
            st.sampled_from([flow_sample, expanded_flow_sample, discarded_packet, None])
        )
        if build is None:
            samples.append(tagged(draw(st.integers(0, 6)), draw(st.binary(max_size=60))))
        else:
            samples.append(build(*draw(records), count=draw(count), length=draw(count)))
    agent = draw(st.sampled_from([SRC, DST6, None]))
    payload = bytearray(datagram(*samples, agent=agent, sequence=draw(number), count=draw(count)))
    for at, octet in draw(st.lists(st.tuples(st.integers(8, 400), st.integers(0, 255)), max_size=6)):
        if at < len(payload):
            payload[at] = octet
    return bytes(payload[: draw(st.integers(0, len(payload)))] if draw(st.booleans()) else payload)


ANY: Final = st.one_of(
    drawn(), st.binary(max_size=300), st.binary(max_size=300).map(lambda octets: words(5, 1) + octets)
)
"""Datagrams that are nearly right, and bytes that are not."""


@looked_at(quick=60, long=10_000)
@given(st.lists(ANY, max_size=FEW + 4), st.data())
def test_how_datagrams_fall_into_batches_does_not_matter(payloads: list[bytes], data: st.DataObject) -> None:
    """No bytes raise, every batch is sound, and the records and counts are the same in one batch and in several."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payloads)), max_size=3)))
    parts = [payloads[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(payloads)], strict=True)]
    decapsulate = data.draw(st.sampled_from([(), ("gre", "ipip", "vxlan", "geneve")]))
    split = summed([Collector(decapsulate=decapsulate).feed(*part) for part in parts])
    assert summed([Collector(decapsulate=decapsulate).feed(*payloads)]) == split


@looked_at(quick=60, long=10_000)
@given(st.lists(ANY, min_size=1, max_size=FEW + 4))
def test_nothing_is_read_from_outside_a_datagram(payloads: list[bytes]) -> None:
    """What lies around datagrams in the buffer, such as older ones, changes nothing of what they tell."""
    clean = Collector().feed(*payloads)
    tight = packed(payloads)
    room = 600
    buffer = np.full(len(tight.buffer) + (len(payloads) + 1) * room, 0xA5, np.uint8)
    offset = tight.offset + room * (np.arange(len(payloads)) + 1)
    for at, payload in enumerate(payloads):
        buffer[offset[at] : offset[at] + len(payload)] = np.frombuffer(payload, np.uint8)
    loose = Datagrams(buffer, offset, tight.length, tight.source, tight.source_port, tight.received_ns, tight.listener)
    assert summed([Collector().take(loose)]) == summed([clean])


def test_inner_packets_are_the_flow_in_a_batch_of_many() -> None:
    """With tunnels entered, packets beside them that have none are what they were."""
    inside = make.ethernet(
        ipv4_packet(udp(), src=make.INNER_SRC, dst=make.INNER_DST, ttl=7, identification=5),
        src=make.INNER_SRC_MAC,
        dst=make.INNER_DST_MAC,
    )
    frames = [ethernet(ipv4_packet(tcp())), ethernet(ipv4_packet(vxlan(5, inside))), ethernet(make.ipv6_packet(udp()))]
    expected = [{**LINK, **four(), **TCP}, {**INNER_LINK, **INNER, **UDP, "vni": 5}, {**LINK, **six(), **UDP}]
    samples = [flow_sample(sampled_header(frame, frame_length=64)) for frame in frames] * FEW
    decoded = fed(*samples, decapsulate={"vxlan"})
    found = [told(row) for row in rows(decoded)]
    sample = {"bytes": 64, "packets": 1, "sampling_rate": 512, "in_if": 3, "out_if": 4}
    assert found == [row | sample for row in expected] * FEW


def test_long_names_and_odd_lengths_are_read_across_samples() -> None:
    """Texts that are filled up to a multiple of four begin where the last one ended, whatever its length."""
    names = ["a" * size for size in range(1, 40)]
    decoded = fed(*(flow_sample(user(name, name[::-1]), tagged(1038, opaque(name))) for name in names))
    assert [row["user_name"] for row in rows(decoded)] == names
