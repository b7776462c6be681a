"""Why Kafka, or what stands in for it, does not take a message: one closed list for all metrics of both stages."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaError


class Refusal(StrEnum):
    """Why the records of a message were not taken."""

    QUEUE_FULL = "queue_full"
    """The queue to Kafka has no room, since brokers are away or too slow."""
    TOO_LARGE = "too_large"
    NOT_AUTHORIZED = "not_authorized"
    UNKNOWN_TOPIC = "unknown_topic"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """Still without an acknowledgement when the time for it was over."""
    SPOOL_FULL = "spool_full"
    """Brokers are away, and the spool, or the disk that it is on, has no room."""
    SPOOL_FAILED = "spool_failed"
    """Brokers are away, and the spool could not be written to."""
    SPOOL_DAMAGED = "spool_damaged"
    """What was read from the spool is not what was written."""
    OTHER = "other"


REFUSALS: Final[Mapping[int, Refusal]] = {
    KafkaError.MSG_SIZE_TOO_LARGE: Refusal.TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: Refusal.TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Refusal.NOT_AUTHORIZED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Refusal.NOT_AUTHORIZED,
    KafkaError.UNKNOWN_TOPIC_OR_PART: Refusal.UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_TOPIC: Refusal.UNKNOWN_TOPIC,  # noqa: SLF001 - the client's own name for it
    KafkaError._UNKNOWN_PARTITION: Refusal.UNKNOWN_TOPIC,  # noqa: SLF001 - the client's own name for it
    KafkaError._MSG_TIMED_OUT: Refusal.NOT_ACKNOWLEDGED,  # noqa: SLF001 - the client's own name for it
    KafkaError._PURGE_QUEUE: Refusal.NOT_ACKNOWLEDGED,  # noqa: SLF001 - the client's own name for it
    KafkaError._PURGE_INFLIGHT: Refusal.NOT_ACKNOWLEDGED,  # noqa: SLF001 - the client's own name for it
}


def refusal(code: int) -> Refusal:
    """Why, by the client's code."""
    return REFUSALS.get(code, Refusal.OTHER)
