"""Tables of what options data told: heard, followed, and published in pages."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.enrich import Fact, Kind
from ingest.state.entries import PAGE_ROWS, Skip, TableEntry, TableKey
from ingest.state.tables import PageKey, Tables
from ingest.state.templates import AGAIN_SECONDS, ALIVE_SECONDS, LIFE_SECONDS
from tests.builders import mapped

EDGE, OTHER = mapped("192.0.2.1"), mapped("192.0.2.2")
NOW_MS: Final = 1_700_000_000_000
MANY: Final = 10**6
INTERFACES: Final = TableKey(Kind.INTERFACE_NAME, EDGE, 0, 0)
PUBLISHED: Final = PageKey(INTERFACES, 0)


def fact(about: int, value: str = "name", source: bytes = EDGE) -> Fact:
    """The name of an interface."""
    return Fact(Kind.INTERFACE_NAME, source, 9, 5, about, value)


class Known:
    """Tables with what they want to be published."""

    def __init__(self, limit: int = 1 << 20, exporter_limit: int = 1 << 16) -> None:
        self.waiting: dict[PageKey, None] = {}
        self.heard_at: dict[bytes, float] = {EDGE: 0.0}
        self.tables = Tables(self, self.heard_at.get, lambda _: 0.0, limit, exporter_limit)

    def put(self, source: bytes, item: PageKey, now: float) -> None:
        """Take note of what is to be published."""
        assert source == item.table.source
        self.waiting[item] = None

    def drop(self, source: bytes, item: PageKey) -> None:
        """Take note of what is not."""
        self.waiting.pop(item, None)

    def hear(self, *told: Fact, at: float = 0.0) -> None:
        """What options data told."""
        self.tables.hear(told, at, NOW_MS + round(at * 1000))

    def publish(
        self, at: float = 0.0, *, acknowledged: bool = True, besides: Collection[PageKey] = ()
    ) -> list[TableEntry]:
        """What is to be published, as others read it."""
        found = []
        for one in [one for one in self.waiting if one not in besides]:
            del self.waiting[one]
            rows = self.tables.page(one)
            if rows:
                found.append(TableEntry(one.table, one.number, tuple(rows)))
                if acknowledged:
                    self.tables.acknowledged(one, rows, at)
        return found

    def values(self) -> dict[tuple[Kind, bytes, int, int, object], object]:
        """Every fact's value."""
        return {(one.kind, one.source, one.version, one.domain, one.about): one.value for one in self.tables}


def page(*rows: tuple[int, str, int], number: int = 0) -> TableEntry:
    """A page of names of interfaces, told so many milliseconds after the beginning."""
    return TableEntry(INTERFACES, number, tuple((about, value, NOW_MS + ms) for about, value, ms in rows))


# --- heard and published


def test_what_is_heard_is_published_as_one_message_for_many() -> None:
    """256 rows are a page; what is told again changes nothing."""
    known = Known()
    known.hear(*(fact(about) for about in range(PAGE_ROWS + 1)))
    (first, second) = known.publish()
    assert (len(first.rows), len(second.rows)) == (PAGE_ROWS, 1)
    assert (first.page, second.page) == (0, 1)
    known.hear(*(fact(about) for about in range(PAGE_ROWS + 1)), at=5)
    assert known.publish() == []
    assert (len(known.tables), known.tables.pages) == (PAGE_ROWS + 1, 2)


def test_names_are_of_an_exporter_and_rates_of_a_domain() -> None:
    """By what a fact is asked for, it is kept."""
    known = Known()
    known.hear(fact(3), Fact(Kind.SAMPLER_RATE, EDGE, 9, 5, 1, 100), Fact(Kind.SAMPLER_RATE, EDGE, 9, 6, 1, 100))
    assert {one.table for one in known.publish()} == {
        INTERFACES,
        TableKey(Kind.SAMPLER_RATE, EDGE, 9, 5),
        TableKey(Kind.SAMPLER_RATE, EDGE, 9, 6),
    }
    assert (Kind.INTERFACE_NAME, EDGE, 0, 0, 3) in known.values()


def test_what_changes_is_published_with_its_page() -> None:
    """And nothing else."""
    known = Known()
    known.hear(*(fact(about) for about in range(600)))
    known.publish()
    known.hear(fact(300, "another"))
    (changed,) = known.publish()
    assert changed.page == 1
    assert (300, "another", NOW_MS + 1) in changed.rows


def test_what_comes_back_from_the_topic_is_known() -> None:
    """Our own message is read as well."""
    known = Known()
    known.hear(fact(3), fact(4))
    (ours,) = known.publish(acknowledged=False)
    assert known.tables.follow(ours, 1, 0.0) == []
    assert known.publish() == []


# --- followed


def test_an_empty_page_of_what_nobody_told_takes_no_room() -> None:
    """Whoever may write to the topic could have thousands of pages made that are never removed."""
    known = Known()
    assert known.tables.follow(TableEntry(INTERFACES, 255, ()), 1.0, 0.0) == []
    assert known.tables.pages == 0
    known.hear(fact(3))
    assert known.tables.follow(TableEntry(INTERFACES, 255, ()), 1.0, 0.0) == []
    assert known.tables.pages == 1


def test_what_others_told_is_told_to_workers_once() -> None:
    """What changed comes back as facts; what was read is not published."""
    known = Known()
    assert known.tables.follow(page((3, "x", 0), (4, "y", 0)), 1, 0.0) == [
        Fact(Kind.INTERFACE_NAME, EDGE, 0, 0, 3, "x"),
        Fact(Kind.INTERFACE_NAME, EDGE, 0, 0, 4, "y"),
    ]
    assert known.tables.follow(page((3, "x", 5), (4, "z", 5)), 2, 0.0) == [
        Fact(Kind.INTERFACE_NAME, EDGE, 0, 0, 3, "x"),
        Fact(Kind.INTERFACE_NAME, EDGE, 0, 0, 4, "z"),
    ]
    assert known.tables.follow(page((4, "y", 1)), 3, 0.0) == []
    known.hear(fact(3, "x"), fact(4, "z"), at=60)
    assert {origin for _, origin in known.tables.shown()} == {"topic"}
    assert known.values()[Kind.INTERFACE_NAME, EDGE, 0, 0, 4] == "z"


def test_what_is_heard_now_is_newer_than_what_others_told() -> None:
    """Even if their clock goes ahead of ours."""
    known = Known()
    known.tables.follow(page((3, "x", 50_000)), 1, 0.0)
    known.hear(fact(3, "y"), at=2)
    (ours,) = known.publish()
    assert ours.rows == ((3, "y", NOW_MS + 50_001),)
    other = Known()
    other.tables.follow(page((3, "x", 50_000)), 1, 0.0)
    assert other.tables.follow(ours, 3, 0.0) == [Fact(Kind.INTERFACE_NAME, EDGE, 0, 0, 3, "y")]


ROWS = st.tuples(st.integers(0, 5), st.sampled_from("xyz"), st.integers(0, 3))
PAGES = st.lists(st.tuples(st.integers(0, 2), st.lists(ROWS, max_size=4, unique_by=lambda row: row[0])), max_size=6)


@given(PAGES.flatmap(lambda pages: st.tuples(st.just(pages), st.permutations(pages))))
def test_pages_give_the_same_in_any_order(
    both: tuple[list[tuple[int, list[tuple[int, str, int]]]], ...],
) -> None:
    """Of each row the value that was told last, whichever page had it."""
    states = []
    for pages in both:
        known = Known()
        for number, rows in pages:
            known.tables.follow(page(*rows, number=number), 0, 0.0)
        states.append(known.values())
    assert states[0] == states[1]
    newest: dict[int, tuple[int, str]] = {}
    for _, rows in both[0]:
        for about, value, ms in rows:
            newest[about] = max(newest.get(about, (-1, "")), (ms, value))
    assert states[0] == {(Kind.INTERFACE_NAME, EDGE, 0, 0, about): value for about, (_, value) in newest.items()}


@pytest.mark.parametrize("seed", range(40))
def test_instances_that_heard_different_rows_agree_in_the_end(seed: int) -> None:
    """They write the same pages at a time: each reads the log, publishes what is missing in it, and then rests.

    What it has published itself it has read before it publishes the same page again: that takes no ten seconds.
    """
    chance = random.Random(seed)
    instances = [Known() for _ in range(3)]
    log: list[TableEntry] = []
    read = [0, 0, 0]
    for place, known in enumerate(instances):
        known.hear(*(fact(about, f"{about}") for about in range(place * 200, place * 200 + 300)), at=place)
    published = [set[int](), set[int](), set[int]()]
    turns = 0
    while any(known.waiting for known in instances) or any(at < len(log) for at in read):
        turns += 1
        assert turns < 500, "they do not come to rest"
        place = chance.randrange(3)
        known = instances[place]
        if chance.random() < 0.5:
            unread = {PageKey(one.table, one.page) for one in log[read[place] :] if id(one) in published[place]}
            ours = known.publish(turns, besides=unread)
            published[place].update(map(id, ours))
            log += ours
        for one in log[read[place] : read[place] + chance.randrange(5)]:
            known.tables.follow(one, turns, 0.0)
            read[place] += 1
    values = instances[0].values()
    assert len(values) == 700
    assert all(known.values() == values for known in instances)
    last = {(one.table, one.page): one for one in log}
    fresh = Known()
    for one in last.values():
        fresh.tables.follow(one, 0, 0.0)
    assert fresh.values() == values
    assert all(len(one.rows) <= PAGE_ROWS for one in log)


# --- again, and no more


def test_what_is_alive_is_published_again_every_day() -> None:
    """As long as the exporter is heard here."""
    known = Known()
    known.hear(fact(3))
    known.publish()
    known.heard_at[EDGE] = AGAIN_SECONDS - 10
    known.tables.tend(AGAIN_SECONDS - 1, MANY)
    assert known.publish() == []
    known.tables.tend(AGAIN_SECONDS, MANY)
    assert len(known.publish(AGAIN_SECONDS)) == 1
    known.tables.tend(AGAIN_SECONDS - 10 + ALIVE_SECONDS, MANY)
    assert known.publish() == []


def test_what_an_exporter_told_is_forgotten_a_week_after_it() -> None:
    """When nobody else has heard it either."""
    known = Known()
    known.tables.follow(page((3, "x", 0)), 0, 0.0)
    known.tables.follow(TableEntry(INTERFACES._replace(source=OTHER), 0, ((3, "x", NOW_MS),)), 1000, 0.0)
    known.tables.tend(LIFE_SECONDS - 1, MANY)
    assert len(known.tables) == 2
    known.tables.tend(LIFE_SECONDS, MANY)
    assert [one.source for one in known.tables] == [OTHER]
    known.tables.tend(LIFE_SECONDS + 1000, MANY)
    assert (len(known.tables), known.tables.pages) == (0, 0)


def test_a_topic_that_was_made_anew_gets_all_that_is_alive() -> None:
    """Of those exporters that are heard here."""
    known = Known()
    known.tables.follow(page((3, "x", 0)), 0, 0.0)
    known.tables.follow(TableEntry(INTERFACES._replace(source=OTHER), 0, ((3, "x", NOW_MS),)), 0, 0.0)
    known.tables.begin_anew(1)
    assert [one.table.source for one in known.publish()] == [EDGE]


# --- bounds


def test_an_exporter_has_so_many_facts_and_all_have_so_many() -> None:
    """What is over a bound is refused and counted, heard or followed."""
    known = Known(limit=10, exporter_limit=6)
    known.hear(*(fact(about) for about in range(9)))
    assert (len(known.tables), known.tables.refused) == (6, 3)
    known.hear(*(fact(about, source=OTHER) for about in range(9)))
    assert (len(known.tables), known.tables.refused) == (10, 8)
    assert known.tables.follow(page((50, "x", 0)), 0, 0.0) is Skip.NO_ROOM
    known.hear(fact(3, "renamed"))
    assert isinstance(known.tables.follow(page((4, "renamed", 10)), 0, 0.0), list)


def test_names_that_are_too_long_are_not_passed_on() -> None:
    """They are counted, and stay with the worker that heard them."""
    known = Known()
    known.hear(fact(3, "x" * 2000), fact(4, "short"))
    assert (len(known.tables), known.tables.refused) == (1, 1)
