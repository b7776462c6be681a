"""Options data put to use: what a device tells of itself, in the records that it sends."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Decoded
from ingest.decoders.enrich import Fact, Kind
from ingest.options import OptionTables, interface_name, sampling_rate
from tests.builders import (
    CACHE,
    INTERFACE,
    LINE_CARD,
    SYSTEM,
    TEMPLATE,
    UNIX_SECONDS,
    VARIABLE,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
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
from tests.ingest.collector import EXPORTER, Collector, Row, nothing_wrong, one, rows

V9, IPFIX = 9, 10
BOTH = pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
CISCO: Final = 9
OTHER: Final = mapped("192.0.2.101")
OPTIONS, DATA = 300, 256
"""Ids of the options template and of the flows' template."""

Element = int | tuple[int, int]
Sent = Mapping[Element, bytes]
"""Elements, those of an enterprise with its number before, and what is sent of each; of v9 scopes, their types."""


def described(sent: Sent) -> tuple[bytes, ...]:
    """The fields of a template."""
    return tuple(
        field(element, len(content))
        if isinstance(element, int)
        else field(element[1], len(content), enterprise=element[0])
        for element, content in sent.items()
    )


def message(protocol: int, *sets: bytes, domain: int = 0) -> bytes:
    """A datagram of either protocol and of an observation domain."""
    return v9_datagram(*sets, source_id=domain) if protocol == V9 else ipfix_message(*sets, domain=domain)


def options(protocol: int, scope: Sent, option: Sent, *, template_id: int = OPTIONS) -> tuple[bytes, bytes]:
    """An options template and one record of it, a set each."""
    ends = described(scope), described(option)
    content = b"".join((*scope.values(), *option.values()))
    if protocol == V9:
        return v9_options_templates(v9_options_template(template_id, *ends)), data_set(template_id, content)
    return ipfix_options_templates(ipfix_options_template(template_id, *ends)), data_set(template_id, content)


def flow(protocol: int, sent: Sent, *, template_id: int = DATA) -> tuple[bytes, bytes]:
    """A template of flows and one record of it, a set each; the first field is the protocol."""
    whole: dict[Element, bytes] = {4: b"\x06", **sent}
    made = template(template_id, *described(whole))
    content = data_set(template_id, b"".join(whole.values()))
    return v9_templates(made) if protocol == V9 else ipfix_templates(made), content


def joined(protocol: int, told: tuple[bytes, bytes], sent: tuple[bytes, bytes]) -> Row:
    """The record, of an exporter that told of itself before."""
    collector = Collector()
    assert nothing_wrong(collector.feed(message(protocol, *told)))
    decoded = collector.feed(message(protocol, *sent))
    assert nothing_wrong(decoded)
    return one(decoded)


def u32(value: int) -> bytes:
    """A number of four bytes."""
    return number(value, 4)


SYSTEM_SCOPE: Final[Sent] = {SYSTEM: u32(0xC0000201)}
DOMAIN_SCOPE: Final[Sent] = {149: u32(0)}


# --- sampling: by what


SAMPLED = [
    pytest.param(V9, SYSTEM_SCOPE, {34: u32(100), 35: b"\1"}, {}, 100, id="v9, the system"),
    pytest.param(V9, {SYSTEM: b"\0\1"}, {34: u32(100)}, {}, 100, id="v9, the system in two bytes (Fortinet)"),
    pytest.param(V9, {}, {34: u32(100)}, {}, 100, id="v9, no scope"),
    pytest.param(V9, {LINE_CARD: u32(1)}, {34: u32(100)}, {}, 100, id="v9, a line card, whose domain it is"),
    pytest.param(V9, {CACHE: u32(1)}, {34: u32(100)}, {}, 100, id="v9, a cache"),
    pytest.param(IPFIX, {141: u32(1)}, {34: u32(100)}, {}, 100, id="ipfix, a line card"),
    pytest.param(V9, {SYSTEM: b""}, {35: b"\2", 34: u32(100)}, {}, 100, id="v9, a scope of no length (Juniper SRX)"),
    pytest.param(IPFIX, DOMAIN_SCOPE, {34: u32(100)}, {}, 100, id="ipfix, the observation domain"),
    pytest.param(IPFIX, {144: u32(2)}, {34: u32(1000)}, {}, 1000, id="ipfix, the exporting process (Juniper MX)"),
    pytest.param(IPFIX, {143: u32(2679)}, {305: u32(1), 306: u32(9)}, {}, 10, id="ipfix, the metering process"),
    pytest.param(
        V9,
        SYSTEM_SCOPE,
        {48: number(2, 2), 50: u32(1000), 49: b"\1", 84: fixed("edge", 32)},
        {48: number(2, 2)},
        1000,
        id="v9, a sampler (ASR 9000)",
    ),
    pytest.param(V9, SYSTEM_SCOPE, {48: b"\2", 34: u32(64)}, {48: u32(2)}, 64, id="v9, a sampler of another width"),
    pytest.param(V9, SYSTEM_SCOPE, {48: b"\2", 34: u32(64)}, {48: b"\3"}, None, id="v9, another sampler"),
    pytest.param(V9, SYSTEM_SCOPE, {48: b"\2", 34: u32(64)}, {}, None, id="v9, a sampler that the record has not"),
    pytest.param(
        IPFIX,
        {302: number(5, 8)},
        {304: number(3, 2), 309: u32(1), 310: u32(256), 305: u32(1), 84: fixed("s", 90)},
        {302: number(5, 8)},
        256,
        id="ipfix, a selector as scope (IOS-XR)",
    ),
    pytest.param(IPFIX, DOMAIN_SCOPE, {302: b"\5", 34: u32(7)}, {302: u32(5)}, 7, id="ipfix, a selector as option"),
    pytest.param(IPFIX, {302: b"\5"}, {34: u32(7)}, {302: b"\6"}, None, id="ipfix, another selector"),
    pytest.param(
        IPFIX, {302: b"\5"}, {34: u32(7)}, {48: b"\5"}, 7, id="ipfix, a selector that the record calls sampler"
    ),
    pytest.param(
        IPFIX,
        {302: number(2**64 - 1, 8)},
        {34: u32(7)},
        {302: number(2**64 - 1, 8)},
        7,
        id="ipfix, the largest selector",
    ),
    pytest.param(
        IPFIX,
        {149: u32(0), 145: number(DATA, 2)},
        {304: number(1, 2), 305: u32(1), 306: u32(999)},
        {},
        1000,
        id="ipfix, a template (Nokia)",
    ),
    pytest.param(IPFIX, {145: number(999, 2)}, {34: u32(7)}, {}, None, id="ipfix, another template"),
    pytest.param(V9, {TEMPLATE: number(DATA, 2)}, {34: u32(7)}, {}, 7, id="v9, a template"),
    pytest.param(V9, {TEMPLATE: number(999, 2)}, {34: u32(7)}, {}, None, id="v9, another template"),
    pytest.param(V9, {INTERFACE: u32(3)}, {34: u32(7), 35: b"\1"}, {10: number(3, 2)}, 7, id="v9, an interface"),
    pytest.param(V9, {INTERFACE: u32(3)}, {34: u32(7)}, {10: u32(4), 14: u32(3)}, None, id="v9, another interface"),
    pytest.param(V9, {INTERFACE: u32(3)}, {34: u32(7)}, {}, None, id="v9, an interface that the record has not"),
    pytest.param(IPFIX, {10: u32(3)}, {34: u32(7)}, {10: u32(3)}, 7, id="ipfix, an interface"),
    pytest.param(IPFIX, {10: u32(3)}, {34: u32(7)}, {10: u32(4)}, None, id="ipfix, another interface"),
    pytest.param(
        V9, {INTERFACE: u32(3)}, {34: u32(7)}, {10: u32(4), 14: u32(3), 61: b"\1"}, 7, id="v9, the interface it left by"
    ),
    pytest.param(
        V9, {INTERFACE: u32(3)}, {34: u32(7)}, {10: u32(3), 14: u32(4), 61: b"\1"}, None, id="v9, not where it entered"
    ),
    pytest.param(
        IPFIX, {14: u32(3)}, {34: u32(7)}, {10: u32(4), 14: u32(3), 61: b"\1"}, 7, id="ipfix, an output interface"
    ),
    pytest.param(IPFIX, {302: b"\5"}, {48: b"\1", 34: u32(7)}, {48: b"\1"}, 7, id="ipfix, a selector and a sampler"),
    pytest.param(IPFIX, {302: b"\5"}, {48: b"\1", 34: u32(7)}, {302: b"\5"}, 7, id="ipfix, the same by the selector"),
    *(
        pytest.param(IPFIX, {element: u32(3)}, {34: u32(7)}, {element: u32(3)}, None, id=f"ipfix, of scope {element}")
        for element in (234, 252, 58)
    ),
]


@pytest.mark.parametrize(("protocol", "scope", "option", "sent", "expected"), SAMPLED)
def test_a_rate_is_joined_by_its_scope(
    protocol: int, scope: Sent, option: Sent, sent: Sent, expected: int | None
) -> None:
    """What a rate is told of, in the scope or behind it, is what it holds for; a rate of another holds for nothing."""
    assert joined(protocol, options(protocol, scope, option), flow(protocol, sent)).get("sampling_rate") == expected


def test_options_may_tell_of_another_domain_than_that_of_their_message() -> None:
    """The domain in the scope is what a rate and a beginning hold for; 0 there is the message's own."""
    collector = Collector()
    collector.feed(
        *(
            message(IPFIX, *options(IPFIX, {149: u32(domain)}, {34: u32(rate)}), domain=9)
            for domain, rate in ((5, 100), (6, 200), (0, 300))
        )
    )
    rates = [one(collector.feed(message(IPFIX, *flow(IPFIX, {}), domain=domain))) for domain in (5, 6, 9, 7)]
    assert [row.get("sampling_rate") for row in rates] == [100, 200, 300, None]


@pytest.mark.parametrize("content", [number(2**32, 8), number(5, 9), b"\5" * 20], ids=["large", "odd", "octets"])
def test_a_scope_that_is_no_domain_leaves_that_of_the_message(content: bytes) -> None:
    """Whatever length and value an exporter gives to element 149."""
    told = options(IPFIX, {149: content}, {34: u32(100)})
    assert joined(IPFIX, told, flow(IPFIX, {}))["sampling_rate"] == 100


NEAREST = [
    pytest.param({34: u32(5), 302: b"\1"}, 5, id="the record's own"),
    pytest.param({34: u32(0), 302: b"\1"}, 10, id="its selector's, where its own is 0"),
    pytest.param({302: b"\1"}, 10, id="its selector's"),
    pytest.param({302: b"\2", 10: u32(3)}, 20, id="its template's, of a selector that is not known"),
    pytest.param({10: u32(3)}, 20, id="its template's"),
]


@pytest.mark.parametrize(("sent", "expected"), NEAREST)
def test_the_nearest_of_several_rates_counts(sent: Sent, expected: int) -> None:
    """An exporter may tell of its domain, its interfaces, its templates and its selectors, in any order."""
    tables = [
        options(IPFIX, DOMAIN_SCOPE, {34: u32(40)}, template_id=300),
        options(IPFIX, {10: u32(3)}, {34: u32(30)}, template_id=301),
        options(IPFIX, {145: number(DATA, 2)}, {34: u32(20)}, template_id=302),
        options(IPFIX, {302: b"\1"}, {34: u32(10)}, template_id=303),
    ]
    for order in (tables, tables[::-1]):
        collector = Collector()
        for table in order:
            collector.feed(message(IPFIX, *table))
        assert one(collector.feed(message(IPFIX, *flow(IPFIX, sent))))["sampling_rate"] == expected
        by_interface = flow(IPFIX, {10: u32(3)}, template_id=257)
        assert one(collector.feed(message(IPFIX, *by_interface)))["sampling_rate"] == 30
        by_domain = flow(IPFIX, {10: u32(4)}, template_id=257)
        assert one(collector.feed(message(IPFIX, *by_domain)))["sampling_rate"] == 40


# --- sampling: how much

HALF, THIRD = struct.pack("!d", 0.5), struct.pack("!f", 1 / 3)

RATES = [
    pytest.param(
        {309: u32(1), 310: u32(256), 305: u32(1), 306: u32(9), 311: HALF, 50: u32(3), 34: u32(4)}, 256, id="all"
    ),
    pytest.param({305: u32(1), 306: u32(9), 311: HALF, 50: u32(3), 34: u32(4)}, 10, id="305 and 306 before 311"),
    pytest.param({311: HALF, 50: u32(3), 34: u32(4)}, 2, id="311 before 50"),
    pytest.param({50: u32(3), 34: u32(4)}, 3, id="50 before 34"),
    pytest.param({34: u32(4)}, 4, id="34"),
    pytest.param({305: u32(1)}, None, id="305 alone proves nothing"),
    pytest.param({305: u32(256)}, None, id="305 alone proves nothing, whatever it says"),
    pytest.param({306: u32(99)}, None, id="306 alone"),
    pytest.param({305: u32(1), 34: u32(100)}, 100, id="305 alone, beside 34"),
    pytest.param({309: u32(1), 34: u32(100)}, 100, id="309 alone, beside 34"),
    pytest.param({310: u32(500), 34: u32(100)}, 100, id="310 alone, beside 34"),
    pytest.param({309: u32(0), 310: u32(256), 34: u32(100)}, 100, id="309 of 0"),
    pytest.param({309: u32(1), 310: u32(0), 34: u32(100)}, 100, id="310 of 0"),
    pytest.param({309: u32(300), 310: u32(100), 34: u32(9)}, 9, id="more taken than there are"),
    pytest.param({305: u32(0), 306: u32(99), 50: u32(7)}, 7, id="305 of 0"),
    pytest.param({305: u32(1), 306: u32(0)}, 1, id="nothing skipped"),
    pytest.param({309: u32(3), 310: u32(1000)}, 333, id="rounded down"),
    pytest.param({309: u32(3), 310: u32(1001)}, 334, id="rounded up"),
    pytest.param({305: u32(2), 306: u32(1998)}, 1000, id="2 of 2,000"),
    pytest.param({311: THIRD}, 3, id="311 in four bytes"),
    pytest.param({311: struct.pack("!d", 1.0)}, 1, id="311 of one"),
    pytest.param({34: u32(0)}, None, id="34 of 0 is unknown"),
    pytest.param({50: u32(0), 34: u32(9)}, 9, id="50 of 0"),
    pytest.param({50: u32(0), 34: u32(0)}, None, id="nothing but 0"),
    pytest.param({34: number(100, 1)}, 100, id="34 in one byte"),
    pytest.param({34: number(2**32 - 1, 8)}, 2**32 - 1, id="the largest rate"),
    pytest.param({34: number(2**32, 8)}, None, id="a rate too large"),
    pytest.param({309: number(1, 8), 310: number(2**64 - 1, 8)}, None, id="a population too large"),
    pytest.param({305: number(1, 8), 306: number(2**64 - 1, 8)}, None, id="a space too large"),
    *(
        pytest.param({311: struct.pack("!d", share), 34: u32(9)}, 9, id=f"311 of {share}")
        for share in (0.0, -0.5, 1.5, float("nan"), float("inf"), -5e-324)
    ),
    *(
        pytest.param({311: struct.pack("!d", share), 34: u32(9)}, None, id=f"311 of {share}, a rate too large")
        for share in (5e-324, 2.0**-33)
    ),
    pytest.param({311: b"\xff" * 5, 34: u32(9)}, 9, id="311 in five bytes"),
]


@pytest.mark.parametrize(("option", "expected"), RATES)
@BOTH
def test_a_rate_is_told_in_several_ways(protocol: int, option: Sent, expected: int | None) -> None:
    """The first way that is there, and does not tell 0, counts; 0 is not known, and an interval alone tells nothing."""
    scope = SYSTEM_SCOPE if protocol == V9 else DOMAIN_SCOPE
    assert joined(protocol, options(protocol, scope, option), flow(protocol, {})).get("sampling_rate") == expected


@pytest.mark.parametrize(("option", "expected"), RATES)
def test_a_record_that_tells_its_own_rate_tells_it_in_the_same_ways(option: Sent, expected: int | None) -> None:
    """The elements mean in a record what they mean in options."""
    assert one(Collector().feed(message(IPFIX, *flow(IPFIX, option)))).get("sampling_rate") == expected


@BOTH
@pytest.mark.parametrize("share", ["7f800001", "7fc00000", "ff800000"], ids=["signalling", "quiet", "infinite"])
def test_a_probability_that_is_no_number_is_no_rate(protocol: int, share: str) -> None:
    """Neither of options data nor of a record, and nothing warns of it."""
    content = bytes.fromhex(share)
    told = options(protocol, SYSTEM_SCOPE if protocol == V9 else DOMAIN_SCOPE, {311: content})
    records: tuple[Sent, ...] = ({}, {311: content})
    for sent in records:
        assert "sampling_rate" not in joined(protocol, told, flow(protocol, sent))


@given(
    st.dictionaries(
        st.sampled_from(["0:34", "0:50", "0:305", "0:306", "0:309", "0:310", "0:311", "0:302"]),
        st.one_of(st.integers(0, 2**64 - 1), st.floats(), st.none(), st.binary(max_size=4)),
    )
)
@looked_at(quick=200, long=5_000)
def test_no_value_of_a_rate_raises(row: dict[str, Any]) -> None:
    """Whatever a device says, the rate is a number or not known."""
    rate = sampling_rate(row)
    assert rate is None or rate >= 1


# --- names


def named(protocol: int, scope: Sent, option: Sent, sent: Sent) -> Row:
    """The names that a record has, after the exporter told of them."""
    row = joined(protocol, options(protocol, scope, option), flow(protocol, sent))
    return {name: value for name, value in row.items() if name.endswith("_name")}


LINKS: Final[Sent] = {10: u32(3), 14: u32(4)}
NAME: Final = fixed("Te0/0/0/3", 24)

INTERFACES = [
    pytest.param(V9, SYSTEM_SCOPE, {10: u32(3), 82: NAME}, "Te0/0/0/3", id="v9, as options"),
    pytest.param(V9, {INTERFACE: u32(3)}, {82: NAME}, "Te0/0/0/3", id="v9, as scope"),
    pytest.param(V9, SYSTEM_SCOPE, {10: number(3, 2), 82: NAME}, "Te0/0/0/3", id="v9, in two bytes"),
    pytest.param(
        V9, SYSTEM_SCOPE, {10: u32(3), 83: fixed("TenGigE0_0_0_3", 64)}, "TenGigE0_0_0_3", id="ASR 9000: 83 alone"
    ),
    pytest.param(IPFIX, {10: u32(3)}, {82: NAME}, "Te0/0/0/3", id="ipfix, as scope"),
    pytest.param(IPFIX, DOMAIN_SCOPE, {10: u32(3), 82: NAME}, "Te0/0/0/3", id="ipfix, as options"),
    pytest.param(
        IPFIX,
        {10: u32(3), 14: u32(3)},
        {82: fixed("TenGigE0_0_0_3", 64), 83: fixed("TenGigE0/0/0/3", 64)},
        "TenGigE0/0/0/3",
        id="IOS-XR: the name is in 83",
    ),
    pytest.param(IPFIX, {14: u32(3)}, {82: NAME}, "Te0/0/0/3", id="ipfix, the other side's number"),
    pytest.param(
        IPFIX, {10: u32(3)}, {82: NAME, 83: fixed("to the core", 64)}, "Te0/0/0/3", id="a name and a description"
    ),
    pytest.param(IPFIX, {10: u32(3)}, {82: fixed("", 24), 83: fixed("to the core", 64)}, "to the core", id="no name"),
    pytest.param(IPFIX, {10: u32(3)}, {82: fixed("", 24)}, None, id="nothing but filling"),
    pytest.param(IPFIX, {10: u32(5)}, {82: NAME}, None, id="another interface"),
    pytest.param(V9, SYSTEM_SCOPE, {58: number(3, 2), 82: NAME}, None, id="a VLAN's name is no interface's (WLC)"),
]


@pytest.mark.parametrize(("protocol", "scope", "option", "expected"), INTERFACES)
def test_interfaces_have_names(protocol: int, scope: Sent, option: Sent, expected: str | None) -> None:
    """A table of names is joined by ifIndex, for both sides of a record."""
    assert named(protocol, scope, option, LINKS) == ({} if expected is None else {"in_if_name": expected})
    swapped = named(protocol, scope, option, {10: number(4, 2), 14: number(3, 2)})
    assert swapped == ({} if expected is None else {"out_if_name": expected})


@pytest.mark.parametrize(
    ("name", "description", "expected"),
    [
        pytest.param("Gi0_0_0_1", "Gi0/0/0/1", "Gi0/0/0/1", id="the same with underscores for slashes"),
        pytest.param("a_b_1", "a_b/1", "a_b/1", id="underscores of its own"),
        pytest.param("Gi0/0/0/1", "Gi0/0/0/1", "Gi0/0/0/1", id="twice the same"),
        pytest.param("Gi0_0_0_1", "uplink", "Gi0_0_0_1", id="another description"),
        pytest.param("Gi0_0_0_1", None, "Gi0_0_0_1", id="a name alone"),
        pytest.param(None, "Gi0_0_0_1", "Gi0_0_0_1", id="a description alone"),
        pytest.param(None, None, None, id="neither"),
        pytest.param(7, b"x", None, id="no text"),
    ],
)
def test_the_name_of_an_interface_out_of_two_elements(name: object, description: object, expected: str | None) -> None:
    """82 is the name and 83 its description, unless 83 is the name that 82 mangles."""
    assert interface_name(name, description) == expected


VRFS: Final[Sent] = {234: u32(0x60000001), 235: u32(7)}
TABLES = [
    pytest.param(
        IPFIX,
        {234: u32(0x60000001)},
        {236: fixed("red", 32), 90: bytes(8)},
        VRFS,
        {"ingress_vrf_name": "red"},
        id="VRF, 234",
    ),
    pytest.param(IPFIX, {235: u32(7)}, {236: fixed("red", 32)}, VRFS, {"egress_vrf_name": "red"}, id="VRF, 235"),
    pytest.param(
        IPFIX,
        {234: u32(7), 235: u32(7)},
        {236: fixed("red", 32), 90: bytes(8), 210: bytes(2)},
        {234: u32(7), 235: u32(7)},
        {"ingress_vrf_name": "red", "egress_vrf_name": "red"},
        id="VRF, both as scope (Huawei)",
    ),
    pytest.param(
        V9,
        SYSTEM_SCOPE,
        {234: u32(7), 236: fixed("**nVSatellite", 32)},
        VRFS,
        {"egress_vrf_name": "**nVSatellite"},
        id="VRF, as options (ASR 9000)",
    ),
    pytest.param(
        V9,
        SYSTEM_SCOPE,
        {95: bytes.fromhex("0d0001c5"), 96: fixed("ssl", 24), 94: fixed("Secure HTTP", 55)},
        {95: bytes.fromhex("0d0001c5")},
        {"application_name": "ssl"},
        id="application (NBAR)",
    ),
    pytest.param(
        IPFIX,
        {95: bytes.fromhex("0d0001c5")},
        {96: fixed("ssl", 24)},
        {95: bytes.fromhex("0d0001c5")},
        {"application_name": "ssl"},
        id="application, as scope",
    ),
    pytest.param(
        V9,
        {SYSTEM: b"\0\1"},
        {
            95: bytes.fromhex("140000304400003e87"),
            96: fixed("HTTPS.BROWSER", 64),
            94: fixed("", 64),
            372: fixed("", 32),
        },
        {95: bytes.fromhex("140000304400003e87")},
        {"application_name": "HTTPS.BROWSER"},
        id="application of nine bytes (Fortinet)",
    ),
    pytest.param(
        V9,
        SYSTEM_SCOPE,
        {95: bytes.fromhex("0d0001c5"), 96: fixed("ssl", 24)},
        {95: bytes.fromhex("0d0001c6")},
        {},
        id="another application",
    ),
    pytest.param(
        V9,
        SYSTEM_SCOPE,
        {95: bytes.fromhex("0d0001c5"), 94: fixed("Secure HTTP", 55)},
        {95: bytes.fromhex("0d0001c5")},
        {},
        id="a description of an application is no name",
    ),
]


@pytest.mark.parametrize(("protocol", "scope", "option", "sent", "expected"), TABLES)
def test_numbers_have_the_names_of_their_tables(
    protocol: int, scope: Sent, option: Sent, sent: Sent, expected: Row
) -> None:
    """VRFs and applications are named by tables of many forms."""
    assert named(protocol, scope, option, sent) == expected


TAGS: Final[list[tuple[int, Element]]] = [
    (V9, 34000), (V9, 34001), (IPFIX, (CISCO, 1232)), (IPFIX, (CISCO, 1233)), (IPFIX, (CISCO, 34000 - 0x8000)),
]  # fmt: skip
TAG_NAMES: Final[dict[int, list[Element]]] = {V9: [34002, 34003], IPFIX: [(CISCO, 1234), (CISCO, 1235)]}
GROUPS = [
    pytest.param(protocol, tag, name, as_scope, id=f"{'v9' if protocol == V9 else 'ipfix'} {tag} {name} {as_scope}")
    for protocol, tag in TAGS
    for name in TAG_NAMES[protocol]
    for as_scope in ("scope", "option")
    if protocol == IPFIX or as_scope == "option"
]


@pytest.mark.parametrize(("protocol", "tag", "name", "as_scope"), GROUPS)
def test_one_tag_and_a_name_beside_it_name_a_group(protocol: int, tag: Element, name: Element, as_scope: str) -> None:
    """No document tells how the table looks, so any record of options with a tag and a name is a row of it."""
    scope: Sent = {tag: number(10, 2)} if as_scope == "scope" else (SYSTEM_SCOPE if protocol == V9 else DOMAIN_SCOPE)
    option: Sent = {**({} if as_scope == "scope" else {tag: number(10, 2)}), name: fixed("Employees", 32)}
    source, destination = (34000, 34001) if protocol == V9 else ((CISCO, 1232), (CISCO, 1233))
    assert named(protocol, scope, option, {source: number(10, 2), destination: number(11, 2)}) == {
        "src_sgt_name": "Employees"
    }
    assert named(protocol, scope, option, {source: u32(0), destination: u32(10)}) == {"dst_sgt_name": "Employees"}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        pytest.param({34000: number(0, 2), 34002: fixed("Unknown", 32)}, {"src_sgt_name": "Unknown"}, id="group 0"),
        pytest.param({34000: number(0, 2), 34001: number(1, 2), 34002: fixed("x", 8)}, {}, id="two tags"),
        pytest.param({34000: number(10, 2)}, {}, id="no name"),
        pytest.param({34002: fixed("x", 8)}, {}, id="no tag"),
        pytest.param({34000: number(0, 2), 34002: fixed("", 8)}, {}, id="an empty name"),
        pytest.param({34000: bytes(12), 34002: fixed("x", 8)}, {}, id="a tag that is no number"),
    ],
)
def test_what_is_a_row_of_the_table_of_groups(option: Sent, expected: Row) -> None:
    """Exactly one tag, and a name."""
    assert named(V9, SYSTEM_SCOPE, option, {34000: number(0, 2), 34001: number(1, 2)}) == expected


def test_a_name_in_the_record_stands_over_the_table() -> None:
    """What a record says of itself is nearer to it; what it leaves empty the table fills."""
    table = options(V9, SYSTEM_SCOPE, {34000: number(10, 2), 34002: fixed("table", 16)})
    for said, expected in (("record", "record"), ("", "table")):
        sent = flow(V9, {34000: number(10, 2), 34002: fixed(said, 16), 34001: number(10, 2)})
        row = joined(V9, table, sent)
        assert (row["src_sgt_name"], row["dst_sgt_name"]) == (expected, "table")
    table = options(V9, SYSTEM_SCOPE, {95: b"\x0d\0\0\1", 96: fixed("table", 16)})
    for said, expected in (("record", "record"), ("", "table")):
        row = joined(V9, table, flow(V9, {95: b"\x0d\0\0\1", 96: fixed(said, 16)}))
        assert row["application_name"] == expected


def test_what_flows_back_has_the_names_exchanged() -> None:
    """In the second record of a flow of two directions, what was the input is the output, its name with it."""
    collector = Collector()
    collector.feed(
        message(IPFIX, *options(IPFIX, {10: u32(3)}, {82: NAME})),
        message(IPFIX, *options(IPFIX, {234: u32(7)}, {236: fixed("red", 8)}, template_id=301)),
    )
    sent = {**LINKS, 234: u32(7), 231: u32(100), 232: u32(200)}
    forth, back = rows(collector.feed(message(IPFIX, *flow(IPFIX, sent))))
    assert (forth["in_if_name"], forth.get("out_if_name")) == ("Te0/0/0/3", None)
    assert (back.get("in_if_name"), back["out_if_name"]) == (None, "Te0/0/0/3")
    assert (forth["ingress_vrf_name"], back["egress_vrf_name"]) == ("red", "red")


def test_names_may_be_of_variable_length() -> None:
    """IPFIX may send texts with their length before them, and many rows in one set."""
    described_ = ipfix_options_template(OPTIONS, (field(10, 4),), (field(82, VARIABLE), field(83, VARIABLE)))
    names = ["eth0", "a" * 300, "", "Zürich"]
    records = (u32(at) + variable(name) + variable("") for at, name in enumerate(names))
    collector = Collector()
    collector.feed(message(IPFIX, ipfix_options_templates(described_), data_set(OPTIONS, *records)))
    sent = template(DATA, field(10, 4))
    decoded = collector.feed(message(IPFIX, ipfix_templates(sent), data_set(DATA, *(u32(at) for at in range(5)))))
    assert [row.get("in_if_name") for row in rows(decoded)] == ["eth0", "a" * 300, None, "Zürich", None]


# --- uptimes of IPFIX

BOOTED_MS: Final = (UNIX_SECONDS - 86_400) * 1000
UPTIMES: Final[Sent] = {22: u32(86_000_000), 21: u32(86_399_000)}
BOOT_SCOPES = [
    pytest.param(DOMAIN_SCOPE, {160: number(BOOTED_MS, 8)}, id="the observation domain (IOS-XR)"),
    pytest.param({144: u32(2)}, {41: u32(1), 160: number(BOOTED_MS, 8)}, id="the exporting process (Juniper MX)"),
    pytest.param({160: number(BOOTED_MS, 8), 42: u32(1)}, {144: u32(0)}, id="itself (YAF)"),
]


@pytest.mark.parametrize(("scope", "option"), BOOT_SCOPES)
def test_uptimes_count_from_when_the_device_came_up(scope: Sent, option: Sent) -> None:
    """IPFIX tells flow times by uptime, and when that began in options alone."""
    row = joined(IPFIX, options(IPFIX, scope, option), flow(IPFIX, UPTIMES))
    assert row["time_flow_start"] == (BOOTED_MS + 86_000_000) * 10**6
    assert row["time_flow_end"] == (BOOTED_MS + 86_399_000) * 10**6


def test_uptimes_before_it_is_known_when_they_began() -> None:
    """The time of the export is all there is; of two domains each has its own beginning."""
    table = options(IPFIX, DOMAIN_SCOPE, {160: number(BOOTED_MS, 8)})
    collector = Collector()
    early = one(collector.feed(message(IPFIX, *flow(IPFIX, UPTIMES), domain=1)))
    assert early["time_flow_start"] == early["time_flow_end"] == UNIX_SECONDS * 10**9
    collector.feed(message(IPFIX, *table, domain=1))
    late = one(collector.feed(message(IPFIX, *flow(IPFIX, UPTIMES), domain=1)))
    assert late["time_flow_start"] == (BOOTED_MS + 86_000_000) * 10**6
    other = one(collector.feed(message(IPFIX, *flow(IPFIX, UPTIMES), domain=2)))
    assert other["time_flow_start"] == UNIX_SECONDS * 10**9
    both = collector.feed(*(message(IPFIX, *flow(IPFIX, UPTIMES), domain=domain) for domain in (1, 2)))
    assert sorted(row["time_flow_start"] for row in rows(both)) == [
        (BOOTED_MS + 86_000_000) * 10**6,
        UNIX_SECONDS * 10**9,
    ]


@pytest.mark.parametrize("booted", [0, 2**62 - 1, 2**62, 2**63, 2**64 - 1])
def test_a_beginning_that_cannot_be_true_is_survived(booted: int) -> None:
    """Times out of all range are null and counted, or not believed; nothing raises and no record is lost."""
    collector = Collector()
    collector.feed(message(IPFIX, *options(IPFIX, DOMAIN_SCOPE, {160: number(booted, 8)})))
    assert len(rows(collector.feed(message(IPFIX, *flow(IPFIX, UPTIMES))))) == 1


def test_an_uptime_of_v9_counts_from_its_header() -> None:
    """NetFlow v9 says its uptime in each datagram: what options say of it changes nothing."""
    sent = flow(V9, {22: u32(1000), 21: u32(2000)})
    alone = one(Collector().feed(message(V9, *sent)))
    row = joined(V9, options(V9, SYSTEM_SCOPE, {160: number(BOOTED_MS, 8)}), sent)
    assert row["time_flow_start"] == alone["time_flow_start"]


# --- whose, and when


def test_names_are_an_exporters_and_rates_are_a_domains() -> None:
    """Interfaces are the device's whatever domain tells of them; a rate holds in its own domain. Neither is another's."""
    collector = Collector()
    told = (
        *options(V9, SYSTEM_SCOPE, {10: u32(3), 82: NAME}, template_id=300),
        *options(V9, SYSTEM_SCOPE, {34: u32(100)}, template_id=301),
        *options(V9, SYSTEM_SCOPE, {48: b"\2", 34: u32(7)}, template_id=302),
    )
    collector.feed(message(V9, *told, domain=5))

    def asked(domain: int, sent: Sent, source: bytes = EXPORTER) -> tuple[int | None, str | None]:
        row = one(collector.feed(message(V9, *flow(V9, {10: u32(3), **sent}), domain=domain), source=source))
        return row.get("sampling_rate"), row.get("in_if_name")

    assert asked(5, {}) == (100, "Te0/0/0/3")
    assert asked(5, {48: b"\2"}) == (7, "Te0/0/0/3")
    assert asked(6, {}) == (None, "Te0/0/0/3")
    assert asked(6, {48: b"\2"}) == (None, "Te0/0/0/3")
    assert asked(5, {}, source=OTHER) == (None, None)


def test_a_batch_of_several_exporters_and_domains() -> None:
    """Records that share a layout have each the rate and the names of their own exporter and domain."""
    collector = Collector()
    for source, shift in ((EXPORTER, 0), (OTHER, 10)):
        for domain in (1, 2):
            rate = options(IPFIX, DOMAIN_SCOPE, {34: u32(100 * domain + shift)})
            name = options(IPFIX, {10: u32(3)}, {82: fixed(f"eth{shift}", 8)}, template_id=301)
            collector.feed(message(IPFIX, *rate, *name, domain=domain), source=source)
    payloads = [message(IPFIX, *flow(IPFIX, {10: u32(3)}), domain=domain) for domain in (1, 2, 3)]
    mine, others = collector.feed(*payloads), collector.feed(*payloads, source=OTHER)
    found = [(row.get("sampling_rate"), row["in_if_name"]) for row in rows(mine) + rows(others)]
    assert found == [(100, "eth0"), (200, "eth0"), (None, "eth0"), (110, "eth10"), (210, "eth10"), (None, "eth10")]


ORDERS = [
    pytest.param([["told"], ["sent"]], True, id="options, then data"),
    pytest.param([["sent"], ["told"]], False, id="data, then options"),
    pytest.param([["told", "sent"]], True, id="options before data in a batch"),
    pytest.param([["sent", "told"]], True, id="data before options in a batch"),
    pytest.param([["told sent"]], True, id="options before data in a datagram"),
    pytest.param([["sent told"]], True, id="data before options in a datagram"),
]


@pytest.mark.parametrize(("batches", "expected"), ORDERS)
@BOTH
def test_what_was_told_by_then_is_joined(protocol: int, batches: list[list[str]], expected: bool) -> None:
    """A record has what is known when it is decoded; it is not held back for what may yet be told."""
    scope = SYSTEM_SCOPE if protocol == V9 else DOMAIN_SCOPE
    sets = {
        "told": options(protocol, scope, {34: u32(100), 10: u32(3), 82: NAME}),
        "sent": flow(protocol, {10: u32(3)}),
    }
    collector = Collector()
    found: list[Row] = []
    for batch in batches:
        payloads = [message(protocol, *(part for name in names.split() for part in sets[name])) for names in batch]
        found.extend(rows(collector.feed(*payloads)))
        assert collector.pipeline.parking.sets == 0
    (row,) = found
    assert ("sampling_rate" in row, "in_if_name" in row) == (expected, expected)


def test_options_data_may_come_before_its_template() -> None:
    """It waits as data does, and is joined from then on; so does data that waited for a template of its own."""
    (described_, told), (template_, sent) = options(V9, SYSTEM_SCOPE, {34: u32(100)}), flow(V9, {})
    collector = Collector()
    assert collector.feed(message(V9, told)).facts == []
    assert one(collector.feed(message(V9, template_, sent))).get("sampling_rate") is None
    assert len(collector.feed(message(V9, described_)).facts) == 1
    assert one(collector.feed(message(V9, sent)))["sampling_rate"] == 100
    collector = Collector()
    collector.feed(message(V9, sent))
    collector.feed(message(V9, described_, told))
    assert one(collector.feed(message(V9, template_)))["sampling_rate"] == 100


def test_what_is_told_anew_counts_from_then_on() -> None:
    """A name or a rate that has changed is joined to the records that follow."""
    collector = Collector()
    sent = message(V9, *flow(V9, {10: u32(3)}))
    for rate, name in ((100, "old"), (200, "new")):
        collector.feed(message(V9, *options(V9, SYSTEM_SCOPE, {34: u32(rate), 10: u32(3), 82: fixed(name, 8)})))
        row = one(collector.feed(sent))
        assert (row["sampling_rate"], row["in_if_name"]) == (rate, name)


def test_what_is_told_as_it_was_before_counts_again() -> None:
    """A device that goes back to an earlier name or rate is believed, though it has told the very same bytes before."""
    collector = Collector()
    sent = message(V9, *flow(V9, {10: u32(3)}))
    tables = [
        message(V9, *options(V9, SYSTEM_SCOPE, {34: u32(rate), 10: u32(3), 82: fixed(name, 8)}))
        for rate, name in ((100, "one"), (200, "other"))
    ]
    for table, known in zip(tables * 3, [(100, "one"), (200, "other")] * 3, strict=True):
        assert len(collector.feed(table).facts) == 2
        assert collector.feed(table, table).facts == []
        row = one(collector.feed(sent))
        assert (row["sampling_rate"], row["in_if_name"]) == known


def test_of_what_is_told_in_one_batch_the_last_counts() -> None:
    """Also when the last is what was told before all of it."""
    collector = Collector()
    sent = message(V9, *flow(V9, {10: u32(3)}))
    old, new = (
        message(V9, *options(V9, SYSTEM_SCOPE, {34: u32(rate), 10: u32(3), 82: fixed(name, 8)}))
        for rate, name in ((100, "old"), (200, "new"))
    )
    for batch, known in (([old], (100, "old")), ([new, old], (100, "old")), ([old, new], (200, "new"))):
        collector.feed(*batch)
        row = one(collector.feed(sent))
        assert (row["sampling_rate"], row["in_if_name"]) == known


def test_what_was_told_elsewhere_meanwhile_is_told_again_here() -> None:
    """Another worker may have heard another name since: the same table then counts as new."""
    collector = Collector()
    table = message(V9, *options(V9, SYSTEM_SCOPE, {10: u32(3), 82: fixed("here", 8)}))
    (fact,) = collector.feed(table).facts
    collector.pipeline.options.learn([replace(fact, value="elsewhere")])
    assert one(collector.feed(message(V9, *flow(V9, {10: u32(3)}))))["in_if_name"] == "elsewhere"
    assert collector.feed(table).facts == [fact]
    assert one(collector.feed(message(V9, *flow(V9, {10: u32(3)}))))["in_if_name"] == "here"


def test_a_row_for_which_there_was_no_room_is_counted_each_time() -> None:
    """What was refused is not taken for known when it comes again."""
    tables = OptionTables(exporter_limit=1)
    described_ = v9_options_template(OPTIONS, (), (field(10, 4), field(82, 8)))
    records = (u32(at) + fixed(f"eth{at}", 8) for at in range(3))
    (data,) = Collector().feed(message(V9, v9_options_templates(described_), data_set(OPTIONS, *records))).options
    assert len(tables.read([data])) == 1
    for times in range(2, 4):
        assert tables.refused == 2 * (times - 1)
        assert tables.read([data]) == []
    assert tables.refused == 6


def test_a_rate_that_is_not_known_any_more_takes_nothing_back() -> None:
    """0 is not a rate: what was told before it stands."""
    collector = Collector()
    for rate in (100, 0):
        collector.feed(message(V9, *options(V9, SYSTEM_SCOPE, {34: u32(rate)})))
    assert one(collector.feed(message(V9, *flow(V9, {}))))["sampling_rate"] == 100


# --- what is kept


def told(decoded: Decoded) -> list[tuple[Kind, int | str, int | str]]:
    """What a batch told that was new: of what kind, of what, and what it is."""
    return [(fact.kind, fact.about, fact.value) for fact in decoded.facts]


def test_what_is_new_or_changed_is_told() -> None:
    """A repetition tells nothing: what goes to the other workers is what they do not know."""
    collector = Collector()

    def fed(rate: int, name: str) -> list[tuple[Kind, int | str, int | str]]:
        table = options(V9, SYSTEM_SCOPE, {34: u32(rate), 10: u32(3), 82: fixed(name, 8)})
        return told(collector.feed(message(V9, *table)))

    assert fed(100, "eth3") == [(Kind.DOMAIN_RATE, 0, 100), (Kind.INTERFACE_NAME, 3, "eth3")]
    assert fed(100, "eth3") == []
    assert fed(200, "eth3") == [(Kind.DOMAIN_RATE, 0, 200)]
    assert fed(200, "eth4") == [(Kind.INTERFACE_NAME, 3, "eth4")]
    assert len(collector.pipeline.options) == 2


def test_facts_can_be_learned_elsewhere() -> None:
    """All facts of one table, learned by another, are joined there as they are here."""
    collector, other = Collector(), Collector()
    collector.feed(
        message(V9, *options(V9, SYSTEM_SCOPE, {48: b"\2", 34: u32(7)}), domain=5),
        message(V9, *options(V9, SYSTEM_SCOPE, {95: b"\x0d\0\0\1", 96: fixed("ssl", 8)}, template_id=301)),
        message(IPFIX, *options(IPFIX, {10: u32(3)}, {82: NAME, 160: number(BOOTED_MS, 8)})),
    )
    facts = list(collector.pipeline.options)
    assert {fact.kind for fact in facts} == {
        Kind.SAMPLER_RATE, Kind.APPLICATION_NAME, Kind.INTERFACE_NAME, Kind.BOOTED_MS,
    }  # fmt: skip
    assert other.pipeline.options.learn(facts) == facts
    assert other.pipeline.options.learn(facts) == []
    payloads = [
        message(V9, *flow(V9, {48: b"\2", 95: b"\x0d\0\0\1"}), domain=5),
        message(IPFIX, *flow(IPFIX, {**LINKS, **UPTIMES})),
    ]
    assert rows(other.feed(*payloads)) == rows(collector.feed(*payloads))
    first, second = rows(other.feed(*payloads))
    assert (first["sampling_rate"], first["application_name"]) == (7, "ssl")
    assert (second["in_if_name"], second["time_flow_start"]) == ("Te0/0/0/3", (BOOTED_MS + 86_000_000) * 10**6)


def test_what_is_kept_is_bounded() -> None:
    """Facts over the bound are refused and counted, by kind; those that are there stay and may change."""
    tables = OptionTables(limit=3)

    def fact(about: int, value: str, kind: Kind = Kind.INTERFACE_NAME) -> Fact:
        return Fact(kind, EXPORTER, V9, 0, about, value)

    assert len(tables.learn(fact(about, "same") for about in range(10))) == 3
    assert tables.refused == 7
    assert len(tables) == 3
    assert len(tables.learn([fact(2, "other"), fact(2, "same", Kind.VRF_NAME)])) == 2
    assert tables.learn([fact(9, "same")]) == []
    assert tables.refused == 8
    assert [(one_.about, one_.value) for one_ in tables] == [(0, "same"), (1, "same"), (2, "other"), (2, "same")]


@given(
    st.lists(
        st.builds(
            Fact,
            st.sampled_from(Kind),
            st.sampled_from([EXPORTER, OTHER]),
            st.sampled_from([V9, IPFIX]),
            st.integers(0, 2),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**62),
        ),
        max_size=30,
    )
)
def test_what_was_learned_is_what_is_there(facts: list[Fact]) -> None:
    """The facts of a table are the last of what was told of each thing, and learning them again changes nothing."""
    tables = OptionTables()
    tables.learn(facts)
    kept = list(tables)
    assert tables.learn(kept) == []
    again = OptionTables()
    assert again.learn(kept) == kept
    assert list(again) == kept
    assert len(tables) == len(tables.enrichment) == len(kept)


# --- real devices


def captured(captures: Path, *names: str) -> list[Row]:
    """The records of captured datagrams, fed one by one to one collector."""
    collector = Collector()
    return [row for name in names for row in rows(collector.feed((captures / f"{name}.dat").read_bytes()))]


def test_nbar_names_its_applications(captures: Path) -> None:
    """An ISR's table of applications, then its flows: those that the captured part of the table has are named."""
    folder = "netflow9/netflow9_test_cisco_nbar_"
    found = captured(captures, f"{folder}opttpl260", f"{folder}tpl262", f"{folder}data262")
    assert {(row["application_id"], row.get("application_name")) for row in found} >= {("1:1", "icmp"), ("5:38", None)}
    alone = captured(captures, f"{folder}tpl262", f"{folder}data262")
    assert [row["application_id"] for row in alone] == [row["application_id"] for row in found]
    assert not any("application_name" in row for row in alone)


def test_an_asr9000_names_its_interfaces(captures: Path) -> None:
    """Its table has 83 alone; flows of the same exporter, whatever line card's domain sends them, have the names."""
    collector = Collector()
    folder = captures / "netflow9"
    for name in ("opttpl256", "data256"):
        collector.feed((folder / f"netflow9_test_cisco_asr9k_{name}.dat").read_bytes())
    facts = list(collector.pipeline.options)
    assert {fact.kind for fact in facts} == {Kind.INTERFACE_NAME}
    assert {fact.about: fact.value for fact in facts}[74] == "TenGigE0_0_1_0"
    row = one(collector.feed(message(V9, *flow(V9, {10: u32(74), 14: u32(54)}), domain=7)))
    assert (row["in_if_name"], row["out_if_name"]) == ("TenGigE0_0_1_0", "GigabitEthernet0_0_0_0")


SAMPLING_CAPTURES = [
    pytest.param(["netflow9_test_juniper_srx_tplopt"], V9, 142, 1, id="Juniper SRX: a scope of no length"),
    pytest.param(
        ["netflow9_test_fortigate_fortios_521_tpl", "netflow9_test_fortigate_fortios_521_data256"],
        V9,
        1,
        1,
        id="Fortinet: the system in two bytes",
    ),
    pytest.param(
        ["ipfix_test_juniper_mx240_junos151r6s3_opttpl512", "ipfix_test_juniper_mx240_junos151r6s3_data512"],
        IPFIX,
        524288,
        1000,
        id="Juniper MX: the exporting process",
    ),
    pytest.param(["ipfix"], IPFIX, 0, 1, id="the metering process: 305 and 306"),
]


@pytest.mark.parametrize(("names", "protocol", "domain", "expected"), SAMPLING_CAPTURES)
def test_devices_tell_their_rates(captures: Path, names: list[str], protocol: int, domain: int, expected: int) -> None:
    """What real options said holds for the flows of their domain, and for those of no other."""
    collector = Collector()
    folder = captures / ("netflow9" if protocol == V9 else "ipfix")
    for name in names:
        collector.feed((folder / f"{name}.dat").read_bytes())
    sent = flow(protocol, {}, template_id=999)
    assert one(collector.feed(message(protocol, *sent, domain=domain)))["sampling_rate"] == expected
    assert "sampling_rate" not in one(collector.feed(message(protocol, *sent, domain=domain + 1)))


def test_one_exporter_cannot_fill_the_tables_of_the_others() -> None:
    """What it tells beyond its share is refused and counted; what another tells is taken."""
    tables = OptionTables(exporter_limit=2)
    told = [Fact(Kind.INTERFACE_NAME, mapped("192.0.2.1"), 9, 0, index, f"if{index}") for index in range(5)]
    assert tables.learn(told) == told[:2]
    assert tables.refused == 3
    renamed = Fact(Kind.INTERFACE_NAME, mapped("192.0.2.1"), 9, 0, 0, "another")
    other = Fact(Kind.INTERFACE_NAME, mapped("192.0.2.2"), 9, 0, 0, "if0")
    assert tables.learn([renamed, other]) == [renamed, other]
