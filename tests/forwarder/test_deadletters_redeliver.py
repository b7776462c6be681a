from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException

from forwarder.__main__ import main
from forwarder.deadletters import Found, Letters, Place, Selection
from forwarder.letters import ORIGIN_END
from forwarder.redelivery import PutBack
from forwarder.replay.report import Lines
from forwarder.sinks.base import Busy, Trouble
from shared import codec
from shared.config import KafkaConfig
from shared.deadletter import DeadLetter
from tests.fakes import MemorySink
from tests.forwarder.records import flows


class Value(bytes):
    """The value of a letter; counts how many there are."""

    alive = 0
    most = 0

    def __new__(cls, value: bytes) -> Self:
        """Count one more."""
        Value.alive += 1
        Value.most = max(Value.most, Value.alive)
        return super().__new__(cls, value)

    def __del__(self) -> None:
        """Count one less."""
        Value.alive -= 1


def of_ingest(offset: int, partition: int = 0) -> Found:
    """A set that waited for its template: it has two records, it says, and 4 bytes."""
    facts = DeadLetter("template_never_came", "ingest", "flows.undecoded", 2, 7, 1)
    return Found(Place(partition, offset), facts, b"k", Value(b"set."), [("records", b"2")])


def of_lake(offset: int, sink: str | None = "lake") -> Found:
    """A record that a sink refused, the offset's."""
    facts = DeadLetter("refused", "forwarder", "flows.records", 1, offset, 1, sink)
    headers = [*codec.headers(1, "forwarder"), (ORIGIN_END, b"%d" % (offset + 1))]
    (batch,) = pa.Table.from_batches([flows(range(offset, offset + 1))]).to_batches()
    return Found(Place(0, offset), facts, None, bytes(codec.encode(batch)), headers)


def of_nobody(offset: int) -> Found:
    """Something else in the topic."""
    return Found(Place(0, offset), None, None, b"abc", [])


@dataclass
class Client:
    """A producer; `failing` are the letters, from 0, that the broker does not take."""

    put: list[str]
    failing: set[int] = field(default_factory=set)
    raising: KafkaException | None = None
    purged: int = 0
    on_put: Callable[[], object] = lambda: None

    def produce(self, topic: str, *_: object, on_delivery: Callable[[object, object], None], **__: object) -> None:
        """Acknowledge it at once."""
        if self.raising is not None:
            raise self.raising
        self.put.append(topic)
        self.on_put()
        on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT) if len(self.put) - 1 in self.failing else None, None)

    def flush(self, seconds: float) -> int:
        """Nothing is left."""
        return 0

    def purge(self) -> None:
        """Give up what is in hand."""
        self.purged += 1


@dataclass
class World:
    """What the command sees: letters in the topic, a sink called lake, and topics that letters are put back to."""

    letters: list[Callable[[], Found]] = field(default_factory=list)
    sink: MemorySink = field(default_factory=MemorySink)
    put: list[str] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    on_put: Callable[[], object] = lambda: None
    read: int = 0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    """One that is empty; the process has its signal handlers again afterwards."""
    world = World()

    def read(letters: Letters, selection: Selection) -> Iterator[Found]:
        letters.topic_id = "dead"
        world.read += 1
        for make in world.letters:
            if selection.takes(one := make()):
                yield one

    def connect(properties: object) -> Client:
        world.clients.append(Client(world.put, on_put=world.on_put))
        return world.clients[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEWAY_FORWARDER__SINKS", json.dumps({"lake": {"type": "parquet", "path": str(tmp_path)}}))
    monkeypatch.setattr(Letters, "read", read)
    monkeypatch.setattr("forwarder.redelivery.producer", connect)
    monkeypatch.setattr("forwarder.sinks.build", lambda settings: world.sink)
    monkeypatch.setattr(world.sink, "close", lambda: None, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield world
    for number, handler in before.items():
        signal.signal(number, handler)


def terminate() -> bool:
    """What a person does, once: a second time would end the tests."""
    os.kill(os.getpid(), signal.SIGTERM)
    return True


@pytest.mark.parametrize("words", [[], ["--stage", "ingest"], ["--reason", "template_never_came"]], ids=" ".join)
def test_what_would_be_decoded_again_is_put_back_only_when_that_is_meant(
    world: World, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing keeps in mind that it was put back before, and twice decoded is twice delivered."""
    world.letters = [lambda: of_ingest(5)]
    assert main(["deadletters", "redeliver", *words]) == 2
    said = capsys.readouterr().err
    assert "1 of these letters are of ingest" in said
    assert "--put-back" in said
    assert world.put == []
    assert main(["deadletters", "redeliver", *words, "--dry-run"]) == 0
    assert "would go back to flows.undecoded" in capsys.readouterr().out
    assert main(["deadletters", "redeliver", *words, "--put-back"]) == 0
    assert world.put == ["flows.undecoded"]


def test_ids_say_what_is_meant(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of ingest that are named are put back; those of the forwarder need no word more."""
    world.letters = [lambda: of_ingest(5)]
    assert main(["deadletters", "redeliver", "--stage", "forwarder"]) == 0
    assert world.put == []
    assert main(["deadletters", "redeliver", "0:5"]) == 0
    assert world.put == ["flows.undecoded"]
    assert "1 of 1 dead letters delivered, 2 records, 4 bytes\n" in capsys.readouterr().out


def test_letters_are_not_kept_and_one_client_puts_them_back(world: World) -> None:
    """However many there are, only the one in hand is in memory, and Kafka sees one producer."""
    world.letters = [lambda offset=offset: of_ingest(offset) for offset in range(50)]  # type: ignore[misc]
    Value.most = Value.alive
    assert main(["deadletters", "redeliver", "--put-back"]) == 0
    assert len(world.put) == 50
    assert Value.most - Value.alive <= 2
    assert len(world.clients) == 1


def test_a_dry_run_counts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each letter, the sums of each way that they would go, and of all."""
    world.letters = [lambda: of_ingest(0), lambda: of_lake(1), lambda: of_lake(2), lambda: of_lake(3, None)]
    world.letters += [lambda: of_nobody(4), lambda: of_ingest(5)]
    size = len(of_lake(1).value)
    assert main(["deadletters", "redeliver", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "0:0 (template_never_came): would go back to flows.undecoded",
        "0:1 (refused): would go to lake",
    ]
    assert lines[6:] == [
        "2 dead letters, 4 records, 8 bytes, would go back to flows.undecoded",
        "1 dead letters, 0 records, 3 bytes, would go nowhere: it is no dead letter of Sluiceway",
        f"1 dead letters, 1 records, {size:,} bytes, would go nowhere: it is of no sink: --into hands it to one",
        f"2 dead letters, 2 records, {2 * size:,} bytes, would go to lake",
        f"6 dead letters, 7 records, {3 * size + 11:,} bytes, in all",
    ]
    assert (world.put, world.sink.tables) == ([], {})


def terminated_at_the_first_delivery(world: World) -> None:
    """Let the signal come while the sink is handed its first letter."""
    deliver = world.sink.deliver

    def deliver_and_stop(*words: Any) -> object:  # noqa: ANN401 - whatever a sink gets
        if not world.sink.tries:
            terminate()
        return deliver(*words)

    world.sink.deliver = deliver_and_stop  # type: ignore[method-assign, assignment]


def test_a_signal_stops_after_the_letter_in_hand(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """What is done is said; the sink knows it by its name, so the same command goes on."""
    world.letters = [lambda: of_lake(0), lambda: of_lake(1), lambda: of_lake(2)]
    terminated_at_the_first_delivery(world)
    assert main(["deadletters", "redeliver"]) == 0
    said = capsys.readouterr().out
    assert world.sink.record_ids() == [0]
    assert "1 of 3 dead letters delivered" in said
    assert "2 dead letters were not tried to their end" in said
    assert "the same command goes on" in said
    assert "--from" not in said


def test_a_signal_ends_the_waiting_for_a_sink(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A sink that is away for good does not keep the command."""
    world.letters = [lambda: of_lake(0), lambda: of_lake(1)]
    world.sink.answers[1] = [Busy(Trouble.AWAY, "is away", retry_after=3600.0)]
    terminated_at_the_first_delivery(world)
    assert main(["deadletters", "redeliver"]) == 0
    said = capsys.readouterr().out
    assert "0:0 (refused): not delivered: is away" in said
    assert "0 of 2 dead letters delivered" in said
    assert world.sink.record_ids() == []


def test_what_was_put_back_is_left_out_by_the_command_that_goes_on(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else tells it from what was not: the command says from where on it goes on, in every partition."""
    world.letters = [lambda: of_ingest(7, 1), lambda: of_ingest(3), lambda: of_ingest(9, 1), lambda: of_ingest(4)]
    world.on_put = lambda: len(world.put) == 2 and terminate()
    assert main(["deadletters", "redeliver", "--put-back"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 dead letters delivered" in said
    assert "--from 0:4,1:8," in said
    world.on_put = lambda: len(world.put) == 3 and terminate()
    assert main(["deadletters", "redeliver", "--put-back", "--from", "0:4,1:8"]) == 0
    assert "--from 0:4,1:10," in capsys.readouterr().out
    assert main(["deadletters", "redeliver", "--put-back", "--from", "0:4,1:10"]) == 0
    assert "1 of 1 dead letters delivered" in capsys.readouterr().out
    assert len(world.put) == 4


def test_what_cannot_be_mended_by_waiting_stops_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was done, and the sink's own words."""
    world.letters = [lambda: of_lake(0), lambda: of_lake(1)]
    world.sink.answers[1] = [Busy(Trouble.FORBIDDEN, "records and their sums in one lake")]
    assert main(["deadletters", "redeliver"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 2 dead letters delivered" in out
    assert "records and their sums in one lake" in err


def test_what_expired_meanwhile_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """It was counted, and is not delivered."""
    once = iter([of_lake(0)])
    world.letters = [lambda: next(once, of_nobody(0)), lambda: of_lake(1)]
    assert main(["deadletters", "redeliver", "--sink", "lake"]) == 1
    said = capsys.readouterr().out
    assert "1 of 2 dead letters delivered" in said
    assert "1 are not in the topic any more" in said


def test_a_rate_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay's pace: it is told each letter's records."""
    spent: list[tuple[float | None, int]] = []

    class Pace:
        seconds_left = 0.0

        def __init__(self, rate: float | None) -> None:
            self._rate = rate

        def spend(self, records: int) -> None:
            spent.append((self._rate, records))

    monkeypatch.setattr("forwarder.replay.run.Pace", Pace)
    world.letters = [lambda: of_lake(0), lambda: of_ingest(1)]
    assert main(["deadletters", "redeliver", "--put-back", "--rate", "50"]) == 0
    assert spent == [(50, 1), (50, 2)]


def test_it_is_told_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of all letters, and the records that were delivered, by the replay's meter."""
    shown: list[tuple[int, int, int]] = []
    monkeypatch.setattr(Lines, "show", lambda self, read, total, tally: shown.append((read, total, tally.delivered)))
    world.letters = [lambda: of_lake(0), lambda: of_nobody(1), lambda: of_lake(2)]
    assert main(["deadletters", "redeliver"]) == 1
    assert shown == [(1, 3, 1), (2, 3, 1), (3, 3, 2)]


def test_a_client_that_failed_is_not_used_again(world: World) -> None:
    """What it has still in hand would go with the next letter, and a broken one takes none."""
    back = PutBack(KafkaConfig())
    assert back.put(of_ingest(0), "flows.undecoded").problem is None
    world.clients[0].raising = KafkaException(KafkaError(KafkaError._FATAL))
    assert "flows.undecoded does not take it" in (back.put(of_ingest(1), "flows.undecoded").problem or "")
    assert world.clients[0].purged == 1
    assert back.put(of_ingest(2), "flows.undecoded").problem is None
    world.clients[1].failing = {2}
    assert back.put(of_ingest(3), "flows.undecoded").problem is not None
    assert len(world.clients) == 2
