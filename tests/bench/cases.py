"""What is sent in a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ingest.generator.scenario import Scenario

EXPORTERS: Final = 1000
WARM_UP: Final = 2048
"""The first datagrams: every exporter's first one, which brings its templates, and as many more of the measured kind."""
SELDOM: Final = 5000
"""Templates are repeated so seldom that what is measured is nothing but data."""
OFTEN: Final = 20
"""Templates and options are repeated this often by the generator, and by many routers, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many datagrams of a case are measured, and how many are sent a second."""

    datagrams: int
    rate: float
    traffic: str = ""
    """Which of the case's traffic: one that it has beside its own, by its name."""


@dataclass(frozen=True, slots=True)
class Case:
    """Traffic of one kind. Every collector gets the same datagrams from the first on; a slower one gets fewer."""

    name: str
    text: str
    """What is sent, in a few words."""
    scenario: Scenario
    load: Load
    """What the ingest is given."""
    peer_load: Load | None
    """What a peer is given that does some 95,000 flows a second on a core; None: this case is ours alone."""
    peer_scheme: str = "netflow"
    """By what a peer is told which protocol comes: netflow (which is IPFIX too), sflow, or flow for any."""
    records: int | None = None
    """Only datagrams with so many records are measured; None: all."""
    workers: tuple[int, ...] = (1,)
    """With how many workers ingest is measured."""
    rounds: int = 3
    beside: Mapping[str, Scenario] = field(default_factory=dict)
    """Traffic that ingest is given in the same rounds, by what it has more than the case's own."""

    def at_most(self, seconds: float) -> Case:
        """The same case, of which no more is sent than takes so long."""

        def shorter(load: Load) -> Load:
            return replace(load, datagrams=min(load.datagrams, round(load.rate * seconds)))

        return replace(
            self, load=shorter(self.load), peer_load=None if self.peer_load is None else shorter(self.peer_load)
        )


FULL: Final = Load(120_000, 20_000)
PEER: Final = Load(12_500, 2_500)

CASES: Final = (
    Case(
        "v9",
        "NetFlow v9, 24 flows a datagram, 21 fields, 58 bytes a record",
        Scenario("v9", EXPORTERS, refresh=SELDOM, uniform=True),
        FULL,
        PEER,
        workers=(1, 2),
        rounds=5,
    ),
    Case(
        "v9-enriched",
        "as v9, with tags of security groups, of exporters that tell nothing of themselves; and the same of exporters"
        " whose options data tell rates, and the names of interfaces and of the groups",
        Scenario("v9-bare-grouped", EXPORTERS, refresh=SELDOM, uniform=True),
        FULL,
        None,
        rounds=5,
        beside={"rates and names": Scenario("v9-grouped", EXPORTERS, refresh=SELDOM, uniform=True)},
    ),
    Case(
        "v5",
        "NetFlow v5, 30 flows a datagram, 48 bytes a record",
        Scenario("v5", EXPORTERS, uniform=True),
        FULL,
        PEER,
    ),
    Case(
        "ipfix",
        "IPFIX, 20 flows a datagram, fields of fixed length",
        Scenario("ipfix", EXPORTERS, refresh=SELDOM, uniform=True),
        FULL,
        PEER,
    ),
    Case(
        "ipfix-variable",
        "IPFIX, 7 flows a datagram, each with fields of variable length",
        Scenario("ipfix", EXPORTERS, refresh=SELDOM),
        Load(75_000, 15_000),
        PEER,
        records=7,
    ),
    Case(
        "sflow",
        "sFlow v5, 7 samples a datagram, each of 128 bytes of a packet and an extended switch record",
        Scenario("sflow", EXPORTERS, uniform=True),
        FULL,
        PEER,
        peer_scheme="sflow",
    ),
    Case(
        "mix",
        "what `generate` sends by default: all protocols, IPv4 and IPv6, options, templates every 20 datagrams",
        Scenario("mix", EXPORTERS, refresh=OFTEN),
        Load(30_000, 5_000),
        PEER,
        peer_scheme="flow",
    ),
    Case(
        "v9-slow",
        "as v9, at 500 datagrams a second: small batches",
        Scenario("v9", EXPORTERS, refresh=SELDOM, uniform=True),
        Load(5_000, 500),
        None,
    ),
)
