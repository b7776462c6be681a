"""Data sources of sFlow agents: how many of their samples are missing, and how many the agents say they dropped."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import numpy as np

from ingest.decoders.lookup import Keys
from ingest.decoders.sflow_elements import SampleKind
from ingest.exporters import address_text
from ingest.numbering import NO_ROOM, Numbering
from ingest.samples import BLOCK, Blocks, SampleBlocks, Sources
from ingest.sequences import Numbers, Observations, Sequences
from shared.metrics import OTHER

SOURCES: Final = 1 << 18
"""Data sources that are told apart, each once for every kind of its samples."""

AGENTS: Final = 1 << 16
"""Agents and sub-agents that are told apart; the data sources of others are counted together."""

KEY_BYTES: Final = 20
"""Agent (16 bytes) and sub-agent (4)."""

MOST_BLOCKS: Final = 1 << 18
"""With more blocks than this gathered, they are put together at once."""

BLOCK_BITS: Final = 26
"""A block's number has so many: 32 less those of a place in it."""

TOTAL: Final = np.uint64(0xFFFFFFFF)

QUIET_ROUNDS: Final = 720
"""A data source of which nothing was heard for so many settlements, an hour, gives way to a new one."""


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What is known of the samples of one kind of an agent and sub-agent.

    ``lost`` is what the sequence numbers say is missing; ``dropped`` is by how much the agent's own count of dropped
    samples rose while we heard of it; both with what data sources counted that have given way since.
    """

    agent: str
    sub_agent: int
    kind: SampleKind
    sources: int
    lost: int
    dropped: int


class DataSources:
    """A bounded table of data sources by agent, sub-agent, class, index and kind. One thread uses it at a time.

    When it is full, those that have been quiet for long give way; if there are none, the samples of new ones are
    counted in ``unlisted``.
    """

    def __init__(
        self,
        limit: int = SOURCES,
        agent_limit: int = AGENTS,
        quiet_rounds: int = QUIET_ROUNDS,
        most_blocks: int = MOST_BLOCKS,
    ) -> None:
        self._limit = limit
        self._agent_limit = agent_limit
        self._quiet_rounds = quiet_rounds
        self._seed = secrets.randbits(63)
        self._numbering = Numbering(limit)
        self._sequences = Sequences()
        self._most_blocks = most_blocks
        self._gathered: list[tuple[Numbers, Blocks]] = []
        self._blocks = 0
        self._agent = np.zeros(0, np.int64)
        self._kind = np.zeros(0, np.uint8)
        self._heard = np.zeros(0, np.int64)
        self._agents: dict[bytes, int] = {}
        # What data sources counted that have given way, by agent and kind.
        self._lost = np.zeros((0, len(SampleKind)), np.int64)
        self._dropped = np.zeros((0, len(SampleKind)), np.int64)
        self._round = 0
        self._cleared = -1
        self.unlisted = 0
        """Samples of data sources for which the table had no room."""

    def __len__(self) -> int:
        return len(self._numbering)

    def hear(self, heard: SampleBlocks) -> None:
        """Take in what a worker heard."""
        rows = self._find(heard.sources)
        listed = rows >= 0
        self.unlisted += int(np.bitwise_count(heard.blocks.came[~listed]).sum())
        self._gathered.append((rows[listed], heard.blocks.take(listed)))
        self._blocks += len(rows)
        if self._blocks > self._most_blocks:
            self._merge()
            if 2 * self._blocks > self._most_blocks:
                self._number()

    def settle(self, *, everything: bool = False) -> None:
        """Count what is missing. To be called as :meth:`Sequences.settle`."""
        self._number()
        self._sequences.settle(everything=everything)
        self._round += 1

    def facts(self) -> list[SampleFacts]:
        """What is known, by agent and kind, in the order in which agents were first heard."""
        rows = np.arange(len(self))
        sources = np.zeros_like(self._lost)
        np.add.at(sources, (self._agent[rows], self._kind[rows]), 1)
        lost, dropped = self._lost.copy(), self._dropped.copy()
        self._add_up(rows, lost, dropped)
        names = [(OTHER, 0), *((address_text(key[:16]), int.from_bytes(key[16:])) for key in self._agents)]
        told = zip(*(sums.tolist() for sums in (sources, lost, dropped)), strict=True)
        return [
            SampleFacts(*name, kind, *numbers)
            for name, of_agent in zip(names, told, strict=False)
            for kind, numbers in zip(SampleKind, zip(*of_agent, strict=True), strict=True)
            if any(numbers)
        ]

    def _merge(self) -> None:
        """Put together what workers, and their reports, told of the same blocks."""
        if self._gathered:
            row = np.concatenate([rows for rows, _ in self._gathered])
            blocks = Blocks.join(blocks for _, blocks in self._gathered)
            order = np.argsort(row << BLOCK_BITS | blocks.block)
            row, blocks = row[order], blocks.take(order)
            begins = np.ones(len(row), np.bool_)
            begins[1:] = (row[1:] != row[:-1]) | (blocks.block[1:] != blocks.block[:-1])
            begin = np.flatnonzero(begins)
            self._gathered = [(row[begin], blocks.reduced(begin))] if len(begin) else []
        self._blocks = sum(len(rows) for rows, _ in self._gathered)

    def _number(self) -> None:
        """Pass on what was gathered as numbers of sequences."""
        self._merge()
        gathered, self._gathered, self._blocks = self._gathered, [], 0
        for row, blocks in gathered:
            self._sequences.gather(_observations(row, blocks))

    def _add_up(self, rows: Numbers, lost: Numbers, dropped: Numbers) -> None:
        """Add what these rows have counted to sums by agent and kind."""
        cell = (self._agent[rows], self._kind[rows])
        np.add.at(lost, cell, self._sequences.lost[rows])
        np.add.at(dropped, cell, self._sequences.dropped[rows])

    def _find(self, sources: Sources) -> Numbers:
        """The row of each data source, made where it is new and there is room; NO_ROOM elsewhere."""
        keys = sources.keys(self._seed)
        rows = self._list(sources, keys)
        if (rows == NO_ROOM).any() and self._clear():
            rows = self._list(sources, keys)
        return rows

    def _list(self, sources: Sources, keys: Keys) -> Numbers:
        rows, new = self._numbering.number(keys)
        more = len(self) - len(self._heard)
        if more > 0:
            more = max(more, len(self._heard), 64)
            self._agent, self._kind = np.pad(self._agent, (0, more)), np.pad(self._kind, (0, more))
            self._heard = np.pad(self._heard, (0, more))
            self._sequences.grow(len(self._heard))
        self._agent[rows[new]] = self._find_agents(sources.take(new))
        self._kind[rows[new]] = sources.kind[new]
        self._heard[rows[rows >= 0]] = self._round
        return rows

    def _find_agents(self, sources: Sources) -> Numbers:
        """The number of each data source's agent, made where it is new and there is room; 0 elsewhere."""
        packed = np.empty((len(sources.kind), KEY_BYTES), np.uint8)
        packed[:, :16] = sources.agent
        packed[:, 16:] = sources.sub_agent.astype(">u4")[:, None].view(np.uint8)
        found = []
        for key in map(bytes, packed):
            if key not in self._agents and len(self._agents) < self._agent_limit:
                self._agents[key] = 1 + len(self._agents)
            found.append(self._agents.get(key, 0))
        more = 1 + len(self._agents) - len(self._lost)
        if more > 0:
            more = max(more, len(self._lost), 64)
            self._lost, self._dropped = (np.pad(sums, ((0, more), (0, 0))) for sums in (self._lost, self._dropped))
        return np.array(found, np.int64)

    def _clear(self) -> bool:
        """Let those that have been quiet for long give way; at most once a round. Returns whether any did."""
        if self._cleared == self._round:
            return False
        self._cleared = self._round
        quiet = self._heard[: len(self)] < self._round - self._quiet_rounds
        if not quiet.any():
            return False
        self._add_up(np.flatnonzero(quiet), self._lost, self._dropped)
        kept, keys = np.flatnonzero(~quiet), self._numbering.keys
        self._numbering = Numbering(self._limit)
        self._numbering.number(keys[kept])
        for column in (self._agent, self._kind, self._heard):
            column[: len(kept)] = column[kept]
        place = np.full(len(quiet), NO_ROOM)
        place[kept] = np.arange(len(kept))
        self._gathered = [(place[rows], blocks) for rows, blocks in self._gathered]
        self._sequences.keep(kept)
        return True


def _observations(row: Numbers, blocks: Blocks) -> Observations:
    """What blocks, in the order of their rows and numbers and each there once, tell of sequences: a run of numbers each.

    Runs go on from one block to the next.
    """
    # Where a number came and the one before it did not, or the other way round: runs begin and end there in turn.
    edge = np.zeros((len(row), BLOCK + 1), np.bool_)
    changes = (blocks.came ^ blocks.came << np.uint64(1)).astype("<u8")
    edge[:, :BLOCK] = np.unpackbits(changes.view(np.uint8), bitorder="little").reshape(-1, BLOCK)
    edge[:, BLOCK] = blocks.came >> np.uint64(BLOCK - 1)
    of, ends = np.nonzero(edge)
    of, begin, end = of[::2], ends[::2], ends[1::2]
    number = blocks.block[of].astype(np.int64) * BLOCK
    starts = np.ones(len(of), np.bool_)
    starts[1:] = (row[of[1:]] != row[of[:-1]]) | (number[1:] + begin[1:] != number[:-1] + end[:-1])
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(of))[: len(first)] - 1
    return Observations(
        row=row[of[first]],
        sequence=number[first] + begin[first],
        units=number[last] + end[last] - number[first] - begin[first],
        exact=np.ones(len(first), np.bool_),
        uptime=blocks.uptime_ms[of[last]].astype(np.int64),
        first_total=(blocks.lowest[of[first]] & TOTAL).astype(np.int64),
        last_total=(blocks.highest[of[last]] & TOTAL).astype(np.int64),
    )
