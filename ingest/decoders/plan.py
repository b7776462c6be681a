"""A layout compiled to what turns its records into columns: one vectorised step a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns, elements
from ingest.decoders.elements import Clock, Element, Rule, Wire
from ingest.decoders.enrich import Asked, Sampled, values_of
from ingest.decoders.extra import extra_column, suits
from ingest.decoders.fault import Oddity
from ingest.decoders.fields import Fields, present, width
from ingest.decoders.headers import Headers, Index
from ingest.decoders.layout import VARIABLE, Layout
from ingest.decoders.lists import Around, list_columns, list_places
from ingest.decoders.mapping import Rules
from ingest.decoders.sections import find_section, section_columns
from shared.record import CLOCK, COLUMN, POSITION, TIME

Mask = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger]
Columns = dict[str, pa.Array]
Places = Mapping[Element, int]

ETYPE_IPV4: Final = 0x0800
ETYPE_IPV6: Final = 0x86DD
IPV4_PREFIX: Final = np.frombuffer(b"\x00\x00\xff\xff", np.uint32)[0]
"""The third 32-bit word of an IPv4 address mapped to IPv6, in the machine's byte order."""
NTP_TO_UNIX_SECONDS: Final = 2_208_988_800
UPTIME_TURN_MS: Final = 1 << 32
LAST_MILLISECOND: Final = np.iinfo(np.int64).max // 1_000_000
TIMES: Final = (("time_flow_start", elements.FLOW_START), ("time_flow_end", elements.FLOW_END))
ICMP: Final = 1
ICMPV6: Final = 58
LONGEST_APPLICATION_BYTES: Final = 32
"""An application identifier has an octet, four for an enterprise, and a selector of a few."""

TYPE_NAMES: Final = {0: "SFLOW_5", 5: "NETFLOW_V5", 9: "NETFLOW_V9", 10: "IPFIX"}
"""By version word; sFlow's has 32 bits, of which the upper 16 are 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What the datagrams tell of n records: arrays of length n, in the machine's byte order."""

    source: npt.NDArray[np.uint8]
    """[n, 16]"""
    domain: npt.NDArray[np.uint32]
    sequence: npt.NDArray[np.uint32]
    exported_ns: npt.NDArray[np.int64]
    uptime_ms: npt.NDArray[np.uint32] | None
    """The exporter's uptime when it sent the datagram; None where the protocol's header does not tell."""
    received_ns: npt.NDArray[np.int64]
    identity: npt.NDArray[np.uint64]
    """Hash of sampler and datagram."""
    position: npt.NDArray[np.int64]
    """Where the record begins in its datagram, in bytes."""
    booted_ms: npt.NDArray[np.int64] | None = None
    """When the exporter's uptime began, by its options data; negative where it did not tell."""

    @classmethod
    def spread(
        cls,
        headers: Headers,
        of: Index,
        position: npt.NDArray[np.int64],
        booted_ms: npt.NDArray[np.int64] | None = None,
    ) -> Origin:
        """What the headers' rows ``of`` tell, one for each record."""
        return cls(
            source=headers.source[of],
            domain=headers.domain[of],
            sequence=headers.sequence[of],
            exported_ns=headers.exported_ns[of],
            uptime_ms=None if headers.uptime_ms is None else headers.uptime_ms[of],
            received_ns=headers.received_ns[of],
            identity=headers.identity[of],
            position=position,
            booted_ms=booted_ms,
        )

    def take(self, which: Index) -> Origin:
        """What they tell of these records, in this order."""
        return Origin(
            source=self.source[which],
            domain=self.domain[which],
            sequence=self.sequence[which],
            exported_ns=self.exported_ns[which],
            uptime_ms=None if self.uptime_ms is None else self.uptime_ms[which],
            received_ns=self.received_ns[which],
            identity=self.identity[which],
            position=self.position[which],
            booted_ms=None if self.booted_ms is None else self.booted_ms[which],
        )


def record_ids(identity: npt.NDArray[np.uint64], position: npt.NDArray[np.int64], part: int) -> npt.NDArray[np.uint64]:
    """Mix the hash of a datagram, the byte offset of a record in it, and which part of the record this is."""
    mixed = (position.astype(np.uint64) << np.uint64(3)) + np.uint64(part + 1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= identity
    # The finaliser of SplitMix64: every bit of the input moves every bit of the result.
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def common_columns(version: int, origin: Origin) -> Columns:
    """The columns that come from the datagram alone."""
    count = len(origin.domain)
    return {
        "type": columns.constant_name(TYPE_NAMES[version], count),
        "record_id": columns.primitive(record_ids(origin.identity, origin.position, 0), pa.uint64()),
        "time_received": columns.primitive(origin.received_ns, TIME),
        "time_exported": columns.primitive(origin.exported_ns // 1_000_000, CLOCK),
        "sampler_address": columns.primitive(origin.source, COLUMN["sampler_address"].type),
        "observation_domain_id": columns.primitive(origin.domain, pa.uint32()),
        "sequence_num": columns.primitive(origin.sequence, pa.uint32()),
    }


def icmp_from_port(proto: npt.NDArray[np.uint8], dst_port: npt.NDArray[np.uint16]) -> Columns:
    """Type and code that NetFlow v5 and v9 carry as the destination port, of the records that are ICMP."""
    valid = (proto == ICMP) | (proto == ICMPV6)
    if not valid.any():
        return {}
    return {
        "icmp_type": columns.primitive((dst_port >> 8).astype(np.uint8), pa.uint8(), valid),
        "icmp_code": columns.primitive((dst_port & 0xFF).astype(np.uint8), pa.uint8(), valid),
    }


def ordered(made: Columns) -> pa.RecordBatch:
    """Columns as a batch, in the order of the record."""
    names = sorted(made, key=POSITION.__getitem__)
    return pa.RecordBatch.from_arrays([made[name] for name in names], names)


class Plan:
    """Turns the records of one layout into columns. Made once a layout; holds no state between calls."""

    def __init__(self, layout: Layout, rules: Rules | None = None) -> None:
        self.layout = layout
        rules = rules or Rules()
        places = present(layout)
        self._places = places
        self._steps = [step for rule in rules.rules if (step := _step(rule, layout, places)) is not None]
        self._steps.extend(_interface_names(layout))
        self._extras = [
            (one.extra, places[one.element], one.written_as)
            for one in rules.extras
            if one.extra is not None and one.element in places and suits(one, width(layout, places[one.element]))
        ]
        self._section = find_section(layout, places)
        self._lists = list_places(layout)
        self._reverse_places = {
            **{element: at for element, at in places.items() if element == elements.SYSTEM_INIT_MS},
            **{
                (0, element): at
                for (enterprise, element), at in places.items()
                if enterprise == elements.REVERSE and element not in elements.NOT_REVERSIBLE
            },
        }
        self._reverse_steps = self._compile_reverse(rules, layout, places, self._reverse_places)

    @staticmethod
    def _compile_reverse(rules: Rules, layout: Layout, places: Places, reverse: Places) -> list[_Step]:
        steps = [step for rule in rules.rules if (step := _step(rule, layout, reverse)) is not None]
        made = {step.column for step in steps}
        responder = [step for rule in elements.RESPONDER if (step := _step(rule, layout, places)) is not None]
        return steps + [step for step in responder if step.column not in made]

    @property
    def lists(self) -> bool:
        """Whether the layout has structured data, whose reading needs what is around the records."""
        return bool(self._lists)

    def columns(self, fields: Fields, origin: Origin, around: Around | None, oddities: Counter[Oddity]) -> Columns:
        """What the records tell: their own elements, then a sampled section, then structured data.

        Each fills what those before it left open.
        """
        made = {step.column: step.run(fields, oddities) for step in self._steps}
        for column, clocks in TIMES:
            told = _told_time(clocks, self._places, fields, origin)
            if told is not None:
                made[column] = _time(*told, oddities)
        self._etype(made, fields)
        self._icmp(made)
        self._labels(made, fields)
        rate = _sampling_rate(fields, self._places, oddities)
        if rate is not None:
            made["sampling_rate"] = rate
        if self._extras:
            made["extra"] = extra_column(fields, self._extras)
        if self._section is not None:
            _fill(made, section_columns(self._section, fields, () if around is None else around.decapsulate))
        if self._lists and around is not None:
            _fill(made, list_columns(self._lists, fields, origin, around, oddities))
        return made

    def decode(
        self, fields: Fields, origin: Origin, asked: Asked | None = None, around: Around | None = None
    ) -> tuple[list[pa.RecordBatch], Counter[Oddity]]:
        """Turn records into batches: one, and a second of what flowed the other way when the layout has that.

        What options data told of their exporters is joined to the records when there is ``asked`` for it.
        """
        oddities: Counter[Oddity] = Counter()
        made = common_columns(self.layout.version, origin) | self.columns(fields, origin, around, oddities)
        self._default(made, fields, origin)
        if asked is not None:
            rate = asked.enrichment.rates(made.get("sampling_rate"), self._sampled(made, fields, asked))
            if rate is not None:
                made["sampling_rate"] = rate
            asked.enrichment.join(made, asked.exporters)
        if not self._reverse_steps:
            return [ordered(made)], oddities
        made["bi_flow_direction"] = columns.primitive(np.full(fields.count, 1, np.uint8), pa.uint8())
        batches = [ordered(made)]
        reverse = self._reversed(made, fields, origin, oddities)
        if reverse is not None:
            batches.append(reverse)
        return batches, oddities

    def _default(self, made: Columns, fields: Fields, origin: Origin) -> None:
        """Give the columns that every record has to records that told nothing of them."""
        exported = columns.primitive(origin.exported_ns, TIME)
        for column, clocks in TIMES:
            # What the record's own clock tells, and cannot be true, stays null.
            if not any(element in self._places for element, _ in clocks):
                made[column] = columns.filled(made.get(column), exported)
            elif column not in made:
                made[column] = exported
        if "flows" not in made or self._lists:
            one = columns.primitive(np.ones(fields.count, np.uint64), pa.uint64())
            made["flows"] = columns.filled(made.get("flows"), one)

    def _sampled(self, made: Columns, fields: Fields, asked: Asked) -> Sampled:
        """By what options data may tell the sampling rate of these records."""
        sampler = next((self._places[element] for element in elements.SAMPLERS if element in self._places), None)
        return Sampled(
            asked.domains,
            samplers=None if sampler is None else fields.uint(sampler).astype(np.int64),
            templates=asked.templates,
            interfaces=None if "in_if" not in made else values_of(made["in_if"]).astype(np.int64),
        )

    def _reversed(
        self, forward: Columns, fields: Fields, origin: Origin, oddities: Counter[Oddity]
    ) -> pa.RecordBatch | None:
        """The other direction of a biflow (RFC 5103), of the records in which something came back."""
        made = dict(forward)
        for name in elements.ONE_WAY:
            made.pop(name, None)
        for one, other in elements.EXCHANGED:
            first, second = made.pop(one, None), made.pop(other, None)
            if first is not None:
                made[other] = first
            if second is not None:
                made[one] = second
        for step in self._reverse_steps:
            made[step.column] = step.run(fields, oddities)
        for column, clocks in TIMES:
            told = _told_time(clocks, self._reverse_places, fields, origin)
            if told is not None:
                made[column] = _time(*told, oddities)
        made["record_id"] = columns.primitive(record_ids(origin.identity, origin.position, 1), pa.uint64())
        made["bi_flow_direction"] = columns.primitive(np.full(fields.count, 2, np.uint8), pa.uint8())
        something = np.zeros(fields.count, np.bool_)
        for name in ("bytes", "packets"):
            if name in made:
                something |= made[name].fill_null(0).to_numpy(zero_copy_only=False) != 0
        if not something.any():
            return None
        batch = ordered(made)
        return batch if something.all() else batch.filter(pa.array(something))

    def _etype(self, made: Columns, fields: Fields) -> None:
        addresses = [made[name] for name in ("src_addr", "dst_addr") if name in made]
        if addresses:
            six = np.zeros(fields.count, np.bool_)
            for column in addresses:
                words = np.frombuffer(column.buffers()[1], np.uint32).reshape(-1, 4)
                six |= (words[:, 0] != 0) | (words[:, 1] != 0) | (words[:, 2] != IPV4_PREFIX)
            values = np.where(six, np.uint16(ETYPE_IPV6), np.uint16(ETYPE_IPV4))
            made["etype"] = columns.primitive(values, pa.uint16(), _any_told(addresses))
        elif (0, 60) in self._places:
            ip_version = fields.uint(self._places[0, 60])
            values = np.where(ip_version == 6, np.uint16(ETYPE_IPV6), np.uint16(ETYPE_IPV4))
            made["etype"] = columns.primitive(values, pa.uint16(), (ip_version == 4) | (ip_version == 6))
        elif (0, 256) in self._places:
            values, valid = _narrowed(fields.uint(self._places[0, 256]), np.dtype(np.uint16))
            made["etype"] = columns.primitive(values, pa.uint16(), valid)

    def _icmp(self, made: Columns) -> None:
        if self.layout.version != 9 or "icmp_type" in made or "proto" not in made or "dst_port" not in made:
            return
        proto = np.frombuffer(made["proto"].buffers()[1], np.uint8)
        by_port = icmp_from_port(proto, np.frombuffer(made["dst_port"].buffers()[1], np.uint16))
        # A code of its own stands, whatever the port says.
        made.update(by_port | {name: made[name] for name in by_port if name in made})

    def _labels(self, made: Columns, fields: Fields) -> None:
        places = [self._places[element] for element in elements.MPLS_LABELS if element in self._places]
        places = [at for at in places if 3 <= width(self.layout, at) <= 4]
        if not places:
            return
        stack = np.stack([fields.uint(at).astype(np.uint32) for at in places], axis=1)
        # The label is the upper 20 bits; an entry of zeros is one that the stack did not have.
        shift = np.array([8 * width(self.layout, at) - 20 for at in places], np.uint32)
        made["mpls_labels"] = columns.number_lists(stack >> shift, stack != 0)


def _fill(made: Columns, more: Columns) -> None:
    """Add columns, and to those that are there what they left open."""
    for name, column in more.items():
        made[name] = columns.filled(made.get(name), column)


@dataclass(frozen=True, slots=True)
class _Step:
    column: str
    run: Callable[[Fields, Counter[Oddity]], pa.Array]


def _step(rule: Rule, layout: Layout, places: Places) -> _Step | None:
    """What fills a rule's column from this layout, or None when no element of it is there."""
    found = [
        (places[source.element], source.wire)
        for source in rule.sources
        if source.element in places and _fits(source, width(layout, places[source.element]))
    ]
    if not found:
        return None
    if not rule.zero_yields:
        found = found[:1]
    type_ = COLUMN[rule.column].type
    wire = found[0][1]
    read: dict[Wire, Callable[[Fields, Counter[Oddity]], pa.Array]] = {
        Wire.IPV4: lambda fields, _: _addresses(found, fields, type_),
        Wire.IPV6: lambda fields, _: _addresses(found, fields, type_),
        Wire.MAC: lambda fields, _: _macs([at for at, _ in found], fields, type_),
        Wire.TEXT: lambda fields, _: fields.text(found[0][0]),
        Wire.NAME: lambda fields, _: columns.names(fields.text(found[0][0])),
        Wire.APPLICATION: lambda fields, _: applications(fields, found[0][0]),
    }
    if wire in read:
        return _Step(rule.column, read[wire])
    dtype = np.dtype(type_.to_pandas_dtype())
    return _Step(rule.column, lambda fields, oddities: _numbers(found, fields, dtype, type_, oddities))


def _interface_names(layout: Layout) -> list[_Step]:
    """What fills the names of interfaces that the record itself brings, each behind its interface."""
    column: str | None = None
    places: dict[str, int] = {}
    for at, field in enumerate(layout.fields):
        element = field.enterprise, field.element
        if element in elements.INTERFACES:
            column = elements.INTERFACES[element]
        elif element == elements.INTERFACE_NAME and column is not None and field.length:
            places[column] = at

    def named(at: int) -> Callable[[Fields, Counter[Oddity]], pa.Array]:
        return lambda fields, _: columns.names(fields.text(at))

    return [_Step(name, named(at)) for name, at in places.items()]


def _fits(source: elements.Source, length: int) -> bool:
    exact = {Wire.IPV4: 4, Wire.IPV6: 16, Wire.MAC: 6}.get(source.wire)
    if length == VARIABLE:
        return True
    if exact is not None:
        return length == exact
    # No number has more than 8 bytes (RFC 7011 §6.1.1).
    return source.shortest <= length and (source.wire not in _READ or length <= 8)


def _narrowed(values: Unsigned, dtype: np.dtype[np.unsignedinteger]) -> tuple[Unsigned, Mask | None]:
    """Values as the column has them, and where they fit; None when all do. What does not fit is as large as may be."""
    if values.dtype.itemsize <= dtype.itemsize:
        return values.astype(dtype, copy=False), None
    fits = values <= np.iinfo(dtype).max
    if fits.all():
        return values.astype(dtype), None
    return np.minimum(values, np.iinfo(dtype).max).astype(dtype), fits


def _numbers(
    found: list[tuple[int, Wire]],
    fields: Fields,
    dtype: np.dtype[np.unsignedinteger],
    type_: pa.DataType,
    oddities: Counter[Oddity],
) -> pa.Array:
    at, wire = found[0]
    values, fit = _narrowed(_READ[wire](fields.uint(at)), dtype)
    told = fields.told(at)
    for at, wire in found[1:]:
        take: Mask = values == 0
        if not take.any():
            break
        others, others_fit = _narrowed(_READ[wire](fields.uint(at)), dtype)
        others_told = fields.told(at)
        if others_told is not None:
            take &= others_told
        values = np.where(take, others, values)
        fit = _both(fit, None if others_fit is None else others_fit | ~take)
        told = None if told is None else told | take
    if fit is not None:
        _beyond(oddities, ~fit)
    return columns.primitive(values, type_, _both(fit, told))


def _beyond(oddities: Counter[Oddity], where: Mask) -> None:
    """Count values that are too large for their column."""
    count = int(np.count_nonzero(where))
    if count:
        oddities[Oddity.OUT_OF_RANGE] += count


def _both(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other


def _common_properties(values: Unsigned) -> Unsigned:
    # Type 2 is a forwarding exception; 64 is "forwarded", 128 "dropped, unknown reason" (RFC 7270 §4.12).
    dropped = ((values >> 10) == 2) & ((values & 0x3FF) != 0)
    return np.where(dropped, np.uint8(128), np.uint8(64))


_READ: Final[Mapping[Wire, Callable[[Unsigned], Unsigned]]] = {
    Wire.UINT: lambda values: values,
    Wire.HIGH_BYTE: lambda values: (values.astype(np.uint64) >> np.uint64(8)) & np.uint64(0xFF),
    Wire.LOW_BYTE: lambda values: values.astype(np.uint64) & np.uint64(0xFF),
    Wire.SEGMENT: lambda values: values.astype(np.uint64) & np.uint64(0xFFFFFF),
    Wire.COMMON_PROPERTIES: _common_properties,
}


def _addresses(found: list[tuple[int, Wire]], fields: Fields, type_: pa.DataType) -> pa.Array:
    words = np.zeros((fields.count, 4), np.uint32)
    words[:, 2] = IPV4_PREFIX
    told: Mask | None = np.zeros(fields.count, np.bool_)
    empty: Mask | None = None
    several = len({at for at, _ in found}) > 1
    for at, wire in found:
        length = 4 if wire is Wire.IPV4 else 16
        octets, has = fields.octets(at, length), fields.told(at, length)
        if octets is None:
            continue
        told = None if told is None or has is None else told | has
        if wire is Wire.IPV4:
            sent = octets.view(np.uint32)[:, 0]
            if empty is None:
                words[:, 3] = sent
            else:
                words[empty, 3] = sent[empty]
        else:
            six = octets.view(np.uint64)
            something: Mask = (six[:, 0] != 0) | (six[:, 1] != 0)
            # Zeros beside the other family say nothing; alone they are the address "::".
            take = something if several else np.ones(fields.count, np.bool_) if has is None else has
            if empty is not None:
                take = take & empty
            words.view(np.uint64)[take] = six[take]
        empty = (words[:, 3] == 0) & (words[:, 2] == IPV4_PREFIX)
        if not empty.any():
            break
    return columns.primitive(words.view(np.uint8), type_, told)


def _macs(places: list[int], fields: Fields, type_: pa.DataType) -> pa.Array:
    values = np.zeros((fields.count, 6), np.uint8)
    told: Mask | None = np.zeros(fields.count, np.bool_)
    for at in places:
        octets, has = fields.octets(at, 6), fields.told(at, 6)
        if octets is None:
            continue
        told = None if told is None or has is None else told | has
        something: Mask = np.logical_or.reduce(values, axis=1)
        values = np.where(something[:, None], values, octets)
    return columns.primitive(values, type_, told)


def _application(octets: bytes) -> str | None:
    # The length in front tells how many of the padded bytes are the identifier.
    length, value = octets[0], octets[1:]
    if length < 2:
        return None
    engine, selector = value[0], value[1:length]
    if engine == 20 and len(selector) > 4:
        # The engine of private enterprises has the enterprise's number first (RFC 6759 §4.1).
        return f"20:{int.from_bytes(selector[:4])}:{int.from_bytes(selector[4:])}"
    return f"{engine}:{int.from_bytes(selector)}"


def applications(fields: Fields, at: int) -> pa.Array:
    """Application ids as text: the engine, a colon, and the selector (RFC 6759 §4)."""
    octets, length = fields.padded(at, LONGEST_APPLICATION_BYTES)
    with_length = np.concatenate([length.astype(np.uint8)[:, None], octets], axis=1)
    return columns.per_distinct(with_length, _application)


def _told_time(
    clocks: tuple[tuple[Element, Clock], ...], places: Places, fields: Fields, origin: Origin
) -> tuple[npt.NDArray[np.int64], Mask | None] | None:
    """Nanoseconds since 1970 by the best clock that the layout has, and where they can be told; None without one."""
    for element, clock in clocks:
        if element not in places:
            continue
        sent = fields.uint(places[element])
        if clock is not Clock.UPTIME_MS:
            values, valid = _CLOCKS[clock](sent.astype(np.uint64), origin)
        elif elements.SYSTEM_INIT_MS in places:
            values, valid = _since_init(sent, fields.uint(places[elements.SYSTEM_INIT_MS]), origin)
        elif origin.uptime_ms is not None:
            values, valid = _since_boot(sent, origin.uptime_ms, origin)
        elif origin.booted_ms is not None:
            booted: Mask = origin.booted_ms >= 0
            values, valid = _since_init(sent, np.maximum(origin.booted_ms, 0).astype(np.uint64), origin)
            values = np.where(booted, values, origin.exported_ns)
            valid = None if valid is None else valid | ~booted
        else:
            continue
        told = fields.told(places[element])
        if told is not None:
            values = np.where(told, values, origin.exported_ns)
            valid = None if valid is None else valid | ~told
        return values, valid
    return None


def _any_told(made: list[pa.Array]) -> Mask | None:
    """Where one of several columns has a value; None when the first has one everywhere."""
    if made[0].null_count == 0:
        return None
    told: Mask = np.logical_or.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in made])
    return told


def _time(values: npt.NDArray[np.int64], valid: Mask | None, oddities: Counter[Oddity]) -> pa.Array:
    if valid is not None:
        _beyond(oddities, ~valid)
    return columns.primitive(values, TIME, valid)


def _since_init(sent: Unsigned, booted: Unsigned, origin: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = (sent <= LAST_MILLISECOND) & (booted <= LAST_MILLISECOND)
    at = np.where(valid, sent.astype(np.int64) + booted.astype(np.int64), 0)
    if sent.dtype.itemsize <= 4:
        # The uptime begins again after 2^32 ms: of the times that it may mean, the one nearest to the export.
        at += np.rint((origin.exported_ns // 1_000_000 - at) / UPTIME_TURN_MS).astype(np.int64) * UPTIME_TURN_MS
    valid &= at <= LAST_MILLISECOND
    return np.where(valid, at, 0) * 1_000_000, None if valid.all() else valid


def _since_boot(
    sent: Unsigned, uptime_ms: npt.NDArray[np.uint32], origin: Origin
) -> tuple[npt.NDArray[np.int64], None]:
    # Modulo 2^32 and signed, so that a wrap of the uptime between the flow and its export does no harm.
    ago = (uptime_ms - sent.astype(np.uint32)).view(np.int32).astype(np.int64)
    return origin.exported_ns - ago * 1_000_000, None


def _milliseconds(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = sent <= LAST_MILLISECOND
    return sent.astype(np.int64) * 1_000_000, None if valid.all() else valid


def _seconds(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = sent <= LAST_MILLISECOND // 1000
    return sent.astype(np.int64) * 1_000_000_000, None if valid.all() else valid


def _ntp(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    seconds = (sent >> np.uint64(32)).astype(np.int64) - NTP_TO_UNIX_SECONDS
    fraction = ((sent & np.uint64(0xFFFFFFFF)) * np.uint64(1_000_000_000)) >> np.uint64(32)
    return seconds * 1_000_000_000 + fraction.astype(np.int64), None


_CLOCKS: Final[
    Mapping[Clock, Callable[[npt.NDArray[np.uint64], Origin], tuple[npt.NDArray[np.int64], Mask | None]]]
] = {
    Clock.SECONDS: _seconds,
    Clock.MILLISECONDS: _milliseconds,
    Clock.NTP: _ntp,
    Clock.NTP_US: lambda sent, origin: _ntp(sent & ~np.uint64(0x7FF), origin),
    Clock.BEFORE_EXPORT_US: lambda sent, origin: (origin.exported_ns - sent.astype(np.int64) * 1000, None),
}


def _sampling_rate(fields: Fields, places: Places, oddities: Counter[Oddity]) -> pa.Array | None:
    """N of 1:N as the record itself tells it, null where it tells 0; None when the layout tells nothing.

    Of 309/310, 305/306, 311, 50 and 34 the first that is there and is not 0 counts; 305 alone proves nothing.
    """
    told: list[npt.NDArray[np.float64]] = []
    if (0, 309) in places and (0, 310) in places:
        told.append(_ratio(fields.uint(places[0, 310]), fields.uint(places[0, 309])))
    if (0, 305) in places and (0, 306) in places:
        taken, skipped = fields.uint(places[0, 305]).astype(np.uint64), fields.uint(places[0, 306]).astype(np.uint64)
        told.append(_ratio(taken + skipped, taken))
    if (0, 311) in places:
        for size, dtype in ((8, ">f8"), (4, ">f4")):
            octets = fields.octets(places[0, 311], size)
            if octets is not None:
                share = np.ascontiguousarray(octets).view(dtype)[:, 0].astype(np.float64)
                with np.errstate(over="ignore"):  # 1 of more than can be told is out of range, like 1 of 2^40
                    told.append(np.divide(1.0, share, out=np.zeros(fields.count), where=(share > 0) & (share <= 1)))
    told.extend(fields.uint(places[0, number]).astype(np.float64) for number in (50, 34) if (0, number) in places)
    if not told:
        return None
    rate = told[0]
    for other in told[1:]:
        rate = np.where(rate >= 1, rate, other)
    valid = (rate >= 1) & (rate <= np.iinfo(np.uint32).max)
    values = np.where(valid, np.rint(rate), 0).astype(np.uint32)
    _beyond(oddities, rate > np.iinfo(np.uint32).max)
    return columns.primitive(values, pa.uint32(), None if valid.all() else valid)


def _ratio(whole: Unsigned, part: Unsigned) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(whole, part, out=np.zeros(len(whole)), where=part != 0)
    return ratio
