"""A layout: the field list of a template, shared by every exporter that sends it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ingest.decoders.fault import Fault, Oddity

VARIABLE: Final = 65535
"""The length that announces a field of variable length (RFC 7011 §7).

NetFlow v9 does not define it, and H3C sends it there all the same; no field of that many bytes fits a datagram.
"""

V9_SCOPE: Final = 1 << 32
"""Stands in the place of the enterprise number for NetFlow v9 scope types (RFC 3954 §6.1), which no element shares."""

FIRST_DATA_SET: Final = 256


class Field(NamedTuple):
    """One field of a template: which element, and how many bytes of it (or VARIABLE)."""

    enterprise: int
    element: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a template in their order; the first ``scopes`` of an options template are its scope."""

    version: int
    """9 or 10: the same element can mean another thing in NetFlow v9 and in IPFIX."""
    fields: tuple[Field, ...]
    options: bool
    scopes: int

    @property
    def variable(self) -> bool:
        """Whether records of this layout differ in length."""
        return any(field.length == VARIABLE for field in self.fields)

    @property
    def shortest_record(self) -> int:
        """Bytes of the shortest record; a variable-length field has at least its length byte."""
        return sum(1 if field.length == VARIABLE else field.length for field in self.fields)


@dataclass(frozen=True, slots=True)
class Template:
    """A template as an exporter sent it: the identifier that its data sets will carry, and the layout."""

    template_id: int
    layout: Layout
    wire_bytes: int


def read_templates(version: int, options: bool, body: bytes) -> Iterator[Template | Fault | Oddity]:
    """Yield what a template set holds: templates, and the faults and oddities among them.

    ``body`` is the set without its header. A set is read until its padding; what cannot be read ends it, since where
    the next template begins is then unknown. Source: RFC 3954 §5.2 and §6.1, RFC 7011 §3.4.1 and §3.4.2.
    """
    at, end = 0, len(body)
    while end - at >= 4:
        template_id, count = struct.unpack_from("!HH", body, at)
        if template_id == 0 and not any(body[at:]):
            return
        if version == 10 and count == 0:
            # Of one template, or by the identifiers 2 and 3 of all.
            yield Oddity.WITHDRAWAL_IGNORED
            at += 4
            continue
        if template_id < FIRST_DATA_SET:
            yield Fault.BAD_TEMPLATE
            return
        begin, at, scopes = at, at + 4, 0
        if options:
            if end - at < 2:
                yield Fault.TRUNCATED
                return
            (second,) = struct.unpack_from("!H", body, at)
            at += 2
            if version == 9:
                # NetFlow v9 tells both lengths in bytes, IPFIX both in fields and the first as the sum.
                if count % 4 or second % 4:
                    yield Fault.BAD_TEMPLATE
                    return
                scopes, count = count // 4, (count + second) // 4
            else:
                scopes = second
        fields, at = _read_fields(version, body, at, count, scopes if version == 9 else 0)
        if fields is None:
            yield Fault.TRUNCATED
            return
        if scopes > len(fields):
            yield Fault.BAD_TEMPLATE
            continue
        layout = Layout(version, fields, options, scopes)
        if layout.shortest_record == 0:
            yield Fault.EMPTY_TEMPLATE
            continue
        yield Template(template_id, layout, at - begin)


def _read_fields(
    version: int, body: bytes, at: int, count: int, v9_scopes: int
) -> tuple[tuple[Field, ...] | None, int]:
    fields: list[Field] = []
    end = len(body)
    for index in range(count):
        if end - at < 4:
            return None, at
        element, length = struct.unpack_from("!HH", body, at)
        at += 4
        enterprise = V9_SCOPE if index < v9_scopes else 0
        if version == 10 and element & 0x8000:
            if end - at < 4:
                return None, at
            (enterprise,) = struct.unpack_from("!I", body, at)
            element &= 0x7FFF
            at += 4
        fields.append(Field(enterprise, element, length))
    return tuple(fields), at
