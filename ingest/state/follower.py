"""Reads the topic ``flows.exporters``: all of it from its beginning, and then what is appended."""

from __future__ import annotations

from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from shared.config import KafkaConfig
from shared.kafka import Properties, consumer, consumer_properties

CLIENT: Final = "sluiceway-ingest-state"
ANSWER_SECONDS: Final = 5.0


class Follower:
    """A consumer of its own, without a group: every instance reads everything. One thread uses it.

    Raises KafkaException from every method when Kafka does not answer; :meth:`open` may then be tried again.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._properties = follower_properties(config)
        self._client: Consumer | None = None
        self._topic = ""
        self._ends: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self.trouble: str | None = None
        """What Kafka last said against reading, until something is read."""

    def open(self, topic: str, partitions: int) -> None:
        """Begin at the beginning. Where the end is, is asked now. Blocks for as long as Kafka takes to say it."""
        self.close()
        self._topic = topic
        self._client = consumer(self._properties)
        places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        ends = {}
        for place in places:
            low, high = self._client.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
            # With nothing in it there is nothing to be read.
            ends[place.partition] = high if high > low else 0
        self._client.assign(places)
        self._ends, self._next = ends, dict.fromkeys(ends, 0)

    def poll(self, seconds: float, most: int) -> list[Message]:
        """Messages as they come, waiting for up to ``seconds`` for the first."""
        client = self._opened()
        found = []
        for message in client.consume(most, seconds):
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name for it
                # The client asks for the group that it has to have a name for, and need not get.
                if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    self.trouble = error.str()
                continue
            if partition is None or offset is None:
                continue
            self.trouble = None
            # That there is nothing more may be far beyond the last message: compaction leaves holes.
            self._next[partition] = offset + (error is None)
            if error is None:
                found.append(message)
        return found

    @property
    def caught_up(self) -> bool:
        """Whether all was read that was there when this was opened."""
        return self._client is not None and all(self._next[number] >= end for number, end in self._ends.items())

    @property
    def progress(self) -> tuple[int, int]:
        """How far it has read in offsets, and how far it has to until it has caught up; both over all partitions."""
        return sum(min(self._next[number], end) for number, end in self._ends.items()), sum(self._ends.values())

    def lag(self) -> int:
        """Messages in the topic that were not read yet, as far as the client knows."""
        client = self._opened()
        behind = 0
        for number, position in self._next.items():
            _, high = client.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            behind += max(0, high - position)
        return behind

    def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> Consumer:
        if self._client is None:
            raise RuntimeError("the follower was not opened")
        return self._client


def follower_properties(config: KafkaConfig) -> Properties:
    """What the consumer is made with: small fetches, since twenty instances may start at a time."""
    properties = consumer_properties(config, CLIENT, CLIENT)
    # There is no group to speak a protocol of.
    properties.pop("group.protocol", None)
    return properties | {
        "auto.offset.reset": "earliest",
        "enable.partition.eof": "true",
        "fetch.max.bytes": "1048576",
        "fetch.message.max.bytes": "262144",
        "queued.max.messages.kbytes": "2048",
    }
