"""The same flow from several exporters, or twice from one: what counts is where it crosses the border.

Nothing is remembered: each record tells by itself whether it counts. So this is right under sampling too, where several
exporters see different packets of a flow, and none of them sees it all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

EXTERNAL: Final = "external"
"""Boundary class of interfaces that lead out of the network; any other class leads into it."""
INGRESS: Final = 0
EGRESS: Final = 1
NO_DIRECTION: Final = 255
"""Values of ``flow_direction``: the two of RFC 5102 §5.11.1, and what stands for none here."""

KNOWN_EXPORTERS: Final = 4096
"""Exporters whose metering is kept in mind; others are looked up again."""

Mask = npt.NDArray[np.bool_]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Metering(StrEnum):
    """Which records of an exporter tell of each crossing once."""

    INGRESS = "ingress"
    """Those that were metered at ingress: for exporters that meter at ingress on all interfaces, whatever else they do."""
    EGRESS = "egress"
    """Those that were metered at egress: for exporters that meter at egress on all interfaces."""
    EXTERNAL = "external"
    """Those that were metered at an external interface: for exporters that meter both ways, on these at least."""


class Crossing(StrEnum):
    """Which crossings of the border count; what comes in and goes out through one router crosses once."""

    BOTH = "both"
    ENTERING = "entering"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class ObservationRule:
    """Which crossings count, and by which records of each exporter: the longest network with its address decides."""

    crossing: Crossing = Crossing.BOTH
    metering: Metering = Metering.INGRESS
    overrides: Mapping[Network, Metering] = field(default_factory=dict)

    def metering_of(self, exporter: bytes | None) -> Metering:
        """How an exporter meters, by its address as the record has it."""
        if exporter is None:
            return self.metering
        address = ipaddress.IPv6Address(exporter)
        plain = address.ipv4_mapped or address
        fitting = [network for network in self.overrides if plain in network]
        return self.overrides[max(fitting, key=_length)] if fitting else self.metering


@dataclass(frozen=True, slots=True)
class Observed:
    """What was found of some records.

    ``duplicate`` tells of each whether it is one, and is never null. ``unknown`` records might count or not, since an
    interface of theirs has no class: they are not marked, and may be counted twice.
    """

    duplicate: pa.BooleanArray
    unknown: int


class ObservationPoint:
    """Tells which records do not count, by their own columns and a rule."""

    def __init__(self, rule: ObservationRule) -> None:
        self.rule = rule
        self._metering_of = lru_cache(KNOWN_EXPORTERS)(rule.metering_of)

    def judge(self, table: pa.Table) -> Observed:
        """Judge the rows of a table, in any order.

        A record counts when it tells of a crossing, and is the one of its exporter's records that tells of it by the
        rule. A record without a direction is the only one that its exporter makes, and counts at any crossing. A record
        is unknown when it would count with one class of an interface and not with another.
        """
        rows = self._rows(table)
        might, must = np.zeros(table.num_rows, np.bool_), np.ones(table.num_rows, np.bool_)
        for entering, leaving in product(_external(table, "in_if_boundary"), _external(table, "out_if_boundary")):
            counts = self._counts(entering, leaving, rows)
            might |= counts
            must &= counts
        unknown = np.count_nonzero(might & ~must)
        return Observed(pa.array(~might), int(unknown))

    def _counts(self, entering: Mask, leaving: Mask, rows: _Rows) -> Mask:
        # What goes through from one external interface to another was metered at both; at the first it counts.
        at_external = np.where(rows.egress, leaving & ~entering, entering)
        chosen = rows.undirected | (rows.by_ingress & rows.ingress) | (rows.by_egress & rows.egress)
        chosen |= ~(rows.by_ingress | rows.by_egress) & at_external
        match self.rule.crossing:
            case Crossing.ENTERING:
                return chosen & entering
            case Crossing.LEAVING:
                return chosen & leaving
            case Crossing.BOTH:
                return chosen & (entering | leaving)

    def _rows(self, table: pa.Table) -> _Rows:
        ingress, egress = _is_direction(table, INGRESS), _is_direction(table, EGRESS)
        if self.rule.overrides and "sampler_address" in table.column_names:
            exporters = table.column("sampler_address").combine_chunks().dictionary_encode(null_encoding="encode")
            of_exporter = [self._metering_of(exporter) for exporter in exporters.dictionary.to_pylist()]
            which = np.asarray(exporters.indices)
        else:
            of_exporter, which = [self.rule.metering], np.zeros(table.num_rows, np.int64)
        return _Rows(
            ingress=ingress,
            egress=egress,
            undirected=~(ingress | egress),
            by_ingress=np.array([one is Metering.INGRESS for one in of_exporter], np.bool_)[which],
            by_egress=np.array([one is Metering.EGRESS for one in of_exporter], np.bool_)[which],
        )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Of each row: how it was metered, and how its exporter meters."""

    ingress: Mask
    egress: Mask
    undirected: Mask
    by_ingress: Mask
    by_egress: Mask


def _length(network: Network) -> int:
    return network.prefixlen


def _external(table: pa.Table, name: str) -> list[Mask]:
    """Where an interface leads out of the network: what it can be at least, and what at most, if that is not the same."""
    if name not in table.column_names:
        return [np.zeros(table.num_rows, np.bool_), np.ones(table.num_rows, np.bool_)]
    column = table.column(name)
    chunks = [pc.equal(chunk.dictionary, EXTERNAL).take(chunk.indices) for chunk in column.chunks]
    told = pa.chunked_array(chunks, pa.bool_())
    least = np.asarray(told.fill_null(False))
    return [least, np.asarray(told.fill_null(True))] if told.null_count else [least]


def _is_direction(table: pa.Table, direction: int) -> Mask:
    """Where ``flow_direction`` is this one."""
    if "flow_direction" not in table.column_names:
        return np.zeros(table.num_rows, np.bool_)
    column = table.column("flow_direction")
    # No direction has this number, so it stands for none.
    told = np.asarray(column.fill_null(NO_DIRECTION) if column.null_count else column, np.uint8)
    is_it: Mask = told == direction
    return is_it
