"""The table behind the joins: what it holds, and what it refuses."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.lookup import MISSING, Lookup, mix
from tests.fuzz import looked_at

LARGEST: Final = 2**64 - 1
KEYS: Final = st.one_of(
    st.integers(1, LARGEST),
    # Keys that want the same place, and those that want the last ones, behind which the table begins again.
    st.integers(1, 50).map(lambda number: number << 32),
    st.integers(0, 50).map(lambda number: LARGEST - number),
)
VALUES: Final = st.integers(0, 2**63 - 1)


def asked(table: Lookup, *keys: int) -> list[int]:
    """What the table says for these keys."""
    found: list[int] = table.get(np.array(keys, np.uint64)).tolist()
    return found


@looked_at(quick=100, long=2_000)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=300), st.lists(KEYS, max_size=50), st.integers(0, 300))
def test_a_table_is_a_bounded_dictionary(entries: list[tuple[int, int]], others: list[int], limit: int) -> None:
    """What was put is found, the last value of a key counts, and a new key over the bound is refused."""
    table, model = Lookup(limit), dict[int, int]()
    for key, value in entries:
        taken = key in model or len(model) < limit
        assert table.put(key, value) == taken
        if taken:
            model[key] = value
    assert len(table) == len(model)
    keys = [key for key, _ in entries] + others
    assert asked(table, *keys) == [model.get(key, MISSING) for key in keys]


def test_an_empty_table_knows_nothing() -> None:
    """No key is found, and to ask for none gives none."""
    assert asked(Lookup(5), 1, 2, LARGEST) == [MISSING] * 3
    assert asked(Lookup(5)) == []


@pytest.mark.parametrize("stride", [1, 1 << 20, 1 << 40], ids=["apart", "close", "all in one place"])
def test_many_keys_are_found_whatever_place_they_want(stride: int) -> None:
    """A table grows with what is put, and finds its keys by the column, among many that are not there."""
    table = Lookup(1_000)
    keys = [stride * (number + 1) for number in range(400)]
    assert all(table.put(key, number) for number, key in enumerate(keys))
    assert asked(table, *keys) == list(range(400))
    assert asked(table, *(key + 1 for key in keys[-3:])) == [MISSING] * 3 if stride > 1 else True


def test_a_large_table_keeps_what_it_has_while_it_grows() -> None:
    """Tens of thousands of keys, drawn at random as hashes are, and every one of them found with its value."""
    keys = np.unique(np.random.default_rng(1).integers(1, 2**64, 40_000, np.uint64))
    table = Lookup(len(keys))
    assert all(table.put(key, value) for value, key in enumerate(keys.tolist()))
    assert (table.get(keys) == np.arange(len(keys))).all()
    assert (table.get(keys + np.uint64(1))[~np.isin(keys + np.uint64(1), keys)] == MISSING).all()


def test_a_full_table_still_changes_what_it_knows() -> None:
    """What is refused is a new key, never a new value."""
    table = Lookup(1)
    assert table.put(7, 1)
    assert not table.put(8, 2)
    assert table.put(7, 3)
    assert asked(table, 7, 8) == [3, MISSING]
    assert len(table) == 1


def test_what_is_mixed_in_and_in_which_order_tells() -> None:
    """Keys of different parts, or of the same in another order, are different; those of the same are equal."""
    seed = np.full(2, 99, np.uint64)
    some, others = np.array([1, 2]), np.array([3, 4])
    assert mix(mix(seed, some), others).tolist() == mix(mix(seed, some), others).tolist()
    all_keys = np.concatenate([mix(seed, some), mix(mix(seed, some), others), mix(mix(seed, others), some)])
    assert len(set(all_keys.tolist())) == 6
    assert mix(seed, 5).tolist() == mix(seed, np.full(2, 5)).tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=200, unique=True), st.integers(0, 2**63 - 1))
def test_different_numbers_make_different_keys(numbers: list[int], seed: int) -> None:
    """Under one seed no two numbers meet: to mix is to exchange one number for another."""
    keys = mix(np.full(len(numbers), seed, np.uint64), np.array(numbers, np.int64))
    assert len(set(keys.tolist())) == len(numbers)
