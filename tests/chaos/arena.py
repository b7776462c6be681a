"""What runs: a broker, ingest, two forwarders of one lake, and traffic of known content.

The lake and the spool are on a disk of their own, and the broker and the others each have a clock of their own, where
this machine lets us.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from deploy.local.kafka import LocalKafka, free_port
from shared.config import KafkaConfig
from tests.chaos.clocks import Clock, built
from tests.chaos.disk import Disk
from tests.chaos.schedule import Blow, Fault
from tests.integration.programs import Ingest, Program, Programs, Stage
from tests.integration.topic import RecordsTopic

PREFIX = "chaos."
PARTITIONS = 4
FORWARDERS = 2
CUTS = ((700, 4000), (300, 4000), (700, 900), (1500, 20000))
"""Intervals in milliseconds and records of the batches that forwarders may be started with."""
BROKER_STEPS = (-40.0, 40.0, -5.0, 5.0)
"""By how many seconds the broker's clock may be off, which is within what the forwarder bears of it."""
STEPS = (-30.0, 30.0, -5.0, 5.0)
"""Small: librdkafka waits by the time of day, and a step back holds what it has just begun to wait for as long."""
SYNC_SECONDS = (0.1, 0.3, 1.0, 3.0)
"""How much longer it may take to sync a file."""
END_SECONDS = 120.0
SETTLE_SECONDS = 240.0
"""How long everything may take to arrive after the last fault; far more than it takes."""


class Arena:
    """Started once, and hit in every round; what a fault has stopped is running again at the end of the round."""

    def __init__(self, directory: Path, protocol: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.left_out: dict[Fault, str] = {}
        """Faults that this machine does not let us do, and why."""
        self.unanswered = 0
        """Times that ingest did not say in time whether it is ready, and was asked again."""
        library = built(directory)
        self._clocks = (
            [] if library is None else [Clock(library, directory / f"{name}.clock") for name in ("broker", "programs")]
        )
        if library is None:
            self.left_out |= dict.fromkeys(
                (Fault.STEP_BROKER, Fault.STEP_PROGRAMS, Fault.SLOW_DISK), "there is no C compiler"
            )
        self._place = directory / "disk"
        self._place.mkdir()
        self._disk = Disk.mounted(self._place)
        if self._disk is None:
            self.left_out[Fault.FULL_DISK] = "no disk may be mounted here"
        self.lake = self._place / "lake"
        broker, programs = (clock.environment for clock in self._clocks) if self._clocks else ({}, {})
        self.broker = LocalKafka(directory / "kafka", variables=broker, say=lambda _: None)
        self.kafka: KafkaConfig
        self._programs = Programs(directory / "programs", programs)
        self._classic = protocol == "classic"
        self._port = 0
        self._cuts = [0] * FORWARDERS
        self._forwarders: list[Stage] = []
        self._ingest: Ingest | None = None

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self.kafka = KafkaConfig(
                bootstrap_servers=self.broker.bootstrap_servers, topic_prefix=PREFIX, partitions=PARTITIONS
            )
            self._port = free_port()
            self._start_ingest()
            self._forwarders = [self._forwarder(0) for _ in range(FORWARDERS)]
            self.ingest.until_ready()
            for forwarder in self._forwarders:
                forwarder.until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.redirect_stdout(None):
            self._programs.__exit__()
        self.broker.kill()
        if self._disk is not None:
            self._disk.close()

    def keep_lake(self) -> None:
        """Copy the lake to where it outlives its disk."""
        if self._disk is not None:
            shutil.copytree(self.lake, self.directory / "lake")

    # --- traffic

    def send(self, seed: int, rate: int, seconds: float) -> Program:
        """Start sending traffic of all protocols; ends by itself."""
        return self._programs.run(
            "ingest",
            "generate",
            "--to",
            f"127.0.0.1:{self._port}",
            "--seed",
            str(seed),
            "--rate",
            str(rate),
            "--exporters",
            "40",
            "--duration",
            str(seconds),
        )

    # --- faults

    def strike(self, blows: Sequence[Blow], seconds: float) -> None:
        """Do everything that a round has in store, and undo it; returns when all is undone and ``seconds`` are over."""
        began = time.monotonic()
        open_ = [(blow.at, self._fault(blow)) for blow in blows]
        while open_:
            at, steps = min(open_, key=lambda one: one[0])
            open_.remove((at, steps))
            time.sleep(max(0.0, began + at - time.monotonic()))
            pause = next(steps, None)
            if pause is not None:
                open_.append((time.monotonic() - began + pause, steps))
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def _fault(self, blow: Blow) -> Iterator[float]:
        """The steps of a fault: each yields how long to wait before the next."""
        match blow.fault:
            case Fault.KILL_WORKER:
                steps = self._signal_worker(blow, signal.SIGKILL)
            case Fault.STOP_WORKER:
                steps = self._signal_worker(blow, signal.SIGSTOP)
            case Fault.KILL_INGEST | Fault.RESTART_INGEST:
                steps = self._end_ingest(blow)
            case Fault.KILL_BROKER | Fault.STOP_BROKER:
                steps = self._hit_broker(blow)
            case Fault.LAKE_AWAY:
                steps = self._without_lake(blow)
            case Fault.SLOW_DISK:
                steps = self._slow(blow, SYNC_SECONDS[blow.which])
            case Fault.FULL_DISK:
                steps = self._without_room(blow)
            case Fault.STEP_BROKER:
                steps = self._step(blow, 0, BROKER_STEPS[blow.which])
            case Fault.STEP_PROGRAMS:
                steps = self._step(blow, 1, STEPS[blow.which])
            case _:
                steps = self._hit_forwarder(blow, blow.which % FORWARDERS)
        return steps

    def _end_ingest(self, blow: Blow) -> Iterator[float]:
        hit = self.ingest
        if blow.fault is Fault.KILL_INGEST:
            hit.kill()
        else:
            hit.send_signal(signal.SIGTERM)
        yield blow.lasts
        yield from _ended(hit)
        if hit is self.ingest:
            self._start_ingest()

    def _hit_forwarder(self, blow: Blow, at: int) -> Iterator[float]:
        if blow.fault is Fault.JOIN_FORWARDER:
            joined = self._forwarder(0)
            yield blow.lasts + 2.0
            joined.send_signal(signal.SIGTERM)
            yield from _ended(joined)
            return
        hit = self._forwarders[at]
        if blow.fault is Fault.STOP_FORWARDER:
            hit.send_signal(signal.SIGSTOP)
            yield blow.lasts
            hit.send_signal(signal.SIGCONT)
            return
        if blow.fault is Fault.RESTART_FORWARDER:
            hit.send_signal(signal.SIGTERM)
        else:
            hit.kill()
        yield blow.lasts
        yield from _ended(hit)
        if blow.fault is Fault.CHANGE_FORWARDER:
            self._cuts[at] = (self._cuts[at] + 1 + blow.which) % len(CUTS)
        self._renew(at)

    def _hit_broker(self, blow: Blow) -> Iterator[float]:
        pid = self.broker.pid
        if blow.fault is Fault.KILL_BROKER:
            self.broker.kill()
            yield blow.lasts
            self.broker.start()
        elif pid is not None:
            os.kill(pid, signal.SIGSTOP)
            yield blow.lasts
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _signal_worker(self, blow: Blow, number: signal.Signals) -> Iterator[float]:
        said = {line["worker"]: line["pid"] for line in self.ingest.events("a worker receives")}
        if not said:
            return
        pid = sorted(said.values())[blow.which % len(said)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        yield blow.lasts
        if number is signal.SIGSTOP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _without_lake(self, blow: Blow) -> Iterator[float]:
        away = self.lake.with_name("lake-away")
        if away.exists() or not self.lake.is_dir():
            return
        self.lake.rename(away)
        # A file where the lake was; empty, since the disk may be full.
        self.lake.touch()
        yield blow.lasts
        self.lake.unlink()
        away.rename(self.lake)

    def _without_room(self, blow: Blow) -> Iterator[float]:
        if self._disk is not None:
            self._disk.fill()
            yield blow.lasts
            self._disk.free()

    def _step(self, blow: Blow, at: int, seconds: float) -> Iterator[float]:
        if self._clocks:
            self._clocks[at].step(seconds)
            yield blow.lasts
            self._clocks[at].step(0.0)

    def _slow(self, blow: Blow, seconds: float) -> Iterator[float]:
        if self._clocks:
            self._clocks[1].slow(seconds)
            yield blow.lasts
            self._clocks[1].slow(0.0)

    # --- programs

    @property
    def ingest(self) -> Ingest:
        """Stage one, as it was started last."""
        if self._ingest is None:
            raise RuntimeError("the arena is not open")
        return self._ingest

    def _start_ingest(self) -> None:
        if self._ingest is not None:
            # Two faults may have met.
            self._ingest.kill()
        settings = {
            "ingest": {
                "listen": [f"udp://127.0.0.1:{self._port}"],
                "spool": {"directory": str(self._place / "spool")},
                "receive_buffer_bytes": 4 << 20,
            },
            "kafka": {"partitions": PARTITIONS},
        }
        self._ingest = self._programs.ingest(self.broker.bootstrap_servers, PREFIX, settings)

    def _renew(self, at: int) -> None:
        self._forwarders[at].kill()
        self._forwarders[at] = self._forwarder(self._cuts[at])

    def _forwarder(self, cut: int) -> Stage:
        interval_ms, max_records = CUTS[cut]
        properties = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
        settings: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": self.broker.bootstrap_servers,
                "topic_prefix": PREFIX,
                "partitions": PARTITIONS,
                "properties": properties if self._classic else {"group.protocol": "consumer"},
            },
            "forwarder": {
                "sinks": json.dumps({"lake": {"type": "parquet", "path": str(self.lake)}}),
                "batch": {"interval_ms": interval_ms, "max_records": max_records},
            },
        }
        return self._programs.forwarder(settings)

    # --- the end of a round

    def settle(self) -> None:
        """Wait until all that ingest has is in Kafka, and all that Kafka has is in the lake and committed.

        What refused to start while its disk or its lake was not there is started again, as an operator's system would.
        """
        if self.ingest.status is not None:
            self._start_ingest()
        self.ingest.until(self._ready, "ready", SETTLE_SECONDS)
        self.ingest.until(self._is_empty, "all in Kafka", SETTLE_SECONDS)
        # What a forwarder thinks of the end of the log may be some seconds old.
        ends = RecordsTopic(self.broker.bootstrap_servers, PREFIX).ends()
        self._forwarders[0].until(lambda: self._committed(ends), "all committed", SETTLE_SECONDS)

    def _ready(self) -> bool:
        try:
            return self.ingest.get("/readyz").status_code == httpx.codes.OK
        except httpx.TimeoutException:
            self.unanswered += 1
            return False

    def _is_empty(self) -> bool:
        try:
            return self.ingest.balance().in_flight == 0
        except httpx.TimeoutException:
            self.unanswered += 1
            return False

    def _started(self) -> bool:
        for at, forwarder in enumerate(self._forwarders):
            if forwarder.status is not None:
                self._renew(at)
        return all(forwarder.events("started") for forwarder in self._forwarders)

    def _committed(self, ends: Mapping[int, int]) -> bool:
        if not self._started():
            return False
        partitions: list[dict[str, Any]] = []
        for forwarder in self._forwarders:
            # A busy one may not answer in time; it is asked again.
            with contextlib.suppress(httpx.HTTPError):
                partitions += forwarder.json("/api/v1/partitions")
        here = {one["partition"] for one in partitions}
        # The heartbeats that an idle log ends with are read, and never of a batch.
        return here == set(ends) and all(
            one["position"] >= ends[one["partition"]]
            and one["lag_messages"] == 0
            and one["committed"] == one["delivered"]
            for one in partitions
        )

    def books(self) -> dict[str, Any]:
        """What ingest tells of what it received since it was started last."""
        return self.ingest.ledger()


def _ended(program: Program) -> Iterator[float]:
    """Wait for the end of a program, and let other faults go on meanwhile: one of them may hold it up, and be undone."""
    deadline = time.monotonic() + END_SECONDS
    while program.status is None:
        assert time.monotonic() < deadline, f"after {END_SECONDS:g} s: not ended\n{program.last_words()}"
        yield 0.2
