"""Tagged structures, found in lockstep and one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoders.xdr import FEW, find_tagged
from tests.fuzz import looked_at
from tests.sflow_builders import MOST, tagged, words

BEFORE: Final = b"\xa5" * 5
"""What stands before each list: not a multiple of four, since a datagram may begin anywhere."""
FILLING: Final = (tagged(7, b"\x11" * 4), 1)
"""A list that is in order, and how many structures it counts."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one list: tags and bodies, and what was wrong with it."""

    structures: list[tuple[int, bytes]]
    beyond: bool = False
    short: bool = False


def find(*lists: tuple[bytes, int], behind: bytes = b"") -> list[Found]:
    """What is found in lists that lie in one buffer; each has as many structures as the number beside it says."""
    octets, begin, end = b"", [], []
    for content, _ in lists:
        octets += BEFORE
        begin.append(len(octets))
        octets += content
        end.append(len(octets))
    buffer = np.frombuffer(octets + behind, np.uint8)
    count = np.array([number for _, number in lists], np.int64)
    found, beyond, short = find_tagged(buffer, np.array(begin, np.int64), np.array(end, np.int64), count)
    results = [Found([], bool(one), bool(other)) for one, other in zip(beyond, short, strict=True)]
    for row, start, length, tag in zip(found.row, found.start, found.length, found.tag, strict=True):
        results[row].structures.append((int(tag), buffer[start : start + length].tobytes()))
        assert begin[row] <= start
        assert start + length <= end[row]
    assert found.row.tolist() == sorted(found.row.tolist())
    return results


def read(content: bytes, count: int) -> Found:
    """The same by a reader that is slow and easy to believe."""
    structures: list[tuple[int, bytes]] = []
    while count and len(content) >= 8:
        tag, length = int.from_bytes(content[:4]), int.from_bytes(content[4:8])
        if length > len(content) - 8:
            return Found(structures, beyond=True)
        structures.append((tag, content[8 : 8 + length]))
        content = content[8 + length + -length % 4 :]
        count -= 1
    return Found(structures, short=count > 0)


MANY: Final = pytest.mark.parametrize("beside", [0, FEW - 1, 3 * FEW], ids=["alone", "as few lists", "many lists"])
"""With few lists each is walked, with many all advance together."""

LISTS = [
    pytest.param(b"", 0, Found([]), id="nothing, and none is counted"),
    pytest.param(b"", 1, Found([], short=True), id="nothing, and one is counted"),
    pytest.param(tagged(1, b"abcd"), 1, Found([(1, b"abcd")]), id="one"),
    pytest.param(tagged(1, b"") + tagged(2, b"abcd"), 2, Found([(1, b""), (2, b"abcd")]), id="an empty one"),
    pytest.param(tagged(1, b"abcde") + tagged(2, b"x"), 2, Found([(1, b"abcde"), (2, b"x")]), id="padding between"),
    pytest.param(tagged(1, b"abcde")[:-3], 1, Found([(1, b"abcde")]), id="no padding behind the last"),
    pytest.param(tagged(1, b"abcd") * 2, 1, Found([(1, b"abcd")]), id="more than are counted"),
    pytest.param(tagged(1, b"abcd") + b"\0" * 7, 1, Found([(1, b"abcd")]), id="something behind the last"),
    pytest.param(tagged(1, b"abcd") + b"\0" * 7, 2, Found([(1, b"abcd")], short=True), id="half a header"),
    pytest.param(tagged(1, b"abcd"), MOST, Found([(1, b"abcd")], short=True), id="endlessly many are counted"),
    pytest.param(words(1, 5) + b"abcd", 1, Found([], beyond=True), id="one byte too long"),
    pytest.param(words(1, MOST) + b"abcd", 1, Found([], beyond=True), id="endlessly long"),
    pytest.param(
        tagged(1, b"ab") + words(2, MOST), 3, Found([(1, b"ab")], beyond=True), id="the second endlessly long"
    ),
    pytest.param(words(MOST, 0), 1, Found([(MOST, b"")]), id="a tag of all ones"),
    pytest.param(tagged(3, b"") * 50, 50, Found([(3, b"")] * 50), id="fifty"),
]


@pytest.mark.parametrize(("content", "count", "expected"), LISTS)
@MANY
def test_structures_are_found_by_their_length(content: bytes, count: int, expected: Found, beside: int) -> None:
    """Each list gives its structures up to the first that reaches beyond its end, whatever the lists beside it have."""
    found = find((content, count), *[FILLING] * beside)
    assert found == [expected] + [Found([(7, b"\x11" * 4)])] * beside
    assert find(*[FILLING] * beside, (content, count))[-1] == expected
    assert read(content, count) == expected


@MANY
def test_a_list_ends_where_it_is_said_to(beside: int) -> None:
    """What lies behind a list in the buffer is not read: there is another datagram, or an older one."""
    cut = tagged(1, b"abcd")[:-2]
    assert find((cut, 1), *[FILLING] * beside, behind=b"cdcdcdcd")[0] == Found([], beyond=True)
    assert find(*[FILLING] * beside, (cut, 1), behind=b"cdcdcdcd")[-1] == Found([], beyond=True)


def test_no_list_is_no_structure() -> None:
    """A batch of nothing finds nothing."""
    assert find() == []


def test_lists_of_any_length_advance_together() -> None:
    """Lists run out one by one until few are left, which are walked: nothing is lost in between."""
    lists = [(b"".join(tagged(number, bytes(at)) for at in range(number)), number) for number in range(4 * FEW)]
    assert find(*lists) == [read(*one) for one in lists]
    assert find(*lists[::-1]) == [read(*one) for one in lists[::-1]]


@st.composite
def lists(draw: st.DrawFn) -> tuple[bytes, int]:
    """A list that is in order, or has lengths that lie, is cut, or goes on too long."""
    content = b""
    bodies = draw(st.lists(st.binary(max_size=12), max_size=6))
    for body in bodies:
        length = draw(st.one_of(st.none(), st.integers(0, 20), st.just(MOST)))
        content += tagged(draw(st.integers(0, MOST)) & 0xFFF, body, length=length)
    content = content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content
    return content + draw(st.binary(max_size=9)), draw(
        st.one_of(st.just(len(bodies)), st.integers(0, 8), st.just(MOST))
    )


@looked_at(quick=100, long=3_000)
@given(st.lists(lists(), min_size=1, max_size=3 * FEW))
def test_together_and_one_by_one_find_the_same(drawn: list[tuple[bytes, int]]) -> None:
    """In lockstep or walked, any lists give what a plain reader finds in each."""
    assert find(*drawn) == [read(*one) for one in drawn]
    assert [find(one)[0] for one in drawn] == [read(*one) for one in drawn]
