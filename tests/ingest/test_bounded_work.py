"""Datagrams that are made to keep us busy: the work grows with their bytes, and not with the square of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ingest.parking import ParkingBounds
from ingest.pipeline import Pipeline
from tests.builders import (
    VARIABLE,
    data_set,
    field,
    ipfix_message,
    ipfix_templates,
    number,
    raw_set,
    template,
    variable,
)
from tests.ingest.collector import packed
from tests.ingest.effort import events

ONE, TWO, FOUR = template(256, field(4, 1)), template(256, field(7, 2)), template(256, field(1, 4))


def redefining(count: int) -> Iterable[bytes]:
    """One datagram that redefines a template again and again, with data that none of them can read."""
    parts = (
        part
        for _ in range(count)
        for described in (TWO, FOUR)
        for part in (ipfix_templates(described), raw_set(256, b"\1"))
    )
    yield ipfix_message(*parts)


def redefining_for_what_waits(count: int) -> Iterable[bytes]:
    """Many sets that wait for a template, which comes again and again, and never fits."""
    yield ipfix_message(*[raw_set(256, b"\1")] * count)
    yield from [ipfix_message(*[ipfix_templates(described) for described in (TWO, FOUR)] * (count // 10))] * 10


def shrinking_for_what_waits(count: int) -> Iterable[bytes]:
    """Sets of every length that wait for templates of every length, the longest first."""
    yield ipfix_message(*(raw_set(256, bytes(length)) for length in range(1, count // 4)))
    yield ipfix_message(*(ipfix_templates(template(256, field(210, length))) for length in range(count // 4, 0, -1)))


def unknown(count: int) -> Iterable[bytes]:
    """Sets without a template."""
    yield ipfix_message(*(raw_set(256 + place, b"\1") for place in range(count)))


def templates(count: int) -> Iterable[bytes]:
    """Templates, more than may be kept."""
    yield ipfix_message(ipfix_templates(*(template(256 + place, field(1, 4)) for place in range(count))))


def withdrawals(count: int) -> Iterable[bytes]:
    """Withdrawals in one set."""
    yield ipfix_message(ipfix_templates(*[template(256)] * count))


def reserved(count: int) -> Iterable[bytes]:
    """Sets of no meaning."""
    yield ipfix_message(*[raw_set(5, b"")] * count)


def padded(count: int) -> Iterable[bytes]:
    """Datagrams that look like padding and are none."""
    yield from [ipfix_message(bytes(200) + b"\1")] * count


def tiny_records(count: int) -> Iterable[bytes]:
    """Records of one byte, of variable length."""
    yield ipfix_message(ipfix_templates(template(256, field(371, VARIABLE))), data_set(256, bytes(count)))


def applications(count: int) -> Iterable[bytes]:
    """Records with an application each that no other has."""
    yield ipfix_message(
        ipfix_templates(template(256, field(95, 4))), data_set(256, *(number(place, 4) for place in range(count)))
    )


def names(count: int) -> Iterable[bytes]:
    """Records with a name each that no other has, and that is not UTF-8."""
    yield ipfix_message(
        ipfix_templates(template(256, field(371, VARIABLE))),
        data_set(256, *(variable(b"\xff" + number(place, 2)) for place in range(count))),
    )


def fields(count: int) -> Iterable[bytes]:
    """A template with many fields of variable length, and a few records."""
    yield ipfix_message(
        ipfix_templates(template(256, *(field(600 + place, VARIABLE) for place in range(count)))),
        data_set(256, bytes(4 * count)),
    )


HOSTILE = [
    redefining,
    redefining_for_what_waits,
    shrinking_for_what_waits,
    unknown,
    templates,
    withdrawals,
    reserved,
    padded,
    tiny_records,
    applications,
    names,
    fields,
]


def instructions(made: Callable[[int], Iterable[bytes]], count: int) -> int:
    """How many instructions the interpreter needs for datagrams, each in a batch of its own."""
    datagrams = [packed([payload]) for payload in made(count)]

    def work() -> None:
        pipeline = Pipeline(parking=ParkingBounds())
        for item in datagrams:
            pipeline.decode(item)

    return events(work)["opcode"]


@pytest.mark.parametrize("made", HOSTILE, ids=lambda made: str(made.__name__))
def test_twice_the_bytes_are_twice_the_work(made: Callable[[int], Iterable[bytes]]) -> None:
    """Doubling what is sent no more than doubles the instructions, give or take a fifth."""
    assert instructions(made, 400) < 2.4 * instructions(made, 200)
