"""Where the records of data sets lie, when their fields differ in length (RFC 7011 §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decoders.fields import Offsets, VariableFields
from ingest.decoders.layout import VARIABLE, Layout

LOCKSTEP: Final = 48
"""With fewer sets than this left, walking each of them costs less than a step over all."""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Records of variable length: k of them, with v fields of variable length each."""

    of_set: Offsets
    """Which of the sets each record is of, [k]."""
    begin: Offsets
    """Where it begins in the buffer, [k]."""
    start: Offsets
    """Where each variable field's content begins, [k, v]."""
    length: Offsets
    """Bytes of that content, [k, v]."""
    end: Offsets
    """For each set, where its last whole record ends."""
    broken: npt.NDArray[np.bool_]
    """For each set, whether a record reached beyond its end: what follows it there is lost."""


def locate(layout: Layout, buffer: npt.NDArray[np.uint8], start: Offsets, length: Offsets) -> Located:
    """Find the records of sets whose bodies lie at ``start`` with ``length`` bytes, [m] each.

    All sets advance together, a record a step, as long as there are several; the rest is walked set by set.
    """
    gaps = _gaps(layout)
    shortest = layout.shortest_record
    at, end = start.copy(), start + length
    active = np.flatnonzero(length >= shortest)
    broken = np.zeros(len(start), np.bool_)
    found: list[tuple[Offsets, Offsets, Offsets, Offsets]] = []
    while len(active) >= LOCKSTEP:
        here, stop = at[active], end[active]
        content, size, after = _step(buffer, here, stop, gaps)
        whole = after <= stop
        broken[active] = ~whole
        found.append((active[whole], here[whole], content[whole], size[whole]))
        active = active[whole]
        at[active] = after[whole]
        active = active[end[active] - at[active] >= shortest]
    for one in active.tolist():
        walked, at[one], broken[one] = _walk(buffer, int(at[one]), int(end[one]), gaps, shortest)
        found.append((np.full(len(walked[0]), one, np.int64), *walked))
    if not found:
        none = np.zeros(0, np.int64)
        return Located(
            none, none, np.zeros((0, len(gaps) - 1), np.int64), np.zeros((0, len(gaps) - 1), np.int64), at, broken
        )
    of_set, begin, content, size = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((begin, of_set))
    return Located(of_set[order], begin[order], content[order], size[order], at, broken)


def _gaps(layout: Layout) -> list[int]:
    """Bytes of fixed fields before each variable one, and after the last."""
    gaps = [0]
    for field in layout.fields:
        if field.length == VARIABLE:
            gaps.append(0)
        else:
            gaps[-1] += field.length
    return gaps


def _step(
    buffer: npt.NDArray[np.uint8], at: Offsets, end: Offsets, gaps: list[int]
) -> tuple[Offsets, Offsets, Offsets]:
    """One record of each set: where its variable fields lie, and where the next record begins."""
    last = len(buffer) - 1
    content = np.empty((len(at), len(gaps) - 1), np.int64)
    size = np.empty_like(content)
    place = at
    for index, gap in enumerate(gaps[:-1]):
        place = place + gap
        # A place beyond the set is read from its last byte, and found out at the end: places only grow.
        first = buffer[np.minimum(place, last)].astype(np.int64)
        long = first == 255
        high = buffer[np.minimum(place + 1, last)].astype(np.int64)
        low = buffer[np.minimum(place + 2, last)].astype(np.int64)
        size[:, index] = np.where(long, high << 8 | low, first)
        content[:, index] = place + np.where(long, 3, 1)
        # Kept within one past the end, so that many long fields cannot overflow.
        place = np.minimum(content[:, index] + size[:, index], end + 1)
    return content, size, place + gaps[-1]


def _walk(
    buffer: npt.NDArray[np.uint8], at: int, end: int, gaps: list[int], shortest: int
) -> tuple[tuple[Offsets, Offsets, Offsets], int, bool]:
    """The same for one set, record by record; also where the last of them ends."""
    octets = buffer[at:end].tobytes()
    total = len(octets)
    begins: list[int] = []
    contents: list[int] = []
    sizes: list[int] = []
    here, broken = 0, False
    while total - here >= shortest:
        place = here
        for gap in gaps[:-1]:
            place += gap
            if place >= total:
                broken = True
                break
            size, content = octets[place], place + 1
            if size == 255:
                if place + 3 > total:
                    broken = True
                    break
                size, content = octets[place + 1] << 8 | octets[place + 2], place + 3
            contents.append(content)
            sizes.append(size)
            place = content + size
        place += gaps[-1]
        if broken or place > total:
            broken = True
            break
        begins.append(here)
        here = place
    fields = len(gaps) - 1
    whole = len(begins) * fields
    return (
        (
            np.array(begins, np.int64) + at,
            np.array(contents[:whole], np.int64).reshape(-1, fields) + at,
            np.array(sizes[:whole], np.int64).reshape(-1, fields),
        ),
        here + at,
        broken,
    )


def first_fields(
    layout: Layout, buffer: npt.NDArray[np.uint8], begin: Offsets, end: Offsets
) -> tuple[VariableFields, npt.NDArray[np.bool_]]:
    """The first record of each body that lies between ``begin`` and ``end``, [m] each.

    Returns the fields of those that are whole, and which bodies these are.
    """
    whole = end - begin >= layout.shortest_record
    content, size, after = _step(buffer, begin[whole], end[whole], _gaps(layout))
    inside = after <= end[whole]
    whole[whole] = inside
    located = Located(
        np.flatnonzero(whole), begin[whole], content[inside], size[inside], after[inside], np.zeros(0, np.bool_)
    )
    return variable_fields(layout, buffer, located), whole


def first_value(
    buffer: npt.NDArray[np.uint8], begin: Offsets, end: Offsets
) -> tuple[Offsets, Offsets, npt.NDArray[np.bool_]]:
    """The first of values with their lengths before them, which lie between ``begin`` and ``end``, [m] each.

    Returns where each begins, how many bytes it has, and whether it is whole.
    """
    content, size, after = _step(buffer, begin, end, [0, 0])
    return content[:, 0], size[:, 0], after <= end


def variable_fields(layout: Layout, buffer: npt.NDArray[np.uint8], located: Located) -> VariableFields:
    """The fields of located records: what is fixed in length lies at a fixed distance from the field before it."""
    starts: list[Offsets] = []
    lengths: list[Offsets | int] = []
    place, variable = located.begin, 0
    for field in layout.fields:
        if field.length == VARIABLE:
            starts.append(located.start[:, variable])
            lengths.append(located.length[:, variable])
            place = located.start[:, variable] + located.length[:, variable]
            variable += 1
        else:
            starts.append(place)
            lengths.append(field.length)
            place = place + field.length
    return VariableFields(buffer, starts, lengths)
