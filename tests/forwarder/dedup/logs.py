"""Logs of messages for tests, and the many ways in which one can be handed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


@st.composite
def append_times(draw: st.DrawFn, most: int = 40) -> list[int]:
    """Append times of a log's messages: they rise, stand still, jump, and now and then step back."""
    now, times = draw(st.integers(0, 500)), []
    for step in draw(st.lists(st.sampled_from([0, 0, 1, 3, 7, 20, 45, 130, -1, -15]), max_size=most)):
        now = max(0, now + step)
        times.append(now)
    return times


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """Where a log of so many messages is cut into calls: in order, the end included."""
    inner = draw(st.lists(st.integers(0, length), max_size=6))
    return [*sorted(inner), length]


def calls(log: Sequence[T], ends: Sequence[int]) -> Iterator[Sequence[T]]:
    """The log in pieces."""
    begin = 0
    for end in ends:
        yield log[begin:end]
        begin = end


@st.composite
def restarts(draw: st.DrawFn, times: Sequence[int], oldest_needed: Callable[[int], int]) -> tuple[int, int]:
    """At which message a reader begins to judge, and at which to remember: the first that is needed for it, or earlier."""
    at = draw(st.integers(0, len(times) - 1))
    needed = first_needed(times, oldest_needed(times[at]), at)
    return at, draw(st.one_of(st.just(needed), st.integers(0, needed)))


def first_needed(times: Sequence[int], since: int, before: int) -> int:
    """Which message to begin at, so that all from an append time on are read: as Kafka finds offsets by time."""
    return next((at for at in range(before) if times[at] >= since), before)
