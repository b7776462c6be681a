from __future__ import annotations

from collections import Counter
from typing import Final

import pyarrow as pa
import pytest

from ingest.generator.expected import expected_records
from ingest.generator.scenario import Scenario
from ingest.generator.traffic import Traffic
from ingest.pipeline import Pipeline

DATAGRAMS: Final = 1500


def rows(table: pa.Table, columns: list[str]) -> Counter[tuple[object, ...]]:
    """The rows of a table whatever their order, with null for columns that it does not have."""
    missing = pa.nulls(table.num_rows)
    values = [(table[name] if name in table.column_names else missing).to_pylist() for name in columns]
    return Counter(zip(*values, strict=True))


@pytest.mark.parametrize("protocol", ["v5", "v9", "ipfix", "mix"])
def test_decoders_make_of_generated_traffic_what_was_sent(protocol: str) -> None:
    """Every record of the generator comes out, once, with every column as it was meant, and nothing is a fault."""
    # 30 exporters: some have an uptime that wraps, and each sends all kinds of datagrams twice.
    traffic = Traffic(Scenario(protocol=protocol, exporters=30, rate=50))
    expected = expected_records(traffic, DATAGRAMS)
    pipeline = Pipeline()
    decoded = [pipeline.decode(batch.datagrams(received_ns=1)) for batch in traffic.batches(DATAGRAMS)]
    tables = [pa.Table.from_batches([batch]) for each in decoded for batch in each.batches]
    columns = expected.column_names
    assert rows(pa.concat_tables(tables, promote_options="default"), columns) == rows(expected, columns)
    assert not any(each.faults for each in decoded)
