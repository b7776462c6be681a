"""Figures: what rounds add up to, as a table for a person and as a file that is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Table

from deploy.local.kafka import CHECKOUT
from tests.bench import system
from tests.bench.rounds import Round

FOLDER: Final = CHECKOUT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the middle and the greatest of some figures."""

    least: float
    middle: float
    greatest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of at least one figure."""
        return cls(min(figures), median(figures), max(figures))

    def text(self, form: str = ",.0f") -> str:
        """As a person reads it: the middle, and the others in brackets."""
        return f"{self.middle:{form}} ({self.least:{form}} to {self.greatest:{form}})"

    def rounded(self, digits: int) -> dict[str, float]:
        """As it is written to a file."""
        return {
            "min": round(self.least, digits),
            "median": round(self.middle, digits),
            "max": round(self.greatest, digits),
        }


@dataclass(slots=True)
class Figures:
    """The rounds of one case, by the collector's name; round i of each was made right after the others'."""

    case: str
    text: str
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    base: str | None = None
    """With whose cost the others' is compared."""
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, one: Round) -> None:
        """Take a round in."""
        self.rounds.setdefault(name, []).append(one)

    def ratios(self, to: str) -> dict[str, Spread]:
        """How many times more flows per CPU-second the others do than `to`, round by round."""
        base = self.rounds.get(to, [])
        return {
            name: Spread.of([one.flows_per_cpu_second / two.flows_per_cpu_second for one, two in pairs])
            for name, rounds in self.rounds.items()
            if name != to and (pairs := list(zip(rounds, base, strict=False)))
        }

    @property
    def costs(self) -> dict[str, Spread]:
        """How many times the CPU time of a flow of the base those of the others are, round by round."""
        if self.base is None:
            return {}
        base = self.rounds.get(self.base, [])
        return {
            name: Spread.of([two.flows_per_cpu_second / one.flows_per_cpu_second for one, two in pairs])
            for name, rounds in self.rounds.items()
            if name != self.base and (pairs := list(zip(rounds, base, strict=False)))
        }


def speed(rounds: Sequence[Round]) -> Spread:
    """Flows per CPU-second."""
    return Spread.of([one.flows_per_cpu_second for one in rounds])


def bytes_per_record(rounds: Sequence[Round]) -> float | None:
    """Bytes a record on the broker's disk, in the middle."""
    known = [one.bytes_per_record for one in rounds if one.bytes_per_record is not None]
    return median(known) if known else None


def table(all_figures: Sequence[Figures], peer: str) -> Table:
    """Everything as a table."""
    shown = Table(title="flows per CPU-second, socket to acknowledged Kafka: median (least to greatest)")
    for heading in ("case", "collector"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("rounds", "flows/CPU-s", f"times {peer}", "datagrams/s", "bytes/record", "yardstick ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for figures in all_figures:
        ratios = figures.ratios(peer)
        for name, rounds in figures.rounds.items():
            on_disk = bytes_per_record(rounds)
            shown.add_row(
                figures.case,
                name,
                str(len(rounds)),
                speed(rounds).text(),
                ratios[name].text(".1f") if name in ratios else "",
                f"{median(one.rate for one in rounds):,.0f}",
                "" if on_disk is None else f"{on_disk:.1f}",
                Spread.of([one.yardstick_ms for one in rounds]).text(),
            )
        shown.add_section()
    return shown


def parts_table(figures: Figures) -> Table:
    """Where the CPU time goes, by thread, of the collectors that have several processes."""
    shown = Table(title=f"CPU time of {figures.case}, nanoseconds a flow: user + system")
    shown.add_column("collector")
    shown.add_column("part")
    shown.add_column("user", justify="right")
    shown.add_column("system", justify="right")
    for name, rounds in figures.rounds.items():
        for part, cost in cost_by_part(rounds).items():
            shown.add_row(name, part, f"{cost['user']:.0f}", f"{cost['system']:.0f}")
    return shown


def cost_by_part(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Nanoseconds a flow, user and system, by part; of all rounds together."""
    flows = sum(one.records for one in rounds)
    parts: dict[str, system.Cpu] = {}
    for one in rounds:
        for part, used in one.parts.items():
            parts[part] = parts.get(part, system.Cpu()) + used
    return {
        part: {"user": round(used.user / flows * 1e9, 1), "system": round(used.system / flows * 1e9, 1)}
        for part, used in parts.items()
    }


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Write a result file, named by today's date; one of the same name and day is replaced."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{system.today()}-{name}.json"
    whole = {
        "date": system.today(),
        "machine": system.machine(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": system.versions(),
        **content,
    }
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return path


def as_json(figures: Figures, peer: str) -> dict[str, Any]:
    """One case as it is written to a file."""
    return {
        "case": figures.case,
        "sent": figures.text,
        "collectors": [
            {
                "name": name,
                "flows_per_cpu_second": speed(rounds).rounded(0),
                "bytes_per_record": None if (size := bytes_per_record(rounds)) is None else round(size, 2),
                "rounds": [
                    {
                        "datagrams": one.datagrams,
                        "flows": one.records,
                        "datagrams_per_second": round(one.rate),
                        "cpu_seconds": {"user": round(one.cpu.user, 2), "system": round(one.cpu.system, 2)},
                        "flows_per_cpu_second": round(one.flows_per_cpu_second),
                        "yardstick_ms": round(one.yardstick_ms),
                        "seconds_to_last_acknowledgement": round(one.seconds, 2),
                    }
                    for one in rounds
                ],
                "nanoseconds_per_flow": cost_by_part(rounds),
            }
            for name, rounds in figures.rounds.items()
        ],
        f"times_{peer}": {name: ratio.rounded(1) for name, ratio in figures.ratios(peer).items()},
        "times_the_cost": {name: cost.rounded(3) for name, cost in figures.costs.items()},
        "remarks": figures.remarks,
    }
