"""Numbers by exporter and id: what there is room for, and what is left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.lookup import MISSING
from ingest.decoders.matrix import MOST_IDS, Matrix
from tests.fuzz import looked_at

EXPORTERS = st.integers(1, 40)
IDS = st.one_of(st.integers(0, 40), st.integers(MOST_IDS - 2, MOST_IDS + 1), st.integers(0, 2**64 - 1))


def asked_for(matrix: Matrix, exporters: npt.NDArray[np.int64], ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """The numbers of rows, each of an exporter of its own."""
    return matrix.get(matrix.places(exporters, np.arange(len(exporters))), ids)


@given(
    st.lists(st.tuples(st.one_of(st.none(), EXPORTERS), IDS, st.integers(0, 2**31 - 1)), max_size=30),
    st.lists(st.tuples(st.integers(0, 100), st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1))), max_size=30),
    st.sampled_from([256, 5_000, 1 << 22]),
)
@looked_at(quick=100, long=3_000)
def test_a_matrix_is_a_dictionary_that_leaves_out(
    entries: list[tuple[int | None, int, int]], asked: list[tuple[int, int]], most_cells: int
) -> None:
    """What it tells is the last that was put, and what it lacks was never put, or else it says that it is not whole."""
    matrix, model = Matrix(most_cells), dict[tuple[int, int], int]()
    for exporter, id_, value in entries:
        matrix.put(exporter, id_, value)
        if exporter is not None:
            model[exporter, id_] = value
    rows = [*asked, *((exporter, id_) for exporter, id_ in model if id_ < 2**32)]
    found = asked_for(
        matrix, np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.uint32)
    )
    for row, number in zip(rows, found.tolist(), strict=True):
        assert number == model.get(row, MISSING) or (number == MISSING and not matrix.whole)
    assert matrix.whole or None in {entry[0] for entry in entries} or len(model) > 0


def test_all_that_is_small_fits() -> None:
    """A thousand exporters with the names of a hundred interfaces each are found without any search."""
    matrix = Matrix()
    for exporter in range(1, 1001):
        for id_ in range(0, 100, 9):
            matrix.put(exporter, id_, exporter + id_)
    assert matrix.whole
    exporters, ids = (each.reshape(-1) for each in np.meshgrid(np.arange(1, 1001), np.arange(0, 100, 9)))
    assert (asked_for(matrix, exporters, ids) == exporters + ids).all()
    assert (asked_for(matrix, exporters, ids + 1) == MISSING).all()


def test_what_does_not_fit_leaves_what_does() -> None:
    """A large id, and one exporter too many, are left out, and take nothing from the others."""
    matrix = Matrix(most_cells=16 * 16)
    matrix.put(1, 15, 7)
    assert matrix.whole
    matrix.put(1, 16, 8)
    matrix.put(16, 1, 9)
    assert not matrix.whole
    assert asked_for(matrix, np.array([1, 1, 16]), np.array([15, 16, 1], np.uint16)).tolist() == [7, MISSING, MISSING]
