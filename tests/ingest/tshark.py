"""What tshark, the independent referee, makes of the same packets: its XML as records."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    """One flow record: which packet it is in, where it begins in the datagram, and its fields by tshark's names."""

    packet: int
    position: int
    header: Mapping[str, Field]
    fields: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)

    def has(self, name: str, *, reverse: bool = False) -> bool:
        """Tell whether the record has a field of this name."""
        return any(each.reverse == reverse for each in self.fields.get(name, ()))

    def last(self, name: str, *, reverse: bool = False) -> Field:
        """The last field of a name: of several, it is the one that counts."""
        return [each for each in self.fields[name] if each.reverse == reverse][-1]


def why_no_tshark() -> str | None:
    """What to do to have tshark, or None when it is there."""
    return None if shutil.which("tshark") else "no tshark: apt-get install tshark"


def records(capture: Path, port: int = 2055) -> Iterator[Record]:
    """Give the flow records that tshark finds in a capture of Ethernet and IPv4; options are left out."""
    command = ["tshark", "-n", "-r", str(capture), "-d", f"udp.port=={port},cflow", "-T", "pdml"]
    command += ["-o", "cflow.max_template_fields:0"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"})
    options: set[tuple[str, str, str]] = set()
    for number, packet in enumerate(ET.fromstring(done.stdout).iter("packet")):
        source = packet.findall(".//field[@name='ip.src']")[0].get("show", "")
        for protocol in packet.findall("proto[@name='cflow']"):
            header = {name: each for name, each in _fields(protocol, into_sets=False)}
            domain = next((header[name].show for name in ("source_id", "od_id") if name in header), "")
            for element in protocol.findall("field"):
                template_set = (source, domain, _found(_SET, element, 1))
                for inner in (element, *element.findall("field")):
                    show = inner.get("show", "")
                    if template := _TEMPLATE.match(show):
                        (options.add if template[1] else options.discard)((source, domain, template[2]))
                    elif _RECORD.match(show) and template_set not in options:
                        by_name: dict[str, list[Field]] = {}
                        for name, each in _fields(inner):
                            by_name.setdefault(name, []).append(each)
                        position = int(inner.get("pos", "0")) - HEADERS_BYTES
                        yield Record(number, position, header, {name: tuple(all_) for name, all_ in by_name.items()})


def _found(pattern: re.Pattern[str], element: ET.Element, group: int) -> str:
    match = pattern.match(element.get("show", ""))
    return match[group] if match else ""


def _fields(parent: ET.Element, *, into_sets: bool = True) -> Iterator[tuple[str, Field]]:
    """The named values below an element, in their order, without the `cflow.` of their names."""
    for element in parent.findall("field"):
        name = element.get("name", "")
        if name:
            title = element.get("showname", "")
            raw = element.get("unmaskedvalue") or element.get("value", "")
            yield name.removeprefix("cflow."), Field(element.get("show", ""), raw, "(Reverse Type" in title, title)
        if name or into_sets:
            yield from _fields(element, into_sets=into_sets)
