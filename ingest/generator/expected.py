"""What a collector should make of the traffic: the flow records, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.generator import names, netflow5, netflow9
from ingest.generator.flows import TEXTS, Conversations
from ingest.generator.layouts import FRAME_BYTES, INPUT, OUTPUT, RATE, Layout
from ingest.generator.packets import ICMP, ICMP6, TCP, UDP
from ingest.generator.samples import SampleLayout, SampleRun
from ingest.generator.shapes import FlowRun, Flows
from ingest.generator.traffic import BLOCK, Group, Traffic
from shared.record import COLUMN

Columns = dict[str, npt.NDArray[Any]]

RECORD_COLUMNS: Final = {
    "src_as_16": "src_as",
    "dst_as_16": "dst_as",
    "tunnel_src_addr": "src_addr",
    "tunnel_dst_addr": "dst_addr",
    "tunnel_src_port": "src_port",
}
"""Where a conversation's column has another name than the record's."""
SAMPLE_COLUMNS: Final = {FRAME_BYTES: "bytes", INPUT: "in_if", OUTPUT: "out_if", RATE: "sampling_rate"}
"""What the record calls the numbers of sFlow's samples."""
OF_PROTOCOLS: Final = {
    "src_port": (TCP, UDP),
    "dst_port": (TCP, UDP),
    "tcp_flags": (TCP,),
    "icmp_type": (ICMP, ICMP6),
    "icmp_code": (ICMP, ICMP6),
}
"""In which packets there is what stands behind the IP header."""
MS: Final = 1_000_000
MOST_RECORDS: Final = 64
"""More flow records than a datagram can hold."""


def expected_records(traffic: Traffic, count: int, *, named: bool = False, received_ns: int = 0) -> pa.Table:
    """The flow records of the first `count` datagrams, in the order in which they are sent.

    Columns have the types of the record's schema, and null where the exporter does not say. `received_ns` is when a
    collector gets all of them, which is the only time that sFlow's have. Names that options data give are there when
    the collector was `named` them before, as it is when it has had the traffic once; without, they are left out, since
    they depend on what it had heard. Sampling rates and clocks come before the flows that need them. Left out too are
    `record_id` and `time_received`, which the collector makes.
    """
    tables, places = [], []
    for block in range(-(-count // BLOCK)):
        for group in traffic.groups(block, min(BLOCK, count - block * BLOCK)):
            for place, columns in _pieces(traffic, group, named=named, received_ns=received_ns):
                tables.append(_table(columns))
                places.append(block * BLOCK * MOST_RECORDS + place)
    whole = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    in_order = [name for name in COLUMN if name in whole.column_names]
    return whole.select(in_order).take(pa.array(np.argsort(np.concatenate(places))))


def _pieces(
    traffic: Traffic, group: Group, *, named: bool, received_ns: int
) -> Iterator[tuple[npt.NDArray[np.int64], Columns]]:
    """Records that were written at once: their places in the block's order, and their columns, [n]."""
    first = 0
    for run, flows in zip(group.shape.runs, group.flows, strict=True):
        for layout, _, which in run.slices():
            places = group.order[:, None] * MOST_RECORDS + first + np.arange(which.start, which.stop)
            conversations = traffic.conversations(layout)
            piece = _Piece(group, run, flows, layout, which, conversations)
            columns = piece.header()
            if isinstance(run, SampleRun) and isinstance(layout, SampleLayout):
                columns |= piece.sampled(run, layout, received_ns)
            else:
                columns |= piece.exported()
            if named:
                columns |= piece.names(columns)
            yield places.ravel(), columns
        first += run.records


class _Piece:
    """Records of one layout, of n datagrams of one shape: some of a run."""

    def __init__(
        self, group: Group, run: FlowRun, flows: Flows, layout: Layout, which: slice, conversations: Conversations
    ) -> None:
        self._group = group
        self._type = group.protocol.type
        self._run = run
        self._flows = flows
        self._layout = layout
        self._which = which
        self._conversations = conversations
        self._index = flows.conversation[:, which].ravel()

    def _spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What each datagram has, for each of its records."""
        return np.repeat(values, self._which.stop - self._which.start, axis=0)

    def _value(self, name: str) -> npt.NDArray[Any]:
        return self._spread(self._group.values[name])

    def header(self) -> Columns:
        """What the datagram tells, whatever the protocol."""
        address = np.zeros((len(self._group.order), 4), ">u4")
        address[:, 2], address[:, 3] = 0xFFFF, self._group.values["address"]
        return {
            "type": np.full(len(self._index), self._type),
            "sampler_address": self._spread(address.view(np.uint8)),
            "sequence_num": self._value("sequence") % 2**32,
            "flows": np.ones(len(self._index), np.int64),
            "etype": self._conversations.values("etype")[self._index],
        }

    def exported(self) -> Columns:
        """What NetFlow and IPFIX tell of flows."""
        v5 = self._type == netflow5.TYPE
        flows, which = self._flows, self._which
        exported = self._value("exported_ms")
        columns = {
            "time_exported": exported if v5 else self._value("unix_seconds") * 1000,
            "time_flow_start": (exported - flows.start_age_ms[:, which].ravel()) * MS,
            "time_flow_end": (exported - flows.end_age_ms[:, which].ravel()) * MS,
            "observation_domain_id": self._value("domain") % (2**16 if v5 else 2**32),
            "bytes": flows.octets[:, which].ravel(),
            "packets": flows.packets[:, which].ravel(),
            **self._fields(),
        }
        if self._layout.rate is not None:
            columns["sampling_rate"] = self._value(self._layout.rate)
        if any(field.column == "sampler" for field in self._layout.fields):
            # A sampler's table doubles the exporter's rate for the first, and again for the second.
            columns["sampling_rate"] <<= self._conversations.values("sampler")[self._index]
        if self._type in {netflow5.TYPE, netflow9.TYPE}:
            is_icmp = np.isin(columns["proto"], (ICMP, ICMP6))
            columns["icmp_type"] = np.ma.masked_array(columns["dst_port"] >> 8, ~is_icmp)
            columns["icmp_code"] = np.ma.masked_array(columns["dst_port"] & 0xFF, ~is_icmp)
        return columns

    def sampled(self, run: SampleRun, layout: SampleLayout, received_ns: int) -> Columns:
        """What sFlow tells of packets."""
        numbers = run.numbers(self._group.values, self._flows, self._which, self._conversations)
        elements = {field.element for field in layout.fields}
        columns = {
            name: numbers[element].ravel() for element, name in SAMPLE_COLUMNS.items() if element in elements
        } | self._fields()
        for name in layout.columns:
            columns[name] = self._conversations.values(name)[self._index]
            if name in OF_PROTOCOLS:
                there = np.isin(self._conversations.values("proto")[self._index], OF_PROTOCOLS[name])
                columns[name] = np.ma.masked_array(columns[name], ~there)
        received = np.full(len(self._index), received_ns)
        return {
            **columns,
            **{name: np.full(len(self._index), value) for name, value in layout.constants.items()},
            "observation_domain_id": np.full(len(self._index), run.sub_agent),
            "packets": np.ones(len(self._index), np.int64),
            "time_flow_start": received,
            "time_flow_end": received,
        }

    def _fields(self) -> Columns:
        """What the layout's fields say, by the conversations that the records are of."""
        columns: Columns = {}
        for field in self._layout.fields:
            if field.column is None or not field.told:
                continue
            name = RECORD_COLUMNS.get(field.column, field.column)
            if field.column in TEXTS:
                columns[name] = self._conversations.texts(field.column, field.length)[self._index]
            elif name == "application_id":
                number = self._conversations.values(name)[self._index]
                columns[name] = np.char.add(
                    np.char.add((number >> 24).astype(str), ":"), (number & 0xFFFFFF).astype(str)
                )
            elif name in COLUMN:
                columns[name] = self._conversations.values(field.column)[self._index]
        return columns

    def names(self, columns: Mapping[str, npt.NDArray[Any]]) -> Columns:
        """What the exporter calls what the columns have numbers of: by options data, in sFlow by counters."""
        found: Columns = {}
        if self._layout.rate is None:
            return found
        interfaces = self._group.protocol.interfaces
        for side in ("in", "out"):
            found |= self._named(columns, f"{side}_if", f"{side}_if_name", interfaces)
        if isinstance(self._run, SampleRun):
            return found
        for side in ("ingress", "egress"):
            found |= self._named(columns, f"{side}_vrf_id", f"{side}_vrf_name", names.VRFS)
        for side in ("src", "dst"):
            found |= self._named(columns, f"{side}_sgt", f"{side}_sgt_name", names.SGTS)
        applications = {f"{number >> 24}:{number & 0xFFFFFF}": name for number, (name, _) in names.APPLICATIONS.items()}
        return found | self._named(columns, "application_id", "application_name", applications)

    def _named(
        self, columns: Mapping[str, npt.NDArray[Any]], number: str, name: str, table: Mapping[Any, str]
    ) -> Columns:
        if number not in columns or not table:
            return {}
        slots = self._value("slot").tolist()
        found = [table.get(key, "") for key in columns[number].tolist()]
        texts = [text.replace(names.SLOT, str(slot)) for text, slot in zip(found, slots, strict=True)]
        return {name: np.ma.masked_array(texts, [not text for text in texts])}


def _table(columns: Mapping[str, npt.NDArray[Any]]) -> pa.Table:
    return pa.table({name: _array(values, COLUMN[name].type) for name, values in columns.items()})


def _array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    values = np.asarray(values)
    if pa.types.is_fixed_size_binary(kind):
        content = pa.py_buffer(np.ascontiguousarray(values))
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, content])
    if pa.types.is_list(kind):
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(values.ravel().astype(np.uint32)))
    if pa.types.is_dictionary(kind):
        return pa.array(values.astype(str), mask=mask).dictionary_encode().cast(kind)
    if pa.types.is_string(kind):
        return pa.array(values.astype(str), mask=mask)
    if pa.types.is_timestamp(kind):
        return pa.array(values.astype(np.int64)).cast(kind)
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=mask)
