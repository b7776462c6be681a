"""The flow record: every column that Sluiceway knows, declared once.

The Kafka codec, the JSON names, the Parquet files and the reference page are all derived from :data:`COLUMNS`.
A column is absent, or null, when the exporter did not say; 0 means that it said 0. Counters are as exported and never
multiplied by the sampling rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
"""Travels with every message. A column's type never changes within a version; new columns do not change it."""

TEXT: Final = pa.utf8()
NAME: Final = pa.dictionary(pa.int32(), pa.utf8())
"""Text with few distinct values: names, types."""
ADDRESS: Final = pa.binary(16)
"""An IPv6 address in network byte order, or an IPv4 address as ::ffff:a.b.c.d."""
MAC: Final = pa.binary(6)
TIME: Final = pa.timestamp("ns", tz="UTC")
CLOCK: Final = pa.timestamp("ms", tz="UTC")
NUMBERS: Final = pa.list_(pa.uint32())


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the record.

    ``source`` tells where the value comes from, by information element numbers (IANA's for IPFIX, which NetFlow v9
    shares), or by the protocol's own field.
    """

    name: str
    type: pa.DataType
    description: str
    source: str
    unit: str | None = None


COLUMNS: Final[tuple[Column, ...]] = (
    Column(
        "type",
        NAME,
        "protocol that the record came by: `NETFLOW_V1`, `NETFLOW_V5`, `NETFLOW_V7`, `NETFLOW_V9`, `IPFIX`, `SFLOW_5`",
        "datagram",
    ),
    Column(
        "record_id",
        pa.uint64(),
        "identity of this observation: a mirrored or repeated datagram gets the same ids, a different one never does;"
        " in JSON as 16 hex digits",
        "hash of exporter and datagram, byte offset of the record, and part",
    ),
    Column(
        "time_received",
        TIME,
        "when the datagram reached the collector, by the kernel's time stamp where there is one;"
        " from a capture file the packet's own",
        "socket",
    ),
    Column("time_exported", CLOCK, "the exporter's own clock when it sent the datagram", "header"),
    Column(
        "time_flow_start",
        TIME,
        "first packet of the flow; the export time where the exporter did not say",
        "22 with the uptime or 160; 150, 152, 154, 156, 158; of events 322 to 325; v5 First; sFlow 1043",
    ),
    Column(
        "time_flow_end",
        TIME,
        "last packet of the flow; the export time where the exporter did not say",
        "21 with the uptime or 160; 151, 153, 155, 157, 159; of events 322 to 325; v5 Last; sFlow 1043",
    ),
    Column("sampler_address", ADDRESS, "the exporter; for sFlow the agent address", "UDP source, or agent"),
    Column("source_address", ADDRESS, "UDP source, when it differs from `sampler_address`", "socket"),
    Column(
        "observation_domain_id",
        pa.uint32(),
        "IPFIX observation domain, v9 source id, v5 engine type << 8 | engine id, sFlow sub-agent",
        "header",
    ),
    Column("sequence_num", pa.uint32(), "sequence number of the datagram", "header"),
    Column(
        "sampling_rate",
        pa.uint32(),
        "N of 1:N; 1 is unsampled, null unknown",
        "configuration; 34, 50, 309/310, 305/306, 311; options; v5 header",
    ),
    Column(
        "bytes",
        pa.uint64(),
        "bytes of the flow, not scaled",
        "1, 85, 23, 352, 231/232; 9:8338/8337; v9 41106/41105; 312 of a frame; v5 dOctets; sFlow 1 to 4",
        "bytes",
    ),
    Column(
        "packets",
        pa.uint64(),
        "packets of the flow, not scaled",
        "2, 86, 24, 298/299; 9:9265/9266; v9 42033/42034; v5 dPkts",
        "packets",
    ),
    Column("flows", pa.uint64(), "flows in this record: 1 unless the exporter aggregates", "3", "flows"),
    Column(
        "src_addr",
        ADDRESS,
        "source address",
        "8, 27; 9:12236, 9:12238; v9 45004, 45006; sFlow 3, 4, 2100 to 2103; frame",
    ),
    Column(
        "dst_addr",
        ADDRESS,
        "destination address",
        "12, 28; 9:12237, 9:12239; v9 45005, 45007; sFlow 3, 4, 2100 to 2103; frame",
    ),
    Column(
        "etype", pa.uint16(), "EtherType: 2048 is IPv4, 34525 IPv6", "family of the addresses, 60, 256; sFlow 2; frame"
    ),
    Column("proto", pa.uint8(), "IP protocol number", "4; sFlow 3, 4, 2100 to 2103; frame"),
    Column("src_port", pa.uint16(), "source port", "7, 180, 182; 9:12240; v9 45008; sFlow 3, 4, 2100 to 2103; frame"),
    Column(
        "dst_port", pa.uint16(), "destination port", "11, 181, 183; 9:12241; v9 45009; sFlow 3, 4, 2100 to 2103; frame"
    ),
    Column("tcp_flags", pa.uint16(), "TCP control bits of all packets, or-ed together", "6; sFlow 3, 4; frame"),
    Column("ip_tos", pa.uint8(), "type of service or traffic class, with DSCP", "5; sFlow 3, 4; frame"),
    Column("ip_ttl", pa.uint8(), "time to live or hop limit", "192, 52; frame"),
    Column("icmp_type", pa.uint8(), "ICMP or ICMPv6 type", "32, 139, 176, 178; v5 and v9 also destination port; frame"),
    Column("icmp_code", pa.uint8(), "ICMP or ICMPv6 code", "32, 139, 177, 179; v5 and v9 also destination port; frame"),
    Column("fragment_id", pa.uint32(), "IP identification", "54; frame"),
    Column("fragment_offset", pa.uint16(), "fragment offset, in units of 8 bytes", "88; frame"),
    Column("ipv6_flow_label", pa.uint32(), "IPv6 flow label", "31; frame"),
    Column(
        "in_if",
        pa.uint32(),
        "ifIndex of the input; 1073741823 (0x3FFFFFFF) is sFlow's internal interface",
        "10, 252",
    ),
    Column(
        "out_if",
        pa.uint32(),
        "ifIndex of the output; null for discarded or multiple outputs, which `forwarding_status` tells",
        "14, 253",
    ),
    Column("in_if_name", NAME, "name of the input interface", "`exporters_file`; options 82/83"),
    Column("out_if_name", NAME, "name of the output interface", "`exporters_file`; options 82/83"),
    Column("src_mac", MAC, "source MAC address", "56, 81; sFlow 2; frame"),
    Column("dst_mac", MAC, "destination MAC address", "80, 57; sFlow 2; frame"),
    Column("src_vlan", pa.uint16(), "VLAN of the source side", "58, 243; sFlow 1001, 1012; frame"),
    Column("dst_vlan", pa.uint16(), "VLAN of the destination side", "59, 254; sFlow 1001"),
    Column("inner_vlan", pa.uint16(), "customer VLAN", "245; sFlow 1012; frame"),
    Column("src_as", pa.uint32(), "autonomous system of the source", "16; sFlow 1003"),
    Column("dst_as", pa.uint32(), "autonomous system of the destination", "17; sFlow 1003"),
    Column("next_hop_as", pa.uint32(), "next autonomous system towards the destination", "128; sFlow 1003"),
    Column("src_net_len", pa.uint8(), "prefix length of the source's route", "9, 29; sFlow 1002"),
    Column("dst_net_len", pa.uint8(), "prefix length of the destination's route", "13, 30; sFlow 1002"),
    Column("next_hop", ADDRESS, "address of the next router", "15, 62; sFlow 1002, 1006"),
    Column("bgp_next_hop", ADDRESS, "BGP next hop", "18, 63; sFlow 1003"),
    Column("as_path", NUMBERS, "AS path to the destination", "sFlow 1003"),
    Column("bgp_communities", NUMBERS, "BGP communities of the route", "485, 291 of 483, 484; sFlow 1003"),
    Column("flow_direction", pa.uint8(), "0 ingress, 1 egress", "61"),
    Column(
        "bi_flow_direction",
        pa.uint8(),
        "1 initiator, 2 reverse (RFC 5103); a record with counters of both directions becomes two,"
        " the second with source and destination exchanged",
        "239, reverse elements (29305)",
    ),
    Column("forwarding_status", pa.uint8(), "status and reason by RFC 7270 §4.12", "89; 2636:137; sFlow discards"),
    Column("drop_reason", pa.uint16(), "sFlow discard reason, as sent", "sFlow discards"),
    Column("flow_end_reason", pa.uint8(), "why the flow ended (RFC 5102 §5.11.3)", "136"),
    Column(
        "src_sgt",
        pa.uint16(),
        'Cisco security group tag of the source; 0 is "Unknown", not null',
        "v9 34000, 1232; 9:1232; 411 beside 412; frame",
    ),
    Column(
        "dst_sgt", pa.uint16(), "Cisco security group tag of the destination", "v9 34001, 1233; 9:1233; 412 beside 411"
    ),
    Column(
        "src_sgt_name", NAME, "name of the source's security group", "v9 34002, 1234; 9:1234; options; configuration"
    ),
    Column(
        "dst_sgt_name",
        NAME,
        "name of the destination's security group",
        "v9 34003, 1235; 9:1235; options; configuration",
    ),
    Column("ingress_vrf_id", pa.uint32(), "VRF that the packets came in by", "234"),
    Column("egress_vrf_id", pa.uint32(), "VRF that the packets left by", "235"),
    Column("ingress_vrf_name", NAME, "name of the ingress VRF", "options 236"),
    Column("egress_vrf_name", NAME, "name of the egress VRF", "options 236"),
    Column("mpls_labels", NUMBERS, "20-bit labels, outermost first", "70 to 79; sFlow 1006; frame"),
    Column("nat_src_addr", ADDRESS, "source address after translation", "225, 281; v9 40001; sFlow 1007"),
    Column("nat_dst_addr", ADDRESS, "destination address after translation", "226, 282; v9 40002; sFlow 1007"),
    Column("nat_src_port", pa.uint16(), "source port after translation", "227; v9 40003; sFlow 1020"),
    Column("nat_dst_port", pa.uint16(), "destination port after translation", "228; v9 40004; sFlow 1020"),
    Column("nat_event", pa.uint8(), "NAT event (RFC 8158 §4.3)", "230"),
    Column(
        "firewall_event", pa.uint8(), "0 ignored, 1 created, 2 deleted, 3 denied, 4 alert, 5 update", "233; v9 40005"
    ),
    Column("application_id", TEXT, "`engine:selector` by RFC 6759, such as `13:453`", "95"),
    Column("application_name", NAME, "name of the application", "96; v9 56701; options"),
    Column("user_name", NAME, "name of the user", "371; v9 40000, 56702; sFlow 1004"),
    Column("vni", pa.uint32(), "VXLAN or Geneve network identifier", "351; sFlow 1029, 1030; frame"),
    Column("wlan_ssid", TEXT, "name of the wireless network", "147"),
    Column("wlan_client_mac", MAC, "MAC address of the wireless client", "365"),
    Column("wlan_ap_mac", MAC, "MAC address of the access point", "367"),
    Column("duplicate", pa.bool_(), "set by the forwarder: this flow is seen and counted elsewhere", "forwarder"),
    Column(
        "extra",
        pa.map_(pa.utf8(), pa.utf8()),
        "fields that the configuration maps by name and that have no column of their own",
        "custom mapping",
    ),
    # New columns come here, at the end: within a version the order of the others stays.
    Column("sampler_name", NAME, "name of the exporter", "`exporters_file`"),
    Column(
        "in_if_boundary",
        NAME,
        "where the input interface leads: `external` or `internal`; null where the file does not say",
        "`exporters_file`",
    ),
    Column(
        "out_if_boundary",
        NAME,
        "where the output interface leads: `external` or `internal`; null where the file does not say",
        "`exporters_file`",
    ),
)

COLUMN: Final[Mapping[str, Column]] = MappingProxyType({column.name: column for column in COLUMNS})
POSITION: Final[Mapping[str, int]] = MappingProxyType({column.name: at for at, column in enumerate(COLUMNS)})


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Columns as an Arrow schema, each field with its description, source and unit as metadata."""
    return pa.schema([_field(column) for column in columns], metadata={"schema": str(SCHEMA_VERSION)})


def _field(column: Column) -> pa.Field:
    metadata = {"description": column.description, "source": column.source}
    if column.unit is not None:
        metadata["unit"] = column.unit
    return pa.field(column.name, column.type, metadata=metadata)


SCHEMA: Final = schema_of(COLUMNS)
"""All columns in their order."""
