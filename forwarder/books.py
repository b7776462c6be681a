"""The books of several instances, added up: what each stage received, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

INGEST: Final = "ingest"

Tree = Mapping[str, Any]


@dataclass(slots=True)
class Account:
    """One unit of one stage: received = out + dropped + in flight. ``out`` and ``dropped`` are by what and by reason."""

    stage: str
    unit: str
    received: int = 0
    out: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    beside: dict[str, int] = field(default_factory=dict)
    """What is told beside, and is no part of it: what came back, or was lost before it was received."""

    @property
    def balance(self) -> int:
        """How much more was received than is accounted for; 0 when the books are right."""
        return self.received - sum(self.out.values()) - sum(self.dropped.values()) - self.in_flight

    def add(self, other: Account) -> None:
        """Add another instance's account of the same thing."""
        self.received += other.received
        self.in_flight += other.in_flight
        for ours, theirs in ((self.out, other.out), (self.dropped, other.dropped), (self.beside, other.beside)):
            for name, count in theirs.items():
                ours[name] = ours.get(name, 0) + count

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "stage": self.stage,
            "unit": self.unit,
            "received": self.received,
            "out": self.out,
            "dropped": self.dropped,
            "in_flight": self.in_flight,
            "beside": self.beside,
            "balance": self.balance,
        }


def accounts(books: Tree) -> list[Account]:
    """The accounts of one instance, out of what its ``/api/v1/ledger`` says.

    Raises:
        ValueError: these are the books of no instance of ours.
    """
    try:
        # Stage one tells datagrams; stage two tells a sink by each name, and none is named `received` with datagrams.
        if isinstance(books.get("received"), Mapping) and "datagrams" in books["received"]:
            return list(_of_ingest(books))
        return [_of_sink(name, one) for name, one in books.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are no books of Sluiceway: {error!r} is not as it has to be") from error


def add_up(instances: Iterable[Iterable[Account]]) -> list[Account]:
    """One account for each stage and unit."""
    sums: dict[tuple[str, str], Account] = {}
    for instance in instances:
        for one in instance:
            sums.setdefault((one.stage, one.unit), Account(one.stage, one.unit)).add(one)
    return list(sums.values())


def _of_ingest(books: Tree) -> Iterator[Account]:
    before = {name: int(count) for name, count in books["before_reception"].items()}
    yield Account(
        INGEST,
        "records",
        int(books["received"]["records"]),
        {"delivered": int(books["delivered"]["records"])},
        _counts(books["dropped"]["records"]),
        int(books["in_flight"]["records"]),
        {f"datagrams {name}": count for name, count in before.items() if count}
        | {f"datagrams {reason}": count for reason, count in _counts(books["dropped"]["datagrams"]).items()}
        | {f"sets {reason}": count for reason, count in _counts(books["dropped"]["sets"]).items()},
    )
    counters = books["counters"]
    yield Account(
        INGEST,
        "counter samples",
        int(counters["received"]),
        {"delivered": int(counters["delivered"])},
        _counts(counters["dropped"]),
        int(counters["in_flight"]),
    )
    for name, unit in (("parked", "sets parked"), ("undecoded", "sets read again")):
        if name in books:
            sets = books[name]
            yield Account(
                INGEST,
                unit,
                int(sets["received"]),
                {"decoded": int(sets["decoded"]), "appended": int(sets["appended"])},
                _counts(sets["dropped"]),
                int(sets["in_flight"]),
            )


def _of_sink(name: str, books: Tree) -> Account:
    return Account(
        name,
        "records",
        int(books["received"]["records"]),
        {"delivered": int(books["delivered"]["records"])},
        _counts(books["dropped"]["records"]),
        int(books["in_flight"]["records"]),
        {
            what: count
            for what, count in (
                ("returned to Kafka", int(books["returned"]["records"])),
                ("messages expired", int(books["expired"]["messages"])),
            )
            if count
        },
    )


def _counts(told: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in told.items() if count}
