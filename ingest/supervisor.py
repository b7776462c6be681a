"""The supervisor: sockets, workers, signals, HTTP, and what all workers know together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import platform
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from ingest.config import IngestConfig, IngestSettings, reloaded
from ingest.control import (
    MOST_QUEUED,
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
    told_in_parts,
)
from ingest.data_sources import DataSources
from ingest.decoders.enrich import Kind as FactKind
from ingest.decoders.sflow5 import VERSION as SFLOW
from ingest.decoders.sflow_elements import WITH_DROPS
from ingest.decoders.templates import KEY_BYTES
from ingest.exporters import Exporters, address_text
from ingest.exporters_file import load_exporters
from ingest.ledger import Ledger, balances, ledger
from ingest.mapping import load_mapping, names_file
from ingest.sockets import DropCount, ListenerSockets, open_listeners
from ingest.spooling import InstanceSpool, lost_with
from ingest.state.exchange import StateTopic
from ingest.state.knowledge import Changes, Knowledge
from ingest.state.shown import facts_shown, templates_shown
from ingest.statistics import Statistics
from ingest.topics import TopicWatch
from ingest.undecoded.waiting import WaitingShare
from ingest.worker import FLUSH_SECONDS, Taken, WorkerArguments, run_worker
from shared import log
from shared.errors import ConfigError
from shared.kafka import producer, producer_properties
from shared.metrics import METRIC, Book, ExporterLabels, Kind, Snapshot, merge, total
from shared.version import VERSION
from shared.web import Check, WebServer, create_app

TICK_SECONDS: Final = 1.0
SETTLE_TICKS: Final = 5
"""Sequence numbers are judged this often, in ticks: longer than any worker keeps a batch."""

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0
"""A worker that dies again and again is replaced after pauses that double up to this."""

END_SECONDS: Final = 5.0
"""How long a worker that has closed its pipe may take to end."""

STEADY_SECONDS: Final = 60.0
"""A worker that lived for this long is replaced at once."""

EXPORTER_LABELS: Final = 1000
"""Exporters that get series of their own in the metrics; the others share one."""


UNKNOWN: Final = "unknown"

RATES: Final = {
    FactKind.DOMAIN_RATE: "",
    FactKind.SAMPLER_RATE: "sampler",
    FactKind.TEMPLATE_RATE: "template",
    FactKind.INTERFACE_RATE: "interface",
}
"""Facts that tell a sampling rate, and what they tell it of."""


def granted_cpus() -> int:
    """CPUs that this process may use: those it may run on, and what the cgroup's quota grants."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    if quota == "max":
        return cpus
    return max(1, min(cpus, math.ceil(int(quota) / int(period))))


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker process, as the supervisor sees it."""

    index: int
    process: BaseProcess
    channel: Channel
    started: float
    taken: Taken
    """Datagrams that it has taken from its sockets, up to this moment."""
    ready: bool = False
    knows: bool = False
    """It has learned what other instances knew."""
    snapshot: Snapshot = field(default_factory=dict)
    ended: bool = False
    """It said itself that it was done, so nothing of what it counted is missing."""
    leaving: asyncio.Task[None] | None = None
    """What lets go of it, once it is gone."""

    def end(self) -> None:
        """Wait until the process is no more, which is killed if that takes too long, and close its pipe."""
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.channel.close()


class Supervisor:
    """Owns the sockets, keeps the workers running, and answers HTTP. It does not touch a datagram."""

    def __init__(self, settings: IngestSettings, reload: Callable[[], IngestSettings]) -> None:
        self._settings = settings
        """As they were read last."""
        self._of_workers = settings
        """Those of the start, but for what may change: sockets, the spool's shares and topics stay as they were made."""
        self._reload = reload
        self._config: IngestConfig = settings.ingest
        self._log = log.get_logger("ingest.supervisor")
        self._count = granted_cpus() if self._config.workers == "auto" else self._config.workers
        self._book = Book()
        self._lock = threading.Lock()
        self._exporters = Exporters()
        self._sources = DataSources()
        self._statistics = Statistics()
        self._labels = ExporterLabels(EXPORTER_LABELS)
        self._knowledge = Knowledge(
            self._exporters.row,
            self._config.templates.steady_seconds,
            clock=time.monotonic,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            seed=secrets.randbits(63),
        )
        self._mapping = load_mapping(self._config.mapping_file)
        self._names = _FileWatch(names_file(self._config.mapping_file))
        self._exporters_file = _FileWatch(settings.exporters_file)
        self._known = load_exporters(settings.exporters_file)
        self._reading = asyncio.Lock()
        self._tasks = set[asyncio.Task[None]]()
        self._workers: dict[int, _Worker] = {}
        self._past: Snapshot = {}
        self._pauses: dict[int, float] = {}
        self._partitions = 0
        self._listeners: list[ListenerSockets] = []
        self._drops: list[tuple[str, DropCount]] = []
        self._stop = asyncio.Event()
        self._measured = time.monotonic()
        self._stopping = False
        self._all_gone = asyncio.Event()
        self._spawn = multiprocessing.get_context("spawn")
        self._spool = InstanceSpool(self._config.spool, self._spawn.RawArray("q", self._count))
        self._all_told = False
        self._state = StateTopic(
            settings.kafka,
            self._knowledge,
            self._book,
            self._log,
            self._pass_on,
            wait_seconds=self._config.templates.wait_seconds,
            name=f"ingest-{socket.gethostname()}-{os.getpid()}",
        )
        self._topics = TopicWatch(settings.kafka, self._found_partitions, self._state.found, self._log)

    async def run(self) -> None:
        """Serve until a signal says stop, then stop cleanly: nothing that reached a socket is lost.

        Raises StartError when a port is taken, and ConfigError when the Kafka client refuses a property.
        """
        loop = asyncio.get_running_loop()
        # Made to be refused now, where that ends the program, and not in every worker again and again.
        producer(producer_properties(self._settings.kafka, "sluiceway-ingest"))
        self._listeners = open_listeners(self._config.listen, self._count, self._config.receive_buffer_bytes)
        web = self._web()
        await web.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._tell_listeners(web.port)
        for index in range(self._count):
            self._start_worker(index)
        self._topics.start()
        self._state.start()
        ticks = asyncio.create_task(self._tick())
        await self._stop.wait()
        await self._drain()
        ticks.cancel()
        self._topics.stop()
        await asyncio.to_thread(self._state.stop)
        self._poll_sockets()
        books = self.ledger()
        self._log.info("stopped", balances=balances(books), **books)
        await web.stop()
        for listener in self._listeners:
            listener.close()

    def _web(self) -> WebServer:
        http = self._config.http
        app = create_app(
            title="Sluiceway ingest",
            version=VERSION,
            live=lambda: [Check("loop", ok=True, detail="the event loop turns")],
            ready=self.checks,
            snapshot=self.snapshot,
            api={
                "/api/v1/ledger": self.ledger,
                "/api/v1/exporters": self.exporters,
                "/api/v1/templates": self.templates,
                "/api/v1/options": self.options,
            },
            token=self._token,
        )
        return WebServer(http.listen, app, key="ingest.http.listen")

    def _token(self) -> str | None:
        token = self._settings.ingest.http.token
        return None if token is None else token.get_secret_value()

    def _tell_listeners(self, http_port: int) -> None:
        self._book.set("build_info", 1, version=VERSION, python=platform.python_version())
        for text, listener in zip(self._config.listen, self._listeners, strict=True):
            label = str(text)
            self._drops.append((label, DropCount(listener.sockets)))
            self._book.add("ingest_socket_drops_total", 0, listener=label)
            self._book.set(
                "ingest_socket_buffer_bytes", listener.receive_buffer_bytes * len(listener.sockets), listener=label
            )
            self._log.info(
                "listening",
                address=listener.address,
                port=listener.port,
                sockets=len(listener.sockets),
                receive_buffer_bytes=listener.receive_buffer_bytes,
            )
            for remark in listener.remarks:
                self._log.warning("not all that was asked for", listener=label, remark=remark)
        self._log.info("serving HTTP", listen=self._config.http.listen, port=http_port)

    # Workers

    def _start_worker(self, index: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        taken = self._spawn.RawValue("q", 0)
        sockets = [listener.sockets[index] for listener in self._listeners]
        arguments = WorkerArguments(
            self._of_workers,
            sockets,
            theirs,
            f"worker-{index}",
            self._mapping,
            taken,
            self._known,
            self._spool.share(index),
            WaitingShare(self._count, reads=index == 0),
        )
        process = self._spawn.Process(target=run_worker, args=(arguments,), name=f"worker-{index}")
        process.start()
        theirs.close()
        worker = _Worker(index, process, Channel(ours), time.monotonic(), taken)
        with self._lock:
            self._workers[index] = worker
            # Within the lock, so that nothing newer is told to it before this.
            for told in told_in_parts(self._knowledge.templates(), self._knowledge.facts()):
                worker.channel.send(told)
            if self._all_told:
                worker.channel.send(Told())
        if self._partitions:
            worker.channel.send(Partitions(self._partitions))
        worker.channel.start()
        asyncio.get_running_loop().add_reader(worker.channel.descriptor, self._listen_to, worker)
        self._book.set("ingest_workers", len(self._workers))

    def _listen_to(self, worker: _Worker) -> None:
        # Asked first: what came before the end is still taken.
        gone = worker.channel.gone.is_set()
        for message in worker.channel.take():
            self._hear(worker, message)
        if gone:
            self._leave(worker)

    def _hear(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Report):
            with self._lock:
                worker.snapshot = message.snapshot
                self._spool.take_over(worker.index)
            worker.ended = message.last
        elif isinstance(message, Observed):
            with self._lock:
                for heard in message.heard:
                    self._knowledge.observe(self._exporters.hear(heard), heard)
        elif isinstance(message, Sampled):
            with self._lock:
                self._sources.hear(message.samples)
        elif isinstance(message, Reported):
            with self._lock:
                self._statistics.hear(message.readings)
        elif isinstance(message, Words):
            self._hear_words(worker, message)
        elif isinstance(message, Used):
            self._knowledge.use([message.keys[at : at + KEY_BYTES] for at in range(0, len(message.keys), KEY_BYTES)])
        elif isinstance(message, Facts):
            self._knowledge.hear_facts(message.facts)
            self._send_all(message, besides=worker)
        elif isinstance(message, Told):
            worker.knows = True
        elif isinstance(message, Ready):
            worker.ready = True
            self._log.info("a worker receives", worker=worker.process.name, pid=worker.process.pid)

    def _hear_words(self, worker: _Worker, message: Words) -> None:
        settled = self._knowledge.hear(message.words)
        changed = tuple((word.key, word.template) for word in message.words if word.changed)
        if changed:
            self._send_all(Templates(changed), besides=worker)
        if settled:
            self._send_all(Settled(tuple(settled)))

    def _pass_on(self, changes: Changes) -> None:
        """Tell the workers what other instances told; called by the thread that follows the topic."""
        for told in told_in_parts(changes.templates, changes.facts):
            self._send_all(told)
        if changes.forgotten:
            self._send_all(Forget(tuple(changes.forgotten)))
        if changes.read:
            with self._lock:
                self._all_told = True
                for worker in self._workers.values():
                    worker.channel.send(Told())

    def _send_all(self, message: Message, *, besides: _Worker | None = None) -> None:
        with self._lock:
            for worker in self._workers.values():
                if worker is not besides:
                    worker.channel.send(message)

    def _leave(self, worker: _Worker) -> asyncio.Task[None]:
        """Let go of a worker that has closed its pipe, or was killed; the same task each time."""
        if worker.leaving is None:
            worker.ready = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(worker.channel.descriptor)
            worker.leaving = loop.create_task(self._gone(worker))
        return worker.leaving

    async def _gone(self, worker: _Worker) -> None:
        # Aside, since it may take seconds, and whoever asks over HTTP is answered meanwhile.
        await asyncio.to_thread(worker.end)
        with self._lock:
            self._past = merge([self._past, _final(worker)])
            self._spool.leave(worker.index, worker.snapshot)
            if self._workers.get(worker.index) is worker:
                del self._workers[worker.index]
        self._book.set("ingest_workers", len(self._workers))
        if self._stopping:
            if not self._workers:
                self._all_gone.set()
            return
        lived = time.monotonic() - worker.started
        pause = FIRST_PAUSE_SECONDS
        if lived < STEADY_SECONDS:
            pause = min(LONGEST_PAUSE_SECONDS, 2 * self._pauses.get(worker.index, FIRST_PAUSE_SECONDS / 2))
        self._pauses[worker.index] = pause
        self._book.add("ingest_worker_restarts_total")
        self._log.error(
            "a worker died and is replaced; what its sockets have queued is kept",
            worker=worker.process.name,
            exit_code=worker.process.exitcode,
            records_lost=0 if worker.ended else lost_with(worker.snapshot)["records"],
            pause_seconds=pause,
        )
        asyncio.get_running_loop().call_later(pause, self._replace, worker.index)

    def _replace(self, index: int) -> None:
        if not self._stopping:
            self._start_worker(index)

    def _found_partitions(self, count: int) -> None:
        """Called by the thread that watches the topics."""
        self._partitions = count
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.channel.send(Partitions(count))

    # Signals and the clock

    def _signalled(self) -> None:
        if self._stop.is_set():
            for worker in list(self._workers.values()):
                worker.process.kill()
                self._past = merge([self._past, _final(worker)])
                self._spool.leave(worker.index, worker.snapshot)
            self._workers.clear()
            books = self.ledger()
            self._log.warning("stopping at once, on a second signal", balances=balances(books), **books)
            os._exit(0)
        self._log.info("stopping", drain_seconds=self._config.drain_seconds)
        self._stop.set()

    def _hang_up(self) -> None:
        try:
            settings = self._reload()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the service goes on as it was
            self._log.error("the configuration was not read again", reason=str(error))
            return
        self._settings, self._of_workers = settings, reloaded(self._of_workers, settings)
        mapped = self._map()
        self._start_reading_exporters()
        log.set_level(settings.log.level)
        for worker in self._workers.values():
            worker.channel.send(LogLevel(settings.log.level))
        self._log.info(f"read again: {'mapping, ' if mapped else ''}log level and secrets")

    def _map(self) -> bool:
        """Read the mapping again; one that is not as it has to be leaves the one that holds, and is told."""
        path = self._settings.ingest.mapping_file
        try:
            # Looked at before it is read: what changes meanwhile is noticed then.
            names = _FileWatch(names_file(path))
            self._mapping, self._names = load_mapping(path), names
        except ConfigError as error:
            self._log.error("the mapping was not read again, the one before still holds", reason=str(error))
            return False
        for worker in self._workers.values():
            worker.channel.send(Mapped(self._mapping))
        return True

    def _start_reading_exporters(self) -> None:
        task = asyncio.get_running_loop().create_task(self._read_exporters())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_exporters(self) -> None:
        """Read the exporters file again; one that is not as it has to be leaves what is known, and is told."""
        async with self._reading:
            path = self._settings.exporters_file
            # Looked at before it is read: what changes meanwhile is noticed then.
            self._exporters_file = _FileWatch(path)
            try:
                # In a thread: a large file takes seconds, in which probes have to be answered.
                known = await asyncio.to_thread(load_exporters, path)
            except ConfigError as error:
                self._log.error("the exporters file was not read again, the one before still holds", reason=str(error))
                return
            if path is not None or len(self._known):
                self._log.info("the exporters file was read again", exporters=len(known))
            self._known = known
            for worker in self._workers.values():
                worker.channel.send(Known(known))

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            self._poll_sockets()
            self._end_the_deaf()
            if self._names.changed():
                self._map()
            if self._exporters_file.changed():
                self._start_reading_exporters()
            if ticks % SETTLE_TICKS == 0:
                self._settle()

    def _poll_sockets(self) -> None:
        for label, drops in self._drops:
            dropped = drops.take()
            if dropped:
                self._book.add("ingest_socket_drops_total", dropped, listener=label)
                self._log.warning(
                    "the kernel dropped datagrams, since a receive buffer was full: more workers or a larger"
                    " ingest.receive_buffer_bytes help (and net.core.rmem_max, where we may not exceed it)",
                    listener=label,
                    datagrams=dropped,
                )

    def _end_the_deaf(self) -> None:
        """End a worker that no longer takes what it is told, such as a stopped one: it would miss templates."""
        for worker in self._workers.values():
            if worker.channel.queued > MOST_QUEUED:
                self._log.error("a worker does not listen and is ended", worker=worker.process.name)
                worker.process.kill()

    def _settle(self, *, everything: bool = False) -> None:
        with self._lock:
            lost = self._exporters.settle(everything=everything)
            self._sources.settle(everything=everything)
            self._statistics.settle(everything=everything)
            now = time.monotonic()
            self._exporters.measure(max(now - self._measured, 0.001))
            self._measured = now
        for exporter, units in lost.items():
            self._book.add("ingest_sequence_lost_total", units, exporter=self._labels.label(exporter))

    async def _drain(self) -> None:
        """Go on receiving for the drain time, then let the workers finish."""
        await asyncio.sleep(self._config.drain_seconds)
        self._stopping = True
        for worker in list(self._workers.values()):
            worker.channel.send(Stop())
        if self._workers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), FLUSH_SECONDS + 10)
        for worker in list(self._workers.values()):
            self._log.error("a worker did not stop in time and is ended", worker=worker.process.name)
            worker.process.kill()
            await self._leave(worker)
        self._settle(everything=True)

    # What is shown

    def checks(self) -> Sequence[Check]:
        """What has to be well before datagrams may be sent here."""
        with self._lock:
            receiving = sum(worker.ready for worker in self._workers.values())
            learning = sum(not worker.knows for worker in self._workers.values())
        return [
            Check("serving", ok=not self._stop.is_set(), detail="stopping" if self._stop.is_set() else "serving"),
            Check("workers", ok=receiving == self._count, detail=f"{receiving} of {self._count} workers receive"),
            self._topics.check(),
            self._state.check(learning),
        ]

    def snapshot(self) -> Snapshot:
        """Everything that was counted, by workers that are gone too."""
        shown = Book()
        with self._lock:
            parts = [self._past, self._spool.snapshot(), *(worker.snapshot for worker in self._workers.values())]
            shown.set("ingest_templates", self._knowledge.sizes().templates)
            shown.set("ingest_exporters", len(self._exporters))
            facts = self._exporters.facts()
            shown.set("ingest_data_sources", len(self._sources))
            samples = self._sources.facts()
            shown.set("ingest_reported_totals", len(self._statistics))
            rises = list(self._statistics.rise.items())
            shown.add("ingest_table_full_total", self._exporters.unlisted, table="exporters")
            shown.add("ingest_table_full_total", self._sources.unlisted, table="data_sources")
            shown.add("ingest_table_full_total", self._statistics.unlisted, table="reported_totals")
        for of in samples:
            labels = {"exporter": self._labels.label(of.agent), "kind": of.kind.name.lower()}
            shown.add("ingest_samples_lost_total", of.lost, **labels)
            if of.kind in WITH_DROPS:
                shown.add("ingest_samples_agent_dropped_total", of.dropped, **labels)
        for (source, statistic), rise in rises:
            label = self._labels.label(address_text(source))
            shown.add("ingest_exporter_reported_total", rise, exporter=label, statistic=statistic)
        for one in facts:
            label = self._labels.label(one.exporter)
            shown.add("ingest_exporter_datagrams_total", one.datagrams, exporter=label)
            shown.add("ingest_exporter_records_total", one.records, exporter=label)
        latest: dict[str, int] = {}
        for one in facts:
            label = self._labels.label(one.exporter)
            latest[label] = max(latest.get(label, 0), one.last_seen_ns)
        for label, seen_ns in latest.items():
            shown.set("ingest_exporter_last_seen_timestamp_seconds", seen_ns / 1e9, exporter=label)
        return merge([*parts, self._book.snapshot(), shown.snapshot()])

    def ledger(self) -> Ledger:
        """What was received, and what became of it: received = delivered + dropped + in flight."""
        return ledger(self.snapshot())

    def exporters(self, limit: int = 1000) -> list[dict[str, object]]:
        """What is known of each exporter and observation domain; losses are in the unit of the protocol's sequence."""
        with self._lock:
            facts = self._exporters.facts()
            counted = self._sources.facts()
            reported = self._statistics.facts()
        samples: dict[tuple[str, int, int], dict[str, dict[str, int]]] = {}
        for of in counted:
            numbers = {"data_sources": of.sources, "lost": of.lost}
            if of.kind in WITH_DROPS:
                numbers["dropped_by_agent"] = of.dropped
            samples.setdefault((of.agent, SFLOW, of.sub_agent), {})[of.kind.name.lower()] = numbers
        totals: dict[tuple[str, int, int], dict[str, dict[str, int]]] = {}
        for by in reported:
            totals.setdefault((address_text(by.source), by.version, by.domain), {})[by.scope] = dict(by.totals)
        sampling: dict[tuple[str, int, int], dict[str, int]] = {}
        for fact in self._knowledge.facts():
            if fact.kind in RATES and isinstance(fact.value, int):
                rates = sampling.setdefault((address_text(fact.source), fact.version, fact.domain), {})
                rates[f"{RATES[fact.kind]} {fact.about}" if RATES[fact.kind] else "default"] = fact.value
        return [
            {
                "exporter": one.exporter,
                "version": one.version,
                "observation_domain_id": one.observation_domain_id,
                "sampling": sampling.get((one.exporter, one.version, one.observation_domain_id), {}),
                "first_seen": one.first_seen_ns / 1e9,
                "last_seen": one.last_seen_ns / 1e9,
                "datagrams": one.datagrams,
                "records": one.records,
                "datagrams_per_second": one.datagrams_per_second,
                "records_per_second": one.records_per_second,
                "undecoded_sets": one.undecoded,
                "sequence_lost": one.lost,
                "sequence_uncertain": one.uncertain,
                "samples": samples.get((one.exporter, one.version, one.observation_domain_id), {}),
                "reported": totals.get((one.exporter, one.version, one.observation_domain_id), {}),
                "restarts": one.restarts,
            }
            for one in facts[:limit]
        ]

    def options(self, exporter: str | None = None, limit: int = 1000) -> list[dict[str, object]]:
        """What options data told: rates, names and clocks, of one exporter or of all.

        Names are those of the exporter as a whole; rates and clocks belong to an observation domain.
        """
        return facts_shown(self._knowledge.shown_facts(), exporter, limit)

    def templates(self, exporter: str | None = None, limit: int = 1000) -> list[dict[str, object]]:
        """The templates that are known, of one exporter or of all; a field is [enterprise, element, length].

        `origin` is `wire`, or `topic` when another instance heard it; `holds` is false for a redefinition that is not
        believed yet.
        """
        return templates_shown(self._knowledge.shown_templates(), exporter, limit)


class _FileWatch:
    """Notices when a file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether the file is another than when this was last asked."""
        stamp = self._stamp()
        changed, self._seen = stamp != self._seen, stamp
        return changed

    def _stamp(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size


def _final(worker: _Worker) -> Snapshot:
    """What a worker that is gone leaves: its counters; what it had in flight is lost, unless it ended by itself."""
    kept = {name: series for name, series in worker.snapshot.items() if METRIC[name].kind is not Kind.GAUGE}
    if worker.ended:
        return kept
    book = Book()
    unseen = worker.taken.value - int(total(worker.snapshot, "ingest_datagrams_received_total"))
    if unseen > 0:
        # Taken from a socket after its last report: nobody knows any more which, nor what became of them.
        book.add("ingest_datagrams_received_total", unseen, listener=UNKNOWN, protocol=UNKNOWN)
        book.add("ingest_dropped_total", unseen, stage="worker", reason="worker_died", unit="datagrams")
    for unit, lost in lost_with(worker.snapshot).items():
        if lost:
            book.add("ingest_dropped_total", lost, stage="worker", reason="worker_died", unit=unit)
    return merge([kept, book.snapshot()])
