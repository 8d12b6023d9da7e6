"""What a measure of the study is: its name, how it is compared, and a run's value of it; and how shards become one study.

Nothing here needs torch: the study computes its series with it, and the report its intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.record.record import Record, series
from bench.terminal.usage import UsageError

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
        question: which claim it speaks to: easier, faster or stabler; `truth`: of vectors whose distribution is known.
    """

    key: str
    label: str
    unit: str
    compared: Literal["difference", "ratio"]
    question: Literal["easier", "faster", "stabler", "truth"]


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

_TRUTHS = (
    Measure("excess", "excess over the exact denoiser", "x₀²", "ratio", "truth"),
    Measure("excess_v", "excess over the exact denoiser, in v", "v²", "ratio", "truth"),
    Measure("off_plane", "energy off the data's plane", "x₀²", "ratio", "truth"),
    Measure("energy_distance", "energy distance in the plane", "x₀", "difference", "truth"),
    Measure("told_apart", "accuracy of a two-sample classifier", "1", "difference", "truth"),
)
"""The yardsticks of vectors whose distribution is known."""

_SWEPT = "fd_at_"
_THRESHOLDS = {"steps_to_linear": "eps_mse", "steps_to_linear_x0": "x0_mse"}


def measure(key: str) -> Measure:
    """The measure of that key."""
    if key.startswith(_SWEPT):
        steps = key.removeprefix(_SWEPT)
        return Measure(key, f"Fréchet distance at {steps} sampler steps", "1", "ratio", "easier")
    return next(entry for entry in (*MEASURES, *_TRUTHS) if entry.key == key)


def label_of(results: Results, entry: Measure) -> str:
    """A measure's name in this study: the Fréchet distance is called by its feature map."""
    named = results.get("distance", {}).get("name")
    return str(named) if entry.key == "fd" and named else entry.label


def floor_of(about: Mapping[str, Any]) -> float | None:
    """The mean distance between real images; None where there were too few of them to have one."""
    floors = about.get("floor") or []
    return math.fsum(floors) / len(floors) if floors else None


def primary_measures(results: Results) -> tuple[Measure, ...]:
    """What decides: the likelihood, and the Fréchet distance where its feature map tells data from the Gaussian with their covariance."""
    judges = results.get("distance", {}).get("may_be_primary", True)
    return tuple(measure(key) for key in (("bits_per_dim", "fd") if judges else ("bits_per_dim",)))


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
        if "linear" not in results:
            return None
        error = _THRESHOLDS[entry.key]
        points, threshold = run["points"], linear_errors(results, "along")[error]
        return steps_to_reach(points["steps"], points[error], threshold)
    final = run["final"]
    if final is None:
        return None
    place = final.get("bound", {}) if entry.key == "bits_per_dim" else final
    return _optional(place.get(entry.key))


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


def merge_samples(results: Results) -> dict[str, Any]:
    """One series per arm and measure, labelled by seed: what a later comparison tests."""
    found = {}
    for arm in results["arms"]:
        runs = completed(results, arm["name"])
        for entry in (*MEASURES, *_TRUTHS):
            pairs = [(run["seed"], value_of(results, run, entry)) for run in runs]
            usable = [(seed, value) for seed, value in pairs if value is not None]
            if usable:
                found[f"{arm['name']} {entry.key}"] = series(
                    [value for _, value in usable],
                    unit=entry.unit,
                    better="lower",
                    pairs=[seed for seed, _ in usable],
                )
    return found


_OF_A_SHARD = ("shard", "command")


def merged(records: Sequence[Record]) -> list[Record]:
    """The records with the shards of one study made into one record each; all others as they are, in order, a copy given twice once.

    Shards belong together where protocol, data and sources agree. A merged record's runs are ordered as one run of the study
    would order them, and equal its results but for the clock.

    Raises:
        UsageError: two shards hold the same seed, or chose different learning rates.
    """
    groups: dict[str, list[Record]] = {}
    for record in {record.name: record for record in records}.values():
        own = record.kind != "study" or "shard" not in record.protocol
        groups.setdefault(record.name if own else _study_of(record), []).append(record)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups.values()]


def _study_of(record: Record) -> str:
    protocol = {k: v for k, v in record.protocol.items() if k not in _OF_A_SHARD}
    sources = record.results["execution"][0]["sources"]
    return repr((sorted(protocol.items()), (record.data or {}).get("sha256"), sources))


def _joined(shards: Sequence[Record]) -> Record:
    first = min(shards, key=lambda shard: min(shard.seeds))
    seeds = sorted(seed for shard in shards for seed in shard.seeds)
    if len(set(seeds)) < len(seeds):
        raise UsageError(
            f"two shards of one study hold the same seed ({seeds}): give each shard once"
        )
    rates = {tuple((a["name"], a["rate"]) for a in shard.results["arms"]) for shard in shards}
    if len(rates) > 1:
        raise UsageError(
            "shards of one study chose different learning rates, so that their arms differ: run them on one processor type"
        )
    order = {arm["name"]: place for place, arm in enumerate(first.results["arms"])}
    planned = list(first.protocol["seeds"])
    runs = sorted(
        (run for shard in shards for run in shard.results["runs"]),
        key=lambda run: (planned.index(run["seed"]), order[run["arm"]]),
    )
    execution = [entry for shard in shards for entry in shard.results["execution"]]
    results = {**first.results, "runs": runs, "execution": execution}
    protocol = {k: v for k, v in first.protocol.items() if k != "shard"}
    return replace(
        first,
        protocol=protocol,
        seeds=tuple(seed for seed in planned if seed in seeds),
        samples=merge_samples(results),
        results=results,
    )
