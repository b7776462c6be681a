"""A disk that can be full: a file system in memory, made as small as what is on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

ROOM_BYTES: Final = 8 << 30
"""Not taken, only allowed."""
TRIES: Final = 20


class Disk:
    """A disk that is mounted at a directory until it is closed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        _mount("-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "sluiceway-chaos", str(directory))

    @classmethod
    def mounted(cls, directory: Path) -> Disk | None:
        """A disk at a directory; None where we may mount nothing, as in most containers."""
        try:
            return cls(directory)
        except (OSError, subprocess.CalledProcessError):
            return None

    def fill(self) -> None:
        """Leave no room on it."""
        for _ in range(TRIES):
            now = os.statvfs(self._directory)
            used = (now.f_blocks - now.f_bfree) * now.f_frsize
            # Whoever writes meanwhile needs more than that.
            if _remount(self._directory, max(used, now.f_frsize)):
                return
        raise AssertionError(f"{self._directory} could not be filled")

    def free(self) -> None:
        """Give it room again."""
        assert _remount(self._directory, ROOM_BYTES)

    def close(self) -> None:
        """Take it away, with all that is on it."""
        subprocess.run(["umount", "--lazy", str(self._directory)], check=True, timeout=60.0)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=60.0, capture_output=True)


def _remount(directory: Path, size: int) -> bool:
    try:
        _mount("-o", f"remount,size={size}", str(directory))
    except subprocess.CalledProcessError:
        return False
    return True
