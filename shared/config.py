"""The settings that both stages have, and how every setting is read.

A stage's settings are one frozen pydantic model, made once at the start from a YAML file and the environment
(:func:`load`) and handed down. A key's name ends with its unit. Nothing is ignored in silence: an unknown key, a value
that is not allowed, and a key whose feature is not there yet are all a :class:`~shared.errors.ConfigError`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shared.errors import ConfigError
from shared.explain import explain, os_reason, unreadable
from shared.keys import INPUT_FILE, PLANNED, Allowed, Slot
from shared.sources import Written, read

Settings = TypeVar("Settings", bound="Section")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where to listen: ``host`` without brackets, ``port`` 0 for any that is free."""

    host: str
    port: int


def parse_host_port(text: str) -> HostPort:
    """Split ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ValueError: the text has another form; the message says which form is needed.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed) or any(mark in text for mark in "/ \t"):
        raise ValueError("needs the form host:port, such as 0.0.0.0:8081 or [::]:8081")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"has the port {port!r}, where a number from 0 to 65535 is needed")
    if bracketed:
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"has {host!r} in brackets, which is not an IPv6 address") from None
    return HostPort(host, int(port))


def parse_udp_listener(text: str) -> HostPort:
    """Split ``udp://address:port``, where the address is a number, not a name.

    Raises:
        ValueError: the text has another form; the message says which form is needed.
    """
    scheme, separator, rest = text.partition("://")
    if scheme != "udp" or not separator:
        raise ValueError("needs the form udp://address:port, such as udp://[::]:2055")
    address = parse_host_port(rest)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise ValueError(f"has the host {address.host!r}, where an IP address is needed, such as [::]") from None
    return address


def _host_port(text: str) -> str:
    parse_host_port(text)
    return text


def _udp_listener(text: str) -> str:
    parse_udp_listener(text)
    return text


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        nearest = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is not an address or network, such as 192.0.2.0/24") from None
    raise ValueError(f"has bits set behind its prefix; the network is {nearest}")


def distinct_networks(value: object) -> object:
    """Refuse a map that names one network twice, spelled in two ways: for use before its keys are validated.

    Raises:
        ValueError: a network stands twice.
    """
    spelled: dict[object, str] = {}
    for key in value if isinstance(value, Mapping) else ():
        try:
            network = _network(key)
        except ValueError:
            continue  # told by the key's own check
        if network in spelled:
            raise ValueError(f"names one network twice, as {spelled[network]} and as {key}: keep one")
        spelled[network] = str(key)
    return value


Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Duration = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
"""A time that may have a fraction, and may be 0."""
HttpAddress = Annotated[str, AfterValidator(_host_port), Allowed("host:port, such as 0.0.0.0:8081 or [::]:8081")]
UdpListener = Annotated[
    str, AfterValidator(_udp_listener), Allowed("udp://address:port, such as udp://[::]:2055 or udp://192.0.2.1:2055")
]
Network = Annotated[IPNetwork, BeforeValidator(_network), Allowed("an address or network, such as 192.0.2.0/24")]


class Section(BaseModel):
    """What every section of the settings is: frozen, with no key that is not declared.

    Where a field ``x`` is a secret and a field ``x_file`` stands beside it, giving the file reads ``x`` from it; giving
    both is an error. A field marked :data:`PLANNED` takes nothing but its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, given: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever was written
        if not isinstance(given, Mapping):
            return given
        found = dict(given)
        for name in cls.secrets():
            beside = f"{name}_file"
            path = given.get(beside)
            if not isinstance(path, str | Path):
                continue
            if given.get(name) is not None:
                raise ValueError(f"{name} and {beside} are both set: keep one of them")
            found[name] = _read_secret(beside, Path(path))
        return found

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_planned(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - of whatever type the field has
        field = cls.model_fields[info.field_name or ""]
        if PLANNED in field.metadata and value != field.get_default(call_default_factory=True):
            raise PydanticCustomError("planned", "cannot be set yet: this version does nothing with it; leave it out")
        return value

    @classmethod
    def secrets(cls) -> list[str]:
        """Name the fields that are secrets and may be read from the file that ``<name>_file`` gives."""
        fields = cls.model_fields
        return [name for name, field in fields.items() if f"{name}_file" in fields and Slot.of(field).secret]


def _read_secret(key: str, path: Path) -> SecretStr:
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: the secret cannot be read from {path}: {os_reason(error)}") from None
    if not text:
        raise ValueError(f"{key}: the file {path} is empty, where the secret was to be")
    return SecretStr(text)


class SecurityConfig(Section):
    """How the connection to the brokers is secured."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="transport, and whether a client proves who it is with a name and a password"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="how the password is proved, with a `sasl_` protocol; others by `kafka.properties`"
    )
    username: str | None = Field(default=None, description="name to log in with, with a `sasl_` protocol")
    password: SecretStr | None = Field(default=None, description="its password; rather give `password_file`")
    password_file: Path | None = Field(default=None, description="file that the password is read from")
    ca_file: Annotated[Path | None, INPUT_FILE] = Field(
        default=None, description="certificates (PEM) that the brokers are checked against; the system's when not set"
    )
    cert_file: Annotated[Path | None, INPUT_FILE] = Field(
        default=None, description="our own certificate (PEM), where the brokers ask for one"
    )
    key_file: Annotated[Path | None, INPUT_FILE] = Field(
        default=None, description="the private key (PEM) of `cert_file`"
    )

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.protocol in {"ssl", "sasl_ssl"}

    @property
    def authenticated(self) -> bool:
        """Whether a name and a password are sent."""
        return self.protocol in {"sasl_plaintext", "sasl_ssl"}

    @model_validator(mode="after")
    def _fits_the_protocol(self) -> Self:
        login = {"mechanism": self.mechanism, "username": self.username, "password": self.password}
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        given = [name for name, value in login.items() if value is not None]
        if given and not self.authenticated:
            raise ValueError(
                f"{given[0]} is set, but the protocol {self.protocol} does not log in: use sasl_ssl or sasl_plaintext"
            )
        given = [name for name, value in files.items() if value is not None]
        if given and not self.encrypted:
            raise ValueError(
                f"{given[0]} is set, but the protocol {self.protocol} is not encrypted: use ssl or sasl_ssl"
            )
        if self.mechanism is not None and (self.username is None or self.password is None):
            raise ValueError(f"the mechanism {self.mechanism} needs username and password (or password_file)")
        if self.mechanism is None and (self.username is not None or self.password is not None):
            raise ValueError("username and password need a mechanism, such as SCRAM-SHA-512")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: set both or none")
        return self


class KafkaConfig(Section):
    """Which Kafka, and how the topics are made there."""

    bootstrap_servers: Annotated[str, Allowed("host:port, more of them separated by commas")] = Field(
        default="localhost:9092", description="brokers to ask first, `host:port`, separated by commas"
    )
    topic_prefix: Annotated[str, Allowed("letters, digits, dots, dashes and underscores, at most 200")] = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,200}$",
        description="put before every topic's name: `dc1.` makes `dc1.flows.records`",
    )
    create_topics: Flag = Field(default=True, description="whether a topic that is missing is created")
    partitions: Count = Field(default=12, description="partitions of a topic that is created")
    replication_factor: Count = Field(
        default=1,
        le=32767,
        description="copies of each partition of a topic that is created; with 3, two of them must acknowledge",
    )
    retention_hours: Count = Field(
        default=72, description="how long `flows.records` is kept: the longest outage that can be made good"
    )
    security: SecurityConfig = Field(
        default_factory=SecurityConfig, description="encryption and login for the connection to the brokers"
    )
    properties: Annotated[
        Mapping[str, str | int | float | bool], Allowed("a map from names to texts, numbers, true or false")
    ] = Field(default_factory=dict, description="properties of librdkafka by name; they have the last word")

    @field_validator("bootstrap_servers")
    @classmethod
    def _names_brokers(cls, servers: str) -> str:
        for server in servers.split(","):
            try:
                port = parse_host_port(server.strip()).port
            except ValueError as error:
                raise ValueError(f"the broker {server.strip()!r} {error}") from None
            if port == 0:
                raise ValueError(f"the broker {server.strip()!r} has the port 0, where nothing can be reached")
        return servers


class LogConfig(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least important events that are still logged"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto` is `console` on a terminal, and else one JSON object a line"
    )


class HttpConfig(Section):
    """The HTTP server of a stage: metrics, probes and the API."""

    listen: HttpAddress = Field(description="address and port to serve metrics, probes and the API on")
    token: SecretStr | None = Field(
        default=None, description="bearer token that the API asks for; rather give `token_file`"
    )
    token_file: Path | None = Field(
        default=None,
        description="file that the bearer token is read from; without a token the API answers only this machine",
    )

    @property
    def address(self) -> HostPort:
        """The parts of ``listen``."""
        return parse_host_port(self.listen)


class CommonSettings(Section):
    """The sections that every stage reads."""

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="the brokers and the topics")
    log: LogConfig = Field(default_factory=LogConfig, description="what is logged")
    # Not INPUT_FILE: only ingest reads it, and says when it cannot; where the forwarder runs it need not be.
    exporters_file: Path | None = Field(
        default=None,
        description="file with names, interface names and boundary classes by exporter; ingest reads it,"
        " and reads it again when it changes",
    )


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Settings]):
    """Settings with where they came from."""

    settings: Settings
    written: Written


def load(model: type[Settings], section: str, path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Make the settings of the stage whose section is ``section``, out of a YAML file and the environment.

    The file is ``path``, else the one that ``SLUICEWAY_CONFIG`` names, else ``sluiceway.yaml`` where there is one; the
    environment overrides it key by key. Secrets are read from their files here. The content of the other stage's
    section is left alone.

    Raises:
        ConfigError: something is not as it has to be; every fault is told, one a line.
    """
    return load_with_origins(model, section, path, environ).settings


def load_with_origins(
    model: type[Settings], section: str, path: Path | None, environ: Mapping[str, str]
) -> Loaded[Settings]:
    """Do as :func:`load`, and keep where each value was written.

    Raises:
        ConfigError: something is not as it has to be; every fault is told, one a line.
    """
    written = read(model, section, path, environ)
    try:
        settings = model.model_validate(written.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model, written))) from None
    faults = list(unreadable(settings, (), written))
    if faults:
        raise ConfigError("\n".join(faults))
    return Loaded(settings, written)
