from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.assembly import Assembly, Batch, Held, decode_batch
from forwarder.config import CutConfig
from forwarder.consumer import Partition
from forwarder.course import Course, Epoch
from forwarder.cut import Message
from shared import codec
from shared.record import SCHEMA
from tests.fakes import TOPIC_ID
from tests.forwarder.records import flows, shape

SHAPE = shape(CutConfig(interval_ms=1000, max_records=10, max_bytes=10_000))


def assembly(start: int = 0) -> Assembly:
    """A partition that is read from an offset on."""
    return Assembly(Partition(2, TOPIC_ID, start, start, start, start, Course([Epoch(start, SHAPE)])))


def held(offset: int, append_ms: int, records: int, value: bytes = b"") -> Held:
    """A message that was read."""
    return Held(Message(offset, append_ms, records, len(value)), value)


def encoded(batch: pa.RecordBatch) -> bytes:
    """The value of a message of these records."""
    return bytes(codec.encode(batch))


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 12)), max_size=40))
def test_a_batch_has_the_messages_of_its_range(steps: list[tuple[int, int]]) -> None:
    """Each batch holds exactly the messages whose offsets its token names, in order."""
    ours, now, closed = assembly(), 0, []
    for offset, (step, records) in enumerate(steps):
        now += step
        closed += ours.push(held(offset, now, records))
    for batch in closed:
        assert [one.facts.offset for one in batch.messages] == list(range(batch.token.start, batch.token.end))
        assert batch.records == sum(one.facts.records for one in batch.messages)
    assert [one.facts.offset for one in ours.open] == list(range(ours.cutter.start, len(steps)))
    assert ours.records == sum(records for _, records in steps)


def three() -> tuple[Assembly, list[Batch]]:
    """Three batches of one message each, and an open one."""
    ours = assembly(5)
    batches = [batch for offset in range(5, 9) for batch in ours.push(held(offset, offset * 1000, 1))]
    return ours, batches


@pytest.mark.parametrize(
    ("order", "acknowledged"),
    [((), 5), ((0,), 6), ((1,), 5), ((1, 0), 7), ((2, 1), 5), ((2, 1, 0), 8), ((0, 2), 6)],
    ids=str,
)
def test_the_lowest_cut_that_is_not_acknowledged_is_what_may_be_committed(
    order: tuple[int, ...], acknowledged: int
) -> None:
    """An acknowledgement counts for the commit only when those before it have come."""
    ours, batches = three()
    for number in order:
        ours.acknowledge(batches[number])
    assert ours.partition.acknowledged == acknowledged
    assert ours.ahead == len(order) - (acknowledged - 5)
    assert ours.records == 4 - len(order)
    oldest = next(number for number in range(4) if number not in order)
    assert ours.oldest_ms == (5 + oldest) * 1000


def test_expired_messages_end_the_open_batch_where_it_was_read_to() -> None:
    """When the log's start has passed us, what was read before is a batch of its own, and the next begins there."""
    ours = assembly()
    for offset in range(3):
        ours.push(held(offset, 0, 1))
        ours.partition.position = offset + 1
    (before,), gone = ours.skip(100)
    assert gone == 97
    assert (before.token.start, before.token.end, before.records) == (0, 3, 3)
    (after,) = [batch for offset in (100, 101) for batch in ours.push(held(offset, offset * 1000, 1))]
    assert (after.token.start, after.token.end) == (100, 101)
    (last,), _ = ours.skip(200)
    assert last.token.start == 101


def test_expired_messages_that_were_delivered_before_are_no_loss() -> None:
    """While it reads again what was delivered, the log's start may pass it: only what lies behind the cut is gone."""
    ours = assembly(50)
    ours.partition.position = 20
    assert ours.skip(40) == ([], 0)
    assert ours.cutter.start == 50
    assert ours.skip(53) == ([], 3)
    assert [ours.remembers(offset) for offset in (52, 53)] == [True, False]


def test_another_shape_begins_where_a_batch_of_the_former_one_ends() -> None:
    """The batch that ends at or behind the planned offset is the last of the former shape."""
    other = shape(CutConfig(interval_ms=1000, max_records=2, max_bytes=10_000))
    ours = Assembly(Partition(2, TOPIC_ID, 0, 0, 0, 0, Course([Epoch(0, SHAPE), Epoch(4, other)])))
    closed = [batch for offset in range(12) for batch in ours.push(held(offset, offset * 300, 1))]
    told = [(batch.token.start, batch.token.end, batch.shape) for batch in closed]
    assert told == [(0, 4, SHAPE), (4, 6, other), (6, 7, other), (7, 9, other), (9, 10, other), (10, 12, other)]


def test_nothing_open_leaves_nothing_when_messages_expire() -> None:
    """Without an open batch, going on elsewhere makes none."""
    ours = assembly()
    assert ours.skip(50) == ([], 50)
    assert ours.cutter.start == 50


def test_a_message_that_cannot_be_read_ends_the_interval_before_it() -> None:
    """What was read before an unreadable message of a later interval is a batch, and the partition has its age."""
    ours = assembly()
    ours.push(held(0, 500, 1))
    assert ours.reach(1, 900) == []
    (batch,) = ours.reach(1, 1000)
    assert (batch.token.start, batch.token.end) == (0, 1)
    ours.acknowledge(batch)
    assert ours.oldest_ms is None
    ours.stopped_ms = 1000
    assert ours.oldest_ms == 1000


def test_a_batch_becomes_one_table_of_all_its_messages() -> None:
    """Messages of different columns are merged; heartbeats add nothing."""
    messages = [
        held(0, 0, 2, encoded(flows([1, 2]))),
        held(1, 0, 0),
        held(2, 0, 1, encoded(flows([3], src_port=[443]))),
    ]
    decoded = decode_batch(messages)
    assert decoded.corrupt == ()
    assert decoded.table["record_id"].to_pylist() == [1, 2, 3]
    assert decoded.table["src_port"].to_pylist() == [None, None, 443]
    assert all(column.num_chunks == 1 for column in decoded.table.columns)


def test_unknown_columns_are_left_out_and_missing_ones_are_missing() -> None:
    """A message of a newer producer is read as far as its columns are known; so is one of an older."""
    newer = pa.table(
        {
            "record_id": pa.array([1], pa.uint64()),
            "quantum_state": pa.array(["up"], pa.utf8()),
            "bytes": pa.array([9], pa.uint64()),
        }
    ).to_batches()[0]
    older = pa.table({"record_id": pa.array([2], pa.uint64())}).to_batches()[0]
    table = decode_batch([held(0, 0, 1, encoded(newer)), held(1, 0, 1, encoded(older))]).table
    assert table.to_pylist() == [{"record_id": 1, "bytes": 9}, {"record_id": 2, "bytes": None}]


def _twice() -> bytes:
    column = pa.array([1], pa.uint64())
    return encoded(pa.RecordBatch.from_arrays([column, column], names=["bytes", "bytes"]))


def _beyond_its_dictionary() -> bytes:
    kind = SCHEMA.field("type").type
    column = pa.DictionaryArray.from_arrays(pa.array([5], pa.int32()), pa.array(["IPFIX"]), safe=False)
    return encoded(pa.RecordBatch.from_arrays([column.cast(kind)], names=["type"]))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"garbage", id="garbage"),
        pytest.param(encoded(flows([9]))[:-300], id="cut off"),
        pytest.param(encoded(pa.RecordBatch.from_pydict({"bytes": ["9"]})), id="a column of another type"),
        pytest.param(_twice(), id="a column twice"),
        pytest.param(_beyond_its_dictionary(), id="an index beyond its dictionary"),
        pytest.param(b"", id="nothing where records were promised"),
    ],
)
def test_a_message_that_cannot_be_decoded_costs_only_itself(value: bytes) -> None:
    """What is wrong with one message is told with its reason, and the others of the batch are there."""
    good = encoded(flows([1, 2]))
    broken = held(1, 0, 1, value)
    decoded = decode_batch([held(0, 0, 2, good), broken, held(2, 0, 2, good)])
    assert decoded.table["record_id"].to_pylist() == [1, 2, 1, 2]
    ((found, reason),) = decoded.corrupt
    assert found is broken
    assert reason


@given(st.binary(max_size=400), st.integers(0, 10_000), st.integers(0, 255))
def test_no_bytes_of_a_message_make_decoding_raise(noise: bytes, at: int, byte: int) -> None:
    """Whatever a message holds, decoding a batch returns; what is read is sound."""
    broken = bytearray(encoded(flows([1, 2, 3])))
    broken[at % len(broken)] = byte
    decoded = decode_batch([held(0, 0, 1, noise), held(1, 0, 3, bytes(broken))])
    decoded.table.validate(full=True)
