"""When a flow began and ended, by whichever clock its exporter told it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns, elements
from ingest.decoders.elements import Clock, Element
from ingest.decoders.fault import Oddity
from ingest.decoders.fields import Fields
from ingest.decoders.origin import Origin
from ingest.decoders.values import Places, count_beyond
from shared.record import TIME

Mask = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger]

NTP_TO_UNIX_SECONDS: Final = 2_208_988_800
UPTIME_TURN_MS: Final = 1 << 32
LAST_MILLISECOND: Final = np.iinfo(np.int64).max // 1_000_000
TIMES: Final = (("time_flow_start", elements.FLOW_START), ("time_flow_end", elements.FLOW_END))
"""The columns of time, and what tells them."""


def told_time(
    clocks: tuple[tuple[Element, Clock], ...], places: Places, fields: Fields, origin: Origin
) -> tuple[npt.NDArray[np.int64], Mask | None] | None:
    """Nanoseconds since 1970 by the best clock that the layout has, and where they can be told; None without one."""
    for element, clock in clocks:
        if element not in places:
            continue
        sent = fields.uint(places[element])
        if clock is not Clock.UPTIME_MS:
            values, valid = _CLOCKS[clock](sent.astype(np.uint64), origin)
        elif elements.SYSTEM_INIT_MS in places:
            values, valid = _since_init(sent, fields.uint(places[elements.SYSTEM_INIT_MS]), origin)
        elif origin.uptime_ms is not None:
            values, valid = _since_boot(sent, origin.uptime_ms, origin)
        elif origin.booted_ms is not None:
            booted: Mask = origin.booted_ms >= 0
            values, valid = _since_init(sent, np.maximum(origin.booted_ms, 0).astype(np.uint64), origin)
            values = np.where(booted, values, origin.exported_ns)
            valid = None if valid is None else valid | ~booted
        else:
            continue
        told = fields.told(places[element])
        if told is not None:
            values = np.where(told, values, origin.exported_ns)
            valid = None if valid is None else valid | ~told
        return values, valid
    return None


def time_column(values: npt.NDArray[np.int64], valid: Mask | None, oddities: Counter[Oddity]) -> pa.Array:
    """Nanoseconds since 1970 as a column; what is out of its range is null, and counted."""
    if valid is not None:
        count_beyond(oddities, ~valid)
    return columns.primitive(values, TIME, valid)


def _since_init(sent: Unsigned, booted: Unsigned, origin: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = (sent <= LAST_MILLISECOND) & (booted <= LAST_MILLISECOND)
    at = np.where(valid, sent.astype(np.int64) + booted.astype(np.int64), 0)
    if sent.dtype.itemsize <= 4:
        # The uptime begins again after 2^32 ms: of the times that it may mean, the one nearest to the export.
        at += np.rint((origin.exported_ns // 1_000_000 - at) / UPTIME_TURN_MS).astype(np.int64) * UPTIME_TURN_MS
    valid &= at <= LAST_MILLISECOND
    return np.where(valid, at, 0) * 1_000_000, None if valid.all() else valid


def _since_boot(
    sent: Unsigned, uptime_ms: npt.NDArray[np.uint32], origin: Origin
) -> tuple[npt.NDArray[np.int64], None]:
    # Modulo 2^32 and signed, so that a wrap of the uptime between the flow and its export does no harm.
    ago = (uptime_ms - sent.astype(np.uint32)).view(np.int32).astype(np.int64)
    return origin.exported_ns - ago * 1_000_000, None


def _milliseconds(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = sent <= LAST_MILLISECOND
    return sent.astype(np.int64) * 1_000_000, None if valid.all() else valid


def _seconds(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    valid = sent <= LAST_MILLISECOND // 1000
    return sent.astype(np.int64) * 1_000_000_000, None if valid.all() else valid


def _ntp(sent: npt.NDArray[np.uint64], _: Origin) -> tuple[npt.NDArray[np.int64], Mask | None]:
    seconds = (sent >> np.uint64(32)).astype(np.int64) - NTP_TO_UNIX_SECONDS
    fraction = ((sent & np.uint64(0xFFFFFFFF)) * np.uint64(1_000_000_000)) >> np.uint64(32)
    return seconds * 1_000_000_000 + fraction.astype(np.int64), None


_CLOCKS: Final[
    Mapping[Clock, Callable[[npt.NDArray[np.uint64], Origin], tuple[npt.NDArray[np.int64], Mask | None]]]
] = {
    Clock.SECONDS: _seconds,
    Clock.MILLISECONDS: _milliseconds,
    Clock.NTP: _ntp,
    Clock.NTP_US: lambda sent, origin: _ntp(sent & ~np.uint64(0x7FF), origin),
    Clock.BEFORE_EXPORT_US: lambda sent, origin: (origin.exported_ns - sent.astype(np.int64) * 1000, None),
}
