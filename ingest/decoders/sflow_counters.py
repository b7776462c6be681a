"""sFlow version 5: counter samples, one row each with what all of their records tell (sflow.org, sFlow version 5).

As with flow samples, all of a batch are walked in lockstep: the records of all samples are found at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders.context import Options
from ingest.decoders.enrich import Fact, Kind, exporter_keys
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.headers import Headers, Index, windows, word32
from ingest.decoders.lookup import mix
from ingest.decoders.result import Decoded
from ingest.decoders.samples import SampleNumbers
from ingest.decoders.sflow_counter_elements import COUNTED, STRUCTURES
from ingest.decoders.sflow_elements import EXPANDED_COUNTERS_SAMPLE, SampleKind
from ingest.decoders.sflow_structures import Sheet, put_records
from ingest.decoders.xdr import Tagged, find_tagged

IF_INDEX: Final = 0
"""The class of a source that is an interface."""
COMPACT_BYTES: Final = 12
"""Of a sample before its records: sequence number, source, count."""
EXPANDED_BYTES: Final = 16
"""The same, with class and index of the source in words of their own."""

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def decode_counters(
    buffer: Octets, headers: Headers, samples: Tagged, options: Options | None, decoded: Decoded
) -> Mask:
    """Decode counter samples of both forms; ``samples.row`` is the row of their datagram in ``headers``.

    Names of interfaces are learned by ``options``. Returns which samples were made rows; the others are too short.
    """
    expanded = samples.tag == EXPANDED_COUNTERS_SAMPLE
    whole = samples.length >= np.where(expanded, EXPANDED_BYTES, COMPACT_BYTES)
    decoded.fault(Fault.BAD_LENGTH, Unit.SETS, ~whole)
    samples, expanded = samples.take(whole), expanded[whole]
    if len(samples) == 0:
        return whole
    head = windows(buffer, samples.start, EXPANDED_BYTES)
    source = word32(head, 4)
    sheet = Sheet(len(samples))
    _put_sample(sheet, headers, samples.row)
    every = np.arange(sheet.count)
    source_class = np.where(expanded, source, source >> 24)
    source_index = np.where(expanded, word32(head, 8), source & 0xFFFFFF)
    sequence = word32(head, 0)
    decoded.samples.append(
        SampleNumbers(SampleKind.COUNTERS, headers, samples.row, source_class, source_index, sequence, None)
    )
    sheet.put("source_id_class", every, source_class)
    sheet.put("source_id_index", every, source_index)
    sheet.put("sample_sequence_num", every, sequence)
    sheet.put("if_index", every, source_index, (source_class == IF_INDEX) & (source_index > 0))
    records, beyond, short = find_tagged(
        buffer,
        samples.start + np.where(expanded, EXPANDED_BYTES, COMPACT_BYTES),
        samples.start + samples.length,
        np.where(expanded, word32(head, 12), word32(head, 8)).astype(np.int64),
    )
    decoded.fault(Fault.TRUNCATED, Unit.SETS, beyond)
    decoded.oddity(Oddity.COUNT_MISMATCH, short)
    known = np.isin(records.tag, list(STRUCTURES))
    decoded.skip("counter record", records.tag[~known], COUNTED)
    for tag in np.unique(records.tag[known]).tolist():
        put_records(sheet, buffer, tag, records.take(records.tag == tag), decoded)
    batch = sheet.batch()
    decoded.counters.append(batch)
    if options is not None:
        decoded.facts.extend(options.learn(_port_names(batch, headers.source[samples.row], options)))
    return whole


def _put_sample(sheet: Sheet, headers: Headers, rows: Index) -> None:
    """What the datagram tells."""
    every = np.arange(sheet.count)
    sheet.put("time_received", every, headers.received_ns[rows])
    sheet.put("sampler_address", every, headers.source[rows])
    sheet.put("observation_domain_id", every, headers.domain[rows])
    sheet.put("sequence_num", every, headers.sequence[rows])
    if headers.uptime_ms is not None:
        sheet.put("uptime_ms", every, headers.uptime_ms[rows])


def _port_names(batch: pa.RecordBatch, agents: Octets, options: Options) -> Iterator[Fact]:
    """Names of interfaces that are not known yet, or are known by another name."""
    if "port_name" not in batch.schema.names or "if_index" not in batch.schema.names:
        return
    names, interfaces = batch.column("port_name"), batch.column("if_index")
    told = pc.and_(names.is_valid(), interfaces.is_valid())
    enrichment = options.enrichment
    numbers = interfaces.fill_null(0).to_numpy(zero_copy_only=False)
    known = enrichment.names(Kind.INTERFACE_NAME, mix(exporter_keys(agents, enrichment.seed), numbers))
    if known is not None:
        same = pc.equal(known.dictionary_decode(), names.dictionary_decode()).fill_null(False)
        told = pc.and_(told, pc.invert(same))
    which = np.flatnonzero(told.to_numpy(zero_copy_only=False))
    texts = names.take(pa.array(which)).dictionary_decode().to_pylist()
    for row, text in zip(which.tolist(), texts, strict=True):
        yield Fact(Kind.INTERFACE_NAME, agents[row].tobytes(), 0, 0, int(numbers[row]), text)
