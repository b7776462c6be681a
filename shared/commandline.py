"""How a stage's commands are found, described and run; the one place where errors become exit statuses."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import ConfigError, SluicewayError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a full or broken device says to a write; whatever else is a defect of ours."""

EXIT_STATUSES: Final = """\
exit status:
  0  done, or stopped by a signal (SIGINT, SIGTERM; a second one stops at once)
  2  the command line or the configuration is wrong; the message names file and key
  1  anything else: a port in use, a directory that cannot be written to, ...
"""

ENVIRONMENT: Final = """\
environment:
  SLUICEWAY_CONFIG        the configuration file, when --config does not name one;
                          else sluiceway.yaml where there is one, else defaults
  SLUICEWAY_<KEY>__<KEY>  any key of the configuration, in upper case, before what the file says;
                          lists and maps as JSON: SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS=broker:9092
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A stage as a program: ``commands`` are modules with ``register(subparsers)``, in the order of the help."""

    module: str
    script: str
    description: str
    examples: str
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the program was called, for messages that a person can repeat."""
        called = Path(sys.argv[0]).name
        return called if called == self.script else f"python -m {self.module}"

    def parser(self, wanted: str | None = None) -> argparse.ArgumentParser:
        """The parser of the command line, with the command ``wanted`` if it is one, else with all of them."""
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=self.description,
            epilog=f"examples:\n{self.examples}\n{EXIT_STATUSES}\n{ENVIRONMENT}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        subparsers = parser.add_subparsers(
            title="commands", metavar="COMMAND", description=f"`{self.name} COMMAND --help` tells more"
        )
        # One command starts without importing the others.
        named = [command for command in self.commands if _spelled(command) == wanted]
        for command in named or self.commands:
            importlib.import_module(command).register(subparsers)
        return parser

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Run the command that ``argv`` (by default that of the process) names, and answer the exit status.

        A :class:`~shared.errors.ConfigError` is 2, another :class:`~shared.errors.SluicewayError` 1, each with its
        message on standard error; an interrupt is 0, as is a reader that went away (``decode | head``).

        Raises:
            SystemExit: help was asked for (0), or the command line is wrong (2).
        """
        if sys.stdout is None:
            # It was closed before the start: what is written goes nowhere.
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
        words = sys.argv[1:] if argv is None else list(argv)
        parser = self.parser(words[0] if words else None)
        arguments = parser.parse_args(words)
        if not hasattr(arguments, "run"):
            parser.print_help(sys.stderr)
            return 2
        try:
            status = int(arguments.run(arguments))
            sys.stdout.flush()
        except ConfigError as error:
            self._tell(error)
            return 2
        except SluicewayError as error:
            self._tell(error)
            return 1
        except KeyboardInterrupt:
            return 0
        except OSError as error:
            return self._unwritten(error)
        return status

    def _unwritten(self, error: OSError) -> int:
        """The exit status when standard output could not be written; any other error is raised again."""
        if isinstance(error, BrokenPipeError):
            _silence()
            return 0
        if error.errno not in FULL:
            raise error
        _silence()
        self._tell(SluicewayError(f"the output cannot be written: {error.strerror}"))
        return 1

    def _tell(self, error: SluicewayError) -> None:
        lines = str(error).splitlines()
        text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
        sys.stderr.write(f"{self.name}:{text}\n")


def _silence() -> None:
    """Let standard output go nowhere: the interpreter flushes it once more when it ends, and that must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spelled(command: str) -> str:
    """The name of a command, from that of its module."""
    return command.rpartition(".")[2].replace("_", "-")
