"""IPFIX (RFC 7011): fixed and variable lengths, counters of reduced size, an enterprise's own elements, options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ingest.generator.flows import INTERFACES
from ingest.generator.layouts import END_MS, OCTETS, PACKETS, START_MS, VARIABLE, Field, Layout
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.shapes import Composer, Shape

TYPE: Final = "IPFIX"
TEMPLATES, OPTIONS_TEMPLATES = 2, 3
FLOWS_IPV4, FLOWS_IPV6, FLOWS_NAMED, SAMPLING, PROCESS, INTERFACE_TABLE = 256, 257, 258, 260, 261, 262
ENTERPRISE: Final = 32473
"""The enterprise number for examples (RFC 5612): nobody knows its elements, so they are skipped by their length."""
INGRESS_INTERFACE, DOMAIN_ID, METERING_PROCESS = 10, 149, 143
METERING_PROCESS_ID: Final = 7
SYSTEMATIC_COUNT: Final = 1

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
    composer: Composer, template_id: int, scopes: tuple[tuple[int, int], ...], options: tuple[tuple[int, int], ...]
) -> None:
    """Add an options template record; its counts are of fields, the first of all of them (RFC 7011 §3.4.2.2)."""
    composer.mark("template_shift", 2, plus=template_id)
    composer.number(len(scopes) + len(options), 2)
    composer.number(len(scopes), 2)
    for element, length in (*scopes, *options):
        composer.number(element, 2)
        composer.number(length, 2)


def _announcement() -> Shape:
    composer = Composer()
    with _message(composer):
        with composer.set(TEMPLATES):
            composer.template(FLOWS_IPV4, IPV4)
            composer.template(FLOWS_IPV6, IPV6)
            composer.template(FLOWS_NAMED, NAMED[0])
        with composer.set(OPTIONS_TEMPLATES):
            _options_template(composer, SAMPLING, ((DOMAIN_ID, 4),), ((304, 2), (305, 4), (306, 4)))
            _options_template(composer, PROCESS, ((DOMAIN_ID, 4), (METERING_PROCESS, 4)), ((41, 8), (42, 8), (160, 8)))
            _options_template(composer, INTERFACE_TABLE, ((INGRESS_INTERFACE, 4),), ((82, VARIABLE), (83, VARIABLE)))
        with composer.set(SAMPLING):
            composer.mark("domain", 4)
            composer.number(SYSTEMATIC_COUNT, 2)
            composer.number(1, 4)
            composer.mark("sampling_rate", 4, plus=-1)  # packets skipped after each that is taken
            composer.options_records += 1
        with composer.set(PROCESS):
            composer.mark("domain", 4)
            composer.number(METERING_PROCESS_ID, 4)
            composer.mark("datagrams_before", 8)
            composer.mark("records_before", 8)
            composer.mark("boot_ms", 8)
            composer.options_records += 1
        with composer.set(INTERFACE_TABLE):
            for interface in range(1, INTERFACES + 1):
                composer.number(interface, 4)
                _name(composer, "Te", interface)
                _name(composer, "TenGigE", interface)
                composer.options_records += 1
        with composer.set(FLOWS_IPV4):
            composer.flows(4, IPV4)
    return composer.shape()


def _name(composer: Composer, kind: str, interface: int) -> None:
    """Add an interface's name, in which the slot is the exporter's own, with its length before it."""
    rest = f"/0/0/{interface}"
    composer.number(len(kind) + 1 + len(rest), 1)
    composer.raw(kind.encode())
    composer.mark("slot", 1, plus=ord("0"))
    composer.raw(rest.encode())


def _flows(*sets: tuple[int, int, tuple[Layout, ...]]) -> Shape:
    composer = Composer()
    with _message(composer):
        for template_id, records, layouts in sets:
            with composer.set(template_id):
                composer.flows(records, *layouts)
    return composer.shape()


def protocol() -> Protocol:
    """A full message has 20 records; others have IPv6, fields of variable length, or several sets."""
    return Protocol(
        type=TYPE,
        counting=Counting.RECORDS,
        whole_seconds=False,
        announcement=_announcement(),
        full=_flows((FLOWS_IPV4, 20, (IPV4,))),
        others=(
            _flows((FLOWS_IPV6, 13, (IPV6,))),
            _flows((FLOWS_NAMED, 7, NAMED)),
            _flows((FLOWS_IPV4, 3, (IPV4,)), (FLOWS_NAMED, 5, NAMED), (FLOWS_IPV6, 2, (IPV6,))),
        ),
    )
