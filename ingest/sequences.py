"""What sequence numbers say is lost, and what running totals beside them say was dropped, of many who count at a time.

What one of them sent may reach several workers, each in its own time, so a gap means nothing at once. What the workers
heard is gathered for a while, put in order, and only then counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

RESTART: Final = 1 << 20
"""A jump of the sequence by more than this is a restart, no loss."""

UPTIME_SLACK_MS: Final = 60_000
"""An uptime that fell by more than this is a restart."""

UPTIME_WRAP_MS: Final = 3_600_000
"""An uptime that fell, but lies no further than this behind 2^32, has only gone on through its end."""

LATE_MS: Final = 15_000
"""What lies behind with an uptime that is older than the newest by no more than this has come late, or came twice."""

MOST_OBSERVATIONS: Final = 1 << 20
"""With more observations than this gathered, they are counted at once."""

WRAP: Final = 1 << 32
NOWHERE: Final = np.iinfo(np.int64).min
EVERYWHERE: Final = np.iinfo(np.int64).max
UNTOLD: Final = -1

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What was heard of places in sequences: arrays of length n, in the order in which it was heard."""

    row: Numbers
    """Whose sequence."""
    sequence: Numbers
    """The first number, below 2^32."""
    units: Numbers
    """How many numbers follow from it on, itself included."""
    exact: Mask
    """Whether ``units`` is sure."""
    uptime: Numbers
    """Milliseconds below 2^32, or UNTOLD."""
    first_total: Numbers
    """The running total that stands beside the first of the numbers, below 2^32; 0 where there is none."""
    last_total: Numbers
    """That beside the last of them."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: Mask | Numbers) -> Observations:
        """These, in this order."""
        return Observations(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def join(parts: list[Observations]) -> Observations:
        """All of them, one part after the other."""
        return Observations(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Observations))
        )

    @staticmethod
    def none() -> Observations:
        """Nothing."""
        nothing = np.zeros(0, np.int64)
        return Observations(nothing, nothing, nothing, np.zeros(0, np.bool_), nothing, nothing, nothing)


class Sequences:
    """Sequences by row; numbers, totals and uptimes are counted modulo 2^32. One thread uses it at a time.

    The results are columns, one value a row, and only rise; rows that nobody asked to :meth:`grow` do not exist.
    """

    def __init__(self, most_observations: int = MOST_OBSERVATIONS) -> None:
        self._most_observations = most_observations
        self.lost = np.zeros(0, np.int64)
        """Numbers that are missing."""
        self.uncertain = np.zeros(0, np.int64)
        """Numbers that are missing after something whose units were not sure."""
        self.dropped = np.zeros(0, np.int64)
        """By how much the running totals rose, which they do by less than 2^31 from one judgement to the next."""
        self.restarts = np.zeros(0, np.int64)
        self._expected = np.zeros(0, np.int64)
        self._known = np.zeros(0, np.bool_)
        self._exact = np.zeros(0, np.bool_)
        self._uptime = np.zeros(0, np.int64)
        self._total = np.zeros(0, np.int64)
        self._waiting = Observations.none()
        self._gathered: list[Observations] = []
        self._observations = 0

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""
        if rows <= len(self._known):
            return
        size = max(rows, 2 * len(self._known), 64)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                grown = np.zeros(size, column.dtype)
                grown[: len(column)] = column
                setattr(self, name, grown)

    def gather(self, observations: Observations) -> None:
        """Take in what was heard."""
        self._gathered.append(observations)
        self._observations += len(observations)
        if self._observations > self._most_observations:
            self._judge()

    def settle(self, *, everything: bool = False) -> None:
        """Count what is missing; to be called every few seconds.

        A gap is a loss when it is still there at the next call: what is under way in a worker for longer than that
        looks lost. With ``everything``, nothing is waited for any more.
        """
        self._judge()
        while everything and len(self._waiting):
            self._judge()

    def keep(self, rows: Numbers) -> None:
        """Keep these rows alone, which become the first ones in this order; all others begin anew."""
        place = np.full(len(self._known), -1)
        place[rows] = np.arange(len(rows))
        kept = [part.take(place[part.row] >= 0) for part in (self._waiting, *self._gathered)]
        self._waiting, *self._gathered = (replace(part, row=place[part.row]) for part in kept)
        self._observations = sum(map(len, self._gathered))
        for column in vars(self).values():
            if isinstance(column, np.ndarray):
                column[: len(rows)] = column[rows]
                column[len(rows) :] = 0

    def _judge(self) -> None:
        """Count the gaps before what was gathered by the last time, now that what was late has come."""
        waited = len(self._waiting)
        said = Observations.join([self._waiting, *self._gathered])
        self._gathered, self._observations = [], 0
        rows = len(self._known)
        base = np.where(self._known, self._expected, _first(said.sequence, said.row, rows))
        ahead = _distance(said.sequence, base[said.row])
        limit = np.full(rows, NOWHERE)
        np.maximum.at(limit, said.row[:waited], ahead[:waited])
        anew = self._begins_anew(said, ahead, limit > NOWHERE, waited)
        restarted = np.zeros(rows, np.bool_)
        restarted[said.row[anew]] = True
        # What came before a restart is all that will come.
        limit[restarted] = EVERYWHERE
        useful = ~anew & ((ahead >= 0) | (ahead + said.units > 0) | ~self._known[said.row])
        due = useful & (ahead <= limit[said.row])
        self._count_gaps(said.take(due), ahead[due], base)
        self._waiting = said.take((useful & ~due) | anew)
        self._known[restarted] = False
        self.restarts[restarted] += 1
        self._note_uptime(said, anew, restarted)

    def _begins_anew(self, said: Observations, ahead: Numbers, waits: Mask, waited: int) -> Mask:
        """Which observations came after a restart; the first ``waited`` were looked at before."""
        row = said.row
        fresh = np.arange(len(said)) >= waited
        comparable = fresh & (self._known | waits)[row]
        newest = self._uptime[row]
        fell = (
            comparable
            & (said.uptime >= 0)
            & (said.uptime + UPTIME_SLACK_MS < newest)
            & ((said.uptime - newest) % WRAP > UPTIME_WRAP_MS)
        )
        anew = fell | (comparable & (np.abs(ahead) > RESTART))
        # One of whom nothing came for a while but what lies behind has begun anew at a small number.
        furthest = np.full(len(self._known), NOWHERE)
        np.maximum.at(furthest, row[~anew], (ahead + said.units)[~anew])
        behind = self._known & ~waits & (furthest > NOWHERE) & (furthest < 0)
        # Who tells an uptime shows by it what is only late.
        late = (said.uptime > 0) & (newest > 0) & ((newest - said.uptime) % WRAP <= LATE_MS)
        return anew | (behind[row] & ~late)

    def _note_uptime(self, said: Observations, anew: Mask, restarted: Mask) -> None:
        """Keep the newest uptime of each row, which is that since its restart where there was one."""
        told = (said.uptime >= 0) & (anew | ~restarted[said.row])
        row, uptime = said.row[told], said.uptime[told]
        first = _first(uptime, row, len(self._uptime))
        base = np.where(restarted | (self._uptime == 0), first, self._uptime)
        rise = np.zeros(len(base), np.int64)
        np.maximum.at(rise, row, _distance(uptime, base[row]))
        self._uptime = np.where(restarted & (first == 0), 0, (base + rise) % WRAP)

    def _count_gaps(self, said: Observations, ahead: Numbers, base: Numbers) -> None:
        """Count what is missing before each of these, and expect what follows the last of them."""
        order = np.lexsort((ahead, said.row))
        said, ahead = said.take(order), ahead[order]
        row, known = said.row, self._known[said.row]
        same = np.zeros(len(row), np.bool_)
        same[1:] = row[1:] == row[:-1]
        # How far all before this one reached: what came twice closes no gap and opens none.
        reach = _running_reach(ahead + said.units, same)
        start = np.where(known, 0, ahead)
        before = np.where(same, np.maximum(np.roll(reach, 1), np.where(known, 0, -RESTART)), start)
        sure = np.where(same, np.roll(said.exact, 1), np.where(known, self._exact[row], True))
        gap = np.maximum(ahead - before, 0)
        gap[gap > RESTART] = 0
        count = len(self._known)
        self.lost += np.bincount(row, np.where(sure, gap, 0), count).astype(np.int64)
        self.uncertain += np.bincount(row, np.where(sure, 0, gap), count).astype(np.int64)
        self._count_totals(said, same)
        last = np.ones(len(row), np.bool_)
        last[:-1] = ~same[1:]
        ended = row[last]
        end = np.where(self._known[ended], np.maximum(reach[last], 0), reach[last])
        self._expected[ended] = (base[ended] + end) % WRAP
        self._exact[ended] = said.exact[last]
        self._known[ended] = True

    def _count_totals(self, said: Observations, same: Mask) -> None:
        """Count by how much the totals rose beyond where they were, in the order of the sequence.

        What a total is when it is first seen, or first seen after a restart, is nobody's rise. One that lies behind
        from one judgement to the next was set back, and is counted on from there.
        """
        begun = np.flatnonzero(~same)
        row = said.row[begun]
        first = said.first_total[begun]
        rows = len(self._known)
        base = np.zeros(rows, np.int64)
        base[row] = np.where(self._known[row], self._total[row], first)
        set_back = _furthest(_distance(said.last_total, base[said.row]), said.row, rows)[row] < 0
        base[row[set_back]] = first[set_back]
        rise = np.maximum(_furthest(_distance(said.last_total, base[said.row]), said.row, rows)[row], 0)
        self.dropped[row] += rise
        self._total[row] = (base[row] + rise) % WRAP


def _first(values: Numbers, row: Numbers, rows: int) -> Numbers:
    """The first value of each row; 0 where there is none."""
    first = np.zeros(rows, np.int64)
    first[row[::-1]] = values[::-1]
    return first


def _furthest(values: Numbers, row: Numbers, rows: int) -> Numbers:
    """The largest value of each row."""
    furthest = np.full(rows, NOWHERE)
    np.maximum.at(furthest, row, values)
    return furthest


def _distance(number: Numbers, base: Numbers) -> Numbers:
    """How far each number lies from another: modulo 2^32, and signed."""
    distance: Numbers = ((number - base + (WRAP >> 1)) % WRAP) - (WRAP >> 1)
    return distance


def _running_reach(end: Numbers, same: Mask) -> Numbers:
    """The furthest end up to and with each observation, within its row."""
    group = np.cumsum(~same)
    # Groups are lifted apart so that one running maximum does for all.
    lift = group * (1 << 40)
    reach: Numbers = np.maximum.accumulate(end + lift) - lift
    return reach
