"""tshark's names and ours: the data of test_tshark_agrees.py.

A column's entry says how what tshark shows of a record becomes the value that `decode --format json` has to have. The
fields of an entry stand in the order in which they count; their names are tshark's, without `cflow.`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from tests.ingest.tshark import Field, Record

Value = int | str | None
Convert = Callable[[Field], Value]
Rule = Callable[[Record], Value]

# --- what tshark shows → our values


def number(field: Field) -> int:
    """A number, shown in decimal or in hex."""
    return int(field.show, 0)


def octets_of_text(field: Field) -> str | None:
    """A text of which tshark shows the bytes."""
    return bytes.fromhex(field.raw).rstrip(b"\0").decode() or None


def text(field: Field) -> str | None:
    """A text; what fills its field up is no part of it, and an empty one says nothing."""
    return field.show.rstrip("\0") or None


def octet(field: Field) -> int:
    """A whole byte of which tshark shows the parts."""
    return int(field.raw, 16)


def high(field: Field) -> int:
    """The upper of two bytes."""
    return number(field) >> 8


def low(field: Field) -> int:
    """The lower of two bytes."""
    return number(field) & 0xFF


def segment(field: Field) -> int:
    """An identifier of 24 bits behind a byte that tells its kind."""
    return number(field) & 0xFFFFFF


def time_ns(field: Field) -> int:
    """A time such as `Oct  8, 2015 19:04:30.000000000 UTC`, in nanoseconds since 1970."""
    match = re.fullmatch(r"(\w+ +\d+, \d+ [\d:]+)\.(\d{9}) UTC", field.show)
    assert match is not None, field
    whole = datetime.strptime(match[1] + " +0000", "%b %d, %Y %H:%M:%S %z")
    return int(whole.timestamp()) * 10**9 + int(match[2])


def span_ms(field: Field) -> int:
    """A span such as `45.076000000`, in milliseconds."""
    seconds, _, nanoseconds = field.show.partition(".")
    return int(seconds) * 1000 + int(nanoseconds) // 10**6


# --- rules


def first(convert: Convert, *names: str) -> Rule:
    """The first field that is there."""
    return lambda record: next((convert(record.last(name)) for name in names if record.has(name)), None)


def first_not_zero(convert: Convert, *names: str, zero: Value = 0) -> Rule:
    """The first field that is there and is not zero; zero where all are."""

    def rule(record: Record) -> Value:
        values = [convert(record.last(name)) for name in names if record.has(name)]
        return next((value for value in values if value != zero), values[0] if values else None)

    return rule


def address(*names: str) -> Rule:
    """The first address that is there and is not all zeros; zeros where all are."""

    def rule(record: Record) -> Value:
        values = [record.last(name).show for name in names if record.has(name)]
        return next((value for value in values if value not in {"0.0.0.0", "::"}), values[0] if values else None)

    return rule


def port(name: str) -> Rule:
    """One name of tshark's stands for the elements of TCP, of UDP and of both; the first that is not zero counts."""

    def rule(record: Record) -> Value:
        values = [number(each) for each in record.all(name)]
        return next((value for value in values if value), 0 if values else None)

    return rule


def reverse(convert: Convert, *names: str, responder: str) -> Rule:
    """A counter of the other direction: RFC 5103's, else the responder's; with two bytes that is something else."""

    def rule(record: Record) -> Value:
        for name in names:
            if record.has(name, reverse=True):
                return convert(record.last(name, reverse=True))
        told = record.all(responder)
        return convert(told[-1]) if told and len(told[-1].raw) >= 8 else None

    return rule


def mac(*names: str) -> Rule:
    """The first MAC address that is not all zeros; zeros where all are."""
    return first_not_zero(lambda field: field.show, *names, zero="00:00:00:00:00:00")


def version(record: Record) -> str:
    """The protocol, by the version of the header."""
    number_ = record.header["version"].show
    return "IPFIX" if number_ == "10" else f"NETFLOW_V{number_}"


def exported_ns(record: Record) -> int:
    """The time of the header."""
    return time_ns(record.header["timestamp"])


def domain(record: Record) -> Value:
    """IPFIX's observation domain, v9's source id, v5's engine; v1 and v7 have none."""
    for name in ("od_id", "source_id"):
        if name in record.header:
            return number(record.header[name])
    if "engine_type" not in record.header:
        return None
    return number(record.header["engine_type"]) << 8 | number(record.header["engine_id"])


def sequence(record: Record) -> Value:
    """That of the header; v1 has none."""
    return number(record.header["sequence"]) if "sequence" in record.header else None


OBSERVED: Final = "observation_time_milliseconds"


def flow_time(absolute: str, by_uptime: str) -> Rule:
    """A time of its own, else one by the exporter's uptime, else that of the observation, else that of the export."""

    def rule(record: Record) -> int:
        then_ms = span_ms(record.last(by_uptime)) if record.has(by_uptime) else None
        if record.has(absolute):
            told = record.last(absolute)
            # An uptime of zero is shown as the beginning of 1970.
            if len(told.raw) > 8 or time_ns(told):
                return time_ns(told)
            then_ms = 0
        if then_ms is None:
            return time_ns(record.last(OBSERVED)) if record.has(OBSERVED) else exported_ns(record)
        of_domain = [record, *(each for each in record.options if each.domain == record.domain)]
        start = next((each.last("sys_init_time") for each in of_domain if each.has("sys_init_time")), None)
        if "sysuptime" in record.header:
            # The counter of milliseconds wraps: what is further away than half of its range is on the other side.
            ago_ms = (span_ms(record.header["sysuptime"]) - then_ms + 2**31) % 2**32 - 2**31
            return exported_ns(record) - ago_ms * 10**6
        return exported_ns(record) if start is None else time_ns(start) + then_ms * 10**6

    return rule


def ethertype(record: Record) -> Value:
    """By the family of the address that counts; else the IP version, else the EtherType that was sent."""
    source, destination = COLUMNS["src_addr"](record), COLUMNS["dst_addr"](record)
    if source is not None or destination is not None:
        empty = {None, "0.0.0.0", "::"}
        counting = [each for each in (source, destination) if each not in empty] or ["0.0.0.0"]
        return 0x86DD if any(":" in str(each) for each in counting) else 0x0800
    if record.has("ip_version"):
        return {4: 0x0800, 6: 0x86DD}.get(number(record.last("ip_version")))
    return first(number, "ethernet_type")(record)


def flows(record: Record) -> Value:
    """The number of flows that an exporter has put together, else 1."""
    return number(record.last("flows")) if record.has("flows") else 1


def sampling_rate(record: Record) -> Value:
    """The rate that the record tells, or v5's header, or the options of its sampler or domain; 0 is none."""
    if "samplerate" in record.header:
        return number(record.header["samplerate"]) or None
    own = told_rate(record)
    if own is not None:
        return own
    of_domain = [each for each in record.options if each.domain == record.domain and told_rate(each) is not None]
    sampler = which_sampler(record)
    of_sampler = [each for each in of_domain if which_sampler(each) == sampler]
    of_all = [each for each in of_domain if which_sampler(each) is None]
    return next((told_rate(each) for each in (*of_sampler, *of_all)), None)


def which_sampler(record: Record) -> Value:
    """The selector or sampler that a record names."""
    return first(number, "selector_id", "sampler_id")(record)


def told_rate(record: Record) -> Value:
    """The rate that a record of flows or of options tells."""
    told = first_not_zero(number, "sampler_random_interval", "sampling_interval")(record)
    if record.has("sampling_packet_interval") and record.has("sampling_packet_space"):
        taken, skipped = (number(record.last(f"sampling_packet_{name}")) for name in ("interval", "space"))
        told = (taken + skipped) // taken if taken else told
    return told or None


def icmp(part: Convert, *names: str) -> Rule:
    """Type or code from fields of their own; v5 and v9 carry both in the destination port of ICMP as well."""

    def rule(record: Record) -> Value:
        own = [each for name in names for each in (name,) if record.has(each)]
        if own or version(record) == "IPFIX":
            values = [(part if "type_code" in name else number)(record.last(name)) for name in own]
            return next((value for value in values if value != 0), values[0] if values else None)
        if record.has("protocol") and number(record.last("protocol")) in {1, 58}:
            told = [each for each in record.all("dstport") if number(each)] or record.all("dstport")
            return part(told[0]) if told else None
        return None

    return rule


def name_of(what: str, by: tuple[str, ...], *names: str) -> Rule:
    """The name that the exporter's options gave to the number of a column; ``by`` are its fields there."""

    def rule(record: Record) -> Value:
        number_of = COLUMNS[what](record)
        if number_of is None:
            return None
        for told in record.options:
            same = number_of in {number(told.last(each)) for each in by if told.has(each)}
            named = first(text, *names)(told) if same else None
            if named is not None:
                return named
        return None

    return rule


def application_name(record: Record) -> Value:
    """The record's own, which tshark does not know of Palo Alto's, else that of the exporter's options."""
    own = titled(octets_of_text, "Type 56701")(record) or first(text, "appl_name")(record)
    which = application(record)
    if own is not None or which is None:
        return own
    told = (
        text(each.last("appl_name")) for each in record.options if each.has("appl_name") and application(each) == which
    )
    return next((name for name in told if name), None)


def titled(convert: Convert, title: str) -> Rule:
    """A field that tshark does not know by name."""

    def rule(record: Record) -> Value:
        return next((convert(each) for each in record.all("unknown_field_type") if title in each.title), None)

    return rule


def application(record: Record) -> Value:
    """`engine:selector`, and for engine 20 the enterprise between them (RFC 6759 §4.1)."""
    if not record.has("appl_id.classification_engine_id"):
        return None
    engine, selector = number(record.last("appl_id.classification_engine_id")), record.last("appl_id.selector_id").raw
    if engine == 20:
        return f"{engine}:{int(selector[:8], 16)}:{int(selector[8:], 16)}"
    return f"{engine}:{int(selector, 16)}"


COLUMNS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "type": version,
        "time_exported": lambda record: exported_ns(record) // 10**6 * 10**6,
        "time_flow_start": flow_time("abstimestart", "timestart"),
        "time_flow_end": flow_time("abstimeend", "timeend"),
        "observation_domain_id": domain,
        "sequence_num": sequence,
        "sampling_rate": sampling_rate,
        "bytes": first(
            number, "octets", "permanent_octets", "post_octets", "layer2_octet_delta_count", "initiator_octets"
        ),
        "packets": first(number, "packets", "permanent_packets", "post_packets", "initiator_packets"),
        "flows": flows,
        "src_addr": address("srcaddr", "srcaddrv6"),
        "dst_addr": address("dstaddr", "dstaddrv6"),
        "etype": ethertype,
        "proto": first(number, "protocol"),
        "src_port": port("srcport"),
        "dst_port": port("dstport"),
        "tcp_flags": first(number, "tcpflags"),
        "ip_tos": first(number, "tos"),
        "ip_ttl": first(number, "ip_ttl", "ttl_min"),
        "icmp_type": icmp(high, "icmp_ipv4_type", "icmp_ipv6_type", "icmp_type_code_ipv4", "icmp_type_code_ipv6"),
        "icmp_code": icmp(low, "icmp_ipv4_code", "icmp_ipv6_code", "icmp_type_code_ipv4", "icmp_type_code_ipv6"),
        "fragment_id": first(number, "frag_ident"),
        "in_if": first_not_zero(number, "inputint", "ingress_physical_interface"),
        "out_if": first_not_zero(number, "outputint", "egress_physical_interface"),
        "in_if_name": name_of("in_if", ("inputint",), "if_name", "if_descr"),
        "out_if_name": name_of("out_if", ("inputint",), "if_name", "if_descr"),
        "src_mac": mac("srcmac", "post_srcmac"),
        "dst_mac": mac("dstmac", "post_dstmac"),
        "src_vlan": first_not_zero(number, "vlanid", "dot1q_vlan_id"),
        "dst_vlan": first_not_zero(number, "post_vlanid", "post_dot1q_vlan_id"),
        "src_as": first(number, "srcas"),
        "dst_as": first(number, "dstas"),
        "src_net_len": first_not_zero(number, "srcmask", "srcmaskv6"),
        "dst_net_len": first_not_zero(number, "dstmask", "dstmaskv6"),
        "next_hop": address("nexthop", "nexthopv6"),
        "bgp_next_hop": address("bgpnexthop", "bgpnexthopv6"),
        "flow_direction": first(number, "direction"),
        "forwarding_status": first(octet, "forwarding_status"),
        "flow_end_reason": first(number, "flow_end_reason"),
        "ingress_vrf_id": first(number, "ingress_vrfid"),
        "egress_vrf_id": first(number, "egress_vrfid"),
        "ingress_vrf_name": name_of("ingress_vrf_id", ("ingress_vrfid", "egress_vrfid"), "vrfname"),
        "egress_vrf_name": name_of("egress_vrf_id", ("ingress_vrfid", "egress_vrfid"), "vrfname"),
        "nat_src_addr": address("post_natsource_ipv4_address"),
        "nat_dst_addr": address("post_natdestination_ipv4_address"),
        "nat_src_port": first(number, "post_naptsource_transport_port"),
        "nat_dst_port": first(number, "post_naptdestination_transport_port"),
        "nat_event": first(number, "nat_event"),
        "firewall_event": first(number, "firewall_event"),
        "application_id": application,
        "application_name": application_name,
        "user_name": lambda record: (
            titled(octets_of_text, "Type 56702")(record) or first(text, "user_name", "aaa_username")(record)
        ),
        "vni": first(segment, "layer2_segment_id"),
        "wlan_ssid": first(text, "wlan_ssid"),
        "wlan_client_mac": mac("sta_mac_address"),
        "wlan_ap_mac": mac("wtp_mac_address"),
    }
)
"""From a record of tshark's to the value of a column; None where the record does not tell."""

REVERSED: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "bytes": reverse(number, "octets", "permanent_octets", responder="responder_octets"),
        "packets": reverse(number, "packets", "permanent_packets", responder="responder_packets"),
        "bi_flow_direction": lambda _: 2,
        "src_addr": COLUMNS["dst_addr"],
        "dst_addr": COLUMNS["src_addr"],
        "src_port": COLUMNS["dst_port"],
        "dst_port": COLUMNS["src_port"],
        "in_if": COLUMNS["out_if"],
        "out_if": COLUMNS["in_if"],
        "in_if_name": COLUMNS["out_if_name"],
        "out_if_name": COLUMNS["in_if_name"],
        "proto": COLUMNS["proto"],
        "time_exported": COLUMNS["time_exported"],
    }
)
"""The same for the second record of a flow of two directions, which is there when something came back."""

TIMES: Final = frozenset({"time_exported", "time_flow_start", "time_flow_end"})
"""Columns that are compared in nanoseconds."""

ALSO_OURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "record_id": "finds the record, so it is compared by that",
        "time_received": "the packet's, not the protocol's",
        "sampler_address": "finds the device",
        "bi_flow_direction": "compared in the other direction's record, which tshark has not as a record of its own",
    }
)
"""Columns that are not compared, and why."""

ALSO_THEIRS: Final[Mapping[str, str]] = MappingProxyType(
    {
        r"_ws\..*": "what tshark thinks of a value",
        r"tcpflags\..*|forwarding_status_.*": "bits of a field that is compared whole",
        r"timedelta": "computed by tshark from start and end",
        r"string_len_.*|padding": "framing, no value",
        r"engine_(type|id)": "in a record these are elements 38 and 39, which have no column",
        r"enterprise_private_entry|unknown_field_type|pie\..*": "vendors' elements that have no column",
        r"drop_.*|ignore_.*|notsent_.*|flowsexp|packetsexp|octetsexp|exporter_.*|flow_exporter|export_.*": "statistics of the exporter",
        r"sampler_id|sampling_algorithm|selector_.*|mp_id": "which sampler it was, not its rate",
        r"flow_(in)?active_timeout|information_element_.*|private_enterprise_number": "of the exporter, not of a flow",
        r"(in|e)gress_acl_id|fw_ext_event|flow_id|tcp_seq_num": "no column",
        r"ip_dscp|ip_precedence|post_ip_diff_serv_code_point|ttl_max|length_(min|max)|mpls_label_length": "no column",
        r"if_descr|scope_.*": "options",
        r"sta_ipv4_address": "no column; the flow's own addresses are",
        r"sys_init_time": "a base of times, no value of its own",
        r"srcprefix|dstprefix|tcp_option_map|observation_point_id": "no column",
        r"timestart|timeend|abstimestart|abstimeend|observation_time_.*": "the two times",
        r"appl_id\..*": "application_id",
    }
)
"""Names of tshark's, as regular expressions, that stand for no column, and why."""


ALL: Final = ("*",)
"""Whole records."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Where both may differ: in the captures whose name matches, in these columns, because of this."""

    device: str
    columns: tuple[str, ...]
    reason: str


DEPARTURES: Final = (
    Departure(
        "netflow5_test_invalid0[12]", ALL, "the header counts 55,582 and 163 records, of 30 that there may be: refused"
    ),
    Departure(
        "netflow9_test_invalid01", ALL, "tshark stops after as many sets as the header counts records; there are more"
    ),
    Departure("netflow9_test_h3c", ALL, "tshark gives up at a field of two bytes that it takes for an address"),
    Departure(
        "ipfix_test_yaf",
        ("src_mac", "dst_mac"),
        "they stand in structured data (element 293), which tshark does not read",
    ),
    Departure(
        "ipfix_test_netscaler",
        ("time_flow_start", "time_flow_end"),
        "the low 11 bits of a fraction in microseconds do not count (RFC 7011 §6.1.9)",
    ),
)
"""What is not as tshark has it, and why."""

SEEN_WITH: Final = "4.0"
"""The version of tshark that the departures were seen with; another may have mended what is its own."""
