"""Sampled frames inside records of NetFlow v9 and IPFIX, from bytes to columns."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.decoders.sections import LONGEST_SECTION_BYTES
from tests import sflow_builders as make
from tests.builders import (
    VARIABLE,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    ipv4,
    mac,
    mapped,
    number,
    sub_template_list,
    template,
    variable,
)
from tests.ingest.collector import Collector, Row, flows, nothing_wrong, one, rows, told
from tests.ingest.decoders.known_elements import IPFIX, V9
from tests.ingest.decoders.known_packets import LINK, PACKETS, TCP, TUNNELS, UDP, Sampled, four, six
from tests.sflow_builders import ethernet, ipv4_packet, ipv6_packet, meta_data, mpls, tcp, udp, vlan, vxlan

FRAME, LAYER_2, IP = 315, 104, 313
ROOM = 160
"""Bytes that a field of fixed length has, beyond what any of the packets has."""
FRAMES = [pytest.param(sampled, id=sampled.name) for sampled in PACKETS if sampled.protocol == make.ETHERNET]
NOT_EMPTY = [each for each in FRAMES if each.id != "nothing"]


def section(packet: bytes, element: int = FRAME, *more: tuple[int, int, int], frame_bytes: int = 1514) -> Row:
    """What a record tells that has a section of variable length, the frame's length, and more elements."""
    fields = [field(312, 2), *(field(number_, length) for number_, length, _ in more), field(element, VARIABLE)]
    content = number(frame_bytes, 2) + b"".join(number(value, length) for _, length, value in more) + variable(packet)
    decoded = Collector().feed(flows(IPFIX, fields, content))
    assert nothing_wrong(decoded)
    return told(one(decoded))


@pytest.mark.parametrize("sampled", FRAMES)
@pytest.mark.parametrize("element", [FRAME, LAYER_2], ids=["315", "104"])
def test_a_frame_tells_what_it_tells_in_sflow(sampled: Sampled, element: int) -> None:
    """A section is taken apart as a sampled header is; it is a packet, and 312 tells its length."""
    counts = {"packets": 1, "bytes": 1514} if sampled.packet else {"bytes": 1514}
    assert section(sampled.packet, element) == {**sampled.expected, **counts}


@pytest.mark.parametrize("sampled", NOT_EMPTY)
@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_a_section_may_be_of_fixed_length(sampled: Sampled, protocol: int) -> None:
    """A field of fixed length is filled up with zeros behind a short frame."""
    size = max(ROOM, len(sampled.packet))
    fields = [field(312, 2), field(410, 2), field(FRAME, size)]
    content = number(1514, 2) + number(len(sampled.packet), 2) + sampled.packet.ljust(size, b"\0")
    row = told(one(Collector().feed(flows(protocol, fields, content))))
    assert row == {**sampled.expected, "packets": 1, "bytes": 1514}


@pytest.mark.parametrize("sampled", [pytest.param(sampled, id=sampled.name) for sampled in TUNNELS])
def test_a_tunnel_is_entered_when_it_is_configured(sampled: Sampled) -> None:
    """With its kind in `decapsulate` the inner header is the flow; with others, the outer one stays."""
    if sampled.protocol != make.ETHERNET or sampled.tunnel is None:
        pytest.skip("begins with no frame")
    payload = flows(IPFIX, [field(312, 2), field(FRAME, VARIABLE)], number(900, 2) + variable(sampled.packet))
    counts = {"packets": 1, "bytes": 900}
    entered = Collector(decapsulate={sampled.tunnel}).feed(payload)
    assert told(one(entered)) == {**sampled.inner, **counts}
    others = {"gre", "ipip", "vxlan", "geneve"} - {sampled.tunnel}
    assert told(one(Collector(decapsulate=others).feed(payload))) == {**sampled.expected, **counts}


PACKET = ethernet(vlan(10, meta_data(55, ipv4_packet(tcp()))))
TOLD = {**LINK, **four(), **TCP, "src_vlan": 10, "src_sgt": 55}


def test_what_the_record_says_itself_stands() -> None:
    """A frame fills what the record leaves open, and nothing that it says, be it 0."""
    fields = [field(FRAME, VARIABLE), field(8, 4), field(7, 2), field(58, 2), field(1, 8), field(2, 8), field(56, 6)]
    own = ipv4("203.0.113.9") + number(0, 2) + number(77, 2) + number(9000, 8) + number(6, 8)
    decoded = Collector().feed(flows(IPFIX, fields, variable(PACKET) + own + mac("02:00:5e:00:00:09")))
    assert told(one(decoded)) == TOLD | {
        "src_addr": mapped("203.0.113.9"),
        "src_port": 0,
        "src_vlan": 77,
        "bytes": 9000,
        "packets": 6,
        "src_mac": mac("02:00:5e:00:00:09"),
    }


def test_records_of_one_layout_have_frames_of_their_own() -> None:
    """Each record is filled from its own frame; one with an empty section has nothing of it."""
    fields = [field(7, VARIABLE), field(FRAME, VARIABLE), field(312, 2)]
    frames = [
        ethernet(ipv4_packet(tcp())),
        b"",
        ethernet(mpls(16, 17, content=ipv6_packet(udp()))),
        ethernet(bytes(28), etype=0x0806),
    ]
    ports = [b"", b"\0\7", b"\0\7", b""]
    records = [
        variable(port) + variable(frame) + number(100 + at, 2)
        for at, (port, frame) in enumerate(zip(ports, frames, strict=True))
    ]
    found = [told(row) for row in rows(Collector().feed(flows(IPFIX, fields, *records)))]
    assert found == [
        {**LINK, **four(), **TCP, "packets": 1, "bytes": 100},
        {"src_port": 7, "bytes": 101},
        {**LINK, **six(), **UDP, "src_port": 7, "mpls_labels": [16, 17], "packets": 1, "bytes": 102},
        {**LINK, "etype": 0x0806, "packets": 1, "bytes": 103},
    ]


TYPES: list[Any] = [
    pytest.param(FRAME, [(408, 2, 1)], True, id="Ethernet"),
    pytest.param(FRAME, [(408, 1, 1)], True, id="Ethernet, in one byte"),
    pytest.param(FRAME, [(408, 2, 2)], False, id="802.11"),
    pytest.param(FRAME, [(408, 2, 0)], False, id="no type"),
    pytest.param(FRAME, [(408, 8, 1 << 40)], False, id="a type beyond all"),
    pytest.param(FRAME, [(409, 2, 0)], True, id="from the beginning"),
    pytest.param(FRAME, [(409, 2, 14)], False, id="from elsewhere"),
    pytest.param(LAYER_2, [(102, 2, 0)], True, id="104, from the beginning"),
    pytest.param(LAYER_2, [(102, 2, 14)], False, id="104, from elsewhere"),
    pytest.param(LAYER_2, [(409, 2, 14)], True, id="104 has an offset of its own"),
]


@pytest.mark.parametrize(("element", "more", "read"), TYPES)
def test_only_frames_of_ethernet_are_taken_apart(element: int, more: list[tuple[int, int, int]], read: bool) -> None:
    """408 tells the type of a frame, 409 (102 for 104) where a section begins in it; either way it is a packet."""
    counts = {"packets": 1, "bytes": 1514}
    assert section(PACKET, element, *more) == ({**TOLD, **counts} if read else counts)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(ipv4_packet(tcp()), {**four(), **TCP}, id="IPv4"),
        pytest.param(ipv6_packet(udp()), {**six(), **UDP}, id="IPv6"),
        pytest.param(ipv4_packet(vxlan(7, ethernet(ipv4_packet(tcp())))), {"vni": 7}, id="VXLAN"),
        pytest.param(bytes(40), {}, id="neither"),
    ],
)
def test_a_section_may_begin_with_ip(packet: bytes, expected: Row) -> None:
    """313 has the beginning of an IP packet, whose first bits tell which; 408 is of frames and means nothing to it."""
    row = section(packet, IP, (408, 2, 2))
    assert expected.items() <= row.items()
    assert "src_mac" not in row
    assert (row["packets"], row["bytes"]) == (1, 1514)


def test_a_frame_is_better_than_a_packet() -> None:
    """Of several sections in one template 315 counts, then 104, then 313."""
    frame, other, packet = ethernet(ipv4_packet(tcp(dst_port=1))), ethernet(ipv4_packet(tcp(2))), ipv4_packet(tcp(3))
    for elements, port in (((IP, LAYER_2, FRAME), 1), ((IP, LAYER_2), 2), ((IP,), 3)):
        content = {FRAME: frame, LAYER_2: other, IP: packet}
        payload = flows(
            IPFIX, [field(each, VARIABLE) for each in elements], b"".join(variable(content[each]) for each in elements)
        )
        assert one(Collector().feed(payload))["dst_port"] == port


ARP = ethernet(bytes(28), etype=0x0806)
TUNNEL = ethernet(ipv4_packet(vxlan(7, ethernet(ipv4_packet(tcp())))))
LENGTHS: list[Any] = [
    pytest.param([(312, 2, 1514)], PACKET, 1514, id="312"),
    pytest.param([(312, 2, 0)], PACKET, len(PACKET), id="312 of zero says nothing"),
    pytest.param([], PACKET, len(PACKET), id="the IP header"),
    pytest.param([], ethernet(ipv6_packet(udp(bytes(100)))), 14 + 40 + 108, id="the IPv6 header"),
    pytest.param([], ethernet(ipv6_packet(udp(bytes(600))))[:60], 14 + 40 + 608, id="the IPv6 header of a cut frame"),
    pytest.param([], ethernet(ipv4_packet(tcp(content=bytes(1400))))[:40], 14 + 1440, id="the header of a cut frame"),
    pytest.param([], TUNNEL, len(TUNNEL), id="the outer IP header"),
    pytest.param([], ARP, None, id="nothing"),
    pytest.param([(410, 2, 42)], ARP, 42, id="410, where the frame ends before the field"),
    pytest.param([(410, 2, ROOM)], ARP, None, id="410, where the field ends first"),
    pytest.param([(410, 2, 60)], PACKET, len(PACKET), id="the IP header before 410"),
]


@pytest.mark.parametrize(("more", "packet", "expected"), LENGTHS)
def test_the_length_of_a_packet_is_told_by_the_best_that_is_there(
    more: list[tuple[int, int, int]], packet: bytes, expected: int | None
) -> None:
    """312 tells it; else the IP header inside; else an exported length that is less than there was room for."""
    fields = [*(field(element, length) for element, length, _ in more), field(FRAME, ROOM)]
    content = b"".join(number(value, length) for _, length, value in more) + packet.ljust(ROOM, b"\0")
    assert one(Collector().feed(flows(IPFIX, fields, content))).get("bytes") == expected


def test_the_exported_length_ends_a_section() -> None:
    """What stands behind the exported length is filling, whatever it is; a length of 0 says nothing."""
    packet = ethernet(ipv4_packet(tcp()))
    filled = packet[:36] + b"\xa5" * (ROOM - 36)
    fields = [field(312, 2), field(103, 2), field(LAYER_2, ROOM)]
    cut = told(one(Collector().feed(flows(V9, fields, number(90, 2) + number(36, 2) + filled))))
    assert "src_port" not in cut
    assert {**LINK, **four()}.items() <= cut.items()
    whole = told(one(Collector().feed(flows(V9, fields, number(90, 2) + number(0, 2) + packet.ljust(ROOM, b"\0")))))
    assert whole == {**LINK, **four(), **TCP, "packets": 1, "bytes": 90}


def test_a_long_section_is_read_at_its_beginning() -> None:
    """Only so much of a section is taken apart as there are headers in; the length is the whole frame's."""
    packet = ethernet(ipv4_packet(tcp(content=bytes(8000))))
    assert section(packet, frame_bytes=len(packet)) == {
        **LINK,
        **four(),
        **TCP,
        "packets": 1,
        "bytes": len(packet),
    }
    deep = ethernet(bytes(LONGEST_SECTION_BYTES), etype=0x88B5)
    assert section(deep) == {**LINK, "etype": 0x88B5, "packets": 1, "bytes": 1514}


@pytest.mark.parametrize("element", [FRAME, LAYER_2, IP])
def test_any_cut_of_a_section_tells_no_more_than_the_whole(element: int) -> None:
    """Sections that end at any byte, in one batch: each column has the whole frame's value, or none."""
    whole = PACKET if element != IP else ipv4_packet(tcp())
    fields = [field(element, VARIABLE), field(312, 2)]
    records = [variable(whole[:end]) + number(99, 2) for end in range(len(whole) + 1)]
    expected = TOLD if element != IP else {**four(), **TCP}
    for row in map(told, rows(Collector().feed(flows(IPFIX, fields, *records)))):
        etype = row.pop("etype", None)
        assert row.items() <= {**expected, "packets": 1, "bytes": 99}.items()
        assert etype in {None, 0x0800, 0x8100, 0x8909}


def test_a_frame_in_a_record_of_a_list_is_taken_apart() -> None:
    """A record in a list may carry a section like any other."""
    payload = ipfix_message(
        ipfix_templates(template(300, field(FRAME, VARIABLE)), template(256, field(292, VARIABLE))),
        data_set(256, variable(sub_template_list(300, variable(PACKET)))),
    )
    assert told(one(Collector().feed(payload))) == {**TOLD, "packets": 1, "bytes": len(PACKET)}
