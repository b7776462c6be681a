"""What is told of messages in a log: where one lies, what was there at the start, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.spool.segment import Damage, Segment


@dataclass(slots=True, eq=False)
class Place:
    """Where a message lies that was read and is not acknowledged yet."""

    segment: Segment
    offset: int
    end: int
    records: int
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What was in the spool when it was opened: messages and records that nobody has acknowledged, and the damage.

    ``foreign`` are files of another version of this program, which are left as they are.
    """

    messages: int = 0
    records: int = 0
    damage: tuple[tuple[Path, Damage], ...] = ()
    foreign: tuple[Path, ...] = ()

    @property
    def records_damaged(self) -> int:
        """Records that cannot be read, as far as that is known."""
        return sum(damage.records for _, damage in self.damage)

    def __add__(self, other: Found) -> Found:
        return Found(
            self.messages + other.messages,
            self.records + other.records,
            self.damage + other.damage,
            self.foreign + other.foreign,
        )


@dataclass(slots=True)
class Lost:
    """What could not be read back: damaged stretches that were passed over, and the records in them."""

    places: int = 0
    records: int = 0
