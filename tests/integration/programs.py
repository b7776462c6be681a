"""Stages as processes of their own: started with settings from the environment, watched over HTTP and by their log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import httpx

from deploy.local.books import Balance, Samples, balances
from deploy.local.kafka import exit_status, last_lines

PATIENCE_SECONDS = 60.0
"""How long anything may take before the test gives up on it."""

Settings = Mapping[str, Any]
"""A section's keys, sections in sections, as they stand in the YAML file."""
Found = TypeVar("Found")


def environment(settings: Settings, prefix: str = "SLUICEWAY_") -> dict[str, str]:
    """The environment variables that say the same as these settings; a map without a string key is a section."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = prefix + key.upper()
        if isinstance(value, Mapping) and key != "properties":
            found |= environment(value, f"{name}__")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


class Program:
    """`python -m <arguments>` in a directory of its own, its output in files there.

    No setting of whoever runs the tests reaches it. It leads a process group, so that what it starts ends with it.
    `variables` are of its environment, besides ours and its settings.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        arguments: Iterable[str],
        settings: Settings | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self._output = directory / f"{name}.out"
        self._log = directory / f"{name}.log"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SLUICEWAY_")}
        with self._output.open("wb") as output, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=directory,
                env={**clean, **environment(settings or {}), **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it wrote to standard output."""
        return self._output.read_text(encoding="utf-8")

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        """The end of what it said, for whoever reads why a test failed."""
        state = "runs" if self.status is None else f"ended with status {self.status}"
        return f"--- {self.name} {state}\n{last_lines(self._log, self._output, lines=40)}"

    def until(self, condition: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
        """Wait until something about it is so, and return what the condition found; else fail with its last words."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds:g} s: not {what}\n{self.last_words()}")
            time.sleep(0.02)
        return found

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, and nothing to what it started."""
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end, and return its exit status."""
        status = exit_status(self._process, seconds)
        assert status is not None, f"after {seconds:g} s: not ended\n{self.last_words()}"
        return status

    def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Stop it by SIGTERM, and return its exit status."""
        if self.status is None:
            self.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it, and all that it started, by SIGKILL."""
        if self.status is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Stage(Program):
    """A stage that serves; its log is JSON, and its HTTP side on a free port of the loopback interface."""

    SERVING: ClassVar = {"ingest": ("serving HTTP", "port"), "forwarder": ("started", "http_port")}
    """The event that tells the port of the HTTP side, and its field."""

    def __init__(
        self, name: str, directory: Path, stage: str, settings: Settings, variables: Mapping[str, str] | None = None
    ) -> None:
        self._serving = self.SERVING[stage]
        settings = merged({"log": {"format": "json"}, stage: {"http": {"listen": "127.0.0.1:0"}}}, settings)
        super().__init__(name, directory, [stage, "serve"], settings, variables)
        self._client: httpx.Client | None = None

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of its log, those of one event or all."""
        # The last line may not be whole yet.
        lines = [line for line in self.log.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [line for line in found if event is None or line["event"] == event]

    def event(self, event: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for so many lines of an event, and return the last of them."""

        def there() -> list[dict[str, Any]]:
            # Asked first: what it said before its end is in the log by then.
            ended = self.status is not None
            found = [line for line in self.events(event) if fields.items() <= line.items()]
            assert len(found) >= count or not ended, self.last_words()
            return found if len(found) >= count else []

        return self.until(there, f"said: {event}")[-1]

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: str | int) -> httpx.Response:
        """Ask it over HTTP; waits until it serves."""
        if self._client is None:
            event, field = self._serving
            port = self.event(event)[field]
            # A connection each time: one that is kept may be closed by the server just when it is used again.
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0, limits=limits)
        return self._client.get(path, params=query, headers=headers)

    def json(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - whatever the path answers
        """What a path answers that is well."""
        return self.get(path, None, **query).raise_for_status().json()

    def checks(self) -> dict[str, tuple[bool, str]]:
        """What `/readyz` says of each check."""
        return {name: (one["ok"], one["detail"]) for name, one in self.get("/readyz").json()["checks"].items()}

    def until_ready(self, seconds: float = PATIENCE_SECONDS) -> Self:
        """Wait until it says that it can do its work."""
        self.until(lambda: self.get("/readyz").status_code == httpx.codes.OK, "ready", seconds)
        return self

    def ledger(self) -> dict[str, Any]:
        """Its books, which have to balance at any moment."""
        books: dict[str, Any] = self.json("/api/v1/ledger")
        assert all(line.holds for line in balances(self.name, books)), books
        return books

    def balance(self) -> Balance:
        """The line of its books that is of records."""
        return of_records(self.ledger())

    def metrics(self) -> Samples:
        """What it counts."""
        return Samples(self.get("/metrics").raise_for_status().text)

    def close(self) -> None:
        """Let the connection go, and leave nothing running."""
        if self._client is not None:
            self._client.close()
        self.kill()


ONE_WORKER: Settings = {"ingest": {"workers": 1}}
"""For what has nothing to do with there being several: they take a second each to start."""


class Ingest(Stage):
    """Stage one on free ports, with two workers and short waits unless the settings say otherwise."""

    def __init__(
        self, name: str, directory: Path, settings: Settings, variables: Mapping[str, str] | None = None
    ) -> None:
        ours = {
            "ingest": {
                "listen": ["udp://[::]:0"],
                "workers": 2,
                "drain_seconds": 0,
                "batch": {"max_age_ms": 20},
                "message": {"max_age_ms": 100},
            },
            "kafka": {"partitions": 4},
        }
        super().__init__(name, directory, "ingest", merged(ours, settings), variables)

    def port(self, listener: int = 0) -> int:
        """The port of a listener; waits until it is bound."""
        self.event("listening", listener + 1)
        port: int = self.events("listening")[listener]["port"]
        return port

    def workers(self, replaced: int = 0) -> dict[str, int]:
        """The process ids of its workers by name, when all receive and so many of them were replaced."""

        def receiving() -> dict[str, int]:
            said = self.events("a worker receives")
            return {line["worker"]: line["pid"] for line in said} if len(said) >= self._worker_count + replaced else {}

        return self.until(receiving, "receiving with all workers")

    @property
    def _worker_count(self) -> int:
        return int(self.event("listening")["sockets"])

    def received(self) -> int:
        """Datagrams that it has read."""
        return int(self.ledger()["received"]["datagrams"])

    def until_received(self, datagrams: int) -> None:
        """Wait until it has read so many datagrams since its start."""
        self.until(lambda: self.received() >= datagrams, f"{datagrams} datagrams received")

    def until_delivered(self, records: int) -> Balance:
        """Wait until Kafka has acknowledged so many records and nothing is under way; returns the books."""
        self.until(lambda: self.balance().delivered >= records, f"{records} records delivered")
        return self.until_settled()

    def until_settled(self) -> Balance:
        """Wait until nothing is under way; returns the books."""

        def settled() -> Balance | None:
            line = self.balance()
            return line if line.in_flight == 0 else None

        found = self.until(settled, "nothing in flight")
        assert found is not None
        return found

    def final_ledger(self) -> dict[str, Any]:
        """The books that it wrote down at its end, which have to balance."""
        (last,) = self.events("stopped")
        assert last["balances"], last
        assert all(line.holds for line in balances(self.name, last)), last
        return last


class Programs:
    """The programs of a test: all of them end with it, and say their last words where pytest shows them on failure.

    `variables` are of the environment of all of them.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._variables = variables
        self._started: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._started:
            print(program.last_words())  # noqa: T201 - pytest shows it when the test failed
        for program in self._started:
            program.close() if isinstance(program, Stage) else program.kill()

    def ingest(self, kafka: str, topic_prefix: str, settings: Settings | None = None) -> Ingest:
        """Start stage one; it may not be ready yet."""
        where: Settings = {"kafka": {"bootstrap_servers": kafka, "topic_prefix": topic_prefix}}
        name, directory = self._place("ingest")
        return self._keep(Ingest(name, directory, merged(where, settings or {}), self._variables))

    def forwarder(self, settings: Settings) -> Stage:
        """Start stage two; it may not be ready yet."""
        name, directory = self._place("forwarder")
        return self._keep(Stage(name, directory, "forwarder", settings, self._variables))

    def run(self, *arguments: str, settings: Settings | None = None) -> Program:
        """Start any program of ours."""
        name, directory = self._place(arguments[0])
        return self._keep(Program(name, directory, arguments, settings, self._variables))

    def generate(self, port: int, *arguments: str) -> dict[str, Any]:
        """Send generated traffic to a port of this machine; returns what was sent, as the generator tells it."""
        program = self.run("ingest", "generate", "--to", f"127.0.0.1:{port}", *arguments)
        assert program.wait() == 0, program.last_words()
        sent: dict[str, Any] = json.loads(program.output)
        assert sent["not_sent"] == 0
        return sent

    def _place(self, name: str) -> tuple[str, Path]:
        name = f"{name}-{len(self._started)}"
        directory = self._directory / name
        directory.mkdir(parents=True)
        return name, directory

    def _keep(self, program: Kept) -> Kept:
        self._started.append(program)
        return program


Kept = TypeVar("Kept", bound=Program)


def of_records(books: Mapping[str, Any]) -> Balance:
    """The line of a ledger that is of records."""
    (line,) = [line for line in balances("", books) if line.unit == "records"]
    return line


def merged(settings: Settings, others: Settings) -> dict[str, Any]:
    """Settings with others over them, section by section."""
    both = dict(settings)
    for key, value in others.items():
        before = both.get(key)
        both[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return both


def state(pid: int) -> str:
    """What a process does, in a letter of ps(1): T is stopped, Z dead and not yet buried; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def freeze(program: Program, pids: Iterable[int]) -> None:
    """Stop processes that a program started where they are: from then on they read nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        program.until(lambda: state(pid) == "T", "stopped")  # noqa: B023 - called before the next one
