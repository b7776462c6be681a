"""Packets and capture files built by hand, checked and mended no more than the datagrams of tests/builders.py."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import Final

ETHERNET, NULL, RAW, LOOP, COOKED, COOKED_2 = 1, 0, 101, 108, 113, 276
"""Link types by libpcap's numbers."""
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
SECONDS: Final = 1_700_000_000

CLIENT, SERVER = "192.0.2.1", "198.51.100.9"
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::9"


# --- packets


def udp(payload: bytes, *, port: int = 4000, to_port: int = 2055, length: int | None = None) -> bytes:
    """A UDP header and what it carries; the checksum says that there is none."""
    return struct.pack(">HHHH", port, to_port, 8 + len(payload) if length is None else length, 0) + payload


def ipv4(
    payload: bytes,
    *,
    protocol: int = 17,
    options: bytes = b"",
    begin: int = 0,
    more: bool = False,
    identification: int = 1,
    total: int | None = None,
    source: str = CLIENT,
    version: int = 4,
) -> bytes:
    """An IPv4 packet; `begin` in bytes and `more` make it a fragment."""
    header = 20 + len(options)
    total = header + len(payload) if total is None else total
    place = begin // 8 | (0x2000 if more else 0)
    start = version << 4 | header // 4
    fixed = struct.pack(">BBHHHBBH", start, 0, total, identification, place, 64, protocol, 0)
    return fixed + address(source) + address(SERVER) + options + payload


def ipv6(payload: bytes, *, header: int = 17, length: int | None = None, source: str = CLIENT6) -> bytes:
    """An IPv6 packet; `header` is what its payload begins with."""
    length = len(payload) if length is None else length
    return struct.pack(">IHBB", 6 << 28, length, header, 64) + address(source) + address(SERVER6) + payload


def extension(header: int, words: int = 0) -> bytes:
    """An IPv6 extension header of `words` times 8 bytes more than its first 8; `header` is what follows it."""
    return bytes([header, words]) + bytes(6 + 8 * words)


def authentication(header: int) -> bytes:
    """An authentication header of 24 bytes, which counts itself in words of 4 (RFC 4302 §2.2)."""
    return bytes([header, 4]) + bytes(22)


def fragment6(header: int, begin: int, *, more: bool, identification: int = 1) -> bytes:
    """An IPv6 fragment header."""
    return struct.pack(">BxHI", header, begin | more, identification)


def address(text: str) -> bytes:
    """The bytes of an address, 4 or 16."""
    return ipaddress.ip_address(text).packed


# --- frames


def ethernet(packet: bytes, protocol: int = IPV4, *, tags: Iterable[int] = ()) -> bytes:
    """An Ethernet frame; `tags` are the types of its VLAN tags, outermost first."""
    stack = b"".join(struct.pack(">HH", tag, 100) for tag in tags)
    return bytes(12) + stack + struct.pack(">H", protocol) + packet


def cooked(packet: bytes, protocol: int = IPV4) -> bytes:
    """A Linux cooked frame of version 1."""
    return bytes(14) + struct.pack(">H", protocol) + packet


def cooked2(packet: bytes, protocol: int = IPV4) -> bytes:
    """A Linux cooked frame of version 2."""
    return struct.pack(">H", protocol) + bytes(18) + packet


# --- files


def pcap(
    frames: Iterable[bytes | tuple[bytes, int]],
    *,
    link_type: int = ETHERNET,
    order: str = "<",
    nanoseconds: bool = False,
    snaplen: int = 262144,
    step: int = 1,
) -> bytes:
    """A capture file whose frames come `step` units of its clock apart; a pair is a frame and its length on the wire."""
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link_type)
    for at, frame in enumerate(frames):
        data, wire = frame if isinstance(frame, tuple) else (frame, len(frame))
        out += struct.pack(order + "IIII", SECONDS, at * step, len(data), wire) + data
    return out


def block(kind: int, body: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    """A block of a pcapng file."""
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body) if length is None else length)
    return struct.pack(order + "I", kind) + size + body + size


def section(*, order: str = "<") -> bytes:
    """The block that begins a section."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(link_type: int = ETHERNET, *, resolution: int | None = None, order: str = "<") -> bytes:
    """The block that describes an interface; `resolution` as in its option if_tsresol."""
    options = (
        b"" if resolution is None else struct.pack(order + "HHB3x", 9, 1, resolution) + struct.pack(order + "HH", 0, 0)
    )
    return block(1, struct.pack(order + "HHI", link_type, 0, 262144) + options, order=order)


def packet(frame: bytes, ticks: int, *, at: int = 0, order: str = "<", wire: int | None = None) -> bytes:
    """A block of one packet of the interface `at`."""
    wire = len(frame) if wire is None else wire
    head = struct.pack(order + "IIIII", at, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire)
    return block(6, head + frame, order=order)
