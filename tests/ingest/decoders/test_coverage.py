"""What the record, sFlow and the decoders' modules name has a test: lists that a new name without one does not pass."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

import ingest.decoders
from ingest.decoders import sflow_elements
from ingest.decoders.elements import RULES
from ingest.decoders.mapping import As, FieldMapping, MappedField
from ingest.decoders.sflow_counter_elements import COUNTED, STRUCTURES
from ingest.mapping import load_mapping
from shared.record import COLUMN, COLUMNS, Column
from tests.builders import field
from tests.ingest.collector import Collector, Row, flows, nothing_wrong, one, rows, told
from tests.ingest.decoders.known_elements import IPFIX, KNOWN, V9
from tests.ingest.decoders.known_flow_records import RECORDS
from tests.ingest.decoders.known_packets import PACKETS
from tests.ingest.decoders.known_sources import DERIVED, NO_COLUMN, OPTIONS, SCOPES, TIMES, Shown
from tests.ingest.strategies import STRIPPED_GROUPS, UNREGISTERED
from tests.sflow_builders import OTHER_RECORDS

SHOWN: Final = (*TIMES, *DERIVED, *OPTIONS)
NUMBERS: Final = re.compile(r"(?:(\d+):)?(\d+)(?:/(\d+)| to (\d+))?")
SPACES: Final = re.compile(r"\s*(v9|sFlow|options)\b")


def named(source: str) -> Iterator[str]:
    """The elements that a column's source names: ``22``, ``v9 34000``, ``9:1232``, ``options 82``, ``sFlow 1003``."""
    for part in source.split(";"):
        space = SPACES.match(part)
        prefix = f"{space[1]} " if space else ""
        for enterprise, first, other, last in NUMBERS.findall(re.sub(r"\b(?:v5|v9)\b", "", part)):
            inside = prefix or (f"{enterprise}:" if enterprise else "")
            yield from (f"{inside}{number}" for number in range(int(first), int(last or first) + 1))
            if other:
                yield f"{inside}{other}"


def covered(column: str) -> set[str]:
    """The elements of which a test shows that they fill the column."""
    found = set()
    for known in KNOWN:
        if known.column == column:
            private = known.protocol == V9 and known.element >= 32768
            space = "v9 " if private else "" if known.enterprise is None else f"{known.enterprise}:"
            found.add(f"{space}{known.element}")
    for shown in SHOWN:
        if column in shown.expected:
            found |= shown.named
    for known_record in RECORDS:
        if column in known_record.expected:
            found.add(f"sFlow {int.from_bytes(known_record.record[:4])}")
    # What a row of every sample has, whatever its records say.
    found |= {"bytes": {"sFlow 1"}, "time_flow_start": {"sFlow 1043"}, "time_flow_end": {"sFlow 1043"}}.get(
        column, set()
    )
    return found


def test_sources_are_read_as_they_are_meant() -> None:
    """How the page writes elements."""
    assert list(named("22 with the uptime or 160; 150, 152; of events 322 to 324; v5 First")) == [
        *("22", "160", "150", "152", "322", "323", "324"),
    ]
    assert list(named("1, 231/232; 9:8338/8337; v9 41106/41105, 45004; sFlow 1 to 3")) == [
        *("1", "231", "232", "9:8338", "9:8337", "v9 41106", "v9 41105", "v9 45004", "sFlow 1", "sFlow 2", "sFlow 3"),
    ]
    assert list(named("configuration; options 82/83; v5 and v9 also destination port; frame")) == [
        *("options 82", "options 83"),
    ]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_element_that_the_record_names_has_a_case(column: Column) -> None:
    """Each number that stands in the record as the source of a column is shown from bytes to that column."""
    assert set(named(column.source)) - covered(column.name) == set()


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_element_that_fills_a_column_is_named_with_it(column: Column) -> None:
    """And the other way round: what a case shows stands on the page, but for what stands there by a word."""
    name = column.name
    by_word = {"in_if_name": {"82"}, "out_if_name": {"82"}}.get(name, set())
    whole = {element for element in covered(name) if not element.startswith(("options", "sFlow"))}
    # What a case sends beside the element that it is about.
    beside = {
        element for shown in SHOWN if name in shown.expected and len(shown.expected) > 1 for element in shown.named
    }
    assert whole - beside - by_word - set(named(column.source)) == set()


def last_record(shown: Shown) -> Row:
    """The last record that comes of the datagrams, of which nothing is lost and nothing odd."""
    collector = Collector()
    found: list[Row] = []
    for payload in shown.payloads:
        decoded = collector.feed(payload)
        assert nothing_wrong(decoded)
        found += rows(decoded)
    return found[-1]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.elements)
def test_an_element_that_is_worked_on_fills_its_columns(shown: Shown) -> None:
    """From bytes to columns, nothing lost and nothing odd."""
    assert last_record(shown).items() >= shown.expected.items()


def test_every_column_that_a_sampled_frame_fills_has_a_packet() -> None:
    """Where the page says "frame", some packet of the tests shows it."""
    framed = {column.name for column in COLUMNS if re.search(r"\bframe\b", column.source)}
    shown = {name for sampled in PACKETS for name in sampled.expected} | {"bytes"}
    assert framed == shown


@pytest.mark.parametrize("scope", SCOPES)
def test_options_are_joined_by_every_scope(scope: str) -> None:
    """Each scope of NetFlow v9, those of IPFIX, and the forms in which devices leave it out."""
    assert last_record(SCOPES[scope]).items() >= SCOPES[scope].expected.items()


@pytest.mark.parametrize("element", NO_COLUMN)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_an_element_without_a_column_fills_none_and_can_be_mapped(protocol: int, element: int) -> None:
    """Alone it says nothing; a mapping puts its bytes into `extra`."""
    payload = flows(protocol, [field(5, 1), field(element, 3), field(4, 1)], b"\x2a\xa1\xa2\xa3\x06")
    assert told(one(Collector().feed(payload))) == {"ip_tos": 42, "proto": 6}
    mapping = FieldMapping((MappedField(protocol, (0, element), extra="it", written_as=As.HEX),))
    row = told(one(Collector(mapping=mapping).feed(payload)))
    assert row == {"ip_tos": 42, "proto": 6, "extra": [("it", "a1a2a3")]}


def test_what_is_drawn_as_unknown_is_unknown() -> None:
    """Elements that property tests take for nobody's are in none of the profiles: else they would fill a column."""
    known = {one_.element[1] for one_ in load_mapping(None).fields if one_.element[0] == 0}
    known |= {
        element
        for enterprise, element in (source.element for rule in RULES for source in rule.sources)
        if not enterprise
    }
    assert known & {*UNREGISTERED} <= {*STRIPPED_GROUPS}


# --- sFlow

FLOW_RECORDS: Final = frozenset(
    {
        *range(1, 5),
        *range(1001, 1005),
        *range(1006, 1013),
        *range(1020, 1031),
        *range(1036, 1044),
        *range(2100, 2104),
        *(2209, 2210),
    }
)
"""Flow records that are read or counted by their number, by sflow.org's structures."""
COUNTER_RECORDS: Final = frozenset(
    {
        *(1, 2, 5, 6, 7, 10, 1001, 1005),
        *range(2000, 2011),
        *range(2100, 2105),
        *(2202, 2203, 2206),
        5703 << 12 | 1,
        *(4413 << 12 | number for number in (1, 2, 3)),
    }
)
"""Counter records that have columns: interfaces, Ethernet, VLAN, 802.11, link aggregation, optics, processors, names of
ports, hosts and what runs on them, applications, GPUs, Broadcom's tables."""


def test_every_flow_record_has_a_case() -> None:
    """Each kind has bytes in the tests, and is either read into columns or counted by its number."""
    read = {1} | {int.from_bytes(known.record[:4]) for known in RECORDS}
    assert read | OTHER_RECORDS.keys() >= FLOW_RECORDS
    assert read == sflow_elements.KNOWN_FLOW_RECORDS
    assert OTHER_RECORDS.keys() == sflow_elements.COUNTED_FLOW_RECORDS
    assert not read & OTHER_RECORDS.keys()


def test_every_counter_record_has_columns() -> None:
    """Each kind is read; test_sflow_counters.py shows each of them from bytes to columns."""
    assert STRUCTURES.keys() >= COUNTER_RECORDS
    assert not COUNTED & COUNTER_RECORDS


# --- decode paths

CUT, ANY = 0, 1
PROPERTIES, STRUCTURED = "tests.ingest.decoders.test_properties", "tests.ingest.decoders.test_structured_properties"
MUTATIONS, CAPTURED = "tests.ingest.decoders.test_mutations", "tests.ingest.test_captured_datagrams"
SFLOW, COUNTERS = "tests.ingest.decoders.test_sflow5", "tests.ingest.decoders.test_sflow_counters"
OF_SETS: Final = (
    f"{MUTATIONS}:test_cut_off_anywhere_a_datagram_gives_what_is_whole",
    f"{PROPERTIES}:test_no_input_raises_or_grows",
)
OF_SFLOW: Final = (
    f"{SFLOW}:test_a_datagram_cut_at_any_byte_gives_the_samples_that_are_whole",
    f"{SFLOW}:test_how_datagrams_fall_into_batches_does_not_matter",
)
OF_OPTIONS: Final = (
    "tests.ingest.test_options_properties:test_cut_off_at_any_byte_options_tell_what_is_whole",
    "tests.ingest.test_options_properties:test_whatever_options_say_records_go_on",
)
OF_LISTS: Final = (
    "tests.ingest.decoders.test_lists:test_any_cut_of_a_message_with_lists_is_read_as_far_as_it_goes",
    f"{STRUCTURED}:test_a_message_that_is_cut_or_changed_anywhere_is_read",
)
PATHS: Final = {
    "__init__": OF_SETS,
    "netflow5": OF_SETS,
    "templated": OF_SETS,
    "sets": OF_SETS,
    "layout": ("tests.ingest.decoders.test_layout:test_a_template_that_is_cut_off_is_none", OF_SETS[ANY]),
    "records": OF_SETS,
    "fields": (OF_SETS[CUT], f"{PROPERTIES}:test_what_was_encoded_is_decoded"),
    "headers": (OF_SETS[CUT], f"{SFLOW}:test_nothing_is_read_from_outside_a_datagram"),
    "values": (OF_SETS[CUT], f"{PROPERTIES}:test_what_was_encoded_is_decoded"),
    "clocks": OF_SETS,
    "addresses": (OF_SETS[CUT], f"{PROPERTIES}:test_what_was_encoded_is_decoded"),
    "columns": (OF_SETS[CUT], f"{PROPERTIES}:test_what_was_encoded_is_decoded"),
    "rates": OF_OPTIONS,
    "options": OF_OPTIONS,
    "enrich": OF_OPTIONS,
    "extra": (OF_LISTS[CUT], "tests.ingest.decoders.test_extra:test_any_content_is_written_or_left_out"),
    "lists": OF_LISTS,
    "sections": (
        "tests.ingest.decoders.test_sections:test_any_cut_of_a_section_tells_no_more_than_the_whole",
        f"{STRUCTURED}:test_any_frame_is_taken_apart_alone_as_among_others",
    ),
    "frame": (
        "tests.ingest.decoders.test_frame:test_a_cut_header_tells_what_the_whole_tells_or_nothing",
        "tests.ingest.decoders.test_frame:test_any_bytes_are_taken_apart",
    ),
    "groups": (OF_SETS[CUT], f"{PROPERTIES}:test_what_was_encoded_is_decoded"),
    "xdr": (OF_SFLOW[CUT], "tests.ingest.decoders.test_xdr:test_together_and_one_by_one_find_the_same"),
    "sflow5": OF_SFLOW,
    "samples": OF_SFLOW,
    "sflow_counters": (f"{COUNTERS}:test_datagrams_cut_at_every_byte", f"{COUNTERS}:test_random_records_never_raise"),
    "sflow_structures": (f"{COUNTERS}:test_records_cut_at_every_byte", f"{COUNTERS}:test_random_bytes_never_raise"),
}
"""Modules of the decoders that read what others sent: a test that cuts it at every byte, and one of any input."""
NO_BYTES: Final = frozenset(
    {
        *("elements", "sflow_elements", "sflow_counter_elements"),
        *("fault", "result", "context", "templates", "origin", "plan", "mapping", "lookup", "matrix", "datagrams"),
    }
)
"""Modules that are data, or work on what others read."""


def test_every_module_of_the_decoders_says_how_it_is_tried() -> None:
    """A new module is added to one of the two lists."""
    modules = {path.stem for path in Path(ingest.decoders.__file__).parent.glob("*.py")}
    assert modules == PATHS.keys() | NO_BYTES
    assert not PATHS.keys() & NO_BYTES


@pytest.mark.parametrize("module", PATHS)
def test_every_decode_path_is_cut_at_every_byte_and_fed_with_anything(module: str) -> None:
    """The tests that the list names are there, and the second draws its input at random."""
    found = []
    for name in PATHS[module]:
        where, _, test = name.partition(":")
        found.append(getattr(importlib.import_module(where), test))
    assert hypothesis.is_hypothesis_test(found[ANY])


def test_every_capture_is_cut_at_every_byte() -> None:
    """What real devices sent is cut and changed too, where it is at hand."""
    module = importlib.import_module(CAPTURED)
    assert module.test_cut_off_at_any_byte_they_give_what_is_whole
    assert module.test_changed_at_any_byte_they_hurt_no_other


def test_the_columns_of_these_lists_are_the_records() -> None:
    """No case is of a column that there is not."""
    assert {name for shown in (*SHOWN, *SCOPES.values()) for name in shown.expected} <= COLUMN.keys()
