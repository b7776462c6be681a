"""Sets that wait, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders.headers import Headers
from ingest.decoders.sets import DataSets
from ingest.decoders.templates import template_keys
from ingest.undecoded import message
from ingest.undecoded.chunk import Read
from shared import codec
from tests.ingest.collector import EXPORTER, RECEIVED_NS

PRODUCER = "ingest-host-worker-0-17"


def waiting(
    *bodies: bytes,
    exporter: bytes = EXPORTER,
    version: int = 9,
    template_id: int = 256,
    received_ns: int = RECEIVED_NS,
    step_ns: int = 1,
) -> DataSets:
    """Sets of one exporter, each with a header that no other has."""
    count = len(bodies)
    length = np.array([len(body) for body in bodies], np.int64)
    index = np.arange(count)
    source = np.tile(np.frombuffer(exporter, np.uint8), (count, 1))
    domain = (index + 7).astype(np.uint32)
    return DataSets(
        buffer=np.frombuffer(b"".join(bodies), np.uint8),
        headers=Headers(
            version=version,
            source=source,
            domain=domain,
            sequence=(index + 100).astype(np.uint32),
            exported_ns=index + 10**18,
            uptime_ms=(index + 5).astype(np.uint32) if version == 9 else None,
            received_ns=received_ns + index * step_ns,
            identity=index.astype(np.uint64) + np.uint64(1 << 63),
            source_port=(index + 2000).astype(np.uint16),
        ),
        start=np.cumsum(length) - length,
        length=length,
        position=index + 24,
        keys=template_keys(source, version, domain, np.full(count, template_id, np.uint16)),
    )


def bodies(sets: DataSets) -> list[bytes]:
    """The bytes of each set."""
    return [
        sets.buffer[start : start + length].tobytes()
        for start, length in zip(sets.start.tolist(), sets.length.tolist(), strict=True)
    ]


def plain(sets: DataSets) -> dict[str, Any]:
    """All that sets have, as plain values."""
    headers = sets.headers
    named = ("domain", "sequence", "exported_ns", "uptime_ms", "received_ns", "identity", "source_port")
    values = {name: getattr(headers, name) for name in named}
    return {
        "version": headers.version,
        "source": [row.tobytes() for row in headers.source],
        **{name: None if value is None else (str(value.dtype), value.tolist()) for name, value in values.items()},
        "position": sets.position.tolist(),
        "keys": sets.keys,
        "bodies": bodies(sets),
    }


def read(*parts: DataSets, offset: int = 0, headers: codec.Headers | None = None) -> Read:
    """A message with these sets, as it is read from partition 3."""
    batches = [pa.ipc.open_stream(message.encode(sets)).read_all() for sets in parts]
    (batch,) = pa.concat_tables(batches).combine_chunks().to_batches()
    own = message.headers(parts[0], PRODUCER)
    own = [pair if pair[0] != "records" else ("records", b"%d" % batch.num_rows) for pair in own]
    key = message.exporter_text(parts[0]).encode()
    value = codec.encode(batch).to_pybytes()
    first_ms = int(pc.min(batch.column("time_received").cast(pa.int64())).as_py()) // 1_000_000
    return Read(3, offset, first_ms, key, value, own if headers is None else headers)
