"""`python -m tests.bench.warm`: what it costs twenty instances that start at a time to know what is known of exporters.

Each of them is a process that follows `flows.exporters` as an ingest does, without sockets and workers. One ingest is
started too, with an empty topic and with the full one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from deploy.local.kafka import CHECKOUT, KafkaUnavailable, free_port, poll
from ingest.control import Facts, Templates
from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.layout import Field, Layout, Template
from ingest.decoders.templates import Word
from ingest.state.entries import wire_bytes
from ingest.state.exchange import StateTopic
from ingest.state.knowledge import Changes, Knowledge
from ingest.topics import TopicWatch
from shared import log
from shared.config import KafkaConfig
from shared.kafka import EXPORTERS, full_name
from shared.metrics import Book, total
from tests.bench import results, system
from tests.bench.broker import BenchKafka
from tests.bench.collectors import Ingest
from tests.bench.results import Spread
from tests.bench.rounds import READY_SECONDS, Refused

MODELS: Final = 20
TEMPLATES: Final = 4
FIELDS: Final = 25
INTERFACES: Final = 48
DEADLINE_SECONDS: Final = 300.0
READ: Final = "what other instances know of exporters is read"
LEARN_SECONDS: Final = 10.0
NOTHING: Final = -1
"""The row of an exporter that this instance has not heard."""


class Instance:
    """What an ingest knows and follows, without the rest of it."""

    def __init__(self, bootstrap_servers: str, prefix: str, seed: int) -> None:
        config = KafkaConfig(bootstrap_servers=bootstrap_servers, topic_prefix=prefix)
        logger = log.get_logger("bench")
        self.book = Book()
        self.told_bytes = 0
        self.knowledge = Knowledge(
            lambda _: NOTHING,
            60.0,
            clock=time.monotonic,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            seed=seed,
        )
        self._state = StateTopic(
            config, self.knowledge, self.book, logger, self._tell, wait_seconds=DEADLINE_SECONDS, name="bench"
        )
        self._topics = TopicWatch(config, lambda _: None, self._state.found, logger)

    def start(self) -> None:
        """Follow."""
        self._topics.start()
        self._state.start()

    def is_ready(self) -> bool:
        """Whether it knows what all know."""
        return self._state.check().ok

    def counted(self, name: str) -> int:
        """What it counts."""
        return int(total(self.book.snapshot(), name))

    def stop(self) -> None:
        """Stop."""
        self._topics.stop()
        self._state.stop()

    def _tell(self, changes: Changes) -> None:
        """Do what it takes to tell a worker."""
        for message in (Templates(tuple(changes.templates)), Facts(tuple(changes.facts))):
            self.told_bytes += len(pickle.dumps(message))


def address(number: int) -> bytes:
    """The address of an exporter."""
    return bytes(10) + b"\xff\xff" + (0x7F010000 + number).to_bytes(4)


def teach(instance: Instance, exporters: int) -> None:
    """Have it hear exporters of some models: their templates, the names of their interfaces, and their sampling rates."""
    layouts = [
        Layout(9, tuple(Field(0, 1 + (place * 7 + which) % 120, 4) for place in range(FIELDS)), False, 0)
        for which in range(MODELS * TEMPLATES)
    ]
    now_ns = time.time_ns()
    for number in range(exporters):
        source = address(number)
        domain = source + (9).to_bytes(2) + bytes(4)
        of_model = layouts[number % MODELS * TEMPLATES :][:TEMPLATES]
        instance.knowledge.hear(
            Word(
                domain + (256 + which).to_bytes(2),
                Template(256 + which, layout, wire_bytes(layout)),
                True,
                number,
                86_400_000,
                now_ns,
                now_ns,
            )
            for which, layout in enumerate(of_model)
        )
        names = (
            Fact(Kind.INTERFACE_NAME, source, 9, 0, one, f"TenGigE0/0/0/{one}") for one in range(1, INTERFACES + 1)
        )
        instance.knowledge.hear_facts([*names, Fact(Kind.DOMAIN_RATE, source, 9, 0, 0, 1000)])


def entries(exporters: int) -> int:
    """How many entries that makes."""
    return exporters * (TEMPLATES + 2)


def fill(broker: BenchKafka, prefix: str, exporters: int) -> float:
    """Have an instance publish what it heard of exporters; the seconds that it took."""
    instance = Instance(broker.bootstrap_servers, prefix, seed=0)
    instance.start()
    try:
        if not poll(instance.is_ready, READY_SECONDS):
            raise Refused("the topic could not be read")
        begun = time.monotonic()
        teach(instance, exporters)
        if not poll(lambda: instance.counted("ingest_state_published_total") >= entries(exporters), DEADLINE_SECONDS):
            raise Refused(f"only {instance.counted('ingest_state_published_total')} entries were published")
        return time.monotonic() - begun
    finally:
        instance.stop()


# --- one of the twenty


def serve(bootstrap_servers: str, prefix: str, seed: int) -> None:
    """What a process of its own does: wait for a line, follow, and print what that took."""
    instance = Instance(bootstrap_servers, prefix, seed)
    before = resident_bytes("self")
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    sys.stdin.readline()
    begun, used = time.monotonic(), time.process_time()
    instance.start()
    ready = poll(instance.is_ready, DEADLINE_SECONDS)
    sizes = instance.knowledge.sizes()
    told = {
        "ready": ready,
        "seconds": time.monotonic() - begun,
        "cpu_seconds": time.process_time() - used,
        "resident_bytes": resident_bytes("self"),
        "more_bytes": resident_bytes("self") - before,
        "most_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "read_messages": instance.counted("ingest_state_followed_total"),
        "read_bytes": instance.counted("ingest_state_followed_bytes_total"),
        "told_bytes": instance.told_bytes,
        "templates": sizes.templates,
        "facts": sizes.facts,
    }
    # All are there for as long as any of them reads, as in a cluster.
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    told["published"] = instance.counted("ingest_state_published_total")
    sys.stdout.write(json.dumps(told) + "\n")
    instance.stop()


def resident_bytes(process: int | str) -> int:
    """Memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


class Pod:
    """One of the twenty, as the bench sees it."""

    def __init__(self, bootstrap_servers: str, prefix: str, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.warm", "--pod", bootstrap_servers, prefix, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def go_on(self) -> None:
        """Let it do the next thing."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait for its end, or make it end."""
        try:
            self._process.communicate(timeout=20.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def pods(broker: BenchKafka, prefix: str, count: int) -> Iterator[list[Pod]]:
    """Processes that wait for the word to start; none is left running."""
    ours: list[Pod] = []
    try:
        ours += (Pod(broker.bootstrap_servers, prefix, seed) for seed in range(1, count + 1))
        for pod in ours:
            pod.line()
        yield ours
    finally:
        for pod in ours:
            pod.end()


def storm(broker: BenchKafka, prefix: str, count: int, exporters: int) -> dict[str, Any]:
    """Start so many at a time; what it took each of them."""
    with pods(broker, prefix, count) as ours:
        for pod in ours:
            pod.go_on()
        for pod in ours:
            pod.line()
        for pod in ours:
            pod.go_on()
        told = [json.loads(pod.line()) for pod in ours]
    if not all(
        one["ready"] and one["templates"] == TEMPLATES * exporters and one["facts"] == (INTERFACES + 1) * exporters
        for one in told
    ):
        raise Refused(f"not all know everything: {told}")
    names = ("seconds", "cpu_seconds", "resident_bytes", "more_bytes", "most_bytes", "read_messages", "read_bytes")
    return {
        **{name: Spread.of([one[name] for one in told]).rounded(2) for name in (*names, "told_bytes")},
        "published": sum(one["published"] for one in told),
    }


def whole(broker: BenchKafka, prefix: str) -> dict[str, Any]:
    """Start an ingest with one worker; the seconds from its start until it is ready, and the memory that it has then."""
    with tempfile.TemporaryDirectory(prefix="bench-warm-", dir=CHECKOUT / ".local") as name:
        ingest = Ingest(broker, free_port(), prefix, Path(name))
        begun = time.monotonic()
        ingest.start()
        try:
            if not poll(ingest.is_ready, READY_SECONDS):
                raise Refused(f"ingest did not get ready: {ingest.program.last_words()}")
            seconds = time.monotonic() - begun
            read = [line for line in _events(Path(name) / "ingest.log") if line["event"] == READ]
            if not read:
                raise Refused(f"ingest got ready without the topic: {ingest.program.last_words()}")
            # What workers are told they have learned some moments later.
            time.sleep(LEARN_SECONDS)
            root = ingest.program.pid
            others = {pid: resident_bytes(pid) for pid in system.tree(root) if pid != root}
            return {
                "seconds": round(seconds, 2),
                "read_seconds": read[0]["seconds"],
                "supervisor_bytes": resident_bytes(root),
                "worker_bytes": max(others.values()),
            }
        finally:
            ingest.stop()


def _events(log_file: Path) -> list[dict[str, Any]]:
    lines = log_file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.warm", description=__doc__)
    parser.add_argument("--exporters", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--pods", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--pod", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.pod:
        serve(arguments.pod[0], arguments.pod[1], int(arguments.pod[2]))
        return 0
    console = Console(highlight=False)
    try:
        with BenchKafka.started() as broker:
            content = _measured(broker, arguments.exporters, arguments.pods, console)
    except (KafkaUnavailable, Refused) as error:
        sys.exit(str(error))
    path = results.write("warm", content)
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


def _measured(broker: BenchKafka, exporters: int, count: int, console: Console) -> dict[str, Any]:
    empty, prefix = broker.new_prefix(), broker.new_prefix()
    topic = full_name(KafkaConfig(topic_prefix=prefix), EXPORTERS)
    found: dict[str, Any] = {"what": (__doc__ or "").strip(), "exporters": exporters, "pods": count}

    def note(name: str, value: object) -> None:
        found[name] = value
        console.print(f"{name}: {value}", soft_wrap=True)

    note("publish_seconds", round(fill(broker, prefix, exporters), 2))
    note("entries", entries(exporters))
    note("log_bytes", broker.bytes_on_disk(topic))
    before = broker.messages(topic)
    note("alone", storm(broker, prefix, 1, exporters))
    note("together", storm(broker, prefix, count, exporters))
    note("ingest_empty", whole(broker, empty))
    note("ingest_full", whole(broker, prefix))
    note("messages_added_by_all_of_them", broker.messages(topic) - before)
    for one in (empty, prefix):
        broker.delete(one)
    return found


if __name__ == "__main__":
    sys.exit(main())
