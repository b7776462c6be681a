from __future__ import annotations

import pyarrow as pa
import pytest

from forwarder.dedup.marking import drop, mark
from shared.record import SCHEMA

MARKS = pa.array([False, True, False])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["type", "record_id"], ["type", "record_id", "duplicate"], id="behind what comes before it"),
        pytest.param(
            ["type", "wlan_ap_mac", "extra"], ["type", "wlan_ap_mac", "duplicate", "extra"], id="in its place"
        ),
        pytest.param(["type", "duplicate"], ["type", "duplicate"], id="instead of what was there"),
        pytest.param(["extra"], ["duplicate", "extra"], id="at the begin"),
    ],
)
def test_marks_stand_in_their_place(before: list[str], after: list[str]) -> None:
    """The column has the record's type and place; the others stay as they are, without a copy."""
    table = pa.table({name: pa.nulls(3, SCHEMA.field(name).type) for name in before})
    marked = mark(table, MARKS)
    assert marked.column_names == after
    assert marked["duplicate"].to_pylist() == [False, True, False]
    assert marked.schema.field("duplicate").type == SCHEMA.field("duplicate").type


def test_dropped_rows_are_gone() -> None:
    """The others stay in their order."""
    assert drop(pa.table({"bytes": [1, 2, 3]}), MARKS)["bytes"].to_pylist() == [1, 3]


def test_without_duplicates_the_table_passes_as_it_is() -> None:
    """Not a copy: the same table."""
    table = pa.table({"bytes": [1, 2, 3]})
    assert drop(table, pa.array([False, False, False])) is table
