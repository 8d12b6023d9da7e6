"""The processes that torchrun started, for one command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from bench.terminal.usage import UsageError

_PLACES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """How many torchrun started; 1 without it.

    Raises:
        UsageError: the environment says something else, or half of what torchrun says.
    """
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal() or len(text) > 6 or int(text) < 1:
        raise UsageError(
            f"WORLD_SIZE = {text[:40]!r} in the environment: torchrun sets it to the number of processes; unset it to work with one"
        )
    missing = [name for name in _PLACES if not os.environ.get(name)]
    if int(text) > 1 and missing:
        raise UsageError(
            f"WORLD_SIZE = {text} in the environment, but {missing[0]} is not set: start the processes with torchrun, or unset WORLD_SIZE"
        )
    return int(text)


def is_chief() -> bool:
    """Whether this process writes and speaks for all."""
    return processes() == 1 or os.environ["RANK"] == "0"


@contextmanager
def together(device: str) -> Iterator[str]:
    """Join the others and say which device is this process's; alone, nothing happens.

    torchrun tells every process its place by RANK, LOCAL_RANK and WORLD_SIZE. CPUs talk by gloo, GPUs by NCCL, one each.
    """
    if processes() == 1:
        yield device
        return
    accelerated = device == "cuda"
    distributed.init_process_group("nccl" if accelerated else "gloo")
    try:
        yield f"cuda:{os.environ['LOCAL_RANK']}" if accelerated else device
    finally:
        distributed.destroy_process_group()
