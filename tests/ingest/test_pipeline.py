"""Datagrams to batches: templates and data in every order, redefinitions, and what waits between two batches."""

from __future__ import annotations

from itertools import permutations

import pytest

from ingest.decoders import Fault, Oddity, Unit
from ingest.decoders.templated import MOST_CHANGES
from ingest.pipeline import Pipeline
from shared.record import COLUMN, POSITION
from tests.builders import (
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    ipv4,
    mapped,
    number,
    template,
    v5_datagram,
    v5_record,
    v9_datagram,
    v9_templates,
    variable,
)
from tests.ingest.collector import (
    EXPORTER,
    RECEIVED_NS,
    Collector,
    Row,
    checked,
    faults,
    in_order,
    message,
    nothing_wrong,
    packed,
    rows,
)

V9, IPFIX = 9, 10
BOTH = pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
OTHER = mapped("192.0.2.101")


def templates(protocol: int, *described: bytes) -> bytes:
    """A set of templates."""
    return v9_templates(*described) if protocol == V9 else ipfix_templates(*described)


def one_by_one(*payloads: bytes) -> list[Row]:
    """Records of datagrams that come in a batch each, in the order of their identities."""
    collector = Collector()
    batches = [batch for payload in payloads for batch in collector.feed(payload).batches]
    return in_order(batches)


# --- data before its template

TEMPLATE = template(256, field(1, 4))


def data(*values: int, template_id: int = 256) -> bytes:
    """A set of records of four bytes."""
    return data_set(template_id, *(number(value, 4) for value in values))


@BOTH
def test_data_may_come_before_its_template_in_a_datagram(protocol: int) -> None:
    """It is decoded at once."""
    collector = Collector()
    decoded = collector.feed(message(protocol, data(1, 2), templates(protocol, TEMPLATE), data(3)))
    assert [row["bytes"] for row in rows(decoded)] == [1, 2, 3]
    assert nothing_wrong(decoded)
    assert collector.pipeline.parking.sets == 0


@BOTH
def test_data_may_come_before_its_template_in_a_batch(protocol: int) -> None:
    """It is decoded at once, with the datagrams between them."""
    collector = Collector()
    decoded = collector.feed(
        message(protocol, data(1)), message(protocol, data(2)), message(protocol, templates(protocol, TEMPLATE))
    )
    assert sorted(row["bytes"] for row in rows(decoded)) == [1, 2]
    assert nothing_wrong(decoded)
    assert collector.pipeline.parking.sets == 0


@BOTH
def test_data_may_come_batches_before_its_template(protocol: int) -> None:
    """It waits, and is decoded when the template comes: the same records, with the same identities and times."""
    early = [message(protocol, data(1), data(9, template_id=300), data(2)), message(protocol, data(3))]
    late = message(protocol, templates(protocol, TEMPLATE), data(4))
    collector = Collector()
    for index, payload in enumerate(early):
        waiting = collector.feed(payload, received_ns=RECEIVED_NS + index)
        assert rows(waiting) == []
        assert nothing_wrong(waiting)
    assert collector.pipeline.parking.sets == 4
    decoded = collector.feed(late, received_ns=RECEIVED_NS + 2)
    assert sorted(row["bytes"] for row in rows(decoded)) == [1, 2, 3, 4]
    assert collector.pipeline.parking.sets == 1
    at_once = Collector()
    at_once.feed(message(protocol, templates(protocol, TEMPLATE)))
    known = [
        batch
        for index, payload in enumerate([*early, late])
        for batch in at_once.feed(payload, received_ns=RECEIVED_NS + index).batches
    ]
    assert in_order(decoded) == in_order(known)


@BOTH
def test_the_rest_of_a_datagram_does_not_wait(protocol: int) -> None:
    """Sets whose template is known are decoded at once, whatever is beside them."""
    collector = Collector()
    collector.feed(message(protocol, templates(protocol, TEMPLATE)))
    decoded = collector.feed(message(protocol, data(1), data(2, template_id=300), data(3)))
    assert [row["bytes"] for row in rows(decoded)] == [1, 3]
    assert collector.pipeline.parking.sets == 1


@BOTH
@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"source": OTHER}, id="exporter"),
        pytest.param({"domain": 1}, id="domain"),
    ],
)
def test_anothers_template_is_no_help(protocol: int, other: dict[str, object]) -> None:
    """Templates belong to an exporter and an observation domain."""
    collector = Collector()
    collector.feed(message(protocol, data(1)))
    domain = other.get("domain", 0)
    assert isinstance(domain, int)
    source = other.get("source", EXPORTER)
    assert isinstance(source, bytes)
    payload = (
        v9_datagram(v9_templates(TEMPLATE), source_id=domain)
        if protocol == V9
        else ipfix_message(ipfix_templates(TEMPLATE), domain=domain)
    )
    assert rows(collector.feed(payload, source=source)) == []
    assert collector.pipeline.parking.sets == 1


def test_v9_and_ipfix_do_not_share_templates() -> None:
    """One exporter may send both, with the same identifiers."""
    collector = Collector()
    collector.feed(v9_datagram(v9_templates(TEMPLATE)), ipfix_message(ipfix_templates(template(256, field(2, 4)))))
    found = rows(collector.feed(v9_datagram(data(1)), ipfix_message(data(2))))
    assert [(row.get("bytes"), row.get("packets")) for row in found] == [(1, None), (None, 2)]


def test_the_source_port_does_not_matter() -> None:
    """An exporter that changes its port is the same exporter."""
    collector = Collector()
    collector.feed(v9_datagram(v9_templates(TEMPLATE)))
    datagrams = packed([v9_datagram(data(1))])
    datagrams.source_port[:] = 1
    assert [row["bytes"] for row in rows(collector.take(datagrams))] == [1]


@BOTH
def test_templates_that_another_worker_heard_release_what_waits(protocol: int) -> None:
    """Learned by the topic instead of the wire, a template does the same."""
    collector, other = Collector(), Pipeline()
    payload = message(protocol, data(1, 2))
    collector.feed(payload)
    heard = other.decode(packed([message(protocol, templates(protocol, TEMPLATE))]))
    decoded = checked(collector.pipeline.learn([(item.key, item.template) for item in heard.learned]))
    assert in_order(decoded) == one_by_one(message(protocol, templates(protocol, TEMPLATE)), payload)
    assert [row["bytes"] for row in rows(collector.feed(message(protocol, data(3))))] == [3]


def test_learning_what_is_known_changes_nothing() -> None:
    """A template that this worker has learned itself comes back by the topic without effect."""
    collector = Collector()
    heard = collector.feed(v9_datagram(v9_templates(TEMPLATE)))
    again = collector.pipeline.learn([(item.key, item.template) for item in heard.learned])
    assert not again.learned
    assert rows(again) == []


@BOTH
def test_what_one_template_releases_of_many_exporters_is_decoded_together(protocol: int) -> None:
    """Templates of many exporters that share a layout cost one batch, as their data would have without waiting."""
    collector = Collector()
    sources = [mapped(f"198.51.100.{index}") for index in range(1, 40)]
    for source in sources:
        collector.feed(message(protocol, data(1, 2)), source=source)
    pipeline = Pipeline()
    heard = [pipeline.decode(packed([message(protocol, templates(protocol, TEMPLATE))], source)) for source in sources]
    known = [(item.key, item.template) for decoded in heard for item in decoded.learned]
    decoded = checked(collector.pipeline.learn(known))
    assert len(decoded.batches) == 1
    assert sorted(row["sampler_address"] for row in rows(decoded)) == sorted(sources * 2)
    assert len({row["record_id"] for row in rows(decoded)}) == 2 * len(sources)


# --- redefinition

FOUR = template(256, field(1, 4))
EIGHT = template(256, field(2, 8))
TWELVE = template(256, field(2, 8), field(1, 4))
TWO = template(256, field(7, 2))


@BOTH
def test_a_template_may_be_redefined_in_mid_stream(protocol: int) -> None:
    """Data before the new template is read by the old one, data after it by the new one."""
    payloads = [
        message(protocol, templates(protocol, FOUR), data(1)),
        message(protocol, data(2), templates(protocol, TWELVE), data_set(256, number(7, 8) + number(3, 4))),
        message(protocol, data_set(256, number(8, 8) + number(4, 4))),
        message(protocol, templates(protocol, TWELVE)),
        message(protocol, data_set(256, number(9, 8) + number(5, 4))),
    ]
    collector = Collector()
    decoded = [collector.feed(payload) for payload in payloads]
    found = [(row["bytes"], row.get("packets")) for item in decoded for row in rows(item)]
    assert found == [(1, None), (2, None), (3, 7), (4, 8), (5, 9)]
    assert [item.oddities[Oddity.TEMPLATE_REDEFINED] for item in decoded] == [0, 1, 0, 0, 0]
    assert not any(item.faults for item in decoded)
    whole = Collector().feed(*payloads)
    assert sorted((row["bytes"], row.get("packets")) for row in rows(whole)) == found
    assert in_order(whole) == one_by_one(*payloads)


@BOTH
def test_while_two_layouts_are_known_the_length_tells(protocol: int) -> None:
    """A redefinition that nobody confirmed does not spoil data that only fits the layout before it."""
    collector = Collector()
    collector.feed(message(protocol, templates(protocol, TWELVE)))
    collector.feed(message(protocol, templates(protocol, EIGHT)))
    old = data_set(256, number(7, 8) + number(3, 4))
    new = data_set(256, number(9, 8))
    decoded = collector.feed(message(protocol, old), message(protocol, new))
    assert sorted((row["packets"], row.get("bytes")) for row in rows(decoded)) == [(7, 3), (9, None)]
    assert nothing_wrong(decoded)


FITS = [
    pytest.param(number(7, 8) + number(3, 4), [(7, 3)], id="the old one"),
    pytest.param(number(7, 8) + number(3, 4) + b"\1\2\3", [(7, 3)], id="the old one, and three bytes"),
    pytest.param(number(7, 8) * 3, [(7, None)] * 3, id="both, so the new one"),
    pytest.param(number(7, 8), [(7, None)], id="the new one"),
    pytest.param(number(7, 8) + bytes(7), [(7, None)], id="the new one, and zeros"),
]


@pytest.mark.parametrize(("body", "expected"), FITS)
@BOTH
def test_a_length_fits_when_the_rest_is_padding(
    protocol: int, body: bytes, expected: list[tuple[int, int | None]]
) -> None:
    """What whole records leave is under four bytes, or zeros; the newest layout that fits is taken."""
    collector = Collector()
    collector.feed(message(protocol, templates(protocol, TWELVE)))
    collector.feed(message(protocol, templates(protocol, EIGHT)))
    decoded = collector.feed(message(protocol, data_set(256, body)))
    assert [(row["packets"], row.get("bytes")) for row in rows(decoded)] == expected


@BOTH
def test_zeros_are_padding_however_many(protocol: int) -> None:
    """A set of the old layout that is padded to a multiple of eight is still the old one's."""
    collector = Collector()
    collector.feed(message(protocol, templates(protocol, template(256, field(2, 8), field(1, 8), field(16, 4)))))
    collector.feed(message(protocol, templates(protocol, template(256, field(2, 8), field(1, 8)))))
    record = number(7, 8) + number(3, 8) + number(65000, 4)
    decoded = collector.feed(message(protocol, data_set(256, record, padding=8)))
    assert [(row["packets"], row["bytes"], row.get("src_as")) for row in rows(decoded)] == [(7, 3, 65000)]
    assert nothing_wrong(decoded)


@BOTH
def test_with_one_layout_known_an_odd_remainder_is_counted(protocol: int) -> None:
    """Once a redefinition is confirmed, the layout before it is no more."""
    collector = Collector()
    for described in (TWELVE, EIGHT, EIGHT):
        collector.feed(message(protocol, templates(protocol, described)))
    decoded = collector.feed(message(protocol, data_set(256, number(7, 8) + number(3, 4))))
    assert [(row["packets"], row.get("bytes")) for row in rows(decoded)] == [(7, None)]
    assert dict(decoded.oddities) == {Oddity.TRAILING_BYTES: 1}


@BOTH
def test_a_set_in_which_no_record_fits_waits(protocol: int) -> None:
    """As if its template were unknown: it is decoded when a template comes whose record it can hold."""
    collector = Collector()
    collector.feed(message(protocol, templates(protocol, TWELVE)))
    waiting = collector.feed(message(protocol, data(5)))
    assert rows(waiting) == []
    assert nothing_wrong(waiting)
    assert collector.pipeline.parking.sets == 1
    collector.feed(message(protocol, templates(protocol, TWELVE)))
    assert collector.pipeline.parking.sets == 1
    decoded = collector.feed(message(protocol, templates(protocol, FOUR)))
    assert [row["bytes"] for row in rows(decoded)] == [5]
    assert collector.pipeline.parking.sets == 0


MANY_TIMES = [FOUR, EIGHT, TWELVE, TWO, template(256, field(1, 3)), template(256, field(1, 6)), FOUR, EIGHT]


@pytest.mark.parametrize("together", [True, False], ids=["one datagram", "a datagram each"])
@BOTH
def test_a_template_may_be_redefined_often_in_a_batch(protocol: int, together: bool) -> None:
    """Each data set is read by what was known at its place; nothing raises, however often."""
    first = message(protocol, templates(protocol, FOUR))
    sets = [part for described in MANY_TIMES for part in (templates(protocol, described), data_set(256, b"\1" * 24))]
    payloads = (
        [message(protocol, data(99), *sets)] if together else [message(protocol, one) for one in (data(98), *sets)]
    )
    collector = Collector()
    collector.feed(first)
    decoded = collector.feed(*payloads)
    assert not decoded.faults
    assert len(rows(decoded)) == 1 + 6 + 3 + 2 + 12 + 8 + 4 + 6 + 3
    # And what comes after the batch is read by what it left behind.
    assert [row["packets"] for row in rows(collector.feed(message(protocol, data_set(256, number(3, 8)))))] == [3]


@BOTH
def test_redefining_without_end_is_bounded(protocol: int) -> None:
    """A datagram that does nothing but redefine is learned from, and data around it is read with something known."""
    described = [FOUR, EIGHT] * (5 * MOST_CHANGES)
    payload = message(
        protocol, *(part for one in described for part in (templates(protocol, one), data_set(256, bytes(8))))
    )
    collector = Collector()
    decoded = collector.feed(message(protocol, data(1)), payload, message(protocol, data(2, 3)))
    assert sum(row["bytes"] for row in rows(decoded) if "bytes" in row) >= 1
    assert decoded.oddities[Oddity.TEMPLATE_REDEFINED] == len(described) - 1
    assert not decoded.faults
    assert collector.pipeline.templates.layouts == 2


SPLITS: list[list[bytes]] = [
    [data(1), v9_templates(TWELVE), v9_templates(FOUR), data(2)],
    [data_set(256, bytes(12)), v9_templates(FOUR), v9_templates(FOUR), data_set(256, bytes(12)), v9_templates(TWELVE)],
    [v9_templates(TWELVE), data(1), v9_templates(FOUR), v9_templates(FOUR), data(2), data_set(256, bytes(12))],
    [v9_templates(FOUR), v9_templates(TWELVE), v9_templates(TWELVE), data(1), v9_templates(TWO), data(1)],
    [v9_templates(TWO), v9_templates(TWELVE), v9_templates(TWELVE), data(1), v9_templates(EIGHT), v9_templates(FOUR)],
    [
        v9_templates(FOUR),
        v9_templates(EIGHT),
        data_set(256, b"\1" * 12),
        v9_templates(EIGHT),
        data_set(256, b"\1" * 12),
    ],
    [data_set(256, b"\1"), v9_templates(EIGHT), data_set(256, b"\1\2"), v9_templates(TWO), data_set(256, b"\1")],
]


@pytest.mark.parametrize("sets", [pytest.param(sets, id=str(index)) for index, sets in enumerate(SPLITS)])
def test_where_a_batch_ends_does_not_matter(sets: list[bytes]) -> None:
    """Templates, redefinitions and data make the same records in one batch, in two at any place, and one by one."""
    payloads = [v9_datagram(item, sequence=index) for index, item in enumerate(sets)]
    expected = one_by_one(*payloads)
    for cut in range(len(payloads) + 1):
        collector = Collector()
        first, second = collector.feed(*payloads[:cut]), collector.feed(*payloads[cut:])
        assert in_order([*first.batches, *second.batches]) == expected


def test_the_order_of_data_after_its_templates_does_not_matter() -> None:
    """Every order of an exporter's datagrams gives the same set of records."""
    first = v9_datagram(v9_templates(FOUR, template(257, field(2, 8))))
    payloads = [v9_datagram(data(index), data_set(257, number(index, 8)), sequence=index) for index in range(4)]
    expected = one_by_one(first, *payloads)
    for order in permutations(payloads):
        assert one_by_one(first, *order) == expected


# --- withdrawal


@pytest.mark.parametrize(
    "withdrawn",
    [
        pytest.param(template(256), id="one template"),
        pytest.param(template(2), id="all templates"),
    ],
)
def test_a_withdrawal_is_ignored(withdrawn: bytes) -> None:
    """Over UDP a template lives on (RFC 7011 §8.4), and the withdrawal is counted."""
    collector = Collector()
    collector.feed(ipfix_message(ipfix_templates(TEMPLATE)))
    decoded = collector.feed(ipfix_message(ipfix_templates(withdrawn), data(1)))
    assert [row["bytes"] for row in rows(decoded)] == [1]
    assert dict(decoded.oddities) == {Oddity.WITHDRAWAL_IGNORED: 1}
    assert not decoded.faults


REFUSED = [
    pytest.param(V9, template(256), {(Fault.EMPTY_TEMPLATE, Unit.SETS): 1}, {}, id="v9, no field"),
    pytest.param(IPFIX, template(256), {}, {Oddity.WITHDRAWAL_IGNORED: 1}, id="ipfix, no field"),
    pytest.param(V9, template(256, field(1, 0)), {(Fault.EMPTY_TEMPLATE, Unit.SETS): 1}, {}, id="v9, no length"),
    pytest.param(IPFIX, template(256, field(1, 0)), {(Fault.EMPTY_TEMPLATE, Unit.SETS): 1}, {}, id="ipfix, no length"),
]


@pytest.mark.parametrize(("protocol", "described", "lost", "odd"), REFUSED)
def test_a_template_of_nothing_is_refused(
    protocol: int, described: bytes, lost: dict[tuple[Fault, Unit], int], odd: dict[Oddity, int]
) -> None:
    """Its records would never end: its data waits as if it had not come, and the template before it lives on."""
    collector = Collector()
    decoded = collector.feed(message(protocol, templates(protocol, described), data(1)))
    assert rows(decoded) == []
    assert faults(decoded) == lost
    assert dict(decoded.oddities) == odd
    assert collector.pipeline.parking.sets == 1
    known = collector.feed(message(protocol, templates(protocol, TEMPLATE)))
    assert [row["bytes"] for row in rows(known)] == [1]
    after = collector.feed(message(protocol, templates(protocol, described), data(2)))
    assert [row["bytes"] for row in rows(after)] == [2]


# --- what is told of the datagrams


def test_v9_counts_datagrams() -> None:
    """Each is one step of the sequence, whatever it holds."""
    collector = Collector()
    decoded = collector.feed(
        v9_datagram(v9_templates(FOUR), sequence=5), v9_datagram(data(1, 2, 3), sequence=6), v9_datagram(sequence=7)
    )
    (heard,) = decoded.heard
    assert heard.sequence.tolist() == [5, 6, 7]
    assert heard.units.tolist() == [1, 1, 1]
    assert heard.records.tolist() == [0, 3, 0]
    assert heard.exact.tolist() == [True] * 3


UNCOUNTABLE = [
    pytest.param((data(1),), 1, True, 0, id="all known"),
    pytest.param((data(1), data(2, template_id=300)), 1, False, 1, id="a set without a template"),
    pytest.param((data(1), data_set(257, length=9)), 1, False, 1, id="a set that is cut off"),
    pytest.param((data(1), data_set(257, length=1)), 1, False, 1, id="a length that cannot be"),
    pytest.param((data(1), data_set(5)), 1, True, 1, id="a reserved set"),
    pytest.param((data(1, 2), data(3)), 3, True, 0, id="two sets"),
]


@pytest.mark.parametrize(("sets", "units", "exact", "undecoded"), UNCOUNTABLE)
def test_ipfix_counts_data_records(sets: tuple[bytes, ...], units: int, exact: bool, undecoded: int) -> None:
    """The next message's number is this one's and its data records; where some cannot be counted, it is said."""
    collector = Collector()
    collector.feed(ipfix_message(ipfix_templates(FOUR)))
    (heard,) = collector.feed(ipfix_message(*sets, sequence=40)).heard
    assert heard.sequence.tolist() == [40]
    assert heard.units.tolist() == [units]
    assert heard.exact.tolist() == [exact]
    assert heard.undecoded.tolist() == [undecoded]


def test_templates_are_counted_and_told_when_they_are_new() -> None:
    """Every template record is counted; what is learned is told once."""
    collector = Collector()
    first = collector.feed(v9_datagram(v9_templates(FOUR, template(257, field(2, 8)))))
    assert (first.templates, len(first.learned)) == (2, 2)
    again = collector.feed(v9_datagram(v9_templates(FOUR, template(257, field(2, 8)))))
    assert (again.templates, len(again.learned)) == (2, 0)


def test_all_protocols_of_a_batch_are_decoded_by_what_they_are() -> None:
    """A batch may mix versions, exporters and layouts; each batch of columns is of one layout."""
    collector = Collector()
    decoded = collector.feed(
        v5_datagram(v5_record()),
        v9_datagram(v9_templates(FOUR), data(1)),
        ipfix_message(ipfix_templates(template(256, field(8, 4), field(371, 65535))), data_set(256, ipv4("192.0.2.9") + variable("u"))),
        v9_datagram(v9_templates(template(300, field(2, 8))), data_set(300, number(5, 8))),
    )  # fmt: skip
    assert sorted(row["type"] for row in rows(decoded)) == ["IPFIX", "NETFLOW_V5", "NETFLOW_V9", "NETFLOW_V9"]
    assert len(decoded.batches) == 4
    for batch in decoded.batches:
        names = batch.schema.names
        assert names == sorted(names, key=POSITION.__getitem__)
        assert [field_.type for field_ in batch.schema] == [COLUMN[name].type for name in names]


def test_a_batch_without_datagrams_is_nothing() -> None:
    """An empty batch gives nothing and raises nothing."""
    decoded = Collector().feed()
    assert rows(decoded) == []
    assert nothing_wrong(decoded)


def test_records_outlive_their_buffer() -> None:
    """The columns of a batch are their own: the receiver may use its buffer again."""
    collector = Collector()
    datagrams = packed([v9_datagram(v9_templates(template(256, field(8, 4), field(1, 4))),
                                    data_set(256, ipv4("192.0.2.1") + number(7, 4)))])  # fmt: skip
    decoded = collector.take(datagrams)
    before = rows(decoded)
    datagrams.buffer[:] = 0xEE
    assert rows(decoded) == before
