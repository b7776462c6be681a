"""Data sets that wait for their template: how many, how long, and what they cost."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from ingest.decoders import Fault, Unit
from ingest.decoders.headers import Headers
from ingest.decoders.sets import DataSets
from ingest.parking import KEY_BYTES, SET_BYTES, Parking, ParkingBounds
from tests.builders import data_set, mapped, v9_datagram
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, faults, packed

MINUTE = 60_000_000_000
OTHER = mapped("192.0.2.101")


def waiting(
    *bodies: bytes, template_id: int = 256, exporter: bytes = EXPORTER, received_ns: int = RECEIVED_NS, version: int = 9
) -> DataSets:
    """Sets without a template, each with a header row that no other has."""
    count = len(bodies)
    length = np.array([len(body) for body in bodies], np.int64)
    index = np.arange(count)
    return DataSets(
        buffer=np.frombuffer(b"".join(bodies) + b"\0", np.uint8),
        headers=Headers(
            version=version,
            source=np.tile(np.frombuffer(exporter, np.uint8), (count, 1)),
            domain=(index + 7).astype(np.uint32),
            sequence=(index + 100).astype(np.uint32),
            exported_ns=index + 10**18,
            uptime_ms=(index + 5).astype(np.uint32) if version == 9 else None,
            received_ns=np.full(count, received_ns) + index,
            identity=index.astype(np.uint64) + np.uint64(1 << 63),
            source_port=(index + 2000).astype(np.uint16),
        ),
        start=np.cumsum(length) - length,
        length=length,
        position=index + 24,
        keys=[exporter + version.to_bytes(2) + bytes(4) + template_id.to_bytes(2)] * count,
    )


def bodies(sets: DataSets | None) -> list[bytes]:
    """The bytes of each set."""
    if sets is None:
        return []
    return [
        sets.buffer[start : start + length].tobytes()
        for start, length in zip(sets.start.tolist(), sets.length.tolist(), strict=True)
    ]


@pytest.mark.parametrize("version", [9, 10], ids=["v9", "ipfix"])
def test_what_is_released_is_what_was_parked(version: int) -> None:
    """Bytes, header and place of every set come back as they were, in the order in which they came."""
    parking = Parking()
    given = waiting(b"abcd", b"", b"efghij", version=version)
    assert not parking.add(given)
    assert parking.sets == 3
    taken = parking.release(given.keys[0], 0)
    assert taken is not None
    assert bodies(taken) == [b"abcd", b"", b"efghij"]
    assert taken.keys == given.keys
    assert taken.position.tolist() == given.position.tolist()
    assert taken.headers.version == version
    assert (taken.headers.uptime_ms is None) == (version == 10)
    for name in ("source", "domain", "sequence", "exported_ns", "uptime_ms", "received_ns", "identity", "source_port"):
        one, other = getattr(taken.headers, name), getattr(given.headers, name)
        if other is not None:
            assert one.tolist() == other.tolist()
            assert one.dtype == other.dtype
    assert (parking.sets, parking.bytes) == (0, 0)
    assert parking.release(given.keys[0], 0) is None


def test_a_key_releases_its_own_sets() -> None:
    """Sets of another template, exporter or version go on waiting."""
    parking = Parking()
    mine = waiting(b"mine")
    others = [
        waiting(b"id", template_id=257),
        waiting(b"exporter", exporter=OTHER),
        waiting(b"version", version=10),
    ]
    for sets in (*others, mine):
        parking.add(sets)
    assert bodies(parking.release(mine.keys[0], 0)) == [b"mine"]
    assert parking.sets == 3
    for sets in others:
        assert len(bodies(parking.release(sets.keys[0], 0))) == 1


def test_only_what_a_record_fits_in_is_released() -> None:
    """Sets too short for a record of the layout that came go on waiting, in their order."""
    parking = Parking()
    sets = waiting(b"aaaa", b"bb", b"cccccc", b"d", b"eeee")
    parking.add(sets)
    assert parking.release(sets.keys[0], 7) is None
    assert bodies(parking.release(sets.keys[0], 4)) == [b"aaaa", b"cccccc", b"eeee"]
    assert parking.sets == 2
    assert parking.release(sets.keys[0], 3) is None
    assert bodies(parking.release(sets.keys[0], 1)) == [b"bb", b"d"]
    assert (parking.sets, parking.bytes) == (0, 0)


def test_the_buffer_may_be_used_again() -> None:
    """What waits has been copied: the receiver may overwrite the datagrams."""
    collector = Collector()
    datagrams = packed([v9_datagram(data_set(256, b"abcd"))])
    collector.take(datagrams)
    datagrams.buffer[:] = 0
    key = EXPORTER + (9).to_bytes(2) + bytes(4) + (256).to_bytes(2)
    assert bodies(collector.pipeline.parking.release(key, 0)) == [b"abcd"]


# --- bounds


def test_when_there_is_no_room_the_newest_is_dropped() -> None:
    """What waits already goes on waiting; what has no room is told, set by set."""
    size = 100 + SET_BYTES
    parking = Parking(ParkingBounds(total_bytes=KEY_BYTES + 3 * size))
    sets = waiting(*(bytes([index]) * 100 for index in range(5)))
    assert dict(parking.add(sets)) == {Fault.PARKING_FULL: 2}
    assert parking.bytes == KEY_BYTES + 3 * size
    assert [body[0] for body in bodies(parking.release(sets.keys[0], 0))] == [0, 1, 2]


def test_a_smaller_set_may_still_have_room() -> None:
    """One that is too large does not close the door behind it."""
    parking = Parking(ParkingBounds(total_bytes=KEY_BYTES + 3 * SET_BYTES + 1020))
    sets = waiting(bytes(1000), bytes(1000), bytes(10), bytes(10))
    assert dict(parking.add(sets)) == {Fault.PARKING_FULL: 1}
    assert [len(body) for body in bodies(parking.release(sets.keys[0], 0))] == [1000, 10, 10]


def test_one_exporter_cannot_take_the_room_of_all() -> None:
    """An exporter over its quota is refused, and the next one has room."""
    bounds = ParkingBounds(exporter_bytes=2 * (100 + SET_BYTES) + KEY_BYTES)
    parking = Parking(bounds)
    flood = waiting(*(bytes(100) for _ in range(5)))
    assert dict(parking.add(flood)) == {Fault.PARKING_QUOTA: 3}
    assert not parking.add(waiting(bytes(100), exporter=OTHER))
    parking.release(flood.keys[0], 0)
    assert not parking.add(waiting(bytes(100), bytes(100)))


def test_all_domains_and_templates_of_an_exporter_share_its_quota() -> None:
    """Other observation domains and template ids do not make it more."""
    collector = Collector(parking=ParkingBounds(exporter_bytes=10 * (KEY_BYTES + SET_BYTES + 4)))
    decoded = collector.feed(*(v9_datagram(data_set(256 + which, b"abcd"), source_id=which) for which in range(25)))
    assert faults(decoded) == {(Fault.PARKING_QUOTA, Unit.SETS): 15}
    assert collector.pipeline.parking.sets == 10
    assert not faults(collector.feed(v9_datagram(data_set(256, b"abcd")), source=OTHER))


@pytest.mark.parametrize("length", [1, 40, 1400])
@pytest.mark.parametrize("alike", [True, False], ids=["one template", "a template each"])
def test_what_waits_takes_no_more_memory_than_is_counted(length: int, alike: bool) -> None:
    """The bytes that the bounds hold for are those that are used, whatever it is that waits."""
    collector = Collector()
    payloads = [
        v9_datagram(
            *(data_set(256 + (0 if alike else place), bytes(length)) for place in range(40)),
            source_id=0 if alike else which,
        )
        for which in range(100)
    ]
    datagrams = [packed([payload]) for payload in payloads]
    collector.take(datagrams.pop())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    counted = collector.pipeline.parking.bytes
    for item in datagrams:
        collector.pipeline.decode(item)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert collector.pipeline.parking.sets == 4000
    assert used <= collector.pipeline.parking.bytes - counted


# --- time


def test_what_waited_too_long_is_dropped_and_counted() -> None:
    """After its time a set is given up, each by when it was received, whatever it waits for."""
    collector = Collector(parking=ParkingBounds(wait_ns=30 * MINUTE))
    for minute in (0, 10, 20):
        collector.feed(
            v9_datagram(data_set(256, b"abcd"), data_set(257 + minute, b"abcd")),
            received_ns=RECEIVED_NS + minute * MINUTE,
        )
    assert faults(collector.pipeline.expire(RECEIVED_NS + 30 * MINUTE)) == {}
    assert collector.pipeline.parking.sets == 6
    late = collector.pipeline.expire(RECEIVED_NS + 30 * MINUTE + 1)
    assert faults(late) == {(Fault.TEMPLATE_NEVER_CAME, Unit.SETS): 2}
    assert collector.pipeline.parking.sets == 4
    late = collector.pipeline.expire(RECEIVED_NS + 24 * 60 * MINUTE)
    assert faults(late) == {(Fault.TEMPLATE_NEVER_CAME, Unit.SETS): 4}
    assert (collector.pipeline.parking.sets, collector.pipeline.parking.bytes) == (0, 0)


def test_the_order_of_reception_does_not_matter() -> None:
    """A set that was received before the one that waits first is given up in its own time."""
    parking = Parking(ParkingBounds(wait_ns=10))
    sets = waiting(b"young", received_ns=1000)
    parking.add(sets)
    parking.add(waiting(b"older", received_ns=900))
    assert parking.expire(950) == 1
    assert bodies(parking.release(sets.keys[0], 0)) == [b"young"]


def test_expiring_makes_room() -> None:
    """What was given up no longer counts against any bound."""
    parking = Parking(ParkingBounds(total_bytes=KEY_BYTES + SET_BYTES + 4, wait_ns=10))
    parking.add(waiting(b"abcd", received_ns=100))
    assert parking.add(waiting(b"abcd", received_ns=100))
    assert parking.expire(1000) == 1
    assert not parking.add(waiting(b"abcd", received_ns=1000))


def test_clearing_tells_how_many_waited() -> None:
    """A worker that stops counts what it could not keep."""
    parking = Parking()
    parking.add(waiting(b"a", b"b"))
    parking.add(waiting(b"c", exporter=OTHER))
    assert parking.clear() == 3
    assert (parking.sets, parking.bytes) == (0, 0)
    assert not parking.add(waiting(b"a"))
    assert parking.sets == 1


# --- what leaves, to wait elsewhere


def left(parking: Parking) -> list[list[bytes]]:
    """What has left, part by part."""
    return [bodies(sets) for sets in parking.take_leaving()]


def test_with_an_allowance_the_oldest_make_room() -> None:
    """**patient**: nothing is refused; those that have waited longest leave, whole as they were."""
    size = 100 + SET_BYTES
    parking = Parking(ParkingBounds(total_bytes=2 * KEY_BYTES + 4 * size))
    parking.allowance = 10 * size
    old = waiting(b"a" * 100, b"b" * 100)
    parking.add(old)
    parking.add(waiting(b"c" * 100, b"d" * 100, template_id=257))
    assert not parking.add(waiting(b"e" * 100, template_id=257))
    (gone,) = parking.take_leaving()
    assert bodies(gone) == [b"a" * 100]
    assert (gone.keys, gone.position.tolist()) == (old.keys[:1], old.position.tolist()[:1])
    assert gone.headers.sequence.tolist() == old.headers.sequence.tolist()[:1]
    assert parking.allowance == 9 * size
    assert left(parking) == []
    # With the last set of a template its room goes too.
    assert not parking.add(waiting(*[b"f" * 100] * 2, template_id=257))
    assert left(parking) == [[b"b" * 100]]
    assert not parking.add(waiting(b"g" * 100, template_id=257))
    assert left(parking) == [[b"c" * 100]]


def test_those_that_leave_leave_together() -> None:
    """Room is made for many at once: each part that leaves is a message."""
    size = 1000 + SET_BYTES
    parking = Parking(ParkingBounds(total_bytes=KEY_BYTES + 160 * size))
    parking.allowance = 1000 * size
    for _ in range(161):
        assert not parking.add(waiting(bytes(1000)))
    assert [len(part) for part in left(parking)] == [11]
    assert parking.sets == 150


def test_an_exporter_over_its_bound_makes_room_with_its_own() -> None:
    """Others stay, however long they have waited."""
    size = 100 + SET_BYTES
    parking = Parking(ParkingBounds(exporter_bytes=2 * KEY_BYTES + 3 * size))
    parking.allowance = 10 * size
    parking.add(waiting(bytes(90), exporter=OTHER))
    parking.add(waiting(bytes(100), bytes(99), template_id=300))
    assert not parking.add(waiting(bytes(98), bytes(97)))
    assert left(parking) == [[bytes(100)]]
    assert parking.sets == 4


def test_when_the_allowance_is_used_up_the_newest_is_refused() -> None:
    """A flood drives out only as much as may leave; what came before it and is left goes on waiting."""
    size = 100 + SET_BYTES
    parking = Parking(ParkingBounds(total_bytes=KEY_BYTES + 2 * size))
    parking.allowance = size
    assert dict(parking.add(waiting(*(bytes([at]) * 100 for at in range(5))))) == {Fault.PARKING_FULL: 2}
    assert left(parking) == [[bytes(100)]]
    assert parking.allowance == 0
    (kept,) = parking.drain()
    assert [body[0] for body in bodies(kept)] == [1, 2]


def test_a_part_of_the_allowance_is_not_for_those_over_their_own_bound() -> None:
    """One exporter that floods does not use up what all share."""
    size = 100 + SET_BYTES
    parking = Parking(ParkingBounds(total_bytes=2 * KEY_BYTES + 3 * size, exporter_bytes=KEY_BYTES + 2 * size))
    parking.allowance, parking.reserved = 5 * size, 4 * size
    flood = waiting(*(bytes(100) for _ in range(6)))
    assert dict(parking.add(flood)) == {Fault.PARKING_QUOTA: 3}
    assert parking.allowance == 4 * size
    left(parking)
    assert not parking.add(waiting(bytes(100), exporter=OTHER))
    assert not parking.add(waiting(bytes(100), exporter=mapped("192.0.2.102")))
    assert left(parking)[0] == [bytes(100), bytes(100)]


def test_a_set_that_never_fits_drives_nothing_out() -> None:
    """One that is larger than a bound is refused as it is."""
    parking = Parking(ParkingBounds(exporter_bytes=1000, total_bytes=2000))
    parking.allowance = 10_000
    parking.add(waiting(bytes(100)))
    assert dict(parking.add(waiting(bytes(900)))) == {Fault.PARKING_QUOTA: 1}
    assert dict(parking.add(waiting(bytes(1900)))) == {Fault.PARKING_FULL: 1}
    assert (left(parking), parking.sets) == ([], 1)


def test_what_waited_too_long_leaves_as_far_as_it_may() -> None:
    """It waits elsewhere from then on; without an allowance it is dropped."""
    parking = Parking(ParkingBounds(wait_ns=10))
    parking.allowance = 2 * (4 + SET_BYTES)
    parking.add(waiting(b"abcd", b"efgh", received_ns=100))
    parking.add(waiting(b"ijkl", template_id=257, received_ns=100))
    parking.add(waiting(b"mnop", template_id=258, received_ns=1000))
    assert parking.expire(1005) == 1
    assert left(parking) == [[b"abcd", b"efgh"]]
    assert (parking.allowance, parking.sets) == (0, 1)


def test_at_the_end_everything_is_given_back() -> None:
    """Each set as it was, one template's after the other's, and nothing is left."""
    parking = Parking()
    given = [waiting(b"a", b"b"), waiting(b"c", exporter=OTHER), waiting(b"d", version=10)]
    for sets in given:
        parking.add(sets)
    assert [bodies(sets) for sets in parking.drain()] == [[b"a", b"b"], [b"c"], [b"d"]]
    assert (parking.sets, parking.bytes) == (0, 0)
    assert list(parking.drain()) == []


def test_what_comes_and_goes_is_counted() -> None:
    """Taken in = given back to be decoded + left + refused for their age + still there."""
    parking = Parking(ParkingBounds(wait_ns=10, exporter_bytes=KEY_BYTES + 3 * (4 + SET_BYTES)))
    parking.allowance = 4 + SET_BYTES
    parking.add(waiting(b"abcd", b"abcd", b"abcd", b"abcd", b"abcd"))
    parking.add(waiting(b"abcd", exporter=OTHER, received_ns=RECEIVED_NS - 100))
    assert parking.parked == 5
    assert len(left(parking)) == 1
    assert parking.expire(RECEIVED_NS) == 1
    parking.release(waiting(b"").keys[0], 0)
    assert (parking.parked, parking.released, parking.sets) == (5, 3, 0)
