"""Numbers by exporter and id, where both are small: asked for without a search."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.lookup import MISSING

Index = npt.NDArray[np.int64]

MOST_IDS: Final = 4096
"""Ids beyond this are left out: one device that counts from a million would make room for all the numbers below."""
MOST_CELLS: Final = 1 << 22
"""Cells of four bytes: those of a thousand exporters when an id is near the bound, of many more when all are small."""
LARGEST: Final = int(np.iinfo(np.int32).max)
_FIRST: Final = 16


class Matrix:
    """Numbers by exporter (a number from 1 on) and id. What it has no room for it leaves out, and is not whole then."""

    def __init__(self, most_cells: int = MOST_CELLS) -> None:
        self._most_cells = most_cells
        # Row 0 is that of an exporter which nobody knows.
        self._cells = np.full((_FIRST, _FIRST), MISSING, np.int32)
        self.whole = True

    def put(self, exporter: int | None, id_: int, value: int) -> None:
        """Set a number; without an exporter's number there is no room for it."""
        if exporter is None or id_ >= MOST_IDS or value > LARGEST or not self._reaches(exporter, id_):
            self.whole = False
            return
        self._cells[exporter, id_] = value

    def places(self, exporters: Index, of: Index) -> Index:
        """Where the ids of each row begin, [n]: row i is of ``exporters[of[i]]``. They hold until the next number."""
        rows, width = self._cells.shape
        # One beyond the rows has a number since it told something else.
        return (np.where(exporters < rows, exporters, 0) * width).take(of)

    def get(self, places: Index, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """The number of each row, [n], MISSING where there is none; ids are not negative."""
        width = self._cells.shape[1]
        at = places + ids
        if int(ids.max(initial=0)) >= width:
            at = np.where(ids < width, at, 0)
        return self._cells.reshape(-1).take(at)

    def _reaches(self, exporter: int, id_: int) -> bool:
        """Whether there is a cell, made now if there can be one."""
        rows, width = self._cells.shape
        while rows <= exporter:
            rows *= 2
        while width <= id_:
            width *= 2
        if (rows, width) != self._cells.shape:
            if rows * width > self._most_cells:
                return False
            before, self._cells = self._cells, np.full((rows, width), MISSING, np.int32)
            self._cells[: before.shape[0], : before.shape[1]] = before
        return True
