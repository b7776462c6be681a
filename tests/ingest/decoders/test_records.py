"""Records of variable length: where each lies, and what a broken one costs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ingest.decoders import Fault, Oddity, Unit
from ingest.decoders.layout import VARIABLE, Field, Layout
from ingest.decoders.records import LOCKSTEP, locate
from tests.builders import data_set, field, ipfix_message, ipfix_templates, number, template, variable
from tests.ingest.collector import Collector, faults, flows, nothing_wrong, rows

IPFIX = 10
MANY = pytest.mark.parametrize(
    "copies", [1, LOCKSTEP - 1, LOCKSTEP, 4 * LOCKSTEP], ids=["one", "one less than many", "many", "more than many"]
)
"""As one set is walked record by record, and many in lockstep, both have to say the same."""

FIELDS = [field(1, 2), field(147, VARIABLE), field(2, 1), field(371, VARIABLE), field(5, 1)]


def record(octets: int, ssid: str, packets: int, user: str, tos: int, *, long_form: bool = False) -> bytes:
    """A record of the fields above."""
    return (
        number(octets, 2)
        + variable(ssid, long_form=long_form)
        + number(packets, 1)
        + variable(user, long_form=long_form)
        + number(tos, 1)
    )


RECORDS = [
    record(1, "a", 2, "alice", 3),
    record(4, "", 5, "", 6),
    record(7, "x" * 254, 8, "y" * 255, 9),
    record(10, "net", 11, "bob", 12, long_form=True),
]
VALUES = [
    (1, "a", 2, "alice", 3),
    (4, None, 5, None, 6),
    (7, "x" * 254, 8, "y" * 255, 9),
    (10, "net", 11, "bob", 12),
]


def values(decoded: object) -> list[tuple[object, ...]]:
    """What the columns of these fields have."""
    return [
        tuple(row.get(name) for name in ("bytes", "wlan_ssid", "packets", "user_name", "ip_tos"))
        for row in rows(decoded)  # type: ignore[arg-type]
    ]


@MANY
def test_fields_of_fixed_and_variable_length_may_be_mixed(copies: int) -> None:
    """Every field is found where the one before it ends, in every record of every set."""
    payload = flows(IPFIX, FIELDS, *RECORDS)
    decoded = Collector().feed(*[payload] * copies)
    assert values(decoded) == VALUES * copies
    assert len(decoded.batches) == 1
    assert nothing_wrong(decoded)


@MANY
@pytest.mark.parametrize("padding", range(4))
def test_padding_is_no_record(copies: int, padding: int) -> None:
    """Padding is shorter than the shortest record (RFC 7011 §3.3.1)."""
    decoded = Collector().feed(*[flows(IPFIX, FIELDS, *RECORDS, padding=padding)] * copies)
    assert values(decoded) == VALUES * copies
    assert nothing_wrong(decoded)


LAST = record(13, "broken", 14, "record", 15)


@MANY
@pytest.mark.parametrize("missing", range(1, len(LAST)))
def test_a_record_that_reaches_beyond_its_set_costs_only_itself(copies: int, missing: int) -> None:
    """The records before it are given, and so is the next set; it is counted as broken, or as a remainder."""
    broken = data_set(256, *RECORDS, LAST[:-missing])
    payload = ipfix_message(ipfix_templates(template(256, *FIELDS)), broken, data_set(256, *RECORDS[:1]))
    decoded = Collector().feed(*[payload] * copies)
    assert values(decoded) == (VALUES + VALUES[:1]) * copies
    left, shortest = len(LAST) - missing, 6
    if left >= shortest:
        assert faults(decoded) == {(Fault.BAD_RECORD, Unit.SETS): copies}
        assert not decoded.oddities
    else:
        assert not faults(decoded)
        assert dict(decoded.oddities) == ({Oddity.TRAILING_BYTES: copies} if left >= 4 else {})


@MANY
def test_a_length_that_lies_costs_only_its_set(copies: int) -> None:
    """A content that is longer than the datagram ends its set, and no other."""
    lie = number(1, 2) + b"\xff\xff\xff" + bytes(9)
    payload = ipfix_message(
        ipfix_templates(template(256, *FIELDS)), data_set(256, lie), data_set(256, *RECORDS), data_set(256, RECORDS[0])
    )
    decoded = Collector().feed(*[payload] * copies)
    assert values(decoded) == (VALUES + VALUES[:1]) * copies
    assert faults(decoded) == {(Fault.BAD_RECORD, Unit.SETS): copies}


def test_sets_of_different_lengths_advance_together() -> None:
    """Sets with one record and with many are read alike, whichever ends first."""
    payloads = [
        flows(IPFIX, [field(147, VARIABLE)], *(variable(f"{which}.{place}") for place in range(which % 23)))
        for which in range(50)
    ]
    decoded = Collector().feed(*payloads)
    assert [row["wlan_ssid"] for row in rows(decoded)] == [
        f"{which}.{place}" for which in range(50) for place in range(which % 23)
    ]


def test_identities_tell_where_a_record_lies() -> None:
    """Records of variable length have the same identity alone and in a batch of many."""
    payload = flows(IPFIX, FIELDS, *RECORDS * 3)
    alone = [row["record_id"] for row in rows(Collector().feed(payload))]
    among = [row["record_id"] for row in rows(Collector().feed(*[payload] * (LOCKSTEP + 3)))]
    assert len(set(alone)) == 12
    assert among == alone * (LOCKSTEP + 3)


# --- the walk itself

LAYOUTS = [
    pytest.param((VARIABLE,), id="one"),
    pytest.param((VARIABLE, VARIABLE), id="two"),
    pytest.param((4, VARIABLE), id="fixed, variable"),
    pytest.param((VARIABLE, 3), id="variable, fixed"),
    pytest.param((1, VARIABLE, 2, VARIABLE, 3), id="mixed"),
]
BODIES = [bytes(body) for length in range(6) for body in product((0, 1, 3, 255), repeat=length)]


@pytest.mark.parametrize("lengths", LAYOUTS)
def test_walking_one_by_one_and_in_lockstep_agree(lengths: tuple[int, ...]) -> None:
    """For every body of up to five bytes that matter, and some after them, both ways find the same."""
    layout = Layout(IPFIX, tuple(Field(0, 147, length) for length in lengths), options=False, scopes=0)
    bodies = [*BODIES, *(body + b"\1\2\3\4\5\6\7" for body in BODIES)]
    buffer = np.frombuffer(b"".join(bodies), np.uint8)
    length = np.array([len(body) for body in bodies], np.int64)
    start = np.cumsum(length) - length
    together = locate(layout, buffer, start, length)
    for which in range(0, len(bodies), 7):
        alone = locate(layout, buffer, start[which : which + 1], length[which : which + 1])
        mine = together.of_set == which
        assert alone.begin.tolist() == together.begin[mine].tolist()
        assert alone.start.tolist() == together.start[mine].tolist()
        assert alone.length.tolist() == together.length[mine].tolist()
        assert alone.broken.tolist() == [together.broken[which]]
        assert alone.end.tolist() == [together.end[which]]


@pytest.mark.parametrize("lengths", LAYOUTS)
def test_no_record_reaches_beyond_its_set(lengths: tuple[int, ...]) -> None:
    """Whatever the bytes, what is found lies within the set, without overlap, and ends where it is said to."""
    layout = Layout(IPFIX, tuple(Field(0, 147, length) for length in lengths), options=False, scopes=0)
    buffer = np.frombuffer(b"".join(BODIES) + bytes(4), np.uint8)
    length = np.array([len(body) for body in BODIES], np.int64)
    start = np.cumsum(length) - length
    located = locate(layout, buffer, start, length)
    end = start + length
    assert (located.end <= end).all()
    assert ((located.start + located.length) <= end[located.of_set][:, None]).all()
    assert (located.begin >= start[located.of_set]).all()
    assert (np.diff(located.begin) >= layout.shortest_record).all()


@pytest.mark.parametrize("copies", [1, LOCKSTEP + 1], ids=["one by one", "in lockstep"])
def test_a_datagram_of_records_of_one_byte_is_bounded(copies: int) -> None:
    """65,000 bytes that are empty names are that many records, and no more."""
    count = 65000 if copies == 1 else 5000
    decoded = Collector().feed(*[flows(IPFIX, [field(371, VARIABLE)], bytes(count))] * copies)
    assert decoded.records == count * copies
    assert nothing_wrong(decoded)


@pytest.mark.parametrize("copies", [1, LOCKSTEP + 1], ids=["one by one", "in lockstep"])
def test_a_record_of_two_thousand_variable_fields_is_read(copies: int) -> None:
    """A layout may have as many fields of variable length as its template has room for."""
    count = 2000
    fields = [field(5000 + place, VARIABLE) for place in range(count - 1)] + [field(5, VARIABLE)]
    content = b"".join(variable(b"\1") for _ in range(count - 1)) + variable(b"\x2a")
    decoded = Collector().feed(*[flows(IPFIX, fields, content, content)] * copies)
    assert [row["ip_tos"] for row in rows(decoded)] == [42, 42] * copies
