from __future__ import annotations

import pytest

from forwarder.course import Epoch
from forwarder.replay.kafka import KafkaLog
from forwarder.replay.plan import Leg
from shared.config import KafkaConfig
from tests.forwarder.kafka_client import FakeClient, at, end
from tests.forwarder.records import shape
from tests.forwarder.replay.test_run import CUT


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that the log is read with."""
    client = FakeClient()
    monkeypatch.setattr("forwarder.replay.kafka.consumer", lambda properties: client)
    return client


@pytest.fixture
def log(client: FakeClient) -> KafkaLog:
    """The log of one partition, from its begin on."""
    log = KafkaLog(KafkaConfig(), "flows", "group")
    log.begin([Leg(0, 0, 0, 0, 9, 9, (Epoch(0, shape(CUT)),), exact=True)])
    return log


def read(log: KafkaLog) -> list[int]:
    """The offsets of the next messages."""
    return [message.offset() or 0 for message in log.read(100, 0.1)]


def test_a_partition_that_is_read_again_has_not_ended(client: FakeClient, log: KafkaLog) -> None:
    """What comes behind a gap is asked for once more, and the end that was told behind it is not the end of that."""
    client.polls = [[at(0), at(3), at(4), end()], [at(3), at(4)], [end()]]
    assert read(log) == [0]
    assert client.sought == [(0, 1)]
    assert list(log.ended) == []
    assert read(log) == [3, 4]
    assert list(log.ended) == []
    assert read(log) == []
    assert list(log.ended) == [0]


def test_an_end_that_was_told_before_holds_no_more_when_the_log_goes_on(client: FakeClient, log: KafkaLog) -> None:
    """Neither when messages follow it, nor when they do so behind a gap."""
    client.polls = [[at(0), end()], [at(5), end()], [at(5), end()], [at(6)]]
    assert (read(log), list(log.ended)) == ([0], [0])
    assert (read(log), list(log.ended)) == ([], [])
    assert (read(log), list(log.ended)) == ([5], [0])
    assert (read(log), list(log.ended)) == ([6], [])


def test_what_is_finished_is_not_read(client: FakeClient, log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of a partition that is done with are left alone, and so is its end."""
    monkeypatch.setattr(client, "incremental_unassign", lambda names: None, raising=False)
    log.finish(0)
    client.polls = [[at(0), end()]]
    assert (read(log), list(log.ended)) == ([], [])
