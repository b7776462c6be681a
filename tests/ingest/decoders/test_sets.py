"""How datagrams of NetFlow v9 and IPFIX are cut into sets, and what a bad one costs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ingest.decoders import Fault, Oddity, Unit
from ingest.decoders.datagrams import HEADROOM_BYTES
from ingest.decoders.sets import FEW, find_sets
from ingest.parking import ParkingBounds
from tests.builders import (
    data_set,
    field,
    ipfix_header,
    ipfix_templates,
    number,
    raw_set,
    template,
    v9_datagram,
    v9_templates,
)
from tests.ingest.collector import Collector, faults, flows, message, nothing_wrong, packed, rows

V9, IPFIX = 9, 10
BOTH = pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
MANY = pytest.mark.parametrize(
    "copies", [1, FEW - 1, FEW, 3 * FEW], ids=["one", "one less than few", "few", "more than few"]
)
"""As one datagram is walked set by set, and many in lockstep, both have to say the same."""

TEMPLATES = {V9: v9_templates(template(256, field(1, 4))), IPFIX: ipfix_templates(template(256, field(1, 4)))}


def record(value: int) -> bytes:
    """A data set of one record."""
    return data_set(256, number(value, 4))


# What stands between two good sets, whether the set after it can still be found, and what is counted.
BETWEEN = [
    pytest.param(b"", True, {}, {}, id="nothing"),
    pytest.param(data_set(256, number(7, 4), padding=2), True, {}, {}, id="a set with padding"),
    pytest.param(data_set(256, number(7, 4) + b"\1\2\3"), True, {}, {}, id="a set with three bytes of something"),
    pytest.param(raw_set(5, b"abcd"), True, {(Fault.RESERVED_SET, Unit.SETS): 1}, {}, id="a reserved set"),
    pytest.param(raw_set(255, b""), True, {(Fault.RESERVED_SET, Unit.SETS): 1}, {}, id="an empty reserved set"),
    pytest.param(raw_set(256, b"", length=3), False, {(Fault.BAD_LENGTH, Unit.SETS): 1}, {}, id="a length of 3"),
    pytest.param(raw_set(256, b"", length=0), False, {(Fault.BAD_LENGTH, Unit.SETS): 1}, {}, id="a length of 0"),
    pytest.param(
        raw_set(256, number(7, 4), length=0xFFFF), False, {(Fault.TRUNCATED, Unit.SETS): 1}, {}, id="a length beyond"
    ),
    pytest.param(raw_set(0, b"", length=0), False, {(Fault.BAD_LENGTH, Unit.SETS): 1}, {}, id="zeros before a set"),
    pytest.param(raw_set(300, b"abcd"), True, {}, {}, id="a set without a template"),
]


@MANY
@BOTH
@pytest.mark.parametrize(("between", "goes_on", "lost", "odd"), BETWEEN)
def test_a_bad_set_costs_only_itself(
    protocol: int,
    copies: int,
    between: bytes,
    goes_on: bool,
    lost: dict[tuple[Fault, Unit], int],
    odd: dict[Oddity, int],
) -> None:
    """Sets before it and after it are decoded, unless it does not tell where the next one begins."""
    payload = message(protocol, TEMPLATES[protocol], record(1), between, record(2))
    decoded = Collector().feed(*[payload] * copies)
    values = [row["bytes"] for row in rows(decoded)]
    extra = [7] if goes_on and b"\0\0\0\7" in between else []
    assert values == ([1, *extra, 2] if goes_on else [1]) * copies
    assert faults(decoded) == {fault: count * copies for fault, count in lost.items()}
    assert dict(decoded.oddities) == {oddity: count * copies for oddity, count in odd.items()}


ENDS = [
    pytest.param(b"\1", {}, id="one byte more"),
    pytest.param(b"\1\2\3", {}, id="three bytes more"),
    pytest.param(bytes(4), {}, id="four zeros more"),
    pytest.param(bytes(40), {}, id="many zeros more"),
    pytest.param(bytes(4) + b"\1", {(Fault.BAD_LENGTH, Unit.SETS): 1}, id="zeros and something"),
    pytest.param(b"\1\0\0\x08", {(Fault.TRUNCATED, Unit.SETS): 1}, id="a set header and nothing after it"),
    pytest.param(b"\1\0\0\x04", {}, id="an empty set"),
]


@MANY
@BOTH
@pytest.mark.parametrize(("end", "lost"), ENDS)
def test_what_is_left_at_the_end_is_padding_or_counted(
    protocol: int, copies: int, end: bytes, lost: dict[tuple[Fault, Unit], int]
) -> None:
    """Fewer bytes than a set header, and zeros to the end, are padding; anything else is counted."""
    decoded = Collector().feed(*[message(protocol, TEMPLATES[protocol], record(1), end)] * copies)
    assert [row["bytes"] for row in rows(decoded)] == [1] * copies
    assert faults(decoded) == {fault: count * copies for fault, count in lost.items()}


RESERVED = {V9: [2, 3, 4, 17, 255], IPFIX: [0, 1, 4, 17, 255]}


@pytest.mark.parametrize(
    ("protocol", "set_id"),
    [pytest.param(protocol, set_id, id=f"{protocol}-{set_id}") for protocol, ids in RESERVED.items() for set_id in ids],
)
def test_the_ids_below_256_belong_to_the_protocol(protocol: int, set_id: int) -> None:
    """NetFlow v9 has templates in 0 and 1, IPFIX in 2 and 3: what one gives a meaning is reserved in the other."""
    content = template(256, field(1, 4))
    decoded = Collector().feed(message(protocol, raw_set(set_id, content), record(1)))
    assert rows(decoded) == []
    assert decoded.templates == 0
    assert faults(decoded) == {(Fault.RESERVED_SET, Unit.SETS): 1}


TRAILING = [
    pytest.param(b"\1\2\3\4", 1, id="four bytes of something"),
    pytest.param(b"\0\0\0\0\1", 1, id="zeros and something"),
    pytest.param(bytes(7), 0, id="zeros"),
    pytest.param(b"\1\2\3", 0, id="three bytes"),
]


@MANY
@BOTH
@pytest.mark.parametrize(("rest", "counted"), TRAILING)
def test_an_odd_remainder_of_a_set_is_counted(protocol: int, copies: int, rest: bytes, counted: int) -> None:
    """Whole records are decoded; what is left and is no padding is told."""
    fields = [field(1, 4), field(2, 4)]
    payload = flows(protocol, fields, number(1, 4) + number(2, 4), number(3, 4) + number(4, 4) + rest)
    decoded = Collector().feed(*[payload] * copies)
    assert [(row["bytes"], row["packets"]) for row in rows(decoded)] == [(1, 2), (3, 4)] * copies
    assert dict(decoded.oddities) == ({Oddity.TRAILING_BYTES: counted * copies} if counted else {})
    assert faults(decoded) == {}


@BOTH
def test_a_datagram_without_sets_is_no_fault(protocol: int) -> None:
    """A header alone says that its exporter lives."""
    decoded = Collector().feed(message(protocol))
    assert rows(decoded) == []
    assert nothing_wrong(decoded)
    assert [len(part) for part in (decoded.heard[0].sequence,)] == [1]


@pytest.mark.parametrize("length", range(20))
def test_a_v9_header_that_is_cut_off_is_a_lost_datagram(length: int) -> None:
    """It is counted, and what came beside it is decoded."""
    good = flows(V9, [field(1, 4)], number(1, 4))
    decoded = Collector().feed(good, good[:length])
    assert [row["bytes"] for row in rows(decoded)] == [1]
    assert faults(decoded) == {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}


@pytest.mark.parametrize("length", range(16))
def test_an_ipfix_header_that_is_cut_off_is_a_lost_datagram(length: int) -> None:
    """It is counted, and what came beside it is decoded."""
    good = flows(IPFIX, [field(1, 4)], number(1, 4))
    decoded = Collector().feed(good, good[:length])
    assert [row["bytes"] for row in rows(decoded)] == [1]
    assert faults(decoded) == {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}


@pytest.mark.parametrize("count", [0, 1, 2, 30, 0xFFFF])
def test_v9s_count_of_records_is_not_trusted(count: int) -> None:
    """Exporters count records, sets, or something else: the sets' own lengths tell."""
    sets = (TEMPLATES[V9], record(1), record(2))
    decoded = Collector().feed(v9_datagram(*sets, count=count))
    assert [row["bytes"] for row in rows(decoded)] == [1, 2]
    assert nothing_wrong(decoded)


SETS = TEMPLATES[IPFIX] + record(1) + record(2)
LENGTHS = [
    pytest.param(16 + len(SETS), [1, 2], {}, {}, id="true"),
    pytest.param(16 + len(SETS) - 8, [1], {}, {Oddity.LENGTH_MISMATCH: 1}, id="ends before the last set"),
    pytest.param(
        16 + len(SETS) - 4,
        [1],
        {(Fault.TRUNCATED, Unit.SETS): 1},
        {Oddity.LENGTH_MISMATCH: 1},
        id="ends within the last set",
    ),
    pytest.param(0xFFFF, [1, 2], {}, {Oddity.LENGTH_MISMATCH: 1}, id="more than there is"),
    pytest.param(16, [], {}, {Oddity.LENGTH_MISMATCH: 1}, id="nothing but the header"),
    pytest.param(15, [], {(Fault.BAD_LENGTH, Unit.DATAGRAMS): 1}, {}, id="less than the header"),
    pytest.param(0, [], {(Fault.BAD_LENGTH, Unit.DATAGRAMS): 1}, {}, id="zero"),
]


@pytest.mark.parametrize(("length", "values", "lost", "odd"), LENGTHS)
def test_an_ipfix_length_that_lies_ends_the_message_where_it_says(
    length: int, values: list[int], lost: dict[tuple[Fault, Unit], int], odd: dict[Oddity, int]
) -> None:
    """A message ends where its header says, or where its datagram does if that is sooner; both are told."""
    decoded = Collector().feed(ipfix_header(length) + SETS)
    assert [row["bytes"] for row in rows(decoded)] == values
    assert faults(decoded) == lost
    assert dict(decoded.oddities) == odd


def test_other_versions_are_counted_and_nothing_else() -> None:
    """A datagram of no protocol that is known, or of no length, costs only itself."""
    good = flows(V9, [field(1, 4)], number(1, 4))
    decoded = Collector().feed(b"", b"\0", b"\0\2\0\0", b"\0\x08" + bytes(100), b"GET / HTTP/1.1\r\n", good)
    assert [row["bytes"] for row in rows(decoded)] == [1]
    assert faults(decoded) == {
        (Fault.TRUNCATED, Unit.DATAGRAMS): 2,
        (Fault.UNKNOWN_VERSION, Unit.DATAGRAMS): 3,
    }


def test_one_batch_may_have_all_protocols() -> None:
    """Datagrams are told apart by their version word, whatever came before them."""
    payloads = [flows(protocol, [field(1, 4)], number(protocol, 4)) for protocol in (V9, IPFIX, V9, IPFIX)]
    found = rows(Collector().feed(*payloads))
    assert sorted((row["type"], row["bytes"]) for row in found) == [
        ("IPFIX", 10),
        ("IPFIX", 10),
        ("NETFLOW_V9", 9),
        ("NETFLOW_V9", 9),
    ]


# --- the walk itself


def cut(payloads: list[bytes]) -> tuple[list[list[tuple[int, int, int]]], list[bool], list[bool]]:
    """The sets of each payload, by number, place and length, and which went beyond or were too small."""
    datagrams = packed(payloads)
    sets, beyond, too_small = find_sets(datagrams.buffer, datagrams.offset, datagrams.offset + datagrams.length)
    found: list[list[tuple[int, int, int]]] = [[] for _ in payloads]
    last = -1
    for row, start, length, number_ in zip(
        sets.row.tolist(), sets.start.tolist(), sets.length.tolist(), sets.number.tolist(), strict=True
    ):
        assert row >= last
        last = row
        found[row].append((number_, start - int(datagrams.offset[row]), length))
    return found, beyond.tolist(), too_small.tolist()


WALKED = [
    b"",
    b"\1",
    bytes(4),
    bytes(9),
    raw_set(256, b"abcdef"),
    raw_set(256, b"") * 7,
    raw_set(256, b"ab") + raw_set(0, b"", length=0) + bytes(5),
    raw_set(256, b"ab") + raw_set(0, b"", length=0) + b"\1",
    raw_set(256, b"ab") + raw_set(257, b"", length=2),
    raw_set(256, b"ab") + raw_set(257, b"xyz", length=8),
    raw_set(256, b"ab") + raw_set(257, b"xyz") + b"\1\2\3",
    raw_set(65535, bytes(65000)),
]


@pytest.mark.parametrize("times", [1, 2, FEW, 5 * FEW])
def test_walking_one_by_one_and_in_lockstep_agree(times: int) -> None:
    """However many datagrams a batch has, each is cut as it is when it comes alone."""
    alone = [cut([payload]) for payload in WALKED]
    found, beyond, too_small = cut(WALKED * times)
    assert found == [one[0][0] for one in alone] * times
    assert beyond == [one[1][0] for one in alone] * times
    assert too_small == [one[2][0] for one in alone] * times


def test_sets_are_in_the_order_of_their_datagram() -> None:
    """Whatever the lockstep does, sets of one datagram follow each other, in their order."""
    payloads = [b"".join(raw_set(256 + place, bytes(place)) for place in range(count)) for count in range(3 * FEW)]
    found, _, _ = cut(payloads)
    assert [[item[0] - 256 for item in sets] for sets in found] == [list(range(count)) for count in range(3 * FEW)]
    for sets in found:
        for (_, start, length), (_, following, _) in pairwise(sets):
            assert following == start + length + 4


@pytest.mark.parametrize("copies", [1, FEW + 1], ids=["one by one", "in lockstep"])
@BOTH
def test_a_datagram_of_nothing_but_empty_sets_is_nothing(protocol: int, copies: int) -> None:
    """16,000 sets without a record hold nothing that could be lost: nothing waits, and nothing is counted."""
    payload = message(protocol, raw_set(300, b"") * 16_370)
    collector = Collector()
    decoded = collector.feed(*[payload] * copies)
    assert rows(decoded) == []
    assert nothing_wrong(decoded)
    assert collector.pipeline.parking.sets == 0
    (heard,) = decoded.heard
    assert (heard.undecoded.tolist(), heard.exact.tolist()) == ([0] * copies, [True] * copies)


@BOTH
def test_a_datagram_of_nothing_but_tiny_sets_is_bounded(protocol: int) -> None:
    """13,000 sets of a byte, without a template, wait as long as there is room for one exporter's, and are counted."""
    payload = message(protocol, raw_set(300, b"\1") * 13_000)
    collector = Collector(parking=ParkingBounds(exporter_bytes=1 << 20))
    decoded = collector.feed(payload)
    waiting = collector.pipeline.parking.sets
    assert faults(decoded) == {(Fault.PARKING_QUOTA, Unit.SETS): 13_000 - waiting}
    assert 0 < waiting < 13_000
    assert collector.pipeline.parking.bytes <= 1 << 20
    (heard,) = decoded.heard
    assert heard.undecoded.tolist() == [13_000]


def test_nothing_is_read_beyond_the_end_of_a_datagram() -> None:
    """What lies behind a datagram in the buffer, though it looks like the rest of it, is not its own."""
    whole = message(V9, TEMPLATES[V9], record(1), record(2))
    datagrams = packed([whole, whole])
    datagrams.length[0] -= 1
    decoded = Collector().take(datagrams)
    assert [row["bytes"] for row in rows(decoded)] == [1, 1, 2]
    assert faults(decoded) == {(Fault.TRUNCATED, Unit.SETS): 1}


@BOTH
def test_a_buffer_may_end_where_its_datagram_does(protocol: int) -> None:
    """However few bytes the only datagram of a batch has, nothing is asked of its buffer that it does not have."""
    whole = message(protocol, TEMPLATES[protocol], record(1))
    for size in range(len(whole)):
        datagrams = packed([whole[:size]])
        assert len(datagrams.buffer) == HEADROOM_BYTES + size
        assert rows(Collector().take(datagrams)) == []
