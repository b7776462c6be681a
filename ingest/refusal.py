"""What the spool has to know of why Kafka does not take a message; the reasons are those of both stages."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from shared.refusal import REFUSALS, Refusal, refusal

__all__ = ["FINAL", "REFUSALS", "UNKNOWN_PARTITION", "Refusal", "refusal"]

FINAL: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)
"""Refusals of the message itself: it would be refused again."""

UNKNOWN_PARTITION: Final = KafkaError._UNKNOWN_PARTITION  # noqa: SLF001 - the client's own name for it
