"""The queries that the documentation shows, over lakes as it describes them."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from forwarder.aggregate import Aggregation
from forwarder.config import AggregateConfig, ForwarderSettings, ParquetSinkConfig
from forwarder.cut import Token
from forwarder.sinks.base import Done
from forwarder.sinks.parquet import ParquetSink
from tests.bench.aggregation import made_up
from tests.fakes import TOPIC_ID

DOCS = Path(__file__).parents[2] / "docs"
SUMS = {
    "matrix": AggregateConfig(profile="as_pair"),
    "sums": AggregateConfig(profile="prefix", keys=("in_if_boundary",)),
    "applications": AggregateConfig(profile="application"),
    "groups": AggregateConfig(profile="sgt_pair"),
}
"""The lakes of sums that the queries are about, and what is in each."""


def blocks(page: str, language: str) -> list[str]:
    """The code of a page."""
    return re.findall(rf"```{language}\n(.+?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def records() -> pa.Table:
    """Records with the columns that the queries are about; the rate of some is not known."""
    made = made_up(1000, seed=1)
    rate = pc.if_else(pc.greater(made["src_as"], 64515), made["sampling_rate"], None)
    made = made.set_column(made.column_names.index("sampling_rate"), "sampling_rate", rate)
    boundaries = pa.array([("external", "internal", None)[at % 3] for at in range(1000)]).dictionary_encode()
    return made.append_column("in_if_boundary", boundaries)


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a lake of records, and those of sums; each of two batches."""
    directory = tmp_path_factory.mktemp("lakes")
    whole = records()
    for name in ("lake", *SUMS):
        sink = ParquetSink(ParquetSinkConfig(type="parquet", path=str(directory / name)))
        sink.open()
        for number, part in enumerate((whole.slice(0, 400), whole.slice(400))):
            sums = Aggregation(SUMS[name].rule).apply(part).table if name in SUMS else None
            shown = part if sums is None else part.slice(0, 0)
            assert sink.deliver(shown, Token(TOPIC_ID, number, 0, 1), sums) == Done()
        sink.close()
    return directory


@pytest.mark.parametrize("query", [*blocks("aggregation.md", "sql"), *blocks("exporters.md", "sql")])
def test_a_query_of_the_documentation_finds_something(lakes: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement runs as it stands, and tells what it is there to tell."""
    monkeypatch.chdir(lakes)
    with duckdb.connect() as connection:
        for statement in duckdb.extract_statements(query):
            assert connection.execute(statement).fetchall()


def test_sums_of_the_lake_are_those_of_its_records(lakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a query makes of the rows of several batches is what it makes of the records."""
    monkeypatch.chdir(lakes)
    of_records = """
        SELECT src_as, dst_as, sum(bytes), sum(bytes * coalesce(sampling_rate, 1)), count(*) FROM 'lake/**/*.parquet'
        GROUP BY ALL ORDER BY ALL
    """
    of_sums = """
        SELECT src_as, dst_as, sum(bytes), sum(bytes_estimated), sum(records) FROM 'matrix/**/*.parquet'
        GROUP BY ALL ORDER BY ALL
    """
    with duckdb.connect() as connection:
        found = connection.execute(of_sums).fetchall()
        assert found == connection.execute(of_records).fetchall()
        assert len(found) > 1


def test_the_example_of_the_documentation_is_a_configuration() -> None:
    """And says what the text around it says."""
    (example,) = blocks("aggregation.md", "yaml")
    forwarder = ForwarderSettings.model_validate(yaml.safe_load(example)).forwarder
    matrix, lake = forwarder.aggregation("matrix"), forwarder.aggregation("lake")
    assert matrix is not None
    assert lake is not None
    assert (matrix.keep_raw, lake.keep_raw) == (False, True)
    assert lake.rule.keys == ("src_addr", "dst_addr", "in_if_boundary")
