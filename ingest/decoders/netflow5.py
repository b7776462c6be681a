"""NetFlow v5, and v1 and v7, which differ from it in little: no templates (Cisco's NetFlow export datagram formats)."""

from __future__ import annotations

from dataclasses import dataclass
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

MOST_RECORDS: Final = 30
"""Of v5; fewer of the others fit into a datagram."""
INTERVAL_MASK: Final = 0x3FFF
"""The sampling word has the mode in its upper two bits, and N of 1:N below."""

_ENDS: Final = ((8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2))
_ROUTES: Final = ((16, 2), (17, 2), (9, 1), (13, 1))
"""AS numbers and prefix lengths, which v1 does not have."""


@dataclass(frozen=True, slots=True)
class Form:
    """What tells the versions apart: bytes of the header and of a record, and what of the header there is."""

    version: int
    header_bytes: int
    record_bytes: int
    plan: Plan
    numbered: bool = True
    """Whether the header has a sequence number."""
    engine: bool = False
    """Whether it has an engine and a sampling interval."""


def _form(
    version: int, header_bytes: int, record: tuple[tuple[int, int], ...], *, numbered: bool = True, engine: bool = False
) -> Form:
    """A form by the fields of its record, in the words of the templates that came after it; 210 is padding."""
    fields = tuple(Field(0, element, length) for element, length in record)
    plan = Plan(Layout(version, fields, options=False, scopes=0))
    return Form(version, header_bytes, plan.layout.shortest_record, plan, numbered, engine)


NETFLOW1: Final = _form(1, 16, (*_ENDS, (210, 2), (4, 1), (5, 1), (6, 1), (210, 7)), numbered=False)
NETFLOW5: Final = _form(5, 24, (*_ENDS, (210, 1), (6, 1), (4, 1), (5, 1), *_ROUTES, (210, 2)), engine=True)
NETFLOW7: Final = _form(7, 24, (*_ENDS, (210, 1), (6, 1), (4, 1), (5, 1), *_ROUTES, (210, 2), (210, 4)))
"""That of Catalyst switches: behind each record stands the router that the flow did not have to go through."""


def decode_netflow5(form: Form, datagrams: Datagrams, rows: Index, decoded: Decoded) -> None:
    """Decode the datagrams of these rows, all of one form, into ``decoded``.

    A datagram with fewer bytes than its header counts records for gives those that are whole.
    """
    length = datagrams.length[rows]
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, length < form.header_bytes)
    rows = rows[length >= form.header_bytes]
    head = gather(datagrams.buffer, datagrams.offset[rows], form.header_bytes)
    counted = word16(head, 2).astype(np.int64)
    sane = (counted > 0) & (counted <= MOST_RECORDS)
    decoded.fault(Fault.BAD_COUNT, Unit.DATAGRAMS, ~sane)
    room = (datagrams.length[rows] - form.header_bytes) // form.record_bytes
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, sane & (room == 0))
    keep = sane & (room > 0)
    decoded.oddity(Oddity.COUNT_MISMATCH, keep & (room < counted))
    rows, head, counted, room = rows[keep], head[keep], counted[keep], room[keep]
    ends = form.header_bytes + counted * form.record_bytes
    decoded.trailing(datagrams.buffer, datagrams.offset[rows] + ends, datagrams.length[rows] - ends)
    if len(rows) == 0:
        return
    nothing = np.zeros(len(rows), np.uint32)
    headers = Headers(
        version=form.version,
        source=datagrams.source[rows],
        domain=word16(head, 20).astype(np.uint32) if form.engine else nothing,
        sequence=word32(head, 16) if form.numbered else nothing,
        exported_ns=word32(head, 8).astype(np.int64) * 1_000_000_000 + word32(head, 12).astype(np.int64),
        uptime_ms=word32(head, 4),
        received_ns=datagrams.received_ns[rows],
        identity=identities(datagrams, rows, datagrams.source[rows]),
        source_port=datagrams.source_port[rows],
    )
    whole = np.minimum(counted, room)
    decoded.heard.append(
        Heard(
            version=form.version,
            source=headers.source,
            domain=headers.domain,
            sequence=headers.sequence,
            units=counted.astype(np.uint32) if form.numbered else nothing,
            exact=np.ones(len(rows), np.bool_),
            records=whole.astype(np.uint32),
            undecoded=np.zeros(len(rows), np.uint32),
            uptime_ms=headers.uptime_ms,
            received_ns=headers.received_ns,
        )
    )
    interval = word16(head, 22) & INTERVAL_MASK if form.engine else nothing
    _records(form, datagrams, rows, whole, headers, interval, decoded)


def _records(
    form: Form,
    datagrams: Datagrams,
    rows: Index,
    count: Index,
    headers: Headers,
    interval: npt.NDArray[np.integer],
    decoded: Decoded,
) -> None:
    begin = datagrams.offset[rows] + form.header_bytes
    end = begin + count * form.record_bytes
    view = memoryview(datagrams.buffer)  # type: ignore[arg-type]  # a numpy array is a buffer
    joined = b"".join(map(view.__getitem__, map(slice, begin.tolist(), end.tolist())))
    fields = FixedFields(form.plan.layout, np.frombuffer(joined, np.uint8).reshape(-1, form.record_bytes))
    of = np.repeat(np.arange(len(rows)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    position = form.header_bytes + (np.arange(fields.count) - first) * form.record_bytes
    batches, oddities = form.plan.decode(fields, Origin.spread(headers, of, position))
    decoded.oddities.update(oddities)
    for batch in batches:
        rate = interval[of].astype(np.uint32)
        made = dict(zip(batch.schema.names, batch.columns, strict=True))
        if not form.engine:
            del made["observation_domain_id"]
        if not form.numbered:
            del made["sequence_num"]
        if rate.any():
            made["sampling_rate"] = columns.primitive(rate, pa.uint32(), None if rate.all() else rate > 0)
        made.update(
            icmp_from_port(
                np.frombuffer(made["proto"].buffers()[1], np.uint8),
                np.frombuffer(made["dst_port"].buffers()[1], np.uint16),
            )
        )
        decoded.batches.append(ordered(made))
