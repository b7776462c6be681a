"""Templates, records and datagrams drawn at random, with what has to come of them: for property tests."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from tests.builders import (
    ENTERPRISE_BIT,
    VARIABLE,
    data_set,
    field,
    ipfix_message,
    ipfix_options_template,
    number,
    raw_set,
    template,
    v1_datagram,
    v1_record,
    v5_datagram,
    v5_record,
    v7_datagram,
    v7_record,
    v9_datagram,
    v9_options_template,
    variable,
)
from tests.ingest.decoders.known_elements import COLUMN_BITS, ELSEWHERE, IPFIX, KNOWN, V9, Kind, Known

MAPPED: Final = bytes(10) + b"\xff\xff"
IANA: Final = {known.element for known in KNOWN if known.enterprise is None} | ELSEWHERE
BY_COLUMN: Final[dict[int, dict[str, list[Known]]]] = {
    protocol: {
        column: [known for known in KNOWN if (known.protocol, known.column) == (protocol, column)]
        for column in sorted({known.column for known in KNOWN if known.protocol == protocol})
    }
    for protocol in (V9, IPFIX)
}
UNREGISTERED: Final = range(600, 30_001)
"""Elements of IANA's above all that are registered."""
STRIPPED_GROUPS: Final = range(1232, 1237)
"""What types 34000 to 34004 are without their upper bit."""
STATISTICS: Final = (40, 41, 42, 164, 165, 166, 167, 168)
"""Elements of options data that no record is joined with."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A field of a drawn template."""

    element: int
    enterprise: int | None
    length: int
    known: Known | None

    @property
    def specifier(self) -> bytes:
        """As the template has it."""
        return field(self.element, self.length, enterprise=self.enterprise)

    @property
    def shortest(self) -> int:
        """Bytes of the shortest content."""
        return 1 if self.length == VARIABLE else self.length


@dataclass(frozen=True, slots=True)
class Case:
    """A template, records that it describes, and what their columns have to have."""

    protocol: int
    slots: tuple[Slot, ...]
    records: tuple[bytes, ...]
    expected: tuple[dict[str, Any], ...]

    @property
    def fields(self) -> list[bytes]:
        """The template's field specifiers."""
        return [slot.specifier for slot in self.slots]

    @property
    def padding(self) -> int:
        """How much padding a set of these records may have."""
        return min(3, sum(slot.shortest for slot in self.slots) - 1)


def lengths_of(known: Known) -> st.SearchStrategy[int]:
    """The lengths that an element may have in a template."""
    if known.kind is Kind.NUMBER:
        # 231 with fewer than four bytes is another thing.
        fixed = st.integers(4 if known.element == 231 else 1, 8)
    elif known.kind is Kind.TEXT:
        fixed = st.integers(1, 20)
    else:
        fixed = st.just(known.length)
    return fixed if known.protocol == V9 else fixed | st.just(VARIABLE)


@st.composite
def known_slots(draw: st.DrawFn, protocol: int, column: str) -> Slot:
    """A field that fills a column."""
    known = draw(st.sampled_from(BY_COLUMN[protocol][column]))
    return Slot(known.element, known.enterprise, draw(lengths_of(known)), known)


@st.composite
def unknown_slots(draw: st.DrawFn, protocol: int) -> Slot:
    """A field that nobody knows."""
    length = draw(st.integers(1, 40) if protocol == V9 else st.integers(1, 40) | st.just(VARIABLE))
    if protocol == IPFIX and draw(st.booleans()):
        return Slot(draw(st.integers(0, 32767)), draw(st.sampled_from((1, 32473, 0xFFFFFFFF))), length, None)
    # Above 600 nothing is registered; below it there are elements with a meaning that the tests' table leaves out.
    # NetFlow v9 has group tags there, from exporters that strip the upper bit: one of two bytes fills a column.
    unregistered = st.sampled_from(UNREGISTERED).filter(lambda number: number not in STRIPPED_GROUPS)
    element = draw(unregistered | st.sampled_from(sorted({*STATISTICS, 210, 33, 36, 37, 148, 161})))
    return Slot(element, None, length, None)


@st.composite
def contents(draw: st.DrawFn, slot: Slot) -> tuple[bytes, Any]:
    """A value of a field: its bytes without a length before it, and what the column has to have."""
    known, length = slot.known, slot.length
    if known is None:
        return draw(
            st.binary(min_size=0 if length == VARIABLE else length, max_size=40 if length == VARIABLE else length)
        ), None
    if known.kind is Kind.NUMBER:
        size = draw(st.integers(0, 8)) if length == VARIABLE else length
        bits = COLUMN_BITS[known.column]
        value = draw(st.integers(0, (1 << 8 * size) - 1) | st.integers(0, min(1 << 8 * size, 1 << bits) - 1))
        told = size > 0 and value < 1 << bits and (known.column != "sampling_rate" or value > 0)
        return number(value, size), value if told else None
    if known.kind is Kind.TEXT:
        size = draw(st.integers(0, 300)) if length == VARIABLE else length
        content = draw(
            st.binary(max_size=size)
            | st.text(max_size=size // 4).map(str.encode)
            | st.text("ab \0", max_size=size).map(str.encode)
        )[:size].ljust(0 if length == VARIABLE else size, b"\0")
        return content, content.split(b"\0")[0].decode("utf-8", "replace").rstrip(" ") or None
    content = draw(st.binary(min_size=known.length, max_size=known.length))
    return content, MAPPED + content if known.kind is Kind.IPV4 else content


@st.composite
def records_of(draw: st.DrawFn, slots: tuple[Slot, ...]) -> tuple[bytes, dict[str, Any]]:
    """A record, and what its columns have to have: of an element that stands twice the last counts."""
    octets: list[bytes] = []
    expected: dict[str, Any] = {}
    for slot in slots:
        content, value = draw(contents(slot))
        if slot.length == VARIABLE:
            content = variable(content, long_form=draw(st.booleans()))
        octets.append(content)
        if slot.known is not None:
            expected[slot.known.column] = value
    addresses = [expected[name] for name in ("src_addr", "dst_addr") if name in expected]
    if addresses:
        expected["etype"] = 0x0800 if all(value.startswith(MAPPED) for value in addresses) else 0x86DD
    expected.setdefault("flows", 1)
    return b"".join(octets), {name: value for name, value in expected.items() if value is not None}


@st.composite
def cases(draw: st.DrawFn, protocol: int | None = None, most_records: int = 5) -> Case:
    """A template of known and unknown fields, in any order, with records."""
    version = draw(st.sampled_from((V9, IPFIX))) if protocol is None else protocol
    columns = draw(st.lists(st.sampled_from(sorted(BY_COLUMN[version])), unique=True, max_size=10))
    # The name of a group beside its tag is joined to records that have the tag alone: other tests ask about that.
    named = {column for column in columns if column.endswith("_sgt_name") and column.removesuffix("_name") in columns}
    columns = [column for column in columns if column not in named]
    slots = [draw(known_slots(version, column)) for column in columns]
    if draw(st.booleans()) and slots:
        # The same element once more, perhaps of another length: it counts as far as it stands behind.
        again = draw(st.sampled_from(slots))
        assert again.known is not None
        slots.append(Slot(again.element, again.enterprise, draw(lengths_of(again.known)), again.known))
    slots += draw(st.lists(unknown_slots(version), min_size=0 if slots else 1, max_size=3))
    ordered = tuple(draw(st.permutations(slots)))
    made = draw(st.lists(records_of(ordered), min_size=1, max_size=most_records))
    return Case(version, ordered, tuple(octets for octets, _ in made), tuple(expected for _, expected in made))


# --- what is not as it should be

ELEMENTS: Final = st.sampled_from(
    [
        *(1, 2, 4, 7, 8, 11, 12, 21, 22, 27, 28, 32, 34, 60, 70, 71, 95, 147, 150, 152, 154, 158, 160),
        *(231, 232, 256, 298, 299, 305, 306, 309, 310, 311, 351, 371),
        # A tag and the name of its group together would be joined to other records, by the order of batches.
        *(0, 210, 5000, 32767, 34000, 34003, 45004, 65535),
    ]
)
LENGTHS: Final = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 300, VARIABLE])
IDENTIFIERS: Final = st.sampled_from([256, 256, 257, 258, 65535])


@st.composite
def wild_fields(draw: st.DrawFn, protocol: int) -> bytes:
    """A field specifier of any element and any length."""
    element, length = draw(ELEMENTS), draw(LENGTHS)
    if protocol == IPFIX and element & ENTERPRISE_BIT:
        return struct.pack("!HHI", element, length, draw(st.sampled_from((9, 2636, 29305, 32473))))
    if protocol == IPFIX and draw(st.integers(0, 4)) == 0:
        return field(element & 0x7FFF, length, enterprise=draw(st.sampled_from((9, 2636, 29305, 32473))))
    return struct.pack("!HH", element, length)


@st.composite
def wild_templates(draw: st.DrawFn, protocol: int) -> bytes:
    """A template of any fields, some of which nobody would send, perhaps with a count that lies."""
    fields = draw(st.lists(wild_fields(protocol), max_size=6))
    count = draw(st.none() | st.none() | st.none() | st.integers(0, 0xFFFF))
    return template(draw(IDENTIFIERS | st.integers(0, 300)), *fields, field_count=count)


@st.composite
def wild_options(draw: st.DrawFn, protocol: int) -> bytes:
    """An options template of elements that say nothing of flows, perhaps with lengths that lie."""
    fields = tuple(field(draw(st.sampled_from(STATISTICS)), draw(LENGTHS)) for _ in range(draw(st.integers(0, 4))))
    cut = draw(st.integers(0, len(fields)))
    lie = draw(st.none() | st.none() | st.integers(0, 0xFFFF))
    if protocol == V9:
        return v9_options_template(draw(IDENTIFIERS), fields[:cut], fields[cut:], scope_bytes=lie)
    return ipfix_options_template(draw(IDENTIFIERS), fields[:cut], fields[cut:], scope_count=lie)


@st.composite
def wild_sets(draw: st.DrawFn, protocol: int) -> bytes:
    """A set of templates, of data, or of anything, perhaps with a length that lies."""
    kind = draw(st.integers(0, 5))
    first = 0 if protocol == V9 else 2
    if kind <= 1:
        content, set_id = b"".join(draw(st.lists(wild_templates(protocol), max_size=3))), first
    elif kind == 2:
        content, set_id = b"".join(draw(st.lists(wild_options(protocol), max_size=2))), first + 1
    else:
        content = draw(st.binary(max_size=60) | st.integers(0, 80).map(bytes))
        set_id = draw(IDENTIFIERS) if kind < 5 else draw(st.integers(0, 259))
    length = draw(st.none() | st.none() | st.none() | st.integers(0, 80))
    return raw_set(set_id, content, length=length, padding=draw(st.integers(0, 5)))


@st.composite
def wild_messages(draw: st.DrawFn) -> bytes:
    """A datagram of v9 or IPFIX whose header is right and whose sets are anything."""
    protocol = draw(st.sampled_from((V9, IPFIX)))
    sets = draw(st.lists(wild_sets(protocol), max_size=5))
    domain, sequence = draw(st.integers(0, 1)), draw(st.integers(0, 3))
    if protocol == V9:
        return v9_datagram(*sets, source_id=domain, sequence=sequence)
    length = draw(st.none() | st.none() | st.none() | st.integers(0, 200))
    return ipfix_message(*sets, domain=domain, sequence=sequence, length=length)


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """A datagram as an exporter sends it, or as nobody should: sets that lie, bytes that were changed, noise."""
    payload: bytes
    kind = draw(st.integers(0, 9))
    if kind == 0:
        payload = draw(st.binary(max_size=120))
    elif kind == 1:
        head = draw(st.sampled_from([b"\0\1", b"\0\5", b"\0\7", b"\0\x09", b"\0\x0a", b"\0\0\0\5"]))
        payload = head + draw(st.binary(max_size=200))
    elif kind == 2:
        records = [v5_record(packets=draw(st.integers(0, 9))) for _ in range(draw(st.integers(0, 4)))]
        count = draw(st.none() | st.integers(0, 40))
        payload = draw(
            st.sampled_from(
                [
                    v5_datagram(*records, count=count),
                    v1_datagram(*map(v1_record, records), count=count),
                    v7_datagram(*map(v7_record, records), count=count),
                ]
            )
        )
    elif kind == 3:
        payload = whole(draw(cases(most_records=3)))
    else:
        payload = draw(wild_messages())
    if draw(st.integers(0, 5)) == 0 and payload:
        changed = bytearray(payload)
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        payload = bytes(changed)
    if draw(st.integers(0, 5)) == 0:
        payload = payload[: draw(st.integers(0, len(payload)))]
    return payload


def whole(case: Case, template_id: int = 256) -> bytes:
    """A datagram with a template and its records."""
    described = raw_set(0 if case.protocol == V9 else 2, template(template_id, *case.fields))
    described_data = data_set(template_id, *case.records, padding=case.padding)
    if case.protocol == V9:
        return v9_datagram(described, described_data)
    return ipfix_message(described, described_data)
