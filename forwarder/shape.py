"""What decides where batches end and what is in them, beside the log itself.

A batch that was delivered under a token, and is delivered again under the same one, has to be the same batch. So all
that shapes batches is kept with the group's offset in Kafka (see :mod:`forwarder.course`), and what is not in here must
not shape them: no clock, no name that options data told, nothing that differs from one forwarder to the next.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field, ValidationError

from forwarder.config import AggregateConfig, CutConfig, DedupConfig
from forwarder.cut import CutRule
from forwarder.dedup.exact import ExactRule
from forwarder.dedup.lease import LeaseRule
from forwarder.dedup.observation import Crossing, Metering, ObservationRule
from shared.config import Count, Section

if TYPE_CHECKING:
    from forwarder.config import ForwarderConfig

VERSION: Final = 1
"""Of the rules by which batches are cut, deduplicated and aggregated; another number for any other outcome."""

LONGEST_TEXT: Final = 1950
"""Characters of a shape, so that two of them always fit beside an offset in Kafka; the settings are refused past it."""


class Shape(Section):
    """The settings of one sink that decide about its batches; equal ones make equal batches of one log."""

    version: Count = VERSION
    cut: CutConfig
    dedup: DedupConfig
    aggregate: AggregateConfig | None = None
    remembered: Count = Field(description="records that each partition remembers")
    remembered_flows: Count = Field(default=2, description="flows that each partition remembers")

    @property
    def rule(self) -> CutRule:
        """Where batches end."""
        return CutRule(self.cut.interval_ms, self.cut.max_records, self.cut.max_bytes)

    def text(self) -> str:
        """Return the shape as ASCII; :meth:`parse` reads it."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"))

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read what :meth:`text` wrote, or the JSON value of it; None when this program does not know such a shape."""
        try:
            shape = cls.model_validate_json(text) if isinstance(text, str) else cls.model_validate(text, strict=False)
        except ValidationError:
            return None
        return shape if shape.version == VERSION else None

    @property
    def exact(self) -> ExactRule | None:
        """How records are remembered by their ids; None when they are not."""
        exact = self.dedup.exact
        return None if exact is None else ExactRule(exact.window_seconds * 1000, self.remembered)

    @property
    def lease(self) -> LeaseRule | None:
        """How flows are remembered; None when they are not."""
        flow = self.dedup.flow
        return LeaseRule(flow.lease_seconds * 1000, self.remembered_flows) if flow.policy == "lease" else None

    @property
    def observation(self) -> ObservationRule | None:
        """Which observations of a flow count, where each record tells that by itself."""
        flow = self.dedup.flow
        if flow.policy != "observation_point":
            return None
        overrides = {network: Metering(metering) for network, metering in flow.metering_overrides.items()}
        return ObservationRule(Crossing(flow.crossing), Metering(flow.metering), overrides)

    def oldest_ms(self, append_ms: int) -> int | None:
        """From which append time on the log has to be known, to go on with a message of this append time."""
        rules = [rule for rule in (self.exact, self.lease) if rule is not None]
        return min((rule.oldest_needed(append_ms) for rule in rules), default=None)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that are equal for equal shapes."""
        return hashlib.blake2b(self.text().encode(), digest_size=8).hexdigest()


def shape_of(config: ForwarderConfig, sink: str, partitions: int) -> Shape:
    """Return the shape of a sink's batches, for a topic of so many partitions.

    What dedup may remember is for the topic as a whole: each partition has an equal share, wherever it is assigned.
    """
    dedup = config.sinks[sink].dedup or config.dedup
    ids = 0 if dedup.exact is None else dedup.exact.max_records
    return Shape(
        cut=config.cut(sink),
        dedup=dedup,
        aggregate=config.aggregation(sink),
        remembered=max(1, ids // max(1, partitions)),
        remembered_flows=max(2, dedup.flow.max_flows // max(1, partitions)),
    )
