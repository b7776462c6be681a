"""Facts of options data, joined to columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.enrich import NAMED, Enrichment, Kind, Sampled, domain_keys, exporter_keys, text_keys
from ingest.decoders.lookup import MISSING, Keys, mix
from shared.record import COLUMN
from tests.builders import mapped
from tests.fuzz import looked_at

ONE, OTHER = mapped("192.0.2.1"), mapped("2001:db8::1")
SEED: Final = 12345
NAMES: Final = [pytest.param(number, name, kind, id=name) for number, name, kind in NAMED]


def exporters(*sources: bytes) -> Keys:
    """The keys of exporters, one a row."""
    return exporter_keys(np.frombuffer(b"".join(sources), np.uint8).reshape(-1, 16), SEED)


def enrichment(*facts: tuple[Kind, bytes, int | str, int | str], limit: int = 1000) -> Enrichment:
    """What exporters told by number or text, of observation domain 0 of NetFlow v9 where it is of a domain."""
    made = Enrichment(limit, SEED)
    for kind, source, about, value in facts:
        keys = exporters(source)
        if kind in {Kind.DOMAIN_RATE, Kind.SAMPLER_RATE, Kind.TEMPLATE_RATE, Kind.INTERFACE_RATE, Kind.BOOTED_MS}:
            keys = domain_keys(keys, 9, np.zeros(1, np.uint32))
        keys = mix(keys, text_keys([about]) if isinstance(about, str) else np.array([about]))
        assert made.put(kind, int(keys[0]), value)
    return made


def column(name: str, *values: int | None) -> pa.Array:
    """A column of numbers."""
    return pa.array(values, COLUMN[name].type)


def joined(made: Mapping[str, pa.Array], facts: Enrichment, *sources: bytes) -> dict[str, list[Any]]:
    """Columns after the join, as plain values; each is sound and has its type."""
    columns = dict(made)
    facts.join(columns, exporters(*sources))
    for name, values in columns.items():
        values.validate(full=True)
        assert values.type == COLUMN[name].type
    return {name: values.to_pylist() for name, values in columns.items()}


# --- names


@pytest.mark.parametrize(("number", "name", "kind"), NAMES)
def test_a_number_has_the_name_that_its_exporter_told(number: str, name: str, kind: Kind) -> None:
    """Each exporter names its own; a number that it did not name has none, and neither has what is null."""
    facts = enrichment((kind, ONE, 3, "three"), (kind, OTHER, 3, "drei"), (kind, OTHER, 4, "vier"))
    made = {number: column(number, 3, 4, None, 3, 4, 0)}
    assert joined(made, facts, ONE, ONE, ONE, OTHER, OTHER, OTHER)[name] == ["three", None, None, "drei", "vier", None]


@pytest.mark.parametrize(("number", "name", "kind"), NAMES)
def test_a_column_of_names_is_there_when_one_has_any(number: str, name: str, kind: Kind) -> None:
    """Nothing is said of names when none is known of any row, or of other things alone."""
    made = {number: column(number, 1, 2)}
    for facts in (
        enrichment(),
        enrichment((kind, ONE, 3, "three")),
        enrichment((kind, OTHER, 1, "one")),
        enrichment((Kind.APPLICATION_NAME, ONE, "1:1", "one")),
    ):
        assert joined(made, facts, ONE, ONE).keys() == {number}
    assert joined({}, enrichment((kind, ONE, 3, "three"))) == {}


def test_kinds_are_told_apart() -> None:
    """Interface 7, VRF 7 and group 7 are three things."""
    facts = enrichment(
        (Kind.INTERFACE_NAME, ONE, 7, "eth7"), (Kind.VRF_NAME, ONE, 7, "red"), (Kind.SGT_NAME, ONE, 7, "staff")
    )
    made = {number: column(number, 7) for number, _, _ in NAMED}
    found = joined(made, facts, ONE)
    assert [found[name] for _, name, _ in NAMED] == [["eth7"]] * 2 + [["red"]] * 2 + [["staff"]] * 2


def test_a_null_is_not_the_number_that_stands_in_its_place() -> None:
    """Where a column is null its memory may hold anything, and that is nobody's number."""
    ids = pa.Array.from_buffers(pa.uint32(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(np.array([7, 7], np.uint32))])
    facts = enrichment((Kind.INTERFACE_NAME, ONE, 7, "eth7"))
    assert joined({"in_if": ids}, facts, ONE, ONE)["in_if_name"] == ["eth7", None]


def test_names_share_their_entries() -> None:
    """The dictionary of a column has what its rows use, once each, however many names are known."""
    facts = enrichment(*((Kind.INTERFACE_NAME, ONE, number, f"eth{number % 50}") for number in range(200)))
    columns = {"in_if": column("in_if", 7, 57, 3, 999, 7)}
    facts.join(columns, exporters(*[ONE] * 5))
    assert columns["in_if_name"].to_pylist() == ["eth7", "eth7", "eth3", None, "eth7"]
    assert sorted(columns["in_if_name"].dictionary.to_pylist()) == ["eth3", "eth7"]


def test_a_name_that_the_record_brought_stands() -> None:
    """The table names only what the record did not."""
    facts = enrichment((Kind.SGT_NAME, ONE, 7, "of the table"), (Kind.SGT_NAME, ONE, 8, "eight"))
    own = pa.array(["of the record", None, None, "also"]).dictionary_encode()
    made = {"src_sgt": column("src_sgt", 7, 7, 8, 9), "src_sgt_name": own}
    expected = ["of the record", "of the table", "eight", "also"]
    assert joined(made, facts, ONE, ONE, ONE, ONE)["src_sgt_name"] == expected


def test_configured_groups_are_named_last() -> None:
    """The record's own name, then the exporter's table, then the configured one, which is for all exporters."""
    facts = enrichment((Kind.SGT_NAME, ONE, 7, "of the table"))
    facts.name_groups({7: "configured", 8: "eight"})
    own = pa.array(["of the record", None, None, None, None]).dictionary_encode()
    made = {"dst_sgt": column("dst_sgt", 7, 7, 8, 9, 7), "dst_sgt_name": own}
    expected = ["of the record", "of the table", "eight", None, "configured"]
    assert joined(made, facts, ONE, ONE, ONE, ONE, OTHER)["dst_sgt_name"] == expected
    facts.name_groups({9: "nine"})
    expected = ["of the record", "of the table", None, "nine", None]
    assert joined(made, facts, ONE, ONE, ONE, ONE, OTHER)["dst_sgt_name"] == expected


def test_an_application_has_the_name_that_its_exporter_told() -> None:
    """Applications are known by their text: engine and selector."""
    facts = enrichment(
        (Kind.APPLICATION_NAME, ONE, "13:453", "ssl"),
        (Kind.APPLICATION_NAME, OTHER, "13:453", "tls"),
        (Kind.APPLICATION_NAME, ONE, "20:12356:7", "zoom"),
    )
    ids = pa.array(["13:453", "13:4", None, "20:12356:7", "13:453"], pa.utf8())
    made: dict[str, pa.Array] = {"application_id": ids}
    found = joined(made, facts, ONE, ONE, ONE, ONE, OTHER)
    assert found["application_name"] == ["ssl", None, None, "zoom", "tls"]
    own = pa.array([None, "mine", "also mine", None, None], pa.utf8()).dictionary_encode()
    found = joined(made | {"application_name": own}, facts, ONE, ONE, ONE, ONE, OTHER)
    assert found["application_name"] == ["ssl", "mine", "also mine", "zoom", "tls"]
    nothing: dict[str, pa.Array] = {"application_id": pa.array([None, None], pa.utf8())}
    assert joined(nothing, facts, ONE, ONE).keys() == {"application_id"}


@looked_at(quick=50, long=2_000)
@given(
    st.lists(st.tuples(st.sampled_from([ONE, OTHER]), st.integers(0, 20), st.sampled_from("abcdef")), max_size=40),
    st.lists(st.tuples(st.sampled_from([ONE, OTHER]), st.one_of(st.none(), st.integers(0, 25))), min_size=1),
)
def test_a_join_is_what_a_dictionary_says(
    told: list[tuple[bytes, int, str]], rows: list[tuple[bytes, int | None]]
) -> None:
    """Whatever was told in whatever order, each row has the last name of its number."""
    facts = enrichment(*((Kind.VRF_NAME, source, number, name) for source, number, name in told))
    model = {(source, number): name for source, number, name in told}
    made = {"egress_vrf_id": column("egress_vrf_id", *(number for _, number in rows))}
    expected = [None if number is None else model.get((source, number)) for source, number in rows]
    found = joined(made, facts, *(source for source, _ in rows))
    assert found.get("egress_vrf_name", [None] * len(rows)) == expected


# --- sampling rates


def rates(
    facts: Enrichment,
    own: pa.Array | None,
    *,
    samplers: list[int] | None = None,
    templates: list[int] | None = None,
    interfaces: list[int] | None = None,
    rows: int = 1,
    domain: int = 0,
) -> list[int | None] | None:
    """The rates of records of one exporter's observation domain."""
    domains = domain_keys(exporters(*[ONE] * rows), 9, np.full(rows, domain, np.uint32))
    by = [None if numbers is None else np.array(numbers, np.int64) for numbers in (samplers, templates, interfaces)]
    found = facts.rates(own, Sampled(domains, *by))
    if found is None:
        return None
    found.validate(full=True)
    assert found.type == COLUMN["sampling_rate"].type
    values: list[int | None] = found.to_pylist()
    return values


SAMPLER = (Kind.SAMPLER_RATE, ONE, 5, 50)
TEMPLATE = (Kind.TEMPLATE_RATE, ONE, 256, 60)
INTERFACE = (Kind.INTERFACE_RATE, ONE, 3, 70)
DOMAIN = (Kind.DOMAIN_RATE, ONE, 0, 80)
EVERY = [SAMPLER, TEMPLATE, INTERFACE, DOMAIN]

PREFERENCES = [
    pytest.param(EVERY, 40, 40, id="the record's own"),
    pytest.param(EVERY, None, 50, id="its sampler's"),
    pytest.param(EVERY, 0, 50, id="its sampler's, where its own is 0"),
    pytest.param(EVERY[1:], None, 60, id="its template's"),
    pytest.param(EVERY[2:], None, 70, id="its interface's"),
    pytest.param(EVERY[3:], None, 80, id="its domain's"),
    pytest.param([SAMPLER, DOMAIN], None, 50, id="its sampler's before its domain's"),
    pytest.param([], 40, 40, id="its own alone"),
]


@pytest.mark.parametrize(("known", "own", "expected"), PREFERENCES)
def test_of_several_rates_the_nearest_counts(
    known: list[tuple[Kind, bytes, int, int]], own: int | None, expected: int
) -> None:
    """Sampler, template, interface, domain: what is nearest to the record tells its rate."""
    told = None if own is None else pa.array([own or None], pa.uint32())
    found = rates(enrichment(*known), told, samplers=[5], templates=[256], interfaces=[3])
    assert found == [expected]


def test_each_row_has_the_rate_nearest_to_itself() -> None:
    """Rows of one layout differ: by sampler, by interface, and by what they tell themselves."""
    own = pa.array([None, None, None, 9, None], pa.uint32())
    found = rates(
        enrichment(*EVERY), own, samplers=[5, 6, 6, 6, 0], templates=[256, 257, 257, 256, 256], interfaces=[3, 3, 4, 3, 3], rows=5
    )  # fmt: skip
    assert found == [50, 70, 80, 9, 60]


def test_what_is_not_known_stays_unknown() -> None:
    """A sampler that is not in the table, or a domain of which nothing was told, has no rate: null, and no row is lost."""
    assert rates(enrichment(SAMPLER), None, samplers=[6]) is None
    assert rates(enrichment(SAMPLER), None) is None
    assert rates(enrichment(DOMAIN), None, domain=1) is None
    assert rates(enrichment(), None) is None
    assert rates(enrichment(SAMPLER), pa.array([None, None], pa.uint32()), samplers=[5, 6], rows=2) == [50, None]


def test_rates_up_to_the_largest_are_told() -> None:
    """A rate has 32 bits."""
    assert rates(enrichment((Kind.DOMAIN_RATE, ONE, 0, 2**32 - 1)), None) == [2**32 - 1]


# --- bounds


def test_facts_are_bounded_by_kind() -> None:
    """A fact for which there is no room is refused; facts of other kinds, and new values, are not."""
    facts = enrichment(*((Kind.INTERFACE_NAME, ONE, number, "same") for number in range(3)), limit=3)
    key = int(mix(exporters(ONE), 3)[0])
    assert not facts.put(Kind.INTERFACE_NAME, key, "same")
    assert facts.put(Kind.VRF_NAME, key, "same")
    assert facts.put(Kind.INTERFACE_NAME, int(mix(exporters(ONE), 2)[0]), "other")
    assert len(facts) == 4
    made = {"in_if": column("in_if", 1, 2, 3)}
    assert joined(made, facts, ONE, ONE, ONE)["in_if_name"] == ["same", "other", None]


def test_names_are_bounded() -> None:
    """More names than there is room for are refused, and those that are there stay what they were."""
    facts = Enrichment(2, SEED)
    keys = [int(mix(exporters(ONE), number)[0]) for number in range(3)]
    taken = [facts.put(kind, key, name) for kind, key, name in (
        (Kind.INTERFACE_NAME, keys[0], "a"),
        (Kind.VRF_NAME, keys[1], "b"),
        (Kind.SGT_NAME, keys[2], "c"),
        (Kind.SGT_NAME, keys[2], "a"),
    )]  # fmt: skip
    assert taken == [True, True, False, True]
    assert joined({"src_sgt": column("src_sgt", 2)}, facts, ONE)["src_sgt_name"] == ["a"]


def test_what_is_told_is_found_by_its_key() -> None:
    """Numbers are given by the column, and what nobody told is missing."""
    facts = enrichment((Kind.BOOTED_MS, ONE, 0, 1_700_000_000_000))
    assert facts.has(Kind.BOOTED_MS)
    assert not facts.has(Kind.DOMAIN_RATE)
    keys = domain_keys(exporters(ONE, OTHER, ONE), 9, np.array([0, 0, 1], np.uint32))
    assert facts.numbers(Kind.BOOTED_MS, mix(keys, 0)).tolist() == [1_700_000_000_000, MISSING, MISSING]
    other = domain_keys(exporters(ONE), 10, np.zeros(1, np.uint32))
    assert facts.numbers(Kind.BOOTED_MS, mix(other, 0)).tolist() == [MISSING]
