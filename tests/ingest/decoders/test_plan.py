"""What becomes of several fields together: preferences, directions, sampling, the columns of the datagram."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest

from ingest.decoders import Oddity
from shared.record import ADDRESS, COLUMN, MAC
from tests.builders import (
    UNIX_SECONDS,
    VARIABLE,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_templates,
    ipv4,
    ipv6,
    mac,
    mapped,
    number,
    template,
    v9_datagram,
    v9_templates,
    variable,
)
from tests.ingest.collector import (
    EXPORTER,
    RECEIVED_NS,
    Collector,
    Row,
    flows,
    in_order,
    nothing_wrong,
    one,
    rows,
    told,
)

V9, IPFIX = 9, 10
BOTH = pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
REVERSE = 29305


# --- which of several elements counts

PREFERENCES = [
    pytest.param([(85, 8, 9), (1, 8, 5)], {"bytes": 5}, id="bytes: a delta before a total"),
    pytest.param([(1, 8, 0), (85, 8, 9)], {"bytes": 0}, id="bytes: a delta of zero is a delta"),
    pytest.param([(23, 8, 7), (85, 8, 9)], {"bytes": 9}, id="bytes: a total before what was sent on"),
    pytest.param([(231, 8, 7), (352, 8, 9)], {"bytes": 9}, id="bytes: layer 2 before the initiator's"),
    pytest.param([(86, 8, 9), (2, 8, 5)], {"packets": 5}, id="packets: a delta before a total"),
    pytest.param([(10, 4, 0), (252, 4, 7)], {"in_if": 7}, id="in_if: the physical one where the logical is 0"),
    pytest.param([(252, 4, 7), (10, 4, 3)], {"in_if": 3}, id="in_if: the logical one first"),
    pytest.param([(14, 4, 0), (253, 4, 7)], {"out_if": 7}, id="out_if: the physical one where the logical is 0"),
    pytest.param([(14, 4, 0), (253, 4, 0)], {"out_if": 0}, id="out_if: zero when both say so"),
    pytest.param([(58, 2, 0), (243, 2, 20)], {"src_vlan": 20}, id="src_vlan: 243 where 58 is 0"),
    pytest.param([(59, 2, 30), (254, 2, 20)], {"dst_vlan": 30}, id="dst_vlan: 59 first"),
    pytest.param([(7, 2, 0), (182, 2, 443)], {"src_port": 443}, id="src_port: TCP's own"),
    pytest.param([(180, 2, 53), (182, 2, 0)], {"src_port": 53}, id="src_port: UDP's beside TCP's of 0"),
    pytest.param([(181, 2, 0), (183, 2, 22)], {"dst_port": 22}, id="dst_port: TCP's beside UDP's of 0"),
    pytest.param([(9, 1, 0), (29, 1, 48)], {"src_net_len": 48}, id="src_net_len: of the family that is not 0"),
    pytest.param([(13, 1, 24), (30, 1, 0)], {"dst_net_len": 24}, id="dst_net_len: of the family that is not 0"),
    pytest.param([(52, 1, 3), (192, 1, 64)], {"ip_ttl": 64}, id="ip_ttl: the packet's before the least"),
    pytest.param([(176, 1, 0), (178, 1, 135)], {"icmp_type": 135}, id="icmp_type: of the family that is not 0"),
]


@pytest.mark.parametrize(("sent", "expected"), PREFERENCES)
@BOTH
def test_of_several_elements_for_a_column_one_counts(
    protocol: int, sent: list[tuple[int, int, int]], expected: Row
) -> None:
    """Where two elements of a template tell of one column, their order there does not matter: one is better."""
    for items in (sent, sent[::-1]):
        fields = [field(element, length) for element, length, _ in items]
        content = b"".join(number(value, length) for _, length, value in items)
        decoded = Collector().feed(flows(protocol, fields, content))
        assert told(one(decoded)) == expected
        assert nothing_wrong(decoded)


def test_the_better_element_is_chosen_for_each_record() -> None:
    """A zero gives way in its own record, and in no other."""
    pairs = [(0, 7), (3, 7), (0, 0), (9, 0)]
    decoded = Collector().feed(
        flows(V9, [field(10, 4), field(252, 4)], *(number(a, 4) + number(b, 4) for a, b in pairs))
    )
    assert [row["in_if"] for row in rows(decoded)] == [7, 3, 0, 9]


def test_a_value_that_does_not_fit_does_not_give_way() -> None:
    """0x10000 is no VLAN, and it is not 0 either: null, whatever the other element says."""
    decoded = Collector().feed(flows(V9, [field(58, 4), field(243, 2)], number(0x10000, 4) + number(5, 2)))
    assert told(one(decoded)) == {}
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}


def test_what_is_empty_gives_way_and_what_is_zero_stays() -> None:
    """Of two numbers of variable length, one that is not there gives way; a zero beside one that is not there stays."""
    fields = [field(10, VARIABLE), field(252, VARIABLE)]
    records = [
        variable(b"") + variable(b"\7"),
        variable(b"\0") + variable(b""),
        variable(b"") + variable(b""),
        variable(b"\3") + variable(b""),
    ]
    decoded = Collector().feed(flows(IPFIX, fields, *records))
    assert [row.get("in_if") for row in rows(decoded)] == [7, 0, None, 3]
    assert nothing_wrong(decoded)


FAMILIES = [
    pytest.param("192.0.2.1", "::", "192.0.2.1", id="IPv4"),
    pytest.param("0.0.0.0", "2001:db8::1", "2001:db8::1", id="IPv6"),
    pytest.param("0.0.0.0", "::", "0.0.0.0", id="neither"),
    pytest.param("192.0.2.1", "2001:db8::1", "192.0.2.1", id="both"),
]


@pytest.mark.parametrize(("four", "six", "expected"), FAMILIES)
@pytest.mark.parametrize("order", [1, -1], ids=["4 then 6", "6 then 4"])
@pytest.mark.parametrize(
    ("v4", "v6", "column"),
    [
        pytest.param(8, 27, "src_addr", id="src_addr"),
        pytest.param(12, 28, "dst_addr", id="dst_addr"),
        pytest.param(15, 62, "next_hop", id="next_hop"),
        pytest.param(18, 63, "bgp_next_hop", id="bgp_next_hop"),
        pytest.param(225, 281, "nat_src_addr", id="nat_src_addr"),
        pytest.param(226, 282, "nat_dst_addr", id="nat_dst_addr"),
    ],
)
def test_of_two_families_the_one_that_is_not_zero_counts(
    v4: int, v6: int, column: str, four: str, six: str, expected: str, order: int
) -> None:
    """A template with both families has zeros in one of them, wherever it stands."""
    sent = [(field(v4, 4), ipv4(four)), (field(v6, 16), ipv6(six))][::order]
    row = one(Collector().feed(flows(V9, [item for item, _ in sent], b"".join(value for _, value in sent))))
    assert row[column] == mapped(expected)
    if column in {"src_addr", "dst_addr"}:
        assert row["etype"] == (0x86DD if ":" in expected else 0x0800)


def test_families_are_told_apart_record_by_record() -> None:
    """One layout may hold IPv4 in one record and IPv6 in the next."""
    fields = [field(8, 4), field(27, 16), field(12, 4), field(28, 16)]
    records = [
        ipv4("192.0.2.1") + bytes(16) + ipv4("192.0.2.2") + bytes(16),
        bytes(4) + ipv6("2001:db8::1") + bytes(4) + ipv6("2001:db8::2"),
    ]
    found = rows(Collector().feed(flows(IPFIX, fields, *records)))
    assert [(row["src_addr"], row["dst_addr"], row["etype"]) for row in found] == [
        (mapped("192.0.2.1"), mapped("192.0.2.2"), 0x0800),
        (mapped("2001:db8::1"), mapped("2001:db8::2"), 0x86DD),
    ]


TWICE = [
    pytest.param([(8, ipv4("10.0.0.1")), (8, ipv4("192.0.2.1"))], {"src_addr": mapped("192.0.2.1")}, id="address"),
    pytest.param([(4, b"\x29"), (4, b"\x06")], {"proto": 6}, id="number"),
    pytest.param([(4, b"\x29"), (4, b"\x00")], {"proto": 0}, id="number, the last is zero"),
    pytest.param([(7, b"\x00\x01"), (7, b"\x00\x00\x00\x02")], {"src_port": 2}, id="number, of two sizes"),
    pytest.param([(371, b"alice"), (371, b"bob")], {"user_name": "bob"}, id="name"),
    pytest.param([(1, b"\1"), (1, b"\2"), (1, b"\3")], {"bytes": 3}, id="three times"),
    pytest.param([(56, mac("02:00:00:00:00:01")), (56, bytes(6))], {"src_mac": bytes(6)}, id="MAC, the last is zero"),
]


@pytest.mark.parametrize(("sent", "expected"), TWICE)
@BOTH
def test_of_an_element_that_stands_twice_the_last_counts(
    protocol: int, sent: list[tuple[int, bytes]], expected: Row
) -> None:
    """The order of a template is that of processing (RFC 7011 §8): with a tunnel the outer header comes first."""
    fields = [field(element, len(content)) for element, content in sent]
    row = told(one(Collector().feed(flows(protocol, fields, b"".join(content for _, content in sent)))))
    row.pop("etype", None)
    assert row == expected


# --- what flowed the other way


def biflow(protocol: int, fields: list[tuple[bytes, bytes]]) -> list[Row]:
    """Records of one datagram, by direction."""
    decoded = Collector().feed(
        flows(protocol, [item for item, _ in fields], b"".join(content for _, content in fields))
    )
    assert nothing_wrong(decoded)
    return sorted(rows(decoded), key=lambda row: row.get("bi_flow_direction", 0))


ENDS = [
    (field(8, 4), ipv4("192.0.2.1")),
    (field(12, 4), ipv4("198.51.100.2")),
    (field(7, 2), number(40000, 2)),
    (field(11, 2), number(443, 2)),
    (field(4, 1), b"\x06"),
]
FORWARD: Row = {
    "src_addr": mapped("192.0.2.1"),
    "dst_addr": mapped("198.51.100.2"),
    "src_port": 40000,
    "dst_port": 443,
}
BACKWARD: Row = {
    "src_addr": mapped("198.51.100.2"),
    "dst_addr": mapped("192.0.2.1"),
    "src_port": 443,
    "dst_port": 40000,
}

COUNTERS = [
    pytest.param(
        V9,
        [(field(231, 4), number(700, 4)), (field(232, 4), number(900, 4))],
        {"bytes": 700},
        {"bytes": 900},
        id="231 and 232 (ASA)",
    ),
    pytest.param(
        IPFIX,
        [
            (field(231, 8), number(700, 8)),
            (field(232, 8), number(900, 8)),
            (field(298, 8), number(7, 8)),
            (field(299, 8), number(9, 8)),
        ],
        {"bytes": 700, "packets": 7},
        {"bytes": 900, "packets": 9},
        id="231, 232, 298 and 299",
    ),
    pytest.param(
        V9,
        [(field(298, 4), number(7, 4)), (field(299, 4), number(9, 4))],
        {"packets": 7},
        {"packets": 9},
        id="298 and 299",
    ),
    pytest.param(
        IPFIX,
        [
            (field(1, 8), number(700, 8)),
            (field(2, 8), number(7, 8)),
            (field(1, 8, enterprise=REVERSE), number(900, 8)),
            (field(2, 8, enterprise=REVERSE), number(9, 8)),
        ],
        {"bytes": 700, "packets": 7},
        {"bytes": 900, "packets": 9},
        id="RFC 5103",
    ),
    pytest.param(
        IPFIX,
        [
            (field(85, 4, enterprise=REVERSE), number(900, 4)),
            (field(85, 4), number(700, 4)),
            (field(86, VARIABLE, enterprise=REVERSE), variable(b"\x09")),
            (field(86, 2), number(7, 2)),
        ],
        {"bytes": 700, "packets": 7},
        {"bytes": 900, "packets": 9},
        id="RFC 5103, totals, reduced and of variable length",
    ),
    pytest.param(
        IPFIX,
        [(field(1, 8), number(0, 8)), (field(1, 8, enterprise=REVERSE), number(900, 8))],
        {"bytes": 0},
        {"bytes": 900},
        id="nothing went forth, something came back",
    ),
    pytest.param(
        V9,
        [
            (field(element, 8), number(value, 8))
            for element, value in ((41106, 700), (42033, 7), (41105, 900), (42034, 9))
        ],
        {"bytes": 700, "packets": 7},
        {"bytes": 900, "packets": 9},
        id="client and server, v9 (AVC)",
    ),
    pytest.param(
        IPFIX,
        [
            (field(element, 8, enterprise=9), number(value, 8))
            for element, value in ((9266, 9), (8337, 900), (9265, 7), (8338, 700))
        ],
        {"bytes": 700, "packets": 7},
        {"bytes": 900, "packets": 9},
        id="client and server, IPFIX (AVC)",
    ),
]


@pytest.mark.parametrize(("protocol", "counters", "forward", "backward"), COUNTERS)
def test_a_flow_of_two_directions_makes_two_records(
    protocol: int, counters: list[tuple[bytes, bytes]], forward: Row, backward: Row
) -> None:
    """Counters of both directions make a record of each; the second has source and destination exchanged."""
    first, second = biflow(protocol, [*ENDS, *counters])
    common = {"etype": 0x0800, "proto": 6}
    assert told(first) == FORWARD | forward | common | {"bi_flow_direction": 1}
    assert told(second) == BACKWARD | backward | common | {"bi_flow_direction": 2}
    assert first["record_id"] != second["record_id"]
    shared = ("type", "time_received", "time_exported", "sampler_address", "observation_domain_id", "sequence_num")
    assert [first[name] for name in shared] == [second[name] for name in shared]


@pytest.mark.parametrize(
    "counters",
    [
        pytest.param([(231, None, 700), (232, None, 0)], id="responder"),
        pytest.param([(298, None, 7), (299, None, 0)], id="responder's packets"),
        pytest.param([(1, None, 700), (1, REVERSE, 0), (2, REVERSE, 0)], id="RFC 5103"),
        pytest.param([(1, None, 700), (6, REVERSE, 0x12)], id="flags alone"),
    ],
)
def test_an_empty_reverse_makes_no_record(counters: list[tuple[int, int | None, int]]) -> None:
    """When nothing came back there is one record, of the initiator."""
    sent = [(field(element, 4, enterprise=pen), number(value, 4)) for element, pen, value in counters]
    (only,) = biflow(IPFIX, [*ENDS, *sent])
    assert only["bi_flow_direction"] == 1
    assert {name: only[name] for name in FORWARD} == FORWARD


def test_each_record_of_a_group_is_doubled_by_itself() -> None:
    """Of several records of one layout those make two in which something came back."""
    fields = [field(8, 4), field(12, 4), field(231, 4), field(232, 4)]
    ends = ipv4("192.0.2.1") + ipv4("198.51.100.2")
    records = [ends + number(go, 4) + number(back, 4) for go, back in ((1, 0), (2, 20), (3, 0), (4, 40))]
    found = rows(Collector().feed(flows(V9, fields, *records)))
    assert sorted((row["bi_flow_direction"], row["bytes"]) for row in found) == [
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (2, 20),
        (2, 40),
    ]
    assert len({row["record_id"] for row in found}) == 6


EXCHANGED = [
    (56, 80, 6, "src_mac", "dst_mac"),
    (58, 59, 2, "src_vlan", "dst_vlan"),
    (16, 17, 4, "src_as", "dst_as"),
    (9, 13, 1, "src_net_len", "dst_net_len"),
    (10, 14, 4, "in_if", "out_if"),
    (234, 235, 4, "ingress_vrf_id", "egress_vrf_id"),
    (227, 228, 2, "nat_src_port", "nat_dst_port"),
    (225, 226, 4, "nat_src_addr", "nat_dst_addr"),
]


@pytest.mark.parametrize("forth", [True, False], ids=["both", "source alone"])
@pytest.mark.parametrize(
    ("one_end", "other_end", "length", "source", "destination"),
    [pytest.param(*item, id=item[3]) for item in EXCHANGED],
)
def test_the_ends_of_the_second_record_are_exchanged(
    one_end: int, other_end: int, length: int, source: str, destination: str, forth: bool
) -> None:
    """What belongs to the source becomes the destination's, and the other way round; what was not said stays unsaid."""
    here, there = bytes(range(1, length + 1)), bytes(range(11, length + 11))
    sent = [(field(one_end, length), here), (field(231, 4), number(1, 4)), (field(232, 4), number(2, 4))]
    if forth:
        sent.append((field(other_end, length), there))
    first, second = biflow(V9, sent)

    def value(content: bytes) -> bytes | int:
        if COLUMN[source].type == ADDRESS:
            return bytes(10) + b"\xff\xff" + content
        return content if COLUMN[source].type == MAC else int.from_bytes(content)

    assert (first.get(source), first.get(destination)) == (value(here), value(there) if forth else None)
    assert (second.get(source), second.get(destination)) == (value(there) if forth else None, value(here))


def test_what_belongs_to_one_direction_is_not_repeated_in_the_other() -> None:
    """Flags and type of service of the second record are its own, or null: those of the first say nothing of it."""
    sent = [
        *ENDS,
        (field(6, 1), b"\x1b"),
        (field(5, 1), b"\x08"),
        (field(1, 4), number(7, 4)),
        (field(1, 4, enterprise=REVERSE), number(9, 4)),
        (field(6, 1, enterprise=REVERSE), b"\x12"),
    ]
    first, second = biflow(IPFIX, sent)
    assert (first["tcp_flags"], first["ip_tos"]) == (0x1B, 8)
    assert (second["tcp_flags"], second.get("ip_tos")) == (0x12, None)


def test_the_second_record_may_have_times_of_its_own() -> None:
    """Reverse time elements are the second record's; without them it has those of the first."""
    start, late = UNIX_SECONDS * 1000 - 5000, UNIX_SECONDS * 1000 - 4000
    sent = [
        (field(152, 8), number(start, 8)),
        (field(153, 8), number(late + 500, 8)),
        (field(1, 4), number(7, 4)),
        (field(1, 4, enterprise=REVERSE), number(9, 4)),
        (field(152, 8, enterprise=REVERSE), number(late, 8)),
    ]
    first, second = biflow(IPFIX, sent)
    assert (first["time_flow_start"], first["time_flow_end"]) == (start * 10**6, (late + 500) * 10**6)
    assert (second["time_flow_start"], second["time_flow_end"]) == (late * 10**6, (late + 500) * 10**6)


def test_a_short_232_is_no_counter() -> None:
    """Huawei sends 232 with two bytes for something else."""
    (only,) = biflow(V9, [*ENDS, (field(1, 4), number(5, 4)), (field(232, 2), number(9, 2))])
    assert only["bytes"] == 5
    assert "bi_flow_direction" not in only


def test_239_tells_the_direction_of_a_record_with_one() -> None:
    """Without counters of the other direction, 239 is taken as it is."""
    (only,) = biflow(IPFIX, [*ENDS, (field(239, 1), b"\x02")])
    assert only["bi_flow_direction"] == 2


# --- the sampling rate

PROBABILITY = struct.pack("!d", 1 / 400)
RATES = [
    pytest.param([(309, number(1, 4)), (310, number(256, 4))], 256, id="309 and 310"),
    pytest.param([(309, number(3, 4)), (310, number(300, 4))], 100, id="309 and 310, n of N"),
    pytest.param([(305, number(1, 4)), (306, number(999, 4))], 1000, id="305 and 306"),
    pytest.param([(305, number(10, 4)), (306, number(990, 4))], 100, id="305 and 306, ten taken"),
    pytest.param([(305, number(1, 4)), (306, number(0, 4))], 1, id="305 and 306, none skipped"),
    pytest.param([(305, number(1024, 4))], None, id="305 alone proves nothing"),
    pytest.param([(306, number(1024, 4))], None, id="306 alone proves nothing"),
    pytest.param([(309, number(1, 4))], None, id="309 alone proves nothing"),
    pytest.param([(310, number(1, 4))], None, id="310 alone proves nothing"),
    pytest.param([(311, PROBABILITY)], 400, id="311"),
    pytest.param([(311, struct.pack("!f", 0.5))], 2, id="311, reduced"),
    pytest.param([(311, struct.pack("!d", 0.0))], None, id="311, zero"),
    pytest.param([(311, struct.pack("!d", -1.0))], None, id="311, negative"),
    pytest.param([(311, struct.pack("!d", 2.0))], None, id="311, more than all"),
    pytest.param([(311, struct.pack("!d", float("nan")))], None, id="311, not a number"),
    pytest.param([(50, number(100, 4))], 100, id="50"),
    pytest.param([(34, number(100, 4))], 100, id="34"),
    pytest.param([(34, number(100, 2))], 100, id="34, reduced"),
    pytest.param([(34, number(1, 4))], 1, id="34, unsampled"),
    pytest.param([(34, number(0, 4))], None, id="34, zero is unknown"),
    pytest.param([(50, number(0, 4)), (34, number(0, 4))], None, id="50 and 34, zero is unknown"),
    pytest.param([(34, number(7, 4)), (50, number(100, 4))], 100, id="50 before 34"),
    pytest.param([(34, number(7, 4)), (50, number(0, 4))], 7, id="34 where 50 is zero"),
    pytest.param([(34, number(7, 4)), (311, PROBABILITY), (50, number(9, 4))], 400, id="311 before 50 and 34"),
    pytest.param([(311, PROBABILITY), (305, number(1, 4)), (306, number(9, 4))], 10, id="305 and 306 before 311"),
    pytest.param(
        [(305, number(1, 4)), (306, number(9, 4)), (309, number(1, 4)), (310, number(256, 4))],
        256,
        id="309 and 310 before 305 and 306",
    ),
    pytest.param(
        [(304, number(3, 2)), (309, number(1, 4)), (310, number(256, 4)), (305, number(1, 4))], 256, id="IOS-XR"
    ),
    pytest.param([(305, number(1, 4)), (50, number(128, 4))], 128, id="305 alone beside 50"),
    pytest.param([(309, number(0, 4)), (310, number(256, 4)), (34, number(5, 4))], 5, id="none of 256 is nothing"),
    pytest.param([(35, number(2, 1)), (48, number(1, 1))], None, id="an algorithm and a sampler are no rate"),
]


@pytest.mark.parametrize(("sent", "expected"), RATES)
@BOTH
def test_the_record_itself_may_tell_its_rate(
    protocol: int, sent: list[tuple[int, bytes]], expected: int | None
) -> None:
    """N of 1:N by 309/310, (305+306)/305, 311, 50 or 34, the first that says something; else unknown, which is null."""
    for items in (sent, sent[::-1]):
        fields = [field(element, len(content)) for element, content in items]
        decoded = Collector().feed(flows(protocol, fields, b"".join(content for _, content in items)))
        assert told(one(decoded)) == ({} if expected is None else {"sampling_rate": expected})
        assert nothing_wrong(decoded)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([(34, number(1 << 32, 8))], id="34"),
        pytest.param([(309, number(1, 8)), (310, number(1 << 40, 8))], id="309 and 310"),
        pytest.param([(311, struct.pack("!d", 1e-12))], id="311"),
        pytest.param([(311, struct.pack("!d", 5e-324))], id="311, as small as can be"),
    ],
)
def test_a_rate_that_does_not_fit_is_unknown_and_counted(sent: list[tuple[int, bytes]]) -> None:
    """A rate beyond 32 bits is null, and counted as out of range."""
    fields = [field(element, len(content)) for element, content in sent]
    decoded = Collector().feed(flows(IPFIX, fields, b"".join(content for _, content in sent)))
    assert told(one(decoded)) == {}
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}


def test_records_of_one_layout_have_rates_of_their_own() -> None:
    """Zero is unknown in its own record alone."""
    decoded = Collector().feed(flows(V9, [field(34, 4)], number(10, 4), number(0, 4), number(30, 4)))
    assert [row.get("sampling_rate") for row in rows(decoded)] == [10, None, 30]


def test_counters_are_not_multiplied_by_the_rate() -> None:
    """Bytes and packets are as exported."""
    fields = [field(1, 4), field(2, 4), field(34, 4)]
    row = one(Collector().feed(flows(V9, fields, number(1500, 4) + number(2, 4) + number(1000, 4))))
    assert (row["bytes"], row["packets"], row["sampling_rate"]) == (1500, 2, 1000)


# --- the datagram's columns


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(
            v9_datagram(
                v9_templates(template(256, field(5, 1))),
                data_set(256, b"\x2a"),
                sequence=0xFFFFFFFE,
                source_id=0x80000007,
            ),
            {"type": "NETFLOW_V9", "observation_domain_id": 0x80000007, "sequence_num": 0xFFFFFFFE},
            id="v9",
        ),
        pytest.param(
            ipfix_message(
                ipfix_templates(template(256, field(5, 1))),
                data_set(256, b"\x2a"),
                sequence=0xFFFFFFFE,
                domain=0x80000007,
            ),
            {"type": "IPFIX", "observation_domain_id": 0x80000007, "sequence_num": 0xFFFFFFFE},
            id="ipfix",
        ),
    ],
)
def test_every_record_carries_what_its_datagram_told(payload: bytes, expected: Row) -> None:
    """Protocol, exporter, domain, sequence and both times are repeated over the records of a datagram."""
    row = one(Collector().feed(payload, source=mapped("2001:db8::99")))
    assert {name: row[name] for name in expected} == expected
    assert row["sampler_address"] == mapped("2001:db8::99")
    assert row["time_received"] == RECEIVED_NS
    assert row["time_exported"] == UNIX_SECONDS * 1000
    assert "source_address" not in row
    assert row["flows"] == 1


def test_datagrams_of_one_layout_keep_apart_what_they_told() -> None:
    """Records of several datagrams decode together, each with its own header's values."""
    collector = Collector()
    payloads = [
        v9_datagram(
            v9_templates(template(256, field(1, 4))),
            data_set(256, *(number(100 * which + place, 4) for place in range(which))),
            sequence=1000 + which,
            source_id=which,
            unix_seconds=UNIX_SECONDS + which,
        )
        for which in range(1, 30)
    ]
    decoded = collector.feed(*payloads)
    assert len(decoded.batches) == 1
    found = {(row["bytes"]): row for row in rows(decoded)}
    assert len(found) == sum(range(1, 30))
    for value, row in found.items():
        which = value // 100
        assert row["sequence_num"] == 1000 + which
        assert row["observation_domain_id"] == which
        assert row["time_exported"] == (UNIX_SECONDS + which) * 1000
        assert row["sampler_address"] == EXPORTER


def test_flows_is_one_unless_the_exporter_aggregates() -> None:
    """3 tells how many flows a record stands for; without it a record is one."""
    found = rows(Collector().feed(flows(V9, [field(3, 4)], number(12, 4), number(0, 4))))
    assert [row["flows"] for row in found] == [12, 0]


# --- identity


def test_each_record_has_an_identity_of_its_own() -> None:
    """Records that are equal in every byte still differ in where they lie."""
    decoded = Collector().feed(flows(V9, [field(5, 1)], *([b"\x2a"] * 500)))
    assert len({row["record_id"] for row in rows(decoded)}) == 500


def test_a_mirrored_datagram_has_the_same_identities() -> None:
    """The same bytes from the same exporter give the same ids, whoever decodes them and whenever they came."""
    payload = flows(IPFIX, [field(8, 4), field(1, 4)], *(ipv4("192.0.2.1") + number(n, 4) for n in range(9)))
    first = in_order(Collector().feed(payload))
    again = in_order(Collector().feed(flows(IPFIX, [field(5, 1)], b"\0"), payload, received_ns=RECEIVED_NS + 10**12))
    ids = [row["record_id"] for row in first]
    assert set(ids) <= {row["record_id"] for row in again}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"sequence": 2}, id="sequence"),
        pytest.param({"unix_seconds": UNIX_SECONDS + 1}, id="export time"),
        pytest.param({"domain": 1}, id="domain"),
    ],
)
def test_another_datagram_has_other_identities(other: dict[str, int]) -> None:
    """A datagram that differs in one header field alone shares no id."""
    sets = (ipfix_templates(template(256, field(5, 1))), data_set(256, *([b"\x2a"] * 100)))
    common: dict[str, int] = {"sequence": 1}
    one_side = rows(Collector().feed(ipfix_message(*sets, **common)))
    other_side = rows(Collector().feed(ipfix_message(*sets, **(common | other))))
    assert not {row["record_id"] for row in one_side} & {row["record_id"] for row in other_side}


def test_another_exporter_has_other_identities() -> None:
    """The same bytes from two exporters are two observations."""
    payload = flows(V9, [field(5, 1)], *([b"\x2a"] * 100))
    ids = [
        {row["record_id"] for row in rows(Collector().feed(payload, source=mapped(source)))}
        for source in ("192.0.2.1", "192.0.2.2", "2001:db8::1")
    ]
    assert len(set.union(*ids)) == 300


def test_names_are_dictionaries() -> None:
    """A column of names is int32 indices into its distinct names, for fields of fixed length too."""
    decoded = Collector().feed(flows(V9, [field(96, 8)], *(fixed(name, 8) for name in ("dns", "http", "dns"))))
    (batch,) = decoded.batches
    assert batch.column("application_name").type == pa.dictionary(pa.int32(), pa.utf8())
    assert batch.column("application_name").to_pylist() == ["dns", "http", "dns"]


# --- names that a record brings

NAMED_INTERFACES = [
    pytest.param([10, 82, 14, 82], {"in_if_name": "eth0", "out_if_name": "eth1"}, id="each behind its interface"),
    pytest.param([14, 82, 10, 82], {"in_if_name": "eth1", "out_if_name": "eth0"}, id="the output first"),
    pytest.param([10, 14, 82], {"in_if_name": None, "out_if_name": "eth0"}, id="one name"),
    pytest.param([82, 10], {"in_if_name": None}, id="a name before any interface"),
]


@BOTH
@pytest.mark.parametrize(("elements", "expected"), NAMED_INTERFACES)
def test_a_name_of_an_interface_is_that_of_the_one_before_it(protocol: int, elements: list[int], expected: Row) -> None:
    """Open vSwitch sends element 82 behind the number of each interface, in every record."""
    names = iter(("eth0", "eth1"))
    specified = [field(element, 8 if element == 82 else 4) for element in elements]
    record = b"".join(fixed(next(names), 8) if element == 82 else number(7, 4) for element in elements)
    if protocol == V9:
        datagram = v9_datagram(v9_templates(template(256, *specified)), data_set(256, record))
    else:
        datagram = ipfix_message(ipfix_templates(template(256, *specified)), data_set(256, record))
    row = one(Collector().feed(datagram))
    assert {name: row.get(name) for name in expected} == expected
