from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pytest

from ingest.decoders.datagrams import HEADROOM_BYTES, Datagrams
from ingest.receive import MAX_DATAGRAM_BYTES, ReceiveFault, Receiver
from ingest.sockets import ListenerSockets, drain, open_listeners

SECOND_NS = 1_000_000_000
PATIENCE_NS = 20 * SECOND_NS
Listen = Callable[..., list[ListenerSockets]]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Opens listeners for one worker, and closes them at the end."""
    opened: list[ListenerSockets] = []

    def some(*addresses: str) -> list[ListenerSockets]:
        made = open_listeners(addresses or ["udp://[::]:0"], 1, 1 << 22)
        opened.extend(made)
        return made

    yield some
    for listener in opened:
        listener.close()


def receiver_of(
    listeners: Sequence[ListenerSockets],
    slots: int = 2048,
    max_bytes: int = 2_000_000,
    datagram_bytes: int = MAX_DATAGRAM_BYTES,
) -> Receiver:
    """A receiver as the first worker has it."""
    sockets = [listener.sockets[0] for listener in listeners]
    return Receiver(sockets, slots=slots, max_bytes=max_bytes, datagram_bytes=datagram_bytes)


def send(payloads: Sequence[bytes], host: str, port: int, source: str = "") -> int:
    """Send from one socket; answers its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as exporter:
        exporter.bind((source, 0))
        for payload in payloads:
            exporter.sendto(payload, (host, port))
        return int(exporter.getsockname()[1])


def payloads_of(datagrams: Datagrams | None) -> list[bytes]:
    """Copies of the payloads."""
    return [] if datagrams is None else [datagrams.payload(index) for index in range(len(datagrams))]


def payloads_until(receiver: Receiver, count: int) -> list[bytes]:
    """Payloads of as many batches as it takes to have `count`."""
    found: list[bytes] = []
    deadline_ns = time.monotonic_ns() + PATIENCE_NS
    while len(found) < count and time.monotonic_ns() < deadline_ns:
        found += payloads_of(receiver.receive(SECOND_NS, 0))
    return found


COUNTED = b"".join(number.to_bytes(2) for number in range(1 << 15))
"""65,536 bytes of which no two pairs are the same: what is put together wrongly does not go unnoticed."""
SIZES = [
    pytest.param([b"x"], id="one byte"),
    pytest.param([b""], id="an empty datagram"),
    pytest.param([b"\x00\x09" * 700], id="1,400 bytes"),
    pytest.param([b"\xa5" * 65_507], id="as long as UDP allows over IPv4"),
    pytest.param([COUNTED[:size] for size in (2047, 2048, 2049, 5, 2050, 4096, 0, 65_507, 2048)], id="around a slot"),
    pytest.param([b"a", b"", b"\x5a" * 65_507, b"", b"\x00\x05" * 732, b"z"], id="of all sizes"),
    pytest.param([b"%d" % number for number in range(500)], id="five hundred"),
]


@pytest.mark.parametrize("payloads", SIZES)
def test_datagrams_come_whole_and_in_order(listen: Listen, payloads: list[bytes]) -> None:
    """What one exporter sends is received byte by byte, empty datagrams too, and nothing is counted as a fault."""
    (listener,) = listen()
    receiver = receiver_of([listener])
    send(payloads, "127.0.0.1", listener.port)
    assert payloads_until(receiver, len(payloads)) == payloads
    assert receiver.take_faults() == Counter()


def test_the_buffer_is_used_again(listen: Listen) -> None:
    """Shorter datagrams after longer ones, with their head rooms overwritten meanwhile, are what was sent."""
    (listener,) = listen()
    receiver = receiver_of([listener], slots=4)
    for size in (3000, 0, 100, 65_507, 7):
        sent = [bytes([number + 1]) * size for number in range(4)]
        send(sent, "::1", listener.port)
        batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
        assert payloads_of(batch) == sent
        assert batch is not None
        for begin in batch.offset.tolist():
            assert begin >= HEADROOM_BYTES
            batch.buffer[begin - HEADROOM_BYTES : begin] = 0xEE
        assert payloads_of(batch) == sent


@pytest.mark.parametrize(
    ("address", "host", "source"),
    [
        pytest.param("udp://[::]:0", "127.0.0.1", "127.1.2.3", id="IPv4 at a dual-stack socket"),
        pytest.param("udp://[::]:0", "::1", "::1", id="IPv6 at a dual-stack socket"),
        pytest.param("udp://0.0.0.0:0", "127.0.0.1", "127.255.254.253", id="IPv4 at an IPv4 socket"),
        pytest.param("udp://[::1]:0", "::1", "::1", id="IPv6 at an IPv6 socket"),
    ],
)
def test_the_source_is_the_exporters(listen: Listen, address: str, host: str, source: str) -> None:
    """Address and port are those that the exporter sent from, IPv4 as ::ffff:a.b.c.d."""
    (listener,) = listen(address)
    receiver = receiver_of([listener], slots=2)
    ports = [send([b"x"], host, listener.port, source) for _ in range(2)]
    batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    assert batch is not None
    parsed = ipaddress.ip_address(source)
    wanted = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    assert [row.tobytes() for row in batch.source] == [wanted] * 2
    assert batch.source_port.tolist() == ports
    assert batch.source.flags.c_contiguous


def test_every_listener_is_read_and_named(listen: Listen) -> None:
    """Datagrams of several listeners of both families come in one batch, each with the index of its listener."""
    listeners = listen("udp://[::]:0", "udp://127.0.0.1:0", "udp://[::1]:0")
    receiver = receiver_of(listeners, slots=30)
    for index, host in enumerate(("127.0.0.1", "127.0.0.1", "::1")):
        send([b"%d" % index] * 10, host, listeners[index].port)
    batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    assert batch is not None
    assert len(batch) == 30
    assert payloads_of(batch) == [b"%d" % index for index in batch.listener.tolist()]
    assert Counter(batch.listener.tolist()) == {0: 10, 1: 10, 2: 10}


def test_a_flooded_listener_starves_no_other(listen: Listen) -> None:
    """With more queued at one listener than a batch holds, the other is read by the second batch."""
    listeners = listen("udp://127.0.0.1:0", "udp://127.0.0.1:0")
    receiver = receiver_of(listeners, slots=8)
    send([b"flood"] * 100, "127.0.0.1", listeners[0].port)
    send([b"quiet"], "127.0.0.1", listeners[1].port)
    assert b"quiet" in payloads_of(receiver.receive(PATIENCE_NS, 0)) + payloads_of(receiver.receive(PATIENCE_NS, 0))


def test_time_is_when_the_kernel_received(listen: Listen) -> None:
    """The times rise and lie between that before and that after sending, and the clock is not asked for them."""
    (listener,) = listen()
    receiver = Receiver(listener.sockets, slots=3, clock_ns=lambda: 1)
    before_ns = time.time_ns()
    send([b"a", b"b", b"c"], "127.0.0.1", listener.port)
    after_ns = time.time_ns()
    batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    assert batch is not None
    times = batch.received_ns.tolist()
    assert times == sorted(times)
    assert before_ns <= times[0] <= times[-1] <= after_ns
    assert receiver.take_faults() == Counter()


def test_time_is_the_clocks_where_the_kernel_gives_none() -> None:
    """At a socket without time stamps each datagram gets the time of the clock, and is counted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        receiver = Receiver([plain], slots=2, clock_ns=lambda: 1_700_000_000_000_000_123)
        send([b"a", b"b"], "127.0.0.1", plain.getsockname()[1])
        batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    assert batch is not None
    assert batch.received_ns.tolist() == [1_700_000_000_000_000_123] * 2
    assert receiver.take_faults() == {ReceiveFault.NO_KERNEL_TIME: 2}


def test_what_is_cut_off_is_left_out_and_counted(listen: Listen) -> None:
    """Of long and short datagrams the short ones come, each with its own columns, and the others are counted."""
    (listener,) = listen()
    receiver = receiver_of([listener], slots=5, datagram_bytes=100)
    sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"]
    sizes = [100, 101, 0, 9000, 99]
    ports = [
        send([bytes([size % 256]) * size], "127.0.0.1", listener.port, source)
        for size, source in zip(sizes, sources, strict=True)
    ]
    batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    assert payloads_of(batch) == [b"\x64" * 100, b"", b"\x63" * 99]
    assert batch is not None
    assert batch.source[:, 15].tolist() == [2, 4, 6]
    assert batch.source_port.tolist() == [ports[0], ports[2], ports[4]]
    assert len(batch.received_ns) == len(batch.listener) == 3
    assert receiver.take_faults() == {ReceiveFault.TOO_LONG: 2}
    assert receiver.take_faults() == Counter()


def test_nothing_but_what_was_cut_off_is_no_batch(listen: Listen) -> None:
    """When every datagram is too long there is no batch, and the count is there."""
    (listener,) = listen()
    receiver = receiver_of([listener], slots=2, datagram_bytes=10)
    send([bytes(11), bytes(12)], "127.0.0.1", listener.port)
    assert receiver.receive(PATIENCE_NS, PATIENCE_NS) is None
    assert receiver.take_faults() == {ReceiveFault.TOO_LONG: 2}


def test_a_batch_ends_when_its_slots_are_full(listen: Listen) -> None:
    """More than the slots hold comes in further batches, without waiting for their age."""
    (listener,) = listen()
    receiver = receiver_of([listener], slots=40)
    sent = [b"%d" % number for number in range(120)]
    send(sent, "127.0.0.1", listener.port)
    found = [payloads_of(receiver.receive(PATIENCE_NS, PATIENCE_NS)) for _ in range(3)]
    assert list(map(len, found)) == [40, 40, 40]
    assert list(chain(*found)) == sent


def test_a_batch_ends_at_its_bytes(listen: Listen) -> None:
    """A batch is complete at its bytes, and what is left comes with the next one."""
    (listener,) = listen()
    receiver = receiver_of([listener], max_bytes=20_000)
    sent = [bytes(1000)] * 100
    send(sent, "127.0.0.1", listener.port)
    first = payloads_of(receiver.receive(PATIENCE_NS, PATIENCE_NS))
    second = payloads_of(receiver.receive(PATIENCE_NS, PATIENCE_NS))
    # The first batch knows nothing of the size of datagrams yet; from then on the bound is kept within a few.
    assert 20 <= len(first) < 60
    assert 20 <= len(second) <= 36
    assert len(first) + len(second) + len(payloads_until(receiver, 100 - len(first) - len(second))) == 100


def test_a_batch_ends_at_its_age(listen: Listen) -> None:
    """A lonely datagram is not kept for others that do not come."""
    (listener,) = listen()
    receiver = receiver_of([listener])
    send([b"lonely"], "::1", listener.port)
    assert payloads_of(receiver.receive(3600 * SECOND_NS, 1_000_000)) == [b"lonely"]


def test_nothing_is_no_batch(listen: Listen) -> None:
    """With nothing sent, a wait ends without a batch."""
    receiver = receiver_of(listen())
    assert receiver.receive(0, 0) is None
    assert receiver.receive(1_000_000, PATIENCE_NS) is None


@pytest.mark.parametrize(
    "sent", [pytest.param([], id="nothing was sent"), pytest.param([b"a", b"b"], id="a batch is under way")]
)
def test_the_wake_ends_a_wait(listen: Listen, sent: list[bytes]) -> None:
    """When the wake is readable, what is there is returned at once; the wake stays readable for its owner."""
    (listener,) = listen()
    reading, writing = os.pipe()
    try:
        receiver = Receiver(listener.sockets, wake=reading)
        os.write(writing, b"!")
        send(sent, "127.0.0.1", listener.port)
        assert payloads_of(receiver.receive(3600 * SECOND_NS, 3600 * SECOND_NS)) == sent
        assert os.read(reading, 10) == b"!"
    finally:
        os.close(reading)
        os.close(writing)


def test_an_error_of_the_network_is_counted(listen: Listen) -> None:
    """A socket that has an ICMP answer pending does not raise; the error is counted, and the next socket is read."""
    (listener,) = listen("udp://127.0.0.1:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as refused, socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        refused.connect(gone.getsockname())
        gone.close()
        refused.send(b"to nobody")
        receiver = Receiver([refused, listener.sockets[0]])
        send([b"for us"], "127.0.0.1", listener.port)
        assert payloads_until(receiver, 1) == [b"for us"]
    assert receiver.take_faults() == {ReceiveFault.SOCKET_ERROR: 1}
    assert receiver.last_error == os.strerror(errno.ECONNREFUSED)


def test_a_socket_that_was_closed_is_a_defect(listen: Listen) -> None:
    """A closed descriptor raises, where it would otherwise be polled for ever."""
    (listener,) = listen()
    receiver = receiver_of([listener])
    listener.close()
    with pytest.raises(OSError, match="closed while it was in use"):
        receiver.receive(PATIENCE_NS, PATIENCE_NS)


def test_a_drained_socket_is_read_dry(listen: Listen) -> None:
    """After drain, what was queued is received over several batches, and then there is none."""
    (listener,) = listen()
    receiver = receiver_of([listener], slots=16)
    sent = [b"%d" % number for number in range(100)]
    send(sent, "127.0.0.1", listener.port)
    assert drain(listener.sockets[0])
    assert payloads_until(receiver, 100) == sent
    assert receiver.receive(0, 0) is None


def calls_of_a_batch(listener: ListenerSockets, count: int) -> int:
    """How many calls at the level of Python it takes to receive a batch of so many, when all are queued."""
    receiver = receiver_of([listener], slots=count)
    send([b"x"] * count, "127.0.0.1", listener.port)
    calls = 0

    def see(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(see)
    try:
        batch = receiver.receive(PATIENCE_NS, PATIENCE_NS)
    finally:
        sys.setprofile(None)
    assert batch is not None
    assert len(batch) == count
    return calls


def test_the_cost_is_per_batch_and_not_per_datagram(listen: Listen) -> None:
    """A batch of a thousand makes as many calls at the level of Python as one of ten."""
    (listener,) = listen()
    # The smallest of a few: a busy machine may deliver what was sent in two portions, which takes two reads.
    few, many = (min(calls_of_a_batch(listener, count) for _ in range(5)) for count in (10, 1000))
    assert few == many
