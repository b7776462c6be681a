from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from forwarder.replay.report import Bar, Lines, Rate, meter
from forwarder.replay.tally import Tally
from shared.config import LogConfig
from tests.fakes import FakeClock


def test_a_rate_is_of_the_last_seconds() -> None:
    """What was fast once is forgotten."""
    clock = FakeClock()
    rate = Rate(clock)
    assert rate.of(0) == 0.0
    count, now = 0, 0.0
    for each in (1000, 10):
        for _ in range(60):
            clock.advance(0.5)
            count += each
            now = rate.of(count)
        assert now == pytest.approx(2 * each)


def test_a_line_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Every ten seconds, where standard error is no terminal; with the rate and the time left."""
    assert isinstance(meter(LogConfig(format="json")), Lines)
    clock = FakeClock()
    with Lines(clock) as lines:
        for step in range(1, 26):
            clock.advance(1.0)
            lines.show(step * 10, 1000, Tally(delivered=step * 500))
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    shown = [(one["messages"], one["of"], one["delivered_records"], one["records_per_second"]) for one in told]
    assert shown == [(100, 1000, 5000, 500), (200, 1000, 10_000, 500)]
    assert [one["seconds_left"] for one in told] == [90, 80]


def test_a_bar_tells_how_far_it_is() -> None:
    """On a terminal; nothing of it is left at the end."""
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=100)) as bar:
        bar.show(250, 1000, Tally(delivered=500))
    assert "250/1000" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")
