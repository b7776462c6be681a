from typing import Any

import pyarrow as pa
import pytest

from shared.counter_table import HEADINGS, CounterTable, counter_rows
from shared.counters import COLUMN

ADDRESS = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
INTERFACE: dict[str, Any] = {
    "time_received": 1_700_000_000_123_456_789,
    "sampler_address": ADDRESS,
    "sequence_num": 4,
    "if_index": 7,
    "source_id_class": 0,
    "source_id_index": 7,
    "if_type": 6,
    "if_speed": 10_000_000_000,
    "if_status": 3,
    "if_in_octets": 1_234_567,
    "if_in_ucast_pkts": 1000,
    "if_in_multicast_pkts": 20,
    "if_in_broadcast_pkts": None,
    "if_in_errors": 5,
    "if_out_octets": 0,
    "if_out_discards": 0,
    "port_name": "xe-0/0/7",
}
HOST: dict[str, Any] = {
    "sampler_address": ADDRESS,
    "source_id_class": 2,
    "source_id_index": 1,
    "hostname": "db-1\x1b[31m",
    "host_load_one": 0.1,
    "host_cpu_idle_ms": 77,
    "host_cpu_nice_ms": 0,
    "host_adapter_mac": ["02:00:00:00:00:01", "02:00:00:00:00:02"],
}


def table(*samples: dict[str, Any]) -> pa.Table:
    """Samples as columns of their types."""
    names = [name for name in COLUMN if any(name in sample for sample in samples)]
    return pa.table({name: pa.array([s.get(name) for s in samples], COLUMN[name].type) for name in names})


def cells(sample: dict[str, Any]) -> dict[str, str]:
    """A sample's cells by their titles."""
    (row,) = counter_rows(table(sample))
    return {heading.title: cell for heading, cell in zip(HEADINGS, row, strict=True)}


def test_an_interface() -> None:
    """Its name, speed and state, its bytes and packets each way, and whatever else is not zero."""
    assert cells(INTERFACE) == {
        "time": "2023-11-14 22:13:20.123",
        "exporter": "192.0.2.1",
        "source": "7",
        "name": "xe-0/0/7",
        "speed": "10G",
        "status": "up",
        "in bytes": "1,234,567",
        "in packets": "1,020",
        "out bytes": "0",
        "out packets": "-",
        "more": "if_in_errors=5",
    }


def test_a_host() -> None:
    """Its name, harmless to a terminal, and what it tells of itself."""
    shown = cells(HOST)
    assert (shown["source"], shown["name"], shown["in bytes"]) == ("entity 1", "db-1�[31m", "-")
    assert shown["more"].split() == [
        "host_adapter_mac=02:00:00:00:00:01,02:00:00:00:00:02",
        "host_load_one=0.1",
        "host_cpu_idle_ms=77",
    ]


@pytest.mark.parametrize(
    ("column", "value", "title", "cell"),
    [
        pytest.param("if_status", 0, "status", "off", id="switched off"),
        pytest.param("if_status", 1, "status", "down", id="down"),
        pytest.param("if_status", None, "status", "-", id="state unknown"),
        pytest.param("if_speed", 100_000_000, "speed", "100M", id="100 Mbit/s"),
        pytest.param("if_speed", 2_500_000_000, "speed", "2.5G", id="2.5 Gbit/s"),
        pytest.param("if_speed", 64_000, "speed", "64k", id="64 kbit/s"),
        pytest.param("if_speed", 300, "speed", "300", id="300 bit/s"),
        pytest.param("if_speed", 0, "speed", "-", id="no speed"),
        pytest.param("if_index", None, "source", "7", id="source without an interface"),
    ],
)
def test_cells(column: str, value: int | None, title: str, cell: str) -> None:
    """Numbers as people say them."""
    assert cells({**INTERFACE, column: value})[title] == cell


@pytest.mark.parametrize(("kind", "source"), [(1, "vlan 5"), (2, "entity 5"), (3, "logical 5"), (99, "99:5")])
def test_other_sources(kind: int, source: str) -> None:
    """A source that is no interface is told by its class."""
    assert cells({"source_id_class": kind, "source_id_index": 5})["source"] == source


def test_nothing_at_all() -> None:
    """Rows without columns have lines all the same."""
    assert list(counter_rows(pa.table({"a": [1, 2]}).select([]).slice(0, 0))) == []
    assert cells({"if_in_octets": None})["in bytes"] == "-"


def test_lines() -> None:
    """Lines stand under their titles, and none is cut where there is no terminal."""
    lines = CounterTable().lines(table(INTERFACE, HOST)).plain.splitlines()
    assert lines[0].split() == " ".join(heading.title for heading in HEADINGS).split()
    assert lines[1].endswith("if_in_errors=5")
    assert len(lines) == 3
    narrow = CounterTable(width=80).lines(table(INTERFACE)).plain.splitlines()
    assert "packets" not in narrow[0]
