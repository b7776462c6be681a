"""Work of one thread that another one does for it, where only that may: between two rounds of its loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeskClosed(Exception):
    """Nobody does any work any more."""


class WorkFailed(Exception):
    """The work raised an exception, which is the cause of this one."""


class Desk:
    """Takes work in one thread and does it in another."""

    def __init__(self) -> None:
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False

    def ask(self, work: Callable[[], Result]) -> Result:
        """Have this done, and wait for what it returns. Raises WorkFailed when it raises, DeskClosed when it is not done."""
        future: Future[Result] = Future()
        self._work.append((future, work))
        if self._closed:
            future.cancel()
        try:
            return future.result()
        except CancelledError as error:
            raise DeskClosed from error
        except Exception as error:
            raise WorkFailed from error

    def serve(self) -> None:
        """Do the next piece of work, if there is one. Called by the thread that works; never raises what the work does."""
        if not self._work:
            return
        future, work = self._work.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            future.set_exception(error)

    def close(self) -> None:
        """Do nothing any more; who waits is told."""
        self._closed = True
        while self._work:
            future, _ = self._work.popleft()
            future.cancel()
