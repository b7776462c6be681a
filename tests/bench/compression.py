"""`python -m tests.bench.compression`: what each compression of Kafka costs, and what it saves.

Ingest is measured with each of them, in turn: CPU time of ingest, of the broker and of a consumer, and bytes on disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from deploy.local.kafka import CHECKOUT, KafkaUnavailable
from tests.bench import results
from tests.bench.bench import Bench, Subject
from tests.bench.cases import CASES
from tests.bench.collectors import Ingest
from tests.bench.results import Figures
from tests.bench.rounds import Round

CODECS: Final[Mapping[str, Mapping[str, object]]] = {
    "none": {"compression.type": "none"},
    "lz4": {"compression.type": "lz4"},
    "snappy": {"compression.type": "snappy"},
    "zstd 1": {"compression.type": "zstd", "compression.level": 1},
    "zstd 3": {"compression.type": "zstd", "compression.level": 3},
    "zstd 6": {"compression.type": "zstd", "compression.level": 6},
}
"""By name, the client's properties; 3 is the level that the client takes by itself for zstd."""

SECONDS: Final = 3.0
"""How long is sent in a round."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compression", description=__doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=[case.name for case in CASES],
        help="what is sent; can be given several times (default: v9 and mix)",
    )
    parser.add_argument("--codec", action="append", choices=CODECS, help="only this one; can be given several times")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: 3)")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    chosen = arguments.case or ["v9", "mix"]
    figures = []
    try:
        with Bench.started(console) as bench:
            for case in CASES:
                if case.name in chosen:
                    load = case.at_most(SECONDS).load
                    subjects = {
                        name: Subject(partial(Ingest, bench.broker, bench.port, properties=CODECS[name]), load)
                        for name in arguments.codec or CODECS
                    }
                    figures.append(bench.run(case, subjects, arguments.rounds))
    except KafkaUnavailable as error:
        sys.exit(str(error))
    for one in figures:
        console.print(_table(one))
    path = results.write("compression", {"what": __doc__.strip(), "cases": [_as_json(one) for one in figures]})
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


def _figures(rounds: Sequence[Round]) -> dict[str, float]:
    """What is told of one codec."""
    return {
        "flows_per_cpu_second": median(one.flows_per_cpu_second for one in rounds),
        "bytes_per_record": median(one.bytes_per_record or 0.0 for one in rounds),
        "ingest_ns_per_record": median(one.cpu.total / one.records * 1e9 for one in rounds),
        "broker_ns_per_record": median(one.broker_cpu.total / one.records * 1e9 for one in rounds),
        "consumer_ns_per_record": median(one.reading_seconds / one.records * 1e9 for one in rounds),
    }


def _table(figures: Figures) -> Table:
    shown = Table(title=f"{figures.case}: {figures.text}")
    shown.add_column("compression")
    headings = ("flows/CPU-s", "bytes/record", "ingest ns/record", "broker ns/record", "consumer ns/record")
    for heading in headings:
        shown.add_column(heading, justify="right")
    for name, rounds in figures.rounds.items():
        values = _figures(rounds)
        shown.add_row(
            name,
            results.speed(rounds).text(),
            f"{values['bytes_per_record']:.1f}",
            *(f"{values[f'{who}_ns_per_record']:.0f}" for who in ("ingest", "broker", "consumer")),
        )
    return shown


def _as_json(figures: Figures) -> dict[str, Any]:
    return {
        "case": figures.case,
        "sent": figures.text,
        "rounds": max(map(len, figures.rounds.values()), default=0),
        "compression": {
            name: {
                **{what: round(value, 1) for what, value in _figures(rounds).items()},
                "flows_per_cpu_second": results.speed(rounds).rounded(0),
            }
            for name, rounds in figures.rounds.items()
        },
        "remarks": figures.remarks,
    }


if __name__ == "__main__":
    sys.exit(main())
