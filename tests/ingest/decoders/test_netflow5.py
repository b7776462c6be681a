"""NetFlow v5, v1 and v7: every field of their records, and headers that lie."""

from __future__ import annotations

import pytest

from ingest.decoders import Decoded, Fault, Oddity, Unit
from ingest.exporters import Exporters
from tests.builders import (
    UNIX_SECONDS,
    UPTIME_MS,
    mapped,
    v1_datagram,
    v1_record,
    v5_datagram,
    v5_header,
    v5_record,
    v7_datagram,
    v7_record,
)
from tests.ingest.collector import (
    EXPORTER,
    RECEIVED_NS,
    Collector,
    faults,
    in_order,
    nothing_wrong,
    one,
    packed,
    rows,
)

SECOND = 1_000_000_000


RECORD = v5_record(
    src="203.0.113.7",
    dst="198.51.100.9",
    next_hop="192.0.2.254",
    input_if=0xFFFE,
    output_if=0x0102,
    packets=0xFEDCBA98,
    octets=0x89ABCDEF,
    first_ms=UPTIME_MS - 2345,
    last_ms=UPTIME_MS - 1234,
    src_port=0xABCD,
    dst_port=0x01BB,
    tcp_flags=0x1B,
    proto=6,
    tos=0xB8,
    src_as=0xFDE8,
    dst_as=0x0D1C,
    src_mask=24,
    dst_mask=19,
)
"""A record with another value in every field."""
FLOW = {
    "time_received": RECEIVED_NS,
    "time_exported": UNIX_SECONDS * 1000,
    "time_flow_start": UNIX_SECONDS * SECOND - 2_345_000_000,
    "time_flow_end": UNIX_SECONDS * SECOND - 1_234_000_000,
    "sampler_address": EXPORTER,
    "bytes": 0x89ABCDEF,
    "packets": 0xFEDCBA98,
    "flows": 1,
    "src_addr": mapped("203.0.113.7"),
    "dst_addr": mapped("198.51.100.9"),
    "etype": 0x0800,
    "proto": 6,
    "src_port": 0xABCD,
    "dst_port": 0x01BB,
    "tcp_flags": 0x1B,
    "ip_tos": 0xB8,
    "in_if": 0xFFFE,
    "out_if": 0x0102,
    "next_hop": mapped("192.0.2.254"),
}
ROUTES = {"src_as": 0xFDE8, "dst_as": 0x0D1C, "src_net_len": 24, "dst_net_len": 19}
FORMS = [
    pytest.param(
        v5_datagram(RECORD, sequence=0xFFFFFFF0, engine_type=3, engine_id=7, sampling=0x4000 | 100),
        {
            "type": "NETFLOW_V5",
            **ROUTES,
            "observation_domain_id": 3 << 8 | 7,
            "sequence_num": 0xFFFFFFF0,
            "sampling_rate": 100,
        },
        id="v5",
    ),
    pytest.param(v1_datagram(v1_record(RECORD)), {"type": "NETFLOW_V1"}, id="v1"),
    pytest.param(
        v7_datagram(v7_record(RECORD, router="192.0.2.77"), sequence=0xFFFFFFF0),
        {"type": "NETFLOW_V7", **ROUTES, "sequence_num": 0xFFFFFFF0},
        id="v7",
    ),
]


@pytest.mark.parametrize(("payload", "own"), FORMS)
def test_every_field_has_its_column(payload: bytes, own: dict[str, object]) -> None:
    """A record with another value in every field gives each of them, and nothing else: no more than its version has."""
    decoded = Collector().feed(payload)
    row = one(decoded)
    row.pop("record_id")
    assert row == FLOW | own
    assert nothing_wrong(decoded)


def test_versions_share_a_batch() -> None:
    """Datagrams of all three beside one another, several records each, are read each by its own form."""
    records = [v5_record(packets=number) for number in range(1, 5)]
    payloads = [
        v1_datagram(*map(v1_record, records[:1])),
        v5_datagram(*records[:2]),
        v7_datagram(*map(v7_record, records[:3])),
        v1_datagram(*map(v1_record, records)),
    ]
    decoded = Collector().feed(*payloads)
    found = sorted((row["type"], row["packets"]) for row in rows(decoded))
    assert found == [
        *(("NETFLOW_V1", number) for number in (1, 1, 2, 3, 4)),
        *(("NETFLOW_V5", number) for number in (1, 2)),
        *(("NETFLOW_V7", number) for number in (1, 2, 3)),
    ]
    assert decoded.version.tolist() == [1, 5, 7, 1]
    assert nothing_wrong(decoded)


SAMPLING = [
    pytest.param(0x0000, None, id="no mode, no interval"),
    pytest.param(0x4000 | 100, 100, id="packet interval"),
    pytest.param(0x8000 | 1000, 1000, id="random"),
    pytest.param(0x4000, None, id="a mode without an interval"),
    pytest.param(0xC000 | 0x3FFF, 0x3FFF, id="all ones"),
    pytest.param(0x4001, 1, id="unsampled"),
]


@pytest.mark.parametrize(("word", "expected"), SAMPLING)
def test_the_rate_is_the_lower_14_bits_of_the_header(word: int, expected: int | None) -> None:
    """The upper two bits are the mode, and are no part of the rate; 0 is unknown."""
    assert one(Collector().feed(v5_datagram(v5_record(), sampling=word))).get("sampling_rate") == expected


def test_datagrams_of_one_batch_have_rates_of_their_own() -> None:
    """A rate holds for its datagram's records alone."""
    words = [0, 0x4000 | 10, 0x8000 | 20, 0]
    decoded = Collector().feed(*(v5_datagram(v5_record(), v5_record(), sampling=word) for word in words))
    assert [row.get("sampling_rate") for row in rows(decoded)] == [None, None, 10, 10, 20, 20, None, None]


@pytest.mark.parametrize(
    ("proto", "port", "expected"),
    [
        pytest.param(1, 0x0301, (3, 1), id="ICMP"),
        pytest.param(1, 0, (0, 0), id="ICMP, echo reply"),
        pytest.param(6, 0x0301, (None, None), id="TCP"),
    ],
)
def test_type_and_code_come_by_the_destination_port(
    proto: int, port: int, expected: tuple[int | None, int | None]
) -> None:
    """ICMP's type is the upper octet of the destination port, its code the lower."""
    row = one(Collector().feed(v5_datagram(v5_record(proto=proto, dst_port=port))))
    assert (row.get("icmp_type"), row.get("icmp_code")) == expected
    assert row["dst_port"] == port


def test_thirty_records_are_thirty_records() -> None:
    """A datagram as large as they come gives all of its records, in order, each with an identity of its own."""
    decoded = Collector().feed(v5_datagram(*(v5_record(packets=number) for number in range(30))))
    found = rows(decoded)
    assert [row["packets"] for row in found] == list(range(30))
    assert len({row["record_id"] for row in found}) == 30


RECORDS = [v5_record(packets=number) for number in range(1, 32)]
LIES = [
    pytest.param(v5_datagram(*RECORDS[:3], count=5), 3, {}, {Oddity.COUNT_MISMATCH: 1}, id="counts too many"),
    pytest.param(v5_datagram(*RECORDS[:3])[:-1], 2, {}, {Oddity.COUNT_MISMATCH: 1}, id="the last is cut off"),
    pytest.param(v5_datagram(*RECORDS[:3], count=2), 2, {}, {Oddity.TRAILING_BYTES: 1}, id="counts too few"),
    pytest.param(v5_datagram(*RECORDS[:2]) + b"\1\2\3\4\5", 2, {}, {Oddity.TRAILING_BYTES: 1}, id="more at the end"),
    pytest.param(v5_datagram(*RECORDS[:2]) + bytes(96), 2, {}, {}, id="zeros at the end"),
    pytest.param(
        v5_datagram(*RECORDS[:3], count=0), 0, {(Fault.BAD_COUNT, Unit.DATAGRAMS): 1}, {}, id="counts nothing"
    ),
    pytest.param(v5_datagram(*RECORDS), 0, {(Fault.BAD_COUNT, Unit.DATAGRAMS): 1}, {}, id="counts 31"),
    pytest.param(
        v5_datagram(*RECORDS[:3], count=0xFFFF), 0, {(Fault.BAD_COUNT, Unit.DATAGRAMS): 1}, {}, id="counts 65535"
    ),
    pytest.param(v5_datagram(count=1), 0, {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}, {}, id="no record at all"),
    pytest.param(v5_header(1)[:23], 0, {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}, {}, id="the header is cut off"),
    pytest.param(b"\0\5", 0, {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}, {}, id="nothing but the version"),
    pytest.param(
        v1_datagram(*map(v1_record, RECORDS[:3]), count=5), 3, {}, {Oddity.COUNT_MISMATCH: 1}, id="v1 counts too many"
    ),
    pytest.param(
        v1_datagram(*map(v1_record, RECORDS[:2])) + b"\1" * 47,
        2,
        {},
        {Oddity.TRAILING_BYTES: 1},
        id="v1, more at the end",
    ),
    pytest.param(v1_datagram()[:15], 0, {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}, {}, id="v1, the header is cut off"),
    pytest.param(v1_datagram(count=1), 0, {(Fault.TRUNCATED, Unit.DATAGRAMS): 1}, {}, id="v1, no record at all"),
    pytest.param(
        v7_datagram(*map(v7_record, RECORDS[:3]))[:-1], 2, {}, {Oddity.COUNT_MISMATCH: 1}, id="v7, the last is cut off"
    ),
    pytest.param(
        v7_datagram(*map(v7_record, RECORDS)), 0, {(Fault.BAD_COUNT, Unit.DATAGRAMS): 1}, {}, id="v7 counts 31"
    ),
    pytest.param(v7_datagram(count=0), 0, {(Fault.BAD_COUNT, Unit.DATAGRAMS): 1}, {}, id="v7 counts nothing"),
]


@pytest.mark.parametrize(("payload", "records", "lost", "odd"), LIES)
def test_a_header_that_lies_costs_only_what_is_not_there(
    payload: bytes,
    records: int,
    lost: dict[tuple[Fault, Unit], int],
    odd: dict[Oddity, int],
) -> None:
    """Whole records that the header counts are given; what is wrong is counted; datagrams beside it are not touched."""
    good = v5_datagram(v5_record(packets=1000), sequence=99)
    decoded = Collector().feed(good, payload, good)
    assert sorted(row["packets"] for row in rows(decoded)) == [*range(1, records + 1), 1000, 1000]
    assert faults(decoded) == lost
    assert dict(decoded.oddities) == odd


def heard(decoded: Decoded) -> list[tuple[int, int, int, bool]]:
    """Sequence, how far the next is, records, and whether the count is exact, of each datagram."""
    (part,) = decoded.heard
    return list(
        zip(part.sequence.tolist(), part.units.tolist(), part.records.tolist(), part.exact.tolist(), strict=True)
    )


def test_the_sequence_counts_flows() -> None:
    """The next datagram's number is this one's and as many as the header counts, of which a part may be cut off."""
    decoded = Collector().feed(
        v5_datagram(*RECORDS[:4], sequence=10), v5_datagram(*RECORDS[:2], count=5, sequence=14), v5_datagram(count=0)
    )
    assert heard(decoded) == [(10, 4, 4, True), (14, 5, 2, True)]


def test_the_sequence_of_v7_counts_flows_and_v1_has_none() -> None:
    """What is missing of v7 is lost as with v5; of v1 nobody can say what is missing."""
    seventh = [v7_datagram(*map(v7_record, RECORDS[:3]), sequence=sequence) for sequence in (10, 13, 20)]
    first = [v1_datagram(*map(v1_record, RECORDS[:number])) for number in (1, 5, 2)]
    exporters = Exporters()
    for payload in (*seventh, *first):
        for part in Collector().feed(payload).heard:
            exporters.hear(part)
            assert exporters.settle(everything=True) == ({"192.0.2.100": 4} if payload is seventh[2] else {})
    assert [(one_.version, one_.lost, one_.restarts) for one_ in exporters.facts()] == [(7, 4, 0), (1, 0, 0)]


def test_a_mirrored_datagram_has_the_same_identities() -> None:
    """Equal bytes of one exporter give equal ids, in one batch and in another; other sequence numbers other ones."""
    payload = v5_datagram(*RECORDS[:5], sequence=1)
    both = rows(Collector().feed(payload, payload))
    first, second = both[:5], both[5:]
    assert first == second
    again = Collector().feed(v5_datagram(v5_record()), payload)
    assert {row["record_id"] for row in first} <= {row["record_id"] for row in rows(again)}
    other = Collector().feed(v5_datagram(*RECORDS[:5], sequence=2))
    assert not {row["record_id"] for row in first} & {row["record_id"] for row in rows(other)}


def test_splitting_a_batch_changes_nothing() -> None:
    """Datagrams give the same records one by one as all at once."""
    payloads = [v5_datagram(*RECORDS[: 1 + number % 7], sequence=number) for number in range(40)]
    whole = in_order(Collector().feed(*payloads))
    collector = Collector()
    assert whole == in_order([batch for payload in payloads for batch in collector.feed(payload).batches])


def test_ports_do_not_matter() -> None:
    """The exporter is its address: the same datagram from two of its ports is the same observation."""
    datagrams = packed([v5_datagram(v5_record())] * 2)
    datagrams.source_port[:] = (1, 2)
    first, second = rows(Collector().take(datagrams))
    assert first == second
