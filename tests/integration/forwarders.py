"""Forwarders as processes, and a topic of known content for them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pyarrow.dataset as ds
from confluent_kafka import Producer

from shared import codec
from shared.config import KafkaConfig
from shared.kafka import RECORDS, Properties, ensure_topics, full_name, producer, producer_properties
from tests.conftest import ROOT
from tests.forwarder.records import eventually, flows

Start: TypeAlias = Callable[..., "Forwarder"]

INTERVAL_MS = 1000
PARTITIONS = 4


@dataclass(slots=True)
class Feed:
    """Produces messages of flow records with ids that count up from 1, in rounds over the partitions."""

    kafka: KafkaConfig
    properties: Properties = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _partitions: Any = field(default_factory=lambda: itertools.cycle(range(PARTITIONS)))
    _producer: Producer | None = None

    @property
    def topic(self) -> str:
        """The topic's name in Kafka."""
        return full_name(self.kafka, RECORDS)

    @property
    def producer(self) -> Producer:
        """The producer, made with the topic."""
        if self._producer is None:
            ensure_topics(self.kafka, [RECORDS], 30.0)
            self._producer = producer(producer_properties(self.kafka, "feed") | self.properties)
        return self._producer

    def skip(self, ids: int) -> None:
        """Leave out some ids."""
        self._ids = itertools.count(1 + ids)

    def send(self, messages: int, records: int = 10, partition: int | None = None) -> None:
        """Produce messages, and return when Kafka has them."""
        for _ in range(messages):
            ids = list(itertools.islice(self._ids, records))
            to = next(self._partitions) if partition is None else partition
            self.put(bytes(codec.encode(flows(ids))), codec.headers(records, "feed"), to)
            self.sent += ids
        assert self.producer.flush(60.0) == 0

    def repeat(self, messages: int, records: int = 10) -> None:
        """Produce the first messages that `send` produced once more, each to the partition where it was."""
        for number in range(messages):
            ids = self.sent[number * records : (number + 1) * records]
            self.put(bytes(codec.encode(flows(ids))), codec.headers(records, "feed"), number % PARTITIONS)
        assert self.producer.flush(60.0) == 0

    def put(self, value: bytes, headers: codec.Headers, partition: int) -> None:
        """Produce one message of any content."""
        self.producer.produce(self.topic, value, partition=partition, headers=headers)
        self.producer.poll(0)


class Forwarder:
    """A forwarder as a process of its own, with one Parquet sink named `lake`.

    `environment` overrides keys of its configuration, named without the prefix.
    """

    def __init__(
        self, kafka: KafkaConfig, lake: Path, directory: Path, environment: Mapping[str, object] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.lake = lake
        self.output = directory / f"forwarder-{len(list(directory.iterdir()))}.log"
        keys: dict[str, object] = {
            "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "KAFKA__PARTITIONS": kafka.partitions,
            # A member that was killed is missed after this time.
            "KAFKA__PROPERTIES": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
            "FORWARDER__GROUP_ID": f"{kafka.topic_prefix}group",
            "FORWARDER__HTTP__LISTEN": "127.0.0.1:0",
            "FORWARDER__SINKS": {
                "lake": {
                    "type": "parquet",
                    "path": str(lake),
                    "batch": {"interval_ms": INTERVAL_MS, "max_records": 2000},
                }
            },
            "LOG__FORMAT": "json",
            **(environment or {}),
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEWAY_")}
        ours = {
            f"SLUICEWAY_{key}": value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "forwarder", "serve"],
                cwd=ROOT,
                env=clean | ours,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    def get(self, path: str) -> httpx.Response:
        """Ask it over HTTP; waits until it serves."""
        eventually(lambda: self.said("started") or self.process.poll() is not None, "serving")
        assert self.process.poll() is None, self.output.read_text()
        port = self.said("started")[0]["http_port"]
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10.0)

    def checks(self) -> dict[str, tuple[bool, str]]:
        """What `/readyz` says of each check."""
        return {name: (one["ok"], one["detail"]) for name, one in self.get("/readyz").json()["checks"].items()}

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return self.get("/readyz").status_code == httpx.codes.OK

    def books(self) -> dict[str, Any]:
        """The ledger of its sink, which has to balance."""
        books: dict[str, Any] = self.get("/api/v1/ledger").json()["lake"]
        dropped = sum(books["dropped"]["records"].values())
        out = books["delivered"]["records"] + dropped + books["in_flight"]["records"]
        assert books["received"]["records"] == out
        return books

    def stop(self, seconds: float = 60.0) -> int:
        """Stop it by SIGTERM, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait(10.0)


def in_lake(lake: Path) -> list[int]:
    """The ids of all records in a lake, as often as they are there."""
    if next(lake.rglob("*.parquet"), None) is None:
        return []
    found: list[int] = ds.dataset(lake, partitioning="hive").to_table(columns=["record_id"])["record_id"].to_pylist()
    return sorted(found)


def has(lake: Path, expected: Iterable[int], seconds: float = 90.0) -> None:
    """Wait until a lake has as many records as are expected, and see that they are those, each once."""
    wanted = sorted(expected)
    eventually(lambda: len(in_lake(lake)) >= len(wanted), f"{len(wanted)} records in the lake", seconds)
    assert in_lake(lake) == wanted
