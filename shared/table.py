"""Flow records as a table that a person reads on a terminal, line after line as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from shared.grid import GrowingTable, Heading, Layout, Row, shown, shown_count, shown_time
from shared.text import format_column

PROTOCOLS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "HOPOPT",
        1: "ICMP",
        2: "IGMP",
        4: "IPIP",
        6: "TCP",
        8: "EGP",
        9: "IGP",
        17: "UDP",
        27: "RDP",
        33: "DCCP",
        41: "IPv6",
        43: "v6-route",
        44: "v6-frag",
        46: "RSVP",
        47: "GRE",
        50: "ESP",
        51: "AH",
        58: "ICMPv6",
        88: "EIGRP",
        89: "OSPF",
        94: "IPIP",
        97: "EtherIP",
        103: "PIM",
        108: "IPComp",
        112: "VRRP",
        115: "L2TP",
        118: "STP",
        124: "IS-IS",
        132: "SCTP",
        136: "UDPLite",
        137: "MPLS",
    }
)
"""IP protocols by their number, as a person calls them (IANA's registry of protocol numbers)."""

ICMP: Final = frozenset({1, 58})

_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NETFLOW_V1": "v1",
        "NETFLOW_V5": "v5",
        "NETFLOW_V7": "v7",
        "NETFLOW_V9": "v9",
        "IPFIX": "IPFIX",
        "SFLOW_5": "sFlow",
    }
)
_TCP_FLAGS: Final = "FSRPAUEC"
"""A letter for each flag, the lowest bit first (RFC 9293 §3.1)."""


HEADINGS: Final = (
    Heading("time", 23, style="dim"),
    Heading("exporter", 9),
    Heading("type", 5, style="dim"),
    Heading("proto", 6),
    Heading("source", 18, style="cyan"),
    Heading("", 1, style="dim"),
    Heading("destination", 18, style="cyan"),
    Heading("bytes", 7, right=True),
    Heading("packets", 7, right=True),
    Heading("in", 3, right=True),
    Heading("out", 3, right=True),
    Heading("rate", 4, right=True),
    Heading("more", 0, style="dim"),
)
YIELDING: Final = ("rate", "out", "in", "type", "exporter")
"""Columns that are left out where the terminal is too narrow, in this order; before the last, the date is."""

# What the last column tells where there is something to tell: what it is called, and the columns that it shows. Two
# columns are a pair from source to destination.
_MORE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("dir", ("flow_direction",)),
    ("vlan", ("src_vlan", "dst_vlan")),
    ("as", ("src_as", "dst_as")),
    ("sgt", ("src_sgt", "dst_sgt")),
    ("sgt-name", ("src_sgt_name", "dst_sgt_name")),
    ("vrf", ("ingress_vrf_name", "egress_vrf_name")),
    ("app", ("application_name",)),
    ("user", ("user_name",)),
    ("nat", ("nat_src_addr", "nat_dst_addr")),
    ("nat-port", ("nat_src_port", "nat_dst_port")),
    ("fw", ("firewall_event",)),
    ("fwd", ("forwarding_status",)),
    ("vni", ("vni",)),
    ("mpls", ("mpls_labels",)),
    ("duplicate", ("duplicate",)),
)
_NOTHING: Final = (None, 0, False, "", "0.0.0.0", "::")
_WANTED: Final = frozenset(
    {
        *("type", "time_received", "sampler_address", "sampling_rate", "bytes", "packets", "src_addr", "dst_addr"),
        *("proto", "src_port", "dst_port", "tcp_flags", "icmp_type", "icmp_code"),
        *("in_if", "out_if", "in_if_name", "out_if_name"),
        *(name for _, names in _MORE for name in names),
    }
)


def table_rows(table: pa.Table | pa.RecordBatch) -> Iterator[Row]:
    """Give the cells of each record, one for each of `HEADINGS`; what the record does not say is `-`."""
    columns = {
        name: format_column(name, column).to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
        if name in _WANTED
    }
    if not columns:
        return iter([("-",) * len(HEADINGS)] * table.num_rows)
    names = tuple(columns)
    return (_row(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True))


FLOWS: Final = Layout(HEADINGS, YIELDING, table_rows)


def table_text(table: pa.Table | pa.RecordBatch, *, heading: bool = True) -> str:
    """Return records as lines of plain text, columns aligned, under their titles."""
    return FlowTable(heading=heading).lines(table).plain


class FlowTable(GrowingTable):
    """A table of flow records."""

    def __init__(self, *, heading: bool = True, repeat: int | None = None, width: int | None = None) -> None:
        super().__init__(FLOWS, heading=heading, repeat=repeat, width=width)


def _row(record: Mapping[str, Any]) -> Row:
    get = record.get
    proto = get("proto")
    return (
        shown_time(get("time_received")),
        shown(get("sampler_address")),
        _TYPES.get(str(get("type")), shown(get("type"))),
        shown(PROTOCOLS.get(proto, proto) if isinstance(proto, int) else proto),
        _endpoint(get("src_addr"), None if proto in ICMP else get("src_port")),
        "→",
        _endpoint(get("dst_addr"), None if proto in ICMP else get("dst_port")),
        shown_count(get("bytes")),
        shown_count(get("packets")),
        shown(get("in_if_name") or get("in_if")),
        shown(get("out_if_name") or get("out_if")),
        shown(get("sampling_rate")),
        _more(record),
    )


def _endpoint(address: str | None, port: int | None) -> str:
    if address is None:
        return "-" if port is None else f"*:{port}"
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _more(record: Mapping[str, Any]) -> str:
    told = []
    if record.get("proto") in ICMP and record.get("icmp_type") is not None:
        told.append(f"icmp={record['icmp_type']}/{shown(record.get('icmp_code'))}")
    if record.get("tcp_flags") and record.get("proto") == 6:
        told.append("flags=" + "".join(char for bit, char in enumerate(_TCP_FLAGS) if record["tcp_flags"] >> bit & 1))
    for title, names in _MORE:
        values = [record.get(name) for name in names]
        if all(value in _NOTHING or value == [] for value in values):
            continue
        told.append(f"{title}=" + "→".join(shown(value) for value in values))
    return " ".join(told)
