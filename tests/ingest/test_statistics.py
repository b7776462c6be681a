from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.captures import Captures
from ingest.decoders import Decoded
from ingest.statistics import LONGEST_SCOPE, MOST_ROWS, NARROWEST, STATISTICS, Reading, Statistics, read_statistics
from tests.builders import (
    INTERFACE,
    SYSTEM,
    data_set,
    field,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipv4,
    mapped,
    number,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    variable,
)
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector
from tests.ingest.observations import NOW_NS

TEMPLATE_SCOPE = 5
SECOND_NS = 1_000_000_000

Told = tuple[str, int, str, int]
"""Scope, narrowness, statistic, value."""


def readings(decoded: Decoded) -> list[Reading]:
    """What was read, of which nothing was passed over."""
    found, passed_over = read_statistics(decoded.options)
    assert passed_over == 0
    return found


def told(decoded: Decoded) -> list[Told]:
    """What was read, without who told it."""
    return [(one.scope, one.narrowness, one.statistic, one.value) for one in readings(decoded)]


def v9(scopes: tuple[bytes, ...], fields: tuple[bytes, ...], *records: bytes) -> bytes:
    """A v9 datagram with an options template, and its data."""
    return v9_datagram(v9_options_templates(v9_options_template(257, scopes, fields)), data_set(257, *records))


def ipfix(scopes: tuple[bytes, ...], fields: tuple[bytes, ...], *records: bytes) -> bytes:
    """The same in IPFIX."""
    return ipfix_message(ipfix_options_templates(ipfix_options_template(257, scopes, fields)), data_set(257, *records))


# --- from bytes


EXPORTED = (field(41, 4), field(42, 4), field(40, 4))
COUNTS = number(3, 4) + number(70, 4) + number(4000, 4)


def exported(scope: str, narrowness: int) -> list[Told]:
    """What EXPORTED and COUNTS tell."""
    values = {"exported_octets": 4000, "exported_messages": 3, "exported_flow_records": 70}
    return [(scope, narrowness, statistic, value) for statistic, value in values.items()]


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        pytest.param(v9((field(SYSTEM, 4),), EXPORTED, number(9, 4) + COUNTS), exported("system 9", 0), id="system"),
        pytest.param(v9((), EXPORTED, COUNTS), exported("", 0), id="no scope"),
        pytest.param(v9((field(SYSTEM, 0),), EXPORTED, COUNTS), exported("", 0), id="a scope of no length"),
        pytest.param(
            v9((field(SYSTEM, 2), field(INTERFACE, 2)), EXPORTED, number(1, 2) + number(7, 2) + COUNTS),
            exported("system 1, interface 7", 4),
            id="an interface",
        ),
        pytest.param(
            v9((field(SYSTEM, 4),), (field(48, 1), *EXPORTED), number(1, 4) + number(7, 1) + COUNTS),
            exported("system 1, sampler 7", 4),
            id="a sampler behind the scope",
        ),
        pytest.param(
            ipfix((field(144, 4),), (*EXPORTED, field(130, 4)), number(2, 4) + COUNTS + ipv4("192.0.2.1")),
            exported("exporting process 2", 0),
            id="an exporting process, and its address besides",
        ),
        pytest.param(
            ipfix((field(130, 4),), EXPORTED, ipv4("192.0.2.1") + COUNTS), exported("exporter 192.0.2.1", 0), id="IPv4"
        ),
        pytest.param(
            ipfix((field(131, 16),), EXPORTED, mapped("2001:db8::1") + COUNTS),
            exported("exporter 2001:db8::1", 0),
            id="IPv6",
        ),
        pytest.param(
            ipfix((field(149, 4),), EXPORTED, number(7, 4) + COUNTS), exported("observation domain 7", 1), id="domain"
        ),
        pytest.param(
            ipfix((field(149, 4),), EXPORTED, number(0, 4) + COUNTS),
            exported("observation domain 0", 0),
            id="all domains",
        ),
        pytest.param(
            ipfix((field(149, 4), field(145, 2)), EXPORTED, number(7, 4) + number(300, 2) + COUNTS),
            exported("observation domain 7, template 300", 5),
            id="a template",
        ),
        pytest.param(
            ipfix((field(77, 4, enterprise=32473),), EXPORTED, number(7, 4) + COUNTS),
            exported("32473:77 7", NARROWEST),
            id="nobody knows",
        ),
    ],
)
def test_totals_are_read_with_their_scope(payload: bytes, wanted: list[Told]) -> None:
    """Whose they are, and how narrow that is."""
    assert told(Collector().feed(payload)) == wanted


@pytest.mark.parametrize(
    ("scope", "values"),
    [
        pytest.param((field(82, 65535),), [variable(b"x" * 60_000 + end) for end in (b"1", b"2")], id="a text"),
        pytest.param((field(9999, 60_001),), [b"x" * 60_000 + end for end in (b"1", b"2")], id="what nobody knows"),
        pytest.param(
            tuple(field(20_000 + at, 60) for at in range(1000)),
            [b"".join(b"%060d" % at for at in range(end, end + 1000)) for end in (1, 2)],
            id="many",
        ),
    ],
)
def test_a_scope_is_told_in_few_characters(scope: tuple[bytes, ...], values: list[bytes]) -> None:
    """However long what an exporter sends for it: it is kept with each total. Scopes that differ stay two."""
    collector = Collector()
    found = [
        one for value in values for one in readings(collector.feed(ipfix(scope, (field(41, 4),), value + number(1, 4))))
    ]
    assert len({one.scope for one in found}) == len(found) == 2
    assert all(len(one.scope) <= LONGEST_SCOPE for one in found)


@pytest.mark.parametrize("octets", [1, 3, 4, 8])
def test_each_statistic_is_read(octets: int) -> None:
    """All of them, in any length, each record's apart."""
    fields = tuple(field(int(element.removeprefix("0:")), octets) for element in STATISTICS)
    records = [b"".join(number(10 * row + at, octets) for at in range(len(fields))) for row in (1, 2)]
    payload = ipfix((field(143, 2),), fields, *(number(7, 2) + record for record in records))
    found = readings(Collector().feed(payload))
    assert [(one.statistic, one.value) for one in found] == [
        (statistic, 10 * row + at) for row in (1, 2) for at, statistic in enumerate(STATISTICS.values())
    ]
    assert {(one.source, one.version, one.domain, one.octets, one.received_ns) for one in found} == {
        (EXPORTER, 10, 0, octets, RECEIVED_NS)
    }


def test_other_options_tell_no_totals() -> None:
    """Neither does a total that is longer than a number can be."""
    assert told(Collector().feed(v9((field(SYSTEM, 4),), (field(34, 4),), bytes(8)))) == []
    assert told(Collector().feed(v9((field(SYSTEM, 4),), (field(41, 9),), bytes(13)))) == []


def test_a_total_may_tell_its_length_itself() -> None:
    """Then it begins at 0 again where the longest number does."""
    decoded = Collector().feed(ipfix((field(144, 4),), (field(41, 65535),), number(1, 4) + b"\1\7"))
    (one,) = readings(decoded)
    assert (one.scope, one.value, one.octets) == ("exporting process 1", 7, 8)


CAPTURED = [
    pytest.param(
        "netflow9",
        ("netflow9_test_fortigate_fortios_521_tpl", "netflow9_test_fortigate_fortios_521_data256"),
        [
            ("system 1", 0, "exported_octets", 6_871_319_015),
            ("system 1", 0, "exported_messages", 11_920_854),
            ("system 1", 0, "exported_flow_records", 107_864),
        ],
        id="Fortinet",
    ),
    pytest.param(
        "netflow9",
        ("netflow9_test_nprobe_tpl",),
        [("system 0", 0, "exported_messages", 0), ("system 0", 0, "exported_flow_records", 1)],
        id="nProbe",
    ),
    pytest.param(
        "ipfix",
        ("ipfix_test_juniper_mx240_junos151r6s3_opttpl512", "ipfix_test_juniper_mx240_junos151r6s3_data512"),
        [
            ("exporting process 2", 0, "exported_messages", 76),
            ("exporting process 2", 0, "exported_flow_records", 76),
        ],
        id="Juniper MX240",
    ),
    pytest.param(
        "ipfix",
        ("ipfix_test_yaf_tpls_option_tpl", "ipfix_test_yaf_data53248"),
        [
            ("exporting process 0", 0, "exported_flow_records", 31),
            ("exporting process 0", 0, "ignored_packets", 58),
            ("exporting process 0", 0, "not_sent_packets", 0),
        ],
        id="YAF, which has a total and its start for a scope",
    ),
]


@pytest.mark.parametrize(("folder", "names", "wanted"), CAPTURED)
def test_what_captured_devices_report(captures: Path, folder: str, names: tuple[str, ...], wanted: list[Told]) -> None:
    """Statistics as real devices send them."""
    collector = Collector()
    found = []
    for name in names:
        for batch in Captures([captures / folder / f"{name}.dat"]).batches():
            found += told(collector.take(batch))
    assert found == wanted


def test_of_many_records_the_last_of_each_scope_counts() -> None:
    """A device that tells its totals all the time costs no more than one that tells them once."""
    records = [number(process, 1) + number(100 * at, 4) for at in range(200) for process in (1, 2)]
    found = told(Collector().feed(ipfix((field(144, 1),), (field(166, 4),), *records)))
    assert found == [(f"exporting process {process}", 0, "not_sent_flows", 19_900) for process in (1, 2)]


def test_too_many_scopes_are_passed_over_and_counted() -> None:
    """Nobody has so many; whoever sends them does not keep a worker busy."""
    records = [number(process, 2) + number(7, 1) * 2 for process in range(MOST_ROWS + 100)]
    decoded = Collector().feed(ipfix((field(144, 2),), (field(166, 1), field(167, 1)), *records))
    found, passed_over = read_statistics(decoded.options)
    assert (len(found), passed_over) == (2 * MOST_ROWS, 2 * 100)


# --- counted


def reading(value: int, seconds: int = 0, **more: object) -> Reading:
    """A total that was not sent, of a whole exporter."""
    usual = Reading(EXPORTER, 10, 0, "exporting process 1", 0, "not_sent_flows", value, 8, NOW_NS + seconds * SECOND_NS)
    return replace(usual, **more)  # type: ignore[arg-type]  # whatever a test wants to say


def rise(*rounds: list[Reading], statistics: Statistics | None = None) -> dict[str, int]:
    """By how much totals rose in these rounds, each with a settlement after it; all exporters together."""
    statistics = Statistics() if statistics is None else statistics
    for readings in rounds:
        statistics.hear(readings)
        statistics.settle()
    statistics.settle(everything=True)
    sums: dict[str, int] = {}
    for (_, statistic), rose in statistics.rise.items():
        sums[statistic] = sums.get(statistic, 0) + rose
    return sums


@pytest.mark.parametrize(
    ("values", "octets", "rose"),
    [
        pytest.param([5], 8, 0, id="what it was at first is not new"),
        pytest.param([5, 5, 9, 19], 8, 14, id="it rises"),
        pytest.param([500, 510, 3, 7], 8, 10 + 4, id="it begins anew"),
        pytest.param([2**32 - 10, 6], 4, 16, id="through the end of four bytes"),
        pytest.param([2**32 - 10, 6], 8, 0, id="which is not the end of eight"),
        pytest.param([2**31, 6], 4, 0, id="too far from the end"),
    ],
)
def test_totals_rise(values: list[int], octets: int, rose: int) -> None:
    """By what one adds to the one before it."""
    readings = [reading(value, at, octets=octets) for at, value in enumerate(values)]
    assert rise(readings) == {"not_sent_flows": rose}
    assert rise(*([one] for one in readings)) == {"not_sent_flows": rose}


def test_what_came_late_or_twice_adds_nothing() -> None:
    """A total that was received before the last one is known already."""
    readings = [reading(10 * at, at) for at in range(5)]
    assert rise(readings, [], readings[1:3], [], [reading(50, 9)]) == {"not_sent_flows": 50}


def test_of_several_scopes_the_widest_counts() -> None:
    """An exporting process has sent what its templates have; which of them is told first makes no difference."""
    wide = [reading(100 * at, at) for at in range(3)]
    narrow = [
        reading(10 * at * template, at, scope=f"template {template}", narrowness=TEMPLATE_SCOPE)
        for at in range(3)
        for template in (4, 6)
    ]
    assert rise([*wide, *narrow]) == rise([*narrow, *wide]) == {"not_sent_flows": 200}
    assert rise(narrow) == {"not_sent_flows": 80 + 120}
    other = [replace(one, statistic="ignored_packets") for one in narrow]
    assert rise([*wide, *other]) == {"not_sent_flows": 200, "ignored_packets": 200}


def test_domains_and_versions_are_added_up() -> None:
    """Line cards have an exporting process each, which may have the same number and another total."""
    cards = [
        reading(value, at, domain=domain, version=version)
        for at, (value, domain, version) in enumerate(
            [(100, 1, 10), (90_000, 2, 10), (7, 1, 9), (103, 1, 10), (90_004, 2, 10), (12, 1, 9)]
        )
    ]
    assert rise(cards) == {"not_sent_flows": 3 + 4 + 5}


def test_what_was_told_last_is_shown() -> None:
    """By scope, as the exporter told it."""
    statistics = Statistics()
    narrow = reading(3, scope="template 300", narrowness=TEMPLATE_SCOPE)
    rise([reading(5), reading(9, 1), reading(4, statistic="ignored_packets"), narrow], statistics=statistics)
    assert [(one.source, one.version, one.domain, one.scope, one.totals) for one in statistics.facts()] == [
        (EXPORTER, 10, 0, "template 300", {"not_sent_flows": 3}),
        (EXPORTER, 10, 0, "exporting process 1", {"ignored_packets": 4, "not_sent_flows": 9}),
    ]
    assert len(statistics) == 3


# --- bounds


def test_there_is_a_bound_for_all_and_one_for_each() -> None:
    """Totals for which there is no room are counted; one exporter cannot take the room of the others."""
    statistics = Statistics(limit=5, exporter_limit=2)
    sent = [
        reading(value, value, source=mapped(f"10.0.0.{exporter}"), scope=f"template {scope}")
        for value in (0, 1)
        for exporter in range(3)
        for scope in range(4)
    ]
    assert rise(sent, statistics=statistics) == {"not_sent_flows": 2 + 2 + 1}
    assert (len(statistics), statistics.unlisted) == (5, 2 * (2 + 2 + 3))


def test_a_flood_is_counted_before_its_time() -> None:
    """More readings than are gathered at a time do not wait for the clock."""
    statistics = Statistics(most_readings=10)
    for at in range(100):
        statistics.hear([reading(at, at)])
    assert sum(statistics.rise.values()) > 70
    assert rise(statistics=statistics) == {"not_sent_flows": 99}


# --- in any order


@settings(deadline=None)
@given(
    first=st.one_of(st.integers(0, 100), st.integers(2**32 - 60, 2**32 - 1)),
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    rounds=st.integers(1, 5),
    data=st.data(),
)
def test_the_rise_is_exact_in_any_order(first: int, steps: list[int], rounds: int, data: st.DataObject) -> None:
    """However readings are shuffled and repeated, as long as none is more than a round late."""
    values = [first]
    for step in steps:
        values.append(values[-1] + step)
    plan: list[list[Reading]] = [[] for _ in range(rounds + 1)]
    for at, value in enumerate(values):
        turn = at * rounds // len(values)
        for _ in range(data.draw(st.integers(1, 2))):
            plan[turn + data.draw(st.integers(0, 1))].append(reading(value % 2**32, at, octets=4))
    assert rise(*(data.draw(st.permutations(content)) for content in plan)) == {"not_sent_flows": sum(steps)}
