"""Sets to message and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.headers import Headers
from ingest.decoders.sets import DataSets
from ingest.decoders.templates import template_keys
from ingest.pipeline import Pipeline
from ingest.undecoded import message
from ingest.undecoded.message import COLUMN, MESSAGE_BYTES, ROW_BYTES, STREAM_BYTES
from shared import codec
from shared.codec import CorruptMessageError
from tests.builders import mapped
from tests.fuzz import looked_at
from tests.ingest.undecoded.made import PRODUCER, bodies, plain, waiting


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Numbers without a sign."""
    return st.integers(0, 2**bits - 1)


@st.composite
def any_sets(draw: st.DrawFn) -> DataSets:
    """Sets of one protocol with anything that a header may have."""
    version = draw(st.sampled_from((9, 10)))
    rows = draw(
        st.lists(
            st.tuples(
                st.binary(min_size=16, max_size=16),
                numbers(32),
                numbers(32),
                st.integers(-(2**62), 2**62),
                numbers(32),
                st.integers(-(2**62), 2**62),
                numbers(64),
                numbers(16),
                st.integers(0, 65535),
                st.integers(256, 65535),
                st.binary(max_size=40),
            ),
            min_size=1,
            max_size=6,
        )
    )
    exporter, domain, sequence, exported, uptime, received, identity, port, position, template, body = zip(
        *rows, strict=True
    )
    source = np.frombuffer(b"".join(exporter), np.uint8).reshape(-1, 16)
    length = np.array([len(one) for one in body], np.int64)
    domains = np.array(domain, np.uint32)
    return DataSets(
        buffer=np.frombuffer(b"".join(body), np.uint8),
        headers=Headers(
            version=version,
            source=source,
            domain=domains,
            sequence=np.array(sequence, np.uint32),
            exported_ns=np.array(exported, np.int64),
            uptime_ms=np.array(uptime, np.uint32) if version == 9 else None,
            received_ns=np.array(received, np.int64),
            identity=np.array(identity, np.uint64),
            source_port=np.array(port, np.uint16),
        ),
        start=np.cumsum(length) - length,
        length=length,
        position=np.array(position, np.int64),
        keys=template_keys(source, version, domains, np.array(template, np.uint16)),
    )


@given(any_sets())
@looked_at(100, 5_000)
def test_what_is_written_is_read(sets: DataSets) -> None:
    """Everything that decoding needs comes back as it was, with the same types."""
    (found,) = message.decode(message.encode(sets).to_pybytes())
    assert plain(found) == plain(sets)


def test_protocols_may_share_a_message() -> None:
    """An exporter that speaks both has its sets apart again when they are read."""
    both = [waiting(b"v9 a", b"v9 b"), waiting(b"ipfix", version=10)]
    tables = [pa.ipc.open_stream(message.encode(sets)).read_all() for sets in both]
    (batch,) = pa.concat_tables(tables).combine_chunks().to_batches()
    found = message.decode(codec.encode(batch).to_pybytes())
    assert [plain(sets) for sets in found] == [plain(sets) for sets in both]


def test_sets_of_a_part_of_a_buffer_travel_alone() -> None:
    """Only their own bytes are in the message, whatever else lies in the buffer."""
    sets = waiting(b"first", b"second", b"third").take(np.array([2, 0]))
    (found,) = message.decode(message.encode(sets).to_pybytes())
    assert bodies(found) == [b"third", b"first"]
    assert len(found.buffer) == len(b"thirdfirst")


def test_headers_say_whose_and_since_when() -> None:
    """Beside those of every message: the exporter as people write it, and when the first of the sets was received."""
    sets = waiting(b"a", b"b", received_ns=5_000, step_ns=-7, exporter=mapped("192.0.2.7"))
    headers = dict(message.headers(sets, PRODUCER))
    assert headers == dict(codec.headers(2, PRODUCER)) | {"exporter": b"192.0.2.7", "first-parked": b"4993"}
    assert message.exporter_text(sets) == "192.0.2.7"
    assert message.exporter_text(waiting(b"a", exporter=mapped("2001:db8::1"))) == "2001:db8::1"


@pytest.mark.parametrize("length", [1, 100, 60_000])
def test_messages_are_of_a_size(length: int) -> None:
    """Sets are shared out over messages that Kafka takes, in their order; none is left out."""
    sets = waiting(*(bytes([at % 256]) * length for at in range(2 * MESSAGE_BYTES // (length + ROW_BYTES) + 3)))
    cut = list(message.messages([sets]))
    assert [body for one in cut for body in bodies(one)] == bodies(sets)
    assert len(cut) == 3
    for one in cut:
        size = len(message.encode(one))
        assert size <= MESSAGE_BYTES + STREAM_BYTES
        assert size <= ROW_BYTES * len(one) + int(one.length.sum()) + STREAM_BYTES


def test_parts_are_put_together() -> None:
    """Sets that wait for several templates of one exporter share a message."""
    parts = [waiting(b"one"), waiting(b"two", b"three", template_id=300)]
    (whole,) = message.messages(parts)
    assert bodies(whole) == [b"one", b"two", b"three"]
    assert [key[-2:] for key in whole.keys] == [bytes([1, 0]), bytes([1, 44]), bytes([1, 44])]


# --- what is refused


def changed(**columns: pa.Array) -> bytes:
    """A sound message of two sets with other columns."""
    table = pa.ipc.open_stream(message.encode(waiting(b"ab", b"cd"))).read_all()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    (batch,) = table.to_batches()
    value: bytes = codec.encode(batch).to_pybytes()
    return value


@pytest.mark.parametrize("name", sorted(COLUMN))
def test_a_column_that_is_missing_is_named(name: str) -> None:
    """Without it nothing can be decoded."""
    table = pa.ipc.open_stream(message.encode(waiting(b"ab"))).read_all().drop_columns([name])
    with pytest.raises(CorruptMessageError, match=name):
        message.decode(codec.encode(table.to_batches()[0]).to_pybytes())


@pytest.mark.parametrize("name", sorted(COLUMN))
def test_a_value_that_is_missing_is_refused(name: str) -> None:
    """No set of ours has a null."""
    values = pa.nulls(2, COLUMN[name].type)
    with pytest.raises(CorruptMessageError):
        message.decode(changed(**{name: values}))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("version", pa.array([9, 5], pa.uint8())),
        ("template_id", pa.array([256, 255], pa.uint16())),
        ("offset", pa.array([0, 65536], pa.uint32())),
        ("body", pa.array([b"", b"x" * 65536], pa.binary())),
        ("body", pa.array(["text", "text"])),
    ],
    ids=["protocol", "template id", "place", "length", "type"],
)
def test_a_value_that_no_set_has_is_refused(name: str, values: pa.Array) -> None:
    """Whatever wrote it, it was not this program."""
    with pytest.raises(CorruptMessageError):
        message.decode(changed(**{name: values}))


def test_a_message_without_sets_is_nothing() -> None:
    """It has no part of any protocol."""
    table = pa.ipc.open_stream(message.encode(waiting(b"ab"))).read_all()
    (batch,) = table.to_batches()
    assert message.decode(codec.encode(batch.slice(0, 0)).to_pybytes()) == []


def test_more_columns_do_not_disturb() -> None:
    """A later version may add some."""
    table = pa.ipc.open_stream(message.encode(waiting(b"ab"))).read_all()
    (batch,) = table.append_column("colour", pa.array(["red"])).to_batches()
    (found,) = message.decode(codec.encode(batch).to_pybytes())
    assert plain(found) == plain(waiting(b"ab"))


@given(st.data())
@looked_at(300, 20_000)
def test_a_message_that_was_changed_is_refused_or_sound(data: st.DataObject) -> None:
    """Bytes that were changed, cut off or put in raise nothing else, and what is read of them can be decoded."""
    octets = bytearray(message.encode(waiting(b"some bytes", b"", b"more of them")).to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at] = data.draw(st.integers(0, 255))
    del octets[data.draw(st.integers(0, len(octets))) :]
    try:
        found = message.decode(bytes(octets))
    except CorruptMessageError:
        return
    _, waits = Pipeline().decode_again(found)
    assert [len(mask) for mask in waits] == [len(sets) for sets in found]


@given(st.binary(max_size=300))
@looked_at(200, 20_000)
def test_bytes_of_any_kind_are_refused(octets: bytes) -> None:
    """What is no Arrow stream is said to be none."""
    with pytest.raises(CorruptMessageError):
        message.decode(octets)
