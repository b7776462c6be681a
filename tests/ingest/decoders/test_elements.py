"""Each element that the record names, from bytes to column."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.decoders import Oddity
from ingest.decoders.elements import RULES
from shared.record import COLUMN
from tests.builders import VARIABLE, field, fixed, ipv4, ipv6, mapped, number, variable
from tests.ingest.collector import Collector, flows, in_order, nothing_wrong, one, rows, told
from tests.ingest.decoders.known_elements import COLUMN_BITS, IPFIX, KNOWN, V9, Kind, Known

OUTSIDE = 0xA5
"""Fills the fields before and after the one that a test asks about."""

CASES = [pytest.param(known, id=known.name) for known in KNOWN]
WRITTEN = [
    pytest.param(V9, False, id="v9"),
    pytest.param(IPFIX, False, id="ipfix"),
    pytest.param(IPFIX, True, id="ipfix, variable"),
]
NARROW = [
    pytest.param(known, of_variable_length, id=known.name + (", variable" if of_variable_length else ""))
    for known in KNOWN
    for of_variable_length in ([False, True] if known.protocol == IPFIX else [False])
    if known.kind is Kind.NUMBER and known.length < 8
]


def sent(known: Known, value: bytes, *, length: int | None = None) -> list[bytes]:
    """The template fields and one record: the value between two fields that no column is for."""
    fields = [
        field(210, 3),
        field(known.element, len(value) if length is None else length, enterprise=known.enterprise),
        field(210, 5),
    ]
    return [flows(known.protocol, fields, bytes([OUTSIDE]) * 3 + value + bytes([OUTSIDE]) * 5)]


@pytest.mark.parametrize("known", CASES)
def test_an_element_fills_its_column(known: Known) -> None:
    """An element of its natural length gives its column the value that was sent, and no other column any."""
    value, expected = known.sample()
    decoded = Collector().feed(*sent(known, value))
    row = one(decoded)
    derived = {"etype"} if known.column in {"src_addr", "dst_addr"} else set()
    # 231 and 298 alone have no counterpart in the record: nothing is known to flow the other way.
    assert {name: value for name, value in told(row).items() if name not in derived} == (
        {known.column: expected} if known.column != "flows" else {}
    )
    assert row[known.column] == expected
    assert nothing_wrong(decoded)


@pytest.mark.parametrize("known", [pytest.param(known, id=known.name) for known in KNOWN if known.protocol == IPFIX])
def test_an_element_may_be_of_variable_length(known: Known) -> None:
    """Whatever an element is, IPFIX may send it with its length before it, written in either form."""
    value, expected = known.sample()
    value = value.rstrip(b"\0") if known.kind is Kind.TEXT else value
    short, long = variable(value) + b"\1", variable(value, long_form=True) + b"\2"
    fields = [field(known.element, VARIABLE, enterprise=known.enterprise), field(210, 1)]
    decoded = Collector().feed(flows(IPFIX, fields, short, long))
    assert [row[known.column] for row in rows(decoded)] == [expected, expected]
    assert nothing_wrong(decoded)


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize(("protocol", "of_variable_length"), WRITTEN)
def test_a_number_may_have_any_size(length: int, protocol: int, of_variable_length: bool) -> None:
    """A number is as wide as the template says, from 1 to 8 bytes, whatever its natural size (RFC 7011 §6.2)."""
    value = int.from_bytes(bytes(range(0xF1, 0xF1 + length)))
    content = number(value, length)
    known = Known(protocol, None, 1, Kind.NUMBER, 8, "bytes")
    payloads = sent(known, variable(content), length=VARIABLE) if of_variable_length else sent(known, content)
    decoded = Collector().feed(*payloads)
    assert one(decoded)["bytes"] == value
    assert nothing_wrong(decoded)


@pytest.mark.parametrize(("known", "of_variable_length"), NARROW)
def test_a_number_too_large_for_its_column_is_null_and_counted(known: Known, of_variable_length: bool) -> None:
    """A field wider than its column gives the values that fit; others are null, each counted, and cost nothing else."""
    bits = COLUMN_BITS[known.column]
    width = bits // 8 + 1
    values = [(1 << bits) - 1, 1 << bits, 7]
    fields = [field(known.element, VARIABLE if of_variable_length else width, enterprise=known.enterprise), field(5, 1)]
    if known.element == 5:
        fields[1] = field(210, 1)
    contents = [number(value, width) for value in values]
    records = [(variable(content) if of_variable_length else content) + b"\x2a" for content in contents]
    decoded = Collector().feed(flows(known.protocol, fields, *records))
    assert [row.get(known.column) for row in rows(decoded)] == [values[0], None, 7]
    if known.element != 5:
        assert [row["ip_tos"] for row in rows(decoded)] == [42, 42, 42]
    assert dict(decoded.oddities) == {Oddity.OUT_OF_RANGE: 1}
    assert not decoded.faults


@pytest.mark.parametrize("length", [9, 16, 300])
def test_a_number_has_no_more_than_eight_bytes(length: int) -> None:
    """The widest number is of 64 bits (RFC 7011 §6.1.1): what is longer is skipped, or null where records differ."""
    long = number((1 << 64) + 41, length)
    skipped = Collector().feed(flows(IPFIX, [field(1, length), field(5, 1)], long + b"\x2a"))
    assert told(one(skipped)) == {"ip_tos": 42}
    fields = [field(1, VARIABLE), field(5, 1)]
    mixed = Collector().feed(flows(IPFIX, fields, variable(long) + b"\x2a", variable(number(41, 8)) + b"\x2b"))
    assert [told(row) for row in rows(mixed)] == [{"ip_tos": 42}, {"bytes": 41, "ip_tos": 43}]


EMPTY: list[Any] = [
    pytest.param(known, id=known.name)
    for known in KNOWN
    if known.protocol == IPFIX and known.enterprise is None and known.column != "flows"
]


@pytest.mark.parametrize("known", EMPTY)
def test_an_empty_field_of_variable_length_says_nothing(known: Known) -> None:
    """A field of variable length that has no content leaves its column null in that record alone: 0 would be a claim."""
    value, expected = known.sample()
    value = value.rstrip(b"\0") if known.kind is Kind.TEXT else value
    fields = [field(known.element, VARIABLE), field(210, 1)]
    decoded = Collector().feed(flows(IPFIX, fields, variable(value) + b"\1", variable(b"") + b"\2"))
    assert [row.get(known.column) for row in rows(decoded)] == [expected, None]
    assert not decoded.faults


@pytest.mark.parametrize(
    ("element", "column", "content"),
    [
        pytest.param(8, "src_addr", ipv4("192.0.2.1"), id="IPv4 address"),
        pytest.param(27, "src_addr", ipv6("2001:db8::1"), id="IPv6 address"),
        pytest.param(56, "src_mac", bytes.fromhex("02005e1000fe"), id="MAC address"),
    ],
)
@pytest.mark.parametrize("length", [1, 5, 17])
def test_an_address_of_another_length_is_no_address(element: int, column: str, content: bytes, length: int) -> None:
    """An address is never shortened (RFC 7011 §6.2): of another length it is skipped, or null where records differ."""
    odd = bytes(range(1, length + 1))
    skipped = Collector().feed(flows(IPFIX, [field(element, length), field(5, 1)], odd + b"\x2a"))
    assert told(one(skipped)) == {"ip_tos": 42}
    mixed = Collector().feed(
        flows(IPFIX, [field(element, VARIABLE), field(5, 1)], variable(odd) + b"\x2a", variable(content) + b"\x2b")
    )
    first, second = rows(mixed)
    assert (first.get(column), first["ip_tos"]) == (None, 42)
    assert (second[column][-len(content) :], second["ip_tos"]) == (content, 43)


ADDRESSES = [
    pytest.param(known, of_variable_length, id=known.name + (", variable" if of_variable_length else ""))
    for known in KNOWN
    if known.kind in {Kind.IPV4, Kind.IPV6}
    for of_variable_length in ([False, True] if known.protocol == IPFIX else [False])
]


@pytest.mark.parametrize(("known", "of_variable_length"), ADDRESSES)
def test_an_address_of_zeros_is_an_address_of_its_family(known: Known, of_variable_length: bool) -> None:
    """Alone in its template, 0.0.0.0 and :: are what was sent."""
    content = bytes(known.length)
    payloads = sent(known, variable(content), length=VARIABLE) if of_variable_length else sent(known, content)
    expected = mapped("0.0.0.0") if known.kind is Kind.IPV4 else bytes(16)
    assert one(Collector().feed(*payloads))[known.column] == expected


TEXTS = [
    pytest.param(b"edge-1", 6, "edge-1", id="fills the field"),
    pytest.param(b"edge-1", 9, "edge-1", id="padded with NUL"),
    pytest.param(b"edge-1   ", 9, "edge-1", id="padded with spaces"),
    pytest.param(b"edge 1 \0\0", 9, "edge 1", id="padded with a space and NUL"),
    pytest.param(b"edge\0rest", 9, "edge", id="something after the NUL"),
    pytest.param(b"edge\0\xff\xfe", 7, "edge", id="something that is not UTF-8 after the NUL"),
    pytest.param(b" edge", 5, " edge", id="a space in front stays"),
    pytest.param("Zürich-1".encode(), 12, "Zürich-1", id="UTF-8"),
    pytest.param(b"Z\xfcrich", 8, "Z\N{REPLACEMENT CHARACTER}rich", id="not UTF-8"),
    pytest.param("日本"[:2].encode()[:4], 4, "日\N{REPLACEMENT CHARACTER}", id="UTF-8 that is cut off"),
    pytest.param(b"", 4, None, id="nothing but NUL"),
    pytest.param(b"    ", 4, None, id="nothing but spaces"),
    pytest.param(b"\0abc", 4, None, id="NUL in front"),
    pytest.param(b"line\nbreak\x1b[m", 16, "line\nbreak\x1b[m", id="control characters stay"),
]


@pytest.mark.parametrize(("content", "length", "expected"), TEXTS)
@pytest.mark.parametrize("element", [147, 371], ids=["text", "name"])
@pytest.mark.parametrize("protocol", [V9, IPFIX, None], ids=["v9", "ipfix", "ipfix, variable length"])
def test_strings_are_freed_from_their_padding(
    content: bytes, length: int, expected: str | None, element: int, protocol: int | None
) -> None:
    """A string ends at its first NUL and without spaces at its end; what is not UTF-8 is marked as such; empty is null."""
    column = {147: "wlan_ssid", 371: "user_name"}[element]
    padded = fixed(content, length)
    if protocol is None:
        payload = flows(IPFIX, [field(element, VARIABLE)], variable(padded), variable(b"other"))
    else:
        payload = flows(protocol, [field(element, length)], padded, fixed(b"othe", length))
    decoded = Collector().feed(payload)
    first, second = rows(decoded)
    assert first.get(column) == expected
    assert second[column].startswith("othe")
    assert nothing_wrong(decoded)


def test_strings_that_are_the_same_share_an_entry() -> None:
    """A name that many records have is in the column's dictionary once."""
    names = [b"alice", b"bob", b"alice", b"", b"bob"]
    decoded = Collector().feed(flows(IPFIX, [field(371, VARIABLE)], *(variable(name) for name in names)))
    (batch,) = decoded.batches
    column = batch.column("user_name")
    assert column.to_pylist() == ["alice", "bob", "alice", None, "bob"]
    assert sorted(column.dictionary.drop_null().to_pylist()) == ["alice", "bob"]


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 5000])
def test_the_two_forms_of_a_length_say_the_same(size: int) -> None:
    """One length byte for up to 254 bytes, 255 and two more for any size (RFC 7011 §7)."""
    content = b"x" * size
    forms = [variable(content, long_form=True)] + ([variable(content)] if size < 255 else [])
    fields = [field(147, VARIABLE), field(5, 1)]
    decoded = Collector().feed(flows(IPFIX, fields, *(form + b"\x2a" for form in forms)))
    assert [(row.get("wlan_ssid"), row["ip_tos"]) for row in rows(decoded)] == [(content.decode() or None, 42)] * len(
        forms
    )
    assert nothing_wrong(decoded)


UNKNOWN = [
    pytest.param([field(1, 4, enterprise=32473)], b"\xff" * 4, id="enterprise, of a number that IANA uses too"),
    pytest.param([field(40, 8, enterprise=9)], b"\xff" * 8, id="Cisco's, not known"),
    pytest.param([field(32767, 65000, enterprise=0xFFFFFFFF)], b"\xff" * 65000, id="very long"),
    pytest.param([field(8, VARIABLE, enterprise=5951)], variable(b"http://example.net/"), id="enterprise, variable"),
    pytest.param(
        [field(8, VARIABLE, enterprise=5951), field(9, VARIABLE, enterprise=5951)],
        variable(b"") + variable(b"y" * 300),
        id="two of variable length",
    ),
    pytest.param([field(5001, VARIABLE)], variable(bytes(37)), id="not in the registry, variable"),
    pytest.param([field(5000, 3)], b"\xff" * 3, id="not in IANA's registry"),
    pytest.param([field(210, 7)], b"\xff" * 7, id="padding"),
    pytest.param([field(8, 4, enterprise=9)], ipv4("9.9.9.9"), id="Cisco's, of the number of the source address"),
    pytest.param([field(89, 0)], b"", id="known, of no length"),
]


@pytest.mark.parametrize(("fields", "content"), UNKNOWN)
def test_an_element_that_is_not_known_is_skipped_by_its_length(fields: list[bytes], content: bytes) -> None:
    """What is not known costs nothing else: the fields before and after it are read."""
    decoded = Collector().feed(
        flows(IPFIX, [field(8, 4), *fields, field(7, 2)], ipv4("192.0.2.1") + content + number(1234, 2))
    )
    assert told(one(decoded)) == {"src_addr": mapped("192.0.2.1"), "etype": 0x0800, "src_port": 1234}
    assert nothing_wrong(decoded)


def test_v9_types_from_32768_on_are_plain_numbers() -> None:
    """NetFlow v9 has no enterprise bit: a type with the upper bit set has four bytes in a template like all others."""
    fields = [field(34000, 2), field(57590, 4), field(7, 2)]
    decoded = Collector().feed(flows(V9, fields, number(7, 2) + b"\xff" * 4 + number(1234, 2)))
    assert told(one(decoded)) == {"src_sgt": 7, "src_port": 1234}


@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("value", [0, 2, 65519])
@pytest.mark.parametrize(
    "known", [pytest.param(known, id=known.name) for known in KNOWN if known.column in {"src_sgt", "dst_sgt"}]
)
def test_group_tags_have_two_bytes_or_four_and_zero_is_one(known: Known, length: int, value: int) -> None:
    """A security group tag of 0 means "Unknown", and is not null."""
    assert one(Collector().feed(*sent(known, number(value, length))))[known.column] == value


@pytest.mark.parametrize(
    ("element", "length", "value", "icmp_type", "icmp_code"),
    [
        pytest.param(32, 2, 0x0B01, 11, 1, id="32"),
        pytest.param(139, 2, 0x8004, 128, 4, id="139"),
        pytest.param(32, 4, 0x0301, 3, 1, id="32, in four bytes"),
    ],
)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_type_and_code_come_in_one_element_too(
    protocol: int, element: int, length: int, value: int, icmp_type: int, icmp_code: int
) -> None:
    """32 and 139 hold the type in their upper octet and the code in their lower."""
    row = one(Collector().feed(flows(protocol, [field(element, length)], number(value, length))))
    assert told(row) == {"icmp_type": icmp_type, "icmp_code": icmp_code}


ICMP_BY_PORT = [
    pytest.param(V9, 1, 0x0301, (3, 1), id="v9, ICMP"),
    pytest.param(V9, 58, 0x8000, (128, 0), id="v9, ICMPv6"),
    pytest.param(V9, 6, 0x0301, (None, None), id="v9, TCP"),
    pytest.param(IPFIX, 1, 0x0301, (None, None), id="ipfix"),
]


@pytest.mark.parametrize(("protocol", "proto", "port", "expected"), ICMP_BY_PORT)
def test_v9_tells_type_and_code_by_the_destination_port(
    protocol: int, proto: int, port: int, expected: tuple[int | None, int | None]
) -> None:
    """Without an element of its own, NetFlow v9 has ICMP's type and code as the destination port; IPFIX has not."""
    row = one(Collector().feed(flows(protocol, [field(4, 1), field(11, 2)], number(proto, 1) + number(port, 2))))
    assert (row.get("icmp_type"), row.get("icmp_code")) == expected
    assert row["dst_port"] == port


def test_only_the_icmp_records_of_a_group_have_a_type_by_port() -> None:
    """Records of one template differ: each has a type and a code when it is ICMP, and null when it is not."""
    records = [(6, 443), (1, 0x0800), (17, 53), (58, 0x8600)]
    decoded = Collector().feed(
        flows(V9, [field(4, 1), field(11, 2)], *(number(proto, 1) + number(port, 2) for proto, port in records))
    )
    assert [(row.get("icmp_type"), row.get("icmp_code")) for row in rows(decoded)] == [
        (None, None),
        (8, 0),
        (None, None),
        (0x86, 0),
    ]


def test_an_element_of_its_own_comes_before_the_destination_port() -> None:
    """With 32 in the record the destination port is just that."""
    fields = [field(4, 1), field(11, 2), field(32, 2)]
    row = one(Collector().feed(flows(V9, fields, number(1, 1) + number(0, 2) + number(0x0303, 2))))
    assert (row["icmp_type"], row["icmp_code"]) == (3, 3)


def test_a_code_of_its_own_stands_beside_a_type_by_the_port() -> None:
    """With 177 alone, the code is that one in all records, and the type is the port's in those that are ICMP."""
    fields = [field(4, 1), field(11, 2), field(177, 1)]
    records = [number(proto, 1) + number(0x0301, 2) + b"\x0d" for proto in (1, 6)]
    found = rows(Collector().feed(flows(V9, fields, *records)))
    assert [(row.get("icmp_type"), row.get("icmp_code")) for row in found] == [(3, 13), (None, 13)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(bytes.fromhex("0d0001c5"), "13:453", id="PANA-L7, four bytes"),
        pytest.param(bytes.fromhex("0111"), "1:17", id="IANA-L3, two bytes"),
        pytest.param(bytes.fromhex("0301bb"), "3:443", id="IANA-L4, three bytes"),
        pytest.param(bytes.fromhex("1400003039000a0b0c"), "20:12345:658188", id="PANA-L7-PEN, nine bytes"),
        pytest.param(bytes.fromhex("0d00000000"), "13:0", id="selector zero"),
        pytest.param(b"\x0d", None, id="no selector"),
    ],
)
@pytest.mark.parametrize("protocol", [V9, IPFIX, None], ids=["v9", "ipfix", "ipfix, variable length"])
def test_an_application_is_engine_and_selector(content: bytes, expected: str | None, protocol: int | None) -> None:
    """95 is one octet for the engine and the rest for the selector (RFC 6759 §4); private ones name their enterprise."""
    if protocol is None:
        payload = flows(IPFIX, [field(95, VARIABLE)], variable(content), variable(b"\x03\x00\x50"))
    else:
        payload = flows(protocol, [field(95, len(content))], content)
    assert rows(Collector().feed(payload))[0].get("application_id") == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(number(1 << 56 | 5001, 8), 5001, id="VXLAN"),
        pytest.param(number(2 << 56 | 0xFFFFFF, 8), 0xFFFFFF, id="NVGRE"),
        pytest.param(number(5001, 8), 5001, id="no type"),
        pytest.param(number(5001, 3), 5001, id="reduced"),
    ],
)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_segment_gives_its_network_identifier(protocol: int, content: bytes, expected: int) -> None:
    """351 has the encapsulation in its first octet and the identifier in the lower 24 bits."""
    assert told(one(Collector().feed(flows(protocol, [field(351, len(content))], content)))) == {"vni": expected}


LABELS = [
    pytest.param([(70, "01f400")], [0x01F40], id="one"),
    pytest.param([(70, "01f400"), (71, "01f411"), (72, "fffff1")], [0x01F40, 0x01F41, 0xFFFFF], id="three"),
    pytest.param([(72, "000031"), (70, "000010"), (71, "000020")], [1, 2, 3], id="out of order in the template"),
    pytest.param([(70, "01f401"), (71, "000000"), (72, "000000")], [0x01F40], id="the stack ends before the template"),
    pytest.param([(70, "000001")], [0], id="explicit null"),
    pytest.param([(70, "000000")], None, id="none"),
    pytest.param([(70, "01f41fff")], [0x01F41], id="four bytes, with the time to live"),
    pytest.param([(number, f"{number:04x}01") for number in range(70, 80)], [n << 4 for n in range(70, 80)], id="ten"),
]


@pytest.mark.parametrize(("labels", "expected"), LABELS)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_labels_are_a_list_outermost_first(
    protocol: int, labels: list[tuple[int, str]], expected: list[int] | None
) -> None:
    """70 to 79 are the label stack: 20 bits of label, then class and bottom of stack; entries of zeros are not there."""
    fields = [field(element, len(content) // 2) for element, content in labels]
    decoded = Collector().feed(flows(protocol, fields, bytes.fromhex("".join(content for _, content in labels))))
    assert told(one(decoded)) == ({} if expected is None else {"mpls_labels": expected})


def test_records_of_one_layout_may_have_stacks_of_different_depth() -> None:
    """Each record has its own labels; one without any has null."""
    stacks = ["000011000021", "000031000000", "000000000000", "000041000051"]
    decoded = Collector().feed(flows(V9, [field(70, 3), field(71, 3)], *map(bytes.fromhex, stacks)))
    assert [row.get("mpls_labels") for row in rows(decoded)] == [[1, 2], [3], None, [4, 5]]


@pytest.mark.parametrize(
    ("fields", "content", "expected"),
    [
        pytest.param([field(60, 1)], b"\x04", 0x0800, id="60 says 4"),
        pytest.param([field(60, 1)], b"\x06", 0x86DD, id="60 says 6"),
        pytest.param([field(60, 1)], b"\x00", None, id="60 says neither"),
        pytest.param([field(256, 2)], b"\x08\x06", 0x0806, id="256"),
        pytest.param([field(256, 2), field(60, 1)], b"\xde\xad\x06", 0x86DD, id="60 before 256"),
        pytest.param([field(256, 2), field(60, 1)], b"\x08\x06\x00", 0x0806, id="256 where 60 says neither"),
        pytest.param([field(256, 2), field(8, 4)], b"\xde\xad" + ipv4("192.0.2.1"), 0x0800, id="addresses before 256"),
        pytest.param([field(27, 16)], ipv6("2001:db8::1"), 0x86DD, id="IPv6 address"),
        pytest.param([field(27, 16)], ipv6("::"), 0x86DD, id="IPv6 address of zeros"),
        pytest.param([field(12, 4)], ipv4("0.0.0.0"), 0x0800, id="IPv4 address of zeros"),
    ],
)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_the_ether_type_comes_from_the_addresses_first(
    protocol: int, fields: list[bytes], content: bytes, expected: int | None
) -> None:
    """The family of the addresses, else 60, else 256, which some routers fill with junk."""
    assert one(Collector().feed(flows(protocol, fields, content))).get("etype") == expected


def test_each_record_has_the_ether_type_that_it_tells_first() -> None:
    """Records of one layout differ: the family of an address that is there, else 60, else 256; an empty 256 is none."""
    fields = [field(8, VARIABLE), field(60, 1), field(256, VARIABLE)]
    records = [
        variable(ipv4("192.0.2.1")) + b"\6" + variable(b"\x88\xcc"),
        variable(b"") + b"\6" + variable(b"\x88\xcc"),
        variable(b"") + b"\0" + variable(b"\x88\xcc"),
        variable(b"") + b"\0" + variable(b""),
    ]
    found = rows(Collector().feed(flows(IPFIX, fields, *records)))
    assert [row.get("etype") for row in found] == [0x0800, 0x86DD, 0x88CC, None]


COMMON_PROPERTIES = [
    pytest.param([(2, 2 << 10 | 0)], 64, id="forwarding exception, none"),
    pytest.param([(2, 2 << 10 | 5)], 128, id="forwarding exception"),
    pytest.param([(2, 1 << 10 | 5)], None, id="another type"),
    pytest.param([(2, 0)], None, id="no type"),
    pytest.param([(4, 2 << 26 | 0)], 64, id="four bytes, none"),
    pytest.param([(4, 2 << 26 | 0x03FFFFFF)], 128, id="four bytes"),
    pytest.param([(4, 2 << 10 | 5)], None, id="four bytes, another type that looks like it"),
    pytest.param([(2, 1 << 10 | 5), (2, 2 << 10 | 5), (4, 4 << 26 | 7)], 128, id="one of several"),
    pytest.param([(2, 2 << 10 | 0), (4, 3 << 26 | 7)], 64, id="the first of several"),
    pytest.param([(1, 2)], None, id="one byte"),
]


@pytest.mark.parametrize(("sent_", "expected"), COMMON_PROPERTIES)
@pytest.mark.parametrize("of_variable_length", [False, True], ids=["fixed", "variable"])
def test_junipers_common_properties_tell_whether_it_was_forwarded(
    sent_: list[tuple[int, int]], expected: int | None, of_variable_length: bool
) -> None:
    """PEN 2636, 137, of whichever length: type 2 with a code is an exception, dropped, the reason not known to RFC 7270.

    A record has one for each property; those of other types do not say whether it was forwarded.
    """
    contents = [number(value, length) for length, value in sent_]
    fields = [field(137, VARIABLE if of_variable_length else len(content), enterprise=2636) for content in contents]
    record = b"".join(map(variable, contents) if of_variable_length else contents)
    decoded = Collector().feed(flows(IPFIX, fields, record))
    assert told(one(decoded)) == ({} if expected is None else {"forwarding_status": expected})
    assert nothing_wrong(decoded)


def test_a_forwarding_status_of_its_own_stands_beside_common_properties() -> None:
    """89 says more than whether there was an exception."""
    fields = [field(89, 1), field(137, 2, enterprise=2636)]
    decoded = Collector().feed(flows(IPFIX, fields, number(130, 1) + number(2 << 10, 2)))
    assert told(one(decoded)) == {"forwarding_status": 130}


@pytest.mark.parametrize("length", [1, 4])
def test_the_forwarding_status_comes_in_one_byte_or_four(length: int) -> None:
    """IOS-XR sends four bytes."""
    assert one(Collector().feed(flows(V9, [field(89, length)], number(130, length))))["forwarding_status"] == 130


def test_the_table_of_these_tests_names_every_element_of_the_decoder() -> None:
    """Nothing is decoded that the tests' own table, written down from the documents, does not have."""
    tested = {((known.enterprise or 0), known.element, known.column) for known in KNOWN}
    worked_on = {(0, 32), (0, 139), (0, 95), (0, 351), (2636, 137)}
    # 34000 to 34003 cannot come under an enterprise number: a template has 15 bits for an element.
    impossible = {(9, 34000), (9, 34001), (9, 34002), (9, 34003)}
    decoded = {
        (*source.element, rule.column)
        for rule in RULES
        for source in rule.sources
        if source.element not in worked_on | impossible
    }
    assert decoded <= tested
    assert {column for _, _, column in tested} <= set(COLUMN)


def test_both_protocols_read_what_they_share_alike() -> None:
    """One record with every IANA element that both protocols have: the same columns come of it."""
    seen: list[dict[str, Any]] = []
    for protocol in (V9, IPFIX):
        taken: dict[str, Known] = {}
        for known in KNOWN:
            if known.protocol == protocol and known.element < 32768 and known.enterprise is None:
                taken.setdefault(known.column, known)
        samples = [known.sample() for known in taken.values()]
        fields = [field(known.element, len(value)) for known, (value, _) in zip(taken.values(), samples, strict=True)]
        decoded = Collector().feed(flows(protocol, fields, b"".join(value for value, _ in samples)))
        (row,) = in_order(decoded)
        assert {column: row[column] for column in taken} == {
            column: expected for column, (_, expected) in zip(taken, samples, strict=True)
        }
        seen.append({column: row[column] for column in taken})
    assert seen[0] == seen[1]
