from __future__ import annotations

import pytest

from forwarder.config import CutConfig
from forwarder.course import NOTE_BYTES, Epoch
from forwarder.replay.bookmark import Bookmark, group_name
from forwarder.replay.plan import NO_END, Leg, Span
from tests.forwarder.records import shape

SHAPES = [shape(CutConfig(interval_ms=1000 + number)) for number in range(40)]


def leg(begin: int, *epochs: tuple[int, int]) -> Leg:
    """A leg of these shapes, by their numbers."""
    told = tuple(Epoch(after, SHAPES[number]) for after, number in epochs)
    return Leg(0, begin, begin, begin, 90, 100, told, exact=True)


def test_what_was_asked_for_is_read_back() -> None:
    """The end is the one that the range had when it was begun."""
    ours = Bookmark.of(4, leg(20, (0, 0), (50, 1)), Span(25, NO_END), (None, 7))
    assert ours.span == Span(25, 90)
    assert Bookmark.parse(ours.text()) == ours
    assert ours.text().isascii()


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "[1,2]", "[2,4,1,2,[null,null],[]]", "[1,4,1,2,[null,null],[3]]", "7"]
)
def test_what_is_not_ours_is_none(text: str | None) -> None:
    """Nothing is made of what another program has left there."""
    assert Bookmark.parse(text) is None


def test_as_many_shapes_as_a_group_keeps_have_room() -> None:
    """A group's own note has room for no more than forty shapes, of which each takes a hundred characters at least."""
    told = leg(0, *((number * 10**17, number) for number in range(40)))
    assert len(Bookmark.of(10**6, told, Span(10**18, NO_END), (10**19, 10**19)).text()) < NOTE_BYTES


@pytest.mark.parametrize(
    ("now", "fits"),
    [
        (leg(30, (0, 0), (50, 1)), True),
        (leg(30, (7, 0), (50, 1)), True),
        (leg(60, (50, 1)), True),
        (leg(30, (0, 2), (50, 1)), False),
        (leg(30, (0, 0), (51, 1)), False),
        (leg(30, (0, 0)), False),
        (leg(60, (50, 0)), False),
        (leg(30, (0, 0), (50, 1), (70, 2)), False),
    ],
)
def test_it_goes_on_with_the_shapes_that_it_began_with(now: Leg, fits: bool) -> None:
    """From the cut on where it goes on, each shape holds from where it did."""
    assert Bookmark.of(1, leg(20, (0, 0), (50, 1)), Span(25, 90), (None, None)).fits(now) is fits


def test_the_same_request_has_the_same_group() -> None:
    """Whatever tells two requests apart tells their groups apart."""
    asked = [("t", "lake", None, "-1h"), ("t", "lake", "None", "-2h"), ("u", "lake", None, "-1h"), ("t", "lake", None)]
    names = [group_name("ours", "lake", one) for one in asked]
    assert len(set(names)) == len(asked)
    assert names[0] == group_name("ours", "lake", list(asked[0]))
    assert names[0].startswith("ours.lake.replay-")
