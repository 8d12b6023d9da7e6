"""One verdict per kind of record, on hand-made results at both sides of each rule."""

from dataclasses import replace
from typing import Any

import pytest

from bench.record import Record, new_record
from bench.record.kinds import COVERAGE, JUDGES, ROUNDING, violations

pytestmark = pytest.mark.any_torch

BOUND = {
    "gaps": [{"gap": 0.3}, {"gap": 0.0}],
    "pointwise_least_slack": 0.0,
    "unit_beta_largest_difference": 0.0,
    "grid": None,
}
GRID = {"largest": 3.9, "ks_p_value": 0.02}
COVERED = {"estimate": 0.95, "low": 0.93, "high": 0.97}
MUTATION = {"seeded": {"missed": []}, "killed": 95, "counted": 100}
UNAVAILABLE = {"contender": "cuda", "outcome": "skipped", "reason": "no device"}
WRONG = {"contender": "native", "outcome": "failed", "reason": "x_t is off"}

GOOD: dict[str, dict[str, Any]] = {
    "verify": {"failed": []},
    "throughput": {"not_measured": [UNAVAILABLE]},
    "throughput-contest": {"contests": [{"not_measured": [UNAVAILABLE]}]},
    "training-contest": {"contests": [{"not_measured": [UNAVAILABLE]}]},
    "gpu-visit": {"bits_equal": True, "contests": []},
    "study": {"runs": [{"arm": "eps/simple", "seed": 1, "diverged_at": 12}]},
    "bound": {**BOUND, "grid": GRID},
    "estimator": {"coverage": COVERED},
    "noise": {"passed": True},
    "mutation": MUTATION,
    "run": {"parts": [{"part": "verify", "status": "done", "reason": ""}]},
}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("verify", {"failed": ["I9-kl"]}, "I9-kl"),
    ("throughput", {"not_measured": [UNAVAILABLE, WRONG]}, "native: x_t is off"),
    ("throughput-contest", {"contests": [{"not_measured": [WRONG]}]}, "native: x_t is off"),
    ("training-contest", {"contests": [{"not_measured": [WRONG]}]}, "native: x_t is off"),
    ("gpu-visit", {"bits_equal": False, "contests": []}, "bits differ"),
    ("gpu-visit", {"bits_equal": True, "contests": [{"not_measured": [WRONG]}]}, "x_t is off"),
    ("study", {"runs": [{"arm": "eps/simple", "seed": 2, "failed": "RuntimeError: no"}]}, "no"),
    ("bound", {**BOUND, "gaps": [{"gap": -2 * ROUNDING}]}, "gap to the entropy"),
    ("bound", {**BOUND, "pointwise_least_slack": -2 * ROUNDING}, "slack at one point"),
    ("bound", {**BOUND, "unit_beta_largest_difference": 2 * ROUNDING}, "differ by"),
    ("bound", {**BOUND, "grid": {**GRID, "largest": 4.0}}, "largest |z|"),
    ("bound", {**BOUND, "grid": {**GRID, "ks_p_value": 0.01}}, "Kolmogorov-Smirnov"),
    ("estimator", {"coverage": {**COVERED, "high": COVERAGE[0] - 0.001}}, "covers"),
    ("estimator", {"coverage": {**COVERED, "low": COVERAGE[1] + 0.001}}, "covers"),
    ("noise", {"passed": False}, "noise failed"),
    ("mutation", {**MUTATION, "seeded": {"missed": [{"name": "x"}]}}, "seeded defects"),
    ("mutation", {**MUTATION, "killed": 94}, "94.0%"),
    ("run", {"parts": [{"part": "study", "status": "broke", "reason": "no"}]}, "study broke: no"),
]


def made(kind: str, results: dict[str, Any]) -> Record:
    return new_record(kind, protocol={}, results=results)


def test_every_kind_has_a_good_example_here() -> None:
    assert set(GOOD) == set(JUDGES)


@pytest.mark.parametrize("kind", GOOD)
def test_nothing_is_wrong_with_a_good_record(kind: str) -> None:
    assert violations(made(kind, GOOD[kind])) == []


@pytest.mark.parametrize(("kind", "results", "says"), BAD)
def test_each_rule_is_seen_on_its_own(kind: str, results: dict[str, Any], says: str) -> None:
    (found,) = violations(made(kind, results))
    assert says in found


def test_a_kind_without_a_verdict_cannot_fail() -> None:
    assert violations(replace(made("run", GOOD["run"]), kind="something else")) == []
