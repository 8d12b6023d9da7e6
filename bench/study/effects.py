r"""From runs to intervals: equations (2) of `bench.study`, over paired seeds.

A measure is compared by difference (bits/dim) or by ratio (errors, distances, steps: positive, spread over decades); ratios
are handled as differences of logarithms and turned back at the end. A contrast is a set of coefficients on
arms; its value for one seed is Σ c_a y_a, and its interval is Student's t over the seeds that have every arm.

Nothing here needs torch: the report computes it from a record.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.statistics import Interval, mean_interval

Results = Mapping[str, Any]
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A yardstick, of which less is better.

    Attributes:
        key: its name in records.
        label: its name in tables.
        unit: of its values.
        compared: by `difference` or by `ratio`.
        question: which claim it speaks to: easier, faster or stabler.
    """

    key: str
    label: str
    unit: str
    compared: Literal["difference", "ratio"]
    question: Literal["easier", "faster", "stabler"]


MEASURES = (
    Measure("bits_per_dim", "bits/dim (bound)", "bits/dim", "difference", "easier"),
    Measure("eps_mse", "ε-MSE over log-SNR", "1", "ratio", "easier"),
    Measure("x0_mse", "x₀-MSE over log-SNR", "1", "ratio", "easier"),
    Measure("fd", "Fréchet distance", "1", "ratio", "easier"),
    Measure("steps_to_linear", "steps to beat the best linear ε-MSE", "steps", "ratio", "faster"),
    Measure(
        "steps_to_linear_x0", "steps to beat the best linear x₀-MSE", "steps", "ratio", "faster"
    ),
    Measure("area", "ε-MSE along the run (geometric mean)", "1", "ratio", "faster"),
    Measure("loss_noise", "minibatch loss noise, std/mean", "1", "ratio", "stabler"),
    Measure("gradient_spread", "gradient norm spread, std of ln", "1", "ratio", "stabler"),
)
"""The yardsticks by which arms are compared."""

_THRESHOLDS = {"steps_to_linear": "eps_mse", "steps_to_linear_x0": "x0_mse"}


def measure(key: str) -> Measure:
    """The measure of that key."""
    return next(entry for entry in MEASURES if entry.key == key)


def label_of(results: Results, entry: Measure) -> str:
    """A measure's name in this study: the Fréchet distance is called by its feature map."""
    named = results.get("distance", {}).get("name")
    return str(named) if entry.key == "fd" and named else entry.label


def completed(results: Results, arm: str) -> list[Run]:
    """The runs of an arm that ended, in the order of seeds; those that failed or were stopped are left out."""
    runs = [run for run in results["runs"] if run["arm"] == arm]
    ended = [run for run in runs if "failed" not in run and not run.get("stopped")]
    return sorted(ended, key=lambda run: int(run["seed"]))


def value_of(results: Results, run: Run, entry: Measure) -> float | None:
    """A run's value of a measure; None where it diverged or never got there."""
    if run["diverged_at"] is not None:
        return None
    if entry.question == "stabler":
        return _optional(run["stability"][entry.key])
    if entry.key == "area":
        return _geometric_mean(run["points"]["eps_mse"])
    if entry.key in _THRESHOLDS:
        error = _THRESHOLDS[entry.key]
        points, threshold = run["points"], linear_errors(results, "along")[error]
        return steps_to_reach(points["steps"], points[error], threshold)
    final = run["final"]
    if final is None:
        return None
    return _optional(final["bound"][entry.key] if entry.key == "bits_per_dim" else final[entry.key])


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _geometric_mean(values: Sequence[float]) -> float | None:
    if not values or min(values) <= 0:
        return None
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def linear_errors(results: Results, which: str) -> dict[str, float]:
    """Mean ε-MSE and x₀-MSE over log-SNR of the best linear denoiser, on the images `along` the run or the `final` ones."""
    errors = results["linear"][which]
    image = [e * math.exp(-s) for e, s in zip(errors, results["log_snr"], strict=True)]
    return {"eps_mse": math.fsum(errors) / len(errors), "x0_mse": math.fsum(image) / len(image)}


def steps_to_reach(
    steps: Sequence[float], errors: Sequence[float], threshold: float
) -> float | None:
    """The training step at which the error passes the threshold for good; None if it does not.

    Between two evaluations ln(error) is interpolated linearly in ln(step).
    """
    pairs = list(zip(steps, errors, strict=True))
    above = [index for index, (_, error) in enumerate(pairs) if error > threshold]
    if not pairs or (above and above[-1] == len(pairs) - 1):
        return None
    if not above:
        return float(pairs[0][0])
    (step0, error0), (step1, error1) = pairs[above[-1]], pairs[above[-1] + 1]
    share = math.log(error0 / threshold) / math.log(error0 / error1)
    return float(step0 * (step1 / step0) ** share)


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


def weighting_effect(results: Results, entry: Measure, output: str) -> Effect:
    """`simple` against `simple_x0` at one output."""
    return contrast(results, entry, {f"{output}/simple": 1.0, f"{output}/simple_x0": -1.0})


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
