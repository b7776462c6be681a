"""Watches the topic from outside: whether Kafka answers, and whether the topic is such that its cuts can be trusted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.kafka import RECORDS, KafkaAway, TopicFacts, ensure_topics, full_name
from shared.log import Throttle, get_logger

if TYPE_CHECKING:
    from shared.config import KafkaConfig

LOOK_EVERY_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 5.0
"""How long a look may take."""
AGAIN_SECONDS: Final = 2.0
"""How long until the next look when the last one found something wrong."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """What the last look found: whether a broker answered, the topic if it is there, and what has to be mended."""

    reachable: bool
    detail: str
    facts: TopicFacts | None = None
    problems: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the topic can be consumed: it is there, and its times are the broker's, as far as we may know."""
        return self.facts is not None and self.facts.log_append_time is not False


class TopicWatch:
    """Looks at the records' topic now and then, in a thread of its own, and creates it where that is allowed.

    ``on_usable`` is called in that thread, once, when the topic can be consumed for the first time.
    """

    def __init__(self, config: KafkaConfig, on_usable: Callable[[], None]) -> None:
        self._config = config
        self._on_usable = on_usable
        self._log = get_logger("topic")
        self._throttle = Throttle(60.0)
        self._closing = threading.Event()
        self._state = TopicState(reachable=False, detail="Kafka was not asked yet")
        self._thread = threading.Thread(target=self._watch, name="topic-watch", daemon=True)

    @property
    def topic(self) -> str:
        """The topic's name in Kafka."""
        return full_name(self._config, RECORDS)

    @property
    def state(self) -> TopicState:
        """What the last look found; may be asked by any thread."""
        return self._state

    def start(self) -> None:
        """Start to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; a look that is under way ends by itself."""
        self._closing.set()

    def _watch(self) -> None:
        told = False
        while not self._closing.is_set():
            self._state = state = self._look()
            if state.usable and not told:
                told = True
                self._on_usable()
            self._closing.wait(LOOK_EVERY_SECONDS if state.usable else AGAIN_SECONDS)

    def _look(self) -> TopicState:
        try:
            report = ensure_topics(self._config, [RECORDS], LOOK_SECONDS)
        except KafkaAway as error:
            self._throttle.log(self._log, "warning", "away", "Kafka is away; it is asked again", reason=str(error))
            return TopicState(reachable=False, detail=str(error))
        except Exception as error:  # noqa: BLE001 - a look that fails must not be the last one
            self._throttle.log(self._log, "error", "look", "the topic could not be looked at", exc_info=error)
            return TopicState(reachable=False, detail=f"{type(error).__name__}: {error}")
        facts = report.topics.get(RECORDS)
        for problem in report.problems:
            self._throttle.log(
                self._log,
                "warning" if facts is not None and facts.log_append_time is not False else "error",
                problem,
                "the topic is not as it has to be",
                problem=problem,
            )
        if facts is not None and facts.created:
            self._log.info("the topic was created", topic=facts.name, partitions=facts.partitions)
        said = f"{facts.name} has {facts.partitions} partitions" if facts else f"{self.topic} is missing"
        return TopicState(reachable=True, detail=said, facts=facts, problems=tuple(report.problems))
