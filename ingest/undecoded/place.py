"""A partition of ``flows.undecoded`` that is ours, and whether it has to be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingest.undecoded.chunk import Answer

REST: Final = 10
"""So many scans may pass over a partition in which nothing seems to have changed."""
MOST_WAITING: Final = 4096
"""Templates of one partition whose coming is noticed; with more, the partition is always read."""


@dataclass(slots=True)
class Place:
    """Where we are in a partition that is ours, and what is known of the sets behind it that wait."""

    number: int
    position: int
    """The offset that is read next."""
    end: int = 0
    """The end of the log when the last scan of it began."""
    scanned: float = 0.0
    complete: bool = False
    """Whether that scan came to its end."""
    appended: int = 0
    """Messages that we have appended since it began: they are behind its end."""
    waiting: dict[bytes, tuple[int, ...]] | None = None
    """The templates that are waited for, and which layouts of them did not fit; None when there are too many."""
    due_ns: int | None = None
    """When the first of these sets will have waited for too long."""
    passed: int = 0
    """How many scans have passed over it."""

    def begin(self, end: int, now: float) -> None:
        """A scan begins."""
        self.end, self.scanned, self.complete = end, now, False
        self.appended = self.passed = 0
        self.waiting, self.due_ns = {}, None

    def note(self, answer: Answer, oldest_ns: int | None, max_age_ns: int, appended: int) -> None:
        """Some of its sets were appended again."""
        self.appended += appended
        if self.waiting is not None:
            self.waiting.update(answer.known)
            if len(self.waiting) > MOST_WAITING:
                self.waiting = None
        if oldest_ns is not None:
            due_ns = oldest_ns + max_age_ns
            self.due_ns = due_ns if self.due_ns is None else min(self.due_ns, due_ns)

    def same(self, high: int, now_ns: int) -> bool:
        """Whether there is nothing but what we have appended, and nothing of that is too old yet."""
        young = self.due_ns is None or now_ns < self.due_ns
        return self.complete and self.passed < REST and high - self.end == self.appended and young
