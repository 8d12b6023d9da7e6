"""What a measure of the study is: its name, how it is compared, and a run's value of it.

Nothing here needs torch: the study computes its series with it, and the report its intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Results = Mapping[str, Any]
Run = Mapping[str, Any]


SYMBOLS: Mapping[str, str] = {"eps": "ε", "x0": "x₀", "v": "v"}
"""Outputs as they are written in words and figures."""


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
