"""From numpy to Arrow: columns over memory, strings, lists."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders import columns


def test_a_column_lies_over_the_memory_of_its_array() -> None:
    """No copy is made of values that already lie as they should."""
    values = np.arange(1000, dtype=np.uint32)
    column = columns.primitive(values, pa.uint32())
    column.validate(full=True)
    assert column.buffers()[1].address == values.ctypes.data
    assert column.to_pylist() == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 65])
def test_validity_is_told_bit_by_bit(count: int) -> None:
    """Rows that are not valid are null, for every length of the bit map."""
    valid = np.arange(count) % 3 != 1
    column = columns.primitive(np.arange(count, dtype=np.uint16), pa.uint16(), valid)
    column.validate(full=True)
    assert column.to_pylist() == [index if index % 3 != 1 else None for index in range(count)]
    assert column.null_count == int((~valid).sum())


def test_rows_of_octets_make_fixed_size_binary() -> None:
    """An array of shape [n, width] is n values of that many bytes, contiguous or not."""
    octets = np.arange(48, dtype=np.uint8).reshape(3, 16)
    for taken in (octets, octets[:, 4:10], octets[::2]):
        column = columns.primitive(taken, pa.binary(taken.shape[1]))
        column.validate(full=True)
        assert column.to_pylist() == [bytes(row) for row in taken]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_constant_name_is_one_entry(count: int) -> None:
    """A name that every row has is in the dictionary once."""
    column = columns.constant_name("IPFIX", count)
    column.validate(full=True)
    assert column.type == pa.dictionary(pa.int32(), pa.utf8())
    assert column.to_pylist() == ["IPFIX"] * count
    assert len(column.dictionary) == 1


STRINGS = [
    pytest.param([], id="none"),
    pytest.param([b""], id="empty"),
    pytest.param([b"abc", b"", b"de"], id="ASCII"),
    pytest.param(["ö".encode(), b"o", "日本".encode()], id="UTF-8"),
    pytest.param([b"\xff", b"ok", b"\xc3"], id="not UTF-8"),
    pytest.param([b"a\0b", b"\0", b"c  \0"], id="NUL"),
    pytest.param([b"  a  ", b"   "], id="spaces"),
    pytest.param([b"\xff\0\xff", b"\0\xff"], id="not UTF-8, and NUL"),
    pytest.param([b"a\nb\0\nc"], id="a line break after the NUL"),
]


def plain(content: bytes) -> str | None:
    """What a string is, by the simplest means."""
    return content.split(b"\0")[0].decode("utf-8", "replace").rstrip(" ") or None


@pytest.mark.parametrize("strings", STRINGS)
def test_strings_are_read_where_they_lie(strings: list[bytes]) -> None:
    """Of variable length, anywhere in a buffer and in any order."""
    buffer = np.frombuffer(b"##" + b"#".join(strings) + b"##", np.uint8)
    length = np.array([len(item) for item in strings], np.int64)
    start = 2 + np.cumsum(length + 1) - (length + 1)
    for order in (slice(None), slice(None, None, -1)):
        column = columns.text(buffer, start[order], length[order])
        column.validate(full=True)
        assert column.type == pa.utf8()
        assert column.to_pylist() == [plain(item) for item in strings[order]]


@pytest.mark.parametrize("strings", STRINGS)
@pytest.mark.parametrize("filling", [b"\0", b" "], ids=["NUL", "space"])
def test_strings_of_fixed_length_are_freed_from_their_filling(strings: list[bytes], filling: bytes) -> None:
    """Of one length, filled up with NUL or with spaces."""
    width = 8
    octets = np.frombuffer(b"".join(item.ljust(width, filling) for item in strings), np.uint8).reshape(-1, width)
    column = columns.fixed_text(octets)
    column.validate(full=True)
    assert column.to_pylist() == [plain(item) for item in strings]


def test_every_byte_may_stand_in_a_string() -> None:
    """None of the 256 raises, alone or beside others."""
    octets = np.arange(256, dtype=np.uint8)
    for width in (1, 2, 4):
        column = columns.fixed_text(octets.reshape(-1, width))
        column.validate(full=True)
        assert column.to_pylist() == [plain(bytes(row)) for row in octets.reshape(-1, width)]


def test_names_share_their_entries() -> None:
    """Equal strings have equal indices; null stays null."""
    column = columns.names(pa.array(["a", None, "b", "a"]))
    assert column.type == pa.dictionary(pa.int32(), pa.utf8())
    assert column.to_pylist() == ["a", None, "b", "a"]


def test_lists_hold_what_is_present() -> None:
    """Each row's list has its entries in their order; a row without any is null."""
    values = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint32)
    present = np.array([[True, False, True], [False, False, False], [True, True, True]])
    column = columns.number_lists(values, present)
    column.validate(full=True)
    assert column.type == pa.list_(pa.uint32())
    assert column.to_pylist() == [[1, 3], None, [7, 8, 9]]


def test_what_is_rendered_is_rendered_once_a_distinct_value() -> None:
    """A thousand rows of two values ask twice."""
    asked: list[bytes] = []

    def render(value: bytes) -> str | None:
        asked.append(value)
        return None if value == b"\0\0" else value.hex()

    octets = np.array([[0, 0], [1, 2]] * 500, np.uint8)
    column = columns.per_distinct(octets, render)
    assert column.to_pylist() == [None, "0102"] * 500
    assert sorted(asked) == [b"\0\0", b"\1\2"]


NAMES: Final = [f"name {number}" for number in range(300)]


@pytest.mark.parametrize("entries", [1, 5, 300], ids=["one", "some", "far more than are used"])
@given(st.data())
def test_names_by_their_numbers(entries: int, data: st.DataObject) -> None:
    """Each row has the name of its number, -1 is null, and the dictionary has what is used, once each."""
    numbers = data.draw(st.lists(st.integers(-1, entries - 1), max_size=20))
    dictionary = pa.array(NAMES[:entries], pa.utf8())
    column = columns.numbered(np.array(numbers, np.int64), dictionary)
    column.validate(full=True)
    assert column.to_pylist() == [None if number < 0 else NAMES[number] for number in numbers]
    assert column.dictionary.to_pylist() == [NAMES[number] for number in sorted({*numbers} - {-1})]


TEXTS: Final = st.lists(st.tuples(*[st.one_of(st.none(), st.sampled_from("abc"))] * 2), min_size=1, max_size=10)


@given(TEXTS)
def test_one_column_of_names_fills_another(pairs: list[tuple[str | None, str | None]]) -> None:
    """What the first has stands; what it lacks the second gives; an entry that both have is there once."""
    first, second = (pa.array([pair[at] for pair in pairs], pa.utf8()).dictionary_encode() for at in (0, 1))
    column = columns.coalesced(first, second)
    column.validate(full=True)
    assert column.to_pylist() == [one if one is not None else other for one, other in pairs]
    entries = column.dictionary.to_pylist()
    assert len(entries) == len(set(entries))
