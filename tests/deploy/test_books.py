from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.local.books import Lake, Samples, Sums, balances, reasons, sent

HOUR = Path("date=2025-01-31") / "hour=13"


def write(directory: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a file of a lake with the few columns that are asked for."""
    schema = pa.schema(
        [
            ("type", pa.string()),
            ("sampler_address", pa.string()),
            ("time_received", pa.timestamp("ns", "UTC")),
            ("bytes", pa.uint64()),
            ("packets", pa.uint64()),
        ]
    )
    (directory / HOUR).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), directory / HOUR / name)


def row(kind: str, time_ns: int, *, sampler: str = "127.1.2.3", volume: int = 1500) -> dict[str, Any]:
    """One record of a lake."""
    return {"type": kind, "sampler_address": sampler, "time_received": time_ns, "bytes": volume, "packets": 2}


def test_a_lake_without_files_has_nothing(tmp_path: Path) -> None:
    """A lake that nothing was delivered to yet, or that is not even there, is empty and no error."""
    lake = Lake(tmp_path / "lake")
    assert lake.is_empty()
    assert lake.received_since(0) == {}


def test_a_run_is_compared_with_its_own_records_alone(tmp_path: Path) -> None:
    """Counted is what this machine's exporters sent since the start, to the nanosecond; sums pass 64 bits unharmed."""
    start = 1_738_328_400_123_456_789
    write(tmp_path, "part-a.parquet", [row("IPFIX", start - 1), row("IPFIX", start, volume=2**63)])
    write(
        tmp_path,
        "part-b.parquet",
        [
            row("IPFIX", start + 1, volume=2**63),
            row("NETFLOW_V5", start),
            row("NETFLOW_V5", start, sampler="192.0.2.1"),
        ],
    )
    assert Lake(tmp_path).received_since(start) == {
        "IPFIX": Sums(records=2, bytes=2**64, packets=4),
        "NETFLOW_V5": Sums(records=1, bytes=1500, packets=2),
    }


def test_the_generators_word_is_the_last_line_of_its_output() -> None:
    """What was sent is read by type, from the last line; a protocol that sent nothing is not there."""
    text = """hello
{"records": {"IPFIX": 2, "NETFLOW_V5": 0}, "bytes": {"IPFIX": 30, "NETFLOW_V5": 0}, "packets": {"IPFIX": 4, "NETFLOW_V5": 0}}
"""
    assert sent(text) == {"IPFIX": Sums(records=2, bytes=30, packets=4)}


@pytest.mark.parametrize("text", ["", "\n", "Traceback"])
def test_a_generator_that_says_nothing_is_an_error(text: str) -> None:
    """Without the generator's word there is nothing to compare with."""
    with pytest.raises(ValueError, match=r"."):
        sent(text)


@pytest.mark.parametrize(
    ("received", "delivered", "dropped", "in_flight", "holds"),
    [
        pytest.param(10, 7, {"full": 2}, 1, True, id="adds up"),
        pytest.param(0, 0, {}, 0, True, id="nothing yet"),
        pytest.param(10, 7, {"full": 2}, 0, False, id="one is missing"),
        pytest.param(10, 9, {"full": 2}, 0, False, id="one too many"),
    ],
)
def test_a_ledger_balances_when_it_adds_up(
    received: int, delivered: int, dropped: dict[str, int], in_flight: int, holds: bool
) -> None:
    """A line holds when what was received was delivered, dropped or is in flight."""
    books = {
        "received": {"datagrams": 3, "records": received},
        "delivered": {"records": delivered},
        "dropped": {"records": dropped},
        "in_flight": {"records": in_flight},
    }
    assert [line.holds for line in balances("ingest", books)] == [holds]
    assert [line.dropped for line in balances("ingest", books)] == [sum(dropped.values())]


def test_counter_samples_have_a_line_where_there_are_any() -> None:
    """A stage that received counter samples has a line for them; the books of others look as before."""
    counters: dict[str, Any] = {"received": 7, "delivered": 4, "dropped": {"queue_full": 2}, "in_flight": 1}
    books = {
        "received": {"records": 5},
        "delivered": {"records": 5},
        "dropped": {"records": {}},
        "in_flight": {"records": 0},
        "counters": counters,
    }
    assert list(reasons(books)) == [("counters", "queue_full", 2)]
    lines = {line.unit: (line.received, line.dropped, line.holds) for line in balances("ingest", books)}
    assert lines == {"records": (5, 0, True), "counters": (7, 2, True)}
    counters["received"] = 0
    assert [line.unit for line in balances("ingest", books)] == ["records"]


def test_sets_that_waited_have_lines_where_there_are_any() -> None:
    """In memory and in Kafka: those that wait on elsewhere are delivered, as far as this account goes."""
    books: dict[str, Any] = {
        "received": {"records": 5},
        "delivered": {"records": 5},
        "dropped": {"records": {}, "sets": {"template_never_came": 2}},
        "in_flight": {"records": 0},
        "parked": {"received": 10, "decoded": 3, "appended": 4, "dropped": {}, "in_flight": 3},
        "undecoded": {
            "received": 8,
            "decoded": 1,
            "appended": 4,
            "dropped": {"template_never_came": 2},
            "in_flight": 0,
        },
    }
    lines = [(line.unit, line.delivered, line.dropped, line.holds) for line in balances("ingest", books)]
    assert lines == [
        ("records", 5, 0, True),
        ("sets that waited", 7, 0, True),
        ("sets read again", 5, 2, False),
    ]
    assert list(reasons(books)) == [("sets", "template_never_came", 2)]


def test_reasons_are_told_where_something_was_dropped() -> None:
    """Each unit and reason with a count is told; zeros are not."""
    books = {"dropped": {"datagrams": {"unknown_version": 3}, "sets": {"truncated": 0}, "records": {}}}
    assert list(reasons(books)) == [("datagrams", "unknown_version", 3)]


def test_metrics_are_summed_over_the_labels_that_are_not_asked_for() -> None:
    """A total is over all samples that have the asked labels; a metric that is not there counts nothing."""
    samples = Samples(
        "# TYPE sluiceway_forwarder_lag_messages gauge\n"
        'sluiceway_forwarder_lag_messages{sink="lake",partition="0"} 3\n'
        'sluiceway_forwarder_lag_messages{sink="lake",partition="1"} 4\n'
        'sluiceway_forwarder_lag_messages{sink="other",partition="1"} 5\n'
    )
    assert samples.total("forwarder_lag_messages", sink="lake") == 7
    assert samples.total("forwarder_lag_messages") == 12
    assert samples.total("forwarder_records_delivered_total") == 0
