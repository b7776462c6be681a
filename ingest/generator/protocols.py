"""What the exporters of each protocol send: the shapes of their datagrams, and what their sequence numbers count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ingest.generator.shapes import Shape


class Counting(StrEnum):
    """What a sequence number counts: each protocol has a rule of its own."""

    FLOWS = "flows"
    """NetFlow v5: flow records before this datagram."""
    DATAGRAMS = "datagrams"
    """NetFlow v9: datagrams before this one (RFC 3954 §5.1). sFlow: those of the same sub-agent."""
    RECORDS = "records"
    """IPFIX: data records before this message, those of options among them and templates not (RFC 7011 §3.1)."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol's name in the record, and the shapes of its datagrams."""

    type: str
    counting: Counting
    whole_seconds: bool
    """Whether the header's clock has no fraction, so that the uptime beside it is that of a whole second."""
    announcement: Shape
    """What an exporter begins with and repeats: templates, options and some flows; sFlow's counters."""
    tables: tuple[Shape, ...]
    """What follows each announcement: more of the same, none in uniform traffic."""
    full: Shape
    """The largest datagram: what most of them are, and all but announcements in uniform traffic."""
    others: tuple[Shape, ...]
    """What comes now and then, nothing in uniform traffic."""
    interfaces: Mapping[int, str]
    """What an exporter calls those of its interfaces that it says a name of, see names.py."""

    def cycle(self, length: int) -> list[Shape]:
        """The datagrams from one announcement to the next, in their order."""
        begin = [self.announcement, *self.tables][:length]
        return begin + [self._shape_at(at) for at in range(len(begin), length)]

    def _shape_at(self, at: int) -> Shape:
        if at % 4 != 2 or not self.others:
            return self.full
        return self.others[at // 4 % len(self.others)]

    def sequence(self, shape: Shape) -> str:
        """The exporter's counter that a datagram's sequence number shows."""
        match self.counting:
            case Counting.FLOWS:
                return "flow_records"
            case Counting.DATAGRAMS:
                return shape.stream
            case Counting.RECORDS:
                return "data_records"
