"""What holds for every list and every sampled section, drawn at random; SLUICEWAY_FUZZ=long looks for minutes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Fault, Unit
from ingest.decoders.lists import DEEPEST
from ingest.decoders.mapping import As, FieldMapping, MappedField
from tests import sflow_builders as make
from tests.builders import (
    VARIABLE,
    basic_list,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    list_entry,
    number,
    sub_template_list,
    sub_template_multi_list,
    template,
    variable,
)
from tests.fuzz import looked_at
from tests.ingest.collector import Collector, flows, rows, told
from tests.ingest.decoders.known_elements import IPFIX, V9
from tests.ingest.decoders.known_packets import PACKETS
from tests.ingest.strategies import datagrams

LISTS = (291, 292, 293, 484, 485)
SECTIONS = (104, 313, 315)
TEMPLATES = tuple(range(300, 306))
"""Templates that lists refer to; those of a drawn datagram are some of them."""
OUTER = 256
ELEMENTS = st.sampled_from(
    [
        *(1, 2, 4, 7, 8, 12, 27, 56, 60, 70, 95, 96, 102, 103, 150, 152, 160, 22, 32, 34, 147, 210, 225, 239, 256),
        *(305, 306, 309, 310, 311, 312, 351, 371, 408, 409, 410, 483, 5000),
        *LISTS,
        *LISTS,
        *SECTIONS,
    ]
)
LENGTHS = st.sampled_from([VARIABLE, VARIABLE, VARIABLE, 0, 1, 2, 3, 4, 6, 8, 9, 16, 40])
FAULTS = {Fault.BAD_LIST, Fault.UNKNOWN_LIST_TEMPLATE, Fault.LIST_LIMIT}
MAPPED = FieldMapping(
    (
        MappedField(IPFIX, (0, 5000), extra="five", written_as=As.HEX),
        MappedField(IPFIX, (32473, 7), column="src_sgt"),
        MappedField(IPFIX, (32473, 7), extra="seven", written_as=As.INT),
    )
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A field of a drawn template."""

    element: int
    length: int
    enterprise: int | None = None

    @property
    def specifier(self) -> bytes:
        """As the template has it."""
        return field(self.element, self.length, enterprise=self.enterprise)


@st.composite
def drawn_fields(draw: st.DrawFn) -> Drawn:
    """A field of any element that matters here, of any length."""
    if draw(st.integers(0, 7)) == 0:
        return Drawn(7, draw(LENGTHS), 32473)
    return Drawn(draw(ELEMENTS), draw(LENGTHS))


LAYOUTS = st.lists(drawn_fields(), min_size=1, max_size=5).map(tuple)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame as it is sent, or one that was cut or changed."""
    packet = bytearray(draw(st.sampled_from(PACKETS)).packet or make.ethernet(b""))
    if packet and draw(st.booleans()):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))]) if draw(st.booleans()) else bytes(packet)


@st.composite
def contents(draw: st.DrawFn, one: Drawn, layouts: dict[int, tuple[Drawn, ...]], depth: int) -> bytes:
    """The content of a field: for a list mostly a list, for a section mostly a frame, of which something may be wrong."""
    content: bytes
    if one.enterprise is None and one.element in LISTS and draw(st.integers(0, 5)):
        content = draw(lists(one.element, layouts, depth))
    elif one.enterprise is None and one.element in SECTIONS and draw(st.integers(0, 5)):
        content = draw(frames())
    else:
        content = draw(st.binary(max_size=12))
    if content and draw(st.integers(0, 9)) == 0:
        changed = bytearray(content)
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        content = bytes(changed)
    if one.length == VARIABLE:
        return variable(content, long_form=draw(st.booleans()))
    return content[: one.length].ljust(one.length, b"\0")


@st.composite
def records(draw: st.DrawFn, layout: tuple[Drawn, ...], layouts: dict[int, tuple[Drawn, ...]], depth: int) -> bytes:
    """A record of a layout."""
    return b"".join(draw(contents(one, layouts, depth)) for one in layout)


@st.composite
def lists(draw: st.DrawFn, element: int, layouts: dict[int, tuple[Drawn, ...]], depth: int) -> bytes:
    """A list of one of the three forms, nested up to a depth, some of whose lengths may lie."""

    def some_records(template_id: int) -> list[bytes]:
        layout = layouts.get(template_id)
        if layout is None or depth > DEEPEST + 1:
            return [draw(st.binary(max_size=6))]
        return draw(st.lists(records(layout, layouts, depth + 1), max_size=2))

    if element == 292:
        template_id = draw(st.sampled_from(TEMPLATES))
        return sub_template_list(template_id, *some_records(template_id))
    if element == 293:
        entries = []
        for template_id in draw(st.lists(st.sampled_from(TEMPLATES), max_size=3)):
            length = draw(st.none() | st.none() | st.none() | st.integers(0, 30) | st.just(65535))
            entries.append(list_entry(template_id, *some_records(template_id), length=length))
        return sub_template_multi_list(*entries)
    one = draw(drawn_fields()) if element == 291 else Drawn(483, 4)
    if depth > DEEPEST + 1:
        return basic_list(one.element, one.length, enterprise=one.enterprise)
    values = draw(st.lists(contents(one, layouts, depth + 1), max_size=3))
    return basic_list(one.element, one.length, *values, enterprise=one.enterprise)


@dataclass(frozen=True, slots=True)
class Message:
    """A drawn layout, its records, and the templates of the lists in them."""

    inner: bytes
    layout: tuple[Drawn, ...]
    records: tuple[bytes, ...]

    def payload(self, *records_: bytes) -> bytes:
        """A message with these records, or all."""
        described = template(OUTER, field(5, 1), *(one.specifier for one in self.layout), field(4, 1))
        return ipfix_message(
            ipfix_templates(self.inner, described), data_set(OUTER, *(records_ or self.records)), sequence=7
        )


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A template with lists and sections between two bytes, and records that can be told apart by these."""
    known = draw(st.lists(st.sampled_from(TEMPLATES), unique=True, max_size=4))
    layouts = {template_id: draw(LAYOUTS) for template_id in known}
    inner = b"".join(template(number_, *(one.specifier for one in layout)) for number_, layout in layouts.items())
    layout = draw(LAYOUTS)
    bodies = draw(st.lists(records(layout, layouts, 0), min_size=1, max_size=4))
    return Message(inner, layout, tuple(bytes([at]) + body + b"\6" for at, body in enumerate(bodies)))


@given(messages())
@looked_at(100, 15_000)
def test_what_a_list_or_a_frame_says_costs_its_record_nothing(message: Message) -> None:
    """Whatever stands in lists and sections, every record is there with its own elements; only lists are lost."""
    decoded = Collector(mapping=MAPPED).feed(message.payload())
    found = rows(decoded)
    assert [row["ip_tos"] for row in found] == list(range(len(message.records)))
    assert {row["proto"] for row in found} == {6}
    assert {fault for fault, _ in decoded.faults} <= FAULTS | {Fault.EMPTY_TEMPLATE}
    assert {unit for _, unit in decoded.faults} <= {Unit.SETS}


@given(messages(), st.integers(1, 30))
@looked_at(60, 7_000)
def test_records_are_read_alike_alone_and_among_many(message: Message, copies: int) -> None:
    """Each record tells the same alone, beside the others of its set, and in a batch of many."""
    alone: list[str] = []
    lost: Counter[tuple[Fault, Unit]] = Counter()
    for record in message.records:
        decoded = Collector(mapping=MAPPED).feed(message.payload(record))
        alone += [repr(told(row)) for row in rows(decoded)]
        lost += decoded.faults
    together = Collector(mapping=MAPPED).feed(*[message.payload()] * copies)
    assert Counter(repr(told(row)) for row in rows(together)) == Counter(alone * copies)
    of_lists = {key: count for key, count in together.faults.items() if key[0] in FAULTS}
    assert of_lists == {key: count * copies for key, count in lost.items() if key[0] in FAULTS}


@given(messages(), st.data())
@looked_at(60, 7_000)
def test_a_message_that_is_cut_or_changed_anywhere_is_read(message: Message, data: st.DataObject) -> None:
    """A message of lists that ends at any byte, or has any other byte at any place, raises nothing."""
    payload = bytearray(message.payload())
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    collector = Collector(mapping=MAPPED)
    collector.feed(bytes(payload[:cut]), bytes(payload), data.draw(datagrams()))


@given(
    st.sampled_from((V9, IPFIX)),
    st.sampled_from(SECTIONS),
    st.lists(frames(), min_size=1, max_size=5),
    st.integers(1, 200),
    st.sets(st.sampled_from(("gre", "ipip", "vxlan", "geneve"))),
)
@looked_at(80, 8_000)
def test_any_frame_is_taken_apart_alone_as_among_others(
    version: int, element: int, packets: list[bytes], size: int, tunnels: set[str]
) -> None:
    """A section that is cut or changed gives what it gives alone, and a packet each."""
    fields = [field(element, size), field(312, 2)]
    contents_ = [packet[:size].ljust(size, b"\0") + number(at + 1, 2) for at, packet in enumerate(packets)]
    together = [told(row) for row in rows(Collector(decapsulate=tunnels).feed(flows(version, fields, *contents_)))]
    alone = [
        told(row)
        for content in contents_
        for row in rows(Collector(decapsulate=tunnels).feed(flows(version, fields, content)))
    ]
    assert together == alone
    assert [row["bytes"] for row in together] == list(range(1, len(packets) + 1))
