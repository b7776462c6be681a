"""What waits to be published, by exporter: in turns, no exporter faster than it may, and nothing twice in ten seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

PER_SECOND: Final = 1.0
BURST: Final = 64.0
"""What an exporter may have published, in entries: in the long run, and at once."""

EXPORTERS: Final = 65_536
"""Exporters whose rate is watched. What others would have published is not, and is counted."""
IDLE_SECONDS: Final = 86_400.0
"""An exporter of which nothing was published for so long makes room for another one."""

AGAIN_SECONDS: Final = 10.0
"""What was published is not published again for so long, however often it changes."""

TURNS: Final = 4096
"""Exporters that are looked at in one call."""

Item = TypeVar("Item", bound=Hashable)
Put_contra = TypeVar("Put_contra", contravariant=True)


class Waiting(Protocol[Put_contra]):
    """Where whoever keeps items says which of them have to be published."""

    def put(self, source: bytes, item: Put_contra, now: float) -> None:
        """Have an item of this exporter published."""

    def drop(self, source: bytes, item: Put_contra) -> None:
        """An item need not be published any more."""


class Outgoing(Generic[Item]):
    """Items to publish, each once however often it is put; what it says is asked for when its turn comes.

    Bounded by what can be put: the templates and tables that are kept. Times are seconds of a clock that never goes
    back.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, dict[Item, None]] = OrderedDict()
        self._recent: dict[Item, float] = {}
        self._tokens: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._count = 0
        self.delayed = 0
        """Items that had to wait since their exporter had used up what it may, ever."""
        self.unlisted = 0
        """Items of exporters for which there was no room, ever."""

    def __len__(self) -> int:
        return self._count

    def put(self, source: bytes, item: Item, now: float) -> None:
        """See :meth:`Waiting.put`."""
        items = self._waiting.setdefault(source, {})
        if item not in items:
            items[item] = None
            self._count += 1
            self.delayed += self._left(source, now) < len(items)

    def drop(self, source: bytes, item: Item) -> None:
        """See :meth:`Waiting.drop`."""
        items = self._waiting.get(source)
        if items is not None and item in items:
            del items[item]
            self._count -= 1
            if not items:
                del self._waiting[source]

    def take(self, now: float, most: int) -> list[Item]:
        """Items to publish now; each exporter gets its turn."""
        self._forget(now)
        taken: list[Item] = []
        for _ in range(min(len(self._waiting), TURNS)):
            if len(taken) >= most:
                break
            source, items = self._waiting.popitem(last=False)
            room = min(int(self._left(source, now)), most - len(taken))
            due = list(islice((item for item in items if item not in self._recent), room))
            if due and not self._spend(source, len(due), now):
                self.unlisted += len(items)
                self._count -= len(items)
                continue
            for item in due:
                del items[item]
                self._recent[item] = now
            self._count -= len(due)
            taken += due
            if items:
                self._waiting[source] = items
        return taken

    def _left(self, source: bytes, now: float) -> float:
        """How many items this exporter may have published at this moment."""
        tokens, then = self._tokens.get(source, (BURST, now))
        return min(BURST, tokens + (now - then) * PER_SECOND)

    def _spend(self, source: bytes, count: int, now: float) -> bool:
        left = self._left(source, now)
        if source not in self._tokens and len(self._tokens) >= EXPORTERS:
            oldest, (_, then) = next(iter(self._tokens.items()))
            if now - then < IDLE_SECONDS:
                return False
            del self._tokens[oldest]
        self._tokens[source] = (left - count, now)
        self._tokens.move_to_end(source)
        return True

    def _forget(self, now: float) -> None:
        """Forget what was published long enough ago."""
        old = []
        for item, then in self._recent.items():
            if now - then < AGAIN_SECONDS:
                break
            old.append(item)
        for item in old:
            del self._recent[item]
