"""What waits to be published: in turns, and no faster than it may."""

from __future__ import annotations

from ingest.state import outgoing
from ingest.state.outgoing import AGAIN_SECONDS, BURST, EXPORTERS, IDLE_SECONDS, Outgoing
from tests.builders import mapped

EDGE, OTHER = mapped("192.0.2.1"), mapped("192.0.2.2")
MANY = 10**6


def put(waiting: Outgoing[str], *items: str, source: bytes = EDGE, now: float = 0.0) -> None:
    """Have items of an exporter published."""
    for item in items:
        waiting.put(source, item, now)


def test_each_is_taken_once_however_often_it_is_put() -> None:
    """What it says is asked for when its turn comes; so a template that changes and changes is one message."""
    waiting = Outgoing[str]()
    put(waiting, "a", "b", "a", "a")
    assert len(waiting) == 2
    assert waiting.take(0, MANY) == ["a", "b"]
    assert waiting.take(0, MANY) == []
    assert len(waiting) == 0


def test_what_was_published_is_not_published_again_at_once() -> None:
    """It waits meanwhile, and is not lost."""
    waiting = Outgoing[str]()
    put(waiting, "a")
    assert waiting.take(0, MANY) == ["a"]
    put(waiting, "a", "b", now=1)
    assert waiting.take(1, MANY) == ["b"]
    assert waiting.take(AGAIN_SECONDS - 0.1, MANY) == []
    assert waiting.take(AGAIN_SECONDS, MANY) == ["a"]


def test_an_exporter_has_a_burst_and_then_one_a_second() -> None:
    """What is over that waits and is counted; others do not wait for it."""
    waiting = Outgoing[str]()
    put(waiting, *(f"{one:03}" for one in range(100)))
    put(waiting, "other", source=OTHER)
    assert len(waiting.take(0, MANY)) == BURST + 1
    assert waiting.delayed == 100 - BURST
    assert [len(waiting.take(second, MANY)) for second in range(1, 40)] == [1] * 36 + [0] * 3
    put(waiting, *(f"later {one}" for one in range(100)), now=3600)
    assert len(waiting.take(3600, MANY)) == BURST


def test_exporters_take_turns() -> None:
    """One that has much to say does not make others wait, however little is taken at a time."""
    waiting = Outgoing[str]()
    put(waiting, *(f"much {one}" for one in range(60)))
    put(waiting, "little", source=OTHER)
    waiting.take(0, 1)
    assert waiting.take(0, 1) == ["little"]


def test_what_need_not_be_published_any_more_is_not() -> None:
    """Another instance was faster."""
    waiting = Outgoing[str]()
    put(waiting, "a", "b")
    for item in ("a", "never put"):
        waiting.drop(EDGE, item)
        waiting.drop(OTHER, item)
    assert (waiting.take(0, MANY), len(waiting)) == (["b"], 0)


def test_so_many_exporters_are_told_apart() -> None:
    """What one more would publish is counted and left; one of which nothing came for a day makes room."""
    waiting = Outgoing[int]()
    for number in range(EXPORTERS + 1):
        waiting.put(number.to_bytes(16), number, 0.0)
    taken = [item for _ in range(2 + EXPORTERS // outgoing.TURNS) for item in waiting.take(0, MANY)]
    assert (len(taken), waiting.unlisted, len(waiting)) == (EXPORTERS, 1, 0)
    waiting.put(EXPORTERS.to_bytes(16), EXPORTERS, IDLE_SECONDS - 1)
    assert waiting.take(IDLE_SECONDS - 1, MANY) == []
    waiting.put(EXPORTERS.to_bytes(16), EXPORTERS, IDLE_SECONDS)
    assert waiting.take(IDLE_SECONDS, MANY) == [EXPORTERS]
