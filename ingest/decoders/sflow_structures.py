"""sFlow's counter records to columns: the records of one kind are read together, a step a field."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.fault import Fault, Unit
from ingest.decoders.headers import Index, windows, word32
from ingest.decoders.result import Decoded
from ingest.decoders.sflow_counter_elements import (
    MACHINE_TYPES,
    OS_NAMES,
    STRUCTURES,
    Adapters,
    Field,
    Repeated,
    Text,
    Xdr,
)
from ingest.decoders.xdr import Tagged
from shared.counters import COLUMN, COLUMNS
from shared.text import format_macs

MOST_ADAPTERS: Final = 256
"""Adapters of a host that are read, and addresses of an adapter."""

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
Piece = tuple[Index, Values]
"""Values of a list column, and the row of each."""

_WIRE: Final[Mapping[Xdr, tuple[str, int]]] = MappingProxyType(
    {
        Xdr.UNSIGNED: (">u4", 4),
        Xdr.HYPER: (">u8", 8),
        Xdr.INT: (">i4", 4),
        Xdr.FLOAT: (">f4", 4),
        Xdr.OCTET: ("u1", 1),
        Xdr.MAC: ("(6,)u1", 8),
        Xdr.UUID: ("(16,)u1", 16),
        Xdr.MACHINE_TYPE: (">u4", 4),
        Xdr.OS_NAME: (">u4", 4),
    }
)
"""How numpy reads each kind of field, and the bytes that it takes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Fields of a fixed size, one after the other: read in one step."""

    fields: tuple[Field, ...]
    ends: tuple[int, ...]
    """Where each field ends, from the run's begin."""
    dtype: np.dtype[np.void]
    required: int
    """Bytes that there have to be; what is optional comes after them."""

    @property
    def width(self) -> int:
        """Bytes of all fields."""
        return self.ends[-1]


_Part = _Run | Text | Repeated | Adapters


@cache
def _parts(tag: int) -> tuple[_Part, ...]:
    """What a kind of record is made of, its fields of a fixed size put together to runs."""
    structure = STRUCTURES[tag]
    parts: list[_Part] = []
    fields: list[Field] = []
    for part in structure.parts:
        if isinstance(part, Field):
            fields.append(part)
            continue
        if fields:
            parts.append(_run(fields, 0))
            fields = []
        parts.append(part)
    if fields:
        parts.append(_run(fields, structure.optional))
    return tuple(parts)


def _run(fields: list[Field], optional: int) -> _Run:
    widths = [_WIRE[field.xdr][1] for field in fields]
    ends = np.cumsum(widths).tolist()
    dtype = np.dtype(
        {
            "names": [field.column for field in fields],
            "formats": [_WIRE[field.xdr][0] for field in fields],
            "offsets": [end - width for end, width in zip(ends, widths, strict=True)],
            "itemsize": ends[-1],
        }
    )
    return _Run(tuple(fields), tuple(ends), dtype, ends[len(fields) - optional - 1])


@dataclass(slots=True, eq=False)
class _Cells:
    """A column of n rows: values, or [n, width] octets, and which of them there are."""

    values: Values
    valid: Mask


class Sheet:
    """Columns of n samples, filled record by record; what is put later counts."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._cells: dict[str, _Cells] = {}
        self._made: dict[str, pa.Array] = {}

    def put(self, column: str, rows: Index, values: Values, valid: Mask | None = None) -> None:
        """Set a column at ``rows`` where ``valid``."""
        if valid is not None and not valid.all():
            rows, values = rows[valid], values[valid]
        if len(rows) == 0:
            return
        cells = self._cells.get(column)
        if cells is None:
            blank = np.zeros((self.count, *values.shape[1:]), values.dtype.newbyteorder("="))
            cells = self._cells[column] = _Cells(blank, np.zeros(self.count, np.bool_))
        cells.values[rows] = values
        cells.valid[rows] = True

    def put_array(self, column: str, array: pa.Array) -> None:
        """Set a whole column."""
        if array.null_count < self.count:
            self._made[column] = array

    def batch(self) -> pa.RecordBatch:
        """The columns that have any value, in their order."""
        made = self._made | {
            name: columns.primitive(cells.values, COLUMN[name].type, None if cells.valid.all() else cells.valid)
            for name, cells in self._cells.items()
        }
        names = [column.name for column in COLUMNS if column.name in made]
        return pa.RecordBatch.from_arrays([made[name] for name in names], names)


@dataclass(frozen=True, slots=True, eq=False)
class _Located:
    """Where the parts of m records lie."""

    found: Tagged
    places: tuple[Index, ...]
    """Where each part begins, a text or a list behind its length, [m] each."""
    counts: tuple[Index, ...]
    """The length of each text or list, [m]; 1 for runs."""


def put_records(sheet: Sheet, buffer: Octets, tag: int, found: Tagged, decoded: Decoded) -> None:
    """Put what the records of one kind tell into the rows of their samples; those too short for it are lost."""
    parts = _parts(tag)
    located = _locate(parts, buffer, found, decoded)
    # Of several of a kind in one sample the last counts.
    again = np.flatnonzero(located.found.row[:-1] == located.found.row[1:])
    decoded.skip("repeated counter record", located.found.tag[again], STRUCTURES.keys())
    which = np.ones(len(located.found), np.bool_)
    which[again] = False
    found = located.found.take(which)
    if len(found) == 0:
        return
    for part, places, counts in zip(parts, located.places, located.counts, strict=True):
        begin, count = places[which], counts[which]
        if isinstance(part, _Run):
            _put_run(sheet, part, buffer, found, begin)
        elif isinstance(part, Text):
            _put_text(sheet, part.column, buffer, found.row, begin, count)
        elif isinstance(part, Repeated):
            _put_repeated(sheet, part, buffer, found.row, begin, count)
        elif isinstance(part, Adapters):
            cut = _put_adapters(sheet, part, buffer, found, begin, count)
            decoded.fault(Fault.TRUNCATED, Unit.SETS, cut)
        else:
            assert_never(part)


def _locate(parts: tuple[_Part, ...], buffer: Octets, found: Tagged, decoded: Decoded) -> _Located:
    """Find the parts of those records that have all they need to have; the others are counted."""
    alive = np.arange(len(found))
    at, end = found.start, found.start + found.length
    places: list[Index] = []
    counts: list[Index] = []
    for part in parts:
        if isinstance(part, _Run):
            fits = at + part.required <= end
            decoded.fault(Fault.BAD_LENGTH, Unit.SETS, ~fits)
            count, begin = np.ones(len(at), np.int64), at
            after = at + part.width
        else:
            counted = at + 4 <= end
            decoded.fault(Fault.BAD_LENGTH, Unit.SETS, ~counted)
            count = np.zeros(len(at), np.int64)
            count[counted] = word32(windows(buffer, at[counted], 4), 0)
            begin = at + 4
            size = count * _least_bytes(part)
            fits = counted & (begin + size <= end)
            decoded.fault(Fault.TRUNCATED, Unit.SETS, counted & ~fits)
            after = begin + ((size + 3) & ~3)
        places, counts = [each[fits] for each in places], [each[fits] for each in counts]
        places.append(begin[fits])
        counts.append(count[fits])
        alive, at, end = alive[fits], after[fits], end[fits]
    return _Located(found.take(alive), tuple(places), tuple(counts))


def _least_bytes(part: Text | Repeated | Adapters) -> int:
    """Bytes that each item of what is counted takes at least."""
    if isinstance(part, Text):
        return 1
    return 4 * len(part.columns) if isinstance(part, Repeated) else 8


def _put_run(sheet: Sheet, run: _Run, buffer: Octets, found: Tagged, begin: Index) -> None:
    values = windows(buffer, begin, run.width).view(run.dtype)[:, 0]
    left = found.start + found.length - begin
    for field, end in zip(run.fields, run.ends, strict=True):
        there = left >= end
        _PUT[field.xdr](sheet, field.column, found.row, values[field.column], there)


Put = Callable[[Sheet, str, Index, Values, Mask], None]


def _put_counter(sheet: Sheet, column: str, rows: Index, values: Values, there: Mask) -> None:
    sheet.put(column, rows, values, there & (values != np.iinfo(values.dtype).max))


def _put_float(sheet: Sheet, column: str, rows: Index, values: Values, there: Mask) -> None:
    with np.errstate(invalid="ignore"):
        sheet.put(column, rows, values, there & np.isfinite(values) & (values >= 0))


def _put_uuid(sheet: Sheet, column: str, rows: Index, values: Values, there: Mask) -> None:
    octets = np.zeros((sheet.count, 16), np.uint8)
    octets[rows[there]] = values[there]
    texts = columns.per_distinct(octets, lambda raw: str(uuid.UUID(bytes=raw)) if any(raw) else None)
    sheet.put_array(column, columns.names(texts))


def _put_name(names: tuple[str, ...]) -> Put:
    """Numbers as names; 0 is unknown, and a number beyond the names is its own."""

    def put(sheet: Sheet, column: str, rows: Index, values: Values, there: Mask) -> None:
        numbers = np.zeros(sheet.count, np.uint32)
        numbers[rows[there]] = values[there]
        distinct, which = np.unique(numbers, return_inverse=True)
        texts = [names[number] if number < len(names) else str(number) for number in distinct.tolist()]
        sheet.put_array(column, columns.compacted(which, numbers > 0, pa.array(texts, pa.utf8())))

    return put


_PUT: Final[Mapping[Xdr, Put]] = MappingProxyType(
    {
        Xdr.UNSIGNED: _put_counter,
        Xdr.HYPER: _put_counter,
        Xdr.INT: Sheet.put,
        Xdr.FLOAT: _put_float,
        Xdr.OCTET: Sheet.put,
        Xdr.MAC: Sheet.put,
        Xdr.UUID: _put_uuid,
        Xdr.MACHINE_TYPE: _put_name(MACHINE_TYPES),
        Xdr.OS_NAME: _put_name(OS_NAMES),
    }
)


def _put_text(sheet: Sheet, column: str, buffer: Octets, rows: Index, begin: Index, length: Index) -> None:
    start = np.zeros(sheet.count, np.int64)
    size = np.zeros(sheet.count, np.int64)
    start[rows], size[rows] = begin, length
    sheet.put_array(column, columns.names(columns.text(buffer, start, size)))


def _put_repeated(sheet: Sheet, part: Repeated, buffer: Octets, rows: Index, begin: Index, count: Index) -> None:
    width = len(part.columns)
    ends = np.cumsum(count)
    item = np.arange(int(ends[-1])) - np.repeat(ends - count, count)
    octets = windows(buffer, np.repeat(begin, count) + 4 * width * item, 4 * width)
    words = octets.view(">u4").astype(np.uint32)
    for at, column in enumerate(part.columns):
        sheet.put_array(column, _list_column(sheet.count, [(np.repeat(rows, count), words[:, at])], _numbers))


def _put_adapters(sheet: Sheet, part: Adapters, buffer: Octets, found: Tagged, begin: Index, count: Index) -> Mask:
    """Adapters one after the other, all hosts' together; returns whose list ends before it has all that it counts."""
    read = np.zeros(len(found), np.int64)
    indexes: list[Piece] = []
    macs: list[Piece] = []
    at, end = begin.copy(), found.start + found.length
    for number in range(MOST_ADAPTERS):
        here = np.flatnonzero((count > number) & (at + 8 <= end))
        if len(here) == 0:
            break
        head = windows(buffer, at[here], 8)
        addresses = word32(head, 4).astype(np.int64)
        fits = addresses <= np.minimum((end[here] - at[here] - 8) // 8, MOST_ADAPTERS)
        # A list that does not fit ends what is read of its record.
        at[here[~fits]] = end[here[~fits]]
        here, head, addresses = here[fits], head[fits], addresses[fits]
        of = np.repeat(np.arange(len(here)), addresses)
        item = np.arange(len(of)) - np.repeat(np.cumsum(addresses) - addresses, addresses)
        indexes.append((found.row[here][of], word32(head, 0)[of]))
        macs.append((found.row[here][of], windows(buffer, at[here][of] + 8 + 8 * item, 6)))
        at[here] += 8 + 8 * addresses
        read[here] += 1
    sheet.put_array(part.if_index, _list_column(sheet.count, indexes, _numbers))
    sheet.put_array(part.mac, _list_column(sheet.count, macs, _mac_texts))
    return read < count


def _numbers(values: Values) -> pa.Array:
    return columns.primitive(values, pa.uint32())


def _mac_texts(values: Values) -> pa.Array:
    return format_macs(columns.primitive(values, pa.binary(6)))


def _list_column(count: int, pieces: list[Piece], made: Callable[[Values], pa.Array]) -> pa.Array:
    """A column of lists, each row's values in the order of the pieces; null where a row has none."""
    if not pieces:
        return pa.nulls(count)
    row, values = np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
    order = np.argsort(row, kind="stable")
    total = np.bincount(row, minlength=count)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(total, out=offsets[1:])
    child = made(values[order])
    validity = pa.py_buffer(np.packbits(total > 0, bitorder="little"))
    return pa.Array.from_buffers(pa.list_(child.type), count, [validity, pa.py_buffer(offsets)], children=[child])
