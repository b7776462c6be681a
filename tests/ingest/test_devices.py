"""Each device of docs/devices.md, from its bytes to the record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.captures import Captures
from ingest.decoders import Decoded
from ingest.decoders.datagrams import Datagrams
from shared.text import json_rows
from tests.builders import (
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    mapped,
    number,
    template,
    v9_datagram,
    v9_templates,
)
from tests.ingest.collector import EXPORTER, FROM_THE_DATAGRAM, RECEIVED_NS, Collector, nothing_wrong, rows, told
from tests.ingest.known_devices import BUILT, CAPTURED, Built, Captured
from tests.ingest.known_sflow_devices import BUILT_NETFLOW, BUILT_SFLOW, CAPTURED_SFLOW

DOCS = Path(__file__).parents[2] / "docs" / "devices.md"
ALL_CAPTURED = (*CAPTURED, *CAPTURED_SFLOW)
ALL_BUILT = (*BUILT, *BUILT_NETFLOW, *BUILT_SFLOW)
TEMPLATES = re.compile(r"_(?:opt)?tpl")
"""What tells a capture of templates from one of data: they go first."""


def shown(decoded: Decoded) -> list[dict[str, Any]]:
    """Records as `decode --format json` shows them, in the order in which they lie in their datagram."""
    found = [row for batch in decoded.batches for row in json_rows(pa.Table.from_batches([batch]))]
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def own(decoded: Decoded) -> list[dict[str, Any]]:
    """The same without what every record has."""
    return [{name: value for name, value in row.items() if name not in FROM_THE_DATAGRAM} for row in shown(decoded)]


def payloads(path: Path) -> Iterator[bytes]:
    """The datagrams of a file."""
    for batch in Captures([path]).batches():
        yield from (batch.payload(at) for at in range(len(batch)))


def counted(decoded: Decoded) -> list[dict[str, Any]]:
    """Counter samples as `decode --counters --format json` shows them."""
    return [row for batch in decoded.counters for row in json_rows(pa.Table.from_batches([batch]))]


@pytest.mark.parametrize("device", [pytest.param(device, id=device.name) for device in ALL_CAPTURED])
def test_a_captured_device(device: Captured, captures: Path) -> None:
    """All that was captured is decoded, and some records tell this."""
    collector = Collector()
    files = sorted(captures.glob(device.files), key=lambda path: (not TEMPLATES.search(path.stem), path.name))
    assert files
    found: list[dict[str, Any]] = []
    counters: list[dict[str, Any]] = []
    odd: set[str] = set()
    for payload in (payload for path in files for payload in payloads(path)):
        decoded = collector.feed(payload)
        assert not decoded.faults
        odd |= {oddity.value for oddity in decoded.oddities}
        found += shown(decoded)
        counters += counted(decoded)
    assert (len(found), len(counters)) == (device.records, device.counters)
    assert not device.counted or any(device.counted.items() <= row.items() for row in counters)
    for expected in (device.expected, *device.further):
        assert any(expected.items() <= row.items() for row in found)
    assert (collector.pipeline.parking.sets, frozenset(odd)) == (device.parked, device.odd)


@pytest.mark.parametrize("device", [pytest.param(device, id=device.name) for device in ALL_BUILT])
def test_a_device_as_it_is_documented(device: Built) -> None:
    """What a device is known to send gives these records, and nothing of it is lost or odd."""
    collector = Collector()
    found: list[dict[str, Any]] = []
    counters: list[dict[str, Any]] = []
    for payload in device.payloads:
        decoded = collector.feed(payload)
        assert nothing_wrong(decoded)
        found += own(decoded)
        counters += counted(decoded)
    assert found == list(device.expected)
    assert len(counters) == len(device.counted)
    assert all(expected.items() <= row.items() for expected, row in zip(device.counted, counters, strict=True))


@pytest.mark.parametrize("device", [pytest.param(device, id=device.name) for device in ALL_BUILT])
def test_a_device_that_is_cut_off_at_any_byte(device: Built) -> None:
    """Datagrams that end at any byte raise nothing, and give records of the whole ones and no others."""
    for payload in device.payloads:
        for end in range(len(payload)):
            assert all(row in device.expected for row in own(Collector().feed(payload[:end])))


def test_the_page_names_each_device_and_its_test() -> None:
    """docs/devices.md has a row for each device of the tables here, and no row without a test."""
    page = DOCS.read_text(encoding="utf-8")
    tested = {device.name: "test_a_captured_device" for device in ALL_CAPTURED}
    tested |= {device.name: "test_a_device_as_it_is_documented" for device in ALL_BUILT}
    named = dict(re.findall(r"^\| ([^|]+?) \|.*\| `tests/ingest/test_devices\.py::(\w+)` \|$", page, re.MULTILINE))
    assert named == tested


# --- what devices of all kinds do


@pytest.mark.parametrize("version", [9, 10], ids=["v9", "ipfix"])
def test_observation_domains_have_templates_of_their_own(version: int) -> None:
    """One template id means something else in each domain of one exporter, whatever the order of the datagrams."""
    elements = (7, 11, 5)
    payloads = []
    for domain, element in enumerate(elements):
        described, data = template(300, field(element, 2)), data_set(300, number(17 + domain, 2))
        if version == 9:
            payloads += [v9_datagram(v9_templates(described), source_id=domain), v9_datagram(data, source_id=domain)]
        else:
            payloads += [ipfix_message(ipfix_templates(described), domain=domain), ipfix_message(data, domain=domain)]
    expected = [{"src_port": 17}, {"dst_port": 18}, {"ip_tos": 19}]
    for order in (payloads, payloads[::-1], payloads[::2] + payloads[1::2]):
        found = {row["observation_domain_id"]: told(row) for row in rows(Collector().feed(*order))}
        assert [found[domain] for domain in range(3)] == expected


def test_exporters_have_templates_of_their_own() -> None:
    """One template id means something else at each exporter."""
    payloads = [
        v9_datagram(v9_templates(template(300, field(element, 2))), data_set(300, number(9, 2))) for element in (7, 11)
    ]
    sources = [EXPORTER, mapped("2001:db8::7")]
    decoded = Collector().take(Datagrams.pack(payloads, sources, [50000] * 2, [RECEIVED_NS] * 2))
    assert {row["sampler_address"]: told(row) for row in rows(decoded)} == {
        sources[0]: {"src_port": 9},
        sources[1]: {"dst_port": 9},
    }


@pytest.mark.parametrize("zeros", [1, 2, 3, 4, 7, 8, 500, 1300])
@pytest.mark.parametrize("version", [9, 10], ids=["v9", "ipfix"])
def test_exporters_that_pad_with_nothing(version: int, zeros: int) -> None:
    """Zeros in the set or behind the last one, as many as there may be, are neither records nor a fault."""
    described = template(300, field(8, 4), field(12, 4), field(4, 1))
    record = bytes([192, 0, 2, 1, 192, 0, 2, 2, 6])
    padded = data_set(300, record, padding=zeros % 9)
    if version == 9:
        decoded = Collector().feed(v9_datagram(v9_templates(described), padded, bytes(zeros)))
    else:
        decoded = Collector().feed(ipfix_message(ipfix_templates(described), padded, bytes(zeros)))
    assert decoded.records == 1
    assert nothing_wrong(decoded)
