from __future__ import annotations

import dataclasses
import multiprocessing
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.control import (
    FACTS_AT_ONCE,
    MOST_QUEUED,
    MOST_RECEIVED,
    MOST_RECEIVED_BYTES,
    TEMPLATES_AT_ONCE,
    Channel,
    Facts,
    Forget,
    LogLevel,
    Message,
    Observed,
    Partitions,
    Ready,
    Report,
    Reported,
    Sampled,
    Settled,
    Stop,
    Templates,
    Told,
    Used,
    Words,
    told_in_parts,
)
from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.headers import Heard
from ingest.decoders.layout import Field, Layout, Template
from ingest.decoders.templates import Word
from ingest.statistics import Reading
from shared.metrics import Book
from tests.ingest.sampled import COUNTERS, Sample, gathered

PATIENCE_SECONDS = 20.0
LARGE = LogLevel("x" * (1 << 20))
"""More than a pipe holds: whoever sends this waits for the reader."""

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends, not started."""
    ours, theirs = multiprocessing.Pipe()
    ends = (Channel(ours), Channel(theirs))
    yield ends
    for end in ends:
        end.close()


def taken(channel: Channel, count: int) -> list[Message]:
    """So many messages, as they come."""
    found: list[Message] = []

    def enough() -> bool:
        found.extend(channel.take())
        return len(found) >= count

    until(enough, f"{count} messages")
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what} in time"
        time.sleep(0.001)


def readable(channel: Channel, seconds: float) -> bool:
    """Whether an event loop that waits for it is woken by then."""
    poll = select.poll()
    poll.register(channel.descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def an_observation() -> Observed:
    """What a worker heard in one datagram."""
    one = np.ones(1, np.uint32)
    return Observed(
        (Heard(10, np.zeros((1, 16), np.uint8), one, one, one, one > 0, one, one, None, np.ones(1, np.int64)),)
    )


def a_report(*, last: bool = False) -> Report:
    """What a worker has counted."""
    book = Book()
    book.add("ingest_records_decoded_total", 5, protocol="v9")
    book.observe("ingest_decode_seconds", 0.01)
    return Report(book.snapshot(), last)


TEMPLATE = Template(256, Layout(9, (Field(0, 1, 4),), False, 0), 12)
FACTS = (
    Fact(Kind.INTERFACE_NAME, bytes(16), 0, 0, 3, "Te0/3"),
    Fact(Kind.INTERFACE_NAME, bytes(16), 0, 0, 4, "Te0/4"),
    Fact(Kind.APPLICATION_NAME, bytes(16), 0, 0, "3:80", "http"),
    Fact(Kind.SAMPLER_RATE, bytes(16), 9, 5, 1, 1000),
    Fact(Kind.INTERFACE_NAME, bytes(16), 0, 0, 5, "Te0/5"),
)
MESSAGES = [
    pytest.param(Ready(), id="ready"),
    pytest.param(a_report(), id="a report"),
    pytest.param(Templates(((bytes(24), TEMPLATE),)), id="templates"),
    pytest.param(Words((Word(bytes(24), TEMPLATE, True, 7, None, 1, 2),)), id="words"),
    pytest.param(Facts(FACTS), id="facts"),
    pytest.param(Facts(()), id="no facts"),
    pytest.param(Told(), id="all was told"),
    pytest.param(Used(bytes(48)), id="templates in use"),
    pytest.param(Settled((bytes(24),)), id="settled templates"),
    pytest.param(Forget((bytes(24),)), id="templates to forget"),
    pytest.param(Partitions(12), id="partitions"),
    pytest.param(LogLevel("debug"), id="a log level"),
    pytest.param(Stop(), id="stop"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_sent_arrives_as_it_was(pair: Pair, message: Message) -> None:
    """Each kind of message comes out equal, in either direction."""
    for end in pair:
        end.start()
    for sender, receiver in (pair, pair[::-1]):
        sender.send(message)
        assert taken(receiver, 1) == [message]


def test_observations_arrive_as_they_were(pair: Pair) -> None:
    """Arrays cross the pipe with their types and values."""
    for end in pair:
        end.start()
    sent = an_observation()
    pair[0].send(sent)
    (came,) = taken(pair[1], 1)
    assert isinstance(came, Observed)
    (before,), (after,) = sent.heard, came.heard
    for name in Heard.__slots__:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), strict=name != "version")


def test_what_samples_and_options_told_arrives_as_it_was(pair: Pair) -> None:
    """The numbers of samples, and what exporters report of themselves."""
    for end in pair:
        end.start()
    samples = gathered([Sample(1, drops=7), Sample(2, kind=COUNTERS, agent="2001:db8::1")])
    reading = Reading(bytes(16), 10, 0, "system 1", 0, "exported_octets", 2**63, 8, 1)
    pair[0].send(Sampled(samples))
    pair[0].send(Reported((reading,)))
    came, reported = taken(pair[1], 2)
    assert reported == Reported((reading,))
    assert isinstance(came, Sampled)
    for before, after in ((samples.sources, came.samples.sources), (samples.blocks, came.samples.blocks)):
        for field in dataclasses.fields(before):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name), strict=True)


def test_messages_arrive_in_their_order(pair: Pair) -> None:
    """Thousands of messages of all sizes, both ways at once, each in the order in which they were sent."""
    numbers = [Partitions(number) for number in range(3000)]
    for end in pair:
        end.start()
        end.send(LARGE)
        for number in numbers:
            end.send(number)
        end.send(LARGE)
    for end in pair:
        assert taken(end, len(numbers) + 2) == [LARGE, *numbers, LARGE]


def test_messages_may_be_taken_one_by_one(pair: Pair) -> None:
    """What is left is for the next time, and whoever waits for it is woken."""
    for end in pair:
        end.start()
    for number in range(3):
        pair[0].send(Partitions(number))
    until(lambda: len(pair[1]._incoming) == 3, "all three")
    for number in range(3):
        assert readable(pair[1], 0.0)
        assert pair[1].take(1) == [Partitions(number)]
    assert not readable(pair[1], 0.0)
    assert pair[1].take(1) == []


def test_much_is_told_in_parts() -> None:
    """None of them keeps a worker from its sockets for long; nothing is left out, and all stays in its order."""
    templates = [(number.to_bytes(24), TEMPLATE) for number in range(TEMPLATES_AT_ONCE + 5)]
    facts = [Fact(Kind.VRF_NAME, bytes(16), 0, 0, number, "x") for number in range(2 * FACTS_AT_ONCE)]
    told = list(told_in_parts(templates, facts))
    assert [len(one.templates if isinstance(one, Templates) else one.facts) for one in told] == [
        TEMPLATES_AT_ONCE,
        5,
        FACTS_AT_ONCE,
        FACTS_AT_ONCE,
    ]
    assert [fact for one in told if isinstance(one, Facts) for fact in one.facts] == facts
    assert list(told_in_parts([], [])) == []


def test_what_was_sent_before_the_start_is_not_lost(pair: Pair) -> None:
    """A supervisor has things to say to a worker that is not there yet."""
    pair[0].send(Partitions(3))
    pair[0].start()
    pair[1].start()
    assert taken(pair[1], 1) == [Partitions(3)]


def test_the_descriptor_is_readable_while_there_is_something_to_take(pair: Pair) -> None:
    """An event loop that watches it is woken by a message, and not again once that is taken."""
    for end in pair:
        end.start()
    assert not readable(pair[1], 0.0)
    pair[0].send(Ready())
    assert readable(pair[1], PATIENCE_SECONDS)
    assert pair[1].take() == [Ready()]
    assert not readable(pair[1], 0.0)
    assert pair[1].take() == []


# --- bounds


def test_sending_does_not_wait_for_the_reader(pair: Pair) -> None:
    """While the other end reads nothing, all that is sent waits, and `queued` tells how much."""
    pair[0].start()
    pair[0].send(LARGE)
    for number in range(100):
        pair[0].send(Partitions(number))
    until(lambda: pair[0].queued == 100, "the first message under way")
    pair[1].start()
    assert taken(pair[1], 101) == [LARGE, *(Partitions(number) for number in range(100))]
    assert pair[0].queued == 0


def test_observations_and_reports_give_way_when_too_much_waits(pair: Pair) -> None:
    """Over the bound, what the next one replaces is left out and counted; what must arrive still does."""
    for number in range(MOST_QUEUED):
        pair[0].send(Partitions(number))
    pair[0].send(an_observation())
    pair[0].send(a_report())
    pair[0].send(Sampled(gathered([Sample(1)])))
    pair[0].send(Reported(()))
    assert (pair[0].dropped, pair[0].queued) == (4, MOST_QUEUED)
    last: list[Message] = [Templates(()), a_report(last=True)]
    for message in last:
        pair[0].send(message)
    assert (pair[0].dropped, pair[0].queued) == (4, MOST_QUEUED + 2)
    for end in pair:
        end.start()
    assert taken(pair[1], MOST_QUEUED + 2)[-2:] == last


@pytest.mark.parametrize(
    ("message", "most"),
    [
        pytest.param(Partitions(1), MOST_RECEIVED, id="many"),
        pytest.param(LARGE, MOST_RECEIVED_BYTES >> 20, id="large"),
    ],
)
def test_what_is_not_taken_waits_at_the_other_end(pair: Pair, message: Message, most: int) -> None:
    """A reader that listens and is slower than the sender holds a bounded part; once it takes that, the rest comes."""
    sender, receiver = pair
    for _ in range(2 * most):
        sender.send(message)
    for end in pair:
        end.start()
    until(lambda: len(receiver._incoming) >= most - 1, "the bound reached")
    # The other way goes on meanwhile.
    receiver.send(Ready())
    assert taken(sender, 1) == [Ready()]
    assert len(receiver._incoming) <= most
    assert sender.queued > 0
    assert taken(receiver, 2 * most) == [message] * (2 * most)
    assert sender.queued == 0


def test_an_end_that_closes_keeps_nobody_from_closing(pair: Pair) -> None:
    """Also when it has more than it may hold, and takes nothing any more: what was sent to it is read to its end."""
    sender, receiver = pair
    for _ in range(MOST_RECEIVED + 10_000):
        sender.send(Partitions(1))
    for end in pair:
        end.start()
    until(lambda: len(receiver._incoming) == MOST_RECEIVED, "the bound reached")
    receiver.close()
    assert not any(thread.is_alive() for thread in receiver._threads)
    until(sender.gone.is_set, "gone")


# --- ends


def test_closing_sends_what_waits_first(pair: Pair) -> None:
    """A worker's last report arrives, and the end after it."""
    for end in pair:
        end.start()
    for number in range(500):
        pair[0].send(Partitions(number))
    pair[0].send(a_report(last=True))
    pair[0].close()
    until(pair[1].gone.is_set, "gone")
    found = pair[1].take()
    assert (len(found), found[-1]) == (501, a_report(last=True))


def test_that_an_end_is_gone_stays_to_be_seen(pair: Pair) -> None:
    """The descriptor goes on being readable, so that an end which came between two looks is not missed."""
    for end in pair:
        end.start()
    pair[1].send(Ready())
    pair[1].close()
    until(pair[0].gone.is_set, "gone")
    assert pair[0].take() == [Ready()]
    for _ in range(3):
        assert readable(pair[0], 0)
        assert pair[0].take() == []


def test_an_end_that_is_gone_is_noticed(pair: Pair) -> None:
    """Whoever waits for the other end is woken when that is no more, and sending to it raises nothing."""
    pair[0].start()
    pair[1].close()
    assert readable(pair[0], PATIENCE_SECONDS)
    assert pair[0].gone.is_set()
    assert pair[0].take() == []
    for _ in range(10):
        pair[0].send(LARGE)


def test_an_end_that_dies_in_the_middle_of_a_message_is_noticed(pair: Pair) -> None:
    """A killed worker leaves half a message: that is not a message, and the end is seen."""
    pair[0].start()
    pair[1]._connection._send(b"\x00\x00\x01\x00half")  # type: ignore[attr-defined]  # what a connection writes with
    pair[1].close()
    until(pair[0].gone.is_set, "gone")
    assert pair[0].take() == []


def test_nothing_is_left_of_channels_that_ended() -> None:
    """Workers that die and are replaced for years do not use up descriptors."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(20):
        ours, theirs = multiprocessing.Pipe()
        channel = Channel(ours)
        channel.start()
        theirs.close()
        until(channel.gone.is_set, "gone")
        channel.close()
    assert descriptors() == before
