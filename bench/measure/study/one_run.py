"""One run: train an arm on a seed, judge it along the way, and at the end by every yardstick.

A run is a function of its key (`task`): no other run and no other process has an influence on it, so that runs may be spread over
processes and machines in any order.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from bench.measure.study.judge import judge_of, mean
from bench.measure.study.stability import Series, stability
from bench.measure.study.task import Setting, Task
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import Step, train

_CURVE_BINS = 60
Result = dict[str, Any]


def perform(
    setting: Setting, task: Task, stopped: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """The result of one task, JSON values only.

    Args:
        setting: design, data, device.
        task: what to run.
        stopped: asked after every optimizer step; True ends the run early and marks it `stopped`.
    """
    return _tune(setting, task, stopped) if task.kind == "tune" else _run(setting, task, stopped)


def _config(setting: Setting, task: Task) -> TrainConfig:
    design = setting.design
    return design.config(
        task.arm,
        seed=task.seed,
        rate=task.rate,
        steps=design.steps if task.kind == "run" else design.tuning_steps,
        device=setting.device,
        provider=setting.provider,
    )


def _tune(setting: Setting, task: Task, stopped: Callable[[], bool]) -> Result:
    last: Step | None = None
    for step in train(_config(setting, task), judge_of(setting).data.train):
        last = step
        if stopped():
            return {**_identity(task), "stopped": True}
    value = math.nan
    if last is not None and not last.diverged:
        value = judge_of(setting).objective(last.ema, task.arm)
    finite = math.isfinite(value)
    return {
        **_identity(task),
        "objective": value if finite else None,
        "reason": "" if finite else "diverged",
    }


def _identity(task: Task) -> Result:
    return {"arm": task.arm.name, "seed": task.seed, "rate": task.rate}


def _run(setting: Setting, task: Task, stopped: Callable[[], bool]) -> Result:
    judge, design = judge_of(setting), setting.design
    due = set(design.evaluation_steps()) if design.points else set()
    series = Series()
    points: list[tuple[int, list[float]]] = []
    began, judging = time.perf_counter(), 0.0
    last = None
    for step in train(_config(setting, task), judge.data.train):
        last = step
        series.add(step)
        if stopped():
            return {**_identity(task), "stopped": True}
        if step.step in due and not step.diverged:
            before = time.perf_counter()
            points.append((step.step, judge.along(step.ema, task.arm)))
            judging += time.perf_counter() - before
    assert last is not None  # a run has at least one step
    trained = time.perf_counter() - began - judging
    judged = (
        {"final": None, "reason": f"diverged at step {last.step}"}
        if last.diverged
        else judge.final(last.ema, task.arm)
    )
    return {
        **_identity(task),
        "parameters": sum(p.numel() for p in last.ema.parameters()),
        "training_seconds": round(trained, 3),
        "diverged_at": last.step if last.diverged else None,
        "curve": series.curve(_CURVE_BINS),
        "stability": stability(series),
        "points": _points(setting, task, points),
        **judged,
    }


def _points(
    setting: Setting, task: Task, points: list[tuple[int, list[float]]]
) -> dict[str, list[float]]:
    """Mean ε-MSE and mean x_0-MSE over log-SNR along the run; diverging values end the list."""
    judge = judge_of(setting)
    finite = [(step, errors) for step, errors in points if all(map(math.isfinite, errors))]
    return {
        "steps": [step for step, _ in finite],
        "eps_mse": [mean(errors) for _, errors in finite],
        "x0_mse": [judge.x0_mse(errors, "along", task.arm) for _, errors in finite],
    }
