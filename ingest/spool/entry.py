"""The form of a message on disk: a head with checksums, then key, headers and value.

All numbers are little-endian. The value is compressed (a raw LZ4 block) where that makes it smaller: disks are slower
than LZ4 is, and an outage may be twice as long in the same room.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa
import xxhash

from shared.codec import Headers

MARK: Final = 0x1E7F_5B0D
"""The first four bytes of an entry: where damage has to be passed over, the next whole entry is looked for by it."""

MARK_BYTES: Final = MARK.to_bytes(4, "little")

_FIELDS: Final = struct.Struct("<IIIiIHhQ")
_CHECK: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _FIELDS.size + _CHECK.size

NO_KEY: Final = -1

_LZ4: Final = pa.Codec("lz4_raw")
_NAME: Final = struct.Struct("<BH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it was to be produced.

    ``partition`` may be negative, which leaves the choice to the client; ``records`` is how many flow records (or
    counter samples) the message has.
    """

    partition: int
    key: bytes | None
    records: int
    headers: Headers
    value: bytes | pa.Buffer


class Head(NamedTuple):
    """What stands at the beginning of an entry: the lengths of its parts, and what can be told without them.

    ``value_bytes`` is before compression. ``key_bytes`` is :data:`NO_KEY` where there is no key.
    """

    mark: int
    body_bytes: int
    value_bytes: int
    partition: int
    records: int
    headers_bytes: int
    key_bytes: int
    body_check: int

    @property
    def size(self) -> int:
        """Bytes of the whole entry."""
        return HEAD_BYTES + self.body_bytes


def encode(entry: Entry, offset: int) -> tuple[list[bytes | pa.Buffer], int]:
    """The parts of an entry that will stand at this offset of its file, and how many bytes they are together."""
    headers = _encode_headers(entry.headers)
    key = entry.key or b""
    value = entry.value
    value_bytes = len(value)
    packed = _LZ4.compress(value)
    # Of two equal lengths it is the plain one.
    stored = packed if len(packed) < value_bytes else value
    body_check = xxhash.xxh3_64(key)
    body_check.update(headers)
    body_check.update(stored)
    fields = _FIELDS.pack(
        MARK,
        len(key) + len(headers) + len(stored),
        value_bytes,
        entry.partition,
        entry.records,
        len(headers),
        NO_KEY if entry.key is None else len(key),
        body_check.intdigest(),
    )
    head = fields + _CHECK.pack(_head_check(fields, offset))
    return [head, key, headers, stored], len(head) + len(key) + len(headers) + len(stored)


def decode_head(octets: bytes | memoryview, offset: int) -> Head | None:
    """Read the head that these bytes begin with, which were found at this offset; None when there is none.

    The offset is part of the checksum, so that what looks like an entry inside a message, or was left over from another
    file, is not taken for one.
    """
    if len(octets) < HEAD_BYTES:
        return None
    fields = bytes(octets[: _FIELDS.size])
    head = Head._make(_FIELDS.unpack(fields))
    (check,) = _CHECK.unpack_from(octets, _FIELDS.size)
    if head.mark != MARK or check != _head_check(fields, offset):
        return None
    return head


def decode_body(head: Head, body: bytes | memoryview) -> Entry | None:
    """Read what follows a head; None when it is not what was written."""
    if len(body) != head.body_bytes or xxhash.xxh3_64_intdigest(body) != head.body_check:
        return None
    key_bytes = max(0, head.key_bytes)
    begin = key_bytes + head.headers_bytes
    stored = memoryview(body)[begin:]
    if len(stored) == head.value_bytes:
        value = bytes(stored)
    else:
        value = _LZ4.decompress(pa.py_buffer(stored), decompressed_size=head.value_bytes, asbytes=True)
    key = None if head.key_bytes == NO_KEY else bytes(body[:key_bytes])
    return Entry(head.partition, key, head.records, _decode_headers(bytes(body[key_bytes:begin])), value)


def _head_check(fields: bytes, offset: int) -> int:
    return xxhash.xxh3_64_intdigest(fields, seed=offset)


def _encode_headers(headers: Headers) -> bytes:
    parts = []
    for name, value in headers:
        octets = value.encode() if isinstance(value, str) else value or b""
        spelled = name.encode()
        parts += [_NAME.pack(len(spelled), len(octets)), spelled, octets]
    return b"".join(parts)


def _decode_headers(octets: bytes) -> Headers:
    headers: Headers = []
    at = 0
    while at < len(octets):
        name_bytes, value_bytes = _NAME.unpack_from(octets, at)
        at += _NAME.size
        name = octets[at : at + name_bytes].decode()
        at += name_bytes
        headers.append((name, octets[at : at + value_bytes]))
        at += value_bytes
    return headers
