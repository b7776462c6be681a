"""``replay``: delivers a range of the topic again, in the very batches of the first delivery."""

from __future__ import annotations

import argparse
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

    from forwarder.config import ForwarderSettings
    from forwarder.replay.kafka import KafkaLog
    from forwarder.replay.report import Meter
    from forwarder.replay.run import Replay
    from forwarder.replay.session import Prepared
    from shared.kafka import TopicFacts

EPILOG: Final = """\
A sink that has the data already takes nothing twice: batches, and the names that they are
handed over by, are those of the first delivery. So a replay mends what is missing (files that
were deleted, say), and changes nothing else. The range is made larger, to whole batches. Only
what the sink's consumer group has committed is replayed; what is behind it is delivered by
`serve`, which may run meanwhile.

TIME is when Kafka took the message (what ingest had in its spool has the time at which it was
drained): 2026-01-31T13:00:00Z, 2026-01-31T14:00:00+01:00, without a zone the local time of this
machine; -90s, -30m, -2h, -1d before now; or now. OFFSETS are 0:1200,1:800 (partition:offset,...),
and then no other partition is replayed. --to is not part of the range.

It is refused where it would double what is there: when Kafka or the history of the settings does
not reach back far enough to make the same batches again. --into OTHER delivers into a sink that
has nothing of the range, and --range-deleted says that this one has nothing of it any more.

Ctrl-C stops after what is in hand. The same command then goes on from there; how far it has come
is kept in Kafka, as offsets of the group <group_id>.<sink>.replay-<hash>, which goes when it is done.

examples:
  python -m forwarder replay --sink lake --from -2h --dry-run
  python -m forwarder replay --sink lake --from 2026-01-31T13:00:00Z --to 2026-01-31T14:00:00Z
  python -m forwarder replay --sink lake --from 3:120000 --to 3:125000
  python -m forwarder replay --sink lake --from -1d --rate 200000
  python -m forwarder replay --sink lake --into study --from -6h --exporter 192.0.2.0/24 --exporter edge-1
  python -m forwarder replay --sink lake --into study --from -1d --received-from -20h --received-to -19h
"""

CLOSE_SECONDS: Final = 5.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "replay",
        help="deliver a range of the topic again",
        description="Delivers a range of the topic again, in the very batches of the first delivery.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # `-2h` is a value, as -2 is; argparse has no other way to say so.
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # noqa: SLF001 - what it may be is nowhere public
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="YAML file (default: $SLUICEWAY_CONFIG, else sluiceway.yaml where there is one, else defaults)",
    )
    parser.add_argument("--sink", metavar="NAME", required=True, help="the sink whose batches are delivered again")
    parser.add_argument(
        "--from", dest="begin", metavar="TIME|OFFSETS", required=True, help="where the range begins, by Kafka's time"
    )
    parser.add_argument(
        "--to", dest="end", metavar="TIME|OFFSETS", help="where it ends (default: with what the sink has committed)"
    )
    parser.add_argument(
        "--exporter",
        metavar="A",
        action="append",
        default=[],
        help="only records of this exporter: an address, a network, or a name of the exporters file; may be given more"
        " than once; needs --into",
    )
    parser.add_argument("--received-from", metavar="TIME", help="only records received from then on; needs --into")
    parser.add_argument("--received-to", metavar="TIME", help="only records received before; needs --into")
    parser.add_argument("--rate", metavar="N", type=read_rate, help="deliver no more than N records a second")
    parser.add_argument("--dry-run", action="store_true", help="say how much it would be, and deliver nothing")
    parser.add_argument("--into", metavar="OTHER", help="deliver into this sink, which has nothing of the range")
    parser.add_argument(
        "--range-deleted", action="store_true", help="the sink that it goes to has nothing of the range (any more)"
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew where the same command was stopped before its end"
    )
    parser.add_argument("--format", choices=("table", "json"), help="of what is told at the end (default: table)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay until it is done, or until a signal.

    Raises:
        ConfigError: something in the configuration, or what is asked for, is not as it has to be.
        SluicewayError: it is refused; Kafka does not answer; the sink cannot be opened, or refuses a batch.
    """
    from forwarder.config import load_settings
    from forwarder.replay import report
    from forwarder.replay.bookmark import group_name
    from forwarder.replay.kafka import KafkaLog, find_topic
    from forwarder.replay.request import Request
    from forwarder.replay.session import prepare
    from shared.allocator import keep_memory
    from shared.log import get_logger

    settings = load_settings(arguments.config, os.environ)
    keep_memory()
    request = Request(
        sink=arguments.sink,
        begin=arguments.begin,
        end=arguments.end,
        into=arguments.into,
        exporters=tuple(arguments.exporter),
        received_from=arguments.received_from,
        received_to=arguments.received_to,
        range_deleted=arguments.range_deleted,
    )
    now_ms = time.time_ns() // 1_000_000
    request.check(settings.forwarder, now_ms)
    meter, log = report.meter(settings.log), get_logger("replay")
    topic = find_topic(settings.kafka)
    group = group_name(settings.forwarder.group_id, request.sink, request.asked(topic.topic_id))
    kafka = KafkaLog(settings.kafka, topic.name, group)
    try:
        afresh = arguments.restart or arguments.dry_run
        prepared = prepare(request, settings.forwarder, topic, kafka, now_ms, afresh=afresh)
        begin, end = request.points(now_ms)
        # What goes on has the range that it had when it was begun.
        told = {} if prepared.goes_on else {"begin": str(begin), "end": "committed" if end is None else str(end)}
        log.info(
            "it goes on where it was stopped" if prepared.goes_on else "the replay begins",
            **told,
            sink=request.sink,
            into=request.target,
            partitions=len(prepared.legs),
            messages=sum(leg.end - leg.first for leg in prepared.legs),
            dry_run=arguments.dry_run,
        )
        if arguments.dry_run:
            replay = _dry_run(prepared, topic, kafka, meter)
        else:
            replay = _deliver(prepared, topic, kafka, meter, settings, request.target, arguments.rate)
    finally:
        kafka.close()
    if not prepared.legs:
        log.warning("nothing of this range is in Kafka and was delivered by the sink", sink=request.sink)
    elif not replay.finished:
        log.warning("stopped before the end; the same command goes on from here", sink=request.sink)
    report.show(replay, arguments.format or "table", dry_run=arguments.dry_run)
    return 0


def _dry_run(prepared: Prepared, topic: TopicFacts, kafka: KafkaLog, meter: Meter) -> Replay:
    from forwarder.replay.run import Nowhere, Pace
    from forwarder.replay.session import perform

    return perform(
        prepared,
        topic.topic_id,
        kafka,
        Nowhere(),
        pace=Pace(None),
        meter=meter,
        stopping=stop_by_signal(),
        keep=False,
    )


def _deliver(
    prepared: Prepared,
    topic: TopicFacts,
    kafka: KafkaLog,
    meter: Meter,
    settings: ForwarderSettings,
    name: str,
    rate: int | None,
) -> Replay:
    from forwarder.delivery import Delivery, Policy
    from forwarder.letters import KafkaLetterbox
    from forwarder.replay.kafka import CLIENT
    from forwarder.replay.run import Pace
    from forwarder.replay.session import perform
    from forwarder.sinks import build
    from shared.log import Throttle
    from shared.metrics import Book

    sink = build(settings.forwarder.sinks[name])
    sink.open()
    book = Book()
    delivery = Delivery(
        sink,
        Policy(),
        name=name,
        topic=topic.name,
        letterbox=KafkaLetterbox(settings.kafka, f"{CLIENT}-deadletters", book),
        book=book,
        throttle=Throttle(),
    )
    delivery.start()
    try:
        return perform(
            prepared,
            topic.topic_id,
            kafka,
            delivery,
            pace=Pace(rate),
            meter=meter,
            stopping=stop_by_signal(),
            keep=True,
        )
    finally:
        delivery.close(CLOSE_SECONDS)
        sink.close()


def stop_by_signal() -> threading.Event:
    """An event that is set by a signal; a second one ends the process at once."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            # Not sys.exit: threads that wait for a sink would be waited for.
            os._exit(0)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopping


def read_rate(text: str) -> int:
    """Read ``--rate``: records a second."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records a second, 1 or more")
    return int(text)
