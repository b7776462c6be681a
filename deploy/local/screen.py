"""What a person sees of a run: the rates while it goes on, and the books at its end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.local.books import Balance, Lake, Sums, reasons


@dataclass(frozen=True, slots=True)
class Sample:
    """What the stages had counted at a moment; `lag` is what it is now, in messages of Kafka."""

    seconds: float
    received: int
    decoded: int
    produced: int
    delivered: int
    dropped: int
    lag: int


ROWS = (
    ("received", "datagrams, off UDP"),
    ("decoded", "records"),
    ("produced", "records, acknowledged by Kafka"),
    ("delivered", "records, in the lake's files"),
    ("dropped", "whatever was dropped, in either stage"),
)


class Screen:
    """The rates, in place on a terminal, else a line a second; and the lake, as soon as there is one."""

    def __init__(self, console: Console, lake: Lake) -> None:
        self._console = console
        self._lake = lake
        self._lake_is_told = False
        self._last: Sample | None = None
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a part of the terminal for the rates meanwhile."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def show(self, sample: Sample) -> None:
        """Show one sample; rates are against the one before."""
        if not self._lake_is_told and not self._lake.is_empty():
            self._lake_is_told = True
            self.tell_lake()
        last = self._last or sample
        elapsed = max(sample.seconds - last.seconds, 1e-9)
        rates = {name: (getattr(sample, name) - getattr(last, name)) / elapsed for name, _ in ROWS}
        self._last = sample
        if self._live is None:
            told = "  ".join(f"{name} {rates[name]:,.0f}/s" for name, _ in ROWS)
            self._plain(f"{told}  lag {sample.lag:,} messages  in the lake {sample.delivered:,} records")
        else:
            self._live.update(self._table(sample, rates), refresh=True)

    def tell_lake(self) -> None:
        """Say where the lake is, and a command that asks it; not broken into lines, so that it can be copied."""
        self._plain(f"\nThe lake is in {self._lake.path.resolve()}; ask it, for example by")
        self._plain(f"\n{self._lake.query()}\n")

    def _table(self, sample: Sample, rates: Mapping[str, float]) -> Table:
        table = Table(box=None, pad_edge=False, caption="Ctrl-C stops all of it", caption_justify="left")
        table.add_column("")
        table.add_column("per second", justify="right", min_width=12)
        table.add_column("so far", justify="right", min_width=14)
        table.add_column("")
        for name, unit in ROWS:
            table.add_row(name, f"{rates[name]:,.0f}", f"{getattr(sample, name):,}", unit)
        table.add_row("lag", "", f"{sample.lag:,}", "messages in Kafka, not delivered yet")
        return table

    def _plain(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def ledger_table(lines: Sequence[Balance]) -> Table:
    """The ledgers of the stages."""
    table = Table("", "unit", title="The ledger", title_justify="left")
    for heading in ("received", "delivered", "dropped", "in flight"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("balances")
    for line in lines:
        numbers = (f"{count:,}" for count in (line.received, line.delivered, line.dropped, line.in_flight))
        table.add_row(line.stage, line.unit, *numbers, _word(line.holds))
    return table


def drops(ledgers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for each reason for which something was dropped."""
    for stage, books in ledgers.items():
        for unit, reason, count in reasons(books):
            yield f"{stage} dropped {count:,} {unit}: {reason}"


def comparison_table(sent: Mapping[str, Sums], there: Mapping[str, Sums]) -> Table:
    """What the generator says it sent, against what the lake has."""
    table = Table("type", "", title="Sent, and in the lake", title_justify="left")
    for heading in ("records", "bytes", "packets"):
        # Whole in every width: the numbers are what this is about.
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("equal")
    for kind in sorted(sent.keys() | there.keys()):
        ours, theirs = sent.get(kind, Sums()), there.get(kind, Sums())
        table.add_row(kind, "sent", *_numbers(ours), "")
        table.add_row("", "in the lake", *_numbers(theirs), _word(ours == theirs), end_section=True)
    return table


def _numbers(sums: Sums) -> tuple[str, str, str]:
    return f"{sums.records:,}", f"{sums.bytes:,}", f"{sums.packets:,}"


def _word(good: bool) -> str:
    return "[green]yes[/green]" if good else "[bold red]NO[/bold red]"
