"""``check-config``: validates the configuration of stage one, and prints what is in effect."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

EPILOG: Final = """\
Prints YAML that is a configuration again once masked secrets are put back; the comment says
where each value came from: a line of the file, an environment variable, or the default.
The mapping file, the exporters file and files of secrets and certificates are looked at; Kafka and the network are not.

examples:
  python -m ingest check-config
  python -m ingest check-config --config sluiceway.yaml
  SLUICEWAY_INGEST__WORKERS=2 python -m ingest check-config | grep workers

exit status:
  0  the configuration can be used
  2  it cannot; standard error names file, line and key of every fault, and what is allowed
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "check-config",
        help="validate the configuration and print what is in effect",
        description="Validates the file and the environment, and prints the configuration in effect.",
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Validate and print.

    Raises:
        ConfigError: something is not as it has to be.
    """
    from ingest.config import SECTION, IngestSettings
    from ingest.exporters_file import load_exporters
    from ingest.mapping import load_mapping
    from shared.config import load_with_origins
    from shared.effective import effective

    loaded = load_with_origins(IngestSettings, SECTION, arguments.config, os.environ)
    # A fault in a file that the configuration names stops the start as well.
    load_mapping(loaded.settings.ingest.mapping_file)
    load_exporters(loaded.settings.exporters_file)
    source = loaded.written.file or "none; defaults and the environment"
    sys.stdout.write(f"# configuration file: {source}\n{effective(loaded)}")
    return 0
