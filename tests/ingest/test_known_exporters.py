"""What the operator knows of exporters, joined to records: whom an entry means, and what comes of it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.known_exporters import MAPPED, KnownExporter, KnownExporters, KnownInterface
from shared.record import COLUMN
from tests.builders import field, mapped, number, v5_datagram, v5_record
from tests.ingest.collector import Collector, check, flows, rows

Told = dict[str, object]
NAMES = ("sampler_name", "in_if_name", "out_if_name", "in_if_boundary", "out_if_boundary")
UPLINK = KnownInterface("uplink", "external")
LAN = KnownInterface(boundary="internal")


def batch(*sent: Mapping[str, object]) -> pa.RecordBatch:
    """Records with these values; exporters as text."""
    names = [name for name in COLUMN if any(name in one for one in sent)]
    arrays = []
    for name in names:
        values = [one.get(name) for one in sent]
        if name == "sampler_address":
            values = [mapped(str(value)) for value in values]
        arrays.append(pa.array(values, COLUMN[name].type))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def known(**exporters: tuple[str | None, Mapping[int, KnownInterface]]) -> KnownExporters:
    """Exporters by network; the underscores of a keyword stand for dots, two for a slash."""
    return KnownExporters(
        [
            KnownExporter(ip_network(text.removeprefix("n").replace("__", "/").replace("_", ".")), name, interfaces)
            for text, (name, interfaces) in exporters.items()
        ]
    )


def joined(given_: KnownExporters, *sent: Mapping[str, object]) -> list[Told]:
    """What the names and boundaries of the records are, without what is null."""
    made = given_.join(batch(*sent))
    made.validate(full=True)
    columns = {name: made.column(name).to_pylist() for name in NAMES if name in made.schema.names}
    return [
        {name: values[at] for name, values in columns.items() if values[at] is not None} for at in range(made.num_rows)
    ]


EDGE = known(n192_0_2_0__24=("edge", {3: UPLINK, 7: LAN, 0: KnownInterface("self")}))

CASES = [
    pytest.param({"in_if": 3, "out_if": 7}, {"in_if_name": "uplink", "in_if_boundary": "external", "out_if_boundary": "internal"}, id="both"),
    pytest.param({"in_if": 7, "out_if": 3}, {"out_if_name": "uplink", "out_if_boundary": "external", "in_if_boundary": "internal"}, id="turned"),
    pytest.param({"in_if": 3, "out_if": None}, {"in_if_name": "uplink", "in_if_boundary": "external"}, id="null is no interface"),
    pytest.param({"in_if": None, "out_if": 0}, {"out_if_name": "self"}, id="0 is one"),
    pytest.param({"in_if": 4, "out_if": 2**32 - 1}, {}, id="interfaces that are not known"),
    pytest.param({"in_if": 3}, {"in_if_name": "uplink", "in_if_boundary": "external"}, id="no output"),
    pytest.param({}, {}, id="no interfaces"),
    pytest.param({"in_if": 3, "in_if_name": "Te0"}, {"in_if_name": "uplink", "in_if_boundary": "external"}, id="the file's name goes first"),
    pytest.param({"in_if": 7, "in_if_name": "Te0"}, {"in_if_name": "Te0", "in_if_boundary": "internal"}, id="a name that the file leaves open stays"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "told"), CASES)
def test_a_record_has_what_is_known_of_its_interfaces(sent: Told, told: Told) -> None:
    """Name and boundary by ifIndex; what the file does not say is left as the device says it, or null."""
    other = {**sent, "sampler_address": "198.51.100.1"}
    assert joined(EDGE, {**sent, "sampler_address": "192.0.2.1"}) == [{"sampler_name": "edge", **told}]
    kept = {"in_if_name": sent["in_if_name"]} if "in_if_name" in sent else {}
    assert joined(EDGE, {**sent, "sampler_address": "192.0.2.9"}, other)[1] == kept


def test_records_of_one_batch_are_told_apart() -> None:
    """One ifIndex is another interface at another exporter, and one name may be had by several."""
    both = known(
        n192_0_2_1=("a", {1: KnownInterface("up", "external"), 2: KnownInterface("up", "internal")}),
        n192_0_2_2=(None, {1: KnownInterface("down", "internal")}),
        n192_0_2_3=("a", {}),
    )
    sent = [{"sampler_address": f"192.0.2.{last}", "in_if": index} for last, index in ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2))]  # fmt: skip
    assert joined(both, *sent) == [
        {"sampler_name": "a", "in_if_name": "up", "in_if_boundary": "external"},
        {"in_if_name": "down", "in_if_boundary": "internal"},
        {"sampler_name": "a"},
        {},
        {"sampler_name": "a", "in_if_name": "up", "in_if_boundary": "internal"},
    ]


def test_the_longest_match_is_all_that_counts() -> None:
    """What a shorter match knows beside it is not taken over, not even its interfaces."""
    nested = known(
        n192_0_2_0__24=("site", {3: UPLINK}), n192_0_2_128__25=(None, {}), n192_0_2_129=("host", {7: UPLINK})
    )
    sent = [{"sampler_address": f"192.0.2.{last}", "in_if": 3} for last in (1, 128, 129)]
    uplink = {"in_if_name": "uplink", "in_if_boundary": "external"}
    assert joined(nested, *sent) == [{"sampler_name": "site", **uplink}, {}, {"sampler_name": "host"}]


@pytest.mark.parametrize("nothing", [KnownExporters(), known(n198_51_100_0__24=("other", {3: UPLINK}))])
def test_a_batch_of_which_nothing_is_known_is_given_back_as_it_is(nothing: KnownExporters) -> None:
    """Nothing is copied and no column is added."""
    sent = batch({"sampler_address": "192.0.2.1", "in_if": 3})
    assert nothing.join(sent) is sent


def test_what_is_not_told_of_any_record_makes_no_column() -> None:
    """An exporter without a name, and interfaces of which one thing is known, add that alone."""
    only = known(n192_0_2_1=(None, {3: LAN}))
    made = only.join(batch({"sampler_address": "192.0.2.1", "in_if": 3, "out_if": 4}))
    assert made.schema.names == ["sampler_address", "in_if", "out_if", "in_if_boundary"]


def test_a_slice_of_a_batch_is_read_at_its_place() -> None:
    """A batch that begins in the middle of another one's memory has the names of its own exporters and interfaces."""
    sent = [{"sampler_address": f"192.0.{third}.1", "in_if": index} for third, index in ((2, 3), (3, 3), (2, None), (2, 7))]  # fmt: skip
    made = EDGE.join(batch(*sent).slice(1))
    assert made.column("sampler_name").to_pylist() == [None, "edge", "edge"]
    assert made.column("in_if_boundary").to_pylist() == [None, None, "internal"]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(flows(9, [field(1, 4), field(10, 4), field(14, 4)], number(1, 4) + number(3, 4) * 2), id="v9"),
        pytest.param(flows(9, [field(1, 4)], number(1, 4)), id="v9 without interfaces"),
        pytest.param(v5_datagram(v5_record()), id="v5"),
    ],
)
def test_columns_stand_in_their_places(payload: bytes) -> None:
    """A batch with what is known is the record's, in order and type, and what it had is untouched."""
    (given_,) = Collector().feed(payload).batches
    everything = KnownExporters([KnownExporter(ip_network("0.0.0.0/0"), "all", dict.fromkeys(range(70), UPLINK))])
    made = everything.join(given_)
    check(made)
    assert made.column("sampler_name").to_pylist() == ["all"] * made.num_rows
    for before, after in zip(rows([given_]), rows([made]), strict=True):
        assert {name: after[name] for name in before} == before
        assert set(after) - set(before) <= set(NAMES)


def test_it_reaches_another_process_whole() -> None:
    """What the supervisor read, the workers use."""
    there = pickle.loads(pickle.dumps(EDGE))
    sent = {"sampler_address": "192.0.2.1", "in_if": 3}
    assert joined(there, sent) == joined(EDGE, sent) != [{}]


# --- whom a network means

FAMILIES = [
    pytest.param(["::/0"], "192.0.2.1", None, id="no IPv4 in IPv6"),
    pytest.param(["::/0"], "2001:db8::1", "::/0", id="all of IPv6"),
    pytest.param(["::/0"], "::", "::/0", id="the first address"),
    pytest.param(["::/0"], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0", id="the last address"),
    pytest.param(["0.0.0.0/0"], "192.0.2.1", "0.0.0.0/0", id="all of IPv4"),
    pytest.param(["0.0.0.0/0"], "2001:db8::1", None, id="no IPv6 in IPv4"),
    pytest.param(["0.0.0.0/0"], "::fffe:c000:201", None, id="nearly a mapped one"),
    pytest.param(["0.0.0.0/0", "::/0"], "255.255.255.255", "0.0.0.0/0", id="both, IPv4"),
    pytest.param(["::ffff:192.0.2.0/120"], "192.0.2.1", "::ffff:c000:200/120", id="IPv4 spelled as mapped"),
    pytest.param(["10.0.0.0/32"], "10.0.0.0", "10.0.0.0/32", id="zeros at the end"),
    pytest.param(["10.0.0.0/32"], "10.0.0.1", None, id="the next one"),
]


def found(networks: Sequence[IPv4Network | IPv6Network], addresses: Sequence[str]) -> list[str | None]:
    """Which network each exporter is taken for."""
    told = KnownExporters([KnownExporter(one, str(one)) for one in networks])
    return [one.get("sampler_name") for one in joined(told, *({"sampler_address": text} for text in addresses))]  # type: ignore[misc]


@pytest.mark.parametrize(("networks", "address", "expected"), FAMILIES)
def test_families_are_told_apart(networks: list[str], address: str, expected: str | None) -> None:
    """An exporter of IPv4 is in no network of IPv6, and the other way round."""
    assert found([ip_network(one) for one in networks], [address]) == [expected]


@st.composite
def near_networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    """Networks that lie in each other and side by side."""
    family = draw(st.sampled_from([4, 6]))
    bits = 32 if family == 4 else 128
    low = draw(st.integers(0, 7))
    length = draw(st.one_of(st.integers(bits - 4, bits), st.integers(0, 3)))
    start = (low if length > 3 else low << bits - 3) >> bits - length << bits - length
    return (IPv4Network if family == 4 else IPv6Network)((start, length))


@given(
    st.lists(near_networks(), unique=True, max_size=12),
    st.lists(
        st.sampled_from([*range(9), *(MAPPED + low for low in range(9)), MAPPED + 2**31, MAPPED + 2**32, 2**125, 2**128 - 1]),
        min_size=1,
    ),
)  # fmt: skip
def test_the_longest_match_is_found(networks: list[IPv4Network | IPv6Network], numbers: list[int]) -> None:
    """Whatever networks there are, an exporter's is the one that a look at each of them finds."""
    addresses = [str(IPv6Address(one).ipv4_mapped or IPv6Address(one)) for one in numbers]
    expected = []
    for text in addresses:
        holding = [one for one in networks if ip_address(text) in one]
        expected.append(str(max(holding, key=lambda one: one.prefixlen)) if holding else None)
    assert found(networks, addresses) == expected
