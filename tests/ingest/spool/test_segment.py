from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.spool.entry import Entry
from ingest.spool.segment import FIRST, Damage, Segment, Tally, UnknownVersionError
from tests.ingest.spool.entries import ENTRIES, content, entry, number

COUNT = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file is to be."""
    return tmp_path / "000000000001.spool"


def written(path: Path, count: int = COUNT, *, seal: bool = False) -> list[int]:
    """Write a file of so many messages, numbered from 1, and return where each begins, and where the last ends."""
    segment = Segment.create(path)
    places = [FIRST, *(segment.append(entry(one)) for one in range(1, count + 1))]
    if seal:
        segment.seal()
    segment.close()
    return places


def found(segment: Segment) -> list[int]:
    """The numbers of the messages that can be read of what was not acknowledged."""
    at, read = segment.acknowledged.end, []
    while at < segment.whole.end:
        one, at = segment.read(at)
        if one is not None:
            read.append(number(one))
    return read


def spoil(path: Path, place: int) -> None:
    """Change a byte."""
    octets = bytearray(path.read_bytes())
    octets[place] ^= 0xFF
    path.write_bytes(octets)


@pytest.mark.parametrize("seal", [pytest.param(True, id="closed"), pytest.param(False, id="not closed")])
def test_a_file_is_as_it_was(path: Path, seal: bool) -> None:
    """Opened again, it has the messages that were written, in their order, and nothing is said to be damaged."""
    places = written(path, seal=seal)
    segment = Segment.open(path)
    assert found(segment) == list(range(1, COUNT + 1))
    assert segment.whole == Tally(places[-1], COUNT, sum(range(1, COUNT + 1)))
    assert (segment.messages_left, segment.records_left) == (COUNT, sum(range(1, COUNT + 1)))
    assert segment.damage == Damage()


@pytest.mark.parametrize("seal", [pytest.param(True, id="closed"), pytest.param(False, id="not closed")])
def test_what_was_acknowledged_is_not_found_again(path: Path, seal: bool) -> None:
    """It is known from the header alone, how far that was."""
    places = written(path, seal=seal)
    segment = Segment.open(path)
    segment.acknowledge(Tally(places[2], 2, 3))
    segment.close()
    again = Segment.open(path)
    assert found(again) == [3, 4, 5, 6]
    assert (again.messages_left, again.records_left) == (4, 18)


@given(count=st.integers(0, 5), share=st.floats(0, 1), seal=st.booleans())
def test_a_file_that_was_cut_off_has_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory, count: int, share: float, seal: bool
) -> None:
    """Wherever its end is, the messages before it come back, and the rest is removed and told."""
    path = tmp_path_factory.mktemp("cut") / "000000000001.spool"
    places = written(path, count, seal=seal)
    size = round(share * places[-1])
    with path.open("r+b") as file:
        file.truncate(size)
    whole = sum(place <= size for place in places[1:])
    segment = Segment.open(path)
    assert found(segment) == list(range(1, whole + 1))
    if size >= FIRST:
        assert path.stat().st_size == places[whole]
        assert segment.damage.cut_off is (size != places[whole] or (seal and size < places[-1]))
        if seal:
            assert segment.damage.records == sum(range(whole + 1, count + 1))
    segment.close()


@pytest.mark.parametrize("seal", [pytest.param(True, id="closed"), pytest.param(False, id="not closed")])
@pytest.mark.parametrize("place", [pytest.param(0, id="mark"), pytest.param(5, id="head"), pytest.param(60, id="body")])
def test_damage_costs_the_message_in_which_it_is(path: Path, seal: bool, place: int) -> None:
    """Those before and behind it are read, and it does not come back as something else."""
    places = written(path, seal=seal)
    spoil(path, places[2] + place)
    segment = Segment.open(path)
    assert found(segment) == [1, 2, 4, 5, 6]
    if not seal:
        assert segment.damage.places == 1
        assert segment.damage.octets == places[3] - places[2]
        assert segment.damage.records == (3 if place == 60 else 0)
        assert not segment.damage.cut_off
        assert (segment.messages_left, segment.records_left) == (5, 18)


def test_a_header_that_is_damaged_costs_nothing(path: Path) -> None:
    """What it says is then not believed: the file is read through, and what was acknowledged is read again."""
    places = written(path, seal=True)
    segment = Segment.open(path)
    segment.acknowledge(Tally(places[2], 2, 3))
    segment.close()
    for place in (0, 33, 70):
        spoil(path, place)
    assert found(Segment.open(path)) == [1, 2, 3, 4, 5, 6]


def test_a_file_of_another_version_is_left_alone(path: Path) -> None:
    """It is told, and not touched: that version may still read it."""
    written(path)
    spoil(path, 8)
    octets = path.read_bytes()
    with pytest.raises(UnknownVersionError):
        Segment.open(path)
    assert path.read_bytes() == octets


@given(st.lists(ENTRIES, max_size=6), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4))
def test_nothing_is_made_up(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], spots: list[tuple[float, int]]
) -> None:
    """Whatever bytes of a file are changed, what is read are messages that were written, in their order."""
    path = tmp_path_factory.mktemp("spoilt") / "000000000001.spool"
    segment = Segment.create(path)
    for one in entries:
        segment.append(one)
    segment.seal()
    segment.close()
    octets = bytearray(path.read_bytes())
    for share, mask in spots:
        octets[round(share * (len(octets) - 1))] ^= mask
    path.write_bytes(octets)
    try:
        segment = Segment.open(path)
    except UnknownVersionError:
        return
    at, read = segment.acknowledged.end, []
    while at < segment.whole.end:
        found_one, at = segment.read(at)
        read += [] if found_one is None else [content(found_one)]
    remaining = iter([content(one) for one in entries])
    assert all(one in remaining for one in read)
    assert len(entries) - len(read) <= len(spots)
    segment.close()
