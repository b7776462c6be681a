"""sFlow version 5: the numbers of its structures, and what its reasons mean. Data, no logic.

Sources: sFlow version 5, sFlow Dropped Packet Notification Structures, sFlow Tunnel Structures (sflow.org), and
sflowtool's headers for what agents send besides.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

FLOW_SAMPLE: Final = 1
COUNTERS_SAMPLE: Final = 2
EXPANDED_FLOW_SAMPLE: Final = 3
EXPANDED_COUNTERS_SAMPLE: Final = 4
DISCARDED_PACKET: Final = 5


class SampleKind(IntEnum):
    """Samples that a data source numbers for themselves."""

    FLOW = 0
    COUNTERS = 1
    DISCARDED = 2


WITH_DROPS: Final = (SampleKind.FLOW, SampleKind.DISCARDED)
"""Kinds whose samples tell how many the agent has dropped."""


KNOWN_FLOW_RECORDS: Final = frozenset(
    {1, 2, 3, 4, 1001, 1002, 1003, 1004, 1006, 1007, 1012, 1020, 1029, 1030, 1043, 2100, 2101, 2102, 2103}
)
"""Flow records that fill columns, by enterprise << 12 | format; others are skipped by length and counted by kind."""

COUNTED_FLOW_RECORDS: Final = frozenset(
    {
        *(1005, *range(1008, 1012), *range(1013, 1020), *range(1021, 1029), *range(1031, 1043)),
        *(*range(2000, 2004), *range(2200, 2211)),
    }
)
"""Flow records that are known by number and fill no column: counted each by its own number."""

INTERNAL_INTERFACE: Final = 0x3FFFFFFF
EXPANDED_INTERNAL_INTERFACE: Final = 0xFFFFFFFF
"""The device itself: the erratum's form in expanded samples."""

FORWARDED: Final = 64
DROPPED: Final = 128

FORWARDING_STATUS: Final = {
    # ICMP destination unreachable codes
    **dict.fromkeys(range(16), 131),
    4: 133,
    9: 129,
    10: 129,
    13: 129,
    # beyond them
    257: 137,
    258: 129,
    260: 139,
    261: 138,
    262: 133,
    269: 131,
    279: 132,
    280: 140,
    281: 131,
    302: 140,
}
"""Status and reason by RFC 7270 §4.12 for sFlow's discard reasons; others are "dropped, unknown"."""
