"""Frames of a capture → the UDP datagrams in them: link layers, IP, fragments. Pure: bytes in, a datagram or a reason out."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
UDP: Final = 17
MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""What stands before an IPv4 address to make it 16 bytes."""

MAX_DATAGRAM_BYTES: Final = 65535
_VLAN_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_MAX_TAGS: Final = 8
_UDP_HEADER_BYTES: Final = 8
_IPV4_HEADER_BYTES: Final = 20
_IPV6_HEADER_BYTES: Final = 40
_FRAGMENT_HEADER: Final = 44
_AUTHENTICATION_HEADER: Final = 51
# Hop-by-hop options, routing, destination options, mobility, HIP, shim6: a length in units of 8 bytes after the first
# (RFC 6564 §4).
_EXTENSION_HEADERS: Final = frozenset({0, 43, 60, 135, 139, 140})
_MAX_EXTENSION_HEADERS: Final = 16
_FLOW_EXPORT: Final = frozenset({b"\0\x05", b"\0\x09", b"\0\x0a"})
_SFLOW: Final = b"\0\0\0\x05"
_OLD_NETFLOW: Final = {b"\0\x01": (16, 48), b"\0\x07": (24, 52)}
"""NetFlow v1 and v7: the bytes of their header and of a record."""
_OLD_MOST_RECORDS: Final = 30

_ipv4_header: Final = struct.Struct(">BBHHHBBH4s4s").unpack_from
_ipv6_header: Final = struct.Struct(">IHBB16s16s").unpack_from
_udp_header: Final = struct.Struct(">HHHH").unpack_from
_word: Final = struct.Struct(">H").unpack_from
_fragment_header: Final = struct.Struct(">BxHI").unpack_from


class CaptureFault(StrEnum):
    """Why something in a capture file gave no datagram. Each is counted."""

    NOT_UDP = "not_udp"
    """A frame without IP, or with another protocol than UDP: nothing for us, and told all the same."""
    NOT_FLOW_EXPORT = "not_flow_export"
    """A UDP payload that does not begin as one of the protocols does."""
    UNKNOWN_LINK_TYPE = "unknown_link_type"
    """A frame of an interface whose link layer is not known here."""
    CUT_BY_SNAPLEN = "cut_by_snaplen"
    """A datagram of which the capture kept only the beginning."""
    BAD_PACKET = "bad_packet"
    """Lengths in its headers contradict each other or the frame."""
    FRAGMENT_MISSING = "fragment_missing"
    """A datagram in fragments that were never complete."""
    FRAGMENT_OVERLAP = "fragment_overlap"
    """A datagram whose fragments overlap or contradict each other (RFC 5722 §4)."""
    FRAGMENT_LIMIT = "fragment_limit"
    """A datagram in fragments that had to make room for newer ones."""
    FILE_CUT_SHORT = "file_cut_short"
    """A file that ends in the middle of a packet, or is damaged from some place on."""
    TOO_LONG = "too_long"
    """A raw datagram longer than UDP can carry."""

    @property
    def unit(self) -> str:
        """What a count of it counts."""
        return _UNITS.get(self, "packets")


_UNITS: Final[Mapping[CaptureFault, str]] = MappingProxyType(
    {
        CaptureFault.FRAGMENT_MISSING: "datagrams",
        CaptureFault.FRAGMENT_OVERLAP: "datagrams",
        CaptureFault.FRAGMENT_LIMIT: "datagrams",
        CaptureFault.TOO_LONG: "datagrams",
        CaptureFault.FILE_CUT_SHORT: "files",
    }
)


class UdpDatagram(NamedTuple):
    """A UDP payload and whom it is from: 16 bytes of address, IPv4 as ::ffff:a.b.c.d."""

    source: bytes
    port: int
    payload: bytes


class _IpPayload(NamedTuple):
    """What an IP packet, or all its fragments together, carries."""

    source: bytes
    data: bytes
    cut: bool
    """The capture kept only the beginning."""


FragmentKey = tuple[bytes, bytes, int, int]
"""Source, destination, protocol and identification; RFC 791 §3.2, RFC 8200 §4.5."""


@dataclass(slots=True)
class _Partial:
    """A datagram of which some fragments have come, those that do not overlap, by their beginning."""

    since_ns: int
    begins: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    held: int = 0
    total: int | None = None
    refused: bool = False


class Fragments:
    """Puts the fragments of IP packets together, whatever their order, within bounds of number, bytes and time.

    `lose` is called with a reason for every datagram that is given up. Times are those of the packets.
    """

    def __init__(
        self,
        lose: Callable[[CaptureFault], None],
        *,
        max_datagrams: int = 1024,
        max_bytes: int = 16 << 20,
        timeout_ns: int = 30 * 10**9,
    ) -> None:
        self._lose = lose
        self._max_datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._timeout_ns = timeout_ns
        self._partial: dict[FragmentKey, _Partial] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self._partial)

    def add(self, key: FragmentKey, begin: int, data: bytes, *, more: bool, time_ns: int) -> bytes | None:
        """Return the whole payload when this fragment was the last to come, else None.

        `begin` is the place of `data` in the whole, in bytes; `more` tells that it is not the end of it. A fragment
        that comes twice is taken once.
        """
        self._expire(time_ns)
        end = begin + len(data)
        if not data or (more and len(data) % 8) or end > MAX_DATAGRAM_BYTES:
            self._lose(CaptureFault.BAD_PACKET)
            return None
        partial = self._partial.get(key)
        if partial is None:
            partial = self._partial[key] = _Partial(time_ns)
        if partial.refused or not self._insert(partial, begin, data, more=more):
            return None
        if partial.held == partial.total:
            self._drop(key)
            return b"".join(partial.pieces)
        while len(self._partial) > self._max_datagrams or self._held > self._max_bytes:
            self._give_up(next(iter(self._partial)), CaptureFault.FRAGMENT_LIMIT)
        return None

    def close(self) -> None:
        """Give up what is not complete."""
        for key in list(self._partial):
            self._give_up(key, CaptureFault.FRAGMENT_MISSING)

    def _insert(self, partial: _Partial, begin: int, data: bytes, *, more: bool) -> bool:
        """Tell whether the fragment was new; refuse the datagram when it contradicts what came before."""
        at = bisect_left(partial.begins, begin)
        end = begin + len(data)
        if at < len(partial.begins) and partial.begins[at] == begin and partial.pieces[at] == data:
            return False
        overlaps = (at > 0 and partial.begins[at - 1] + len(partial.pieces[at - 1]) > begin) or (
            at < len(partial.begins) and partial.begins[at] < end
        )
        last = partial.begins[-1] + len(partial.pieces[-1]) if partial.begins else 0
        total = partial.total if more else end
        if (
            overlaps
            or (not more and partial.total not in {None, end})
            or (total is not None and max(last, end) > total)
        ):
            self._held -= partial.held
            partial.begins, partial.pieces, partial.held, partial.refused = [], [], 0, True
            # What comes of this datagram from now on belongs to what is counted here.
            self._lose(CaptureFault.FRAGMENT_OVERLAP)
            return False
        partial.begins.insert(at, begin)
        partial.pieces.insert(at, data)
        partial.held += len(data)
        partial.total = total
        self._held += len(data)
        return True

    def _expire(self, time_ns: int) -> None:
        while self._partial:
            key, oldest = next(iter(self._partial.items()))
            if abs(time_ns - oldest.since_ns) <= self._timeout_ns:
                return
            self._give_up(key, CaptureFault.FRAGMENT_MISSING)

    def _give_up(self, key: FragmentKey, reason: CaptureFault) -> None:
        if not self._drop(key).refused:
            self._lose(reason)

    def _drop(self, key: FragmentKey) -> _Partial:
        partial = self._partial.pop(key)
        self._held -= partial.held
        return partial


def udp_datagram(
    link_type: int, frame: bytes, *, wire_bytes: int, time_ns: int, fragments: Fragments
) -> UdpDatagram | CaptureFault | None:
    """Return the flow export that a frame carries or completes, or why it carries none; None when fragments lack.

    `link_type` is libpcap's, `wire_bytes` the length that the frame had when the capture kept less of it.
    """
    link = LINK_LAYERS.get(link_type)
    if link is None:
        return CaptureFault.UNKNOWN_LINK_TYPE
    cut = wire_bytes > len(frame)
    try:
        protocol, at = link(frame)
        if protocol == IPV4:
            carried = _ipv4(frame, at, cut, time_ns, fragments)
        elif protocol == IPV6:
            carried = _ipv6(frame, at, cut, time_ns, fragments)
        else:
            return CaptureFault.NOT_UDP
        return _udp(carried) if isinstance(carried, _IpPayload) else carried
    except (struct.error, IndexError):
        # A header lies beyond the end of the frame.
        return CaptureFault.CUT_BY_SNAPLEN if cut else CaptureFault.BAD_PACKET


def is_flow_export(payload: bytes) -> bool:
    """Tell whether a UDP payload begins with the version of NetFlow v5, v9, IPFIX or sFlow v5, or is NetFlow v1 or v7.

    What else goes over UDP begins with 1 or 7 all too often: of these two the size has to be that of their records.
    """
    return payload[:2] in _FLOW_EXPORT or payload[:4] == _SFLOW or _is_old_netflow(payload)


def _is_old_netflow(payload: bytes) -> bool:
    sizes = _OLD_NETFLOW.get(payload[:2])
    if sizes is None:
        return False
    header, record = sizes
    count = int.from_bytes(payload[2:4])
    return 0 < count <= _OLD_MOST_RECORDS and len(payload) == header + count * record


def _udp(carried: _IpPayload) -> UdpDatagram | CaptureFault:
    source, data, cut = carried
    port, _, length, _ = _udp_header(data)
    payload = data[_UDP_HEADER_BYTES:length] if length else data[_UDP_HEADER_BYTES:]
    if length and length < _UDP_HEADER_BYTES:
        return CaptureFault.BAD_PACKET
    if not is_flow_export(payload):
        return CaptureFault.NOT_FLOW_EXPORT
    if length > len(data) or (cut and not length):
        return CaptureFault.CUT_BY_SNAPLEN if cut else CaptureFault.BAD_PACKET
    return UdpDatagram(source, port, payload)


def _ipv4(frame: bytes, at: int, cut: bool, time_ns: int, fragments: Fragments) -> _IpPayload | CaptureFault | None:
    version, _, total, identification, place, _, protocol, _, source, destination = _ipv4_header(frame, at)
    header = (version & 15) * 4
    if version >> 4 != 4 or header < _IPV4_HEADER_BYTES:
        return CaptureFault.BAD_PACKET
    if protocol != UDP:
        return CaptureFault.NOT_UDP
    # A total length of 0 is what a network card that splits packets itself lets the capture see.
    end = at + total if total else len(frame)
    if total and total < header:
        return CaptureFault.BAD_PACKET
    data = frame[at + header : end]
    incomplete = end > len(frame)
    begin, more = (place & 0x1FFF) * 8, bool(place & 0x2000)
    if not begin and not more:
        return _IpPayload(MAPPED + source, data, cut and (incomplete or not total))
    if incomplete:
        return CaptureFault.CUT_BY_SNAPLEN if cut else CaptureFault.BAD_PACKET
    whole = fragments.add((source, destination, protocol, identification), begin, data, more=more, time_ns=time_ns)
    return None if whole is None else _IpPayload(MAPPED + source, whole, cut=False)


def _ipv6(frame: bytes, at: int, cut: bool, time_ns: int, fragments: Fragments) -> _IpPayload | CaptureFault | None:
    version, length, header, _, source, destination = _ipv6_header(frame, at)
    if version >> 28 != 6:
        return CaptureFault.BAD_PACKET
    # A length of 0 is a jumbogram, or a packet that the network card splits.
    data = frame[at + _IPV6_HEADER_BYTES : at + _IPV6_HEADER_BYTES + length if length else None]
    incomplete = len(data) < length or (cut and not length)
    for _ in range(_MAX_EXTENSION_HEADERS):
        if header == UDP:
            return _IpPayload(source, data, cut and incomplete)
        if header == _FRAGMENT_HEADER:
            header, place, identification = _fragment_header(data)
            begin, more = place & 0xFFF8, bool(place & 1)
            data = data[8:]
            if not begin and not more:
                continue
            if incomplete:
                return CaptureFault.CUT_BY_SNAPLEN if cut else CaptureFault.BAD_PACKET
            key = (source, destination, _FRAGMENT_HEADER, identification)
            whole = fragments.add(key, begin, data, more=more, time_ns=time_ns)
            if whole is None:
                return None
            # RFC 8200 §4.5: the first fragment's next header counts. It is the same in all of them in practice.
            data = whole
        elif header in _EXTENSION_HEADERS:
            header, data = data[0], data[8 + data[1] * 8 :]
        elif header == _AUTHENTICATION_HEADER:
            header, data = data[0], data[8 + data[1] * 4 :]
        else:
            return CaptureFault.NOT_UDP
    return CaptureFault.BAD_PACKET


def _after_tags(frame: bytes, protocol: int, at: int) -> tuple[int, int]:
    """Step over VLAN tags, stacked or not: the protocol behind them, and where it begins."""
    for _ in range(_MAX_TAGS):
        if protocol not in _VLAN_TAGS:
            break
        protocol, at = _word(frame, at + 2)[0], at + 4
    return protocol, at


def _ethernet(frame: bytes) -> tuple[int, int]:
    return _after_tags(frame, _word(frame, 12)[0], 14)


def _linux_cooked(frame: bytes) -> tuple[int, int]:
    return _after_tags(frame, _word(frame, 14)[0], 16)


def _linux_cooked_2(frame: bytes) -> tuple[int, int]:
    return _after_tags(frame, _word(frame, 0)[0], 20)


def _raw_ip(frame: bytes) -> tuple[int, int]:
    return _by_version(frame, 0)


def _loopback(frame: bytes) -> tuple[int, int]:
    # The family before the packet has another number for IPv6 on every system, and either byte order.
    return _by_version(frame, 4)


def _by_version(frame: bytes, at: int) -> tuple[int, int]:
    return {4: IPV4, 6: IPV6}.get(frame[at] >> 4, 0), at


LINK_LAYERS: Final[Mapping[int, Callable[[bytes], tuple[int, int]]]] = MappingProxyType(
    {
        0: _loopback,  # LINKTYPE_NULL
        1: _ethernet,
        12: _raw_ip,  # DLT_RAW as some systems number it in files
        14: _raw_ip,
        101: _raw_ip,
        108: _loopback,  # LINKTYPE_LOOP
        113: _linux_cooked,
        228: _raw_ip,  # LINKTYPE_IPV4
        229: _raw_ip,  # LINKTYPE_IPV6
        276: _linux_cooked_2,
    }
)
"""From a frame to the EtherType of what it carries and where that begins, by libpcap's number of the link type."""
