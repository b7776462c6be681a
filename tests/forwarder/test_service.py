from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.assembly import Held, decode_batch
from forwarder.config import AggregateConfig, CutConfig, DedupConfig, ExactDedupConfig
from forwarder.consumer import BrokenConsumerError, Listener
from forwarder.cut import Message
from forwarder.dedup.exact import ExactDedup, read_ids
from forwarder.delivery import Delivery, Policy
from forwarder.heartbeat import BrokerClock
from forwarder.ledger import Ledger
from forwarder.service import Patience, Phase, Plan, SinkService
from forwarder.shape import Shape
from forwarder.sinks.base import Busy, Refused, Trouble
from shared import codec
from shared.log import Throttle
from shared.metrics import Book, total
from tests.fakes import TOPIC_ID, FakeClock, FakeLetterbox, FakeLog, FakeMessage, FakePulse, FakeTopic, MemorySink
from tests.forwarder.records import eventually, flows, heartbeat, message, shape

SHAPE = shape(CutConfig(interval_ms=1000, max_records=100, max_bytes=1_000_000))
QUICK = Policy(concurrency=2, base_seconds=0.001, cap_seconds=0.002)


@dataclass(slots=True)
class Member:
    """One forwarder's service of the sink, over fakes."""

    topic: FakeTopic
    sink: MemorySink
    shape: Shape = field(default=SHAPE)
    policy: Policy = QUICK
    patience: Patience = field(default_factory=Patience)
    clock: FakeClock = field(default_factory=FakeClock)
    book: Book = field(default_factory=Book)
    pulse: FakePulse = field(default_factory=FakePulse)
    letterbox: FakeLetterbox = field(default_factory=FakeLetterbox)
    logs: list[FakeLog] = field(default_factory=list)
    partitions: Sequence[int] = ()
    service: SinkService = field(init=False)

    def __post_init__(self) -> None:
        def connect(listener: Listener) -> FakeLog:
            self.logs.append(FakeLog(self.topic, listener, self.shape, self.partitions))
            return self.logs[-1]

        throttle = Throttle()
        self.service = SinkService(
            Plan(sink="memory", topic="flows.records", retention_seconds=3600),
            sink=self.sink,
            delivery=Delivery(
                self.sink,
                self.policy,
                name="memory",
                topic="flows.records",
                letterbox=self.letterbox,
                book=self.book,
                throttle=throttle,
            ),
            ledger=Ledger("memory", "flows.records", self.book),
            connect=connect,
            pulse=self.pulse,
            clock=BrokerClock(self.clock.ms, self.clock),
            book=self.book,
            throttle=throttle,
            patience=self.patience,
        )

    @property
    def log(self) -> FakeLog:
        """The consumer that it has now."""
        return self.logs[-1]

    @property
    def books(self) -> dict[str, int]:
        """Its ledger, without reasons."""
        books = self.service.ledger.as_json()
        dropped = sum(books["dropped"]["records"].values())
        return {name: books[name]["records"] for name in ("received", "delivered", "in_flight", "returned")} | {
            "dropped": dropped
        }

    def counted(self, name: str, **labels: str) -> float:
        """A metric."""
        return total(self.book.snapshot(), name, **labels)


Make = Callable[..., Member]


@pytest.fixture
def topic() -> FakeTopic:
    """A topic, empty at first."""
    return FakeTopic()


@pytest.fixture
def sink() -> MemorySink:
    """A backend that takes everything."""
    return MemorySink()


@pytest.fixture
def make(topic: FakeTopic, sink: MemorySink) -> Iterator[Make]:
    """Makes members that have started with some partitions, and stops them."""
    members: list[Member] = []

    def start(*partitions: int, **more: object) -> Member:
        member = Member(topic, sink, partitions=partitions or (0,), **more)  # type: ignore[arg-type]
        members.append(member)
        member.service.start()
        return member

    yield start
    sink.gate.set()
    sink.answers.clear()
    for member in members:
        member.service.stop()
        assert member.service.join(20.0)


def fill(
    topic: FakeTopic, partition: int, times: Sequence[int], records: int = 3, ids: Iterator[int] | None = None
) -> list[int]:
    """Append messages at these times, and return the ids of their records."""
    ids = ids or itertools.count(topic.end(partition) * 1000 + partition * 1_000_000)
    appended = []
    for append_ms in times:
        some = list(itertools.islice(ids, records))
        value, headers = message(some)
        topic.append(partition, append_ms, value, headers)
        appended += some
    return appended


def test_what_is_cut_is_delivered_and_committed_and_the_open_batch_is_not(
    topic: FakeTopic, sink: MemorySink, make: Make
) -> None:
    """Batches go to the sink under their tokens, the group's offset follows, and the books say what is in flight."""
    ids = fill(topic, 0, [0, 500, 1000, 2000, 2100])
    member = make(0)
    eventually(lambda: topic.committed.get(0) == 3, "two batches committed")
    assert {(token.start, token.end) for token in sink.tables} == {(0, 2), (2, 3)}
    assert sorted(sink.record_ids()) == ids[:9]
    eventually(lambda: member.books["in_flight"] == 6, "the rest in flight")
    assert member.books == {"received": 15, "delivered": 9, "in_flight": 6, "returned": 0, "dropped": 0}


def test_a_clean_stop_leaves_the_open_batch_in_kafka(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """A stop delivers and commits what is cut; what is not is returned, and the next run delivers it once."""
    ids = fill(topic, 0, [0, 500, 1000])
    first = make(0)
    eventually(lambda: first.books["received"] == 9, "all read")
    first.service.stop()
    assert first.service.join(20.0)
    assert topic.committed[0] == 2
    assert first.books == {"received": 6, "delivered": 6, "in_flight": 0, "returned": 3, "dropped": 0}
    assert (first.service.state.phase, first.pulse.closed, first.log.closed) == (Phase.STOPPED, True, True)
    fill(topic, 0, [2000])
    make(0)
    eventually(lambda: topic.committed[0] == 3, "the rest committed")
    assert sorted(sink.record_ids()) == ids


def test_a_stop_waits_for_what_the_sink_has_in_hand(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """Batches whose cut is in the log when the stop comes are delivered before it is over."""
    fill(topic, 0, [0, 1000, 2000, 3000])
    sink.gate.clear()
    member = make(0)
    eventually(lambda: member.books["received"] == 12 and sink.running, "all read, and one in hand")
    member.service.stop()
    sink.gate.set()
    assert member.service.join(20.0)
    assert topic.committed[0] == 3
    assert member.books["delivered"] == 9


def test_a_stop_does_not_wait_for_ever_for_a_sink_that_is_away(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """What a busy sink does not take in time stays in Kafka."""
    fill(topic, 0, [0, 1000])
    sink.answers[0] = [Busy(Trouble.AWAY, "is away")] * 100_000
    member = make(0, patience=Patience(stop=0.05))
    eventually(lambda: member.service.state.phase is Phase.CONSUMING and sink.tries, "tried")
    member.service.stop()
    assert member.service.join(20.0)
    assert topic.committed[0] == 0
    assert member.books["returned"] == 6


def test_a_crash_before_the_commit_delivers_the_same_batch_again(
    topic: FakeTopic, sink: MemorySink, make: Make
) -> None:
    """What was delivered and not committed comes again under the same token, so the backend has it once."""
    ids = fill(topic, 0, [0, 500, 1000, 1500, 2000])
    first = make(0)
    first.log.mute = True
    eventually(lambda: first.books["delivered"] == 12, "two batches delivered")
    first.log.crash()
    topic.committed[0] = 0
    second = make(0)
    eventually(lambda: second.books["delivered"] == 12, "delivered again")
    assert sorted(sink.record_ids()) == ids[:12]
    assert len(sink.tries) == 4


def test_the_sink_is_never_committed_past_what_it_acknowledged(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """While a batch is refused for now, later batches of its partition wait, and nothing is committed."""
    fill(topic, 0, [0, 1000, 2000])
    fill(topic, 1, [0, 1000, 2000])
    sink.answers[0] = [Busy(Trouble.AWAY, "is away")] * 100_000
    member = make(0, 1)
    eventually(lambda: topic.committed.get(1) == 2, "the other partition committed")
    eventually(lambda: not member.service.ready()[0], "not ready")
    assert member.service.ready() == (False, "is away")
    assert topic.committed[0] == 0
    sink.answers[0].clear()
    eventually(lambda: topic.committed.get(0) == 2, "committed")
    eventually(lambda: member.service.ready()[0], "ready again")


def test_backpressure_stops_reading(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """With the sink's queue full nothing more is read, so memory stays bounded; it goes on when there is room."""
    fill(topic, 0, range(0, 300_000, 1000))
    sink.gate.clear()
    member = make(0, policy=Policy(concurrency=1, max_queued_records=9))
    eventually(lambda: member.service.state.phase is Phase.HOLDING, "holding")
    polls, received = member.log.polls, member.books["received"]
    assert received <= 300
    assert not member.log.paused
    assert member.service.ready()[0]
    sink.gate.set()
    eventually(lambda: topic.committed.get(0) == 299, "all delivered")
    assert member.log.polls > polls


def test_a_batch_that_is_not_taken_does_not_let_those_behind_it_pile_up(
    topic: FakeTopic, sink: MemorySink, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many batches are delivered behind it; other partitions go on, and so does this one when it is taken."""
    monkeypatch.setattr("forwarder.service.MOST_AHEAD", 20)
    fill(topic, 0, range(0, 600_000, 1000))
    fill(topic, 1, range(0, 600_000, 1000))
    sink.answers[0] = [Busy(Trouble.AWAY, "is away", retry_after=3600.0)]
    member = make(0, 1, policy=Policy(concurrency=1, base_seconds=0.0, max_queued_batches=10))
    eventually(lambda: topic.committed.get(1) == 599, "the other partition committed")
    eventually(lambda: member.counted("forwarder_batches_uncommittable", sink="memory") >= 20, "seen")
    assert member.log.ours[0].held
    # As many as were read at a time when it was one too few.
    assert len([token for token in sink.tables if token.partition == 0]) <= 220
    assert topic.committed[0] == 0
    with member.service._delivery._changed:
        for errand in member.service._delivery._errands.values():
            errand.due = 0.0
        member.service._delivery._changed.notify_all()
    eventually(lambda: topic.committed.get(0) == 599, "all committed")
    eventually(lambda: member.counted("forwarder_batches_uncommittable", sink="memory") == 0, "nothing waits")


def test_a_partition_of_which_nothing_is_read_gets_no_heartbeats(
    topic: FakeTopic, sink: MemorySink, make: Make
) -> None:
    """They would pile up in the log for as long as the sink is away."""
    fill(topic, 0, range(0, 10_000, 1000))
    sink.gate.clear()
    member = make(0, policy=Policy(concurrency=1, max_queued_records=9), patience=Patience(hold=0.0))
    eventually(lambda: member.service.state.phase is Phase.HOLDING, "holding")
    member.pulse.beats.clear()
    seen = member.service.state
    eventually(lambda: member.service.state is not seen, "looked at again")
    assert member.service.state.phase is Phase.HOLDING
    assert member.pulse.beats == []
    sink.gate.set()
    eventually(lambda: member.pulse.beats, "a heartbeat")


def test_long_backpressure_pauses_and_keeps_polling(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """When the sink stays full, partitions are paused, and the group is served so that they are not taken from us."""
    fill(topic, 0, range(0, 300_000, 1000))
    sink.gate.clear()
    member = make(0, policy=Policy(concurrency=1, max_queued_records=9), patience=Patience(hold=0.0))
    eventually(lambda: member.logs and member.log.paused, "paused")
    polls = member.log.polls
    eventually(lambda: member.log.polls > polls + 5, "polled")
    sink.gate.set()
    eventually(lambda: topic.committed.get(0) == 299, "all delivered")
    eventually(lambda: not member.log.paused, "resumed")


def test_partitions_that_go_are_finished_and_the_rest_forgotten(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """A revoked partition is committed up to what the sink acknowledged; another member goes on there, once for each."""
    ids = fill(topic, 0, [0, 500, 1000, 1500, 2000])
    other = fill(topic, 1, [0, 1000])
    first = make(0, 1)
    eventually(lambda: topic.committed == {0: 4, 1: 1}, "committed")
    first.log.revoke([0])
    eventually(lambda: 0 not in first.log.ours, "revoked")
    assert first.books["returned"] == 3
    second = make(0)
    ids += fill(topic, 0, [2500, 3000])
    eventually(lambda: topic.committed[0] == 6, "the other member went on")
    assert sorted(sink.record_ids()) == sorted(ids[:18] + other[:3])
    assert second.books["delivered"] == 6


def test_lost_partitions_are_forgotten_without_a_commit(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """What the group took away while a batch was in hand is neither committed nor counted as delivered by us."""
    fill(topic, 0, [0, 1000])
    sink.gate.clear()
    member = make(0)
    eventually(lambda: sink.running, "in hand")
    member.log.lose([0])
    eventually(lambda: member.books["returned"] == 6, "returned")
    sink.gate.set()
    eventually(lambda: sink.tables, "delivered all the same")
    member.log.give([0])
    eventually(lambda: topic.committed.get(0) == 1, "committed after it was ours again")
    assert member.books == {"received": 6, "delivered": 3, "in_flight": 3, "returned": 6, "dropped": 0}
    assert len(sink.tables) == 1


def test_an_idle_partition_is_closed_by_a_heartbeat(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """The open batch of a partition at its end gets a heartbeat when its interval is over; one without records none."""

    def append(partition: int, ends_ms: int) -> None:
        if topic.messages[partition][-1].append_ms < ends_ms:
            topic.append(partition, ends_ms, *heartbeat())

    ids = fill(topic, 0, [0, 500])
    member = make(0, pulse=FakePulse(append))
    eventually(lambda: topic.committed.get(0) == 3, "committed to the end")
    assert sorted(sink.record_ids()) == ids
    assert set(member.pulse.beats) == {(0, 1000)}
    beats = len(member.pulse.beats)
    eventually(lambda: member.counted("forwarder_lag_messages", sink="memory", partition="0") == 0, "no lag")
    assert len(member.pulse.beats) == beats
    assert member.counted("forwarder_lag_seconds", sink="memory") == 0


def test_a_partition_that_stands_still_gets_no_heartbeat(topic: FakeTopic, make: Make) -> None:
    """A heartbeat would lie behind the message at which the partition stands, and end nothing."""
    fill(topic, 0, [0])
    topic.append(0, 10, b"", [("schema", b"2")])
    member = make(0)
    eventually(lambda: any(one.stopped for one in member.service.state.partitions), "stands still")
    seen = member.service.state
    eventually(lambda: member.service.state is not seen, "looked at again")
    assert member.pulse.beats == []
    assert member.counted("forwarder_lag_messages", sink="memory") == 2


def test_a_message_of_an_unknown_schema_stops_its_partition_alone(
    topic: FakeTopic, sink: MemorySink, make: Make
) -> None:
    """Its partition stands still and is told; what came before it is delivered by its time, and others go on."""
    ids = fill(topic, 0, [0, 500])
    value, headers = message([77])
    topic.append(0, 1000, value, [("schema", b"2"), *headers[1:]])
    fill(topic, 0, [2000, 3000])
    other = fill(topic, 1, [0, 1000, 2000])
    member = make(0, 1)
    eventually(lambda: topic.committed == {0: 2, 1: 2}, "committed up to there")
    eventually(lambda: not member.service.ready()[0], "not ready")
    ready, detail = member.service.ready()
    assert not ready
    assert detail.startswith("partition 0 stands still: at offset 2 the message has schema version 2, and this program")
    assert sorted(sink.record_ids()) == sorted(ids + other[:6])
    assert member.books["dropped"] == 0
    eventually(lambda: member.service.state.partitions[0].lag_messages == 3, "the rest of the partition is lag")
    assert member.counted("forwarder_lag_messages", sink="memory", partition="0") == 3
    assert member.counted("forwarder_partitions_stopped", sink="memory") == 1
    assert "forwarder_sink_failed" in member.book.snapshot()
    assert member.counted("forwarder_sink_failed", sink="memory") == 0


@pytest.mark.parametrize(
    ("promised", "value", "dropped"),
    [
        pytest.param(5, b"garbage", 5, id="garbage that says how many"),
        pytest.param(None, b"garbage", 1, id="garbage that does not say how many"),
        pytest.param(0, b"garbage", 1, id="garbage that says none"),
        pytest.param(2, None, 2, id="a tombstone"),
        pytest.param(7, message([50, 51])[0], 5, id="fewer than promised"),
        pytest.param(1, message([50, 51])[0], 0, id="more than promised"),
        pytest.param(None, message([50, 51])[0], 0, id="not promised"),
    ],
)
def test_corrupt_messages_are_dropped_and_counted(
    topic: FakeTopic, sink: MemorySink, make: Make, promised: int | None, value: bytes | None, dropped: int
) -> None:
    """What cannot be decoded is counted as corrupt by what its headers promised, the rest is delivered."""
    fill(topic, 0, [0])
    headers = [("schema", b"1")] + ([] if promised is None else [("records", b"%d" % promised)])
    topic.append(0, 10, value, headers)
    fill(topic, 0, [1000])
    member = make(0)
    eventually(lambda: topic.committed.get(0) == 2, "committed")
    there = 2 if value and value != b"garbage" else 0
    assert member.books["delivered"] == 3 + there
    assert member.books["dropped"] == dropped
    assert member.counted("forwarder_dropped_total", sink="memory", reason="corrupt") == dropped
    assert [letter.value for letter in member.letterbox.letters] == ([] if there else [value or b""])
    eventually(lambda: member.books["in_flight"] == 3, "the open batch in flight")
    assert len(sink.record_ids()) == 3 + there


def test_a_refused_record_is_a_dead_letter(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """The batch is committed without it, and the books say what became of it."""
    ids = fill(topic, 0, [0, 1000, 2000], records=50)
    sink.refuses = {ids[60]}
    member = make(0)
    eventually(lambda: topic.committed.get(0) == 2, "two batches committed")
    assert sorted(sink.record_ids()) == [one for one in ids[:100] if one != ids[60]]
    assert [letter.reason for letter in member.letterbox.letters] == ["refused"]
    assert member.books == {"received": 150, "delivered": 99, "in_flight": 50, "returned": 0, "dropped": 1}
    assert member.counted("forwarder_dropped_total", sink="memory", reason="refused") == 1


def test_a_refused_batch_stops_the_sink(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """A batch that the sink will never take is not dropped: the sink stops, says why, and leaves it in Kafka."""
    fill(topic, 0, [0, 1000, 2000])
    # The batch, two halves, and a half of a half: two bad records of three are no bad records any more.
    sink.answers[0] = [Refused("no such column")] * 20
    member = make(0)
    eventually(lambda: member.service.state.phase is Phase.FAILED, "failed")
    assert member.service.join(20.0)
    ready, detail = member.service.ready()
    assert not ready
    assert "refuses the batch" in detail
    assert "no such column" in detail
    assert member.counted("forwarder_sink_failed", sink="memory") == 1
    assert member.service.alive()
    assert topic.committed.get(0, 0) == 0
    assert member.books["in_flight"] == 0
    assert member.log.closed


def test_an_offset_above_the_end_stops_the_sink(topic: FakeTopic, make: Make) -> None:
    """The log ends before the group's offset: an error, and no silent reset."""
    topic.committed[0] = 99
    fill(topic, 0, [0])
    member = make(0)
    eventually(lambda: member.service.state.phase is Phase.FAILED, "failed")
    assert "ends at offset 1" in member.service.ready()[1]


@pytest.mark.parametrize("failure", [BrokenConsumerError("away"), RuntimeError("a defect")], ids=["broken", "defect"])
def test_a_consumer_that_fails_is_made_anew(topic: FakeTopic, sink: MemorySink, make: Make, failure: Exception) -> None:
    """A failure of the consumer costs nothing: a new one begins where the group was."""
    ids = fill(topic, 0, [0, 500, 1000])
    member = make(0, patience=Patience(reconnect=0.01, reconnect_most=0.02))
    eventually(lambda: topic.committed.get(0) == 2, "the first batch committed")
    member.log.failure = failure
    eventually(lambda: len(member.logs) == 2, "a new consumer")
    fill(topic, 0, [2000])
    eventually(lambda: topic.committed.get(0) == 3, "the second batch committed")
    assert sorted(sink.record_ids()) == ids
    assert member.books["returned"] == 3


def test_expired_messages_are_counted(topic: FakeTopic, make: Make) -> None:
    """What Kafka let go before it was read is in the books and in the metrics, and the rest is read."""
    fill(topic, 0, [0, 1, 2, 1000, 2000])
    topic.committed[0] = 0
    topic.lows[0] = 3
    member = make(0)
    eventually(lambda: topic.committed[0] == 4, "committed")
    assert member.service.ledger.as_json()["expired"] == {"messages": 3}
    assert member.counted("forwarder_dropped_total", sink="memory", reason="expired") == 3


def test_messages_that_expire_while_it_reads_are_counted(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """When the log's start passes a reader, what it has read is a batch, and it goes on at the start."""
    ids = fill(topic, 0, [0, 10])
    member = make(0)
    eventually(lambda: member.books["received"] == 6, "read")

    def expire() -> None:
        fill(topic, 0, [20, 30])
        ids.extend(fill(topic, 0, [40, 1000])[:3])
        member.log.pass_by(0, 4)

    member.log.order(expire)
    eventually(lambda: topic.committed[0] == 5, "committed")
    assert {(token.start, token.end) for token in sink.tables} == {(0, 2), (4, 5)}
    assert sorted(sink.record_ids()) == ids
    assert member.service.ledger.as_json()["expired"] == {"messages": 2}


def test_the_first_start_of_a_group_is_committed(topic: FakeTopic, make: Make) -> None:
    """Where a group began is known from then on, also when it dies before its first batch."""
    fill(topic, 0, [0, 1, 2])
    topic.lows[0] = 2
    make(0)
    eventually(lambda: topic.committed.get(0) == 2, "the start committed")


def test_records_without_times_are_delivered(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """A message whose records have no reception time is no special case."""
    batch = flows([1, 2]).select(["record_id", "bytes"])
    topic.append(0, 0, codec.encode(batch).to_pybytes(), codec.headers(2, "test"))
    fill(topic, 0, [1000])
    member = make(0)
    eventually(lambda: topic.committed.get(0) == 1, "committed")
    assert sorted(sink.record_ids()) == [1, 2]
    assert member.counted("end_to_end_seconds", sink="memory") == 0


def test_what_it_does_is_counted(topic: FakeTopic, make: Make) -> None:
    """Consumed, delivered, lag and delay are in the metrics, and the lag of a partition that has gone is not."""
    fill(topic, 0, [0, 1000, 2000])
    member = make(0, clock=FakeClock(5.0))
    eventually(lambda: member.counted("forwarder_lag_messages", sink="memory") == 1, "a lag of the open batch")
    assert member.counted("forwarder_records_consumed_total", sink="memory", partition="0") == 9
    assert member.counted("forwarder_records_delivered_total", sink="memory") == 6
    assert member.counted("forwarder_batches_delivered_total", sink="memory") == 2
    assert member.counted("end_to_end_seconds", sink="memory") == 6
    assert member.counted("forwarder_lag_seconds", sink="memory") == 3.0
    assert member.counted("forwarder_retention_left_seconds", sink="memory") == 3597.0
    member.log.lose([0])
    eventually(lambda: "0" not in str(member.book.snapshot().get("forwarder_lag_seconds")), "no lag any more")


def test_sums_alone_are_counted_by_their_records(topic: FakeTopic, sink: MemorySink, make: Make) -> None:
    """A sink that gets nothing but sums has the delay of each record, and a sum that it refuses is that many dropped."""
    fill(topic, 0, [0, 500, 1000, 2000])
    sink.answers[0] = [Refused("no such column")]
    sums = shape(SHAPE.cut, aggregate=AggregateConfig(keys=("type",)))
    member = make(0, shape=sums, policy=Policy(concurrency=1))
    eventually(lambda: topic.committed.get(0) == 3, "two batches committed")
    assert member.books == {"received": 12, "delivered": 3, "in_flight": 3, "returned": 0, "dropped": 6}
    assert member.counted("forwarder_dead_letters_total", sink="memory", reason="refused") == 6
    assert member.counted("end_to_end_seconds", sink="memory") == 9


A_SECOND = DedupConfig(exact=ExactDedupConfig(window_seconds=1))
SHAPES = [
    shape(CutConfig(interval_ms=interval_ms, max_records=max_records), remembered=40, dedup=A_SECOND)
    for interval_ms, max_records in ((1000, 100), (1000, 4), (350, 12))
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(0, 900), st.integers(0, 9)),
        st.tuples(st.just("again"), st.integers(0, 2), st.integers(0, 900), st.integers(1, 8)),
        st.tuples(st.just("busy"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("move"), st.integers(0, 2)),
        st.tuples(st.just("crash"), st.booleans(), st.sampled_from(SHAPES)),
        st.tuples(st.just("stop"), st.booleans(), st.sampled_from(SHAPES)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_the_backend_has_the_log_once(steps: list[tuple[object, ...]]) -> None:
    """**once**: crashes, stops, rebalances, other settings and a busy backend in any order: delivered is the log, once.

    Messages that were produced twice are in it too, within the window of dedup and beyond it: what is delivered is what
    one reader of the whole log would have found, who never stopped.
    """
    topic, sink = FakeTopic(), MemorySink()
    ids, now = itertools.count(1), 0
    members = [
        Member(topic, sink, shape=SHAPES[0], partitions=(0, 1, 2)),
        Member(topic, sink, shape=SHAPES[0], partitions=()),
    ]
    for member in members:
        member.service.start()
        eventually(lambda member=member: member.logs, "started")  # type: ignore[misc]
    for step in steps:
        match step:
            case ("append", int(partition), int(later), int(records)):
                now += later
                fill(topic, partition, [now], records, ids)
            case ("again", int(partition), int(later), int(back)):
                now += later
                for copied in topic.messages[partition][-back:][:1]:
                    topic.append(partition, now, copied.content, copied.pairs)
            case ("busy", int(partition), int(times)):
                sink.answers[partition] += [Busy(Trouble.AWAY, "is away")] * times
            case ("move", int(partition)):
                _move(members, partition)
            case ("crash" | "stop" as how, bool(first), Shape() as other):
                at = 0 if first else 1
                members[at] = _again(members[at], other, crash=how == "crash")
    for partition in range(3):
        topic.append(partition, now + 2000, *heartbeat())
    eventually(lambda: all(topic.committed.get(one) == topic.end(one) for one in range(3)), "all committed")
    for member in members:
        member.service.stop()
        assert member.service.join(20.0)
        assert member.books["in_flight"] == 0
        assert member.books["received"] == member.books["delivered"] + member.books["dropped"]
    assert sorted(sink.record_ids()) == sorted(itertools.chain.from_iterable(map(_once, topic.messages.values())))


def _once(messages: Sequence[FakeMessage]) -> list[int]:
    """The ids that are left of a partition by a reader of its whole log."""
    rule = SHAPES[0].exact
    assert rule is not None
    exact = ExactDedup(rule, TOPIC_ID)
    left: list[int] = []
    for one in messages:
        decoded = decode_batch([Held(Message(one.offset(), one.append_ms, 0, 0), one.value() or b"")])
        ids, _ = read_ids(decoded.table, decoded.rows)
        keep = exact.push(ids, decoded.runs).keep
        left += (ids if keep is None else ids[keep]).tolist()
    return left


def _move(members: list[Member], partition: int) -> None:
    """Give a partition to the other member."""
    eventually(lambda: any(partition in member.log.ours for member in members), "owned")
    owner, other = members if partition in members[0].log.ours else members[::-1]
    owner.log.revoke([partition])
    eventually(lambda: partition not in owner.log.ours, "revoked")
    other.log.give([partition])
    eventually(lambda: partition in other.log.ours, "assigned")


def _again(member: Member, other: Shape, *, crash: bool) -> Member:
    """End a member, by a crash or in order, and start another with its partitions and a shape of its own."""
    eventually(lambda: not member.log._orders, "orders done")
    ours = sorted(member.log.ours)
    if crash:
        # What it delivers from now on is delivered, but it says nothing to the group any more.
        member.log.mute = True
    member.service.stop()
    assert member.service.join(20.0)
    fresh = Member(member.topic, member.sink, shape=other, partitions=ours)
    fresh.service.start()
    eventually(lambda: fresh.logs and (fresh.log.joined or not ours), "started")
    return fresh
