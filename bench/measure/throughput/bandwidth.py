"""The speed of memory here: how long a copy of the same batch takes, with the same threads."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.measure.throughput.clock import synchronizing_clock

COPY_ACCESSES = 2
"""A copy reads one batch and writes one."""
_ROUNDS = 15
_ROUND_SECONDS = 0.005


def copy_seconds(like: Tensor) -> float:
    """Median seconds of `destination.copy_(source)` for tensors like `like`, memory already mapped."""
    source, destination = torch.ones_like(like), torch.zeros_like(like)
    clock = synchronizing_clock if like.is_cuda else time.perf_counter
    return _median_seconds(lambda: destination.copy_(source), clock)


def copy_fraction(seconds: float, accesses: int, copy: float) -> float:
    """Share of the copy's bytes per second that a call reaches with the bytes that it cannot avoid.

    Args:
        seconds: of the call.
        accesses: tensors, of the size of the copied one, that any way must read or write.
        copy: seconds of the copy.
    """
    return (accesses / seconds) / (COPY_ACCESSES / copy)


def _median_seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    start = clock()
    call()
    repeats = max(1, round(_ROUND_SECONDS / max(clock() - start, 1e-9)))
    rounds = []
    for _ in range(_ROUNDS):
        start = clock()
        for _ in range(repeats):
            call()
        rounds.append((clock() - start) / repeats)
    return statistics.median(rounds)
