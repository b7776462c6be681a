from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.spool.entry import HEAD_BYTES, MARK_BYTES, Entry, decode_body, decode_head, encode
from tests.ingest.spool.entries import ENTRIES, content, entry


def on_disk(one: Entry, offset: int) -> bytes:
    """What is written for a message at this offset."""
    parts, size = encode(one, offset)
    octets = b"".join(bytes(part) for part in parts)
    assert len(octets) == size
    return octets


def read(octets: bytes, offset: int) -> Entry | None:
    """What is read where these bytes are."""
    head = decode_head(octets, offset)
    return None if head is None else decode_body(head, octets[HEAD_BYTES : head.size])


@given(ENTRIES, st.integers(0, 2**40))
def test_what_is_written_is_read(one: Entry, offset: int) -> None:
    """Partition, key, headers, records and value come back as they were, whatever they are."""
    octets = on_disk(one, offset)
    found = read(octets, offset)
    assert found is not None
    assert content(found) == content(one)
    head = decode_head(octets, offset)
    assert head is not None
    assert head.size == len(octets)


@given(ENTRIES, st.integers(0, 2**40), st.data())
def test_no_damage_goes_unnoticed(one: Entry, offset: int, data: st.DataObject) -> None:
    """Whichever bit is another one, nothing is read."""
    octets = bytearray(on_disk(one, offset))
    place = data.draw(st.integers(0, len(octets) - 1))
    octets[place] ^= 1 << data.draw(st.integers(0, 7))
    assert read(bytes(octets), offset) is None


@given(ENTRIES, st.data())
def test_what_is_cut_off_is_not_read(one: Entry, data: st.DataObject) -> None:
    """A part of an entry is nothing."""
    octets = on_disk(one, 128)
    assert read(octets[: data.draw(st.integers(0, len(octets) - 1))], 128) is None


@given(ENTRIES, st.integers(0, 2**40), st.integers(1, 2**20))
def test_an_entry_is_read_only_where_it_was_written(one: Entry, offset: int, distance: int) -> None:
    """What lies elsewhere, such as in a message that has a piece of a spool in it, is no entry."""
    assert read(on_disk(one, offset), offset + distance) is None


@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_other_bytes_are_no_entry(octets: bytes, offset: int) -> None:
    """Neither is anything read from them, nor does it fail, even where the mark stands there by chance."""
    assert read(octets, offset) is None
    assert read(MARK_BYTES + octets, offset) is None


def test_a_value_takes_less_room_where_it_can() -> None:
    """It is compressed, unless that makes it larger."""
    plain = len(on_disk(Entry(0, None, 1, [], bytes(range(256))), 0))
    assert plain == HEAD_BYTES + 256
    assert len(on_disk(entry(1, 100_000), 0)) < 1000
