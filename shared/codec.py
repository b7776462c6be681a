"""Columns to Kafka message and back: an Arrow IPC stream that carries its own schema, and the headers beside it.

A message has only the columns that its batch has, so a reader takes whatever comes: columns that it does not know are
left out, columns that are missing are null to whoever asks for them. Field metadata stays off the wire, where it would
double a small message.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.errors import SluicewayError, UnknownSchemaError
from shared.record import COLUMN, SCHEMA_VERSION, Column

CONTENT_TYPE: Final = "application/vnd.apache.arrow.stream"

# Arrow's own defaults. Without them it looks for its settings in the environment, for each message anew.
_AS_IT_IS: Final = pa.ipc.IpcWriteOptions()

Headers = list[tuple[str, str | bytes | None]]
"""Headers as the Kafka client takes them; ours have bytes."""


class CorruptMessageError(SluicewayError):
    """The value of a message is not an Arrow stream of what the topic has."""


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """What the headers of a message say. ``records`` is None when the producer did not tell."""

    schema: int
    content_type: str
    records: int | None
    heartbeat: bool


def encode(batch: pa.RecordBatch) -> pa.Buffer:
    """Return the value of one message: an IPC stream of one batch, its schema first."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_AS_IT_IS) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


class Encoder:
    """Encodes one message after the other, in memory that it keeps: cheaper than memory that grows with each message.

    What it returns is valid until the next call. A message that does not fit into ``room_bytes`` is encoded all the
    same.
    """

    def __init__(self, room_bytes: int) -> None:
        self._room = pa.allocate_buffer(room_bytes)

    def encode(self, batch: pa.RecordBatch) -> pa.Buffer:
        """Return the value of one message, as :func:`encode` does."""
        sink = pa.FixedSizeBufferWriter(self._room)
        try:
            with pa.ipc.new_stream(sink, batch.schema, options=_AS_IT_IS) as writer:
                writer.write_batch(batch)
        except OSError:
            # There is no other error that writing to memory can meet than its end.
            return encode(batch)
        return self._room.slice(0, sink.tell())


def headers(records: int, producer: str) -> Headers:
    """Return the headers of a message of ``records`` records; ``producer`` names the instance that made it."""
    return [
        ("schema", b"%d" % SCHEMA_VERSION),
        ("content-type", CONTENT_TYPE.encode()),
        ("records", b"%d" % records),
        ("producer", producer.encode()),
    ]


def heartbeat_headers(producer: str) -> Headers:
    """Return the headers of an empty message, which does nothing but close the interval before it."""
    return [*headers(0, producer), ("heartbeat", b"1")]


def read_headers(pairs: Iterable[tuple[str, str | bytes | None]] | None) -> MessageInfo:
    """Read the headers of a message.

    Raises UnknownSchemaError when the schema version is missing or is not one that this program can read: what the
    message holds is then unknown, and skipping it would lose it.
    """
    found = {name: value for name, value in pairs or () if isinstance(value, bytes)}
    version = found.get("schema")
    if version is None or _number(version) != SCHEMA_VERSION:
        said = (
            "has no schema version"
            if version is None
            else f"has schema version {version[:20].decode('ascii', 'replace')}"
        )
        raise UnknownSchemaError(
            f"the message {said}, and this program reads version {SCHEMA_VERSION}:"
            " run a version of Sluiceway that knows it, or remove what is not ours from the topic"
        )
    return MessageInfo(
        schema=SCHEMA_VERSION,
        content_type=(found.get("content-type") or b"").decode("ascii", "replace"),
        records=_number(found.get("records", b"")),
        heartbeat="heartbeat" in found,
    )


def _number(digits: bytes) -> int | None:
    """A number of up to 18 digits, as a header has it; anything else is none."""
    return int(digits) if digits.isdigit() and len(digits) <= 18 else None


def decode(value: bytes | pa.Buffer, columns: Mapping[str, Column] = COLUMN) -> pa.Table:
    """Return the rows of one message, columns as its producer made them; no copy is made of the value.

    ``columns`` are those of the topic, by name. Raises CorruptMessageError. Columns that are among them have their
    type; others are as they came.
    """
    try:
        with pa.ipc.open_stream(value) as reader:
            table = reader.read_all()
        # In full: columns that point beyond their memory would take the process with them. It costs a tenth of reading.
        table.validate(full=True)
        for position in _positions_of_text(table.schema, columns):
            table = _without_null_values(table, position)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise CorruptMessageError(f"not a readable Arrow stream: {error}") from error
    return table


@dataclass(frozen=True, slots=True)
class _Looked:
    """A layout of messages that was found right, and where its dictionaries are."""

    schema: pa.Schema
    columns: Mapping[str, Column]
    text: tuple[int, ...]


_LOOKED: Final[dict[tuple[str, ...], _Looked]] = {}
"""The latest layout of each set of names: messages of one producer look alike, and looking costs more than reading."""
MOST_LOOKED: Final = 256
"""Layouts that are remembered; one more, and all are forgotten."""


def _positions_of_text(schema: pa.Schema, columns: Mapping[str, Column]) -> tuple[int, ...]:
    """Where a message of known columns has dictionaries. Raises CorruptMessageError when it is none of these columns."""
    names = tuple(schema.names)
    looked = _LOOKED.get(names)
    if looked is None or looked.columns is not columns or not looked.schema.equals(schema):
        looked = _Looked(schema, columns, _look(schema, names, columns))
        if len(_LOOKED) >= MOST_LOOKED:
            _LOOKED.clear()
        _LOOKED[names] = looked
    return looked.text


def _look(schema: pa.Schema, names: Sequence[str], columns: Mapping[str, Column]) -> tuple[int, ...]:
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CorruptMessageError(f"column {twice} stands there more than once")
    text = []
    for position, field in enumerate(schema):
        known = columns.get(field.name)
        if known is None:
            continue
        if known.type != field.type:
            raise CorruptMessageError(f"column {field.name} is {field.type}, where {known.type} is known")
        if pa.types.is_dictionary(field.type):
            text.append(position)
    return tuple(text)


def _without_null_values(table: pa.Table, position: int) -> pa.Table:
    """A null may also be told as a value of the dictionary that is null, which Arrow cannot unify with others."""
    column = table.column(position)
    if not any(chunk.dictionary.null_count for chunk in column.chunks):
        return table
    field = table.schema.field(position)
    told = column.cast(field.type.value_type).dictionary_encode().cast(field.type)
    return table.set_column(position, field, told)


def merge(tables: Sequence[pa.Table], columns: Mapping[str, Column] = COLUMN) -> pa.Table:
    """Return one table of all rows, in order of schema and then of appearance.

    The columns are the union of those that the tables have, in the order of ``columns``; what is not among these is
    left out. Each column comes in one chunk, with one dictionary.
    """
    parts = [_ordered(pa.concat_tables([tables[number] for number in group]), columns) for group in _by_schema(tables)]
    if not parts:
        return pa.schema([]).empty_table()
    whole = parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="default")
    return _ordered(whole, columns).unify_dictionaries().combine_chunks()


def merged_rows(tables: Sequence[pa.Table]) -> npt.NDArray[np.int64] | None:
    """Return where :func:`merge` puts each row of the tables, one table after the other; None: just there."""
    groups = _by_schema(tables)
    if len(groups) <= 1:
        return None
    starts, at = {}, 0
    for number in itertools.chain.from_iterable(groups):
        starts[number] = at
        at += tables[number].num_rows
    return np.concatenate([starts[number] + np.arange(table.num_rows) for number, table in enumerate(tables)])


def _by_schema(tables: Sequence[pa.Table]) -> list[list[int]]:
    """The numbers of the tables of each schema, in order of appearance."""
    groups: list[list[int]] = []
    # A schema hashes a hundred times slower than it compares, and names tell nearly all of them apart.
    named: dict[tuple[str, ...], list[list[int]]] = {}
    for number, table in enumerate(tables):
        schema = table.schema
        alike = named.setdefault(tuple(schema.names), [])
        group = next((one for one in alike if tables[one[0]].schema.equals(schema)), None)
        if group is None:
            group = []
            groups.append(group)
            alike.append(group)
        group.append(number)
    return groups


def _ordered(table: pa.Table, columns: Mapping[str, Column]) -> pa.Table:
    have = set(table.column_names)
    names = [name for name in columns if name in have]
    return table if names == table.column_names else table.select(names)
