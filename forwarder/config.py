"""The settings of stage two: the common sections and ``forwarder``."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, field_validator, model_validator

from forwarder.aggregate import PREFIX_LENGTHS, PROFILES, AggregateRule, Prefixes, why_no_key
from shared.config import (
    CommonSettings,
    Count,
    Flag,
    HttpAddress,
    HttpConfig,
    Network,
    Section,
    distinct_networks,
    load,
)
from shared.keys import Allowed, nearest
from shared.record import COLUMN

SECTION: Final = "forwarder"

MOST_KEYS: Final = 16

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

    window_seconds: Annotated[int, Strict(), Field(ge=1, le=86400)] = Field(
        default=600, description="how long a record is remembered, in append time"
    )
    max_records: Count = Field(
        default=16000000,
        description="records that are remembered, shared by the partitions of the topic; about 20 bytes each",
    )


class FlowDedupConfig(Section):
    """What is done with a flow that several exporters saw."""

    policy: Literal["none", "observation_point", "lease"] = Field(
        default="none", description="which of the observations counts"
    )
    action: Literal["mark", "drop"] = Field(
        default="mark", description="what happens to the observations that do not count"
    )
    crossing: Literal["both", "entering", "leaving"] = Field(
        default="both", description="with `observation_point`: which crossings of the border count"
    )
    metering: Literal["ingress", "egress", "external"] = Field(
        default="ingress",
        description="with `observation_point`: where exporters meter, at ingress or egress of all interfaces, or both"
        " ways at the external ones",
    )
    metering_overrides: Annotated[
        Mapping[Network, Literal["ingress", "egress", "external"]], BeforeValidator(distinct_networks)
    ] = Field(default_factory=dict, description="`metering` by exporter network; the longest match wins")
    lease_seconds: Annotated[int, Strict(), Field(ge=1, le=86400)] = Field(
        default=3600, description="with `lease`: at least twice the longest active timeout of all exporters"
    )
    max_flows: Annotated[int, Strict(), Field(ge=2)] = Field(
        default=4000000,
        description="with `lease`: flows that are remembered, shared by the partitions of the topic; about 50 bytes each",
    )


class DedupConfig(Section):
    """Removal of duplicates."""

    exact: ExactDedupConfig | None = Field(
        default_factory=ExactDedupConfig, description="the same record, again; `null` lets repeated records through"
    )
    flow: FlowDedupConfig = Field(default_factory=FlowDedupConfig, description="the same flow, from another exporter")


def _key(name: str) -> str:
    if name not in COLUMN:
        near = nearest(name, [one for one in COLUMN if why_no_key(one) is None])
        raise ValueError(f"is no column of the record; the nearest is {near} (docs/record.md has all of them)")
    reason = why_no_key(name)
    if reason is not None:
        raise ValueError(f"cannot be a key: it {reason}")
    return name


Key = Annotated[str, AfterValidator(_key), Allowed("the name of a column of the record")]


class PrefixesConfig(Section):
    """The prefixes that source and destination addresses are cut to, where these are keys."""

    ipv4: Annotated[int, Strict(), Field(ge=1, le=32)] = Field(default=24, description="bits of an IPv4 address")
    ipv6: Annotated[int, Strict(), Field(ge=1, le=128)] = Field(default=48, description="bits of an IPv6 address")
    of_route: Flag = Field(
        default=True,
        description="whether the length that the exporter has for the route goes before these, where it tells one",
    )


class AggregateConfig(Section):
    """Sums over keys and time within one batch."""

    enabled: Flag = Field(default=True, description="whether anything is added up; `false` for a sink that shall not")
    profile: Literal["prefix", "as_pair", "application", "sgt_pair"] | None = Field(
        default=None, description="named set of keys; `keys` are further ones"
    )
    keys: tuple[Key, ...] = Field(default=(), description=f"up to {MOST_KEYS} columns of the record that stay apart")
    bucket_seconds: Count = Field(
        default=60, le=86400, description="reception times that are added up together: multiples of this"
    )
    estimate: Flag = Field(
        default=True, description="whether there are sums of bytes and packets times the sampling rate too"
    )
    prefixes: PrefixesConfig | None = Field(
        default=None,
        description="what addresses among the keys are cut to; whole when not set, except by the profile `prefix`",
    )
    include_duplicates: Flag = Field(
        default=False, description="whether records that are marked as duplicates are added up too"
    )
    keep_raw: Flag = Field(default=False, description="whether the records themselves are delivered too")

    @field_validator("keys")
    @classmethod
    def _distinct_and_few(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice} twice: keep one")
        if len(keys) > MOST_KEYS:
            raise ValueError(f"are {len(keys)} keys, and {MOST_KEYS} are the most: more keep nearly all records apart")
        return keys

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if not self.enabled:
            return self
        if not self.all_keys:
            raise ValueError("needs `keys`, or a `profile`, which is a named set of them")
        if self.prefixes is not None and not PREFIX_LENGTHS.keys() & set(self.all_keys):
            raise ValueError(f"has `prefixes`, but none of {' and '.join(PREFIX_LENGTHS)} is a key")
        return self

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The keys of the profile, and then the others."""
        return tuple(dict.fromkeys([*PROFILES.get(self.profile or "", ()), *self.keys]))

    @property
    def rule(self) -> AggregateRule:
        """What is added up."""
        prefixes = PrefixesConfig() if self.prefixes is None and self.profile == "prefix" else self.prefixes
        return AggregateRule(
            keys=self.all_keys,
            bucket_seconds=self.bucket_seconds,
            estimate=self.estimate,
            prefixes=None if prefixes is None else Prefixes(prefixes.ipv4, prefixes.ipv6, prefixes.of_route),
            include_duplicates=self.include_duplicates,
        )


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
    dedup: DedupConfig | None = Field(default=None, description="instead of `forwarder.dedup`, for this sink")
    aggregate: AggregateConfig | None = Field(
        default=None, description="instead of `forwarder.aggregate`, for this sink"
    )
    aggregated_path: Annotated[str, AfterValidator(_local_path), Allowed("a directory")] | None = Field(
        default=None, description="directory of the sums, outside of `path`; needed where the records are kept too"
    )
    aggregated_retention_hours: Count | None = Field(
        default=None, description="age at which files of sums are deleted; they are kept when not set"
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
    aggregate: AggregateConfig | None = Field(default=None, description="sums instead of, or beside, the records")
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
            for path in (sink.path, sink.aggregated_path):
                if path is None:
                    continue
                place = os.path.realpath(path)
                if place in owner:
                    raise ValueError(
                        f"the sinks {owner[place]} and {name} have the same path, {path}: "
                        "their files have the same names, so each needs a directory of its own"
                    )
                owner[place] = name
        return self

    @model_validator(mode="after")
    def _sums_have_a_place(self) -> Self:
        for name, sink in self.sinks.items():
            aggregation = self.aggregation(name)
            if sink.aggregated_path is None:
                if aggregation is not None and aggregation.keep_raw:
                    raise ValueError(
                        f"the sink {name} keeps the records beside their sums (keep_raw), so it needs `aggregated_path`,"
                        " a directory for the sums: a query over both would count everything twice"
                    )
            elif Path(os.path.realpath(sink.aggregated_path)).is_relative_to(os.path.realpath(sink.path)):
                raise ValueError(
                    f"the sink {name} has its aggregated_path, {sink.aggregated_path}, inside its path: a query over"
                    " the lake would count everything twice, so give the sums a directory beside it"
                )
        return self

    @model_validator(mode="after")
    def _fit_beside_an_offset(self) -> Self:
        from forwarder.shape import LONGEST_TEXT, shape_of

        for name in self.sinks:
            length = len(shape_of(self, name, 1).text())
            if length > LONGEST_TEXT:
                raise ValueError(
                    f"the settings by which the batches of the sink {name} are made (batch, dedup, aggregate) take"
                    f" {length:,} characters, and {LONGEST_TEXT:,} fit beside an offset in Kafka, where a restart has to"
                    " find them: name fewer networks in dedup.flow.metering_overrides, such as one that has several in it"
                )
        return self

    def aggregation(self, sink: str) -> AggregateConfig | None:
        """What is added up for one sink: what it says itself, else what all say; None for nothing."""
        own = self.sinks[sink].aggregate or self.aggregate
        return own if own is not None and own.enabled else None

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
