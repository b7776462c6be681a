"""Which of two versions of a template is the newer one: by what their exporter said of time, not by when they came."""

from __future__ import annotations

from typing import Final, NamedTuple

AHEAD_MS: Final = 60_000
"""An exporter's clock is believed within this much of the time of reception."""

BOOT_SLACK_MS: Final = 600_000
"""An exporter that seems to have begun so little later than known has not begun anew: its clocks drift."""


class Order(NamedTuple):
    """The place of a version among others of its template: of the later boot, and there the one told later.

    Milliseconds since 1970. ``boot_ms`` is 0 where the protocol does not tell (IPFIX).
    """

    boot_ms: int
    told_ms: int


FIRST: Final = Order(0, 0)
"""Before all others."""


def order_of(exported_ns: int, uptime_ms: int | None, received_ns: int, known: Order | None) -> Order:
    """The place of what a datagram told.

    ``known`` is that of the version which holds: a boot that is not clearly later than its own is the same one. The
    boot is reckoned from the time of reception, which an exporter whose clock begins anew in 1970 cannot turn back.
    """
    received_ms = received_ns // 1_000_000
    told_ms = min(max(exported_ns // 1_000_000, received_ms - AHEAD_MS), received_ms + AHEAD_MS)
    boot_ms = 0 if uptime_ms is None else max(0, received_ms - uptime_ms)
    if known is not None and boot_ms <= known.boot_ms + BOOT_SLACK_MS:
        boot_ms = known.boot_ms
    return Order(boot_ms, max(0, told_ms))


def capped(order: Order, appended_ms: int) -> Order:
    """The place as far as it can be true of what was in the topic at ``appended_ms``, by the broker's clock."""
    return Order(min(order.boot_ms, appended_ms), min(order.told_ms, appended_ms + AHEAD_MS))
