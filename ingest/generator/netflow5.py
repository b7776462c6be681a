"""NetFlow v5: a header of 24 bytes and up to 30 records of 48."""

from __future__ import annotations

from typing import Final

from ingest.generator.layouts import FIRST_UPTIME, LAST_UPTIME, OCTETS, PACKETS, Field, Layout
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.shapes import Composer, Shape

TYPE: Final = "NETFLOW_V5"
PADDING: Final = 0
SAMPLING_MODE: Final = 1 << 14
"""Mode 1, packet interval, in the two high bits of the header's sampling word; the interval is in the other 14."""

# v5 has no templates: the element numbers, but for counters and times, are only names.
RECORD: Final = Layout(
    4,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(15, 4, "next_hop"),
        Field(10, 2, "in_if"),
        Field(14, 2, "out_if"),
        Field(PACKETS, 4),
        Field(OCTETS, 4),
        Field(FIRST_UPTIME, 4),
        Field(LAST_UPTIME, 4),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(PADDING, 1),
        Field(6, 1, "tcp_flags"),
        Field(4, 1, "proto"),
        Field(5, 1, "ip_tos"),
        Field(16, 2, "src_as_16"),
        Field(17, 2, "dst_as_16"),
        Field(9, 1, "src_net_len"),
        Field(13, 1, "dst_net_len"),
        Field(PADDING, 2),
    ),
)


def _datagram(records: int) -> Shape:
    composer = Composer()
    composer.number(5, 2)
    composer.number(records, 2)
    composer.mark("uptime_ms", 4)
    composer.mark("unix_seconds", 4)
    composer.mark("nanoseconds", 4)
    composer.mark("sequence", 4)
    composer.mark("domain", 2)  # engine type and engine id
    composer.mark("sampling_rate", 2, plus=SAMPLING_MODE)
    composer.flows(records, RECORD)
    return composer.shape()


def protocol(uniform: bool) -> Protocol:
    """v5 has nothing to announce; a full datagram has 30 records, and a timer sends some that are not full."""
    full = _datagram(30)
    return Protocol(
        type=TYPE,
        counting=Counting.FLOWS,
        whole_seconds=False,
        announcement=full,
        tables=(),
        full=full,
        others=() if uniform else (_datagram(7), _datagram(1)),
        interfaces={},
    )
