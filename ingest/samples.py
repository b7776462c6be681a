"""What a worker gathers of the numbers of samples, to be told to the supervisor from time to time.

The datagrams of one agent are spread over the workers at random, so each of them sees numbers with gaps. Which ones came
is noted in bits, 64 numbers a word: so much that workers, and batches, tell of the same numbers is put together by one
operation, in any order.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ingest.decoders.lookup import Keys
from ingest.decoders.samples import SampleNumbers, agent_keys, source_keys
from ingest.numbering import NO_ROOM, Index, Numbering

SOURCES: Final = 1 << 18
"""Data sources that are remembered, each once for every kind of its samples; with more, all are forgotten."""
MOST_BLOCKS: Final = 1 << 16
"""With more blocks than this besides those that sources are in, what is gathered should be told at once."""
BLOCK: Final = 64
"""Numbers of a block."""
DIGIT: Final = 1 << 16
"""numpy sorts numbers of 16 bits in linear time, so a sort goes by digits of this base."""

_BITS: Final = np.uint32(BLOCK.bit_length() - 1)
_WITHIN: Final = np.uint32(BLOCK - 1)
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)

Words = npt.NDArray[np.uint32]
LongWords = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class _Columns:
    """Columns of equal length."""

    def take(self, which: Index | Mask) -> Self:
        """These rows, in this order."""
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))

    def put(self, which: Index, rows: Self) -> None:
        """Set these rows."""
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(rows, field.name)

    def padded(self, more: int) -> Self:
        """So many rows of zeros after these."""
        columns = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(np.pad(column, [(0, more), (0, 0)][: column.ndim]) for column in columns))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """All of them, one part after the other."""
        parts = list(parts)
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(slots=True, eq=False)
class Sources(_Columns):
    """Data sources and kinds of their samples: arrays of length n."""

    agent: npt.NDArray[np.uint8]
    """[n, 16]"""
    sub_agent: Words
    kind: npt.NDArray[np.uint8]
    source_class: Words
    source_index: Words

    def keys(self, seed: int) -> Keys:
        """A key for each."""
        agents = agent_keys(self.agent, self.sub_agent, self.kind, seed)
        return source_keys(agents, self.source_class, self.source_index)


@dataclass(slots=True, eq=False)
class Blocks(_Columns):
    """Which of 64 samples came: arrays of length n, one a block."""

    block: Words
    """The first number of the block, divided by 64."""
    came: LongWords
    """A bit for each number that came, the lowest for the first."""
    lowest: LongWords
    """The lowest number that came, within the block, and in the lower 32 bits the drops that its sample tells."""
    highest: LongWords
    """The same of the highest."""
    uptime_ms: Words
    """Of the highest, or a larger one of another."""

    def merged(self, others: Blocks, same: Mask) -> Blocks:
        """These blocks, and where ``same`` is true what came of them in the others."""
        return Blocks(
            block=self.block,
            came=self.came | np.where(same, others.came, 0),
            lowest=np.where(same, np.minimum(self.lowest, others.lowest), self.lowest),
            highest=np.where(same, np.maximum(self.highest, others.highest), self.highest),
            uptime_ms=np.where(same, np.maximum(self.uptime_ms, others.uptime_ms), self.uptime_ms),
        )

    def reduced(self, begin: Index) -> Blocks:
        """One block for all from each of these places to the next, which are the same block."""
        return Blocks(
            block=self.block[begin],
            came=np.bitwise_or.reduceat(self.came, begin),
            lowest=np.minimum.reduceat(self.lowest, begin),
            highest=np.maximum.reduceat(self.highest, begin),
            uptime_ms=np.maximum.reduceat(self.uptime_ms, begin),
        )

    @staticmethod
    def none() -> Blocks:
        """Nothing."""
        words, long_words = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
        return Blocks(words, long_words, long_words, long_words, words)


@dataclass(frozen=True, slots=True, eq=False)
class SampleBlocks:
    """Blocks, and whose each of them is."""

    sources: Sources
    blocks: Blocks

    def __len__(self) -> int:
        return len(self.blocks.block)


class GatheredSamples:
    """Which samples came since they were last taken. One thread uses it.

    A source has one block that is not full yet; when another begins, the one before is put aside to be told.
    """

    def __init__(self, limit: int = SOURCES, most_blocks: int = MOST_BLOCKS) -> None:
        self._limit = limit
        self._most_blocks = most_blocks
        self._seed = secrets.randbits(63)
        self._told: list[SampleBlocks] = []
        self._put_aside = 0
        self._forget()

    def _forget(self) -> None:
        nothing = np.zeros(0, np.uint32)
        self._numbering = Numbering(self._limit)
        self._sources = Sources(np.zeros((0, 16), np.uint8), nothing, np.zeros(0, np.uint8), nothing, nothing)
        # The block that each source is in, and which sources are in one.
        self._current = Blocks.none()
        self._going = np.zeros(0, np.bool_)
        self._ended: list[tuple[Index, Blocks]] = []

    def add(self, numbers: Iterable[SampleNumbers]) -> bool:
        """Take in what a batch of datagrams told; returns whether so much is gathered that it should be taken."""
        for part in numbers:
            self._add(part)
        return self._put_aside > self._most_blocks

    def take(self) -> SampleBlocks | None:
        """Everything since the last call, or None."""
        self._tell()
        told, self._told, self._put_aside = self._told, [], 0
        if not told:
            return None
        return SampleBlocks(Sources.join(one.sources for one in told), Blocks.join(one.blocks for one in told))

    def _add(self, part: SampleNumbers) -> None:
        keys = part.keys(self._seed)
        which = np.arange(len(keys))
        while len(which):
            sources, new = self._numbering.number(keys[which])
            self._remember(part, which[new])
            there = sources != NO_ROOM
            if there.all():
                self._note(part, which, sources)
                return
            if there.any():
                self._note(part, which[there], sources[there])
            which = which[~there]
            self._tell()
            self._forget()

    def _remember(self, part: SampleNumbers, new: Index) -> None:
        """Note the sources of these samples, which have the last numbers."""
        size, known = len(self._numbering), len(self._going)
        if size > known:
            more = max(size, 2 * known) - known
            self._going = np.pad(self._going, (0, more))
            self._sources, self._current = self._sources.padded(more), self._current.padded(more)
        row = part.row[new]
        self._sources.put(
            np.arange(size - len(new), size),
            Sources(
                agent=part.headers.source[row],
                sub_agent=part.headers.domain[row],
                kind=np.full(len(new), part.kind, np.uint8),
                source_class=part.source_class[new].astype(np.uint32),
                source_index=part.source_index[new].astype(np.uint32),
            ),
        )

    def _note(self, part: SampleNumbers, which: Index, sources: Index) -> None:
        """Note that these samples came, by their sources."""
        order = _by_number(sources, len(self._numbering))
        source, blocks = _blocks(part, sources[order], which[order])
        first = np.ones(len(source), np.bool_)
        first[1:] = source[1:] != source[:-1]
        before = self._current.take(source)
        going = first & self._going[source]
        same = going & (before.block == blocks.block)
        blocks = blocks.merged(before, same)
        over = going & ~same
        if over.any():
            self._end(source[over], before.take(over))
        last = np.append(first[1:], True)
        if not last.all():
            self._end(source[~last], blocks.take(~last))
            source, blocks = source[last], blocks.take(last)
        self._current.put(source, blocks)
        self._going[source] = True

    def _end(self, sources: Index, blocks: Blocks) -> None:
        """Put aside blocks that their sources are no longer in."""
        if len(sources):
            self._ended.append((sources, blocks))
            self._put_aside += len(sources)

    def _tell(self) -> None:
        """End all blocks, and say whose they were."""
        going = np.flatnonzero(self._going)
        self._end(going, self._current.take(going))
        self._going[:] = False
        ended, self._ended = self._ended, []
        if ended:
            sources = np.concatenate([sources for sources, _ in ended])
            self._told.append(SampleBlocks(self._sources.take(sources), Blocks.join(blocks for _, blocks in ended)))


def _blocks(part: SampleNumbers, sources: Index, which: Index) -> tuple[Index, Blocks]:
    """Put these samples of ``sources``, which are in their order, into blocks; returns the source of each, and them."""
    sequence = part.sequence[which].astype(np.uint32)
    block, within = sequence >> _BITS, sequence & _WITHIN
    begins = np.ones(len(which), np.bool_)
    begins[1:] = (sources[1:] != sources[:-1]) | (block[1:] != block[:-1])
    begin = np.flatnonzero(begins)
    if ((within[1:] < within[:-1]) & ~begins[1:]).any():
        order = np.lexsort((within, np.cumsum(begins)))
        which, within = which[order], within[order]
    first, last = which[begin], which[np.append(begin[1:], len(which)) - 1]
    uptime = part.headers.uptime_ms
    return sources[begin], Blocks(
        block=block[begin],
        came=np.bitwise_or.reduceat(_ONE << within.astype(np.uint64), begin),
        lowest=_places(part, first),
        highest=_places(part, last),
        uptime_ms=np.zeros(len(begin), np.uint32) if uptime is None else uptime[part.row[last]],
    )


def _places(part: SampleNumbers, which: Index) -> LongWords:
    """Numbers within their block, and what their samples tell of drops."""
    place = (part.sequence[which].astype(np.uint64) & _WITHIN) << _HALF
    if part.drops is not None:
        place |= part.drops[which].astype(np.uint64)
    return place


def _by_number(numbers: Index, count: int) -> Index:
    """An order of numbers below ``count`` that brings equal ones together and leaves those in their order."""
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    if count > DIGIT:
        order = order[np.argsort((numbers[order] // DIGIT).astype(np.uint16), kind="stable")]
    return order
