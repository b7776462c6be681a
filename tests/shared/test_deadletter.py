"""The headers of dead letters: what is written is read, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.deadletter import NAMES, DeadLetter, NotADeadLetterError, read, without

WORDS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
NUMBERS = st.integers(0, 10**18 - 1)
LETTERS = st.builds(DeadLetter, WORDS, WORDS, WORDS, NUMBERS, NUMBERS, NUMBERS, st.none() | WORDS)
OTHERS = st.lists(
    st.tuples(st.text(max_size=8).filter(lambda name: name not in NAMES), st.none() | st.binary(max_size=8)), max_size=5
)

LETTER = DeadLetter("refused", "forwarder", "dc1.flows.records", 3, 17, 1_700_000_000_123, "lake")


@given(LETTERS, OTHERS)
def test_what_is_written_is_read(letter: DeadLetter, own: list[tuple[str, str | bytes | None]]) -> None:
    """All that a dead letter says comes back, and the headers that its message had are found beside it."""
    headers = letter.headers(own)
    assert read(headers) == letter
    assert without(headers) == own


def test_the_last_reason_holds() -> None:
    """What becomes a dead letter once more says why it did this time, and keeps nothing of the time before."""
    again = DeadLetter("too_large", "forwarder", "dc1.flows.deadletter", 1, 5, 1_700_000_000_999)
    headers = again.headers(LETTER.headers([("schema", b"1")]))
    assert read(headers) == again
    assert [name for name, _ in headers].count("reason") == 1
    assert headers[0] == ("schema", b"1")
    assert without(headers) == [("schema", b"1")]


@pytest.mark.parametrize("name", sorted(NAMES - {"sink"}))
@pytest.mark.parametrize("value", [None, b"", b"\xff", "text"], ids=["null", "empty", "no text", "not bytes"])
def test_a_message_without_them_is_no_dead_letter(name: str, value: str | bytes | None) -> None:
    """A header that is missing or has no sound value is named."""
    broken = [pair if pair[0] != name else (name, value) for pair in LETTER.headers(None)]
    with pytest.raises(NotADeadLetterError, match=name):
        read(broken)
    with pytest.raises(NotADeadLetterError, match=name):
        read([pair for pair in LETTER.headers(None) if pair[0] != name])


@pytest.mark.parametrize("digits", [b"-1", b"1.5", b"9" * 19, b" 1", b"0x1"])
def test_a_number_is_digits(digits: bytes) -> None:
    """Offsets and times are plain numbers, of a length that any program can hold."""
    headers = [pair if pair[0] != "origin-offset" else ("origin-offset", digits) for pair in LETTER.headers(None)]
    with pytest.raises(NotADeadLetterError, match="origin-offset"):
        read(headers)


def test_no_headers_are_no_dead_letter() -> None:
    """A message of somebody else's has none at all."""
    with pytest.raises(NotADeadLetterError):
        read(None)
    with pytest.raises(NotADeadLetterError):
        read([])
