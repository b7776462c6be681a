"""Datagrams that were made at once, and how much is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.decoders.datagrams import Datagrams
from ingest.generator.shapes import Numbers


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of one protocol; counts add up."""

    datagrams: int = 0
    records: int = 0
    """Flow records; those of options are apart."""
    bytes: int = 0
    packets: int = 0
    options_records: int = 0
    counters: int = 0
    """Counter samples, which only sFlow has."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.datagrams + other.datagrams,
            self.records + other.records,
            self.bytes + other.bytes,
            self.packets + other.packets,
            self.options_records + other.options_records,
            self.counters + other.counters,
        )


Totals = Mapping[str, Counts]
"""By the flow record's `type`."""


def add_totals(one: Totals, other: Totals) -> dict[str, Counts]:
    """Add counts up by type."""
    return {name: one.get(name, Counts()) + other.get(name, Counts()) for name in {**one, **other}}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Datagrams in their order, laid out in one buffer: columns of equal length n."""

    buffer: npt.NDArray[np.uint8]
    offset: Numbers
    """Where each datagram begins in the buffer; 16 bytes before it are free."""
    length: Numbers
    address: Numbers
    """The exporters' IPv4 addresses as numbers."""
    types: tuple[str, ...]
    type_index: npt.NDArray[np.intp]
    """Which of `types` each datagram is."""
    records: Numbers
    octets: Numbers
    packets: Numbers
    options_records: Numbers
    counters: Numbers

    def __len__(self) -> int:
        return len(self.offset)

    def payload(self, index: int) -> bytes:
        """A copy of one datagram's bytes."""
        begin = int(self.offset[index])
        return self.buffer[begin : begin + int(self.length[index])].tobytes()

    def datagrams(self, received_ns: int) -> Datagrams:
        """The batch as if it had been received, over the same buffer, for a decoder without a socket."""
        count = len(self)
        source = np.zeros((count, 4), ">u4")
        source[:, 2], source[:, 3] = 0xFFFF, self.address
        return Datagrams(
            buffer=self.buffer,
            offset=self.offset,
            length=self.length,
            source=source.view(np.uint8),
            source_port=np.full(count, 2055, np.uint16),
            received_ns=np.full(count, received_ns, np.int64),
            listener=np.zeros(count, np.int16),
        )

    def totals(self, chosen: slice | npt.NDArray[np.bool_] = slice(None)) -> dict[str, Counts]:
        """What the chosen datagrams hold, by type."""
        index = self.type_index[chosen]
        columns = (self.records, self.octets, self.packets, self.options_records, self.counters)
        totals = {}
        for at, name in enumerate(self.types):
            of_type = index == at
            if of_type.any():
                sums = (int(column[chosen][of_type].sum()) for column in columns)
                totals[name] = Counts(int(of_type.sum()), *sums)
        return totals
