"""The processes that torchrun started, for one command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed


def processes() -> int:
    """How many torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_chief() -> bool:
    """Whether this process writes and speaks for all."""
    return os.environ.get("RANK", "0") == "0"


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
