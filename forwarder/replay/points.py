"""Where a replay begins and ends, as a person writes it: a time in the log, or offsets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO: Final = re.compile(r"-(\d{1,9})([smhd])")
_OFFSETS: Final = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*")

FORMS: Final = (
    "a time such as 2026-01-31T13:00:00Z or 2026-01-31T14:00:00+01:00 (without a zone it is this machine's local time),"
    " a time before now such as -90s, -30m, -2h or -1d, `now`,"
    " or offsets by partition such as 0:1200,1:800"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, in milliseconds since 1970."""

    ms: int

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self.ms / 1000, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


@dataclass(frozen=True, slots=True)
class Offsets:
    """An offset in each of the partitions that are meant."""

    by_partition: Mapping[int, int]

    def __str__(self) -> str:
        return ",".join(f"{number}:{offset}" for number, offset in sorted(self.by_partition.items()))


Point: TypeAlias = Moment | Offsets


def parse_point(text: str, now_ms: int) -> Point:
    """Read a time or offsets.

    Raises:
        ValueError: it is neither.
    """
    if not _OFFSETS.fullmatch(text):
        return parse_moment(text, now_ms)
    by_partition: dict[int, int] = {}
    for pair in text.split(","):
        number, offset = map(int, pair.split(":"))
        if by_partition.setdefault(number, offset) != offset:
            raise ValueError(f"{text!r} names the partition {number} twice")
    return Offsets(by_partition)


def parse_moment(text: str, now_ms: int) -> Moment:
    """Read a time.

    Raises:
        ValueError: it is none.
    """
    if text == "now":
        return Moment(now_ms)
    if ago := _AGO.fullmatch(text):
        return Moment(max(0, now_ms - int(ago[1]) * _UNITS[ago[2]]))
    try:
        # Without a zone it is local time, as everywhere at a terminal; what was understood is shown in UTC.
        told = datetime.fromisoformat(text).astimezone(UTC)
        ms = round(told.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not {FORMS}") from None
    if ms < 0:
        raise ValueError(f"{text!r} is before 1970")
    return Moment(ms)
