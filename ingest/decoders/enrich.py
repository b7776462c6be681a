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
from ingest.decoders.matrix import Matrix

Columns = dict[str, pa.Array]
Index = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.signedinteger]

NAMES_BYTES: Final = 128 << 20
"""What all names together may have, in UTF-8."""


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
    RECORD_SGT_NAME = auto()
    """Name by security group tag, of an exporter, as its flow records have it; that of its options data goes first."""


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
    ((Kind.INTERFACE_NAME,), (("in_if", "in_if_name"), ("out_if", "out_if_name"))),
    ((Kind.VRF_NAME,), (("ingress_vrf_id", "ingress_vrf_name"), ("egress_vrf_id", "egress_vrf_name"))),
    (
        (Kind.SGT_NAME, Kind.RECORD_SGT_NAME, Kind.CONFIGURED_SGT_NAME),
        (("src_sgt", "src_sgt_name"), ("dst_sgt", "dst_sgt_name")),
    ),
)
"""By which facts, the best first, which column's number gives which column its name."""

OF_ALL: Final = frozenset({Kind.CONFIGURED_SGT_NAME})
"""Kinds of facts that hold for all exporters."""
TAGS: Final = 1 << 16
"""Security group tags have 16 bits."""
NEAREST: Final = (Kind.SAMPLER_RATE, Kind.TEMPLATE_RATE, Kind.INTERFACE_RATE, Kind.DOMAIN_RATE)
"""Which rate counts of several, the best first."""


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


def domain_keys(exporters: Keys, version: int, domain: npt.NDArray[np.integer]) -> Keys:
    """A key for each exporter's observation domain."""
    return mix(mix(exporters, version), domain)


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Who sent n records: of m sets, each of one exporter, and of which of them each record is."""

    exporters: Keys
    """Of the sets, [m]."""
    domains: Keys
    """Of the sets, [m]."""
    templates: npt.NDArray[np.int64] | None
    """The sets' template ids, [m]; None where no fact is asked for by them."""
    of: Index
    """Which set each record is of, [n]."""


class Enrichment:
    """Facts of options data, asked for by the column. Bounded; a fact for which there is no room is refused."""

    def __init__(self, limit: int, seed: int, names_bytes: int = NAMES_BYTES) -> None:
        self.seed = seed
        self._facts = {kind: Lookup(limit) for kind in Kind}
        # Names by small numbers once more: of those nearly all records have, a search costs more than all else.
        self._matrices = {kind: Matrix() for kinds, _ in NAMED for kind in kinds if kind not in OF_ALL}
        self._groups = np.full(TAGS, MISSING, np.int32)
        self._exporters = Lookup(limit)
        self._names: list[str] = []
        self._room_bytes = names_bytes
        self._numbers: dict[str, int] = {}
        self._dictionary: pa.StringArray = pa.array([], pa.utf8())
        self._limit = limit

    def __len__(self) -> int:
        return sum(map(len, self._facts.values()))

    def has(self, *kinds: Kind) -> bool:
        """Whether there is any fact of these kinds."""
        return any(len(self._facts[kind]) for kind in kinds)

    def put(self, kind: Kind, key: int, value: int | str, exporter: int, about: int | str) -> bool:
        """Take in a fact by its key, which is made of an exporter's and of what it is about; False without room."""
        if isinstance(value, str):
            number = self._numbers.get(value)
            if number is None:
                size = len(value.encode())
                if len(self._names) >= self._limit or size > self._room_bytes:
                    return False
                self._room_bytes -= size
                number = self._numbers[value] = len(self._names)
                self._names.append(value)
            value = number
        if not self._facts[kind].put(key, value):
            return False
        if kind in self._matrices and isinstance(about, int):
            self._matrices[kind].put(self._exporter(exporter), about, value)
        return True

    def _exporter(self, key: int) -> int | None:
        """The number of an exporter, from 1 on; None when there is no room for one more."""
        number = int(self._exporters.get(np.array([key], np.uint64))[0])
        if number != MISSING:
            return number
        number = len(self._exporters) + 1
        return number if self._exporters.put(key, number) else None

    def name_groups(self, names: Mapping[int, str]) -> None:
        """Set the names of security groups that are for all exporters alike."""
        self._facts[Kind.CONFIGURED_SGT_NAME] = Lookup(self._limit)
        self._groups = np.full(TAGS, MISSING, np.int32)
        for tag, name in names.items():
            key = int(mix(np.full(1, self.seed, np.uint64), tag)[0])
            if self.put(Kind.CONFIGURED_SGT_NAME, key, name, 0, tag):
                self._groups[tag] = self._numbers[name]

    def numbers(self, kind: Kind, keys: Keys) -> npt.NDArray[np.int64]:
        """What the facts say for these keys, MISSING where they say nothing. Of names these are their numbers."""
        return self._facts[kind].get(keys)

    def number_of(self, name: str) -> int:
        """The number of a name, or MISSING while no fact has it."""
        return self._numbers.get(name, MISSING)

    def names(self, kind: Kind, keys: Keys) -> pa.DictionaryArray | None:
        """The names for these keys, null where there is none; None when there is none at all."""
        named = self._named(self._facts[kind].get(keys))
        return named if named.null_count < len(named) else None

    def _named(self, numbers: Numbers) -> pa.DictionaryArray:
        if len(self._dictionary) < len(self._names):
            more = pa.array(self._names[len(self._dictionary) :], pa.utf8())
            self._dictionary = pa.concat_arrays([self._dictionary, more])
        return columns.numbered(numbers, self._dictionary)

    def join(self, made: Columns, exporters: Keys, of: Index) -> None:
        """Add the names of interfaces, VRFs, security groups and applications to columns that have their numbers.

        Row i is of ``exporters[of[i]]``. A name that the record brought itself stands.
        """
        whose = _Whose(exporters, of, self._exporters)
        for kinds, pairs in NAMED:
            known = [kind for kind in kinds if self.has(kind)]
            for number, name in pairs:
                if known and number in made and _open(made, name):
                    ids = made[number]
                    numbers = _without_nulls(self._asked(known, whose, values_of(ids)), ids)
                    _add(made, name, self._named(numbers))
        if "application_id" in made and _open(made, "application_name") and self.has(Kind.APPLICATION_NAME):
            ids = made["application_id"].dictionary_encode()
            rows = ids.indices.fill_null(0).to_numpy(zero_copy_only=False)
            texts = text_keys(ids.dictionary.to_pylist()) if len(ids.dictionary) else np.zeros(1, np.int64)
            numbers = self.numbers(Kind.APPLICATION_NAME, mix(whose.keys, texts.take(rows)))
            _add(made, "application_name", self._named(_without_nulls(numbers, ids)))

    def _asked(self, kinds: Sequence[Kind], whose: _Whose, ids: npt.NDArray[np.integer]) -> Numbers:
        """The numbers of the names of ids, [n], by the best of these facts that says one."""
        numbers: Numbers | None = None
        for kind in kinds:
            if numbers is None:
                numbers = self._numbers_of(kind, whose, ids)
                continue
            if (numbers != MISSING).all():
                break
            numbers = np.where(numbers == MISSING, self._numbers_of(kind, whose, ids), numbers)
        assert numbers is not None
        return numbers

    def _numbers_of(self, kind: Kind, whose: _Whose, ids: npt.NDArray[np.integer]) -> Numbers:
        if kind is Kind.CONFIGURED_SGT_NAME:
            return self._groups.take(ids)
        matrix = self._matrices[kind]
        numbers = matrix.get(whose.places(matrix), ids)
        if not matrix.whole:
            open_ = np.flatnonzero(numbers == MISSING)
            numbers[open_] = self.numbers(kind, mix(whose.keys.take(open_), ids.take(open_)))
        return numbers

    def rates(
        self,
        own: pa.Array | None,
        sources: Sources,
        samplers: npt.NDArray[np.integer] | None,
        interfaces: npt.NDArray[np.integer] | None,
    ) -> pa.Array | None:
        """Sampling rates: the record's own, else by sampler, template or interface, else the domain's.

        ``samplers`` and ``interfaces`` are the ids that records have, [n], None where the layout has none. None when
        nothing is known of any record.
        """
        by_record = {Kind.SAMPLER_RATE: samplers, Kind.INTERFACE_RATE: interfaces}
        by_set = {Kind.TEMPLATE_RATE: sources.templates, Kind.DOMAIN_RATE: np.zeros(1, np.int64)}
        asked = {kind: about for kind, about in (by_record | by_set).items() if about is not None and self.has(kind)}
        if not asked or (own is not None and own.null_count == 0):
            return own
        if own is None and not any(kind in asked for kind in by_record):
            # Sets are few, and all records of one have the same rate.
            of_sets = self._nearest(np.zeros(len(sources.domains), np.int64), asked, sources.domains)
            return _rates(of_sets.astype(np.uint32).take(sources.of), own)
        rate = np.zeros(len(sources.of), np.int64)
        if own is not None:
            rate[:] = own.fill_null(0).to_numpy(zero_copy_only=False)
        if sources.templates is not None and Kind.TEMPLATE_RATE in asked:
            asked[Kind.TEMPLATE_RATE] = sources.templates.take(sources.of)
        return _rates(self._nearest(rate, asked, sources.domains.take(sources.of)).astype(np.uint32), own)

    def _nearest(
        self, rate: npt.NDArray[np.int64], asked: Mapping[Kind, npt.NDArray[np.integer]], domains: Keys
    ) -> npt.NDArray[np.int64]:
        """Rates, and where one is 0 that of the nearest fact."""
        for kind in NEAREST:
            if kind not in asked:
                continue
            if rate.all():
                break
            told = self.numbers(kind, mix(domains, asked[kind]))
            rate = np.where((rate == 0) & (told != MISSING), told, rate)
        return rate


class _Whose:
    """Of which exporter each of n rows is."""

    def __init__(self, exporters: Keys, of: Index, numbers: Lookup) -> None:
        self._exporters = exporters
        self._of = of
        self._lookup = numbers
        self._keys: Keys | None = None
        self._places: dict[Matrix, Index] = {}

    @property
    def keys(self) -> Keys:
        """Their keys, [n]."""
        if self._keys is None:
            self._keys = self._exporters.take(self._of)
        return self._keys

    def places(self, matrix: Matrix) -> Index:
        """Their places in a matrix, [n]: in both directions of a flow the same."""
        places = self._places.get(matrix)
        if places is None:
            # Whoever told no name is in row 0, as nobody is.
            places = self._places[matrix] = matrix.places(np.maximum(self._lookup.get(self._exporters), 0), self._of)
        return places


def _rates(rate: npt.NDArray[np.uint32], own: pa.Array | None) -> pa.Array | None:
    """Rates as a column, null where one is 0; the records' own when all are."""
    known = rate > 0
    if not known.any():
        return own
    return columns.primitive(rate, pa.uint32(), None if known.all() else known)


def _open(made: Columns, name: str) -> bool:
    """Whether a column leaves anything to be filled."""
    return name not in made or made[name].null_count > 0


def _without_nulls(numbers: Numbers, ids: pa.Array) -> Numbers:
    """The numbers, MISSING where there is no id: what stands there in its place means nothing."""
    if ids.null_count:
        numbers[ids.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return numbers


def _add(made: Columns, name: str, named: pa.DictionaryArray) -> None:
    """Add names beside those that are there already."""
    if named.null_count < len(named):
        own = made.get(name)
        made[name] = named if own is None else columns.coalesced(own, named)
