"""Rounds of several collectors, one after the other, so that what the machine does meanwhile befalls all alike."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local.kafka import CHECKOUT, free_port
from tests.bench.broker import BenchKafka
from tests.bench.cases import Case, Load
from tests.bench.collectors import Collector
from tests.bench.results import Figures
from tests.bench.rounds import Refused, Round, run_round
from tests.bench.source import Source

RATES: Final = (1.0, 1.0, 1.0, 0.5, 0.25)
"""A round in which something was dropped is made again: the machine may have been busy. Only then it is made slower."""

Make = Callable[[str, Path], Collector]
"""Makes a collector, not started, with this prefix for its topics and this directory for its files."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A collector and what it is given."""

    make: Make
    load: Load


@dataclass(frozen=True, slots=True)
class Bench:
    """A broker, a sender, and a port between the sender and whoever is measured."""

    broker: BenchKafka
    source: Source
    port: int
    console: Console

    @classmethod
    @contextlib.contextmanager
    def started(cls, console: Console) -> Iterator[Bench]:
        """Start Kafka and the sender, and leave nothing of them behind, however it ends."""
        # By itself SIGTERM would end this process, and nothing of what it has started.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        port = free_port()
        source = Source(port)
        with BenchKafka.started() as broker:
            source.start()
            try:
                yield cls(broker, source, port, console)
            finally:
                source.close()

    def run(self, case: Case, subjects: Mapping[str, Subject], rounds: int) -> Figures:
        """Measure all subjects in each round, beginning with another one each time.

        What cannot be measured truly is left out with a remark.
        """
        figures = Figures(case.name, case.text)
        self._say(f"{case.name}: {case.text}")
        self.source.prepare(case, max(subject.load.datagrams for subject in subjects.values()))
        given = dict(subjects)
        names = list(subjects)
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name not in given:
                    continue
                try:
                    one = self._true_round(given[name])
                except Refused as refused:
                    # A pair of figures needs both; without one of them the others still stand.
                    del given[name]
                    figures.rounds.pop(name, None)
                    figures.remarks.append(f"{name} is left out: {refused}")
                    self._say(f"  {figures.remarks[-1]}")
                    continue
                figures.add(name, one)
                self.console.print(
                    f"  round {number + 1}: {name}: {one.flows_per_cpu_second:,.0f} flows per CPU-second"
                    f" (yardstick {one.yardstick_ms:.0f} ms)"
                )
        return figures

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _true_round(self, subject: Subject) -> Round:
        """A round in which nothing was dropped; slower where that is needed."""
        for number, share in enumerate(RATES, 1):
            load = replace(subject.load, rate=subject.load.rate * share)
            try:
                return self.round(subject.make, load)
            except Refused as refused:
                if number == len(RATES):
                    raise
                self._say(f"  refused at {load.rate:,.0f} datagrams a second, again: {refused}")
        raise AssertionError("the last attempt returns or raises")

    def round(self, make: Make, load: Load) -> Round:
        """One round with topics and a directory of its own; raises Refused."""
        prefix = self.broker.new_prefix()
        home = CHECKOUT / ".local"
        home.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bench-round-", dir=home) as directory:
            try:
                return run_round(make(prefix, Path(directory)), self.source, load, self.port, self.broker)
            finally:
                self.broker.delete(prefix)
