"""How long property tests look for a counterexample: seconds, or minutes with SLUICEWAY_FUZZ=long."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

LONG: Final = os.environ.get("SLUICEWAY_FUZZ") == "long"


def looked_at(quick: int, long: int) -> settings:
    """So many examples; none has to be done within a time, since the machine may be busy."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=long if LONG else quick, deadline=None, suppress_health_check=slow)
