"""NetFlow v9 (RFC 3954): two flow templates, three options templates, and their data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ingest.generator.flows import INTERFACES, SAMPLERS
from ingest.generator.layouts import FIRST_UPTIME, LAST_UPTIME, OCTETS, PACKETS, Field, Layout
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.shapes import Composer, Shape

TYPE: Final = "NETFLOW_V9"
TEMPLATES, OPTIONS_TEMPLATES = 0, 1
FLOWS_IPV4, FLOWS_IPV6, SYSTEM_SAMPLING, SAMPLER_TABLE, INTERFACE_TABLE = 256, 257, 260, 261, 262
SCOPE_SYSTEM: Final = 1
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


def _options_template(composer: Composer, template_id: int, options: tuple[tuple[int, int], ...]) -> None:
    """Add an options template record with the system as its scope; its lengths are in bytes (RFC 3954 §6.1)."""
    composer.mark("template_shift", 2, plus=template_id)
    composer.number(4, 2)
    composer.number(4 * len(options), 2)
    for element, length in ((SCOPE_SYSTEM, 4), *options):
        composer.number(element, 2)
        composer.number(length, 2)
    composer.template_records += 1


def _announcement() -> Shape:
    composer = Composer()
    with _datagram(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, IPV4)
            composer.template(FLOWS_IPV6, IPV6)
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SYSTEM_SAMPLING, ((34, 4), (35, 1)))
            _options_template(composer, SAMPLER_TABLE, ((48, 2), (50, 4), (49, 1), (84, 8)))
            _options_template(composer, INTERFACE_TABLE, ((10, 4), (82, 16), (83, 32)))
        with composer.set(SYSTEM_SAMPLING):
            composer.mark("address", 4)
            composer.mark("sampling_rate", 4)
            composer.number(RANDOM, 1)
            composer.options_records += 1
        with composer.set(SAMPLER_TABLE):
            for sampler in SAMPLERS:
                composer.mark("address", 4)
                composer.number(sampler, 2)
                composer.mark(f"sampling_rate_{sampler}", 4)
                composer.number(RANDOM, 1)
                composer.raw(f"SM{sampler}".encode().ljust(8, b"\0"))
                composer.options_records += 1
        with composer.set(INTERFACE_TABLE):
            for interface in range(1, INTERFACES + 1):
                composer.mark("address", 4)
                composer.number(interface, 4)
                _name(composer, "Te", interface, 16)
                _name(composer, "TenGigE", interface, 32)
                composer.options_records += 1
        with composer.set(FLOWS_IPV4):
            composer.flows(4, IPV4)
    return composer.shape()


def _name(composer: Composer, kind: str, interface: int, length: int) -> None:
    """Add an interface's name, in which the slot is the exporter's own, filled up with NUL."""
    end = len(composer.content) + length
    composer.raw(kind.encode())
    composer.mark("slot", 1, plus=ord("0"))
    composer.raw(f"/0/0/{interface}".encode())
    composer.raw(bytes(end - len(composer.content)))


def _flows(*sets: tuple[int, Layout, int]) -> Shape:
    composer = Composer()
    with _datagram(composer):
        for template_id, layout, records in sets:
            with composer.set(template_id):
                composer.flows(records, layout)
    return composer.shape()


def protocol() -> Protocol:
    """A full datagram has 24 records of 58 bytes; others have IPv6, or several sets."""
    return Protocol(
        type=TYPE,
        counting=Counting.DATAGRAMS,
        whole_seconds=True,
        announcement=_announcement(),
        full=_flows((FLOWS_IPV4, IPV4, 24)),
        others=(
            _flows((FLOWS_IPV6, IPV6, 13)),
            _flows((FLOWS_IPV4, IPV4, 5), (FLOWS_IPV6, IPV6, 6), (FLOWS_IPV4, IPV4, 3)),
        ),
    )
