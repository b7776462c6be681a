from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.cut import CutRule, Cutter, Message, Range, Token

RULE = CutRule(interval_ms=1000, max_records=10, max_bytes=1000)


def cut(start: int, messages: list[Message], rule: CutRule = RULE) -> list[Range]:
    """All ranges that a log's messages close."""
    return pushed(Cutter(start, rule), messages)


def pushed(cutter: Cutter, messages: Iterable[Message]) -> list[Range]:
    """All ranges that these messages close, one after the other."""
    steps = (step(message) for message in messages for step in (cutter.before, cutter.add))
    return [closed for closed in steps if closed is not None]


@st.composite
def rules(draw: st.DrawFn) -> CutRule:
    """Rules with bounds that the logs below reach."""
    return CutRule(draw(st.integers(1, 50)), draw(st.integers(1, 30)), draw(st.integers(1, 300)))


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """A log of any append times (they may jump, and even go back), with gaps in its offsets."""
    offset, append_ms, log = draw(st.integers(0, 1000)), draw(st.integers(0, 10_000)), []
    for gap, step, records, size in draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 0, 1, 7]),
                st.integers(-5, 40),
                st.sampled_from([0, 1, 5, 29, 31]),
                st.integers(0, 310),
            ),
            max_size=60,
        )
    ):
        offset, append_ms = offset + 1 + gap, max(0, append_ms + step)
        log.append(Message(offset, append_ms, records, size))
    return log


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(0, 1, 1)], [], id="one message stays open"),
        pytest.param([(0, 1, 1), (999, 1, 1)], [], id="the same interval"),
        pytest.param([(999, 1, 1), (1000, 1, 1)], [(0, 1)], id="before a message of the next interval"),
        pytest.param([(0, 1, 1), (9000, 1, 1)], [(0, 1)], id="intervals without messages make no batches"),
        pytest.param([(1000, 1, 1), (999, 1, 1)], [(0, 1)], id="an earlier interval is another interval"),
        pytest.param([(0, 5, 1), (0, 5, 1), (0, 1, 1)], [(0, 2)], id="after a message that reaches the records"),
        pytest.param([(0, 5, 1), (0, 6, 1)], [(0, 1)], id="before a message that would exceed the records"),
        pytest.param([(0, 1, 500), (0, 1, 500)], [(0, 2)], id="after a message that reaches the bytes"),
        pytest.param([(0, 1, 500), (0, 1, 501)], [(0, 1)], id="before a message that would exceed the bytes"),
        pytest.param([(0, 11, 1)], [(0, 1)], id="a message over the records is a batch alone"),
        pytest.param([(0, 1, 1), (0, 11, 1), (0, 1, 1)], [(0, 1), (1, 2)], id="two cuts around one message"),
        pytest.param([(0, 1, 1), (0, 10, 1)], [(0, 1), (1, 2)], id="a full message after an open batch"),
        pytest.param(
            [(0, 3, 1), (1000, 0, 0)], [(0, 1), (1, 2)], id="a heartbeat ends the batch before it and is one of its own"
        ),
        pytest.param([(0, 3, 1), (500, 0, 0)], [], id="a heartbeat in the same interval is a message like any other"),
        pytest.param([(0, 0, 0), (1000, 3, 1)], [(0, 1)], id="an empty message never begins a batch that goes on"),
    ],
)
def test_a_batch_ends_where_the_rule_says(facts: list[tuple[int, int, int]], expected: list[tuple[int, int]]) -> None:
    """A batch ends before another interval, before what would exceed its bounds, and after what reaches them."""
    messages = [Message(offset, *fact) for offset, fact in enumerate(facts)]
    assert cut(0, messages) == [Range(*pair) for pair in expected]


@given(logs(), rules(), st.data())
def test_the_cut_is_prefix_stable(log: list[Message], rule: CutRule, data: st.DataObject) -> None:
    """What is cut from a prefix of the log is a prefix of what is cut from the whole."""
    start = log[0].offset if log else 0
    prefix = data.draw(st.integers(0, len(log)))
    some, whole = cut(start, log[:prefix], rule), cut(start, log, rule)
    assert whole[: len(some)] == some


@given(logs(), rules(), st.data())
def test_a_restart_at_any_cut_makes_the_same_later_cuts(log: list[Message], rule: CutRule, data: st.DataObject) -> None:
    """Whoever begins at a cut makes the cuts that follow it, and no others."""
    start = log[0].offset if log else 0
    whole = cut(start, log, rule)
    if not whole:
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    end = whole[at].end
    assert cut(end, [message for message in log if message.offset >= end], rule) == whole[at + 1 :]


@given(logs(), rules())
def test_ranges_follow_each_other_and_hold_every_message_once(log: list[Message], rule: CutRule) -> None:
    """Ranges are contiguous from the start; every message is in one range or in the open batch."""
    start = log[0].offset if log else 0
    cutter = Cutter(start, rule)
    whole = pushed(cutter, log)
    assert [one.start for one in whole] == [start, *(one.end for one in whole)][: len(whole)]
    assert all(one.start < one.end for one in whole)
    assert cutter.start == (whole[-1].end if whole else start)
    held = [sum(one.start <= message.offset < one.end for one in whole) for message in log]
    still_open = [message for message, times in zip(log, held, strict=True) if not times]
    assert max(held, default=0) <= 1
    assert all(message.offset >= cutter.start for message in still_open)
    assert (cutter.ends_ms is None) == (not still_open)


@given(logs(), rules())
def test_a_batch_is_of_one_interval_and_within_its_bounds(log: list[Message], rule: CutRule) -> None:
    """All messages of a batch share an interval, and only a message alone may be over the bounds."""
    for one in cut(log[0].offset if log else 0, log, rule):
        inside = [message for message in log if one.start <= message.offset < one.end]
        assert inside
        assert len(inside) == 1 or inside[0].records
        assert len({message.append_ms // rule.interval_ms for message in inside}) == 1
        if len(inside) > 1:
            assert sum(message.records for message in inside) <= rule.max_records
            assert sum(message.size for message in inside) <= rule.max_bytes


@given(logs(), rules())
def test_time_alone_closes_what_a_message_of_that_time_would(log: list[Message], rule: CutRule) -> None:
    """A message that cannot be read closes what its append time closes, and that is a cut of the whole log too."""
    start = log[0].offset if log else 0
    whole = cut(start, log, rule)
    cutter = Cutter(start, rule)
    for message in log:
        closed = Cutter(cutter.start, rule)
        pushed(closed, (earlier for earlier in log if cutter.start <= earlier.offset < message.offset))
        one = closed.reach(message.offset, message.append_ms)
        assert one is None or one in whole
        pushed(cutter, [message])


def test_the_open_batch_tells_until_when_it_can_grow() -> None:
    """The end of the open batch's interval is known while it holds a message, and only then."""
    cutter = Cutter(7, RULE)
    assert cutter.ends_ms is None
    pushed(cutter, [Message(7, 1500, 1, 1)])
    assert cutter.ends_ms == 2000
    assert cutter.close(8) == Range(7, 8)
    assert cutter.ends_ms is None
    assert cutter.start == 8


def test_a_token_names_topic_partition_and_range() -> None:
    """The token is the topic's id, the partition, and the half-open range of offsets."""
    assert str(Token("Q7bXV0yRT7yJ0pOa6UKZQg", 3, 10, 25)) == "Q7bXV0yRT7yJ0pOa6UKZQg:3:10-25"
