"""What is done with duplicates: they are marked, or dropped."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from shared.record import COLUMN, POSITION

DUPLICATE: Final = "duplicate"


def mark(table: pa.Table, duplicate: pa.BooleanArray) -> pa.Table:
    """Return the table with the column ``duplicate``, in its place among the record's columns."""
    if DUPLICATE in table.column_names:
        return table.set_column(table.schema.get_field_index(DUPLICATE), _field(), duplicate)
    place = sum(POSITION.get(name, len(POSITION)) < POSITION[DUPLICATE] for name in table.column_names)
    return table.add_column(place, _field(), duplicate)


def drop(table: pa.Table, duplicate: pa.BooleanArray) -> pa.Table:
    """Return the rows that are no duplicates; the table itself when all are none."""
    return table.filter(pc.invert(duplicate)) if duplicate.true_count else table


def _field() -> pa.Field:
    return pa.field(DUPLICATE, COLUMN[DUPLICATE].type)
