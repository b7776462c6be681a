from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from ingest.config import IngestSettings
from ingest.control import (
    Channel,
    Facts,
    Forget,
    Message,
    Observed,
    Ready,
    Report,
    Reported,
    Sampled,
    Settled,
    Templates,
    Told,
    Words,
)
from ingest.data_sources import DataSources
from ingest.decoders.enrich import Fact, Kind
from ingest.decoders.layout import VARIABLE, Field, Layout, Template
from ingest.decoders.templates import Word
from ingest.exporters import Exporters
from ingest.ledger import balances
from ingest.state.knowledge import Changes
from ingest.statistics import Reading, Statistics
from ingest.supervisor import EXPORTER_LABELS, Supervisor, _final, _Worker, granted_cpus
from ingest.worker import WorkerArguments
from shared import log
from shared.metrics import OTHER, Book, Snapshot, total, totals
from shared.web import Check
from tests.builders import mapped
from tests.ingest.observations import EDGE, NOW_NS, Said, heard, stream
from tests.ingest.sampled import AGENT, COUNTERS, Sample, gathered

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


def counted(*, decoded: int, delivered: int, in_flight: int, spooled: int = 0) -> Snapshot:
    """What a worker reports; what is spooled is in flight."""
    book = Book()
    book.add("ingest_datagrams_received_total", 7, listener="udp://[::]:2055", protocol="v9")
    book.add("ingest_records_decoded_total", decoded, protocol="v9")
    book.add("kafka_produced_records_total", delivered, topic=TOPIC)
    book.set("ingest_records_in_flight", in_flight)
    book.set("ingest_spool_records", spooled, topic=TOPIC)
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
        Check(
            "state",
            ok=False,
            detail="flows.exporters is not read to its end: no broker has told anything of it yet",
        ),
    ]
    assert supervisor.ledger()["received"] == {"datagrams": 0, "records": 0, "from_spool": 0}
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


def test_what_a_reload_may_not_change_stays_for_workers_that_are_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets, the spool's shares and topics are those of the start; the log level and secrets are new."""

    def written(level: str, password: str, prefix: str, *listen: str) -> IngestSettings:
        login = {"protocol": "sasl_plaintext", "mechanism": "PLAIN", "username": "us", "password": password}
        return IngestSettings.model_validate(
            {
                "kafka": {"topic_prefix": prefix, "security": login},
                "ingest": {"workers": 1, "listen": listen, "http": {"token": password}},
                "log": {"level": level},
            }
        )

    started: list[WorkerArguments] = []

    class Process:
        """A process that does nothing."""

        def __init__(self, target: object, args: tuple[WorkerArguments], name: str) -> None:
            started.extend(args)

        def start(self) -> None:
            """Start, or not."""

    first = written("info", "old", "dc1.", "udp://[::]:2055", "udp://[::]:6343")
    supervisor = Supervisor(first, lambda: written("debug", "new", "dc2.", "udp://[::]:2055"))
    monkeypatch.setattr(supervisor, "_spawn", SimpleNamespace(Process=Process, RawValue=multiprocessing.RawValue))
    monkeypatch.setattr(log, "set_level", lambda _: None)

    async def hang_up() -> None:
        supervisor._hang_up()
        supervisor._start_worker(0)
        supervisor._workers[0].channel.close(0.0)
        await asyncio.gather(*supervisor._tasks)

    asyncio.run(hang_up())
    (one,) = started
    assert one.settings.ingest == first.ingest
    assert one.settings.kafka.topic_prefix == "dc1."
    assert one.settings.log.level == "debug"
    password = one.settings.kafka.security.password
    assert password is not None
    assert password.get_secret_value() == supervisor._token() == "new"


# --- what workers count


def test_what_workers_count_is_added_up(supervisor: Supervisor, members: list[Member]) -> None:
    """A report is cumulative: the latest of each worker counts."""
    supervisor._hear(members[0].seen, Report(counted(decoded=10, delivered=0, in_flight=10)))
    supervisor._hear(members[0].seen, Report(counted(decoded=30, delivered=25, in_flight=5)))
    supervisor._hear(members[1].seen, Report(counted(decoded=100, delivered=90, in_flight=10)))
    books = supervisor.ledger()
    assert (books["received"], books["delivered"], books["in_flight"]) == (
        {"datagrams": 14, "records": 130, "from_spool": 0},
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


def test_what_a_worker_leaves_in_the_spool_is_not_lost(supervisor: Supervisor, members: list[Member]) -> None:
    """What it had in memory died with it; the rest is in flight, and known to whoever comes in its place."""
    supervisor._hear(members[0].seen, Report(counted(decoded=100, delivered=80, in_flight=20, spooled=15)))
    left = _final(members[0].seen)
    assert totals(left, "ingest_dropped_total", "reason", unit="records") == {"worker_died": 5}
    supervisor._past = left
    supervisor._spool.leave(0, members[0].seen.snapshot)
    del supervisor._workers[0]
    assert supervisor.ledger()["in_flight"]["records"] == 15
    assert balances(supervisor.ledger())
    assert supervisor._spool.share(0).known == {TOPIC: 15}
    next_one = Member(supervisor, 0)
    supervisor._hear(next_one.seen, Report(counted(decoded=0, delivered=0, in_flight=15, spooled=15)))
    assert supervisor.ledger()["in_flight"]["records"] == 15
    assert balances(supervisor.ledger())
    assert supervisor._spool.share(0).known == {}
    next_one.close()


# --- what workers know together


def test_a_worker_that_takes_long_to_end_holds_nobody_up(supervisor: Supervisor, members: list[Member]) -> None:
    """It has closed its pipe and lives on: it is not ready, and what answers over HTTP goes on until it is gone."""
    ended = threading.Event()
    supervisor._hear(members[0].seen, Ready())
    members[0].seen.process = cast(
        "multiprocessing.Process",
        SimpleNamespace(
            name="worker-0", exitcode=1, join=lambda _=None: ended.wait(PATIENCE_SECONDS), is_alive=lambda: False
        ),
    )

    async def leave() -> list[int]:
        asyncio.get_running_loop().add_reader(members[0].seen.channel.descriptor, lambda: None)
        supervisor._stopping = True
        leaving = supervisor._leave(members[0].seen)
        await asyncio.sleep(0)
        there = [len(supervisor._workers), members[0].seen.ready]
        assert supervisor._leave(members[0].seen) is leaving
        ended.set()
        await leaving
        return [*there, len(supervisor._workers)]

    assert asyncio.run(leave()) == [2, False, 1]


def a_template(
    source: str = EDGE, template_id: int = 256, element: int = 1, version: int = 10
) -> tuple[bytes, Template]:
    """A template of an exporter's domain 5."""
    key = mapped(source) + version.to_bytes(2) + (5).to_bytes(4) + template_id.to_bytes(2)
    fields = (Field(0, element, 8), Field(32473, 7, VARIABLE))
    return key, Template(template_id, Layout(version, fields, options=True, scopes=1), 20)


def words(*told: tuple[bytes, Template], changed: bool = True) -> Words:
    """What a worker tells of templates that it heard."""
    return Words(tuple(Word(*one, changed, 7, None, NOW_NS, NOW_NS) for one in told))


def test_what_one_worker_learns_the_others_are_told(supervisor: Supervisor, members: list[Member]) -> None:
    """Templates go to every other worker, and not back to the one that heard them; what only repeats goes to none."""
    first, second = a_template(), a_template(template_id=257)
    supervisor._hear(members[0].seen, words(first))
    supervisor._hear(members[1].seen, words(second))
    supervisor._hear(members[1].seen, words(first, changed=False))
    assert members[1].told(1) == [Templates((first,))]
    assert members[0].told(1) == [Templates((second,))]
    assert [one.seen.channel.queued for one in members] == [0, 0]


def test_all_are_told_that_a_template_is_settled(supervisor: Supervisor, members: list[Member]) -> None:
    """Once it is told as all know it, none need tell it again."""
    supervisor._knowledge.read_to_end()
    supervisor._hear(members[0].seen, words(a_template()))
    supervisor._hear(members[0].seen, words(a_template(), changed=False))
    settled = Settled((a_template()[0],))
    assert members[0].told(1) == [settled]
    assert members[1].told(2) == [Templates((a_template(),)), settled]


def test_ready_when_every_worker_knows_what_is_known(supervisor: Supervisor, members: list[Member]) -> None:
    """That the topic is read is not enough: the workers have to have learned it."""
    supervisor._state._read = True
    supervisor._pass_on(Changes([a_template()], read=True))
    details = [supervisor.checks()[3]]
    for member in members:
        assert member.told(2) == [Templates((a_template(),)), Told()]
        supervisor._hear(member.seen, Told())
        details.append(supervisor.checks()[3])
    assert [(one.ok, one.detail) for one in details] == [
        (False, "flows.exporters is read; workers that do not know it yet: 2"),
        (False, "flows.exporters is read; workers that do not know it yet: 1"),
        (True, "flows.exporters is read"),
    ]


def test_what_other_instances_told_every_worker_is_told(supervisor: Supervisor, members: list[Member]) -> None:
    """Templates, facts and what is to be forgotten, in this order."""
    fact = Fact(Kind.INTERFACE_NAME, mapped(EDGE), 0, 0, 3, "Te0/3")
    supervisor._pass_on(Changes([a_template()], [fact], [a_template()[0]]))
    for member in members:
        assert member.told(3) == [Templates((a_template(),)), Facts((fact,)), Forget((a_template()[0],))]


def test_templates_are_shown(supervisor: Supervisor, members: list[Member]) -> None:
    """With their exporter, their domain and their fields; both layouts of one that is redefined."""
    supervisor._knowledge.read_to_end()
    supervisor._hear(members[0].seen, words(a_template(), a_template(element=2), a_template("2001:db8::1")))
    (old, new, other) = supervisor.templates()
    assert old == {
        "exporter": EDGE,
        "version": 10,
        "observation_domain_id": 5,
        "template_id": 256,
        "options": True,
        "scope_fields": 1,
        "fields": [[0, 1, 8], [32473, 7, VARIABLE]],
        "origin": "wire",
        "holds": True,
    }
    assert new == {**old, "fields": [[0, 2, 8], [32473, 7, VARIABLE]], "holds": False}
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
        "samples": {},
        "reported": {},
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
        "origin": "wire",
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


def test_samples_of_an_agent_are_counted_and_shown(supervisor: Supervisor, members: list[Member]) -> None:
    """What its data sources lost and what it says it dropped: by kind, wherever its datagrams came in."""
    numbers = (1, 2, 5)
    supervisor._hear(members[0].seen, Observed((heard([Said(0, source=AGENT, domain=7)], version=0),)))
    supervisor._hear(members[0].seen, Sampled(gathered([Sample(at, 10 * at, sub_agent=7) for at in numbers])))
    supervisor._hear(members[1].seen, Sampled(gathered([Sample(4, 40, sub_agent=7)])))
    supervisor._hear(members[1].seen, Sampled(gathered([Sample(at, sub_agent=7, kind=COUNTERS) for at in numbers])))
    supervisor._settle(everything=True)
    (shown,) = supervisor.exporters()
    assert shown["samples"] == {
        "flow": {"data_sources": 1, "lost": 1, "dropped_by_agent": 40},
        "counters": {"data_sources": 1, "lost": 2},
    }
    snapshot = supervisor.snapshot()
    assert totals(snapshot, "ingest_samples_lost_total", "kind", exporter=AGENT) == {"flow": 1, "counters": 2}
    assert totals(snapshot, "ingest_samples_agent_dropped_total", "kind", exporter=AGENT) == {"flow": 40}
    assert total(snapshot, "ingest_data_sources") == 2


def test_what_exporters_report_is_counted_and_shown(supervisor: Supervisor, members: list[Member]) -> None:
    """The totals as they told them last, and by how much they rose since we heard of them first."""
    supervisor._hear(members[0].seen, Observed((heard([Said(0, domain=3)]),)))
    for at, value in enumerate((100, 103, 110)):
        reading = Reading(mapped(EDGE), 9, 3, "system 1", 0, "not_sent_flows", value, 8, NOW_NS + at)
        supervisor._hear(members[at % 2].seen, Reported((reading,)))
    supervisor._settle(everything=True)
    (shown,) = supervisor.exporters()
    assert shown["reported"] == {"system 1": {"not_sent_flows": 110}}
    snapshot = supervisor.snapshot()
    assert total(snapshot, "ingest_exporter_reported_total", exporter=EDGE, statistic="not_sent_flows") == 10
    assert total(snapshot, "ingest_reported_totals") == 1


def test_tables_that_are_full_are_counted(supervisor: Supervisor, members: list[Member]) -> None:
    """By table, and from the beginning, so that an alert sees the first one."""
    full = {"exporters": 0, "data_sources": 0, "reported_totals": 0}
    assert totals(supervisor.snapshot(), "ingest_table_full_total", "table") == full
    supervisor._exporters, supervisor._sources, supervisor._statistics = Exporters(0), DataSources(0), Statistics(0)
    reading = Reading(mapped(EDGE), 9, 3, "system 1", 0, "not_sent_flows", 1, 8, NOW_NS)
    supervisor._hear(members[0].seen, Observed((heard([Said(0), Said(1)]),)))
    supervisor._hear(members[0].seen, Sampled(gathered([Sample(1), Sample(2), Sample(5)])))
    supervisor._hear(members[0].seen, Reported((reading,)))
    supervisor._settle(everything=True)
    full = {"exporters": 2, "data_sources": 3, "reported_totals": 1}
    assert totals(supervisor.snapshot(), "ingest_table_full_total", "table") == full


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
