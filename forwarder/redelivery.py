"""Dead letters on their way, one at a time: where each of them goes, and how far it has come when it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException

from forwarder.deadletters import Delivered, Found, deliver, is_ours
from shared import deadletter
from shared.kafka import DEADLETTER_HEADER_BYTES, MAX_MESSAGE_BYTES, producer, producer_properties

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

    from forwarder.sinks.base import Sink
    from shared.config import KafkaConfig

FIRST_PARKED: Final = "first-parked"
"""Since when a set waits; without it, since it is in its topic again."""
PUT_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Way:
    """Where a letter goes: into a sink, back to a topic, or nowhere, with the reason."""

    sink: str | None = None
    topic: str | None = None
    problem: str = ""

    def __str__(self) -> str:
        if self.sink is not None:
            return f"to {self.sink}"
        return f"nowhere: {self.problem}" if self.topic is None else f"back to {self.topic}"


def way_of(found: Found, into: str | None) -> Way:
    """The way of a letter; ``into`` is a sink that gets what is the forwarder's, instead of the sink that refused it."""
    facts = found.facts
    if facts is None:
        return Way(problem="it is no dead letter of Sluiceway")
    if not is_ours(found):
        return Way(topic=facts.topic)
    sink = into if into is not None else facts.sink
    return Way(problem="it is of no sink: --into hands it to one") if sink is None else Way(sink=sink)


@dataclass(slots=True)
class Sum:
    """Letters, the records (or sets) that they say they have, and the bytes of their values."""

    letters: int = 0
    records: int = 0
    bytes: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.letters + other.letters, self.records + other.records, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do, by the ways that letters go."""

    sums: Mapping[Way, Sum]

    @property
    def total(self) -> Sum:
        """All of it."""
        return sum(self.sums.values(), Sum())

    @property
    def sinks(self) -> set[str]:
        """The sinks that letters go into."""
        return {way.sink for way in self.sums if way.sink is not None}

    @property
    def going_back(self) -> int:
        """How many letters go back to a topic."""
        return sum(one.letters for way, one in self.sums.items() if way.topic is not None)


def survey(letters: Iterable[Found], into: str | None) -> Plan:
    """Count letters by their ways; nothing of them is kept."""
    sums: dict[Way, Sum] = {}
    for found in letters:
        way = way_of(found, into)
        sums[way] = sums.get(way, Sum()) + Sum(1, found.records or 0, len(found.value))
    return Plan(sums)


class PutBack:
    """Puts sets that waited for their template back where they waited: with their template, they are decoded now.

    There is one producer for all letters, made for the first of them.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._producer: Producer | None = None

    def put(self, found: Found, topic: str) -> Delivered:
        """Put one letter back, and wait for its acknowledgement."""
        told: list[str | None] = []

        def hear(error: KafkaError | None, _message: Message) -> None:
            told.append(None if error is None else error.str())

        headers = [pair for pair in deadletter.without(found.headers) if pair[0] != FIRST_PARKED]
        try:
            client = self._made()
            client.produce(topic, found.value, found.key, headers=headers, on_delivery=hear)
            client.flush(FLUSH_SECONDS)
        except (KafkaException, BufferError) as error:
            told = [str(error)]
        if not told or told[0] is not None:
            problem = told[0] if told else "no broker answers"
            # What the client has still in hand, or a defect of its own, shall not reach the next letter.
            self._drop()
            return Delivered(found.place, 0, f"{topic} does not take it: {problem}")
        return Delivered(found.place, found.records or 0)

    def _made(self) -> Producer:
        if self._producer is None:
            self._producer = producer(
                producer_properties(self._config, "sluiceway-deadletters")
                | {
                    "message.timeout.ms": str(round(PUT_SECONDS * 1000)),
                    "message.max.bytes": str(MAX_MESSAGE_BYTES + DEADLETTER_HEADER_BYTES),
                }
            )
        return self._producer

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None


@dataclass(slots=True)
class Redelivery:
    """Letters go their ways, and are counted; ``wait`` is that of :func:`forwarder.deadletters.deliver`."""

    into: str | None
    sinks: Mapping[str, Sink]
    back: PutBack
    topic_id: str
    wait: Callable[[float, str], object]
    delivered: Sum = field(default_factory=Sum)
    failed: int = 0
    reached: dict[int, int] = field(default_factory=dict)
    """Of each partition, the offset behind the last letter that was tried to its end."""

    @property
    def tried(self) -> int:
        """How many letters were tried to their end."""
        return self.delivered.letters + self.failed

    def send(self, found: Found) -> Delivered:
        """Let one letter go its way.

        Raises:
            SluicewayError: the sink does not let it in, and waiting does not mend that.
        """
        way = way_of(found, self.into)
        if way.sink is not None:
            outcome = deliver(found, self.sinks[way.sink], self.topic_id, self.wait)
        elif way.topic is not None:
            outcome = self.back.put(found, way.topic)
        else:
            outcome = Delivered(found.place, 0, way.problem)
        if outcome.problem is None:
            self.delivered += Sum(1, outcome.records, len(found.value))
        else:
            self.failed += 1
        self.reached[found.place.partition] = found.place.offset + 1
        return outcome
