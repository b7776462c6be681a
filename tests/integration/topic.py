"""What is in a topic, as a plain consumer sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from deploy.local.books import Sums
from shared import codec
from shared.config import KafkaConfig
from shared.kafka import RECORDS, full_name, partition_count

PATIENCE_SECONDS = 30.0
_NO_LEADER_YET = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}


class RecordsTopic:
    """The records' topic of a prefix; reads it by offsets, without a group."""

    def __init__(self, bootstrap_servers: str, topic_prefix: str) -> None:
        self.config = KafkaConfig(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
        self.name = full_name(self.config, RECORDS)
        self._next: dict[int, int] = {}

    @property
    def partitions(self) -> int:
        """How many it has."""
        return partition_count(self.config, RECORDS)

    def read(self) -> list[Message]:
        """The messages that were appended since the last call, at first all; returns when it has read to the end."""
        consumer = Consumer({"bootstrap.servers": self.config.bootstrap_servers, "group.id": "plain"})
        try:
            return self._read(consumer)
        finally:
            consumer.close()

    def records(self) -> pa.Table:
        """The records of these messages."""
        return records(self.read())

    def ends(self) -> dict[int, int]:
        """The offset behind the last message of each partition, as the broker says."""
        consumer = Consumer({"bootstrap.servers": self.config.bootstrap_servers, "group.id": "plain"})
        try:
            return self._ends(consumer)
        finally:
            consumer.close()

    def _ends(self, consumer: Consumer) -> dict[int, int]:
        ends: dict[int, int] = {}
        for number in range(self.partitions):
            ends[number] = self._end(consumer, number)
        return ends

    def _end(self, consumer: Consumer, number: int) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                _, high = consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=PATIENCE_SECONDS)
            except KafkaException as error:
                # A broker that was stopped or started a moment ago does not know yet that it is the leader.
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return int(high)

    def _read(self, consumer: Consumer) -> list[Message]:
        ends = self._ends(consumer)
        begins = {number: self._next.get(number, 0) for number in ends}
        consumer.assign([TopicPartition(self.name, number, begin) for number, begin in begins.items()])
        wanted = sum(ends.values()) - sum(begins.values())
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{len(found)} of {wanted} messages read"
            for message in consumer.consume(min(1000, wanted - len(found)), 0.1):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                # What was appended since is of the next call.
                if offset < ends[partition]:
                    found.append(message)
        self._next = ends
        return found


def records(messages: list[Message]) -> pa.Table:
    """The records of messages, in one table."""
    return codec.merge([codec.decode(content(message)) for message in messages])


def content(message: Message) -> bytes:
    """A message's value."""
    value = message.value()
    assert value is not None
    return value


def sums(table: pa.Table) -> dict[str, Sums]:
    """Records, bytes and packets of each protocol."""
    if not table.num_rows:
        return {}
    grouped = table.select(["type", "bytes", "packets"]).set_column(0, "type", pc.cast(table["type"], pa.utf8()))
    added = grouped.group_by("type").aggregate([([], "count_all"), ("bytes", "sum"), ("packets", "sum")])
    return {
        row["type"]: Sums(row["count_all"], row["bytes_sum"] or 0, row["packets_sum"] or 0) for row in added.to_pylist()
    }


def column(table: pa.Table, name: str) -> list[Any]:
    """A column's values, and nothing when there is no such column."""
    return table[name].to_pylist() if name in table.column_names else []


def identities(table: pa.Table) -> list[int]:
    """The records' ids; each is there once."""
    found = column(table, "record_id")
    assert len(set(found)) == len(found)
    return found


def drops(books: Mapping[str, Any]) -> dict[str, int]:
    """Records that were dropped, by why, where there were any."""
    dropped: dict[str, int] = books["dropped"]["records"]
    return {reason: count for reason, count in dropped.items() if count}
