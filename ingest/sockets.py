"""The UDP sockets of ingest: opened by the supervisor, handed to the workers, polled for drops, and drained at the end.

Linux only. Each address becomes one `SO_REUSEPORT` group with a socket per worker, over which the kernel spreads the
datagrams at random, so that one exporter can use every worker. The supervisor keeps its own descriptors of them all:
what a dead worker has not read stays queued for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.config import HostPort, parse_udp_listener
from shared.errors import StartError

# Numbers of asm-generic/socket.h that the socket module has no names for.
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_ATTACH_REUSEPORT_CBPF = 51
SO_MEMINFO = 55
SO_DETACH_REUSEPORT_BPF = 68

# SO_MEMINFO answers nine 32-bit numbers (linux/sock_diag.h).
_MEMINFO = struct.Struct("=9I")
_MEMINFO_RMEM_ALLOC = 0
_MEMINFO_DROPS = 8

# Classic BPF (linux/filter.h): three instructions are all that we need.
_BPF_LOAD_WORD = 0x20
_BPF_MODULO = 0x94
_BPF_RETURN_A = 0x16
_SKF_AD_RANDOM = 0xFFFFF000 + 56

_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})
_ANY_IPV4 = "0.0.0.0"
_DISCARD_PORT = 9

_REMEDIES = {
    errno.EADDRINUSE: (
        "the port is in use: another program, another instance of this one or another entry of ingest.listen receives "
        "there, and one would take the other's datagrams. Stop it (`ss -ulpn 'sport = :{port}'` names it) or change "
        "ingest.listen"
    ),
    errno.EACCES: (
        "ports below 1024 need the capability CAP_NET_BIND_SERVICE. Grant it or choose a higher port in ingest.listen"
    ),
    errno.EADDRNOTAVAIL: (
        "this machine has no such address (`ip address` shows those it has). Mend it in ingest.listen; "
        "udp://[::]:{port} listens on all of them"
    ),
    errno.EAFNOSUPPORT: (
        "IPv6 is off on this machine. Give an IPv4 address in ingest.listen; udp://0.0.0.0:{port} listens on all of them"
    ),
    errno.EMFILE: "too many open files. Raise the limit (`ulimit -n`) or have fewer workers (ingest.workers)",
}

NewSocket = Callable[[socket.AddressFamily], socket.socket]


@dataclass(frozen=True, slots=True, eq=False)
class ListenerSockets:
    """One address that is listened to, with a socket for every worker."""

    address: str
    """As configured."""
    port: int
    """What was bound: the free port that was found where the configuration says 0."""
    sockets: tuple[socket.socket, ...]
    """One per worker, non-blocking, IPv6 (dual stack where the address is [::]) or IPv4."""
    receive_buffer_bytes: int
    """The receive buffer of each socket in the unit in which it is asked for: half of what getsockopt answers, since
    the kernel doubles it to have room for its own bookkeeping."""
    remarks: tuple[str, ...]
    """Sentences about what is less than was asked for, for the log; usually none."""

    def close(self) -> None:
        """Close this process's descriptors; the sockets live on while another process has theirs."""
        for opened in self.sockets:
            opened.close()


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_DGRAM)


def open_listeners(
    addresses: Sequence[str],
    workers: int,
    receive_buffer_bytes: int,
    new_socket: NewSocket = _new_socket,
) -> list[ListenerSockets]:
    """Open a socket per address and worker; all of them or none.

    Called once by the supervisor, before the workers are there; does not block.

    Args:
        addresses: `udp://address:port` each. The port may be 0; [::] takes IPv4 too, and is 0.0.0.0 where IPv6 is off.
        workers: sockets per address.
        receive_buffer_bytes: what to ask for, forced above net.core.rmem_max where we may.
        new_socket: makes a UDP socket of a family.

    Raises:
        StartError: an address cannot be listened to; says which, why and what to do.
        ValueError: an address has another form.
    """
    opened: list[ListenerSockets] = []
    try:
        for address in addresses:
            opened.append(_open_listener(address, workers, receive_buffer_bytes, new_socket))  # noqa: PERF401 - what is open has to be closed when the next one fails
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open_listener(address: str, workers: int, receive_buffer_bytes: int, new_socket: NewSocket) -> ListenerSockets:
    given = parse_udp_listener(address)
    wanted = HostPort(str(ipaddress.ip_address(given.host)), given.port)
    group: list[socket.socket] = []
    remarks: list[str] = []
    try:
        first, bound = _bind_exclusively(wanted, new_socket)
        group.append(first)
        if bound.host != wanted.host:
            remarks.append(f"{address}: IPv6 is off on this machine, so only IPv4 is received")
        if workers > 1:
            # Only now may others join. A socket bound with SO_REUSEPORT from the start would share the port of any
            # instance that is already there; to probe, close and bind again would leave a moment for one to slip in.
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            group.extend(_bind(bound, new_socket, shared=True) for _ in range(workers - 1))
            if not _spread_at_random(group[-1], workers):
                remarks.append(
                    f"{address}: this kernel takes no SO_ATTACH_REUSEPORT_CBPF, so each exporter uses one worker alone"
                )
        obtained = min(_set_receive_buffer(member, receive_buffer_bytes) for member in group)
    except OSError as error:
        _close_all(group)
        remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}").format(port=wanted.port)
        raise StartError(f"cannot listen on {address}: {remedy}.") from error
    except BaseException:
        _close_all(group)
        raise
    if obtained < receive_buffer_bytes:
        remarks.append(
            f"{address}: asked for a receive buffer of {receive_buffer_bytes} bytes and got {obtained}, so bursts may "
            f"be dropped; allow more with `sysctl -w net.core.rmem_max={receive_buffer_bytes}` or CAP_NET_ADMIN"
        )
    return ListenerSockets(address, bound.port, tuple(group), obtained, tuple(remarks))


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for member in sockets:
        member.close()


def _bind_exclusively(wanted: HostPort, new_socket: NewSocket) -> tuple[socket.socket, HostPort]:
    """Bind the first socket, without SO_REUSEPORT; answers it with the address that it got."""
    host = wanted.host
    try:
        first = _bind(wanted, new_socket, shared=False)
    except OSError as error:
        if host != "::" or error.errno not in _NO_IPV6:
            raise
        host = _ANY_IPV4
        first = _bind(HostPort(host, wanted.port), new_socket, shared=False)
    return first, HostPort(host, first.getsockname()[1])


def _bind(where: HostPort, new_socket: NewSocket, *, shared: bool) -> socket.socket:
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, *_, name = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM, flags=numeric)[0]
    made = new_socket(family)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where.host != "::"))
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Before the bind, so that the very first datagram has its time.
        made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        made.bind(name)
    except BaseException:
        made.close()
        raise
    return made


def _spread_at_random(member: socket.socket, workers: int) -> bool:
    """Have the kernel choose a socket of the group at random for each datagram; False where it does not know how.

    Sockets of a group are numbered in the order of their binds. A number that is no more there (a socket was drained
    or closed) falls back to the hash of addresses and ports.
    """
    instructions = b"".join(
        struct.pack("=HBBI", code, 0, 0, operand)
        for code, operand in ((_BPF_LOAD_WORD, _SKF_AD_RANDOM), (_BPF_MODULO, workers), (_BPF_RETURN_A, 0))
    )
    program = ctypes.create_string_buffer(instructions, len(instructions))
    # struct sock_fprog: the number of instructions and a pointer to them.
    header = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(program))
    try:
        member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, header)
    except OSError as error:
        if error.errno in {errno.ENOPROTOOPT, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def _set_receive_buffer(member: socket.socket, wanted_bytes: int) -> int:
    try:
        member.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, wanted_bytes)
    except OSError:
        # Not allowed to: the kernel cuts this one down to net.core.rmem_max without a word.
        member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    return member.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _memory(member: socket.socket) -> tuple[int, ...]:
    return _MEMINFO.unpack(member.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))


def socket_drops(member: socket.socket) -> int:
    """Datagrams that the kernel dropped at this socket since it was opened, modulo 2**32; does not block.

    It counts those for which the buffer had no room and those with a wrong checksum.
    """
    return _memory(member)[_MEMINFO_DROPS]


def queued_bytes(member: socket.socket) -> int:
    """Memory that the kernel charges to the receive queue, its own bookkeeping included; does not block.

    It is compared with twice the receive buffer. It may stay above 0 when the queue is empty, since the kernel returns
    what was read in portions of up to a quarter of the buffer.
    """
    return _memory(member)[_MEMINFO_RMEM_ALLOC]


class DropCount:
    """How many datagrams the kernel dropped since the last look, over the sockets of one listener."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = tuple(sockets)
        self._seen = [0] * len(self._sockets)

    def take(self) -> int:
        """Datagrams dropped since the last call, or since the sockets were opened; right across 2**32."""
        now = [socket_drops(member) for member in self._sockets]
        new = sum((after - before) % 2**32 for after, before in zip(now, self._seen, strict=True))
        self._seen = now
        return new


def drain(member: socket.socket) -> bool:
    """Let nothing new into this socket, while what is queued stays readable; for the end of a worker.

    The socket is connected to a peer that never sends, so that the kernel hands what comes to the other sockets of
    the group, and answers "port unreachable" when the last is drained. A datagram that the kernel was about to queue
    meanwhile may still come: after the queue was read dry, look once more some milliseconds later. It acts on the
    socket itself, so for every process that has it.

    Returns False when there is no route to such a peer (the loopback interface is down), so that new datagrams still
    come.
    """
    # The program chooses without asking whether a socket is connected; older kernels obey it. None is attached where
    # there is one worker alone, or another socket of the group was drained before.
    with contextlib.suppress(OSError):
        member.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    peers = ("::1", "::ffff:127.0.0.1") if member.family == socket.AF_INET6 else ("127.0.0.1",)
    return any(member.connect_ex((peer, _DISCARD_PORT)) == 0 for peer in peers)
