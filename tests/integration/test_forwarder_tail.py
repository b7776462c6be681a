from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from shared import codec
from shared.config import KafkaConfig
from tests.conftest import ROOT
from tests.forwarder.records import eventually
from tests.integration.forwarders import PARTITIONS, Feed

pytestmark = pytest.mark.integration


@pytest.fixture
def config(kafka: str, topic_prefix: str) -> KafkaConfig:
    """A Kafka, with topics of the test's own."""
    return KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix, partitions=PARTITIONS)


def tail(config: KafkaConfig, output: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start `tail` with its output in a file."""
    environment = {
        **os.environ,
        "SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS": config.bootstrap_servers,
        "SLUICEWAY_KAFKA__TOPIC_PREFIX": config.topic_prefix,
        "SLUICEWAY_LOG__FORMAT": "json",
    }
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
        command = [sys.executable, "-m", "forwarder", "tail", *words]
        # Whoever runs the tests in the background ignores SIGINT, and with it what he starts, unless told otherwise.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err, preexec_fn=heeding)  # noqa: PLW1509


def ids(output: Path) -> list[int]:
    """The ids of the records that it has shown as JSON."""
    lines = output.read_text().splitlines(keepends=True)
    return sorted(int(json.loads(line)["record_id"], 16) for line in lines if line.endswith("\n"))


def test_tail_shows_what_is_there_and_what_comes(config: KafkaConfig, tmp_path: Path) -> None:
    """From the beginning it shows every record, one JSON object a line, and follows until it is interrupted."""
    feed = Feed(config)
    feed.send(8)
    feed.put(b"", codec.heartbeat_headers("test"), 0)
    feed.put(b"garbage", codec.headers(5, "test"), 0)
    process = tail(config, tmp_path / "out", "--from-beginning")
    try:
        eventually(lambda: len(ids(tmp_path / "out")) == 80, "80 records shown", 60.0)
        feed.send(4)
        eventually(lambda: ids(tmp_path / "out") == feed.sent, "all records shown", 60.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(30.0) == 0
    finally:
        process.kill()
    assert "a message cannot be read, and is left out" in (tmp_path / "out.err").read_text()


def test_tail_stops_after_as_many_records_as_were_asked_for(config: KafkaConfig, tmp_path: Path) -> None:
    """`--count` ends it by itself, in the middle of a message too."""
    Feed(config).send(8)
    process = tail(config, tmp_path / "out", "--from-beginning", "--count", "33")
    assert process.wait(60.0) == 0
    assert len(ids(tmp_path / "out")) == 33


def test_tail_shows_a_table(config: KafkaConfig, tmp_path: Path) -> None:
    """As a table, records stand under their titles."""
    Feed(config).send(1)
    process = tail(config, tmp_path / "out", "--from-beginning", "--count", "3", "--format", "table")
    assert process.wait(60.0) == 0
    title, *lines = (tmp_path / "out").read_text().splitlines()
    assert "exporter" in title
    assert len(lines) == 3
    assert all(line.startswith("2023-11-14 22:13:20") for line in lines)


def test_tail_says_what_is_missing(config: KafkaConfig, tmp_path: Path) -> None:
    """Without the topic it ends with status 1 and a sentence."""
    process = tail(config, tmp_path / "out")
    assert process.wait(60.0) == 1
    said = (tmp_path / "out.err").read_text()
    assert f"the topic {config.topic_prefix}flows.records cannot be read" in said
    assert "Traceback" not in said
