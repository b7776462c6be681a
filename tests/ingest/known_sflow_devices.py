"""Devices that send sFlow, and NetFlow of fixed form: data for test_devices.py and, by name, for docs/devices.md."""

from __future__ import annotations

import struct
from typing import Final

from tests import counter_builders as counters
from tests import sflow_builders as make
from tests.builders import mac, v1_datagram, v1_record, v5_record, v7_datagram, v7_record
from tests.ingest.known_devices import TOLD4, Built, Captured, Row

AGENT: Final = "192.0.2.100"
"""The address that the datagrams come from: what they tell needs no other."""

CAPTURED_SFLOW: Final = (
    Captured(
        "Switch with 400G ports and an IPv6 agent",
        "sflow5/tcpdump-sflow-print-v6.pcap",
        13,
        {
            "sampler_address": "30::1:1:1",
            "src_mac": "00:11:11:11:11:03",
            "src_addr": "10.10.10.2",
            "src_vlan": 10,
            "dst_vlan": 10,
            "in_if": 7001,
            "forwarding_status": 64,
        },
        counted={"if_index": 23001, "if_speed": 400_000_000_000, "if_out_multicast_pkts": 79},
        counters=48,
    ),
    Captured(
        "Router with BGP, expanded samples",
        "sflow5/tcpdump-sflow_expanded.pcap",
        1,
        {
            "sampler_address": "49.49.49.49",
            "sampling_rate": 1000,
            "bytes": 126,
            "src_as": 203476,
            "dst_as": 203361,
            "next_hop_as": 8218,
            "src_vlan": 809,
        },
    ),
    Captured(
        "Switches with counters of many interfaces a datagram",
        "sflow5/tcpdump-sflow_multiple_counter_30_pdus.pcap",
        7,
        # What came to the same collector: NetFlow v5 of two routers.
        {"type": "NETFLOW_V5", "src_as": 22911, "src_net_len": 16},
        counted={"sampler_address": "15.184.8.4", "observation_domain_id": 2, "if_index": 55, "if_type": 117},
        counters=144,
    ),
)

PACKET: Final = make.ethernet(make.ipv4_packet(make.tcp()))
LINK: Final[Row] = {"src_mac": make.SRC_MAC, "dst_mac": make.DST_MAC}
SAMPLED: Final[Row] = {
    **TOLD4,
    **LINK,
    "bytes": 1518,
    "packets": 1,
    "sampling_rate": 1000,
    "tcp_flags": 0x18,
    "ip_tos": 0,
    "ip_ttl": 64,
    "fragment_id": 0x1234,
    "fragment_offset": 0,
    "in_if": 3,
    "out_if": 4,
}


def sflow(*samples: bytes, sub_agent: int = 0) -> bytes:
    """A datagram of the agent that sends it."""
    return make.datagram(*samples, agent=AGENT, sub_agent=sub_agent)


def header(packet: bytes = PACKET) -> bytes:
    """A sampled header of a full-sized frame."""
    return make.sampled_header(packet, frame_length=1518)


def numbers(kind: int, layout: str, *values: float | bytes, enterprise: int = 0) -> bytes:
    """A counter record of numbers."""
    return counters.record(kind, struct.pack(f"!{layout}", *values), enterprise=enterprise)


HOST: Final = (
    counters.record(
        2000,
        counters.text("db-1") + bytes.fromhex("00112233445566778899aabbccddeeff") + counters.words(3, 2)
        + counters.text("6.1.0"),
    ),
    counters.record(2001, counters.words(1, 2, 1) + mac(make.SRC_MAC) + bytes(2)),
    numbers(2003, "3f17I", 0.5, 0.25, 0.125, *range(1, 18)),
    numbers(2004, "7Q4I", *range(1, 12)),
    numbers(2005, "2Q2IQ2IQI", *range(1, 10)),
    numbers(2006, "Q3IQ3I", *range(1, 9)),
    numbers(2007, "19I", *range(1, 20)),
    numbers(2008, "25I", *range(1, 26)),
    numbers(2009, "15I", *range(1, 16)),
    numbers(2010, "7I", *range(1, 8)),
)  # fmt: skip

BUILT_SFLOW: Final = (
    Built(
        "hsflowd on a Linux host",
        (
            sflow(
                counters.counters_sample(*HOST, source=1, source_class=2),
                make.flow_sample(header(), rate=1000),
                sub_agent=100_000,
            ),
        ),
        (SAMPLED,),
        "host-sflow's sflow_receiver.c, and sflowtool's reading of the host structures",
        counted=(
            {
                "hostname": "db-1",
                "host_uuid": "00112233-4455-6677-8899-aabbccddeeff",
                "host_machine_type": "x86_64",
                "host_os_name": "linux",
                "host_adapter_mac": [make.SRC_MAC],
                "host_load_one": 0.5,
                "host_mem_total_bytes": 1,
                "host_disk_reads": 4,
                "host_net_pkts_out": 6,
                "ip_in_receives": 3,
                "icmp_in_msgs": 1,
                "tcp_active_opens": 5,
                "udp_in_csum_errors": 7,
            },
        ),
    ),
    Built(
        "hsflowd on a Linux host, dropped packets",
        (
            sflow(
                make.discarded_packet(
                    header(),
                    make.tagged(1038, make.opaque("tcp_v4_rcv")),
                    make.tagged(1042, make.opaque("NO_SOCKET")),
                    input_if=3,
                    reason=3,
                ),
            ),
        ),
        (
            {
                **{name: value for name, value in SAMPLED.items() if name not in {"sampling_rate", "out_if"}},
                "drop_reason": 3,
                "forwarding_status": 131,
            },
        ),
        "sFlow Dropped Packet Notification Structures; host-sflow's sflow_drop.h",
    ),
    Built(
        "hsflowd with GPUs of NVIDIA",
        (
            sflow(
                counters.counters_sample(
                    numbers(
                        1, "4I2Q4I", 2, 5, 1000, 500, 1 << 34, 1 << 33, 0, 7000, 61, 30, enterprise=counters.NVIDIA
                    ),
                    source=1,
                    source_class=2,
                ),
            ),
        ),
        (),
        "sFlow NVML GPU Structures, as host-sflow's mod_nvml sends them",
        counted=({"nvml_device_count": 2, "nvml_mem_total_bytes": 1 << 34, "nvml_temperature_celsius": 61},),
    ),
    Built(
        "Switch with a Broadcom ASIC",
        (
            sflow(
                counters.counters_sample(
                    counters.interface_record(3, octets=5000, packets=20),
                    counters.ethernet_record(),
                    counters.port_name_record("swp3"),
                    counters.record(2, counters.words(1, 2, 3, 4, 2, 5, 6, 2, 7, 8), enterprise=counters.BROADCOM),
                ),
                counters.counters_sample(
                    numbers(1, "2I", 10, 20, enterprise=counters.BROADCOM),
                    numbers(3, "36I", *range(1, 37), enterprise=counters.BROADCOM),
                    source=1,
                    source_class=2,
                ),
                make.flow_sample(header(), make.switch(10, 20), rate=1000),
            ),
        ),
        ({**SAMPLED, "src_vlan": 10, "dst_vlan": 20, "in_if_name": "swp3"},),
        "sFlow structures for Broadcom's buffers and tables; port names of sFlow's OpenFlow structures",
        counted=(
            {"if_index": 3, "if_in_octets": 5000, "port_name": "swp3", "bst_port_egress_queue_mc_pc": [7, 8]},
            {"bst_device_mc_pc": 20, "bcm_acl_egress_slices_max": 36},
        ),
    ),
    Built(
        "Switch with optics and link aggregation",
        (
            sflow(
                counters.counters_sample(
                    numbers(
                        7, "6s2x6s2xI4B8I", mac(make.SRC_MAC), mac(make.DST_MAC), 77, 0x3D, 0x3C, 5, 4, *range(1, 9)
                    ),
                    counters.record(
                        10,
                        struct.pack("!3Ii", 3, 1, 3300, 41_500)
                        + counters.words(1, 1, 6000, 500, 400, 600, 850, 450, 400, 500, 850),
                    ),
                ),
            ),
        ),
        (),
        "sFlow LAG Port Statistics, sFlow Optical Interface Structures",
        counted=(
            {
                "dot3ad_agg_port_attached_agg_id": 77,
                "sfp_module_temperature_millicelsius": 41_500,
                "sfp_lane_rx_power_uw": [450],
            },
        ),
    ),
    Built(
        "Router with BGP",
        (
            sflow(
                make.expanded_flow_sample(
                    header(),
                    make.router("203.0.113.1", 24, 16),
                    make.gateway(
                        path=((make.SEQUENCE, (64501, 64502)), (make.SET, (64503, 64504))),
                        communities=(64500 << 16 | 7,),
                    ),
                    rate=1000,
                    input_if=(0, 3),
                    output_if=(0, 4),
                ),
            ),
        ),
        (
            {
                **SAMPLED,
                "next_hop": "203.0.113.1",
                "src_net_len": 24,
                "dst_net_len": 16,
                "bgp_next_hop": "203.0.113.9",
                "src_as": 64496,
                "next_hop_as": 64501,
                "dst_as": 64504,
                "as_path": [64501, 64502, 64503, 64504],
                "bgp_communities": [64500 << 16 | 7],
            },
        ),
        "sFlow version 5, extended router and gateway",
    ),
    Built(
        "SD-Access fabric, sampled",
        (
            sflow(
                make.flow_sample(
                    make.sampled_header(
                        make.ethernet(
                            make.ipv4_packet(make.vxlan(8190, make.ethernet(make.ipv4_packet(make.tcp())), group=17))
                        ),
                        frame_length=1518,
                    ),
                    rate=1000,
                ),
            ),
        ),
        (
            {
                **{name: value for name, value in SAMPLED.items() if name != "tcp_flags"},
                "proto": 17,
                "src_port": 50000,
                "dst_port": 4789,
                "vni": 8190,
                "src_sgt": 17,
            },
        ),
        "draft-smith-vxlan-group-policy",
    ),
    Built(
        "TrustSec link, sampled",
        (sflow(make.flow_sample(header(make.ethernet(make.meta_data(17, make.ipv4_packet(make.tcp())))), rate=1000)),),
        ({**SAMPLED, "src_sgt": 17},),
        "Wireshark's dissector of Cisco Meta Data",
    ),
)

FIXED: Final = v5_record(src_as=64496, dst_as=64497, src_mask=24, dst_mask=16, tcp_flags=0x1B)
TOLD_FIXED: Final[Row] = {
    **TOLD4,
    "bytes": 64,
    "packets": 1,
    "tcp_flags": 0x1B,
    "ip_tos": 0,
    "in_if": 1,
    "out_if": 2,
    "next_hop": "0.0.0.0",
}
BUILT_NETFLOW: Final = (
    Built(
        "Exporters of NetFlow v1",
        (v1_datagram(v1_record(FIXED)),),
        (TOLD_FIXED,),
        "Wireshark's and nfdump's layout: records of 48 bytes",
    ),
    Built(
        "Catalyst switches with NetFlow v7",
        (v7_datagram(v7_record(FIXED, router="192.0.2.77")),),
        ({**TOLD_FIXED, "src_as": 64496, "dst_as": 64497, "src_net_len": 24, "dst_net_len": 16},),
        "Cisco's layout: v5 with the router that was bypassed behind each record",
    ),
)
