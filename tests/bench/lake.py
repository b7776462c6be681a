"""`python -m tests.bench.lake`: what the forwarder needs to bring records from Kafka into Parquet files.

First as they come, while both stages and the sender share the machine, and what ingest needs then is told too; then of
records that waited in Kafka, when the forwarder has the machine nearly for itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from rich.console import Console

from deploy.local.books import Stage
from deploy.local.kafka import CHECKOUT, KafkaUnavailable, free_port, poll
from tests.bench import results, system
from tests.bench.bench import Bench
from tests.bench.cases import CASES, Case
from tests.bench.collectors import Ingest
from tests.bench.process import Process
from tests.bench.results import Spread
from tests.bench.rounds import READY_SECONDS, WAIT_SECONDS, WARM_UP_RATE, Refused, Usage

INTERVAL_MS: Final = 5000
LOOK_SECONDS: Final = 0.5
LOADS: Final = 3
WAYS: Final = {"as_they_come": "as they come, ingest beside it", "catching_up": "what had waited in Kafka"}


class Lake:
    """A directory of Parquet files, counted by their footers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[Path, int] = {}

    def rows(self) -> int:
        """Records in all files; each file is read once, since it never changes."""
        for path in self.path.glob("**/part-*.parquet"):
            if path not in self._rows:
                self._rows[path] = pq.read_metadata(path).num_rows
        return sum(self._rows.values())

    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Forwarder:
    """Stage two with its defaults but for addresses, a lake in a directory, and its interval.

    With ``everything`` it also marks flows that several exporters saw, and adds up records beside them.
    """

    def __init__(self, bootstrap_servers: str, prefix: str, directory: Path, *, everything: bool) -> None:
        http = free_port()
        self.lake = Lake(directory / "lake")
        sink: dict[str, Any] = {
            "type": "parquet",
            "path": str(self.lake.path),
            "batch": {"interval_ms": INTERVAL_MS},
        }
        more: dict[str, Any] = {}
        if everything:
            more = {"dedup": {"flow": {"policy": "lease"}}}
            sink |= {"aggregated_path": str(directory / "sums"), "aggregate": {"profile": "prefix", "keep_raw": True}}
        settings = {
            "kafka": {"bootstrap_servers": bootstrap_servers, "topic_prefix": prefix},
            "forwarder": {"http": {"listen": f"127.0.0.1:{http}"}, "sinks": {"lake": sink}, **more},
        }
        config = directory / "forwarder.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(settings), encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEWAY_")}
        command = [sys.executable, "-m", "forwarder", "serve", "--config", str(config)]
        self.program = Process(command, directory / "forwarder.log", environ)
        self._stage = Stage(http, None)

    def start(self) -> None:
        """Start it."""
        self.program.start()

    def is_ready(self) -> bool:
        """Whether it consumes."""
        return self._stage.is_ready()

    def stop(self) -> None:
        """Stop it."""
        self._stage.close()
        self.program.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lake", description=__doc__)
    parser.add_argument("--case", default="v9", choices=[case.name for case in CASES], help="what is sent")
    parser.add_argument(
        "--everything", action="store_true", help="with duplicates of flows marked by lease, and sums by prefix beside"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    case = next(case for case in CASES if case.name == arguments.case)
    rounds = []
    try:
        with Bench.started(console) as bench:
            bench.source.prepare(case, LOADS * case.load.datagrams)
            for number in range(arguments.rounds):
                rounds.append(_round(bench, case, everything=arguments.everything))
                console.print(f"round {number + 1}: {rounds[-1]}", soft_wrap=True)
    except (KafkaUnavailable, Refused) as error:
        sys.exit(str(error))
    speeds = {way: Spread.of([one[way]["records_per_cpu_second"] for one in rounds]) for way in WAYS}
    for way, speed in speeds.items():
        console.print(f"forwarder, Kafka to Parquet, {WAYS[way]}: {speed.text()} records per CPU-second")
    content = {
        "what": __doc__.strip(),
        "case": case.name,
        "records_per_cpu_second": {way: speed.rounded(0) for way, speed in speeds.items()},
        "rounds": rounds,
    }
    path = results.write("lake-everything" if arguments.everything else "lake", content)
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


def _round(bench: Bench, case: Case, *, everything: bool) -> dict[str, Any]:
    """Send loads through both stages, the last one while the forwarder is held; every record has to arrive, once."""
    prefix = bench.broker.new_prefix()
    load = case.load
    with tempfile.TemporaryDirectory(prefix="bench-lake-", dir=CHECKOUT / ".local") as name:
        directory = Path(name)
        ingest = Ingest(bench.broker, bench.port, prefix, directory)
        forwarder = Forwarder(bench.broker.bootstrap_servers, prefix, directory, everything=everything)
        lake = forwarder.lake
        try:
            # Ingest makes the topics.
            for program in (ingest, forwarder):
                program.start()
                if not poll(program.is_ready, READY_SECONDS):
                    raise Refused(f"a stage did not get ready: {program.program.last_words()}")
            due = bench.source.warm_up(WARM_UP_RATE).records
            # A load before those that are measured: memory that a process takes for the first time is dear.
            due += bench.source.send(load.datagrams, load.rate).records
            _until(lake, due)

            before, ingest_before = Usage.of(forwarder.program.pid), Usage.of(ingest.program.pid)
            sent = bench.source.send(load.datagrams, load.rate, after=load.datagrams)
            due += sent.records
            _until(lake, due)
            live = _used(sent.records, before, Usage.of(forwarder.program.pid))
            ingest_used = Usage.of(ingest.program.pid).cpu - ingest_before.cpu

            before = Usage.of(forwarder.program.pid)
            os.kill(forwarder.program.pid, signal.SIGSTOP)
            try:
                waiting = bench.source.send(load.datagrams, load.rate, after=2 * load.datagrams)
            finally:
                os.kill(forwarder.program.pid, signal.SIGCONT)
            due += waiting.records
            _until(lake, due)
            late = _used(waiting.records, before, Usage.of(forwarder.program.pid))
            if system.kernel_drops(bench.port):
                raise Refused("the kernel dropped datagrams")
        finally:
            ingest.stop()
            forwarder.stop()
            bench.broker.delete(prefix)
        return {
            "as_they_come": live,
            "catching_up": late,
            "ingest_flows_per_cpu_second": round(sent.records / ingest_used.total),
            "files": len(lake),
            "bytes_per_record": round(lake.bytes() / due, 1),
        }


def _used(records: int, before: Usage, after: Usage) -> dict[str, Any]:
    used = after.cpu - before.cpu
    return {
        "records": records,
        "cpu_seconds": {"user": round(used.user, 2), "system": round(used.system, 2)},
        "records_per_cpu_second": round(records / used.total),
        "seconds": round(after.seconds - before.seconds, 1),
    }


def _until(lake: Lake, records: int) -> None:
    """Wait until the lake has so many records; raises Refused when it has others, or time is over."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (there := lake.rows()) < records:
        if time.monotonic() > deadline:
            raise Refused(f"{records:,} records were sent, {there:,} are in the lake after {WAIT_SECONDS:.0f} seconds")
        time.sleep(LOOK_SECONDS)
    if there > records:
        raise Refused(f"{records:,} records were sent, and {there:,} are in the lake")


if __name__ == "__main__":
    sys.exit(main())
