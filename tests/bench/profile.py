"""`make profile`: a real worker, in this process and under Python's profiler, fed from a socket, producing to Kafka."""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from deploy.local.kafka import KafkaUnavailable
from ingest.config import load_settings
from ingest.control import Channel, Partitions, Stop
from ingest.exporters_file import load_exporters
from ingest.mapping import load_mapping
from ingest.sockets import open_listeners
from ingest.worker import Worker, WorkerArguments
from shared.kafka import COUNTERS, RECORDS, TopicFacts, ensure_topics
from tests.bench.bench import Bench
from tests.bench.cases import CASES, Case
from tests.bench.collectors import Ingest

STAGES: Final = (
    ("receive", "receive.py", "receive"),
    ("decode", "pipeline.py", "decode"),
    ("gather and count", "worker.py", "_take"),
    ("count", "worker.py", "_count_received"),
    ("split by partition", "outbox.py", "take"),
    ("encode", "codec.py", "encode"),
    ("hand over to the client", "producer.py", "send"),
    ("hear acknowledgements", "producer.py", "poll"),
)
"""What the loop does, and the function whose time that is; encoding is a part of handing over."""
DATAGRAMS: Final = 40_000
RATE: Final = 8_000.0


@dataclass(slots=True)
class _Fed:
    """What the thread that plays the supervisor has sent."""

    flows: int = 0
    failure: BaseException | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Profile and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--case", default="v9", choices=[case.name for case in CASES])
    parser.add_argument(
        "--beside", default="", metavar="NAME", help="of the case's traffic that which has so much more"
    )
    parser.add_argument("--lines", type=int, default=30, metavar="N", help="functions to show (default: 30)")
    arguments = parser.parse_args(argv)
    case = next(case for case in CASES if case.name == arguments.case)
    console = Console(highlight=False)
    try:
        with Bench.started(console) as bench:
            profile(bench, case, arguments.beside, arguments.lines)
    except KafkaUnavailable as error:
        sys.exit(str(error))
    return 0


def profile(bench: Bench, case: Case, beside: str, lines: int) -> None:
    """Run a worker until it has seen the case, and print where its time went."""
    prefix = bench.broker.new_prefix()
    with tempfile.TemporaryDirectory() as directory:
        path = Ingest(bench.broker, bench.port, prefix, Path(directory)).config
        settings = load_settings(path, {})
    report = ensure_topics(settings.kafka, [RECORDS, COUNTERS])
    (listener,) = open_listeners(settings.ingest.listen, 1, settings.ingest.receive_buffer_bytes)
    ours, theirs = multiprocessing.Pipe()
    worker = Worker(
        WorkerArguments(
            settings=settings,
            sockets=listener.sockets,
            connection=theirs,
            name="worker-profile",
            mapping=load_mapping(settings.ingest.mapping_file),
            taken=multiprocessing.RawValue("q", 0),
            known=load_exporters(settings.exporters_file),
        )
    )
    fed = _Fed()
    feeder = threading.Thread(
        target=_feed, args=(bench, case, beside, ours, report.topics[RECORDS], fed), name="feeder"
    )
    # CPU time of the thread, so that waiting does not count.
    profiler = cProfile.Profile(time.thread_time)
    # A signal's handler runs in this thread, wherever it is: the one way to begin in the middle of the worker's loop.
    signal.signal(signal.SIGUSR1, lambda _number, _frame: profiler.enable())
    signal.signal(signal.SIGUSR2, lambda _number, _frame: profiler.disable())
    feeder.start()
    worker.run()
    feeder.join()
    listener.close()
    bench.broker.delete(prefix)
    if fed.failure is not None:
        raise fed.failure
    bench.console.print(_stages(profiler, fed.flows))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(lines)


def _feed(bench: Bench, case: Case, beside: str, connection: Connection, topic: TopicFacts, fed: _Fed) -> None:
    """Play the supervisor: tell the partitions, have everything sent, and stop the worker."""
    channel = Channel(connection)
    channel.start()
    channel.send(Partitions(topic.partitions))
    try:
        bench.source.prepare(case, DATAGRAMS)
        bench.source.warm_up(RATE, beside)
        _until_quiet(bench, topic.name)
        os.kill(os.getpid(), signal.SIGUSR1)
        fed.flows = bench.source.send(DATAGRAMS, RATE, beside).records
        _until_quiet(bench, topic.name)
        os.kill(os.getpid(), signal.SIGUSR2)
    except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
        fed.failure = error
    channel.send(Stop())
    channel.close()


def _until_quiet(bench: Bench, topic: str) -> None:
    """Wait until messages come no more."""
    messages, since = -1, time.monotonic()
    while time.monotonic() - since < Ingest.quiet_seconds:
        time.sleep(0.2)
        if (now := bench.broker.messages(topic)) != messages:
            messages, since = now, time.monotonic()


def _stages(profiler: cProfile.Profile, flows: int) -> Table:
    """Nanoseconds a flow by stage."""
    shown = Table(title=f"the worker's own thread while {flows:,} flows came; the profiler makes calls slower")
    shown.add_column("stage")
    shown.add_column("nanoseconds a flow", justify="right")
    entries = profiler.getstats()
    taken = {
        (Path(entry.code.co_filename).name, entry.code.co_name): entry.totaltime
        for entry in entries
        if not isinstance(entry.code, str)
    }
    for stage, file, function in STAGES:
        shown.add_row(stage, f"{taken.get((file, function), 0.0) / flows * 1e9:.0f}")
    shown.add_section()
    shown.add_row("all of it", f"{sum(entry.inlinetime for entry in entries) / flows * 1e9:.0f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
