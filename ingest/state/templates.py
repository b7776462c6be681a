"""The templates of all exporters as all instances know them: what holds, and redefinitions that are not yet believed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ingest.decoders.layout import Layout, Template
from ingest.decoders.templates import DOMAIN_BYTES, Word
from ingest.state.entries import Skip, TemplateEntry, layout_hash
from ingest.state.order import FIRST, Order, order_of
from ingest.state.outgoing import Waiting
from ingest.state.streams import NONE
from ingest.templates import SOURCE_BYTES, TemplateBounds

WORDS: Final = 2
"""So many datagrams have to say a redefinition until it is believed."""
RIVALS: Final = 4
"""Layouts of one template, and sequences in which one was said, that are told apart; more displace earlier ones."""
RIVAL_SECONDS: Final = 7200.0
"""A redefinition that was not said again for so long is given up: exporters repeat templates within half an hour."""

LIFE_SECONDS: Final = 7 * 86_400.0
"""What nobody has told or used for so long is forgotten, here as in the topic."""
ALIVE_SECONDS: Final = 86_400.0
"""What was told or used here within this is published again every day."""
AGAIN_SECONDS: Final = 86_400.0
SPREAD: Final = 0.25
"""Every day, or up to this share of it earlier, so that not everything comes at once."""
CROWDED: Final = 0.75
CROWDED_SECONDS: Final = 3600.0
"""Of an exporter with more than this share of the templates that it may have, those not used for so long make room."""


@dataclass(slots=True)
class _Rival:
    """A layout that was told and does not hold."""

    template: Template
    order: Order
    said: float
    words: dict[int, set[tuple[int, int | None, int]]] = field(default_factory=dict)
    """By the sequence in which they came: the datagrams that said it, by sequence number, uptime and export time."""


@dataclass(slots=True)
class _Known:
    """What is known of one template. Times are seconds of a clock that never goes back."""

    since: float
    template: Template | None = None
    """The version that holds; None while none does, since the topic is not read yet."""
    order: Order = FIRST
    heard: bool = False
    """Whether the version that holds came here by wire first, else by the topic."""
    used: float | None = None
    """When it was last told here, or data came that need it."""
    published: Order | None = None
    """The place that the version which holds has in the topic; None when it is not there."""
    published_at: float = 0.0
    rivals: list[_Rival] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shown:
    """A template as it is shown: its key, its layout, where it came from, and whether it is the one that holds."""

    key: bytes
    template: Template
    origin: str
    holds: bool


Trusted = Callable[[bytes], int]
"""The number of the sequence in which an exporter's domain has been heard for long enough, or NONE."""


class SharedTemplates:
    """Templates by key. The version that holds is the newest by :class:`Order`, in whatever order they come.

    A first definition holds at once, when the topic is read (``complete``) and has none. A redefinition by wire holds
    when two datagrams of the exporter's own sequence have said it; one in the topic has been through that elsewhere.
    """

    def __init__(
        self, bounds: TemplateBounds, outgoing: Waiting[bytes], trusted: Trusted, jitter: Callable[[bytes], float]
    ) -> None:
        self._bounds = bounds
        self._outgoing = outgoing
        self._trusted = trusted
        self._jitter = jitter
        self._known: dict[bytes, _Known] = {}
        # Those that were told but once and never used: the first to go when room is needed.
        self._unused: dict[bytes, None] = {}
        self._contested: dict[bytes, None] = {}
        self._in_domain: Counter[bytes] = Counter()
        self._of_exporter: Counter[bytes] = Counter()
        self._round: deque[bytes] = deque()
        self.complete = False
        self.evicted = 0
        """Templates that went to make room for others, ever."""
        self.refused = 0
        """Templates of exporters that have as many as they may, ever."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[bytes, Template]]:
        """Every template by its key, to learn elsewhere: the one that holds last, before it its latest rival."""
        for key, known in self._known.items():
            if known.rivals:
                yield key, max(known.rivals, key=lambda rival: rival.said).template
            if known.template is not None:
                yield key, known.template

    @property
    def contested(self) -> int:
        """Templates with a redefinition that is not believed."""
        return len(self._contested)

    def shown(self) -> Iterator[Shown]:
        """All that is known, the version that holds before its rivals."""
        for key, known in self._known.items():
            if known.template is not None:
                yield Shown(key, known.template, "wire" if known.heard else "topic", holds=True)
            for rival in known.rivals:
                yield Shown(key, rival.template, "wire", holds=False)

    def layouts(self) -> Iterator[Layout]:
        """The layouts of all of these."""
        return (one.template.layout for one in self.shown())

    # What is heard, and what is followed

    def hear(self, word: Word, number: int, now: float) -> bool:
        """Take in what a datagram said that belongs to the sequence of this number.

        Returns whether the template is settled: it was said as it holds, and there is nothing that contests it.
        """
        known = self._known.get(word.key)
        if known is None:
            known = self._add(word.key, now)
            if known is None:
                self.refused += 1
                return False
        else:
            self._unused.pop(word.key, None)
        known.used = now
        before = known.order if known.template is not None else None
        order = order_of(word.exported_ns, word.uptime_ms, word.received_ns, before)
        if known.template is not None and known.template.layout == word.template.layout:
            if number != NONE and number == self._trusted(word.key[:DOMAIN_BYTES]):
                known.order = max(known.order, order)
            return not known.rivals
        self._doubt(word, number, order, known, now)
        self._judge(word.key, known, now)
        return False

    def follow(self, entry: TemplateEntry, now: float, age: float) -> bool | Skip:
        """Take in a version that has been in the topic for ``age`` seconds; whether it holds from now on."""
        if entry.template.wire_bytes > self._bounds.template_bytes:
            return Skip.TOO_LARGE
        known = self._known.get(entry.key)
        if known is None:
            known = self._add(entry.key, now)
            if known is None:
                return Skip.NO_ROOM
        else:
            self._unused.pop(entry.key, None)
        holds = known.template
        if holds is not None and holds.layout == entry.template.layout:
            known.order = max(known.order, entry.order)
            self._set_published(entry, known, now - age)
            return False
        if holds is not None and not _newer(entry, known.order, holds.layout):
            if known.published is not None and entry.order >= known.published:
                # Others take that for the newest, and have to be told.
                self._outgoing.put(entry.key[:SOURCE_BYTES], entry.key, now)
            return False
        known.template, known.order, known.heard, known.published = entry.template, entry.order, False, None
        known.rivals = [rival for rival in known.rivals if rival.template.layout != entry.template.layout]
        if not known.rivals:
            self._contested.pop(entry.key, None)
        self._set_published(entry, known, now - age)
        return True

    def read(self, now: float) -> None:
        """The topic is read to its end: what was heard and has no entry there holds from now on."""
        self.complete = True
        for key in list(self._contested):
            self._judge(key, self._known[key], now)

    def begin_anew(self, now: float) -> None:
        """The topic was made anew: nothing of what is known is in it."""
        for key, known in self._known.items():
            known.published = None
            if known.template is not None and _alive(known, now):
                self._outgoing.put(key[:SOURCE_BYTES], key, now)

    def use(self, keys: Iterable[bytes], now: float) -> None:
        """These were told again, or data came that need them."""
        for key in keys:
            known = self._known.pop(key, None)
            if known is not None:
                # Put back at the end: what was used last goes last when room is needed.
                self._known[key] = known
                known.used = now
                self._unused.pop(key, None)

    # What is published

    def version(self, key: bytes) -> tuple[Template, Order] | None:
        """The version that holds, and its place; None when there is none."""
        known = self._known.get(key)
        return None if known is None or known.template is None else (known.template, known.order)

    def acknowledged(self, key: bytes, layout: Layout, order: Order, now: float) -> None:
        """Kafka has a version from now on."""
        known = self._known.get(key)
        if known is not None and known.template is not None and known.template.layout == layout:
            known.published, known.published_at = order, now

    def tend(self, now: float, most: int) -> list[bytes]:
        """Look at so many templates: judge what is contested, publish what is due, forget what is dead.

        To be called every second. Returns the keys of what was forgotten.
        """
        for key in [key for key, _ in zip(self._contested, range(most), strict=False)]:
            del self._contested[key]
            known = self._known[key]
            known.rivals = [rival for rival in known.rivals if now - rival.said < RIVAL_SECONDS]
            if known.rivals:
                self._contested[key] = None
                self._judge(key, known, now)
        if not self._round:
            self._round.extend(self._known)
        forgotten = []
        for _ in range(min(len(self._round), most)):
            key = self._round.popleft()
            one = self._known.get(key)
            if one is None:
                continue
            if self._dead(key, one, now):
                self._remove(key)
                forgotten.append(key)
            elif one.template is not None and _alive(one, now) and self._due(key, one, now):
                self._outgoing.put(key[:SOURCE_BYTES], key, now)
        return forgotten

    def _dead(self, key: bytes, known: _Known, now: float) -> bool:
        if known.template is None and not known.rivals:
            return True
        used = known.since if known.used is None else known.used
        if now - max(used, known.published_at) >= LIFE_SECONDS:
            return True
        return now - used >= CROWDED_SECONDS and self._crowded(key) and self._trusted(key[:DOMAIN_BYTES]) != NONE

    def _due(self, key: bytes, known: _Known, now: float) -> bool:
        """Whether a version is not in the topic, or has been there for a day."""
        return known.published is None or now - known.published_at >= AGAIN_SECONDS * (1 - SPREAD * self._jitter(key))

    def _set_published(self, entry: TemplateEntry, known: _Known, at: float) -> None:
        known.published = entry.order if known.published is None else max(known.published, entry.order)
        known.published_at = max(known.published_at, at)
        if entry.order >= known.order:
            # Whoever published it was faster.
            self._outgoing.drop(entry.key[:SOURCE_BYTES], entry.key)

    # Redefinitions

    def _doubt(self, word: Word, number: int, order: Order, known: _Known, now: float) -> None:
        """Take note of a layout that does not hold."""
        trusted = self._trusted(word.key[:DOMAIN_BYTES])
        rival = next((rival for rival in known.rivals if rival.template.layout == word.template.layout), None)
        if rival is None:
            if len(known.rivals) >= RIVALS:
                known.rivals.remove(min(known.rivals, key=lambda one: (trusted in one.words, one.said)))
            rival = _Rival(word.template, order, now)
            known.rivals.append(rival)
            self._contested[word.key] = None
        rival.said = now
        if number == NONE:
            return
        if number not in rival.words and len(rival.words) >= RIVALS:
            del rival.words[next(one for one in rival.words if one != trusted)]
        words = rival.words.setdefault(number, set())
        if len(words) < WORDS:
            words.add((word.sequence, word.uptime_ms, word.exported_ns))
        if number == trusted or known.template is None:
            rival.order = max(rival.order, order)

    def _judge(self, key: bytes, known: _Known, now: float) -> None:
        """Let a layout hold that is to be believed."""
        if known.template is None:
            if self.complete and known.rivals:
                self._promote(key, known, max(known.rivals, key=lambda rival: rival.order), now)
            return
        trusted = self._trusted(key[:DOMAIN_BYTES])
        for rival in known.rivals:
            if len(rival.words.get(trusted, ())) >= WORDS and rival.order > known.order:
                self._promote(key, known, rival, now)
                return

    def _promote(self, key: bytes, known: _Known, rival: _Rival, now: float) -> None:
        known.rivals.remove(rival)
        if not known.rivals:
            self._contested.pop(key, None)
        known.template, known.order, known.heard, known.published = rival.template, rival.order, True, None
        self._outgoing.put(key[:SOURCE_BYTES], key, now)

    # Bounds

    def _add(self, key: bytes, now: float) -> _Known | None:
        """Make room for a template; None where its exporter has as many as it may."""
        if self._full(key, 1.0):
            return None
        if len(self._known) >= self._bounds.templates:
            self._remove(next(iter(self._unused if len(self._unused) > self._bounds.unproven else self._known)))
            self.evicted += 1
        self._in_domain[key[:DOMAIN_BYTES]] += 1
        self._of_exporter[key[:SOURCE_BYTES]] += 1
        known = self._known[key] = _Known(now)
        self._unused[key] = None
        return known

    def _remove(self, key: bytes) -> None:
        del self._known[key]
        self._unused.pop(key, None)
        self._contested.pop(key, None)
        self._outgoing.drop(key[:SOURCE_BYTES], key)
        for counter, part in ((self._in_domain, key[:DOMAIN_BYTES]), (self._of_exporter, key[:SOURCE_BYTES])):
            counter[part] -= 1
            if not counter[part]:
                del counter[part]

    def _full(self, key: bytes, share: float) -> bool:
        """Whether the key's exporter or domain has this share of the templates that it may have."""
        return (
            self._in_domain[key[:DOMAIN_BYTES]] >= share * self._bounds.per_domain
            or self._of_exporter[key[:SOURCE_BYTES]] >= share * self._bounds.per_exporter
        )

    def _crowded(self, key: bytes) -> bool:
        return self._full(key, CROWDED)


def _newer(entry: TemplateEntry, order: Order, layout: Layout) -> bool:
    """Whether an entry goes before another version; of two that were told at one time, one has to."""
    return (entry.order, layout_hash(entry.template.layout)) > (order, layout_hash(layout))


def _alive(known: _Known, now: float) -> bool:
    return known.used is not None and now - known.used < ALIVE_SECONDS
