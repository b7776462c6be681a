"""sFlow's counter samples: from bytes to column, kind by kind, and whatever may be wrong with them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import Datagrams, Decoded, Fault, Oddity, Unit
from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.sflow_counter_elements import COUNTED, STRUCTURES, Adapters, Repeated, Xdr
from ingest.decoders.sflow_counter_elements import Field as Element
from shared.counters import COLUMN, COLUMNS
from tests.builders import UPTIME_MS, mac, mapped
from tests.counter_builders import (
    BROADCOM,
    NVIDIA,
    UNKNOWN,
    counters_datagram,
    counters_sample,
    ethernet_record,
    interface_record,
    port_name_record,
    record,
    text,
    words,
)
from tests.fuzz import looked_at
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, faults, nothing_wrong

AGENT: Final = mapped("192.0.2.10")
OF_THE_SAMPLE: Final = frozenset(
    {
        *("time_received", "sampler_address", "observation_domain_id", "sequence_num", "uptime_ms"),
        *("source_id_class", "source_id_index", "sample_sequence_num"),
    }
)
"""Columns that every row has."""
ENTITY: Final = 2
"""A class of sources that are no interfaces."""

Row = dict[str, Any]


def rows(decoded: Decoded) -> list[Row]:
    """Counter rows without what is null; each batch is checked against the schema."""
    found: list[Row] = []
    for batch in decoded.counters:
        batch.validate(full=True)
        names = batch.schema.names
        assert names == [column.name for column in COLUMNS if column.name in set(names)]
        assert [one.type for one in batch.schema] == [COLUMN[name].type for name in names]
        for name in names:
            assert batch.column(name).null_count < batch.num_rows, name
        columns = {
            one.name: (
                batch.column(at).cast(pa.int64()) if pa.types.is_timestamp(one.type) else batch.column(at)
            ).to_pylist()
            for at, one in enumerate(batch.schema)
        }
        found.extend(
            {name: values[index] for name, values in columns.items() if values[index] is not None}
            for index in range(batch.num_rows)
        )
    return found


def told(*records: bytes) -> Row:
    """What a sample of a source that is no interface tells by its records alone."""
    decoded = Collector().feed(counters_datagram(counters_sample(*records, source=1, source_class=ENTITY)))
    assert nothing_wrong(decoded)
    assert not decoded.skipped
    (row,) = rows(decoded)
    return {name: value for name, value in row.items() if name not in OF_THE_SAMPLE}


# --- each kind, from bytes to column


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of record as its specification has it: the layout of its words, and what each is called here."""

    kind: int
    layout: str
    """As `struct` writes it: I 32 bits, Q 64 bits, i signed, f a float, B an octet."""
    columns: str
    enterprise: int = 0

    def content(self) -> tuple[float, ...]:
        """A value for each field, all different, and in their upper bytes too."""
        numbers = range(1, len(self.columns.split()) + 1)
        wide = {"I": 0x01000000, "Q": 0x0100000000000000, "B": 0, "i": -0x01000000, "f": 0.5}
        letters = [letter for count, letter in _letters(self.layout) for _ in range(count)]
        return tuple(wide[letter] + number for letter, number in zip(letters, numbers, strict=True))


def _letters(layout: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    count = ""
    for letter in layout:
        if letter.isdigit():
            count += letter
        else:
            found.append((int(count or 1), letter))
            count = ""
    return found


CASES: Final = (
    Case(
        1,
        "IIQIIQ6IQ6I",
        "if_index if_type if_speed if_direction if_status if_in_octets if_in_ucast_pkts if_in_multicast_pkts"
        " if_in_broadcast_pkts if_in_discards if_in_errors if_in_unknown_protos if_out_octets if_out_ucast_pkts"
        " if_out_multicast_pkts if_out_broadcast_pkts if_out_discards if_out_errors if_promiscuous_mode",
    ),
    Case(
        2,
        "13I",
        "dot3_stats_alignment_errors dot3_stats_fcs_errors dot3_stats_single_collision_frames"
        " dot3_stats_multiple_collision_frames dot3_stats_sqe_test_errors dot3_stats_deferred_transmissions"
        " dot3_stats_late_collisions dot3_stats_excessive_collisions dot3_stats_internal_mac_transmit_errors"
        " dot3_stats_carrier_sense_errors dot3_stats_frame_too_longs dot3_stats_internal_mac_receive_errors"
        " dot3_stats_symbol_errors",
    ),
    Case(
        5,
        "IQ4I",
        "vlan_id vlan_octets vlan_ucast_pkts vlan_multicast_pkts vlan_broadcast_pkts vlan_discards",
    ),
    Case(
        6,
        "20I",
        "dot11_transmitted_fragment_count dot11_multicast_transmitted_frame_count dot11_failed_count dot11_retry_count"
        " dot11_multiple_retry_count dot11_frame_duplicate_count dot11_rts_success_count dot11_rts_failure_count"
        " dot11_ack_failure_count dot11_received_fragment_count dot11_multicast_received_frame_count"
        " dot11_fcs_error_count dot11_transmitted_frame_count dot11_wep_undecryptable_count"
        " dot11_qos_discarded_fragment_count dot11_associated_station_count dot11_qos_cf_polls_received_count"
        " dot11_qos_cf_polls_unused_count dot11_qos_cf_polls_unusable_count dot11_qos_cf_polls_lost_count",
    ),
    Case(
        8,
        "6I",
        "slow_path_unknown slow_path_other slow_path_cam_miss slow_path_cam_full slow_path_no_hw_support"
        " slow_path_cntrl",
    ),
    Case(11, "5I", "pfc_requests pfc_indications pfc_pause_us pfc_storm_detected pfc_storm_restored"),
    Case(
        1001,
        "3I2Q",
        "processor_5s_cpu processor_1m_cpu processor_5m_cpu processor_total_memory_bytes processor_free_memory_bytes",
    ),
    Case(1002, "3I", "radio_elapsed_time_ms radio_on_channel_time_ms radio_on_channel_busy_time_ms"),
    Case(1004, "QI", "of_datapath_id of_port_no"),
    Case(2002, "2I", "host_parent_container_type host_parent_container_index"),
    Case(
        2003,
        "3f17I",
        "host_load_one host_load_five host_load_fifteen host_proc_run host_proc_total host_cpu_num host_cpu_speed_mhz"
        " host_uptime_seconds host_cpu_user_ms host_cpu_nice_ms host_cpu_system_ms host_cpu_idle_ms host_cpu_wio_ms"
        " host_cpu_intr_ms host_cpu_sintr_ms host_interrupts host_contexts host_cpu_steal_ms host_cpu_guest_ms"
        " host_cpu_guest_nice_ms",
    ),
    Case(
        2004,
        "7Q4I",
        "host_mem_total_bytes host_mem_free_bytes host_mem_shared_bytes host_mem_buffers_bytes host_mem_cached_bytes"
        " host_swap_total_bytes host_swap_free_bytes host_page_in host_page_out host_swap_in host_swap_out",
    ),
    Case(
        2005,
        "2Q2IQ2IQI",
        "host_disk_total_bytes host_disk_free_bytes host_disk_part_max_used host_disk_reads host_disk_bytes_read"
        " host_disk_read_time_ms host_disk_writes host_disk_bytes_written host_disk_write_time_ms",
    ),
    Case(
        2006,
        "Q3IQ3I",
        "host_net_bytes_in host_net_pkts_in host_net_errs_in host_net_drops_in host_net_bytes_out host_net_pkts_out"
        " host_net_errs_out host_net_drops_out",
    ),
    Case(
        2007,
        "19I",
        "ip_forwarding ip_default_ttl ip_in_receives ip_in_hdr_errors ip_in_addr_errors ip_forw_datagrams"
        " ip_in_unknown_protos ip_in_discards ip_in_delivers ip_out_requests ip_out_discards ip_out_no_routes"
        " ip_reasm_timeout ip_reasm_reqds ip_reasm_oks ip_reasm_fails ip_frag_oks ip_frag_fails ip_frag_creates",
    ),
    Case(
        2008,
        "25I",
        "icmp_in_msgs icmp_in_errors icmp_in_dest_unreachs icmp_in_time_excds icmp_in_param_probs icmp_in_src_quenchs"
        " icmp_in_redirects icmp_in_echos icmp_in_echo_reps icmp_in_timestamps icmp_in_addr_masks"
        " icmp_in_addr_mask_reps icmp_out_msgs icmp_out_errors icmp_out_dest_unreachs icmp_out_time_excds"
        " icmp_out_param_probs icmp_out_src_quenchs icmp_out_redirects icmp_out_echos icmp_out_echo_reps"
        " icmp_out_timestamps icmp_out_timestamp_reps icmp_out_addr_masks icmp_out_addr_mask_reps",
    ),
    Case(
        2009,
        "15I",
        "tcp_rto_algorithm tcp_rto_min_ms tcp_rto_max_ms tcp_max_conn tcp_active_opens tcp_passive_opens"
        " tcp_attempt_fails tcp_estab_resets tcp_curr_estab tcp_in_segs tcp_out_segs tcp_retrans_segs tcp_in_errs"
        " tcp_out_rsts tcp_in_csum_errors",
    ),
    Case(
        2010,
        "7I",
        "udp_in_datagrams udp_no_ports udp_in_errors udp_out_datagrams udp_rcvbuf_errors udp_sndbuf_errors"
        " udp_in_csum_errors",
    ),
    Case(
        2100,
        "2I2QI",
        "virt_node_mhz virt_node_cpus virt_node_memory_bytes virt_node_memory_free_bytes virt_node_num_domains",
    ),
    Case(2101, "3I", "virt_cpu_state virt_cpu_time_ms virt_cpu_count"),
    Case(2102, "2Q", "virt_memory_bytes virt_memory_max_bytes"),
    Case(
        2103,
        "3QIQIQI",
        "virt_disk_capacity_bytes virt_disk_allocation_bytes virt_disk_available_bytes virt_disk_rd_req"
        " virt_disk_rd_bytes virt_disk_wr_req virt_disk_wr_bytes virt_disk_errs",
    ),
    Case(
        2104,
        "Q3IQ3I",
        "virt_net_rx_bytes virt_net_rx_packets virt_net_rx_errs virt_net_rx_drop virt_net_tx_bytes virt_net_tx_packets"
        " virt_net_tx_errs virt_net_tx_drop",
    ),
    Case(
        2106,
        "8Q11I",
        "jvm_heap_initial_bytes jvm_heap_used_bytes jvm_heap_committed_bytes jvm_heap_max_bytes"
        " jvm_non_heap_initial_bytes jvm_non_heap_used_bytes jvm_non_heap_committed_bytes jvm_non_heap_max_bytes"
        " jvm_gc_count jvm_gc_time_ms jvm_classes_loaded jvm_classes_total jvm_classes_unloaded"
        " jvm_compilation_time_ms jvm_thread_num_live jvm_thread_num_daemon jvm_thread_num_started jvm_fd_open_count"
        " jvm_fd_max_count",
    ),
    Case(
        2203,
        "2I2Q4I",
        "app_user_time_ms app_system_time_ms app_mem_used_bytes app_mem_max_bytes app_fd_open app_fd_max app_conn_open"
        " app_conn_max",
    ),
    Case(2206, "5I", "app_workers_active app_workers_idle app_workers_max app_req_delayed app_req_dropped"),
    Case(2207, "6I", "ovs_dp_hits ovs_dp_misses ovs_dp_lost ovs_dp_mask_hits ovs_dp_flows ovs_dp_masks"),
    Case(1, "2I", "bst_device_uc_pc bst_device_mc_pc", BROADCOM),
    Case(
        3,
        "36I",
        "bcm_host_entries bcm_host_entries_max bcm_ipv4_entries bcm_ipv4_entries_max bcm_ipv6_entries"
        " bcm_ipv6_entries_max bcm_ipv4_ipv6_entries bcm_ipv4_ipv6_entries_max bcm_long_ipv6_entries"
        " bcm_long_ipv6_entries_max bcm_total_routes bcm_total_routes_max bcm_ecmp_nexthops bcm_ecmp_nexthops_max"
        " bcm_mac_entries bcm_mac_entries_max bcm_ipv4_neighbors bcm_ipv6_neighbors bcm_ipv4_routes bcm_ipv6_routes"
        " bcm_acl_ingress_entries bcm_acl_ingress_entries_max bcm_acl_ingress_counters bcm_acl_ingress_counters_max"
        " bcm_acl_ingress_meters bcm_acl_ingress_meters_max bcm_acl_ingress_slices bcm_acl_ingress_slices_max"
        " bcm_acl_egress_entries bcm_acl_egress_entries_max bcm_acl_egress_counters bcm_acl_egress_counters_max"
        " bcm_acl_egress_meters bcm_acl_egress_meters_max bcm_acl_egress_slices bcm_acl_egress_slices_max",
        BROADCOM,
    ),
    Case(
        1,
        "4I2Q4I",
        "nvml_device_count nvml_processes nvml_gpu_time_ms nvml_mem_time_ms nvml_mem_total_bytes nvml_mem_free_bytes"
        " nvml_ecc_errors nvml_energy_mj nvml_temperature_celsius nvml_fan_speed",
        NVIDIA,
    ),
)


ETHERNET: Final = next(case for case in CASES if (case.enterprise, case.kind) == (0, 2))
HOST_CPU: Final = next(case for case in CASES if case.kind == 2003)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.enterprise}:{case.kind}")
def test_numbers(case: Case) -> None:
    """Each field of a structure of numbers fills its column."""
    content = case.content()
    body = struct.pack(f"!{case.layout}", *content)
    row = told(record(case.kind, body, enterprise=case.enterprise))
    assert row == dict(zip(case.columns.split(), content, strict=True))


LACP_BODY: Final = (
    mac("02:00:00:00:00:01")
    + bytes(2)
    + mac("02:00:00:00:00:02")
    + bytes(2)
    + words(77)
    + bytes([0x3D, 0x3C, 0x05, 0x04])
    + words(*range(1, 9))
)
LANES: Final = tuple(tuple(100 * lane + at for at in range(10)) for lane in (1, 2))
HOST_BODY: Final = (
    text("db-1.example.net") + bytes.fromhex("00112233445566778899aabbccddeeff") + words(3, 2) + text("6.1.0-13-amd64")
)
ADAPTERS_BODY: Final = (
    words(3)
    + words(1, 1)
    + mac("02:00:00:00:00:11")
    + bytes(2)
    + words(2, 2)
    + mac("02:00:00:00:00:21")
    + bytes(2)
    + mac("02:00:00:00:00:22")
    + bytes(2)
    + words(9, 0)
)
APP_COUNTERS: Final = (
    *("app_success", "app_other", "app_timeout", "app_internal_error", "app_bad_request", "app_forbidden"),
    *("app_too_large", "app_not_implemented", "app_not_found", "app_unavailable", "app_unauthorized"),
)

SHAPED: Final = [
    pytest.param(
        record(7, LACP_BODY),
        {
            "dot3ad_agg_port_actor_system_id": mac("02:00:00:00:00:01"),
            "dot3ad_agg_port_partner_oper_system_id": mac("02:00:00:00:00:02"),
            "dot3ad_agg_port_attached_agg_id": 77,
            "dot3ad_agg_port_actor_admin_state": 0x3D,
            "dot3ad_agg_port_actor_oper_state": 0x3C,
            "dot3ad_agg_port_partner_admin_state": 0x05,
            "dot3ad_agg_port_partner_oper_state": 0x04,
            "dot3ad_agg_port_stats_lacpdus_rx": 1,
            "dot3ad_agg_port_stats_marker_pdus_rx": 2,
            "dot3ad_agg_port_stats_marker_response_pdus_rx": 3,
            "dot3ad_agg_port_stats_unknown_rx": 4,
            "dot3ad_agg_port_stats_illegal_rx": 5,
            "dot3ad_agg_port_stats_lacpdus_tx": 6,
            "dot3ad_agg_port_stats_marker_pdus_tx": 7,
            "dot3ad_agg_port_stats_marker_response_pdus_tx": 8,
        },
        id="link aggregation",
    ),
    pytest.param(
        record(10, struct.pack("!3Ii", 5, 4, 3300, -1500) + words(2, *LANES[0], *LANES[1])),
        {
            "sfp_module_id": 5,
            "sfp_module_total_lanes": 4,
            "sfp_module_supply_voltage_mv": 3300,
            "sfp_module_temperature_millicelsius": -1500,
            "sfp_lane_index": [100, 200],
            "sfp_lane_tx_bias_current_ua": [101, 201],
            "sfp_lane_tx_power_uw": [102, 202],
            "sfp_lane_tx_power_min_uw": [103, 203],
            "sfp_lane_tx_power_max_uw": [104, 204],
            "sfp_lane_tx_wavelength_nm": [105, 205],
            "sfp_lane_rx_power_uw": [106, 206],
            "sfp_lane_rx_power_min_uw": [107, 207],
            "sfp_lane_rx_power_max_uw": [108, 208],
            "sfp_lane_rx_wavelength_nm": [109, 209],
        },
        id="optics",
    ),
    pytest.param(
        record(10, struct.pack("!3Ii", 5, 4, 3300, 0) + words(0)),
        {
            "sfp_module_id": 5,
            "sfp_module_total_lanes": 4,
            "sfp_module_supply_voltage_mv": 3300,
            "sfp_module_temperature_millicelsius": 0,
        },
        id="optics without a lane",
    ),
    pytest.param(port_name_record("Ethernet1/1"), {"port_name": "Ethernet1/1"}, id="port name"),
    pytest.param(record(1005, text("é€")), {"port_name": "é€"}, id="port name in UTF-8"),
    pytest.param(record(1005, words(3) + b"eth"), {"port_name": "eth"}, id="port name without its padding"),
    pytest.param(port_name_record(""), {}, id="port name that is empty"),
    pytest.param(
        record(2000, HOST_BODY),
        {
            "hostname": "db-1.example.net",
            "host_uuid": "00112233-4455-6677-8899-aabbccddeeff",
            "host_machine_type": "x86_64",
            "host_os_name": "linux",
            "host_os_release": "6.1.0-13-amd64",
        },
        id="host",
    ),
    pytest.param(
        record(2000, text("") + bytes(16) + words(0, 99) + text("")),
        {"host_os_name": "99"},
        id="host of an unknown kind",
    ),
    pytest.param(
        record(2001, ADAPTERS_BODY),
        {
            "host_adapter_if_index": [1, 2, 2],
            "host_adapter_mac": ["02:00:00:00:00:11", "02:00:00:00:00:21", "02:00:00:00:00:22"],
        },
        id="adapters, one with two addresses and one with none",
    ),
    pytest.param(record(2001, words(0)), {}, id="no adapters"),
    pytest.param(
        record(2105, text("OpenJDK 64-Bit Server VM") + text("Debian") + text("17.0.9")),
        {"jvm_name": "OpenJDK 64-Bit Server VM", "jvm_vendor": "Debian", "jvm_version": "17.0.9"},
        id="Java",
    ),
    pytest.param(
        record(2202, text("shop.cart") + words(*range(1, 12))),
        {"app_application": "shop.cart", **dict(zip(APP_COUNTERS, range(1, 12), strict=True))},
        id="application",
    ),
    pytest.param(
        record(2, words(1, 2, 3, 4, 8, *range(1, 9), 8, *range(11, 19)), enterprise=BROADCOM),
        {
            "bst_port_ingress_uc_pc": 1,
            "bst_port_ingress_mc_pc": 2,
            "bst_port_egress_uc_pc": 3,
            "bst_port_egress_mc_pc": 4,
            "bst_port_egress_queue_uc_pc": list(range(1, 9)),
            "bst_port_egress_queue_mc_pc": list(range(11, 19)),
        },
        id="buffers of a port",
    ),
    pytest.param(
        record(2003, struct.pack("!3f", 0.25, float("nan"), -1.0) + words(*range(1, 15))),
        {
            "host_load_one": 0.25,
            **dict(zip(HOST_CPU.columns.split()[3:17], range(1, 15), strict=True)),
        },
        id="CPU of before steal and guests, loads unknown",
    ),
]


@pytest.mark.parametrize(("content", "expected"), SHAPED)
def test_shapes(content: bytes, expected: Row) -> None:
    """Texts, addresses, lists, names of numbers: each fills its columns, and what the agent does not know is null."""
    assert told(content) == expected


@pytest.mark.parametrize(
    ("case", "optional"), [pytest.param(HOST_CPU, missing, id=f"{missing} left out") for missing in (1, 2, 3)]
)
def test_fields_that_older_agents_do_not_send(case: Case, optional: int) -> None:
    """The last fields of `host_cpu` came later: a record without them gives what it has, up to whole fields."""
    content = case.content()
    for odd in (0, 3):
        body = struct.pack(f"!{case.layout}", *content)[: -4 * optional + odd or None]
        row = told(record(case.kind, body, length=len(body)) + bytes(-len(body) % 4))
        assert row == dict(zip(case.columns.split()[:-optional], content, strict=False))


def test_every_structure_has_a_case() -> None:
    """No kind of record is decoded that no test shows from bytes to column."""
    shown = {case.enterprise << 12 | case.kind for case in CASES}
    shown |= {int.from_bytes(case.values[0][:4]) for case in SHAPED}  # type: ignore[index]  # the record's bytes
    assert shown == set(STRUCTURES)
    assert not COUNTED & STRUCTURES.keys()


def test_structures_and_columns_agree() -> None:
    """Each column that is not the sample's is filled by one field, and has that field's type."""
    types = {Xdr.UNSIGNED: pa.uint32(), Xdr.HYPER: pa.uint64(), Xdr.INT: pa.int32(), Xdr.FLOAT: pa.float32()}
    types |= {Xdr.OCTET: pa.uint8(), Xdr.MAC: pa.binary(6)}
    name = pa.dictionary(pa.int32(), pa.utf8())
    filled: list[str] = []
    for structure in STRUCTURES.values():
        for part in structure.parts:
            if isinstance(part, Element):
                assert COLUMN[part.column].type == types.get(part.xdr, name), part.column
                filled.append(part.column)
            elif isinstance(part, Repeated):
                filled.extend(part.columns)
            elif isinstance(part, Adapters):
                filled += [part.if_index, part.mac]
            else:
                filled.append(part.column)
    assert sorted(filled) == sorted(COLUMN.keys() - OF_THE_SAMPLE)


# --- samples


@pytest.mark.parametrize("expanded", [False, True], ids=["compact", "expanded"])
def test_a_row_is_a_sample(expanded: bool) -> None:
    """A row has the counters of all records of its sample, what the sample says of itself, and what the datagram does."""
    records = (
        interface_record(7, octets=5000, packets=20),
        ethernet_record(*range(1, 14)),
        port_name_record("xe-0/0/7"),
    )
    payload = counters_datagram(
        counters_sample(*records, source=7, sequence=41, expanded=expanded), sub_agent=6, sequence=99
    )
    decoded = Collector().feed(payload)
    (row,) = rows(decoded)
    expected = {
        "time_received": RECEIVED_NS,
        "sampler_address": AGENT,
        "observation_domain_id": 6,
        "sequence_num": 99,
        "if_index": 7,
        "source_id_class": 0,
        "source_id_index": 7,
        "sample_sequence_num": 41,
        "uptime_ms": UPTIME_MS,
        "if_in_octets": 5000,
        "if_out_ucast_pkts": 40,
        "dot3_stats_symbol_errors": 13,
        "port_name": "xe-0/0/7",
    }
    assert {name: row[name] for name in expected} == expected
    assert nothing_wrong(decoded)
    assert (decoded.records, decoded.counter_rows) == (0, 1)


@pytest.mark.parametrize(
    ("sample", "if_index", "source"),
    [
        pytest.param(counters_sample(ethernet_record(), source=5), 5, (0, 5), id="of the source"),
        pytest.param(counters_sample(interface_record(9), source=5), 9, (0, 5), id="of the counters, where both tell"),
        pytest.param(counters_sample(ethernet_record(), source=5, source_class=1), None, (1, 5), id="a VLAN is none"),
        pytest.param(counters_sample(ethernet_record(), source=0), None, (0, 0), id="0 is none"),
        pytest.param(
            counters_sample(ethernet_record(), source=0x12345678, expanded=True), 0x12345678, (0, 0x12345678), id="expanded"
        ),
        pytest.param(counters_sample(source=0xFFFFFF), 0xFFFFFF, (0, 0xFFFFFF), id="the largest that is compact"),
    ],
)  # fmt: skip
def test_the_interface(sample: bytes, if_index: int | None, source: tuple[int, int]) -> None:
    """`if_index` is the interface that is counted, when it is one; the source is there in any case."""
    (row,) = rows(Collector().feed(counters_datagram(sample)))
    assert row.get("if_index") == if_index
    assert (row["source_id_class"], row["source_id_index"]) == source


def test_samples_of_all_sorts_in_one_batch() -> None:
    """Samples keep their order, and none has what another tells, however many datagrams they come in."""
    payloads = [
        counters_datagram(
            counters_sample(interface_record(number, octets=number), source=number, sequence=number),
            counters_sample(record(2000, text(f"host-{number}") + bytes(16) + words(3, 2) + text("")), source_class=2),
            counters_sample(
                interface_record(number + 1000), port_name_record(f"p{number}"), source=number, expanded=True
            ),
            agent=f"192.0.2.{number % 200 + 1}",
            sequence=number,
        )
        for number in range(1, 60)
    ]
    found = rows(Collector().feed(*payloads))
    assert [row["sequence_num"] for row in found] == [number for number in range(1, 60) for _ in range(3)]
    for number in range(1, 60):
        interface, host, named = found[3 * number - 3 : 3 * number]
        assert (interface["if_index"], interface["if_in_octets"]) == (number, number)
        assert "hostname" not in interface
        assert "port_name" not in interface
        assert host["hostname"] == f"host-{number}"
        assert "if_in_octets" not in host
        assert (named["if_index"], named["port_name"]) == (number + 1000, f"p{number}")
        assert named["sampler_address"] == mapped(f"192.0.2.{number % 200 + 1}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(words(1, 2, 3, 4, UNKNOWN, *range(6, 14)), {"dot3_stats_sqe_test_errors"}, id="32 bits"),
        pytest.param(words(*[UNKNOWN] * 13), None, id="all of them"),
    ],
)
def test_counters_that_an_agent_does_not_know_are_null(content: bytes, expected: set[str] | None) -> None:
    """An agent says so by setting all bits; 0 is 0."""
    row = told(record(2, content))
    columns = set(ETHERNET.columns.split())
    assert columns - row.keys() == (columns if expected is None else expected)


def test_unknown_counters_of_64_bits_are_null() -> None:
    """All 64 bits set is unknown, the lower 32 alone are a number."""
    row = told(record(1004, struct.pack("!QI", 2**64 - 1, 0)))
    assert row == {"of_port_no": 0}
    assert told(record(1004, struct.pack("!QI", 2**32 - 1, 0)))["of_datapath_id"] == 2**32 - 1


def test_the_last_of_a_kind_counts() -> None:
    """Of two records of one kind in a sample the last counts, and the other is counted as passed over."""
    sample = counters_sample(interface_record(3, octets=1), interface_record(3, octets=2), port_name_record("a"))
    decoded = Collector().feed(counters_datagram(sample))
    (row,) = rows(decoded)
    assert row["if_in_octets"] == 2
    assert decoded.skipped == {"repeated counter record 0:1": 1}
    assert nothing_wrong(decoded)


@pytest.mark.parametrize(
    ("tag", "counted"),
    [
        *((tag, f"counter record 0:{tag}") for tag in sorted(COUNTED)),
        pytest.param(1234, "counter record unknown", id="a number that nobody knows"),
        pytest.param(99 << 12 | 1, "counter record unknown", id="a stranger's"),
        pytest.param(0xFFFFFFFF, "counter record unknown", id="all bits"),
    ],
)
def test_kinds_without_columns_are_passed_over(tag: int, counted: str) -> None:
    """Records that no column has room for are skipped by their length and counted by kind; what is around them is read."""
    odd = words(tag) + words(12) + bytes(12)
    sample = counters_sample(interface_record(3, octets=8), odd, port_name_record("eth0"))
    decoded = Collector().feed(counters_datagram(sample))
    (row,) = rows(decoded)
    assert (row["if_in_octets"], row["port_name"]) == (8, "eth0")
    assert decoded.skipped == {counted: 1}
    assert nothing_wrong(decoded)


# --- names of interfaces


def test_port_names_are_facts_of_the_agent() -> None:
    """A name is told once, and again when it changes; the agent has it, whoever sent the datagram."""
    collector = Collector()
    named = counters_datagram(counters_sample(interface_record(3), port_name_record("eth3")), counters_sample(source=4))
    decoded = collector.feed(named, source=EXPORTER)
    assert decoded.facts == [Fact(Kind.INTERFACE_NAME, AGENT, 0, 0, 3, "eth3")]
    assert collector.feed(named).facts == []
    renamed = counters_datagram(counters_sample(interface_record(3), port_name_record("uplink")))
    assert [fact.value for fact in collector.feed(renamed).facts] == ["uplink"]


def test_a_name_without_an_interface_is_no_fact() -> None:
    """A port name of a source that is no interface names none."""
    decoded = Collector().feed(counters_datagram(counters_sample(port_name_record("x"), source_class=ENTITY)))
    assert decoded.facts == []
    assert rows(decoded)[0]["port_name"] == "x"


def test_names_are_joined_to_flows() -> None:
    """Flow samples of the agent, in the same datagram too, have the names of their interfaces."""
    flow = words(1, 32, 1, 3, 1000, 5000, 0, 3, 4, 0)
    decoded = Collector().feed(
        counters_datagram(flow, counters_sample(interface_record(3), port_name_record("eth3")), agent="2001:db8::7")
    )
    (batch,) = decoded.batches
    assert batch.column("in_if_name").to_pylist() == ["eth3"]
    assert "out_if_name" not in batch.schema.names


# --- what may be wrong


ALL_KINDS: Final = [
    *(pytest.param(case.kind, case.enterprise, struct.pack(f"!{case.layout}", *case.content()), id=f"{case.enterprise}:{case.kind}") for case in CASES),
    *(
        pytest.param(int.from_bytes(case.values[0][:4]) & 0xFFF, int.from_bytes(case.values[0][:4]) >> 12, case.values[0][8:], id=str(case.id))  # type: ignore[index]  # the record's bytes
        for case in SHAPED
        if case.id in {"link aggregation", "optics", "port name", "host", "adapters, one with two addresses and one with none", "Java", "application", "buffers of a port"}
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "enterprise", "body"), ALL_KINDS)
def test_records_cut_at_every_byte(kind: int, enterprise: int, body: bytes) -> None:
    """A record that ends too early costs itself and is counted; the records before and after it are read."""
    before, after = ethernet_record(*range(1, 14)), record(8, words(*range(1, 7)))
    needed = len(body) - 12 if (kind, enterprise) == (2003, 0) else len(body.rstrip(b"\0"))
    payloads = [
        counters_datagram(counters_sample(before, cut, after, source_class=ENTITY))
        for length in range(needed)
        for cut in [record(kind, body[:length] + bytes(-length % 4), enterprise=enterprise, length=length)]
    ]
    decoded = Collector().feed(*payloads)
    found = rows(decoded)
    assert len(found) == needed
    for row in found:
        assert {"slow_path_unknown", "dot3_stats_symbol_errors"} <= row.keys()
    assert set(decoded.faults) <= {(Fault.BAD_LENGTH, Unit.SETS), (Fault.TRUNCATED, Unit.SETS)}
    assert sum(decoded.faults.values()) == needed


WHOLE: Final = counters_datagram(
    counters_sample(interface_record(1), ethernet_record(*range(1, 14)), port_name_record("eth1"), source=1),
    counters_sample(record(2000, HOST_BODY), record(2001, ADAPTERS_BODY), source_class=ENTITY, source=1),
    counters_sample(
        record(10, struct.pack("!3Ii", 5, 4, 3300, -1500) + words(2, *LANES[0], *LANES[1])),
        record(2, words(1, 2, 3, 4, 2, 5, 6, 2, 7, 8), enterprise=BROADCOM),
        expanded=True,
    ),
)


def test_datagrams_cut_at_every_byte() -> None:
    """Nothing raises; samples that are whole are there, and each cut is counted."""
    lengths = range(len(WHOLE))
    datagrams = Datagrams.pack(
        [WHOLE[:length] for length in lengths], [EXPORTER] * len(WHOLE), [50000] * len(WHOLE), list(lengths)
    )
    decoded = Collector().take(datagrams)
    found: dict[int, list[Row]] = {length: [] for length in lengths}
    for row in rows(decoded):
        found[row.pop("time_received")].append(row)
    complete = [row for row in rows(Collector().feed(WHOLE)) if row.pop("time_received")]
    assert len(complete) == 3
    for length, cut in found.items():
        assert cut == complete[: len(cut)], length
        assert len(cut) < 3
    # A datagram that ends between two samples has fewer than it counts.
    assert sum(decoded.faults.values()) + sum(decoded.oddities.values()) == len(WHOLE)


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        pytest.param(words(2, 8, 1, 3), {(Fault.BAD_LENGTH, Unit.SETS): 1}, id="no room for a count"),
        pytest.param(words(4, 12, 1, 0, 3), {(Fault.BAD_LENGTH, Unit.SETS): 1}, id="nor in the expanded form"),
        pytest.param(counters_sample(length=2**32 - 1), {(Fault.TRUNCATED, Unit.SETS): 1}, id="an endless sample"),
    ],
)
def test_samples_that_are_none(sample: bytes, fault: dict[tuple[Fault, Unit], int]) -> None:
    """A sample without its fixed part is counted and makes no row; what comes before it is read."""
    decoded = Collector().feed(counters_datagram(counters_sample(interface_record()), sample))
    assert len(rows(decoded)) == 1
    assert faults(decoded) == fault


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        pytest.param([record(2, bytes(52), length=2**32 - 1)], Fault.TRUNCATED, id="a record without an end"),
        pytest.param([record(1005, words(2**32 - 1))], Fault.TRUNCATED, id="a name of 4 GiB"),
        pytest.param([record(2001, words(2**32 - 1) + words(1, 0))], Fault.TRUNCATED, id="endless adapters"),
        pytest.param([record(2001, words(2, 1, 2**32 - 1))], Fault.TRUNCATED, id="endless addresses of an adapter"),
        pytest.param([record(2001, words(2, 1, 1) + bytes(8))], Fault.TRUNCATED, id="one adapter too few"),
        pytest.param([record(10, words(1, 2, 3, 4, 2**28))], Fault.TRUNCATED, id="endless lanes"),
        pytest.param([record(2, words(1, 2, 3, 4, 2**30), enterprise=BROADCOM)], Fault.TRUNCATED, id="endless queues"),
        pytest.param([record(2, words(1, 2, 3, 4, 0), enterprise=BROADCOM)], Fault.BAD_LENGTH, id="a list missing"),
        pytest.param([record(1, b"")], Fault.BAD_LENGTH, id="nothing at all"),
    ],
)
def test_lengths_that_lie(records: list[bytes], fault: Fault) -> None:
    """A length or a count that is more than there is costs its record; what was read before it stays."""
    sample = counters_sample(record(8, words(*range(1, 7))), *records, source_class=ENTITY)
    decoded = Collector().feed(counters_datagram(sample, counters_sample(interface_record(4), source=4)))
    first, second = rows(decoded)
    assert first["slow_path_cntrl"] == 6
    assert second["if_index"] == 4
    assert faults(decoded) == {(fault, Unit.SETS): 1}


def test_a_count_of_records_that_lies_is_odd() -> None:
    """More records than the sample has room for are an oddity: those that are there are read."""
    sample = counters_sample(interface_record(), count=2**32 - 1)
    decoded = Collector().feed(counters_datagram(sample))
    assert len(rows(decoded)) == 1
    assert decoded.oddities == {Oddity.COUNT_MISMATCH: 1}
    assert not decoded.faults


def test_many_adapters_cost_no_more_than_they_may() -> None:
    """A host with more adapters than are read keeps those, and is counted."""
    body = words(300) + b"".join(words(number, 1) + bytes(8) for number in range(300))
    decoded = Collector().feed(counters_datagram(counters_sample(record(2001, body), source_class=ENTITY)))
    (row,) = rows(decoded)
    assert row["host_adapter_if_index"] == list(range(256))
    assert faults(decoded) == {(Fault.TRUNCATED, Unit.SETS): 1}


TAGS: Final = sorted({*STRUCTURES, *COUNTED, 1234})
RECORDS: Final = st.builds(
    lambda tag, body, length: words(tag, len(body) if length is None else length) + body,
    st.sampled_from(TAGS),
    st.one_of(st.binary(max_size=120), st.lists(st.sampled_from([0, 1, 2, 8, UNKNOWN]), max_size=30).map(lambda numbers: words(*numbers))),
    st.one_of(st.none(), st.integers(0, 200), st.just(UNKNOWN)),
)  # fmt: skip
SAMPLES: Final = st.builds(
    lambda records, source, expanded, count: counters_sample(*records, source=source, expanded=expanded, count=count),
    st.lists(RECORDS, max_size=5),
    st.integers(0, 2**24 - 1),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)


@looked_at(100, 4_000)
@given(st.lists(st.lists(SAMPLES, max_size=4), min_size=1, max_size=20))
def test_random_records_never_raise(batch: list[list[bytes]]) -> None:
    """Whatever stands in samples, batches are sound, each sample that has its fixed part is a row, and nothing raises."""
    decoded = Collector().feed(*(counters_datagram(*samples) for samples in batch))
    assert len(rows(decoded)) <= sum(map(len, batch))


@looked_at(100, 30_000)
@given(st.lists(st.binary(max_size=400), min_size=1, max_size=30))
def test_random_bytes_never_raise(contents: list[bytes]) -> None:
    """Nor does anything behind a header."""
    rows(Collector().feed(*(counters_datagram(content, count=3) for content in contents)))


@looked_at(30, 3_000)
@given(st.lists(st.lists(SAMPLES, max_size=3), min_size=1, max_size=20))
def test_alone_or_together(batch: list[list[bytes]]) -> None:
    """A datagram gives the same rows in whatever company it comes."""
    payloads = [counters_datagram(*samples) for samples in batch]
    together = rows(Collector().feed(*payloads))
    collector = Collector()
    alone = [row for payload in payloads for row in rows(collector.feed(payload))]
    assert together == alone
