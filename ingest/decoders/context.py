"""What the decoders know besides the datagrams."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from ingest.decoders.enrich import Enrichment, Fact
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


@dataclass(frozen=True, slots=True)
class Context:
    """What the decoders know besides the datagrams; they add to both stores."""

    templates: Templates
    options: Options | None = None
    decapsulate: Collection[str] = ()
    """Tunnels of sampled frames whose inner header is the flow: gre, ipip, vxlan, geneve."""
