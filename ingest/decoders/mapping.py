"""Which further elements fill which columns, for which exporters: what a mapping file says, ready for the decoders."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.elements import RULES, Element, Rule, Source, Wire
from ingest.decoders.layout import Layout

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_EXPORTERS: Final = 65_536
"""Exporters whose variant is remembered; for those beyond it is looked up each time."""


class As(StrEnum):
    """How the value of a field without a column of its own is written into ``extra``."""

    UINT = "uint"
    INT = "int"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    MAC = "mac"
    UTF8 = "utf8"
    HEX = "hex"
    BOOLEAN = "boolean"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Beside:
    """Another element that must stand in the same template."""

    element: Element
    length: int | None = None


@dataclass(frozen=True, slots=True)
class MappedField:
    """One element and where its value goes: a column of the record, or a name in ``extra``."""

    version: int
    """9 or 10, as in the header."""
    element: Element
    column: str | None = None
    extra: str | None = None
    written_as: As = As.UTF8
    length: int | None = None
    """Only in templates that give it this length."""
    beside: Beside | None = None
    networks: tuple[Network, ...] = ()
    """Only for exporters in these; for all when empty."""
    fallback: bool = False
    """Whether the record's own elements go first; else it does, and no longer means what it means by itself."""

    def applies(self, layout: Layout) -> bool:
        """Whether the template of this layout has the field as it is meant."""
        if layout.version != self.version or not _stands(layout, self.element, self.length):
            return False
        return self.beside is None or _stands(layout, self.beside.element, self.beside.length)

    def includes(self, exporter: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether it is meant for this exporter."""
        return not self.networks or any(exporter in network for network in self.networks)


def _stands(layout: Layout, element: Element, length: int | None) -> bool:
    # Of an element that stands twice the last counts, and one of no length is not there.
    for one in reversed(layout.fields[layout.scopes :]):
        if (one.enterprise, one.element) == element and one.length > 0:
            return length in {None, one.length}
    return False


@dataclass(frozen=True, slots=True)
class Rules:
    """What fills the columns of one layout of one kind of exporter: rules of the record, and what goes to ``extra``."""

    rules: tuple[Rule, ...] = RULES
    extras: tuple[MappedField, ...] = ()


@dataclass(slots=True, eq=False)
class FieldMapping:
    """Mapped fields. Exporters for which the same fields are meant are of one *variant*; 0 is that of most."""

    fields: Sequence[MappedField] = ()
    sgt_names: Mapping[int, str] = field(default_factory=dict)
    """Names of security groups that neither the record nor its exporter told."""
    _variants: dict[frozenset[int], int] = field(default_factory=lambda: {frozenset(): 0})
    _of_exporter: dict[bytes, int] = field(default_factory=dict)

    @property
    def restricted(self) -> bool:
        """Whether any field is meant for some exporters only."""
        return any(one.networks for one in self.fields)

    @property
    def elements(self) -> frozenset[Element]:
        """Elements that are mapped for some exporter."""
        return frozenset(one.element for one in self.fields)

    def variants(self, source: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """The variant of each exporter, [n, 16] addresses."""
        count = len(source)
        if not self.restricted:
            return np.zeros(count, np.int64)
        flat = source.tobytes()
        return np.fromiter(map(self._variant, (flat[at : at + 16] for at in range(0, len(flat), 16))), np.int64, count)

    def rules(self, layout: Layout, variant: int) -> Rules:
        """What fills the columns of a layout, for exporters of a variant."""
        special = next(key for key, number in self._variants.items() if number == variant)
        meant = [
            one for at, one in enumerate(self.fields) if (at in special or not one.networks) and one.applies(layout)
        ]
        if not meant:
            return Rules()
        taken = {one.element for one in meant if not one.fallback}
        rules = []
        for rule in RULES:
            own = [source for source in rule.sources if source.element not in taken]
            first = [one for one in meant if one.column == rule.column and not one.fallback]
            last = [one for one in meant if one.column == rule.column and one.fallback and one.element not in taken]
            rules.append(Rule(rule.column, (*_sources(first), *own, *_sources(last)), rule.zero_yields))
        extras = (one for one in meant if one.extra is not None and not (one.fallback and one.element in taken))
        return Rules(tuple(rules), tuple(extras))

    def _variant(self, source: bytes) -> int:
        known = self._of_exporter.get(source)
        if known is not None:
            return known
        address = ipaddress.IPv6Address(source)
        exporter = address.ipv4_mapped or address
        special = frozenset(at for at, one in enumerate(self.fields) if one.networks and one.includes(exporter))
        variant = self._variants.setdefault(special, len(self._variants))
        if len(self._of_exporter) < MOST_EXPORTERS:
            self._of_exporter[source] = variant
        return variant


_NUMBERS: Final = frozenset({Wire.HIGH_BYTE, Wire.LOW_BYTE, Wire.SEGMENT})
"""Parts of numbers: a field that is mapped to such a column is a number."""

MAPPABLE: Final[Mapping[str, tuple[Wire, ...]]] = MappingProxyType(
    {
        rule.column: rule.mapped
        or tuple(dict.fromkeys(Wire.UINT if one.wire in _NUMBERS else one.wire for one in rule.sources))
        for rule in RULES
    }
)
"""The columns that fields can be mapped to, and how such a field may be written."""


def _sources(meant: Sequence[MappedField]) -> list[Source]:
    """Mapped elements as sources of their column, in each way in which they may be written."""
    return [Source(one.element, wire) for one in meant for wire in MAPPABLE[one.column or ""]]
