from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ingest.__main__ import main
from ingest.generator.scenario import Scenario
from ingest.generator.traffic import Traffic


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A socket that listens on loopback, with the buffer that Linux gives by default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


def test_the_command_says_what_it_sent(receiver: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object, by the record's types, and its start time repeats the run."""
    port = receiver.getsockname()[1]
    line = [
        "generate",
        "--to",
        f"127.0.0.1:{port}",
        "--exporters",
        "9",
        "--count",
        "60",
        "--rate",
        "3000",
        "--seed",
        "5",
    ]
    assert main([*line, "--start-time", "2026-01-31T12:00:00.250Z"]) == 0
    output = capsys.readouterr()
    told = json.loads(output.out)
    totals = Traffic(Scenario(exporters=9, seed=5, rate=3000, start_ms=1_769_860_800_250)).totals(60)
    for name in ("datagrams", "records", "bytes", "packets", "options_records", "counters"):
        assert told[name] == {kind: getattr(count, name) for kind, count in totals.items()}
    assert (told["seed"], told["exporters"], told["not_sent"]) == (5, 9, 0)
    assert told["start_time"] == "2026-01-31T12:00:00.250Z"
    assert told["duration_seconds"] > 0
    assert output.err == ""


def test_the_command_says_once_that_nobody_listens(receiver: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port is told on standard error, and is no failure."""
    port = receiver.getsockname()[1]
    receiver.close()
    assert main(["generate", "--to", f"127.0.0.1:{port}", "--count", "50", "--rate", "0"]) == 0
    assert capsys.readouterr().err.count("nobody listens") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--exporters", "3"], "mix needs 4"),
        (["--count", "0"], "--count 0"),
        (["--duration", "-1"], "--duration -1"),
        (["--to", "nowhere"], "HOST:PORT"),
        (["--start-time", "noon"], "--start-time noon"),
        (["--start-time", "nan"], "--start-time nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_command_says_what_it_cannot_do(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done ends with status 2 and a sentence, and nothing is sent."""
    assert main(["generate", *arguments]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_its_books(receiver: socket.socket, number: signal.Signals) -> None:
    """After SIGINT or SIGTERM the books are printed, for exactly what has arrived, and the status is 0."""
    command = [sys.executable, "-m", "ingest", "generate", "--to", f"127.0.0.1:{receiver.getsockname()[1]}"]
    with subprocess.Popen(
        [*command, "--rate", "200", "--exporters", "6"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        arrived = len(receiver.recv(2048)) and 1
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    told = json.loads(output)
    receiver.setblocking(False)
    for _ in range(sum(told["datagrams"].values()) - arrived):
        receiver.recv(2048)
    with pytest.raises(BlockingIOError):
        receiver.recv(2048)
    assert (process.returncode, errors) == (0, b"")
