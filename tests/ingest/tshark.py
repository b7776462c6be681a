"""What tshark, the independent referee, makes of the same packets: its XML as records."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

HEADERS_BYTES: Final = 14 + 20 + 8
"""What lies before a datagram in a frame: Ethernet, IPv4, UDP."""
_RECORD: Final = re.compile(r"(?:Flow|pdu) \d+")
_TEMPLATE: Final = re.compile(r"(Options )?Template \(Id = (\d+)")
_SET: Final = re.compile(r"(?:Flow)?Set \d+ \[id=(\d+)\]")


@dataclass(frozen=True, slots=True)
class Field:
    """One value: `show` as tshark displays it, `raw` its bytes in hex, `reverse` for RFC 5103's other direction."""

    show: str
    raw: str
    reverse: bool
    title: str


@dataclass(frozen=True, slots=True)
class Record:
    """One record: which packet it is in, where it begins in the datagram, and its fields by tshark's names."""

    packet: int
    position: int
    header: Mapping[str, Field]
    fields: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)
    options: Sequence[Record] = ()
    """The options records of its exporter that came before it, the last one first."""

    @property
    def domain(self) -> str:
        """The observation domain or source id, as tshark shows it."""
        return next((self.header[name].show for name in ("source_id", "od_id") if name in self.header), "")

    def all(self, name: str) -> tuple[Field, ...]:
        """All fields of a name, those of the other direction left out."""
        return tuple(each for each in self.fields.get(name, ()) if not each.reverse)

    def has(self, name: str, *, reverse: bool = False) -> bool:
        """Tell whether the record has a field of this name."""
        return any(each.reverse == reverse for each in self.fields.get(name, ()))

    def last(self, name: str, *, reverse: bool = False) -> Field:
        """The last field of a name: of several, it is the one that counts."""
        return [each for each in self.fields[name] if each.reverse == reverse][-1]


def why_no_tshark() -> str | None:
    """What to do to have tshark, or None when it is there."""
    return None if shutil.which("tshark") else "no tshark: apt-get install tshark"


def version() -> str:
    """Major and minor version, such as `4.0`."""
    told = subprocess.run(["tshark", "--version"], capture_output=True, check=True, text=True).stdout
    found = re.search(r"(\d+\.\d+)\.\d+", told)
    assert found is not None, told
    return found[1]


def packets(capture: Path, *options: str) -> Iterator[ET.Element]:
    """Give all that tshark shows of each packet of a capture."""
    command = ["tshark", "-n", "-r", str(capture), "-T", "pdml", *options]
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    yield from ET.fromstring(done.stdout).iter("packet")


def records(capture: Path, port: int = 2055) -> Iterator[Record]:
    """Give the flow records that tshark finds in a capture of Ethernet and IPv4, in their order."""
    as_netflow = ("-d", f"udp.port=={port},cflow", "-o", "cflow.max_template_fields:0")
    exporters: dict[str, _Exporter] = {}
    for number, packet in enumerate(packets(capture, *as_netflow)):
        source = packet.findall(".//field[@name='ip.src']")[0].get("show", "")
        for protocol in packet.findall("proto[@name='cflow']"):
            header = dict(_fields(protocol, into_sets=False))
            exporter = exporters.setdefault(source, _Exporter())
            for element in protocol.findall("field"):
                yield from exporter.records(number, header, element)


@dataclass(slots=True)
class _Exporter:
    """What tshark has told of one exporter: which of its templates are of options, by domain and id, and these."""

    option_templates: set[tuple[str, str]] = field(default_factory=set)
    options: list[Record] = field(default_factory=list)

    def records(self, number: int, header: Mapping[str, Field], element: ET.Element) -> Iterator[Record]:
        """Give the flow records of a set, or of NetFlow v5, where `element` is one itself."""
        template_set = _found(_SET, element)
        for inner in (element, *element.findall("field")):
            show = inner.get("show", "")
            template = _TEMPLATE.match(show)
            record = Record(number, int(inner.get("pos", "0")) - HEADERS_BYTES, header)
            if template is not None:
                known = self.option_templates
                (known.add if template[1] else known.discard)((record.domain, template[2]))
            elif _RECORD.match(show):
                by_name: dict[str, list[Field]] = {}
                for name, each in _fields(inner):
                    by_name.setdefault(name, []).append(each)
                fields = {name: tuple(all_) for name, all_ in by_name.items()}
                if (record.domain, template_set) in self.option_templates:
                    self.options.insert(0, replace(record, fields=fields))
                else:
                    yield replace(record, fields=fields, options=tuple(self.options))


def _found(pattern: re.Pattern[str], element: ET.Element) -> str:
    match = pattern.match(element.get("show", ""))
    return match[1] if match else ""


def _fields(parent: ET.Element, *, into_sets: bool = True) -> Iterator[tuple[str, Field]]:
    """The named values below an element, in their order, without the `cflow.` of their names."""
    for element in parent.findall("field"):
        name = element.get("name", "")
        if name:
            title = element.get("showname", "")
            raw = element.get("unmaskedvalue") or element.get("value") or ""
            yield name.removeprefix("cflow."), Field(element.get("show", ""), raw, "(Reverse Type" in title, title)
        if name or into_sets:
            yield from _fields(element, into_sets=into_sets)
