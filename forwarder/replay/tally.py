"""What a replay counts of each partition: what it read of the range, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Tally:
    """Messages, batches and bytes are those of the log; the rest is in records, and balances.

    ``records`` = ``delivered`` + ``duplicate`` (there before, by their ids) + ``other_exporter`` (flows that count by
    another observation) + ``not_selected`` + ``corrupt`` + ``refused`` + what is in flight.
    """

    messages: int = 0
    bytes: int = 0
    batches: int = 0
    records: int = 0
    delivered: int = 0
    duplicate: int = 0
    other_exporter: int = 0
    not_selected: int = 0
    corrupt: int = 0
    refused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Tally)))

    @property
    def in_flight(self) -> int:
        """Records of which is not known yet what becomes of them."""
        return self.records - (
            self.delivered + self.duplicate + self.other_exporter + self.not_selected + self.corrupt + self.refused
        )

    def as_json(self) -> dict[str, Any]:
        """Every count by its name."""
        return asdict(self)
