from __future__ import annotations

import pytest

from tests.bench.dedup_simulation import FIRST, LEASE, NONE, POINT, SCENARIOS, Scenario, simulate

UNSAMPLED = [one for one in SCENARIOS if {exporter.sampling for exporter in one.exporters} == {1}]
STEADY = [one for one in UNSAMPLED if {exporter.sees_until for exporter in one.exporters} == {1.0}]
SAMPLED = [one for one in SCENARIOS if one not in UNSAMPLED]


@pytest.mark.parametrize("scenario", STEADY, ids=lambda one: str(one.name))
def test_without_sampling_both_rules_count_what_was_sent(scenario: Scenario) -> None:
    """The observation point exactly, lease within a hundredth; without a rule each exporter counts again."""
    counted = simulate(scenario, 3000, 1)
    assert counted[NONE].all == pytest.approx(3)
    assert counted[POINT].all == pytest.approx(1)
    assert counted[LEASE].all == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scenario", UNSAMPLED, ids=lambda one: str(one.name))
def test_the_observation_point_does_not_mind_what_happens_elsewhere(scenario: Scenario) -> None:
    """Whatever the other exporters see, and whatever their timeouts are."""
    assert simulate(scenario, 3000, 2)[POINT].all == pytest.approx(1)


@pytest.mark.parametrize("scenario", SAMPLED, ids=lambda one: str(one.name))
def test_under_sampling_the_observation_point_is_right_and_lease_leaves_what_is_sampled(scenario: Scenario) -> None:
    """The one within what sampling itself leaves open; the other counts each exporter that samples again."""
    counted = simulate(scenario, 3000, 3)
    assert counted[POINT].all == pytest.approx(1, abs=0.02)
    assert counted[LEASE].all > 1.9


def test_the_obvious_rule_undercounts() -> None:
    """The first record of a flow in a window is only the first part of a long flow."""
    assert simulate(SCENARIOS[0], 3000, 4)[FIRST].all < 0.5
