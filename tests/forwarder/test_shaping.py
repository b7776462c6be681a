from __future__ import annotations

import pyarrow as pa
import pytest

from forwarder.assembly import Decoded, Held, decode_batch
from forwarder.config import AggregateConfig, CutConfig, DedupConfig, ExactDedupConfig, FlowDedupConfig
from forwarder.cut import Message
from forwarder.shape import Shape, shape_of
from forwarder.shaping import Shaped, Shaper
from shared import codec
from tests.fakes import TOPIC_ID
from tests.forwarder.records import flows, shape

CUT = CutConfig()
PLAIN = shape(CUT)


def batch(*messages: pa.RecordBatch, append_ms: int = 0) -> Decoded:
    """A batch of messages that were appended at one time."""
    values = [bytes(codec.encode(one)) for one in messages]
    held = [Held(Message(at, append_ms, 0, len(value)), value) for at, value in enumerate(values)]
    return decode_batch(held)


def shaped(of: Shape, *batches: Decoded) -> list[Shaped]:
    """What is delivered of these batches, one after the other."""
    shaper = Shaper([of], TOPIC_ID)
    return [shaper.shape(of, one) for one in batches]


def with_flow(flow: FlowDedupConfig) -> Shape:
    """A shape that deals with flows so."""
    return shape(CUT, dedup=DedupConfig(flow=flow))


def ids(table: pa.Table) -> list[int]:
    """The ids of a table's records."""
    return table["record_id"].to_pylist() if table.num_rows else []


def test_what_is_no_duplicate_is_delivered_as_it_came() -> None:
    """A batch in which nothing is repeated is the very table that was decoded: nothing is copied."""
    whole = batch(flows([1, 2, 3]))
    (one,) = shaped(PLAIN, whole)
    assert one.table is whole.table
    assert (one.exact, one.marked, one.dropped, one.sums) == (0, 0, 0, None)


def test_a_repeated_record_is_delivered_once() -> None:
    """Within a message, within a batch, and in a later batch: the first one in the log stays."""
    first, second = shaped(PLAIN, batch(flows([1, 2, 2]), flows([2, 3])), batch(flows([3, 4])))
    assert (ids(first.table), first.exact) == ([1, 2, 3], 2)
    assert (ids(second.table), second.exact) == ([4], 1)


def test_the_first_in_the_log_stays_where_messages_differ_in_their_columns() -> None:
    """Messages with other columns stand elsewhere in the table than in the log; what counts is the log."""
    wide = [flows([at, 10 + at], proto=[6, 17]) for at in (1, 2)]
    (one,) = shaped(PLAIN, batch(wide[0], flows([2, 7]), wide[1]))
    assert sorted(ids(one.table)) == [1, 2, 7, 11, 12]
    two = one.table.filter(pa.compute.equal(one.table["record_id"], 2))
    assert two["proto"].to_pylist() == [None]


def test_records_without_an_id_stay() -> None:
    """Nobody can tell whether they are repeated."""
    bare = pa.RecordBatch.from_pydict({"bytes": pa.array([1, 1], pa.uint64())})
    (one,) = shaped(PLAIN, batch(bare))
    assert (one.table.num_rows, one.unidentified) == (2, 2)


def test_dedup_can_be_left_out() -> None:
    """Without exact dedup a repeated record is delivered again."""
    (one,) = shaped(shape(CUT, dedup=DedupConfig(exact=None)), batch(flows([1, 1])))
    assert ids(one.table) == [1, 1]


def test_what_was_delivered_before_is_remembered() -> None:
    """Messages that are read again after an assignment are known, for every shape that is to come."""
    shorter = shape(CUT, dedup=DedupConfig(exact=ExactDedupConfig(window_seconds=4)))
    shaper = Shaper([PLAIN, shorter], TOPIC_ID)
    shaper.remember(batch(flows([1, 2])))
    assert ids(shaper.shape(PLAIN, batch(flows([2, 3]))).table) == [3]
    assert ids(shaper.shape(shorter, batch(flows([1, 3, 4]), append_ms=1000)).table) == [4]
    assert len(shaper) > 0
    assert shaper.nbytes > 0


def border() -> pa.RecordBatch:
    """Three records: in from outside, out to it, and within."""
    return flows(
        [1, 2, 3],
        in_if_boundary=["external", "internal", "internal"],
        out_if_boundary=["internal", "external", "internal"],
        flow_direction=[0, 0, 0],
    )


@pytest.mark.parametrize("action", ["mark", "drop"])
def test_what_does_not_count_at_the_border_is_marked_or_dropped(action: str) -> None:
    """The records of the border stay as they are; others are marked as duplicates, or left out."""
    flow = FlowDedupConfig.model_validate({"policy": "observation_point", "action": action})
    (one,) = shaped(with_flow(flow), batch(border()))
    if action == "mark":
        assert one.table["duplicate"].to_pylist() == [False, False, True]
        assert (one.marked, one.dropped) == (1, 0)
    else:
        assert ids(one.table) == [1, 2]
        assert (one.marked, one.dropped) == (0, 1)


@pytest.mark.parametrize("action", ["mark", "drop"])
def test_a_flow_that_another_exporter_has_is_marked_or_dropped(action: str) -> None:
    """The first exporter's record counts, and the second one's of the same flow does not."""
    address = [bytes(10) + b"\xff\xff" + bytes([192, 0, 2, last]) for last in (1, 2)]
    both = flows(
        [1, 2],
        sampler_address=address,
        src_addr=[address[0]] * 2,
        dst_addr=[address[1]] * 2,
        proto=[6, 6],
        src_port=[1000, 1000],
        dst_port=[443, 443],
        sampling_rate=[1, 1],
    )
    flow = FlowDedupConfig.model_validate({"policy": "lease", "action": action})
    of = shape(CUT, dedup=DedupConfig(flow=flow)).model_copy(update={"remembered_flows": 100})
    one, again = shaped(of, batch(both), batch(flows([2], sampler_address=address[1:])))
    assert (one.marked, one.dropped) == ((1, 0) if action == "mark" else (0, 1))
    assert (one.table["duplicate"].to_pylist() == [False, True]) if action == "mark" else ids(one.table) == [1]
    assert again.exact == 1


@pytest.mark.parametrize("keep_raw", [True, False])
def test_sums_go_beside_the_records_or_instead_of_them(keep_raw: bool) -> None:
    """What is added up is what is left after dedup."""
    of = shape(CUT, aggregate=AggregateConfig(keys=("proto",), keep_raw=keep_raw))
    (one,) = shaped(of, batch(flows([1, 2, 2], bytes=[10, 20, 20], proto=[6, 6, 6])))
    assert one.sums is not None
    assert one.sums["bytes"].to_pylist() == [30]
    assert one.table.num_rows == (2 if keep_raw else 0)
    assert one.exact == 1


def test_partitions_share_what_may_be_remembered() -> None:
    """Each partition has an equal part, wherever it is assigned: what one forwarder has must not change the outcome."""
    from forwarder.config import ForwarderConfig

    config = ForwarderConfig(dedup=DedupConfig(exact=ExactDedupConfig(max_records=1200)))
    assert [shape_of(config, "lake", partitions).remembered for partitions in (1, 12, 5000)] == [1200, 100, 1]
