"""The command line of stage one: ``python -m ingest``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from shared.commandline import Program

PROGRAM: Final = Program(
    module="ingest",
    script="sluiceway-ingest",
    description="Takes NetFlow v5, NetFlow v9, IPFIX and sFlow v5 off UDP, decodes them to columns, and produces them to Kafka.",
    examples="""\
  python -m ingest serve --config sluiceway.yaml
  python -m ingest decode capture.pcap
  python -m ingest decode --format json capture.pcapng | head
  python -m ingest generate --protocol mix --rate 1000 --duration 10 --to 127.0.0.1:2055
  python -m ingest check-config --config sluiceway.yaml
""",
    commands=(
        "ingest.commands.serve",
        "ingest.commands.decode",
        "ingest.commands.generate",
        "ingest.commands.check_config",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and answer the exit status: 0 done, 2 usage or configuration, 1 anything else."""
    return PROGRAM.run(argv)


if __name__ == "__main__":
    sys.exit(main())
