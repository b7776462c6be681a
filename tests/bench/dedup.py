"""`python -m tests.bench.dedup`: records a CPU-second that dedup judges, by how many it remembers.

No Kafka, no decoding: ids and columns are there already. The peer of the exact rule is Arrow's own `is_in`, which makes
a hash table of all that is remembered for each batch anew, and a Python set, which keeps one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from deploy.local.kafka import CHECKOUT
from forwarder.dedup.exact import ExactDedup, ExactRule, Verdict
from forwarder.dedup.generations import KEPT
from forwarder.dedup.lease import LeaseDedup, LeaseRule
from forwarder.dedup.observation import ObservationPoint, ObservationRule
from forwarder.dedup.runs import Runs
from shared.record import ADDRESS, NAME
from tests.bench import results, system
from tests.bench.results import Spread

T = TypeVar("T")
Ids = npt.NDArray[np.uint64]

MILLION: Final = 1_000_000
BATCH: Final = 200_000
"""Records of a batch, as the forwarder cuts them at most."""
MESSAGE: Final = 1000
BATCHES: Final = 10
"""Batches that are judged in a round."""
WINDOW_MS: Final = 600_000
REPEATED: Final = 0.01
"""Part of the records that were there before."""
RUNS: Final = [(0, MESSAGE)] * (BATCH // MESSAGE)
MOST_OF_A_SET: Final = 10 * MILLION
"""A Python set of more takes more memory than a laptop has to spare."""


@dataclass(slots=True)
class Measured:
    """What one subject did, in records a CPU-second, round by round."""

    subject: str
    remembered: int
    speeds: list[float] = field(default_factory=list)
    bytes_each: float | None = None
    yardsticks: list[float] = field(default_factory=list)

    def take(self, records: int, work: Callable[[], T]) -> T:
        """Measure a piece of work on so many records, and return what came of it."""
        self.yardsticks.append(system.yardstick())
        begin = time.process_time()
        result = work()
        self.speeds.append(records / (time.process_time() - begin))
        return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dedup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each (default: 5)")
    parser.add_argument(
        "--remembered",
        type=int,
        action="append",
        metavar="N",
        help="millions of ids; can be given several times (default: 1, 10 and 50)",
    )
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    figures: list[Measured] = []
    for millions in arguments.remembered or (1, 10, 50):
        figures += exact(millions * MILLION, arguments.rounds)
    figures += flow_rules(arguments.rounds)
    console.print(_table(figures))
    content = {"what": (__doc__ or "").strip(), "batch": BATCH, "repeated": REPEATED, "figures": _as_json(figures)}
    console.print(f"written to {results.write('dedup', content).relative_to(CHECKOUT)}")
    return 0


class Log:
    """A log of random ids whose records come at such a rate that a window holds as many as are to be remembered."""

    def __init__(self, remembered: int) -> None:
        self._random = np.random.default_rng(1)
        self._records_per_ms = remembered / (WINDOW_MS * KEPT / (KEPT - 1))
        self._before: Ids = np.zeros(0, np.uint64)
        self.records = 0

    def batch(self, repeated: float) -> tuple[Ids, Runs]:
        """The next batch; of its records this part was in the one before."""
        ids = self._random.integers(0, 2**64, BATCH, np.uint64)
        again = int(len(self._before) * repeated)
        ids[self._random.choice(BATCH, again, replace=False)] = self._before[:again]
        self._before = ids
        begins = range(self.records, self.records + BATCH, MESSAGE)
        self.records += BATCH
        return ids, [(int(begin / self._records_per_ms), MESSAGE) for begin in begins]


def exact(remembered: int, rounds: int) -> list[Measured]:
    """Fill all generations, and then go on, so that old ones go and new ones grow while it is measured."""
    dedup, log = ExactDedup(ExactRule(WINDOW_MS, 2 * remembered), "bench"), Log(remembered)
    while log.records < remembered:
        dedup.push(*log.batch(repeated=0.0))
    ours, arrow, python = (Measured(name, remembered) for name in ("exact", "pyarrow is_in", "Python set"))
    random = np.random.default_rng(2)
    known = random.integers(0, 2**64, remembered, np.uint64)
    values, asked = pa.array(known), pa.array(random.integers(0, 2**64, BATCH, np.uint64))
    plain = set(known.tolist()) if remembered <= MOST_OF_A_SET else None
    for _ in range(rounds):
        batches = [log.batch(REPEATED) for _ in range(BATCHES)]
        verdicts = ours.take(BATCHES * BATCH, partial(_push, dedup, batches))
        if any(verdict.duplicates != BATCH * REPEATED for verdict in verdicts):
            sys.exit("the repetitions were not found: the figures would not be true")
        arrow.take(BATCH, partial(pc.is_in, asked, values))
        if plain is not None:
            python.take(BATCH, partial(_look_up, plain, asked))
    ours.bytes_each = dedup.nbytes / len(dedup)
    return [one for one in (ours, arrow, python) if one.speeds]


def _push(dedup: ExactDedup, batches: Sequence[tuple[Ids, Runs]]) -> list[Verdict]:
    return [dedup.push(ids, runs) for ids, runs in batches]


def _look_up(known: set[int], column: pa.Array) -> list[bool]:
    """Judge a batch with a set, whose ids have to become Python numbers first; they are remembered too."""
    ids = column.to_pylist()
    seen = [one in known for one in ids]
    known.update(ids)
    return seen


def flow_rules(rounds: int) -> list[Measured]:
    """The rules for flows that several exporters see, on records of a million flows from three exporters."""
    random, flows = np.random.default_rng(3), 1 * MILLION
    addresses = pa.array([random.bytes(16) for _ in range(flows)], ADDRESS)
    exporters = pa.array([bytes(15) + bytes([number]) for number in range(3)], ADDRESS)
    classes = pa.array(["external", "internal", None])

    def batch() -> pa.Table:
        boundary = [pa.DictionaryArray.from_arrays(random.integers(0, 3, BATCH, np.int32), classes) for _ in range(2)]
        return pa.table(
            {
                "sampler_address": exporters.take(pa.array(random.integers(0, 3, BATCH))),
                "src_addr": addresses.take(pa.array(random.integers(0, flows, BATCH))),
                "dst_addr": addresses.take(pa.array(np.zeros(BATCH, np.int64))),
                "proto": pa.array(np.full(BATCH, 6, np.uint8)),
                "src_port": pa.array(np.full(BATCH, 443, np.uint16)),
                "dst_port": pa.array(np.full(BATCH, 50000, np.uint16)),
                "flow_direction": pa.array(random.integers(0, 2, BATCH, np.uint8)),
                "in_if_boundary": boundary[0].cast(NAME),
                "out_if_boundary": boundary[1].cast(NAME),
            }
        )

    lease, point = LeaseDedup(LeaseRule(3_600_000, 4 * flows), "bench"), ObservationPoint(ObservationRule())
    for _ in range(4 * flows // BATCH):
        lease.apply(batch(), RUNS)
    by_lease, by_point = Measured("lease", len(lease)), Measured("observation_point", 0)
    for _ in range(rounds):
        batches = [batch() for _ in range(BATCHES)]
        by_lease.take(BATCHES * BATCH, partial(_lease, lease, batches))
        by_point.take(BATCHES * BATCH, partial(_judge, point, batches))
    by_lease.bytes_each = lease.nbytes / len(lease)
    return [by_lease, by_point]


def _lease(dedup: LeaseDedup, batches: Sequence[pa.Table]) -> None:
    for batch in batches:
        dedup.apply(batch, RUNS)


def _judge(point: ObservationPoint, batches: Sequence[pa.Table]) -> None:
    for batch in batches:
        point.judge(batch)


def _ratio(one: Measured, figures: Sequence[Measured]) -> Spread | None:
    """How many times faster the exact rule is than a peer that remembers as much, round by round."""
    ours = [other for other in figures if other.subject == "exact" and other.remembered == one.remembered]
    if not ours or one is ours[0]:
        return None
    return Spread.of([fast / slow for fast, slow in zip(ours[0].speeds, one.speeds, strict=True)])


def _table(figures: Sequence[Measured]) -> Table:
    shown = Table(title="records judged a CPU-second: median (least to greatest)")
    shown.add_column("rule or peer", no_wrap=True)
    for heading in ("remembered", "records/CPU-s", "exact is times faster", "bytes each", "yardstick ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in figures:
        ratio = _ratio(one, figures)
        shown.add_row(
            one.subject,
            f"{one.remembered:,}",
            Spread.of(one.speeds).text(),
            "" if ratio is None else ratio.text(",.1f"),
            "" if one.bytes_each is None else f"{one.bytes_each:.1f}",
            Spread.of(one.yardsticks).text(),
        )
    return shown


def _as_json(figures: Sequence[Measured]) -> list[dict[str, Any]]:
    return [
        {
            "subject": one.subject,
            "remembered": one.remembered,
            "records_per_cpu_second": Spread.of(one.speeds).rounded(0),
            "exact_is_times_faster": None if (ratio := _ratio(one, figures)) is None else ratio.rounded(1),
            "bytes_each": None if one.bytes_each is None else round(one.bytes_each, 1),
            "yardstick_ms": [round(yardstick) for yardstick in one.yardsticks],
        }
        for one in figures
    ]


if __name__ == "__main__":
    sys.exit(main())
