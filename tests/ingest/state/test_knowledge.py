"""Instances that know together what each has heard: cold starts, failovers, redefinitions, and forged datagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from ingest.state.entries import PAGE_ROWS, Skip
from ingest.templates import TemplateBounds
from tests.builders import (
    SYSTEM,
    data_set,
    field,
    fixed,
    ipfix_message,
    ipfix_templates,
    mapped,
    number,
    template,
    v9_datagram,
    v9_options_template,
    v9_options_templates,
    v9_templates,
)
from tests.ingest.collector import Row
from tests.ingest.state.pods import STEADY_SECONDS, Clock, Pod, Topic

EDGE, OTHER = mapped("192.0.2.1"), mapped("192.0.2.2")
FIELDS: Final = (field(1, 4), field(2, 4), field(7, 2), field(11, 2))
"""Bytes, packets and ports."""
NEW_FIELDS: Final = (field(2, 4), field(1, 4), field(11, 2), field(7, 2), field(10, 2))
"""The same in another order, and an interface."""
FORGED_FIELDS: Final = (field(2, 4), field(1, 4), field(11, 2), field(7, 2))
"""As long as the true one, and all of it wrong."""
REFRESH: Final = 20


def record(octets: int) -> bytes:
    """A record of the first layout."""
    return number(octets, 4) + number(3, 4) + number(443, 2) + number(50_000, 2)


def new_record(octets: int) -> bytes:
    """The same record by the other layout."""
    return number(3, 4) + number(octets, 4) + number(50_000, 2) + number(443, 2) + number(7, 2)


@dataclass(slots=True)
class Device:
    """An exporter of NetFlow v9 or IPFIX that says what time it is, and counts."""

    clock: Clock
    source: bytes = EDGE
    version: int = 9
    sequence: int = 1000
    booted: float = -86_400.0
    domain: int = 0
    ahead: int = 0
    """By how many seconds its clock is wrong."""

    def send(self, *sets: bytes, records: int = 0) -> bytes:
        """A datagram with these sets; of IPFIX it counts so many records."""
        seconds, sequence = max(0, self.clock.unix_seconds + self.ahead), self.sequence % 2**32
        self.sequence += 1 if self.version == 9 else records
        if self.version == 10:
            return ipfix_message(*sets, unix_seconds=seconds, sequence=sequence, domain=self.domain)
        uptime_ms = round((self.clock.seconds - self.booted) * 1000) % 2**32
        return v9_datagram(*sets, unix_seconds=seconds, sequence=sequence, uptime_ms=uptime_ms, source_id=self.domain)

    def template(self, fields: Sequence[bytes] = FIELDS, template_id: int = 256) -> bytes:
        """A datagram with a template alone."""
        return self.templates(template(template_id, *fields))

    def templates(self, *described: bytes) -> bytes:
        """A datagram with templates."""
        return self.send(v9_templates(*described) if self.version == 9 else ipfix_templates(*described))

    def data(self, octets: int, made: bytes | None = None, template_id: int = 256) -> bytes:
        """A datagram with one record."""
        return self.send(data_set(template_id, made or record(octets)), records=1)


PROTOCOLS = pytest.mark.parametrize("version", [9, 10], ids=["v9", "ipfix"])
TRUE: Final = {"packets": 3, "src_port": 443, "dst_port": 50_000}


def true(found: list[Row]) -> bool:
    """Whether there is one record, and it says what was sent."""
    return len(found) == 1 and found[0].items() >= TRUE.items()


def run(pod: Pod, device: Device, seconds: int, *, fields: Sequence[bytes] = FIELDS, others: Sequence[Pod] = ()) -> int:
    """An exporter sends a record a second, and its template every 20; how many of its records were not as sent."""
    wrong = 0
    for _ in range(seconds):
        device.clock.seconds += 1
        if int(device.clock.seconds) % REFRESH == 0:
            pod.receive(device.source, device.template(fields))
        made = new_record(500) if fields is NEW_FIELDS else None
        wrong += not true(pod.receive(device.source, device.data(500, made)))
        for one in (pod, *others):
            one.exchange()
    return wrong


# --- cold starts


@PROTOCOLS
def test_the_first_data_set_of_an_exporter_is_decoded(version: int) -> None:
    """**warm**: by an instance that has just started, when any other has ever heard the template."""
    topic, clock = Topic(), Clock()
    device = Device(clock, version=version)
    first = Pod(topic, clock).start()
    first.receive(EDGE, device.template())
    first.exchange()
    for one in (topic, topic.compacted()):
        cold = Pod(one, clock).start()
        for worker in (0, 1):
            assert true(cold.receive(EDGE, device.data(500), worker=worker))
        assert cold.undecoded == 0


def test_what_an_exporter_tells_of_itself_is_known_to_a_cold_instance() -> None:
    """**warm**: names of interfaces are joined to the first record, sampling rates too."""
    topic, clock = Topic(), Clock()
    device = Device(clock)
    names = v9_options_template(300, (field(SYSTEM, 4),), (field(10, 4), field(82, 16)))
    rates = v9_options_template(301, (field(SYSTEM, 4),), (field(34, 4),))
    first = Pod(topic, clock).start()
    first.receive(
        EDGE,
        device.send(
            v9_options_templates(names, rates),
            data_set(300, *(number(1, 4) + number(one, 4) + fixed(f"Te0/{one}", 16) for one in range(1, 300))),
            data_set(301, number(1, 4) + number(1000, 4)),
            v9_templates(template(256, *FIELDS, field(10, 4))),
        ),
    )
    first.exchange()
    cold = Pod(topic.compacted(), clock).start()
    (found,) = cold.receive(EDGE, device.data(500, record(500) + number(280, 4)))
    assert (found["in_if_name"], found["sampling_rate"]) == ("Te0/280", 1000)
    assert len(topic.messages) == 3 + -(-299 // PAGE_ROWS) + 1


def test_instances_that_start_publish_nothing_of_what_they_read() -> None:
    """A restart storm of twenty adds not one message, although all hear the exporter again."""
    topic, clock = Topic(), Clock()
    devices = [Device(clock, mapped(f"192.0.2.{one}")) for one in range(10)]
    first = Pod(topic, clock).start()
    for device in devices:
        first.receive(device.source, device.template())
    first.exchange()
    before = len(topic.messages)
    for seed in range(20):
        pod = Pod(topic, clock, seed=seed).start()
        for _ in range(3):
            clock.seconds += 30
            for device in devices:
                pod.receive(device.source, device.template(), device.data(500))
            pod.exchange()
    assert len(topic.messages) == before == 10


def test_everyday_life_is_quiet_and_outlives_a_week() -> None:
    """**warm**: an exporter that tells its template rarely is known after eight days, by one message a day."""
    topic, clock = Topic(), Clock()
    device = Device(clock)
    pods = [Pod(topic, clock, seed=seed).start() for seed in range(3)]
    pods[0].receive(EDGE, device.template())
    for hour in range(8 * 24):
        clock.seconds = hour * 3600.0
        # What comes in between is data alone: that it can be used is life enough.
        assert true(pods[hour % 3].receive(EDGE, device.data(500), worker=0)) or hour == 0
        for pod in pods:
            pod.exchange()
    assert 8 <= len(topic.messages) <= 12
    young = Topic([message for message in topic.messages if message[2] > clock.ms() - 7 * 86_400_000])
    assert true(Pod(young, clock).start().receive(EDGE, device.data(500)))


# --- redefinitions


@PROTOCOLS
def test_a_redefinition_reaches_all_instances(version: int) -> None:
    """The exporter says it in its own sequence, twice: then a cold instance reads data by it, and no record was wrong."""
    topic, clock = Topic(), Clock()
    device = Device(clock, version=version)
    pod, other = Pod(topic, clock).start(), Pod(topic, clock, seed=2).start()
    pod.receive(EDGE, device.template())
    assert run(pod, device, 100, others=[other]) == 0
    pod.receive(EDGE, device.template(NEW_FIELDS))
    assert true(pod.receive(EDGE, device.data(500, new_record(500))))
    assert run(pod, device, REFRESH, fields=NEW_FIELDS, others=[other]) == 0
    assert len(topic.messages) == 2
    assert true(other.receive(EDGE, device.data(500, new_record(500))))
    cold = Pod(topic.compacted(), clock).start()
    assert true(cold.receive(EDGE, device.data(500, new_record(500))))


def test_one_datagram_alone_redefines_nothing_for_others() -> None:
    """Although it is of the exporter's sequence."""
    topic, clock = Topic(), Clock()
    device = Device(clock)
    pod = Pod(topic, clock).start()
    pod.receive(EDGE, device.template())
    assert run(pod, device, 100) == 0
    pod.receive(EDGE, device.template(NEW_FIELDS))
    assert run(pod, device, 100) == 0
    assert len(topic.messages) == 1


def test_an_exporter_that_begins_anew_is_believed() -> None:
    """Its uptime and its sequence went back, its clock stands at 1970, and the one before is silent."""
    topic, clock = Topic(), Clock()
    device = Device(clock)
    pod = Pod(topic, clock).start()
    pod.receive(EDGE, device.template())
    assert run(pod, device, 100) == 0
    anew = Device(clock, sequence=0, booted=clock.seconds, ahead=-(10**9))
    pod.receive(EDGE, anew.template(NEW_FIELDS))
    assert run(pod, anew, STEADY_SECONDS + 2 * REFRESH, fields=NEW_FIELDS) == 0
    assert len(topic.messages) == 2
    assert true(Pod(topic.compacted(), clock).start().receive(EDGE, anew.data(500, new_record(500))))


def test_two_instances_that_hear_an_exporter_in_turns_agree() -> None:
    """Each hears half of its datagrams, or the one and then the other all: nothing is told twice.

    Only while the redefinition was said but once, the one that has not heard it reads by the layout before.
    """
    topic, clock = Topic(), Clock()
    device = Device(clock)
    pods = [Pod(topic, clock, seed=seed).start() for seed in range(2)]
    wrong = 0
    pods[0].receive(EDGE, device.template())
    for second in range(600):
        clock.seconds += 1
        fields, made = (FIELDS, record(500)) if second < 300 else (NEW_FIELDS, new_record(500))
        pod = pods[second % 2 if second < 450 else second // 50 % 2]
        if second % REFRESH == 0:
            pod.receive(EDGE, device.template(fields))
        wrong += not true(pod.receive(EDGE, device.data(500, made)))
        for one in pods:
            one.exchange()
    assert wrong == REFRESH / 2
    assert len(topic.messages) == 2
    assert true(Pod(topic.compacted(), clock).start().receive(EDGE, device.data(500, new_record(500))))


# --- what is in the topic and not as it has to be


@pytest.mark.parametrize(
    ("key", "value", "skip"),
    [
        pytest.param(b"192.0.2.1/0/template-v9/256/0123456789abcdef", b"{", Skip.CORRUPT, id="corrupt"),
        pytest.param(b"something else", b"x", Skip.NOT_OURS, id="foreign"),
    ],
)
def test_what_is_not_an_entry_is_left_out(key: bytes, value: bytes, skip: Skip) -> None:
    """And all others are read."""
    topic, clock = Topic(), Clock()
    device = Device(clock)
    topic.messages.append((key, value, clock.ms()))
    pod = Pod(topic, clock).start()
    pod.receive(EDGE, device.template())
    pod.exchange()
    topic.messages.append((key, value, clock.ms()))
    cold = Pod(topic, clock).start()
    assert cold.skipped == [skip, skip]
    assert true(cold.receive(EDGE, device.data(500)))


# --- forged datagrams


def forger(clock: Clock, version: int = 9, domain: int = 0, ahead: int = 0) -> Device:
    """Somebody who sends in the name of the exporter, and does not see its sequence."""
    return Device(clock, sequence=3_000_000_000, version=version, domain=domain, ahead=ahead)


@PROTOCOLS
@pytest.mark.parametrize("ahead", [0, 10**8, -(10**9)], ids=["now", "the future", "1970"])
def test_forged_templates_do_not_reach_others(version: int, ahead: int) -> None:
    """The instance that hears both goes on with both layouts until the true one comes again; no other hears of it."""
    topic, clock = Topic(), Clock()
    device, forged = Device(clock, version=version), forger(clock, version=version, ahead=ahead)
    pod = Pod(topic, clock).start()
    pod.receive(EDGE, device.template())
    assert run(pod, device, 100) == 0
    wrong = 0
    for _ in range(10):
        for _ in range(3):
            pod.receive(EDGE, forged.template(FORGED_FIELDS))
        wrong += run(pod, device, 2 * REFRESH)
    # By the forged layout until the next refresh, at most: its records are as long.
    assert 0 < wrong <= 10 * REFRESH
    assert run(pod, device, 100) == 0
    assert len(topic.messages) == 1
    assert true(Pod(topic, clock).start().receive(EDGE, device.data(500)))


@pytest.mark.parametrize("ahead", [0, 10**8], ids=["now", "the future"])
def test_an_instance_that_was_deceived_is_put_right_by_one_that_hears_the_exporter(ahead: int) -> None:
    """It had no sequence to go by, and was lied to for long enough. The true layout comes back by itself, everywhere."""
    topic, clock = Topic(), Clock()
    device, forged = Device(clock), forger(clock, ahead=ahead)
    honest, deceived = Pod(topic, clock).start(), Pod(topic, clock, seed=2).start()
    honest.receive(EDGE, device.template())
    assert run(honest, device, 100) == 0
    for second in range(2 * STEADY_SECONDS):
        if second % REFRESH == 0:
            deceived.receive(EDGE, forged.template(FORGED_FIELDS))
        deceived.receive(EDGE, forged.data(1))
        run(honest, device, 1, others=[deceived])
    assert len(topic.messages) >= 2
    wrong = run(honest, device, 5 * REFRESH, others=[deceived])
    assert wrong <= 2 * REFRESH
    assert run(honest, device, 100, others=[deceived]) == 0
    assert true(Pod(topic.compacted(), clock).start().receive(EDGE, device.data(500)))
    assert true(deceived.receive(EDGE, device.data(500)))


def test_forged_templates_change_no_other_exporters_records() -> None:
    """Ten thousand templates of an exporter, in a hundred domains: what others send is decoded as ever.

    By this instance and by cold ones; and what is published and kept is within the bounds.
    """
    topic, clock = Topic(), Clock()
    bounds = TemplateBounds(per_domain=64, per_exporter=256, templates=1024)
    devices = [Device(clock, mapped(f"198.51.100.{one}")) for one in range(10)]
    pod = Pod(topic, clock, bounds=bounds).start()
    for device in devices:
        pod.receive(device.source, device.template(), device.data(500))
    pod.exchange()
    published = len(topic.messages)
    begun = clock.seconds
    for turn in range(100):
        clock.seconds += 1
        forged = forger(clock, domain=turn)
        pod.receive(
            EDGE,
            *(
                forged.templates(*(template(256 + first + one, field(1, 1 + one % 50)) for one in range(25)))
                for first in range(0, 100, 25)
            ),
        )
        for device in devices:
            assert true(pod.receive(device.source, device.data(500)))
        pod.exchange()
    assert len(topic.messages) - published <= 64 + (clock.seconds - begun)
    assert len(pod.knowledge.templates()) <= 256 + 10
    cold = Pod(topic.compacted(), clock, bounds=bounds).start()
    assert all(true(cold.receive(device.source, device.data(500))) for device in devices)
    late = Device(clock, mapped("203.0.113.7"))
    cold.receive(late.source, late.template())
    assert true(cold.receive(late.source, late.data(500)))


def test_exporters_that_do_not_exist_displace_none_that_do() -> None:
    """A flood from made-up addresses, more than there is room for: those that are in use stay."""
    topic, clock = Topic(), Clock()
    bounds = TemplateBounds(templates=256)
    devices = [Device(clock, mapped(f"198.51.100.{one}")) for one in range(100)]
    pod = Pod(topic, clock, bounds=bounds).start()
    for device in devices:
        pod.receive(device.source, device.template(), worker=0)
    for worker in (0, 1):
        for device in devices:
            pod.receive(device.source, device.data(500), worker=worker)
    pod.exchange()
    for one in range(2000):
        flood = Device(clock, mapped(f"10.0.{one >> 8}.{one & 255}"))
        pod.receive(flood.source, flood.template())
    pod.exchange()
    for device in devices:
        assert true(pod.receive(device.source, device.data(500)))
    assert len(pod.knowledge.templates()) == 256


def test_an_exporter_recovers_from_a_flood_of_its_identifiers() -> None:
    """While its forgers fill its table it has no room for what is new; an hour later it has."""
    topic, clock = Topic(), Clock()
    bounds = TemplateBounds(per_domain=64)
    device = Device(clock)
    pod = Pod(topic, clock, bounds=bounds).start()
    pod.receive(EDGE, device.template())
    run(pod, device, 100)
    forged = forger(clock)
    for first in range(1000, 1100, 25):
        pod.receive(EDGE, forged.templates(*(template(first + one, field(1, 4)) for one in range(25))))
    assert run(pod, device, 60) == 0
    pod.receive(EDGE, device.template(NEW_FIELDS, template_id=300))
    assert pod.receive(EDGE, device.data(500, new_record(500), template_id=300)) == []
    for _ in range(62):
        clock.seconds += 58
        run(pod, device, 2)
    pod.receive(EDGE, device.template(NEW_FIELDS, template_id=300))
    assert true(pod.receive(EDGE, device.data(500, new_record(500), template_id=300)))
    pod.exchange()
    assert any(b"/template-v9/300/" in key for key, _, _ in topic.messages)
