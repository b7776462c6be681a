"""The group that reads ``flows.undecoded`` again and again: this instance's member of it, in a thread of its own.

**patient**: a set is decoded by whichever member finds its template known; else it is appended again, until it has
waited for too long and becomes a dead letter. What came of a message is in Kafka before its offset is committed, so a
crash in between repeats equal records, which dedup removes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ingest.undecoded.chunk import Answer, Chunk, Read
from ingest.undecoded.desk import Desk, DeskClosed, WorkFailed
from ingest.undecoded.place import Place
from ingest.undecoded.settle import Settler, SettlingFailed
from shared.errors import SluicewayError
from shared.kafka import UNDECODED, consumer, consumer_properties, full_name
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from ingest.decoders.sets import DataSets
    from ingest.undecoded.outgoing import Tally
    from shared.config import KafkaConfig

GROUP: Final = "sluiceway-ingest-undecoded"
"""The consumer group, after the prefix of the topics."""

CHUNK_BYTES: Final = 1 << 20
CHUNK_MESSAGES: Final = 1000
"""Messages that are decoded together are as many as reach the first of these bounds: it takes a few milliseconds."""

POLL_SECONDS: Final = 0.5
LOOKUP_SECONDS: Final = 15.0
"""How long an assignment may take to find out from where to read."""
QUIET_SECONDS: Final = 5.0
"""A partition that gives nothing for so long, though its end is further on, is left for the next scan."""
RETRY_SECONDS: Final = 5.0
LONGEST_RETRY_SECONDS: Final = 300.0
"""Reading that fails again and again is begun anew after pauses that double up to this."""
LEAVE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ScanBounds:
    """How often the topic is read, how much of it at most each time, and how long a set may wait in all."""

    interval_seconds: float = 60.0
    max_bytes: int = 128 << 20
    max_age_ns: int = 3600 * 1_000_000_000


class BrokenError(Exception):
    """The consumer cannot go on; a new one may."""


class UndecodedGroup:
    """One member of the group. ``serve`` and ``tally`` belong to the worker's thread, the rest to the group's own."""

    def __init__(
        self,
        config: KafkaConfig,
        client_id: str,
        bounds: ScanBounds,
        settler: Settler,
        decode: Callable[[list[DataSets]], Answer],
        candidates: Callable[[bytes], tuple[int, ...]],
    ) -> None:
        self._config = config
        self._topic = full_name(config, UNDECODED)
        self._client_id = client_id
        self._bounds = bounds
        self._settler = settler
        self._decode = decode
        self._candidates = candidates
        self._desk = Desk()
        self._log = get_logger("ingest.undecoded")
        self._throttle = Throttle(60.0)
        self._stop = threading.Event()
        self._stopped_at = 0.0
        self._pause = RETRY_SECONDS
        self._thread = threading.Thread(target=self._run, name="undecoded", daemon=True)
        self._consumer: Consumer | None = None
        self._places: dict[int, Place] = {}
        self._failure: Exception | None = None
        self._scan_at = 0.0
        self.behind = 0
        """Messages in our partitions when they were looked at last."""

    @property
    def tally(self) -> Tally:
        """What was counted, for the worker to enter in its book."""
        return self._settler.tally

    def start(self, partitions: int) -> None:
        """Join the group, once; ``partitions`` is how many the records' topic has now."""
        self._settler.partitions = partitions
        if not self._thread.ident:
            self._thread.start()

    def serve(self) -> None:
        """Decode what the member has read, if it has. Called by the worker in each round of its loop."""
        self._desk.serve()

    def stop(self) -> None:
        """Tell the member to leave the group; what it has not settled is read again by another."""
        self._stopped_at = time.monotonic()
        self._stop.set()
        self._desk.close()

    def join(self) -> None:
        """Wait until it has left, for a few seconds."""
        if self._thread.ident:
            self._thread.join(LEAVE_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._open()
                self._serve()
            except DeskClosed:
                pass
            except (KafkaException, SluicewayError, BrokenError, SettlingFailed) as error:
                self._throttle.log(
                    self._log, "warning", "broken", "flows.undecoded is not read for now", reason=str(error)
                )
            except Exception:  # noqa: BLE001 - live decoding goes on, and what is in the topic stays there
                self._log.exception("reading flows.undecoded failed, and is begun anew")
            finally:
                self._close()
            self._stop.wait(self._pause)
            self._pause = min(LONGEST_RETRY_SECONDS, 2 * self._pause)

    # --- the group

    def _open(self) -> None:
        group = self._config.topic_prefix + GROUP
        properties = consumer_properties(self._config, group, self._client_id)
        self._places.clear()
        self._failure = None
        self._consumer = consumer(properties)
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def _close(self) -> None:
        self._settler.give_up()
        client, self._consumer = self._consumer, None
        self._places.clear()
        if client is not None:
            try:
                client.close()
            except KafkaException as error:
                self._log.warning("the consumer could not leave its group in order", error=str(error))

    @property
    def _client(self) -> Consumer:
        if self._consumer is None:
            raise RuntimeError("open comes first")
        return self._consumer

    def _on_assign(self, client: Consumer, names: list[TopicPartition]) -> None:
        try:
            places = [self._place(client, name) for name in client.committed(names, timeout=LOOKUP_SECONDS)]
        except (KafkaException, BrokenError) as error:
            # The protocol of the group needs its answer in any case; the next poll tells what happened.
            self._failure = error
            places = []
        client.incremental_assign([TopicPartition(self._topic, place.number, place.position) for place in places])
        # Nothing is fetched but in a scan.
        client.pause([TopicPartition(self._topic, place.number) for place in places])
        self._places.update((place.number, place) for place in places)
        if places:
            # Whoever had them before may have left in a hurry.
            self._scan_at = 0.0

    def _place(self, client: Consumer, name: TopicPartition) -> Place:
        if name.error is not None:
            raise BrokenError(f"the group's offset of partition {name.partition} is not known: {name.error}")
        low, high = self._watermarks(client, name.partition)
        if name.offset > high:
            self._log.error(
                "flows.undecoded ends before what was read of it: it was made again, and is read from its start",
                partition=name.partition,
                offset=name.offset,
                end=high,
            )
            return Place(name.partition, low)
        place = Place(name.partition, max(low, name.offset))
        lost = low - max(0, name.offset)
        if lost > 0:
            self._settler.lost(lost)
            self._log.error(
                "messages of flows.undecoded expired before anybody read them again: no ingest ran for too long"
                if name.offset >= 0
                else "messages of flows.undecoded expired, and no offset of the group tells that anybody read them again:"
                " all of them are counted as lost",
                partition=name.partition,
                messages=lost,
            )
            # Else the next assignment would count them again, as long as nothing else comes.
            self._commit_offset(client, place)
        return place

    def _commit_offset(self, client: Consumer, place: Place) -> None:
        try:
            client.commit(offsets=[TopicPartition(self._topic, place.number, place.position)], asynchronous=False)
        except KafkaException as error:
            self._throttle.log(self._log, "warning", "commit", "an offset was not committed", error=str(error))

    def _watermarks(self, client: Consumer, number: int) -> tuple[int, int]:
        found = client.get_watermark_offsets(TopicPartition(self._topic, number), timeout=LOOKUP_SECONDS)
        if found is None:
            raise BrokenError(f"the ends of partition {number} are not known: no answer")
        low, high = found
        return low, high

    def _on_revoke(self, client: Consumer, names: list[TopicPartition]) -> None:
        for name in names:
            self._places.pop(name.partition, None)
        client.incremental_unassign(names)

    def _poll(self, seconds: float) -> Message | None:
        message = self._client.poll(seconds)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if message is None:
            return None
        error = message.error()
        if error is None:
            return message
        # A partition of which the next message has expired, and a topic that is gone, are begun anew.
        lasting = (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART)  # noqa: SLF001 - the client's own names
        if error.fatal() or error.code() in lasting:
            raise BrokenError(error.str())
        self._throttle.log(
            self._log, "warning", error.code(), "Kafka sent an error instead of messages", error=error.str()
        )
        return None

    # --- scans

    def _serve(self) -> None:
        self._scan_at = 0.0
        while not self._stop.is_set():
            self._poll(POLL_SECONDS)
            if self._places and time.monotonic() >= self._scan_at:
                self._scan_at = time.monotonic() + self._bounds.interval_seconds
                self._scan(self._scan_at)

    def _scan(self, deadline: float) -> None:
        """Read what is in our partitions now, the one first that has not been read for longest, within the bounds."""
        left, behind = self._bounds.max_bytes, 0
        for place in sorted(self._places.values(), key=lambda one: one.scanned):
            if self._places.get(place.number) is not place:
                continue
            _, high = self._watermarks(self._client, place.number)
            if left > 0 and time.monotonic() < deadline and self._is_due(place, high):
                left -= self._scan_partition(place, high, left, deadline)
                high += place.appended
            behind += max(0, high - place.position)
        self.behind = behind

    def _is_due(self, place: Place, high: int) -> bool:
        if place.position >= high:
            return False
        known = place.waiting
        if known is None or not place.same(high, time.time_ns()) or self._desk.ask(lambda: self._is_news(known)):
            return True
        place.passed += 1
        return False

    def _is_news(self, known: Mapping[bytes, tuple[int, ...]]) -> bool:
        """Whether a template has come since, or has been defined anew. Done by the worker's thread."""
        return any(self._candidates(key) != numbers for key, numbers in known.items())

    def _scan_partition(self, place: Place, end: int, left: int, deadline: float) -> int:
        """Read a partition up to ``end``, or until a bound is reached; returns how many bytes were read."""
        place.begin(end, time.monotonic())
        name = TopicPartition(self._topic, place.number)
        self._client.resume([name])
        size = 0
        try:
            while place.position < end and size < left and time.monotonic() < deadline:
                read = self._read(place, end)
                if self._places.get(place.number) is not place:
                    break
                if not read:
                    break
                size += sum(len(one.value or b"") for one in read)
                self._settle(place, read)
        finally:
            if self._places.get(place.number) is place:
                place.complete = place.position >= end
                self._client.pause([name])
        return size

    def _read(self, place: Place, end: int) -> list[Read]:
        """The next messages of a partition: some, or none when nothing comes."""
        read: list[Read] = []
        size, position = 0, place.position
        quiet_at = time.monotonic() + QUIET_SECONDS
        while position < end and size < CHUNK_BYTES and len(read) < CHUNK_MESSAGES and time.monotonic() < quiet_at:
            if self._stop.is_set():
                raise DeskClosed
            message = self._poll(POLL_SECONDS)
            if message is None:
                if read:
                    break
                continue
            offset = message.offset()
            if message.partition() != place.number or offset is None or offset < position:
                continue
            position = offset + 1
            one = _as_read(message, place.number, offset)
            read.append(one)
            size += len(one.value or b"")
        return read

    def _settle(self, place: Place, read: list[Read]) -> None:
        chunk = Chunk(read)
        try:
            answer = self._desk.ask(lambda: self._decode([part.sets for part in chunk.parts]))
        except WorkFailed as failure:
            self._isolate(place, read, failure)
            return
        rest = chunk.rest(answer.waiting, time.time_ns(), self._bounds.max_age_ns)
        appended = self._settler.settle(place.number, answer.batches, rest, chunk.sets, self._alive)
        place.note(answer, rest.oldest_ns, self._bounds.max_age_ns, appended)
        self._commit(place, read[-1].offset + 1)

    def _isolate(self, place: Place, read: list[Read], failure: WorkFailed) -> None:
        """Find the message that cannot be decoded, and give up that alone: it would come again and again."""
        if len(read) > 1:
            for one in read:
                self._settle(place, [one])
            return
        self._log.error("a message of flows.undecoded failed to decode", offset=read[0].offset, exc_info=failure)
        given_up = Chunk(read).undecodable()
        self._settler.give_up_message(given_up, self._alive)
        self._commit(place, read[-1].offset + 1)

    def _commit(self, place: Place, offset: int) -> None:
        place.position = offset
        self._pause = RETRY_SECONDS
        if self._places.get(place.number) is not place:
            return
        # Where that fails, what was settled may be settled again by another member: dedup knows equal records.
        self._commit_offset(self._client, place)

    def _alive(self) -> None:
        """Called while acknowledgements are waited for."""
        if self._stop.is_set() and time.monotonic() - self._stopped_at > LEAVE_SECONDS / 2:
            raise DeskClosed


def _as_read(message: Message, partition: int, offset: int) -> Read:
    headers = message.headers()
    pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
    return Read(partition, offset, message.timestamp()[1], message.key(), message.value(), pairs)
