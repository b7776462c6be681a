"""``deadletters``: shows what could not be delivered, and delivers it after all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forwarder.commands.replay import read_rate, stop_by_signal

if TYPE_CHECKING:
    from typing import TextIO

    from forwarder.config import ForwarderSettings
    from forwarder.deadletters import Found, Letters, Selection
    from forwarder.redelivery import Plan, Redelivery, Sum

EPILOG: Final = """\
A dead letter is what a sink refused for good, a message that cannot be decoded, or a data set
whose template never came. It stays in the topic flows.deadletter until its retention is over,
redelivered or not. Its id is partition:offset.

`redeliver` hands records to the sink that refused them (or to another one, by --into), under a
name that is the same each time: a sink that honours it takes a letter once, however often it
is redelivered. What waited for its template goes back to the topic that it waited in, each time
that this is asked for: nothing keeps in mind that it was, and its records are there twice when
they were decoded twice. So letters of ingest are put back only by their ids or with --put-back.

Ctrl-C (or SIGTERM) stops `redeliver` after the letter in hand; a second one stops at once. The
same command goes on: what a sink has by its name already, it drops. Where letters were put back,
which are not known by a name, it prints the --from with which the same command goes on.

examples:
  python -m forwarder deadletters list
  python -m forwarder deadletters list --sink lake --reason refused --format json
  python -m forwarder deadletters show 3:120
  python -m forwarder deadletters redeliver --sink lake --dry-run
  python -m forwarder deadletters redeliver 3:120 3:121
  python -m forwarder deadletters redeliver --sink lake --rate 50000
  python -m forwarder deadletters redeliver --stage ingest --put-back
"""

EXIT: Final = """\
exit status:
  0  done, or stopped by a signal; there may have been no such letter
  1  some letters were refused again, a sink does not let them in, or Kafka does not answer
  2  the command line or the configuration is wrong
"""

MOST_SHOWN: Final = 20
"""Rows of a letter that a person is shown; JSON has all."""
HEX_BYTES: Final = 256


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "deadletters",
        help="list, show and redeliver what could not be delivered",
        description="Shows the dead letters, and delivers them after what stood in the way was mended.",
        epilog=EPILOG + "\n" + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for name, what in (
        ("list", "one line a letter"),
        ("show", "what is in letters, decoded"),
        ("redeliver", "deliver letters after all"),
    ):
        action = actions.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False)
        action.add_argument("ids", metavar="ID", nargs="*", help="partition:offset; all letters when none is given")
        action.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            help="YAML file (default: $SLUICEWAY_CONFIG, else sluiceway.yaml where there is one, else defaults)",
        )
        action.add_argument("--reason", metavar="REASON", help="only letters with this reason")
        action.add_argument("--stage", choices=("ingest", "forwarder"), help="only letters of this stage")
        action.add_argument("--sink", metavar="NAME", help="only letters of this sink")
        if name == "redeliver":
            action.add_argument(
                "--into", metavar="SINK", help="hand records to this sink, not to the one that refused them"
            )
            action.add_argument(
                "--put-back",
                action="store_true",
                help="put letters of ingest back, each of them, whether or not that was done before",
            )
            action.add_argument(
                "--rate", metavar="RECORDS", type=read_rate, help="deliver no more than so many records a second"
            )
            action.add_argument(
                "--from",
                dest="begin",
                metavar="ID,...",
                help="of the partitions of these ids, only the letters from them on: how to go on after a stop",
            )
            action.add_argument(
                "--dry-run", action="store_true", help="tell what would be delivered, and deliver nothing"
            )
        else:
            action.add_argument(
                "--format", choices=("table", "json"), help="default: table on a terminal, else one JSON object a line"
            )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List, show or redeliver.

    Raises:
        ConfigError: an id, a sink's name, or something in the configuration is not as it has to be.
        SluicewayError: Kafka does not answer, or there is no topic of dead letters.
    """
    from forwarder.config import load_settings
    from forwarder.deadletters import Letters
    from shared.log import configure

    selection = _selection(arguments)
    settings = load_settings(arguments.config, os.environ)
    configure(settings.log, "forwarder")
    letters = Letters(settings.kafka)
    if arguments.action == "redeliver":
        return _redeliver(arguments, settings, letters, selection)
    found = letters.read(selection)
    as_json = (arguments.format or ("table" if sys.stdout.isatty() else "json")) == "json"
    if arguments.action == "list":
        return _list(found, as_json=as_json)
    return _show(found, as_json=as_json)


def _selection(arguments: argparse.Namespace) -> Selection:
    from forwarder.deadletters import Place, Selection
    from shared.errors import ConfigError

    try:
        places = frozenset(map(Place.parse, arguments.ids))
        begin = [Place.parse(text) for text in (getattr(arguments, "begin", None) or "").split(",") if text]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Selection(
        places, arguments.reason, arguments.stage, arguments.sink, {one.partition: one.offset for one in begin}
    )


def _list(found: Iterable[Found], *, as_json: bool) -> int:
    if as_json:
        for one in found:
            sys.stdout.write(json.dumps(one.as_json()) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "first failure", "stage", "reason", "sink", "origin", box=None, pad_edge=False)
    table.add_column("records", justify="right")
    table.add_column("detail")
    for one in found:
        facts = one.facts
        cells = ("", "", "no dead letter of Sluiceway", "", "")
        if facts is not None:
            origin = f"{facts.topic} {facts.partition}:{facts.offset}"
            cells = (_time(facts.first_failure_ms), facts.stage, facts.reason, facts.sink or "", origin)
        table.add_row(str(one.place), *cells, "" if one.records is None else f"{one.records:,}", one.detail[:200])
    Console(highlight=False).print(table)
    return 0


def _show(found: Iterable[Found], *, as_json: bool) -> int:
    from shared.errors import SluicewayError
    from shared.text import json_lines

    for one in found:
        try:
            table = one.table()
        except SluicewayError as error:
            content: dict[str, Any] = {"value": one.value[:HEX_BYTES].hex(" ", 4), "problem": str(error)}
            rows: list[Any] = []
        else:
            content = {}
            rows = list(_rows(json_lines(table if as_json else table.slice(0, MOST_SHOWN))))
        if as_json:
            sys.stdout.write(json.dumps(one.as_json() | content | {"rows": rows}) + "\n")
            continue
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in (one.as_json() | content).items()))
        sys.stdout.write("".join(f"  {json.dumps(row)}\n" for row in rows))
        if (one.records or 0) > len(rows) > 0:
            sys.stdout.write(f"  and {(one.records or 0) - len(rows):,} more: --format json shows all\n")
        sys.stdout.write("\n")
    return 0


def _rows(lines: bytes) -> Iterator[Any]:
    return map(json.loads, lines.splitlines())


class _StoppedError(Exception):
    """A signal came while a sink was busy."""


def _redeliver(
    arguments: argparse.Namespace, settings: ForwarderSettings, letters: Letters, selection: Selection
) -> int:
    from forwarder.redelivery import survey, way_of
    from shared.errors import ConfigError

    # Twice over the topic: what there is to do is known before anything is done, and no letter is kept for it.
    plan = survey(letters.read(selection), arguments.into)
    there = settings.forwarder.sinks
    missing = sorted((plan.sinks if arguments.into is None else {arguments.into}) - set(there))
    if missing:
        hint = "" if arguments.into is not None else "; --into hands its letters to another one"
        raise ConfigError(f"there is no sink {missing[0]} in forwarder.sinks, but: {', '.join(there)}{hint}")
    if arguments.dry_run:
        for one in letters.read(selection):
            _tell(one, f"would go {way_of(one, arguments.into)}", sys.stdout)
        _tell_plan(plan)
        return 0
    if plan.going_back and not arguments.ids and not arguments.put_back:
        raise ConfigError(
            f"{plan.going_back:,} of these letters are of ingest, and would be put back to where they came from; nothing keeps"
            " in mind whether they were before, and what is decoded twice is delivered twice. Say --put-back if they were not,"
            " name those that are meant by their ids, or leave them out with --stage forwarder"
        )
    return _perform(arguments, settings, letters, selection, plan)


def _perform(
    arguments: argparse.Namespace, settings: ForwarderSettings, letters: Letters, selection: Selection, plan: Plan
) -> int:
    from forwarder.redelivery import PutBack, Redelivery
    from forwarder.replay import report
    from forwarder.replay.run import Pace
    from forwarder.replay.tally import Tally
    from forwarder.sinks import build

    # A bar draws the lines of a terminal above itself, but what goes into a file or a pipe is to go there.
    out = None if sys.stdout.isatty() else sys.stdout
    meter = report.meter(settings.log, "deadletters", "redelivering")
    letters.stopping = stopping = stop_by_signal()
    pace = Pace(arguments.rate)
    sinks = {name: build(settings.forwarder.sinks[name]) for name in plan.sinks}
    for sink in sinks.values():
        sink.open()
    work = Redelivery(arguments.into, sinks, PutBack(settings.kafka), letters.topic_id, _wait(stopping))
    finished = False
    try:
        with meter:
            for one in letters.read(selection):
                stopping.wait(pace.seconds_left)
                if stopping.is_set():
                    break
                try:
                    outcome = work.send(one)
                except _StoppedError as error:
                    _tell(one, f"not delivered: {error}", out or sys.stdout)
                    break
                pace.spend(outcome.records)
                what = f"delivered, {outcome.records:,} records" if outcome.problem is None else outcome.problem
                _tell(one, what, out or sys.stdout)
                meter.show(work.tried, plan.total.letters, Tally(delivered=work.delivered.records))
        finished = not stopping.is_set() or work.tried == plan.total.letters
    finally:
        for sink in sinks.values():
            sink.close()
        _tell_end(work, plan, selection, finished=finished)
    gone = finished and work.tried < plan.total.letters
    return 1 if work.failed or gone else 0


def _wait(stopping: threading.Event) -> Callable[[float, str], None]:
    from shared.log import Throttle, get_logger

    log, throttle = get_logger("deadletters"), Throttle()

    def wait(seconds: float, detail: str) -> None:
        throttle.log(log, "warning", "busy", "the sink does not take a dead letter; it is tried again", detail=detail)
        if stopping.wait(seconds):
            raise _StoppedError(detail)

    return wait


def _tell(found: Found, what: str, out: TextIO) -> None:
    reason = "" if found.facts is None else f" ({found.facts.reason})"
    out.write(f"{found.place}{reason}: {what}\n")
    # Who is killed has told what was done.
    out.flush()


def _tell_plan(plan: Plan) -> None:
    for way, one in sorted(plan.sums.items(), key=lambda item: str(item[0])):
        sys.stdout.write(f"{_counts(one)} would go {way}\n")
    sys.stdout.write(f"{_counts(plan.total)} in all\n")


def _tell_end(work: Redelivery, plan: Plan, selection: Selection, *, finished: bool) -> None:
    """Tell how many were delivered, and how to go on where some are left."""
    done, total = work.delivered, plan.total.letters
    sys.stdout.write(
        f"{done.letters:,} of {total:,} dead letters delivered, {done.records:,} records, {done.bytes:,} bytes\n"
    )
    left = total - work.tried
    if finished and left:
        sys.stdout.write(f"{left:,} are not in the topic any more: their retention was over meanwhile\n")
    if finished:
        return
    sys.stdout.write(f"stopped before the end, {left:,} dead letters were not tried to their end\n")
    if not plan.going_back:
        sys.stdout.write("the same command goes on: what a sink has by its name already, it drops\n")
        return
    places = ",".join(f"{number}:{offset}" for number, offset in sorted((selection.begin | work.reached).items()))
    if places:
        sys.stdout.write(
            "letters that were put back are not known from others, and the same command would put them back once more:"
            f" go on with it and --from {places}, which leaves out all that was tried\n"
        )
    else:
        sys.stdout.write("the same command goes on: nothing was put back\n")


def _counts(one: Sum) -> str:
    return f"{one.letters:,} dead letters, {one.records:,} records, {one.bytes:,} bytes,"


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(ms)
