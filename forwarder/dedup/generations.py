"""What is remembered of the last generations of append time, within a bound: pages of ids, the oldest of which go first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from forwarder.dedup.keyset import Keys, KeySet, Mask

KEPT: Final = 5
"""Generations that are remembered, the open one among them: the four before it are a window."""
PAGES: Final = 4
"""A page holds this part of what may be remembered, so that it is forgotten piece by piece."""


@dataclass(frozen=True, slots=True)
class Page:
    """Ids of one generation, or of a part of it."""

    generation: int
    ids: KeySet


class Generations:
    """Pages in the order of the log, of which the last is open; together at most ``most`` ids.

    What is here depends on nothing but the log from the first message of the oldest generation on:

    - An id is put down in the generation of its message, whether or not an earlier one has it.
    - A generation has pages of its own. One ends where the next message could take it over a quarter of ``most``.
    - Before a message is judged, the pages of all generations but the last five go; then the oldest page, as long as the
      message could take the whole over ``most``.

    So a page goes only for what came after it, and what came before it does not matter. When there is too much, the
    window becomes shorter at its far end, and what has just come is remembered. What a message "could" is told by the
    number of its ids, repeated or not, so that it can be told before they are looked at; :attr:`largest` is how many a
    message may bring, and one that brings more counts as several.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pages: deque[Page] = deque()
        self.largest = max(1, most // PAGES)
        self.forgotten = 0
        """Ids that went before their time, so far."""

    def __len__(self) -> int:
        return sum(len(page.ids) for page in self._pages)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(page.ids.nbytes for page in self._pages)

    @property
    def room(self) -> int:
        """How many ids more messages of the open page's generation can bring before another page ends or goes."""
        return min(self.largest - len(self._pages[-1].ids), self._most - len(self))

    def turn_to(self, generation: int, brings: int) -> None:
        """Make ready for a message of this generation, which is no earlier than the last one's."""
        while self._pages and self._pages[0].generation <= generation - KEPT:
            self._pages.popleft()
        last = self._pages[-1] if self._pages else None
        if last is None or last.generation != generation or len(last.ids) + brings > self.largest:
            # As many as last time are expected: traffic is much the same from one generation to the next.
            expected = 0 if last is None else len(last.ids)
            if last is not None:
                last.ids.seal()
            self._pages.append(Page(generation, KeySet(expected)))
        while len(self) + brings > self._most:
            self.forgotten += len(self._pages.popleft().ids)

    def add(self, ids: Keys) -> Mask:
        """Put down ids on the open page; tell which were there, or stand earlier among these."""
        return self._pages[-1].ids.add(ids)

    def find_earlier(self, ids: Keys) -> Mask:
        """Tell which of the ids are on the pages before the open one."""
        seen = np.zeros(len(ids), np.bool_)
        for page in list(self._pages)[:-1]:
            seen |= page.ids.find(ids)
        return seen
