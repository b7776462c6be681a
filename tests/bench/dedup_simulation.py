"""`python -m tests.bench.dedup_simulation`: what each rule against double counting makes of known traffic.

Flows go through exporters in a row. Each exporter samples packets or does not, keeps flows in a cache with an active and
an idle timeout, and exports records. The rules judge the records of all exporters together, in the order in which they
come; what they leave is compared with the bytes that were sent. Lease and observation point are the program's own code.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from forwarder.dedup.lease import LeaseDedup, LeaseRule
from forwarder.dedup.observation import ObservationPoint, ObservationRule
from shared.record import ADDRESS, NAME

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

HOURS: Final = 6.0
"""Flows begin within this time; all of them are seen to their end."""
IDLE_SECONDS: Final = 15.0
SCAN_SECONDS: Final = 5.0
"""An exporter looks through its cache so often, and notes only then that a flow's time is over."""
PACKET_BYTES: Final = 800
WINDOW_SECONDS: Final = 600.0
"""Of the rule that keeps the first record of a flow in a window."""

KINDS: Final = ((0.90, 8.0, 20.0), (0.09, 120.0, 200.0), (0.01, 4000.0, 400.0))
"""Kinds of flows: their share, the median of their seconds, and the median of their packets a second."""
SHORT_SECONDS: Final = 60.0
BATCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Exporter:
    """One on the path: packets sampled 1 of how many, its active timeout, and whether it stands at the border.

    ``sees_until`` is the part of each flow after which it goes another way, past this exporter.
    """

    sampling: int = 1
    active_seconds: float = 60.0
    border: bool = False
    sees_until: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Exporters along the path of all flows."""

    name: str
    exporters: tuple[Exporter, ...]

    @property
    def lease_seconds(self) -> float:
        """Twice the longest active timeout."""
        return 2 * max(one.active_seconds for one in self.exporters)


def _alike(sampling: int, active_seconds: float) -> tuple[Exporter, ...]:
    return (
        Exporter(sampling, active_seconds, border=True),
        Exporter(sampling, active_seconds),
        Exporter(sampling, active_seconds),
    )


SCENARIOS: Final = (
    Scenario("unsampled, active timeout 60 s", _alike(1, 60)),
    Scenario("unsampled, active timeout 1800 s", _alike(1, 1800)),
    Scenario("unsampled, 60 s, 300 s, 1800 s", (Exporter(1, 60, border=True), Exporter(1, 300), Exporter(1, 1800))),
    Scenario("unsampled, 1800 s, 300 s, 60 s", (Exporter(1, 1800, border=True), Exporter(1, 300), Exporter(1, 60))),
    Scenario(
        "unsampled, 60 s, flows leave exporter 2 half-way",
        (Exporter(1, 60, border=True), Exporter(1, 60, sees_until=0.5), Exporter(1, 60)),
    ),
    Scenario("sampled 1:1000, 60 s", _alike(1000, 60)),
    Scenario("sampled 1:10000, 60 s", _alike(10000, 60)),
    Scenario("1:1000 at the border, unsampled inside, 60 s", (Exporter(1000, border=True), Exporter(), Exporter())),
)


@dataclass(frozen=True, slots=True)
class Flows:
    """Columns of equal length: when each flow begins, in seconds, how long it lasts, and its packets."""

    begin: Floats
    seconds: Floats
    packets: Ints

    @classmethod
    def random(cls, count: int, random: np.random.Generator) -> Flows:
        """Many short flows, and few long ones that have most of the bytes."""
        share, seconds, rate = np.array(KINDS).T
        kind = random.choice(len(KINDS), count, p=share)
        lasting = seconds[kind] * random.lognormal(0, 0.7, count)
        packets = np.maximum(1, lasting * rate[kind] * random.lognormal(0, 1.0, count)).astype(np.int64)
        return cls(random.uniform(0, HOURS * 3600, count), lasting, packets)

    @property
    def bytes(self) -> Ints:
        """What was sent."""
        return self.packets * PACKET_BYTES


@dataclass(frozen=True, slots=True)
class Records:
    """Columns of equal length: which flow and exporter, when the record came, in seconds, and its packets."""

    flow: Ints
    exporter: Ints
    came: Floats
    packets: Ints

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """All of them, in the order in which they came."""
        order = np.argsort(np.concatenate([one.came for one in parts]), kind="stable")
        return cls(
            np.concatenate([one.flow for one in parts])[order],
            np.concatenate([one.exporter for one in parts])[order],
            np.concatenate([one.came for one in parts])[order],
            np.concatenate([one.packets for one in parts])[order],
        )


def export(flows: Flows, exporter: Exporter, number: int, random: np.random.Generator) -> Records:
    """The records that one exporter makes of the flows."""
    flow, opened, last, packets = (
        _cached(flows, exporter) if exporter.sampling == 1 else _sampled(flows, exporter, random)
    )
    over = np.minimum(opened + exporter.active_seconds, last + IDLE_SECONDS)
    return Records(flow, np.full(len(flow), number), over + random.uniform(0, SCAN_SECONDS, len(over)), packets)


def _cached(flows: Flows, exporter: Exporter) -> tuple[Ints, Floats, Floats, Ints]:
    """Of each record without sampling: its flow, when it was opened, its last packet, and its packets.

    Packets are spread evenly over a flow. A new record is opened whenever the active timeout is over.
    """
    seconds = flows.seconds * exporter.sees_until
    parts = np.maximum(1, np.ceil(seconds / exporter.active_seconds)).astype(np.int64)
    flow = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(len(flow)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = part * exporter.active_seconds
    end = np.minimum(begin + exporter.active_seconds, seconds[flow])
    seen, whole = flows.packets[flow], flows.seconds[flow]
    packets = np.ceil(seen * (end / whole)).astype(np.int64) - np.ceil(seen * (begin / whole)).astype(np.int64)
    some = packets > 0
    return flow[some], (flows.begin[flow] + begin)[some], (flows.begin[flow] + end)[some], packets[some]


def _sampled(flows: Flows, exporter: Exporter, random: np.random.Generator) -> tuple[Ints, Floats, Floats, Ints]:
    """The same of an exporter that takes each packet with the same chance, on its own.

    A record is opened by a packet after the idle timeout, and whenever the active timeout is over from there on.
    """
    taken = random.binomial(np.ceil(flows.packets * exporter.sees_until).astype(np.int64), 1 / exporter.sampling)
    flow = np.repeat(np.arange(len(taken)), taken)
    at = flows.begin[flow] + flows.seconds[flow] * exporter.sees_until * random.uniform(0, 1, len(flow))
    order = np.lexsort((at, flow))
    flow, at = flow[order], at[order]
    opens = np.ones(len(flow), np.bool_)
    opens[1:] = (np.diff(flow) > 0) | (np.diff(at) > IDLE_SECONDS)
    opened = at[np.flatnonzero(opens)][np.cumsum(opens) - 1]
    part = np.floor((at - opened) / exporter.active_seconds)
    begins = opens.copy()
    begins[1:] |= np.diff(part) > 0
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(flow)) - 1
    return flow[first], (opened + part * exporter.active_seconds)[first], at[last], last - first + 1


def first_in_window(records: Records) -> Mask:
    """Which records are duplicates by the obvious rule: all of a flow but the first one in a window."""
    order = np.lexsort((records.came, records.flow))
    duplicate = np.zeros(len(order), np.bool_)
    flow, since = -1, 0.0
    for at, one, came in zip(order.tolist(), records.flow[order].tolist(), records.came[order].tolist(), strict=True):
        if one == flow and came < since + WINDOW_SECONDS:
            duplicate[at] = True
        else:
            flow, since = one, came
    return duplicate


def by_lease(table: pa.Table, came: Floats, lease_seconds: float) -> Mask:
    """Which records are duplicates by lease; messages come every few seconds. Of a sampling exporter none ever is."""
    dedup = LeaseDedup(LeaseRule(int(lease_seconds * 1000), 2 * table.num_rows), "simulation")
    message = np.floor(came / BATCH_SECONDS).astype(np.int64)
    numbers, rows = np.unique(message, return_counts=True)
    runs = list(zip((numbers * BATCH_SECONDS * 1000).astype(np.int64).tolist(), rows.tolist(), strict=True))
    return np.asarray(dedup.apply(table, runs)[0])


def by_observation_point(table: pa.Table) -> Mask:
    """Which records are duplicates by the observation point."""
    return np.asarray(ObservationPoint(ObservationRule()).judge(table).duplicate)


def as_table(records: Records, exporters: Sequence[Exporter], *, tell_sampling: bool) -> pa.Table:
    """The records as the forwarder has them. Every second flow comes in, the others go out."""
    count, comes_in = len(records.flow), records.flow % 2 == 0
    border = np.array([one.border for one in exporters])[records.exporter]
    sampling = np.array([one.sampling for one in exporters])[records.exporter]
    address = np.zeros((count, 16), np.uint8)
    address[:, 10:12] = 0xFF
    address[:, 12:] = records.flow.astype(">u4").view(np.uint8).reshape(-1, 4)
    exporter = np.zeros((count, 16), np.uint8)
    exporter[:, 15] = records.exporter
    classes = pa.array(["internal", "external"])
    return pa.table(
        {
            "sampler_address": _addresses(exporter),
            "src_addr": _addresses(address),
            "dst_addr": pa.array([ipaddress.ip_address("2001:db8::1").packed] * count, ADDRESS),
            "sampling_rate": pa.array(sampling if tell_sampling else np.ones(count), pa.uint32()),
            "in_if_boundary": pa.DictionaryArray.from_arrays((border & comes_in).astype(np.int32), classes).cast(NAME),
            "out_if_boundary": pa.DictionaryArray.from_arrays((border & ~comes_in).astype(np.int32), classes).cast(
                NAME
            ),
        }
    )


def _addresses(octets: npt.NDArray[np.uint8]) -> pa.Array:
    return pa.Array.from_buffers(ADDRESS, len(octets), [None, pa.py_buffer(octets.tobytes())])


NONE: Final = "none"
FIRST: Final = "first in a window"
LEASE: Final = "lease"
UNTOLD: Final = "lease, sampling not told"
POINT: Final = "observation point"
RULES: Final = (NONE, FIRST, LEASE, UNTOLD, POINT)


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes that a rule counts, for each byte that was sent: of all flows, and of the short ones."""

    all: float
    short: float


def simulate(scenario: Scenario, count: int, seed: int) -> dict[str, Counted]:
    """What each rule makes of so many flows; sampled packets count for as many as they stand for."""
    random = np.random.default_rng(seed)
    flows = Flows.random(count, random)
    records = Records.joined([export(flows, one, at, random) for at, one in enumerate(scenario.exporters)])
    sampling = np.array([one.sampling for one in scenario.exporters])[records.exporter]
    estimate = records.packets * PACKET_BYTES * sampling
    told = as_table(records, scenario.exporters, tell_sampling=True)
    untold = as_table(records, scenario.exporters, tell_sampling=False)
    duplicate = {
        NONE: np.zeros(len(estimate), np.bool_),
        FIRST: first_in_window(records),
        LEASE: by_lease(told, records.came, scenario.lease_seconds),
        UNTOLD: by_lease(untold, records.came, scenario.lease_seconds),
        POINT: by_observation_point(told),
    }
    short = flows.seconds < SHORT_SECONDS
    return {
        rule: Counted(
            float(estimate[~marked].sum() / flows.bytes.sum()),
            float(estimate[~marked & short[records.flow]].sum() / flows.bytes[short].sum()),
        )
        for rule, marked in duplicate.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dedup_simulation", description=__doc__)
    parser.add_argument("--flows", type=int, default=30_000, metavar="N", help="flows in a run (default: 30000)")
    parser.add_argument("--runs", type=int, default=4, metavar="N", help="runs of each scenario (default: 4)")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    shown = Table(title=f"bytes counted / bytes sent: all flows, and those under {SHORT_SECONDS:.0f} s")
    shown.add_column("three exporters in a row")
    for rule in RULES:
        shown.add_column(rule, justify="right")
    for scenario in SCENARIOS:
        runs = [simulate(scenario, arguments.flows, seed) for seed in range(arguments.runs)]
        shown.add_row(scenario.name, *(_cell([run[rule] for run in runs]) for rule in RULES))
    console.print(shown)
    console.print(
        f"{arguments.runs} runs of {arguments.flows:,} flows each, means; leases are twice the longest active timeout,"
        f" the window is {WINDOW_SECONDS:.0f} s"
    )
    return 0


def _cell(runs: Sequence[Counted]) -> str:
    return f"{np.mean([one.all for one in runs]):.3f}  {np.mean([one.short for one in runs]):.3f}"


if __name__ == "__main__":
    sys.exit(main())
