from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from ingest.sequences import LATE_MS, UNTOLD, UPTIME_SLACK_MS, Observations, Sequences
from tests.ingest.observations import WRAP

HALF = WRAP // 2


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation; the totals at its first and its last number are equal unless told."""

    sequence: int
    total: int = 0
    units: int = 1
    row: int = 0
    uptime: int = UNTOLD
    first_total: int | None = None


def observed(seen: Sequence[Seen]) -> Observations:
    """Observations in columns."""
    return Observations(
        row=np.array([one.row for one in seen], np.int64),
        sequence=np.array([one.sequence % WRAP for one in seen], np.int64),
        units=np.array([one.units for one in seen], np.int64),
        exact=np.ones(len(seen), np.bool_),
        uptime=np.array([one.uptime % WRAP if one.uptime != UNTOLD else UNTOLD for one in seen], np.int64),
        first_total=np.array(
            [(one.total if one.first_total is None else one.first_total) % WRAP for one in seen], np.int64
        ),
        last_total=np.array([one.total % WRAP for one in seen], np.int64),
    )


def told(*rounds: Sequence[Seen], rows: int = 1) -> Sequences:
    """Sequences that heard these rounds, each with a settlement after it, and then nothing more."""
    sequences = Sequences()
    sequences.grow(rows)
    for seen in rounds:
        sequences.gather(observed(seen))
        sequences.settle()
    sequences.settle(everything=True)
    return sequences


def results(sequences: Sequences, row: int = 0) -> tuple[int, int, int]:
    """Lost, dropped and restarts of a row."""
    return int(sequences.lost[row]), int(sequences.dropped[row]), int(sequences.restarts[row])


# --- totals


@pytest.mark.parametrize(
    ("seen", "dropped"),
    [
        pytest.param([Seen(0, 0), Seen(1, 3), Seen(2, 3), Seen(3, 10)], 10, id="it rises"),
        pytest.param([Seen(0, 700), Seen(1, 703)], 3, id="what it was at first is nobody's rise"),
        pytest.param([Seen(5, 700)], 0, id="it is seen once"),
        pytest.param([Seen(0, WRAP - 2), Seen(1, 5)], 7, id="through its end"),
        pytest.param([Seen(0, HALF + 5), Seen(1, 4)], HALF - 1, id="by as much as can be told from a fall"),
        pytest.param([Seen(0, 0), Seen(4, 9)], 9, id="samples between are missing"),
        pytest.param([Seen(0, 0), Seen(1, 9), Seen(2, 8), Seen(3, 10)], 10, id="it wavers"),
        pytest.param([Seen(0, 9, units=5, first_total=2), Seen(5, 9)], 7, id="it rises within a run"),
        pytest.param([Seen(0, WRAP - 1), Seen(1, WRAP - 1)], 0, id="an agent that cannot tell says all ones"),
    ],
)
def test_totals_rise(seen: list[Seen], dropped: int) -> None:
    """By as much as from the first of a row to its last: whatever lies between, and however it falls into rounds."""
    assert results(told(seen))[1] == dropped
    assert results(told(seen, seen))[1] == dropped
    assert results(told(seen[::-1]))[1] == dropped
    if all((after.total - before.total) % WRAP < HALF for before, after in pairwise(seen)):
        assert results(told(*([one] for one in seen)))[1] == dropped


def test_rows_have_totals_of_their_own() -> None:
    """The rise of one is not the other's."""
    sequences = told([Seen(0, 5), Seen(0, 90, row=1), Seen(1, 7), Seen(1, 190, row=1)], rows=2)
    assert (results(sequences, 0), results(sequences, 1)) == ((0, 2, 0), (0, 100, 0))


def test_a_total_that_was_set_back_is_counted_on_from_there() -> None:
    """What it had come to by then is not known to be new: an agent whose counters were cleared has dropped nothing."""
    rounds = [[Seen(0, 500)], [Seen(1, 510)], [Seen(2, 3)], [Seen(3, 4)], [Seen(4, 9)]]
    assert results(told(*rounds)) == (0, 10 + 6, 0)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([Seen(1, 3, uptime=500), Seen(2, 5, uptime=900)], id="the uptime fell"),
        pytest.param([Seen(HALF, 3, uptime=10**9), Seen(HALF + 1, 5, uptime=10**9)], id="the sequence jumped"),
    ],
)
def test_a_restart_is_no_rise(after: list[Seen]) -> None:
    """Neither is the fall of the total taken for its way round, nor its first value for a rise."""
    before = [Seen(7000, HALF + 10, uptime=10**9), Seen(7001, HALF + 11, uptime=10**9)]
    assert results(told(before, [], after)) == (0, 1 + 2, 1)
    assert results(told(before, after)) == (0, 1 + 2, 1)


def test_what_comes_late_adds_nothing_to_a_total() -> None:
    """Its total was passed long ago."""
    rounds = [[Seen(at, 10 * at, uptime=1000 * at)] for at in range(1, 9)]
    late = [Seen(4, 40, uptime=4000), Seen(3, 30, uptime=3000)]
    assert results(told(*rounds, late, [Seen(9, 90, uptime=9000)])) == (0, 80, 0)


# --- what is late, and what began anew


def test_a_copy_that_comes_rounds_later_is_no_restart() -> None:
    """One who sends rarely, over two ways of which one is slow: the uptime tells that the copy is old."""
    for copies in ([Seen(10, uptime=60_000)], [Seen(9, uptime=60_000 - LATE_MS), Seen(10, uptime=60_000)]):
        rounds = [[Seen(9, uptime=60_000 - LATE_MS)], [Seen(10, uptime=60_000)], [], [], copies, [], []]
        assert results(told(*rounds, [Seen(11, uptime=80_000)])) == (0, 0, 0)


def test_a_sequence_that_begins_anew_while_the_uptime_goes_on_is_a_restart() -> None:
    """An agent sets a source's numbers back when its counters were discontinuous."""
    rounds = [[Seen(57, uptime=600_000)], [], [], [Seen(1, uptime=620_000)], [], [], [Seen(2, uptime=640_000)], []]
    assert results(told(*rounds, [], [Seen(5, uptime=660_000)])) == (2, 0, 1)


def test_an_old_copy_after_a_restart_is_not_taken_for_what_follows_it() -> None:
    """Both come in one round: the copy's number lies far ahead of the new ones, and nothing is missing."""
    rounds = [[Seen(5000, uptime=600_000)], [], [], [Seen(5000, uptime=600_000), Seen(1, uptime=620_000)], []]
    assert results(told(*rounds, [Seen(2, uptime=640_000)])) == (0, 0, 1)


def test_without_an_uptime_whatever_stays_behind_is_a_restart() -> None:
    """Nothing else tells it: 0 is what an agent says that has no clock."""
    for uptime in (UNTOLD, 0):
        rounds = [[Seen(57, uptime=uptime)], [], [], [Seen(1, uptime=uptime)], [], []]
        assert results(told(*rounds, [Seen(2, uptime=uptime)])) == (0, 0, 1)


def test_the_newest_uptime_counts() -> None:
    """A datagram that comes late does not make the ones after it look as if the uptime had fallen, or risen."""
    late = Seen(10, uptime=500_000 - LATE_MS)
    rounds = [[Seen(10, uptime=late.uptime), Seen(11, uptime=500_000)], [], [], [late], [Seen(11, uptime=500_000)], []]
    assert results(told(*rounds, [Seen(12, uptime=520_000)])) == (0, 0, 0)


def test_an_uptime_that_fell_a_little_is_no_restart() -> None:
    """Slots of one device have clocks of their own."""
    rounds = [[Seen(10, uptime=500_000)], [Seen(11, uptime=500_000 - UPTIME_SLACK_MS)], [Seen(12, uptime=500_100)]]
    assert results(told(*rounds)) == (0, 0, 0)


# --- rows


def test_rows_that_are_kept_go_on_and_the_others_begin_anew() -> None:
    """What was counted, and what is still waited for, moves with its row."""
    sequences = Sequences()
    sequences.grow(3)
    sequences.gather(observed([Seen(at, 10 * at, row=row) for row in range(3) for at in (1, 2, 4)]))
    sequences.settle()
    sequences.settle()
    assert [results(sequences, row) for row in range(3)] == [(1, 30, 0)] * 3
    sequences.gather(observed([Seen(7, 70, row=1), Seen(9, 90, row=2)]))
    sequences.settle()
    sequences.gather(observed([Seen(8, 80, row=1), Seen(8, 80, row=2)]))
    sequences.keep(np.array([1, 2]))
    sequences.gather(observed([Seen(1000, 5, row=2), Seen(1001, 6, row=2)]))
    sequences.settle(everything=True)
    assert [results(sequences, row) for row in range(3)] == [(1 + 2, 30 + 40, 0), (1 + 3, 30 + 50, 0), (0, 1, 0)]
