"""A log of messages against a plain list: whatever is done, what was not acknowledged comes back, in its order."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.spool import Entry, Found, Place, Reason, SpoolFault, SpoolLog
from ingest.spool.spoollog import segment_files
from tests.ingest.spool.entries import LIMIT, entry, number, quota

SEGMENT = 700
"""Files of a few messages each, so that many sequences have several of them."""

SIZES = st.integers(0, 60)


def records(numbers: list[int]) -> int:
    """What these messages have."""
    return sum(one % 100 for one in numbers)


class LogModel(RuleBasedStateMachine):
    """The log, and beside it what it has to have.

    ``kept`` are the messages from the first that was not acknowledged on, by their numbers; ``done`` are those of them
    that were acknowledged out of order; ``read`` is how many of ``kept`` were read. ``early`` are the last that went
    from the front, as long as they had been acknowledged out of order: whether that is noted on disk yet is left open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.seconds = itertools.count()
        self.quota = quota()
        self.count = 0
        self.kept: list[int] = []
        self.early: list[int] = []
        self.done: set[int] = set()
        self.read = 0
        self.places: dict[int, Place] = {}
        self.where: dict[int, tuple[Path, int]] = {}
        self.log = self._made("0")
        assert self.log.open() == Found()

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.log.close()
        shutil.rmtree(self.home)

    def _made(self, name: str) -> SpoolLog:
        log = SpoolLog(self.home / name, self.quota, clock=lambda: float(next(self.seconds)))
        log._segment_bytes = SEGMENT
        return log

    def _next_entry(self, log: SpoolLog, size: int, *, read: bool = False) -> int:
        self.count += 1
        # Values that do not become smaller by compression, so that files have several sizes.
        one = Entry(0, None, self.count % 100, [], b"%d " % self.count + bytes(range(size)))
        if read:
            self.places[self.count] = log.append_read(one)
        else:
            log.append(one)
        assert log._writer is not None
        self.where[self.count] = log._writer.path, log._writer.whole.end
        return self.count

    @rule(size=SIZES, count=st.integers(1, 4))
    def append(self, size: int, count: int) -> None:
        """Messages come."""
        self.kept += [self._next_entry(self.log, size) for _ in range(count)]

    @precondition(lambda self: self.log.caught_up)
    @rule(size=SIZES)
    def append_read(self, size: int) -> None:
        """A message comes that the client has already."""
        self.kept.append(self._next_entry(self.log, size, read=True))
        self.read = len(self.kept)

    @rule()
    def append_without_room(self) -> None:
        """There is no room for a message, and nothing changes."""
        self.quota.limit_bytes = 0
        with pytest.raises(SpoolFault) as caught:
            self.log.append(entry(0))
        assert caught.value.reason is Reason.FULL
        self.quota.limit_bytes = LIMIT

    @rule(count=st.integers(2, 12))
    def take(self, count: int) -> None:
        """Messages are read: the next ones that were not acknowledged."""
        for _ in range(count):
            found = self.log.peek()
            while self.read < len(self.kept) and self.kept[self.read] in self.done:
                self.read += 1
            if self.read == len(self.kept):
                assert found is None
                return
            wanted = self.kept[self.read]
            assert found is not None
            assert number(found[0]) == wanted
            self.log.advance()
            self.places[wanted] = found[1]
            self.read += 1

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Some of those that were read are acknowledged, in some order."""
        waiting = [one for one in self.kept[: self.read] if one not in self.done]
        self._take_for_done(data.draw(st.permutations(waiting))[: data.draw(st.integers(1, len(waiting)))])

    @precondition(lambda self: self.kept)
    @rule(count=st.integers(2, 12), data=st.data())
    def refuse(self, count: int, data: st.DataObject) -> None:
        """Messages are read; some are acknowledged, some are not, which are read again."""
        self.take(count)
        waiting = [one for one in self.kept[: self.read] if one not in self.done]
        self._take_for_done([one for one in waiting if data.draw(st.booleans())])
        self.rewind()

    def _take_for_done(self, some: list[int]) -> None:
        self.log.acknowledge([self.places[one] for one in some])
        self.done |= set(some)
        while self.kept and self.kept[0] in self.done:
            one = self.kept.pop(0)
            self.early = [] if one in some else [*self.early, one]
            self.done.discard(one)
            self.read = max(0, self.read - 1)

    @rule()
    def rewind(self) -> None:
        """All that is not acknowledged is read again."""
        self.log.rewind()
        self.read = 0

    @rule(count=st.integers(1, 6), gone=st.integers(0, 3))
    def adopt(self, count: int, gone: int) -> None:
        """What another log has left is put behind all that is here."""
        other = self._made("other")
        other.open()
        found = [self._next_entry(other, 30) for _ in range(count)]
        for _ in range(min(gone, count)):
            one = other.peek()
            assert one is not None
            other.advance()
            other.acknowledge([one[1]])
        other.close()
        self.quota.add(-other.bytes)
        left = found[gone:]
        for path in segment_files(other.directory):
            self.log.adopt(path)
        self.kept += left

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        """The process ends, in this way or that, and another one opens the log."""
        if clean:
            self.log.close()
        self._begin_again()

    @precondition(lambda self: self.log._writer is not None)
    @rule(share=st.floats(0, 1))
    def crash(self, share: float) -> None:
        """The machine dies, and of the file that was written to only a part is there."""
        assert self.log._writer is not None
        path, end = self.log._writer.path, self.log._writer.whole.end
        cut = round(share * end)
        with path.open("r+b") as file:
            file.truncate(cut)
        self.kept = [one for one in self.kept if self.where[one][0] != path or self.where[one][1] <= cut]
        self.early = [one for one in self.early if self.where[one][0] != path or self.where[one][1] <= cut]
        self._begin_again()

    def _begin_again(self) -> None:
        """Open the log; only the first ones that were acknowledged are known to be."""
        for segment in self.log._segments:
            if self.log.is_open:
                segment.close()
        self.done.clear()
        self.read = 0
        self.quota = quota()
        self.log = self._made("0")
        found = self.log.open()
        again = found.messages - len(self.kept)
        assert 0 <= again <= len(self.early)
        self.kept = self.early[len(self.early) - again :] + self.kept
        self.early = []
        assert found.records == records(self.kept)

    @invariant()
    def everything_is_counted(self) -> None:
        """Messages, records and bytes are what is there."""
        left = [one for one in self.kept if one not in self.done]
        assert (self.log.messages, self.log.records) == (len(left), records(left))
        files = segment_files(self.log.directory)
        assert self.log.bytes == self.quota.own_bytes == sum(path.stat().st_size for path in files)

    @invariant()
    def nothing_stays_without_need(self) -> None:
        """What was acknowledged is deleted, and a log of nothing has no file."""
        if not self.kept:
            assert self.log.peek() is None
            assert self.log.caught_up
            assert segment_files(self.log.directory) == []

    @invariant()
    def what_is_read_is_known(self) -> None:
        """A log that is read to its end has nothing that was not read."""
        if self.log.caught_up:
            assert self.read == len(self.kept) or not set(self.kept[self.read :]) - self.done
        assert self.log.take_lost().records == 0


LogModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestLog = LogModel.TestCase
