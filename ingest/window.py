"""Messages that the Kafka client has and Kafka has not acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from ingest.spool import Place
from shared.codec import Headers

BY_KEY: Final = -1
"""No partition in particular: the client chooses it by the hash of the message's key, or any when there is none."""


@dataclass(slots=True, eq=False)
class Sent:
    """A message on its way."""

    partition: int
    key: bytes | None
    headers: Headers
    records: int
    size: int
    """Bytes of its value."""
    begun: float
    """When it was handed over, by the monotonic clock."""
    batch: pa.RecordBatch | None = None
    """What it is encoded from, kept where it may have to be encoded once more: its columns are in memory anyway."""
    place: Place | None = None
    """Where it lies in the spool, when it does."""
    number: int = -1
    """Counts up in the order in which messages are handed over."""


class Window:
    """The messages in the client's hands, in the order in which it got them."""

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}
        self._number = 0
        self.bytes = 0
        self.records_in_memory = 0
        """Records of messages that are nowhere else."""

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Sent]:
        return iter(self._sent.values())

    @property
    def oldest(self) -> Sent | None:
        """The message that waits for the longest time."""
        return next(iter(self._sent.values()), None)

    def add(self, sent: Sent) -> None:
        """Take a message in that was handed over."""
        self._number += 1
        sent.number = self._number
        self._sent[sent.number] = sent
        self.bytes += sent.size
        if sent.place is None:
            self.records_in_memory += sent.records

    def remove(self, sent: Sent) -> bool:
        """Let a message go; False when it had gone before."""
        if self._sent.pop(sent.number, None) is None:
            return False
        self.bytes -= sent.size
        if sent.place is None:
            self.records_in_memory -= sent.records
        return True

    def put(self, sent: Sent, place: Place) -> None:
        """Note that a message lies in the spool too."""
        sent.place, sent.batch = place, None
        if sent.number in self._sent:
            self.records_in_memory -= sent.records
