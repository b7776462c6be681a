"""The dead letters that are in Kafka: which there are, what is in them, and how they are delivered after all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition

from forwarder.cut import Token
from forwarder.letters import CONTENT, DETAIL, ORIGIN_END, STAGE, SUMS
from forwarder.sifting import Sifting
from forwarder.sinks.base import Busy, Done, Trouble
from shared import codec, deadletter
from shared.deadletter import DeadLetter, NotADeadLetterError
from shared.errors import SluicewayError
from shared.kafka import DEADLETTER, admin, consumer, consumer_properties, full_name, uuid_text

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Consumer, Message

    from forwarder.sinks.base import Sink
    from shared.codec import Headers
    from shared.config import KafkaConfig

ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.5
POLL_MESSAGES: Final = 8
"""All of them are in memory while one is delivered, and each may be as large as Kafka takes."""
QUIET_SECONDS: Final = 30.0
"""A topic that gives nothing for so long, though its end is further on, cannot be read."""
ARROW: Final = codec.CONTENT_TYPE.encode()


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a dead letter is: its id, written ``partition:offset``."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read an id.

        Raises:
            ValueError: the text has another form.
        """
        if not re.fullmatch(r"\d{1,9}:\d{1,18}", text, re.ASCII):
            raise ValueError(f"{text!r} is no id of a dead letter, which is partition:offset, such as 3:120")
        partition, offset = text.split(":")
        return cls(int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter as it was read. ``facts`` are None for a message that is none."""

    place: Place
    facts: DeadLetter | None
    key: bytes | None
    value: bytes
    headers: Headers

    def header(self, name: str) -> str | None:
        """A header as text."""
        value = dict(self.headers).get(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else None

    @property
    def records(self) -> int | None:
        """How many records, or sets, its message says that it has."""
        digits = self.header("records") or ""
        return int(digits) if re.fullmatch(r"\d{1,18}", digits, re.ASCII) else None

    @property
    def detail(self) -> str:
        """What the sink, or the decoder, said."""
        return self.header(DETAIL) or ""

    @property
    def is_sums(self) -> bool:
        """Whether it holds rows that records were added up to."""
        return dict(self.headers).get(CONTENT) == SUMS

    def table(self) -> pa.Table:
        """Its rows.

        Raises:
            SluicewayError: it holds no rows, or they cannot be read.
        """
        if dict(self.headers).get("content-type") != ARROW:
            raise SluicewayError("it holds no columns")
        return codec.decode(self.value)

    def as_json(self) -> dict[str, object]:
        """Return what is known of it for a program."""
        facts = self.facts
        known: dict[str, object] = {"id": str(self.place), "records": self.records, "bytes": len(self.value)}
        if facts is not None:
            end = self.header(ORIGIN_END)
            known |= {
                "reason": facts.reason,
                "stage": facts.stage,
                "sink": facts.sink,
                "origin": {"topic": facts.topic, "partition": facts.partition, "offset": facts.offset},
                "first_failure_ms": facts.first_failure_ms,
            }
            if end is not None:
                known["origin"] = {**known["origin"], "end": int(end)}  # type: ignore[dict-item]  # a map, as above
        if self.detail:
            known["detail"] = self.detail
        return known


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those that fit all that is given."""

    places: frozenset[Place] = frozenset()
    reason: str | None = None
    stage: str | None = None
    sink: str | None = None
    begin: dict[int, int] = field(default_factory=dict)
    """Of a partition, the offset of the first letter that is meant; of others, all are."""

    def takes(self, found: Found) -> bool:
        """Whether a letter is meant."""
        if self.places and found.place not in self.places:
            return False
        if found.place.offset < self.begin.get(found.place.partition, 0):
            return False
        facts = found.facts
        wanted = ((self.reason, "reason"), (self.stage, "stage"), (self.sink, "sink"))
        return all(asked is None or (facts is not None and getattr(facts, name) == asked) for asked, name in wanted)


@dataclass(slots=True)
class Letters:
    """Reads the topic of the dead letters, from its beginning to where it ended when it was first read.

    Joins no group, commits nothing. It may be read several times; what comes meanwhile is left out.
    """

    kafka: KafkaConfig
    topic_id: str = ""
    stopping: Event = field(default_factory=Event)
    """Set, it ends what is being read."""
    _highs: dict[int, int] | None = None

    @property
    def topic(self) -> str:
        """The topic's name in Kafka."""
        return full_name(self.kafka, DEADLETTER)

    def read(self, selection: Selection) -> Iterator[Found]:
        """Yield the letters that are meant, partition by partition as they come.

        Raises:
            SluicewayError: Kafka does not answer, or there is no such topic.
        """
        properties = consumer_properties(self.kafka, "sluiceway-deadletters", "sluiceway-deadletters")
        reader = consumer(properties | {"auto.offset.reset": "earliest", "enable.partition.eof": "true"})
        try:
            for message in self._messages(reader, self._begin(reader)):
                found = _found(message)
                if selection.takes(found):
                    yield found
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise SluicewayError(
                    f"there is no topic {self.topic}: nothing was ever put there, or kafka.topic_prefix is another one"
                ) from error
            raise SluicewayError(f"the dead letters in {self.topic} cannot be read: {error.args[0].str()}") from error
        finally:
            reader.close()

    def _begin(self, reader: Consumer) -> dict[int, int]:
        """Begin to read, and return where it is to end, of each partition that has anything."""
        asker = admin(self.kafka, "sluiceway-deadletters-admin")
        asked = asker.describe_topics(TopicCollection([self.topic]), request_timeout=ANSWER_SECONDS)
        told = asked[self.topic].result()
        self.topic_id = uuid_text(told.topic_id)
        lows, highs = {}, {}
        for one in told.partitions:
            name = TopicPartition(self.topic, one.id)
            lows[one.id], highs[one.id] = reader.get_watermark_offsets(name, timeout=ANSWER_SECONDS)
        if self._highs is None:
            self._highs = highs
        ends = {number: high for number, high in self._highs.items() if lows.get(number, high) < high}
        reader.assign([TopicPartition(self.topic, number, lows[number]) for number in ends])
        return ends

    def _messages(self, reader: Consumer, left: dict[int, int]) -> Iterator[Message]:
        quiet = 0.0
        while left and not self.stopping.is_set():
            messages = reader.consume(POLL_MESSAGES, POLL_SECONDS)
            quiet = 0.0 if messages else quiet + POLL_SECONDS
            if quiet >= QUIET_SECONDS:
                raise SluicewayError(f"Kafka gives nothing more of {self.topic}, though its end is further on")
            for message in messages:
                number, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name for it
                        raise KafkaException(error)
                    # The last offsets of a partition may be no messages.
                    left.pop(number, None)
                elif number in left:
                    if offset < left[number]:
                        yield message
                    if offset + 1 >= left[number]:
                        del left[number]


def _found(message: Message) -> Found:
    told = message.headers() or []
    headers = list(told.items()) if isinstance(told, dict) else told
    try:
        facts: DeadLetter | None = deadletter.read(headers)
    except NotADeadLetterError:
        facts = None
    partition, offset = message.partition(), message.offset()
    return Found(Place(partition or 0, offset or 0), facts, message.key(), message.value() or b"", headers)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a letter: ``problem`` is None when it arrived."""

    place: Place
    records: int
    problem: str | None = None


def token_of(found: Found, topic_id: str) -> Token:
    """The name under which a letter of the forwarder is delivered: by its origin and what is in it, not by its place.

    The same letter may be in the topic several times, and whoever takes one of them has them all. ``topic_id`` is that of
    the dead letters.

    Raises:
        ValueError: it is no dead letter.
    """
    facts = found.facts
    if facts is None:
        raise ValueError(f"{found.place} is no dead letter")
    told = found.header(ORIGIN_END) or ""
    end = int(told) if told.isascii() and told.isdigit() else facts.offset + 1
    mark = hashlib.blake2b(digest_size=8)
    for part in (facts.topic, facts.reason, found.detail):
        mark.update(part.encode() + b"\0")
    mark.update(found.value)
    return Token(topic_id, facts.partition, facts.offset, end, only=mark.hexdigest())


def deliver(found: Found, sink: Sink, topic_id: str, wait: Callable[[float, str], object]) -> Delivered:
    """Hand a letter of the forwarder to a sink, under a name of its own that is the same each time.

    ``wait`` is called with seconds, and with what the sink says, while it is busy; what it raises ends the delivery. What
    the sink refuses again stays a dead letter.

    Raises:
        SluicewayError: the sink does not let the letter in, and waiting does not mend that.
    """
    try:
        table = found.table()
    except SluicewayError as error:
        return Delivered(found.place, 0, str(error))
    token = token_of(found, topic_id)
    sifting = Sifting(table.slice(0, 0), token, table) if found.is_sums else Sifting(table, token)
    pause = 1.0
    while isinstance(outcome := sifting.deliver(sink.deliver), Busy):
        if outcome.reason is Trouble.FORBIDDEN:
            raise SluicewayError(
                f"the sink does not let the dead letter {found.place} in, and waiting does not mend that:"
                f" {outcome.detail}. Mend it, or hand the letters to another sink by --into"
            )
        wait(outcome.retry_after or pause, outcome.detail)
        pause = min(30.0, 2 * pause)
    taken = table.num_rows - len(sifting.bad)
    if not isinstance(outcome, Done):
        return Delivered(found.place, taken, f"refused again: {outcome.detail}")
    if sifting.bad:
        return Delivered(
            found.place, taken, f"{len(sifting.bad)} records refused again: {sifting.bad[0].outcome.detail}"
        )
    return Delivered(found.place, taken)


def is_ours(found: Found) -> bool:
    """Whether a letter is the forwarder's, to be handed to a sink; others go back to the topic they came from."""
    return found.facts is not None and found.facts.stage == STAGE
