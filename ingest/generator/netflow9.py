"""NetFlow v9 (RFC 3954): flow templates, one of them with security groups, and options of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ingest.generator import names
from ingest.generator.flows import INTERFACES, SAMPLERS
from ingest.generator.layouts import FIRST_UPTIME, LAST_UPTIME, OCTETS, PACKETS, Field, Layout
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.shapes import Composer, Shape, before

TYPE: Final = "NETFLOW_V9"
TEMPLATES, OPTIONS_TEMPLATES = 0, 1
FLOWS_IPV4, FLOWS_IPV6, FLOWS_SGT = 256, 257, 258
SYSTEM_SAMPLING, SAMPLER_TABLE, INTERFACE_TABLE, TEMPLATE_SAMPLING = 260, 261, 262, 263
VRF_TABLE, APPLICATION_TABLE, SGT_TABLE, STATISTICS = 264, 265, 266, 267
SYSTEM: Final = (1, 4)
"""The scope, by type and length, of what is told of the exporter as a whole: here its address."""
TEMPLATE: Final = (5, 2)
SRC_SGT, DST_SGT, SGT_NAME = 34000, 34001, 34002
"""Cisco's own types, which have no enterprise number here."""
RANDOM: Final = 2
"""Random sampling, as elements 35 and 49 say it."""

# 21 fields in 58 bytes.
IPV4: Final = Layout(
    4,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(15, 4, "next_hop"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(PACKETS, 4),
        Field(OCTETS, 4),
        Field(FIRST_UPTIME, 4),
        Field(LAST_UPTIME, 4),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 1, "tcp_flags"),
        Field(16, 4, "src_as"),
        Field(17, 4, "dst_as"),
        Field(9, 1, "src_net_len"),
        Field(13, 1, "dst_net_len"),
        Field(61, 1, "flow_direction"),
        Field(58, 2, "src_vlan"),
        Field(59, 2, "dst_vlan"),
    ),
)
IPV6: Final = Layout(
    6,
    (
        Field(27, 16, "src_addr"),
        Field(28, 16, "dst_addr"),
        Field(62, 16, "next_hop"),
        Field(10, 2, "in_if"),
        Field(14, 2, "out_if"),
        Field(PACKETS, 8),
        Field(OCTETS, 8),
        Field(LAST_UPTIME, 4),
        Field(FIRST_UPTIME, 4),
        Field(31, 3, "ipv6_flow_label"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 1, "tcp_flags"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(29, 1, "src_net_len"),
        Field(30, 1, "dst_net_len"),
        Field(16, 4, "src_as"),
        Field(17, 4, "dst_as"),
        Field(48, 1, "sampler"),
    ),
)


# Cisco's fields for security groups, beside what else options data give names to. Its rate is that of its template.
SGT: Final = Layout(
    4,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(6, 1, "tcp_flags"),
        Field(61, 1, "flow_direction"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(SRC_SGT, 2, "src_sgt"),
        Field(DST_SGT, 2, "dst_sgt"),
        Field(234, 4, "ingress_vrf_id"),
        Field(235, 4, "egress_vrf_id"),
        Field(95, 4, "application_id"),
        Field(OCTETS, 8),
        Field(PACKETS, 8),
        Field(FIRST_UPTIME, 4),
        Field(LAST_UPTIME, 4),
    ),
    rate="sampling_rate_template",
)
GROUPED: Final = Layout(4, (*IPV4.fields, Field(SRC_SGT, 2, "src_sgt"), Field(DST_SGT, 2, "dst_sgt")))
"""The first layout with security groups."""
BARE: Final = Layout(4, IPV4.fields, rate=None)
BARE_GROUPED: Final = Layout(4, GROUPED.fields, rate=None)
"""The same two of exporters that tell nothing of themselves."""


@contextmanager
def _datagram(composer: Composer) -> Iterator[None]:
    """Add the header before, and its count of records after, the sets of a datagram."""
    composer.number(9, 2)
    composer.number(0, 2)
    composer.mark("uptime_ms", 4)
    composer.mark("unix_seconds", 4)
    composer.mark("sequence", 4)
    composer.mark("domain", 4)
    yield
    count = composer.template_records + composer.options_records + composer.flow_records
    composer.patch(2, count, 2)


def _options_template(
    composer: Composer, template_id: int, scope: tuple[int, int], options: tuple[tuple[int, int], ...]
) -> None:
    """Add an options template record with one scope; its lengths are in bytes (RFC 3954 §6.1)."""
    composer.mark("template_shift", 2, plus=template_id)
    composer.number(4, 2)
    composer.number(4 * len(options), 2)
    for element, length in (scope, *options):
        composer.number(element, 2)
        composer.number(length, 2)
    composer.template_records += 1


@contextmanager
def _of_system(composer: Composer) -> Iterator[None]:
    """Add an options record that is told of the exporter as a whole."""
    composer.mark("address", 4)
    yield
    composer.options_records += 1


def _announcement(*, uniform: bool) -> Shape:
    """Templates, and what has to be known of flows from the first on: how they were sampled."""
    composer = Composer()
    with _datagram(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, IPV4)
            composer.template(FLOWS_IPV6, IPV6)
            if not uniform:
                composer.template(FLOWS_SGT, SGT)
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SYSTEM_SAMPLING, SYSTEM, ((34, 4), (35, 1)))
            _options_template(composer, SAMPLER_TABLE, SYSTEM, ((48, 2), (50, 4), (49, 1), (84, 8)))
            _options_template(composer, INTERFACE_TABLE, SYSTEM, ((10, 4), (82, 16), (83, 32)))
            if not uniform:
                _options_template(composer, TEMPLATE_SAMPLING, TEMPLATE, ((305, 4), (306, 4)))
        _sampling(composer)
        _interfaces(composer)
        if not uniform:
            with composer.set(TEMPLATE_SAMPLING):
                composer.mark("template_shift", 2, plus=FLOWS_SGT)
                composer.number(1, 4)
                composer.mark("sampling_rate_template", 4, plus=-1)  # packets skipped after each that is taken
                composer.options_records += 1
        with composer.set(FLOWS_IPV4):
            composer.flows(4, IPV4)
    return composer.shape()


def _bare_announcement(layout: Layout) -> Shape:
    """The template alone."""
    composer = Composer()
    with _datagram(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, layout)
        with composer.set(FLOWS_IPV4):
            composer.flows(4, layout)
    return composer.shape()


def _grouped_announcement() -> Shape:
    """The template, how flows were sampled, and the names of interfaces; those of security groups come next."""
    composer = Composer()
    with _datagram(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, GROUPED)
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SYSTEM_SAMPLING, SYSTEM, ((34, 4), (35, 1)))
            _options_template(composer, SAMPLER_TABLE, SYSTEM, ((48, 2), (50, 4), (49, 1), (84, 8)))
            _options_template(composer, INTERFACE_TABLE, SYSTEM, ((10, 4), (82, 16), (83, 32)))
        _sampling(composer)
        _interfaces(composer)
        with composer.set(FLOWS_IPV4):
            composer.flows(4, GROUPED)
    return composer.shape()


def _group_names() -> Shape:
    """The names of security groups, and flows of such."""
    composer = Composer()
    with _datagram(composer):
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SGT_TABLE, SYSTEM, ((SRC_SGT, 2), (SGT_NAME, 32)))
        _groups(composer)
        with composer.set(FLOWS_IPV4):
            composer.flows(4, GROUPED)
    return composer.shape()


def _sampling(composer: Composer) -> None:
    """Add the rate of the exporter as a whole, and that of each sampler."""
    with composer.set(SYSTEM_SAMPLING), _of_system(composer):
        composer.mark("sampling_rate", 4)
        composer.number(RANDOM, 1)
    with composer.set(SAMPLER_TABLE):
        for sampler in SAMPLERS:
            with _of_system(composer):
                composer.number(sampler, 2)
                composer.mark(f"sampling_rate_{sampler}", 4)
                composer.number(RANDOM, 1)
                composer.name(f"SM{sampler}", 8)


def _interfaces(composer: Composer) -> None:
    """Add what the exporter calls its interfaces."""
    with composer.set(INTERFACE_TABLE):
        for interface in range(1, INTERFACES + 1):
            with _of_system(composer):
                composer.number(interface, 4)
                composer.name(names.cisco_name(interface), 16)
                composer.name(names.cisco_description(interface), 32)


def _groups(composer: Composer) -> None:
    """Add the names of security groups."""
    with composer.set(SGT_TABLE):
        for tag, name in names.SGTS.items():
            with _of_system(composer):
                composer.number(tag, 2)
                composer.name(name, 32)


def _tables() -> Shape:
    """Names of VRFs, applications and security groups, what was exported so far, and flows that the names are of."""
    composer = Composer()
    with _datagram(composer):
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, VRF_TABLE, SYSTEM, ((234, 4), (236, 32)))
            _options_template(composer, APPLICATION_TABLE, SYSTEM, ((95, 4), (96, 24), (94, 55)))
            _options_template(composer, SGT_TABLE, SYSTEM, ((SRC_SGT, 2), (SGT_NAME, 32)))
            _options_template(composer, STATISTICS, SYSTEM, ((40, 8), (41, 8), (42, 8)))
        with composer.set(VRF_TABLE):
            for vrf, name in names.VRFS.items():
                with _of_system(composer):
                    composer.number(vrf, 4)
                    composer.name(name, 32)
        with composer.set(APPLICATION_TABLE):
            for application, (name, description) in names.APPLICATIONS.items():
                with _of_system(composer):
                    composer.number(application, 4)
                    composer.name(name, 24)
                    composer.name(description, 55)
        _groups(composer)
        with composer.set(STATISTICS), _of_system(composer):
            for counter in ("octets", "datagrams", "flow_records"):
                composer.mark(before(counter), 8)
        with composer.set(FLOWS_SGT):
            composer.flows(3, SGT)
    return composer.shape()


def _flows(*sets: tuple[int, Layout, int]) -> Shape:
    composer = Composer()
    with _datagram(composer):
        for template_id, layout, records in sets:
            with composer.set(template_id):
                composer.flows(records, layout)
    return composer.shape()


def protocol(uniform: bool) -> Protocol:
    """A full datagram has 24 records of 58 bytes; others have IPv6, security groups, or several sets."""
    varied = (
        ()
        if uniform
        else (
            _flows((FLOWS_IPV6, IPV6, 13)),
            _flows((FLOWS_SGT, SGT, 22)),
            _flows((FLOWS_IPV4, IPV4, 5), (FLOWS_IPV6, IPV6, 6), (FLOWS_IPV4, IPV4, 3), (FLOWS_SGT, SGT, 2)),
        )
    )
    return Protocol(
        type=TYPE,
        counting=Counting.DATAGRAMS,
        whole_seconds=True,
        announcement=_announcement(uniform=uniform),
        tables=() if uniform else (_tables(),),
        full=_flows((FLOWS_IPV4, IPV4, 24)),
        others=varied,
        interfaces={interface: names.cisco_name(interface) for interface in range(1, INTERFACES + 1)},
    )


def grouped(_: bool) -> Protocol:
    """What benchmarks compare: all records have security groups, and all that has a name is told."""
    return Protocol(
        type=TYPE,
        counting=Counting.DATAGRAMS,
        whole_seconds=True,
        announcement=_grouped_announcement(),
        tables=(_group_names(),),
        full=_flows((FLOWS_IPV4, GROUPED, 23)),
        others=(),
        interfaces={interface: names.cisco_name(interface) for interface in range(1, INTERFACES + 1)},
    )


def bare(_: bool) -> Protocol:
    """What benchmarks compare it with: no options data, so that no record has a rate or a name."""
    return _bare(BARE, 24)


def bare_grouped(_: bool) -> Protocol:
    """The same of records that have security groups."""
    return _bare(BARE_GROUPED, 23)


def _bare(layout: Layout, records: int) -> Protocol:
    return Protocol(
        type=TYPE,
        counting=Counting.DATAGRAMS,
        whole_seconds=True,
        announcement=_bare_announcement(layout),
        tables=(),
        full=_flows((FLOWS_IPV4, layout, records)),
        others=(),
        interfaces={},
    )
