"""``deadletters``: shows what could not be delivered, and delivers it after all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forwarder.config import ForwarderSettings
    from forwarder.deadletters import Delivered, Found, Letters, Selection
    from shared.log import Throttle

EPILOG: Final = """\
A dead letter is what a sink refused for good, a message that cannot be decoded, or a data set
whose template never came. It stays in the topic flows.deadletter until its retention is over,
redelivered or not. Its id is partition:offset.

`redeliver` hands records to the sink that refused them (or to another one, by --into), under a
name that is the same each time: a sink that honours it takes a letter once, however often it
is redelivered. What waited for its template goes back to the topic that it waited in, each time
that this is asked for: nothing keeps in mind that it was, and its records are there twice when
they were decoded twice. So letters of ingest are put back only by their ids or with --put-back.

examples:
  python -m forwarder deadletters list
  python -m forwarder deadletters list --sink lake --reason refused --format json
  python -m forwarder deadletters show 3:120
  python -m forwarder deadletters redeliver --sink lake --dry-run
  python -m forwarder deadletters redeliver 3:120 3:121
  python -m forwarder deadletters redeliver --stage ingest --put-back
"""

EXIT: Final = """\
exit status:
  0  done; there may have been no such letter
  1  some letters were refused again, or Kafka does not answer
  2  the command line or the configuration is wrong
"""

MOST_SHOWN: Final = 20
"""Rows of a letter that a person is shown; JSON has all."""
HEX_BYTES: Final = 256
FIRST_PARKED: Final = "first-parked"
"""Since when a set waits; without it, since it is in its topic again."""


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
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Selection(places, arguments.reason, arguments.stage, arguments.sink)


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


def _redeliver(
    arguments: argparse.Namespace, settings: ForwarderSettings, letters: Letters, selection: Selection
) -> int:
    from forwarder.deadletters import Delivered, deliver, is_ours, sinks_of
    from forwarder.sinks import build
    from shared.errors import ConfigError
    from shared.log import Throttle

    found = list(letters.read(selection))
    there = settings.forwarder.sinks
    wanted = {arguments.into} if arguments.into is not None else sinks_of(found)
    missing = sorted(wanted - set(there))
    if missing:
        hint = "" if arguments.into is not None else "; --into hands its letters to another one"
        raise ConfigError(f"there is no sink {missing[0]} in forwarder.sinks, but: {', '.join(there)}{hint}")
    if arguments.dry_run:
        for one in found:
            to = arguments.into or (one.facts.sink if one.facts is not None and is_ours(one) else None)
            _tell(one, f"would go to {to or _origin(one)}")
        return 0
    going_back = sum(one.facts is not None and not is_ours(one) for one in found)
    if going_back and not arguments.ids and not arguments.put_back:
        raise ConfigError(
            f"{going_back:,} of these letters are of ingest, and would be put back to where they came from; nothing keeps in"
            " mind whether they were before, and what is decoded twice is delivered twice. Say --put-back if they were not,"
            " name those that are meant by their ids, or leave them out with --stage forwarder"
        )
    sinks = {name: build(there[name]) for name in wanted}
    for sink in sinks.values():
        sink.open()
    outcomes: list[Delivered] = []
    wait = _wait(Throttle())
    try:
        for one in found:
            facts = one.facts
            if facts is None:
                outcome = Delivered(one.place, 0, "it is no dead letter of Sluiceway")
            elif not is_ours(one):
                outcome = _put_back(one, settings)
            elif arguments.into is None and facts.sink is None:
                outcome = Delivered(one.place, 0, "it is of no sink: --into hands it to one")
            else:
                outcome = deliver(one, sinks[arguments.into or facts.sink], letters.topic_id, wait)
            outcomes.append(outcome)
            _tell(one, f"delivered, {outcome.records:,} records" if outcome.problem is None else outcome.problem)
    finally:
        for sink in sinks.values():
            sink.close()
    failed = sum(outcome.problem is not None for outcome in outcomes)
    sys.stdout.write(f"{len(outcomes) - failed:,} of {len(outcomes):,} dead letters delivered\n")
    return 1 if failed else 0


def _wait(throttle: Throttle) -> Callable[[float, str], None]:
    from shared.log import get_logger

    log = get_logger("deadletters")

    def wait(seconds: float, detail: str) -> None:
        throttle.log(log, "warning", "busy", "the sink does not take a dead letter; it is tried again", detail=detail)
        time.sleep(seconds)

    return wait


def _put_back(found: Found, settings: ForwarderSettings) -> Delivered:
    """Put a set that waited for its template back where it waited: with its template, it is decoded now."""
    from forwarder.deadletters import Delivered
    from shared import deadletter
    from shared.kafka import DEADLETTER_HEADER_BYTES, MAX_MESSAGE_BYTES, producer, producer_properties

    origin = _origin(found)
    headers = [pair for pair in deadletter.without(found.headers) if pair[0] != FIRST_PARKED]
    failures: list[str] = []
    client = producer(
        producer_properties(settings.kafka, "sluiceway-deadletters")
        | {"message.timeout.ms": "10000", "message.max.bytes": str(MAX_MESSAGE_BYTES + DEADLETTER_HEADER_BYTES)}
    )
    client.produce(
        origin,
        found.value,
        found.key,
        headers=headers,
        on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
    )
    if client.flush(15.0) or failures:
        return Delivered(found.place, 0, f"{origin} does not take it: {next(iter(failures), 'no broker answers')}")
    return Delivered(found.place, found.records or 0)


def _origin(found: Found) -> str:
    return "nowhere" if found.facts is None else found.facts.topic


def _tell(found: Found, what: str) -> None:
    reason = "" if found.facts is None else f" ({found.facts.reason})"
    sys.stdout.write(f"{found.place}{reason}: {what}\n")


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(ms)
