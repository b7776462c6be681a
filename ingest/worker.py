"""A worker: receive, decode, gather, produce. One process, one thread on the hot path."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Protocol

import numpy as np

from ingest.config import IngestSettings
from ingest.control import Channel, Facts, LogLevel, Mapped, Observed, Partitions, Ready, Report, Stop, Templates
from ingest.counters import CounterOutbox, CounterStream
from ingest.decoders import Datagrams, Decoded, Unit
from ingest.decoders.mapping import FieldMapping
from ingest.outbox import MessageBounds, Outbox
from ingest.pipeline import Pipeline
from ingest.producer import RecordProducer, Refusal
from ingest.receive import ReceiveFault, Receiver
from ingest.sampling import SamplingRates
from ingest.sockets import drain
from shared import log
from shared.kafka import COUNTERS, RECORDS, full_name, producer_properties
from shared.metrics import Book

REPORT_SECONDS: Final = 0.25
EXPIRE_SECONDS: Final = 30.0
IDLE_WAIT_NS: Final = 100_000_000
"""How long an idle worker waits for a datagram: so late is an acknowledgement counted at the latest."""

FLUSH_SECONDS: Final = 30.0
"""How long a stopping worker waits for Kafka to acknowledge what it sent."""

COUNTERS_FLUSH_SECONDS: Final = 2.0
"""How long it then waits for the counter samples: they were sent at the same time."""

DRY_SECONDS: Final = 10.0
"""How long a stopping worker reads what its sockets have queued."""

OUTBOX_BYTES: Final = 256 << 20
"""Records that are held while the partitions of the topic are not known, since no broker answered yet."""

COUNTERS_BYTES: Final = 32 << 20
"""The same for counter samples; and for those that wait in the client's queue."""

RECORD_BYTES: Final = 40
"""A flow record on the wire has about this many bytes or more: turns a bound of records into one of bytes."""

PROTOCOL_LABELS: Final = {0: "sflow", 5: "v5", 9: "v9", 10: "ipfix"}
LABEL_CODES: Final = (*PROTOCOL_LABELS.values(), "unknown")
TYPE_LABELS: Final = {"SFLOW_5": "sflow", "NETFLOW_V5": "v5", "NETFLOW_V9": "v9", "IPFIX": "ipfix"}


class Taken(Protocol):
    """How many datagrams a worker has taken from its sockets, in memory that it shares with the supervisor."""

    value: int


@dataclass(frozen=True, slots=True)
class WorkerArguments:
    """What the supervisor hands to a worker that it spawns."""

    settings: IngestSettings
    sockets: Sequence[socket.socket]
    """One a listener, in the order of the configuration."""
    connection: Connection
    name: str
    mapping: FieldMapping
    taken: Taken


def run_worker(arguments: WorkerArguments) -> None:
    """What the spawned process does; ends when it is told to stop, or when the supervisor is gone."""
    # A terminal's Ctrl-C reaches all processes of the group; only the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.configure(arguments.settings.log, "ingest")
    Worker(arguments).run()


class Worker:
    """The loop of one worker. Its sockets belong to the supervisor and outlive it."""

    def __init__(self, arguments: WorkerArguments) -> None:
        config = arguments.settings.ingest
        kafka = arguments.settings.kafka
        self._sockets = arguments.sockets
        self._listeners = [str(listener) for listener in config.listen]
        self._max_age_ns = config.batch.max_age_ms * 1_000_000
        self._book = Book()
        self._channel = Channel(arguments.connection)
        self._log = log.get_logger("ingest.worker").bind(worker=arguments.name)
        self._throttle = log.Throttle()
        self._receiver = Receiver(
            arguments.sockets, wake=self._channel.descriptor, max_bytes=config.batch.max_records * RECORD_BYTES
        )
        self._pipeline = Pipeline(decapsulate=config.decapsulate, mapping=arguments.mapping)
        self._sampling = SamplingRates(config.sampling.overrides, config.sampling.default)
        bounds = MessageBounds(
            config.message.max_records, config.message.max_bytes, config.message.max_age_ms * 1_000_000
        )
        self._outbox = Outbox(bounds, OUTBOX_BYTES)
        name = f"ingest-{socket.gethostname()}-{arguments.name}-{os.getpid()}"
        self._producer = RecordProducer(
            producer_properties(kafka, f"sluiceway-ingest-{arguments.name}"),
            full_name(kafka, RECORDS),
            name,
            self._book,
            self._refused,
        )
        properties = producer_properties(
            kafka, f"sluiceway-ingest-{arguments.name}-counters", queue_bytes=COUNTERS_BYTES
        )
        self._counters = CounterStream(
            CounterOutbox(bounds, COUNTERS_BYTES),
            RecordProducer(properties, full_name(kafka, COUNTERS), name, self._book, self._refused_counters),
            self._refused_counters,
        )
        self._taken = arguments.taken
        self._partitions = 0
        self._stopping = False
        self._next_report = 0.0
        self._next_expiry = 0.0

    def run(self) -> None:
        """Work until told to stop; everything received by then is sent, or counted."""
        self._producer.start()
        self._counters.start()
        self._channel.start()
        self._channel.send(Ready())
        while not self._stopping:
            self._turn(IDLE_WAIT_NS, self._max_age_ns)
            fatal = self._producer.fatal or self._counters.fatal
            if fatal is not None:
                self._log.error("the Kafka client can produce no more, starting anew", error=fatal)
                self._report()
                self._channel.close()
                raise SystemExit(1)
        self._finish()

    def _turn(self, wait_ns: int, max_age_ns: int) -> bool:
        """One round of the loop; whether anything was received."""
        datagrams = self._receiver.receive(wait_ns, max_age_ns)
        if datagrams is not None:
            # Noted before anything can happen to them: the supervisor sees it even when this process is killed.
            self._taken.value += len(datagrams)
            self._decode(datagrams)
        self._count_receive_faults()
        self._obey()
        self._send(time.monotonic_ns())
        self._producer.poll()
        self._counters.poll()
        now = time.monotonic()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_SECONDS
            self._take(self._pipeline.expire(time.time_ns()))
            self._throttle.flush()
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._report()
        return datagrams is not None

    def _decode(self, datagrams: Datagrams) -> None:
        begun = time.perf_counter()
        decoded = self._pipeline.decode(datagrams)
        self._book.observe("ingest_decode_seconds", time.perf_counter() - begun)
        self._count_received(datagrams, decoded)
        self._book.observe("ingest_batch_records", decoded.records)
        self._take(decoded)
        if decoded.heard:
            self._channel.send(Observed(tuple(decoded.heard)))
        if decoded.facts:
            self._channel.send(Facts(tuple(decoded.facts)))
        if decoded.learned:
            self._channel.send(Templates(tuple((item.key, item.template) for item in decoded.learned)))

    def _take(self, decoded: Decoded) -> None:
        """Count what was decoded, and put it in the outbox."""
        now_ns = time.monotonic_ns()
        for batch in decoded.batches:
            label = TYPE_LABELS[batch.column("type").dictionary[0].as_py()]
            self._book.add("ingest_records_decoded_total", batch.num_rows, protocol=label)
            if not self._outbox.add(self._sampling.apply(batch), now_ns):
                self._drop("produce", Refusal.QUEUE_FULL.value, Unit.RECORDS, batch.num_rows)
        for batch in decoded.counters:
            self._book.add("ingest_counters_decoded_total", batch.num_rows)
            self._counters.add(batch, now_ns)
        if decoded.options_records:
            self._book.add("ingest_options_records_total", decoded.options_records)
        for (fault, unit), count in decoded.faults.items():
            self._drop("decode", fault.value, unit, count)
        for oddity, count in decoded.oddities.items():
            if count:
                self._book.add("ingest_oddities_total", count, reason=oddity.value)
        for kind, count in decoded.skipped.items():
            self._book.add("ingest_skipped_total", count, kind=kind)

    def _count_received(self, datagrams: Datagrams, decoded: Decoded) -> None:
        code = np.full(len(datagrams), len(LABEL_CODES) - 1, np.int64)
        for at, version in enumerate(PROTOCOL_LABELS):
            code[decoded.version == version] = at
        cell = datagrams.listener.astype(np.int64) * len(LABEL_CODES) + code
        size = len(self._listeners) * len(LABEL_CODES)
        count = np.bincount(cell, minlength=size)
        octets = np.bincount(cell, datagrams.length, size)
        for at in np.flatnonzero(count).tolist():
            labels = {
                "listener": self._listeners[at // len(LABEL_CODES)],
                "protocol": LABEL_CODES[at % len(LABEL_CODES)],
            }
            self._book.add("ingest_datagrams_received_total", int(count[at]), **labels)
            self._book.add("ingest_bytes_received_total", int(octets[at]), **labels)

    def _count_receive_faults(self) -> None:
        for fault, count in self._receiver.take_faults().items():
            if fault is ReceiveFault.TOO_LONG:
                self._taken.value += count
                self._book.add(
                    "ingest_datagrams_received_total", count, listener=self._listeners[0], protocol="unknown"
                )
                self._drop("receive", fault.value, Unit.DATAGRAMS, count)
            else:
                self._book.add("ingest_oddities_total", count, reason=fault.value)

    def _send(self, now_ns: int, *, everything: bool = False) -> None:
        if self._partitions and (everything or self._outbox.due(self._partitions, now_ns)):
            for partition, batch in self._outbox.take(self._partitions):
                self._producer.send(partition, batch)
        if self._partitions:
            # All topics are made together: when one is there, so are the others, or they will not be.
            self._counters.send(now_ns, everything=everything)

    def _obey(self) -> None:
        for message in self._channel.take():
            if isinstance(message, Partitions):
                self._partitions = message.count
            elif isinstance(message, Templates):
                self._take(self._pipeline.learn(message.templates))
            elif isinstance(message, Facts):
                self._pipeline.options.learn(message.facts)
            elif isinstance(message, Mapped):
                self._pipeline.map(message.mapping)
            elif isinstance(message, LogLevel):
                log.set_level(message.level)
            elif isinstance(message, Stop):
                self._stopping = True
        if self._channel.gone.is_set():
            # Nobody is left to report to; what was received is still delivered.
            self._stopping = True

    def _finish(self) -> None:
        """Take the sockets out of traffic, read them dry, and see everything to its end."""
        for member in self._sockets:
            drain(member)
        deadline = time.monotonic() + DRY_SECONDS
        while self._turn(0, 0):
            if time.monotonic() > deadline:
                # A socket that could not be taken out of traffic never runs dry under load.
                self._log.warning("stopping with datagrams still coming", seconds=DRY_SECONDS)
                break
        # A datagram may have been on its way into a queue when the socket was taken out of traffic.
        self._turn(10_000_000, 0)
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._outbox.records and not self._partitions and time.monotonic() < deadline:
            # No broker has answered yet: where the records have to go is not known until one does.
            self._turn(IDLE_WAIT_NS, 0)
        self._send(time.monotonic_ns(), everything=True)
        self._producer.close(max(0.0, deadline - time.monotonic()), self._report)
        self._counters.close(COUNTERS_FLUSH_SECONDS, self._report)
        if self._outbox.records:
            self._refused(Refusal.NOT_ACKNOWLEDGED, self._outbox.records)
            self._outbox.clear()
        waiting = self._pipeline.parking.clear()
        if waiting:
            self._drop("decode", "awaiting_template", Unit.SETS, waiting)
        self._throttle.flush(everything=True)
        self._report(last=True)
        self._channel.close()

    def _refused(self, refusal: Refusal, records: int) -> None:
        self._drop("produce", refusal.value, Unit.RECORDS, records)

    def _refused_counters(self, refusal: Refusal, rows: int) -> None:
        self._drop("produce", refusal.value, Unit.COUNTERS, rows)

    def _drop(self, stage: str, reason: str, unit: Unit, count: int) -> None:
        self._book.add("ingest_dropped_total", count, stage=stage, reason=reason, unit=unit.value)
        # Decoders meet odd datagrams every day; records that were whole and got lost are another matter.
        level = "error" if stage == "produce" else "warning"
        self._throttle.log(
            self._log, level, (stage, reason), "dropped", during=stage, reason=reason, unit=unit.value, count=count
        )

    def _report(self, *, last: bool = False) -> None:
        book = self._book
        book.set("ingest_parked_bytes", self._pipeline.parking.bytes)
        book.set("ingest_parked_sets", self._pipeline.parking.sets)
        book.set("ingest_outbox_records", self._outbox.records)
        book.set("ingest_records_in_flight", self._outbox.records + self._producer.in_flight_records)
        book.set("ingest_counters_in_flight", self._counters.in_flight)
        self._channel.send(Report(book.snapshot(), last))
