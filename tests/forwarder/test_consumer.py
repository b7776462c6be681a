from __future__ import annotations

import pytest

from forwarder.consumer import OffsetAboveEndError, Place, place


@pytest.mark.parametrize(
    ("committed", "low", "high", "expected"),
    [
        pytest.param(-1001, 0, 100, Place(0, 0), id="a new group begins at the first offset"),
        pytest.param(-1001, 40, 100, Place(40, 0), id="a new group misses nothing that was gone before it"),
        pytest.param(50, 0, 100, Place(50, 0), id="a group goes on where it was"),
        pytest.param(100, 0, 100, Place(100, 0), id="a group that has read all"),
        pytest.param(0, 0, 0, Place(0, 0), id="an empty partition"),
        pytest.param(30, 40, 100, Place(40, 10), id="what expired unread is counted"),
        pytest.param(30, 100, 100, Place(100, 70), id="all of it expired"),
    ],
)
def test_where_a_partition_is_read_from(committed: int, low: int, high: int, expected: Place) -> None:
    """A partition is read from the group's offset; only what the log has no more is skipped, and counted."""
    assert place(committed, low, high, 0) == expected


def test_an_offset_above_the_end_is_an_error() -> None:
    """A log that ends before the group's offset is never taken up again in silence: the message says what to do."""
    with pytest.raises(OffsetAboveEndError, match=r"partition 3 ends at offset 20, but .* up to 21: .*--reset-offsets"):
        place(21, 0, 20, 3)
