r"""From runs to intervals: equations (2) of `bench.measure.study`, over paired seeds.

A measure is compared by difference (bits/dim) or by ratio (errors, distances, steps: positive, spread over decades); ratios
are handled as differences of logarithms and turned back at the end. A contrast is a set of coefficients on
arms; its value for one seed is Σ c_a y_a, and its interval is Student's t over the seeds that have every arm.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.record.statistics import Interval, mean_interval
from bench.record.study import Measure, Results, completed, value_of


@dataclass(frozen=True)
class Effect:
    """One contrast of one measure.

    Attributes:
        measure: what is compared.
        interval: of the difference, or of the ratio where the measure is compared by ratio; None without a single seed
            that has every arm.
        reason: why there is no interval, or fewer seeds than planned.
    """

    measure: Measure
    interval: Interval | None
    reason: str = ""

    @property
    def neutral(self) -> float:
        """The value that means no effect."""
        return 0.0 if self.measure.compared == "difference" else 1.0

    @property
    def direction(self) -> Literal["better", "worse", "within noise", "unknown"]:
        """What the interval says; less is better in every measure."""
        if self.interval is None or self.interval.low is None:
            return "unknown"
        if not self.interval.excludes(self.neutral):
            return "within noise"
        return "better" if self.interval.estimate < self.neutral else "worse"


def contrast(results: Results, entry: Measure, coefficients: Mapping[str, float]) -> Effect:
    """Σ c_a y_a over paired seeds, as an `Effect`.

    Args:
        results: of a study record.
        entry: the measure y.
        coefficients: arm → c_a; they sum to 0.
    """
    per_arm = {arm: _by_seed(results, entry, arm) for arm in coefficients}
    seeds = sorted(set.intersection(*(set(values) for values in per_arm.values())))
    planned = {int(run["seed"]) for run in results["runs"] if run["arm"] in coefficients}
    missing = _missing(per_arm, planned)
    if not seeds:
        return Effect(entry, None, missing)
    sums = [math.fsum(c * per_arm[arm][seed] for arm, c in coefficients.items()) for seed in seeds]
    return Effect(entry, _in_unit(mean_interval(sums), entry), missing)


def _by_seed(results: Results, entry: Measure, arm: str) -> dict[int, float]:
    values = {}
    for run in completed(results, arm):
        value = value_of(results, run, entry)
        if value is not None and (entry.compared == "difference" or value > 0):
            values[int(run["seed"])] = math.log(value) if entry.compared == "ratio" else value
    return values


def _missing(per_arm: Mapping[str, Mapping[int, float]], planned: set[int]) -> str:
    lost = {arm: len(planned - set(values)) for arm, values in per_arm.items()}
    return "; ".join(
        f"{arm}: {count} of {len(planned)} seeds without a value"
        for arm, count in lost.items()
        if count
    )


def _in_unit(interval: Interval, entry: Measure) -> Interval:
    if entry.compared == "difference":
        return interval
    low, high = interval.low, interval.high
    return Interval(
        math.exp(interval.estimate),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
        interval.level,
        interval.n,
        f"{interval.method}, of logarithms",
    )


def output_effect(results: Results, entry: Measure, weighting: str) -> Effect:
    """ε-output against x₀-output at one weighting."""
    return contrast(results, entry, {f"eps/{weighting}": 1.0, f"x0/{weighting}": -1.0})


def main_effects(results: Results, entry: Measure) -> tuple[Effect, Effect, Effect]:
    """Output effect and weighting effect, each averaged over the other factor, and their interaction."""
    corners = ("eps/simple", "eps/simple_x0", "x0/simple", "x0/simple_x0")
    rows = ((0.5, 0.5, -0.5, -0.5), (0.5, -0.5, 0.5, -0.5), (1.0, -1.0, -1.0, 1.0))
    output, weighting, interaction = (
        contrast(results, entry, dict(zip(corners, row, strict=True))) for row in rows
    )
    return output, weighting, interaction


def diagonal_effect(results: Results, entry: Measure) -> Effect:
    """What is usually compared: ε with its own mean square against x₀ with its own."""
    return contrast(results, entry, {"eps/simple": 1.0, "x0/simple_x0": -1.0})


def arm_interval(results: Results, entry: Measure, arm: str) -> Interval | None:
    """Mean of a measure over an arm's seeds (of logarithms where it is compared by ratio); None without values."""
    values = list(_by_seed(results, entry, arm).values())
    return _in_unit(mean_interval(values), entry) if values else None


def reached(results: Results, entry: Measure, arm: str) -> tuple[int, int]:
    """On how many of an arm's seeds the measure has a value, and how many seeds there are."""
    runs = completed(results, arm)
    return sum(value_of(results, run, entry) is not None for run in runs), len(runs)


def has_factorial(results: Results) -> bool:
    """Whether all four arms of the 2 × 2 design were run."""
    names = {arm["name"] for arm in results["arms"]}
    return {f"{o}/{w}" for o in ("eps", "x0") for w in ("simple", "simple_x0")} <= names
