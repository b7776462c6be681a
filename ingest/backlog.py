"""What becomes of a topic's messages while Kafka does not take them: the policy between the client and the spool.

While Kafka acknowledges, nothing is written to disk. When an acknowledgement is overdue, when too much waits for one, or
when Kafka refuses the topic, what the client has is copied to the spool, and what comes from then on goes there too. The
client, which never gives up, sends what it has when the broker is back; then the spool is read behind that. So there is
one order for all messages, and none overtakes another of its partition: what is new waits for what is spooled. It does
not wait without bound: in each turn of the loop twice as much is read as was written, and :data:`DRAIN_BYTES` more, if
Kafka takes that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from ingest.refusal import Refusal
from ingest.spool import Entry, Place, Reason, SpoolFault, SpoolLog
from ingest.window import BY_KEY, Sent, Window
from shared import codec, log
from shared.metrics import Book

LATE_SECONDS: Final = 3.0
"""An acknowledgement that takes longer is overdue: the broker is away, or too slow."""

WINDOW_BYTES: Final = 64 << 20
"""Bytes in the client's hands, beyond which Kafka is too slow; the spool is read only below that."""

PROMPT_SECONDS: Final = 1.0
"""Kafka is back when nothing waits for longer than this."""

DRAIN_BYTES: Final = 16 << 20
"""What is read from the spool in a turn of the loop at least: some ten milliseconds of work."""

RETRY_SECONDS: Final = 1.0
"""How often the disk is tried again with what it could not take, and the client still has."""

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
"""After a refusal a single message is tried, after pauses that double up to this."""

Hand = Callable[[Sent, "bytes | pa.Buffer"], "Refusal | None"]
"""Hands a message to the client, and puts it into the window; says why not when the client does not take it."""


class Backlog:
    """The messages of one topic that Kafka has not acknowledged: those in the window, and those in the spool.

    ``hand`` gives a message to the client. ``refused`` is told of records that are dropped, and ``failed`` of what the
    spool cannot do. Never blocks for longer than a write to the page cache does.
    """

    def __init__(
        self,
        topic: str,
        spool: SpoolLog,
        window: Window,
        hand: Hand,
        book: Book,
        refused: Callable[[Refusal, int], None],
        failed: Callable[[SpoolFault], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._spool = spool
        self._window = window
        self._hand = hand
        self._book = book
        self._refused = refused
        self._failed = failed
        self._clock = clock
        self._log = log.get_logger("ingest.backlog").bind(topic=topic)
        self._throttle = log.Throttle(clock=clock)
        self.spooling = False
        """Whether what comes goes to the spool."""
        self._since = 0.0
        self._heard = False
        """Whether Kafka has acknowledged anything since then."""
        self.draining = False
        """Whether the client has just taken messages from the spool, and there are more."""
        self._enough_bytes = 0
        self._next_copy = 0.0
        self._fault: SpoolFault | None = None
        self._written_bytes = 0
        self._acknowledged: list[Place] = []
        self._unsent: list[tuple[Sent, Refusal]] = []
        """What was refused since the last turn, and may be tried again."""
        self._refusal: Refusal | None = None
        """Why Kafka refuses the topic, while what it has of it comes back."""
        self._probing = False
        self._pause = FIRST_PAUSE_SECONDS
        self._resume = 0.0
        self._missing: set[int] = set()
        """Partitions that messages in the spool are meant for, and that the topic does not have."""

    @property
    def unread(self) -> bool:
        """Whether there is something in the spool that the client does not have."""
        return not self._spool.caught_up

    @property
    def records(self) -> int:
        """Records in the spool."""
        return self._spool.records

    def send(self, sent: Sent, value: bytes | pa.Buffer) -> None:
        """Have a message delivered, which ends in Kafka's hands, on disk, or refused."""
        if self.unread or (self.spooling and not self._window.records_in_memory):
            if self._write(sent, value):
                return
            if self.unread:
                # It may not overtake what lies there.
                self._drop(sent)
                return
        # Where the disk could not take what the client has, nothing goes to it past that.
        refusal = self._hand(sent, value)
        if refusal is None:
            return
        if self._is_final(refusal):
            self._refused(refusal, sent.records)
            return
        self._begin(refusal)
        if not self._write(sent, value):
            self._refused(refusal, sent.records)
        if refusal is not Refusal.QUEUE_FULL:
            self._refusal = refusal

    def acknowledged(self, sent: Sent) -> None:
        """Kafka has a message."""
        self._heard = True
        self._probing = False
        self._pause = FIRST_PAUSE_SECONDS
        if sent.place is not None:
            self._acknowledged.append(sent.place)

    def refuse(self, sent: Sent, refusal: Refusal, *, final: bool) -> None:
        """Kafka has refused a message: for good, or until something is mended."""
        if not final:
            self._unsent.append((sent, refusal))
            return
        self._probing = False
        self._refused(refusal, sent.records)
        if sent.place is not None:
            self._acknowledged.append(sent.place)

    def miss(self, partition: int) -> None:
        """The topic does not have a partition: messages in the spool that were meant for it go to any."""
        if partition >= 0 and partition not in self._missing:
            self._missing.add(partition)
            self._throttle.log(
                self._log,
                "warning",
                "missing",
                "the topic has fewer partitions than before: messages in the spool go to any of these,"
                " so duplicates among their records are not recognised",
                partition=partition,
            )

    def turn(self) -> None:
        """Do what has to be done in a turn of the loop, after the client was polled."""
        now = self._clock()
        self._settle()
        if self._unsent:
            self._take_back()
        if self.spooling:
            self._try_again(now)
        else:
            oldest = self._window.oldest
            if self.unread:
                self._enter("found in the spool")
            elif oldest is not None and now - oldest.begun > LATE_SECONDS:
                self._begin("no acknowledgement")
            elif self._window.bytes > WINDOW_BYTES:
                self._begin("too slow")
        self.draining = False
        if self.spooling:
            self._drain(now)
            self._end(now)
        self._throttle.flush()
        self._count()

    def shelter(self) -> None:
        """Copy to the spool what only the client has: the process is about to end."""
        self._settle()
        if self._unsent:
            self._take_back()
        if self._window.records_in_memory:
            self._begin("stopping")
        for sent in [sent for sent in self._window if sent.place is None] if self.unread else []:
            # Behind what the client never got: it is not taken for read, and let go here, so that it is there once.
            if self._keep(sent):
                self._window.remove(sent)
        self._count()

    # From the client to the spool

    def _enter(self, why: str) -> None:
        self.spooling, self._heard = True, False
        self._since = self._clock()
        # A client that was given a small queue is full long before it has that much.
        self._enough_bytes = (self._window.bytes if why == Refusal.QUEUE_FULL else WINDOW_BYTES) // 2
        self._throttle.log(
            self._log,
            "warning",
            "begin",
            "messages go to the spool until Kafka takes them",
            reason=why,
            waiting_messages=len(self._window),
            spooled_messages=self._spool.messages,
        )

    def _begin(self, why: str) -> None:
        """Copy what the client has to the spool, in its order, unless something lies there that the client has not."""
        if not self.spooling:
            self._enter(why)
        self._copy()

    def _try_again(self, now: float) -> None:
        """Copy what the disk could not take before."""
        if self._window.records_in_memory and now >= self._next_copy:
            self._next_copy = now + RETRY_SECONDS
            self._copy()

    def _copy(self) -> None:
        if self.unread:
            return
        waiting = [*self._window, *(sent for sent, _ in self._unsent)]
        for sent in sorted(waiting, key=lambda one: one.number):
            if sent.place is not None or sent.batch is None:
                continue
            try:
                place = self._spool.append_read(_entry(sent, codec.encode(sent.batch)))
            except SpoolFault as fault:
                self._tell(fault)
                return
            self._window.put(sent, place)
            self._note(sent)

    def _write(self, sent: Sent, value: bytes | pa.Buffer) -> bool:
        try:
            self._spool.append(_entry(sent, value))
        except SpoolFault as fault:
            self._tell(fault)
            return False
        self._note(sent)
        return True

    def _keep(self, sent: Sent) -> bool:
        """Write a message that only we have behind all others."""
        return sent.batch is not None and self._write(sent, codec.encode(sent.batch))

    def _note(self, sent: Sent) -> None:
        self._written_bytes += sent.size
        self._book.add("ingest_spool_written_records_total", sent.records, topic=self._topic)

    def _tell(self, fault: SpoolFault) -> None:
        self._fault = fault
        self._failed(fault)

    def _drop(self, sent: Sent) -> None:
        full = self._fault is not None and self._fault.reason in {Reason.FULL, Reason.DISK_FULL}
        self._refused(Refusal.SPOOL_FULL if full else Refusal.SPOOL_FAILED, sent.records)

    # From the spool to the client

    def _drain(self, now: float) -> None:
        budget, self._written_bytes = DRAIN_BYTES + 2 * self._written_bytes, 0
        if self._refusal is not None and not self._came_back(now):
            return
        if now < self._resume:
            return
        while budget > 0 and self._window.bytes < WINDOW_BYTES:
            if self._probing and len(self._window):
                return
            found = self._spool.peek()
            if found is None:
                break
            entry, place = found
            sent = _sent(entry, place, now)
            if entry.partition in self._missing:
                sent.partition = BY_KEY
            refusal = self._hand(sent, entry.value)
            if refusal is Refusal.UNKNOWN_TOPIC and sent.partition in self._missing:
                sent.partition = BY_KEY
                refusal = self._hand(sent, entry.value)
            if refusal is Refusal.QUEUE_FULL and not self._is_final(refusal):
                break
            self._spool.advance()
            if refusal is not None and self._is_final(refusal):
                self.refuse(sent, refusal, final=True)
            elif refusal is not None:
                self._refusal = refusal
                break
            budget -= sent.size
            self.draining = self.unread
        self._settle()

    def _is_final(self, refusal: Refusal) -> bool:
        """Whether the client would refuse a message again: it is too large for Kafka, or for a queue that is empty."""
        return refusal is Refusal.TOO_LARGE or (refusal is Refusal.QUEUE_FULL and not len(self._window))

    def _came_back(self, now: float) -> bool:
        """After a refusal: whether all that the client had was answered, so that the spool can be read again."""
        if len(self._window):
            return False
        self._spool.rewind()
        self._throttle.log(
            self._log,
            "error",
            "refused",
            "Kafka refuses the topic; its messages wait in the spool, and are tried again",
            reason=self._refusal,
            spooled_messages=self._spool.messages,
        )
        self._refusal = None
        self._probing = True
        self._resume = now + self._pause
        self._pause = min(LONGEST_PAUSE_SECONDS, 2 * self._pause)
        return True

    def _take_back(self) -> None:
        """What Kafka has refused is read again from the spool, in its order, when all that the client has is answered."""
        self._refusal = self._unsent[0][1]
        self._begin(self._refusal)
        for sent, refusal in self._unsent:
            if sent.place is None and not self._keep(sent):
                self._refused(refusal, sent.records)
        self._unsent.clear()

    def _settle(self) -> None:
        if self._acknowledged:
            places, self._acknowledged = self._acknowledged, []
            self._spool.acknowledge(places)
            self._book.add(
                "ingest_spool_drained_records_total", sum(place.records for place in places), topic=self._topic
            )
        lost = self._spool.take_lost()
        if lost.places:
            self._failed(
                SpoolFault(
                    Reason.DAMAGED,
                    f"{self._spool.directory}: {lost.places} places could not be read and were passed over:"
                    " look after the disk",
                )
            )
        if lost.records:
            self._refused(Refusal.SPOOL_DAMAGED, lost.records)

    def _end(self, now: float) -> None:
        oldest = self._window.oldest
        prompt = oldest is None or now - oldest.begun < PROMPT_SECONDS
        heard = self._heard or not self._spool.messages
        if self.unread or self._refusal is not None or (self._probing and oldest is not None):
            return
        if heard and prompt and self._window.bytes <= self._enough_bytes:
            self.spooling = self._probing = False
            self._missing.clear()
            self._throttle.log(
                self._log,
                "info",
                "end",
                "Kafka takes messages again, and has all that was in the spool or is about to",
                seconds=round(now - self._since, 1),
            )

    def _count(self) -> None:
        self._book.set("ingest_spool_messages", self._spool.messages, topic=self._topic)
        self._book.set("ingest_spool_records", self._spool.records, topic=self._topic)
        self._book.set("ingest_spool_active", int(self.spooling), topic=self._topic)


def _entry(sent: Sent, value: bytes | pa.Buffer) -> Entry:
    return Entry(sent.partition, sent.key, sent.records, sent.headers, value)


def _sent(entry: Entry, place: Place, now: float) -> Sent:
    return Sent(entry.partition, entry.key, entry.headers, entry.records, len(entry.value), now, place=place)
