from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.data_sources import DataSources, SampleFacts
from ingest.decoders.sflow_elements import SampleKind
from ingest.samples import GatheredSamples
from shared.metrics import OTHER
from tests.ingest.observations import WRAP
from tests.ingest.sampled import AGENT, COUNTERS, DISCARDED, FLOW, Sample, gathered, numbered


def heard(*rounds: Sequence[Sample], sources: DataSources | None = None) -> DataSources:
    """Data sources of which these rounds were heard, each with a settlement after it, and then nothing more."""
    sources = DataSources() if sources is None else sources
    for samples in rounds:
        if samples:
            sources.hear(gathered(samples))
        sources.settle()
    sources.settle(everything=True)
    return sources


def of(sources: DataSources, kind: SampleKind = FLOW) -> SampleFacts:
    """What is known of the only agent."""
    (facts,) = [one for one in sources.facts() if one.kind is kind]
    return facts


def test_what_is_missing_and_what_was_dropped_is_told_by_agent_and_kind() -> None:
    """Losses of an agent's data sources add up; those of its sub-agents, and of kinds, are their own."""
    other = Sample(0, agent="2001:db8::1", sub_agent=7)
    samples = [
        *(Sample(at, drops=10 * at) for at in (1, 2, 5)),
        *(Sample(at, source=(0, 4)) for at in (100, 103)),
        *(Sample(at, kind=COUNTERS) for at in (1, 4)),
        *(Sample(at, kind=DISCARDED, drops=at) for at in (1, 2)),
        *(replace(other, sequence=at, drops=at) for at in (1, 2, 3)),
    ]
    assert sorted(heard(samples).facts(), key=lambda one: (one.agent, one.kind)) == [
        SampleFacts(AGENT, 0, FLOW, sources=2, lost=2 + 2, dropped=40),
        SampleFacts(AGENT, 0, COUNTERS, sources=1, lost=2, dropped=0),
        SampleFacts(AGENT, 0, DISCARDED, sources=1, lost=0, dropped=1),
        SampleFacts("2001:db8::1", 7, FLOW, sources=1, lost=0, dropped=2),
    ]


def test_a_number_means_something_to_its_source_alone() -> None:
    """Sources of one index and different class, and compact sources of large index, are different ones."""
    sources = [(0, 3), (1, 3), (2, 3), (0, 3 + (1 << 24))]
    samples = [Sample(1000 * place + at, source=source) for place, source in enumerate(sources) for at in (0, 1)]
    assert of(heard(samples)) == SampleFacts(AGENT, 0, FLOW, sources=4, lost=0, dropped=0)


def test_a_restarted_agent_loses_nothing() -> None:
    """Numbers and drops begin anew with its uptime."""
    before = [Sample(at, drops=4_000_000_000 + at, uptime_ms=10**9) for at in range(5000, 5003)]
    after = [Sample(at, drops=at, uptime_ms=100 * at) for at in range(1, 4)]
    for rounds in ([before, [], after], [before, after], [[*before, *after]], [[*after, *before]]):
        facts = of(heard([Sample(4999, drops=4_000_004_999, uptime_ms=10**9)], *rounds))
        assert (facts.lost, facts.dropped) == (0, 3 + 2), rounds


def test_a_source_that_tells_rarely_is_told_twice() -> None:
    """Counter samples every half a minute over two ways, of which one is two rounds slower."""
    rounds: list[list[Sample]] = []
    for at in range(1, 20):
        sample = Sample(at, kind=COUNTERS, uptime_ms=30_000 * at)
        rounds += [[sample], [], [sample], [], [], []]
    assert of(heard(*rounds), COUNTERS).lost == 0


@pytest.mark.parametrize("most_blocks", [1, 10, 10_000])
def test_samples_that_are_spread_at_random_over_workers_are_put_together(most_blocks: int) -> None:
    """Each worker sees numbers with gaps; together they have none but those that are meant."""
    chance = random.Random(7)
    workers = [GatheredSamples() for _ in range(4)]
    sources = DataSources(most_blocks=most_blocks)
    gone = {10, 63, 64, 65, 500, 998}
    for begin in range(0, 1000, 50):
        for at in range(begin, begin + 50):
            for source in (1, 2):
                if at not in gone:
                    sample = Sample(WRAP - 300 + at, drops=WRAP - 10 + at, source=(0, source), uptime_ms=1000 + at)
                    chance.choice(workers).add(numbered([sample]))
        for worker in workers:
            told = worker.take()
            if told is not None:
                sources.hear(told)
        sources.settle()
    sources.settle(everything=True)
    assert of(sources) == SampleFacts(AGENT, 0, FLOW, sources=2, lost=2 * len(gone), dropped=2 * 999)


def test_a_flood_of_blocks_is_counted_before_its_time() -> None:
    """An agent whose numbers leap fills no memory: what is gathered is bounded, and its leaps are lost samples."""
    sources = DataSources(most_blocks=50)
    for begin in range(0, 2000, 100):
        sources.hear(gathered([Sample(100 * at, uptime_ms=1000 + at) for at in range(begin, begin + 100)]))
        assert sources._blocks <= 50
    sources.settle(everything=True)
    assert of(sources).lost == 1999 * 99


# --- bounds


def test_samples_of_sources_without_room_are_counted() -> None:
    """The table keeps those that it has, and counts them on."""
    sources = DataSources(limit=2)
    heard(
        [Sample(at, source=(0, source)) for at in (1, 2, 4) for source in (1, 2, 3)],
        [Sample(9, source=(0, source)) for source in (1, 3)],
        sources=sources,
    )
    assert (len(sources), sources.unlisted) == (2, 3 + 1)
    assert of(sources) == SampleFacts(AGENT, 0, FLOW, sources=2, lost=1 + 1 + 4, dropped=0)


def test_quiet_sources_give_way_and_what_they_counted_stays() -> None:
    """Interfaces of containers come and go: new ones take the places of those of which nothing is heard any more."""
    sources = DataSources(limit=3, quiet_rounds=4)
    for generation in range(10):
        old = [Sample(at, source=(3, generation), drops=at) for at in (1, 2, 4)]
        new = [Sample(at, source=(3, 1000 + generation), drops=at) for at in (1, 3)]
        steady = [Sample(generation, source=(0, 1))]
        heard([*old, *steady, *new], *[[] for _ in range(6)], sources=sources)
    assert len(sources) == 3
    assert sources.unlisted == 0
    assert of(sources) == SampleFacts(AGENT, 0, FLOW, sources=3, lost=10 * (1 + 1), dropped=10 * (3 + 2))


def test_sources_that_are_heard_do_not_give_way() -> None:
    """Even when they were quiet for long before, as long as they are heard with those that want their place."""
    sources = DataSources(limit=2, quiet_rounds=2)
    heard([Sample(1, source=(0, 1)), Sample(1, source=(0, 2))], [], [], [], [], sources=sources)
    heard([Sample(3, source=(0, 1)), Sample(1, source=(0, 3)), Sample(1, source=(0, 4))], sources=sources)
    assert (len(sources), sources.unlisted) == (2, 1)
    assert of(sources).lost == 1


def test_agents_without_room_are_counted_together() -> None:
    """Their samples are, only not by whom."""
    sources = DataSources(agent_limit=1)
    heard([Sample(at, agent=f"10.0.0.{agent}") for agent in range(3) for at in (1, 3)], sources=sources)
    assert sources.facts() == [
        SampleFacts(OTHER, 0, FLOW, sources=2, lost=2, dropped=0),
        SampleFacts("10.0.0.0", 0, FLOW, sources=1, lost=1, dropped=0),
    ]


def test_nothing_heard_is_nothing_known() -> None:
    """To settle without having heard anything tells nothing."""
    assert heard([], []).facts() == []


# --- in any order


@settings(deadline=None)
@given(
    first=st.one_of(st.integers(0, WRAP - 1), st.integers(WRAP - 60, WRAP - 1)),
    first_drops=st.one_of(st.just(0), st.integers(0, WRAP - 1), st.integers(WRAP - 20, WRAP - 1)),
    drops=st.lists(st.integers(0, 9), min_size=2, max_size=50),
    missing=st.sets(st.integers(1, 48)),
    kinds=st.lists(st.sampled_from(SampleKind), min_size=1, max_size=3),
    rounds=st.integers(1, 5),
    data=st.data(),
)
def test_the_counts_are_exact_in_any_order(
    first: int,
    first_drops: int,
    drops: list[int],
    missing: set[int],
    kinds: list[SampleKind],
    rounds: int,
    data: st.DataObject,
) -> None:
    """However samples are shuffled, repeated, and split over batches, workers and rounds, the counts are the same.

    As long as none is more than a round late. The first and the last are there: without them nobody knows.
    """
    sent = []
    for place, kind in enumerate(kinds):
        total = first_drops
        for at, more in enumerate(drops):
            total += more
            sent.append(Sample(first + at, total, source=(0, place), kind=kind, uptime_ms=10_000 + 10 * at))
    gone = {one for one in missing if one < len(drops) - 1}
    plan: list[list[Sample]] = [[] for _ in range(rounds + 1)]
    for sample in sent:
        at = (sample.sequence - first) % WRAP
        if at not in gone:
            turn = at * rounds // len(drops)
            for _ in range(data.draw(st.integers(1, 2))):
                plan[turn + data.draw(st.integers(0, 1))].append(sample)
    sources, workers = DataSources(), [GatheredSamples(), GatheredSamples()]
    for content in plan:
        order = data.draw(st.permutations(content))
        split = data.draw(st.integers(0, len(order)))
        for worker, part in zip(workers, (order[:split], order[split:]), strict=True):
            half = len(part) // 2
            worker.add(numbered(part[:half]))
            worker.add(numbered(part[half:]))
            told = worker.take()
            if told is not None:
                sources.hear(told)
        sources.settle()
    sources.settle(everything=True)
    lost, dropped, count = Counter[SampleKind](), Counter[SampleKind](), Counter(kinds)
    for one in sources.facts():
        assert one.sources == count[one.kind]
        lost[one.kind] += one.lost
        dropped[one.kind] += one.dropped
    assert lost == {kind: len(gone) * times for kind, times in count.items()}
    assert dropped == {kind: sum(drops[1:]) * times * (kind is not COUNTERS) for kind, times in count.items()}
    assert sources.unlisted == 0
