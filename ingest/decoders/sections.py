"""Sections of sampled packets that a record carries, taken apart as the sampled headers of sFlow are.

Sources: RFC 7133 §3 for frames and their lengths, RFC 5477 §8.5 for IP; Cisco's NetFlow v9 types 102 to 104.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.elements import Element
from ingest.decoders.fields import Fields
from ingest.decoders.frame import Frames, HeaderProtocol, dissect
from ingest.decoders.layout import VARIABLE, Layout
from shared.record import COLUMN

LONGEST_SECTION_BYTES: Final = 512
"""Of a section this much is taken apart: the headers are at its beginning."""

ETHERNET_FRAME: Final = 1
"""Type of a frame (element 408)."""
FRAME_TYPE: Final[Element] = (0, 408)
FRAME_BYTES: Final[Element] = (0, 312)
"""Length of the frame, of which the section is the beginning."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """An element that holds a section, and those that tell where it begins in its packet, and how long it is."""

    section: Element
    offset: Element
    exported: Element
    ip: bool = False


KINDS: Final = (
    _Kind((0, 315), (0, 409), (0, 410)),
    _Kind((0, 104), (0, 102), (0, 103)),
    _Kind((0, 313), (0, 409), (0, 410), ip=True),
)
"""The best first."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a layout has a section, and what tells of it; None for what it does not have."""

    at: int
    ip: bool
    """Whether it begins with an IP header, not with a frame's."""
    room: int | None
    """Bytes that the field has for it; None where the section has as many as there are."""
    offset: int | None
    exported: int | None
    frame_type: int | None
    frame_bytes: int | None


def find_section(layout: Layout, places: Mapping[Element, int]) -> Section | None:
    """The section that records of this layout carry, if any."""
    for kind in KINDS:
        if kind.section in places:
            at = places[kind.section]
            length = layout.fields[at].length
            return Section(
                at,
                kind.ip,
                None if length == VARIABLE else length,
                places.get(kind.offset),
                places.get(kind.exported),
                None if kind.ip else places.get(FRAME_TYPE),
                places.get(FRAME_BYTES),
            )
    return None


def section_columns(section: Section, fields: Fields, decapsulate: Collection[str]) -> dict[str, pa.Array]:
    """What the sampled packets tell; a column only of what some of them tell."""
    octets, length = fields.padded(section.at, LONGEST_SECTION_BYTES)
    if section.exported is not None:
        # A field of fixed length is filled up behind a section that is shorter.
        exported = _number(fields, section.exported)
        length = np.where(exported > 0, np.minimum(exported, length), length)
    rows = np.ascontiguousarray(octets)
    begin = np.arange(fields.count) * rows.shape[1]
    frames = dissect(rows.reshape(-1), begin, length, _protocol(section, fields, rows, length), decapsulate)
    made = {
        name: columns.primitive(cells.values, COLUMN[name].type, None if cells.valid.all() else cells.valid)
        for name, cells in frames.cells.items()
        if cells.valid.any()
    }
    if frames.labelled.any():
        made["mpls_labels"] = columns.number_lists(frames.labels, frames.labelled)
    there = length > 0
    if there.any():
        made["packets"] = columns.primitive(np.ones(fields.count, np.uint64), pa.uint64(), there)
    size = _frame_bytes(section, fields, frames)
    if (size > 0).any():
        made["bytes"] = columns.primitive(size.astype(np.uint64), pa.uint64(), size > 0)
    return made


def _number(fields: Fields, at: int) -> npt.NDArray[np.int64]:
    # No length or type has more bits; what pretends to is as large as can be.
    number: npt.NDArray[np.int64] = np.minimum(fields.uint(at).astype(np.uint64), np.iinfo(np.int32).max).astype(
        np.int64
    )
    return number


def _protocol(
    section: Section, fields: Fields, rows: npt.NDArray[np.uint8], length: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """What each section begins with; 0 for what is not taken apart."""
    if section.ip:
        version = np.where(length > 0, rows[:, 0] >> 4, 0) if rows.shape[1] else np.zeros(fields.count, np.uint8)
        protocol = np.where(
            version == 4, int(HeaderProtocol.IPV4), np.where(version == 6, int(HeaderProtocol.IPV6), 0)
        ).astype(np.int64)
    else:
        protocol = np.full(fields.count, int(HeaderProtocol.ETHERNET), np.int64)
    if section.frame_type is not None:
        protocol[_number(fields, section.frame_type) != ETHERNET_FRAME] = 0
    if section.offset is not None:
        # Its beginning is what there is to take apart.
        protocol[_number(fields, section.offset) != 0] = 0
    return protocol


def _frame_bytes(section: Section, fields: Fields, frames: Frames) -> npt.NDArray[np.int64]:
    """Length of each packet, 0 where nothing tells.

    It is told by element 312; else by the IP header inside; else by a section that is shorter than its field has room
    for, since then the packet ended there.
    """
    size = np.zeros(fields.count, np.int64)
    if section.frame_bytes is not None:
        size = _number(fields, section.frame_bytes)
    size = np.where(size > 0, size, frames.length)
    if section.exported is not None and section.room is not None:
        exported = _number(fields, section.exported)
        size = np.where((size == 0) & (exported < section.room), exported, size)
    return size
