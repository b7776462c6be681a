"""What is measured: the ingest, and a peer that does the same work in the usual way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from deploy.local.books import Stage
from deploy.local.kafka import CHECKOUT, free_port
from shared.kafka import RECORDS
from tests.bench.broker import PARTITIONS, BenchKafka
from tests.bench.process import Process

RECEIVE_BUFFER_BYTES: Final = 1 << 27
"""Larger than the default: on a machine that has other things to do, a worker may have to wait for a while."""
GOFLOW2: Final = "github.com/netsampler/goflow2/v2/cmd/goflow2"


class Collector(Protocol):
    """A program that takes datagrams from a UDP port and produces to Kafka. Made for one round."""

    name: str
    program: Process
    quiet_seconds: float
    """When it has sent nothing for so long, it has nothing left to send."""
    message_is_record: bool
    """Whether each of its messages holds one record."""

    @property
    def topic(self) -> str:
        """Where it produces to."""

    def start(self) -> None:
        """Start it; it may not receive yet."""

    def is_ready(self) -> bool:
        """Whether datagrams may be sent to it."""

    def records(self) -> int:
        """Flow records that are in the topic by what the broker has, not by what the collector says."""

    def stop(self) -> None:
        """Stop it."""


class Ingest:
    """Stage one, with its defaults but for addresses, the receive buffer, workers, and what `properties` say.

    With `spool` it has one, in the directory of the round.
    """

    quiet_seconds = 2.5
    """It keeps a record for a second."""
    message_is_record = False

    def __init__(
        self,
        broker: BenchKafka,
        port: int,
        prefix: str,
        directory: Path,
        *,
        workers: int = 1,
        properties: Mapping[str, object] | None = None,
        spool: bool = False,
    ) -> None:
        self.name = f"ingest, {workers} worker{'s' if workers > 1 else ''}"
        self._broker = broker
        self._prefix = prefix
        http = free_port()
        settings: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": broker.bootstrap_servers,
                "topic_prefix": prefix,
                "partitions": PARTITIONS,
                "properties": dict(properties or {}),
            },
            "ingest": {
                "http": {"listen": f"127.0.0.1:{http}"},
                "listen": [f"udp://127.0.0.1:{port}"],
                "workers": workers,
                "receive_buffer_bytes": RECEIVE_BUFFER_BYTES,
                "drain_seconds": 0,
                "spool": {"directory": str(directory / "spool") if spool else None},
            },
        }
        self.config = directory / "ingest.yaml"
        # JSON is YAML.
        self.config.write_text(json.dumps(settings), encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEWAY_")}
        command = [sys.executable, "-m", "ingest", "serve", "--config", str(self.config)]
        self.program = Process(command, directory / "ingest.log", environ)
        self._stage = Stage(http, None)

    @property
    def topic(self) -> str:
        """See :class:`Collector`."""
        return self._prefix + RECORDS

    def start(self) -> None:
        """See :class:`Collector`."""
        self.program.start()

    def is_ready(self) -> bool:
        """See :class:`Collector`."""
        return self._stage.is_ready()

    def records(self) -> int:
        """See :class:`Collector`."""
        return self._broker.records(self.topic)

    def stop(self) -> None:
        """See :class:`Collector`."""
        self._stage.close()
        self.program.stop()


class Goflow2:
    """goflow2 with its defaults, protobuf to Kafka; a message a flow, so that its messages are its records.

    `scheme` tells it which protocol comes: netflow, sflow, or flow for any.
    """

    name = "goflow2"
    quiet_seconds = 7.0
    """It flushes every 5 seconds."""
    message_is_record = True

    def __init__(
        self, broker: BenchKafka, port: int, prefix: str, directory: Path, *, program: Path, scheme: str
    ) -> None:
        self._broker = broker
        self._prefix = prefix
        self._http = free_port()
        command = [
            str(program),
            *("-listen", f"{scheme}://127.0.0.1:{port}"),
            *("-addr", f"127.0.0.1:{self._http}"),
            *("-format", "bin"),
            *("-transport", "kafka"),
            *("-transport.kafka.brokers", broker.bootstrap_servers),
            *("-transport.kafka.topic", self.topic),
        ]
        self.program = Process(command, directory / "goflow2.log", os.environ)

    @property
    def topic(self) -> str:
        """See :class:`Collector`."""
        return self._prefix + "goflow2"

    def start(self) -> None:
        """See :class:`Collector`."""
        self._broker.create(self.topic)
        self.program.start()

    def is_ready(self) -> bool:
        """See :class:`Collector`."""
        try:
            return httpx.get(f"http://127.0.0.1:{self._http}/__health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def records(self) -> int:
        """See :class:`Collector`."""
        return self._broker.messages(self.topic)

    def stop(self) -> None:
        """See :class:`Collector`."""
        self.program.stop()


def find_goflow2(say: Callable[[str], None]) -> tuple[Path, str] | None:
    """The program and its version: GOFLOW2 names it, else PATH, else it is installed under .local by `go`, once.

    None when there is none, having said so.
    """
    places = CHECKOUT / ".local" / "bin"
    named = os.environ.get("GOFLOW2") or shutil.which("goflow2", path=f"{os.environ.get('PATH', '')}:{places}")
    go = shutil.which("go")
    if named is None and go is not None:
        say("installing goflow2 under .local/bin, once")
        command = [go, "install", f"{GOFLOW2}@latest"]
        done = subprocess.run(
            command, env={**os.environ, "GOBIN": str(places)}, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            named = str(places / "goflow2")
        else:
            say(f"goflow2 cannot be installed: {done.stderr.strip()[-300:]}")
    if named is None:
        say(
            "goflow2 is not here, so the figures are ours alone: install Go, put goflow2 into PATH,"
            " or name it by GOFLOW2=/path/to/goflow2"
        )
        return None
    return Path(named), _version(Path(named), go)


def _version(program: Path, go: str | None) -> str:
    if go is None:
        return "unknown"
    done = subprocess.run([go, "version", "-m", str(program)], capture_output=True, text=True, check=False)
    lines = (line.split() for line in done.stdout.splitlines())
    return next((line[2] for line in lines if line[:1] == ["mod"] and len(line) > 2), "unknown")
