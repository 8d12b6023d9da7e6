"""A fixed piece of work, timed before and after a measurement: did the machine stay the same?

Three parts, because they slow down for different reasons: the interpreter (clock, neighbours), a matrix product
(clock, vector units), a copy that does not fit into caches (memory, neighbours). The work never changes, so the
times also tell how two records' machines compare.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

_REPEATS = 9
_LOOPS = 100_000
_SIDE = 256
_COPIED = 1 << 24
_DRIFT_LIMIT = 0.1
"""A change of more than this share between before and after is pointed out."""


@dataclass(frozen=True)
class Calibration:
    """Median seconds of each part of the fixed work.

    Attributes:
        interpreter: a loop of 100,000 integer additions in Python.
        arithmetic: a 256 × 256 float32 matrix product.
        memory: a copy of 64 MiB.
    """

    interpreter: float
    arithmetic: float
    memory: float

    def as_json(self) -> dict[str, float]:
        """Name → seconds."""
        return asdict(self)


def calibrate() -> Calibration:
    """Time the fixed work; under half a second."""
    import numpy as np

    matrix = np.full((_SIDE, _SIDE), 0.5, dtype=np.float32)
    source, destination = np.ones(_COPIED, np.float32), np.zeros(_COPIED, np.float32)
    return Calibration(
        interpreter=_median_seconds(_count),
        arithmetic=_median_seconds(lambda: matrix @ matrix),
        memory=_median_seconds(lambda: np.copyto(destination, source)),
    )


def drift(before: Calibration, after: Calibration) -> dict[str, float]:
    """Relative change of each part: 0.2 means that it took 20 % longer afterwards."""
    names = [field.name for field in fields(Calibration)]
    return {name: getattr(after, name) / getattr(before, name) - 1 for name in names}


def drift_warning(changes: dict[str, float]) -> str:
    """One sentence on what drifted; "" where nothing did."""
    moved = [
        f"{name} {change:+.0%}" for name, change in changes.items() if abs(change) > _DRIFT_LIMIT
    ]
    return f"the machine's speed changed during the run: {', '.join(moved)}" if moved else ""


def _count() -> int:
    total = 0
    for number in range(_LOOPS):
        total += number
    return total


def _median_seconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
