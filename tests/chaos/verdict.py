"""What has to be so after a round: every record that Kafka has is in the lake once, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from shared import codec
from tests.integration.topic import RecordsTopic, content

Ids = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, in records of the round.

    ``repeated`` are in the log a second time. ``missing`` are in the log and not in the lake, ``doubled`` are in the lake
    more than once, ``foreign`` are in the lake and not in the log, ``changed`` are files of the lake that were there
    before and are not any more.
    """

    logged: int
    repeated: int
    delivered: int
    missing: int
    doubled: int
    foreign: int
    changed: int

    @property
    def right(self) -> bool:
        """Whether the promises hold."""
        return not (self.missing or self.doubled or self.foreign or self.changed)

    def __str__(self) -> str:
        wrong = {name: getattr(self, name) for name in ("missing", "doubled", "foreign", "changed")}
        said = ", ".join(f"{count} {name}" for name, count in wrong.items() if count)
        return f"{self.logged} logged, {self.repeated} of them again, {self.delivered} delivered: {said or 'right'}"


def unexplained(lost: int, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Records that did not reach Kafka, without those of which ingest's books say why; 0 when the kernel dropped any.

    Fewer than 0 when some came late that were sent in a round before: sets that waited for their template. The books are those of one process, of the begin and the end of a round in which none of its workers was killed.
    """
    if after["before_reception"] != before["before_reception"]:
        return 0
    dropped: int = sum(after["dropped"]["records"].values()) - sum(before["dropped"]["records"].values())
    return lost - dropped


@dataclass(slots=True)
class Judge:
    """Reads what is new in the log and in the lake since the last round, and knows all that was there before."""

    topic: RecordsTopic
    lake: Path
    _logged: Ids = field(default_factory=lambda: np.zeros(0, np.uint64))
    _delivered: Ids = field(default_factory=lambda: np.zeros(0, np.uint64))
    _files: set[str] = field(default_factory=set)

    def judge(self) -> Verdict:
        """Compare the log with the lake; both are at rest."""
        messages = [value for message in self.topic.read() if (value := content(message))]
        log = [codec.decode(value)["record_id"].to_numpy() for value in messages]
        files = {str(path.relative_to(self.lake)) for path in self.lake.rglob("*.parquet")}
        fresh = [
            pq.read_table(self.lake / name, columns=["record_id"])["record_id"].to_numpy()
            for name in files - self._files
        ]
        logged = np.concatenate([self._logged, *log])
        delivered = np.sort(np.concatenate([self._delivered, *fresh]))
        unique = np.unique(logged)
        verdict = Verdict(
            logged=len(logged) - len(self._logged),
            repeated=len(logged) - len(unique),
            delivered=len(delivered) - len(self._delivered),
            missing=len(np.setdiff1d(unique, delivered, assume_unique=False)),
            doubled=int(np.count_nonzero(delivered[1:] == delivered[:-1])),
            foreign=len(np.setdiff1d(delivered, unique)),
            changed=len(self._files - files),
        )
        self._logged, self._delivered, self._files = unique, delivered, files
        return verdict
