"""Where the datagrams come from: a process of its own, which makes them beforehand and then only sends."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ingest.generator.batch import Batch
from ingest.generator.pace import SECOND_NS, Pace
from ingest.generator.scenario import Scenario
from ingest.generator.sender import Messages, Sender, Target
from ingest.generator.traffic import Traffic
from tests.bench.cases import WARM_UP, Case

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent of a case."""

    datagrams: int
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Prepare:
    case: Case
    datagrams: int


@dataclass(frozen=True, slots=True)
class _Send:
    traffic: str
    first: int
    last: int
    rate: float


class Source:
    """Sends the datagrams of one case at a time to a port of 127.0.0.1. `start` spawns the process, `close` ends it."""

    def __init__(self, port: int) -> None:
        self._port = port
        context = multiprocessing.get_context("spawn")
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs, port), name="source", daemon=True)

    def start(self) -> None:
        """Spawn the process."""
        self._process.start()
        self._theirs.close()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()

    def prepare(self, case: Case, datagrams: int) -> None:
        """Make the datagrams: of each traffic the warm-up and so many after it. Blocks until they are there."""
        self._ask(_Prepare(case, datagrams))

    def warm_up(self, rate: float, traffic: str = "") -> Sent:
        """Send the first datagrams, which bring the templates; blocks until they are sent."""
        return self._ask(_Send(traffic, 0, WARM_UP, rate))

    def send(self, datagrams: int, rate: float, traffic: str = "", *, after: int = 0) -> Sent:
        """Send so many, behind the warm-up and the ``after`` next ones; blocks until they are sent."""
        first = WARM_UP + after
        return self._ask(_Send(traffic, first, first + datagrams, rate))

    def _ask(self, request: _Prepare | _Send) -> Sent:
        self._ours.send(request)
        if not self._ours.poll(START_SECONDS + (0 if isinstance(request, _Prepare) else 600)):
            raise TimeoutError("the sender does not answer")
        answer: Sent | Exception = self._ours.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, port: int) -> None:
    """What the process does: obey until the other end is closed."""
    sender = Sender(Target.parse(f"127.0.0.1:{port}"))
    sender.start()
    prepared: dict[str, list[Messages]] = {}
    while True:
        try:
            request: _Prepare | _Send = connection.recv()
        except EOFError:
            break
        try:
            if isinstance(request, _Prepare):
                prepared.clear()
                for traffic, scenario in {"": request.case.scenario, **request.case.beside}.items():
                    prepared[traffic] = _prepared(request, scenario, sender)
                connection.send(Sent(0, 0, 0))
            else:
                connection.send(_sent(request, prepared[request.traffic], sender))
        except (OSError, ValueError, RuntimeError) as error:
            connection.send(error)
    sender.close()


def _prepared(request: _Prepare, scenario: Scenario, sender: Sender) -> list[Messages]:
    batches: list[Messages] = []
    wanted = WARM_UP + request.datagrams
    # Made one after the other without a pause: the source's speed is that of `send`.
    for batch in Traffic(replace(scenario, rate=request.case.load.rate)).batches():
        chosen = batch
        if batches and request.case.records is not None:
            chosen = _only(batch, np.flatnonzero(batch.records == request.case.records))
        batches.append(sender.prepare(chosen))
        wanted -= len(chosen)
        if wanted <= 0:
            return batches
    raise AssertionError("traffic never ends")


def _only(batch: Batch, which: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Batch:
    """The batch with these datagrams alone; their bytes stay where they are."""
    columns: dict[str, Any] = {
        field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "buffer"
    }
    chosen: dict[str, Any] = {name: one[which] for name, one in columns.items() if isinstance(one, np.ndarray)}
    return replace(batch, **chosen)


def _sent(request: _Send, prepared: list[Messages], sender: Sender) -> Sent:
    """Send the datagrams [first, last), evenly; all of them, or it raises."""
    pace = Pace(request.rate)
    begin_ns = time.monotonic_ns()
    records = before = 0
    for messages in prepared:
        at, end = max(0, request.first - before), min(len(messages), request.last - before)
        before += len(messages)
        if at >= end:
            continue
        records += int(messages.batch.records[at:end].sum())
        while at < end:
            now_ns = time.monotonic_ns()
            due = min(end - at, pace.due(now_ns))
            if due == 0:
                time.sleep(pace.wait_ns(now_ns) / SECOND_NS)
                continue
            if not sender.send(messages, at, at + due).all():
                raise RuntimeError(f"the kernel did not take all datagrams: {dict(sender.refusals.not_sent)}")
            at += due
            pace.sent(due)
    return Sent(request.last - request.first, records, (time.monotonic_ns() - begin_ns) / SECOND_NS)
