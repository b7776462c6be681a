"""Counter samples as a table that a person reads on a terminal, line after line as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from shared.grid import GrowingTable, Heading, Layout, Row, shown, shown_count, shown_time
from shared.text import format_column

HEADINGS: Final = (
    Heading("time", 23, style="dim"),
    Heading("exporter", 9),
    Heading("source", 6, style="cyan"),
    Heading("name", 6, style="cyan"),
    Heading("speed", 5, right=True),
    Heading("status", 6),
    Heading("in bytes", 12, right=True),
    Heading("in packets", 10, right=True),
    Heading("out bytes", 12, right=True),
    Heading("out packets", 11, right=True),
    Heading("more", 0, style="dim"),
)
YIELDING: Final = ("speed", "status", "in packets", "out packets", "exporter")
"""Columns that are left out where the terminal is too narrow, in this order; before the last, the date is."""

_SOURCES: Final[Mapping[int, str]] = MappingProxyType({0: "", 1: "vlan ", 2: "entity ", 3: "logical "})
"""What is put before a source's index, by its class."""
_IN_PACKETS: Final = ("if_in_ucast_pkts", "if_in_multicast_pkts", "if_in_broadcast_pkts")
_OUT_PACKETS: Final = ("if_out_ucast_pkts", "if_out_multicast_pkts", "if_out_broadcast_pkts")
_ELSEWHERE: Final = frozenset(
    {
        *("time_received", "sampler_address", "if_index", "source_id_class", "source_id_index"),
        *(
            "port_name",
            "hostname",
            "if_speed",
            "if_status",
            "if_in_octets",
            "if_out_octets",
            *_IN_PACKETS,
            *_OUT_PACKETS,
        ),
        # They tell one sample from another, and nothing of what is counted.
        *("observation_domain_id", "sequence_num", "sample_sequence_num", "uptime_ms", "if_type", "if_direction"),
    }
)
"""What the last column does not tell."""


def counter_rows(table: pa.Table | pa.RecordBatch) -> Iterator[Row]:
    """Give the cells of each sample, one for each of `HEADINGS`; what the sample does not say is `-`."""
    columns = {
        name: format_column(name, column).to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    if not columns:
        return iter([("-",) * len(HEADINGS)] * table.num_rows)
    names = tuple(columns)
    return (_row(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True))


COUNTERS: Final = Layout(HEADINGS, YIELDING, counter_rows)


class CounterTable(GrowingTable):
    """A table of counter samples."""

    def __init__(self, *, heading: bool = True, repeat: int | None = None, width: int | None = None) -> None:
        super().__init__(COUNTERS, heading=heading, repeat=repeat, width=width)


def _row(sample: Mapping[str, Any]) -> Row:
    get = sample.get
    return (
        shown_time(get("time_received")),
        shown(get("sampler_address")),
        _source(sample),
        shown(get("port_name") or get("hostname")),
        _speed(get("if_speed")),
        _status(get("if_status")),
        shown_count(get("if_in_octets")),
        shown_count(_sum(sample, _IN_PACKETS)),
        shown_count(get("if_out_octets")),
        shown_count(_sum(sample, _OUT_PACKETS)),
        _more(sample),
    )


def _source(sample: Mapping[str, Any]) -> str:
    if sample.get("if_index") is not None:
        return shown(sample["if_index"])
    kind, index = sample.get("source_id_class"), sample.get("source_id_index")
    return "-" if kind is None else f"{_SOURCES.get(kind, f'{kind}:')}{index}"


def _speed(bits: int | None) -> str:
    if not bits:
        return "-"
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if bits >= unit:
            return f"{bits / unit:g}{letter}"
    return str(bits)


def _status(bits: int | None) -> str:
    if bits is None:
        return "-"
    if not bits & 1:
        return "off"
    return "up" if bits & 2 else "down"


def _sum(sample: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    there = [sample[name] for name in names if sample.get(name) is not None]
    return sum(there) if there else None


def _more(sample: Mapping[str, Any]) -> str:
    """Return everything else that is neither absent nor zero."""
    return " ".join(f"{name}={_value(value)}" for name, value in sample.items() if value and name not in _ELSEWHERE)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ",".join(shown(item) for item in value)
    # As many digits as a float of 32 bits has.
    return f"{value:.7g}" if isinstance(value, float) else shown(value)
