from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from forwarder.config import CutConfig
from forwarder.consumer import (
    CLOSE_SECONDS,
    SLEPT_SECONDS,
    BrokenConsumerError,
    LogConsumer,
    OffsetAboveEndError,
    Partition,
    Place,
    place,
)
from forwarder.course import Course, Epoch, TooManyShapesError
from shared.config import KafkaConfig
from tests.forwarder.kafka_client import Broker, FakeClient, at, end
from tests.forwarder.records import shape

SHAPE = shape(CutConfig(interval_ms=1000, max_records=100))
NOTE = Course([Epoch(0, SHAPE)]).note()


class Listening:
    """Does nothing about partitions that come and go."""

    def assigned(self, partition: Partition, expired: int) -> None:
        """Do nothing."""

    def revoking(self, partitions: Sequence[int]) -> None:
        """Do nothing."""

    def gone(self, partitions: Sequence[int]) -> None:
        """Do nothing."""

    def expired(self, partition: Partition, low: int) -> int:
        """Do nothing."""
        return 0


@pytest.fixture
def broker() -> Broker:
    """A topic of three partitions, which are empty at first."""
    return Broker(highs={0: 0, 1: 0, 2: 0})


@pytest.fixture
def client(broker: Broker) -> FakeClient:
    """The client that the consumer has."""
    return FakeClient(broker)


def hasty(close_seconds: float) -> LogConsumer:
    """A consumer that leaves its group within this time, whoever answers."""
    return LogConsumer(
        KafkaConfig(),
        topic="flows",
        group_id="group",
        client_id="test",
        shape=lambda partitions: SHAPE,
        listener=Listening(),
        close_seconds=close_seconds,
    )


@pytest.fixture
def consumer(broker: Broker, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> LogConsumer:
    """A consumer that has joined its group."""
    monkeypatch.setattr("forwarder.consumer.consumer", lambda properties: client)
    monkeypatch.setattr("forwarder.consumer.admin", lambda config, client_id: broker)
    consumer = hasty(CLOSE_SECONDS)
    consumer.open()
    return consumer


def given(consumer: LogConsumer, client: FakeClient, *numbers: int) -> list[Partition]:
    """Assign partitions, and return them."""
    client.giving = numbers
    assert consumer.poll(100, 0.1) == []
    return [consumer.partitions[number] for number in numbers]


@pytest.mark.parametrize(
    ("committed", "low", "high", "expected"),
    [
        pytest.param(-1001, 0, 100, Place(0, 0), id="a new group begins at the first offset"),
        pytest.param(-1001, 40, 100, Place(40, 0), id="a new group misses nothing that was gone before it"),
        pytest.param(50, 0, 100, Place(50, 0), id="a group goes on where it was"),
        pytest.param(100, 0, 100, Place(100, 0), id="a group that has read all"),
        pytest.param(0, 0, 0, Place(0, 0), id="an empty partition"),
        pytest.param(30, 40, 100, Place(40, 10), id="what expired unread is counted"),
        pytest.param(30, 100, 100, Place(100, 70), id="all of it expired"),
    ],
)
def test_where_a_partition_is_read_from(committed: int, low: int, high: int, expected: Place) -> None:
    """A partition is read from the group's offset; only what the log has no more is skipped, and counted."""
    assert place(committed, low, high, 0) == expected


def test_an_offset_above_the_end_is_an_error() -> None:
    """A log that ends before the group's offset is never taken up again in silence: the message says what to do."""
    with pytest.raises(OffsetAboveEndError, match=r"partition 3 ends at offset 20, but .* up to 21: .*--reset-offsets"):
        place(21, 0, 20, 3)


def test_a_gap_is_asked_for_once_more(consumer: LogConsumer, client: FakeClient) -> None:
    """What comes behind it counts when it comes again, and so does the end."""
    (ours,) = given(consumer, client, 0)
    client.polls = [[at(0), at(3), at(4), end()], [at(3), at(4), end()]]
    assert [message.offset() for message in consumer.poll(100, 0.1)] == [0]
    assert (client.sought, ours.ended) == ([(0, 1)], False)
    assert [message.offset() for message in consumer.poll(100, 0.1)] == [3, 4]
    assert (client.sought, ours.ended) == ([(0, 1)], True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the consumer's clock shows; its polls take no time."""
    now = [1000.0]
    monkeypatch.setattr(
        "forwarder.consumer.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time, time_ns=time.time_ns)
    )
    return now


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
def test_who_slept_past_its_session_hands_over_nothing_that_it_reads_then(
    clock: list[float], consumer: LogConsumer, client: FakeClient, code: int
) -> None:
    """Another member has the partition, may be with other settings: what is read now is not cut as before."""
    given(consumer, client, 0)
    client.polls = [[at(0)], [at(1)]]
    assert [message.offset() for message in consumer.poll(100, 0.1)] == [0]
    clock[0] += SLEPT_SECONDS
    client.refusing = KafkaError(code)
    with pytest.raises(BrokenConsumerError, match="nothing was read for 3 s"):
        consumer.poll(100, 0.1)


@pytest.mark.parametrize("code", [None, KafkaError.REBALANCE_IN_PROGRESS])
def test_who_slept_and_is_still_in_the_group_reads_on(
    clock: list[float], consumer: LogConsumer, client: FakeClient, code: int | None
) -> None:
    """It asks by committing what it has committed before, and once."""
    (ours,) = given(consumer, client, 0)
    client.polls = [[at(0)], [at(1)], [at(2)]]
    consumer.poll(100, 0.1)
    clock[0] += SLEPT_SECONDS
    client.refusing = None if code is None else KafkaError(code)
    assert [message.offset() for message in consumer.poll(100, 0.1)] == [1]
    assert (ours.committed, client.broker.committed[0]) == (0, (0, NOTE))
    client.refusing = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
    assert [message.offset() for message in consumer.poll(100, 0.1)] == [2]


def test_a_partition_that_stands_still_has_not_ended(consumer: LogConsumer, client: FakeClient) -> None:
    """The message that it stands before is there, whether the end is told with it or later."""
    (ours,) = given(consumer, client, 0)
    client.polls = [[at(0), at(1), end()], [end()]]
    consumer.poll(100, 0.1)
    consumer.stop(ours, 1, "nobody knows its schema")
    assert (ours.position, ours.ended, client.paused) == (1, False, {0})
    consumer.poll(100, 0.1)
    assert not ours.ended


def test_a_held_partition_is_fetched_again_only_when_nothing_else_stands_in_the_way(
    consumer: LogConsumer, client: FakeClient
) -> None:
    """Neither what holds one partition, nor what pauses all, nor what stops one for good undoes the other."""
    held, stopped, _ = given(consumer, client, 0, 1, 2)
    consumer.hold(held)
    consumer.hold(stopped)
    consumer.stop(stopped, 0, "for good")
    assert client.paused == {0, 1}
    consumer.pause()
    consumer.resume()
    assert client.paused == {0, 1}
    consumer.pause()
    consumer.release(held)
    assert client.paused == {0, 1, 2}
    consumer.resume()
    consumer.release(stopped)
    assert client.paused == {1}
    consumer.hold(held)
    consumer.release(held)
    assert client.paused == {1}


def test_a_partition_that_comes_back_is_fetched(consumer: LogConsumer, client: FakeClient) -> None:
    """The client keeps it paused from when it went, whyever that was; with everything paused it stays so."""
    held, stopped, _ = given(consumer, client, 0, 1, 2)
    consumer.hold(held)
    consumer.stop(stopped, 0, "for good")
    client.taking = [0, 1]
    given(consumer, client, 0, 1)
    assert client.paused == set()
    consumer.pause()
    client.taking = [0]
    given(consumer, client, 0)
    assert client.paused == {0, 1, 2}
    consumer.resume()
    assert client.paused == set()


def test_where_only_markers_are_left_nothing_is_read_again(
    broker: Broker, consumer: LogConsumer, client: FakeClient
) -> None:
    """Everything before the offset has expired but a transaction's markers: no time is before them, and none is sought."""
    broker.lows, broker.highs = {0: 3}, {0: 9}
    broker.messages = {0: [(8, round(time.time() * 1000) - 3_600_000)]}
    broker.committed = {0: (5, NOTE)}
    (ours,) = given(consumer, client, 0)
    assert ours.position == ours.acknowledged == 5


def test_what_was_delivered_within_the_window_is_read_again(
    broker: Broker, consumer: LogConsumer, client: FakeClient
) -> None:
    """From the first message on that dedup has to know, as far as it is in the log."""
    now_ms = round(time.time() * 1000)
    broker.highs = {0: 10}
    broker.messages = {0: [(number, now_ms - 3_600_000 + number * 120_000) for number in range(10)]}
    broker.committed = {0: (8, NOTE)}
    (ours,) = given(consumer, client, 0)
    assert 0 < ours.position < 8 == ours.acknowledged


@pytest.mark.parametrize(
    ("until", "told"),
    [
        pytest.param("null", True, id="not stopped in order"),
        pytest.param("9", True, id="stopped before it had come to where another crashed"),
        pytest.param("5", False, id="stopped with nothing behind the offset"),
    ],
)
def test_another_version_is_told_where_it_may_have_delivered_more(
    broker: Broker,
    consumer: LogConsumer,
    client: FakeClient,
    caplog: pytest.LogCaptureFixture,
    until: str,
    told: bool,
) -> None:
    """Behind a clean stop that left nothing there is nothing that could be delivered again."""
    broker.highs = {0: 9}
    note = NOTE.replace('"version":1', '"version":99').replace('"until":null', f'"until":{until}')
    broker.committed = {0: (5, note)}
    given(consumer, client, 0)
    assert ("may be delivered again" in caplog.text) == told


def test_nothing_is_read_by_shapes_that_cannot_be_noted(
    broker: Broker, consumer: LogConsumer, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed stays as it is, for whoever puts the settings back."""
    monkeypatch.setattr("forwarder.course.NOTE_BYTES", len(NOTE) + 100)
    broker.highs = {0: 9}
    before = Course([Epoch(0, shape(CutConfig(interval_ms=700)))]).note()
    broker.committed = {0: (5, before)}
    client.giving = [0]
    with pytest.raises(TooManyShapesError, match="Put back"):
        consumer.poll(100, 0.1)
    assert (broker.committed, client.assigned) == ({0: (5, before)}, {})


def test_a_broker_that_stopped_answering_does_not_keep_us_in_the_group(
    broker: Broker, client: FakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving is given up in time, with a word of it, and goes on by itself if the broker comes back."""
    monkeypatch.setattr("forwarder.consumer.consumer", lambda properties: client)
    monkeypatch.setattr("forwarder.consumer.admin", lambda config, client_id: broker)
    consumer = hasty(0.05)
    consumer.open()
    client.answers.clear()
    consumer.close()
    assert "could not leave its group in time" in caplog.text
    assert not client.left.is_set()
    client.answers.set()
    assert client.left.wait(20.0)
