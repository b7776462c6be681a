"""A layout compiled to what turns its records into columns: one vectorised step a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns, elements
from ingest.decoders.clocks import TIMES, time_column, told_time
from ingest.decoders.enrich import Enrichment, Sources, values_of
from ingest.decoders.extra import extra_column, suits
from ingest.decoders.fault import Oddity
from ingest.decoders.fields import Fields, present, width
from ingest.decoders.groups import GROUPS, GroupNames, group_names
from ingest.decoders.layout import Layout
from ingest.decoders.lists import Around, list_columns, list_places
from ingest.decoders.mapping import Rules
from ingest.decoders.origin import Origin, common_columns, icmp_from_port, ordered, record_ids
from ingest.decoders.rates import sampling_rate
from ingest.decoders.sections import find_section, section_columns
from ingest.decoders.values import (
    IPV4_PREFIX,
    Places,
    Step,
    both,
    common_properties,
    interface_names,
    narrowed,
    step_for,
)
from shared.record import TIME

Mask = npt.NDArray[np.bool_]
INITIATOR: Final = 1
REVERSE_INITIATOR: Final = 2
EGRESS: Final = 1
"""flowDirection of records that were metered at their output."""

Columns = dict[str, pa.Array]

ETYPE_IPV4: Final = 0x0800
ETYPE_IPV6: Final = 0x86DD
ADDRESSES: Final = ("src_addr", "dst_addr")


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is told of the exporters of records, and who these are."""

    enrichment: Enrichment
    sources: Sources
    hear: Callable[[GroupNames], None]
    """Takes in what the records call security groups."""


class Plan:
    """Turns the records of one layout into columns. Made once a layout; holds no state between calls."""

    def __init__(self, layout: Layout, rules: Rules | None = None) -> None:
        self.layout = layout
        rules = rules or Rules()
        places = present(layout)
        self._places = places
        self._steps = [step for rule in rules.rules if (step := step_for(rule, layout, places)) is not None]
        self._steps.extend(interface_names(layout))
        if not any(step.column == "forwarding_status" for step in self._steps):
            self._steps.extend(common_properties(layout))
        self._extras = [
            (one.extra, places[one.element], one.written_as)
            for one in rules.extras
            if one.extra is not None and one.element in places and suits(one, width(layout, places[one.element]))
        ]
        self._makes = {step.column for step in self._steps}
        self._ipv4 = all(step.ipv4 for step in self._steps if step.column in ADDRESSES)
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
    def _compile_reverse(rules: Rules, layout: Layout, places: Places, reverse: Places) -> list[Step]:
        steps = [step for rule in rules.rules if (step := step_for(rule, layout, reverse)) is not None]
        made = {step.column for step in steps}
        responder = [step for rule in elements.RESPONDER if (step := step_for(rule, layout, places)) is not None]
        return steps + [step for step in responder if step.column not in made]

    @property
    def lists(self) -> bool:
        """Whether the layout has structured data, whose reading needs what is around the records."""
        return bool(self._lists)

    @property
    def names_groups(self) -> bool:
        """Whether records may have a security group with its name."""
        return any(self._makes.issuperset(pair) for pair in GROUPS)

    def columns(self, fields: Fields, origin: Origin, around: Around | None, oddities: Counter[Oddity]) -> Columns:
        """What the records tell: their own elements, then a sampled section, then structured data.

        Each fills what those before it left open.
        """
        made = {step.column: step.run(fields, oddities) for step in self._steps}
        for column, clocks in TIMES:
            told = told_time(clocks, self._places, fields, origin)
            if told is not None:
                made[column] = time_column(*told, oddities)
        self._etype(made, fields)
        self._icmp(made)
        self._labels(made, fields)
        rate = sampling_rate(fields, self._places, oddities)
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
        self, fields: Fields, origin: Origin, told: Told | None = None, around: Around | None = None
    ) -> tuple[list[pa.RecordBatch], Counter[Oddity]]:
        """Turn records into batches: one, and a second of what flowed the other way when the layout has that.

        What is ``told`` of their exporters is joined to the records.
        """
        oddities: Counter[Oddity] = Counter()
        made = common_columns(self.layout.version, origin) | self.columns(fields, origin, around, oddities)
        self._default(made, fields, origin)
        if told is not None:
            self._join(made, fields, told)
        if not self._reverse_steps:
            return [ordered(made)], oddities
        made["bi_flow_direction"] = _directions(made.get("bi_flow_direction"), fields.count)
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

    def _join(self, made: Columns, fields: Fields, told: Told) -> None:
        """Add the rates and names that are told of the records' exporters, by some of the records themselves."""
        if self.names_groups:
            groups = group_names(made, told.sources)
            if groups is not None:
                told.hear(groups)
        sampler = next((self._places[element] for element in elements.SAMPLERS if element in self._places), None)
        rate = told.enrichment.rates(
            made.get("sampling_rate"),
            told.sources,
            samplers=None if sampler is None else fields.uint(sampler),
            interfaces=_metered_at(made),
        )
        if rate is not None:
            made["sampling_rate"] = rate
        told.enrichment.join(made, told.sources.exporters, told.sources.of)

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
            told = told_time(clocks, self._reverse_places, fields, origin)
            if told is not None:
                made[column] = time_column(*told, oddities)
        made["record_id"] = columns.primitive(record_ids(origin.identity, origin.position, 1), pa.uint64())
        # Any other value, such as that of a perimeter, holds for both directions (RFC 5103 §6.3).
        way = values_of(forward["bi_flow_direction"])
        back = np.where(way == INITIATOR, REVERSE_INITIATOR, np.where(way == REVERSE_INITIATOR, INITIATOR, way))
        made["bi_flow_direction"] = columns.primitive(back.astype(np.uint8), pa.uint8())
        something = np.zeros(fields.count, np.bool_)
        for name in ("bytes", "packets"):
            if name in made:
                something |= made[name].fill_null(0).to_numpy(zero_copy_only=False) != 0
        if not something.any():
            return None
        batch = ordered(made)
        return batch if something.all() else batch.filter(pa.array(something))

    def _etype(self, made: Columns, fields: Fields) -> None:
        addresses = [made[name] for name in ADDRESSES if name in made]
        if addresses and self._ipv4:
            values = np.full(fields.count, ETYPE_IPV4, np.uint16)
            made["etype"] = columns.primitive(values, pa.uint16(), _any_told(addresses))
        elif addresses:
            six = np.zeros(fields.count, np.bool_)
            for column in addresses:
                words = np.frombuffer(column.buffers()[1], np.uint32).reshape(-1, 4)
                six |= (words[:, 0] != 0) | (words[:, 1] != 0) | (words[:, 2] != IPV4_PREFIX)
            values = np.where(six, np.uint16(ETYPE_IPV6), np.uint16(ETYPE_IPV4))
            made["etype"] = columns.primitive(values, pa.uint16(), _any_told(addresses))
        if (0, 60) in self._places and _lacks(made, "etype"):
            ip_version = fields.uint(self._places[0, 60])
            values = np.where(ip_version == 6, np.uint16(ETYPE_IPV6), np.uint16(ETYPE_IPV4))
            _fill(made, {"etype": columns.primitive(values, pa.uint16(), (ip_version == 4) | (ip_version == 6))})
        if (0, 256) in self._places and _lacks(made, "etype"):
            values, valid = narrowed(fields.uint(self._places[0, 256]), np.dtype(np.uint16))
            valid = both(valid, fields.told(self._places[0, 256]))
            _fill(made, {"etype": columns.primitive(values, pa.uint16(), valid)})

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


def _metered_at(made: Columns) -> npt.NDArray[np.integer] | None:
    """The interface at which each record was metered: what left is of its output. None where the layout tells none."""
    if "in_if" not in made:
        return None if "out_if" not in made else values_of(made["out_if"])
    entered = values_of(made["in_if"])
    if "out_if" not in made or "flow_direction" not in made:
        return entered
    return np.where(values_of(made["flow_direction"]) == EGRESS, values_of(made["out_if"]), entered)


def _directions(own: pa.Array | None, count: int) -> pa.Array:
    """Which way the records of biflows go: as they say, else the initiator's (RFC 5103 §6.3)."""
    initiators = columns.primitive(np.full(count, INITIATOR, np.uint8), pa.uint8())
    return columns.filled(own, initiators)


def _fill(made: Columns, more: Columns) -> None:
    """Add columns, and to those that are there what they left open."""
    for name, column in more.items():
        made[name] = columns.filled(made.get(name), column)


def _lacks(made: Columns, name: str) -> bool:
    """Whether a column is not there, or has not a value everywhere."""
    return name not in made or made[name].null_count > 0


def _any_told(made: list[pa.Array]) -> Mask | None:
    """Where one of several columns has a value; None when the first has one everywhere."""
    if made[0].null_count == 0:
        return None
    told: Mask = np.logical_or.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in made])
    return told
