"""What a person sees of a replay: how far it is while it goes on, and what it was at its end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from shared.log import configure, get_logger

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

    from forwarder.replay.run import Replay, Strand
    from forwarder.replay.tally import Tally
    from shared.config import LogConfig

LINE_SECONDS: Final = 10.0
"""How often a line tells how far it is, where there is no bar."""

COLUMNS: Final = ("messages", "bytes", "batches", "records", "delivered")
REASONS: Final = ("duplicate", "other_exporter", "not_selected", "corrupt", "refused")


class Meter(Protocol):
    """Tells how far a replay is, while it is entered."""

    def __enter__(self) -> Self:
        """Begin to tell."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell no more."""
        ...

    def show(self, read: int, total: int, tally: Tally) -> None:
        """Tell how many messages of how many were read, and what was counted; called often."""
        ...


def meter(config: LogConfig, logger: str = "replay", event: str = "replaying") -> Meter:
    """A bar where standard error is a terminal, else lines of the log; sets up the log, so that it passes by a bar.

    Lines are of ``logger``, and say ``event``.
    """
    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        configure(config, "forwarder")
        return Lines(logger=logger, event=event)
    # A line of the log goes above the bar.
    configure(config, "forwarder", cast("TextIO", FileProxy(console, sys.stderr)))
    return Bar(console)


class Bar:
    """A bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._rate = Rate()
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("messages, {task.fields[rate]} records/s,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("replay", total=None, rate="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, read: int, total: int, tally: Tally) -> None:
        """Move the bar."""
        rate = self._rate.of(tally.delivered)
        self._progress.update(self._task, completed=read, total=total, rate=f"{rate:,.0f}")


class Lines:
    """A line of the log every few seconds; ``clock`` gives seconds that never go back."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, logger: str = "replay", event: str = "replaying"
    ) -> None:
        self._log = get_logger(logger)
        self._event = event
        self._clock = clock
        self._rate = Rate(clock)
        self._began = self._told = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, read: int, total: int, tally: Tally) -> None:
        """Write a line, if it is time."""
        rate, now = self._rate.of(tally.delivered), self._clock()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        left = (now - self._began) / read * (total - read) if read else None
        self._log.info(
            self._event,
            messages=read,
            of=total,
            delivered_records=tally.delivered,
            records_per_second=round(rate),
            seconds_left=None if left is None else round(left),
        )


class Rate:
    """How many a second, over about the last ten seconds; ``clock`` as in :class:`Lines`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points = [(clock(), 0)]

    def of(self, count: int) -> float:
        """Take in how many there are by now."""
        now = self._clock()
        if now - self._points[-1][0] >= 0.5:
            self._points = [*self._points[-20:], (now, count)]
        since, before = self._points[0]
        return (count - before) / (now - since) if now > since else 0.0


def as_json(replay: Replay, *, dry_run: bool) -> dict[str, Any]:
    """What was replayed, by partition and in all, and whether that is all there is."""
    return {
        "dry_run": dry_run,
        "finished": replay.finished,
        "partitions": {
            str(number): {"start": start, "end": end, **strand.tally.as_json()}
            for number, strand, start, end in _ranges(replay)
        },
        "total": replay.tally.as_json(),
    }


def show(replay: Replay, form: str, *, dry_run: bool) -> None:
    """Write what was replayed, or would be, to standard output: as a table or as JSON."""
    if form == "json":
        sys.stdout.write(json.dumps(as_json(replay, dry_run=dry_run)) + "\n")
        return
    there = [*COLUMNS, *(reason for reason in REASONS if getattr(replay.tally, reason))]
    table = Table("partition", "offsets", box=None, pad_edge=False)
    for name in there:
        title = "to deliver" if dry_run and name == "delivered" else name.replace("_", " ")
        table.add_column(title, justify="right")
    for number, strand, start, end in _ranges(replay):
        offsets = "-" if start is None else f"{start} to {end}"
        table.add_row(str(number), offsets, *(f"{getattr(strand.tally, name):,}" for name in there))
    table.add_section()
    table.add_row("all", "", *(f"{getattr(replay.tally, name):,}" for name in there))
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def _ranges(replay: Replay) -> Iterator[tuple[int, Strand, int | None, int | None]]:
    for number, strand in sorted(replay.strands.items()):
        start = None if strand.begins is None else strand.begins.start
        yield number, strand, start, None if strand.ends is None else strand.ends.end
