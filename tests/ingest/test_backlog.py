from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ingest import backlog as policy
from ingest.backlog import LATE_SECONDS, LONGEST_PAUSE_SECONDS, Backlog
from ingest.refusal import Refusal
from ingest.spool import Quota, Reason, SpoolFault, SpoolLog
from ingest.spool.spoollog import segment_files
from ingest.window import BY_KEY, Sent, Window
from shared import codec
from shared.metrics import Book, total
from tests.ingest.kafka_client import FakeClient, FakeKafka, batch_of

TOPIC = "dc1.flows.records"


class Parts:
    """A backlog between a client and a spool, with a clock that stands still."""

    def __init__(self, directory: Path, kafka: FakeKafka) -> None:
        self.now = 100.0
        self.kafka = kafka
        self.book = Book()
        self.refused: list[tuple[Refusal, int]] = []
        self.faults: list[Reason] = []
        self.quota = Quota(1 << 30, [0], 0)
        self.spool = SpoolLog(directory / TOPIC, self.quota, clock=lambda: self.now)
        self.window = Window()
        self.client = FakeClient(kafka, self.window)
        self.backlog = Backlog(
            TOPIC,
            self.spool,
            self.window,
            self.client.hand,
            self.book,
            lambda refusal, records: self.refused.append((refusal, records)),
            self.fail,
            clock=lambda: self.now,
        )
        self.client.acknowledged = self.backlog.acknowledged
        self.client.refuse = lambda sent, refusal: self.backlog.refuse(
            sent, refusal, final=refusal is Refusal.TOO_LARGE
        )
        self.client.miss = self.backlog.miss

    def fail(self, fault: SpoolFault) -> None:
        """Hear of what the spool cannot do."""
        self.faults.append(fault.reason)

    def send(self, first: int, last: int | None = None, partition: int = 1) -> None:
        """Send the messages from the first number to the last."""
        for number in range(first, (last or first) + 1):
            batch = batch_of(number)
            value = codec.encode(batch)
            headers = codec.headers(1, "test")
            self.backlog.send(Sent(partition, None, headers, 1, len(value), self.now, batch), value)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, hear Kafka, and turn the loop."""
        self.now += seconds
        self.client.poll()
        self.backlog.turn()

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return total(self.book.snapshot(), name, **labels)

    def outage(self, first: int, last: int) -> None:
        """Kafka goes away, and messages come until their acknowledgement is overdue."""
        self.kafka.away = True
        self.send(first, last)
        self.turn(LATE_SECONDS + 0.1)


@pytest.fixture
def kafka() -> FakeKafka:
    """A Kafka that takes everything."""
    return FakeKafka()


@pytest.fixture
def parts(tmp_path: Path, kafka: FakeKafka) -> Iterator[Parts]:
    """A backlog with a spool that works."""
    ours = Parts(tmp_path, kafka)
    ours.spool.open()
    yield ours
    ours.spool.close()


def test_nothing_is_written_while_kafka_acknowledges(parts: Parts, kafka: FakeKafka) -> None:
    """Messages go to the client, and the disk is not touched."""
    for number in range(1, 50, 7):
        parts.send(number, number + 6)
        parts.turn(0.2)
    assert kafka.log == {1: list(range(1, 50))}
    assert not parts.backlog.spooling
    assert parts.counted("ingest_spool_written_records_total") == 0
    assert list(parts.spool.directory.iterdir()) == []


def test_what_is_overdue_is_copied_and_sent_once(parts: Parts, kafka: FakeKafka) -> None:
    """The client still has it, and sends it when it can: the copy on disk is for the case that the process dies."""
    parts.outage(1, 3)
    assert parts.backlog.spooling
    assert parts.counted("ingest_spool_active", topic=TOPIC) == 1
    assert (parts.spool.messages, parts.window.records_in_memory) == (3, 0)
    parts.send(4, 6)
    parts.turn()
    assert parts.counted("ingest_spool_records", topic=TOPIC) == 6
    kafka.away = False
    parts.turn()
    parts.turn()
    assert kafka.log == {1: [1, 2, 3, 4, 5, 6]}
    assert not parts.backlog.spooling
    assert parts.spool.bytes == 0
    written, drained = (parts.counted(f"ingest_spool_{name}_records_total") for name in ("written", "drained"))
    assert written == drained == 6


def test_a_kafka_that_is_too_slow_is_helped_out(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more waits for an acknowledgement than may, what comes goes to the disk."""
    monkeypatch.setattr(policy, "WINDOW_BYTES", 2_000)
    parts.send(1, 20)
    parts.backlog.turn()
    assert parts.backlog.spooling
    assert parts.spool.messages == 20
    parts.client.poll(1)
    parts.backlog.turn()
    assert parts.backlog.spooling
    parts.turn()
    assert not parts.backlog.spooling
    assert parts.kafka.log == {1: list(range(1, 21))}


def test_a_client_without_room_is_helped_out(parts: Parts, kafka: FakeKafka) -> None:
    """What it does not take goes to the disk, with what it has, and nothing is refused."""
    kafka.away = True
    parts.client.room_messages = 3
    parts.send(1, 10)
    assert parts.spool.messages == 10
    kafka.away = False
    for _ in range(5):
        parts.turn()
    assert kafka.log == {1: list(range(1, 11))}
    assert parts.refused == []


def test_a_message_that_is_larger_than_the_clients_room_is_refused(parts: Parts) -> None:
    """It would wait for ever, and all others behind it."""
    parts.client.room_messages = 0
    parts.send(1)
    assert parts.refused == [(Refusal.QUEUE_FULL, 1)]
    assert parts.spool.messages == 0


def test_what_was_found_goes_first(parts: Parts, kafka: FakeKafka, tmp_path: Path) -> None:
    """What another process has left is sent before what comes, and what comes is on disk until then."""
    parts.outage(1, 5)
    parts.spool.close()
    again = Parts(tmp_path, kafka)
    again.spool.open()
    again.send(6, 8)
    assert (again.spool.messages, len(again.window)) == (8, 0)
    again.turn()
    assert again.backlog.spooling
    assert len(again.window) == 8
    # Kafka has not said anything yet: what comes is safe on disk.
    again.send(9)
    assert again.spool.messages == 9
    kafka.away = False
    again.turn()
    again.turn()
    assert kafka.log == {1: list(range(1, 10))}
    assert not again.backlog.spooling


def test_the_traffic_does_not_wait_without_bound(
    parts: Parts, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each turn less is written than read, so that what is new comes closer to its turn, however much comes."""
    size = len(codec.encode(batch_of(1)))
    monkeypatch.setattr(policy, "DRAIN_BYTES", size)
    parts.outage(1, 40)
    parts.send(41, 100)
    parts.turn(1.0)
    kafka.away = False
    number, left = 100, [parts.spool.messages]
    while parts.backlog.spooling:
        parts.send(number + 1, number + 3)
        number += 3
        parts.turn(0.1)
        left.append(parts.spool.messages)
        assert len(left) < 50
    # What is written meanwhile is read in the same turn twice over, and a message besides.
    assert left[2:] == sorted(left[2:], reverse=True)
    parts.turn()
    assert kafka.log == {1: list(range(1, number + 1))}


def test_a_turn_does_not_take_long(parts: Parts, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is in the spool, a turn reads a bounded part of it."""
    parts.outage(1, 10)
    parts.turn()
    parts.send(11, 100)
    monkeypatch.setattr(policy, "DRAIN_BYTES", 0)
    parts.turn()
    assert len(parts.window) == 100
    parts.turn()
    parts.send(101, 200)
    parts.backlog._written_bytes = 0
    kafka.away = False
    parts.turn()
    assert parts.spool.messages == 100
    assert len(parts.window) == 0


def test_a_full_spool_costs_the_newest(parts: Parts, kafka: FakeKafka) -> None:
    """What lies there is not touched, what does not fit is dropped with its reason, and nothing overtakes."""
    parts.outage(1, 3)
    parts.send(4, 6)
    parts.quota.limit_bytes = parts.quota.own_bytes
    parts.send(7, 9)
    assert parts.refused == [(Refusal.SPOOL_FULL, 1)] * 3
    assert parts.faults == [Reason.FULL] * 3
    parts.quota.limit_bytes = 1 << 30
    parts.now += 1.0
    parts.send(10)
    kafka.away = False
    parts.turn()
    parts.turn()
    assert kafka.log == {1: [1, 2, 3, 4, 5, 6, 10]}


def test_a_disk_that_cannot_be_used_leaves_the_queue_in_memory(tmp_path: Path, kafka: FakeKafka) -> None:
    """Without it, the client keeps what it has room for, and the newest is refused."""
    parts = Parts(tmp_path, kafka)
    parts.client.room_messages = 5
    parts.outage(1, 3)
    parts.send(4, 7)
    assert parts.refused == [(Refusal.QUEUE_FULL, 1)] * 2
    assert set(parts.faults) == {Reason.MISSING}
    assert parts.window.records_in_memory == 5
    kafka.away = False
    parts.turn()
    assert kafka.log == {1: [1, 2, 3, 4, 5]}
    assert not parts.backlog.spooling


def test_a_disk_that_fails_does_not_let_the_new_overtake(parts: Parts, kafka: FakeKafka, tmp_path: Path) -> None:
    """While there is something on disk that the client does not have, nothing goes past it."""
    parts.outage(1, 2)
    parts.client.room_messages = 2
    parts.send(3)
    parts.spool._segment_bytes = 1
    parts.spool.directory.rename(tmp_path / "gone")
    parts.send(4)
    assert parts.refused == [(Refusal.SPOOL_FAILED, 1)]
    assert parts.faults == [Reason.MISSING]
    kafka.away = False
    for _ in range(3):
        parts.turn()
    assert kafka.log == {1: [1, 2, 3]}


def keeps_what_is_refused(parts: Parts, kafka: FakeKafka, numbers: list[int]) -> None:
    """Have Kafka come back and refuse the topic for a while: all of it is in the spool then, and in Kafka in its order."""
    kafka.away, kafka.refuses = False, Refusal.NOT_AUTHORIZED
    parts.turn()
    assert (parts.spool.messages, parts.refused) == (len(numbers), [])
    kafka.refuses = None
    for _ in range(4):
        parts.turn(LONGEST_PAUSE_SECONDS)
    assert kafka.log == {1: numbers}


def test_what_a_full_disk_could_not_take_is_written_when_it_can(parts: Parts, kafka: FakeKafka) -> None:
    """Before anything that came later, so that it is there when Kafka refuses it, and keeps its place."""
    parts.quota.limit_bytes = 0
    parts.outage(1, 3)
    assert (parts.faults, parts.spool.messages) == ([Reason.FULL], 0)
    parts.quota.limit_bytes = 1 << 30
    parts.now += 0.5
    parts.send(4)
    keeps_what_is_refused(parts, kafka, [1, 2, 3, 4])
    assert not parts.backlog.spooling


def test_what_is_refused_while_something_else_lies_in_the_spool_is_kept(
    parts: Parts, kafka: FakeKafka, tmp_path: Path
) -> None:
    """What another worker left may be found at any time: it is no reason to drop what the client has."""
    other = Parts(tmp_path / "other", kafka)
    other.spool.open()
    other.outage(1, 2)
    other.spool.close()
    parts.send(3, 4)
    for path in segment_files(other.spool.directory):
        parts.spool.adopt(path)
    keeps_what_is_refused(parts, kafka, [1, 2, 3, 4])


def test_a_disk_that_can_be_written_to_again_gets_what_the_client_has(parts: Parts, kafka: FakeKafka) -> None:
    """A little later, whether anything comes or not: it is there when the process is killed."""
    parts.quota.limit_bytes = 0
    parts.outage(1, 3)
    parts.quota.limit_bytes = 1 << 30
    for _ in range(3):
        parts.turn(0.5)
    assert (parts.spool.messages, parts.window.records_in_memory) == (3, 0)


def test_a_message_that_is_refused_for_good_is_dropped_alone(parts: Parts, kafka: FakeKafka) -> None:
    """Those behind it go on, from memory as from disk."""
    kafka.refuses = Refusal.TOO_LARGE
    parts.send(1)
    parts.turn()
    assert parts.refused == [(Refusal.TOO_LARGE, 1)]
    parts.outage(2, 3)
    kafka.away = False
    parts.turn()
    assert parts.refused == [(Refusal.TOO_LARGE, 1)] * 3
    kafka.refuses = None
    parts.send(4)
    parts.turn()
    parts.turn()
    assert kafka.log == {1: [4]}
    assert parts.spool.messages == 0
    assert not parts.backlog.spooling


def test_a_topic_that_is_refused_is_tried_with_one_message(parts: Parts, kafka: FakeKafka) -> None:
    """The rest waits on disk, and the pauses grow, until it is taken; then all goes, in its order."""
    kafka.refuses = Refusal.NOT_AUTHORIZED
    parts.send(1, 5)
    parts.turn()
    parts.turn()
    assert (parts.spool.messages, len(parts.window)) == (5, 0)
    tried = []
    for second in range(60):
        parts.turn(1.0)
        if len(parts.window):
            assert [sent.records for sent in parts.window] == [1]
            tried.append(second)
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1] <= LONGEST_PAUSE_SECONDS + 2
    parts.send(6)
    kafka.refuses = None
    for _ in range(4):
        parts.turn(LONGEST_PAUSE_SECONDS)
    assert kafka.log == {1: [1, 2, 3, 4, 5, 6]}
    assert parts.refused == []
    assert not parts.backlog.spooling


def test_a_refusal_without_a_disk_is_told(tmp_path: Path, kafka: FakeKafka) -> None:
    """Nothing can be kept: the records are refused with the reason that Kafka has."""
    parts = Parts(tmp_path, kafka)
    kafka.refuses = Refusal.UNKNOWN_TOPIC
    parts.send(1, 3)
    parts.turn()
    assert parts.refused == [(Refusal.UNKNOWN_TOPIC, 1)] * 3
    assert parts.window.records_in_memory == 0


def test_a_partition_that_is_gone_is_replaced_by_any(parts: Parts, kafka: FakeKafka) -> None:
    """What is spooled for it is delivered elsewhere: a topic that was made anew with fewer of them holds up nothing."""
    kafka.away = True
    for number in range(1, 9):
        parts.send(number, partition=number % 4)
    parts.turn(LATE_SECONDS + 0.1)
    for number in range(9, 17):
        parts.send(number, partition=number % 8)
    kafka.away = False
    parts.turn()
    parts.turn()
    delivered = sorted(number for numbers in kafka.log.values() for number in numbers)
    assert delivered == list(range(1, 17))
    assert set(kafka.log) <= {0, 1, 2, 3}
    assert parts.refused == []
    assert BY_KEY < 0


def test_what_cannot_be_read_back_is_counted(parts: Parts, kafka: FakeKafka) -> None:
    """The damaged message is lost and counted, and the others are delivered."""
    parts.outage(1, 2)
    # Beyond what may be on its way, so that they are read when Kafka is back.
    parts.client.room_messages = 2
    parts.send(3, 6)
    (path,) = parts.spool.directory.iterdir()
    octets = bytearray(path.read_bytes())
    octets[-10] ^= 1
    path.write_bytes(octets)
    kafka.away = False
    for _ in range(5):
        parts.turn()
    assert kafka.log == {1: [1, 2, 3, 4, 5]}
    assert parts.refused == [(Refusal.SPOOL_DAMAGED, 1)]
    assert parts.faults == [Reason.DAMAGED]
    assert (parts.spool.messages, parts.spool.records) == (0, 0)


def test_before_the_end_everything_is_brought_to_the_disk(parts: Parts, kafka: FakeKafka, tmp_path: Path) -> None:
    """Also what was handed over a moment ago, and what Kafka has just refused."""
    kafka.away = True
    parts.send(1, 3)
    parts.backlog.shelter()
    assert parts.window.records_in_memory == 0
    parts.send(4)
    parts.spool.close()
    again = Parts(tmp_path, kafka)
    found = again.spool.open()
    assert found.messages == 4
    kafka.away = False
    again.turn()
    again.turn()
    assert kafka.log == {1: [1, 2, 3, 4]}
