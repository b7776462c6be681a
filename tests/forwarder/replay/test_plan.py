from __future__ import annotations

import re

import pytest

from forwarder.config import CutConfig, DedupConfig, ExactDedupConfig
from forwarder.course import Epoch, Noted
from forwarder.replay.plan import NO_END, Delivered, Leg, RefusedError, Span, plan, spans
from forwarder.replay.points import Moment, Offsets, Point, parse_moment
from shared.errors import ConfigError
from tests.forwarder.records import message, shape
from tests.forwarder.replay.topic import Topic

CUT = CutConfig(interval_ms=10_000, max_records=3)
PLAIN = shape(CUT, dedup=DedupConfig(exact=None))
OTHER = shape(CutConfig(interval_ms=7000), dedup=DedupConfig(exact=None))
WINDOW = shape(CUT, dedup=DedupConfig(exact=ExactDedupConfig(window_seconds=40)))


@pytest.fixture
def topic() -> Topic:
    """Forty messages of a record each, from 100 s on every 4 s, in each of three partitions."""
    ours = Topic()
    for number in range(3):
        for step in range(40):
            ours.append(number, 100_000 + 4000 * step, *message([step]))
    return ours


def delivered(*epochs: Epoch, committed: int = 40) -> dict[int, Delivered]:
    """What a group tells of partition 0."""
    return {0: Delivered(committed, Noted(epochs))}


def leg(topic: Topic, told: dict[int, Delivered], start: int, end: int, **more: object) -> Leg:
    """The only leg of a plan."""
    (only,) = plan(topic, told, {0: Span(start, end)}, **more)  # type: ignore[arg-type]
    return only


def test_a_range_is_cut_from_the_boundary_before_it(topic: Topic) -> None:
    """Offset 7 was appended at 128 s, and the first message from 120 s on is 5."""
    ours = leg(topic, delivered(Epoch(0, PLAIN)), 7, 12)
    assert (ours.read, ours.begin, ours.first, ours.end, ours.stop) == (5, 5, 7, 12, 40)


def test_a_range_ends_where_the_group_has_committed(topic: Topic) -> None:
    """What is behind the group's offset is the live forwarder's; a range that lies there alone is nothing."""
    assert leg(topic, delivered(Epoch(0, PLAIN), committed=20), 7, NO_END).end == 20
    assert plan(topic, delivered(Epoch(0, PLAIN), committed=20), {0: Span(20, 30)}) == []
    assert plan(topic, {}, {0: Span(7, 12)}) == []


def test_dedup_reads_back_as_far_as_it_remembers(topic: Topic) -> None:
    """A window of 40 s is read, up to a quarter more, and the minute by which brokers' clocks may differ."""
    ours = leg(topic, delivered(Epoch(0, WINDOW)), 37, 38)
    assert (ours.read, ours.begin, ours.first) == (10, 35, 37)


def test_an_epoch_that_began_in_the_interval_begins_the_cut(topic: Topic) -> None:
    """From the exact offset at which another shape began to hold; epochs behind the range are left out."""
    epochs = (Epoch(0, OTHER), Epoch(6, PLAIN), Epoch(9, OTHER), Epoch(20, PLAIN))
    ours = leg(topic, delivered(*epochs), 7, 12)
    assert (ours.begin, ours.epochs, ours.cuts) == (6, (Epoch(6, PLAIN), Epoch(9, OTHER)), (9, 40))


def test_what_is_not_known_any_more_is_refused(topic: Topic) -> None:
    """It is named up to where, and a later time is proposed that is not refused."""
    told = delivered(Epoch(11, PLAIN))
    with pytest.raises(RefusedError, match=r"before offset 11 were made") as refused:
        plan(topic, told, {0: Span(7, 12)})
    assert "--from 1970-01-01T00:02:30.000Z" in str(refused.value)
    assert "--into OTHER" in str(refused.value)
    assert "--range-deleted" in str(refused.value)
    assert leg(topic, told, topic.offset_at(0, 150_000), NO_END).begin == 13
    with pytest.raises(RefusedError, match="it is not known by which settings") as refused:
        plan(topic, delivered(), {0: Span(7, 12)})
    assert "--from" not in str(refused.value)


@pytest.mark.parametrize(
    ("start", "reason"),
    [(5, "before offset 6"), (6, "before offset 6"), (7, "before offset 6"), (8, "which dedup has to know")],
)
def test_what_has_expired_is_refused(topic: Topic, start: int, reason: str) -> None:
    """So is a batch whose beginning has expired, and one before which dedup would have to know more."""
    topic.lows[0] = 6
    told = delivered(Epoch(0, WINDOW))
    with pytest.raises(RefusedError, match=reason):
        plan(topic, told, {0: Span(start, 30)})


def test_a_time_that_is_proposed_is_not_refused(topic: Topic) -> None:
    """Whoever does what the refusal says is not refused again."""
    topic.lows[0] = 8
    told = delivered(Epoch(0, WINDOW))
    with pytest.raises(RefusedError) as refused:
        plan(topic, told, {0: Span(10, NO_END)})
    proposed = re.search(r"--from (\S+)\)", str(refused.value))
    assert proposed is not None
    begin = parse_moment(proposed[1], 0).ms
    assert 240_000 <= begin <= 250_000
    assert leg(topic, told, topic.offset_at(0, begin), NO_END).begin == topic.offset_at(0, begin)


def test_of_many_partitions_some_are_named(topic: Topic) -> None:
    """A refusal stays legible, and none of the partitions is planned."""
    told = {number: Delivered(40, Noted()) for number in range(3)} | {3: Delivered(40, Noted())}
    topic.messages[3], topic.ends[3] = topic.messages[0], 40
    with pytest.raises(RefusedError, match="and 1 other partitions"):
        plan(topic, told, dict.fromkeys(range(4), Span(0, 40)))


def test_where_the_sink_has_nothing_it_begins_with_what_there_is(topic: Topic) -> None:
    """The shape of the settings holds where none is known; what is known begins where it began."""
    topic.lows[0] = 6
    ours = leg(topic, delivered(Epoch(11, WINDOW)), 0, 30, otherwise=PLAIN)
    assert (ours.read, ours.begin, ours.first, ours.exact) == (6, 6, 6, False)
    assert ours.epochs == (Epoch(6, PLAIN), Epoch(11, WINDOW))
    known = leg(topic, delivered(Epoch(0, PLAIN)), 9, 30, otherwise=OTHER)
    assert (known.begin, known.epochs) == (8, (Epoch(0, PLAIN),))
    assert plan(topic, delivered(Epoch(0, PLAIN)), {0: Span(0, 5)}, otherwise=OTHER) == []


def test_what_goes_on_begins_at_its_cut(topic: Topic) -> None:
    """A replay that was stopped knows a cut, which need not be at a boundary."""
    ours = leg(topic, delivered(Epoch(0, WINDOW)), 36, 40, goes_on={0})
    assert (ours.read, ours.begin, ours.first) == (10, 36, 36)


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (Moment(120_000), None, {0: (5, NO_END), 1: (5, NO_END), 2: (5, NO_END)}),
        (Moment(0), Moment(120_001), {0: (0, 6), 1: (0, 6), 2: (0, 6)}),
        (Moment(999_000), None, {0: (40, NO_END), 1: (40, NO_END), 2: (40, NO_END)}),
        (Offsets({1: 7}), None, {1: (7, NO_END)}),
        (Offsets({1: 7, 2: 8}), Offsets({2: 9, 1: 8}), {1: (7, 8), 2: (8, 9)}),
        (Offsets({1: 3}), Moment(120_000), {1: (3, 5)}),
        (Moment(120_000), Offsets({2: 9}), {2: (5, 9)}),
    ],
)
def test_points_are_offsets_of_partitions(
    topic: Topic, begin: Point, end: Point | None, expected: dict[int, tuple[int, int]]
) -> None:
    """A time means all partitions, offsets those that they name."""
    assert spans(topic, 3, begin, end) == {number: Span(*span) for number, span in expected.items()}


@pytest.mark.parametrize(
    ("begin", "end", "sentence"),
    [
        (Moment(5), Moment(5), "is not after --from"),
        (Offsets({0: 5}), Offsets({1: 6}), "different partitions"),
        (Offsets({0: 5}), Offsets({0: 5}), "is not behind --from"),
        (Offsets({3: 5}), None, "there is no partition 3: the topic has 3"),
    ],
)
def test_points_that_do_not_fit_are_said(topic: Topic, begin: Point, end: Point | None, sentence: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=sentence):
        spans(topic, 3, begin, end)
