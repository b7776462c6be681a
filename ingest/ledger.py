"""The books of stage one: what was received, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypedDict

from ingest.decoders.fault import Unit
from shared.kafka import COUNTERS, RECORDS
from shared.metrics import Snapshot, total, totals

Counts = dict[str, int]

PARK_STAGE: Final = "park"
UNDECODED_STAGE: Final = "undecoded"
"""The stages that drops of sets are counted under which waited in memory, and in ``flows.undecoded``."""

PARKED_STAGES: Final = frozenset({PARK_STAGE, "worker"})


class Account(TypedDict):
    """What became of one unit: received = delivered + dropped + in flight."""

    received: int
    from_spool: int
    delivered: int
    dropped: Counts
    in_flight: int


class Waiting(TypedDict):
    """What became of sets that waited for their template: received = decoded + appended + dropped + in flight.

    Appended are those that wait in ``flows.undecoded`` from then on, and that Kafka has acknowledged there.
    """

    received: int
    decoded: int
    appended: int
    dropped: Counts
    in_flight: int


class Ledger(TypedDict):
    """One account for each unit that balances by itself.

    Records: received = delivered + dropped + in flight, where received means decoded by this instance, or found in its
    spool: ``from_spool`` says how many of them were that. Delivered is acknowledged by Kafka, and what is in the spool
    is in flight. ``counters`` is the same for counter samples, which have a topic of their own. ``before_reception``
    counts datagrams that the kernel dropped before anything of ours saw them.
    """

    received: Counts
    delivered: Counts
    dropped: dict[str, Counts]
    in_flight: Counts
    counters: Account
    parked: Waiting
    """Sets that waited in memory."""
    undecoded: Waiting
    """Sets that were read from ``flows.undecoded``, each as often as it was read."""
    before_reception: Counts


def ledger(snapshot: Snapshot) -> Ledger:
    """The books by what was counted so far."""
    dropped: dict[str, Counts] = {unit.value: {} for unit in Unit}
    for (_, reason, unit), value in snapshot.get("ingest_dropped_total", {}).items():
        if isinstance(value, int | float):
            dropped[unit][reason] = dropped[unit].get(reason, 0) + int(value)
    delivered, counters = _by_unit(snapshot, "kafka_produced_records_total")
    found, counters_found = _by_unit(snapshot, "ingest_spool_found_records_total")
    return {
        "received": {
            "datagrams": int(total(snapshot, "ingest_datagrams_received_total")),
            "records": int(total(snapshot, "ingest_records_decoded_total")) + found,
            "from_spool": found,
        },
        "delivered": {"records": delivered},
        "counters": {
            "received": int(total(snapshot, "ingest_counters_decoded_total")) + counters_found,
            "from_spool": counters_found,
            "delivered": counters,
            "dropped": dropped.pop(Unit.COUNTERS.value),
            "in_flight": int(total(snapshot, "ingest_counters_in_flight")),
        },
        "dropped": dropped,
        "in_flight": {"records": int(total(snapshot, "ingest_records_in_flight"))},
        "parked": {
            "received": int(total(snapshot, "ingest_sets_parked_total")),
            "decoded": int(total(snapshot, "ingest_sets_unparked_total")),
            "appended": int(total(snapshot, "ingest_undecoded_produced_total")),
            "dropped": _waiting_drops(snapshot, PARKED_STAGES),
            "in_flight": int(total(snapshot, "ingest_sets_in_flight")),
        },
        "undecoded": {
            "received": int(total(snapshot, "ingest_undecoded_read_total")),
            "decoded": int(total(snapshot, "ingest_undecoded_decoded_total")),
            "appended": int(total(snapshot, "ingest_undecoded_appended_total")),
            "dropped": _waiting_drops(snapshot, {UNDECODED_STAGE}),
            # What was read and not settled is in the topic, and is read again.
            "in_flight": 0,
        },
        "before_reception": {"socket_drops": int(total(snapshot, "ingest_socket_drops_total"))},
    }


def balances(books: Ledger) -> bool:
    """Whether the accounts of records, of counter samples, and of sets that waited add up."""
    gone = books["delivered"]["records"] + sum(books["dropped"]["records"].values()) + books["in_flight"]["records"]
    counters = books["counters"]
    gone_counters = counters["delivered"] + sum(counters["dropped"].values()) + counters["in_flight"]
    waited = all(
        one["received"] == one["decoded"] + one["appended"] + sum(one["dropped"].values()) + one["in_flight"]
        for one in (books["parked"], books["undecoded"])
    )
    return waited and books["received"]["records"] == gone and counters["received"] == gone_counters


def unit_of(topic: str) -> Unit:
    """What the rows of a topic of ours are, whatever the prefix of its name."""
    return Unit.COUNTERS if topic.endswith(COUNTERS) else Unit.RECORDS


def spooled(snapshot: Snapshot) -> Counts:
    """What a worker has in its spool: rows by topic."""
    return {topic: int(rows) for topic, rows in totals(snapshot, "ingest_spool_records", by="topic").items()}


def _by_unit(snapshot: Snapshot, name: str) -> tuple[int, int]:
    """A metric that has a topic: the sum over topics of records, and over those of counter samples."""
    rows = totals(snapshot, name, by="topic")
    return _of(rows, RECORDS), _of(rows, COUNTERS)


def _of(rows: Mapping[str, float], ending: str) -> int:
    return int(sum(count for topic, count in rows.items() if topic.endswith(ending)))


def _waiting_drops(snapshot: Snapshot, stages: Collection[str]) -> Counts:
    """Sets that waited and were dropped by these stages, by why."""
    dropped: Counts = {}
    for (stage, reason, unit), value in snapshot.get("ingest_dropped_total", {}).items():
        if unit == Unit.SETS.value and stage in stages and isinstance(value, int | float):
            dropped[reason] = dropped.get(reason, 0) + int(value)
    return dropped
