"""What the operator knows of exporters and their interfaces, joined to the records that they send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.lookup import MISSING, Lookup, mix
from shared.record import POSITION

Columns = dict[str, pa.Array]
Numbers = npt.NDArray[np.int64]
Boundary = Literal["external", "internal"]

BOUNDARIES: Final[tuple[Boundary, ...]] = ("external", "internal")
_BOUNDARY: Final[Mapping[Boundary | None, int]] = {None: MISSING, "external": 0, "internal": 1}
MAPPED: Final = 0xFFFF << 32
ADDRESS_BITS: Final = 128
IPV4_BITS: Final = 96
"""Bits of a mapped address that come before the IPv4 address."""

DIRECTIONS: Final = (("in_if", "in_if_name", "in_if_boundary"), ("out_if", "out_if_name", "out_if_boundary"))


@dataclass(frozen=True, slots=True)
class KnownInterface:
    """What is known of an interface."""

    name: str | None = None
    boundary: Boundary | None = None


@dataclass(frozen=True, slots=True)
class KnownExporter:
    """What is known of the exporters in a network; ``interfaces`` are by ifIndex."""

    network: IPv4Network | IPv6Network
    name: str | None = None
    interfaces: Mapping[int, KnownInterface] = field(default_factory=dict)


class KnownExporters:
    """Exporters by network, of which no two are the same; the longest match is all that counts for an exporter.

    Made once and handed to the workers. A network of IPv6 has no exporter of IPv4 in it, not even ``::/0``.
    """

    def __init__(self, exporters: Sequence[KnownExporter] = ()) -> None:
        numbers: dict[str, int] = {}

        def number_of(name: str | None) -> int:
            return MISSING if name is None else numbers.setdefault(name, len(numbers))

        # By number of exporter and of interface, 0 for one that is not known: number of its name, or MISSING.
        self._name_of = np.array([MISSING, *(number_of(one.name) for one in exporters)], np.int64)
        self._has_interfaces = np.array([False, *(bool(one.interfaces) for one in exporters)], np.bool_)
        told = [(number, *item) for number, one in enumerate(exporters, 1) for item in one.interfaces.items()]
        self._if_name = np.array([MISSING, *(number_of(one.name) for _, _, one in told)], np.int64)
        self._if_boundary = np.array([MISSING, *(_BOUNDARY[one.boundary] for _, _, one in told)], np.int64)
        self._interfaces = Lookup(len(told))
        of = np.array([one[:2] for one in told], np.int64).reshape(-1, 2)
        for at, key in enumerate(_keys(of[:, 0], of[:, 1]).tolist(), 1):
            self._interfaces.put(key, at)
        self._names = pa.array(numbers, pa.utf8())
        self._boundaries = pa.array(BOUNDARIES, pa.utf8())
        self._starts, self._owners = _intervals([one.network for one in exporters])

    def __len__(self) -> int:
        return len(self._name_of) - 1

    def join(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with what is known of its exporters; a name that the record has of an interface gives way."""
        if not len(self):
            return batch
        addresses = batch.column("sampler_address").dictionary_encode()
        owner = self._owner(addresses.dictionary)
        if not owner.any():
            return batch
        owner = owner[addresses.indices.to_numpy()]
        told = {"sampler_name": _named(self._name_of[owner], self._names)}
        if self._has_interfaces[owner].any():
            for number, name, boundary in DIRECTIONS:
                if number in batch.schema.names:
                    at = self._interface(owner, batch.column(number))
                    told[name] = _named(self._if_name[at], self._names)
                    told[boundary] = _named(self._if_boundary[at], self._boundaries)
        return _with(batch, {name: column for name, column in told.items() if column is not None})

    def _owner(self, addresses: pa.FixedSizeBinaryArray) -> Numbers:
        """The number of the exporter with each of these addresses, 0 for one that is not known."""
        octets = np.frombuffer(addresses.buffers()[1], "S16")[addresses.offset :][: len(addresses)]
        return self._owners[np.searchsorted(self._starts, octets, side="right")]

    def _interface(self, owner: Numbers, if_index: pa.UInt32Array) -> Numbers:
        """The number of each record's interface, 0 for one that is not known or that the record does not say."""
        values = np.frombuffer(if_index.buffers()[1], np.uint32)[if_index.offset :][: len(if_index)]
        found = self._interfaces.get(_keys(owner, values))
        found[found == MISSING] = 0
        if if_index.null_count:
            found[if_index.is_null().to_numpy(zero_copy_only=False)] = 0
        return found


def _keys(owner: npt.NDArray[np.integer], if_index: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """A key for each interface; no two have the same, since mixing is reversible."""
    return mix(owner.astype(np.uint64) << np.uint64(32) | if_index.astype(np.uint64), 0)


def _named(numbers: Numbers, names: pa.StringArray) -> pa.DictionaryArray | None:
    """The names with these numbers, null for MISSING; None when there is no other."""
    there = numbers != MISSING
    if there.all():
        return columns.compacted(numbers, None, names)
    return columns.compacted(np.maximum(numbers, 0), there, names) if there.any() else None


def _with(batch: pa.RecordBatch, made: Columns) -> pa.RecordBatch:
    """The batch with these columns, each in its place; what they leave open stays as it was."""
    whole: Columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name, column in made.items():
        own = whole.get(name)
        whole[name] = column if own is None else columns.coalesced(column, own)
    names = sorted(whole, key=POSITION.__getitem__)
    return pa.RecordBatch.from_arrays([whole[name] for name in names], names=names)


def mapped(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    """First address and prefix length of a network in the 16 bytes of the record, where IPv4 is mapped."""
    if isinstance(network, IPv4Network):
        return int(network.network_address) + MAPPED, network.prefixlen + IPV4_BITS
    return int(network.network_address), network.prefixlen


def _intervals(networks: Iterable[IPv4Network | IPv6Network]) -> tuple[npt.NDArray[np.bytes_], Numbers]:
    """Where, in the order of addresses, another network becomes the longest match, and which one it is.

    The second array has one more entry, its first, for the addresses before all of them; networks are numbered from 1,
    and 0 is none.
    """
    owners = {(MAPPED, IPV4_BITS): 0}
    owners.update({mapped(network): number for number, network in enumerate(networks, 1)})
    starts: list[int] = []
    found: list[int] = [0]
    around: list[tuple[int, int]] = []
    """The networks that the last start lies in, the longest at the end: where each ends, and its number."""

    def leave(address: int) -> None:
        while around and around[-1][0] <= address:
            end, _ = around.pop()
            begin(end, around[-1][1] if around else 0)

    def begin(start: int, number: int) -> None:
        if starts and starts[-1] == start:
            found[-1] = number
        elif start < 1 << ADDRESS_BITS:
            starts.append(start)
            found.append(number)

    # A network comes before those inside it.
    for (start, length), number in sorted(owners.items()):
        leave(start)
        begin(start, number)
        around.append((start + (1 << ADDRESS_BITS - length), number))
    leave(1 << ADDRESS_BITS)
    octets = b"".join(start.to_bytes(16) for start in starts)
    # As bytes that are compared from the left. Zeros at the end do not count there, and are the least that there is.
    return np.frombuffer(octets, "S16"), np.array(found, np.int64)
