"""tshark decodes the same sFlow, and the same packets: field by field it says what we say, with stated exceptions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import xxhash

from ingest.captures import Captures
from ingest.decoders.origin import record_ids
from ingest.pipeline import Pipeline
from shared.text import json_rows
from tests import frames
from tests import sflow_builders as make
from tests.builders import mapped
from tests.ingest import tshark
from tests.ingest.decoders.known_flow_records import RECORDS
from tests.ingest.decoders.known_packets import PACKETS
from tests.ingest.tshark_sflow import (
    ALSO_OURS,
    ALSO_THEIRS,
    COLUMNS,
    Layer,
    Sample,
    agent,
    layers_of,
    packet_columns,
    samples,
)
from tests.sflow_builders import (
    datagram,
    discarded,
    ethernet,
    expanded_flow_sample,
    flow_sample,
    ipv4_packet,
    multiple,
    sampled_header,
    switch,
    vlan,
)

pytestmark = pytest.mark.peers

CAPTURES: Final = (
    "tcpdump-sflow-print-v6",
    "tcpdump-sflow_expanded",
    "tcpdump-sflow_multiple_counter_30_pdus",
    "tcpdump-sflow_print-segv",
)
TUNNELS: Final = ("gre", "ipip", "vxlan", "geneve")
SEEN_WITH: Final = "4.0"
"""The version of tshark that the departures were seen with; another may have mended what is its own."""

ALONE: Final = ("-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE")
"""A fragment is read by itself."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Departure:
    """Where both may differ: in what is named so, in these columns, because of this."""

    name: str
    columns: Collection[str]
    reason: str


HEADER: Final = ("src_addr", "dst_addr", "proto", "ip_tos", "ip_ttl", "fragment_id", "fragment_offset")
ENDS: Final = ("etype", "src_addr", "dst_addr", "proto", "src_port", "dst_port")
PORTS: Final = ("src_port", "dst_port")

IN_SAMPLES: Final = (
    Departure(
        "3 IPv4", ("ip_tos", "tcp_flags"), "tshark reads both from the first byte of a word whose last one they are in"
    ),
    Departure("4 IPv6", ("tcp_flags",), "tshark reads the flags of record 4 from the first byte of their word"),
    Departure("1004 user, UTF-8", ("user_name",), "tshark takes names for ASCII"),
    Departure("1020 .*", ("nat_src_port", "nat_dst_port"), "tshark does not know record 1020"),
    Departure("10(29|30) .*", ("vni",), "tshark does not know records 1029 and 1030"),
    Departure("210[0-3] .*", ENDS, "tshark does not know records 2100 to 2103"),
    Departure("a reason of 32 bits", ("drop_reason",), "it does not fit the column, and no reason is that large"),
    Departure("packet over SONET", (*HEADER, *ENDS, "tcp_flags"), "tshark does not look into sampled headers of SONET"),
    Departure("(VXLAN|Geneve) .*|VXLAN", ("vni", "src_sgt"), "tshark goes no further than UDP in a sampled header"),
)
"""What is not as tshark has it, and why: in samples, beside what is so in packets."""

IN_PACKETS: Final = (
    Departure("IPv4 with a header too short", HEADER, "tshark does not read it; what stands at fixed places is there"),
    Departure("IPv6, extension 1(35|39)", PORTS, "tshark does not look for what is behind mobility and HIP headers"),
)
"""The same in packets, sampled or not."""


@dataclass(slots=True)
class Compared:
    """What both said of samples, by the identity of the record; and what each datagram is called."""

    theirs: Mapping[str, Sample]
    ours: Mapping[str, Row]
    names: Sequence[str] = ()
    needed: set[str] = field(default_factory=set)
    """Departures that were met."""


def departs(departures: Sequence[Departure], name: str, column: str, needed: set[str]) -> bool:
    """Tell whether a difference is stated."""
    for departure in departures:
        if re.fullmatch(departure.name, name) and column in departure.columns:
            needed.add(departure.reason)
            return True
    return False


def ours(capture: Path, decapsulate: Collection[str] = ()) -> list[Row]:
    """The records that we find in a capture, as the command shows them."""
    pipeline = Pipeline(decapsulate=decapsulate)
    return [
        row
        for batch in Captures([capture]).batches()
        for each in pipeline.decode(batch).batches
        for row in json_rows(each)
        if row["type"] == "SFLOW_5"
    ]


def compare(capture: Path, names: Sequence[str] = ()) -> Compared:
    """Ask both."""
    if why := tshark.why_no_tshark():
        pytest.skip(why)
    theirs = {}
    for sample in samples(capture, *ALONE):
        identity = np.array([xxhash.xxh3_64_intdigest(mapped(agent(sample)) + sample.payload)], np.uint64)
        theirs[f"{int(record_ids(identity, np.array([sample.position]), 0)[0]):016x}"] = sample
    return Compared(theirs, {row["record_id"]: row for row in ours(capture)}, names)


def differences(compared: Compared) -> Iterator[str]:
    """Say what differs, one line each, but for what is stated."""
    for identity in compared.theirs.keys() | compared.ours.keys():
        sample, row = compared.theirs.get(identity), compared.ours.get(identity)
        if sample is None or row is None:
            yield f"{sample or row} is {'ours' if sample is None else 'theirs'} alone"
            continue
        name = compared.names[sample.packet] if compared.names else ""
        for column in (COLUMNS.keys() | row.keys()) - ALSO_OURS.keys():
            theirs = COLUMNS[column](sample) if column in COLUMNS else None
            if theirs != row.get(column) and not departs((*IN_SAMPLES, *IN_PACKETS), name, column, compared.needed):
                place = f"{name}, packet {sample.packet} at {sample.position}"
                yield f"{place}: {column} is {row.get(column)!r}, and {theirs!r} by tshark"


def unknown_names(compared: Compared) -> set[str]:
    """What tshark shows that stands for no column, and for no stated reason."""
    asked = _Asked()
    for rule in COLUMNS.values():
        rule(asked)  # type: ignore[arg-type]  # notes which names it is asked for
    shown = {
        name
        for sample in compared.theirs.values()
        for layer in (sample.datagram, sample.sample, *sample.records.values())
        for name in layer.fields
    }
    return {name for name in shown - asked.names if not any(re.fullmatch(each, name) for each in ALSO_THEIRS)}


class _Asked(dict[int, Layer]):
    """Stands for a sample and for all that it has, has nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.source = ""
        self.layers = ()
        self.datagram = self.sample = self
        self.records = self

    def get(self, kind: object, default: object = None) -> Any:  # noqa: ANN401  # it stands for any layer
        """Every record is there."""
        return self

    def __contains__(self, kind: object) -> bool:
        return False

    def text(self, *names: str) -> None:
        """No field is there."""
        self.names.update(names)

    def number(self, *names: str) -> None:
        """Nor as a number."""
        self.names.update(names)

    def all(self, name: str) -> tuple[()]:
        """Nor more than once."""
        self.names.add(name)
        return ()


# --- captures


@pytest.mark.parametrize("name", CAPTURES)
def test_every_field_of_every_sample_agrees(captures: Path, name: str) -> None:
    """Both see the same samples at the same places, and each column has the value that tshark shows."""
    compared = compare(captures / "sflow5" / f"{name}.pcap")
    assert list(differences(compared)) == []
    assert unknown_names(compared) == set()
    assert compared.needed == set()


def test_captures_have_samples(captures: Path) -> None:
    """The comparison is of something: real agents' samples, of both forms."""
    rows = [row for name in CAPTURES for row in ours(captures / "sflow5" / f"{name}.pcap")]
    assert len(rows) >= 14
    assert len({row["sampler_address"] for row in rows}) >= 2
    assert any("as_path" in row for row in rows)


# --- what we made

BOTH: Final = (flow_sample, expanded_flow_sample)
MADE: Final[tuple[tuple[str, bytes], ...]] = (
    *((known.name, build(known.record)) for known in RECORDS for build in BOTH),
    *(
        (sampled.name, build(sampled_header(sampled.packet, protocol=sampled.protocol, frame_length=1518)))
        for sampled in PACKETS
        for build in BOTH
        if sampled.packet
    ),
    *((f"rate {rate}", build(rate=rate)) for rate in (0, 1, 2**32 - 1) for build in BOTH),
    *((f"ifIndex {at}", flow_sample(input_if=at, output_if=at)) for at in (0, 9, 0x3FFFFFFF)),
    *((f"expanded ifIndex {at}", expanded_flow_sample(input_if=(0, at), output_if=(0, at))) for at in (0, 9, 2**32 - 1)),
    *((f"reason {at}", flow_sample(output_if=discarded(at))) for at in (0, 2, 258)),
    *((f"expanded reason {at}", expanded_flow_sample(output_if=(1, at))) for at in (0, 2, 258)),
    *((f"several {at}", flow_sample(output_if=multiple(at))) for at in (0, 2)),
    ("a reason of 32 bits", expanded_flow_sample(output_if=(1, 2**32 - 1))),
    ("a switch's VLAN beside a tag", flow_sample(sampled_header(ethernet(vlan(5, ipv4_packet()))), switch(6, 7))),
)  # fmt: skip
"""Samples of every record and every packet that there is a test for, and of every form of interface."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """What tshark and we make of a capture of them, a datagram each."""
    payloads = [
        datagram(sample, agent=("203.0.113.7", "2001:db8::7", frames.CLIENT)[at % 3], sub_agent=at % 5, sequence=at)
        for at, (_, sample) in enumerate(MADE)
    ]
    capture = tmp_path_factory.mktemp("sflow") / "made.pcap"
    capture.write_bytes(
        frames.pcap([frames.ethernet(frames.ipv4(frames.udp(each, to_port=6343))) for each in payloads])
    )
    return compare(capture, [name for name, _ in MADE])


def test_samples_that_we_made_agree(made: Compared) -> None:
    """Each record that tshark knows, and each packet in a sampled header, has the values that it shows."""
    assert list(differences(made)) == []


def test_every_name_of_tsharks_is_known(made: Compared) -> None:
    """Each field that tshark shows of a sample stands for a column, or stands for none for a stated reason."""
    assert unknown_names(made) == set()


def test_stated_departures_are_real(made: Compared) -> None:
    """What is stated as different is different: nothing that has been mended stays on the list."""
    if tshark.version() != SEEN_WITH:
        pytest.skip(f"the list was made with tshark {SEEN_WITH}; this is {tshark.version()}")
    list(differences(made))
    assert {departure.reason for departure in (*IN_SAMPLES, *IN_PACKETS)} - made.needed == set()


# --- packets

LINKS: Final = ((make.ETHERNET, frames.ETHERNET), (make.PPP, 9), (make.IPV4, frames.RAW), (make.IPV6, frames.RAW))
"""What a sampled header may begin with, and libpcap's number for a capture of such packets."""


@pytest.mark.parametrize("inner", [False, True], ids=["the outer packet", "the inner packet"])
@pytest.mark.parametrize(("protocol", "link"), LINKS, ids=["Ethernet", "PPP", "IPv4", "IPv6"])
def test_packets_agree(protocol: int, link: int, inner: bool, tmp_path: Path) -> None:
    """Packets in sampled headers tell what tshark says of the packets themselves; of tunnels either header."""
    if why := tshark.why_no_tshark():
        pytest.skip(why)
    sampled = [each for each in PACKETS if each.protocol == protocol and each.packet]
    (tmp_path / "packets.pcap").write_bytes(frames.pcap([each.packet for each in sampled], link_type=link))
    theirs = [
        packet_columns(layers_of(packet), inner=inner) for packet in tshark.packets(tmp_path / "packets.pcap", *ALONE)
    ]
    payloads = [
        datagram(flow_sample(sampled_header(each.packet, protocol=protocol), input_if=0, output_if=0), sequence=at)
        for at, each in enumerate(sampled)
    ]
    capture = tmp_path / "sampled.pcap"
    capture.write_bytes(frames.pcap([frames.ethernet(frames.ipv4(frames.udp(each))) for each in payloads]))
    found = {row["sequence_num"]: row for row in ours(capture, TUNNELS if inner else ())}
    about = {"bytes", "sampling_rate", "sampler_address", "source_address", "observation_domain_id", "sequence_num"}
    for at, (each, their) in enumerate(zip(sampled, theirs, strict=True)):
        row = {name: value for name, value in found[at].items() if name not in about | ALSO_OURS.keys()}
        for column in row.keys() | their.keys():
            if row.get(column) != their.get(column) and not departs(IN_PACKETS, each.name, column, set()):
                pytest.fail(f"{each.name}: {column} is {row.get(column)!r}, and {their.get(column)!r} by tshark")
