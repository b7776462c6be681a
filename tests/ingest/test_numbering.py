from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.numbering import NO_ROOM, Numbering


def keys(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A column of keys."""
    return np.array(values, np.uint64)


def test_keys_are_numbered_as_they_come() -> None:
    """A key keeps its number; what is new is told, once each, in the order of the numbers."""
    numbering = Numbering(100)
    numbers, new = numbering.number(keys([7, 5, 7, 2**64 - 1]))
    assert (numbers.tolist(), new.tolist()) == ([0, 1, 0, 2], [0, 1, 3])
    numbers, new = numbering.number(keys([5, 9, 9, 7]))
    assert (numbers.tolist(), new.tolist()) == ([1, 3, 3, 0], [1])
    assert numbering.keys.tolist() == [7, 5, 2**64 - 1, 9]


def test_there_is_a_bound() -> None:
    """A key beyond it has no number, the others keep theirs."""
    numbering = Numbering(2)
    assert numbering.number(keys([1, 2, 3, 1]))[0].tolist() == [0, 1, NO_ROOM, 0]
    numbers, new = numbering.number(keys([3, 2]))
    assert (numbers.tolist(), new.tolist()) == ([NO_ROOM, 1], [])
    assert len(numbering) == 2


@pytest.mark.parametrize("step", [1, 2**10, 2**32, 2**54], ids=["low", "some", "upper half", "the last bits"])
def test_keys_that_want_one_place_are_told_apart(step: int) -> None:
    """Many keys that are equal in the bits by which they are looked for."""
    numbering = Numbering(10_000)
    wanted = keys([(1 + at) * step % 2**64 for at in range(1000)])
    assert numbering.number(wanted)[0].tolist() == list(range(1000))
    assert numbering.number(wanted[::-1])[0].tolist() == list(range(999, -1, -1))


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1)), max_size=400), max_size=6),
    limit=st.integers(1, 500),
)
def test_it_is_what_a_dictionary_would_say(batches: list[list[int]], limit: int) -> None:
    """Keys one by one, as long as there is room."""
    numbering = Numbering(limit)
    known: dict[int, int] = {}
    for batch in batches:
        numbers, new = numbering.number(keys(batch))
        before = len(known)
        for key in batch:
            if key not in known and len(known) < limit:
                known[key] = len(known)
        assert numbers.tolist() == [known.get(key, NO_ROOM) for key in batch]
        assert [batch[at] for at in new.tolist()] == list(known)[before:]
    assert numbering.keys.tolist() == list(known)
