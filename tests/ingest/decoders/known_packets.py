"""Packets of every kind that is taken apart, and what each tells, as record.md and the standards say: data for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests import sflow_builders as make
from tests.builders import mac, mapped
from tests.sflow_builders import (
    DST,
    DST6,
    DST_MAC,
    INNER_DST,
    INNER_DST_MAC,
    INNER_SRC,
    INNER_SRC_MAC,
    SRC,
    SRC6,
    SRC_MAC,
    Piece,
    authentication,
    control_word,
    ethernet,
    extension,
    fragment,
    geneve,
    gre,
    icmp,
    ipv4_packet,
    ipv6_packet,
    llc_snap,
    meta_data,
    mpls,
    ppp,
    pppoe,
    sctp,
    tcp,
    udp,
    vlan,
    vxlan,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A packet and the columns that it fills; of a tunnel that is entered, those that the inner packet fills instead."""

    name: str
    packet: bytes
    expected: Row
    protocol: int = make.ETHERNET
    tunnel: str | None = None
    inner: Row = field(default_factory=dict)
    cut: Row = field(default_factory=dict)
    """What a header that is cut may tell instead: of a pseudowire, the frame around it."""


def link(src: str = SRC_MAC, dst: str = DST_MAC) -> Row:
    """What an Ethernet header tells."""
    return {"src_mac": mac(src), "dst_mac": mac(dst)}


def four(src: str = SRC, dst: str = DST, **more: object) -> Row:
    """What an IPv4 header tells."""
    told = {
        "etype": 0x0800,
        "src_addr": mapped(src),
        "dst_addr": mapped(dst),
        "ip_tos": 0,
        "ip_ttl": 64,
        "fragment_id": 0x1234,
        "fragment_offset": 0,
    }
    return told | more


def six(src: str = SRC6, dst: str = DST6, **more: object) -> Row:
    """What an IPv6 header tells."""
    told = {
        "etype": 0x86DD,
        "src_addr": mapped(src),
        "dst_addr": mapped(dst),
        "ip_tos": 0,
        "ip_ttl": 64,
        "ipv6_flow_label": 0,
    }
    return told | more


def ports(proto: int, src: int = 40000, dst: int = 443, **more: object) -> Row:
    """What a transport header tells."""
    return {"proto": proto, "src_port": src, "dst_port": dst} | more


TCP: Final[Row] = ports(6, tcp_flags=0x18)
UDP: Final[Row] = ports(17, dst=53)
LINK: Final = link()
INNER_LINK: Final = link(INNER_SRC_MAC, INNER_DST_MAC)


def _inner(content: bytes) -> Piece:
    return ipv4_packet(content, src=INNER_SRC, dst=INNER_DST, ttl=7, identification=5)


def _framed(packet: bytes, *, etype: int | None = None) -> Piece:
    return ethernet(packet, src=INNER_SRC_MAC, dst=INNER_DST_MAC, etype=etype)


INNER: Final = four(INNER_SRC, INNER_DST, ip_ttl=7, fragment_id=5)
ARP: Final = bytes.fromhex("0001080006040001") + mac(SRC_MAC) + bytes(14)


_LINKS: Final = (
    Sampled("IPv4 and TCP", ethernet(ipv4_packet(tcp())), {**LINK, **four(), **TCP}),
    Sampled("IPv6 and UDP", ethernet(ipv6_packet(udp())), {**LINK, **six(), **UDP}),
    Sampled("ARP", ethernet(ARP, etype=0x0806), {**LINK, "etype": 0x0806}),
    Sampled("a VLAN", ethernet(vlan(10, ipv4_packet(tcp()))), {**LINK, **four(), **TCP, "src_vlan": 10}),
    Sampled(
        "a VLAN of priority 7",
        ethernet(vlan(4095, ipv4_packet(tcp()), priority=7)),
        {**LINK, **four(), **TCP, "src_vlan": 4095},
    ),
    Sampled(
        "a priority tag", ethernet(vlan(0, ipv4_packet(tcp()), priority=5)), {**LINK, **four(), **TCP, "src_vlan": 0}
    ),
    Sampled(
        "802.1ad around 802.1Q",
        ethernet(vlan(100, vlan(20, ipv4_packet(udp())), tpid=0x88A8)),
        {**LINK, **four(), **UDP, "src_vlan": 100, "inner_vlan": 20},
    ),
    Sampled(
        "0x9100 around 802.1Q",
        ethernet(vlan(100, vlan(20, ipv6_packet(tcp())), tpid=0x9100)),
        {**LINK, **six(), **TCP, "src_vlan": 100, "inner_vlan": 20},
    ),
    Sampled(
        "three VLANs",
        ethernet(vlan(1, vlan(2, vlan(3, ipv4_packet(tcp()))))),
        {**LINK, **four(), **TCP, "src_vlan": 1, "inner_vlan": 2},
    ),
    Sampled("a VLAN and ARP", ethernet(vlan(9, ARP, etype=0x0806)), {**LINK, "src_vlan": 9, "etype": 0x0806}),
    Sampled(
        "an MPLS label",
        ethernet(mpls(1000, content=ipv4_packet(tcp()))),
        {**LINK, **four(), **TCP, "mpls_labels": [1000]},
    ),
    Sampled(
        "an MPLS stack",
        ethernet(mpls(0xFFFFF, 16, 3, content=ipv6_packet(udp()))),
        {**LINK, **six(), **UDP, "mpls_labels": [0xFFFFF, 16, 3]},
    ),
    Sampled(
        "MPLS multicast in a VLAN",
        ethernet(vlan(7, mpls(20, content=ipv4_packet(udp()), etype=0x8848))),
        {**LINK, **four(), **UDP, "src_vlan": 7, "mpls_labels": [20]},
    ),
    Sampled("MPLS around what nothing tells", ethernet(mpls(30, content=b"\xa5" * 40)), {**LINK, "mpls_labels": [30]}),
    Sampled("MPLS around nothing", ethernet(mpls(30)), {**LINK, "mpls_labels": [30]}),
    Sampled(
        "a pseudowire",
        ethernet(mpls(40, 41, content=control_word(_framed(vlan(300, _inner(tcp())))))),
        {**INNER_LINK, **INNER, **TCP, "mpls_labels": [40, 41], "src_vlan": 300},
        cut=LINK,
    ),
    Sampled(
        "a pseudowire in a VLAN",
        ethernet(vlan(5, mpls(40, content=control_word(_framed(vlan(300, _inner(udp()))))))),
        {**INNER_LINK, **INNER, **UDP, "mpls_labels": [40], "src_vlan": 5, "inner_vlan": 300},
        cut=LINK,
    ),
    Sampled(
        "Cisco Meta Data", ethernet(meta_data(1234, ipv4_packet(tcp()))), {**LINK, **four(), **TCP, "src_sgt": 1234}
    ),
    Sampled("a group tag of zero", ethernet(meta_data(0, ipv6_packet(tcp()))), {**LINK, **six(), **TCP, "src_sgt": 0}),
    Sampled(
        "a VLAN and Cisco Meta Data",
        ethernet(vlan(10, meta_data(65535, ipv4_packet(udp())))),
        {**LINK, **four(), **UDP, "src_vlan": 10, "src_sgt": 65535},
    ),
    Sampled(
        "Cisco Meta Data and a VLAN",
        ethernet(meta_data(8, vlan(10, ipv4_packet(udp())))),
        {**LINK, **four(), **UDP, "src_vlan": 10, "src_sgt": 8},
    ),
    Sampled(
        "LLC and SNAP",
        ethernet(llc_snap(ipv4_packet(tcp())), etype=8 + 40),
        {**LINK, **four(), **TCP},
    ),
    Sampled("LLC that looks like SNAP", ethernet(b"\x42\x42\x03\0\0\0\x08\0" + ipv4_packet(tcp()), etype=48), LINK),
    Sampled("LLC alone", ethernet(b"\x42\x42\x03" + bytes(35), etype=38), LINK),
    Sampled(
        "LLC in a VLAN",
        ethernet(vlan(6, llc_snap(ipv4_packet(udp())), etype=36)),
        {**LINK, **four(), **UDP, "src_vlan": 6},
    ),
    Sampled("PPPoE and IPv4", ethernet(pppoe(ipv4_packet(tcp()))), {**LINK, **four(), **TCP}),
    Sampled(
        "PPPoE and IPv6 in a VLAN",
        ethernet(vlan(7, pppoe(ipv6_packet(udp())))),
        {**LINK, **six(), **UDP, "src_vlan": 7},
    ),
    Sampled("PPPoE and what is no packet", ethernet(pppoe(bytes(8), protocol=0xC021)), LINK),
    Sampled(
        "PPPoE, discovery", ethernet(bytes.fromhex("110900000004") + bytes(4), etype=0x8863), {**LINK, "etype": 0x8863}
    ),
)

_NO_ETHERNET: Final = (
    Sampled("IPv4 from the start", ipv4_packet(tcp()), {**four(), **TCP}, make.IPV4),
    Sampled("IPv6 from the start", ipv6_packet(udp()), {**six(), **UDP}, make.IPV6),
    Sampled(
        "MPLS from the start",
        mpls(9, 10, content=ipv4_packet(tcp())),
        {**four(), **TCP, "mpls_labels": [9, 10]},
        make.MPLS,
    ),
    Sampled("PPP", ppp(ipv4_packet(tcp())), {**four(), **TCP}, make.PPP),
    Sampled("PPP, framed", ppp(ipv6_packet(tcp()), framed=True), {**six(), **TCP}, make.PPP),
    Sampled("PPP and MPLS", ppp(mpls(9, content=ipv4_packet(udp()))), {**four(), **UDP, "mpls_labels": [9]}, make.PPP),
    Sampled("PPP and what is no packet", ppp(bytes(40), protocol=0xC021), {}, make.PPP),
    Sampled("packet over SONET", ppp(ipv4_packet(tcp()), framed=True), {**four(), **TCP}, make.POS),
    Sampled("token ring", bytes(range(64)), {}, make.TOKEN_RING),
    Sampled("802.11", bytes(range(64)), {}, make.WIFI),
    Sampled("nothing", b"", {}),
)

_NETWORKS: Final = (
    Sampled(
        "IPv4, each field",
        ethernet(ipv4_packet(udp(), tos=0xB9, ttl=255, identification=0xFFFF)),
        {**LINK, **four(ip_tos=0xB9, ip_ttl=255, fragment_id=0xFFFF), **UDP},
    ),
    Sampled("IPv4 with options", ethernet(ipv4_packet(tcp(), options=bytes(4))), {**LINK, **four(), **TCP}),
    Sampled(
        "IPv4 with all the options it can have",
        ethernet(ipv4_packet(tcp(), options=bytes(40))),
        {**LINK, **four(), **TCP},
    ),
    Sampled("IPv4, the first fragment", ethernet(ipv4_packet(udp(), more=True)), {**LINK, **four(), **UDP}),
    Sampled(
        "IPv4, a later fragment",
        ethernet(ipv4_packet(b"\xa5" * 32, proto=17, offset=185, more=True)),
        {**LINK, **four(fragment_offset=185), "proto": 17},
    ),
    Sampled(
        "IPv4, the last fragment there can be",
        ethernet(ipv4_packet(b"\xa5" * 8, proto=6, offset=0x1FFF)),
        {**LINK, **four(fragment_offset=0x1FFF), "proto": 6},
    ),
    Sampled(
        "IPv4 with a header too short", ethernet(ipv4_packet(tcp(), words_of_header=4)), {**LINK, **four(), "proto": 6}
    ),
    Sampled("IPv4 of another version", ethernet(ipv4_packet(tcp(), version=5)), {**LINK, "etype": 0x0800}),
    Sampled(
        "IPv4 and an authentication header",
        ethernet(ipv4_packet(authentication(tcp()))),
        {**LINK, **four(), "proto": 51},
    ),
    Sampled(
        "IPv6, each field",
        ethernet(ipv6_packet(tcp(), traffic_class=0xB9, flow_label=0xFFFFF, hop_limit=255)),
        {**LINK, **six(ip_tos=0xB9, ipv6_flow_label=0xFFFFF, ip_ttl=255), **TCP},
    ),
    Sampled("IPv6 of another version", ethernet(ipv6_packet(tcp(), version=4)), {**LINK, "etype": 0x86DD}),
    Sampled("IPv6 and nothing", ethernet(ipv6_packet()), {**LINK, **six(proto=59)}),
    *(
        Sampled(f"IPv6, extension {kind}", ethernet(ipv6_packet(extension(kind, udp()))), {**LINK, **six(), **UDP})
        for kind in (make.HOP_BY_HOP, make.ROUTING, make.DESTINATION, make.MOBILITY, make.HIP, make.SHIM6)
    ),
    Sampled(
        "IPv6, a long extension",
        ethernet(ipv6_packet(extension(make.ROUTING, tcp(), more_words=6))),
        {**LINK, **six(), **TCP},
    ),
    Sampled("IPv6, authentication", ethernet(ipv6_packet(authentication(tcp()))), {**LINK, **six(), **TCP}),
    Sampled(
        "IPv6, extensions in a row",
        ethernet(
            ipv6_packet(
                extension(
                    make.HOP_BY_HOP,
                    extension(
                        make.DESTINATION,
                        extension(make.ROUTING, fragment(authentication(extension(make.DESTINATION, udp())), offset=0)),
                    ),
                )
            )
        ),
        {**LINK, **six(fragment_id=0x01020304, fragment_offset=0), **UDP},
    ),
    Sampled(
        "IPv6, the first fragment",
        ethernet(ipv6_packet(fragment(udp(), offset=0, more=True, identification=0xFFFFFFFF))),
        {**LINK, **six(fragment_id=0xFFFFFFFF, fragment_offset=0), **UDP},
    ),
    Sampled(
        "IPv6, a fragment whose reserved octet is not 0",
        ethernet(ipv6_packet(fragment(udp(), offset=0, reserved=0xFF))),
        {**LINK, **six(fragment_id=0x01020304, fragment_offset=0), **UDP},
    ),
    Sampled(
        "IPv6, a later fragment",
        ethernet(ipv6_packet(fragment(b"\xa5" * 32, offset=181, proto=17))),
        {**LINK, **six(fragment_id=0x01020304, fragment_offset=181), "proto": 17},
    ),
    Sampled(
        "IPv6, a later fragment of what begins with an extension",
        ethernet(ipv6_packet(fragment(b"\x06\x00" * 16, offset=181, proto=60))),
        {**LINK, **six(fragment_id=0x01020304, fragment_offset=181)},
    ),
    Sampled("IPv6, encrypted", ethernet(ipv6_packet(b"\xa5" * 32, proto=50)), {**LINK, **six(proto=50)}),
)

_TRANSPORTS: Final = (
    Sampled("TCP, each flag", ethernet(ipv4_packet(tcp(flags=0x1FF))), {**LINK, **four(), **ports(6, tcp_flags=0x1FF)}),
    Sampled("TCP, no flag", ethernet(ipv6_packet(tcp(flags=0))), {**LINK, **six(), **ports(6, tcp_flags=0)}),
    Sampled("SCTP", ethernet(ipv4_packet(sctp())), {**LINK, **four(), **ports(132, dst=3868)}),
    Sampled("DCCP", ethernet(ipv4_packet(udp(proto=33))), {**LINK, **four(), **ports(33, dst=53)}),
    Sampled("UDP-Lite", ethernet(ipv6_packet(udp(proto=136))), {**LINK, **six(), **ports(136, dst=53)}),
    Sampled("ICMP", ethernet(ipv4_packet(icmp(3, 13))), {**LINK, **four(proto=1, icmp_type=3, icmp_code=13)}),
    Sampled(
        "ICMPv6", ethernet(ipv6_packet(icmp(135, 0, six=True))), {**LINK, **six(proto=58, icmp_type=135, icmp_code=0)}
    ),
    Sampled("OSPF", ethernet(ipv4_packet(b"\xa5" * 24, proto=89)), {**LINK, **four(proto=89)}),
)

_VXLAN: Final = ports(17, 50000, 4789)
_GENEVE: Final = ports(17, 50000, 6081)

_TUNNELS: Final = (
    Sampled(
        "GRE",
        ethernet(ipv4_packet(gre(_inner(tcp())))),
        {**LINK, **four(proto=47)},
        tunnel="gre",
        inner={**LINK, **INNER, **TCP},
    ),
    Sampled(
        "GRE over IPv6 with checksum, key and sequence number",
        ethernet(ipv6_packet(gre(_inner(udp()), checksum=True, key=7, sequence=9))),
        {**LINK, **six(proto=47)},
        tunnel="gre",
        inner={**LINK, **INNER, **UDP},
    ),
    Sampled(
        "GRE with a key, around IPv6",
        ethernet(ipv4_packet(gre(ipv6_packet(udp()), key=7))),
        {**LINK, **four(proto=47)},
        tunnel="gre",
        inner={**LINK, **six(), **UDP},
    ),
    Sampled(
        "GRE around Ethernet",
        ethernet(vlan(11, ipv4_packet(gre(_framed(vlan(22, _inner(tcp()))))))),
        {**LINK, **four(proto=47), "src_vlan": 11},
        tunnel="gre",
        inner={**INNER_LINK, **INNER, **TCP, "src_vlan": 22},
    ),
    Sampled(
        "GRE around MPLS",
        ethernet(ipv4_packet(gre(mpls(77, content=_inner(tcp()))))),
        {**LINK, **four(proto=47)},
        tunnel="gre",
        inner={**LINK, **INNER, **TCP, "mpls_labels": [77]},
    ),
    Sampled(
        "GRE with Cisco Meta Data",
        ethernet(ipv4_packet(gre(_inner(tcp()), tag=555))),
        {**LINK, **four(proto=47), "src_sgt": 555},
        tunnel="gre",
        inner={**LINK, **INNER, **TCP, "src_sgt": 555},
    ),
    Sampled(
        "GRE with a key and Cisco Meta Data",
        ethernet(ipv4_packet(gre(_inner(tcp()), key=1, tag=0))),
        {**LINK, **four(proto=47), "src_sgt": 0},
        tunnel="gre",
        inner={**LINK, **INNER, **TCP, "src_sgt": 0},
    ),
    Sampled(
        "GRE around a sign of life",
        ethernet(ipv4_packet(gre(b"", etype=0))),
        {**LINK, **four(proto=47)},
        tunnel="gre",
        inner={**LINK, **four(proto=47)},
    ),
    Sampled(
        "GRE around what is no packet",
        ethernet(ipv4_packet(gre(b"\xa5" * 40, etype=0x88BE))),
        {**LINK, **four(proto=47)},
        tunnel="gre",
        inner={**LINK, **four(proto=47)},
    ),
    Sampled(
        "IPv4 in IPv4",
        ethernet(ipv4_packet(_inner(tcp()))),
        {**LINK, **four(proto=4)},
        tunnel="ipip",
        inner={**LINK, **INNER, **TCP},
    ),
    Sampled(
        "IPv6 in IPv4",
        ethernet(ipv4_packet(ipv6_packet(icmp(128, 0, six=True)))),
        {**LINK, **four(proto=41)},
        tunnel="ipip",
        inner={**LINK, **six(proto=58, icmp_type=128, icmp_code=0)},
    ),
    Sampled(
        "IPv4 in IPv6 behind an extension",
        ethernet(ipv6_packet(extension(make.DESTINATION, _inner(udp())))),
        {**LINK, **six(proto=4)},
        tunnel="ipip",
        inner={**LINK, **INNER, **UDP},
    ),
    Sampled(
        "VXLAN",
        ethernet(ipv4_packet(vxlan(0xABCDEF, _framed(_inner(tcp()))))),
        {**LINK, **four(), **_VXLAN, "vni": 0xABCDEF},
        tunnel="vxlan",
        inner={**INNER_LINK, **INNER, **TCP, "vni": 0xABCDEF},
    ),
    Sampled(
        "VXLAN with a group, over IPv6",
        ethernet(ipv6_packet(vxlan(5, _framed(vlan(33, _inner(udp()))), group=4321))),
        {**LINK, **six(), **_VXLAN, "vni": 5, "src_sgt": 4321},
        tunnel="vxlan",
        inner={**INNER_LINK, **INNER, **UDP, "vni": 5, "src_sgt": 4321, "src_vlan": 33},
    ),
    Sampled(
        "VXLAN with a group and no network",
        ethernet(ipv4_packet(vxlan(None, _framed(_inner(udp())), group=0))),
        {**LINK, **four(), **_VXLAN, "src_sgt": 0},
        tunnel="vxlan",
        inner={**INNER_LINK, **INNER, **UDP, "src_sgt": 0},
    ),
    Sampled(
        "VXLAN around ARP",
        ethernet(ipv4_packet(vxlan(5, _framed(ARP, etype=0x0806)))),
        {**LINK, **four(), **_VXLAN, "vni": 5},
        tunnel="vxlan",
        inner={**INNER_LINK, "etype": 0x0806, "vni": 5},
    ),
    Sampled(
        "Geneve around Ethernet",
        ethernet(ipv4_packet(geneve(0x123456, _framed(_inner(tcp()))))),
        {**LINK, **four(), **_GENEVE, "vni": 0x123456},
        tunnel="geneve",
        inner={**INNER_LINK, **INNER, **TCP, "vni": 0x123456},
    ),
    Sampled(
        "Geneve with options, around IPv4",
        ethernet(ipv4_packet(geneve(1, _inner(udp()), options=bytes(12)))),
        {**LINK, **four(), **_GENEVE, "vni": 1},
        tunnel="geneve",
        inner={**LINK, **INNER, **UDP, "vni": 1},
    ),
)

PACKETS: Final = (*_LINKS, *_NO_ETHERNET, *_NETWORKS, *_TRANSPORTS, *_TUNNELS)
TUNNELS: Final = _TUNNELS
