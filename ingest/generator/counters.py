"""sFlow's counter samples: what interfaces and hosts have counted since they were started."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ingest.generator import names
from ingest.generator.samples import FAR_INTERFACES
from ingest.generator.shapes import Composer, before

COUNTERS_SAMPLE, EXPANDED_COUNTERS_SAMPLE = 2, 4
INTERFACE, ENTITY = 0, 2
"""Kinds of data sources: an interface, and the device itself."""
ETHERNET_CSMACD: Final = 6
SPEED: Final = 10_000_000_000
FULL_DUPLEX, UP = 1, 3
LINUX, X86_64 = 2, 3
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a record: `value`, and `times` the exporter's uptime in milliseconds."""

    value: int = 0
    times: int = 0
    length: int = 4


@dataclass(frozen=True, slots=True)
class Text:
    """A string in a record; see `Composer.name`."""

    text: str


Part = Number | Text | bytes


def _grow(*times: int) -> tuple[Number, ...]:
    """Counters of 32 bits that grow with the uptime."""
    return tuple(Number(times=each) for each in times)


def _grow_64(times: int) -> Number:
    return Number(times=times, length=8)


def _are(*values: int) -> tuple[Number, ...]:
    """Numbers of 32 bits that are always the same."""
    return tuple(Number(each) for each in values)


def _bytes_64(gib: int) -> Number:
    return Number(gib * GIB, length=8)


def _generic(interface: int, index: int) -> tuple[Part, ...]:
    return (
        *_are(index, ETHERNET_CSMACD),
        Number(SPEED, length=8),
        *_are(FULL_DUPLEX, UP),
        # Octets, then packets to one, to some and to all, discards, errors; coming in, protocols that are not known.
        _grow_64(125 * interface),
        *_grow(interface, 0, 0),
        *_are(interface, 0, 0),
        _grow_64(250 * interface),
        *_grow(2 * interface, 0, 0),
        *_are(interface, 0),
        Number(0),  # not promiscuous
    )


def _ethernet(interface: int) -> tuple[Part, ...]:
    return _are(0, interface, *[0] * 11)


def _vlan(interface: int) -> tuple[Part, ...]:
    return (Number(100 + interface), _grow_64(100 * interface), *_grow(interface), *_are(20, 3, 0))


def _aggregation(interface: int) -> tuple[Part, ...]:
    macs = tuple(bytes.fromhex("02005e0000") + bytes((last, 0, 0)) for last in (interface, 0xEE))
    return (*macs, *_are(1000, 0x3D3D3F3F, *[interface] * 8))


PROCESSOR: Final[tuple[Part, ...]] = (*_are(1250, 1175, 990), _bytes_64(16), _bytes_64(9))
"""Load over 5 seconds, a minute and five in hundredths of a percent; memory and what is free of it."""
HOST: Final[tuple[tuple[int, tuple[Part, ...]], ...]] = (
    (2000, (Text("host-%"), bytes(range(16)), *_are(X86_64, LINUX), Text("6.1.0"))),
    (
        2001,
        (
            Number(2),
            *_are(1, 1),
            bytes.fromhex("02005e0001010000"),
            *_are(2, 1),
            bytes.fromhex("02005e0001020000"),
        ),
    ),
    # Load, processes, processors and their frequency, uptime in seconds, milliseconds by what they went to, and more.
    (
        2003,
        (
            struct.pack("!fff", 0.5, 0.25, 0.125),
            *_are(2, 180, 8, 2400, 86_400),
            *_grow(1, 0, 1, 6, 0, 0, 0, 2, 5, 0, 0, 0),
        ),
    ),
    (2004, (*map(_bytes_64, (16, 4, 0, 1, 6, 2, 2)), *_grow(1, 2, 0, 0))),
    (
        2005,
        (
            *(_bytes_64(500), _bytes_64(300), Number(4321)),
            *(*_grow(1), _grow_64(4096), *_are(77)),
            *(*_grow(1), _grow_64(8192), *_are(78)),
        ),
    ),
    (2006, (_grow_64(900), *_grow(1, 0, 0), _grow_64(400), *_grow(1, 0, 0))),
    *(
        (kind, _grow(*(word % 3 for word in range(words))))
        for kind, words in ((2007, 19), (2008, 25), (2009, 15), (2010, 7))
    ),
)
"""What a server's operating system counts: names, adaptors, processors, memory, disks, network, IP, ICMP, TCP, UDP."""


def interface_counters(interface: int, index: int) -> tuple[tuple[int, tuple[Part, ...]], ...]:
    """The records that every interface has."""
    return ((1, _generic(interface, index)), (2, _ethernet(interface)))


class Counters:
    """Adds counter samples of one sub-agent to a datagram."""

    def __init__(self, composer: Composer, sub_agent: int, *, expanded: bool) -> None:
        self._composer = composer
        self._sub_agent = sub_agent
        self._expanded = expanded

    def interface(self, interface: int) -> None:
        """Add the counters of an interface."""
        index = self._index(interface)
        self._add(INTERFACE, index, interface_counters(interface, index))

    def trunk(self, interface: int) -> None:
        """Add the counters of an interface that belongs to a VLAN and to an aggregation, and its name."""
        index = self._index(interface)
        more = ((5, _vlan(interface)), (7, _aggregation(interface)), (1005, (Text(names.port_name(interface)),)))
        self._add(INTERFACE, index, interface_counters(interface, index) + more)

    def processor(self) -> None:
        """Add the load and the memory of a switch."""
        self._add(ENTITY, 1, ((1001, PROCESSOR),))

    def host(self) -> None:
        """Add what a server counts."""
        self._add(ENTITY, 1, HOST)

    def _index(self, interface: int) -> int:
        return interface + (FAR_INTERFACES if self._expanded else 0)

    def _add(self, kind: int, index: int, records: Sequence[tuple[int, tuple[Part, ...]]]) -> None:
        composer, counter = self._composer, f"counters_{self._sub_agent}_{kind}_{index}"
        with self._tagged(EXPANDED_COUNTERS_SAMPLE if self._expanded else COUNTERS_SAMPLE):
            composer.mark(before(counter), 4, plus=1)
            if self._expanded:
                composer.number(kind, 4)
                composer.number(index, 4)
            else:
                composer.number(kind << 24 | index, 4)
            composer.number(len(records), 4)
            for tag, parts in records:
                with self._tagged(tag):
                    for part in parts:
                        self._part(part)
        composer.count(counter)
        composer.counter_samples += 1

    @contextmanager
    def _tagged(self, tag: int) -> Iterator[None]:
        """Add a structure's number before it, and its length when it is there."""
        composer = self._composer
        composer.number(tag, 4)
        begin = len(composer.content)
        composer.number(0, 4)
        yield
        composer.patch(begin, len(composer.content) - begin - 4, 4)

    def _part(self, part: Part) -> None:
        composer = self._composer
        if isinstance(part, bytes):
            composer.raw(part)
        elif isinstance(part, Text):
            composer.number(len(part.text), 4)
            composer.name(part.text, len(part.text) + -len(part.text) % 4)
        elif part.times:
            composer.mark("uptime_ms", part.length, times=part.times, plus=part.value)
        else:
            composer.number(part.value, part.length)
