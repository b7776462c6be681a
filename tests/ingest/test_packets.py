"""Frames of a capture → UDP datagrams."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.packets import LINK_LAYERS, CaptureFault, Fragments, UdpDatagram, udp_datagram
from tests.builders import v1_datagram, v7_datagram
from tests.frames import (
    ARP,
    CLIENT,
    CLIENT6,
    COOKED,
    COOKED_2,
    ETHERNET,
    IPV6,
    LOOP,
    NULL,
    RAW,
    address,
    authentication,
    cooked,
    cooked2,
    ethernet,
    extension,
    fragment6,
    ipv4,
    ipv6,
    udp,
)
from tests.fuzz import looked_at

EXPORT = b"\0\x05" + bytes(range(100))
V1, V7 = v1_datagram(bytes(48), bytes(48)), v7_datagram(bytes(52))
STUN = bytes.fromhex("000100082112a442") + bytes(20)
"""A request of another protocol, which begins with 1, and then with its length."""
FOUND = UdpDatagram(bytes(10) + b"\xff\xff" + address(CLIENT), 4000, EXPORT)
FOUND6 = UdpDatagram(address(CLIENT6), 4000, EXPORT)
SECOND = 10**9


class Reading:
    """One capture's reader: what frames gave, and what was lost on the way."""

    def __init__(self, **bounds: int) -> None:
        self.lost: Counter[CaptureFault] = Counter()
        self.fragments = Fragments(lambda reason: self.lost.update([reason]), **bounds)

    def read(
        self, frame: bytes, link_type: int = ETHERNET, *, wire_bytes: int | None = None, time_ns: int = 0
    ) -> UdpDatagram | CaptureFault | None:
        """Read one frame."""
        wire_bytes = len(frame) if wire_bytes is None else wire_bytes
        return udp_datagram(link_type, frame, wire_bytes=wire_bytes, time_ns=time_ns, fragments=self.fragments)


@pytest.mark.parametrize(
    ("frame", "link_type", "found"),
    [
        pytest.param(ethernet(ipv4(udp(EXPORT))), ETHERNET, FOUND, id="Ethernet, IPv4"),
        pytest.param(ethernet(ipv6(udp(EXPORT)), IPV6), ETHERNET, FOUND6, id="Ethernet, IPv6"),
        pytest.param(ethernet(ipv4(udp(EXPORT)) + bytes(18)), ETHERNET, FOUND, id="bytes that fill the frame"),
        pytest.param(ethernet(ipv4(udp(EXPORT)), tags=[0x8100]), ETHERNET, FOUND, id="VLAN"),
        pytest.param(ethernet(ipv4(udp(EXPORT)), tags=[0x88A8, 0x8100]), ETHERNET, FOUND, id="VLANs stacked"),
        pytest.param(ethernet(ipv6(udp(EXPORT)), IPV6, tags=[0x9100, 0x8100, 0x8100]), ETHERNET, FOUND6, id="three VLANs"),
        pytest.param(cooked(ipv4(udp(EXPORT))), COOKED, FOUND, id="Linux cooked"),
        pytest.param(cooked(b"\0\x64\x08\0" + ipv4(udp(EXPORT)), 0x8100), COOKED, FOUND, id="Linux cooked, VLAN"),
        pytest.param(cooked2(ipv6(udp(EXPORT)), IPV6), COOKED_2, FOUND6, id="Linux cooked, version 2"),
        pytest.param(ipv4(udp(EXPORT)), RAW, FOUND, id="raw IPv4"),
        pytest.param(ipv4(udp(V1)), RAW, FOUND._replace(payload=V1), id="NetFlow v1"),
        pytest.param(ipv4(udp(V7)), RAW, FOUND._replace(payload=V7), id="NetFlow v7"),
        pytest.param(ipv6(udp(EXPORT)), RAW, FOUND6, id="raw IPv6"),
        pytest.param(ipv4(udp(EXPORT)), 228, FOUND, id="raw, declared IPv4"),
        pytest.param(ipv6(udp(EXPORT)), 229, FOUND6, id="raw, declared IPv6"),
        pytest.param(b"\2\0\0\0" + ipv4(udp(EXPORT)), NULL, FOUND, id="loopback, little-endian"),
        pytest.param(b"\0\0\0\x1e" + ipv6(udp(EXPORT)), NULL, FOUND6, id="loopback, big-endian"),
        pytest.param(b"\0\0\0\x02" + ipv4(udp(EXPORT)), LOOP, FOUND, id="OpenBSD's loopback"),
        pytest.param(ipv4(udp(EXPORT), options=bytes(40)), RAW, FOUND, id="IPv4 options"),
        pytest.param(ipv4(udp(EXPORT), total=0), RAW, FOUND, id="IPv4 without its length, as network cards leave it"),
        pytest.param(ipv4(udp(EXPORT, length=0)), RAW, FOUND, id="UDP without its length"),
        pytest.param(ipv6(udp(EXPORT), length=0), RAW, FOUND6, id="IPv6 without its length"),
        pytest.param(
            ipv6(extension(60) + extension(43, 2) + extension(17, 1) + udp(EXPORT), header=0),
            RAW,
            FOUND6,
            id="IPv6 extension headers",
        ),
        pytest.param(ipv6(authentication(17) + udp(EXPORT), header=51), RAW, FOUND6, id="IPv6 authentication"),
        pytest.param(
            ipv6(fragment6(17, 0, more=False) + udp(EXPORT), header=44), RAW, FOUND6, id="IPv6 fragment that is all (RFC 6946)"
        ),
        pytest.param(ipv4(udp(b"\0\x09" + bytes(18))), RAW, FOUND._replace(payload=b"\0\x09" + bytes(18)), id="v9"),
        pytest.param(ipv4(udp(b"\0\x0a" + bytes(14))), RAW, FOUND._replace(payload=b"\0\x0a" + bytes(14)), id="IPFIX"),
        pytest.param(ipv4(udp(b"\0\0\0\x05" + bytes(8))), RAW, FOUND._replace(payload=b"\0\0\0\x05" + bytes(8)), id="sFlow"),
    ],
)  # fmt: skip
def test_a_datagram_is_found(frame: bytes, link_type: int, found: UdpDatagram) -> None:
    """Whatever it is wrapped in, a flow export is found with its source and its port."""
    reading = Reading()
    assert reading.read(frame, link_type) == found
    assert not reading.lost


@pytest.mark.parametrize(
    ("frame", "link_type", "wire_bytes", "reason"),
    [
        pytest.param(ethernet(bytes(46), ARP), ETHERNET, None, "not_udp", id="ARP"),
        pytest.param(ethernet(ipv4(bytes(20), protocol=6)), ETHERNET, None, "not_udp", id="TCP"),
        pytest.param(ethernet(ipv4(bytes(8), protocol=6, begin=80)), ETHERNET, None, "not_udp", id="a fragment of TCP"),
        pytest.param(ethernet(ipv6(bytes(20), header=6), IPV6), ETHERNET, None, "not_udp", id="TCP over IPv6"),
        pytest.param(ethernet(ipv6(bytes(20), header=50), IPV6), ETHERNET, None, "not_udp", id="encrypted"),
        pytest.param(ethernet(ipv6(b"", header=59), IPV6), ETHERNET, None, "not_udp", id="no next header"),
        pytest.param(b"\xff" * 40, RAW, None, "not_udp", id="raw, and no IP"),
        pytest.param(ethernet(ipv4(udp(b"\0\7" + bytes(30)))), ETHERNET, None, "not_flow_export", id="another version"),
        pytest.param(ethernet(ipv4(udp(b"\0\0\0\4"))), ETHERNET, None, "not_flow_export", id="sFlow 4"),
        pytest.param(ethernet(ipv4(udp(STUN))), ETHERNET, None, "not_flow_export", id="1 as STUN begins"),
        pytest.param(ethernet(ipv4(udp(V1 + b"\0"))), ETHERNET, None, "not_flow_export", id="v1 of another size"),
        pytest.param(ethernet(ipv4(udp(V7[:-1]))), ETHERNET, None, "not_flow_export", id="v7 of another size"),
        pytest.param(ethernet(ipv4(udp(b""))), ETHERNET, None, "not_flow_export", id="no payload"),
        pytest.param(ethernet(ipv4(udp(EXPORT))), 147, None, "unknown_link_type", id="a link layer that is not known"),
        pytest.param(ethernet(ipv4(udp(EXPORT)))[:96], ETHERNET, 144, "cut_by_snaplen", id="cut in the payload"),
        pytest.param(ethernet(ipv6(udp(EXPORT)), IPV6)[:96], ETHERNET, 164, "cut_by_snaplen", id="cut in IPv6's payload"),
        pytest.param(ipv4(udp(EXPORT), total=0)[:96], RAW, 130, "cut_by_snaplen", id="cut, without IPv4's length"),
        pytest.param(ipv4(udp(EXPORT, length=0))[:96], RAW, 130, "cut_by_snaplen", id="cut, without UDP's length"),
        pytest.param(ipv6(udp(EXPORT, length=0), length=0)[:96], RAW, 150, "cut_by_snaplen", id="cut, without any length"),
        pytest.param(ethernet(ipv4(udp(EXPORT)))[:38], ETHERNET, 144, "cut_by_snaplen", id="cut in the UDP header"),
        pytest.param(ethernet(ipv4(udp(EXPORT)))[:10], ETHERNET, 144, "cut_by_snaplen", id="cut in the Ethernet header"),
        pytest.param(ipv4(udp(EXPORT)[:50], more=True, total=70)[:60], RAW, 70, "cut_by_snaplen", id="a fragment that is cut"),
        pytest.param(ethernet(ipv4(udp(b"\0\7" + bytes(90))))[:96], ETHERNET, 142, "not_flow_export", id="cut, and not ours"),
        pytest.param(ethernet(ipv4(udp(EXPORT)))[:96], ETHERNET, None, "bad_packet", id="shorter than its length"),
        pytest.param(ipv6(udp(EXPORT))[:96], RAW, None, "bad_packet", id="shorter than IPv6's length"),
        pytest.param(ipv4(udp(EXPORT, length=7)), RAW, None, "bad_packet", id="UDP shorter than its header"),
        pytest.param(ipv4(udp(EXPORT, length=500)), RAW, None, "bad_packet", id="UDP longer than its packet"),
        pytest.param(ipv4(udp(EXPORT), total=19), RAW, None, "bad_packet", id="IPv4 shorter than its header"),
        pytest.param(b"\x42" + ipv4(udp(EXPORT))[1:], RAW, None, "bad_packet", id="IPv4 header too short"),
        pytest.param(ethernet(ipv4(udp(EXPORT), version=5)), ETHERNET, None, "bad_packet", id="IPv4 of another version"),
        pytest.param(ethernet(ipv4(udp(EXPORT)), IPV6), ETHERNET, None, "bad_packet", id="IPv6 of another version"),
        pytest.param(ipv6(extension(60) * 20 + udp(EXPORT), header=60), RAW, None, "bad_packet", id="headers without end"),
        pytest.param(b"", ETHERNET, None, "bad_packet", id="an empty frame"),
        pytest.param(b"", RAW, None, "bad_packet", id="an empty raw frame"),
    ],
)  # fmt: skip
def test_why_there_is_none(frame: bytes, link_type: int, wire_bytes: int | None, reason: str) -> None:
    """A frame that gives no datagram says why."""
    assert Reading().read(frame, link_type, wire_bytes=wire_bytes) == reason


def fragments4(datagram: bytes, size: int) -> list[bytes]:
    """A UDP datagram as IPv4 packets that carry `size` bytes each."""
    return [
        ipv4(datagram[at : at + size], begin=at, more=at + size < len(datagram)) for at in range(0, len(datagram), size)
    ]


def fragments6(datagram: bytes, size: int) -> list[bytes]:
    """A UDP datagram as IPv6 packets that carry `size` bytes each, behind an extension header."""
    return [
        ipv6(
            extension(44) + fragment6(17, at, more=at + size < len(datagram)) + datagram[at : at + size],
            header=0,
        )
        for at in range(0, len(datagram), size)
    ]


LONG = b"\0\x09" + random.Random(1).randbytes(3000)


@pytest.mark.parametrize("order", ["sent", "reversed", "shuffled", "twice"])
@pytest.mark.parametrize("family", [4, 6])
def test_fragments_are_put_together(family: int, order: str) -> None:
    """In whatever order the fragments come, and however often, there is one datagram when the last has come."""
    packets = (fragments4 if family == 4 else fragments6)(udp(LONG), 256)
    if order == "reversed":
        packets.reverse()
    elif order == "shuffled":
        random.Random(2).shuffle(packets)
    elif order == "twice":
        packets = [each for each in packets[:-1] for _ in range(2)] + packets[-1:]
    reading = Reading()
    found = [reading.read(each, RAW) for each in packets]
    assert found[:-1] == [None] * (len(packets) - 1)
    assert found[-1] == (FOUND if family == 4 else FOUND6)._replace(payload=LONG)
    assert len(reading.fragments) == 0
    assert not reading.lost


def test_what_the_fragments_carry_is_looked_at_as_any_other() -> None:
    """Fragments that make no flow export are counted once, as what they make."""
    reading = Reading()
    *before, last = [reading.read(each, RAW) for each in fragments4(udp(bytes(600)), 256)]
    assert before == [None, None]
    assert last == "not_flow_export"


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        pytest.param([(0, 16, True), (8, 24, True)], "fragment_overlap", id="overlapping from behind"),
        pytest.param([(8, 24, True), (0, 16, True)], "fragment_overlap", id="overlapping from before"),
        pytest.param([(0, 16, True), (0, 24, True)], "fragment_overlap", id="the same beginning, another length"),
        pytest.param([(0, 32, True), (8, 16, True)], "fragment_overlap", id="one inside the other"),
        pytest.param([(16, 24, False), (24, 32, True)], "fragment_overlap", id="beyond the last"),
        pytest.param([(24, 32, True), (16, 24, False)], "fragment_overlap", id="a last one before another"),
        pytest.param([(16, 24, False), (24, 32, False)], "fragment_overlap", id="two that are last"),
        pytest.param([(0, 17, True)], "bad_packet", id="a length that is no multiple of 8"),
        pytest.param([(8, 8, True)], "bad_packet", id="an empty one"),
        pytest.param([(65528, 65536, False)], "bad_packet", id="beyond the largest packet"),
        pytest.param([(0, 16, True)], "fragment_missing", id="the end is missing"),
        pytest.param([(16, 24, False)], "fragment_missing", id="the beginning is missing"),
    ],
)
def test_fragments_that_make_no_datagram(pieces: list[tuple[int, int, bool]], reason: str) -> None:
    """Fragments that contradict each other, or are not all there, cost their datagram, which is counted once."""
    reading = Reading()
    data = random.Random(3).randbytes(65536)
    for begin, end, more in pieces:
        found = reading.fragments.add((b"", b"", 17, 1), begin, data[begin:end], more=more, time_ns=0)
        assert found is None
    # What still comes of a datagram that is given up is not counted again.
    if reason == "fragment_overlap":
        assert reading.fragments.add((b"", b"", 17, 1), 0, data[:8], more=True, time_ns=0) is None
    reading.fragments.close()
    assert reading.lost == {reason: 1}
    assert len(reading.fragments) == 0


def test_fragments_of_several_datagrams_are_kept_apart() -> None:
    """Source, destination and identification tell datagrams apart."""
    reading = Reading()
    halves = [
        [ipv4(part, begin=begin, more=not begin, identification=at, source=source) for begin, part in ((0, udp(EXPORT)[:56]), (56, udp(EXPORT)[56:]))]
        for at, source in ((1, CLIENT), (2, CLIENT), (1, "192.0.2.2"))
    ]  # fmt: skip
    assert [reading.read(first, RAW) for first, _ in halves] == [None] * 3
    found = [reading.read(second, RAW) for _, second in halves]
    assert [each.payload for each in found if isinstance(each, UdpDatagram)] == [EXPORT] * 3


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        pytest.param({"max_datagrams": 10}, "fragment_limit", id="number"),
        pytest.param({"max_bytes": 160}, "fragment_limit", id="bytes"),
        pytest.param({"timeout_ns": 10 * SECOND}, "fragment_missing", id="time"),
    ],
)
def test_fragments_are_bounded(bounds: dict[str, int], reason: str) -> None:
    """However many datagrams are never completed, a bounded number is kept, and the others are counted."""
    reading = Reading(**bounds)
    for at in range(1000):
        reading.fragments.add((b"", b"", 17, at), 0, bytes(16), more=True, time_ns=at * SECOND)
        assert len(reading.fragments) <= 11
    kept = len(reading.fragments)
    assert kept >= 10
    assert reading.lost == {reason: 1000 - kept}


@looked_at(100, 20_000)
@given(st.sampled_from([*LINK_LAYERS, 7]), st.binary(max_size=120), st.integers(0, 200))
def test_any_bytes(link_type: int, frame: bytes, wire_bytes: int) -> None:
    """No bytes whatever make it raise."""
    Reading().read(frame, link_type, wire_bytes=wire_bytes)


@looked_at(100, 20_000)
@given(st.data())
def test_any_change_of_a_packet(data: st.DataObject) -> None:
    """Nor does a packet that is right but for some bytes, or its end."""
    whole = bytearray(
        data.draw(
            st.sampled_from(
                [
                    ethernet(ipv4(udp(EXPORT), options=bytes(8)), tags=[0x8100]),
                    ethernet(fragments6(udp(LONG), 256)[0], IPV6),
                    ethernet(fragments4(udp(LONG), 256)[1]),
                ]
            )
        )
    )
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4)):
        whole[at] = value
    end = data.draw(st.integers(0, len(whole)))
    Reading().read(bytes(whole[:end]), wire_bytes=len(whole))
