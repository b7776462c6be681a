"""A reader of sFlow v5 with nothing of the product's: slow, and easy to believe. Rows have the flow record's columns."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

Row = dict[str, object]

FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED = 1, 2, 3, 4, 5
UNKNOWN: Final = 0xFFFFFFFF
STATUS: Final = {1: 131, 9: 129, 256: 128, 257: 137, 258: 129, 259: 128, 262: 133, 269: 131}
"""RFC 7270's number for a reason to discard, of those that are sent here."""
COUNTER_BYTES: Final = {
    1: 88,
    2: 52,
    5: 28,
    7: 56,
    1001: 28,
    2003: 80,
    2004: 72,
    2005: 52,
    2006: 40,
    2007: 76,
    2008: 100,
    2009: 60,
    2010: 28,
}
"""How long counter records of fixed length are."""
COUNTERS_AT: Final = {
    1: (("if_index", 0, 4), ("if_speed", 8, 8), ("if_in_octets", 24, 8), ("if_out_octets", 56, 8)),
    2: (("dot3_stats_fcs_errors", 4, 4), ("dot3_stats_symbol_errors", 48, 4)),
    5: (("vlan_id", 0, 4), ("vlan_octets", 4, 8), ("vlan_discards", 24, 4)),
    7: (("dot3ad_agg_port_attached_agg_id", 16, 4), ("dot3ad_agg_port_stats_marker_response_pdus_tx", 52, 4)),
    1001: (("processor_5s_cpu", 0, 4), ("processor_free_memory_bytes", 20, 8)),
    2003: (("host_proc_run", 12, 4), ("host_uptime_seconds", 28, 4), ("host_cpu_guest_nice_ms", 76, 4)),
    2004: (("host_mem_total_bytes", 0, 8), ("host_swap_out", 68, 4)),
    2005: (("host_disk_total_bytes", 0, 8), ("host_disk_write_time_ms", 48, 4)),
    2006: (("host_net_bytes_in", 0, 8), ("host_net_drops_out", 36, 4)),
    2007: (("ip_forwarding", 0, 4), ("ip_frag_creates", 72, 4)),
    2008: (("icmp_in_errors", 4, 4), ("icmp_out_addr_mask_reps", 96, 4)),
    2009: (("tcp_rto_min_ms", 4, 4), ("tcp_in_csum_errors", 56, 4)),
    2010: (("udp_no_ports", 4, 4), ("udp_in_csum_errors", 24, 4)),
}
"""Where some of the numbers in counter records stand, and of how many bytes they are; among them the last of each."""
TEXTS: Final = {1005: "port_name", 2000: "hostname"}
"""Counter records that begin with a text."""


@dataclass
class Sample:
    """A sample: which kind, whose, the how manieth; the row of a packet, or the records of counters."""

    kind: int
    source: tuple[int, int]
    sequence: int
    pool: int = 0
    drops: int = 0
    row: Row = field(default_factory=dict)
    records: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Datagram:
    """A datagram as this reader understands it."""

    agent: int
    sub_agent: int
    sequence: int
    uptime_ms: int
    samples: list[Sample] = field(default_factory=list)
    unknown: int = 0

    @property
    def flows(self) -> list[Sample]:
        """Samples of packets."""
        return [sample for sample in self.samples if sample.row]

    @property
    def counters(self) -> list[Sample]:
        """Samples of counters."""
        return [sample for sample in self.samples if sample.records]


class Words:
    """Takes XDR apart from the front."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def word(self) -> int:
        """The next word."""
        return int.from_bytes(self.octets(4), "big")

    def words(self, count: int) -> list[int]:
        """The next words."""
        return [self.word() for _ in range(count)]

    def octets(self, count: int) -> bytes:
        """The next octets; opaque data is padded to whole words, and the padding is zeros."""
        taken = self._content[self._at : self._at + count]
        assert len(taken) == count
        padding = self._content[self._at + count : self._at + count + -count % 4]
        assert not any(padding)
        self._at += count + -count % 4
        return taken

    def address(self) -> bytes:
        """An address with its family before it, as the record has it."""
        family = self.word()
        assert family in {1, 2}
        return bytes(10) + b"\xff\xff" + self.octets(4) if family == 1 else self.octets(16)

    def tagged(self) -> tuple[int, Words]:
        """A structure with its number and length before it."""
        tag, length = self.words(2)
        assert length % 4 == 0
        return tag, Words(self.octets(length))

    def end(self) -> None:
        """Nothing may be left."""
        assert self._at == len(self._content)


def read_sflow(payload: bytes) -> Datagram:
    """Read a datagram, and assert what a collector would count as a fault."""
    words = Words(payload)
    version, family, agent, sub_agent, sequence, uptime_ms, samples = words.words(7)
    assert (version, family) == (5, 1)
    datagram = Datagram(agent, sub_agent, sequence, uptime_ms)
    for _ in range(samples):
        tag, body = words.tagged()
        if tag in {COUNTERS, EXPANDED_COUNTERS}:
            datagram.samples.append(_counters(tag, body))
        elif tag in {FLOW, EXPANDED_FLOW, DISCARDED}:
            datagram.samples.append(_flow(tag, body))
        else:
            datagram.unknown += 1
    words.end()
    return datagram


def _source(body: Words, *, expanded: bool) -> tuple[int, int]:
    if expanded:
        kind, index = body.words(2)
        return kind, index
    word = body.word()
    return word >> 24, word & 0xFFFFFF


def _counters(tag: int, body: Words) -> Sample:
    sequence = body.word()
    sample = Sample(tag, _source(body, expanded=tag == EXPANDED_COUNTERS), sequence)
    for _ in range(body.word()):
        kind, length = body.words(2)
        sample.records[kind] = body.octets(length)
        assert length == COUNTER_BYTES.get(kind, length)
    body.end()
    return sample


def _flow(tag: int, body: Words) -> Sample:
    sequence = body.word()
    sample = Sample(tag, _source(body, expanded=tag != FLOW), sequence)
    row = sample.row
    if tag == DISCARDED:
        sample.drops, given, taken, reason = body.words(4)
        incoming, outgoing = (0, given), (0, taken)
        row |= {"drop_reason": reason, "forwarding_status": STATUS[reason]}
    else:
        row["sampling_rate"], sample.pool, sample.drops = body.words(3)
        incoming, outgoing = (_interface(body, expanded=tag == EXPANDED_FLOW) for _ in range(2))
    if incoming[1]:
        row["in_if"] = incoming[1]
    form, value = outgoing
    if form == 0 and value:
        row["out_if"] = value
    elif form == 1:
        row |= {"drop_reason": value, "forwarding_status": STATUS[value]}
    elif form == 2:
        row["forwarding_status"] = 64
    read = {1: _sampled_header, 1001: _switch, 1002: _router, 1003: _gateway}
    for _ in range(body.word()):
        kind, record = body.tagged()
        if kind in read:
            read[kind](record, row)
            record.end()
    body.end()
    row |= {"packets": 1, "flows": 1}
    return sample


def _interface(body: Words, *, expanded: bool) -> tuple[int, int]:
    if expanded:
        form, value = body.words(2)
        return form, 0x3FFFFFFF if value == UNKNOWN else value
    word = body.word()
    return word >> 30, word & 0x3FFFFFFF


def _switch(record: Words, row: Row) -> None:
    row["src_vlan"], _, row["dst_vlan"], _ = record.words(4)


def _router(record: Words, row: Row) -> None:
    row["next_hop"] = record.address()
    row["src_net_len"], row["dst_net_len"] = record.words(2)


def _gateway(record: Words, row: Row) -> None:
    row["bgp_next_hop"] = record.address()
    _, row["src_as"], _ = record.words(3)
    path: list[int] = []
    for _ in range(record.word()):
        kind, length = record.words(2)
        assert kind in {1, 2}
        path += record.words(length)
    row |= {"as_path": path, "next_hop_as": path[0], "dst_as": path[-1]}
    row["bgp_communities"] = record.words(record.word())
    record.word()


def _sampled_header(record: Words, row: Row) -> None:
    protocol, row["bytes"], stripped = record.words(3)
    assert (protocol, stripped) == (1, 4)
    header = record.octets(record.word())
    size = int(str(row["bytes"])) - stripped
    assert len(header) <= size
    row |= _ethernet(header, size)


def _ethernet(frame: bytes, size: int) -> Row:
    """Take a frame apart; `size` is how long it was before it was cut."""
    row: Row = {"dst_mac": frame[:6], "src_mac": frame[6:12]}
    at, vlans = 14, ["inner_vlan", "src_vlan"]
    (etype,) = struct.unpack_from("!H", frame, 12)
    while etype in {0x8100, 0x88A8, 0x8909, 0x8847}:
        if etype == 0x8909:
            version, length, option, row["src_sgt"], etype = struct.unpack_from("!BBHHH", frame, at)
            assert (version, length, option) == (1, 1, 1)
            at += 8
        elif etype == 0x8847:
            labels = []
            bottom = False
            while not bottom:
                (word,) = struct.unpack_from("!I", frame, at)
                labels.append(word >> 12)
                bottom = bool(word >> 8 & 1)
                at += 4
            row["mpls_labels"] = labels
            etype = 0x0800 if frame[at] >> 4 == 4 else 0x86DD
        else:
            row[vlans.pop()], etype = struct.unpack_from("!HH", frame, at)
            at += 4
    row["etype"] = etype
    return row | (_ipv4 if etype == 0x0800 else _ipv6)(frame[at:], size - at)


def _ipv4(packet: bytes, size: int) -> Row:
    first, tos, length, identification, flags, ttl, proto = struct.unpack_from("!BBHHHBB", packet)
    assert first == 0x45
    assert length == size
    total = sum(struct.unpack_from("!10H", packet))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    row: Row = {
        "ip_tos": tos,
        "fragment_id": identification,
        "fragment_offset": flags & 0x1FFF,
        "ip_ttl": ttl,
        "proto": proto,
        "src_addr": bytes(10) + b"\xff\xff" + packet[12:16],
        "dst_addr": bytes(10) + b"\xff\xff" + packet[16:20],
    }
    return row if flags & 0x1FFF else row | _transport(proto, packet[20:], size - 20)


def _ipv6(packet: bytes, size: int) -> Row:
    word, length, proto, ttl = struct.unpack_from("!IHBB", packet)
    assert word >> 28 == 6
    assert length == size - 40
    return {
        "ip_tos": word >> 20 & 0xFF,
        "ipv6_flow_label": word & 0xFFFFF,
        "ip_ttl": ttl,
        "proto": proto,
        "src_addr": packet[8:24],
        "dst_addr": packet[24:40],
    } | _transport(proto, packet[40:], size - 40)


def _transport(proto: int, segment: bytes, size: int) -> Row:
    row: Row = {}
    if proto in {6, 17}:
        row["src_port"], row["dst_port"] = struct.unpack_from("!HH", segment)
    if proto == 6:
        assert segment[12] == 0x50
        row["tcp_flags"] = segment[13]
    if proto in {1, 58}:
        row["icmp_type"], row["icmp_code"] = segment[:2]
    if proto == 17:
        (length,) = struct.unpack_from("!H", segment, 4)
        assert length == size
        if row["dst_port"] == 4789:
            flags, row["src_sgt"], network = struct.unpack_from("!HHI", segment, 8)
            assert flags == 0x8800
            row["vni"] = network >> 8
            # What is in the tunnel is no part of the row, but has to be right.
            assert _ethernet(segment[16:], size - 16)["etype"] == 0x0800
    return row


def counter_row(sample: Sample) -> Row:
    """Some columns of a counter sample, as collectors name them."""
    kind, index = sample.source
    row: Row = {"source_id_class": kind, "source_id_index": index, "sample_sequence_num": sample.sequence}
    for tag, content in sample.records.items():
        for name, at, size in COUNTERS_AT.get(tag, ()):
            row[name] = int.from_bytes(content[at : at + size], "big")
        if tag in TEXTS:
            length = int.from_bytes(content[:4], "big")
            row[TEXTS[tag]] = content[4 : 4 + length].decode()
    return row
