"""Names of security groups that flow records bring with their tags: what other records of the exporter are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Decoded, Oddity
from ingest.decoders.enrich import Fact, Kind
from ingest.mapping import load_mapping
from ingest.options import GROUPS_OF_AN_EXPORTER, HELD_NS, OptionTables
from tests.builders import (
    SYSTEM,
    VARIABLE,
    data_set,
    field,
    fixed,
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
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, message, nothing_wrong, one, packed, rows

V9, IPFIX = 9, 10
CISCO: Final = 9
OTHER: Final = mapped("192.0.2.101")
NAMED, BARE = 256, 257
"""Ids of the templates: of records with names, and of those without."""
Element = tuple[int, int | None]

SOURCES: Final[list[tuple[int, Element, Element]]] = [
    (V9, (34000, None), (34002, None)),
    (V9, (1232, None), (34002, None)),
    (IPFIX, (1232, CISCO), (1234, CISCO)),
]
DESTINATIONS: Final[list[tuple[int, Element, Element]]] = [
    (V9, (34001, None), (34003, None)),
    (IPFIX, (1233, CISCO), (1235, CISCO)),
]


def flows(protocol: int, fields: Sequence[bytes], *records: bytes, template_id: int) -> bytes:
    """A datagram with a template and its records."""
    described = template(template_id, field(4, 1), *fields)
    described_set = v9_templates(described) if protocol == V9 else ipfix_templates(described)
    return message(protocol, described_set, data_set(template_id, *(b"\6" + record for record in records)))


def part(element: Element, length: int) -> bytes:
    """A field of a template."""
    return field(element[0], length, enterprise=element[1])


def named(*groups: tuple[int, str], length: int = 16) -> bytes:
    """Records of NetFlow v9 with a source's tag and its name."""
    content = (number(tag, 2) + fixed(name, length) for tag, name in groups)
    return flows(V9, [field(34000, 2), field(34002, length)], *content, template_id=NAMED)


def bare(*tags: int) -> bytes:
    """Records of NetFlow v9 with a destination's tag alone."""
    return flows(V9, [field(34001, 2)], *(number(tag, 2) for tag in tags), template_id=BARE)


def table(tag: int, name: str) -> bytes:
    """The exporter's table, of one group."""
    described = v9_options_template(300, (field(SYSTEM, 4),), (field(34000, 2), field(34002, 16)))
    return v9_datagram(v9_options_templates(described), data_set(300, number(1, 4) + number(tag, 2) + fixed(name, 16)))


def called(decoded: Decoded) -> list[str | None]:
    """What the destinations of the records are called."""
    return [row.get("dst_sgt_name") for row in rows(decoded)]


def told(decoded: Decoded) -> list[tuple[Kind, int | str, int | str]]:
    """What was new: of what kind, of what, and what it is."""
    return [(fact.kind, fact.about, fact.value) for fact in decoded.facts]


# --- what teaches


@pytest.mark.parametrize(("protocol", "tag", "name"), SOURCES + DESTINATIONS)
@pytest.mark.parametrize(("size", "length"), [(2, 16), (4, 16), (2, VARIABLE)])
def test_a_tag_with_its_name_names_the_tag_alone(
    protocol: int, tag: Element, name: Element, size: int, length: int
) -> None:
    """Whichever side was named, both sides of the exporter's other records are."""
    collector = Collector()
    size = 2 if tag == (1232, None) else size
    content = number(10, size) + (variable("Staff") if length == VARIABLE else fixed("Staff", length))
    first = collector.feed(flows(protocol, [part(tag, size), part(name, length)], content, template_id=NAMED))
    assert told(first) == [(Kind.RECORD_SGT_NAME, 10, "Staff")]
    ends: list[Element] = [(34000, None), (34001, None)] if protocol == V9 else [(1232, CISCO), (1233, CISCO)]
    second = collector.feed(
        flows(protocol, [part(end, 2) for end in ends], number(10, 2) + number(10, 2), template_id=BARE)
    )
    row = one(second)
    assert (row["src_sgt_name"], row["dst_sgt_name"]) == ("Staff", "Staff")
    assert nothing_wrong(first)
    assert nothing_wrong(second)
    assert second.facts == []


def test_mapped_fields_teach_as_the_known_ones_do(tmp_path: Path) -> None:
    """What a mapping gives to the columns of tags and names is a tag and a name."""
    file = tmp_path / "mapping.yaml"
    file.write_text(
        "fields:\n"
        "  - {protocol: v9, element: 36000, column: src_sgt}\n"
        "  - {protocol: v9, element: 36001, column: src_sgt_name}\n"
    )
    collector = Collector(mapping=load_mapping(file))
    content = number(10, 2) + fixed("Staff", 8)
    collector.feed(flows(V9, [field(36000, 2), field(36001, 8)], content, template_id=NAMED))
    assert called(collector.feed(bare(10, 11))) == ["Staff", None]


def test_a_record_names_its_own_other_end() -> None:
    """Of a record with one name and two equal tags both ends have it, and so have all records of its batch."""
    fields = [field(34000, 2), field(34001, 2), field(34002, 8)]
    records = [
        number(10, 2) + number(10, 2) + fixed("Staff", 8),
        number(11, 2) + number(10, 2) + fixed("", 8),
        number(10, 2) + number(12, 2) + fixed("", 8),
    ]
    found = rows(Collector().feed(flows(V9, fields, *records, template_id=NAMED)))
    assert [(row.get("src_sgt_name"), row.get("dst_sgt_name")) for row in found] == [
        ("Staff", "Staff"),
        (None, "Staff"),
        ("Staff", None),
    ]


UNTAUGHT = [
    pytest.param(named((10, "")), id="no name"),
    pytest.param(named((11, "Staff")), id="another tag"),
    pytest.param(flows(V9, [field(34002, 8)], fixed("Staff", 8), template_id=NAMED), id="no tag"),
    pytest.param(
        flows(V9, [field(34001, 2), field(34002, 8)], number(10, 2) + fixed("Staff", 8), template_id=NAMED),
        id="a tag, and the name of the other end",
    ),
    pytest.param(
        flows(V9, [field(34000, 4), field(34002, 8)], number(0x1000A, 4) + fixed("Staff", 8), template_id=NAMED),
        id="a tag that is none",
    ),
]


@pytest.mark.parametrize("payload", UNTAUGHT)
def test_what_teaches_nothing(payload: bytes) -> None:
    """A tag and its name make a lesson; one without the other, or of the other end, does not."""
    collector = Collector()
    collector.feed(payload)
    assert called(collector.feed(bare(10))) == [None]


def test_names_are_of_an_exporter() -> None:
    """They hold in all of its domains, and for nobody else."""
    collector = Collector()
    collector.feed(named((10, "Staff")))
    assert called(collector.feed(bare(10), source=OTHER)) == [None]
    collector.feed(named((10, "Guests")), source=OTHER)
    assert called(collector.feed(bare(10), source=OTHER)) == ["Guests"]
    assert called(collector.feed(bare(10))) == ["Staff"]
    described = v9_templates(template(BARE, field(4, 1), field(34001, 2)))
    elsewhere = v9_datagram(described, data_set(BARE, b"\6" + number(10, 2)), source_id=99)
    assert called(collector.feed(elsewhere)) == ["Staff"]


def test_exporters_in_one_batch_teach_each_its_own() -> None:
    """Records that are decoded together are of several exporters."""
    collector = Collector()
    for source, name in ((None, "Staff"), (OTHER, "Guests")):
        payloads = [named((10, name), (11, f"{name} too")), bare(10)]
        batch = packed(payloads) if source is None else packed(payloads, source)
        collector.take(batch)
    assert called(collector.feed(bare(10, 11))) == ["Staff", "Staff too"]
    assert called(collector.feed(bare(10, 11), source=OTHER)) == ["Guests", "Guests too"]


# --- whose word stands


@pytest.mark.parametrize("table_first", [True, False])
def test_the_word_of_the_table_stands(table_first: bool) -> None:
    """What options data call a group goes before what records do, whichever came first, and neither takes turns."""
    collector = Collector()
    payloads = [table(10, "of the table"), named((10, "of the record"))]
    for payload in payloads if table_first else reversed(payloads):
        collector.feed(payload)
    for _ in range(3):
        assert called(collector.feed(bare(10))) == ["of the table"]
        assert collector.feed(*payloads).facts == []
    assert one(collector.feed(payloads[1]))["src_sgt_name"] == "of the record"


def test_the_word_of_a_record_goes_before_the_configuration(tmp_path: Path) -> None:
    """A configured name is for all exporters, and so for those that say nothing themselves."""
    file = tmp_path / "mapping.yaml"
    file.write_text("sgt_names: {10: configured, 11: eleven}\n")
    collector = Collector(mapping=load_mapping(file))
    assert called(collector.feed(bare(10, 11))) == ["configured", "eleven"]
    collector.feed(named((10, "Staff")))
    assert called(collector.feed(bare(10, 11))) == ["Staff", "eleven"]


def test_records_that_contradict_each_other_do_not_take_turns() -> None:
    """The first name of a group stands, and is replaced after ten minutes at the earliest, once."""
    collector = Collector()
    both = named((10, "one"), (10, "other"))
    assert [fact.value for fact in collector.feed(both).facts] == ["one"]
    for payload in (named((10, "other")), both, named((10, "third"))):
        assert collector.feed(payload, received_ns=RECEIVED_NS + HELD_NS - 1).facts == []
        assert called(collector.feed(bare(10))) == ["one"]
    later = RECEIVED_NS + HELD_NS
    assert collector.feed(both, received_ns=later).facts == []
    assert [fact.value for fact in collector.feed(named((10, "other")), received_ns=later).facts] == ["other"]
    assert collector.feed(both, named((10, "one")), received_ns=later + 1).facts == []
    assert called(collector.feed(bare(10))) == ["other"]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    )
)
@looked_at(quick=60, long=2_000)
def test_the_first_name_that_any_record_has_is_that_of_the_group(batches: list[list[tuple[int, str]]]) -> None:
    """Whatever names records have: a group has one of those that came in the first batch with any, and keeps it."""
    collector = Collector()
    known: dict[int, str] = {}
    for batch in batches:
        collector.feed(named(*batch))
        found = called(collector.feed(bare(*range(6))))
        for tag, name in enumerate(found):
            said = {one_ for number_, one_ in batch if number_ == tag and one_}
            if tag in known:
                assert name == known[tag]
            elif said:
                assert name in said
                known[tag] = str(name)
            else:
                assert name is None


# --- elsewhere, and how many


def test_what_records_told_can_be_learned_elsewhere() -> None:
    """Other workers name groups as the one does that saw the record, and say nothing of it in their turn."""
    collector, other = Collector(), Collector()
    facts = collector.feed(named((10, "Staff"))).facts
    assert collector.pipeline.options.learn(facts) == []
    assert other.pipeline.options.learn(facts) == facts
    assert called(other.feed(bare(10))) == ["Staff"]
    # Another word is held off there as it is here.
    other.feed(bare(10))
    assert other.feed(named((10, "Guests"))).facts == []
    assert other.feed(named((10, "Staff"))).facts == []
    assert list(other.pipeline.options) == facts


def test_a_million_names_find_no_room() -> None:
    """Names of one exporter are bounded and what is over is counted; its options data and other exporters have theirs."""
    collector = Collector()
    distinct, odd, learned = 0, 0, 0
    for _ in range(6):
        payloads = []
        for _ in range(60):
            payloads.append(named(*(((distinct + at) % 65536, f"name {distinct + at}") for at in range(70))))
            distinct += 70
        decoded = collector.feed(*payloads)
        odd += decoded.oddities[Oddity.OPTIONS_LIMIT]
        learned += len(decoded.facts)
        assert len(rows(decoded)) == 60 * 70
    options = collector.pipeline.options
    assert len(options) == learned == GROUPS_OF_AN_EXPORTER
    assert odd == distinct - learned
    assert told(collector.feed(table(65535, "table"))) == [(Kind.SGT_NAME, 65535, "table")]
    assert told(collector.feed(named((10, "Staff")), source=OTHER)) == [(Kind.RECORD_SGT_NAME, 10, "Staff")]


def test_long_names_take_more_room() -> None:
    """What is bounded is memory: a name of a thousand bytes counts as several."""
    tables = OptionTables(exporter_limit=6)
    names = ["a" * 1000, "b" * 1000, "short"]
    facts = [Fact(Kind.RECORD_SGT_NAME, EXPORTER, 0, 0, tag, name) for tag, name in enumerate(names)]
    assert tables.learn(facts) == [facts[0], facts[2]]
    assert tables.refused == 1
