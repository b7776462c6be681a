from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shared.config import KafkaConfig
from tests.integration.forwarders import PARTITIONS, Feed, Forwarder, Start
from tests.integration.programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Starts programs, and leaves none running."""
    with Programs(tmp_path / "programs") as ours:
        yield ours


@pytest.fixture
def config(kafka: str, topic_prefix: str) -> KafkaConfig:
    """A Kafka, with topics of the test's own."""
    return KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix, partitions=PARTITIONS)


@pytest.fixture
def feed(config: KafkaConfig) -> Feed:
    """What fills the topic."""
    return Feed(config)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Where the lake is."""
    return tmp_path / "lake"


@pytest.fixture
def start(config: KafkaConfig, lake: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts forwarders, and leaves none running."""
    started: list[Forwarder] = []

    def begin(environment: Mapping[str, object] | None = None, kafka: KafkaConfig = config) -> Forwarder:
        started.append(Forwarder(kafka, lake, tmp_path / "logs", environment))
        return started[-1]

    yield begin
    for forwarder in started:
        if forwarder.process.poll() is None:
            forwarder.kill()
