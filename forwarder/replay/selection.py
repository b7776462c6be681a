"""Which records of a batch are wanted: those of some exporters, or of a time of reception."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ADDRESS: Final = "sampler_address"
NAME: Final = "sampler_name"
RECEIVED: Final = "time_received"


@dataclass(frozen=True, slots=True)
class Selection:
    """Records of any of these exporters, received from a time on and before another (ns since 1970).

    What a record does not say is not what is asked for. ``networks`` and ``names`` are ways to say exporters; without
    any of them all are meant.
    """

    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    received_from_ns: int | None = None
    received_to_ns: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether it takes every record."""
        return self == Selection()

    @property
    def mark(self) -> str | None:
        """16 hex digits that go into the names of what is selected; None when that is everything."""
        if self.is_all:
            return None
        exporters = [sorted(map(str, self.networks)), sorted(self.names)]
        text = json.dumps([*exporters, self.received_from_ns, self.received_to_ns])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def pick(self, table: pa.Table) -> pa.Table:
        """Return the rows that are wanted, in their order."""
        if self.is_all:
            return table
        keep = np.ones(table.num_rows, np.bool_)
        if self.networks or self.names:
            keep &= self._of_exporters(table)
        if self.received_from_ns is not None or self.received_to_ns is not None:
            keep &= self._received(table)
        return table if keep.all() else table.filter(pa.array(keep))

    def _of_exporters(self, table: pa.Table) -> Mask:
        found = np.zeros(table.num_rows, np.bool_)
        if self.networks and ADDRESS in table.column_names:
            found |= _by_value(table[ADDRESS], self._has_address)
        if self.names and NAME in table.column_names:
            found |= _by_value(table[NAME], self.names.__contains__)
        return found

    def _has_address(self, octets: bytes) -> bool:
        address = ipaddress.IPv6Address(octets)
        plain = address.ipv4_mapped or address
        return any(plain in network for network in self.networks)

    def _received(self, table: pa.Table) -> Mask:
        if RECEIVED not in table.column_names:
            return np.zeros(table.num_rows, np.bool_)
        column = table[RECEIVED]
        times = column.cast(pa.int64()).fill_null(0).to_numpy()
        found: Mask = np.asarray(column.is_valid())
        if self.received_from_ns is not None:
            found &= times >= self.received_from_ns
        if self.received_to_ns is not None:
            found &= times < self.received_to_ns
        return found


def _by_value(column: pa.ChunkedArray, wanted: Callable[[Any], bool]) -> Mask:
    """Tell of each row whether its value is wanted; each distinct one is looked at once, and null never is."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    values = encoded.dictionary.to_pylist()
    good = np.array([*(value is not None and wanted(value) for value in values), False], np.bool_)
    found: Mask = good[encoded.indices.fill_null(len(values)).to_numpy()]
    return found


def parse_exporter(text: str) -> Network | str:
    """Read what stands for exporters: an address, a network, or else a name.

    Raises:
        ValueError: it is a network with bits set behind its prefix, or empty.
    """
    if not text:
        raise ValueError("an exporter is its address, a network, or its name in the exporters file")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return text
    if "/" in text and ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f"{text!r} has bits set behind its prefix; the network is {network}")
    return network
