"""No Python object a record: what the interpreter does for a batch does not depend on how many records it has."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pyarrow as pa
import pytest

from ingest.decoders import Datagrams
from ingest.partition import partitions
from ingest.pipeline import Pipeline
from tests.builders import (
    SYSTEM,
    VARIABLE,
    data_set,
    field,
    fixed,
    ipv4,
    number,
    template,
    v5_datagram,
    v5_record,
    v9_options_template,
    v9_options_templates,
    variable,
)
from tests.ingest.collector import message, packed
from tests.ingest.effort import events

V9, IPFIX = 9, 10
FIELDS: Final = (
    *((8, 4), (12, 4), (15, 4), (10, 4), (14, 4), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2)),
    *((6, 1), (4, 1), (5, 1), (16, 4), (17, 4), (9, 1), (13, 1), (61, 1), (48, 1), (34, 4)),
)
"""Twenty-one fields, as a router sends them."""


def record(index: int) -> bytes:
    """A record of these fields: TCP, and none of them zero, which would ask for more steps."""
    return b"".join(
        number(6 if element == 4 else 1 + (index * 7919 + element) % ((1 << 8 * length) - 1), length)
        for element, length in FIELDS
    )


def learned(protocol: int, *described: bytes) -> Pipeline:
    """A pipeline that knows these templates, has compiled their plans, and has been used before."""
    pipeline = Pipeline()
    pipeline.decode(packed([message(protocol, data_set(0 if protocol == V9 else 2, *described))]))
    return pipeline


def costs(pipeline: Pipeline, datagrams: Datagrams, records: int) -> Counter[str]:
    """What decoding a batch costs, when it has been decoded before."""

    def work() -> None:
        decoded = pipeline.decode(datagrams)
        assert decoded.records == records
        assert not decoded.faults

    work()
    return events(work)


DATAGRAMS: Final = 10


@pytest.mark.parametrize("protocol", [V9, IPFIX], ids=["v9", "ipfix"])
def test_ten_records_and_ten_thousand_cost_the_same_calls(protocol: int) -> None:
    """Ten datagrams of one record and ten of a thousand, of one fixed layout: as many calls, and as many instructions."""
    described = template(256, *(field(element, length) for element, length in FIELDS))
    pipeline = learned(protocol, described)
    few = packed([message(protocol, data_set(256, record(index))) for index in range(DATAGRAMS)])
    many = packed(
        [
            message(protocol, data_set(256, *(record(index * 1000 + place) for place in range(1000))))
            for index in range(DATAGRAMS)
        ]
    )
    cost = costs(pipeline, few, DATAGRAMS)
    assert cost["call"] > 0
    assert cost["opcode"] > 1000
    assert costs(pipeline, many, DATAGRAMS * 1000) == cost


def test_several_layouts_cost_the_same_calls_each() -> None:
    """With three layouts and four exporters' worth of templates, it is their number that counts, not their records."""
    described = [
        template(256, field(8, 4), field(12, 4), field(1, 4)),
        template(257, field(27, 16), field(28, 16), field(2, 8), field(70, 3), field(71, 3)),
        template(258, field(56, 6), field(80, 6), field(58, 2), field(231, 4), field(232, 4)),
    ]
    sizes = {256: 12, 257: 46, 258: 22}
    pipeline = learned(V9, *described)

    def batch(records: int) -> Datagrams:
        return packed(
            [
                message(V9, *(data_set(template_id, bytes(range(1, size + 1)) * records) for template_id, size in sizes.items()))
                for _ in range(DATAGRAMS)
            ]
        )  # fmt: skip

    # The third layout has counters of both directions: two records each.
    assert costs(pipeline, batch(1), 4 * DATAGRAMS) == costs(pipeline, batch(500), 4 * DATAGRAMS * 500)


def test_v5_costs_the_same_calls() -> None:
    """Datagrams of one record and of thirty."""
    pipeline = Pipeline()
    few = packed([v5_datagram(v5_record(proto=1), sampling=10) for _ in range(DATAGRAMS)])
    many = packed([v5_datagram(*[v5_record(proto=1)] * 30, sampling=10) for _ in range(DATAGRAMS)])
    assert costs(pipeline, many, DATAGRAMS * 30) == costs(pipeline, few, DATAGRAMS)


def test_names_cost_the_same_calls_when_they_are_the_same() -> None:
    """Strings of fixed length, as many distinct ones, in few records and in many."""
    pipeline = learned(V9, template(256, field(8, 4), field(371, 8), field(147, 8), field(95, 4)))

    def batch(records: int) -> Datagrams:
        content = b"".join(
            ipv4("192.0.2.1") + fixed(f"user {place % 2}", 8) + fixed("net", 8) + b"\x0d\0\1\xc5"
            for place in range(records)
        )
        return packed([message(V9, data_set(256, content)) for _ in range(DATAGRAMS)])

    assert costs(pipeline, batch(1000), DATAGRAMS * 1000) == costs(pipeline, batch(2), DATAGRAMS * 2)


def test_names_of_groups_and_what_is_told_of_exporters_cost_the_same_calls() -> None:
    """Records with tags and names, of exporters that told their rate and their interfaces: few of them or many."""
    pipeline = learned(
        V9,
        template(256, field(8, 4), field(10, 4), field(14, 2), field(48, 1), field(34000, 2), field(34002, 8)),
        template(257, field(8, 4), field(34000, 2), field(34001, 2)),
    )
    fields = ((field(10, 4), field(82, 8)), (field(48, 1), field(34, 4)), (field(34, 4),))
    described = (v9_options_template(300 + at, (field(SYSTEM, 4),), each) for at, each in enumerate(fields))
    named = (number(1, 4) + number(at, 4) + fixed(f"eth{at}", 8) for at in range(1, 5))
    told = [
        *(data_set(300, *named), data_set(301, number(1, 4) + b"\1" + number(100, 4))),
        data_set(302, number(1, 4) + number(50, 4)),
    ]
    pipeline.decode(packed([message(V9, v9_options_templates(*described), *told)]))

    def batch(records: int) -> Datagrams:
        content = b"".join(
            ipv4("192.0.2.1") + number(1 + at % 4, 4) + number(4 - at % 4, 2) + b"\1" + number(at % 4, 2) + fixed(f"group {at % 4}", 8)
            for at in range(records)
        )  # fmt: skip
        bare = b"".join(ipv4("192.0.2.2") + number(at % 4, 2) + number(at % 3, 2) for at in range(records))
        return packed([message(V9, data_set(256, content), data_set(257, bare)) for _ in range(DATAGRAMS)])

    few, many = batch(4), batch(1000)
    assert costs(pipeline, many, 2 * DATAGRAMS * 1000) == costs(pipeline, few, 2 * DATAGRAMS * 4)
    bare = pipeline.decode(few).batches[1]
    assert bare.column("dst_sgt_name").to_pylist()[:4] == ["group 0", "group 1", "group 2", "group 0"]
    assert bare.column("sampling_rate").to_pylist()[:1] == [50]


def test_many_datagrams_cost_the_same_calls_as_some() -> None:
    """In lockstep, a thousand datagrams of a layout cost the calls of fifty: what a datagram costs is no call."""
    pipeline = learned(V9, template(256, *(field(element, length) for element, length in FIELDS)))
    payload = message(V9, data_set(256, record(1), record(2)))
    some, many = (costs(pipeline, packed([payload] * count), 2 * count) for count in (50, 1000))
    assert (many["call"], many["c_call"]) == (some["call"], some["c_call"])


def test_variable_records_cost_calls_by_the_longest_set_alone() -> None:
    """In lockstep, a step is taken for all sets: ten times as many sets with as many records cost the same calls."""
    pipeline = learned(IPFIX, template(256, field(8, 4), field(371, VARIABLE)))
    payload = message(IPFIX, data_set(256, *(ipv4("192.0.2.1") + variable("alice") for _ in range(20))))
    some, many = (costs(pipeline, packed([payload] * count), 20 * count) for count in (100, 1000))
    assert (many["call"], many["c_call"]) == (some["call"], some["c_call"])


def test_partitions_are_found_without_looking_at_single_records() -> None:
    """What follows decoding costs calls by batches, not by records."""
    pipeline = learned(V9, template(256, *(field(element, length) for element, length in FIELDS)))

    def batch(records: int) -> pa.RecordBatch:
        payload = message(V9, data_set(256, *(record(place) for place in range(records))))
        (decoded,) = pipeline.decode(packed([payload])).batches
        return decoded

    few, many = batch(100), batch(1000)
    assert events(lambda: partitions(few, 4)) == events(lambda: partitions(many, 4))
