"""Mapping files: what they may say, what comes of it, and what they are told when they are wrong."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from ingest.__main__ import main
from ingest.decoders import Datagrams
from ingest.decoders.mapping import MAPPABLE, As
from ingest.mapping import DEFAULT_PROFILES, PROFILES, FieldConfig, load_mapping, names_file, profile_names
from shared.errors import ConfigError
from tests.builders import (
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_options_template,
    ipfix_options_templates,
    ipv4,
    ipv6,
    mapped,
    number,
)
from tests.ingest.collector import RECEIVED_NS, Collector, Row, flows, one, rows, told
from tests.ingest.decoders.known_elements import IPFIX, V9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its mapping."""
    return tmp_path / "mapping.yaml"


def read(file: Path, text: str | dict[str, Any], protocol: int, fields: list[bytes], record: bytes) -> Row:
    """What one record tells under a mapping."""
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
    return told(one(Collector(mapping=load_mapping(file)).feed(flows(protocol, fields, record))))


# --- what a file may say

EXAMPLE = """\
fields:
  - {protocol: v9,    element: 36000, column: src_sgt}
  - {protocol: ipfix, enterprise: 32473, element: 1232, column: dst_sgt, exporters: [192.0.2.0/24, "2001:db8::1"]}
  - {protocol: ipfix, enterprise: 32473, element: 12172, extra: nbar_host, as: utf8}
  - protocol: ipfix
    element: 5000
    length: 3
    beside: {element: 5001, enterprise: 32473, length: 4}
    extra: service
    as: uint
sgt_names: {2: TrustSec_Devices, 10: Employees}
profiles: [cisco-sgt]
"""


def test_a_file_says_which_elements_go_where(file: Path) -> None:
    """Each line of an example does what it says, for the exporters and in the templates that it names."""
    fields = [
        field(1232, 2, enterprise=32473),
        field(12172, 12, enterprise=32473),
        field(5000, 3),
        field(5001, 4, enterprise=32473),
    ]
    record = number(10, 2) + fixed("example.net", 12) + number(70000, 3) + bytes(4)
    extra = [("nbar_host", "example.net"), ("service", "70000")]
    expected = {"dst_sgt": 10, "dst_sgt_name": "Employees", "extra": extra}
    assert read(file, EXAMPLE, IPFIX, fields, record) == expected
    assert read(file, EXAMPLE, V9, [field(36000, 2)], number(2, 2)) == {
        "src_sgt": 2,
        "src_sgt_name": "TrustSec_Devices",
    }


def test_exporters_of_one_batch_are_told_apart(file: Path) -> None:
    """Two exporters send one layout, and the file is meant for one of them."""
    file.write_text(EXAMPLE)
    payload = flows(IPFIX, [field(1232, 2, enterprise=32473)], number(10, 2))
    sources = [mapped("192.0.2.1"), mapped("198.51.100.1"), mapped("2001:db8::1"), mapped("2001:db8::2")]
    batch = Datagrams.pack([payload] * 4, sources, [50000] * 4, [RECEIVED_NS] * 4)
    found = {
        row["sampler_address"]: row.get("dst_sgt") for row in rows(Collector(mapping=load_mapping(file)).take(batch))
    }
    assert found == dict(zip(sources, (10, None, 10, None), strict=True))


@pytest.mark.parametrize("text", ["", "# nothing\n", "fields: []\n", "sgt_names: {}\n"])
def test_a_file_that_says_nothing_leaves_what_is_built_in(file: Path, text: str) -> None:
    """An empty file is no file: the default profiles are on."""
    file.write_text(text)
    assert load_mapping(file).fields == load_mapping(None).fields
    assert load_mapping(None).fields


def test_an_empty_list_of_profiles_turns_them_off(file: Path) -> None:
    """Without profiles a vendor's element is what nobody knows."""
    fields, record = [field(34000, 2), field(5, 1)], number(7, 2) + b"\1"
    assert read(file, "profiles: []", V9, fields, record) == {"ip_tos": 1}
    assert read(file, "", V9, fields, record) == {"src_sgt": 7, "ip_tos": 1}


@pytest.mark.parametrize("written_as", list(As))
def test_every_kind_may_be_asked_for(file: Path, written_as: As) -> None:
    """Each word that `as` allows is read."""
    file.write_text(f"fields: [{{protocol: v9, element: 5000, extra: it, as: {written_as.value}}}]")
    assert load_mapping(file).fields[0].written_as is written_as


@pytest.mark.parametrize("column", MAPPABLE)
def test_every_column_may_be_named(file: Path, column: str) -> None:
    """Each column that elements fill is one that a file may name."""
    file.write_text(f"fields: [{{protocol: v9, element: 5000, column: {column}}}]")
    assert load_mapping(file).fields[0].column == column


def test_as_is_utf8_when_it_is_left_out(file: Path) -> None:
    """A field for `extra` is text unless the file says otherwise."""
    row = read(file, "fields: [{protocol: v9, element: 5000, extra: it}]", V9, [field(5000, 4)], b"edge")
    assert row == {"extra": [("it", "edge")]}


def test_the_file_goes_before_the_profiles(file: Path) -> None:
    """Who maps an element that a profile has means it so; so it is with a column that a profile fills."""
    text = "fields: [{protocol: v9, element: 34000, column: dst_sgt}, {protocol: v9, element: 5000, column: src_sgt}]"
    fields = [field(34000, 2), field(34001, 2), field(5000, 2)]
    assert read(file, text, V9, fields, number(1, 2) + number(2, 2) + number(3, 2)) == {"dst_sgt": 1, "src_sgt": 3}


# --- profiles


def test_the_profiles_that_come_with_it() -> None:
    """These there are, those are on by default, and each says in its first line what it is for."""
    assert profile_names() == ["cisco-avc", "cisco-nsel", "cisco-sgt", "palo-alto", "sgt-411-412"]
    assert set(DEFAULT_PROFILES) == set(profile_names()) - {"sgt-411-412"}
    for name in profile_names():
        assert (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_may_be_named_alone(file: Path, name: str) -> None:
    """Its fields are then all that there is, each a fallback for what the file itself says."""
    file.write_text(f"profiles: [{name}]")
    fields = load_mapping(file).fields
    written = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))["fields"]
    assert len(fields) == len(written) > 0
    assert all(one.fallback for one in fields)


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_a_file_of_the_same_form(name: str) -> None:
    """A copy of a profile is a mapping file, and the point from which somebody writes their own."""
    fields = load_mapping(PROFILES / f"{name}.yaml").fields
    assert fields
    assert not fields[0].fallback


SGT = [
    pytest.param(V9, [field(34000, 2), field(34001, 2)], number(10, 2) + number(20, 2), (10, 20), id="v9"),
    pytest.param(V9, [field(34000, 4), field(34001, 4)], number(10, 4) + number(20, 4), (10, 20), id="v9, four bytes"),
    pytest.param(V9, [field(1232, 2), field(1233, 2)], number(10, 2) + number(20, 2), (10, 20), id="v9, no upper bit"),
    pytest.param(
        V9, [field(1232, 4), field(1233, 4)], number(10, 4) + number(20, 4), None, id="v9, 1232 of four bytes"
    ),
    pytest.param(
        IPFIX,
        [field(1232, 2, enterprise=9), field(1233, 2, enterprise=9)],
        number(10, 2) + number(20, 2),
        (10, 20),
        id="IPFIX, Cisco's",
    ),
    pytest.param(IPFIX, [field(1232, 2), field(1233, 2)], number(10, 2) + number(20, 2), None, id="IPFIX, IANA's 1232"),
    pytest.param(V9, [field(34000, 2), field(34001, 2)], bytes(4), (0, 0), id="unknown is 0"),
]


@pytest.mark.parametrize(("protocol", "fields", "record", "expected"), SGT)
def test_group_tags_come_out_of_the_box(
    protocol: int, fields: list[bytes], record: bytes, expected: tuple[int, int] | None
) -> None:
    """Cisco's elements of both protocols, without any file."""
    row = told(one(Collector().feed(flows(protocol, fields, record))))
    assert row == ({} if expected is None else {"src_sgt": expected[0], "dst_sgt": expected[1]})


def test_an_enterprise_number_may_stand_behind_a_type_with_its_upper_bit() -> None:
    """34000 as IPFIX has it is 1232 with the enterprise bit set: whoever leaves the bit in says the same."""
    unstripped = [struct.pack("!HHI", element, length, 9) for element, length in ((34000, 2), (34001, 4), (34002, 5))]
    row = told(one(Collector().feed(flows(IPFIX, unstripped, number(10, 2) + number(20, 4) + b"Staff"))))
    assert row == {"src_sgt": 10, "dst_sgt": 20, "src_sgt_name": "Staff"}


def test_names_of_groups_without_the_upper_bit_need_their_tag_beside_them() -> None:
    """NetFlow v9 that strips the bit: 1234 and 1235 are names where 1232 and 1233 are tags, and else nothing known."""
    fields = [field(1232, 2), field(1234, 8), field(1233, 2), field(1235, 8), field(1236, 2)]
    record = number(10, 2) + fixed("Staff", 8) + number(20, 2) + fixed("Guests", 8) + number(30, 2)
    assert told(one(Collector().feed(flows(V9, fields, record)))) == {
        **BOTH,
        "src_sgt_name": "Staff",
        "dst_sgt_name": "Guests",
        "extra": [("switch_derived_sgt", "30")],
    }
    alone = flows(V9, [field(1234, 8), field(1233, 4), field(1235, 8)], bytes(range(65, 85)))
    assert told(one(Collector().feed(alone))) == {}


def test_the_tag_that_a_switch_derived_is_told_in_extra() -> None:
    """It is neither the source's nor the destination's, so it has no column."""
    row = told(one(Collector().feed(flows(V9, [field(34000, 2), field(34004, 2)], number(10, 2) + number(30, 2)))))
    assert row == {"src_sgt": 10, "extra": [("switch_derived_sgt", "30")]}
    cisco = [field(1236, 2, enterprise=9)]
    assert told(one(Collector().feed(flows(IPFIX, cisco, number(30, 2))))) == {"extra": [("switch_derived_sgt", "30")]}


BOTH = {"src_sgt": 10, "dst_sgt": 20}
ELEVEN = [
    # lengths of 411 and 412, None where it is not there; what comes of it by itself, and with the profile
    pytest.param(2, 2, BOTH, BOTH, id="both of two bytes: nothing that IANA means"),
    pytest.param(16, 4, {}, {"dst_sgt": 20}, id="as IANA means them"),
    pytest.param(2, 4, {}, BOTH, id="one of another length"),
    pytest.param(4, 2, {}, BOTH, id="the other of another length"),
    pytest.param(4, 4, {}, BOTH, id="both of four bytes"),
    pytest.param(2, None, {}, {"src_sgt": 10}, id="411 alone"),
    pytest.param(None, 2, {}, {"dst_sgt": 20}, id="412 alone"),
]


@pytest.mark.parametrize("order", [1, -1], ids=["411 first", "412 first"])
@pytest.mark.parametrize(("source", "destination", "by_itself", "by_profile"), ELEVEN)
def test_411_and_412_are_group_tags_when_they_can_be_nothing_else(
    file: Path, source: int | None, destination: int | None, by_itself: Row, by_profile: Row, order: int
) -> None:
    """Two bytes each, and both of them: else IANA's meaning holds, unless the profile for them is on."""
    sent = [
        (field(element, length), number(value, length))
        for element, length, value in ((411, source, 10), (412, destination, 20))
        if length is not None
    ][::order]
    fields, record = [item for item, _ in sent], b"".join(value for _, value in sent)
    assert told(one(Collector().feed(flows(IPFIX, fields, record)))) == by_itself
    profiles = f"profiles: [{', '.join((*DEFAULT_PROFILES, 'sgt-411-412'))}]"
    assert read(file, profiles, IPFIX, fields, record) == by_profile
    assert read(file, "profiles: []", IPFIX, fields, record) == {}
    # NetFlow v9 has them by other numbers.
    assert told(one(Collector().feed(flows(V9, fields, record)))) == {}


def test_cisco_avc_tells_client_and_server() -> None:
    """Application visibility has no source and destination: the client is the one, and the server the other."""
    ends = ipv4("192.0.2.1") + ipv4("198.51.100.2") + number(40000, 2) + number(443, 2)
    expected = {
        "src_addr": mapped("192.0.2.1"),
        "dst_addr": mapped("198.51.100.2"),
        "src_port": 40000,
        "dst_port": 443,
        "etype": 0x0800,
    }
    ninth = [field(45004, 4), field(45005, 4), field(45008, 2), field(45009, 2)]
    assert told(one(Collector().feed(flows(V9, ninth, ends)))) == expected
    tenth = [
        field(number_ - 0x8000, length, enterprise=9)
        for number_, length in ((45004, 4), (45005, 4), (45008, 2), (45009, 2))
    ]
    assert told(one(Collector().feed(flows(IPFIX, tenth, ends)))) == expected
    six = [field(45006, 16), field(45007, 16)]
    row = told(one(Collector().feed(flows(V9, six, ipv6("2001:db8::1") + ipv6("2001:db8::2")))))
    assert row == {"src_addr": mapped("2001:db8::1"), "dst_addr": mapped("2001:db8::2"), "etype": 0x86DD}


# --- names of groups

TAGS = [field(34000, 2), field(34001, 2)]


def test_configured_names_are_for_those_that_nobody_told(file: Path, tmp_path: Path) -> None:
    """A name in the record goes first, then the exporter's table, then the file; a tag that none names has none."""
    file.write_text("sgt_names: {1: One, 2: Two, 3: Three}")
    collector = Collector(mapping=load_mapping(file))
    table = ipfix_options_templates(
        ipfix_options_template(300, (field(1232, 2, enterprise=9),), (field(1234, 8, enterprise=9),))
    )
    collector.feed(ipfix_message(table, data_set(300, number(2, 2) + fixed("Exporter", 8))))
    fields = [field(1232, 2, enterprise=9), field(1233, 2, enterprise=9), field(1235, 8, enterprise=9)]
    records = [
        number(1, 2) + number(2, 2) + bytes(8),
        number(2, 2) + number(3, 2) + fixed("Record", 8),
        number(4, 2) + number(0, 2) + bytes(8),
    ]
    found = [told(row) for row in rows(collector.feed(flows(IPFIX, fields, *records)))]
    assert [(row.get("src_sgt_name"), row.get("dst_sgt_name")) for row in found] == [
        ("One", "Exporter"),
        ("Exporter", "Record"),
        (None, None),
    ]


def test_names_may_stand_in_a_file_of_their_own(file: Path, tmp_path: Path) -> None:
    """A map from tag to name; a name in the mapping file itself goes first."""
    names = tmp_path / "names.yaml"
    names.write_text("0: Unknown\n10: From the file\n20: 'Zürich'\n", encoding="utf-8")
    text = f"sgt_names_file: {names}\nsgt_names: {{10: Employees}}\n"
    row = read(file, text, V9, TAGS, number(10, 2) + number(20, 2))
    assert (row["src_sgt_name"], row["dst_sgt_name"]) == ("Employees", "Zürich")
    assert read(file, text, V9, TAGS, bytes(4))["src_sgt_name"] == "Unknown"
    assert names_file(file) == names
    assert names_file(None) is None


def test_another_mapping_brings_other_names(file: Path) -> None:
    """Names are those of the mapping that holds; what an older one said is gone."""
    collector = Collector()
    payload = flows(V9, TAGS, number(1, 2) + number(2, 2))
    seen = []
    for text in ("sgt_names: {1: One}", "sgt_names: {2: Two}", ""):
        file.write_text(text)
        collector.pipeline.map(load_mapping(file))
        row = one(collector.feed(payload))
        seen.append((row.get("src_sgt_name"), row.get("dst_sgt_name")))
    assert seen == [("One", None), (None, "Two"), (None, None)]


# --- what it is told when it is wrong

ONE = "fields:\n  - {{protocol: ipfix, element: 5, extra: it{more}}}\n"
WRONG: list[Any] = [
    pytest.param("fields:\n  - {protocol: v9, element: 1, colum: bytes}\n", 2, "fields[0].colum", "fields[0].column", id="a key that there is not"),
    pytest.param("ingest: {}\n", 1, "ingest", "known here: fields, sgt_names, sgt_names_file, profiles)", id="a key of the settings"),
    pytest.param("fields:\n  - {element: 1, column: bytes}\n", 2, "fields[0].protocol", "v9, ipfix", id="no protocol"),
    pytest.param("fields:\n  - {protocol: v10, element: 1, column: bytes}\n", 2, "fields[0].protocol", "v9, ipfix", id="no such protocol"),
    pytest.param("fields:\n  - {protocol: v9, column: bytes}\n", 2, "fields[0].element", "from 1 to 65535", id="no element"),
    pytest.param("fields:\n  - {protocol: v9, element: 0, column: bytes}\n", 2, "fields[0].element", "from 1 to 65535", id="element zero"),
    pytest.param("fields:\n  - {protocol: v9, element: 65536, column: bytes}\n", 2, "fields[0].element", "from 1 to 65535", id="an element beyond all"),
    pytest.param("fields:\n  - {protocol: v9, element: one, column: bytes}\n", 2, "fields[0].element", "a whole number", id="an element that is text"),
    pytest.param("fields:\n  - {protocol: v9, element: 1.5, column: bytes}\n", 2, "fields[0].element", "a whole number", id="an element and a half"),
    pytest.param("fields:\n  - protocol: v9\n    element: 1\n    column: byte\n", 4, "fields[0].column", "the nearest is bytes", id="no such column"),
    pytest.param("fields:\n  - {protocol: v9, element: 1, column: extra}\n", 2, "fields[0].column", "wlan_ap_mac", id="a column without elements"),
    pytest.param("fields:\n  - {protocol: v9, element: 1}\n", 2, "fields[0]", "either `column` or `extra`", id="neither column nor extra"),
    pytest.param("fields:\n  - {protocol: v9, element: 1, column: bytes, extra: x}\n", 2, "fields[0]", "not both", id="both"),
    pytest.param("fields:\n  - {protocol: v9, element: 1, column: bytes, as: uint}\n", 2, "fields[0]", "`as` goes with `extra`", id="a column with a kind"),
    pytest.param("fields:\n  - {protocol: v9, element: 1, enterprise: 9, column: bytes}\n", 2, "fields[0]", "NetFlow v9 has no enterprise numbers", id="an enterprise in v9"),
    pytest.param("fields:\n  - {protocol: ipfix, element: 34000, column: src_sgt}\n", 2, "fields[0]", "element: 1232", id="the enterprise bit in IPFIX"),
    pytest.param(ONE.format(more=", as: string"), 2, "fields[0].as", "uint, int, ipv4, ipv6, mac, utf8, hex, boolean, float", id="no such kind"),
    pytest.param(ONE.format(more=", exporters: [192.0.2.300]"), 2, "fields[0].exporters[0]", "192.0.2.0/24", id="no address"),
    pytest.param(ONE.format(more=", exporters: [192.0.2.7/24]"), 2, "fields[0].exporters[0]", "192.0.2", id="bits beyond the prefix"),
    pytest.param(ONE.format(more=", exporters: 192.0.2.7"), 2, "fields[0].exporters", "a list", id="no list of exporters"),
    pytest.param(ONE.format(more=", length: 0"), 2, "fields[0].length", "from 1 to 65535", id="no length"),
    pytest.param(ONE.format(more=", enterprise: -1"), 2, "fields[0].enterprise", "from 0 to 4294967295", id="no enterprise"),
    pytest.param(ONE.format(more=", beside: {element: 6, len: 2}"), 2, "fields[0].beside.len", "fields[0].beside.length", id="a key inside that there is not"),
    pytest.param(ONE.format(more=", beside: 412"), 2, "fields[0].beside", "element", id="beside a number"),
    pytest.param("fields:\n  - {protocol: v9, element: 1, extra: ''}\n", 2, "fields[0].extra", "", id="extra without a name"),
    pytest.param("fields:\n  - 7\n", 2, "fields[0]", "protocol", id="a field that is a number"),
    pytest.param("fields: 7\n", 1, "fields", "a list", id="no list of fields"),
    pytest.param("\nfeilds: []\n", 2, "feilds", "fields", id="a section that there is not"),
    pytest.param("sgt_names: {65536: Too large}\n", 1, "sgt_names.65536", "from 0 to 65535", id="a tag beyond all"),
    pytest.param("sgt_names:\n  1: One\n  two: Two\n", 3, "sgt_names.two", "from 0 to 65535", id="a tag that is text"),
    pytest.param("sgt_names:\n  1: One\n  2: 2\n", 3, "sgt_names.2", "a text", id="a name that is a number"),
    pytest.param("sgt_names:\n  1: One\n  1: Two\n", 3, "sgt_names.1", "line 2", id="a tag twice"),
    pytest.param("profiles: [cisco-sgt, cisco]\n", 1, "profiles[1]", "cisco-avc, cisco-nsel, cisco-sgt, palo-alto, sgt-411-412", id="no such profile"),
    pytest.param("profiles: cisco-sgt\n", 1, "profiles", "a list", id="no list of profiles"),
    pytest.param("fields: [\n", 2, "", "not valid YAML", id="no YAML"),
    pytest.param("fields: *all\n", 1, "", "not valid YAML", id="what YAML does not know"),
    pytest.param("- 7\n", 1, "", "sections", id="a list"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "allowed"), WRONG)
def test_a_file_that_is_wrong_is_told_where_and_what_is_allowed(
    file: Path, text: str, line: int, key: str, allowed: str
) -> None:
    """The file, the line, the key, and what may stand there."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_mapping(file)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{file}:{line}: {key}" if key else f"{file}:{line}")
    assert allowed in said


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    """A line for each fault, in the order of the file."""
    file.write_text(
        "fields:\n  - {protocol: v9, element: 0, column: bytes}\n  - {protocol: v8, element: 1, column: bytes}\n"
        "sgt_names: {70000: x}\nprofiles: [none]\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_mapping(file)
    lines = [line.removeprefix(f"{file}:").split(":")[0] for line in str(caught.value).splitlines()]
    assert lines == ["2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "there is no such", id="not there"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="no text"),
        pytest.param(b"- 1\n", "sections", id="a list"),
    ],
)
def test_a_file_of_names_that_is_wrong_is_named_with_the_file_that_names_it(
    file: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    """Somebody who edits one of them has to find the other."""
    names = tmp_path / "names.yaml"
    if content is not None:
        names.write_bytes(content)
    file.write_text(f"sgt_names_file: {names}\n")
    with pytest.raises(ConfigError) as caught:
        load_mapping(file)
    assert str(caught.value).startswith(str(names))
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_name_that_is_wrong_is_told_by_its_line(file: Path, tmp_path: Path) -> None:
    """The file of names has lines of its own."""
    names = tmp_path / "names.yaml"
    names.write_text("1: One\n99999: x\n")
    file.write_text(f"sgt_names_file: {names}\n")
    with pytest.raises(ConfigError, match="99999") as caught:
        load_mapping(file)
    assert str(caught.value).startswith(f"{names}:2: ")
    assert "from 0 to 65535" in str(caught.value)


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_a_mapping_file_has_to_be_there(tmp_path: Path, path: str) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_mapping(tmp_path / path)


# --- the command


def test_decode_takes_a_mapping(file: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """What a file says is seen by `decode --mapping` before it goes to a service."""
    capture = tmp_path / "flow.dat"
    capture.write_bytes(flows(IPFIX, [field(7, 2, enterprise=32473), field(8, 4)], number(10, 2) + ipv4("192.0.2.1")))
    file.write_text(
        "fields: [{protocol: ipfix, enterprise: 32473, element: 7, column: src_sgt},"
        " {protocol: ipfix, enterprise: 32473, element: 7, extra: tag, as: hex}]\nsgt_names: {10: Employees}\n"
    )
    assert main(["decode", "--format", "json", "--mapping", str(file), str(capture)]) == 0
    row = orjson.loads(capsysbinary.readouterr().out)
    assert (row["src_sgt"], row["src_sgt_name"], row["extra"]) == (10, "Employees", {"tag": "000a"})


def test_decode_refuses_a_mapping_that_is_wrong(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, the message on standard error, and no record."""
    capture = tmp_path / "flow.dat"
    capture.write_bytes(flows(V9, [field(8, 4)], ipv4("192.0.2.1")))
    file.write_text("fields: [{protocol: v9, element: 1, column: byte}]")
    assert main(["decode", "--format", "json", "--mapping", str(file), str(capture)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{file}:1: fields[0].column" in err


# --- what the documentation shows

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("text", [*blocks("mapping.md", "yaml"), *blocks("sgt.md", "yaml")])
def test_each_example_of_the_documentation_is_a_mapping_file(file: Path, tmp_path: Path, text: str) -> None:
    """What somebody copies from a page is accepted."""
    names = tmp_path / "names.yaml"
    names.write_text("10: Employees\n")
    file.write_text(text.replace("/etc/sluiceway/sgt-names.yaml", str(names)))
    assert load_mapping(file).fields


def test_the_documentation_names_every_column_and_every_key() -> None:
    """docs/mapping.md lists the columns that can be named, the keys of a field, the kinds, and the profiles."""
    page = (DOCS / "mapping.md").read_text(encoding="utf-8")
    listed = re.search(r"These columns can be named:\n\n(.*?)\.\n", page, re.DOTALL)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == list(MAPPABLE)
    assert re.findall(r"^\| \[([\w-]+)\]\(.*?\) \| (yes|no) \|", page, re.MULTILINE) == [
        (name, "yes" if name in DEFAULT_PROFILES else "no") for name in (*DEFAULT_PROFILES, "sgt-411-412")
    ]
    keys = [one.alias or name for name, one in FieldConfig.model_fields.items()]
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(keys)
    assert all(f"`{kind.value}`" in page for kind in As)
