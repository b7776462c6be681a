"""numpy arrays to Arrow columns, without a copy where the bytes allow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# A scalar without a type costs a search of all of Python's path, each time.
NO_BYTES: Final = pa.scalar(0, pa.int32())
NO_TEXT: Final = pa.scalar(None, pa.utf8())


def primitive(values: npt.NDArray[np.generic], type_: pa.DataType, valid: Mask | None = None) -> pa.Array:
    """A column over the memory of ``values``; an array of shape [n, width] makes one of fixed-size binary.

    ``values`` must have the column's own width and byte order; ``valid`` is False where the column is null.
    """
    whole = np.ascontiguousarray(values)
    validity = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(type_, len(whole), [validity, pa.py_buffer(whole)])


def constant_name(text: str, count: int) -> pa.DictionaryArray:
    """``count`` rows of one name, as a dictionary column."""
    return pa.DictionaryArray.from_arrays(primitive(np.zeros(count, np.int32), pa.int32()), pa.array([text], pa.utf8()))


def text(buffer: Octets, start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> pa.StringArray:
    """Strings that lie at ``start`` with ``length`` bytes in ``buffer``; null where nothing is left of one.

    Cut at the first NUL, and freed from spaces at the end: exporters pad with both. Bytes that are not UTF-8 are
    replaced by U+FFFD.
    """
    return _clean(*_gathered(buffer, start, length))


def binary(buffer: Octets, start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> pa.BinaryArray:
    """Bytes that lie at ``start`` with ``length`` bytes in ``buffer``, as they are."""
    return _gathered(buffer, start, length)[0]


def _gathered(
    buffer: Octets, start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]
) -> tuple[pa.BinaryArray, Octets]:
    count = len(start)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(length, out=offsets[1:])
    total = int(offsets[-1])
    octets = buffer[np.repeat(start - offsets[:-1], length) + np.arange(total)]
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(octets)]), octets


def fixed_text(octets: Octets) -> pa.StringArray:
    """Strings of ``octets``, shape [n, width]; cleaned as :func:`text` does."""
    count, width = octets.shape
    at = np.arange(width)
    ended = octets == 0
    end = np.where(ended.any(axis=1), ended.argmax(axis=1), width)
    inside = at < end[:, None]
    length = np.zeros(count + 1, np.int32)
    np.cumsum(end, out=length[1:])
    data = octets[inside]
    column = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(length), pa.py_buffer(data)])
    return _clean(column, data)


def _clean(column: pa.BinaryArray, octets: Octets) -> pa.StringArray:
    if len(octets) == 0:
        return pa.nulls(len(column), pa.utf8())
    if int(octets.max()) < 0x80:
        strings = column.view(pa.utf8())
    else:
        strings = rendered(column, lambda value: bytes(value).decode("utf-8", "replace"))
    if int(octets.min()) == 0:
        strings = pc.replace_substring_regex(strings, "\x00(?s:.*)$", "")
    strings = pc.utf8_rtrim(strings, " ")
    return pc.if_else(pc.equal(pc.binary_length(strings), NO_BYTES), NO_TEXT, strings)


def rendered(column: pa.Array, render: Callable[[bytes], str | None]) -> pa.StringArray:
    """``render`` for each distinct value of a binary column, spread over its rows; None becomes null."""
    encoded = column.dictionary_encode()
    texts = pa.array([render(value.as_py()) for value in encoded.dictionary], pa.utf8())
    return texts.take(encoded.indices)


def per_distinct(octets: Octets, render: Callable[[bytes], str | None]) -> pa.StringArray:
    """``render`` for each distinct row of ``octets``, shape [n, width]; None becomes null."""
    return rendered(primitive(octets, pa.binary(octets.shape[1])), render)


def names(strings: pa.StringArray) -> pa.DictionaryArray:
    """Text as a dictionary column."""
    return strings.dictionary_encode()


def number_lists(values: npt.NDArray[np.uint32], present: Mask) -> pa.ListArray:
    """Rows of ``values`` as lists, of the entries that are ``present``; shape [n, k]. A row without any is null."""
    count = present.sum(axis=1)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(count, out=offsets[1:])
    flat = primitive(values[present], pa.uint32())
    validity = pa.py_buffer(np.packbits(count > 0, bitorder="little"))
    return pa.Array.from_buffers(pa.list_(pa.uint32()), len(values), [validity, pa.py_buffer(offsets)], children=[flat])


def compacted(indices: npt.NDArray[np.int64], valid: Mask | None, dictionary: pa.StringArray) -> pa.DictionaryArray:
    """A dictionary column whose dictionary has only what its rows use."""
    return numbered(indices if valid is None else np.where(valid, indices, -1), dictionary)


def numbered(numbers: npt.NDArray[np.signedinteger], dictionary: pa.StringArray) -> pa.DictionaryArray:
    """A dictionary column of the texts with these numbers, null where one is -1; its dictionary has only those."""
    size = len(dictionary)
    if size > SPARSE * len(numbers):
        # A count of all that there are would cost more than the rows do.
        used, place = np.unique(numbers, return_inverse=True)
        nulls = int(len(used) > 0 and used[0] < 0)
        used, rows = used[nulls:], np.maximum(place - nulls, 0).astype(np.int32)
    else:
        # Place 0 is that of -1: its 0 stands where the column is null.
        at = np.add(numbers, 1, dtype=np.int64)
        counts = np.bincount(at, minlength=size + 1)
        nulls, used = int(counts[0]), np.flatnonzero(counts[1:])
        places = np.zeros(size + 1, np.int32)
        places[used + 1] = np.arange(len(used), dtype=np.int32)
        rows = places.take(at)
    whole = primitive(rows, pa.int32(), numbers >= 0 if nulls else None)
    if len(used) < size:
        dictionary = dictionary.take(pa.array(used))
    return pa.DictionaryArray.from_arrays(whole, dictionary, safe=False)


SPARSE: Final = 4
"""Of a dictionary with so many times more entries than a column has rows most are not used."""


def coalesced(first: pa.DictionaryArray, second: pa.DictionaryArray) -> pa.DictionaryArray:
    """What ``first`` has, and ``second`` where that is null."""
    if first.null_count == 0:
        return first
    one, other = pa.chunked_array([first, second]).unify_dictionaries().chunks
    return pa.DictionaryArray.from_arrays(pc.coalesce(one.indices, other.indices), one.dictionary, safe=False)


def filled(own: pa.Array | None, other: pa.Array) -> pa.Array:
    """A column, and ``other`` where it has nothing; that one alone when there is none."""
    if own is None or own.null_count == 0:
        return other if own is None else own
    return coalesced(own, other) if pa.types.is_dictionary(own.type) else pc.coalesce(own, other)
