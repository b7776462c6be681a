"""The headers of a dead letter: why a message was given up, by whom, and where it came from.

A message in ``flows.deadletter`` has the key, the value and the headers that it had in the topic it came from, and these
headers beside them. Both stages write them, and the forwarder reads them. Nothing here talks to Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.errors import SluicewayError

Headers = list[tuple[str, str | bytes | None]]
"""Headers as the Kafka client takes them; ours have bytes."""

REASON: Final = "reason"
STAGE: Final = "stage"
ORIGIN_TOPIC: Final = "origin-topic"
ORIGIN_PARTITION: Final = "origin-partition"
ORIGIN_OFFSET: Final = "origin-offset"
FIRST_FAILURE: Final = "first-failure"
SINK: Final = "sink"

NAMES: Final = frozenset({REASON, STAGE, ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, FIRST_FAILURE, SINK})
"""All that a dead letter has besides what its message had."""


class NotADeadLetterError(SluicewayError):
    """A message has not the headers of a dead letter."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a message is a dead letter. ``reason`` and ``stage`` are words of closed lists."""

    reason: str
    stage: str
    """``ingest`` or ``forwarder``."""
    topic: str
    """The topic that the message came from, with its prefix."""
    partition: int
    offset: int
    first_failure_ms: int
    """When it failed, or could not be read, for the first time: milliseconds since 1970."""
    sink: str | None = None
    """The sink that refused it; None where none did."""

    def headers(self, own: Iterable[tuple[str, str | bytes | None]] | None) -> Headers:
        """The headers of the dead letter: those that its message has of its ``own``, and these."""
        ours: Headers = [
            (REASON, self.reason.encode()),
            (STAGE, self.stage.encode()),
            (ORIGIN_TOPIC, self.topic.encode()),
            (ORIGIN_PARTITION, b"%d" % self.partition),
            (ORIGIN_OFFSET, b"%d" % self.offset),
            (FIRST_FAILURE, b"%d" % self.first_failure_ms),
        ]
        if self.sink is not None:
            ours.append((SINK, self.sink.encode()))
        return [*without(own), *ours]


def without(headers: Iterable[tuple[str, str | bytes | None]] | None) -> Headers:
    """The headers that a message had before it became a dead letter."""
    return [(name, value) for name, value in headers or () if name not in NAMES]


def read(headers: Iterable[tuple[str, str | bytes | None]] | None) -> DeadLetter:
    """Read the headers of a dead letter.

    Raises NotADeadLetterError when one is missing or has no value that it may have.
    """
    # Of a name that comes twice the last one holds: it was added last.
    found = {name: value for name, value in headers or () if name in NAMES and isinstance(value, bytes)}
    return DeadLetter(
        reason=_text(found, REASON),
        stage=_text(found, STAGE),
        topic=_text(found, ORIGIN_TOPIC),
        partition=_number(found, ORIGIN_PARTITION),
        offset=_number(found, ORIGIN_OFFSET),
        first_failure_ms=_number(found, FIRST_FAILURE),
        sink=_text(found, SINK) if SINK in found else None,
    )


def _text(found: dict[str, bytes], name: str) -> str:
    try:
        text = found[name].decode()
    except (KeyError, UnicodeDecodeError):
        text = ""
    if not text:
        raise NotADeadLetterError(f"the header {name} is missing or no text: this is no dead letter of Sluiceway")
    return text


def _number(found: dict[str, bytes], name: str) -> int:
    digits = found.get(name, b"")
    if not digits.isdigit() or len(digits) > 18:
        raise NotADeadLetterError(f"the header {name} is missing or no number: this is no dead letter of Sluiceway")
    return int(digits)
