"""How far a replay has come, kept in Kafka as the offsets of a consumer group of its own, so that it can go on.

What was asked for is kept beside each offset: a time such as "two hours ago" means the same when the replay goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from forwarder.course import Epoch
from forwarder.replay.plan import Leg, Span

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What stands beside the offset of a partition: what was asked for, and by which shapes it is cut.

    ``partitions`` is how many have a bookmark: when some are missing, the replay never began. ``shapes`` are pairs: from
    which offset on, and the shape's fingerprint. ``received_ns`` are the bounds of the time of reception that is asked
    for, None where there is none.
    """

    partitions: int
    span: Span
    shapes: tuple[tuple[int, str], ...]
    received_ns: tuple[int | None, int | None] = (None, None)

    @classmethod
    def of(cls, partitions: int, leg: Leg, span: Span, received_ns: tuple[int | None, int | None]) -> Self:
        """Return the bookmark of a leg that is about to begin."""
        return cls(partitions, Span(span.start, leg.end), _shapes(leg.epochs), received_ns)

    def text(self) -> str:
        """Return it as ASCII; :meth:`parse` reads it. It has room beside an offset, as all shapes of a group have."""
        told = [FORMAT, self.partitions, self.span.start, self.span.end, self.received_ns, self.shapes]
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read what :meth:`text` wrote; None when it is nothing of ours."""
        try:
            form, partitions, start, end, (received_from, received_to), shapes = json.loads(text or "")
            told = tuple((int(after), str(mark)) for after, mark in shapes)
        except (ValueError, TypeError):
            return None
        return cls(partitions, Span(start, end), told, (received_from, received_to)) if form == FORMAT else None

    def fits(self, leg: Leg) -> bool:
        """Whether a leg that goes on makes the batches that this replay began to make."""
        now = _shapes(leg.epochs)
        before = [(after, mark) for after, mark in self.shapes if after <= leg.begin][-1:]
        then = before + [(after, mark) for after, mark in self.shapes if after > leg.begin]
        return [mark for _, mark in then] == [mark for _, mark in now] and then[1:] == list(now[1:])


def _shapes(epochs: Iterable[Epoch]) -> tuple[tuple[int, str], ...]:
    return tuple((epoch.after, epoch.shape.fingerprint) for epoch in epochs)


def group_name(group_id: str, sink: str, asked: Iterable[object]) -> str:
    """Return the name of the consumer group of a replay: the same for the same request.

    ``asked`` is all that tells one replay from another, as the person wrote it.
    """
    mark = hashlib.blake2b(json.dumps([str(one) for one in asked]).encode(), digest_size=8).hexdigest()
    return f"{group_id}.{sink}.replay-{mark}"
