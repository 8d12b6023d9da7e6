"""One run: train an arm on a seed, judge it along the way, and at the end by every yardstick.

A run is a function of (design, data, arm, seed, learning rate, device): no other run and no other process has an influence on it, so
that runs may be spread over processes in any order.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.data import DataSet, load
from bench.measure.study.design import Arm, Design
from bench.measure.study.stability import Series, stability
from bench.measure.study.yardsticks import (
    Probe,
    even_in_log_snr,
    even_in_t,
    make_probe,
    own_objective,
    x0_errors,
)
from bench.metrics.frechet import Pca, measure, to_uint8
from bench.record.pictures import encode
from ddpm_ref.config import TrainConfig
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import Schedule
from ddpm_ref.trainer import Step, train

_PROBE_LEVELS = 28
_SAMPLE_SEED, _BOUND_SEED = 555, 777
_CURVE_BINS = 60
_SAMPLE_BATCH = 500


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        kind: `tune` (judge a learning rate) or `run` (a full run).
        arm: what is trained.
        seed: of everything random.
        rate: learning rate.
    """

    kind: Literal["tune", "run"]
    arm: Arm
    seed: int
    rate: float

    @property
    def label(self) -> str:
        """For progress and error messages."""
        what = "tuning " if self.kind == "tune" else ""
        return f"{what}{self.arm.name}, seed {self.seed}, rate {self.rate:g}"


@dataclass(frozen=True)
class Setting:
    """Where and on what tasks are run; picklable.

    Attributes:
        design: the study.
        data: name of the data set.
        data_dir: its directory, or None.
        device: where to train.
        provider: of the noise.
    """

    design: Design
    data: str
    data_dir: str | None = None
    device: str = "cpu"
    provider: str = "auto"


@dataclass(frozen=True, eq=False)
class Bench:
    """What all runs of one process share: data, schedule, noisy images, feature map."""

    data: DataSet
    schedule: Schedule
    along: Probe
    final: Probe
    tuning: Probe
    features: Pca


@lru_cache(maxsize=1)
def _loaded(name: str, directory: str | None) -> DataSet:
    return load(name, None if directory is None else Path(directory))


_BENCHES: dict[str, Bench] = {}


def shared_bench(setting: Setting) -> Bench:
    """The `Bench` of a setting, made once per process."""
    key = repr(setting)
    if key not in _BENCHES:
        _BENCHES.clear()
        _BENCHES[key] = _make_bench(setting)
    return _BENCHES[key]


def _make_bench(setting: Setting) -> Bench:
    design, data = setting.design, _loaded(setting.data, setting.data_dir)
    arm = design.arms[0]
    schedule = _config(setting, Task("run", arm, 0, 1e-3)).make_schedule()
    heldout = data.heldout.to(setting.device)
    bins = even_in_log_snr(schedule, design.bins)
    return Bench(
        data=data,
        schedule=schedule,
        along=make_probe(heldout[: design.probe_images], schedule, bins),
        final=make_probe(heldout[: design.final_images], schedule, bins),
        tuning=make_probe(
            data.tune.to(setting.device), schedule, even_in_t(schedule, _PROBE_LEVELS)
        ),
        features=Pca(data.train),
    )


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


def linear_floor(setting: Setting) -> dict[str, list[float]]:
    """Errors of the best linear denoiser on the same noisy images: the threshold that no arm set."""
    shared = shared_bench(setting)
    oracle = GaussianOracle.fit(shared.data.train).model(shared.schedule, "eps")
    return {
        "along": shared.along.eps_errors(oracle, "eps"),
        "final": shared.final.eps_errors(oracle, "eps"),
    }


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


def _tune(setting: Setting, task: Task, stopped: Callable[[], bool]) -> dict[str, Any]:
    shared = shared_bench(setting)
    last = _last_step(setting, task, stopped)
    value = math.nan
    if last is not None and not last.diverged:
        errors = shared.tuning.eps_errors(last.ema, task.arm.output)
        value = own_objective(errors, shared.tuning, task.arm.weighting)
    return {
        **_identity(task),
        "objective": value if math.isfinite(value) else None,
        "reason": "" if math.isfinite(value) else "diverged",
    }


def _last_step(setting: Setting, task: Task, stopped: Callable[[], bool]) -> Step | None:
    last = None
    for step in train(_config(setting, task), shared_bench(setting).data.train):
        last = step
        if stopped():
            return None
    return last


def _identity(task: Task) -> dict[str, Any]:
    return {"arm": task.arm.name, "seed": task.seed, "rate": task.rate}


def _run(setting: Setting, task: Task, stopped: Callable[[], bool]) -> dict[str, Any]:
    shared, design = shared_bench(setting), setting.design
    due = set(design.evaluation_steps())
    series = Series()
    points: list[tuple[int, list[float]]] = []
    began, judging = time.perf_counter(), 0.0
    last = None
    for step in train(_config(setting, task), shared.data.train):
        last = step
        series.add(step)
        if stopped():
            return {**_identity(task), "stopped": True}
        if step.step in due and not step.diverged:
            before = time.perf_counter()
            points.append((step.step, shared.along.eps_errors(step.ema, task.arm.output)))
            judging += time.perf_counter() - before
    assert last is not None  # a run has at least one step
    trained = time.perf_counter() - began - judging
    return {
        **_identity(task),
        "parameters": sum(p.numel() for p in last.ema.parameters()),
        "training_seconds": round(trained, 3),
        "diverged_at": last.step if last.diverged else None,
        "curve": series.curve(_CURVE_BINS),
        "stability": stability(series),
        "points": _points(points, shared.along),
        **_judged(setting, task, last),
    }


def _points(points: list[tuple[int, list[float]]], probe: Probe) -> dict[str, list[float]]:
    """Mean ε-MSE and mean x_0-MSE over log-SNR along the run; diverging values end the list."""
    finite = [(step, errors) for step, errors in points if all(map(math.isfinite, errors))]
    return {
        "steps": [step for step, _ in finite],
        "eps_mse": [_mean(errors) for _, errors in finite],
        "x0_mse": [_mean(x0_errors(errors, probe.schedule, probe.steps)) for _, errors in finite],
    }


def _judged(setting: Setting, task: Task, last: Step) -> dict[str, Any]:
    """Every yardstick at the end of a run; None with a reason where the run has nothing to judge."""
    shared = shared_bench(setting)
    if last.diverged:
        return {"final": None, "reason": f"diverged at step {last.step}"}
    errors = shared.final.eps_errors(last.ema, task.arm.output)
    if not all(map(math.isfinite, errors)):
        return {"final": None, "reason": "predictions are not finite"}
    images = _samples(setting, task, last.ema)
    if not bool(torch.isfinite(images).all()):
        return {"final": None, "reason": "samples are not finite"}
    x0 = x0_errors(errors, shared.final.schedule, shared.final.steps)
    heldout = shared.data.heldout[: len(images)]
    return {
        "final": {
            "eps_mse": _mean(errors),
            "x0_mse": _mean(x0),
            "eps_mse_by_bin": errors,
            "x0_mse_by_bin": x0,
            "fd": measure(shared.features, heldout, images),
            "bound": _bound(setting, task, last.ema),
        },
        "grid": encode(to_uint8(images[: setting.design.grid])),
        "reason": "",
    }


def _samples(setting: Setting, task: Task, model: nn.Module) -> Tensor:
    """Generated images on the CPU; the sampler's noise is the same for every arm and seed."""
    shared, design = shared_bench(setting), setting.design
    count = min(design.samples, len(shared.data.heldout))
    parts = []
    for first in range(0, count, _SAMPLE_BATCH):
        part = sample(
            model,
            (min(_SAMPLE_BATCH, count - first), *shared.data.shape),
            shared.schedule,
            parameterization=task.arm.output,
            steps=min(design.sampler_steps, design.T),
            clip=True,
            seed=_SAMPLE_SEED,
            first_index=first,
        )
        parts.append(part.cpu())
    return torch.cat(parts)


def _bound(setting: Setting, task: Task, model: nn.Module) -> dict[str, Any]:
    """bits/dim on held-out images from a fixed number of network evaluations."""
    shared, design = shared_bench(setting), setting.design
    images = shared.data.heldout[: design.bound_images].to(setting.device)
    estimate = estimate_elbo(
        model,
        images,
        shared.schedule,
        evaluations=design.bound_evaluations,
        parameterization=task.arm.output,
        decoder=shared.data.decoder,
        levels=shared.data.levels,
        seed=_BOUND_SEED,
    )
    bits = 1 / (estimate.dims * math.log(2))
    return {
        "bits_per_dim": estimate.bits_per_dim,
        "stderr": estimate.stderr,
        "evaluations": estimate.evaluations,
        "prior": estimate.prior * bits,
        "diffusion": estimate.diffusion[0] * bits,
        "reconstruction": estimate.reconstruction[0] * bits,
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def setting_protocol(setting: Setting) -> dict[str, Any]:
    """The part of a record's protocol that a setting decides."""
    return {
        **setting.design.protocol(),
        "device": setting.device,
        "provider": setting.provider,
    }
