"""What a worker does, in this process, in another one, or on another machine: one task, with one thread, and who it was.

Only what can be pickled crosses: setting, task and two numbers. A worker loads the data itself. With one thread the results do not depend
on how many cores there are, and networks of this size train faster on a CPU.
"""

import hashlib
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from bench.measure.study.one_run import perform
from bench.measure.study.task import Setting, Task
from bench.record.environment import processor
from ddpm_ref.kernels.providers import fastest

Result = dict[str, Any]


def work(
    setting: Setting, tasks: Sequence[Task], limit: float | None = None, salt: str = ""
) -> list[Result]:
    """Results of some tasks in turn, each with `worker`: who made it. A task that raises is a row with its reason.

    Args:
        setting: design, data, device.
        tasks: what to run; one, or all that must come from one processor.
        limit: seconds after which a task is stopped; None = never.
        salt: for the hash of this host's name.
    """
    with _one_thread():
        return [
            {**_guarded(setting, task, limit), "worker": identity(setting, salt)} for task in tasks
        ]


def _guarded(setting: Setting, task: Task, limit: float | None) -> Result:
    try:
        return perform(setting, task, _deadline(limit))
    except Exception as error:
        return failure(task, error)


def _deadline(limit: float | None) -> Callable[[], bool]:
    if limit is None:
        return lambda: False
    end = time.monotonic() + limit
    return lambda: time.monotonic() > end


def failure(task: Task, error: BaseException) -> Result:
    """The row of a task that raised."""
    return {
        "arm": task.arm.name,
        "seed": task.seed,
        "rate": task.rate,
        "failed": f"{type(error).__name__}: {error}",
    }


def identity(setting: Setting, salt: str) -> dict[str, str]:
    """Processor or accelerator, torch, provider of the noise, and a salted hash of the host's name."""
    device = torch.device(setting.device)
    accelerated = device.type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(device) if accelerated else processor(),
        "torch": torch.__version__,
        "provider": fastest(device.type) if setting.provider == "auto" else setting.provider,
        "host": hashlib.sha256(f"{salt}{platform.node()}".encode()).hexdigest()[:8],
    }


def begin() -> None:
    """Prepare a process of our own pool: deaf to Ctrl-C, because the parent ends it; and never left behind by a parent that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Wait for the parent's end, which a kill -9 does not tell, and end too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_workers(device: str) -> int:
    """Processes for a device: one a core on a CPU, four at most for the memory's sake; one on an accelerator."""
    return min(4, len(os.sched_getaffinity(0))) if device == "cpu" else 1
