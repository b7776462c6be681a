"""What the supervisor and a worker say to each other, and the pipe that carries it without stopping either."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Final

from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.headers import Heard
from ingest.decoders.layout import Template
from ingest.decoders.mapping import FieldMapping
from ingest.decoders.templates import Word
from ingest.known_exporters import KnownExporters
from ingest.samples import SampleBlocks
from ingest.statistics import Reading
from shared.metrics import Snapshot

MOST_QUEUED: Final = 4096
"""Messages that wait to be sent. Beyond that, what the next one makes up for is left out: what was heard of
exporters and their samples, which only loss counts miss, and reports, theirs and the worker's own, which are repeated."""

MOST_RECEIVED: Final = 4096
MOST_RECEIVED_BYTES: Final = 64 << 20
"""What was received and waits to be taken, in messages and in bytes on the pipe. Beyond that nothing is received, so that
what comes waits at the other end, where there is a bound."""

TEMPLATES_AT_ONCE: Final = 2000
FACTS_AT_ONCE: Final = 4000
"""What is told in one message: some ten milliseconds' worth of learning."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker receives."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the worker has counted since it began; ``last`` when it ends."""

    snapshot: Snapshot
    last: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What the worker heard from exporters in one batch."""

    heard: tuple[Heard, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """How the samples are numbered that the worker has taken since it last told."""

    samples: SampleBlocks


@dataclass(frozen=True, slots=True)
class Reported:
    """What exporters report of themselves, as the worker read it."""

    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What datagrams said of templates, as the worker heard it: what changed, and what repeats a contested one."""

    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Used:
    """Keys of templates, one behind the other, that came to the worker again or that data came for."""

    keys: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """These templates are contested no more: that they come again need not be told."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """These templates are to be forgotten: nobody tells or uses them."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Templates:
    """Templates by key, in their order, that another worker or another instance has heard."""

    templates: tuple[tuple[bytes, Template], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What options data told: learned by a worker, or passed on to the others.

    A hundred thousand of them may go to a worker at a time, so they cross the pipe by the column.
    """

    facts: tuple[Fact, ...]

    def __reduce__(self) -> tuple[Callable[[list[Alike]], Facts], tuple[list[Alike]]]:
        return _facts, (
            [
                (of, [fact.about for fact in alike], [fact.value for fact in alike])
                for of, alike in ((of, list(alike)) for of, alike in groupby(self.facts, _whose))
            ],
        )


Whose = tuple[Kind, bytes, int, int]
Alike = tuple[Whose, list[int | str], list[int | str]]
"""Facts of one kind, one exporter, version and domain: about what, and what."""


def _whose(fact: Fact) -> Whose:
    return fact.kind, fact.source, fact.version, fact.domain


def _facts(told: list[Alike]) -> Facts:
    return Facts(tuple(Fact(*of, *one) for of, about, values in told for one in zip(about, values, strict=True)))


@dataclass(frozen=True, slots=True)
class Told:
    """All that other instances knew at the start was told before this; sent back by a worker that has learned it."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Which further elements fill which columns, from now on."""

    mapping: FieldMapping


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of exporters and their interfaces, from now on."""

    exporters: KnownExporters


@dataclass(frozen=True, slots=True)
class Partitions:
    """How many partitions the records' topic has: from then on records can be sent."""

    count: int


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Which events are logged from now on."""

    level: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Read the sockets dry, send everything, report, and end."""


Message = (
    Ready
    | Report
    | Observed
    | Sampled
    | Reported
    | Words
    | Used
    | Settled
    | Forget
    | Templates
    | Facts
    | Told
    | Mapped
    | Known
    | Partitions
    | LogLevel
    | Stop
)


def told_in_parts(templates: Sequence[tuple[bytes, Template]], facts: Sequence[Fact]) -> Iterator[Templates | Facts]:
    """Messages that tell all of this to a worker, none of which keeps it from its sockets for long."""
    for at in range(0, len(templates), TEMPLATES_AT_ONCE):
        yield Templates(tuple(templates[at : at + TEMPLATES_AT_ONCE]))
    for at in range(0, len(facts), FACTS_AT_ONCE):
        yield Facts(tuple(facts[at : at + FACTS_AT_ONCE]))


class Channel:
    """One end of the pipe: sends from a thread of its own, receives in another.

    ``send`` never blocks. What was received waits in :meth:`take`; ``descriptor`` is readable while something does.
    When the other end is gone, ``gone`` is set and ``descriptor`` readable.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outgoing: deque[Message] = deque()
        self._pending = threading.Condition()
        self._incoming: deque[tuple[Message, int]] = deque()
        self._incoming_bytes = 0
        self._room = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        self._threads: list[threading.Thread] = []
        self.gone = threading.Event()
        self.dropped = 0
        """Observations and reports that were not sent, since too much waited."""
        self._told_dropped = 0

    @property
    def descriptor(self) -> int:
        """Readable while :meth:`take` has something to give."""
        return self._wake

    @property
    def queued(self) -> int:
        """Messages that wait to be sent."""
        return len(self._outgoing)

    def take_left_out(self) -> int:
        """How many messages were not sent since the last call, as too much waited."""
        told, self._told_dropped = self._told_dropped, self.dropped
        return self._told_dropped - told

    def start(self) -> None:
        """Start both threads."""
        for work in (self._send_all, self._receive_all):
            thread = threading.Thread(target=work, name=f"control-{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def send(self, message: Message) -> None:
        """Queue a message for the other end."""
        with self._pending:
            if len(self._outgoing) >= MOST_QUEUED and _may_go(message):
                self.dropped += 1
                return
            self._outgoing.append(message)
            self._pending.notify()

    def take(self, most: int | None = None) -> list[Message]:
        """Everything received since the last call, or the first so many of it; the rest is for the next."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if self.gone.is_set():
            # The end of the other end stays to be seen, whoever looked at it just before it came.
            os.eventfd_write(self._wake, 1)
        taken: list[Message] = []
        with self._room:
            while self._incoming and len(taken) != most:
                message, size = self._incoming.popleft()
                self._incoming_bytes -= size
                taken.append(message)
            self._room.notify()
        if self._incoming:
            os.eventfd_write(self._wake, 1)
        return taken

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Send what is queued, as long as that takes no longer than told, then close this end."""
        with self._pending:
            if self._closing:
                return
            self._closing = True
            self._pending.notify()
        with self._room:
            # Nothing is taken any more: what the other end still sends must not keep it from its end.
            self._room.notify()
        for thread in self._threads[:1]:
            thread.join(timeout_seconds)
        # A thread that still waits for the other end would keep the pipe open.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._connection.close()
        os.close(self._wake)

    def _send_all(self) -> None:
        while True:
            with self._pending:
                while not self._outgoing and not self._closing:
                    self._pending.wait()
                if not self._outgoing:
                    return
                message = self._outgoing.popleft()
            try:
                self._connection.send(message)
            except (OSError, ValueError):
                self._lose()
                return

    def _receive_all(self) -> None:
        while True:
            try:
                octets = self._connection.recv_bytes()
            except (EOFError, OSError):
                self._lose()
                return
            message: Message = ForkingPickler.loads(octets)
            with self._room:
                self._room.wait_for(self._has_room)
                self._incoming.append((message, len(octets)))
                self._incoming_bytes += len(octets)
            os.eventfd_write(self._wake, 1)

    def _has_room(self) -> bool:
        """Whether anything more may be received; one that is larger than the bound has room alone."""
        few = len(self._incoming) < MOST_RECEIVED and self._incoming_bytes < MOST_RECEIVED_BYTES
        return few or self._closing

    def _lose(self) -> None:
        self.gone.set()
        os.eventfd_write(self._wake, 1)


def _may_go(message: Message) -> bool:
    return isinstance(message, Observed | Sampled | Reported) or (isinstance(message, Report) and not message.last)
