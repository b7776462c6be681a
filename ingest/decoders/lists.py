"""Structured data (RFC 6313): lists inside records, all of a group's found and read together.

The first record of a list, of a list of several templates the first of each entry, fills columns that the record around
it leaves open; of a basic list the first element does. BGP communities are taken whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns, elements
from ingest.decoders.elements import Element
from ingest.decoders.fault import Fault, Oddity
from ingest.decoders.fields import Fields, Offsets, VariableFields
from ingest.decoders.headers import windows, word16, word32
from ingest.decoders.layout import VARIABLE, Layout
from ingest.decoders.records import first_fields, first_value
from ingest.decoders.sets import find_sets
from ingest.decoders.templates import AMBIGUOUS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Collection

    from ingest.decoders.origin import Origin
    from ingest.decoders.plan import Plan
    from ingest.decoders.templates import Templates

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Columns = dict[str, pa.Array]

DEEPEST: Final = 4
"""Lists in lists in lists are read so far down: those of a record are the first level."""
MOST_KINDS: Final = 1024
"""Of a batch, so many kinds of list are read: each template inside records of a template is one, each element too."""
LONGEST_HEAD_BYTES: Final = 9
"""Of a basic list: semantic, element, length, and the enterprise number where there is one."""
HEAD_BYTES: Final = 5
SEMANTIC_BYTES: Final = 1
SUB_TEMPLATE_HEAD_BYTES: Final = 3
ENTERPRISE_BIT: Final = 0x8000
COMMUNITY_BYTES: Final = 4
PLACE_BITS: Final = 17
"""No place in a field needs more."""


@dataclass(slots=True)
class Budget:
    """How much of a batch's structured data may still be read."""

    kinds: int = MOST_KINDS

    def take(self) -> bool:
        """Whether one kind of list more may be read."""
        self.kinds -= 1
        return self.kinds >= 0


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """What is around a group of records: the templates that lists in them refer to, and whose they are."""

    templates: Templates
    version: int
    variant: int
    decapsulate: Collection[str]
    domains: Sequence[bytes]
    """The template key of each set, without the template id."""
    of: Offsets
    """Which of the sets each record is of."""
    budget: Budget
    depth: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    """What could not be read, counted in lists; those in lists count here too."""

    def inside(self, of: Offsets) -> Around:
        """The same for records in lists of these."""
        return replace(self, of=of, depth=self.depth + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """Lists of one kind, or entries of such: arrays of length m."""

    record: Offsets
    """Which of the records."""
    rank: Offsets
    """What counts first in its record: the smaller number."""
    start: Offsets
    end: Offsets

    def take(self, which: Offsets | Mask) -> _Lists:
        return _Lists(self.record[which], self.rank[which], self.start[which], self.end[which])

    def __len__(self) -> int:
        return len(self.record)


def list_places(layout: Layout) -> tuple[tuple[int, Element], ...]:
    """Where the layout has lists, in its order, and by which element."""
    return tuple(
        (at, (one.enterprise, one.element))
        for at, one in enumerate(layout.fields)
        if at >= layout.scopes and one.length > 0 and (one.enterprise, one.element) in elements.LISTS
    )


def list_columns(
    places: Sequence[tuple[int, Element]],
    fields: Fields,
    origin: Origin,
    around: Around,
    oddities: Counter[Oddity],
) -> Columns:
    """What the lists of records tell, where it is not told by an earlier one of the same record."""
    found: dict[Element, list[_Lists]] = {}
    for order, (at, element) in enumerate(places):
        lists = _of_field(fields, at, order, element)
        if len(lists):
            found.setdefault(element if element in _SUB_TEMPLATES else elements.BASIC_LIST, []).append(lists)
    if around.depth >= DEEPEST:
        around.faults[Fault.LIST_LIMIT] += sum(len(lists) for parts in found.values() for lists in parts)
        return {}
    reading = _Reading(fields.span(places[0][0])[0], fields.count, origin, around, oddities)
    for element, parts in found.items():
        reading.read(element, _joined(parts))
    return reading.pieces.columns()


_SUB_TEMPLATES: Final = (elements.SUB_TEMPLATE_LIST, elements.SUB_TEMPLATE_MULTI_LIST)


def _of_field(fields: Fields, at: int, order: int, element: Element) -> _Lists:
    """The lists of one field, without those that are empty."""
    _, start, length = fields.span(at)
    there = np.flatnonzero(length > 0)
    # The communities of the destination are those of the route; those of the source count where there are no others.
    place = order + (_COMMUNITIES_RANK.get(element, 0) << PLACE_BITS)
    return _Lists(there, np.full(len(there), place << PLACE_BITS), start[there], start[there] + length[there])


_COMMUNITIES_RANK: Final = {elements.DESTINATION_COMMUNITIES: -1, elements.SOURCE_COMMUNITIES: 1}


def _joined(parts: list[_Lists]) -> _Lists:
    return _Lists(
        np.concatenate([part.record for part in parts]),
        np.concatenate([part.rank for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
    )


def _groups(values: Offsets) -> Iterator[tuple[int, Offsets]]:
    """Each distinct value and where it stands, ascending; the most frequent first, so that rare ones exhaust no budget."""
    distinct, of, count = np.unique(values, return_inverse=True, return_counts=True)
    order, ends = np.argsort(of, kind="stable"), np.cumsum(count)
    for at in np.argsort(-count, kind="stable").tolist():
        yield int(distinct[at]), order[ends[at] - count[at] : ends[at]]


class _Pieces:
    """Columns of ``count`` records, put together from values that several lists of a record may have."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: dict[str, list[tuple[_Lists, pa.Array]]] = {}

    def put(self, name: str, lists: _Lists, values: pa.Array) -> None:
        """Add a value for each list, or null."""
        self._parts.setdefault(name, []).append((lists, values))

    def columns(self) -> Columns:
        """The columns of which any list tells: of each record's values the first that is not null."""
        made = {name: self._column(parts) for name, parts in self._parts.items()}
        return {name: column for name, column in made.items() if column.null_count < len(column)}

    def _column(self, parts: list[tuple[_Lists, pa.Array]]) -> pa.Array:
        record = np.concatenate([lists.record for lists, _ in parts])
        rank = np.concatenate([lists.rank for lists, _ in parts])
        named = pa.types.is_dictionary(parts[0][1].type)
        values = pa.concat_arrays([column.dictionary_decode() if named else column for _, column in parts])
        told = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        ordered = told[np.lexsort((rank[told], record[told]))]
        first = ordered[np.append(True, np.diff(record[ordered]) != 0)] if len(ordered) else ordered
        index = np.full(self._count, -1)
        index[record[first]] = first
        taken = values.take(pa.array(index, mask=index < 0))
        return taken.dictionary_encode() if named else taken


class _Reading:
    """Reads the lists of one group of records, which lie in one buffer."""

    def __init__(self, buffer: Octets, count: int, origin: Origin, around: Around, oddities: Counter[Oddity]) -> None:
        self.pieces = _Pieces(count)
        self._buffer = buffer
        self._origin = origin
        self._around = around
        self._oddities = oddities

    def read(self, element: Element, lists: _Lists) -> None:
        """Read lists of one of the three forms."""
        if element == elements.SUB_TEMPLATE_LIST:
            self._sub_template_lists(lists)
        elif element == elements.SUB_TEMPLATE_MULTI_LIST:
            self._sub_template_multi_lists(lists)
        else:
            self._basic_lists(lists)

    def _fault(self, fault: Fault, where: Mask) -> None:
        count = int(np.count_nonzero(where))
        if count:
            self._around.faults[fault] += count

    def _basic_lists(self, lists: _Lists) -> None:
        """Semantic, element, length of each value, and values (RFC 6313 §4.5.1)."""
        head = windows(self._buffer, lists.start, LONGEST_HEAD_BYTES)
        number = word16(head, 1).astype(np.int64)
        private = number >= ENTERPRISE_BIT
        lists = replace(lists, start=lists.start + np.where(private, LONGEST_HEAD_BYTES, HEAD_BYTES))
        width = word16(head, 3).astype(np.int64)
        size = lists.end - lists.start
        # Without a value there is no need of a length; with one there is, and as many bytes as whole values have.
        whole = (size == 0) | ((size > 0) & (width > 0) & ((width == VARIABLE) | (size % np.maximum(width, 1) == 0)))
        self._fault(Fault.BAD_LIST, ~whole)
        codes = np.where(private, word32(head, 5), 0).astype(np.int64) << 16 | (number & ~ENTERPRISE_BIT)
        some = np.flatnonzero(whole & (size > 0))
        lists, width = lists.take(some), width[some]
        for code, which in _groups(codes[some]):
            element = (code >> 16, code & 0xFFFF)
            if element == elements.COMMUNITY:
                self._communities(lists.take(which), width[which])
            else:
                self._first_values(element, lists.take(which), width[which])

    def _first_values(self, element: Element, lists: _Lists, width: Offsets) -> None:
        """Take the first value of each list for a field of a record that has nothing else."""
        plan = self._around.templates.element_plan(self._around.version, element, self._around.variant)
        if plan is None or not self._allowed(len(lists)):
            return
        start, length, whole = first_value(self._buffer, lists.start, lists.end)
        fixed = width != VARIABLE
        start, length, whole = np.where(fixed, lists.start, start), np.where(fixed, width, length), whole | fixed
        self._fault(Fault.BAD_LIST, ~whole)
        self._put(plan, lists.take(whole), VariableFields(self._buffer, [start[whole]], [length[whole]]))

    def _communities(self, lists: _Lists, width: Offsets) -> None:
        sound = width == COMMUNITY_BYTES
        self._fault(Fault.BAD_LIST, ~sound)
        lists = lists.take(sound)
        count = (lists.end - lists.start) // COMMUNITY_BYTES
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum(count, out=offsets[1:])
        place = np.repeat(lists.start - COMMUNITY_BYTES * offsets[:-1], count)
        place = place + COMMUNITY_BYTES * np.arange(int(offsets[-1]))
        values = word32(windows(self._buffer, place, COMMUNITY_BYTES), 0)
        self.pieces.put(
            "bgp_communities",
            lists,
            pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), columns.primitive(values, pa.uint32())),
        )

    def _sub_template_lists(self, lists: _Lists) -> None:
        """Semantic, template id, and records (RFC 6313 §4.5.2)."""
        whole = lists.end - lists.start >= SUB_TEMPLATE_HEAD_BYTES
        self._fault(Fault.BAD_LIST, ~whole)
        lists = lists.take(whole)
        template_id = word16(windows(self._buffer, lists.start, SUB_TEMPLATE_HEAD_BYTES), SEMANTIC_BYTES)
        self._entries(replace(lists, start=lists.start + SUB_TEMPLATE_HEAD_BYTES), template_id)

    def _sub_template_multi_lists(self, lists: _Lists) -> None:
        """Semantic, and entries: template id, length with these four bytes, records (RFC 6313 §4.5.3)."""
        # An entry is built like a set.
        sets, beyond, too_small = find_sets(self._buffer, lists.start + SEMANTIC_BYTES, lists.end)
        self._fault(Fault.BAD_LIST, beyond | too_small)
        rank = lists.rank[sets.row] + (sets.start - lists.start[sets.row])
        self._entries(_Lists(lists.record[sets.row], rank, sets.start, sets.start + sets.length), sets.number)

    def _entries(self, entries: _Lists, template_id: npt.NDArray[np.uint16]) -> None:
        """Read the first record of each entry, with the template that its exporter gave this id."""
        some = np.flatnonzero(entries.end > entries.start)
        entries = entries.take(some)
        codes = self._around.of[entries.record] << 16 | template_id[some]
        distinct, of = np.unique(codes, return_inverse=True)
        numbers = self._layouts(distinct)[of] if len(distinct) else np.zeros(0, np.int64)
        for number, which in _groups(numbers):
            if number == UNKNOWN or self._around.templates.layout(number).options:
                self._around.faults[Fault.UNKNOWN_LIST_TEMPLATE] += len(which)
            elif self._allowed(len(which)):
                self._first_records(number, entries.take(which))

    def _layouts(self, codes: Offsets) -> Offsets:
        """The layout of each set's template id; what is known of an id twice is read by the newest."""
        templates, domains = self._around.templates, self._around.domains
        keys = [domains[code >> 16] + (code & 0xFFFF).to_bytes(2) for code in codes.tolist()]
        numbers = templates.numbers(keys)
        return np.array(
            [
                templates.candidates(key)[0] if number == AMBIGUOUS else number
                for key, number in zip(keys, numbers, strict=True)
            ],
            np.int64,
        )

    def _first_records(self, number: int, entries: _Lists) -> None:
        templates = self._around.templates
        fields, whole = first_fields(templates.layout(number), self._buffer, entries.start, entries.end)
        self._fault(Fault.BAD_LIST, ~whole)
        self._put(templates.plan(number, self._around.variant), entries.take(whole), fields)

    def _allowed(self, lists: int) -> bool:
        if self._around.budget.take():
            return True
        self._around.faults[Fault.LIST_LIMIT] += lists
        return False

    def _put(self, plan: Plan, lists: _Lists, fields: Fields) -> None:
        if len(lists) == 0:
            return
        around = self._around.inside(self._around.of[lists.record])
        for name, values in plan.columns(fields, self._origin.take(lists.record), around, self._oddities).items():
            self.pieces.put(name, lists, values)
