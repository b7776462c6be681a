"""One column out of one field, or out of several that say the same: numbers, addresses, text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns, elements
from ingest.decoders.addresses import mapped
from ingest.decoders.elements import Element, Rule, Wire
from ingest.decoders.fault import Oddity
from ingest.decoders.fields import Fields, width
from ingest.decoders.layout import VARIABLE, Layout
from shared.record import COLUMN

Mask = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger]
Places = Mapping[Element, int]

IPV4_PREFIX: Final = np.frombuffer(b"\x00\x00\xff\xff", np.uint32)[0]
"""The third 32-bit word of an IPv4 address mapped to IPv6, in the machine's byte order."""
LONGEST_APPLICATION_BYTES: Final = 32
"""An application identifier has an octet, four for an enterprise, and a selector of a few."""


@dataclass(frozen=True, slots=True)
class Step:
    """One column of a plan, and what makes it of the fields."""

    column: str
    run: Callable[[Fields, Counter[Oddity]], pa.Array]
    ipv4: bool = False
    """Whether all that it makes are IPv4 addresses."""


def step_for(rule: Rule, layout: Layout, places: Places) -> Step | None:
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
        return Step(rule.column, read[wire], ipv4=all(wire is Wire.IPV4 for _, wire in found))
    dtype = np.dtype(type_.to_pandas_dtype())
    return Step(rule.column, lambda fields, oddities: _numbers(found, fields, dtype, type_, oddities))


def interface_names(layout: Layout) -> list[Step]:
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

    return [Step(name, named(at)) for name, at in places.items()]


def common_properties(layout: Layout) -> list[Step]:
    """What fills the forwarding status where none is sent but Juniper's common properties are."""
    places = [
        at
        for at, field in enumerate(layout.fields)
        if at >= layout.scopes and (field.enterprise, field.element) == elements.COMMON_PROPERTIES and field.length > 0
    ]
    return [Step("forwarding_status", lambda fields, _: _exceptions(fields, places))] if places else []


FORWARDING_EXCEPTION: Final = 2
FORWARDED: Final = 64
DROPPED: Final = 128
"""Statuses of RFC 7270 §4.12; the latter says nothing of the reason."""


def _exceptions(fields: Fields, places: list[int]) -> pa.Array:
    """The status by the property that is a forwarding exception, whose code is 0 where there was none."""
    status = np.zeros(fields.count, np.uint8)
    for at in places:
        _, _, length = fields.span(at)
        # The type is in the upper 6 bits, of two bytes or of four.
        shift = (8 * np.clip(length, 2, 8) - 6).astype(np.uint64)
        sent = fields.uint(at).astype(np.uint64)
        exception = (length >= 2) & (length <= 8) & (sent >> shift == FORWARDING_EXCEPTION)
        status[exception] = np.where(sent[exception] << (64 - shift[exception]) == 0, FORWARDED, DROPPED)
    return columns.primitive(status, pa.uint8(), status > 0)


def _fits(source: elements.Source, length: int) -> bool:
    exact = {Wire.IPV4: 4, Wire.IPV6: 16, Wire.MAC: 6}.get(source.wire)
    if length == VARIABLE:
        return True
    if exact is not None:
        return length == exact
    # No number has more than 8 bytes (RFC 7011 §6.1.1).
    return source.shortest <= length and (source.wire not in _READ or length <= 8)


def narrowed(values: Unsigned, dtype: np.dtype[np.unsignedinteger]) -> tuple[Unsigned, Mask | None]:
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
    values, fit = narrowed(_READ[wire](fields.uint(at)), dtype)
    told = fields.told(at)
    for at, wire in found[1:]:
        take: Mask = values == 0
        if not take.any():
            break
        others, others_fit = narrowed(_READ[wire](fields.uint(at)), dtype)
        others_told = fields.told(at)
        if others_told is not None:
            take &= others_told
        values = np.where(take, others, values)
        fit = both(fit, None if others_fit is None else others_fit | ~take)
        told = None if told is None else told | take
    if fit is not None:
        count_beyond(oddities, ~fit)
    return columns.primitive(values, type_, both(fit, told))


def count_beyond(oddities: Counter[Oddity], where: Mask) -> None:
    """Count values that are too large for their column."""
    count = int(np.count_nonzero(where))
    if count:
        oddities[Oddity.OUT_OF_RANGE] += count


def both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Where both are true; None is true everywhere."""
    if one is None or other is None:
        return one if other is None else other
    return one & other


_READ: Final[Mapping[Wire, Callable[[Unsigned], Unsigned]]] = {
    Wire.UINT: lambda values: values,
    Wire.HIGH_BYTE: lambda values: (values.astype(np.uint64) >> np.uint64(8)) & np.uint64(0xFF),
    Wire.LOW_BYTE: lambda values: values.astype(np.uint64) & np.uint64(0xFF),
    Wire.SEGMENT: lambda values: values.astype(np.uint64) & np.uint64(0xFFFFFF),
}


def _addresses(found: list[tuple[int, Wire]], fields: Fields, type_: pa.DataType) -> pa.Array:
    if len(found) == 1 and found[0][1] is Wire.IPV4:
        return _ipv4(found[0][0], fields, type_)
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


def _ipv4(at: int, fields: Fields, type_: pa.DataType) -> pa.Array:
    """The addresses of the one field that there is, or zeros where it has another length."""
    octets = fields.octets(at, 4)
    if octets is None:
        nothing = np.zeros((fields.count, 4), np.uint8)
        return columns.primitive(mapped(nothing), type_, np.zeros(fields.count, np.bool_))
    return columns.primitive(mapped(octets), type_, fields.told(at, 4))


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
