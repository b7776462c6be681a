from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError

from forwarder import letters
from forwarder.__main__ import main
from forwarder.cut import Token
from forwarder.deadletters import Found, Letters, Place, Selection, deliver
from forwarder.letters import Letter
from forwarder.sifting import Sifting
from forwarder.sinks.base import Busy, Trouble
from shared import deadletter
from shared.config import KafkaConfig
from shared.deadletter import DeadLetter
from shared.errors import SluicewayError
from tests.fakes import TOPIC_ID, MemorySink
from tests.forwarder.kafka_client import Broker, FakeClient, FakeError, at, end
from tests.forwarder.records import flows

NOT_PUT = Found(Place(0, 5), DeadLetter("template_never_came", "ingest", "flows.undecoded", 2, 7, 1), b"k", b"v", [])


def refused(ids: range, bad: set[int]) -> list[Letter]:
    """The letters of a batch of which a sink refuses some."""
    sink = MemorySink()
    sink.refuses = bad
    token = Token(TOPIC_ID, 1, 10, 20)
    sifting = Sifting(pa.Table.from_batches([flows(ids)]), token)
    sifting.deliver(sink.deliver)
    return list(letters.refused("flows.records", "lake", token, sifting, 1))


def found(letter: Letter, offset: int) -> Found:
    """A letter at an offset of its topic."""
    return Found(Place(0, offset), deadletter.read(letter.headers), None, letter.value, letter.headers)


def never(seconds: float, detail: str) -> None:
    """Nobody is to wait."""
    raise AssertionError(detail)


def test_a_copy_of_a_letter_delivers_nothing_more() -> None:
    """A letter whose acknowledgement was lost is put away again: its records arrive once, and those of others too."""
    sink = MemorySink()
    (letter,) = refused(range(200), {7, 70})
    (other,) = refused(range(200), {8})
    for offset, one in enumerate([letter, other, letter]):
        assert deliver(found(one, offset), sink, "dead", never).problem is None
    assert sorted(sink.record_ids()) == [7, 8, 70]
    assert {(token.topic_id, token.partition, token.start, token.end) for token in sink.tables} == {("dead", 1, 10, 20)}


def test_a_busy_sink_is_waited_for_aloud() -> None:
    """Whoever waits for it is told each time what it says, and how long it will be."""
    sink = MemorySink()
    (letter,) = refused(range(200), {7})
    sink.answers[1] = [Busy(Trouble.FULL, "is full"), Busy(Trouble.AWAY, "is away", retry_after=9.0)]
    waited: list[tuple[float, str]] = []
    outcome = deliver(found(letter, 3), sink, "dead", lambda seconds, detail: waited.append((seconds, detail)))
    assert (outcome.records, outcome.problem) == (1, None)
    assert waited == [(1.0, "is full"), (9.0, "is away")]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that the letters are read with: two partitions, whose ends are no messages."""
    broker = Broker(highs={0: 4, 1: 3})
    client = FakeClient(broker)
    monkeypatch.setattr(
        client, "get_watermark_offsets", lambda name, timeout: (0, broker.highs[name.partition]), raising=False
    )
    monkeypatch.setattr("forwarder.deadletters.consumer", lambda properties: client)
    monkeypatch.setattr("forwarder.deadletters.admin", lambda config, client_id: broker)
    return client


def test_letters_are_read_up_to_the_end_of_each_partition(client: FakeClient) -> None:
    """The end of one partition is not that of another."""
    client.polls = [[at(0), at(1, number=1), end(1)], [at(2), end(0)], [at(3)]]
    read = [one.place for one in Letters(KafkaConfig()).read(Selection())]
    assert read == [Place(0, 0), Place(1, 1), Place(0, 2)]


def test_an_error_is_not_the_end_of_a_partition(client: FakeClient) -> None:
    """Letters behind it would be left out in silence."""
    client.polls = [[at(0), FakeError(0, KafkaError.TOPIC_AUTHORIZATION_FAILED)]]
    with pytest.raises(SluicewayError, match="cannot be read"):
        list(Letters(KafkaConfig()).read(Selection()))


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The topics that letters were put back to; one letter of ingest is all that there is."""
    topics: list[str | None] = []

    def read(letters: Letters, selection: Selection) -> Iterator[Found]:
        return filter(selection.takes, [NOT_PUT])

    client = SimpleNamespace(produce=lambda topic, *_, **__: topics.append(topic), flush=lambda seconds: 0)
    monkeypatch.setattr(Letters, "read", read)
    monkeypatch.setattr("shared.kafka.producer", lambda properties: client)
    return topics


@pytest.mark.parametrize("words", [[], ["--stage", "ingest"], ["--reason", "template_never_came"]], ids=" ".join)
def test_what_would_be_decoded_again_is_put_back_only_when_that_is_meant(
    put_back: list[str | None], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing keeps in mind that it was put back before, and twice decoded is twice delivered."""
    assert main(["deadletters", "redeliver", *words]) == 2
    said = capsys.readouterr().err
    assert "1 of these letters are of ingest" in said
    assert "--put-back" in said
    assert put_back == []
    assert main(["deadletters", "redeliver", *words, "--dry-run"]) == 0
    assert "would go to flows.undecoded" in capsys.readouterr().out
    assert main(["deadletters", "redeliver", *words, "--put-back"]) == 0
    assert put_back == ["flows.undecoded"]


def test_ids_say_what_is_meant(put_back: list[str | None], capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of ingest that are named are put back; those of the forwarder need no word more."""
    assert main(["deadletters", "redeliver", "--stage", "forwarder"]) == 0
    assert put_back == []
    assert main(["deadletters", "redeliver", "0:5"]) == 0
    assert put_back == ["flows.undecoded"]
    assert "1 of 1 dead letters delivered" in capsys.readouterr().out
