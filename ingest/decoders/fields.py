"""Where the fields of a group of records lie, whether the records are of one length or not."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ingest.decoders import columns
from ingest.decoders.layout import Layout

Octets = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Fields(Protocol):
    """The fields of ``count`` records of one layout, by their place in it."""

    count: int

    def uint(self, at: int) -> npt.NDArray[np.unsignedinteger]:
        """Values of an unsigned field in the machine's byte order, as wide as it was sent or wider; [count].

        Of a field longer than 8 bytes the last 8 count; what is not there is 0, see :meth:`told`.
        """

    def octets(self, at: int, width: int) -> Octets | None:
        """The bytes of a field that must have ``width`` of them, [count, width]; None when it has another length.

        Of variable length it may have another in some records: zeros, see :meth:`told`.
        """

    def told(self, at: int, width: int | None = None) -> npt.NDArray[np.bool_] | None:
        """Which records have a field, [count]: it has ``width`` bytes, or without one those of a number, 1 to 8.

        None where all have it, as they do when its length is fixed and the layout was asked before.
        """

    def padded(self, at: int, most: int) -> tuple[Octets, Offsets]:
        """The first ``most`` bytes of a field, padded with zeros at the end, and how many those are.

        [count, widest] and [count].
        """

    def span(self, at: int) -> tuple[Octets, Offsets, Offsets]:
        """Where a field lies: a buffer, where in it each record's begins, and how many bytes it has, [count] each."""

    def text(self, at: int) -> pa.StringArray:
        """The strings of a field."""

    def hashes(self) -> npt.NDArray[np.uint64] | None:
        """Of the bytes of each record, [count]; None where records differ in length."""


def _widened(octets: Octets) -> npt.NDArray[np.unsignedinteger]:
    count, width = octets.shape
    if width > 8:
        octets, width = octets[:, width - 8 :], 8
    native = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}.get(width)
    if native is not None:
        return octets.view(np.dtype(native).newbyteorder(">"))[:, 0].astype(native)
    wide = np.zeros((count, 8), np.uint8)
    wide[:, 8 - width :] = octets
    return wide.view(">u8")[:, 0].astype(np.uint64)


class FixedFields:
    """Records of one length, side by side: ``octets`` has shape [count, record length]."""

    def __init__(self, layout: Layout, octets: Octets) -> None:
        self.count = len(octets)
        self._octets = octets
        ends = np.cumsum([field.length for field in layout.fields]).tolist()
        self._spans = [(end - field.length, end) for field, end in zip(layout.fields, ends, strict=True)]

    def _field(self, at: int) -> Octets:
        begin, end = self._spans[at]
        return self._octets[:, begin:end]

    def uint(self, at: int) -> npt.NDArray[np.unsignedinteger]:
        """See :meth:`Fields.uint`."""
        return _widened(self._field(at))

    def octets(self, at: int, width: int) -> Octets | None:
        """See :meth:`Fields.octets`."""
        field = self._field(at)
        return field if field.shape[1] == width else None

    def told(self, at: int, width: int | None = None) -> npt.NDArray[np.bool_] | None:  # noqa: ARG002 - the length of a field is one for all
        """See :meth:`Fields.told`."""
        return None

    def padded(self, at: int, most: int) -> tuple[Octets, Offsets]:
        """See :meth:`Fields.padded`."""
        field = self._field(at)[:, :most]
        return field, np.full(self.count, field.shape[1], np.int64)

    def span(self, at: int) -> tuple[Octets, Offsets, Offsets]:
        """See :meth:`Fields.span`."""
        begin, end = self._spans[at]
        start = np.arange(self.count) * self._octets.shape[1] + begin
        return self._octets.reshape(-1), start, np.full(self.count, end - begin, np.int64)

    def text(self, at: int) -> pa.StringArray:
        """See :meth:`Fields.text`."""
        return columns.fixed_text(self._field(at))

    def hashes(self) -> npt.NDArray[np.uint64] | None:
        """See :meth:`Fields.hashes`."""
        size, octets = self._octets.shape[1], self._octets.tobytes()
        records = (octets[begin : begin + size] for begin in range(0, len(octets), size))
        return np.fromiter(map(xxhash.xxh3_64_intdigest, records), np.uint64, self.count)


class VariableFields:
    """Records that differ in length: each field by where it starts in ``buffer`` and how long it is, [count] each."""

    def __init__(self, buffer: Octets, starts: list[Offsets], lengths: list[Offsets | int]) -> None:
        self.count = len(starts[0])
        self._buffer = buffer
        self._starts = starts
        self._lengths = lengths

    def _gather(self, at: int, width: int) -> Octets:
        taken: Octets = self._buffer[self._starts[at][:, None] + np.arange(width)]
        return taken

    def uint(self, at: int) -> npt.NDArray[np.unsignedinteger]:
        """See :meth:`Fields.uint`."""
        length = self._lengths[at]
        if isinstance(length, int):
            return _widened(self._gather(at, length))
        value = np.zeros(self.count, np.uint64)
        end = self._starts[at] + length
        for back in range(8, 0, -1):
            place = end - back
            octet = self._buffer[np.maximum(place, 0)].astype(np.uint64)
            value = (value << np.uint64(8)) | np.where(length >= back, octet, 0).astype(np.uint64)
        return value

    def octets(self, at: int, width: int) -> Octets | None:
        """See :meth:`Fields.octets`."""
        length = self._lengths[at]
        if isinstance(length, int):
            return self._gather(at, width) if length == width else None
        fits = length == width
        if not fits.any():
            return None
        inside = np.minimum(self._starts[at][:, None] + np.arange(width), len(self._buffer) - 1)
        return np.where(fits[:, None], self._buffer[inside], 0).astype(np.uint8)

    def told(self, at: int, width: int | None = None) -> npt.NDArray[np.bool_] | None:
        """See :meth:`Fields.told`."""
        length = self._lengths[at]
        if isinstance(length, int):
            return None
        has: npt.NDArray[np.bool_] = (length >= 1) & (length <= 8) if width is None else length == width
        return None if has.all() else has

    def padded(self, at: int, most: int) -> tuple[Octets, Offsets]:
        """See :meth:`Fields.padded`."""
        length = self._lengths[at]
        if isinstance(length, int):
            return self._gather(at, min(length, most)), np.full(self.count, min(length, most), np.int64)
        length = np.minimum(length, most)
        width = int(length.max(initial=0))
        inside = np.minimum(self._starts[at][:, None] + np.arange(width), len(self._buffer) - 1)
        return np.where(np.arange(width) < length[:, None], self._buffer[inside], 0).astype(np.uint8), length

    def span(self, at: int) -> tuple[Octets, Offsets, Offsets]:
        """See :meth:`Fields.span`."""
        length = self._lengths[at]
        whole = np.full(self.count, length, np.int64) if isinstance(length, int) else length
        return self._buffer, self._starts[at], whole

    def text(self, at: int) -> pa.StringArray:
        """See :meth:`Fields.text`."""
        length = self._lengths[at]
        if isinstance(length, int):
            return columns.fixed_text(self._gather(at, length))
        return columns.text(self._buffer, self._starts[at], length)

    def hashes(self) -> npt.NDArray[np.uint64] | None:
        """See :meth:`Fields.hashes`."""
        return None


def present(layout: Layout) -> dict[tuple[int, int], int]:
    """Which place in the layout each element has; of one that stands twice the last counts, one of no length none.

    The order of a template is that of processing (RFC 7011 §8): with tunnels, the outer header comes first.
    """
    return {
        (field.enterprise, field.element): at
        for at, field in enumerate(layout.fields)
        if field.length > 0 and at >= layout.scopes
    }


def width(layout: Layout, at: int) -> int:
    """Bytes of a field, or a number larger than any when it varies."""
    return layout.fields[at].length
