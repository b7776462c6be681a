"""What a worker does with sets that wait, as far as no broker is needed for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploy.local.kafka import free_port
from ingest.config import TemplatesConfig
from ingest.decoders import Decoded, Unit
from ingest.ledger import balances, ledger
from ingest.outbox import MessageBounds
from ingest.pipeline import Pipeline
from ingest.spooling import lost_with
from ingest.undecoded.waiting import Names, WaitingSets, WaitingShare, parking_bounds
from shared.config import KafkaConfig
from shared.metrics import Book
from tests.builders import data_set, template, v9_datagram, v9_templates
from tests.ingest.collector import packed
from tests.ingest.undecoded.made import PRODUCER

SECOND = 1_000_000_000


class Working:
    """The part of a worker that has to do with sets that wait; nobody answers where its broker should be."""

    def __init__(self, **parking: int) -> None:
        config = TemplatesConfig.model_validate({"parking": parking})
        self.pipeline = Pipeline(parking=parking_bounds(config))
        self.book = Book()
        self.waiting = WaitingSets(
            KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}"),
            config,
            Names(PRODUCER, "test"),
            WaitingShare(workers=2, reads=False),
            MessageBounds(),
            self.pipeline,
            self.book,
            drop=self._drop,
            note=self._note,
            complete=lambda batch: batch,
            label=str.lower,
        )

    def feed(self, *payloads: bytes) -> None:
        """Decode datagrams, and go round once."""
        self._note(self.pipeline.decode(packed(payloads)))

    def parked(self) -> dict[str, object]:
        """The account of sets in memory; the books balance."""
        self.waiting.report()
        books = ledger(self.book.snapshot())
        assert balances(books), books
        return dict(books["parked"])

    def _note(self, decoded: Decoded) -> None:
        for (fault, unit), count in decoded.faults.items():
            self._drop("decode", fault.value, unit, count)

    def _drop(self, stage: str, reason: str, unit: Unit, count: int) -> None:
        self.book.add("ingest_dropped_total", count, stage=stage, reason=reason, unit=unit.value)


@pytest.fixture
def working() -> Iterator[Working]:
    """A worker with room for some ten sets of an exporter."""
    ours = Working(exporter_max_bytes=3000, max_bytes=100_000)
    yield ours
    ours.waiting.close(0.0, lambda: None)


def data(count: int) -> list[bytes]:
    """Datagrams without their template."""
    return [v9_datagram(data_set(256, bytes(100)), sequence=at) for at in range(count)]


def test_before_the_topic_is_known_nothing_leaves(working: Working) -> None:
    """What has no room is refused, and what still waits at a stop is dropped, all of it counted."""
    working.waiting.turn(SECOND, 0)
    working.feed(*data(20))
    working.waiting.turn(SECOND, 0)
    kept = working.waiting.in_flight
    assert 0 < kept < 20
    assert working.parked() == {"received": kept, "decoded": 0, "appended": 0, "dropped": {}, "in_flight": kept}
    working.waiting.hand_over(time.monotonic(), 0)
    dropped = {"awaiting_template": kept}
    assert working.parked() == {"received": kept, "decoded": 0, "appended": 0, "dropped": dropped, "in_flight": 0}
    sets = ledger(working.book.snapshot())["dropped"]["sets"]
    assert sets == {"parking_quota": 20 - kept, "awaiting_template": kept}


def test_what_leaves_is_in_flight_until_kafka_has_it(working: Working) -> None:
    """And is dropped, when Kafka has not taken it by the end."""
    working.waiting.turn(SECOND, 4)
    working.feed(*data(20))
    working.waiting.turn(SECOND, 4)
    assert working.pipeline.parking.sets < 20
    assert working.parked() == {"received": 20, "decoded": 0, "appended": 0, "dropped": {}, "in_flight": 20}
    working.waiting.hand_over(time.monotonic(), 4)
    assert (working.pipeline.parking.sets, working.waiting.in_flight) == (0, 20)
    working.waiting.close(0.2, lambda: None)
    dropped = {"not_acknowledged": 20}
    assert working.parked() == {"received": 20, "decoded": 0, "appended": 0, "dropped": dropped, "in_flight": 0}


def test_what_has_left_memory_and_was_not_sent_yet_is_in_flight(working: Working) -> None:
    """A report may be made at any time: the books balance in it."""
    working.waiting.turn(SECOND, 4)
    working.feed(*data(20))
    assert working.pipeline.parking.sets < 20
    assert working.parked()["in_flight"] == 20
    working.waiting.turn(SECOND, 4)
    assert working.parked()["in_flight"] == 20


def test_what_dies_with_a_worker_is_known(working: Working) -> None:
    """Its last report tells how many sets waited in its memory: so many are lost when it is killed."""
    working.waiting.turn(SECOND, 4)
    working.feed(*data(5))
    working.waiting.report()
    assert lost_with(working.book.snapshot())["sets"] == 5


def test_what_is_decoded_from_memory_is_counted(working: Working) -> None:
    """When the template comes by wire."""
    working.feed(*data(3))
    working.feed(v9_datagram(v9_templates(template(256, b"\x00\x01\x00\x04"))))
    assert working.parked() == {"received": 3, "decoded": 3, "appended": 0, "dropped": {}, "in_flight": 0}


def test_the_workers_of_an_instance_share_what_may_go() -> None:
    """Together they put in no more than half of what the instance reads, in the long run."""
    one_of_two = Working(max_bytes=1000).waiting._handover._allowance
    config = TemplatesConfig().undecoded
    assert 2 * one_of_two._bytes_per_second == config.scan_max_bytes / config.scan_seconds / 2
