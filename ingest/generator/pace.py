"""When how many datagrams may be sent: evenly, in bursts that a small receive buffer holds."""

from __future__ import annotations

from typing import Final

TICK_NS: Final = 5_000_000
"""The least time between two bursts."""
BURST_TICKS: Final = 2
"""A burst has at most what is due in so many ticks: a sender that was held up catches up at so many times the rate."""
LEAST_BURST: Final = 16
"""A burst of so many is always allowed: a full datagram takes some 2,300 bytes of the receiver's buffer, so 37 kB."""
BACKLOG_NS: Final = 250_000_000
"""What is due for longer than this is given up, so that a long pause is not followed by a long rush."""
LONGEST_WAIT_NS: Final = 100_000_000
"""How long a slow sender sleeps at most, so that it hears when it is to stop."""
SECOND_NS: Final = 1_000_000_000


class Pace:
    """Says how many datagrams are due at a rate, in datagrams per second; the time is given, and never asked for."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = int(max(LEAST_BURST, rate * TICK_NS * BURST_TICKS / SECOND_NS))
        self._most = max(self._burst, rate * BACKLOG_NS / SECOND_NS)
        self._allowance = 1.0
        self._seen_ns: int | None = None
        self._next_ns = 0

    def due(self, now_ns: int) -> int:
        """How many datagrams may be sent now; none within a tick of a burst."""
        if self._seen_ns is not None:
            self._allowance = min(self._most, self._allowance + (now_ns - self._seen_ns) * self._rate / SECOND_NS)
        self._seen_ns = now_ns
        return min(self._burst, int(self._allowance)) if now_ns >= self._next_ns else 0

    def sent(self, count: int) -> None:
        """Take a burst off what is due; it counts from when `due` was asked."""
        self._allowance -= count
        self._next_ns = (self._seen_ns or 0) + TICK_NS

    def wait_ns(self, now_ns: int) -> int:
        """How long to sleep when nothing is due."""
        until_one = int((1 - self._allowance) * SECOND_NS / self._rate)
        return min(LONGEST_WAIT_NS, max(0, self._next_ns - now_ns, until_one))
