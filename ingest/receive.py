"""Datagrams from the sockets of a worker, thousands at a time, into one buffer that is used again and again."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ingest.decoders.datagrams import HEADROOM_BYTES, Datagrams
from ingest.sockets import SO_TIMESTAMPNS

MAX_DATAGRAM_BYTES: Final = 65_535
"""No UDP datagram outside an IPv6 jumbogram is longer."""

_CALL_DATAGRAMS: Final = 1024  # UIO_MAXIOV: recvmmsg takes no more at a time
_LINE_BYTES: Final = 64
_FIRST_BYTES: Final = 2048
"""Datagrams are rarely longer: exporters keep to what Ethernet carries in one piece."""
_LONGEST_PAUSE_NS: Final = 20_000_000

# struct msghdr, mmsghdr and iovec of 64-bit Linux; the nested dtype is padded as C does it.
_MESSAGE: Final = np.dtype(
    [
        ("name", np.uintp),
        ("name_bytes", np.uint32),
        ("parts", np.uintp),
        ("part_count", np.uintp),
        ("control", np.uintp),
        ("control_bytes", np.uintp),
        ("flags", np.int32),
    ],
    align=True,
)
_MULTI_MESSAGE: Final = np.dtype([("header", _MESSAGE), ("length", np.uint32)], align=True)
_PART: Final = np.dtype([("base", np.uintp), ("length", np.uintp)], align=True)
# sockaddr_in and sockaddr_in6 over each other.
_NAME: Final = np.dtype(
    {
        "names": ["family", "port", "ipv4", "ipv6"],
        "formats": [np.uint16, ">u2", (np.uint8, 4), (np.uint8, 16)],
        "offsets": [0, 2, 4, 8],
        "itemsize": 32,
    }
)
_NAME_BYTES: Final = 28
# One cmsghdr with the struct timespec that SO_TIMESTAMPNS brings.
_STAMP: Final = np.dtype(
    [
        ("length", np.uintp),
        ("level", np.int32),
        ("type", np.int32),
        ("seconds", np.int64),
        ("nanoseconds", np.int64),
    ],
    align=True,
)

_IPV4_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)

# Errors that say that we called wrongly: everything else is the network's weather, to be counted and lived with.
_OUR_FAULTS: Final = frozenset({errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK})


class ReceiveFault(StrEnum):
    """What can befall a receiver; a closed list."""

    TOO_LONG = "too_long"
    """A datagram longer than its slot was left out: a drop, in datagrams."""
    SOCKET_ERROR = "socket_error"
    """A socket reported an error of the network, such as an ICMP answer; nothing was dropped by it."""
    NO_KERNEL_TIME = "no_kernel_time"
    """A datagram came without the kernel's time, and got that of the clock; nothing was dropped by it."""


class _Slots:
    """Fixed memory for `count` datagrams, with the structures through which recvmmsg fills it.

    The memory is one anonymous mapping: pages that no datagram has reached yet cost nothing. A slot is a cache line of
    head room and what nearly all datagrams are no longer than; slots lie side by side, an odd number of lines apart, so
    that what is read of each, one step after the other, shares neither pages nor places in the caches. What is longer
    goes on in a second part elsewhere, which has room for all of it, and is put together there.
    """

    def __init__(self, count: int, datagram_bytes: int) -> None:
        assert _LINE_BYTES >= HEADROOM_BYTES
        self.count = count
        self._first_bytes = min(_FIRST_BYTES, datagram_bytes)
        stride, whole_stride = _stride(self._first_bytes), _stride(datagram_bytes)
        number = np.arange(count)
        self._offset: npt.NDArray[np.int64] = number * stride + _LINE_BYTES
        self._whole_offset: npt.NDArray[np.int64] = count * stride + number * whole_stride + _LINE_BYTES
        size = count * (stride + whole_stride)
        self.buffer: npt.NDArray[np.uint8] = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        self._names = np.zeros(count, _NAME)
        self._stamps = np.zeros(count, _STAMP)
        self._parts = np.zeros((count, 2), _PART)
        self._parts["base"][:, 0] = self.buffer.ctypes.data + self._offset
        self._parts["base"][:, 1] = self.buffer.ctypes.data + self._whole_offset + self._first_bytes
        self._parts["length"] = self._first_bytes, datagram_bytes - self._first_bytes
        self._messages = np.zeros(count, _MULTI_MESSAGE)
        header = self._messages["header"]
        header["name"] = self._names.ctypes.data + number * _NAME.itemsize
        header["parts"] = self._parts.ctypes.data + number * 2 * _PART.itemsize
        header["part_count"] = 2 if datagram_bytes > self._first_bytes else 1
        header["control"] = self._stamps.ctypes.data + number * _STAMP.itemsize
        self._first_message: int = self._messages.ctypes.data
        self._recvmmsg = _recvmmsg()

    def reset(self) -> None:
        """Make every slot ready to be filled: the kernel has overwritten the sizes of what it may write."""
        header = self._messages["header"]
        header["name_bytes"] = _NAME_BYTES
        header["control_bytes"] = _STAMP.itemsize

    def fill(self, descriptor: int, first: int, most: int) -> int:
        """Read up to `most` datagrams of a socket into the slots from `first` on; how many, or minus an errno."""
        at = self._first_message + first * _MULTI_MESSAGE.itemsize
        while True:
            got = self._recvmmsg(descriptor, at, most, socket.MSG_DONTWAIT, None)
            if got >= 0:
                return got
            code = ctypes.get_errno()
            if code != errno.EINTR:
                return -code

    def filled_bytes(self, first: int, end: int) -> int:
        """Bytes of the datagrams in these slots."""
        return int(self._messages["length"][first:end].sum())

    def datagrams(self, listener: npt.NDArray[np.int16], now_ns: int, faults: Counter[ReceiveFault]) -> Datagrams:
        """The datagrams of the first slots, as many as `listener` has places; those cut off are left out."""
        count = len(listener)
        header = self._messages["header"][:count]
        names = self._names[:count]
        stamps = self._stamps[:count]

        source = names["ipv6"].copy()
        ipv4 = names["family"] == socket.AF_INET
        if ipv4.any():
            source[ipv4, :12] = _IPV4_MAPPED
            source[ipv4, 12:] = names["ipv4"][ipv4]

        received_ns = stamps["seconds"] * 1_000_000_000 + stamps["nanoseconds"]
        stamped = (
            (header["control_bytes"] >= _STAMP.itemsize)
            & (stamps["level"] == socket.SOL_SOCKET)
            & (stamps["type"] == SO_TIMESTAMPNS)
        )
        if not stamped.all():
            received_ns[~stamped] = now_ns
            faults[ReceiveFault.NO_KERNEL_TIME] += count - int(np.count_nonzero(stamped))

        length = self._messages["length"][:count].astype(np.int64)
        offset = self._put_together(length)
        port = names["port"].astype(np.uint16)
        whole = (header["flags"] & socket.MSG_TRUNC) == 0
        if not whole.all():
            faults[ReceiveFault.TOO_LONG] += count - int(np.count_nonzero(whole))
            offset, length, source = offset[whole], length[whole], source[whole]
            port, received_ns, listener = port[whole], received_ns[whole], listener[whole]
        return Datagrams(self.buffer, offset, length, source, port, received_ns, listener)

    def _put_together(self, length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the datagrams of the first slots begin; what is in two parts has its first copied before the second."""
        offset = self._offset[: len(length)].copy()
        for slot in np.flatnonzero(length > self._first_bytes).tolist():
            begin, whole = int(offset[slot]), int(self._whole_offset[slot])
            self.buffer[whole : whole + self._first_bytes] = self.buffer[begin : begin + self._first_bytes]
            offset[slot] = whole
        return offset


def _stride(datagram_bytes: int) -> int:
    """Bytes from one slot to the next, for datagrams no longer than this."""
    lines = -(-datagram_bytes // _LINE_BYTES) + 1
    return (lines | 1) * _LINE_BYTES


def _recvmmsg() -> Callable[..., int]:
    function: Any = ctypes.CDLL(None, use_errno=True).recvmmsg
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return cast("Callable[..., int]", function)


class Receiver:
    """Reads what comes to the sockets of one worker, in batches.

    A batch ends when its slots are full, at `max_bytes`, at its age, or when `wake` is readable. At low rates that is
    the age; at high rates, what came while the last batch was decoded is read at once. Between two reads of a batch it
    sleeps for up to 20 ms (less where a small receive buffer would fill meanwhile), to be woken a few times per batch
    and not for every datagram. Sockets take turns, so that one that is flooded does not starve the others.

    Memory: 66 KiB of address space a slot, of which those pages are real that a datagram has reached since the start;
    264 MiB for 4,096 slots when all datagrams are as long as UDP allows, 8 MiB when none is longer than 2,048 bytes.

    Args:
        sockets: one per listener, in the order of the configuration; `Datagrams.listener` is the index in here. They
            stay the caller's, and stay open as long as the receiver is used.
        wake: descriptor that ends a wait when it is readable; its owner reads it empty.
        slots: datagrams of a batch.
        max_bytes: payload bytes after which no more is read for a batch, which bounds the records to decode at a time.
            What one more read brings may exceed it.
        datagram_bytes: a longer datagram is left out and counted.
        clock_ns: time of day, for a datagram that comes without the kernel's.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        wake: int | None = None,
        slots: int = 4096,
        max_bytes: int = 2_000_000,
        datagram_bytes: int = MAX_DATAGRAM_BYTES,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.last_error = ""
        """The latest SOCKET_ERROR in the system's words, for a log line."""
        self._descriptors = tuple(member.fileno() for member in sockets)
        self._index = {descriptor: index for index, descriptor in enumerate(self._descriptors)}
        self._wake = wake
        self._max_bytes = max_bytes
        self._clock_ns = clock_ns
        self._slots = _Slots(slots, datagram_bytes)
        self._faults = Counter[ReceiveFault]()
        self._turn = 0
        self._mean_bytes = 512
        # At 1 GB/s a byte takes a nanosecond: a pause of as many as the kernel's buffer has bytes cannot fill it.
        buffers = (member.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for member in sockets)
        self._pause_ns = min(_LONGEST_PAUSE_NS, *buffers)
        self._poll = select.poll()
        for descriptor in (*self._descriptors, *(() if wake is None else (wake,))):
            self._poll.register(descriptor, select.POLLIN)

    def receive(self, wait_ns: int, max_age_ns: int) -> Datagrams | None:
        """Wait for a batch; None when nothing came in time.

        Blocks up to `wait_ns` for the first datagram, and up to `max_age_ns` more for others, or until `wake` is
        readable. With both 0 it takes what is queued and does not block; None then means that the sockets were dry.
        The batch is valid until the next call. What was received is the batch and the TOO_LONG of `take_faults`.

        Raises:
            OSError: a descriptor is no socket or was closed. Errors of the network are counted, never raised.
        """
        slots = self._slots
        slots.reset()
        listener = np.empty(slots.count, np.int16)
        filled = filled_bytes = 0
        deadline_ns = time.monotonic_ns() + wait_ns
        while True:
            left_ns = deadline_ns - time.monotonic_ns()
            readable, woken = self._wait(max(0, left_ns))
            begin, dry = filled, True
            for descriptor in readable:
                most = self._most(filled, filled_bytes)
                got = slots.fill(descriptor, filled, most) if most > 0 else 0
                if got < 0:
                    self._count_error(-got)
                    continue
                dry = dry and got < most
                listener[filled : filled + got] = self._index[descriptor]
                filled_bytes += slots.filled_bytes(filled, filled + got)
                filled += got
            now_ns = time.monotonic_ns()
            if filled and not begin:
                deadline_ns = now_ns + max_age_ns
            if woken or now_ns >= deadline_ns or self._most(filled, filled_bytes) <= 0:
                break
            if dry:
                time.sleep(min(self._pause_ns, deadline_ns - now_ns) / 1e9)
        if not filled:
            return None
        self._mean_bytes = max(1, filled_bytes // filled)
        batch = slots.datagrams(listener[:filled], self._clock_ns(), self._faults)
        return batch if len(batch) else None

    def take_faults(self) -> Counter[ReceiveFault]:
        """What befell since the last call, and how often."""
        taken, self._faults = self._faults, Counter[ReceiveFault]()
        return taken

    def _wait(self, left_ns: int) -> tuple[list[int], bool]:
        """Descriptors of the sockets to read, beginning with another each time, and whether `wake` is readable."""
        ready = dict(self._poll.poll(left_ns / 1e6))
        woken = ready.pop(self._wake, 0) != 0 if self._wake is not None else False
        for descriptor, events in ready.items():
            if events & select.POLLNVAL:
                raise OSError(errno.EBADF, f"descriptor {descriptor} of a listener was closed while it was in use")
        self._turn = (self._turn + 1) % len(self._descriptors)
        order = (*self._descriptors[self._turn :], *self._descriptors[: self._turn])
        return [descriptor for descriptor in order if descriptor in ready], woken

    def _most(self, filled: int, filled_bytes: int) -> int:
        """Datagrams that the next read may bring; 0 or less when the batch is complete."""
        left_bytes = self._max_bytes - filled_bytes
        if left_bytes <= 0:
            return 0
        # As long as the last ones were, that many fill the batch; a few more, not to end it in small steps.
        return min(_CALL_DATAGRAMS, self._slots.count - filled, left_bytes // self._mean_bytes + 16)

    def _count_error(self, code: int) -> None:
        if code == errno.EAGAIN:  # the poll saw a datagram whose checksum was wrong
            return
        if code in _OUR_FAULTS:
            raise OSError(code, os.strerror(code))
        self._faults[ReceiveFault.SOCKET_ERROR] += 1
        self.last_error = os.strerror(code)
