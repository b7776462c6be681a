"""When a partition is read again: not while nothing can have become of what waits in it."""

from __future__ import annotations

from ingest.undecoded.chunk import Answer
from ingest.undecoded.place import MOST_WAITING, REST, Place

HOUR = 3600 * 1_000_000_000
NOW = 10 * HOUR
KEYS = [bytes([at // 256, at % 256]) for at in range(MOST_WAITING + 1)]


def scanned(appended: int = 2) -> Place:
    """A partition of ten messages that was read to its end; some were appended again."""
    place = Place(3, position=0)
    place.begin(10, 1.0)
    place.note(Answer([], [], {KEYS[0]: ()}), NOW - HOUR // 2, HOUR, appended)
    place.position, place.complete = 10, True
    return place


def test_what_we_have_appended_alone_is_no_reason() -> None:
    """A set that waits is not moved again and again while its template does not come."""
    assert scanned().same(12, NOW)


def test_what_others_have_appended_is() -> None:
    """It may be for a template that is known here."""
    assert not scanned().same(13, NOW)


def test_so_is_what_has_waited_too_long() -> None:
    """By the oldest of the sets."""
    place = scanned()
    place.note(Answer([], []), NOW - HOUR // 4, HOUR, 0)
    assert place.same(12, NOW + HOUR // 2 - 1)
    assert not place.same(12, NOW + HOUR // 2)


def test_so_is_a_scan_that_did_not_come_to_its_end() -> None:
    """What lies behind has not been looked at."""
    place = scanned()
    place.complete = False
    assert not place.same(12, NOW)


def test_now_and_then_it_is_read_all_the_same() -> None:
    """Should there be a reason that nobody has thought of."""
    place = scanned()
    place.passed = REST
    assert not place.same(12, NOW)
    place.begin(12, 2.0)
    assert place.passed == 0


def test_too_many_templates_are_not_remembered() -> None:
    """A partition in which very many are waited for is always read: what is remembered has a bound."""
    place = scanned()
    assert place.waiting == {KEYS[0]: ()}
    place.note(Answer([], [], dict.fromkeys(KEYS, ())), NOW, HOUR, 1)
    assert place.waiting is None
    place.note(Answer([], [], {KEYS[0]: ()}), NOW, HOUR, 1)
    assert place.waiting is None
