"""Sums within one batch, over keys and a bucket of the time of reception. Pure: a table in, a table out.

What comes out are partial sums: rows of different batches with equal keys and bucket *add up* (the counters by `sum`,
`time_flow_start` by `min`, `time_flow_end` by `max`), and give the same however the records were batched. No window
lives across batches, so a crash loses nothing. The same records in the same order give the same table, order of rows
included: they stand in the order in which their keys first appear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shared.record import ADDRESS, COLUMN, TIME, Column, schema_of

Numbers = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.generic)

BUCKET: Final = "time_bucket"
RECORDS: Final = "records"
WITHOUT_RATE: Final = "records_without_rate"
BYTES_ESTIMATED: Final = "bytes_estimated"
PACKETS_ESTIMATED: Final = "packets_estimated"
COUNTERS: Final = ("bytes", "packets", "flows")
FIRST, LAST = "time_flow_start", "time_flow_end"
RATE, RECEIVED, DUPLICATE = "sampling_rate", "time_received", "duplicate"

SUMS: Final = frozenset({*COUNTERS, RECORDS, WITHOUT_RATE, BYTES_ESTIMATED, PACKETS_ESTIMATED})
"""Columns of the outcome that add up."""

PROFILES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "prefix": ("src_addr", "dst_addr"),
        "as_pair": ("src_as", "dst_as"),
        "application": ("application_id", "application_name"),
        "sgt_pair": ("src_sgt", "src_sgt_name", "dst_sgt", "dst_sgt_name"),
    }
)
"""Named sets of keys; the first has its addresses cut to prefixes."""

PREFIX_LENGTHS: Final[Mapping[str, str]] = MappingProxyType({"src_addr": "src_net_len", "dst_addr": "dst_net_len"})
"""Addresses that can be cut to prefixes, each with the length of the prefix that the router has for it."""

LARGEST: Final = 2**64 - 1
HALF: Final = np.uint64(32)
LOW: Final = np.uint64(2**32 - 1)
HIGH_LIMIT: Final = np.uint64(2**33)
"""Upper halves are cut here, beyond what fits: so their sum over a batch has no more than 64 bits."""

_ORDER: Final = "order"
_OWN: Final[Mapping[str, Column]] = MappingProxyType(
    {
        column.name: column
        for column in (
            Column(BUCKET, TIME, "begin of the span of time in which the records were received", RECEIVED),
            Column(FIRST, TIME, "first packet of all flows", "time_flow_start"),
            Column(LAST, TIME, "last packet of all flows", "time_flow_end"),
            Column("src_net_len", pa.uint8(), "length of the prefix in `src_addr`", "src_net_len, configuration"),
            Column("dst_net_len", pa.uint8(), "length of the prefix in `dst_addr`", "dst_net_len, configuration"),
            Column(BYTES_ESTIMATED, pa.uint64(), "sum of bytes times sampling rate", "bytes", "bytes"),
            Column(PACKETS_ESTIMATED, pa.uint64(), "sum of packets times sampling rate", "packets", "packets"),
            Column(WITHOUT_RATE, pa.uint64(), "records of unknown sampling rate, estimated as unsampled", RATE),
            Column(RECORDS, pa.uint64(), "records that were added up", "all"),
        )
    }
)


def why_no_key(name: str) -> str | None:
    """Say why a column of the record cannot be a key; None when it can."""
    if name in COUNTERS:
        return "is what is added up"
    if name in {FIRST, LAST}:
        return "is kept as the first or last time of all flows"
    if name == RECEIVED:
        return "is told by the bucket of time"
    if name == "record_id":
        return "is another one in each record"
    kind = COLUMN[name].type
    if pa.types.is_nested(kind):
        return f"holds a {'map' if pa.types.is_map(kind) else 'list'} in each record, which no sums are kept by"
    return None


@dataclass(frozen=True, slots=True)
class Prefixes:
    """How long the prefixes are that addresses are cut to.

    ``of_route``: as the record says, where it does (0 says nothing: exporters without routes send it too).
    """

    ipv4: int = 24
    ipv6: int = 48
    of_route: bool = True


@dataclass(frozen=True, slots=True)
class AggregateRule:
    """What is added up. ``keys`` are columns of the record for which :func:`why_no_key` has no reason."""

    keys: tuple[str, ...]
    bucket_seconds: int = 60
    estimate: bool = True
    prefixes: Prefixes | None = None
    """Source and destination addresses among the keys are cut to these; None leaves them whole."""
    include_duplicates: bool = False
    """Whether records that are marked as duplicates are added up too."""


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The sums of one batch, and numbers of what they are made of."""

    table: pa.Table
    records: int
    """Records that were added up; how much fewer rows there are is what was saved."""
    duplicates: int
    """Records that were left out, since they are marked as duplicates."""
    without_rate: int
    """Records that count in estimates as if they were not sampled, since their rate is not known."""
    saturated: int
    """Sums that do not fit into 64 bits, and are the largest number that does: counters that make no sense."""


class Aggregation:
    """Adds up batches, one by one, each by itself; ``schema`` is that of every outcome."""

    def __init__(self, rule: AggregateRule) -> None:
        self._rule = rule
        self._bucket_ns = rule.bucket_seconds * 1_000_000_000
        cut = () if rule.prefixes is None else tuple(key for key in rule.keys if key in PREFIX_LENGTHS)
        self._cut = {address: PREFIX_LENGTHS[address] for address in cut}
        """Addresses that are cut to prefixes, and the columns of their lengths."""
        # A length that is a key too stands with its address.
        self._keys = [key for key in rule.keys if key not in self._cut.values()]
        self.schema = _schema(self._keys, self._cut, estimate=rule.estimate)

    def apply(self, table: pa.Table) -> Aggregated:
        """Add up a batch, whose columns are any of the record's."""
        records, duplicates = self._counted(table)
        if not records.num_rows:
            return Aggregated(self.schema.empty_table(), 0, duplicates, 0, 0)
        keys = self._grouping(records)
        summing = _Summing()
        for name in COUNTERS:
            summing.add(name, _column(records, name))
        without_rate = self._estimate(summing, records) if self._rule.estimate else 0
        columns = {**{name: key.column for name, key in keys.items()}, **summing.columns}
        columns |= {name: _column(records, name) for name in (FIRST, LAST)}
        columns[_ORDER] = pa.array(np.arange(records.num_rows, dtype=np.int64))
        calls = [*((name, "sum") for name in summing.columns), (FIRST, "min"), (LAST, "max"), (_ORDER, "min")]
        grouped = pa.table(columns).group_by(list(keys), use_threads=False).aggregate([*calls, ([], "count_all")])
        # Where a row stands must not depend on how Arrow groups.
        grouped = grouped.take(pc.sort_indices(grouped[f"{_ORDER}_min"])).combine_chunks()
        made = {name: key.restored(_whole(grouped[name])) for name, key in keys.items()}
        made |= {FIRST: grouped[f"{FIRST}_min"], LAST: grouped[f"{LAST}_max"], RECORDS: grouped["count_all"]}
        sums, saturated = summing.sums(grouped)
        made |= sums
        arrays = [made[field.name].cast(field.type) for field in self.schema]
        return Aggregated(pa.table(arrays, schema=self.schema), records.num_rows, duplicates, without_rate, saturated)

    def _counted(self, table: pa.Table) -> tuple[pa.Table, int]:
        """The records that count, with the columns that are needed, and how many do not."""
        needed = {*self._keys, *self._cut.values(), *COUNTERS, FIRST, LAST, RATE, RECEIVED, DUPLICATE}
        records = table.select([name for name in table.column_names if name in needed])
        if self._rule.include_duplicates or DUPLICATE not in table.column_names:
            return records, 0
        counts = pc.invert(records[DUPLICATE].fill_null(False))
        left_out = records.num_rows - (pc.sum(counts).as_py() or 0)
        return (records.filter(counts) if left_out else records), left_out

    def _grouping(self, records: pa.Table) -> dict[str, _Key]:
        """The keys of each record in a form that groups fast."""
        keys = {BUCKET: _Key(self._bucket(_column(records, RECEIVED)))}
        for name in self._keys:
            column = _column(records, name)
            if self._rule.prefixes is not None and name in self._cut:
                addresses, lengths = _prefixes(column, _column(records, self._cut[name]), self._rule.prefixes)
                keys[name], keys[self._cut[name]] = _Key(addresses), _Key(lengths)
            elif pa.types.is_dictionary(column.type):
                keys[name] = _Key(*_codes(column))
            else:
                keys[name] = _Key(column)
        return keys

    def _bucket(self, times: pa.TimestampArray) -> pa.TimestampArray:
        ns = _values(times, np.int64)
        return _array(ns - ns % self._bucket_ns, TIME, times)

    def _estimate(self, summing: _Summing, records: pa.Table) -> int:
        """Add bytes and packets times rate; returns how many records have none."""
        column = _column(records, RATE)
        rate = _values(column.fill_null(0), np.uint32).astype(np.uint64)
        unknown = rate == 0
        missing = int(np.count_nonzero(unknown))
        if missing:
            rate[unknown] = 1
        for name, estimated in (("bytes", BYTES_ESTIMATED), ("packets", PACKETS_ESTIMATED)):
            summing.add(estimated, _column(records, name), rate)
        summing.columns[WITHOUT_RATE] = pa.array(unknown.view(np.uint8))
        return missing


@dataclass(frozen=True, slots=True)
class _Key:
    """A key as it is grouped by: the column itself, or numbers of distinct ``values``."""

    column: pa.Array
    values: pa.Array | None = None

    def restored(self, grouped: pa.Array) -> pa.Array:
        """The column that these keys of groups stand for; its dictionary has what is in use, in order of appearance."""
        return grouped if self.values is None else self.values.take(grouped).dictionary_encode()


class _Summing:
    """Columns whose sums by group are exact, or known to be too large."""

    def __init__(self) -> None:
        self.columns: dict[str, pa.Array] = {}
        self._split: list[str] = []

    def add(self, name: str, column: pa.Array, factor: Numbers | None = None) -> None:
        """Take in a column of counters, times a factor for each row."""
        values = _values(column, np.uint64)
        if column.null_count:
            values = np.where(column.is_valid().to_numpy(zero_copy_only=False), values, 0)
        most = int(values.max()) * (1 if factor is None else int(factor.max()))
        if most * len(values) <= LARGEST:
            # The usual case: no sum of these can be too large.
            self.columns[name] = column if factor is None else _array(values * factor, pa.uint64(), column)
            return
        high, low = values >> HALF, values & LOW
        if factor is not None:
            low = low * factor
            high = high * factor + (low >> HALF)
            low &= LOW
        self.columns[f"{name}_high"] = _array(np.minimum(high, HIGH_LIMIT), pa.uint64(), column)
        self.columns[f"{name}_low"] = _array(low, pa.uint64(), column)
        self._split.append(name)

    def sums(self, grouped: pa.Table) -> tuple[dict[str, pa.Array], int]:
        """The sums of each group, null where no row has a value; and how many are too large."""
        made = {name: grouped[f"{name}_sum"] for name in self.columns if f"{name}_sum" in grouped.column_names}
        saturated = 0
        for name in self._split:
            highs, lows = (_whole(made.pop(f"{name}_{half}")) for half in ("high", "low"))
            low = _values(lows.fill_null(0), np.uint64)
            high = _values(highs.fill_null(0), np.uint64) + (low >> HALF)
            over = high > LOW
            saturated += int(np.count_nonzero(over))
            total = np.where(over, np.uint64(LARGEST), high << HALF | low & LOW)
            made[name] = _array(total, pa.uint64(), lows)
        return made, saturated


def _schema(keys: Sequence[str], cut: Mapping[str, str], *, estimate: bool) -> pa.Schema:
    columns = [_OWN[BUCKET]]
    for key in keys:
        columns.append(COLUMN[key])
        if key in cut:
            columns.append(_OWN[cut[key]])
    columns += [_OWN[FIRST], _OWN[LAST], *(COLUMN[name] for name in COUNTERS)]
    if estimate:
        columns += [_OWN[BYTES_ESTIMATED], _OWN[PACKETS_ESTIMATED], _OWN[WITHOUT_RATE]]
    return schema_of([*columns, _OWN[RECORDS]])


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column in one piece; of nulls where the table does not have it."""
    if name not in table.column_names:
        return pa.nulls(table.num_rows, COLUMN[name].type)
    return _whole(table[name])


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        # Not unified by Arrow, which refuses a dictionary that has a null among its values.
        return pa.concat_arrays(column.cast(column.type.value_type).chunks).dictionary_encode()
    return pa.concat_arrays(column.chunks)


def _values(column: pa.Array, kind: type[Number]) -> npt.NDArray[Number]:
    """The memory of a column of numbers; what stands where it is null means nothing."""
    return np.frombuffer(column.buffers()[1], kind)[column.offset :][: len(column)]


def _array(values: npt.NDArray[np.generic], kind: pa.DataType, like: pa.Array) -> pa.Array:
    """A column over the memory of ``values``, null where ``like`` is."""
    valid = None
    if like.null_count:
        valid = pa.py_buffer(np.packbits(like.is_valid().to_numpy(zero_copy_only=False), bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def _codes(column: pa.DictionaryArray) -> tuple[pa.Array, pa.Array]:
    """Numbers of a dictionary column's values, of which no two are the same, and the values."""
    distinct = column.dictionary.dictionary_encode()
    return distinct.indices.take(column.indices), distinct.dictionary


def _masks() -> Numbers:
    """For each length of a prefix the bits that it keeps, [129, 2], in the byte order of addresses."""
    bits = np.arange(128) < np.arange(129)[:, None]
    return np.packbits(bits, axis=1).view(np.uint64)


MASKS: Final = _masks()
MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff" + bytes(4), np.uint32)[2]
"""The third quarter of an address of IPv4."""


def _prefixes(addresses: pa.FixedSizeBinaryArray, told: pa.UInt8Array, rule: Prefixes) -> tuple[pa.Array, pa.Array]:
    """Addresses cut to their prefixes, and the lengths of these; IPv4 has those of IPv4."""
    count = len(addresses)
    whole = np.frombuffer(addresses.buffers()[1], np.uint64).reshape(-1, 2)[addresses.offset :][:count]
    ipv4 = (whole[:, 0] == 0) & (whole.view(np.uint32)[:, 2] == MAPPED)
    length = np.where(ipv4, np.uint8(rule.ipv4), np.uint8(rule.ipv6))
    if rule.of_route and told.null_count < count:
        route = _values(told.fill_null(0), np.uint8)
        length = np.where((route > 0) & (route <= np.where(ipv4, np.uint8(32), np.uint8(128))), route, length)
    cut = whole & MASKS[length + np.where(ipv4, np.uint8(96), np.uint8(0))]
    return _array(cut, ADDRESS, addresses), _array(length, pa.uint8(), addresses)
