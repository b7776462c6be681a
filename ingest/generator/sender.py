"""Sends datagrams with addresses of many exporters from one socket, a thousand in a system call."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.generator.batch import Batch
from shared.errors import ConfigError, StartError

MESSAGES_AT_ONCE: Final = 1024
"""The most that one `sendmmsg` takes (UIO_MAXIOV)."""
FULL_WAIT_SECONDS: Final = 0.2
"""How long a datagram waits while the socket has no room, before it counts as not sent."""
SOL_IPV6: Final = 41
IP_RECVERR, IPV6_RECVERR = 11, 25
IP_PKTINFO: Final = 8

# The structures of sendmmsg(2) on 64-bit Linux.
IOVEC: Final = np.dtype([("base", "u8"), ("length", "u8")])
MMSGHDR: Final = np.dtype(
    [
        ("name", "u8"),
        ("name_length", "u4"),
        ("_1", "u4"),
        ("iovec", "u8"),
        ("iovec_count", "u8"),
        ("control", "u8"),
        ("control_length", "u8"),
        ("flags", "i4"),
        ("_2", "u4"),
        ("sent", "u4"),
        ("_3", "u4"),
    ]
)
# A control message with `struct in_pktinfo`: the source address is ipi_spec_dst (ip(7)).
PKTINFO: Final = np.dtype(
    [
        ("length", "u8"),
        ("level", "i4"),
        ("type", "i4"),
        ("interface", "i4"),
        ("source", ">u4"),
        ("destination", ">u4"),
        ("_1", "u4"),
    ]
)
PKTINFO_LENGTH: Final = 28

SendMessages = Callable[[int, int, int, int], int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where datagrams go."""

    family: socket.AddressFamily
    address: tuple[str, int]

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read HOST:PORT or [IPV6]:PORT; a name is looked up, IPv4 first. Raises ConfigError."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"--to {text}: write HOST:PORT, such as 127.0.0.1:2055 or [::1]:2055")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(f"--to {text}: there is no such host ({error.strerror or error})") from error
        chosen = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return cls(chosen[0], (str(chosen[4][0]), int(chosen[4][1])))

    @property
    def spreads(self) -> bool:
        """Whether datagrams to it can come from anywhere in 127.0.0.0/8."""
        return self.family == socket.AF_INET and ipaddress.ip_address(self.address[0]).is_loopback

    def sockaddr(self) -> bytes:
        """The address as the kernel reads it."""
        host, port = self.address
        family, packed = struct.pack("=H", self.family), socket.inet_pton(self.family, host.partition("%")[0])
        if self.family == socket.AF_INET:
            return family + struct.pack("!H", port) + packed + bytes(8)
        scope = socket.if_nametoindex(host.partition("%")[2]) if "%" in host else 0
        return family + struct.pack("!HI", port, 0) + packed + struct.pack("=I", scope)

    def __str__(self) -> str:
        host, port = self.address
        return f"{host}:{port}" if self.family == socket.AF_INET else f"[{host}]:{port}"


class Messages:
    """A batch as `sendmmsg` wants it; can be sent in parts, and again."""

    def __init__(self, batch: Batch, target: Target) -> None:
        count = len(batch)
        self.batch = batch
        self._name = np.frombuffer(target.sockaddr(), np.uint8)
        self._iovecs = np.zeros(count, IOVEC)
        self._iovecs["base"] = batch.buffer.ctypes.data + batch.offset
        self._iovecs["length"] = batch.length
        self._headers = np.zeros(count, MMSGHDR)
        self._headers["name"] = self._name.ctypes.data
        self._headers["name_length"] = len(self._name)
        self._headers["iovec"] = self._iovecs.ctypes.data + np.arange(count) * IOVEC.itemsize
        self._headers["iovec_count"] = 1
        self._control = np.zeros(count, PKTINFO)
        if target.spreads:
            self._control["length"] = PKTINFO_LENGTH
            self._control["level"] = socket.IPPROTO_IP
            self._control["type"] = IP_PKTINFO
            self._control["source"] = batch.address
            self._headers["control"] = self._control.ctypes.data + np.arange(count) * PKTINFO.itemsize
            self._headers["control_length"] = PKTINFO.itemsize

    def __len__(self) -> int:
        return len(self._headers)

    def at(self, index: int) -> int:
        """The address in memory of the `mmsghdr` of a datagram."""
        return int(self._headers.ctypes.data) + index * MMSGHDR.itemsize


@dataclass(slots=True)
class Refusals:
    """What the kernel did not take, and whether somebody listens."""

    not_sent: Counter[str] = field(default_factory=Counter)
    """Datagrams by the name of the error."""
    nobody_listens: bool = False
    """Whether the target once said that its port is closed; such datagrams were sent all the same."""


class Sender:
    """Sends batches to a target; `start` opens the socket, `close` closes it.

    Blocks for as long as the kernel takes, and while it has no room for `FULL_WAIT_SECONDS` a datagram.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.refusals = Refusals()
        self._socket: socket.socket | None = None
        self._send: SendMessages | None = None

    def start(self) -> None:
        """Open the socket. Raises StartError where there is no `sendmmsg`, or no socket of this family."""
        try:
            function = ctypes.CDLL(None, use_errno=True).sendmmsg
        except (OSError, AttributeError) as error:
            raise StartError(
                "generating traffic needs sendmmsg(2), which this system does not have: use Linux"
            ) from error
        function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        function.restype = ctypes.c_int
        self._send = function
        try:
            self._socket = socket.socket(self.target.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise StartError(f"no socket to send to {self.target}: {error.strerror}") from error
        self._hear_errors(wanted=True)

    def close(self) -> None:
        """Close the socket; does nothing when it is not open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def prepare(self, batch: Batch) -> Messages:
        """Lay a batch out for sending."""
        return Messages(batch, self.target)

    def send(self, messages: Messages, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Send the datagrams [first, last) in their order, and say of each whether the kernel took it.

        What it did not take is counted in `refusals`, and the rest goes on.
        """
        if self._socket is None or self._send is None:
            raise RuntimeError("start() comes before send()")
        taken = np.ones(last - first, np.bool_)
        at = first
        while at < last:
            wanted = min(MESSAGES_AT_ONCE, last - at)
            sent = self._send(self._socket.fileno(), messages.at(at), wanted, 0)
            number = ctypes.get_errno()
            at += max(sent, 0)
            if sent == wanted:
                continue
            # After a part was sent the kernel forgets the error that stopped it: the queue may still tell it.
            heard = self._listen_to_errors()
            if sent < 0 and not heard and not self._again_after(number):
                self.refusals.not_sent[errno.errorcode.get(number, str(number))] += 1
                taken[at - first] = False
                at += 1
        return taken

    def _again_after(self, number: int) -> bool:
        """Whether the datagram that got this error is to be tried again, after waiting for room where there is none."""
        assert self._socket is not None
        if number == errno.EAGAIN:
            _, writable, _ = select.select((), (self._socket,), (), FULL_WAIT_SECONDS)
            return bool(writable)
        return number == errno.EINTR

    def _hear_errors(self, *, wanted: bool) -> None:
        """Have the kernel tell what the network answers, or no longer: each such answer stops a `sendmmsg`."""
        assert self._socket is not None
        if self.target.family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, int(wanted))
        else:
            self._socket.setsockopt(SOL_IPV6, IPV6_RECVERR, int(wanted))

    def _listen_to_errors(self) -> bool:
        """Whether the network had answered something; it is heard once, since it would halve the speed for ever."""
        assert self._socket is not None
        try:
            _, control, _, _ = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._hear_errors(wanted=False)
        numbers = [struct.unpack_from("=I", content)[0] for _, _, content in control if len(content) >= 4]
        self.refusals.nobody_listens |= errno.ECONNREFUSED in numbers
        return True
