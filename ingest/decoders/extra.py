"""Fields that have no column of their own, as text in the column ``extra``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders import columns
from ingest.decoders.fields import Fields
from ingest.decoders.mapping import As
from shared.text import format_addresses, format_macs

TRUE, FALSE = 1, 2
"""How a boolean is encoded (RFC 7011 §6.1.5)."""


def extra_column(fields: Fields, wanted: Sequence[tuple[str, int, As]]) -> pa.MapArray:
    """A map a record, from the name of each wanted field, which stands at a place of the layout, to its value as text.

    A record that has none of them has null.
    """
    texts = [_text(fields, at, written_as) for _, at, written_as in wanted]
    there = np.stack([text.is_valid().to_numpy(zero_copy_only=False) for text in texts], axis=1)
    row, which = np.nonzero(there)
    keys = pa.array([name for name, _, _ in wanted], pa.utf8()).take(pa.array(which))
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


def _text(fields: Fields, at: int, written_as: As) -> pa.StringArray:
    """A field as text, null where it has not the length that its kind has."""
    made: pa.Array
    if written_as is As.UTF8:
        made = fields.text(at)
    elif written_as is As.UINT:
        made = pc.cast(pa.array(fields.uint(at)), pa.utf8())
    elif written_as is As.INT:
        made = pc.cast(pa.array(_signed(fields, at)), pa.utf8())
    elif written_as is As.BOOLEAN:
        value = fields.uint(at)
        made = pa.array(np.where(value == TRUE, "true", "false"), pa.utf8(), mask=(value != TRUE) & (value != FALSE))
    elif written_as is As.FLOAT:
        made = _float(fields, at)
    elif written_as is As.HEX:
        octets, length = fields.padded(at)
        counted = np.concatenate([np.minimum(length, 255).astype(np.uint8)[:, None], octets], axis=1)
        made = columns.per_distinct(counted, lambda value: value[1 : 1 + value[0]].hex() or None)
    else:
        made = _address(fields, at, written_as)
    told = fields.told(at)
    return made if told is None else pc.if_else(pa.array(told), made, None)


def _signed(fields: Fields, at: int) -> npt.NDArray[np.signedinteger]:
    value = fields.uint(at)
    octets, length = fields.padded(at)
    negative = octets[:, 0] >= 0x80
    unsigned = value.astype(np.uint64)
    # The bits above the field's own are copies of its sign.
    shift = (8 * np.clip(length, 0, 8)).astype(np.uint64)
    above = np.where(shift < 64, ~np.uint64(0) << np.minimum(shift, np.uint64(63)), np.uint64(0))
    return np.where(negative, unsigned | above, unsigned).astype(np.uint64).view(np.int64)


def _float(fields: Fields, at: int) -> pa.StringArray:
    for size in (4, 8):
        octets = fields.octets(at, size)
        if octets is not None:
            return pc.cast(pa.array(np.ascontiguousarray(octets).view(f">f{size}")[:, 0].astype(f"f{size}")), pa.utf8())
    return pa.nulls(fields.count, pa.utf8())


def _address(fields: Fields, at: int, written_as: As) -> pa.StringArray:
    size = {As.IPV4: 4, As.IPV6: 16, As.MAC: 6}[written_as]
    octets = fields.octets(at, size)
    if octets is None:
        return pa.nulls(fields.count, pa.utf8())
    if written_as is As.MAC:
        return format_macs(columns.primitive(octets, pa.binary(6)))
    if written_as is As.IPV4:
        mapped = np.zeros((fields.count, 16), np.uint8)
        mapped[:, 10:12] = 0xFF
        mapped[:, 12:] = octets
        octets = mapped
    return format_addresses(columns.primitive(octets, pa.binary(16)))
