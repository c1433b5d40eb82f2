"""Choosing how many nodes to draft: costs, rates, plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from medusa_ext.drafting.auto import DraftPlan, Rate, best_plan
from medusa_ext.drafting.costs import CostCurve, LiveCosts, load_curve, rising, save_curve
from medusa_ext.drafting.trees import default_trees

FLAT = CostCurve([1, 64], [1.0, 1.0001])
STEEP = CostCurve([1, 2, 64], [1.0, 2.0, 64.0])
GAIN = [default_trees(4).expected_tokens(1 + n) - 1 for n in range(64)]


def plan(curve: CostCurve, rate: float | None, heads: bool, batch: int = 1) -> DraftPlan:
    return best_plan(LiveCosts(curve), batch, 64, rate, GAIN if heads else None)


def test_free_nodes_are_all_taken() -> None:
    assert plan(FLAT, 0.9, heads=False).lookup == 63
    assert plan(FLAT, None, heads=True).heads == 63


def test_nodes_at_full_price_are_not_taken() -> None:
    """Each row costs a whole plain step: no draft can pay."""
    assert plan(STEEP, 0.9, heads=True) == DraftPlan()


def test_a_plan_is_the_best_of_its_kind() -> None:
    curve = CostCurve([1, 8, 64], [1.0, 1.4, 8.0], heads=0.1)
    found = plan(curve, 0.5, heads=True)
    speeds = {
        n: (1 + GAIN[n]) / (curve.step(1 + n) + 0.1) for n in (1, 2, 3, 4, 5, 6, 8, 11, 15, 31)
    }
    assert found.heads == max(speeds, key=lambda n: speeds[n])
    assert found.lookup > 0
    assert plan(curve, 0.05, heads=True).lookup == 0


def test_expensive_heads_are_left_alone() -> None:
    assert plan(CostCurve([1, 64], [1.0, 1.0], heads=5.0), None, heads=True).heads == 0


def test_batches_pay_for_each_sequence() -> None:
    curve = CostCurve([1, 8, 64], [1.0, 1.1, 8.0])
    assert plan(curve, 0.9, heads=False, batch=16).lookup < plan(curve, 0.9, heads=False).lookup


def test_curve_between_and_beyond_its_points() -> None:
    curve = CostCurve([1, 2, 4], [1.0, 2.0, 3.0])
    assert [curve.step(n) for n in (1, 2, 3, 4, 8)] == [1.0, 2.0, 2.5, 3.0, 6.0]


def test_disturbed_sizes_take_the_cost_of_larger_ones() -> None:
    assert rising([1.0, 5.0, 2.0, 3.0, 2.5]) == [1.0, 2.0, 2.0, 2.5, 2.5]


def test_costs_follow_what_runs() -> None:
    costs = LiveCosts(CostCurve([1, 8, 9], [1.0, 2.0, 2.2]))
    assert not costs.has_seen(8)
    for _ in range(30):
        costs.observe(8, 3.0)
    assert costs.has_seen(8)
    assert costs.step(8) == pytest.approx(3.0, rel=0.01)
    # Sizes that have not run go with the nearest that has.
    assert costs.step(9) == pytest.approx(3.3, rel=0.01)
    assert costs.step(1) == pytest.approx(1.5, rel=0.01)
    for _ in range(30):
        costs.observe(1, 0.5)
    assert costs.step(1) == pytest.approx(0.5, rel=0.01)
    assert costs.step(8) == pytest.approx(3.0, rel=0.01)


def test_batches_are_kept_apart() -> None:
    """16 rows of 16 sequences are no measure of a tree of 16 nodes, nor the other way round."""
    costs = LiveCosts(CostCurve([1, 16, 32], [1.0, 2.0, 3.0]))
    for _ in range(30):
        costs.observe(16, 4.0, batch=16)
    assert costs.step(16, 16) == costs.step(16, 20) == pytest.approx(4.0, rel=0.01)
    assert costs.step(32, 16) == pytest.approx(6.0, rel=0.01)
    assert costs.step(16) == 2.0 and not costs.has_seen(16)
    costs.observe(16, 1.5)
    assert costs.step(16) == 1.5 and costs.step(16, 16) == pytest.approx(4.0, rel=0.01)


def test_an_interrupted_step_counts_little() -> None:
    costs = LiveCosts(CostCurve([1, 8], [1.0, 2.0], heads=1.0))
    costs.observe(1, 1.0)
    costs.observe(1, 1000.0)
    costs.observe_heads(1, 1000.0)
    assert costs.step(1) <= 1.2 and costs.heads(1) <= 1.1


def test_heads_cost_more_for_more_sequences() -> None:
    costs = LiveCosts(CostCurve([1, 8], [1.0, 2.0], heads=1.0))
    assert costs.heads(16) == 1.0
    costs.observe_heads(16, 3.0)
    assert costs.heads(16) == costs.heads(12) == 3.0
    costs.observe_heads(16, 1000.0)
    assert costs.heads(16) <= 3.31
    costs.observe_heads(1, 1.0)
    assert costs.heads(1) == costs.heads(2) == 1.0
    for _ in range(20):
        costs.observe_heads(16, 2.0)
    assert costs.heads(16) == pytest.approx(2.0, rel=0.01)


def test_rate_moves_from_its_prior_to_what_is_seen() -> None:
    rate = Rate(prior=0.6, weight=4)
    assert rate.value == pytest.approx(0.6)
    for _ in range(500):
        rate.observe(1, 5)
    assert rate.value == pytest.approx(0.2, abs=0.01)
    for _ in range(500):
        rate.observe(4, 5)
    assert rate.value == pytest.approx(0.8, abs=0.01)


def test_curves_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "costs" / "curve.json"
    assert load_curve(path) is None
    curve = CostCurve([1, 2], [0.5, 0.75], heads=0.1)
    save_curve(path, curve)
    assert load_curve(path) == curve


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"rows": [2], "seconds": [1.0], "heads": 0}',
     '{"rows": [1], "seconds": [0.0], "heads": 0}', '{"rows": [1], "seconds": [], "heads": 0}'],
)  # fmt: skip
def test_a_damaged_curve_is_measured_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text)
    assert load_curve(path) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_curve(tmp_path / "file" / "curve.json", FLAT)
