from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.dedup.exact import ExactDedup, ExactRule, read_ids
from tests.forwarder.dedup.logs import append_times, calls, cuts, restarts

Message = tuple[int, list[int | None]]
"""Append time and record ids; None is a record without."""

WIDE = ExactRule(window_ms=80, max_records=10_000)


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """Logs whose records are repeated often, within a message and far from it; some have no id, some messages nothing."""
    ids = st.one_of(st.integers(0, 25), st.integers(0, 25), st.just(2**64 - 1), st.none())
    return [(time, draw(st.lists(ids, max_size=12))) for time in draw(append_times())]


@st.composite
def rules(draw: st.DrawFn) -> ExactRule:
    """Rules with windows and bounds that the logs above reach, and some that they do not."""
    return ExactRule(draw(st.integers(1, 300)), draw(st.sampled_from([1, 3, 8, 20, 50, 10_000])))


def push(dedup: ExactDedup, log: Sequence[Message]) -> list[bool]:
    """Which records stay, when these messages are judged together."""
    ids = [one for _, message in log for one in message]
    valid = np.array([one is not None for one in ids], np.bool_)
    numbers = np.array([one or 0 for one in ids], np.uint64)
    runs = [(time, len(message)) for time, message in log]
    verdict = dedup.push(numbers, runs, None if valid.all() else valid)
    kept = [True] * len(ids) if verdict.keep is None else verdict.keep.tolist()
    assert verdict.duplicates == kept.count(False)
    assert verdict.unidentified == ids.count(None)
    return kept


def lived(rule: ExactRule, log: Sequence[Message]) -> list[list[bool]]:
    """Which records stay, message by message, by the rule told plainly: sets on pages."""
    largest = max(1, rule.max_records // 4)
    pages: list[tuple[int, set[int]]] = []
    latest, told = 0, []
    for time, message in log:
        ids = [one for one in message if one is not None]
        keep = []
        for begin in range(0, len(ids), largest):
            part = ids[begin : begin + largest]
            latest = max(latest, time)
            generation = latest // rule.generation_ms
            pages = [page for page in pages if page[0] > generation - 5]
            if not pages or pages[-1][0] != generation or len(pages[-1][1]) + len(part) > largest:
                pages.append((generation, set()))
            while sum(len(page) for _, page in pages) + len(part) > rule.max_records:
                pages.pop(0)
            for one in part:
                keep.append(not any(one in page for _, page in pages))
                pages[-1][1].add(one)
        judged = iter(keep)
        told.append([True if one is None else next(judged) for one in message])
    return told


@given(logs(), rules(), st.data())
def test_the_answer_does_not_depend_on_how_messages_are_handed_over(
    log: list[Message], rule: ExactRule, data: st.DataObject
) -> None:
    """Together, one by one or in any pieces: the same records stay, those of the rule told plainly."""
    expected = [keep for message in lived(rule, log) for keep in message]
    for ends in ([len(log)], range(1, len(log) + 1), data.draw(cuts(len(log)))):
        dedup = ExactDedup(rule, "topic")
        assert [keep for part in calls(log, list(ends)) for keep in push(dedup, part)] == expected
        assert len(dedup) <= rule.max_records


@given(logs(), rules(), st.data())
def test_warmed_is_as_good_as_lived_through(log: list[Message], rule: ExactRule, data: st.DataObject) -> None:
    """Whoever begins at any message, and remembers first what is asked for, judges as if it had been there all along.

    Remembering more than is asked for changes nothing either.
    """
    if not log:
        return
    at, begin = data.draw(restarts([time for time, _ in log], rule.oldest_needed))
    dedup = ExactDedup(rule, "topic")
    for part in calls(log[begin:at], data.draw(cuts(at - begin))):
        ids = [one for _, message in part for one in message]
        valid = np.array([one is not None for one in ids], np.bool_)
        dedup.warm(np.array([one or 0 for one in ids], np.uint64), [(time, len(one)) for time, one in part], valid)
    expected = [keep for message in lived(rule, log)[at:] for keep in message]
    assert [keep for part in calls(log[at:], data.draw(cuts(len(log) - at))) for keep in push(dedup, part)] == expected


@given(logs(), st.data())
def test_a_record_stays_unless_its_id_came_within_the_window(log: list[Message], data: st.DataObject) -> None:
    """With room enough: what comes again within the window goes, what comes again two windows later stays."""
    dedup = ExactDedup(WIDE, "topic")
    kept = [keep for part in calls(log, data.draw(cuts(len(log)))) for keep in push(dedup, part)]
    last: dict[int, int] = {}
    latest = at = 0
    for time, message in log:
        for one in message:
            if one is None:
                assert kept[at]
            else:
                latest = max(latest, time)
                age = latest - last[one] if one in last else None
                if age is None or age > 1.25 * WIDE.window_ms:
                    assert kept[at]
                elif age <= WIDE.window_ms:
                    assert not kept[at]
                last[one] = latest
            at += 1


@given(logs(), rules())
def test_the_secret_changes_no_answer(log: list[Message], rule: ExactRule) -> None:
    """It says where ids go in memory, and nothing else."""
    assert push(ExactDedup(rule, "one"), log) == push(ExactDedup(rule, "another"), log)


@pytest.mark.parametrize(
    ("append_ms", "since"),
    [
        pytest.param(0, 0, id="the begin of the log"),
        pytest.param(99, 0, id="within the first window"),
        pytest.param(100, 20, id="four generations before its own"),
        pytest.param(119, 20, id="to the begin of a generation"),
    ],
)
def test_it_tells_from_where_the_log_is_needed(append_ms: int, since: int) -> None:
    """From the begin of the fourth generation before the message's own; a generation is a quarter of the window."""
    assert ExactRule(window_ms=80, max_records=10).oldest_needed(append_ms) == since


@pytest.mark.parametrize(("window_ms", "generation_ms"), [(1, 1), (4, 1), (5, 2), (600_000, 150_000)])
def test_four_generations_are_no_less_than_the_window(window_ms: int, generation_ms: int) -> None:
    """A window that four does not divide is rounded up."""
    assert ExactRule(window_ms, 10).generation_ms == generation_ms


def test_what_is_too_much_is_forgotten_from_the_oldest_on() -> None:
    """Over the bound the oldest quarter goes, and is counted; what has just come is found."""
    dedup = ExactDedup(ExactRule(window_ms=1000, max_records=40), "topic")
    forgotten = [
        dedup.push(np.arange(begin, begin + 5, dtype=np.uint64), [(0, 5)]).forgotten for begin in range(0, 60, 5)
    ]
    assert forgotten == [0] * 8 + [10, 0, 10, 0]
    assert len(dedup) == 40
    assert dedup.push(np.array([59, 30], np.uint64), [(0, 2)]).duplicates == 2
    assert dedup.push(np.array([0, 20], np.uint64), [(0, 2)]).duplicates == 0


def test_when_less_comes_memory_is_given_back() -> None:
    """A quiet generation after a busy one takes little, though it was expected to be as busy."""
    dedup = ExactDedup(ExactRule(window_ms=400, max_records=1_000_000), "topic")
    random = np.random.default_rng(1)
    for generation, records in enumerate([100_000, 10, 10, 10, 10, 10]):
        dedup.push(random.integers(0, 2**64, records, np.uint64), [(100 * generation, records)])
    assert len(dedup) == 50
    assert dedup.nbytes < 20_000


def test_memory_follows_the_bound_and_not_the_log() -> None:
    """However much comes, however the rate changes, memory is bounded by the number of records, and time gives it back."""
    most = 100_000
    dedup = ExactDedup(ExactRule(window_ms=4000, max_records=most), "topic")
    random = np.random.default_rng(1)
    for second in range(60):
        rate = (5_000, 70_000, 300, 20_000)[second // 4 % 4]
        dedup.push(random.integers(0, 2**64, rate, np.uint64), [(1000 * second, rate)])
        assert len(dedup) <= most
        assert dedup.nbytes <= 40 * most
    dedup.push(np.array([1], np.uint64), [(1_000_000, 1)])
    assert len(dedup) == 1
    assert dedup.nbytes < 10_000


def test_where_nothing_is_repeated_there_is_nothing_to_filter_by() -> None:
    """Not a mask that keeps all: none."""
    dedup = ExactDedup(WIDE, "topic")
    assert dedup.push(np.array([0, 1, 2], np.uint64), [(0, 3)]).keep is None
    assert dedup.push(np.array([7, 7], np.uint64), [(0, 2)], np.array([False, False])).keep is None
    assert dedup.push(np.array([], np.uint64), []).keep is None
    assert dedup.push(np.array([0], np.uint64), [(0, 1)]).keep is not None


def test_records_without_the_column_stay_and_are_counted() -> None:
    """They cannot be told from each other, so all of them are delivered."""
    ids, valid = read_ids(pa.table({"bytes": pa.array([1, 1, 1], pa.uint64())}))
    verdict = ExactDedup(WIDE, "topic").push(ids, [(0, 2), (0, 1)], valid)
    assert (verdict.keep, verdict.duplicates, verdict.unidentified, verdict.forgotten) == (None, 0, 3, 0)


def test_ids_are_read_in_the_order_of_the_log() -> None:
    """A merged table has its rows by schema; which of two equal records is the first is told by the log."""
    table = pa.table({"record_id": pa.chunked_array([[7, None], [7, 9]], pa.uint64())})
    ids, valid = read_ids(table, np.array([2, 3, 0, 1]))
    assert valid is not None
    assert (ids[valid].tolist(), valid.tolist()) == ([7, 9, 7], [True, True, True, False])


def test_ids_are_read_without_a_copy_where_they_can_be() -> None:
    """One chunk without nulls is looked at where it is."""
    column = pa.array([0, 5, 2**64 - 1], pa.uint64())
    ids, valid = read_ids(pa.table({"record_id": column}))
    assert valid is None
    assert ids.ctypes.data == column.buffers()[1].address
