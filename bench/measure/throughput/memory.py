"""How much memory one call needs at its worst moment, beyond what exists before it."""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Largest sum of live tensor memory that `call` allocates, results included.

    On the CPU every allocation and release of torch is read from a profile of one call; memory that a library takes
    behind torch's back is not seen. On CUDA the allocator itself knows.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
        del result
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(trace))
        return _highest(json.loads(trace.read_text(encoding="utf-8", errors="replace")))


def _highest(trace: dict[str, list[dict[str, object]]]) -> int:
    """Running maximum of the sum of the trace's allocations (positive) and releases (negative)."""
    events = [event for event in trace["traceEvents"] if event.get("name") == "[memory]"]
    events.sort(key=lambda event: float(str(event["ts"])))
    live = highest = 0
    for event in events:
        arguments = event["args"]
        if isinstance(arguments, dict) and arguments.get("Device Type", 0) == 0:
            live += int(arguments["Bytes"])
            highest = max(highest, live)
    return highest
