"""Columns as text: addresses, times and whole records as JSON, without a Python object per value.

Text is laid out as a matrix of bytes, a row a value, in which zeros are gaps; squeezing the zeros out gives the bytes
of an Arrow string array, and their number in each row its offsets. Everything here is a pure function of its
arguments; a column of any length does, sliced or with nulls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

ADDRESS_BYTES: Final = 16
MAC_BYTES: Final = 6
IDENTITY_COLUMN: Final = "record_id"
"""The one number that is shown as 16 hex digits, since a double cannot hold it."""

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_GROUPS: Final = 8
_CELL: Final = 5
"""Four hex digits and what follows them."""
_BLOCK_ROWS: Final = 8192
"""Rows that are laid out at a time, so that the matrix stays in the cache."""
_JSON_ROWS: Final = 16384
"""Rows that become JSON at a time: their text stays far below the 2 GiB of a string array."""

_TIME_ENDS: Final = (19, 23, 26, 29)
"""Where the text of a time ends with 0, 3, 6 or 9 digits of fraction."""
_TIME_CHARS: Final = 32


@dataclass(frozen=True, slots=True)
class _Text:
    """The values of a column one after the other, and how many bytes each has, [n]."""

    data: Bytes
    length: Integers


def format_addresses(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return addresses of 16 bytes as people write them.

    What lies in ::ffff:0:0/96 is plain IPv4; everything else is IPv6 by RFC 5952 §4: lower case, no leading zeros, the
    first of the longest runs of two or more zero groups shortened to `::`. No other address is shown in mixed
    notation. Raises TypeError when the column is not fixed_size_binary[16].
    """
    return _format(column, pa.binary(ADDRESS_BYTES), _addresses)


def format_macs(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return MAC addresses of 6 bytes as `aa:bb:cc:dd:ee:ff`.

    Raises TypeError when the column is not fixed_size_binary[6].
    """
    return _format(column, pa.binary(MAC_BYTES), _macs)


def format_identities(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return numbers of 64 bits as 16 hex digits. Raises TypeError when the column is not uint64."""
    return _format(column, pa.uint64(), _identities)


def format_times(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return times as RFC 3339 in UTC, with the fraction that they have.

    A column of milliseconds shows three digits. A finer one shows 0, 3, 6 or 9, as many as its value needs. Raises
    TypeError when the column is no timestamp.
    """
    if not pa.types.is_timestamp(column.type):
        raise TypeError(f"a column of times is needed, not of {column.type}")
    return _format(column, column.type, _times)


def format_column(name: str, column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column with everything that is not legible made text, by its type; other columns stay as they are.

    Addresses, MACs, times and identities become text, dictionaries become plain text.
    """
    column = _one(column)
    kind = column.type
    if kind == pa.binary(ADDRESS_BYTES):
        return format_addresses(column)
    if kind == pa.binary(MAC_BYTES):
        return format_macs(column)
    if pa.types.is_timestamp(kind):
        return format_times(column)
    if name == IDENTITY_COLUMN and kind == pa.uint64():
        return format_identities(column)
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode()
    return column


def json_rows(table: pa.Table | pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Give each row as the dict that its JSON stands for, nulls left out."""
    for lines in _json_blocks(table):
        for line in lines.splitlines():
            yield orjson.loads(line)


def json_lines(table: pa.Table | pa.RecordBatch) -> bytes:
    r"""Return one JSON object a row, each ended by `\n`, with the names and the order of the columns.

    Nulls are left out. Addresses, MACs and times are text, identities 16 hex digits, maps objects; numbers, `proto`
    and `etype` among them, are numbers.
    """
    return b"".join(_json_blocks(table))


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the column in one chunk."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    whole = column.combine_chunks()
    # An extension or a large column may stay in chunks; what is here is far below that.
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _format(column: pa.Array | pa.ChunkedArray, kind: pa.DataType, write: Callable[[pa.Array], _Text]) -> pa.Array:
    """Return the column's text: `write` gives that of a block of rows that has no nulls."""
    column = _one(column)
    if column.type != kind:
        raise TypeError(f"a column of {kind} is needed, not of {column.type}")
    count = len(column)
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    present = column if valid is None else column.drop_null()
    texts = [write(present.slice(at, _BLOCK_ROWS)) for at in range(0, len(present), _BLOCK_ROWS)]
    offsets = np.zeros(count + 1, np.int32)
    if texts:
        lengths = np.concatenate([text.length for text in texts])
        if valid is not None:
            spread = np.zeros(count, np.int64)
            spread[valid] = lengths
            lengths = spread
        np.cumsum(lengths, out=offsets[1:], dtype=np.int32)
    data = (
        texts[0].data if len(texts) == 1 else np.concatenate([text.data for text in texts] or [np.empty(0, np.uint8)])
    )
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data), bitmap, column.null_count)


def _squeeze(matrix: Bytes) -> _Text:
    """Return what is not zero in a matrix of bytes, [n, a multiple of 8, at most 248], row after row."""
    present = matrix != 0
    # Eight columns are added up at a time: bytes of a word count the lanes, and the product's top byte is their sum.
    words = present.view(np.uint64)
    lanes = words[:, 0].copy()
    for at in range(1, words.shape[1]):
        lanes += words[:, at]
    length = (lanes * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return _Text(matrix.ravel()[present.ravel()], length.astype(np.int64))


def _rows(column: pa.Array, width: int) -> Bytes:
    """Return the bytes of a fixed-size column without nulls, [n, width], without a copy."""
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(len(column), width)


def _filled(matrix: Bytes) -> _Text:
    """Return the rows of a matrix that has no gaps, [n, width]."""
    count, width = matrix.shape
    return _Text(matrix.ravel(), np.full(count, width, np.int64))


def _addresses(column: pa.Array) -> _Text:
    rows = _rows(column, ADDRESS_BYTES)
    mapped = _is_mapped(rows)
    if mapped.all():
        return _squeeze(_ipv4(rows))
    matrix = _ipv6(rows)
    if mapped.any():
        matrix[mapped] = 0
        matrix[mapped, :ADDRESS_BYTES] = _ipv4(rows[mapped])
    return _squeeze(matrix)


def _is_mapped(rows: Bytes) -> npt.NDArray[np.bool_]:
    words = np.frombuffer(_MAPPED, np.uint32)
    groups = _as(np.uint32, rows)
    mapped: npt.NDArray[np.bool_] = (groups[:, 0] == words[0]) & (groups[:, 1] == words[1]) & (groups[:, 2] == words[2])
    return mapped


def _as(kind: type[np.generic], rows: Bytes) -> npt.NDArray[Any]:
    """Return rows of bytes as rows of words in the machine's order, wherever the buffer begins."""
    return np.ascontiguousarray(rows).view(kind)


def _ipv4(rows: Bytes) -> Bytes:
    """Lay out the last four bytes of each row as dotted decimals, [n, 16]: two octets by one look-up."""
    pairs = _as(np.uint16, rows[:, 12:])
    first, last = _octet_pairs()
    out = np.empty((len(rows), 2), np.uint64)
    out[:, 0] = first.take(pairs[:, 0])
    out[:, 1] = last.take(pairs[:, 1])
    return out.view(np.uint8)


def _ipv6(rows: Bytes) -> Bytes:
    """Lay out each row as eight cells of digits and colon, [n, 40]; the zero groups decide which cells stay."""
    groups = _as(np.uint16, rows)
    zeros = np.packbits(groups == 0, axis=1, bitorder="little")[:, 0]
    keep, colons = _shortening()
    digits = _hex_groups().take(groups)
    digits &= keep[zeros]
    out = np.empty((len(rows), _GROUPS, _CELL), np.uint8)
    out[:, :, :4] = digits.view(np.uint8).reshape(len(rows), _GROUPS, 4)
    out[:, :, 4] = colons[zeros]
    return out.reshape(len(rows), _GROUPS * _CELL)


def _macs(column: pa.Array) -> _Text:
    rows = _rows(column, MAC_BYTES)
    out = np.full((len(rows), MAC_BYTES, 3), ord(":"), np.uint8)
    out[:, :, :2] = _hex_digits(rows)
    # The last octet has no colon after it.
    return _filled(out.reshape(len(rows), 3 * MAC_BYTES)[:, :-1])


def _identities(column: pa.Array) -> _Text:
    numbers = column.to_numpy().astype(">u8")
    return _filled(_hex_digits(numbers.view(np.uint8)).reshape(len(numbers), 16))


def _hex_digits(octets: Bytes) -> Bytes:
    """Return two digits for each byte: one axis more, of length 2."""
    return _hex_octets().view(np.uint16).ravel().take(octets).view(np.uint8).reshape(*octets.shape, 2)


def _times(column: pa.Array) -> _Text:
    """Lay out times, [n, 32]: Arrow writes the digits, of which all that a value does not need is blotted out."""
    unit = column.type.unit
    digits = column.cast(pa.timestamp(unit)).cast(pa.utf8())
    fraction = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    width = _TIME_ENDS[fraction // 3]
    data = np.frombuffer(digits.buffers()[2] or b"", np.uint8)
    if len(data) != width * len(column):
        raise ValueError("a time lies outside of the years 0 to 9999, which RFC 3339 cannot say")
    out = np.zeros((len(column), _TIME_CHARS), np.uint8)
    out[:, :width] = data.reshape(-1, width)
    out[:, 10] = ord("T")
    if fraction > 3:
        values = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column)]
        needed = np.zeros(len(column), np.intp)
        for at in range(fraction // 3):
            # The last group of three digits that is not zero is the last that is shown.
            needed += values % 10 ** (fraction - 3 * at) != 0
        out &= _time_masks()[needed]
    out[:, _TIME_CHARS - 1] = ord("Z")
    return _squeeze(out)


def _fixed(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    table.flags.writeable = False
    return table


@cache
def _octet_pairs() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Text of two octets by their 16 bits in memory order, gaps where digits lack: `a.b.` and `a.b`."""
    octets = np.zeros((256, 4), np.uint8)
    for value in range(256):
        text = f"{value}."
        octets[value, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    pairs = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    first = octets[pairs].reshape(-1, 8)
    last = first.copy()
    ends = last[:, 4:]
    ends[ends == ord(".")] = 0
    return _fixed(first.view(np.uint64).ravel()), _fixed(last.view(np.uint64).ravel())


@cache
def _hex_octets() -> Bytes:
    """Two hex digits for each byte, [256, 2]."""
    return _fixed(np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2).copy())


@cache
def _hex_groups() -> npt.NDArray[np.uint32]:
    """Hex digits of two bytes by their 16 bits in memory order, leading zeros left out but the last."""
    pairs = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    digits = _hex_octets()[pairs].reshape(-1, 4).copy()
    leading = np.logical_and.accumulate(digits == ord("0"), axis=1)
    leading[:, 3] = False
    digits[leading] = 0
    return _fixed(digits.view(np.uint32).ravel())


@cache
def _shortening() -> tuple[npt.NDArray[np.uint32], Bytes]:
    """For each set of zero groups (bit i: group i): which groups keep their digits, and after which stands a colon.

    Arrays [256, 8] of all or no bits, and of colons or zeros. RFC 5952 §4.2: the longest run of two or more groups is
    shortened, the first of equals.
    """
    keep = np.full((256, _GROUPS), 0xFFFFFFFF, np.uint32)
    colons = np.full((256, _GROUPS), ord(":"), np.uint8)
    colons[:, -1] = 0
    for zeros in range(256):
        bits = f"{zeros:08b}"[::-1]
        run = max((bits[at:].partition("0")[0] for at in range(_GROUPS)), key=len)
        if len(run) < 2:
            continue
        begin = bits.index(run)
        keep[zeros, begin : begin + len(run)] = 0
        # The first cell of the run holds the second colon of `::`; where no group stands before, the next holds one too.
        colons[zeros, begin : begin + len(run)] = 0
        colons[zeros, begin] = ord(":")
        if begin == 0:
            colons[zeros, 1] = ord(":")
    return _fixed(keep), _fixed(colons)


@cache
def _time_masks() -> Bytes:
    """Which characters of a time stay when it needs 0, 1, 2 or 3 groups of digits, [4, 32]."""
    at = np.arange(_TIME_CHARS)
    return _fixed(np.where(at < np.array(_TIME_ENDS)[:, None], 0xFF, 0).astype(np.uint8))


def _json_blocks(table: pa.Table | pa.RecordBatch) -> Iterator[bytes]:
    if not table.num_columns:
        # A slice of a table without columns claims as many rows as were asked for.
        yield b"{}\n" * table.num_rows
        return
    for at in range(0, table.num_rows, _JSON_ROWS):
        yield _json_block(table.slice(at, _JSON_ROWS))


def _json_block(table: pa.Table | pa.RecordBatch) -> bytes:
    members = [
        _json_member(name, _one(column))
        for name, column in zip(table.column_names, table.columns, strict=True)
        if column.null_count < len(column)
    ]
    if not members:
        return b"{}\n" * len(table)
    # A member that is null is left out together with its comma. The empty text in front gives every row a first comma,
    # which becomes the brace; and a row in which all else is null, which Arrow would otherwise lose, a text at all.
    joined = pc.binary_join_element_wise("", *members, ",", null_handling="skip")
    opened = pc.binary_replace_slice(joined, 0, 1, "{")
    lines = pc.binary_join_element_wise(opened, "}\n", "")
    end = int(np.frombuffer(lines.buffers()[1], np.int32)[len(lines)])
    text: bytes = lines.buffers()[2].slice(0, end).to_pybytes()
    return text


def _json_member(name: str, column: pa.Array) -> pa.Array:
    """Return `"name":value` for each row, null where the value is."""
    key = orjson.dumps(name).decode() + ":"
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        # Each distinct text is escaped once.
        members = [None if text is None else key + _dumps(text) for text in column.dictionary.to_pylist()]
        return pa.array(members, pa.utf8()).take(column.indices)
    text, opening, closing = _json_text(format_column(name, column))
    return pc.binary_join_element_wise(key + opening, text, closing, "")


def _json_text(column: pa.Array) -> tuple[pa.Array, str, str]:
    """Return the JSON of each value without what encloses it, and what encloses all of them."""
    kind = column.type
    if pa.types.is_string(kind):
        return column, '"', '"'
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.utf8()), "", ""
    if pa.types.is_float32(kind):
        # As many digits as a value of 32 bits needs; what is no number is left out, since JSON cannot say it.
        return pc.if_else(pc.is_finite(column), column, None).cast(pa.utf8()), "", ""
    if pa.types.is_list(kind) and pa.types.is_integer(kind.value_type):
        texts = column.cast(pa.list_(pa.utf8()))
        return pc.binary_join(texts, ","), "[", "]"
    if pa.types.is_map(kind):
        values = column.to_pylist()
        return pa.array([None if pairs is None else _dumps(dict(pairs)) for pairs in values], pa.utf8()), "", ""
    return pa.array([None if value is None else _dumps(value) for value in column.to_pylist()], pa.utf8()), "", ""


def _dumps(value: object) -> str:
    return orjson.dumps(value, default=_legible).decode()


def _legible(value: object) -> str:
    """Show what JSON has no form for."""
    return value.hex() if isinstance(value, bytes) else str(value)
