"""A lake: Parquet files in a directory, by hour of reception, one file for each batch and hour.

``<path>/date=YYYY-MM-DD/hour=HH/part-<topic id>-<partition>-<start>-<end>.parquet``: the token is the file's name, so a
batch that is delivered again replaces its own file. A file is written under a hidden name beside its place, synced, and
renamed, so that whoever reads the lake sees whole files only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forwarder.sinks.base import Busy, Done, Health, Outcome, Trouble
from shared.errors import StartError
from shared.log import get_logger
from shared.record import ADDRESS, COLUMNS, MAC, NAME, Column
from shared.text import format_addresses, format_macs

if TYPE_CHECKING:
    from forwarder.config import ParquetSinkConfig
    from forwarder.cut import Token

HOUR_NS: Final = 3_600_000_000_000
TEMPORARY: Final = ".aside"
"""How the name of a file ends that is being written; it begins with a dot, and readers skip it."""
RETENTION_EVERY_SECONDS: Final = 60.0

_TIME: Final = "time_received"
WRITE_ROWS: Final = 16_384
"""Rows that the file's writer takes in one go: more is not faster, its default of 1,024 is slower by a fifth."""

_DELTAS: Final = frozenset({"sequence_num", "bytes", "packets", "src_port"})
"""Numbers, beside the times, that are smaller and faster to write as differences than by a dictionary."""
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
    """How the record looks in a file: every column that there is, always, in the record's order.

    A query over many files takes the columns of the first one, so a column must not come and go between files.
    """

    schema: pa.Schema
    dictionary: tuple[str, ...]
    encodings: dict[str, str]
    statistics: tuple[str, ...]


def layout(*, text: bool) -> Layout:
    """Return the layout with addresses as text or as the bytes of the record; fields carry description and unit."""
    fields = [_field(column, text=text) for column in COLUMNS]
    deltas = _DELTAS | {field.name for field in fields if pa.types.is_timestamp(field.type)}
    # Least and greatest of many addresses or names tell a reader nothing, and cost more than writing the column.
    spread = {column.name for column in COLUMNS if column.type in {ADDRESS, MAC, NAME}} - {"type", "sampler_address"}
    return Layout(
        schema=pa.schema(fields),
        dictionary=tuple(
            field.name for field in fields if field.name not in _PLAIN | deltas and not pa.types.is_nested(field.type)
        ),
        encodings=dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        statistics=tuple(field.name for field in fields if field.name not in spread),
    )


class ParquetSink:
    """Writes batches to a directory of this machine (or to what is mounted there).

    ``now_ns`` is the wall clock that retention goes by.
    """

    def __init__(self, config: ParquetSinkConfig, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = Path(config.path)
        self._text = config.addresses == "text"
        self._retention_hours = config.retention_hours
        self._now_ns = now_ns
        self._layout = layout(text=self._text)
        self._zeros = Zeros()
        self._log = get_logger("parquet")
        self._trouble: str | None = None
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def open(self) -> None:
        """Make the directory, try that it can be written, and remove what a crash left half written."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            probe = self._path / f".probe-{uuid4().hex}{TEMPORARY}"
            with probe.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.unlink()
        except OSError as error:
            raise StartError(
                f"the lake {self._path} cannot be written ({error.strerror}): give this user the right to write there,"
                " or set the sink's path to another directory"
            ) from error
        removed = self._remove_leftovers()
        if removed:
            self._log.info("removed files that a crash left half written", path=str(self._path), files=removed)
        if self._retention_hours is not None:
            self._keeper = threading.Thread(target=self._keep, name="parquet-retention", daemon=True)
            self._keeper.start()

    def deliver(self, table: pa.Table, token: Token) -> Outcome:
        """Write the batch's files, one an hour; done when all of them are in their place."""
        name = f"part-{token.topic_id}-{token.partition}-{token.start}-{token.end}.parquet"
        try:
            for hour, rows in by_hour(table):
                directory = self._path / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}"
                self._write(self._laid_out(rows), directory, name)
        except OSError as error:
            return self.failed(error)
        self._trouble = None
        return Done()

    def failed(self, error: OSError) -> Busy:
        """Note that the lake could not be written, and return what that means for the batch: not now."""
        detail = f"the lake {self._path} cannot be written: {error.strerror or error}"
        self._trouble = detail
        return Busy(_TROUBLES.get(error.errno or 0, Trouble.AWAY), detail)

    def health(self) -> Health:
        """By what the last delivery met."""
        trouble = self._trouble
        return Health(ok=trouble is None, detail=trouble or f"writes to {self._path}")

    def close(self) -> None:
        """End the retention's thread."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()

    def expire(self) -> int:
        """Remove the hours that are older than the retention; return how many files that were."""
        if self._retention_hours is None:
            return 0
        oldest = self._now_ns() // HOUR_NS - self._retention_hours
        expired = [directory for directory, hour in _hours(self._path) if hour < oldest and hour != _ROWS_WITHOUT_TIME]
        files = sum(_remove_hour(directory) for directory in expired)
        if files:
            self._log.info(
                "removed hours that are older than the retention",
                path=str(self._path),
                hours=len(expired),
                files=files,
                retention_hours=self._retention_hours,
            )
        return files

    def _laid_out(self, table: pa.Table) -> pa.Table:
        have = set(table.column_names)
        columns = [
            _written(table[field.name], text=self._text)
            if field.name in have
            else self._zeros.nulls(table.num_rows, field.type)
            for field in self._layout.schema
        ]
        return pa.table(columns, schema=self._layout.schema)

    def _write(self, table: pa.Table, directory: Path, name: str) -> None:
        _make(directory, self._path)
        aside = directory / f".{name}.{uuid4().hex}{TEMPORARY}"
        try:
            with aside.open("xb") as file:
                # Whoever can lock such a file knows that its writer is gone: a lock does not outlive its process.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                pq.write_table(
                    table,
                    file,
                    compression="zstd",
                    use_dictionary=list(self._layout.dictionary),
                    column_encoding=self._layout.encodings,
                    write_statistics=list(self._layout.statistics),
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

    def _remove_leftovers(self) -> int:
        """Remove files aside that nobody writes: other forwarders may be writing theirs to the same lake."""
        removed = 0
        for aside in self._path.rglob(f".*{TEMPORARY}"):
            with suppress(OSError), aside.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                aside.unlink()
                removed += 1
        return removed

    def _keep(self) -> None:
        while True:
            try:
                self.expire()
            except OSError as error:
                self._log.warning(
                    "hours that are older than the retention cannot be removed",
                    path=str(self._path),
                    error=str(error),
                )
            if self._closing.wait(RETENTION_EVERY_SECONDS):
                return


def by_hour(table: pa.Table) -> Iterator[tuple[datetime, pa.Table]]:
    """Split a table by the hour of reception, in order of the hours; rows keep their order."""
    if _TIME not in table.column_names:
        yield _datetime(_ROWS_WITHOUT_TIME), table
        return
    times = table[_TIME].cast(pa.int64()).fill_null(_ROWS_WITHOUT_TIME * HOUR_NS).to_numpy()
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


def _field(column: Column, *, text: bool) -> pa.Field:
    metadata = {"description": column.description}
    if column.unit is not None:
        metadata["unit"] = column.unit
    kind = NAME if text and column.type in {ADDRESS, MAC} else column.type
    return pa.field(column.name, kind, metadata=metadata)


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


def _remove_hour(directory: Path) -> int:
    """Remove our files, and the directories that are empty then; what others put there stays."""
    removed = 0
    for file in directory.glob("part-*.parquet"):
        file.unlink(missing_ok=True)
        removed += 1
    for emptied in (directory, directory.parent):
        with suppress(OSError):
            emptied.rmdir()
    return removed
