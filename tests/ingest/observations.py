"""What workers hear from exporters, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingest.decoders.headers import Heard
from tests.builders import mapped

WRAP = 2**32
NOW_NS = 1_700_000_000_000_000_000
EDGE = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class Said:
    """What one datagram said of its exporter."""

    sequence: int
    units: int = 1
    exact: bool = True
    source: str = EDGE
    domain: int = 0
    uptime_ms: int = 3_600_000
    received_ns: int = NOW_NS
    undecoded: int = 0


def heard(said: Sequence[Said], version: int = 9) -> Heard:
    """What a worker heard in one batch, of one protocol."""
    return Heard(
        version=version,
        source=np.array([list(mapped(one.source)) for one in said], np.uint8).reshape(-1, 16),
        domain=np.array([one.domain for one in said], np.uint32),
        sequence=np.array([one.sequence % WRAP for one in said], np.uint32),
        units=np.array([one.units for one in said], np.uint32),
        exact=np.array([one.exact for one in said], np.bool_),
        records=np.array([one.units for one in said], np.uint32),
        undecoded=np.array([one.undecoded for one in said], np.uint32),
        uptime_ms=None if version == 10 else np.array([one.uptime_ms % WRAP for one in said], np.uint32),
        received_ns=np.array([one.received_ns for one in said], np.int64),
    )


def stream(first: int, *units: int, **more: object) -> list[Said]:
    """Datagrams that follow each other without a gap, by how far each one moves the sequence on."""
    begins = np.cumsum([first, *units[:-1]]).tolist()
    return [replace(Said(begin, size), **more) for begin, size in zip(begins, units, strict=True)]  # type: ignore[arg-type]  # whatever a test wants to say
