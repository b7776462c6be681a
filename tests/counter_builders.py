"""Counter samples of sFlow, built by hand: small functions that each make a few bytes.

Nothing is checked and nothing is mended: a count that lies or a record that is too short is given as it is wanted.
"""

from __future__ import annotations

import struct
from typing import Final

from tests.builders import UPTIME_MS, ipv4, ipv6

COUNTERS, EXPANDED_COUNTERS = 2, 4
"""Samples by their format."""
BROADCOM, NVIDIA = 4413, 5703
UNKNOWN: Final = 0xFFFFFFFF
"""A number that an agent does not know."""


def words(*numbers: int) -> bytes:
    """Words of 32 bits."""
    return struct.pack(f"!{len(numbers)}I", *numbers)


def text(content: str | bytes, *, length: int | None = None) -> bytes:
    """A text with its length before it, filled up to a multiple of four."""
    content = content.encode() if isinstance(content, str) else content
    return words(len(content) if length is None else length) + content + bytes(-len(content) % 4)


def record(kind: int, body: bytes, *, enterprise: int = 0, length: int | None = None) -> bytes:
    """A counter record: what it is, how long, and its body."""
    return words(enterprise << 12 | kind, len(body) if length is None else length) + body


def counters_sample(
    *records: bytes,
    source: int = 3,
    source_class: int = 0,
    sequence: int = 1,
    expanded: bool = False,
    count: int | None = None,
    length: int | None = None,
) -> bytes:
    """A sample of one source; compact, or expanded with class and index in words of their own."""
    number = len(records) if count is None else count
    identity = words(source_class, source) if expanded else words(source_class << 24 | source)
    body = words(sequence) + identity + words(number) + b"".join(records)
    kind = EXPANDED_COUNTERS if expanded else COUNTERS
    return words(kind, len(body) if length is None else length) + body


def counters_datagram(
    *samples: bytes,
    agent: str = "192.0.2.10",
    sub_agent: int = 0,
    sequence: int = 1,
    uptime_ms: int = UPTIME_MS,
    count: int | None = None,
) -> bytes:
    """Header and samples."""
    address = words(2) + ipv6(agent) if ":" in agent else words(1) + ipv4(agent)
    number = len(samples) if count is None else count
    return words(5) + address + words(sub_agent, sequence, uptime_ms, number) + b"".join(samples)


def interface_record(if_index: int = 3, octets: int = 1000, packets: int = 10) -> bytes:
    """The generic counters of an interface that is up, with so many bytes and packets each way."""
    received = struct.pack("!Q6I", octets, packets, 0, 0, 0, 0, 0)
    sent = struct.pack("!Q5I", 2 * octets, 2 * packets, 0, 0, 0, 0)
    return record(1, struct.pack("!IIQII", if_index, 6, 10**9, 1, 3) + received + sent + words(2))


def ethernet_record(*counters: int) -> bytes:
    """The Ethernet counters of an interface, 13 of them."""
    return record(2, words(*(counters or (0,) * 13)))


def port_name_record(name: str) -> bytes:
    """The name of an interface."""
    return record(1005, text(name))
