from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.exporters import ExporterFacts, Exporters, address_text
from ingest.sequences import RESTART, UPTIME_SLACK_MS
from tests.builders import mapped
from tests.ingest.observations import EDGE, NOW_NS, WRAP, Said, heard, stream


class Counted:
    """Exporters, and what they said was lost; a round is what lies between two settlements."""

    def __init__(self, version: int = 9, limit: int = 65_536) -> None:
        self.exporters = Exporters(limit)
        self.lost = Counter[str]()
        self._version = version

    def round(self, *batches: Sequence[Said]) -> None:
        """Hear these batches, and settle."""
        for batch in batches:
            self.exporters.hear(heard(batch, self._version))
        self._settle()

    def end(self, *, at_once: bool = False) -> None:
        """Let so much time pass that nothing can be under way any more, or say that nothing more will come."""
        for _ in range(1 if at_once else 3):
            self._settle(everything=at_once)

    def facts(self, place: int = 0) -> ExporterFacts:
        """What is known of an exporter; the loss is the same as what was told at the settlements."""
        facts = self.exporters.facts()
        by_name = Counter[str]()
        for one in facts:
            by_name[one.exporter] += one.lost
        assert +by_name == +self.lost
        return facts[place]

    def _settle(self, *, everything: bool = False) -> None:
        for exporter, units in self.exporters.settle(everything=everything).items():
            assert units > 0
            self.lost[exporter] += units


def outcome(version: int, *rounds: Sequence[Said]) -> tuple[int, int, int]:
    """Lost, uncertain and restarts after these rounds."""
    counted = Counted(version)
    for said in rounds:
        counted.round(said)
    counted.end()
    facts = counted.facts()
    return facts.lost, facts.uncertain, facts.restarts


# --- the rule of each protocol


LOST = [
    pytest.param(5, [*stream(0, 30, 30), *stream(90, 30)], 30, id="NetFlow v5 counts flows: a datagram of 30"),
    pytest.param(5, [*stream(7, 1, 29, 30)], 0, id="NetFlow v5, datagrams of any size"),
    pytest.param(9, [*stream(100, 1, 1), *stream(105, 1)], 3, id="NetFlow v9 counts datagrams: three of them"),
    pytest.param(10, [*stream(0, 20, 25), *stream(60, 1), *stream(64, 3)], 18, id="IPFIX counts records: twice some"),
    pytest.param(10, [*stream(500, 10, 0, 0, 10)], 0, id="IPFIX messages with templates alone count nothing"),
    pytest.param(9, [Said(4_000_000_000)], 0, id="the first datagram of all is no loss"),
    pytest.param(9, [Said(0), Said(0), Said(0)], 0, id="an exporter that always says 0"),
]


@pytest.mark.parametrize(("version", "said", "lost"), LOST)
def test_a_gap_is_a_loss_by_the_rule_of_the_protocol(version: int, said: list[Said], lost: int) -> None:
    """Between what a datagram says and what the one before it led to expect lies what was lost."""
    assert outcome(version, said) == (lost, 0, 0)


@pytest.mark.parametrize(("version", "said", "lost"), LOST)
def test_it_does_not_matter_how_datagrams_fall_into_rounds(version: int, said: list[Said], lost: int) -> None:
    """The loss is the same when each datagram comes in a round of its own."""
    assert outcome(version, *([one] for one in said)) == (lost, 0, 0)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        pytest.param([*stream(WRAP - 2, 1, 1, 1, 1)], 0, id="datagram by datagram"),
        pytest.param([*stream(WRAP - 10, 30, 30)], 0, id="in the middle of a datagram"),
        pytest.param([Said(WRAP - 1), Said(4)], 4, id="with a gap across it"),
        pytest.param([Said(1), Said(WRAP - 2), Said(0), Said(WRAP - 1)], 0, id="out of order"),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["in one round", "in rounds of their own"])
def test_numbers_go_on_through_their_end(said: list[Said], lost: int, apart: bool) -> None:
    """After 2^32 - 1 comes 0, which is neither a loss nor a restart."""
    if apart:
        said = sorted(said, key=lambda one: (one.sequence + 1000) % WRAP)
    assert outcome(9, *([one] for one in said) if apart else (said,)) == (lost, 0, 0)


def test_exporters_domains_and_protocols_are_counted_apart() -> None:
    """Each observation domain of each exporter has a sequence of its own, in each protocol; the sum is the exporter's."""
    counted = Counted()
    said = [
        *(replace(one, domain=domain) for domain in (0, 7) for one in (Said(0), Said(1), Said(4))),
        Said(1000, source="2001:db8::1"),
        Said(1001, source="2001:db8::1"),
    ]
    counted.exporters.hear(heard([Said(0, 5), Said(9, 5)], version=10))
    counted.round(said)
    counted.end()
    counted.facts()
    assert counted.lost == {EDGE: 2 + 2 + 4}
    assert [(one.exporter, one.version, one.observation_domain_id, one.lost) for one in counted.exporters.facts()] == [
        (EDGE, 10, 0, 4),
        (EDGE, 9, 0, 2),
        (EDGE, 9, 7, 2),
        ("2001:db8::1", 9, 0, 0),
    ]


# --- order


def test_workers_may_tell_in_any_order() -> None:
    """Datagrams of one exporter that two workers read, each in its own time, leave no gap between them."""
    said = stream(1000, *[24] * 100)
    counted = Counted(10)
    counted.round(said[1::2], said[::2])
    counted.end()
    assert counted.facts().lost == 0


@pytest.mark.parametrize("late", [1, 2, 50])
def test_what_comes_a_round_late_was_not_lost(late: int) -> None:
    """A worker may hold a batch while another's is settled: nothing is called lost before a round has passed."""
    said = stream(0, *[1] * 100)
    counted = Counted()
    counted.round(said[: 50 - late], said[50:60])
    assert counted.facts().lost == 0
    counted.round(said[50 - late : 50], said[60:])
    counted.end()
    assert counted.facts().lost == 0


@pytest.mark.parametrize("at_once", [False, True], ids=["a while later", "at the end"])
def test_what_is_missing_is_told_when_nothing_more_comes(at_once: bool) -> None:
    """The last gap before an exporter falls silent is counted too, and so is one before we stop."""
    counted = Counted()
    counted.round([Said(0), Said(5)])
    assert not counted.lost
    counted.end(at_once=at_once)
    assert counted.lost == {EDGE: 4}


@pytest.mark.parametrize("apart", [False, True], ids=["in one round", "in the next round"])
def test_a_repeated_datagram_neither_loses_nor_makes_good(apart: bool) -> None:
    """A mirrored exporter's copies open no gap, and the losses that follow are counted all the same."""
    said = stream(0, *[1] * 20)
    counted = Counted()
    if apart:
        counted.round(said)
        counted.round(said)
    else:
        counted.round(said, said)
    counted.end()
    assert counted.facts().lost == 0
    counted.round([Said(30), Said(31)])
    counted.end()
    assert counted.facts().lost == 10


def test_a_very_late_datagram_takes_nothing_back() -> None:
    """What comes after its gap was told stays told: the count is a counter, and never falls."""
    counted = Counted()
    counted.round([Said(0), Said(2), Said(3)])
    counted.end()
    counted.round([Said(1), Said(4)])
    counted.round([Said(6)])
    counted.end()
    assert counted.facts().lost == 2
    assert counted.facts().restarts == 0


# --- restarts


RESTARTS = [
    pytest.param(
        9, [Said(5000, uptime_ms=10**9)], [Said(0, uptime_ms=500), Said(1, uptime_ms=600)], id="v9: the uptime fell"
    ),
    pytest.param(5, stream(70_000, 30, uptime_ms=10**9), stream(0, 30, 30, uptime_ms=10), id="v5: the uptime fell"),
    pytest.param(
        9,
        [Said(5000, uptime_ms=10**9)],
        [Said(5600, uptime_ms=500), Said(5601, uptime_ms=600)],
        id="the uptime fell and the sequence rose by chance",
    ),
    pytest.param(10, stream(10**9, 20, 20), stream(0, 20, 20), id="IPFIX: the sequence fell far"),
    pytest.param(10, stream(0, 20, 20), stream(RESTART + 10**6, 20, 20), id="the sequence rose beyond belief"),
    pytest.param(9, stream(2**31 + 7, 1, 1), stream(3, 1, 1), id="as far as a number can be from another"),
]


@pytest.mark.parametrize(("version", "before", "after"), RESTARTS)
def test_a_restart_is_no_loss(version: int, before: list[Said], after: list[Said]) -> None:
    """An exporter that begins anew is counted as such; its numbers are not compared across that."""
    assert outcome(version, before, after) == (0, 0, 1)


@pytest.mark.parametrize(("version", "before", "after"), RESTARTS)
def test_losses_on_both_sides_of_a_restart_count(version: int, before: list[Said], after: list[Said]) -> None:
    """A gap before the restart and one after it are both told; the restart itself hides neither."""
    step = before[0].units
    before = [*before, replace(before[-1], sequence=before[-1].sequence + 3 * step)]
    last = after[-1]
    later = [replace(last, sequence=last.sequence + 4 * step), replace(last, sequence=last.sequence + 5 * step)]
    assert outcome(version, before, after, later) == (2 * step + 3 * step, 0, 1)


def test_an_ipfix_exporter_that_begins_anew_after_few_records_is_noticed() -> None:
    """Without an uptime, numbers that stay behind what came before tell a restart, however small they were."""
    counted = Counted(10)
    counted.round(stream(0, *[20] * 100))
    counted.round(stream(2000, *[20] * 100))
    for number in range(4):
        counted.round(stream(200 * number, *[20] * 10))
    counted.round(stream(900, 20, 20))
    counted.end()
    assert (counted.facts().lost, counted.facts().restarts) == (100, 1)


@pytest.mark.parametrize("fall", [1, UPTIME_SLACK_MS])
def test_an_uptime_that_wavers_is_no_restart(fall: int) -> None:
    """Datagrams of two line cards, or out of order, have uptimes that are a little apart."""
    said = [Said(10, uptime_ms=500_000), Said(11, uptime_ms=500_000 - fall), Said(14, uptime_ms=500_000)]
    assert outcome(9, *([one] for one in said)) == (2, 0, 0)


def test_an_uptime_goes_on_through_its_end() -> None:
    """After 49.7 days the uptime begins at 0 again, and the exporter did not."""
    said = [Said(10, uptime_ms=WRAP - 3000), Said(11, uptime_ms=WRAP - 1), Said(14, uptime_ms=4000)]
    assert outcome(9, *([one] for one in said)) == (2, 0, 0)
    assert outcome(9, said) == (2, 0, 0)


# --- what cannot be counted


def test_a_gap_after_what_could_not_be_read_may_be_no_loss() -> None:
    """Where an IPFIX set waits for its template, its records are not known: the gap after it is uncertain, not lost."""
    said = [*stream(0, 10), Said(10, 2, exact=False), *stream(30, 10), *stream(45, 10)]
    assert outcome(10, said) == (5, 18, 0)
    assert outcome(10, *([one] for one in said)) == (5, 18, 0)


def test_records_that_were_counted_leave_nothing_uncertain() -> None:
    """A message that could be read in part, and had nothing else, leaves no gap at all."""
    assert outcome(10, [Said(0, 10, exact=False), *stream(10, 10)]) == (0, 0, 0)


# --- what is known


def test_everything_that_is_heard_of_an_exporter_is_there() -> None:
    """Datagrams, records, broken sets, and when the first and the last of them came."""
    exporters = Exporters()
    exporters.hear(heard([Said(0, 10, received_ns=NOW_NS + 5), Said(10, 20, received_ns=NOW_NS + 9, undecoded=2)]))
    exporters.hear(heard([Said(30, 5, received_ns=NOW_NS + 7, undecoded=1)]))
    exporters.measure(2.0)
    (facts,) = exporters.facts()
    assert (facts.exporter, facts.version, facts.observation_domain_id) == (EDGE, 9, 0)
    assert (facts.first_seen_ns, facts.last_seen_ns) == (NOW_NS + 5, NOW_NS + 9)
    assert (facts.datagrams, facts.records, facts.undecoded) == (3, 35, 3)
    assert (facts.datagrams_per_second, facts.records_per_second) == (1.5, 17.5)
    exporters.measure(2.0)
    (facts,) = exporters.facts()
    assert (facts.datagrams_per_second, facts.records_per_second) == (0, 0)


def test_rates_are_those_of_exporters_that_came_meanwhile_too() -> None:
    """An exporter that is new since the last measurement has its rate, and the others keep theirs."""
    exporters = Exporters()
    exporters.hear(heard([Said(0)]))
    exporters.measure(1.0)
    exporters.hear(heard([Said(one, source=f"198.51.100.{one}") for one in range(200)]))
    exporters.measure(0.5)
    assert [one.datagrams_per_second for one in exporters.facts()] == [0.0] + [2.0] * 200


def test_the_table_is_bounded() -> None:
    """Exporters over the bound are counted together, and those that have a place keep it, losses and all."""
    counted = Counted(limit=3)
    counted.round([Said(0, source=f"10.0.0.{one}") for one in range(5)])
    counted.round([Said(2, source=f"10.0.0.{one}") for one in range(5)])
    counted.end()
    assert len(counted.exporters) == 3
    assert [one.exporter for one in counted.exporters.facts()] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
    assert counted.exporters.unlisted == 4
    assert counted.lost == {"10.0.0.0": 1, "10.0.0.1": 1, "10.0.0.2": 1}


def test_an_exporter_has_a_share_of_the_table() -> None:
    """A domain is what a datagram says: one that says many leaves room for the others, whatever comes in one batch."""
    exporters = Exporters(limit=10, exporter_limit=4)
    greedy = [Said(0, domain=domain) for domain in range(9)]
    exporters.hear(heard([*greedy[:3], Said(0, source="10.0.0.1"), *greedy[3:]]))
    exporters.hear(heard([*greedy, Said(0, source="10.0.0.1", domain=1), *greedy], version=10))
    exporters.hear(heard([Said(0, source="10.0.0.2", domain=domain) for domain in range(3)]))
    of = Counter((one.exporter, one.version) for one in exporters.facts())
    assert of == {(EDGE, 9): 4, ("10.0.0.1", 9): 1, ("10.0.0.1", 10): 1, ("10.0.0.2", 9): 3}
    assert [one.observation_domain_id for one in exporters.facts() if one.exporter == EDGE] == [0, 1, 2, 3]
    assert exporters.unlisted == 5 + 18


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=20), max_size=6))
def test_the_table_and_each_share_of_it_are_bounded(batches: list[list[tuple[int, int]]]) -> None:
    """Rows go to those that come first, as one by one would have it."""
    exporters = Exporters(limit=8, exporter_limit=3)
    listed: dict[tuple[str, int], int] = {}
    unlisted = 0
    for batch in batches:
        exporters.hear(heard([Said(0, source=f"10.0.0.{source}", domain=domain) for source, domain in batch]))
        for source, domain in ((f"10.0.0.{source}", domain) for source, domain in batch):
            room = len(listed) < 8 and sum(one == source for one, _ in listed) < 3
            if (source, domain) in listed or room:
                listed[source, domain] = listed.get((source, domain), 0) + 1
            else:
                unlisted += 1
    assert {(one.exporter, one.observation_domain_id): one.datagrams for one in exporters.facts()} == listed
    assert exporters.unlisted == unlisted


def test_more_exporters_than_one_batch_grow_the_table() -> None:
    """A table that grows in between forgets nothing."""
    counted = Counted()
    for part in range(5):
        counted.round([Said(0, source=f"10.{part}.0.{one}") for one in range(150)])
    counted.round([Said(1, source=f"10.{part}.0.{one}") for part in range(5) for one in range(150)])
    counted.end()
    assert len(counted.exporters) == 750
    assert not counted.lost
    assert {one.datagrams for one in counted.exporters.facts()} == {2}


def test_a_flood_is_settled_before_its_time_and_its_losses_are_told() -> None:
    """More datagrams than are gathered at a time are counted at once, and the next settlement tells what was found."""
    exporters = Exporters(most_observations=100)
    for begin in range(0, 1000, 20):
        exporters.hear(heard([Said(one) for one in range(begin, begin + 20) if one % 10]))
    lost = Counter(exporters.settle())
    for _ in range(2):
        lost.update(exporters.settle())
    # 0, 10, 20, … are missing; before the first there is no gap.
    assert lost == {EDGE: 99}


def test_nothing_heard_is_nothing_lost() -> None:
    """To settle without having heard anything tells nothing, however often."""
    exporters = Exporters()
    assert [exporters.settle() for _ in range(3)] == [{}, {}, {}]
    assert exporters.facts() == []


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        pytest.param(mapped("192.0.2.1"), "192.0.2.1", id="IPv4 is plain"),
        pytest.param(mapped("2001:db8::5"), "2001:db8::5", id="IPv6"),
        pytest.param(bytes(16), "::", id="unspecified"),
    ],
)
def test_an_address_is_shown_as_people_write_it(octets: bytes, text: str) -> None:
    """16 bytes become the usual text."""
    assert address_text(octets) == text


# --- in any order


@settings(deadline=None)
@given(
    version=st.sampled_from([5, 9, 10]),
    first=st.one_of(st.integers(0, WRAP - 1), st.integers(WRAP - 200, WRAP - 1)),
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=60),
    missing=st.sets(st.integers(1, 58)),
    rounds=st.integers(1, 6),
    data=st.data(),
)
def test_the_loss_is_exact_in_any_order(
    version: int, first: int, sizes: list[int], missing: set[int], rounds: int, data: st.DataObject
) -> None:
    """However datagrams are shuffled, repeated, and split over batches and rounds, those that are missing are counted.

    As long as none is more than a round late. The first and the last are there: without them nobody knows.
    """
    sizes = [1] * len(sizes) if version == 9 else sizes
    sent = stream(first, *sizes)
    gone = {one for one in missing if one < len(sent) - 1}
    plan: list[list[Said]] = [[] for _ in range(rounds + 1)]
    for at, one in enumerate(sent):
        if at not in gone:
            turn = at * rounds // len(sent)
            plan[turn + data.draw(st.integers(0, 1))].append(one)
            if data.draw(st.booleans()):
                plan[turn + data.draw(st.integers(0, 1))].append(one)
    counted = Counted(version)
    for content in plan:
        order = data.draw(st.permutations(content))
        split = data.draw(st.integers(0, len(order)))
        counted.round(*(part for part in (order[:split], order[split:]) if part))
    counted.end(at_once=data.draw(st.booleans()))
    facts = counted.facts()
    assert facts.lost == sum(sizes[one] for one in gone)
    assert (facts.uncertain, facts.restarts) == (0, 0)
