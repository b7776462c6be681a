"""A worker: receive, decode, gather, produce. One process, one thread on the hot path."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from ingest.config import IngestSettings
from ingest.control import (
    Channel,
    Facts,
    Forget,
    Known,
    LogLevel,
    Mapped,
    Message,
    Observed,
    Partitions,
    Ready,
    Report,
    Reported,
    Sampled,
    Settled,
    Stop,
    Templates,
    Told,
    Used,
    Words,
)
from ingest.counters import CounterOutbox, CounterStream
from ingest.decoders import Datagrams, Decoded, Fault, Oddity, Unit
from ingest.decoders.mapping import FieldMapping
from ingest.decoders.origin import TYPE_NAMES
from ingest.known_exporters import KnownExporters
from ingest.ledger import PARK_STAGE
from ingest.outbox import MessageBounds, Outbox
from ingest.pipeline import Pipeline
from ingest.producer import RecordProducer, Refusal
from ingest.receive import ReceiveFault, Receiver
from ingest.samples import GatheredSamples
from ingest.sampling import SamplingRates
from ingest.sockets import drain
from ingest.spool import Share
from ingest.spooling import WorkerSpool
from ingest.statistics import read_statistics
from ingest.undecoded.waiting import LAST_SECONDS, Names, WaitingSets, WaitingShare, parking_bounds
from shared import log
from shared.allocator import keep_memory
from shared.kafka import COUNTERS, QUEUE_BYTES, RECORDS, full_name, producer_properties
from shared.metrics import Book

REPORT_SECONDS: Final = 0.25
EXPIRE_SECONDS: Final = 30.0
OBEY_SECONDS: Final = 0.05
"""How long a worker does what it was told, a message at a time, until it looks at its sockets: when it starts, it may
be told all that is known of thousands of exporters."""

TELL_AGAIN_SECONDS: Final = 600.0
"""How often a template that is in use is told to be so."""

IDLE_WAIT_NS: Final = 100_000_000
"""How long an idle worker waits for a datagram: so late is an acknowledgement counted at the latest."""

DRAIN_WAIT_NS: Final = 5_000_000
"""The same while there is something in the spool to send."""

FLUSH_SECONDS: Final = 30.0
"""How long a stopping worker waits for Kafka to acknowledge what it sent."""

HAND_OVER_SECONDS: Final = 10.0
"""How long a stopping worker waits for room in the queue of sets that wait for their template."""

COUNTERS_FLUSH_SECONDS: Final = 2.0
"""How long it then waits for the counter samples: they were sent at the same time."""

DRY_SECONDS: Final = 10.0
"""How long a stopping worker reads what its sockets have queued."""

OUTBOX_BYTES: Final = 256 << 20
"""Records that are held while the partitions of the topic are not known, since no broker answered yet."""

COUNTERS_BYTES: Final = 32 << 20
"""The same for counter samples; and for those that wait in the client's queue."""

RECORD_BYTES: Final = 80
"""Turns a bound of records into one of bytes: a flow record on the wire has 48 of NetFlow v5 to more than 200 of sFlow."""

PROTOCOL_LABELS: Final = {0: "sflow", 1: "v1", 5: "v5", 7: "v7", 9: "v9", 10: "ipfix"}
LABEL_CODES: Final = (*PROTOCOL_LABELS.values(), "unknown")
TYPE_LABELS: Final = {TYPE_NAMES[version]: label for version, label in PROTOCOL_LABELS.items()}


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
    known: KnownExporters
    spool: Share | None = None
    """Its part of the spool, where one is configured."""
    waiting: WaitingShare = field(default_factory=WaitingShare)
    """What it has to do with sets that wait in Kafka."""


def run_worker(arguments: WorkerArguments) -> None:
    """What the spawned process does; ends when it is told to stop, or when the supervisor is gone."""
    # A terminal's Ctrl-C reaches all processes of the group; only the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.configure(arguments.settings.log, "ingest")
    keep_memory()
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
        self._pipeline = Pipeline(
            parking=parking_bounds(config.templates), decapsulate=config.decapsulate, mapping=arguments.mapping
        )
        self._sampling = SamplingRates(config.sampling.overrides, config.sampling.default)
        self._known = arguments.known
        bounds = MessageBounds(
            config.message.max_records, config.message.max_bytes, config.message.max_age_ms * 1_000_000
        )
        self._outbox = Outbox(bounds, OUTBOX_BYTES)
        name = f"ingest-{socket.gethostname()}-{arguments.name}-{os.getpid()}"
        topic, counters = full_name(kafka, RECORDS), full_name(kafka, COUNTERS)
        self._spool = WorkerSpool(
            config.spool, arguments.spool, [topic, counters], kafka.partitions, self._book, self._log, self._drop
        )
        # With a spool, what is in the queue is kept beside it as well.
        queue_bytes = QUEUE_BYTES // 2 if self._spool else QUEUE_BYTES
        self._producer = RecordProducer(
            producer_properties(kafka, f"sluiceway-ingest-{arguments.name}", queue_bytes=queue_bytes),
            topic,
            name,
            self._book,
            self._refused,
            spool=self._spool.log(topic),
            failed=self._spool.failed,
        )
        properties = producer_properties(
            kafka, f"sluiceway-ingest-{arguments.name}-counters", queue_bytes=COUNTERS_BYTES
        )
        self._counters = CounterStream(
            CounterOutbox(bounds, COUNTERS_BYTES),
            RecordProducer(
                properties,
                counters,
                name,
                self._book,
                self._refused_counters,
                spool=self._spool.log(counters),
                failed=self._spool.failed,
            ),
            self._refused_counters,
        )
        self._waiting = WaitingSets(
            kafka,
            config.templates,
            Names(name, f"sluiceway-ingest-{arguments.name}"),
            arguments.waiting,
            bounds,
            self._pipeline,
            self._book,
            drop=self._drop,
            note=self._note,
            complete=self._completed,
            label=TYPE_LABELS.__getitem__,
        )
        self._samples = GatheredSamples()
        self._taken = arguments.taken
        self._partitions = 0
        self._stopping = False
        self._next_report = 0.0
        self._next_expiry = 0.0
        self._told_used = set[bytes]()
        self._next_told = 0.0

    def run(self) -> None:
        """Work until told to stop; everything received by then is sent, or counted."""
        self._spool.open()
        self._producer.start()
        self._counters.start()
        self._channel.start()
        self._channel.send(Ready())
        while not self._stopping:
            self._turn(DRAIN_WAIT_NS if self._producer.draining else IDLE_WAIT_NS, self._max_age_ns)
            fatal = self._producer.fatal or self._counters.fatal
            if fatal is not None:
                self._log.error("the Kafka client can produce no more, starting anew", error=fatal)
                self._waiting.leave_group()
                self._save()
                self._waiting.hand_over(time.monotonic() + LAST_SECONDS, self._partitions)
                self._waiting.close(LAST_SECONDS, self._report)
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
        self._waiting.turn(time.monotonic_ns(), self._partitions)
        self._send(time.monotonic_ns())
        self._producer.poll()
        self._counters.poll()
        self._spool.tend()
        now = time.monotonic()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_SECONDS
            self._tell_used(now)
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
        if self._samples.add(decoded.samples):
            self._tell_samples()
        if decoded.words:
            self._channel.send(Words(tuple(decoded.words)))

    def _tell_used(self, now: float) -> None:
        """Tell which templates are in use, each once in a while."""
        if now >= self._next_told:
            self._next_told = now + TELL_AGAIN_SECONDS
            self._told_used.clear()
        used = [key for key in self._pipeline.templates.take_used() if key not in self._told_used]
        self._told_used.update(used)
        if used:
            self._channel.send(Used(b"".join(used)))

    def _take(self, decoded: Decoded) -> None:
        """Count what was decoded, and put it in the outbox."""
        now_ns = time.monotonic_ns()
        for batch in decoded.batches:
            label = TYPE_LABELS[batch.column("type").dictionary[0].as_py()]
            self._book.add("ingest_records_decoded_total", batch.num_rows, protocol=label)
            if not self._outbox.add(self._completed(batch), now_ns):
                self._drop("produce", Refusal.QUEUE_FULL.value, Unit.RECORDS, batch.num_rows)
        for batch in decoded.counters:
            self._book.add("ingest_counters_decoded_total", batch.num_rows)
            self._counters.add(batch, now_ns)
        self._note(decoded)

    def _completed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Records with what the configuration knows of them."""
        return self._known.join(self._sampling.apply(batch))

    def _note(self, decoded: Decoded) -> None:
        """Count what came besides records and counter samples, and pass on what options data told."""
        if decoded.facts:
            self._channel.send(Facts(tuple(decoded.facts)))
        readings, passed_over = read_statistics(decoded.options)
        if passed_over:
            self._book.add("ingest_table_full_total", passed_over, table="reported_totals")
        if readings:
            self._channel.send(Reported(tuple(readings)))
        if decoded.options_records:
            self._book.add("ingest_options_records_total", decoded.options_records)
        for (fault, unit), count in decoded.faults.items():
            self._drop(PARK_STAGE if fault is Fault.TEMPLATE_NEVER_CAME else "decode", fault.value, unit, count)
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
        partitions = self._partitions or self._spool.partitions(at_once=everything)
        if partitions and (everything or self._outbox.due(partitions, now_ns)):
            for partition, batch in self._outbox.take(partitions):
                self._producer.send(partition, batch)
        if partitions:
            # All topics are made together: when one is there, so are the others, or they will not be.
            self._counters.send(now_ns, everything=everything)

    def _obey(self) -> None:
        """Do what the supervisor says, as much as there is time for before datagrams have to be read again."""
        deadline = time.monotonic() + OBEY_SECONDS
        while time.monotonic() < deadline and (messages := self._channel.take(1)):
            (message,) = messages
            if isinstance(message, Partitions):
                self._partitions = message.count
                self._spool.note_partitions(message.count)
            elif isinstance(message, Mapped):
                self._pipeline.map(message.mapping)
            elif isinstance(message, Known):
                self._known = message.exporters
            elif isinstance(message, LogLevel):
                log.set_level(message.level)
            elif isinstance(message, Stop):
                self._stopping = True
            else:
                self._learn(message)
        if self._channel.gone.is_set():
            # Nobody is left to report to; what was received is still delivered.
            self._stopping = True

    def _learn(self, message: Message) -> None:
        """Take in what other workers and other instances have heard."""
        if isinstance(message, Templates):
            self._take(self._pipeline.learn(message.templates))
        elif isinstance(message, Facts):
            self._pipeline.options.learn(message.facts)
        elif isinstance(message, Told):
            # What was learned stays: to look through all of it for what could go would stop the loop for a while.
            gc.freeze()
            self._channel.send(message)
        elif isinstance(message, Settled):
            self._pipeline.templates.settle(message.keys)
        elif isinstance(message, Forget):
            self._pipeline.templates.forget(message.keys)

    def _finish(self) -> None:
        """Take the sockets out of traffic, read them dry, and see everything to its end."""
        self._waiting.leave_group()
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
        while self._outbox.records and not self._partitions and not self._spool and time.monotonic() < deadline:
            # No broker has answered yet: where the records have to go is not known until one does.
            self._turn(IDLE_WAIT_NS, 0)
        self._send(time.monotonic_ns(), everything=True)
        self._waiting.hand_over(time.monotonic() + HAND_OVER_SECONDS, self._partitions)
        self._producer.close(max(0.0, deadline - time.monotonic()), self._report)
        self._counters.close(COUNTERS_FLUSH_SECONDS, self._report)
        self._waiting.close(max(LAST_SECONDS, deadline - time.monotonic()), self._report)
        if self._outbox.records:
            self._refused(Refusal.NOT_ACKNOWLEDGED, self._outbox.records)
            self._outbox.clear()
        self._throttle.flush(everything=True)
        self._report(last=True)
        self._spool.close()
        self._channel.close()

    def _save(self) -> None:
        """Bring all that is decoded to the spool, or to Kafka by a client that still can: this process goes on no longer."""
        self._send(time.monotonic_ns(), everything=True)
        if self._spool:
            # After that: a client that is well has just taken what was not sent yet, and ends with the process.
            self._producer.shelter()
            self._counters.shelter()
            return
        if self._producer.fatal is None:
            self._producer.close(LAST_SECONDS, self._report)
        if self._counters.fatal is None:
            self._counters.close(LAST_SECONDS, self._report)

    def _refused(self, refusal: Refusal, records: int) -> None:
        self._drop("produce", refusal.value, Unit.RECORDS, records)

    def _refused_counters(self, refusal: Refusal, rows: int) -> None:
        self._drop("produce", refusal.value, Unit.COUNTERS, rows)

    def _drop(self, stage: str, reason: str, unit: Unit, count: int) -> None:
        self._book.add("ingest_dropped_total", count, stage=stage, reason=reason, unit=unit.value)
        # Decoders meet odd datagrams every day; records that were whole and got lost are another matter.
        level = "error" if stage in {"produce", "spool"} else "warning"
        self._throttle.log(
            self._log, level, (stage, reason), "dropped", during=stage, reason=reason, unit=unit.value, count=count
        )

    def _tell_samples(self) -> None:
        samples = self._samples.take()
        if samples is not None:
            self._channel.send(Sampled(samples))

    def _report(self, *, last: bool = False) -> None:
        self._tell_samples()
        book = self._book
        self._waiting.report()
        refused = self._pipeline.take_refused()
        if refused:
            # Of those that others told: what batches of datagrams told is counted with them.
            book.add("ingest_oddities_total", refused, reason=Oddity.OPTIONS_LIMIT.value)
        book.add("ingest_table_full_total", self._pipeline.templates.take_evicted(), table="templates")
        book.add("ingest_control_left_out_total", self._channel.take_left_out())
        book.set("ingest_parked_bytes", self._pipeline.parking.bytes)
        book.set("ingest_parked_sets", self._pipeline.parking.sets)
        book.set("ingest_outbox_records", self._outbox.records)
        self._spool.report()
        book.set("ingest_records_in_flight", self._outbox.records + self._producer.in_flight_records)
        book.set("ingest_counters_in_flight", self._counters.in_flight)
        self._channel.send(Report(book.snapshot(), last))
