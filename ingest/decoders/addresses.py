"""Addresses of 16 octets: IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2)."""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import numpy.typing as npt

Octets = npt.NDArray[np.uint8]

MAPPED: Final = np.frombuffer(b"\x00\x00\xff\xff\x00\x00\x00\x00", np.uint64)[0]
"""The second half of such an address without the address."""
SHIFT: Final = np.uint64(32 if sys.byteorder == "little" else 0)
"""By how much the address is shifted in that half, in the machine's byte order."""


def mapped(octets: Octets) -> Octets:
    """IPv4 addresses, [n, 4], as IPv6 addresses, [n, 16]."""
    halves = np.zeros((len(octets), 2), np.uint64)
    sent = octets.view(np.uint32)[:, 0].astype(np.uint64)
    sent <<= SHIFT
    sent |= MAPPED
    halves[:, 1] = sent
    return halves.view(np.uint8)
