"""``tail``: shows flow records, or counter samples, as they come into their topic."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from shared.config import KafkaConfig
    from shared.record import Column

EPILOG: Final = """\
Reads the topic beside everybody else: it is no member of a group, commits nothing, and takes
nothing from the sinks. It begins at the end of the topic, and ends with Ctrl-C.

examples:
  python -m forwarder tail
  python -m forwarder tail --format json | head -3
  python -m forwarder tail --format json --from-beginning --count 1000 > some.ndjson
  python -m forwarder tail --filter 'src_sgt == 10 and dst_port in (80, 443)'
  python -m forwarder tail --filter "src_addr = '192.0.2.7' or dst_addr = '192.0.2.7'"
  python -m forwarder tail --counters
"""

ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.2
POLL_MESSAGES: Final = 100


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "tail",
        help="follow the records in the topic",
        description="Shows flow records as they come into the topic, or counter samples, as a table or as JSON.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="YAML file (default: $SLUICEWAY_CONFIG, else sluiceway.yaml where there is one, else defaults)",
    )
    parser.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else json, one object a line"
    )
    parser.add_argument(
        "--from-beginning", action="store_true", help="begin with the oldest record that Kafka has, not with the next"
    )
    parser.add_argument("--count", metavar="N", type=_positive, help="stop after N records")
    parser.add_argument(
        "--filter",
        metavar="EXPR",
        help="show only records for which this is true, an SQL condition over the columns of docs/record.md",
    )
    parser.add_argument(
        "--counters",
        action="store_true",
        help="show counter samples instead: what sFlow agents tell of interfaces and hosts",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Follow the topic until Ctrl-C, or until there were enough records.

    Raises:
        ConfigError: something in the configuration is not as it has to be, or the filter is no condition.
        SluicewayError: Kafka does not answer, or there is no topic.
    """
    from forwarder.config import load_settings
    from shared.log import configure

    pick = None if arguments.filter is None else _filter(arguments.filter, counters=arguments.counters)
    settings = load_settings(arguments.config, os.environ)
    configure(settings.log, "forwarder")
    show = _writer(arguments.format or ("table" if sys.stdout.isatty() else "json"), counters=arguments.counters)
    left = arguments.count
    for table in follow(settings.kafka, from_beginning=arguments.from_beginning, counters=arguments.counters):
        picked = table if pick is None else pick(table)
        some = picked if left is None else picked.slice(0, left)
        if some.num_rows == 0:
            continue
        show(some)
        if left is not None:
            left -= some.num_rows
            if left <= 0:
                break
    return 0


def follow(kafka: KafkaConfig, *, from_beginning: bool, counters: bool = False) -> Iterator[pa.Table]:
    """Yield the records of the topic as they come, without an end; what cannot be read is told and left out.

    With ``counters``, the samples of the counters' topic.

    Partitions that are added while it runs are not seen. Raises SluicewayError when Kafka does not answer or has no
    such topic.
    """
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition

    import shared.counters
    import shared.record
    from shared.errors import SluicewayError
    from shared.kafka import COUNTERS, RECORDS, consumer, consumer_properties, full_name
    from shared.log import get_logger

    log = get_logger("tail")
    topic = full_name(kafka, COUNTERS if counters else RECORDS)
    columns = shared.counters.COLUMN if counters else shared.record.COLUMN
    # A group that is never joined: the client asks for a name in any case.
    properties = consumer_properties(kafka, "sluiceway-tail", "sluiceway-tail")
    # It promises nobody every record: where Kafka has let go of some, it goes on with what there is.
    reader = consumer(properties | {"auto.offset.reset": "earliest"})
    try:
        try:
            described = reader.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
        except KafkaException as error:
            raise SluicewayError(
                f"Kafka at {kafka.bootstrap_servers} (kafka.bootstrap_servers) does not answer: {error.args[0].str()}"
            ) from error
        if described.error is not None:
            raise SluicewayError(
                f"the topic {topic} cannot be read: {described.error.str()};"
                " it is made by `python -m ingest serve`, or see kafka.topic_prefix"
            )
        begin = OFFSET_BEGINNING if from_beginning else OFFSET_END
        reader.assign([TopicPartition(topic, number, begin) for number in described.partitions])
        while True:
            for message in reader.consume(POLL_MESSAGES, POLL_SECONDS):
                table = _rows(message, columns, log)
                if table is not None and table.num_rows:
                    yield table
    finally:
        reader.close()


def _rows(message: Any, columns: Mapping[str, Column], log: Any) -> pa.Table | None:  # noqa: ANN401 - the Kafka client's, and a logger
    from shared.codec import CorruptMessageError, decode, merge, read_headers
    from shared.errors import UnknownSchemaError

    error = message.error()
    if error is not None:
        log.warning("Kafka sent an error instead of records", error=error.str())
        return None
    try:
        if read_headers(message.headers()).heartbeat:
            return None
        return merge([decode(message.value() or b"", columns)], columns)
    except (CorruptMessageError, UnknownSchemaError) as reason:
        log.warning(
            "a message cannot be read, and is left out",
            partition=message.partition(),
            offset=message.offset(),
            reason=str(reason),
        )
        return None


def _filter(expression: str, *, counters: bool) -> Callable[[pa.Table], pa.Table]:
    import shared.counters
    import shared.record
    from forwarder.filter import RecordFilter

    return RecordFilter(expression, shared.counters.COLUMN if counters else shared.record.COLUMN).apply


def _writer(form: str, *, counters: bool) -> Callable[[pa.Table], None]:
    if form == "json":
        from shared.text import json_lines

        def write(table: pa.Table) -> None:
            sys.stdout.buffer.write(json_lines(table))
            sys.stdout.buffer.flush()

        return write
    from rich.console import Console

    from shared.counter_table import COUNTERS
    from shared.grid import GrowingTable
    from shared.table import FLOWS

    console = Console(highlight=False, soft_wrap=True)
    rows = GrowingTable(COUNTERS if counters else FLOWS, repeat=40)
    return lambda table: console.print(rows.lines(table), end="")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records, 1 or more")
    return int(text)
