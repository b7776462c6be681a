"""Datagrams built by hand: small functions that each make a few bytes, to be put together in a test.

Nothing is checked and nothing is mended: a count that lies, a length that is too long or a field that is cut off is
given as it is wanted. Numbers are in network byte order. Sizes that are left out are computed.

    ipfix_message(
        ipfix_templates(template(256, field(8, 4), field(371, VARIABLE), field(7, 4, enterprise=32473))),
        data_set(256, ipv4("192.0.2.1") + variable(b"alice") + number(9, 4), padding=2),
        sequence=17,
    )
"""

from __future__ import annotations

import socket
import struct
from typing import Final

VARIABLE: Final = 65535
"""The length of an IPFIX field that says its length in each record (RFC 7011 §7)."""
SYSTEM, INTERFACE, LINE_CARD, CACHE, TEMPLATE = 1, 2, 3, 4, 5
"""Scope types of NetFlow v9 (RFC 3954 §6.1)."""
ENTERPRISE_BIT: Final = 0x8000
UNIX_SECONDS: Final = 1_700_000_000
"""When the datagrams were exported, unless a test says otherwise: 2023-11-14T22:13:20Z."""
UPTIME_MS: Final = 3_600_000
"""How long the exporter had been up by then: an hour."""


# --- values


def number(value: int, length: int) -> bytes:
    """An unsigned integer of any length, so of reduced size too (RFC 7011 §6.2)."""
    return value.to_bytes(length, "big")


def ipv4(text: str) -> bytes:
    """An IPv4 address, 4 bytes."""
    return socket.inet_pton(socket.AF_INET, text)


def ipv6(text: str) -> bytes:
    """An IPv6 address, 16 bytes."""
    return socket.inet_pton(socket.AF_INET6, text)


def mac(text: str) -> bytes:
    """A MAC address written with colons, 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


def fixed(text: str | bytes, length: int) -> bytes:
    """A string in a field of fixed length, filled up with NUL or cut off."""
    content = text.encode() if isinstance(text, str) else text
    return content[:length].ljust(length, b"\0")


def variable(content: str | bytes, *, long_form: bool = False) -> bytes:
    """The content of a field of variable length with its length before it; both forms are legal for short ones."""
    content = content.encode() if isinstance(content, str) else content
    if long_form or len(content) > 254:
        return b"\xff" + number(len(content), 2) + content
    return number(len(content), 1) + content


def ntp_time(unix_seconds: int, fraction: int = 0) -> bytes:
    """The time of elements 154 to 157: seconds since 1900 and a fraction of 2^32 (RFC 7011 §6.1.9)."""
    return struct.pack("!II", unix_seconds + 2_208_988_800, fraction)


def mapped(text: str) -> bytes:
    """An address as the record has it: 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    return ipv6(text) if ":" in text else bytes(10) + b"\xff\xff" + ipv4(text)


# --- NetFlow v5


def v5_header(
    count: int,
    *,
    uptime_ms: int = UPTIME_MS,
    unix_seconds: int = UNIX_SECONDS,
    unix_nanoseconds: int = 0,
    sequence: int = 0,
    engine_type: int = 0,
    engine_id: int = 0,
    sampling: int = 0,
) -> bytes:
    """The 24 bytes before the records; `sampling` is the whole word: mode << 14 | interval."""
    return struct.pack(
        "!HHIIIIBBH",
        5,
        count,
        uptime_ms,
        unix_seconds,
        unix_nanoseconds,
        sequence,
        engine_type,
        engine_id,
        sampling,
    )


def v5_record(
    *,
    src: str = "192.0.2.1",
    dst: str = "198.51.100.2",
    next_hop: str = "0.0.0.0",
    input_if: int = 1,
    output_if: int = 2,
    packets: int = 1,
    octets: int = 64,
    first_ms: int = UPTIME_MS - 2000,
    last_ms: int = UPTIME_MS - 1000,
    src_port: int = 40000,
    dst_port: int = 443,
    tcp_flags: int = 0,
    proto: int = 6,
    tos: int = 0,
    src_as: int = 0,
    dst_as: int = 0,
    src_mask: int = 0,
    dst_mask: int = 0,
) -> bytes:
    """A record of 48 bytes; `first_ms` and `last_ms` are the exporter's uptime."""
    return (
        ipv4(src)
        + ipv4(dst)
        + ipv4(next_hop)
        + struct.pack("!HHIIII", input_if, output_if, packets, octets, first_ms, last_ms)
        + struct.pack("!HHBBBB", src_port, dst_port, 0, tcp_flags, proto, tos)
        + struct.pack("!HHBBH", src_as, dst_as, src_mask, dst_mask, 0)
    )


def v5_datagram(
    *records: bytes,
    count: int | None = None,
    uptime_ms: int = UPTIME_MS,
    unix_seconds: int = UNIX_SECONDS,
    unix_nanoseconds: int = 0,
    sequence: int = 0,
    engine_type: int = 0,
    engine_id: int = 0,
    sampling: int = 0,
) -> bytes:
    """Header and records; `count` is that of the records, unless it is to lie."""
    header = v5_header(
        len(records) if count is None else count,
        uptime_ms=uptime_ms,
        unix_seconds=unix_seconds,
        unix_nanoseconds=unix_nanoseconds,
        sequence=sequence,
        engine_type=engine_type,
        engine_id=engine_id,
        sampling=sampling,
    )
    return header + b"".join(records)


# --- NetFlow v1 and v7


def v1_datagram(
    *records: bytes, count: int | None = None, uptime_ms: int = UPTIME_MS, unix_seconds: int = UNIX_SECONDS
) -> bytes:
    """Header of 16 bytes, without a sequence number, and records."""
    return struct.pack("!HHIII", 1, len(records) if count is None else count, uptime_ms, unix_seconds, 0) + b"".join(
        records
    )


def v1_record(v5: bytes) -> bytes:
    """What a record of v5 says of its flow, as v1 writes it in as many bytes: without AS numbers and prefix lengths."""
    return v5[:36] + bytes(2) + v5[38:40] + v5[37:38] + bytes(7)


def v7_datagram(
    *records: bytes,
    count: int | None = None,
    uptime_ms: int = UPTIME_MS,
    unix_seconds: int = UNIX_SECONDS,
    sequence: int = 0,
) -> bytes:
    """Header of 24 bytes, the last four reserved, and records."""
    number = len(records) if count is None else count
    return struct.pack("!HHIIIII", 7, number, uptime_ms, unix_seconds, 0, sequence, 0) + b"".join(records)


def v7_record(v5: bytes, *, router: str = "0.0.0.0") -> bytes:
    """A record of v5 as v7 has it: with the router that the switch did without, in 52 bytes."""
    return v5 + ipv4(router)


# --- templates, of NetFlow v9 and IPFIX


def field(element: int, length: int, *, enterprise: int | None = None) -> bytes:
    """A field specifier; with `enterprise` the bit is set and the number follows (IPFIX alone, RFC 7011 §3.2)."""
    if enterprise is None:
        return struct.pack("!HH", element, length)
    return struct.pack("!HHI", element | ENTERPRISE_BIT, length, enterprise)


def template(template_id: int, *fields: bytes, field_count: int | None = None) -> bytes:
    """A template record of v9 or IPFIX; without fields it is an IPFIX withdrawal (RFC 7011 §8.1)."""
    return struct.pack("!HH", template_id, len(fields) if field_count is None else field_count) + b"".join(fields)


def v9_options_template(
    template_id: int,
    scopes: tuple[bytes, ...],
    fields: tuple[bytes, ...],
    *,
    scope_bytes: int | None = None,
    option_bytes: int | None = None,
) -> bytes:
    """A v9 options template record, whose two lengths are in bytes (RFC 3954 §6.1)."""
    scope, option = b"".join(scopes), b"".join(fields)
    return (
        struct.pack(
            "!HHH",
            template_id,
            len(scope) if scope_bytes is None else scope_bytes,
            len(option) if option_bytes is None else option_bytes,
        )
        + scope
        + option
    )


def ipfix_options_template(
    template_id: int,
    scopes: tuple[bytes, ...],
    fields: tuple[bytes, ...],
    *,
    field_count: int | None = None,
    scope_count: int | None = None,
) -> bytes:
    """An IPFIX options template record, whose two counts are of fields, the first of all of them (RFC 7011 §3.4.2.2)."""
    return (
        struct.pack(
            "!HHH",
            template_id,
            len(scopes) + len(fields) if field_count is None else field_count,
            len(scopes) if scope_count is None else scope_count,
        )
        + b"".join(scopes)
        + b"".join(fields)
    )


# --- structured data (RFC 6313)

ALL_OF: Final = 3
"""The semantic of a list all of whose elements hold."""


def basic_list(element: int, length: int, *values: bytes, enterprise: int | None = None) -> bytes:
    """The content of a basic list: an element, the length of each value, and the values."""
    # It is written as in a template.
    return bytes([ALL_OF]) + field(element, length, enterprise=enterprise) + b"".join(values)


def sub_template_list(template_id: int, *records: bytes) -> bytes:
    """The content of a list of records of one template."""
    return bytes([ALL_OF]) + number(template_id, 2) + b"".join(records)


def list_entry(template_id: int, *records: bytes, length: int | None = None) -> bytes:
    """Records of one template in a list of several; the length has the entry's own four bytes in it."""
    content = b"".join(records)
    return number(template_id, 2) + number(4 + len(content) if length is None else length, 2) + content


def sub_template_multi_list(*entries: bytes) -> bytes:
    """The content of a list of records of several templates."""
    return bytes([ALL_OF]) + b"".join(entries)


# --- sets


def raw_set(set_id: int, content: bytes, *, length: int | None = None, padding: int = 0) -> bytes:
    """Any set: its id, its length with header and padding, its content, and so many zeros."""
    size = 4 + len(content) + padding if length is None else length
    return struct.pack("!HH", set_id, size) + content + bytes(padding)


def aligned(content: bytes) -> int:
    """How much padding brings a set with this content to a multiple of 4 bytes."""
    return -len(content) % 4


def data_set(template_id: int, *records: bytes, length: int | None = None, padding: int = 0) -> bytes:
    """A set of records that a template with this id describes."""
    return raw_set(template_id, b"".join(records), length=length, padding=padding)


def v9_templates(*templates: bytes, length: int | None = None, padding: int = 0) -> bytes:
    """A v9 template set (id 0)."""
    return raw_set(0, b"".join(templates), length=length, padding=padding)


def v9_options_templates(*templates: bytes, length: int | None = None, padding: int | None = None) -> bytes:
    """A v9 options template set (id 1), padded to 4 bytes unless told otherwise."""
    content = b"".join(templates)
    return raw_set(1, content, length=length, padding=aligned(content) if padding is None else padding)


def ipfix_templates(*templates: bytes, length: int | None = None, padding: int = 0) -> bytes:
    """An IPFIX template set (id 2)."""
    return raw_set(2, b"".join(templates), length=length, padding=padding)


def ipfix_options_templates(*templates: bytes, length: int | None = None, padding: int = 0) -> bytes:
    """An IPFIX options template set (id 3)."""
    return raw_set(3, b"".join(templates), length=length, padding=padding)


# --- NetFlow v9 and IPFIX datagrams


def v9_header(
    count: int,
    *,
    uptime_ms: int = UPTIME_MS,
    unix_seconds: int = UNIX_SECONDS,
    sequence: int = 0,
    source_id: int = 0,
) -> bytes:
    """The 20 bytes before the sets; `count` is of records, templates among them (RFC 3954 §5.1)."""
    return struct.pack("!HHIIII", 9, count, uptime_ms, unix_seconds, sequence, source_id)


def v9_datagram(
    *sets: bytes,
    count: int | None = None,
    uptime_ms: int = UPTIME_MS,
    unix_seconds: int = UNIX_SECONDS,
    sequence: int = 0,
    source_id: int = 0,
) -> bytes:
    """Header and sets; `count` is that of the sets when left out, which many exporters send and no decoder trusts."""
    header = v9_header(
        len(sets) if count is None else count,
        uptime_ms=uptime_ms,
        unix_seconds=unix_seconds,
        sequence=sequence,
        source_id=source_id,
    )
    return header + b"".join(sets)


def ipfix_header(
    length: int,
    *,
    unix_seconds: int = UNIX_SECONDS,
    sequence: int = 0,
    domain: int = 0,
) -> bytes:
    """The 16 bytes before the sets; `length` is that of the whole message (RFC 7011 §3.1)."""
    return struct.pack("!HHIII", 10, length, unix_seconds, sequence, domain)


def ipfix_message(
    *sets: bytes,
    length: int | None = None,
    unix_seconds: int = UNIX_SECONDS,
    sequence: int = 0,
    domain: int = 0,
) -> bytes:
    """Header and sets; `sequence` counts data records before this message."""
    content = b"".join(sets)
    header = ipfix_header(
        16 + len(content) if length is None else length,
        unix_seconds=unix_seconds,
        sequence=sequence,
        domain=domain,
    )
    return header + content
