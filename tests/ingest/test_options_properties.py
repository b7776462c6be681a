"""Options data of any kind, cut off at every byte and drawn at random: what is learned, and what it costs records."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Datagrams
from ingest.decoders.enrich import Fact, Kind
from ingest.options import FACTS_OF_AN_EXPORTER, OptionTables
from tests.builders import (
    SYSTEM,
    VARIABLE,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipfix_templates,
    mapped,
    number,
    template,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
    variable,
)
from tests.fuzz import looked_at
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, flows, message, one, rows
from tests.ingest.decoders.known_elements import IPFIX, V9

OTHER: Final = mapped("192.0.2.200")

# --- cut off


def u32(value: int) -> bytes:
    """A number of four bytes."""
    return number(value, 4)


NINTH: Final = v9_datagram(
    v9_options_templates(
        v9_options_template(300, (field(SYSTEM, 4),), (field(10, 4), field(82, 8), field(83, 8))),
        v9_options_template(301, (field(SYSTEM, 4),), (field(48, 1), field(49, 1), field(50, 4), field(84, 4))),
        v9_options_template(302, (field(SYSTEM, 4),), (field(95, 4), field(96, 8), field(94, 8))),
    ),
    v9_options_templates(
        v9_options_template(303, (field(SYSTEM, 4),), (field(34000, 2), field(34002, 8))),
        v9_options_template(304, (field(SYSTEM, 4),), (field(34, 4), field(35, 1), field(234, 4), field(236, 8))),
    ),
    data_set(300, *(u32(1) + u32(at) + fixed(f"eth{at}", 8) + fixed(f"port {at}", 8) for at in range(1, 4))),
    data_set(301, u32(1) + b"\2\1" + u32(1000) + b"edge", u32(1) + b"\3\1" + u32(100) + b"core"),
    data_set(302, u32(1) + b"\x0d\0\1\xc5" + fixed("ssl", 8) + fixed("TLS", 8), padding=2),
    data_set(303, u32(1) + number(10, 2) + fixed("Staff", 8), u32(1) + number(20, 2) + fixed("Guests", 8)),
    data_set(304, u32(1) + u32(64) + b"\1" + u32(7) + fixed("red", 8)),
)
TENTH: Final = ipfix_message(
    ipfix_options_templates(
        ipfix_options_template(300, (field(10, 4),), (field(82, VARIABLE), field(83, VARIABLE))),
        ipfix_options_template(301, (field(302, 8),), (field(304, 2), field(305, 4), field(309, 4), field(310, 4))),
        ipfix_options_template(302, (field(95, VARIABLE),), (field(96, VARIABLE),)),
        ipfix_options_template(303, (field(1232, 2, enterprise=9),), (field(1234, VARIABLE, enterprise=9),)),
    ),
    ipfix_options_templates(
        ipfix_options_template(304, (field(149, 4), field(145, 2)), (field(305, 4), field(306, 4))),
        ipfix_options_template(305, (field(234, 4),), (field(236, VARIABLE), field(90, 8))),
        ipfix_options_template(306, (field(149, 4),), (field(160, 8), field(311, 8), field(41, 8))),
    ),
    data_set(300, *(u32(at) + variable(f"eth{at}") + variable("") for at in range(1, 4))),
    data_set(301, number(5, 8) + number(3, 2) + u32(1) + u32(1) + u32(256)),
    data_set(302, variable(b"\x0d\0\1\xc5") + variable("ssl"), variable(b"\x03\0\x50") + variable("http")),
    data_set(303, number(10, 2) + variable("Staff"), number(20, 2) + variable("Guests", long_form=True)),
    data_set(304, u32(0) + number(256, 2) + u32(1) + u32(999)),
    data_set(305, u32(7) + variable("red") + bytes(8)),
    data_set(306, u32(0) + number(1_600_000_000_000, 8) + bytes.fromhex("3fe0000000000000") + number(1, 8)),
)


@pytest.mark.parametrize("payload", [pytest.param(NINTH, id="v9"), pytest.param(TENTH, id="ipfix")])
def test_cut_off_at_any_byte_options_tell_what_is_whole(payload: bytes) -> None:
    """Every length of a datagram of tables: no fact that the whole does not tell, and the longer the more."""
    whole = Collector().feed(payload).facts
    assert len(whole) >= 9
    before: set[Fact] = set()
    for length in range(len(payload) + 1):
        told = set(Collector().feed(payload[:length]).facts)
        assert told <= set(whole)
        assert before <= told
        before = told
    assert before == set(whole)


def test_numbers_of_options_may_be_of_variable_length() -> None:
    """A scope and a number with their lengths before them are read as they are with fixed ones; an odd one is none."""
    described = ipfix_options_template(300, (field(302, VARIABLE),), (field(34, VARIABLE), field(82, VARIABLE)))
    records = (
        variable(number(5, 2)) + variable(number(100, 1)) + variable("a"),
        variable(number(6, 8)) + variable(b"") + variable("b"),
        variable(number(7, 4), long_form=True) + variable(bytes(9)) + variable("c"),
    )
    collector = Collector()
    told_ = collector.feed(ipfix_message(ipfix_options_templates(described), data_set(300, *records)))
    assert [(fact.kind, fact.about, fact.value) for fact in told_.facts] == [(Kind.SAMPLER_RATE, 5, 100)]
    assert one(collector.feed(flows(IPFIX, [field(302, 4)], u32(5))))["sampling_rate"] == 100


# --- anything

NUMBERS: Final = (10, 14, 34, 48, 50, 145, 149, 160, 234, 235, 252, 302, 305, 306, 309, 310, 311, 34000, 34001, 41)
TEXTS: Final = (82, 83, 94, 96, 236, 34002, 34003)
CISCOS: Final = (1232, 1233, 1234, 1235)
LENGTHS: Final = st.sampled_from([0, 1, 2, 3, 4, 4, 4, 5, 8, 8, 9, 16, 40])


@st.composite
def specifiers(draw: st.DrawFn, protocol: int) -> tuple[bytes, int]:
    """A field of options data that means something, of any length; and that length."""
    length = draw(LENGTHS | st.just(VARIABLE) if protocol == IPFIX else LENGTHS)
    if protocol == IPFIX and draw(st.integers(0, 4)) == 0:
        return field(draw(st.sampled_from(CISCOS)), length, enterprise=9), length
    element = draw(st.sampled_from((*NUMBERS, *TEXTS, 95)))
    if protocol == IPFIX:
        element &= 0x7FFF
    return field(element, length), length


@st.composite
def tables(draw: st.DrawFn, protocol: int, template_id: int) -> tuple[bytes, bytes]:
    """An options template, and a set of records that it describes, whose contents are anything."""
    drawn = draw(st.lists(specifiers(protocol), min_size=1, max_size=5))
    cut = draw(st.integers(0 if protocol == V9 else min(1, len(drawn)), len(drawn)))
    scopes, options = tuple(one_ for one_, _ in drawn[:cut]), tuple(one_ for one_, _ in drawn[cut:])
    if protocol == V9 and scopes:
        # Scopes of NetFlow v9 are types of their own.
        kinds = draw(st.lists(st.integers(0, 7), min_size=cut, max_size=cut))
        scopes = tuple(field(kind, length) for kind, (_, length) in zip(kinds, drawn[:cut], strict=True))
    content = b"".join(
        variable(draw(st.binary(max_size=12))) if length == VARIABLE else draw(contents(length))
        for _ in range(draw(st.integers(0, 3)))
        for _, length in drawn
    )
    if protocol == V9:
        return v9_options_templates(v9_options_template(template_id, scopes, options)), data_set(template_id, content)
    described = ipfix_options_template(template_id, scopes, options)
    return ipfix_options_templates(described), data_set(template_id, content)


def contents(length: int) -> st.SearchStrategy[bytes]:
    """So many bytes: anything, a small number, or a text."""
    return (
        st.binary(min_size=length, max_size=length)
        | st.integers(0, 3).map(lambda value: number(value, length) if length else b"")
        | st.text("ab/_ \0é", max_size=length).map(lambda text: fixed(text, length))
    )


@st.composite
def told(draw: st.DrawFn) -> bytes:
    """A datagram of options, of which a byte may be changed and the end cut off."""
    protocol = draw(st.sampled_from((V9, IPFIX)))
    sets = [part for at in range(draw(st.integers(1, 3))) for part in draw(tables(protocol, 300 + at))]
    payload = bytearray(v9_datagram(*sets) if protocol == V9 else ipfix_message(*sets))
    if draw(st.integers(0, 3)) == 0:
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
    return bytes(payload[: draw(st.integers(0, len(payload)))] if draw(st.integers(0, 3)) == 0 else payload)


FIELDS: Final = {10: 4, 14: 4, 22: 4, 48: 1, 95: 4, 234: 4, 235: 4}
VALUES: Final = {10: u32(1), 14: u32(2), 22: u32(77), 48: b"\1", 95: b"\x0d\0\0\1", 234: u32(1), 235: u32(0)}
RECORD: Final = b"".join(VALUES.values())
FLOW: Final = 0x0FFF
"""A template id that no change of one byte makes of those of the options."""


def flow(protocol: int) -> bytes:
    """A record with everything that options data is joined by."""
    tags = (
        [field(34000, 2), field(34001, 2)]
        if protocol == V9
        else [field(one_, 2, enterprise=9) for one_ in (1232, 1233)]
    )
    fields = [field(element, length) for element, length in FIELDS.items()]
    described = template(FLOW, *fields, *tags)
    templates = v9_templates(described) if protocol == V9 else ipfix_templates(described)
    return message(protocol, templates, data_set(FLOW, RECORD + number(1, 2) + number(0, 2)))


@given(st.lists(told(), min_size=1, max_size=4))
@looked_at(150, 8_000)
def test_whatever_options_say_records_go_on(payloads: list[bytes]) -> None:
    """No options data raises, in whatever batches; what was learned is sound, bounded, and joined to records alike.

    The numbers of a record are its own whatever its exporter tells, and another exporter's records are untouched.
    """
    collector, apart = Collector(), Collector()
    facts = [fact for payload in payloads for fact in apart.feed(payload).facts]
    together = collector.feed(*payloads).facts
    assert len(collector.pipeline.options) <= FACTS_OF_AN_EXPORTER
    kept = list(apart.pipeline.options)
    for fact in (*facts, *together):
        assert isinstance(fact.value, int if fact.kind in NUMBERED else str)
        assert fact.value != 0 or fact.kind is Kind.BOOTED_MS
        assert fact.value != ""
    learned = OptionTables()
    assert len(learned.learn(kept)) == len(kept)
    assert list(learned) == kept
    for protocol in (V9, IPFIX):
        row = one(apart.feed(flow(protocol)))
        assert (row["in_if"], row["out_if"], row["ingress_vrf_id"], row["src_sgt"]) == (1, 2, 1, 1)
        assert row["application_id"] == "13:1"
        assert row.get("sampling_rate", 1) >= 1
        mine = Datagrams.pack([flow(protocol)], [OTHER], [50000], [RECEIVED_NS])
        (other,) = rows(apart.take(mine))
        assert not {name for name in other if name.endswith("_name")}
        assert "sampling_rate" not in other


NUMBERED: Final = {
    *(Kind.DOMAIN_RATE, Kind.SAMPLER_RATE, Kind.TEMPLATE_RATE, Kind.INTERFACE_RATE),
    Kind.BOOTED_MS,
}


@given(told(), st.integers(1, 3))
@looked_at(60, 2_000)
def test_what_was_told_before_is_told_once(payload: bytes, times: int) -> None:
    """The same datagram again tells nothing new, and what one exporter tells is none of another's."""
    collector = Collector()
    first = collector.feed(payload).facts
    assert all(fact.source == EXPORTER for fact in first)
    known = {(fact.kind, fact.version, fact.domain, fact.about) for fact in first}
    for _ in range(times):
        again = collector.feed(payload).facts
        # A table that tells two things of one changes its mind each time; of what it tells once nothing comes again.
        assert {(fact.kind, fact.version, fact.domain, fact.about) for fact in again} <= known
