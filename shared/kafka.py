"""How we talk to Kafka: the properties of our clients, our topics and their settings, and whether they are as needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from shared.errors import ConfigError, SluicewayError
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from confluent_kafka import Uuid
    from confluent_kafka.admin import ConfigEntry, TopicDescription

    from shared.config import KafkaConfig

RECORDS: Final = "flows.records"
COUNTERS: Final = "flows.counters"
EXPORTERS: Final = "flows.exporters"
"""Templates and options data of exporters, which every instance of ingest follows."""
UNDECODED: Final = "flows.undecoded"
DEADLETTER: Final = "flows.deadletter"

COMPRESSION: Final = "lz4"
MAX_MESSAGE_BYTES: Final = 1_000_000
"""The largest message that our producers hand to Kafka, before compression."""
QUEUE_MESSAGES: Final = 500_000
QUEUE_BYTES: Final = 268_435_456
DEADLETTER_HEADER_BYTES: Final = 65_536
"""How much larger a dead letter may be than the message that it was."""

Properties: TypeAlias = dict[str, Any]
Client = TypeVar("Client", Producer, Consumer, AdminClient)

_HOUR_MS: Final = 3_600_000
_UNDECODED_HOURS: Final = 24
_DEADLETTER_HOURS: Final = 168
_STATE_HOURS: Final = 168
"""How long flows.exporters keeps what nobody tells any more."""
# A batch of messages may be a little larger than the largest message: what Kafka has for a default, stated.
_TOPIC_MAX_MESSAGE_BYTES: Final = 1_048_588


class KafkaAway(SluicewayError):
    """No broker answered in time, or none that could; to try again later may help."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as we create it: its full name and its settings."""

    name: str
    settings: Mapping[str, str]
    partitions: int


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as it is.

    `topic_id` is its UUID as Kafka writes it (22 characters of A-Z a-z 0-9 - _): another one after a delete and
    re-create. `log_append_time` is None when we were not allowed to read the settings. `created` says that the topic
    was not there when we first looked.
    """

    name: str
    topic_id: str
    partitions: int
    log_append_time: bool | None
    created: bool = False


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What `ensure_topics` found: the topics that are there, by the name asked for, and what has to be mended.

    Each problem is a sentence that ends with the command that mends it.
    """

    topics: Mapping[str, TopicFacts] = field(default_factory=dict)
    problems: Sequence[str] = ()


def full_name(config: KafkaConfig, name: str) -> str:
    """The name that a topic has in Kafka: with the configured prefix."""
    return config.topic_prefix + name


def topic(config: KafkaConfig, name: str) -> Topic:
    """One of our topics as it has to be created; a name that is not ours raises `KeyError`."""
    settings = _SETTINGS[name](config)
    if config.replication_factor >= 3:
        settings["min.insync.replicas"] = "2"
    return Topic(full_name(config, name), settings, _PARTITIONS.get(name, config.partitions))


def producer_properties(
    config: KafkaConfig,
    client_id: str,
    *,
    queue_messages: int = QUEUE_MESSAGES,
    queue_bytes: int = QUEUE_BYTES,
    compression: str = COMPRESSION,
) -> Properties:
    """What a producer of ours is made with: nothing that was queued is given up, repeated or reordered.

    The queue is bounded in messages and bytes (before compression); when it is full, `produce` raises `BufferError`.
    The producer has to be polled, else lines of the client's log pile up.
    """
    ours = {
        "enable.idempotence": "true",
        "acks": "all",
        # No message is ever given up because a broker is away: the queue is the bound.
        "message.timeout.ms": "0",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "linger.ms": "5",
        "compression.type": compression,
        "queue.buffering.max.messages": str(queue_messages),
        "queue.buffering.max.kbytes": str(max(1, queue_bytes // 1024)),
    }
    return _properties(config, client_id, ours)


def consumer_properties(config: KafkaConfig, group_id: str, client_id: str) -> Properties:
    """What a consumer of ours is made with: it commits only what it is told to, and never moves its place by itself.

    The broker's group protocol of KIP-848 refuses what is negotiated between members in the classic one, so with
    `group.protocol: consumer` in the configured properties these are left out.
    """
    ours = {
        "group.id": group_id,
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        # Bounds of what is fetched ahead. A consumer that pauses fetches again what it had queued.
        "queued.max.messages.kbytes": "8192",
        "fetch.max.bytes": "4194304",
        "fetch.message.max.bytes": "1048576",
        # With a queue that small, the default of a second would leave the consumer idle most of the time.
        "fetch.queue.backoff.ms": "10",
    }
    if str(config.properties.get("group.protocol", "classic")).lower() != "consumer":
        ours |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": "20000"}
    return _properties(config, client_id, ours)


def producer(properties: Properties) -> Producer:
    """Make a producer; a property that the client does not take raises `ConfigError`."""
    return _made(Producer, properties)


def consumer(properties: Properties) -> Consumer:
    """Make a consumer; a property that the client does not take raises `ConfigError`."""
    return _made(Consumer, properties)


def admin(config: KafkaConfig, client_id: str = "sluiceway-admin", **more: object) -> AdminClient:
    """Make an admin client; a property that the client does not take raises `ConfigError`."""
    return _made(AdminClient, _properties(config, client_id, {}) | more)


def ensure_topics(config: KafkaConfig, names: Sequence[str], timeout_seconds: float = 10.0) -> TopicReport:
    """Create what is missing, where that is allowed, and look whether what exists fits.

    Blocks for `timeout_seconds` at most; raises `KafkaAway` when Kafka did not answer by then.
    """
    problems: list[str] = []
    with _Session(config, timeout_seconds) as session:
        wanted = {name: topic(config, name) for name in names}
        found = session.describe([one.name for one in wanted.values()])
        created = set()
        for one in wanted.values():
            if found[one.name] is None:
                problem = session.create(one)
                problems += [problem] if problem else []
                if not problem:
                    created.add(one.name)
        while created and any(found[name] is None for name in created):
            # What was created is known to all brokers a little later.
            session.pause()
            found |= session.describe(sorted(created))
        facts = {}
        for name, one in wanted.items():
            description = found[one.name]
            if isinstance(description, str):
                problems.append(description)
            elif description is not None:
                settings = session.settings(one.name)
                problems += _problems(session, one, settings)
                facts[name] = _facts(description, settings, created=one.name in created)
    return TopicReport(facts, tuple(problems))


def uuid_text(uuid: Uuid) -> str:
    """A UUID as Kafka itself writes it; the client writes + and / for its - and _, and no file name may have a /."""
    return str(uuid).translate(str.maketrans("+/", "-_"))


def partition_count(config: KafkaConfig, name: str, timeout_seconds: float = 10.0) -> int:
    """How many partitions a topic has now, and 0 when it is not there or may not be looked at.

    Blocks for `timeout_seconds` at most; raises `KafkaAway` when Kafka did not answer by then.
    """
    with _Session(config, timeout_seconds) as session:
        found = session.describe([full_name(config, name)])[full_name(config, name)]
        return 0 if found is None or isinstance(found, str) else len(found.partitions)


_SETTINGS: Final[Mapping[str, Callable[[KafkaConfig], dict[str, str]]]] = MappingProxyType(
    {
        RECORDS: lambda config: {
            # Where batches end is a function of the time at which the broker appended.
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": "delete",
            "retention.ms": str(config.retention_hours * _HOUR_MS),
            # A broker may have a limit in bytes for all topics; ours is time alone.
            "retention.bytes": "-1",
            "max.message.bytes": str(_TOPIC_MAX_MESSAGE_BYTES),
        },
        COUNTERS: lambda config: {
            "cleanup.policy": "delete",
            "retention.ms": str(config.retention_hours * _HOUR_MS),
            "retention.bytes": "-1",
            "max.message.bytes": str(_TOPIC_MAX_MESSAGE_BYTES),
        },
        EXPORTERS: lambda _: {
            # When an entry came is told by the broker's clock, whatever that of its producer says.
            "message.timestamp.type": "LogAppendTime",
            # What is told again replaces what was told before, and what nobody tells any more goes.
            "cleanup.policy": "compact,delete",
            "retention.ms": str(_STATE_HOURS * _HOUR_MS),
            "retention.bytes": "-1",
            # The newest segment is never compacted, and all that is there is read at every start.
            "segment.ms": str(_HOUR_MS),
            "max.compaction.lag.ms": str(_HOUR_MS),
            "max.message.bytes": str(_TOPIC_MAX_MESSAGE_BYTES),
        },
        UNDECODED: lambda config: {
            "cleanup.policy": "delete",
            # What waits is read and appended anew every now and then: a day is for when no ingest runs at all.
            "retention.ms": str(min(config.retention_hours, _UNDECODED_HOURS) * _HOUR_MS),
            "retention.bytes": "-1",
            "max.message.bytes": str(_TOPIC_MAX_MESSAGE_BYTES),
        },
        DEADLETTER: lambda config: {
            "cleanup.policy": "delete",
            # Somebody has to look at them: that takes a week as easily as a day.
            "retention.ms": str(max(config.retention_hours, _DEADLETTER_HOURS) * _HOUR_MS),
            "retention.bytes": "-1",
            # The largest message of any topic, and the headers that it gets here.
            "max.message.bytes": str(_TOPIC_MAX_MESSAGE_BYTES + DEADLETTER_HEADER_BYTES),
        },
    }
)

_PARTITIONS: Final[Mapping[str, int]] = MappingProxyType({EXPORTERS: 4})
"""Topics whose number of partitions is not the configured one: everybody reads all of this one."""

# What the configuration calls them, and what librdkafka does.
_SECURITY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "protocol": "security.protocol",
        "mechanism": "sasl.mechanism",
        "username": "sasl.username",
        "ca_file": "ssl.ca.location",
        "cert_file": "ssl.certificate.location",
        "key_file": "ssl.key.location",
    }
)

_FORBIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_REFUSED: Final = frozenset(
    {
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_REQUEST,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    }
)


def _properties(config: KafkaConfig, client_id: str, ours: Mapping[str, str]) -> Properties:
    properties: Properties = {
        "bootstrap.servers": config.bootstrap_servers,
        "client.id": client_id,
        "socket.keepalive.enable": "true",
        # A broker that is back is found again within two seconds.
        "reconnect.backoff.ms": "100",
        "reconnect.backoff.max.ms": "2000",
        **ours,
    }
    for key, name in _SECURITY.items():
        value = getattr(config.security, key)
        if value is not None:
            properties[name] = str(value)
    if config.security.password is not None:
        properties["sasl.password"] = config.security.password.get_secret_value()
    for name, value in config.properties.items():
        properties[name] = str(value).lower() if isinstance(value, bool) else str(value)
    properties["logger"] = _ClientLog(client_id)
    return properties


def _made(kind: Callable[[Properties], Client], properties: Properties) -> Client:
    try:
        return kind(properties)
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError._INVALID_ARG:  # noqa: SLF001 - the client's own name for it
            raise ConfigError(f"the Kafka client refuses a property, see kafka.properties: {reason.str()}") from error
        raise


class _ClientLog:
    """Takes the lines of the Kafka client's own log, of which there may be dozens a second while a broker is away.

    The client calls it from `poll`, and asks for nothing of a logger but the method `log`.
    """

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._log = get_logger("kafka")
        self._throttle = Throttle()

    def log(self, level: int, _format: str, facility: str, _instance: str, text: str) -> None:
        """Write one line: what is an error to the client, which goes on trying, is a warning to us."""
        # CONFWARN says that a producer's property has no meaning for a consumer, and the like: ours are shared.
        word = "warning" if level >= 30 and facility != "CONFWARN" else "debug"
        self._throttle.log(
            self._log,
            word,
            (facility,),
            "the Kafka client has something to say",
            client=self._client_id,
            facility=facility,
            text=text,
        )


class _Session:
    """One conversation with Kafka that ends at a deadline."""

    def __init__(self, config: KafkaConfig, timeout_seconds: float) -> None:
        self._config = config
        self._timeout = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._heard: list[KafkaError] = []

    def __enter__(self) -> Self:
        self._client = admin(self._config, error_cb=self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.poll(0)
        # It knows us, by what it tells errors to, and we know it. Left to the garbage collector, it would be waited for by
        # whichever thread that finds it, for as long as its own threads need to end.
        del self._client

    def describe(self, names: Sequence[str]) -> dict[str, TopicDescription | str | None]:
        """Look topics up: None for one that is not there, a sentence for one that we may not see."""
        asked = self._client.describe_topics(TopicCollection(list(names)), request_timeout=self._left())
        found: dict[str, TopicDescription | str | None] = {}
        for name, future in asked.items():
            result = self._result(future)
            if not isinstance(result, KafkaError):
                found[name] = result
            elif result.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                found[name] = None
            elif result.code() in _FORBIDDEN:
                found[name] = (
                    f"This user may not see the topic {name}; allow it: {self.acls(name, 'Describe', 'DescribeConfigs')}"
                )
            else:
                raise self._away(result)
        return found

    def create(self, wanted: Topic) -> str | None:
        """Create a topic; a sentence says why that was not done."""
        how = f"create it: {self.creation(wanted)}"
        if not self._config.create_topics:
            return f"The topic {wanted.name} is missing, and kafka.create_topics is false; {how}"
        new = NewTopic(
            wanted.name,
            num_partitions=wanted.partitions,
            replication_factor=self._config.replication_factor,
            config=dict(wanted.settings),
        )
        left = self._left()
        future = self._client.create_topics([new], operation_timeout=left, request_timeout=left)[wanted.name]
        error = self._result(future)
        # Another instance may have been faster.
        if not isinstance(error, KafkaError) or error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return None
        if error.code() in _FORBIDDEN:
            return f"The topic {wanted.name} is missing, and this user may not create it; as one who may, {how}"
        if error.code() in _REFUSED:
            return (
                f"The topic {wanted.name} is missing, and Kafka refuses to create it: {error.str()} "
                f"Set kafka.partitions and kafka.replication_factor as this Kafka needs them, or {how}"
            )
        raise self._away(error)

    def settings(self, name: str) -> Mapping[str, str] | None:
        """Read a topic's settings; None when we may not."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        while True:
            future = next(iter(self._client.describe_configs([resource], request_timeout=self._left()).values()))
            result: dict[str, ConfigEntry] | KafkaError = self._result(future)
            if not isinstance(result, KafkaError):
                return {key: str(entry.value) for key, entry in result.items()}
            if result.code() in _FORBIDDEN:
                return None
            # Another broker may answer this, which hears of a new topic a little later.
            if result.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._away(result)
            self.pause()

    def pause(self) -> None:
        """Wait a moment before asking again."""
        time.sleep(min(0.1, self._left()))

    def creation(self, wanted: Topic) -> str:
        """The command that creates a topic."""
        settings = " ".join(f"--config {key}={value}" for key, value in wanted.settings.items())
        return (
            f"{self._tool('kafka-topics.sh')} --create --topic {wanted.name} --partitions {wanted.partitions} "
            f"--replication-factor {self._config.replication_factor} {settings}"
        )

    def alteration(self, name: str, key: str, value: str) -> str:
        """The command that changes a topic's setting."""
        return (
            f"{self._tool('kafka-configs.sh')} --alter --entity-type topics --entity-name {name} "
            f"--add-config {key}={value}"
        )

    def acls(self, name: str, *operations: str) -> str:
        """The command that allows us something on a topic."""
        allowed = " ".join(f"--operation {operation}" for operation in operations)
        user = self._config.security.username or "NAME"
        return f"{self._tool('kafka-acls.sh')} --add --allow-principal User:{user} {allowed} --topic {name}"

    def _tool(self, script: str) -> str:
        secured = "" if self._config.security.protocol == "plaintext" else " --command-config client.properties"
        return f"{script} --bootstrap-server {self._config.bootstrap_servers}{secured}"

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._away(None)
        return left

    def _result(self, future: Any) -> Any:  # noqa: ANN401 - each request has its own
        try:
            return future.result(self._left() + 1.0)
        except KafkaException as error:
            return error.args[0]
        except TimeoutError:
            return KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001 - the client's own name for it

    def _away(self, error: KafkaError | None) -> KafkaAway:
        self._client.poll(0)
        # What the client heard while it tried says more than that the time is over.
        told = [heard.str() for heard in self._heard if heard.code() != KafkaError._ALL_BROKERS_DOWN]  # noqa: SLF001 - the client has no other name for it
        reason = told[-1] if told else "no answer" if error is None else error.str()
        return KafkaAway(
            f"Kafka at {self._config.bootstrap_servers} (kafka.bootstrap_servers) did not answer "
            f"within {self._timeout:g} s: {reason}"
        )

    def _hear(self, error: KafkaError) -> None:
        self._heard = [*self._heard[-7:], error]


def _facts(description: TopicDescription, settings: Mapping[str, str] | None, *, created: bool) -> TopicFacts:
    return TopicFacts(
        name=description.name,
        topic_id=uuid_text(description.topic_id),
        partitions=len(description.partitions),
        log_append_time=None if settings is None else settings.get("message.timestamp.type") == "LogAppendTime",
        created=created,
    )


def _problems(session: _Session, wanted: Topic, settings: Mapping[str, str] | None) -> list[str]:
    """What about an existing topic breaks a promise: a sentence each."""
    if settings is None:
        allow = session.acls(wanted.name, "DescribeConfigs")
        return [f"This user may not read the settings of the topic {wanted.name}, to check them; allow it: {allow}"]
    found = []
    for key, (fits, meaning) in _rules(wanted).items():
        value, needed = settings.get(key), wanted.settings.get(key)
        if value is not None and needed is not None and not fits(value, needed):
            found.append(
                f"The topic {wanted.name} has {key}={value}, where {needed} is needed: {meaning}; "
                f"mend it: {session.alteration(wanted.name, key, needed)}"
            )
    return found


def _as_much(value: str, needed: str) -> bool:
    """Whether a limit is as large as needed, where -1 means that there is none."""
    return value == "-1" or (needed != "-1" and int(value) >= int(needed))


def _as_little(value: str, needed: str) -> bool:
    """Whether a limit is no larger than needed."""
    return int(value) <= int(needed)


_RULES: Final[Mapping[str, tuple[Callable[[str, str], bool], str]]] = MappingProxyType(
    {
        "message.timestamp.type": (
            str.__eq__,
            "batches end by the time at which the broker appended, and by another time they would not be repeatable",
        ),
        "cleanup.policy": (str.__eq__, "another policy refuses or removes messages that were not delivered"),
        "retention.ms": (_as_much, "a backend that is away for longer than that loses records"),
        "retention.bytes": (_as_much, "records are removed by size, before their time and maybe before delivery"),
        "max.message.bytes": (
            lambda value, _: int(value) >= MAX_MESSAGE_BYTES,
            "a full batch of messages would be refused",
        ),
    }
)

_RULES_OF_A_TABLE: Final[Mapping[str, tuple[Callable[[str, str], bool], str]]] = MappingProxyType(
    {
        "message.timestamp.type": (
            str.__eq__,
            "a producer whose clock is wrong would make its entries outlast those that are newer",
        ),
        "cleanup.policy": (
            lambda value, needed: set(value.replace(" ", "").split(",")) == set(needed.split(",")),
            "without both it grows for ever, or is read more and more slowly at every start",
        ),
        "retention.ms": (_as_much, "templates of exporters that tell them rarely would be forgotten"),
        "retention.bytes": (_as_much, "templates are removed by size, before their time"),
        "segment.ms": (_as_little, "what was replaced stays for longer, and is read at every start"),
        "max.compaction.lag.ms": (_as_little, "what was replaced stays for longer, and is read at every start"),
    }
)
"""The same for a topic that is compacted."""


def _rules(wanted: Topic) -> Mapping[str, tuple[Callable[[str, str], bool], str]]:
    compacted = "compact" in wanted.settings["cleanup.policy"]
    return {**_RULES, **_RULES_OF_A_TABLE} if compacted else _RULES
