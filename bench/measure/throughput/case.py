"""One case: built, called, checked, then timed, with all its columns."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench.measure.throughput.bandwidth import copy_fraction, copy_seconds
from bench.measure.throughput.contenders import NECESSARY_ACCESSES, Call, Contender, Origin
from bench.measure.throughput.memory import peak_bytes
from bench.measure.throughput.problem import Problem
from bench.measure.throughput.proof import verify


class Benchmark(Protocol):
    """What is used of pytest-benchmark's fixture (and of the stand-in of the root conftest)."""

    extra_info: dict[str, Any]
    group: str | None
    stats: Any

    @property
    def enabled(self) -> bool:
        """Whether it will time."""

    def __call__(self, function: Callable[[], object]) -> object:
        """Time the function, or call it once."""


@dataclass
class Measuring:
    """Times cases through the `benchmark` fixture and files their columns in `extra_info`.

    Attributes:
        benchmark: pytest-benchmark's fixture.
        copies: (elements, dtype, device) → seconds of a copy, measured once per run.
    """

    benchmark: Benchmark
    copies: dict[tuple[int, torch.dtype, str], float] = field(default_factory=dict)

    def noising(self, contender: Contender, p: Problem) -> None:
        """Build, call, verify and time one way of noising a batch."""
        started = time.perf_counter()
        call = contender.build(p)
        call(0)
        self._wait(p.device)
        first = time.perf_counter() - started
        self.describe(
            contender.name,
            shape=p.x0.shape,
            dtype=p.x0.dtype,
            verified=verify(contender, call, p),
            origin=contender.origin,
        )
        self._file(bytes_per_element=_moved(contender, p))
        self.case(timed_call(call), items=p.elements, item="element", device=p.device)
        if self.benchmark.stats is None:
            return
        median = self.benchmark.stats.stats.median
        copy = self._copy(p)
        self._file(
            compile_seconds=max(0.0, first - median) if contender.compiled else None,
            copy_seconds=copy,
            copy_fraction=copy_fraction(median, NECESSARY_ACCESSES, copy),
        )

    def describe(
        self,
        contender: str,
        *,
        shape: Sequence[int],
        dtype: torch.dtype,
        verified: str,
        origin: Origin = "own",
    ) -> None:
        """File what is timed: who, on which batch, and what was proven about it."""
        self._file(
            contender=contender,
            origin=origin,
            shape="x".join(map(str, shape)),
            dtype=str(dtype).removeprefix("torch."),
            verified=verified,
        )

    def case(
        self, call: Callable[[], object], *, items: int, item: str, device: torch.device
    ) -> None:
        """Time one call that handles `items` things; it has been checked before.

        Args:
            call: what is timed; called once more beforehand, so that nothing is cold.
            items: how many things one call handles.
            item: what they are: element, image, step.
            device: where it works.
        """
        call()
        if self.benchmark.enabled:
            self._file(peak_memory_bytes=peak_bytes(call, device))
        self.benchmark(call)
        self._file(items=items, item=item, device=device.type, threads=torch.get_num_threads())
        if self.benchmark.stats is not None:
            self._file(items_per_second=items / self.benchmark.stats.stats.median)

    def _copy(self, p: Problem) -> float:
        key = (p.elements, p.x0.dtype, p.device.type)
        if key not in self.copies:
            self.copies[key] = copy_seconds(p.x0)
        return self.copies[key]

    def _file(self, **columns: object) -> None:
        self.benchmark.extra_info.update(columns)

    @staticmethod
    def _wait(device: torch.device) -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize()


def checked(what: str, holds: bool) -> str:
    """The words for the `verified` column, or an error where it does not hold."""
    if not holds:
        raise AssertionError(f"not timed, because this does not hold: {what}")
    return what


def _moved(contender: Contender, p: Problem) -> int | None:
    if contender.accesses is None:
        return None
    return contender.accesses * p.x0.element_size()


def timed_call(call: Call) -> Callable[[], object]:
    """A call without arguments that takes the next step number each time."""
    steps = itertools.count(1)
    return lambda: call(next(steps))
