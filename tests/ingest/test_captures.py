"""Capture files → batches of datagrams."""

from __future__ import annotations

import gzip
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.captures import UNSPECIFIED, Captures
from ingest.decoders.datagrams import Datagrams
from shared.errors import ConfigError
from tests.builders import v5_datagram, v5_record
from tests.frames import (
    ARP,
    CLIENT,
    COOKED,
    RAW,
    SECONDS,
    address,
    block,
    cooked,
    ethernet,
    interface,
    ipv4,
    packet,
    pcap,
    section,
    udp,
)

EXPORT = v5_datagram(v5_record())
FRAME = ethernet(ipv4(udp(EXPORT)))
FROM = bytes(10) + b"\xff\xff" + address(CLIENT)
START = SECONDS * 10**9


class Got(NamedTuple):
    """One datagram, out of its batch."""

    source: bytes
    port: int
    time_ns: int
    payload: bytes


def read(captures: Captures) -> list[Got]:
    """Read all files, and give the datagrams of all batches."""
    return [each for batch in captures.batches() for each in unpacked(batch)]


def unpacked(batch: Datagrams) -> Iterator[Got]:
    """The datagrams of a batch."""
    for at in range(len(batch)):
        yield Got(batch.source[at].tobytes(), int(batch.source_port[at]), int(batch.received_ns[at]), batch.payload(at))


def file(folder: Path, content: bytes, name: str = "capture.pcap") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content)
    return path


def exports(count: int) -> list[bytes]:
    """Frames of as many datagrams, each with a source port of its own."""
    return [ethernet(ipv4(udp(EXPORT, port=1000 + at))) for at in range(count)]


@pytest.mark.parametrize(
    ("content", "step_ns"),
    [
        pytest.param(pcap(exports(3)), 1000, id="pcap"),
        pytest.param(pcap(exports(3), order=">"), 1000, id="pcap, big-endian"),
        pytest.param(pcap(exports(3), nanoseconds=True), 1, id="pcap, nanoseconds"),
        pytest.param(pcap(exports(3), nanoseconds=True, order=">"), 1, id="pcap, nanoseconds, big-endian"),
        pytest.param(pcap(exports(3), link_type=1 | 0x4000_0000), 1000, id="pcap that tells of checksums"),
        pytest.param(gzip.compress(pcap(exports(3))), 1000, id="pcap, compressed"),
    ],
)
def test_pcap(tmp_path: Path, content: bytes, step_ns: int) -> None:
    """A pcap of any order and resolution gives its datagrams with source, port and the packets' own times."""
    captures = Captures([file(tmp_path, content)])
    assert read(captures) == [Got(FROM, 1000 + at, START + at * step_ns, EXPORT) for at in range(3)]
    assert captures.datagrams == 3
    assert not captures.faults


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "ticks", "time_ns"),
    [
        pytest.param(None, 1_700_000_000_123_456, 1_700_000_000_123_456_000, id="microseconds by default"),
        pytest.param(9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789, id="nanoseconds"),
        pytest.param(3, 1_700_000_000_123, 1_700_000_000_123_000_000, id="milliseconds"),
        pytest.param(0x80 | 10, 1_700_000_000 << 10 | 512, 1_700_000_000_500_000_000, id="a power of two"),
        pytest.param(0, 2**60, 2**63 - 1, id="beyond all times"),
    ],
)
def test_pcapng(tmp_path: Path, order: str, resolution: int | None, ticks: int, time_ns: int) -> None:
    """A pcapng of any order gives its datagrams; times are in the resolution of their interface."""
    content = section(order=order) + interface(resolution=resolution, order=order) + packet(FRAME, ticks, order=order)
    captures = Captures([file(tmp_path, content, "capture.pcapng")])
    assert read(captures) == [Got(FROM, 4000, time_ns, EXPORT)]
    assert not captures.faults


def test_pcapng_with_interfaces_and_blocks_of_all_kinds(tmp_path: Path) -> None:
    """Interfaces differ in link layer and resolution, sections number them anew, and other blocks are stepped over."""
    content = (
        section()
        + interface()
        + interface(RAW, resolution=9)
        + block(4, bytes(8))  # name resolution
        + packet(FRAME, 1_000_000)
        + packet(ipv4(udp(EXPORT)), 2_000_000_000, at=1)
        + block(3, struct.pack("<I", len(FRAME)) + FRAME)  # a simple packet, which has no time
        + block(5, bytes(12))  # interface statistics
        + section(order=">")
        + interface(COOKED, order=">")
        + packet(cooked(ipv4(udp(EXPORT))), 3_000_000, order=">")
        + block(5, bytes(12), order=">")
    )
    captures = Captures([file(tmp_path, content, "capture.pcapng")])
    assert [got.time_ns for got in read(captures)] == [10**9, 2 * 10**9, 2 * 10**9, 3 * 10**9]
    assert not captures.faults


def test_what_is_not_flow_export_is_counted(tmp_path: Path) -> None:
    """All else in a capture is left out, and counted by its reason."""
    frames: list[bytes | tuple[bytes, int]] = [
        ethernet(bytes(46), ARP),
        ethernet(ipv4(bytes(20), protocol=6)),
        ethernet(ipv4(udp(b"\x12\x34 a question"))),
        (FRAME[:60], len(FRAME)),
        FRAME,
        ethernet(ipv4(udp(EXPORT)[:40], more=True)),
    ]
    captures = Captures([file(tmp_path, pcap(frames))])
    assert len(read(captures)) == 1
    assert captures.faults == {"not_udp": 2, "not_flow_export": 1, "cut_by_snaplen": 1, "fragment_missing": 1}


def test_fragments_may_lie_in_two_files(tmp_path: Path) -> None:
    """Files are read as one stream, as they were written when a capture went over to its next file."""
    datagram = udp(EXPORT)
    halves = [ethernet(ipv4(datagram[:40], more=True)), ethernet(ipv4(datagram[40:], begin=40))]
    paths = [file(tmp_path, pcap([half]), f"{at}.pcap") for at, half in enumerate(halves)]
    captures = Captures(paths)
    assert [got.payload for got in read(captures)] == [EXPORT]
    assert not captures.faults


@pytest.mark.parametrize(
    ("payload", "time_ns"),
    [
        pytest.param(v5_datagram(v5_record(), unix_nanoseconds=123_456_789), START + 123_456_789, id="v5"),
        pytest.param(struct.pack(">HHIIII", 9, 0, 1, SECONDS, 1, 1), START, id="v9"),
        pytest.param(struct.pack(">HHIII", 10, 16, SECONDS, 1, 1), START, id="IPFIX"),
        pytest.param(b"\0\0\0\x05" + bytes(24), 5 * 10**9, id="sFlow: when the file was written"),
        pytest.param(b"\0\x09\0", 5 * 10**9, id="cut in the header"),
        pytest.param(b"", 5 * 10**9, id="empty"),
        pytest.param(b"\x12\x34", 5 * 10**9, id="of no protocol"),
    ],
)
@pytest.mark.parametrize("name", ["one.dat", "one.bin", "ONE.DAT"])
def test_raw_datagrams(tmp_path: Path, payload: bytes, time_ns: int, name: str) -> None:
    """A raw file is one datagram from ::, received when it was exported, whatever its bytes are."""
    path = file(tmp_path, payload, name)
    os.utime(path, (5, 5))
    assert read(Captures([path])) == [Got(UNSPECIFIED, 0, time_ns, payload)]


def test_a_raw_file_that_no_datagram_can_be(tmp_path: Path) -> None:
    """What does not fit a datagram is counted, and costs no memory."""
    captures = Captures([file(tmp_path, b"\0\x05" + bytes(65534), "long.dat"), file(tmp_path, EXPORT, "next.dat")])
    assert [got.payload for got in read(captures)] == [EXPORT]
    assert captures.faults == {"too_long": 1}


def test_the_order_of_files_is_kept(tmp_path: Path) -> None:
    """Datagrams come in the order of the files, and of the packets in each."""
    paths = [
        file(tmp_path, pcap(exports(2)), "b.pcap"),
        file(tmp_path, EXPORT, "c.dat"),
        file(tmp_path, section() + interface() + packet(FRAME, 1), "a.pcapng"),
    ]
    assert [got.port for got in read(Captures(paths))] == [1000, 1001, 0, 4000]


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        pytest.param({"max_datagrams": 4}, [4, 4, 2], id="number"),
        pytest.param({"max_bytes": 3 * len(EXPORT)}, [3, 3, 3, 1], id="bytes"),
        pytest.param({"max_datagrams": 5}, [5, 5], id="nothing over"),
        pytest.param({}, [10], id="all in one"),
    ],
)
def test_batches_are_bounded(tmp_path: Path, bounds: dict[str, int], sizes: Sequence[int]) -> None:
    """A batch holds a bounded number of datagrams and of bytes; none is empty."""
    captures = Captures([file(tmp_path, pcap(exports(10)))], **bounds)  # type: ignore[arg-type]  # ints alone
    assert [len(batch) for batch in captures.batches()] == sizes


def test_every_end_of_a_pcap(tmp_path: Path) -> None:
    """Wherever a pcap ends, the packets before are read; an end inside of a packet is counted."""
    whole = pcap(exports(2))
    each = 16 + len(FRAME)
    for end in range(24, len(whole) + 1):
        captures = Captures([file(tmp_path, whole[:end])])
        assert len(read(captures)) == (end - 24) // each
        assert captures.faults == ({} if (end - 24) % each == 0 else {"file_cut_short": 1})


def test_every_end_of_a_pcapng(tmp_path: Path) -> None:
    """Wherever a pcapng ends, the packets before are read; an end inside of a block is counted."""
    parts = [section(), interface(), packet(FRAME, 1), packet(FRAME, 2), block(5, bytes(12))]
    whole = b"".join(parts)
    ends = [sum(map(len, parts[:at])) for at in range(len(parts) + 1)]
    for end in range(len(parts[0]), len(whole) + 1):
        captures = Captures([file(tmp_path, whole[:end], "capture.pcapng")])
        assert len(read(captures)) == sum(end >= ends[at] for at in (3, 4))
        assert captures.faults == ({} if end in ends else {"file_cut_short": 1})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(block(6, bytes(40), length=0xFFFF_FFF0), id="a block of four gigabytes"),
        pytest.param(block(6, bytes(40), length=8), id="a block shorter than its header"),
        pytest.param(block(6, bytes(8)), id="a packet shorter than its header"),
        pytest.param(block(1, bytes(2)), id="an interface shorter than its header"),
        pytest.param(packet(FRAME, 1)[:-4] + bytes(4), id="two lengths that differ"),
        pytest.param(b"\x0a\x0d\x0d\x0a" + bytes(24), id="a section of no order"),
    ],
)
def test_a_damaged_pcapng(tmp_path: Path, damage: bytes) -> None:
    """What is before the damage is read, the damage is counted, and no memory is taken for what it claims."""
    content = section() + interface() + packet(FRAME, 1) + damage + packet(FRAME, 2)
    captures = Captures([file(tmp_path, content, "capture.pcapng")])
    assert [got.time_ns for got in read(captures)][:1] == [1000]
    assert captures.faults == {"file_cut_short": 1}


def test_compressed_and_damaged(tmp_path: Path) -> None:
    """A compressed file that ends too early is read as far as it goes."""
    captures = Captures([file(tmp_path, gzip.compress(pcap(exports(50)))[:-20])])
    read(captures)
    assert captures.faults == {"file_cut_short": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "no pcap or pcapng", id="empty"),
        pytest.param(b"PK\3\4 an archive", "no pcap or pcapng", id="something else"),
        pytest.param(EXPORT, r"\*\.bin or \*\.dat", id="a raw datagram by another name"),
        pytest.param(b"\x1f\x8b\0\0", "no pcap or pcapng", id="compressed, it says"),
        pytest.param(gzip.compress(b"text"), "no pcap or pcapng", id="compressed, and something else"),
    ],
)
def test_a_file_of_no_known_kind(tmp_path: Path, content: bytes, says: str) -> None:
    """A file that is no capture is named, before anything is read."""
    paths = [file(tmp_path, EXPORT, "good.dat"), file(tmp_path, content, "bad.pcap")]
    with pytest.raises(ConfigError, match=rf"bad\.pcap.*{says}"):
        Captures(paths).check()


@pytest.mark.parametrize("content", [pytest.param(pcap([])[:20], id="pcap"), pytest.param(section()[:20], id="pcapng")])
def test_a_file_without_a_whole_header(tmp_path: Path, content: bytes) -> None:
    """A capture that ends in its first header cannot be read."""
    captures = Captures([file(tmp_path, content)])
    with pytest.raises(ConfigError, match="first header"):
        read(captures)


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named with the system's reason."""
    for path, says in (
        (tmp_path / "none.pcap", "No such file"),
        (tmp_path / "none.dat", "No such file"),
        (tmp_path, "director"),
    ):
        with pytest.raises(ConfigError, match=says):
            Captures([path]).check()
        with pytest.raises(ConfigError, match=says):
            read(Captures([path]))


def test_progress(tmp_path: Path) -> None:
    """What is told of progress adds up to the size of the files."""
    paths = [file(tmp_path, pcap(exports(3000)), "a.pcap"), file(tmp_path, EXPORT, "b.dat")]
    told: list[int] = []
    captures = Captures(paths, advance=told.append)
    size = captures.check()
    read(captures)
    assert sum(told) == size == sum(path.stat().st_size for path in paths)
    assert len([step for step in told if step]) > 2


def test_a_pipe(tmp_path: Path) -> None:
    """A pipe, which can be read but once, does as well as a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    captures = Captures([pipe])
    captures.check()
    writer = threading.Thread(target=pipe.write_bytes, args=(pcap(exports(5)),))
    writer.start()
    assert len(read(captures)) == 5
    writer.join()
