"""What is known of each exporter: when it was last heard, how much it sent, and what its sequence numbers say is lost.

The datagrams of one exporter may reach several workers, each in its own time, so a gap means nothing at once. What the
workers heard is gathered for a while, put in order, and only then counted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.headers import Heard

KEY_BYTES: Final = 22
"""Exporter (16 bytes), version (2) and observation domain (4)."""

RESTART: Final = 1 << 20
"""A jump of the sequence by more than this is a restart of the exporter, no loss."""

UPTIME_SLACK_MS: Final = 60_000
"""An uptime that fell by more than this is a restart."""

MOST_OBSERVATIONS: Final = 1 << 20
"""With more datagrams than this gathered, they are counted at once."""


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
        self.expected = np.zeros(0, np.int64)
        self.known = np.zeros(0, np.bool_)
        self.exact = np.zeros(0, np.bool_)
        self.uptime = np.zeros(0, np.int64)
        self.credit = np.zeros(0, np.int64)
        self.lost = np.zeros(0, np.int64)
        self.uncertain = np.zeros(0, np.int64)
        self.restarts = np.zeros(0, np.int64)
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

    Those over the bound are not told apart: their datagrams are counted in ``unlisted``.
    """

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._rows: dict[bytes, int] = {}
        self._table = _Table()
        self._gathered: list[tuple[npt.NDArray[np.int64], Heard]] = []
        self._observations = 0
        self.unlisted = 0
        """Datagrams of exporters for which the table had no room."""

    def __len__(self) -> int:
        return len(self._rows)

    def hear(self, heard: Heard) -> None:
        """Take in what a worker heard."""
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
        table.first_seen[known[new]] = received[new]
        np.maximum.at(table.last_seen, known, received)
        self._gathered.append((rows, heard))
        self._observations += len(rows)
        if self._observations > MOST_OBSERVATIONS:
            self.settle()

    def settle(self) -> dict[str, int]:
        """Count what is missing among what was gathered; returns the new losses by exporter.

        To be called every few seconds: what is under way in a worker for longer than that looks lost, and is made
        good by counting that much less the next time.
        """
        gathered, self._gathered = self._gathered, []
        self._observations = 0
        lost: dict[str, int] = {}
        if not gathered:
            return lost
        before = self._table.lost.copy()
        self._count_gaps(gathered)
        changed = np.flatnonzero(self._table.lost != before)
        if len(changed):
            keys = list(self._rows)
            for row in changed.tolist():
                name = address_text(keys[row][:16])
                lost[name] = lost.get(name, 0) + int(self._table.lost[row] - before[row])
        return lost

    def measure(self, seconds: float) -> None:
        """Take the rates of the ``seconds`` since the last call."""
        table = self._table
        table.datagram_rate = (table.datagrams - table.datagrams_before) / seconds
        table.record_rate = (table.records - table.records_before) / seconds
        table.datagrams_before, table.records_before = table.datagrams.copy(), table.records.copy()

    def facts(self) -> list[ExporterFacts]:
        """All that is known, in the order in which exporters were first heard."""
        table = self._table
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
                lost=int(table.lost[row]),
                uncertain=int(table.uncertain[row]),
                restarts=int(table.restarts[row]),
            )
            for key, row in list(self._rows.items())
        ]

    def _find(self, heard: Heard) -> npt.NDArray[np.int64]:
        """The row of each datagram's exporter, made where it is new and there is room; -1 elsewhere."""
        count = len(heard.domain)
        packed = np.empty((count, KEY_BYTES), np.uint8)
        packed[:, :16] = heard.source
        packed[:, 16:18] = (heard.version >> 8, heard.version & 0xFF)
        packed[:, 18:22] = heard.domain.astype(">u4")[:, None].view(np.uint8)
        flat = packed.tobytes()
        keys = [flat[at : at + KEY_BYTES] for at in range(0, len(flat), KEY_BYTES)]
        rows = np.fromiter(map(self._rows.get, keys, repeat(-1)), np.int64, count)
        for index in np.flatnonzero(rows < 0).tolist():
            key = keys[index]
            if key not in self._rows and len(self._rows) < self._limit:
                self._rows[key] = len(self._rows)
            rows[index] = self._rows.get(key, -1)
        self._table.grow(len(self._rows))
        return rows

    def _count_gaps(self, gathered: list[tuple[npt.NDArray[np.int64], Heard]]) -> None:
        table = self._table
        row = np.concatenate([rows for rows, _ in gathered])
        listed = row >= 0
        row = row[listed]
        sequence = np.concatenate([heard.sequence for _, heard in gathered])[listed].astype(np.int64)
        units = np.concatenate([heard.units for _, heard in gathered])[listed].astype(np.int64)
        exact = np.concatenate([heard.exact for _, heard in gathered])[listed]
        uptime = np.concatenate([_uptime(heard) for _, heard in gathered])[listed]
        if len(row) == 0:
            return
        restarted = np.zeros(len(table.known), np.bool_)
        fell = table.known[row] & (uptime >= 0) & (uptime + UPTIME_SLACK_MS < table.uptime[row])
        restarted[row[fell]] = True
        # Modulo 2^32 and signed: how far each number lies from the one that was expected next.
        first = np.zeros(len(table.known), np.int64)
        first[row[::-1]] = sequence[::-1]
        base = np.where(table.known, table.expected, first)
        ahead = ((sequence - base[row] + (1 << 31)) % (1 << 32)) - (1 << 31)
        restarted[row[table.known[row] & (np.abs(ahead) > RESTART)]] = True
        # After a restart the count begins with what came last.
        again = restarted[row]
        order = np.lexsort((ahead, row))
        self._add_gaps(row[order], ahead[order], units[order], exact[order], again[order])
        end = ahead + units
        furthest = np.full(len(table.known), np.iinfo(np.int64).min)
        np.maximum.at(furthest, row, end)
        seen = np.flatnonzero(furthest != np.iinfo(np.int64).min)
        steady = seen[~restarted[seen]]
        forward = steady[(furthest[steady] > 0) | ~table.known[steady]]
        table.expected[forward] = (base[forward] + furthest[forward]) % (1 << 32)
        if restarted.any():
            last = row[again]
            table.expected[last] = (sequence[again] + units[again]) % (1 << 32)
            table.credit[restarted] = 0
            table.restarts[restarted] += 1
            table.uptime[restarted] = 0
        table.exact[row[order]] = exact[order]
        table.known[seen] = True
        np.maximum.at(table.uptime, row, uptime)

    def _add_gaps(
        self,
        row: npt.NDArray[np.int64],
        ahead: npt.NDArray[np.int64],
        units: npt.NDArray[np.int64],
        exact: npt.NDArray[np.bool_],
        restarted: npt.NDArray[np.bool_],
    ) -> None:
        """Count gaps between neighbours; everything is sorted by row and then by ``ahead``."""
        table = self._table
        same = np.zeros(len(row), np.bool_)
        same[1:] = row[1:] == row[:-1]
        # How far all before this one reached: a datagram that came twice, or late, closes no gap and opens none.
        reach = _running_reach(ahead + units, same)
        start = np.where(table.known[row], 0, ahead)
        before = np.where(same, np.maximum(np.roll(reach, 1), np.where(table.known[row], 0, -RESTART)), start)
        sure = np.where(same, np.roll(exact, 1), np.where(table.known[row], table.exact[row], True))
        gap = np.where(restarted, 0, np.maximum(ahead - before, 0))
        gap[gap > RESTART] = 0
        late = table.known[row] & (ahead < 0) & ~restarted
        count = len(table.known)
        np.add.at(table.credit, row[late], units[late])
        missing = np.bincount(row, np.where(sure, gap, 0), count).astype(np.int64)
        made_good = np.minimum(table.credit, missing)
        table.credit -= made_good
        # What came late and closes no gap of now closed one of before; it is owed for one round only.
        table.lost += missing - made_good
        table.uncertain += np.bincount(row, np.where(sure, 0, gap), count).astype(np.int64)


def address_text(octets: bytes) -> str:
    """An address of 16 bytes as people write it; IPv4 plain, not mapped."""
    address = ipaddress.IPv6Address(octets)
    return str(address.ipv4_mapped or address)


def _running_reach(end: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The furthest end up to and with each observation, within its row."""
    group = np.cumsum(~same)
    # Groups are lifted apart so that one running maximum does for all.
    lift = group * (1 << 40)
    reach: npt.NDArray[np.int64] = np.maximum.accumulate(end + lift) - lift
    return reach


def _uptime(heard: Heard) -> npt.NDArray[np.int64]:
    if heard.uptime_ms is None:
        return np.full(len(heard.domain), -1, np.int64)
    return heard.uptime_ms.astype(np.int64)
