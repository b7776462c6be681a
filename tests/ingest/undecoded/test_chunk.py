"""What becomes of sets that were read again: by what is known now, and by how long they have waited."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.sets import DataSets
from ingest.pipeline import Pipeline
from ingest.undecoded import message
from ingest.undecoded.chunk import MASK, Chunk, Read, Reason, Rest
from shared import codec
from tests.builders import data_set, mapped, template, v9_templates
from tests.fuzz import looked_at
from tests.ingest.collector import EXPORTER, Collector, in_order
from tests.ingest.collector import message as datagram
from tests.ingest.strategies import Case, cases
from tests.ingest.undecoded.made import bodies, plain, read, waiting

HOUR = 3600 * 1_000_000_000
NOW = 10 * HOUR
OTHER = mapped("192.0.2.101")


def masks(chunk: Chunk, *, wait: bool) -> list[MASK]:
    """All sets go on waiting, or none does."""
    return [np.full(len(part.sets), wait) for part in chunk.parts]


def sorted_out(*messages: Read, wait: bool = True) -> Rest:
    """What is left of messages when all of their sets, or none, go on waiting."""
    chunk = Chunk(messages)
    return chunk.rest(masks(chunk, wait=wait), NOW, HOUR)


def test_what_is_decoded_is_done_with() -> None:
    """Nothing of it is appended again, nor is it a dead letter, however old it is."""
    assert sorted_out(read(waiting(b"a", b"b", received_ns=NOW - 2 * HOUR)), wait=False) == Rest(decoded=2)


def test_what_waits_is_appended_again_as_it_was() -> None:
    """Sets of an exporter share a message, whichever they came in; their times are those of the first reception."""
    one, two = waiting(b"a", b"b", received_ns=NOW - 5), waiting(b"c", template_id=300, received_ns=NOW - 9)
    other = waiting(b"d", exporter=OTHER, received_ns=NOW - 7)
    rest = sorted_out(read(one), read(other, offset=1), read(two, offset=2))
    assert (rest.decoded, rest.given_up, rest.oldest_ns) == (0, [], NOW - 9)
    assert [plain(sets) for sets in rest.again] == [plain(DataSets.join([one, two])), plain(other)]


def test_each_protocol_is_decoded_by_itself() -> None:
    """Sets of a message may be of both; what is appended again has one message for each."""
    chunk = Chunk([read(waiting(b"a", received_ns=NOW), waiting(b"b", received_ns=NOW, version=10))])
    assert [part.sets.headers.version for part in chunk.parts] == [9, 10]
    rest = chunk.rest([np.array([False]), np.array([True])], NOW, HOUR)
    assert rest.decoded == 1
    assert [(sets.headers.version, bodies(sets)) for sets in rest.again] == [(10, [b"b"])]


def test_what_waited_too_long_is_given_up() -> None:
    """After its hour to the nanosecond, and with the bytes of its message untouched when all of it is too old."""
    old = read(waiting(b"a", b"b", received_ns=NOW - HOUR - 2))
    rest = sorted_out(old)
    (letter,) = rest.given_up
    assert rest.again == []
    assert (letter.read, letter.value, letter.rows) == (old, old.value, 2)
    assert (letter.reason, letter.first_parked_ns) == (Reason.TEMPLATE_NEVER_CAME, NOW - HOUR - 2)
    assert sorted_out(read(waiting(b"a", b"b", received_ns=NOW - HOUR))).given_up == []


def test_of_a_message_only_what_is_too_old_is_given_up() -> None:
    """The other sets go on waiting."""
    mixed = read(waiting(b"old", b"young", received_ns=NOW - HOUR - 1, step_ns=HOUR // 2), offset=7)
    rest = sorted_out(read(waiting(b"fresh", received_ns=NOW), offset=6), mixed)
    (letter,) = rest.given_up
    assert (letter.read.offset, letter.rows) == (7, 1)
    (left,) = message.decode(bytes(letter.value or b""))
    assert bodies(left) == [b"old"]
    assert [bodies(sets) for sets in rest.again] == [[b"fresh", b"young"]]


def test_each_message_makes_a_dead_letter_of_its_own() -> None:
    """A dead letter says from where it came, which is one place."""
    old = [read(waiting(bytes([at]), received_ns=0), offset=at) for at in range(3)]
    rest = sorted_out(*old)
    assert [(letter.read.offset, letter.value) for letter in rest.given_up] == [(one.offset, one.value) for one in old]


# --- what cannot be read


@pytest.mark.parametrize("value", [None, b"", b"no stream"], ids=["null", "empty", "garbage"])
def test_a_message_that_is_none_is_given_up_and_the_others_are_read(value: bytes | None) -> None:
    """It costs only itself, and is counted by what its headers tell."""
    sound = read(waiting(b"a", b"b", received_ns=NOW))
    broken = Read(3, 1, NOW // 1_000_000, b"key", value, codec.headers(4, "test"))
    chunk = Chunk([sound, broken])
    assert chunk.sets == 6
    rest = chunk.rest(masks(chunk, wait=False), NOW, HOUR)
    (letter,) = rest.given_up
    assert rest.decoded == 2
    assert (letter.read, letter.value, letter.rows, letter.reason) == (broken, value, 4, Reason.CORRUPT)


@pytest.mark.parametrize(
    ("headers", "rows"),
    [([], 1), ([("records", b"x")], 1), ([("records", None)], 1), ([("records", b"12")], 12)],
    ids=["none", "no number", "null", "told"],
)
def test_how_many_sets_a_message_had_may_not_be_told(headers: codec.Headers, rows: int) -> None:
    """Then it counts as one."""
    chunk = Chunk([Read(0, 0, 0, None, b"garbage", [("schema", b"1"), *headers])])
    assert chunk.sets == rows


@pytest.mark.parametrize(
    ("headers", "young"),
    [
        ([("schema", b"2"), ("first-parked", b"%d" % (NOW - HOUR))], True),
        ([("schema", b"2"), ("first-parked", b"%d" % (NOW - HOUR - 1))], False),
        ([("schema", b"2")], True),
        ([], True),
    ],
    ids=["young", "old", "not told", "no version"],
)
def test_a_version_that_is_not_known_is_left_to_others_for_a_while(headers: codec.Headers, young: bool) -> None:
    """Another instance may read it; if none does for as long as sets may wait, it is given up, untouched."""
    ours = waiting(b"a", received_ns=NOW)
    rest = sorted_out(read(ours, headers=headers))
    if young:
        assert [one.headers for one in rest.as_it_is] == [headers]
        assert rest.given_up == []
    else:
        (letter,) = rest.given_up
        assert letter.reason is Reason.UNKNOWN_SCHEMA
        assert letter.value == message.encode(ours).to_pybytes()


def test_a_message_that_breaks_decoding_can_be_given_up_alone() -> None:
    """All of its sets, as they came."""
    one = read(waiting(b"a", b"b", received_ns=NOW))
    letter = Chunk([one]).undecodable()
    assert (letter.read, letter.value, letter.rows, letter.reason) == (one, one.value, 2, Reason.UNDECODABLE)


# --- by way of the topic


@given(cases(most_records=3), st.integers(1, 3), st.booleans())
@looked_at(60, 2_000)
def test_what_waited_in_the_topic_is_what_was_decoded_at_once(case: Case, times: int, together: bool) -> None:
    """**patient**: what one process put there and another decodes has the ids, times and all that it would have had."""
    version = case.protocol
    described = datagram(version, data_set(0 if version == 9 else 2, template(256, *case.fields)))
    data = [datagram(version, data_set(256, *case.records[: at + 1], padding=case.padding)) for at in range(times)]

    first = Collector()
    first.feed(*data)
    left = list(first.pipeline.parking.drain())
    value = [message.encode(sets).to_pybytes() for sets in message.messages(left)]
    chunk = Chunk([Read(0, at, 0, None, one, codec.headers(1, "test")) for at, one in enumerate(value)])

    second = Collector()
    parts = [part.sets for part in chunk.parts]
    early, waits = second.pipeline.decode_again(parts)
    assert early.records == 0
    assert all(mask.all() for mask in waits)
    second.feed(described)
    late, waits = second.pipeline.decode_again(parts)
    assert not any(mask.any() for mask in waits)
    assert second.pipeline.parking.sets == 0

    known = Collector()
    known.feed(described)
    assert in_order(late) == in_order(known.feed(*data))


def test_while_two_layouts_are_known_the_length_tells_here_too() -> None:
    """A set from the topic is read with the layout that it fits, and waits while none does."""
    short, long = (
        template(256, *fields) for fields in ([b"\x00\x01\x00\x04"], [b"\x00\x01\x00\x08", b"\x00\x02\x00\x08"])
    )
    first = Collector()
    for body in (bytes(4), bytes(16), bytes(3)):
        first.feed(datagram(9, data_set(256, body)))
    (sets,) = first.pipeline.parking.drain()
    second = Collector()
    second.feed(datagram(9, v9_templates(short)))
    second.feed(datagram(9, v9_templates(long)))
    decoded, (waits,) = second.pipeline.decode_again([sets])
    assert waits.tolist() == [False, False, True]
    assert sorted(batch.num_rows for batch in decoded.batches) == [1, 1]


def test_options_data_from_the_topic_is_learned() -> None:
    """What a device said of itself before its template came is known from then on."""
    described = b"\x01\x01\x00\x04\x00\x04\x00\x01\x00\x04\x00\x22\x00\x04"
    first = Collector()
    first.feed(datagram(9, data_set(257, bytes(4) + (1000).to_bytes(4))))
    (sets,) = first.pipeline.parking.drain()
    pipeline = Pipeline()
    second = Collector()
    second.pipeline = pipeline
    second.feed(datagram(9, data_set(1, described)))
    decoded, (waits,) = pipeline.decode_again([sets])
    assert not waits.any()
    assert decoded.options_records == 1
    assert [(fact.source, fact.value) for fact in decoded.facts] == [(EXPORTER, 1000)]
