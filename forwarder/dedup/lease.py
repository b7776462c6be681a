"""The same flow from several exporters that do not sample: the first that saw it owns it for a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from forwarder.dedup.flowkey import FlowKeying, FlowKeys
from forwarder.dedup.keyset import Keys, KeySet, Mask, Places
from forwarder.dedup.runs import LogTime, Runs

BLOCK: Final = 1 << 16
"""Keys that are looked up at a time: what is made meanwhile stays in the CPU's cache."""
PARTS: Final = 4
"""A message that brings more than this part of a term's flows counts as several."""


@dataclass(frozen=True, slots=True)
class LeaseRule:
    """How long a lease is, in append time, and how many flows are remembered at most; at least 1 and 2.

    ``lease_ms`` is to be at least twice the longest active timeout of all exporters.
    """

    lease_ms: int
    max_flows: int

    def oldest_needed(self, append_ms: int) -> int:
        """Append time from which on the log has to be read before a message of this append time is judged.

        To be read from the first message that has that time or a later one, as Kafka finds offsets by time.
        """
        return max(0, append_ms // self.lease_ms - 1) * self.lease_ms


@dataclass(frozen=True, slots=True)
class Leases:
    """What was found of some records, in the order that they were given in.

    ``duplicate`` tells which are another observer's. ``without_lease`` were sampled or lack an address, and ``without_room`` are of flows that could not be remembered: they stay, and may be counted twice.
    """

    duplicate: Mask
    without_lease: int
    without_room: int


class Term:
    """The flows that were seen in one term, and who saw each first."""

    def __init__(self, number: int, expected: int) -> None:
        self.number = number
        self.flows = KeySet(expected)
        self.owners = KeySet(expected)
        self.closed = False

    def add(self, flows: Keys, seen_by: Keys) -> None:
        """Put down flows that are new, each with its observer."""
        new = ~self.flows.add(flows)
        self.owners.add(seen_by[new])

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.flows.nbytes + self.owners.nbytes


class LeaseDedup:
    """Finds the records of one partition that tell of a flow which another observer has.

    Append time is divided into terms of one lease each. Who saw a flow first in a term owns it in the next; a flow that
    was not seen in the term before is owned by who sees it first in this one. The owner's records are never duplicates,
    and all others are. So an owner that goes on seeing the flow keeps it as long as it stays the first of each term, and
    one that does not see it any more has it for one to two leases from then on.

    A term remembers half of ``max_flows``: it is closed at the first message that could take it over that, and flows that
    come later are as if nobody had seen them. So the answer depends on nothing but the log of this term and the one
    before it, from the message on that :meth:`LeaseRule.oldest_needed` asks for, and not on how messages are handed over.
    """

    def __init__(self, rule: LeaseRule, secret: str) -> None:
        self.rule = rule
        self._keying = FlowKeying(secret)
        self._time = LogTime(rule.lease_ms)
        self._most = max(1, rule.max_flows // 2)
        self._before: Term | None = None
        self._term = Term(0, 0)

    def __len__(self) -> int:
        return len(self._term.flows) + (len(self._before.flows) if self._before else 0)

    @property
    def nbytes(self) -> int:
        """Bytes of memory: about 40 for each flow of each term, up to 80 while their number changes."""
        return self._term.nbytes + (self._before.nbytes if self._before else 0)

    def apply(self, table: pa.Table, runs: Runs, rows: Places | None = None) -> tuple[pa.Array, Leases]:
        """Judge the rows of a batch, and remember their flows; returns the column ``duplicate`` of the table.

        ``rows`` tells where in the table the rows are, in the order of the log; None when they are in it.
        """
        leases = self.push(self._keying.keys(table, rows), runs)
        duplicate = leases.duplicate
        if rows is not None:
            duplicate = np.empty_like(leases.duplicate)
            duplicate[rows] = leases.duplicate
        return pa.array(duplicate), leases

    def warm(self, table: pa.Table, runs: Runs, rows: Places | None = None) -> None:
        """Remember the flows of the next messages of the log, which were delivered before."""
        self._walk(self._keying.keys(table, rows), runs, judge=False)

    def push(self, keys: FlowKeys, runs: Runs) -> Leases:
        """Judge the records of the next messages of the log, and remember their flows."""
        found, owned = self._walk(keys, runs, judge=True)
        duplicate = np.zeros(len(keys.leased), np.bool_)
        duplicate[keys.leased] = found & ~owned
        return Leases(
            duplicate=duplicate,
            without_lease=len(duplicate) - len(found),
            without_room=int(np.count_nonzero(~found)),
        )

    def _walk(self, keys: FlowKeys, runs: Runs, *, judge: bool) -> tuple[Mask, Mask]:
        """Whether each record's flow is known, and whether its observer owns it."""
        flows, seen_by = keys.flows[keys.leased], keys.seen_by[keys.leased]
        found, owned = np.zeros(len(flows), np.bool_), np.zeros(len(flows), np.bool_)
        messages = self._time.messages(runs, keys.leased, max(1, self._most // PARTS))
        while (message := messages.take()) is not None:
            number, begin, end = message
            room = self._turn_to(number, end - begin)
            end = messages.take_more(len(flows) if self._term.closed else room)
            for at in range(begin, end, BLOCK):
                block = slice(at, min(at + BLOCK, end))
                if not self._term.closed:
                    self._term.add(flows[block], seen_by[block])
                if judge:
                    found[block], owned[block] = self._judge(flows[block], seen_by[block])
        return found, owned

    def _turn_to(self, number: int, brings: int) -> int:
        """Make ready for a message of a term that brings so many records; returns how many flows can be remembered."""
        term = self._term
        if term.number != number:
            term.flows.seal()
            term.owners.seal()
            self._before = term if term.number == number - 1 else None
            # As many as in the term before are expected: traffic is much the same from one to the next.
            self._term = Term(number, 0 if self._before is None else len(term.flows))
        room = self._most - len(self._term.flows)
        self._term.closed |= brings > room
        return room

    def _judge(self, flows: Keys, seen_by: Keys) -> tuple[Mask, Mask]:
        found, owned = self._term.flows.find(flows), self._term.owners.find(seen_by)
        if self._before is not None:
            before = self._before.flows.find(flows)
            owned = np.where(before, self._before.owners.find(seen_by), owned)
            found |= before
        return found, owned
