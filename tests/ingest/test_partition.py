from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.partition import partitions
from shared.codec import merge
from shared.record import SCHEMA
from tests.builders import mapped

MOST = 1 << 16
"""So many partitions show 16 bits of the hash."""

Flow = tuple[bytes, bytes, int, int, int]
"""Source and destination address, their ports, and the protocol."""

ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(lambda address: mapped(str(address))),
    st.ip_addresses(v=6).map(lambda address: address.packed),
)
PORTS = st.integers(0, 65_535)
FLOWS = st.lists(st.tuples(ADDRESSES, ADDRESSES, PORTS, PORTS, st.integers(0, 255)), min_size=1, max_size=8)


def records(**columns: list[Any]) -> pa.RecordBatch:
    """Records with these columns, typed as the record's."""
    return pa.record_batch({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})


def flows(content: list[Flow], **more: list[Any]) -> pa.RecordBatch:
    """Records of these flows."""
    src, dst, src_port, dst_port, proto = (list(column) for column in zip(*content, strict=True))
    return records(src_addr=src, dst_addr=dst, src_port=src_port, dst_port=dst_port, proto=proto, **more)


def back(flow: Flow) -> Flow:
    """The other direction of the same flow."""
    src, dst, src_port, dst_port, proto = flow
    return dst, src, dst_port, src_port, proto


GOLDEN = [
    pytest.param("192.0.2.1", "198.51.100.2", 40_000, 443, 6, 64_618, 11, id="TCP over IPv4"),
    pytest.param("10.0.0.1", "10.0.0.2", 53, 53, 17, 4735, 0, id="UDP with equal ports"),
    pytest.param("2001:db8::1", "2001:db8:ffff::2", 51_820, 22, 6, 56_148, 10, id="TCP over IPv6"),
    pytest.param("0.0.0.0", "255.255.255.255", 68, 67, 17, 16_351, 2, id="DHCP"),
    pytest.param("::", "::", 0, 0, 0, 0, 0, id="nothing but zeros"),
    pytest.param("203.0.113.9", "203.0.113.9", 8, 8, 1, 65_086, 11, id="both ends the same"),
]


@pytest.mark.parametrize(("src", "dst", "src_port", "dst_port", "proto", "of_most", "of_twelve"), GOLDEN)
def test_a_flow_keeps_its_partition_for_ever(
    src: str, dst: str, src_port: int, dst_port: int, proto: int, of_most: int, of_twelve: int
) -> None:
    """The hash is pinned: another one would part the records of a flow, and duplicates would no longer be recognised."""
    batch = flows([(mapped(src), mapped(dst), src_port, dst_port, proto)])
    assert (partitions(batch, MOST).tolist(), partitions(batch, 12).tolist()) == ([of_most], [of_twelve])


def test_a_flow_without_ports_or_protocol_keeps_its_partition_too() -> None:
    """What an exporter does not say counts as 0, so that such a record lies with one that says 0."""
    addresses = {"src_addr": [mapped("192.0.2.1")], "dst_addr": [mapped("198.51.100.2")]}
    bare = partitions(records(**addresses), MOST)
    zeros = partitions(records(**addresses, src_port=[0], dst_port=[0], proto=[0]), MOST)
    nulls = partitions(records(**addresses, src_port=[None], dst_port=[None], proto=[None]), MOST)
    assert bare.tolist() == zeros.tolist() == nulls.tolist() == [29_506]


def test_a_record_without_addresses_keeps_its_partition_too() -> None:
    """Where there is no flow to tell, the record's own identity does, and it is pinned as well."""
    batch = records(record_id=[0, 1, 0x0123456789ABCDEF, 2**64 - 1])
    assert partitions(batch, MOST).tolist() == [0, 49_842, 19_975, 55_339]


@given(FLOWS, st.integers(1, MOST))
def test_both_directions_meet(content: list[Flow], count: int) -> None:
    """A flow and its reverse have the same partition, whichever exporter saw which, and it is one that there is."""
    there = partitions(flows(content), count)
    assert partitions(flows([back(flow) for flow in content]), count).tolist() == there.tolist()
    assert all(0 <= one < count for one in there.tolist())


@given(FLOWS, st.data())
def test_it_does_not_matter_who_saw_a_flow_or_what_it_came_with(content: list[Flow], data: st.DataObject) -> None:
    """Exporter, counters, and the records beside it in the batch change nothing, nor does the place in a slice."""
    alone = [int(partitions(flows([flow]), 4096)[0]) for flow in content]
    count = len(content)
    counters = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count))
    whole = flows(content, bytes=counters, record_id=counters, sampler_address=[bytes(16)] * count)
    assert partitions(whole, 4096).tolist() == alone
    begin = data.draw(st.integers(0, count - 1))
    assert partitions(whole.slice(begin), 4096).tolist() == alone[begin:]


@given(FLOWS, st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_a_record_has_its_partition_whatever_it_is_sent_with(content: list[Flow], ids: list[int]) -> None:
    """Records with and without addresses in one batch have the partitions that they have alone."""
    with_flow, without = flows(content, record_id=[7] * len(content)), records(record_id=ids)
    alone = [*partitions(with_flow, MOST).tolist(), *partitions(without, MOST).tolist()]
    (together,) = merge([pa.Table.from_batches([with_flow]), pa.Table.from_batches([without])]).to_batches()
    by_id = dict(zip(together["record_id"].to_pylist(), partitions(together, MOST).tolist(), strict=True))
    assert sorted(partitions(together, MOST).tolist()) == sorted(alone)
    assert all(by_id[one] == where for one, where in zip(ids, alone[len(content) :], strict=True) if one != 7)


@pytest.mark.parametrize("missing", ["src_addr", "dst_addr"])
def test_one_address_alone_makes_no_flow(missing: str) -> None:
    """A record that lacks either address goes by its identity."""
    columns: dict[str, list[Any]] = {
        "record_id": [11, 12, 13],
        "src_addr": [mapped("192.0.2.1")] * 3,
        "dst_addr": [mapped("192.0.2.2")] * 3,
    }
    columns[missing] = [None] * 3
    assert partitions(records(**columns), MOST).tolist() == partitions(records(record_id=[11, 12, 13]), MOST).tolist()


def subnet(hosts: int) -> pa.RecordBatch:
    """Clients of one network that talk to one server, from one port each."""
    number = range(hosts)
    clients = [mapped(f"10.{one >> 16}.{one >> 8 & 255}.{one & 255}") for one in number]
    return flows([(client, mapped("192.0.2.80"), 50_000, 443, 6) for client in clients])


def pair(hosts: int) -> pa.RecordBatch:
    """Two hosts that talk to each other from all their ports."""
    return flows([(mapped("2001:db8::1"), mapped("2001:db8::2"), one % 65_536, 443, 6) for one in range(hosts)])


def identities(hosts: int) -> pa.RecordBatch:
    """Records without addresses, whose identities follow each other."""
    return records(record_id=list(range(hosts)))


@pytest.mark.parametrize("traffic", [subnet, pair, identities])
@pytest.mark.parametrize("count", [2, 3, 12, 64])
def test_flows_are_spread_evenly(traffic: Callable[[int], pa.RecordBatch], count: int) -> None:
    """Even for flows that differ in one number alone, no partition gets much more than its share.

    60,000 balls in n bins: five standard deviations of a binomial are more than chance ever gives.
    """
    number = 60_000
    share = np.bincount(partitions(traffic(number), count), minlength=count)
    expected = number / count
    assert len(share) == count
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("name", ["src_port", "dst_port", "proto"])
def test_what_stands_under_a_null_does_not_matter(name: str) -> None:
    """Decoders leave anything there: the same flow meets itself all the same, whichever exporter saw it."""
    kind = SCHEMA.field(name).type
    addresses = {
        one: pa.array([mapped(text)] * 2, SCHEMA.field(one).type)
        for one, text in (("src_addr", "192.0.2.1"), ("dst_addr", "192.0.2.2"))
    }
    found = []
    for left in ([0, 0], [1, 200]):
        values = pa.array(left, kind)
        nulls = pa.Array.from_buffers(kind, 2, [pa.py_buffer(b"\x00"), values.buffers()[1]])
        batch = pa.RecordBatch.from_pydict({**addresses, name: nulls})
        found += partitions(batch, 1000).tolist()
    assert len(set(found)) == 1
