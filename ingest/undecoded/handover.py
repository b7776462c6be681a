"""From a worker's memory to ``flows.undecoded``: sets for which there is no room, or no time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ingest.decoders.sets import DataSets
from ingest.producer import BY_KEY
from ingest.refusal import Refusal
from ingest.undecoded import message
from ingest.undecoded.outgoing import Letter, Outgoing
from shared.kafka import Properties
from shared.metrics import Book

QUEUE_BYTES: Final = 64 << 20
"""Messages that Kafka has not acknowledged."""

GATHERED_BYTES: Final = 4 << 20
"""At the end so much is gathered, sorted by exporter, and sent, before the next part is taken from memory."""

EXPORTER_AND_VERSION: Final = slice(0, 18)
"""The part of a template's key that sets in one message share."""


class Allowance:
    """How many bytes may go: so many a second, and what was saved of that, up to ``burst_bytes``."""

    def __init__(self, bytes_per_second: float, burst_bytes: int) -> None:
        self.burst_bytes = burst_bytes
        self._bytes_per_second = bytes_per_second
        self._level = float(burst_bytes)
        self._at_ns: int | None = None

    def level(self, now_ns: int) -> int:
        """What may go now; negative after more went than might."""
        if self._at_ns is not None:
            saved = (now_ns - self._at_ns) / 1e9 * self._bytes_per_second
            self._level = min(self._level + saved, self.burst_bytes)
        self._at_ns = now_ns
        return int(self._level)

    def spend(self, octets: int) -> None:
        """Let bytes go."""
        self._level -= octets


class Handover:
    """Sends sets to the topic, within an allowance: what is sent is read again and again, so that it has to be little.

    Never blocks but in :meth:`close`. ``refused`` is told of every set that Kafka did not take.
    """

    def __init__(
        self,
        properties: Properties,
        topic: str,
        name: str,
        book: Book,
        refused: Callable[[Refusal, int], None],
        allowance: Allowance,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._topic = topic
        self._name = name
        self._book = book
        self._refused = refused
        self._allowance = allowance
        self._queue_bytes = queue_bytes
        self._outgoing = Outgoing(properties, book)

    @property
    def in_flight(self) -> int:
        """Sets that are neither acknowledged nor refused yet."""
        return self._outgoing.rows

    @property
    def reserved(self) -> int:
        """Bytes of the allowance that are not for an exporter that is over its own bound."""
        return self._allowance.burst_bytes // 2

    def room(self, now_ns: int) -> int:
        """Bytes that may go now."""
        return max(0, min(self._allowance.level(now_ns), self._queue_bytes - self._outgoing.octets))

    def send(self, parts: Iterable[DataSets], deadline: float = 0.0) -> None:
        """Send sets, those of an exporter together; waits for room in the queue until ``deadline``."""
        exporters: dict[bytes, list[DataSets]] = {}
        for sets in parts:
            exporters.setdefault(sets.keys[0][EXPORTER_AND_VERSION], []).append(sets)
        for of_exporter in exporters.values():
            for sets in message.messages(of_exporter):
                self._put(sets, deadline)

    def poll(self) -> None:
        """Count what was acknowledged or refused meanwhile."""
        self._outgoing.poll()

    def send_all(self, parts: Iterable[DataSets], deadline: float) -> None:
        """Send sets at the end, whatever the allowance; waits for room in the queue until ``deadline``."""
        for some in _gathered(parts):
            self.send(some, deadline)

    def close(self, deadline: float, alive: Callable[[], None]) -> None:
        """Wait for all that was sent until ``deadline``; what has no acknowledgement then is refused."""
        self._outgoing.flush(deadline, alive)
        self._outgoing.give_up()

    def _put(self, sets: DataSets, deadline: float) -> None:
        count = len(sets)

        def settled(refusal: Refusal | None) -> None:
            if refusal is None:
                self._book.add("ingest_undecoded_produced_total", count)
            else:
                self._refused(refusal, count)

        value = message.encode(sets)
        self._allowance.spend(len(value))
        key = message.exporter_text(sets).encode()
        headers = message.headers(sets, self._name)
        self._outgoing.put(Letter(self._topic, value, count, key, headers, BY_KEY), settled, deadline)


def _gathered(parts: Iterable[DataSets]) -> Iterator[list[DataSets]]:
    some: list[DataSets] = []
    size = 0
    for sets in parts:
        some.append(sets)
        size += len(sets.buffer)
        if size >= GATHERED_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
