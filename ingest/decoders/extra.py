"""Fields that have no column of their own, as text in the column ``extra``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders import columns
from ingest.decoders.fields import Fields
from ingest.decoders.layout import VARIABLE
from ingest.decoders.mapping import As, MappedField
from shared.text import format_addresses, format_macs

TRUE, FALSE = 1, 2
"""How a boolean is encoded (RFC 7011 §6.1.5)."""

SIZES: Final[Mapping[As, Collection[int]]] = {
    **dict.fromkeys((As.UINT, As.INT, As.BOOLEAN), range(1, 9)),
    As.FLOAT: (4, 8),
    As.IPV4: (4,),
    As.IPV6: (16,),
    As.MAC: (6,),
}
"""How many bytes a value may have; text and hexadecimal digits have any number."""


def extra_column(fields: Fields, wanted: Sequence[tuple[str, int, As]]) -> pa.MapArray:
    """A map a record, from the name of each wanted field, which stands at a place of the layout, to its value as text.

    A record that has none of them has null. Of several fields of one name the first that a record has counts.
    """
    named: dict[str, pa.StringArray] = {}
    for name, at, written_as in wanted:
        named[name] = columns.filled(named.get(name), _text(fields, at, written_as))
    texts = list(named.values())
    there = np.stack([text.is_valid().to_numpy(zero_copy_only=False) for text in texts], axis=1)
    row, which = np.nonzero(there)
    keys = pa.array(list(named), pa.utf8()).take(pa.array(which))
    values = pa.concat_arrays(texts).take(pa.array(which * fields.count + row))
    offsets = np.zeros(fields.count + 1, np.int32)
    np.cumsum(there.sum(axis=1), out=offsets[1:])
    pairs = pa.StructArray.from_arrays(
        [keys, values], fields=[pa.field("key", pa.utf8(), nullable=False), pa.field("value", pa.utf8())]
    )
    validity = pa.py_buffer(np.packbits(there.any(axis=1), bitorder="little"))
    return pa.Array.from_buffers(
        pa.map_(pa.utf8(), pa.utf8()), fields.count, [validity, pa.py_buffer(offsets)], children=[pairs]
    )


def suits(one: MappedField, length: int) -> bool:
    """Whether a field of this length, or of VARIABLE length, can be written as wanted."""
    sizes = SIZES.get(one.written_as)
    return length == VARIABLE or sizes is None or length in sizes


def _text(fields: Fields, at: int, written_as: As) -> pa.StringArray:
    """A field as text, null where it has not a length that its kind can have."""
    if written_as is As.UTF8:
        return fields.text(at)
    if written_as is As.HEX:
        return columns.rendered(columns.binary(*fields.span(at)), lambda value: value.hex() or None)
    if written_as in NUMBERS:
        return _where(fields.told(at), NUMBERS[written_as](fields, at))
    made = pa.nulls(fields.count, pa.utf8())
    for size in SIZES[written_as]:
        octets = fields.octets(at, size)
        if octets is not None:
            made = columns.filled(made, _where(fields.told(at, size), _written(octets, written_as)))
    return made


def _where(told: npt.NDArray[np.bool_] | None, made: pa.StringArray) -> pa.StringArray:
    return made if told is None else pc.if_else(pa.array(told), made, None)


def _unsigned(fields: Fields, at: int) -> pa.StringArray:
    return pc.cast(pa.array(fields.uint(at)), pa.utf8())


def _signed(fields: Fields, at: int) -> pa.StringArray:
    value = fields.uint(at).astype(np.uint64)
    _, _, length = fields.span(at)
    # Shifted up until its sign is that of the number, and down again with copies of it.
    shift = (64 - 8 * np.clip(length, 1, 8)).astype(np.int64)
    return pc.cast(pa.array((value << shift.astype(np.uint64)).view(np.int64) >> shift), pa.utf8())


def _boolean(fields: Fields, at: int) -> pa.StringArray:
    value = fields.uint(at)
    return pa.array(np.where(value == TRUE, "true", "false"), pa.utf8(), mask=(value != TRUE) & (value != FALSE))


NUMBERS: Final[Mapping[As, Callable[[Fields, int], pa.StringArray]]] = {
    As.UINT: _unsigned,
    As.INT: _signed,
    As.BOOLEAN: _boolean,
}


def _written(octets: npt.NDArray[np.uint8], written_as: As) -> pa.StringArray:
    """Values of the length that their kind has, [n, length]."""
    size = octets.shape[1]
    if written_as is As.FLOAT:
        values = np.ascontiguousarray(octets).view(f">f{size}")[:, 0].astype(f"f{size}")
        return pc.cast(pa.array(values), pa.utf8())
    if written_as is As.MAC:
        return format_macs(columns.primitive(octets, pa.binary(6)))
    if written_as is As.IPV4:
        mapped = np.zeros((len(octets), 16), np.uint8)
        mapped[:, 10:12] = 0xFF
        mapped[:, 12:] = octets
        octets = mapped
    return format_addresses(columns.primitive(octets, pa.binary(16)))
