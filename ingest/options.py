"""Facts from options data, and names of security groups from flow records: what devices say of themselves."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders.enrich import OF_A_DOMAIN, Enrichment, Fact, Kind, domain_keys, exporter_keys, text_keys, values_of
from ingest.decoders.groups import GroupNames
from ingest.decoders.lookup import MISSING, Keys, Lookup, mix
from ingest.decoders.options import OptionsData

FACTS: Final = 1 << 20
"""Facts of each kind that are kept; those beyond are refused and counted."""
FACTS_OF_AN_EXPORTER: Final = 1 << 16
"""Facts of all kinds that one exporter may have: enough for its interfaces and applications, not for everybody's."""

GROUPS_OF_AN_EXPORTER: Final = 1 << 13
"""Names of security groups that its flow records may tell besides: they take no room from what its options data do."""
GROUPS_AT_ONCE: Final = 1 << 12
"""Names, and groups with one that is new, of which flow records tell in a batch; what is over is counted as refused."""
HELD_NS: Final = 600_000_000_000
"""A name that flow records gave a group is replaced by another of theirs after ten minutes: records that call one group
by two names do not have every worker change its mind with each batch."""
UNDATED: Final = 0
"""Stands for when a name came that another worker learned: its ten minutes begin when a record here says otherwise."""
FREE_BYTES: Final = 256
"""A name that is longer than this counts as so many more facts."""

ROWS: Final = 1 << 18
"""Records of options data that are remembered. When there are more, all are forgotten and read again."""

SGT_TAGS: Final = ("0:34000", "0:34001", "9:1232", "9:1233", "9:34000", "9:34001")
SGT_NAMES: Final = ("0:34002", "0:34003", "9:1234", "9:1235", "9:34002", "9:34003")

MOST: Final = int(np.iinfo(np.uint32).max)
"""The largest sampling rate that a record can tell, and the largest observation domain."""

V9_INTERFACE: Final = "v9:2"
V9_TEMPLATE: Final = "v9:5"

DOMAIN: Final = "0:149"
OF_ALL_RECORDS: Final = frozenset(
    {"v9:1", "v9:3", "v9:4", DOMAIN, *(f"0:{element}" for element in (130, 131, 138, 141, 142, 143, 144, 211, 403))}
)
"""Scopes of which a rate is that of all records of the domain: the system, its parts, and who observes and exports. The
rate of any other scope, such as a VRF's, is nobody's: records do not tell of which of these they are."""

Row = Mapping[str, object]
Told = tuple[Kind, int | str, int | str]


class Share(Enum):
    """What one exporter may have of the room that there is for all."""

    FACTS = auto()
    """Facts of options data."""
    NAMES = auto()
    """Names that took another's place."""
    GROUPS = auto()
    """Names of security groups that its flow records tell."""


class OptionTables:
    """Facts of all exporters, bounded, and joined to records by :attr:`enrichment`. One thread uses it."""

    def __init__(self, limit: int = FACTS, exporter_limit: int = FACTS_OF_AN_EXPORTER) -> None:
        self.enrichment = Enrichment(limit, secrets.randbits(63))
        self._known: dict[tuple[Kind, bytes, int, int, int | str], int | str] = {}
        self._shares = {
            Share.FACTS: exporter_limit,
            Share.NAMES: exporter_limit,
            Share.GROUPS: min(exporter_limit, GROUPS_OF_AN_EXPORTER),
        }
        self._taken: Counter[tuple[bytes, Share]] = Counter()
        self._seen = Lookup(ROWS)
        """Records of options that were read before: devices repeat them all the time."""
        self._changes: Counter[bytes] = Counter()
        """How often an exporter changed its mind: what it had told before then counts again when it comes again."""
        self._replaced = 0
        self._named_ns = Lookup(limit)
        """When a group got the name that flow records gave it, in nanoseconds since 1970."""
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
        changed = []
        for data in options:
            keys = self._row_keys(data)
            fresh = None if keys is None else np.flatnonzero(self._seen.get(keys) == MISSING)
            if fresh is not None and len(fresh) == 0:
                continue
            refused, replaced = self.refused, self._replaced
            changed.extend(self.learn(facts(data, fresh)))
            if fresh is not None and len(fresh) < len(data.batch) and self._replaced > replaced:
                # What was read before and comes again behind what took its place counts again.
                changed.extend(self.learn(facts(data)))
            if keys is not None and fresh is not None and self.refused == refused:
                self._remember(keys[fresh].tolist())
        return changed

    def _row_keys(self, data: OptionsData) -> Keys | None:
        """By what is known whether a record of options was read before, and nothing of its exporter changed since."""
        if data.hashes is None:
            return None
        source, domain = (data.batch.column(name) for name in ("sampler_address", "observation_domain_id"))
        octets = np.frombuffer(source.buffers()[1], np.uint8).reshape(-1, 16)
        exporters = exporter_keys(octets, self.enrichment.seed)
        changes = [self._changes[octets[row].tobytes()] for row in range(len(octets))] if self._changes else 0
        keys = mix(domain_keys(exporters, data.layout.version, values_of(domain)), np.asarray(changes, np.int64))
        return mix(mix(keys, hash(data.layout)), data.hashes)

    def _remember(self, keys: Iterable[int]) -> None:
        for key in keys:
            if not self._seen.put(key, 1):
                self._seen = Lookup(ROWS)
                self._seen.put(key, 1)

    def learn(self, told: Iterable[Fact]) -> list[Fact]:
        """Take facts in; returns those that are new or have changed."""
        changed = []
        told = list(told)
        for fact, exporter, hashed in zip(told, *self._hashes(told), strict=True):
            of_a_domain = fact.kind in OF_A_DOMAIN
            where = (fact.version, fact.domain) if of_a_domain else (0, 0)
            key = (fact.kind, fact.source, *where, fact.about)
            known = self._known.get(key)
            if known == fact.value:
                continue
            share, cost = self._cost(fact, known)
            crowded = cost and self._taken[fact.source, share] + cost > self._shares[share]
            if crowded or not self.enrichment.put(fact.kind, hashed, fact.value, exporter, fact.about):
                self.refused += 1
                continue
            if fact.kind is Kind.RECORD_SGT_NAME:
                self._named_ns.put(hashed, UNDATED)
            if cost:
                self._taken[fact.source, share] += cost
            if known is not None:
                self._changes[fact.source] += 1
                self._replaced += 1
            self._known[key] = fact.value
            changed.append(fact)
        return changed

    def _cost(self, fact: Fact, known: int | str | None) -> tuple[Share, int]:
        """From which of its exporter's shares a fact takes room, and how much."""
        share = Share.NAMES if known is not None else Share.GROUPS if fact.kind is Kind.RECORD_SGT_NAME else Share.FACTS
        if isinstance(fact.value, str) and self.enrichment.number_of(fact.value) == MISSING:
            # A name is kept for good, also when the fact gets another.
            return share, 1 + len(fact.value.encode()) // FREE_BYTES
        return share, int(known is None)

    def learn_groups(self, told: GroupNames, sources: npt.NDArray[np.uint8], received_ns: int) -> list[Fact]:
        """Take in what flow records call security groups; returns what is new or has changed.

        ``sources`` are the exporters' addresses, [u, 16]. What options data call a group stands over it.
        """
        enrichment = self.enrichment
        names = told.names[:GROUPS_AT_ONCE].to_pylist()
        numbers = np.array([enrichment.number_of(name) for name in names], np.int64)
        few = told.numbers < len(names)
        self.refused += int(np.count_nonzero(~few))
        keys, which = mix(told.exporters, told.tags)[few], np.flatnonzero(few)
        wanted, known = numbers.take(told.numbers[few]), enrichment.numbers(Kind.RECORD_SGT_NAME, keys)
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else which
        if len(begins) == 0:
            return []
        as_known = np.logical_or.reduceat((wanted == known) & (known != MISSING), begins)
        by_table = enrichment.numbers(Kind.SGT_NAME, keys[begins]) != MISSING
        # Of several new names of a group the first counts.
        begins = begins[~(as_known | by_table)]
        since = self._named_ns.get(keys[begins])
        for key in keys[begins[since == UNDATED]].tolist():
            self._named_ns.put(key, received_ns)
        held = (since == UNDATED) | ((since != MISSING) & (received_ns - since < HELD_NS))
        new = which[begins[~held]]
        self.refused += max(0, len(new) - GROUPS_AT_ONCE)
        new = new[:GROUPS_AT_ONCE]
        tags, texts = told.tags[new].tolist(), told.numbers[new].tolist()
        rows = [row.tobytes() for row in sources[new]]
        changed = self.learn(
            Fact(Kind.RECORD_SGT_NAME, source, 0, 0, tag, names[text])
            for source, tag, text in zip(rows, tags, texts, strict=True)
        )
        for key in self._hashes(changed)[1]:
            self._named_ns.put(key, received_ns)
        return changed

    def name_groups(self, names: Mapping[int, str]) -> None:
        """Take the configured names of security groups, for those that neither records nor exporters tell."""
        self.enrichment.name_groups(names)

    def _hashes(self, told: Sequence[Fact]) -> tuple[list[int], list[int]]:
        """The key of each fact's exporter, and that by which the fact is asked for.

        All at a time: an instance that starts learns hundreds of thousands.
        """
        if not told:
            return [], []
        octets = np.frombuffer(b"".join([fact.source for fact in told]), np.uint8).reshape(-1, 16)
        exporters = exporter_keys(octets, self.enrichment.seed)
        keys = exporters.copy()
        which = [place for place, fact in enumerate(told) if fact.kind in OF_A_DOMAIN]
        if which:
            versions = np.array([told[place].version for place in which], np.int64)
            domains = np.array([told[place].domain for place in which], np.uint32)
            keys[which] = mix(mix(keys[which], versions), domains)
        about = np.array([fact.about if isinstance(fact.about, int) else 0 for fact in told], np.uint64).view(np.int64)
        texts = {place: fact.about for place, fact in enumerate(told) if isinstance(fact.about, str)}
        if texts:
            about[list(texts)] = text_keys(list(texts.values()))
        return exporters.tolist(), mix(keys, about).tolist()


def facts(data: OptionsData, rows: npt.NDArray[np.int64] | None = None) -> Iterator[Fact]:
    """What the records of one options layout tell, or some of them. Options are few: this goes row by row."""
    version = data.layout.version
    batch = data.batch.drop_columns(["time_received"])
    for row in (batch if rows is None or len(rows) == len(batch) else batch.take(pa.array(rows))).to_pylist():
        # Whether an element stands in the scope or behind it differs from vendor to vendor.
        values: Row = {name.removeprefix("scope "): value for name, value in row.items() if value is not None}
        scope = {name.removeprefix("scope ") for name, value in row.items() if name.startswith("scope ")}
        source, domain = row["sampler_address"], row["observation_domain_id"]
        of = _number(values, DOMAIN) if DOMAIN in scope else None
        if of is not None and 0 < of <= MOST:
            # It may be told in the messages of another domain, often 0, which itself stands for none.
            domain = of
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
    samplers = {number for name in ("0:302", "0:48") if (number := _number(row, name)) is not None}
    template = _number(row, "0:145", V9_TEMPLATE)
    interface = _number(row, *(name for name in ("0:10", "0:14", V9_INTERFACE) if name in scope))
    if samplers:
        # Records name either of them.
        yield from ((Kind.SAMPLER_RATE, sampler, rate) for sampler in samplers)
    elif template is not None:
        yield Kind.TEMPLATE_RATE, template, rate
    elif interface is not None:
        yield Kind.INTERFACE_RATE, interface, rate
    elif scope <= OF_ALL_RECORDS:
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
