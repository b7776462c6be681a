"""Kafka as a replay needs it: read beside the sink's group, which goes on meanwhile and is told nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from forwarder.course import read_note
from forwarder.gaps import Poll
from forwarder.replay.plan import Delivered, Leg, Seen
from shared.errors import SluicewayError
from shared.kafka import RECORDS, KafkaAway, TopicFacts, admin, consumer, consumer_properties, ensure_topics
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from shared.config import KafkaConfig

ANSWER_SECONDS: Final = 15.0
CLIENT: Final = "sluiceway-replay"


def find_topic(config: KafkaConfig) -> TopicFacts:
    """Look up the topic of the records; it is never created.

    Raises:
        SluicewayError: it is not there, or Kafka is not.
    """
    report = ensure_topics(config.model_copy(update={"create_topics": False}), [RECORDS], ANSWER_SECONDS)
    facts = report.topics.get(RECORDS)
    if facts is None:
        raise SluicewayError(" ".join(report.problems))
    return facts


@dataclass(slots=True)
class _Reading:
    """How far one partition was read; see :class:`forwarder.gaps.Reading`."""

    number: int
    position: int
    gap: int | None = None
    ended: bool = False


class KafkaLog:
    """Reads the topic as no member of any group; ``group`` is the one whose offsets are the bookmarks.

    Whatever Kafka answers that cannot be gone on with is raised as SluicewayError.
    """

    def __init__(self, config: KafkaConfig, topic: str, group: str) -> None:
        self._config = config
        self._topic = topic
        self._group = group
        self._log = get_logger("replay")
        self._throttle = Throttle()
        self._consumer = self._connect(group)
        self._readings: dict[int, _Reading] = {}

    # --- what is there

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that the log still has, and the one that the next message gets."""
        with self._asking("the ends of the log"):
            low, high = self._consumer.get_watermark_offsets(self._name(partition), timeout=ANSWER_SECONDS)
        return low, high

    def offset_at(self, partition: int, ms: int) -> int:
        """The first offset whose message was appended at this time or later, else the log's end."""
        with self._asking("offsets by time"):
            (found,) = self._consumer.offsets_for_times([self._name(partition, ms)], timeout=ANSWER_SECONDS)
            _raise(found.error)
        return found.offset if found.offset >= 0 else self.bounds(partition)[1]

    def look(self, partition: int, offset: int) -> Seen | None:
        """The first message at an offset or behind it; None when there is none."""
        low, high = self.bounds(partition)
        with self._asking("a message"):
            self._consumer.assign([self._name(partition, max(low, offset))])
            try:
                return self._look(partition) if offset < high else None
            finally:
                self._consumer.unassign()

    def _look(self, partition: int) -> Seen | None:
        for _ in range(round(ANSWER_SECONDS)):
            for message in self._consumer.consume(1, 1.0):
                error = message.error()
                if error is None:
                    return Seen(_offset(message), message.timestamp()[1])
                if _is_end(error):
                    return None
                if not error.retriable():
                    _raise(error)
        raise KafkaAway(f"Kafka did not hand over a message of partition {partition} within {ANSWER_SECONDS:g} s")

    def delivered(self, group: str, partitions: int) -> dict[int, Delivered]:
        """What a sink's group has committed, by partition; without those of which it has delivered nothing."""
        reader = self._connect(group)
        try:
            return {
                number: Delivered(offset, read_note(note))
                for number, offset, note in self._committed(reader, range(partitions))
            }
        finally:
            reader.close()

    # --- bookmarks

    def bookmarks(self, partitions: int) -> dict[int, tuple[int, str | None]]:
        """The offsets of the bookmarks, and what stands beside them."""
        return {number: (offset, text) for number, offset, text in self._committed(self._consumer, range(partitions))}

    def mark(self, offsets: Mapping[int, tuple[int, str]]) -> None:
        """Set bookmarks, each with what stands beside it."""
        names = [TopicPartition(self._topic, number, offset, text) for number, (offset, text) in offsets.items()]
        with self._asking("to keep how far it has come"):
            for name in self._consumer.commit(offsets=names, asynchronous=False) or []:
                _raise(name.error)

    def forget(self) -> None:
        """Remove the bookmarks: the group is gone then. That it cannot be removed does no harm, and is told."""
        client = admin(self._config, f"{CLIENT}-admin")
        try:
            client.delete_consumer_groups([self._group], request_timeout=ANSWER_SECONDS)[self._group].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                self._log.warning(
                    "the group that keeps how far the replay has come cannot be removed",
                    group=self._group,
                    error=error.args[0].str(),
                )

    # --- reading

    def begin(self, legs: Sequence[Leg]) -> None:
        """Read these from their beginnings on."""
        self._readings = {leg.number: _Reading(leg.number, leg.read) for leg in legs}
        with self._asking("to be read from"):
            self._consumer.assign([self._name(leg.number, leg.read) for leg in legs])

    def read(self, most: int, seconds: float) -> list[Message]:
        """Return what comes within the time, in the order of each partition."""
        with self._asking("messages"):
            messages = self._consumer.consume(most, seconds)
        poll = Poll(self._seek)
        return [message for message in messages if self._is_next(message, poll)]

    @property
    def ended(self) -> Collection[int]:
        """Partitions of which nothing was left to be read when they were last asked for more."""
        return [number for number, reading in self._readings.items() if reading.ended]

    def finish(self, partition: int) -> None:
        """Read nothing more of a partition."""
        self._readings.pop(partition, None)
        with self._asking("to be read no more"):
            self._consumer.incremental_unassign([self._name(partition)])

    def close(self) -> None:
        """Let go of Kafka."""
        self._consumer.close()

    def _is_next(self, message: Message, poll: Poll) -> bool:
        number, error = message.partition(), message.error()
        reading = None if number is None else self._readings.get(number)
        if error is not None:
            self._hear(number, error)
            if reading is not None and _is_end(error):
                poll.end(reading)
            return False
        return reading is not None and poll.is_next(reading, _offset(message))

    def _seek(self, number: int, offset: int) -> None:
        with self._asking("to be read again"):
            self._consumer.seek(self._name(number, offset))

    def _hear(self, number: int | None, error: KafkaError) -> None:
        if _is_end(error):
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - the same
            raise SluicewayError(
                f"Kafka has let go of messages of partition {number} that were about to be replayed. The same command"
                " goes on if that can be, and else says from where on it can"
            )
        if error.fatal():
            raise KafkaAway(f"the Kafka client cannot go on: {error.str()}")
        self._throttle.log(
            self._log, "warning", error.code(), "Kafka sent an error instead of messages", error=error.str()
        )

    def _connect(self, group: str) -> Consumer:
        properties = consumer_properties(self._config, group, CLIENT)
        properties["enable.partition.eof"] = "true"
        return consumer(properties)

    def _committed(self, reader: Consumer, numbers: Iterable[int]) -> Iterator[tuple[int, int, str | None]]:
        with self._asking("the offsets of a group"):
            for name in reader.committed([self._name(number) for number in numbers], timeout=ANSWER_SECONDS):
                _raise(name.error)
                if name.offset >= 0:
                    yield name.partition, name.offset, name.metadata

    def _name(self, partition: int, offset: int | None = None) -> TopicPartition:
        if offset is None:
            return TopicPartition(self._topic, partition)
        return TopicPartition(self._topic, partition, offset)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            reason: Any = error.args[0]
            raise KafkaAway(
                f"Kafka at {self._config.bootstrap_servers} (kafka.bootstrap_servers) was asked for {what}, and answers:"
                f" {reason.str()}"
            ) from error


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise RuntimeError("a message without an offset")
    return offset


def _is_end(error: KafkaError) -> bool:
    return error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's own name for it


def _raise(error: KafkaError | None) -> None:
    if error is not None:
        raise KafkaException(error)
