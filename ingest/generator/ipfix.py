"""IPFIX (RFC 7011): fixed and variable lengths, counters of reduced size, an enterprise's own elements, options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ingest.generator import names
from ingest.generator.flows import INTERFACES, SAMPLERS
from ingest.generator.layouts import (
    END_MS,
    FIRST_UPTIME,
    LAST_UPTIME,
    OCTETS,
    PACKETS,
    START_MS,
    VARIABLE,
    Field,
    Layout,
)
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.shapes import Composer, Shape, before

TYPE: Final = "IPFIX"
TEMPLATES, OPTIONS_TEMPLATES = 2, 3
FLOWS_IPV4, FLOWS_IPV6, FLOWS_NAMED, FLOWS_SGT = 256, 257, 258, 259
SAMPLING, PROCESS, INTERFACE_TABLE, TEMPLATE_SAMPLING, SELECTORS, SYSTEM_INIT = 260, 261, 262, 263, 264, 265
VRF_TABLE, APPLICATION_TABLE, SGT_TABLE, STATISTICS = 266, 267, 268, 269
ENTERPRISE: Final = 32473
"""The enterprise number for examples (RFC 5612): nobody knows its elements, so they are skipped by their length."""
CISCO: Final = 9
DOMAIN: Final = Field(149, 4)
METERING_PROCESS: Final = Field(143, 4)
METERING_PROCESS_ID: Final = 7
TEMPLATE: Final = Field(145, 2)
ALGORITHM, TAKEN, SKIPPED, SIZE, POPULATION = Field(304, 2), Field(305, 4), Field(306, 4), Field(309, 4), Field(310, 4)
SYSTEMATIC_COUNT, RANDOM_N_OF_N = 1, 3
BOOTED_MS: Final = Field(160, 8)
SENT: Final = (Field(40, 8), Field(41, 8), Field(42, 8))
INTERFACE, VRF, APPLICATION, SELECTOR, SGT_TAG = (
    Field(10, 4),
    Field(234, 4),
    Field(95, 4),
    Field(302, 4),
    Field(1232, 2, None, CISCO),
)

# Counters of 5 and 3 bytes are of reduced size (RFC 7011 §6.2).
IPV4: Final = Layout(
    4,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 2, "tcp_flags"),
        Field(OCTETS, 5),
        Field(PACKETS, 3),
        Field(START_MS, 8),
        Field(END_MS, 8),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(101, 4, "opaque", ENTERPRISE),
        Field(16, 4, "src_as"),
        Field(17, 4, "dst_as"),
        Field(9, 1, "src_net_len"),
        Field(13, 1, "dst_net_len"),
        Field(15, 4, "next_hop"),
        Field(136, 1, "flow_end_reason"),
        Field(61, 1, "flow_direction"),
    ),
)
IPV6: Final = Layout(
    6,
    (
        Field(102, 8, "opaque", ENTERPRISE),
        Field(27, 16, "src_addr"),
        Field(28, 16, "dst_addr"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 1, "tcp_flags"),
        Field(OCTETS, 8),
        Field(PACKETS, 8),
        Field(START_MS, 8),
        Field(END_MS, 8),
        Field(31, 4, "ipv6_flow_label"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(29, 1, "src_net_len"),
        Field(30, 1, "dst_net_len"),
        Field(56, 6, "src_mac"),
        Field(80, 6, "dst_mac"),
    ),
)


# Times are of the exporter's uptime, which began when options data say; the rate is that of the record's selector.
SGT: Final = Layout(
    4,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 2, "tcp_flags"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(1232, 2, "src_sgt", CISCO),
        Field(1233, 2, "dst_sgt", CISCO),
        Field(234, 4, "ingress_vrf_id"),
        Field(235, 4, "egress_vrf_id"),
        Field(95, 4, "application_id"),
        Field(302, 4, "sampler"),
        Field(OCTETS, 8),
        Field(PACKETS, 8),
        Field(LAST_UPTIME, 4),
        Field(FIRST_UPTIME, 4),
        Field(61, 1, "flow_direction"),
    ),
)


def _prefix(length: int, *, long_form: bool = False) -> bytes:
    """What says the length of a field of variable length; the long form is legal for short ones too."""
    if long_form or length > 254:
        return b"\xff" + length.to_bytes(2, "big")
    return length.to_bytes(1, "big")


def _named(user_bytes: int, application_bytes: int, opaque_bytes: int, *, long_form: bool = False) -> Layout:
    """A record with three fields of variable length, as long as they are in one record."""
    return Layout(
        4,
        (
            Field(8, 4, "src_addr"),
            Field(12, 4, "dst_addr"),
            Field(371, user_bytes, "user_name", prefix=_prefix(user_bytes)),
            Field(7, 2, "src_port"),
            Field(11, 2, "dst_port"),
            Field(4, 1, "proto"),
            Field(OCTETS, 8),
            Field(PACKETS, 4),
            Field(103, opaque_bytes, "opaque", ENTERPRISE, prefix=_prefix(opaque_bytes)),
            Field(START_MS, 8),
            Field(END_MS, 8),
            Field(96, application_bytes, "application_name", prefix=_prefix(application_bytes, long_form=long_form)),
            Field(10, 4, "in_if"),
            Field(14, 4, "out_if"),
        ),
        rate="sampling_rate_template",
    )


# One template: the records differ in length alone.
NAMED: Final = (
    _named(9, 4, 3),
    _named(21, 4, 0),
    _named(9, 300, 12),
    _named(260, 4, 1),
    _named(21, 4, 40, long_form=True),
)


@contextmanager
def _message(composer: Composer) -> Iterator[None]:
    """Add the header before, and its length after, the sets of a message."""
    composer.number(10, 2)
    composer.number(0, 2)
    composer.mark("unix_seconds", 4)
    composer.mark("sequence", 4)
    composer.mark("domain", 4)
    yield
    composer.patch(2, len(composer.content), 2)


def _options_template(
    composer: Composer, template_id: int, scopes: tuple[Field, ...], options: tuple[Field, ...]
) -> None:
    """Add an options template record; its counts are of fields, the first of all of them (RFC 7011 §3.4.2.2)."""
    composer.mark("template_shift", 2, plus=template_id)
    composer.number(len(scopes) + len(options), 2)
    composer.number(len(scopes), 2)
    for field in (*scopes, *options):
        composer.raw(field.specifier)


def _text(element: int, enterprise: int = 0) -> Field:
    """A field of variable length."""
    return Field(element, VARIABLE, None, enterprise)


def _uniform_announcement() -> Shape:
    """What announces the traffic of benchmarks, in one datagram."""
    composer = Composer()
    with _message(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, IPV4)
            composer.template(FLOWS_IPV6, IPV6)
            composer.template(FLOWS_NAMED, NAMED[0])
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SAMPLING, (DOMAIN,), (ALGORITHM, TAKEN, SKIPPED))
            _options_template(composer, PROCESS, (DOMAIN, METERING_PROCESS), (*SENT[1:], BOOTED_MS))
            _options_template(composer, INTERFACE_TABLE, (INTERFACE,), (_text(82), _text(83)))
        _domain_sampling(composer)
        with composer.set(PROCESS):
            composer.mark("domain", 4)
            composer.number(METERING_PROCESS_ID, 4)
            composer.mark(before("datagrams"), 8)
            composer.mark(before("data_records"), 8)
            composer.mark("boot_ms", 8)
            composer.options_records += 1
        with composer.set(INTERFACE_TABLE):
            for interface in range(1, INTERFACES + 1):
                composer.number(interface, 4)
                _name(composer, names.cisco_name(interface))
                _name(composer, names.cisco_description(interface))
                composer.options_records += 1
        with composer.set(FLOWS_IPV4):
            composer.flows(4, IPV4)
    return composer.shape()


def _domain_sampling(composer: Composer) -> None:
    with composer.set(SAMPLING):
        composer.mark("domain", 4)
        composer.number(SYSTEMATIC_COUNT, 2)
        composer.number(1, 4)
        composer.mark("sampling_rate", 4, plus=-1)  # packets skipped after each that is taken
        composer.options_records += 1


def _announcement() -> Shape:
    """Templates, and what has to be known of flows from the first on: how they were sampled, and by which clock."""
    composer = Composer()
    with _message(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, IPV4)
            composer.template(FLOWS_IPV6, IPV6)
            composer.template(FLOWS_NAMED, NAMED[0])
            composer.template(FLOWS_SGT, SGT)
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SAMPLING, (DOMAIN,), (ALGORITHM, TAKEN, SKIPPED))
            _options_template(composer, TEMPLATE_SAMPLING, (DOMAIN, TEMPLATE), (ALGORITHM, TAKEN, SKIPPED))
            _options_template(composer, SELECTORS, (SELECTOR,), (ALGORITHM, SIZE, POPULATION))
            _options_template(composer, SYSTEM_INIT, (DOMAIN,), (BOOTED_MS,))
            _options_template(composer, INTERFACE_TABLE, (INTERFACE,), (_text(82), _text(83)))
        _domain_sampling(composer)
        with composer.set(TEMPLATE_SAMPLING):
            composer.mark("domain", 4)
            composer.mark("template_shift", 2, plus=FLOWS_NAMED)
            composer.number(SYSTEMATIC_COUNT, 2)
            composer.number(1, 4)
            composer.mark("sampling_rate_template", 4, plus=-1)
            composer.options_records += 1
        with composer.set(SELECTORS):
            for selector in SAMPLERS:
                composer.number(selector, 4)
                composer.number(RANDOM_N_OF_N, 2)
                composer.number(1, 4)
                composer.mark(f"sampling_rate_{selector}", 4)
                composer.options_records += 1
        with composer.set(SYSTEM_INIT):
            composer.mark("domain", 4)
            composer.mark("boot_ms", 8)
            composer.options_records += 1
        with composer.set(INTERFACE_TABLE):
            for interface in range(1, INTERFACES + 1):
                composer.number(interface, 4)
                _name(composer, names.mangled(names.cisco_description(interface)))
                _name(composer, names.cisco_description(interface))
                composer.options_records += 1
        with composer.set(FLOWS_IPV4):
            composer.flows(4, IPV4)
    return composer.shape()


def _tables() -> Shape:
    """Names of VRFs, applications and security groups, what was exported so far, and flows that the names are of."""
    composer = Composer()
    with _message(composer):
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, VRF_TABLE, (VRF,), (_text(236),))
            _options_template(composer, APPLICATION_TABLE, (APPLICATION,), (_text(96), _text(94)))
            _options_template(composer, SGT_TABLE, (SGT_TAG,), (_text(1234, CISCO),))
            _options_template(composer, STATISTICS, (DOMAIN, METERING_PROCESS), SENT)
        with composer.set(VRF_TABLE):
            for vrf, name in names.VRFS.items():
                composer.number(vrf, 4)
                _name(composer, name)
                composer.options_records += 1
        with composer.set(APPLICATION_TABLE):
            for application, (name, description) in names.APPLICATIONS.items():
                composer.number(application, 4)
                _name(composer, name)
                _name(composer, description)
                composer.options_records += 1
        # Padding of two bytes would be a tag without a name to whoever takes a variable length for nothing.
        with composer.set(SGT_TABLE, padded=False):
            for tag, name in names.SGTS.items():
                composer.number(tag, 2)
                _name(composer, name)
                composer.options_records += 1
        with composer.set(STATISTICS):
            composer.mark("domain", 4)
            composer.number(METERING_PROCESS_ID, 4)
            for counter in ("octets", "datagrams", "flow_records"):
                composer.mark(before(counter), 8)
            composer.options_records += 1
        with composer.set(FLOWS_SGT):
            composer.flows(5, SGT)
    return composer.shape()


def _name(composer: Composer, text: str) -> None:
    """Add a name with its length before it."""
    composer.raw(_prefix(len(text)))
    composer.name(text)


def _flows(*sets: tuple[int, int, tuple[Layout, ...]]) -> Shape:
    composer = Composer()
    with _message(composer):
        for template_id, records, layouts in sets:
            with composer.set(template_id):
                composer.flows(records, *layouts)
    return composer.shape()


def protocol(uniform: bool) -> Protocol:
    """A full message has 20 records; others have IPv6, variable lengths, security groups, or several sets."""
    # What names an interface is its short name, but where that is the other with the slashes replaced.
    called = names.cisco_name if uniform else names.cisco_description
    others = (
        _flows((FLOWS_IPV6, 13, (IPV6,))),
        _flows((FLOWS_NAMED, 7, NAMED)),
        _flows((FLOWS_IPV4, 3, (IPV4,)), (FLOWS_NAMED, 5, NAMED), (FLOWS_IPV6, 2, (IPV6,))),
        _flows((FLOWS_SGT, 19, (SGT,))),
    )
    return Protocol(
        type=TYPE,
        counting=Counting.RECORDS,
        whole_seconds=False,
        announcement=_uniform_announcement() if uniform else _announcement(),
        tables=() if uniform else (_tables(),),
        full=_flows((FLOWS_IPV4, 20, (IPV4,))),
        others=() if uniform else others,
        interfaces={interface: called(interface) for interface in range(1, INTERFACES + 1)},
    )
