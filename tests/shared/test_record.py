"""The record as it is declared: what others depend on."""

from __future__ import annotations

import pyarrow as pa
import pytest

from shared.record import COLUMN, COLUMNS, POSITION, SCHEMA, SCHEMA_VERSION

NAME = pa.dictionary(pa.int32(), pa.utf8())
NANOSECONDS = pa.timestamp("ns", "UTC")
ADDRESS, MAC = pa.binary(16), pa.binary(6)

TYPES: list[tuple[pa.DataType, str]] = [
    (NAME, "type"),
    (pa.uint64(), "record_id"),
    (NANOSECONDS, "time_received"),
    (pa.timestamp("ms", "UTC"), "time_exported"),
    (NANOSECONDS, "time_flow_start time_flow_end"),
    (ADDRESS, "sampler_address source_address"),
    (pa.uint32(), "observation_domain_id sequence_num sampling_rate"),
    (pa.uint64(), "bytes packets flows"),
    (ADDRESS, "src_addr dst_addr"),
    (pa.uint16(), "etype"),
    (pa.uint8(), "proto"),
    (pa.uint16(), "src_port dst_port tcp_flags"),
    (pa.uint8(), "ip_tos ip_ttl icmp_type icmp_code"),
    (pa.uint32(), "fragment_id"),
    (pa.uint16(), "fragment_offset"),
    (pa.uint32(), "ipv6_flow_label in_if out_if"),
    (NAME, "in_if_name out_if_name"),
    (MAC, "src_mac dst_mac"),
    (pa.uint16(), "src_vlan dst_vlan inner_vlan"),
    (pa.uint32(), "src_as dst_as next_hop_as"),
    (pa.uint8(), "src_net_len dst_net_len"),
    (ADDRESS, "next_hop bgp_next_hop"),
    (pa.list_(pa.uint32()), "as_path bgp_communities"),
    (pa.uint8(), "flow_direction bi_flow_direction forwarding_status"),
    (pa.uint16(), "drop_reason"),
    (pa.uint8(), "flow_end_reason"),
    (pa.uint16(), "src_sgt dst_sgt"),
    (NAME, "src_sgt_name dst_sgt_name"),
    (pa.uint32(), "ingress_vrf_id egress_vrf_id"),
    (NAME, "ingress_vrf_name egress_vrf_name"),
    (pa.list_(pa.uint32()), "mpls_labels"),
    (ADDRESS, "nat_src_addr nat_dst_addr"),
    (pa.uint16(), "nat_src_port nat_dst_port"),
    (pa.uint8(), "nat_event firewall_event"),
    (pa.utf8(), "application_id"),
    (NAME, "application_name user_name"),
    (pa.uint32(), "vni"),
    (pa.utf8(), "wlan_ssid"),
    (MAC, "wlan_client_mac wlan_ap_mac"),
    (pa.bool_(), "duplicate"),
    (pa.map_(pa.utf8(), pa.utf8()), "extra"),
    (NAME, "sampler_name in_if_boundary out_if_boundary"),
]
"""Every column of schema version 1, in order."""


def test_the_columns_of_version_1_are_these() -> None:
    """Names, order and types are a contract: within a version a type never changes, and new columns come at the end."""
    expected = [(name, type_) for type_, names in TYPES for name in names.split()]
    assert SCHEMA_VERSION == 1
    assert [(column.name, column.type) for column in COLUMNS][: len(expected)] == expected


@pytest.mark.parametrize("column", [pytest.param(column, id=column.name) for column in COLUMNS])
def test_every_column_says_what_it_is(column: object) -> None:
    """Each has a description and a source, and the schema carries them as metadata."""
    name = getattr(column, "name", "")
    declared = COLUMN[name]
    assert declared.description
    assert declared.source
    metadata = {key.decode(): value.decode() for key, value in SCHEMA.field(name).metadata.items()}
    assert metadata.pop("description") == declared.description
    assert metadata.pop("source") == declared.source
    assert metadata == ({} if declared.unit is None else {"unit": declared.unit})


def test_names_and_places_agree() -> None:
    """No name stands twice; the schema, the columns by name and the places are of one list."""
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert list(COLUMN) == names == SCHEMA.names
    assert [POSITION[name] for name in names] == list(range(len(names)))
    assert SCHEMA.types == [column.type for column in COLUMNS]


def test_what_is_counted_has_a_unit() -> None:
    """Bytes, packets and flows are told apart by their unit too."""
    assert [COLUMN[name].unit for name in ("bytes", "packets", "flows")] == ["bytes", "packets", "flows"]


def test_declarations_cannot_be_changed() -> None:
    """Nobody adds a column at run time."""
    with pytest.raises(TypeError):
        COLUMN["mine"] = COLUMNS[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        COLUMNS[0].name = "mine"  # type: ignore[misc]
