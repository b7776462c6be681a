"""sFlow version 5: samples of packets, all of a batch walked in lockstep (sflow.org, sFlow version 5).

Everything is XDR: 32-bit words, big-endian. An exporter is its agent address and sub-agent, not the UDP source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.decoders import columns, frame
from ingest.decoders import sflow_elements as kinds
from ingest.decoders.addresses import mapped
from ingest.decoders.context import Context
from ingest.decoders.datagrams import Datagrams
from ingest.decoders.enrich import exporter_keys
from ingest.decoders.fault import Fault, Oddity, Unit
from ingest.decoders.frame import Cells
from ingest.decoders.headers import Headers, Heard, Index, identities, windows, word32
from ingest.decoders.origin import Origin, common_columns, ordered
from ingest.decoders.result import Decoded
from ingest.decoders.samples import SampleNumbers
from ingest.decoders.sflow_counters import decode_counters
from ingest.decoders.xdr import Tagged, among, find_tagged
from shared.record import COLUMN

VERSION: Final = 0
"""The first 16 bits of a datagram: sFlow's version is a word of 32, of which these are the upper half."""
LONGEST_HEADER_BYTES: Final = 40
"""Of a datagram, with an IPv6 agent address."""
LONGEST_FRAME_BYTES: Final = 512
"""Of a sampled header this much is dissected; agents send 128 and rarely more than 256."""
ADDRESS_BYTES: Final = 20
"""An address type and the longest address."""
MOST_SEGMENTS: Final = 16
"""Segments of an AS path; one that counts more is not read."""

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SampleForm:
    """Where the words of a sample's fixed part stand; -1 for those that it does not have."""

    words: int
    drops: int
    rate: int
    input: int
    output: int
    records: int
    reason: int = -1
    expanded: bool = False
    kind: kinds.SampleKind = kinds.SampleKind.FLOW

    def numbers(self, headers: Headers, row: Index, words: Words) -> SampleNumbers:
        """How samples of this form are numbered: of datagrams ``row``, [n, words]."""
        if self.expanded or self.kind is kinds.SampleKind.DISCARDED:
            source_class, source_index = words[:, 1], words[:, 2]
        else:
            source_class, source_index = words[:, 1] >> 24, words[:, 1] & 0xFFFFFF
        return SampleNumbers(self.kind, headers, row, source_class, source_index, words[:, 0], words[:, self.drops])


FORMS: Final = {
    kinds.FLOW_SAMPLE: SampleForm(words=8, drops=4, rate=2, input=5, output=6, records=7),
    kinds.EXPANDED_FLOW_SAMPLE: SampleForm(words=11, drops=5, rate=3, input=6, output=8, records=10, expanded=True),
    kinds.DISCARDED_PACKET: SampleForm(
        words=8, drops=3, rate=-1, input=4, output=5, records=7, reason=6, kind=kinds.SampleKind.DISCARDED
    ),
}


COUNTERS_SAMPLES: Final = (kinds.COUNTERS_SAMPLE, kinds.EXPANDED_COUNTERS_SAMPLE)


class _Sheet:
    """Columns of n samples, filled piece by piece; what is put later counts."""

    def __init__(self, count: int, decoded: Decoded) -> None:
        self.count = count
        self.cells: dict[str, Cells] = {}
        self._decoded = decoded

    def put(self, column: str, at: Index, values: npt.NDArray[np.integer], valid: Mask | None = None) -> None:
        """Set a column at rows ``at`` where ``valid``; ``values`` are [len(at)], or [len(at), width] octets.

        Rows are distinct and ascending. A value that is too large for the column is left out and counted.
        """
        dtype = np.dtype(np.uint8) if values.ndim == 2 else _dtype(column)
        if values.dtype.itemsize > dtype.itemsize:
            fits = values <= np.iinfo(dtype).max
            if not fits.all():
                self._decoded.oddity(Oddity.OUT_OF_RANGE, ~fits if valid is None else valid & ~fits)
                valid = fits if valid is None else valid & fits
        if len(at) == self.count:
            self._put_all(column, values, valid, dtype)
            return
        if valid is not None:
            at, values = at[valid], values[valid]
        if len(at) == 0:
            return
        cells = self.cells.get(column)
        if cells is None:
            blank = np.zeros((self.count, *values.shape[1:]), dtype)
            cells = self.cells[column] = Cells(blank, np.zeros(self.count, np.bool_))
        cells.values[at] = values
        cells.valid[at] = True

    def put_cells(self, column: str, at: Index, cells: Cells) -> None:
        """The same with cells that nobody else keeps, whose values have the type of the column."""
        if len(at) < self.count or column in self.cells:
            self.put(column, at, cells.values, cells.valid)
        elif np.count_nonzero(cells.valid):
            self.cells[column] = cells

    def _put_all(
        self, column: str, values: npt.NDArray[np.integer], valid: Mask | None, dtype: np.dtype[np.integer]
    ) -> None:
        """The same for all rows, which needs no look at each: most samples have one record of a kind."""
        told = self.count if valid is None else np.count_nonzero(valid)
        if valid is None or told == self.count:
            self.cells[column] = Cells(values.astype(dtype), np.ones(self.count, np.bool_))
            return
        if told == 0:
            return
        where = valid[:, None] if values.ndim == 2 else valid
        cells = self.cells.get(column)
        if cells is None:
            self.cells[column] = Cells(np.where(where, values, 0).astype(dtype), valid.copy())
        else:
            np.copyto(cells.values, values, where=where, casting="unsafe")
            np.logical_or(cells.valid, valid, out=cells.valid)

    def fault(self, fault: Fault, where: Mask) -> None:
        """Count records that could not be read, or not to their end."""
        self._decoded.fault(fault, Unit.SETS, where)

    def out_of_range(self, where: Mask) -> None:
        """Count values that no column can have."""
        self._decoded.oddity(Oddity.OUT_OF_RANGE, where)

    def has(self, column: str) -> Mask:
        """Which rows have a value."""
        cells = self.cells.get(column)
        return np.zeros(self.count, np.bool_) if cells is None else cells.valid

    def arrays(self) -> dict[str, pa.Array]:
        """The columns that have any value."""
        return {
            name: columns.primitive(
                cells.values,
                COLUMN[name].type,
                None if np.count_nonzero(cells.valid) == self.count else cells.valid,
            )
            for name, cells in self.cells.items()
        }


@cache
def _dtype(column: str) -> np.dtype[np.integer]:
    """How numpy holds the values of a column."""
    type_ = COLUMN[column].type
    return np.dtype(f"{'i' if pa.types.is_timestamp(type_) else 'u'}{type_.bit_width // 8}")


def decode_sflow5(datagrams: Datagrams, rows: Index, context: Context, decoded: Decoded) -> None:
    """Decode the datagrams of these rows into ``decoded``: flow samples to records, counter samples to counters."""
    length = datagrams.length[rows]
    begin = datagrams.offset[rows]
    head = windows(datagrams.buffer, begin, LONGEST_HEADER_BYTES)
    family = word32(head, 4)
    address = np.where(family == 1, 4, np.where(family == 2, 16, 0))
    header_bytes = 8 + address + 16
    sane = family <= 2
    decoded.fault(Fault.BAD_LENGTH, Unit.DATAGRAMS, (length >= 8) & ~sane)
    decoded.fault(Fault.TRUNCATED, Unit.DATAGRAMS, (length < 8) | (sane & (length < header_bytes)))
    keep = sane & (length >= header_bytes)
    rows, begin, length, head = rows[keep], begin[keep], length[keep], head[keep]
    address, header_bytes = address[keep], header_bytes[keep]
    if len(rows) == 0:
        return
    agent = _agents(head, address, datagrams.source[rows])
    tail = windows(datagrams.buffer, begin + 8 + address, 16)
    headers = Headers(
        version=VERSION,
        source=agent,
        domain=word32(tail, 0),
        sequence=word32(tail, 4),
        exported_ns=datagrams.received_ns[rows],
        uptime_ms=word32(tail, 8),
        received_ns=datagrams.received_ns[rows],
        identity=identities(datagrams, rows, agent),
        source_port=datagrams.source_port[rows],
    )
    end = begin + length
    batch = _Batch(datagrams.buffer, headers, begin, datagrams.source[rows], context)
    samples, beyond, short = find_tagged(datagrams.buffer, begin + header_bytes, end, word32(tail, 12).astype(np.int64))
    decoded.fault(Fault.TRUNCATED, Unit.SETS, beyond)
    decoded.oddity(Oddity.COUNT_MISMATCH, short)
    records = np.zeros(len(rows), np.int64)
    undecoded = beyond.astype(np.int64)
    # Counters first: the names that they tell hold for the flows that came with them.
    counters = samples.take(among(samples.tag, COUNTERS_SAMPLES))
    if len(counters):
        counted = decode_counters(datagrams.buffer, headers, counters, context.options, decoded)
        undecoded += np.bincount(counters.row[~counted], minlength=len(rows))
    for tag, form in FORMS.items():
        which = samples.take(samples.tag == tag)
        if len(which):
            made = _decode_samples(batch, which, form, decoded)
            records += np.bincount(which.row[made], minlength=len(rows))
            undecoded += np.bincount(which.row[~made], minlength=len(rows))
    known = among(samples.tag, (*FORMS, *COUNTERS_SAMPLES))
    decoded.skip("sample", samples.tag[~known], frozenset())
    decoded.heard.append(
        Heard(
            version=VERSION,
            source=agent,
            domain=headers.domain,
            sequence=headers.sequence,
            units=np.ones(len(rows), np.uint32),
            exact=np.ones(len(rows), np.bool_),
            records=records.astype(np.uint32),
            undecoded=undecoded.astype(np.uint32),
            uptime_ms=headers.uptime_ms,
            received_ns=headers.received_ns,
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """The datagrams of a batch: one row each."""

    buffer: Octets
    headers: Headers
    begin: Index
    udp_source: Octets
    context: Context


def _agents(head: Octets, address: Index, source: Octets) -> Octets:
    """Agent addresses of 16 bytes; the UDP source where the agent does not say."""
    four = mapped(head[:, 8:12])
    if (address == 4).all():
        return four
    agent = np.where((address == 4)[:, None], four, head[:, 8:24])
    return np.where((address == 0)[:, None], source, agent)


def _decode_samples(batch: _Batch, samples: Tagged, form: SampleForm, decoded: Decoded) -> Mask:
    """Decode samples of one form; returns which were made records, the others are too short to be one."""
    whole = samples.length >= 4 * form.words
    decoded.fault(Fault.BAD_LENGTH, Unit.SETS, ~whole)
    kept = samples.take(whole)
    if len(kept) == 0:
        return whole
    words = _words(batch.buffer, kept.start, form.words)
    decoded.samples.append(form.numbers(batch.headers, kept.row, words))
    sheet = _Sheet(len(kept), decoded)
    _put_fixed(sheet, words, form)
    end = kept.start + kept.length
    records, beyond, short = find_tagged(batch.buffer, kept.start + 4 * form.words, end, words[:, form.records])
    decoded.fault(Fault.TRUNCATED, Unit.SETS, beyond)
    decoded.oddity(Oddity.COUNT_MISMATCH, short)
    lists = _put_records(sheet, batch, records, decoded)
    every = np.arange(sheet.count)
    origin = Origin.spread(batch.headers, kept.row, kept.start - batch.begin[kept.row])
    differs = _differ(batch.udp_source, batch.headers.source)
    if np.count_nonzero(differs):
        sheet.put("source_address", every, batch.udp_source.take(kept.row, axis=0), differs.take(kept.row))
    sheet.put("packets", every, np.ones(sheet.count, np.uint64))
    sheet.put("flows", every, np.ones(sheet.count, np.uint64))
    for column in ("time_flow_start", "time_flow_end"):
        sheet.put(column, every, origin.received_ns, ~sheet.has(column))
    made = common_columns(VERSION, origin) | sheet.arrays() | lists
    # An sFlow agent does not say what time it is.
    del made["time_exported"]
    options = batch.context.options
    if options is not None and len(options.enrichment):
        options.enrichment.join(made, exporter_keys(batch.headers.source, options.enrichment.seed), kept.row)
    decoded.batches.append(ordered(made))
    return whole


def _words(buffer: Octets, start: Index, count: int) -> Words:
    """The first ``count`` words of structures, [n, count]; zeros beyond the buffer."""
    return windows(buffer, start, 4 * count).view(">u4").astype(np.int64)


def _put_fixed(sheet: _Sheet, words: Words, form: SampleForm) -> None:
    """What the fixed part of a sample says: the rate, the interfaces, and why a packet was discarded."""
    every = np.arange(sheet.count)
    if form.rate >= 0:
        sheet.put("sampling_rate", every, words[:, form.rate], words[:, form.rate] > 0)
    in_form, in_value = _interface(words, form.input, form)
    sheet.put("in_if", every, in_value, (in_form == 0) & (in_value != 0))
    out_form, out_value = _interface(words, form.output, form)
    sheet.put("out_if", every, out_value, (out_form == 0) & (out_value != 0))
    if form.reason >= 0:
        discarded, reason = np.ones(sheet.count, np.bool_), words[:, form.reason]
    else:
        discarded, reason = out_form == 1, out_value
        sheet.put("forwarding_status", every, np.full(sheet.count, kinds.FORWARDED), out_form == 2)
    if not discarded.any():
        return
    sheet.put("drop_reason", every, reason, discarded)
    status = np.full(sheet.count, kinds.DROPPED)
    for number, meaning in kinds.FORWARDING_STATUS.items():
        status[reason == number] = meaning
    sheet.put("forwarding_status", every, status, discarded)


def _interface(words: Words, at: int, form: SampleForm) -> tuple[Words, Words]:
    """Form and value of an interface: 0 an ifIndex, 1 discarded and why, 2 several and how many."""
    if form.expanded:
        number = words[:, at + 1]
        return words[:, at], np.where(number == kinds.EXPANDED_INTERNAL_INTERFACE, kinds.INTERNAL_INTERFACE, number)
    if form.reason >= 0:
        return np.zeros(len(words), np.int64), words[:, at]
    return words[:, at] >> 30, words[:, at] & 0x3FFFFFFF


def _put_records(sheet: _Sheet, batch: _Batch, records: Tagged, decoded: Decoded) -> dict[str, pa.Array]:
    """What the flow records of samples say; returns the columns that are lists or text."""
    lists: dict[str, pa.Array] = {}
    decoded.skip(
        "flow record",
        records.tag[~among(records.tag, RECORDS)],
        kinds.COUNTED_FLOW_RECORDS,
    )
    for tag, (shortest, put) in RECORDS.items():
        which = records.tag == tag
        if not which.any():
            continue
        found = records.take(which)
        whole = found.length >= shortest
        decoded.fault(Fault.BAD_LENGTH, Unit.SETS, ~whole)
        found = found.take(whole)
        if len(found):
            # Of a record that a sample has twice the last counts.
            put(sheet, batch, found.take(np.append(found.row[1:] != found.row[:-1], True)), lists)
    return lists


Put = Callable[[_Sheet, _Batch, Tagged, dict[str, pa.Array]], None]


def _put_sampled_header(sheet: _Sheet, batch: _Batch, found: Tagged, lists: dict[str, pa.Array]) -> None:
    """Record 1: protocol, length of the frame, octets stripped, and the first octets of the packet."""
    words = _words(batch.buffer, found.start, 4)
    whole = words[:, 3] <= found.length - 16
    sheet.fault(Fault.TRUNCATED, ~whole)
    found, words = found.take(whole), words[whole]
    if len(found) == 0:
        return
    sheet.put("bytes", found.row, words[:, 1])
    length = np.minimum(words[:, 3], LONGEST_FRAME_BYTES)
    frames = frame.dissect(batch.buffer, found.start + 16, length, words[:, 0], batch.context.decapsulate)
    for column, cells in frames.cells.items():
        sheet.put_cells(column, found.row, cells)
    if frames.labelled.any():
        labels = np.zeros((sheet.count, frames.labels.shape[1]), np.uint32)
        there = np.zeros(labels.shape, np.bool_)
        labels[found.row], there[found.row] = frames.labels, frames.labelled
        lists["mpls_labels"] = columns.number_lists(labels, there)


def _put_ethernet(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 2: length, both addresses with two octets of padding each, and the EtherType."""
    octets = windows(batch.buffer, found.start, 24)
    sheet.put("bytes", found.row, word32(octets, 0), ~sheet.has("bytes")[found.row])
    sheet.put("src_mac", found.row, octets[:, 4:10])
    sheet.put("dst_mac", found.row, octets[:, 12:18])
    sheet.put("etype", found.row, word32(octets, 20), ~sheet.has("etype")[found.row])


def _put_ip(width: int, etype: int) -> Put:
    """Records 3 and 4: an IPv4 or IPv6 packet in words; the addresses have ``width`` octets."""

    def put(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
        octets = windows(batch.buffer, found.start, 24 + 2 * width)
        row, after = found.row, 8 + 2 * width
        sheet.put("bytes", row, word32(octets, 0), ~sheet.has("bytes")[row])
        sheet.put("proto", row, word32(octets, 4))
        sheet.put("src_addr", row, _mapped(octets[:, 8 : 8 + width]))
        sheet.put("dst_addr", row, _mapped(octets[:, 8 + width : after]))
        sheet.put("src_port", row, word32(octets, after))
        sheet.put("dst_port", row, word32(octets, after + 4))
        sheet.put("tcp_flags", row, word32(octets, after + 8))
        sheet.put("ip_tos", row, word32(octets, after + 12))
        sheet.put("etype", row, np.full(len(row), etype))

    return put


def _put_vlan_tunnel(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1012: VLAN tags that were taken off before the header was sampled: they stand before those in it."""
    count = _words(batch.buffer, found.start, 1)[:, 0]
    fits = count <= (found.length - 4) // 4
    sheet.fault(Fault.TRUNCATED, ~fits)
    found, count = found.take(fits), count[fits]
    vlans = _words(batch.buffer, found.start + 4, 2) & 0xFFF
    in_the_header = sheet.cells.get("src_vlan")
    if in_the_header is not None:
        next_, there = in_the_header.values[found.row], in_the_header.valid[found.row]
        sheet.put("inner_vlan", found.row, next_, there & (count == 1))
    sheet.put("inner_vlan", found.row, vlans[:, 1], count > 1)
    sheet.put("src_vlan", found.row, vlans[:, 0], count > 0)


def _put_switch(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1001: VLAN and priority of both sides; all ones where the agent does not know."""
    words = _words(batch.buffer, found.start, 4)
    for column, at in (("src_vlan", 0), ("dst_vlan", 2)):
        sheet.put(column, found.row, words[:, at], words[:, at] <= 0xFFFF)


def _put_router(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1002: the next hop, and the lengths of both prefixes."""
    next_hop, told, after = _address(batch.buffer, found)
    sheet.put("next_hop", found.row, next_hop, told)
    words = _words(batch.buffer, after, 2)
    inside = after + 8 <= found.start + found.length
    sheet.fault(Fault.TRUNCATED, ~inside)
    for column, at in (("src_net_len", 0), ("dst_net_len", 1)):
        sheet.put(column, found.row, words[:, at], inside & (words[:, at] <= 128))


def _put_gateway(sheet: _Sheet, batch: _Batch, found: Tagged, lists: dict[str, pa.Array]) -> None:
    """Record 1003: the BGP next hop, the AS numbers, the path in segments, and the communities."""
    next_hop, told, at = _address(batch.buffer, found)
    end = found.start + found.length
    sheet.put("bgp_next_hop", found.row, next_hop, told)
    words = _words(batch.buffer, at, 4)
    whole = at + 16 <= end
    sheet.put("src_as", found.row, words[:, 1], whole)
    broken, segments = ~whole, words[:, 3]
    sheet.fault(Fault.BAD_COUNT, whole & (segments > MOST_SEGMENTS))
    whole &= segments <= MOST_SEGMENTS
    path, at, fits = _segments(batch.buffer, at + 16, end, np.where(whole, segments, 0))
    broken |= ~fits
    whole &= fits
    for number, (which, start, length) in enumerate(path):
        some = whole[which] & (length > 0)
        if number == 0:
            sheet.put("next_hop_as", found.row[which], _words(batch.buffer, start, 1)[:, 0], some)
        sheet.put("dst_as", found.row[which], _words(batch.buffer, start + 4 * (length - 1), 1)[:, 0], some)
    pieces = [(found.row[which], start, np.where(whole[which], length, 0)) for which, start, length in path]
    _put_numbers("as_path", sheet, batch.buffer, pieces, lists)
    there = np.flatnonzero(whole)
    count = _words(batch.buffer, at[there], 1)[:, 0]
    fits = count <= (end[there] - at[there] - 4) // 4
    broken[there[~fits]] = True
    sheet.fault(Fault.TRUNCATED, broken)
    there, count = there[fits], count[fits]
    _put_numbers("bgp_communities", sheet, batch.buffer, [(found.row[there], at[there] + 4, count)], lists)


def _segments(
    buffer: Octets, begin: Index, end: Index, count: Index
) -> tuple[list[tuple[Index, Index, Index]], Index, Mask]:
    """Find the segments of n AS paths, at most MOST_SEGMENTS each.

    Returns, for the first segment of all, the second and so on: of which paths it is, where its numbers begin, and how
    many they are; then, [n] each, where the path ends, and whether all of it lies before ``end``.
    """
    at, whole = begin.copy(), np.ones(len(begin), np.bool_)
    path: list[tuple[Index, Index, Index]] = []
    for number in range(MOST_SEGMENTS):
        here = np.flatnonzero(whole & (count > number))
        if len(here) == 0:
            break
        length = _words(buffer, at[here], 2)[:, 1]
        fits = length <= (end[here] - at[here] - 8) // 4
        whole[here[~fits]] = False
        here, length = here[fits], length[fits]
        path.append((here, at[here] + 8, length))
        at[here] += 8 + 4 * length
    return path, at, whole


def _put_user(sheet: _Sheet, batch: _Batch, found: Tagged, lists: dict[str, pa.Array]) -> None:
    """Record 1004: the users of both sides, a character set before each; the source's is the record's."""
    length = _words(batch.buffer, found.start, 2)[:, 1]
    whole = length <= found.length - 8
    sheet.fault(Fault.TRUNCATED, ~whole)
    found, length = found.take(whole), length[whole]
    start = np.zeros(sheet.count, np.int64)
    size = np.zeros(sheet.count, np.int64)
    start[found.row], size[found.row] = found.start + 8, length
    users = columns.text(batch.buffer, start, size)
    if users.null_count < len(users):
        lists["user_name"] = columns.names(users)


def _put_mpls(sheet: _Sheet, batch: _Batch, found: Tagged, lists: dict[str, pa.Array]) -> None:
    """Record 1006: the next hop, and the label stacks of both sides; the incoming one is the record's."""
    next_hop, told, at = _address(batch.buffer, found)
    sheet.put("next_hop", found.row, next_hop, told)
    count = _words(batch.buffer, at, 1)[:, 0]
    fits = count <= (found.start + found.length - at - 4) // 4
    sheet.fault(Fault.TRUNCATED, ~fits)
    stack = [(found.row[fits], at[fits] + 4, count[fits])]
    _put_numbers("mpls_labels", sheet, batch.buffer, stack, lists, shift=12)


def _put_nat(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1007: both addresses after translation."""
    source, told, at = _address(batch.buffer, found)
    sheet.put("nat_src_addr", found.row, source, told)
    rest = Tagged(found.row, at, found.start + found.length - at, found.tag)
    destination, told, after = _address(batch.buffer, rest)
    sheet.put("nat_dst_addr", rest.row, destination, told)
    sheet.fault(Fault.TRUNCATED, after > found.start + found.length)


def _put_nat_ports(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1020: both ports after translation."""
    words = _words(batch.buffer, found.start, 2)
    for column, at in (("nat_src_port", 0), ("nat_dst_port", 1)):
        sheet.put(column, found.row, words[:, at], words[:, at] <= 0xFFFF)


def _put_vni(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Records 1029 and 1030: the network identifier of a tunnel that the packet left or came by."""
    sheet.put("vni", found.row, _words(batch.buffer, found.start, 1)[:, 0])


def _put_timestamp(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
    """Record 1043: when the packet was seen, in nanoseconds since 1970."""
    words = _words(batch.buffer, found.start, 2)
    fits = words[:, 0] < 1 << 31
    sheet.out_of_range(~fits)
    for column in ("time_flow_start", "time_flow_end"):
        sheet.put(column, found.row, np.where(fits, words[:, 0], 0) << 32 | words[:, 1], fits)


def _put_socket(width: int, etype: int) -> Put:
    """Records 2100 to 2103: protocol, addresses and ports of a socket; local is taken for the source.

    What a sampled header says stands; a socket fills in for samples that have none.
    """

    def put(sheet: _Sheet, batch: _Batch, found: Tagged, _: dict[str, pa.Array]) -> None:
        octets = windows(batch.buffer, found.start, 12 + 2 * width)
        row, after = found.row, 4 + 2 * width
        alone = ~sheet.has("src_addr")[row]
        sheet.put("proto", row, word32(octets, 0), alone)
        sheet.put("src_addr", row, _mapped(octets[:, 4 : 4 + width]), alone)
        sheet.put("dst_addr", row, _mapped(octets[:, 4 + width : after]), alone)
        sheet.put("src_port", row, word32(octets, after), alone)
        sheet.put("dst_port", row, word32(octets, after + 4), alone)
        sheet.put("etype", row, np.full(len(row), etype), alone)

    return put


RECORDS: Final[dict[int, tuple[int, Put]]] = {
    1: (16, _put_sampled_header),
    2: (24, _put_ethernet),
    3: (32, _put_ip(4, frame.ETYPE_IPV4)),
    4: (56, _put_ip(16, frame.ETYPE_IPV6)),
    1012: (4, _put_vlan_tunnel),
    1001: (16, _put_switch),
    1002: (4, _put_router),
    1003: (4, _put_gateway),
    1004: (8, _put_user),
    1006: (4, _put_mpls),
    1007: (4, _put_nat),
    1020: (8, _put_nat_ports),
    1029: (4, _put_vni),
    1030: (4, _put_vni),
    1043: (8, _put_timestamp),
    2100: (20, _put_socket(4, frame.ETYPE_IPV4)),
    2101: (44, _put_socket(16, frame.ETYPE_IPV6)),
    2102: (20, _put_socket(4, frame.ETYPE_IPV4)),
    2103: (44, _put_socket(16, frame.ETYPE_IPV6)),
}
"""Flow records that fill columns, in the order in which they count: the fewest bytes that one has, and what it says."""


def _mapped(octets: Octets) -> Octets:
    """Addresses of 16 octets; IPv4 as ::ffff:a.b.c.d."""
    return octets if octets.shape[1] == 16 else mapped(octets)


def _differ(one: Octets, other: Octets) -> Mask:
    """Which addresses are not the same, [n, 16] each."""
    halves, others = one.view(np.uint64), other.view(np.uint64)
    differ: Mask = (halves[:, 0] != others[:, 0]) | (halves[:, 1] != others[:, 1])
    return differ


def _address(buffer: Octets, found: Tagged) -> tuple[Octets, Mask, Index]:
    """An address with its type before it: the address, whether there is one, and what comes after it."""
    octets = windows(buffer, found.start, ADDRESS_BYTES)
    family = word32(octets, 0)
    width = np.where(family == 1, 4, np.where(family == 2, 16, 0))
    address = np.where((family == 1)[:, None], _mapped(octets[:, 4:8]), octets[:, 4:20])
    told = (width > 0) & (4 + width <= found.length)
    return address, told, found.start + 4 + width


def _put_numbers(
    column: str,
    sheet: _Sheet,
    buffer: Octets,
    pieces: list[tuple[Index, Index, Index]],
    lists: dict[str, pa.Array],
    shift: int = 0,
) -> None:
    """Make a list column of words: pieces of (row, where the words begin, how many), in their order within a row.

    A row that the column has already keeps what it has.
    """
    if not pieces:
        return
    row, start, count = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    order = np.argsort(row, kind="stable")
    row, start, count = row[order], start[order], count[order]
    total = np.bincount(row, count, sheet.count).astype(np.int64)
    if not total.any():
        return
    ends = np.cumsum(count)
    place = np.repeat(start - 4 * (ends - count), count) + 4 * np.arange(int(ends[-1]))
    values = (_words(buffer, place, 1)[:, 0] >> shift).astype(np.uint32)
    offsets = np.zeros(sheet.count + 1, np.int32)
    np.cumsum(total, out=offsets[1:])
    validity = pa.py_buffer(np.packbits(total > 0, bitorder="little"))
    made = pa.Array.from_buffers(
        pa.list_(pa.uint32()),
        sheet.count,
        [validity, pa.py_buffer(offsets)],
        children=[columns.primitive(values, pa.uint32())],
    )
    own = lists.get(column)
    lists[column] = made if own is None else pc.coalesce(own, made)
