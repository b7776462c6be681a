"""How samples of sFlow are numbered, made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ingest.decoders.headers import Headers
from ingest.decoders.samples import SampleNumbers
from ingest.decoders.sflow_elements import WITH_DROPS, SampleKind
from ingest.samples import GatheredSamples, SampleBlocks
from tests.builders import mapped
from tests.ingest.observations import NOW_NS, WRAP

AGENT = "192.0.2.10"
FLOW, COUNTERS, DISCARDED = SampleKind.FLOW, SampleKind.COUNTERS, SampleKind.DISCARDED


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that is alone in its datagram."""

    sequence: int
    drops: int = 0
    source: tuple[int, int] = (0, 3)
    kind: SampleKind = FLOW
    agent: str = AGENT
    sub_agent: int = 0
    uptime_ms: int = 3_600_000


def numbered(samples: Sequence[Sample]) -> Iterator[SampleNumbers]:
    """What a decoder says of a batch of them: a part a kind."""
    for kind in SampleKind:
        of_kind = [one for one in samples if one.kind is kind]
        if of_kind:
            yield _numbers(kind, of_kind)


def _numbers(kind: SampleKind, samples: Sequence[Sample]) -> SampleNumbers:
    nothing = np.zeros(len(samples), np.uint32)
    headers = Headers(
        version=0,
        source=np.array([list(mapped(one.agent)) for one in samples], np.uint8),
        domain=np.array([one.sub_agent for one in samples], np.uint32),
        sequence=nothing,
        exported_ns=np.full(len(samples), NOW_NS),
        uptime_ms=np.array([one.uptime_ms % WRAP for one in samples], np.uint32),
        received_ns=np.full(len(samples), NOW_NS),
        identity=nothing.astype(np.uint64),
        source_port=nothing.astype(np.uint16),
    )
    return SampleNumbers(
        kind=kind,
        headers=headers,
        row=np.arange(len(samples)),
        source_class=np.array([one.source[0] for one in samples]),
        source_index=np.array([one.source[1] for one in samples]),
        sequence=np.array([one.sequence % WRAP for one in samples]),
        drops=np.array([one.drops % WRAP for one in samples]) if kind in WITH_DROPS else None,
    )


def gathered(samples: Sequence[Sample]) -> SampleBlocks:
    """What a worker tells of a batch of them."""
    worker = GatheredSamples()
    worker.add(numbered(samples))
    blocks = worker.take()
    assert blocks is not None
    return blocks
