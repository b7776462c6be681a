from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.dedup.observation import Crossing, Metering, ObservationPoint, ObservationRule
from shared.record import SCHEMA

EXT, INT = "external", "internal"
IN, OUT = 0, 1


class Metered(NamedTuple):
    """A record: the classes of the interfaces that its packets came in and went out by, and where it was metered."""

    entry: str | None
    exit: str | None
    direction: int | None


def table(records: Sequence[Metered], exporters: Sequence[bytes | None] | None = None) -> pa.Table:
    """Such records as columns."""
    content: dict[str, Sequence[Any]] = {
        "in_if_boundary": [one.entry for one in records],
        "out_if_boundary": [one.exit for one in records],
        "flow_direction": [one.direction for one in records],
    }
    if exporters is not None:
        content["sampler_address"] = exporters
    return pa.table(
        {
            name: pa.array(values, SCHEMA.field(name).type if name in SCHEMA.names else pa.utf8())
            for name, values in content.items()
        }
    )


def counted(records: Sequence[Metered], rule: ObservationRule) -> list[Metered]:
    """The records that are not marked."""
    duplicate = ObservationPoint(rule).judge(table(records)).duplicate.to_pylist()
    return [one for one, marked in zip(records, duplicate, strict=True) if not marked]


def router(ports: dict[str, tuple[int, ...]], entry: str, exit: str) -> list[Metered]:  # noqa: A002 - the word for it
    """The records that a router makes of a flow, when each class of interface is metered in these directions."""
    return [Metered(entry, exit, IN)] * (IN in ports[entry]) + [Metered(entry, exit, OUT)] * (OUT in ports[exit])


CONFIGURATIONS: dict[str, tuple[dict[str, tuple[int, ...]], set[Metering]]] = {
    "ingress everywhere": ({EXT: (IN,), INT: (IN,)}, {Metering.INGRESS}),
    "egress everywhere": ({EXT: (OUT,), INT: (OUT,)}, {Metering.EGRESS}),
    "both everywhere": ({EXT: (IN, OUT), INT: (IN, OUT)}, set(Metering)),
    "both, on external interfaces": ({EXT: (IN, OUT), INT: ()}, {Metering.EXTERNAL}),
    "both outside, ingress inside": ({EXT: (IN, OUT), INT: (IN,)}, {Metering.INGRESS, Metering.EXTERNAL}),
    "both outside, egress inside": ({EXT: (IN, OUT), INT: (OUT,)}, {Metering.EGRESS, Metering.EXTERNAL}),
}
"""How routers are set up, and the ways of metering that are right for each."""

PATHS = {"comes in": (EXT, INT), "goes out": (INT, EXT), "goes through": (EXT, EXT), "stays inside": (INT, INT)}


@pytest.mark.parametrize("metering", Metering)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_each_flow_that_crosses_the_border_counts_once(configuration: str, metering: Metering) -> None:
    """In both directions and through; with the way of metering that fits the router, and with no other."""
    ports, right = CONFIGURATIONS[configuration]
    rule = ObservationRule(metering=metering)
    counts = {name: len(counted(router(ports, *path), rule)) for name, path in PATHS.items()}
    once = {"comes in": 1, "goes out": 1, "goes through": 1, "stays inside": 0}
    assert (counts == once) is (metering in right)


@pytest.mark.parametrize("metering", Metering)
def test_records_without_a_direction_count_at_any_crossing(metering: Metering) -> None:
    """NetFlow v5 and sFlow do not tell where they meter: there is one record for each flow, or for each packet."""
    assert [len(counted([Metered(*path, None)], ObservationRule(metering=metering))) for path in PATHS.values()] == [
        1,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("crossing", "names"),
    [
        (Crossing.BOTH, ["comes in", "goes out", "goes through"]),
        (Crossing.ENTERING, ["comes in", "goes through"]),
        (Crossing.LEAVING, ["goes out", "goes through"]),
    ],
)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_one_way_can_be_counted_alone(configuration: str, crossing: Crossing, names: list[str]) -> None:
    """What enters or what leaves: for networks that flows go through from one router of the border to another."""
    ports, right = CONFIGURATIONS[configuration]
    for metering in right:
        rule = ObservationRule(crossing, metering)
        counts = {name: len(counted(router(ports, *path), rule)) for name, path in PATHS.items()}
        assert counts == {name: int(name in names) for name in PATHS}


def possible(one: Metered) -> Iterator[Metered]:
    """What a record may be, when the classes that are not known become known."""
    for entry, leave in itertools.product(
        [one.entry] if one.entry else [EXT, INT], [one.exit] if one.exit else [EXT, INT]
    ):
        yield Metered(entry, leave, one.direction)


EVERY = [Metered(*one) for one in itertools.product([EXT, INT, None], [EXT, INT, None], [IN, OUT, None])]


@pytest.mark.parametrize("crossing", Crossing)
@pytest.mark.parametrize("metering", Metering)
def test_what_depends_on_an_unknown_class_is_unknown_and_not_marked(crossing: Crossing, metering: Metering) -> None:
    """Marked is what does not count whatever the unknown classes are; unknown is what they decide."""
    rule = ObservationRule(crossing, metering)
    observed = ObservationPoint(rule).judge(table(EVERY))
    outcomes = [{bool(counted([one], rule)) for one in possible(record)} for record in EVERY]
    assert observed.duplicate.to_pylist() == [outcome == {False} for outcome in outcomes]
    assert observed.unknown == outcomes.count({True, False})


def test_records_without_classes_are_all_unknown() -> None:
    """Where no interface is classed nothing is marked, and that is told."""
    observed = ObservationPoint(ObservationRule()).judge(pa.table({"bytes": [1, 2, 3]}))
    assert (observed.duplicate.to_pylist(), observed.unknown) == ([False] * 3, 3)


def test_an_odd_direction_is_none() -> None:
    """A value that the registry does not know counts as if the exporter had told none."""
    assert len(counted([Metered(INT, EXT, 7)], ObservationRule(metering=Metering.EXTERNAL))) == 1


def test_exporters_may_meter_in_different_ways() -> None:
    """By their networks, the longest that fits; IPv4 and IPv6; all others by the default."""
    networks = {
        "198.51.100.0/24": Metering.EGRESS,
        "198.51.100.7/32": Metering.EXTERNAL,
        "2001:db8::/32": Metering.EXTERNAL,
    }
    rule = ObservationRule(overrides={ipaddress.ip_network(text): metering for text, metering in networks.items()})
    exporters = [
        None if text is None else ipaddress.IPv6Address(text).packed
        for text in ("::ffff:192.0.2.1", "::ffff:198.51.100.1", "::ffff:198.51.100.7", "2001:db8::5", None)
    ]
    kinds = [Metered(EXT, INT, IN), Metered(EXT, INT, OUT), Metered(INT, EXT, IN), Metered(INT, EXT, OUT)]
    observed = ObservationPoint(rule).judge(table([one for one in kinds for _ in exporters], exporters * len(kinds)))
    by_exporter = [observed.duplicate.to_pylist()[at :: len(exporters)] for at in range(len(exporters))]
    ingress, egress, external = [False, True, False, True], [True, False, True, False], [False, True, True, False]
    assert by_exporter == [ingress, egress, external, external, ingress]


@given(st.lists(st.sampled_from(EVERY), max_size=20), st.integers(1, 5))
def test_it_does_not_matter_how_columns_are_kept(records: list[Metered], size: int) -> None:
    """Chunks with dictionaries of their own give the same."""
    whole = table(records)
    parts = [table(records[at : at + size]) for at in range(0, len(records), size)] or [whole]
    point = ObservationPoint(ObservationRule(metering=Metering.EXTERNAL))
    assert point.judge(pa.concat_tables(parts)).duplicate.to_pylist() == point.judge(whole).duplicate.to_pylist()
