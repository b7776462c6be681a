"""Makes the C library's allocator, which Arrow and numpy then share, keep the memory that the next batch needs.

Columns are blocks of some 100 KiB to some MiB, made and freed with every batch. As it comes, the C library maps each
block from the kernel and gives it back, and Arrow's own pool gives back what was free for some milliseconds: every
batch then pays the kernel for pages that it has to clear. `python -m tests.bench.lake` shows what that costs.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

import pyarrow as pa

LARGEST_BLOCK: Final = 32 << 20
"""Bytes of the largest block that is not mapped of its own; the C library allows no more (mallopt(3))."""

KEPT_BYTES: Final = 64 << 20
"""Free bytes at the end of an arena (there is one for each thread that makes columns) that are not given back."""

POOL_VARIABLE: Final = "ARROW_DEFAULT_MEMORY_POOL"

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


def keep_memory() -> bool:
    """Set this process up, before it makes columns; returns whether it is.

    It is not where the C library has no such settings (glibc has them): Arrow's own pool is then the better one. Nor
    where ``ARROW_DEFAULT_MEMORY_POOL`` is set: then everything is as the environment says.
    """
    if POOL_VARIABLE in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {_M_MMAP_THRESHOLD: LARGEST_BLOCK, _M_TRIM_THRESHOLD: KEPT_BYTES, _M_TOP_PAD: KEPT_BYTES}
    if not all(mallopt(parameter, value) for parameter, value in wanted.items()):
        return False
    pa.set_memory_pool(pa.system_memory_pool())
    return True
