"""Which records to show: an expression over the record's columns, evaluated by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from shared.errors import ConfigError
from shared.keys import nearest
from shared.record import ADDRESS, MAC, Column
from shared.text import format_addresses, format_macs

ROWS: Final = "the_rows"
NUMBER: Final = "the_number_of_the_row"
INSTANT: Final = pa.timestamp("us", "UTC")
"""DuckDB compares times of this kind alone with `now()` and with others."""
_MISSING: Final = re.compile(r'[Rr]eferenced column "([^"]+)" not found')


class RecordFilter:
    """Picks the rows of tables for which an expression is true, such as ``src_sgt == 10 and dst_port in (80, 443)``.

    Addresses are compared as the text that the record's JSON has, names as text, times to the microsecond; a column that a table does not have
    is null. Raises ConfigError for an expression that is none, or that names no column.
    """

    def __init__(self, expression: str, columns: Mapping[str, Column]) -> None:
        self._expression = expression
        self._columns = columns
        self._used = [name for name in columns if re.search(rf"\b{re.escape(name)}\b", expression)]
        self._database = duckdb.connect(":memory:")
        # An expression reads the rows that it is given, and nothing else of this machine.
        self._database.execute("SET threads = 1; SET enable_external_access = false; SET lock_configuration = true")
        self.apply(pa.schema([]).empty_table())

    def apply(self, table: pa.Table) -> pa.Table:
        """The rows of the table for which the expression is true, in their order."""
        rows = pa.table(
            {NUMBER: pa.array(np.arange(table.num_rows)), **{name: self._column(table, name) for name in self._used}}
        )
        self._database.register(ROWS, rows)
        try:
            self._database.execute(f"SELECT {NUMBER} FROM {ROWS} WHERE ({self._expression})")  # noqa: S608 - whoever gives the expression may ask for what they like of these rows
            found = self._database.fetchnumpy()[NUMBER]
        except duckdb.Error as error:
            raise ConfigError(self._explained(error)) from None
        finally:
            self._database.unregister(ROWS)
        return table.take(pa.array(np.sort(np.asarray(found))))

    def _column(self, table: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
        known = self._columns[name].type
        if name not in table.column_names:
            plain = pa.utf8() if known in {ADDRESS, MAC} or pa.types.is_dictionary(known) else known
            return pa.nulls(table.num_rows, INSTANT if pa.types.is_timestamp(plain) else plain)
        column = table.column(name)
        if known == ADDRESS:
            return format_addresses(column)
        if known == MAC:
            return format_macs(column)
        if pa.types.is_timestamp(known):
            return column.cast(INSTANT, safe=False)
        return column.cast(pa.utf8()) if pa.types.is_dictionary(known) else column

    def _explained(self, error: duckdb.Error) -> str:
        text = str(error)
        missing = _MISSING.search(text)
        if missing:
            near = nearest(missing[1], self._columns)
            return f"--filter: there is no column {missing[1]}; the nearest is {near} (docs/record.md has all of them)"
        # The first line says what is wrong; what follows shows DuckDB's statement around the expression.
        return f"--filter {self._expression!r} cannot be evaluated: {text.splitlines()[0]}"
