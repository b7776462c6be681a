"""Addresses, times and records as text."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.record import SCHEMA
from shared.text import format_addresses, format_identities, format_macs, format_times, json_lines, json_rows

MAPPED = bytes(10) + b"\xff\xff"


def address(text: str) -> bytes:
    """The 16 bytes of an address, IPv4 mapped."""
    parsed = ipaddress.ip_address(text)
    return parsed.packed if parsed.version == 6 else MAPPED + parsed.packed


def by_ipaddress(packed: bytes) -> str:
    """What the standard library makes of 16 bytes, mapped IPv4 as IPv4."""
    parsed = ipaddress.IPv6Address(packed)
    return str(parsed.ipv4_mapped or parsed)


groups_of_zeros_and_others = st.lists(
    st.sampled_from([0, 0, 0, 1, 0xF, 0x10, 0xFF, 0x100, 0xFFF, 0x1000, 0xFFFF]), min_size=8, max_size=8
).map(lambda groups: b"".join(group.to_bytes(2, "big") for group in groups))
some_address = st.one_of(
    st.binary(min_size=16, max_size=16),
    groups_of_zeros_and_others,
    st.binary(min_size=4, max_size=4).map(MAPPED.__add__),
    st.binary(min_size=4, max_size=4).map(bytes(12).__add__),
    st.binary(min_size=4, max_size=4).map((bytes(8) + b"\xff\xff\0\0").__add__),
)


class TestAddresses:
    """Addresses of 16 bytes."""

    @pytest.mark.parametrize(
        ("packed", "text"),
        [
            pytest.param(address("0.0.0.0"), "0.0.0.0", id="smallest IPv4"),
            pytest.param(address("255.255.255.255"), "255.255.255.255", id="largest IPv4"),
            pytest.param(address("10.0.9.100"), "10.0.9.100", id="octets of one, two and three digits"),
            pytest.param(bytes(16), "::", id="all zeros"),
            pytest.param(address("::1"), "::1", id="zeros before"),
            pytest.param(address("1::"), "1::", id="zeros behind"),
            pytest.param(address("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1", id="the first of equal runs"),
            pytest.param(address("2001:0:0:1:0:0:0:1"), "2001:0:0:1::1", id="the longest run"),
            pytest.param(address("2001:db8:0:1:1:1:1:1"), "2001:db8:0:1:1:1:1:1", id="one zero group stays"),
            pytest.param(address("0:1:2:3:4:5:6:7"), "0:1:2:3:4:5:6:7", id="one zero group in front stays"),
            pytest.param(address("1:2:3:4:5:6:7:0"), "1:2:3:4:5:6:7:0", id="one zero group at the end stays"),
            pytest.param(address("2001:0DB8::00AB"), "2001:db8::ab", id="lower case, no leading zeros"),
            pytest.param(b"\xff" * 16, ":".join(["ffff"] * 8), id="the longest"),
            pytest.param(bytes(12) + bytes([1, 2, 3, 4]), "::102:304", id="IPv4-compatible is plain IPv6"),
            pytest.param(bytes(10) + b"\xff\xfe\1\2\3\4", "::fffe:102:304", id="nearly mapped"),
        ],
    )
    def test_form(self, packed: bytes, text: str) -> None:
        """An address is shown in the form of RFC 5952, a mapped one as IPv4."""
        assert format_addresses(pa.array([packed], pa.binary(16))).to_pylist() == [text]

    def test_every_pattern_of_zero_groups(self) -> None:
        """Whichever groups are zero, the shortening is that of the standard library."""
        rows = [
            b"".join(bytes([0, 0]) if bits >> at & 1 else bytes([at, 0x0A]) for at in range(8)) for bits in range(256)
        ]
        assert format_addresses(pa.array(rows, pa.binary(16))).to_pylist() == [by_ipaddress(row) for row in rows]

    def test_every_octet_in_every_place(self) -> None:
        """All 256 values of an octet are right in all four places."""
        rows = [
            MAPPED + bytes(value if at == place else 7 for at in range(4)) for place in range(4) for value in range(256)
        ]
        assert format_addresses(pa.array(rows, pa.binary(16))).to_pylist() == [by_ipaddress(row) for row in rows]

    def test_every_group(self) -> None:
        """All 65,536 values of a group are right, with columns longer than a block."""
        rows = [b"\x20\x01" + value.to_bytes(2, "big") * 7 for value in range(1 << 16)]
        assert format_addresses(pa.array(rows, pa.binary(16))).to_pylist() == [by_ipaddress(row) for row in rows]

    @given(st.lists(st.none() | some_address, max_size=40), st.integers(0, 5))
    def test_agrees_with_the_standard_library(self, rows: list[bytes | None], begin: int) -> None:
        """Any mixture of addresses and nulls, sliced anywhere, reads as the standard library writes it."""
        column = pa.array(rows, pa.binary(16)).slice(min(begin, len(rows)))
        formatted = format_addresses(column)
        formatted.validate(full=True)
        assert formatted.to_pylist() == [row and by_ipaddress(row) for row in rows[begin:]]

    def test_chunks(self) -> None:
        """A column in chunks is formatted as one."""
        chunks = pa.chunked_array([[address("192.0.2.1")], [], [address("2001:db8::1")]], pa.binary(16))
        assert format_addresses(chunks).to_pylist() == ["192.0.2.1", "2001:db8::1"]

    def test_other_types_are_refused(self) -> None:
        """A column of another width is an error of the caller, not garbage."""
        with pytest.raises(TypeError, match=r"fixed_size_binary\[16\]"):
            format_addresses(pa.array([b"1234"], pa.binary(4)))


class TestMacsAndIdentities:
    """What is written in hex digits."""

    @given(st.lists(st.none() | st.binary(min_size=6, max_size=6), max_size=20))
    def test_macs(self, rows: list[bytes | None]) -> None:
        """A MAC address is six pairs of lower-case digits, joined by colons."""
        formatted = format_macs(pa.array(rows, pa.binary(6)))
        formatted.validate(full=True)
        assert formatted.to_pylist() == [row and row.hex(":") for row in rows]

    @given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 3))
    def test_identities(self, rows: list[int | None], begin: int) -> None:
        """An identity is 16 hex digits, with its leading zeros."""
        formatted = format_identities(pa.array(rows, pa.uint64()).slice(begin))
        formatted.validate(full=True)
        assert formatted.to_pylist() == [None if row is None else f"{row:016x}" for row in rows[begin:]]


class TestTimes:
    """Timestamps of any unit."""

    @pytest.mark.parametrize(
        ("unit", "value", "text"),
        [
            pytest.param("s", 0, "1970-01-01T00:00:00Z", id="seconds have no fraction"),
            pytest.param("ms", 1_700_000_000_120, "2023-11-14T22:13:20.120Z", id="milliseconds show three digits"),
            pytest.param("ms", 1_700_000_000_000, "2023-11-14T22:13:20.000Z", id="milliseconds that are zero, too"),
            pytest.param("ns", 1_700_000_000_000_000_000, "2023-11-14T22:13:20Z", id="nanoseconds without a fraction"),
            pytest.param("ns", 1_700_000_000_120_000_000, "2023-11-14T22:13:20.120Z", id="a fraction of milliseconds"),
            pytest.param("ns", 1_700_000_000_000_120_000, "2023-11-14T22:13:20.000120Z", id="of microseconds"),
            pytest.param("ns", 1_700_000_000_000_000_120, "2023-11-14T22:13:20.000000120Z", id="of nanoseconds"),
            pytest.param("ns", 1_700_000_000_100_000_001, "2023-11-14T22:13:20.100000001Z", id="with zeros inside"),
            pytest.param("ns", -1, "1969-12-31T23:59:59.999999999Z", id="before 1970"),
            pytest.param("ns", 2**63 - 1, "2262-04-11T23:47:16.854775807Z", id="the last nanosecond"),
            pytest.param("us", 1_000, "1970-01-01T00:00:00.001Z", id="microseconds show what they need"),
            pytest.param("ms", 0xFFFFFFFF * 1000, "2106-02-07T06:28:15.000Z", id="the last second of 32 bits"),
        ],
    )
    def test_form(self, unit: str, value: int, text: str) -> None:
        """A time is RFC 3339 in UTC, with the fraction that it has."""
        column = pa.array([value], pa.int64()).view(pa.timestamp(unit, "UTC"))
        assert format_times(column).to_pylist() == [text]

    @given(st.lists(st.none() | st.integers(-(2**63) + 1, 2**63 - 1), max_size=20), st.integers(0, 3))
    def test_reads_back(self, values: list[int | None], begin: int) -> None:
        """Nothing of a time is lost, and no text ends with three zeros of fraction."""
        column = pa.array(values, pa.int64()).view(pa.timestamp("ns", "UTC")).slice(begin)
        formatted = format_times(column)
        formatted.validate(full=True)
        for value, text in zip(values[begin:], formatted.to_pylist(), strict=True):
            if value is None:
                assert text is None
                continue
            whole, _, fraction = text.removesuffix("Z").partition(".")
            seconds = datetime.fromisoformat(whole + "+00:00") - datetime(1970, 1, 1, tzinfo=UTC)
            read = (seconds.days * 86400 + seconds.seconds) * 10**9 + int(fraction.ljust(9, "0"))
            assert read == value
            assert len(fraction) in {0, 3, 6, 9}
            assert fraction == "" or not fraction.endswith("000")


def record() -> dict[str, object]:
    """One value for every kind of column that there is."""
    return {
        "type": "NETFLOW_V9",
        "record_id": 0xABC,
        "time_received": 1_700_000_000_000_000_120,
        "time_exported": 1_700_000_000_000,
        "sampler_address": address("192.0.2.1"),
        "bytes": 2**64 - 1,
        "src_addr": address("2001:db8::1"),
        "proto": 6,
        "etype": 0x0800,
        "src_mac": bytes.fromhex("0a0b0c0d0e0f"),
        "as_path": [64512, 4_294_967_295],
        "bgp_communities": [],
        "application_id": "13:453",
        "application_name": 'quoted "name"\n\x1b[31m é\u2028',
        "duplicate": False,
        "extra": [("nbar_host", 'a"b'), ("x", "")],
    }


def table(rows: list[dict[str, object]]) -> pa.Table:
    """Rows as columns of the record's types."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)


class TestJson:
    """Whole records."""

    def test_every_kind_of_column(self) -> None:
        """Each kind of column has the form that the record's description gives it; nulls are left out."""
        assert list(json_rows(table([record()]))) == [
            {
                "type": "NETFLOW_V9",
                "record_id": "0000000000000abc",
                "time_received": "2023-11-14T22:13:20.000000120Z",
                "time_exported": "2023-11-14T22:13:20.000Z",
                "sampler_address": "192.0.2.1",
                "bytes": 2**64 - 1,
                "src_addr": "2001:db8::1",
                "etype": 2048,
                "proto": 6,
                "src_mac": "0a:0b:0c:0d:0e:0f",
                "as_path": [64512, 4_294_967_295],
                "bgp_communities": [],
                "application_id": "13:453",
                "application_name": 'quoted "name"\n\x1b[31m é\u2028',
                "duplicate": False,
                "extra": {"nbar_host": 'a"b', "x": ""},
            }
        ]

    def test_one_line_a_record(self) -> None:
        """Each record is one line, in the order of the columns, whatever its text holds."""
        lines = json_lines(table([record(), {"proto": 17}, {}])).split(b"\n")
        assert len(lines) == 4
        assert list(orjson.loads(lines[0]))[:3] == ["type", "record_id", "time_received"]
        assert lines[1:] == [b'{"proto":17}', b"{}", b""]

    @settings(suppress_health_check=[HealthCheck.too_slow])  # the first text of a machine builds a table of Unicode
    @given(
        st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(["IPFIX", "NETFLOW_V5"]),
                    "bytes": st.integers(0, 2**64 - 1),
                    "src_vlan": st.integers(0, 65535),
                    "application_id": st.text(),
                    "user_name": st.text(),
                    "mpls_labels": st.lists(st.integers(0, 2**20 - 1), max_size=3),
                    "duplicate": st.booleans(),
                    "extra": st.dictionaries(st.text(), st.text(), max_size=2).map(lambda pairs: list(pairs.items())),
                },
            ),
            max_size=8,
        ),
        st.integers(0, 3),
    )
    def test_any_values(self, rows: list[dict[str, object]], begin: int) -> None:
        """Whatever text and numbers come, sliced anywhere, the JSON says the same, and is one line each."""
        whole = table(rows).slice(begin)
        expected = [{**row, "extra": dict(row["extra"])} if "extra" in row else row for row in rows[begin:]]  # type: ignore[call-overload]
        assert list(json_rows(whole)) == expected
        assert json_lines(whole).count(b"\n") == len(expected)

    def test_more_than_a_block(self) -> None:
        """Many rows come in their order."""
        numbers = np.arange(40_000, dtype=np.uint64)
        rows = json_rows(pa.table({"bytes": numbers}))
        assert [row["bytes"] for row in rows] == numbers.tolist()

    def test_a_batch_without_columns(self) -> None:
        """A batch that has rows and no columns has empty objects."""
        assert json_lines(table([{}, {}]).select([])) in {b"", b"{}\n{}\n"}

    def test_numbers_that_json_lacks(self) -> None:
        """What is no number of JSON is null, and what has no form is told in digits."""
        counters = pa.table({"load": pa.array([1.5, float("nan")]), "blob": pa.array([b"\1\2", b""], pa.binary())})
        assert list(json_rows(counters)) == [{"load": 1.5, "blob": "0102"}, {"load": None, "blob": ""}]

    def test_floats_of_32_bits(self) -> None:
        """They have the digits that tell them apart from others of their size, and no more."""
        loads = [0.1, 0.0, 1.5, 1e20, 16777216.0, 3.4028235e38, float("nan"), float("inf"), None]
        lines = json_lines(pa.table({"load": pa.array(loads, pa.float32())})).decode().splitlines()
        assert lines[0] == '{"load":0.1}'
        assert [orjson.loads(line).get("load") for line in lines] == [*loads[:6], None, None, None]
