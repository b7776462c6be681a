"""A replay makes the batches that the live run made, from wherever in the log it begins."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from forwarder.config import AggregateConfig, CutConfig, DedupConfig, ExactDedupConfig, FlowDedupConfig
from forwarder.cut import Token
from forwarder.replay.plan import Leg, RefusedError, Span, plan
from forwarder.replay.run import Pace, Replay
from forwarder.replay.selection import Selection
from forwarder.shape import Shape
from shared import codec
from tests.fakes import TOPIC_ID
from tests.forwarder.records import flows, shape
from tests.forwarder.replay.topic import Backend, Group, Topic, same

EVERYTHING = Selection()
ADDRESSES = [bytes(15) + bytes([last]) for last in range(4)]


def of(interval_ms: int, records: int, dedup: DedupConfig, aggregate: AggregateConfig | None = None) -> Shape:
    """A shape that cuts so."""
    return shape(CutConfig(interval_ms=interval_ms, max_records=records), 40, dedup, aggregate)


EXACT = ExactDedupConfig(window_seconds=200)
LEASE = FlowDedupConfig(policy="lease", lease_seconds=300, action="drop")
SHAPES = [
    of(100_000, 100, DedupConfig(exact=EXACT)),
    of(70_000, 7, DedupConfig(exact=None)),
    of(250_000, 4, DedupConfig(exact=EXACT, flow=LEASE), AggregateConfig(keys=("src_addr",), keep_raw=True)),
    of(100_000, 3, DedupConfig(exact=None, flow=LEASE)),
]

MESSAGE = st.tuples(
    st.one_of(st.integers(0, 90_000), st.integers(-30_000, 400_000)),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3), st.integers(0, 3)), max_size=5),
    st.sampled_from([0, 0, 0, 0, 1, 3]),
)
RUN = st.tuples(
    st.integers(0, len(SHAPES) - 1),
    st.lists(MESSAGE, min_size=1, max_size=14),
    st.integers(0, 14),
    st.integers(0, 14),
    st.booleans(),
)
LAST = st.tuples(st.integers(0, len(SHAPES) - 1), st.lists(MESSAGE, min_size=8, max_size=30), st.just(30), st.just(30))


def append(topic: Topic, step_ms: int, records: list[tuple[int, int, int]], gap: int) -> None:
    """Append a message of records: ids, exporters and sources, or a heartbeat when there are none."""
    now = max(0, (topic.messages[0][-1].append_ms if topic.messages[0] else 1_000_000) + step_ms)
    if not records:
        topic.append(0, now, b"", codec.heartbeat_headers("test"), gap=gap)
        return
    batch = flows(
        [identity for identity, _, _ in records],
        sampler_address=[ADDRESSES[exporter] for _, exporter, _ in records],
        src_addr=[ADDRESSES[source] for _, _, source in records],
        dst_addr=[ADDRESSES[0]] * len(records),
        sampling_rate=[1] * len(records),
    )
    topic.append(0, now, bytes(codec.encode(batch)), codec.headers(len(records), "test"), gap=gap)


Last = tuple[int, list[tuple[int, list[tuple[int, int, int]], int]], int, int]
Run = tuple[int, list[tuple[int, list[tuple[int, int, int]], int]], int, int, bool]


def lived(topic: Topic, runs: list[Run]) -> Group:
    """What a group has delivered and committed after some runs, each with settings of its own."""
    group = Group()
    for choice, more, deliver, commit, clean in runs:
        for step_ms, records, gap in more:
            append(topic, step_ms, records, gap)
        group.live(topic, SHAPES[choice], deliver, commit, clean=clean)
    return group


def replayed(
    topic: Topic,
    legs: list[Leg],
    backend: Backend,
    until: Callable[[int], bool] = lambda _: False,
    selection: Selection = EVERYTHING,
) -> Replay:
    """Run a replay to its end, or until it shall stop after so many turns."""
    replay = Replay(legs, TOPIC_ID, reader=topic, target=backend, selection=selection, pace=Pace(None))
    replay.start()
    turns = 0
    while not replay.finished and not until(turns):
        replay.turn()
        turns += 1
        assert turns < 1000
    assert replay.stop(0.0)
    return replay


def expected(topic: Topic, group: Group, span: Span) -> set[Token]:
    """Tokens of batches that were delivered and committed, and that hold any message of a span."""
    assert group.committed is not None
    end = min(span.end, group.committed)
    offsets = [one.offset() for one in topic.there(0, span.start) if one.offset() < end]
    return {token for token in group.delivered if any(token.start <= offset < token.end for offset in offsets)}


@settings(max_examples=100)
@given(
    runs=st.lists(RUN, max_size=5),
    last=LAST,
    chunk=st.integers(1, 10),
    stop=st.integers(0, 12),
    data=st.data(),
)
def test_any_range_comes_out_as_it_was(runs: list[Run], last: Last, chunk: int, stop: int, data: st.DataObject) -> None:
    """**once**: whatever the settings were when, what is replayed has the names and the content of the first delivery.

    Messages are appended with gaps, by brokers whose clocks go back; runs are killed with batches that are delivered
    and not committed. A replay that is stopped and goes on delivers the same as one that is not. Where messages have
    expired it is refused, or right.
    """
    topic = Topic(chunk)
    group = lived(topic, [*runs, (*last, True)])
    assert group.committed is not None
    assume(group.committed > 0)
    begin = data.draw(st.integers(0, group.committed - 1), "begin")
    span = Span(begin, data.draw(st.integers(begin + 1, topic.ends[0]), "end"))
    topic.lows[0] = data.draw(st.one_of(st.just(0), st.integers(0, begin)), "low")
    try:
        legs = plan(topic, group.told, {0: span})
    except RefusedError:
        event("refused")
        assert topic.lows[0] > 0
        return
    backend = Backend()
    replayed(topic, legs, backend)
    event(f"delivered {min(4, len(backend.has))}")
    assert set(backend.has) == expected(topic, group, span)
    assert all(same(group.delivered[token], content) for token, content in backend.has.items())

    halves = Backend()
    first = replayed(topic, legs, halves, lambda turns: turns >= stop)
    reached = {number: strand.reached for number, strand in first.strands.items()}
    goes_on = [leg.number for leg in legs if reached[leg.number] > leg.first]
    rest = {leg.number: Span(reached[0] if goes_on else span.start, span.end) for leg in legs}
    replayed(topic, plan(topic, group.told, rest, goes_on=goes_on), halves)
    assert set(halves.has) == set(backend.has)
    assert all(same(backend.has[token], content) for token, content in halves.has.items())
