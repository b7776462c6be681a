"""Which version of a template holds, of those that were heard and those in the topic."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.layout import Field, Layout, Template
from ingest.decoders.templates import DOMAIN_BYTES, Word
from ingest.state.entries import Skip, TemplateEntry
from ingest.state.order import Order
from ingest.state.streams import NONE
from ingest.state.templates import (
    AGAIN_SECONDS,
    ALIVE_SECONDS,
    CROWDED_SECONDS,
    LIFE_SECONDS,
    RIVAL_SECONDS,
    SharedTemplates,
)
from ingest.templates import TemplateBounds
from tests.builders import mapped

EDGE: Final = mapped("192.0.2.1")
NOW_MS: Final = 1_700_000_000_000
OWN, FORGED = 7, 8
"""The number of the exporter's own sequence, and that of somebody else's."""
MANY: Final = 10**6


def key(template_id: int = 256, source: bytes = EDGE, domain: int = 0) -> bytes:
    """By what a template is kept."""
    return source + (10).to_bytes(2) + domain.to_bytes(4) + template_id.to_bytes(2)


def template(*lengths: int, template_id: int = 256) -> Template:
    """A template whose fields are of these lengths."""
    layout = Layout(10, tuple(Field(0, 1, length) for length in lengths), options=False, scopes=0)
    return Template(template_id, layout, 4 + 4 * len(lengths))


FIRST, SECOND, THIRD = template(4), template(8), template(2, 2)


class Known:
    """Shared templates with what they want to be published, told at times of their own, in seconds."""

    def __init__(self, bounds: TemplateBounds | None = None, *, read: bool = True) -> None:
        self.trusted: dict[bytes, int] = {}
        self.waiting: dict[bytes, None] = {}
        self.templates = SharedTemplates(
            bounds or TemplateBounds(), self, lambda domain: self.trusted.get(domain, OWN), lambda _: 0.0
        )
        self.sequence = 0
        if read:
            self.templates.read(0)

    def put(self, source: bytes, item: bytes, now: float) -> None:
        """Take note of what is to be published."""
        assert source == item[:16]
        self.waiting[item] = None

    def drop(self, source: bytes, item: bytes) -> None:
        """Take note of what is not."""
        self.waiting.pop(item, None)

    def hear(self, said: Template, at: float = 0.0, number: int = OWN, of: bytes | None = None) -> bool:
        """A datagram with this template."""
        self.sequence += 1
        ns = round((NOW_MS / 1000 + at) * 1e9)
        word = Word(of or key(said.template_id), said, True, self.sequence, None, ns, ns)
        return self.templates.hear(word, number, at)

    def follow(self, said: Template, told_ms: int = NOW_MS, boot_ms: int = 0, at: float = 0.0) -> bool | Skip:
        """An entry of the topic."""
        return self.templates.follow(entry(said, told_ms, boot_ms), at, 0.0)

    def holds(self, of: bytes | None = None) -> Template | None:
        """The version that holds."""
        version = self.templates.version(of or key())
        return None if version is None else version[0]

    def publish(self, at: float = 0.0) -> list[Template]:
        """What is to be published is, and Kafka acknowledges it."""
        found = []
        for one in self.waiting:
            version = self.templates.version(one)
            assert version is not None
            self.templates.acknowledged(one, version[0].layout, version[1], at)
            found.append(version[0])
        self.waiting.clear()
        return found


def entry(said: Template, told_ms: int = NOW_MS, boot_ms: int = 0, of: bytes | None = None) -> TemplateEntry:
    """A version in the topic."""
    return TemplateEntry(of or key(said.template_id), said, Order(boot_ms, told_ms))


# --- first definitions


def test_a_first_definition_is_published_at_once() -> None:
    """So that an instance that starts a moment later knows it."""
    known = Known()
    known.hear(FIRST)
    assert known.publish() == [FIRST]
    assert known.holds() == FIRST
    known.hear(FIRST, at=1)
    known.templates.use([key()], 2)
    known.templates.tend(2, MANY)
    assert known.publish() == []


def test_what_was_read_is_not_published() -> None:
    """However many instances start and read, and hear the same on the wire: nothing comes of it."""
    known = Known()
    assert known.follow(FIRST) is True
    known.hear(FIRST, at=1)
    known.templates.use([key()], 2)
    known.templates.tend(2, MANY)
    assert known.publish() == []


def test_nothing_is_published_before_the_topic_is_read() -> None:
    """What was heard meanwhile is first when the topic has nothing, and a redefinition where it has another layout."""
    known = Known(read=False)
    for one in (FIRST, template(4, template_id=257)):
        known.hear(one)
    assert (known.publish(), known.holds()) == ([], None)
    assert dict(known.templates) == {key(): FIRST, key(257): template(4, template_id=257)}
    known.follow(SECOND)
    known.templates.read(0)
    assert known.publish() == [template(4, template_id=257)]
    assert known.holds() == SECOND
    known.hear(FIRST, at=5)
    assert known.holds() == FIRST


def test_what_comes_back_from_the_topic_is_known() -> None:
    """Our own entry is read as well; another instance that published the same was faster."""
    known = Known()
    known.hear(FIRST)
    assert known.follow(FIRST) is False
    assert known.publish() == []


# --- redefinitions


def test_a_redefinition_holds_when_two_datagrams_of_the_exporters_sequence_said_it() -> None:
    """One alone may be forged or have gone astray; until the second, the layout before it holds for all others."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    known.hear(SECOND, at=10)
    assert (known.holds(), known.publish()) == (FIRST, [])
    assert known.templates.contested == 1
    known.hear(SECOND, at=20)
    assert (known.holds(), known.publish()) == (SECOND, [SECOND])
    assert known.templates.contested == 0


def test_a_datagram_that_comes_twice_says_it_once() -> None:
    """A mirror port doubles datagrams."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    for _ in range(5):
        known.sequence = 41
        known.hear(SECOND, at=10)
    assert known.holds() == FIRST


@pytest.mark.parametrize("number", [pytest.param(FORGED, id="another"), pytest.param(NONE, id="none")])
def test_what_is_not_of_the_exporters_sequence_is_not_believed(number: int) -> None:
    """However often it is said; and what the exporter says itself is, although others say much in its name."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    for at in range(1000):
        known.hear(SECOND, at=at, number=number)
        known.hear(template(1 + at), at=at, number=number)
    known.templates.tend(1000, MANY)
    assert (known.holds(), known.publish()) == (FIRST, [])
    known.hear(THIRD, at=1001)
    for at in range(10):
        known.hear(template(1 + at), at=1002, number=number)
    known.hear(THIRD, at=1003)
    assert known.publish() == [THIRD]


def test_before_a_sequence_is_known_no_redefinition_is_believed() -> None:
    """An instance that has hardly heard of an exporter does not know who speaks; it tells all when it does."""
    known = Known()
    known.follow(FIRST)
    known.trusted[key()[:DOMAIN_BYTES]] = NONE
    for at in (10, 20):
        known.hear(SECOND, at=at)
    assert (known.holds(), known.publish()) == (FIRST, [])
    del known.trusted[key()[:DOMAIN_BYTES]]
    known.templates.tend(30, MANY)
    assert known.publish() == [SECOND]


def test_a_redefinition_that_is_not_said_again_is_given_up() -> None:
    """After it is, a template that is told as it holds is settled."""
    known = Known()
    known.hear(FIRST)
    known.hear(SECOND, at=10)
    assert known.hear(FIRST, at=20) is False
    known.templates.tend(10 + RIVAL_SECONDS, MANY)
    assert known.templates.contested == 0
    assert known.hear(FIRST, at=20 + RIVAL_SECONDS) is True
    known.hear(SECOND, at=30 + RIVAL_SECONDS)
    assert known.holds() == FIRST


def test_a_new_worker_learns_what_holds_last() -> None:
    """It keeps two layouts, and reads with the newest that fits: what is believed goes before what is not."""
    known = Known()
    known.hear(FIRST)
    for at, one in enumerate((SECOND, THIRD)):
        known.hear(one, at=at, number=FORGED)
    assert list(known.templates) == [(key(), THIRD), (key(), FIRST)]


# --- the order of versions


@given(
    st.lists(
        st.tuples(st.sampled_from([FIRST, SECOND, THIRD]), st.integers(0, 3), st.integers(0, 3)),
        min_size=1,
        max_size=6,
    ).flatmap(lambda told: st.tuples(st.just(told), st.permutations(told)))
)
def test_entries_give_the_same_in_any_order(both: tuple[list[tuple[Template, int, int]], ...]) -> None:
    """Partitions are read side by side, and compaction leaves gaps: what holds is the newest all the same."""
    states = []
    for told in both:
        known = Known(read=False)
        for said, boot_ms, told_ms in told:
            known.follow(said, told_ms, boot_ms)
        states.append(known.templates.version(key()))
    assert states[0] == states[1]
    assert states[0] is not None
    assert states[0][1] == max(Order(boot_ms, told_ms) for _, boot_ms, told_ms in both[0])


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_later_boot_goes_first_and_then_the_later_time(order: tuple[int, ...]) -> None:
    """Not the order in the topic."""
    told = [(FIRST, 100, 5), (SECOND, 300, 5), (THIRD, 200, 6)]
    known = Known()
    for place in order:
        said, told_ms, boot_ms = told[place]
        known.follow(said, told_ms, boot_ms)
    assert known.holds() == THIRD


def test_a_version_that_comes_by_the_topic_is_told_to_workers_when_it_is_newer() -> None:
    """A stale one changes nothing, and neither does what is known."""
    known = Known()
    assert known.follow(FIRST, NOW_MS) is True
    assert known.follow(SECOND, NOW_MS + 1) is True
    assert known.follow(FIRST, NOW_MS) is False
    assert known.follow(SECOND, NOW_MS + 5) is False
    assert known.holds() == SECOND


def test_an_instance_that_slept_does_not_bring_back_what_is_stale() -> None:
    """It reads what its sockets had queued: the former layout, in the exporter's sequence as it knows it."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    known.follow(SECOND, NOW_MS + 600_000)
    for at in (10, 20, 30):
        known.hear(FIRST, at=at)
    assert (known.holds(), known.publish()) == (SECOND, [])


# --- poisoning


def test_the_true_layout_comes_back_by_itself() -> None:
    """An instance that did not know the exporter was deceived, with a time in the future. One that hears it tells it."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    assert known.follow(SECOND, NOW_MS + 60_000) is True
    assert known.holds() == SECOND
    for at in (30, 60):
        known.hear(FIRST, at=at)
    assert known.holds() == SECOND
    known.hear(FIRST, at=90)
    assert known.holds() == FIRST
    assert known.publish() == [FIRST]
    version = known.templates.version(key())
    assert version is not None
    assert version[1] > Order(0, NOW_MS + 60_000)


def test_a_forged_entry_that_is_older_than_what_was_heard_since_is_answered() -> None:
    """It would hold for those who have only the topic to go by."""
    known = Known()
    known.hear(FIRST)
    known.publish()
    known.hear(SECOND, at=10, number=FORGED)
    known.hear(FIRST, at=20)
    assert known.follow(SECOND, NOW_MS + 10_000) is False
    assert known.holds() == FIRST
    assert known.publish() == [FIRST]
    assert known.follow(SECOND, NOW_MS + 10_000) is False
    assert known.publish() == []


# --- again, and no more


def test_what_is_alive_is_published_again_every_day() -> None:
    """Kafka forgets what is a week old."""
    known = Known()
    known.hear(FIRST)
    known.publish(at=5)
    for at in (3600.0, AGAIN_SECONDS):
        known.templates.use([key()], at)
        known.templates.tend(at, MANY)
        assert known.publish() == []
    known.templates.tend(AGAIN_SECONDS + 5, MANY)
    assert known.publish(at=AGAIN_SECONDS + 5) == [FIRST]
    known.templates.tend(AGAIN_SECONDS + 6, MANY)
    assert known.publish() == []


def test_what_another_instance_published_again_is_not() -> None:
    """And what nobody here has heard of for a day is left to those who have."""
    known = Known()
    known.follow(FIRST)
    known.follow(template(4, template_id=257))
    known.templates.use([key()], ALIVE_SECONDS)
    assert known.follow(FIRST, NOW_MS + 1, at=ALIVE_SECONDS) is False
    known.templates.tend(ALIVE_SECONDS + 10, MANY)
    assert known.publish() == []


def test_what_nobody_tells_is_forgotten_after_a_week() -> None:
    """As the topic does; what is told again, used, or published by others is kept."""
    known = Known()
    for template_id in range(256, 260):
        known.follow(template(4, template_id=template_id))
    known.templates.use([key(256)], 1000)
    known.hear(template(4, template_id=257), at=1000)
    known.follow(template(4, template_id=258), NOW_MS + 1, at=1000)
    assert known.templates.tend(LIFE_SECONDS - 1, MANY) == []
    assert known.templates.tend(LIFE_SECONDS, MANY) == [key(259)]
    assert sorted(known.templates.tend(LIFE_SECONDS + 1000, MANY)) == [key(256), key(257), key(258)]
    assert (len(known.templates), known.publish()) == (0, [])


def test_a_topic_that_was_made_anew_gets_all_that_is_alive() -> None:
    """Nothing is in it: whoever hears an exporter tells what it knows of it."""
    known = Known()
    known.follow(FIRST)
    known.follow(template(4, template_id=257))
    known.hear(FIRST, at=1)
    known.templates.begin_anew(2)
    assert known.publish() == [FIRST]


# --- bounds


def test_an_exporter_has_so_many_templates_in_a_domain_and_in_all() -> None:
    """Of what it or its forgers send more, nothing is kept; others have their room."""
    known = Known(TemplateBounds(per_domain=3, per_exporter=5))
    for template_id in range(256, 300):
        known.hear(template(4, template_id=template_id))
    assert len(known.templates) == 3
    for domain in range(1, 100):
        known.hear(FIRST, of=key(domain=domain))
    assert len(known.templates) == 5
    assert known.templates.refused == 41 + 97
    assert known.follow(template(4, template_id=5000)) is Skip.NO_ROOM
    known.hear(FIRST, of=key(source=mapped("192.0.2.2")))
    assert known.holds(key(source=mapped("192.0.2.2"))) == FIRST


def test_a_template_has_so_many_bytes() -> None:
    """In the topic as on the wire."""
    known = Known()
    large = template(*([1] * 2047))
    assert known.follow(large) is True
    assert known.follow(template(*([1] * 2048), template_id=257)) is Skip.TOO_LARGE


def test_over_the_bound_for_all_what_nobody_needs_goes_first() -> None:
    """A flood of exporters that do not exist displaces itself, and not those that are there."""
    known = Known(TemplateBounds(templates=64))
    true = [key(source=mapped(f"192.0.2.{one}")) for one in range(40)]
    for one in true:
        known.hear(FIRST, of=one)
    known.templates.use(true, 1)
    for number in range(5000):
        known.hear(FIRST, of=key(source=mapped(f"10.1.{number >> 8}.{number & 255}")), at=2)
    assert len(known.templates) == 64
    assert all(known.holds(one) == FIRST for one in true)
    assert known.templates.evicted == 5040 - 64


def test_room_comes_back_after_a_flood_of_identifiers() -> None:
    """What was not used for an hour goes, where there is so much that there is no room for what is true."""
    known = Known(TemplateBounds(per_domain=8))
    known.hear(template(4, template_id=256))
    for template_id in range(1000, 1100):
        known.hear(template(4, template_id=template_id), at=10, number=FORGED)
    known.hear(template(4, template_id=257), at=20)
    assert known.holds(key(257)) is None
    known.templates.use([key(256)], 3000)
    forgotten = known.templates.tend(10 + CROWDED_SECONDS, MANY)
    assert 0 < len(forgotten) <= 7
    assert key(256) not in forgotten
    known.hear(template(4, template_id=257), at=CROWDED_SECONDS + 100)
    assert known.holds(key(257)) is not None


def test_what_is_kept_does_not_grow_with_what_is_sent() -> None:
    """Any mixture of words, entries and time leaves no more than the bounds say, and counts that agree."""
    known = Known(TemplateBounds(per_domain=4, per_exporter=6, templates=20))
    chance = random.Random(5)
    now = 0.0
    for _ in range(5000):
        now += chance.choice((0, 0, 1, 500, 90_000))
        source = mapped(f"192.0.2.{chance.randrange(9)}")
        of = key(256 + chance.randrange(6), source, chance.randrange(3))
        said = template(*([4] * chance.randrange(1, 4)))
        if chance.random() < 0.5:
            known.hear(said, at=now, number=chance.choice((OWN, FORGED, NONE)), of=of)
        else:
            known.templates.follow(TemplateEntry(of, said, Order(0, NOW_MS + chance.randrange(10**7))), now, 0.0)
        if chance.random() < 0.1:
            known.templates.tend(now, MANY)
            known.publish(now)
        assert len(known.templates) <= 20
    kept = list(known.templates.shown())
    assert sum(known.templates._of_exporter.values()) == len(known.templates) == len({one.key for one in kept})
    assert set(known.templates._contested) == {one.key for one in kept if not one.holds}
    assert set(known.waiting) <= {one.key for one in kept}
