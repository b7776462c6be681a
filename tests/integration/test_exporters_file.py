"""The exporters file of a running ingest: joined to records, read again when it changes, and kept when it is wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.builders import data_set, field, ipfix_message, ipfix_templates, number, template
from tests.integration.programs import Ingest, Programs
from tests.integration.topic import RecordsTopic
from tests.integration.traffic import send

pytestmark = pytest.mark.integration

FIRST = "- match: 127.0.0.0/8\n  name: first\n  interfaces: {3: {name: uplink, boundary: external}}\n"
READ, KEPT = "the exporters file was read again", "the exporters file was not read again, the one before still holds"

Decoded = Callable[[Ingest, dict[str, Any]], None]


def payloads() -> Iterator[bytes]:
    """Datagrams of one record each, in by interface 3 and out by 7, no two alike."""
    fields = ipfix_templates(template(256, field(10, 4), field(14, 4)))
    for sequence in count():
        yield ipfix_message(fields, data_set(256, number(3, 4) + number(7, 4)), sequence=sequence)


@pytest.fixture
def decoded(kafka: str, topic_prefix: str) -> Decoded:
    """Sends datagrams until the newest records, of every worker, tell this."""
    topic = RecordsTopic(kafka, topic_prefix)
    sent = payloads()

    def until(ingest: Ingest, expected: dict[str, Any]) -> None:
        def rows() -> dict[int, dict[str, Any]]:
            table = topic.records()
            there = table.select([name for name in ("record_id", *expected) if name in table.column_names])
            return {row["record_id"]: row for row in there.to_pylist()}

        def there() -> bool:
            before, received = rows(), ingest.received()
            send([next(sent) for _ in range(16)], ingest.port())
            ingest.until_received(received + 16)
            ingest.until_settled()
            new = [row for identity, row in rows().items() if identity not in before]
            return len(new) == 16 and all(row.get(name) == value for row in new for name, value in expected.items())

        ingest.until(there, f"decoded to {expected}")

    return until


def test_the_file_is_joined_and_read_again_and_a_wrong_one_changes_nothing(
    programs: Programs, kafka: str, topic_prefix: str, tmp_path: Path, decoded: Decoded
) -> None:
    """Names and boundaries are columns; a file that changes is used, by a replaced worker too; a fault is named."""
    file = tmp_path / "exporters.yaml"
    file.write_text(FIRST)
    ingest = programs.ingest(kafka, topic_prefix, {"exporters_file": str(file)}).until_ready()
    first = {"sampler_name": "first", "in_if_name": "uplink", "in_if_boundary": "external", "out_if_boundary": None}
    decoded(ingest, first)

    file.write_text("- match: 127.9.0.1\n  name: second\n  interfaces: {7: {boundary: internal}}\n")
    assert ingest.event(READ)["exporters"] == 1
    second = {"sampler_name": "second", "in_if_name": None, "in_if_boundary": None, "out_if_boundary": "internal"}
    decoded(ingest, second)

    file.write_text("- match: 127.0.0.1\n  nam: third\n")
    assert f"{file}:2: exporters[0].nam" in ingest.event(KEPT)["reason"]
    decoded(ingest, second)
    for pid in ingest.workers().values():
        os.kill(pid, signal.SIGKILL)
    ingest.workers(replaced=2)
    decoded(ingest, second)

    file.unlink()
    ingest.send_signal(signal.SIGHUP)
    ingest.event(KEPT, count=2)
    decoded(ingest, second)

    file.write_text(FIRST)
    decoded(ingest, first)
    assert ingest.stop() == 0


def test_a_wrong_file_is_refused_at_the_start(programs: Programs, tmp_path: Path) -> None:
    """Exit 2 with the file, the line and the key, and no traceback."""
    file = tmp_path / "exporters.yaml"
    file.write_text("- match: 127.0.0.1\n  interfaces:\n    3: {boundary: out}\n")
    program = programs.run("ingest", "serve", settings={"exporters_file": str(file)})
    assert program.wait() == 2
    assert f"{file}:3: exporters[0].interfaces.3.boundary" in program.log
    assert "Traceback" not in program.log
