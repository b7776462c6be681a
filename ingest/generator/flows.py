"""Who talks to whom: conversations, drawn once, of which every flow record shows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.generator.draws import U64, bits, draw

Column = npt.NDArray[Any]

POOL: Final = 1 << 14
"""How many conversations there are of each address family."""
INTERFACES: Final = 8
"""Every exporter has interfaces 1 to 8."""
SAMPLERS: Final = (1, 2)
TEXT_BYTES: Final = 320
"""Names are cut from a text of this length, to the length that their field has."""

TCP, UDP, ICMP, ICMP6, GRE = 6, 17, 1, 58, 47
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
APPLICATIONS: Final = ("http", "smtp", "imap", "ldap", "snmp", "rtsp", "mqtt", "sips")
TEXTS: Final = frozenset({"application_name", "user_name"})


class Conversations:
    """What stays the same each time that a conversation is exported, as columns of `POOL` rows.

    Columns have the names that the flow record gives them; besides, `src_as_16` and `dst_as_16` are for fields
    of two bytes, `sampler` is a sampler's id, and `opaque` what an enterprise puts into fields of its own. Counters and times are not here: they belong to the record.
    """

    def __init__(self, seed: int, family: int) -> None:
        self.family = family
        self.columns: Mapping[str, Column] = _columns(draw(seed, family, 3, POOL), family)
        self._texts: dict[str, npt.NDArray[np.uint8]] = {}

    def values(self, column: str) -> Column:
        """A column as the flow record has it."""
        return self.columns[column]

    def texts(self, column: str, length: int) -> npt.NDArray[np.bytes_]:
        """A column of names as it stands in a field of so many bytes, [POOL]."""
        return np.ascontiguousarray(self._text(column)[:, :length]).view(f"S{length}")[:, 0]

    def wire(self, column: str, length: int) -> npt.NDArray[np.uint8]:
        """A column in network byte order, [POOL, length]; numbers and addresses lose what leads, texts what trails."""
        if column in TEXTS:
            return self._text(column)[:, :length]
        values = self.columns[column]
        if values.dtype != np.uint8 or values.ndim == 1:
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


def _columns(raw: U64, family: int) -> dict[str, Column]:
    first, second, third = raw
    proto = PROTOCOLS[bits(first, 0, 5)]
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
        "opaque": third,
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
