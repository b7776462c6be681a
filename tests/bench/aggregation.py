"""`python -m tests.bench.aggregation`: how many records a CPU-second adds up, and what that saves in the lake.

The records are made up: flows between hosts of which few have most of the traffic, as on a border router. They are
handed over as the forwarder does it, a batch at a time; Kafka takes no part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from forwarder.aggregate import PROFILES, AggregateRule, Aggregation, Prefixes
from forwarder.config import ParquetSinkConfig
from forwarder.cut import Token
from forwarder.sinks.base import Done
from forwarder.sinks.parquet import ParquetSink
from shared.record import COLUMN

HOSTS: Final = 4_000_000
GROUPS: Final = 40
APPLICATIONS: Final = 300
NOW_NS: Final = 1_700_000_000_000_000_000
SECOND: Final = 1_000_000_000
BATCH_SECONDS: Final = 60

Numbers = npt.NDArray[np.int64]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.aggregation", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=200_000, help="records in a batch (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds, of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="same seed, same records (default: %(default)s)")
    arguments = parser.parse_args(argv)
    records = made_up(arguments.records, arguments.seed)
    shown = Table("sums by", "rows", "records a row", "records per CPU-second", "with the lake", "bytes of files")
    raw, size = _lake(arguments.rounds, lambda: (records, None))
    shown.add_row("(no sums: the records)", "", "", "", _rate(records, raw), f"{size:,}")
    for name, keys in PROFILES.items():
        aggregation = Aggregation(AggregateRule(keys, prefixes=Prefixes() if name == "prefix" else None))
        made = aggregation.apply(records).table
        alone = _seconds(arguments.rounds, lambda aggregation=aggregation: aggregation.apply(records))  # type: ignore[misc]
        nothing = records.slice(0, 0)
        lake, size = _lake(
            arguments.rounds,
            lambda aggregation=aggregation, nothing=nothing: (nothing, aggregation.apply(records).table),  # type: ignore[misc]
        )
        shown.add_row(
            name,
            f"{made.num_rows:,}",
            f"{records.num_rows / made.num_rows:.1f}",
            _rate(records, alone),
            _rate(records, lake),
            f"{size:,}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(shown)
    return 0


def made_up(count: int, seed: int) -> pa.Table:
    """Records with the columns that the profiles need."""
    rng = np.random.default_rng(seed)
    source, destination = (_few_have_most(rng, HOSTS, count) for _ in range(2))
    groups, applications = (
        pa.array([f"name {one}" for one in range(size)], pa.utf8()) for size in (GROUPS, APPLICATIONS)
    )
    application = _few_have_most(rng, APPLICATIONS, count)
    start = NOW_NS - rng.integers(0, 60 * SECOND, count)
    columns: dict[str, pa.Array | Numbers] = {
        "time_received": NOW_NS + np.sort(rng.integers(0, BATCH_SECONDS * SECOND, count)),
        "time_flow_start": start,
        "time_flow_end": start + rng.integers(0, 30 * SECOND, count),
        "sampling_rate": rng.choice([100, 1000], count),
        "bytes": rng.integers(40, 1_000_000, count),
        "packets": rng.integers(1, 1000, count),
        "flows": np.ones(count, np.int64),
        "src_addr": _addresses(source),
        "dst_addr": _addresses(destination),
        "src_net_len": _lengths(source),
        "dst_net_len": _lengths(destination),
        "src_as": 64512 + (source >> 10),
        "dst_as": 64512 + (destination >> 10),
        "application_id": pa.array([f"13:{one}" for one in range(APPLICATIONS)]).take(pa.array(application)),
        "application_name": pa.DictionaryArray.from_arrays(pa.array(application, pa.int32()), applications),
        "src_sgt": source % GROUPS,
        "dst_sgt": destination % GROUPS,
        "src_sgt_name": pa.DictionaryArray.from_arrays(pa.array(source % GROUPS, pa.int32()), groups),
        "dst_sgt_name": pa.DictionaryArray.from_arrays(pa.array(destination % GROUPS, pa.int32()), groups),
    }
    names = [name for name in COLUMN if name in columns]
    return pa.table(
        [
            one if isinstance(one := columns[name], pa.Array) else pa.array(one).cast(COLUMN[name].type)
            for name in names
        ],
        names=names,
    )


def _few_have_most(rng: np.random.Generator, size: int, count: int) -> Numbers:
    """Numbers below ``size``, of which the small ones come often."""
    numbers: Numbers = (rng.pareto(0.6, count) * 20).astype(np.int64) % size
    return numbers


def _addresses(hosts: Numbers) -> pa.FixedSizeBinaryArray:
    octets = np.zeros((len(hosts), 16), np.uint8)
    octets[:, 10:12] = 255
    octets[:, 12:] = (0x0A000000 + hosts).astype(">u4").view(np.uint8).reshape(-1, 4)
    return pa.Array.from_buffers(pa.binary(16), len(hosts), [None, pa.py_buffer(octets)])


def _lengths(hosts: Numbers) -> Numbers:
    """The length of each host's route; some routers do not know it."""
    lengths: Numbers = np.array([0, 16, 20, 22, 24, 24])[(hosts >> 8) % 6]
    return lengths


def _seconds(rounds: int, work: Callable[[], object]) -> float:
    """CPU seconds of the process for one batch, in the median."""
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return median(taken)


def _lake(rounds: int, shape: Callable[[], tuple[pa.Table, pa.Table | None]]) -> tuple[float, int]:
    """CPU seconds to shape and to write a batch, in the median, and the bytes of its files."""
    with tempfile.TemporaryDirectory() as directory:
        sink = ParquetSink(ParquetSinkConfig(type="parquet", path=directory))
        sink.open()

        def work() -> None:
            table, sums = shape()
            assert sink.deliver(table, Token("topic", 0, 0, 1), sums) == Done()

        taken = _seconds(rounds, work)
        return taken, sum(path.stat().st_size for path in Path(directory).rglob("*.parquet"))


def _rate(records: pa.Table, seconds: float) -> str:
    return f"{records.num_rows / seconds:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
