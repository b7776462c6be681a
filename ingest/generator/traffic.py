"""Traffic: datagrams of many exporters in the order in which they are sent, each of known content.

The n-th datagram is a function of the scenario and of n: neither the speed at which it is sent nor the size of a
batch changes it. The exporters take turns. Time is the schedule's: a datagram is exported when the rate says, counted
from the start, so that repeating a scenario repeats every byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count as count_from
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.datagrams import HEADROOM_BYTES
from ingest.generator import ipfix, netflow5, netflow9, sflow5
from ingest.generator.batch import Batch, Counts, Totals, add_totals
from ingest.generator.cycles import Cycles, Kind
from ingest.generator.draws import draw
from ingest.generator.exporters import make_exporters
from ingest.generator.flows import Conversations
from ingest.generator.layouts import Layout
from ingest.generator.protocols import Protocol
from ingest.generator.scenario import PROTOCOLS, Scenario
from ingest.generator.shapes import Flows, Numbers, Shape, Values, before

BLOCK: Final = 2048
"""Datagrams that are made at once."""
FIRST_STREAM: Final = 16
"""The blocks' random numbers come from this stream and those after it; conversations have those before."""
UNPACED_RATE: Final = 100_000
"""Datagrams per second by the exporters' clocks when they are sent as fast as they can be."""
MAKERS: Final[Mapping[str, Callable[[bool], Protocol]]] = {
    "v5": netflow5.protocol,
    "v9": netflow9.protocol,
    "ipfix": ipfix.protocol,
    "sflow": sflow5.protocol,
    "v9-bare": netflow9.bare,
    "v9-grouped": netflow9.grouped,
    "v9-bare-grouped": netflow9.bare_grouped,
}


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
        self.protocols = tuple(MAKERS[word](scenario.uniform) for word in PROTOCOLS[scenario.protocol])
        self.types = tuple(protocol.type for protocol in self.protocols)
        self.exporters = make_exporters(scenario.exporters, len(self.protocols), scenario.start_ms, scenario.refresh)
        self._cycles = Cycles(self.protocols, scenario.refresh)
        self._conversations: dict[tuple[int, int | None], Conversations] = {}
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
        kinds = self._cycles.kinds
        chosen_kind = self._cycles.kind(self.exporters.protocol[exporter], self.exporters.phase[exporter], turn)
        orders = [np.flatnonzero(chosen_kind == at) for at in range(len(kinds))]
        # Random numbers are drawn for the whole block, so that a part of it is the same as in the whole.
        needed = [len(order) * kind.shape.flow_records for order, kind in zip(orders, kinds, strict=True)]
        raw = draw(self.scenario.seed, FIRST_STREAM + block, sum(needed))
        groups = []
        for order, kind, drawn in zip(orders, kinds, np.split(raw, np.cumsum(needed)[:-1]), strict=True):
            chosen = order[: int(np.searchsorted(order, count))]
            if len(chosen):
                protocol, shape = self.protocols[kind.protocol], kind.shape
                values = self._values(kind, place[chosen], turn[chosen], exporter[chosen])
                flows = shape.draw(drawn.reshape(len(order), shape.flow_records)[: len(chosen)])
                groups.append(Group(protocol, kind.protocol, shape, chosen, values, flows))
        return groups

    def conversations(self, layout: Layout) -> Conversations:
        """The conversations that a layout speaks of; drawn when they are first wanted."""
        key = layout.family, layout.proto
        if key not in self._conversations:
            self._conversations[key] = Conversations(self.scenario.seed, *key)
        return self._conversations[key]

    def rows(self, layout: Layout) -> npt.NDArray[np.void]:
        """The same as records of the layout; made when they are first wanted."""
        if layout not in self._rows:
            self._rows[layout] = layout.rows(self.conversations(layout))
        return self._rows[layout]

    def _values(self, kind: Kind, place: Numbers, turn: Numbers, exporter: npt.NDArray[np.intp]) -> dict[str, Numbers]:
        protocol = self.protocols[kind.protocol]
        rate = self.scenario.rate or UNPACED_RATE
        exported_ms = self.scenario.start_ms + np.floor(place * (1000 / rate)).astype(np.int64)
        if protocol.whole_seconds:
            exported_ms -= exported_ms % 1000

        def counted(counter: str) -> Numbers:
            return self._cycles.before(counter, self.exporters.protocol[exporter], self.exporters.phase[exporter], turn)

        return {
            **{name: column[exporter] for name, column in self.exporters.by_name.items()},
            **{before(counter): counted(counter) for counter in kind.shape.counters},
            "start_ms": np.full(len(place), self.scenario.start_ms),
            "exported_ms": exported_ms,
            "unix_seconds": exported_ms // 1000,
            "nanoseconds": exported_ms % 1000 * 1_000_000,
            "uptime_ms": exported_ms - self.exporters.boot_ms[exporter],
            "sequence": self.exporters.by_name["first_sequence"][exporter] + counted(protocol.sequence(kind.shape)),
        }

    def _encode(self, groups: list[Group]) -> Batch:
        count = sum(len(group.order) for group in groups)
        rooms = [len(group.order) * (HEADROOM_BYTES + len(group.shape.content)) for group in groups]
        buffer = np.empty(sum(rooms), np.uint8)
        columns = np.empty((8, count), np.int64)
        type_index = np.empty(count, np.intp)
        begin = 0
        for group, room in zip(groups, rooms, strict=True):
            size, number = len(group.shape.content), len(group.order)
            out = buffer[begin : begin + room].reshape(number, HEADROOM_BYTES + size)
            out[:, :HEADROOM_BYTES] = 0
            group.shape.encode(out[:, HEADROOM_BYTES:], group.values, group.flows, self)
            columns[0, group.order] = begin + HEADROOM_BYTES + np.arange(number) * (HEADROOM_BYTES + size)
            columns[1, group.order] = size
            columns[2, group.order] = group.values["address"]
            columns[3, group.order] = group.shape.flow_records
            columns[4, group.order] = sum(flow.octets.sum(axis=1) for flow in group.flows)
            columns[5, group.order] = sum(flow.packets.sum(axis=1) for flow in group.flows)
            columns[6, group.order] = group.shape.options_records
            columns[7, group.order] = group.shape.counter_samples
            type_index[group.order] = group.type_index
            begin += room
        offset, length, address, *counted = columns
        return Batch(buffer, offset, length, address, self.types, type_index, *counted)
