"""Which shapes the batches of a partition have had, have, and will have: kept beside the group's offset in Kafka.

When the settings change while batches were delivered and not yet committed, those batches have to come out as they
were, or the backend could not tell that it has them. So the former shape holds on up to its first cut at or behind the
offset up to which anything can have been delivered: what a clean stop noted, or else the end that the log had when the
partition was assigned. After a clean stop that left nothing uncommitted, the new shape holds at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from forwarder.shape import Shape
from shared.errors import SluicewayError

NOTE_BYTES: Final = 4000
"""Kafka takes 4,096 bytes beside an offset."""
LAST_OFFSET: Final = 2**63 - 1
FORMAT: Final = 1
CLOCK_SLACK_MS: Final = 60_000
"""How far append time may go back in a partition."""


class TooManyShapesError(SluicewayError):
    """The shapes that hold now, and those that come, do not fit beside an offset: the next start could not know them."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A shape, which holds from the first cut of the one before it that is at or behind the offset ``after``."""

    after: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class Noted:
    """What stood beside an offset: the epochs, oldest first, and up to which offset anything was delivered, if known.

    ``unknown`` says that the shape which held there is none that this program knows.
    """

    epochs: tuple[Epoch, ...] = ()
    until: int | None = None
    unknown: bool = False


def read_note(note: str | None) -> Noted:
    """Read what stands beside an offset. What is not ours, or of another version, tells nothing.

    Without a note nothing was delivered: one is committed before anything is.
    """
    if not note:
        return Noted(until=0)
    try:
        told: Any = json.loads(note)
        if told["format"] != FORMAT:
            return Noted(unknown=True)
        until = None if told["until"] is None else int(told["until"])
        epochs = [(int(after), Shape.parse(shape)) for after, shape in told["epochs"]]
    except (ValueError, TypeError, KeyError):
        return Noted(unknown=True)
    known: list[Epoch] = []
    for after, shape in epochs:
        if shape is None:
            # What came before it is of no use without it: epochs follow each other.
            known.clear()
        else:
            known.append(Epoch(after, shape))
    return Noted(tuple(known), until, unknown=not epochs or epochs[-1][1] is None)


@dataclass(slots=True)
class Course:
    """The epochs of one partition, as far as they are known, and the one that holds where it is cut now.

    ``until`` is the offset up to which others may have delivered before.
    """

    epochs: list[Epoch]
    until: int = 0
    now: int = 0

    @classmethod
    def plan(cls, noted: Noted, start: int, end: int, shape: Shape) -> Course:
        """Decide by which shapes to go on at the offset ``start`` of a log that ends at ``end``.

        Raises:
            TooManyShapesError: the settings have changed so often behind ``start`` that there is no room to note them.
        """
        until = max(start, end if noted.until is None else noted.until)
        # Nobody has delivered by a shape that was only planned, nor can anybody know one that is not known.
        epochs = [] if noted.unknown else [one for one in noted.epochs if one.after <= start or one.after < until]
        if not epochs or epochs[-1].shape != shape:
            epochs.append(Epoch(until if epochs else start, shape))
        now = max((number for number, epoch in enumerate(epochs) if epoch.after <= start), default=0)
        needed = [Epoch(LAST_OFFSET, epoch.shape) for epoch in epochs[now:]]
        if len(_text(LAST_OFFSET, _told(needed))) > NOTE_BYTES:
            raise TooManyShapesError(
                f"the settings by which batches are made have changed {len(needed) - 1} times since offset {start}, and"
                f" batches up to offset {until} may have been delivered by any of them: so many settings have no room beside"
                " an offset in Kafka. Put back those with which this ran last, until it has delivered up to that offset"
            )
        return cls(epochs, until, now)

    @property
    def shape(self) -> Shape:
        """The shape that holds now."""
        return self.epochs[self.now].shape

    @property
    def ahead(self) -> list[Shape]:
        """The shape that holds now, and those that come."""
        return [epoch.shape for epoch in self.epochs[self.now :]]

    @property
    def remembers(self) -> bool:
        """Whether what was delivered before has to be known."""
        return any(shape.oldest_ms(0) is not None for shape in self.ahead)

    def oldest_ms(self, append_ms: int) -> int:
        """From which append time on the log has to be known, to go on with a message of this append time.

        A message behind it may have an earlier time, when another broker leads by then, and is judged by what was before
        that: so much more is read as their clocks may differ.
        """
        append_ms = max(0, append_ms - CLOCK_SLACK_MS)
        wanted = [shape.oldest_ms(append_ms) for shape in self.ahead]
        return min((oldest for oldest in wanted if oldest is not None), default=append_ms)

    def cut(self, end: int) -> bool:
        """Note that a batch ends before the offset ``end``; whether another shape holds from there on."""
        turned = False
        while self.now + 1 < len(self.epochs) and self.epochs[self.now + 1].after <= end:
            self.now += 1
            # From here on it is known where it began, whatever becomes of the shape before it.
            self.epochs[self.now] = Epoch(end, self.shape)
            turned = True
        return turned

    def note(self, settled: int | None = None) -> str:
        """Return what is to stand beside the group's offset: the epochs from now on, and earlier ones while there is room.

        ``settled`` is the offset behind which we have delivered nothing, when that is so.
        """
        until = None if settled is None else max(settled, self.until)
        told = _told(self.epochs)
        first, note = self.now, _text(until, told[self.now :])
        while first > 0 and len(longer := _text(until, told[first - 1 :])) <= NOTE_BYTES:
            first, note = first - 1, longer
        return note


def _told(epochs: Iterable[Epoch]) -> list[list[Any]]:
    return [[epoch.after, epoch.shape.model_dump(mode="json")] for epoch in epochs]


def _text(until: int | None, told: list[list[Any]]) -> str:
    return json.dumps({"format": FORMAT, "until": until, "epochs": told}, separators=(",", ":"))


def shape_at(epochs: Iterable[Epoch], offset: int) -> Shape | None:
    """The shape of the batch that begins at an offset, which is a cut; None when that is not known any more."""
    held: Shape | None = None
    for epoch in epochs:
        if epoch.after <= offset:
            held = epoch.shape
    return held
