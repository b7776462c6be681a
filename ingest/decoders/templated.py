"""NetFlow v9 (RFC 3954) and IPFIX (RFC 7011): sets whose records only a template tells how to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.context import Context
from ingest.decoders.datagrams import Datagrams
from ingest.decoders.enrich import Kind, Sources, domain_keys, exporter_keys
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.fields import Fields, FixedFields
from ingest.decoders.groups import GroupNames
from ingest.decoders.headers import Headers, Heard, Index, gather, identities, word16, word32
from ingest.decoders.layout import FIRST_DATA_SET, Layout, Template, read_templates
from ingest.decoders.lists import Around, Budget
from ingest.decoders.lookup import mix
from ingest.decoders.options import decode_options
from ingest.decoders.origin import Origin
from ingest.decoders.plan import Plan, Told
from ingest.decoders.records import locate, variable_fields
from ingest.decoders.result import PADDING_BYTES, Decoded
from ingest.decoders.sets import DataSets, Sets, find_sets
from ingest.decoders.templates import AMBIGUOUS, DOMAIN_BYTES, UNKNOWN, Learned, Templates, Word, template_keys


@dataclass(frozen=True, slots=True)
class Protocol:
    """Where the two protocols differ: the header, and the ids of the sets that hold templates."""

    version: int
    header_bytes: int
    template_set: int
    options_template_set: int


NETFLOW9: Final = Protocol(9, 20, 0, 1)
IPFIX: Final = Protocol(10, 16, 2, 3)


def decode_templated(protocol: Protocol, datagrams: Datagrams, rows: Index, context: Context, decoded: Decoded) -> None:
    """Decode the datagrams of these rows into ``decoded``, learning templates on the way.

    Datagrams take effect in their order: a data set is read with the template that was known at its place; one whose
    template comes later in the same batch is read with that.
    """
    templates = context.templates
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
        key = keys[index]
        known, later = _known_at(int(data_at[index]), changes.get(key) or [(-1, templates.candidates(key))])
        begins = int(data.start[index])
        body = datagrams.buffer[begins : begins + int(data.length[index])]
        numbers[index] = choose(known, later, body, templates)

    found = DataSets(
        datagrams.buffer,
        headers.take(data.row),
        data.start,
        data.length,
        data.start - begin[data.row],
        keys,
    )
    options_before = len(decoded.options)
    counts = decode_data_sets(found, numbers, context, decoded)
    lost = counts < 0
    exact = np.ones(len(rows), np.bool_)
    exact[data.row[lost]] = False
    exact &= ~(beyond | too_small)
    records = np.bincount(data.row, np.maximum(counts, 0), len(rows)).astype(np.uint32)
    of_flows = _of_flows(counts, numbers, templates) if len(decoded.options) > options_before else counts
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
            records=np.bincount(data.row, np.maximum(of_flows, 0), len(rows)).astype(np.uint32),
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
        identity=identities(datagrams, rows, datagrams.source[rows]),
        source_port=datagrams.source_port[rows],
    )


MOST_CHANGES: Final = 16
"""Of one identifier's redefinitions in a batch so many are told apart, and the last: more are made to keep us busy."""

Change = tuple[int, tuple[int, ...]]
"""From which set of the batch on, which layouts are known, the newest first; -1 is before all of them."""


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
            before = templates.candidates(key)
            outcome = templates.learn(key, item)
            if isinstance(outcome, Learned):
                decoded.learned.append(outcome)
                if outcome.redefined:
                    decoded.oddities[Oddity.TEMPLATE_REDEFINED] += 1
            elif outcome is not None:
                decoded.faults[outcome, Unit.SETS] += 1
            changed = isinstance(outcome, Learned)
            if changed or templates.contested(key):
                decoded.words.append(_word(key, item, headers, row, changed=changed))
            known = templates.candidates(key)
            if known != before:
                of_key = changes.setdefault(key, [(-1, before)])
                del of_key[MOST_CHANGES:]
                of_key.append((at, known))
    return changes


def _word(key: bytes, template: Template, headers: Headers, row: int, *, changed: bool) -> Word:
    uptime_ms = None if headers.uptime_ms is None else int(headers.uptime_ms[row])
    times = int(headers.exported_ns[row]), int(headers.received_ns[row])
    return Word(key, template, changed, int(headers.sequence[row]), uptime_ms, *times)


def _known_at(at: int, changes: list[Change]) -> tuple[tuple[int, ...], list[int]]:
    """Which layouts were known when the set at this place of the batch came, and those that came after it."""
    known = [numbers for place, numbers in changes if place < at]
    return known[-1], [numbers[0] for _, numbers in changes[len(known) :]]


def choose(known: tuple[int, ...], later: list[int], body: npt.NDArray[np.uint8], templates: Templates) -> int:
    """The number of the layout to read a data set with, or UNKNOWN while there is none that a record fits in.

    Of the layouts that are known, the newest that the length of the set fits, and if none does the newest. A set that
    cannot be read with that waits, as if it had come after the next redefinition.
    """
    for number in known:
        if _fits(templates.layout(number), body):
            return number
    for number in (*known[:1], *later):
        if len(body) >= templates.layout(number).shortest_record:
            return number
    return UNKNOWN


def _fits(layout: Layout, body: npt.NDArray[np.uint8]) -> bool:
    """Whether what whole records leave of a set is padding: under four bytes, or zeros."""
    if len(body) < layout.shortest_record:
        return False
    left = len(body) % layout.shortest_record
    return layout.variable or left < PADDING_BYTES or not body[len(body) - left :].any()


def _of_flows(counts: Index, numbers: npt.NDArray[np.int64], templates: Templates) -> Index:
    """How many records each set has, but 0 where its layout is of options."""
    known = [number for number in np.unique(numbers).tolist() if number != UNKNOWN]
    return np.where(np.isin(numbers, [number for number in known if templates.layout(number).options]), 0, counts)


def decode_data_sets(
    sets: DataSets, numbers: npt.NDArray[np.int64], context: Context, decoded: Decoded
) -> npt.NDArray[np.int64]:
    """Decode data sets, grouped by layout; ``numbers`` tells each one's layout, or UNKNOWN.

    Sets that cannot be read yet are added to what is pending. Returns how many records each set had, -1 for those.
    """
    # An empty set has no record to wait with.
    counts = np.where(sets.length == 0, 0, -1)
    layouts = [
        (number, context.templates.layout(number)) for number in np.unique(numbers).tolist() if number != UNKNOWN
    ]
    budget = Budget()
    # Options first: what they tell holds for the records that came with them.
    variants = context.templates.variants(sets.headers.source)
    for number, layout in sorted(layouts, key=lambda one: not one[1].options):
        readable = (numbers == number) & (sets.length >= layout.shortest_record)
        for variant in np.unique(variants[readable]).tolist():
            which = np.flatnonzero(readable & (variants == variant))
            counts[which] = _decode_group(number, variant, sets, which, context, budget, decoded)
    pending = np.flatnonzero(counts < 0)
    if len(pending):
        decoded.pending.append(sets.take(pending))
    return counts


def _decode_group(
    number: int, variant: int, sets: DataSets, which: Index, context: Context, budget: Budget, decoded: Decoded
) -> Index:
    layout = context.templates.layout(number)
    counts, fields, of, position = _locate_records(layout, sets, which, decoded)
    if fields.count == 0:
        return counts
    if layout.options:
        options = decode_options(layout, fields, Origin.spread(sets.headers, which[of], position))
        decoded.options.append(options)
        if context.options is not None:
            decoded.facts.extend(context.options.read([options]))
        return counts
    plan = context.templates.plan(number, variant)
    told, booted_ms = _told(sets, which, of, context, plan, decoded)
    origin = Origin.spread(sets.headers, which[of], position, booted_ms)
    domains = [sets.keys[index][:DOMAIN_BYTES] for index in which.tolist()] if plan.lists else []
    around = Around(context.templates, layout.version, variant, context.decapsulate, domains, of, budget)
    batches, oddities = plan.decode(fields, origin, told, around)
    for fault, count in around.faults.items():
        decoded.faults[fault, Unit.SETS] += count
    decoded.batches.extend(batches)
    decoded.oddities.update(oddities)
    return counts


def _locate_records(
    layout: Layout, sets: DataSets, which: Index, decoded: Decoded
) -> tuple[Index, Fields, Index, Index]:
    """Find the records of sets of one layout.

    Returns how many each set has; their fields; and for each record, of which of the sets it is, and where it begins in
    its datagram.
    """
    start, length = sets.start[which], sets.length[which]
    if layout.variable:
        located = locate(layout, sets.buffer, start, length)
        decoded.fault(Fault.BAD_RECORD, Unit.SETS, located.broken)
        decoded.trailing(sets.buffer, located.end, np.where(located.broken, 0, start + length - located.end))
        counts = np.bincount(located.of_set, minlength=len(which)).astype(np.int64)
        of = located.of_set
        position = sets.position[which][of] + located.begin - start[of]
        return counts, variable_fields(layout, sets.buffer, located), of, position
    size = layout.shortest_record
    counts = length // size
    used = counts * size
    decoded.trailing(sets.buffer, start + used, length - used)
    of = np.repeat(np.arange(len(which)), counts)
    # A record begins so many bytes behind the first of all as it would if they lay side by side, less what is before
    # its own set there.
    along = np.arange(len(of)) * size
    before = (np.cumsum(counts) - counts) * size
    fields = FixedFields(layout, gather(sets.buffer, along + (start - before).take(of), size))
    return counts, fields, of, along + (sets.position[which] - before).take(of)


def _told(
    sets: DataSets, which: Index, of: Index, context: Context, plan: Plan, decoded: Decoded
) -> tuple[Told | None, npt.NDArray[np.int64] | None]:
    """What to join to the records, and when their exporters' uptime began; None where no facts are known."""
    options = context.options
    if options is None or not (len(options.enrichment) or plan.names_groups):
        return None, None
    enrichment = options.enrichment
    headers = sets.headers
    exporters = exporter_keys(headers.source.take(which, axis=0), enrichment.seed)
    domains = domain_keys(exporters, headers.version, headers.domain.take(which))
    templates: Index | None = None
    if enrichment.has(Kind.TEMPLATE_RATE):
        ids = b"".join(sets.keys[index][-2:] for index in which.tolist())
        templates = np.frombuffer(ids, ">u2").astype(np.int64)
    booted_ms = None
    if headers.uptime_ms is None and enrichment.has(Kind.BOOTED_MS):
        booted_ms = enrichment.numbers(Kind.BOOTED_MS, mix(domains, 0)).take(of)

    def hear(groups: GroupNames) -> None:
        told = which[groups.sets]
        decoded.facts.extend(
            options.learn_groups(groups, headers.source.take(told, axis=0), int(headers.received_ns[which].max()))
        )

    return Told(enrichment, Sources(exporters, domains, templates, of), hear), booted_ms
