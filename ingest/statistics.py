"""What exporters report of themselves in options data: how much they exported, ignored, and could not send.

These are totals since the exporter began (RFC 7011 §4.1 to §4.3, RFC 3954 §8). They are told for a scope: the exporter
as a whole, an observation domain, a template; what a narrow one tells is told by the wide one too.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from ingest.decoders.layout import Layout
from ingest.decoders.options import OptionsData, column_name

STATISTICS: Final = {
    "0:40": "exported_octets",
    "0:41": "exported_messages",
    "0:42": "exported_flow_records",
    "0:163": "observed_flows",
    "0:164": "ignored_packets",
    "0:165": "ignored_octets",
    "0:166": "not_sent_flows",
    "0:167": "not_sent_packets",
    "0:168": "not_sent_octets",
}
"""Elements that are such totals, and what they are called here; in NetFlow v9 40 to 42 are TOTAL_…_EXP."""

LONGEST: Final = 8
"""Bytes of a number, and of what tells its length itself."""
FEW_ROWS: Final = 64
"""More rows of one layout in a batch of datagrams are first reduced to the last of each scope."""
MOST_ROWS: Final = 4096
"""Of one layout so many rows are read in a batch of datagrams: those beyond are sent to keep us busy."""
LONGEST_VALUE: Final = 64
"""Characters of a scope's value: an exporter may send 60,000 bytes for one, and its text is kept with each total."""
LONGEST_SCOPE: Final = 256
"""Characters of all values of a scope, of which a template may have a thousand."""
WHO: Final = ("sampler_address", "observation_domain_id")
LIMIT: Final = 1 << 16
"""Totals that are kept, each scope's apart."""
LIMIT_OF_AN_EXPORTER: Final = 1 << 10
"""Totals that one exporter may have: enough for its templates, not for everybody's."""
MOST_READINGS: Final = 1 << 16
"""With more readings than this gathered, they are counted at once."""


class Scope(NamedTuple):
    """A scope that is known: its name, and how narrow it is."""

    name: str
    narrowness: int


SCOPES: Final = {
    "v9:1": Scope("system", 0),
    "0:144": Scope("exporting process", 0),
    "0:130": Scope("exporter", 0),
    "0:131": Scope("exporter", 0),
    "0:149": Scope("observation domain", 1),
    "0:143": Scope("metering process", 2),
    "0:141": Scope("line card", 3),
    "v9:3": Scope("line card", 3),
    "v9:4": Scope("cache", 3),
    "0:10": Scope("interface", 4),
    "v9:2": Scope("interface", 4),
    "0:48": Scope("sampler", 4),
    "0:302": Scope("selector", 4),
    "0:138": Scope("observation point", 4),
    "0:234": Scope("VRF", 4),
    "0:145": Scope("template", 5),
    "v9:5": Scope("template", 5),
}
NARROWEST: Final = 6
"""A scope that is not known is taken for the narrowest."""
NO_SCOPE: Final = frozenset({"0:160", *STATISTICS})
"""What stands in YAF's scope and is none: when it began, and a statistic."""
NO_SCOPE_BEHIND: Final = frozenset({"0:130", "0:131"})
"""What Juniper and YAF tell besides: the exporter's address, which tells nothing apart."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A total as an exporter told it."""

    source: bytes
    """Address of 16 bytes."""
    version: int
    domain: int
    scope: str
    narrowness: int
    statistic: str
    value: int
    octets: int
    """Of the field: where the total begins at 0 again."""
    received_ns: int


@dataclass(frozen=True, slots=True)
class ReportedFacts:
    """What an exporter reports of itself in one scope: its totals as it told them last."""

    source: bytes
    version: int
    domain: int
    scope: str
    totals: Mapping[str, int]


def read_statistics(options: Iterable[OptionsData]) -> tuple[list[Reading], int]:
    """The totals in options data, and how many were passed over since a batch of datagrams had too many of them."""
    readings: list[Reading] = []
    passed_over = 0
    for data in options:
        # Whether an element stands in the scope or behind it differs from vendor to vendor.
        columns = {_element(name): name for name in reversed(data.batch.schema.names)}
        told = {columns[element]: statistic for element, statistic in STATISTICS.items() if element in columns}
        if told:
            scope = {name: SCOPES.get(element, Scope(element, NARROWEST)) for element, name in _scopes(columns)}
            batch = _latest(data.batch, list(scope))
            passed_over += len(told) * max(0, batch.num_rows - MOST_ROWS)
            readings.extend(_readings(data.layout, batch[:MOST_ROWS], told, scope))
    return readings, passed_over


def _latest(batch: pa.RecordBatch, scope: list[str]) -> pa.RecordBatch:
    """Of many rows the last of each scope; the others are only steps on the way to it."""
    if batch.num_rows <= FEW_ROWS:
        return batch
    row = pa.array(np.arange(batch.num_rows))
    rows = pa.table({**{name: batch.column(name) for name in (*WHO, *scope)}, "row": row})
    last = rows.group_by([*WHO, *scope]).aggregate([("row", "max")]).column("row_max")
    return batch.take(pa.array(np.sort(last.to_numpy())))


def _readings(
    layout: Layout, batch: pa.RecordBatch, told: dict[str, str], scope: dict[str, Scope]
) -> Iterator[Reading]:
    octets = {column_name(layout, at): min(field.length, LONGEST) for at, field in enumerate(layout.fields)}
    received = batch.column("time_received").cast(pa.int64()).to_pylist()
    rows = batch.select([*WHO, *told, *scope]).to_pylist()
    for row, received_ns in zip(rows, received, strict=True):
        of = {name: row[name] for name in reversed(scope) if row[name] is not None}
        values = (f"{scope[name].name} {_short(_text(name, value), LONGEST_VALUE)}" for name, value in of.items())
        text = _short(", ".join(values), LONGEST_SCOPE)
        narrowness = max((_narrowness(scope[name], value) for name, value in of.items()), default=0)
        for name, statistic in told.items():
            if isinstance(row[name], int):
                yield Reading(
                    source=row["sampler_address"],
                    version=layout.version,
                    domain=row["observation_domain_id"],
                    scope=text,
                    narrowness=narrowness,
                    statistic=statistic,
                    value=row[name],
                    octets=octets[name],
                    received_ns=received_ns,
                )


def _scopes(columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The columns that tell of whom something is told, by element."""
    for element, name in columns.items():
        in_scope = element != name
        if element not in NO_SCOPE and (in_scope or (element in SCOPES and element not in NO_SCOPE_BEHIND)):
            yield element, name


def _narrowness(scope: Scope, value: object) -> int:
    # Observation domain 0 stands for the exporter as a whole (RFC 7011 §3.1).
    return 0 if scope == SCOPES["0:149"] and value == 0 else scope.narrowness


def _element(column: str) -> str:
    return column.removeprefix("scope ")


def _text(column: str, value: object) -> str:
    if isinstance(value, bytes):
        return str(ipaddress.IPv6Address(value)) if len(value) == 16 else value.hex()
    if _element(column) == "0:130" and isinstance(value, int) and value < 1 << 32:
        return str(ipaddress.IPv4Address(value))
    return str(value)


def _short(text: str, most: int) -> str:
    """A text of so many characters at most: of a longer one the beginning, and a hash that tells it from others."""
    if len(text) <= most:
        return text
    end = f"… {xxhash.xxh3_64_hexdigest(text.encode())}"
    return text[: most - len(end)] + end


@dataclass(slots=True)
class _Total:
    """A total as it was told last."""

    value: int
    received_ns: int


_Of = tuple[bytes, int, int, str]
"""Whose total: exporter, version, domain, scope."""


class Statistics:
    """Totals that exporters report, and by how much they rose since we heard of them. One thread uses it at a time.

    Of a statistic that an exporter tells for several scopes the widest counts, so that nothing is counted twice. Totals
    of one scope that come by several observation domains are added up: line cards have an exporting process each, and
    may number them alike. A total that fell was begun anew and is counted on from there: what it had come to by then is
    not known to be new.
    """

    def __init__(
        self, limit: int = LIMIT, exporter_limit: int = LIMIT_OF_AN_EXPORTER, most_readings: int = MOST_READINGS
    ) -> None:
        self._limit = limit
        self._exporter_limit = exporter_limit
        self._most_readings = most_readings
        self._totals: dict[tuple[_Of, str], _Total] = {}
        self._of_exporter: Counter[bytes] = Counter()
        self._widest: dict[tuple[bytes, int, str], int] = {}
        self._waiting: list[Reading] = []
        self._gathered: list[Reading] = []
        self.rise: Counter[tuple[bytes, str]] = Counter()
        """By exporter and statistic."""
        self.unlisted = 0
        """Readings of totals for which there was no room."""

    def __len__(self) -> int:
        return len(self._totals)

    def hear(self, readings: Iterable[Reading]) -> None:
        """Take in what a worker read."""
        self._gathered.extend(readings)
        if len(self._gathered) > self._most_readings:
            self.settle()

    def settle(self, *, everything: bool = False) -> None:
        """Count what was heard by the last call, in the order in which it was received; to be called every few seconds.

        Workers tell what they read each in its own time. With ``everything``, nothing is waited for any more.
        """
        until = max((reading.received_ns for reading in self._waiting), default=0)
        said = [*self._waiting, *self._gathered]
        due = said if everything else [reading for reading in said if reading.received_ns <= until]
        self._waiting = [] if everything else [reading for reading in said if reading.received_ns > until]
        self._gathered = []
        for reading in sorted(due, key=lambda one: (one.received_ns, one.value)):
            self._count(reading)

    def facts(self) -> list[ReportedFacts]:
        """What exporters report, by scope, in the order in which it was first told."""
        found: dict[_Of, dict[str, int]] = {}
        for (of, statistic), total in self._totals.items():
            found.setdefault(of, {})[statistic] = total.value
        return [ReportedFacts(*of, totals) for of, totals in found.items()]

    def _count(self, reading: Reading) -> None:
        source, statistic = reading.source, reading.statistic
        key = ((source, reading.version, reading.domain, reading.scope), statistic)
        total = self._totals.get(key)
        if total is None:
            if len(self._totals) >= self._limit or self._of_exporter[source] >= self._exporter_limit:
                self.unlisted += 1
                return
            self._of_exporter[source] += 1
            total = self._totals[key] = _Total(reading.value, reading.received_ns)
        if reading.received_ns < total.received_ns:
            return
        of = (source, reading.version, statistic)
        widest = self._widest[of] = min(reading.narrowness, self._widest.get(of, NARROWEST))
        counts = reading.narrowness == widest
        self.rise[source, statistic] += _rise(total.value, reading.value, reading.octets) if counts else 0
        total.value, total.received_ns = reading.value, reading.received_ns


def _rise(before: int, now: int, octets: int) -> int:
    """By how much a total rose; from its last quarter into its first it went on through its end."""
    if now >= before:
        return now - before
    end = 1 << 8 * octets
    return now + end - before if before >= end - end // 4 and now < end // 4 else 0
