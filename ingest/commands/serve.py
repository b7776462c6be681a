"""``python -m ingest serve``: receive flow export and produce records to Kafka."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

EPILOG: Final = """\
Receives NetFlow v5, NetFlow v9, IPFIX and sFlow v5 on every address of ingest.listen, each by its version word, and produces
records to the topic flows.records. Needs no configuration file when Kafka is on localhost:9092.

examples:
  python -m ingest serve
  python -m ingest serve --config sluiceway.yaml
  SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 python -m ingest serve

signals: SIGTERM and SIGINT stop cleanly (a second one at once), SIGHUP reads mapping, exporters file, log level and secrets again.
It shows itself on ingest.http.listen: /metrics, /livez, /readyz, /api/v1/ledger, /api/v1/exporters, /api/v1/templates, /api/v1/options.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="receive flow export and produce records to Kafka",
        description="Receive flow export over UDP, decode it, and produce the records to Kafka.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (YAML)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says stop."""
    import uvloop

    from ingest.config import load_settings
    from ingest.supervisor import Supervisor
    from shared import log

    settings = load_settings(arguments.config, os.environ)
    log.configure(settings.log, "ingest")

    async def serve() -> None:
        await Supervisor(settings, lambda: load_settings(arguments.config, os.environ)).run()

    uvloop.run(serve())
    return 0
