"""What a worker, and the supervisor, have to do with the spool: what they count and say of it."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableSequence, Sequence
from typing import Final

from ingest.config import SpoolConfig
from ingest.decoders import Unit
from ingest.ledger import Counts, spooled, unit_of
from ingest.refusal import Refusal
from ingest.spool import Found, Reason, Share, Spool, SpoolFault, SpoolLog
from shared.log import Logger, Throttle
from shared.metrics import Book, Snapshot, total

PATIENCE_SECONDS: Final = 5.0
"""How long a worker waits at its start for a broker to say how many partitions there are; then it takes it that there are
as many as there were, or as would be made, so that records need not wait in memory."""

Drop = Callable[[str, str, Unit, int], None]
"""Counts and tells what was dropped: the stage, the reason, the unit, and how many."""


class WorkerSpool:
    """The spool of a worker, or none where no directory is configured. One thread uses it."""

    def __init__(
        self,
        config: SpoolConfig,
        share: Share | None,
        topics: Sequence[str],
        assumed_partitions: int,
        book: Book,
        logger: Logger,
        drop: Drop,
    ) -> None:
        self._book = book
        self._log = logger
        self._throttle = Throttle()
        self._drop = drop
        self._assumed_partitions = assumed_partitions
        self._begun = time.monotonic()
        self._spool: Spool | None = None
        if config.directory is not None and share is not None:
            self._spool = Spool(config.directory, config.max_bytes, share, topics, self)

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._spool is not None

    def log(self, topic: str) -> SpoolLog | None:
        """The part of it that is of a topic."""
        return None if self._spool is None else self._spool.logs[topic]

    def open(self) -> None:
        """Take the directory, and what is in it."""
        if self._spool is not None:
            self._spool.open()

    def tend(self) -> None:
        """Do what has to be done now and then; called in every turn of the loop."""
        if self._spool is not None:
            self._spool.tend(time.monotonic())
            self._throttle.flush()

    def report(self) -> None:
        """Count what is on disk."""
        if self._spool is not None:
            self._book.set("ingest_spool_bytes", self._spool.bytes)

    def close(self) -> None:
        """Let go of what is on disk; it stays there."""
        if self._spool is not None:
            self._spool.close()
            self._throttle.flush(everything=True)

    def note_partitions(self, count: int) -> None:
        """The records' topic has so many partitions: kept for a start at which no broker answers."""
        if self._spool is not None:
            self._spool.note_partitions(count)

    def partitions(self, *, at_once: bool) -> int:
        """Into how many partitions records are split while no broker has said it; 0 when they have to wait for one."""
        if self._spool is None or not (at_once or time.monotonic() - self._begun > PATIENCE_SECONDS):
            return 0
        count = self._spool.partitions or self._assumed_partitions
        self._throttle.log(
            self._log,
            "warning",
            "assumed",
            "no broker has answered yet: records are spooled for as many partitions as there were, or would be made;"
            " if there are others, duplicates among these records are not recognised",
            partitions=count,
        )
        return count

    # What the spool has to say

    def found(self, topic: str, found: Found, known: int) -> None:
        """Count what was in the spool at a start: what this instance knew of is in its books already."""
        unit = unit_of(topic)
        rows = found.records + found.records_damaged
        self._book.add("ingest_spool_found_records_total", max(0, rows - known), topic=topic)
        if known > rows:
            # It was acknowledged, or written in part, after the last report of the worker that died.
            self._drop("worker", "worker_died", unit, known - rows)
        if found.messages:
            self._log.info(
                "there are messages in the spool, which are sent first",
                topic=topic,
                messages=found.messages,
                records=found.records,
            )
        if found.records_damaged:
            self._drop("spool", Refusal.SPOOL_DAMAGED.value, unit, found.records_damaged)
        for path, damage in found.damage:
            what = "its end was cut off" if damage.cut_off else "a part of it is damaged"
            self.failed(
                SpoolFault(
                    Reason.CUT_OFF if damage.cut_off else Reason.DAMAGED,
                    f"{path}: {what}: {damage.octets} bytes, at least {damage.records} records, could not be read",
                )
            )
        for path in found.foreign:
            self.failed(
                SpoolFault(
                    Reason.OTHER_VERSION,
                    f"{path}: written by another version of this program, and left as it is:"
                    " run that version until it is sent, or remove the file",
                )
            )

    def failed(self, fault: SpoolFault) -> None:
        """Count and tell what the spool cannot do."""
        self._book.add("ingest_spool_errors_total", reason=fault.reason.value)
        self._throttle.log(
            self._log, "error", fault.reason, "the spool has a problem", reason=fault.reason.value, problem=fault.text
        )


class InstanceSpool:
    """What the supervisor knows of the spools: the memory in which workers count their bytes, and what is left behind.

    A worker that is gone leaves messages on disk. They are in flight until the next one in its place has taken them over,
    which is when it reports for the first time.
    """

    def __init__(self, config: SpoolConfig, used: MutableSequence[int]) -> None:
        self._config = config
        self._used = used
        self._left: dict[int, Counts] = {}

    def share(self, index: int) -> Share:
        """What the worker in this place is given at its start."""
        return Share(index, len(self._used), self._used, self._left.get(index, {}))

    def leave(self, index: int, snapshot: Snapshot) -> None:
        """The worker in this place is gone; this is what it reported last, if it did."""
        if snapshot:
            self._left[index] = spooled(snapshot)

    def take_over(self, index: int) -> None:
        """The worker in this place has reported: what was left is in its books."""
        self._left.pop(index, None)

    def snapshot(self) -> Snapshot:
        """What is on disk without a worker, in the metrics of workers, and how much may be there in all."""
        book = Book()
        if self._config.directory is not None:
            book.set("ingest_spool_limit_bytes", self._config.max_bytes)
        in_flight = {Unit.RECORDS: 0, Unit.COUNTERS: 0}
        for left in self._left.values():
            for topic, rows in left.items():
                in_flight[unit_of(topic)] += rows
        for unit, rows in in_flight.items():
            if rows:
                book.set(f"ingest_{unit.value}_in_flight", rows)
        return book.snapshot()


def lost_with(snapshot: Snapshot) -> Counts:
    """What died with a worker, by unit: what it had in flight, but for what is on disk."""
    lost = {unit: int(total(snapshot, f"ingest_{unit}_in_flight")) for unit in (Unit.RECORDS, Unit.COUNTERS, Unit.SETS)}
    for topic, rows in spooled(snapshot).items():
        lost[unit_of(topic)] -= rows
    return {unit.value: rows for unit, rows in lost.items()}
