"""Records in each form that standard output may have."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ingest.writers import WRITE_ROWS, ArrowWriter, JsonWriter, ParquetWriter, TableWriter
from shared.record import SCHEMA


def batch(name: str, rows: int, begin: int = 0) -> pa.RecordBatch:
    """A batch with a type of its own and one numbered column."""
    kind = pa.array(["IPFIX" if name == "bytes" else "NETFLOW_V9"] * rows).dictionary_encode()
    return pa.RecordBatch.from_pydict({"type": kind, name: np.arange(begin, begin + rows, dtype=np.uint64)})


def read_arrow(content: bytes) -> pa.Table:
    """All of an Arrow stream."""
    with pa.ipc.open_stream(content) as stream:
        return stream.read_all()


def read_parquet(content: bytes) -> pa.Table:
    """All of a Parquet file."""
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize(("writer", "read"), [(ArrowWriter, read_arrow), (ParquetWriter, read_parquet)])
class TestColumns:
    """An Arrow stream, a Parquet file."""

    def test_all_columns_whatever_the_records_have(self, writer: type[ArrowWriter], read: object) -> None:
        """Records of different columns stand in one table with every column of the schema; what lacks is null."""
        out = io.BytesIO()
        writing = writer(out)
        writing.write(batch("bytes", 2))
        writing.write(batch("packets", 3))
        writing.close()
        table = read(out.getvalue())  # type: ignore[operator]
        assert table.schema.names == SCHEMA.names
        assert [field.type for field in table.schema] == [field.type for field in SCHEMA]
        rows = table.select(["type", "bytes", "packets", "extra"]).to_pylist()
        assert rows == [
            *({"type": "IPFIX", "bytes": at, "packets": None, "extra": None} for at in range(2)),
            *({"type": "NETFLOW_V9", "bytes": None, "packets": at, "extra": None} for at in range(3)),
        ]

    def test_many_records(self, writer: type[ArrowWriter], read: object) -> None:
        """What is more than one batch of output is all there, in order."""
        out = io.BytesIO()
        writing = writer(out)
        step = WRITE_ROWS * 2 // 3
        for at in range(4):
            writing.write(batch("bytes", step, at * step))
        before = len(out.getvalue())
        writing.close()
        assert 0 < before < len(out.getvalue())
        table = read(out.getvalue())  # type: ignore[operator]
        assert np.array_equal(table["bytes"].to_numpy(), np.arange(4 * step))

    def test_no_records(self, writer: type[ArrowWriter], read: object) -> None:
        """No records make a stream or file that can be read, and has none."""
        out = io.BytesIO()
        writer(out).close()
        assert not out.closed
        assert read(out.getvalue()).num_rows == 0  # type: ignore[operator]


def test_json() -> None:
    """JSON lines come as the batches come."""
    out = io.BytesIO()
    writing = JsonWriter(out)
    writing.write(batch("bytes", 1))
    assert out.getvalue() == b'{"type":"IPFIX","bytes":0}\n'


def test_table_in_a_file() -> None:
    """A table that no terminal shows is plain text, its titles once, no line cut."""
    out = io.BytesIO()
    writing = TableWriter(out)
    writing.write(batch("bytes", 1200))
    lines = out.getvalue().decode().splitlines()
    assert lines[0].startswith("time ")
    assert len(lines) == 1201
    assert not any(line.startswith("time ") or "\x1b" in line or line != line.rstrip() for line in lines[1:])


def test_table_on_a_terminal() -> None:
    """On a terminal it is coloured, and cut at its width."""
    shown = io.StringIO()
    writing = TableWriter(io.BytesIO(), Console(file=shown, force_terminal=True, width=60, color_system="standard"))
    writing.write(batch("bytes", 2))
    lines = shown.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b[" in lines[0]
    assert "packets" not in shown.getvalue()
