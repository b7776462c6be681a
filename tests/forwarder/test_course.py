from __future__ import annotations

import ipaddress
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.config import AggregateConfig, CutConfig, DedupConfig
from forwarder.course import CLOCK_SLACK_MS, NOTE_BYTES, Course, Epoch, Noted, TooManyShapesError, read_note, shape_at
from forwarder.cut import Cutter, Message
from forwarder.shape import LONGEST_TEXT, VERSION, Shape


def shape(interval_ms: int = 1000, max_records: int = 100, aggregate: AggregateConfig | None = None) -> Shape:
    """A shape with a cut of its own."""
    cut = CutConfig(interval_ms=interval_ms, max_records=max_records)
    return Shape(cut=cut, dedup=DedupConfig(), remembered=1000, aggregate=aggregate)


FORMER, LATTER = shape(1000), shape(700, 7)


def epochs(course: Course) -> list[tuple[int, Shape]]:
    """The epochs of a course as pairs."""
    return [(epoch.after, epoch.shape) for epoch in course.epochs]


def test_a_group_that_never_committed_begins_with_the_shape_of_the_settings() -> None:
    """The first epoch begins at the first offset, and holds at once."""
    course = Course.plan(read_note(None), 40, 90, FORMER)
    assert epochs(course) == [(40, FORMER)]
    assert course.shape == FORMER
    # Nothing was delivered, so that another setting holds at once if this run stops with nothing but an open batch.
    assert epochs(Course.plan(read_note(course.note(40)), 40, 95, LATTER)) == [(40, FORMER), (40, LATTER)]


@pytest.mark.parametrize("until", [None, 60, 70])
def test_a_shape_that_did_not_change_goes_on(until: int | None) -> None:
    """An unchanged setting adds nothing to the history, however the former run ended."""
    course = Course.plan(Noted((Epoch(40, FORMER),), until), 60, 90, FORMER)
    assert epochs(course) == [(40, FORMER)]


def test_after_a_clean_stop_another_shape_holds_at_once() -> None:
    """Everything delivered was committed, so the next batch may be of any shape."""
    course = Course.plan(Noted((Epoch(40, FORMER),), until=60), 60, 90, LATTER)
    assert epochs(course) == [(40, FORMER), (60, LATTER)]
    assert course.shape == LATTER


def test_after_a_crash_the_former_shape_holds_up_to_a_cut_behind_the_end_of_the_log() -> None:
    """What was delivered and not committed comes out as it was; behind the former end nobody can have delivered."""
    course = Course.plan(Noted((Epoch(40, FORMER),)), 60, 90, LATTER)
    assert epochs(course) == [(40, FORMER), (90, LATTER)]
    assert course.shape == FORMER
    assert not course.cut(89)
    assert course.cut(93)
    assert course.shape == LATTER
    assert epochs(course) == [(40, FORMER), (93, LATTER)]


def test_a_clean_stop_remembers_what_a_crash_before_it_may_have_delivered() -> None:
    """A run that stops in order before it has come to where its predecessor crashed does not make that undone."""
    crashed = Course.plan(Noted((Epoch(40, FORMER),)), 60, 90, FORMER)
    stopped = read_note(crashed.note(70))
    assert stopped.until == 90
    assert epochs(Course.plan(stopped, 70, 200, LATTER)) == [(40, FORMER), (90, LATTER)]


def test_a_second_crash_with_a_third_shape_waits_for_the_second_one() -> None:
    """Shapes follow each other in the order in which they may have delivered."""
    first = Course.plan(Noted((Epoch(0, FORMER),)), 60, 90, LATTER)
    again = Course.plan(read_note(first.note()), 70, 95, shape(3000))
    assert epochs(again) == [(0, FORMER), (90, LATTER), (95, shape(3000))]
    back = Course.plan(read_note(first.note()), 70, 95, FORMER)
    assert epochs(back) == [(0, FORMER), (90, LATTER), (95, FORMER)]


def test_a_clean_stop_forgets_what_was_only_planned() -> None:
    """A shape that never came to hold delivered nothing."""
    noted = Noted((Epoch(0, FORMER), Epoch(90, LATTER)), until=60)
    assert epochs(Course.plan(noted, 60, 95, FORMER)) == [(0, FORMER)]


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        "null",
        "text",
        '{"format":2}',
        '{"format":1,"until":null,"epochs":[[1]]}',
        '{"format":1,"until":null,"epochs":[[1,{"version":1}]]}',
    ],
)
def test_what_is_not_ours_tells_that_it_is_unknown(note: str) -> None:
    """A note that this program did not write is not guessed at: the settings' shape holds, and the caller can say so."""
    noted = read_note(note)
    assert noted.unknown
    assert epochs(Course.plan(noted, 60, 90, LATTER)) == [(60, LATTER)]


def test_a_shape_of_another_version_is_unknown() -> None:
    """The rules themselves may change from version to version, and then no setting brings the former batches back."""
    course = Course.plan(Noted((Epoch(40, FORMER),)), 60, 90, FORMER)
    other = json.loads(course.note())
    other["epochs"][0][1]["version"] = VERSION + 1
    assert read_note(json.dumps(other)).unknown


def test_a_note_keeps_as_many_epochs_as_there_is_room_for() -> None:
    """The oldest go first; what is left is readable, ASCII, and within what Kafka takes."""
    many = Course([Epoch(number * 10, shape(1000 + number)) for number in range(200)], now=199)
    note = many.note(77)
    assert len(note.encode()) == len(note) <= NOTE_BYTES
    noted = read_note(note)
    assert noted.until == 77
    assert noted.epochs == tuple(many.epochs[-len(noted.epochs) :])
    assert len(noted.epochs) >= 5


def longest(seed: int) -> Shape:
    """A shape with as many characters as the settings may make."""
    one = shape(1000 + seed)
    networks = [f"2001:db8:{seed:02x}{number:02x}::/48" for number in range(100)]
    while networks and len(one.text()) < LONGEST_TEXT - 40:
        flow = one.dedup.flow
        overrides = {**flow.metering_overrides, ipaddress.ip_network(networks.pop()): "egress"}
        more = flow.model_copy(update={"policy": "observation_point", "metering_overrides": overrides})
        one = one.model_copy(update={"dedup": one.dedup.model_copy(update={"flow": more})})
    assert LONGEST_TEXT - 40 <= len(one.text()) <= LONGEST_TEXT
    return one


def test_what_holds_now_and_later_is_always_noted() -> None:
    """After a crash and with other settings, both as long as they may be, the next start knows the one and the other."""
    before, after = longest(1), longest(2)
    course = Course.plan(Noted((Epoch(2**62, before),)), 2**62 + 1, 2**62 + 90, after)
    for settled in (None, 2**62 + 5):
        note = course.note(settled)
        assert len(note) <= NOTE_BYTES
        assert read_note(note).epochs == (Epoch(2**62, before), Epoch(2**62 + 90, after))


def test_more_shapes_than_can_be_noted_are_refused() -> None:
    """To go on without a note of one of them could deliver a record in two ways, so nothing is delivered."""
    course = Course.plan(Noted((Epoch(0, longest(1)),)), 60, 90, longest(2))
    noted = read_note(course.note())
    with pytest.raises(TooManyShapesError, match=r"changed 2 times since offset 70, .* up to offset 95 .* Put back"):
        Course.plan(noted, 70, 95, longest(3))
    assert epochs(Course.plan(noted, 70, 95, longest(2))) == epochs(course)


def test_the_shape_of_an_earlier_batch_is_known() -> None:
    """A replay finds the shape that held at an offset, and is told when nothing is known of it."""
    told = [Epoch(40, FORMER), Epoch(93, LATTER)]
    assert [shape_at(told, offset) for offset in (39, 40, 92, 93, 500)] == [None, FORMER, FORMER, LATTER, LATTER]


def test_shapes_have_a_text_and_a_fingerprint_of_their_own() -> None:
    """A shape is read back from its text, and differs by fingerprint from one with any other setting."""
    several = [FORMER, LATTER, shape(aggregate=AggregateConfig(keys=("src_as",))), shape(max_records=101)]
    assert [Shape.parse(one.text()) for one in several] == several
    assert len({one.fingerprint for one in several}) == len(several)


RUN = st.tuples(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 5)), max_size=12),
    st.integers(0, 12),
    st.integers(0, 12),
    st.booleans(),
)


@settings(max_examples=400)
@given(st.lists(RUN, min_size=1, max_size=8))
def test_no_change_of_settings_delivers_a_record_in_two_ways(
    runs: list[tuple[int, list[tuple[int, int]], int, int, bool]],
) -> None:
    """Runs with any settings that crash anywhere: what is delivered again has the very range and shape of before.

    Each run takes the group's offset and note, reads the log as it is then and as it grows, delivers some batches and
    commits some of them, and is killed or stops in order.
    """
    shapes = [shape(1000), shape(700, 7), shape(2500, 4), shape(1000, 3)]
    log: list[Message] = []
    committed, note = 0, ""
    delivered: dict[int, tuple[int, Shape]] = {}
    for choice, more, deliver, commit, clean in runs:
        course = Course.plan(read_note(note), committed, len(log), shapes[choice])
        note = course.note()
        for later, records in more:
            log.append(Message(len(log), (log[-1].append_ms if log else 0) + later, records, 1))
        cutter = Cutter(committed, course.shape.rule)
        batches: list[tuple[int, int, Shape]] = []
        for message in log[committed:]:
            for step in ("before", "add"):
                closed = getattr(cutter, step)(message)
                if closed is not None:
                    batches.append((closed.start, closed.end, course.shape))
                    if course.cut(closed.end):
                        cutter = Cutter(closed.end, course.shape.rule)
        done = batches[:deliver]
        for start, end, of in done:
            assert delivered.setdefault(start, (end, of)) == (end, of)
        acknowledged = done if clean else done[:commit]
        if acknowledged:
            committed = acknowledged[-1][1]
        if acknowledged or clean:
            note = course.note(committed if clean else None)
    ranges = sorted((start, end) for start, (end, _) in delivered.items())
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(ranges))


def test_so_much_more_is_read_again_as_append_time_may_go_back() -> None:
    """A message behind the first one may have an earlier time, and is judged by what was before that."""
    course = Course([Epoch(0, FORMER)])
    behind_ms = 10_000_000
    assert course.oldest_ms(behind_ms) == FORMER.oldest_ms(behind_ms - CLOCK_SLACK_MS)
    assert course.oldest_ms(CLOCK_SLACK_MS // 2) == 0
