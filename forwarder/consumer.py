"""The consumer of one sink: which partitions are ours, from where they are read, and what is committed.

Everything here runs in the sink's own thread; the callbacks of the Kafka client too, inside :meth:`LogConsumer.poll`. It
leaves its group in another, for which the first one waits.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec

from forwarder.course import Course, read_note
from forwarder.gaps import Poll
from shared.errors import SluicewayError
from shared.kafka import admin, consumer, consumer_properties, uuid_text
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka import Consumer, Message
    from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo

    from forwarder.shape import Shape
    from shared.config import KafkaConfig

CLOSE_SECONDS: Final = 30.0
"""How long leaving the group may take."""
LOOKUP_SECONDS: Final = 15.0
"""How long an assignment may take to find out from where to read."""
SLEPT_SECONDS: Final = 3.0
"""Whoever reads nothing for so long may have been stopped, and the group may have gone on without it: shorter than any
session that is of use."""
HIGH_EVERY_SECONDS: Final = 5.0
"""How often the ends of our partitions are asked for: what was fetched last says little while nothing is fetched."""
NOTHING_COMMITTED: Final = -1
STEP_MS: Final = 60_000
"""How exactly a time in the log is sought, and how far the brokers' clocks may be from ours."""


class OffsetAboveEndError(SluicewayError):
    """The group's offset lies above the end of the log: messages that were delivered are gone from it."""


class BrokenConsumerError(Exception):
    """The consumer cannot go on as it is; a new one may."""


@dataclass(frozen=True, slots=True)
class Place:
    """From where a partition is read, and how many of its messages have expired unread."""

    offset: int
    expired: int


def place(committed: int, low: int, high: int, partition: int) -> Place:
    """Decide from where to read, by the group's offset and the log's first and next offset.

    A group that never committed begins at the first offset. Nothing else is ever skipped in silence: raises
    OffsetAboveEndError when the log ends before the offset.
    """
    if committed < 0:
        return Place(low, 0)
    if committed > high:
        raise OffsetAboveEndError(
            f"partition {partition} ends at offset {high}, but this group has delivered up to {committed}: the topic has"
            " lost messages or was made again. Find out why; then, to go on with what it holds now, stop all members of"
            " the group and set its offset: kafka-consumer-groups.sh --reset-offsets --to-earliest"
        )
    if committed < low:
        return Place(low, low - committed)
    return Place(committed, 0)


@dataclass(slots=True)
class Partition:
    """One partition that is ours.

    ``position`` is the offset of the message that comes next; at the assignment it may lie before the lowest cut that
    the sink has not acknowledged, ``acknowledged``: what lies between was delivered before, and is read to be
    remembered. ``committed`` is what Kafka has of ``acknowledged``, ``high`` the offset after the last message. ``ended`` says that
    there was nothing behind what was read; the position may be below the end even then, since a log has offsets that
    are no messages. ``settled`` says that nothing behind ``acknowledged`` was handed to the sink. ``gap``
    is the offset at which the log went on behind a gap that is being asked for again. ``held`` says that nothing more of
    it is fetched until the sink has taken a batch that all those behind it wait for.
    """

    number: int
    topic_id: str
    position: int
    acknowledged: int
    committed: int
    high: int
    course: Course
    settled: bool = True
    ended: bool = False
    stopped: str | None = None
    gap: int | None = None
    held: bool = False

    def stand_still(self, offset: int, reason: str) -> None:
        """Stay before the message at an offset, which is there, whatever was heard of the end behind it."""
        self.stopped = reason
        self.position = offset
        self.ended = False


class Listener(Protocol):
    """Who is told about partitions that come and go; called inside ``poll``."""

    def assigned(self, partition: Partition, expired: int) -> None:
        """Begin a partition at its position."""
        ...

    def revoking(self, partitions: Sequence[int]) -> None:
        """Finish what is in hand of partitions that are about to go, for a few seconds at most."""
        ...

    def gone(self, partitions: Sequence[int]) -> None:
        """Forget partitions: from now on they are somebody else's."""
        ...

    def expired(self, partition: Partition, low: int) -> int:
        """Go on at ``low``: what comes before is gone. Returns how many messages of that were never delivered."""
        ...


class LogConsumer:
    """Reads one topic as a member of a consumer group, and commits only what it is told was acknowledged.

    ``shape`` gives the shape of batches that the settings ask for, for a topic of so many partitions.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        topic: str,
        group_id: str,
        client_id: str,
        shape: Callable[[int], Shape],
        listener: Listener,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._config = config
        self._close_seconds = close_seconds
        self._topic = topic
        self._shape = shape
        self._group_id = group_id
        self._client_id = client_id
        self._listener = listener
        self._log = get_logger("consumer").bind(group=group_id)
        self._throttle = Throttle()
        self._partitions: dict[int, Partition] = {}
        self._failure: Exception | None = None
        self._out_of_range: set[int] = set()
        self._committing = False
        self._paused = False
        self._joined = False
        self._polled = math.inf
        """When the last poll was over."""
        self._complaint: str | None = None
        self._highs: Mapping[TopicPartition, Future[ListOffsetsResultInfo]] = {}
        self._highs_asked = 0.0
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None

    def open(self) -> None:
        """Join the group; partitions come later, inside ``poll``."""
        properties = consumer_properties(self._config, self._group_id, self._client_id)
        properties["on_commit"] = self._on_commit
        # Tells that nothing follows: what a position and an end do not, where the end is no message.
        properties["enable.partition.eof"] = "true"
        # New partitions are found, and a topic that was missing, within this time instead of five minutes.
        properties.setdefault("topic.metadata.refresh.interval.ms", "30000")
        self._admin = admin(self._config, f"{self._client_id}-admin")
        self._consumer = consumer(properties)
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """The partitions that are ours now."""
        return self._partitions

    @property
    def joined(self) -> bool:
        """Whether the group has given us our share, which may be nothing."""
        return self._joined

    @property
    def complaint(self) -> str | None:
        """What Kafka said instead of messages, since the last message."""
        return self._complaint

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """Return what comes within ``timeout`` seconds, in the order of each partition.

        Raises BrokenConsumerError when only a new consumer can go on, and OffsetAboveEndError.
        """
        try:
            self._follow_the_start()
            messages = self._client.consume(max_messages, timeout)
            self._ask_the_group()
        except KafkaException as error:
            raise BrokenConsumerError(str(error)) from error
        finally:
            self._polled = time.monotonic()
            self._raise_failure()
        poll = Poll(self._seek)
        return [message for message in messages if self._is_next(message, poll)]

    def commit(self) -> None:
        """Commit what was acknowledged since the last commit, in one request, unless one is under way."""
        if self._committing:
            return
        offsets = self._to_commit(self._partitions)
        if offsets:
            try:
                self._client.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                self._commit_failed(error.args[0])
            else:
                self._committing = True

    def stop(self, partition: Partition, offset: int, reason: str) -> None:
        """Read nothing more of a partition, from ``offset`` on; the others go on."""
        partition.stand_still(offset, reason)
        self._client.pause([TopicPartition(self._topic, partition.number)])

    def hold(self, partition: Partition) -> None:
        """Fetch nothing more of one partition until ``release``; the others go on."""
        if not partition.held:
            partition.held = True
            self._client.pause(self._names([partition.number]))

    def release(self, partition: Partition) -> None:
        """Fetch a partition again that was held."""
        if partition.held:
            partition.held = False
            if not self._paused and partition.stopped is None:
                self._client.resume(self._names([partition.number]))

    def pause(self) -> None:
        """Fetch nothing until ``resume``, while ``poll`` keeps us in the group; partitions that come stay paused too."""
        if not self._paused:
            self._paused = True
            self._client.pause(self._names(self._partitions))

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            running = [one.number for one in self._partitions.values() if one.stopped is None and not one.held]
            self._client.resume(self._names(running))

    def refresh_highs(self) -> None:
        """Bring the ends of our partitions up to date, as far as they are known; called about once a second."""
        for partition in self._partitions.values():
            _, high = self._client.get_watermark_offsets(TopicPartition(self._topic, partition.number), cached=True)
            partition.high = max(partition.high, partition.position, high)
        for name, future in self._highs.items():
            ours = self._partitions.get(name.partition)
            if ours is not None and future.done() and future.exception() is None:
                ours.high = max(ours.high, future.result().offset)
        now = time.monotonic()
        if now - self._highs_asked >= HIGH_EVERY_SECONDS and self._partitions:
            self._highs_asked = now
            self._highs = self._list_offsets(self._partitions, OffsetSpec.latest())

    def close(self) -> None:
        """Commit what was acknowledged, and leave the group.

        The client waits without bound for a broker that stopped answering; what is not done in time is left undone.
        """
        if self._consumer is None:
            return
        # The thread alone has the client then: to let go of it would wait as well.
        leaving = threading.Thread(target=self._leave, args=(self._consumer,), name="leaving", daemon=True)
        leaving.start()
        leaving.join(self._close_seconds)
        if leaving.is_alive():
            self._log.warning(
                "the consumer could not leave its group in time: its partitions are free when its session is over",
                seconds=self._close_seconds,
            )
        self._consumer = None
        self._admin = None

    def _leave(self, client: Consumer) -> None:
        try:
            self._commit_now(self._partitions)
            client.close()
        except (KafkaException, RuntimeError) as error:
            self._log.warning("the consumer could not leave its group in order", error=str(error))

    @property
    def _client(self) -> Consumer:
        if self._consumer is None:
            raise RuntimeError("open() comes first")
        return self._consumer

    def _names(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]

    def _ask_the_group(self) -> None:
        """Find out whether we are still in the group, after a time in which we were not heard there.

        Somebody else may have our partitions by now, with other settings, and this client notices that only later. What
        it has read by then would be cut by a shape that holds no more.

        Raises BrokenConsumerError when we are not, or it cannot be told.
        """
        silent = time.monotonic() - self._polled
        if silent < SLEPT_SECONDS or not self._partitions:
            return
        offsets = [self._committable(one) for one in self._partitions.values()]
        try:
            results = self._client.commit(offsets=offsets, asynchronous=False) or []
            errors = [result.error for result in results if result.error is not None]
        except KafkaException as error:
            results, errors = [], [error.args[0]]
        for refusal in errors:
            # While others come or go, we are one of the group all the same.
            if refusal.code() != KafkaError.REBALANCE_IN_PROGRESS:
                raise BrokenConsumerError(f"nothing was read for {silent:.0f} s, and Kafka says: {refusal.str()}")
        self._committed([result for result in results if result.error is None])

    # --- what comes

    def _is_next(self, message: Message, poll: Poll) -> bool:
        """Whether a message is the next of a partition that is ours."""
        error = message.error()
        if error is not None:
            self._hear(message, error, poll)
            return False
        number, offset = message.partition(), message.offset()
        partition = None if number is None else self._partitions.get(number)
        if partition is None or offset is None or partition.stopped is not None or not poll.is_next(partition, offset):
            return False
        self._complaint = None
        return True

    def _seek(self, number: int, offset: int) -> None:
        try:
            self._client.seek(TopicPartition(self._topic, number, offset))
        except KafkaException as error:
            raise BrokenConsumerError(f"partition {number} cannot be read from offset {offset}: {error}") from error

    def _hear(self, message: Message, error: KafkaError, poll: Poll) -> None:
        number = message.partition()
        partition = None if number is None else self._partitions.get(number)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name for it
            if partition is not None and partition.stopped is None:
                poll.end(partition)
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:  # noqa: SLF001 - the same
            # What came before it in the same poll has to be cut first.
            self._out_of_range.add(partition.number)
            return
        if error.fatal():
            raise BrokenConsumerError(error.str())
        self._complaint = f"Kafka says of {self._topic}: {error.str()}"
        self._throttle.log(
            self._log, "warning", error.code(), "Kafka sent an error instead of messages", error=error.str()
        )

    def _follow_the_start(self) -> None:
        """Go on where the log's start has passed us, or fail where its end fell behind us."""
        numbers = [number for number in self._out_of_range if number in self._partitions]
        self._out_of_range.clear()
        if not numbers:
            return
        lows, highs = self._bounds(numbers)
        for number in numbers:
            partition = self._partitions[number]
            where = place(partition.position, lows[number], highs[number], number)
            if where.expired:
                gone = self._listener.expired(partition, where.offset)
                partition.position = where.offset
                if gone:
                    self._tell_expired(number, gone, where.offset)
            self._seek(number, partition.position)

    def _tell_expired(self, number: int, messages: int, offset: int) -> None:
        self._log.error(
            "messages have expired before they were read: Kafka kept them for too short a time for this lag",
            partition=number,
            messages=messages,
            going_on_at=offset,
        )

    # --- partitions that come and go

    def _on_assign(self, _: Consumer, names: list[TopicPartition]) -> None:
        numbers = sorted(name.partition for name in names)
        try:
            begun = self._begin(numbers) if numbers else []
        except (KafkaException, SluicewayError, BrokenConsumerError) as error:
            # The protocol of the group needs its answer in any case; poll() tells what happened.
            self._failure = error
            begun = []
        self._client.incremental_assign(
            [TopicPartition(self._topic, partition.number, partition.position) for partition, _ in begun]
        )
        for partition, where in begun:
            self._partitions[partition.number] = partition
            if where.expired:
                self._tell_expired(partition.number, where.expired, where.offset)
            self._listener.assigned(partition, where.expired)
        # A partition that was paused when it went comes back paused.
        change = self._client.pause if self._paused else self._client.resume
        change(self._names(partition.number for partition, _ in begun))
        self._joined = True
        if numbers:
            self._log.info("partitions were assigned", partitions=numbers, ours=len(self._partitions))

    def _begin(self, numbers: Sequence[int]) -> list[tuple[Partition, Place]]:
        topic_id, partitions = self._describe()
        shape = self._shape(partitions)
        committed = {}
        for name in self._client.committed(self._names(numbers), timeout=LOOKUP_SECONDS):
            if name.error is not None:
                raise BrokenConsumerError(
                    f"the group's offset of partition {name.partition} is not known: {name.error}"
                )
            committed[name.partition] = name
        lows, highs = self._bounds(numbers)
        begun = []
        for number in numbers:
            offset, note = committed[number].offset, committed[number].metadata
            where = place(offset, lows[number], highs[number], number)
            noted = read_note(note)
            if noted.unknown and (noted.until is None or noted.until > where.offset):
                self._log.warning(
                    "the group's offset was committed by another version: what it delivered behind the offset, and did"
                    " not commit any more, may be delivered again under other names",
                    partition=number,
                    offset=offset,
                )
            course = Course.plan(noted, where.offset, highs[number], shape)
            # What was never committed, or skipped, is told to Kafka at once, and so is what shapes the batches: the
            # next start has to make the same ones.
            same = offset == where.offset and note == course.note()
            known = offset if same else NOTHING_COMMITTED
            partition = Partition(number, topic_id, where.offset, where.offset, known, highs[number], course)
            begun.append((partition, where))
        self._commit_plans([partition for partition, _ in begun if partition.committed == NOTHING_COMMITTED])
        self._look_back([partition for partition, _ in begun], lows)
        return begun

    def _commit_plans(self, partitions: Sequence[Partition]) -> None:
        """Tell Kafka by which shapes these partitions go on, before anything is delivered by them."""
        if not partitions:
            return
        offsets = [self._committable(partition) for partition in partitions]
        results = self._client.commit(offsets=offsets, asynchronous=False) or []
        failed = [result for result in results if result.error is not None]
        if failed:
            raise BrokenConsumerError(f"offsets could not be committed at an assignment: {failed[0].error}")
        for partition in partitions:
            partition.committed = partition.acknowledged

    def _look_back(self, partitions: Sequence[Partition], lows: Mapping[int, int]) -> None:
        """Set from where each partition is read, so that what was delivered lately is known again."""
        # Where everything before the offset has expired there is nothing to be known again.
        wanted = {one.number: one for one in partitions if one.course.remembers and lows[one.number] < one.acknowledged}
        times = {number: wanted[number].course.oldest_ms(at) for number, at in self._append_times(wanted).items()}
        for number, offset in self._offsets_at(times, wanted).items():
            one = wanted[number]
            one.position = min(max(offset, lows[number]), one.acknowledged)
            if one.position < one.acknowledged:
                self._log.info(
                    "reading again what was delivered lately, to know it when it comes twice",
                    partition=number,
                    messages=one.acknowledged - one.position,
                )

    def _append_times(self, partitions: Mapping[int, Partition]) -> dict[int, int]:
        """For each partition a time in ms, before which nothing behind its lowest open cut was appended.

        Kafka tells the first offset from a time on, and not the time of an offset: so the time is sought, to the
        minute.
        """
        early = dict.fromkeys(partitions, round(time.time() * 1000) - STEP_MS)
        late: dict[int, int] = {}
        back_ms, open_ = STEP_MS, set(partitions)
        while open_:
            found = self._offsets_at({number: early[number] for number in open_}, partitions)
            open_ = {number for number in open_ if found[number] > partitions[number].acknowledged}
            for number in [one for one in open_ if not early[one]]:
                # No message is left before the cut, only markers: there is no time to be found.
                open_.remove(number)
                late.pop(number, None)
            for number in open_:
                late[number] = early[number]
                early[number] = max(0, early[number] - back_ms)
            back_ms *= 2
        while open_ := {number for number, at in late.items() if at - early[number] > STEP_MS}:
            middle = {number: (early[number] + late[number]) // 2 for number in open_}
            for number, offset in self._offsets_at(middle, partitions).items():
                side = early if offset <= partitions[number].acknowledged else late
                side[number] = middle[number]
        return early

    def _offsets_at(self, times: Mapping[int, int], partitions: Mapping[int, Partition]) -> dict[int, int]:
        """The first offset of each partition whose message was appended at a time (ms) or later, else the log's end."""
        if self._admin is None:
            raise RuntimeError("open() comes first")
        if not times:
            return {}
        wanted = {TopicPartition(self._topic, number): OffsetSpec.for_timestamp(at) for number, at in times.items()}
        futures = self._admin.list_offsets(wanted, request_timeout=LOOKUP_SECONDS)
        found = {name.partition: future.result().offset for name, future in futures.items()}
        return {number: offset if offset >= 0 else partitions[number].high for number, offset in found.items()}

    def _describe(self) -> tuple[str, int]:
        """The topic's id, and how many partitions it has."""
        if self._admin is None:
            raise RuntimeError("open() comes first")
        asked = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=LOOKUP_SECONDS)
        told = asked[self._topic].result()
        return uuid_text(told.topic_id), len(told.partitions)

    def _bounds(self, numbers: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
        lows = self._list_offsets(numbers, OffsetSpec.earliest())
        highs = self._list_offsets(numbers, OffsetSpec.latest())
        return (
            {name.partition: future.result().offset for name, future in lows.items()},
            {name.partition: future.result().offset for name, future in highs.items()},
        )

    def _list_offsets(
        self, numbers: Iterable[int], spec: OffsetSpec
    ) -> Mapping[TopicPartition, Future[ListOffsetsResultInfo]]:
        if self._admin is None:
            raise RuntimeError("open() comes first")
        wanted = dict.fromkeys(self._names(numbers), spec)
        futures: dict[TopicPartition, Any] = self._admin.list_offsets(wanted, request_timeout=LOOKUP_SECONDS)
        return futures

    def _on_revoke(self, _: Consumer, names: list[TopicPartition]) -> None:
        numbers = [name.partition for name in names if name.partition in self._partitions]
        self._listener.revoking(numbers)
        self._commit_now(numbers)
        self._forget(numbers)
        self._client.incremental_unassign(names)
        if numbers:
            self._log.info("partitions were revoked", partitions=sorted(numbers), ours=len(self._partitions))

    def _on_lost(self, _: Consumer, names: list[TopicPartition]) -> None:
        numbers = [name.partition for name in names if name.partition in self._partitions]
        self._joined = False
        self._forget(numbers)
        self._client.incremental_unassign(names)
        self._log.warning("partitions were lost: the group went on without us", partitions=sorted(numbers))

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            del self._partitions[number]
        self._listener.gone(numbers)

    # --- commits

    def _to_commit(self, numbers: Iterable[int]) -> list[TopicPartition]:
        """What is acknowledged and not committed, of partitions that are ours now: Kafka would take any other too."""
        ours = [self._partitions[number] for number in numbers if number in self._partitions]
        return [self._committable(one) for one in ours if one.acknowledged > one.committed]

    def _committable(self, partition: Partition, *, last: bool = False) -> TopicPartition:
        note = partition.course.note(partition.acknowledged if last and partition.settled else None)
        return TopicPartition(self._topic, partition.number, partition.acknowledged, note)

    def _commit_now(self, numbers: Iterable[int]) -> None:
        """Commit partitions that go: what is acknowledged, and whether that is all that was delivered."""
        ours = [self._partitions[number] for number in numbers if number in self._partitions]
        offsets = [self._committable(one, last=True) for one in ours if one.settled or one.acknowledged > one.committed]
        if not offsets:
            return
        try:
            results = self._client.commit(offsets=offsets, asynchronous=False) or []
        except KafkaException as error:
            self._commit_failed(error.args[0])
        else:
            self._committed(results)

    def _on_commit(self, error: KafkaError | None, results: list[TopicPartition]) -> None:
        self._committing = False
        if error is not None:
            self._commit_failed(error)
        else:
            self._committed(results)

    def _committed(self, results: Sequence[TopicPartition]) -> None:
        for result in results:
            partition = self._partitions.get(result.partition)
            if result.error is not None:
                self._commit_failed(result.error)
            elif partition is not None:
                partition.committed = max(partition.committed, result.offset)

    def _commit_failed(self, error: KafkaError) -> None:
        """Say so; the next commit has it again, and until then a crash repeats batches under the same tokens."""
        self._throttle.log(
            self._log, "warning", ("commit", error.code()), "offsets could not be committed", error=error.str()
        )

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is None:
            return
        if isinstance(failure, KafkaException):
            raise BrokenConsumerError(f"an assignment failed: {failure}") from failure
        raise failure


LogConsumerFactory = Callable[[Listener], LogConsumer]
