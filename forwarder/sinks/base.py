"""What a sink is, and what it answers to a batch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

import pyarrow as pa

from forwarder.cut import Token


class Trouble(StrEnum):
    """Why a delivery failed: the values of the label ``reason``."""

    AWAY = "away"
    """The backend cannot be reached, or says that it cannot work now."""
    FULL = "full"
    """It has no room."""
    FORBIDDEN = "forbidden"
    """It does not let us."""
    REFUSED = "refused"
    """It says that what it got is wrong."""
    TOO_LARGE = "too_large"
    """It takes less at a time."""
    DEAD_LETTERS = "dead_letters"
    """The sink has the batch but for what it refused, and that cannot be put away."""
    UNEXPECTED = "unexpected"
    """The sink raised what it should have turned into an outcome: a defect of ours."""


@dataclass(frozen=True, slots=True)
class Done:
    """The backend has the batch, for good, however often it was handed over."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Not now: the same batch is to be delivered again, not before ``retry_after`` seconds if the backend said so."""

    reason: Trouble
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Never: the backend will refuse this batch each time."""

    detail: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Not in one piece: the backend takes smaller batches than this one."""

    detail: str


Outcome: TypeAlias = Done | Busy | Refused | TooLarge


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a sink can do its work, and a sentence that says what is the matter or what it does."""

    ok: bool
    detail: str


class Sink(Protocol):
    """One backend. The constructor does nothing; every method but ``health`` may block."""

    def open(self) -> None:
        """Make ready to deliver. Raises StartError when the backend is set up so that it can never work."""
        ...

    def deliver(self, table: pa.Table, token: Token, sums: pa.Table | None = None) -> Outcome:
        """Hand a batch to the backend, under a name that is the same each time it is handed over.

        Called by several threads at a time, each with another token. ``table`` has columns of the record in the
        record's order; which of them it has differs. ``sums`` are what a :class:`forwarder.aggregate.Aggregation` made
        of the batch, where it is aggregated. One of them may be without rows. Failures that are expected are outcomes;
        what is raised is taken for a defect and tried again.
        """
        ...

    def health(self) -> Health:
        """Say how the backend is, by what is known; called often and by any thread, so it must not wait."""
        ...

    def close(self) -> None:
        """Let go of what ``open`` took; no delivery runs any more."""
        ...
