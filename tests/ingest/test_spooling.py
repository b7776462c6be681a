from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import SpoolConfig
from ingest.decoders import Unit
from ingest.ledger import balances, ledger
from ingest.spool import Found, Reason, Share
from ingest.spool.segment import Damage
from ingest.spooling import PATIENCE_SECONDS, InstanceSpool, WorkerSpool, lost_with
from shared import log
from shared.metrics import Book, Snapshot, merge, total

RECORDS, COUNTERS = "dc1.flows.records", "dc1.flows.counters"
ASSUMED = 12


class Worker:
    """A worker's spool, with what it counts."""

    def __init__(self, directory: Path | None) -> None:
        self.book = Book()
        self.dropped: list[tuple[str, str, Unit, int]] = []
        self.spool = WorkerSpool(
            SpoolConfig(directory=directory),
            Share(0, 1, [0]),
            [RECORDS, COUNTERS],
            ASSUMED,
            self.book,
            log.get_logger("test"),
            lambda stage, reason, unit, count: self.dropped.append((stage, reason, unit, count)),
        )

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return total(self.book.snapshot(), name, **labels)


@pytest.mark.parametrize(
    ("there", "known", "found", "died"),
    [
        pytest.param(10, 0, 10, 0, id="of an earlier instance"),
        pytest.param(10, 10, 0, 0, id="all known"),
        pytest.param(10, 7, 3, 0, id="spooled after the last report"),
        pytest.param(7, 10, 0, 3, id="acknowledged after the last report"),
        pytest.param(0, 4, 0, 4, id="nothing is left"),
        pytest.param(0, 0, 0, 0, id="nothing was there"),
    ],
)
@pytest.mark.parametrize(("topic", "unit"), [(RECORDS, Unit.RECORDS), (COUNTERS, Unit.COUNTERS)])
def test_what_is_found_and_what_was_known_fit_together(
    tmp_path: Path, topic: str, unit: Unit, there: int, known: int, found: int, died: int
) -> None:
    """What the books have already is not received again, and what they have and is not there died with the worker."""
    worker = Worker(tmp_path)
    worker.spool.found(topic, Found(messages=bool(there), records=there), known)
    assert worker.counted("ingest_spool_found_records_total", topic=topic) == found
    assert worker.dropped == ([("worker", "worker_died", unit, died)] if died else [])


def test_damage_that_was_found_is_counted_and_told(tmp_path: Path) -> None:
    """Records that are known to be lost are received and dropped; each file is named with what is wrong with it."""
    worker = Worker(tmp_path)
    damage = ((Path("a"), Damage(1, 500, 20)), (Path("b"), Damage(1, 10, 0, cut_off=True)))
    worker.spool.found(RECORDS, Found(5, 100, damage, (Path("c"),)), 0)
    assert worker.counted("ingest_spool_found_records_total") == 120
    assert worker.dropped == [("spool", "spool_damaged", Unit.RECORDS, 20)]
    for reason in (Reason.DAMAGED, Reason.CUT_OFF, Reason.OTHER_VERSION):
        assert worker.counted("ingest_spool_errors_total", reason=reason.value) == 1


def test_without_a_directory_there_is_no_spool() -> None:
    """Then there is nothing to open, to keep or to show, and records wait for a broker."""
    worker = Worker(None)
    assert not worker.spool
    assert worker.spool.log(RECORDS) is None
    worker.spool.open()
    worker.spool.tend()
    worker.spool.note_partitions(5)
    worker.spool.report()
    worker.spool.close()
    assert worker.spool.partitions(at_once=True) == 0
    assert worker.book.snapshot() == {}


def test_records_do_not_wait_for_a_broker_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some patience, and at the end at once, they are split for as many partitions as there were or would be."""
    worker = Worker(tmp_path)
    worker.spool.open()
    assert worker.spool.partitions(at_once=False) == 0
    assert worker.spool.partitions(at_once=True) == ASSUMED
    monkeypatch.setattr(worker.spool, "_begun", worker.spool._begun - PATIENCE_SECONDS)
    assert worker.spool.partitions(at_once=False) == ASSUMED
    worker.spool.note_partitions(48)
    assert worker.spool.partitions(at_once=False) == 48
    worker.spool.close()


def report(decoded: int, delivered: int, in_memory: int, spooled: int) -> Snapshot:
    """What a worker that has found nothing reports."""
    book = Book()
    book.add("ingest_records_decoded_total", decoded, protocol="v9")
    book.add("kafka_produced_records_total", delivered, topic=RECORDS)
    book.set("ingest_records_in_flight", in_memory + spooled)
    book.set("ingest_spool_records", spooled, topic=RECORDS)
    return book.snapshot()


COUNTS = st.integers(0, 10**9)


@given(delivered=COUNTS, in_memory=COUNTS, spooled=COUNTS, there=COUNTS)
def test_the_books_balance_when_a_worker_dies_and_another_takes_over(
    delivered: int, in_memory: int, spooled: int, there: int
) -> None:
    """At each moment: while it lives, while nobody has its spool, and when the next one has found whatever it finds."""
    instance = InstanceSpool(SpoolConfig(directory=Path("spool")), [0])
    first = report(delivered + in_memory + spooled, delivered, in_memory, spooled)
    assert balances(ledger(merge([first, instance.snapshot()])))

    instance.leave(0, first)
    past = {name: series for name, series in first.items() if name.endswith("_total")}
    book = Book()
    assert {unit: rows for unit, rows in lost_with(first).items() if rows} == (
        {"records": in_memory} if in_memory else {}
    )
    book.add("ingest_dropped_total", in_memory, stage="worker", reason="worker_died", unit="records")
    books = ledger(merge([past, book.snapshot(), instance.snapshot()]))
    assert balances(books)
    assert books["in_flight"]["records"] == spooled

    known = instance.share(0).known
    second = Worker(Path("unused"))
    second.spool.found(RECORDS, Found(1, there), known.get(RECORDS, 0))
    for stage, reason, unit, count in second.dropped:
        second.book.add("ingest_dropped_total", count, stage=stage, reason=reason, unit=unit.value)
    second.book.set("ingest_records_in_flight", there)
    second.book.set("ingest_spool_records", there, topic=RECORDS)
    instance.take_over(0)
    books = ledger(merge([past, book.snapshot(), second.book.snapshot(), instance.snapshot()]))
    assert balances(books)
    assert books["in_flight"]["records"] == there
    assert books["received"]["from_spool"] == max(0, there - spooled)
    assert instance.share(0).known == {}


def test_a_worker_that_dies_before_it_reports_leaves_what_the_one_before_it_left() -> None:
    """Nobody has taken that over yet."""
    instance = InstanceSpool(SpoolConfig(directory=Path("spool")), [0, 0])
    instance.leave(1, report(5, 0, 0, 5))
    instance.leave(1, {})
    assert instance.share(1).known == {RECORDS: 5}
    assert instance.share(0).known == {}
    assert total(instance.snapshot(), "ingest_records_in_flight") == 5
    assert total(instance.snapshot(), "ingest_spool_limit_bytes") == SpoolConfig().max_bytes


def test_without_a_directory_there_is_no_limit_to_show() -> None:
    """The gauge is there where the spool is."""
    assert InstanceSpool(SpoolConfig(), [0]).snapshot() == {}
