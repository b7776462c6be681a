"""What is to be sent, by whom and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ingest.generator.exporters import HOSTS
from shared.errors import ConfigError

EARLIEST_MS: Final = 59 * 86_400_000
"""The start time may not be so early that an exporter was started before 1970: some have been up for 50 days."""
LATEST_MS: Final = 2**32 * 1000
PROTOCOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "v5": ("v5",),
    "v9": ("v9",),
    "ipfix": ("ipfix",),
    "sflow": ("sflow",),
    "mix": ("v5", "v9", "ipfix", "sflow"),
    "v9-bare": ("v9-bare",),
    "v9-grouped": ("v9-grouped",),
    "v9-bare-grouped": ("v9-bare-grouped",),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent, by whom and when: equal scenarios send equal bytes."""

    protocol: str = "mix"
    """`v5`, `v9`, `ipfix`, `sflow`, or `mix`: every exporter then speaks one of them, in turn.

    For benchmarks there are more, always of the largest datagrams: `v9-grouped`, NetFlow v9 whose records all have
    security groups, and `v9-bare` and `v9-bare-grouped`, of exporters that send no options data.
    """
    exporters: int = 1000
    seed: int = 1
    start_ms: int = 1_700_000_000_000
    """The exporters' clock at the first datagram, in milliseconds since 1970."""
    rate: float = 0
    """Datagrams per second of all exporters; 0 is as fast as they can be sent."""
    refresh: int = 20
    """An exporter announces its templates and options (sFlow: counters) at its first datagram, and then once in so many."""
    uniform: bool = False
    """Whether all datagrams between announcements are the largest of their protocol, as benchmarks want them.

    sFlow has no templates, so that all of its datagrams are.
    """

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"cannot generate {self.protocol!r}: choose one of {', '.join(PROTOCOLS)}")
        least = len(PROTOCOLS[self.protocol])
        if not least <= self.exporters <= HOSTS:
            raise ConfigError(f"{self.protocol} needs {least} to {HOSTS} exporters, not {self.exporters}")
        if self.seed < 0 or self.rate < 0:
            raise ConfigError("seed and rate cannot be negative")
        if not EARLIEST_MS <= self.start_ms < LATEST_MS:
            raise ConfigError("the start time must be between 1970-03-01 and 2106, which is what the protocols can say")
        if self.refresh < 2:
            raise ConfigError(
                f"templates can be refreshed with every second datagram at most, not every {self.refresh}"
            )
