"""How samples of sFlow are numbered.

A data source is an agent's, by its sub-agent; it numbers flow samples, counter samples and discarded packets each for
themselves (sFlow version 5, §5; sFlow Dropped Packet Notification Structures).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.decoders.enrich import exporter_keys
from ingest.decoders.headers import Headers, Index
from ingest.decoders.lookup import Keys, mix
from ingest.decoders.sflow_elements import SampleKind

Words = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class SampleNumbers:
    """How n samples of one kind are numbered: arrays of length n, in the order in which they came."""

    kind: SampleKind
    headers: Headers
    """Of the datagrams."""
    row: Index
    """The datagram of each sample."""
    source_class: Words
    """Type of the data source: 0 an interface, 1 a VLAN, 2 a physical entity, …"""
    source_index: Words
    sequence: Words
    drops: Words | None
    """How many samples the agent says it has dropped, ever; counter samples do not tell."""

    def keys(self, seed: int) -> Keys:
        """A key for each sample's data source and kind."""
        agents = agent_keys(self.headers.source, self.headers.domain, self.kind, seed)
        return source_keys(agents[self.row], self.source_class, self.source_index)


def agent_keys(agent: npt.NDArray[np.uint8], sub_agent: Words, kind: Words | SampleKind, seed: int) -> Keys:
    """A key for each agent's samples of a kind: agents are addresses, [n, 16]."""
    return mix(exporter_keys(agent, seed), sub_agent.astype(np.int64) << 8 | kind)


def source_keys(agents: Keys, source_class: Words, source_index: Words) -> Keys:
    """Hash data sources into the keys of their agents, [n]."""
    return mix(agents, source_class.astype(np.int64) << 32 | source_index.astype(np.int64))
