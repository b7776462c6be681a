"""The books of one sink: what was read is delivered, dropped for a reason, or in flight; nothing else can become of it."""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.metrics import Book


class Drop(StrEnum):
    """Why something was dropped: the values of the label ``reason``."""

    CORRUPT = "corrupt"
    """A message that cannot be decoded; counted in records, and as one where it does not say how many."""
    REFUSED = "refused"
    """A record that the sink refused for good; it is a dead letter."""
    TOO_LARGE = "too_large"
    """A record that is by itself too large for the sink; it is a dead letter."""
    DUPLICATE = "duplicate"
    """A record that is in the log before, by its id."""
    OTHER_EXPORTER = "other_exporter"
    """An observation of a flow that counts by another one, where these are not to be delivered."""
    EXPIRED = "expired"
    """What Kafka let go before it was read; counted in messages, since nobody knows how many records they held."""


class Ledger:
    """Counts records of one sink, and shows them as metrics; may be asked by any thread, and is always balanced.

    What a rebalance or a stop returns to Kafka was not received: whoever reads it next receives it.
    """

    def __init__(self, sink: str, topic: str, book: Book) -> None:
        self._sink = sink
        self._topic = topic
        self._book = book
        self._lock = threading.Lock()
        self._received = 0
        self._delivered = 0
        self._returned = 0
        self._in_flight = 0
        self._dropped: Counter[Drop] = Counter()
        self._expired_messages = 0
        # A counter that is there from the start can be watched before anything has happened.
        book.add("forwarder_records_delivered_total", 0, sink=sink)
        book.add("forwarder_batches_delivered_total", 0, sink=sink)
        for reason in Drop:
            book.add("forwarder_dropped_total", 0, sink=sink, reason=reason)
        self._gauge()

    @property
    def in_flight(self) -> int:
        """Records that were received and that nothing has become of yet."""
        return self._in_flight

    def receive(self, partition: int, records: int) -> None:
        """Count records that were read."""
        with self._lock:
            self._received += records
            self._in_flight += records
        self._book.add(
            "forwarder_records_consumed_total", records, sink=self._sink, topic=self._topic, partition=partition
        )
        self._gauge()

    def deliver(self, records: int) -> None:
        """Count the records of a batch that the sink acknowledged."""
        with self._lock:
            self._delivered += records
            self._in_flight -= records
        self._book.add("forwarder_records_delivered_total", records, sink=self._sink)
        self._book.add("forwarder_batches_delivered_total", sink=self._sink)
        self._gauge()

    def drop(self, reason: Drop, records: int) -> None:
        """Count records that were received and will not be delivered."""
        with self._lock:
            self._dropped[reason] += records
            self._in_flight -= records
        self._book.add("forwarder_dropped_total", records, sink=self._sink, reason=reason)
        self._gauge()

    def give_back(self, records: int) -> None:
        """Count records that stay in Kafka for whoever reads their partition next."""
        with self._lock:
            self._received -= records
            self._returned += records
            self._in_flight -= records
        self._book.add("forwarder_records_returned_total", records, sink=self._sink)
        self._gauge()

    def expire(self, messages: int) -> None:
        """Count messages that Kafka let go before they were read; they were never received."""
        with self._lock:
            self._expired_messages += messages
        self._book.add("forwarder_dropped_total", messages, sink=self._sink, reason=Drop.EXPIRED)

    def as_json(self) -> dict[str, Any]:
        """Return the books as ``/api/v1/ledger`` shows them: received = delivered + dropped + in flight.

        ``returned`` and ``expired`` stand beside: they are no part of what was received.
        """
        with self._lock:
            return {
                "received": {"records": self._received},
                "delivered": {"records": self._delivered},
                "dropped": {"records": {str(reason): count for reason, count in self._dropped.items() if count}},
                "in_flight": {"records": self._in_flight},
                "returned": {"records": self._returned},
                "expired": {"messages": self._expired_messages},
            }

    def _gauge(self) -> None:
        self._book.set("forwarder_records_in_flight", self._in_flight, sink=self._sink)
