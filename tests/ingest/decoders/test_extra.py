"""Fields that have no column of their own: from bytes to the text in `extra`."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.mapping import As, FieldMapping, MappedField
from tests.builders import VARIABLE, field, fixed, ipv4, ipv6, mac, number, variable
from tests.fuzz import looked_at
from tests.ingest.collector import Collector, flows, nothing_wrong, one, rows
from tests.ingest.decoders.known_elements import IPFIX, V9

VENDOR = (32473, 7)


def mapped(written_as: As, name: str = "it", element: tuple[int, int] = VENDOR, version: int = IPFIX) -> MappedField:
    """An element that goes into `extra`."""
    return MappedField(version, element, extra=name, written_as=written_as)


def collector(*fields: MappedField) -> Collector:
    """A pipeline that has these fields mapped, and no others."""
    return Collector(mapping=FieldMapping(fields))


def texts(written_as: As, *contents: bytes, of_variable_length: bool = True) -> list[str | None]:
    """What contents of one field look like in `extra`; null where they are not there."""
    length = VARIABLE if of_variable_length else len(contents[0])
    records = [(variable(content) if of_variable_length else content) + b"\1" for content in contents]
    fields = [field(VENDOR[1], length, enterprise=VENDOR[0]), field(5, 1)]
    decoded = collector(mapped(written_as)).feed(flows(IPFIX, fields, *records))
    assert nothing_wrong(decoded)
    return [dict(row["extra"])["it"] if "extra" in row else None for row in rows(decoded)]


KINDS: list[Any] = [
    pytest.param(As.UINT, b"\xff", "255", id="uint, one byte"),
    pytest.param(As.UINT, number(70000, 3), "70000", id="uint, three bytes"),
    pytest.param(As.UINT, b"\xff" * 8, str((1 << 64) - 1), id="uint, eight bytes"),
    pytest.param(As.UINT, bytes(4), "0", id="uint, zero"),
    pytest.param(As.UINT, bytes(9), None, id="uint, nine bytes"),
    pytest.param(As.INT, b"\xff", "-1", id="int, one byte"),
    pytest.param(As.INT, b"\x7f", "127", id="int, the largest of one byte"),
    pytest.param(As.INT, b"\x80", "-128", id="int, the least of one byte"),
    pytest.param(As.INT, number((1 << 24) - 70000, 3), "-70000", id="int, three bytes"),
    pytest.param(As.INT, number(70000, 3), "70000", id="int, three bytes, not negative"),
    pytest.param(As.INT, number(1 << 63, 8), str(-(1 << 63)), id="int, the least of eight bytes"),
    pytest.param(As.INT, number((1 << 63) - 1, 8), str((1 << 63) - 1), id="int, the largest of eight bytes"),
    pytest.param(As.INT, b"\xff" * 9, None, id="int, nine bytes"),
    pytest.param(As.BOOLEAN, b"\1", "true", id="boolean, true"),
    pytest.param(As.BOOLEAN, b"\2", "false", id="boolean, false"),
    pytest.param(As.BOOLEAN, b"\0", None, id="boolean, neither"),
    pytest.param(As.BOOLEAN, bytes(8) + b"\1", None, id="boolean, nine bytes"),
    pytest.param(As.FLOAT, struct.pack("!f", 0.1), "0.1", id="float, four bytes"),
    pytest.param(As.FLOAT, struct.pack("!d", 0.1), "0.1", id="float, eight bytes"),
    pytest.param(As.FLOAT, struct.pack("!d", -1e300), "-1e+300", id="float, large"),
    pytest.param(As.FLOAT, struct.pack("!d", float("inf")), "inf", id="float, infinite"),
    pytest.param(As.FLOAT, struct.pack("!f", float("nan")), "nan", id="float, not a number"),
    pytest.param(As.FLOAT, bytes(3), None, id="float, three bytes"),
    pytest.param(As.IPV4, ipv4("192.0.2.7"), "192.0.2.7", id="ipv4"),
    pytest.param(As.IPV4, ipv4("0.0.0.0"), "0.0.0.0", id="ipv4, zeros"),
    pytest.param(As.IPV4, bytes(16), None, id="ipv4, sixteen bytes"),
    pytest.param(As.IPV6, ipv6("2001:db8::7"), "2001:db8::7", id="ipv6"),
    pytest.param(As.IPV6, ipv6("::"), "::", id="ipv6, zeros"),
    pytest.param(As.IPV6, bytes(4), None, id="ipv6, four bytes"),
    pytest.param(As.MAC, mac("02:00:5e:10:00:fe"), "02:00:5e:10:00:fe", id="mac"),
    pytest.param(As.MAC, bytes(8), None, id="mac, eight bytes"),
    pytest.param(As.UTF8, b"edge", "edge", id="utf8"),
    pytest.param(As.UTF8, "Zürich, Gleis 7 und weiter".encode(), "Zürich, Gleis 7 und weiter", id="utf8, long"),
    pytest.param(As.UTF8, b"edge\0\0", "edge", id="utf8, filled up"),
    pytest.param(As.UTF8, b"Z\xfcrich", "Z\N{REPLACEMENT CHARACTER}rich", id="utf8, that it is not"),
    pytest.param(As.UTF8, bytes(4), None, id="utf8, nothing but filling"),
    pytest.param(As.HEX, bytes.fromhex("00a5ff00"), "00a5ff00", id="hex"),
    pytest.param(As.HEX, bytes(range(256)) * 4, (bytes(range(256)) * 4).hex(), id="hex, a kilobyte"),
    pytest.param(As.HEX, b"\0", "00", id="hex, a zero"),
]


@pytest.mark.parametrize("of_variable_length", [False, True], ids=["fixed", "variable"])
@pytest.mark.parametrize(("written_as", "content", "expected"), KINDS)
def test_a_field_is_written_as_it_is_mapped(
    written_as: As, content: bytes, expected: str | None, of_variable_length: bool
) -> None:
    """Each kind of value as text; of a length that its kind cannot have, nothing."""
    assert texts(written_as, content, of_variable_length=of_variable_length) == [expected]


def test_values_of_one_field_may_differ_in_length() -> None:
    """Each record's value is read by its own length; what is empty, or has a length that cannot be, is left out."""
    assert texts(As.UINT, b"\7", b"", b"\1\0", bytes(9), b"\0\0\0\2") == ["7", None, "256", None, "2"]
    assert texts(As.INT, b"\xff", b"\0\xff", b"", b"\xff\xff\xfe") == ["-1", "255", None, "-2"]
    assert texts(As.FLOAT, struct.pack("!f", 1.5), struct.pack("!d", 0.1), b"\0\0", b"") == ["1.5", "0.1", None, None]
    assert texts(As.IPV6, ipv6("2001:db8::1"), b"\1\2\3\4", b"") == ["2001:db8::1", None, None]
    assert texts(As.HEX, b"\1", b"", b"\1\2\3") == ["01", None, "010203"]
    assert texts(As.UTF8, b"a", b"", b"a longer text") == ["a", None, "a longer text"]
    assert texts(As.BOOLEAN, b"\1", b"\0\0\2", b"") == ["true", "false", None]


@pytest.mark.parametrize("written_as", list(As))
def test_a_field_that_is_empty_everywhere_is_not_there(written_as: As) -> None:
    """A batch in which no record has any content has no value, of whatever kind."""
    assert texts(written_as, b"", b"") == [None, None]


def test_several_fields_are_a_map() -> None:
    """Names are those of the mapping, in its order; a record has those that it tells, and null without any."""
    wanted = [
        mapped(As.UINT, "first", (0, 5000)),
        mapped(As.UTF8, "second", (9, 1)),
        mapped(As.HEX, "third", (0, 5001)),
    ]
    fields = [field(1, VARIABLE, enterprise=9), field(5001, VARIABLE), field(5000, VARIABLE), field(5, 1)]
    records = [
        variable(b"two") + variable(b"\3") + variable(b"\1") + b"\1",
        variable(b"") + variable(b"") + variable(b"\7") + b"\2",
        variable(b"") + variable(b"") + variable(b"") + b"\3",
    ]
    decoded = collector(*wanted).feed(flows(IPFIX, fields, *records))
    assert [row.get("extra") for row in rows(decoded)] == [
        [("first", "1"), ("second", "two"), ("third", "03")],
        [("first", "7")],
        None,
    ]


def test_of_two_fields_of_one_name_the_first_counts() -> None:
    """A map has a name once: of several fields for it the first that the record has."""
    wanted = [mapped(As.UINT, "name", (0, 5000)), mapped(As.UINT, "name", (0, 5001))]
    fields = [field(5001, VARIABLE), field(5000, VARIABLE)]
    records = [variable(b"\2") + variable(b"\1"), variable(b"\2") + variable(b"")]
    decoded = collector(*wanted).feed(flows(IPFIX, fields, *records))
    assert [row.get("extra") for row in rows(decoded)] == [[("name", "1")], [("name", "2")]]


def test_a_layout_without_the_field_has_no_extra() -> None:
    """Where no mapped field stands in the template there is no column."""
    decoded = collector(mapped(As.UINT)).feed(flows(IPFIX, [field(5, 1)], b"\1"))
    assert "extra" not in one(decoded)


@pytest.mark.parametrize(
    ("written_as", "length"),
    [(As.UINT, 9), (As.INT, 16), (As.BOOLEAN, 300), (As.FLOAT, 5), (As.IPV4, 16), (As.IPV6, 4), (As.MAC, 8)],
)
def test_a_template_that_gives_it_an_impossible_length_has_no_extra(written_as: As, length: int) -> None:
    """A field of a length that its kind never has is another thing by that number."""
    fields = [field(7, length, enterprise=32473)]
    decoded = collector(mapped(written_as)).feed(flows(IPFIX, fields, bytes(length)))
    assert "extra" not in one(decoded)


def test_v9_has_extra_too() -> None:
    """Types of NetFlow v9 are mapped by their number, also above 32767."""
    wanted = mapped(As.UTF8, "drop", (0, 45100), V9)
    decoded = collector(wanted).feed(flows(V9, [field(45100, 8)], fixed("policy", 8)))
    assert one(decoded)["extra"] == [("drop", "policy")]


@given(st.sampled_from(list(As)), st.lists(st.binary(max_size=20), min_size=1, max_size=6), st.booleans())
@looked_at(200, 6_000)
def test_any_content_is_written_or_left_out(written_as: As, contents: list[bytes], of_variable_length: bool) -> None:
    """Whatever a field has, nothing is raised, and each value is the one that it has alone."""
    if not of_variable_length:
        size = max(1, len(contents[0]))
        contents = [content[:size].ljust(size, b"\0") for content in contents]
    together = texts(written_as, *contents, of_variable_length=of_variable_length)
    alone = [texts(written_as, content, of_variable_length=of_variable_length)[0] for content in contents]
    assert together == alone
