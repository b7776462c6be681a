"""Data sets to message and back: an Arrow stream with a row a set, all of one exporter.

A row has all that decoding needs, so that it gives the same records as it would have given at once, with the same
``record_id``: the bytes of the set, what the header of its datagram told, the hash of the datagram, and where in the
datagram the set lay.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders.headers import Headers
from ingest.decoders.layout import FIRST_DATA_SET
from ingest.decoders.sets import DataSets
from ingest.decoders.templates import template_keys
from shared import codec
from shared.codec import CorruptMessageError
from shared.record import ADDRESS, TIME, Column
from shared.text import format_addresses

MESSAGE_BYTES: Final = 262_144
"""Sets of one exporter that leave together share a message of about this size."""

ROW_BYTES: Final = 80
"""What a set takes in a message beside its bytes, or a little more."""

STREAM_BYTES: Final = 3072
"""What a message takes however few sets it has, or a little more."""

EXPORTER: Final = "exporter"
FIRST_PARKED: Final = "first-parked"
"""Headers beside those of every message: the exporter as text; and when the first of the sets began to wait, which is
when it was received, in nanoseconds since 1970."""

COLUMNS: Final[tuple[Column, ...]] = (
    Column("version", pa.uint8(), "9 for NetFlow v9, 10 for IPFIX", "header"),
    Column("sampler_address", ADDRESS, "the exporter: source address of the datagram", "UDP source"),
    Column("source_port", pa.uint16(), "source port of the datagram", "UDP source"),
    Column("observation_domain_id", pa.uint32(), "IPFIX observation domain, v9 source id", "header"),
    Column("sequence_num", pa.uint32(), "sequence number of the datagram", "header"),
    Column("time_exported", TIME, "the exporter's own clock when it sent the datagram", "header"),
    Column("uptime_ms", pa.uint32(), "the exporter's uptime then; null for IPFIX", "header"),
    Column("time_received", TIME, "when the datagram was received, and so when the set began to wait", "socket"),
    Column("datagram_hash", pa.uint64(), "hash of exporter and datagram, which record ids are made of", "datagram"),
    Column("offset", pa.uint32(), "where the set's body begins in its datagram", "datagram", "bytes"),
    Column("template_id", pa.uint16(), "the template that it waits for", "set header"),
    Column("body", pa.binary(), "the set, without its header", "datagram"),
)
COLUMN: Final = MappingProxyType({column.name: column for column in COLUMNS})

VERSIONS: Final = (9, 10)
LONGEST: Final = 0xFFFF
"""No set is longer than a datagram."""


def messages(parts: list[DataSets]) -> Iterator[DataSets]:
    """The sets of one exporter and protocol, cut to what one message takes, in their order."""
    whole = DataSets.join(parts)
    end = np.cumsum(whole.length + ROW_BYTES)
    begin = 0
    while begin < len(whole):
        before = int(end[begin - 1]) if begin else 0
        until = max(begin + 1, int(np.searchsorted(end, before + MESSAGE_BYTES, "right")))
        yield whole.take(np.arange(begin, until))
        begin = until


def encode(sets: DataSets) -> pa.Buffer:
    """The value of a message with these sets, of which there is one at least."""
    headers = sets.headers
    count = len(sets)
    bodies = sets.bodies()
    offsets = np.concatenate([[0], np.cumsum(sets.length)]).astype(np.int32)
    ids = np.frombuffer(b"".join(key[-2:] for key in sets.keys), ">u2").astype(np.uint16)
    uptime = pa.nulls(count, pa.uint32()) if headers.uptime_ms is None else pa.array(headers.uptime_ms)
    made = {
        "version": pa.array(np.full(count, headers.version, np.uint8)),
        "sampler_address": pa.Array.from_buffers(ADDRESS, count, [None, pa.py_buffer(headers.source.tobytes())]),
        "source_port": pa.array(headers.source_port),
        "observation_domain_id": pa.array(headers.domain),
        "sequence_num": pa.array(headers.sequence),
        "time_exported": pa.array(headers.exported_ns).cast(TIME),
        "uptime_ms": uptime,
        "time_received": pa.array(headers.received_ns).cast(TIME),
        "datagram_hash": pa.array(headers.identity),
        "offset": pa.array(sets.position.astype(np.uint32)),
        "template_id": pa.array(ids),
        "body": pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(bodies)]),
    }
    return codec.encode(pa.RecordBatch.from_pydict(made))


def headers(sets: DataSets, producer: str) -> codec.Headers:
    """The headers of a message with these sets."""
    return [
        *codec.headers(len(sets), producer),
        (EXPORTER, exporter_text(sets).encode()),
        (FIRST_PARKED, b"%d" % int(sets.headers.received_ns.min())),
    ]


def exporter_text(sets: DataSets) -> str:
    """The address of the exporter that the first of these sets is of: the key of their message."""
    address = pa.Array.from_buffers(ADDRESS, 1, [None, pa.py_buffer(sets.headers.source[0].tobytes())])
    text: str = format_addresses(address)[0].as_py()
    return text


def decode(value: bytes) -> list[DataSets]:
    """The sets of a message, a part a protocol.

    Raises CorruptMessageError when it has not all columns, or values that no set of ours has.
    """
    table = codec.decode(value, COLUMN)
    missing = [name for name in COLUMN if name not in table.column_names]
    if missing:
        raise CorruptMessageError(f"column {missing[0]} is missing")
    batches = table.select(list(COLUMN)).combine_chunks().to_batches()
    return [part for batch in batches for part in _parts(batch)]


def _parts(batch: pa.RecordBatch) -> Iterator[DataSets]:
    version = _numbers(batch, "version")
    number, length = _numbers(batch, "template_id"), pc.binary_length(batch.column("body"))
    if not np.isin(version, VERSIONS).all():
        raise CorruptMessageError("a set of another protocol than NetFlow v9 or IPFIX")
    if (number < FIRST_DATA_SET).any() or (_numbers(batch, "offset") > LONGEST).any():
        raise CorruptMessageError("a set with a template id or a place that no data set has")
    if length.null_count or (length.to_numpy(zero_copy_only=False) > LONGEST).any():
        raise CorruptMessageError("a set without bytes, or with more than a datagram has")
    for protocol in np.unique(version).tolist():
        which = np.flatnonzero(version == protocol)
        yield _sets(batch if len(which) == len(version) else batch.take(pa.array(which)), protocol)


def _sets(batch: pa.RecordBatch, version: int) -> DataSets:
    body = batch.column("body")
    ends = np.frombuffer(body.buffers()[1], np.int32)[body.offset :][: len(body) + 1].astype(np.int64)
    octets = body.buffers()[2]
    address = batch.column("sampler_address")
    if address.null_count:
        raise CorruptMessageError("a set without an exporter")
    addresses = np.frombuffer(address.buffers()[1], np.uint8, 16 * len(address), 16 * address.offset)
    source = addresses.reshape(-1, 16).copy()
    domain = _numbers(batch, "observation_domain_id")
    return DataSets(
        buffer=np.zeros(0, np.uint8) if octets is None else np.frombuffer(octets, np.uint8),
        headers=Headers(
            version=version,
            source=source,
            domain=domain,
            sequence=_numbers(batch, "sequence_num"),
            exported_ns=_numbers(batch, "time_exported"),
            uptime_ms=_numbers(batch, "uptime_ms") if version == 9 else None,
            received_ns=_numbers(batch, "time_received"),
            identity=_numbers(batch, "datagram_hash"),
            source_port=_numbers(batch, "source_port"),
        ),
        start=ends[:-1],
        length=np.diff(ends),
        position=_numbers(batch, "offset").astype(np.int64),
        keys=template_keys(source, version, domain, _numbers(batch, "template_id")),
    )


def _numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """A column of numbers or times, none of which is null."""
    column = batch.column(name)
    if column.null_count:
        raise CorruptMessageError(f"column {name} has a null")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    numbers: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers
