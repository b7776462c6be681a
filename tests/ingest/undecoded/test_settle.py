"""What comes of a chunk is in Kafka, all of it, or the chunk is read again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pyarrow as pa
import pytest

from ingest.decoders import columns
from ingest.ledger import balances, ledger
from ingest.outbox import MessageBounds
from ingest.refusal import Refusal
from ingest.undecoded import message
from ingest.undecoded.chunk import GivenUp, Reason, Rest
from ingest.undecoded.outgoing import Letter, Settled, Tally
from ingest.undecoded.settle import Settler, SettlingFailed
from shared import codec, deadletter
from shared.config import KafkaConfig
from shared.metrics import Book, total
from tests.ingest.undecoded.made import PRODUCER, read, waiting

RECORDS, UNDECODED, DEADLETTER = "dc1.flows.records", "dc1.flows.undecoded", "dc1.flows.deadletter"


class MemoryPost:
    """Takes messages, and acknowledges or refuses them when they are waited for.

    Those of the topics in ``silent`` are never answered. Counts as the real one does.
    """

    def __init__(self, tally: Tally) -> None:
        self.sent: list[Letter] = []
        self.refuse: Mapping[str, Refusal] = {}
        self.silent: Collection[str] = ()
        self._tally = tally
        self._waiting: list[tuple[Letter, Settled]] = []

    @property
    def messages(self) -> int:
        """Those that are not answered."""
        return len(self._waiting)

    def put(self, letter: Letter, settled: Settled, deadline: float) -> None:
        """Take a message."""
        self.sent.append(letter)
        self._waiting.append((letter, settled))

    def flush(self, deadline: float, alive: Callable[[], None]) -> None:
        """Answer."""
        waiting, self._waiting = self._waiting, []
        for letter, settled in waiting:
            if letter.topic in self.silent:
                self._waiting.append((letter, settled))
                continue
            refusal = self.refuse.get(letter.topic)
            if refusal is None:
                self._tally.add("kafka_produced_records_total", letter.rows, topic=letter.topic)
            settled(refusal)
        alive()

    def give_up(self) -> None:
        """Refuse what was not answered."""
        waiting, self._waiting = self._waiting, []
        for _, settled in waiting:
            settled(Refusal.NOT_ACKNOWLEDGED)


class Settling:
    """A settler, what it sent, and its books."""

    def __init__(self) -> None:
        tally = Tally()
        self.book = Book()
        self.post = MemoryPost(tally)
        config = KafkaConfig(topic_prefix="dc1.")
        self.labelled: list[str] = []
        self.settler = Settler(config, PRODUCER, MessageBounds(), self._label, tally, self.post)
        self.settler.partitions = 4

    def _label(self, protocol: str) -> str:
        self.labelled.append(protocol)
        return protocol.lower()

    def settle(self, batches: list[pa.RecordBatch], rest: Rest, sets: int) -> int:
        """Settle a chunk of partition 3."""
        return self.settler.settle(3, batches, rest, sets, lambda: None)

    def sent(self, topic: str) -> list[Letter]:
        """What was sent to a topic."""
        return [letter for letter in self.post.sent if letter.topic == topic]

    def ledger(self) -> dict[str, Any]:
        """The books, which balance."""
        self.settler.tally.enter(self.book)
        books = ledger(self.book.snapshot())
        assert balances(books), books
        return dict(books)


@pytest.fixture
def settling() -> Settling:
    """A settler whose messages go nowhere."""
    return Settling()


def flows(count: int) -> pa.RecordBatch:
    """Records without addresses."""
    return pa.record_batch(
        {"type": columns.constant_name("NETFLOW_V9", count), "record_id": pa.array(range(count), pa.uint64())}
    )


def old(rows: int, reason: Reason = Reason.TEMPLATE_NEVER_CAME) -> GivenUp:
    """A message that is given up."""
    one = read(waiting(*[b"abc"] * rows, received_ns=5_000_000_000), offset=17)
    return GivenUp(one, one.value, rows, reason, 5_000_000_000)


def test_records_are_counted_by_the_column(settling: Settling) -> None:
    """Of a message with thousands of records each protocol is looked up once."""
    settling.settler.partitions = 1
    settling.settle([flows(900)], Rest(decoded=1), sets=1)
    settling.settler.tally.enter(settling.book)
    assert total(settling.book.snapshot(), "ingest_records_decoded_total", protocol="netflow_v9") == 900
    assert settling.labelled == ["NETFLOW_V9"]


def test_everything_goes_to_its_topic(settling: Settling) -> None:
    """Records by their partition, what waits back to the partition that it came from, dead letters by their key."""
    again = waiting(b"ab", b"cd")
    as_it_is = read(waiting(b"ef"), headers=[("schema", b"2"), ("first-parked", b"7")])
    rest = Rest(decoded=2, again=[again], as_it_is=[as_it_is], given_up=[old(3)])
    assert settling.settle([flows(10), flows(5)], rest, 8) == 2

    records = settling.sent(RECORDS)
    assert sum(letter.rows for letter in records) == 15
    assert all(0 <= letter.partition < 4 and letter.key is None for letter in records)
    assert all(letter.headers == codec.headers(letter.rows, PRODUCER) for letter in records)
    first, second = settling.sent(UNDECODED)
    assert (first.partition, first.key, first.rows) == (3, b"192.0.2.100", 2)
    assert first.headers == message.headers(again, PRODUCER)
    assert (second.partition, second.value, second.key) == (3, as_it_is.value, as_it_is.key)
    assert dict(second.headers) == {"schema": b"2", "first-parked": b"7"}
    (dead,) = settling.sent(DEADLETTER)
    assert dead.value == old(3).value
    assert deadletter.read(dead.headers) == deadletter.DeadLetter(
        "template_never_came", "ingest", UNDECODED, partition=3, offset=17, first_failure_ms=5000
    )
    assert codec.read_headers(dead.headers).records == 3


def test_all_of_it_is_in_the_books(settling: Settling) -> None:
    """Records as decoded and delivered, sets by what became of them, in an account of their own."""
    rest = Rest(decoded=2, again=[waiting(b"ab", b"cd")], given_up=[old(3), old(4, Reason.CORRUPT)])
    settling.settle([flows(10)], rest, 11)
    books = settling.ledger()
    assert books["received"]["records"] == books["delivered"]["records"] == 10
    assert books["undecoded"] == {
        "received": 11,
        "decoded": 2,
        "appended": 2,
        "dropped": {"template_never_came": 3, "corrupt": 4},
        "in_flight": 0,
    }
    assert books["dropped"]["sets"] == {"template_never_came": 3, "corrupt": 4}
    assert settling.book.snapshot()["ingest_undecoded_expired_total"] == {(): 3}


def test_nothing_is_in_the_books_before_all_is(settling: Settling) -> None:
    """Whoever takes a snapshot meanwhile sees books that balance."""
    seen: list[dict[str, Any]] = []
    settling.settler.settle(
        3, [flows(10)], Rest(decoded=1, again=[waiting(b"ab")]), 2, lambda: seen.append(settling.ledger())
    )
    assert [books["received"]["records"] for books in seen] == [0, 0]
    assert settling.ledger()["received"]["records"] == 10


@pytest.mark.parametrize("topic", [RECORDS, UNDECODED, DEADLETTER])
@pytest.mark.parametrize("answered", [True, False], ids=["refused", "not answered"])
def test_what_kafka_does_not_take_is_settled_again_later(settling: Settling, topic: str, answered: bool) -> None:
    """The chunk fails as a whole: its sets are not counted, and its offset is not to be committed."""
    if answered:
        settling.post.refuse = {topic: Refusal.NOT_AUTHORIZED}
    else:
        settling.post.silent = {topic}
    rest = Rest(decoded=1, again=[waiting(b"ab")], given_up=[old(2)])
    with pytest.raises(SettlingFailed, match="not_authorized" if answered else "not_acknowledged"):
        settling.settle([flows(10)], rest, 4)
    books = settling.ledger()
    # Records are produced when all else is acknowledged, so that they are not produced again and again.
    assert books["received"]["records"] == books["delivered"]["records"] == 0
    assert bool(settling.sent(RECORDS)) == (topic == RECORDS)
    assert books["undecoded"]["received"] == 0

    settling.post.refuse, settling.post.silent = {}, ()
    settling.settle([flows(10)], rest, 4)
    books = settling.ledger()
    assert books["undecoded"] == {
        "received": 4,
        "decoded": 1,
        "appended": 1,
        "dropped": {"template_never_came": 2},
        "in_flight": 0,
    }


@pytest.mark.parametrize("topic", [RECORDS, UNDECODED, DEADLETTER])
def test_what_is_too_large_for_kafka_does_not_come_again_for_ever(settling: Settling, topic: str) -> None:
    """It is dropped and counted: it would be refused each time."""
    settling.post.refuse = {topic: Refusal.TOO_LARGE}
    settling.settle([flows(10)], Rest(decoded=1, again=[waiting(b"ab")], given_up=[old(2)]), 4)
    books = settling.ledger()
    dropped = {RECORDS: {"template_never_came": 2}, UNDECODED: {"too_large": 1, "template_never_came": 2}}
    assert books["undecoded"]["dropped"] == dropped.get(topic, {"too_large": 2})
    assert books["dropped"]["records"] == ({"too_large": 10} if topic == RECORDS else {})


def test_a_message_alone_can_be_given_up(settling: Settling) -> None:
    """One that breaks decoding: nothing comes of it but a dead letter."""
    settling.settler.give_up_message(old(3, Reason.UNDECODABLE), lambda: None)
    (dead,) = settling.sent(DEADLETTER)
    assert deadletter.read(dead.headers).reason == "undecodable"
    books = settling.ledger()
    assert (books["undecoded"]["received"], books["undecoded"]["dropped"]) == (3, {"undecodable": 3})
