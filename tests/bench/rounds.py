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
WARM_UP_RATE: Final = 2000.0
POLL_SECONDS: Final = 0.25
WAIT_SECONDS: Final = 120.0
PATIENCE_SECONDS: Final = 20.0
CALM_SHARE: Final = 0.04
CALM_SECONDS: Final = 2.0
CALM_WITHIN_SECONDS: Final = 40.0
"""A collector is calm when it uses less than such a share of a CPU for so long; it is not waited for any longer."""


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
    """Of all processes of the collector, from before the first datagram to a little after the last message is there."""
    parts: dict[str, system.Cpu]
    """The same by what the threads do; empty for a collector that is one process."""
    seconds: float
    bytes_per_record: float | None
    """On the broker's disk, the warm-up included."""
    broker_cpu: system.Cpu
    """Of the broker meanwhile."""
    yardstick_ms: float
    """CPU time of a fixed piece of work, just before and just after: how fast the machine was."""
    reading_seconds: float
    """CPU time that reading every message once took this process, decompression included."""

    @property
    def flows_per_cpu_second(self) -> float:
        """What it is all about."""
        return self.records / self.cpu.total


def run_round(collector: Collector, source: Source, load: Load, port: int, broker: BenchKafka) -> Round:
    """Start the collector, warm it up, send, wait until the broker has everything, and stop it.

    The collector is asked nothing while it is measured, and nothing is taken off for what it uses when it is idle.
    Raises Refused when a datagram was dropped, or when what is on the broker is not what was sent.
    """
    collector.start()
    try:
        if not poll(collector.is_ready, READY_SECONDS):
            raise Refused(f"{collector.name} did not get ready: {collector.program.last_words()}")
        warm = source.warm_up(WARM_UP_RATE, load.traffic)
        root = collector.program.pid
        _, there, _ = _arrived(collector, broker, root, warm.records)
        if there != warm.records:
            raise Refused(f"{warm.records:,} records were sent to begin with, {there:,} arrived")
        _until_calm(root)
        yardstick = system.yardstick()
        before, broker_before = Usage.of(root), broker.cpu()
        sent = source.send(load.datagrams, load.rate, load.traffic)
        expected = warm.records + sent.records
        after, there, reading = _arrived(collector, broker, root, expected)
        broker_cpu = broker.cpu() - broker_before
        yardstick += system.yardstick()
        if after.pids.keys() != before.pids.keys():
            raise Refused(f"a process of {collector.name} ended in the middle: {collector.program.last_words()}")
        dropped = system.kernel_drops(port)
        if dropped or there != expected:
            raise Refused(f"{expected:,} records were sent, {there:,} arrived; the kernel dropped {dropped} datagrams")
        on_disk = broker.bytes_on_disk(collector.topic)
    finally:
        collector.stop()
    return Round(
        datagrams=sent.datagrams,
        records=sent.records,
        rate=sent.datagrams / sent.seconds,
        cpu=after.cpu - before.cpu,
        parts={name: now - before.parts.get(name, system.Cpu()) for name, now in after.parts.items()},
        seconds=after.seconds - before.seconds,
        bytes_per_record=None if on_disk is None else on_disk / expected,
        broker_cpu=broker_cpu,
        yardstick_ms=yardstick / 2,
        reading_seconds=reading * sent.records / expected,
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used by a moment."""

    seconds: float
    pids: dict[int, str]
    cpu: system.Cpu
    parts: dict[str, system.Cpu]

    @classmethod
    def of(cls, root: int) -> Usage:
        """What it is now."""
        pids = system.tree(root)
        parts = system.cpu_by_part(pids, root) if len(pids) > 1 else {}
        return cls(time.monotonic(), pids, system.cpu(pids), parts)


def _arrived(collector: Collector, broker: BenchKafka, root: int, records: int) -> tuple[Usage, int, float]:
    """Wait until so many records have come; what was used by then, how many came, and the CPU time of reading them.

    On a busy machine a collector may be quiet for a while and go on afterwards, so one silence is no proof.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        usage = until_quiet(collector, broker, root, records)
        begin = time.process_time()
        there = collector.records()
        if there >= records or time.monotonic() > deadline:
            return usage, there, time.process_time() - begin


def _until_calm(root: int) -> None:
    """Wait until nothing is left to do of the warm-up: what exporters told of themselves is passed on after records."""
    deadline = time.monotonic() + CALM_WITHIN_SECONDS
    used = Usage.of(root).cpu.total
    while time.monotonic() < deadline:
        time.sleep(CALM_SECONDS)
        before, used = used, Usage.of(root).cpu.total
        if used - before < CALM_SHARE * CALM_SECONDS:
            return


def until_quiet(collector: Collector, broker: BenchKafka, root: int, records: int) -> Usage:
    """Wait until everything has come, or no message for longer than a collector keeps one.

    Returns what was used shortly after the last message came. The broker is asked, since to ask the collector would
    cost it CPU time.
    """
    messages, since = -1, time.monotonic()
    usage: Usage | None = None
    deadline = since + WAIT_SECONDS
    while usage is None or time.monotonic() - since < collector.quiet_seconds:
        if time.monotonic() > deadline:
            raise Refused(f"{collector.name} has not delivered everything after {WAIT_SECONDS:.0f} seconds")
        time.sleep(POLL_SECONDS)
        now = broker.messages(collector.topic)
        if now != messages:
            messages, since, usage = now, time.monotonic(), None
        elif usage is None:
            # The second look that finds nothing new: acknowledgements of the last messages have been heard by now.
            usage = Usage.of(root)
            if collector.message_is_record and messages >= records:
                break
    return usage
