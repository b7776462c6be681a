"""How many bytes the spools of all workers hold together."""

from __future__ import annotations

from collections.abc import MutableSequence


class Quota:
    """One worker's view of what all workers have on disk. The room is for whoever needs it first.

    ``used`` has a place for each worker, in memory that they share, and this worker writes its own alone, ``index``.
    It is looked at without a lock, which a worker that is killed would keep: workers that write at the same moment may
    pass the limit by a message each.
    """

    def __init__(self, limit_bytes: int, used: MutableSequence[int], index: int) -> None:
        self.limit_bytes = limit_bytes
        self._used = used
        self._index = index

    def begin(self) -> None:
        """Forget what an earlier worker had in this place: what it left is counted as it is found."""
        self._used[self._index] = 0

    @property
    def own_bytes(self) -> int:
        """Bytes that this worker has on disk."""
        return self._used[self._index]

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may be written."""
        return sum(self._used) + size <= self.limit_bytes

    def add(self, size: int) -> None:
        """Count bytes that were written, or with a minus sign, removed."""
        self._used[self._index] += size
