from __future__ import annotations

from collections import Counter
from typing import Final

import pyarrow as pa
import pytest

from ingest.data_sources import DataSources
from ingest.decoders import Decoded
from ingest.decoders.sflow_elements import SampleKind
from ingest.exporters import Exporters
from ingest.generator.expected import expected_records
from ingest.generator.scenario import Scenario
from ingest.generator.traffic import Traffic
from ingest.pipeline import Pipeline
from ingest.samples import GatheredSamples
from tests.ingest.plain_sflow import COUNTERS_AT, TEXTS, counter_row, read_sflow

PROTOCOLS: Final = ("v5", "v9", "ipfix", "sflow", "mix", "v9-bare", "v9-grouped", "v9-bare-grouped")
DATAGRAMS: Final = 1500
RECEIVED_NS: Final = 1_700_000_000_123_456_000
OF_THE_COLLECTOR: Final = {"record_id", "time_received"}
COUNTER_COLUMNS: Final = [
    *("source_id_class", "source_id_index", "sample_sequence_num"),
    *TEXTS.values(),
    *(name for columns in COUNTERS_AT.values() for name, _, _ in columns),
]


def rows(table: pa.Table, columns: list[str]) -> Counter[tuple[object, ...]]:
    """The rows of a table whatever their order, with null for columns that it does not have."""
    missing = pa.nulls(table.num_rows)
    found = [table[name] if name in table.column_names else missing for name in columns]
    # Nanoseconds as numbers: Python's own times have none.
    values = [(each.cast(pa.int64()) if pa.types.is_timestamp(each.type) else each).to_pylist() for each in found]
    return Counter(
        tuple(tuple(cell) if isinstance(cell, list) else cell for cell in row) for row in zip(*values, strict=True)
    )


def decode(pipeline: Pipeline, traffic: Traffic) -> list[Decoded]:
    """Decode the first datagrams of the traffic, in which nothing may be wrong."""
    decoded = [pipeline.decode(batch.datagrams(RECEIVED_NS)) for batch in traffic.batches(DATAGRAMS)]
    assert not any(each.faults for each in decoded)
    assert not any(each.oddities for each in decoded)
    return decoded


def joined(batches: list[pa.RecordBatch]) -> pa.Table:
    """Batches as one table, with all the columns that any of them has."""
    return pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="default")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("uniform", [False, True], ids=["varied", "uniform"])
def test_decoders_make_of_generated_traffic_what_was_sent(protocol: str, uniform: bool) -> None:
    """Every record of the generator comes out, once, with every column as it was meant, and nothing is a fault."""
    # 30 exporters: some have an uptime that wraps, and each sends all kinds of datagrams twice.
    traffic = Traffic(Scenario(protocol=protocol, exporters=30, rate=50, uniform=uniform))
    expected = expected_records(traffic, DATAGRAMS, received_ns=RECEIVED_NS)
    made = joined([batch for each in decode(Pipeline(), traffic) for batch in each.batches])
    # Names depend on what came before them: see below.
    columns = [name for name in expected.column_names if name != "application_name"]
    assert rows(made, columns) == rows(expected, columns)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_decoders_join_the_names_that_exporters_told_before(protocol: str) -> None:
    """When all exporters have told their names, every record has them, and no column that was not sent."""
    traffic = Traffic(Scenario(protocol=protocol, exporters=30, rate=50))
    expected = expected_records(traffic, DATAGRAMS, named=True, received_ns=RECEIVED_NS)
    pipeline = Pipeline()
    decode(pipeline, traffic)
    made = joined([batch for each in decode(pipeline, traffic) for batch in each.batches])
    assert set(made.column_names) - set(expected.column_names) == OF_THE_COLLECTOR
    assert rows(made, expected.column_names) == rows(expected, expected.column_names)


def test_decoders_make_rows_of_counters() -> None:
    """Every counter sample is a row, with what an independent reader finds in it."""
    traffic = Traffic(Scenario(protocol="sflow", exporters=30, rate=50))
    made = joined([batch for each in decode(Pipeline(), traffic) for batch in each.counters])
    assert made.num_rows == traffic.totals(DATAGRAMS)["SFLOW_5"].counters
    read = [
        counter_row(sample)
        for batch in traffic.batches(DATAGRAMS)
        for index in range(len(batch))
        for sample in read_sflow(batch.payload(index)).counters
    ]
    assert rows(made, COUNTER_COLUMNS) == Counter(tuple(row.get(name) for name in COUNTER_COLUMNS) for row in read)
    assert set(COUNTER_COLUMNS) == {name for row in read for name in row}


@pytest.mark.parametrize("protocol", ["v5", "v9", "ipfix", "sflow"])
def test_no_exporter_seems_to_have_lost_anything(protocol: str) -> None:
    """Sequence numbers follow each other for whoever counts what is lost, through 2^32 too."""
    traffic = Traffic(Scenario(protocol=protocol, exporters=30, rate=50))
    exporters, samples, sources = Exporters(), GatheredSamples(), DataSources()
    for each in decode(Pipeline(), traffic):
        for heard in each.heard:
            exporters.hear(heard)
        samples.add(each.samples)
    came = samples.take()
    assert (came is not None) == (protocol == "sflow")
    if came is not None:
        sources.hear(came)
        sources.settle(everything=True)
        assert {(one.kind, one.lost) for one in sources.facts()} == {(kind, 0) for kind in SampleKind}
    assert exporters.settle(everything=True) == {}
    facts = exporters.facts()
    assert [(one.restarts, one.undecoded) for one in facts] == [(0, 0)] * (60 if protocol == "sflow" else 30)
