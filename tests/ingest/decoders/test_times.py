"""When a flow began and ended, right to the millisecond, by every clock that an exporter may use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from ingest.decoders import Oddity
from tests.builders import (
    UNIX_SECONDS,
    UPTIME_MS,
    VARIABLE,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    ntp_time,
    number,
    template,
    v5_datagram,
    v5_record,
    v9_datagram,
    v9_templates,
    variable,
)
from tests.ingest.collector import Collector, Row, faults, flows, nothing_wrong, one, rows

V9, IPFIX = 9, 10
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
TURN: Final = 1 << 32
"""The uptime begins again after this many milliseconds: 49.7 days."""
EXPORTED_NS: Final = UNIX_SECONDS * SECOND
PAST_MS: Final = UNIX_SECONDS * 1000 - 61_234
"""Some time before the export, not on a whole second."""
DAY_AHEAD: Final = 86_400


def times(row: Row) -> tuple[int | None, int | None]:
    """Start and end in nanoseconds."""
    return row.get("time_flow_start"), row.get("time_flow_end")


ABSOLUTE = [
    pytest.param((150, number(UNIX_SECONDS - 9, 4)), (151, number(UNIX_SECONDS - 7, 4)),
                 (EXPORTED_NS - 9 * SECOND, EXPORTED_NS - 7 * SECOND), id="seconds"),
    pytest.param((152, number(PAST_MS, 8)), (153, number(PAST_MS + 1, 8)),
                 (PAST_MS * MS, (PAST_MS + 1) * MS), id="milliseconds"),
    pytest.param((154, ntp_time(UNIX_SECONDS - 9, 0x80000000)), (155, ntp_time(UNIX_SECONDS - 7, 0x40000000)),
                 (EXPORTED_NS - 9 * SECOND + 500 * MS, EXPORTED_NS - 7 * SECOND + 250 * MS), id="microseconds"),
    pytest.param((156, ntp_time(UNIX_SECONDS - 9, 0x80000000)), (157, ntp_time(UNIX_SECONDS - 7, 0xC0000000)),
                 (EXPORTED_NS - 9 * SECOND + 500 * MS, EXPORTED_NS - 7 * SECOND + 750 * MS), id="nanoseconds"),
    pytest.param((158, number(2_500_001, 4)), (159, number(1_000, 4)),
                 (EXPORTED_NS - 2_500_001_000, EXPORTED_NS - 1_000_000), id="microseconds before the export"),
    pytest.param((158, number(0xFFFFFFFF, 4)), (159, number(0, 4)),
                 (EXPORTED_NS - 0xFFFFFFFF * 1000, EXPORTED_NS), id="as long before the export as can be"),
    pytest.param((150, number(UNIX_SECONDS + DAY_AHEAD, 4)), (151, number(UNIX_SECONDS + DAY_AHEAD + 1, 4)),
                 (EXPORTED_NS + DAY_AHEAD * SECOND, EXPORTED_NS + (DAY_AHEAD + 1) * SECOND), id="a day ahead"),
    pytest.param((152, number(0, 8)), (153, number(1, 8)), (0, MS), id="1970"),
    pytest.param((150, number(0xFFFFFFFF, 4)), (151, number(0xFFFFFFFF, 4)),
                 (0xFFFFFFFF * SECOND, 0xFFFFFFFF * SECOND), id="2106"),
    pytest.param((152, number(PAST_MS, 8)), (151, number(UNIX_SECONDS, 4)),
                 (PAST_MS * MS, EXPORTED_NS), id="each end by another clock"),
    pytest.param((210, b"\xff"), (322, number(UNIX_SECONDS - 9, 4)),
                 (EXPORTED_NS - 9 * SECOND,) * 2, id="observed, in seconds"),
    pytest.param((210, b"\xff"), (323, number(PAST_MS, 8)), (PAST_MS * MS,) * 2, id="observed, in milliseconds"),
    pytest.param((322, number(1, 4)), (324, ntp_time(UNIX_SECONDS - 9, 0x80000000)),
                 (EXPORTED_NS - 9 * SECOND + 500 * MS,) * 2, id="observed, in microseconds"),
    pytest.param((323, number(1, 8)), (325, ntp_time(UNIX_SECONDS - 9, 0x80000000)),
                 (EXPORTED_NS - 9 * SECOND + 500 * MS,) * 2, id="observed, in nanoseconds"),
    pytest.param((152, number(PAST_MS, 8)), (323, number(PAST_MS + 7, 8)),
                 (PAST_MS * MS, (PAST_MS + 7) * MS), id="begun, and observed at its end (ASA)"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "end", "expected"), ABSOLUTE)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_times_that_are_absolute(
    protocol: int, start: tuple[int, bytes], end: tuple[int, bytes], expected: tuple[int, int]
) -> None:
    """150 to 159, and 322 to 325 of events, need nothing but themselves and the export time, and are not clamped."""
    fields = [field(element, len(content)) for element, content in (start, end)]
    decoded = Collector().feed(flows(protocol, fields, start[1] + end[1]))
    assert times(one(decoded)) == expected
    assert nothing_wrong(decoded)


@pytest.mark.parametrize("element", [154, 156], ids=["microseconds", "nanoseconds"])
@pytest.mark.parametrize("microseconds", [0, 1, 999, 1_000, 123_456, 500_000, 999_999])
def test_fractions_of_ntp_are_right_to_the_microsecond(element: int, microseconds: int) -> None:
    """A fraction of 2^32, of which 154 ignores the low 11 bits (RFC 7011 §6.1.9), is off by less than a microsecond."""
    fraction = (microseconds << 32) // 1_000_000
    row = one(Collector().feed(flows(IPFIX, [field(element, 8)], ntp_time(UNIX_SECONDS, fraction))))
    assert abs(row["time_flow_start"] - (EXPORTED_NS + microseconds * 1000)) < 1000


def test_the_low_bits_of_microseconds_are_ignored() -> None:
    """Junk in the low 11 bits of 154 does not show."""
    plain, junk = ntp_time(UNIX_SECONDS, 0x12345800), ntp_time(UNIX_SECONDS, 0x12345FFF)
    first, second = rows(Collector().feed(flows(IPFIX, [field(154, 8)], plain, junk)))
    assert first["time_flow_start"] == second["time_flow_start"]


UPTIMES = [
    pytest.param(UPTIME_MS, UPTIME_MS - 2500, -2500, id="before the export"),
    pytest.param(UPTIME_MS, UPTIME_MS, 0, id="at the export"),
    pytest.param(UPTIME_MS, UPTIME_MS + 250, 250, id="after the export, by a slow clock"),
    pytest.param(1_000, TURN - 500, -1_500, id="the uptime wrapped between the flow and the export"),
    pytest.param(TURN - 500, 700, 1_200, id="the uptime wrapped just after the export"),
    pytest.param(0, TURN - 1, -1, id="the uptime is 0 at the export"),
    pytest.param(5, 0, -5, id="the flow was at the boot"),
    pytest.param(TURN // 2, 1, 1 - TURN // 2, id="24.8 days ago"),
]


@pytest.mark.parametrize(("uptime", "sent", "expected_ms"), UPTIMES)
def test_v9_times_are_relative_to_the_uptime(uptime: int, sent: int, expected_ms: int) -> None:
    """21 and 22 are milliseconds of uptime, modulo 2^32: a wrap does no harm, in either direction."""
    collector = Collector()
    payload = v9_datagram(
        v9_templates(template(256, field(22, 4), field(21, 4))),
        data_set(256, number(sent, 4) + number(sent, 4)),
        uptime_ms=uptime,
    )
    decoded = collector.feed(payload)
    assert times(one(decoded)) == (EXPORTED_NS + expected_ms * MS,) * 2
    assert nothing_wrong(decoded)


@pytest.mark.parametrize(("uptime", "sent", "expected_ms"), UPTIMES)
def test_v5_times_are_relative_to_the_uptime(uptime: int, sent: int, expected_ms: int) -> None:
    """First and Last are milliseconds of uptime, modulo 2^32, and the header's nanoseconds count."""
    payload = v5_datagram(v5_record(first_ms=sent, last_ms=sent), uptime_ms=uptime, unix_nanoseconds=123_456_789)
    row = one(Collector().feed(payload))
    assert times(row) == (EXPORTED_NS + 123_456_789 + expected_ms * MS,) * 2
    assert row["time_exported"] == EXPORTED_NS // MS + 123


def test_start_and_end_may_lie_on_either_side_of_a_wrap() -> None:
    """A flow that began before the uptime wrapped and ended after it has a start before its end."""
    payload = v5_datagram(v5_record(first_ms=TURN - 1_000, last_ms=1_000), uptime_ms=2_000)
    assert times(one(Collector().feed(payload))) == (EXPORTED_NS - 3_000 * MS, EXPORTED_NS - 1_000 * MS)


BOOTS = [
    pytest.param(UNIX_SECONDS * 1000 - UPTIME_MS, UPTIME_MS - 2345, -2345, id="up for an hour"),
    pytest.param(UNIX_SECONDS * 1000 - UPTIME_MS + 77, UPTIME_MS - 2345, -2268, id="booted between two seconds"),
    pytest.param(UNIX_SECONDS * 1000 - TURN - 5_000, 4_000, -1_000, id="up for 49.7 days"),
    pytest.param(UNIX_SECONDS * 1000 - TURN - 5_000, TURN - 1_000, -6_000, id="the flow was before the wrap"),
    pytest.param(UNIX_SECONDS * 1000 - 7 * TURN - 5_000, 4_999, -1, id="up for a year"),
]


@pytest.mark.parametrize(("booted_ms", "sent", "expected_ms"), BOOTS)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_times_may_be_relative_to_the_boot_time_in_the_record(
    protocol: int, booted_ms: int, sent: int, expected_ms: int
) -> None:
    """With 160 in the record, 21 and 22 count from there, to the millisecond, and modulo 2^32 like the uptime."""
    fields = [field(160, 8), field(22, 4), field(21, 4)]
    content = number(booted_ms, 8) + number(sent, 4) + number(sent, 4)
    decoded = Collector().feed(flows(protocol, fields, content))
    assert times(one(decoded)) == (EXPORTED_NS + expected_ms * MS,) * 2
    assert nothing_wrong(decoded)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(flows(V9, [field(8, 4)], bytes(4)), id="v9, no time"),
        pytest.param(flows(IPFIX, [field(8, 4)], bytes(4)), id="ipfix, no time"),
        pytest.param(flows(IPFIX, [field(22, 4), field(21, 4)], bytes(8)), id="ipfix, uptime without the boot time"),
        pytest.param(flows(IPFIX, [field(152, VARIABLE)], variable(b"")), id="ipfix, an empty time"),
    ],
)
def test_without_a_time_it_is_the_export(payload: bytes) -> None:
    """A record that does not tell when, or tells it in a way that cannot be read, has the export time."""
    decoded = Collector().feed(payload)
    assert times(one(decoded)) == (EXPORTED_NS, EXPORTED_NS)
    assert nothing_wrong(decoded)


def test_one_end_may_be_told_without_the_other() -> None:
    """The end that is not told has the export time."""
    row = one(Collector().feed(flows(IPFIX, [field(152, 8)], number(PAST_MS, 8))))
    assert times(row) == (PAST_MS * MS, EXPORTED_NS)


BEST = [
    pytest.param([(150, number(1, 4)), (152, number(PAST_MS, 8))], PAST_MS * MS, id="milliseconds before seconds"),
    pytest.param([(22, number(1, 4)), (150, number(UNIX_SECONDS, 4))], EXPORTED_NS, id="seconds before the uptime"),
    pytest.param([(152, number(1, 8)), (156, ntp_time(UNIX_SECONDS))], EXPORTED_NS, id="nanoseconds first"),
]


@pytest.mark.parametrize(("sent", "expected"), BEST)
def test_of_several_clocks_the_most_exact_counts(sent: list[tuple[int, bytes]], expected: int) -> None:
    """A template with the same end by two clocks is read by the finer one, whichever comes first."""
    for items in (sent, sent[::-1]):
        fields = [field(element, len(content)) for element, content in items]
        payload = flows(V9, fields, b"".join(content for _, content in items))
        assert one(Collector().feed(payload))["time_flow_start"] == expected


ABSURD = [
    pytest.param([(152, b"\xff" * 8)], None, id="milliseconds"),
    pytest.param([(152, number(2**63 // MS + 1, 8))], None, id="milliseconds, just beyond 2262"),
    pytest.param([(152, number(2**63 // MS, 8))], 2**63 // MS * MS, id="milliseconds, the last"),
    pytest.param([(150, b"\xff" * 8)], None, id="seconds in eight bytes"),
    pytest.param([(160, b"\xff" * 8), (22, b"\xff" * 4)], None, id="boot time"),
    pytest.param([(160, number(2**63 // MS, 8)), (22, b"\xff" * 8)], None, id="boot time and eight bytes of uptime"),
]


@pytest.mark.parametrize(("sent", "expected"), ABSURD)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_time_beyond_what_the_column_holds_is_null_and_counted(
    protocol: int, sent: list[tuple[int, bytes]], expected: int | None
) -> None:
    """Nanoseconds in 64 bits end in the year 2262: what lies beyond is null, counted, and costs only itself."""
    fields = [*(field(element, len(content)) for element, content in sent), field(5, 1)]
    decoded = Collector().feed(flows(protocol, fields, b"".join(content for _, content in sent) + b"\x2a"))
    row = one(decoded)
    assert row.get("time_flow_start") == expected
    assert row["ip_tos"] == 42
    assert dict(decoded.oddities) == ({Oddity.OUT_OF_RANGE: 1} if expected is None else {})
    assert not faults(decoded)


def test_an_absurd_time_costs_only_its_own_record() -> None:
    """Among records of one layout, the others keep their times."""
    records = [number(PAST_MS, 8), b"\xff" * 8, number(PAST_MS + 1, 8)]
    decoded = Collector().feed(flows(IPFIX, [field(152, 8)], *records))
    assert [row.get("time_flow_start") for row in rows(decoded)] == [PAST_MS * MS, None, (PAST_MS + 1) * MS]


HEADERS = [
    pytest.param(v5_datagram(v5_record(), unix_seconds=0, uptime_ms=0), id="v5, all zeros"),
    pytest.param(
        v5_datagram(v5_record(), unix_seconds=0xFFFFFFFF, unix_nanoseconds=0xFFFFFFFF, uptime_ms=0xFFFFFFFF),
        id="v5, all ones",
    ),
    pytest.param(
        v9_datagram(
            v9_templates(template(256, field(22, 4), field(158, 4))),
            data_set(256, b"\xff" * 8),
            unix_seconds=0,
            uptime_ms=0,
        ),
        id="v9, all zeros",
    ),
    pytest.param(
        ipfix_message(
            ipfix_templates(template(256, field(156, 8))),
            data_set(256, b"\0" * 8, b"\xff" * 8),
            unix_seconds=0xFFFFFFFF,
        ),
        id="ipfix, all ones",
    ),
]


@pytest.mark.parametrize("payload", HEADERS)
def test_absurd_clocks_do_no_harm(payload: bytes) -> None:
    """Whatever a header's clock says, the record is given with what follows from it."""
    for row in rows(Collector().feed(payload)):
        assert isinstance(row["time_flow_start"], int)
        assert isinstance(row["time_exported"], int)


def test_times_are_utc() -> None:
    """The columns say their unit and zone themselves."""
    (batch,) = Collector().feed(flows(IPFIX, [field(152, 8)], number(PAST_MS, 8))).batches
    assert str(batch.column("time_flow_start").type) == "timestamp[ns, tz=UTC]"
    assert str(batch.column("time_exported").type) == "timestamp[ms, tz=UTC]"
    exported = batch.column("time_exported")[0].as_py()
    assert exported == datetime.fromtimestamp(UNIX_SECONDS, UTC)
