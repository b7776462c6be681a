"""One file of the spool: a header, and entries one after the other.

The header says which version of the form it is, and, each with a checksum of its own, what the file held when it was
closed and how far its entries were acknowledged. Only the header is ever overwritten. All numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import xxhash

from ingest.spool.entry import HEAD_BYTES, MARK_BYTES, Entry, Head, decode_body, decode_head, encode

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIX: Final = ".spool"
FIRST: Final = 128
"""Where the first entry begins."""

_FILE: Final = struct.Struct("<8sI")
_MAGIC: Final = b"SLWSPOOL"
_VERSION: Final = 1
_TALLY: Final = struct.Struct("<QQQ")
_CHECK: Final = struct.Struct("<Q")
_CLOSED_AT: Final = 32
_ACKNOWLEDGED_AT: Final = 64

_SEARCH_BYTES: Final = 1 << 20
"""How much is read at a time where the next whole entry is looked for."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a file goes, and how many messages and records it has up to there."""

    end: int = FIRST
    messages: int = 0
    records: int = 0

    def plus(self, end: int, records: int) -> Tally:
        """With one more message."""
        return Tally(end, self.messages + 1, self.records + records)


@dataclass(frozen=True, slots=True)
class Damage:
    """What could not be read: in one or more places, so many bytes, and records as far as that is known."""

    places: int = 0
    octets: int = 0
    records: int = 0
    cut_off: bool = False
    """Whether the end of the file is among them, which was then removed."""


class UnknownVersionError(Exception):
    """The file is of another version of this program, and is left as it is."""


class Segment:
    """A file of the spool. One process uses it, from one thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.whole = Tally()
        """What it has, acknowledged or not."""
        self.acknowledged = Tally()
        """Its beginning, which was acknowledged."""
        self.damage = Damage()
        """What was found when it was opened."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new file; raises OSError, and leaves nothing behind then."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            _write(descriptor, [_FILE.pack(_MAGIC, _VERSION).ljust(FIRST, b"\0")], 0, FIRST)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return cls(path, descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file that is there: what it has is known then, and an end that was cut off is removed.

        A file that was closed is believed, and its entries are checked as they are read; one that was not is read
        through. Raises OSError, and UnknownVersionError.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        segment = cls(path, descriptor)
        try:
            segment._recover()
        except BaseException:
            os.close(descriptor)
            raise
        return segment

    @property
    def messages_left(self) -> int:
        """Messages that were not acknowledged."""
        return self.whole.messages - self.acknowledged.messages

    @property
    def records_left(self) -> int:
        """Records of these."""
        return self.whole.records - self.acknowledged.records

    def append(self, entry: Entry) -> int:
        """Write an entry behind the last one, and return where it ends; raises OSError, and nothing is written then."""
        begin = self.whole.end
        parts, size = encode(entry, begin)
        try:
            _write(self.descriptor, parts, begin, size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, begin)
            raise
        self.whole = self.whole.plus(begin + size, entry.records)
        return self.whole.end

    def read(self, offset: int) -> tuple[Entry | None, int]:
        """The entry at this offset, and where the next one begins.

        None where there is a damaged stretch: then what follows it begins at the offset that is returned, which may be
        the end of the file.
        """
        try:
            head = self._head(offset)
            if head is not None:
                entry = decode_body(head, os.pread(self.descriptor, head.body_bytes, offset + HEAD_BYTES))
                if entry is not None:
                    return entry, offset + head.size
            return None, self._next_whole(offset, head, self.whole.end)
        except OSError:
            # The disk has an error here, and would have it again: the rest of the file is passed over.
            return None, self.whole.end

    def acknowledge(self, tally: Tally) -> None:
        """Note how far the entries were acknowledged. Where that cannot be written, more is read again after a crash."""
        self.acknowledged = tally
        self._note(_ACKNOWLEDGED_AT, tally)

    def seal(self) -> None:
        """Note what the file has: nothing more comes. Where that cannot be written, it is read through when opened."""
        self._note(_CLOSED_AT, self.whole)

    def remove(self) -> None:
        """Close and delete the file. Where it cannot be deleted, what it has is read again after a restart."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _note(self, at: int, tally: Tally) -> None:
        octets = _TALLY.pack(tally.end, tally.messages, tally.records)
        with contextlib.suppress(OSError):
            os.pwrite(self.descriptor, octets + _CHECK.pack(xxhash.xxh3_64_intdigest(octets, seed=at)), at)

    def _noted(self, header: bytes, at: int) -> Tally | None:
        octets = header[at : at + _TALLY.size]
        check = header[at + _TALLY.size : at + _TALLY.size + _CHECK.size]
        if check != _CHECK.pack(xxhash.xxh3_64_intdigest(octets, seed=at)):
            return None
        return Tally(*_TALLY.unpack(octets))

    def _head(self, offset: int) -> Head | None:
        return decode_head(os.pread(self.descriptor, HEAD_BYTES, offset), offset)

    def _recover(self) -> None:
        size = os.fstat(self.descriptor).st_size
        header = os.pread(self.descriptor, FIRST, 0).ljust(FIRST, b"\0")
        magic, version = _FILE.unpack_from(header)
        if size >= FIRST and magic == _MAGIC and version != _VERSION:
            raise UnknownVersionError
        acknowledged = self._noted(header, _ACKNOWLEDGED_AT) or Tally()
        closed = self._noted(header, _CLOSED_AT)
        if closed is not None and closed.end <= size:
            self.whole = closed
        else:
            self._walk(acknowledged, size, closed)
        self.acknowledged = acknowledged

    def _walk(self, begin: Tally, size: int, closed: Tally | None) -> None:
        """Read through what was not acknowledged, and note what is whole of it."""
        at, places, known = begin.end, 0, 0
        octets = 0
        whole = begin
        while at < size:
            entry, end = None, at
            head = self._head(at)
            if head is not None:
                end = at + head.size
                entry = decode_body(head, os.pread(self.descriptor, head.body_bytes, at + HEAD_BYTES))
            if entry is not None:
                whole = whole.plus(end, entry.records)
                at = end
                continue
            following = self._next_whole(at, head, size)
            places += 1
            octets += min(following, size) - at
            known += 0 if head is None else head.records
            at = following
        # What is behind the last whole entry can be nothing but the beginning of one, or what is left of it.
        cut_off = size > whole.end or (closed is not None and size < closed.end)
        if size > whole.end:
            os.ftruncate(self.descriptor, whole.end)
        if closed is not None:
            # What it had is known: the lost are the difference.
            known = max(0, closed.records - whole.records)
            places += 0 if places else 1
        self.whole = whole
        self.damage = Damage(places, octets, known, cut_off)

    def _next_whole(self, offset: int, head: Head | None, size: int) -> int:
        """Where the first whole entry begins that follows a damaged one at this offset; the end when there is none."""
        if head is not None and offset + head.size < size and self._is_whole(offset + head.size):
            return offset + head.size
        at = offset + 1
        while at < size:
            octets = os.pread(self.descriptor, min(_SEARCH_BYTES, size - at), at)
            if not octets:
                return size
            found = octets.find(MARK_BYTES)
            while found >= 0:
                if self._is_whole(at + found):
                    return at + found
                found = octets.find(MARK_BYTES, found + 1)
            if len(octets) < len(MARK_BYTES):
                return size
            # The mark may lie across two parts.
            at += len(octets) - len(MARK_BYTES) + 1
        return size

    def _is_whole(self, offset: int) -> bool:
        head = self._head(offset)
        if head is None:
            return False
        return decode_body(head, os.pread(self.descriptor, head.body_bytes, offset + HEAD_BYTES)) is not None


def _write(descriptor: int, parts: Sequence[Buffer], offset: int, size: int) -> None:
    """Write all of it, or raise OSError: a disk on which there was room for a part only says how much that was."""
    if os.pwritev(descriptor, parts, offset) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
