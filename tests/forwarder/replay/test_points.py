from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.replay.points import Moment, Offsets, parse_moment, parse_point

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("now", NOW_MS),
        ("-90s", NOW_MS - 90_000),
        ("-30m", NOW_MS - 1_800_000),
        ("-2h", NOW_MS - 7_200_000),
        ("-1d", NOW_MS - 86_400_000),
        ("-999999999d", 0),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:00.250+01:00", 250),
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-14 22:13:20+00:00", NOW_MS),
    ],
)
def test_times_are_of_rfc_3339_or_before_now(text: str, ms: int) -> None:
    """A time is absolute with its zone, or so long ago."""
    assert parse_point(text, NOW_MS) == parse_moment(text, NOW_MS) == Moment(ms)


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person reads off the clock on the wall, in summer and in winter; it is shown in UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        winter, summer = parse_moment("2026-01-31T14:00:00", NOW_MS), parse_moment("2026-07-31T14:00:00", NOW_MS)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (str(winter), str(summer)) == ("2026-01-31T13:00:00.000Z", "2026-07-31T12:00:00.000Z")


def test_offsets_are_of_the_partitions_that_are_named() -> None:
    """Partition, colon, offset; several by commas."""
    assert parse_point("0:1200,11:0", NOW_MS) == Offsets({0: 1200, 11: 0})
    assert str(Offsets({11: 0, 0: 1200})) == "0:1200,11:0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1200",
        "yesterday",
        "-2w",
        "2h",
        "0:1,0:2",
        "0:-1",
        "0:1,",
        "2026-13-01",
        "1969-12-31T23:00:00Z",
        "0001-01-01",
    ],
)
def test_what_is_neither_is_said(text: str) -> None:
    """The message has what was written, so that a person sees which of two it was."""
    with pytest.raises(ValueError, match=r"is not a time|names the partition 0 twice|is before 1970"):
        parse_point(text, NOW_MS)


@given(st.integers(0, 4_000_000_000_000))
def test_a_moment_is_read_back_as_it_is_shown(ms: int) -> None:
    """What a refusal proposes as `--from` means the same when it is given."""
    assert parse_moment(str(Moment(ms)), NOW_MS) == Moment(ms)


@given(st.text(alphabet="0123456789:,-TZhmsd+. ", max_size=30))
def test_any_text_is_a_point_or_a_plain_error(text: str) -> None:
    """Nothing that is typed ends in another exception."""
    try:
        parse_point(text, NOW_MS)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 - that there is one is no matter
