"""NetFlow v5: a header of 24 bytes and records of 48, no templates (Cisco's NetFlow export datagram format)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.datagrams import Datagrams
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.fields import FixedFields
from ingest.decoders.headers import Headers, Heard, Index, gather, identities, word16, word32
from ingest.decoders.layout import Field, Layout
from ingest.decoders.origin import Origin, icmp_from_port, ordered
from ingest.decoders.plan import Plan
from ingest.decoders.result import Decoded

HEADER_BYTES: Final = 24
RECORD_BYTES: Final = 48
MOST_RECORDS: Final = 30
INTERVAL_MASK: Final = 0x3FFF
"""The sampling word has the mode in its upper two bits, and N of 1:N below."""

LAYOUT: Final = Layout(
    5,
    tuple(
        Field(0, element, length)
        for element, length in (
            (8, 4),
            (12, 4),
            (15, 4),
            (10, 2),
            (14, 2),
            (2, 4),
            (1, 4),
            (22, 4),
            (21, 4),
            (7, 2),
            (11, 2),
            (210, 1),
            (6, 1),
            (4, 1),
            (5, 1),
            (16, 2),
            (17, 2),
            (9, 1),
            (13, 1),
            (210, 2),
        )
    ),
    options=False,
    scopes=0,
)
"""The record, in the words of the templates that came after it."""


PLAN: Final = Plan(LAYOUT)


def decode_netflow5(datagrams: Datagrams, rows: Index, decoded: Decoded) -> None:
    """Decode the datagrams of these rows into ``decoded``.

    A datagram with fewer bytes than its header counts records for gives those that are whole.
    """
    length = datagrams.length[rows]
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, length < HEADER_BYTES)
    rows = rows[length >= HEADER_BYTES]
    head = gather(datagrams.buffer, datagrams.offset[rows], HEADER_BYTES)
    counted = word16(head, 2).astype(np.int64)
    sane = (counted > 0) & (counted <= MOST_RECORDS)
    decoded.fault(Fault.BAD_COUNT, Unit.DATAGRAMS, ~sane)
    room = (datagrams.length[rows] - HEADER_BYTES) // RECORD_BYTES
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, sane & (room == 0))
    keep = sane & (room > 0)
    decoded.oddity(Oddity.COUNT_MISMATCH, keep & (room < counted))
    rows, head, counted, room = rows[keep], head[keep], counted[keep], room[keep]
    ends = HEADER_BYTES + counted * RECORD_BYTES
    decoded.trailing(datagrams.buffer, datagrams.offset[rows] + ends, datagrams.length[rows] - ends)
    if len(rows) == 0:
        return
    headers = Headers(
        version=5,
        source=datagrams.source[rows],
        domain=word16(head, 20).astype(np.uint32),
        sequence=word32(head, 16),
        exported_ns=word32(head, 8).astype(np.int64) * 1_000_000_000 + word32(head, 12).astype(np.int64),
        uptime_ms=word32(head, 4),
        received_ns=datagrams.received_ns[rows],
        identity=identities(datagrams, rows, datagrams.source[rows]),
        source_port=datagrams.source_port[rows],
    )
    whole = np.minimum(counted, room)
    decoded.heard.append(
        Heard(
            version=5,
            source=headers.source,
            domain=headers.domain,
            sequence=headers.sequence,
            units=counted.astype(np.uint32),
            exact=np.ones(len(rows), np.bool_),
            records=whole.astype(np.uint32),
            undecoded=np.zeros(len(rows), np.uint32),
            uptime_ms=headers.uptime_ms,
            received_ns=headers.received_ns,
        )
    )
    _records(datagrams, rows, whole, headers, word16(head, 22) & INTERVAL_MASK, decoded)


def _records(
    datagrams: Datagrams,
    rows: Index,
    count: Index,
    headers: Headers,
    interval: npt.NDArray[np.integer],
    decoded: Decoded,
) -> None:
    begin = datagrams.offset[rows] + HEADER_BYTES
    end = begin + count * RECORD_BYTES
    view = memoryview(datagrams.buffer)  # type: ignore[arg-type]  # a numpy array is a buffer
    joined = b"".join(map(view.__getitem__, map(slice, begin.tolist(), end.tolist())))
    fields = FixedFields(LAYOUT, np.frombuffer(joined, np.uint8).reshape(-1, RECORD_BYTES))
    of = np.repeat(np.arange(len(rows)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    position = HEADER_BYTES + (np.arange(fields.count) - first) * RECORD_BYTES
    batches, oddities = PLAN.decode(fields, Origin.spread(headers, of, position))
    decoded.oddities.update(oddities)
    for batch in batches:
        rate = interval[of].astype(np.uint32)
        made = dict(zip(batch.schema.names, batch.columns, strict=True))
        if rate.any():
            made["sampling_rate"] = columns.primitive(rate, pa.uint32(), None if rate.all() else rate > 0)
        made.update(
            icmp_from_port(
                np.frombuffer(made["proto"].buffers()[1], np.uint8),
                np.frombuffer(made["dst_port"].buffers()[1], np.uint16),
            )
        )
        decoded.batches.append(ordered(made))
