"""What tests of every package may ask for: a Kafka, captures, names of their own."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from deploy.local.kafka import (
    HERE,
    HOST,
    Broker,
    DockerKafka,
    KafkaUnavailable,
    broker,
    free_port,
    given_bootstrap_servers,
    wait_until_it_answers,
    what_is_missing,
    why_no_docker,
)

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes says something of the machine, not of the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("house")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a Kafka that all tests share: topics of their own, see topic_prefix, keep them apart.

    KAFKA_BOOTSTRAP_SERVERS if it is set; else Docker; else a broker from jars. One that cannot be had is a failure,
    not a skip: the tests on a real Kafka are the ones that matter.
    """
    given = given_bootstrap_servers()
    if given is not None:
        missing = what_is_missing(given, 5.0)
        if missing is not None:
            pytest.fail(f"KAFKA_BOOTSTRAP_SERVERS is {given}, and no Kafka answers there: {missing}")
        yield given
    elif why_no_docker() is None:
        yield from _kafka_in_a_container()
    else:
        yield from _started(_broker(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own, started; the test may stop, kill and restart it."""
    try:
        ours = broker(tmp_path / "kafka")
    except KafkaUnavailable as error:
        pytest.skip(f"a broker that may be killed has to be our own: {error}")
    for _ in _started(ours):
        yield ours


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that makes a test's topics its own on a shared Kafka."""
    return f"t-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of captured exports: SLUICEWAY_CAPTURES, else shared/captures beside the checkout or further up.

    It is not part of the repository (the captures are other people's); tests that need it are skipped without it.
    """
    named = os.environ.get("SLUICEWAY_CAPTURES")
    candidates = [Path(named)] if named else [folder / "shared" / "captures" for folder in ROOT.parents]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    pytest.skip("no captures: put them into ../shared/captures, or name their folder by SLUICEWAY_CAPTURES")


def _broker(directory: Path) -> Broker:
    try:
        return broker(directory)
    except KafkaUnavailable as error:
        pytest.fail(str(error))


def _started(ours: Broker) -> Iterator[str]:
    """Start a broker, hand out its address, and leave nothing of it running."""
    try:
        ours.start()
    except KafkaUnavailable as error:
        pytest.fail(str(error))
    try:
        yield ours.bootstrap_servers
    finally:
        # Its data is not looked at again, so there is nothing that a clean stop would save.
        if isinstance(ours, DockerKafka):
            ours.remove()
        else:
            ours.kill()


def _kafka_in_a_container() -> Iterator[str]:
    """Run the image of the compose file by testcontainers, whose reaper removes it even when the tests are killed."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    service: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8"))["services"]["kafka"]
    container = DockerContainer(service["image"]).with_bind_ports(9092, port)
    for name, value in service["environment"].items():
        container = container.with_env(name, value.replace("${KAFKA_PORT:-9092}", str(port)))
    with container:
        wait_until_it_answers(f"{HOST}:{port}", 90.0, lambda: None)
        yield f"{HOST}:{port}"
