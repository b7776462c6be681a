"""Sampling rates that the configuration knows better than the exporter, or when the exporter does not say."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from shared.record import POSITION

MAPPED: int = 0xFFFF << 32


class SamplingRates:
    """Overrides by exporter network, before whatever the exporter says, and a default for records without a rate."""

    def __init__(self, overrides: Mapping[IPv4Network | IPv6Network, int], default: int | None) -> None:
        # Shortest first, so that the longest match is written last.
        self._overrides = [
            (*_bounds(network), rate) for network, rate in sorted(overrides.items(), key=lambda item: _length(item[0]))
        ]
        self._default = default

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with its ``sampling_rate`` as the configuration has it."""
        if not self._overrides and self._default is None:
            return batch
        count = batch.num_rows
        rate = np.zeros(count, np.uint32)
        if "sampling_rate" in batch.schema.names:
            rate[:] = batch.column("sampling_rate").fill_null(0).to_numpy(zero_copy_only=False)
        if self._default is not None:
            rate[rate == 0] = self._default
        if self._overrides:
            self._override(batch, rate)
        column = columns.primitive(rate, pa.uint32(), None if rate.all() else rate > 0)
        if "sampling_rate" in batch.schema.names:
            return batch.set_column(batch.schema.get_field_index("sampling_rate"), "sampling_rate", column)
        at = sum(POSITION[name] < POSITION["sampling_rate"] for name in batch.schema.names)
        return batch.add_column(at, "sampling_rate", column)

    def _override(self, batch: pa.RecordBatch, rate: npt.NDArray[np.uint32]) -> None:
        column = batch.column("sampler_address")
        octets = np.frombuffer(column.buffers()[1], ">u8").reshape(-1, 2)[column.offset : column.offset + len(column)]
        high, low = octets[:, 0].astype(np.uint64), octets[:, 1].astype(np.uint64)
        for high_value, high_mask, low_value, low_mask, value in self._overrides:
            inside = ((high & high_mask) == high_value) & ((low & low_mask) == low_value)
            rate[inside] = value


def _length(network: IPv4Network | IPv6Network) -> int:
    return network.prefixlen + (96 if network.version == 4 else 0)


def _bounds(network: IPv4Network | IPv6Network) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Value and mask of the upper and the lower half of the address, IPv4 mapped to IPv6."""
    value = int(network.network_address) + (MAPPED if network.version == 4 else 0)
    mask = ((1 << 128) - 1) ^ ((1 << (128 - _length(network))) - 1)
    half = (1 << 64) - 1
    return np.uint64(value >> 64), np.uint64(mask >> 64), np.uint64(value & half), np.uint64(mask & half)
