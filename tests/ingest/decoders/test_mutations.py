"""Good datagrams, cut off at every byte and changed at every byte: what is decoded, what is counted, what is not hurt."""

from __future__ import annotations

import pytest

from ingest.decoders import Datagrams
from tests.builders import (
    SYSTEM,
    VARIABLE,
    data_set,
    field,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipfix_templates,
    ipv4,
    ipv6,
    mapped,
    number,
    template,
    v1_datagram,
    v1_record,
    v5_datagram,
    v5_record,
    v7_datagram,
    v7_record,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
    variable,
)
from tests.fuzz import LONG
from tests.ingest.collector import RECEIVED_NS, Collector, Row, in_order, rows

MINE, OTHER = mapped("192.0.2.100"), mapped("192.0.2.200")

V9 = v9_datagram(
    v9_templates(
        template(256, field(8, 4), field(12, 4), field(1, 4), field(4, 1), field(371, 5), field(70, 3)),
        template(257, field(27, 16), field(231, 4), field(232, 4), field(22, 4)),
    ),
    v9_options_templates(v9_options_template(258, (field(SYSTEM, 4),), (field(41, 4),))),
    data_set(256, ipv4("192.0.2.1") + ipv4("192.0.2.2") + number(7, 4) + b"\6alice\0\0\x11", padding=3),
    data_set(258, number(1, 4) + number(2, 4)),
    data_set(257, ipv6("2001:db8::1") + number(8, 4) + number(9, 4) + number(10, 4)),
    sequence=5,
)
IPFIX = ipfix_message(
    ipfix_templates(
        template(256, field(8, 4), field(371, VARIABLE), field(40, 2, enterprise=32473), field(152, 8), field(95, 4)),
        template(257, field(1, 3), field(1, 3, enterprise=29305), field(351, 8)),
    ),
    ipfix_options_templates(ipfix_options_template(258, (field(149, 4),), (field(41, 4), field(335, VARIABLE)))),
    data_set(256, *(ipv4("192.0.2.1") + variable(name) + b"\1\2" + number(10**12, 8) + b"\x0d\0\1\xc5" for name in ("a", "bob"))),
    data_set(257, number(1, 3) + number(2, 3) + number(1 << 56 | 77, 8), padding=2),
    data_set(258, number(1, 4) + number(2, 4) + variable("all")),
    sequence=5,
)  # fmt: skip
V5 = v5_datagram(v5_record(), v5_record(proto=1), v5_record(packets=9), sampling=0x4064, sequence=5)
V1 = v1_datagram(*(v1_record(v5_record(packets=number)) for number in (1, 2, 3)))
V7 = v7_datagram(*(v7_record(v5_record(packets=number), router="192.0.2.77") for number in (1, 2, 3)), sequence=5)
OF_SETS = [pytest.param(V9, id="v9"), pytest.param(IPFIX, id="ipfix")]
DATAGRAMS = [pytest.param(V1, id="v1"), pytest.param(V5, id="v5"), pytest.param(V7, id="v7"), *OF_SETS]


def beside(payload: bytes) -> tuple[list[Row], list[Row], bool]:
    """What a datagram gives, what another exporter's in the same batch give, and whether anything was counted."""
    payloads, sources = [V9, payload, IPFIX], [OTHER, MINE, OTHER]
    collector = Collector()
    decoded = collector.take(Datagrams.pack(payloads, sources, [50000] * 3, [RECEIVED_NS] * 3))
    found = in_order(decoded)
    return (
        [row for row in found if row["sampler_address"] == MINE],
        [row for row in found if row["sampler_address"] == OTHER],
        bool(decoded.faults) or bool(decoded.oddities) or collector.pipeline.parking.sets > 0,
    )


@pytest.mark.parametrize("payload", DATAGRAMS)
def test_cut_off_anywhere_a_datagram_gives_what_is_whole(payload: bytes) -> None:
    """At every length: no record more than the whole one has, others beside it untouched, and what is lost is counted."""
    records, expected, _ = beside(payload)
    whole = [{name: value for name, value in row.items() if name != "record_id"} for row in records]
    for length in range(len(payload)):
        mine, others, told = beside(payload[:length])
        assert others == expected
        for row in mine:
            assert {name: value for name, value in row.items() if name != "record_id"} in whole
        # Cut off between two sets, or within the header of the next, a NetFlow v9 datagram does not tell that it was.
        assert told or len(mine) == len(records) or payload is V9


@pytest.mark.parametrize("to", [0x00, 0xFF, None], ids=["zero", "ones", "another bit"])
@pytest.mark.parametrize("payload", DATAGRAMS)
def test_changed_anywhere_a_datagram_hurts_no_other(payload: bytes, to: int | None) -> None:
    """At every byte: nothing raises, what is decoded is sound, and another exporter's datagrams give their records."""
    _, expected, _ = beside(payload)
    # Each byte is changed in one of the three ways, and in all of them when there is time.
    first, step = (0, 1) if LONG else ({0x00: 0, 0xFF: 1, None: 2}[to], 3)
    for place in range(first, len(payload), step):
        changed = bytearray(payload)
        changed[place] = payload[place] ^ 1 if to is None else to
        _, others, _ = beside(bytes(changed))
        assert others == expected


@pytest.mark.parametrize("payload", DATAGRAMS)
def test_after_anything_the_exporter_itself_goes_on(payload: bytes) -> None:
    """Whatever was changed in one datagram, its exporter's records are right again when its templates came again."""
    expected = in_order(Collector().feed(payload))
    for place in range(0, len(payload), 1 if LONG else 5):
        changed = bytearray(payload)
        changed[place] ^= 0xFF
        collector = Collector()
        collector.feed(bytes(changed))
        collector.feed(payload)
        again = in_order(collector.feed(payload))
        assert again == expected


@pytest.mark.parametrize("payload", OF_SETS)
def test_sets_in_any_order_give_the_same_records(payload: bytes) -> None:
    """With its sets turned round, data before template, a datagram gives the same values, each at another place."""
    begin = 20 if payload is V9 else 16
    sets: list[bytes] = []
    at = begin
    while at < len(payload):
        length = int.from_bytes(payload[at + 2 : at + 4])
        sets.append(payload[at : at + length])
        at += length
    turned = payload[:begin] + b"".join(reversed(sets))

    def values(found: list[Row]) -> list[str]:
        return sorted(repr({name: value for name, value in row.items() if name != "record_id"}) for row in found)

    assert values(rows(Collector().feed(turned))) == values(rows(Collector().feed(payload)))
