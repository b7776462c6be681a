"""What the spool cannot do, and why, for the log and the metrics."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why the spool did not do what it is for."""

    FULL = "full"
    """It holds as many bytes as it may."""
    DISK_FULL = "disk_full"
    NOT_WRITABLE = "not_writable"
    MISSING = "missing"
    """The directory, or the disk that it was on, is not there."""
    NO_DIRECTORY = "no_directory"
    """Where the directory should be is something else."""
    LOCKED = "locked"
    """Another process uses every directory that this worker might."""
    INPUT_OUTPUT = "input_output"
    """The disk answered with an error."""
    SLOW = "slow"
    """The disk takes longer than the messages that come for it: nothing is lost as long as the power stays on."""
    CUT_OFF = "cut_off"
    """The end of a file was missing: the process died while it wrote, or the machine lost power."""
    DAMAGED = "damaged"
    """What was read is not what was written."""
    OTHER_VERSION = "other_version"
    """A file is of another version of this program."""
    OTHER_TOPIC = "other_topic"
    """There are messages of a topic that is not produced to."""


class SpoolFault(Exception):
    """The spool cannot do what was asked. ``text`` says to a person what is wrong and what to do."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def of_system(error: OSError, path: object) -> SpoolFault:
    """The fault that an error of the system is."""
    reason = _REASONS.get(error.errno or 0, Reason.INPUT_OUTPUT)
    return SpoolFault(reason, f"{path}: {error.strerror or error}: {_REMEDIES[reason]}")


_REASONS: Final[Mapping[int, Reason]] = {
    errno.ENOSPC: Reason.DISK_FULL,
    errno.EDQUOT: Reason.DISK_FULL,
    errno.EFBIG: Reason.DISK_FULL,
    errno.EACCES: Reason.NOT_WRITABLE,
    errno.EPERM: Reason.NOT_WRITABLE,
    errno.EROFS: Reason.NOT_WRITABLE,
    errno.ENOENT: Reason.MISSING,
    errno.ENOTDIR: Reason.NO_DIRECTORY,
    errno.EEXIST: Reason.NO_DIRECTORY,
}

_REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.DISK_FULL: "free some space, or set ingest.spool.max_bytes to less than the disk has",
    Reason.NOT_WRITABLE: "give the user of this process the right to write there, or set ingest.spool.directory",
    Reason.MISSING: "make this directory (or mount its disk), or set ingest.spool.directory to one that is there",
    Reason.NO_DIRECTORY: "this is no directory: set ingest.spool.directory to one",
    Reason.INPUT_OUTPUT: "look after the disk, or set ingest.spool.directory to another one",
}
