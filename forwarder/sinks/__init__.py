"""The backends, one module each. A sink's module, and so its driver, is imported only when the sink is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from forwarder.config import SinkConfig
    from forwarder.sinks.base import Sink


def _parquet(config: SinkConfig) -> Sink:
    from forwarder.sinks.parquet import ParquetSink

    return ParquetSink(config)


SINKS: Final[Mapping[str, Callable[[SinkConfig], Sink]]] = MappingProxyType({"parquet": _parquet})
"""By the `type` of its settings, what builds a sink."""


def build(config: SinkConfig) -> Sink:
    """Make the sink that the settings describe; it is not open yet."""
    return SINKS[config.type](config)
