from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from ingest.config import IngestSettings
from ingest.control import Channel, Facts, Message, Observed, Ready, Report, Templates
from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.layout import VARIABLE, Field, Layout, Template
from ingest.ledger import balances
from ingest.supervisor import EXPORTER_LABELS, Supervisor, _final, _Worker, granted_cpus
from shared.metrics import OTHER, Book, Snapshot, total, totals
from shared.web import Check
from tests.builders import mapped
from tests.ingest.observations import EDGE, NOW_NS, Said, heard, stream

PATIENCE_SECONDS = 20.0
TOPIC = "flows.records"


class Member:
    """A worker of which there is only its end of the pipe."""

    def __init__(self, supervisor: Supervisor, index: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        self.channel = Channel(theirs)
        process = SimpleNamespace(name=f"worker-{index}", pid=1000 + index)
        self.seen = _Worker(
            index, cast("multiprocessing.Process", process), Channel(ours), time.monotonic(), SimpleNamespace(value=0)
        )
        self.seen.channel.start()
        self.channel.start()
        supervisor._workers[index] = self.seen

    def told(self, count: int) -> list[Message]:
        """So many messages that it was told."""
        found: list[Message] = []

        def enough() -> bool:
            found.extend(self.channel.take())
            return len(found) >= count

        until(enough)
        return found

    def close(self) -> None:
        """Close the pipe."""
        self.seen.channel.close()
        self.channel.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


@pytest.fixture
def supervisor() -> Supervisor:
    """One for two workers, not running: no socket, no process, no Kafka."""
    settings = IngestSettings.model_validate({"ingest": {"workers": 2}})
    return Supervisor(settings, lambda: settings)


@pytest.fixture
def members(supervisor: Supervisor) -> Iterator[list[Member]]:
    """Its two workers."""
    both = [Member(supervisor, index) for index in range(2)]
    yield both
    for one in both:
        one.close()


def counted(*, decoded: int, delivered: int, in_flight: int) -> Snapshot:
    """What a worker reports."""
    book = Book()
    book.add("ingest_datagrams_received_total", 7, listener="udp://[::]:2055", protocol="v9")
    book.add("ingest_records_decoded_total", decoded, protocol="v9")
    book.add("kafka_produced_records_total", delivered, topic=TOPIC)
    book.set("ingest_records_in_flight", in_flight)
    book.set("ingest_parked_bytes", 1000)
    book.observe("ingest_decode_seconds", 0.01)
    return book.snapshot()


def test_a_worker_for_each_cpu_that_we_may_use() -> None:
    """At least one, and no more than the processes of this machine may run on."""
    assert 1 <= granted_cpus() <= len(os.sched_getaffinity(0))
    auto = Supervisor(IngestSettings(), IngestSettings)
    assert f"0 of {granted_cpus()} workers" in auto.checks()[1].detail


def test_a_supervisor_that_does_not_run_is_not_ready_and_says_why(supervisor: Supervisor) -> None:
    """Each thing that is not well has its check; to make one opened no port and asked no broker."""
    assert list(supervisor.checks()) == [
        Check("serving", ok=True, detail="serving"),
        Check("workers", ok=False, detail="0 of 2 workers receive"),
        Check("kafka", ok=False, detail="no broker has answered yet"),
    ]
    assert supervisor.ledger()["received"] == {"datagrams": 0, "records": 0}
    assert (supervisor.exporters(), supervisor.templates()) == ([], [])


def test_workers_are_ready_when_they_say_so(supervisor: Supervisor, members: list[Member]) -> None:
    """One that was started but has not come so far does not count."""
    details = []
    for member in members:
        supervisor._hear(member.seen, Ready())
        details.append(supervisor.checks()[1])
    assert details == [
        Check("workers", ok=False, detail="1 of 2 workers receive"),
        Check("workers", ok=True, detail="2 of 2 workers receive"),
    ]


# --- what workers count


def test_what_workers_count_is_added_up(supervisor: Supervisor, members: list[Member]) -> None:
    """A report is cumulative: the latest of each worker counts."""
    supervisor._hear(members[0].seen, Report(counted(decoded=10, delivered=0, in_flight=10)))
    supervisor._hear(members[0].seen, Report(counted(decoded=30, delivered=25, in_flight=5)))
    supervisor._hear(members[1].seen, Report(counted(decoded=100, delivered=90, in_flight=10)))
    books = supervisor.ledger()
    assert (books["received"], books["delivered"], books["in_flight"]) == (
        {"datagrams": 14, "records": 130},
        {"records": 115},
        {"records": 15},
    )
    assert balances(books)
    shown = supervisor.snapshot()
    assert total(shown, "ingest_parked_bytes") == 2000
    assert total(shown, "ingest_decode_seconds") == 2


@pytest.mark.parametrize(
    ("last", "dropped"),
    [
        pytest.param(False, {"worker_died": 20}, id="it was killed"),
        pytest.param(True, {}, id="it ended by itself"),
    ],
)
def test_what_a_worker_leaves(
    supervisor: Supervisor, members: list[Member], last: bool, dropped: dict[str, int]
) -> None:
    """Its counters stay, its gauges go, and what it had in flight when it was killed is a drop with a reason."""
    supervisor._hear(members[0].seen, Report(counted(decoded=100, delivered=80, in_flight=0 if last else 20), last))
    left = _final(members[0].seen)
    assert total(left, "ingest_records_decoded_total") == 100
    assert total(left, "kafka_produced_records_total") == 80
    assert total(left, "ingest_decode_seconds") == 1
    assert totals(left, "ingest_dropped_total", "reason", unit="records") == dropped
    assert not {"ingest_records_in_flight", "ingest_parked_bytes"} & left.keys()


# --- what workers know together


def a_template(
    source: str = EDGE, template_id: int = 256, element: int = 1, version: int = 10
) -> tuple[bytes, Template]:
    """A template of an exporter's domain 5."""
    key = mapped(source) + version.to_bytes(2) + (5).to_bytes(4) + template_id.to_bytes(2)
    fields = (Field(0, element, 8), Field(32473, 7, VARIABLE))
    return key, Template(template_id, Layout(version, fields, options=True, scopes=1), 20)


def test_what_one_worker_learns_the_others_are_told(supervisor: Supervisor, members: list[Member]) -> None:
    """Templates go to every other worker, and not back to the one that heard them."""
    first, second = Templates((a_template(),)), Templates((a_template(template_id=257),))
    supervisor._hear(members[0].seen, first)
    supervisor._hear(members[1].seen, second)
    assert members[1].told(1) == [first]
    assert members[0].told(1) == [second]
    assert [one.seen.channel.queued for one in members] == [0, 0]


def test_templates_are_shown(supervisor: Supervisor, members: list[Member]) -> None:
    """With their exporter, their domain and their fields; both layouts of one that is redefined."""
    supervisor._hear(members[0].seen, Templates((a_template(), a_template(element=2), a_template("2001:db8::1"))))
    (old, new, other) = supervisor.templates()
    assert old == {
        "exporter": EDGE,
        "version": 10,
        "observation_domain_id": 5,
        "template_id": 256,
        "options": True,
        "scope_fields": 1,
        "fields": [[0, 1, 8], [32473, 7, VARIABLE]],
    }
    assert new == {**old, "fields": [[0, 2, 8], [32473, 7, VARIABLE]]}
    assert other == {**old, "exporter": "2001:db8::1"}
    assert supervisor.templates(exporter="2001:db8::1") == [other]
    assert supervisor.templates(exporter="192.0.2.99") == []
    assert supervisor.templates(limit=2) == [old, new]
    assert total(supervisor.snapshot(), "ingest_templates") == 2


def test_exporters_are_shown(supervisor: Supervisor, members: list[Member]) -> None:
    """With what was heard of them by whichever worker, and what their sequence numbers say."""
    supervisor._hear(members[0].seen, Observed((heard([Said(0, 10)], version=10), heard([Said(7, domain=3)]))))
    supervisor._hear(members[1].seen, Observed((heard([Said(15, 10, received_ns=NOW_NS + 10**9)], version=10),)))
    told = (
        Fact(Kind.DOMAIN_RATE, mapped(EDGE), 10, 0, 0, 100),
        Fact(Kind.SAMPLER_RATE, mapped(EDGE), 10, 0, 7, 1000),
        Fact(Kind.INTERFACE_NAME, mapped(EDGE), 10, 0, 3, "Te0/3"),
    )
    supervisor._hear(members[0].seen, Facts(told))
    supervisor._settle(everything=True)
    first, second = supervisor.exporters()
    rates = {name: first.pop(name) for name in ("datagrams_per_second", "records_per_second")}
    assert first == {
        "exporter": EDGE,
        "version": 10,
        "observation_domain_id": 0,
        "sampling": {"default": 100, "sampler 7": 1000},
        "first_seen": NOW_NS / 1e9,
        "last_seen": NOW_NS / 1e9 + 1,
        "datagrams": 2,
        "records": 20,
        "undecoded_sets": 0,
        "sequence_lost": 5,
        "sequence_uncertain": 0,
        "restarts": 0,
    }
    assert all(isinstance(rate, float) and rate > 0 for rate in rates.values())
    assert (second["version"], second["observation_domain_id"], second["sequence_lost"]) == (9, 3, 0)
    assert second["sampling"] == {}
    assert supervisor.exporters(limit=1)[0]["version"] == 10
    assert supervisor.options(EDGE)[2] == {
        "exporter": EDGE,
        "version": None,
        "observation_domain_id": None,
        "kind": "interface_name",
        "about": 3,
        "value": "Te0/3",
    }
    assert len(supervisor.options(limit=2)) == 2
    assert supervisor.options("192.0.2.99") == []


def test_exporters_are_counted_by_name(supervisor: Supervisor, members: list[Member]) -> None:
    """Their metrics add up over domains and protocols; the last time is that of the latest."""
    supervisor._hear(members[0].seen, Observed((heard([*stream(0, 5, 5), Said(20, 5)], version=10),)))
    supervisor._hear(members[1].seen, Observed((heard([Said(3, domain=9, received_ns=NOW_NS + 5 * 10**9)]),)))
    supervisor._settle(everything=True)
    shown = supervisor.snapshot()
    assert total(shown, "ingest_exporters") == 2
    assert {
        name: total(shown, name, exporter=EDGE)
        for name in (
            "ingest_exporter_datagrams_total",
            "ingest_exporter_records_total",
            "ingest_sequence_lost_total",
            "ingest_exporter_last_seen_timestamp_seconds",
        )
    } == {
        "ingest_exporter_datagrams_total": 4,
        "ingest_exporter_records_total": 16,
        "ingest_sequence_lost_total": 10,
        "ingest_exporter_last_seen_timestamp_seconds": NOW_NS / 1e9 + 5,
    }


def test_exporters_beyond_a_number_share_a_label(supervisor: Supervisor, members: list[Member]) -> None:
    """However many exporters there are, the number of series is bounded, and no datagram is left out."""
    number = EXPORTER_LABELS + 50
    said = [Said(0, source=f"10.0.{one >> 8}.{one & 255}") for one in range(number)]
    supervisor._hear(members[0].seen, Observed((heard(said),)))
    for _ in range(2):
        by_label = totals(supervisor.snapshot(), "ingest_exporter_datagrams_total", "exporter")
        assert len(by_label) == EXPORTER_LABELS + 1
        assert by_label[OTHER] == 50
        assert sum(by_label.values()) == number
