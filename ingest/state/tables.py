"""What options data told, as all instances know it: tables of facts, in pages that are published as one message each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.decoders.enrich import OF_A_DOMAIN, Fact
from ingest.options import FACTS, FACTS_OF_AN_EXPORTER
from ingest.state.entries import MOST_PAGES, PAGE_ROWS, About, Row, Skip, TableEntry, TableKey, Value, passed_on
from ingest.state.outgoing import Waiting
from ingest.state.templates import AGAIN_SECONDS, ALIVE_SECONDS, LIFE_SECONDS, SPREAD


class PageKey(NamedTuple):
    """A page of a table."""

    table: TableKey
    number: int


_Known = tuple[Value, int, bool]
"""What is told of something, when in milliseconds, and whether it came by wire here, else by the topic. A plain tuple:
there may be a million of them."""


@dataclass(slots=True)
class _Page:
    """Rows that are published together. Times are seconds of a clock that never goes back."""

    since: float
    rows: dict[About, _Known] = field(default_factory=dict)
    published_at: float | None = None
    """Since when the topic has these rows, and no others; None while it has not."""


Told = Callable[[bytes], float | None]
"""When an exporter was last heard here."""


class Tables:
    """Facts by what they are of. Of a row the value holds that was told last, in whatever order they come.

    Which page a row is on is as the topic has it, so that instances which heard different rows agree in the end.
    """

    def __init__(
        self,
        outgoing: Waiting[PageKey],
        last_heard: Told,
        jitter: Callable[[bytes], float],
        limit: int = FACTS,
        exporter_limit: int = FACTS_OF_AN_EXPORTER,
    ) -> None:
        self._outgoing = outgoing
        self._last_heard = last_heard
        self._jitter = jitter
        self._limit = limit
        self._exporter_limit = exporter_limit
        self._pages: dict[TableKey, list[_Page]] = {}
        self._of_exporter: Counter[bytes] = Counter()
        self._rows = 0
        self._round: deque[PageKey] = deque()
        self.refused = 0
        """Facts for which there was no room, or which are not passed on, ever."""

    def __len__(self) -> int:
        return self._rows

    @property
    def pages(self) -> int:
        """How many pages there are, in all tables."""
        return sum(map(len, self._pages.values()))

    def __iter__(self) -> Iterator[Fact]:
        """All facts: to learn elsewhere."""
        return (fact for fact, _ in self.shown())

    def shown(self) -> Iterator[tuple[Fact, str]]:
        """All facts, and where each came from."""
        for table, pages in self._pages.items():
            for page in pages:
                for about, (value, _, heard) in page.rows.items():
                    yield _fact(table, about, value), "wire" if heard else "topic"

    def hear(self, facts: Iterable[Fact], now: float, now_ms: int) -> None:
        """Take in what options data told at this moment."""
        for fact in facts:
            table = _table_of(fact)
            if not passed_on(table, fact.about, fact.value):
                self.refused += 1
                continue
            told_ms = now_ms
            place = self._find(table, fact.about)
            if place is not None:
                value, then_ms, _ = self._pages[table][place].rows[fact.about]
                if value == fact.value:
                    continue
                # What is heard now is newer than what is known, whatever the clock of whoever told that.
                told_ms = max(now_ms, then_ms + 1)
            else:
                place = self._new_place(table, now)
                if place is None:
                    self.refused += 1
                    continue
                self._count(table, 1)
            page = self._pages[table][place]
            page.rows[fact.about] = (fact.value, told_ms, True)
            self._publish(table, place, now)

    def follow(self, entry: TableEntry, now: float, age: float) -> list[Fact] | Skip:
        """Take in a page that has been in the topic for ``age`` seconds; returns the facts that it changed."""
        if not self._has_room(entry):
            return Skip.NO_ROOM
        table, number = entry.table, entry.page
        if not entry.rows and number >= len(self._pages.get(table, ())):
            # It tells nothing, and nobody would ever remove the pages that were made for it.
            return []
        pages = self._pages.setdefault(table, [])
        while len(pages) <= number:
            pages.append(_Page(now))
        page = pages[number]
        others = [one.rows for one in pages if one.rows and one is not page]
        changed = self._merge(entry, page.rows, others) if page.rows or others else self._begin(entry, page)
        self._move_over(table, number, {about for about, _, _ in entry.rows}, now)
        same = len(page.rows) == len(entry.rows) and all(
            page.rows[about][:2] == (value, told_ms) for about, value, told_ms in entry.rows
        )
        if same:
            page.published_at = now - age
            self._outgoing.drop(table.source, PageKey(table, number))
        else:
            self._publish(table, number, now)
        return changed

    def _begin(self, entry: TableEntry, page: _Page) -> list[Fact]:
        """The first page of a table that is read: so are most, and there may be very many of them."""
        table = entry.table
        page.rows = {about: (value, told_ms, False) for about, value, told_ms in entry.rows}
        self._count(table, len(page.rows))
        return [_fact(table, about, value) for about, (value, _, _) in page.rows.items()]

    def _merge(self, entry: TableEntry, rows: dict[About, _Known], others: list[dict[About, _Known]]) -> list[Fact]:
        """Put the rows of an entry on its page, wherever they were before; returns what changed."""
        changed: list[Fact] = []
        added = 0
        for about, value, told_ms in entry.rows:
            known = rows.get(about)
            if known is None:
                known = next((other.pop(about) for other in others if about in other), None)
                added += known is None
            if known is None or (known[1], str(known[0])) < (told_ms, str(value)):
                known = (value, told_ms, False)
                changed.append(_fact(entry.table, about, value))
            rows[about] = known
        self._count(entry.table, added)
        return changed

    def begin_anew(self, now: float) -> None:
        """The topic was made anew: nothing of what is known is in it."""
        for table, pages in self._pages.items():
            for number, page in enumerate(pages):
                page.published_at = None
                if page.rows and self._alive(table, now):
                    self._outgoing.put(table.source, PageKey(table, number), now)

    def page(self, key: PageKey) -> list[Row]:
        """The rows of a page, to be published."""
        pages = self._pages.get(key.table, [])
        if key.number >= len(pages):
            return []
        return [(about, value, told_ms) for about, (value, told_ms, _) in pages[key.number].rows.items()]

    def acknowledged(self, key: PageKey, rows: list[Row], now: float) -> None:
        """Kafka has these rows of a page from now on."""
        if rows == self.page(key):
            self._pages[key.table][key.number].published_at = now

    def tend(self, now: float, most: int) -> None:
        """Look at so many pages: publish again what is due, forget what is dead. To be called every second."""
        if not self._round:
            self._round.extend(
                PageKey(table, number) for table, pages in self._pages.items() for number in range(len(pages))
            )
        for _ in range(min(len(self._round), most)):
            table, number = key = self._round.popleft()
            pages = self._pages.get(table, [])
            if number >= len(pages) or not pages[number].rows:
                continue
            page = pages[number]
            if self._alive(table, now):
                if self._due(key, page, now):
                    self._outgoing.put(table.source, key, now)
            elif now - max(page.since, page.published_at or 0.0, self._last_heard(table.source) or 0.0) >= LIFE_SECONDS:
                self._count(table, -len(page.rows))
                page.rows.clear()
                self._outgoing.drop(table.source, key)
                if not any(one.rows for one in pages):
                    del self._pages[table]

    def _alive(self, table: TableKey, now: float) -> bool:
        heard = self._last_heard(table.source)
        return heard is not None and now - heard < ALIVE_SECONDS

    def _due(self, key: PageKey, page: _Page, now: float) -> bool:
        if page.published_at is None:
            return True
        spread = SPREAD * self._jitter(key.table.source + bytes([key.number]))
        return now - page.published_at >= AGAIN_SECONDS * (1 - spread)

    def _publish(self, table: TableKey, number: int, now: float) -> None:
        self._pages[table][number].published_at = None
        self._outgoing.put(table.source, PageKey(table, number), now)

    # Which page

    def _find(self, table: TableKey, about: About) -> int | None:
        """The page that a row is on."""
        for number, page in enumerate(self._pages.get(table, ())):
            if about in page.rows:
                return number
        return None

    def _new_place(self, table: TableKey, now: float) -> int | None:
        """A page with room for one row more; None where a bound is reached."""
        if self._rows >= self._limit or self._of_exporter[table.source] >= self._exporter_limit:
            return None
        return self._page_with_room(table, now)

    def _page_with_room(self, table: TableKey, now: float, besides: int = -1) -> int | None:
        pages = self._pages.setdefault(table, [])
        for number in reversed(range(len(pages))):
            if len(pages[number].rows) < PAGE_ROWS and number != besides:
                return number
        if len(pages) >= MOST_PAGES:
            return None
        pages.append(_Page(now))
        return len(pages) - 1

    def _move_over(self, table: TableKey, number: int, kept: set[About], now: float) -> None:
        """Move rows to other pages until this one has no more than it may; those of the topic stay."""
        page = self._pages[table][number]
        for about in [about for about in page.rows if about not in kept][: max(0, len(page.rows) - PAGE_ROWS)]:
            told = page.rows.pop(about)
            place = self._page_with_room(table, now, besides=number)
            if place is None:
                self._count(table, -1)
                self.refused += 1
                continue
            self._pages[table][place].rows[about] = told
            self._publish(table, place, now)

    # Bounds

    def _has_room(self, entry: TableEntry) -> bool:
        room = min(self._limit - self._rows, self._exporter_limit - self._of_exporter[entry.table.source])
        if len(entry.rows) <= room:
            return True
        return sum(self._find(entry.table, about) is None for about, _, _ in entry.rows) <= room

    def _count(self, table: TableKey, rows: int) -> None:
        self._rows += rows
        self._of_exporter[table.source] += rows
        if not self._of_exporter[table.source]:
            del self._of_exporter[table.source]


def _table_of(fact: Fact) -> TableKey:
    version, domain = (fact.version, fact.domain) if fact.kind in OF_A_DOMAIN else (0, 0)
    return TableKey(fact.kind, fact.source, version, domain)


def _fact(table: TableKey, about: About, value: Value) -> Fact:
    return Fact(table.kind, table.source, table.version, table.domain, about, value)
