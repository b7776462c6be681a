"""Sums of a batch: against plain arithmetic, and that those of parts add up to those of the whole."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregate import LARGEST, PROFILES, SUMS, Aggregated, AggregateRule, Aggregation, Prefixes, why_no_key
from shared.record import COLUMN, COLUMNS
from tests.builders import mapped
from tests.forwarder.records import RECEIVED_NS

Row = dict[str, Any]
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
FIRST, LAST = "time_flow_start", "time_flow_end"
ESTIMATES: Final = {"bytes_estimated": "bytes", "packets_estimated": "packets"}
ADDRESSES: Final = [
    mapped(text) for text in ("192.0.2.1", "192.0.2.130", "10.0.0.0", "255.255.255.255", "2001:db8::1", "2001:db8:0:1::1", "::1")
]  # fmt: skip
LENGTHS: Final = {"src_addr": "src_net_len", "dst_addr": "dst_net_len"}


def table(rows: Sequence[Row], names: Iterable[str] | None = None) -> pa.Table:
    """Records with these columns of the record; times in nanoseconds."""
    chosen = [name for name in COLUMN if name in (set(names) if names else {name for row in rows for name in row})]
    arrays = [pa.array([row.get(name) for row in rows], COLUMN[name].type) for name in chosen]
    return pa.table(arrays, names=chosen)


def rows_of(made: pa.Table) -> list[Row]:
    """The rows of a table as dictionaries; times in nanoseconds."""
    columns = {
        field.name: made[field.name].cast(pa.int64()) if pa.types.is_timestamp(field.type) else made[field.name]
        for field in made.schema
    }
    return pa.table(columns).to_pylist() if made.num_rows else []


# --- plain arithmetic


def plain(rows: Sequence[Row], rule: AggregateRule) -> list[Row]:
    """The sums, row by row."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    names = ["time_bucket", *rule.keys]
    if rule.prefixes is not None:
        names = ["time_bucket"]
        for key in (key for key in rule.keys if not (key in LENGTHS.values() and cut_of(key) in rule.keys)):
            names += [key, LENGTHS[key]] if key in LENGTHS else [key]
    for row in rows:
        if row.get("duplicate") and not rule.include_duplicates:
            continue
        told = {**row, "time_bucket": bucket(row.get("time_received"), rule.bucket_seconds)}
        if rule.prefixes is not None:
            for address, length in LENGTHS.items():
                if address in rule.keys:
                    told[address], told[length] = prefix(row.get(address), row.get(length), rule.prefixes)
        groups.setdefault(tuple(told.get(name) for name in names), []).append(row)
    return [
        dict(zip(names, key, strict=True)) | sums(members, estimate=rule.estimate) for key, members in groups.items()
    ]


def cut_of(length: str) -> str:
    """The address that a length is of."""
    return next(address for address, name in LENGTHS.items() if name == length)


def bucket(time: int | None, seconds: int) -> int | None:
    """Where a bucket begins."""
    return None if time is None else time // (seconds * SECOND) * seconds * SECOND


def prefix(address: bytes | None, told: int | None, rule: Prefixes) -> tuple[bytes | None, int | None]:
    """An address cut to its prefix, and the length of that."""
    if address is None:
        return None, None
    whole = ipaddress.IPv6Address(address)
    bits = 128 if whole.ipv4_mapped is None else 32
    length = rule.ipv6 if bits == 128 else rule.ipv4
    if rule.of_route and told is not None and 0 < told <= bits:
        length = told
    return ipaddress.IPv6Network((address, length + 128 - bits), strict=False).network_address.packed, length


def sums(members: Sequence[Row], *, estimate: bool) -> Row:
    """What is added up of records with equal keys."""
    made: Row = {
        FIRST: min((row[FIRST] for row in members if row.get(FIRST) is not None), default=None),
        LAST: max((row[LAST] for row in members if row.get(LAST) is not None), default=None),
        **{name: total(row.get(name) for row in members) for name in ("bytes", "packets", "flows")},
    }
    if estimate:
        for name, counter in ESTIMATES.items():
            counted = [(row.get(counter), row.get("sampling_rate") or 1) for row in members]
            made[name] = total(None if value is None else value * rate for value, rate in counted)
        made["records_without_rate"] = sum(not row.get("sampling_rate") for row in members)
    return {**made, "records": len(members)}


def total(values: Iterable[int | None]) -> int | None:
    """The sum of what is there, as far as 64 bits go; None when nothing is."""
    there = [value for value in values if value is not None]
    return min(sum(there), LARGEST) if there else None


def added_up(made: Iterable[Row], rule: AggregateRule) -> dict[tuple[Any, ...], Row]:
    """Rows of several batches added up, as a query does it, by their keys."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    measures = {*SUMS, FIRST, LAST}
    for row in made:
        groups.setdefault(tuple(value for name, value in row.items() if name not in measures), []).append(row)
    return {
        key: {
            FIRST: min((row[FIRST] for row in members if row[FIRST] is not None), default=None),
            LAST: max((row[LAST] for row in members if row[LAST] is not None), default=None),
            **{name: total(row[name] for row in members) for name in members[0] if name in SUMS},
        }
        for key, members in groups.items()
    }


# --- any records


def values(name: str) -> st.SearchStrategy[Any]:
    """A few values of a column, so that some repeat."""
    kind = COLUMN[name].type
    if pa.types.is_timestamp(kind):
        scale = SECOND if kind.unit == "ns" else 1000
        return st.integers(-3, 200).map(lambda seconds: RECEIVED_NS // SECOND * scale + seconds * scale)
    if pa.types.is_integer(kind):
        largest = 2**40 if kind == pa.uint64() else 2**kind.bit_width - 1
        few = {"sampling_rate": [0, 1, 7, largest]}
        if name in LENGTHS.values():
            few[name] = [0, 1, 8, 24, 32, 33, 64, 128, 129, 255]
        return st.sampled_from(few.get(name, [0, 1, 100, largest]))
    if pa.types.is_fixed_size_binary(kind):
        return st.sampled_from(
            ADDRESSES if kind.byte_width == 16 else [bytes(kind.byte_width), b"\xff" * kind.byte_width]
        )
    return st.booleans() if pa.types.is_boolean(kind) else st.sampled_from(["", "a", "München"])


KEYS: Final = tuple(column.name for column in COLUMNS if why_no_key(column.name) is None)
MEASURED: Final = ("time_received", FIRST, LAST, "sampling_rate", "bytes", "packets", "flows", "duplicate")


@st.composite
def rules(draw: st.DrawFn) -> AggregateRule:
    """Any rule."""
    likely = st.sampled_from(["src_addr", "dst_addr", "src_net_len", "in_if_boundary", "application_id", "src_as"])
    keys = draw(st.lists(likely | st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    return AggregateRule(
        keys=tuple(keys),
        bucket_seconds=draw(st.sampled_from([1, 7, 60, 86400])),
        estimate=draw(st.booleans()),
        prefixes=draw(
            st.none() | st.builds(Prefixes, ipv4=st.integers(1, 32), ipv6=st.integers(1, 128), of_route=st.booleans())
        ),
        include_duplicates=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[AggregateRule, list[Row], list[str]]:
    """A rule, records, and the columns that these have."""
    rule = draw(rules())
    names = draw(st.sets(st.sampled_from(sorted({*rule.keys, *LENGTHS.values(), *MEASURED})), min_size=1))
    # A null in every other column at most: what is null is told apart from what is 0.
    record = st.fixed_dictionaries({name: st.none() | values(name) for name in sorted(names)})
    return rule, draw(st.lists(record, max_size=20)), sorted(names)


@given(batches())
def test_sums_are_those_of_plain_arithmetic(drawn: tuple[AggregateRule, list[Row], list[str]]) -> None:
    """Every rule, any columns, nulls anywhere: the rows, in the order in which their keys first appear."""
    rule, rows, names = drawn
    aggregation = Aggregation(rule)
    made = aggregation.apply(table(rows, names))
    made.table.validate(full=True)
    assert made.table.schema.equals(aggregation.schema, check_metadata=True)
    assert rows_of(made.table) == plain(rows, rule)
    counted = [row for row in rows if rule.include_duplicates or not row.get("duplicate")]
    assert (made.records, made.duplicates) == (len(counted), len(rows) - len(counted))
    assert made.without_rate == sum(rule.estimate and not row.get("sampling_rate") for row in counted)


@given(batches(), st.data())
def test_sums_of_parts_add_up_to_those_of_the_whole(
    drawn: tuple[AggregateRule, list[Row], list[str]], data: st.DataObject
) -> None:
    """However records are shared out among batches, their sums give the same in the end."""
    rule, rows, names = drawn
    aggregation = Aggregation(rule)
    of = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    parts = [[row for row, part in zip(rows, of, strict=True) if part == number] for number in range(4)]
    made = [aggregation.apply(table(part, names)) for part in parts]
    whole = aggregation.apply(table(rows, names))
    assert added_up([row for one in made for row in rows_of(one.table)], rule) == added_up(rows_of(whole.table), rule)
    assert sum(one.records for one in made) == whole.records
    assert sum(one.without_rate for one in made) == whole.without_rate


@given(batches(), st.data())
def test_how_records_lie_in_memory_makes_no_difference(
    drawn: tuple[AggregateRule, list[Row], list[str]], data: st.DataObject
) -> None:
    """In one piece or several with dictionaries of their own, from the middle of others, in threads or not: one table."""
    rule, rows, names = drawn
    whole = Aggregation(rule).apply(table(rows, names))
    cuts = sorted({0, len(rows), *data.draw(st.lists(st.integers(0, len(rows)), max_size=3))})
    pieces = []
    for begin, end in pairwise(cuts):
        around = [rows[-1], *rows[begin:end], rows[0]]
        pieces.append(table(around, names).slice(1, end - begin))
    if pieces:
        again = Aggregation(rule).apply(pa.concat_tables(pieces))
        assert again.table.equals(whole.table, check_metadata=True)
        assert (again.records, again.duplicates) == (whole.records, whole.duplicates)


# --- what a person would look for

RULE: Final = AggregateRule(("src_as",))


def summed(rule: AggregateRule, *rows: Row) -> list[Row]:
    """The sums of records, without what is null."""
    made = rows_of(Aggregation(rule).apply(table(rows)).table)
    return [{name: value for name, value in row.items() if value is not None} for row in made]


def test_counters_are_added_up_by_key_and_bucket() -> None:
    """Bytes, packets, flows and records; the first and the last time; beside them what the sampling rate makes of it."""
    start = RECEIVED_NS // MINUTE * MINUTE
    common = {"src_as": 64500, "packets": 1, "flows": 1, "sampling_rate": 100}
    records = [
        {**common, "time_received": start, "bytes": 40, FIRST: start - 5, LAST: start - 1},
        {**common, "time_received": start + MINUTE - 1, "bytes": 60, FIRST: start - 9, LAST: start - 3},
        {**common, "time_received": start + MINUTE, "bytes": 7, FIRST: start, LAST: start},
    ]
    both = {"bytes": 100, "packets": 2, "flows": 2, "bytes_estimated": 10000, "packets_estimated": 200}
    later = {"bytes": 7, "packets": 1, "flows": 1, "bytes_estimated": 700, "packets_estimated": 100}
    assert summed(RULE, *records) == [
        {"time_bucket": start, "src_as": 64500, FIRST: start - 9, LAST: start - 1, **both, "records_without_rate": 0, "records": 2},
        {"time_bucket": start + MINUTE, "src_as": 64500, FIRST: start, LAST: start, **later, "records_without_rate": 0, "records": 1},
    ]  # fmt: skip


def test_a_rate_that_is_not_known_is_counted() -> None:
    """Such records are estimated as unsampled, and each row says how many there are."""
    records = [{"src_as": 1, "bytes": 10, "sampling_rate": 5}, {"src_as": 1, "bytes": 10}, {"src_as": 2, "bytes": 3}]
    assert summed(RULE, *records) == [
        {"src_as": 1, "bytes": 20, "bytes_estimated": 60, "records_without_rate": 1, "records": 2},
        {"src_as": 2, "bytes": 3, "bytes_estimated": 3, "records_without_rate": 1, "records": 1},
    ]
    assert Aggregation(RULE).apply(table(records)).without_rate == 2


def test_null_is_a_key_like_others_and_is_not_0() -> None:
    """What exporters did not say stays apart."""
    records: list[Row] = [{"src_as": None, "bytes": 1}, {"src_as": 0, "bytes": 2}, {"src_as": None, "bytes": 4}]
    rule = AggregateRule(("src_as",), estimate=False)
    assert summed(rule, *records) == [{"bytes": 5, "records": 2}, {"src_as": 0, "bytes": 2, "records": 1}]


def test_what_was_not_said_is_not_0_in_sums_either() -> None:
    """A sum of counters of which none is there is null; one that is there is enough for a sum."""
    records: list[Row] = [{"src_as": 1, "bytes": None, "packets": None}, {"src_as": 1, "bytes": 4, "packets": None}]
    assert summed(AggregateRule(("src_as",), estimate=False), *records) == [{"src_as": 1, "bytes": 4, "records": 2}]


def test_duplicates_do_not_count_unless_told() -> None:
    """A record that is marked is counted elsewhere."""
    records = [{"src_as": 1, "bytes": 1}, {"src_as": 1, "bytes": 2, "duplicate": True}, {"src_as": 1, "bytes": 4, "duplicate": False}]  # fmt: skip
    assert summed(AggregateRule(("src_as",), estimate=False), *records)[0]["bytes"] == 5
    assert summed(AggregateRule(("src_as",), estimate=False, include_duplicates=True), *records)[0]["bytes"] == 7
    only = Aggregation(RULE).apply(table(records[1:2]))
    assert (only.table.num_rows, only.records, only.duplicates) == (0, 0, 1)


def test_addresses_are_cut_to_prefixes() -> None:
    """By the length that the router has for the route, where it tells one that can be; else by a fixed one."""
    records: list[Row] = [
        {"src_addr": mapped("192.0.2.77"), "src_net_len": 26, "dst_addr": mapped("2001:db8:1:2::3")},
        {"src_addr": mapped("192.0.2.99"), "src_net_len": 26, "dst_addr": mapped("2001:db8:1:ffff::")},
        {"src_addr": mapped("192.0.2.77"), "src_net_len": 0, "dst_addr": mapped("2001:db8:1::")},
        {"src_addr": mapped("192.0.2.77"), "src_net_len": 64, "dst_addr": None},
    ]
    ours = {"dst_addr": mapped("2001:db8:1::"), "dst_net_len": 48}
    rule = AggregateRule(PROFILES["prefix"], estimate=False, prefixes=Prefixes())
    assert summed(rule, *records) == [
        {"src_addr": mapped("192.0.2.64"), "src_net_len": 26, **ours, "records": 2},
        {"src_addr": mapped("192.0.2.0"), "src_net_len": 24, **ours, "records": 1},
        {"src_addr": mapped("192.0.2.0"), "src_net_len": 24, "records": 1},
    ]
    fixed = AggregateRule(("src_addr",), estimate=False, prefixes=Prefixes(16, of_route=False))
    assert summed(fixed, *records) == [{"src_addr": mapped("192.0.0.0"), "src_net_len": 16, "records": 4}]


OVERFLOWS = [
    pytest.param([LARGEST], None, LARGEST, 0, id="the largest"),
    pytest.param([LARGEST, 1], None, LARGEST, 1, id="one more"),
    pytest.param([2**63, 2**63 - 1], None, LARGEST, 0, id="just fits"),
    pytest.param([LARGEST] * 40, None, LARGEST, 1, id="far more"),
    pytest.param([2**32], 2**32 - 1, LARGEST - 2**32 + 1, 0, id="product fits"),
    pytest.param([2**32 + 2], 2**32 - 1, LARGEST, 1, id="product does not"),
    pytest.param([LARGEST] * 3, 2**32 - 1, LARGEST, 2, id="products far beyond"),
]


@pytest.mark.parametrize(("counters", "rate", "expected", "saturated"), OVERFLOWS)
def test_sums_that_do_not_fit_are_the_largest_and_are_told(
    counters: list[int], rate: int | None, expected: int, saturated: int
) -> None:
    """A sum never begins anew at 0, and whoever sees the largest number is told that it is none."""
    rule = AggregateRule(("src_as",), estimate=rate is not None)
    made = Aggregation(rule).apply(table([{"src_as": 1, "bytes": one, "sampling_rate": rate} for one in counters]))
    assert made.table["bytes_estimated" if rate else "bytes"].to_pylist() == [expected]
    assert made.saturated == saturated


@given(st.lists(st.integers(0, LARGEST), min_size=1, max_size=5), st.integers(1, 2**32 - 1))
def test_large_sums_are_exact(counters: list[int], rate: int) -> None:
    """Also where one of them could be too large, the others are exact."""
    records = [{"src_as": at % 3, "bytes": one, "sampling_rate": rate} for at, one in enumerate([*counters, 7])]
    assert rows_of(Aggregation(RULE).apply(table(records)).table) == plain(records, RULE)


def nulls(name: str) -> pa.Array:
    """Two nulls, over memory that is not the same."""
    kind = COLUMN[name].type
    octets = bytes(range(1, 1 + 2 * kind.bit_width // 8))
    return pa.Array.from_buffers(kind, 2, [pa.py_buffer(b"\0"), pa.py_buffer(octets)])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("src_as", RULE),
        ("src_addr", AggregateRule(("src_addr",))),
        ("src_addr", AggregateRule(("src_addr",), prefixes=Prefixes())),
        ("time_received", RULE),
        ("time_exported", AggregateRule(("time_exported",))),
        ("src_mac", AggregateRule(("src_mac",))),
    ],
)
def test_what_lies_under_a_null_means_nothing(name: str, rule: AggregateRule) -> None:
    """Nulls are one group, whatever the exporter's decoder left in their memory."""
    made = Aggregation(rule).apply(pa.table({name: nulls(name), "bytes": pa.array([1, 2], pa.uint64())})).table
    assert made["bytes"].to_pylist() == [3]


def test_counters_and_rates_that_are_null_mean_nothing() -> None:
    """Whatever lies in their memory, nothing is added up, and the rate is not known."""
    columns = {name: nulls(name) for name in ("bytes", "packets", "sampling_rate")}
    (row,) = rows_of(Aggregation(RULE).apply(pa.table(columns)).table)
    assert (row["bytes"], row["bytes_estimated"], row["records_without_rate"]) == (None, None, 2)
    known = pa.table({"bytes": pa.array([1, 2], pa.uint64()), "sampling_rate": nulls("sampling_rate")})
    assert rows_of(Aggregation(RULE).apply(known).table)[0]["bytes_estimated"] == 3


def dictionary(codes: list[int | None], names: list[str | None]) -> pa.Table:
    """Records with a name, over a dictionary as it may come from anywhere."""
    column = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.utf8()))
    return pa.table({"application_name": column, "bytes": pa.array([1] * len(codes), pa.uint64())})


def test_names_are_told_apart_by_what_they_are() -> None:
    """A dictionary may have a name twice, names that nothing uses, or null among its names."""
    parts = [dictionary([2, 0, None], ["x", "unused", "y"]), dictionary([0, 1, 2], ["y", "y", None])]
    rule = AggregateRule(("application_name",), estimate=False)
    made = Aggregation(rule).apply(pa.concat_tables(parts)).table
    assert [(row["application_name"], row["bytes"]) for row in rows_of(made)] == [("y", 3), ("x", 1), (None, 2)]
    assert made["application_name"].chunk(0).dictionary.to_pylist() == ["y", "x"]
    for part in parts:
        assert Aggregation(rule).apply(part).table["bytes"].to_pylist() in ([1, 1, 1], [2, 1])


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_of_columns_that_can_be_keys(profile: str) -> None:
    """And every outcome says what its columns are."""
    assert [why_no_key(name) for name in PROFILES[profile]] == [None] * len(PROFILES[profile])
    schema = Aggregation(AggregateRule(PROFILES[profile])).schema
    assert all(field.metadata[b"description"] for field in schema)


def test_only_lists_maps_sums_and_times_cannot_be_keys() -> None:
    """Everything else can."""
    assert {name for name in COLUMN if why_no_key(name) is not None} == {
        *("time_received", FIRST, LAST, "record_id", "bytes", "packets", "flows"),
        *("as_path", "bgp_communities", "mpls_labels", "extra"),
    }


def test_an_empty_batch_has_no_sums() -> None:
    """And their columns."""
    for empty in (table([], ["src_as", "bytes"]), pa.schema([]).empty_table()):
        made = Aggregation(RULE).apply(empty)
        assert made == Aggregated(Aggregation(RULE).schema.empty_table(), 0, 0, 0, 0)


def test_a_large_batch_is_added_up_whole() -> None:
    """Rows stand in the order of first appearance, and hold all that the records have, also of batches of many records."""
    count = 150_000
    number = np.arange(count)
    records = pa.table(
        {
            "bytes": pa.array(number.astype(np.uint64)),
            "src_as": pa.array((number * 7919 % 1009).astype(np.uint32)),
            "dst_as": pa.array((number // 50_000).astype(np.uint32)),
        }
    )
    made = Aggregation(AggregateRule(PROFILES["as_pair"], estimate=False)).apply(records).table
    keys = list(zip(made["src_as"].to_pylist(), made["dst_as"].to_pylist(), strict=True))
    assert keys == [
        (at * 7919 % 1009, block) for block in range(3) for at in range(block * 50_000, block * 50_000 + 1009)
    ]
    assert pc.sum(made["bytes"]).as_py() == int(number.sum())
    assert pc.sum(made["records"]).as_py() == count
