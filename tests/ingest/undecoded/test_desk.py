"""Work that one thread does for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from ingest.undecoded.desk import Desk, DeskClosed, WorkFailed

PATIENCE_SECONDS = 20.0


@contextmanager
def asking(desk: Desk, work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Another thread asks for this, and has done so by now."""
    with ThreadPoolExecutor(1) as others:
        future = others.submit(desk.ask, work)
        while not desk._work and not future.done():
            pass
        yield future


def test_work_is_done_by_the_thread_that_serves() -> None:
    """And what it returns comes back to the one that asked."""
    desk = Desk()
    with asking(desk, threading.get_ident) as answer:
        desk.serve()
        assert answer.result(PATIENCE_SECONDS) == threading.get_ident()


def test_one_piece_is_done_at_a_time() -> None:
    """A loop that serves is held up by one at most in each round."""
    desk = Desk()
    done: list[int] = []
    with asking(desk, lambda: done.append(1)), ThreadPoolExecutor(1) as others:
        others.submit(desk.ask, lambda: done.append(2))
        while len(desk._work) < 2:
            pass
        desk.serve()
        assert done == [1]
        desk.serve()
        assert done == [1, 2]
        desk.serve()


def test_work_that_fails_is_told_to_the_one_that_asked() -> None:
    """The thread that serves goes on."""
    desk = Desk()
    with asking(desk, lambda: 1 // 0) as answer:
        desk.serve()
        with pytest.raises(WorkFailed) as failure:
            answer.result(PATIENCE_SECONDS)
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


def test_when_it_closes_nobody_waits_for_ever() -> None:
    """Neither who has asked, nor who asks from then on."""
    desk = Desk()
    with asking(desk, lambda: None) as answer:
        desk.close()
        with pytest.raises(DeskClosed):
            answer.result(PATIENCE_SECONDS)
    with pytest.raises(DeskClosed):
        desk.ask(lambda: None)
    desk.serve()
