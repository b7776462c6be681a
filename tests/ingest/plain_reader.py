"""A reader of NetFlow v5, v9, IPFIX and sFlow with nothing of the product's: slow, and easy to believe."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from tests.ingest.plain_sflow import Sample, read_sflow

VARIABLE: Final = 65535
SCOPE: Final = -1
"""Stands in the place of an enterprise for the scopes of NetFlow v9, which have numbers of their own."""

Fields = tuple[tuple[int, int, int], ...]
Record = dict[tuple[int, int], bytes]

# NetFlow v5's record as the v9 elements that mean the same, and their lengths; 0 is padding.
V5_ELEMENTS: Final = (8, 12, 15, 10, 14, 2, 1, 22, 21, 7, 11, 0, 6, 4, 5, 16, 17, 9, 13, 0)
V5_LENGTHS: Final = (4, 4, 4, 2, 2, 4, 4, 4, 4, 2, 2, 1, 1, 1, 1, 2, 2, 1, 1, 2)
V5_FIELDS: Final[Fields] = tuple((0, element, size) for element, size in zip(V5_ELEMENTS, V5_LENGTHS, strict=True))


@dataclass
class Read:
    """A datagram as this reader understands it; sFlow's has version 0, and samples."""

    source: int
    version: int
    sequence: int
    domain: int
    header: bytes
    size: int
    flows: list[Record] = field(default_factory=list)
    flow_templates: list[int] = field(default_factory=list)
    """By which template each of the flows was read."""
    options: list[Record] = field(default_factory=list)
    templates: list[int] = field(default_factory=list)
    options_templates: list[int] = field(default_factory=list)
    padding: bytes = b""
    samples: list[Sample] = field(default_factory=list)
    counters: list[Sample] = field(default_factory=list)
    unknown: int = 0
    """Samples of a kind that nobody knows."""

    @property
    def records(self) -> int:
        """Data records, those of options among them."""
        return len(self.flows) + len(self.options)


class Reader:
    """Reads datagrams one by one, field by field, and asserts what a collector would count as a fault."""

    def __init__(self) -> None:
        self._templates: dict[tuple[int, int, int], tuple[Fields, bool]] = {}

    def read(self, source: int, payload: bytes) -> Read:
        """Read a datagram; templates are kept by exporter, domain and id."""
        version, count = struct.unpack_from("!HH", payload)
        if version == 0:
            return _sflow(source, payload)
        if version == 5:
            sequence, domain = struct.unpack_from("!IH", payload, 16)
            read = Read(source, 5, sequence, domain, payload[:24], len(payload))
            for at in range(24, len(payload), 48):
                read.flows.append(self._record(V5_FIELDS, payload, at)[0])
                read.flow_templates.append(0)
            assert count == len(read.flows)
            return read
        size = 20 if version == 9 else 16
        sequence, domain = struct.unpack_from("!II", payload, size - 8)
        read = Read(source, version, sequence, domain, payload[:size], len(payload))
        at = size
        while at < len(payload):
            set_id, length = struct.unpack_from("!HH", payload, at)
            self._set(read, set_id, payload[at + 4 : at + length])
            at += length
        assert at == len(payload)
        told = read.records + len(read.templates) + len(read.options_templates)
        assert count == (len(payload) if version == 10 else told)
        return read

    def _set(self, read: Read, set_id: int, content: bytes) -> None:
        if set_id < 256:
            options = set_id in {1, 3}
            assert set_id in {(0, 2)[read.version == 10], (1, 3)[read.version == 10]}
            at = 0
            while at + 4 < len(content):
                at = self._template(read, content, at, options=options)
            read.padding += content[at:]
            return
        fields, options = self._templates[read.source, read.domain, set_id]
        least = sum(1 if length == VARIABLE else length for _, _, length in fields)
        at = 0
        while len(content) - at >= least:
            record, at = self._record(fields, content, at)
            if options:
                read.options.append(record)
            else:
                read.flows.append(record)
                read.flow_templates.append(set_id)
        assert len(content) - at < 4
        read.padding += content[at:]

    def _template(self, read: Read, content: bytes, at: int, *, options: bool) -> int:
        template_id, count = struct.unpack_from("!HH", content, at)
        at, scopes = at + 4, 0
        if options:
            (second,) = struct.unpack_from("!H", content, at)
            at += 2
            # v9 says the bytes of scopes and of options, IPFIX the number of fields and how many of them are scopes.
            scopes, count = (count // 4, (count + second) // 4) if read.version == 9 else (second, count)
        fields: list[tuple[int, int, int]] = []
        for _ in range(count):
            element, length = struct.unpack_from("!HH", content, at)
            at += 4
            enterprise = 0
            if read.version == 10 and element & 0x8000:
                (enterprise,) = struct.unpack_from("!I", content, at)
                element, at = element & 0x7FFF, at + 4
            elif read.version == 9 and options and len(fields) < scopes:
                enterprise = SCOPE
            fields.append((enterprise, element, length))
        self._templates[read.source, read.domain, template_id] = tuple(fields), options
        (read.options_templates if options else read.templates).append(template_id)
        return at

    @staticmethod
    def _record(fields: Fields, content: bytes, at: int) -> tuple[Record, int]:
        record: Record = {}
        for enterprise, element, fixed in fields:
            length = fixed
            if fixed == VARIABLE:
                length, at = content[at], at + 1
                if length == 255:
                    length, at = int.from_bytes(content[at : at + 2], "big"), at + 2
            record[enterprise, element] = content[at : at + length]
            assert len(record[enterprise, element]) == length
            at += length
        return record, at


def _sflow(source: int, payload: bytes) -> Read:
    """A datagram of sFlow, of the agent that it names."""
    datagram = read_sflow(payload)
    assert datagram.agent == source
    return Read(
        source,
        0,
        datagram.sequence,
        datagram.sub_agent,
        payload[:28],
        len(payload),
        samples=datagram.flows,
        counters=datagram.counters,
        unknown=datagram.unknown,
    )


def integer(record: Record, element: int) -> int:
    """An element of IANA's as a number."""
    return int.from_bytes(record[0, element], "big")


def address(content: bytes) -> bytes:
    """An address as the record has it, of 16 bytes."""
    return content if len(content) == 16 else bytes(10) + b"\xff\xff" + content


def flow_time_ms(read: Read, record: Record, booted_ms: int, *, start: bool) -> int:
    """When a flow began or ended, by each protocol's own arithmetic, in milliseconds since 1970.

    `booted_ms` is when the exporter's uptime began, for IPFIX, whose header does not tell how long ago that is.
    """
    if (0, 152) in record:
        return integer(record, 152 if start else 153)
    uptime_ms = integer(record, 22 if start else 21)
    if read.version == 10:
        seconds = int.from_bytes(read.header[4:8], "big")
        turns = round((seconds * 1000 - booted_ms - uptime_ms) / 2**32)
        return booted_ms + uptime_ms + turns * 2**32
    uptime, seconds, nanoseconds = struct.unpack_from("!III", read.header, 4)
    fraction = nanoseconds // 1_000_000 if read.version == 5 else 0
    return int(seconds) * 1000 + int(fraction) - int(uptime - uptime_ms) % 2**32
