from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from shared import codec
from shared.config import KafkaConfig
from shared.kafka import admin
from tests.forwarder.records import HOUR_NS, RECEIVED_NS, eventually, flows
from tests.integration.forwarders import INTERVAL_MS, PARTITIONS, Feed, has, in_lake
from tests.integration.programs import Program, Programs, Stage

pytestmark = pytest.mark.integration

Files = dict[str, tuple[int, bytes]]


@dataclass
class Scene:
    """A topic, a forwarder that serves the sink `lake` and no other, and replays as processes of their own."""

    kafka: KafkaConfig
    feed: Feed
    lake: Path
    study: Path
    programs: Programs
    protocol: str = "classic"

    def settings(self, *, serves: bool) -> dict[str, Any]:
        """Of the forwarder, or of replays: these know the sink `study` too, which gets nothing but what they deliver."""
        batch = {"interval_ms": INTERVAL_MS, "max_records": 200}
        sinks = {"lake": {"type": "parquet", "path": str(self.lake), "batch": batch}}
        if not serves:
            sinks["study"] = {"type": "parquet", "path": str(self.study)}
        return {
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap_servers,
                "topic_prefix": self.kafka.topic_prefix,
                "properties": {} if self.protocol == "classic" else {"group.protocol": self.protocol},
            },
            "forwarder": {"group_id": f"{self.kafka.topic_prefix}group", "sinks": sinks},
            "log": {"format": "json"},
        }

    @property
    def group(self) -> str:
        """The group of the sink `lake`."""
        return f"{self.kafka.topic_prefix}group.lake"

    def serve(self) -> Stage:
        """Start the forwarder."""
        return self.programs.forwarder(self.settings(serves=True))

    def delivered(self, forwarder: Stage) -> Files:
        """The files of the lake when everything is delivered and committed."""
        has(self.lake, self.feed.sent)

        def committed() -> bool:
            told = forwarder.json("/api/v1/partitions")
            return len(told) == PARTITIONS and all(one["committed"] == one["end"] for one in told)

        forwarder.until(committed, "all committed")
        return files(self.lake)

    def begin(self, *words: str) -> Program:
        """Start a replay of the lake."""
        given = ("forwarder", "replay", "--sink", "lake", "--format", "json", *words)
        return self.programs.run(*given, settings=self.settings(serves=False))

    def replay(self, *words: str) -> dict[str, Any]:
        """Run a replay to its end, and return what it says."""
        ours = self.begin(*words)
        assert ours.wait() == 0, ours.last_words()
        told: dict[str, Any] = json.loads(ours.output)
        return told

    def refused(self, *words: str) -> str:
        """Run a replay that is refused, and return why."""
        ours = self.begin(*words)
        assert ours.wait() == 1, ours.last_words()
        assert ours.output == ""
        return ours.log


@pytest.fixture(params=["classic"])
def scene(kafka: str, topic_prefix: str, tmp_path: Path, programs: Programs, request: Any) -> Scene:  # noqa: ANN401 - pytest's own
    """A topic with records of two hours, some of them twice."""
    config = KafkaConfig(bootstrap_servers=kafka, topic_prefix=topic_prefix, partitions=PARTITIONS)
    feed = Feed(config)
    feed.send(80)
    for number in range(40):
        ids = [100_000 + 10 * number + one for one in range(10)]
        value = bytes(codec.encode(flows(ids, RECEIVED_NS + HOUR_NS, sampler_name=["edge-1"] * 10)))
        feed.put(value, codec.headers(10, "feed"), number % PARTITIONS)
        feed.sent += ids
    feed.repeat(20)
    return Scene(config, feed, tmp_path / "lake", tmp_path / "study", programs, request.param)


def files(lake: Path) -> Files:
    """All files of a lake: their inodes and contents."""
    paths = [path for path in lake.rglob("*") if path.is_file()]
    return {str(path.relative_to(lake)): (path.stat().st_ino, path.read_bytes()) for path in paths}


def bytes_of(lake: Files) -> dict[str, bytes]:
    """Their contents alone."""
    return {name: content for name, (_, content) in lake.items()}


def test_a_replay_changes_nothing_and_brings_back_what_is_missing(scene: Scene) -> None:
    """Into the same lake no file changes; what was deleted comes back to the byte; elsewhere the records are the same.

    Meanwhile the forwarder goes on.
    """
    forwarder = scene.serve()
    before = scene.delivered(forwarder)
    told = scene.replay("--from", "-1h", "--dry-run")
    assert files(scene.lake) == before
    total = told["total"]
    assert (total["messages"] >= 140, total["records"], total["delivered"], total["duplicate"]) == (
        True,
        1400,
        1200,
        200,
    )

    scene.feed.send(40)
    assert scene.replay("--from", "-1h")["total"]["delivered"] >= 1200
    now = scene.delivered(forwarder)
    assert {name: now[name] for name in before} == before

    (hour,) = scene.lake.glob("date=*/hour=23")
    shutil.rmtree(hour)
    scene.replay("--from", "-1h")
    assert bytes_of(files(scene.lake)) == bytes_of(now)
    assert sum(files(scene.lake)[name] == now[name] for name in now) >= len(now) // 2

    scene.replay("--from", "-1h", "--into", "study")
    assert in_lake(scene.study) == sorted(scene.feed.sent)
    assert {Path(name).name for name in files(scene.study)} == {Path(name).name for name in now}
    told = scene.replay("--from", "-1h", "--into", "study", "--exporter", "edge-1", "--range-deleted")
    assert (told["total"]["delivered"], told["total"]["not_selected"]) == (400, 1200)
    assert len(in_lake(scene.study)) == 1600 + 400
    assert forwarder.stop() == 0


@pytest.mark.parametrize("scene", ["classic", "consumer"], indirect=True)
def test_a_replay_that_is_killed_or_stopped_goes_on(scene: Scene) -> None:
    """The same command delivers the rest; what was delivered and not kept comes again under the same names."""
    before = scene.delivered(scene.serve())
    words = ("--from", "-1h", "--into", "study", "--rate", "100")
    for way, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 0)):
        had = len(files(scene.study))
        ours = scene.begin(*words)
        eventually(lambda had=had: len(files(scene.study)) > had + 1, "some files", 60.0)  # type: ignore[misc]
        ours.send_signal(way)
        assert ours.wait() == status
        assert 0 < len(in_lake(scene.study)) < len(scene.feed.sent)
        assert ("stopped before the end" in ours.log) == (status == 0)
    rest = scene.begin(*words[:4])
    assert rest.wait() == 0
    assert "it goes on where it was stopped" in rest.log
    assert json.loads(rest.output)["total"]["delivered"] < len(scene.feed.sent)
    assert in_lake(scene.study) == sorted(scene.feed.sent)
    assert bytes_of(files(scene.study)) == bytes_of(before)
    groups = admin(scene.kafka).list_consumer_groups().result().valid
    assert [one.group_id for one in groups if one.group_id.startswith(f"{scene.group}.replay")] == []


def test_a_replay_that_would_double_is_refused(scene: Scene) -> None:
    """It says why, and what can be done; nothing is delivered."""
    assert "has delivered nothing" in scene.refused("--from", "-1h")
    forwarder = scene.serve()
    scene.delivered(forwarder)
    assert forwarder.stop() == 0
    client = admin(scene.kafka)

    def set_offsets(group: str) -> None:
        names = [TopicPartition(scene.feed.topic, number, 10) for number in range(PARTITIONS)]
        asked = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, names)])
        eventually(lambda: all(one.done() for one in asked.values()), "offsets set")
        for one in asked.values():
            one.result()

    set_offsets(f"{scene.kafka.topic_prefix}group.study")
    assert "the sink study is served itself" in scene.refused("--from", "-1h", "--into", "study")
    set_offsets(scene.group)
    said = scene.refused("--from", "-1h")
    assert "it is not known by which settings its batches were made" in said
    assert "--range-deleted" in said
    assert files(scene.study) == {}
    shutil.rmtree(scene.lake)
    # Offsets that were moved by hand end where nobody has cut.
    told = scene.replay("--from", "-1h", "--range-deleted")
    assert told["total"]["messages"] == 10 * PARTITIONS
