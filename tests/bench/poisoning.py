"""`python -m tests.bench.poisoning`: what forged templates do to records, memory and other instances.

Two exporters send NetFlow v9 in turns to a real ingest, their template with every so many datagrams. Between theirs come
datagrams with the address of the first one: its template with a layout of the same length and two fields exchanged; the
same with export times far ahead; and as many template identifiers as are wanted. Each record that comes out tells
whether it was decoded by the true layout. At the end another ingest starts with nothing, and hears data alone.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from deploy.local.kafka import CHECKOUT, KafkaUnavailable, LocalKafka
from ingest.decoders import Fault
from shared.text import format_addresses
from tests.bench import results
from tests.bench.warm import resident_bytes
from tests.builders import data_set, field, ipv4, number, template, v9_datagram, v9_templates
from tests.integration.programs import ONE_WORKER, Ingest, Programs
from tests.integration.topic import RecordsTopic, column

PREFIX: Final = "poisoning."
DECEIVED, NEIGHBOUR = "127.9.0.1", "127.9.0.2"
FIELDS: Final = (field(8, 4), field(12, 4), field(1, 4), field(2, 4))
FORGED_FIELDS: Final = (field(8, 4), field(12, 4), field(2, 4), field(1, 4))
BYTES, PACKETS = 100, 1
RECORD: Final = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(BYTES, 4) + number(PACKETS, 4)
TEMPLATE_EVERY: Final = 20
FORGED_EVERY: Final = 50
TEMPLATES_A_DATAGRAM: Final = 70
FORGED_SEQUENCE: Final = 3_000_000_000
IDENTIFIERS_A_DOMAIN: Final = 65_536 - 256
AT_ONCE: Final = 64
PAUSE_SECONDS: Final = 0.005
WAIT_SECONDS: Final = 120.0


@dataclass(slots=True)
class Exporter:
    """One that is there, and what it has sent."""

    address: str
    sent: int = 0
    data: int = 0

    def next(self, *, template_too: bool = True) -> bytes:
        """Its next datagram: its template when that is due, else one record."""
        due = template_too and self.sent % TEMPLATE_EVERY == 0
        content = v9_templates(template(256, *FIELDS)) if due else data_set(256, RECORD)
        self.data += not due
        self.sent += 1
        return v9_datagram(content, sequence=self.sent - 1, unix_seconds=int(time.time()))


class Attack:
    """What runs, and what is sent to it."""

    def __init__(self, directory: Path, datagrams: int, identifiers: int) -> None:
        self._datagrams = datagrams
        self._identifiers = identifiers
        self._broker = LocalKafka(directory / "kafka", say=lambda _: None)
        self._programs = Programs(directory / "programs")
        self._exporters = [Exporter(DECEIVED), Exporter(NEIGHBOUR)]
        self._sockets: dict[str, socket.socket] = {}
        self._ingest: Ingest
        self._port = 0
        self._sent = 0

    def run(self) -> dict[str, Any]:
        """Everything; returns the figures."""
        self._broker.start()
        try:
            self._start()
            now = int(time.time())
            other = v9_templates(template(256, *FORGED_FIELDS))
            stretches = {
                "nothing forged": [],
                "another layout": self._forged(lambda one: v9_datagram(other, sequence=one, unix_seconds=now)),
                "another layout, a year ahead": self._forged(
                    lambda one: v9_datagram(other, sequence=one, unix_seconds=now + 365 * 86_400)
                ),
                "identifiers": list(_identifiers(self._identifiers, now)),
                "after it": [],
            }
            figures = [self._stretch(name, forged) for name, forged in stretches.items()]
            return {"identifiers": self._identifiers, "stretches": figures, "cold": self._cold()}
        finally:
            for one in self._sockets.values():
                one.close()
            self._programs.__exit__()
            self._broker.kill()

    def _start(self) -> None:
        self._ingest = self._programs.ingest(self._broker.bootstrap_servers, PREFIX, ONE_WORKER).until_ready()
        self._port = self._ingest.port()

    def _forged(self, make: Callable[[int], bytes]) -> list[bytes]:
        return [make(FORGED_SEQUENCE + one) for one in range(self._datagrams // FORGED_EVERY)]

    def _stretch(self, name: str, forged: Sequence[bytes]) -> dict[str, Any]:
        """Send a stretch with what is forged spread over it, and tell what came of it."""
        before = {one.address: one.sent for one in self._exporters}
        data = {one.address: one.data for one in self._exporters}
        memory = self._memory()
        told = self._told()
        done = 0
        for turn in range(1, self._datagrams + 1):
            for exporter in self._exporters:
                self._send(exporter.address, exporter.next())
            due = len(forged) * turn // self._datagrams
            for payload in forged[done:due]:
                self._send(DECEIVED, payload)
            done = due
        self._ingest.until(lambda: self._ingest.received() >= self._sent, f"received: {name}", WAIT_SECONDS)
        self._ingest.until_settled()
        after = self._told()
        return {
            "name": name,
            "forged_datagrams": len(forged),
            **self._judged(before, {one.address: one.data - data[one.address] for one in self._exporters}),
            **{key: after[key] - told[key] for key in ("published", "refused", "evicted")},
            "templates": after["templates"],
            "mib_before": round(memory / 2**20),
            "mib_after": round(self._memory() / 2**20),
        }

    def _judged(self, since: dict[str, int], data: dict[str, int]) -> dict[str, Any]:
        """How many records of each exporter came out, and by the layout of whom."""
        table = RecordsTopic(self._broker.bootstrap_servers, PREFIX).records()
        addresses = format_addresses(table["sampler_address"].combine_chunks()).to_pylist()
        rows: dict[str, list[tuple[int, bool]]] = {DECEIVED: [], NEIGHBOUR: []}
        columns = (column(table, name) for name in ("sequence_num", "bytes", "packets"))
        for address, sequence, octets, packets in zip(addresses, *columns, strict=True):
            if since[address] <= sequence < FORGED_SEQUENCE:
                rows[address].append((sequence, (octets, packets) == (BYTES, PACKETS)))
        told: dict[str, Any] = {}
        for address, name in ((DECEIVED, "deceived"), (NEIGHBOUR, "neighbour")):
            wrong = np.sort([sequence for sequence, right in rows[address] if not right])
            runs = np.split(wrong, np.flatnonzero(np.diff(wrong) > TEMPLATE_EVERY) + 1) if len(wrong) else []
            told[name] = {
                "sent": data[address],
                "records": len(rows[address]),
                "wrong": len(wrong),
                "longest_wrong": max((len(run) for run in runs), default=0),
            }
        return told

    def _cold(self) -> dict[str, Any]:
        """Another instance, which starts with what the topic says, and hears no template."""
        self._ingest.stop()
        self._start()
        before = {one.address: one.sent for one in self._exporters}
        data = {one.address: one.data for one in self._exporters}
        for _ in range(100):
            for exporter in self._exporters:
                self._send(exporter.address, exporter.next(template_too=False))
        self._ingest.until_delivered(200)
        return {
            "templates": self._told()["templates"],
            **self._judged(before, {one.address: one.data - data[one.address] for one in self._exporters}),
        }

    def _send(self, address: str, payload: bytes) -> None:
        if address not in self._sockets:
            self._sockets[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets[address].bind((address, 0))
        self._sockets[address].sendto(payload, ("127.0.0.1", self._port))
        self._sent += 1
        if self._sent % AT_ONCE == 0:
            # Nothing is to be lost on the way to the socket.
            time.sleep(PAUSE_SECONDS)

    def _memory(self) -> int:
        return sum(resident_bytes(pid) for pid in (self._ingest.pid, *self._ingest.workers().values()))

    def _told(self) -> dict[str, int]:
        metrics = self._ingest.metrics()
        return {
            "published": int(metrics.total("ingest_state_published_total")),
            "refused": int(metrics.total("ingest_dropped_total", reason=Fault.TEMPLATE_LIMIT.value)),
            "evicted": int(metrics.total("ingest_table_full_total", table="templates")),
            "templates": int(metrics.total("ingest_templates")),
        }


def _identifiers(count: int, now: int) -> Iterable[bytes]:
    """Datagrams of as many templates, over the identifiers of as many domains as that takes."""
    for first in range(0, count, TEMPLATES_A_DATAGRAM):
        domain = first // IDENTIFIERS_A_DOMAIN
        there = range(first, min(first + TEMPLATES_A_DATAGRAM, count, (domain + 1) * IDENTIFIERS_A_DOMAIN))
        templates = [template(256 + one % IDENTIFIERS_A_DOMAIN, *FORGED_FIELDS) for one in there]
        yield v9_datagram(
            v9_templates(*templates), sequence=FORGED_SEQUENCE + first, source_id=domain, unix_seconds=now
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.poisoning", description=__doc__)
    parser.add_argument("--datagrams", type=int, default=10_000, metavar="N", help="of an exporter (default: 10000)")
    parser.add_argument("--identifiers", type=int, default=1_000_000, metavar="N", help="default: 1000000")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    (CHECKOUT / ".local").mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-poisoning-", dir=CHECKOUT / ".local") as name:
            figures = Attack(Path(name), arguments.datagrams, arguments.identifiers).run()
    except KafkaUnavailable as error:
        sys.exit(str(error))
    for one in (*figures["stretches"], {"name": "another instance, which hears data alone", **figures["cold"]}):
        console.print(one, soft_wrap=True)
    path = results.write("poisoning", {"what": __doc__.strip(), **figures})
    console.print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
