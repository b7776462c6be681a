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

UPTIME_WRAP_MS: Final = 3_600_000
"""An uptime that fell, but lies no further than this behind 2^32, has only gone on through its end."""

MOST_OBSERVATIONS: Final = 1 << 20
"""With more datagrams than this gathered, they are counted at once."""

NOWHERE: Final = np.iinfo(np.int64).min
EVERYWHERE: Final = np.iinfo(np.int64).max


Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Observations:
    """What datagrams said of their place in the sequence: arrays of length n, in the order in which they were heard."""

    row: Numbers
    sequence: Numbers
    units: Numbers
    exact: Mask
    uptime: Numbers
    """-1 where the protocol does not tell."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: Mask | Numbers) -> _Observations:
        """These, in this order."""
        return _Observations(
            self.row[which], self.sequence[which], self.units[which], self.exact[which], self.uptime[which]
        )

    @staticmethod
    def join(parts: list[_Observations]) -> _Observations:
        """All of them, one part after the other."""
        return _Observations(
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.sequence for part in parts]),
            np.concatenate([part.units for part in parts]),
            np.concatenate([part.exact for part in parts]),
            np.concatenate([part.uptime for part in parts]),
        )

    @staticmethod
    def none() -> _Observations:
        """Nothing."""
        nothing = np.zeros(0, np.int64)
        return _Observations(nothing, nothing, nothing, np.zeros(0, np.bool_), nothing)


class Exporters:
    """A bounded table of exporters by address, version and observation domain. One thread uses it at a time.

    Those over the bound are not told apart: their datagrams are counted in ``unlisted``.
    """

    def __init__(self, limit: int = 65_536, most_observations: int = MOST_OBSERVATIONS) -> None:
        self._limit = limit
        self._most_observations = most_observations
        self._rows: dict[bytes, int] = {}
        self._table = _Table()
        self._waiting = _Observations.none()
        self._gathered: list[_Observations] = []
        self._observations = 0
        self._untold = np.zeros(0, np.int64)
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
        # Backwards, so that the first of several stays.
        table.first_seen[known[new][::-1]] = received[new][::-1]
        np.maximum.at(table.last_seen, known, received)
        self._gathered.append(
            _Observations(
                known,
                heard.sequence[listed].astype(np.int64),
                heard.units[listed].astype(np.int64),
                heard.exact[listed],
                _uptime(heard)[listed],
            )
        )
        self._observations += len(known)
        if self._observations > self._most_observations:
            self._judge()

    def settle(self, *, everything: bool = False) -> dict[str, int]:
        """Count what is missing; returns the new losses by exporter.

        To be called every few seconds. A gap is a loss when it is still there at the next call: what is under way in a
        worker for longer than that looks lost. With ``everything``, nothing is waited for any more.
        """
        self._judge()
        while everything and len(self._waiting):
            self._judge()
        lost: dict[str, int] = {}
        told, self._untold = self._untold, np.zeros(len(self._rows), np.int64)
        changed = np.flatnonzero(told)
        if len(changed):
            keys = list(self._rows)
            for row in changed.tolist():
                name = address_text(keys[row][:16])
                lost[name] = lost.get(name, 0) + int(told[row])
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

    def _judge(self) -> None:
        """Count the gaps before what was gathered by the last time, now that what was late has come."""
        waited = len(self._waiting)
        said = _Observations.join([self._waiting, *self._gathered])
        self._gathered, self._observations = [], 0
        table, rows = self._table, len(self._table.known)
        base = np.where(table.known, table.expected, _first(said, rows))
        ahead = _distance(said.sequence, base[said.row])
        limit = np.full(rows, NOWHERE)
        np.maximum.at(limit, said.row[:waited], ahead[:waited])
        anew = self._begins_anew(said, ahead, limit > NOWHERE, waited)
        restarted = np.zeros(rows, np.bool_)
        restarted[said.row[anew]] = True
        # What came before a restart is all that will come.
        limit[restarted] = EVERYWHERE
        useful = ~anew & ((ahead >= 0) | (ahead + said.units > 0) | ~table.known[said.row])
        due = useful & (ahead <= limit[said.row])
        self._count_gaps(said.take(due), ahead[due], base)
        self._waiting = said.take((useful & ~due) | anew)
        table.known[restarted] = False
        table.restarts[restarted] += 1
        table.uptime[said.row] = said.uptime

    def _begins_anew(self, said: _Observations, ahead: Numbers, waits: Mask, waited: int) -> Mask:
        """Which datagrams came after a restart of their exporter; the first ``waited`` were looked at before."""
        table, row = self._table, said.row
        fresh = np.arange(len(said)) >= waited
        comparable = fresh & (table.known | waits)[row]
        fell = (
            comparable
            & (said.uptime >= 0)
            & (said.uptime + UPTIME_SLACK_MS < table.uptime[row])
            & ((said.uptime - table.uptime[row]) % (1 << 32) > UPTIME_WRAP_MS)
        )
        anew = fell | (comparable & (np.abs(ahead) > RESTART))
        # An exporter of which nothing came for a while but what lies behind has begun anew at a small number.
        furthest = np.full(len(table.known), NOWHERE)
        np.maximum.at(furthest, row[~anew], (ahead + said.units)[~anew])
        behind = table.known & ~waits & (furthest > NOWHERE) & (furthest < 0)
        return anew | behind[row]

    def _count_gaps(self, said: _Observations, ahead: Numbers, base: Numbers) -> None:
        """Count what is missing before each of these, and expect what follows the last of them."""
        table = self._table
        order = np.lexsort((ahead, said.row))
        said, ahead = said.take(order), ahead[order]
        row, known = said.row, table.known[said.row]
        same = np.zeros(len(row), np.bool_)
        same[1:] = row[1:] == row[:-1]
        # How far all before this one reached: a datagram that came twice closes no gap and opens none.
        reach = _running_reach(ahead + said.units, same)
        start = np.where(known, 0, ahead)
        before = np.where(same, np.maximum(np.roll(reach, 1), np.where(known, 0, -RESTART)), start)
        sure = np.where(same, np.roll(said.exact, 1), np.where(known, table.exact[row], True))
        gap = np.maximum(ahead - before, 0)
        gap[gap > RESTART] = 0
        count = len(table.known)
        missing = np.bincount(row, np.where(sure, gap, 0), count).astype(np.int64)
        table.lost += missing
        self._untold = missing + np.pad(self._untold, (0, count - len(self._untold)))
        table.uncertain += np.bincount(row, np.where(sure, 0, gap), count).astype(np.int64)
        last = np.ones(len(row), np.bool_)
        last[:-1] = ~same[1:]
        ended = row[last]
        end = np.where(table.known[ended], np.maximum(reach[last], 0), reach[last])
        table.expected[ended] = (base[ended] + end) % (1 << 32)
        table.exact[ended] = said.exact[last]
        table.known[ended] = True


def address_text(octets: bytes) -> str:
    """An address of 16 bytes as people write it; IPv4 plain, not mapped."""
    address = ipaddress.IPv6Address(octets)
    return str(address.ipv4_mapped or address)


def _first(said: _Observations, rows: int) -> Numbers:
    """The sequence number of the first observation of each row."""
    first = np.zeros(rows, np.int64)
    first[said.row[::-1]] = said.sequence[::-1]
    return first


def _distance(sequence: Numbers, base: Numbers) -> Numbers:
    """How far each number lies from the one that was expected next: modulo 2^32, and signed."""
    distance: Numbers = ((sequence - base + (1 << 31)) % (1 << 32)) - (1 << 31)
    return distance


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
