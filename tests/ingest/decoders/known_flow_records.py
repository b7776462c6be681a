"""Flow records of sFlow and what each tells, as record.md and sflow.org say: data for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests import sflow_builders as make
from tests.builders import mapped
from tests.ingest.decoders.known_packets import LINK
from tests.sflow_builders import (
    DST,
    DST6,
    SRC,
    SRC6,
    UNKNOWN,
    ethernet_record,
    gateway,
    ip_record,
    mpls_record,
    nat,
    nat_ports,
    router,
    socket,
    switch,
    timestamp,
    tunnel_vni,
    user,
    vlan_tunnel,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """A flow record and the columns that it fills."""

    record: bytes
    expected: Row
    name: str


PATH: Final = ((make.SEQUENCE, (64501, 64502)), (make.SET, (64503,)), (make.SEQUENCE, (4200000000,)))
HOP: Final = {"bgp_next_hop": mapped("203.0.113.9"), "src_as": 64496}

RECORDS: Final = (
    Known(ethernet_record(length=64), {"bytes": 64, **LINK, "etype": 0x0800}, name="2 ethernet"),
    Known(
        ip_record(length=1400, proto=6, tos=0xB8, tcp_flags=0x12),
        {
            "bytes": 1400,
            "etype": 0x0800,
            "src_addr": mapped(SRC),
            "dst_addr": mapped(DST),
            "proto": 6,
            "src_port": 40000,
            "dst_port": 443,
            "tcp_flags": 0x12,
            "ip_tos": 0xB8,
        },
        name="3 IPv4",
    ),
    Known(
        ip_record(length=1400, proto=17, src=SRC6, dst=DST6, src_port=53, dst_port=65535, tcp_flags=0, tos=255),
        {
            "bytes": 1400,
            "etype": 0x86DD,
            "src_addr": mapped(SRC6),
            "dst_addr": mapped(DST6),
            "proto": 17,
            "src_port": 53,
            "dst_port": 65535,
            "tcp_flags": 0,
            "ip_tos": 255,
        },
        name="4 IPv6",
    ),
    Known(switch(100, 0), {"src_vlan": 100, "dst_vlan": 0}, name="1001 switch"),
    Known(switch(UNKNOWN, 20, src_priority=UNKNOWN), {"dst_vlan": 20}, name="1001 switch, one side not known"),
    Known(switch(UNKNOWN, UNKNOWN), {}, name="1001 switch, neither known"),
    Known(
        router("203.0.113.1", 24, 0),
        {"next_hop": mapped("203.0.113.1"), "src_net_len": 24, "dst_net_len": 0},
        name="1002 router",
    ),
    Known(
        router("2001:db8::f", 64, 128),
        {"next_hop": mapped("2001:db8::f"), "src_net_len": 64, "dst_net_len": 128},
        name="1002 router, IPv6",
    ),
    Known(router(None, 16, 32), {"src_net_len": 16, "dst_net_len": 32}, name="1002 router, no next hop"),
    Known(router("203.0.113.1", 129, UNKNOWN), {"next_hop": mapped("203.0.113.1")}, name="1002 router, no prefixes"),
    Known(
        gateway(path=PATH, communities=(65000 << 16 | 1, 7)),
        HOP
        | {
            "next_hop_as": 64501,
            "dst_as": 4200000000,
            "as_path": [64501, 64502, 64503, 4200000000],
            "bgp_communities": [65000 << 16 | 1, 7],
        },
        name="1003 gateway",
    ),
    Known(gateway(), HOP, name="1003 gateway, no path and no communities"),
    Known(gateway(None, src_as=0), {"src_as": 0}, name="1003 gateway, no next hop"),
    Known(
        gateway("2001:db8::f", path=((make.SEQUENCE, (64501,)),)),
        {
            "bgp_next_hop": mapped("2001:db8::f"),
            "src_as": 64496,
            "next_hop_as": 64501,
            "dst_as": 64501,
            "as_path": [64501],
        },
        name="1003 gateway, IPv6 and one AS",
    ),
    Known(
        gateway(path=((make.SEQUENCE, (64501, 64502)), (make.SET, ())), communities=(9,)),
        HOP | {"next_hop_as": 64501, "dst_as": 64502, "as_path": [64501, 64502], "bgp_communities": [9]},
        name="1003 gateway, an empty segment",
    ),
    Known(
        gateway(path=tuple((make.SEQUENCE, (number,)) for number in range(1, 17)), communities=(9,)),
        HOP | {"next_hop_as": 1, "dst_as": 16, "as_path": list(range(1, 17)), "bgp_communities": [9]},
        name="1003 gateway, many segments",
    ),
    Known(user("alice", "bob"), {"user_name": "alice"}, name="1004 user"),
    Known(user("Zoë"), {"user_name": "Zoë"}, name="1004 user, UTF-8"),
    Known(user("", "bob"), {}, name="1004 user, of the other side"),
    Known(user(b"al\0ice"), {"user_name": "al"}, name="1004 user, with NUL"),
    Known(
        mpls_record("203.0.113.1", (100, 0xFFFFF), (7,)),
        {"next_hop": mapped("203.0.113.1"), "mpls_labels": [100, 0xFFFFF]},
        name="1006 MPLS",
    ),
    Known(mpls_record(None, (), (7,)), {}, name="1006 MPLS, nothing came in"),
    Known(
        nat("203.0.113.7", "203.0.113.8"),
        {"nat_src_addr": mapped("203.0.113.7"), "nat_dst_addr": mapped("203.0.113.8")},
        name="1007 NAT",
    ),
    Known(nat("2001:db8::7", None), {"nat_src_addr": mapped("2001:db8::7")}, name="1007 NAT, IPv6, of one side"),
    Known(nat(None, "203.0.113.8"), {"nat_dst_addr": mapped("203.0.113.8")}, name="1007 NAT, of the other side"),
    Known(vlan_tunnel(100), {"src_vlan": 100}, name="1012 VLAN tunnel"),
    Known(vlan_tunnel(100, 20, 7), {"src_vlan": 100, "inner_vlan": 20}, name="1012 VLAN tunnel, several tags"),
    Known(vlan_tunnel(), {}, name="1012 VLAN tunnel, no tag"),
    Known(timestamp(1_700_000_000_987_654_321), {}, name="1043 timestamp"),
    Known(nat_ports(1024, 65535), {"nat_src_port": 1024, "nat_dst_port": 65535}, name="1020 NAT ports"),
    Known(nat_ports(0, UNKNOWN), {"nat_src_port": 0}, name="1020 NAT ports, one not known"),
    Known(tunnel_vni(0xFFFFFF), {"vni": 0xFFFFFF}, name="1029 VNI where it goes out"),
    Known(tunnel_vni(5, ingress=True), {"vni": 5}, name="1030 VNI where it came in"),
    *(
        Known(
            socket(local=local, remote=remote, proto=17, local_port=53, port=5353, proxied=proxied),
            {
                "etype": etype,
                "src_addr": mapped(local),
                "dst_addr": mapped(remote),
                "proto": 17,
                "src_port": 53,
                "dst_port": 5353,
            },
            name=f"{kind} socket",
        )
        for kind, local, remote, etype, proxied in (
            (2100, SRC, DST, 0x0800, False),
            (2101, SRC6, DST6, 0x86DD, False),
            (2102, SRC, DST, 0x0800, True),
            (2103, SRC6, DST6, 0x86DD, True),
        )
    ),
)
