"""Sampling rates of the configuration: overrides by network, and a default."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pyarrow as pa
import pytest

from ingest.sampling import SamplingRates
from shared.record import COLUMN, POSITION
from tests.builders import field, mapped, number, v5_datagram, v5_record
from tests.ingest.collector import Collector, check, flows, rows

Network = IPv4Network | IPv6Network


def batch(*sent: tuple[str, int | None]) -> pa.RecordBatch:
    """Records of exporters with the rate that each told."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array([mapped(exporter) for exporter, _ in sent], COLUMN["sampler_address"].type),
            pa.array([rate for _, rate in sent], pa.uint32()),
            pa.array([1] * len(sent), pa.uint64()),
        ],
        ["sampler_address", "sampling_rate", "bytes"],
    )


def rates(overrides: dict[str, int], default: int | None, *sent: tuple[str, int | None]) -> list[int | None]:
    """What the records have in the end."""
    networks = {ip_network(network): rate for network, rate in overrides.items()}
    given: list[int | None] = SamplingRates(networks, default).apply(batch(*sent)).column("sampling_rate").to_pylist()
    return given


CASES = [
    pytest.param({}, None, [("192.0.2.1", 10), ("192.0.2.1", None)], [10, None], id="nothing configured"),
    pytest.param({}, 7, [("192.0.2.1", 10), ("192.0.2.1", None)], [10, 7], id="a default for what is unknown"),
    pytest.param({"192.0.2.0/24": 5}, None, [("192.0.2.1", 10), ("192.0.3.1", 10)], [5, 10], id="an override"),
    pytest.param({"192.0.2.0/24": 5}, 7, [("192.0.2.1", None), ("192.0.3.1", None)], [5, 7], id="before the default"),
    pytest.param(
        {"192.0.2.0/24": 5, "192.0.0.0/16": 6, "192.0.2.9/32": 8, "0.0.0.0/0": 9},
        None,
        [("192.0.2.9", 1), ("192.0.2.1", 1), ("192.0.7.1", 1), ("10.0.0.1", 1)],
        [8, 5, 6, 9],
        id="the longest match",
    ),
    pytest.param(
        {"2001:db8::/32": 5, "2001:db8:0:1::/64": 6, "2001:db8::1:0:0:0:1/128": 7},
        None,
        [("2001:db8::1", 1), ("2001:db8:0:1::1", 1), ("2001:db8:0:1:0:0:0:2", 1), ("2001:db9::1", 1)],
        [5, 7, 6, 1],
        id="IPv6",
    ),
    pytest.param(
        {"0.0.0.0/0": 4, "2000::/3": 6}, None, [("192.0.2.1", 1), ("2001:db8::1", 1)], [4, 6], id="both families"
    ),
    pytest.param({"255.255.255.255/32": 3}, None, [("255.255.255.255", 1), ("255.255.255.254", 1)], [3, 1], id="ones"),
    pytest.param({"ffff::/16": 3}, None, [("ffff:1::1", 1), ("7fff::1", 1)], [3, 1], id="the uppermost bit"),
]


@pytest.mark.parametrize(("overrides", "default", "sent", "expected"), CASES)
def test_the_configuration_knows_better(
    overrides: dict[str, int],
    default: int | None,
    sent: list[tuple[str, int | None]],
    expected: list[int | None],
) -> None:
    """An override by the longest matching network, else what the record says, else the default, else null."""
    assert rates(overrides, default, *sent) == expected


def test_the_order_in_the_configuration_does_not_matter() -> None:
    """The longest match is taken wherever it stands."""
    overrides = {"192.0.2.0/24": 5, "192.0.0.0/16": 6, "192.0.2.9/32": 8}
    backwards = dict(reversed(overrides.items()))
    sent = [("192.0.2.9", None), ("192.0.2.1", None), ("192.0.7.1", None), ("10.0.0.1", None)]
    assert rates(overrides, None, *sent) == rates(backwards, None, *sent) == [8, 5, 6, None]


def test_a_slice_of_a_batch_is_read_at_its_place() -> None:
    """A batch that begins in the middle of another one's memory has the rates of its own exporters."""
    whole = batch(("192.0.2.1", 1), ("192.0.3.1", None), ("192.0.2.2", None))
    given = SamplingRates({ip_network("192.0.2.0/24"): 5}, None).apply(whole.slice(1))
    assert given.column("sampling_rate").to_pylist() == [None, 5]


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        pytest.param(flows(9, [field(1, 4)], number(1, 4)), None, id="v9, no rate"),
        pytest.param(flows(9, [field(34, 4)], number(30, 4)), 30, id="v9, a rate"),
        pytest.param(v5_datagram(v5_record(), sampling=0x4000 | 30), 30, id="v5, a rate"),
        pytest.param(v5_datagram(v5_record()), None, id="v5, no rate"),
    ],
)
def test_the_column_stands_in_its_place(payload: bytes, told: int | None) -> None:
    """A batch with rates of the configuration is the record's, in order and type, whether it had the column or not."""
    decoded = Collector().feed(payload)
    (given,) = decoded.batches
    for sampling, expected in (
        (SamplingRates({}, None), told),
        (SamplingRates({}, 9), told or 9),
        (SamplingRates({ip_network("192.0.2.0/24"): 5}, 9), 5),
        (SamplingRates({ip_network("10.0.0.0/8"): 5}, None), told),
    ):
        applied = sampling.apply(given)
        check(applied)
        (row,) = rows([applied])
        assert row.get("sampling_rate") == expected
        others = {name: value for name, value in row.items() if name != "sampling_rate"}
        assert others == {name: value for name, value in rows([given])[0].items() if name != "sampling_rate"}


def test_nothing_configured_changes_nothing() -> None:
    """Without overrides and default a batch is given back as it is."""
    given = batch(("192.0.2.1", 10))
    assert SamplingRates({}, None).apply(given) is given
    assert POSITION["sampling_rate"] < POSITION["bytes"]
