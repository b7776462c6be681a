"""sFlow version 5: the structures of counter records, and which column each of their fields fills. Data, no logic.

Sources: sFlow version 5 and the structures for hosts, Java, applications, 802.11, link aggregation, optics, OpenFlow,
Open vSwitch, Broadcom's switches and NVIDIA's GPUs (sflow.org); sflowtool's and host-sflow's headers for the errata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class Xdr(Enum):
    """How a field of a fixed size lies in a structure: big-endian, in multiples of 4 bytes but for octets."""

    UNSIGNED = "unsigned int, all bits set where the agent does not know"
    HYPER = "unsigned hyper, all bits set where the agent does not know"
    INT = "int"
    FLOAT = "float, negative where the agent does not know"
    OCTET = "one of four that make a word"
    MAC = "6 octets, and 2 of padding"
    UUID = "16 octets, all zeros where the agent does not know"
    MACHINE_TYPE = "enum machine_type"
    OS_NAME = "enum os_name"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a fixed size, and the column that it fills."""

    xdr: Xdr
    column: str


@dataclass(frozen=True, slots=True)
class Text:
    """A length, that many bytes, and padding to a multiple of 4."""

    column: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """A count, and that many times one word for each of the columns, which are lists."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Adapters:
    """A count, and that many times an ifIndex, a count of addresses, and the addresses in 8 bytes each."""

    if_index: str
    mac: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A counter record's body. ``optional`` of its last fields may be missing: agents of before they were added."""

    name: str
    parts: tuple[Field | Text | Repeated | Adapters, ...]
    optional: int = 0


def _words(*columns: str) -> tuple[Field, ...]:
    return tuple(Field(Xdr.UNSIGNED, column) for column in columns)


def _hypers(*columns: str) -> tuple[Field, ...]:
    return tuple(Field(Xdr.HYPER, column) for column in columns)


BROADCOM: Final = 4413 << 12
NVIDIA: Final = 5703 << 12

STRUCTURES: Final[Mapping[int, Structure]] = MappingProxyType(
    {
        1: Structure(
            "if_counters",
            (
                *_words("if_index", "if_type"),
                *_hypers("if_speed"),
                *_words("if_direction", "if_status"),
                *_hypers("if_in_octets"),
                *_words(
                    "if_in_ucast_pkts",
                    "if_in_multicast_pkts",
                    "if_in_broadcast_pkts",
                    "if_in_discards",
                    "if_in_errors",
                    "if_in_unknown_protos",
                ),
                *_hypers("if_out_octets"),
                *_words(
                    "if_out_ucast_pkts",
                    "if_out_multicast_pkts",
                    "if_out_broadcast_pkts",
                    "if_out_discards",
                    "if_out_errors",
                    "if_promiscuous_mode",
                ),
            ),
        ),
        2: Structure(
            "ethernet_counters",
            _words(
                "dot3_stats_alignment_errors",
                "dot3_stats_fcs_errors",
                "dot3_stats_single_collision_frames",
                "dot3_stats_multiple_collision_frames",
                "dot3_stats_sqe_test_errors",
                "dot3_stats_deferred_transmissions",
                "dot3_stats_late_collisions",
                "dot3_stats_excessive_collisions",
                "dot3_stats_internal_mac_transmit_errors",
                "dot3_stats_carrier_sense_errors",
                "dot3_stats_frame_too_longs",
                "dot3_stats_internal_mac_receive_errors",
                "dot3_stats_symbol_errors",
            ),
        ),
        5: Structure(
            "vlan_counters",
            (
                *_words("vlan_id"),
                *_hypers("vlan_octets"),
                *_words("vlan_ucast_pkts", "vlan_multicast_pkts", "vlan_broadcast_pkts", "vlan_discards"),
            ),
        ),
        6: Structure(
            "ieee80211_counters",
            _words(
                "dot11_transmitted_fragment_count",
                "dot11_multicast_transmitted_frame_count",
                "dot11_failed_count",
                "dot11_retry_count",
                "dot11_multiple_retry_count",
                "dot11_frame_duplicate_count",
                "dot11_rts_success_count",
                "dot11_rts_failure_count",
                "dot11_ack_failure_count",
                "dot11_received_fragment_count",
                "dot11_multicast_received_frame_count",
                "dot11_fcs_error_count",
                "dot11_transmitted_frame_count",
                "dot11_wep_undecryptable_count",
                "dot11_qos_discarded_fragment_count",
                "dot11_associated_station_count",
                "dot11_qos_cf_polls_received_count",
                "dot11_qos_cf_polls_unused_count",
                "dot11_qos_cf_polls_unusable_count",
                "dot11_qos_cf_polls_lost_count",
            ),
        ),
        7: Structure(
            "lag_port_stats",
            (
                Field(Xdr.MAC, "dot3ad_agg_port_actor_system_id"),
                Field(Xdr.MAC, "dot3ad_agg_port_partner_oper_system_id"),
                *_words("dot3ad_agg_port_attached_agg_id"),
                Field(Xdr.OCTET, "dot3ad_agg_port_actor_admin_state"),
                Field(Xdr.OCTET, "dot3ad_agg_port_actor_oper_state"),
                Field(Xdr.OCTET, "dot3ad_agg_port_partner_admin_state"),
                Field(Xdr.OCTET, "dot3ad_agg_port_partner_oper_state"),
                *_words(
                    "dot3ad_agg_port_stats_lacpdus_rx",
                    "dot3ad_agg_port_stats_marker_pdus_rx",
                    "dot3ad_agg_port_stats_marker_response_pdus_rx",
                    "dot3ad_agg_port_stats_unknown_rx",
                    "dot3ad_agg_port_stats_illegal_rx",
                    "dot3ad_agg_port_stats_lacpdus_tx",
                    "dot3ad_agg_port_stats_marker_pdus_tx",
                    "dot3ad_agg_port_stats_marker_response_pdus_tx",
                ),
            ),
        ),
        8: Structure(
            "slow_path_counts",
            _words(
                "slow_path_unknown",
                "slow_path_other",
                "slow_path_cam_miss",
                "slow_path_cam_full",
                "slow_path_no_hw_support",
                "slow_path_cntrl",
            ),
        ),
        10: Structure(
            "sfp",
            (
                *_words("sfp_module_id", "sfp_module_total_lanes", "sfp_module_supply_voltage_mv"),
                Field(Xdr.INT, "sfp_module_temperature_millicelsius"),
                Repeated(
                    (
                        "sfp_lane_index",
                        "sfp_lane_tx_bias_current_ua",
                        "sfp_lane_tx_power_uw",
                        "sfp_lane_tx_power_min_uw",
                        "sfp_lane_tx_power_max_uw",
                        "sfp_lane_tx_wavelength_nm",
                        "sfp_lane_rx_power_uw",
                        "sfp_lane_rx_power_min_uw",
                        "sfp_lane_rx_power_max_uw",
                        "sfp_lane_rx_wavelength_nm",
                    )
                ),
            ),
        ),
        11: Structure(
            "priority flow control",
            _words("pfc_requests", "pfc_indications", "pfc_pause_us", "pfc_storm_detected", "pfc_storm_restored"),
        ),
        1001: Structure(
            "processor",
            (
                *_words("processor_5s_cpu", "processor_1m_cpu", "processor_5m_cpu"),
                *_hypers("processor_total_memory_bytes", "processor_free_memory_bytes"),
            ),
        ),
        1002: Structure(
            "radio_utilization",
            _words("radio_elapsed_time_ms", "radio_on_channel_time_ms", "radio_on_channel_busy_time_ms"),
        ),
        1004: Structure("of_port", (*_hypers("of_datapath_id"), *_words("of_port_no"))),
        1005: Structure("port_name", (Text("port_name"),)),
        2000: Structure(
            "host_descr",
            (
                Text("hostname"),
                Field(Xdr.UUID, "host_uuid"),
                Field(Xdr.MACHINE_TYPE, "host_machine_type"),
                Field(Xdr.OS_NAME, "host_os_name"),
                Text("host_os_release"),
            ),
        ),
        2001: Structure("host_adapters", (Adapters("host_adapter_if_index", "host_adapter_mac"),)),
        2002: Structure("host_parent", _words("host_parent_container_type", "host_parent_container_index")),
        2003: Structure(
            "host_cpu",
            (
                Field(Xdr.FLOAT, "host_load_one"),
                Field(Xdr.FLOAT, "host_load_five"),
                Field(Xdr.FLOAT, "host_load_fifteen"),
                *_words(
                    "host_proc_run",
                    "host_proc_total",
                    "host_cpu_num",
                    "host_cpu_speed_mhz",
                    "host_uptime_seconds",
                    "host_cpu_user_ms",
                    "host_cpu_nice_ms",
                    "host_cpu_system_ms",
                    "host_cpu_idle_ms",
                    "host_cpu_wio_ms",
                    "host_cpu_intr_ms",
                    "host_cpu_sintr_ms",
                    "host_interrupts",
                    "host_contexts",
                    "host_cpu_steal_ms",
                    "host_cpu_guest_ms",
                    "host_cpu_guest_nice_ms",
                ),
            ),
            optional=3,
        ),
        2004: Structure(
            "host_memory",
            (
                *_hypers(
                    "host_mem_total_bytes",
                    "host_mem_free_bytes",
                    "host_mem_shared_bytes",
                    "host_mem_buffers_bytes",
                    "host_mem_cached_bytes",
                    "host_swap_total_bytes",
                    "host_swap_free_bytes",
                ),
                *_words("host_page_in", "host_page_out", "host_swap_in", "host_swap_out"),
            ),
        ),
        2005: Structure(
            "host_disk_io",
            (
                *_hypers("host_disk_total_bytes", "host_disk_free_bytes"),
                *_words("host_disk_part_max_used", "host_disk_reads"),
                *_hypers("host_disk_bytes_read"),
                *_words("host_disk_read_time_ms", "host_disk_writes"),
                *_hypers("host_disk_bytes_written"),
                *_words("host_disk_write_time_ms"),
            ),
        ),
        2006: Structure(
            "host_net_io",
            (
                *_hypers("host_net_bytes_in"),
                *_words("host_net_pkts_in", "host_net_errs_in", "host_net_drops_in"),
                *_hypers("host_net_bytes_out"),
                *_words("host_net_pkts_out", "host_net_errs_out", "host_net_drops_out"),
            ),
        ),
        2007: Structure(
            "mib2_ip_group",
            _words(
                "ip_forwarding",
                "ip_default_ttl",
                "ip_in_receives",
                "ip_in_hdr_errors",
                "ip_in_addr_errors",
                "ip_forw_datagrams",
                "ip_in_unknown_protos",
                "ip_in_discards",
                "ip_in_delivers",
                "ip_out_requests",
                "ip_out_discards",
                "ip_out_no_routes",
                "ip_reasm_timeout",
                "ip_reasm_reqds",
                "ip_reasm_oks",
                "ip_reasm_fails",
                "ip_frag_oks",
                "ip_frag_fails",
                "ip_frag_creates",
            ),
        ),
        2008: Structure(
            "mib2_icmp_group",
            _words(
                "icmp_in_msgs",
                "icmp_in_errors",
                "icmp_in_dest_unreachs",
                "icmp_in_time_excds",
                "icmp_in_param_probs",
                "icmp_in_src_quenchs",
                "icmp_in_redirects",
                "icmp_in_echos",
                "icmp_in_echo_reps",
                "icmp_in_timestamps",
                "icmp_in_addr_masks",
                "icmp_in_addr_mask_reps",
                "icmp_out_msgs",
                "icmp_out_errors",
                "icmp_out_dest_unreachs",
                "icmp_out_time_excds",
                "icmp_out_param_probs",
                "icmp_out_src_quenchs",
                "icmp_out_redirects",
                "icmp_out_echos",
                "icmp_out_echo_reps",
                "icmp_out_timestamps",
                "icmp_out_timestamp_reps",
                "icmp_out_addr_masks",
                "icmp_out_addr_mask_reps",
            ),
        ),
        2009: Structure(
            "mib2_tcp_group",
            _words(
                "tcp_rto_algorithm",
                "tcp_rto_min_ms",
                "tcp_rto_max_ms",
                "tcp_max_conn",
                "tcp_active_opens",
                "tcp_passive_opens",
                "tcp_attempt_fails",
                "tcp_estab_resets",
                "tcp_curr_estab",
                "tcp_in_segs",
                "tcp_out_segs",
                "tcp_retrans_segs",
                "tcp_in_errs",
                "tcp_out_rsts",
                "tcp_in_csum_errors",
            ),
        ),
        2010: Structure(
            "mib2_udp_group",
            _words(
                "udp_in_datagrams",
                "udp_no_ports",
                "udp_in_errors",
                "udp_out_datagrams",
                "udp_rcvbuf_errors",
                "udp_sndbuf_errors",
                "udp_in_csum_errors",
            ),
        ),
        2100: Structure(
            "virt_node",
            (
                *_words("virt_node_mhz", "virt_node_cpus"),
                *_hypers("virt_node_memory_bytes", "virt_node_memory_free_bytes"),
                *_words("virt_node_num_domains"),
            ),
        ),
        2101: Structure("virt_cpu", _words("virt_cpu_state", "virt_cpu_time_ms", "virt_cpu_count")),
        2102: Structure("virt_memory", _hypers("virt_memory_bytes", "virt_memory_max_bytes")),
        2103: Structure(
            "virt_disk_io",
            (
                *_hypers("virt_disk_capacity_bytes", "virt_disk_allocation_bytes", "virt_disk_available_bytes"),
                *_words("virt_disk_rd_req"),
                *_hypers("virt_disk_rd_bytes"),
                *_words("virt_disk_wr_req"),
                *_hypers("virt_disk_wr_bytes"),
                *_words("virt_disk_errs"),
            ),
        ),
        2104: Structure(
            "virt_net_io",
            (
                *_hypers("virt_net_rx_bytes"),
                *_words("virt_net_rx_packets", "virt_net_rx_errs", "virt_net_rx_drop"),
                *_hypers("virt_net_tx_bytes"),
                *_words("virt_net_tx_packets", "virt_net_tx_errs", "virt_net_tx_drop"),
            ),
        ),
        2105: Structure("jvm_runtime", (Text("jvm_name"), Text("jvm_vendor"), Text("jvm_version"))),
        2106: Structure(
            "jvm_statistics",
            (
                *_hypers(
                    "jvm_heap_initial_bytes",
                    "jvm_heap_used_bytes",
                    "jvm_heap_committed_bytes",
                    "jvm_heap_max_bytes",
                    "jvm_non_heap_initial_bytes",
                    "jvm_non_heap_used_bytes",
                    "jvm_non_heap_committed_bytes",
                    "jvm_non_heap_max_bytes",
                ),
                *_words(
                    "jvm_gc_count",
                    "jvm_gc_time_ms",
                    "jvm_classes_loaded",
                    "jvm_classes_total",
                    "jvm_classes_unloaded",
                    "jvm_compilation_time_ms",
                    "jvm_thread_num_live",
                    "jvm_thread_num_daemon",
                    "jvm_thread_num_started",
                    "jvm_fd_open_count",
                    "jvm_fd_max_count",
                ),
            ),
        ),
        2202: Structure(
            "app_operations",
            (
                Text("app_application"),
                *_words(
                    "app_success",
                    "app_other",
                    "app_timeout",
                    "app_internal_error",
                    "app_bad_request",
                    "app_forbidden",
                    "app_too_large",
                    "app_not_implemented",
                    "app_not_found",
                    "app_unavailable",
                    "app_unauthorized",
                ),
            ),
        ),
        2203: Structure(
            "app_resources",
            (
                *_words("app_user_time_ms", "app_system_time_ms"),
                *_hypers("app_mem_used_bytes", "app_mem_max_bytes"),
                *_words("app_fd_open", "app_fd_max", "app_conn_open", "app_conn_max"),
            ),
        ),
        2206: Structure(
            "app_workers",
            _words("app_workers_active", "app_workers_idle", "app_workers_max", "app_req_delayed", "app_req_dropped"),
        ),
        2207: Structure(
            "ovs_dp_stats",
            _words("ovs_dp_hits", "ovs_dp_misses", "ovs_dp_lost", "ovs_dp_mask_hits", "ovs_dp_flows", "ovs_dp_masks"),
        ),
        BROADCOM | 1: Structure("bst_device_buffers", _words("bst_device_uc_pc", "bst_device_mc_pc")),
        BROADCOM | 2: Structure(
            "bst_port_buffers",
            (
                *_words(
                    "bst_port_ingress_uc_pc",
                    "bst_port_ingress_mc_pc",
                    "bst_port_egress_uc_pc",
                    "bst_port_egress_mc_pc",
                ),
                Repeated(("bst_port_egress_queue_uc_pc",)),
                Repeated(("bst_port_egress_queue_mc_pc",)),
            ),
        ),
        BROADCOM | 3: Structure(
            "hw_tables",
            _words(
                "bcm_host_entries",
                "bcm_host_entries_max",
                "bcm_ipv4_entries",
                "bcm_ipv4_entries_max",
                "bcm_ipv6_entries",
                "bcm_ipv6_entries_max",
                "bcm_ipv4_ipv6_entries",
                "bcm_ipv4_ipv6_entries_max",
                "bcm_long_ipv6_entries",
                "bcm_long_ipv6_entries_max",
                "bcm_total_routes",
                "bcm_total_routes_max",
                "bcm_ecmp_nexthops",
                "bcm_ecmp_nexthops_max",
                "bcm_mac_entries",
                "bcm_mac_entries_max",
                "bcm_ipv4_neighbors",
                "bcm_ipv6_neighbors",
                "bcm_ipv4_routes",
                "bcm_ipv6_routes",
                "bcm_acl_ingress_entries",
                "bcm_acl_ingress_entries_max",
                "bcm_acl_ingress_counters",
                "bcm_acl_ingress_counters_max",
                "bcm_acl_ingress_meters",
                "bcm_acl_ingress_meters_max",
                "bcm_acl_ingress_slices",
                "bcm_acl_ingress_slices_max",
                "bcm_acl_egress_entries",
                "bcm_acl_egress_entries_max",
                "bcm_acl_egress_counters",
                "bcm_acl_egress_counters_max",
                "bcm_acl_egress_meters",
                "bcm_acl_egress_meters_max",
                "bcm_acl_egress_slices",
                "bcm_acl_egress_slices_max",
            ),
        ),
        NVIDIA | 1: Structure(
            "nvidia_gpu",
            (
                *_words("nvml_device_count", "nvml_processes", "nvml_gpu_time_ms", "nvml_mem_time_ms"),
                *_hypers("nvml_mem_total_bytes", "nvml_mem_free_bytes"),
                *_words("nvml_ecc_errors", "nvml_energy_mj", "nvml_temperature_celsius", "nvml_fan_speed"),
            ),
        ),
    }
)
"""Counter records that fill columns, by enterprise << 12 | format; others are skipped by length and counted by kind."""

COUNTED: Final = frozenset({3, 4, 9, 1003, 2200, 2201, 2204, 2205, *range(3000, 3004)})
"""Counter records that are known by number and fill no column: counted each by its own number.

Token ring, 100BaseVG, InfiniBand, queue lengths, memcache, HTTP, virtual desktops, energy and climate.
"""

MACHINE_TYPES: Final = (
    *("unknown", "other", "x86", "x86_64", "ia64", "sparc", "alpha", "powerpc", "m68k", "mips", "arm", "hppa", "s390"),
)
"""Names of `host_descr`'s machine types by their number; a number beyond them is its own name."""

OS_NAMES: Final = (
    *("unknown", "other", "linux", "windows", "darwin", "hpux", "aix", "dragonfly", "freebsd", "netbsd", "openbsd"),
    *("osf", "solaris"),
)
"""The same for operating systems."""
