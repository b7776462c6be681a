"""The policy between client and spool against a Kafka that comes and goes: nothing is lost, and the order is kept."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ingest.backlog import LONGEST_PAUSE_SECONDS, Backlog
from ingest.refusal import Refusal
from ingest.spool import Quota, SpoolLog
from ingest.spool.spoollog import PAUSE_SECONDS
from ingest.window import Sent, Window
from shared import codec
from shared.metrics import Book
from tests.ingest.kafka_client import FakeClient, FakeKafka, batch_of, number_of

TOPIC = "flows.records"
ROOM = 1 << 30


class BacklogModel(RuleBasedStateMachine):
    """A backlog with its client, which die and begin again, and the Kafka behind them, which does not forget.

    While the disk has no room, what neither it nor the client takes is lost, and counted with its reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="backlog-model-"))
        self.now = 100.0
        self.kafka = FakeKafka()
        self.sent = 0
        self.refused: list[Refusal] = []
        self.died: set[int] = set()
        self.disk_is_full = False

    @initialize(room=st.sampled_from([2, 5, 1 << 30]))
    def begin(self, room: int) -> None:
        """Start."""
        self.room = room
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.quota = Quota(0 if self.disk_is_full else ROOM, [0], 0)
        self.spool = SpoolLog(self.home / TOPIC, self.quota, clock=lambda: self.now)
        self.spool._segment_bytes = 2_000
        self.spool.open()
        self.window = Window()
        self.client = FakeClient(self.kafka, self.window, self.room)
        self.backlog = Backlog(
            TOPIC,
            self.spool,
            self.window,
            self.client.hand,
            Book(),
            self.refuse,
            lambda _: None,
            clock=lambda: self.now,
        )
        self.client.acknowledged = self.backlog.acknowledged
        self.client.refuse = lambda sent, refusal: self.backlog.refuse(sent, refusal, final=False)
        self.client.miss = self.backlog.miss
        self.numbers: dict[int, Sent] = {}

    def refuse(self, refusal: Refusal, records: int) -> None:
        """Records are given up: which never happens as long as there is a disk."""
        assert self.disk_is_full
        self.refused.extend([refusal] * records)

    def teardown(self) -> None:
        """Everything is mended: in the end all is in Kafka that was not lost with a process."""
        if not self.sent:
            shutil.rmtree(self.home)
            return
        self.kafka.away, self.kafka.refuses, self.client.room_messages = False, None, 1 << 30
        self.kafka.partitions = 4
        self.free()
        for _ in range(10):
            self.now += LONGEST_PAUSE_SECONDS
            self.client.poll()
            self.backlog.turn()
        assert not len(self.window)
        assert self.spool.messages == self.spool.bytes == 0
        assert not self.backlog.spooling
        assert len(self.lost()) <= len(self.refused)
        self.spool.close()
        shutil.rmtree(self.home)

    @rule(count=st.integers(1, 6), partition=st.integers(0, 3))
    def send(self, count: int, partition: int) -> None:
        """Messages come."""
        for _ in range(count):
            self.sent += 1
            batch = batch_of(self.sent)
            value = codec.encode(batch)
            sent = Sent(partition, None, codec.headers(1, "test"), 1, len(value), self.now, batch)
            self.numbers[self.sent] = sent
            self.backlog.send(sent, value)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.0, 40.0]), count=st.integers(0, 8))
    def turn(self, seconds: float, count: int) -> None:
        """Time passes, Kafka takes some messages, and the loop turns."""
        self.now += seconds
        self.client.poll(count)
        self.backlog.turn()

    @rule()
    def go_away(self) -> None:
        """Kafka goes away."""
        self.kafka.away = True

    @rule()
    def come_back(self) -> None:
        """Kafka is there, and takes everything."""
        self.kafka.away, self.kafka.refuses = False, None

    @rule()
    def forbid(self) -> None:
        """Kafka is there, and refuses the topic."""
        self.kafka.away, self.kafka.refuses = False, Refusal.NOT_AUTHORIZED

    @rule()
    def fill(self) -> None:
        """The disk has no room any more."""
        self.disk_is_full, self.quota.limit_bytes = True, 0

    @rule()
    def free(self) -> None:
        """The disk has room, and that is found out."""
        self.now += PAUSE_SECONDS
        self.disk_is_full, self.quota.limit_bytes = False, ROOM

    @rule(count=st.integers(1, 8))
    def lose_answers(self, count: int) -> None:
        """Messages are appended, and the client does not hear of it."""
        self.client.poll(count, acknowledge=False)
        self.backlog.turn()

    @rule()
    def kill(self) -> None:
        """The process is killed: what only it had is gone."""
        self.died |= self.in_memory()
        self.start()

    @rule()
    def stop(self) -> None:
        """The process stops: what it has is on disk then, if there is room."""
        self.backlog.shelter()
        assert self.disk_is_full or not self.window.records_in_memory
        self.died |= self.in_memory()
        self.spool.close()
        self.start()

    def in_memory(self) -> set[int]:
        """The messages that the client has, and nobody else."""
        waiting = {sent.number for sent in self.window}
        return {number for number, sent in self.numbers.items() if sent.place is None and sent.number in waiting}

    def on_disk(self) -> set[int]:
        """The messages in the spool that are not known to be delivered."""
        found = set[int]()
        for segment in self.spool._segments:
            offset = segment.acknowledged.end
            while offset < segment.whole.end:
                entry, offset = segment.read(offset)
                assert entry is not None
                found.add(number_of(bytes(entry.value)))
        return found

    def lost(self) -> set[int]:
        """The messages that are nowhere, and did not die with a process."""
        there = {number for numbers in self.kafka.log.values() for number in numbers}
        return set(range(1, self.sent + 1)) - there - self.in_memory() - self.on_disk() - self.died

    @precondition(lambda self: self.sent)
    @invariant()
    def everything_is_somewhere(self) -> None:
        """Each message is in Kafka, in the client's hands, on disk, or died with a process; or it was refused."""
        assert len(self.lost()) <= len(self.refused)

    @precondition(lambda self: self.kafka.log)
    @invariant()
    def the_order_is_kept(self) -> None:
        """In each partition, messages are for the first time where they belong."""
        for numbers in self.kafka.first_seen().values():
            assert numbers == sorted(numbers)


BacklogModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestBacklog = BacklogModel.TestCase
