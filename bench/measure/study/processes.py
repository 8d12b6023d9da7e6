"""All runs of a study: tuning first, then every arm on every seed, over several processes.

Each process computes with one thread. On a CPU that is both faster for networks of this size and the reason why the results
do not depend on how many processes there are. A task that raises is a row with its reason; the others go on.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import torch

from bench.measure.study.design import Arm
from bench.measure.study.one_run import Setting, Task, perform
from bench.terminal.progress import meter

Result = dict[str, Any]

_stop: Event | None = None


def _begin(stop: Event) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the parent asks it to stop)."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _in_worker(setting: Setting, task: Task) -> Result:
    assert _stop is not None  # set by _begin
    return perform(setting, task, _stop.is_set)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_workers(device: str) -> int:
    """Processes for a device: one a core on a CPU, four at most for the memory's sake; one on an accelerator."""
    return min(4, len(os.sched_getaffinity(0))) if device == "cpu" else 1


def failure(task: Task, error: BaseException) -> Result:
    """The row of a task that raised."""
    return {
        "arm": task.arm.name,
        "seed": task.seed,
        "rate": task.rate,
        "failed": f"{type(error).__name__}: {error}",
    }


def run_tasks(
    setting: Setting,
    tasks: Sequence[Task],
    *,
    workers: int,
    label: str,
    finished: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Results in the order of the tasks, whatever order they end in.

    Args:
        setting: design, data, device.
        tasks: what to run.
        workers: processes; 1 runs in this one.
        label: for the progress bar.
        finished: called with each result as it arrives.
    """
    execute = _here if workers == 1 else _spread
    results: dict[int, Result] = {}
    with (
        meter(total=len(tasks), label=label) as shown,
        closing(execute(setting, tasks, workers)) as arriving,
    ):
        for index, result in arriving:
            results[index] = result
            finished(result)
            shown.advance(note=tasks[index].label)
    return [results[index] for index in range(len(tasks))]


def _here(
    setting: Setting, tasks: Sequence[Task], workers: int
) -> Generator[tuple[int, Result], None, None]:
    del workers  # there is one
    with _one_thread():
        for index, task in enumerate(tasks):
            yield index, _guarded(setting, task)


def _guarded(setting: Setting, task: Task) -> Result:
    try:
        return perform(setting, task)
    except Exception as error:
        return failure(task, error)


def _spread(
    setting: Setting, tasks: Sequence[Task], workers: int
) -> Generator[tuple[int, Result], None, None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(stop,)) as pool:
        futures: dict[Future[Result], int] = {
            pool.submit(_in_worker, setting, task): index for index, task in enumerate(tasks)
        }
        try:
            for future in as_completed(futures):
                index = futures[future]
                error = future.exception()
                yield index, future.result() if error is None else failure(tasks[index], error)
        finally:
            stop.set()  # reached early on Ctrl-C: running tasks end at their next step
            pool.shutdown(wait=True, cancel_futures=True)


def tuning_tasks(setting: Setting) -> list[Task]:
    """Every arm at every rate of the grid, on the tuning seed; nothing where there is no choice."""
    design = setting.design
    if len(design.rates) < 2:
        return []
    return [
        Task("tune", arm, design.tuning_seed, rate) for arm in design.arms for rate in design.rates
    ]


def chosen_rates(setting: Setting, tuned: Sequence[Result]) -> dict[Arm, float]:
    """Per arm the rate with the least own objective on the tuning images; the smallest where all diverged."""
    design = setting.design
    rates = {}
    for arm in design.arms:
        usable = [r for r in tuned if r["arm"] == arm.name and r.get("objective") is not None]
        best = min(usable, key=lambda result: result["objective"], default=None)
        rates[arm] = min(design.rates) if best is None else best["rate"]
    return rates


def study_tasks(setting: Setting, rates: dict[Arm, float]) -> list[Task]:
    """Every arm on every seed, seed by seed, so that an interrupted study has whole pairs."""
    design = setting.design
    return [Task("run", arm, seed, rates[arm]) for seed in design.seeds for arm in design.arms]
