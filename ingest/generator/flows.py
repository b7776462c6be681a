"""Who talks to whom: conversations, drawn once, of which every flow record shows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.generator.draws import U64, bits, draw
from ingest.generator.packets import GRE, ICMP, ICMP6, TCP, UDP, transport

Column = npt.NDArray[Any]

POOL: Final = 1 << 14
"""How many conversations there are of each address family."""
INTERFACES: Final = 8
"""Every exporter has interfaces 1 to 8."""
SAMPLERS: Final = (1, 2)
TEXT_BYTES: Final = 320
"""Names are cut from a text of this length, to the length that their field has."""

PROTOCOLS: Final = np.array([TCP] * 20 + [UDP] * 9 + [ICMP] * 2 + [GRE], np.uint8)
SERVICES: Final = np.array(
    [443, 80, 53, 22, 25, 123, 443, 8080, 993, 3306, 5432, 6379, 9092, 179, 51820, 443], np.uint16
)
TCP_FLAGS: Final = np.array([0x1B, 0x1B, 0x18, 0x02, 0x12, 0x1F, 0x10, 0x14], np.uint16)
TOS: Final = np.array([0, 0, 0, 0, 0x28, 0xB8, 0xC0, 0x02], np.uint8)
# Numbers for documentation (RFC 5398), some of which need four bytes.
SERVER_AS: Final = np.array([64496, 64500, 64511, 65536, 65540, 65551, 64503, 64505], np.uint32)
CLIENT_AS: Final = np.array([64512, 64513, 65000, 4_200_000_000], np.uint32)
# Networks for documentation and for benchmarks (RFC 5737, RFC 2544).
SERVER_NETWORKS: Final = np.array([0xC6120000, 0xC6130000, 0xC0000200, 0xCB007100], np.uint32)
SERVER_HOSTS: Final = np.array([0xFFFF, 0xFFFF, 0xFF, 0xFF], np.uint32)
# Some groups and applications have names in an exporter's tables, see names.py, and some have none.
SGTS: Final = np.array([0, 2, 4, 5, 10, 16, 200, 65519], np.uint16)
VRFS: Final = 4
"""Every exporter has VRFs 1 to 4."""
APPLICATION_IDS: Final = np.array(
    [0x03000050, 0x030001BB, 0x03000035, 0x0D0001C5, 0x0D000031, 0x0D00024F, 0x0D000600, 0x01000058], np.uint32
)
"""An engine, and a selector of three octets (RFC 6759 §4): well-known ports, Cisco's NBAR, an IP protocol."""
TTLS: Final = np.array([64, 63, 128, 255], np.uint8)
TRANSIT_AS: Final = np.array([65541, 65542, 64504, 64506], np.uint32)
DROP_REASONS: Final = np.array([1, 9, 256, 257, 258, 259, 262, 269], np.uint16)
"""Why sFlow's exporters discard packets: codes of ICMP's unreachable below 256, and sFlow's own."""
DROP_STATUS: Final = np.array([131, 129, 128, 137, 129, 128, 133, 131], np.uint8)
"""What RFC 7270 §4.12 has for each of them."""
APPLICATIONS: Final = ("http", "smtp", "imap", "ldap", "snmp", "rtsp", "mqtt", "sips")
TEXTS: Final = frozenset({"application_name", "user_name"})


class Conversations:
    """What stays the same each time that a conversation is exported, as columns of `POOL` rows.

    Columns have the names that the flow record gives them; besides, `src_as_16` and `dst_as_16` are for fields
    of two bytes, `sampler` is a sampler's id, and `opaque` what an enterprise puts into fields of its own. What is
    only for packets that are sampled has names of its own too: see `_of_packets`. Counters and times are not here:
    they belong to the record. With `proto`, all conversations are of that IP protocol.
    """

    def __init__(self, seed: int, family: int, proto: int | None = None) -> None:
        self.family = family
        raw = draw(seed, family, 3, POOL)
        columns = _columns(raw, family, proto)
        self.columns: Mapping[str, Column] = columns | _of_packets(raw, columns, family)
        self._texts: dict[str, npt.NDArray[np.uint8]] = {}

    def values(self, column: str) -> Column:
        """A column as the flow record has it."""
        return self.columns[column]

    def texts(self, column: str, length: int) -> npt.NDArray[np.bytes_]:
        """A column of names as it stands in a field of so many bytes, [POOL]."""
        return np.ascontiguousarray(self._text(column)[:, :length]).view(f"S{length}")[:, 0]

    def wire(self, column: str, length: int) -> npt.NDArray[np.uint8]:
        """A column in network byte order, [POOL, length]; numbers and addresses lose what leads, texts what trails.

        Of a column with several numbers in a row, each takes four bytes.
        """
        if column in TEXTS:
            return self._text(column)[:, :length]
        values = self.columns[column]
        if values.ndim == 2 and values.dtype != np.uint8:
            values = np.ascontiguousarray(values.astype(">u4")).view(np.uint8)
        elif values.ndim == 1:
            values = values.astype(">u8").view(np.uint8).reshape(POOL, 8)
        if length > values.shape[1]:
            return np.tile(values, (1, -(-length // values.shape[1])))[:, :length]
        return values[:, values.shape[1] - length :]

    def _text(self, column: str) -> npt.NDArray[np.uint8]:
        if column not in self._texts:
            words = (
                APPLICATIONS
                if column == "application_name"
                else tuple(f"user{row:05d}@example.net" for row in range(POOL))
            )
            lines = b"".join((word * TEXT_BYTES)[:TEXT_BYTES].encode() for word in words)
            table = np.frombuffer(lines, np.uint8).reshape(len(words), TEXT_BYTES)
            self._texts[column] = table[np.arange(POOL) % len(words)]
        return self._texts[column]


def _columns(raw: U64, family: int, only: int | None) -> dict[str, Column]:
    first, second, third = raw
    proto = PROTOCOLS[bits(first, 0, 5)] if only is None else np.full(POOL, only, np.uint8)
    if family == 6:
        proto[proto == ICMP] = ICMP6
    has_ports = (proto == TCP) | (proto == UDP)
    to_server = bits(first, 5, 1) == 1

    client_port = (32768 + bits(first, 8, 15)).astype(np.uint16)
    service = SERVICES[bits(first, 24, 4)]
    # What is no TCP and no UDP has no ports, but v5 and v9 put ICMP's type and code where the destination port is.
    by_type = np.select([proto == ICMP, proto == ICMP6], [0x0303, 0x8000], 0).astype(np.uint16)
    at = bits(first, 28, 2)
    server = SERVER_NETWORKS[at] | (bits(second, 0, 16).astype(np.uint32) & SERVER_HOSTS[at])
    client = np.uint32(0x0A000000) | bits(second, 16, 24).astype(np.uint32)
    server_as, client_as = SERVER_AS[bits(second, 40, 3)], CLIENT_AS[bits(second, 43, 2)]
    server_length, client_length = (22, 24) if family == 4 else (48, 64)
    in_if = (1 + bits(third, 0, 3)).astype(np.uint32)
    out_if = (1 + (in_if + bits(third, 3, 3) % (INTERFACES - 1)) % INTERFACES).astype(np.uint32)

    def towards(of_client: Column | int, of_server: Column | int) -> tuple[Column, Column]:
        """Source and destination of something that each end has."""
        return np.where(to_server, of_client, of_server), np.where(to_server, of_server, of_client)

    source, destination = towards(client, server)
    source_port, destination_port = towards(client_port, service)
    source_as, destination_as = towards(client_as, server_as)
    source_length, destination_length = towards(client_length, server_length)
    return {
        "src_addr": _addresses(source, family),
        "dst_addr": _addresses(destination, family),
        "etype": np.full(POOL, 0x0800 if family == 4 else 0x86DD, np.uint16),
        "proto": proto,
        "src_port": np.where(has_ports, source_port, 0).astype(np.uint16),
        "dst_port": np.where(has_ports, destination_port, by_type).astype(np.uint16),
        "tcp_flags": np.where(proto == TCP, TCP_FLAGS[bits(third, 6, 3)], 0).astype(np.uint16),
        "ip_tos": TOS[bits(third, 9, 3)],
        "in_if": in_if,
        "out_if": out_if,
        "src_as": source_as.astype(np.uint32),
        "dst_as": destination_as.astype(np.uint32),
        "src_as_16": _as_of_16_bits(source_as),
        "dst_as_16": _as_of_16_bits(destination_as),
        "src_net_len": source_length.astype(np.uint8),
        "dst_net_len": destination_length.astype(np.uint8),
        "next_hop": _addresses(np.uint32(0x0AFF0000) | out_if, family),
        "src_vlan": (100 + in_if).astype(np.uint16),
        "dst_vlan": (200 + out_if).astype(np.uint16),
        "src_mac": _macs(bits(third, 12, 16)),
        "dst_mac": _macs(0x10000 + out_if.astype(np.int64)),
        "flow_direction": bits(third, 28, 1).astype(np.uint8),
        "flow_end_reason": (1 + bits(third, 29, 2)).astype(np.uint8),
        "ipv6_flow_label": bits(third, 32, 20).astype(np.uint32),
        "sampler": np.array(SAMPLERS, np.uint8)[bits(third, 52, 1)],
        "src_sgt": SGTS[bits(first, 30, 3)],
        "dst_sgt": SGTS[bits(first, 33, 3)],
        "ingress_vrf_id": (1 + bits(first, 36, 2) % VRFS).astype(np.uint32),
        "egress_vrf_id": (1 + bits(first, 38, 2) % VRFS).astype(np.uint32),
        "application_id": APPLICATION_IDS[bits(first, 40, 3)],
        "opaque": third,
    }


def _of_packets(raw: U64, columns: Mapping[str, Column], family: int) -> dict[str, Column]:
    """What a sampled packet shows besides, and what its exporter knows of its way.

    `transport_*` is what stands behind the IP header: before UDP's length, after it to the end of TCP's header, and
    what ICMP and GRE have beyond;
    `mpls_stack` holds `mpls_labels` as they stand in a packet; `ipv6_word` is the first word of an IPv6 header;
    `tunnel_*` are of the packet that carries the conversation's, and `as_path_first` and `as_path_last` parts of
    `as_path`.
    """
    first, second, third = raw
    labels = np.stack([24_000 + bits(second, 45, 10), 16 + bits(third, 44, 20)], axis=1).astype(np.uint32)
    # Time to live 64, and at the bottom of the stack the bit that says so (RFC 3032 §2.1).
    stack = labels << np.uint32(12) | np.array([64, 0x100 | 64], np.uint32)
    path = np.stack([TRANSIT_AS[bits(second, 45, 2)], TRANSIT_AS[bits(second, 47, 2)], columns["dst_as"]], axis=1)
    communities = np.stack([64500 << 16 | bits(second, 49, 6), 64501 << 16 | bits(second, 55, 8)], axis=1)
    behind_ip = transport(columns)
    by_port = columns["dst_port"]
    class_and_label = columns["ip_tos"].astype(np.uint32) << np.uint32(20) | columns["ipv6_flow_label"]
    return {
        "icmp_type": (by_port >> 8).astype(np.uint8),
        "icmp_code": (by_port & 0xFF).astype(np.uint8),
        "ip_ttl": TTLS[bits(first, 43, 2)],
        "fragment_id": bits(first, 45, 16).astype(np.uint32),
        "ipv6_word": np.uint32(6 << 28) | class_and_label,
        "transport_head": behind_ip[:, :4],
        "transport_body": behind_ip[:, 6:20],
        "transport_tail": behind_ip[:, 20:],
        "inner_vlan": (1000 + bits(second, 45, 8)).astype(np.uint16),
        "mpls_labels": labels,
        "mpls_stack": stack,
        "vni": (0x100000 | bits(second, 53, 8)).astype(np.uint32),
        "tunnel_src_addr": _addresses(np.uint32(0x0AFE0000) | columns["in_if"], family),
        "tunnel_dst_addr": _addresses(np.uint32(0x0AFE0100) | columns["out_if"], family),
        "tunnel_src_port": (49_152 + bits(second, 45, 14)).astype(np.uint16),
        "as_path": path,
        "as_path_first": path[:, :2],
        "as_path_last": path[:, 2:],
        "next_hop_as": path[:, 0],
        "bgp_next_hop": _addresses(np.uint32(0x0AFF0100) | columns["out_if"], family),
        "bgp_communities": communities.astype(np.uint32),
        "drop_reason": DROP_REASONS[bits(second, 60, 3)],
        "forwarding_status": DROP_STATUS[bits(second, 60, 3)],
    }


def _as_of_16_bits(numbers: Column) -> npt.NDArray[np.uint16]:
    """What stands in a field of two bytes: 23456 for a number that does not fit (RFC 6793 §4.2.2)."""
    return np.where(numbers > 0xFFFF, 23456, numbers).astype(np.uint16)


def _addresses(hosts: Column, family: int) -> npt.NDArray[np.uint8]:
    """Addresses of 16 bytes: IPv4 as ::ffff:a.b.c.d, IPv6 in 2001:db8::/32 with the same 32 bits at both ends."""
    words = np.zeros((POOL, 4), ">u4")
    words[:, 3] = hosts
    if family == 4:
        words[:, 2] = 0xFFFF
    else:
        words[:, 0], words[:, 1] = 0x20010DB8, hosts
    return words.view(np.uint8)


def _macs(numbers: Column) -> npt.NDArray[np.uint8]:
    """Locally administered MAC addresses, 6 bytes."""
    wide = (0x02005E000000 + numbers).astype(">u8")
    return wide.view(np.uint8).reshape(POOL, 8)[:, 2:]
