"""A program under measurement: its output goes to a file, and it ends when we say so."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.kafka import exit_status, last_lines

STOP_SECONDS = 40.0


class Process:
    """A command that is run in a session of its own."""

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        self._command = list(command)
        self._log = log
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; it has to be alive, or RuntimeError tells what it said last."""
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} was not started")
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended with status {self._process.returncode}:\n{self.last_words()}")
        return self._process.pid

    def last_words(self) -> str:
        """The end of what it said."""
        return last_lines(self._log)

    def stop(self) -> None:
        """Stop it by SIGTERM, and by SIGKILL with all that it started when it does not end in time."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        if exit_status(process, STOP_SECONDS) is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
