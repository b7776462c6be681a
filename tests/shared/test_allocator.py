"""Memory that is kept for the next batch: set up once, and not where the administrator chose otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from shared.allocator import POOL_VARIABLE

PROGRAM = """
import pyarrow as pa
from shared.allocator import keep_memory
print(keep_memory(), pa.default_memory_pool().backend_name, pa.array(range(100_000)).to_numpy().sum())
"""

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")


def said(**environ: str) -> list[str]:
    """What a process of its own says: what is set up here would stay for all other tests."""
    clean = {name: value for name, value in os.environ.items() if name != POOL_VARIABLE}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=clean | environ, check=True, capture_output=True, text=True).stdout.split()


@glibc_only
def test_arrow_takes_its_memory_from_the_c_library() -> None:
    """All three settings were taken, or the pool would have stayed as it was."""
    assert said() == ["True", "system", "4999950000"]


def test_what_the_environment_says_stands() -> None:
    """Whoever names a pool gets that one, and the C library as it comes."""
    assert said(**{POOL_VARIABLE: "mimalloc"}) == ["False", "mimalloc", "4999950000"]
