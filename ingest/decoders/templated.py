"""NetFlow v9 (RFC 3954) and IPFIX (RFC 7011): sets whose records only a template tells how to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.datagrams import Datagrams
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.fields import Fields, FixedFields
from ingest.decoders.headers import Headers, Heard, Index, gather, identities, word16, word32
from ingest.decoders.layout import FIRST_DATA_SET, Layout, read_templates
from ingest.decoders.options import decode_options
from ingest.decoders.plan import Origin
from ingest.decoders.records import locate, variable_fields
from ingest.decoders.result import Decoded
from ingest.decoders.sets import DataSets, Sets, find_sets
from ingest.decoders.templates import AMBIGUOUS, UNKNOWN, Learned, Templates, template_keys

PADDING_BYTES: Final = 4
"""Sets are padded to a multiple of this; what is left over is shorter, or zeros."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Where the two protocols differ: the header, and the ids of the sets that hold templates."""

    version: int
    header_bytes: int
    template_set: int
    options_template_set: int


NETFLOW9: Final = Protocol(9, 20, 0, 1)
IPFIX: Final = Protocol(10, 16, 2, 3)


def decode_templated(
    protocol: Protocol, datagrams: Datagrams, rows: Index, templates: Templates, decoded: Decoded
) -> None:
    """Decode the datagrams of these rows into ``decoded``, learning templates on the way.

    Datagrams take effect in their order: a data set is read with the template that was known at its place; one whose
    template comes later in the same batch is read with that.
    """
    length = datagrams.length[rows]
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, length < protocol.header_bytes)
    rows = rows[length >= protocol.header_bytes]
    head = gather(datagrams.buffer, datagrams.offset[rows], protocol.header_bytes)
    size = datagrams.length[rows]
    if protocol.version == 10:
        told = word16(head, 2).astype(np.int64)
        sane = told >= protocol.header_bytes
        decoded.fault(Fault.BAD_LENGTH, Unit.DATAGRAMS, ~sane)
        rows, head, told, size = rows[sane], head[sane], told[sane], size[sane]
        decoded.oddity(Oddity.LENGTH_MISMATCH, told != size)
        size = np.minimum(told, size)
    if len(rows) == 0:
        return
    headers = _headers(protocol, datagrams, rows, head)
    begin = datagrams.offset[rows]
    sets, beyond, too_small = find_sets(datagrams.buffer, begin + protocol.header_bytes, begin + size)
    decoded.fault(Fault.TRUNCATED, Unit.SETS, beyond)
    decoded.fault(Fault.BAD_LENGTH, Unit.SETS, too_small)
    is_template = (sets.number == protocol.template_set) | (sets.number == protocol.options_template_set)
    is_data = sets.number >= FIRST_DATA_SET
    decoded.fault(Fault.RESERVED_SET, Unit.SETS, ~(is_template | is_data))

    data_at = np.flatnonzero(is_data)
    data = sets.take(data_at)
    keys = template_keys(headers.source[data.row], protocol.version, headers.domain[data.row], data.number)
    numbers = np.array(templates.numbers(keys), np.int64)
    changes = _learn(protocol, datagrams.buffer, headers, sets, np.flatnonzero(is_template), templates, decoded)
    touched = numbers == AMBIGUOUS
    if changes:
        touched |= np.fromiter(map(changes.__contains__, keys), np.bool_, len(keys))
    for index in np.flatnonzero(touched).tolist():
        known = _known_at(
            int(data_at[index]), changes.get(keys[index], ()), keys[index], int(numbers[index]), templates
        )
        numbers[index] = choose(known, int(data.length[index]), templates)

    found = DataSets(
        datagrams.buffer,
        headers.take(data.row),
        data.start,
        data.length,
        data.start - begin[data.row],
        keys,
    )
    counts = decode_data_sets(found, numbers, templates, decoded)
    lost = counts < 0
    exact = np.ones(len(rows), np.bool_)
    exact[data.row[lost]] = False
    exact &= ~(beyond | too_small)
    records = np.bincount(data.row, np.maximum(counts, 0), len(rows)).astype(np.uint32)
    reserved = np.bincount(sets.row[~(is_template | is_data)], minlength=len(rows))
    undecoded = (np.bincount(data.row[lost], minlength=len(rows)) + reserved + (beyond | too_small)).astype(np.uint32)
    v9 = protocol.version == 9
    decoded.heard.append(
        Heard(
            version=protocol.version,
            source=headers.source,
            domain=headers.domain,
            sequence=headers.sequence,
            # NetFlow v9 counts datagrams, IPFIX data records, those of options among them.
            units=np.ones(len(rows), np.uint32) if v9 else records,
            exact=np.ones(len(rows), np.bool_) if v9 else exact,
            records=records,
            undecoded=undecoded,
            uptime_ms=headers.uptime_ms,
            received_ns=headers.received_ns,
        )
    )


def _headers(protocol: Protocol, datagrams: Datagrams, rows: Index, head: npt.NDArray[np.uint8]) -> Headers:
    v9 = protocol.version == 9
    seconds = word32(head, 8 if v9 else 4).astype(np.int64)
    return Headers(
        version=protocol.version,
        source=datagrams.source[rows],
        domain=word32(head, 16 if v9 else 12),
        sequence=word32(head, 12 if v9 else 8),
        exported_ns=seconds * 1_000_000_000,
        uptime_ms=word32(head, 4) if v9 else None,
        received_ns=datagrams.received_ns[rows],
        identity=identities(datagrams, rows),
        source_port=datagrams.source_port[rows],
    )


Change = tuple[int, tuple[int, ...]]
"""From which set of the batch on, which layouts are known, the newest first."""


def _learn(
    protocol: Protocol,
    buffer: npt.NDArray[np.uint8],
    headers: Headers,
    sets: Sets,
    which: Index,
    templates: Templates,
    decoded: Decoded,
) -> dict[bytes, list[Change]]:
    """Learn from the template sets, in their order; returns what changed for which key and from where on."""
    changes: dict[bytes, list[Change]] = {}
    for at in which.tolist():
        row, start = int(sets.row[at]), int(sets.start[at])
        body = buffer[start : start + int(sets.length[at])].tobytes()
        exporter = headers.source[row].tobytes() + protocol.version.to_bytes(2) + int(headers.domain[row]).to_bytes(4)
        options = int(sets.number[at]) == protocol.options_template_set
        for item in read_templates(protocol.version, options, body):
            if isinstance(item, Fault):
                decoded.faults[item, Unit.SETS] += 1
                continue
            if isinstance(item, Oddity):
                decoded.oddities[item] += 1
                continue
            decoded.templates += 1
            key = exporter + item.template_id.to_bytes(2)
            outcome = templates.learn(key, item)
            if isinstance(outcome, Learned):
                decoded.learned.append(outcome)
                changes.setdefault(key, []).append((at, templates.candidates(key)))
                if outcome.redefined:
                    decoded.oddities[Oddity.TEMPLATE_REDEFINED] += 1
            elif outcome is not None:
                decoded.faults[outcome, Unit.SETS] += 1
    return changes


def _known_at(
    at: int, changes: list[Change] | tuple[()], key: bytes, before: int, templates: Templates
) -> tuple[int, ...]:
    """Which layouts were known for a key when the set at this place of the batch came, the newest first."""
    if not changes:
        return templates.candidates(key)
    earlier = [known for place, known in changes if place < at]
    if earlier:
        return earlier[-1]
    if before >= 0:
        return (before,)
    first = changes[0][1]
    # Nothing was known: the template that came first after it. Two were known: those that the first change left.
    return first[-1:] if before == UNKNOWN else first


def choose(known: tuple[int, ...], length: int, templates: Templates) -> int:
    """Of the layouts known for a data set of ``length`` bytes, the newest that its length fits; else the newest."""
    for number in known:
        layout = templates.layout(number)
        shortest = layout.shortest_record
        if length >= shortest and (layout.variable or length % shortest < PADDING_BYTES):
            return number
    return known[0] if known else UNKNOWN


def decode_data_sets(
    sets: DataSets, numbers: npt.NDArray[np.int64], templates: Templates, decoded: Decoded
) -> npt.NDArray[np.int64]:
    """Decode data sets, grouped by layout; ``numbers`` tells each one's layout, or UNKNOWN.

    Sets that cannot be read yet are added to what is pending. Returns how many records each set had, -1 for those.
    """
    counts = np.full(len(sets), -1, np.int64)
    for number in np.unique(numbers).tolist():
        if number == UNKNOWN:
            continue
        layout = templates.layout(number)
        which = np.flatnonzero((numbers == number) & (sets.length >= layout.shortest_record))
        if len(which):
            counts[which] = _decode_group(layout, number, sets, which, templates, decoded)
    pending = np.flatnonzero(counts < 0)
    if len(pending):
        decoded.pending.append(_subset(sets, pending))
    return counts


def _decode_group(
    layout: Layout, number: int, sets: DataSets, which: Index, templates: Templates, decoded: Decoded
) -> Index:
    start, length = sets.start[which], sets.length[which]
    fields: Fields
    if layout.variable:
        located = locate(layout, sets.buffer, start, length)
        decoded.fault(Fault.BAD_RECORD, Unit.SETS, located.broken)
        counts = np.bincount(located.of_set, minlength=len(which)).astype(np.int64)
        fields = variable_fields(layout, sets.buffer, located)
        of = located.of_set
        position = sets.position[which][of] + located.begin - start[of]
    else:
        size = layout.shortest_record
        counts = length // size
        used = counts * size
        _count_trailing(sets.buffer, start + used, length - used, decoded)
        view = memoryview(sets.buffer)  # type: ignore[arg-type]  # a numpy array is a buffer
        joined = b"".join(map(view.__getitem__, map(slice, start.tolist(), (start + used).tolist())))
        fields = FixedFields(layout, np.frombuffer(joined, np.uint8).reshape(-1, size))
        of = np.repeat(np.arange(len(which)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        position = sets.position[which][of] + (np.arange(fields.count) - first) * size
    if fields.count == 0:
        return counts
    origin = Origin.spread(sets.headers, which[of], position)
    if layout.options:
        decoded.options.append(decode_options(layout, fields, origin))
        return counts
    batches, oddities = templates.plan(number).decode(fields, origin)
    decoded.batches.extend(batches)
    decoded.oddities.update(oddities)
    return counts


def _count_trailing(buffer: npt.NDArray[np.uint8], start: Index, length: Index, decoded: Decoded) -> None:
    """Count sets that end with more than padding may be: four bytes and more that are not zeros."""
    for index in np.flatnonzero(length >= PADDING_BYTES).tolist():
        begin = int(start[index])
        if buffer[begin : begin + int(length[index])].any():
            decoded.oddities[Oddity.TRAILING_BYTES] += 1


def _subset(sets: DataSets, which: Index) -> DataSets:
    return DataSets(
        sets.buffer,
        sets.headers.take(which),
        sets.start[which],
        sets.length[which],
        sets.position[which],
        [sets.keys[index] for index in which.tolist()],
    )
