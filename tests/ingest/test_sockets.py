from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pytest

from ingest.sockets import DropCount, ListenerSockets, drain, open_listeners, queued_bytes, socket_drops
from shared.errors import StartError

PATIENCE_SECONDS = 20.0
Open = Callable[..., ListenerSockets]

REACHED = [
    pytest.param("udp://[::]:0", "127.0.0.1", id="dual stack, over IPv4"),
    pytest.param("udp://[::]:0", "::1", id="dual stack, over IPv6"),
    pytest.param("udp://0.0.0.0:0", "127.0.0.1", id="IPv4"),
    pytest.param("udp://127.0.0.1:0", "127.0.0.1", id="one IPv4 address"),
    pytest.param("udp://[::1]:0", "::1", id="one IPv6 address"),
]


@pytest.fixture
def listen() -> Iterator[Open]:
    """Opens one listener, and closes it at the end."""
    opened: list[ListenerSockets] = []

    def one(address: str, workers: int = 1, receive_buffer_bytes: int = 1 << 20) -> ListenerSockets:
        (listener,) = open_listeners([address], workers, receive_buffer_bytes)
        opened.append(listener)
        return listener

    yield one
    for listener in opened:
        listener.close()


def sender(host: str, port: int) -> socket.socket:
    """A socket that sends to this address, always from the same port."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.connect((host, port))
    return made


def read_dry(member: socket.socket) -> list[bytes]:
    """What is queued at a socket."""
    found = []
    while True:
        try:
            found.append(member.recv(65536))
        except BlockingIOError:
            return found


def read_until(sockets: Sequence[socket.socket], count: int) -> list[list[bytes]]:
    """What comes to each of the sockets, until it is `count` together."""
    found: list[list[bytes]] = [[] for _ in sockets]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(map(len, found)) < count and time.monotonic() < deadline:
        for mine, member in zip(found, sockets, strict=True):
            mine.extend(read_dry(member))
    return found


@pytest.mark.parametrize(("address", "host"), REACHED)
def test_one_exporter_reaches_every_worker(listen: Open, address: str, host: str) -> None:
    """Datagrams from one address and port are spread over all sockets, and none is lost or comes twice."""
    listener = listen(address, workers=4)
    sent = [str(number).encode() for number in range(400)]
    with sender(host, listener.port) as exporter:
        for payload in sent:
            exporter.send(payload)
        found = read_until(listener.sockets, len(sent))
    assert sorted(payload for mine in found for payload in mine) == sorted(sent)
    # By chance, one of four gets none of 400 once in 10**49 runs.
    assert all(found)
    assert listener.remarks == ()


def test_every_address_has_a_socket_per_worker() -> None:
    """Each address is opened on its own, in the order given, with as many sockets as there are workers."""
    listeners = open_listeners(["udp://[::]:0", "udp://127.0.0.1:0"], 3, 1 << 20)
    try:
        assert [listener.address for listener in listeners] == ["udp://[::]:0", "udp://127.0.0.1:0"]
        for listener in listeners:
            assert {member.getsockname()[1] for member in listener.sockets} == {listener.port}
            assert len(listener.sockets) == 3
            assert listener.port != 0
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize("workers", [pytest.param(1, id="one worker"), pytest.param(3, id="three workers")])
@pytest.mark.parametrize(
    "taken_as",
    [
        pytest.param("udp://[::]:0", id="by an instance on all addresses"),
        pytest.param("udp://127.0.0.1:0", id="by an instance on one address"),
    ],
)
def test_a_port_that_is_served_is_not_shared(listen: Open, taken_as: str, workers: int) -> None:
    """A second instance is refused with the address and what to do, though the first shares its port with itself."""
    port = listen(taken_as, workers=2).port
    with pytest.raises(StartError) as refused:
        open_listeners([f"udp://[::]:{port}"], workers, 1 << 20)
    assert f"udp://[::]:{port}" in str(refused.value)
    assert f"`ss -ulpn 'sport = :{port}'`" in str(refused.value)
    assert "ingest.listen" in str(refused.value)


def test_a_port_of_another_program_is_not_stolen() -> None:
    """A program that would share its port is not made to: we are refused, and it goes on to receive."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.settimeout(PATIENCE_SECONDS)
        port = other.getsockname()[1]
        with pytest.raises(StartError, match="the port is in use"):
            open_listeners([f"udp://[::]:{port}"], 2, 1 << 20)
        with sender("127.0.0.1", port) as exporter:
            exporter.send(b"theirs")
        assert other.recv(100) == b"theirs"


def test_all_are_opened_or_none(listen: Open) -> None:
    """When the second address is taken, the first is closed again."""
    taken = listen("udp://127.0.0.1:0").port
    free = open_listeners(["udp://127.0.0.1:0"], 1, 1 << 20)[0]
    free.close()
    with pytest.raises(StartError, match=f"udp://127.0.0.1:{taken}"):
        open_listeners([f"udp://127.0.0.1:{free.port}", f"udp://127.0.0.1:{taken}"], 2, 1 << 20)
    listen(f"udp://127.0.0.1:{free.port}")


def without(failing: socket.AddressFamily, code: int) -> Callable[[socket.AddressFamily], socket.socket]:
    """Makes sockets as a machine does where those of one family fail with an error."""

    def new_socket(family: socket.AddressFamily) -> socket.socket:
        if family == failing:
            raise OSError(code, errno.errorcode[code])
        return socket.socket(family, socket.SOCK_DGRAM)

    return new_socket


def test_ipv4_is_served_where_ipv6_is_off() -> None:
    """Without IPv6, [::] receives IPv4 and says that it is no more than that."""
    machine = without(socket.AF_INET6, errno.EAFNOSUPPORT)
    (listener,) = open_listeners(["udp://[::]:0"], 2, 1 << 20, machine)
    try:
        assert {member.family for member in listener.sockets} == {socket.AF_INET}
        assert [remark for remark in listener.remarks if "only IPv4 is received" in remark]
        with sender("127.0.0.1", listener.port) as exporter:
            exporter.send(b"over IPv4")
        assert list(chain(*read_until(listener.sockets, 1))) == [b"over IPv4"]
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("address", "family", "code", "words"),
    [
        pytest.param("udp://[2001:db8::1]:0", None, 0, "has no such address", id="an address of another machine"),
        pytest.param("udp://[::1]:0", socket.AF_INET6, errno.EAFNOSUPPORT, "IPv6 is off", id="IPv6 where it is off"),
        pytest.param("udp://0.0.0.0:0", socket.AF_INET, errno.EACCES, "CAP_NET_BIND_SERVICE", id="a port not allowed"),
        pytest.param("udp://0.0.0.0:0", socket.AF_INET, errno.EMFILE, "ulimit -n", id="no more descriptors"),
        pytest.param("udp://0.0.0.0:0", socket.AF_INET, errno.ENOBUFS, "ENOBUFS", id="an error of no known remedy"),
    ],
)
def test_an_address_that_cannot_be_had_says_what_to_do(
    address: str, family: socket.AddressFamily | None, code: int, words: str
) -> None:
    """The error names the address, and the remedy where there is one."""
    machine = without(family, code) if family else without(socket.AF_UNIX, errno.EIO)
    with pytest.raises(StartError) as refused:
        open_listeners([address], 2, 1 << 20, machine)
    assert address in str(refused.value)
    assert words in str(refused.value)


def test_the_buffer_is_told_in_the_unit_it_is_asked_in(listen: Open) -> None:
    """What was obtained is what was asked for, not the double that the kernel answers."""
    assert listen("udp://127.0.0.1:0", receive_buffer_bytes=100_000).receive_buffer_bytes == 100_000


def test_a_buffer_that_was_cut_is_remarked(listen: Open) -> None:
    """Where the kernel grants less, the listener says how much, and how to allow more."""
    asked = 2**31 - 1  # twice as much as any kernel grants anybody
    listener = listen("udp://127.0.0.1:0", receive_buffer_bytes=asked)
    assert 0 < listener.receive_buffer_bytes < asked
    (remark,) = listener.remarks
    assert f"a receive buffer of {asked} bytes and got {listener.receive_buffer_bytes}" in remark
    assert "net.core.rmem_max" in remark


def read_or_dropped(member: socket.socket, count: int, dropped_before: int) -> int:
    """Read until what is read and what was dropped meanwhile are `count`; answers how many were read."""
    read = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while read + socket_drops(member) - dropped_before < count:
        assert time.monotonic() < deadline
        read += len(read_dry(member))
    return read


def test_drops_of_the_kernel_are_counted(listen: Open) -> None:
    """What did not fit the buffer is counted at the socket, and each drop is taken once."""
    listener = listen("udp://127.0.0.1:0", receive_buffer_bytes=4096)
    (member,) = listener.sockets
    drops = DropCount(listener.sockets)
    assert (socket_drops(member), drops.take(), queued_bytes(member)) == (0, 0, 0)
    before = 0
    with sender("127.0.0.1", listener.port) as exporter:
        for count in (100, 50):
            for _ in range(count):
                exporter.send(bytes(1000))
            read = read_or_dropped(member, count, before)
            assert 0 < read < count
            assert drops.take() == count - read
            assert drops.take() == 0
            before = socket_drops(member)


def test_what_is_queued_is_told(listen: Open) -> None:
    """The memory of the receive queue is at least what was sent and is not yet read."""
    (member,) = (listener := listen("udp://127.0.0.1:0")).sockets
    with sender("127.0.0.1", listener.port) as exporter:
        exporter.send(bytes(1000))
        exporter.send(bytes(1000))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while queued_bytes(member) < 2000:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(("address", "host"), REACHED)
def test_a_drained_socket_keeps_its_queue_and_gets_no_more(listen: Open, address: str, host: str) -> None:
    """What was queued is read from the drained socket, and what is sent after that goes to its sibling."""
    listener = listen(address, workers=2)
    before = [b"before %d" % number for number in range(100)]
    after = [b"after %d" % number for number in range(100)]
    with sender(host, listener.port) as exporter:
        for payload in before:
            exporter.send(payload)
        assert drain(listener.sockets[0])
        for payload in after:
            exporter.send(payload)
        kept, others = read_until(listener.sockets, 200)
    assert kept
    assert set(kept) < set(before)
    assert sorted(kept + others) == sorted(before + after)


@pytest.mark.parametrize(("address", "host"), REACHED)
def test_when_all_are_drained_nothing_comes(listen: Open, address: str, host: str) -> None:
    """With the last socket drained, senders are told that nobody is there, and the queues are still read."""
    listener = listen(address, workers=3)
    with sender(host, listener.port) as exporter:
        for number in range(60):
            exporter.send(b"before %d" % number)
        assert [drain(member) for member in listener.sockets] == [True] * 3
        exporter.send(b"after")
        exporter.settimeout(PATIENCE_SECONDS)
        with pytest.raises(ConnectionRefusedError):
            exporter.recv(100)
        found = list(chain(*read_until(listener.sockets, 60)))
        assert sorted(found) == sorted(b"before %d" % number for number in range(60))
        assert [read_dry(member) for member in listener.sockets] == [[], [], []]


def test_the_queue_outlives_a_worker(listen: Open) -> None:
    """What a killed process left in its socket is read by another that has the socket."""
    listener = listen("udp://[::]:0", workers=2)
    worker = listener.sockets[1]
    program = (
        "import socket, sys\n"
        "mine = socket.socket(fileno=int(sys.argv[1]))\n"
        "mine.setblocking(True)\n"
        "print(mine.recv(100).decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", program, str(worker.fileno())]
    with (
        subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[worker.fileno()]
        ) as process,
        sender("::1", listener.port) as exporter,
    ):
        for number in range(100):
            exporter.send(b"%d" % number)
        assert process.stdout is not None
        read_by_worker = process.stdout.readline().strip().encode()
        process.kill()
        process.wait()
        worker.setblocking(False)
        found = read_until(listener.sockets, 99)
    assert all(found)
    assert sorted([read_by_worker, *found[0], *found[1]]) == sorted(b"%d" % number for number in range(100))
