"""Devices, what they send, and what has to come of it: data for test_devices.py and, by name, for docs/devices.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests import sflow_builders as make
from tests.builders import (
    SYSTEM,
    VARIABLE,
    data_set,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipfix_templates,
    ipv4,
    ipv6,
    list_entry,
    mac,
    number,
    sub_template_multi_list,
    template,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
    variable,
)
from tests.builders import field as element

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Captured:
    """A device whose datagrams were captured: how many records they hold, and what some record tells."""

    name: str
    files: str
    """The names of its files as a pattern, without the folder of the protocol."""
    records: int
    expected: Row
    """As `decode --format json` has it."""
    further: tuple[Row, ...] = ()
    """What some other records tell."""
    counted: Row = field(default_factory=dict)
    """What some counter sample tells."""
    counters: int = 0
    """Counter samples."""
    parked: int = 0
    """Sets for which no capture has the template."""
    odd: frozenset[str] = frozenset()


CAPTURED: Final = (
    Captured(
        "Juniper MX80",
        "netflow5/netflow5_test_juniper_mx80.dat",
        29,
        {"type": "NETFLOW_V5", "sampling_rate": 1000, "src_as": 64497, "dst_as": 64496, "next_hop": "192.168.0.2"},
    ),
    Captured(
        "MikroTik RouterOS, NetFlow v5",
        "netflow5/netflow5_test_microtik.dat",
        30,
        {"bytes": 104, "packets": 2, "src_addr": "10.0.13.1", "dst_addr": "192.168.0.98", "in_if": 13, "out_if": 50},
    ),
    Captured(
        "MikroTik RouterOS, IPFIX",
        "ipfix/ipfix_test_mikrotik_*.dat",
        46,
        {"src_addr": "10.10.8.197", "nat_src_addr": "192.168.230.216", "nat_dst_addr": "192.168.128.17"},
    ),
    Captured(
        "Cisco ASR 1001-X",
        "netflow9/netflow9_cisco_asr1001x_*.dat",
        25,
        {"src_addr": "10.111.111.242", "application_id": "13:1310", "flow_direction": 1, "next_hop": "10.10.5.100"},
    ),
    Captured(
        "Cisco 1941",
        "netflow9/netflow9_test_cisco_1941K9.dat",
        29,
        {"src_mac": "ec:1f:72:11:9f:c1", "application_id": "5:72", "src_addr": "192.168.0.111", "dst_port": 53},
    ),
    Captured(
        "Cisco ACI",
        "netflow9/netflow9_test_cisco_aci_*.dat",
        3,
        {"src_addr": "10.154.231.145", "src_port": 179, "in_if": 369139712, "tcp_flags": 24},
    ),
    Captured(
        "Cisco ASA, event logging before 8.5",
        "netflow9/netflow9_test_cisco_asa_1_*.dat",
        14,
        {
            "bytes": 56,
            "src_addr": "192.168.14.1",
            "dst_addr": "2.2.2.11",
            "icmp_type": 0,
            "nat_src_addr": "192.168.14.1",
            "nat_dst_addr": "2.2.2.11",
            "nat_dst_port": 17549,
            "firewall_event": 2,
        },
    ),
    Captured(
        "Cisco ASA, event logging",
        "netflow9/netflow9_test_cisco_asa_2_*.dat",
        34,
        {
            "src_addr": "192.168.0.1",
            "dst_addr": "192.168.0.18",
            "nat_src_addr": "192.168.0.1",
            "nat_src_port": 56649,
            "firewall_event": 1,
        },
        further=({"bi_flow_direction": 2, "bytes": 763}, {"bi_flow_direction": 2, "bytes": 6207}),
    ),
    Captured(
        "Cisco ASR 9000",
        "netflow9/netflow9_test_cisco_asr9k_*.dat",
        21,
        {
            "in_if": 110,
            "in_if_name": "TenGigE0_6_1_0",
            "forwarding_status": 64,
            "bgp_next_hop": "10.0.14.33",
            "ingress_vrf_id": 1610612736,
        },
        further=({"out_if_name": "Bundle-Ether2"},),
    ),
    Captured(
        "Cisco IOS with NBAR",
        "netflow9/netflow9_test_cisco_nbar_*.dat",
        5,
        {"application_id": "1:1", "application_name": "icmp", "icmp_type": 8, "dst_mac": "1c:df:0f:7e:c3:58"},
    ),
    Captured(
        "Cisco wireless LAN controller",
        "netflow9/netflow9_test_cisco_wlc_[dt]*.dat",
        19,
        {
            "wlan_ssid": "Test-env",
            "wlan_client_mac": "34:02:86:75:c0:51",
            "wlan_ap_mac": "00:f6:63:cc:80:60",
            "application_id": "13:479",
        },
    ),
    Captured(
        "Fortinet FortiOS 5.2",
        "netflow9/netflow9_test_fortigate_fortios_521_*.dat",
        1,
        {"sampling_rate": 1, "src_addr": "192.168.99.7", "in_if": 9, "out_if": 3},
    ),
    Captured(
        "Fortinet FortiOS 5.4",
        "netflow9/netflow9_test_fortigate_fortios_542_*.dat",
        17,
        {"application_id": "20:12356:0", "forwarding_status": 195, "src_addr": "192.168.100.111"},
        further=({"nat_src_addr": "10.0.0.250", "nat_src_port": 45380},),
    ),
    Captured(
        "Palo Alto PAN-OS 8.1",
        "netflow9/netflow9_test_paloalto_81_*.dat",
        1,
        {"application_name": "kerberos", "user_name": "unknown", "firewall_event": 2, "in_if": 500010024},
    ),
    Captured(
        "Palo Alto PAN-OS",
        "netflow9/netflow9_test_paloalto_panos_*.dat",
        8,
        {"application_name": "incomplete", "firewall_event": 1, "src_addr": "23.35.171.27"},
    ),
    Captured(
        "H3C NetStream",
        "netflow9/netflow9_test_h3c_[dt]*.dat",
        16,
        {"bytes": 1027087, "src_addr": "10.22.166.30", "in_if": 2662, "out_if": 1590, "src_net_len": 24},
    ),
    Captured(
        "H3C NetStream, texts of variable length",
        "netflow9/netflow9_test_h3c_netstream_varstring_*.dat",
        1,
        {"src_addr": "20.20.20.20", "dst_port": 137, "in_if": 17, "src_net_len": 32},
    ),
    Captured(
        "Huawei NetStream",
        "netflow9/netflow9_test_huawei_netstream_*.dat",
        1,
        {"bytes": 200, "next_hop": "10.108.252.41", "src_net_len": 24, "dst_net_len": 25, "forwarding_status": 0},
    ),
    Captured(
        "Ubiquiti EdgeRouter",
        "netflow9/netflow9_test_ubnt_edgerouter_*.dat",
        16,
        {"src_mac": "06:be:ef:be:ef:4f", "dst_mac": "44:d9:e7:be:ef:89", "src_addr": "10.1.0.135", "dst_port": 17232},
    ),
    Captured(
        "ipt-netflow",
        "netflow9/netflow9_test_iptnetflow_*.dat",
        12,
        {"src_mac": "90:e2:ba:23:09:fc", "bytes": 156, "packets": 3, "next_hop": "193.151.192.17"},
        parked=6,
    ),
    Captured(
        "Streamcore",
        "netflow9/netflow9_test_streamcore_*.dat",
        4,
        {"src_addr": "100.78.40.201", "ip_tos": 40, "in_if": 1152, "out_if": 1148},
    ),
    Captured(
        "softflowd",
        "netflow9/netflow9_test_softflowd_*.dat",
        7,
        {"src_addr": "172.16.32.100", "proto": 17, "bytes": 76, "packets": 1},
        further=({"etype": 34525, "proto": 58, "icmp_type": 134},),
    ),
    Captured(
        "nProbe, applications",
        "netflow9/netflow9_test_nprobe_dpi.dat",
        1,
        {"application_id": "0:82", "bytes": 82},
        odd=frozenset({"trailing_bytes"}),
    ),
    Captured(
        "VMware vSphere distributed switch",
        "ipfix/ipfix_test_vmware_vds_*.dat",
        5,
        {"vni": 0, "src_addr": "172.18.65.21", "flow_direction": 1, "flow_end_reason": 1},
        further=({"etype": 34525},),
    ),
    Captured(
        "Cisco SD-WAN (Viptela)",
        "ipfix/ipfix_test_viptela_*.dat",
        1,
        {"bytes": 775, "next_hop": "10.0.0.1", "flow_end_reason": 3, "ip_tos": 48},
    ),
    Captured(
        "Nokia BRAS",
        "ipfix/ipfix_test_nokia_bras_*.dat",
        1,
        {"src_addr": "10.0.1.228", "dst_addr": "10.0.0.34", "src_port": 5878, "dst_port": 80},
    ),
    Captured(
        "Citrix NetScaler",
        "ipfix/ipfix_test_netscaler_*.dat",
        3,
        {"src_addr": "10.0.0.1", "dst_port": 51053, "tcp_flags": 24, "in_if": 2147483651},
        parked=1,
    ),
    Captured(
        "Barracuda firewall",
        "ipfix/ipfix_test_barracuda_[dt]*.dat",
        8,
        {"src_addr": "10.99.130.239", "firewall_event": 2, "in_if": 48660},
    ),
    Captured(
        "Ixia",
        "ipfix/ipfix_test_ixia_*.dat",
        3,
        {"src_as": 4134, "dst_as": 24090, "bi_flow_direction": 1, "flow_end_reason": 1},
    ),
    Captured(
        "OpenBSD pflow",
        "ipfix/ipfix_test_openbsd_pflow_*.dat",
        26,
        {"src_addr": "192.168.0.17", "dst_port": 80, "bytes": 373, "packets": 7},
    ),
    Captured(
        "Procera",
        "ipfix/ipfix_test_procera_*.dat",
        8,
        {"src_addr": "181.214.87.71", "dst_port": 47838, "src_as": 7575},
    ),
    Captured(
        "YAF",
        "ipfix/ipfix_test_yaf_*.dat",
        4,
        {
            "src_addr": "172.16.32.201",
            "src_mac": "00:0c:29:70:86:09",
            "dst_mac": "00:0c:29:8d:af:c3",
            "bi_flow_direction": 1,
            "flow_end_reason": 1,
        },
        further=({"bi_flow_direction": 2, "bytes": 200}, {"bi_flow_direction": 2, "bytes": 92}),
    ),
)
"""Captures of others; the records of both directions of a biflow are counted."""


@dataclass(frozen=True, slots=True)
class Built:
    """A device whose datagrams are built as its documentation, or what others know of it, says."""

    name: str
    payloads: tuple[bytes, ...]
    expected: tuple[Row, ...]
    """The records in the order in which they come, as `decode --format json` has them, without what all have."""
    source: str
    """What says that it sends this."""
    counted: tuple[Row, ...] = ()
    """What each counter sample tells, among more."""


ENDS4 = (element(8, 4), element(12, 4), element(7, 2), element(11, 2), element(4, 1))
END4 = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(40000, 2) + number(443, 2) + b"\6"
TOLD4: Final[Row] = {
    "src_addr": "192.0.2.1",
    "dst_addr": "198.51.100.2",
    "src_port": 40000,
    "dst_port": 443,
    "proto": 6,
    "etype": 0x0800,
}
BACK4: Final[Row] = {
    **TOLD4,
    "src_addr": "198.51.100.2",
    "dst_addr": "192.0.2.1",
    "src_port": 443,
    "dst_port": 40000,
}


def v9(fields: tuple[bytes, ...], *records: bytes, before: tuple[bytes, ...] = ()) -> bytes:
    """A datagram of NetFlow v9 with these sets first, a template, and its records."""
    return v9_datagram(*before, v9_templates(template(300, *fields)), data_set(300, *records))


def ipfix(fields: tuple[bytes, ...], *records: bytes, before: tuple[bytes, ...] = ()) -> bytes:
    """The same of IPFIX."""
    return ipfix_message(*before, ipfix_templates(template(300, *fields)), data_set(300, *records))


_SAMPLED = make.ethernet(make.vlan(100, make.ipv4_packet(make.tcp())))
_SAMPLED_ROW: Final[Row] = {
    "src_mac": make.SRC_MAC,
    "dst_mac": make.DST_MAC,
    "src_vlan": 100,
    "etype": 0x0800,
    "src_addr": make.SRC,
    "dst_addr": make.DST,
    "src_port": 40000,
    "dst_port": 443,
    "proto": 6,
    "tcp_flags": 0x18,
    "ip_tos": 0,
    "ip_ttl": 64,
    "fragment_id": 0x1234,
    "fragment_offset": 0,
    "packets": 1,
}

BUILT: Final = (
    Built(
        "Cisco TrustSec, NetFlow v9",
        (
            v9(
                (*ENDS4, element(34000, 2), element(34001, 2), element(1, 4), element(2, 4)),
                END4 + number(10, 2) + number(0, 2) + number(1500, 4) + number(3, 4),
            ),
        ),
        ({**TOLD4, "src_sgt": 10, "dst_sgt": 0, "bytes": 1500, "packets": 3},),
        "types 34000 and 34001, which four decoders know",
    ),
    Built(
        "Cisco TrustSec, IPFIX",
        (
            ipfix(
                (*ENDS4, *(element(number_, 2, enterprise=9) for number_ in (1232, 1233))),
                END4 + number(10, 2) + number(20, 2),
                before=(
                    ipfix_options_templates(
                        ipfix_options_template(
                            301, (element(1232, 2, enterprise=9),), (element(1234, 12, enterprise=9),)
                        )
                    ),
                    data_set(301, number(10, 2) + fixed("Employees", 12), number(20, 2) + fixed("Printers", 12)),
                ),
            ),
        ),
        ({**TOLD4, "src_sgt": 10, "src_sgt_name": "Employees", "dst_sgt": 20, "dst_sgt_name": "Printers"},),
        "the types of NetFlow v9 without their upper bit, under Cisco's number; the table of names is inferred",
    ),
    Built(
        "Cisco zone-based firewall",
        (v9((*ENDS4, element(34000, 2), element(233, 1), element(35001, 2)), END4 + number(7, 2) + b"\3" + bytes(2)),),
        ({**TOLD4, "src_sgt": 7, "firewall_event": 3},),
        "high-speed logging with FW_CTS_SRC_SGT",
    ),
    Built(
        "Cisco Catalyst 9000, application visibility",
        (
            v9(
                (
                    element(45004, 4),
                    element(45005, 4),
                    element(45009, 2),
                    element(4, 1),
                    element(34000, 2),
                    element(95, 4),
                    element(41106, 8),
                    element(41105, 8),
                    element(42033, 8),
                    element(42034, 8),
                ),
                ipv4("192.0.2.1")
                + ipv4("198.51.100.2")
                + number(443, 2)
                + b"\6"
                + number(10, 2)
                + number(0x0D0001C5, 4)
                + number(700, 8)
                + number(9000, 8)
                + number(7, 8)
                + number(9, 8),
            ),
        ),
        (
            {
                "src_addr": "192.0.2.1",
                "dst_addr": "198.51.100.2",
                "dst_port": 443,
                "proto": 6,
                "etype": 0x0800,
                "src_sgt": 10,
                "application_id": "13:453",
                "bytes": 700,
                "packets": 7,
                "bi_flow_direction": 1,
            },
            {
                "src_addr": "198.51.100.2",
                "dst_addr": "192.0.2.1",
                "src_port": 443,
                "proto": 6,
                "etype": 0x0800,
                "dst_sgt": 10,
                "application_id": "13:453",
                "bytes": 9000,
                "packets": 9,
                "bi_flow_direction": 2,
            },
        ),
        "client and server instead of source and destination",
    ),
    Built(
        "Cisco ASA, teardown of a translated connection",
        (
            v9(
                (
                    *ENDS4,
                    *(element(225, 4), element(226, 4), element(227, 2), element(228, 2), element(233, 1)),
                    *(element(231, 4), element(232, 4), element(40000, 20), element(176, 1), element(177, 1)),
                ),
                END4
                + ipv4("203.0.113.9")
                + ipv4("198.51.100.2")
                + number(1024, 2)
                + number(443, 2)
                + b"\2"
                + number(1000, 4)
                + number(50_000, 4)
                + fixed("alice", 20)
                + bytes(2),
            ),
        ),
        (
            {
                **TOLD4,
                "bytes": 1000,
                "bi_flow_direction": 1,
                "firewall_event": 2,
                "user_name": "alice",
                "nat_src_addr": "203.0.113.9",
                "nat_src_port": 1024,
                "nat_dst_addr": "198.51.100.2",
                "nat_dst_port": 443,
                "icmp_type": 0,
                "icmp_code": 0,
            },
            {
                **BACK4,
                "bytes": 50_000,
                "bi_flow_direction": 2,
                "firewall_event": 2,
                "user_name": "alice",
                "nat_dst_addr": "203.0.113.9",
                "nat_dst_port": 1024,
                "nat_src_addr": "198.51.100.2",
                "nat_src_port": 443,
            },
        ),
        "templates 263 to 268 of the captured ASA",
    ),
    Built(
        "Carrier-grade NAT (NAT44 and NAT64)",
        (
            ipfix(
                (*ENDS4, element(225, 4), element(227, 2), element(230, 1), element(323, 8)),
                END4 + ipv4("203.0.113.9") + number(1024, 2) + b"\4" + number(1_700_000_000_000, 8),
                END4 + ipv4("203.0.113.9") + number(1024, 2) + b"\5" + number(1_700_000_001_000, 8),
            ),
            ipfix_message(
                ipfix_templates(template(302, element(27, 16), element(225, 4), element(281, 16), element(230, 1))),
                data_set(302, ipv6("2001:db8::1") + ipv4("203.0.113.9") + bytes(16) + b"\6"),
                sequence=9,
            ),
        ),
        (
            {**TOLD4, "nat_src_addr": "203.0.113.9", "nat_src_port": 1024, "nat_event": 4},
            {**TOLD4, "nat_src_addr": "203.0.113.9", "nat_src_port": 1024, "nat_event": 5},
            {"src_addr": "2001:db8::1", "etype": 0x86DD, "nat_src_addr": "203.0.113.9", "nat_event": 6},
        ),
        "RFC 8158",
    ),
    Built(
        "Juniper MX, inline monitoring",
        (
            ipfix(
                (
                    element(10, 4),
                    element(61, 1),
                    element(137, 2, enterprise=2636),
                    element(312, 2),
                    element(315, VARIABLE),
                ),
                number(512, 4) + b"\0" + number(2 << 10 | 17, 2) + number(1518, 2) + variable(_SAMPLED),
                number(513, 4) + b"\1" + number(2 << 10, 2) + number(64, 2) + variable(_SAMPLED),
            ),
        ),
        (
            {**_SAMPLED_ROW, "in_if": 512, "flow_direction": 0, "forwarding_status": 128, "bytes": 1518},
            {**_SAMPLED_ROW, "in_if": 513, "flow_direction": 1, "forwarding_status": 64, "bytes": 64},
        ),
        "commonPropertiesId of enterprise 2636 beside sampled frames",
    ),
    Built(
        "Cisco Catalyst, NetFlow-Lite",
        (
            v9(
                (element(10, 4), element(102, 2), element(103, 2), element(104, 64), element(48, 1)),
                number(7, 4) + bytes(2) + number(len(_SAMPLED), 2) + _SAMPLED.ljust(64, b"\0") + b"\1",
                before=(
                    v9_options_templates(
                        v9_options_template(301, (element(SYSTEM, 4),), (element(48, 1), element(50, 4)))
                    ),
                    data_set(301, bytes(4) + b"\1" + number(1024, 4)),
                ),
            ),
        ),
        ({**_SAMPLED_ROW, "in_if": 7, "bytes": len(_SAMPLED), "sampling_rate": 1024},),
        "types 102 to 104, a packet a record",
    ),
    Built(
        "Cisco IOS-XR, IPFIX",
        (
            ipfix(
                (
                    *ENDS4,
                    element(302, 4),
                    element(10, 4),
                    element(89, 4),
                    element(22, 4),
                    element(234, 4),
                    element(70, 3),
                ),
                END4 + number(1, 4) + number(5, 4) + number(64, 4) + number(1000, 4) + number(7, 4) + b"\1\xf4\1",
                before=(
                    ipfix_options_templates(
                        ipfix_options_template(
                            301,
                            (element(302, 4),),
                            (element(304, 2), element(309, 4), element(310, 4), element(305, 4)),
                        ),
                        ipfix_options_template(302, (element(10, 4),), (element(82, 24), element(83, 24))),
                        ipfix_options_template(303, (element(234, 4),), (element(236, 16),)),
                    ),
                    data_set(301, number(1, 4) + number(3, 2) + number(1, 4) + number(256, 4) + number(1, 4)),
                    data_set(302, number(5, 4) + fixed("TenGigE0_0_0_0", 24) + fixed("TenGigE0/0/0/0", 24)),
                    data_set(303, number(7, 4) + fixed("customer-a", 16)),
                ),
            ),
        ),
        (
            {
                **TOLD4,
                "sampling_rate": 256,
                "in_if": 5,
                "in_if_name": "TenGigE0/0/0/0",
                "forwarding_status": 64,
                "ingress_vrf_id": 7,
                "ingress_vrf_name": "customer-a",
                "mpls_labels": [0x1F40],
            },
        ),
        "options of templates 257, 334 and 338 as captured by others: 305 of 1 beside 309 and 310",
    ),
    Built(
        "Nokia SR OS",
        (
            ipfix(
                (*ENDS4, element(1, 8)),
                END4 + number(1500, 8),
                before=(
                    ipfix_options_templates(
                        ipfix_options_template(
                            301, (element(149, 4), element(145, 2)), (element(304, 2), element(305, 4), element(306, 4))
                        )
                    ),
                    data_set(301, number(0, 4) + number(300, 2) + number(1, 2) + number(1, 4) + number(999, 4)),
                ),
            ),
        ),
        ({**TOLD4, "bytes": 1500, "sampling_rate": 1000},),
        "a rate by template id, 1 packet taken and 999 skipped",
    ),
    Built(
        "Exporters of biflows (RFC 5103)",
        (
            ipfix(
                (
                    *ENDS4,
                    *(element(1, 8), element(2, 8), element(6, 1)),
                    *(
                        element(number_, length, enterprise=29305)
                        for number_, length in ((1, 8), (2, 8), (6, 1), (210, 2))
                    ),
                ),
                END4 + number(100, 8) + number(1, 8) + b"\2" + number(9000, 8) + number(7, 8) + b"\x12" + bytes(2),
            ),
        ),
        (
            {**TOLD4, "bytes": 100, "packets": 1, "tcp_flags": 2, "bi_flow_direction": 1},
            {**BACK4, "bytes": 9000, "packets": 7, "tcp_flags": 0x12, "bi_flow_direction": 2},
        ),
        "reverse elements",
    ),
    Built(
        "Exporters of structured data (RFC 6313)",
        (
            ipfix_message(
                ipfix_templates(
                    template(300, *ENDS4, element(293, VARIABLE), element(485, VARIABLE)),
                    template(310, element(56, 6), element(80, 6)),
                ),
                data_set(
                    300,
                    END4
                    + variable(sub_template_multi_list(list_entry(310, mac(make.SRC_MAC) + mac(make.DST_MAC))))
                    + variable(b"\3" + element(483, 4) + number(64496 << 16 | 1, 4) + number(64496 << 16 | 2, 4)),
                ),
            ),
        ),
        (
            {
                **TOLD4,
                "src_mac": make.SRC_MAC,
                "dst_mac": make.DST_MAC,
                "bgp_communities": [64496 << 16 | 1, 64496 << 16 | 2],
            },
        ),
        "lists as YAF sends them, and communities of RFC 8549",
    ),
)
