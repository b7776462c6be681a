"""Flow records and messages of known content."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from forwarder.config import AggregateConfig, CutConfig, DedupConfig
from forwarder.shape import Shape
from shared import codec
from shared.record import SCHEMA

HOUR_NS = 3_600_000_000_000
RECEIVED_NS = 1_700_000_000_000_000_000
"""When records were received, unless a test says otherwise: 2023-11-14T22:13:20Z."""


def flows(ids: Sequence[int], received_ns: int = RECEIVED_NS, **columns: Sequence[Any]) -> pa.RecordBatch:
    """Records with these ids, received at one moment, with what other columns of the record are given."""
    content: dict[str, Sequence[Any]] = {
        "type": ["NETFLOW_V9"] * len(ids),
        "record_id": ids,
        "time_received": [received_ns] * len(ids),
        "bytes": [100 + identity % 7 for identity in ids],
        **columns,
    }
    names = [name for name in SCHEMA.names if name in content]
    arrays = [pa.array(content[name], SCHEMA.field(name).type) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def shape(
    cut: CutConfig, remembered: int = 10_000, dedup: DedupConfig | None = None, aggregate: AggregateConfig | None = None
) -> Shape:
    """A shape with this cut, and for the rest what settings are by default."""
    return Shape(cut=cut, dedup=dedup or DedupConfig(), remembered=remembered, aggregate=aggregate)


def message(ids: Sequence[int], received_ns: int = RECEIVED_NS) -> tuple[bytes, codec.Headers]:
    """A message of such records: its value and its headers."""
    return bytes(codec.encode(flows(ids, received_ns))), codec.headers(len(ids), "test")


def heartbeat() -> tuple[bytes, codec.Headers]:
    """An empty message: its value and its headers."""
    return b"", codec.heartbeat_headers("test")


def eventually(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until something is so, and fail with its name when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: not {what}")
        time.sleep(0.01)
