"""Options data: decoded by its own templates, and never taken for flows."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.decoders import Decoded
from tests.builders import (
    INTERFACE,
    SYSTEM,
    VARIABLE,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipfix_templates,
    number,
    template,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
    variable,
)
from tests.ingest.collector import EXPORTER, Collector, faults, nothing_wrong, rows

V9, IPFIX = 9, 10
STATISTICS = (field(41, 8), field(42, 8))
COUNTS = number(1000, 8) + number(30_000, 8)


def v9_options(*records: bytes, scopes: tuple[bytes, ...] = (field(SYSTEM, 4),)) -> bytes:
    """A v9 datagram with an options template of exporter statistics, and its data."""
    return v9_datagram(v9_options_templates(v9_options_template(257, scopes, STATISTICS)), data_set(257, *records))


def ipfix_options(*records: bytes, scopes: tuple[bytes, ...] = (field(149, 4),)) -> bytes:
    """An IPFIX message with an options template of exporter statistics, and its data."""
    return ipfix_message(
        ipfix_options_templates(ipfix_options_template(257, scopes, STATISTICS)), data_set(257, *records)
    )


def told(decoded: Decoded) -> list[dict[str, Any]]:
    """Options records as dictionaries, without the time of reception."""
    return [
        {name: value for name, value in row.items() if name != "time_received"}
        for options in decoded.options
        for row in options.batch.drop_columns(["time_received"]).to_pylist()
    ]


CASES = [
    pytest.param(v9_options(number(7, 4) + COUNTS), {"scope v9:1": 7}, id="v9"),
    pytest.param(v9_options(COUNTS, scopes=()), {}, id="v9, no scope"),
    pytest.param(v9_options(COUNTS, scopes=(field(SYSTEM, 0),)), {}, id="v9, a scope of no length"),
    pytest.param(
        v9_options(b"\0\1" + number(3, 4) + COUNTS, scopes=(field(SYSTEM, 2), field(INTERFACE, 4))),
        {"scope v9:1": 1, "scope v9:2": 3},
        id="v9, two scopes",
    ),
    pytest.param(ipfix_options(number(7, 4) + COUNTS), {"scope 0:149": 7}, id="ipfix"),
    pytest.param(ipfix_options(COUNTS, scopes=()), {}, id="ipfix, no scope"),
    pytest.param(
        ipfix_options(number(7, 4) + number(300, 2) + COUNTS, scopes=(field(149, 4), field(145, 2))),
        {"scope 0:149": 7, "scope 0:145": 300},
        id="ipfix, two scopes",
    ),
    pytest.param(
        ipfix_options(number(7, 4) + COUNTS, scopes=(field(77, 4, enterprise=32473),)),
        {"scope 32473:77": 7},
        id="ipfix, a scope of an enterprise",
    ),
]


@pytest.mark.parametrize(("payload", "scope"), CASES)
def test_options_data_is_decoded_and_is_no_flow(payload: bytes, scope: dict[str, int]) -> None:
    """Scope and options come as columns of their own, beside who sent them."""
    decoded = Collector().feed(payload)
    assert told(decoded) == [
        {"sampler_address": EXPORTER, "observation_domain_id": 0, **scope, "0:41": 1000, "0:42": 30_000}
    ]
    assert rows(decoded) == []
    assert decoded.options_records == 1
    assert nothing_wrong(decoded)


FLOW_FIELDS = (field(8, 4), field(12, 4), field(1, 4))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(
            v9_datagram(
                v9_options_templates(v9_options_template(257, (), FLOW_FIELDS)), data_set(257, bytes(range(12)))
            ),
            id="v9",
        ),
        pytest.param(
            ipfix_message(
                ipfix_options_templates(ipfix_options_template(257, (FLOW_FIELDS[0],), FLOW_FIELDS[1:])),
                data_set(257, bytes(range(12))),
            ),
            id="ipfix",
        ),
    ],
)
def test_options_with_the_elements_of_a_flow_are_options_all_the_same(payload: bytes) -> None:
    """What kind a record is, its template's set tells, not its elements."""
    decoded = Collector().feed(payload)
    assert rows(decoded) == []
    assert decoded.options_records == 1


@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_flows_and_options_may_share_a_datagram(protocol: int) -> None:
    """Several templates and sets of both kinds in any order: each is read by its own template."""
    if protocol == V9:
        payload = v9_datagram(
            v9_options_templates(v9_options_template(257, (field(SYSTEM, 4),), STATISTICS)),
            data_set(256, number(1, 4)),
            data_set(257, number(7, 4) + COUNTS, padding=0),
            v9_templates(template(256, field(1, 4))),
            data_set(256, number(2, 4)),
        )
    else:
        payload = ipfix_message(
            ipfix_options_templates(ipfix_options_template(257, (field(149, 4),), STATISTICS)),
            data_set(256, number(1, 4)),
            data_set(257, number(7, 4) + COUNTS),
            ipfix_templates(template(256, field(1, 4))),
            data_set(256, number(2, 4)),
        )
    decoded = Collector().feed(payload)
    assert [row["bytes"] for row in rows(decoded)] == [1, 2]
    assert decoded.options_records == 1
    assert nothing_wrong(decoded)
    # IPFIX counts the data records of options too, NetFlow v9 datagrams.
    assert [part.units.tolist() for part in decoded.heard] == ([[1]] if protocol == V9 else [[3]])
    assert [part.records.tolist() for part in decoded.heard] == [[2]]


@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_template_that_becomes_one_of_options_ends_the_flows(protocol: int) -> None:
    """An identifier that a flow template had and an options template takes over is read as options from then on."""
    collector = Collector()
    if protocol == V9:
        first = v9_datagram(v9_templates(template(257, field(1, 4))), data_set(257, number(1, 4)))
        then = v9_options(number(7, 4) + COUNTS)
    else:
        first = ipfix_message(ipfix_templates(template(257, field(1, 4))), data_set(257, number(1, 4)))
        then = ipfix_options(number(7, 4) + COUNTS)
    assert len(rows(collector.feed(first))) == 1
    decoded = collector.feed(then, then)
    assert rows(decoded) == []
    assert decoded.options_records == 2


VALUES = [
    pytest.param(field(82, 8), fixed("Te0/0/1", 8), "0:82", "Te0/0/1", id="interface name"),
    pytest.param(field(83, VARIABLE), variable("uplink"), "0:83", "uplink", id="interface description, variable"),
    pytest.param(field(236, 8), fixed("red", 8), "0:236", "red", id="VRF name"),
    pytest.param(field(96, 8), fixed("dns", 8), "0:96", "dns", id="application name"),
    pytest.param(field(34002, 8), fixed("Staff", 8), "0:34002", "Staff", id="security group name"),
    pytest.param(field(34, 4), number(100, 4), "0:34", 100, id="number"),
    pytest.param(field(302, 3), number(100, 3), "0:302", 100, id="number, reduced"),
    pytest.param(field(130, 4), number(0xC0000201, 4), "0:130", 0xC0000201, id="four octets are a number"),
    pytest.param(field(131, 16), bytes(range(16)), "0:131", bytes(range(16)), id="sixteen octets are octets"),
]


@pytest.mark.parametrize(("one", "content", "name", "expected"), VALUES)
def test_options_have_strings_numbers_and_octets(one: bytes, content: bytes, name: str, expected: object) -> None:
    """Names are strings, numbers up to 8 bytes numbers, and what is longer octets."""
    payload = v9_datagram(
        v9_options_templates(v9_options_template(257, (field(SYSTEM, 4),), (one, field(41, 4)))),
        data_set(257, number(1, 4) + content + number(9, 4)),
    )
    (row,) = told(Collector().feed(payload))
    assert row[name] == expected
    assert row["0:41"] == 9


def test_options_data_waits_for_its_template_too() -> None:
    """Options that come before their template are parked and decoded with it, and are still no flows."""
    collector = Collector()
    first = collector.feed(v9_datagram(data_set(257, number(7, 4) + COUNTS)))
    assert (first.options_records, collector.pipeline.parking.sets) == (0, 1)
    then = collector.feed(v9_options())
    assert (then.options_records, collector.pipeline.parking.sets) == (1, 0)
    assert rows(then) == []
    assert faults(then) == {}
