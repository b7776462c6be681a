"""The spool of one topic: messages in the order in which they came, each read, and acknowledged, once.

What was appended is in the page cache of the kernel, where no crash of ours reaches it. It is on the disk itself, where
a loss of power does not reach it either, when its file is full, or a second later: see :mod:`ingest.spool.store`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingest.spool.entry import Entry
from ingest.spool.fault import Reason, SpoolFault, of_system
from ingest.spool.found import Found, Lost, Place
from ingest.spool.quota import Quota
from ingest.spool.segment import FIRST, SUFFIX, Segment, Tally, UnknownVersionError

SEGMENT_BYTES: Final = 64 << 20
"""A file is closed at this size: so much is deleted at a time."""

SEGMENTS: Final = 16
"""A spool with room for fewer files than this has smaller ones."""

SMALLEST_SEGMENT: Final = 64 << 10

ROOM_BYTES: Final = 1024
"""What a message takes beside its value, or less."""

PAUSE_SECONDS: Final = 0.1
"""How long nothing is tried after something could not be written: to find out costs as much as to succeed."""

_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Reading:
    """How many messages and records of a file were read, or acknowledged in an earlier life."""

    messages: int
    records: int
    left: bool = False
    """Whether it was read to its end, and what could not be read was counted."""


class SpoolLog:
    """The log of one topic. Bounded by the quota that all share. One thread uses it.

    Files that were found are only read; what is appended goes to files of its own. ``flush`` is given the descriptor of
    a file that has to be brought to the disk, and does not block.
    """

    def __init__(
        self,
        directory: Path,
        quota: Quota,
        flush: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self.messages = 0
        """Messages that are not acknowledged."""
        self.records = 0
        """Records of these."""
        self.bytes = 0
        """What its files take."""
        self._quota = quota
        self._flush = flush
        self._clock = clock
        self._segment_bytes = max(SMALLEST_SEGMENT, min(SEGMENT_BYTES, quota.limit_bytes // SEGMENTS))
        self._number = 0
        self._segments: deque[Segment] = deque()
        self._readings: dict[Segment, _Reading] = {}
        self._writer: Segment | None = None
        self._dirty = False
        self._reader: Segment | None = None
        self._offset = 0
        self._next: tuple[Entry, Place] | None = None
        self._outstanding: deque[Place] = deque()
        self._done: set[tuple[Segment, int]] = set()
        """Where messages lie that were acknowledged out of order before the log was rewound: they are not read again."""
        self._lost = Lost()
        self._fault = SpoolFault(Reason.MISSING, f"{directory}: the spool is not open")
        self._paused_until = _NEVER

    # Opening and closing

    def open(self) -> Found:
        """Make the directory, and take in the files that are there; raises SpoolFault."""
        found = Found()
        try:
            self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            for path in segment_files(self.directory):
                self._number = int(path.stem)
                found += self._take(path)
        except OSError as error:
            fault = of_system(error, self.directory)
            self.abandon(fault)
            raise fault from error
        self._paused_until = 0.0
        return found

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._paused_until < _NEVER

    def adopt(self, path: Path) -> Found:
        """Take a file of another log in, behind what is here: it is moved; raises SpoolFault."""
        self._end_writing()
        self._number += 1
        try:
            return self._take(path.rename(self._path()))
        except OSError as error:
            raise of_system(error, path) from error

    def abandon(self, fault: SpoolFault) -> None:
        """Let all files go, and count nothing of them: it cannot be opened, for this reason."""
        self.close()
        self._fault = fault
        self._count(-self.bytes, -self.messages, -self.records)

    def close(self) -> None:
        """Let all files go; they stay, and nothing can be appended any more."""
        self._end_writing()
        for segment in self._segments:
            segment.close()
        self._segments.clear()
        self._readings.clear()
        self._outstanding.clear()
        self._done.clear()
        self._reader = self._next = None
        self._paused_until = _NEVER

    # Writing

    def append(self, entry: Entry) -> None:
        """Write a message behind all others; raises SpoolFault, and nothing is written then."""
        self._append(entry)

    def append_read(self, entry: Entry) -> Place:
        """Write a message that counts as read at once, which needs all before it to be read; raises SpoolFault."""
        assert self.caught_up
        place = self._append(entry)
        self._pass(place)
        return place

    def sync(self) -> None:
        """Have what was written since the last call brought to the disk."""
        if self._dirty and self._writer is not None:
            self._flush(self._writer.descriptor)
        self._dirty = False

    def _append(self, entry: Entry) -> Place:
        now = self._clock()
        if now < self._paused_until:
            raise self._fault
        try:
            segment = self._for_writing(len(entry.value))
            offset = segment.whole.end
            end = segment.append(entry)
        except OSError as error:
            raise self._pause(of_system(error, self.directory), now) from error
        except SpoolFault as fault:
            self._pause(fault, now)
            raise
        self._dirty = True
        self._count(end - offset, 1, entry.records)
        return Place(segment, offset, end, entry.records)

    def _pause(self, fault: SpoolFault, now: float) -> SpoolFault:
        self._fault, self._paused_until = fault, now + PAUSE_SECONDS
        return fault

    def _for_writing(self, size: int) -> Segment:
        """The file that a message with a value of so many bytes is to be written to."""
        if not self._quota.has_room(size + ROOM_BYTES):
            raise SpoolFault(
                Reason.FULL,
                f"{self.directory}: the spools of all workers together have the {self._quota.limit_bytes} bytes that"
                " they may have: bring Kafka back, or raise ingest.spool.max_bytes",
            )
        if self._writer is not None and self._writer.whole.end >= self._segment_bytes:
            self._end_writing()
        if self._writer is None:
            self._number += 1
            self._writer = Segment.create(self._path())
            self._put(self._writer)
            self._count(FIRST, 0, 0)
            self._sync_directory()
        return self._writer

    def _end_writing(self) -> None:
        """Write no more to the file that is written to."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # Without this note it is read through when it is opened again: an error costs nothing but that.
            writer.seal()
            self._flush(writer.descriptor)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._flush(descriptor)
        os.close(descriptor)

    # Reading

    @property
    def caught_up(self) -> bool:
        """Whether there is nothing that was not read yet."""
        reader = self._reader
        return reader is None or (reader is self._segments[-1] and self._offset >= reader.whole.end)

    def peek(self) -> tuple[Entry, Place] | None:
        """The next message that was not read, and its place; None when there is none. Damage is passed over."""
        while self._next is None:
            reader = self._reader
            if reader is None or self.caught_up:
                return None
            if self._offset >= reader.whole.end:
                self._leave(reader)
                self._begin(self._segments[self._segments.index(reader) + 1])
                self._remove_finished()
                continue
            entry, end = reader.read(self._offset)
            if entry is None:
                self._lost.places += 1
                self._offset = end
                self._settle()
                continue
            place = Place(reader, self._offset, end, entry.records)
            if (reader, self._offset) in self._done:
                self._done.discard((reader, self._offset))
                place.acknowledged = True
                self._pass(place)
                self._settle()
            else:
                self._next = entry, place
        return self._next

    def advance(self) -> None:
        """Take the message that :meth:`peek` showed for read."""
        assert self._next is not None
        self._pass(self._next[1])

    def acknowledge(self, places: Iterable[Place]) -> None:
        """Take messages that were read for delivered, in whatever order.

        What was delivered up to the first that was not is noted on disk, and never read again.
        """
        for place in places:
            assert not place.acknowledged
            place.acknowledged = True
            self._count(0, -1, -place.records)
        self._settle()

    def rewind(self) -> None:
        """Read everything again that is not acknowledged."""
        self._next = None
        if not self._outstanding:
            return
        self._done |= {(place.segment, place.offset) for place in self._outstanding if place.acknowledged}
        # Those before it were acknowledged, and let go.
        first = self._outstanding[0]
        self._reader, self._offset = first.segment, first.offset
        for segment in list(self._segments)[self._segments.index(first.segment) :]:
            reading = self._readings[segment]
            reading.messages, reading.records = segment.acknowledged.messages, segment.acknowledged.records
        self._outstanding.clear()

    def take_lost(self) -> Lost:
        """What could not be read since the last call. Its records are not in :attr:`records` any more."""
        lost, self._lost = self._lost, Lost()
        return lost

    # Files

    def _path(self) -> Path:
        return self.directory / f"{self._number:012d}{SUFFIX}"

    def _take(self, path: Path) -> Found:
        """Put a file that is there behind the others."""
        try:
            segment = Segment.open(path)
        except UnknownVersionError:
            self._count(path.stat().st_size, 0, 0)
            return Found(foreign=(path,))
        found = Found(
            segment.messages_left, segment.records_left, ((path, segment.damage),) if segment.damage.places else ()
        )
        if found.messages:
            self._put(segment)
            self._count(segment.whole.end, found.messages, found.records)
        else:
            segment.remove()
        return found

    def _put(self, segment: Segment) -> None:
        caught_up, reader = self.caught_up, self._reader
        self._segments.append(segment)
        self._readings[segment] = _Reading(segment.acknowledged.messages, segment.acknowledged.records)
        if caught_up:
            if reader is not None:
                self._leave(reader)
            self._begin(segment)

    def _begin(self, segment: Segment) -> None:
        self._reader, self._offset = segment, segment.acknowledged.end

    def _pass(self, place: Place) -> None:
        """Take the message at a place for read."""
        self._outstanding.append(place)
        reading = self._readings[place.segment]
        reading.messages += 1
        reading.records += place.records
        self._offset = place.end
        self._next = None

    def _leave(self, segment: Segment) -> None:
        """Count what a file had and what could not be read of it, when it was read to its end."""
        reading = self._readings[segment]
        if not reading.left:
            reading.left = True
            messages = segment.whole.messages - reading.messages
            records = segment.whole.records - reading.records
            self._lost.records += records
            self._count(0, -messages, -records)

    def _settle(self) -> None:
        """Note how far everything was acknowledged, and delete the files that are done with."""
        moved: dict[Segment, Tally] = {}
        while self._outstanding and self._outstanding[0].acknowledged:
            place = self._outstanding.popleft()
            moved[place.segment] = moved.get(place.segment, place.segment.acknowledged).plus(place.end, place.records)
        for segment, tally in moved.items():
            segment.acknowledge(tally)
        self._remove_finished()

    def _remove_finished(self) -> None:
        while self._segments:
            first = self._segments[0]
            if self._outstanding and self._outstanding[0].segment is first:
                return
            if self._reader is first:
                if not self.caught_up:
                    return
                self._leave(first)
                self._reader = None
            if self._writer is first:
                self._writer = None
            self._segments.popleft()
            del self._readings[first]
            self._count(-first.whole.end, 0, 0)
            first.remove()

    def _count(self, size: int, messages: int, records: int) -> None:
        self._quota.add(size)
        self.bytes += size
        self.messages += messages
        self.records += records


def segment_files(directory: Path) -> list[Path]:
    """The files of a log, in their order."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())
