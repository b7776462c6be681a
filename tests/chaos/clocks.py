"""Wall clocks that can be stepped and disks that can be slow, each for some programs, without a change to the machine."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("clock.c")


def built(directory: Path) -> Path | None:
    """What is loaded into a program to give it such a clock and disk; None where there is no C compiler with its headers."""
    library = directory / "clock.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True, timeout=60.0)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library


class Clock:
    """One such clock, with the disk beside it. Programs that are started in its environment have them."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self._step = self._sync = 0.0
        self._tell()
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}

    def step(self, seconds: float) -> None:
        """Set the clock to so much after the machine's; it steps there at once."""
        self._step = seconds
        self._tell()

    def slow(self, seconds: float) -> None:
        """Let it take so much longer to sync a file."""
        self._sync = seconds
        self._tell()

    def _tell(self) -> None:
        # In place, all of it at a time: it is mapped into the programs.
        with self._file.open("r+b" if self._file.exists() else "w+b", buffering=0) as file:
            file.write(struct.pack("=qq", round(self._step * 1e9), round(self._sync * 1e9)))
