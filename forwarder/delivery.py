"""The policy over every sink: what is in flight, what waits, and when a failed delivery is tried again.

Several batches are in flight at a time, of one partition too: none waits for another, and they may be acknowledged in
any order. What waits is bounded by the caller, who asks :attr:`Delivery.has_room` before it submits.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from forwarder import letters
from forwarder.sifting import Sifting
from forwarder.sinks.base import Busy, Done, Outcome, Refused, TooLarge, Trouble
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    import pyarrow as pa

    from forwarder.cut import Token
    from forwarder.letters import Letter, Letterbox
    from forwarder.sinks.base import Sink
    from shared.metrics import Book

_MAX_DOUBLINGS: Final = 20
"""Past this the delay is at its cap in any case, and the power of two would only grow."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is handed to a sink at a time, how much may wait, and how long between tries.

    A delay is drawn from 0 to the base doubled with each failure, up to the cap (full jitter).
    """

    concurrency: int = 2
    max_queued_records: int = 1_000_000
    max_queued_bytes: int = 256 << 20
    max_queued_batches: int = 1000
    base_seconds: float = 0.2
    cap_seconds: float = 30.0

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds until the next try after so many failures before this one; ``jitter`` is from 0 to 1."""
        return min(self.cap_seconds, self.base_seconds * float(1 << min(failures, _MAX_DOUBLINGS))) * jitter


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """One batch on its way: its name, its records as columns, and what they were added up to, if that is asked for."""

    token: Token
    table: pa.Table
    sums: pa.Table | None = None
    letters: tuple[Letter, ...] = ()
    """Dead letters of the batch that are put away with it."""
    received: pa.ChunkedArray | None = None
    """When its records were received, where the sink gets nothing but their sums."""

    @property
    def rows(self) -> int:
        """Rows that the sink gets."""
        return int(self.table.num_rows + (0 if self.sums is None else self.sums.num_rows))

    @property
    def size(self) -> int:
        """Bytes that they take in memory."""
        return int(sum(part.nbytes for part in (self.table, self.sums, self.received) if part is not None))


@dataclass(frozen=True, slots=True)
class Finished:
    """A parcel that needs no more tries, and whether the sink has it (`Done`) or never will.

    ``refused`` are the records that the sink refused, by reason, while it has the others: they are dead letters.
    """

    parcel: Parcel
    outcome: Done | Refused | TooLarge
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Status:
    """What is to be seen of a delivery; ``latency_seconds`` is that of the last batch which the sink acknowledged."""

    concurrency: int
    batches: int
    records: int
    bytes: int
    latency_seconds: float | None
    last_error: str | None


@dataclass(slots=True, eq=False)
class _Errand:
    """A parcel that is in a thread's hand, or waits until it is due."""

    parcel: Parcel
    due: float
    sifting: Sifting
    letters: list[Letter] | None = None
    """What is to be put away, once it is known."""
    running: bool = False
    failures: int = 0


class Delivery:
    """Delivers parcels to one sink with threads of its own, and tries again for as long as the sink is busy.

    A batch that the sink refuses is sifted: its bad records go to the ``letterbox``, and the rest is delivered.
    Every method may be called from one other thread, and none but :meth:`wait` and :meth:`close` blocks.
    ``topic`` is where the batches come from. ``clock`` gives seconds that never go back, ``jitter`` a number from 0 to 1.
    """

    def __init__(
        self,
        sink: Sink,
        policy: Policy,
        *,
        name: str,
        topic: str,
        letterbox: Letterbox,
        book: Book,
        throttle: Throttle,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._sink = sink
        self._policy = policy
        self._name = name
        self._topic = topic
        self._letterbox = letterbox
        self._now_ms = now_ms
        self._book = book
        self._throttle = throttle
        self._clock = clock
        self._jitter = jitter
        self._log = get_logger("delivery")
        self._changed = threading.Condition()
        self._errands: dict[Parcel, _Errand] = {}
        self._queued_records = 0
        self._queued_bytes = 0
        self._finished: list[Finished] = []
        self._trouble: Busy | None = None
        self._latency: float | None = None
        self._last_error: str | None = None
        self._closing = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; the sink is open by then."""
        self._book.set("forwarder_concurrency", self._policy.concurrency, sink=self._name)
        self._book.set("forwarder_breaker_state", 0, sink=self._name)
        self._gauge()
        for number in range(self._policy.concurrency):
            thread = threading.Thread(target=self._work, name=f"deliver-{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def has_room(self) -> bool:
        """Whether another parcel may be submitted; false is the backpressure of the sink."""
        return (
            self._queued_records < self._policy.max_queued_records
            and self._queued_bytes < self._policy.max_queued_bytes
            and len(self._errands) < self._policy.max_queued_batches
        )

    @property
    def trouble(self) -> Busy | None:
        """What the sink answered last, if that was not an acknowledgement."""
        return self._trouble

    def status(self) -> Status:
        """Show how it does; may be asked by any thread."""
        with self._changed:
            return Status(
                concurrency=self._policy.concurrency,
                batches=len(self._errands),
                records=self._queued_records,
                bytes=self._queued_bytes,
                latency_seconds=self._latency,
                last_error=self._last_error,
            )

    def in_flight(self) -> Counter[int]:
        """How many parcels each partition has here, waiting ones included."""
        with self._changed:
            return Counter(parcel.token.partition for parcel in self._errands)

    def submit(self, parcel: Parcel) -> None:
        """Take a parcel, behind those that are here."""
        with self._changed:
            self._errands[parcel] = _Errand(parcel, self._clock(), Sifting(parcel.table, parcel.token, parcel.sums))
            self._count(parcel, 1)
            self._changed.notify_all()
        self._gauge()

    def take_finished(self) -> list[Finished]:
        """Return what has finished since the last call, in the order in which it did."""
        with self._changed:
            finished, self._finished = self._finished, []
        return finished

    def wait(self, timeout: float) -> bool:
        """Wait until something has finished, and return whether it has before ``timeout`` seconds were over."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._finished), timeout)

    def forget_waiting(self, partitions: Iterable[int]) -> None:
        """Drop the parcels of these partitions that no thread has in hand now; their batches stay in Kafka."""
        going = set(partitions)
        with self._changed:
            self._drop(
                [
                    one.parcel
                    for one in self._errands.values()
                    if one.parcel.token.partition in going and not one.running
                ]
            )
        self._gauge()

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop all parcels of these partitions; what a thread has in hand may still be delivered, but is not told."""
        going = set(partitions)
        with self._changed:
            self._drop([parcel for parcel in self._errands if parcel.token.partition in going])
            self._finished = [one for one in self._finished if one.parcel.token.partition not in going]
        self._gauge()

    def close(self, timeout: float) -> None:
        """End the threads; wait at most ``timeout`` seconds for what they have in hand."""
        deadline = self._clock() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))

    def _work(self) -> None:
        while (errand := self._take()) is not None:
            began = self._clock()
            outcome = self._try(errand)
            self._settle(errand, outcome, self._clock() - began)
            self._gauge()

    def _take(self) -> _Errand | None:
        """Wait for a parcel that is due, and take it in hand; None when we are closing."""
        with self._changed:
            while not self._closing:
                now = self._clock()
                # The one that is due longest, so that none is passed over for ever.
                waiting = (one for one in self._errands.values() if not one.running)
                errand = min(waiting, key=lambda one: one.due, default=None)
                if errand is not None and errand.due <= now:
                    errand.running = True
                    return errand
                self._changed.wait(None if errand is None else errand.due - now)
        return None

    def _try(self, errand: _Errand) -> Outcome:
        parcel = errand.parcel
        try:
            outcome = errand.sifting.deliver(self._sink.deliver)
            if not isinstance(outcome, Done):
                return outcome
            if errand.letters is None:
                refused = letters.refused(self._topic, self._name, parcel.token, errand.sifting, self._now_ms())
                errand.letters = [*parcel.letters, *refused]
            trouble = self._letterbox.put(errand.letters) if errand.letters else None
            return outcome if trouble is None else Busy(Trouble.DEAD_LETTERS, trouble)
        except Exception as error:  # noqa: BLE001 - a defect of a sink must not lose the batch, nor end the thread
            self._throttle.log(
                self._log,
                "error",
                (self._name, Trouble.UNEXPECTED),
                "a sink failed in a way that it should have told; the batch is tried again",
                sink=self._name,
                token=str(parcel.token),
                exc_info=error,
            )
            return Busy(Trouble.UNEXPECTED, f"{type(error).__name__}: {error}")

    def _settle(self, errand: _Errand, outcome: Outcome, seconds: float) -> None:
        if isinstance(outcome, Busy):
            self._retry(errand, outcome)
            return
        if isinstance(outcome, Done):
            self._book.observe("forwarder_delivery_seconds", seconds, sink=self._name)
        else:
            reason = Trouble.REFUSED if isinstance(outcome, Refused) else Trouble.TOO_LARGE
            self._book.add("forwarder_delivery_errors_total", sink=self._name, reason=reason)
        with self._changed:
            if errand.parcel in self._errands:
                self._drop([errand.parcel])
                refused = Counter[str]()
                for letter in errand.letters or ():
                    self._book.add(
                        "forwarder_dead_letters_total", letter.records, sink=self._name, reason=letter.reason
                    )
                    # Where the sink has the records themselves, it only lacks their sums.
                    if letter.reason != letters.CORRUPT and not (letter.is_sums and errand.parcel.table.num_rows):
                        refused[letter.reason] += letter.records
                self._finished.append(Finished(errand.parcel, outcome, refused))
            self._trouble = None
            if isinstance(outcome, Done):
                self._latency = seconds
            else:
                self._last_error = outcome.detail
            self._changed.notify_all()

    def _retry(self, errand: _Errand, busy: Busy) -> None:
        self._book.add("forwarder_delivery_errors_total", sink=self._name, reason=busy.reason)
        with self._changed:
            delay = self._policy.delay(errand.failures, self._jitter())
            if busy.retry_after is not None:
                # The backend's word counts, and jitter on top keeps all of us from coming back at once.
                delay += busy.retry_after
            errand.running = False
            errand.failures += 1
            errand.due = self._clock() + delay
            self._trouble = busy
            self._last_error = busy.detail
            again = errand.parcel in self._errands
            self._changed.notify_all()
        if again:
            self._book.add("forwarder_retries_total", sink=self._name, reason=busy.reason)
        if busy.reason is not Trouble.UNEXPECTED:
            self._throttle.log(
                self._log,
                "warning",
                (self._name, busy.reason),
                "a sink did not take a batch; it is tried again",
                sink=self._name,
                reason=busy.reason,
                detail=busy.detail,
                retry_in_seconds=round(delay, 1),
                token=str(errand.parcel.token),
            )

    def _drop(self, parcels: Iterable[Parcel]) -> None:
        for parcel in parcels:
            del self._errands[parcel]
            self._count(parcel, -1)

    def _count(self, parcel: Parcel, sign: int) -> None:
        self._queued_records += sign * parcel.rows
        self._queued_bytes += sign * parcel.size

    def _gauge(self) -> None:
        self._book.set("forwarder_queue_records", self._queued_records, sink=self._name)
        self._book.set("forwarder_queue_bytes", self._queued_bytes, sink=self._name)
        self._book.set("forwarder_queue_batches", len(self._errands), sink=self._name)
