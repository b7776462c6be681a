"""A lake: Parquet files in a directory, by hour of reception, one file for each batch and hour.

``<path>/date=YYYY-MM-DD/hour=HH/part-<topic id>-<partition>-<start>-<end>.parquet``: the token is the file's name, so a
batch that is delivered again finds its own files, and writes those that are missing. A selection of a batch has
``-only-<mark>`` behind that, and a part of a batch that was divided ``-rows-<first>-<end>``. Sums of a batch are in files
that begin with ``agg-``, in the same directory when there are no records, else in one of their own, since a query over
both would count everything twice. A file is written under a hidden name beside its place, synced, and
renamed, so that whoever reads the lake sees whole files only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forwarder.aggregate import BUCKET, SUMS
from forwarder.sinks.base import Busy, Done, Health, Outcome, Trouble
from shared.errors import StartError
from shared.log import get_logger
from shared.record import ADDRESS, MAC, NAME, SCHEMA
from shared.text import format_addresses, format_macs

if TYPE_CHECKING:
    from forwarder.config import ParquetSinkConfig
    from forwarder.cut import Token

HOUR_NS: Final = 3_600_000_000_000
TEMPORARY: Final = ".aside"
"""How the name of a file ends that is being written; it begins with a dot, and readers skip it."""
RETENTION_EVERY_SECONDS: Final = 60.0

RECEIVED: Final = "time_received"
WRITE_ROWS: Final = 16_384
"""Rows that the file's writer takes in one go: more is not faster, its default of 1,024 is slower by a fifth."""

_DELTAS: Final = frozenset({"sequence_num", "bytes", "packets", "src_port"})
"""Numbers of the record that are written as differences."""
_PLAIN: Final = frozenset({"record_id", "fragment_id", "ipv6_flow_label"})
"""Columns whose values are as good as random."""
_ROWS_WITHOUT_TIME: Final = 0
"""The hour, since 1970, of records without a reception time. No retention takes it away."""

_TROUBLES: Final = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EACCES: Trouble.FORBIDDEN,
    errno.EPERM: Trouble.FORBIDDEN,
    errno.EROFS: Trouble.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table looks in a file: every column that there is, always, in one order.

    A query over many files takes the columns of the first one, so a column must not come and go between files.
    """

    schema: pa.Schema
    dictionary: tuple[str, ...]
    encodings: dict[str, str]
    statistics: tuple[str, ...]


def layout(schema: pa.Schema, deltas: Collection[str], *, text: bool) -> Layout:
    """Return the layout with addresses as text or as they are in ``schema``; fields carry description and unit.

    ``deltas`` are numbers, beside the times, that are smaller and faster to write as differences than by a dictionary.
    """
    fields = [_field(field, text=text) for field in schema]
    deltas = {field.name for field in fields if field.name in deltas or pa.types.is_timestamp(field.type)}
    # Least and greatest of many addresses or names tell a reader nothing, and cost more than writing the column.
    spread = {field.name for field in schema if field.type in {ADDRESS, MAC, NAME}} - {"type", "sampler_address"}
    return Layout(
        schema=pa.schema(fields),
        dictionary=tuple(
            field.name for field in fields if field.name not in _PLAIN | deltas and not pa.types.is_nested(field.type)
        ),
        encodings=dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        statistics=tuple(field.name for field in fields if field.name not in spread),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """Records or sums: where their files are, how their names begin, and the column that they are put in hours by."""

    path: Path
    name: str
    time: str
    retention_hours: int | None


class ParquetSink:
    """Writes batches to a directory of this machine (or to what is mounted there).

    ``now_ns`` is the wall clock that retention goes by.
    """

    def __init__(self, config: ParquetSinkConfig, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._records = _Kind(Path(config.path), "part", RECEIVED, config.retention_hours)
        self._sums = _Kind(
            Path(config.aggregated_path or config.path), "agg", BUCKET, config.aggregated_retention_hours
        )
        self._text = config.addresses == "text"
        self._now_ns = now_ns
        self._layout = layout(SCHEMA, _DELTAS, text=self._text)
        self._sums_layout: tuple[pa.Schema, Layout] | None = None
        self._alone: set[_Kind] = set()
        self._zeros = Zeros()
        self._log = get_logger("parquet")
        self._trouble: str | None = None
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def open(self) -> None:
        """Make the directories, try that they can be written, and remove what a crash left half written."""
        for path in dict.fromkeys((self._records.path, self._sums.path)):
            _try_to_write(path)
            removed = _remove_leftovers(path)
            if removed:
                self._log.info("removed files that a crash left half written", path=str(path), files=removed)
        if self._records.retention_hours is not None or self._sums.retention_hours is not None:
            self._keeper = threading.Thread(target=self._keep, name="parquet-retention", daemon=True)
            self._keeper.start()

    def deliver(self, table: pa.Table, token: Token, sums: pa.Table | None = None) -> Outcome:
        """Write the batch's files, one an hour; done when all of them are in their place.

        ``table`` may be without rows when ``sums`` are all that is wanted of a batch. Sums are laid out by their own
        schema, which is that of an :class:`forwarder.aggregate.Aggregation`.
        """
        parts = [(self._records, table, self._layout)]
        if sums is not None:
            parts.append((self._sums, sums, self._layout_of(sums)))
        for kind, rows, look in parts:
            try:
                if not rows.num_rows:
                    continue
                if (trouble := self._mixed(kind)) is not None:
                    self._trouble = trouble
                    return Busy(Trouble.FORBIDDEN, trouble)
                self._write_hours(kind, rows, look, token)
            except OSError as error:
                return self.failed(error, kind.path)
        self._trouble = None
        return Done()

    def failed(self, error: OSError, path: Path) -> Busy:
        """Note that a lake could not be written, and return what that means for the batch: not now."""
        detail = f"the lake {path} cannot be written: {error.strerror or error}"
        self._trouble = detail
        return Busy(_TROUBLES.get(error.errno or 0, Trouble.AWAY), detail)

    def health(self) -> Health:
        """By what the last delivery met."""
        trouble = self._trouble
        return Health(ok=trouble is None, detail=trouble or f"writes to {self._records.path}")

    def close(self) -> None:
        """End the retention's thread."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()

    def expire(self) -> int:
        """Remove the hours that are older than their retention; return how many files that were."""
        removed = 0
        for kind in (self._records, self._sums):
            if kind.retention_hours is None:
                continue
            oldest = self._now_ns() // HOUR_NS - kind.retention_hours
            expired = [one for one, hour in _hours(kind.path) if hour < oldest and hour != _ROWS_WITHOUT_TIME]
            files = [_remove_hour(directory, kind) for directory in expired]
            removed += sum(files)
            if any(files):
                self._log.info(
                    "removed hours that are older than the retention",
                    path=str(kind.path),
                    hours=sum(count > 0 for count in files),
                    files=sum(files),
                    retention_hours=kind.retention_hours,
                )
        return removed

    def _mixed(self, kind: _Kind) -> str | None:
        """Say what is wrong when files of the other kind are where this one is about to be written."""
        if kind in self._alone:
            return None
        other = self._sums if kind is self._records else self._records
        if next(kind.path.glob(f"date=*/hour=*/{other.name}-*.parquet"), None) is not None:
            return (
                f"the lake {kind.path} has files {other.name}-*.parquet, and was to get {kind.name}-*.parquet beside"
                " them: records and their sums in one lake are counted twice by a query. Give the sums a directory of"
                " their own by the sink's `aggregated_path`, or the sink another `path`"
            )
        self._alone.add(kind)
        return None

    def _layout_of(self, sums: pa.Table) -> Layout:
        """The layout of sums; it changes when what is added up does."""
        known = self._sums_layout
        if known is None or not known[0].equals(sums.schema, check_metadata=True):
            self._sums_layout = known = (sums.schema, layout(sums.schema, SUMS, text=self._text))
        return known[1]

    def _write_hours(self, kind: _Kind, table: pa.Table, look: Layout, token: Token) -> None:
        only = "" if token.only is None else f"-only-{token.only}"
        part = "" if token.rows is None else f"-rows-{token.rows[0]}-{token.rows[1]}"
        name = f"{kind.name}-{token.topic_id}-{token.partition}-{token.start}-{token.end}{only}{part}.parquet"
        for hour, rows in by_hour(table, kind.time):
            directory = kind.path / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}"
            if (directory / name).exists():
                # It is whole, since it has its name, and what this batch holds does not change. But that it has its
                # name may be what could not be synced when it was written.
                _sync(directory)
                continue
            _make(directory, kind.path)
            _write(self._laid_out(rows, look), look, directory, name)

    def _laid_out(self, table: pa.Table, look: Layout) -> pa.Table:
        have = set(table.column_names)
        columns = [
            _written(table[field.name], text=self._text)
            if field.name in have
            else self._zeros.nulls(table.num_rows, field.type)
            for field in look.schema
        ]
        return pa.table(columns, schema=look.schema)

    def _keep(self) -> None:
        while True:
            try:
                self.expire()
            except OSError as error:
                self._log.warning(
                    "hours that are older than the retention cannot be removed",
                    path=str(self._records.path),
                    error=str(error),
                )
            if self._closing.wait(RETENTION_EVERY_SECONDS):
                return


def _write(table: pa.Table, look: Layout, directory: Path, name: str) -> None:
    aside = directory / f".{name}.{uuid4().hex}{TEMPORARY}"
    try:
        with aside.open("xb") as file:
            # Whoever can lock such a file knows that its writer is gone: a lock does not outlive its process.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pq.write_table(
                table,
                file,
                compression=_compressions(table),
                use_dictionary=list(look.dictionary),
                column_encoding=look.encodings,
                write_statistics=list(look.statistics),
                write_batch_size=WRITE_ROWS,
            )
            file.flush()
            os.fsync(file.fileno())
            aside.replace(directory / name)
        _sync(directory)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _compressions(table: pa.Table) -> dict[str, str]:
    """How each column is compressed: one without a value is a few bytes, which are not worth it."""
    return {
        name: "none" if column.null_count == table.num_rows else "zstd"
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _try_to_write(path: Path) -> None:
    """Make a directory, and a file in it.

    Raises:
        StartError: that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{uuid4().hex}{TEMPORARY}"
        with probe.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe.unlink()
    except OSError as error:
        raise StartError(
            f"the lake {path} cannot be written ({error.strerror}): give this user the right to write there,"
            " or set the sink's path to another directory"
        ) from error


def _remove_leftovers(path: Path) -> int:
    """Remove files aside that nobody writes: other forwarders may be writing theirs to the same lake."""
    removed = 0
    for aside in path.rglob(f".*{TEMPORARY}"):
        with suppress(OSError), aside.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()
            removed += 1
    return removed


def by_hour(table: pa.Table, time: str = RECEIVED) -> Iterator[tuple[datetime, pa.Table]]:
    """Split a table by the hour of a column of time, in order of the hours; rows keep their order."""
    if not table.num_rows:
        return
    if time not in table.column_names:
        yield _datetime(_ROWS_WITHOUT_TIME), table
        return
    times = table[time].cast(pa.int64()).fill_null(_ROWS_WITHOUT_TIME * HOUR_NS).to_numpy()
    hours = times // HOUR_NS
    first, last = int(hours.min()), int(hours.max())
    if first == last:
        yield _datetime(first), table
        return
    for hour in np.unique(hours).tolist():
        yield _datetime(hour), table.filter(pa.array(hours == hour))


class Zeros:
    """Makes columns of nulls that share one buffer of zeros: most columns of most records are null."""

    def __init__(self) -> None:
        self._buffer = pa.py_buffer(b"")

    def nulls(self, rows: int, kind: pa.DataType) -> pa.Array:
        """Return a column of ``rows`` nulls; may be called by several threads at a time."""
        needed = 8 * (rows + 1)
        buffer = self._buffer
        if buffer.size < needed:
            buffer = self._buffer = pa.py_buffer(bytes(needed))
        if pa.types.is_dictionary(kind):
            values = pa.array([], kind.value_type)
            return pa.DictionaryArray.from_arrays(self.nulls(rows, kind.index_type), values)
        if pa.types.is_string(kind):
            return pa.Array.from_buffers(kind, rows, [buffer, buffer, buffer], null_count=rows)
        if pa.types.is_nested(kind) or kind.bit_width > 64:
            return pa.nulls(rows, kind)
        return pa.Array.from_buffers(kind, rows, [buffer, buffer], null_count=rows)


def _field(field: pa.Field, *, text: bool) -> pa.Field:
    metadata = {name: said for name, said in field.metadata.items() if name in {b"description", b"unit"}}
    kind = NAME if text and field.type in {ADDRESS, MAC} else field.type
    return pa.field(field.name, kind, metadata=metadata)


def _written(column: pa.ChunkedArray, *, text: bool) -> pa.Array | pa.ChunkedArray:
    """Return a column of the record as it goes into a file.

    Addresses repeat: each distinct one is made into text once, and the file's writer gets them as the dictionary that
    it would make of them anyway. That is twice as fast as text for every row.
    """
    if not text or column.type not in {ADDRESS, MAC}:
        return column
    distinct = column.combine_chunks().dictionary_encode()
    if isinstance(distinct, pa.ChunkedArray):
        distinct = distinct.unify_dictionaries().combine_chunks()
    write = format_addresses if column.type == ADDRESS else format_macs
    return pa.DictionaryArray.from_arrays(distinct.indices, write(distinct.dictionary))


def _datetime(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def _make(directory: Path, root: Path) -> None:
    """Make a directory below ``root``, and make sure that a power failure does not take its name away."""
    if directory.is_dir():
        return
    if directory != root:
        _make(directory.parent, root)
    directory.mkdir(exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hours(lake: Path) -> Iterator[tuple[Path, int]]:
    """Yield the directories that hold an hour of ours, each with its hour since 1970."""
    for directory in lake.glob("date=*/hour=*"):
        with suppress(ValueError):
            said = datetime.strptime(f"{directory.parent.name} {directory.name} +0000", "date=%Y-%m-%d hour=%H %z")
            yield directory, int(said.timestamp()) // 3600


def _remove_hour(directory: Path, kind: _Kind) -> int:
    """Remove our files of a kind, and the directories that are empty then; what others put there stays."""
    removed = 0
    for file in directory.glob(f"{kind.name}-*.parquet"):
        file.unlink(missing_ok=True)
        removed += 1
    for emptied in (directory, directory.parent):
        with suppress(OSError):
            emptied.rmdir()
    return removed
