"""Sampled packet headers, from bytes to columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.frame import MOST_EXTENSIONS, MOST_TAGS, MOST_TUNNELS, Frames, dissect
from shared.record import COLUMN
from tests import sflow_builders as make
from tests.builders import mac, mapped
from tests.fuzz import looked_at
from tests.ingest.decoders.known_packets import INNER, LINK, PACKETS, TCP, TUNNELS, UDP, Sampled, four, six
from tests.sflow_builders import (
    DST6,
    SRC6,
    Piece,
    authentication,
    control_word,
    ethernet,
    extension,
    fragment,
    icmp,
    ipv4_packet,
    ipv6_packet,
    meta_data,
    mpls,
    sctp,
    tcp,
    udp,
    vlan,
    vxlan,
)

Row = Mapping[str, Any]

EXAMPLES: Final = looked_at(quick=100, long=15_000)
ALL_TUNNELS: Final = ("gre", "ipip", "vxlan", "geneve")
CASES: Final = [pytest.param(sampled, id=sampled.name) for sampled in PACKETS]
LOOKED_INTO: Final = [pytest.param(sampled, id=sampled.name) for sampled in TUNNELS]


def taken_apart(
    packets: Sequence[tuple[bytes, int]], decapsulate: Collection[str] = (), *, behind: bytes = b""
) -> list[dict[str, Any]]:
    """What packets tell, each a first part and what that begins with: columns of one row each, without those unsaid.

    They lie side by side, but for what stands behind each.
    """
    length = np.array([len(packet) for packet, _ in packets], np.int64)
    buffer = np.frombuffer(b"".join(packet + behind for packet, _ in packets), np.uint8)
    begin = np.cumsum(length + len(behind)) - length - len(behind)
    protocol = np.array([protocol for _, protocol in packets], np.int64)
    frames = dissect(buffer, begin, length, protocol, decapsulate)
    return [_row(frames, at) for at in range(len(packets))]


def _row(frames: Frames, at: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: cells.values[at].tobytes() if cells.values.ndim == 2 else cells.values[at].item()
        for name, cells in frames.cells.items()
        if cells.valid[at]
    }
    if frames.labelled.any() and frames.labelled[at].any():
        row["mpls_labels"] = frames.labels[at][frames.labelled[at]].tolist()
    return row


def alone(packet: bytes, decapsulate: Collection[str] = (), *, protocol: int = make.ETHERNET) -> dict[str, Any]:
    """What one packet tells."""
    (row,) = taken_apart([(packet, protocol)], decapsulate)
    return row


def said_by(part: Row, *wholes: Row) -> bool:
    """Tell whether a part says what one of the wholes says, each column by itself, or nothing."""
    labels = part.get("mpls_labels", [])
    return any(whole.get("mpls_labels", [])[: len(labels)] == labels for whole in wholes) and all(
        any(whole.get(name) == value for whole in wholes) for name, value in part.items() if name != "mpls_labels"
    )


# --- each header


@pytest.mark.parametrize("sampled", CASES)
def test_a_packet_tells_its_columns_and_no_other(sampled: Sampled) -> None:
    """Each header is read or looked through; of a tunnel the outer header is the flow."""
    assert alone(sampled.packet, protocol=sampled.protocol) == sampled.expected


@pytest.mark.parametrize("sampled", CASES)
def test_values_have_the_type_of_their_column(sampled: Sampled) -> None:
    """What comes out is as wide as the record has it: nothing is cut on the way there."""
    octets, nothing = np.frombuffer(sampled.packet, np.uint8), np.zeros(1, np.int64)
    frames = dissect(octets, nothing, np.array([len(sampled.packet)]), np.array([sampled.protocol]))
    for name, cells in frames.cells.items():
        wide = cells.values.shape[1] if cells.values.ndim == 2 else cells.values.dtype.itemsize
        assert wide == COLUMN[name].type.bit_width // 8, name


@pytest.mark.parametrize("sampled", CASES)
def test_a_cut_header_tells_what_the_whole_tells_or_nothing(sampled: Sampled) -> None:
    """Cut at any byte, a header gives what it holds; what is not there any more is not made up."""
    cuts = [(sampled.packet[:size], sampled.protocol) for size in range(len(sampled.packet) + 1)]
    found = taken_apart(cuts)
    assert found[-1] == sampled.expected
    for size, (part, more) in enumerate(zip(found, [*found[1:], sampled.expected], strict=True)):
        assert said_by(part, more, sampled.cut), f"{size} of {len(sampled.packet)} bytes: {part}, then {more}"


def test_packets_do_not_depend_on_their_neighbours() -> None:
    """Packets of every kind taken apart together give what each gives alone, whatever stands between them."""
    together = [(sampled.packet, sampled.protocol) for sampled in PACKETS]
    for behind in (b"", bytes(700), b"\xff" * 3):
        assert taken_apart(together, behind=behind) == [sampled.expected for sampled in PACKETS]
        assert taken_apart(together[::-1], behind=behind) == [sampled.expected for sampled in PACKETS[::-1]]


@pytest.mark.parametrize("decapsulate", [(), ALL_TUNNELS], ids=["outer", "inner"])
@pytest.mark.parametrize("sampled", CASES + LOOKED_INTO)
def test_what_stands_behind_a_cut_header_is_not_read(sampled: Sampled, decapsulate: Collection[str]) -> None:
    """Where a header was cut its end is, though in the buffer it may go on: with the packet itself, or with anything."""
    sizes = np.arange(len(sampled.packet) + 1)
    cuts = [(sampled.packet[:size], sampled.protocol) for size in sizes.tolist()]
    alone_ = taken_apart(cuts, decapsulate, behind=bytes(64))
    for behind in (b"\xff" * 64, b"\x08\x00\x45\x00" * 16):
        assert taken_apart(cuts, decapsulate, behind=behind) == alone_
    buffer, begin = np.frombuffer(sampled.packet, np.uint8), np.zeros(len(sizes), np.int64)
    frames = dissect(buffer, begin, sizes, np.full(len(sizes), sampled.protocol), decapsulate)
    assert [_row(frames, at) for at in range(len(sizes))] == alone_


def test_no_packet_is_no_packet() -> None:
    """A batch of nothing gives nothing."""
    assert taken_apart([]) == []


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5, 6, 8, 9, 10, 15, 16, 17, 18, 19, 0xFFFFFFFF])
def test_what_is_not_taken_apart_tells_nothing(protocol: int) -> None:
    """A header of a link that is not known is no Ethernet frame, whatever its bytes look like."""
    assert alone(ethernet(ipv4_packet(tcp())), protocol=protocol) == {}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(11, {}, id="cut in the addresses"),
        pytest.param(13, LINK, id="cut in the EtherType"),
        pytest.param(14, {**LINK, "etype": 0x0800}, id="cut after the EtherType"),
        pytest.param(15, {**LINK, "etype": 0x0800}, id="cut after the first byte of IPv4"),
        pytest.param(
            24,
            {key: value for key, value in {**LINK, **four(proto=6)}.items() if not key.endswith("_addr")},
            id="cut after the protocol of IPv4",
        ),
        pytest.param(
            33,
            {key: value for key, value in {**LINK, **four(proto=6)}.items() if key != "dst_addr"},
            id="cut in the last byte of the IPv4 header",
        ),
        pytest.param(34, {**LINK, **four(proto=6)}, id="cut after the IPv4 header"),
        pytest.param(38, {**LINK, **four(proto=6), "src_port": 40000, "dst_port": 443}, id="cut after the ports"),
        pytest.param(48, {**LINK, **four(), **TCP}, id="cut after the flags"),
    ],
)
def test_a_cut_header_gives_what_it_holds(size: int, expected: Row) -> None:
    """Each header that is whole is read, and of one that is not each field that is."""
    assert alone(ethernet(ipv4_packet(tcp()))[:size]) == expected


@pytest.mark.parametrize("behind", [b"", b"\xff" * 100], ids=["nothing", "something"])
@pytest.mark.parametrize("size", range(15, 54))
def test_a_cut_ipv6_header_gives_the_fields_that_it_holds(size: int, behind: bytes) -> None:
    """Each field is there from its last byte on, and nothing that stands behind the cut is taken for one."""
    ends = {"ip_tos": 16, "ipv6_flow_label": 18, "proto": 21, "ip_ttl": 22, "src_addr": 38, "dst_addr": 54}
    whole = alone(ethernet(ipv6_packet(tcp(), traffic_class=8, flow_label=5)))
    expected = {name: whole[name] for name, end in ends.items() if size >= end}
    cut = ethernet(ipv6_packet(tcp(), traffic_class=8, flow_label=5))[:size]
    (found,) = taken_apart([(cut, make.ETHERNET)], behind=behind)
    assert found == {**LINK, "etype": 0x86DD, **expected}


def test_the_tag_of_cut_meta_data_is_told() -> None:
    """What stands before the cut is told, and no EtherType is made of what stands behind it."""
    assert alone(ethernet(meta_data(77, ipv4_packet()))[:20]) == {**LINK, "src_sgt": 77}


def test_a_frame_cut_within_a_tag_does_not_take_the_tag_for_the_flow() -> None:
    """What is looked through is never the flow's EtherType: behind it stands what is."""
    for piece in (vlan(1, ipv4_packet()), mpls(1, content=ipv4_packet()), meta_data(1, ipv4_packet())):
        assert alone(ethernet(piece)[:15]) == LINK


def test_ipv6_cut_within_its_extensions_has_no_protocol() -> None:
    """An extension header is not what the packet carries."""
    packet = ethernet(ipv6_packet(extension(make.HOP_BY_HOP, fragment(udp(), offset=0))))
    assert alone(packet[: 14 + 40]) == {**LINK, **six()}
    assert alone(packet[: 14 + 40 + 8]) == {**LINK, **six()}


# --- many of a kind


def test_as_many_tags_as_can_be_are_looked_through() -> None:
    """VLAN tags and labels are looked through up to a number; with more nothing behind them is told."""
    packet: Piece = ipv4_packet(udp())
    for number in range(MOST_TAGS, 0, -1):
        packet = vlan(number, packet)
    assert alone(ethernet(packet)) == {**LINK, **four(), **UDP, "src_vlan": 1, "inner_vlan": 2}
    assert alone(ethernet(vlan(0, packet))) == {**LINK, "src_vlan": 0, "inner_vlan": 1}


@pytest.mark.parametrize("labels", [1, 2, MOST_TAGS])
def test_as_many_labels_as_can_be_are_read(labels: int) -> None:
    """All labels of a stack are there, outermost first."""
    stack = list(range(100, 100 + labels))
    assert alone(ethernet(mpls(*stack, content=ipv4_packet(tcp())))) == {**LINK, **four(), **TCP, "mpls_labels": stack}


def test_an_endless_stack_is_read_in_part() -> None:
    """A stack without a bottom gives its first labels, and no packet is looked for behind them."""
    found = alone(ethernet(mpls(*range(30), bottom=False, content=ipv4_packet(tcp()))))
    assert found == {**LINK, "mpls_labels": list(range(MOST_TAGS))}


def test_as_many_extensions_as_can_be_are_looked_through() -> None:
    """Extension headers of IPv6 are looked through up to a number; with more the packet has no protocol."""
    content: Piece = tcp()
    for _ in range(MOST_EXTENSIONS):
        content = extension(make.DESTINATION, content)
    assert alone(ethernet(ipv6_packet(content))) == {**LINK, **six(), **TCP}
    assert alone(ethernet(ipv6_packet(extension(make.HOP_BY_HOP, content)))) == {**LINK, **six()}


def test_packets_with_many_tags_do_not_change_when_others_are_entered() -> None:
    """How far one packet is looked into does not depend on what another carries."""
    packet: Piece = ipv4_packet(udp())
    for number in range(MOST_TAGS + 3):
        packet = vlan(number, packet)
    deep, tunnel = ethernet(packet), ethernet(ipv4_packet(ipv4_packet(tcp())))
    both = taken_apart([(deep, make.ETHERNET), (tunnel, make.ETHERNET)], ALL_TUNNELS)
    assert both == [alone(deep), alone(tunnel, ALL_TUNNELS)]


# --- tunnels


@pytest.mark.parametrize("sampled", LOOKED_INTO)
def test_of_a_tunnel_that_is_configured_the_inner_packet_is_the_flow(sampled: Sampled) -> None:
    """Each kind of tunnel is entered when it is named, and by no other name."""
    assert sampled.tunnel is not None
    assert alone(sampled.packet, {sampled.tunnel}) == sampled.inner
    assert alone(sampled.packet, ALL_TUNNELS) == sampled.inner
    assert alone(sampled.packet, set(ALL_TUNNELS) - {sampled.tunnel}) == sampled.expected


@pytest.mark.parametrize("sampled", LOOKED_INTO)
def test_a_tunnel_cut_before_what_it_carries_is_the_flow_itself(sampled: Sampled) -> None:
    """Cut at any byte, there is always a flow: the inner one as far as it is told, or else the outer one."""
    whole = len(sampled.packet)
    cuts = [(sampled.packet[:size], sampled.protocol) for size in range(whole + 1)]
    for part, outer in zip(taken_apart(cuts, ALL_TUNNELS), taken_apart(cuts), strict=True):
        links = {"src_mac", "dst_mac", "src_vlan", "inner_vlan", "mpls_labels"}
        for columns in (links & part.keys(), part.keys() - links):
            told = {name: part[name] for name in columns}
            assert said_by(told, sampled.inner) or said_by(told, sampled.expected)
        assert ("src_addr" in part) == ("src_addr" in outer) or "src_addr" not in sampled.inner
        assert ("src_mac" in part) == ("src_mac" in outer)


def test_tunnels_in_tunnels_are_entered_up_to_a_number() -> None:
    """Of more tunnels than are entered, the innermost that was read is the flow: it is never lost."""
    for depth in range(6):
        packet: Piece = tcp()
        for level in range(depth, -1, -1):
            packet = ipv4_packet(packet, src=f"10.0.0.{level}")
        read = min(depth, MOST_TUNNELS)
        found = alone(ethernet(packet), {"ipip"})
        assert found["src_addr"] == mapped(f"10.0.0.{read}")
        assert found["proto"] == (6 if depth == read else 4)


def test_a_tunnel_of_one_kind_in_another() -> None:
    """VXLAN in GRE: both are entered, and the network's number is told."""
    inside = vxlan(77, ethernet(ipv4_packet(tcp(), src="10.1.0.1", dst="10.2.0.2", ttl=7, identification=5)))
    packet = ethernet(ipv4_packet(make.gre(ipv4_packet(inside, src="10.9.0.1"))))
    assert alone(packet, {"gre", "vxlan"}) == {**LINK, **INNER, **TCP, "vni": 77}
    assert alone(packet, {"gre"})["src_addr"] == mapped("10.9.0.1")
    assert alone(packet, {"gre"})["vni"] == 77
    assert "vni" not in alone(packet, {"vxlan"})


def test_a_later_fragment_of_a_tunnel_is_not_entered() -> None:
    """Only the first fragment has the header of what it carries."""
    packet = ethernet(ipv4_packet(ipv4_packet(tcp()), offset=10))
    assert alone(packet, ALL_TUNNELS) == {**LINK, **four(fragment_offset=10), "proto": 4}


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(udp(vxlan(9, ethernet(ipv4_packet(tcp())))[8:], dst_port=4790), id="another port"),
        pytest.param(udp(vxlan(9, ethernet(ipv4_packet(tcp())))[8:], src_port=4789, dst_port=50000), id="source port"),
        pytest.param(Piece(vxlan(9, ethernet(ipv4_packet(tcp()))), proto=136), id="another protocol"),
    ],
)
def test_what_only_looks_like_a_tunnel_is_none(packet: bytes) -> None:
    """VXLAN is told by UDP and its destination port."""
    found = alone(ethernet(ipv4_packet(packet)), ALL_TUNNELS)
    assert "vni" not in found
    assert found["proto"] in {17, 136}


# --- any packet


@st.composite
def built(draw: st.DrawFn) -> Sampled:
    """A packet out of any pieces, and what it tells: made together, so that neither is computed from the other."""
    expected: dict[str, Any] = {}
    content = draw(_transport(expected))
    content = draw(st.sampled_from([_over_ipv4, _over_ipv6]))(draw, content, expected)
    labels: list[int] = []
    wired = draw(st.booleans())
    inside = _tagged(draw, content, expected, most=2) if wired else content
    if wired or draw(st.booleans()):
        labels = draw(st.lists(st.integers(0, 0xFFFFF), min_size=1, max_size=4))
        expected["mpls_labels"] = labels
        inside = mpls(*labels, content=control_word(_frame(draw, inside, expected)) if wired else inside)
    vlans_inside = [expected.pop(name) for name in ("src_vlan", "inner_vlan") if name in expected]
    packet = _tagged(draw, inside, expected, most=3)
    vlans = [expected.pop(name) for name in ("src_vlan", "inner_vlan") if name in expected] + vlans_inside
    expected |= dict(zip(("src_vlan", "inner_vlan"), vlans, strict=False))
    inner = {name: expected[name] for name in ("src_mac", "dst_mac") if wired}
    frame = _frame(draw, packet, expected)
    return Sampled("built", bytes(frame), expected | inner, cut=expected if wired else {})


def _frame(draw: st.DrawFn, content: Piece, expected: dict[str, Any]) -> Piece:
    src, dst = (":".join(f"{octet:02x}" for octet in draw(st.binary(min_size=6, max_size=6))) for _ in range(2))
    expected |= {"src_mac": mac(src), "dst_mac": mac(dst)}
    return ethernet(content, src=src, dst=dst)


def _tagged(draw: st.DrawFn, content: Piece, expected: dict[str, Any], *, most: int) -> Piece:
    kinds = draw(st.lists(st.sampled_from([0x8100, 0x88A8, 0x9100, 0x8909]), max_size=most))
    vlans: list[int] = []
    for kind in kinds:
        if kind == 0x8909:
            # A frame is tagged once.
            if "src_sgt" not in expected:
                expected["src_sgt"] = draw(st.integers(0, 0xFFFF))
                content = meta_data(expected["src_sgt"], content)
        else:
            vlans.insert(0, draw(st.integers(0, 4095)))
            content = vlan(vlans[0], content, tpid=kind, priority=draw(st.integers(0, 7)))
    expected |= dict(zip(("src_vlan", "inner_vlan"), vlans, strict=False))
    return content


@st.composite
def _transport(draw: st.DrawFn, expected: dict[str, Any]) -> Piece:
    src, dst = draw(st.integers(0, 65535)), draw(st.integers(0, 65535).filter(lambda port: port not in {4789, 6081}))
    kind = draw(st.sampled_from(["tcp", "udp", "sctp", "icmp", "icmp6", "other"]))
    if kind == "tcp":
        flags = draw(st.integers(0, 0x1FF))
        expected |= {"proto": 6, "src_port": src, "dst_port": dst, "tcp_flags": flags}
        return tcp(dst, src_port=src, flags=flags, content=draw(st.binary(max_size=20)))
    if kind == "udp":
        expected |= {"proto": 17, "src_port": src, "dst_port": dst}
        return udp(draw(st.binary(max_size=20)), dst_port=dst, src_port=src)
    if kind == "sctp":
        expected |= {"proto": 132, "src_port": src, "dst_port": dst}
        return sctp(dst, src_port=src)
    if kind == "other":
        proto = draw(st.sampled_from([2, 50, 59, 89, 103, 112, 253]))
        expected |= {"proto": proto}
        return Piece(draw(st.binary(max_size=20)), proto=proto)
    type_, code = src & 0xFF, dst & 0xFF
    expected |= {"proto": 58 if kind == "icmp6" else 1, "icmp_type": type_, "icmp_code": code}
    return icmp(type_, code, six=kind == "icmp6")


_OF_A_TRANSPORT: Final = ("src_port", "dst_port", "tcp_flags", "icmp_type", "icmp_code")


def _over_ipv4(draw: st.DrawFn, content: Piece, expected: dict[str, Any]) -> Piece:
    tos, ttl, identification = draw(st.integers(0, 255)), draw(st.integers(0, 255)), draw(st.integers(0, 65535))
    offset = draw(st.sampled_from([0, 0, 0, 1, 185, 0x1FFF]))
    if offset:
        for name in _OF_A_TRANSPORT:
            expected.pop(name, None)
    expected |= {
        **four(ip_tos=tos, ip_ttl=ttl, fragment_id=identification, fragment_offset=offset),
    }
    options = bytes(4 * draw(st.integers(0, 10)))
    more = draw(st.booleans())
    return ipv4_packet(
        content, tos=tos, ttl=ttl, identification=identification, offset=offset, more=more, options=options
    )


def _over_ipv6(draw: st.DrawFn, content: Piece, expected: dict[str, Any]) -> Piece:
    tos, ttl, label = draw(st.integers(0, 255)), draw(st.integers(0, 255)), draw(st.integers(0, 0xFFFFF))
    expected |= six(SRC6, DST6, ip_tos=tos, ip_ttl=ttl, ipv6_flow_label=label)
    kinds = draw(st.lists(st.sampled_from([0, 43, 51, 60, 135, 139, 140]), max_size=4))
    for kind in kinds:
        more_words = draw(st.integers(0, 3))
        content = authentication(content) if kind == 51 else extension(kind, content, more_words=more_words)
    if draw(st.booleans()):
        offset, identification = draw(st.sampled_from([0, 0, 1, 0x1FFF])), draw(st.integers(0, 2**32 - 1))
        expected |= {"fragment_id": identification, "fragment_offset": offset}
        if offset:
            for name in (*_OF_A_TRANSPORT, *(["proto"] if kinds else [])):
                expected.pop(name, None)
        content = fragment(content, offset=offset, identification=identification, more=draw(st.booleans()))
    return ipv6_packet(content, traffic_class=tos, flow_label=label, hop_limit=ttl)


@EXAMPLES
@given(built())
def test_any_packet_tells_what_went_into_it(made: Sampled) -> None:
    """Whatever stands before and behind a header, it tells what it was made of."""
    assert alone(made.packet) == made.expected


@EXAMPLES
@given(st.lists(st.tuples(built(), st.integers(0, 200)), min_size=1, max_size=6))
def test_any_packets_taken_apart_together_tell_what_each_tells(made: list[tuple[Sampled, int]]) -> None:
    """A batch of any packets, cut anywhere, gives what each gives alone; cut ones give no more than whole ones."""
    cut = [(one.packet[: max(0, len(one.packet) - less)], one.protocol) for one, less in made]
    found = taken_apart(cut)
    assert found == [alone(packet) for packet, _ in cut]
    assert all(said_by(row, one.expected, one.cut) for row, (one, _) in zip(found, made, strict=True))


@st.composite
def scrambled(draw: st.DrawFn) -> bytes:
    """A packet with some of its bytes replaced."""
    octets = bytearray(draw(st.sampled_from(PACKETS)).packet)
    for at, octet in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=12)):
        if at < len(octets):
            octets[at] = octet
    return bytes(octets) + draw(st.binary(max_size=40))


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=300), scrambled()),
            st.sampled_from([make.ETHERNET, make.PPP, make.IPV4, make.IPV6, make.MPLS, make.POS, 0, 2**32 - 1]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.sampled_from(ALL_TUNNELS)),
)
def test_any_bytes_are_taken_apart(packets: list[tuple[bytes, int]], decapsulate: set[str]) -> None:
    """No bytes raise, and a packet tells the same whatever stands beside it."""
    found = taken_apart(packets, decapsulate)
    assert found == [alone(packet, decapsulate, protocol=protocol) for packet, protocol in packets]
    assert all(name == "mpls_labels" or name in COLUMN for row in found for name in row)
