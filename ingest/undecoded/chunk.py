"""Messages of ``flows.undecoded`` that were read together, and what becomes of each of their sets.

Nothing here talks to Kafka or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders.headers import Index
from ingest.decoders.sets import DataSets
from ingest.undecoded import message
from shared import codec
from shared.codec import CorruptMessageError
from shared.errors import UnknownSchemaError

MASK = npt.NDArray[np.bool_]

MILLION: Final = 1_000_000


class Reason(StrEnum):
    """Why a set was given up, and is a dead letter."""

    TEMPLATE_NEVER_CAME = "template_never_came"
    """Its template was not known for as long as a set may wait."""
    CORRUPT = "corrupt"
    """Its message could not be read."""
    UNKNOWN_SCHEMA = "unknown_schema"
    """Its message is of a version that nobody here could read for as long as a set may wait."""
    UNDECODABLE = "undecodable"
    """To decode it failed in a way that no input should cause."""


@dataclass(frozen=True, slots=True)
class Read:
    """A message as it was read."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, str | bytes | None]]

    @property
    def rows(self) -> int:
        """How many sets it has, as far as its headers tell."""
        found = dict(self.headers).get("records")
        digits = found if isinstance(found, bytes) else b""
        return max(1, int(digits)) if digits.isdigit() and len(digits) <= 6 else 1

    @property
    def first_parked_ns(self) -> int:
        """Since when its sets wait, as far as its headers tell, and else since when it is in the topic."""
        found = dict(self.headers).get(message.FIRST_PARKED)
        digits = found if isinstance(found, bytes) else b""
        return int(digits) if digits.isdigit() and len(digits) <= 19 else self.timestamp_ms * MILLION


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Sets of one protocol."""

    sets: DataSets
    of: Index
    """Which of the messages each set came with, [m]."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A message, or what is left of it, that becomes a dead letter."""

    read: Read
    value: bytes | pa.Buffer | None
    rows: int
    reason: Reason
    first_parked_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of the sets of a chunk."""

    batches: list[pa.RecordBatch]
    waiting: list[MASK]
    """For each part which of its sets go on waiting, [m]."""
    known: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)
    """For each template that is waited for, the layouts that are known of it, which do not fit."""


@dataclass(slots=True)
class Rest:
    """What is not decoded: to be appended again, or given up."""

    decoded: int = 0
    again: list[DataSets] = field(default_factory=list)
    """Each part makes a message."""
    as_it_is: list[Read] = field(default_factory=list)
    """Messages to be appended as they are."""
    given_up: list[GivenUp] = field(default_factory=list)
    oldest_ns: int | None = None
    """Since when the oldest set waits that is appended again."""


class Chunk:
    """Messages of one partition, in their order."""

    def __init__(self, read: Sequence[Read]) -> None:
        self.read = read
        self.parts: list[Part] = []
        self._failed: list[tuple[Read, Reason]] = []
        found: dict[int, tuple[list[DataSets], list[Index]]] = {}
        for number, one in enumerate(read):
            try:
                codec.read_headers(one.headers)
                opened = message.decode(one.value or b"")
            except UnknownSchemaError:
                self._failed.append((one, Reason.UNKNOWN_SCHEMA))
                continue
            except CorruptMessageError:
                self._failed.append((one, Reason.CORRUPT))
                continue
            for sets in opened:
                parts, of = found.setdefault(sets.headers.version, ([], []))
                parts.append(sets)
                of.append(np.full(len(sets), number, np.int64))
        self._rows = np.zeros(len(read), np.int64)
        for parts, of in found.values():
            part = Part(DataSets.join(parts), np.concatenate(of))
            self._rows += np.bincount(part.of, minlength=len(read))
            self.parts.append(part)

    @property
    def sets(self) -> int:
        """How many sets there are, those that cannot be read included, as far as that is known."""
        return sum(len(part.sets) for part in self.parts) + sum(one.rows for one, _ in self._failed)

    def rest(self, waiting: Sequence[MASK], now_ns: int, max_age_ns: int) -> Rest:
        """Sort what is not decoded by its age."""
        rest = Rest()
        oldest_ns = now_ns - max_age_ns
        for one, reason in self._failed:
            if reason is Reason.UNKNOWN_SCHEMA and one.first_parked_ns >= oldest_ns:
                # Another instance may be of a version that can read it.
                rest.as_it_is.append(one)
            else:
                rest.given_up.append(GivenUp(one, one.value, one.rows, reason, one.first_parked_ns))
        for part, waits in zip(self.parts, waiting, strict=True):
            received_ns = part.sets.headers.received_ns
            old = waits & (received_ns < oldest_ns)
            young = np.flatnonzero(waits & ~old)
            rest.decoded += int(np.count_nonzero(~waits))
            rest.given_up.extend(self._expired(part, np.flatnonzero(old)))
            if len(young):
                first_ns = int(received_ns[young].min())
                rest.oldest_ns = first_ns if rest.oldest_ns is None else min(rest.oldest_ns, first_ns)
                rest.again.extend(_by_exporter(part.sets.take(young)))
        return rest

    def undecodable(self) -> GivenUp:
        """The only message, as a dead letter."""
        (one,) = self.read
        return GivenUp(one, one.value, self.sets, Reason.UNDECODABLE, one.first_parked_ns)

    def _expired(self, part: Part, old: Index) -> Iterator[GivenUp]:
        """A dead letter for each message that has such sets: with those alone, or as it is when it has no others."""
        of = part.of[old]
        for number in np.unique(of).tolist():
            one, which = self.read[number], old[of == number]
            sets = part.sets.take(which)
            value = one.value if len(which) == self._rows[number] else message.encode(sets)
            first_ns = int(sets.headers.received_ns.min())
            yield GivenUp(one, value, len(which), Reason.TEMPLATE_NEVER_CAME, first_ns)


def _by_exporter(sets: DataSets) -> Iterator[DataSets]:
    """The sets of each exporter, cut to what a message takes."""
    _, of = np.unique(np.ascontiguousarray(sets.headers.source).view("V16")[:, 0], return_inverse=True)
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(np.bincount(of)).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        yield from message.messages([sets.take(order[begin:end])])
