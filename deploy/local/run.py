"""`make run`: a local Kafka, both stages and generated flows, until Ctrl-C; then the books, which have to balance.

In this order: settings and ports are looked at, Kafka starts, ingest and forwarder start and get ready, the generator
starts. At the end the generator stops and says what it sent, the lake gets the time to have all of it, both stages stop,
and Kafka stops if it was started here. RUN_SECONDS=N in the environment ends it after N seconds of traffic, as Ctrl-C would.
"""

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console

import forwarder.config
import ingest.config
from deploy.local import kafka, screen
from deploy.local.books import Lake, Stage, Sums, balances, sent
from deploy.local.program import Program
from shared.config import HostPort, HttpConfig, parse_host_port
from shared.errors import ConfigError
from shared.kafka import RECORDS, full_name

CONFIG = kafka.HERE / "sluiceway.yaml"
DIRECTORY = kafka.CHECKOUT / ".local" / "run"

READY_SECONDS = 60.0
DRAIN_SECONDS = 90.0
SETTLED_SECONDS = 15.0
STOP_SECONDS = 60.0


class RunFailed(Exception):
    """The run cannot begin or go on; the message says why and what to do."""


class LocalRun:
    """The programs of one run, and what they say of themselves."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = Path(environ.get("SLUICEWAY_CONFIG") or CONFIG)
        self._environ = {"SLUICEWAY_LOG__FORMAT": "console", **environ, "SLUICEWAY_CONFIG": str(path)}
        settings = ingest.config.load_settings(path, environ)
        self._ingest = settings.ingest
        self._topic = full_name(settings.kafka, RECORDS)
        self._forwarder = forwarder.config.load_settings(path, environ).forwarder
        self._sink, lake = next(iter(self._forwarder.sinks.items()))
        self.lake = Lake(Path(lake.path))
        self._directory = Path(environ.get("RUN_DIRECTORY") or DIRECTORY)
        self._programs: list[Program] = []
        self.stages: dict[str, Stage] = {}

    # --- start ------------------------------------------------------------------------------------------------------

    def require_ports(self) -> None:
        """Raise RunFailed when another program has a port that we need: said before anything is started."""
        for kind, address in self._addresses():
            if (reason := why_not_bound(kind, address)) is not None:
                protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
                raise RunFailed(
                    f"{protocol} port {address.port} is not to be had ({reason}): stop the program that uses it, "
                    f"or choose another one in {self._environ['SLUICEWAY_CONFIG']}"
                )

    def start_stages(self, bootstrap_servers: str, stop: threading.Event) -> None:
        """Start ingest and forwarder, and return when both are ready or a stop is asked for."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._environ["SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS"] = bootstrap_servers
        for name, http in (("ingest", self._ingest.http), ("forwarder", self._forwarder.http)):
            self._start(Program(name, [name, "serve"], self._directory, self._environ))
            self.stages[name] = self._stage(http)
        deadline = time.monotonic() + READY_SECONDS
        while not stop.is_set() and not all(stage.is_ready() for stage in self.stages.values()):
            self.require_alive()
            if time.monotonic() > deadline:
                waiting = [name for name, stage in self.stages.items() if not stage.is_ready()]
                raise RunFailed(
                    f"{' and '.join(waiting)} did not get ready in {READY_SECONDS:.0f} s; logs: {self._directory}\n"
                    + "\n".join(program.last_words() for program in self._programs if program.name in waiting)
                )
            stop.wait(0.2)

    def start_generator(self) -> None:
        """Start the traffic: every protocol that there is, to the first listener."""
        target = f"127.0.0.1:{self._ingest.listeners[0].port}"
        arguments = ["ingest", "generate", "--protocol", "mix", "--to", target]
        self._start(Program("generator", arguments, self._directory, self._environ))

    def require_alive(self) -> None:
        """Raise RunFailed when a program has ended by itself."""
        for program in self._programs:
            if program.status is not None:
                raise RunFailed(f"{program.name} ended with status {program.status}:\n{program.last_words()}")

    # --- look -------------------------------------------------------------------------------------------------------

    def sample(self) -> screen.Sample:
        """What both stages count at this moment."""
        received, delivered = self.stages["ingest"].metrics(), self.stages["forwarder"].metrics()
        return screen.Sample(
            seconds=time.monotonic(),
            received=received.total("ingest_datagrams_received_total"),
            decoded=received.total("ingest_records_decoded_total"),
            produced=received.total("kafka_produced_records_total", topic=self._topic),
            delivered=delivered.total("forwarder_records_delivered_total", sink=self._sink),
            dropped=received.total("ingest_dropped_total")
            + delivered.total("forwarder_dropped_total", sink=self._sink),
            lag=delivered.total("forwarder_lag_messages", sink=self._sink),
        )

    def ledgers(self) -> dict[str, Mapping[str, Any]]:
        """The books of both stages; of the forwarder, those of the lake."""
        try:
            return {
                "ingest": self.stages["ingest"].ledger(),
                "forwarder": self.stages["forwarder"].ledger()[self._sink],
            }
        except httpx.HTTPError as error:
            raise RunFailed(f"a stage does not show its books: {error}; logs: {self._directory}") from error

    # --- end --------------------------------------------------------------------------------------------------------

    def stop_generator(self) -> dict[str, Sums]:
        """Stop the traffic; returns what was sent, by the record's type."""
        generator = next(program for program in self._programs if program.name == "generator")
        status = generator.stop(STOP_SECONDS)
        try:
            return sent(generator.output.read_text(encoding="utf-8"))
        except (ValueError, KeyError) as error:
            raise RunFailed(
                f"the generator (status {status}) did not say what it sent: {error}\n{generator.last_words()}"
            ) from error

    def wait_for_lake(self, expected: Mapping[str, Sums], since_ns: int) -> dict[str, Sums]:
        """Wait until the lake has what was sent, or nothing moves any more; returns what it has."""
        deadline = time.monotonic() + DRAIN_SECONDS
        moved_at, last = time.monotonic(), None
        while (there := self.lake.received_since(since_ns)) != expected and time.monotonic() < deadline:
            self.require_alive_stages()
            state = (there, self.ledgers())
            if state != last:
                moved_at, last = time.monotonic(), state
            elif time.monotonic() - moved_at > SETTLED_SECONDS:
                break
            time.sleep(0.25)
        return there

    def require_alive_stages(self) -> None:
        """As require_alive, when the generator has been stopped."""
        self._programs = [program for program in self._programs if program.name != "generator"]
        self.require_alive()

    def stop_stages(self) -> None:
        """Stop ingest, then forwarder; raises RunFailed when one does not end cleanly."""
        ended = [(program, program.stop(STOP_SECONDS)) for program in self._programs if program.name != "generator"]
        faults = [
            f"{program.name} ended with status {status}:\n{program.last_words()}"
            for program, status in ended
            if status not in {0, None}
        ]
        if faults:
            raise RunFailed("\n".join(faults))

    def close(self) -> None:
        """Leave nothing running, whatever happened; what was stopped cleanly is not touched."""
        for program in self._programs:
            program.stop(5.0)
        for stage in self.stages.values():
            stage.close()

    # --- parts ------------------------------------------------------------------------------------------------------

    def _start(self, program: Program) -> None:
        self._programs.append(program)
        program.start()

    def _addresses(self) -> Iterator[tuple[socket.SocketKind, HostPort]]:
        for listener in self._ingest.listeners:
            yield socket.SOCK_DGRAM, listener
        for http in (self._ingest.http, self._forwarder.http):
            yield socket.SOCK_STREAM, parse_host_port(http.listen)

    @staticmethod
    def _stage(http: HttpConfig) -> Stage:
        return Stage(parse_host_port(http.listen).port, http.token.get_secret_value() if http.token else None)


def why_not_bound(kind: socket.SocketKind, address: HostPort) -> str | None:
    """Why an address cannot be listened on, None when it can, or when only the stage itself can tell."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        # Where IPv6 is off, [::] fails here, and the stage listens on IPv4 instead.
        return error.strerror if error.errno in {errno.EADDRINUSE, errno.EACCES} else None
    return None


def run(environ: Mapping[str, str], stop: threading.Event, console: Console) -> int:
    """Run it all until `stop` is set; returns the exit status: 0 when the books balance."""
    local = LocalRun(environ)
    local.require_ports()
    with kafka_for_run(environ, console) as bootstrap_servers:
        try:
            return run_on(local, bootstrap_servers, environ, stop, console)
        finally:
            local.close()


def run_on(
    local: LocalRun, bootstrap_servers: str, environ: Mapping[str, str], stop: threading.Event, console: Console
) -> int:
    """As run, on a Kafka that answers."""
    console.print("starting ingest and forwarder")
    local.start_stages(bootstrap_servers, stop)
    if stop.is_set():
        local.stop_stages()
        return 0
    since_ns = time.time_ns()
    local.start_generator()
    end = time.monotonic() + run_seconds(environ)
    console.print("flows are being sent; Ctrl-C stops all of it")
    view = screen.Screen(console, local.lake)
    with view.shown():
        while not stop.wait(1.0) and time.monotonic() < end:
            local.require_alive()
            view.show(local.sample())

    console.print("stopping the generator; the lake gets what is still on its way")
    sent_sums = local.stop_generator()
    there = local.wait_for_lake(sent_sums, since_ns)
    ledgers = local.ledgers()
    console.print("stopping ingest and forwarder")
    local.stop_stages()

    lines = [line for stage, books in ledgers.items() for line in balances(stage, books)]
    console.print(screen.ledger_table(lines))
    for line in screen.drops(ledgers):
        console.print(line)
    console.print(screen.comparison_table(sent_sums, there))
    view.tell_lake()
    if there == sent_sums and all(line.holds for line in lines):
        console.print("The books balance, and the lake has exactly what was sent.")
        return 0
    console.print("[bold red]The books do not balance, or the lake lacks something:[/bold red] see above.")
    return 1


@contextmanager
def kafka_for_run(environ: Mapping[str, str], console: Console) -> Iterator[str]:
    """The Kafka of KAFKA_BOOTSTRAP_SERVERS, or the one of `make kafka`; one that was not running is stopped again."""
    given = kafka.given_bootstrap_servers(environ)
    if given is not None:
        if (missing := kafka.what_is_missing(given, 5.0)) is not None:
            raise RunFailed(f"KAFKA_BOOTSTRAP_SERVERS is {given}, and no Kafka answers there: {missing}")
        yield given
        return
    ours = kafka.broker_of_checkout(environ, say=console.print)
    was_running = ours.is_running()
    if not was_running:
        console.print("starting Kafka")
    try:
        ours.start()
        yield ours.bootstrap_servers
    finally:
        if not was_running:
            console.print("stopping Kafka")
            ours.stop()


def run_seconds(environ: Mapping[str, str]) -> float:
    """How long the traffic is to last: RUN_SECONDS, for ever when it is not set; raises RunFailed when it is no number."""
    text = environ.get("RUN_SECONDS") or "inf"
    try:
        return float(text)
    except ValueError as error:
        raise RunFailed(f"RUN_SECONDS is {text!r}, and must be a number of seconds") from error


def stop_by_signals(stop: threading.Event) -> None:
    """Have SIGINT, SIGTERM and SIGHUP set `stop`; a second one raises KeyboardInterrupt, and ends it at once."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


def main() -> int:
    """Run it all until a signal; returns the exit status."""
    console = Console()
    stop = threading.Event()
    stop_by_signals(stop)
    try:
        return run(os.environ, stop, console)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (RunFailed, kafka.KafkaUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended at once: what was on its way stays in Kafka", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
