"""The Kafka of a benchmark: topics of its own, and what is really in them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from deploy.local import kafka
from shared.codec import read_headers
from tests.bench import system

PARTITIONS = 12
ANSWER_SECONDS = 20.0
READ_SECONDS = 120.0


class BenchKafka:
    """A Kafka that answers, and what a benchmark asks it."""

    def __init__(self, bootstrap_servers: str, directory: Path | None) -> None:
        """`directory` is that of a broker which runs from jars; None when it runs in another way."""
        self.bootstrap_servers = bootstrap_servers
        self._directory = directory
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[BenchKafka]:
        """The Kafka of KAFKA_BOOTSTRAP_SERVERS, else a broker of our own that leaves nothing behind."""
        given = kafka.given_bootstrap_servers()
        if given is not None:
            yield cls(given, None)
            return
        home = kafka.CHECKOUT / ".local"
        home.mkdir(exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="bench-", dir=home))
        ours = kafka.broker(directory)
        try:
            ours.start()
            yield cls(ours.bootstrap_servers, directory if isinstance(ours, kafka.LocalKafka) else None)
        finally:
            if isinstance(ours, kafka.DockerKafka):
                ours.remove()
            else:
                ours.kill()
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def new_prefix() -> str:
        """A prefix that makes the topics of one round its own."""
        return f"bench-{uuid.uuid4().hex[:8]}."

    def create(self, topic: str) -> None:
        """Create a topic of as many partitions as ingest makes by default, and wait until it is there."""
        self._admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(ANSWER_SECONDS)
        deadline = time.monotonic() + ANSWER_SECONDS
        while topic not in self._admin.list_topics(timeout=ANSWER_SECONDS).topics:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was created and did not come")
            time.sleep(0.1)

    def delete(self, prefix: str) -> None:
        """Delete the topics of one round."""
        ours = [name for name in self._admin.list_topics(timeout=ANSWER_SECONDS).topics if name.startswith(prefix)]
        for future in self._admin.delete_topics(ours).values() if ours else ():
            future.result(ANSWER_SECONDS)

    def messages(self, topic: str) -> int:
        """How many messages a topic has got: the sum of its partitions' end offsets."""
        asked = {partition: OffsetSpec.latest() for partition in self._partitions(topic)}
        answers = self._admin.list_offsets(asked)
        return sum(future.result(ANSWER_SECONDS).offset for future in answers.values())

    def records(self, topic: str) -> int:
        """How many records the messages of a topic hold, as their headers say: each one is read."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "bench",
                "log_level": 0,
                "enable.auto.commit": "false",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": "true",
            }
        )
        partitions = self._partitions(topic)
        consumer.assign([TopicPartition(one.topic, one.partition, 0) for one in partitions])
        records, ended = 0, set[int]()
        deadline = time.monotonic() + READ_SECONDS
        try:
            while len(ended) < len(partitions) and time.monotonic() < deadline:
                for message in consumer.consume(1000, 1.0):
                    error = message.error()
                    if error is None:
                        records += read_headers(message.headers()).records or 0  # type: ignore[arg-type]
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition() or 0)
                    else:
                        raise KafkaException(error)
        finally:
            consumer.close()
        return records

    def bytes_on_disk(self, topic: str) -> int | None:
        """Bytes of a topic's log, compressed as it was sent; None where the broker's disk is not ours to see."""
        if self._directory is None:
            return None
        return sum(path.stat().st_size for path in self._directory.glob(f"data/{topic}-*/*.log"))

    def cpu(self) -> system.Cpu:
        """CPU time of the broker so far; none where its process is not ours to see."""
        if self._directory is None:
            return system.Cpu()
        return system.cpu({int((self._directory / "pid").read_text(encoding="ascii")): "kafka"})

    def _partitions(self, topic: str) -> list[TopicPartition]:
        found = self._admin.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
        return [TopicPartition(topic, number) for number in found.partitions]
