"""From datagrams to record batches: the decoders, the templates, and what waits for one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ingest.decoders import Datagrams, Decoded, Unit, decode
from ingest.decoders.fault import Fault
from ingest.decoders.layout import Template
from ingest.decoders.templated import decode_data_sets
from ingest.decoders.templates import Learned
from ingest.parking import Parking, ParkingBounds
from ingest.templates import TemplateBounds, TemplateStore


class Pipeline:
    """Decodes batches of datagrams, one after the other, keeping templates and what waits for one between them.

    One thread uses a pipeline. The worker, the ``decode`` command and the tests all decode by it.
    """

    def __init__(self, templates: TemplateBounds | None = None, parking: ParkingBounds | None = None) -> None:
        self.templates = TemplateStore(templates)
        self.parking = Parking(parking)

    def decode(self, datagrams: Datagrams) -> Decoded:
        """Decode a batch, and what was parked for the templates that it brings."""
        decoded = decode(datagrams, self.templates)
        self._park(decoded)
        self._unpark(decoded.learned, decoded)
        return decoded

    def learn(self, templates: Iterable[tuple[bytes, Template]]) -> Decoded:
        """Take in templates that another worker heard; what was parked for them is decoded."""
        decoded = Decoded()
        learned = [
            outcome
            for key, template in templates
            if isinstance(outcome := self.templates.learn(key, template), Learned)
        ]
        self._unpark(learned, decoded)
        return decoded

    def expire(self, now_ns: int) -> Decoded:
        """Give up on what has waited for its template for too long; to be called every minute or so."""
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
        # Of a template that came twice in the batch, the first is the one that its data waited for.
        numbers = {item.key: item.number for item in reversed(list(learned))}
        for sets in self.parking.release(numbers):
            known = np.full(len(sets), numbers[sets.keys[0]], np.int64)
            decode_data_sets(sets, known, self.templates, decoded)
        self._park(decoded)
