"""`python -m ingest decode`: files of captured flow export → records on standard output."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from shared.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from ingest.captures import Captures
    from ingest.decoders import Decoded
    from ingest.pipeline import Pipeline
    from ingest.writers import Writer

TABLE, JSON, ARROW, PARQUET = "table", "json", "arrow", "parquet"
BINARY: Final = frozenset({ARROW, PARQUET})
LONG_BYTES: Final = 16 << 20
"""Files of more bytes than this show how far they are read."""
WAITING_BYTES: Final = 256 << 20
"""Data that may wait for its template: all files count as one exporter's, and nobody else needs the memory."""

EPILOG: Final = """\
Files are pcap or pcapng (Ethernet, Linux cooked, raw IP, loopback; VLAN tags and IP fragments are looked through;
.gz does as well), or *.dat and *.bin files that hold the payload of one datagram each. They are read in the order
given, as if all had come from one socket: put templates before their data, or let the data wait for them.
A UDP payload that begins with the version of NetFlow v5, NetFlow v9, IPFIX or sFlow v5 is decoded, whatever its port.

json is one object a line, named as in docs/record.md. arrow is an IPC stream and parquet a file, both with all columns
of the record, or of counter samples; they are not written to a terminal. What could not be decoded is told on standard error at the end, one
line a reason, and counted again in the file that --ledger names:
  {"datagrams": n, "records": n, "counters": n, "templates": n, "awaiting_template": n, "faults": {reason: n}}

examples:
  python -m ingest decode capture.pcap
  python -m ingest decode --format json capture.pcapng | jq 'select(.dst_port == 443) | .bytes'
  python -m ingest decode --format parquet *.pcap > flows.parquet
  python -m ingest decode --counters --format json sflow.pcap | jq '[.if_index, .if_in_octets]'
  python -m ingest decode --ledger ledger.json template.dat data.dat

exit status:
  0  the files could be read, whatever was in them
  2  one of them could not
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "decode",
        help="show the flow records in capture files",
        description="Decodes NetFlow v5, NetFlow v9, IPFIX and sFlow v5 in capture files, without Kafka.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pcap, pcapng, or *.dat and *.bin")
    parser.add_argument(
        "--format",
        choices=(TABLE, JSON, ARROW, PARQUET),
        help=f"what to write to standard output (default: {TABLE} on a terminal, else {JSON})",
    )
    parser.add_argument(
        "--counters",
        action="store_true",
        help="show counter samples instead of flows: what sFlow agents tell of interfaces and hosts",
    )
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="file that maps further elements to columns, and names security groups",
    )
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="write there as JSON what was read and what was lost"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decode the files.

    Raises:
        ConfigError: a file cannot be read or written, or the arguments ask for what cannot be.
        BrokenPipeError: whoever read standard output is gone.
    """
    chosen = arguments.format or (TABLE if sys.stdout.isatty() else JSON)
    if chosen in BINARY and sys.stdout.isatty():
        raise ConfigError(f"--format {chosen} writes bytes that a terminal cannot show: redirect it, > flows.{chosen}")

    # What decodes and what reads captures is loaded when it is known to be needed: help comes at once.
    from ingest.captures import Captures
    from ingest.mapping import load_mapping
    from ingest.parking import ParkingBounds
    from ingest.pipeline import Pipeline

    with ExitStack() as stack:
        progress = _Progress()
        captures = Captures(arguments.files, advance=progress.advance)
        size = captures.check()
        ledger_file = None if arguments.ledger is None else stack.enter_context(_writable(arguments.ledger))
        pipeline = Pipeline(
            parking=ParkingBounds(total_bytes=WAITING_BYTES, exporter_bytes=WAITING_BYTES),
            mapping=load_mapping(arguments.mapping),
        )
        writer = _writer(chosen, counters=arguments.counters)
        stack.callback(progress.close)
        progress.start(size)
        tally = _decode(captures, pipeline, writer.write, counters=arguments.counters)
        writer.close()
        progress.close()
        _tell(tally)
        if ledger_file is not None:
            ledger_file.write(tally.ledger())
    return 0


@dataclass(slots=True)
class Tally:
    """What was read, what came of it, and what was lost by reason."""

    datagrams: int = 0
    records: int = 0
    counters: int = 0
    templates: int = 0
    awaiting_template: int = 0
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By reason and unit."""
    odd: Counter[str] = field(default_factory=Counter)
    """What was against the rules, and could be read."""
    skipped: Counter[str] = field(default_factory=Counter)
    """What no column has room for, by kind."""

    def add(self, decoded: Decoded) -> None:
        """Count what came of a batch."""
        self.records += decoded.records
        self.counters += decoded.counter_rows
        self.templates += decoded.templates
        for (fault, unit), count in decoded.faults.items():
            self.lost[fault.value, unit.value] += count
        for oddity, count in decoded.oddities.items():
            self.odd[oddity.value] += count
        self.skipped.update(decoded.skipped)

    def ledger(self) -> bytes:
        """Return the JSON of the file that `--ledger` names."""
        import orjson

        faults: Counter[str] = Counter()
        for (reason, _), count in self.lost.items():
            faults[reason] += count
        books: dict[str, Any] = {
            "datagrams": self.datagrams,
            "records": self.records,
            "counters": self.counters,
            "templates": self.templates,
            "awaiting_template": self.awaiting_template,
            "faults": dict(sorted(faults.items())),
        }
        return orjson.dumps(books, option=orjson.OPT_APPEND_NEWLINE)


def _decode(
    captures: Captures, pipeline: Pipeline, write: Callable[[pa.RecordBatch], None], *, counters: bool
) -> Tally:
    """Decode all batches, and hand the records on as they come, or the counter samples."""
    tally = Tally()
    for datagrams in captures.batches():
        decoded = pipeline.decode(datagrams)
        tally.add(decoded)
        for batch in decoded.counters if counters else decoded.batches:
            write(batch)
    tally.datagrams = captures.datagrams
    tally.awaiting_template = pipeline.parking.sets
    for fault, count in captures.faults.items():
        tally.lost[fault.value, fault.unit] += count
    return tally


def _tell(tally: Tally) -> None:
    """Say on standard error what is not among the records, a line a reason."""
    lines = [f"not decoded: {count} {unit} ({reason})" for (reason, unit), count in sorted(tally.lost.items()) if count]
    if tally.awaiting_template:
        lines.append(f"not decoded: {tally.awaiting_template} sets (awaiting_template)")
    lines += [f"decoded, though odd: {count} ({reason})" for reason, count in sorted(tally.odd.items()) if count]
    lines += [f"passed over: {count} ({kind})" for kind, count in sorted(tally.skipped.items()) if count]
    sys.stderr.writelines(f"{line}\n" for line in lines)


@contextmanager
def _writable(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("wb")
    except OSError as error:
        raise ConfigError(f"--ledger: {path} cannot be written: {error.strerror or error}") from error
    with file:
        yield file


def _writer(form: str, *, counters: bool) -> Writer:
    from rich.console import Console

    import shared.counters
    import shared.record
    from ingest.writers import ArrowWriter, JsonWriter, ParquetWriter, TableWriter
    from shared.counter_table import COUNTERS
    from shared.table import FLOWS

    out = sys.stdout.buffer
    if form == TABLE:
        return TableWriter(out, Console() if sys.stdout.isatty() else None, COUNTERS if counters else FLOWS)
    if form == JSON:
        return JsonWriter(out)
    columns = shared.counters.COLUMN if counters else shared.record.COLUMN
    return ArrowWriter(out, columns) if form == ARROW else ParquetWriter(out, columns)


class _Progress:
    """How far the files are read, on standard error, where that is a terminal which shows nothing else."""

    def __init__(self) -> None:
        self._stop: Sequence[Callable[[], None]] = ()
        self._update: Callable[[int], None] | None = None

    def start(self, size: int) -> None:
        """Show progress towards this number of bytes, when that is many."""
        if size < LONG_BYTES or not sys.stderr.isatty() or sys.stdout.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        bar = Progress(
            "reading",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        task = bar.add_task("reading", total=size)
        bar.start()
        self._update = lambda step: bar.update(task, advance=step)
        self._stop = (bar.stop,)

    def advance(self, step: int) -> None:
        """Come forward by so many bytes."""
        if self._update is not None:
            self._update(step)

    def close(self) -> None:
        """Take it off the screen."""
        stop, self._stop = self._stop, ()
        for each in stop:
            each()
