"""tshark decodes the same captures: field by field it says what we say, with stated exceptions."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pytest
import xxhash

from ingest.captures import Captures
from ingest.decoders.origin import record_ids
from ingest.pipeline import Pipeline
from shared.text import json_rows
from tests.frames import address, ethernet, ipv4, pcap, udp
from tests.ingest import tshark
from tests.ingest.tshark_names import ALL, ALSO_OURS, ALSO_THEIRS, COLUMNS, DEPARTURES, REVERSED, SEEN_WITH, TIMES, Rule

pytestmark = pytest.mark.peers

PROTOCOLS: Final = ("netflow5", "netflow9", "ipfix")
MARK: Final = re.compile(r"_(?:tpls?|opttpl|tplopt|tpldata|data)(?=[_\d]|$)")
"""What in a file's name tells the templates of a device from its data."""
TEMPLATES: Final = re.compile(r"_(?:opt)?tpl")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Device:
    """The files of one device, templates first, and the address that it has here."""

    name: str
    files: Sequence[Path]
    source: str


@dataclass(slots=True)
class Comparison:
    """What both said: by device, and by the identity of the record."""

    devices: Sequence[Device]
    theirs: dict[str, tuple[Device, tshark.Record]] = field(default_factory=dict)
    theirs_reversed: dict[str, tuple[Device, tshark.Record]] = field(default_factory=dict)
    ours: dict[str, tuple[Device, Row]] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    """Departures that were met."""

    def differences(self) -> Iterator[str]:
        """Say what differs, one line each, but for what is stated."""
        for found, rules in ((self.theirs, COLUMNS), (self.theirs_reversed, REVERSED)):
            for identity in found.keys() & self.ours.keys():
                device, record = found[identity]
                for column, theirs, ours in _differing(record, self.ours[identity][1], rules):
                    if not self.departs(device, column):
                        place = f"{device.name}, packet {record.packet} at {record.position}"
                        yield f"{place}: {column} is {ours!r}, and {theirs!r} by tshark"
        both = self.theirs.keys() | self.theirs_reversed.keys()
        for identity in both - self.ours.keys():
            device, record = self.theirs.get(identity) or self.theirs_reversed[identity]
            if not self.departs(device):
                yield f"{device.name}: the record in packet {record.packet} at {record.position} is tshark's alone"
        for identity in self.ours.keys() - both:
            device, row = self.ours[identity]
            if not self.departs(device):
                yield f"{device.name}: {row} is ours alone"

    def departs(self, device: Device, column: str | None = None) -> bool:
        """Tell whether a difference is stated: of a column, or of whole records."""
        for departure in DEPARTURES:
            if re.fullmatch(departure.device, device.name) and (
                departure.columns == ALL or column in departure.columns
            ):
                self.needed.add(departure.reason)
                return True
        return False


def _differing(record: tshark.Record, row: Row, rules: Mapping[str, Rule]) -> Iterator[tuple[str, object, object]]:
    for column, rule in rules.items():
        theirs, ours = rule(record), row.get(column)
        if ours is not None and column in TIMES:
            ours = nanoseconds(ours)
        if theirs != ours:
            yield column, theirs, ours


def nanoseconds(text: str) -> int:
    """A time of a record in JSON, in nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


@pytest.fixture(scope="module")
def devices(captures: Path) -> Sequence[Device]:
    """All captures of the three protocols, by device."""
    files: dict[str, list[Path]] = {}
    for path in sorted(each for protocol in PROTOCOLS for each in (captures / protocol).glob("*.dat")):
        files.setdefault(MARK.split(path.stem)[0], []).append(path)
    return [
        Device(name, sorted(paths, key=lambda path: not TEMPLATES.search(path.stem)), f"10.0.0.{number}")
        for number, (name, paths) in enumerate(sorted(files.items()), 1)
    ]


@pytest.fixture(scope="module")
def compared(devices: Sequence[Device], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """What tshark and our command make of one capture that holds everything."""
    if why := tshark.why_no_tshark():
        pytest.skip(why)
    packets = [(device, path.read_bytes()) for device in devices for path in device.files]
    capture = tmp_path_factory.mktemp("tshark") / "all.pcap"
    capture.write_bytes(pcap([ethernet(ipv4(udp(payload), source=device.source)) for device, payload in packets]))
    result = Comparison(devices)
    for record in tshark.records(capture):
        device, payload = packets[record.packet]
        source = bytes(10) + b"\xff\xff" + address(device.source)
        identity = np.array([xxhash.xxh3_64_intdigest(source + payload)], np.uint64)
        first, second = (int(record_ids(identity, np.array([record.position]), part)[0]) for part in (0, 1))
        result.theirs[f"{first:016x}"] = device, record
        if REVERSED["bytes"](record) or REVERSED["packets"](record):
            result.theirs_reversed[f"{second:016x}"] = device, record
    by_source = {device.source: device for device in devices}
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "decode", "--format", "json", str(capture)], capture_output=True, check=True
    )
    for row in map(orjson.loads, done.stdout.splitlines()):
        result.ours[row["record_id"]] = by_source[row["sampler_address"]], row
    return result


def test_every_field_of_every_record_agrees(compared: Comparison) -> None:
    """Both see the same records at the same places, and each column has the value that tshark shows."""
    assert list(compared.differences()) == []


def test_stated_departures_are_real(compared: Comparison) -> None:
    """What is stated as different is different: nothing that has been mended stays on the list."""
    if tshark.version() != SEEN_WITH:
        pytest.skip(f"the list was made with tshark {SEEN_WITH}; this is {tshark.version()}")
    list(compared.differences())
    assert {departure.reason for departure in DEPARTURES} - compared.needed == set()


def test_every_name_of_tsharks_is_known(compared: Comparison) -> None:
    """Each field that tshark shows stands for a column, or stands for none for a stated reason."""
    asked = _Asked()
    for rule in (*COLUMNS.values(), *REVERSED.values()):
        rule(asked)  # type: ignore[arg-type]  # notes which names it is asked for
    shown = {name for _, record in compared.theirs.values() for name in record.fields}
    assert {name for name in shown - asked.names if not any(re.fullmatch(each, name) for each in ALSO_THEIRS)} == set()


def test_every_column_of_ours_is_compared(compared: Comparison) -> None:
    """Each column that any capture fills is compared, or is not for a stated reason."""
    filled = {column for _, row in compared.ours.values() for column in row}
    assert filled - COLUMNS.keys() - ALSO_OURS.keys() == set()


def test_the_comparison_is_worth_its_name(compared: Comparison) -> None:
    """Hundreds of records of all three protocols are compared, most columns of them filled."""
    both = [row for identity, (_, row) in compared.ours.items() if identity in compared.theirs]
    assert len(both) > 400
    assert {row["type"] for row in both} == {"NETFLOW_V5", "NETFLOW_V9", "IPFIX"}
    assert len({column for row in both for column in row if column in COLUMNS}) > 40


def test_raw_files_say_the_same(compared: Comparison) -> None:
    """Each device's files, read as raw datagrams, give the records that they give as packets."""
    for device in compared.devices:
        pipeline = Pipeline()
        raw = [
            row
            for batch in Captures(device.files).batches()
            for each in pipeline.decode(batch).batches
            for row in json_rows(each)
        ]
        packets = [row for owner, row in compared.ours.values() if owner is device]
        assert sorted(map(_comparable, raw)) == sorted(map(_comparable, packets))
        assert all(row["time_exported"][:19] == row["time_received"][:19] for row in raw)


def _comparable(row: Row) -> bytes:
    """A record without what tells where it came from."""
    left_out = {"record_id", "sampler_address", "time_received"}
    return orjson.dumps({name: value for name, value in row.items() if name not in left_out})


class _Asked:
    """Stands for a record, has nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.options: Mapping[str, tshark.Field] = {}
        self.header = _AnyHeader()

    def has(self, name: str, *, reverse: bool = False) -> bool:
        """Nothing is there."""
        self.names.add(name)
        return False

    def all(self, name: str) -> tuple[tshark.Field, ...]:
        """Nothing is there."""
        self.names.add(name)
        return ()


class _AnyHeader(dict[str, tshark.Field]):
    """A header that has whatever a rule wants of it."""

    def __missing__(self, name: str) -> tshark.Field:
        shown = {"version": "10", "timestamp": "Jan  1, 1970 00:00:00.000000000 UTC"}
        return tshark.Field(shown.get(name, "0"), "", reverse=False, title="")
