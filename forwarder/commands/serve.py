"""``serve``: consumes the records and delivers them to the sinks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

EPILOG: Final = """\
Every sink is a consumer group of its own (<group_id>.<sink>), so that a slow one holds up
nobody. SIGTERM and SIGINT stop cleanly: batches that are complete are delivered, and what is
not complete stays in Kafka; a second signal ends at once, and loses nothing either. SIGHUP
reads the log's level and the API's token again.

examples:
  python -m forwarder serve
  python -m forwarder serve --config sluiceway.yaml --sink lake
  SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS=broker:9092 python -m forwarder serve
  curl -s localhost:8082/readyz
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="consume the records and deliver them to the sinks",
        description="Consumes flow records from Kafka and delivers them, in batches, to each of the configured sinks.",
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
        "--sink",
        metavar="NAME",
        action="append",
        default=[],
        help="serve this sink only; may be given more than once (default: all that are configured)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        ConfigError: something in the configuration, or a sink's name, is not as it has to be.
        StartError: a sink cannot be opened, or the HTTP port cannot be had.
    """
    import uvloop

    from forwarder.config import load_settings
    from forwarder.stage import Stage
    from shared.allocator import keep_memory
    from shared.errors import ConfigError
    from shared.log import configure

    settings = load_settings(arguments.config, os.environ)
    there = list(settings.forwarder.sinks)
    for name in arguments.sink:
        if name not in there:
            raise ConfigError(f"--sink {name}: there is no such sink in forwarder.sinks, but: {', '.join(there)}")
    configure(settings.log, "forwarder")
    keep_memory()
    wanted = [name for name in there if name in arguments.sink or not arguments.sink]
    stage = Stage(settings, wanted, reload=lambda: load_settings(arguments.config, os.environ))
    uvloop.run(stage.run())
    return 0
