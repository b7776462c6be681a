"""The settings of stage one: the common sections and ``ingest``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, Strict, field_validator

from shared.config import (
    CommonSettings,
    Count,
    Duration,
    HostPort,
    HttpAddress,
    HttpConfig,
    Network,
    Section,
    UdpListener,
    distinct_networks,
    load,
    parse_udp_listener,
)
from shared.keys import INPUT_FILE, PLANNED

SECTION: Final = "ingest"

SamplingRate = Annotated[int, Strict(), Field(ge=1, le=2**32 - 1)]


class IngestHttpConfig(HttpConfig):
    """The HTTP server of ingest."""

    listen: HttpAddress = Field(
        default="0.0.0.0:8081", description="address and port to serve metrics, probes and the API on"
    )


class DecodeBatchConfig(Section):
    """How many datagrams are decoded at a time."""

    max_records: Count = Field(
        default=50000, description="records, reckoned from the bytes received, after which a batch is decoded"
    )
    max_age_ms: Count = Field(default=200, description="the longest that a datagram waits to be decoded")


class MessageConfig(Section):
    """When the records of a partition are sent to Kafka as one message: at the first of these bounds."""

    max_records: Count = Field(default=1000, description="records in a message")
    max_bytes: Annotated[int, Strict(), Field(ge=1024, le=4 * 2**20)] = Field(
        default=262144,
        description="bytes in a message before compression; a consumer fetches 4 MiB at a time, so no more than that",
    )
    max_age_ms: Count = Field(default=1000, description="the longest that a record waits for its message to fill")


class ParkingConfig(Section):
    """What waits in the memory of a worker for its template."""

    max_bytes: Count = Field(default=67108864, description="the most that waits in a worker, in bytes")
    exporter_max_bytes: Count = Field(default=8388608, description="the most of that for one exporter")
    max_age_seconds: Count = Field(
        default=1800, description="the longest that a set waits in memory before it waits in Kafka"
    )


class UndecodedConfig(Section):
    """What waits in Kafka for its template, in `flows.undecoded`."""

    scan_seconds: Count = Field(default=60, description="how often it is looked at")
    scan_max_bytes: Count = Field(
        default=134217728,
        description="the most that an instance reads of it each time; "
        "in the long run its workers put in no more than half of that",
    )
    max_age_seconds: Count = Field(
        default=3600, description="the longest that a set waits in all before it becomes a dead letter"
    )


class TemplatesConfig(Section):
    """What is kept of templates, and what waits for one."""

    parking: ParkingConfig = Field(default_factory=ParkingConfig, description="what waits in memory for its template")
    undecoded: UndecodedConfig = Field(
        default_factory=UndecodedConfig, description="what waits in Kafka for its template"
    )
    wait_seconds: Duration = Field(
        default=30,
        description="how long a starting ingest is not ready while it has not read what the others know, "
        "in `flows.exporters`",
    )
    steady_seconds: Duration = Field(
        default=60,
        description="how long an exporter has to be heard by this instance until a redefinition of one of its "
        "templates is passed on to the others",
    )


class RateLimitConfig(Section):
    """How many datagrams an exporter may send; what is over the rate is thinned."""

    datagrams_per_second: Annotated[Count | None, PLANNED] = Field(
        default=None, description="datagrams that each exporter may send in the long run; no limit when not set"
    )
    burst: Annotated[Count | None, PLANNED] = Field(
        default=None, description="datagrams that an exporter may send at once"
    )
    overrides: Annotated[Mapping[Network, Count], BeforeValidator(distinct_networks), PLANNED] = Field(
        default_factory=dict, description="datagrams per second by exporter network; the longest match wins"
    )


class AdmissionConfig(Section):
    """Who may export to us, and how much."""

    allow: Annotated[tuple[Network, ...], PLANNED] = Field(
        default=(), description="networks of the exporters that are listened to; all when empty"
    )
    rate_limit: RateLimitConfig = Field(default_factory=RateLimitConfig, description="how much each exporter may send")


class SamplingConfig(Section):
    """Sampling rates (the N of 1:N) for exporters that do not say theirs, or say it wrong."""

    default: SamplingRate | None = Field(
        default=None, description="rate of the records that have none by any other way; unknown when not set"
    )
    overrides: Annotated[Mapping[Network, SamplingRate], BeforeValidator(distinct_networks)] = Field(
        default_factory=dict,
        description="rate by exporter network, before whatever the exporter says; the longest match wins",
    )


class SpoolConfig(Section):
    """Where encoded messages wait on disk while Kafka does not take them."""

    directory: Path | None = Field(
        default=None,
        description="directory of the spool, of this instance alone, on a disk that outlives it; "
        "no spool when not set, and what the queue in memory has no room for is dropped",
    )
    max_bytes: Count = Field(
        default=10737418240, description="the most that the spool takes, all workers and topics together"
    )


class IngestConfig(Section):
    """What stage one does."""

    http: IngestHttpConfig = Field(default_factory=IngestHttpConfig, description="metrics, probes and API")
    listen: tuple[UdpListener, ...] = Field(
        default=("udp://[::]:2055", "udp://[::]:4739", "udp://[::]:6343"),
        min_length=1,
        description="where datagrams are received, any protocol on any of them; "
        "`[::]` takes IPv4 too, and is IPv4 alone where IPv6 is off",
    )
    workers: Literal["auto"] | Count = Field(
        default="auto", description="processes that decode; `auto` is as many as the CPUs that we may use"
    )
    receive_buffer_bytes: Annotated[int, Strict(), Field(ge=4096, le=2**30 - 1)] = Field(
        default=33554432,
        description="receive buffer to ask for, per socket; what the kernel granted is logged and exported",
    )
    batch: DecodeBatchConfig = Field(default_factory=DecodeBatchConfig, description="what is decoded together")
    message: MessageConfig = Field(
        default_factory=MessageConfig, description="what is sent to Kafka together, per partition"
    )
    drain_seconds: Duration = Field(
        default=10,
        description="how long a stopping ingest goes on receiving, so that routers and load balancers move on",
    )
    templates: TemplatesConfig = Field(default_factory=TemplatesConfig, description="templates, and what waits for one")
    admission: AdmissionConfig = Field(default_factory=AdmissionConfig, description="who may export, and how much")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="sampling rates by exporter network")
    mapping_file: Annotated[Path | None, INPUT_FILE] = Field(
        default=None, description="file that maps further information elements to columns"
    )
    decapsulate: tuple[Literal["gre", "ipip", "vxlan", "geneve"], ...] = Field(
        default=(), description="tunnels of sampled frames whose inner header is the flow"
    )
    spool: SpoolConfig = Field(default_factory=SpoolConfig, description="disk that stands in while Kafka is away")

    @property
    def listeners(self) -> tuple[HostPort, ...]:
        """The parts of ``listen``, in its order."""
        return tuple(parse_udp_listener(text) for text in self.listen)

    @field_validator("listen")
    @classmethod
    def _differ(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        seen = set[HostPort]()
        for text in listen:
            address = parse_udp_listener(text)
            if address.port != 0 and address in seen:
                raise ValueError(f"names {text} twice")
            seen.add(address)
        return listen


class IngestSettings(CommonSettings):
    """All that stage one reads."""

    ingest: IngestConfig = Field(default_factory=IngestConfig, description="stage one")


def reloaded(start: IngestSettings, now: IngestSettings) -> IngestSettings:
    """The settings of the start with what may change while the program runs: the log level, and secrets.

    What a worker is given besides, such as its sockets, is of the start.
    """
    security = start.kafka.security
    secrets = {name: getattr(now.kafka.security, name) for name in security.secrets()}
    return start.model_copy(
        update={
            "kafka": start.kafka.model_copy(update={"security": security.model_copy(update=secrets)}),
            "log": start.log.model_copy(update={"level": now.log.level}),
        }
    )


def load_settings(path: Path | None, environ: Mapping[str, str]) -> IngestSettings:
    """Read the settings of stage one; see :func:`shared.config.load`.

    Raises:
        ConfigError: something is not as it has to be.
    """
    return load(IngestSettings, SECTION, path, environ)
