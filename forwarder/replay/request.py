"""What a person asks for, checked against the settings: before Kafka is asked for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from forwarder.replay.points import Point, parse_moment, parse_point
from forwarder.replay.selection import Network, Selection, parse_exporter
from shared.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.config import ForwarderConfig

REMEMBERED_SECONDS: Final[Mapping[str, float]] = MappingProxyType({"parquet": math.inf})
"""For how long each type of sink knows the names of what it has: past that a copy would be taken for something new."""


@dataclass(frozen=True, slots=True)
class Request:
    """A replay as it is asked for; points and exporters are as they were written. ``end`` None is all there is."""

    sink: str
    begin: str
    end: str | None = None
    into: str | None = None
    exporters: tuple[str, ...] = ()
    received_from: str | None = None
    received_to: str | None = None
    range_deleted: bool = False

    @property
    def target(self) -> str:
        """The sink that gets it."""
        return self.into or self.sink

    @property
    def is_elsewhere(self) -> bool:
        """Whether whoever asks says that the sink has nothing of the range."""
        return self.into is not None or self.range_deleted

    def asked(self, topic_id: str) -> tuple[object, ...]:
        """All that tells this replay from another."""
        exporters = ",".join(sorted(set(self.exporters)))
        received = (self.received_from, self.received_to)
        return (topic_id, self.sink, self.into, self.begin, self.end, exporters, *received, self.range_deleted)

    def selection(self, now_ms: int) -> Selection:
        """Which records are asked for.

        Raises:
            ConfigError: a time is none.
        """
        networks: list[Network] = []
        names: list[str] = []
        for text in self.exporters:
            try:
                exporter = parse_exporter(text)
            except ValueError as error:
                raise ConfigError(f"--exporter {error}") from None
            (names if isinstance(exporter, str) else networks).append(exporter)  # type: ignore[arg-type]  # each into its own
        begin = self._received("--received-from", self.received_from, now_ms)
        end = self._received("--received-to", self.received_to, now_ms)
        if begin is not None and end is not None and end <= begin:
            raise ConfigError("--received-to is not after --received-from")
        return Selection(tuple(networks), tuple(names), begin, end)

    def _received(self, option: str, text: str | None, now_ms: int) -> int | None:
        try:
            return None if text is None else parse_moment(text, now_ms).ms * 1_000_000
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from None

    def points(self, now_ms: int) -> tuple[Point, Point | None]:
        """Where it begins and ends; None is where the sink has committed.

        Raises:
            ConfigError: they are neither times nor offsets.
        """
        option = "--from"
        try:
            begin = parse_point(self.begin, now_ms)
            option = "--to"
            return begin, None if self.end is None else parse_point(self.end, now_ms)
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from None

    def check(self, config: ForwarderConfig, now_ms: int) -> None:
        """See that it can be meant.

        Raises:
            ConfigError: it cannot.
        """
        for option, name in (("--sink", self.sink), ("--into", self.into)):
            if name is not None and name not in config.sinks:
                there = ", ".join(config.sinks)
                raise ConfigError(f"{option} {name}: there is no such sink in forwarder.sinks, but: {there}")
        if self.into == self.sink:
            raise ConfigError(f"--into {self.into} is the sink itself: leave it out, or name another one")
        if self.into is None and (self.exporters or self.received_from or self.received_to):
            raise ConfigError(
                f"a part of a batch is another batch, and the sink {self.sink} would have its records twice: with"
                " --exporter or --received-from and --received-to, name another sink to deliver into (--into OTHER)"
            )
        self.points(now_ms)
        self.selection(now_ms)
