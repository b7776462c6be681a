"""What is known of every exporter's templates, bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.elements import ALONE, Element
from ingest.decoders.fault import Fault
from ingest.decoders.layout import VARIABLE, Field, Layout, Template
from ingest.decoders.mapping import FieldMapping
from ingest.decoders.plan import Plan
from ingest.decoders.templates import AMBIGUOUS, DOMAIN_BYTES, UNKNOWN, Learned

SOURCE_BYTES: Final = 16
"""A template's key without all but its exporter."""

FIELD_BYTES: Final = 240
"""What a field of a layout costs, with what it is compiled to: measured with tracemalloc, and rounded up."""

FEW_KEYS: Final = 256
LOOK_AT: Final = 8
"""Of batches with more data sets than the first, every so many-th is looked at for which templates are in use."""


@dataclass(frozen=True, slots=True)
class TemplateBounds:
    """How much is kept. Over a bound for one exporter a template is refused; over one for all, the oldest goes."""

    per_domain: int = 512
    per_exporter: int = 4096
    """Templates of all of an exporter's domains: a domain's number is whatever a datagram says."""
    template_bytes: int = 8192
    templates: int = 262_144
    total_bytes: int = 256 << 20
    """Bytes of memory that the distinct layouts of all templates take, compiled."""

    @property
    def unproven(self) -> int:
        """Of all templates, so many that were told but once and not used are not the first to go."""
        return self.templates // 16 + 1


@dataclass(frozen=True, slots=True)
class Known:
    """The layouts of one template id, by number, the newest first; two while a redefinition is not confirmed."""

    numbers: tuple[int, ...]
    wire_bytes: int


class TemplateStore:
    """Templates by exporter, version, observation domain and template id; one layout shared by all that send it.

    A redefinition keeps the layout before it until the new one has come a second time: datagrams of both may be
    under way, and one datagram alone may be forged. When room is needed, what was told but once and never used goes
    first, so that a flood of templates that nobody needs displaces itself. One thread uses a store.
    """

    def __init__(self, bounds: TemplateBounds | None = None, mapping: FieldMapping | None = None) -> None:
        self._bounds = bounds or TemplateBounds()
        self._known: dict[bytes, Known] = {}
        self._numbers: dict[bytes, int] = {}
        self._in_domain: Counter[bytes] = Counter()
        self._of_exporter: Counter[bytes] = Counter()
        self._unproven: dict[bytes, None] = {}
        self._used: set[bytes] = set()
        self._turn = 0
        self._contested: set[bytes] = set()
        self._bytes = 0
        self._layouts: list[Layout | None] = []
        self._plans: list[dict[int, Plan]] = []
        self._mapping = mapping or FieldMapping()
        self._elements = ALONE | self._mapping.elements
        self._element_plans: dict[tuple[int, Element, int], Plan] = {}
        self._references: list[int] = []
        self._free: list[int] = []
        self._unused: list[int] = []
        self._interned: dict[Layout, int] = {}
        self.evicted = 0
        """How many templates went to make room for others, ever."""
        self._told_evicted = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def layouts(self) -> int:
        """How many distinct layouts the templates have."""
        return len(self._interned) - sum(not self._references[number] for number in set(self._unused))

    def __iter__(self) -> Iterator[tuple[bytes, Template]]:
        """Every template by its key, of a redefined one all layouts, the oldest first: to learn again elsewhere."""
        for key, known in self._known.items():
            for number in reversed(known.numbers):
                yield key, Template(int.from_bytes(key[DOMAIN_BYTES:]), self.layout(number), known.wire_bytes)

    def numbers(self, keys: Sequence[bytes]) -> list[int]:
        """See :meth:`ingest.decoders.templates.Templates.numbers`."""
        self._turn += 1
        # In use is what is used now and then: of large batches, which come one after the other, some are enough.
        some = len(self._used) < self._bounds.templates and (len(keys) < FEW_KEYS or self._turn % LOOK_AT == 0)
        self._used.update(keys if some else ())
        return list(map(self._numbers.get, keys, repeat(UNKNOWN)))

    def candidates(self, key: bytes) -> tuple[int, ...]:
        """See :meth:`ingest.decoders.templates.Templates.candidates`."""
        known = self._known.get(key)
        return () if known is None else known.numbers

    def contested(self, key: bytes) -> bool:
        """See :meth:`ingest.decoders.templates.Templates.contested`."""
        return key in self._contested

    def settle(self, keys: Iterable[bytes]) -> None:
        """These templates are contested no more: all instances know them as they are told."""
        self._contested.difference_update(keys)

    def take_used(self) -> list[bytes]:
        """The templates that came again, or data that needs them, since the last call; called now and then."""
        used = [key for key in self._used if key in self._known]
        self._used = set()
        for key in used:
            self._unproven.pop(key, None)
        return used

    def take_evicted(self) -> int:
        """How many templates went to make room for others since the last call."""
        told, self._told_evicted = self._told_evicted, self.evicted
        return self.evicted - told

    def forget(self, keys: Iterable[bytes]) -> None:
        """Give up templates; called between two batches."""
        for key in keys:
            if key in self._known:
                self._remove(key)

    def layout(self, number: int) -> Layout:
        """See :meth:`ingest.decoders.templates.Templates.layout`."""
        layout = self._layouts[number]
        if layout is None:
            raise LookupError(f"layout {number} is not in use")
        return layout

    def variants(self, source: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """See :meth:`ingest.decoders.templates.Templates.variants`."""
        return self._mapping.variants(source)

    def plan(self, number: int, variant: int) -> Plan:
        """See :meth:`ingest.decoders.templates.Templates.plan`."""
        plan = self._plans[number].get(variant)
        if plan is None:
            layout = self.layout(number)
            plan = self._plans[number][variant] = Plan(layout, self._mapping.rules(layout, variant))
        return plan

    def element_plan(self, version: int, element: Element, variant: int) -> Plan | None:
        """See :meth:`ingest.decoders.templates.Templates.element_plan`."""
        if element not in self._elements:
            return None
        key = (version, element, variant)
        plan = self._element_plans.get(key)
        if plan is None:
            layout = Layout(version, (Field(*element, VARIABLE),), options=False, scopes=0)
            plan = self._element_plans[key] = Plan(layout, self._mapping.rules(layout, variant))
        return plan

    def map(self, mapping: FieldMapping) -> None:
        """Use another mapping from the next batch on."""
        self._mapping = mapping
        self._elements = ALONE | mapping.elements
        self._element_plans.clear()
        self._plans = [{} for _ in self._plans]

    def free_unused(self) -> None:
        """Give back the numbers of layouts that no template refers to any more; called between two batches."""
        for number in self._unused:
            layout = self._layouts[number]
            if layout is not None and self._references[number] == 0:
                del self._interned[layout]
                self._layouts[number], self._plans[number] = None, {}
                self._free.append(number)
        self._unused.clear()

    def learn(self, key: bytes, template: Template) -> Learned | Fault | None:
        """See :meth:`ingest.decoders.templates.Templates.learn`."""
        known = self._known.pop(key, None)
        if known is not None:
            # Put back at the end: what was heard of last goes last when room is needed.
            self._known[key] = known
            if self.layout(known.numbers[0]) == template.layout:
                self._confirm(key, known)
                self._unproven.pop(key, None)
                self._used.add(key)
                return None
        refused = self._refusal(key, template, known)
        if refused is not None:
            return refused
        number = self._intern(template.layout)
        numbers: tuple[int, ...] = (number,)
        if known is None:
            self._in_domain[key[:DOMAIN_BYTES]] += 1
            self._of_exporter[key[:SOURCE_BYTES]] += 1
            self._unproven[key] = None
        else:
            self._contested.add(key)
            numbers = (number, known.numbers[0])
            self._release(known.numbers[1:])
        self._known[key] = Known(numbers, template.wire_bytes)
        self._numbers[key] = number if known is None else AMBIGUOUS
        self._make_room()
        return Learned(key, template, number, redefined=known is not None)

    def _refusal(self, key: bytes, template: Template, known: Known | None) -> Fault | None:
        if template.wire_bytes > self._bounds.template_bytes:
            return Fault.TEMPLATE_TOO_LARGE
        if known is not None:
            return None
        crowded = (
            self._in_domain[key[:DOMAIN_BYTES]] >= self._bounds.per_domain
            or self._of_exporter[key[:SOURCE_BYTES]] >= self._bounds.per_exporter
        )
        return Fault.TEMPLATE_LIMIT if crowded else None

    def _confirm(self, key: bytes, known: Known) -> None:
        if len(known.numbers) > 1:
            self._release(known.numbers[1:])
            self._known[key] = Known(known.numbers[:1], known.wire_bytes)
            self._numbers[key] = known.numbers[0]

    def _intern(self, layout: Layout) -> int:
        number = self._interned.get(layout)
        if number is None:
            if self._free:
                number = self._free.pop()
                self._layouts[number], self._plans[number], self._references[number] = layout, {}, 0
            else:
                number = len(self._layouts)
                self._layouts.append(layout)
                self._plans.append({})
                self._references.append(0)
            self._interned[layout] = number
        if self._references[number] == 0:
            self._bytes += FIELD_BYTES * len(layout.fields)
        self._references[number] += 1
        return number

    def _release(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._references[number] -= 1
            if self._references[number] == 0:
                self._bytes -= FIELD_BYTES * len(self.layout(number).fields)
                self._unused.append(number)

    def _make_room(self) -> None:
        while len(self._known) > self._bounds.templates or self._bytes > self._bounds.total_bytes:
            self._remove(next(iter(self._unproven if len(self._unproven) > self._bounds.unproven else self._known)))
            self.evicted += 1

    def _remove(self, key: bytes) -> None:
        self._release(self._known.pop(key).numbers)
        del self._numbers[key]
        self._unproven.pop(key, None)
        self._contested.discard(key)
        for counter, part in ((self._in_domain, key[:DOMAIN_BYTES]), (self._of_exporter, key[:SOURCE_BYTES])):
            counter[part] -= 1
            if not counter[part]:
                del counter[part]
