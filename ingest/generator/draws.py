"""Random numbers that stay the same from one version of numpy to the next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]


def draw(seed: int, stream: int, *shape: int) -> U64:
    """Draw 64 random bits for every cell of the shape; the same seed and stream draw the same.

    Taken from the bit generator itself: numpy keeps its output for ever, but may change what `Generator` makes of it.
    """
    source = np.random.PCG64(np.random.SeedSequence((seed, stream)))
    count = int(np.prod(shape))
    return source.random_raw(count).reshape(shape)


def bits(numbers: U64, first: int, count: int) -> npt.NDArray[np.int64]:
    """The bits [first, first + count) of each number."""
    return ((numbers >> np.uint64(first)) & np.uint64((1 << count) - 1)).astype(np.int64)
