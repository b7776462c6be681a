"""The order in which an exporter sends its kinds of datagrams, over and over, and how far its counters have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.generator.protocols import Protocol
from ingest.generator.shapes import Numbers, Shape

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Kind:
    """A shape of one of the protocols."""

    protocol: int
    """Which of the traffic's protocols."""
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class _Counter:
    """What a counter comes to, by protocol."""

    begun: Numbers
    """After so many of an exporter's first datagrams, [protocols, most of them + 1]."""
    added: Numbers
    """Within the cycle, before each position, [protocols, length]."""
    whole: Numbers
    """By a whole cycle, [protocols]."""

    def through(self, protocol: Index, position: Numbers) -> Numbers:
        """By a position that is counted from the beginning of some cycle, [n]."""
        cycles, part = np.divmod(position, self.added.shape[1])
        return np.asarray(cycles * self.whole[protocol] + self.added[protocol, part], np.int64)


class Cycles:
    """What the exporters of each protocol send from one announcement to the next.

    An exporter begins with an announcement and what follows it, wherever in the cycle its phase then lets it go on.
    """

    def __init__(self, protocols: Sequence[Protocol], length: int) -> None:
        cycles = [protocol.cycle(length) for protocol in protocols]
        kinds = {(at, shape): None for at, cycle in enumerate(cycles) for shape in cycle}
        self.kinds = tuple(Kind(at, shape) for at, shape in kinds)
        self._length = length
        self._first = np.array([min(length, 1 + len(protocol.tables)) for protocol in protocols])
        number = {kind: at for at, kind in enumerate(kinds)}
        self._order = np.array([[number[at, shape] for shape in cycle] for at, cycle in enumerate(cycles)])
        self._counters: dict[str, _Counter] = {}

    def kind(self, protocol: Index, phase: Numbers, turn: Numbers) -> Index:
        """Which of `kinds` the datagrams are that exporters send after `turn` others, [n]."""
        position = np.where(turn < self._first[protocol], turn, (phase + turn) % self._length)
        return np.asarray(self._order[protocol, position], np.intp)

    def before(self, counter: str, protocol: Index, phase: Numbers, turn: Numbers) -> Numbers:
        """How far a counter of each exporter's had come after `turn` datagrams, [n]."""
        count, first = self._counter(counter), self._first[protocol]
        at_first: Numbers = count.begun[protocol, np.minimum(turn, first)]
        since = count.through(protocol, phase + turn) - count.through(protocol, phase + first)
        return at_first + np.where(turn > first, since, 0)

    def _counter(self, name: str) -> _Counter:
        if name not in self._counters:
            by_kind = np.array([dict(kind.shape.counts).get(name, 0) for kind in self.kinds], np.int64)
            adds = by_kind[self._order]
            begun = np.zeros((len(adds), int(self._first.max()) + 1), np.int64)
            np.cumsum(adds[:, : begun.shape[1] - 1], axis=1, out=begun[:, 1:])
            self._counters[name] = _Counter(begun, np.cumsum(adds, axis=1) - adds, adds.sum(axis=1))
        return self._counters[name]
