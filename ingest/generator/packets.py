"""What stands in a packet behind its IP header, by the protocol that this names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

TCP, UDP, ICMP, ICMP6, GRE = 6, 17, 1, 58, 47
TRANSPORT_BYTES: Final = 36
ACK: Final = 0x10
TCP_WORDS: Final = 0x50
"""A header of five words, in the octet before the flags."""
GRE_WITH_KEY: Final = 0x20000800
"""A key follows, and then IPv4 (RFC 2890)."""

# A small packet of IPv4 and UDP: what GRE carries, and what a message of ICMP is about.
CARRIED: Final = bytes.fromhex("4500001c00010000401166ce0a0000010a000002") + bytes.fromhex("8235003500080000")


def transport(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """The first octets behind each conversation's IP header, [n, TRANSPORT_BYTES].

    Where UDP has its length there are zeros, in the others too: the length is another in each packet. Checksums mean
    nothing, since what they are of was never sent.
    """
    proto, opaque = columns["proto"], columns["opaque"]
    rows = np.zeros((len(proto), TRANSPORT_BYTES), np.uint8)

    def put(of: int, at: int, dtype: str, values: npt.NDArray[Any] | int) -> None:
        chosen = np.flatnonzero(proto == of)
        octets = np.broadcast_to(values, proto.shape)[chosen].astype(dtype)
        width = octets.dtype.itemsize
        rows[chosen, at : at + width] = octets.view(np.uint8).reshape(len(chosen), width)

    for of in (TCP, UDP):
        put(of, 0, ">u2", columns["src_port"])
        put(of, 2, ">u2", columns["dst_port"])
    put(TCP, 6, ">u2", opaque & np.uint64(0xFFFF))  # of the sequence number
    put(TCP, 8, ">u4", np.where(columns["tcp_flags"] & ACK, opaque >> np.uint64(32), 0))  # what is acknowledged
    put(TCP, 12, "u1", TCP_WORDS)
    put(TCP, 13, "u1", columns["tcp_flags"])
    put(TCP, 14, ">u2", 64240)  # the window
    put(TCP, 16, ">u2", opaque >> np.uint64(16) & np.uint64(0xFFFF))
    # A checksum of 0 would mean that there is none, which UDP over IPv6 may not say.
    put(UDP, 6, ">u2", opaque % np.uint64(0xFFFF) + np.uint64(1))
    for of in (ICMP, ICMP6):
        put(of, 0, ">u2", columns["dst_port"])  # type and code
        put(of, 2, ">u2", opaque >> np.uint64(16) & np.uint64(0xFFFF))
    put(GRE, 0, ">u4", GRE_WITH_KEY)
    put(GRE, 6, ">u2", opaque & np.uint64(0xFFFF))  # of the key
    for of in (ICMP, GRE):
        rows[np.flatnonzero(proto == of), 8:] = np.frombuffer(CARRIED, np.uint8)
    return rows
