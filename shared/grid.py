"""Rows as a table that a person reads on a terminal, line after line as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from rich.text import Text

_DATE_CHARS: Final = len("2023-11-14 ")

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """One column of the table: its title, the width that it has at least, and its side."""

    title: str
    width: int
    right: bool = False
    style: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table shows: its headings, the first of which is a time; and the cells of each row, one for each of them.

    The columns of ``yielding`` are left out where the terminal is too narrow, in this order; before the last, the date
    is. The last heading's column may have any width, and be empty.
    """

    headings: tuple[Heading, ...]
    yielding: tuple[str, ...]
    rows: Callable[[pa.Table | pa.RecordBatch], Iterator[Row]]


class GrowingTable:
    """A table that grows at its end: what came before is not laid out again.

    Columns have a width that fits most, and become wider, never narrower, when a value needs it; the titles are then
    repeated, as they are after every `repeat` lines. Where the columns are wider than `width`, some are left out.
    """

    def __init__(
        self, layout: Layout, *, heading: bool = True, repeat: int | None = None, width: int | None = None
    ) -> None:
        self._layout = layout
        self._headings = layout.headings
        self._widths = [max(heading.width, len(heading.title)) for heading in layout.headings]
        self._heading = heading
        self._repeat = repeat
        self._width = width
        self._shown, self._dated = self._fitting()
        self._since_heading: int | None = None

    def lines(self, table: pa.Table | pa.RecordBatch) -> Text:
        """Return the lines of more records, each ended by a line break, in the colours of their columns."""
        rows = list(self._layout.rows(table))
        text = Text(no_wrap=True, overflow="ellipsis")
        if rows and self._widen(rows) and self._since_heading is not None:
            self._append_heading(text)
        for row in rows:
            if self._since_heading is None or (self._repeat is not None and self._since_heading >= self._repeat):
                self._append_heading(text)
            self._append(text, row, [heading.style for heading in self._headings])
            self._since_heading = (self._since_heading or 0) + 1
        return text

    def _widen(self, rows: Sequence[Row]) -> bool:
        """Make room for the rows, and tell whether that moves the columns."""
        before = (self._widths, self._shown, self._dated)
        # Times have one width, and what is last may have any.
        inner = [max(width, *(len(row[at]) for row in rows)) for at, width in enumerate(self._widths[1:-1], 1)]
        self._widths = [self._widths[0], *inner, self._widths[-1]]
        self._shown, self._dated = self._fitting()
        return before != (self._widths, self._shown, self._dated)

    def _fitting(self) -> tuple[list[int], bool]:
        """Return the places of the columns that fit, `more` among them, which is cut if need be; and whether the date does."""
        shown, dated = list(range(len(self._headings))), True
        for title in (*self._layout.yielding[:-1], None, *self._layout.yielding[-1:]):
            if self._width is None or self._total(shown, dated=dated) <= self._width:
                break
            if title is None:
                dated = False
            else:
                shown.remove(next(at for at in shown if self._headings[at].title == title))
        return shown, dated

    def _total(self, shown: Sequence[int], *, dated: bool) -> int:
        columns = sum(self._widths[at] + len(self._gap(at)) for at in shown[:-1]) - len(self._gap(shown[-2]))
        return columns if dated else columns - _DATE_CHARS

    def _append_heading(self, text: Text) -> None:
        self._since_heading = 0
        if self._heading:
            self._append(text, [heading.title for heading in self._headings], ["bold"] * len(self._headings))

    def _append(self, text: Text, cells: Sequence[str], styles: Sequence[str]) -> None:
        # No line ends with blanks: what is last and empty is left out, and the column before it is aligned right.
        shown = self._shown if cells[-1] else self._shown[:-1]
        for at in shown:
            cell, width = cells[at], self._widths[at]
            if at == 0 and not self._dated:
                cell, width = cell[_DATE_CHARS:] or cell, width - _DATE_CHARS
            text.append(cell.rjust(width) if self._headings[at].right else cell.ljust(width), styles[at] or None)
            if at != shown[-1]:
                text.append(self._gap(at))
        text.append("\n")

    def _gap(self, at: int) -> str:
        """What stands between a column and the next: an arrow, which has no title, is close to what it joins."""
        following = self._headings[min(at + 1, len(self._headings) - 1)]
        return " " if "" in {self._headings[at].title, following.title} else "  "


def shown_time(text: str | None) -> str:
    """Return a time with the milliseconds that fit, as people write it."""
    if text is None:
        return "-"
    return text.replace("T", " ").rstrip("Z")[:23]


def shown_count(value: int | None) -> str:
    """Return a number with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def shown(value: object) -> str:
    """Return a value as one word or some: whatever an exporter may have put into a name, no control character."""
    if value is None:
        return "-"
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )
