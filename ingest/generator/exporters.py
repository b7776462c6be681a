"""The exporters: what each is, by columns of one row an exporter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.generator.flows import SAMPLERS
from ingest.generator.shapes import Numbers, Values

LOOPBACK: Final = 0x7F000000
HOSTS: Final = 2**24 - 2
"""How many addresses of 127.0.0.0/8 are used: all but the first and the last."""
SPREAD: Final = 10_368_889
"""Neighbours are this far apart; has no divisor in common with `HOSTS`, so that each has an address of its own."""
DAY_MS: Final = 86_400_000
SAMPLING_RATES: Final = np.array([100, 256, 1000, 1024, 2048, 4096])
IDS: Final = 8
"""Template ids are shifted by a multiple of 16: exporters with the same fields do not have the same ids."""
WRAPPING: Final = 16
"""One exporter in so many has an uptime, and another a sequence number, that soon goes through 2^32."""


@dataclass(frozen=True, slots=True)
class Exporters:
    """Exporters by number: columns of equal length."""

    address: Numbers
    """IPv4 addresses in 127.0.0.0/8 as numbers."""
    protocol: npt.NDArray[np.intp]
    """Which of the traffic's protocols each one speaks."""
    boot_ms: Numbers
    """When each was started, in milliseconds since 1970; more than a day before the traffic begins."""
    phase: Numbers
    """How far each is in its cycle of datagrams when the traffic begins, so that not all announce at once."""
    by_name: Values
    """What shapes write of an exporter, by the names of their marks."""

    def __len__(self) -> int:
        return len(self.address)


def make_exporters(count: int, protocols: int, start_ms: int, cycle: int) -> Exporters:
    """Make so many exporters; the same numbers give the same ones, whatever the seed."""
    number = np.arange(count, dtype=np.int64)
    mixed = number * 2_654_435_761 % 2**32
    boot_ms = start_ms - DAY_MS * (1 + mixed % 40) - mixed % 1009
    wraps_at = start_ms + 5000 * (1 + number // WRAPPING % 12)
    boot_ms = np.where(number % WRAPPING == 3, wraps_at - 2**32, boot_ms)
    address = LOOPBACK + 1 + number * SPREAD % HOSTS
    rate = SAMPLING_RATES[mixed % len(SAMPLING_RATES)]
    # Each protocol has its share of those whose counters wrap: their numbers are equal modulo a power of two.
    spoken = (number + number // WRAPPING) % protocols
    return Exporters(
        address=address,
        protocol=spoken.astype(np.intp),
        boot_ms=boot_ms,
        phase=mixed // 1024 % cycle,
        by_name={
            "address": address,
            "boot_ms": boot_ms,
            "domain": number,
            "first_sequence": np.where(number % WRAPPING == 5, 2**32 - 100, mixed),
            "sampling_rate": rate,
            "sampling_rate_template": rate * 8,
            "slot": number % 10,
            "template_shift": number % IDS * 16,
            **{f"sampling_rate_{sampler}": rate * 2**sampler for sampler in SAMPLERS},
        },
    )
