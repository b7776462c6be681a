"""A round: one collector, one case, CPU time before and after, and the proof that nothing was dropped."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from deploy.local.kafka import poll
from tests.bench import system
from tests.bench.broker import BenchKafka
from tests.bench.cases import Load
from tests.bench.collectors import Collector
from tests.bench.source import Source

READY_SECONDS: Final = 40.0
STALL_SECONDS: Final = 15.0
"""When nothing more is acknowledged for so long, what is missing will not come: a collector may flush every 5 s."""
SETTLE_SECONDS: Final = 1.0
POLL_SECONDS: Final = 1.0
"""A collector is asked this seldom, since its answer costs CPU time of what is measured."""
WARM_UP_RATE: Final = 2000.0


class Refused(Exception):
    """A round whose figure would not be true; the message says why."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured."""

    datagrams: int
    records: int
    rate: float
    """Datagrams a second, as they were sent."""
    cpu: system.Cpu
    """Of all processes of the collector, from before the first datagram to after the last acknowledgement."""
    parts: dict[str, system.Cpu]
    """The same by what the threads do; empty for a collector that is one process."""
    seconds: float
    bytes_per_record: float | None
    """On the broker's disk, the warm-up included."""

    @property
    def flows_per_cpu_second(self) -> float:
        """What it is all about."""
        return self.records / self.cpu.total


def run_round(collector: Collector, source: Source, load: Load, port: int, broker: BenchKafka) -> Round:
    """Start the collector, warm it up, send, wait for the acknowledgements, and stop it.

    Nothing is taken off for what the collector uses when it is idle. Raises Refused when a datagram was dropped, or
    when what is on the broker is not what was sent.
    """
    collector.start()
    try:
        if not poll(collector.is_ready, READY_SECONDS):
            raise Refused(f"{collector.name} did not get ready: {collector.program.last_words()}")
        warm = source.warm_up(WARM_UP_RATE)
        _wait(collector, warm.records)
        time.sleep(SETTLE_SECONDS)
        root = collector.program.pid
        pids = system.tree(root)
        before, parts_before = system.cpu(pids), system.cpu_by_part(pids, root)
        begin = time.monotonic()
        sent = source.send(load.datagrams, load.rate)
        reached = _wait(collector, warm.records + sent.records)
        seconds = time.monotonic() - begin
        used, parts_after = system.cpu(pids) - before, system.cpu_by_part(pids, root)
        if system.tree(collector.program.pid).keys() != pids.keys():
            raise Refused(f"a process of {collector.name} ended in the middle: {collector.program.last_words()}")
        dropped = system.kernel_drops(port)
        expected = warm.records + sent.records
        if dropped or reached != expected or (there := collector.on_broker()) != expected:
            there = reached if dropped or reached != expected else there
            raise Refused(f"{expected:,} records were sent, {there:,} arrived; the kernel dropped {dropped} datagrams")
        on_disk = broker.bytes_on_disk(collector.topic)
    finally:
        collector.stop()
    return Round(
        datagrams=sent.datagrams,
        records=sent.records,
        rate=sent.datagrams / sent.seconds,
        cpu=used,
        parts={name: now - parts_before.get(name, system.Cpu()) for name, now in parts_after.items()}
        if len(pids) > 1
        else {},
        seconds=seconds,
        bytes_per_record=None if on_disk is None else on_disk / expected,
    )


def _wait(collector: Collector, records: int) -> int:
    """Wait until so many records are acknowledged, or none come any more; how many are."""
    reached, since = -1, time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        now = collector.acknowledged()
        if now != reached:
            reached, since = now, time.monotonic()
        if reached >= records or time.monotonic() - since > STALL_SECONDS:
            return reached
