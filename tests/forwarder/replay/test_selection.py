from __future__ import annotations

import ipaddress

import pyarrow as pa
import pytest

from forwarder.replay.selection import Selection, parse_exporter
from tests.forwarder.records import RECEIVED_NS, flows


def mapped(text: str) -> bytes:
    """An address as the record has it."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


TABLE = pa.Table.from_batches(
    [
        flows(
            [1, 2, 3, 4, 5],
            time_received=[RECEIVED_NS + step for step in (0, 1, 2, 3)] + [None],
            sampler_address=[
                mapped("192.0.2.7"),
                mapped("192.0.3.7"),
                mapped("2001:db8::1"),
                None,
                mapped("192.0.2.9"),
            ],
            sampler_name=["edge-1", None, "edge-2", "edge-1", "core"],
        )
    ]
)


@pytest.mark.parametrize(
    ("exporters", "ids"),
    [
        (["192.0.2.7"], [1]),
        (["192.0.2.0/24"], [1, 5]),
        (["192.0.2.0/23", "2001:db8::/32"], [1, 2, 3, 5]),
        (["::/0"], [3]),
        (["edge-1"], [1, 4]),
        (["edge-1", "192.0.2.9"], [1, 4, 5]),
        (["edge"], []),
    ],
    ids=str,
)
def test_records_of_exporters(exporters: list[str], ids: list[int]) -> None:
    """Any of the addresses, networks and names that are given; IPv4 is IPv4, whatever the record stores."""
    parsed = [parse_exporter(text) for text in exporters]
    ours = Selection(
        tuple(one for one in parsed if not isinstance(one, str)), tuple(one for one in parsed if isinstance(one, str))
    )
    assert ours.pick(TABLE)["record_id"].to_pylist() == ids


@pytest.mark.parametrize(
    ("begin", "end", "ids"), [(None, None, [1, 2, 3, 4, 5]), (1, None, [2, 3, 4]), (None, 2, [1, 2]), (1, 3, [2, 3])]
)
def test_records_of_a_time_of_reception(begin: int | None, end: int | None, ids: list[int]) -> None:
    """From a time on, before another; what does not say its time is not of any."""
    ours = Selection((), (), *(None if bound is None else RECEIVED_NS + bound for bound in (begin, end)))
    assert ours.pick(TABLE)["record_id"].to_pylist() == ids


def test_all_conditions_hold_together() -> None:
    """An exporter and a time are both asked for."""
    assert Selection((), ("edge-1",), RECEIVED_NS + 1).pick(TABLE)["record_id"].to_pylist() == [4]


@pytest.mark.parametrize("names", [[], ["record_id"]], ids=["no columns", "other columns"])
def test_what_a_table_does_not_say_is_not_asked_for(names: list[str]) -> None:
    """Records without the columns are of no exporter and of no time."""
    assert Selection((), ("edge-1",)).pick(TABLE.select(names)).num_rows == 0
    assert Selection((parse_exporter("::/0"),)).pick(TABLE.select(names)).num_rows == 0  # type: ignore[arg-type]
    assert Selection(received_from_ns=0).pick(TABLE.select(names)).num_rows == 0


def test_a_selection_has_a_mark_of_its_own() -> None:
    """The same for the same, whatever the order; everything has none, since it is the batch itself."""
    two = ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("192.0.3.0/24")
    assert Selection().mark is None
    marks = [Selection(two), Selection((), ("a", "b")), Selection((), (), 1), Selection((), (), None, 1)]
    assert len({one.mark for one in marks}) == 4
    assert Selection(two).mark == Selection(two[::-1]).mark
    assert Selection((), ("b", "a")).mark == Selection((), ("a", "b")).mark


@pytest.mark.parametrize(("text", "sentence"), [("192.0.2.7/24", "the network is 192.0.2.0/24"), ("", "its address")])
def test_an_exporter_that_is_none_is_said(text: str, sentence: str) -> None:
    """What looks like a network and is none is no name either."""
    with pytest.raises(ValueError, match=sentence):
        parse_exporter(text)
