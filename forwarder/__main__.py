"""The command line of stage two: ``python -m forwarder``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from shared.commandline import Program

PROGRAM: Final = Program(
    module="forwarder",
    script="sluiceway-forwarder",
    description="Consumes flow records from Kafka, cuts them into batches, and delivers each batch once to each sink.",
    examples="""\
  python -m forwarder serve --config sluiceway.yaml
  python -m forwarder serve --sink lake
  python -m forwarder replay --sink lake --from -2h --dry-run
  python -m forwarder tail --format json | head
  python -m forwarder ledger http://ingest-0:8081 http://forwarder-0:8082
  python -m forwarder check-config --config sluiceway.yaml
""",
    commands=(
        "forwarder.commands.serve",
        "forwarder.commands.replay",
        "forwarder.commands.tail",
        "forwarder.commands.deadletters",
        "forwarder.commands.ledger",
        "forwarder.commands.check_config",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and answer the exit status: 0 done, 2 usage or configuration, 1 anything else."""
    return PROGRAM.run(argv)


if __name__ == "__main__":
    sys.exit(main())
