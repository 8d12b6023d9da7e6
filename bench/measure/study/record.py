"""A whole study, from tuning to the record; or a shard of it, which `bench.record.study.merged` puts together with the others."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from bench.measure.study.design import Arm
from bench.measure.study.judge import Judge, judge_of, loaded
from bench.measure.study.least import least_loss
from bench.measure.study.predictions import predictions
from bench.measure.study.processes import (
    Result,
    chosen_rates,
    duplicates,
    one_processor_a_seed,
    run_tasks,
    study_tasks,
    tuning_tasks,
)
from bench.measure.study.store import Store
from bench.measure.study.task import Setting, sources_hash
from bench.measure.study.worker import default_workers
from bench.metrics.features import (
    LEAST_SHARE,
    control_images,
    distance,
    extracted,
    feature,
    noise_images,
    weights_hash,
)
from bench.metrics.frechet import distance_name, statistics_key, to_uint8
from bench.record import Record, new_record
from bench.record.pictures import encode
from bench.record.study import merge_samples
from ddpm_ref.oracle import GaussianOracle

_SETS = 8
"""Disjoint sets of training images for the floor, at most."""
_PICTURES = ("grid", "nearest", "trajectory")
"""What a record holds of the first seed only."""


@dataclass(frozen=True)
class Shard:
    """Part `index` (1 …) of `count`: the seeds index, index + count, … of a study, `offset` of them later.

    Whole seeds, so that pairs stay whole; learning rates are chosen in every shard anew, from the same bits.
    """

    index: int = 1
    count: int = 1
    offset: int = 0

    def seeds(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds of this part."""
        wanted = (self.index - 1 + self.offset) % self.count
        return tuple(seed for place, seed in enumerate(seeds) if place % self.count == wanted)


@dataclass(frozen=True)
class Means:
    """With what a study is run; none of it has an influence on the results.

    Attributes:
        workers: processes of our own; None: one a core, four at most (one on an accelerator).
        executor: runs the tasks instead of our own processes.
        store: finished runs are found and kept there.
        shard: the part to do.
        limit: seconds after which a single task is stopped.
        finished: called with each new finished run.
    """

    workers: int | None = None
    executor: Executor | None = None
    store: Store | None = None
    shard: Shard = Shard()
    limit: float | None = None
    finished: Callable[[Result], None] = lambda result: None


def planned(setting: Setting) -> Setting:
    """The setting with the hash of its data, which every worker compares."""
    return replace(setting, data_sha256=loaded(setting.data, setting.data_dir).sha256)


def run_study(setting: Setting, *, command: str, means: Means | None = None) -> Record:
    """Tune, train every arm on every seed, judge, and put it into one record of kind `study`.

    Args:
        setting: design, data, device.
        command: what reproduces the study, for the record.
        means: processes, executor, store, shard.
    """
    means = Means() if means is None else means
    setting = planned(setting)
    workers = default_workers(setting.device) if means.workers is None else means.workers
    tuning = tuning_tasks(setting)
    tuned = run_tasks(
        setting,
        tuning,
        workers=workers,
        executor=means.executor,
        store=means.store,
        limit=means.limit,
        label="learning rates",
    )
    rates = chosen_rates(setting, tuned)
    tasks = study_tasks(setting, rates, means.shard.seeds(setting.design.seeds))
    runs = run_tasks(
        setting,
        tasks,
        workers=workers,
        executor=means.executor,
        store=means.store,
        limit=means.limit,
        label="training",
        finished=means.finished,
    )
    runs, again = one_processor_a_seed(
        setting, tasks, runs, executor=means.executor, store=means.store, limit=means.limit
    )
    checked = duplicates(
        setting,
        [*tuning, *tasks],
        [*tuned, *runs],
        executor=means.executor,
        store=means.store,
    )
    execution = {
        "sources": sources_hash(),
        "run_again_for_one_processor": again,
        "duplicates": checked,
        "reused": 0 if means.store is None else means.store.reused,
        "stale": [] if means.store is None else means.store.stale[:20],
    }
    results = {**_results(setting, tuned, rates, runs), "execution": [execution]}
    return _record(setting, command, means.shard, results)


def _results(
    setting: Setting, tuned: Sequence[Result], rates: Mapping[Arm, float], runs: Sequence[Result]
) -> dict[str, Any]:
    design, judge = setting.design, judge_of(setting)
    return {
        "arms": [
            {
                "name": arm.name,
                "output": arm.output,
                "weighting": arm.weighting,
                "network": arm.variant or design.network,
                "rate": rates[arm],
                "tuning": [result for result in tuned if result["arm"] == arm.name],
            }
            for arm in design.arms
        ],
        "runs": [_with_pictures_of_the_first_seed(setting, run) for run in runs],
        "log_snr": judge.probe("final", design.arms[0]).log_snr,
        "predictions": predictions(judge),
        **_yardsticks(judge),
    }


def _with_pictures_of_the_first_seed(setting: Setting, run: Result) -> Result:
    if run["seed"] == setting.design.seeds[0]:
        return run
    return {name: value for name, value in run.items() if name not in _PICTURES}


def _yardsticks(judge: Judge) -> dict[str, Any]:
    """What the figures are held against: the best linear denoiser and the floor of the distance, or the floors of the truth."""
    samples = min(judge.setting.design.samples, len(judge.data.heldout))
    if judge.truth is not None:
        return {"truth": {"samples": samples, "floor": judge.truth.floor(samples)}}
    published = {row.name: row.published for row in map(feature, judge.setting.design.features)}
    rows = {name: _distance(judge, name, samples, published[name]) for name in judge.features}
    primary = next(iter(rows.values()))
    pictures = {
        "real": judge.data.heldout[: judge.setting.design.grid],
        "control": control_images(judge.data.train, max(judge.setting.design.grid, 1)),
    }
    return {
        "linear": _linear_floor(judge),
        "least": least_loss(judge, judge.setting.design.arms[0]),
        "distance": primary,
        "distances": rows,
        "pictures": {name: encode(to_uint8(images)) for name, images in pictures.items()},
    }


def _distance(judge: Judge, name: str, samples: int, published: bool) -> dict[str, Any]:
    """One feature map: its name with weights, floor, control and noise at the same N, and whether it may be primary."""
    data, module = judge.data, judge.features[name]
    sets = [part for part in data.train.split(samples) if len(part) == samples]

    def fd(images: Tensor) -> float:
        return distance(judge.heldout_features(name, len(images)), extracted(module, images))

    floors = [fd(part) for part in sets[:_SETS]]
    control, noise = (fd(make(data.train, samples)) for make in (control_images, noise_images))
    least = sum(floors) / len(floors) if floors else 0.0
    share = (control - least) / (noise - least)
    return {
        "name": distance_name(name, samples, published=published),
        "samples": samples,
        "floor": floors,
        "control": control,
        "noise": noise,
        "share_of_control": share,
        "may_be_primary": share >= LEAST_SHARE,
        "weights": weights_hash(module)[:16],
        "key": statistics_key(name, module, data.heldout[:samples]),
    }


def _linear_floor(judge: Judge) -> dict[str, list[float]]:
    """Errors of the best linear denoiser on the same noisy images: the threshold that no arm set."""
    arm = judge.setting.design.arms[0]
    oracle = GaussianOracle.fit(judge.data.train).model(judge.schedule(arm), "eps")
    return {
        which: judge.probe(which, arm).eps_errors(oracle, "eps") for which in ("along", "final")
    }


def _record(setting: Setting, command: str, shard: Shard, results: Mapping[str, Any]) -> Record:
    judge = judge_of(setting)
    part = {"shard": f"{shard.index}/{shard.count}"} if shard.count > 1 else {}
    return new_record(
        "study",
        protocol={
            "study": setting.study,
            **setting.design.protocol(),
            "device": setting.device,
            "provider": setting.provider,
            "command": command,
            **part,
        },
        data=judge.data.describe(),
        seeds=shard.seeds(setting.design.seeds),
        samples=merge_samples(results),
        results=results,
    )
