"""Which version of a template is the newer one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.state.order import AHEAD_MS, BOOT_SLACK_MS, Order, capped, order_of

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def told(
    exported_ms: int, *, received_ms: int = NOW_MS, uptime_ms: int | None = None, known: Order | None = None
) -> Order:
    """The place of what a datagram told."""
    return order_of(exported_ms * 1_000_000, uptime_ms, received_ms * 1_000_000, known)


@pytest.mark.parametrize(
    ("exported_ms", "believed_ms"),
    [
        pytest.param(NOW_MS - 3000, NOW_MS - 3000, id="a clock that is right"),
        pytest.param(NOW_MS + 10**9, NOW_MS + AHEAD_MS, id="the future"),
        pytest.param(0, NOW_MS - AHEAD_MS, id="1970"),
    ],
)
def test_an_exporters_clock_is_believed_within_a_minute_of_reception(exported_ms: int, believed_ms: int) -> None:
    """A time that was made up puts a version before others for a minute at most, and one that is late not for ever."""
    assert told(exported_ms) == Order(0, believed_ms)


def test_what_came_after_a_restart_is_newer_whatever_the_clock_says() -> None:
    """The boot is reckoned back from the time of reception; of IPFIX none is known."""
    before = told(NOW_MS, uptime_ms=24 * HOUR_MS)
    after = told(0, received_ms=NOW_MS + 1000, uptime_ms=500, known=before)
    assert before == Order(NOW_MS - 24 * HOUR_MS, NOW_MS)
    assert after > before
    assert after.told_ms < before.told_ms
    assert told(NOW_MS).boot_ms == 0


@pytest.mark.parametrize("drift_ms", [-HOUR_MS, -1, 0, 1, BOOT_SLACK_MS])
def test_clocks_that_drift_are_no_restart(drift_ms: int) -> None:
    """Within one boot versions are ordered by the time at which they were told."""
    before = told(NOW_MS, uptime_ms=24 * HOUR_MS)
    after = told(NOW_MS + 1, uptime_ms=24 * HOUR_MS - drift_ms, known=before)
    assert after == Order(before.boot_ms, NOW_MS + 1)


def test_what_was_in_the_topic_was_not_told_after_that() -> None:
    """An instance whose clock is wrong by a day puts nothing before others for longer than a minute."""
    assert capped(Order(NOW_MS + HOUR_MS, NOW_MS + 2 * HOUR_MS), NOW_MS) == Order(NOW_MS, NOW_MS + AHEAD_MS)
    assert capped(Order(5, 7), NOW_MS) == Order(5, 7)


TIMES = st.integers(0, 2**42)


@given(TIMES, TIMES, st.none() | st.integers(0, 2**32 - 1), st.none() | st.builds(Order, TIMES, TIMES))
def test_no_datagram_is_placed_in_the_future(
    exported_ms: int, received_ms: int, uptime_ms: int | None, known: Order | None
) -> None:
    """Whatever it says, its place is within a minute of reception, and never of an earlier boot than the known one."""
    place = told(exported_ms, received_ms=received_ms, uptime_ms=uptime_ms, known=known)
    assert max(0, received_ms - AHEAD_MS) <= place.told_ms <= received_ms + AHEAD_MS
    assert (0 if known is None else known.boot_ms) <= place.boot_ms <= max(received_ms, known.boot_ms if known else 0)
