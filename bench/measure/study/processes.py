"""All runs of a study through one standard interface, `concurrent.futures.Executor`, and all arms of a seed from one processor type.

    executor=None       processes of this machine, one a core; `workers=1` is this process
    any other           `bench.measure.study.executors`: a dask cluster, or whatever PACKAGE.MODULE:MAKE makes

An executor is given functions of this package and frozen dataclasses, so that a worker needs this project installed, the data and nothing
else. A worker that dies takes its running task with it: our own pool is made again and the task repeated, dask sends it to another worker.
A result is a function of its task, so a task done twice is one result.

On Ctrl-C tasks that wait are cancelled; those that run in our own processes are ended with them, those elsewhere end at `limit`.
"""

import multiprocessing
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any

from bench.measure.study.design import Arm
from bench.measure.study.store import Store
from bench.measure.study.task import Setting, Task, key
from bench.measure.study.worker import begin, failure, work
from bench.terminal.progress import meter

Result = dict[str, Any]
_Arriving = Generator[tuple[int, Result], None, None]
_ATTEMPTS = 3
CLOCK = ("training_seconds", "worker")
"""Entries of a result that are not a function of its task."""


def run_tasks(
    setting: Setting,
    tasks: Sequence[Task],
    *,
    workers: int = 1,
    executor: Executor | None = None,
    store: Store | None = None,
    limit: float | None = None,
    label: str = "runs",
    finished: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Results in the order of the tasks, whatever order they end in.

    Args:
        setting: design, data, device.
        tasks: what to run.
        workers: processes of our own where `executor` is None; 1 runs in this one.
        executor: runs the tasks; it is not shut down.
        store: where finished runs are found and kept.
        limit: seconds after which a task is stopped.
        label: for the progress bar.
        finished: called with each new result as it arrives.
    """
    results = _found(setting, tasks, store)
    left = [index for index in range(len(tasks)) if index not in results]
    salt = store.salt() if store is not None and left else ""
    job = _Job(setting, tasks, limit, salt)
    arriving = (
        _submitted(job, left, executor)
        if executor is not None
        else _here(job, left)
        if workers == 1
        else _own_pool(job, left, workers)
    )
    with meter(total=len(left), label=label) as shown, closing(arriving):
        for index, result in arriving:
            results[index] = result
            if store is not None:
                store.keep(setting, tasks[index], result)
            finished(result)
            shown.advance(note=tasks[index].label)
    return [results[index] for index in range(len(tasks))]


class _Job:
    """Tasks, and all that a worker is told beside them."""

    def __init__(
        self, setting: Setting, tasks: Sequence[Task], limit: float | None, salt: str
    ) -> None:
        self.setting, self.tasks, self.limit, self.salt = setting, tasks, limit, salt

    def submit(self, executor: Executor, index: int) -> "Future[list[Result]]":
        return executor.submit(work, self.setting, [self.tasks[index]], self.limit, self.salt)

    def do(self, index: int) -> Result:
        return work(self.setting, [self.tasks[index]], self.limit, self.salt)[0]


def _found(setting: Setting, tasks: Sequence[Task], store: Store | None) -> dict[int, Result]:
    if store is None:
        return {}
    found = {index: store.find(setting, task) for index, task in enumerate(tasks)}
    return {index: result for index, result in found.items() if result is not None}


def _here(job: _Job, left: Sequence[int]) -> _Arriving:
    for index in left:
        yield index, job.do(index)


def _own_pool(job: _Job, left: Sequence[int], workers: int) -> _Arriving:
    """Over processes of our own; the pool is made again where one of them died."""
    waiting = list(left)
    for attempt in range(_ATTEMPTS):
        lost = []
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=begin) as pool:
            for index, result in _submitted(job, waiting, pool, ours=True):
                if result.get("lost") and attempt + 1 < _ATTEMPTS:
                    lost.append(index)
                else:
                    yield index, result
        waiting = lost
        if not waiting:
            return


def _submitted(
    job: _Job, left: Sequence[int], executor: Executor, *, ours: bool = False
) -> _Arriving:
    futures = {job.submit(executor, index): index for index in left}
    try:
        for future in as_completed(futures):
            yield futures[future], _outcome(job, futures[future], future)
    except BaseException:  # Ctrl-C, or the caller has left: nothing that runs will be asked for
        for future in futures:
            future.cancel()
        if ours:
            for process in multiprocessing.active_children():
                process.terminate()
        raise


def _outcome(job: _Job, index: int, future: "Future[list[Result]]") -> Result:
    error = future.exception()
    if error is None:
        return future.result()[0]
    lost = {"lost": True} if isinstance(error, BrokenProcessPool) else {}
    return {**failure(job.tasks[index], error), **lost}


def one_processor_a_seed(
    setting: Setting,
    tasks: Sequence[Task],
    results: Sequence[Result],
    *,
    executor: Executor | None,
    store: Store | None,
    limit: float | None = None,
) -> tuple[list[Result], list[int]]:
    """Results in which the arms of a seed come from one processor type, and the seeds that had to be run again for it.

    Such a seed is done again as one piece of work, which cannot be spread.
    """
    mixed = sorted(
        seed
        for seed in {task.seed for task in tasks}
        if len({r["worker"]["processor"] for r in results if r["seed"] == seed and "worker" in r})
        > 1
    )
    salt = store.salt() if store is not None and mixed else ""
    changed = list(results)
    for seed in mixed:
        places = [index for index, task in enumerate(tasks) if task.seed == seed]
        group = [tasks[index] for index in places]
        again = (
            work(setting, group, limit, salt)
            if executor is None
            else executor.submit(work, setting, group, limit, salt).result()
        )
        for index, result in zip(places, again, strict=True):
            changed[index] = result
            if store is not None:
                store.keep(setting, tasks[index], result)
    return changed, mixed


def duplicates(
    setting: Setting,
    tasks: Sequence[Task],
    results: Sequence[Result],
    *,
    executor: Executor | None,
    store: Store | None,
) -> list[dict[str, Any]]:
    """For every host one of its tasks done once more, wherever that happens: the two hosts, and whether the bits agree.

    The first tasks should be short: those that judge a learning rate. What a store remembers is not done again.
    """
    first: dict[str, int] = {}
    for index, result in enumerate(results):
        if "worker" in result and "failed" not in result:
            first.setdefault(result["worker"]["host"], index)
    rows = []
    for host, index in first.items():
        name = f"again-{host}-{key(setting, tasks[index])[:16]}.json"
        row = None if store is None else store.recall(name)
        if row is None:
            row = _duplicate(setting, tasks[index], results[index], executor, store)
            if store is not None:
                store.remember(name, row)
        rows.append(row)
    return rows


def _duplicate(
    setting: Setting, task: Task, result: Result, executor: Executor | None, store: Store | None
) -> Result:
    salt = "" if store is None else store.salt()
    (again,) = (
        work(setting, [task], None, salt)
        if executor is None
        else executor.submit(work, setting, [task], None, salt).result()
    )
    made, remade = result["worker"], again["worker"]
    return {
        "task": task.label,
        "host": made["host"],
        "again_on": remade["host"],
        "processors": sorted({made["processor"], remade["processor"]}),
        "agree": bits(again) == bits(result),
    }


def bits(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that its task decides: all but the clock and the worker."""
    return {name: value for name, value in result.items() if name not in CLOCK}


def tuning_tasks(setting: Setting) -> list[Task]:
    """Every arm at every rate of its grid, on the tuning seed; nothing where there is no choice."""
    design = setting.design
    return [
        Task("tune", arm, design.tuning_seed, rate)
        for arm in design.arms
        if len(design.rates_of(arm)) > 1
        for rate in design.rates_of(arm)
    ]


def chosen_rates(setting: Setting, tuned: Sequence[Result]) -> dict[Arm, float]:
    """Per arm the rate with the least own objective on the tuning images; the smallest where all diverged."""
    design = setting.design
    rates = {}
    for arm in design.arms:
        usable = [r for r in tuned if r["arm"] == arm.name and r.get("objective") is not None]
        best = min(usable, key=lambda result: result["objective"], default=None)
        rates[arm] = min(design.rates_of(arm)) if best is None else best["rate"]
    return rates


def study_tasks(
    setting: Setting, rates: Mapping[Arm, float], seeds: Sequence[int] | None = None
) -> list[Task]:
    """Every arm on every seed (or on those given), seed by seed, so that an interrupted study has whole pairs."""
    design = setting.design
    chosen = design.seeds if seeds is None else seeds
    return [Task("run", arm, seed, rates[arm]) for seed in chosen for arm in design.arms]
