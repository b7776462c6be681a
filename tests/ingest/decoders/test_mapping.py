"""What a mapping makes of elements: columns, conditions, exporters, and which of several fields counts."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import numpy as np
import pytest

from ingest.decoders import Datagrams, Decoded
from ingest.decoders.elements import RULES
from ingest.decoders.mapping import MAPPABLE, MOST_EXPORTERS, As, Beside, FieldMapping, MappedField
from shared.record import COLUMN
from tests.builders import (
    VARIABLE,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_templates,
    ipv4,
    ipv6,
    mac,
    mapped,
    number,
    sub_template_list,
    template,
    variable,
)
from tests.ingest.collector import RECEIVED_NS, Collector, Row, flows, nothing_wrong, one, rows, told
from tests.ingest.decoders.known_elements import IPFIX, V9

VENDOR = (32473, 7)
HERE, THERE, ELSEWHERE = "192.0.2.1", "192.0.2.200", "2001:db8::5"


def to(column: str, element: tuple[int, int] = VENDOR, **more: Any) -> MappedField:  # noqa: ANN401 - what a MappedField takes
    """An element of IPFIX that goes to a column."""
    return MappedField(IPFIX, element, column=column, **more)


def collector(*fields: MappedField) -> Collector:
    """A pipeline that has these fields mapped, and no others."""
    return Collector(mapping=FieldMapping(fields))


def from_exporters(payload: bytes, *exporters: str) -> Datagrams:
    """One datagram from each of several exporters, in one batch."""
    count = len(exporters)
    return Datagrams.pack([payload] * count, list(map(mapped, exporters)), [50000] * count, [RECEIVED_NS] * count)


def by_exporter(decoded: Decoded) -> dict[bytes, Row]:
    """What each exporter's only record tells."""
    found = {row["sampler_address"]: told(row) for row in rows(decoded)}
    assert len(found) == decoded.records
    return found


# --- columns


def sample(column: str) -> tuple[bytes, Any]:
    """A value for a column, as a field has it and as the column has it."""
    wire = MAPPABLE[column][0].name
    if wire == "IPV4":
        return ipv4("203.0.113.9"), mapped("203.0.113.9")
    if wire == "MAC":
        return mac("02:00:5e:00:00:07"), mac("02:00:5e:00:00:07")
    if wire in {"TEXT", "NAME"}:
        return fixed("edge", 6), "edge"
    if wire == "APPLICATION":
        return bytes.fromhex("0d0001c5"), "13:453"
    return number(77, 4), 77


@pytest.mark.parametrize("column", MAPPABLE)
@pytest.mark.parametrize("of_variable_length", [False, True], ids=["fixed", "variable"])
def test_a_field_may_be_mapped_to_any_column_of_elements(column: str, of_variable_length: bool) -> None:
    """A vendor's element gives a column the value that it is written with there, whatever the column's own elements."""
    content, expected = sample(column)
    length = VARIABLE if of_variable_length else len(content)
    record = variable(content) if of_variable_length else content
    decoded = collector(to(column)).feed(flows(IPFIX, [field(7, length, enterprise=32473)], record))
    assert one(decoded)[column] == expected
    assert nothing_wrong(decoded)


def test_what_fields_can_be_mapped_to_is_what_elements_fill() -> None:
    """The columns that may be named are those with a rule of their own, and each is a column of the record."""
    assert list(MAPPABLE) == [rule.column for rule in RULES]
    assert set(MAPPABLE) <= set(COLUMN)
    assert {"extra", "etype", "record_id", "duplicate"}.isdisjoint(MAPPABLE)


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9"])
def test_an_address_is_read_by_its_length(address: str) -> None:
    """A field that is mapped to an address may be of either family."""
    content = ipv6(address) if ":" in address else ipv4(address)
    decoded = collector(to("src_addr")).feed(flows(IPFIX, [field(7, len(content), enterprise=32473)], content))
    assert one(decoded)["src_addr"] == mapped(address)
    assert one(decoded)["etype"] == (0x86DD if ":" in address else 0x0800)


def test_one_element_may_be_mapped_to_several_places() -> None:
    """A column and `extra` do not exclude each other."""
    fields = [to("src_sgt"), MappedField(IPFIX, VENDOR, extra="tag", written_as=As.UINT)]
    row = one(collector(*fields).feed(flows(IPFIX, [field(7, 2, enterprise=32473)], number(5, 2))))
    assert (row["src_sgt"], row["extra"]) == (5, [("tag", "5")])


# --- which of several counts


def test_a_mapped_field_goes_before_the_columns_own_elements() -> None:
    """What somebody has written down is better than what the registry says, whatever the order of the template."""
    for order in (1, -1):
        sent = [(field(7, 2), number(1, 2)), (field(7, 2, enterprise=32473), number(2, 2))][::order]
        payload = flows(IPFIX, [item for item, _ in sent], b"".join(value for _, value in sent))
        assert one(collector(to("src_port")).feed(payload))["src_port"] == 2
        # Ports give way when they are zero.
        zero = flows(IPFIX, [item for item, _ in sent], b"".join(value[:1] + b"\0" for _, value in sent))
        assert one(collector(to("src_port")).feed(zero))["src_port"] == 0


def test_a_fallback_goes_behind_them() -> None:
    """A field of a profile fills a column that the record's own elements leave open."""
    both = [field(5, VARIABLE), field(7, 1, enterprise=32473)]
    payload = flows(IPFIX, both, variable(b"\1") + b"\2")
    assert one(collector(to("ip_tos", fallback=True)).feed(payload))["ip_tos"] == 1
    alone = flows(IPFIX, both[1:], b"\2")
    assert one(collector(to("ip_tos", fallback=True)).feed(alone))["ip_tos"] == 2


def test_a_mapped_field_goes_before_a_fallback() -> None:
    """Of one element, and of two for one column, the file counts and then the profile."""
    fields = [to("dst_sgt"), to("src_sgt", fallback=True), to("src_sgt", (9, 1232), fallback=True)]
    payload = flows(IPFIX, [field(1232, 2, enterprise=9), field(7, 2, enterprise=32473)], number(10, 2) + number(20, 2))
    assert told(one(collector(*fields).feed(payload))) == {"dst_sgt": 20, "src_sgt": 10}


def test_an_element_that_is_mapped_no_longer_means_what_it_meant() -> None:
    """Whoever maps an IANA element says that this device means something else by it."""
    payload = flows(IPFIX, [field(7, 2), field(5, 1)], number(1234, 2) + b"\1")
    assert told(one(collector(to("src_sgt", (0, 7))).feed(payload))) == {"src_sgt": 1234, "ip_tos": 1}
    fields = MappedField(IPFIX, (0, 7), extra="seven", written_as=As.UINT)
    assert told(one(collector(fields).feed(payload))) == {"extra": [("seven", "1234")], "ip_tos": 1}
    kept = to("src_sgt", (0, 7), fallback=True)
    assert told(one(collector(kept).feed(payload))) == {"src_port": 1234, "src_sgt": 1234, "ip_tos": 1}


# --- conditions


@pytest.mark.parametrize(
    ("one_field", "fields", "meant"),
    [
        pytest.param(to("src_sgt", length=2), [(7, 2)], True, id="of that length"),
        pytest.param(to("src_sgt", length=2), [(7, 4)], False, id="of another length"),
        pytest.param(to("src_sgt", length=2), [(7, VARIABLE)], False, id="of variable length"),
        pytest.param(to("src_sgt", length=VARIABLE), [(7, VARIABLE)], True, id="of variable length, as asked"),
        pytest.param(to("src_sgt", length=2), [(7, 4), (7, 2)], True, id="twice, the last of that length"),
        pytest.param(to("src_sgt", length=2), [(7, 2), (7, 4)], False, id="twice, the last of another"),
        pytest.param(to("src_sgt", length=2), [(7, 2), (7, 0)], True, id="twice, the last of none"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8))), [(7, 2), (8, 9)], True, id="beside"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8))), [(8, 9), (7, 2)], True, id="beside, before it"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8))), [(7, 2)], False, id="alone"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8))), [(7, 2), (8, 0)], False, id="beside what is not there"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8), 2)), [(7, 2), (8, 2)], True, id="beside, of that length"),
        pytest.param(to("src_sgt", beside=Beside((32473, 8), 2)), [(7, 2), (8, 4)], False, id="beside, of another"),
        pytest.param(to("src_sgt", beside=Beside((9, 8))), [(7, 2), (8, 2)], False, id="beside another's element"),
    ],
)
def test_a_field_is_meant_only_as_its_conditions_say(
    one_field: MappedField, fields: list[tuple[int, int]], meant: bool
) -> None:
    """A length of its own, and another element in the same template."""
    sent = [field(element, length, enterprise=32473) for element, length in fields]
    content = b"".join(
        variable(b"\0\1") if length == VARIABLE else number(1, max(length, 1))[:length] for _, length in fields
    )
    row = told(one(collector(one_field).feed(flows(IPFIX, [*sent, field(5, 1)], content + b"\1"))))
    assert row == ({"src_sgt": 1, "ip_tos": 1} if meant else {"ip_tos": 1})


def test_a_field_is_of_one_protocol() -> None:
    """The same number in the other protocol is not meant."""
    ninth = MappedField(V9, (0, 34000), column="src_sgt")
    assert told(one(collector(ninth).feed(flows(V9, [field(34000, 2)], number(5, 2))))) == {"src_sgt": 5}
    tenth = MappedField(IPFIX, (0, 5000), column="src_sgt")
    assert told(one(collector(tenth).feed(flows(V9, [field(5000, 2)], number(5, 2))))) == {}


def test_an_enterprises_element_is_not_ianas() -> None:
    """A field is found by enterprise and number together."""
    payload = flows(IPFIX, [field(7, 2), field(7, 2, enterprise=9)], number(1, 2) + number(2, 2))
    assert told(one(collector(to("src_sgt")).feed(payload))) == {"src_port": 1}
    assert told(one(collector(to("src_sgt", (9, 7))).feed(payload))) == {"src_port": 1, "src_sgt": 2}


# --- exporters


def test_exporters_of_one_layout_may_be_read_differently() -> None:
    """A field that is meant for some exporters is none to the others, in the same batch and of the same template."""
    here = to("src_sgt", networks=(ip_network("192.0.2.0/25"),))
    there = to("dst_sgt", networks=(ip_network("192.0.2.128/25"), ip_network("198.51.100.0/24")))
    payload = flows(IPFIX, [field(7, 2, enterprise=32473), field(5, 1)], number(5, 2) + b"\1")
    decoded = collector(here, there).take(from_exporters(payload, HERE, THERE, ELSEWHERE))
    assert by_exporter(decoded) == {
        mapped(HERE): {"src_sgt": 5, "ip_tos": 1},
        mapped(THERE): {"dst_sgt": 5, "ip_tos": 1},
        mapped(ELSEWHERE): {"ip_tos": 1},
    }
    assert nothing_wrong(decoded)


def test_a_restricted_field_overrides_for_its_exporters_alone() -> None:
    """To the others the element means what the registry says."""
    field_ = to("src_sgt", (0, 7), networks=(ip_network(HERE),))
    decoded = collector(field_).take(from_exporters(flows(IPFIX, [field(7, 2)], number(5, 2)), HERE, THERE))
    assert by_exporter(decoded) == {mapped(HERE): {"src_sgt": 5}, mapped(THERE): {"src_port": 5}}


def test_a_network_of_ipv6_is_one_too() -> None:
    """Exporters are matched by their own family."""
    field_ = to("src_sgt", networks=(ip_network("2001:db8::/32"),))
    payload = flows(IPFIX, [field(7, 2, enterprise=32473)], number(5, 2))
    decoded = collector(field_).take(from_exporters(payload, HERE, ELSEWHERE, "2001:db9::5"))
    assert by_exporter(decoded) == {mapped(HERE): {}, mapped(ELSEWHERE): {"src_sgt": 5}, mapped("2001:db9::5"): {}}


def test_fields_for_all_hold_beside_those_for_some() -> None:
    """What is restricted goes beside what is not; for one column the first in the file counts."""
    fields = [
        to("src_sgt", (0, 5000), networks=(ip_network(HERE),)),
        to("src_sgt", (0, 5001)),
        to("dst_sgt", (0, 5001), networks=(ip_network(THERE),)),
    ]
    payload = flows(IPFIX, [field(5000, 2), field(5001, 2)], number(1, 2) + number(2, 2))
    decoded = collector(*fields).take(from_exporters(payload, HERE, THERE, ELSEWHERE))
    assert by_exporter(decoded) == {
        mapped(HERE): {"src_sgt": 1},
        mapped(THERE): {"src_sgt": 2, "dst_sgt": 2},
        mapped(ELSEWHERE): {"src_sgt": 2},
    }


def test_exporters_for_which_the_same_is_meant_are_decoded_together() -> None:
    """Variants are of what is meant, not of exporters: a thousand of one kind are one batch."""
    mapping = FieldMapping((to("src_sgt", networks=(ip_network("10.0.0.0/8"),)),))
    source = np.array([[*mapped(f"10.{at // 256}.{at % 256}.1")] for at in range(1000)], np.uint8)
    others = np.array([[*mapped(f"11.{at // 256}.{at % 256}.1")] for at in range(1000)], np.uint8)
    assert set(mapping.variants(source).tolist()) == {1}
    assert set(mapping.variants(others).tolist()) == {0}
    assert set(mapping.variants(source).tolist()) == {1}


def test_without_a_restriction_exporters_are_not_looked_at() -> None:
    """All are of variant 0."""
    mapping = FieldMapping((to("src_sgt"),))
    assert not mapping.restricted
    assert mapping.variants(np.zeros((3, 16), np.uint8)).tolist() == [0, 0, 0]


def test_what_is_remembered_of_exporters_is_bounded() -> None:
    """Addresses beyond the bound are looked up each time, and answered alike."""
    mapping = FieldMapping((to("src_sgt", networks=(ip_network("::/1"),)),))
    many = MOST_EXPORTERS + 50
    source = np.zeros((many, 16), np.uint8)
    source[:, 8:] = np.arange(many, dtype=">u8").view(np.uint8).reshape(-1, 8)
    source[:, 0] = 0x20
    for _ in range(2):
        assert set(mapping.variants(source).tolist()) == {1}
    assert len(mapping._of_exporter) == MOST_EXPORTERS


# --- where else


def test_a_new_mapping_holds_from_the_next_batch_on() -> None:
    """Templates that are known stay so, and are read anew."""
    ours = collector()
    payload = flows(IPFIX, [field(7, 2, enterprise=32473)], number(5, 2))
    data = ipfix_message(data_set(256, number(5, 2)))
    assert told(one(ours.feed(payload))) == {}
    ours.pipeline.map(FieldMapping((to("src_sgt"),)))
    assert told(one(ours.feed(data))) == {"src_sgt": 5}
    ours.pipeline.map(FieldMapping((to("dst_sgt"),)))
    assert told(one(ours.feed(data))) == {"dst_sgt": 5}


def test_mapped_fields_are_read_in_lists_too() -> None:
    """A record in a list, and an element of a basic list, may be a mapped one; its `extra` is the record's."""
    fields = [to("src_sgt"), MappedField(IPFIX, (32473, 8), extra="drop", written_as=As.UTF8)]
    inner = template(300, field(7, 2, enterprise=32473), field(8, VARIABLE, enterprise=32473))
    lists = variable(sub_template_list(300, number(5, 2) + variable("policy"))) + b"\1"
    payload = ipfix_message(
        ipfix_templates(inner, template(256, field(292, VARIABLE), field(5, 1))), data_set(256, lists)
    )
    decoded = collector(*fields).feed(payload)
    assert told(one(decoded)) == {"src_sgt": 5, "extra": [("drop", "policy")], "ip_tos": 1}
    basic = b"\3" + field(7, 2, enterprise=32473) + number(6, 2)
    assert told(one(collector(*fields).feed(flows(IPFIX, [field(291, VARIABLE)], variable(basic))))) == {"src_sgt": 6}


def test_scopes_are_no_fields() -> None:
    """A mapped element in the scope of an options template maps nothing, and no options record becomes a flow."""
    from tests.builders import ipfix_options_template, ipfix_options_templates

    options = ipfix_options_templates(ipfix_options_template(300, (field(7, 2, enterprise=32473),), (field(82, 4),)))
    decoded = collector(to("src_sgt")).feed(ipfix_message(options, data_set(300, number(5, 2) + b"edge")))
    assert decoded.records == 0
    assert decoded.options_records == 1
