"""Datagrams of one shape: the same bytes in the same places, but for marks and flow records.

A shape is composed once. A thousand datagrams of it are then one array of two dimensions, and each mark and each
field is written for all of them in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.generator.draws import U64, bits
from ingest.generator.layouts import (
    END_MS,
    FIRST_UPTIME,
    LAST_UPTIME,
    OCTETS,
    PACKETS,
    PIECES,
    START_MS,
    Layout,
)

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Values = Mapping[str, Numbers]
"""What is known of each of n datagrams, by name, [n]: `sequence`, `unix_seconds`, `template_shift`, …"""

MTU_BYTES: Final = 1472
"""What a UDP datagram holds on Ethernet without being cut in fragments."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A number in each datagram that is `values[name] + plus`, of `length` bytes, in network byte order."""

    name: str
    offset: int
    length: int
    plus: int


@dataclass(frozen=True, slots=True)
class FlowRun:
    """Flow records one after the other; the layouts are taken in turn, and all but a single one may differ in length."""

    offset: int
    layouts: tuple[Layout, ...]
    records: int

    def slices(self) -> Iterator[tuple[Layout, int, slice]]:
        """Layout, offset in the datagram, and which of the run's records: as few pieces as can be written at once."""
        if len(self.layouts) == 1:
            yield self.layouts[0], self.offset, slice(0, self.records)
            return
        offset = self.offset
        for record in range(self.records):
            layout = self.layouts[record % len(self.layouts)]
            yield layout, offset, slice(record, record + 1)
            offset += layout.record_bytes


@dataclass(frozen=True, slots=True)
class Flows:
    """The flow records of one run in n datagrams, as columns [n, records]; ages are before the datagram's own time."""

    conversation: Numbers
    octets: Numbers
    packets: Numbers
    start_age_ms: Numbers
    end_age_ms: Numbers


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of datagram, and how many records one holds."""

    content: bytes
    marks: tuple[Mark, ...]
    runs: tuple[FlowRun, ...]
    flow_records: int
    options_records: int

    def flows(self, raw: U64) -> list[Flows]:
        """Take each run's flows from random numbers, [n, flow_records]."""
        flows, first = [], 0
        for run in self.runs:
            flows.append(_flows(raw[:, first : first + run.records], wide=run.layouts[0].wide))
            first += run.records
        return flows

    def encode(
        self,
        out: Bytes,
        values: Values,
        flows: list[Flows],
        rows: Callable[[Layout], npt.NDArray[np.void]],
    ) -> None:
        """Write n datagrams to `out`, [n, len(content)]; `rows` gives the conversations as records of a layout."""
        out[:] = np.frombuffer(self.content, np.uint8)
        for mark in self.marks:
            number = values[mark.name] + mark.plus if mark.plus else values[mark.name]
            for at, dtype, shift in PIECES[mark.length]:
                place = out[:, mark.offset + at : mark.offset + at + np.dtype(dtype).itemsize].view(dtype)[:, 0]
                place[:] = number >> shift if shift else number
        for run, flow in zip(self.runs, flows, strict=True):
            uptime, exported = values["uptime_ms"][:, None], values["exported_ms"][:, None]
            per_record: dict[int, Numbers] = {
                OCTETS: flow.octets,
                PACKETS: flow.packets,
                FIRST_UPTIME: uptime - flow.start_age_ms,
                LAST_UPTIME: uptime - flow.end_age_ms,
                START_MS: exported - flow.start_age_ms,
                END_MS: exported - flow.end_age_ms,
            }
            for layout, offset, which in run.slices():
                end = offset + layout.record_bytes * (which.stop - which.start)
                records = out[:, offset:end].reshape(len(out), -1, layout.record_bytes)
                whole = records.view(np.dtype((np.void, layout.record_bytes)))[..., 0]
                whole[:] = rows(layout)[flow.conversation[:, which]]
                layout.fill(records, {element: value[:, which] for element, value in per_record.items()})


def _flows(raw: U64, *, wide: bool) -> Flows:
    """Flows from 64 random bits each: few are large, and with wide counters some are beyond 32 bits."""
    conversation = bits(raw, 0, 14)
    packets = 1 + (bits(raw, 14, 16) >> (4 + bits(raw, 30, 4)))
    if wide:
        packets <<= np.where(conversation % 64 == 0, 11, 0)
    octets = packets * (46 + (bits(raw, 34, 11) * 1454 >> 11))
    end_age_ms = bits(raw, 45, 12)
    duration_ms = bits(raw, 48, 16) * (packets > 1)
    return Flows(conversation, octets, packets, end_age_ms + duration_ms, end_age_ms)


class Composer:
    """Puts a shape together, from its first byte to its last."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.flow_records = 0
        self.options_records = 0
        self.template_records = 0
        self._marks: list[Mark] = []
        self._runs: list[FlowRun] = []

    def number(self, value: int, length: int) -> None:
        """Add a number that is the same in every datagram."""
        self.content += value.to_bytes(length, "big")

    def raw(self, content: bytes) -> None:
        """Add bytes that are the same in every datagram."""
        self.content += content

    def mark(self, name: str, length: int, *, plus: int = 0) -> None:
        """Add a number that is another in every datagram."""
        self._marks.append(Mark(name, len(self.content), length, plus))
        self.content += bytes(length)

    def patch(self, offset: int, value: int, length: int) -> None:
        """Write a number that is known only now, such as a length, over what stands there."""
        self.content[offset : offset + length] = value.to_bytes(length, "big")

    def flows(self, records: int, *layouts: Layout) -> None:
        """Add flow records."""
        self._runs.append(FlowRun(len(self.content), layouts, records))
        self.content += bytes(sum(layouts[at % len(layouts)].record_bytes for at in range(records)))
        self.flow_records += records

    @contextmanager
    def set(self, set_id: int) -> Iterator[None]:
        """Add a set header, and when the content is there its length, padded to 4 bytes.

        Ids from 256 are those of templates: they move with the exporter, which has numbers of its own.
        """
        begin = len(self.content)
        if set_id < 256:
            self.number(set_id, 2)
        else:
            self.mark("template_shift", 2, plus=set_id)
        self.number(0, 2)
        yield
        self.content += bytes(-(len(self.content) - begin) % 4)
        self.patch(begin + 2, len(self.content) - begin, 2)

    def template(self, template_id: int, layout: Layout) -> None:
        """Add a template record."""
        self.mark("template_shift", 2, plus=template_id)
        self.number(len(layout.fields), 2)
        self.raw(layout.specifiers)
        self.template_records += 1

    def shape(self) -> Shape:
        """What was composed; must fit in one Ethernet frame."""
        if len(self.content) > MTU_BYTES:
            raise ValueError(f"a datagram of {len(self.content)} bytes does not fit in {MTU_BYTES}")
        return Shape(
            bytes(self.content), tuple(self._marks), tuple(self._runs), self.flow_records, self.options_records
        )
