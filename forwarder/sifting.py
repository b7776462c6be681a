"""What becomes of a batch that a sink refuses for good: it is halved until the bad rows are found, and the rest is taken.

Rows are numbered through: the batch's records first, its sums behind them. A part of a batch is delivered under a token
of its own, the same one each time, so that a crash in the middle doubles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import pyarrow as pa

from forwarder.cut import Token
from forwarder.sinks.base import Busy, Done, Outcome, Refused, TooLarge

MOST_BAD: Final = 64
"""Refused rows of one batch past which it is no bad record, but a wrong schema or credential."""
MOST_BAD_SHARE: Final = 100
"""The same, as one in so many rows; one row is always let pass."""

Deliver: TypeAlias = Callable[[pa.Table, Token, pa.Table | None], Outcome]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that a sink will never take, and what it said."""

    row: int
    outcome: Refused | TooLarge


@dataclass(slots=True, eq=False)
class Sifting:
    """One batch on its way into a sink, in as many parts as that takes; called again after each Busy."""

    table: pa.Table
    token: Token
    sums: pa.Table | None = None
    bad: list[Bad] = field(default_factory=list)
    _parts: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._parts = [(0, self.rows)] if self.rows else []

    @property
    def rows(self) -> int:
        """How many rows the batch has, its sums among them."""
        return int(self.table.num_rows + (0 if self.sums is None else self.sums.num_rows))

    @property
    def most_bad(self) -> int:
        """How many rows may be bad before the whole batch counts as refused."""
        return max(1, min(MOST_BAD, self.rows // MOST_BAD_SHARE))

    def deliver(self, deliver: Deliver) -> Outcome:
        """Deliver what is left, part by part.

        Done when the sink has all rows but those in :attr:`bad`; Busy when it is to be called again; Refused or TooLarge
        when too many rows are bad.
        """
        while self._parts:
            first, end = self._parts[-1]
            outcome = deliver(*self._part(first, end))
            if isinstance(outcome, Busy):
                return outcome
            self._parts.pop()
            if isinstance(outcome, Done):
                continue
            if end - first > 1:
                middle = self._middle(first, end)
                self._parts += [(middle, end), (first, middle)]
                continue
            self.bad.append(Bad(first, outcome))
            if len(self.bad) > self.most_bad:
                return replace(
                    outcome,
                    detail=f"{outcome.detail} (and so of {len(self.bad)} records, which is too many to give up)",
                )
        return Done()

    def bad_rows(self, *, sums: bool) -> pa.Table:
        """The bad rows among the records, or among the sums."""
        records = self.table.num_rows
        whole = self.sums if sums else self.table
        rows = [bad.row - (records if sums else 0) for bad in self.bad if (bad.row >= records) == sums]
        return pa.table({}) if whole is None else whole.take(pa.array(rows, pa.int64()))

    def _middle(self, first: int, end: int) -> int:
        """Where to halve: between records and sums first, since a backend has a table for each."""
        records = int(self.table.num_rows)
        return records if first < records < end else (first + end) // 2

    def _part(self, first: int, end: int) -> tuple[pa.Table, Token, pa.Table | None]:
        if (first, end) == (0, self.rows):
            return self.table, self.token, self.sums
        records = self.table.num_rows
        table = self.table.slice(first, max(0, min(end, records) - first))
        sums = None
        if self.sums is not None:
            begin = max(0, first - records)
            sums = self.sums.slice(begin, max(0, end - records - begin))
        return table, replace(self.token, rows=(first, end)), sums
