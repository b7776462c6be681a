"""Information element → column: data, no logic.

A rule names a column, how its value is written on the wire, and the elements that can give it, the best first.
Elements are (enterprise number, element id); enterprise 0 is IANA's registry, which NetFlow v9 shares below 32768.
What vendors add stands in the profiles (ingest/profiles). Sources: the IANA IPFIX registry; RFC 3954 §8; RFC 5103 for
reverse elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

Element = tuple[int, int]

REVERSE: Final = 29305
"""Enterprise number that turns an IANA element's direction round (RFC 5103 §6.1)."""
NOT_REVERSIBLE: Final[frozenset[int]] = frozenset(
    {
        *(137, 145, 148, 149),
        *(130, 131, 173, *range(211, 218)),
        *(40, 41, 42, *range(163, 169)),
        *(210, 239),
    }
)
"""Elements without a direction (RFC 5103 §6.1): identifiers, configuration and statistics of the exporting process,
padding, and the direction itself."""
COMMON_PROPERTIES: Final[Element] = (2636, 137)
"""Juniper's commonPropertiesId, of which a record may have several: the type in the upper 6 bits of each tells which."""
SYSTEM_INIT_MS: Final[Element] = (0, 160)


CISCO: Final = 9
CLIENT_BYTES: Final[tuple[Element, ...]] = ((CISCO, 8338), (0, 41106))
CLIENT_PACKETS: Final[tuple[Element, ...]] = ((CISCO, 9265), (0, 42033))
SERVER_BYTES: Final[tuple[Element, ...]] = ((CISCO, 8337), (0, 41105))
SERVER_PACKETS: Final[tuple[Element, ...]] = ((CISCO, 9266), (0, 42034))
"""What went forth and back by Cisco's application visibility: in IPFIX, and as NetFlow v9 has it."""


class Wire(Enum):
    """How a value is written."""

    UINT = auto()
    """Unsigned, big-endian, 1 to 8 bytes (RFC 7011 §6.2)."""
    IPV4 = auto()
    IPV6 = auto()
    MAC = auto()
    TEXT = auto()
    NAME = auto()
    """Text with few distinct values."""
    APPLICATION = auto()
    """An octet for the engine, then the selector (RFC 6759 §4)."""
    LOW_BYTE = auto()
    """The lower octet of an ICMP type and code."""
    HIGH_BYTE = auto()
    """The upper octet of an ICMP type and code."""
    SEGMENT = auto()
    """An octet for the encapsulation, then the identifier in the low 24 bits (element 351)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One element that can fill a column. A field shorter than ``shortest`` bytes is another thing by that number."""

    element: Element
    wire: Wire
    shortest: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """A column and the elements that fill it, the best first.

    With ``zero_yields`` a zero (an address of zeros) gives way to the next element that is there. ``mapped`` tells how
    an element that a mapping gives to the column is written, where no source tells.
    """

    column: str
    sources: tuple[Source, ...] = ()
    zero_yields: bool = False
    mapped: tuple[Wire, ...] = ()


def _rule(column: str, wire: Wire, *elements: int | Element, zero_yields: bool = False) -> Rule:
    sources = tuple(Source(item if isinstance(item, tuple) else (0, item), wire) for item in elements)
    return Rule(column, sources, zero_yields)


def _addresses(column: str, v4: tuple[int | Element, ...], v6: tuple[int | Element, ...]) -> Rule:
    four = _rule(column, Wire.IPV4, *v4).sources
    six = _rule(column, Wire.IPV6, *v6).sources
    return Rule(column, four + six, zero_yields=True)


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "bytes",
        (
            *(Source((0, number), Wire.UINT) for number in (1, 85, 23, 352)),
            Source((0, 231), Wire.UINT, 4),
            *(Source(element, Wire.UINT) for element in CLIENT_BYTES),
        ),
    ),
    _rule("packets", Wire.UINT, 2, 86, 24, 298, *CLIENT_PACKETS),
    _rule("flows", Wire.UINT, 3),
    _addresses("src_addr", (8,), (27,)),
    _addresses("dst_addr", (12,), (28,)),
    _rule("proto", Wire.UINT, 4),
    _rule("src_port", Wire.UINT, 7, 180, 182, zero_yields=True),
    _rule("dst_port", Wire.UINT, 11, 181, 183, zero_yields=True),
    _rule("tcp_flags", Wire.UINT, 6),
    _rule("ip_tos", Wire.UINT, 5),
    _rule("ip_ttl", Wire.UINT, 192, 52),
    Rule(
        "icmp_type",
        (
            Source((0, 176), Wire.UINT),
            Source((0, 178), Wire.UINT),
            Source((0, 32), Wire.HIGH_BYTE, 2),
            Source((0, 139), Wire.HIGH_BYTE, 2),
        ),
        zero_yields=True,
    ),
    Rule(
        "icmp_code",
        (
            Source((0, 177), Wire.UINT),
            Source((0, 179), Wire.UINT),
            Source((0, 32), Wire.LOW_BYTE, 2),
            Source((0, 139), Wire.LOW_BYTE, 2),
        ),
        zero_yields=True,
    ),
    _rule("fragment_id", Wire.UINT, 54),
    _rule("fragment_offset", Wire.UINT, 88),
    _rule("ipv6_flow_label", Wire.UINT, 31),
    _rule("in_if", Wire.UINT, 10, 252, zero_yields=True),
    _rule("out_if", Wire.UINT, 14, 253, zero_yields=True),
    _rule("src_mac", Wire.MAC, 56, 81, zero_yields=True),
    _rule("dst_mac", Wire.MAC, 80, 57, zero_yields=True),
    _rule("src_vlan", Wire.UINT, 58, 243, zero_yields=True),
    _rule("dst_vlan", Wire.UINT, 59, 254, zero_yields=True),
    _rule("inner_vlan", Wire.UINT, 245),
    _rule("src_as", Wire.UINT, 16),
    _rule("dst_as", Wire.UINT, 17),
    _rule("next_hop_as", Wire.UINT, 128),
    _rule("src_net_len", Wire.UINT, 9, 29, zero_yields=True),
    _rule("dst_net_len", Wire.UINT, 13, 30, zero_yields=True),
    _addresses("next_hop", (15,), (62,)),
    _addresses("bgp_next_hop", (18,), (63,)),
    _rule("flow_direction", Wire.UINT, 61),
    _rule("bi_flow_direction", Wire.UINT, 239),
    _rule("forwarding_status", Wire.UINT, 89),
    _rule("flow_end_reason", Wire.UINT, 136),
    Rule("src_sgt", mapped=(Wire.UINT,)),
    Rule("dst_sgt", mapped=(Wire.UINT,)),
    Rule("src_sgt_name", mapped=(Wire.NAME,)),
    Rule("dst_sgt_name", mapped=(Wire.NAME,)),
    _rule("ingress_vrf_id", Wire.UINT, 234),
    _rule("egress_vrf_id", Wire.UINT, 235),
    _addresses("nat_src_addr", (225,), (281,)),
    _addresses("nat_dst_addr", (226,), (282,)),
    _rule("nat_src_port", Wire.UINT, 227),
    _rule("nat_dst_port", Wire.UINT, 228),
    _rule("nat_event", Wire.UINT, 230),
    _rule("firewall_event", Wire.UINT, 233),
    _rule("application_id", Wire.APPLICATION, 95),
    _rule("application_name", Wire.NAME, 96),
    _rule("user_name", Wire.NAME, 371),
    _rule("vni", Wire.SEGMENT, 351),
    _rule("wlan_ssid", Wire.TEXT, 147),
    _rule("wlan_client_mac", Wire.MAC, 365),
    _rule("wlan_ap_mac", Wire.MAC, 367),
)
"""One column each. Times, EtherType, MPLS labels and the sampling rate have rules of their own: see plan.py."""

RESPONDER: Final[tuple[Rule, ...]] = (
    Rule("bytes", (Source((0, 232), Wire.UINT, 4), *(Source(element, Wire.UINT) for element in SERVER_BYTES))),
    _rule("packets", Wire.UINT, 299, *SERVER_PACKETS),
)
"""Counters of the other direction, beside 231 and 298. Huawei uses 232 with two bytes for something else."""

INTERFACES: Final[Mapping[Element, str]] = {
    (0, 10): "in_if_name",
    (0, 252): "in_if_name",
    (0, 14): "out_if_name",
    (0, 253): "out_if_name",
}
INTERFACE_NAME: Final[Element] = (0, 82)
"""In a flow record the name of the interface that stands before it, as Open vSwitch sends it."""

SAMPLERS: Final[tuple[Element, ...]] = ((0, 302), (0, 48))
"""The id of the selector, or of the sampler, that options data tell the rate of."""

MPLS_LABELS: Final = tuple((0, number) for number in range(70, 80))


class Clock(Enum):
    """How a time is written."""

    SECONDS = auto()
    MILLISECONDS = auto()
    NTP = auto()
    """Seconds since 1900 and a fraction of 2^32 (RFC 7011 §6.1.10)."""
    NTP_US = auto()
    """The same, of whose fraction the low 11 bits are to be ignored (RFC 7011 §6.1.9)."""
    BEFORE_EXPORT_US = auto()
    """Microseconds before the export time."""
    UPTIME_MS = auto()
    """Milliseconds of the exporter's uptime."""


OBSERVED: Final = (
    ((0, 325), Clock.NTP),
    ((0, 324), Clock.NTP_US),
    ((0, 323), Clock.MILLISECONDS),
    ((0, 322), Clock.SECONDS),
)
"""When something was observed: of an event (NSEL of Cisco's ASA, RFC 8158) all that is told of its time."""
FLOW_START: Final = (
    ((0, 156), Clock.NTP),
    ((0, 154), Clock.NTP_US),
    ((0, 152), Clock.MILLISECONDS),
    ((0, 150), Clock.SECONDS),
    ((0, 158), Clock.BEFORE_EXPORT_US),
    ((0, 22), Clock.UPTIME_MS),
    *OBSERVED,
)
FLOW_END: Final = (
    ((0, 157), Clock.NTP),
    ((0, 155), Clock.NTP_US),
    ((0, 153), Clock.MILLISECONDS),
    ((0, 151), Clock.SECONDS),
    ((0, 159), Clock.BEFORE_EXPORT_US),
    ((0, 21), Clock.UPTIME_MS),
    *OBSERVED,
)
"""The elements that tell a flow's ends, the most exact first."""

ONE_WAY: Final = (
    "bytes",
    "packets",
    "tcp_flags",
    "ip_tos",
    "ip_ttl",
    "icmp_type",
    "icmp_code",
    "fragment_id",
    "fragment_offset",
    "ipv6_flow_label",
    "next_hop_as",
    "next_hop",
    "bgp_next_hop",
    "as_path",
    "bgp_communities",
    "flow_direction",
    "forwarding_status",
    "flow_end_reason",
    "mpls_labels",
)
"""Columns of one direction, which say nothing of the other: its record has its own, or none."""

BASIC_LIST: Final[Element] = (0, 291)
SUB_TEMPLATE_LIST: Final[Element] = (0, 292)
SUB_TEMPLATE_MULTI_LIST: Final[Element] = (0, 293)
"""Structured data (RFC 6313)."""
COMMUNITY: Final[Element] = (0, 483)
SOURCE_COMMUNITIES: Final[Element] = (0, 484)
DESTINATION_COMMUNITIES: Final[Element] = (0, 485)
"""A BGP community, and basic lists of those of a flow's source and destination (RFC 8549)."""
LISTS: Final = frozenset(
    {BASIC_LIST, SUB_TEMPLATE_LIST, SUB_TEMPLATE_MULTI_LIST, SOURCE_COMMUNITIES, DESTINATION_COMMUNITIES}
)

ALONE: Final[frozenset[Element]] = frozenset(
    {
        *(source.element for rule in RULES for source in rule.sources),
        *(element for element, _ in (*FLOW_START, *FLOW_END)),
        *((0, 34), (0, 50), (0, 60), (0, 256), (0, 311)),
        *(BASIC_LIST, SUB_TEMPLATE_LIST, SUB_TEMPLATE_MULTI_LIST, COMMON_PROPERTIES),
    }
)
"""Elements that say something without another one beside them, as those of a basic list do."""

EXCHANGED: Final = (
    ("src_addr", "dst_addr"),
    ("src_port", "dst_port"),
    ("src_mac", "dst_mac"),
    ("src_vlan", "dst_vlan"),
    ("src_as", "dst_as"),
    ("src_net_len", "dst_net_len"),
    ("src_sgt", "dst_sgt"),
    ("src_sgt_name", "dst_sgt_name"),
    ("in_if", "out_if"),
    ("in_if_name", "out_if_name"),
    ("ingress_vrf_id", "egress_vrf_id"),
    ("ingress_vrf_name", "egress_vrf_name"),
    ("nat_src_addr", "nat_dst_addr"),
    ("nat_src_port", "nat_dst_port"),
)
"""Columns that change places in the second record of a flow of two directions."""
