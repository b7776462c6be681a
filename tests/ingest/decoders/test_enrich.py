"""Facts of options data, joined to columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.enrich import NAMED, Enrichment, Kind, Sources, domain_keys, exporter_keys, text_keys
from ingest.decoders.lookup import MISSING, Keys, mix
from shared.record import COLUMN
from tests.builders import mapped
from tests.fuzz import looked_at

ONE, OTHER = mapped("192.0.2.1"), mapped("2001:db8::1")
SEED: Final = 12345
NAMES: Final = [pytest.param(number, name, kinds[0], id=name) for kinds, pairs in NAMED for number, name in pairs]
NUMBERS: Final = [number for _, pairs in NAMED for number, _ in pairs]


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
        assert made.put(kind, int(keys[0]), value, int(exporters(source)[0]), about)
    return made


def put(facts: Enrichment, kind: Kind, number: int, name: str) -> bool:
    """Tell a name of the first exporter; whether it was taken."""
    keys = exporters(ONE)
    return facts.put(kind, int(mix(keys, number)[0]), name, int(keys[0]), number)


def column(name: str, *values: int | None) -> pa.Array:
    """A column of numbers."""
    return pa.array(values, COLUMN[name].type)


def joined(made: Mapping[str, pa.Array], facts: Enrichment, *sources: bytes) -> dict[str, list[Any]]:
    """Columns after the join, as plain values; each is sound and has its type."""
    columns = dict(made)
    facts.join(columns, exporters(*sources), np.arange(len(sources)))
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
    made = {number: column(number, 7) for number in NUMBERS}
    found = joined(made, facts, ONE)
    assert [found[name] for _, pairs in NAMED for _, name in pairs] == [["eth7"]] * 2 + [["red"]] * 2 + [["staff"]] * 2


def test_a_null_is_not_the_number_that_stands_in_its_place() -> None:
    """Where a column is null its memory may hold anything, and that is nobody's number."""
    ids = pa.Array.from_buffers(pa.uint32(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(np.array([7, 7], np.uint32))])
    facts = enrichment((Kind.INTERFACE_NAME, ONE, 7, "eth7"))
    assert joined({"in_if": ids}, facts, ONE, ONE)["in_if_name"] == ["eth7", None]


def test_names_share_their_entries() -> None:
    """The dictionary of a column has what its rows use, once each, however many names are known."""
    facts = enrichment(*((Kind.INTERFACE_NAME, ONE, number, f"eth{number % 50}") for number in range(200)))
    columns = {"in_if": column("in_if", 7, 57, 3, 999, 7)}
    facts.join(columns, exporters(ONE), np.zeros(5, np.int64))
    assert columns["in_if_name"].to_pylist() == ["eth7", "eth7", "eth3", None, "eth7"]
    assert sorted(columns["in_if_name"].dictionary.to_pylist()) == ["eth3", "eth7"]


def test_a_name_that_the_record_brought_stands() -> None:
    """The table names only what the record did not."""
    facts = enrichment((Kind.SGT_NAME, ONE, 7, "of the table"), (Kind.SGT_NAME, ONE, 8, "eight"))
    own = pa.array(["of the record", None, None, "also"]).dictionary_encode()
    made = {"src_sgt": column("src_sgt", 7, 7, 8, 9), "src_sgt_name": own}
    expected = ["of the record", "of the table", "eight", "also"]
    assert joined(made, facts, ONE, ONE, ONE, ONE)["src_sgt_name"] == expected


def test_a_name_of_options_data_stands_over_one_of_records() -> None:
    """Of a group that both name the table's name counts, whichever was put first."""
    facts = enrichment(
        (Kind.RECORD_SGT_NAME, ONE, 7, "of a record"),
        (Kind.RECORD_SGT_NAME, ONE, 8, "of a record"),
        (Kind.SGT_NAME, ONE, 7, "of the table"),
    )
    facts.name_groups({8: "configured", 9: "nine"})
    made = {"src_sgt": column("src_sgt", 7, 8, 9, 10)}
    expected = ["of the table", "of a record", "nine", None]
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


LARGEST: Final = [
    pytest.param(20, id="small ids"),
    pytest.param(4097, id="ids at the bound"),
    pytest.param(2**32 - 1, id="ids of any size"),
]


@pytest.mark.parametrize("largest", LARGEST)
@given(st.data())
@looked_at(quick=40, long=1_000)
def test_many_rows_are_joined_as_each_of_them_is(largest: int, data: st.DataObject) -> None:
    """Whether ids are small or large, both sides have the names of their own exporter, and other numbers none."""
    ids = st.sampled_from([0, 1, 2, 3, largest - 1, largest])
    told = data.draw(st.dictionaries(st.tuples(st.sampled_from([ONE, OTHER]), ids), st.sampled_from("abcd")))
    facts = enrichment(*((Kind.INTERFACE_NAME, source, number, name) for (source, number), name in told.items()))
    model: dict[tuple[bytes, int | None], str] = dict(told.items())
    sets = data.draw(st.lists(st.sampled_from([ONE, OTHER]), min_size=1, max_size=4))
    row = st.tuples(st.integers(0, len(sets) - 1), st.one_of(st.none(), ids), st.one_of(st.none(), ids))
    rows = data.draw(st.lists(row, min_size=1, max_size=60))
    made = {
        "in_if": column("in_if", *(one for _, one, _ in rows)),
        "out_if": column("out_if", *(two for *_, two in rows)),
    }
    facts.join(made, exporters(*sets), np.array([of for of, _, _ in rows]))
    for at, name in ((1, "in_if_name"), (2, "out_if_name")):
        expected = [model.get((sets[each[0]], each[at])) for each in rows]
        found = made.get(name)
        if found is not None:
            found.validate(full=True)
        assert (found.to_pylist() if found is not None else [None] * len(rows)) == expected


# --- sampling rates


def rates(
    facts: Enrichment,
    own: pa.Array | None,
    *,
    samplers: list[int] | None = None,
    templates: list[int] | None = None,
    interfaces: list[int] | None = None,
    of: Sequence[int] = (0,),
    domains: Sequence[int] = (0, 0, 0, 0, 0),
) -> list[int | None] | None:
    """The rates of records of one exporter, of its observation domains: those of the sets ``of`` which they are."""
    whose = exporters(*[ONE] * len(domains))
    keys = domain_keys(whose, 9, np.array(domains, np.uint32))
    by = [None if numbers is None else np.array(numbers, np.int64) for numbers in (samplers, templates, interfaces)]
    found = facts.rates(own, Sources(whose, keys, by[1], np.array(of)), samplers=by[0], interfaces=by[2])
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
    found = rates(enrichment(*known), told, samplers=[5], templates=[256] * 5, interfaces=[3])
    assert found == [expected]


def test_each_row_has_the_rate_nearest_to_itself() -> None:
    """Rows of one layout differ: by sampler, by interface, and by what they tell themselves."""
    own = pa.array([None, None, None, 9, None], pa.uint32())
    found = rates(
        enrichment(*EVERY), own, samplers=[5, 6, 6, 6, 0], templates=[256, 257], interfaces=[3, 3, 4, 3, 3],
        of=[0, 1, 1, 0, 0], domains=[0, 0],
    )  # fmt: skip
    assert found == [50, 70, 80, 9, 60]


def test_records_of_a_set_have_the_rate_of_the_set() -> None:
    """Where nothing in the records says which rate it is, they have that of their template, or of their domain."""
    of = [0, 1, 1, 2, 3, 3]
    assert rates(enrichment(TEMPLATE, DOMAIN), None, templates=[256, 257, 256, 257], of=of, domains=[0, 0, 1, 1]) == [
        60, 80, 80, None, None, None,
    ]  # fmt: skip
    assert rates(enrichment(DOMAIN), None, of=of, domains=[0, 0, 0, 0]) == [80] * 6
    assert rates(enrichment(DOMAIN), None, samplers=[5] * 6, of=of, domains=[1, 0, 0, 1]) == [
        None,
        *[80] * 3,
        None,
        None,
    ]
    own = pa.array([7, None, 7, None, None, 7], pa.uint32())
    assert rates(enrichment(DOMAIN), own, of=of, domains=[0, 0, 1, 0]) == [7, 80, 7, None, 80, 7]


def test_what_is_not_known_stays_unknown() -> None:
    """A sampler that is not in the table, or a domain of which nothing was told, has no rate: null, and no row is lost."""
    assert rates(enrichment(SAMPLER), None, samplers=[6]) is None
    assert rates(enrichment(SAMPLER), None) is None
    assert rates(enrichment(DOMAIN), None, domains=[1]) is None
    assert rates(enrichment(), None) is None
    assert rates(enrichment(SAMPLER), pa.array([None, None], pa.uint32()), samplers=[5, 6], of=[0, 0]) == [50, None]


def test_rates_up_to_the_largest_are_told() -> None:
    """A rate has 32 bits."""
    assert rates(enrichment((Kind.DOMAIN_RATE, ONE, 0, 2**32 - 1)), None) == [2**32 - 1]


# --- bounds


def test_facts_are_bounded_by_kind() -> None:
    """A fact for which there is no room is refused; facts of other kinds, and new values, are not."""
    facts = enrichment(*((Kind.INTERFACE_NAME, ONE, number, "same") for number in range(3)), limit=3)
    assert not put(facts, Kind.INTERFACE_NAME, 3, "same")
    assert put(facts, Kind.VRF_NAME, 3, "same")
    assert put(facts, Kind.INTERFACE_NAME, 2, "other")
    assert len(facts) == 4
    made = {"in_if": column("in_if", 1, 2, 3)}
    assert joined(made, facts, ONE, ONE, ONE)["in_if_name"] == ["same", "other", None]


def test_names_are_bounded() -> None:
    """More names than there is room for are refused, and those that are there stay what they were."""
    facts = Enrichment(2, SEED)
    taken = [put(facts, kind, number, name) for kind, number, name in (
        (Kind.INTERFACE_NAME, 0, "a"),
        (Kind.VRF_NAME, 1, "b"),
        (Kind.SGT_NAME, 2, "c"),
        (Kind.SGT_NAME, 2, "a"),
    )]  # fmt: skip
    assert taken == [True, True, False, True]
    assert joined({"src_sgt": column("src_sgt", 2)}, facts, ONE)["src_sgt_name"] == ["a"]


def test_names_are_bounded_in_bytes() -> None:
    """A name for whose bytes there is no room is refused; a shorter one, and one that is there, is not."""
    facts = Enrichment(10, SEED, names_bytes=5)
    taken = [put(facts, Kind.VRF_NAME, number, name) for number, name in enumerate(["abc", "äb", "xy", "abc"])]
    assert taken == [True, False, True, True]


def test_what_is_told_is_found_by_its_key() -> None:
    """Numbers are given by the column, and what nobody told is missing."""
    facts = enrichment((Kind.BOOTED_MS, ONE, 0, 1_700_000_000_000))
    assert facts.has(Kind.BOOTED_MS)
    assert not facts.has(Kind.DOMAIN_RATE)
    keys = domain_keys(exporters(ONE, OTHER, ONE), 9, np.array([0, 0, 1], np.uint32))
    assert facts.numbers(Kind.BOOTED_MS, mix(keys, 0)).tolist() == [1_700_000_000_000, MISSING, MISSING]
    other = domain_keys(exporters(ONE), 10, np.zeros(1, np.uint32))
    assert facts.numbers(Kind.BOOTED_MS, mix(other, 0)).tolist() == [MISSING]
