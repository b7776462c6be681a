"""`python -m ingest decode`: files in, records out."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.__main__ import main
from shared.counters import COLUMN as COUNTER_COLUMN
from shared.record import SCHEMA
from shared.text import json_rows
from tests.builders import (
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    number,
    template,
    v5_datagram,
    v5_record,
)
from tests.counter_builders import (
    counters_datagram,
    counters_sample,
    interface_record,
    port_name_record,
    record,
)
from tests.frames import ARP, ethernet, ipv4, pcap, udp

V5 = v5_datagram(v5_record(src_port=1), v5_record(src_port=2))
TEMPLATE = ipfix_message(ipfix_templates(template(256, field(4, 1), field(1, 4))))
DATA = ipfix_message(data_set(256, number(6, 1) + number(1000, 4), number(17, 1) + number(70, 4)))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """One file of each kind, by name."""
    contents = {
        "v5.dat": V5,
        "template.dat": TEMPLATE,
        "data.bin": DATA,
        "all.pcap": pcap([ethernet(ipv4(udp(each))) for each in (V5, TEMPLATE, DATA)]),
        "none.pcap": pcap([]),
        "noise.pcap": pcap([ethernet(bytes(46), ARP), ethernet(ipv4(udp(b"\x12\x34 a question"))), b""]),
        "junk.dat": os.urandom(3) + b"junk",
        "text.txt": b"no capture",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents} | {"missing.pcap": str(tmp_path / "missing.pcap")}


def decode(*arguments: str, capsys: pytest.CaptureFixture[bytes], status: int = 0) -> tuple[bytes, str]:
    """Run the command in this process, with what it writes to standard output and standard error."""
    assert main(["decode", *arguments]) == status
    out, err = capsys.readouterr()
    return out, err.decode()


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run the command with a terminal as its standard output and standard error: exit status and what it shows."""
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "ingest", "decode", *arguments]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env={**os.environ, "COLUMNS": "200"}) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(screen, 65536):
                shown += piece
        except OSError:
            # Linux tells so that the other side is closed.
            pass
        os.close(screen)
    return process.returncode, shown.decode()


def test_json_is_the_default_where_no_terminal_is(
    files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Records are one JSON object a line, named as the record's columns, in the order of the files."""
    out, err = decode(files["v5.dat"], files["template.dat"], files["data.bin"], capsys=capsysbinary)
    rows = [orjson.loads(line) for line in out.splitlines()]
    assert [(row["type"], row.get("src_port"), row["proto"], row["bytes"]) for row in rows] == [
        ("NETFLOW_V5", 1, 6, 64),
        ("NETFLOW_V5", 2, 6, 64),
        ("IPFIX", None, 6, 1000),
        ("IPFIX", None, 17, 70),
    ]
    assert rows[0]["time_received"] == "2023-11-14T22:13:20Z"
    assert rows[0]["time_exported"] == "2023-11-14T22:13:20.000Z"
    assert rows[0]["sampler_address"] == "::"
    assert err == ""


def test_data_waits_for_its_template(
    files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    """Data before its template is decoded when that comes; data whose template never comes is counted."""
    out, err = decode(files["data.bin"], files["template.dat"], capsys=capsysbinary)
    assert out.count(b"\n") == 2
    assert err == ""
    ledger = tmp_path / "ledger.json"
    out, err = decode(files["data.bin"], "--ledger", str(ledger), capsys=capsysbinary)
    assert out == b""
    assert err == "not decoded: 1 sets (awaiting_template)\n"
    assert orjson.loads(ledger.read_bytes())["awaiting_template"] == 1


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_columns(form: str, files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Arrow and Parquet hold the records that JSON shows, with all columns of the record."""
    out, _ = decode("--format", form, files["all.pcap"], capsys=capsysbinary)
    table = pa.ipc.open_stream(out).read_all() if form == "arrow" else pq.read_table(io.BytesIO(out))
    assert table.schema.names == SCHEMA.names
    json, _ = decode("--format", "json", files["all.pcap"], capsys=capsysbinary)
    assert list(json_rows(table)) == [orjson.loads(line) for line in json.splitlines()]


def test_table(files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A table can be asked for where there is no terminal, and is plain text."""
    out, _ = decode("--format", "table", files["all.pcap"], capsys=capsysbinary)
    lines = out.decode().splitlines()
    assert len(lines) == 5
    assert "192.0.2.1:1" in lines[1]
    assert "198.51.100.2:443" in lines[1]


def test_table_is_the_default_on_a_terminal(files: dict[str, str]) -> None:
    """On a terminal a person sees a table, in colours, and below it what was not decoded."""
    status, shown = on_a_terminal(files["all.pcap"], files["noise.pcap"])
    assert status == 0
    assert "exporter" in shown
    assert "192.0.2.1:1" in shown
    assert "\x1b[" in shown
    assert "not decoded: 1 packets (not_flow_export)" in shown


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_bytes_are_not_written_to_a_terminal(form: str, files: dict[str, str]) -> None:
    """What a terminal cannot show is refused there, with what to do instead."""
    status, shown = on_a_terminal("--format", form, files["all.pcap"])
    assert status == 2
    assert f"redirect it, > flows.{form}" in shown


@pytest.mark.parametrize(
    ("names", "ledger"),
    [
        pytest.param(
            ["all.pcap"],
            {"datagrams": 3, "records": 4, "counters": 0, "templates": 1, "awaiting_template": 0, "faults": {}},
            id="everything decoded",
        ),
        pytest.param(
            ["none.pcap"],
            {"datagrams": 0, "records": 0, "counters": 0, "templates": 0, "awaiting_template": 0, "faults": {}},
            id="nothing there",
        ),
        pytest.param(
            ["template.dat", "all.pcap", "noise.pcap", "junk.dat"],
            {
                "datagrams": 5,
                "records": 4,
                "counters": 0,
                "templates": 2,
                "awaiting_template": 0,
                "faults": {"bad_packet": 1, "not_flow_export": 1, "not_udp": 1, "unknown_version": 1},
            },
            id="with noise",
        ),
    ],
)
def test_ledger(
    names: list[str],
    ledger: dict[str, object],
    files: dict[str, str],
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
) -> None:
    """The ledger has these keys and no other; standard error tells the same faults, a line a reason."""
    path = tmp_path / "ledger.json"
    _, err = decode("--ledger", str(path), *(files[name] for name in names), capsys=capsysbinary)
    assert orjson.loads(path.read_bytes()) == ledger
    faults = ledger["faults"]
    assert isinstance(faults, dict)
    assert len(err.splitlines()) == len(faults)
    for reason, count in faults.items():
        assert any(line.startswith(f"not decoded: {count} ") and f"({reason})" in line for line in err.splitlines())


def test_no_counters(files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """Counter samples are shown in place of flows: where there are none, the flows are counted all the same."""
    path = tmp_path / "ledger.json"
    out, _ = decode("--counters", "--ledger", str(path), files["all.pcap"], capsys=capsysbinary)
    assert out == b""
    assert orjson.loads(path.read_bytes())["records"] == 4
    out, _ = decode("--counters", "--format", "parquet", files["all.pcap"], capsys=capsysbinary)
    assert pq.read_table(io.BytesIO(out)).schema.names == list(COUNTER_COLUMN)


@pytest.fixture
def sflow(tmp_path: Path) -> str:
    """A datagram with two interfaces and a record of a kind that no column has room for."""
    samples = (
        counters_sample(interface_record(1, octets=10), port_name_record("eth1"), source=1),
        counters_sample(interface_record(2, octets=20), record(9, bytes(40)), source=2),
    )
    path = tmp_path / "sflow.pcap"
    path.write_bytes(pcap([ethernet(ipv4(udp(counters_datagram(*samples))))]))
    return str(path)


@pytest.mark.parametrize("form", ["json", "arrow", "parquet"])
def test_counters(form: str, sflow: str, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """Each counter sample is a row; what no column has room for is told, and the ledger counts the samples."""
    path = tmp_path / "ledger.json"
    out, err = decode("--counters", "--format", form, "--ledger", str(path), sflow, capsys=capsysbinary)
    if form == "json":
        rows = [orjson.loads(line) for line in out.splitlines()]
    else:
        table = pa.ipc.open_stream(out).read_all() if form == "arrow" else pq.read_table(io.BytesIO(out))
        assert table.schema.names == list(COUNTER_COLUMN)
        rows = list(json_rows(table))
    assert [(row["if_index"], row["if_in_octets"], row.get("port_name")) for row in rows] == [
        (1, 10, "eth1"),
        (2, 20, None),
    ]
    assert err == "passed over: 1 (counter record 0:9)\n"
    assert orjson.loads(path.read_bytes()) == {
        "datagrams": 1,
        "records": 0,
        "counters": 2,
        "templates": 0,
        "awaiting_template": 0,
        "faults": {},
    }
    out, _ = decode("--format", "json", sflow, capsys=capsysbinary)
    assert out == b""


def test_counters_as_a_table(sflow: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A person sees interfaces with their names, speeds and bytes."""
    out, _ = decode("--counters", "--format", "table", sflow, capsys=capsysbinary)
    titles, first, second = out.decode().splitlines()
    assert titles.split()[:6] == ["time", "exporter", "source", "name", "speed", "status"]
    assert first.split()[3:7] == ["1", "eth1", "1G", "up"]
    assert second.split()[3:7] == ["2", "-", "1G", "up"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["v5.dat", "missing.pcap"], "missing.pcap cannot be read: No such file", id="a missing file"),
        pytest.param(["v5.dat", "text.txt"], "text.txt is no pcap or pcapng file", id="a file of another kind"),
        pytest.param(["v5.dat", "--mapping", "map.yaml"], "map.yaml: there is no such configuration file", id="a mapping"),
        pytest.param(["v5.dat", "--ledger", "/nowhere/x.json"], "/nowhere/x.json cannot be written", id="no place for the ledger"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(
    arguments: list[str], says: str, files: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What cannot be done is said in a sentence before anything is decoded, with exit status 2."""
    out, err = decode(*(files.get(each, each) for each in arguments), capsys=capsysbinary, status=2)
    assert out == b""
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "table", "arrow", "parquet"])
def test_a_reader_that_goes_away(form: str, tmp_path: Path) -> None:
    """Whoever reads only the beginning, as head does, gets it, and the command ends without a word."""
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([ethernet(ipv4(udp(v5_datagram(*[v5_record()] * 30))))] * 400))
    command = [sys.executable, "-m", "ingest", "decode", "--format", form, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(4)) == 4
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_progress_on_long_files(tmp_path: Path) -> None:
    """Reading a long file shows how far it is, where standard error is a terminal and the records go elsewhere."""
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([ethernet(bytes(60000), ARP)] * 300))
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "ingest", "decode", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(screen, 65536):
                shown += piece
        except OSError:
            # Linux tells so that the other side is closed.
            pass
        os.close(screen)
    assert process.returncode == 0
    assert b"reading" in shown
    assert b"not decoded: 300 packets (not_udp)" in shown
