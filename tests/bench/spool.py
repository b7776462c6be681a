"""`python -m tests.bench.spool`: what the spool costs while Kafka is there, and how fast it is written and drained.

Ingest is measured with a spool and without one, in turn, with a Kafka that takes everything; and so is what it is alone
that a spool adds to, the handing over of messages to the client, with the broker that the client brings for tests. The
spool itself is measured without Kafka: messages of real traffic are appended, then read back and acknowledged.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from deploy.local.kafka import CHECKOUT, KafkaUnavailable
from ingest.generator.traffic import Traffic
from ingest.outbox import MessageBounds, Outbox
from ingest.pipeline import Pipeline
from ingest.producer import RecordProducer
from ingest.spool import Entry, Quota, SpoolLog
from ingest.spool.disk import DiskWriter
from shared import codec
from shared.config import KafkaConfig
from shared.kafka import producer_properties
from shared.metrics import Book, total
from tests.bench import results, system
from tests.bench.bench import Bench, Subject
from tests.bench.broker import PARTITIONS
from tests.bench.cases import CASES, Case
from tests.bench.collectors import Ingest
from tests.bench.results import Figures, Spread

SUBJECTS: Final = {"without a spool": False, "with a spool": True}
MESSAGES: Final = 400
"""Different messages, of some thousand records each."""
SPOOLED_RECORDS: Final = 6_000_000
"""Written and drained in a round."""
HANDED_RECORDS: Final = 2_000_000
"""Handed to the client in a round."""
WAITING_RECORDS: Final = 100_000
"""That wait for an acknowledgement meanwhile."""
NAME: Final = "ingest-bench-worker-0-1"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.spool", description=__doc__)
    parser.add_argument("--case", default="v9", choices=[case.name for case in CASES], help="what is sent or spooled")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--no-kafka", action="store_true", help="measure the spool alone")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    case = next(case for case in CASES if case.name == arguments.case)
    content: dict[str, Any] = {"what": __doc__.strip(), "case": case.name}
    messages = _messages(case)
    spooled = _in_rounds(arguments.rounds, [partial(_round, [_entry(*one) for one in messages])])
    console.print(_table(f"the spool alone, {SPOOLED_RECORDS:,} records", spooled))
    content["spool"] = {name: spread.rounded(1) for name, spread in spooled.items()}
    handed = _in_rounds(arguments.rounds, [partial(_handed, messages, name) for name in SUBJECTS])
    console.print(_table("handing messages to the client, nanoseconds of the worker's thread a record", handed))
    content["handing_over_ns_per_record"] = {name: spread.rounded(1) for name, spread in handed.items()}
    if not arguments.no_kafka:
        try:
            with Bench.started(console) as bench:
                subjects = {
                    name: Subject(partial(Ingest, bench.broker, bench.port, spool=spool), case.load)
                    for name, spool in SUBJECTS.items()
                }
                figures = bench.run(case, subjects, arguments.rounds)
        except KafkaUnavailable as error:
            sys.exit(str(error))
        console.print(_ingest_table(figures))
        content["ingest_flows_per_cpu_second"] = {
            name: results.speed(rounds).rounded(0) for name, rounds in figures.rounds.items()
        }
        content["remarks"] = figures.remarks
    path = results.write("spool", content)
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


def _in_rounds(rounds: int, works: Sequence[Callable[[Path], Mapping[str, float]]]) -> dict[str, Spread]:
    """Do some works in turn, each in a directory of its own; their figures by what they are."""
    home = CHECKOUT / ".local"
    home.mkdir(exist_ok=True)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for work in works:
            with tempfile.TemporaryDirectory(prefix="bench-spool-", dir=home) as directory:
                for name, figure in work(Path(directory)).items():
                    found.setdefault(name, []).append(figure)
    return {name: Spread.of(figures) for name, figures in found.items()}


def _messages(case: Case) -> list[tuple[int, pa.RecordBatch]]:
    """Messages of this traffic, as a worker makes them: partition and records."""
    outbox, pipeline = Outbox(MessageBounds(), 1 << 40), Pipeline()
    messages: list[tuple[int, pa.RecordBatch]] = []
    for batch in Traffic(replace(case.scenario, rate=case.load.rate)).batches():
        for decoded in pipeline.decode(batch.datagrams(time.time_ns())).batches:
            outbox.add(decoded, 0)
        if outbox.due(PARTITIONS, 0):
            messages += outbox.take(PARTITIONS)
            if len(messages) >= MESSAGES:
                return messages
    raise AssertionError("traffic never ends")


def _entry(partition: int, batch: pa.RecordBatch) -> Entry:
    value = codec.encode(batch).to_pybytes()
    return Entry(partition, None, batch.num_rows, codec.headers(batch.num_rows, NAME), value)


def _handed(messages: Sequence[tuple[int, pa.RecordBatch]], name: str, directory: Path) -> dict[str, float]:
    """What it costs to encode messages, to hand them over, and to hear that they were acknowledged."""
    log = None
    if SUBJECTS[name]:
        log = SpoolLog(directory / "log", Quota(1 << 40, [0], 0))
        log.open()
    book = Book()
    # The broker that the client brings makes a topic of four partitions.
    properties = producer_properties(KafkaConfig(), "bench") | {"test.mock.num.brokers": "1"}
    producer = RecordProducer(properties, "bench", NAME, book, lambda _refusal, _records: None, spool=log)
    producer.start()
    records, taken = 0, 0.0
    while records < HANDED_RECORDS:
        for at in range(0, len(messages), PARTITIONS):
            some = messages[at : at + PARTITIONS]
            begun = time.thread_time()
            for partition, batch in some:
                producer.send(partition % 4, batch)
            producer.poll()
            taken += time.thread_time() - begun
            records += sum(batch.num_rows for _, batch in some)
            # The broker is no faster than it is: what is measured is not how a queue fills.
            while producer.in_flight_records > WAITING_RECORDS:
                time.sleep(0.002)
                begun = time.thread_time()
                producer.poll()
                taken += time.thread_time() - begun
    producer.close(60.0, lambda: None)
    if log is not None:
        log.close()
    acknowledged = total(book.snapshot(), "kafka_produced_records_total")
    if acknowledged != records or total(book.snapshot(), "ingest_spool_written_records_total"):
        raise AssertionError("not everything was acknowledged at once")
    return {name: taken / records * 1e9}


def _round(entries: Sequence[Entry], directory: Path) -> dict[str, float]:
    quota = Quota(1 << 40, [0], 0)
    disk = DiskWriter()
    log = SpoolLog(directory / "log", quota, disk.sync)
    log.open()
    records = count = octets = 0

    def write() -> None:
        nonlocal records, count, octets
        while records < SPOOLED_RECORDS:
            entry = entries[count % len(entries)]
            log.append(entry)
            count += 1
            records += entry.records
            octets += len(entry.value)

    writing = _timed(write)
    begun = time.perf_counter()
    disk.close(600.0)
    synced = writing["seconds"] + time.perf_counter() - begun
    log.close()
    on_disk = log.bytes
    again = SpoolLog(directory / "log", Quota(1 << 40, [0], 0))
    opening = _timed(again.open)

    def drain() -> None:
        while (found := again.peek()) is not None:
            again.advance()
            again.acknowledge([found[1]])

    reading = _timed(drain)
    assert again.messages == again.bytes == 0
    again.close()
    return {
        "records a message": records / count,
        "bytes a record, before compression": octets / records,
        "bytes a record, on disk": on_disk / records,
        "written, records a CPU-second": records / writing["cpu"],
        "written, records a second": records / writing["seconds"],
        "written and on the disk itself, records a second": records / synced,
        "read back, records a CPU-second": records / reading["cpu"],
        "read back, records a second": records / reading["seconds"],
        "opened, milliseconds a GB": opening["seconds"] * 1e3 / (on_disk / 1e9),
    }


def _timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that something takes, and CPU time of this thread, the kernel's part included."""
    # What the kernel still has to write of an earlier round is not of this one.
    os.sync()
    begun, cpu = time.perf_counter(), time.thread_time()
    work()
    return {"seconds": time.perf_counter() - begun, "cpu": time.thread_time() - cpu}


def _table(title: str, figures: Mapping[str, Spread]) -> Table:
    shown = Table(title=f"{title} (yardstick {system.yardstick():.0f} ms)")
    shown.add_column("")
    shown.add_column("median (least to most)", justify="right")
    for name, spread in figures.items():
        shown.add_row(name, spread.text(",.0f" if spread.middle > 1000 else ".1f"))
    return shown


def _ingest_table(figures: Figures) -> Table:
    shown = Table(title=f"ingest, Kafka takes everything; {figures.case}: {figures.text}")
    shown.add_column("")
    shown.add_column("flows/CPU-s", justify="right")
    for name, rounds in figures.rounds.items():
        shown.add_row(name, results.speed(rounds).text())
    return shown


if __name__ == "__main__":
    sys.exit(main())
