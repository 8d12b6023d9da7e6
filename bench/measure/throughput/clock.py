"""Reading the clock beside a device that works while the program goes on."""

import time

import torch


def synchronizing_clock() -> float:
    """Seconds, after all work queued on the accelerator is done; a plain clock where there is none."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
