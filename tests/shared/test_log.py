import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from shared.config import LogConfig
from shared.log import MASK, Throttle, configure, get_logger, set_level


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The seconds that the test set."""
        return self.seconds


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Give the process its log back after each test."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    """What a JSON log at level info writes to."""
    text = io.StringIO()
    configure(LogConfig(), "ingest", text)
    return text


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written, parsed."""
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_what_happened_first(stream: io.StringIO) -> None:
    """Where there is no terminal, a line is one JSON object: time, level, stage, event, then the fields."""
    get_logger("udp").info("listening", port=2055)
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "stage", "event"]
    assert (line["level"], line["stage"], line["event"], line["port"]) == ("info", "ingest", "listening", 2055)
    assert line["logger"] == "udp"


def test_times_are_rfc_3339_in_utc(stream: io.StringIO) -> None:
    """A line's time is now, in UTC, with a Z."""
    before = datetime.now(UTC)
    get_logger("a").info("x")
    text = lines(stream)[0]["timestamp"]
    assert text.endswith("Z")
    assert before <= datetime.fromisoformat(text) <= datetime.now(UTC)


LOOKS = {
    "auto on a terminal": ("auto", Terminal(), True, True),
    "auto elsewhere": ("auto", io.StringIO(), False, False),
    "json on a terminal": ("json", Terminal(), False, False),
    "console elsewhere has no colour": ("console", io.StringIO(), True, False),
}


@pytest.mark.parametrize("case", LOOKS)
def test_the_look_follows_the_format_and_the_terminal(case: str) -> None:
    """A person at a terminal sees coloured text, a machine JSON, unless told otherwise."""
    look, stream, console, colour = LOOKS[case]
    configure(LogConfig.model_validate({"format": look}), "ingest", stream)
    get_logger("a").info("here I am", n=3)
    text = stream.getvalue()
    assert text.startswith("{") != console
    assert ("\x1b[" in text) == colour
    assert "here I am" in text


def test_a_second_configuration_replaces_the_first(stream: io.StringIO) -> None:
    """Configuring again, as a test or a reload does, writes no line twice."""
    logger = get_logger("a")
    other = io.StringIO()
    configure(LogConfig(), "forwarder", other)
    logger.info("x")
    assert lines(stream) == []
    assert [line["stage"] for line in lines(other)] == ["forwarder"]


def test_the_level_changes_while_we_run(stream: io.StringIO) -> None:
    """A logger that is in use follows the level at once."""
    logger = get_logger("a")
    for level in ("info", "debug", "error"):
        set_level(level)
        logger.debug("small", at=level)
        logger.warning("large", at=level)
    assert [(line["event"], line["at"]) for line in lines(stream)] == [
        ("large", "info"),
        ("small", "debug"),
        ("large", "debug"),
    ]


def test_libraries_take_the_same_road(stream: io.StringIO) -> None:
    """A library's line in Python's logging looks like ours, and a web server's chatter is left out."""
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("some.library").info("hello %s", "you")
    assert [(line["logger"], line["level"], line["event"], line["stage"]) for line in lines(stream)] == [
        ("uvicorn.error", "warning", "Invalid HTTP request received.", "ingest"),
        ("some.library", "info", "hello you", "ingest"),
    ]


def test_an_event_may_name_its_own_stage(stream: io.StringIO) -> None:
    """A drop says the stage that dropped."""
    get_logger("a").warning("dropped", stage="decode")
    assert lines(stream)[0]["stage"] == "decode"


def test_what_json_has_no_word_for_is_text(stream: io.StringIO) -> None:
    """A field of any type is written, never an error."""
    get_logger("a").info("x", where=object, raw=b"\xff", by_number={1: "one"}, secret_thing=None)
    (line,) = lines(stream)
    assert line["by_number"] == {"1": "one"}
    assert line["raw"] == "b'\\xff'"


SECRETS: dict[str, dict[str, Any]] = {
    "by key": {"password": "hunter22"},
    "by key within": {"properties": {"sasl.password": "hunter22", "acks": "all"}},
    "by key in a list": {"sinks": [{"bearer_token": "hunter22"}]},
    "as a type": {"value": SecretStr("hunter22")},
    "in a URL": {"url": "https://user:hunter22@db.example.net/x"},
    "in a header": {"text": "Authorization: Bearer hunter22"},
    "in a property": {"text": "set sasl.password=hunter22; go on"},
}


@pytest.mark.parametrize("look", ["json", "console"])
@pytest.mark.parametrize("case", SECRETS)
def test_secrets_never_show(case: str, look: str) -> None:
    """A secret does not reach the log: not by the name of its key, by its type, or inside a text."""
    stream = io.StringIO()
    configure(LogConfig.model_validate({"format": look}), "ingest", stream)
    get_logger("a").info("x", **SECRETS[case])
    assert "hunter22" not in stream.getvalue()
    assert "**" in stream.getvalue()


@pytest.mark.parametrize("look", ["json", "console"])
def test_a_traceback_shows_no_secrets(look: str) -> None:
    """A traceback is written without local variables, and what its message quotes is masked."""
    stream = Terminal()
    configure(LogConfig.model_validate({"format": look}), "ingest", stream)

    def fail(word: str) -> None:
        raise ValueError(f"cannot log in with password={word}")

    try:
        fail("hunter" + "22")
    except ValueError:
        get_logger("a").exception("failed")
    text = stream.getvalue()
    assert "Traceback" in text
    assert f"password={MASK}" in text
    assert "hunter22" not in text


def test_the_name_of_a_batch_is_no_secret(stream: io.StringIO) -> None:
    """A batch's token, which says where in the log it lies, is shown."""
    get_logger("a").info("delivered", token="abc:3:0-5", token_file="/run/token")
    assert (lines(stream)[0]["token"], lines(stream)[0]["token_file"]) == ("abc:3:0-5", "/run/token")


def test_one_line_in_ten_seconds_for_each_key(stream: io.StringIO) -> None:
    """Of each key one line passes in ten seconds, and the next one says how many were held back."""
    clock = Clock()
    throttle = Throttle(clock=clock)
    logger = get_logger("a")
    for second in (0.0, 3.0, 9.9, 10.0, 12.0, 40.0):
        clock.seconds = second
        for reason in ("late", "early") if second < 5 else ("late",):
            throttle.log(logger, "warning", ("park", reason), "dropped", at=second, reason=reason)
    written = [(line["at"], line["reason"], line.get("suppressed")) for line in lines(stream)]
    assert written == [(0, "late", None), (0, "early", None), (10, "late", 2), (40, "late", 1)]


def test_the_end_of_a_burst_is_told(stream: io.StringIO) -> None:
    """What was held back when nothing follows is written by the flush that comes when it is due, once."""
    clock = Clock()
    throttle = Throttle(clock=clock)
    logger = get_logger("a")
    for n in range(5):
        throttle.log(logger, "warning", "key", "dropped", n=n)
    throttle.flush()
    assert len(lines(stream)) == 1
    clock.seconds = 10
    throttle.flush()
    throttle.flush()
    assert [(line["n"], line.get("suppressed")) for line in lines(stream)] == [(0, None), (4, 3)]


def test_a_stop_tells_everything(stream: io.StringIO) -> None:
    """A flush of everything waits for no interval, and a single held line needs no count."""
    throttle = Throttle(clock=Clock())
    for n in range(2):
        throttle.log(get_logger("a"), "error", "key", "dropped", n=n)
    throttle.flush(everything=True)
    assert [(line["n"], line.get("suppressed")) for line in lines(stream)] == [(0, None), (1, None)]


def test_the_throttle_is_bounded(stream: io.StringIO) -> None:
    """Keys beyond the bound share one, so that an unbounded key can neither fill memory nor the log."""
    throttle = Throttle(clock=Clock(), max_keys=3)
    passed = [throttle.log(get_logger("a"), "info", key, "x", key=key) for key in range(100)]
    assert passed == [True] * 4 + [False] * 96
