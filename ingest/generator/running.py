"""Sends as the command line says, shows how it goes, and says what was sent."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final, Self

from rich.console import Console
from rich.status import Status

from ingest.generator.batch import Counts
from ingest.generator.scenario import Scenario
from ingest.generator.sender import Refusals, Sender, Target
from ingest.generator.traffic import Traffic
from ingest.generator.transmit import Limits, Sent, transmit
from shared.errors import ConfigError

PROGRESS_SECONDS: Final = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Send until there is enough or a signal comes, and print what was sent."""
    for name in ("count", "duration"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name} {value}: must be more than 0")
    target = Target.parse(arguments.to)
    scenario = Scenario(
        protocol=arguments.protocol,
        exporters=arguments.exporters,
        seed=arguments.seed,
        start_ms=_milliseconds(arguments.start_time),
        rate=arguments.rate,
        refresh=arguments.refresh,
        uniform=arguments.uniform,
    )
    sender = Sender(target)
    sender.start()
    try:
        with _stop_signals() as stopped, _Progress(sender) as progress:
            sent = transmit(
                Traffic(scenario),
                sender,
                Limits(arguments.count, arguments.duration),
                stopped=stopped,
                progress=progress.show,
            )
    finally:
        sender.close()
    sys.stdout.write(json.dumps(report(scenario, sent, sender.refusals)) + "\n")
    sys.stdout.flush()
    return 0


def report(scenario: Scenario, sent: Sent, refusals: Refusals) -> dict[str, Any]:
    """What was sent, as the JSON object that the command prints."""
    counts = {name: asdict(count) for name, count in sent.totals.items()}
    return {
        "protocol": scenario.protocol,
        "seed": scenario.seed,
        "start_time": _text(scenario.start_ms),
        "exporters": scenario.exporters,
        "rate": scenario.rate,
        **{
            what: {name: count[what] for name, count in counts.items()}
            for what in asdict(Counts())  # datagrams, records, bytes, packets, options_records, counters
        },
        "duration_seconds": round(sent.duration_seconds, 3),
        "not_sent": sent.not_sent,
        "not_sent_reasons": dict(refusals.not_sent),
    }


class _Progress:
    """Says on standard error how far it is, when that is a terminal, and what went wrong, once."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._shown = 0.0
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status(f"sending to {self._sender.target}")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        self._complain()

    def show(self, datagrams: int, seconds: float) -> None:
        """Show the datagrams and seconds so far, now and then."""
        if seconds - self._shown < PROGRESS_SECONDS:
            return
        self._shown = seconds
        self._complain()
        if self._status is not None:
            rate = datagrams / seconds
            self._status.update(f"{datagrams:,} datagrams to {self._sender.target}, {rate:,.0f} a second")

    def _complain(self) -> None:
        if self._sender.refusals.nobody_listens:
            self._say(f"nobody listens at {self._sender.target}; sending goes on, since UDP does not need an answer")
        for reason in self._sender.refusals.not_sent:
            self._say(f"some datagrams to {self._sender.target} cannot be sent ({reason}); the report counts them")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Let SIGINT and SIGTERM end the work cleanly; a second one has its usual effect."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


def _milliseconds(text: str | None) -> int:
    """Read a time; None is now."""
    if text is None:
        return time.time_ns() // 1_000_000
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--start-time {text}: write 2026-01-31T12:00:00Z, or seconds since 1970") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _text(milliseconds: int) -> str:
    """A time as --start-time reads it."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
