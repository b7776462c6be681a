"""What tshark makes of sFlow and of packets: its XML as samples and layers, and their values as columns.

Values are as `decode --format json` has them. Names are tshark's.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.ingest import tshark
from tests.ingest.tshark import Field

Value = int | str | list[int] | None
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Layer:
    """A header of a packet, or a structure of sFlow: its name and its fields, in their order."""

    name: str
    fields: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)

    def all(self, name: str) -> tuple[Field, ...]:
        """All fields of a name."""
        return self.fields.get(name, ())

    def text(self, *names: str) -> str | None:
        """The first of these names that is there, as tshark shows it."""
        return next((self.fields[name][0].show for name in names if name in self.fields), None)

    def number(self, *names: str) -> int | None:
        """The same as a number, shown in decimal or in hex."""
        shown = self.text(*names)
        return None if shown is None else int(shown, 0)

    @classmethod
    def of(cls, element: ET.Element, name: str = "") -> Layer:
        """The fields below an element, those of layers inside it left out."""
        found: dict[str, list[Field]] = {}
        for each in _below(element):
            raw = each.get("unmaskedvalue") or each.get("value") or ""
            shown = Field(each.get("show", ""), raw, reverse=False, title=each.get("showname", ""))
            found.setdefault(each.get("name", ""), []).append(shown)
        return cls(element.get("name", "") or name, {key: tuple(values) for key, values in found.items()})


def _below(element: ET.Element) -> Iterator[ET.Element]:
    for each in element.findall("field"):
        yield each
        yield from _below(each)


def layers_of(element: ET.Element) -> list[Layer]:
    """The layers of a packet, those that a layer holds behind it; what is not of the network is left out."""
    found = [Layer.of(each) for each in element.iter("proto")]
    return [layer for layer in found if layer.name not in {"geninfo", "frame", "fake-field-wrapper"}]


# --- packets

EXTENSIONS: Final = MappingProxyType(
    {
        "ipv6.hopopts": "ipv6.hopopts.nxt",
        "ipv6.routing": "ipv6.routing.nxt",
        "ipv6.dstopts": "ipv6.dstopts.nxt",
        "ipv6.fraghdr": "ipv6.fraghdr.nxt",
        "ah": "ah.next_header",
        "mipv6": "mip6.proto",
        "hip": "hip.proto",
        "shim6": "shim6.nxt",
    }
)
"""Extension headers of IPv6, and what each says of the one behind it."""
EXTENSION_NUMBERS: Final = frozenset({0, 43, 44, 51, 60, 135, 139, 140})
VLANS: Final = ("vlan", "ieee8021ad")
TYPES: Final = ("eth.type", "vlan.etype", "ieee8021ah.etype", "cmd.type", "llc.type")
LOOKED_THROUGH: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x8909, 0x8847, 0x8848, 0x8864})
PORTS: Final = MappingProxyType({"tcp": "tcp", "udp": "udp", "udplite": "udp", "sctp": "sctp", "dccp": "dccp"})
"""Layers that begin with ports, and the beginning of their fields' names."""


def packet_columns(layers: Sequence[Layer], *, inner: bool = False) -> Row:
    """The columns that a packet fills: of tunnels by the outermost IP header, or by the innermost."""
    heads = [at for at, layer in enumerate(layers) if layer.name == "arp" or layer.text("ip.src", "ipv6.src")]
    at = heads[-1 if inner else 0] if heads else len(layers)
    row = _link(layers[:at], inner=inner and len(heads) > 1)
    row |= _tags(layers[:at] if inner else layers[: at + 1 + _tunnel(layers[at + 1 :])])
    if heads and layers[at].name != "arp":
        row |= _ipv4(layers[at:]) if layers[at].name == "ip" else _ipv6(layers[at:])
    return {name: value for name, value in row.items() if value is not None}


def _tunnel(behind: Sequence[Layer]) -> int:
    """How many of these layers are the header of a tunnel, which tells of the packet around it."""
    names = [layer.name for layer in behind[:3]]
    return next(
        (len(known) for known in (["udp", "vxlan"], ["udp", "geneve"], ["gre", "cmd"]) if names[: len(known)] == known),
        0,
    )


def _link(before: Sequence[Layer], *, inner: bool) -> Row:
    frames = [at for at, layer in enumerate(before) if layer.name == "eth" and layer.text("eth.src")]
    row: Row = {}
    if frames:
        row["src_mac"], row["dst_mac"] = before[frames[-1]].text("eth.src"), before[frames[-1]].text("eth.dst")
    # A frame in a tunnel has tags of its own; one over a pseudowire has those around it too.
    own = before[frames[-1] :] if inner and frames else before
    vlans = [layer.number("vlan.id", "ieee8021ad.id") for layer in own if layer.name in VLANS]
    row |= dict(zip(("src_vlan", "inner_vlan"), vlans, strict=False))
    labels = [label for layer in before if (label := layer.number("mpls.label")) is not None]
    if labels:
        row["mpls_labels"] = labels
    types = [number for layer in before for name in TYPES if (number := layer.number(name)) is not None]
    if types and types[-1] >= 0x600 and types[-1] not in LOOKED_THROUGH:
        row["etype"] = types[-1]
    return row


def _tags(layers: Sequence[Layer]) -> Row:
    row: Row = {}
    for layer in layers:
        if layer.name == "cmd":
            row["src_sgt"] = layer.number("cmd.sgt")
        elif layer.name == "geneve":
            row["vni"] = layer.number("geneve.vni")
        elif layer.name == "vxlan":
            flags = layer.number("vxlan.flags") or 0
            row |= {"vni": layer.number("vxlan.vni")} if flags & 0x0800 else {}
            row |= {"src_sgt": layer.number("vxlan.gbp")} if flags & 0x8000 else {}
    return row


def _ipv4(layers: Sequence[Layer]) -> Row:
    ip = layers[0]
    row: Row = {
        "etype": 0x0800,
        "src_addr": ip.text("ip.src"),
        "dst_addr": ip.text("ip.dst"),
        "proto": ip.number("ip.proto"),
        "ip_tos": ip.number("ip.dsfield"),
        "ip_ttl": ip.number("ip.ttl"),
        "fragment_id": ip.number("ip.id"),
        "fragment_offset": ip.number("ip.frag_offset"),
    }
    return row | (_transport(layers[1]) if len(layers) > 1 else {})


def _ipv6(layers: Sequence[Layer]) -> Row:
    ip = layers[0]
    row: Row = {
        "etype": 0x86DD,
        "src_addr": ip.text("ipv6.src"),
        "dst_addr": ip.text("ipv6.dst"),
        "ip_tos": ip.number("ipv6.tclass"),
        "ip_ttl": ip.number("ipv6.hlim"),
        "ipv6_flow_label": ip.number("ipv6.flow"),
    }
    following = ip.number("ipv6.nxt")
    at = 1
    while at < len(layers) and layers[at].name in EXTENSIONS:
        extension = layers[at]
        following = extension.number(EXTENSIONS[extension.name])
        if extension.name == "ipv6.fraghdr":
            row["fragment_id"] = extension.number("ipv6.fraghdr.ident")
            row["fragment_offset"] = extension.number("ipv6.fraghdr.offset")
        at += 1
    row["proto"] = None if following in EXTENSION_NUMBERS else following
    return row | (_transport(layers[at]) if at < len(layers) else {})


def _transport(layer: Layer) -> Row:
    if layer.name in PORTS:
        prefix = PORTS[layer.name]
        row: Row = {"src_port": layer.number(f"{prefix}.srcport"), "dst_port": layer.number(f"{prefix}.dstport")}
        return row | ({"tcp_flags": layer.number("tcp.flags")} if layer.name == "tcp" else {})
    if layer.name in {"icmp", "icmpv6"}:
        return {"icmp_type": layer.number(f"{layer.name}.type"), "icmp_code": layer.number(f"{layer.name}.code")}
    return {}


# --- samples


@dataclass(frozen=True, slots=True)
class Sample:
    """A flow sample: in which packet, where its body begins in the datagram, and what tshark shows of it."""

    packet: int
    position: int
    payload: bytes
    source: str
    datagram: Layer
    sample: Layer
    records: Mapping[int, Layer] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    """Of the sampled header."""


def samples(capture: Path, *options: str) -> Iterator[Sample]:
    """Give the flow samples that tshark finds in a capture, in their order."""
    for number, packet in enumerate(tshark.packets(capture, *options)):
        for protocol in packet.findall("proto[@name='sflow']"):
            begin = int(protocol.get("pos", "0"))
            shown = Layer.of(packet.findall("proto[@name='udp']")[0]).all("udp.payload")[0]
            outer = layers_of(packet)[1]
            source = outer.text("ip.src", "ipv6.src") or ""
            own = [each for each in protocol.findall("field") if each.get("name")]
            datagram = _of_parts("sflow", own)
            for element in protocol.findall("field"):
                if element.find("field[@name='sflow.flow_sample.flow_record']") is not None:
                    place = int(element.get("pos", "0")) - begin + 8
                    yield _sample(element, number, place, bytes.fromhex(shown.raw), source, datagram)


def _sample(element: ET.Element, packet: int, position: int, payload: bytes, source: str, datagram: Layer) -> Sample:
    parts = element.findall("field")
    of_records = [each for each in parts if each.find("field[@name='sflow_245.flow_record_format']") is not None]
    sample = _of_parts("sample", [each for each in parts if each not in of_records])
    records, layers = {}, []
    for each in of_records:
        record = Layer.of(each, "record")
        records[record.number("sflow_245.flow_record_format") or 0] = record
        layers += layers_of(each)
    return Sample(packet, position, payload, source, datagram, sample, records, layers)


def _of_parts(name: str, parts: Sequence[ET.Element]) -> Layer:
    whole = ET.Element("field", {"name": name})
    whole.extend(parts)
    return Layer.of(whole)


NONE: Final = Layer("nothing")
Rule = Callable[[Sample], Value]


def of(kind: int, *names: str) -> Rule:
    """A number of a record."""
    return lambda sample: sample.records.get(kind, NONE).number(*names)


def shown(kind: int, *names: str) -> Rule:
    """What a record shows."""
    return lambda sample: sample.records.get(kind, NONE).text(*names) or None


def known(rule: Rule, most: int) -> Rule:
    """A number, unless it is larger than any that is known."""

    def kept(sample: Sample) -> Value:
        value = rule(sample)
        return value if isinstance(value, int) and value <= most else None

    return kept


def first(*rules: Rule) -> Rule:
    """The first that tells anything."""
    return lambda sample: next((value for rule in rules if (value := rule(sample)) is not None), None)


def packet(column: str) -> Rule:
    """What the sampled header tells."""
    return lambda sample: packet_columns(sample.layers).get(column)


def agent(sample: Sample) -> str:
    """The agent, or who sent the datagram where it is not told."""
    return sample.datagram.text("sflow_245.agent", "sflow_245.agent.v6") or sample.source


def interface(side: str) -> Rule:
    """An ifIndex: 0 is not known, all ones are the device itself, and other forms tell something else."""
    prefix = f"sflow.flow_sample.{side}_interface"

    def rule(sample: Sample) -> Value:
        form = sample.sample.number(f"{prefix}_format", f"{prefix}.format") or 0
        value = sample.sample.number(f"{prefix}_value", prefix) or 0
        return None if form or not value else 0x3FFFFFFF if value == 0xFFFFFFFF else value

    return rule


def output(form: int) -> Rule:
    """The value of the output's other forms."""

    def rule(sample: Sample) -> Value:
        prefix = "sflow.flow_sample.output_interface"
        if sample.sample.number(f"{prefix}_format", f"{prefix}.format") != form:
            return None
        return sample.sample.number(f"{prefix}_value")

    return rule


def path(sample: Sample) -> list[int]:
    """The AS path; tshark has one name for its numbers and for the communities, which come after it."""
    counted, entries = _gateway(sample)
    return entries[: len(entries) - counted]


def _gateway(sample: Sample) -> tuple[int, list[int]]:
    record = sample.records.get(1003, NONE)
    return record.number("sflow_245.communityEntries") or 0, [int(each.show) for each in record.all("sflow_245.dstAS")]


def communities(sample: Sample) -> Value:
    """The last of those numbers."""
    counted, entries = _gateway(sample)
    return entries[len(entries) - counted :] or None


def stack(sample: Sample) -> Value:
    """The labels of record 1006, of which tshark shows whole words."""
    words = sample.records.get(1006, NONE).all("sflow_245.extended_mpls.in_label")
    return [int(each.show) >> 12 for each in words] or None


def tag(at: int) -> Rule:
    """A VLAN by its place in the stack: record 1012 tells of tags that were taken off, the packet of those it has."""

    def rule(sample: Sample) -> Value:
        taken = sample.records.get(1012, NONE).all("sflow_5.extended_vlan_tunnel.tpid_tci_pair")
        vlans = [int(each.show, 0) & 0xFFF for each in taken]
        left = [packet(column)(sample) for column in ("src_vlan", "inner_vlan")]
        return next(iter([*vlans, *left][at:]), None)

    return rule


def etype(sample: Sample) -> Value:
    """The EtherType of the packet, else that of the record it is told by."""
    told = packet("etype")(sample)
    if 3 in sample.records or 4 in sample.records:
        told = 0x0800 if 3 in sample.records else 0x86DD
    return told if told is not None else of(2, "sflow_245.ethernet.packet_type")(sample)


COLUMNS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "sampler_address": agent,
        "source_address": lambda sample: sample.source if sample.source != agent(sample) else None,
        "observation_domain_id": lambda sample: sample.datagram.number("sflow_245.sub_agent_id"),
        "sequence_num": lambda sample: sample.datagram.number("sflow_245.sequence_number"),
        "sampling_rate": lambda sample: sample.sample.number("sflow.flow_sample.sampling_rate") or None,
        "in_if": interface("input"),
        "out_if": interface("output"),
        "drop_reason": output(1),
        "bytes": first(
            of(1, "sflow_245.header.frame_length"),
            of(2, "sflow_245.ethernet.length"),
            *(of(kind, "sflow_245.ip.length") for kind in (3, 4)),
        ),
        "src_mac": first(shown(2, "sflow_245.ethernet.source_mac_address"), packet("src_mac")),
        "dst_mac": first(shown(2, "sflow_245.ethernet.destination_mac_address"), packet("dst_mac")),
        "etype": etype,
        "src_addr": first(shown(3, "sflow_245.ipv4_src"), shown(4, "sflow_245.ipv6_src"), packet("src_addr")),
        "dst_addr": first(shown(3, "sflow_245.ipv4_dst"), shown(4, "sflow_245.ipv6_dst"), packet("dst_addr")),
        "proto": first(*(of(kind, "sflow.ip_protocol") for kind in (3, 4)), packet("proto")),
        "src_port": first(*(of(kind, "sflow_245.ip.source_port") for kind in (3, 4)), packet("src_port")),
        "dst_port": first(*(of(kind, "sflow.ip.destination_port") for kind in (3, 4)), packet("dst_port")),
        "ip_tos": first(of(4, "sflow_245.ipv6_priority"), packet("ip_tos")),
        "src_vlan": first(known(of(1001, "sflow_245.vlan.in"), 0xFFFF), tag(0)),
        "inner_vlan": tag(1),
        "dst_vlan": known(of(1001, "sflow_245.vlan.out"), 0xFFFF),
        "next_hop": first(
            *(shown(kind, "sflow_245.nexthop", "sflow_245.nexthop.v6") for kind in (1006, 1002)),
        ),
        "src_net_len": known(of(1002, "sflow_245.nexthop.src_mask"), 128),
        "dst_net_len": known(of(1002, "sflow_245.nexthop.dst_mask"), 128),
        "bgp_next_hop": shown(1003, "sflow_245.nexthop", "sflow_245.nexthop.v6"),
        "src_as": of(1003, "sflow_245.srcAS"),
        "next_hop_as": lambda sample: next(iter(path(sample)), None),
        "dst_as": lambda sample: next(reversed(path(sample)), None),
        "as_path": lambda sample: path(sample) or None,
        "bgp_communities": communities,
        "user_name": shown(1004, "sflow_5.extended_user.source_user"),
        "mpls_labels": first(packet("mpls_labels"), stack),
        "nat_src_addr": shown(1007, "sflow_245.ipv4_src", "sflow_245.ipv6_src"),
        "nat_dst_addr": shown(1007, "sflow_245.ipv4_dst", "sflow_245.ipv6_dst"),
        **{
            column: packet(column)
            for column in (
                "tcp_flags",
                "ip_ttl",
                "icmp_type",
                "icmp_code",
                "fragment_id",
                "fragment_offset",
                "ipv6_flow_label",
                "src_sgt",
                "vni",
            )
        },
    }
)
"""From a sample of tshark's to the value of a column; None where the sample does not tell."""

ALSO_OURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "type": "it is all sFlow",
        "record_id": "finds the sample, so it is compared by that",
        "time_received": "the packet's, not the protocol's",
        "time_flow_start": "the same",
        "time_flow_end": "the same",
        "packets": "a sample is one packet",
        "flows": "of one flow",
        "forwarding_status": "RFC 7270's word for sFlow's, which tshark shows as it was sent",
    }
)
"""Columns that are not compared, and why."""

ALSO_THEIRS: Final[Mapping[str, str]] = MappingProxyType(
    {
        r"": "headings",
        r"_ws\..*": "what tshark thinks of a value",
        r"data(\..*)?|pweth\.cw": "what a packet carries",
        r"sflow(_245|_5)?\.(enterprise|sampletype|sample_length|flow_data_length|flow_record_format|header|version)": "framing",
        r"sflow_5\.extended_vlan_tunnel\.number_of_layers": "count of a list",
        r"sflow\.flow_sample\.flow_record|sflow\.enterprise\.(length|data)": "framing",
        r"sflow_245\.(numsamples|agenttype|sysuptime)": "of the datagram; no column",
        r"sflow\.flow_sample\.(sequence_number|source_id_.*|index|sample_pool|dropped_packets)": "of the sample; no column",
        r"sflow\.flow_sample\.output_interface": "a whole word whose parts are compared",
        r"sflow_245\.header_protocol|sflow_245\.header\.(payload_stripped|sampled_header_length)": "how to read the header",
        r"sflow_245\.pri\.(in|out)|sflow_245\.(as|peerAS|localpref)": "no column",
        r"sflow_245\.dstASentries|sflow\.as_type|sflow_245\.extended_mpls\.(in|out)_label_stack_entries": "counts of lists",
        r"sflow_245\.extended_mpls\.out_label|sflow_5\.extended_user\.destination_.*": "of the other side; no column",
        r"sflow_5\.extended_user\.source_(character_set|user_string_length)": "how to read the name",
        r"sflow_245\.ip\.tcp_flag\..*|sflow_245\.ipv4_(precedence_type|delay|throughput|reliability|cost)": "tshark reads them"
        " from the first byte of a word whose last one they are in: it shows zeros",
    }
)
"""Names of tshark's, as regular expressions, that stand for no column, and why."""
