"""Instances of ingest without processes, sockets, Kafka and clocks: workers, what they know together, and a topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ingest.decoders import Datagrams, Decoded
from ingest.decoders.templates import Word
from ingest.exporters import Exporters
from ingest.pipeline import Pipeline
from ingest.state.entries import Skip, UnfitEntry, read
from ingest.state.knowledge import Changes, Knowledge
from ingest.templates import TemplateBounds
from tests.builders import UNIX_SECONDS
from tests.ingest.collector import Row, rows

STEADY_SECONDS: Final = 60


@dataclass(slots=True)
class Clock:
    """The one clock of all instances, in seconds since the beginning; datagrams tell the time by it."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.seconds

    def ms(self) -> int:
        """The time of day."""
        return round((UNIX_SECONDS + self.seconds) * 1000)

    @property
    def unix_seconds(self) -> int:
        """What an exporter with a true clock writes into a datagram."""
        return int(UNIX_SECONDS + self.seconds)


@dataclass(slots=True)
class Topic:
    """The topic: messages with the time at which they came. ``compact`` leaves the last of each key."""

    messages: list[tuple[bytes, bytes, int]] = field(default_factory=list)

    def compacted(self) -> Topic:
        """The same after compaction."""
        last = {key: place for place, (key, _, _) in enumerate(self.messages)}
        return Topic([message for place, message in enumerate(self.messages) if last[message[0]] == place])


class Pod:
    """An instance: two workers, and a supervisor that knows what they tell and what the topic says."""

    def __init__(self, topic: Topic, clock: Clock, *, bounds: TemplateBounds | None = None, seed: int = 1) -> None:
        self.topic = topic
        self.clock = clock
        self.workers = [Pipeline(bounds) for _ in range(2)]
        self.exporters = Exporters()
        self.knowledge = Knowledge(
            self.exporters.row, STEADY_SECONDS, clock=clock, clock_ms=clock.ms, seed=seed, bounds=bounds
        )
        self.skipped: list[Skip] = []
        self.undecoded = 0
        """Sets that could not be decoded when they came."""
        self._read = 0
        self._turn = 0

    def start(self) -> Pod:
        """Read the topic, as far as it goes."""
        self.follow()
        self.knowledge.read_to_end()
        return self

    def receive(self, source: bytes, *payloads: bytes, worker: int | None = None) -> list[Row]:
        """Datagrams of an exporter come to one of the workers, or to each in turn; the records that come of them."""
        self._turn += 1
        place = self._turn % len(self.workers) if worker is None else worker
        count = len(payloads)
        received_ns = self.clock.ms() * 1_000_000
        decoded = self.workers[place].decode(
            Datagrams.pack(payloads, [source] * count, [50_000] * count, [received_ns] * count)
        )
        return self._hear(place, decoded)

    def exchange(self) -> None:
        """What is new in the topic is read, and what is due is published; as the thread does all the time."""
        self.follow()
        for due in self.knowledge.due(10_000):
            self.topic.messages.append((*due.message, self.clock.ms()))
            self.knowledge.acknowledged(due)
        self.follow()
        for worker in self.workers:
            self.knowledge.use(worker.templates.take_used())
        self._pass_on(self.knowledge.tend())

    def follow(self) -> None:
        """What is new in the topic is read."""
        while new := list(islice(self.topic.messages, self._read, self._read + 500)):
            self._read += len(new)
            entries = []
            for key, value, appended_ms in new:
                try:
                    entries.append((read(key, value, appended_ms), appended_ms))
                except UnfitEntry as unfit:
                    self.skipped.append(unfit.skip)
            changes = self.knowledge.follow(entries)
            self.skipped += changes.skipped.elements()
            self._pass_on(changes)

    def _hear(self, place: int, decoded: Decoded) -> list[Row]:
        for heard in decoded.heard:
            self.undecoded += int(heard.undecoded.sum())
            self.knowledge.observe(self.exporters.hear(heard), heard)
        if decoded.facts:
            self.knowledge.hear_facts(decoded.facts)
        settled = self.knowledge.hear(decoded.words)
        for worker in self.workers:
            worker.templates.settle(settled)
        found = rows(decoded)
        self._tell_others(place, decoded.words)
        for other in self._others(place):
            other.options.learn(decoded.facts)
        return found

    def _tell_others(self, place: int, words: Sequence[Word]) -> None:
        changed = [(word.key, word.template) for word in words if word.changed]
        for other in self._others(place):
            other.learn(changed)

    def _others(self, place: int) -> list[Pipeline]:
        return [worker for number, worker in enumerate(self.workers) if number != place]

    def _pass_on(self, changes: Changes) -> None:
        for worker in self.workers:
            worker.learn(changes.templates)
            worker.options.learn(changes.facts)
            worker.templates.forget(changes.forgotten)
