"""Dead letters of the forwarder: what a sink refused for good, and what can never be decoded, put aside in Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from confluent_kafka import KafkaError, KafkaException

from forwarder.aggregate import RECORDS
from forwarder.sinks.base import Refused
from shared import codec
from shared.deadletter import DeadLetter
from shared.kafka import (
    DEADLETTER,
    DEADLETTER_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    KafkaAway,
    Properties,
    ensure_topics,
    full_name,
    producer,
    producer_properties,
)
from shared.log import get_logger
from shared.refusal import Refusal, refusal

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message, Producer

    from forwarder.assembly import Held
    from forwarder.cut import Token
    from forwarder.sifting import Sifting
    from shared.codec import Headers
    from shared.config import KafkaConfig
    from shared.metrics import Book

STAGE: Final = "forwarder"
CORRUPT: Final = "corrupt"
REFUSED: Final = "refused"
TOO_LARGE: Final = "too_large"

DETAIL: Final = "detail"
ORIGIN_END: Final = "origin-end"
CONTENT: Final = "content"
SUMS: Final = b"sums"

PUT_SECONDS: Final = 10.0
PURGE_SECONDS: Final = 1.0
"""How long a client that can produce no more may take to say what it gives up."""
DETAIL_BYTES: Final = 2000
"""A backend may answer with a page of HTML."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for ``flows.deadletter``, and how many records of what reason are in it, or were added up to its sums."""

    value: bytes
    headers: Headers
    reason: str
    records: int
    is_sums: bool = False


class Letterbox(Protocol):
    """Where dead letters go."""

    def put(self, letters: Sequence[Letter]) -> str | None:
        """Put letters away for good; None when they are there, else what is the matter: they are to be put again."""
        ...


class KafkaLetterbox:
    """Puts dead letters into the topic ``flows.deadletter``; any thread may. Does nothing before the first one."""

    def __init__(
        self, config: KafkaConfig, client_id: str, book: Book, connect: Callable[[Properties], Producer] = producer
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._book = book
        self._connect = connect
        self._topic = full_name(config, DEADLETTER)
        self._log = get_logger("letters")
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._fatal: str | None = None

    def put(self, letters: Sequence[Letter]) -> str | None:
        """Produce letters, and wait for their acknowledgement. One that could not be told in time may come twice."""
        with self._lock:
            failures: list[str] = []

            def told(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    failures.append(error.str())
                    self._count_error(refusal(error.code()))
                    return
                self._book.add("kafka_produced_messages_total", 1, topic=self._topic)
                self._book.add("kafka_produced_bytes_total", len(message.value() or b""), topic=self._topic)

            try:
                client = self._made()
                for letter in letters:
                    self._hand_over(client, letter, told)
                left = client.flush(PUT_SECONDS)
            except (KafkaAway, KafkaException, BufferError) as error:
                return f"dead letters cannot be put into {self._topic}: {error}"
            if failures or left:
                return f"dead letters cannot be put into {self._topic}: {next(iter(failures), 'no broker answers')}"
            return None

    def _hand_over(self, client: Producer, letter: Letter, told: Callable[[KafkaError | None, Message], None]) -> None:
        try:
            client.produce(self._topic, letter.value, headers=letter.headers, on_delivery=told)
        except BufferError:
            self._count_error(Refusal.QUEUE_FULL)
            raise
        except KafkaException as exception:
            self._count_error(refusal(exception.args[0].code()))
            raise

    def _count_error(self, reason: Refusal) -> None:
        self._book.add("kafka_produce_errors_total", 1, topic=self._topic, reason=reason.value)

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()

    def _made(self) -> Producer:
        if self._producer is not None:
            # What has happened since the last letters is heard here: a broken client takes none, nor says why.
            self._producer.poll(0)
            if self._fatal is not None:
                self._log.error("the Kafka client can put away no more dead letters, starting anew", error=self._fatal)
                self._producer.purge()
                self._producer.flush(PURGE_SECONDS)
                self._producer = None
        if self._producer is None:
            self._fatal = None
            problems = ensure_topics(self._config, [DEADLETTER], PUT_SECONDS).problems
            if problems:
                raise KafkaAway(" ".join(problems))
            properties = producer_properties(self._config, self._client_id, queue_messages=10_000)
            self._producer = self._connect(
                properties
                | {
                    # It is the batch that is tried again, and with it these.
                    "message.timeout.ms": str(round(PUT_SECONDS * 1000)),
                    "message.max.bytes": str(MAX_MESSAGE_BYTES + DEADLETTER_HEADER_BYTES),
                    "error_cb": self._hear,
                }
            )
        return self._producer


def corrupt(topic: str, sink: str, token: Token, found: Iterable[tuple[Held, str]], now_ms: int) -> Iterator[Letter]:
    """A letter for each message that cannot be decoded, as it came."""
    for held, why in found:
        facts = DeadLetter(CORRUPT, STAGE, topic, token.partition, held.facts.offset, now_ms, sink)
        headers = [*facts.headers(held.headers), (DETAIL, _detail(why))]
        yield Letter(held.value, headers, CORRUPT, max(1, held.facts.records))


def refused(topic: str, sink: str, token: Token, sifting: Sifting, now_ms: int) -> Iterator[Letter]:
    """Letters of the records that a sink refused, as they were to be delivered: one for each thing that it said.

    The origin is the batch: from its first offset to the one behind its last.
    """
    for sums in (False, True):
        groups: dict[tuple[str, str], list[int]] = {}
        bad = [one for one in sifting.bad if (one.row >= sifting.table.num_rows) == sums]
        for at, one in enumerate(bad):
            reason = REFUSED if isinstance(one.outcome, Refused) else TOO_LARGE
            groups.setdefault((reason, one.outcome.detail), []).append(at)
        rows = sifting.bad_rows(sums=sums)
        for (reason, detail), numbers in groups.items():
            table = rows.take(numbers)
            records = sum(table[RECORDS].to_pylist()) if sums else table.num_rows
            facts = DeadLetter(reason, STAGE, topic, token.partition, token.start, now_ms, sink)
            headers = facts.headers(codec.headers(len(numbers), STAGE))
            headers += [(DETAIL, _detail(detail)), (ORIGIN_END, b"%d" % token.end)]
            if sums:
                headers.append((CONTENT, SUMS))
            yield Letter(_encoded(table), headers, reason, records, is_sums=sums)


def _encoded(table: pa.Table) -> bytes:
    (batch,) = table.combine_chunks().to_batches()
    return bytes(codec.encode(batch))


def _detail(text: str) -> bytes:
    return text.encode()[:DETAIL_BYTES]
