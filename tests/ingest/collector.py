"""A pipeline that is fed by hand, and records as plain values: what tests of decoding ask and compare."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

from ingest.decoders import Datagrams, Decoded, Fault, Oddity, Unit
from ingest.decoders.mapping import FieldMapping
from ingest.parking import ParkingBounds
from ingest.pipeline import Pipeline
from ingest.samples import GatheredSamples
from ingest.statistics import read_statistics
from ingest.templates import TemplateBounds
from shared.record import COLUMN, POSITION
from tests.builders import (
    UNIX_SECONDS,
    data_set,
    ipfix_message,
    ipfix_templates,
    mapped,
    template,
    v9_datagram,
    v9_templates,
)

EXPORTER: Final = mapped("192.0.2.100")
RECEIVED_NS: Final = UNIX_SECONDS * 1_000_000_000 + 123_456_789
"""When datagrams are received, unless a test says otherwise: shortly after they were exported."""
TEMPLATE: Final = 256
FROM_THE_DATAGRAM: Final = frozenset(
    {
        "type",
        "record_id",
        "time_received",
        "time_exported",
        "sampler_address",
        "observation_domain_id",
        "sequence_num",
        "time_flow_start",
        "time_flow_end",
        "flows",
    }
)
"""Columns that every record has, whatever its template, but for those that its protocol does not tell."""
UNTOLD: Final = {
    # An sFlow agent does not say what time it is, and the oldest exporters not who of them it is.
    "SFLOW_5": frozenset({"time_exported"}),
    "NETFLOW_V1": frozenset({"observation_domain_id", "sequence_num"}),
    "NETFLOW_V7": frozenset({"observation_domain_id"}),
}

Row = dict[str, Any]


def packed(payloads: Sequence[bytes], source: bytes = EXPORTER, received_ns: int = RECEIVED_NS) -> Datagrams:
    """Datagrams of one exporter, received at one time."""
    count = len(payloads)
    return Datagrams.pack(payloads, [source] * count, [50000] * count, [received_ns] * count)


class Collector:
    """A pipeline that takes payloads. Every batch that it makes is checked, and no warning may come of any."""

    def __init__(
        self,
        templates: TemplateBounds | None = None,
        parking: ParkingBounds | None = None,
        decapsulate: Collection[str] = (),
        mapping: FieldMapping | None = None,
    ) -> None:
        self.pipeline = Pipeline(templates, parking, decapsulate, mapping)

    def feed(self, *payloads: bytes, source: bytes = EXPORTER, received_ns: int = RECEIVED_NS) -> Decoded:
        """Decode datagrams as one batch."""
        return self.take(packed(payloads, source, received_ns))

    def take(self, datagrams: Datagrams) -> Decoded:
        """Decode a batch."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return checked(self.pipeline.decode(datagrams))


def checked(decoded: Decoded) -> Decoded:
    """What was decoded, when all of it is sound."""
    for batch in decoded.batches:
        check(batch)
    for options in decoded.options:
        options.batch.validate(full=True)
    GatheredSamples().add(decoded.samples)
    read_statistics(decoded.options)
    assert not decoded.pending
    return decoded


def check(batch: pa.RecordBatch) -> None:
    """A batch is sound, and its columns are the record's, with its types and in its order, none twice."""
    batch.validate(full=True)
    names = batch.schema.names
    assert [field.type for field in batch.schema] == [COLUMN[name].type for name in names]
    places = [POSITION[name] for name in names]
    assert places == sorted(set(places))
    (protocol,) = set(batch.column("type").to_pylist())
    assert set(names) >= FROM_THE_DATAGRAM - UNTOLD.get(protocol, frozenset())
    assert batch.num_rows > 0


def rows(batches: Decoded | Iterable[pa.RecordBatch]) -> list[Row]:
    """Records as dictionaries without what is null; times as numbers in the unit of their column."""
    found: list[Row] = []
    for batch in batches.batches if isinstance(batches, Decoded) else batches:
        columns = {
            field.name: (
                batch.column(at).cast(pa.int64()) if pa.types.is_timestamp(field.type) else batch.column(at)
            ).to_pylist()
            for at, field in enumerate(batch.schema)
        }
        found.extend(
            {name: values[index] for name, values in columns.items() if values[index] is not None}
            for index in range(batch.num_rows)
        )
    return found


def told(row: Row) -> Row:
    """What the record's own fields told: a row without the columns that every record has."""
    return {name: value for name, value in row.items() if name not in FROM_THE_DATAGRAM}


def one(batches: Decoded | Iterable[pa.RecordBatch]) -> Row:
    """The only record."""
    (row,) = rows(batches)
    return row


def in_order(batches: Decoded | Iterable[pa.RecordBatch]) -> list[Row]:
    """Records as a set: in the order of their identifiers, which do not depend on how they came.

    A datagram that came twice and was read by two templates has each of them twice.
    """
    return sorted(rows(batches), key=lambda row: (row["record_id"], repr(row)))


def faults(decoded: Decoded) -> dict[tuple[Fault, Unit], int]:
    """What could not be decoded."""
    return dict(decoded.faults)


def nothing_wrong(decoded: Decoded) -> bool:
    """Whether nothing was lost and nothing was odd."""
    return decoded.faults == Counter[tuple[Fault, Unit]]() and decoded.oddities == Counter[Oddity]()


def flows(version: int, fields: Sequence[bytes], *records: bytes, padding: int = 0) -> bytes:
    """A datagram of NetFlow v9 or IPFIX with a template of these fields, and a set of records that it describes."""
    described = template(TEMPLATE, *fields)
    described_set = v9_templates(described) if version == 9 else ipfix_templates(described)
    return message(version, described_set, data_set(TEMPLATE, *records, padding=padding))


def message(version: int, *sets: bytes) -> bytes:
    """A datagram of NetFlow v9 or IPFIX with these sets."""
    return v9_datagram(*sets) if version == 9 else ipfix_message(*sets)
