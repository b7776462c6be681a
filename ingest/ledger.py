"""The books of stage one: what was received, and what became of it."""

from __future__ import annotations

from typing import TypedDict

from shared.metrics import Snapshot, total

Counts = dict[str, int]


class Ledger(TypedDict):
    """One account for each unit that balances by itself.

    Records: received = delivered + dropped + in flight, where received means decoded, and delivered acknowledged by
    Kafka. ``before_reception`` counts datagrams that the kernel dropped before anything of ours saw them.
    """

    received: Counts
    delivered: Counts
    dropped: dict[str, Counts]
    in_flight: Counts
    before_reception: Counts


def ledger(snapshot: Snapshot) -> Ledger:
    """The books by what was counted so far."""
    dropped: dict[str, Counts] = {"datagrams": {}, "sets": {}, "records": {}}
    for (_, reason, unit), value in snapshot.get("ingest_dropped_total", {}).items():
        if isinstance(value, int | float):
            dropped[unit][reason] = dropped[unit].get(reason, 0) + int(value)
    return {
        "received": {
            "datagrams": int(total(snapshot, "ingest_datagrams_received_total")),
            "records": int(total(snapshot, "ingest_records_decoded_total")),
        },
        "delivered": {"records": int(total(snapshot, "kafka_produced_records_total"))},
        "dropped": dropped,
        "in_flight": {"records": int(total(snapshot, "ingest_records_in_flight"))},
        "before_reception": {"socket_drops": int(total(snapshot, "ingest_socket_drops_total"))},
    }


def balances(books: Ledger) -> bool:
    """Whether the records' account adds up."""
    gone = books["delivered"]["records"] + sum(books["dropped"]["records"].values()) + books["in_flight"]["records"]
    return books["received"]["records"] == gone
