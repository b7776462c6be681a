"""Signals and settings: an ingest of its own for each test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.programs import ONE_WORKER, Ingest, Programs, freeze, merged, of_records, state
from tests.integration.topic import RecordsTopic, column
from tests.integration.traffic import flows, send

pytestmark = pytest.mark.integration


@pytest.fixture
def ingest(programs: Programs, kafka: str, topic_prefix: str) -> Ingest:
    """An ingest that is ready."""
    return programs.ingest(kafka, topic_prefix).until_ready()


@pytest.fixture
def topic(kafka: str, topic_prefix: str) -> RecordsTopic:
    """Its topic."""
    return RecordsTopic(kafka, topic_prefix)


# --- signals


def test_everything_sent_before_a_stop_is_in_kafka(ingest: Ingest, topic: RecordsTopic) -> None:
    """What waits in the sockets when the signal comes is read, decoded and acknowledged before the end."""
    pids = list(ingest.workers().values())
    freeze(ingest, pids)
    send(flows(300), ingest.port())
    ingest.send_signal(signal.SIGTERM)
    ingest.event("stopping")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert ingest.wait() == 0
    books = ingest.final_ledger()
    line = of_records(books)
    assert (books["received"]["datagrams"], line.received, line.delivered, line.in_flight) == (300, 300, 300, 0)
    assert sorted(column(topic.records(), "sequence_num")) == list(range(300))


def test_it_goes_on_receiving_while_it_drains_and_a_second_signal_ends_it_at_once(
    programs: Programs, kafka: str, topic_prefix: str
) -> None:
    """It says that it is not ready, so that routers move on; whoever does not want to wait for that signals again."""
    ingest = programs.ingest(kafka, topic_prefix, merged(ONE_WORKER, {"ingest": {"drain_seconds": 3600}})).until_ready()
    pids = ingest.workers().values()
    ingest.send_signal(signal.SIGINT)
    ingest.event("stopping")
    assert ingest.get("/readyz").status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert ingest.checks()["serving"] == (False, "stopping")
    assert ingest.get("/livez").status_code == httpx.codes.OK
    send(flows(20), ingest.port())
    ingest.until_delivered(20)
    ingest.send_signal(signal.SIGTERM)
    assert ingest.wait() == 0
    ingest.event("stopping at once, on a second signal")
    ingest.until(lambda: all(state(pid) in {"", "Z"} for pid in pids), "without workers")


def test_a_hang_up_reads_log_level_and_secrets_again(
    programs: Programs, kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Supervisor and workers follow; a file that is wrong is named, and changes nothing."""
    file, token = tmp_path / "sluiceway.yaml", tmp_path / "token"

    def write(level: str, secret: str) -> None:
        token.write_text(secret)
        file.write_text(yaml.safe_dump({"log": {"level": level}, "ingest": {"http": {"token_file": str(token)}}}))

    def hang_up(ingest: Ingest, secret: str) -> None:
        ingest.send_signal(signal.SIGHUP)
        headers = {"Authorization": f"Bearer {secret}"}
        ingest.until(lambda: ingest.get("/api/v1/ledger", headers).status_code == httpx.codes.OK, "with the new token")

    write("info", "first")
    ingest = programs.ingest(kafka, topic_prefix, merged(ONE_WORKER, {"config": str(file)})).until_ready()
    assert ingest.get("/api/v1/ledger").status_code == httpx.codes.UNAUTHORIZED

    write("error", "second")
    hang_up(ingest, "second")
    # By the time that the worker has received something more, it knows of the level too.
    send(flows(40), ingest.port())
    ingest.until(lambda: ingest.metrics().total("kafka_produced_records_total") == 40, "delivered")
    send([b"\x00\x09 too short"], ingest.port())
    ingest.until(lambda: ingest.metrics().total("ingest_dropped_total", reason="truncated") == 1, "counted")

    file.write_text("log: {level: loud}")
    ingest.send_signal(signal.SIGHUP)
    assert "log.level" in ingest.event("the configuration was not read again")["reason"]
    assert ingest.get("/api/v1/ledger", {"Authorization": "Bearer second"}).status_code == httpx.codes.OK

    write("info", "third")
    hang_up(ingest, "third")
    send(flows(40, 40), ingest.port())
    ingest.until(lambda: ingest.metrics().total("kafka_produced_records_total") == 80, "delivered")
    send([b"\x12\x34 no protocol"], ingest.port())
    assert ingest.event("dropped")["reason"] == "unknown_version"
    assert {line["reason"] for line in ingest.events("dropped")} == {"unknown_version"}
    assert len([line for line in ingest.events() if line["event"].startswith("read again: ")]) == 1
    assert ingest.stop() == 0


# --- settings


def test_an_unknown_key_is_named_with_its_nearest(programs: Programs, tmp_path: Path) -> None:
    """The file, the key and what was probably meant; exit 2, and no traceback."""
    file = tmp_path / "sluiceway.yaml"
    file.write_text("ingest:\n  lissten: ['udp://[::]:2055']\n")
    program = programs.run("ingest", "serve", settings={"config": str(file)})
    assert program.wait() == 2
    assert "ingest.lissten" in program.log
    assert "ingest.listen" in program.log
    assert f"{file}:2" in program.log
    assert "Traceback" not in program.log


def test_a_property_that_the_kafka_client_does_not_know_is_named(
    programs: Programs, kafka: str, topic_prefix: str
) -> None:
    """It is a mistake in the configuration: exit 2 with the client's own words, and no worker that dies for ever."""
    ingest = programs.ingest(kafka, topic_prefix, {"kafka": {"properties": {"acks.of.all": "please"}}})
    assert ingest.wait() == 2
    assert "kafka.properties" in ingest.log
    assert "acks.of.all" in ingest.log
    assert "Traceback" not in ingest.log
