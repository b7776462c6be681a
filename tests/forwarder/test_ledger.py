from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forwarder.ledger import Drop, Ledger
from shared.metrics import Book, total

MOVES = st.lists(
    st.tuples(st.sampled_from(["receive", "deliver", "drop", "give_back", "expire"]), st.integers(0, 10_000))
)


@given(MOVES)
def test_the_books_balance_after_every_move(moves: list[tuple[str, int]]) -> None:
    """Received is delivered, dropped by reason, and in flight, whatever happens in whatever order."""
    ledger = Ledger("lake", "flows.records", Book())
    for name, count in moves:
        match name:
            case "receive":
                ledger.receive(0, count)
            case "deliver":
                ledger.deliver(min(count, ledger.in_flight))
            case "drop":
                ledger.drop(Drop.CORRUPT, min(count, ledger.in_flight))
            case "give_back":
                ledger.give_back(min(count, ledger.in_flight))
            case _:
                ledger.expire(count)
        books = ledger.as_json()
        dropped = sum(books["dropped"]["records"].values())
        assert books["received"]["records"] == (books["delivered"]["records"] + dropped + books["in_flight"]["records"])


def test_every_move_is_a_metric_of_the_sink() -> None:
    """What the ledger counts is in the metrics, under the sink's name; drops that never happened are there as 0."""
    book = Book()
    ledger = Ledger("lake", "flows.records", book)
    assert total(book.snapshot(), "forwarder_dropped_total", sink="lake", reason="corrupt") == 0
    ledger.receive(3, 100)
    ledger.deliver(60)
    ledger.drop(Drop.CORRUPT, 10)
    ledger.give_back(5)
    ledger.expire(7)
    snapshot = book.snapshot()
    assert {
        name: total(snapshot, name, sink="lake")
        for name in (
            "forwarder_records_consumed_total",
            "forwarder_records_delivered_total",
            "forwarder_batches_delivered_total",
            "forwarder_records_returned_total",
            "forwarder_records_in_flight",
        )
    } == {
        "forwarder_records_consumed_total": 100,
        "forwarder_records_delivered_total": 60,
        "forwarder_batches_delivered_total": 1,
        "forwarder_records_returned_total": 5,
        "forwarder_records_in_flight": 25,
    }
    assert total(snapshot, "forwarder_dropped_total", sink="lake", reason="corrupt") == 10
    assert total(snapshot, "forwarder_dropped_total", sink="lake", reason="expired") == 7
    assert ledger.as_json() == {
        "received": {"records": 95},
        "delivered": {"records": 60},
        "dropped": {"records": {"corrupt": 10}},
        "in_flight": {"records": 25},
        "returned": {"records": 5},
        "expired": {"messages": 7},
    }
