from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import httpx
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from deploy.local.kafka import Broker
from shared import codec
from shared.config import KafkaConfig
from shared.kafka import RECORDS, admin, ensure_topics
from tests.forwarder.records import eventually, flows
from tests.integration.forwarders import PARTITIONS, Feed, Forwarder, Start, has, in_lake

pytestmark = pytest.mark.integration


def test_records_reach_the_lake_and_idle_partitions_are_closed(feed: Feed, start: Start, lake: Path) -> None:
    """Everything in the topic is in the lake, once, the last batch too although nothing follows it; the books say so."""
    feed.send(300)
    forwarder = start()
    has(lake, feed.sent)
    assert forwarder.ready()
    eventually(lambda: forwarder.books()["delivered"] == {"records": 3000}, "delivered, says the ledger")
    assert forwarder.books()["dropped"] == {"records": {}}
    partitions = forwarder.get("/api/v1/partitions").json()
    assert sorted(one["partition"] for one in partitions) == list(range(PARTITIONS))
    eventually(lambda: _committed(forwarder), "committed to the end")
    assert all(one["lag_messages"] == 0 for one in forwarder.get("/api/v1/partitions").json())
    assert forwarder.get("/api/v1/sinks").json()["lake"]["phase"] == "consuming"
    metrics = forwarder.get("/metrics").text
    assert 'sluiceway_forwarder_records_delivered_total{sink="lake"} 3000.0' in metrics
    assert forwarder.get("/livez").status_code == httpx.codes.OK
    forwarder.process.send_signal(signal.SIGHUP)
    eventually(lambda: any(line["event"].startswith("read again") for line in forwarder.lines()), "read again")
    assert forwarder.stop() == 0
    (closed,) = forwarder.said("the sink's books are closed")
    assert closed["delivered"] == {"records": 3000}
    assert closed["in_flight"] == {"records": 0}


def test_killed_in_mid_batch_it_loses_and_doubles_nothing(feed: Feed, start: Start, lake: Path) -> None:
    """**durable**, **once**: SIGKILL at any moment, again and again, and every record is in the lake one time."""
    chance = random.Random(7)
    for _ in range(3):
        feed.send(600, records=50)
        forwarder = start()
        files = len(list(lake.rglob("*.parquet")))
        enough = files + chance.randint(1, 12)
        eventually(lambda: len(list(lake.rglob("*.parquet"))) >= enough, "some files written", 60.0)  # noqa: B023
        forwarder.kill()
    feed.send(5)
    forwarder = start()
    has(lake, feed.sent)
    assert forwarder.stop() == 0
    assert in_lake(lake) == feed.sent
    assert not list(lake.rglob(".*"))


def test_records_that_were_produced_twice_are_in_the_lake_once(feed: Feed, start: Start, lake: Path) -> None:
    """**once**: what stands in the log again is not delivered again, by a forwarder that has just started neither."""
    feed.send(40)
    first = start()
    has(lake, feed.sent)
    feed.repeat(40)
    feed.send(4)
    has(lake, feed.sent)
    eventually(lambda: first.books()["dropped"] == {"records": {"duplicate": 400}}, "the repeated ones counted")
    assert 'sluiceway_forwarder_duplicates_total{kind="exact",sink="lake"} 400.0' in first.get("/metrics").text
    first.kill()
    feed.repeat(44)
    feed.send(4)
    second = start()
    has(lake, feed.sent)
    eventually(lambda: _committed(second), "all committed")
    assert second.stop() == 0
    (closed,) = second.said("the sink's books are closed")
    assert closed["delivered"]["records"] >= 40
    assert closed["dropped"]["records"]["duplicate"] >= 440
    assert second.said("reading again what was delivered lately, to know it when it comes twice")
    assert in_lake(lake) == feed.sent


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_settings_that_change_at_a_kill_lose_and_double_nothing(
    feed: Feed, start: Start, lake: Path, protocol: str
) -> None:
    """**once**: what was delivered and not committed comes out as it was cut, though the settings cut otherwise now."""
    classic = protocol == "classic"
    properties = {"session.timeout.ms": 6000} if classic else {"group.protocol": "consumer"}
    chance = random.Random(11)
    for interval_ms, max_records in ((1000, 200), (150, 200), (1000, 35), (400, 1000)):
        batch = {"interval_ms": interval_ms, "max_records": max_records}
        sinks = {"lake": {"type": "parquet", "path": str(lake), "batch": batch}}
        feed.send(200)
        files = len(list(lake.rglob("*.parquet")))
        enough = files + chance.randint(1, 9)
        forwarder = start({"FORWARDER__SINKS": sinks, "KAFKA__PROPERTIES": properties})
        eventually(lambda: len(list(lake.rglob("*.parquet"))) >= enough, "some files written", 90.0)  # noqa: B023
        forwarder.kill()
    feed.send(5)
    forwarder = start({"KAFKA__PROPERTIES": properties})
    has(lake, feed.sent)
    assert forwarder.stop() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_forwarders_that_join_and_leave_lose_and_double_nothing(
    feed: Feed, start: Start, lake: Path, protocol: str
) -> None:
    """Partitions that move between members, in order and by a crash, while records come: each is in the lake once."""
    # In the newer protocol the broker decides how soon a killed member is missed; the one of the tests as soon.
    properties = {"session.timeout.ms": 6000} if protocol == "classic" else {"group.protocol": "consumer"}
    environment = {"KAFKA__PROPERTIES": properties}
    feed.send(40)
    first = start(environment)
    eventually(first.ready, "ready")
    second = start(environment)
    for _ in range(10):
        feed.send(40)
        time.sleep(0.2)
    eventually(lambda: len(second.get("/api/v1/partitions").json()) == PARTITIONS // 2, "shared", 60.0)
    assert first.stop() == 0
    feed.send(200)
    third = start(environment)
    eventually(lambda: len(third.get("/api/v1/partitions").json()) == PARTITIONS // 2, "shared again", 60.0)
    feed.send(200)
    third.kill()
    feed.send(200)
    has(lake, feed.sent)
    second.books()
    assert second.stop() == 0
    assert in_lake(lake) == feed.sent


def test_a_clean_stop_leaves_the_open_batch_in_kafka(feed: Feed, start: Start, lake: Path) -> None:
    """What is not cut when the signal comes is not delivered in a hurry: the next run makes the batch of it."""
    a_day = {"lake": {"type": "parquet", "path": str(lake), "batch": {"interval_ms": 24 * 3_600_000}}}
    feed.send(8)
    forwarder = start({"FORWARDER__SINKS": a_day})
    eventually(lambda: forwarder.books()["in_flight"] == {"records": 80}, "all of it in the open batch")
    assert forwarder.stop() == 0
    assert in_lake(lake) == []
    (closed,) = forwarder.said("the sink's books are closed")
    assert closed["returned"] == {"records": 80}
    start()
    has(lake, feed.sent)


def test_a_broker_that_restarts_is_survived(private_kafka: Broker, topic_prefix: str, start: Start, lake: Path) -> None:
    """While the broker is away the forwarder stays alive and is not ready; when it is back nothing was lost or doubled."""
    kafka = KafkaConfig(
        bootstrap_servers=private_kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=PARTITIONS
    )
    feed = Feed(kafka)
    feed.send(100)
    forwarder = start(kafka=kafka)
    has(lake, feed.sent)
    eventually(lambda: _committed(forwarder), "all committed")
    private_kafka.kill()
    eventually(lambda: "did not answer" in forwarder.checks()["kafka"][1], "says so", 60.0)
    assert not forwarder.ready()
    assert forwarder.get("/livez").status_code == httpx.codes.OK
    private_kafka.start()
    feed.send(100)
    has(lake, feed.sent)
    eventually(forwarder.ready, "ready again", 60.0)
    # A batch that was not committed when the broker went is delivered again under its token, and counted again.
    eventually(lambda: forwarder.books()["delivered"]["records"] >= 2000, "delivered, says the ledger")
    assert forwarder.stop() == 0


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    private_kafka: Broker, topic_prefix: str, start: Start, lake: Path
) -> None:
    """Without a broker the forwarder stays up, is alive and not ready, says what is the matter, and recovers."""
    kafka = KafkaConfig(
        bootstrap_servers=private_kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=PARTITIONS
    )
    feed = Feed(kafka)
    feed.send(20)
    private_kafka.stop()
    forwarder = start(kafka=kafka)
    eventually(lambda: "kafka.bootstrap_servers" in forwarder.checks()["kafka"][1], "says so", 60.0)
    assert not forwarder.ready()
    assert forwarder.get("/livez").status_code == httpx.codes.OK
    private_kafka.start()
    has(lake, feed.sent)
    eventually(forwarder.ready, "ready", 60.0)


def test_a_topic_that_is_missing_is_told_and_waited_for(
    config: KafkaConfig, feed: Feed, start: Start, lake: Path
) -> None:
    """With creation off, a missing topic makes it not ready, with the command that creates it; then it goes on."""
    forwarder = start({"KAFKA__CREATE_TOPICS": False})
    eventually(lambda: "is missing" in forwarder.checks()["topic"][1], "says so")
    ok, detail = forwarder.checks()["topic"]
    assert not ok
    assert "kafka-topics.sh" in detail
    assert forwarder.checks()["kafka"][0]
    feed.send(20)
    has(lake, feed.sent)
    assert forwarder.ready()


def test_a_topic_with_the_producers_times_is_not_consumed(
    config: KafkaConfig, feed: Feed, start: Start, lake: Path
) -> None:
    """CreateTime breaks the cuts: not ready, with the command that mends it; when it is mended it goes on."""
    ensure_topics(config, [RECORDS])
    _alter(config, feed.topic, "message.timestamp.type", "CreateTime")
    forwarder = start()
    eventually(lambda: "message.timestamp.type=CreateTime" in forwarder.checks()["topic"][1], "says so")
    assert not forwarder.ready()
    assert "kafka-configs.sh" in forwarder.checks()["topic"][1]
    _alter(config, feed.topic, "message.timestamp.type", "LogAppendTime")
    feed.send(20)
    has(lake, feed.sent)
    assert forwarder.ready()


def test_a_message_of_an_unknown_schema_stops_its_partition(feed: Feed, start: Start, lake: Path) -> None:
    """Its partition stands still, the forwarder is not ready and says why; the other partitions go on."""
    feed.send(8)
    unknown = [("schema", b"99"), *codec.headers(1, "feed")[1:]]
    feed.put(bytes(codec.encode(flows([10**6]))), unknown, 1)
    before = list(feed.sent)
    feed.send(8, partition=1)
    behind = set(feed.sent) - set(before)
    feed.send(8, partition=2)
    forwarder = start()
    eventually(lambda: "partition 1 stands still" in forwarder.checks()["sink:lake"][1], "stands still", 60.0)
    assert "schema version 99" in forwarder.checks()["sink:lake"][1]
    # The open batch of the partition that stands still may have no end in the log yet; it waits with the rest of it.
    stands = set(before) & {one for start in range(11, 80, 40) for one in range(start, start + 10)}
    expected = set(feed.sent) - behind - stands
    eventually(lambda: expected <= set(in_lake(lake)), "the others delivered", 60.0)
    assert not behind & set(in_lake(lake))
    assert forwarder.get("/livez").status_code == httpx.codes.OK
    assert forwarder.stop() == 0


def test_a_corrupt_message_is_counted_and_passed(feed: Feed, start: Start, lake: Path) -> None:
    """What cannot be decoded is a dead letter, and a drop with a reason and a count; the records around it arrive."""
    feed.send(4)
    feed.put(b"no arrow at all", codec.headers(33, "feed"), 0)
    feed.send(4)
    forwarder = start()
    has(lake, feed.sent)
    eventually(lambda: forwarder.books()["dropped"] == {"records": {"corrupt": 33}}, "counted")
    assert forwarder.ready()
    (said,) = forwarder.said("a message cannot be decoded, and is put into the dead letters")
    assert (said["offset"], said["records"]) == (1, 33)


def test_unknown_and_missing_columns_are_readable(feed: Feed, start: Start, lake: Path) -> None:
    """A message with a column that we do not know, and without most that we know, is delivered with what we know."""
    import pyarrow as pa

    of_none_other = 1_000_000
    columns = {"record_id": pa.array([of_none_other], pa.uint64()), "aura": pa.array(["blue"])}
    feed.put(bytes(codec.encode(pa.RecordBatch.from_pydict(columns))), codec.headers(1, "newer"), 0)
    feed.send(4)
    start()
    has(lake, [*feed.sent, of_none_other])


def test_gaps_in_the_log_are_no_gaps_in_the_lake(config: KafkaConfig, start: Start, lake: Path) -> None:
    """Offsets that are no messages (markers of transactions) neither stop the reader nor cost a record."""
    feed = Feed(config, properties={"transactional.id": f"{config.topic_prefix}tx", "message.timeout.ms": "60000"})
    feed.producer.init_transactions(30.0)
    for _ in range(5):
        feed.producer.begin_transaction()
        feed.send(8)
        feed.producer.commit_transaction(30.0)
    forwarder = start()
    has(lake, feed.sent)
    assert forwarder.ready()


def test_messages_that_expired_unread_are_counted(config: KafkaConfig, feed: Feed, start: Start, lake: Path) -> None:
    """A group that comes back too late goes on at the log's start, and its books say how many messages are gone."""
    feed.send(40)
    first = start()
    has(lake, feed.sent)
    eventually(lambda: _committed(first), "all committed")
    assert first.stop() == 0
    before = list(feed.sent)
    feed.send(10, partition=0)
    gone = len(feed.sent) - len(before)
    kept_from = _end(config, feed, 0)
    feed.send(10, partition=0)
    client = admin(config)
    deleted = client.delete_records([TopicPartition(feed.topic, 0, kept_from)])
    for future in deleted.values():
        future.result(30.0)
    second = start()
    kept = feed.sent[: len(before)] + feed.sent[len(before) + gone :]
    has(lake, kept)
    assert second.books()["expired"] == {"messages": 10}
    assert second.said("messages have expired before they were read: Kafka kept them for too short a time for this lag")


def test_an_offset_above_the_end_stops_the_sink(config: KafkaConfig, feed: Feed, start: Start) -> None:
    """A group's offset above the end of the log is never reset in silence: the sink stops, and says what to do."""
    feed.send(4)
    group, place = f"{config.topic_prefix}group.lake", TopicPartition(feed.topic, 2, 1000)
    client = admin(config)
    client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [place])])[group].result(30.0)
    forwarder = start()
    eventually(lambda: "--reset-offsets" in forwarder.checks()["sink:lake"][1], "says so", 60.0)
    assert "partition 2 ends at offset 1, but this group has delivered up to 1000" in forwarder.checks()["sink:lake"][1]
    assert not forwarder.ready()
    assert forwarder.get("/livez").status_code == httpx.codes.OK
    assert forwarder.stop() == 0


def test_a_topic_that_was_made_again_is_another_topic(
    config: KafkaConfig, feed: Feed, start: Start, lake: Path
) -> None:
    """Offsets begin at 0 again after a delete and re-create; since tokens carry the topic's id, both are in the lake."""
    feed.send(40)
    first = start()
    has(lake, feed.sent)
    eventually(lambda: _committed(first), "all committed")
    assert first.stop() == 0
    client = admin(config)
    client.delete_topics([feed.topic])[feed.topic].result(30.0)
    eventually(lambda: feed.topic not in client.list_topics(timeout=10.0).topics, "deleted")
    again = Feed(config)
    again.skip(len(feed.sent))
    again.send(40)
    start()
    has(lake, feed.sent + again.sent)


def test_a_lake_that_cannot_be_written_ends_the_start(tmp_path: Path, start: Start) -> None:
    """The sentence names the lake, and the exit status is 1."""
    (tmp_path / "file").write_text("no directory")
    sinks = {"lake": {"type": "parquet", "path": str(tmp_path / "file" / "lake")}}
    forwarder = start({"FORWARDER__SINKS": sinks})
    assert forwarder.process.wait(30.0) == 1
    text = forwarder.output.read_text()
    assert "cannot be written" in text
    assert "Traceback" not in text


def test_a_lake_that_cannot_be_written_for_a_while_loses_nothing(feed: Feed, start: Start, lake: Path) -> None:
    """The sink is tried again until it works; meanwhile the forwarder is not ready, and a second signal ends it at once."""
    lake.mkdir()
    in_the_way = lake / "date=2023-11-14"
    in_the_way.write_text("in the way")
    feed.send(40)
    forwarder = start()
    eventually(lambda: "cannot be written" in forwarder.checks()["sink:lake"][1], "not ready", 60.0)
    assert 'sluiceway_forwarder_retries_total{reason="away",sink="lake"}' in forwarder.get("/metrics").text
    forwarder.process.send_signal(signal.SIGTERM)
    eventually(lambda: any("stopping:" in line["event"] for line in forwarder.lines()), "stopping")
    forwarder.process.send_signal(signal.SIGTERM)
    assert forwarder.process.wait(5.0) == 0
    again = start()
    eventually(lambda: "cannot be written" in again.checks()["sink:lake"][1], "not ready", 60.0)
    in_the_way.unlink()
    has(lake, feed.sent)
    eventually(again.ready, "ready")


def _committed(forwarder: Forwarder) -> bool:
    """Whether all partitions are committed to their ends."""
    partitions = forwarder.get("/api/v1/partitions").json()
    return len(partitions) == PARTITIONS and all(one["committed"] == one["end"] for one in partitions)


def _alter(config: KafkaConfig, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    client = admin(config)
    for future in client.incremental_alter_configs([resource]).values():
        future.result(30.0)


def _end(config: KafkaConfig, feed: Feed, partition: int) -> int:
    from confluent_kafka.admin import OffsetSpec

    name = TopicPartition(feed.topic, partition)
    client = admin(config)
    return int(client.list_offsets({name: OffsetSpec.latest()})[name].result(30.0).offset)
