"""`python -m tests.bench.outage`: what happens while a backend, and then Kafka, is away for minutes at a steady load.

Both stages run, with a spool. Their memory is looked at each second; then how fast each catches up while the load goes
on. At the end everything that was sent is in Kafka, in the order in which it came, and in the lake, once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from deploy.local.kafka import CHECKOUT, KafkaUnavailable, LocalKafka, free_port
from shared.config import KafkaConfig
from tests.bench import results, system
from tests.bench.warm import resident_bytes
from tests.chaos.verdict import Judge
from tests.integration.programs import Ingest, Program, Programs, Stage
from tests.integration.topic import RecordsTopic, records

PREFIX: Final = "outage."
PARTITIONS: Final = 12
FEW_MESSAGES: Final = 15
"""Of a partition, so many wait at any time: for the end of their interval."""
LOOK_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 600.0


@dataclass(slots=True)
class Looks:
    """What was seen in one stretch of time: each second one entry."""

    name: str
    ingest_bytes: list[int] = field(default_factory=list)
    forwarder_bytes: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)
    spooled: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """As it is written down: of memory the median of the first and of the last quarter, and the most."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "ingest_mib": _course(self.ingest_bytes),
            "forwarder_mib": _course(self.forwarder_bytes),
            "most_lag_messages": max(self.lag, default=0),
            "most_spooled_records": max(self.spooled, default=0),
        }


def _course(values: Sequence[int]) -> list[int]:
    quarter = max(1, len(values) // 4)
    return [round(one / 2**20) for one in (median(values[:quarter]), median(values[-quarter:]), max(values))]


class Outage:
    """What runs, and what is done to it."""

    def __init__(self, directory: Path, rate: int, seconds: float) -> None:
        self._directory = directory
        self._rate = rate
        self._seconds = seconds
        self.lake = directory / "lake"
        self.broker = LocalKafka(directory / "kafka", say=lambda _: None)
        self._programs = Programs(directory / "programs")
        self._port = free_port()
        self.looks: list[Looks] = []
        self._ingest: Ingest
        self._forwarder: Stage

    def run(self) -> dict[str, Any]:
        """Everything; returns the figures."""
        self.broker.start()
        try:
            self._start()
            traffic = self._send()
            self._look("before", self._seconds / 2)
            away = self.lake.with_name("lake-away")
            self.lake.rename(away)
            self.lake.touch()
            self._look("the lake is away", self._seconds)
            self.lake.unlink()
            away.rename(self.lake)
            backend = self._until("the lake is back", self._caught_up)
            self.broker.kill()
            self._look("Kafka is away", self._seconds)
            self.broker.start()
            kafka = self._until("Kafka is back", lambda: self._spooled() == 0)
            self._until("after", self._caught_up)
            traffic.stop()
            sent = sum(json.loads(traffic.output)["records"].values())
            self._ingest.until(lambda: self._ingest.balance().in_flight == 0, "all in Kafka", WAIT_SECONDS)
            self._forwarder.until(self._committed, "all committed", WAIT_SECONDS)
            return {
                "datagrams_per_second": self._rate,
                "sent": sent,
                "backend": backend,
                "kafka": kafka,
                "stretches": [one.summary() for one in self.looks],
                **self._judge(sent),
            }
        finally:
            self._programs.__exit__()
            self.broker.kill()

    def _start(self) -> None:
        kafka = KafkaConfig(bootstrap_servers=self.broker.bootstrap_servers, topic_prefix=PREFIX, partitions=PARTITIONS)
        ingest = {
            "listen": [f"udp://127.0.0.1:{self._port}"],
            "workers": 1,
            "batch": {"max_age_ms": 200},
            "message": {"max_age_ms": 1000},
            "spool": {"directory": str(self._directory / "spool")},
        }
        settings = {"ingest": ingest, "kafka": {"partitions": PARTITIONS}}
        self._ingest = self._programs.ingest(kafka.bootstrap_servers, PREFIX, settings).until_ready()
        sinks = {"lake": {"type": "parquet", "path": str(self.lake)}}
        self._forwarder = self._programs.forwarder(
            {
                "kafka": {
                    "bootstrap_servers": kafka.bootstrap_servers,
                    "topic_prefix": PREFIX,
                    "partitions": PARTITIONS,
                },
                "forwarder": {"sinks": json.dumps(sinks)},
            }
        ).until_ready()

    def _send(self) -> Program:
        return self._programs.run(
            "ingest", "generate", "--to", f"127.0.0.1:{self._port}", "--protocol", "v9", "--rate", str(self._rate)
        )  # fmt: skip

    # --- what is seen

    def _look(self, name: str, seconds: float) -> None:
        begun = time.monotonic()
        self._until(name, lambda: time.monotonic() - begun >= seconds)

    def _until(self, name: str, done: Callable[[], bool]) -> dict[str, Any]:
        """Look each second until something is so; returns how long that took, and how many records arrived meanwhile."""
        looks = Looks(name)
        self.looks.append(looks)
        begun, delivered, produced = time.monotonic(), self._delivered(), self._produced()
        while True:
            looks.ingest_bytes.append(_memory(self._ingest))
            looks.forwarder_bytes.append(_memory(self._forwarder))
            looks.lag.append(self._lag())
            looks.spooled.append(self._spooled())
            looks.seconds = time.monotonic() - begun
            if done():
                return {
                    "seconds": round(looks.seconds, 1),
                    "delivered_per_second": round((self._delivered() - delivered) / looks.seconds),
                    "produced_per_second": round((self._produced() - produced) / looks.seconds),
                }
            if looks.seconds > WAIT_SECONDS:
                raise AssertionError(f"{name}: nothing came of it within {WAIT_SECONDS:.0f} seconds")
            time.sleep(LOOK_SECONDS)

    def _lag(self) -> int:
        return self._forwarder.metrics().total("forwarder_lag_messages")

    def _spooled(self) -> int:
        return self._ingest.metrics().total("ingest_spool_records")

    def _delivered(self) -> int:
        return self._forwarder.metrics().total("forwarder_records_delivered_total")

    def _produced(self) -> int:
        return self._ingest.metrics().total("kafka_produced_records_total", topic=f"{PREFIX}flows.records")

    def _caught_up(self) -> bool:
        # While it joins its group it has no partition, and nobody knows of a lag.
        partitions = self._forwarder.json("/api/v1/partitions")
        return len(partitions) == PARTITIONS and all(one["lag_messages"] < FEW_MESSAGES for one in partitions)

    def _committed(self) -> bool:
        partitions = self._forwarder.json("/api/v1/partitions")
        return len(partitions) == PARTITIONS and all(
            one["lag_messages"] == 0 and one["committed"] == one["delivered"] for one in partitions
        )

    def _judge(self, sent: int) -> dict[str, Any]:
        topic = RecordsTopic(self.broker.bootstrap_servers, PREFIX)
        verdict = Judge(topic, self.lake).judge()
        behind = 0
        by_partition: dict[int, int] = {}
        for message in RecordsTopic(self.broker.bootstrap_servers, PREFIX).read():
            partition = message.partition()
            if partition is None or not message.value():
                continue
            # Messages of one second share its time, each with records of another layout.
            times = pc.min_max(records([message])["time_received"])
            behind += times["max"].value < by_partition.get(partition, 0)
            by_partition[partition] = max(times["min"].value, by_partition.get(partition, 0))
        return {
            "logged": verdict.logged,
            "lost": sent - (verdict.logged - verdict.repeated),
            "in_the_lake": verdict.delivered,
            "right": verdict.right,
            "messages_out_of_order": int(behind),
        }


def _memory(stage: Program) -> int:
    return sum(resident_bytes(pid) for pid in system.tree(stage.pid))


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.outage", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, metavar="N", help="datagrams a second (default: 2000)")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each is away (default: 120)")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        with tempfile.TemporaryDirectory(prefix="sluiceway-outage-") as directory:
            found = Outage(Path(directory), arguments.rate, arguments.seconds).run()
    except KafkaUnavailable as error:
        sys.exit(str(error))
    table = Table(title="memory in MiB: at first, in the end, the most")
    for heading in ("stretch", "seconds", "ingest", "forwarder", "most lag, messages", "most in the spool, records"):
        table.add_column(heading)
    for one in found["stretches"]:
        table.add_row(*(str(one[name]) for name in one))
    console.print(table)
    console.print({name: value for name, value in found.items() if name != "stretches"})
    path = results.write("outage", found)
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0 if found["right"] and not found["messages_out_of_order"] else 1


if __name__ == "__main__":
    sys.exit(main())
