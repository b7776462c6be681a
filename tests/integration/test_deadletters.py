from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from forwarder import letters
from forwarder.__main__ import main
from forwarder.cut import Token
from forwarder.letters import KafkaLetterbox
from forwarder.sifting import Sifting
from shared import codec
from shared.config import KafkaConfig
from shared.kafka import RECORDS, full_name
from shared.metrics import Book
from tests.fakes import TOPIC_ID, MemorySink
from tests.forwarder.records import eventually, flows
from tests.integration.forwarders import Feed, Start, has, in_lake

pytestmark = pytest.mark.integration

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(config: KafkaConfig, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, with the configuration of the test's forwarders."""
    monkeypatch.setenv("SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS", config.bootstrap_servers)
    monkeypatch.setenv("SLUICEWAY_KAFKA__TOPIC_PREFIX", config.topic_prefix)
    sinks = {"lake": {"type": "parquet", "path": str(lake)}, "other": {"type": "parquet", "path": f"{lake}-other"}}
    monkeypatch.setenv("SLUICEWAY_FORWARDER__SINKS", json.dumps(sinks))

    def command(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["deadletters", *words])
        out, err = capsys.readouterr()
        return status, out + err

    return command


def refuse(config: KafkaConfig, ids: range, bad: set[int]) -> None:
    """Put the records that a sink refuses of a batch into the dead letters, as a forwarder does."""
    sink = MemorySink()
    sink.refuses = bad
    token = Token(TOPIC_ID, 1, 10, 20)
    sifting = Sifting(pa.Table.from_batches([flows(ids)]), token)
    sifting.deliver(sink.deliver)
    box = KafkaLetterbox(config, "test", Book())
    assert box.put(list(letters.refused(full_name(config, RECORDS), "lake", token, sifting, 1_700_000_000_000))) is None


def test_what_cannot_be_decoded_is_put_away_as_it_came(feed: Feed, start: Start, lake: Path, run: Run) -> None:
    """The message is in the dead letters with its own headers; the records around it are delivered."""
    feed.send(4)
    feed.put(b"no arrow at all", codec.headers(33, "feed"), 0)
    feed.send(4)
    forwarder = start()
    has(lake, feed.sent)
    eventually(lambda: run("list", "--format", "json")[1].startswith("{"), "a dead letter")
    status, out = run("list", "--format", "json")
    (told,) = map(json.loads, out.splitlines())
    assert status == 0
    assert (told["reason"], told["stage"], told["sink"], told["records"]) == ("corrupt", "forwarder", "lake", 33)
    assert told["origin"] == {"topic": feed.topic, "partition": 0, "offset": 1}
    assert "not a readable Arrow stream" in told["detail"]
    _, out = run("show", told["id"], "--format", "json")
    assert json.loads(out)["value"].replace(" ", "") == b"no arrow at all".hex()
    status, out = run("redeliver")
    assert status == 1
    assert "0 of 1 dead letters delivered" in out
    eventually(lambda: forwarder.books()["dropped"] == {"records": {"corrupt": 33}}, "counted")
    assert forwarder.stop() == 0


def test_refused_records_arrive_once_after_they_are_redelivered(config: KafkaConfig, lake: Path, run: Run) -> None:
    """A selection of letters goes to the sink they were meant for; to redeliver them again changes nothing."""
    refuse(config, range(1000), {7, 70})
    refuse(config, range(1000, 2000), {1700})
    status, out = run("list", "--format", "json", "--reason", "refused")
    told = sorted(map(json.loads, out.splitlines()), key=lambda one: int(one["records"]))
    assert status == 0
    assert [one["records"] for one in told] == [1, 2]
    assert told[0]["origin"] == {"topic": full_name(config, RECORDS), "partition": 1, "offset": 10, "end": 20}
    _, out = run("show", told[0]["id"], "--format", "json")
    assert [row["record_id"] for row in json.loads(out)["rows"]] == [f"{1700:016x}"]
    assert told[0]["id"] in run("list", "--format", "table")[1]
    assert told[0]["detail"] == "no such record"
    assert "would go to lake" in run("redeliver", told[0]["id"], "--dry-run")[1]
    assert in_lake(lake) == []
    assert run("redeliver", told[0]["id"])[0] == 0
    assert in_lake(lake) == [1700]
    for _ in range(2):
        status, out = run("redeliver", "--sink", "lake")
        assert (status, "2 of 2 dead letters delivered" in out) == (0, True)
        assert in_lake(lake) == [7, 70, 1700]
    assert run("redeliver", "--into", "other")[0] == 0
    assert in_lake(Path(f"{lake}-other")) == [7, 70, 1700]


def test_what_cannot_be_redelivered_is_said(config: KafkaConfig, run: Run) -> None:
    """An id of another form, a sink that there is not, and a topic without any letter."""
    assert run("show", "7")[0] == 2
    assert "partition:offset, such as 3:120" in run("show", "7")[1]
    status, out = run("list", "--format", "json")
    assert (status, "there is no topic" in out) == (1, True)
    refuse(config, range(1000), {7})
    status, out = run("redeliver", "--into", "lke")
    assert status == 2
    assert "there is no sink lke in forwarder.sinks, but: lake, other" in out
    assert run("list", "--sink", "nobody", "--format", "json") == (0, "")
