"""What comes of a batch of datagrams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders.enrich import Fact
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.headers import Heard
from ingest.decoders.options import OptionsData
from ingest.decoders.samples import SampleNumbers
from ingest.decoders.sets import DataSets
from ingest.decoders.templates import Learned, Word

UNKNOWN_VERSION: Final = 0xFFFF

PADDING_BYTES: Final = 4
"""Sets are padded to a multiple of this; what is left over is shorter, or zeros."""


@dataclass(slots=True)
class Decoded:
    """What comes of a batch of datagrams; the decoders add to it."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    """Flow records, a batch a layout: columns named and typed as the record's, only those that the layout has."""
    counters: list[pa.RecordBatch] = field(default_factory=list)
    """Counter samples of sFlow, a row each: columns named and typed as in :mod:`shared.counters`, those that any has."""
    options: list[OptionsData] = field(default_factory=list)
    """Options records, a batch a layout; see :mod:`ingest.decoders.options`."""
    facts: list[Fact] = field(default_factory=list)
    """What options data told that was not known."""
    pending: list[DataSets] = field(default_factory=list)
    """Data sets whose template is not known. They refer to the datagrams' buffer."""
    learned: list[Learned] = field(default_factory=list)
    """Templates that came, in their order: those that changed what is known, not those that only repeat it."""
    words: list[Word] = field(default_factory=list)
    """The same with the datagrams that told them, and those that only repeat what is contested."""
    templates: int = 0
    """How many template records came, repetitions counted."""
    heard: list[Heard] = field(default_factory=list)
    """What each exporter's datagrams said of themselves, a part a protocol."""
    samples: list[SampleNumbers] = field(default_factory=list)
    """How the samples of sFlow are numbered, a part a kind and form. They refer to the headers of the batch."""
    version: npt.NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    """The version word of each datagram, in the order of the batch: 1, 5, 7, 9, 10, 0 for sFlow, or UNKNOWN_VERSION."""
    faults: Counter[tuple[Fault, Unit]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Structures of sFlow that fill no column, by kind; a closed list, since unknown numbers share one."""
    oddities: Counter[Oddity] = field(default_factory=Counter)

    def skip(self, what: str, tags: npt.NDArray[np.uint32], named: Collection[int]) -> None:
        """Count structures that were skipped by their length, each by its number when that is one of ``named``."""
        if len(tags) == 0:
            return
        for tag, count in zip(*np.unique(tags, return_counts=True), strict=True):
            number = f"{int(tag) >> 12}:{int(tag) & 0xFFF}" if int(tag) in named else "unknown"
            self.skipped[f"{what} {number}"] += int(count)

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

    def trailing(
        self, buffer: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]
    ) -> None:
        """Count what ends with more than padding may be: four bytes and more that are not zeros; [n] each."""
        for index in np.flatnonzero(length >= PADDING_BYTES).tolist():
            begin = int(start[index])
            if buffer[begin : begin + int(length[index])].any():
                self.oddities[Oddity.TRAILING_BYTES] += 1

    @property
    def records(self) -> int:
        """Flow records, options not counted."""
        return sum(batch.num_rows for batch in self.batches)

    @property
    def counter_rows(self) -> int:
        """Counter samples."""
        return sum(batch.num_rows for batch in self.counters)

    @property
    def options_records(self) -> int:
        """Options records."""
        return sum(data.batch.num_rows for data in self.options)
