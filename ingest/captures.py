"""Capture files → batches of datagrams, as if they had all come from one socket."""

from __future__ import annotations

import gzip
import io
import logging
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapNgReader, RawPcapReader

from ingest.decoders.datagrams import Datagrams
from ingest.packets import MAX_DATAGRAM_BYTES, CaptureFault, Fragments, UdpDatagram, udp_datagram
from shared.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RAW_SUFFIXES: Final = frozenset({".dat", ".bin"})
"""Files that hold the payload of one datagram."""
UNSPECIFIED: Final = bytes(16)
"""The address `::`, from which a raw datagram comes."""

_PCAP: Final = frozenset({b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1"})
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_GZIP: Final = b"\x1f\x8b"
_MAX_READ_BYTES: Final = 64 << 20
"""No block of a capture is larger: whoever says so lies, and must not make us take memory for it."""
_LAST_NS: Final = 2**63 - 1


class _Frame(NamedTuple):
    """A frame, whole or cut, and what the capture says of it; `link_type` by libpcap's numbers."""

    link_type: int
    data: bytes
    wire_bytes: int
    time_ns: int


class Captures:
    """Reads files one after the other, in the order given, and counts what gave no datagram.

    `.dat` and `.bin` files hold one datagram each, which comes from `::` and was received when it was exported (sFlow
    does not say: when its file was written). All other files are pcap or pcapng, compressed by gzip or not; every UDP
    payload of theirs counts that begins like one of the four protocols, whatever its port, at the packet's own time.

    `advance` is called with the number of bytes by which reading has come forward in the files as they are on disk.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        max_datagrams: int = 4096,
        max_bytes: int = 8 << 20,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.faults: Counter[CaptureFault] = Counter()
        self.datagrams = 0
        self._paths = paths
        self._max_datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._advance = advance
        self._fragments = Fragments(self._lose)

    def check(self) -> int:
        """Look at every file before any is read, and return their bytes together.

        Raises ConfigError for a file that is missing, unreadable or of no kind that is known.
        """
        size = 0
        for path in self._paths:
            try:
                status = path.stat()
                size += status.st_size
                # What is no plain file may be read only once.
                if stat.S_ISREG(status.st_mode) and path.suffix.lower() not in RAW_SUFFIXES:
                    _Stream(path).close()
                elif not stat.S_ISFIFO(status.st_mode):
                    path.open("rb").close()
            except OSError as error:
                raise _unreadable(path, error) from error
        return size

    def batches(self) -> Iterator[Datagrams]:
        """Give the datagrams of all files, in their order, in batches of bounded number and size.

        Raises ConfigError when a file cannot be read. What is damaged inside a file is counted in `faults`.
        """
        batch: list[tuple[UdpDatagram, int]] = []
        held = 0
        with _silent_scapy():
            for path in self._paths:
                for datagram, time_ns in self._read(path):
                    batch.append((datagram, time_ns))
                    held += len(datagram.payload)
                    if len(batch) >= self._max_datagrams or held >= self._max_bytes:
                        yield self._pack(batch)
                        batch, held = [], 0
        self._fragments.close()
        if batch:
            yield self._pack(batch)

    def _lose(self, reason: CaptureFault) -> None:
        self.faults[reason] += 1

    def _pack(self, batch: list[tuple[UdpDatagram, int]]) -> Datagrams:
        self.datagrams += len(batch)
        return Datagrams.pack(
            [datagram.payload for datagram, _ in batch],
            [datagram.source for datagram, _ in batch],
            [datagram.port for datagram, _ in batch],
            [time_ns for _, time_ns in batch],
        )

    def _read(self, path: Path) -> Iterator[tuple[UdpDatagram, int]]:
        try:
            if path.suffix.lower() in RAW_SUFFIXES:
                yield from self._read_raw(path)
            else:
                yield from self._read_packets(path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def _read_raw(self, path: Path) -> Iterator[tuple[UdpDatagram, int]]:
        with path.open("rb") as file:
            payload = file.read(MAX_DATAGRAM_BYTES + 1)
        if len(payload) > MAX_DATAGRAM_BYTES:
            self._lose(CaptureFault.TOO_LONG)
            return
        if self._advance is not None:
            self._advance(len(payload))
        exported_ns = export_time_ns(payload)
        yield UdpDatagram(UNSPECIFIED, 0, payload), path.stat().st_mtime_ns if exported_ns is None else exported_ns

    def _read_packets(self, path: Path) -> Iterator[tuple[UdpDatagram, int]]:
        stream = _Stream(path)
        told = 0
        try:
            for count, frame in enumerate(stream.frames()):
                found = udp_datagram(
                    frame.link_type,
                    frame.data,
                    wire_bytes=frame.wire_bytes,
                    time_ns=frame.time_ns,
                    fragments=self._fragments,
                )
                if isinstance(found, UdpDatagram):
                    yield found, frame.time_ns
                elif found is not None:
                    self._lose(found)
                if self._advance is not None and count % 1024 == 0:
                    self._advance(stream.position - told)
                    told = stream.position
            if stream.damaged:
                self._lose(CaptureFault.FILE_CUT_SHORT)
            if self._advance is not None:
                self._advance(stream.position - told)
        finally:
            stream.close()


def export_time_ns(payload: bytes) -> int | None:
    """Return the time that a datagram's header tells, in nanoseconds since 1970; None where it tells none.

    RFC 3954 §5.1, RFC 7011 §3.1; NetFlow v1, v5 and v7 have seconds and nanoseconds. sFlow has an uptime only.
    """
    version = payload[:2]
    if version in {b"\0\x01", b"\0\x05", b"\0\x07"} and len(payload) >= 16:
        seconds, nanoseconds = struct.unpack_from(">II", payload, 8)
        return int(seconds) * 10**9 + int(nanoseconds)
    if version == b"\0\x09" and len(payload) >= 12:
        return int.from_bytes(payload[8:12]) * 10**9
    if version == b"\0\x0a" and len(payload) >= 8:
        return int.from_bytes(payload[4:8]) * 10**9
    return None


class _Stream:
    """A capture file as scapy reads it: counts what was read, and knows whether it ended in the middle of something."""

    def __init__(self, path: Path) -> None:
        """Open the file, and raise ConfigError when it is no capture."""
        self._path = path
        self._disk = path.open("rb")
        self._file = self._disk
        self._unpacked: _Unpacked | None = None
        self._taken = 0
        self._damaged = False
        try:
            if self._disk.peek(2)[:2] == _GZIP:
                self._unpacked = _Unpacked(self._disk)
                self._file = io.BufferedReader(self._unpacked)
            self._magic = self._file.peek(4)[:4]
        except OSError:
            self.close()
            raise
        if self._magic not in _PCAP and self._magic != _PCAPNG:
            self.close()
            raise ConfigError(
                f"{path} is no pcap or pcapng file; the payload of one datagram is read from a file"
                f" named {' or '.join(sorted(f'*{suffix}' for suffix in RAW_SUFFIXES))}"
            )

    @property
    def position(self) -> int:
        """How far the file on disk was read, in bytes; what was read in all where the file has no place."""
        try:
            return self._disk.tell()
        except OSError:
            return self._taken

    def frames(self) -> Iterator[_Frame]:
        """Give the frames until the end, or until where the file is damaged."""
        try:
            reader = (_PcapNgReader if self._magic == _PCAPNG else RawPcapReader)(self)
        except Scapy_Exception as error:
            raise ConfigError(f"{self._path} ends or is damaged in its first header: nothing can be read") from error
        yield from self._pcapng(reader) if self._magic == _PCAPNG else self._pcap(reader)

    def _pcap(self, reader: RawPcapReader) -> Iterator[_Frame]:
        unit_ns = 1 if reader.nano else 1000
        link_type = reader.linktype & 0xFFFF  # above are the length of a checksum, and flags
        taken = self._taken
        for data, told in reader:
            whole = len(data) == told.caplen or len(data) >= MAX_DATAGRAM_BYTES
            if not whole:
                break
            yield _Frame(link_type, data, told.wirelen, told.sec * 10**9 + told.usec * unit_ns)
            taken = self._taken
        # After the last packet nothing follows, not even the part of a header.
        self._damaged |= self._taken != taken

    def _pcapng(self, reader: _PcapNgReader) -> Iterator[_Frame]:
        time_ns = 0
        for data, told in reader:
            if told.tshigh is not None:
                ticks = told.tshigh << 32 | told.tslow
                time_ns = min(ticks * 10**9 // told.tsresol, _LAST_NS)
            # A simple packet has no time: it gets that of the packet before.
            yield _Frame(told.linktype, data, told.wirelen, time_ns)
        self._damaged |= reader.damaged

    @property
    def damaged(self) -> bool:
        """Whether what was read ended where a file does not end. To be asked when the frames are read."""
        return self._damaged or (self._unpacked is not None and self._unpacked.damaged)

    @property
    def taken(self) -> int:
        """How many bytes were read, unpacked."""
        return self._taken

    def read(self, size: int) -> bytes:
        """Read for scapy."""
        if size > _MAX_READ_BYTES:
            self._damaged = True
            return b""
        data = self._file.read(size)
        self._taken += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._disk.close()


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, as far as it can be unpacked."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self.damaged = False
        self._gzip = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read something, at least a byte unless it is the end; what cannot be unpacked is the end, too."""
        view = memoryview(buffer).cast("B")
        try:
            data = self._gzip.read1(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.damaged = True
            return 0
        view[: len(data)] = data
        return len(data)


class _PcapNgReader(RawPcapNgReader):  # type: ignore[misc]  # scapy's classes are not looked at, see pyproject.toml
    """Scapy's reader, for files of several sections, and knowing a clean end from another."""

    damaged = False

    def _read_block_shb(self) -> None:
        # A section numbers its interfaces anew.
        self.interfaces.clear()
        super()._read_block_shb()

    def _read_block(self, size: int = 2 * MAX_DATAGRAM_BYTES) -> tuple[bytes, tuple[object, ...]] | None:
        taken = self.f.taken
        try:
            block: tuple[bytes, tuple[object, ...]] | None = super()._read_block(size)
        except (EOFError, Scapy_Exception, struct.error, ValueError, IndexError) as error:
            self.damaged = self.f.taken != taken
            raise EOFError from error
        return block


@contextmanager
def _silent_scapy() -> Iterator[None]:
    """Keep scapy from writing what is counted here to standard error as well."""
    log = logging.getLogger("scapy.runtime")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {error.strerror or error}")
