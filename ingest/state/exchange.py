"""Keeps what this instance knows and the topic ``flows.exporters`` together, in a thread of its own."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message, Producer

from ingest.state.entries import Entry, Layouts, Skip, UnfitEntry, read
from ingest.state.follower import CLIENT, Follower
from ingest.state.knowledge import Changes, Due, Knowledge
from shared.config import KafkaConfig
from shared.kafka import EXPORTERS, TopicFacts, full_name, producer, producer_properties
from shared.log import Logger, Throttle
from shared.metrics import Book
from shared.refusal import refusal
from shared.web import Check

POLL_SECONDS: Final = 0.2
MESSAGES: Final = 500
"""Messages that are read at a time: while they are taken in, workers that tell something wait."""

IN_FLIGHT: Final = 256
QUEUE_BYTES: Final = 64 << 20
"""What is handed to Kafka and not acknowledged yet. The rest waits here, where it is no more than the latest."""

RETRY_SECONDS: Final = 1.0
SECOND: Final = 1.0
STOP_SECONDS: Final = 3.0
"""How long a stopping instance tries to publish what it heard last."""

KEY_SHOWN: Final = 120
SCHEMA: Final = b"1"
CONTENT_TYPE: Final = b"application/json"


class StateTopic:
    """Follows the topic and publishes to it. Until ``start`` it does nothing, and it needs no broker to start.

    ``tell`` is called by the thread with what workers have to be told. ``name`` stands in the messages as producer.
    """

    def __init__(
        self,
        config: KafkaConfig,
        knowledge: Knowledge,
        book: Book,
        logger: Logger,
        tell: Callable[[Changes], None],
        *,
        wait_seconds: float,
        name: str,
    ) -> None:
        self._config = config
        self._knowledge = knowledge
        self._book = book
        self._log = logger
        self._tell = tell
        self._wait_seconds = wait_seconds
        self._name = name
        self._topic = full_name(config, EXPORTERS)
        self._throttle = Throttle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._follower = Follower(config)
        self._producer: Producer | None = None
        self._fatal: str | None = None
        self._found: TopicFacts | None = None
        self._opened: TopicFacts | None = None
        self._topic_id: str | None = None
        self._read = False
        self._late = False
        self._trouble = "no broker has told anything of it yet"
        self._begun: float | None = None
        self._next_second = 0.0
        self._messages = 0
        self._limited: Mapping[str, int] = {}
        self._layouts = Layouts()

    def start(self) -> None:
        """Start the thread."""
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Publish what waits, as far as that goes fast, and end. Blocks for some seconds at most."""
        self._stop.set()
        if self._begun is not None:
            self._thread.join(3 * STOP_SECONDS)

    def found(self, facts: TopicFacts) -> None:
        """Tell what the topic is; called by whoever sees to the topics, as often as it likes."""
        self._found = facts

    def check(self, learning: int = 0) -> Check:
        """Whether all is known that others know, when so many workers do not know all of it yet.

        After the stated time, that it is not is no reason to wait longer.
        """
        if self._read and not learning:
            return Check("state", ok=True, detail=f"{self._topic} is read")
        if self._over:
            return Check("state", ok=True, detail=self._lateness)
        if self._read:
            return Check(
                "state", ok=False, detail=f"{self._topic} is read; workers that do not know it yet: {learning}"
            )
        return Check("state", ok=False, detail=f"{self._topic} is not read to its end: {self._trouble}")

    @property
    def _over(self) -> bool:
        return self._begun is not None and time.monotonic() - self._begun >= self._wait_seconds

    @property
    def _lateness(self) -> str:
        return (
            f"{self._topic} is not read to its end after {self._wait_seconds:g} s (ingest.templates.wait_seconds):"
            f" {self._trouble}; data whose template is not known here waits until that comes"
        )

    # The thread

    def _run(self) -> None:
        while not self._stop.is_set():
            self._try(self._turn)
            if time.monotonic() >= self._next_second:
                self._next_second = time.monotonic() + SECOND
                self._try(self._each_second)
        self._finish()

    def _try(self, step: Callable[[], None]) -> None:
        """Take a step; when it fails, the next begins at the beginning of the topic."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever one message is like, the others are followed
            reason = error.args[0] if isinstance(error, KafkaException) else error
            self._complain(reason.str() if isinstance(reason, KafkaError) else repr(reason))
            self._opened = None
            self._stop.wait(RETRY_SECONDS)

    def _turn(self) -> None:
        found = self._found
        if found is None:
            self._stop.wait(POLL_SECONDS)
            return
        opened = self._opened
        if opened is None or (opened.topic_id, opened.partitions) != (found.topic_id, found.partitions):
            self._open(found)
        self._take(self._follower.poll(POLL_SECONDS, MESSAGES))
        if self._follower.trouble is not None:
            self._complain(self._follower.trouble)
        if not self._read:
            self._look_for_the_end()
        self._publish()

    def _open(self, found: TopicFacts) -> None:
        if self._topic_id not in {None, found.topic_id}:
            self._log.warning("the topic of templates was made anew: what is known is published again")
            self._knowledge.begin_anew()
        self._topic_id = found.topic_id
        self._follower.open(found.name, found.partitions)
        self._opened = found

    def _take(self, messages: Sequence[Message]) -> None:
        """Take in what other instances published; what this one did comes back as well, and changes nothing."""
        if not self._read and len(messages) == MESSAGES:
            # Hundreds of thousands of objects come, and none goes: to look for some that do would take half the time.
            gc.disable()
        else:
            gc.enable()
        if not messages:
            return
        self._messages += len(messages)
        self._book.add("ingest_state_followed_total", len(messages))
        entries: list[tuple[Entry, int]] = []
        octets = 0
        for message in messages:
            key, value, (kind, appended_ms) = message.key(), message.value(), message.timestamp()
            if kind == TIMESTAMP_NOT_AVAILABLE:
                appended_ms = time.time_ns() // 1_000_000
            octets += len(key or b"") + len(value or b"")
            try:
                entries.append((read(_octets(key), value, appended_ms, self._layouts), appended_ms))
            except UnfitEntry as unfit:
                self._skip(unfit.skip, 1, what=str(unfit), key=repr(key)[:KEY_SHOWN], **_place(message))
        self._book.add("ingest_state_followed_bytes_total", octets)
        changes = self._knowledge.follow(entries)
        for skip, count in changes.skipped.items():
            self._skip(skip, count)
        self._tell(changes)

    def _skip(self, skip: Skip, count: int, **fields: object) -> None:
        self._book.add("ingest_state_skipped_total", count, reason=skip.value)
        self._throttle.log(
            self._log,
            "warning",
            ("skipped", skip),
            "an entry of the topic of templates is left out",
            topic=self._topic,
            reason=skip.value,
            **fields,
        )

    def _look_for_the_end(self) -> None:
        at, end = self._follower.progress
        if self._follower.trouble is None:
            self._trouble = f"it is read up to {at} of {end}"
        if self._follower.caught_up:
            self._read = True
            # What was read stays: it need not be looked at again and again.
            gc.enable()
            gc.freeze()
            self._knowledge.read_to_end()
            self._tell(Changes(read=True))
            sizes = self._knowledge.sizes()
            self._log.info(
                "what other instances know of exporters is read",
                messages=self._messages,
                templates=sizes.templates,
                facts=sizes.facts,
                seconds=round(time.monotonic() - (self._begun or 0.0), 3),
            )

    # Publishing

    def _publish(self) -> None:
        client = self._producing()
        client.poll(0)
        for due in self._knowledge.due(IN_FLIGHT - len(client)) if len(client) < IN_FLIGHT else ():
            self._send(client, due)

    def _send(self, client: Producer, due: Due) -> None:
        key, value = due.message
        headers: list[tuple[str, str | bytes | None]] = [
            ("schema", SCHEMA),
            ("content-type", CONTENT_TYPE),
            ("records", b"%d" % due.records),
            ("producer", self._name.encode()),
        ]

        def done(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._refused(due, error)
                return
            self._knowledge.acknowledged(due)
            self._book.add("ingest_state_published_total", 1, kind=due.kind)
            self._book.add("kafka_produced_messages_total", 1, topic=self._topic)
            self._book.add("kafka_produced_bytes_total", len(value), topic=self._topic)

        try:
            client.produce(self._topic, value, key, headers=headers, on_delivery=done)
        except BufferError:
            self._knowledge.refused(due)
        except KafkaException as exception:
            self._refused(due, exception.args[0])

    def _refused(self, due: Due, error: KafkaError) -> None:
        self._knowledge.refused(due)
        self._book.add("kafka_produce_errors_total", 1, topic=self._topic, reason=refusal(error.code()).value)
        self._throttle.log(
            self._log, "error", "refused", "a template could not be published, which is tried again", reason=error.str()
        )

    def _producing(self) -> Producer:
        if self._producer is not None and self._fatal is not None:
            self._log.error("the Kafka client can publish no more, starting anew", error=self._fatal)
            self._producer, self._fatal = None, None
        if self._producer is None:
            properties = producer_properties(
                self._config, CLIENT, queue_messages=2 * IN_FLIGHT, queue_bytes=QUEUE_BYTES
            )
            self._producer = producer(properties | {"error_cb": self._hear})
        return self._producer

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()

    # The clock

    def _each_second(self) -> None:
        changes = self._knowledge.tend()
        if changes.forgotten or changes.templates:
            self._tell(changes)
        if not self._read and not self._late and self._over:
            self._late = True
            self._log.warning("ready without what other instances know of exporters", reason=self._lateness)
        self._throttle.flush()
        self._show()

    def _show(self) -> None:
        sizes = self._knowledge.sizes()
        for kind, count in (("template", sizes.templates), ("table", sizes.pages)):
            self._book.set("ingest_state_entries", count, kind=kind)
        self._book.set("ingest_state_waiting_entries", sizes.waiting)
        self._book.set("ingest_state_contested_templates", sizes.contested)
        for reason, count in sizes.limited.items():
            self._book.add("ingest_state_limited_total", count - self._limited.get(reason, 0), reason=reason)
        self._limited = sizes.limited
        if self._opened is not None and not self._stop.is_set():
            self._book.set("ingest_state_lag_messages", self._follower.lag())

    def _complain(self, reason: str) -> None:
        self._trouble = reason
        self._throttle.log(
            self._log, "warning", "trouble", "the topic of templates cannot be read", topic=self._topic, reason=reason
        )

    def _finish(self) -> None:
        gc.enable()
        gc.unfreeze()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while self._producer is not None and time.monotonic() < deadline:
                self._publish()
                if len(self._producer) == 0:
                    break
                self._producer.flush(0.05)
        except KafkaException as error:
            self._complain(str(error))
        if self._producer is not None and len(self._producer):
            self._log.warning("stopping with templates that are not published", messages=len(self._producer))
            self._producer.purge()
        self._show()
        self._throttle.flush(everything=True)
        self._follower.close()


def _octets(key: bytes | str | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key


def _place(message: Message) -> dict[str, object]:
    return {"partition": message.partition(), "offset": message.offset()}
