"""sFlow datagrams and the packets inside them, built by hand: small functions that each make a few bytes.

Nothing is checked and nothing is mended: a count that lies, a length that is too long or a header that is cut off is
given as it is wanted. Numbers are in network byte order. Sizes that are left out are computed.

A piece of a packet knows the numbers by which what lies before it announces it, so that pieces go into one another:

    datagram(
        flow_sample(
            sampled_header(ethernet(vlan(10, ipv4_packet(tcp(443), options=bytes(4))))),
            switch(10, 20),
            input_if=3,
            output_if=discarded(258),
        ),
        agent="192.0.2.10",
        sub_agent=7,
    )
"""

from __future__ import annotations

import struct
from typing import Final, Self

from tests.builders import UPTIME_MS, ipv4, ipv6, mac

FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED = 1, 2, 3, 4, 5
"""Samples by their format."""
ETHERNET, TOKEN_RING, PPP, IPV4, IPV6, MPLS, POS, WIFI = 1, 3, 7, 11, 12, 13, 14, 15
"""What a sampled header begins with."""
UNKNOWN: Final = 0xFFFFFFFF
"""A number that an agent does not know."""
MOST: Final = 0xFFFFFFFF
"""The largest that a count or a length can be."""
SRC_MAC, DST_MAC = "02:00:5e:10:00:01", "02:00:5e:10:00:02"
INNER_SRC_MAC, INNER_DST_MAC = "02:00:5e:20:00:01", "02:00:5e:20:00:02"
SRC, DST = "192.0.2.1", "198.51.100.2"
SRC6, DST6 = "2001:db8::1", "2001:db8:1::2"
INNER_SRC, INNER_DST = "10.1.0.1", "10.2.0.2"
TCP_PROTOCOL, UDP_PROTOCOL, ICMP_PROTOCOL, ICMPV6_PROTOCOL, SCTP_PROTOCOL = 6, 17, 1, 58, 132
NO_NEXT_HEADER: Final = 59


# --- XDR


def words(*numbers: int) -> bytes:
    """Words of 32 bits."""
    return struct.pack(f"!{len(numbers)}I", *numbers)


def opaque(content: str | bytes, *, length: int | None = None) -> bytes:
    """Bytes or a text with their length before them, filled up to a multiple of four."""
    content = content.encode() if isinstance(content, str) else content
    return words(len(content) if length is None else length) + content + bytes(-len(content) % 4)


def typed_address(text: str | None) -> bytes:
    """An address with its type before it; None is one that is not known."""
    if text is None:
        return words(0)
    return words(2) + ipv6(text) if ":" in text else words(1) + ipv4(text)


def tagged(kind: int, body: bytes, *, enterprise: int = 0, length: int | None = None) -> bytes:
    """A sample or a record: what it is, how long, and its body filled up to a multiple of four."""
    size = len(body) if length is None else length
    return words(enterprise << 12 | kind, size) + body + bytes(-len(body) % 4)


# --- datagrams


def datagram(
    *samples: bytes,
    agent: str | None = "192.0.2.10",
    agent_type: int | None = None,
    sub_agent: int = 0,
    sequence: int = 1,
    uptime_ms: int = UPTIME_MS,
    count: int | None = None,
    version: int = 5,
) -> bytes:
    """Header and samples; `agent_type` is the address's own, unless it is to lie."""
    address = typed_address(agent)
    if agent_type is not None:
        address = words(agent_type) + address[4:]
    number = len(samples) if count is None else count
    return words(version) + address + words(sub_agent, sequence, uptime_ms, number) + b"".join(samples)


# --- samples


def discarded(reason: int) -> int:
    """An output interface that tells why the packet went nowhere."""
    return 1 << 30 | reason


def multiple(count: int) -> int:
    """An output interface that tells that the packet went to several; 0 when it is not known how many."""
    return 2 << 30 | count


def flow_sample(
    *records: bytes,
    sequence: int = 1,
    source_id: int = 0x00000003,
    rate: int = 512,
    pool: int = 512,
    drops: int = 0,
    input_if: int = 3,
    output_if: int = 4,
    count: int | None = None,
    length: int | None = None,
) -> bytes:
    """A flow sample, whose interfaces have their form in the upper two bits."""
    number = len(records) if count is None else count
    fixed = words(sequence, source_id, rate, pool, drops, input_if, output_if, number)
    return tagged(FLOW, fixed + b"".join(records), length=length)


def expanded_flow_sample(
    *records: bytes,
    sequence: int = 1,
    source: tuple[int, int] = (0, 3),
    rate: int = 512,
    pool: int = 512,
    drops: int = 0,
    input_if: tuple[int, int] = (0, 3),
    output_if: tuple[int, int] = (0, 4),
    count: int | None = None,
    length: int | None = None,
) -> bytes:
    """An expanded flow sample, whose data source and interfaces have their form in a word of its own."""
    number = len(records) if count is None else count
    fixed = words(sequence, *source, rate, pool, drops, *input_if, *output_if, number)
    return tagged(EXPANDED_FLOW, fixed + b"".join(records), length=length)


def discarded_packet(
    *records: bytes,
    sequence: int = 1,
    source: tuple[int, int] = (0, 3),
    drops: int = 0,
    input_if: int = 3,
    output_if: int = 0,
    reason: int = 258,
    count: int | None = None,
    length: int | None = None,
) -> bytes:
    """A packet that was discarded, and why (sFlow Dropped Packet Notification Structures)."""
    number = len(records) if count is None else count
    fixed = words(sequence, *source, drops, input_if, output_if, reason, number)
    return tagged(DISCARDED, fixed + b"".join(records), length=length)


def counters_sample(*records: bytes, sequence: int = 1, source_id: int = 3, count: int | None = None) -> bytes:
    """A counters sample."""
    number = len(records) if count is None else count
    return tagged(COUNTERS, words(sequence, source_id, number) + b"".join(records))


# --- flow records that fill columns


def sampled_header(
    packet: bytes,
    *,
    protocol: int = ETHERNET,
    frame_length: int | None = None,
    stripped: int = 4,
    length: int | None = None,
) -> bytes:
    """Record 1: the first bytes of a packet; the frame's length has its check sequence in it."""
    frame = len(packet) + 4 if frame_length is None else frame_length
    return tagged(1, words(protocol, frame, stripped) + opaque(packet, length=length))


def ethernet_record(*, length: int = 1500, src: str = SRC_MAC, dst: str = DST_MAC, etype: int = 0x0800) -> bytes:
    """Record 2: a frame, whose addresses are filled up to eight bytes each."""
    return tagged(2, words(length) + mac(src) + bytes(2) + mac(dst) + bytes(2) + words(etype))


def ip_record(
    *,
    length: int = 1480,
    proto: int = 6,
    src: str = SRC,
    dst: str = DST,
    src_port: int = 40000,
    dst_port: int = 443,
    tcp_flags: int = 0x18,
    tos: int = 0,
    kind: int | None = None,
) -> bytes:
    """Record 3 or 4, by the family of the addresses: an IP packet in words."""
    six = ":" in src
    ends = ipv6(src) + ipv6(dst) if six else ipv4(src) + ipv4(dst)
    body = words(length, proto) + ends + words(src_port, dst_port, tcp_flags, tos)
    return tagged((4 if six else 3) if kind is None else kind, body)


def switch(src_vlan: int, dst_vlan: int, *, src_priority: int = 0, dst_priority: int = 0) -> bytes:
    """Record 1001."""
    return tagged(1001, words(src_vlan, src_priority, dst_vlan, dst_priority))


def router(next_hop: str | None, src_mask: int, dst_mask: int) -> bytes:
    """Record 1002."""
    return tagged(1002, typed_address(next_hop) + words(src_mask, dst_mask))


SET, SEQUENCE = 1, 2
"""Segments of an AS path."""


def gateway(
    next_hop: str | None = "203.0.113.9",
    *,
    own_as: int = 64500,
    src_as: int = 64496,
    src_peer_as: int = 64497,
    path: tuple[tuple[int, tuple[int, ...]], ...] = (),
    segments: int | None = None,
    communities: tuple[int, ...] = (),
    local_preference: int = 100,
) -> bytes:
    """Record 1003; the path is segments of their type and AS numbers."""
    body = typed_address(next_hop) + words(own_as, src_as, src_peer_as, len(path) if segments is None else segments)
    for kind, numbers in path:
        body += words(kind, len(numbers), *numbers)
    return tagged(1003, body + words(len(communities), *communities, local_preference))


def user(src: str | bytes, dst: str | bytes = b"", *, charset: int = 106) -> bytes:
    """Record 1004; 106 is UTF-8."""
    return tagged(1004, words(charset) + opaque(src) + words(charset) + opaque(dst))


def mpls_record(next_hop: str | None, labels: tuple[int, ...], out_labels: tuple[int, ...] = ()) -> bytes:
    """Record 1006: both label stacks in the words of RFC 3032."""
    return tagged(1006, typed_address(next_hop) + b"".join(map(_stack, (labels, out_labels))))


def _stack(labels: tuple[int, ...]) -> bytes:
    last = len(labels) - 1
    return words(len(labels), *(label << 12 | (at == last) << 8 | 64 for at, label in enumerate(labels)))


def nat(src: str | None, dst: str | None) -> bytes:
    """Record 1007."""
    return tagged(1007, typed_address(src) + typed_address(dst))


def nat_ports(src_port: int, dst_port: int) -> bytes:
    """Record 1020."""
    return tagged(1020, words(src_port, dst_port))


def tunnel_vni(vni: int, *, ingress: bool = False) -> bytes:
    """Record 1029, or 1030 of the side where the packet came in."""
    return tagged(1030 if ingress else 1029, words(vni))


def vlan_tunnel(*vlans: int, tpid: int = 0x88A8, count: int | None = None) -> bytes:
    """Record 1012: tags that were taken off, the outermost first."""
    return tagged(1012, words(len(vlans) if count is None else count, *(tpid << 16 | number for number in vlans)))


def timestamp(nanoseconds: int) -> bytes:
    """Record 1043: when the packet was seen."""
    return tagged(1043, words(nanoseconds >> 32, nanoseconds & 0xFFFFFFFF))


def socket(
    *,
    local: str = SRC,
    remote: str = DST,
    proto: int = 6,
    local_port: int = 443,
    port: int = 40000,
    proxied: bool = False,
) -> bytes:
    """Record 2100 or 2101 by the family, 2102 or 2103 of the other side of a proxy."""
    six = ":" in local
    ends = ipv6(local) + ipv6(remote) if six else ipv4(local) + ipv4(remote)
    return tagged(2100 + six + 2 * proxied, words(proto) + ends + words(local_port, port))


# --- flow records that fill no column

OTHER_RECORDS: Final[dict[int, bytes]] = {
    1005: words(1) + opaque("http://example.net/") + opaque("example.net"),
    1008: opaque("tunnel-1") + words(7, 3),
    1009: opaque("vc-1") + words(9, 5),
    1010: opaque("fec") + words(24),
    1011: words(24),
    1013: words(4, 1, 64, 0) + opaque(bytes(64)),
    1014: opaque("guests") + mac(SRC_MAC) + bytes(2) + words(4, 36, 0, 54_000_000, 40, 60, 120),
    1015: opaque("guests") + mac(SRC_MAC) + bytes(2) + words(4, 1, 120, 0, 36, 0, 54_000_000, 100),
    1016: words(0),
    1017: words(0, 7, 0, 0),
    1018: words(16, 24) + typed_address("203.0.113.1") + words(1),
    1019: words(3, 40),
    1021: words(1500) + mac(SRC_MAC) + bytes(2) + mac(DST_MAC) + bytes(2) + words(0x0800),
    1022: words(1500) + mac(SRC_MAC) + bytes(2) + mac(DST_MAC) + bytes(2) + words(0x0800),
    1023: words(1480, 17) + ipv4(SRC) + ipv4(DST) + words(50000, 4789, 0, 0),
    1024: words(1480, 17) + ipv4(SRC) + ipv4(DST) + words(50000, 4789, 0, 0),
    1025: words(1480, 17) + ipv6(SRC6) + ipv6(DST6) + words(50000, 4789, 0, 0),
    1026: words(1480, 17) + ipv6(SRC6) + ipv6(DST6) + words(50000, 4789, 0, 0),
    1027: words(50),
    1028: words(50),
    1031: words(0, 0, 0, 0, 64),
    1032: bytes(40),
    1033: bytes(12),
    1034: words(1, 0x81000064),
    1035: words(1, 0x81000064),
    1036: words(3),
    1037: words(7) + opaque("edge-in") + words(1),
    1038: opaque("tcp_v4_rcv"),
    1039: words(1200),
    1040: words(9000),
    1041: opaque("l2_drops") + opaque("vlan_tag_mismatch"),
    1042: opaque("NETFILTER_DROP"),
    2000: words(1, 2, 3, 0, 0, 40, 0, 50),
    2001: words(1, 2, 3, 0),
    2002: words(1, 2, 3, 0),
    2003: words(1, 2, 3, 0),
    2200: words(1, 2) + opaque("key") + words(1, 10, 20, 0),
    2201: words(2, 1001) + opaque("/") + opaque("example.net") + opaque("") * 4 + words(0, 200, 3, 200),
    2202: opaque("shop") + opaque("buy") + opaque("") + opaque("") + words(0, 10, 0, 20, 300, 0),
    2203: opaque("shop") + opaque("buy") + opaque(""),
    2204: opaque("alice"),
    2205: opaque("bob"),
    2206: words(2, 1001) + opaque("/") + opaque("example.net") + opaque("") * 5 + words(0, 1, 0, 2, 3, 200),
    2207: opaque("/") + opaque("example.net"),
    2208: bytes(80),
    2209: words(1, 1460, 1460, 0, 0, 0, 1500, 300, 20, 10, 3, 250),
    2210: words(0, 3, 2, 7),
}
"""A plausible body of each record that is known by number and has no column, by its format."""


# --- packets


class Piece(bytes):
    """Bytes of a packet, with the numbers by which what lies before them announces them."""

    etype: int
    proto: int
    ppp: int

    def __new__(cls, content: bytes, *, etype: int = 0, proto: int = NO_NEXT_HEADER, ppp: int = 0) -> Self:
        """Content, and its EtherType, IP protocol and PPP protocol as far as it has any."""
        piece = super().__new__(cls, content)
        piece.etype, piece.proto, piece.ppp = etype, proto, ppp
        return piece


NOTHING: Final = Piece(b"")


def _etype(content: bytes, etype: int | None) -> int:
    """The EtherType that was asked for, else the content's own."""
    if etype is not None:
        return etype
    return content.etype if isinstance(content, Piece) else 0


def _proto(content: bytes, proto: int | None) -> int:
    if proto is not None:
        return proto
    return content.proto if isinstance(content, Piece) else NO_NEXT_HEADER


def ethernet(content: bytes, *, src: str = SRC_MAC, dst: str = DST_MAC, etype: int | None = None) -> Piece:
    """An Ethernet frame; inside GRE or Geneve it is announced as transparent bridging."""
    head = mac(dst) + mac(src) + struct.pack("!H", _etype(content, etype))
    return Piece(head + content, etype=0x6558, proto=143)


def vlan(number: int, content: bytes, *, tpid: int = 0x8100, priority: int = 0, etype: int | None = None) -> Piece:
    """A VLAN tag: 0x8100 of a customer, 0x88A8 of a provider."""
    return Piece(struct.pack("!HH", priority << 13 | number, _etype(content, etype)) + content, etype=tpid)


def mpls(*labels: int, content: bytes = b"", bottom: bool = True, ttl: int = 64, etype: int = 0x8847) -> Piece:
    """A stack of labels, outermost first; what is inside, nothing announces."""
    last = len(labels) - 1
    stack = words(*(label << 12 | (bottom and at == last) << 8 | ttl for at, label in enumerate(labels)))
    return Piece(stack + content, etype=etype, ppp=0x0281, proto=137)


def control_word(content: bytes) -> bytes:
    """The word before a frame that goes over a pseudowire (RFC 4385 §3)."""
    return bytes(4) + content


def meta_data(tag: int, content: bytes, *, etype: int | None = None) -> Piece:
    """Cisco Meta Data: version, length, option, the group tag, and the EtherType of what follows."""
    return Piece(struct.pack("!BBHHH", 1, 1, 1, tag, _etype(content, etype)) + content, etype=0x8909)


def llc_snap(content: bytes, *, etype: int | None = None, oui: bytes = bytes(3)) -> bytes:
    """IEEE 802.2 with the extension that has room for an EtherType; announced by a frame's length."""
    return b"\xaa\xaa\x03" + oui + struct.pack("!H", _etype(content, etype)) + content


def pppoe(content: bytes, *, protocol: int | None = None) -> Piece:
    """A session of PPP over Ethernet (RFC 2516)."""
    inner = ppp(content, protocol=protocol)
    return Piece(struct.pack("!BBHH", 0x11, 0, 0x1234, len(inner)) + inner, etype=0x8864)


def ppp(content: bytes, *, protocol: int | None = None, framed: bool = False) -> bytes:
    """A PPP frame, with or without the octets of HDLC before it (RFC 1662)."""
    number = (content.ppp if isinstance(content, Piece) else 0) if protocol is None else protocol
    return (b"\xff\x03" if framed else b"") + struct.pack("!H", number) + content


def ipv4_packet(
    content: bytes = NOTHING,
    *,
    src: str = SRC,
    dst: str = DST,
    proto: int | None = None,
    tos: int = 0,
    ttl: int = 64,
    identification: int = 0x1234,
    offset: int = 0,
    more: bool = False,
    options: bytes = b"",
    version: int = 4,
    words_of_header: int | None = None,
) -> Piece:
    """An IPv4 packet; `offset` in units of eight bytes and `more` make it a fragment."""
    size = 5 + len(options) // 4 if words_of_header is None else words_of_header
    total = 20 + len(options) + len(content)
    place = offset | (0x2000 if more else 0)
    head = struct.pack(
        "!BBHHHBBH", version << 4 | size, tos, total, identification, place, ttl, _proto(content, proto), 0
    )
    return Piece(head + ipv4(src) + ipv4(dst) + options + content, etype=0x0800, proto=4, ppp=0x0021)


def ipv6_packet(
    content: bytes = NOTHING,
    *,
    src: str = SRC6,
    dst: str = DST6,
    proto: int | None = None,
    traffic_class: int = 0,
    flow_label: int = 0,
    hop_limit: int = 64,
    version: int = 6,
) -> Piece:
    """An IPv6 packet; its content may begin with extension headers."""
    first = version << 28 | traffic_class << 20 | flow_label
    head = struct.pack("!IHBB", first, len(content), _proto(content, proto), hop_limit)
    return Piece(head + ipv6(src) + ipv6(dst) + content, etype=0x86DD, proto=41, ppp=0x0057)


HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 51, 60, 135, 139, 140
"""Extension headers of IPv6."""


def extension(kind: int, content: bytes, *, more_words: int = 0, proto: int | None = None) -> Piece:
    """An extension header of `more_words` times 8 bytes more than its first 8."""
    head = bytes([_proto(content, proto), more_words]) + bytes(6 + 8 * more_words)
    return Piece(head + content, proto=kind)


def authentication(content: bytes, *, proto: int | None = None) -> Piece:
    """An authentication header of 24 bytes, which counts itself in words of 4 (RFC 4302 §2.2)."""
    return Piece(bytes([_proto(content, proto), 4]) + bytes(22) + content, proto=AUTHENTICATION)


def fragment(
    content: bytes,
    *,
    offset: int,
    more: bool = False,
    identification: int = 0x01020304,
    reserved: int = 0,
    proto: int | None = None,
) -> Piece:
    """An IPv6 fragment header; `offset` in units of eight bytes."""
    head = struct.pack("!BBHI", _proto(content, proto), reserved, offset << 3 | more, identification)
    return Piece(head + content, proto=FRAGMENT)


def tcp(dst_port: int = 443, *, src_port: int = 40000, flags: int = 0x18, content: bytes = b"") -> Piece:
    """A TCP segment; `flags` are the lower nine bits, and the header's length stands above them."""
    head = struct.pack("!HHIIHHHH", src_port, dst_port, 1, 2, 5 << 12 | flags, 8192, 0, 0)
    return Piece(head + content, proto=TCP_PROTOCOL)


def udp(content: bytes = b"", *, dst_port: int = 53, src_port: int = 40000, proto: int = UDP_PROTOCOL) -> Piece:
    """A UDP datagram; the checksum says that there is none."""
    return Piece(struct.pack("!HHHH", src_port, dst_port, 8 + len(content), 0) + content, proto=proto)


def sctp(dst_port: int = 3868, *, src_port: int = 40000) -> Piece:
    """The common header of an SCTP packet."""
    return Piece(struct.pack("!HHII", src_port, dst_port, 7, 0), proto=SCTP_PROTOCOL)


def icmp(type_: int, code: int, *, six: bool = False) -> Piece:
    """An ICMP message of either version."""
    head = struct.pack("!BBHI", type_, code, 0, 0)
    return Piece(head, proto=ICMPV6_PROTOCOL if six else ICMP_PROTOCOL)


def gre(
    content: bytes,
    *,
    etype: int | None = None,
    checksum: bool = False,
    key: int | None = None,
    sequence: int | None = None,
    tag: int | None = None,
) -> Piece:
    """GRE (RFC 2784, RFC 2890), over which Cisco Meta Data has the EtherType before all else."""
    flags = checksum << 15 | (key is not None) << 13 | (sequence is not None) << 12
    carried = _etype(content, etype)
    head = struct.pack("!HH", flags, carried if tag is None else 0x8909)
    for present, value in ((checksum, 0), (key is not None, key), (sequence is not None, sequence)):
        head += words(value or 0) if present else b""
    if tag is not None:
        head += struct.pack("!HBBHH", carried, 1, 1, 1, tag)
    return Piece(head + content, proto=47)


def vxlan(vni: int | None, content: bytes, *, group: int | None = None, src_port: int = 50000) -> Piece:
    """VXLAN over UDP; with a group its tag is there (draft-smith-vxlan-group-policy)."""
    flags = (0 if vni is None else 0x0800) | (0 if group is None else 0x8000)
    head = struct.pack("!HHI", flags, group or 0, (vni or 0) << 8)
    return udp(head + content, dst_port=4789, src_port=src_port)


def geneve(vni: int, content: bytes, *, options: bytes = b"", etype: int | None = None, src_port: int = 50000) -> Piece:
    """Geneve over UDP; options have a multiple of four bytes (RFC 8926)."""
    head = struct.pack("!BBHI", len(options) // 4, 0, _etype(content, etype), vni << 8)
    return udp(head + options + content, dst_port=6081, src_port=src_port)
