"""Many received datagrams as columns over one buffer: what the decoders are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HEADROOM_BYTES = 16
"""Free bytes that lie before every datagram: the decoder writes the sampler address there, and hashes both in one go."""


@dataclass(frozen=True, slots=True, eq=False)
class Datagrams:
    """A batch of datagrams: columns of equal length n over one buffer.

    The buffer belongs to whoever made the batch and may be used again: a receiver's batch is valid until its next
    `receive`. Datagrams do not overlap, nor do the `HEADROOM_BYTES` before each of them, which whoever decodes may
    write.
    """

    buffer: npt.NDArray[np.uint8]
    """The bytes, one-dimensional and writable."""
    offset: npt.NDArray[np.int64]
    """Where each datagram begins in the buffer, [n]; at least `HEADROOM_BYTES`."""
    length: npt.NDArray[np.int64]
    """Bytes of each datagram, [n]; an empty datagram has 0."""
    source: npt.NDArray[np.uint8]
    """Source addresses, [n, 16], C-contiguous, in network byte order; IPv4 as ::ffff:a.b.c.d."""
    source_port: npt.NDArray[np.uint16]
    """Source ports, [n], in the byte order of the machine."""
    received_ns: npt.NDArray[np.int64]
    """When the kernel received each datagram, [n], in nanoseconds since 1970 UTC."""
    listener: npt.NDArray[np.int16]
    """Index of the listener in the configuration, [n]; 0 for what comes from a capture."""

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all datagrams together."""
        return int(self.length.sum())

    def payload(self, index: int) -> bytes:
        """A copy of one datagram's bytes; for tests and tools, not for the hot path."""
        begin = int(self.offset[index])
        return self.buffer[begin : begin + int(self.length[index])].tobytes()

    @classmethod
    def pack(
        cls,
        payloads: Sequence[bytes],
        sources: Sequence[bytes],
        ports: Sequence[int] | npt.NDArray[np.uint16],
        received_ns: Sequence[int] | npt.NDArray[np.int64],
    ) -> Datagrams:
        """Lay datagrams of a capture or a test out in a buffer of their own, with room before each.

        `sources` are addresses of 16 bytes, IPv4 as ::ffff:a.b.c.d. Raises ValueError when the sequences differ in
        length or an address is not of 16 bytes.
        """
        count = len(payloads)
        if not count == len(sources) == len(ports) == len(received_ns):
            raise ValueError(
                f"{count} payloads need as many sources, ports and times: "
                f"got {len(sources)}, {len(ports)} and {len(received_ns)}"
            )
        for address in sources:
            if len(address) != 16:
                raise ValueError(f"a source address has 16 bytes (IPv4 as ::ffff:a.b.c.d), not {len(address)}")
        length = np.fromiter(map(len, payloads), np.int64, count)
        room = HEADROOM_BYTES + length
        offset = np.cumsum(room) - length
        free = bytes(HEADROOM_BYTES)
        buffer = bytearray().join(part for payload in payloads for part in (free, payload))
        return cls(
            buffer=np.frombuffer(buffer, np.uint8),
            offset=offset,
            length=length,
            source=np.frombuffer(b"".join(sources), np.uint8).reshape(count, 16),
            source_port=np.asarray(ports, np.uint16),
            received_ns=np.asarray(received_ns, np.int64),
            listener=np.zeros(count, np.int16),
        )
