"""What a collector should make of the traffic: the flow records, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.generator.flows import ICMP, ICMP6, TEXTS, Conversations
from ingest.generator.layouts import Layout
from ingest.generator.protocols import Counting
from ingest.generator.shapes import Flows
from ingest.generator.traffic import BLOCK, Group, Traffic
from shared.record import COLUMN

RECORD_COLUMNS: Final = {"src_as_16": "src_as", "dst_as_16": "dst_as"}
"""Where a conversation's column has another name than the record's."""
NOT_IN_RECORD: Final = frozenset({"opaque", "sampler"})
MS: Final = 1_000_000
MOST_RECORDS: Final = 64
"""More flow records than a datagram can hold."""


def expected_records(traffic: Traffic, count: int) -> pa.Table:
    """The flow records of the first `count` datagrams, in the order in which they are sent.

    Columns have the types of the record's schema, and null where the exporter does not say. Left out are columns that
    the collector makes (`record_id`, `time_received`), and names of interfaces, which depend on what it had heard
    before.
    """
    tables, places = [], []
    for block in range(-(-count // BLOCK)):
        for group in traffic.groups(block, min(BLOCK, count - block * BLOCK)):
            for place, columns in _pieces(traffic, group):
                tables.append(_table(columns))
                places.append(block * BLOCK * MOST_RECORDS + place)
    whole = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    in_order = [name for name in COLUMN if name in whole.column_names]
    return whole.select(in_order).take(pa.array(np.argsort(np.concatenate(places))))


def _pieces(traffic: Traffic, group: Group) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]]:
    """Records that were written at once: their places in the block's order, and their columns, [n]."""
    before = 0
    for run, flows in zip(group.shape.runs, group.flows, strict=True):
        conversations = traffic.conversations(run.layouts[0].family)
        for layout, _, which in run.slices():
            places = group.order[:, None] * MOST_RECORDS + before + np.arange(which.start, which.stop)
            yield places.ravel(), _columns(group, conversations, layout, flows, which)
        before += run.records


def _columns(
    group: Group, conversations: Conversations, layout: Layout, flows: Flows, which: slice
) -> dict[str, npt.NDArray[Any]]:
    chosen = flows.conversation[:, which]
    number, records = chosen.shape
    index = chosen.ravel()

    def of_datagram(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(values, records, axis=0)

    exported = of_datagram(group.values["exported_ms"])
    address = np.zeros((number, 4), ">u4")
    address[:, 2], address[:, 3] = 0xFFFF, group.values["address"]
    domain = group.values["domain"]
    columns = {
        "type": np.full(len(index), group.protocol.type),
        "time_exported": of_datagram(
            group.values["exported_ms"]
            if group.protocol.counting is Counting.FLOWS
            else group.values["unix_seconds"] * 1000
        ),
        "time_flow_start": (exported - flows.start_age_ms[:, which].ravel()) * MS,
        "time_flow_end": (exported - flows.end_age_ms[:, which].ravel()) * MS,
        "sampler_address": of_datagram(address.view(np.uint8)),
        "observation_domain_id": of_datagram(domain % 2**16 if group.protocol.counting is Counting.FLOWS else domain),
        "sequence_num": of_datagram(group.values["sequence"] % 2**32),
        "sampling_rate": of_datagram(group.values["sampling_rate"]),
        "bytes": flows.octets[:, which].ravel(),
        "packets": flows.packets[:, which].ravel(),
        "flows": np.ones(len(index), np.int64),
        "etype": conversations.values("etype")[index],
    }
    for field in layout.fields:
        if field.column in TEXTS:
            columns[field.column] = conversations.texts(field.column, field.length)[index]
        elif field.column is not None and field.column not in NOT_IN_RECORD:
            name = RECORD_COLUMNS.get(field.column, field.column)
            columns[name] = conversations.values(field.column)[index]
        if field.column == "sampler":
            # A sampler's table doubles the exporter's rate for the first, and again for the second.
            columns["sampling_rate"] <<= conversations.values("sampler")[index]
    if group.protocol.counting is not Counting.RECORDS:
        is_icmp = np.isin(columns["proto"], (ICMP, ICMP6))
        columns["icmp_type"] = np.ma.masked_array(columns["dst_port"] >> 8, ~is_icmp)
        columns["icmp_code"] = np.ma.masked_array(columns["dst_port"] & 0xFF, ~is_icmp)
    return columns


def _table(columns: dict[str, npt.NDArray[Any]]) -> pa.Table:
    return pa.table({name: _array(values, COLUMN[name].type) for name, values in columns.items()})


def _array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_binary(kind):
        content = pa.py_buffer(np.ascontiguousarray(values))
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, content])
    if pa.types.is_dictionary(kind):
        return pa.array(values.astype(str)).dictionary_encode().cast(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(values.astype(np.int64)).cast(kind)
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return pa.array(np.asarray(values).astype(kind.to_pandas_dtype()), kind, mask=mask)
