"""By what a trained arm is judged: the same noisy data and the same distances for every arm.

`images`: errors by log-SNR, bits/dim, a Fréchet distance between samples and held-out images.
`vectors`: errors by log-SNR and, where the data's distribution is known, the excess over the exact denoiser and the samples' distance
from the truth (`vectors`).

An arm with a schedule of its own is judged at its own steps, the nearest to the common log-SNR bins.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import DataSet, load
from bench.measure.study.design import Arm
from bench.measure.study.task import Setting
from bench.measure.study.trajectory import trajectories
from bench.measure.study.vectors import Truth, truth_of
from bench.measure.study.yardsticks import (
    Probe,
    even_in_log_snr,
    even_in_t,
    make_probe,
    own_objective,
    x0_errors,
)
from bench.metrics.features import (
    distance,
    extracted,
    extrapolated,
    feature,
    kernel_distance,
    nearest,
)
from bench.metrics.frechet import to_uint8
from bench.record.pictures import encode
from ddpm_ref.config import TrainConfig
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import Schedule

_PROBE_LEVELS = 28
_SAMPLE_SEED, _BOUND_SEED = 555, 777
_SAMPLE_BATCH = 500
Verdict = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Judge:
    """What all runs of one process share: data, noisy data, feature map.

    Attributes:
        setting: design, data, device.
        data: the data set, its content compared with the setting's.
        features: name → feature map of the Fréchet distances; none for vectors.
        truth: what is known about the distribution of vectors; None for images.
    """

    setting: Setting
    data: DataSet
    features: Mapping[str, nn.Module]
    truth: Truth | None

    @lru_cache(maxsize=8)  # noqa: B019  # one judge a process, dropped with its setting
    def schedule(self, arm: Arm) -> Schedule:
        """The schedule of an arm."""
        return self.config(arm).make_schedule()

    def config(self, arm: Arm) -> TrainConfig:
        """The arm's configuration but for seed, rate and number of steps."""
        return self.setting.design.config(
            arm, seed=0, rate=1e-3, steps=1, device=self.setting.device, provider="auto"
        )

    @lru_cache(maxsize=16)  # noqa: B019
    def probe(self, which: str, arm: Arm) -> Probe:
        """Noisy data `along` a run, at its end (`final`), or for `tuning`."""
        design, schedule = self.setting.design, self.schedule(arm)
        if which == "tuning":
            steps = even_in_t(schedule, _PROBE_LEVELS)
            return make_probe(self.data.tune.to(self.setting.device), schedule, steps)
        count = design.probe_images if which == "along" else design.final_images
        steps = even_in_log_snr(schedule, design.bins, design.judged)
        return make_probe(self.data.heldout[:count].to(self.setting.device), schedule, steps)

    def objective(self, model: nn.Module, arm: Arm) -> float:
        """The arm's own objective on the tuning data."""
        probe = self.probe("tuning", arm)
        return own_objective(probe.eps_errors(model, arm.output), probe, arm.weighting)

    def along(self, model: nn.Module, arm: Arm) -> list[float]:
        """ε-MSE by log-SNR along a run."""
        return self.probe("along", arm).eps_errors(model, arm.output)

    def x0_mse(self, errors: list[float], which: str, arm: Arm) -> float:
        """Mean x_0-MSE over log-SNR from ε-errors by log-SNR."""
        probe = self.probe(which, arm)
        return mean(x0_errors(errors, probe.schedule, probe.steps))

    def final(self, model: nn.Module, arm: Arm) -> Verdict:
        """Every yardstick at the end of a run, and some samples; `final` is None, with a reason, where there is nothing to judge."""
        if not self.covered(arm):
            return self._judged({}, {}, model, arm)
        probe = self.probe("final", arm)
        errors = probe.eps_errors(model, arm.output)
        if not all(map(math.isfinite, errors)):
            return {"final": None, "reason": "predictions are not finite"}
        x0 = x0_errors(errors, probe.schedule, probe.steps)
        values = {
            "eps_mse": mean(errors),
            "x0_mse": mean(x0),
            "eps_mse_by_bin": errors,
            "x0_mse_by_bin": x0,
        }
        if self.truth is not None and self.data.oracle is not None:
            values |= self.truth.denoising(model, arm.output, probe)
        return self._judged(values, {}, model, arm)

    def covered(self, arm: Arm) -> bool:
        """Whether the arm's schedule spans the judged range; else its errors cannot be held beside those of others."""
        table, judged = self.schedule(arm).log_snr[1:], self.setting.design.judged
        return judged is None or bool(table[0] >= judged[0] and table[-1] <= judged[1])

    def _judged(self, values: Verdict, shown: Verdict, model: nn.Module, arm: Arm) -> Verdict:
        """The verdict with bits/dim and what the samples tell."""
        if self.setting.design.bound_images:
            values["bound"] = self._bound(model, arm)
        if self.setting.design.samples:
            drawn = self._samples(model, arm)
            if not bool(torch.isfinite(drawn).all()):
                return {"final": None, "reason": "samples are not finite"}
            values |= self._distances(drawn)
            values |= self._sweep(model, arm)
            if self.features:
                grid = drawn[: self.setting.design.grid]
                copies = self.data.train[nearest(grid, self.data.train)]
                shown = {
                    "grid": encode(to_uint8(grid)),
                    "nearest": encode(to_uint8(copies)),
                    "trajectory": self._trajectory(model, arm),
                }
        return {"final": values, **shown, "reason": ""}

    def _sweep(self, model: nn.Module, arm: Arm) -> Verdict:
        """The primary distance at other numbers of sampler steps: `fd_at_5`, ….; None where samples are not finite."""
        found: Verdict = {}
        for steps in self.setting.design.sweep:
            drawn = self._samples(model, arm, steps)
            finite = bool(torch.isfinite(drawn).all())
            found[f"fd_at_{steps}"] = self._distances(drawn)["fd"] if finite else None
        return found

    def _distances(self, drawn: Tensor) -> Verdict:
        if self.truth is not None:
            return self.truth.sampling(drawn)
        found = self.distances_of(drawn)
        primary = next(iter(self.features), "")
        return {"fd": found[primary]["fd"], "distances": found} if found else {}

    @lru_cache(maxsize=4)  # noqa: B019
    def heldout_features(self, name: str, count: int) -> Tensor:
        """Features of the first held-out images."""
        return extracted(self.features[name], self.data.heldout[:count])

    def distances_of(self, images: Tensor) -> dict[str, dict[str, Any]]:
        """Feature map → Fréchet distance, its limit for many samples, and kernel distance between images and as many held-out ones."""
        found = {}
        for name, module in self.features.items():
            pair = self.heldout_features(name, len(images)), extracted(module, images)
            found[name] = {
                "fd": distance(*pair),
                "fd_infinity": extrapolated(*pair),
                "kid": kernel_distance(*pair),
            }
        return found

    def _trajectory(self, model: nn.Module, arm: Arm) -> dict[str, Any]:
        """x̂_0 on the way to the first samples of `_samples`."""
        design = self.setting.design
        return trajectories(
            model,
            self.data.shape,
            self.schedule(arm),
            output=arm.output,
            steps=min(design.sampler_steps, design.T),
            clip=self.data.levels is not None,
            seed=_SAMPLE_SEED,
            scale=design.scale,
        )

    def _samples(self, model: nn.Module, arm: Arm, steps: int | None = None) -> Tensor:
        """Generated examples on the CPU; the sampler's noise is the same for every arm and seed."""
        design = self.setting.design
        wanted = design.sampler_steps if steps is None else steps
        count = min(design.samples, len(self.data.heldout))
        parts = []
        for first in range(0, count, _SAMPLE_BATCH):
            part = sample(
                model,
                (min(_SAMPLE_BATCH, count - first), *self.data.shape),
                self.schedule(arm),
                parameterization=arm.output,
                steps=min(wanted, design.T),
                clip=self.data.levels is not None,
                seed=_SAMPLE_SEED,
                first_index=first,
            )
            parts.append(part.cpu())
        return torch.cat(parts) / design.scale

    def _bound(self, model: nn.Module, arm: Arm) -> dict[str, Any]:
        """bits/dim on held-out images from a fixed number of network evaluations."""
        design = self.setting.design
        images = self.data.heldout[: design.bound_images].to(self.setting.device)
        estimate = estimate_elbo(
            model,
            images,
            self.schedule(arm),
            evaluations=design.bound_evaluations,
            parameterization=arm.output,
            decoder=self.data.decoder,
            levels=self.data.levels,
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


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


@lru_cache(maxsize=1)
def loaded(name: str, directory: str | None) -> DataSet:
    """The data set, loaded once a process."""
    return load(name, None if directory is None else Path(directory))


def scaled(data: DataSet, factor: float) -> DataSet:
    """The data times a factor; the exact distribution of the product is not known here."""
    if factor == 1.0:
        return data
    parts = {part: factor * getattr(data, part) for part in ("train", "tune", "heldout")}
    return replace(data, **parts, oracle=None)


_JUDGES: dict[tuple[str, str], Judge] = {}


def judge_of(setting: Setting) -> Judge:
    """The `Judge` of a setting, made once per process.

    Raises:
        ValueError: the data here are not those that the study was planned with.
    """
    data = loaded(setting.data, setting.data_dir)
    if setting.data_sha256 not in ("", data.sha256):
        raise ValueError(
            f"data {setting.data!r} has the content {data.sha256[:12]} here, the study was planned with "
            f"{setting.data_sha256[:12]}: give this worker the same files"
        )
    key = (repr(setting), data.sha256)
    if key not in _JUDGES:
        _JUDGES.clear()
        vectors = setting.design.judge == "vectors"
        names = () if vectors else setting.design.features
        rows = [feature(name) for name in names]
        features = {row.name: row.setup(data.train) for row in rows}
        truth = truth_of(data) if vectors else None
        _JUDGES[key] = Judge(setting, scaled(data, setting.design.scale), features, truth)
    return _JUDGES[key]
