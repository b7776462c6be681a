"""Which messages of a poll are the next ones of their partitions, and which of them the client may have lost something before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Reading(Protocol):
    """One partition that is read: ``position`` is the offset that comes next.

    ``gap`` is the offset at which the log went on behind a gap that is being asked for again. ``ended`` says that there
    was nothing behind what was read.
    """

    number: int
    position: int
    gap: int | None
    ended: bool


class Poll:
    """What one poll brought, message by message in the order in which it came; ``seek`` reads a partition from an offset on."""

    def __init__(self, seek: Callable[[int, int], None]) -> None:
        self._seek = seek
        self._sought: set[int] = set()

    def is_next(self, of: Reading, offset: int) -> bool:
        """Whether the message at an offset is the next one; the partition goes on behind it then.

        The log may have a gap (a transaction's marker), and the client may have lost something: asking again tells them
        apart. What this poll has of the partition behind that comes again.
        """
        if of.number in self._sought or offset < of.position:
            return False
        of.ended = False
        if offset > of.position and of.gap != offset:
            of.gap = offset
            self._sought.add(of.number)
            self._seek(of.number, of.position)
            return False
        of.gap = None
        of.position = offset + 1
        return True

    def end(self, of: Reading) -> None:
        """Note the end of a partition, unless it is read again from before it."""
        if of.number not in self._sought:
            of.ended = True
