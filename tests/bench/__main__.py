"""`make bench` and `make bench-quick`: how many flows a CPU-second brings from the socket to acknowledged Kafka."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from deploy.local.kafka import CHECKOUT, KafkaUnavailable
from tests.bench import results
from tests.bench.bench import Bench, Subject
from tests.bench.cases import CASES
from tests.bench.collectors import Goflow2, Ingest, find_goflow2

QUICK_CASES = ("v9",)
QUICK_SECONDS = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    cases = [case for case in CASES if case.name in (arguments.case or _names(quick=arguments.quick))]
    if arguments.quick:
        cases = [case.at_most(QUICK_SECONDS) for case in cases]
    found = None if arguments.no_peer else find_goflow2(partial(console.print, soft_wrap=True))
    try:
        with Bench.started(console) as bench:
            figures = []
            for case in cases:
                subjects: dict[str, Subject] = {}
                for workers in arguments.workers or case.workers:
                    name = f"ingest, {workers} worker{'s' if workers > 1 else ''}"
                    make = partial(Ingest, bench.broker, bench.port, workers=workers)
                    subjects[name] = Subject(make, case.load)
                    for traffic in case.beside:
                        subjects[f"{name}: {traffic}"] = Subject(make, replace(case.load, traffic=traffic))
                if found is not None and case.peer_load is not None:
                    subjects["goflow2"] = Subject(
                        partial(Goflow2, bench.broker, bench.port, program=found[0], scheme=case.peer_scheme),
                        case.peer_load,
                    )
                rounds = arguments.rounds or (1 if arguments.quick else case.rounds)
                figures.append(bench.run(case, subjects, rounds))
                figures[-1].base = next(iter(subjects)) if case.beside else None
    except KafkaUnavailable as error:
        sys.exit(str(error))
    console.print(results.table(figures, "goflow2"))
    for one in figures:
        console.print(results.parts_table(one))
        for name, cost in one.costs.items():
            console.print(f"{one.case}: {name}: {cost.text('.2f')} times the cost without", soft_wrap=True)
        for remark in one.remarks:
            console.print(f"{one.case}: {remark}", soft_wrap=True)
    if not arguments.quick:
        path = results.write(arguments.name, _content(figures, None if found is None else found[1]))
        console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0 if all(one.rounds for one in figures) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of the main case; writes no file")
    parser.add_argument(
        "--case", action="append", choices=_names(quick=False), help="only this case; can be given several times"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds of each case (default: 5 of the main one, 3 of the others)"
    )
    parser.add_argument(
        "--workers",
        type=lambda text: [int(each) for each in text.split(",")],
        metavar="N,…",
        help="numbers of workers to measure (default: 1 and 2 in the main case, 1 in the others)",
    )
    parser.add_argument("--no-peer", action="store_true", help="measure ingest alone")
    parser.add_argument("--name", default="ingest", help="of the result file, after the date (default: ingest)")
    return parser


def _names(*, quick: bool) -> tuple[str, ...]:
    return QUICK_CASES if quick else tuple(case.name for case in CASES)


def _content(figures: Sequence[results.Figures], peer_version: str | None) -> dict[str, Any]:
    return {
        "what": "flows per CPU-second (user and system time of all processes, idle cost included),"
        " from the socket to the acknowledgement of Kafka",
        "peer": "none" if peer_version is None else f"goflow2 {peer_version}, -format bin -transport kafka",
        "cases": [results.as_json(one, "goflow2") for one in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
