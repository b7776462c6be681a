import contextlib
import gc
import re
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from deploy.local.kafka import DockerKafka, KafkaUnavailable, broker
from shared.config import KafkaConfig
from shared.errors import ConfigError
from shared.kafka import (
    COUNTERS,
    DEADLETTER,
    DEADLETTER_HEADER_BYTES,
    EXPORTERS,
    RECORDS,
    UNDECODED,
    KafkaAway,
    TopicReport,
    _Session,
    admin,
    consumer,
    consumer_properties,
    ensure_topics,
    full_name,
    partition_count,
    producer,
    producer_properties,
    topic,
)

DEADLINE_SECONDS = 30.0


def config(**values: object) -> KafkaConfig:
    """A configuration, of which a test says only what it is about."""
    return KafkaConfig.model_validate(values)


@pytest.fixture
def there(kafka: str, topic_prefix: str) -> KafkaConfig:
    """A configuration of the real Kafka, with topics of the test's own."""
    return config(bootstrap_servers=kafka, topic_prefix=topic_prefix, partitions=3)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where no broker answers."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def changed(settings: KafkaConfig, **values: object) -> KafkaConfig:
    """The same configuration with other values."""
    return KafkaConfig.model_validate(settings.model_dump() | values)


def until(wanted: Callable[[], bool]) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


# --- properties -----------------------------------------------------------------------------------------------------


def test_a_producer_never_gives_up_repeats_or_reorders() -> None:
    """The producer's properties keep what was queued until it is acknowledged by all replicas, once and in order."""
    properties = producer_properties(config(), "ingest-0")
    wanted = {
        "bootstrap.servers": "localhost:9092",
        "client.id": "ingest-0",
        "enable.idempotence": "true",
        "acks": "all",
        "message.timeout.ms": "0",
        "linger.ms": "5",
        "compression.type": "lz4",
        "socket.keepalive.enable": "true",
    }
    assert {name: properties[name] for name in wanted} == wanted


def test_the_producers_queue_is_bounded_as_told() -> None:
    """The bounds of the queue are arguments, in messages and in bytes."""
    properties = producer_properties(config(), "x", queue_messages=7, queue_bytes=1 << 20, compression="zstd")
    assert properties["queue.buffering.max.messages"] == "7"
    assert properties["queue.buffering.max.kbytes"] == "1024"
    assert properties["compression.type"] == "zstd"


def test_a_full_queue_is_an_error_at_once(nobody: str) -> None:
    """While no broker answers, the producer takes what its queue holds and refuses the next message without waiting."""
    ours = producer(producer_properties(config(bootstrap_servers=nobody), "x", queue_messages=5))
    for _ in range(5):
        ours.produce("t", b"x", partition=0)
    with pytest.raises(BufferError):
        ours.produce("t", b"x", partition=0)
    ours.purge()


NEGOTIATED = {"partition.assignment.strategy", "session.timeout.ms"}


def test_a_consumer_moves_only_when_it_is_told() -> None:
    """The consumer's properties let it neither commit nor jump by itself, and bound what it fetches ahead."""
    properties = consumer_properties(config(), "sluiceway-forwarder.lake", "forwarder")
    wanted = {
        "group.id": "sluiceway-forwarder.lake",
        "client.id": "forwarder",
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "queued.max.messages.kbytes": "8192",
        "fetch.max.bytes": "4194304",
    }
    assert {name: properties[name] for name in wanted} == wanted


@pytest.mark.parametrize("protocol", ["classic", "consumer", "CONSUMER"])
def test_each_group_protocol_has_its_own_properties(protocol: str) -> None:
    """The broker's group protocol refuses what members negotiate in the classic one; the client takes both sets."""
    properties = consumer_properties(config(properties={"group.protocol": protocol}), "g", "x")
    assert NEGOTIATED & properties.keys() == (NEGOTIATED if protocol == "classic" else set())
    consumer(properties).close()


def test_configured_properties_have_the_last_word() -> None:
    """What the configuration says in librdkafka's own words wins over ours, for every client, as librdkafka's text."""
    settings = config(properties={"linger.ms": 50, "enable.idempotence": False, "client.id": "mine", "acks": "1"})
    properties = producer_properties(settings, "x")
    assert properties["linger.ms"] == "50"
    assert properties["enable.idempotence"] == "false"
    assert properties["client.id"] == "mine"
    assert consumer_properties(settings, "g", "x")["acks"] == "1"


SECURITY: dict[str, tuple[Mapping[str, object], Mapping[str, str]]] = {
    "plaintext": ({}, {"security.protocol": "plaintext"}),
    "password": (
        {"protocol": "sasl_ssl", "mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"},
        {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "p",
        },
    ),
    "certificates": (
        {"protocol": "ssl", "ca_file": "ca.pem", "cert_file": "c.pem", "key_file": "k.pem"},
        {
            "security.protocol": "ssl",
            "ssl.ca.location": "ca.pem",
            "ssl.certificate.location": "c.pem",
            "ssl.key.location": "k.pem",
        },
    ),
}


@pytest.mark.parametrize("case", SECURITY)
def test_security_is_handed_to_the_client(case: str) -> None:
    """What the configuration says of security becomes the client's properties, and what it leaves out stays out."""
    given, wanted = SECURITY[case]
    properties = producer_properties(config(security=given), "x")
    found = {n: v for n, v in properties.items() if n.startswith(("sasl.", "ssl.", "security."))}
    assert found == wanted


MAKERS: dict[str, Callable[[KafkaConfig], object]] = {
    "producer": lambda settings: producer(producer_properties(settings, "x")),
    "consumer": lambda settings: consumer(consumer_properties(settings, "g", "x")),
    "admin": admin,
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "properties", [{"socket.timeout.mss": 5}, {"socket.timeout.ms": "soon"}], ids=["unknown name", "wrong value"]
)
def test_a_property_that_does_not_exist_is_a_configuration_error(maker: str, properties: dict[str, object]) -> None:
    """A property that librdkafka refuses is an error that names it and the key it came from."""
    with pytest.raises(ConfigError, match=r"kafka\.properties.*socket\.timeout\.ms"):
        MAKERS[maker](config(properties=properties))


def test_the_clients_log_does_not_flood_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Of what the client repeats while a broker is away, one line is written, as a warning, with the client's name."""
    caplog.set_level("INFO")
    log = producer_properties(config(), "ingest-3")["logger"]
    for _ in range(50):
        log.log(40, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "connection refused")
    log.log(30, "%s [%s] %s", "CONFWARN", "rdkafka#producer-1", "group.id is a consumer property")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "ingest-3" in str(record.msg)
    assert "connection refused" in str(record.msg)


# --- topics ---------------------------------------------------------------------------------------------------------


def test_a_topic_is_created_with_what_our_promises_need() -> None:
    """flows.records has append times, is kept by time alone, and its name has the prefix."""
    wanted = topic(config(topic_prefix="dc1.", retention_hours=48), RECORDS)
    assert wanted.name == "dc1.flows.records"
    assert wanted.settings == {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": str(48 * 3600 * 1000),
        "retention.bytes": "-1",
        "max.message.bytes": "1048588",
    }


def test_counters_are_kept_as_long_as_records() -> None:
    """flows.counters is kept by time alone; nobody cuts batches by its times."""
    wanted = topic(config(topic_prefix="dc1.", retention_hours=48), COUNTERS)
    assert wanted.name == "dc1.flows.counters"
    assert wanted.settings == {
        "cleanup.policy": "delete",
        "retention.ms": str(48 * 3600 * 1000),
        "retention.bytes": "-1",
        "max.message.bytes": "1048588",
    }


@pytest.mark.parametrize(("hours", "kept"), [(6, 6), (72, 24)])
def test_what_waits_for_its_template_is_kept_for_a_day(hours: int, kept: int) -> None:
    """Or for as long as records are: it is read and written again all the while, and that is not to fill the disks."""
    wanted = topic(config(topic_prefix="dc1.", retention_hours=hours), UNDECODED)
    assert wanted.name == "dc1.flows.undecoded"
    assert wanted.settings["retention.ms"] == str(kept * 3600 * 1000)
    assert wanted.settings["cleanup.policy"] == "delete"


@pytest.mark.parametrize(("hours", "kept"), [(72, 168), (1000, 1000)])
def test_dead_letters_are_kept_for_a_week(hours: int, kept: int) -> None:
    """At least, since somebody has to look at them; and they have room for the headers that they get."""
    wanted = topic(config(topic_prefix="dc1.", retention_hours=hours), DEADLETTER)
    assert wanted.name == "dc1.flows.deadletter"
    assert wanted.settings["retention.ms"] == str(kept * 3600 * 1000)
    room = int(wanted.settings["max.message.bytes"]) - int(topic(config(), RECORDS).settings["max.message.bytes"])
    assert room == DEADLETTER_HEADER_BYTES


@pytest.mark.parametrize(("copies", "minimum"), [(1, None), (2, None), (3, "2"), (5, "2")])
def test_two_of_three_copies_have_to_acknowledge(copies: int, minimum: str | None) -> None:
    """With three copies or more, a record is acknowledged when two have it."""
    assert topic(config(replication_factor=copies), RECORDS).settings.get("min.insync.replicas") == minimum


def test_no_broker_is_told_with_the_reason(nobody: str) -> None:
    """When no broker answers in time, the error names the address, the key and what the network said."""
    settings = config(bootstrap_servers=nobody)
    for ask in (lambda: ensure_topics(settings, [RECORDS], 1.0), lambda: partition_count(settings, RECORDS, 1.0)):
        with pytest.raises(KafkaAway, match="refused") as error:
            ask()
        assert nobody in str(error.value)
        assert "kafka.bootstrap_servers" in str(error.value)


def settings_of(there: KafkaConfig, name: str) -> dict[str, str | None]:
    """A topic's settings as Kafka says them."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    client = admin(there)
    future = client.describe_configs([resource], request_timeout=10)[resource]
    return {key: entry.value for key, entry in future.result().items()}


def alter(there: KafkaConfig, name: str, key: str, value: str) -> None:
    """Change one setting of a topic."""
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    client = admin(there)
    client.incremental_alter_configs([resource], request_timeout=10)[resource].result()


@pytest.mark.integration
def test_a_missing_topic_is_created(there: KafkaConfig) -> None:
    """A topic that is missing is created with its settings, said to be so, and is right when looked at again."""
    report = ensure_topics(there, [RECORDS])
    facts = report.topics[RECORDS]
    assert report.problems == ()
    assert (facts.name, facts.partitions, facts.created) == (full_name(there, RECORDS), 3, True)
    assert facts.log_append_time
    wanted = topic(there, RECORDS)
    found = settings_of(there, wanted.name)
    assert {key: found[key] for key in wanted.settings} == wanted.settings

    again = ensure_topics(there, [RECORDS])
    assert again.problems == ()
    assert (again.topics[RECORDS].topic_id, again.topics[RECORDS].created) == (facts.topic_id, False)
    assert partition_count(there, RECORDS) == 3


@pytest.mark.integration
def test_instances_that_start_together_agree(there: KafkaConfig) -> None:
    """Several instances may find the topic missing at a time: one creates it, and all report the same one."""
    reports: list[TopicReport] = []
    threads = [threading.Thread(target=lambda: reports.append(ensure_topics(there, [RECORDS], 20.0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.problems for report in reports] == [()] * 4
    assert len({report.topics[RECORDS].topic_id for report in reports}) == 1


@pytest.mark.integration
def test_a_topic_made_anew_has_another_id(there: KafkaConfig) -> None:
    """An id is fit for a file name, and tells a topic from the one of the same name that was deleted."""
    first = ensure_topics(there, [RECORDS]).topics[RECORDS]
    client = admin(there)
    client.delete_topics([first.name], request_timeout=10)[first.name].result()
    until(lambda: partition_count(there, RECORDS) == 0)
    second = ensure_topics(there, [RECORDS]).topics[RECORDS]
    assert second.topic_id != first.topic_id
    for facts in (first, second):
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", facts.topic_id)


@pytest.mark.integration
def test_a_topic_that_may_not_be_created_is_told(there: KafkaConfig) -> None:
    """With creation off, a missing topic is a sentence with the whole command that creates it, and stays missing."""
    off = changed(there, create_topics=False)
    name = full_name(there, RECORDS)
    report = ensure_topics(off, [RECORDS])
    assert report.topics == {}
    (problem,) = report.problems
    assert "kafka.create_topics" in problem
    assert (
        f"kafka-topics.sh --bootstrap-server {there.bootstrap_servers} --create --topic {name} "
        "--partitions 3 --replication-factor 1 --config message.timestamp.type=LogAppendTime "
    ) in problem
    assert partition_count(off, RECORDS) == 0


@pytest.mark.integration
def test_a_replication_that_is_impossible_is_told(there: KafkaConfig) -> None:
    """When Kafka refuses to create the topic, its reason is in the sentence, and the keys to change."""
    report = ensure_topics(changed(there, replication_factor=200), [RECORDS])
    assert report.topics == {}
    (problem,) = report.problems
    assert "200" in problem
    assert "kafka.replication_factor" in problem


UNFIT = {
    "message.timestamp.type": "CreateTime",
    "cleanup.policy": "compact",
    "retention.ms": "3600000",
    "retention.bytes": "1000000",
    "max.message.bytes": "100000",
}


@pytest.mark.integration
@pytest.mark.parametrize("key", UNFIT)
def test_a_setting_that_breaks_a_promise_is_told_with_its_remedy(there: KafkaConfig, key: str) -> None:
    """A topic that exists with an unfit setting is named with the command that mends it, and the command does."""
    name = full_name(there, RECORDS)
    new = NewTopic(name, num_partitions=2, replication_factor=1, config=dict(topic(there, RECORDS).settings))
    client = admin(there)
    client.create_topics([new], request_timeout=10)[name].result()
    alter(there, name, key, UNFIT[key])

    report = ensure_topics(there, [RECORDS])
    (problem,) = report.problems
    assert f"{key}={UNFIT[key]}" in problem
    assert report.topics[RECORDS].partitions == 2
    assert report.topics[RECORDS].log_append_time == (key != "message.timestamp.type")
    command = re.search(
        rf"kafka-configs\.sh --bootstrap-server {re.escape(there.bootstrap_servers)} --alter --entity-type topics "
        rf"--entity-name {re.escape(name)} --add-config (\S+)=(\S+)$",
        problem,
    )
    assert command is not None
    alter(there, name, command[1], command[2])
    assert ensure_topics(there, [RECORDS]).problems == ()


UNFIT_FOR_A_TABLE = {
    "message.timestamp.type": "CreateTime",
    "cleanup.policy": "delete",
    "retention.ms": "86400000",
    "retention.bytes": "1000000",
    "segment.ms": "604800000",
    "max.compaction.lag.ms": "9223372036854775807",
}


@pytest.mark.integration
def test_the_topic_of_templates_is_compacted_and_has_four_partitions(there: KafkaConfig) -> None:
    """What is told again replaces what was told before, within an hour; what is not told for a week goes."""
    report = ensure_topics(there, [EXPORTERS])
    assert report.problems == ()
    assert report.topics[EXPORTERS].partitions == 4
    found = settings_of(there, full_name(there, EXPORTERS))
    assert {key: found[key] for key in ("cleanup.policy", "retention.ms", "segment.ms", "max.compaction.lag.ms")} == {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(7 * 24 * 3_600_000),
        "segment.ms": "3600000",
        "max.compaction.lag.ms": "3600000",
    }
    assert ensure_topics(there, [EXPORTERS]).problems == ()


@pytest.mark.integration
def test_settings_that_make_the_topic_of_templates_useless_are_told(there: KafkaConfig) -> None:
    """Each with the command that mends it; policies in the other order, and shorter segments, are no problem."""
    ensure_topics(there, [EXPORTERS])
    name = full_name(there, EXPORTERS)
    for key, value in {"cleanup.policy": "delete,compact", "segment.ms": "600000"}.items():
        alter(there, name, key, value)
    assert ensure_topics(there, [EXPORTERS]).problems == ()
    for key, value in UNFIT_FOR_A_TABLE.items():
        alter(there, name, key, value)
    problems = ensure_topics(there, [EXPORTERS]).problems
    assert len(problems) == len(UNFIT_FOR_A_TABLE)
    for problem in problems:
        command = re.search(rf"--alter --entity-type topics --entity-name {name} --add-config (\S+)=(\S+)$", problem)
        assert command is not None
        assert f"{command[1]}={UNFIT_FOR_A_TABLE[command[1]]}" in problem
        alter(there, name, command[1], command[2])
    assert ensure_topics(there, [EXPORTERS]).problems == ()


@pytest.mark.integration
@pytest.mark.parametrize(("key", "value"), [("retention.ms", "-1"), ("retention.ms", str(10**12))])
def test_a_longer_retention_is_no_problem(there: KafkaConfig, key: str, value: str) -> None:
    """A topic that is kept for longer than configured, or for ever, fits."""
    ensure_topics(there, [RECORDS])
    alter(there, full_name(there, RECORDS), key, value)
    assert ensure_topics(there, [RECORDS]).problems == ()


# --- what a user may not do -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that looks at access rules; whoever has no rule may do everything."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    try:
        ours = broker(tmp_path_factory.mktemp("guarded"), settings=settings)
        ours.start()
    except KafkaUnavailable as error:
        pytest.skip(f"a broker with access rules has to be our own: {error}")
    yield ours.bootstrap_servers
    if isinstance(ours, DockerKafka):
        ours.remove()
    else:
        ours.kill()


class Rules:
    """Access rules for us, who log in without a name. One rule on a resource forbids there all that has none."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._made: list[AclBinding] = []

    def allow_on_topic(self, name: str, operation: AclOperation) -> None:
        """Allow an operation on a topic, and with that forbid the others."""
        self._allow(ResourceType.TOPIC, name, [operation])

    def forbid_creation(self) -> None:
        """Allow on the cluster all that is needed but the creation of topics."""
        needed = [AclOperation.CLUSTER_ACTION, AclOperation.ALTER, AclOperation.DESCRIBE]
        self._allow(ResourceType.BROKER, "kafka-cluster", needed)

    def clear(self) -> None:
        """Remove what was made, at once: the right to remove is among it."""
        filters = [
            AclBindingFilter(
                made.restype,
                made.name,
                made.resource_pattern_type,
                made.principal,
                made.host,
                made.operation,
                made.permission_type,
            )
            for made in self._made
        ]
        for future in self._client.delete_acls(filters, request_timeout=10).values():
            future.result()

    def _allow(self, kind: ResourceType, name: str, operations: Sequence[AclOperation]) -> None:
        pattern, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        bindings = [AclBinding(kind, name, pattern, "User:ANONYMOUS", "*", one, allow) for one in operations]
        self._made += bindings
        for future in self._client.create_acls(bindings, request_timeout=10).values():
            future.result()


@pytest.fixture
def rules(guarded_kafka: str) -> Iterator[Rules]:
    """The guarded broker's access rules, of which none is left after the test."""
    ours = Rules(admin(config(bootstrap_servers=guarded_kafka)))
    yield ours
    ours.clear()


@dataclass(frozen=True)
class Forbidden:
    """A case: what is allowed on the topic, whether it is there, and what is then said and counted."""

    allowed: AclOperation
    exists: bool
    says: str
    partitions: int


FORBIDDEN = {
    "to see it": Forbidden(
        AclOperation.ALTER_CONFIGS, True, "may not see the topic .*kafka-acls.sh .*--operation Describe ", 0
    ),
    "to read its settings": Forbidden(
        AclOperation.DESCRIBE, True, "may not read the settings .*kafka-acls.sh .*--operation DescribeConfigs ", 2
    ),
    "to create it": Forbidden(AclOperation.DESCRIBE, False, "may not create it; .*kafka-topics.sh .*--create ", 0),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_we_may_not_do_is_told(guarded_kafka: str, rules: Rules, topic_prefix: str, case: str) -> None:
    """What access rules forbid is a sentence with the command for somebody who may, and no error."""
    forbidden = FORBIDDEN[case]
    there = config(bootstrap_servers=guarded_kafka, topic_prefix=topic_prefix, partitions=2)
    name = full_name(there, RECORDS)
    if forbidden.exists:
        ensure_topics(there, [RECORDS])
    else:
        rules.forbid_creation()
    rules.allow_on_topic(name, forbidden.allowed)

    report = ensure_topics(there, [RECORDS])
    (problem,) = report.problems
    assert re.search(forbidden.says, problem)
    assert name in problem
    # Settings that may not be read are not known; a topic that may not be seen is not there for us.
    assert [facts.log_append_time for facts in report.topics.values()] == [None] * (forbidden.partitions > 0)
    assert partition_count(there, RECORDS) == forbidden.partitions


# --- messages -------------------------------------------------------------------------------------------------------


def take(client: Consumer, count: int) -> list[Message]:
    """Read messages until there are enough."""
    taken: list[Message] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(taken) < count:
        assert time.monotonic() < deadline, f"only {len(taken)} of {count} messages came"
        taken += client.consume(count - len(taken), timeout=0.5)
    return taken


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_reads_what_was_produced(there: KafkaConfig, protocol: str) -> None:
    """Under both group protocols a consumer gets what was produced, stamped by the broker, and goes on where it was."""
    name = ensure_topics(there, [RECORDS]).topics[RECORDS].name
    reports: list[KafkaError | None] = []
    ours = producer(producer_properties(there, "test"))
    for n in range(30):
        ours.produce(name, b"%d" % n, partition=n % 3, on_delivery=lambda error, _: reports.append(error))
    assert ours.flush(DEADLINE_SECONDS) == 0
    assert reports == [None] * 30

    settings = changed(there, properties={"group.protocol": protocol})
    group = uuid.uuid4().hex

    def begin(client: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in client.committed(partitions, timeout=DEADLINE_SECONDS):
            partition.offset = OFFSET_BEGINNING if partition.offset < 0 else partition.offset
            client.incremental_assign([partition])

    first = consumer(consumer_properties(settings, group, "test"))
    first.subscribe([name], on_assign=begin)
    messages = take(first, 30)
    assert sorted(int(message.value() or b"") for message in messages) == list(range(30))
    assert {message.timestamp()[0] for message in messages} == {TIMESTAMP_LOG_APPEND_TIME}
    first.commit(offsets=[TopicPartition(name, 0, 10), TopicPartition(name, 1, 9)], asynchronous=False)
    first.close()

    second = consumer(consumer_properties(settings, group, "test"))
    second.subscribe([name], on_assign=begin)
    places = [(message.partition(), message.offset()) for message in take(second, 11)]
    second.close()
    assert sorted(places) == [(1, 9), *((2, offset) for offset in range(10))]


@pytest.mark.integration
def test_a_place_that_is_gone_is_an_error(there: KafkaConfig) -> None:
    """A consumer whose offset is not in the log is told, and is never moved elsewhere in silence."""
    name = ensure_topics(there, [RECORDS]).topics[RECORDS].name
    ours = consumer(consumer_properties(there, uuid.uuid4().hex, "test"))
    ours.assign([TopicPartition(name, 0, 1000)])
    (message,) = take(ours, 1)
    error = message.error()
    assert error is not None
    assert error.code() == KafkaError._AUTO_OFFSET_RESET
    ours.close()


@pytest.mark.parametrize("broken", [False, True], ids=["well", "broken off"])
def test_a_conversation_leaves_no_client_behind(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """Who ends it lets the client go, at once: the garbage collector would let another thread wait for its end."""

    class Client:
        def __init__(self, _: KafkaConfig, *, error_cb: Callable[[KafkaError], None]) -> None:
            self.error_cb = error_cb

        def poll(self, _: float) -> None:
            """Nothing comes."""

    made: list[weakref.ref[Client]] = []

    def make(config: KafkaConfig, *, error_cb: Callable[[KafkaError], None]) -> Client:
        client = Client(config, error_cb=error_cb)
        made.append(weakref.ref(client))
        return client

    monkeypatch.setattr("shared.kafka.admin", make)
    gc.disable()
    try:
        with contextlib.suppress(KafkaAway), _Session(KafkaConfig(), 1.0):
            if broken:
                raise KafkaAway("nobody answers")
        assert [one() for one in made] == [None]
    finally:
        gc.enable()
