"""What is known of each exporter: when it was last heard, how much it sent, and what its sequence numbers say is lost."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.enrich import domain_keys, exporter_keys
from ingest.decoders.headers import Heard
from ingest.decoders.lookup import Keys
from ingest.numbering import NO_ROOM, Numbering
from ingest.sequences import MOST_OBSERVATIONS, UNTOLD, Observations, Sequences

KEY_BYTES: Final = 22
"""Exporter (16 bytes), version (2) and observation domain (4)."""

LIMIT: Final = 1 << 16
"""Rows of the table."""
LIMIT_OF_AN_EXPORTER: Final = 1 << 12
"""Rows that one exporter may have: enough for its domains, not for everybody's, since a domain is what a datagram says."""


@dataclass(frozen=True, slots=True)
class ExporterFacts:
    """What is known of one exporter and observation domain.

    ``lost`` is in the unit of the protocol's sequence: flows (NetFlow v5), datagrams (v9), records (IPFIX);
    ``undecoded`` counts sets that were broken or came before their template; rates are those of the last few seconds;
    ``uncertain`` counts gaps after a datagram whose records could not be counted, which may be no loss.
    """

    exporter: str
    version: int
    observation_domain_id: int
    first_seen_ns: int
    last_seen_ns: int
    datagrams: int
    records: int
    undecoded: int
    datagrams_per_second: float
    records_per_second: float
    lost: int
    uncertain: int
    restarts: int


class _Table:
    """Growing columns, one row an exporter and domain."""

    def __init__(self) -> None:
        self.told = np.zeros(0, np.int64)
        self.datagrams = np.zeros(0, np.int64)
        self.records = np.zeros(0, np.int64)
        self.undecoded = np.zeros(0, np.int64)
        self.datagrams_before = np.zeros(0, np.int64)
        self.records_before = np.zeros(0, np.int64)
        self.datagram_rate = np.zeros(0, np.float64)
        self.record_rate = np.zeros(0, np.float64)
        self.first_seen = np.zeros(0, np.int64)
        self.last_seen = np.zeros(0, np.int64)

    def grow(self, rows: int) -> None:
        for name, column in vars(self).items():
            if rows > len(column):
                grown = np.zeros(max(rows, 2 * len(column), 64), column.dtype)
                grown[: len(column)] = column
                setattr(self, name, grown)


class Exporters:
    """A bounded table of exporters by address, version and observation domain. One thread uses it at a time.

    Those over the bound, of all or of one exporter, are not told apart: their datagrams are counted in ``unlisted``.
    """

    def __init__(
        self,
        limit: int = LIMIT,
        exporter_limit: int = LIMIT_OF_AN_EXPORTER,
        most_observations: int = MOST_OBSERVATIONS,
    ) -> None:
        self._limit = limit
        self._exporter_limit = exporter_limit
        self._rows: dict[bytes, int] = {}
        self._numbering = Numbering(limit)
        self._sources = Numbering(limit)
        self._of_source = np.zeros(limit, np.int64)
        """How many rows each exporter has, by its number."""
        self._seed = secrets.randbits(64)
        self._table = _Table()
        self._sequences = Sequences(most_observations)
        self.unlisted = 0
        """Datagrams of exporters for which the table had no room."""

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: bytes) -> int:
        """Which row is that of an exporter, version and observation domain; -1 where there is none."""
        return self._rows.get(key, -1)

    def hear(self, heard: Heard) -> npt.NDArray[np.int64]:
        """Take in what a worker heard; returns the row of each datagram's exporter, -1 where there is none."""
        rows = self._find(heard)
        listed = rows >= 0
        self.unlisted += int(np.count_nonzero(~listed))
        table = self._table
        size = len(self._rows)
        known = rows[listed]
        table.datagrams[:size] += np.bincount(known, minlength=size)
        table.records[:size] += np.bincount(known, heard.records[listed], size).astype(np.int64)
        table.undecoded[:size] += np.bincount(known, heard.undecoded[listed], size).astype(np.int64)
        received = heard.received_ns[listed]
        new = table.first_seen[known] == 0
        # Backwards, so that the first of several stays.
        table.first_seen[known[new][::-1]] = received[new][::-1]
        np.maximum.at(table.last_seen, known, received)
        nothing = np.zeros(len(known), np.int64)
        self._sequences.gather(
            Observations(
                row=known,
                sequence=heard.sequence[listed].astype(np.int64),
                units=heard.units[listed].astype(np.int64),
                exact=heard.exact[listed],
                uptime=_uptime(heard)[listed],
                first_total=nothing,
                last_total=nothing,
            )
        )
        return rows

    def settle(self, *, everything: bool = False) -> dict[str, int]:
        """Count what is missing; returns the new losses by exporter. To be called as :meth:`Sequences.settle`."""
        self._sequences.settle(everything=everything)
        lost: dict[str, int] = {}
        size = len(self._rows)
        new = self._sequences.lost[:size] - self._table.told[:size]
        self._table.told[:size] += new
        changed = np.flatnonzero(new)
        if len(changed):
            keys = list(self._rows)
            for row in changed.tolist():
                name = address_text(keys[row][:16])
                lost[name] = lost.get(name, 0) + int(new[row])
        return lost

    def measure(self, seconds: float) -> None:
        """Take the rates of the ``seconds`` since the last call."""
        table = self._table
        table.datagram_rate = (table.datagrams - table.datagrams_before) / seconds
        table.record_rate = (table.records - table.records_before) / seconds
        table.datagrams_before, table.records_before = table.datagrams.copy(), table.records.copy()

    def facts(self) -> list[ExporterFacts]:
        """All that is known, in the order in which exporters were first heard."""
        table, sequences = self._table, self._sequences
        return [
            ExporterFacts(
                exporter=address_text(key[:16]),
                version=int.from_bytes(key[16:18]),
                observation_domain_id=int.from_bytes(key[18:22]),
                first_seen_ns=int(table.first_seen[row]),
                last_seen_ns=int(table.last_seen[row]),
                datagrams=int(table.datagrams[row]),
                records=int(table.records[row]),
                undecoded=int(table.undecoded[row]),
                datagrams_per_second=round(float(table.datagram_rate[row]), 1),
                records_per_second=round(float(table.record_rate[row]), 1),
                lost=int(sequences.lost[row]),
                uncertain=int(sequences.uncertain[row]),
                restarts=int(sequences.restarts[row]),
            )
            for key, row in list(self._rows.items())
        ]

    def _find(self, heard: Heard) -> npt.NDArray[np.int64]:
        """The row of each datagram's exporter, made where it is new and there is room; -1 elsewhere."""
        exporters = exporter_keys(heard.source, self._seed)
        keys = domain_keys(exporters, heard.version, heard.domain)
        rows = self._numbering.find(keys)
        missing = np.flatnonzero(rows == NO_ROOM)
        if len(missing) == 0 or len(self._numbering) == self._limit:
            return rows
        _, first = np.unique(keys[missing], return_index=True)
        new = self._with_room(exporters, missing[np.sort(first)])
        if len(new):
            self._numbering.number(keys[new])
            version = heard.version.to_bytes(2)
            for source, domain in zip(heard.source[new], heard.domain[new].tolist(), strict=True):
                self._rows[source.tobytes() + version + domain.to_bytes(4)] = len(self._rows)
            self._table.grow(len(self._rows))
            self._sequences.grow(len(self._rows))
            rows[missing] = self._numbering.find(keys[missing])
        return rows

    def _with_room(self, exporters: Keys, new: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the datagrams with new keys that get a row, as there is room for all and for their exporter."""
        of, _ = self._sources.number(exporters[new])
        order = np.argsort(of, kind="stable")
        before = np.zeros(len(new), np.int64)
        before[order] = np.arange(len(new)) - np.searchsorted(of[order], of[order])
        # Exporters without a number come behind so many others that have one that no row is left for them.
        room = (of != NO_ROOM) & (self._of_source[of] + before < self._exporter_limit)
        taken = np.flatnonzero(room)[: self._limit - len(self._numbering)]
        self._of_source += np.bincount(of[taken], minlength=self._limit)
        return new[taken]


def address_text(octets: bytes) -> str:
    """An address of 16 bytes as people write it; IPv4 plain, not mapped."""
    address = ipaddress.IPv6Address(octets)
    return str(address.ipv4_mapped or address)


def _uptime(heard: Heard) -> npt.NDArray[np.int64]:
    if heard.uptime_ms is None:
        return np.full(len(heard.domain), UNTOLD, np.int64)
    return heard.uptime_ms.astype(np.int64)
