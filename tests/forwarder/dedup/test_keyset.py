from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.dedup.keyset import LEAST_TAIL, ROOM, STEP, KeySet, odd_words

Keys = npt.NDArray[np.uint64]

NEAR = st.integers(0, 40).map(lambda low: (7 << 32) + low)
"""Keys that all begin at the same place."""
KEYS = st.one_of(st.just(0), st.just(2**64 - 1), NEAR, st.integers(0, 2**64 - 1))


def keys(values: object) -> Keys:
    """Numbers as keys."""
    return np.array(values, np.uint64)


def added(known: set[int], values: list[int]) -> list[bool]:
    """What a plain set says of keys that are added one after the other."""
    seen = []
    for value in values:
        seen.append(value in known)
        known.add(value)
    return seen


@given(st.lists(st.lists(KEYS, max_size=120), max_size=12), st.lists(KEYS, max_size=60), st.integers(0, 300))
def test_it_answers_as_a_plain_set_does(parts: list[list[int]], asked: list[int], expected: int) -> None:
    """Whatever is added, together or apart, with repetitions among it: the first of equal keys is new, others are not."""
    ours, plain = KeySet(expected), set[int]()
    for part in parts:
        assert ours.add(keys(part)).tolist() == added(plain, part)
        assert len(ours) == len(plain)
        assert ours.find(keys(asked)).tolist() == [key in plain for key in asked]
    ours.seal()
    everything = [*asked, *plain]
    assert ours.find(keys(everything)).tolist() == [key in plain for key in everything]


def test_it_grows_in_place_to_millions() -> None:
    """Growing moves every key, in many steps, and loses none; it takes no more than 32 bytes a key."""
    random = np.random.default_rng(1)
    ours, held = KeySet(), random.integers(0, 2**64, 1_500_000, np.uint64)
    for part in np.array_split(held, 23):
        assert not ours.add(part).any()
    assert len(ours) == len(held)
    assert ours.find(held).all()
    assert not ours.find(random.integers(0, 2**64, 200_000, np.uint64)).any()
    assert ours.nbytes < 33 * len(held)


def test_keys_that_get_in_each_others_way_stay_apart_when_it_grows() -> None:
    """Long chains, at the last place and elsewhere, are found again before and after the set grows."""
    ours = KeySet()
    crowded = np.concatenate([keys(range(1, 700)) + (keys(place) << keys(32)) for place in (0, 5, 2**32 - 1)])
    assert not ours.add(crowded).any()
    assert ours.find(crowded).all()
    assert not ours.add(np.random.default_rng(2).integers(0, 2**64, 50_000, np.uint64)).any()
    assert ours.find(crowded).all()
    assert not ours.find(crowded + keys(1000)).any()


def test_a_chain_is_moved_whole_when_the_set_grows() -> None:
    """What is moved first never stops behind what is still to be moved: it would not be found when that is gone.

    Here a chain fills the first places, one key for each, but for the last, which belongs to the begin of the chain and
    lies just where the second step of the move begins.
    """
    ours = KeySet(int((STEP + 100 - LEAST_TAIL) / ROOM))
    capacity = ours.nbytes // 8 - LEAST_TAIL
    first = (capacity + LEAST_TAIL) % STEP
    assert 60 < first < LEAST_TAIL
    chain = keys([(-(-(place << 32) // capacity) << 32) + 1 for place in range(5, first)])
    last = chain[:1] + keys(1)
    for part in (chain, last):
        ours.add(part)
    ours._grow()
    assert ours.find(np.concatenate([chain, last])).all()


def test_of_equal_keys_the_first_is_the_new_one() -> None:
    """In the order in which they stand, over chains of any length, 0 among them."""
    random = np.random.default_rng(3)
    some = random.integers(0, 3000, 20_000).astype(np.uint64) * keys(0x9E3779B97F4A7C15)
    new = np.flatnonzero(~KeySet().add(some))
    assert new.tolist() == np.sort(np.unique(some, return_index=True)[1]).tolist()


def test_sealing_gives_back_what_is_not_needed() -> None:
    """A set that was made for many and got few becomes small, and has them still."""
    ours, few = KeySet(100_000), np.random.default_rng(4).integers(0, 2**64, 1000, np.uint64)
    ours.add(few)
    before = ours.nbytes
    ours.seal()
    assert ours.nbytes < before / 50
    assert ours.find(few).all()
    assert ours.add(few).all()


def test_words_are_odd_and_follow_from_the_secret() -> None:
    """The same for the same secret, others for another; odd, so that multiplying by them loses nothing."""
    assert odd_words("a", 3) == odd_words("a", 3)
    assert set(odd_words("a", 3)).isdisjoint(odd_words("b", 3))
    assert all(int(word) % 2 for word in odd_words("a", 18))


@pytest.mark.parametrize("expected", [0, 1, 1000])
def test_an_empty_set_has_nothing(expected: int) -> None:
    """Not even 0, and asking for nothing is nothing."""
    ours = KeySet(expected)
    assert not ours.find(keys([0, 1, 2**64 - 1])).any()
    assert ours.add(keys([])).tolist() == []
    assert len(ours) == 0
