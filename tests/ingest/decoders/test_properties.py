"""What holds for every input, drawn at random; SLUICEWAY_FUZZ=long looks for minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Datagrams
from ingest.decoders.templated import MOST_CHANGES
from ingest.parking import ParkingBounds
from ingest.templates import TemplateBounds
from tests.builders import VARIABLE, data_set, field, mapped, number, template, v5_datagram, v5_record
from tests.fuzz import looked_at
from tests.ingest.collector import (
    EXPORTER,
    FROM_THE_DATAGRAM,
    RECEIVED_NS,
    Collector,
    flows,
    in_order,
    message,
    rows,
)
from tests.ingest.decoders.known_elements import IPFIX, V9
from tests.ingest.strategies import Case, cases, datagrams, whole, wild_messages, wild_sets

OTHER = mapped("198.51.100.200")
BOUNDS = TemplateBounds(per_domain=3, templates=6)
ROOM = ParkingBounds(total_bytes=20_000, exporter_bytes=10_000, wait_ns=1000)


@given(cases())
@looked_at(200, 15_000)
def test_what_was_encoded_is_decoded(case: Case) -> None:
    """Any template of elements that are known and not, of legal lengths, and any values: the columns have the values."""
    decoded = Collector().feed(whole(case))
    found = [
        {name: value for name, value in row.items() if name == "flows" or name not in FROM_THE_DATAGRAM}
        for row in rows(decoded)
    ]
    for row, expected in zip(found, case.expected, strict=True):
        if "icmp_type" not in expected:
            # NetFlow v9 has them by the destination port, which another test asks about.
            for name in ("icmp_type", "icmp_code"):
                if name not in expected:
                    row.pop(name, None)
        assert row == expected
    assert not decoded.faults


@given(st.lists(cases(most_records=3), min_size=1, max_size=4), st.integers(1, 60))
@looked_at(30, 5_000)
def test_what_was_encoded_is_decoded_in_lockstep_too(drawn: list[Case], copies: int) -> None:
    """Datagrams of several layouts, many of each: every record is as it is when its datagram comes alone."""
    collector = Collector()
    payloads = [whole(case, 256 + index) for index, case in enumerate(drawn)]
    alone = [rows(collector.feed(payload)) for payload in payloads]
    decoded = Collector().feed(*(payload for _ in range(copies) for payload in payloads))
    expected = Counter(repr(row) for records in alone for row in records * copies)
    assert Counter(map(repr, rows(decoded))) == expected


def bounded(collector: Collector) -> None:
    """Whatever came, no more is kept than the bounds say."""
    pipeline = collector.pipeline
    assert len(pipeline.templates) <= BOUNDS.templates
    assert pipeline.templates.layouts <= 2 * BOUNDS.templates
    assert pipeline.parking.bytes <= ROOM.total_bytes
    assert pipeline.parking.sets <= ROOM.total_bytes // 100


@given(st.lists(st.lists(datagrams(), max_size=4), max_size=4))
@looked_at(150, 12_000)
def test_no_input_raises_or_grows(batches: list[list[bytes]]) -> None:
    """Noise, datagrams that lie and datagrams that were changed: every batch is decoded, and what is kept is bounded."""
    collector = Collector(BOUNDS, ROOM)
    for index, batch in enumerate(batches):
        decoded = collector.feed(*batch, received_ns=RECEIVED_NS + index)
        assert decoded.records == sum(item.num_rows for item in decoded.batches)
        collector.pipeline.expire(RECEIVED_NS + 500 * index)
        bounded(collector)
    collector.pipeline.expire(RECEIVED_NS + 10**9)
    assert (collector.pipeline.parking.sets, collector.pipeline.parking.bytes) == (0, 0)


@given(st.lists(datagrams(), max_size=6), st.integers(0, 6))
@looked_at(100, 8_000)
def test_what_one_exporter_sends_costs_another_nothing(bad: list[bytes], place: int) -> None:
    """Whatever stands beside them in a batch, another exporter's datagrams give their records."""
    good = [flows(V9, [field(1, 4)], number(1, 4)), v5_datagram(v5_record()), flows(IPFIX, [field(2, 4)], number(2, 4))]
    expected = in_order(Collector().feed(*good, source=OTHER))
    sent = [(payload, EXPORTER) for payload in bad]
    sent[place:place] = [(payload, OTHER) for payload in good]
    payloads, sources = [payload for payload, _ in sent], [source for _, source in sent]
    mixed = Datagrams.pack(payloads, sources, [50000] * len(sent), [RECEIVED_NS] * len(sent))
    found = [row for row in in_order(Collector().take(mixed)) if row["sampler_address"] == OTHER]
    assert found == expected


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    """Datagrams of one exporter, and where its batches end."""
    payloads = draw(st.lists(wild_messages() | datagrams(), max_size=7))
    cuts = draw(st.lists(st.integers(0, len(payloads)), max_size=4))
    return payloads, sorted(cuts)


def decoded_in(payloads: Sequence[bytes], cuts: Sequence[int]) -> tuple[list[pa.RecordBatch], Counter[object], int]:
    """Records of datagrams in batches that end there, what was counted, and how many sets wait."""
    collector = Collector()
    batches: list[pa.RecordBatch] = []
    counted: Counter[object] = Counter()
    for begin, end in zip([0, *cuts], [*cuts, len(payloads)], strict=True):
        decoded = collector.feed(*payloads[begin:end])
        batches += decoded.batches
        counted.update(decoded.faults)
        counted.update(decoded.oddities)
        counted["templates"] += decoded.templates
        counted["learned"] += len(decoded.learned)
        counted["options"] += decoded.options_records
    return batches, counted, collector.pipeline.parking.sets


REDEFINED = [
    template(256, field(1, 4)),
    template(256, field(2, 8)),
    template(256, field(2, 8), field(1, 4)),
    template(256, field(7, 2)),
    template(256, field(1, 3)),
    template(256, field(1, 8), field(2, 8), field(16, 4)),
    template(256, field(4, 1), field(371, VARIABLE)),
]


@st.composite
def redefining_streams(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    """Datagrams of one exporter that redefine a template again and again, with data of many lengths between them."""
    protocol = draw(st.sampled_from((V9, IPFIX)))
    templates = st.sampled_from(REDEFINED).map(lambda one: data_set(0 if protocol == V9 else 2, one))
    data = st.builds(
        lambda content, zeros: data_set(256, content, padding=zeros), st.binary(max_size=30), st.integers(0, 9)
    )
    # No more than the redefinitions that are told apart in a batch.
    sets = st.lists(templates | data, min_size=1, max_size=MOST_CHANGES // 8)
    payloads = draw(st.lists(sets.map(lambda some: message(protocol, *some)), max_size=8))
    return payloads, sorted(draw(st.lists(st.integers(0, len(payloads)), max_size=4)))


def same_however_cut(payloads: Sequence[bytes], cuts: Sequence[int]) -> None:
    """In one batch, in a batch each, and in batches that end at the cuts: the same comes of it."""
    together, alone, cut = (decoded_in(payloads, at) for at in ([], list(range(1, len(payloads))), cuts))
    for other in (alone, cut):
        assert in_order(other[0]) == in_order(together[0])
        assert +other[1] == +together[1]
        assert other[2] == together[2]


@given(streams())
@looked_at(120, 10_000)
def test_where_a_batch_ends_does_not_matter(stream: tuple[list[bytes], list[int]]) -> None:
    """However the datagrams of an exporter are cut into batches, records, counts and what waits are the same."""
    same_however_cut(*stream)


@given(redefining_streams())
@looked_at(150, 10_000)
def test_where_a_batch_ends_does_not_matter_when_templates_change(stream: tuple[list[bytes], list[int]]) -> None:
    """Redefinitions, confirmations and data of every length, cut anywhere: records, counts and what waits are the same."""
    same_however_cut(*stream)


@st.composite
def known_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[bytes]]:
    """A datagram of templates, datagrams of data for them and for others, and the same in another order."""
    protocol = draw(st.sampled_from((V9, IPFIX)))
    drawn = draw(st.lists(cases(protocol=protocol, most_records=2), min_size=1, max_size=3))
    described = [template(256 + index, *case.fields) for index, case in enumerate(drawn)]
    first = 0 if protocol == V9 else 2
    head = message(protocol, data_set(first, *described))
    sets = [data_set(256 + index, *case.records) for index, case in enumerate(drawn)]
    sets.append(data_set(300, b"abcd"))
    payloads = draw(
        st.lists(st.lists(st.sampled_from(sets), max_size=3).map(lambda some: message(protocol, *some)), max_size=5)
    )
    return head, payloads, draw(st.permutations(payloads))


@given(known_streams())
@looked_at(60, 5_000)
def test_the_order_of_data_after_its_templates_does_not_matter(stream: tuple[bytes, list[bytes], list[bytes]]) -> None:
    """Every order of the datagrams that follow an exporter's templates gives the same set of records."""
    head, payloads, shuffled = stream
    assert in_order(decoded_in([head, *payloads], [1])[0]) == in_order(decoded_in([head, *shuffled], [1])[0])


@given(cases(most_records=3), st.integers(1, 3))
@looked_at(60, 8_000)
def test_what_waited_is_what_was_decoded_at_once(case: Case, times: int) -> None:
    """Data that waits for its template gives the records that it gives with its template known, with the same ids."""
    first = 0 if case.protocol == V9 else 2
    described = message(case.protocol, data_set(first, template(256, *case.fields)))
    data = message(case.protocol, data_set(256, *case.records, padding=case.padding))
    early = decoded_in([data] * times + [described], list(range(1, times + 1)))
    known = decoded_in([described] + [data] * times, [1])
    assert in_order(early[0]) == in_order(known[0])
    assert early[2] == known[2] == 0


@given(st.lists(wild_sets(V9), min_size=1, max_size=6), st.integers(1, 40))
@looked_at(60, 10_000)
def test_a_datagram_is_read_alike_alone_and_among_many(sets: list[bytes], copies: int) -> None:
    """A datagram that is walked set by set, and as many of it as are walked together, say the same."""
    templates = [one for one in sets if one[:2] in {b"\0\0", b"\0\1"}]
    payload = message(V9, *(one for one in sets if one not in templates))
    once, many = Collector(), Collector()
    for collector in (once, many):
        for one in templates:
            collector.feed(message(V9, one))
    alone, together = once.feed(payload), many.feed(*[payload] * copies)
    assert together.records == copies * alone.records
    assert {repr(row) for row in rows(together)} == {repr(row) for row in rows(alone)}
    assert together.faults == Counter({fault: count * copies for fault, count in alone.faults.items()})
    assert together.oddities == Counter({oddity: count * copies for oddity, count in alone.oddities.items()})
