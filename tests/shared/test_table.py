"""Records as a table for a person."""

from __future__ import annotations

import ipaddress

import pyarrow as pa
import pytest

from shared.record import SCHEMA
from shared.table import HEADINGS, FlowTable, table_rows, table_text


def address(text: str) -> bytes:
    """The 16 bytes of an address, IPv4 mapped."""
    parsed = ipaddress.ip_address(text)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def table(*rows: dict[str, object]) -> pa.Table:
    """Rows as columns of the record's types, those alone that some row has."""
    named = {name for row in rows for name in row}
    whole = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    return whole.select([name for name in whole.column_names if name in named])


TCP = {
    "type": "NETFLOW_V9",
    "time_received": 1_700_000_000_123_456_789,
    "sampler_address": address("192.0.2.1"),
    "sampling_rate": 1000,
    "bytes": 1234567,
    "packets": 1000,
    "src_addr": address("198.51.100.7"),
    "dst_addr": address("2001:db8::1"),
    "proto": 6,
    "src_port": 443,
    "dst_port": 50000,
    "tcp_flags": 0x12,
    "in_if": 3,
    "out_if": 4,
    "in_if_name": "Te0/0/0/3",
}


def test_a_record_in_full() -> None:
    """A record is told in the words of a person: protocol, end points, thousands, the names of interfaces."""
    assert list(table_rows(table(TCP))) == [
        (
            "2023-11-14 22:13:20.123",
            "192.0.2.1",
            "v9",
            "TCP",
            "198.51.100.7:443",
            "→",
            "[2001:db8::1]:50000",
            "1,234,567",
            "1,000",
            "Te0/0/0/3",
            "4",
            "1000",
            "flags=SA",
        )
    ]


@pytest.mark.parametrize(
    ("row", "heading", "cell"),
    [
        pytest.param({"bytes": 1}, "exporter", "-", id="what is not said"),
        pytest.param({"bytes": 0}, "bytes", "0", id="a zero is said"),
        pytest.param({"proto": 254}, "proto", "254", id="a protocol without a name"),
        pytest.param({"proto": 1, "src_addr": address("192.0.2.1"), "src_port": 0}, "source", "192.0.2.1", id="ICMP has no ports"),
        pytest.param({"proto": 1, "icmp_type": 8, "icmp_code": 0}, "more", "icmp=8/0", id="ICMP type and code"),
        pytest.param({"dst_port": 53}, "destination", "*:53", id="a port alone"),
        pytest.param({"src_sgt": 10, "dst_sgt": 0}, "more", "sgt=10→0", id="group tags"),
        pytest.param({"src_sgt": 0, "dst_sgt": 0}, "more", "", id="nothing to tell"),
        pytest.param({"in_if": 3, "in_if_name": ""}, "in", "3", id="a name that is empty"),
        pytest.param({"user_name": "a\x1b[2Jb\n"}, "more", "user=a\ufffd[2Jb\ufffd", id="control characters are not sent to a terminal"),
    ],
)  # fmt: skip
def test_cells(row: dict[str, object], heading: str, cell: str) -> None:
    """Each cell says what there is to say."""
    (cells,) = table_rows(table(row))
    assert cells[[each.title for each in HEADINGS].index(heading)] == cell


def test_columns_are_aligned() -> None:
    """Whatever their width, values of a column begin or end at one place, under their title."""
    first, second, third = table_text(
        table(TCP, {**TCP, "bytes": 9, "src_addr": address("2001:db8::" + "1:" * 4 + "1")})
    ).splitlines()
    assert first.index("bytes") + len("bytes") == second.index("1,234,567") + 9 == third.index(" 9 ") + 2
    assert first.index("source") == second.index("198.51.100.7") == third.index("[2001:db8")


def test_titles_come_once_and_again_when_a_column_grows() -> None:
    """The titles stand at the top, and again where wider values push the columns."""
    growing = FlowTable()
    assert growing.lines(table(TCP)).plain.count("exporter") == 1
    assert growing.lines(table(TCP)).plain.count("exporter") == 0
    wide = {**TCP, "dst_addr": address("2001:db8:1111:2222:3333:4444:5555:6666")}
    assert growing.lines(table(wide)).plain.count("exporter") == 1
    assert growing.lines(table(TCP)).plain.count("exporter") == 0


def test_titles_are_repeated() -> None:
    """Who asks for it gets the titles again after that many lines, across batches."""
    repeating = FlowTable(repeat=3)
    assert repeating.lines(table(*[TCP] * 4)).plain.count("exporter") == 2
    assert repeating.lines(table(*[TCP] * 3)).plain.count("exporter") == 1


def test_no_records() -> None:
    """No records are no lines."""
    assert table_text(table()) == ""
    assert list(table_rows(pa.table({"flows": [1, 2]}))) == [("-",) * len(HEADINGS)] * 2


@pytest.mark.parametrize(
    ("width", "left_out", "dated"),
    [
        pytest.param(200, set(), True, id="wide"),
        pytest.param(126, set(), True, id="just as wide as the columns"),
        pytest.param(125, {"rate"}, True, id="a character less"),
        pytest.param(100, {"rate", "out", "in", "type"}, False, id="narrow"),
        pytest.param(80, {"rate", "out", "in", "type", "exporter"}, False, id="a terminal of old"),
    ],
)
def test_a_narrow_terminal(width: int, left_out: set[str], *, dated: bool) -> None:
    """Where not all columns fit, the less telling ones are left out, and the date of the time."""
    row = {**TCP, "in_if_name": "Te0", "dst_addr": address("198.51.100.8"), "dst_port": 50000}
    heading, line = FlowTable(width=width).lines(table(row)).plain.splitlines()
    assert set(heading.split()) == {each.title for each in HEADINGS if each.title} - left_out
    assert line.startswith("2023-11-14 22:13:20.123 " if dated else "22:13:20.123 ")
    assert heading.index("source") == line.index("198.51.100.7")
    assert FlowTable(width=width).lines(table({"bytes": 1})).plain.splitlines()[1].startswith("- ")
