from __future__ import annotations

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError

from forwarder import letters
from forwarder.cut import Token
from forwarder.deadletters import Found, Letters, Place, Selection, deliver
from forwarder.letters import Letter
from forwarder.sifting import Sifting
from forwarder.sinks.base import Busy, Trouble
from shared import deadletter
from shared.config import KafkaConfig
from shared.errors import SluicewayError
from tests.fakes import TOPIC_ID, MemorySink
from tests.forwarder.kafka_client import Broker, FakeClient, FakeError, at, end
from tests.forwarder.records import flows


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


def test_a_sink_that_does_not_let_a_letter_in_is_not_waited_for() -> None:
    """Time does not mend it: whoever can is told the cause."""
    sink = MemorySink()
    (letter,) = refused(range(200), {7})
    sink.answers[1] = [Busy(Trouble.FORBIDDEN, "records and their sums in one lake")]
    with pytest.raises(SluicewayError, match=r"dead letter 0:3 in.*records and their sums in one lake"):
        deliver(found(letter, 3), sink, "dead", never)
    assert len(sink.tries) == 1


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


def test_read_again_it_ends_where_it_ended(client: FakeClient) -> None:
    """What comes between the two readings was not counted, and nobody was asked whether it is meant."""
    reader = Letters(KafkaConfig())
    client.polls = [[at(0), end(0), end(1)]]
    assert len(list(reader.read(Selection()))) == 1
    client.broker.highs = {0: 9, 1: 9, 2: 1}
    client.polls = [[at(0), at(3), at(2, number=1), at(4)], [at(5), at(0, number=2)]]
    assert [one.place for one in reader.read(Selection())] == [Place(0, 0), Place(0, 3), Place(1, 2)]
    client.polls = [[at(7), at(2, number=1)]]
    assert [one.place for one in reader.read(Selection())] == [Place(1, 2)], "0 to 3 have gone meanwhile"


def test_reading_ends_when_it_is_to_stop(client: FakeClient) -> None:
    """Though nothing comes that is meant."""
    reader = Letters(KafkaConfig())
    reader.stopping.set()
    client.polls = [[at(0)]]
    assert list(reader.read(Selection())) == []


def test_a_selection_may_begin_later() -> None:
    """In the partitions that are named, and in no other."""
    selection = Selection(begin={0: 6})
    letters = [Found(Place(*place), None, None, b"", []) for place in [(0, 5), (0, 6), (1, 0)]]
    assert [selection.takes(one) for one in letters] == [False, True, True]


@pytest.mark.parametrize(("value", "records"), [(b"33", 33), ("²".encode(), None), (b"9" * 5000, None), (b"", None)])
def test_a_count_that_is_none_is_none(value: bytes, records: int | None) -> None:
    """A header is what somebody wrote."""
    assert Found(Place(0, 0), None, None, b"", [("records", value)]).records == records


def test_an_error_is_not_the_end_of_a_partition(client: FakeClient) -> None:
    """Letters behind it would be left out in silence."""
    client.polls = [[at(0), FakeError(0, KafkaError.TOPIC_AUTHORIZATION_FAILED)]]
    with pytest.raises(SluicewayError, match="cannot be read"):
        list(Letters(KafkaConfig()).read(Selection()))
