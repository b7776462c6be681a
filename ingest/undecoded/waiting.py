"""What a worker does with sets that wait for their template: in its memory, on their way to Kafka, and back from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from ingest.decoders.fault import Unit
from ingest.ledger import PARK_STAGE
from ingest.parking import ParkingBounds
from ingest.undecoded.chunk import Answer
from ingest.undecoded.group import ScanBounds, UndecodedGroup
from ingest.undecoded.handover import QUEUE_BYTES, Allowance, Handover
from ingest.undecoded.outgoing import Tally
from ingest.undecoded.settle import Settler, outgoing
from shared.kafka import UNDECODED, full_name, producer_properties

if TYPE_CHECKING:
    from ingest.config import TemplatesConfig
    from ingest.decoders import Decoded
    from ingest.decoders.sets import DataSets
    from ingest.outbox import MessageBounds
    from ingest.pipeline import Pipeline
    from ingest.refusal import Refusal
    from shared.config import KafkaConfig
    from shared.metrics import Book

AWAITING_TEMPLATE: Final = "awaiting_template"
"""Why sets were dropped at a stop, before any broker had answered."""

LAST_SECONDS: Final = 2.0
"""How long a stopping worker waits for acknowledgements at least, when those of records have taken all of its time."""

NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class WaitingShare:
    """What a worker has to do with the topic, beside the other workers of its instance."""

    workers: int = 1
    """How many share what an instance may put in."""
    reads: bool = True
    """Whether this one is the instance's member of the group that reads it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a worker is called: in the headers of its messages, and by its Kafka clients."""

    producer: str
    client: str


def parking_bounds(config: TemplatesConfig) -> ParkingBounds:
    """How much waits in memory, as configured."""
    parking = config.parking
    return ParkingBounds(parking.max_bytes, parking.exporter_max_bytes, parking.max_age_seconds * NANOSECONDS)


class WaitingSets:
    """The worker's loop calls it in each round; nothing here blocks but at the end.

    **patient**: sets leave the memory of a worker for ``flows.undecoded`` when a bound is reached and when the worker
    stops; nothing of them is dropped but what Kafka does not take, or what is more than an instance may put in.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        config: TemplatesConfig,
        names: Names,
        share: WaitingShare,
        messages: MessageBounds,
        pipeline: Pipeline,
        book: Book,
        *,
        drop: Callable[[str, str, Unit, int], None],
        note: Callable[[Decoded], None],
        complete: Callable[[pa.RecordBatch], pa.RecordBatch],
        label: Callable[[str], str],
    ) -> None:
        """The functions are the worker's.

        ``drop`` counts what is lost, by stage, reason and unit; ``note`` what came of sets besides records;
        ``complete`` adds to records what is known beside them; ``label`` is a protocol's name in the metrics.
        """
        self._pipeline = pipeline
        self._parking = pipeline.parking
        self._book = book
        self._drop = drop
        self._note = note
        self._complete = complete
        scans = config.undecoded
        # A set that is put in is read at least once more than it is put in: half of what can be read is the most that
        # may come, in the long run. What waits in memory may leave at once.
        rate = scans.scan_max_bytes / scans.scan_seconds / share.workers / 2
        self._handover = Handover(
            producer_properties(kafka, f"{names.client}-undecoded", queue_bytes=QUEUE_BYTES + config.parking.max_bytes),
            full_name(kafka, UNDECODED),
            names.producer,
            book,
            self._refused,
            Allowance(rate, config.parking.max_bytes),
        )
        self._group: UndecodedGroup | None = None
        if share.reads:
            client = f"{names.client}-reread"
            tally = Tally()
            settler = Settler(kafka, names.producer, messages, label, tally, outgoing(kafka, client, tally))
            self._group = UndecodedGroup(
                kafka,
                client,
                ScanBounds(scans.scan_seconds, scans.scan_max_bytes, scans.max_age_seconds * NANOSECONDS),
                settler,
                self._decode,
                pipeline.templates.candidates,
            )
        self._told_parked = self._told_released = 0

    @property
    def in_flight(self) -> int:
        """Sets that wait in memory, or are on their way to the topic."""
        return self._parking.sets + self._parking.leaving + self._handover.in_flight

    def turn(self, now_ns: int, partitions: int) -> None:
        """Send what has left the memory, decode what was read again; ``partitions`` is 0 before the topics are known."""
        self._send_leaving()
        self._handover.poll()
        if not partitions:
            return
        self._parking.allowance = self._handover.room(now_ns)
        self._parking.reserved = self._handover.reserved
        if self._group is not None:
            self._group.start(partitions)
            self._group.serve()

    def report(self) -> None:
        """Bring the book up to date, before a snapshot of it is taken."""
        parking, book = self._parking, self._book
        book.add("ingest_sets_parked_total", parking.parked - self._told_parked)
        book.add("ingest_sets_unparked_total", parking.released - self._told_released)
        self._told_parked, self._told_released = parking.parked, parking.released
        book.set("ingest_sets_in_flight", self.in_flight)
        if self._group is not None:
            self._group.tally.enter(book)
            book.set("ingest_undecoded_messages", self._group.behind)

    def leave_group(self) -> None:
        """Read nothing more; another member goes on where this one is."""
        if self._group is not None:
            self._group.stop()

    def hand_over(self, deadline: float, partitions: int) -> None:
        """Send everything that waits, at the end; waits for room in the queue until ``deadline`` at most."""
        self._send_leaving()
        if partitions:
            self._handover.send_all(self._parking.drain(), deadline)
            return
        waiting = self._parking.clear()
        if waiting:
            self._drop(PARK_STAGE, AWAITING_TEMPLATE, Unit.SETS, waiting)

    def close(self, wait_seconds: float, alive: Callable[[], None]) -> None:
        """Wait for the acknowledgement of what was sent; what has none in time is dropped."""
        self._handover.close(time.monotonic() + wait_seconds, alive)
        if self._group is not None:
            self._group.join()

    def _send_leaving(self) -> None:
        leaving = self._parking.take_leaving()
        if leaving:
            self._handover.send(leaving)

    def _refused(self, refusal: Refusal, sets: int) -> None:
        self._drop(PARK_STAGE, refusal.value, Unit.SETS, sets)

    def _decode(self, parts: Sequence[DataSets]) -> Answer:
        """Decode sets that were read again."""
        decoded, waiting = self._pipeline.decode_again(parts)
        self._note(decoded)
        keys = {
            sets.keys[index]
            for sets, waits in zip(parts, waiting, strict=True)
            for index in np.flatnonzero(waits).tolist()
        }
        known = {key: self._pipeline.templates.candidates(key) for key in keys}
        return Answer([self._complete(batch) for batch in decoded.batches], waiting, known)
