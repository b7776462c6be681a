"""Bytes to columns: NetFlow v1, v5, v7 and v9, IPFIX and sFlow v5.

Nothing here reads a socket, a clock, Kafka, a metric or a log. The one effect of :func:`decode` is that templates are
learned. No input raises: what cannot be read is counted, and costs only itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.decoders import sflow5
from ingest.decoders.context import Context
from ingest.decoders.datagrams import Datagrams
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.headers import gather, windows, word16, word32
from ingest.decoders.netflow5 import NETFLOW1, NETFLOW5, NETFLOW7, decode_netflow5
from ingest.decoders.result import UNKNOWN_VERSION, Decoded
from ingest.decoders.templated import IPFIX, NETFLOW9, decode_templated

__all__ = ["Context", "Datagrams", "Decoded", "Fault", "Oddity", "Unit", "decode"]

SFLOW5: Final = 5
"""sFlow's version, a word of 32 bits."""

FIXED: Final = {form.version: form for form in (NETFLOW1, NETFLOW5, NETFLOW7)}
TEMPLATED: Final = {protocol.version: protocol for protocol in (NETFLOW9, IPFIX)}


def decode(datagrams: Datagrams, context: Context) -> Decoded:
    """Decode a batch of datagrams, each by its version word, whatever the port that it came to."""
    decoded = Decoded()
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, datagrams.length < 2)
    rows = np.flatnonzero(datagrams.length >= 2)
    version = word16(gather(datagrams.buffer, datagrams.offset[rows], 2), 0)
    decoded.version = np.full(len(datagrams), UNKNOWN_VERSION, np.uint16)
    known = np.zeros(len(rows), np.bool_)
    for number in np.unique(version).tolist():
        which = version == number
        if number == sflow5.VERSION:
            which &= datagrams.length[rows] >= 4
            which &= word32(windows(datagrams.buffer, datagrams.offset[rows], 4), 0) == SFLOW5
            sflow5.decode_sflow5(datagrams, rows[which], context, decoded)
        elif number in FIXED:
            decode_netflow5(FIXED[number], datagrams, rows[which], decoded)
        elif number in TEMPLATED:
            decode_templated(TEMPLATED[number], datagrams, rows[which], context, decoded)
        else:
            continue
        known |= which
        decoded.version[rows[which]] = number
    decoded.fault(Fault.UNKNOWN_VERSION, Unit.DATAGRAMS, ~known)
    return decoded
