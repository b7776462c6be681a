"""Facts from options data: what devices say of their interfaces, VRFs, applications, groups, samplers and clocks."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np

from ingest.decoders.enrich import OF_A_DOMAIN, Enrichment, Fact, Kind, domain_keys, exporter_keys, text_keys
from ingest.decoders.lookup import mix
from ingest.decoders.options import OptionsData

FACTS: Final = 1 << 20
"""Facts of each kind that are kept; those beyond are refused and counted."""
FACTS_OF_AN_EXPORTER: Final = 1 << 16
"""Facts of all kinds that one exporter may have: enough for its interfaces and applications, not for everybody's."""

SGT_TAGS: Final = ("0:34000", "0:34001", "9:1232", "9:1233", "9:34000", "9:34001")
SGT_NAMES: Final = ("0:34002", "0:34003", "9:1234", "9:1235", "9:34002", "9:34003")

MOST: Final = int(np.iinfo(np.uint32).max)
"""The largest sampling rate that a record can tell."""

V9_INTERFACE: Final = "v9:2"
V9_TEMPLATE: Final = "v9:5"

Row = Mapping[str, object]
Told = tuple[Kind, int | str, int | str]


class OptionTables:
    """Facts of all exporters, bounded, and joined to records by :attr:`enrichment`. One thread uses it."""

    def __init__(self, limit: int = FACTS, exporter_limit: int = FACTS_OF_AN_EXPORTER) -> None:
        self.enrichment = Enrichment(limit, secrets.randbits(63))
        self._known: dict[tuple[Kind, bytes, int, int, int | str], int | str] = {}
        self._exporter_limit = exporter_limit
        self._of_exporter: Counter[bytes] = Counter()
        self.refused = 0
        """Facts for which there was no room, ever."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Fact]:
        """All facts: to learn again elsewhere."""
        for (kind, source, version, domain, about), value in self._known.items():
            yield Fact(kind, source, version, domain, about, value)

    def read(self, options: Iterable[OptionsData]) -> list[Fact]:
        """Learn from options data; returns what is new or has changed."""
        return self.learn(fact for data in options for fact in facts(data))

    def learn(self, told: Iterable[Fact]) -> list[Fact]:
        """Take facts in; returns those that are new or have changed."""
        changed = []
        for fact in told:
            of_a_domain = fact.kind in OF_A_DOMAIN
            where = (fact.version, fact.domain) if of_a_domain else (0, 0)
            key = (fact.kind, fact.source, *where, fact.about)
            known = self._known.get(key)
            if known == fact.value:
                continue
            crowded = known is None and self._of_exporter[fact.source] >= self._exporter_limit
            if crowded or not self.enrichment.put(fact.kind, self._hash(fact), fact.value):
                self.refused += 1
                continue
            self._of_exporter[fact.source] += known is None
            self._known[key] = fact.value
            changed.append(fact)
        return changed

    def name_groups(self, names: Mapping[int, str]) -> None:
        """Take the configured names of security groups, for those that neither records nor exporters tell."""
        self.enrichment.name_groups(names)

    def _hash(self, fact: Fact) -> int:
        seed = self.enrichment.seed
        keys = exporter_keys(np.frombuffer(fact.source, np.uint8).reshape(1, 16), seed)
        if fact.kind in OF_A_DOMAIN:
            keys = domain_keys(keys, fact.version, np.array([fact.domain], np.uint32))
        if isinstance(fact.about, str):
            return int(mix(keys, text_keys([fact.about]))[0])
        return int(mix(keys, np.array([fact.about], np.uint64).view(np.int64))[0])


def facts(data: OptionsData) -> Iterator[Fact]:
    """What the records of one options layout tell. Options are few: this goes row by row."""
    version = data.layout.version
    for row in data.batch.drop_columns(["time_received"]).to_pylist():
        # Whether an element stands in the scope or behind it differs from vendor to vendor.
        values: Row = {name.removeprefix("scope "): value for name, value in row.items() if value is not None}
        scope = {name.removeprefix("scope ") for name, value in row.items() if name.startswith("scope ")}
        source, domain = row["sampler_address"], row["observation_domain_id"]
        told: tuple[Told, ...] = (*_rates(values, scope), *_names(values), *_clocks(values))
        for kind, about, value in told:
            yield Fact(kind, source, version, domain, about, value)


def _number(row: Row, *names: str) -> int | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, int):
            return value
    return None


def sampling_rate(row: Row) -> int | None:
    """N of 1:N that a record tells: of 309/310, 305/306, 311, 50 and 34 the first that is there and is not 0.

    One that is larger than a record can tell is not known.
    """
    rate = next((rate for rate in _told_rates(row) if rate >= 1), None)
    return None if rate is None or rate > MOST else round(rate)


def _told_rates(row: Row) -> Iterator[float]:
    size, population = _number(row, "0:309"), _number(row, "0:310")
    if size and population is not None:
        yield population / size
    taken, skipped = _number(row, "0:305"), _number(row, "0:306")
    if taken and skipped is not None:
        yield (taken + skipped) / taken
    share = row.get("0:311")
    if isinstance(share, float) and 0 < share <= 1:
        yield 1 / share
    for name in ("0:50", "0:34"):
        interval = _number(row, name)
        if interval is not None:
            yield interval


def _rates(row: Row, scope: set[str]) -> Iterator[Told]:
    rate = sampling_rate(row)
    if rate is None:
        return
    sampler = _number(row, "0:302", "0:48")
    template = _number(row, "0:145", V9_TEMPLATE)
    interface = _number(row, *(name for name in ("0:10", V9_INTERFACE) if name in scope))
    if sampler is not None:
        yield Kind.SAMPLER_RATE, sampler, rate
    elif template is not None:
        yield Kind.TEMPLATE_RATE, template, rate
    elif interface is not None:
        yield Kind.INTERFACE_RATE, interface, rate
    else:
        yield Kind.DOMAIN_RATE, 0, rate


def _names(row: Row) -> Iterator[Told]:
    interface = _number(row, "0:10", V9_INTERFACE, "0:14")
    name = interface_name(row.get("0:82"), row.get("0:83"))
    if interface is not None and name is not None:
        yield Kind.INTERFACE_NAME, interface, name
    vrf, vrf_name = _number(row, "0:234", "0:235"), row.get("0:236")
    if vrf is not None and isinstance(vrf_name, str):
        yield Kind.VRF_NAME, vrf, vrf_name
    application, application_name = row.get("0:95"), row.get("0:96")
    if isinstance(application, str) and isinstance(application_name, str):
        yield Kind.APPLICATION_NAME, application, application_name
    tags = [row[name] for name in SGT_TAGS if name in row]
    names = [row[name] for name in SGT_NAMES if name in row]
    # Where Cisco documents the table no number stands: one tag and a name beside it make a row of it.
    if len(tags) == 1 and names and isinstance(tags[0], int) and isinstance(names[0], str):
        yield Kind.SGT_NAME, tags[0], names[0]


def interface_name(name: object, description: object) -> str | None:
    """The name of an interface out of elements 82 and 83.

    IOS-XR writes the name in 83, and in 82 the same with underscores for slashes; ASR 9000 sends 83 alone.
    """
    if isinstance(name, str) and isinstance(description, str) and description.replace("/", "_") == name:
        return description
    if isinstance(name, str):
        return name
    return description if isinstance(description, str) else None


def _clocks(row: Row) -> Iterator[Told]:
    booted = _number(row, "0:160")
    if booted is not None and booted < 1 << 62:
        yield Kind.BOOTED_MS, 0, booted
