"""What devices said of themselves in options data, joined to the records that they send: names and sampling rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ingest.decoders import columns
from ingest.decoders.lookup import MISSING, Keys, Lookup, mix

Columns = dict[str, pa.Array]


class Kind(IntEnum):
    """What a fact of options data tells, and by what it is asked for."""

    DOMAIN_RATE = auto()
    """Sampling rate of an observation domain."""
    SAMPLER_RATE = auto()
    """Sampling rate by sampler or selector id, in an observation domain."""
    TEMPLATE_RATE = auto()
    """Sampling rate by template id, in an observation domain."""
    INTERFACE_RATE = auto()
    """Sampling rate by ifIndex of the input, in an observation domain."""
    INTERFACE_NAME = auto()
    """Name by ifIndex, of an exporter."""
    VRF_NAME = auto()
    """Name by VRF id, of an exporter."""
    APPLICATION_NAME = auto()
    """Name by application id, of an exporter."""
    SGT_NAME = auto()
    """Name by security group tag, of an exporter."""
    CONFIGURED_SGT_NAME = auto()
    """Name by security group tag, of all exporters."""
    BOOTED_MS = auto()
    """When an observation domain's uptime began, in milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that an exporter told of itself.

    ``source`` is its address of 16 bytes; ``about`` is an id, or an application's as text.
    """

    kind: Kind
    source: bytes
    version: int
    domain: int
    about: int | str
    value: int | str


OF_A_DOMAIN: Final = frozenset(
    {Kind.DOMAIN_RATE, Kind.SAMPLER_RATE, Kind.TEMPLATE_RATE, Kind.INTERFACE_RATE, Kind.BOOTED_MS}
)
"""Kinds that are asked for by exporter and observation domain; the others by exporter alone."""

NAMED: Final = (
    ("in_if", "in_if_name", Kind.INTERFACE_NAME),
    ("out_if", "out_if_name", Kind.INTERFACE_NAME),
    ("ingress_vrf_id", "ingress_vrf_name", Kind.VRF_NAME),
    ("egress_vrf_id", "egress_vrf_name", Kind.VRF_NAME),
    ("src_sgt", "src_sgt_name", Kind.SGT_NAME),
    ("dst_sgt", "dst_sgt_name", Kind.SGT_NAME),
)
"""Which column's number gives which column its name."""


def values_of(column: pa.Array) -> npt.NDArray[np.integer]:
    """The memory of a whole column of numbers; what stands where it is null means nothing."""
    return np.frombuffer(column.buffers()[1], np.dtype(f"u{column.type.bit_width // 8}"))


def exporter_keys(source: npt.NDArray[np.uint8], seed: int) -> Keys:
    """A key for each exporter address, [n, 16]. ``seed`` is the process's own, so that nobody can make two meet."""
    halves = np.ascontiguousarray(source).view(np.uint64)
    return mix(mix(np.full(len(source), seed, np.uint64), halves[:, 0].view(np.int64)), halves[:, 1].view(np.int64))


def text_keys(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A number for each text."""
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64).view(np.int64)


def domain_keys(exporters: Keys, version: int, domain: npt.NDArray[np.uint32]) -> Keys:
    """A key for each exporter's observation domain."""
    return mix(mix(exporters, version), domain)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """By what the sampling rate of n records is asked for: arrays of length n, None where the layout has none."""

    domains: Keys
    samplers: npt.NDArray[np.int64] | None
    templates: npt.NDArray[np.int64] | None
    interfaces: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Whose facts are asked for, of n records: arrays of length n."""

    enrichment: Enrichment
    exporters: Keys
    domains: Keys
    templates: npt.NDArray[np.int64] | None
    """Template ids; None where no fact is asked for by them."""


class Enrichment:
    """Facts of options data, asked for by the column. Bounded; a fact for which there is no room is refused."""

    def __init__(self, limit: int, seed: int) -> None:
        self.seed = seed
        self._facts = {kind: Lookup(limit) for kind in Kind}
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._dictionary: pa.StringArray | None = None
        self._limit = limit

    def __len__(self) -> int:
        return sum(map(len, self._facts.values()))

    def has(self, *kinds: Kind) -> bool:
        """Whether there is any fact of these kinds."""
        return any(len(self._facts[kind]) for kind in kinds)

    def put(self, kind: Kind, key: int, value: int | str) -> bool:
        """Take in a fact; False when there is no room."""
        if isinstance(value, str):
            number = self._numbers.get(value)
            if number is None:
                if len(self._names) >= self._limit:
                    return False
                number = self._numbers[value] = len(self._names)
                self._names.append(value)
                self._dictionary = None
            value = number
        return self._facts[kind].put(key, value)

    def name_groups(self, names: Mapping[int, str]) -> None:
        """Set the names of security groups that are for all exporters alike."""
        self._facts[Kind.CONFIGURED_SGT_NAME] = Lookup(self._limit)
        for tag, name in names.items():
            self.put(Kind.CONFIGURED_SGT_NAME, int(self._group_keys(np.array([tag]))[0]), name)

    def _group_keys(self, tags: npt.NDArray[np.integer]) -> Keys:
        return mix(np.full(len(tags), self.seed, np.uint64), tags)

    def numbers(self, kind: Kind, keys: Keys) -> npt.NDArray[np.int64]:
        """What the facts say for these keys, MISSING where they say nothing."""
        return self._facts[kind].get(keys)

    def names(self, kind: Kind, keys: Keys) -> pa.DictionaryArray | None:
        """The names for these keys, null where there is none; None when there is none at all."""
        found = self._facts[kind].get(keys)
        there = found != MISSING
        if not there.any():
            return None
        if self._dictionary is None:
            self._dictionary = pa.array(self._names, pa.utf8())
        return columns.compacted(np.where(there, found, 0), there, self._dictionary)

    def join(self, made: Columns, exporters: Keys) -> None:
        """Add the names of interfaces, VRFs and security groups to columns that have their numbers.

        A name that the record brought itself stands.
        """
        for number, name, kind in NAMED:
            if number not in made:
                continue
            ids = made[number]
            if self.has(kind):
                self._add(made, name, self.names(kind, mix(exporters, values_of(ids))), ids)
            if kind is Kind.SGT_NAME and self.has(Kind.CONFIGURED_SGT_NAME):
                named = self.names(Kind.CONFIGURED_SGT_NAME, self._group_keys(values_of(ids)))
                self._add(made, name, named, ids)
        if "application_id" in made and self.has(Kind.APPLICATION_NAME):
            ids = made["application_id"].dictionary_encode()
            rows = ids.indices.fill_null(0).to_numpy(zero_copy_only=False)
            texts = text_keys(ids.dictionary.to_pylist()) if len(ids.dictionary) else np.zeros(1, np.int64)
            named = self.names(Kind.APPLICATION_NAME, mix(exporters, texts[rows]))
            self._add(made, "application_name", named, ids)

    def rates(self, own: pa.Array | None, asked: Sampled) -> pa.Array | None:
        """Sampling rates: the record's own, else by sampler, template or interface, else the domain's.

        None when nothing is known of any record.
        """
        count = len(asked.domains)
        rate = np.zeros(count, np.int64)
        if own is not None:
            rate[:] = own.fill_null(0).to_numpy(zero_copy_only=False)
        for kind, about in (
            (Kind.SAMPLER_RATE, asked.samplers),
            (Kind.TEMPLATE_RATE, asked.templates),
            (Kind.INTERFACE_RATE, asked.interfaces),
            (Kind.DOMAIN_RATE, np.zeros(1, np.int64)),
        ):
            if about is None or not self.has(kind):
                continue
            if not (rate == 0).any():
                break
            told = self.numbers(kind, mix(asked.domains, about))
            rate = np.where((rate == 0) & (told != MISSING), told, rate)
        known = rate > 0
        if not known.any():
            return own
        return columns.primitive(rate.astype(np.uint32), pa.uint32(), None if known.all() else known)

    @staticmethod
    def _add(made: Columns, name: str, named: pa.DictionaryArray | None, ids: pa.Array) -> None:
        """Add names beside those that are there already; none where there is no number."""
        if named is None:
            return
        if ids.null_count:
            named = columns.where_valid(named, ids)
        own = made.get(name)
        made[name] = named if own is None else columns.coalesced(own, named)
