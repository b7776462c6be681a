"""What is done to a run, and when: drawn from a seed, so that a run can be had again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What may be done. Each lasts for a while, and is undone then."""

    KILL_WORKER = "kill a worker of ingest"
    STOP_WORKER = "stop a worker of ingest"
    KILL_INGEST = "kill ingest"
    RESTART_INGEST = "restart ingest"
    KILL_FORWARDER = "kill a forwarder"
    RESTART_FORWARDER = "restart a forwarder"
    STOP_FORWARDER = "stop a forwarder past its session"
    JOIN_FORWARDER = "let another forwarder join and leave"
    CHANGE_FORWARDER = "kill a forwarder, and start it with other batches"
    KILL_BROKER = "kill the broker"
    STOP_BROKER = "stop the broker"
    LAKE_AWAY = "take the lake away"
    SLOW_DISK = "slow the disks of ingest and the forwarders"
    FULL_DISK = "fill the disk of the lake and the spool"
    STEP_BROKER = "step the broker's clock"
    STEP_PROGRAMS = "step the clock of ingest and the forwarders"


LOSING = frozenset({Fault.KILL_WORKER, Fault.KILL_INGEST, Fault.RESTART_INGEST})
"""What may cost records that nobody counts: those that a process held, and those that came while none was there."""
WEIGHTS = {
    Fault.KILL_WORKER: 4,
    Fault.STOP_WORKER: 2,
    Fault.KILL_INGEST: 2,
    Fault.RESTART_INGEST: 1,
    Fault.KILL_FORWARDER: 5,
    Fault.RESTART_FORWARDER: 2,
    Fault.STOP_FORWARDER: 2,
    Fault.JOIN_FORWARDER: 2,
    Fault.CHANGE_FORWARDER: 2,
    Fault.KILL_BROKER: 2,
    Fault.STOP_BROKER: 2,
    Fault.LAKE_AWAY: 2,
    Fault.SLOW_DISK: 2,
    Fault.FULL_DISK: 2,
    Fault.STEP_BROKER: 2,
    Fault.STEP_PROGRAMS: 1,
}
SHORTEST_SECONDS = {Fault.STOP_FORWARDER: 7.0}
"""The session of a member of the group is 6 seconds."""
LONGEST_SECONDS = {Fault.STOP_FORWARDER: 10.0}
USUALLY_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault: when it begins and how long it lasts, in seconds of the round, and which of several it hits."""

    fault: Fault
    at: float
    lasts: float
    which: int

    def __str__(self) -> str:
        return f"{self.fault} ({self.which}) at {self.at:.1f} s for {self.lasts:.1f} s"


def blows(seed: int, number: int, seconds: float) -> list[Blow]:
    """What is done in one round of a run, in order of time: one to four faults, of which some overlap."""
    chance = random.Random(f"{seed}:{number}")
    faults = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=chance.randint(1, 4))
    drawn = [
        Blow(
            fault,
            at=chance.uniform(0.3, seconds),
            lasts=chance.uniform(
                SHORTEST_SECONDS.get(fault, USUALLY_SECONDS / 5), LONGEST_SECONDS.get(fault, USUALLY_SECONDS)
            ),
            which=chance.randrange(4),
        )
        for fault in faults
    ]
    return sorted(drawn, key=lambda blow: blow.at)
