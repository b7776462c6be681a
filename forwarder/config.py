"""The settings of stage two: the common sections and ``forwarder``."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from shared.config import (
    CommonSettings,
    Count,
    Flag,
    HttpAddress,
    HttpConfig,
    Section,
    load,
)
from shared.keys import PLANNED, Allowed

SECTION: Final = "forwarder"

PLANNED_SINKS: Final = ("clickhouse", "http", "kafka")
"""Types of the contract that have no sink yet."""


class ForwarderHttpConfig(HttpConfig):
    """The HTTP server of the forwarder."""

    listen: HttpAddress = Field(
        default="0.0.0.0:8082", description="address and port to serve metrics, probes and the API on"
    )


class CutConfig(Section):
    """Where a batch ends: at the first of these bounds. All forwarders of a group need the same."""

    interval_ms: Count = Field(
        default=5000, description="a batch ends where the append time of its messages passes a multiple of this"
    )
    max_records: Count = Field(default=200000, description="records in a batch; a larger message is a batch alone")
    max_bytes: Count = Field(default=67108864, description="bytes of messages, as Kafka has them, in a batch")


class CutOverride(Section):
    """What a sink has otherwise than ``forwarder.batch``."""

    interval_ms: Count | None = Field(default=None, description="instead of `forwarder.batch.interval_ms`")
    max_records: Count | None = Field(default=None, description="instead of `forwarder.batch.max_records`")
    max_bytes: Count | None = Field(default=None, description="instead of `forwarder.batch.max_bytes`")


class ExactDedupConfig(Section):
    """Removal of records that were delivered before, by `record_id`."""

    window_seconds: Annotated[Count, PLANNED] = Field(
        default=600, description="how long a record is remembered, in append time"
    )
    max_records: Annotated[Count, PLANNED] = Field(default=16000000, description="records that are remembered")


class FlowDedupConfig(Section):
    """What is done with a flow that several exporters saw."""

    policy: Annotated[Literal["none", "observation_point", "lease"], PLANNED] = Field(
        default="none", description="which of the observations counts"
    )
    action: Annotated[Literal["mark", "drop"], PLANNED] = Field(
        default="mark", description="what happens to the observations that do not count"
    )


class DedupConfig(Section):
    """Removal of duplicates."""

    exact: ExactDedupConfig = Field(default_factory=ExactDedupConfig, description="the same record, again")
    flow: FlowDedupConfig = Field(default_factory=FlowDedupConfig, description="the same flow, from another exporter")


class AggregateConfig(Section):
    """Sums over keys and time within one batch."""

    keys: tuple[str, ...] = Field(min_length=1, description="columns that stay apart")
    bucket_seconds: Count = Field(default=60, description="reception times that are added up together")
    estimate: Flag = Field(default=True, description="whether counters are multiplied by the sampling rate")
    keep_raw: Flag = Field(default=False, description="whether the records themselves are delivered too")


def _local_path(path: str) -> str:
    if "://" in path:
        raise ValueError("is on an object store, but only a directory of this machine works so far")
    if not path:
        raise ValueError("is empty, where a directory is needed")
    return path


class ParquetSinkConfig(Section):
    """A lake of Parquet files in a directory."""

    type: Literal["parquet"] = Field(description="the kind of sink")
    path: Annotated[str, AfterValidator(_local_path), Allowed("a directory")] = Field(
        description="directory of the lake; it is made when it is missing"
    )
    addresses: Literal["text", "binary"] = Field(
        default="text", description="how addresses are written: as text, or as the 16 bytes of the record"
    )
    retention_hours: Count | None = Field(
        default=None, description="age at which files are deleted; they are kept when not set"
    )
    batch: CutOverride = Field(
        default_factory=CutOverride, description="what this sink has otherwise than `forwarder.batch`"
    )
    dedup: Annotated[DedupConfig | None, PLANNED] = Field(
        default=None, description="instead of `forwarder.dedup`, for this sink"
    )
    aggregate: Annotated[AggregateConfig | None, PLANNED] = Field(
        default=None, description="instead of `forwarder.aggregate`, for this sink"
    )


SINKS: Final[Mapping[str, type[ParquetSinkConfig]]] = {"parquet": ParquetSinkConfig}
"""The settings of each type of sink that there is."""


def _known_type(sink: Any) -> Any:  # noqa: ANN401 - whatever was written
    """Name the types that there are, before pydantic says that the value is not in a list."""
    kind = sink.get("type") if isinstance(sink, Mapping) else None
    there = ", ".join(SINKS)
    if not isinstance(kind, str) or kind in SINKS:
        return sink
    if kind in PLANNED_SINKS:
        raise ValueError(f"has the type {kind}, which does not work yet; there is: {there}")
    near = difflib.get_close_matches(kind, [*SINKS, *PLANNED_SINKS], n=1)
    raise ValueError(
        f"has the type {kind!r}, which is not known{f' (meant: {near[0]}?)' if near else ''}; there is: {there}"
    )


SinkConfig = Annotated[ParquetSinkConfig, BeforeValidator(_known_type)]


def _default_sinks() -> Mapping[str, ParquetSinkConfig]:
    # Few large files serve a lake better than freshness, hence an interval of its own.
    return {"lake": ParquetSinkConfig(type="parquet", path="./lake", batch=CutOverride(interval_ms=60000))}


class ForwarderConfig(Section):
    """What stage two does."""

    http: ForwarderHttpConfig = Field(default_factory=ForwarderHttpConfig, description="metrics, probes and API")
    group_id: Annotated[str, Allowed("letters, digits, dots, dashes and underscores")] = Field(
        default="sluiceway-forwarder",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="begin of the consumer groups' names: a sink's group is `<group_id>.<sink>`",
    )
    batch: CutConfig = Field(default_factory=CutConfig, description="where batches end")
    dedup: DedupConfig = Field(default_factory=DedupConfig, description="removal of duplicates")
    aggregate: Annotated[AggregateConfig | None, PLANNED] = Field(
        default=None, description="sums instead of, or beside, the records"
    )
    sinks: Mapping[str, SinkConfig] = Field(
        default_factory=_default_sinks,
        min_length=1,
        description="where the records go, by a name of your own; each sink gets every record",
    )

    @field_validator("sinks")
    @classmethod
    def _named_well(cls, sinks: Mapping[str, ParquetSinkConfig]) -> Mapping[str, ParquetSinkConfig]:
        for name in sinks:
            # A name is part of the consumer group, of metrics and of environment variables, where __ separates.
            if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name):
                raise ValueError(f"a sink is named {name!r}: use small letters and digits, with single - or _ between")
        return sinks

    @model_validator(mode="after")
    def _lakes_differ(self) -> Self:
        owner: dict[str, str] = {}
        for name, sink in self.sinks.items():
            place = os.path.realpath(sink.path)
            if place in owner:
                raise ValueError(
                    f"the sinks {owner[place]} and {name} have the same path, {sink.path}: "
                    "their files have the same names, so each needs a directory of its own"
                )
            owner[place] = name
        return self

    def cut(self, sink: str) -> CutConfig:
        """The bounds of the batches of one sink: its own ones over the common ones."""
        return self.batch.model_copy(update=self.sinks[sink].batch.model_dump(exclude_none=True))


class ForwarderSettings(CommonSettings):
    """All that stage two reads."""

    forwarder: ForwarderConfig = Field(default_factory=ForwarderConfig, description="stage two")

    @model_validator(mode="after")
    def _fits_the_retention(self) -> Self:
        kept_ms = self.kafka.retention_hours * 3_600_000
        for sink in self.forwarder.sinks:
            interval_ms = self.forwarder.cut(sink).interval_ms
            if interval_ms >= kept_ms:
                raise ValueError(
                    f"the batches of forwarder.sinks.{sink} last {interval_ms} ms, but kafka.retention_hours keeps "
                    f"messages for {kept_ms} ms: they would expire before they are delivered"
                )
        return self


def load_settings(path: Path | None, environ: Mapping[str, str]) -> ForwarderSettings:
    """Read the settings of stage two; see :func:`shared.config.load`.

    Raises:
        ConfigError: something is not as it has to be.
    """
    return load(ForwarderSettings, SECTION, path, environ)
