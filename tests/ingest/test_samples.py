from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decoders.sflow_elements import WITH_DROPS, SampleKind
from ingest.exporters import address_text
from ingest.samples import BLOCK, GatheredSamples, SampleBlocks
from tests.ingest.observations import WRAP
from tests.ingest.sampled import AGENT, COUNTERS, DISCARDED, FLOW, Sample, gathered, numbered


@dataclass(frozen=True, slots=True)
class Block:
    """A block as plain values: whose it is, which numbers came, and what its lowest and highest sample told of drops."""

    agent: str
    sub_agent: int
    kind: SampleKind
    source: tuple[int, int]
    numbers: tuple[int, ...]
    first_drops: int
    last_drops: int
    uptime_ms: int


def told(blocks: SampleBlocks | None) -> list[Block]:
    """What a worker told, in the order of sources and numbers. The numbers at the ends agree with what came."""
    found = []
    for at in range(len(blocks or ())):
        assert blocks is not None
        sources, one = blocks.sources, blocks.blocks
        begin, came = BLOCK * int(one.block[at]), int(one.came[at])
        numbers = tuple(begin + place for place in range(BLOCK) if came >> place & 1)
        lowest, highest = int(one.lowest[at]), int(one.highest[at])
        assert (begin + (lowest >> 32), begin + (highest >> 32)) == (numbers[0], numbers[-1])
        found.append(
            Block(
                agent=address_text(sources.agent[at].tobytes()),
                sub_agent=int(sources.sub_agent[at]),
                kind=SampleKind(sources.kind[at]),
                source=(int(sources.source_class[at]), int(sources.source_index[at])),
                numbers=numbers,
                first_drops=lowest % WRAP,
                last_drops=highest % WRAP,
                uptime_ms=int(one.uptime_ms[at]),
            )
        )
    return sorted(found, key=lambda one: (one.agent, one.sub_agent, one.kind, one.source, one.numbers))


def came(blocks: Iterable[Block]) -> set[tuple[SampleKind, tuple[int, int], int]]:
    """Every sample that came, by kind, source and number."""
    return {(one.kind, one.source, number) for one in blocks for number in one.numbers}


def test_what_came_of_a_source_is_one_block() -> None:
    """However many batches it comes in, and in whatever order; with the drops at both ends."""
    worker = GatheredSamples()
    for at in (9, 7, 12, 8, 9):
        worker.add(numbered([Sample(at, drops=100 + at, uptime_ms=1000 * at)]))
    assert told(worker.take()) == [Block(AGENT, 0, FLOW, (0, 3), (7, 8, 9, 12), 107, 112, 12_000)]
    assert worker.take() is None


def test_a_batch_is_no_other_than_its_samples_one_by_one() -> None:
    """Out of order, over the ends of blocks and of the numbers, of several sources at once."""
    samples = [
        Sample(at, drops=at, source=(0, source), uptime_ms=source)
        for at in (WRAP - 2, WRAP - 1, WRAP, 3, 1, 64, 63, 65, 2)
        for source in (1, 2)
    ]
    worker = GatheredSamples()
    for one in samples:
        worker.add(numbered([one]))
    one_by_one = told(worker.take())
    assert came(one_by_one) == {(FLOW, one.source, one.sequence % WRAP) for one in samples}
    assert came(told(gathered(samples))) == came(one_by_one)


def test_a_batch_that_is_out_of_order_has_its_ends() -> None:
    """Within a block the first and the last by their numbers tell of drops, not those that came first and last."""
    samples = [Sample(at, drops=at, source=(0, source)) for at in (3, 1, 63, 0, 2) for source in (1, 2)]
    assert told(gathered(samples)) == [
        Block(AGENT, 0, FLOW, (0, source), (0, 1, 2, 3, 63), 0, 63, 3_600_000) for source in (1, 2)
    ]


def test_agents_sources_and_kinds_have_blocks_of_their_own() -> None:
    """Samples of one number are different ones when anything of whose they are differs."""
    one = Sample(5, agent="2001:db8::1", sub_agent=2)
    others = [
        replace(one, agent="2001:db8::2"),
        replace(one, sub_agent=3),
        replace(one, source=(1, 3)),
        replace(one, source=(0, 4)),
        replace(one, source=(2**32 - 1, 2**32 - 1)),
        replace(one, kind=COUNTERS),
        replace(one, kind=DISCARDED),
    ]
    found = told(gathered([one, *others, one]))
    assert len(found) == 1 + len(others)
    assert {(sample.agent, sample.sub_agent, sample.kind, sample.source) for sample in (one, *others)} == {
        (block.agent, block.sub_agent, block.kind, block.source) for block in found
    }


def test_counter_samples_have_no_drops() -> None:
    """They do not tell."""
    assert [(one.first_drops, one.last_drops) for one in told(gathered([Sample(1, drops=9, kind=COUNTERS)]))] == [
        (0, 0)
    ]


def test_more_sources_than_are_remembered_lose_nothing() -> None:
    """The memory of sources is emptied when it is full, and what was gathered is told all the same."""
    worker = GatheredSamples(limit=3)
    sent = [Sample(at, source=(0, source)) for at in range(4) for source in range(10)]
    for begin in range(0, len(sent), 8):
        worker.add(numbered(sent[begin : begin + 8]))
    assert came(told(worker.take())) == {(FLOW, one.source, one.sequence) for one in sent}


def test_what_is_gathered_is_bounded() -> None:
    """A source whose numbers leap has many blocks; the worker is told when it should pass them on."""
    worker = GatheredSamples(most_blocks=100)
    full = [worker.add(numbered([Sample(BLOCK * at)])) for at in range(300)]
    assert full.index(True) == 101
    assert len(worker.take() or ()) == 300
    assert not worker.add(numbered([Sample(1000)]))


def test_more_than_65536_sources_are_told_apart() -> None:
    """Sources are brought together by their number, which then has more than 16 bits."""
    sent = [Sample(at, source=(0, source)) for at in (5, 6) for source in range(70_000)]
    found = told(gathered(sent))
    assert {one.numbers for one in found} == {(5, 6)}
    assert [one.source[1] for one in found] == list(range(70_000))


def test_an_empty_batch_is_nothing() -> None:
    """Nothing is told where no sample came."""
    worker = GatheredSamples()
    assert not worker.add(numbered([]))
    assert worker.take() is None


SAMPLES = st.lists(
    st.builds(
        Sample,
        sequence=st.one_of(st.integers(0, 12), st.integers(60, 70), st.integers(WRAP - 6, WRAP - 1)),
        source=st.sampled_from([(0, 1), (0, 2), (3, 1)]),
        kind=st.sampled_from(SampleKind),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(batches=st.lists(SAMPLES, max_size=5), limit=st.integers(1, 12), take=st.sets(st.integers(0, 4)))
def test_what_is_told_is_what_came_and_nothing_else(
    batches: Sequence[Sequence[Sample]], limit: int, take: set[int]
) -> None:
    """In any order, with any repetition, and however small the memory is; drops are those of the samples at the ends."""
    worker = GatheredSamples(limit=limit)
    sent = [[replace(one, drops=7 * one.sequence, uptime_ms=one.sequence) for one in batch] for batch in batches]
    found: list[Block] = []
    for at, batch in enumerate(sent):
        worker.add(numbered(batch))
        if at in take:
            found += told(worker.take())
    found += told(worker.take())
    assert came(found) == {(one.kind, one.source, one.sequence) for batch in sent for one in batch}
    for block in found:
        drops = [7 * number % WRAP * (block.kind in WITH_DROPS) for number in block.numbers]
        assert (block.first_drops, block.last_drops) == (drops[0], drops[-1])
        assert block.uptime_ms == block.numbers[-1]
