"""Traffic: datagrams of many exporters in the order in which they are sent, each of known content.

The n-th datagram is a function of the scenario and of n: neither the speed at which it is sent nor the size of a
batch changes it. The exporters take turns. Time is the schedule's: a datagram is exported when the rate says, counted
from the start, so that repeating a scenario repeats every byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as count_from
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.datagrams import HEADROOM_BYTES
from ingest.generator import ipfix, netflow5, netflow9
from ingest.generator.batch import Batch, Counts, Totals, add_totals
from ingest.generator.draws import draw
from ingest.generator.exporters import make_exporters
from ingest.generator.flows import Conversations
from ingest.generator.layouts import Layout
from ingest.generator.protocols import Protocol
from ingest.generator.scenario import PROTOCOLS, Scenario
from ingest.generator.shapes import Flows, Numbers, Shape, Values

BLOCK: Final = 2048
"""Datagrams that are made at once."""
FIRST_STREAM: Final = 16
"""The blocks' random numbers come from this stream and those after it; conversations have those before."""
UNPACED_RATE: Final = 100_000
"""Datagrams per second by the exporters' clocks when they are sent as fast as they can be."""
MAKERS: Final = {"v5": netflow5.protocol, "v9": netflow9.protocol, "ipfix": ipfix.protocol}


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Datagrams of a block that have one shape."""

    protocol: Protocol
    type_index: int
    shape: Shape
    order: npt.NDArray[np.intp]
    """Their places in the block, ascending, [n]."""
    values: Values
    flows: list[Flows]


class Traffic:
    """The datagrams of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.protocols = tuple(MAKERS[word]() for word in PROTOCOLS[scenario.protocol])
        self.types = tuple(protocol.type for protocol in self.protocols)
        self.exporters = make_exporters(scenario.exporters, len(self.protocols), scenario.start_ms, scenario.refresh)
        cycles = [protocol.cycle(scenario.refresh, uniform=scenario.uniform) for protocol in self.protocols]
        kinds = {(at, shape): None for at, cycle in enumerate(cycles) for shape in cycle}
        self._kinds = tuple(kinds)
        number = {kind: at for at, kind in enumerate(self._kinds)}
        self._cycle = np.array([[number[at, shape] for shape in cycle] for at, cycle in enumerate(cycles)])
        advance = [
            [protocol.advance(shape) for shape in cycle] for protocol, cycle in zip(self.protocols, cycles, strict=True)
        ]
        self._advance = np.array(advance, np.int64)
        self._advanced = np.cumsum(self._advance, axis=1) - self._advance
        self._whole_cycle = self._advance.sum(axis=1)
        self._conversations: dict[int, Conversations] = {}
        self._rows: dict[Layout, npt.NDArray[np.void]] = {}

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        """Make the first `count` datagrams, or datagrams for ever, some at a time."""
        for block in count_from():
            left = BLOCK if count is None else min(BLOCK, count - block * BLOCK)
            if left <= 0:
                return
            yield self._encode(self.groups(block, left))

    def totals(self, count: int) -> Totals:
        """What the first `count` datagrams hold, by type."""
        totals: dict[str, Counts] = {}
        for batch in self.batches(count):
            totals = add_totals(totals, batch.totals())
        return totals

    def groups(self, block: int, count: int = BLOCK) -> list[Group]:
        """The first `count` datagrams of a block by their shapes, not encoded yet."""
        place = np.arange(block * BLOCK, (block + 1) * BLOCK)
        turn, exporter = np.divmod(place, len(self.exporters))
        protocol = self.exporters.protocol[exporter]
        position = (self.exporters.phase[exporter] + turn) % self.scenario.refresh
        kind = self._cycle[protocol, np.where(turn == 0, 0, position)]
        orders = [np.flatnonzero(kind == at) for at in range(len(self._kinds))]
        # Random numbers are drawn for the whole block, so that a part of it is the same as in the whole.
        needed = [len(order) * shape.flow_records for order, (_, shape) in zip(orders, self._kinds, strict=True)]
        raw = draw(self.scenario.seed, FIRST_STREAM + block, sum(needed))
        groups = []
        for order, (type_index, shape), drawn in zip(
            orders, self._kinds, np.split(raw, np.cumsum(needed)[:-1]), strict=True
        ):
            chosen = order[: int(np.searchsorted(order, count))]
            if len(chosen):
                values = self._values(self.protocols[type_index], place[chosen], turn[chosen], exporter[chosen])
                flows = shape.flows(drawn.reshape(len(order), shape.flow_records)[: len(chosen)])
                groups.append(Group(self.protocols[type_index], type_index, shape, chosen, values, flows))
        return groups

    def conversations(self, family: int) -> Conversations:
        """The conversations of an address family, 4 or 6; drawn when they are first wanted."""
        if family not in self._conversations:
            self._conversations[family] = Conversations(self.scenario.seed, family)
        return self._conversations[family]

    def _layout_rows(self, layout: Layout) -> npt.NDArray[np.void]:
        if layout not in self._rows:
            self._rows[layout] = layout.rows(self.conversations(layout.family))
        return self._rows[layout]

    def _values(
        self, protocol: Protocol, place: Numbers, turn: Numbers, exporter: npt.NDArray[np.intp]
    ) -> dict[str, Numbers]:
        rate = self.scenario.rate or UNPACED_RATE
        exported_ms = self.scenario.start_ms + np.floor(place * (1000 / rate)).astype(np.int64)
        if protocol.whole_seconds:
            exported_ms -= exported_ms % 1000
        before = self._before(turn, exporter)
        return {
            **{name: column[exporter] for name, column in self.exporters.by_name.items()},
            "exported_ms": exported_ms,
            "unix_seconds": exported_ms // 1000,
            "nanoseconds": exported_ms % 1000 * 1_000_000,
            "uptime_ms": exported_ms - self.exporters.boot_ms[exporter],
            "sequence": self.exporters.first_sequence[exporter] + before,
            "datagrams_before": turn,
            "records_before": before,
        }

    def _before(self, turn: Numbers, exporter: npt.NDArray[np.intp]) -> Numbers:
        """How far an exporter's sequence had moved on after `turn` datagrams, by its protocol's rule."""
        protocol, phase = self.exporters.protocol[exporter], self.exporters.phase[exporter]
        whole, part = np.divmod(phase + turn, self.scenario.refresh)
        moved: Numbers = whole * self._whole_cycle[protocol] + self._advanced[protocol, part]
        # The first datagram is an announcement, whatever the cycle has at the phase where the exporter begins.
        instead = self._advance[protocol, 0] - self._advance[protocol, phase]
        moved += np.where(turn > 0, instead, 0) - self._advanced[protocol, phase]
        return moved

    def _encode(self, groups: list[Group]) -> Batch:
        count = sum(len(group.order) for group in groups)
        rooms = [len(group.order) * (HEADROOM_BYTES + len(group.shape.content)) for group in groups]
        buffer = np.empty(sum(rooms), np.uint8)
        columns = np.empty((7, count), np.int64)
        type_index = np.empty(count, np.intp)
        begin = 0
        for group, room in zip(groups, rooms, strict=True):
            size, number = len(group.shape.content), len(group.order)
            out = buffer[begin : begin + room].reshape(number, HEADROOM_BYTES + size)
            out[:, :HEADROOM_BYTES] = 0
            group.shape.encode(out[:, HEADROOM_BYTES:], group.values, group.flows, self._layout_rows)
            columns[0, group.order] = begin + HEADROOM_BYTES + np.arange(number) * (HEADROOM_BYTES + size)
            columns[1, group.order] = size
            columns[2, group.order] = group.values["address"]
            columns[3, group.order] = group.shape.flow_records
            columns[4, group.order] = sum(flow.octets.sum(axis=1) for flow in group.flows)
            columns[5, group.order] = sum(flow.packets.sum(axis=1) for flow in group.flows)
            columns[6, group.order] = group.shape.options_records
            type_index[group.order] = group.type_index
            begin += room
        offset, length, address, records, octets, packets, options_records = columns
        return Batch(buffer, offset, length, address, self.types, type_index, records, octets, packets, options_records)
