"""Flow records as a table that a person reads on a terminal, line after line as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
from rich.text import Text

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
    {"NETFLOW_V5": "v5", "NETFLOW_V9": "v9", "IPFIX": "IPFIX", "SFLOW_5": "sFlow"}
)
_TCP_FLAGS: Final = "FSRPAUEC"
"""A letter for each flag, the lowest bit first (RFC 9293 §3.1)."""


@dataclass(frozen=True, slots=True)
class Heading:
    """One column of the table: its title, the width that it has at least, and its side."""

    title: str
    width: int
    right: bool = False
    style: str = ""


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

_DATE_CHARS: Final = len("2023-11-14 ")

Row = tuple[str, ...]


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


def table_text(table: pa.Table | pa.RecordBatch, *, heading: bool = True) -> str:
    """Return records as lines of plain text, columns aligned, under their titles."""
    return FlowTable(heading=heading).lines(table).plain


class FlowTable:
    """A table that grows at its end: what came before is not laid out again.

    Columns have a width that fits most, and become wider, never narrower, when a value needs it; the titles are then
    repeated, as they are after every `repeat` lines. Where the columns are wider than `width`, some are left out.
    """

    def __init__(self, *, heading: bool = True, repeat: int | None = None, width: int | None = None) -> None:
        self._widths = [max(heading.width, len(heading.title)) for heading in HEADINGS]
        self._heading = heading
        self._repeat = repeat
        self._width = width
        self._shown, self._dated = self._fitting()
        self._since_heading: int | None = None

    def lines(self, table: pa.Table | pa.RecordBatch) -> Text:
        """Return the lines of more records, each ended by a line break, in the colours of their columns."""
        rows = list(table_rows(table))
        text = Text(no_wrap=True, overflow="ellipsis")
        if rows and self._widen(rows) and self._since_heading is not None:
            self._append_heading(text)
        for row in rows:
            if self._since_heading is None or (self._repeat is not None and self._since_heading >= self._repeat):
                self._append_heading(text)
            self._append(text, row, [heading.style for heading in HEADINGS])
            self._since_heading = (self._since_heading or 0) + 1
        return text

    def _widen(self, rows: Sequence[Row]) -> bool:
        """Make room for the rows, and tell whether that moves the columns."""
        before = (self._widths, self._shown, self._dated)
        # Times have one width, and what is last may have any.
        inner = [max(width, *(len(row[at]) for row in rows)) for at, width in enumerate(self._widths[1:-1], 1)]
        self._widths = [self._widths[0], *inner, self._widths[-1]]
        self._shown, self._dated = self._fitting()
        return before != (self._widths, self._shown, self._dated)

    def _fitting(self) -> tuple[list[int], bool]:
        """Return the places of the columns that fit, `more` among them, which is cut if need be; and whether the date does."""
        shown, dated = list(range(len(HEADINGS))), True
        for title in (*YIELDING[:-1], None, *YIELDING[-1:]):
            if self._width is None or self._total(shown, dated=dated) <= self._width:
                break
            if title is None:
                dated = False
            else:
                shown.remove(next(at for at in shown if HEADINGS[at].title == title))
        return shown, dated

    def _total(self, shown: Sequence[int], *, dated: bool) -> int:
        columns = sum(self._widths[at] + len(_gap(at)) for at in shown[:-1]) - len(_gap(shown[-2]))
        return columns if dated else columns - _DATE_CHARS

    def _append_heading(self, text: Text) -> None:
        self._since_heading = 0
        if self._heading:
            self._append(text, [heading.title for heading in HEADINGS], ["bold"] * len(HEADINGS))

    def _append(self, text: Text, cells: Sequence[str], styles: Sequence[str]) -> None:
        # No line ends with blanks: what is last and empty is left out, and the column before it is aligned right.
        shown = self._shown if cells[-1] else self._shown[:-1]
        for at in shown:
            cell, width = cells[at], self._widths[at]
            if at == 0 and not self._dated:
                cell, width = cell[_DATE_CHARS:] or cell, width - _DATE_CHARS
            text.append(cell.rjust(width) if HEADINGS[at].right else cell.ljust(width), styles[at] or None)
            if at != shown[-1]:
                text.append(_gap(at))
        text.append("\n")


def _gap(at: int) -> str:
    """What stands between a column and the next: the arrow is close to what it joins."""
    return " " if "" in {HEADINGS[at].title, HEADINGS[min(at + 1, len(HEADINGS) - 1)].title} else "  "


def _row(record: Mapping[str, Any]) -> Row:
    get = record.get
    proto = get("proto")
    return (
        _time(get("time_received")),
        _shown(get("sampler_address")),
        _TYPES.get(str(get("type")), _shown(get("type"))),
        _shown(PROTOCOLS.get(proto, proto) if isinstance(proto, int) else proto),
        _endpoint(get("src_addr"), None if proto in ICMP else get("src_port")),
        "→",
        _endpoint(get("dst_addr"), None if proto in ICMP else get("dst_port")),
        _counted(get("bytes")),
        _counted(get("packets")),
        _shown(get("in_if_name") or get("in_if")),
        _shown(get("out_if_name") or get("out_if")),
        _shown(get("sampling_rate")),
        _more(record),
    )


def _time(text: str | None) -> str:
    """Return a time with the milliseconds that fit, as people write it."""
    if text is None:
        return "-"
    return text.replace("T", " ").rstrip("Z")[:23]


def _endpoint(address: str | None, port: int | None) -> str:
    if address is None:
        return "-" if port is None else f"*:{port}"
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _counted(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _shown(value: object) -> str:
    """Return a value as one word or some: whatever an exporter may have put into a name, no control character."""
    if value is None:
        return "-"
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def _more(record: Mapping[str, Any]) -> str:
    told = []
    if record.get("proto") in ICMP and record.get("icmp_type") is not None:
        told.append(f"icmp={record['icmp_type']}/{_shown(record.get('icmp_code'))}")
    if record.get("tcp_flags") and record.get("proto") == 6:
        told.append("flags=" + "".join(char for bit, char in enumerate(_TCP_FLAGS) if record["tcp_flags"] >> bit & 1))
    for title, names in _MORE:
        values = [record.get(name) for name in names]
        if all(value in _NOTHING or value == [] for value in values):
            continue
        told.append(f"{title}=" + "→".join(_shown(value) for value in values))
    return " ".join(told)
