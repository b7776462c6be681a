"""The same record again, by ``record_id``: a mirrored datagram, a repeated one, a message that was produced twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from forwarder.dedup.generations import KEPT, Generations
from forwarder.dedup.keyset import Keys, Mask, Places, odd_words
from forwarder.dedup.runs import LogTime, Runs

BLOCK: Final = 1 << 16
"""Ids that are looked up at a time: what is made meanwhile stays in the CPU's cache."""


@dataclass(frozen=True, slots=True)
class ExactRule:
    """How long an id is remembered, in append time, and how many are at most; both at least 1.

    An id is found again for at least the window, and for up to a quarter longer, unless there are too many.
    """

    window_ms: int
    max_records: int

    @property
    def generation_ms(self) -> int:
        """Length of a generation: a quarter of the window, rounded up."""
        return -(-self.window_ms // (KEPT - 1))

    def oldest_needed(self, append_ms: int) -> int:
        """Append time from which on the log has to be read before a message of this append time is judged.

        To be read from the first message that has that time or a later one, as Kafka finds offsets by time.
        """
        return max(0, append_ms // self.generation_ms - (KEPT - 1)) * self.generation_ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of some records.

    ``keep`` tells which stay, in the order that they were given in, and is None when all do. ``unidentified`` have no id,
    and stay. ``forgotten`` ids were given up before their time, since there were too many: what repeats them later would
    not be found.
    """

    keep: Mask | None
    duplicates: int
    unidentified: int
    forgotten: int


class ExactDedup:
    """Finds the records of one partition that were there before.

    A record is a duplicate when its id stands before it in the log, and is still remembered:
    :class:`forwarder.dedup.generations.Generations` says what is. So the answer depends on the log alone, from the first
    message that :meth:`ExactRule.oldest_needed` asks for, and not on how its messages are handed over.

    Ids come from a hash that mixes well but is not secret. ``secret`` is what whoever sends flows cannot know, such as
    the topic's id: it decides where in memory an id goes, so that nobody can choose ids that get in each other's way. It
    changes no answer.
    """

    def __init__(self, rule: ExactRule, secret: str) -> None:
        self.rule = rule
        self._odd = odd_words(secret, 1)[0]
        self._time = LogTime(rule.generation_ms)
        self._generations = Generations(rule.max_records)

    def __len__(self) -> int:
        return len(self._generations)

    @property
    def nbytes(self) -> int:
        """Bytes of memory: about 20 for each id, up to 40 while their number changes."""
        return self._generations.nbytes

    def push(self, ids: Keys, runs: Runs, valid: Mask | None = None) -> Verdict:
        """Judge the records of the next messages of the log, and remember them.

        ``ids`` are in the order of the log; ``valid`` tells which of them are any, None that all are.
        """
        mixed, forgotten = self._mixed(ids, valid), self._generations.forgotten
        seen = self._walk(mixed, runs, valid, judge=True)
        duplicates = int(np.count_nonzero(seen))
        return Verdict(
            keep=_kept(seen, valid) if duplicates else None,
            duplicates=duplicates,
            unidentified=len(ids) - len(mixed),
            forgotten=self._generations.forgotten - forgotten,
        )

    def warm(self, ids: Keys, runs: Runs, valid: Mask | None = None) -> None:
        """Remember the records of the next messages of the log, which were delivered before."""
        self._walk(self._mixed(ids, valid), runs, valid, judge=False)

    def _mixed(self, ids: Keys, valid: Mask | None) -> Keys:
        # An odd factor has an inverse, so different ids stay different.
        return (ids if valid is None else ids[valid]) * self._odd

    def _walk(self, mixed: Keys, runs: Runs, valid: Mask | None, *, judge: bool) -> Mask:
        seen = np.zeros(len(mixed), np.bool_)
        messages = self._time.messages(runs, valid, self._generations.largest)
        while (message := messages.take()) is not None:
            generation, begin, end = message
            self._generations.turn_to(generation, end - begin)
            end = messages.take_more(self._generations.room)
            for at in range(begin, end, BLOCK):
                block = slice(at, min(at + BLOCK, end))
                seen[block] = self._generations.add(mixed[block])
                if judge:
                    seen[block] |= self._generations.find_earlier(mixed[block])
        return seen


def read_ids(table: pa.Table, rows: Places | None = None) -> tuple[Keys, Mask | None]:
    """Return the ids of a table's records, and which of these are any (None: all).

    ``rows`` tells where in the table the records are, in the order that comes out; None when they are in it. Without the
    column, none is any.
    """
    if "record_id" not in table.column_names:
        return np.zeros(table.num_rows, np.uint64), np.zeros(table.num_rows, np.bool_)
    column = table.column("record_id")
    valid: Mask | None = None
    if column.null_count:
        valid = np.asarray(column.is_valid())
        column = column.fill_null(0)
    ids: Keys = column.to_numpy()
    if rows is not None:
        ids = ids[rows]
        valid = None if valid is None else valid[rows]
    return ids, valid


def _kept(seen: Mask, valid: Mask | None) -> Mask:
    if valid is None:
        return ~seen
    keep = ~valid
    keep[valid] = ~seen
    return keep
