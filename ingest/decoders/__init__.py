"""Bytes to columns: NetFlow v5, NetFlow v9 and IPFIX.

Nothing here reads a socket, a clock, Kafka, a metric or a log. The one effect of :func:`decode` is that templates are
learned. No input raises: what cannot be read is counted, and costs only itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.decoders.datagrams import Datagrams
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.headers import gather, word16
from ingest.decoders.netflow5 import decode_netflow5
from ingest.decoders.result import Decoded
from ingest.decoders.templated import IPFIX, NETFLOW9, decode_templated
from ingest.decoders.templates import Templates

__all__ = ["Datagrams", "Decoded", "Fault", "Oddity", "Unit", "decode"]

TEMPLATED: Final = {protocol.version: protocol for protocol in (NETFLOW9, IPFIX)}


def decode(datagrams: Datagrams, templates: Templates) -> Decoded:
    """Decode a batch of datagrams, each by its version word, whatever the port that it came to."""
    decoded = Decoded()
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, datagrams.length < 2)
    rows = np.flatnonzero(datagrams.length >= 2)
    version = word16(gather(datagrams.buffer, datagrams.offset[rows], 2), 0)
    decoded.version = np.zeros(len(datagrams), np.uint16)
    decoded.version[rows] = version
    known = np.zeros(len(rows), np.bool_)
    for number in np.unique(version).tolist():
        which = version == number
        if number == 5:
            decode_netflow5(datagrams, rows[which], decoded)
        elif number in TEMPLATED:
            decode_templated(TEMPLATED[number], datagrams, rows[which], templates, decoded)
        else:
            continue
        known |= which
    decoded.fault(Fault.UNKNOWN_VERSION, Unit.DATAGRAMS, ~known)
    return decoded
