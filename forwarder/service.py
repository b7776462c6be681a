"""One sink at work: poll → cut → decode → merge → deliver → commit, in a thread of its own.

Each sink is a consumer group of its own, so that a slow one holds up nobody. What a sink has in memory is bounded: the
open batch of each of its partitions by the rule of the cut, what was cut by the delivery's queue, and when that is full
nothing more is read. A crash at any point loses nothing and doubles nothing: what was not committed is read again, cut
in the same places, and delivered under the same tokens.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa

from forwarder import letters
from forwarder.aggregate import RECEIVED
from forwarder.assembly import MOST_AHEAD, Assembly, Batch, Decoded, decode_batch, hold
from forwarder.consumer import BrokenConsumerError, Listener, Partition
from forwarder.delivery import Delivery, Finished, Parcel
from forwarder.ledger import Drop, Ledger
from forwarder.shaping import Shaped, Shaper
from forwarder.sinks.base import Done
from shared.errors import SluicewayError, UnknownSchemaError
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from forwarder.heartbeat import BrokerClock
    from forwarder.sinks.base import Sink
    from shared.metrics import Book

POLL_MESSAGES: Final = 100
"""Messages that are taken at a time: enough to keep the loop cheap, few enough that they do not count as memory."""
POLL_SECONDS: Final = 0.1
TICK_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 90.0
"""A loop that has not turned for this long will not turn again: longer than anything that it waits for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a service waits, and for what; all in seconds.

    ``hold``: for a full sink without a poll; after that partitions are paused, and the group is served. ``revoke``: with
    a partition that is about to go, for what the sink has in hand. ``stop``: at a clean stop, for the batches whose cut
    is in the log. ``reconnect``, ``reconnect_most``: between two consumers, at first and at most.
    """

    hold: float = 30.0
    revoke: float = 5.0
    stop: float = 15.0
    reconnect: float = 1.0
    reconnect_most: float = 30.0


class Log(Protocol):
    """What a sink reads: :class:`forwarder.consumer.LogConsumer`, which says what each of these does, or a fake."""

    def open(self) -> None:
        """Join the group."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the group has given us our share."""
        ...

    @property
    def complaint(self) -> str | None:
        """What Kafka said instead of messages."""
        ...

    def poll(self, max_messages: int, timeout: float) -> Sequence[Any]:
        """Return what comes; the listener is called in here."""
        ...

    def commit(self) -> None:
        """Commit what was acknowledged."""
        ...

    def stop(self, partition: Partition, offset: int, reason: str) -> None:
        """Read nothing more of a partition."""
        ...

    def hold(self, partition: Partition) -> None:
        """Fetch nothing of a partition for now."""
        ...

    def release(self, partition: Partition) -> None:
        """Fetch a partition again that was held, if it was."""
        ...

    def pause(self) -> None:
        """Fetch nothing for now."""
        ...

    def resume(self) -> None:
        """Fetch again."""
        ...

    def refresh_highs(self) -> None:
        """Bring the ends of our partitions up to date."""
        ...

    def close(self) -> None:
        """Commit, and leave the group."""
        ...


class Pulse(Protocol):
    """What ends an interval in which nothing more comes: :class:`forwarder.heartbeat.Heart`, or a fake."""

    def beat(self, partition: int, ends_ms: int) -> None:
        """Append a heartbeat when the interval is over."""
        ...

    def poll(self) -> None:
        """Hear what became of the heartbeats."""
        ...

    def close(self) -> None:
        """Let go of the producer."""
        ...


class Phase(StrEnum):
    """What a sink's service does."""

    STARTING = "starting"
    CONSUMING = "consuming"
    HOLDING = "holding"
    """The sink is behind, and nothing is read until it has caught up."""
    RECONNECTING = "reconnecting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition as ``/api/v1/partitions`` shows it; offsets are of messages, ``lag_messages`` up to the delivered."""

    sink: str
    topic: str
    partition: int
    position: int
    delivered: int
    committed: int
    end: int
    lag_messages: int
    lag_seconds: float
    batches_in_flight: int
    records_in_flight: int
    stopped: str | None


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What is to be seen of a sink's service from other threads."""

    phase: Phase
    detail: str
    partitions: tuple[PartitionState, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sink's service goes by: its name, its topic, and how long Kafka keeps what it does not deliver."""

    sink: str
    topic: str
    retention_seconds: float


class SinkService:
    """Runs one sink; ``start`` starts its thread, ``stop`` asks it to end, ``join`` waits for that.

    ``connect`` makes the consumer, anew after each failure of the old one.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        sink: Sink,
        delivery: Delivery,
        ledger: Ledger,
        connect: Callable[[Listener], Log],
        pulse: Pulse,
        clock: BrokerClock,
        book: Book,
        throttle: Throttle,
        patience: Patience = Patience(),
    ) -> None:
        self.plan = plan
        self._patience = patience
        self.ledger = ledger
        self._sink = sink
        self._delivery = delivery
        self._connect = connect
        self._pulse = pulse
        self._clock = clock
        self._book = book
        self._throttle = throttle
        self._log = get_logger("service").bind(sink=plan.sink)
        self._assemblies: dict[int, Assembly] = {}
        self._shapers: dict[int, Shaper] = {}
        self._backlog: deque[Batch] = deque()
        self._parcels: dict[Parcel, Batch] = {}
        self._stopping = threading.Event()
        self._held_since: float | None = None
        self._ticked = 0.0
        self._turned = time.monotonic()
        self._state = ServiceState(Phase.STARTING, "not started yet")
        self._thread = threading.Thread(target=self._run, name=f"sink-{plan.sink}", daemon=True)

    def start(self) -> None:
        """Start the threads of the sink, which is open by then."""
        self._book.set("forwarder_sink_failed", 0, sink=self.plan.sink)
        self._count_partitions()
        self._delivery.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask for a clean stop: what is cut is delivered and committed, what is not stays in Kafka."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the service has ended; return whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def state(self) -> ServiceState:
        """What it does; may be asked by any thread."""
        return self._state

    def alive(self) -> bool:
        """Whether the loop turns, or has ended for a reason that was told."""
        ended = self._state.phase in {Phase.STOPPED, Phase.FAILED} or self._thread.ident is None
        return ended or (self._thread.is_alive() and time.monotonic() - self._turned < STUCK_SECONDS)

    def ready(self) -> tuple[bool, str]:
        """Whether it can do its work, and a sentence that says what is the matter or what it does."""
        state = self._state
        if state.phase not in {Phase.CONSUMING, Phase.HOLDING}:
            return False, state.detail
        stopped = [one for one in state.partitions if one.stopped is not None]
        if stopped:
            return False, f"partition {stopped[0].partition} stands still: {stopped[0].stopped}"
        trouble = self._delivery.trouble
        if trouble is not None:
            return False, trouble.detail
        health = self._sink.health()
        return health.ok, state.detail if health.ok else health.detail

    # --- the thread

    def _run(self) -> None:
        delay, most = self._patience.reconnect, self._patience.reconnect_most
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._consume()
            except BrokenConsumerError as error:
                self._say(Phase.RECONNECTING, str(error))
                self._log.warning("the consumer is made anew", reason=str(error))
            except SluicewayError as error:
                self._say(Phase.FAILED, str(error))
                self._book.set("forwarder_sink_failed", 1, sink=self.plan.sink)
                self._log.error("the sink has stopped, and stays so until this is mended", reason=str(error))
                break
            except Exception as error:  # noqa: BLE001 - a defect may pass; to end the thread would end the sink for good
                self._say(Phase.RECONNECTING, f"{type(error).__name__}: {error}")
                self._log.exception("the consumer is made anew after a failure that nobody foresaw")
            if time.monotonic() - began > most:
                delay = self._patience.reconnect
            self._wait(delay)
            delay = min(most, 2 * delay)
        self._delivery.close(self._patience.stop)
        self._pulse.close()
        if self._state.phase is not Phase.FAILED:
            self._say(Phase.STOPPED, "stopped")
        self._log.info("the sink's books are closed", **self.ledger.as_json())

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._turned = time.monotonic()
            self._stopping.wait(min(left, TICK_SECONDS))

    def _consume(self) -> None:
        """Consume until a stop is asked for, and end in order; what is left open is returned to Kafka in any case."""
        consumer = self._connect(self)
        self._held_since = None
        try:
            consumer.open()
            while not self._stopping.is_set():
                self._turn(consumer)
            self._finish()
        finally:
            self.gone(list(self._assemblies))
            consumer.close()

    def _turn(self, consumer: Log) -> None:
        self._turned = time.monotonic()
        self._settle()
        self._hold_back(consumer)
        self._submit()
        for message in self._take(consumer):
            self._push(consumer, message)
        consumer.commit()
        self._pulse.poll()
        if self._turned - self._ticked >= TICK_SECONDS:
            self._ticked = self._turned
            self._tick(consumer)

    def _hold_back(self, consumer: Log) -> None:
        """Read no more of partitions of which too much is delivered behind a batch that is not."""
        for assembly in self._assemblies.values():
            if assembly.ahead < MOST_AHEAD:
                consumer.release(assembly.partition)
            elif not assembly.partition.held:
                consumer.hold(assembly.partition)
                self._log.warning(
                    "the sink does not take a batch, and has many that come after it: nothing more of its partition is"
                    " read until it takes that one",
                    partition=assembly.partition.number,
                    offset=assembly.partition.acknowledged,
                    batches=assembly.ahead,
                )

    def _take(self, consumer: Log) -> Sequence[Any]:
        """Take messages, or wait for a sink that is full."""
        if self._delivery.has_room:
            self._held_since = None
            consumer.resume()
            return consumer.poll(POLL_MESSAGES, POLL_SECONDS)
        if self._held_since is None:
            self._held_since = self._turned
        if self._reads:
            # A paused partition fetches again what was queued for it, so a short wait goes without.
            self._delivery.wait(POLL_SECONDS)
            return []
        consumer.pause()
        return consumer.poll(POLL_MESSAGES, POLL_SECONDS)

    @property
    def _reads(self) -> bool:
        """Whether more is read as soon as there is room, or else partitions are paused by now."""
        return self._held_since is None or self._turned - self._held_since < self._patience.hold

    def _finish(self) -> None:
        """Deliver what is cut, as far as the sink takes it in time; closing commits."""
        deadline = time.monotonic() + self._patience.stop
        self._submit()
        while (self._parcels or self._backlog) and time.monotonic() < deadline:
            self._turned = time.monotonic()
            if self._delivery.wait(POLL_SECONDS):
                self._settle()
                self._submit()
        left = len(self._parcels) + len(self._backlog)
        if left:
            self._log.warning("the sink did not take all batches in time; they stay in Kafka", batches=left)

    # --- from messages to batches

    def _push(self, consumer: Log, message: Any) -> None:  # noqa: ANN401 - a message of the Kafka client, or a fake one
        assembly = self._assemblies.get(message.partition())
        if assembly is None or assembly.partition.stopped is not None:
            return
        offset, append_ms = message.offset(), message.timestamp()[1]
        self._clock.see(append_ms)
        try:
            held = hold(message)
        except UnknownSchemaError as error:
            self._stop_at(consumer, assembly, offset, append_ms, str(error))
            return
        if assembly.remembers(offset):
            self._shapers[message.partition()].remember(decode_batch([held]))
            self._book.add("forwarder_dedup_read_again_total", sink=self.plan.sink)
            return
        self.ledger.receive(assembly.partition.number, held.facts.records)
        self._backlog.extend(assembly.push(held))

    def _stop_at(self, consumer: Log, assembly: Assembly, offset: int, append_ms: int, reason: str) -> None:
        """Let a partition stand still before a message that this program cannot understand."""
        number = assembly.partition.number
        sentence = f"at offset {offset} {reason}; then restart this"
        consumer.stop(assembly.partition, offset, sentence)
        assembly.stopped_ms = append_ms
        self._backlog.extend(assembly.reach(offset, append_ms))
        self._log.error("a partition stands still, the others go on", partition=number, offset=offset, reason=reason)

    def _submit(self) -> None:
        """Hand over what is cut, as long as there is room."""
        while self._backlog and self._delivery.has_room:
            batch = self._backlog.popleft()
            assembly, shaper = self._assemblies[batch.token.partition], self._shapers[batch.token.partition]
            decoded = self._decode(batch)
            shaped = shaper.shape(batch.shape, decoded)
            self._count_shaped(shaped)
            batch.repeated, batch.others = shaped.exact, shaped.dropped
            corrupt = tuple(
                letters.corrupt(self.plan.topic, self.plan.sink, batch.token, decoded.corrupt, self._clock.now_ms())
            )
            if shaped.table.num_rows or (shaped.sums is not None and shaped.sums.num_rows) or corrupt:
                assembly.hand(batch)
                parcel = Parcel(batch.token, shaped.table, shaped.sums, corrupt, shaped.received)
                self._parcels[parcel] = batch
                self._delivery.submit(parcel)
            else:
                self._acknowledge(batch)

    def _count_shaped(self, shaped: Shaped) -> None:
        """Count what was found of a batch; what was dropped of it is counted when it is acknowledged."""
        counts = {
            "forwarder_dedup_forgotten_total": shaped.forgotten,
            "forwarder_dedup_unidentified_total": shaped.unidentified,
            "forwarder_dedup_undecided_total": shaped.undecided,
        }
        if shaped.aggregated is not None:
            counts |= {
                "forwarder_aggregated_records_total": shaped.aggregated.records,
                "forwarder_aggregated_rows_total": shaped.aggregated.table.num_rows,
                "forwarder_aggregated_without_rate_total": shaped.aggregated.without_rate,
                "forwarder_aggregated_saturated_total": shaped.aggregated.saturated,
            }
        for name, count in counts.items():
            if count:
                self._book.add(name, count, sink=self.plan.sink)
        if shaped.marked:
            self._book.add("forwarder_duplicates_total", shaped.marked, sink=self.plan.sink, kind="flow")
        if shaped.forgotten:
            self._throttle.log(
                self._log,
                "warning",
                (self.plan.sink, "forgotten"),
                "more records came than dedup may remember: what repeats the oldest of them is delivered twice;"
                " raise dedup.exact.max_records, or lower its window_seconds",
                records=shaped.forgotten,
            )

    def _decode(self, batch: Batch) -> Decoded:
        decoded = decode_batch(batch.messages)
        batch.messages = []
        number = batch.token.partition
        for held, reason in decoded.corrupt:
            self._throttle.log(
                self._log,
                "error",
                (self.plan.sink, Drop.CORRUPT),
                "a message cannot be decoded, and is put into the dead letters",
                sink=self.plan.sink,
                partition=number,
                offset=held.facts.offset,
                records=held.facts.records,
                reason=reason,
            )
            if not held.facts.records:
                # It does not say how many records were lost, but something was.
                self.ledger.receive(number, 1)
                self.ledger.drop(Drop.CORRUPT, 1)
        # Headers may promise more or less than a message holds; the books go by what is there.
        missing = batch.records - decoded.table.num_rows
        if missing > 0:
            self.ledger.drop(Drop.CORRUPT, missing)
        elif missing < 0:
            self.ledger.receive(number, -missing)
        batch.records = decoded.table.num_rows
        return decoded

    def _settle(self) -> None:
        """Take the sink's acknowledgements."""
        for finished in self._delivery.take_finished():
            batch = self._parcels.pop(finished.parcel, None)
            if batch is not None:
                self._finished(finished, batch)

    def _finished(self, finished: Finished, batch: Batch) -> None:
        if not isinstance(finished.outcome, Done):
            raise SinkRefusedError(
                f"the sink {self.plan.sink} refuses the batch {batch.token} for good: {finished.outcome.detail}."
                " Nothing was dropped: mend the sink or its settings, and restart"
            )
        for reason, records in finished.refused.items():
            self.ledger.drop(Drop(reason), records)
            batch.records -= records
            self._throttle.log(
                self._log,
                "error",
                (self.plan.sink, reason),
                "the sink refuses records for good; they are in the dead letters: `python -m forwarder deadletters list`",
                sink=self.plan.sink,
                reason=reason,
                records=records,
                token=str(batch.token),
            )
        delays = _delays(finished.parcel)
        if delays is not None:
            self._book.observe_many("end_to_end_seconds", delays, sink=self.plan.sink)
        self._acknowledge(batch)

    def _acknowledge(self, batch: Batch) -> None:
        """Close the books of a batch, of which the sink has all that it shall have."""
        left_out = batch.repeated + batch.others
        if batch.handed or batch.records > left_out:
            self.ledger.deliver(batch.records - left_out)
        for reason, kind, count in (
            (Drop.DUPLICATE, "exact", batch.repeated),
            (Drop.OTHER_EXPORTER, "flow", batch.others),
        ):
            if count:
                self.ledger.drop(reason, count)
                self._book.add("forwarder_duplicates_total", count, sink=self.plan.sink, kind=kind)
        assembly = self._assemblies.get(batch.token.partition)
        if assembly is not None and batch in assembly.waiting:
            assembly.acknowledge(batch)

    # --- partitions that come and go; the consumer calls these inside poll()

    def assigned(self, partition: Partition, expired: int) -> None:
        """Begin a partition."""
        self._assemblies[partition.number] = Assembly(partition)
        self._shapers[partition.number] = Shaper(partition.course.ahead, partition.topic_id)
        if expired:
            self.ledger.expire(expired)

    def revoking(self, partitions: Sequence[int]) -> None:
        """Wait for what the sink has in hand of these partitions, and drop what it has not."""
        self._delivery.forget_waiting(partitions)
        going = set(partitions)
        deadline = time.monotonic() + self._patience.revoke
        self._settle()
        while going & self._delivery.in_flight().keys() and (left := deadline - time.monotonic()) > 0:
            self._delivery.wait(left)
            self._settle()

    def gone(self, partitions: Sequence[int]) -> None:
        """Forget partitions; what was read of them and not delivered is returned."""
        self._delivery.forget(partitions)
        going = set(partitions)
        self._backlog = deque(batch for batch in self._backlog if batch.token.partition not in going)
        self._parcels = {parcel: one for parcel, one in self._parcels.items() if one.token.partition not in going}
        returned = sum(self._assemblies.pop(number).records for number in partitions if number in self._assemblies)
        if returned:
            self.ledger.give_back(returned)
        self._count_partitions()
        for number in partitions:
            self._shapers.pop(number, None)
            for name in ("forwarder_lag_messages", "forwarder_lag_seconds", "forwarder_retention_left_seconds"):
                self._book.forget(name, sink=self.plan.sink, topic=self.plan.topic, partition=number)

    def expired(self, partition: Partition, low: int) -> int:
        """Go on behind messages that have expired."""
        closed, gone = self._assemblies[partition.number].skip(low)
        self._backlog.extend(closed)
        if gone:
            self.ledger.expire(gone)
        return gone

    # --- once a second

    def _tick(self, consumer: Log) -> None:
        consumer.refresh_highs()
        in_flight = self._delivery.in_flight()
        now_ms = self._clock.now_ms()
        states = []
        for number, assembly in sorted(self._assemblies.items()):
            partition = assembly.partition
            ends_ms = assembly.cutter.ends_ms
            # Where nothing is read a heartbeat would not be seen, and so there would be another, and another.
            if ends_ms is not None and partition.ended and not partition.held and self._reads:
                self._pulse.beat(number, ends_ms)
            state = self._partition_state(assembly, in_flight.get(number, 0), now_ms)
            states.append(state)
            labels = {"sink": self.plan.sink, "topic": self.plan.topic, "partition": str(number)}
            left = self.plan.retention_seconds - state.lag_seconds
            self._book.set("forwarder_lag_messages", state.lag_messages, **labels)
            self._book.set("forwarder_lag_seconds", state.lag_seconds, **labels)
            self._book.set("forwarder_retention_left_seconds", left, **labels)
        self._count_partitions()
        shapers = list(self._shapers.values())
        self._book.set("forwarder_dedup_entries", sum(map(len, shapers)), sink=self.plan.sink)
        self._book.set("forwarder_dedup_bytes", sum(one.nbytes for one in shapers), sink=self.plan.sink)
        self._throttle.flush()
        self._say(*self._summary(consumer), tuple(states))

    def _count_partitions(self) -> None:
        assemblies = self._assemblies.values()
        stopped = sum(one.partition.stopped is not None for one in assemblies)
        self._book.set("forwarder_partitions_stopped", stopped, sink=self.plan.sink)
        self._book.set("forwarder_batches_uncommittable", sum(one.ahead for one in assemblies), sink=self.plan.sink)

    def _partition_state(self, assembly: Assembly, in_flight: int, now_ms: int) -> PartitionState:
        partition = assembly.partition
        oldest_ms = assembly.oldest_ms
        return PartitionState(
            sink=self.plan.sink,
            topic=self.plan.topic,
            partition=partition.number,
            position=partition.position,
            delivered=partition.acknowledged,
            committed=partition.committed,
            end=partition.high,
            lag_messages=0 if assembly.idle else max(0, partition.high - partition.acknowledged),
            lag_seconds=0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
            batches_in_flight=in_flight,
            records_in_flight=assembly.records,
            stopped=partition.stopped,
        )

    def _summary(self, consumer: Log) -> tuple[Phase, str]:
        if consumer.complaint is not None:
            return Phase.STARTING, consumer.complaint
        if not consumer.joined:
            return Phase.STARTING, "waits for its share of the partitions"
        if self._held_since is not None:
            return Phase.HOLDING, "reads nothing until the sink has caught up"
        return Phase.CONSUMING, f"consumes {len(self._assemblies)} partitions of {self.plan.topic}"

    def _say(self, phase: Phase, detail: str, partitions: tuple[PartitionState, ...] = ()) -> None:
        self._state = ServiceState(phase, detail, partitions)


class SinkRefusedError(SluicewayError):
    """A sink will never take a batch, and there is nowhere else to put it."""


def _delays(parcel: Parcel) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Seconds from the reception of each record to now."""
    received = parcel.received
    if received is None:
        if RECEIVED not in parcel.table.column_names:
            return None
        received = parcel.table[RECEIVED]
    return np.asarray((time.time_ns() - received.drop_null().cast(pa.int64()).to_numpy()) / 1e9)
