"""What the decoders know besides the datagrams."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingest.decoders.enrich import Enrichment, Fact
from ingest.decoders.groups import GroupNames
from ingest.decoders.options import OptionsData
from ingest.decoders.templates import Templates


class Options(Protocol):
    """Facts that options data told, and that records are joined with."""

    @property
    def enrichment(self) -> Enrichment:
        """What is joined to records."""

    def read(self, options: Iterable[OptionsData]) -> list[Fact]:
        """Learn from options data; returns what is new or has changed."""

    def learn(self, told: Iterable[Fact]) -> list[Fact]:
        """Take facts in; returns those that are new or have changed."""

    def learn_groups(self, told: GroupNames, sources: npt.NDArray[np.uint8], received_ns: int) -> list[Fact]:
        """Take in what flow records call security groups; ``sources`` are the exporters' addresses, [u, 16]."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the decoders know besides the datagrams; they add to both stores."""

    templates: Templates
    options: Options | None = None
    decapsulate: Collection[str] = ()
    """Tunnels of sampled frames whose inner header is the flow: gre, ipip, vxlan, geneve."""
