from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from forwarder.cut import Token
from forwarder.delivery import Delivery, Finished, Parcel, Policy
from forwarder.letters import Letter
from forwarder.sinks.base import Busy, Done, Refused, TooLarge, Trouble
from shared import codec
from shared.deadletter import DeadLetter
from shared.deadletter import read as read_letter
from shared.log import Throttle
from shared.metrics import Book, total
from tests.fakes import TOPIC_ID, FakeLetterbox, MemorySink
from tests.forwarder.records import eventually, flows

QUICK = Policy(concurrency=3, base_seconds=0.001, cap_seconds=0.002)
Make = Callable[..., Delivery]


@pytest.fixture
def sink() -> MemorySink:
    """A backend that takes everything."""
    return MemorySink()


@pytest.fixture
def book() -> Book:
    """What is counted."""
    return Book()


@pytest.fixture
def letterbox() -> FakeLetterbox:
    """Where dead letters go."""
    return FakeLetterbox()


@pytest.fixture
def make(sink: MemorySink, book: Book, letterbox: FakeLetterbox) -> Iterator[Make]:
    """Makes deliveries that have started, and closes them."""
    made: list[Delivery] = []

    def start(policy: Policy = QUICK, jitter: Callable[[], float] = lambda: 1.0) -> Delivery:
        delivery = Delivery(
            sink,
            policy,
            name="memory",
            topic="flows.records",
            letterbox=letterbox,
            book=book,
            throttle=Throttle(),
            jitter=jitter,
            now_ms=lambda: 1234,
        )
        delivery.start()
        made.append(delivery)
        return delivery

    yield start
    sink.gate.set()
    for delivery in made:
        delivery.close(10.0)


def parcel(partition: int, start: int, records: int = 2) -> Parcel:
    """A batch of two messages' offsets."""
    table = pa.Table.from_batches([flows(range(start, start + records))])
    return Parcel(Token(TOPIC_ID, partition, start, start + 2), table)


def finish(delivery: Delivery, count: int) -> list[Finished]:
    """Wait until so many have finished."""
    finished: list[Finished] = []

    def enough() -> bool:
        finished.extend(delivery.take_finished())
        return len(finished) >= count

    eventually(enough, f"{count} finished")
    return finished


def test_what_is_submitted_is_delivered_and_told_once(make: Make, sink: MemorySink) -> None:
    """Every batch of every partition is handed over one time, and is told."""
    delivery = make()
    for start in range(0, 20, 2):
        for partition in range(3):
            delivery.submit(parcel(partition, start))
    finished = finish(delivery, 30)
    assert len({one.parcel.token for one in finished}) == len(sink.tables) == len(sink.tries) == 30


def test_batches_of_one_partition_are_in_flight_together(make: Make, sink: MemorySink) -> None:
    """As many batches as the policy allows are with the sink at a time, though all are of one partition."""
    sink.gate.clear()
    delivery = make(Policy(concurrency=3))
    for start in range(0, 10, 2):
        delivery.submit(parcel(0, start))
    eventually(lambda: len(sink.running) == 3, "three in hand")
    assert {token.start for token in sink.running} == {0, 2, 4}
    sink.gate.set()
    finish(delivery, 5)
    assert sink.most_running == {0: 3}


def test_a_batch_that_fails_does_not_hold_up_those_behind_it(make: Make, sink: MemorySink) -> None:
    """While the first batch of a partition is tried again and again, the ones after it are delivered."""
    sink.answers[0] = [Busy(Trouble.AWAY, "is away", retry_after=0.3)]
    delivery = make(Policy(concurrency=1, base_seconds=0.0))
    for start in (0, 2, 4):
        delivery.submit(parcel(0, start))
    assert [one.parcel.token.start for one in finish(delivery, 3)] == [2, 4, 0]


def test_partitions_do_not_wait_for_each_other(make: Make, sink: MemorySink) -> None:
    """While one partition's batch is tried again and again, the others are delivered."""
    sink.answers[0] = [Busy(Trouble.AWAY, "is away")] * 200
    delivery = make()
    delivery.submit(parcel(0, 0))
    for start in (0, 2, 4):
        delivery.submit(parcel(1, start))
    told = [one.parcel.token.partition for one in finish(delivery, 4)]
    assert told == [1, 1, 1, 0]


def test_a_busy_sink_is_tried_again_until_it_takes_the_batch(make: Make, sink: MemorySink, book: Book) -> None:
    """Busy never gives up; each failure and each retry is counted by its reason, and nothing else waits in between."""
    sink.answers[0] = [Busy(Trouble.FULL, "is full")] * 25
    delivery = make()
    delivery.submit(parcel(0, 0))
    assert [type(one.outcome) for one in finish(delivery, 1)] == [Done]
    snapshot = book.snapshot()
    assert total(snapshot, "forwarder_delivery_errors_total", sink="memory", reason="full") == 25
    assert total(snapshot, "forwarder_retries_total", sink="memory", reason="full") == 25
    assert total(snapshot, "forwarder_delivery_seconds", sink="memory") == 1
    assert delivery.trouble is None


def test_an_exception_of_a_sink_is_a_retry(make: Make, sink: MemorySink, book: Book) -> None:
    """A sink that raises what it should have told loses nothing and ends no thread."""
    sink.answers[0] = [ZeroDivisionError("a defect")] * 10
    delivery = make(Policy(concurrency=1, base_seconds=0.0))
    delivery.submit(parcel(0, 0))
    assert [type(one.outcome) for one in finish(delivery, 1)] == [Done]
    assert total(book.snapshot(), "forwarder_retries_total", sink="memory", reason="unexpected") == 10


@pytest.mark.parametrize(
    ("outcome", "reason"), [(Refused("bad column"), "refused"), (TooLarge("over 1 MB"), "too_large")], ids=str
)
def test_a_refusal_is_told_and_not_tried_again(
    make: Make, sink: MemorySink, book: Book, outcome: Refused | TooLarge, reason: str
) -> None:
    """What the sink will never take is finished with its reason when it is known to be no single bad record."""
    # The batch, its first record, and its second one: more than one of two is too many to give up.
    sink.answers[0] = [outcome] * 3
    delivery = make()
    delivery.submit(parcel(0, 0))
    (finished,) = finish(delivery, 1)
    assert type(finished.outcome) is type(outcome)
    assert outcome.detail in finished.outcome.detail
    assert len(sink.tries) == 3
    assert total(book.snapshot(), "forwarder_delivery_errors_total", sink="memory", reason=reason) == 1


def test_a_bad_record_becomes_a_dead_letter_and_the_rest_is_delivered(
    make: Make, sink: MemorySink, book: Book, letterbox: FakeLetterbox
) -> None:
    """The letter has the record, why and where; the batch is done when it is put away, and not before."""
    sink.refuses = {7}
    letterbox.troubles = ["no broker answers"] * 3
    delivery = make()
    delivery.submit(parcel(0, 0, records=10))
    (finished,) = finish(delivery, 1)
    assert finished.outcome == Done()
    assert finished.refused == {"refused": 1}
    assert sorted(sink.record_ids()) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    (letter,) = letterbox.letters
    told = read_letter(letter.headers)
    assert told == DeadLetter("refused", "forwarder", "flows.records", 0, 0, 1234, "memory")
    assert dict(letter.headers)["detail"] == b"no such record"
    assert dict(letter.headers)["origin-end"] == b"2"
    assert codec.decode(letter.value)["record_id"].to_pylist() == [7]
    snapshot = book.snapshot()
    assert total(snapshot, "forwarder_dead_letters_total", sink="memory", reason="refused") == 1
    assert total(snapshot, "forwarder_retries_total", sink="memory", reason="dead_letters") == 3


@pytest.mark.parametrize(
    ("records", "refused"), [(0, {"refused": 7}), (9, {})], ids=["sums alone", "sums beside their records"]
)
def test_a_refused_sum_counts_as_what_was_added_up(
    make: Make, sink: MemorySink, book: Book, letterbox: FakeLetterbox, records: int, refused: dict[str, int]
) -> None:
    """The dead letters count its records; they are lost to the sink only where it does not get them as they are."""
    table = pa.Table.from_batches([flows(range(records))])
    sums = pa.table({"src_as": [64500], "records": pa.array([7], pa.uint64())})
    # The batch whole, its records, and then the one row of sums.
    sink.answers[0] = [Refused("bad"), Done(), Refused("bad")] if records else [Refused("bad")]
    delivery = make()
    delivery.submit(Parcel(Token(TOPIC_ID, 0, 0, 2), table, sums))
    (finished,) = finish(delivery, 1)
    assert (finished.outcome, finished.refused) == (Done(), refused)
    assert len(sink.record_ids()) == records
    assert len(letterbox.letters) == 1
    assert total(book.snapshot(), "forwarder_dead_letters_total", sink="memory", reason="refused") == 7


def test_what_cannot_be_decoded_is_put_away_as_it_came(make: Make, letterbox: FakeLetterbox, sink: MemorySink) -> None:
    """A batch of nothing else asks nothing of the sink."""
    facts = DeadLetter("corrupt", "forwarder", "flows.records", 0, 5, 1234, "memory")
    letter = Letter(b"garbage", facts.headers([("schema", b"1")]), "corrupt", 33)
    delivery = make()
    delivery.submit(Parcel(Token(TOPIC_ID, 0, 5, 6), pa.table({}), letters=(letter,)))
    (finished,) = finish(delivery, 1)
    assert finished.refused == {}
    assert letterbox.letters == [letter]
    assert sink.tries == []


@pytest.mark.parametrize(
    ("failures", "jitter", "seconds"),
    [(0, 1.0, 0.2), (1, 1.0, 0.4), (5, 1.0, 6.4), (5, 0.5, 3.2), (8, 1.0, 30.0), (10**6, 1.0, 30.0), (3, 0.0, 0.0)],
)
def test_delays_double_up_to_the_cap_with_full_jitter(failures: int, jitter: float, seconds: float) -> None:
    """The delay is drawn from 0 to the base doubled by each failure, and is never over the cap."""
    assert Policy(base_seconds=0.2, cap_seconds=30.0).delay(failures, jitter) == pytest.approx(seconds)


def test_the_first_try_after_a_success_begins_with_the_base_again(make: Make, sink: MemorySink) -> None:
    """Failures of one batch do not slow down the tries of the next."""
    away = Busy(Trouble.AWAY, "is away")
    sink.answers[0] = [*[away] * 12, Done(), away]
    delivery = make(Policy(concurrency=1, base_seconds=0.0001, cap_seconds=3600.0))
    for start in (0, 2):
        delivery.submit(parcel(0, start))
    finish(delivery, 2)
    assert len(sink.tries) == 15


def test_retry_after_is_obeyed(make: Make, sink: MemorySink) -> None:
    """A batch is not tried again before the time that the backend asked for, whatever the jitter says."""
    sink.answers[0] = [Busy(Trouble.AWAY, "is away", retry_after=3600.0)]
    delivery = make(jitter=lambda: 0.0)
    delivery.submit(parcel(0, 0))
    delivery.submit(parcel(1, 0))
    finish(delivery, 1)
    eventually(lambda: delivery.trouble is not None or len(sink.tries) >= 2, "both tried")
    delivery.submit(parcel(1, 2))
    finish(delivery, 1)
    assert [token.partition for token in sink.tries].count(0) == 1
    assert delivery.in_flight() == {0: 1}


def test_room_is_bounded_in_records_bytes_and_batches(make: Make, sink: MemorySink) -> None:
    """There is no room while as many records, bytes or batches wait as may, and there is when they are delivered."""
    sink.gate.clear()
    by_records = make(Policy(max_queued_records=4))
    by_bytes = make(Policy(max_queued_bytes=2 * parcel(0, 0).size))
    by_batches = make(Policy(max_queued_batches=2))
    for delivery in (by_records, by_bytes, by_batches):
        assert delivery.has_room
        delivery.submit(parcel(0, 0))
        assert delivery.has_room
        delivery.submit(parcel(0, 2))
        assert not delivery.has_room
    sink.gate.set()
    for delivery in (by_records, by_bytes, by_batches):
        finish(delivery, 2)
        assert delivery.has_room
        assert delivery.status().batches == delivery.status().records == delivery.status().bytes == 0


def test_forgotten_batches_are_not_told(make: Make, sink: MemorySink) -> None:
    """What is forgotten is neither delivered nor told, save what a thread has in hand, which is not told."""
    sink.gate.clear()
    delivery = make(Policy(concurrency=1))
    for start in (0, 2, 4):
        delivery.submit(parcel(0, start))
    eventually(lambda: sink.running, "one in hand")
    delivery.forget([0])
    assert delivery.in_flight() == {}
    assert delivery.status().records == 0
    delivery.submit(parcel(0, 10))
    sink.gate.set()
    assert [one.parcel.token.start for one in finish(delivery, 1)] == [10]
    assert [token.start for token in sink.tries] == [0, 10]


def test_what_waits_can_be_forgotten_alone(make: Make, sink: MemorySink) -> None:
    """Of a partition that is about to go, what is in hand is finished and told, and what waits is dropped."""
    sink.gate.clear()
    delivery = make(Policy(concurrency=1))
    for start in (0, 2, 4):
        delivery.submit(parcel(0, start))
    eventually(lambda: sink.running, "one in hand")
    delivery.forget_waiting([0, 7])
    assert delivery.in_flight() == {0: 1}
    sink.gate.set()
    assert [one.parcel.token.start for one in finish(delivery, 1)] == [0]
    assert len(sink.tries) == 1


def test_close_does_not_wait_for_ever(make: Make, sink: MemorySink) -> None:
    """A sink that hangs does not keep us from ending."""
    sink.gate.clear()
    delivery = make(Policy(concurrency=1))
    delivery.submit(parcel(0, 0))
    eventually(lambda: sink.running, "one in hand")
    delivery.close(0.01)
    assert sink.running
