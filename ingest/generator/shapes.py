"""Datagrams of one shape: the same bytes in the same places, but for marks and flow records.

A shape is composed once. A thousand datagrams of it are then one array of two dimensions, and each mark and each
field is written for all of them in one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ingest.generator.draws import U64, bits
from ingest.generator.flows import Conversations
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
from ingest.generator.names import SLOT

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Values = Mapping[str, Numbers]
"""What is known of each of n datagrams, by name, [n]: `sequence`, `unix_seconds`, `template_shift`, …"""

MTU_BYTES: Final = 1472
"""What a UDP datagram holds on Ethernet without being cut in fragments."""
BEFORE: Final = "_before"


def before(counter: str) -> str:
    """The name of a value: how far a counter of the exporter's had come before the datagram."""
    return counter + BEFORE


@dataclass(frozen=True, slots=True)
class Mark:
    """A number in each datagram that is `values[name] * times + plus`, of `length` bytes, in network byte order."""

    name: str
    offset: int
    length: int
    plus: int
    times: int


@dataclass(frozen=True, slots=True)
class Flows:
    """The flow records of one run in n datagrams, as columns [n, records]; ages are before the datagram's own time."""

    conversation: Numbers
    octets: Numbers
    packets: Numbers
    start_age_ms: Numbers
    end_age_ms: Numbers


@dataclass(frozen=True, slots=True)
class FlowRun:
    """Flow records one after the other; the layouts are taken in turn, and all but a single one may differ in length."""

    offset: int
    layouts: tuple[Layout, ...]
    records: int

    def layout(self, record: int) -> Layout:
        """The layout of one of the run's records."""
        return self.layouts[record % len(self.layouts)]

    def slices(self) -> Iterator[tuple[Layout, int, slice]]:
        """Layout, offset in the datagram, and which of the run's records: as few pieces as can be written at once."""
        if len(self.layouts) == 1:
            yield self.layouts[0], self.offset, slice(0, self.records)
            return
        offset = self.offset
        for record in range(self.records):
            layout = self.layout(record)
            yield layout, offset, slice(record, record + 1)
            offset += layout.record_bytes

    @property
    def counters(self) -> tuple[str, ...]:
        """Counters of the exporter's that its records show."""
        return ()

    def draw(self, raw: U64) -> Flows:
        """Take flows from 64 random bits each: few are large, and with wide counters some are beyond 32 bits."""
        conversation = bits(raw, 0, 14)
        packets = 1 + (bits(raw, 14, 16) >> (4 + bits(raw, 30, 4)))
        if self.layouts[0].wide:
            packets <<= np.where(conversation % 64 == 0, 11, 0)
        octets = packets * (46 + (bits(raw, 34, 11) * 1454 >> 11))
        end_age_ms = bits(raw, 45, 12)
        duration_ms = bits(raw, 48, 16) * (packets > 1)
        return Flows(conversation, octets, packets, end_age_ms + duration_ms, end_age_ms)

    def numbers(
        self,
        values: Values,
        flows: Flows,
        which: slice,
        conversations: Conversations,  # noqa: ARG002 - the numbers of other runs depend on them
    ) -> Mapping[int, Numbers]:
        """What is another in each record, by element, of some of the run's records, [n, records] each."""
        uptime, exported = values["uptime_ms"][:, None], values["exported_ms"][:, None]
        start_age_ms, end_age_ms = flows.start_age_ms[:, which], flows.end_age_ms[:, which]
        return {
            OCTETS: flows.octets[:, which],
            PACKETS: flows.packets[:, which],
            FIRST_UPTIME: uptime - start_age_ms,
            LAST_UPTIME: uptime - end_age_ms,
            START_MS: exported - start_age_ms,
            END_MS: exported - end_age_ms,
        }


class Source(Protocol):
    """Where shapes get the conversations from that layouts speak of."""

    def conversations(self, layout: Layout) -> Conversations:
        """The conversations of a layout's address family."""

    def rows(self, layout: Layout) -> npt.NDArray[np.void]:
        """The same as records of the layout."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of datagram, and how many records one holds."""

    content: bytes
    marks: tuple[Mark, ...]
    runs: tuple[FlowRun, ...]
    flow_records: int
    options_records: int
    counter_samples: int
    stream: str
    """The counter of the datagrams among which it is numbered: an exporter may have several."""
    counts: tuple[tuple[str, int], ...]
    """By how much it moves the exporter's counters on, by their names."""

    @property
    def counters(self) -> frozenset[str]:
        """Counters of the exporter's that it shows: what they were before it has to be among the values."""
        marked = (mark.name.removesuffix(BEFORE) for mark in self.marks if mark.name.endswith(BEFORE))
        return frozenset((*marked, *(counter for run in self.runs for counter in run.counters)))

    def draw(self, raw: U64) -> list[Flows]:
        """Take each run's flows from random numbers, [n, flow_records]."""
        flows, first = [], 0
        for run in self.runs:
            flows.append(run.draw(raw[:, first : first + run.records]))
            first += run.records
        return flows

    def encode(self, out: Bytes, values: Values, flows: list[Flows], source: Source) -> None:
        """Write n datagrams to `out`, [n, len(content)]."""
        out[:] = np.frombuffer(self.content, np.uint8)
        for mark in self.marks:
            number = values[mark.name]
            if mark.times != 1 or mark.plus:
                number = number * mark.times + mark.plus
            for at, dtype, shift in PIECES[mark.length]:
                place = out[:, mark.offset + at : mark.offset + at + np.dtype(dtype).itemsize].view(dtype)[:, 0]
                place[:] = number >> shift if shift else number
        for run, flow in zip(self.runs, flows, strict=True):
            for layout, offset, which in run.slices():
                end = offset + layout.record_bytes * (which.stop - which.start)
                records = out[:, offset:end].reshape(len(out), -1, layout.record_bytes)
                whole = records.view(np.dtype((np.void, layout.record_bytes)))[..., 0]
                whole[:] = source.rows(layout)[flow.conversation[:, which]]
                layout.fill(records, run.numbers(values, flow, which, source.conversations(layout)))


class Composer:
    """Puts a shape together, from its first byte to its last."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.flow_records = 0
        self.options_records = 0
        self.template_records = 0
        self.counter_samples = 0
        self._counts: Counter[str] = Counter()
        self._marks: list[Mark] = []
        self._runs: list[FlowRun] = []

    def number(self, value: int, length: int) -> None:
        """Add a number that is the same in every datagram."""
        self.content += value.to_bytes(length, "big")

    def raw(self, content: bytes) -> None:
        """Add bytes that are the same in every datagram."""
        self.content += content

    def mark(self, name: str, length: int, *, plus: int = 0, times: int = 1) -> None:
        """Add a number that is another in every datagram."""
        self._marks.append(Mark(name, len(self.content), length, plus, times))
        self.content += bytes(length)

    def name(self, text: str, length: int | None = None) -> None:
        """Add a name, in which `SLOT` is the exporter's own; filled up with NUL to a length, when there is one."""
        begin, (head, slot, tail) = len(self.content), text.partition(SLOT)
        self.raw(head.encode())
        if slot:
            self.mark("slot", 1, plus=ord("0"))
        self.raw(tail.encode())
        if length is not None:
            self.raw(bytes(begin + length - len(self.content)))

    def count(self, counter: str, by: int = 1) -> None:
        """Move one of the exporter's counters on with every datagram."""
        self._counts[counter] += by

    def patch(self, offset: int, value: int, length: int) -> None:
        """Write a number that is known only now, such as a length, over what stands there."""
        self.content[offset : offset + length] = value.to_bytes(length, "big")

    def flows(self, records: int, *layouts: Layout) -> None:
        """Add flow records."""
        self.run(FlowRun(len(self.content), layouts, records))

    def run(self, run: FlowRun) -> None:
        """Add a run of flow records whose offset is where the content ends."""
        self._runs.append(run)
        self.content += bytes(sum(run.layout(record).record_bytes for record in range(run.records)))
        self.flow_records += run.records

    @contextmanager
    def set(self, set_id: int, *, padded: bool = True) -> Iterator[None]:
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
        if padded:
            self.content += bytes(-(len(self.content) - begin) % 4)
        self.patch(begin + 2, len(self.content) - begin, 2)

    def template(self, template_id: int, layout: Layout) -> None:
        """Add a template record."""
        self.mark("template_shift", 2, plus=template_id)
        self.number(len(layout.fields), 2)
        self.raw(layout.specifiers)
        self.template_records += 1

    def shape(self, *, stream: str = "datagrams", most_bytes: int = MTU_BYTES) -> Shape:
        """What was composed; has to fit in one Ethernet frame, unless it may have more bytes."""
        if len(self.content) > most_bytes:
            raise ValueError(f"a datagram of {len(self.content)} bytes does not fit in {most_bytes}")
        always = {
            "datagrams": 1,
            "octets": len(self.content),
            "flow_records": self.flow_records,
            "data_records": self.flow_records + self.options_records,
        }
        return Shape(
            bytes(self.content),
            tuple(self._marks),
            tuple(self._runs),
            self.flow_records,
            self.options_records,
            self.counter_samples,
            stream,
            tuple({**always, **self._counts}.items()),
        )
