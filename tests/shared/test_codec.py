"""Columns to message and back: what a reader takes, and what it refuses."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import codec
from shared.codec import (
    CONTENT_TYPE,
    MOST_LOOKED,
    CorruptMessageError,
    decode,
    encode,
    headers,
    heartbeat_headers,
    merge,
    read_headers,
)
from shared.counters import COLUMN as COUNTER_COLUMN
from shared.errors import UnknownSchemaError
from shared.record import COLUMN, COLUMNS, SCHEMA, SCHEMA_VERSION
from tests.fuzz import looked_at

# --- batches of any columns


def values_of(type_: pa.DataType) -> st.SearchStrategy[object]:  # noqa: PLR0911  # one a type
    """Values that a column of this type may have."""
    if pa.types.is_dictionary(type_) or pa.types.is_string(type_):
        return st.text(max_size=6)
    if pa.types.is_unsigned_integer(type_):
        return st.integers(0, 2**type_.bit_width - 1)
    if pa.types.is_timestamp(type_):
        return st.integers(-(2**62), 2**62)
    if pa.types.is_fixed_size_binary(type_):
        return st.binary(min_size=type_.byte_width, max_size=type_.byte_width)
    if pa.types.is_list(type_):
        return st.lists(st.integers(0, 2**32 - 1), max_size=4)
    if pa.types.is_map(type_):
        return st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3).map(lambda one: list(one.items()))
    return st.booleans()


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """A batch of some of the record's columns, with nulls in them."""
    chosen = draw(st.lists(st.sampled_from(COLUMNS), unique_by=lambda column: column.name, min_size=1, max_size=8))
    count = draw(st.integers(0, 5))
    made = {
        column.name: draw(st.lists(st.none() | values_of(column.type), min_size=count, max_size=count))
        for column in sorted(chosen, key=lambda column: SCHEMA.get_field_index(column.name))
    }
    return pa.RecordBatch.from_arrays(
        [column_of(values, COLUMN[name].type) for name, values in made.items()], list(made)
    )


def column_of(values: list[object], type_: pa.DataType) -> pa.Array:
    """A column of these values."""
    if pa.types.is_dictionary(type_):
        return pa.array(values, pa.utf8()).dictionary_encode()
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, type_)


def batch(**made: list[object]) -> pa.RecordBatch:
    """A batch of columns of the record."""
    return pa.RecordBatch.from_arrays([column_of(made[name], COLUMN[name].type) for name in made], list(made))


def plain(table: pa.Table | pa.RecordBatch) -> dict[str, list[object]]:
    """Columns as lists; times as numbers."""
    return {
        name: (table.column(name).cast(pa.int64()) if pa.types.is_timestamp(table.schema.field(name).type) else
               table.column(name)).to_pylist()
        for name in table.schema.names
    }  # fmt: skip


@given(batches())
@looked_at(100, 5000)
def test_what_was_encoded_is_decoded(given_batch: pa.RecordBatch) -> None:
    """Every batch of any columns comes back as it was: names, order, types, values, nulls."""
    table = decode(encode(given_batch))
    table.validate(full=True)
    assert table.schema == given_batch.schema
    assert plain(table) == plain(given_batch)


def test_a_message_has_only_the_columns_that_its_batch_has() -> None:
    """Nothing is said of the other columns, and nothing of what any column means."""
    table = decode(encode(batch(type=["IPFIX"], bytes=[1])))
    assert table.schema.names == ["type", "bytes"]
    described = pa.RecordBatch.from_arrays([pa.array([1], pa.uint64())], schema=pa.schema([SCHEMA.field("bytes")]))
    assert decode(encode(batch(bytes=[1]))).schema.field("bytes").metadata is None
    assert encode(batch(bytes=[1])).size < encode(described).size


def test_a_message_carries_its_own_schema() -> None:
    """Two messages with other columns are each read by themselves."""
    one, other = encode(batch(bytes=[1])), encode(batch(type=["IPFIX"], packets=[2]))
    assert plain(decode(one)) == {"bytes": [1]}
    assert plain(decode(other)) == {"type": ["IPFIX"], "packets": [2]}


def test_bytes_and_buffers_are_read_alike() -> None:
    """A Kafka client gives bytes; an Arrow buffer does as well."""
    buffer = encode(batch(bytes=[1, None]))
    assert decode(buffer.to_pybytes()) == decode(buffer)


# --- what a reader of today does with messages of another day


def with_column(given_batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    """The batch with one column more."""
    return given_batch.append_column(name, values)


def test_a_column_that_is_not_known_is_left_out() -> None:
    """A later producer's column does not disturb: it is decoded with the rest, and merging leaves it out."""
    table = decode(encode(with_column(batch(bytes=[1, 2]), "of_tomorrow", pa.array(["a", "b"]))))
    assert table.num_rows == 2
    merged = merge([table, decode(encode(batch(bytes=[3])))])
    assert plain(merged) == {"bytes": [1, 2, 3]}


def test_a_message_of_nothing_known_still_has_its_rows() -> None:
    """Rows without a column that is known are rows: merged with others they are null in every column."""
    strange = decode(encode(pa.RecordBatch.from_arrays([pa.array([1, 2])], ["of_tomorrow"])))
    merged = merge([strange, decode(encode(batch(bytes=[3])))])
    assert sorted(merged.column("bytes").to_pylist(), key=str) == [3, None, None]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("bytes", pa.array([1], pa.int64()), id="signed"),
        pytest.param("bytes", pa.array([1], pa.uint32()), id="narrower"),
        pytest.param("src_addr", pa.array([b"abcd"], pa.binary()), id="binary of any length"),
        pytest.param("type", pa.array(["IPFIX"], pa.utf8()), id="text that is no dictionary"),
        pytest.param("time_received", pa.array([1], pa.timestamp("us", "UTC")), id="another unit"),
        pytest.param("time_received", pa.array([1], pa.timestamp("ns")), id="no zone"),
    ],
)
def test_a_column_of_another_type_is_refused(name: str, values: pa.Array) -> None:
    """A type never changes within a schema version: such a message is not ours, and the error says which column."""
    with pytest.raises(CorruptMessageError, match=name):
        decode(encode(pa.RecordBatch.from_arrays([values], [name])))


def test_a_column_that_stands_twice_is_refused() -> None:
    """Which of them would count nobody can say."""
    twice = pa.RecordBatch.from_arrays([pa.array([1], pa.uint64())] * 2, ["bytes", "bytes"])
    with pytest.raises(CorruptMessageError, match="bytes"):
        decode(encode(twice))


NO_MESSAGE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\0", id="one byte"),
    pytest.param(b"{}", id="JSON"),
    pytest.param(b"\xff" * 100, id="ones"),
    pytest.param(bytes(100), id="zeros"),
    pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(16), id="a length without end"),
]


@pytest.mark.parametrize("value", NO_MESSAGE)
def test_what_is_no_message_is_refused(value: bytes) -> None:
    """Bytes that are no Arrow stream raise one error, whatever they are."""
    with pytest.raises(CorruptMessageError):
        decode(value)


WHOLE = encode(
    batch(type=["IPFIX", "NETFLOW_V9", "IPFIX"], bytes=[1, None, 3], src_addr=[bytes(16), b"x" * 16, None])
).to_pybytes()


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_message_that_is_cut_off_is_refused_or_whole(length: int) -> None:
    """Wherever it ends: there is no table of half a batch."""
    try:
        table = decode(WHOLE[:length])
    except CorruptMessageError:
        return
    assert table.num_rows in {0, 3}
    table.validate(full=True)


@given(st.data())
@looked_at(300, 20_000)
def test_a_message_that_was_changed_is_refused_or_sound(data: st.DataObject) -> None:
    """Whichever bytes differ, either the error is ours, or the columns can be read without harm."""
    value = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        table = decode(bytes(value))
    except CorruptMessageError:
        return
    table.validate(full=True)


# --- headers


def test_headers_say_what_is_needed_before_reading() -> None:
    """Schema version, content type, number of records and producer, as bytes."""
    given_headers = headers(17, "ingest-0/2")
    assert given_headers == [
        ("schema", b"1"),
        ("content-type", b"application/vnd.apache.arrow.stream"),
        ("records", b"17"),
        ("producer", b"ingest-0/2"),
    ]
    info = read_headers(given_headers)
    assert (info.schema, info.content_type, info.records, info.heartbeat) == (SCHEMA_VERSION, CONTENT_TYPE, 17, False)


def test_a_heartbeat_says_that_it_is_one() -> None:
    """An empty message has no records, and a header of its own."""
    info = read_headers(heartbeat_headers("forwarder-0"))
    assert (info.schema, info.records, info.heartbeat) == (SCHEMA_VERSION, 0, True)


VERSIONS = [
    pytest.param(None, "no schema version", id="no headers"),
    pytest.param([], "no schema version", id="empty"),
    pytest.param([("records", b"1")], "no schema version", id="no version"),
    pytest.param([("schema", None)], "no schema version", id="null"),
    pytest.param([("schema", b"2")], "version 2", id="a later one"),
    pytest.param([("schema", b"0")], "version 0", id="an earlier one"),
    pytest.param([("schema", b"")], "schema version", id="no digits"),
    pytest.param([("schema", b"one")], "version one", id="a word"),
    pytest.param([("schema", b"-1")], "version -1", id="negative"),
    pytest.param([("schema", b"1.0")], "version 1.0", id="a fraction"),
    pytest.param([("schema", b"\xff\xfe")], "schema version", id="no text"),
    pytest.param([("schema", b"9" * 10_000)], "version 9999", id="a number without end"),
]


@pytest.mark.parametrize(("pairs", "words"), VERSIONS)
def test_a_version_that_cannot_be_known_is_refused_with_a_sentence(
    pairs: list[tuple[str, str | bytes | None]] | None, words: str
) -> None:
    """What such a message holds nobody knows: the error says which version it has, and what to do."""
    with pytest.raises(UnknownSchemaError, match=words) as caught:
        read_headers(pairs)
    assert f"reads version {SCHEMA_VERSION}" in str(caught.value)
    assert "run a version" in str(caught.value)
    assert len(str(caught.value)) < 300


COUNTS = [
    pytest.param([], None, id="not there"),
    pytest.param([("records", b"0")], 0, id="zero"),
    pytest.param([("records", b"1000")], 1000, id="a thousand"),
    pytest.param([("records", b"-1")], None, id="negative"),
    pytest.param([("records", b"many")], None, id="a word"),
    pytest.param([("records", b"")], None, id="empty"),
    pytest.param([("records", None)], None, id="null"),
    pytest.param([("records", b"9" * 10_000)], None, id="a number without end"),
]


@pytest.mark.parametrize(("pairs", "expected"), COUNTS)
def test_a_count_that_is_none_is_not_told(pairs: list[tuple[str, str | bytes | None]], expected: int | None) -> None:
    """The number of records is a help, not a need: what is no number is none."""
    assert read_headers([("schema", b"1"), *pairs]).records == expected


def test_other_headers_do_not_disturb() -> None:
    """Headers of others, in any order, and a header that comes twice: the last one counts."""
    info = read_headers([("traceparent", b"00"), ("records", b"1"), *headers(5, "x"), ("x", None)])
    assert (info.records, info.content_type) == (5, CONTENT_TYPE)


# --- merging


def table(**made: list[object]) -> pa.Table:
    """What one message gives."""
    return decode(encode(batch(**made)))


def test_the_columns_of_a_merged_table_are_the_union() -> None:
    """In the order of the record, with null where a message did not have the column."""
    merged = merge([table(packets=[1]), table(type=["IPFIX"], bytes=[2]), table(packets=[3], src_port=[4])])
    merged.validate(full=True)
    assert merged.schema.names == ["type", "bytes", "packets", "src_port"]
    assert sorted(merged.to_pylist(), key=str) == sorted(
        [
            {"type": None, "bytes": None, "packets": 1, "src_port": None},
            {"type": "IPFIX", "bytes": 2, "packets": None, "src_port": None},
            {"type": None, "bytes": None, "packets": 3, "src_port": 4},
        ],
        key=str,
    )


def test_columns_out_of_order_are_put_in_order() -> None:
    """A producer that sends its columns in another order is read all the same."""
    backwards = decode(encode(pa.RecordBatch.from_arrays([pa.array([1], pa.uint64())] * 2, ["packets", "bytes"])))
    assert merge([backwards]).schema.names == ["bytes", "packets"]


def test_dictionaries_are_put_together() -> None:
    """Names of several messages share one dictionary, in one chunk, without a name twice."""
    merged = merge(
        [
            table(user_name=["bob", None]),
            table(user_name=["alice", "bob"]),
            table(user_name=["carol"]),
        ]
    )
    column = merged.column("user_name")
    assert column.num_chunks == 1
    assert column.type == COLUMN["user_name"].type
    assert column.to_pylist() == ["bob", None, "alice", "bob", "carol"]
    assert sorted(column.chunk(0).dictionary.to_pylist()) == ["alice", "bob", "carol"]


def test_messages_of_one_schema_keep_their_order() -> None:
    """Grouped by schema, in the order in which each schema came first."""
    merged = merge([table(bytes=[1]), table(packets=[2]), table(bytes=[3]), table(packets=[4])])
    assert plain(merged) == {"bytes": [1, 3, None, None], "packets": [None, None, 2, 4]}


def test_nothing_merged_is_nothing() -> None:
    """No message, and messages without rows, give a table without rows."""
    assert merge([]).num_rows == 0
    empty = merge([table(bytes=[], type=[])])
    assert (empty.num_rows, empty.schema.names) == (0, ["type", "bytes"])


@given(st.lists(batches(), max_size=5))
@looked_at(100, 3000)
def test_merging_loses_and_makes_nothing(given_batches: list[pa.RecordBatch]) -> None:
    """Rows of all messages are there, each column in one chunk with the record's type, in the record's order."""
    merged = merge([decode(encode(one)) for one in given_batches])
    merged.validate(full=True)
    names = [column.name for column in COLUMNS if any(column.name in one.schema.names for one in given_batches)]
    assert merged.schema.names == names
    assert [merged.schema.field(name).type for name in names] == [COLUMN[name].type for name in names]
    assert merged.num_rows == sum(one.num_rows for one in given_batches)
    assert all(merged.column(name).num_chunks <= 1 for name in names)
    for name in names:
        sent = [value for one in given_batches if name in one.schema.names for value in plain(one)[name]]
        missing = sum(one.num_rows for one in given_batches if name not in one.schema.names)
        assert sorted(map(repr, plain(merged)[name])) == sorted(map(repr, [*sent, *[None] * missing]))


def test_another_topic_has_other_columns() -> None:
    """Rows of counter samples keep their columns, in their order and with their types, when they are asked for."""
    given_table = pa.table({"if_in_octets": pa.array([5], pa.uint64()), "if_index": pa.array([7], pa.uint32())})
    (sent,) = given_table.to_batches()
    merged = merge([decode(encode(sent), COUNTER_COLUMN)], COUNTER_COLUMN)
    assert merged.schema.names == ["if_index", "if_in_octets"]
    assert merge([decode(encode(sent))]).schema.names == []
    strange = pa.table({"if_index": ["7"]}).to_batches()[0]
    with pytest.raises(CorruptMessageError, match="column if_index is string, where uint32 is known"):
        decode(encode(strange), COUNTER_COLUMN)


def test_a_message_is_looked_at_whatever_came_before() -> None:
    """A sound message vouches for none that has the same names and another type, nor for null values in its names."""
    sound = pa.RecordBatch.from_arrays([pa.array([1], pa.uint64()), names("bob")], ["bytes", "user_name"])
    assert decode(encode(sound)).num_rows == 1
    wrong = pa.RecordBatch.from_arrays([pa.array(["1"]), names("bob")], ["bytes", "user_name"])
    with pytest.raises(CorruptMessageError, match="column bytes is string, where uint64 is known"):
        decode(encode(wrong))
    assert decode(encode(sound)).num_rows == 1
    odd = pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), pa.array(["bob", None], pa.utf8()))
    with_null = pa.RecordBatch.from_arrays([pa.array([1], pa.uint64()), odd], ["bytes", "user_name"])
    assert decode(encode(with_null))["user_name"].chunk(0).dictionary.null_count == 0


def test_layouts_without_end_are_not_remembered_without_end() -> None:
    """Past the bound it begins anew, and reads the same."""
    for number in range(2 * MOST_LOOKED):
        sent = pa.RecordBatch.from_arrays([pa.array([number], pa.uint64())] * 2, ["bytes", f"extra_{number}"])
        assert merge([decode(encode(sent))]).to_pydict() == {"bytes": [number]}
    assert len(codec._LOOKED) <= MOST_LOOKED


def names(*values: str) -> pa.DictionaryArray:
    """A column of names, as ingest sends it."""
    return pa.array(values, pa.utf8()).dictionary_encode().cast(COLUMN["user_name"].type)


def test_a_null_that_is_a_value_of_the_dictionary_is_a_null() -> None:
    """Arrow allows both ways of telling a null, and cannot put dictionaries of the second kind together."""
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int32()), pa.array(["bob", None], pa.utf8()))
    message = decode(encode(pa.RecordBatch.from_arrays([odd], ["user_name"])))
    merged = merge([message, table(user_name=["alice"])])
    assert merged["user_name"].to_pylist() == ["bob", None, None, "alice"]
    assert merged["user_name"].type == COLUMN["user_name"].type


@pytest.mark.parametrize("name", ["quantum_state", "user_name"], ids=["unknown", "known"])
def test_a_dictionary_that_arrow_cannot_cast_is_no_defect_of_ours(name: str) -> None:
    """An unknown column is left out whatever it holds; a known one of such a type makes the message corrupt."""
    values = pa.array([{"spin": 1}, None], pa.struct([("spin", pa.int8())]))
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), values)
    value = encode(pa.RecordBatch.from_arrays([odd, pa.array([1, 2], pa.uint64())], [name, "bytes"]))
    if name in COLUMN:
        with pytest.raises(CorruptMessageError, match="where dictionary"):
            decode(value)
    else:
        assert merge([decode(value)]).to_pydict() == {"bytes": [1, 2]}
