"""A replay from the request to its end: what is to be done, refused where it would double; and done, resumably."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from forwarder.replay.bookmark import Bookmark
from forwarder.replay.plan import Delivered, Leg, Log, Span, plan, spans
from forwarder.replay.request import REMEMBERED_SECONDS
from forwarder.replay.run import MARK_SECONDS, Reader, Replay, progress
from forwarder.shape import shape_of
from shared.errors import SluicewayError
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    import threading

    from forwarder.config import ForwarderConfig
    from forwarder.replay.report import Meter
    from forwarder.replay.request import Request
    from forwarder.replay.run import Pace, Target
    from forwarder.replay.selection import Selection
    from forwarder.shape import Shape
    from shared.kafka import TopicFacts

STOP_SECONDS: Final = 15.0
"""How long a stop waits for what the sink has in hand."""


class Kafka(Log, Reader, Protocol):
    """All that a replay asks of Kafka: :class:`forwarder.replay.kafka.KafkaLog`, or a fake."""

    def delivered(self, group: str, partitions: int) -> dict[int, Delivered]:
        """Return what a group has committed."""
        ...

    def bookmarks(self, partitions: int) -> dict[int, tuple[int, str | None]]:
        """Return how far this replay has come."""
        ...

    def mark(self, offsets: Mapping[int, tuple[int, str]]) -> None:
        """Keep how far this replay has come."""
        ...

    def forget(self) -> None:
        """Remove what was kept."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be done: the legs with their bookmarks, and which records of them. ``goes_on`` if it was begun before."""

    legs: tuple[Leg, ...]
    bookmarks: Mapping[int, Bookmark]
    selection: Selection
    goes_on: bool = False


def prepare(
    request: Request, config: ForwarderConfig, topic: TopicFacts, kafka: Kafka, now_ms: int, *, afresh: bool = False
) -> Prepared:
    """Find out what is to be done; ``afresh`` leaves out what a former run has kept.

    Raises:
        ConfigError: what is asked for cannot be meant.
        SluicewayError: it would double what the backend has, or Kafka has nothing of it any more.
    """
    request.check(config, now_ms)
    selection = request.selection(now_ms)
    group = f"{config.group_id}.{request.sink}"
    delivered = kafka.delivered(group, topic.partitions)
    if not delivered:
        raise SluicewayError(
            f"the sink {request.sink} has delivered nothing of {topic.name}: its group {group} has no offsets. What is in"
            f" Kafka is delivered by `python -m forwarder serve --sink {request.sink}`; a replay repeats it"
        )
    otherwise = shape_of(config, request.sink, topic.partitions) if request.is_elsewhere else None
    kept = {} if afresh else _kept(kafka, topic.partitions)
    if kept:
        prepared = _go_on(kafka, delivered, kept, otherwise, selection)
    else:
        wanted = spans(kafka, topic.partitions, *request.points(now_ms))
        legs = plan(kafka, delivered, wanted, otherwise=otherwise)
        received = (selection.received_from_ns, selection.received_to_ns)
        marks = {leg.number: Bookmark.of(len(legs), leg, wanted[leg.number], received) for leg in legs}
        prepared = Prepared(tuple(legs), marks, selection)
    _see_that_it_honours_tokens(request, config, topic, kafka, prepared, now_ms)
    return prepared


def _kept(kafka: Kafka, partitions: int) -> dict[int, tuple[int, Bookmark]]:
    """How far a former run has come, if it had begun."""
    found = {number: (offset, Bookmark.parse(text)) for number, (offset, text) in kafka.bookmarks(partitions).items()}
    known = {number: (offset, mark) for number, (offset, mark) in found.items() if mark is not None}
    return known if all(mark.partitions == len(known) for _, mark in known.values()) else {}


def _go_on(
    kafka: Kafka,
    delivered: Mapping[int, Delivered],
    kept: Mapping[int, tuple[int, Bookmark]],
    otherwise: Shape | None,
    selection: Selection,
) -> Prepared:
    goes_on = {number for number, (offset, mark) in kept.items() if offset > mark.span.start}
    wanted = {
        number: Span(offset if number in goes_on else mark.span.start, mark.span.end)
        for number, (offset, mark) in kept.items()
    }
    legs = plan(kafka, delivered, wanted, otherwise=otherwise, goes_on=goes_on)
    changed = [leg.number for leg in legs if not kept[leg.number][1].fits(leg)]
    if changed:
        raise SluicewayError(
            f"the settings that batches are made by have changed since this replay was begun (partition {changed[0]}):"
            " its second half would be of other batches than its first. Put the settings back; or, if the sink has"
            " nothing of the range any more, say --restart"
        )
    received = next(mark.received_ns for _, mark in kept.values())
    return Prepared(
        tuple(legs),
        {number: mark for number, (_, mark) in kept.items()},
        replace(selection, received_from_ns=received[0], received_to_ns=received[1]),
        goes_on=True,
    )


def _see_that_it_honours_tokens(
    request: Request, config: ForwarderConfig, topic: TopicFacts, kafka: Kafka, prepared: Prepared, now_ms: int
) -> None:
    """Refuse what the backend would take for something new though it has it."""
    numbers = {leg.number for leg in prepared.legs}
    if request.range_deleted or not numbers:
        return
    if request.into is not None:
        group = f"{config.group_id}.{request.into}"
        if numbers & kafka.delivered(group, topic.partitions).keys():
            raise SluicewayError(
                f"the sink {request.into} is served itself: its group {group} has offsets, so it has the range, or will"
                f" get it, in batches of its own. Name a sink that is not served; or, if {request.into} has nothing of"
                " the range and will not get it, say --range-deleted"
            )
        return
    kind = config.sinks[request.target].type
    remembered = REMEMBERED_SECONDS[kind]
    seen = [kafka.look(leg.number, leg.first) for leg in prepared.legs]
    oldest_ms = min(one.append_ms for one in seen if one is not None)
    if now_ms - oldest_ms > remembered * 1000:
        raise SluicewayError(
            f"the range is older than {remembered:g} s, for which a {kind} sink knows what it has: it would have it"
            " twice. Deliver into another sink (--into OTHER), or say --range-deleted if it has nothing of it any more"
        )


def perform(
    prepared: Prepared,
    topic_id: str,
    kafka: Kafka,
    target: Target,
    *,
    pace: Pace,
    meter: Meter,
    stopping: threading.Event,
    keep: bool,
) -> Replay:
    """Do it, until it is done or is to be stopped; ``keep`` how far it has come.

    Raises:
        SluicewayError: the sink refuses a batch, or Kafka has let go of messages meanwhile; what was delivered is kept.
    """
    replay = Replay(prepared.legs, topic_id, reader=kafka, target=target, selection=prepared.selection, pace=pace)
    keeper = _Keeper(prepared, kafka, replay) if keep else None
    if keeper is not None:
        keeper.begin()
    replay.start()
    with meter:
        try:
            while not replay.finished and not stopping.is_set():
                replay.turn()
                meter.show(*progress(replay.strands), replay.tally)
                if keeper is not None:
                    keeper.keep_now_and_then()
            replay.stop(STOP_SECONDS)
        finally:
            if keeper is not None:
                keeper.keep()
    if keeper is not None and replay.finished:
        kafka.forget()
    return replay


class _Keeper:
    """Keeps in Kafka how far a replay has come."""

    def __init__(self, prepared: Prepared, kafka: Kafka, replay: Replay) -> None:
        self._texts = {number: mark.text() for number, mark in prepared.bookmarks.items()}
        self._kafka = kafka
        self._replay = replay
        self._kept: dict[int, int] = {}
        self._when = time.monotonic()
        self._log = get_logger("replay")
        self._throttle = Throttle()

    def begin(self) -> None:
        """Keep what was asked for, before anything is delivered."""
        self._kafka.mark(self._moved())

    def keep_now_and_then(self) -> None:
        """Keep it when it is time."""
        if time.monotonic() - self._when >= MARK_SECONDS:
            self._when = time.monotonic()
            self.keep()

    def keep(self) -> None:
        """Keep it. That it cannot be kept only means that the next run delivers some batches again."""
        moved = self._moved()
        if not moved:
            return
        try:
            self._kafka.mark(moved)
        except SluicewayError as error:
            self._throttle.log(self._log, "warning", "mark", "how far it has come is not kept", reason=str(error))
        else:
            self._kept.update((number, offset) for number, (offset, _) in moved.items())

    def _moved(self) -> dict[int, tuple[int, str]]:
        return {
            number: (strand.reached, self._texts[number])
            for number, strand in self._replay.strands.items()
            if strand.reached != self._kept.get(number)
        }
