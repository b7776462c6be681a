"""The log: structured lines on stderr, coloured text for a person at a terminal, JSON for a machine.

An event is a short sentence that never changes, and what varies is in fields, so that lines can be counted. Lines of
libraries that use Python's `logging` (uvicorn, the Kafka client) take the same road.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence

    from shared.config import LogConfig

Logger = structlog.stdlib.BoundLogger

MASK: Final = "******"

_FIRST_KEYS = ("timestamp", "level", "stage", "event")
# A bare `token` is the name of a batch, no secret.
_SECRET_KEY = re.compile(
    r"passw|secret|(?:bearer|access|api|auth|http)[._]?token|api_?key|authorization|credential|key\.pem$|jaas",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<before>://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}"
    r"|(?P<name>\b(?:sasl\.|ssl\.\w+\.)?password['\"]?\s*[=:]\s*)[^\s,;}]+",
    re.IGNORECASE,
)
# What is known where an event happens; the rest is for the handler to say.
_FACTS: Final[Sequence[structlog.typing.Processor]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# At info these say what our own lines say better, or say it at every request.
_QUIET = ("uvicorn", "asyncio", "httpx", "httpcore")


def configure(config: LogConfig, stage: str, stream: TextIO | None = None) -> None:
    """Set up the log of this process; a second call replaces the first.

    `stage` is in every line that does not name one itself. `stream` is stderr unless a test wants another.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    console = config.format == "console" or (config.format == "auto" and terminal)
    output = _Output(stream)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_FACTS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _AddStage(stage),
                # The plain traceback: a prettier one shows local variables, and with them secrets.
                structlog.processors.format_exc_info,
                mask_secrets,
                structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
                if console
                else _as_json,
            ],
        )
    )
    for handler in [handler for handler in logging.root.handlers if isinstance(handler, _Output)]:
        logging.root.removeHandler(handler)
    logging.root.addHandler(output)
    set_level(config.level)


def set_level(level: str) -> None:
    """Change from now on which events are logged; the level is one of `LogConfig.level`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.root.setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get_logger(name: str) -> Logger:
    """A logger; what it writes follows `configure` and `set_level`, also when they are called later.

    Before `configure` it does what Python's `logging` does then: warnings and errors go to stderr, as they are.
    """
    logger: Logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_FACTS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=Logger,
    )
    return logger


@dataclass(slots=True)
class _Held:
    """What is held back of one key since `since`: how many lines, and the last of them."""

    since: float
    count: int = 0
    last: Callable[[int], None] | None = field(default=None, repr=False)


class Throttle:
    """Lets one line pass in `interval_seconds` for each key, and says how many it held back.

    A key is what is bounded about a line, such as (stage, reason). There is room for `max_keys` of them; those beyond
    share one. `clock` gives seconds that never go back. May be called from any thread.
    """

    def __init__(
        self, interval_seconds: float = 10.0, *, clock: Callable[[], float] = time.monotonic, max_keys: int = 1024
    ) -> None:
        self._interval = interval_seconds
        self._clock = clock
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._held: dict[Hashable, _Held] = {}

    def log(self, logger: Logger, level: str, key: Hashable, event: str, /, **fields: Any) -> bool:  # noqa: ANN401 - a field may be anything
        """Write the line, with `suppressed=n` when n like it were held back before, or hold it back; say which."""

        def write(suppressed: int) -> None:
            more: Mapping[str, int] = {"suppressed": suppressed} if suppressed else {}
            getattr(logger, level)(event, **fields, **more)

        with self._lock:
            now = self._clock()
            held = self._held.get(key)
            if held is None and len(self._held) >= self._max_keys:
                key = _OVERFLOW
                held = self._held.get(key)
            if held is not None and now - held.since < self._interval:
                held.count += 1
                held.last = write
                return False
            self._held[key] = _Held(now)
            count = 0 if held is None else held.count
        write(count)
        return True

    def flush(self, *, everything: bool = False) -> None:
        """Write the last line of each key that has held back some and is due, or of every key when we stop.

        Called every few seconds by the stage's loop: the end of a burst would else stay untold.
        """
        with self._lock:
            now = self._clock()
            due = {k: held for k, held in self._held.items() if everything or now - held.since >= self._interval}
            for key, held in due.items():
                if held.count:
                    self._held[key] = _Held(now)
                else:
                    del self._held[key]
        for held in due.values():
            if held.last is not None:
                held.last(held.count - 1)


class _Overflow:
    """The key of all lines for which there is no room."""


_OVERFLOW: Final = _Overflow()


class _Output(logging.StreamHandler[TextIO]):
    """Where our lines go; a class of its own, so that a second `configure` finds it."""


class _AddStage:
    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("stage", self._stage)
        return event


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what must not be read by whoever reads the log: values by the name of their key, and passwords in text."""
    for key, value in event.items():
        event[key] = MASK if _is_secret(key, value) else _masked(value)
    return event


def _is_secret(key: object, value: object) -> bool:
    return isinstance(key, str) and value is not None and _SECRET_KEY.search(key) is not None


def _masked(value: Any) -> Any:  # noqa: ANN401 - a field may be anything
    if isinstance(value, str):
        return _SECRET_TEXT.sub(lambda found: next(part for part in found.groups() if part) + MASK, value)
    if isinstance(value, dict):
        return {key: MASK if _is_secret(key, inner) else _masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner) for inner in value]
    return value


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    ordered = {key: event.pop(key) for key in _FIRST_KEYS if key in event} | dict(event)
    return orjson.dumps(ordered, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
