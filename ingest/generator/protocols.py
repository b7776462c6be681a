"""What the exporters of each protocol send: the shapes of their datagrams, and what their sequence numbers count."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ingest.generator.shapes import Shape


class Counting(StrEnum):
    """What a sequence number counts: each protocol has a rule of its own."""

    FLOWS = "flows"
    """NetFlow v5: flow records before this datagram."""
    DATAGRAMS = "datagrams"
    """NetFlow v9: datagrams before this one (RFC 3954 §5.1)."""
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
    """What an exporter begins with and repeats: templates, options and some flows."""
    full: Shape
    """The largest datagram: what most of them are, and all of them in uniform traffic."""
    others: tuple[Shape, ...]

    def cycle(self, length: int, *, uniform: bool) -> list[Shape]:
        """The datagrams from one announcement to the next, in their order."""
        return [self.announcement, *(self._shape_at(at, uniform=uniform) for at in range(1, length))]

    def _shape_at(self, at: int, *, uniform: bool) -> Shape:
        if uniform or at % 4 != 2 or not self.others:
            return self.full
        return self.others[at // 4 % len(self.others)]

    def advance(self, shape: Shape) -> int:
        """By how much a datagram moves the sequence number on."""
        match self.counting:
            case Counting.FLOWS:
                return shape.flow_records
            case Counting.DATAGRAMS:
                return 1
            case Counting.RECORDS:
                return shape.flow_records + shape.options_records
