"""A whole study, from tuning to the record."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure.study.design import Arm
from bench.measure.study.one_run import Setting, linear_floor, setting_protocol, shared_bench
from bench.measure.study.processes import (
    Result,
    chosen_rates,
    default_workers,
    run_tasks,
    study_tasks,
    tuning_tasks,
)
from bench.metrics.frechet import distance_name, floor, statistics_key
from bench.record import Record, new_record, series
from bench.record.study import MEASURES, completed, value_of

FEATURES = "pca64"


def run_study(
    setting: Setting,
    *,
    command: str,
    workers: int | None = None,
    keep: Path | None = None,
    finished: Callable[[Result], None] = lambda result: None,
) -> Record:
    """Tune, train every arm on every seed, judge, and put it into one record of kind `study`.

    Args:
        setting: design, data, device.
        command: what reproduces the study, for the record.
        workers: processes; None: one a core, four at most (one on an accelerator). No influence on the results.
        keep: directory in which each finished run is kept at once, so that an interruption loses only running ones.
        finished: called with each finished run.
    """
    count = default_workers(setting.device) if workers is None else workers

    def arrived(result: Result) -> None:
        if keep is not None:
            _keep(result, keep)
        finished(result)

    tuned = run_tasks(setting, tuning_tasks(setting), workers=count, label="learning rates")
    rates = chosen_rates(setting, tuned)
    tasks = study_tasks(setting, rates)
    runs = run_tasks(setting, tasks, workers=count, label="training", finished=arrived)
    return _record(setting, command, _results(setting, tuned, rates, runs))


def _keep(result: Result, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{result['arm']}-seed{result['seed']}".replace("/", "-").replace(" ", "")
    (directory / f"{name}.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


def _results(
    setting: Setting, tuned: Sequence[Result], rates: Mapping[Arm, float], runs: Sequence[Result]
) -> dict[str, Any]:
    design, shared = setting.design, shared_bench(setting)
    samples = min(design.samples, len(shared.data.heldout))
    return {
        "arms": [
            {
                "name": arm.name,
                "output": arm.output,
                "weighting": arm.weighting,
                "network": arm.network,
                "rate": rates[arm],
                "tuning": [result for result in tuned if result["arm"] == arm.name],
            }
            for arm in design.arms
        ],
        "runs": list(runs),
        "log_snr": shared.final.log_snr,
        "linear": linear_floor(setting),
        "distance": {
            "name": distance_name(FEATURES, samples),
            "samples": samples,
            "floor": floor(shared.features, shared.data.train, shared.data.heldout, samples),
            "key": statistics_key(FEATURES, shared.features, shared.data.heldout[:samples]),
        },
    }


def _record(setting: Setting, command: str, results: Mapping[str, Any]) -> Record:
    shared = shared_bench(setting)
    return new_record(
        "study",
        protocol={**setting_protocol(setting), "command": command},
        data=shared.data.describe(),
        seeds=setting.design.seeds,
        samples=_samples(results),
        results=results,
    )


def _samples(results: Mapping[str, Any]) -> dict[str, Any]:
    """One series per arm and measure, labelled by seed: what a later comparison tests."""
    found = {}
    for arm in results["arms"]:
        runs = completed(results, arm["name"])
        for measure in MEASURES:
            pairs = [(run["seed"], value_of(results, run, measure)) for run in runs]
            usable = [(seed, value) for seed, value in pairs if value is not None]
            if usable:
                found[f"{arm['name']} {measure.key}"] = series(
                    [value for _, value in usable],
                    unit=measure.unit,
                    better="lower",
                    pairs=[seed for seed, _ in usable],
                )
    return found
