"""Which sequence each exporter goes on with, and what of others' making is told from it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from ingest.state.streams import LONGEST_SILENCE_MS, NONE, SILENCE_MS, WINDOW, Streams
from tests.ingest.observations import NOW_NS, WRAP, Said, heard

STEADY_SECONDS = 60
EXPORTER, OTHER = 0, 1
FAR = 1 << 30
"""How far a forger's sequence is from the exporter's."""


class Wire:
    """Streams that hear datagrams at times of their own, in seconds."""

    def __init__(self, version: int = 9) -> None:
        self.streams = Streams(STEADY_SECONDS * 1000)
        self.version = version

    def hear(self, *said: tuple[float, int], row: int = EXPORTER) -> None:
        """Datagrams of one batch: when each was received, and its sequence number."""
        rows = np.full(len(said), row, np.int64)
        self.streams.hear(
            rows,
            heard([Said(sequence, received_ns=NOW_NS + round(at * 1e9)) for at, sequence in said], self.version),
        )

    def stream(self, seconds: Sequence[float], first: int, row: int = EXPORTER) -> int:
        """One datagram each at these times; returns the number that follows the last."""
        for place, at in enumerate(seconds):
            self.hear((at, first + place), row=row)
        return first + len(seconds)

    def trusts(self, sequence: int, row: int = EXPORTER) -> bool:
        """Whether a datagram with this number is one of the exporter's own."""
        number = self.streams.number(row, sequence % WRAP)
        return number != NONE and number == self.streams.trusted(row)


def test_an_exporter_that_was_heard_for_long_enough_is_known_by_its_sequence() -> None:
    """Before that nobody is; then a number that goes on is its own, and one that is far away is not."""
    wire = Wire()
    after = wire.stream(range(60), 1000)
    assert not wire.trusts(after)
    after = wire.stream([60], after)
    assert wire.trusts(after)
    assert wire.trusts(after - 10)
    assert wire.trusts(after + WINDOW[9] - 1)
    assert not wire.trusts(after + WINDOW[9])
    assert not wire.trusts(after + FAR)
    assert not wire.trusts(after, row=OTHER)
    assert not wire.trusts(after, row=NONE)


def test_a_sequence_goes_on_through_its_end() -> None:
    """Numbers are of 32 bits, and begin again at 0."""
    wire = Wire()
    assert wire.stream(range(100), WRAP - 50) == WRAP + 50
    assert wire.trusts(WRAP + 50)


def test_the_sequence_of_ipfix_counts_records() -> None:
    """One datagram may be far ahead of the one before it."""
    wire = Wire(version=10)
    for at in range(100):
        wire.hear((at, at * 50_000))
    assert wire.trusts(100 * 50_000)
    assert not wire.trusts(200 * 50_000)


@pytest.mark.parametrize("forged_a_second", [1, 100])
def test_a_forged_sequence_never_takes_the_place_of_one_that_goes_on(forged_a_second: int) -> None:
    """However long and however loud it is: the exporter's own is still heard."""
    wire = Wire()
    forged = FAR
    for at in range(1000):
        wire.hear((at, at), *((at + 0.5, forged + one) for one in range(forged_a_second)))
        forged += forged_a_second
    assert wire.trusts(1000)
    assert not wire.trusts(forged)


def test_a_restart_is_followed_once_the_sequence_before_it_is_silent() -> None:
    """The new one counts when it has lasted for as long as any other has to."""
    wire = Wire()
    before = wire.stream(range(200), 1_000_000_000)
    begun = 200
    after = wire.stream(range(begun, begun + SILENCE_MS // 1000 - 1), 0)
    assert wire.trusts(before)
    after = wire.stream(range(begun + after, begun + 100), after)
    assert not wire.trusts(before)
    assert wire.trusts(after)


def test_the_sequence_of_an_exporter_that_says_little_is_not_silent_between_two_datagrams() -> None:
    """What is heard once in five minutes is missed only when it did not come for longer than is usual."""
    wire = Wire()
    after = wire.stream(range(0, 6000, 300), 0)
    wire.stream([6001 + place for place in range(200)], FAR)
    assert wire.trusts(after)
    wire.stream([6300 + place for place in range(LONGEST_SILENCE_MS // 1000)], FAR + 200)
    assert not wire.trusts(after)


def test_what_continues_nothing_makes_no_sequence() -> None:
    """Numbers at random take no place, even where the exporter is silent."""
    wire = Wire()
    after = wire.stream(range(200), 0)
    numbers = random.Random(7)
    for at in range(300, 400):
        wire.hear((at, numbers.randrange(FAR, 2 * FAR)))
    assert wire.trusts(after)


def test_exporters_are_told_apart() -> None:
    """Rows have sequences of their own, in one batch too; those without a row, and other protocols, have none."""
    wire = Wire()
    for at in range(100):
        said = [Said(at, received_ns=NOW_NS + at * 10**9), Said(FAR + at, received_ns=NOW_NS + at * 10**9), Said(5)]
        wire.streams.hear(np.array([EXPORTER, OTHER, NONE]), heard(said))
        wire.streams.hear(np.array([2, 2, 2]), heard(said, version=5))
    assert (wire.trusts(100), wire.trusts(100, row=OTHER)) == (True, False)
    assert (wire.trusts(FAR + 100), wire.trusts(FAR + 100, row=OTHER)) == (False, True)
    assert wire.streams.number(2, 5) == NONE
    assert wire.streams.trusted(2) == NONE


def test_workers_may_hear_one_sequence_in_turns() -> None:
    """Batches overlap, and come late: the sequence is the same, and a gap of lost datagrams does not end it."""
    wire = Wire()
    order = list(range(2000))
    shuffle = random.Random(3)
    for begin in range(0, 2000, 100):
        part = order[begin : begin + 100]
        shuffle.shuffle(part)
        if begin % 300:
            wire.hear(*((sequence / 10, sequence) for sequence in part[:50]))
            wire.hear(*((sequence / 10, sequence) for sequence in part[50:]))
    number = wire.streams.number(EXPORTER, 1999)
    assert wire.trusts(2000)
    assert number == wire.streams.trusted(EXPORTER)
