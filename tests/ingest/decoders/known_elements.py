"""Which information element fills which column, as record.md and the registries say: data for tests.

It is written down from the documents, not taken from the decoder's own table: that is what it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from tests.builders import fixed, ipv4, ipv6, mac, mapped, number

V9, IPFIX = 9, 10
CISCO: Final = 9
COLUMN_BITS: Final = {
    "bytes": 64,
    "packets": 64,
    "flows": 64,
    "sampling_rate": 32,
    "proto": 8,
    "src_port": 16,
    "dst_port": 16,
    "tcp_flags": 16,
    "ip_tos": 8,
    "ip_ttl": 8,
    "icmp_type": 8,
    "icmp_code": 8,
    "fragment_id": 32,
    "fragment_offset": 16,
    "ipv6_flow_label": 32,
    "in_if": 32,
    "out_if": 32,
    "src_vlan": 16,
    "dst_vlan": 16,
    "inner_vlan": 16,
    "src_as": 32,
    "dst_as": 32,
    "next_hop_as": 32,
    "src_net_len": 8,
    "dst_net_len": 8,
    "flow_direction": 8,
    "bi_flow_direction": 8,
    "forwarding_status": 8,
    "flow_end_reason": 8,
    "src_sgt": 16,
    "dst_sgt": 16,
    "ingress_vrf_id": 32,
    "egress_vrf_id": 32,
    "nat_src_port": 16,
    "nat_dst_port": 16,
    "nat_event": 8,
    "firewall_event": 8,
}
"""How wide a number's column is."""


class Kind(Enum):
    """How a value is written, and how the column has it."""

    NUMBER = auto()
    IPV4 = auto()
    IPV6 = auto()
    MAC = auto()
    TEXT = auto()


@dataclass(frozen=True, slots=True)
class Known:
    """An element that fills one column, in one protocol; ``length`` is its natural one, 0 for text."""

    protocol: int
    enterprise: int | None
    element: int
    kind: Kind
    length: int
    column: str

    @property
    def name(self) -> str:
        """As in ``v9-34000`` and ``ipfix-9:1232``."""
        enterprise = "" if self.enterprise is None else f"{self.enterprise}:"
        return f"{'v9' if self.protocol == V9 else 'ipfix'}-{enterprise}{self.element}-{self.column}"

    def sample(self) -> tuple[bytes, Any]:
        """A value that no other column would give: bytes of the natural length, and what the column then has."""
        if self.kind is Kind.IPV4:
            return ipv4("203.0.113.77"), mapped("203.0.113.77")
        if self.kind is Kind.IPV6:
            return ipv6("2001:db8:7::4d"), mapped("2001:db8:7::4d")
        if self.kind is Kind.MAC:
            return mac("02:00:5e:10:00:fe"), mac("02:00:5e:10:00:fe")
        if self.kind is Kind.TEXT:
            return fixed("Grüße 7", 16), "Grüße 7"
        # Every byte differs, so that a byte order or an offset that is wrong shows; the first stays small for the
        # columns that are narrower than their element.
        bits = COLUMN_BITS[self.column]
        value = int.from_bytes(bytes(range(0x91, 0x91 + bits // 8))) & ((1 << 8 * self.length) - 1)
        return number(value, self.length), value


def _both(element: int, kind: Kind, length: int, column: str) -> tuple[Known, ...]:
    return tuple(Known(protocol, None, element, kind, length, column) for protocol in (V9, IPFIX))


def _cisco(v9_type: int, kind: Kind, length: int, column: str) -> tuple[Known, ...]:
    """A type of Cisco's own: NetFlow v9 has it as it is, IPFIX without the upper bit under Cisco's number."""
    return (
        Known(V9, None, v9_type, kind, length, column),
        Known(IPFIX, CISCO, v9_type - 0x8000, kind, length, column),
    )


def _v9(element: int, kind: Kind, length: int, column: str) -> tuple[Known, ...]:
    return (Known(V9, None, element, kind, length, column),)


KNOWN: Final[tuple[Known, ...]] = (
    *_both(1, Kind.NUMBER, 8, "bytes"),
    *_both(23, Kind.NUMBER, 8, "bytes"),
    *_both(85, Kind.NUMBER, 8, "bytes"),
    *_both(231, Kind.NUMBER, 8, "bytes"),
    *_both(352, Kind.NUMBER, 8, "bytes"),
    *_cisco(41106, Kind.NUMBER, 8, "bytes"),
    *_both(2, Kind.NUMBER, 8, "packets"),
    *_both(24, Kind.NUMBER, 8, "packets"),
    *_both(86, Kind.NUMBER, 8, "packets"),
    *_both(298, Kind.NUMBER, 8, "packets"),
    *_cisco(42033, Kind.NUMBER, 8, "packets"),
    *_both(3, Kind.NUMBER, 8, "flows"),
    *_both(8, Kind.IPV4, 4, "src_addr"),
    *_both(27, Kind.IPV6, 16, "src_addr"),
    *_cisco(45004, Kind.IPV4, 4, "src_addr"),
    *_cisco(45006, Kind.IPV6, 16, "src_addr"),
    *_both(12, Kind.IPV4, 4, "dst_addr"),
    *_both(28, Kind.IPV6, 16, "dst_addr"),
    *_cisco(45005, Kind.IPV4, 4, "dst_addr"),
    *_cisco(45007, Kind.IPV6, 16, "dst_addr"),
    *_both(4, Kind.NUMBER, 1, "proto"),
    *_both(7, Kind.NUMBER, 2, "src_port"),
    *_both(180, Kind.NUMBER, 2, "src_port"),
    *_both(182, Kind.NUMBER, 2, "src_port"),
    *_cisco(45008, Kind.NUMBER, 2, "src_port"),
    *_both(11, Kind.NUMBER, 2, "dst_port"),
    *_both(181, Kind.NUMBER, 2, "dst_port"),
    *_both(183, Kind.NUMBER, 2, "dst_port"),
    *_cisco(45009, Kind.NUMBER, 2, "dst_port"),
    *_both(6, Kind.NUMBER, 2, "tcp_flags"),
    *_both(5, Kind.NUMBER, 1, "ip_tos"),
    *_both(52, Kind.NUMBER, 1, "ip_ttl"),
    *_both(192, Kind.NUMBER, 1, "ip_ttl"),
    *_both(176, Kind.NUMBER, 1, "icmp_type"),
    *_both(177, Kind.NUMBER, 1, "icmp_code"),
    *_both(178, Kind.NUMBER, 1, "icmp_type"),
    *_both(179, Kind.NUMBER, 1, "icmp_code"),
    *_both(54, Kind.NUMBER, 4, "fragment_id"),
    *_both(88, Kind.NUMBER, 2, "fragment_offset"),
    *_both(31, Kind.NUMBER, 4, "ipv6_flow_label"),
    *_both(10, Kind.NUMBER, 4, "in_if"),
    *_both(252, Kind.NUMBER, 4, "in_if"),
    *_both(14, Kind.NUMBER, 4, "out_if"),
    *_both(253, Kind.NUMBER, 4, "out_if"),
    *_both(56, Kind.MAC, 6, "src_mac"),
    *_both(81, Kind.MAC, 6, "src_mac"),
    *_both(80, Kind.MAC, 6, "dst_mac"),
    *_both(57, Kind.MAC, 6, "dst_mac"),
    *_both(58, Kind.NUMBER, 2, "src_vlan"),
    *_both(243, Kind.NUMBER, 2, "src_vlan"),
    *_both(59, Kind.NUMBER, 2, "dst_vlan"),
    *_both(254, Kind.NUMBER, 2, "dst_vlan"),
    *_both(245, Kind.NUMBER, 2, "inner_vlan"),
    *_both(16, Kind.NUMBER, 4, "src_as"),
    *_both(17, Kind.NUMBER, 4, "dst_as"),
    *_both(128, Kind.NUMBER, 4, "next_hop_as"),
    *_both(9, Kind.NUMBER, 1, "src_net_len"),
    *_both(29, Kind.NUMBER, 1, "src_net_len"),
    *_both(13, Kind.NUMBER, 1, "dst_net_len"),
    *_both(30, Kind.NUMBER, 1, "dst_net_len"),
    *_both(15, Kind.IPV4, 4, "next_hop"),
    *_both(62, Kind.IPV6, 16, "next_hop"),
    *_both(18, Kind.IPV4, 4, "bgp_next_hop"),
    *_both(63, Kind.IPV6, 16, "bgp_next_hop"),
    *_both(61, Kind.NUMBER, 1, "flow_direction"),
    *_both(239, Kind.NUMBER, 1, "bi_flow_direction"),
    *_both(89, Kind.NUMBER, 1, "forwarding_status"),
    *_both(136, Kind.NUMBER, 1, "flow_end_reason"),
    *_cisco(34000, Kind.NUMBER, 2, "src_sgt"),
    *_cisco(34001, Kind.NUMBER, 2, "dst_sgt"),
    *_cisco(34002, Kind.TEXT, 0, "src_sgt_name"),
    *_cisco(34003, Kind.TEXT, 0, "dst_sgt_name"),
    *_both(234, Kind.NUMBER, 4, "ingress_vrf_id"),
    *_both(235, Kind.NUMBER, 4, "egress_vrf_id"),
    *_both(225, Kind.IPV4, 4, "nat_src_addr"),
    *_both(281, Kind.IPV6, 16, "nat_src_addr"),
    *_v9(40001, Kind.IPV4, 4, "nat_src_addr"),
    *_both(226, Kind.IPV4, 4, "nat_dst_addr"),
    *_both(282, Kind.IPV6, 16, "nat_dst_addr"),
    *_v9(40002, Kind.IPV4, 4, "nat_dst_addr"),
    *_both(227, Kind.NUMBER, 2, "nat_src_port"),
    *_v9(40003, Kind.NUMBER, 2, "nat_src_port"),
    *_both(228, Kind.NUMBER, 2, "nat_dst_port"),
    *_v9(40004, Kind.NUMBER, 2, "nat_dst_port"),
    *_both(230, Kind.NUMBER, 1, "nat_event"),
    *_both(233, Kind.NUMBER, 1, "firewall_event"),
    *_v9(40005, Kind.NUMBER, 1, "firewall_event"),
    *_both(96, Kind.TEXT, 0, "application_name"),
    *_both(371, Kind.TEXT, 0, "user_name"),
    *_v9(40000, Kind.TEXT, 0, "user_name"),
    *_both(147, Kind.TEXT, 0, "wlan_ssid"),
    *_both(365, Kind.MAC, 6, "wlan_client_mac"),
    *_both(367, Kind.MAC, 6, "wlan_ap_mac"),
    *_both(34, Kind.NUMBER, 4, "sampling_rate"),
    *_both(50, Kind.NUMBER, 4, "sampling_rate"),
)
"""Elements whose value is the column's. Those that have to be worked on have tables of their own in the tests."""

ELSEWHERE: Final[frozenset[int]] = frozenset(
    {
        *(21, 22),
        *range(150, 161),
        *(32, 60, 139, 256),
        *range(70, 80),
        *(95, 351),
        *(232, 299),
        *(305, 306, 309, 310, 311),
        *(104, 291, 292, 293, *range(313, 318)),
    }
)
"""IANA elements that mean something to the decoder and are not in the list: drawn at random they would disturb it."""
