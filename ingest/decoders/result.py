"""What comes of a batch of datagrams."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.headers import Heard
from ingest.decoders.sets import DataSets
from ingest.decoders.templates import Learned


@dataclass(slots=True)
class Decoded:
    """What comes of a batch of datagrams; the decoders add to it."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    """Flow records, a batch a layout: columns named and typed as the record's, only those that the layout has."""
    options: list[pa.RecordBatch] = field(default_factory=list)
    """Options records, a batch a layout; see :mod:`ingest.decoders.options`."""
    pending: list[DataSets] = field(default_factory=list)
    """Data sets whose template is not known. They refer to the datagrams' buffer."""
    learned: list[Learned] = field(default_factory=list)
    """Templates that came, in their order: those that changed what is known, not those that only repeat it."""
    templates: int = 0
    """How many template records came, repetitions counted."""
    heard: list[Heard] = field(default_factory=list)
    """What each exporter's datagrams said of themselves, a part a protocol."""
    version: npt.NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    """The version word of each datagram, in the order of the batch; 0 for one too short to have any."""
    faults: Counter[tuple[Fault, Unit]] = field(default_factory=Counter)
    oddities: Counter[Oddity] = field(default_factory=Counter)

    def fault(self, fault: Fault, unit: Unit, where: npt.NDArray[np.bool_]) -> None:
        """Count a fault as often as ``where`` is true."""
        count = int(np.count_nonzero(where))
        if count:
            self.faults[fault, unit] += count

    def oddity(self, oddity: Oddity, where: npt.NDArray[np.bool_]) -> None:
        """Count an oddity as often as ``where`` is true."""
        count = int(np.count_nonzero(where))
        if count:
            self.oddities[oddity] += count

    @property
    def records(self) -> int:
        """Flow records, options not counted."""
        return sum(batch.num_rows for batch in self.batches)

    @property
    def options_records(self) -> int:
        """Options records."""
        return sum(batch.num_rows for batch in self.options)
