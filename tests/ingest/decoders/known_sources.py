"""Elements that have to be worked on before they are a column's value, options among them: bytes and what comes of them.

Beside known_elements.py, known_flow_records.py and known_packets.py this is what test_coverage.py holds against the
sources that the record names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests import sflow_builders as make
from tests.builders import (
    CACHE,
    INTERFACE,
    LINE_CARD,
    SYSTEM,
    TEMPLATE,
    UNIX_SECONDS,
    UPTIME_MS,
    VARIABLE,
    basic_list,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipv4,
    mapped,
    ntp_time,
    number,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    variable,
)
from tests.ingest.collector import flows
from tests.ingest.decoders.known_elements import IPFIX, V9

SECOND: Final = 1_000_000_000
EXPORTED_NS: Final = UNIX_SECONDS * SECOND
BOOTED_MS: Final = (UNIX_SECONDS - 86_400) * 1000


@dataclass(frozen=True, slots=True)
class Shown:
    """Datagrams of one exporter, one after the other, and what the last record tells by these elements.

    Elements are named as the record's sources name them: ``22``, ``v9 34000``, ``9:1232``, ``options 82``.
    """

    elements: str
    payloads: tuple[bytes, ...]
    expected: Mapping[str, Any]

    @property
    def named(self) -> frozenset[str]:
        """The elements, each by itself."""
        return frozenset(part.strip() for part in self.elements.split(","))


def both(elements: str, sent: Mapping[int, bytes], **expected: object) -> tuple[Shown, ...]:
    """The same record in both protocols."""
    fields = [field(element, len(content)) for element, content in sent.items()]
    return tuple(
        Shown(elements, (flows(protocol, fields, b"".join(sent.values())),), expected) for protocol in (V9, IPFIX)
    )


def joined(
    elements: str,
    protocol: int,
    scope: Mapping[int, bytes],
    option: Mapping[int, bytes],
    sent: Mapping[int, bytes],
    **expected: object,
) -> Shown:
    """Options data, and a record that it is joined to."""
    ends = tuple(tuple(field(one, len(content)) for one, content in each.items()) for each in (scope, option))
    content = b"".join((*scope.values(), *option.values()))
    if protocol == V9:
        told = v9_datagram(v9_options_templates(v9_options_template(300, *ends)), data_set(300, content))
    else:
        told = ipfix_message(ipfix_options_templates(ipfix_options_template(300, *ends)), data_set(300, content))
    fields = [field(4, 1), *(field(one, len(value)) for one, value in sent.items())]
    return Shown(elements, (told, flows(protocol, fields, b"\6" + b"".join(sent.values()))), expected)


def u32(value: int) -> bytes:
    """A number of four bytes."""
    return number(value, 4)


FRAME: Final = make.ethernet(make.ipv4_packet(make.tcp()))
UPTIME: Final = {22: u32(86_000_000), 21: u32(86_399_000)}
SINCE_BOOT: Final = {
    "time_flow_start": (BOOTED_MS + 86_000_000) * 10**6,
    "time_flow_end": (BOOTED_MS + 86_399_000) * 10**6,
}

TIMES: Final = (
    Shown(
        "22, 21",
        (flows(V9, [field(22, 4), field(21, 4)], u32(UPTIME_MS - 2500) + u32(UPTIME_MS - 500)),),
        {"time_flow_start": EXPORTED_NS - 2_500_000_000, "time_flow_end": EXPORTED_NS - 500_000_000},
    ),
    *both("22, 21, 160", {160: number(BOOTED_MS, 8), **UPTIME}, **SINCE_BOOT),
    joined("160, options 160", IPFIX, {149: u32(0)}, {160: number(BOOTED_MS, 8)}, UPTIME, **SINCE_BOOT),
    *both(
        "150, 151",
        {150: u32(UNIX_SECONDS - 9), 151: u32(UNIX_SECONDS - 7)},
        time_flow_start=EXPORTED_NS - 9 * SECOND,
        time_flow_end=EXPORTED_NS - 7 * SECOND,
    ),
    *both(
        "152, 153",
        {152: number(UNIX_SECONDS * 1000 - 9001, 8), 153: number(UNIX_SECONDS * 1000 - 7002, 8)},
        time_flow_start=EXPORTED_NS - 9_001_000_000,
        time_flow_end=EXPORTED_NS - 7_002_000_000,
    ),
    *(
        shown
        for start, end in ((154, 155), (156, 157))
        for shown in both(
            f"{start}, {end}",
            {start: ntp_time(UNIX_SECONDS - 9, 1 << 31), end: ntp_time(UNIX_SECONDS - 7, 1 << 30)},
            time_flow_start=EXPORTED_NS - 8_500_000_000,
            time_flow_end=EXPORTED_NS - 6_750_000_000,
        )
    ),
    *both(
        "158, 159",
        {158: u32(2_000_001), 159: u32(3)},
        time_flow_start=EXPORTED_NS - 2_000_001_000,
        time_flow_end=EXPORTED_NS - 3_000,
    ),
    *(
        shown
        for element, content in (
            (322, u32(UNIX_SECONDS - 9)),
            (323, number((UNIX_SECONDS - 9) * 1000, 8)),
            (324, ntp_time(UNIX_SECONDS - 9)),
            (325, ntp_time(UNIX_SECONDS - 9)),
        )
        for shown in both(
            str(element),
            {element: content},
            time_flow_start=EXPORTED_NS - 9 * SECOND,
            time_flow_end=EXPORTED_NS - 9 * SECOND,
        )
    ),
)

DERIVED: Final = (
    *both("309, 310", {309: u32(2), 310: u32(2000)}, sampling_rate=1000),
    *both("305, 306", {305: u32(1), 306: u32(999)}, sampling_rate=1000),
    *both("311", {311: bytes.fromhex("3f50624dd2f1a9fc")}, sampling_rate=1000),
    *both("60", {60: b"\6"}, etype=0x86DD),
    *both("256", {256: b"\x88\xcc"}, etype=0x88CC),
    *both("32", {32: b"\x03\x0d"}, icmp_type=3, icmp_code=13),
    *both("139", {139: b"\x86\x01"}, icmp_type=134, icmp_code=1),
    *(shown for at in range(70, 80) for shown in both(str(at), {at: bytes.fromhex("01f421")}, mpls_labels=[0x1F42])),
    *both("95", {95: bytes.fromhex("0d0001c5")}, application_id="13:453"),
    # Of engine 20 the enterprise comes first: Fortinet's and Nokia's.
    *both("95", {95: bytes.fromhex("140000304400003e87")}, application_id="20:12356:16007"),
    *both("95", {95: bytes.fromhex("140000027d00000005")}, application_id="20:637:5"),
    *both("351", {351: number(1 << 56 | 5001, 8)}, vni=5001),
    *both("231, 232", {231: u32(700), 232: u32(900)}, bytes=900, bi_flow_direction=2),
    *both("298, 299", {298: u32(7), 299: u32(9)}, packets=9, bi_flow_direction=2),
    *(
        Shown(
            elements,
            (flows(V9, [field(one, 8), field(other, 8)], number(7, 8) + number(9, 8)),),
            {column: 9, "bi_flow_direction": 2},
        )
        for elements, one, other, column in (
            ("v9 41106, v9 41105", 41106, 41105, "bytes"),
            ("v9 42033, v9 42034", 42033, 42034, "packets"),
        )
    ),
    *(
        Shown(
            elements,
            (flows(IPFIX, [field(one, 8, enterprise=9), field(other, 8, enterprise=9)], number(7, 8) + number(9, 8)),),
            {column: 9, "bi_flow_direction": 2},
        )
        for elements, one, other, column in (
            ("9:8338, 9:8337", 8338, 8337, "bytes"),
            ("9:9265, 9:9266", 9265, 9266, "packets"),
        )
    ),
    Shown(
        "29305",
        (flows(IPFIX, [field(1, 4), field(1, 4, enterprise=29305)], u32(7) + u32(9)),),
        {"bytes": 9, "bi_flow_direction": 2},
    ),
    Shown(
        "2636:137",
        (flows(IPFIX, [field(137, 2, enterprise=2636)], number(2 << 10 | 5, 2)),),
        {"forwarding_status": 128},
    ),
    Shown(
        "312",
        (flows(IPFIX, [field(312, 2), field(315, VARIABLE)], number(1518, 2) + variable(FRAME)),),
        {"bytes": 1518, "packets": 1, "src_addr": mapped(make.SRC), "tcp_flags": 0x18},
    ),
    Shown(
        "485, 483",
        (flows(IPFIX, [field(485, VARIABLE)], variable(basic_list(483, 4, u32(65000 << 16 | 1), u32(7)))),),
        {"bgp_communities": [65000 << 16 | 1, 7]},
    ),
    Shown(
        "484, 483",
        (flows(IPFIX, [field(484, VARIABLE)], variable(basic_list(483, 4, u32(9)))),),
        {"bgp_communities": [9]},
    ),
    Shown(
        "291, 483",
        (flows(IPFIX, [field(291, VARIABLE)], variable(basic_list(483, 4, u32(9)))),),
        {"bgp_communities": [9]},
    ),
    Shown(
        "411, 412",
        (flows(IPFIX, [field(411, 2), field(412, 2)], number(10, 2) + number(20, 2)),),
        {"src_sgt": 10, "dst_sgt": 20},
    ),
    Shown(
        "v9 1232, v9 1233, v9 1234, v9 1235",
        (
            flows(
                V9,
                [field(1232, 2), field(1233, 2), field(1234, 8), field(1235, 8)],
                number(10, 2) + number(20, 2) + fixed("Staff", 8) + fixed("Guests", 8),
            ),
        ),
        {"src_sgt": 10, "dst_sgt": 20, "src_sgt_name": "Staff", "dst_sgt_name": "Guests"},
    ),
    Shown(
        "v9 56701, v9 56702",
        (flows(V9, [field(56701, 8), field(56702, 8)], fixed("ssl", 8) + fixed("alice", 8)),),
        {"application_name": "ssl", "user_name": "alice"},
    ),
    Shown(
        "PEN 25461: 23933, PEN 25461: 23934",
        (
            flows(
                IPFIX,
                [field(23933, 8, enterprise=25461), field(23934, 8, enterprise=25461)],
                fixed("ssl", 8) + fixed("alice", 8),
            ),
        ),
        {"application_name": "ssl", "user_name": "alice"},
    ),
    Shown(
        "82",
        (flows(IPFIX, [field(10, 4), field(82, 8)], u32(3) + fixed("eth3", 8)),),
        {"in_if": 3, "in_if_name": "eth3"},
    ),
)

NAME: Final = fixed("Te0/0/0/3", 24)

OPTIONS: Final = (
    joined("options 82", V9, {SYSTEM: u32(1)}, {10: u32(3), 82: NAME}, {10: u32(3)}, in_if_name="Te0/0/0/3"),
    joined("options 82", IPFIX, {10: u32(3)}, {82: NAME}, {14: u32(3)}, out_if_name="Te0/0/0/3"),
    joined("options 83", IPFIX, {10: u32(3)}, {83: NAME}, {10: u32(3), 14: u32(3)}, in_if_name="Te0/0/0/3"),
    joined("options 83", V9, {SYSTEM: u32(1)}, {10: u32(3), 83: NAME}, {14: u32(3)}, out_if_name="Te0/0/0/3"),
    joined("options 236", IPFIX, {234: u32(7)}, {236: fixed("red", 32)}, {234: u32(7)}, ingress_vrf_name="red"),
    joined("options 236", V9, {SYSTEM: u32(1)}, {235: u32(7), 236: fixed("red", 32)}, {235: u32(7)}, egress_vrf_name="red"),
    joined(
        "options 96",
        V9,
        {SYSTEM: u32(1)},
        {95: bytes.fromhex("0d0001c5"), 96: fixed("ssl", 24)},
        {95: bytes.fromhex("0d0001c5")},
        application_name="ssl",
    ),
    joined("options 34", V9, {SYSTEM: u32(1)}, {34: u32(100), 35: b"\2"}, {}, sampling_rate=100),
    joined("options 50", V9, {SYSTEM: u32(1)}, {48: b"\2", 49: b"\1", 50: u32(64)}, {48: b"\2"}, sampling_rate=64),
    joined(
        "options 309, options 310",
        IPFIX,
        {302: number(5, 8)},
        {304: number(3, 2), 305: u32(1), 309: u32(1), 310: u32(256)},
        {302: number(5, 8)},
        sampling_rate=256,
    ),
    joined(
        "options 305, options 306",
        IPFIX,
        {149: u32(0)},
        {304: number(1, 2), 305: u32(1), 306: u32(999)},
        {},
        sampling_rate=1000,
    ),
    joined("options 34002", V9, {SYSTEM: u32(1)}, {34000: number(10, 2), 34002: fixed("Staff", 8)}, {34001: number(10, 2)}, dst_sgt_name="Staff"),
)  # fmt: skip

SCOPES: Final = {
    "v9 system": joined("", V9, {SYSTEM: u32(1)}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 interface": joined("", V9, {INTERFACE: u32(3)}, {34: u32(7)}, {10: u32(3)}, sampling_rate=7),
    "v9 interface, a name": joined("", V9, {INTERFACE: u32(3)}, {82: NAME}, {10: u32(3)}, in_if_name="Te0/0/0/3"),
    "v9 line card": joined("", V9, {LINE_CARD: u32(3)}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 cache": joined("", V9, {CACHE: u32(3)}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 template": joined("", V9, {TEMPLATE: number(256, 2)}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 none": joined("", V9, {}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 of no length": joined("", V9, {SYSTEM: b""}, {34: u32(7), 35: b"\1"}, {}, sampling_rate=7),
    "v9 of two bytes": joined("", V9, {SYSTEM: b"\0\1"}, {34: u32(7)}, {}, sampling_rate=7),
    "v9 sampler id": joined("", V9, {SYSTEM: u32(1)}, {48: b"\2", 50: u32(7)}, {48: u32(2)}, sampling_rate=7),
    "ipfix selector id": joined("", IPFIX, {302: number(5, 8)}, {310: u32(7), 309: u32(1)}, {302: u32(5)}, sampling_rate=7),
    "ipfix sampler id": joined("", IPFIX, {48: b"\5"}, {50: u32(7)}, {48: b"\5"}, sampling_rate=7),
    "ipfix VRF, ingress": joined("", IPFIX, {234: u32(5)}, {236: fixed("red", 8)}, {234: u32(5)}, ingress_vrf_name="red"),
    "ipfix VRF, egress": joined("", IPFIX, {235: u32(5)}, {236: fixed("red", 8)}, {235: u32(5)}, egress_vrf_name="red"),
    "ipfix template": joined("", IPFIX, {145: number(256, 2)}, {305: u32(1), 306: u32(6)}, {}, sampling_rate=7),
    "ipfix domain": joined("", IPFIX, {149: u32(0)}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix exporting process": joined("", IPFIX, {144: u32(1)}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix metering process": joined("", IPFIX, {143: u32(1)}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix line card": joined("", IPFIX, {141: u32(1)}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix exporter, IPv4": joined("", IPFIX, {130: ipv4("192.0.2.1")}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix exporter, IPv6": joined("", IPFIX, {131: bytes(16)}, {34: u32(7)}, {}, sampling_rate=7),
    "ipfix interface": joined("", IPFIX, {10: u32(3)}, {34: u32(7)}, {10: u32(3)}, sampling_rate=7),
    "ipfix application": joined(
        "", IPFIX, {95: b"\x0d\0\1\xc5"}, {96: fixed("ssl", 8)}, {95: b"\x0d\0\1\xc5"}, application_name="ssl"
    ),
}  # fmt: skip
"""Scopes by which options data is told (RFC 3954 §6.1, RFC 7011 §3.4.2.1), and what a record has by each."""

NO_COLUMN: Final = {
    33: "IGMP type",
    35: "sampling algorithm: not the rate",
    36: "timeout of the exporter",
    37: "timeout of the exporter",
    44: "prefix of an address that is there",
    45: "prefix of an address that is there",
    47: "end of the label switched path",
    49: "sampler mode: not the rate",
    55: "type of service after a change",
    90: "route distinguisher",
    94: "description of an application",
    129: "AS that it came from",
    130: "address of the exporter",
    131: "address of the exporter",
    138: "observation point",
    140: "end of the label switched path",
    146: "radio channel",
    148: "flow id: means nothing beyond the device",
    161: "duration, told by start and end",
    169: "prefix of an address that is there",
    170: "prefix of an address that is there",
    184: "TCP sequence number",
    186: "TCP window size",
    197: "fragment flags",
    **dict.fromkeys(range(218, 224), "count of one TCP flag"),
    244: "VLAN priority",
    249: "pseudowire",
    255: "customer VLAN where it goes out",
    283: "NAT pool",
    284: "NAT pool's name",
    289: "whether it is a tunnel",
    290: "whether it is encrypted",
    297: "NAT type",
    304: "selector algorithm: not the rate",
    **dict.fromkeys(range(361, 365), "block of ports"),
    366: "address of the wireless client, which the flow has",
    372: "application's category",
    373: "application's subcategory",
    374: "application's group",
    408: "type of a frame that is not there",
    417: "layer 2 bytes after a change",
    430: "frames",
    432: "pseudowire's end",
    **dict.fromkeys(range(459, 463), "HTTP"),
    463: "NAT instance",
    **dict.fromkeys(range(464, 468), "NAT realms, quota and threshold"),
    **dict.fromkeys(range(468, 471), "HTTP"),
}
"""IANA elements that exporters send and for which the record has no column, and what they are."""
