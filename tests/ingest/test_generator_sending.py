from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from ingest.generator.batch import Batch
from ingest.generator.pace import SECOND_NS, TICK_NS, Pace
from ingest.generator.scenario import Scenario
from ingest.generator.sender import Sender, Target
from ingest.generator.traffic import Traffic
from ingest.generator.transmit import Limits, transmit
from shared.errors import ConfigError

SMALL: Final = Scenario(exporters=30, rate=50, refresh=20)


# --- pace


def bursts(pace: Pace, ticks: Iterable[int]) -> list[int]:
    """What a sender sends that asks at these ticks, and sends all that is due."""
    sent = []
    for tick in ticks:
        sent.append(pace.due(tick * TICK_NS))
        pace.sent(sent[-1])
    return sent


def test_bursts_fit_a_small_receive_buffer() -> None:
    """However long a sender was held up, it catches up in bursts of twice the rate: 212,992 bytes hold four of them."""
    assert bursts(Pace(2000), [0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15, 16]) == [1, 10, 10, 10] + 5 * [20] + 3 * [10]


def test_a_long_pause_is_not_made_good() -> None:
    """What was due more than a quarter of a second ago is given up."""
    sent = bursts(Pace(2000), [0, *range(2000, 2100)])
    assert sum(sent) == 1 + 500 + 99 * 10
    assert max(sent) == 20


@pytest.mark.parametrize("rate", [0.5, 7, 2000, 150_000])
def test_the_rate_is_kept(rate: float) -> None:
    """A sender that is not held up sends as many in 20 seconds as the rate says, but for a tick."""
    pace, now_ns, sent = Pace(rate), 0, 0
    while now_ns < 20 * SECOND_NS:
        due = pace.due(now_ns)
        if due:
            pace.sent(due)
            sent += due
        else:
            now_ns += max(1, pace.wait_ns(now_ns))
    assert abs(sent - rate * 20) <= 1 + rate * TICK_NS / SECOND_NS


def test_nothing_is_due_within_a_tick_of_a_burst() -> None:
    """Datagrams go in bursts with time between them, so that a fast sender does not spin."""
    pace, half = Pace(1_000_000), TICK_NS // 2
    pace.sent(pace.due(0))
    assert (pace.due(half), pace.wait_ns(half)) == (0, TICK_NS - half)
    assert pace.due(TICK_NS) == 5000


# --- the socket


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A socket that listens on loopback, with the buffer that Linux gives by default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


@pytest.fixture
def sender(receiver: socket.socket) -> Iterator[Sender]:
    """A sender to that socket."""
    sending = Sender(Target.parse(f"127.0.0.1:{receiver.getsockname()[1]}"))
    sending.start()
    yield sending
    sending.close()


def test_datagrams_arrive_from_the_exporters_addresses(receiver: socket.socket, sender: Sender) -> None:
    """One socket sends for all exporters: what arrives has their addresses, and the bytes that were made."""
    batch = next(Traffic(SMALL).batches(200))
    messages = sender.prepare(batch)
    arrived = []
    for first in range(0, 200, 20):
        assert sender.send(messages, first, first + 20).all()
        arrived += [receiver.recvfrom(2048) for _ in range(20)]
    assert [payload for payload, _ in arrived] == [batch.payload(index) for index in range(200)]
    assert [host for _, (host, _) in arrived] == [str(ipaddress.ip_address(int(each))) for each in batch.address]
    assert len({port for _, (_, port) in arrived}) == 1
    assert len({host for _, (host, _) in arrived}) == SMALL.exporters


def test_ipv6_loopback_gets_all_from_one_address() -> None:
    """To an IPv6 address the same datagrams go, from the address that the kernel chooses."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.settimeout(10)
        sending = Sender(Target.parse(f"[::1]:{listening.getsockname()[1]}"))
        sending.start()
        batch = next(Traffic(SMALL).batches(10))
        assert sending.send(sending.prepare(batch), 0, 10).all()
        arrived = [listening.recvfrom(2048) for _ in range(10)]
        sending.close()
    assert [payload for payload, _ in arrived] == [batch.payload(index) for index in range(10)]
    assert {host for _, (host, *_) in arrived} == {"::1"}


def test_what_the_kernel_refuses_is_counted_and_the_rest_is_sent(receiver: socket.socket, sender: Sender) -> None:
    """A datagram that is too long for UDP is not sent; those before and after it are."""
    batch = next(Traffic(SMALL).batches(5))
    buffer = np.concatenate([batch.buffer, np.zeros(70_000, np.uint8)])
    length = batch.length.copy()
    length[2] = 70_000
    taken = sender.send(sender.prepare(replace(batch, buffer=buffer, length=length)), 0, 5)
    assert taken.tolist() == [True, True, False, True, True]
    assert sender.refusals.not_sent == {"EMSGSIZE": 1}
    assert [receiver.recv(2048) for _ in range(4)] == [batch.payload(index) for index in (0, 1, 3, 4)]


def test_nobody_needs_to_listen(receiver: socket.socket, sender: Sender) -> None:
    """When the port is closed the sender knows it, and goes on: UDP waits for nobody."""
    receiver.close()
    batch = next(Traffic(SMALL).batches(100))
    messages = sender.prepare(batch)
    assert sender.send(messages, 0, 100).all()
    assert sender.refusals.nobody_listens
    assert sender.send(messages, 0, 100).all()
    assert not sender.refusals.not_sent


@pytest.mark.parametrize(
    ("text", "shown", "spreads"),
    [
        ("127.0.0.1:2055", "127.0.0.1:2055", True),
        ("127.9.9.9:1", "127.9.9.9:1", True),
        ("[::1]:4739", "[::1]:4739", False),
        ("192.0.2.1:2055", "192.0.2.1:2055", False),
        ("localhost:2055", "127.0.0.1:2055", True),
    ],
)
def test_a_target_is_an_address_and_a_port(text: str, shown: str, spreads: bool) -> None:
    """Only to IPv4 loopback can exporters have addresses of their own."""
    target = Target.parse(text)
    assert (str(target), target.spreads) == (shown, spreads)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", ":2055", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x", "no.invalid:1"]
)
def test_a_target_that_cannot_be_is_refused(text: str) -> None:
    """The message has the argument as it was written."""
    with pytest.raises(ConfigError, match="--to"):
        Target.parse(text)


# --- sending at a rate


def never() -> bool:
    """Nobody says stop."""
    return False


def silent(_datagrams: int, _seconds: float) -> None:
    """Nobody wants to know how far it is."""


def test_what_was_sent_is_what_the_traffic_holds(sender: Sender) -> None:
    """The books of a run are those of its datagrams."""
    traffic = Traffic(replace(SMALL, rate=20_000))
    sent = transmit(traffic, sender, Limits(count=150), stopped=never, progress=silent)
    assert sent.totals == traffic.totals(150)
    assert sent.not_sent == 0


def test_what_was_not_sent_is_not_in_the_books(sender: Sender) -> None:
    """Datagrams that the kernel refused are counted apart, and their flows are not counted."""

    class Spoiled(Traffic):
        def batches(self, count: int | None = None) -> Iterator[Batch]:
            for batch in super().batches(count):
                length = batch.length.copy()
                length[0] = 70_000
                yield replace(batch, buffer=np.concatenate([batch.buffer, np.zeros(70_000, np.uint8)]), length=length)

    traffic = Spoiled(replace(SMALL, protocol="v5", rate=0))
    sent = transmit(traffic, sender, Limits(count=20), stopped=never, progress=silent)
    assert sent.not_sent == 1
    assert sent.totals["NETFLOW_V5"].datagrams == 19
    (first,) = Traffic(traffic.scenario).totals(1).values()
    assert sent.totals["NETFLOW_V5"] + first == Traffic(traffic.scenario).totals(20)["NETFLOW_V5"]


def test_sending_stops_when_it_is_told_to(sender: Sender) -> None:
    """Whoever says stop gets the books up to there."""
    bursts: list[int] = []
    traffic = Traffic(replace(SMALL, rate=5000))
    sent = transmit(
        traffic,
        sender,
        Limits(),
        stopped=lambda: len(bursts) >= 3,
        progress=lambda datagrams, _: bursts.append(datagrams),
    )
    assert sum(count.datagrams for count in sent.totals.values()) == bursts[-1]
    assert sent.totals == traffic.totals(bursts[-1])
