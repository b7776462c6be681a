"""From datagrams to record batches: the decoders, the templates, and what waits for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ingest.decoders import Context, Datagrams, Decoded, Unit, decode
from ingest.decoders.fault import Fault, Oddity
from ingest.decoders.layout import Template
from ingest.decoders.mapping import FieldMapping
from ingest.decoders.sets import DataSets
from ingest.decoders.templated import MOST_CHANGES, choose, decode_data_sets
from ingest.decoders.templates import AMBIGUOUS, Learned
from ingest.mapping import load_mapping
from ingest.options import OptionTables
from ingest.parking import Parking, ParkingBounds
from ingest.templates import TemplateBounds, TemplateStore


class Pipeline:
    """Decodes batches of datagrams, one after the other, keeping templates and what waits for one between them.

    One thread uses a pipeline. The worker, the ``decode`` command and the tests all decode by it.
    """

    def __init__(
        self,
        templates: TemplateBounds | None = None,
        parking: ParkingBounds | None = None,
        decapsulate: Collection[str] = (),
        mapping: FieldMapping | None = None,
    ) -> None:
        self.templates = TemplateStore(templates)
        self.parking = Parking(parking)
        self.options = OptionTables()
        self._told_refused = 0
        self._context = Context(self.templates, self.options, frozenset(decapsulate))
        self.map(mapping or load_mapping(None))

    def map(self, mapping: FieldMapping) -> None:
        """Use another mapping from the next batch on."""
        self.templates.map(mapping)
        self.options.name_groups(mapping.sgt_names)

    def decode(self, datagrams: Datagrams) -> Decoded:
        """Decode a batch, and what was parked for the templates that it brings."""
        self.templates.free_unused()
        decoded = decode(datagrams, self._context)
        # What came in this batch has already seen all of its templates: only what waited before is tried with them.
        fresh, decoded.pending = decoded.pending, []
        self._unpark(decoded.learned, decoded)
        decoded.pending = fresh
        self._park(decoded)
        refused = self.take_refused()
        if refused:
            decoded.oddities[Oddity.OPTIONS_LIMIT] += refused
        return decoded

    def take_refused(self) -> int:
        """Facts of options data for which there was no room, whoever told them, that were not counted yet."""
        told, self._told_refused = self._told_refused, self.options.refused
        return self._told_refused - told

    def learn(self, templates: Iterable[tuple[bytes, Template]]) -> Decoded:
        """Take in templates that another worker heard; what was parked for them is decoded."""
        self.templates.free_unused()
        decoded = Decoded()
        learned = [
            outcome
            for key, template in templates
            if isinstance(outcome := self.templates.learn(key, template), Learned)
        ]
        self._unpark(learned, decoded)
        return decoded

    def decode_again(self, parts: Sequence[DataSets]) -> tuple[Decoded, list[npt.NDArray[np.bool_]]]:
        """Decode sets that have waited elsewhere, with the templates that are known now.

        Returns what came of them, and for each part which of its sets go on waiting, [m]; these are not parked here.
        """
        self.templates.free_unused()
        decoded = Decoded()
        waiting = []
        for sets in parts:
            numbers = np.array(self.templates.numbers(sets.keys), np.int64)
            for index in np.flatnonzero(numbers == AMBIGUOUS).tolist():
                begin = int(sets.start[index])
                body = sets.buffer[begin : begin + int(sets.length[index])]
                numbers[index] = choose(self.templates.candidates(sets.keys[index]), [], body, self.templates)
            waiting.append(decode_data_sets(sets, numbers, self._context, decoded) < 0)
        decoded.pending.clear()
        return decoded, waiting

    def expire(self, now_ns: int) -> Decoded:
        """Give up on what has waited here for too long and may not wait elsewhere; called every minute or so."""
        decoded = Decoded()
        dropped = self.parking.expire(now_ns)
        if dropped:
            decoded.faults[Fault.TEMPLATE_NEVER_CAME, Unit.SETS] += dropped
        return decoded

    def _park(self, decoded: Decoded) -> None:
        for sets in decoded.pending:
            for fault, count in self.parking.add(sets).items():
                decoded.faults[fault, Unit.SETS] += count
        decoded.pending.clear()

    def _unpark(self, learned: Iterable[Learned], decoded: Decoded) -> None:
        # One after the other: what the first layout of an identifier cannot read may be meant for the second.
        tried: Counter[bytes] = Counter()
        released: dict[int, list[tuple[DataSets, int]]] = {}
        for item in learned:
            tried[item.key] += 1
            if tried[item.key] > MOST_CHANGES:
                continue
            layout = item.template.layout
            sets = self.parking.release(item.key, layout.shortest_record)
            if sets is not None:
                released.setdefault(layout.version, []).append((sets, item.number))
        for parts in released.values():
            numbers = [np.full(len(sets), number, np.int64) for sets, number in parts]
            whole = DataSets.join([sets for sets, _ in parts])
            decode_data_sets(whole, np.concatenate(numbers), self._context, decoded)
