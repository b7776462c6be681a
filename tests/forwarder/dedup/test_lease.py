from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.dedup.flowkey import FlowKeying
from forwarder.dedup.lease import LeaseDedup, LeaseRule
from shared.record import ADDRESS, SCHEMA
from tests.forwarder.dedup.logs import append_times, calls, cuts, restarts

ADDRESSES = tuple(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, last]) for last in range(1, 200))
ROUTERS = tuple(bytes(10) + b"\xff\xff" + bytes([198, 51, 100, last]) for last in range(1, 5))


class Seen(NamedTuple):
    """A record: its flow by a number, who exported it, and how it was metered; None where it does not tell."""

    flow: int | None
    exporter: int
    direction: int | None = None
    sampling: int | None = None


Message = tuple[int, list[Seen]]

SEEN = st.builds(
    Seen,
    st.one_of(st.integers(0, 8), st.integers(0, 8), st.integers(0, 60), st.none()),
    st.integers(0, 2),
    st.sampled_from([None, 0, 0, 1]),
    st.sampled_from([None, 1, 1, 1, 100]),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """Logs in which flows come from several exporters, again and again; some records are sampled or have no address."""
    return [(time, draw(st.lists(SEEN, max_size=10))) for time in draw(append_times())]


@st.composite
def rules(draw: st.DrawFn) -> LeaseRule:
    """Rules with leases and bounds that the logs above reach, and some that they do not."""
    return LeaseRule(draw(st.integers(1, 200)), draw(st.sampled_from([2, 6, 20, 40, 10_000])))


def table(records: Sequence[Seen]) -> pa.Table:
    """Such records as columns."""
    flows = [one.flow for one in records]
    return columns(
        src_addr=[None if flow is None else ADDRESSES[flow] for flow in flows],
        dst_addr=[ADDRESSES[100]] * len(records),
        sampler_address=[ROUTERS[one.exporter] for one in records],
        flow_direction=[one.direction for one in records],
        sampling_rate=[one.sampling for one in records],
    )


def columns(**content: Sequence[Any]) -> pa.Table:
    """A table of columns of the record."""
    return pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in content.items()})


def judge(dedup: LeaseDedup, log: Sequence[Message]) -> list[bool]:
    """Which records are duplicates, when these messages are judged together."""
    records = [one for _, message in log for one in message]
    duplicate, leases = dedup.apply(table(records), [(time, len(message)) for time, message in log])
    assert duplicate.null_count == 0
    assert leases.without_lease == sum(one.flow is None or (one.sampling or 1) > 1 for one in records)
    return [bool(one) for one in duplicate.to_pylist()]


def lived(rule: LeaseRule, log: Sequence[Message]) -> list[list[bool]]:
    """Which records are duplicates, message by message, by the rule told plainly: who was first, by term."""
    most = max(1, rule.max_flows // 2)
    largest = max(1, most // 4)
    first: dict[int, dict[int, tuple[int, bool]]] = {}
    closed: set[int] = set()
    latest, told = 0, []
    for time, message in log:
        leased = [at for at, one in enumerate(message) if one.flow is not None and (one.sampling or 1) <= 1]
        duplicate = [False] * len(message)
        for begin in range(0, len(leased), largest):
            part = leased[begin : begin + largest]
            latest = max(latest, time)
            term = latest // rule.lease_ms
            known = first.setdefault(term, {})
            if len(known) + len(part) > most:
                closed.add(term)
            for at in part:
                one = message[at]
                assert one.flow is not None
                observer = (one.exporter, one.direction == 1)
                if term not in closed:
                    known.setdefault(one.flow, observer)
                owner = first.get(term - 1, {}).get(one.flow) or known.get(one.flow)
                duplicate[at] = owner not in (None, observer)
        told.append(duplicate)
    return told


@given(logs(), rules(), st.data())
def test_the_answer_does_not_depend_on_how_messages_are_handed_over(
    log: list[Message], rule: LeaseRule, data: st.DataObject
) -> None:
    """Together, one by one or in any pieces: the same records are marked, those of the rule told plainly."""
    expected = [one for message in lived(rule, log) for one in message]
    for ends in ([len(log)], range(1, len(log) + 1), data.draw(cuts(len(log)))):
        dedup = LeaseDedup(rule, "topic")
        assert [one for part in calls(log, list(ends)) for one in judge(dedup, part)] == expected
        assert len(dedup) <= max(2, rule.max_flows)


@given(logs(), rules(), st.data())
def test_warmed_is_as_good_as_lived_through(log: list[Message], rule: LeaseRule, data: st.DataObject) -> None:
    """Whoever begins at any message, and remembers first what is asked for, judges as if it had been there all along.

    Remembering more than is asked for changes nothing either.
    """
    if not log:
        return
    at, begin = data.draw(restarts([time for time, _ in log], rule.oldest_needed))
    dedup = LeaseDedup(rule, "topic")
    for part in calls(log[begin:at], data.draw(cuts(at - begin))):
        dedup.warm(table([one for _, message in part for one in message]), [(time, len(one)) for time, one in part])
    expected = [one for message in lived(rule, log)[at:] for one in message]
    assert [one for part in calls(log[at:], data.draw(cuts(len(log) - at))) for one in judge(dedup, part)] == expected


@given(logs(), st.integers(1, 200))
def test_a_flow_has_one_owner_in_a_term_whose_records_all_stay(log: list[Message], lease_ms: int) -> None:
    """With room enough: of the records of a flow in one term, those of exactly one observer stay.

    If there was one in the term before, it is one of those that saw the flow then; it may be silent now.
    """
    marks = judge(LeaseDedup(LeaseRule(lease_ms, 10_000), "topic"), log)
    observers: dict[tuple[int, int], set[tuple[int, bool]]] = {}
    staying: dict[tuple[int, int], set[tuple[int, bool]]] = {}
    going: dict[tuple[int, int], set[tuple[int, bool]]] = {}
    latest = at = 0
    for time, message in log:
        for one in message:
            marked, at = marks[at], at + 1
            if one.flow is None or (one.sampling or 1) > 1:
                assert not marked
                continue
            latest = max(latest, time)
            key, observer = (latest // lease_ms, one.flow), (one.exporter, one.direction == 1)
            observers.setdefault(key, set()).add(observer)
            (going if marked else staying).setdefault(key, set()).add(observer)
    for term, flow in observers:
        stay, go = staying.get((term, flow), set()), going.get((term, flow), set())
        assert not stay & go
        assert len(stay) <= 1
        before = observers.get((term - 1, flow))
        assert stay <= before if before is not None else stay


def test_an_owner_that_goes_on_keeps_all_of_its_records() -> None:
    """A long flow that two routers export each minute: nothing of the first one's is marked, all of the other's is."""
    log = [(60_000 * minute, [Seen(1, 0), Seen(1, 1)]) for minute in range(300)]
    marks = judge(LeaseDedup(LeaseRule(120_000, 100), "topic"), log)
    assert marks == [False, True] * 300


def test_who_goes_on_alone_owns_the_flow_after_the_lease() -> None:
    """When the owner does not see the flow any more, the other is counted again two terms later at the latest."""
    dedup = LeaseDedup(LeaseRule(100, 100), "topic")
    log = [(50, [Seen(1, 0)]), (60, [Seen(1, 1)]), (150, [Seen(1, 1)]), (250, [Seen(1, 1)]), (350, [Seen(1, 1)])]
    assert judge(dedup, log) == [False, True, True, False, False]


def test_flows_without_room_stay_and_are_counted() -> None:
    """What could not be remembered is marked for nobody, and told; with the next term there is room again."""
    dedup = LeaseDedup(LeaseRule(1000, 8), "topic")
    crowd = [Seen(flow, 0) for flow in range(10)]
    duplicate, leases = dedup.apply(table(crowd), [(0, 10)])
    assert (duplicate.true_count, leases.without_room) == (0, 6)
    duplicate, leases = dedup.apply(table([Seen(0, 1), Seen(9, 1)]), [(10, 2)])
    assert (duplicate.to_pylist(), leases.without_room) == ([True, False], 1)
    assert dedup.apply(table([Seen(70, 0), Seen(70, 1)]), [(2000, 2)])[0].to_pylist() == [False, True]


def test_a_term_that_is_closed_stays_so() -> None:
    """A message that would fit behind one that did not makes no difference, whether they come together or not."""
    log = [(0, [Seen(flow, 0) for flow in range(begin, end)]) for begin, end in ((0, 4), (4, 8), (8, 12), (12, 14))]
    log += [(0, [Seen(flow, 0) for flow in range(20, 24)]), (0, [Seen(30, 0)]), (0, [Seen(30, 1), Seen(13, 1)])]
    together, apart = (LeaseDedup(LeaseRule(1000, 32), "topic") for _ in range(2))
    marks = [False] * 20 + [True]
    assert judge(together, log) == marks
    assert [one for message in log for one in judge(apart, [message])] == marks


def test_rows_that_are_out_of_order_are_judged_in_the_order_of_the_log() -> None:
    """Who was first is told by the log; the column that comes out is in the order of the table."""
    rows = np.array([2, 0, 1])
    duplicate, _ = LeaseDedup(LeaseRule(1000, 100), "topic").apply(
        table([Seen(1, 0), Seen(1, 1), Seen(1, 2)]), [(0, 3)], rows
    )
    assert duplicate.to_pylist() == [True, True, False]


def test_memory_follows_the_bound_and_not_the_log() -> None:
    """However many flows come, however their number changes, memory is bounded, and time gives it back."""
    most = 40_000
    dedup = LeaseDedup(LeaseRule(10_000, most), "topic")
    random = np.random.default_rng(1)
    for second in range(80):
        count = (500, 20_000, 30, 3_000)[second // 10 % 4]
        anyone = pa.Array.from_buffers(ADDRESS, count, [None, pa.py_buffer(random.bytes(16 * count))])
        dedup.apply(pa.table({"src_addr": anyone, "dst_addr": anyone}), [(1000 * second, count)])
        assert len(dedup) <= most
        assert dedup.nbytes <= 80 * most
    dedup.apply(table([Seen(1, 0)]), [(10_000_000, 1)])
    assert len(dedup) == 1
    assert dedup.nbytes < 20_000


def test_when_less_comes_memory_is_given_back() -> None:
    """A quiet term after a busy one takes little, though it was expected to be as busy."""
    dedup = LeaseDedup(LeaseRule(1000, 1_000_000), "topic")
    random = np.random.default_rng(1)
    for term, count in enumerate([50_000, 10, 10]):
        anyone = pa.Array.from_buffers(ADDRESS, count, [None, pa.py_buffer(random.bytes(16 * count))])
        dedup.apply(pa.table({"src_addr": anyone, "dst_addr": anyone}), [(1000 * term, count)])
    assert len(dedup) == 20
    assert dedup.nbytes < 20_000


BASE: dict[str, object] = {
    "src_addr": ADDRESSES[1],
    "dst_addr": ADDRESSES[2],
    "proto": 6,
    "src_port": 40000,
    "dst_port": 443,
    "sampler_address": ROUTERS[0],
}


def keyed(**other: object) -> tuple[int, int]:
    """The key of one record that differs from the base in some columns, and the key of who saw it."""
    content = {name: value for name, value in {**BASE, **other}.items() if value is not ...}
    keys = FlowKeying("topic").keys(columns(**{name: [value] for name, value in content.items()}))
    return int(keys.flows[0]), int(keys.seen_by[0])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"src_addr": ADDRESSES[3]}, id="source"),
        pytest.param({"dst_addr": ADDRESSES[3]}, id="destination"),
        pytest.param({"src_addr": ADDRESSES[2], "dst_addr": ADDRESSES[1]}, id="the other direction, but for ports"),
        pytest.param({"src_port": 443, "dst_port": 40000}, id="ports the other way"),
        pytest.param({"proto": 17}, id="protocol"),
        pytest.param({"ingress_vrf_id": 7}, id="VRF by id"),
        pytest.param({"ingress_vrf_name": "red"}, id="VRF by name"),
    ],
)
def test_other_flows_have_other_keys(other: dict[str, object]) -> None:
    """Whatever of the five, the direction or the routing domain differs."""
    assert keyed(**other)[0] != keyed()[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {"ingress_vrf_id": 0}, id="no VRF is VRF 0"),
        pytest.param({}, {"ingress_vrf_id": None, "ingress_vrf_name": None}, id="null is no VRF"),
        pytest.param({"src_port": None}, {"src_port": ...}, id="null is no column"),
        pytest.param({"src_port": None}, {"src_port": 0}, id="null is 0"),
        pytest.param(
            {"ingress_vrf_name": "red", "ingress_vrf_id": 1},
            {"ingress_vrf_name": "red", "ingress_vrf_id": 2},
            id="a VRF's id is the exporter's own when it has a name",
        ),
        pytest.param({"proto": 1, "dst_port": 2048}, {"proto": 1, "dst_port": 0}, id="ICMP has no ports"),
        pytest.param({"proto": 58, "src_port": 1}, {"proto": 58}, id="nor has ICMPv6"),
    ],
)
def test_the_same_flow_has_the_same_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    """However exporters tell what they have not got."""
    assert keyed(**one) == keyed(**other)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param({"sampler_address": ROUTERS[1]}, False, id="another exporter"),
        pytest.param({"flow_direction": 1}, False, id="egress"),
        pytest.param({"flow_direction": 0}, True, id="ingress is what none told is"),
        pytest.param({"observation_domain_id": 4}, True, id="domains are parts of an exporter"),
    ],
)
def test_an_observer_is_an_exporter_with_a_direction(other: dict[str, Any], *, same: bool) -> None:
    """The flow is the same for all of them."""
    assert keyed(**other)[0] == keyed()[0]
    assert (keyed(**other) == keyed()) is same


@given(
    st.lists(st.sampled_from([None, "red", "blue", ""]), min_size=1, max_size=20),
    st.lists(st.integers(0, 20)),
    st.data(),
)
def test_keys_do_not_depend_on_how_columns_are_kept(
    names: list[str | None], ends: list[int], data: st.DataObject
) -> None:
    """Chunks, dictionaries and slices of any kind give the keys of plain columns."""
    plain = columns(
        src_addr=[None if at % 5 == 4 else ADDRESSES[at] for at in range(len(names))],
        dst_addr=[ADDRESSES[100]] * len(names),
        ingress_vrf_name=names,
        src_port=[None if at % 3 else at for at in range(len(names))],
    )
    keys = FlowKeying("topic").keys(plain)
    bounds = sorted({0, len(names), *(end % (len(names) + 1) for end in ends)})
    parts = [plain.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    pieces = pa.concat_tables([pa.Table.from_pylist(part.to_pylist(), part.schema) for part in parts])
    again = FlowKeying("topic").keys(pieces)
    rows = np.array(data.draw(st.permutations(range(len(names)))), np.int64)
    for name in ("flows", "seen_by", "leased"):
        assert np.array_equal(getattr(again, name), getattr(keys, name))
        assert np.array_equal(getattr(FlowKeying("topic").keys(pieces, rows), name), getattr(keys, name)[rows])


def test_keys_of_a_slice_are_those_of_its_rows() -> None:
    """Its columns point into the memory of the whole."""
    whole = table([Seen(flow, flow % 3) for flow in range(8)])
    keys, part = FlowKeying("topic").keys(whole), FlowKeying("topic").keys(whole.slice(3, 2))
    assert np.array_equal(part.flows, keys.flows[3:5])
    assert np.array_equal(part.seen_by, keys.seen_by[3:5])


def test_what_lies_in_memory_behind_a_null_does_not_matter() -> None:
    """An exporter that is null is one exporter, whatever bytes its place has."""
    bare = pa.Array.from_buffers(ADDRESS, 2, [pa.py_buffer(b"\0"), pa.py_buffer(ROUTERS[0] + ROUTERS[1])])
    assert bare.null_count == 2
    some = table([Seen(1, 0), Seen(1, 1)])
    some = some.set_column(some.column_names.index("sampler_address"), "sampler_address", bare)
    seen_by = FlowKeying("topic").keys(some).seen_by
    assert seen_by[0] == seen_by[1]


def test_keys_follow_from_the_secret() -> None:
    """So that nobody who does not know it can choose flows that have one key."""
    some = table([Seen(1, 0)])
    assert FlowKeying("one").keys(some).flows != FlowKeying("another").keys(some).flows
