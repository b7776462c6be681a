"""What is in the topic of templates and options data, as a plain consumer sees it."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from shared.config import KafkaConfig
from shared.kafka import EXPORTERS, full_name, partition_count


def messages(config: KafkaConfig) -> list[Message]:
    """Everything in the topic, in the order of each partition."""
    consumer = Consumer(
        {"bootstrap.servers": config.bootstrap_servers, "group.id": "plain", "enable.partition.eof": "true"}
    )
    name, ended = full_name(config, EXPORTERS), set[int | None]()
    partitions = range(partition_count(config, EXPORTERS))
    try:
        consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in partitions])
        found = []
        while len(ended) < len(partitions):
            (message,) = consumer.consume(1, 30.0)
            error = message.error()
            if error is None:
                found.append(message)
                continue
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition())
        return found
    finally:
        consumer.close()


def keys(config: KafkaConfig) -> list[str]:
    """The keys of all messages, sorted."""
    return sorted((message.key() or b"").decode() for message in messages(config))
