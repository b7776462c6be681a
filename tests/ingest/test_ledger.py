from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Fault, Unit
from ingest.ledger import Ledger, balances, ledger
from ingest.refusal import Refusal
from shared.metrics import Book, Snapshot, merge

TOPIC = "flows.records"
NOTHING = {"received": 0, "decoded": 0, "appended": 0, "dropped": {}, "in_flight": 0}
"""The account of sets that waited for their template, when none did."""


def counted(
    *, decoded: int, delivered: int, in_flight: int, dropped: dict[tuple[str, str, str], int] | None = None
) -> Snapshot:
    """What one worker has counted; drops by stage, reason and unit."""
    book = Book()
    book.add("ingest_datagrams_received_total", 3, listener="udp://[::]:2055", protocol="v9")
    book.add("ingest_datagrams_received_total", 2, listener="udp://[::]:4739", protocol="unknown")
    book.add("ingest_records_decoded_total", decoded, protocol="v9")
    book.add("kafka_produced_records_total", delivered, topic=TOPIC)
    book.set("ingest_records_in_flight", in_flight)
    for (stage, reason, unit), value in (dropped or {}).items():
        book.add("ingest_dropped_total", value, stage=stage, reason=reason, unit=unit)
    return book.snapshot()


def test_before_anything_was_counted_the_books_are_empty_and_balance() -> None:
    """Every account is there from the start, with zeros."""
    books = ledger({})
    assert books == {
        "received": {"datagrams": 0, "records": 0, "from_spool": 0},
        "delivered": {"records": 0},
        "dropped": {"datagrams": {}, "sets": {}, "records": {}},
        "in_flight": {"records": 0},
        "counters": {"received": 0, "from_spool": 0, "delivered": 0, "dropped": {}, "in_flight": 0},
        "parked": NOTHING,
        "undecoded": NOTHING,
        "before_reception": {"socket_drops": 0},
    }
    assert balances(books)


def test_each_unit_has_its_own_account() -> None:
    """Drops are told by unit and reason, whatever the stage, and what the kernel dropped stands apart."""
    book = Book()
    book.add("ingest_socket_drops_total", 17, listener="udp://[::]:2055")
    dropped = {
        ("receive", "too_long", "datagrams"): 1,
        ("decode", "truncated", "datagrams"): 2,
        ("decode", "truncated", "sets"): 4,
        ("decode", "bad_record", "sets"): 8,
        ("produce", "queue_full", "records"): 16,
        ("worker", "worker_died", "records"): 32,
        ("produce", "worker_died", "records"): 64,
    }
    books = ledger(merge([counted(decoded=212, delivered=70, in_flight=30, dropped=dropped), book.snapshot()]))
    assert books == {
        "received": {"datagrams": 5, "records": 212, "from_spool": 0},
        "delivered": {"records": 70},
        "dropped": {
            "datagrams": {"too_long": 1, "truncated": 2},
            "sets": {"truncated": 4, "bad_record": 8},
            "records": {"queue_full": 16, "worker_died": 96},
        },
        "in_flight": {"records": 30},
        "counters": {"received": 0, "from_spool": 0, "delivered": 0, "dropped": {}, "in_flight": 0},
        "parked": NOTHING,
        "undecoded": NOTHING,
        "before_reception": {"socket_drops": 17},
    }
    assert balances(books)


def test_counter_samples_have_an_account_of_their_own() -> None:
    """Neither their topic's messages nor their drops are among those of records, and they have to balance too."""
    book = Book()
    book.add("ingest_counters_decoded_total", 100)
    book.add("kafka_produced_records_total", 90, topic="dc1.flows.counters")
    book.add("ingest_dropped_total", 7, stage="produce", reason="queue_full", unit="counters")
    book.set("ingest_counters_in_flight", 3)
    snapshot = merge([counted(decoded=10, delivered=10, in_flight=0), book.snapshot()])
    books = ledger(snapshot)
    assert books["counters"] == {
        "received": 100,
        "from_spool": 0,
        "delivered": 90,
        "dropped": {"queue_full": 7},
        "in_flight": 3,
    }
    assert (books["delivered"], books["dropped"]["records"]) == ({"records": 10}, {})
    assert balances(books)
    book.add("ingest_counters_decoded_total", 1)
    assert not balances(ledger(merge([counted(decoded=10, delivered=10, in_flight=0), book.snapshot()])))


def waited(**changes: int) -> Snapshot:
    """What one worker has counted of sets that waited, in memory and in the topic."""
    counts = {
        "ingest_sets_parked_total": 100,
        "ingest_sets_unparked_total": 50,
        "ingest_undecoded_produced_total": 30,
        "ingest_undecoded_read_total": 40,
        "ingest_undecoded_decoded_total": 20,
        "ingest_undecoded_appended_total": 15,
    } | changes
    book = Book()
    for name, value in counts.items():
        book.add(name, value)
    book.set("ingest_sets_in_flight", 8)
    for stage, reason, value in (
        ("park", "queue_full", 7),
        ("park", "template_never_came", 1),
        ("worker", "worker_died", 4),
        ("undecoded", "template_never_came", 5),
        ("decode", "truncated", 1000),
        ("decode", "parking_full", 1000),
    ):
        book.add("ingest_dropped_total", value, stage=stage, reason=reason, unit="sets")
    return book.snapshot()


def test_sets_that_waited_have_accounts_of_their_own() -> None:
    """Of memory and of the topic: decoded, appended to the topic, dropped by why, or still there."""
    books = ledger(waited())
    assert books["parked"] == {
        "received": 100,
        "decoded": 50,
        "appended": 30,
        "dropped": {"queue_full": 7, "template_never_came": 1, "worker_died": 4},
        "in_flight": 8,
    }
    assert books["undecoded"] == {
        "received": 40,
        "decoded": 20,
        "appended": 15,
        "dropped": {"template_never_came": 5},
        "in_flight": 0,
    }
    assert books["dropped"]["sets"]["template_never_came"] == 6
    assert balances(books)


@pytest.mark.parametrize("name", ["ingest_sets_parked_total", "ingest_undecoded_read_total"])
def test_sets_that_are_nowhere_do_not_balance(name: str) -> None:
    """A set that waited and of which nobody knows what became is a silent drop."""
    counted = {"ingest_sets_parked_total": 101, "ingest_undecoded_read_total": 41}
    assert not balances(ledger(waited(**{name: counted[name]})))


def test_messages_of_other_topics_are_no_records() -> None:
    """What waits, dead letters and what is known of exporters are rows of messages too, but no records delivered."""
    book = Book()
    for topic in ("dc1.flows.undecoded", "dc1.flows.deadletter", "dc1.flows.exporters"):
        book.add("kafka_produced_records_total", 9, topic=topic)
    books = ledger(merge([counted(decoded=10, delivered=10, in_flight=0), book.snapshot()]))
    assert books["delivered"] == {"records": 10}
    assert balances(books)


@pytest.mark.parametrize(
    ("decoded", "delivered", "in_flight", "lost", "fits"),
    [
        pytest.param(100, 100, 0, 0, True, id="all delivered"),
        pytest.param(100, 50, 30, 20, True, id="some of each"),
        pytest.param(100, 50, 30, 0, False, id="a silent drop"),
        pytest.param(100, 101, 0, 0, False, id="delivered twice"),
        pytest.param(100, 100, 1, 0, False, id="delivered and in flight"),
    ],
)
def test_records_that_are_nowhere_do_not_balance(
    decoded: int, delivered: int, in_flight: int, lost: int, fits: bool
) -> None:
    """Received is delivered, dropped and in flight: no more, and no less. Drops in other units do not count here."""
    dropped = {("produce", "queue_full", "records"): lost, ("decode", "truncated", "sets"): 7}
    books = ledger(counted(decoded=decoded, delivered=delivered, in_flight=in_flight, dropped=dropped))
    assert balances(books) is fits


SHARES = st.lists(st.tuples(*[st.integers(0, 10**12)] * 4), max_size=5)


@given(SHARES)
def test_the_books_of_all_workers_together_balance_when_each_ones_do(shares: list[tuple[int, int, int, int]]) -> None:
    """The supervisor adds up what its workers counted, in whatever shares."""
    snapshots = [
        counted(
            decoded=delivered + in_flight + full + died,
            delivered=delivered,
            in_flight=in_flight,
            dropped={("produce", "queue_full", "records"): full, ("worker", "worker_died", "records"): died},
        )
        for delivered, in_flight, full, died in shares
    ]
    books: Ledger = ledger(merge(snapshots))
    assert balances(books)
    assert books["received"]["records"] == sum(sum(share) for share in shares)


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("reason", [*Fault, *Refusal, "worker_died", "awaiting_template"])
def test_every_reason_has_its_place(unit: Unit, reason: str) -> None:
    """Whatever is dropped, in whatever unit it is counted, is in the books under its own name."""
    books = ledger(counted(decoded=0, delivered=0, in_flight=0, dropped={("somewhere", str(reason), unit.value): 9}))
    dropped = books["counters"]["dropped"] if unit is Unit.COUNTERS else books["dropped"][unit.value]
    assert dropped == {str(reason): 9}
