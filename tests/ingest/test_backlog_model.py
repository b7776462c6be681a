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
from ingest.window import Sent, Window
from shared import codec
from shared.metrics import Book
from tests.ingest.kafka_client import FakeClient, FakeKafka, batch_of

TOPIC = "flows.records"


class BacklogModel(RuleBasedStateMachine):
    """A backlog with its client, which die and begin again, and the Kafka behind them, which does not forget."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="backlog-model-"))
        self.now = 100.0
        self.kafka = FakeKafka()
        self.sent = 0
        self.refused: list[Refusal] = []
        self.died: set[int] = set()
        self.failed = 0

    @initialize(room=st.sampled_from([2, 5, 1 << 30]))
    def begin(self, room: int) -> None:
        """Start."""
        self.room = room
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.quota = Quota(1 << 30, [0], 0)
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
            lambda refusal, records: self.refused.extend([refusal] * records),
            lambda _: None,
            clock=lambda: self.now,
        )
        self.client.acknowledged = self.backlog.acknowledged
        self.client.refuse = lambda sent, refusal: self.backlog.refuse(sent, refusal, final=False)
        self.client.miss = self.backlog.miss
        self.numbers: dict[int, Sent] = {}

    def teardown(self) -> None:
        """Everything is mended: in the end all is in Kafka that was not lost with a process."""
        if not self.sent:
            shutil.rmtree(self.home)
            return
        self.kafka.away, self.kafka.refuses, self.client.room_messages = False, None, 1 << 30
        self.kafka.partitions = 4
        for _ in range(10):
            self.now += LONGEST_PAUSE_SECONDS
            self.client.poll()
            self.backlog.turn()
        assert not len(self.window)
        assert self.spool.messages == self.spool.bytes == 0
        assert not self.backlog.spooling
        there = {number for numbers in self.kafka.log.values() for number in numbers}
        assert set(range(1, self.sent + 1)) - there <= self.died
        assert not self.refused
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

    @rule(count=st.integers(1, 8))
    def lose_answers(self, count: int) -> None:
        """Messages are appended, and the client does not hear of it."""
        self.client.poll(count, acknowledge=False)
        self.backlog.turn()

    @rule()
    def kill(self) -> None:
        """The process is killed: what only it had is gone."""
        self.died |= {
            number for number, sent in self.numbers.items() if self.lies_in_window(sent) and sent.place is None
        }
        self.start()

    @rule()
    def stop(self) -> None:
        """The process stops: what it has is on disk then."""
        self.backlog.shelter()
        assert not self.window.records_in_memory
        self.spool.close()
        self.start()

    def lies_in_window(self, sent: Sent) -> bool:
        """Whether the client has it."""
        return any(one is sent for one in self.window)

    @precondition(lambda self: self.sent)
    @invariant()
    def everything_is_somewhere(self) -> None:
        """Each message is in Kafka, in the client's hands, on disk, or died with a process; and nothing is refused."""
        there = {number for numbers in self.kafka.log.values() for number in numbers}
        assert self.sent - len(self.died - there) <= len(there) + self.window.records_in_memory + self.spool.records
        assert not self.refused

    @precondition(lambda self: self.kafka.log)
    @invariant()
    def the_order_is_kept(self) -> None:
        """In each partition, messages are for the first time where they belong."""
        for numbers in self.kafka.first_seen().values():
            assert numbers == sorted(numbers)


BacklogModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestBacklog = BacklogModel.TestCase
