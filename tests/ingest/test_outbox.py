from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.outbox import LARGE_DICTIONARY, MESSAGES_AT_ONCE, MessageBounds, Outbox
from ingest.partition import partitions
from shared import codec
from shared.kafka import MAX_MESSAGE_BYTES
from shared.record import COLUMN, SCHEMA

NOW_NS = 1_000_000_000_000
ROOM = 1 << 30
MESSAGES = list[tuple[int, pa.RecordBatch]]

# What the decoders make of three templates: no two have the same columns.
LAYOUTS: Final = (
    ("type", "record_id", "src_addr", "dst_addr", "src_port", "dst_port", "proto", "bytes"),
    ("type", "record_id", "in_if_name", "user_name", "packets"),
    ("type", "record_id", "src_addr", "dst_addr", "application_id", "mpls_labels", "user_name"),
)


Value = int | str | bytes | list[int] | None
VALUES: Final[dict[str, Callable[[int], Value]]] = {
    "type": lambda number: ("NETFLOW_V9", "IPFIX")[number % 2],
    "record_id": lambda number: number,
    "src_addr": lambda number: (number * 2_654_435_761 % 2**40).to_bytes(16, "big") if number % 7 else None,
    "dst_addr": lambda number: (number * 40_503 % 2**40).to_bytes(16, "big"),
    "in_if_name": lambda number: f"port {number % 200}" if number % 5 else None,
    "user_name": lambda number: f"user {number % 9}" if number % 5 else None,
    "application_id": lambda number: f"13:{number}" * (number % 4),
    "mpls_labels": lambda number: [number % 1_048_576] * (number % 3) if number % 6 else None,
}
"""Some value of a column: a function of a number."""


def small(number: int) -> Value:
    """A number for columns of numbers."""
    return number % 200


def records(numbers: Sequence[int], names: Sequence[str] = LAYOUTS[0], **columns: Sequence[Any]) -> pa.RecordBatch:
    """Records with these ids; the columns that are not given depend on the id alone."""
    content = {
        name: columns.get(name, [VALUES.get(name, small)(one) for one in numbers])
        for name in {**dict.fromkeys(names), **columns}
    }
    in_order = sorted(content, key=list(COLUMN).index)
    arrays = [
        pa.array(content[name], pa.utf8()).dictionary_encode()
        if pa.types.is_dictionary(SCHEMA.field(name).type)
        else pa.array(content[name], SCHEMA.field(name).type)
        for name in in_order
    ]
    return pa.record_batch(arrays, schema=pa.schema([pa.field(name, COLUMN[name].type) for name in in_order]))


def sent(batches: Sequence[pa.RecordBatch], partition_count: int = 1, **bounds: int) -> MESSAGES:
    """The messages that these batches become, when all are sent together."""
    outbox = Outbox(MessageBounds(**bounds), ROOM)
    for batch in batches:
        assert outbox.add(batch, NOW_NS)
    return list(outbox.take(partition_count))


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """What is not null of each record."""
    return [{name: one for name, one in row.items() if one is not None} for row in batch.to_pylist()]


# --- when


@pytest.mark.parametrize(
    ("number", "age_ns", "due"),
    [
        pytest.param(0, 10**12, False, id="nothing is never due"),
        pytest.param(1, 999, False, id="one record, younger than its age"),
        pytest.param(1, 1000, True, id="one record, at its age"),
        pytest.param(round(2 * 10 * MESSAGES_AT_ONCE) - 1, 0, False, id="a record less than so many"),
        pytest.param(round(2 * 10 * MESSAGES_AT_ONCE), 0, True, id="enough for well-filled messages of each partition"),
    ],
)
def test_records_are_sent_at_an_age_or_when_there_are_enough(number: int, age_ns: int, due: bool) -> None:
    """It is time when the oldest record is of its age, or when each partition has some full messages."""
    outbox = Outbox(MessageBounds(max_records=10, max_age_ns=1000), ROOM)
    if number:
        outbox.add(records(range(number)), NOW_NS)
    assert outbox.due(2, NOW_NS + age_ns) is due


def test_the_age_is_that_of_the_oldest_record() -> None:
    """What comes later does not make the oldest wait for longer; what comes after all was sent begins anew."""
    outbox = Outbox(MessageBounds(max_age_ns=1000), ROOM)
    outbox.add(records([1]), NOW_NS)
    outbox.add(records([2]), NOW_NS + 900)
    assert outbox.due(1, NOW_NS + 1000)
    list(outbox.take(1))
    outbox.add(records([3]), NOW_NS + 5000)
    assert not outbox.due(1, NOW_NS + 5999)
    assert outbox.due(1, NOW_NS + 6000)


# --- how much


@pytest.mark.parametrize(
    ("number", "sizes"),
    [
        pytest.param(999, [999], id="less than a message"),
        pytest.param(1000, [1000], id="a full message"),
        pytest.param(1001, [500, 501], id="one more than a message"),
        pytest.param(2500, [833, 833, 834], id="two and a half"),
    ],
)
def test_a_message_has_no_more_records_than_its_bound(number: int, sizes: list[int]) -> None:
    """What is more than a message becomes messages of about equal size, with none left over that is tiny."""
    assert [batch.num_rows for _, batch in sent([records(range(number))], max_records=1000)] == sizes


def test_a_message_has_no_more_bytes_than_its_bound() -> None:
    """Records that are large, but all alike, share as many messages as their bytes need, and no more."""
    batch = records(range(640), ("record_id", "application_id"), application_id=["x" * 1000] * 640)
    messages = [one for _, one in sent([batch], max_bytes=65_536)]
    assert max(one.nbytes for one in messages) <= 65_536
    assert len(messages) <= batch.nbytes / 65_536 + 2


def test_a_few_large_records_do_not_burst_the_message_of_the_others() -> None:
    """One exporter with very long texts among thousands of short records: every message is one that Kafka takes."""
    long = [30_000 if one % 100 < 10 and one >= 3000 else 3 for one in range(4000)]
    batch = records(range(4000), ("record_id",), application_id=["x" * size for size in long])
    messages = sent([batch], max_bytes=262_144)
    assert max(one.nbytes for _, one in messages) <= 262_144
    assert max(codec.encode(one).size for _, one in messages) < MAX_MESSAGE_BYTES
    assert Counter(one for _, message in messages for one in message["record_id"].to_pylist()) == Counter(range(4000))


def test_a_few_long_names_do_not_burst_the_message_of_the_others() -> None:
    """The same for names, which are in a dictionary: those of another message's records do not travel with it."""
    names = ["u" * 40_000 + str(one) if one < 60 else "root" for one in range(3000)]
    messages = sent([records(range(3000), ("record_id",), user_name=names)], max_bytes=262_144)
    assert max(codec.encode(one).size for _, one in messages) < MAX_MESSAGE_BYTES
    assert sum(one.num_rows for _, one in messages) == 3000


def test_a_record_larger_than_a_message_goes_alone() -> None:
    """It cannot be parted, so Kafka has the last word on it."""
    batch = records(range(3), ("record_id",), application_id=["short", "x" * 5000, "short"])
    sizes = [(one.num_rows, one.nbytes > 1024) for _, one in sent([batch], max_bytes=1024)]
    assert (1, True) in sizes
    assert all(number == 1 for number, large in sizes if large)


# --- what


def test_a_message_has_the_columns_of_its_records_alone() -> None:
    """Records of one layout get no column that they do not have."""
    for names in LAYOUTS:
        ((_, message),) = sent([records(range(5), names), records(range(5, 9), names)])
        assert set(message.schema.names) == set(names)


def test_records_of_several_layouts_share_messages() -> None:
    """They have the union of the columns, in the record's order, and null where a layout lacks one."""
    batches = [records(range(10 * at, 10 * at + 10), names) for at, names in enumerate(LAYOUTS)]
    ((_, message),) = sent(batches)
    assert message.schema.names == [name for name in COLUMN if any(name in names for names in LAYOUTS)]
    assert message.schema.types == [COLUMN[name].type for name in message.schema.names]
    by_id = {row["record_id"]: row for row in rows(message)}
    assert by_id == {row["record_id"]: row for batch in batches for row in rows(batch)}


def test_a_message_carries_the_names_that_its_records_use() -> None:
    """A large dictionary is cut down to what the message's records say; a small one may travel whole."""
    number = 40 * LARGE_DICTIONARY
    batch = records(
        range(number), ("record_id", "in_if_name"), in_if_name=[f"port {one // 4}" for one in range(number)]
    )
    messages = sent([batch], max_records=100)
    assert len(messages) > 20
    for _, message in messages:
        column = message.column("in_if_name")
        assert set(column.dictionary.to_pylist()) == set(column.to_pylist())
        assert column.to_pylist() == [f"port {one // 4}" for one in message["record_id"].to_pylist()]


@pytest.mark.parametrize("names", [["a"], ["a", None, "b"], [None], [f"{one}" for one in range(300)] + [None]])
def test_names_stay_what_they_were(names: list[str | None]) -> None:
    """Whatever is done to a dictionary, each record has its name, or none."""
    batch = records(range(len(names)), ("record_id",), user_name=names)
    found = {
        identity: name
        for _, message in sent([batch], max_records=50)
        for identity, name in zip(message["record_id"].to_pylist(), message["user_name"].to_pylist(), strict=True)
    }
    assert found == dict(enumerate(names))


# --- bounds


def test_what_is_over_the_bound_is_refused_and_nothing_else_is_touched() -> None:
    """A full outbox says no, keeps what it has, and has room again when that was sent."""
    batch = records(range(100))
    outbox = Outbox(MessageBounds(), 2 * batch.nbytes + 1)
    assert [outbox.add(batch, NOW_NS) for _ in range(3)] == [True, True, False]
    assert (outbox.records, outbox.bytes) == (200, 2 * batch.nbytes)
    assert outbox.add(records([7]), NOW_NS) is False
    assert sum(message.num_rows for _, message in outbox.take(3)) == 200
    assert (outbox.records, outbox.bytes) == (0, 0)
    assert outbox.add(batch, NOW_NS)


def test_an_empty_outbox_gives_nothing() -> None:
    """To take twice, or after everything was forgotten, gives no message and raises nothing."""
    outbox = Outbox(MessageBounds(), ROOM)
    assert list(outbox.take(12)) == []
    outbox.add(records(range(10)), NOW_NS)
    outbox.clear()
    assert (outbox.records, outbox.bytes, outbox.due(12, NOW_NS * 2)) == (0, 0, False)
    assert list(outbox.take(12)) == []


# --- all of it


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(LAYOUTS), st.integers(1, 60)), max_size=8),
    st.integers(1, 20),
    st.integers(1, 50),
    st.integers(64, 4096),
)
def test_nothing_is_lost_or_doubled_or_goes_astray(
    parts: list[tuple[tuple[str, ...], int]], partition_count: int, max_records: int, max_bytes: int
) -> None:
    """Whatever comes in, each record goes out once, as it was, to its own partition, in messages within their bounds."""
    number = count()
    batches = [records([next(number) for _ in range(size)], names) for names, size in parts]
    messages = sent(batches, partition_count, max_records=max_records, max_bytes=max_bytes)
    for partition, message in messages:
        assert 0 < message.num_rows <= max_records
        assert set(partitions(message, partition_count).tolist()) == {partition}
        assert message.equals(codec.decode(codec.encode(message)).to_batches()[0])
    came = [row for _, message in messages for row in rows(message)]
    assert len(came) == sum(batch.num_rows for batch in batches)
    assert {row["record_id"]: row for row in came} == {
        row["record_id"]: row for batch in batches for row in rows(batch)
    }
