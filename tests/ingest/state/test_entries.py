"""What keys and values of the topic say: written and read, and what is not as it has to be."""

from __future__ import annotations

from typing import Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.enrich import OF_A_DOMAIN, Kind
from ingest.decoders.layout import V9_SCOPE, VARIABLE, Field, Layout, Template, read_templates
from ingest.state.entries import (
    NAME_BYTES,
    PAGE_BYTES,
    PAGE_ROWS,
    Row,
    Skip,
    TableEntry,
    TableKey,
    TemplateEntry,
    UnfitEntry,
    layout_hash,
    passed_on,
    read,
    table_entry,
    template_entry,
    wire_bytes,
)
from ingest.state.order import AHEAD_MS, Order
from shared.kafka import MAX_MESSAGE_BYTES
from tests.builders import field, ipfix_options_template, mapped, template

NOW_MS: Final = 1_700_000_000_000
ORDER: Final = Order(NOW_MS - 5000, NOW_MS - 3)


def key(source: str = "192.0.2.1", version: int = 9, domain: int = 5, template_id: int = 256) -> bytes:
    """By what a template is kept."""
    return mapped(source) + version.to_bytes(2) + domain.to_bytes(4) + template_id.to_bytes(2)


def layout(version: int = 9, *fields: Field, scopes: int = 0) -> Layout:
    """A layout of these fields."""
    return Layout(version, fields or (Field(0, 8, 4), Field(0, 1, 8)), options=scopes > 0, scopes=scopes)


def unfit(name: bytes | None, value: bytes | None) -> Skip:
    """Why an entry is not taken."""
    with pytest.raises(UnfitEntry) as raised:
        read(name, value, NOW_MS)
    return raised.value.skip


# --- written and read

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda one: mapped(str(one)))


@st.composite
def templates(draw: st.DrawFn) -> tuple[bytes, Template]:
    """A template of either protocol, and its key."""
    version = draw(st.sampled_from([9, 10]))
    options = draw(st.booleans())
    numbers = st.tuples(st.integers(0, 2**15 - 1), st.integers(0, 65535))
    told = draw(st.lists(numbers, min_size=1, max_size=20).filter(lambda all_: any(length for _, length in all_)))
    scopes = draw(st.integers(0, len(told))) if options else 0
    enterprises = st.integers(0, 2**32 - 1) if version == 10 else st.just(0)
    fields = tuple(
        Field(V9_SCOPE if version == 9 and place < scopes else draw(enterprises), *one)
        for place, one in enumerate(told)
    )
    found = Layout(version, fields, options, scopes)
    template_id = draw(st.integers(256, 65535))
    source, domain = draw(ADDRESSES), draw(st.integers(0, 2**32 - 1))
    name = source + version.to_bytes(2) + domain.to_bytes(4) + template_id.to_bytes(2)
    return name, Template(template_id, found, wire_bytes(found))


@given(templates(), st.integers(0, NOW_MS), st.integers(0, NOW_MS + AHEAD_MS))
def test_a_template_is_read_as_it_was_written(one: tuple[bytes, Template], boot_ms: int, told_ms: int) -> None:
    """Key, layout and place come back, of any template of either protocol."""
    order = Order(boot_ms, told_ms)
    assert read(*template_entry(*one, order), NOW_MS) == TemplateEntry(*one, order)


def test_a_template_is_a_short_message_with_a_key_that_a_person_can_read() -> None:
    """Exporter, domain, kind, id, and the hash of the layout: so an operator finds, and if need be deletes, it."""
    found = layout(10, Field(0, 8, 4), Field(9, 12236, VARIABLE))
    name, value = template_entry(key(version=10), Template(256, found, 20), ORDER)
    assert name == b"192.0.2.1/5/template-ipfix/256/" + layout_hash(found).encode()
    assert orjson.loads(value) == {
        "v": 1,
        "boot": ORDER.boot_ms,
        "told": ORDER.told_ms,
        "options": False,
        "scopes": 0,
        "fields": [[8, 4], [12236, VARIABLE, 9]],
    }


def test_layouts_have_names_of_their_own() -> None:
    """Two layouts of one template have two keys, so that compaction lets neither delete the other; equal ones have one."""
    fields = (Field(0, 8, 4), Field(0, 1, 8))
    different = [
        Layout(9, fields, options=False, scopes=0),
        Layout(10, fields, options=False, scopes=0),
        Layout(9, fields, options=True, scopes=0),
        Layout(9, fields, options=True, scopes=1),
        Layout(9, fields[::-1], options=False, scopes=0),
        Layout(9, fields[:1], options=False, scopes=0),
        Layout(9, (Field(0, 8, 4), Field(9, 1, 8)), options=False, scopes=0),
    ]
    assert len({layout_hash(one) for one in different}) == len(different)
    assert layout_hash(layout(9, *fields)) == layout_hash(different[0])


def test_the_bytes_of_a_template_are_those_on_the_wire() -> None:
    """So that the bound of its size holds for what came by the topic as well."""
    plain = template(256, field(8, 4), field(1, 4, enterprise=9))
    options = ipfix_options_template(257, (field(10, 4),), (field(82, 16), field(83, 16, enterprise=9)))
    for is_options, body in ((False, plain), (True, options)):
        (found,) = read_templates(10, is_options, body)
        assert isinstance(found, Template)
        assert wire_bytes(found.layout) == found.wire_bytes == len(body)


def of_kind(kind: Kind, version: int = 10) -> TableKey:
    """A table of this kind."""
    return TableKey(kind, mapped("2001:db8::7"), *((version, 5) if kind in OF_A_DOMAIN else (0, 0)))


def row_of(kind: Kind, about: int = 3) -> Row:
    """A row of such a table."""
    number = kind in OF_A_DOMAIN
    return (f"3:{about}" if kind is Kind.APPLICATION_NAME else about, 1000 if number else "näme", NOW_MS)


KINDS = [kind for kind in Kind if kind is not Kind.CONFIGURED_SGT_NAME]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_a_page_is_read_as_it_was_written(kind: Kind) -> None:
    """Tables of each kind come back row by row; of 256 rows too."""
    rows = [row_of(kind, about) for about in range(PAGE_ROWS)]
    table = of_kind(kind)
    assert all(passed_on(table, about, value) for about, value, _ in rows)
    assert read(*table_entry(table, 7, rows), NOW_MS) == TableEntry(table, 7, tuple(rows))


def test_tables_have_keys_that_a_person_can_read() -> None:
    """Names are of an exporter, rates of an observation domain and protocol."""
    assert table_entry(of_kind(Kind.INTERFACE_NAME), 0, [])[0] == b"2001:db8::7/-/interface-name/0"
    assert table_entry(of_kind(Kind.SAMPLER_RATE), 1, [])[0] == b"2001:db8::7/5/sampler-rate-ipfix/1"
    assert table_entry(of_kind(Kind.BOOTED_MS, 9), 1, [])[0] == b"2001:db8::7/5/booted-ms-v9/1"


@pytest.mark.parametrize(
    ("kind", "about", "value"),
    [
        pytest.param(Kind.INTERFACE_NAME, 3, "x" * (NAME_BYTES + 1), id="a name that is too long"),
        pytest.param(Kind.INTERFACE_NAME, 3, "\ud800", id="a name that UTF-8 cannot write"),
        pytest.param(Kind.INTERFACE_NAME, "3", "x", id="a number as text"),
        pytest.param(Kind.INTERFACE_NAME, 3, 4, id="a name that is a number"),
        pytest.param(Kind.APPLICATION_NAME, "x" * (NAME_BYTES + 1), "x", id="an application that is too long"),
        pytest.param(Kind.SAMPLER_RATE, 3, 0, id="a rate of 0"),
        pytest.param(Kind.SAMPLER_RATE, 3, 2**32, id="a rate that no record can tell"),
        pytest.param(Kind.CONFIGURED_SGT_NAME, 3, "x", id="what no exporter told"),
    ],
)
def test_what_others_would_not_read_is_not_passed_on(kind: Kind, about: int | str, value: int | str) -> None:
    """A row is looked at before it is published, by the same rules as when it is read."""
    assert not passed_on(of_kind(kind), about, value)


def test_a_page_is_never_too_large_to_be_read() -> None:
    """256 rows of the longest names are within the bound, which is within that of a message."""
    table = of_kind(Kind.APPLICATION_NAME)
    rows: list[Row] = [(f"{about:0{NAME_BYTES}}", "\0" * (NAME_BYTES // 6), 2**62) for about in range(PAGE_ROWS)]
    assert all(passed_on(table, about, value) for about, value, _ in rows)
    assert not passed_on(table, "x", "\0" * (NAME_BYTES // 6 + 1))
    message = table_entry(table, 0, rows)
    assert len(message[1]) < PAGE_BYTES < MAX_MESSAGE_BYTES
    assert isinstance(read(*message, NOW_MS), TableEntry)


def test_what_says_that_it_was_told_later_is_told_when_it_came() -> None:
    """The broker's clock bounds what an entry may claim, the same for all who read it."""
    late = Order(NOW_MS + 10**9, NOW_MS + 10**9)
    one = read(*template_entry(key(), Template(256, layout(), 12), late), NOW_MS)
    assert isinstance(one, TemplateEntry)
    assert one.order == Order(NOW_MS, NOW_MS + AHEAD_MS)
    page = read(*table_entry(of_kind(Kind.VRF_NAME), 0, [(3, "x", NOW_MS + 10**9)]), NOW_MS)
    assert isinstance(page, TableEntry)
    assert page.rows[0][2] == NOW_MS + AHEAD_MS


# --- what is not as it has to be

NAME, VALUE = template_entry(key(), Template(256, layout(), 12), ORDER)
PAGE_NAME, PAGE_VALUE = table_entry(of_kind(Kind.INTERFACE_NAME), 0, [row_of(Kind.INTERFACE_NAME)])
HASH: Final = layout_hash(layout())


def changed(value: bytes, **what: object) -> bytes:
    """A value in which something is otherwise."""
    return orjson.dumps(orjson.loads(value) | what)


@pytest.mark.parametrize(
    ("name", "skip"),
    [
        pytest.param(None, Skip.NOT_OURS, id="none"),
        pytest.param(b"", Skip.NOT_OURS, id="empty"),
        pytest.param(b"\xff\xfe", Skip.NOT_OURS, id="no text"),
        pytest.param(b"x" * 600, Skip.TOO_LARGE, id="too long"),
        pytest.param(b"192.0.2.1/5/template-v9/256", Skip.NOT_OURS, id="without a hash"),
        pytest.param(b"192.0.2.1/5/other-v9/256/" + HASH.encode(), Skip.NOT_OURS, id="another kind"),
        pytest.param(b"192.0.2/5/template-v9/256/" + HASH.encode(), Skip.NOT_OURS, id="no address"),
        pytest.param(b"::ffff:192.0.2.1/5/template-v9/256/" + HASH.encode(), Skip.NOT_OURS, id="another spelling"),
        pytest.param(b"2001:DB8::7/-/interface-name/0", Skip.NOT_OURS, id="another spelling still"),
        pytest.param(b"192.0.2.1/05/template-v9/256/" + HASH.encode(), Skip.NOT_OURS, id="a leading zero"),
        pytest.param("192.0.2.1/\u0665/template-v9/256/".encode() + HASH.encode(), Skip.NOT_OURS, id="other digits"),
        pytest.param(b"192.0.2.1/4294967296/template-v9/256/" + HASH.encode(), Skip.NOT_OURS, id="no such domain"),
        pytest.param(b"192.0.2.1/5/template-v9/255/" + HASH.encode(), Skip.NOT_OURS, id="no such template"),
        pytest.param(b"192.0.2.1/5/template-v9/256/" + b"0" * 16, Skip.CORRUPT, id="the hash of another layout"),
        pytest.param(b"192.0.2.1/5/template-ipfix/256/" + HASH.encode(), Skip.CORRUPT, id="the other protocol"),
    ],
)
def test_a_key_that_is_not_ours_is_told(name: bytes | None, skip: Skip) -> None:
    """Whatever else is written to the topic is left out, and one template has one key, not several."""
    assert unfit(name, VALUE if name is None or b"interface" not in name else PAGE_VALUE) is skip


@pytest.mark.parametrize(
    ("value", "skip"),
    [
        pytest.param(None, Skip.DELETED, id="deleted"),
        pytest.param(b"", Skip.CORRUPT, id="empty"),
        pytest.param(b"{", Skip.CORRUPT, id="half"),
        pytest.param(b"\xff" * 40, Skip.CORRUPT, id="no text"),
        pytest.param(b"[]", Skip.CORRUPT, id="a list"),
        pytest.param(VALUE[:-1], Skip.CORRUPT, id="cut off"),
        pytest.param(b" " * 70_000 + VALUE, Skip.TOO_LARGE, id="too large"),
        pytest.param(changed(VALUE, v=2), Skip.OTHER_VERSION, id="of another version"),
        pytest.param(changed(VALUE, v="1"), Skip.CORRUPT, id="of no version"),
        pytest.param(changed(VALUE, told=-1), Skip.CORRUPT, id="before 1970"),
        pytest.param(changed(VALUE, boot="now"), Skip.CORRUPT, id="no number"),
        pytest.param(changed(VALUE, boot=True), Skip.CORRUPT, id="a truth"),
        pytest.param(changed(VALUE, told=1.5), Skip.CORRUPT, id="a fraction"),
        pytest.param(changed(VALUE, options=1), Skip.CORRUPT, id="options no truth"),
        pytest.param(changed(VALUE, scopes=1), Skip.CORRUPT, id="scopes of data"),
        pytest.param(changed(VALUE, options=True, scopes=3), Skip.CORRUPT, id="more scopes than fields"),
        pytest.param(changed(VALUE, fields=None), Skip.CORRUPT, id="no fields"),
        pytest.param(changed(VALUE, fields=[]), Skip.CORRUPT, id="empty fields"),
        pytest.param(changed(VALUE, fields=[[8, 0]]), Skip.CORRUPT, id="empty records"),
        pytest.param(changed(VALUE, fields=[[8]]), Skip.CORRUPT, id="half a field"),
        pytest.param(changed(VALUE, fields=[[8, 65536]]), Skip.CORRUPT, id="a field too long"),
        pytest.param(changed(VALUE, fields=[[8, 4, 9]]), Skip.CORRUPT, id="an enterprise in v9"),
        pytest.param(changed(VALUE, fields=[8, 4]), Skip.CORRUPT, id="no field"),
    ],
)
def test_a_template_that_is_not_one_is_told(value: bytes | None, skip: Skip) -> None:
    """Nothing of it is taken, and nothing else is raised."""
    assert unfit(NAME, value) is skip


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="an object"),
        pytest.param([[3, "x", 1]] * (PAGE_ROWS + 1), id="too many"),
        pytest.param([[3, "x"]], id="half a row"),
        pytest.param([[3, "x", 1], [4, "y", 1], [3, "z", 1]], id="one row twice"),
        pytest.param([[3, 4, 1]], id="a number for a name"),
        pytest.param([["3", "x", 1]], id="a text for a number"),
        pytest.param([[3, "x", -1]], id="before 1970"),
        pytest.param([[3, "x" * (NAME_BYTES + 1), 1]], id="too long"),
        pytest.param([[True, "x", 1]], id="a truth"),
        pytest.param([[3, "x", 1], 5], id="no row"),
    ],
)
def test_a_page_that_is_not_one_is_told(rows: object) -> None:
    """One row that is not as it has to be is enough: whoever wrote it is not one of us."""
    assert unfit(PAGE_NAME, changed(PAGE_VALUE, rows=rows)) is Skip.CORRUPT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["v", "rows", "fields"]), inner),
    max_leaves=20,
)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.fixed_dictionaries(
        {"v": st.just(1) | JSON},
        optional=dict.fromkeys(("boot", "told", "options", "scopes", "fields", "rows"), JSON),
    ).map(orjson.dumps),
    st.builds(
        lambda at, octet: VALUE[:at] + bytes([octet]) + VALUE[at + 1 :],
        st.integers(0, len(VALUE) - 1),
        st.integers(0, 255),
    ),
)
NAMES = st.one_of(st.none(), st.binary(max_size=60), st.just(NAME), st.just(PAGE_NAME))


@given(NAMES, VALUES, st.integers(0, 2**43))
def test_whatever_is_in_the_topic_is_read_or_told(name: bytes | None, value: bytes | None, appended_ms: int) -> None:
    """No bytes raise anything else, and what is read is what we would write."""
    try:
        entry = read(name, value, appended_ms)
    except UnfitEntry:
        return
    if isinstance(entry, TemplateEntry):
        assert read(*template_entry(entry.key, entry.template, entry.order), appended_ms) == entry
    else:
        assert read(*table_entry(entry.table, entry.page, list(entry.rows)), appended_ms) == entry
