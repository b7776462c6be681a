"""A record's fields in their order, as bytes: all that is known of a conversation, and gaps for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.generator.flows import Conversations

OCTETS, PACKETS = 1, 2
LAST_UPTIME, FIRST_UPTIME = 21, 22
START_MS, END_MS = 152, 153
# sFlow has no elements: these are numbers of our own, beyond those of two bytes.
SEQUENCE, SOURCE, RATE, POOL, DROPS, INPUT, OUTPUT, FRAME_BYTES, BYTES_LEFT, UDP_BYTES_LEFT = range(65536, 65546)
PER_RECORD: Final = frozenset(
    {
        *(OCTETS, PACKETS, LAST_UPTIME, FIRST_UPTIME, START_MS, END_MS),
        *(SEQUENCE, SOURCE, RATE, POOL, DROPS, INPUT, OUTPUT, FRAME_BYTES, BYTES_LEFT, UDP_BYTES_LEFT),
    }
)
"""Elements whose value is another in each record, whatever the conversation."""
VARIABLE: Final = 65535
ENTERPRISE_BIT: Final = 0x8000

# How an unsigned integer of n bytes is written: (offset, type, bits to shift away). numpy has no types for the odd ones.
PIECES: Final[dict[int, tuple[tuple[int, str, int], ...]]] = {
    1: ((0, "u1", 0),),
    2: ((0, ">u2", 0),),
    3: ((0, "u1", 16), (1, ">u2", 0)),
    4: ((0, ">u4", 0),),
    5: ((0, "u1", 32), (1, ">u4", 0)),
    6: ((0, ">u2", 32), (2, ">u4", 0)),
    8: ((0, ">u8", 0),),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a template.

    `length` is what the content takes on the wire. `column` is the conversations' column that fills it; without one
    it is filled for each record (`PER_RECORD`, `plus` added to what is not 0) or with zeros. `prefix` is what stands
    before a content of variable length: the length, in one byte or in three (RFC 7011 §7). `told` is false where a
    collector is not to make a column of it, such as in the packet that a tunnel carries.
    """

    element: int
    length: int
    column: str | None = None
    enterprise: int = 0
    prefix: bytes = b""
    plus: int = 0
    told: bool = True

    @property
    def specifier(self) -> bytes:
        """The field as a template names it; the enterprise's number follows in IPFIX alone."""
        length = VARIABLE if self.prefix else self.length
        if self.enterprise:
            words = (self.element | ENTERPRISE_BIT, length)
            return b"".join(word.to_bytes(2, "big") for word in words) + self.enterprise.to_bytes(4, "big")
        return self.element.to_bytes(2, "big") + length.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Gap:
    """A piece of a record that is written for each record: the value of `element` and `plus`, shifted to the right."""

    element: int
    offset: int
    dtype: str
    shift: int
    plus: int


class Layout:
    """The fields of a template, for conversations of one address family, and of one IP protocol if `proto` says so.

    `rate` names the exporters' column that is the sampling rate of its records; without one they tell no rate, and
    nothing else of themselves either.
    """

    def __init__(
        self, family: int, fields: tuple[Field, ...], *, proto: int | None = None, rate: str | None = "sampling_rate"
    ) -> None:
        self.family = family
        self.proto = proto
        self.rate = rate
        self.fields = fields
        self.record_bytes = sum(len(field.prefix) + field.length for field in fields)
        self.gaps = tuple(self._gaps())
        self.wide = any(field.element == OCTETS and field.length > 4 for field in fields)
        """Whether the counters have room for more than 32 bits."""
        self.dtype = np.dtype(
            {
                "names": [f"{gap.element}.{gap.offset}" for gap in self.gaps],
                "formats": [gap.dtype for gap in self.gaps],
                "offsets": [gap.offset for gap in self.gaps],
                "itemsize": self.record_bytes,
            }
        )

    @property
    def specifiers(self) -> bytes:
        """The fields as a template names them."""
        return b"".join(field.specifier for field in self.fields)

    def _gaps(self) -> list[Gap]:
        gaps, offset = [], 0
        for field in self.fields:
            if field.element in PER_RECORD and not field.enterprise:
                gaps += [
                    Gap(field.element, offset + at, dtype, shift, field.plus)
                    for at, dtype, shift in PIECES[field.length]
                ]
            offset += len(field.prefix) + field.length
        return gaps

    def rows(self, conversations: Conversations) -> npt.NDArray[np.void]:
        """Every conversation as a record of this layout, with zeros in the gaps: one item of `record_bytes` each."""
        parts: list[npt.NDArray[np.uint8]] = []
        count = len(conversations.values("proto"))
        for field in self.fields:
            if field.prefix:
                parts.append(np.tile(np.frombuffer(field.prefix, np.uint8), (count, 1)))
            if field.column is None:
                parts.append(np.zeros((count, field.length), np.uint8))
            else:
                parts.append(conversations.wire(field.column, field.length))
        rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return rows.view(np.dtype((np.void, self.record_bytes)))[:, 0]

    def fill(self, records: npt.NDArray[np.uint8], values: Mapping[int, npt.NDArray[Any]]) -> None:
        """Write the gaps of records, [..., record_bytes], from the values of each element, [...]."""
        view = records.view(self.dtype)[..., 0]
        for gap in self.gaps:
            value = values[gap.element]
            if gap.plus:
                value = np.where(value != 0, value + gap.plus, 0)
            view[f"{gap.element}.{gap.offset}"] = value >> gap.shift if gap.shift else value
