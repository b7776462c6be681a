from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import pytest

from forwarder.config import CutConfig, CutOverride, ForwarderConfig, ParquetSinkConfig
from forwarder.course import Epoch, Noted
from forwarder.replay import request as requests
from forwarder.replay.plan import Delivered, RefusedError
from forwarder.replay.report import as_json, show
from forwarder.replay.request import REMEMBERED_SECONDS, Request
from forwarder.replay.run import Pace, Replay
from forwarder.replay.session import Prepared, perform, prepare
from forwarder.replay.tally import Tally
from forwarder.shape import shape_of
from forwarder.sinks import SINKS
from shared.errors import ConfigError, SluicewayError
from shared.kafka import TopicFacts
from tests.fakes import TOPIC_ID
from tests.forwarder.records import message, shape
from tests.forwarder.replay.topic import Backend, Kafka

NOW_MS = 100_000
TOPIC = TopicFacts("flows.records", TOPIC_ID, 2, log_append_time=True)
CONFIG = ForwarderConfig(
    sinks={
        "lake": ParquetSinkConfig(type="parquet", path="./lake", batch=CutOverride(interval_ms=1000)),
        "study": ParquetSinkConfig(type="parquet", path="./study"),
    }
)
ASKED = Request("lake", "0:5,1:5", "0:30,1:30")
SHAPE = shape_of(CONFIG, "lake", 2)
GROUP = "sluiceway-forwarder.lake"


@pytest.fixture
def kafka() -> Kafka:
    """Two partitions of forty messages, all of them delivered to the lake."""
    ours = Kafka(chunk=4)
    for number in range(2):
        for step in range(40):
            ours.append(number, 10_000 + 400 * step, *message([100 * number + step]))
    ours.groups[GROUP] = {number: Delivered(40, Noted((Epoch(0, SHAPE),))) for number in range(2)}
    return ours


class Quiet:
    """Tells nothing of how far it is, and asks for a stop after so many turns."""

    def __init__(self, turns: int | None = None) -> None:
        self.stopping = threading.Event()
        self._left = turns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, read: int, total: int, tally: Tally) -> None:
        """Count a turn."""
        assert read <= total
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.stopping.set()


def prepared(
    kafka: Kafka, asked: Request = ASKED, *, afresh: bool = False, config: ForwarderConfig = CONFIG
) -> Prepared:
    """What is to be done."""
    return prepare(asked, config, TOPIC, kafka, NOW_MS, afresh=afresh)


def performed(kafka: Kafka, ours: Prepared, backend: Backend, turns: int | None = None, *, keep: bool = True) -> Replay:
    """Do it, or some turns of it."""
    quiet = Quiet(turns)
    return perform(ours, TOPIC_ID, kafka, backend, pace=Pace(None), meter=quiet, stopping=quiet.stopping, keep=keep)


def ids(backend: Backend) -> list[int]:
    """What a backend has."""
    return sorted(one for table, _ in backend.has.values() for one in table["record_id"].to_pylist())


def test_what_is_done_is_forgotten(kafka: Kafka) -> None:
    """The whole batches around the range are delivered, and nothing is left of where it was."""
    backend = Backend()
    assert performed(kafka, prepared(kafka), backend).finished
    assert ids(backend) == [*range(5, 30), *range(105, 130)]
    assert kafka.marks == {}


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_what_is_stopped_goes_on(kafka: Kafka, turns: int) -> None:
    """The same request delivers the rest, and what it delivers twice has the same name."""
    backend = Backend()
    first = prepared(kafka)
    assert not first.goes_on
    stopped = performed(kafka, first, backend, turns)
    assert not stopped.finished
    assert {number: offset for number, (offset, _) in kafka.marks.items()} == {
        number: strand.reached for number, strand in stopped.strands.items()
    }
    second = prepared(kafka)
    assert second.goes_on
    assert performed(kafka, second, backend).finished
    assert ids(backend) == [*range(5, 30), *range(105, 130)]
    assert kafka.marks == {}


def test_what_goes_on_means_what_it_meant(kafka: Kafka) -> None:
    """Times before now, and the end of what was delivered, are those of the beginning; `afresh` are those of now."""
    asked = Request("lake", "-85s", into="study", received_from="-1d", received_to="now")
    first = prepared(kafka, asked)
    performed(kafka, first, Backend(), 0)
    kafka.groups[GROUP] = {number: replace(one, committed=40) for number, one in kafka.groups[GROUP].items()}
    later = prepare(asked, CONFIG, TOPIC, kafka, NOW_MS + 4_000)
    assert later.goes_on
    assert later.selection == first.selection
    assert [(leg.first, leg.end) for leg in later.legs] == [(leg.first, leg.end) for leg in first.legs]
    anew = prepare(asked, CONFIG, TOPIC, kafka, NOW_MS + 4_000, afresh=True)
    assert not anew.goes_on
    assert anew.selection != first.selection
    assert [leg.first for leg in anew.legs] == [leg.first + 10 for leg in first.legs]


def test_what_is_finished_and_not_forgotten_is_done(kafka: Kafka) -> None:
    """A replay that was killed just before its end has nothing left to do."""
    ours = prepared(kafka)
    texts = {number: mark.text() for number, mark in ours.bookmarks.items()}
    kafka.mark({0: (30, texts[0]), 1: (30, texts[1])})
    rest = prepared(kafka)
    assert rest.legs == ()
    assert performed(kafka, rest, Backend()).finished
    assert kafka.marks == {}


def test_bookmarks_of_which_some_are_missing_are_no_beginning(kafka: Kafka) -> None:
    """What was not kept for all partitions was never begun: nothing of it may be left out."""
    kafka.mark({0: (30, prepared(kafka).bookmarks[0].text()), 1: (3, "another's")})
    assert not prepared(kafka).goes_on
    assert len(prepared(kafka).legs) == 2


def test_where_it_is_cannot_always_be_kept(kafka: Kafka) -> None:
    """It does not begin when nothing can be kept; later it goes on, and the next run repeats what was not kept."""
    kafka.away_after = 0
    backend = Backend()
    with pytest.raises(SluicewayError, match="no broker answers"):
        performed(kafka, prepared(kafka), backend)
    assert backend.has == {}
    kafka.away_after = 1
    performed(kafka, prepared(kafka), backend, 5)
    assert ids(backend) != []
    assert {number: offset for number, (offset, _) in kafka.marks.items()} == {0: 5, 1: 5}
    kafka.away_after = None
    assert performed(kafka, prepared(kafka), backend).finished
    assert ids(backend) == [*range(5, 30), *range(105, 130)]


def test_a_dry_run_keeps_nothing(kafka: Kafka) -> None:
    """It neither goes on nor is gone on with."""
    performed(kafka, prepared(kafka), Backend(), 2)
    kept = dict(kafka.marks)
    performed(kafka, prepared(kafka, afresh=True), Backend(), keep=False)
    assert kafka.marks == kept


def test_settings_that_change_in_the_middle_are_noticed(kafka: Kafka) -> None:
    """Where the settings of now decide, because the former ones are not known, both halves need the same."""
    kafka.groups[GROUP] = {number: Delivered(40, Noted()) for number in range(2)}
    asked = replace(ASKED, range_deleted=True)
    performed(kafka, prepared(kafka, asked), Backend(), 1)
    assert prepared(kafka, asked).goes_on
    other = CONFIG.model_copy(update={"batch": CutConfig(max_records=7)})
    with pytest.raises(SluicewayError, match=r"have changed since this replay was begun .* --restart"):
        prepared(kafka, asked, config=other)
    assert not prepared(kafka, asked, config=other, afresh=True).goes_on


def test_a_sink_that_delivered_nothing_has_nothing_to_be_repeated(kafka: Kafka) -> None:
    """What was never delivered is for `serve`."""
    kafka.groups.clear()
    with pytest.raises(SluicewayError, match="serve --sink lake"):
        prepared(kafka)


def test_what_is_not_known_is_refused_unless_the_sink_has_nothing_of_it(kafka: Kafka) -> None:
    """By the shape of the sink's settings, then."""
    kafka.groups[GROUP] = {0: Delivered(40, Noted())}
    with pytest.raises(RefusedError, match="--range-deleted"):
        prepared(kafka)
    for asked in (replace(ASKED, range_deleted=True), replace(ASKED, into="study")):
        assert [leg.epochs for leg in prepared(kafka, asked).legs] == [(Epoch(0, SHAPE),)]


def test_another_sink_that_is_served_itself_is_refused(kafka: Kafka) -> None:
    """It has the range by other names, or will get it; who says that it has nothing of it is believed."""
    into = replace(ASKED, into="study")
    assert len(prepared(kafka, into).legs) == 2
    kafka.groups["sluiceway-forwarder.study"] = {1: Delivered(3, Noted())}
    with pytest.raises(SluicewayError, match="the sink study is served itself"):
        prepared(kafka, into)
    assert len(prepared(kafka, replace(into, range_deleted=True)).legs) == 2
    only_the_other = replace(into, begin="0:5", end="0:30")
    assert len(prepared(kafka, only_the_other).legs) == 1


def test_what_is_older_than_a_backend_remembers_is_refused(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past that, it would take a copy for something new."""
    monkeypatch.setattr(requests, "REMEMBERED_SECONDS", {"parquet": 88.0})
    monkeypatch.setattr("forwarder.replay.session.REMEMBERED_SECONDS", {"parquet": 88.0})
    assert len(prepared(kafka).legs) == 2
    monkeypatch.setattr("forwarder.replay.session.REMEMBERED_SECONDS", {"parquet": 87.0})
    with pytest.raises(SluicewayError, match="older than 87 s, for which a parquet sink knows"):
        prepared(kafka)
    for asked in (replace(ASKED, range_deleted=True), replace(ASKED, into="study")):
        assert len(prepared(kafka, asked).legs) == 2


def test_of_every_sink_it_is_known_how_long_it_remembers() -> None:
    """Whoever adds a sink has to say it."""
    assert REMEMBERED_SECONDS.keys() == SINKS.keys()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sink": "lke"}, "--sink lke: there is no such sink in forwarder.sinks, but: lake, study"),
        ({"into": "stdy"}, "--into stdy: there is no such sink"),
        ({"into": "lake"}, "is the sink itself"),
        ({"exporters": ("edge",)}, "name another sink to deliver into"),
        ({"received_to": "now"}, "name another sink to deliver into"),
        ({"begin": "yesterday"}, "--from: 'yesterday' is not a time"),
        ({"end": "tomorrow"}, "--to: 'tomorrow' is not a time"),
        ({"into": "study", "exporters": ("192.0.2.7/24",)}, "--exporter .* the network is 192.0.2.0/24"),
        ({"into": "study", "received_from": "0:7"}, "--received-from: '0:7' is not a time"),
        ({"into": "study", "received_from": "now", "received_to": "-1h"}, "is not after --received-from"),
        ({"begin": "2:5", "end": None}, "there is no partition 2"),
    ],
)
def test_what_cannot_be_meant_is_said(kafka: Kafka, changes: Mapping[str, Any], sentence: str) -> None:
    """By the name of the option."""
    with pytest.raises(ConfigError, match=sentence):
        prepared(kafka, replace(ASKED, **changes))


def test_what_tells_one_replay_from_another() -> None:
    """All but the order of exporters, and how it is done."""
    into = Request("lake", "-1h", into="study", exporters=("a", "b"))
    others = [
        Request("lake", "-1h"),
        Request("lake", "-2h"),
        Request("lake", "-1h", "now"),
        Request("lake", "-1h", into="study"),
        Request("lake", "-1h", into="study", received_from="now"),
        Request("lake", "-1h", into="study", received_to="now"),
        Request("lake", "-1h", range_deleted=True),
        Request("study", "-1h"),
        into,
    ]
    assert len({one.asked(TOPIC_ID) for one in others}) == len(others)
    assert replace(into, exporters=("b", "a", "b")).asked(TOPIC_ID) == into.asked(TOPIC_ID) != into.asked("another")


def test_the_end_tells_each_partition(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON for a program, as a table for a person; the range is the one of whole batches."""
    ours = performed(kafka, prepared(kafka), Backend())
    told = as_json(ours, dry_run=False)
    assert (told["finished"], told["dry_run"]) == (True, False)
    assert {name: told["partitions"]["1"][name] for name in ("start", "end", "records")} == {
        "start": 5,
        "end": 30,
        "records": 25,
    }
    assert told["total"]["delivered"] == 50
    show(ours, "json", dry_run=False)
    assert json.loads(capsys.readouterr().out) == told
    show(ours, "table", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["partition", "offsets", "messages", "bytes", "batches", "records", "to", "deliver"]
    assert lines[1].split()[:5] == ["0", "5", "to", "30", "25"]
    assert lines[-1].split()[0] == "all"
    assert lines[-1].split()[-1] == "50"


def test_shapes_of_fakes_are_those_of_the_settings() -> None:
    """What these tests take for the lake's shape is what its settings say."""
    assert SHAPE.cut.interval_ms == 1000
    assert shape(SHAPE.cut).rule == SHAPE.rule
