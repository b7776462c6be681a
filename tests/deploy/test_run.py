import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from deploy.local import run as local
from deploy.local.kafka import CHECKOUT, free_port, poll
from deploy.local.run import LocalRun, RunFailed
from shared.errors import ConfigError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Settings by the environment: ports that are free, and places of the test's own."""
    return {
        "SLUICEWAY_INGEST__LISTEN": f'["udp://127.0.0.1:{free_port()}"]',
        "SLUICEWAY_INGEST__HTTP__LISTEN": f"127.0.0.1:{free_port()}",
        "SLUICEWAY_FORWARDER__HTTP__LISTEN": f"127.0.0.1:{free_port()}",
        "SLUICEWAY_FORWARDER__SINKS__LAKE__PATH": str(tmp_path / "lake"),
        "RUN_DIRECTORY": str(tmp_path / "run"),
    }


def test_the_local_settings_are_right(environ: dict[str, str]) -> None:
    """deploy/local/sluiceway.yaml is understood by both stages, and its ports are to be had."""
    LocalRun(environ).require_ports()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        pytest.param("SLUICEWAY_INGEST__LISTEN", socket.SOCK_DGRAM, id="UDP"),
        pytest.param("SLUICEWAY_FORWARDER__HTTP__LISTEN", socket.SOCK_STREAM, id="TCP"),
    ],
)
def test_a_port_in_use_is_said_before_anything_starts(
    environ: dict[str, str], key: str, kind: socket.SocketKind, request: pytest.FixtureRequest
) -> None:
    """A port that another program holds is named, with its protocol, and nothing has been started by then."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        environ[key] = f'["udp://127.0.0.1:{port}"]' if kind is socket.SOCK_DGRAM else f"127.0.0.1:{port}"
        with pytest.raises(RunFailed, match=f"{request.node.callspec.id} port {port} is not to be had"):
            local.run(environ, threading.Event(), Console())
    assert not Path(environ["RUN_DIRECTORY"]).exists()


def test_an_unknown_setting_is_said_before_anything_starts(environ: dict[str, str]) -> None:
    """A setting that neither stage knows stops the run."""
    environ["SLUICEWAY_INGEST__WORKRES"] = "2"
    with pytest.raises(ConfigError, match="WORKERS"):
        local.run(environ, threading.Event(), Console())


def test_a_kafka_that_does_not_answer_is_said(environ: dict[str, str]) -> None:
    """KAFKA_BOOTSTRAP_SERVERS that leads nowhere is named."""
    environ["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{free_port()}"
    with pytest.raises(RunFailed, match="KAFKA_BOOTSTRAP_SERVERS"):
        local.run(environ, threading.Event(), Console())


@pytest.mark.parametrize("text", ["soon", "5 s"])
def test_a_time_that_is_none_is_said(text: str) -> None:
    """RUN_SECONDS has to be a number."""
    with pytest.raises(RunFailed, match="RUN_SECONDS"):
        local.run_seconds({"RUN_SECONDS": text})


@pytest.mark.integration
def test_what_was_sent_is_in_the_lake_when_it_is_interrupted(
    environ: dict[str, str], kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    """After Ctrl-C the lake has exactly what the generator sent, the query works as printed, and nothing runs any more."""
    environ |= {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "SLUICEWAY_KAFKA__TOPIC_PREFIX": topic_prefix,
        "SLUICEWAY_FORWARDER__GROUP_ID": f"{topic_prefix}run",
    }
    seen = tmp_path / "seen"
    with seen.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "deploy.local.run"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            cwd=CHECKOUT,
        )
        try:
            delivered = re.compile(r"in the lake [1-9]")
            assert poll(lambda: process.poll() is not None or bool(delivered.search(seen.read_text())), 90), (
                seen.read_text()
            )
            process.send_signal(signal.SIGINT)
            process.wait(timeout=150)
        finally:
            process.kill()
            process.wait()
    told = seen.read_text()
    assert process.returncode == 0, told
    assert "The books balance, and the lake has exactly what was sent." in told
    LocalRun(environ).require_ports()

    query = next(line for line in told.splitlines() if line.startswith(".venv/bin/python -c"))
    answer = subprocess.run(
        query.replace(".venv/bin/python", sys.executable), shell=True, capture_output=True, text=True, check=True
    ).stdout
    for kind in ("NETFLOW_V5", "NETFLOW_V9", "IPFIX", "SFLOW_5"):
        assert kind in answer
