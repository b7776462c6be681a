"""Records on standard output: as a table, as JSON lines, as an Arrow stream or a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from shared.codec import merge
from shared.grid import GrowingTable, Layout
from shared.record import COLUMN, Column, schema_of
from shared.table import FLOWS
from shared.text import json_lines

TABLE_ROWS: Final = 500
"""Rows of a table that are laid out at a time."""
WRITE_ROWS: Final = 100_000
"""Rows of one Arrow batch or Parquet row group."""


class Writer(Protocol):
    """Writes records in one form, as they come or later; whoever gives up does not call `close`."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take records in."""

    def close(self) -> None:
        """Write what is left, and the end that the form may have. The output stays open."""


class TableWriter:
    """Lines that a person reads; with a console in colours, and cut at its width."""

    def __init__(self, out: BinaryIO, console: Console | None = None, layout: Layout = FLOWS) -> None:
        self._out = out
        self._console = console
        self._table = GrowingTable(layout, width=None if console is None else console.width)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the records' lines."""
        for at in range(0, batch.num_rows, TABLE_ROWS):
            lines = self._table.lines(batch.slice(at, TABLE_ROWS))
            if self._console is None:
                self._out.write(lines.plain.encode())
            else:
                self._console.print(lines, end="", no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        """Hand on what is buffered."""
        self._out.flush()


class JsonWriter:
    """One JSON object a line."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the records' lines."""
        self._out.write(json_lines(batch))

    def close(self) -> None:
        """Hand on what is buffered."""
        self._out.flush()


class _ColumnWriter:
    """All columns that there are, in batches of many records; what a record does not have is null."""

    def __init__(
        self, out: BinaryIO, columns: Mapping[str, Column], schema: pa.Schema, write_table: Callable[[pa.Table], None]
    ) -> None:
        self._out = out
        self._columns = columns
        self._schema = schema
        self._write_table = write_table
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take records in; write when there are many."""
        self._waiting.append(pa.Table.from_batches([batch]))
        self._rows += batch.num_rows
        if self._rows >= WRITE_ROWS:
            self._write_waiting()

    def _write_waiting(self) -> None:
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if not waiting:
            return
        merged = merge(waiting, self._columns)
        have = set(merged.column_names)
        columns = [
            merged[field.name] if field.name in have else pa.nulls(len(merged), field.type) for field in self._schema
        ]
        self._write_table(pa.Table.from_arrays(columns, schema=self._schema))


class ArrowWriter(_ColumnWriter):
    """An Arrow IPC stream."""

    def __init__(self, out: BinaryIO, columns: Mapping[str, Column] = COLUMN) -> None:
        schema = schema_of(columns.values())
        self._stream = pa.ipc.new_stream(out, schema)
        super().__init__(out, columns, schema, self._stream.write_table)

    def close(self) -> None:
        """Write the last batch and the end of the stream."""
        self._write_waiting()
        self._stream.close()
        self._out.flush()


class ParquetWriter(_ColumnWriter):
    """A Parquet file; nothing of it can be read before it is closed."""

    def __init__(self, out: BinaryIO, columns: Mapping[str, Column] = COLUMN) -> None:
        schema = schema_of(columns.values())
        self._file = pq.ParquetWriter(out, schema, compression="zstd")
        super().__init__(out, columns, schema, self._file.write_table)

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._write_waiting()
        self._file.close()
        self._out.flush()
