"""The mapping of a running ingest: read again on SIGHUP, and kept when the file is wrong."""

from __future__ import annotations

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

TO_SOURCE = "fields: [{protocol: ipfix, enterprise: 32473, element: 7, column: src_sgt}]\nsgt_names: {10: Employees}\n"
TO_DESTINATION = (
    "fields: [{protocol: ipfix, enterprise: 32473, element: 7, column: dst_sgt, exporters: [127.9.0.0/16]}]\n"
)
KEPT = "the mapping was not read again, the one before still holds"


def payloads() -> Iterator[bytes]:
    """Datagrams of one record each with a vendor's element, no two alike."""
    fields = ipfix_templates(template(256, field(7, 2, enterprise=32473)))
    for sequence in count():
        yield ipfix_message(fields, data_set(256, number(10, 2)), sequence=sequence)


@pytest.fixture
def decoded(kafka: str, topic_prefix: str) -> Callable[[Ingest, dict[str, Any]], None]:
    """Sends datagrams until a record comes that tells this."""
    topic = RecordsTopic(kafka, topic_prefix)
    sent = payloads()

    def until(ingest: Ingest, expected: dict[str, Any]) -> None:
        def there() -> bool:
            # Both workers get some: each has the mapping in its own time.
            send([next(sent) for _ in range(8)], ingest.port())
            table = topic.records()
            rows = table.select([name for name in expected if name in table.column_names]).to_pylist()
            return any(all(row.get(name) == value for name, value in expected.items()) for row in rows)

        ingest.until(there, f"decoded to {expected}")

    return until


def test_a_hang_up_reads_the_mapping_again_and_a_wrong_one_changes_nothing(
    programs: Programs,
    kafka: str,
    topic_prefix: str,
    tmp_path: Path,
    decoded: Callable[[Ingest, dict[str, Any]], None],
) -> None:
    """What the file says holds from the next batch on; a file with a fault is named with line and key, and not used."""
    file = tmp_path / "mapping.yaml"
    file.write_text(TO_SOURCE)
    ingest = programs.ingest(kafka, topic_prefix, {"ingest": {"mapping_file": str(file)}}).until_ready()
    decoded(ingest, {"src_sgt": 10, "src_sgt_name": "Employees", "dst_sgt": None})

    file.write_text(TO_DESTINATION)
    ingest.send_signal(signal.SIGHUP)
    decoded(ingest, {"src_sgt": None, "dst_sgt": 10, "dst_sgt_name": None})

    file.write_text("fields:\n  - {protocol: ipfix, element: 5, column: src_stg}\n")
    ingest.send_signal(signal.SIGHUP)
    reason = ingest.event(KEPT)["reason"]
    assert f"{file}:2: fields[0].column" in reason
    assert "src_sgt" in reason
    decoded(ingest, {"src_sgt": None, "dst_sgt": 10})

    file.unlink()
    ingest.send_signal(signal.SIGHUP)
    # The configuration names a file that is not there, which is a fault of the configuration.
    ingest.event("the configuration was not read again")
    decoded(ingest, {"src_sgt": None, "dst_sgt": 10})

    file.write_text(TO_SOURCE)
    ingest.send_signal(signal.SIGHUP)
    decoded(ingest, {"src_sgt": 10, "src_sgt_name": "Employees", "dst_sgt": None})
    assert ingest.stop() == 0


def test_a_file_of_names_is_read_again_when_it_changes(
    programs: Programs,
    kafka: str,
    topic_prefix: str,
    tmp_path: Path,
    decoded: Callable[[Ingest, dict[str, Any]], None],
) -> None:
    """Nobody has to signal: who manages the groups need not know who manages the service."""
    names, file = tmp_path / "names.yaml", tmp_path / "mapping.yaml"
    names.write_text("10: Employees\n")
    file.write_text(f"{TO_SOURCE.splitlines()[0]}\nsgt_names_file: {names}\n")
    ingest = programs.ingest(kafka, topic_prefix, {"ingest": {"mapping_file": str(file)}}).until_ready()
    decoded(ingest, {"src_sgt": 10, "src_sgt_name": "Employees"})
    names.write_text("10: Contractors\n20: Guests\n")
    decoded(ingest, {"src_sgt": 10, "src_sgt_name": "Contractors"})
    names.write_text("10: [no, name]\n")
    assert f"{names}:1: sgt_names.10" in ingest.event(KEPT)["reason"]
    decoded(ingest, {"src_sgt": 10, "src_sgt_name": "Contractors"})
    assert ingest.stop() == 0


def test_a_wrong_mapping_is_refused_at_the_start(programs: Programs, tmp_path: Path) -> None:
    """Exit 2 with the file, the line and the key, and no traceback."""
    file = tmp_path / "mapping.yaml"
    file.write_text("fields:\n  - {protocol: v9, element: 1, colum: bytes}\n")
    program = programs.run("ingest", "serve", settings={"ingest": {"mapping_file": str(file)}})
    assert program.wait() == 2
    assert f"{file}:2: fields[0].colum" in program.log
    assert "Traceback" not in program.log
