"""Templates: what a template set holds, and what is no template."""

from __future__ import annotations

import struct

import pytest

from ingest.decoders import Fault, Oddity
from ingest.decoders.layout import V9_SCOPE, VARIABLE, Field, Layout, Template, read_templates
from tests.builders import (
    CACHE,
    INTERFACE,
    SYSTEM,
    field,
    ipfix_options_template,
    template,
    v9_options_template,
)

V9, IPFIX = 9, 10


def read(version: int, body: bytes, *, options: bool = False) -> list[Template | Fault | Oddity]:
    """What a template set with this body holds."""
    return list(read_templates(version, options, body))


@pytest.mark.parametrize("version", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_template_is_its_fields_in_their_order(version: int) -> None:
    """Identifier, element and length of every field come as they were sent, with the bytes that it took."""
    body = template(256, field(8, 4), field(12, 4), field(8, 4), field(1, 3))
    fields = (Field(0, 8, 4), Field(0, 12, 4), Field(0, 8, 4), Field(0, 1, 3))
    assert read(version, body) == [Template(256, Layout(version, fields, options=False, scopes=0), len(body))]


def test_a_set_may_hold_several_templates() -> None:
    """Templates follow each other without a gap, the last may be followed by padding."""
    body = template(256, field(8, 4)) + template(65535, field(1, 8), field(2, 8)) + template(300, field(4, 1)) + b"\0\0"
    found = [item for item in read(V9, body) if isinstance(item, Template)]
    assert [(item.template_id, len(item.layout.fields)) for item in found] == [(256, 1), (65535, 2), (300, 1)]


def test_an_enterprise_number_belongs_to_ipfix_alone() -> None:
    """The upper bit of an element announces four bytes more in IPFIX, and is a part of the type in NetFlow v9."""
    body = template(256, field(1232, 2, enterprise=9), field(7, 2))
    (found,) = read(IPFIX, body)
    assert isinstance(found, Template)
    assert found.layout.fields == (Field(9, 1232, 2), Field(0, 7, 2))
    (found,) = read(V9, template(256, field(34000, 2), field(7, 2)))
    assert isinstance(found, Template)
    assert found.layout.fields == (Field(0, 34000, 2), Field(0, 7, 2))


def test_v9_options_tell_their_lengths_in_bytes_and_ipfix_in_fields() -> None:
    """The same options template in both protocols' words (RFC 3954 §6.1, RFC 7011 §3.4.2.2)."""
    (v9,) = read(V9, v9_options_template(257, (field(SYSTEM, 4), field(INTERFACE, 2)), (field(34, 4),)), options=True)
    assert isinstance(v9, Template)
    assert v9.layout == Layout(
        V9, (Field(V9_SCOPE, SYSTEM, 4), Field(V9_SCOPE, INTERFACE, 2), Field(0, 34, 4)), options=True, scopes=2
    )
    (ipfix,) = read(IPFIX, ipfix_options_template(257, (field(149, 4), field(10, 4)), (field(34, 4),)), options=True)
    assert isinstance(ipfix, Template)
    assert ipfix.layout == Layout(IPFIX, (Field(0, 149, 4), Field(0, 10, 4), Field(0, 34, 4)), options=True, scopes=2)


OPTIONS = [
    pytest.param(V9, v9_options_template(257, (), (field(34, 4), field(35, 1))), 0, id="v9, no scope"),
    pytest.param(V9, v9_options_template(257, (field(SYSTEM, 0),), (field(34, 4),)), 1, id="v9, a scope of no length"),
    pytest.param(V9, v9_options_template(257, (field(CACHE, 2),), ()), 1, id="v9, nothing but a scope"),
    pytest.param(
        IPFIX,
        ipfix_options_template(257, (field(1, 4, enterprise=9),), (field(34, 4),)),
        1,
        id="ipfix, enterprise scope",
    ),
    pytest.param(IPFIX, ipfix_options_template(257, (), (field(34, 4),)), 0, id="ipfix, no scope"),
    pytest.param(IPFIX, ipfix_options_template(257, (field(149, 4),), ()), 1, id="ipfix, nothing but a scope"),
]


@pytest.mark.parametrize(("version", "body", "scopes"), OPTIONS)
def test_options_templates_as_they_are_seen_in_the_wild(version: int, body: bytes, scopes: int) -> None:
    """Without a scope, with one of no length, with nothing but a scope: all are taken, and are no flow templates."""
    (found,) = read(version, body, options=True)
    assert isinstance(found, Template)
    assert found.layout.options
    assert found.layout.scopes == scopes


GOOD = template(300, field(1, 4))
WRONG = [
    pytest.param(V9, False, template(256), [Fault.EMPTY_TEMPLATE], True, id="v9, no field"),
    pytest.param(V9, False, template(256, field(8, 0), field(12, 0)), [Fault.EMPTY_TEMPLATE], True, id="v9, no length"),
    pytest.param(IPFIX, False, template(256, field(8, 0)), [Fault.EMPTY_TEMPLATE], True, id="ipfix, no length"),
    pytest.param(IPFIX, False, template(256), [Oddity.WITHDRAWAL_IGNORED], True, id="ipfix, a withdrawal"),
    pytest.param(IPFIX, False, template(2), [Oddity.WITHDRAWAL_IGNORED], True, id="ipfix, a withdrawal of all"),
    pytest.param(IPFIX, True, template(256), [Oddity.WITHDRAWAL_IGNORED], True, id="ipfix, a withdrawal of options"),
    pytest.param(IPFIX, True, template(3), [Oddity.WITHDRAWAL_IGNORED], True, id="ipfix, a withdrawal of all options"),
    pytest.param(V9, False, template(255, field(8, 4)), [Fault.BAD_TEMPLATE], False, id="v9, an id below 256"),
    pytest.param(IPFIX, False, template(7, field(8, 4)), [Fault.BAD_TEMPLATE], False, id="ipfix, an id below 256"),
    pytest.param(V9, True, v9_options_template(257, (), ()), [Fault.EMPTY_TEMPLATE], True, id="v9, options of nothing"),
    pytest.param(
        V9, True, v9_options_template(257, (), (field(34, 4),), scope_bytes=3), [Fault.BAD_TEMPLATE], False,
        id="v9, scopes of three bytes",
    ),
    pytest.param(
        V9, True, v9_options_template(257, (), (field(34, 4),), option_bytes=6), [Fault.BAD_TEMPLATE], False,
        id="v9, options of six bytes",
    ),
    pytest.param(
        IPFIX, True, ipfix_options_template(257, (field(149, 4),), (field(34, 4),), scope_count=3), [Fault.BAD_TEMPLATE],
        True, id="ipfix, more scopes than fields",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("version", "options", "body", "expected", "goes_on"), WRONG)
def test_what_is_no_template_is_told_and_costs_only_itself(
    version: int, options: bool, body: bytes, expected: list[Fault | Oddity], goes_on: bool
) -> None:
    """The next template of the set is read when it can still be found."""
    good = GOOD if not options else (
        v9_options_template(300, (), (field(1, 4),)) if version == V9
        else ipfix_options_template(300, (field(149, 4),), (field(1, 4),))
    )  # fmt: skip
    found = read(version, body + good, options=options)
    assert [item for item in found if not isinstance(item, Template)] == expected
    assert [item.template_id for item in found if isinstance(item, Template)] == ([300] if goes_on else [])


CUT = template(256, field(8, 4), field(1, 4, enterprise=9), field(12, 4))


@pytest.mark.parametrize("length", range(4, len(CUT)))
def test_a_template_that_is_cut_off_is_none(length: int) -> None:
    """Wherever it ends, it is told, and the templates before it are read."""
    found = read(IPFIX, GOOD + CUT[:length])
    assert [item.template_id for item in found if isinstance(item, Template)] == [300]
    assert found[1:] == [Fault.TRUNCATED]


@pytest.mark.parametrize("version", [V9, IPFIX], ids=["v9", "ipfix"])
@pytest.mark.parametrize("length", [4, 5, 8, 9])
def test_an_options_template_that_is_cut_off_is_none(version: int, length: int) -> None:
    """Wherever it ends, it is told."""
    whole = (
        v9_options_template(257, (field(SYSTEM, 4),), (field(34, 4),))
        if version == V9
        else ipfix_options_template(257, (field(149, 4),), (field(34, 4),))
    )
    assert read(version, whole[:length], options=True) == [Fault.TRUNCATED]


@pytest.mark.parametrize("count", [2, 100, 0xFFFF])
@pytest.mark.parametrize("version", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_field_count_that_lies_is_told(version: int, count: int) -> None:
    """More fields than the set has bytes for."""
    assert read(version, template(256, field(8, 4), field_count=count)) == [Fault.TRUNCATED]


@pytest.mark.parametrize("length", range(4))
def test_up_to_three_bytes_are_padding(length: int) -> None:
    """What is too short for a template is none, and no fault."""
    found = read(IPFIX, GOOD + b"\1\2\3"[:length])
    assert [item.template_id for item in found if isinstance(item, Template)] == [300]
    assert len(found) == 1


@pytest.mark.parametrize("length", [4, 6, 30])
def test_zeros_are_padding(length: int) -> None:
    """Some exporters pad by more than they must."""
    for version in (V9, IPFIX):
        assert len(read(version, GOOD + bytes(length))) == 1


LENGTHS = [
    pytest.param(V9, (4, 2), 6, False, id="v9"),
    pytest.param(V9, (4, VARIABLE), 5, True, id="v9, as H3C sends it"),
    pytest.param(IPFIX, (4, 2, 0), 6, False, id="ipfix"),
    pytest.param(IPFIX, (4, VARIABLE), 5, True, id="ipfix, a variable field has at least its length"),
    pytest.param(IPFIX, (VARIABLE, VARIABLE), 2, True, id="ipfix, two of them"),
]


@pytest.mark.parametrize(("version", "lengths", "shortest", "variable"), LENGTHS)
def test_the_shortest_record_of_a_layout(version: int, lengths: tuple[int, ...], shortest: int, variable: bool) -> None:
    """What a set must have for one whole record (RFC 7011 §7)."""
    layout = Layout(version, tuple(Field(0, 1, length) for length in lengths), options=False, scopes=0)
    assert (layout.shortest_record, layout.variable) == (shortest, variable)


def test_layouts_that_differ_in_anything_are_not_the_same() -> None:
    """Version, order, length, enterprise number, and being options tell layouts apart; template ids do not."""
    fields = (Field(0, 8, 4), Field(0, 12, 4))
    layouts = {
        Layout(V9, fields, options=False, scopes=0),
        Layout(IPFIX, fields, options=False, scopes=0),
        Layout(V9, fields[::-1], options=False, scopes=0),
        Layout(V9, (Field(0, 8, 4), Field(0, 12, 2)), options=False, scopes=0),
        Layout(V9, (Field(9, 8, 4), Field(0, 12, 4)), options=False, scopes=0),
        Layout(V9, fields, options=True, scopes=0),
        Layout(V9, fields, options=True, scopes=1),
    }
    assert len(layouts) == 7
    (one,), (other,) = read(V9, template(256, field(8, 4))), read(V9, template(999, field(8, 4)))
    assert isinstance(one, Template)
    assert isinstance(other, Template)
    assert one.layout == other.layout


def test_two_thousand_fields_are_a_template() -> None:
    """A template may be as long as its set lets it be; what is too long is for whoever keeps it to say."""
    (found,) = read(V9, template(256, *(field(1 + place % 400, 2) for place in range(2000))))
    assert isinstance(found, Template)
    assert len(found.layout.fields) == 2000
    assert found.wire_bytes == 4 + 8000


def test_sixteen_thousand_withdrawals_are_as_many_oddities() -> None:
    """The work is bounded by the bytes: four of them are one item at most."""
    body = struct.pack("!HH", 256, 0) * 16000
    assert read(IPFIX, body) == [Oddity.WITHDRAWAL_IGNORED] * 16000
    assert read(V9, body) == [Fault.EMPTY_TEMPLATE] * 16000
