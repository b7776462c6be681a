"""The whole of stage two in one process: its sinks, each in its threads, the watch over the topic, and HTTP."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from forwarder.consumer import Listener, LogConsumer
from forwarder.delivery import Delivery, Policy
from forwarder.heartbeat import BrokerClock, Heart
from forwarder.ledger import Ledger
from forwarder.letters import KafkaLetterbox
from forwarder.service import Plan, SinkService
from forwarder.shape import shape_of
from forwarder.sinks import build
from forwarder.topic import TopicWatch
from shared.errors import SluicewayError
from shared.log import Throttle, get_logger, set_level
from shared.metrics import Book
from shared.web import Check, WebServer, create_app

if TYPE_CHECKING:
    from fastapi import FastAPI

    from forwarder.config import ForwarderSettings
    from forwarder.sinks.base import Sink

NAME: Final = "sluiceway-forwarder"


@dataclass(frozen=True, slots=True)
class Line:
    """One sink with all that serves it."""

    kind: str
    sink: Sink
    delivery: Delivery
    service: SinkService


class Stage:
    """Runs the sinks named, or all; ``reload`` reads the settings again, for what may change while it runs."""

    def __init__(
        self,
        settings: ForwarderSettings,
        sinks: Sequence[str],
        reload: Callable[[], ForwarderSettings],
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._log = get_logger("stage")
        self._throttle = Throttle()
        self._book = Book()
        self._token = _token(settings)
        self._watch = TopicWatch(settings.kafka, self._usable)
        self._lines = {name: self._line(name) for name in sinks}
        self._stopping = False
        self._wake: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Work until a signal; raises StartError when a sink or the HTTP port cannot be had."""
        loop = asyncio.get_running_loop()
        stopped, usable = asyncio.Event(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(usable.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, stopped)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)
        self._book.set("build_info", 1, version=_version(), python=platform.python_version())
        server = WebServer(self._settings.forwarder.http.listen, self._app(), key="forwarder.http.listen")
        for line in self._lines.values():
            await asyncio.to_thread(line.sink.open)
        await server.start()
        try:
            self._watch.start()
            self._log.info("started", http_port=server.port, sinks=list(self._lines), topic=self._watch.topic)
            starting = asyncio.create_task(self._start_when(usable))
            await stopped.wait()
            starting.cancel()
            await asyncio.to_thread(self._stop)
        finally:
            await server.stop()

    async def _start_when(self, usable: asyncio.Event) -> None:
        """Start the sinks when there is a topic to consume; until then the probes say what is missing."""
        await usable.wait()
        for line in self._lines.values():
            line.service.start()

    def _usable(self) -> None:
        self._wake()

    def _stop(self) -> None:
        self._watch.close()
        for line in self._lines.values():
            line.service.stop()
        for line in self._lines.values():
            line.service.join()
            line.sink.close()
        self._throttle.flush(everything=True)
        self._log.info("stopped", **{name: line.service.ledger.as_json() for name, line in self._lines.items()})

    def _signalled(self, stopped: asyncio.Event) -> None:
        if self._stopping:
            self._log.warning("stopped at once by a second signal; what was not delivered stays in Kafka")
            # Not sys.exit: threads that wait for a sink would be waited for.
            os._exit(0)
        self._stopping = True
        self._log.info("stopping: what is cut is delivered, what is not stays in Kafka; a second signal ends at once")
        stopped.set()

    def _read_again(self) -> None:
        """Take over what may change while we run: the log's level and the token of the API."""
        try:
            settings = self._reload()
        except SluicewayError as error:
            self._log.error("the configuration was not read again; the old one stays", reason=str(error))
            return
        set_level(settings.log.level)
        self._token = _token(settings)
        self._log.info("read again: the log's level and the API's token; the rest needs a restart")

    def _line(self, name: str) -> Line:
        settings = self._settings
        config = settings.forwarder.sinks[name]
        sink = build(config)
        clock = BrokerClock()
        client_id = f"{NAME}-{socket.gethostname()}"
        topic = self._watch.topic
        delivery = Delivery(
            sink,
            Policy(),
            name=name,
            topic=topic,
            letterbox=KafkaLetterbox(settings.kafka, f"{client_id}-deadletters", self._book),
            book=self._book,
            throttle=self._throttle,
        )
        heart = Heart(
            settings.kafka, topic=topic, client_id=client_id, clock=clock, throttle=self._throttle, book=self._book
        )

        def connect(listener: Listener) -> LogConsumer:
            group_id = f"{settings.forwarder.group_id}.{name}"
            return LogConsumer(
                settings.kafka,
                topic=topic,
                group_id=group_id,
                client_id=client_id,
                shape=functools.partial(shape_of, settings.forwarder, name),
                listener=listener,
            )

        service = SinkService(
            Plan(
                sink=name,
                topic=topic,
                retention_seconds=settings.kafka.retention_hours * 3600,
            ),
            sink=sink,
            delivery=delivery,
            ledger=Ledger(name, topic, self._book),
            connect=connect,
            pulse=heart,
            clock=clock,
            book=self._book,
            throttle=self._throttle,
        )
        return Line(config.type, sink, delivery, service)

    # --- what is seen

    def _app(self) -> FastAPI:
        return create_app(
            title="Sluiceway forwarder",
            version=_version(),
            live=self._live,
            ready=self._ready,
            snapshot=self._book.snapshot,
            api={
                "/api/v1/ledger": self._ledger,
                "/api/v1/partitions": self._partitions,
                "/api/v1/sinks": self._sinks,
            },
            token=lambda: self._token,
        )

    def _live(self) -> list[Check]:
        return [
            Check(f"sink:{name}", ok=line.service.alive(), detail=line.service.state.phase)
            for name, line in self._lines.items()
        ]

    def _ready(self) -> list[Check]:
        topic = self._watch.state
        checks = [
            Check("running", ok=not self._stopping, detail="stopping" if self._stopping else "running"),
            Check("kafka", ok=topic.reachable, detail="answers" if topic.reachable else topic.detail),
            Check("topic", ok=topic.usable, detail=" ".join(topic.problems) or topic.detail),
        ]
        for name, line in self._lines.items():
            ok, detail = line.service.ready()
            checks.append(Check(f"sink:{name}", ok=ok, detail=detail))
        return checks

    def _ledger(self) -> Mapping[str, Any]:
        """The books of each sink: received = delivered + dropped by reason + in flight, in records."""
        return {name: line.service.ledger.as_json() for name, line in self._lines.items()}

    def _partitions(self) -> Sequence[Mapping[str, Any]]:
        """What each sink has assigned: offsets, lag, what is in flight, and why a partition stands still."""
        return [asdict(one) for line in self._lines.values() for one in line.service.state.partitions]

    def _sinks(self) -> Mapping[str, Any]:
        """How each sink does: its phase, its health, what waits for it, and what it failed last."""
        return {name: _shown(line) for name, line in self._lines.items()}


def _shown(line: Line) -> dict[str, Any]:
    state, health, status = line.service.state, line.sink.health(), line.delivery.status()
    return {
        "type": line.kind,
        "phase": state.phase,
        "detail": state.detail,
        "health": {"ok": health.ok, "detail": health.detail},
        "partitions": len(state.partitions),
        # There is none yet; the key is part of the contract.
        "breaker": None,
        "concurrency": status.concurrency,
        "queue": {"batches": status.batches, "records": status.records, "bytes": status.bytes},
        "latency_seconds": status.latency_seconds,
        "last_error": status.last_error,
    }


def _token(settings: ForwarderSettings) -> str | None:
    token = settings.forwarder.http.token
    return None if token is None else token.get_secret_value()


def _version() -> str:
    try:
        return version("sluiceway")
    except PackageNotFoundError:
        return "unknown"
