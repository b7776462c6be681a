"""What comes of sets that were read again, put into Kafka: records, what is appended again, dead letters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from ingest.decoders.fault import Unit
from ingest.ledger import UNDECODED_STAGE as STAGE
from ingest.outbox import MessageBounds, Outbox
from ingest.producer import BY_KEY
from ingest.refusal import Refusal
from ingest.undecoded import message
from ingest.undecoded.chunk import Reason
from ingest.undecoded.outgoing import Letter, Outgoing, Settled, Tally
from shared import codec
from shared.deadletter import DeadLetter
from shared.kafka import (
    DEADLETTER,
    DEADLETTER_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    RECORDS,
    UNDECODED,
    full_name,
    producer_properties,
)

if TYPE_CHECKING:
    from ingest.undecoded.chunk import GivenUp, Rest
    from shared.config import KafkaConfig

APPENDED: Final = "appended"
"""What became of sets that are no dead letters."""

OUTBOX_BYTES: Final = 256 << 20
QUEUE_BYTES: Final = 64 << 20
FLUSH_SECONDS: Final = 30.0
"""How long Kafka may take to acknowledge what came of one chunk."""


class Post(Protocol):
    """What carries the messages; see :class:`ingest.undecoded.outgoing.Outgoing`."""

    @property
    def messages(self) -> int:
        """Messages that are under way."""

    def put(self, letter: Letter, settled: Settled, deadline: float) -> None:
        """Send a message."""

    def flush(self, deadline: float, alive: Callable[[], None]) -> None:
        """Wait for all."""

    def give_up(self) -> None:
        """Wait for nothing any more."""


def outgoing(config: KafkaConfig, client_id: str, tally: Tally) -> Outgoing:
    """A producer for what comes of sets that were read again."""
    properties = producer_properties(config, client_id, queue_bytes=QUEUE_BYTES)
    # A message that is read is written again, whoever made it, and dead letters have more headers.
    properties["message.max.bytes"] = str(MAX_MESSAGE_BYTES + DEADLETTER_HEADER_BYTES)
    return Outgoing(properties, tally)


class SettlingFailed(Exception):
    """Kafka did not take all that came of a chunk; the chunk has to be read again."""


class Settler:
    """Produces what came of a chunk, and waits until Kafka has acknowledged all of it. One thread uses it.

    It has a producer of its own: it waits for nothing that live decoding sends, and holds none of that up.
    """

    def __init__(
        self,
        config: KafkaConfig,
        name: str,
        bounds: MessageBounds,
        label: Callable[[str], str],
        tally: Tally,
        outgoing: Post,
    ) -> None:
        self.tally = tally
        self.partitions = 0
        """How many the records' topic has."""
        self._outgoing = outgoing
        self._name = name
        self._label = label
        self._outbox = Outbox(bounds, OUTBOX_BYTES)
        self._records = full_name(config, RECORDS)
        self._undecoded = full_name(config, UNDECODED)
        self._deadletter = full_name(config, DEADLETTER)
        self._refusals: Counter[Refusal] = Counter()
        self._counts: Counter[str] = Counter()

    def settle(
        self,
        partition: int,
        batches: Sequence[pa.RecordBatch],
        rest: Rest,
        sets: int,
        alive: Callable[[], None],
    ) -> int:
        """Produce what came of a chunk of this partition with so many sets; returns how many messages were appended.

        Raises SettlingFailed, in which case nothing is counted but the records that are in Kafka all the same.
        """
        self._begin()
        deadline = time.monotonic() + FLUSH_SECONDS
        for one in rest.again:
            key = message.exporter_text(one).encode()
            headers = message.headers(one, self._name)
            letter = Letter(self._undecoded, message.encode(one), len(one), key, headers, partition)
            self._outgoing.put(letter, self._sets(APPENDED, len(one)), deadline)
        for raw in rest.as_it_is:
            headers = [pair for pair in raw.headers if pair[0] != message.FIRST_PARKED]
            headers.append((message.FIRST_PARKED, b"%d" % raw.first_parked_ns))
            letter = Letter(self._undecoded, raw.value, raw.rows, raw.key, headers, partition)
            self._outgoing.put(letter, self._sets(APPENDED, raw.rows), deadline)
        for given_up in rest.given_up:
            self._put_dead_letter(given_up, deadline)
        # Records last: were what else comes of the chunk refused for long, they would be produced each time anew.
        self._acknowledged(deadline, alive)
        for batch in batches:
            if not self._outbox.add(batch, 0):
                raise SettlingFailed("records of one chunk take more memory than they may")
        for number, records in self._outbox.take(self.partitions):
            self._put_records(number, records, deadline)
        self._finish(deadline, alive, sets, rest.decoded)
        return len(rest.again) + len(rest.as_it_is)

    def give_up_message(self, given_up: GivenUp, alive: Callable[[], None]) -> None:
        """Make one message a dead letter."""
        self._begin()
        deadline = time.monotonic() + FLUSH_SECONDS
        self._put_dead_letter(given_up, deadline)
        self._finish(deadline, alive, given_up.rows, 0)

    def give_up(self) -> None:
        """Wait for nothing any more."""
        self._outgoing.give_up()
        self.tally.close()

    def lost(self, messages: int) -> None:
        """Count messages that expired unread."""
        self.tally.add("ingest_undecoded_lost_messages_total", messages)
        self.tally.close()

    def _begin(self) -> None:
        self._outbox.clear()
        self._refusals.clear()
        self._counts.clear()

    def _acknowledged(self, deadline: float, alive: Callable[[], None]) -> None:
        """Wait until Kafka has all that was produced; raises SettlingFailed when it has not."""
        self._outgoing.flush(deadline, alive)
        if self._outgoing.messages or self._refusals:
            self._outgoing.give_up()
            self.tally.close()
            said = ", ".join(sorted(refusal.value for refusal in self._refusals))
            raise SettlingFailed(f"Kafka did not take what came of it: {said}")

    def _finish(self, deadline: float, alive: Callable[[], None], sets: int, decoded: int) -> None:
        self._acknowledged(deadline, alive)
        self.tally.add("ingest_undecoded_read_total", sets)
        self.tally.add("ingest_undecoded_decoded_total", decoded)
        for name, count in self._counts.items():
            if name == APPENDED:
                self.tally.add("ingest_undecoded_appended_total", count)
                continue
            self.tally.add("ingest_dropped_total", count, stage=STAGE, reason=name, unit=Unit.SETS.value)
            if name == Reason.TEMPLATE_NEVER_CAME:
                self.tally.add("ingest_undecoded_expired_total", count)
        self.tally.close()

    def _put_records(self, partition: int, records: pa.RecordBatch, deadline: float) -> None:
        protocols = Counter[str]()
        for one in records.column("type").value_counts().to_pylist():
            protocols[self._label(one["values"])] += one["counts"]

        def settled(refusal: Refusal | None) -> None:
            if refusal not in {None, Refusal.TOO_LARGE}:
                self._refusals[refusal] += 1
                return
            for protocol, count in protocols.items():
                self.tally.add("ingest_records_decoded_total", count, protocol=protocol)
            if refusal is not None:
                self.tally.add(
                    "ingest_dropped_total", records.num_rows, stage=STAGE, reason=refusal.value, unit=Unit.RECORDS.value
                )

        headers = codec.headers(records.num_rows, self._name)
        letter = Letter(self._records, codec.encode(records), records.num_rows, None, headers, partition)
        self._outgoing.put(letter, settled, deadline)

    def _put_dead_letter(self, given_up: GivenUp, deadline: float) -> None:
        read = given_up.read
        letter = DeadLetter(
            reason=given_up.reason.value,
            stage="ingest",
            topic=self._undecoded,
            partition=read.partition,
            offset=read.offset,
            first_failure_ms=max(0, given_up.first_parked_ns // 1_000_000),
        )
        headers = [(name, value) for name, value in read.headers if name != "records"]
        headers.append(("records", b"%d" % given_up.rows))
        self._outgoing.put(
            Letter(self._deadletter, given_up.value, given_up.rows, read.key, letter.headers(headers), BY_KEY),
            self._sets(given_up.reason.value, given_up.rows),
            deadline,
        )

    def _sets(self, counted_as: str, count: int) -> Settled:
        """Count sets as what became of them, once their message is acknowledged; one that is too large is dropped."""

        def settled(refusal: Refusal | None) -> None:
            if refusal is None:
                self._counts[counted_as] += count
            elif refusal is Refusal.TOO_LARGE:
                self._counts[refusal.value] += count
            else:
                self._refusals[refusal] += 1

        return settled
