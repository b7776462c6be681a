"""What is delivered of a batch: without the records that were delivered before, marked, and added up where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from forwarder.aggregate import RECEIVED, Aggregated, Aggregation
from forwarder.dedup.exact import ExactDedup, Verdict, read_ids
from forwarder.dedup.lease import LeaseDedup
from forwarder.dedup.marking import drop, mark
from forwarder.dedup.observation import ObservationPoint

if TYPE_CHECKING:
    from forwarder.assembly import Decoded
    from forwarder.dedup.keyset import Mask, Places
    from forwarder.shape import Shape

NOTHING: Final = pa.table({})


@dataclass(frozen=True, slots=True)
class Shaped:
    """What is delivered of a batch, and what became of the rest; all in records.

    ``table`` is without rows where nothing but ``sums`` is delivered, or nothing at all. ``exact`` records were there
    before, ``dropped`` and ``marked`` ones are told by another exporter too. ``unidentified`` have no id.
    ``received`` is when the records were received that are delivered as nothing but sums.
    ``forgotten`` ids were given up before their time. ``undecided`` records may be told twice, since nothing is known of
    their interfaces, or there was no room to remember their flows.
    """

    table: pa.Table
    sums: pa.Table | None
    exact: int = 0
    dropped: int = 0
    marked: int = 0
    unidentified: int = 0
    forgotten: int = 0
    undecided: int = 0
    aggregated: Aggregated | None = None
    received: pa.ChunkedArray | None = None


class Shaper:
    """Shapes the batches of one partition, one after the other, by any of the shapes that its course has ahead.

    What one shape has to remember of the log, it is told from the first batch on, though it may hold only later.
    ``secret`` is as in :class:`forwarder.dedup.exact.ExactDedup`.
    """

    def __init__(self, shapes: Sequence[Shape], secret: str) -> None:
        self._exact = {one: ExactDedup(one, secret) for shape in shapes if (one := shape.exact) is not None}
        self._leases = {rule: LeaseDedup(rule, secret) for shape in shapes if (rule := shape.lease) is not None}
        self._points: dict[str, ObservationPoint] = {}
        self._sums: dict[str, Aggregation] = {}
        for shape in shapes:
            if shape.observation is not None:
                self._points[shape.fingerprint] = ObservationPoint(shape.observation)
            if shape.aggregate is not None:
                self._sums[shape.fingerprint] = Aggregation(shape.aggregate.rule)

    def __len__(self) -> int:
        """How many ids and flows are remembered."""
        return sum(map(len, self._exact.values())) + sum(map(len, self._leases.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that this takes."""
        return sum(one.nbytes for one in self._exact.values()) + sum(one.nbytes for one in self._leases.values())

    def remember(self, decoded: Decoded) -> None:
        """Take in what was delivered before; it comes before the first batch."""
        ids, valid = read_ids(decoded.table, decoded.rows)
        for exact in self._exact.values():
            exact.warm(ids, decoded.runs, valid)
        for lease in self._leases.values():
            lease.warm(decoded.table, decoded.runs, decoded.rows)

    def shape(self, shape: Shape, decoded: Decoded) -> Shaped:
        """Return what is to be delivered of the next batch."""
        table, runs, rows = decoded.table, decoded.runs, decoded.rows
        verdict = self._verdict(shape, decoded)
        # Flows are judged with all records, repeated ones too: what is remembered must not depend on another memory.
        judged = [(rule, lease.apply(table, runs, rows)) for rule, lease in self._leases.items()]
        leases = next((found for rule, found in judged if rule == shape.lease), None)
        duplicate = None if leases is None else leases[0]
        keep = None if verdict is None or verdict.keep is None else pa.array(_in_table(verdict.keep, rows))
        if keep is not None:
            table = table.filter(keep)
            duplicate = None if duplicate is None else duplicate.filter(keep)
        undecided = 0 if leases is None else leases[1].without_lease + leases[1].without_room
        if (point := self._points.get(shape.fingerprint)) is not None:
            observed = point.judge(table)
            duplicate, undecided = observed.duplicate, observed.unknown
        dropped = marked = 0
        if duplicate is not None:
            others = duplicate.true_count
            if shape.dedup.flow.action == "drop":
                table, dropped = drop(table, duplicate), others
            else:
                table, marked = mark(table, duplicate), others
        aggregated = None if shape.aggregate is None else self._sums[shape.fingerprint].apply(table)
        raw = shape.aggregate is None or shape.aggregate.keep_raw
        return Shaped(
            table=table if raw else NOTHING,
            sums=None if aggregated is None else aggregated.table,
            exact=0 if verdict is None else verdict.duplicates,
            dropped=dropped,
            marked=marked,
            unidentified=0 if verdict is None else verdict.unidentified,
            forgotten=0 if verdict is None else verdict.forgotten,
            undecided=undecided,
            aggregated=aggregated,
            received=None if raw or RECEIVED not in table.column_names else table[RECEIVED],
        )

    def _verdict(self, shape: Shape, decoded: Decoded) -> Verdict | None:
        """What is there again, by the memory of this shape; the others take the records in too."""
        if not self._exact:
            return None
        ids, valid = read_ids(decoded.table, decoded.rows)
        found = {rule: exact.push(ids, decoded.runs, valid) for rule, exact in self._exact.items()}
        return None if shape.exact is None else found[shape.exact]


def _in_table(in_log: Mask, rows: Places | None) -> Mask:
    """Bring what is in the order of the log into that of the table."""
    if rows is None:
        return in_log
    in_table = np.empty_like(in_log)
    in_table[rows] = in_log
    return in_table
