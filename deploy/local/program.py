"""A program that `make run` starts: its output goes to files, and it ends when we say so."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.kafka import exit_status, last_lines


class Program:
    """`python -m <arguments>`, with standard output and error in two files under a directory."""

    def __init__(self, name: str, arguments: Sequence[str], directory: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.output = directory / f"{name}.out"
        self.log = directory / f"{name}.log"
        self._arguments = list(arguments)
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C at the terminal reaches us alone and we stop in order."""
        with self.output.open("wb") as output, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, seconds: float) -> int | None:
        """Stop it by SIGTERM, and by SIGKILL (with all that it started) when it does not end in time.

        Returns its exit status, or None when it had never been started.
        """
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if exit_status(process, seconds) is None:
                self.kill()
        return process.wait()

    def kill(self) -> None:
        """End it, and the workers that it started, by SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            # It leads its session, so its process group is all that it started.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> str:
        """The end of what it said."""
        return last_lines(self.log, self.output, lines=15)
