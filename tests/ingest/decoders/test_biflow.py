"""Flows of two directions: reverse elements by RFC 5103, each by itself."""

from __future__ import annotations

import pytest

from ingest.decoders.elements import EXCHANGED, NOT_REVERSIBLE, ONE_WAY
from shared.record import COLUMN
from tests.builders import VARIABLE, field, ipv4, mapped, number, variable
from tests.ingest.collector import Collector, Row, flows, nothing_wrong, rows, told
from tests.ingest.decoders.known_elements import IPFIX, KNOWN, Known

REVERSE = 29305
ENDS = (field(8, 4), field(12, 4), field(1, 8), field(1, 8, enterprise=REVERSE))
END = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(100, 8) + number(200, 8)
FORTH: Row = {
    "src_addr": mapped("192.0.2.1"),
    "dst_addr": mapped("198.51.100.2"),
    "etype": 0x0800,
    "bytes": 100,
    "bi_flow_direction": 1,
}
BACK: Row = {
    "src_addr": mapped("198.51.100.2"),
    "dst_addr": mapped("192.0.2.1"),
    "etype": 0x0800,
    "bytes": 200,
    "bi_flow_direction": 2,
}
OTHER_END = dict(EXCHANGED) | {other: one for one, other in EXCHANGED}
OURS = {"src_addr", "dst_addr", "bytes", "flows", "sampling_rate"}
"""Columns of the elements that every test here sends, and those that are no element's alone."""
REVERSIBLE = [
    pytest.param(known, id=known.name)
    for known in KNOWN
    if known.protocol == IPFIX
    and known.enterprise is None
    and known.element not in NOT_REVERSIBLE
    and known.column not in OURS
]


def both(fields: list[bytes], record: bytes) -> tuple[Row, Row]:
    """The two records of one that has these fields beside its ends."""
    decoded = Collector().feed(flows(IPFIX, [*ENDS, *fields], END + record))
    assert nothing_wrong(decoded)
    first, second = sorted(map(told, rows(decoded)), key=lambda row: row["bi_flow_direction"])
    return first, second


@pytest.mark.parametrize("known", REVERSIBLE)
def test_a_reverse_element_is_the_second_records_own(known: Known) -> None:
    """An element of IANA's under the reverse enterprise number tells of the other direction, and of nothing else."""
    value, expected = known.sample()
    first, second = both([field(known.element, len(value), enterprise=REVERSE)], value)
    assert first == FORTH
    assert second == BACK | {known.column: expected}


@pytest.mark.parametrize("known", REVERSIBLE)
def test_an_element_that_is_not_reversed_is_of_the_flow_or_of_its_direction(known: Known) -> None:
    """Without a reverse element a column changes ends, or stays, or is left out where it is of one direction alone."""
    value, expected = known.sample()
    first, second = both([field(known.element, len(value))], value)
    assert first == FORTH | {known.column: expected}
    there = {} if known.column in ONE_WAY else {OTHER_END.get(known.column, known.column): expected}
    assert second == BACK | there


@pytest.mark.parametrize("element", sorted(NOT_REVERSIBLE))
def test_what_has_no_direction_has_no_reverse(element: int) -> None:
    """Identifiers, the exporter's own configuration and statistics, padding and 239 itself are ignored there."""
    decoded = Collector().feed(
        flows(IPFIX, [field(8, 4), field(element, 1, enterprise=REVERSE), field(5, 1)], ipv4("192.0.2.1") + b"\2\x2a")
    )
    assert [told(row) for row in rows(decoded)] == [
        {"src_addr": mapped("192.0.2.1"), "etype": 0x0800, "ip_tos": 42},
    ]


def test_reverse_counters_may_vary_in_length() -> None:
    """A counter of variable length that is empty says that nothing came back."""
    fields = [field(8, 4), field(1, 4), field(1, VARIABLE, enterprise=REVERSE)]
    records = [ipv4("192.0.2.1") + number(5, 4) + variable(content) for content in (b"\7", b"", b"\0", b"\1\0")]
    decoded = Collector().feed(flows(IPFIX, fields, *records))
    found = [(row["bi_flow_direction"], row["bytes"]) for row in rows(decoded)]
    assert found == [(1, 5), (1, 5), (1, 5), (1, 5), (2, 7), (2, 256)]


def test_every_column_is_told_how_it_is_reversed() -> None:
    """Columns of one direction and columns with another end are columns, and none is both."""
    assert set(ONE_WAY) <= set(COLUMN)
    assert set(OTHER_END) <= set(COLUMN)
    assert not set(ONE_WAY) & set(OTHER_END)


@pytest.mark.parametrize(("said", "forth", "back"), [(0, 0, 0), (1, 1, 2), (2, 2, 1), (3, 3, 3)])
def test_the_direction_that_an_exporter_tells_stands(said: int, forth: int, back: int) -> None:
    """Where the initiator is behind the destination the first record is the reverse; other values hold for both."""
    decoded = Collector().feed(flows(IPFIX, [*ENDS, field(239, 1)], END + bytes([said])))
    assert nothing_wrong(decoded)
    found = {row["bytes"]: row["bi_flow_direction"] for row in rows(decoded)}
    assert found == {100: forth, 200: back}
