"""Brings files to the disk in a thread of its own: to wait for a disk is nothing for the thread that reads sockets."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

MOST_WAITING: Final = 32
"""Files that wait. With more than that the disk is slower than we are, and the kernel brings the rest there by itself."""


class DiskWriter:
    """Calls `fdatasync` on files, one after the other. May be asked from one thread."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.error: OSError | None = None
        """What the disk said last when it could not."""
        self.left_out = 0
        """How often a file was left to the kernel, since too many waited."""

    def sync(self, descriptor: int) -> None:
        """Bring a file to the disk soon; its descriptor may be closed meanwhile."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="spool-disk", daemon=True)
            self._thread.start()
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self.left_out += 1
                return
            try:
                self._waiting.append(os.dup(descriptor))
            except OSError as error:
                # No descriptor is left: what was written goes on being written, and is brought to the disk later.
                self.error = error
                return
            self._changed.notify()

    def close(self, wait_seconds: float) -> None:
        """Do what waits, for so long at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(wait_seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                descriptor = self._waiting.popleft()
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                self.error = error
            finally:
                os.close(descriptor)
