"""The books of a run: what was sent, what each stage says, and what is in the lake."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Sums:
    """What some records add up to."""

    records: int = 0
    bytes: int = 0
    packets: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Sums)))


def sent(text: str) -> dict[str, Sums]:
    """What the generator says it sent, by the record's `type`; its JSON is the last line of its output.

    Raises ValueError when there is none.
    """
    lines = text.strip().splitlines()
    if not lines:
        raise ValueError("there is no output")
    said: dict[str, dict[str, int]] = json.loads(lines[-1])
    return {
        kind: Sums(records, said["bytes"][kind], said["packets"][kind])
        for kind, records in said["records"].items()
        if records
    }


class Lake:
    """A directory of Parquet files, asked by DuckDB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = str(path / "**" / "*.parquet")

    def is_empty(self) -> bool:
        """Whether there is no file yet, in which case DuckDB has nothing to ask."""
        return next(self.path.glob("**/*.parquet"), None) is None

    def received_since(self, time_ns: int) -> dict[str, Sums]:
        """Sums by `type` of what this machine's own exporters (127.0.0.0/8) sent since then."""
        if self.is_empty():
            return {}
        # A connection each time: files come and go, and nothing of them is to be remembered.
        with duckdb.connect() as connection:
            rows = connection.execute(
                """
                select type, count(*), sum(bytes), sum(packets)
                from read_parquet($files)
                where time_received >= make_timestamp_ns($since) at time zone 'UTC'
                  and starts_with(sampler_address, '127.')
                group by type
                """,
                {"files": self._files, "since": time_ns},
            ).fetchall()
        return {kind: Sums(records, int(volume or 0), int(packets or 0)) for kind, records, volume, packets in rows}

    def query(self) -> str:
        """A command for a shell that asks this lake, as it would be typed in the checkout's root."""
        columns = "type, count(*) as flows, sum(bytes) as bytes, sum(packets) as packets, max(time_received) as latest"
        sql = f"select {columns} from '{self._files}' group by all order by all"  # noqa: S608 - shown, never run here
        return f'.venv/bin/python -c "import duckdb; duckdb.sql(\\"{sql}\\").show()"'


class Samples:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> int:
        """The sum of a metric of ours, named without `sluiceway_`, over all samples that have these labels."""
        return int(
            sum(
                sample.value
                for sample in self._samples
                if sample.name == f"sluiceway_{name}" and labels.items() <= sample.labels.items()
            )
        )


class Stage:
    """The HTTP side of a stage that runs on this machine."""

    def __init__(self, port: int, token: str | None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # A new connection each time: one that has been idle for a while may be closed just when it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=5.0, limits=limits)
        self._last = Samples("")

    def is_ready(self) -> bool:
        """Whether it says that it can do its work; one that does not answer cannot."""
        try:
            return self._client.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def metrics(self) -> "Samples":
        """What it counts; when it does not answer, what it counted when it last did."""
        try:
            self._last = Samples(self._client.get("/metrics").raise_for_status().text)
        except httpx.HTTPError:
            return self._last
        return self._last

    def ledger(self) -> dict[str, Any]:
        """Its books; raises httpx.HTTPError when it does not answer."""
        books: dict[str, Any] = self._client.get("/api/v1/ledger").raise_for_status().json()
        return books

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()


@dataclass(frozen=True, slots=True)
class Balance:
    """One line of a ledger, in one unit: received = delivered + dropped + in flight."""

    stage: str
    unit: str
    received: int
    delivered: int
    dropped: int
    in_flight: int

    @property
    def holds(self) -> bool:
        """Whether the line adds up."""
        return self.received == self.delivered + self.dropped + self.in_flight


def balances(stage: str, books: Mapping[str, Any]) -> Iterator[Balance]:
    """The lines of a ledger that have both sides: records; counter samples and sets without their template where any came."""
    yield Balance(
        stage=stage,
        unit="records",
        received=books["received"]["records"],
        delivered=books["delivered"]["records"],
        dropped=sum(books["dropped"].get("records", {}).values()),
        in_flight=books["in_flight"]["records"],
    )
    counters = books.get("counters")
    if counters and counters["received"]:
        yield Balance(
            stage=stage,
            unit="counters",
            received=counters["received"],
            delivered=counters["delivered"],
            dropped=sum(counters["dropped"].values()),
            in_flight=counters["in_flight"],
        )
    for name, unit in (("parked", "sets that waited"), ("undecoded", "sets read again")):
        sets = books.get(name)
        if sets and sets["received"]:
            yield Balance(
                stage=stage,
                unit=unit,
                received=sets["received"],
                delivered=sets["decoded"] + sets["appended"],
                dropped=sum(sets["dropped"].values()),
                in_flight=sets["in_flight"],
            )


def reasons(books: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Everything that was dropped, as (unit, reason, how many)."""
    of_counters = {"counters": books["counters"]["dropped"]} if "counters" in books else {}
    for unit, by_reason in {**books["dropped"], **of_counters}.items():
        for reason, count in by_reason.items():
            if count:
                yield unit, reason, count
