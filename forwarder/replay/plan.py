"""What of each partition is read, cut and delivered again: decided before anything is delivered, or refused.

A cut is always at the first message of a new interval of append time, whatever came before it, and where an epoch of the
course begins. So the batches of an earlier time are found from any later one: from the boundary before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from forwarder.course import Course, Epoch, Noted, shape_at
from forwarder.replay.points import Moment, Offsets, Point
from shared.errors import ConfigError, SluicewayError

if TYPE_CHECKING:
    from forwarder.shape import Shape

NO_END: Final = 1 << 62
"""An offset behind every log."""
NOTHING_EXPIRED: Final = -1
SHOWN: Final = 3
"""Partitions that a refusal names one by one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that is in the log: its offset, and when the broker appended it."""

    offset: int
    append_ms: int


class Log(Protocol):
    """What can be asked of the topic's log: :class:`forwarder.replay.kafka.KafkaLog`, or a fake."""

    def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first offset that the log still has, and the one that the next message gets."""
        ...

    def offset_at(self, partition: int, ms: int) -> int:
        """Return the first offset whose message was appended at this time or later, else the log's end."""
        ...

    def look(self, partition: int, offset: int) -> Seen | None:
        """Return the first message at an offset or behind it; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a sink's group tells of a partition: up to which offset it has delivered, and by which shapes."""

    committed: int
    noted: Noted


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets that are asked for, ``end`` not among them; batches that hold any of them are delivered."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One partition's part of a replay, in offsets.

    It is read from ``read`` on, and cut from ``begin`` on, which is a cut: what comes before is remembered. Batches
    that end at or before ``first`` are made and not delivered, and so are those without a message before ``end``. The
    group has delivered up to ``stop``, which is a cut too. ``epochs`` are those from ``begin`` on. ``exact`` says that
    its batches are those that were delivered.
    """

    number: int
    read: int
    begin: int
    first: int
    end: int
    stop: int
    epochs: tuple[Epoch, ...]
    exact: bool

    @property
    def cuts(self) -> tuple[int, ...]:
        """Offsets behind ``begin`` that are known to be cuts."""
        return (*(epoch.after for epoch in self.epochs if self.begin < epoch.after < self.stop), self.stop)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a partition cannot be replayed in its former batches, and from about which append time on it could, if ever."""

    partition: int
    reason: str
    earliest_ms: int | None


class RefusedError(SluicewayError):
    """The replay would bring what the backend has under other names, or with another content."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        lines = [f"partition {one.partition}: {one.reason}" for one in refusals[:SHOWN]]
        if len(refusals) > SHOWN:
            lines.append(f"and {len(refusals) - SHOWN} other partitions")
        times = [one.earliest_ms for one in refusals if one.earliest_ms is not None]
        later = f"Begin later (--from {Moment(max(times))}); or deliver" if len(times) == len(refusals) else "Deliver"
        first = "the batches of this range cannot be made again as they were, and others would be there twice:"
        last = (
            f"{later} into a sink that has nothing of the range (--into OTHER); or, if this sink has nothing of it any"
            " more, say --range-deleted"
        )
        super().__init__("\n".join([first, *lines, last]))


def spans(log: Log, partitions: int, begin: Point, end: Point | None) -> dict[int, Span]:
    """Return what is asked for of each partition; ``end`` None is up to what was delivered.

    Raises:
        ConfigError: the points do not fit each other, or name partitions that are not there.
    """
    if isinstance(begin, Moment) and isinstance(end, Moment) and end.ms <= begin.ms:
        raise ConfigError(f"--to {end} is not after --from {begin}")
    named = [set(point.by_partition) for point in (begin, end) if isinstance(point, Offsets)]
    if len(named) == 2 and named[0] != named[1]:
        raise ConfigError("--from and --to name different partitions: give an offset of each in both")
    numbers = sorted(named[0]) if named else range(partitions)
    if numbers and max(numbers) >= partitions:
        raise ConfigError(f"there is no partition {max(numbers)}: the topic has {partitions}, counted from 0")
    found = {}
    for number in numbers:
        last = NO_END if end is None else _offset(log, number, end)
        found[number] = Span(_offset(log, number, begin), last)
        if named and isinstance(begin, Offsets) and last <= found[number].start:
            raise ConfigError(f"of partition {number}, --to is not behind --from: {last} and {found[number].start}")
    return found


def _offset(log: Log, number: int, point: Point) -> int:
    return point.by_partition[number] if isinstance(point, Offsets) else log.offset_at(number, point.ms)


def plan(
    log: Log,
    delivered: Mapping[int, Delivered],
    wanted: Mapping[int, Span],
    *,
    otherwise: Shape | None = None,
    goes_on: Collection[int] = (),
) -> list[Leg]:
    """Plan each partition of which anything is wanted and delivered.

    ``otherwise`` is the shape of batches whose own is not known; with it the range may begin in the middle of a batch,
    or where the log begins, since the sink has nothing of it. Of the partitions in ``goes_on`` the wanted span begins
    at a cut, where a former run was stopped.

    Raises:
        RefusedError: batches cannot be made again as they were, and ``otherwise`` is None.
    """
    legs: list[Leg] = []
    refusals: list[Refusal] = []
    for number, span in sorted(wanted.items()):
        if number not in delivered:
            continue
        planned = _Planner(log, number, delivered[number], otherwise).plan(span, goes_on=number in goes_on)
        if isinstance(planned, Refusal):
            refusals.append(planned)
        elif planned is not None:
            legs.append(planned)
    if refusals:
        raise RefusedError(refusals)
    return legs


class _Planner:
    """Plans one partition."""

    def __init__(self, log: Log, number: int, delivered: Delivered, otherwise: Shape | None) -> None:
        self._log = log
        self._number = number
        self._stop = delivered.committed
        self._low, high = log.bounds(number)
        # The oldest message that is left, if any has expired; the log may begin with a gap.
        oldest = log.look(number, self._low) if self._low else None
        self._oldest = oldest.offset if oldest else high if self._low else NOTHING_EXPIRED
        self._lenient = otherwise is not None
        epochs = delivered.noted.epochs
        if otherwise is not None and not (epochs and epochs[0].after <= self._low):
            epochs = (Epoch(self._low, otherwise), *epochs)
        self._epochs = epochs

    def plan(self, span: Span, *, goes_on: bool) -> Leg | Refusal | None:
        """Plan the batches that hold anything of a span; None when there are none."""
        end = min(span.end, self._stop)
        start = max(span.start, self._low) if self._lenient else span.start
        if start >= end:
            return None
        if start < self._low:
            return self._expired()
        found = self._log.look(self._number, start)
        if found is None or found.offset >= end:
            return None
        at = max((at for at, epoch in enumerate(self._epochs) if epoch.after <= found.offset), default=None)
        if at is None:
            return self._unknown()
        epochs = (self._epochs[at], *(epoch for epoch in self._epochs[at + 1 :] if epoch.after < end))
        begin = start if goes_on else self._cut_before(found, epochs[0])
        if begin is None and not self._lenient:
            return self._expired()
        return self._leg(self._low if begin is None else begin, start if goes_on else found.offset, end, epochs)

    def _leg(self, begin: int, first: int, end: int, epochs: tuple[Epoch, ...]) -> Leg | Refusal:
        read, course = begin, Course(list(epochs))
        if course.remembers:
            oldest_ms = course.oldest_ms(self._append_ms(begin))
            read = min(begin, self._log.offset_at(self._number, oldest_ms))
            if read <= self._oldest and not self._lenient:
                return self._forgotten(course)
        return Leg(self._number, read, begin, first, end, self._stop, epochs, exact=not self._lenient)

    def _cut_before(self, found: Seen, epoch: Epoch) -> int | None:
        """A cut from which on the batch that holds a message, and all that follow, come out as they were.

        None when what that takes has expired.
        """
        begin = self._boundary(found, epoch)
        if begin <= epoch.after:
            return epoch.after
        if begin <= self._oldest:
            # Whether this is the first message of its interval cannot be known any more.
            return None
        before = self._log.look(self._number, begin - 1)
        if before is not None and before.offset < begin:
            return begin
        # There is a gap before the boundary, and only the batch before it tells on which side of the gap it ends.
        back, least = 2, max(self._low, epoch.after)
        while before is None or before.offset >= begin:
            if begin - back < least:
                return epoch.after if epoch.after >= self._low else None
            before = self._log.look(self._number, begin - back)
            back *= 2
        earlier = self._boundary(before, epoch)
        if earlier <= epoch.after:
            return epoch.after
        return None if earlier <= self._oldest else earlier

    def _boundary(self, seen: Seen, epoch: Epoch) -> int:
        """The first offset of the interval in which a message was appended, or of a later one."""
        interval_ms = epoch.shape.cut.interval_ms
        return self._log.offset_at(self._number, seen.append_ms // interval_ms * interval_ms)

    def _append_ms(self, offset: int) -> int:
        seen = self._log.look(self._number, offset)
        return 0 if seen is None else seen.append_ms

    # --- what cannot be done

    def _expired(self) -> Refusal:
        return Refusal(
            self._number,
            f"Kafka has let go of what was before offset {self._low}",
            self._next_interval_ms(self._low),
        )

    def _unknown(self) -> Refusal:
        if not self._epochs:
            return Refusal(self._number, "it is not known by which settings its batches were made", None)
        known = self._epochs[0].after
        return Refusal(
            self._number,
            f"it is not known any more by which settings its batches before offset {known} were made",
            self._next_interval_ms(known),
        )

    def _forgotten(self, course: Course) -> Refusal:
        """The log does not go back far enough to know which records were there before."""
        low_ms = self._append_ms(self._low)
        append_ms = low_ms
        while course.oldest_ms(append_ms) <= low_ms:
            append_ms += max(1000, low_ms - course.oldest_ms(append_ms) + 1)
        interval_ms = course.shape.cut.interval_ms
        return Refusal(
            self._number,
            f"Kafka has let go of what was before offset {self._low}, which dedup has to know",
            -(-append_ms // interval_ms) * interval_ms,
        )

    def _next_interval_ms(self, offset: int) -> int | None:
        """The time of the first cut behind a message that is certain to be one."""
        seen = self._log.look(self._number, offset)
        if seen is None or not self._epochs:
            return None
        held = shape_at(self._epochs, seen.offset) or self._epochs[0].shape
        return (seen.append_ms // held.cut.interval_ms + 1) * held.cut.interval_ms
