"""A worker's spool: a directory that is its own, a log for each topic, and what earlier workers left.

    <ingest.spool.directory>/worker-<n>/lock            who has it locked uses the directory
                                       /partitions      how many partitions the records' topic had last
                                       /<topic>/000000000001.spool …

Worker i of k uses `worker-i`; when a worker that lost its supervisor still has that, the next of i + k, i + 2k, … that is
free. The others of these, left by more workers than there are now, or by one that ended meanwhile, it takes over: their
files are moved behind its own. So nothing is left behind, whatever the number of workers is after a restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ingest.spool.disk import DiskWriter
from ingest.spool.fault import Reason, SpoolFault, of_system
from ingest.spool.found import Found
from ingest.spool.quota import Quota
from ingest.spool.spoollog import SpoolLog, segment_files

SYNC_SECONDS: Final = 1.0
"""How long what was written may be in the page cache alone."""

RETRY_SECONDS: Final = 10.0
"""How often a directory that could not be used is tried again, and how often we look for what others left."""

CLOSE_SECONDS: Final = 5.0
"""How long a stopping worker waits for the disk."""

MOST_SLOTS: Final = 64
"""Directories that a worker tries before it gives up."""

_SLOT: Final = re.compile(r"worker-(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the instance's spool is a worker's: worker ``index`` of ``count``.

    ``used`` is memory that all workers share, see :class:`Quota`. ``known`` is how many records of each topic the
    worker before this one had in the spool, by its last report: of these the instance has heard.
    """

    index: int
    count: int
    used: MutableSequence[int]
    known: Mapping[str, int] = field(default_factory=dict)


class Listener(Protocol):
    """Hears what there is to count and to tell."""

    def found(self, topic: str, found: Found, known: int) -> None:
        """Messages of a topic are in the spool, where so many records were known of.

        Called for each topic at the start, whether something was found or not, and later when more is found.
        """

    def failed(self, fault: SpoolFault) -> None:
        """The spool cannot do what it is for."""


class Spool:
    """What a worker has on disk. Made inert; :meth:`open` begins. One thread uses it."""

    def __init__(
        self, directory: Path, max_bytes: int, share: Share, topics: Sequence[str], listener: Listener
    ) -> None:
        self._root = directory
        self._share = share
        self._listener = listener
        self._disk = DiskWriter()
        self._quota = Quota(max_bytes, share.used, share.index)
        self._topics = topics
        self._known = dict(share.known)
        self._slot: Path | None = None
        self._lock: int | None = None
        self._next_try = 0.0
        self._next_sync = 0.0
        self._told: set[Path] = set()
        # They have their directory from the start, so that whoever writes to them can be made with them.
        self.logs = {topic: SpoolLog(Path(topic), self._quota, self._disk.sync) for topic in topics}

    @property
    def bytes(self) -> int:
        """What all logs take on disk."""
        return sum(log.bytes for log in self.logs.values())

    def open(self) -> None:
        """Take a directory, and all that is in it and in those that nobody uses any more.

        When that cannot be done the listener is told, and :meth:`tend` tries again.
        """
        self._quota.begin()
        self._open(time.monotonic())
        for topic, known in self._known.items():
            self._listener.found(topic, Found(), known)
        self._known.clear()

    def tend(self, now: float) -> None:
        """Do what has to be done now and then; ``now`` is of the monotonic clock. Called often."""
        if now >= self._next_sync:
            self._next_sync = now + SYNC_SECONDS
            for log in self.logs.values():
                log.sync()
            error, self._disk.error = self._disk.error, None
            if error is not None:
                self._listener.failed(of_system(error, self._root))
            left_out, self._disk.left_out = self._disk.left_out, 0
            if left_out:
                self._listener.failed(
                    SpoolFault(
                        Reason.SLOW,
                        f"{self._root}: the disk is slower than what is written, so a loss of power may cost more than the"
                        f" last second ({left_out} files were left to the kernel): use a faster disk",
                    )
                )
        if now >= self._next_try:
            self._open(now)

    @property
    def partitions(self) -> int:
        """How many partitions the records' topic had when a worker here last heard of it; 0 when that is not known."""
        if self._slot is None:
            return 0
        try:
            return int((self._slot / "partitions").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def note_partitions(self, count: int) -> None:
        """Keep how many partitions the records' topic has, for a start at which no broker can be asked."""
        if self._slot is not None and count != self.partitions:
            with contextlib.suppress(OSError):
                (self._slot / "partitions").write_text(f"{count}\n", encoding="ascii")

    def close(self) -> None:
        """Let go of everything; what is on disk stays there."""
        for log in self.logs.values():
            log.close()
        self._disk.close(CLOSE_SECONDS)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Directories

    def _open(self, now: float) -> None:
        self._next_try = now + RETRY_SECONDS
        try:
            if self._slot is None:
                self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
                self._slot, self._lock = self._own_slot()
                self._open_logs(self._slot)
            self._adopt(self._slot)
        except OSError as error:
            self._fail(of_system(error, error.filename or self._root))
        except SpoolFault as fault:
            self._fail(fault)

    def _own_slot(self) -> tuple[Path, int]:
        for number in range(self._share.index, self._share.index + MOST_SLOTS * self._share.count, self._share.count):
            slot = self._root / f"worker-{number}"
            slot.mkdir(mode=0o750, exist_ok=True)
            lock = _locked(slot)
            if lock is not None:
                return slot, lock
        raise SpoolFault(
            Reason.LOCKED,
            f"{self._root}: other processes use all {MOST_SLOTS} directories that this worker may have:"
            " give each instance an ingest.spool.directory of its own",
        )

    def _open_logs(self, slot: Path) -> None:
        found = {}
        for topic, log in self.logs.items():
            log.directory = slot / topic
            found[topic] = log.open()
        # Told when all are open: until then they may be let go, and opened once more.
        for topic, one in found.items():
            self._found(topic, one)
        self._tell_of_others(slot)

    def _adopt(self, own: Path) -> None:
        """Take over what is in directories that would be ours too, and that nobody uses."""
        for slot in self._others(own):
            lock = _locked(slot) if any(slot.glob("*/*.spool")) else None
            if lock is None:
                continue
            try:
                for topic, log in self.logs.items():
                    for path in segment_files(slot / topic):
                        self._found(topic, log.adopt(path))
                self._tell_of_others(slot)
            finally:
                os.close(lock)

    def _others(self, own: Path) -> Iterator[Path]:
        numbers = [int(found[1]) for path in self._root.iterdir() if (found := _SLOT.fullmatch(path.name))]
        for number in sorted(numbers):
            slot = self._root / f"worker-{number}"
            if number % self._share.count == self._share.index and slot != own:
                yield slot

    def _found(self, topic: str, found: Found) -> None:
        self._listener.found(topic, found, self._known.pop(topic, 0))

    def _tell_of_others(self, slot: Path) -> None:
        """Say once what there is that will not be sent."""
        for directory in slot.iterdir():
            if directory.name in self.logs or directory in self._told or not segment_files(directory):
                continue
            self._told.add(directory)
            self._listener.failed(
                SpoolFault(
                    Reason.OTHER_TOPIC,
                    f"{directory}: messages of a topic that this configuration does not produce to:"
                    " set kafka.topic_prefix back until they are sent, or remove the directory",
                )
            )

    def _fail(self, fault: SpoolFault) -> None:
        """Tell of it, and begin anew at the next try; unless the logs are open: then they go on as they are."""
        self._listener.failed(fault)
        if self._slot is not None and all(log.is_open for log in self.logs.values()):
            return
        for log in self.logs.values():
            log.abandon(fault)
        if self._lock is not None:
            os.close(self._lock)
        self._slot = self._lock = None


def _locked(slot: Path) -> int | None:
    """Lock a directory as long as the descriptor that is returned is open; None when another process has it."""
    lock = os.open(slot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return lock
