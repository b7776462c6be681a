"""The headers of sampled packets, put together from the first octet, for all conversations at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ingest.generator.layouts import BYTES_LEFT, UDP_BYTES_LEFT, Field
from ingest.generator.packets import TRANSPORT_BYTES, UDP

VLAN, SERVICE_VLAN, MPLS, META_DATA, IPV4, IPV6 = 0x8100, 0x88A8, 0x8847, 0x8909, 0x0800, 0x86DD
VXLAN_PORT: Final = 4789
FCS_BYTES: Final = 4
"""The check sequence at the end of an Ethernet frame: agents count it, and do not send it."""
TRANSPORT: Final = ("src_port", "dst_port", "tcp_flags", "icmp_type", "icmp_code")
"""Columns of the record that stand behind the IP header, some of them in each protocol."""
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000


def fixed(*numbers: int, length: int = 4) -> Field:
    """Numbers that are the same in every record, of so many bytes each."""
    return Field(0, 0, prefix=b"".join(number.to_bytes(length, "big") for number in numbers))


@dataclass(frozen=True, slots=True)
class Frame:
    """The first headers of a packet; each method gives those, and what it adds behind them."""

    fields: tuple[Field, ...] = ()
    checksums: tuple[int, ...] = ()
    """Where IPv4 headers begin, whose checksums depend on the packet's length."""
    columns: tuple[str, ...] = ()
    """Columns of the record that are told by what is not a field of its own."""
    constants: tuple[tuple[str, int], ...] = ()
    """Columns of the record that are the same in all packets, and what they are."""
    told: bool = True
    """Whether what comes next is for the record: a packet that a tunnel carries is not."""
    typed: bool = True
    """Whether what comes next is announced by an EtherType."""

    @property
    def size(self) -> int:
        """How many octets there are so far."""
        return sum(len(field.prefix) + field.length for field in self.fields)

    def ethernet(self) -> Frame:
        """Both addresses; the type comes with what is behind them."""
        return replace(self.behind(Field(0, 6, "dst_mac"), Field(0, 6, "src_mac")), typed=True)

    def vlan(self, column: str = "src_vlan", tag: int = VLAN) -> Frame:
        """A tag of IEEE 802.1Q, or of 802.1ad."""
        return self.behind(fixed(tag, length=2), Field(0, 2, column))

    def meta_data(self) -> Frame:
        """Cisco Meta Data: version, length, an option's type, and the security group tag."""
        return self.behind(fixed(META_DATA, 0x0101, 0x0001, length=2), Field(0, 2, "src_sgt"))

    def mpls(self) -> Frame:
        """Two labels."""
        labelled = self.behind(fixed(MPLS, length=2), Field(0, 8, "mpls_stack"))
        return replace(labelled.telling("mpls_labels"), typed=False)

    def ipv4(self, *, fragment: int | None = None, short: bool = False) -> Frame:
        """A packet of IPv4 as its conversation has it.

        `fragment` is the place of one that is not the first, by eights; a short one ends with TCP's header.
        """
        flags = DONT_FRAGMENT if fragment is None else MORE_FRAGMENTS | fragment
        header = self.ipv4_header(Field(0, 1, "ip_tos"), flags, Field(0, 1, "proto"), "src_addr", "dst_addr")
        return header.transport(short=short) if fragment is None else header

    def ipv6(self) -> Frame:
        """A packet of IPv6 as its conversation has it."""
        typed = self.announced(IPV6)
        header = typed.behind(
            Field(0, 4, "ipv6_word"),
            Field(BYTES_LEFT, 2, plus=-typed.size - 40),
            Field(0, 1, "proto"),
            Field(0, 1, "ip_ttl"),
            Field(0, 16, "src_addr"),
            Field(0, 16, "dst_addr"),
        )
        return header.telling("ip_tos", "ipv6_flow_label").transport()

    def vxlan(self) -> Frame:
        """IPv4, UDP and VXLAN with a group policy, between the ends of a tunnel."""
        tos, proto = fixed(0, length=1), fixed(UDP, length=1)
        header = self.ipv4_header(tos, DONT_FRAGMENT, proto, "tunnel_src_addr", "tunnel_dst_addr")
        tunnel = header.behind(
            Field(0, 2, "tunnel_src_port"),
            fixed(VXLAN_PORT, length=2),
            Field(BYTES_LEFT, 2, plus=-header.size),
            fixed(0, length=2),  # no checksum
            fixed(0x8800, length=2),  # there is a group, and a network
            Field(0, 2, "src_sgt"),
            Field(0, 3, "vni"),
            fixed(0, length=1),
        )
        return replace(tunnel.constant(ip_tos=0, proto=UDP, dst_port=VXLAN_PORT), told=False)

    def behind(self, *fields: Field) -> Frame:
        """These fields next."""
        added = fields if self.told else tuple(replace(field, told=False) for field in fields)
        return replace(self, fields=self.fields + added)

    def telling(self, *columns: str) -> Frame:
        """Nothing more, but columns that are told by what is there."""
        return replace(self, columns=self.columns + columns) if self.told else self

    def constant(self, **constants: int) -> Frame:
        """Nothing more, but columns that are the same in all packets."""
        return replace(self, constants=self.constants + tuple(constants.items())) if self.told else self

    def announced(self, etype: int) -> Frame:
        """The type of what comes next, where there is a place for it."""
        return self.behind(fixed(etype, length=2)) if self.typed else self

    def ipv4_header(self, tos: Field, flags: int, proto: Field, source: str, destination: str) -> Frame:
        """A header of IPv4 whose length, and so its checksum, is the packet's own."""
        typed = self.announced(IPV4)
        header = typed.behind(
            fixed(0x45, length=1),
            tos,
            Field(BYTES_LEFT, 2, plus=-typed.size),
            Field(0, 2, "fragment_id"),
            fixed(flags, length=2),
            Field(0, 1, "ip_ttl"),
            proto,
            fixed(0, length=2),  # the checksum
            Field(0, 4, source),
            Field(0, 4, destination),
        )
        return replace(header, checksums=(*self.checksums, typed.size)).constant(fragment_offset=flags & 0x1FFF)

    def transport(self, *, short: bool = False) -> Frame:
        """What is behind the IP header, by its protocol."""
        head = (
            Field(0, 4, "transport_head"),
            Field(UDP_BYTES_LEFT, 2, plus=-self.size),
            Field(0, 14, "transport_body"),
        )
        tail = () if short else (Field(0, TRANSPORT_BYTES - 20, "transport_tail"),)
        return self.behind(*head, *tail).telling(*TRANSPORT)
