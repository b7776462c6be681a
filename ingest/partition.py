"""Which partition a record goes to: all observations of one flow to the same one, whoever saw it and which way."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]

_ODD: Final = tuple(
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)


def partitions(batch: pa.RecordBatch, count: int) -> npt.NDArray[np.uint16]:
    """The partition of each record, of ``count``.

    Hashes addresses, ports and protocol so that the two directions of a flow fall together. Records that lack an
    address are spread by ``record_id``. What it gives for a flow must not change: deduplication relies on it.
    """
    hashed = _flow(batch)
    if hashed is None:
        hashed = _values(batch, "record_id", np.uint64).copy()
    else:
        # Beside records that have addresses, those of other layouts have nulls.
        for name in ("src_addr", "dst_addr"):
            column = batch.column(name)
            if column.null_count:
                lacking = column.is_null().to_numpy(zero_copy_only=False)
                hashed[lacking] = _values(batch, "record_id", np.uint64)[lacking]
    hashed ^= hashed >> np.uint64(32)
    hashed *= _ODD[1]
    # The upper half spread over the partitions by multiplication: even for any count, and no division.
    return (((hashed >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.uint16)


def _flow(batch: pa.RecordBatch) -> Words | None:
    """A hash of both ends and the protocol; None where the records have no addresses."""
    names = batch.schema.names
    if "src_addr" not in names or "dst_addr" not in names:
        return None
    hashed = _end(batch, "src_addr", "src_port") + _end(batch, "dst_addr", "dst_port")
    if "proto" in names:
        hashed += _told(batch, "proto", np.uint8).astype(np.uint64) * _ODD[3]
    return hashed


def _end(batch: pa.RecordBatch, address: str, port: str) -> Words:
    """A hash of one end of the flow."""
    halves = _values(batch, address, np.uint64).reshape(-1, 2)
    hashed = halves[:, 0] * _ODD[0] + halves[:, 1] * _ODD[1]
    hashed ^= hashed >> np.uint64(29)
    if port in batch.schema.names:
        hashed += _told(batch, port, np.uint16)
    hashed *= _ODD[2]
    hashed ^= hashed >> np.uint64(32)
    return hashed * _ODD[0]


def _told(batch: pa.RecordBatch, name: str, dtype: type[np.generic]) -> npt.NDArray[np.uint64]:
    """A column's values, 0 where it is null: whatever a decoder has left there is not the flow's."""
    values, column = _values(batch, name, dtype), batch.column(name)
    if column.null_count:
        values = np.where(column.is_valid().to_numpy(zero_copy_only=False), values, 0)
    return values


def _values(batch: pa.RecordBatch, name: str, dtype: type[np.generic]) -> npt.NDArray[np.uint64]:
    """A column's memory, in which anything may stand where it is null."""
    column = batch.column(name)
    width = np.dtype(dtype).itemsize
    size = column.type.bit_width // 8 // width
    values = np.frombuffer(column.buffers()[1], dtype)
    return values[column.offset * size : (column.offset + len(column)) * size]
