import socket
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local import kafka as local
from deploy.local.kafka import Broker, KafkaUnavailable


@pytest.mark.integration
def test_what_is_acknowledged_outlives_a_killed_broker_on_the_same_port(
    private_kafka: Broker, topic_prefix: str
) -> None:
    """A broker killed by SIGKILL and started again has its port and every message that it acknowledged."""
    before = private_kafka.bootstrap_servers
    topic = f"{topic_prefix}kept"
    admin = AdminClient({"bootstrap.servers": before})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(timeout=10)
    producer = Producer({"bootstrap.servers": before, "acks": "all"})
    for number in range(100):
        producer.produce(topic, str(number).encode())
    assert producer.flush(10) == 0

    private_kafka.restart()

    assert private_kafka.bootstrap_servers == before
    consumer = Consumer({"bootstrap.servers": before, "group.id": topic})
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (0, 100)
    finally:
        consumer.close()


@pytest.mark.integration
def test_a_broker_is_started_once_and_stopped_once(private_kafka: Broker) -> None:
    """Starting what runs and stopping what does not are no errors, and change nothing."""
    before = private_kafka.bootstrap_servers
    private_kafka.start()
    assert private_kafka.bootstrap_servers == before
    private_kafka.stop()
    assert not private_kafka.is_running()
    private_kafka.stop()
    private_kafka.start()
    assert private_kafka.bootstrap_servers == before


def test_no_process_of_somebody_else_is_taken_for_the_broker(tmp_path: Path) -> None:
    """A pid file that is left over and names another program's process is not believed."""
    ours = local.LocalKafka(tmp_path)
    (tmp_path / "pid").write_text("1\n", encoding="ascii")
    assert not ours.is_running()
    ours.stop()


def test_a_port_in_use_is_said() -> None:
    """A port that another program holds is named, with what to set."""
    with socket.socket() as other:
        other.bind((local.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(KafkaUnavailable, match=f"port {port} is in use .* KAFKA_PORT"):
            local.require_free(port)


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_said(text: str) -> None:
    """KAFKA_PORT has to be a port."""
    with pytest.raises(KafkaUnavailable, match="KAFKA_PORT"):
        local.port_from({"KAFKA_PORT": text})


def test_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Docker, Java and Maven, the message names all three ways out."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KafkaUnavailable) as raised:
        local.broker(tmp_path)
    for word in ("Docker", "openjdk-17-jre-headless maven", "KAFKA_BOOTSTRAP_SERVERS"):
        assert word in str(raised.value)


DOCKER_WITHOUT_DAEMON = '[ "$1" = info ] && exit 1 || exit 0'
JAVA_17 = "echo 'openjdk version \"17.0.1\"' >&2"
JAVA_11 = "echo 'openjdk version \"11.0.2\"' >&2"


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        pytest.param({"docker": "exit 0", "java": JAVA_17, "mvn": ""}, local.DockerKafka, id="docker before java"),
        pytest.param({"docker": "exit 0"}, local.DockerKafka, id="docker alone"),
        pytest.param(
            {"docker": DOCKER_WITHOUT_DAEMON, "java": JAVA_17, "mvn": ""},
            local.LocalKafka,
            id="docker without a daemon",
        ),
        pytest.param({"java": JAVA_17, "mvn": ""}, local.LocalKafka, id="java and maven"),
        pytest.param({"java": JAVA_11, "mvn": ""}, "is Java 11, and Kafka needs 17", id="java too old"),
        pytest.param({"java": "exit 1", "mvn": ""}, "does not run", id="java that is none"),
        pytest.param({"docker": DOCKER_WITHOUT_DAEMON}, "daemon does not answer, and Java is not", id="no java"),
    ],
)
def test_a_broker_is_run_in_the_way_that_the_machine_allows(
    programs: dict[str, str], expected: type[Broker] | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker where its daemon answers, else Java and Maven, else an error with what is wrong with each."""
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if isinstance(expected, str):
        with pytest.raises(KafkaUnavailable, match=expected):
            local.broker(tmp_path)
    else:
        assert type(local.broker(tmp_path)) is expected


def test_both_ways_run_the_same_kafka() -> None:
    """The image and the jars are of one version, and their brokers have the same settings."""
    compose = yaml.safe_load((local.HERE / "compose.yaml").read_text(encoding="utf-8"))["services"]["kafka"]
    version = compose["image"].removeprefix("apache/kafka:")
    assert f"<version>{version}</version>" in (local.HERE / "pom.xml").read_text(encoding="utf-8")
    expected = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in local.BROKER_SETTINGS.items()}
    assert expected.items() <= compose["environment"].items()
