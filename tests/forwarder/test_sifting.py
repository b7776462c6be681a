from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.cut import Token
from forwarder.sifting import Sifting
from forwarder.sinks.base import Busy, Done, Outcome, Refused, TooLarge, Trouble
from tests.fakes import TOPIC_ID
from tests.forwarder.records import flows

TOKEN = Token(TOPIC_ID, 3, 10, 20)


class Picky:
    """A backend that refuses what has a bad record in it, or more rows than it takes, and may be busy now and then."""

    def __init__(self, bad: set[int], most: int = 10**9, busy: list[bool] | None = None) -> None:
        self.bad = bad
        self.most = most
        self.busy = iter(busy or [])
        self.taken: dict[Token, list[int]] = {}
        self.calls = 0

    def deliver(self, table: pa.Table, token: Token, sums: pa.Table | None = None) -> Outcome:
        """Take all of it, or nothing."""
        self.calls += 1
        if next(self.busy, False):
            return Busy(Trouble.AWAY, "is away")
        ids = [
            identity
            for part in (table, sums)
            if part is not None and part.num_rows
            for identity in part["record_id"].to_pylist()
        ]
        assert ids
        if len(ids) > self.most:
            return TooLarge(f"takes {self.most} at a time")
        if self.bad & set(ids):
            return Refused("bad record")
        self.taken[token] = ids
        return Done()


def table(ids: range) -> pa.Table:
    """Records with these ids."""
    return pa.Table.from_batches([flows(ids)])


def finish(sifting: Sifting, sink: Picky) -> Outcome:
    """Try until the sink is not busy any more."""
    while isinstance(outcome := sifting.deliver(sink.deliver), Busy):
        pass
    return outcome


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=6), st.lists(st.booleans(), max_size=40), st.data())
def test_bad_records_are_found_and_the_rest_is_taken_once(
    rows: int, bad: set[int], busy: list[bool], data: st.DataObject
) -> None:
    """Whatever is bad, and however often the sink is busy in between: good records are taken once, under tokens of their own."""
    sums = data.draw(st.integers(0, rows))
    sifting = Sifting(table(range(rows - sums)), TOKEN, table(range(rows - sums, rows)) if sums else None)
    sink, bad = Picky(bad, busy=busy), {one for one in bad if one < rows}
    outcome = finish(sifting, sink)
    if len(bad) > sifting.most_bad:
        assert isinstance(outcome, Refused)
        assert "too many to give up" in outcome.detail
        return
    assert outcome == Done()
    assert {one.row for one in sifting.bad} == bad
    taken = sorted(itertools.chain.from_iterable(sink.taken.values()))
    assert taken == [one for one in range(rows) if one not in bad]
    found = [
        one
        for part in (False, True)
        for rows_ in [sifting.bad_rows(sums=part)]
        if rows_.num_rows
        for one in rows_["record_id"].to_pylist()
    ]
    assert sorted(found) == sorted(bad)


def test_a_batch_that_is_taken_at_once_keeps_its_name() -> None:
    """Only what had to be divided gets tokens of parts."""
    sink = Picky(set())
    assert finish(Sifting(table(range(9)), TOKEN), sink) == Done()
    assert list(sink.taken) == [TOKEN]


def test_a_part_has_the_same_name_each_time() -> None:
    """A crash in the middle, and the same refusals: the backend knows every part again."""
    first, second = Picky({7}), Picky({7})
    for sink in (first, second):
        finish(Sifting(table(range(200)), TOKEN), sink)
    assert first.taken == second.taken
    assert str(next(iter(first.taken))).startswith(f"{TOKEN}:")


def test_a_batch_that_is_too_large_is_divided_and_nothing_of_it_is_bad() -> None:
    """A backend that takes less at a time gets less at a time."""
    sink = Picky(set(), most=30)
    sifting = Sifting(table(range(200)), TOKEN)
    assert finish(sifting, sink) == Done()
    assert sifting.bad == []
    assert sorted(itertools.chain.from_iterable(sink.taken.values())) == list(range(200))
    assert max(map(len, sink.taken.values())) <= 30


@pytest.mark.parametrize(("rows", "most"), [(1, 1), (99, 1), (100, 1), (350, 3), (6400, 64), (10**5, 64)])
def test_how_many_bad_records_are_given_up(rows: int, most: int) -> None:
    """One of a small batch, one in a hundred of a larger one, 64 of any."""
    assert Sifting(table(range(rows)), TOKEN).most_bad == most


def test_a_sink_that_refuses_everything_is_found_out_soon() -> None:
    """A wrong credential does not cost a try for each record."""
    sink = Picky(set(range(10**5)))
    assert isinstance(finish(Sifting(table(range(10**5)), TOKEN), sink), Refused)
    assert sink.calls < 200
