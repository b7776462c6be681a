"""``ledger``: asks instances of both stages for their books, and adds them up."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forwarder.books import Account

EPILOG: Final = """\
Each URL is that of an instance's HTTP port (ingest.http.listen, forwarder.http.listen). The
books of each stage say: received = delivered + dropped by reason + in flight. Instances are
asked one after the other while they work, so that sums of different stages differ by what
moved meanwhile; each stage's own sum balances always.

examples:
  python -m forwarder ledger http://localhost:8081 http://localhost:8082
  python -m forwarder ledger --token-file /run/secrets/api http://ingest-0:8081 http://forwarder-0:8082
  python -m forwarder ledger --format json http://localhost:8082 | jq .

exit status:
  0  all books balance
  1  some do not, or an instance did not answer: standard error says which
"""

ANSWER_SECONDS: Final = 10.0
PATH: Final = "/api/v1/ledger"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "ledger",
        help="ask instances for their books, and add them up",
        description="Asks every instance that is named for its books, and adds them up by stage.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("urls", metavar="URL", nargs="+", type=_url, help="an instance, such as http://localhost:8082")
    parser.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else one JSON object a line"
    )
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="file with the bearer token of the instances")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, add up, show.

    Raises:
        ConfigError: the token cannot be read.
    """
    from forwarder.books import accounts, add_up
    from shared.errors import ConfigError

    token = None
    if arguments.token_file is not None:
        try:
            token = arguments.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"--token-file: {arguments.token_file} cannot be read: {error.strerror}") from error
    instances, failed = [], False
    for url in dict.fromkeys(arguments.urls):
        try:
            instances.append(accounts(_ask(url, token)))
        except (urllib.error.URLError, OSError, ValueError) as error:
            failed = True
            sys.stderr.write(f"{url}: {_reason(error)}\n")
    sums = add_up(instances)
    if (arguments.format or ("table" if sys.stdout.isatty() else "json")) == "json":
        sys.stdout.writelines(json.dumps(one.as_json()) + "\n" for one in sums)
    else:
        _show(sums)
    wrong = [one for one in sums if one.balance]
    for one in wrong:
        sys.stderr.write(f"the books of {one.stage} do not balance: {one.balance} {one.unit} are not accounted for\n")
    return 1 if failed or wrong else 0


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} needs the form http://host:port")
    return text.rstrip("/").removesuffix(PATH)


def _ask(url: str, token: str | None) -> dict[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url + PATH, headers=headers)  # noqa: S310 - http or https, as it was checked
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - the same
        told = json.load(answer)
    if not isinstance(told, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004 - of what came, not of what was handed over
    return told


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        hint = "; give --token-file, or ask from the same machine" if error.code in {401, 403} else ""
        return f"answers {error.code} {error.reason}{hint}"
    if isinstance(error, urllib.error.URLError):
        return f"does not answer: {error.reason}"
    return str(error)


def _show(sums: Sequence[Account]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "unit", box=None, pad_edge=False)
    for title in ("received", "delivered", "dropped", "in flight", "balance"):
        table.add_column(title, justify="right")
    table.add_column("of that")
    for one in sums:
        out, dropped = sum(one.out.values()), sum(one.dropped.values())
        told = [*(one.out.items() if len(one.out) > 1 else ()), *one.dropped.items(), *one.beside.items()]
        said = ", ".join(f"{name} {count:,}" for name, count in told)
        numbers = [f"{count:,}" for count in (one.received, out, dropped, one.in_flight)]
        table.add_row(one.stage, one.unit, *numbers, "right" if not one.balance else f"{one.balance:+,}", said)
    Console(highlight=False).print(table)
