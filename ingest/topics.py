"""Sees to the topics in a thread of its own: makes them, checks them, and tells how many partitions there are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from shared.config import KafkaConfig
from shared.errors import SluicewayError
from shared.kafka import COUNTERS, DEADLETTER, EXPORTERS, RECORDS, UNDECODED, KafkaAway, TopicFacts, ensure_topics
from shared.log import Logger, Throttle
from shared.web import Check

RETRY_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 10.0
"""How often the number of partitions is looked at: adding some is an operator's rare deed."""


class TopicWatch:
    """Watches our topics.

    ``found`` is called with the number of the records' partitions, when it is known and changes; ``exporters`` with
    what that topic is, at each look.
    """

    def __init__(
        self, config: KafkaConfig, found: Callable[[int], None], exporters: Callable[[TopicFacts], None], logger: Logger
    ) -> None:
        self._config = config
        self._found = found
        self._exporters = exporters
        self._log = logger
        self._throttle = Throttle(30.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="topics", daemon=True)
        self._partitions = 0
        self._state = Check("kafka", ok=False, detail="no broker has answered yet")
        self._told: tuple[str, ...] = ()

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; an answer that is awaited is not waited for."""
        self._stop.set()

    def check(self) -> Check:
        """Whether records can be sent. Once they could, a broker that is away is no failure: the queue waits for it."""
        return self._state

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(AGAIN_SECONDS if self._look() else RETRY_SECONDS)

    def _look(self) -> bool:
        try:
            report = ensure_topics(self._config, [RECORDS, COUNTERS, EXPORTERS, UNDECODED, DEADLETTER])
        except KafkaAway as away:
            self._throttle.log(self._log, "warning", "away", "kafka is away", reason=str(away))
            ready = self._partitions > 0
            self._state = Check("kafka", ok=ready, detail=str(away) + (": the queue waits for it" if ready else ""))
            return False
        except SluicewayError as error:
            self._throttle.log(self._log, "error", "refused", "kafka cannot be used", reason=str(error))
            self._state = Check("kafka", ok=self._partitions > 0, detail=str(error))
            return False
        problems = tuple(report.problems)
        if problems != self._told:
            self._told = problems
            for problem in problems:
                self._log.warning("a topic is not as it has to be", problem=problem)
        exporters = report.topics.get(EXPORTERS)
        if exporters is not None:
            self._exporters(exporters)
        facts = report.topics.get(RECORDS)
        if facts is None:
            self._state = Check("kafka", ok=self._partitions > 0, detail=" ".join(problems) or "the topic is missing")
            return False
        if facts.partitions != self._partitions:
            if self._partitions:
                self._log.warning(
                    "the topic has more partitions now: flows change their partition,"
                    " so duplicates are not recognised across this change for one window",
                    before=self._partitions,
                    now=facts.partitions,
                )
            self._partitions = facts.partitions
            self._found(facts.partitions)
        self._state = Check("kafka", ok=True, detail=f"{facts.name} has {facts.partitions} partitions")
        return True
