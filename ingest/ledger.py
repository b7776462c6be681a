"""The books of stage one: what was received, and what became of it."""

from __future__ import annotations

from typing import TypedDict

from ingest.decoders.fault import Unit
from shared.kafka import COUNTERS
from shared.metrics import Snapshot, total

Counts = dict[str, int]


class Account(TypedDict):
    """What became of one unit: received = delivered + dropped + in flight."""

    received: int
    delivered: int
    dropped: Counts
    in_flight: int


class Ledger(TypedDict):
    """One account for each unit that balances by itself.

    Records: received = delivered + dropped + in flight, where received means decoded, and delivered acknowledged by
    Kafka. ``counters`` is the same for counter samples, which have a topic of their own. ``before_reception`` counts
    datagrams that the kernel dropped before anything of ours saw them.
    """

    received: Counts
    delivered: Counts
    dropped: dict[str, Counts]
    in_flight: Counts
    counters: Account
    before_reception: Counts


def ledger(snapshot: Snapshot) -> Ledger:
    """The books by what was counted so far."""
    dropped: dict[str, Counts] = {unit.value: {} for unit in Unit}
    for (_, reason, unit), value in snapshot.get("ingest_dropped_total", {}).items():
        if isinstance(value, int | float):
            dropped[unit][reason] = dropped[unit].get(reason, 0) + int(value)
    produced = {
        topic: int(value)
        for (topic,), value in snapshot.get("kafka_produced_records_total", {}).items()
        if isinstance(value, int | float)
    }
    # Whatever the prefix of its name.
    counters = sum(count for topic, count in produced.items() if topic.endswith(COUNTERS))
    return {
        "received": {
            "datagrams": int(total(snapshot, "ingest_datagrams_received_total")),
            "records": int(total(snapshot, "ingest_records_decoded_total")),
        },
        "delivered": {"records": sum(produced.values()) - counters},
        "counters": {
            "received": int(total(snapshot, "ingest_counters_decoded_total")),
            "delivered": counters,
            "dropped": dropped.pop(Unit.COUNTERS.value),
            "in_flight": int(total(snapshot, "ingest_counters_in_flight")),
        },
        "dropped": dropped,
        "in_flight": {"records": int(total(snapshot, "ingest_records_in_flight"))},
        "before_reception": {"socket_drops": int(total(snapshot, "ingest_socket_drops_total"))},
    }


def balances(books: Ledger) -> bool:
    """Whether the accounts of records and of counter samples add up."""
    gone = books["delivered"]["records"] + sum(books["dropped"]["records"].values()) + books["in_flight"]["records"]
    counters = books["counters"]
    gone_counters = counters["delivered"] + sum(counters["dropped"].values()) + counters["in_flight"]
    return books["received"]["records"] == gone and counters["received"] == gone_counters
