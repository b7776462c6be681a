"""Sends traffic at its rate, until there is enough or somebody says stop, and keeps the books of what was sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ingest.generator.batch import Counts, add_totals
from ingest.generator.pace import SECOND_NS, Pace
from ingest.generator.sender import MESSAGES_AT_ONCE, Sender
from ingest.generator.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop; None is never."""

    count: int | None = None
    """Datagrams, those that the kernel did not take among them."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What the kernel took: it is on its way, or was dropped where the receiver's buffer is full."""

    totals: Mapping[str, Counts]
    """By the flow record's `type`."""
    not_sent: int
    duration_seconds: float


def transmit(
    traffic: Traffic,
    sender: Sender,
    limits: Limits,
    *,
    stopped: Callable[[], bool],
    progress: Callable[[int, float], None],
) -> Sent:
    """Send through a sender that was started. Blocks until a limit is reached or `stopped` says so.

    `progress` is called after each burst with the datagrams and seconds so far.
    """
    pace = Pace(traffic.scenario.rate) if traffic.scenario.rate else None
    totals: Mapping[str, Counts] = {}
    begin_ns: int | None = None
    number = tried = 0
    ended = False
    for batch in traffic.batches(limits.count):
        messages = sender.prepare(batch)
        taken = np.zeros(len(messages), np.bool_)
        at = 0
        # The first batch takes longer to make than the others, and nobody waits for it.
        begin_ns = begin_ns or time.monotonic_ns()
        end_ns = None if limits.seconds is None else begin_ns + int(limits.seconds * SECOND_NS)
        while at < len(messages):
            now_ns = time.monotonic_ns()
            ended = stopped() or (end_ns is not None and now_ns >= end_ns)
            if ended:
                break
            due = min(len(messages) - at, MESSAGES_AT_ONCE if pace is None else pace.due(now_ns))
            if pace is not None and due == 0:
                time.sleep(pace.wait_ns(now_ns) / SECOND_NS)
                continue
            taken[at : at + due] = sender.send(messages, at, at + due)
            number += int(np.count_nonzero(taken[at : at + due]))
            at += due
            if pace is not None:
                pace.sent(due)
            progress(number, (now_ns - begin_ns) / SECOND_NS)
        tried += at
        totals = add_totals(totals, batch.totals(taken))
        if ended:
            break
    duration_ns = 0 if begin_ns is None else time.monotonic_ns() - begin_ns
    return Sent(totals, tried - number, duration_ns / SECOND_NS)
