"""Messages that can be told apart, and what a log gives back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from ingest.spool import Entry, Quota, SpoolLog
from shared.codec import Headers, headers

LIMIT = 1 << 30


def quota(limit_bytes: int = LIMIT) -> Quota:
    """The quota of a worker that is alone."""
    return Quota(limit_bytes, [0], 0)


def entry(number: int, size: int = 40, *, key: bytes | None = None, partition: int = 3) -> Entry:
    """A message whose value says its number; it has `number % 100` records."""
    value = b"%d " % number
    return Entry(partition, key, number % 100, headers(number % 100, "ingest-host"), value + bytes(size))


def number(one: Entry) -> int:
    """What its value says."""
    return int(bytes(one.value).split(b" ")[0])


def content(one: Entry) -> tuple[int, bytes | None, int, Headers, bytes]:
    """All that a message is."""
    return one.partition, one.key, one.records, one.headers, bytes(one.value)


def opened(directory: Path, limit_bytes: int = LIMIT) -> SpoolLog:
    """A log that was opened."""
    log = SpoolLog(directory, quota(limit_bytes))
    log.open()
    return log


def rest(log: SpoolLog) -> Iterator[Entry]:
    """Everything that was not read yet; it is read then."""
    while (found := log.peek()) is not None:
        log.advance()
        yield found[0]


def numbers(log: SpoolLog) -> list[int]:
    """The numbers of all that was not read yet."""
    return [number(one) for one in rest(log)]


HEADERS = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), st.binary(max_size=40)), max_size=5)
"""Headers as they come back: values are bytes."""

ENTRIES = st.builds(
    Entry,
    partition=st.integers(-1, 2**31 - 1),
    key=st.none() | st.binary(max_size=60),
    records=st.integers(0, 2**32 - 1),
    headers=HEADERS,
    value=st.binary(max_size=500) | st.binary(max_size=20).map(lambda octets: octets * 40),
)
