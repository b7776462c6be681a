"""What a worker does when a Kafka client of its can produce no more, and what it counts besides."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local.kafka import free_port
from ingest.config import IngestSettings
from ingest.control import Channel
from ingest.decoders.enrich import Fact, Kind
from ingest.known_exporters import KnownExporters
from ingest.ledger import balances, ledger
from ingest.mapping import load_mapping
from ingest.options import OptionTables
from ingest.spool import Share
from ingest.templates import TemplateBounds
from ingest.undecoded.waiting import WaitingShare
from ingest.worker import Worker, WorkerArguments
from shared.metrics import Snapshot, total
from tests.builders import field, mapped, template, v5_datagram, v5_record, v9_datagram, v9_templates
from tests.ingest.collector import packed

PATIENCE_SECONDS = 20.0
RECORDS = "flows.records"
MOCK = {"test.mock.num.brokers": "1"}
"""The Kafka client brings a small broker of its own, which makes a topic of four partitions when it is asked for one."""


class Working:
    """A worker in this process, with a socket that nobody sends to, and the supervisor's end of its pipe."""

    def __init__(self, spool: Path | None = None, properties: dict[str, str] | None = None) -> None:
        settings = IngestSettings.model_validate(
            {
                "kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}", "properties": properties or {}},
                "ingest": {"listen": ["udp://127.0.0.1:0"], "spool": {"directory": spool}},
            }
        )
        ours, theirs = multiprocessing.Pipe()
        self.supervisor = Channel(ours)
        self.supervisor.start()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.worker = Worker(
            WorkerArguments(
                settings,
                [self.socket],
                theirs,
                "worker-0",
                load_mapping(None),
                SimpleNamespace(value=0),
                KnownExporters(()),
                Share(0, 1, [0]) if spool is not None else None,
                WaitingShare(reads=False),
            )
        )
        self.worker._partitions = 4

    def start(self) -> None:
        """Begin, as far as Kafka and the disk are concerned."""
        self.worker._spool.open()
        self.worker._producer.start()
        self.worker._counters.start()

    def feed(self, *payloads: bytes) -> None:
        """Take datagrams in."""
        self.worker._decode(packed(payloads))

    def counted(self) -> Snapshot:
        """What it reports now."""
        self.worker._report()
        return self.worker._book.snapshot()

    def close(self) -> None:
        """End."""
        self.worker._spool.close()
        self.worker._channel.close(0.0)
        self.supervisor.close(0.0)
        self.socket.close()


@pytest.fixture
def working() -> Iterator[Callable[..., Working]]:
    """Makes workers."""
    made: list[Working] = []

    def make(spool: Path | None = None, properties: dict[str, str] | None = None) -> Working:
        made.append(Working(spool, properties))
        return made[-1]

    yield make
    for one in made:
        one.close()


def flows(count: int) -> bytes:
    """A datagram of so many records."""
    return v5_datagram(*[v5_record(src_port=at) for at in range(count)])


# --- a client that can produce no more


@pytest.mark.parametrize("fatal", ["_producer", "_counters"])
def test_all_that_is_decoded_is_on_disk_before_a_worker_starts_anew(
    working: Callable[..., Working], tmp_path: Path, fatal: str
) -> None:
    """Also what a client that is well has got a moment ago: it ends with the process."""
    ours = working(spool=tmp_path)
    ours.start()
    ours.feed(flows(7))
    if fatal == "_producer":
        ours.worker._producer.fatal = "fenced"
    else:
        ours.worker._counters._producer.fatal = "fenced"
    ours.worker._save()
    counted = ours.counted()
    assert total(counted, "ingest_spool_records", topic=RECORDS) == 7
    assert total(counted, "ingest_records_in_flight") == 7
    assert balances(ledger(counted))


def test_without_a_spool_a_client_that_is_well_delivers_what_it_can(
    working: Callable[..., Working], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are not lost for the fault of the client of counter samples."""
    monkeypatch.setattr("ingest.worker.LAST_SECONDS", PATIENCE_SECONDS)
    ours = working(properties=MOCK)
    ours.start()
    ours.feed(flows(7))
    ours.worker._counters._producer.fatal = "fenced"
    ours.worker._save()
    books = ledger(ours.counted())
    assert (books["delivered"]["records"], books["in_flight"]["records"]) == (7, 0)


def test_a_worker_that_starts_anew_leaves_the_group_before_it_waits_for_that(
    working: Callable[..., Working], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else it would wait for a thread that nobody has told."""
    ours = working(spool=tmp_path)
    done: list[str] = []
    for name in ("leave_group", "hand_over", "close"):
        monkeypatch.setattr(ours.worker._waiting, name, lambda *_, name=name: done.append(name))
    ours.worker._producer.fatal = "fenced"
    with pytest.raises(SystemExit):
        ours.worker.run()
    assert done == ["leave_group", "hand_over", "close"]


# --- what is counted


def test_facts_of_others_that_find_no_room_are_counted(working: Callable[..., Working]) -> None:
    """Once each, as those are that came in datagrams."""
    ours = working()
    ours.worker._pipeline.options = OptionTables(exporter_limit=2)
    told = [Fact(Kind.INTERFACE_NAME, mapped("192.0.2.1"), 0, 0, about, "x") for about in range(5)]
    ours.worker._pipeline.options.learn(told)
    refused = ours.worker._pipeline.options.refused
    assert refused > 0
    for _ in range(2):
        assert total(ours.counted(), "ingest_oddities_total", reason="options_limit") == refused
    ours.worker._pipeline.options.learn(told[:1] + told[-1:])
    assert total(ours.counted(), "ingest_oddities_total", reason="options_limit") == refused + 1
    ours.feed(flows(1))
    assert total(ours.counted(), "ingest_oddities_total", reason="options_limit") == refused + 1


def test_templates_that_make_room_are_counted(working: Callable[..., Working]) -> None:
    """Once each, and from the beginning, so that an alert sees the first one."""
    ours = working()
    assert total(ours.counted(), "ingest_table_full_total", table="templates") == 0
    ours.worker._pipeline.templates._bounds = TemplateBounds(templates=2)
    ours.feed(v9_datagram(v9_templates(*(template(256 + at, field(1, 4)) for at in range(5)))))
    for _ in range(2):
        assert total(ours.counted(), "ingest_table_full_total", table="templates") == 3


def test_what_is_not_told_to_the_supervisor_is_counted(working: Callable[..., Working]) -> None:
    """Once each, when too much waits."""
    ours = working()
    ours.worker._channel.dropped = 3
    for _ in range(2):
        assert total(ours.counted(), "ingest_control_left_out_total") == 3
