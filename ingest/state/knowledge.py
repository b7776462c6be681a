"""What an instance knows of exporters' templates and options data: heard by its workers, and followed in the topic."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from ingest.decoders.enrich import Fact
from ingest.decoders.headers import Heard
from ingest.decoders.layout import Layout, Template
from ingest.decoders.templates import DOMAIN_BYTES, Word
from ingest.state.entries import Entry, Message, Row, Skip, TemplateEntry, table_entry, template_entry
from ingest.state.order import Order
from ingest.state.outgoing import Outgoing
from ingest.state.streams import NONE, Streams
from ingest.state.tables import PageKey, Tables
from ingest.state.templates import SharedTemplates, Shown
from ingest.templates import SOURCE_BYTES, TemplateBounds

HEARD_SECONDS: Final = 60.0
"""How exactly it is known when an exporter was last heard."""

LOOKED_AT: Final = 500
"""Templates, and pages of tables, that are looked at every second for whether they are due or dead: a few, since that
is a matter of hours and days."""

SETTLING_SECONDS: Final = 30.0
MOST_SETTLING: Final = 65_536
"""A redefinition that came by the topic is told to the workers again after this: the data that was under way is read by
then, and the layout before it can go. So many wait for that at most."""


@dataclass(slots=True)
class Changes:
    """What workers have to be told."""

    templates: list[tuple[bytes, Template]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    read: bool = False
    """With these, all has been told that was in the topic at the start."""
    skipped: Counter[Skip] = field(default_factory=Counter)
    """Entries of the topic that were not taken in."""


@dataclass(frozen=True, slots=True)
class Due:
    """A message to publish, and what it says of which template or page."""

    item: bytes | PageKey
    message: Message
    says: tuple[Layout, Order] | list[Row]

    @property
    def records(self) -> int:
        """Templates or rows in it."""
        return len(self.says) if isinstance(self.says, list) else 1

    @property
    def kind(self) -> str:
        """What it is, for a metric."""
        return "table" if isinstance(self.says, list) else "template"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is known, and how much did not find room, ever."""

    templates: int
    facts: int
    pages: int
    contested: int
    waiting: int
    limited: dict[str, int]


class Knowledge:
    """Templates and facts of all exporters. May be used from any thread; the topic itself is somebody else's.

    Args:
        row_of: the row of an exporter's domain in the arrays that :meth:`observe` gets, -1 where there is none.
        steady_seconds: how long an exporter has to be heard until redefinitions of its templates are believed.
        clock: seconds that never go back.
        clock_ms: the time of day in milliseconds.
        seed: spreads over time what all instances know alike; each has its own.
    """

    def __init__(
        self,
        row_of: Callable[[bytes], int],
        steady_seconds: float,
        *,
        clock: Callable[[], float],
        clock_ms: Callable[[], int],
        seed: int,
        bounds: TemplateBounds | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._row_of = row_of
        self._clock = clock
        self._clock_ms = clock_ms
        self._seed = seed
        self._streams = Streams(round(steady_seconds * 1000))
        self._heard_at: dict[bytes, float] = {}
        self._row_heard = np.zeros(0, np.float64)
        self._outgoing: Outgoing[bytes | PageKey] = Outgoing()
        self._templates = SharedTemplates(bounds or TemplateBounds(), self._outgoing, self._trusted, self._jitter)
        self._tables = Tables(self._outgoing, self._heard_at.get, self._jitter)
        self._layouts: dict[Layout, Layout] = {}
        self._settling: deque[tuple[float, bytes, Layout]] = deque()

    # What workers heard

    def observe(self, rows: npt.NDArray[np.int64], heard: Heard) -> None:
        """Take in what was heard of exporters, ``rows`` telling which they are; before the words of the same batch."""
        now = self._clock()
        with self._lock:
            self._streams.hear(rows, heard)
            most = int(rows.max(initial=-1)) + 1
            if most > len(self._row_heard):
                grown = np.full(max(most, 2 * len(self._row_heard), 64), -np.inf)
                grown[: len(self._row_heard)] = self._row_heard
                self._row_heard = grown
            places = np.flatnonzero((rows >= 0) & (now - self._row_heard[rows] >= HEARD_SECONDS)) if most else rows[:0]
            self._row_heard[rows[places]] = now
            for place in places.tolist():
                self._heard_at[heard.source[place].tobytes()] = now

    def hear(self, words: Iterable[Word]) -> list[bytes]:
        """Take in what datagrams said; returns the keys of templates that are settled: none need tell them again."""
        now = self._clock()
        with self._lock:
            settled = []
            for word in words:
                number = self._streams.number(self._row_of(word.key[:DOMAIN_BYTES]), word.sequence)
                if self._templates.hear(word, number, now):
                    settled.append(word.key)
            return settled

    def hear_facts(self, facts: Iterable[Fact]) -> None:
        """Take in what options data told."""
        with self._lock:
            self._tables.hear(facts, self._clock(), self._clock_ms())

    def use(self, keys: Iterable[bytes]) -> None:
        """Templates with these keys were told again, or data came that need them."""
        with self._lock:
            self._templates.use(keys, self._clock())

    # What is in the topic

    def follow(self, entries: Sequence[tuple[Entry, int]]) -> Changes:
        """Take in entries of the topic, each with the time at which it came there, by the broker's clock."""
        now, now_ms = self._clock(), self._clock_ms()
        changes = Changes()
        with self._lock:
            for entry, appended_ms in entries:
                age = max(0, now_ms - appended_ms) / 1000
                if isinstance(entry, TemplateEntry):
                    self._follow_template(self._interned(entry), now, age, changes)
                    continue
                told = self._tables.follow(entry, now, age)
                if isinstance(told, Skip):
                    changes.skipped[told] += 1
                else:
                    changes.facts += told
        return changes

    def _follow_template(self, entry: TemplateEntry, now: float, age: float, changes: Changes) -> None:
        redefined = self._templates.version(entry.key) is not None
        outcome = self._templates.follow(entry, now, age)
        if isinstance(outcome, Skip):
            changes.skipped[outcome] += 1
        elif outcome:
            changes.templates.append((entry.key, entry.template))
            if redefined and len(self._settling) < MOST_SETTLING:
                self._settling.append((now + SETTLING_SECONDS, entry.key, entry.template.layout))

    def _interned(self, entry: TemplateEntry) -> TemplateEntry:
        """The entry with the layout that others have as well: a thousand exporters of one model share it."""
        template = entry.template
        if len(self._layouts) > 2 * len(self._templates) + 1024:
            self._layouts = {layout: layout for layout in self._templates.layouts()}
        layout = self._layouts.setdefault(template.layout, template.layout)
        return TemplateEntry(entry.key, Template(template.template_id, layout, template.wire_bytes), entry.order)

    def read_to_end(self) -> None:
        """The topic is read: from now on what is not in it may be published."""
        with self._lock:
            self._templates.read(self._clock())

    def begin_anew(self) -> None:
        """The topic is another one than before: what is known has to be published again."""
        now = self._clock()
        with self._lock:
            self._templates.begin_anew(now)
            self._tables.begin_anew(now)

    # What is published

    def due(self, most: int) -> list[Due]:
        """Messages to publish now; nothing before the topic is read."""
        with self._lock:
            if not self._templates.complete:
                return []
            found = []
            for item in self._outgoing.take(self._clock(), most):
                if isinstance(item, PageKey):
                    rows = self._tables.page(item)
                    if rows:
                        found.append(Due(item, table_entry(item.table, item.number, rows), rows))
                    continue
                version = self._templates.version(item)
                if version is not None:
                    template, order = version
                    found.append(Due(item, template_entry(item, template, order), (template.layout, order)))
            return found

    def acknowledged(self, due: Due) -> None:
        """Kafka has this message."""
        now = self._clock()
        with self._lock:
            if isinstance(due.item, PageKey):
                assert isinstance(due.says, list)
                self._tables.acknowledged(due.item, due.says, now)
            else:
                assert isinstance(due.says, tuple)
                self._templates.acknowledged(due.item, *due.says, now)

    def refused(self, due: Due) -> None:
        """Kafka did not take this message: it is tried again, some seconds later."""
        source = due.item.table.source if isinstance(due.item, PageKey) else due.item[:SOURCE_BYTES]
        with self._lock:
            self._outgoing.put(source, due.item, self._clock())

    def tend(self) -> Changes:
        """To be called every second: publish again what is due, forget what is dead, judge what is contested."""
        now = self._clock()
        changes = Changes()
        with self._lock:
            changes.forgotten = self._templates.tend(now, LOOKED_AT)
            self._tables.tend(now, LOOKED_AT)
            while self._settling and self._settling[0][0] <= now:
                _, key, layout = self._settling.popleft()
                version = self._templates.version(key)
                if version is not None and version[0].layout == layout:
                    changes.templates.append((key, version[0]))
        return changes

    # What is shown

    def templates(self) -> tuple[tuple[bytes, Template], ...]:
        """Every template by its key, as a worker that knows nothing has to learn them."""
        with self._lock:
            return tuple(self._templates)

    def facts(self) -> tuple[Fact, ...]:
        """Every fact."""
        with self._lock:
            return tuple(self._tables)

    def shown_templates(self) -> list[Shown]:
        """Every template, and where it came from."""
        with self._lock:
            return list(self._templates.shown())

    def shown_facts(self) -> list[tuple[Fact, str]]:
        """Every fact, and where it came from."""
        with self._lock:
            return list(self._tables.shown())

    def sizes(self) -> Sizes:
        """How much there is of everything."""
        with self._lock:
            return Sizes(
                templates=len(self._templates),
                facts=len(self._tables),
                pages=self._tables.pages,
                contested=self._templates.contested,
                waiting=len(self._outgoing),
                limited={
                    "rate": self._outgoing.delayed,
                    "exporters": self._outgoing.unlisted,
                    "templates": self._templates.refused,
                    "evicted": self._templates.evicted,
                    "facts": self._tables.refused,
                },
            )

    def _trusted(self, domain: bytes) -> int:
        row = self._row_of(domain)
        return NONE if row < 0 else self._streams.trusted(row)

    def _jitter(self, key: bytes) -> float:
        """A number from 0 to 1 that is this instance's own for each key."""
        return xxhash.xxh3_64_intdigest(key, self._seed) / 2**64
