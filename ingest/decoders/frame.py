"""Sampled packet headers, dissected together where they lie in a buffer: one vectorised step a header field.

Sources: IEEE 802.3 and 802.1Q; RFC 791, 8200, 9293, 768, 4443, 792; RFC 3032 and 4385 for MPLS and pseudowires;
RFC 7348, 8926 and 2784 for VXLAN, Geneve and GRE; draft-smith-vxlan-group-policy; Wireshark's dissector for Cisco's
Meta Data. A header that was cut gives what it holds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.addresses import mapped
from ingest.decoders.headers import windows, word16, word32

Octets = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FRONT_BYTES: Final = 64
"""Of every row this much is fetched at once: mostly all stand at the same place in it, and are read from there."""

MOST_TAGS: Final = 12
"""Headers between Ethernet and IP that are looked through; VLAN tags and MPLS labels count one each."""

MOST_EXTENSIONS: Final = 8
"""IPv6 extension headers that are looked through."""

MOST_TUNNELS: Final = 2
"""Tunnels, one in the other, that are entered."""

ETYPE_IPV4: Final = 0x0800
ETYPE_IPV6: Final = 0x86DD
ETYPE_TEB: Final = 0x6558
"""Ethernet inside GRE or Geneve."""
ETYPE_META_DATA: Final = 0x8909
"""Cisco Meta Data, which carries the security group tag."""
VLAN_TAGS: Final = (0x8100, 0x88A8, 0x9100)
MPLS: Final = (0x8847, 0x8848)
PPPOE: Final = 0x8864
LOOKED_THROUGH: Final = (*VLAN_TAGS, ETYPE_META_DATA, *MPLS, PPPOE)
"""What tells nothing of the flow: behind it comes what does."""
CARRIED: Final = (ETYPE_TEB, ETYPE_IPV4, ETYPE_IPV6, *MPLS)
"""What is looked for in a tunnel."""
FIRST_ETYPE: Final = 0x0600
"""What stands below in the place of an EtherType is the length of an 802.3 frame."""
LLC_SNAP: Final = 0xAAAA03
PPP_TYPES: Final = ((0x0021, ETYPE_IPV4), (0x0057, ETYPE_IPV6), (0x0281, 0x8847))

TCP: Final = 6
UDP: Final = 17
GRE: Final = 47
PORTED: Final = (TCP, UDP, 33, 132, 136)
"""Protocols that begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""
ICMP: Final = (1, 58)
IP_IN_IP: Final = ((4, ETYPE_IPV4), (41, ETYPE_IPV6))
AUTHENTICATION: Final = 51
FRAGMENT: Final = 44
EXTENSIONS: Final = (0, 43, FRAGMENT, AUTHENTICATION, 60, 135, 139, 140)
VXLAN_PORT: Final = 4789
GENEVE_PORT: Final = 6081


class HeaderProtocol(IntEnum):
    """What a sampled header begins with, by sFlow's numbers (sFlow version 5, header_protocol)."""

    ETHERNET = 1
    PPP = 7
    IPV4 = 11
    IPV6 = 12
    MPLS = 13
    POS = 14


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Values of a column and where there are any, [n] each; values may have a second axis for octets."""

    values: npt.NDArray[np.integer]
    valid: Mask


@dataclass(slots=True, eq=False)
class Frames:
    """What n sampled headers tell, by the record's column names."""

    cells: dict[str, Cells] = field(default_factory=dict)
    labels: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 0), np.uint32))
    """MPLS labels, outermost first, [n, k]."""
    labelled: Mask = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """Which of them there are, [n, k]."""
    length: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    """Bytes of the whole packet as its outermost IP header tells, with what lies before that; 0 without one, [n]."""


class _Rows:
    """Rows of bytes, read at places that differ from row to row.

    What is read beyond a row is another's or nobody's: whoever reads has to know that the row holds it, or to find out
    before it is used.
    """

    def __init__(self, buffer: Octets, begin: Places, length: Places) -> None:
        self.count = len(begin)
        self._buffer = buffer if len(buffer) else np.zeros(1, np.uint8)
        self._begin = begin
        self.length = length
        self._front = windows(self._buffer, begin, FRONT_BYTES)

    def u8(self, at: Places) -> npt.NDArray[np.int64]:
        return self._buffer.take(self._begin + at, mode="clip").astype(np.int64)

    def u16(self, at: Places) -> npt.NDArray[np.int64]:
        return word16(self.octets(at, 2), 0).astype(np.int64)

    def u32(self, at: Places) -> npt.NDArray[np.int64]:
        return word32(self.octets(at, 4), 0).astype(np.int64)

    def octets(self, at: Places, width: int) -> Octets:
        """What stands at a place of each row, [n, width]: not to be written to."""
        first = int(at[0]) if self.count else 0
        if first + width <= FRONT_BYTES and (at == first).all():
            return self._front[:, first : first + width]
        return windows(self._buffer, self._begin + at, width)


class _Dissection:
    """The state of all rows while they are taken apart: where each stands, and what comes next there."""

    def __init__(self, rows: _Rows, protocol: npt.NDArray[np.int64]) -> None:
        self.rows = rows
        count = rows.count
        self.at = np.zeros(count, np.int64)
        self.etype = np.zeros(count, np.int64)
        self.frames = Frames(length=np.zeros(count, np.int64))
        self.labels: list[npt.NDArray[np.uint32]] = []
        self.labelled: list[Mask] = []
        self.vlans = np.zeros(count, np.int64)
        self._begin(protocol)

    def put(self, column: str, where: Mask, values: npt.NDArray[np.integer]) -> None:
        """Set a column of the rows that ``where`` picks, by values made for it; other rows keep what they have."""
        if not np.count_nonzero(where):
            return
        cells = self.frames.cells.get(column)
        if cells is None:
            self.frames.cells[column] = Cells(values, where.copy())
            return
        cells.values[where] = values[where]
        cells.valid[where] = True

    def holds(self, width: int) -> Mask:
        """Rows that have ``width`` bytes more from where they stand."""
        return self.at + width <= self.rows.length

    def _begin(self, protocol: npt.NDArray[np.int64]) -> None:
        ethernet = (protocol == HeaderProtocol.ETHERNET) & (self.rows.length >= 12)
        self.ethernet(ethernet)
        self.etype[protocol == HeaderProtocol.IPV4] = ETYPE_IPV4
        self.etype[protocol == HeaderProtocol.IPV6] = ETYPE_IPV6
        self.etype[protocol == HeaderProtocol.MPLS] = MPLS[0]
        self.ppp((protocol == HeaderProtocol.PPP) | (protocol == HeaderProtocol.POS))

    def ethernet(self, where: Mask) -> None:
        """Rows that stand at an Ethernet header: addresses, and the EtherType behind them."""
        if not where.any():
            return
        header = self.rows.octets(self.at, 14)
        whole = where & self.holds(12)
        self.put("dst_mac", whole, header[:, :6].copy())
        self.put("src_mac", whole, header[:, 6:12].copy())
        typed = where & self.holds(14)
        self.etype = np.where(where, np.where(typed, word16(header, 12), 0), self.etype)
        self.at = np.where(where, self.at + 14, self.at)

    def ppp(self, where: Mask) -> None:
        """Rows that stand at a PPP protocol number, with or without the octets of HDLC before it."""
        if not where.any():
            return
        framed = where & self.holds(2) & (self.rows.u16(self.at) == 0xFF03)
        self.at = np.where(framed, self.at + 2, self.at)
        number, numbered = self.rows.u16(self.at), where & self.holds(2)
        for ppp, etype in PPP_TYPES:
            self.etype[numbered & (number == ppp)] = etype
        self.at = np.where(where, self.at + 2, self.at)

    def tags(self) -> None:
        """Look through everything between the link and IP."""
        for _ in range(MOST_TAGS):
            here = self.holds(2) & (self.etype != ETYPE_IPV4) & (self.etype != ETYPE_IPV6) & (self.etype != 0)
            if not here.any():
                break
            known = np.zeros(self.rows.count, np.bool_)
            for look in (self._vlan, self._meta_data, self._mpls, self._pppoe, self._llc):
                # Each looks at the rows as they stood at the beginning of the round.
                known |= look(here & ~known)
            if not known.any():
                break

    def _vlan(self, here: Mask) -> Mask:
        where: Mask = here & _IS_VLAN_TAG.take(self.etype) & self.holds(4)
        if where.any():
            vlan = (self.rows.u16(self.at) & 0xFFF).astype(np.uint16)
            self.put("src_vlan", where & (self.vlans == 0), vlan)
            self.put("inner_vlan", where & (self.vlans == 1), vlan.copy())
            self.vlans[where] += 1
            self.etype = np.where(where, self.rows.u16(self.at + 2), self.etype)
            self.at = np.where(where, self.at + 4, self.at)
        return where

    def _meta_data(self, here: Mask) -> Mask:
        where: Mask = here & (self.etype == ETYPE_META_DATA) & self.holds(6)
        if where.any():
            self.put("src_sgt", where, self.rows.u16(self.at + 4).astype(np.uint16))
            self.etype = np.where(where, np.where(self.holds(8), self.rows.u16(self.at + 6), 0), self.etype)
            self.at = np.where(where, self.at + 8, self.at)
        return where

    def _mpls(self, here: Mask) -> Mask:
        where: Mask = here & _IS_MPLS.take(self.etype) & self.holds(4)
        if where.any():
            word = self.rows.u32(self.at)
            self.labels.append((word >> 12).astype(np.uint32))
            self.labelled.append(where)
            self.at = np.where(where, self.at + 4, self.at)
            bottom = where & ((word >> 8) & 1 == 1)
            nibble = self.rows.u8(self.at) >> 4
            inside = self.holds(1)
            self.etype[bottom] = 0
            self.etype[bottom & inside & (nibble == 4)] = ETYPE_IPV4
            self.etype[bottom & inside & (nibble == 6)] = ETYPE_IPV6
            # A control word of zeros in front: Ethernet over a pseudowire (RFC 4385 §3).
            wire = bottom & inside & (nibble == 0)
            self.at = np.where(wire, self.at + 4, self.at)
            self.ethernet(wire)
        return where

    def _pppoe(self, here: Mask) -> Mask:
        where: Mask = here & (self.etype == PPPOE) & self.holds(8)
        if where.any():
            self.at = np.where(where, self.at + 6, self.at)
            self.etype[where] = 0
            self.ppp(where)
        return where

    def _llc(self, here: Mask) -> Mask:
        where: Mask = here & (self.etype < FIRST_ETYPE) & self.holds(8)
        if where.any():
            snap = where & ((self.rows.u32(self.at) >> 8) == LLC_SNAP)
            self.etype = np.where(where, np.where(snap, self.rows.u16(self.at + 6), 0), self.etype)
            self.at = np.where(snap, self.at + 8, self.at)
        return where

    def network(self, *, inner: bool = False) -> tuple[npt.NDArray[np.int64], Mask]:
        """Read IP; returns each row's protocol, and the rows that then stand at its header.

        An ``inner`` packet becomes the flow instead of the one around it, unless it is cut before it tells its own.
        """
        proto = np.zeros(self.rows.count, np.int64)
        version = self.rows.u8(self.at) >> 4
        four = (self.etype == ETYPE_IPV4) & (version == 4) & self.holds(20)
        six = (self.etype == ETYPE_IPV6) & (version == 6) & self.holds(40)
        cut = np.zeros_like(four) if inner else _IS_IP.take(self.etype) & ~four & ~six & self.holds(1)
        told = (self.etype >= FIRST_ETYPE) & ~_IS_LOOKED_THROUGH.take(self.etype)
        if inner:
            told &= four | six | ((self.etype != ETYPE_IPV4) & (self.etype != ETYPE_IPV6))
            self._forget(told, _OF_A_FLOW)
        self.put("etype", told, self.etype.astype(np.uint16))
        inside = np.zeros(self.rows.count, np.bool_)
        if four.any():
            inside |= self._ipv4(four, proto)
        if six.any():
            inside |= self._ipv6(six, proto)
        if cut.any():
            self._cut_ipv4(cut & (self.etype == ETYPE_IPV4) & (version == 4))
            self._cut_ipv6(cut & (self.etype == ETYPE_IPV6) & (version == 6))
        # A header that is cut within the extensions does not say what is behind them.
        self.put("proto", four | (six & ~_IS_EXTENSION.take(proto)), proto.astype(np.uint8))
        return proto, inside

    def _ipv4(self, where: Mask, proto: npt.NDArray[np.int64]) -> Mask:
        at, header = self.at, self.rows.octets(self.at, 20)
        self._ends(where, at, word16(header, 2).astype(np.int64))
        self.put("ip_tos", where, header[:, 1].copy())
        self.put("fragment_id", where, word16(header, 4).astype(np.uint32))
        offset = word16(header, 6) & np.uint16(0x1FFF)
        self.put("fragment_offset", where, offset)
        self.put("ip_ttl", where, header[:, 8].copy())
        np.copyto(proto, header[:, 9], where=where)
        for column, place in (("src_addr", 12), ("dst_addr", 16)):
            self.put(column, where, mapped(header[:, place : place + 4]))
        words = (header[:, 0] & np.uint8(0xF)).astype(np.int64)
        self.at = np.where(where, at + np.maximum(words, 5) * 4, at)
        inside: Mask = where & (offset == 0) & (words >= 5)
        return inside

    def _ipv6(self, where: Mask, proto: npt.NDArray[np.int64]) -> Mask:
        rows, at, header = self.rows, self.at, self.rows.octets(self.at, 40)
        first = word32(header, 0)
        self._ends(where, at + 40, word16(header, 4).astype(np.int64))
        self.put("ip_tos", where, ((first >> 20) & 0xFF).astype(np.uint8))
        self.put("ipv6_flow_label", where, first & np.uint32(0xFFFFF))
        self.put("ip_ttl", where, header[:, 7].copy())
        self.put("src_addr", where, header[:, 8:24].copy())
        self.put("dst_addr", where, header[:, 24:40].copy())
        following = header[:, 6].astype(np.int64)
        self.at = np.where(where, at + 40, at)
        whole = where.copy()
        for _ in range(MOST_EXTENSIONS):
            extended = whole & _IS_EXTENSION.take(following) & self.holds(8)
            if not extended.any():
                break
            fragment = extended & (following == FRAGMENT)
            word = rows.u32(self.at)
            self.put("fragment_id", fragment, rows.u32(self.at + 4).astype(np.uint32))
            self.put("fragment_offset", fragment, ((word & 0xFFFF) >> 3).astype(np.uint16))
            whole &= ~(fragment & ((word & 0xFFFF) >> 3 != 0))
            length = (word >> 16) & 0xFF
            size = np.where(following == AUTHENTICATION, (length + 2) * 4, (length + 1) * 8)
            size = np.where(following == FRAGMENT, 8, size)
            following = np.where(extended, word >> 24, following)
            self.at = np.where(extended, self.at + size, self.at)
        proto[where] = following[where]
        inside: Mask = whole & ~_IS_EXTENSION.take(following)
        return inside

    def _cut_ipv4(self, where: Mask) -> None:
        """A header that is cut before its end gives the fields that it has whole."""
        header = self.rows.octets(self.at, 20)
        self.put("ip_tos", where & self.holds(2), header[:, 1].copy())
        self.put("fragment_id", where & self.holds(6), word16(header, 4).astype(np.uint32))
        self.put("fragment_offset", where & self.holds(8), word16(header, 6) & np.uint16(0x1FFF))
        self.put("ip_ttl", where & self.holds(9), header[:, 8].copy())
        self.put("proto", where & self.holds(10), header[:, 9].copy())
        self.put("src_addr", where & self.holds(16), mapped(header[:, 12:16]))

    def _cut_ipv6(self, where: Mask) -> None:
        """The same; what stands for an extension is not the protocol of the packet."""
        header = self.rows.octets(self.at, 40)
        first = word32(header, 0)
        self.put("ip_tos", where & self.holds(2), ((first >> 20) & 0xFF).astype(np.uint8))
        self.put("ipv6_flow_label", where & self.holds(4), first & np.uint32(0xFFFFF))
        self.put("proto", where & self.holds(7) & ~_IS_EXTENSION.take(header[:, 6]), header[:, 6].copy())
        self.put("ip_ttl", where & self.holds(8), header[:, 7].copy())
        self.put("src_addr", where & self.holds(24), header[:, 8:24].copy())

    def _ends(self, where: Mask, begin: Places, size: Places) -> None:
        """Where IP packets end that have ``size`` bytes from ``begin`` on; a size of 0 says nothing (RFC 2675)."""
        first = where & (self.frames.length == 0) & (size > 0)
        np.copyto(self.frames.length, begin + size, where=first)

    def transport(self, proto: npt.NDArray[np.int64], inside: Mask) -> None:
        """Read the ports, flags and types of rows that stand at a transport header."""
        header = self.rows.octets(self.at, 14)
        ported = inside & _IS_PORTED.take(proto) & self.holds(4)
        self.put("src_port", ported, word16(header, 0))
        self.put("dst_port", ported, word16(header, 2))
        flagged = inside & (proto == TCP) & self.holds(14)
        self.put("tcp_flags", flagged, word16(header, 12) & np.uint16(0xFFF))
        icmp = inside & _IS_ICMP.take(proto) & self.holds(2)
        self.put("icmp_type", icmp, header[:, 0].copy())
        self.put("icmp_code", icmp, header[:, 1].copy())

    def tunnel(self, proto: npt.NDArray[np.int64], inside: Mask, decapsulate: Collection[str]) -> Mask:
        """Read the header of a tunnel; returns the rows that now stand at what it carries, as configured."""
        rows, at = self.rows, self.at
        entered = np.zeros(rows.count, np.bool_)
        datagram = inside & (proto == UDP) & self.holds(16)
        port = rows.u16(at + 2) if datagram.any() else np.zeros(rows.count, np.int64)
        vxlan = datagram & (port == VXLAN_PORT)
        if vxlan.any():
            flags = rows.u16(at + 8)
            self.put("vni", vxlan & (flags & 0x0800 != 0), (rows.u32(at + 12) >> 8).astype(np.uint32))
            self.put("src_sgt", vxlan & (flags & 0x8000 != 0), rows.u16(at + 10).astype(np.uint16))
            if "vxlan" in decapsulate:
                entered |= self._enter(vxlan, np.full(rows.count, 16), np.full(rows.count, ETYPE_TEB))
        geneve = datagram & (port == GENEVE_PORT)
        if geneve.any():
            self.put("vni", geneve, (rows.u32(at + 12) >> 8).astype(np.uint32))
            if "geneve" in decapsulate:
                options = (rows.u8(at + 8) & 0x3F) * 4
                entered |= self._enter(geneve, 16 + options, rows.u16(at + 10))
        gre = inside & (proto == GRE) & self.holds(4)
        if gre.any():
            entered |= self._gre(gre, decapsulate)
        if "ipip" in decapsulate:
            for number, etype in IP_IN_IP:
                carried = inside & (proto == number)
                entered |= self._enter(carried, np.zeros(rows.count, np.int64), np.full(rows.count, etype))
        return entered

    def _gre(self, where: Mask, decapsulate: Collection[str]) -> Mask:
        rows, at = self.rows, self.at
        flags = rows.u16(at)
        # Checksum, key and sequence number, four bytes each where there are any (RFC 2784, RFC 2890).
        size = 4 + 4 * ((flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1))
        carried = rows.u16(at + 2)
        tagged = where & (carried == ETYPE_META_DATA) & (at + size + 8 <= rows.length)
        if tagged.any():
            # Over GRE the inner type comes first, and the tag after version, length and option.
            self.put("src_sgt", tagged, rows.u16(at + size + 6).astype(np.uint16))
            carried = np.where(tagged, rows.u16(at + size), carried)
            size = np.where(tagged, size + 8, size)
        if "gre" not in decapsulate:
            return np.zeros(rows.count, np.bool_)
        return self._enter(where, size, carried)

    def _enter(self, where: Mask, size: Places, etype: npt.NDArray[np.int64]) -> Mask:
        """Move rows to what a tunnel carries, when that is something that is looked for; returns which."""
        bridged = where & (etype == ETYPE_TEB) & (self.at + size + 14 <= self.rows.length)
        where = bridged | (where & _IS_CARRIED.take(etype) & (etype != ETYPE_TEB))
        self.at = np.where(where, self.at + size, self.at)
        self.etype = np.where(where, etype, self.etype)
        if bridged.any():
            self._forget(bridged, _OF_A_LINK)
            self.vlans[bridged] = 0
            self.ethernet(bridged)
        return where

    def leave(self, where: Mask) -> None:
        """Be done with rows."""
        self.etype[where] = 0

    def _forget(self, where: Mask, columns: Collection[str]) -> None:
        """Remove what an outer header said, in rows whose inner header counts."""
        for column in columns:
            cells = self.frames.cells.get(column)
            if cells is not None:
                cells.valid[where] = False


_OF_A_FLOW: Final = (
    "etype",
    "src_addr",
    "dst_addr",
    "proto",
    "src_port",
    "dst_port",
    "tcp_flags",
    "ip_tos",
    "ip_ttl",
    "icmp_type",
    "icmp_code",
    "fragment_id",
    "fragment_offset",
    "ipv6_flow_label",
)
_OF_A_LINK: Final = ("src_mac", "dst_mac", "src_vlan", "inner_vlan")


def _among(numbers: Collection[int], size: int) -> Mask:
    """For each number below ``size`` whether it is one of these: looked up faster than compared with each."""
    table = np.zeros(size, np.bool_)
    table[list(numbers)] = True
    return table


_IS_VLAN_TAG: Final = _among(VLAN_TAGS, 1 << 16)
_IS_MPLS: Final = _among(MPLS, 1 << 16)
_IS_LOOKED_THROUGH: Final = _among(LOOKED_THROUGH, 1 << 16)
_IS_CARRIED: Final = _among(CARRIED, 1 << 16)
_IS_IP: Final = _among((ETYPE_IPV4, ETYPE_IPV6), 1 << 16)
_IS_PORTED: Final = _among(PORTED, 1 << 8)
_IS_ICMP: Final = _among(ICMP, 1 << 8)
_IS_EXTENSION: Final = _among(EXTENSIONS, 1 << 8)


def dissect(
    buffer: Octets,
    begin: Places,
    length: Places,
    protocol: npt.NDArray[np.int64],
    decapsulate: Collection[str] = (),
) -> Frames:
    """Take n headers apart.

    They begin at places of ``buffer`` that it has, and have ``length`` bytes there; ``protocol`` is a HeaderProtocol
    each, others give nothing. Of a tunnel the outer header is the flow, unless its kind (gre, ipip, vxlan, geneve) is
    in ``decapsulate``.
    """
    state = _Dissection(_Rows(buffer, begin, length), protocol)
    for depth in range(MOST_TUNNELS + 1):
        state.tags()
        proto, inside = state.network(inner=depth > 0)
        state.transport(proto, inside)
        entered = state.tunnel(proto, inside, decapsulate if depth < MOST_TUNNELS else ())
        if not entered.any():
            break
        state.leave(~entered)
    frames = state.frames
    if state.labels:
        frames.labels = np.stack(state.labels, axis=1)
        frames.labelled = np.stack(state.labelled, axis=1)
    return frames
