"""Wall clocks that can be stepped, each for some programs, without a change to that of the machine."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("clock.c")


def built(directory: Path) -> Path | None:
    """What is loaded into a program to give it such a clock; None where there is no C compiler with its headers."""
    library = directory / "clock.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True, timeout=60.0)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library


class Clock:
    """One such clock. Programs that are started in its environment have it."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.step(0.0)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}

    def step(self, seconds: float) -> None:
        """Set the clock to so much after the machine's; it steps there at once."""
        # In place, all of it at a time: it is mapped into the programs.
        with self._file.open("r+b" if self._file.exists() else "w+b", buffering=0) as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))
