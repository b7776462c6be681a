"""Structured data: what lists inside records tell, and what those cost that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.decoders import Datagrams, Fault, Oddity, Unit
from ingest.decoders.lists import DEEPEST, MOST_KINDS
from tests.builders import (
    UNIX_SECONDS,
    VARIABLE,
    basic_list,
    data_set,
    field,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipfix_templates,
    ipv4,
    ipv6,
    list_entry,
    mac,
    mapped,
    number,
    sub_template_list,
    sub_template_multi_list,
    template,
    variable,
)
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, Row, faults, flows, nothing_wrong, one, rows, told
from tests.ingest.decoders.known_elements import IPFIX, V9

BASIC, SUB_TEMPLATE, SUB_TEMPLATES = 291, 292, 293
OUTER, PORTS, NAMES, MACS = 256, 300, 301, 302
INNER = (
    template(PORTS, field(7, 2), field(11, 2)),
    template(NAMES, field(371, VARIABLE), field(4, 1)),
    template(MACS, field(56, 6), field(80, 6), field(7, 2)),
)
"""Templates that lists refer to: of fixed length, of variable length, and one that shares an element with the first."""
PORTS_1, PORTS_2 = number(1001, 2) + number(443, 2), number(1002, 2) + number(444, 2)
ALICE, BOB = variable("alice") + b"\6", variable("bob") + b"\x11"
MACS_1 = mac("02:00:5e:10:00:01") + mac("02:00:5e:10:00:02") + number(1003, 2)
PORTS_COLUMNS = {"src_port": 1001, "dst_port": 443}
NAMES_COLUMNS = {"user_name": "alice", "proto": 6}
MACS_COLUMNS = {"src_mac": mac("02:00:5e:10:00:01"), "dst_mac": mac("02:00:5e:10:00:02")}
OWN = {"src_addr": mapped("192.0.2.1"), "etype": 0x0800, "ip_tos": 42}


def with_lists(*lists: tuple[int, bytes], inner: tuple[bytes, ...] = INNER) -> bytes:
    """A message with templates for the lists, and one record: an address, lists of variable length, and a byte."""
    fields = [field(8, 4), *(field(element, VARIABLE) for element, _ in lists), field(5, 1)]
    record = ipv4("192.0.2.1") + b"".join(variable(content) for _, content in lists) + b"\x2a"
    return ipfix_message(ipfix_templates(*inner, template(OUTER, *fields)), data_set(OUTER, record))


LISTS: list[Any] = [
    pytest.param((BASIC, basic_list(7, 2, number(1001, 2))), {"src_port": 1001}, id="basic: a number"),
    pytest.param((BASIC, basic_list(7, 2, number(1001, 2), number(2, 2))), {"src_port": 1001}, id="basic: the first"),
    pytest.param((BASIC, basic_list(10, 2, number(7, 2))), {"in_if": 7}, id="basic: reduced"),
    pytest.param((BASIC, basic_list(15, 4, ipv4("192.0.2.9"))), {"next_hop": mapped("192.0.2.9")}, id="basic: IPv4"),
    pytest.param(
        (BASIC, basic_list(62, 16, ipv6("2001:db8::9"))), {"next_hop": mapped("2001:db8::9")}, id="basic: IPv6"
    ),
    pytest.param(
        (BASIC, basic_list(56, 6, mac("02:00:5e:10:00:01"))), {"src_mac": mac("02:00:5e:10:00:01")}, id="basic: MAC"
    ),
    pytest.param((BASIC, basic_list(371, 5, b"alice", b"bob\0\0")), {"user_name": "alice"}, id="basic: name"),
    pytest.param((BASIC, basic_list(147, 4, b"cafe")), {"wlan_ssid": "cafe"}, id="basic: text"),
    pytest.param(
        (BASIC, basic_list(371, VARIABLE, variable("alice"), variable("bob"))),
        {"user_name": "alice"},
        id="basic: values of variable length",
    ),
    pytest.param(
        (BASIC, basic_list(371, VARIABLE, variable("a" * 10, long_form=True))),
        {"user_name": "a" * 10},
        id="basic: a long length",
    ),
    pytest.param((BASIC, basic_list(95, 4, bytes.fromhex("0d0001c5"))), {"application_id": "13:453"}, id="basic: 95"),
    pytest.param(
        (BASIC, basic_list(12240, 2, number(99, 2), enterprise=9)), {"src_port": 99}, id="basic: an enterprise's"
    ),
    pytest.param((BASIC, basic_list(5000, 2, b"ab")), {}, id="basic: not known"),
    pytest.param((BASIC, basic_list(1, 8, bytes(8), enterprise=32473)), {}, id="basic: an enterprise's, not known"),
    pytest.param((BASIC, basic_list(7, 2)), {}, id="basic: no value"),
    pytest.param((BASIC, basic_list(7, 0)), {}, id="basic: no value and no length"),
    pytest.param((BASIC, b""), {}, id="basic: nothing at all"),
    pytest.param((SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1)), PORTS_COLUMNS, id="one template"),
    pytest.param((SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1, PORTS_2)), PORTS_COLUMNS, id="the first record"),
    pytest.param((SUB_TEMPLATE, sub_template_list(NAMES, ALICE, BOB)), NAMES_COLUMNS, id="of variable length"),
    pytest.param((SUB_TEMPLATE, sub_template_list(PORTS)), {}, id="one template: no record"),
    pytest.param((SUB_TEMPLATE, sub_template_list(999)), {}, id="one template, not known: no record"),
    pytest.param((SUB_TEMPLATE, b""), {}, id="one template: nothing at all"),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1, PORTS_2), list_entry(NAMES, ALICE))),
        PORTS_COLUMNS | NAMES_COLUMNS,
        id="several: of each entry the first",
    ),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(MACS, MACS_1))),
        PORTS_COLUMNS | MACS_COLUMNS,
        id="several: what the first entry says stands",
    ),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(MACS, MACS_1), list_entry(PORTS, PORTS_1))),
        PORTS_COLUMNS | MACS_COLUMNS | {"src_port": 1003},
        id="several: whichever is first",
    ),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(PORTS, PORTS_2))),
        PORTS_COLUMNS,
        id="several: of one template",
    ),
    pytest.param((SUB_TEMPLATES, sub_template_multi_list()), {}, id="several: no entry"),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS), list_entry(PORTS, PORTS_1))),
        PORTS_COLUMNS,
        id="several: an entry without a record",
    ),
    pytest.param((SUB_TEMPLATES, sub_template_multi_list(bytes(5))), {}, id="several: zeros are padding"),
]


@pytest.mark.parametrize(("content", "expected"), LISTS)
def test_a_list_fills_what_its_record_leaves_open(content: tuple[int, bytes], expected: Row) -> None:
    """The first element, record, or record of each entry gives columns that the record around it has not."""
    decoded = Collector().feed(with_lists(content))
    assert told(one(decoded)) == OWN | expected
    assert nothing_wrong(decoded)


@pytest.mark.parametrize("copies", [1, 40], ids=["one by one", "in lockstep"])
@pytest.mark.parametrize(("content", "expected"), LISTS)
def test_lists_of_many_records_are_read_together(content: tuple[int, bytes], expected: Row, copies: int) -> None:
    """Records with lists and without, of many datagrams: each has what its own lists say."""
    ports = [number(20_000 + at, 2) for at in range(3)]
    fields = [field(content[0], VARIABLE), field(5, 1), field(BASIC, VARIABLE)]
    records = [
        variable(content[1]) + bytes([at]) + variable(basic_list(11, 2, port)) for at, port in enumerate(ports)
    ] + [variable(b"") + bytes([9]) + variable(b"")]
    templates = ipfix_templates(*INNER, template(OUTER, *fields))
    decoded = Collector().feed(*(ipfix_message(templates, data_set(OUTER, *records)) for _ in range(copies)))
    assert nothing_wrong(decoded)
    assert decoded.records == 4 * copies
    for row in map(told, rows(decoded)):
        tos = row.pop("ip_tos")
        ports_of_row = {} if tos == 9 else {"dst_port": 20_000 + tos}
        assert row == ({} if tos == 9 else ports_of_row | expected)


def test_what_a_record_says_itself_stands() -> None:
    """A list gives way to elements of its record, whatever their order in the template and even when they are 0."""
    fields = [field(BASIC, VARIABLE), field(7, 2), field(SUB_TEMPLATE, VARIABLE), field(11, 2)]
    record = variable(basic_list(7, 2, number(5, 2))) + number(0, 2)
    record += variable(sub_template_list(PORTS, PORTS_1)) + number(22, 2)
    payload = ipfix_message(ipfix_templates(*INNER, template(OUTER, *fields)), data_set(OUTER, record))
    assert told(one(Collector().feed(payload))) == {"src_port": 0, "dst_port": 22}


def test_a_list_fills_a_column_in_the_records_that_leave_it_open() -> None:
    """A field of variable length that is empty is filled from the list of its own record, and from no other."""
    fields = [field(7, VARIABLE), field(371, VARIABLE), field(SUB_TEMPLATES, VARIABLE)]
    names, ports = list_entry(NAMES, ALICE), list_entry(PORTS, PORTS_1)
    records = [
        variable(number(5, 2)) + variable("carol") + variable(sub_template_multi_list(names, ports)),
        variable(b"") + variable(b"") + variable(sub_template_multi_list(names, ports)),
        variable(b"") + variable(b"") + variable(sub_template_multi_list(ports)),
        variable(b"") + variable(b"") + variable(b""),
    ]
    payload = ipfix_message(ipfix_templates(*INNER, template(OUTER, *fields)), data_set(OUTER, *records))
    found = [told(row) for row in rows(Collector().feed(payload))]
    assert found == [
        {"src_port": 5, "user_name": "carol", "proto": 6, "dst_port": 443},
        {"src_port": 1001, "user_name": "alice", "proto": 6, "dst_port": 443},
        {"src_port": 1001, "dst_port": 443},
        {},
    ]


def test_of_several_lists_the_earlier_field_counts() -> None:
    """Lists count in the order of the template; a later one fills what the earlier ones leave open."""
    first, second = (BASIC, basic_list(7, 2, number(7, 2))), (SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1))
    assert one(Collector().feed(with_lists(first, second)))["src_port"] == 7
    row = one(Collector().feed(with_lists(second, first)))
    assert (row["src_port"], row["dst_port"]) == (1001, 443)
    twice = [(BASIC, basic_list(7, 2, number(port, 2))) for port in (8, 9)]
    assert one(Collector().feed(with_lists(*twice)))["src_port"] == 8


def test_a_list_may_be_of_fixed_length() -> None:
    """A template may give a list a length of its own; records then lie side by side."""
    content = basic_list(7, 2, number(7, 2), number(8, 2))
    fields = [field(BASIC, len(content)), field(5, 1)]
    other = basic_list(11, 2, number(9, 2), number(8, 2))
    decoded = Collector().feed(flows(IPFIX, fields, content + b"\1", other + b"\2"))
    assert [told(row) for row in rows(decoded)] == [{"src_port": 7, "ip_tos": 1}, {"dst_port": 9, "ip_tos": 2}]
    assert nothing_wrong(decoded)


COMMUNITIES = (64496 << 16 | 100, 64496 << 16 | 200, 0xFFFFFF01)
OTHERS = (64499 << 16 | 1,)


def communities(*values: int) -> bytes:
    """A basic list of BGP communities."""
    return basic_list(483, 4, *(number(value, 4) for value in values))


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param([(BASIC, communities(*COMMUNITIES))], COMMUNITIES, id="291 of 483"),
        pytest.param([(485, communities(*COMMUNITIES))], COMMUNITIES, id="485, of the destination"),
        pytest.param([(484, communities(*COMMUNITIES))], COMMUNITIES, id="484, of the source"),
        pytest.param([(484, communities(*OTHERS)), (485, communities(*COMMUNITIES))], COMMUNITIES, id="485 before 484"),
        pytest.param([(BASIC, communities(*OTHERS)), (485, communities(*COMMUNITIES))], COMMUNITIES, id="485 first"),
        pytest.param([(484, communities(*OTHERS)), (BASIC, communities(*COMMUNITIES))], COMMUNITIES, id="484 last"),
        pytest.param([(485, communities()), (484, communities(*OTHERS))], OTHERS, id="484 where 485 is empty"),
        pytest.param([(485, communities())], None, id="none"),
    ],
)
def test_communities_are_taken_whole(lists: list[tuple[int, bytes]], expected: tuple[int, ...] | None) -> None:
    """A basic list of element 483 is the column `bgp_communities`, all of it (RFC 8549)."""
    row = one(Collector().feed(with_lists(*lists)))
    assert row.get("bgp_communities") == (None if expected is None else list(expected))


def test_each_record_has_its_own_communities() -> None:
    """Lists of different lengths, and none, record by record."""
    lists = [communities(1, 2, 3), communities(), b"", communities(4)]
    decoded = Collector().feed(flows(IPFIX, [field(485, VARIABLE)], *map(variable, lists)))
    assert [row.get("bgp_communities") for row in rows(decoded)] == [[1, 2, 3], None, None, [4]]


def test_a_record_in_a_list_is_read_like_any_other() -> None:
    """Types by port, EtherType, labels, times, the rate and sampled frames are told by records in lists as well."""
    inner = template(400, field(27, 16), field(32, 2), field(70, 3), field(152, 8), field(34, 4), field(3, 4))
    start = UNIX_SECONDS * 1000 - 7000
    record = ipv6("2001:db8::1") + number(0x0301, 2) + bytes.fromhex("01f401") + number(start, 8) + number(100, 4)
    fields = [field(SUB_TEMPLATE, VARIABLE), field(5, 1)]
    payload = ipfix_message(
        ipfix_templates(inner, template(OUTER, *fields)),
        data_set(OUTER, variable(sub_template_list(400, record + number(12, 4))) + b"\1", variable(b"") + b"\2"),
    )
    with_list, without = rows(Collector().feed(payload))
    assert told(with_list) == {
        "src_addr": mapped("2001:db8::1"),
        "etype": 0x86DD,
        "icmp_type": 3,
        "icmp_code": 1,
        "mpls_labels": [0x1F40],
        "sampling_rate": 100,
        "ip_tos": 1,
    }
    assert (with_list["time_flow_start"], with_list["flows"]) == (start * 10**6, 12)
    assert (without["time_flow_start"], without["flows"]) == (UNIX_SECONDS * 10**9, 1)
    assert with_list["time_flow_end"] == UNIX_SECONDS * 10**9


def nested(depth: int, inner: bytes) -> bytes:
    """A basic list of basic lists, so many of them, around a list."""
    return inner if depth == 0 else basic_list(BASIC, VARIABLE, variable(nested(depth - 1, inner)))


def test_lists_in_lists_are_read_to_a_bound() -> None:
    """A list may be in a list in a list; one that is nested deeper than stated costs itself and is counted."""
    innermost = basic_list(7, 2, number(7, 2))
    for depth in range(DEEPEST):
        decoded = Collector().feed(with_lists((BASIC, nested(depth, innermost))))
        assert one(decoded)["src_port"] == 7
        assert nothing_wrong(decoded)
    for depth in (DEEPEST, DEEPEST + 1, 60):
        decoded = Collector().feed(with_lists((BASIC, nested(depth, innermost))))
        assert told(one(decoded)) == OWN
        assert faults(decoded) == {(Fault.LIST_LIMIT, Unit.SETS): 1}


def test_a_list_may_be_in_a_record_of_a_list() -> None:
    """Records in lists have lists of their own, of every form; what they say themselves goes first."""
    inner = (
        *INNER,
        template(400, field(4, 1), field(SUB_TEMPLATES, VARIABLE), field(485, VARIABLE)),
        template(401, field(BASIC, VARIABLE), field(SUB_TEMPLATE, VARIABLE)),
    )
    deepest = variable(basic_list(10, 4, number(3, 4))) + variable(sub_template_list(NAMES, ALICE))
    entries = sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(401, deepest))
    record = b"\x11" + variable(entries) + variable(communities(1, 2))
    decoded = Collector().feed(with_lists((SUB_TEMPLATE, sub_template_list(400, record)), inner=inner))
    expected = {"proto": 0x11, "in_if": 3, "user_name": "alice", "bgp_communities": [1, 2]}
    assert told(one(decoded)) == OWN | PORTS_COLUMNS | expected
    assert nothing_wrong(decoded)


# --- templates


def test_the_template_of_a_list_is_its_exporters_own() -> None:
    """One id means two things in two domains, whose records are decoded together since their own layout is one."""
    fields = template(OUTER, field(SUB_TEMPLATE, VARIABLE))
    record = variable(sub_template_list(PORTS, number(1, 2) + number(2, 2)))
    payloads = [
        ipfix_message(ipfix_templates(fields, inner), data_set(OUTER, record), domain=domain)
        for domain, inner in enumerate(
            [template(PORTS, field(7, 2), field(11, 2)), template(PORTS, field(11, 2), field(7, 2))]
        )
    ]
    decoded = Collector().feed(*payloads)
    assert len(decoded.batches) == 1
    found = {row["observation_domain_id"]: told(row) for row in rows(decoded)}
    assert found == {0: {"src_port": 1, "dst_port": 2}, 1: {"src_port": 2, "dst_port": 1}}


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        pytest.param((SUB_TEMPLATE, sub_template_list(999, PORTS_1)), 1, id="one template"),
        pytest.param(
            (SUB_TEMPLATES, sub_template_multi_list(list_entry(999, b"x"), list_entry(998, b"y"))), 2, id="several"
        ),
        pytest.param((SUB_TEMPLATE, sub_template_list(0, PORTS_1)), 1, id="no template's id"),
    ],
)
def test_a_list_whose_template_is_not_known_costs_itself(content: tuple[int, bytes], lost: int) -> None:
    """The record lives on with its own elements and its other lists; each list, or entry of one, is counted."""
    decoded = Collector().feed(with_lists(content, (BASIC, basic_list(7, 2, number(7, 2)))))
    assert told(one(decoded)) == OWN | {"src_port": 7}
    assert faults(decoded) == {(Fault.UNKNOWN_LIST_TEMPLATE, Unit.SETS): lost}


def test_an_entry_whose_template_is_not_known_costs_no_other_entry() -> None:
    """Entries before and after it are read."""
    entries = [list_entry(PORTS, PORTS_1), list_entry(999, b"xyz"), list_entry(NAMES, ALICE)]
    decoded = Collector().feed(with_lists((SUB_TEMPLATES, sub_template_multi_list(*entries))))
    assert told(one(decoded)) == OWN | PORTS_COLUMNS | NAMES_COLUMNS
    assert faults(decoded) == {(Fault.UNKNOWN_LIST_TEMPLATE, Unit.SETS): 1}


def test_a_template_that_comes_later_in_the_batch_is_used() -> None:
    """As for data sets, a template of a list may come behind what it describes."""
    fields = template(OUTER, field(SUB_TEMPLATE, VARIABLE))
    collector = Collector()
    data = data_set(OUTER, variable(sub_template_list(PORTS, PORTS_1)))
    decoded = collector.feed(ipfix_message(ipfix_templates(fields), data), ipfix_message(ipfix_templates(*INNER)))
    assert told(one(decoded)) == PORTS_COLUMNS
    assert nothing_wrong(decoded)


def test_of_a_template_that_is_redefined_the_newest_is_used() -> None:
    """While a redefinition is not confirmed, lists are read with the new layout."""
    collector = Collector()
    first = with_lists((SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1)))
    collector.feed(first)
    again = template(PORTS, field(11, 2), field(7, 2))
    decoded = collector.feed(with_lists((SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1)), inner=(again,)))
    assert told(one(decoded)) == OWN | {"src_port": 443, "dst_port": 1001}
    assert dict(decoded.oddities) == {Oddity.TEMPLATE_REDEFINED: 1}


def test_records_that_waited_for_their_template_have_their_lists() -> None:
    """A set that was parked is decoded with the templates of its lists, as if it had come now."""
    whole = with_lists((SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(NAMES, ALICE))))
    begin = 16 + int.from_bytes(whole[18:20])
    templates, data = ipfix_message(whole[16:begin]), ipfix_message(whole[begin:])
    collector = Collector()
    assert collector.feed(data).records == 0
    decoded = collector.feed(templates)
    assert told(one(decoded)) == OWN | PORTS_COLUMNS | NAMES_COLUMNS
    assert nothing_wrong(decoded)


def test_an_options_template_describes_no_list() -> None:
    """A list that refers to an options template is one whose template is not known."""
    options = ipfix_options_templates(ipfix_options_template(310, (field(149, 4),), (field(7, 2),)))
    fields = ipfix_templates(template(OUTER, field(SUB_TEMPLATE, VARIABLE)))
    content = variable(sub_template_list(310, number(1, 4) + number(2, 2)))
    decoded = Collector().feed(ipfix_message(options, fields, data_set(OUTER, content)))
    assert told(one(decoded)) == {}
    assert faults(decoded) == {(Fault.UNKNOWN_LIST_TEMPLATE, Unit.SETS): 1}


# --- what cannot be read

BAD: list[Any] = [
    pytest.param((BASIC, b"\3"), id="basic: ends after the semantic"),
    pytest.param((BASIC, b"\3\0\7\0"), id="basic: ends in the length"),
    pytest.param((BASIC, basic_list(7, 2, enterprise=9)[:7]), id="basic: ends in the enterprise number"),
    pytest.param((BASIC, basic_list(7, 0, b"\1\2")), id="basic: values without a length"),
    pytest.param((BASIC, basic_list(7, 2, b"\1\2\3")), id="basic: half a value at the end"),
    pytest.param((BASIC, basic_list(7, 2, b"\1")), id="basic: half a value"),
    pytest.param((BASIC, basic_list(7, 65534, b"\1\2")), id="basic: a value beyond the list"),
    pytest.param((BASIC, basic_list(371, VARIABLE, b"\5al")), id="basic: a name beyond the list"),
    pytest.param((BASIC, basic_list(371, VARIABLE, b"\xff\xff\xff")), id="basic: a long name beyond the list"),
    pytest.param((BASIC, basic_list(371, VARIABLE, b"\xff\0")), id="basic: ends in a long length"),
    pytest.param((BASIC, basic_list(483, 2, b"\1\2")), id="basic: a community of two bytes"),
    pytest.param((BASIC, basic_list(483, VARIABLE, b"\4\0\0\0\1")), id="basic: a community of variable length"),
    pytest.param((SUB_TEMPLATE, b"\3"), id="one template: ends after the semantic"),
    pytest.param((SUB_TEMPLATE, b"\3\1"), id="one template: ends in the id"),
    pytest.param((SUB_TEMPLATE, sub_template_list(PORTS, b"\1\2\3")), id="one template: less than a record"),
    pytest.param((SUB_TEMPLATE, sub_template_list(NAMES, b"\5al")), id="one template: a name beyond the list"),
    pytest.param((SUB_TEMPLATE, sub_template_list(NAMES, b"\xff\xff\xff\6")), id="one template: a length beyond all"),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1, length=9))), id="several: an entry beyond"
    ),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1, length=65535))), id="several: far beyond"
    ),
    pytest.param(
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1, length=3))), id="several: too short"
    ),
    pytest.param((SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1, length=0))), id="several: none"),
    pytest.param((SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, b"\1\2"))), id="several: half a record"),
]


@pytest.mark.parametrize("copies", [1, 40], ids=["one by one", "in lockstep"])
@pytest.mark.parametrize("content", BAD)
def test_a_list_that_lies_costs_itself(content: tuple[int, bytes], copies: int) -> None:
    """A list that reaches beyond its field, or whose elements have no length, is counted; its record lives on."""
    decoded = Collector().feed(*[with_lists(content, (BASIC, basic_list(11, 2, number(9, 2))))] * copies)
    assert [told(row) for row in rows(decoded)] == [OWN | {"dst_port": 9}] * copies
    assert faults(decoded) == {(Fault.BAD_LIST, Unit.SETS): copies}


def test_what_comes_before_the_lie_is_read() -> None:
    """Entries of a list before the one that reaches beyond it count."""
    entries = list_entry(PORTS, PORTS_1) + list_entry(NAMES, ALICE, length=200)
    decoded = Collector().feed(with_lists((SUB_TEMPLATES, sub_template_multi_list(entries))))
    assert told(one(decoded)) == OWN | PORTS_COLUMNS
    assert faults(decoded) == {(Fault.BAD_LIST, Unit.SETS): 1}


def test_kinds_of_lists_are_bounded() -> None:
    """A batch in which records of more templates are nested than are read costs a count, and the work of the bound."""
    inner = [template(1000 + at, field(7, 2), *[field(5000, 1)] * at) for at in range(40)]
    outer = [template(2000 + at, field(SUB_TEMPLATES, VARIABLE), *[field(5001, 1)] * at) for at in range(40)]
    entries = sub_template_multi_list(*(list_entry(1000 + at, number(at, 2) + bytes(at)) for at in range(40)))
    payloads = [ipfix_message(ipfix_templates(*inner))]
    payloads += [
        ipfix_message(ipfix_templates(described), data_set(2000 + at, variable(entries) + bytes(at)))
        for at, described in enumerate(outer)
    ]
    decoded = Collector().feed(*payloads)
    assert decoded.records == 40
    assert faults(decoded) == {(Fault.LIST_LIMIT, Unit.SETS): 40 * 40 - MOST_KINDS}
    # The next batch has the whole bound again.
    assert nothing_wrong(Collector().feed(with_lists((SUB_TEMPLATE, sub_template_list(PORTS, PORTS_1)))))


def test_rare_kinds_of_lists_take_no_room_from_those_that_many_records_have() -> None:
    """Of more kinds than are read those are left out that the fewest records have, whatever their order."""
    rare = range(1000, 1400)
    inner = [template(at, field(7, 2), field(at, 1, enterprise=32473)) for at in rare]
    inner.append(template(PORTS, field(7, 2), field(11, 2), field(999, 1, enterprise=32473)))
    many = variable(sub_template_multi_list(*(list_entry(at, number(at, 2) + b"x") for at in rare)))
    usual = variable(sub_template_multi_list(list_entry(PORTS, PORTS_1 + b"x")))
    payloads = [ipfix_message(ipfix_templates(*inner))]
    for at in range(3):
        outer = template(2000 + at, field(SUB_TEMPLATES, VARIABLE), *[field(5001, 1)] * at)
        records = (one_list + bytes(at) for one_list in (many, usual, usual))
        payloads.append(ipfix_message(ipfix_templates(outer), data_set(2000 + at, *records)))
    decoded = Collector().feed(*payloads)
    assert [told(row) for row in rows(decoded)].count(PORTS_COLUMNS) == 6
    assert faults(decoded) == {(Fault.LIST_LIMIT, Unit.SETS): 3 * (len(rare) + 1) - MOST_KINDS}


def test_a_datagram_of_nothing_but_entries_is_bounded() -> None:
    """As many entries and lists as a datagram has room for are as many counts, and no record more."""
    entries = sub_template_multi_list(*[list_entry(999, b"x")] * 12_000)
    decoded = Collector().feed(with_lists((SUB_TEMPLATES, entries)))
    assert decoded.records == 1
    assert faults(decoded) == {(Fault.UNKNOWN_LIST_TEMPLATE, Unit.SETS): 12_000}
    lists = [variable(basic_list(at, 1, b"x", enterprise=at)) for at in range(5000)]
    decoded = Collector().feed(flows(IPFIX, [field(BASIC, VARIABLE)], *lists))
    assert decoded.records == 5000
    assert nothing_wrong(decoded)


def test_v9_has_lists_of_fixed_length() -> None:
    """NetFlow v9 shares the elements, and has no other than fixed lengths."""
    content = basic_list(7, 2, number(7, 2))
    decoded = Collector().feed(flows(V9, [field(BASIC, len(content))], content))
    assert told(one(decoded)) == {"src_port": 7}


def test_any_cut_of_a_message_with_lists_is_read_as_far_as_it_goes() -> None:
    """Truncated at every byte, a datagram of lists raises nothing, and gives no more than the whole."""
    entries = sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(NAMES, ALICE, BOB))
    whole = with_lists(
        (SUB_TEMPLATES, entries),
        (SUB_TEMPLATE, sub_template_list(MACS, MACS_1)),
        (BASIC, nested(3, basic_list(10, 4, number(3, 4)))),
        (485, communities(*COMMUNITIES)),
    )
    expected = one(Collector().feed(whole))
    for end in range(len(whole)):
        for row in rows(Collector().feed(whole[:end])):
            assert told(row).items() <= told(expected).items()


def test_any_cut_of_a_list_is_read_as_far_as_it_goes() -> None:
    """A list that ends at any byte gives no more than the whole one, and the record's other elements."""
    for element, content in (
        (SUB_TEMPLATES, sub_template_multi_list(list_entry(PORTS, PORTS_1), list_entry(NAMES, ALICE, BOB))),
        (SUB_TEMPLATE, sub_template_list(MACS, MACS_1)),
        (BASIC, nested(3, basic_list(10, 4, number(3, 4)))),
        (485, communities(*COMMUNITIES)),
    ):
        expected = told(one(Collector().feed(with_lists((element, content)))))
        payloads = [with_lists((element, content[:end])) for end in range(len(content))]
        for row in rows(Collector().feed(*payloads)):
            found = told(row)
            some = found.pop("bgp_communities", [])
            assert OWN.items() <= found.items() <= expected.items()
            assert some == list(COMMUNITIES)[: len(some)]


def test_exporters_of_one_layout_have_lists_of_their_own() -> None:
    """Several exporters in one batch: templates of lists are looked up by whoever sent the record."""
    fields = template(OUTER, field(SUB_TEMPLATE, VARIABLE))
    known = ipfix_message(ipfix_templates(fields, *INNER), data_set(OUTER, variable(sub_template_list(PORTS, PORTS_1))))
    unknown = ipfix_message(ipfix_templates(fields), data_set(OUTER, variable(sub_template_list(PORTS, PORTS_1))))
    other = mapped("198.51.100.7")
    decoded = Collector().take(Datagrams.pack([known, unknown], [EXPORTER, other], [50000] * 2, [RECEIVED_NS] * 2))
    found = {row["sampler_address"]: told(row) for row in rows(decoded)}
    assert found == {EXPORTER: PORTS_COLUMNS, other: {}}
    assert faults(decoded) == {(Fault.UNKNOWN_LIST_TEMPLATE, Unit.SETS): 1}
