"""Columns of a case: memory, copy fraction, calibration; checked where the answer is known."""

import pytest
import torch

from bench.measure.throughput.bandwidth import copy_fraction, copy_seconds
from bench.measure.throughput.calibration import Calibration, calibrate, drift, drift_warning
from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.memory import peak_bytes

CPU = torch.device("cpu")
BYTES = 4 * 1009


def test_peak_memory_counts_live_tensors_at_the_worst_moment() -> None:
    x = torch.ones(1009)

    def two_products_and_a_sum() -> torch.Tensor:
        first, second = x * 2, x * 3
        return first + second

    def one_after_the_other() -> torch.Tensor:
        y = x * 2
        y = y * 3
        return y * 5

    scalars = 64  # the factors become tensors of 4 or 8 bytes
    assert peak_bytes(two_products_and_a_sum, CPU) == pytest.approx(3 * BYTES, abs=scalars)
    assert peak_bytes(one_after_the_other, CPU) == pytest.approx(2 * BYTES, abs=scalars)
    assert peak_bytes(lambda: x.add_(1), CPU) <= scalars


def test_a_copy_reaches_the_speed_of_a_copy() -> None:
    assert copy_fraction(0.5, 2, copy=0.5) == 1
    assert copy_fraction(1.5, 3, copy=1.0) == 1  # three accesses in three halves of the time of two
    assert copy_fraction(3.0, 3, copy=1.0) == 0.5
    assert copy_seconds(torch.empty(0)) > 0  # nothing to copy still takes a call


def test_drift_is_relative_and_names_what_moved() -> None:
    before = Calibration(interpreter=1.0, arithmetic=2.0, memory=4.0)
    after = Calibration(interpreter=1.05, arithmetic=3.0, memory=3.0)
    changes = drift(before, after)
    assert changes == pytest.approx({"interpreter": 0.05, "arithmetic": 0.5, "memory": -0.25})
    assert drift_warning(changes).endswith("arithmetic +50%, memory -25%")
    assert drift_warning(drift(before, before)) == ""


def test_calibration_times_every_part() -> None:
    assert min(calibrate().as_json().values()) > 0


class FakeBenchmark:
    """Times nothing; claims two seconds."""

    enabled = True

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}
        self.group: str | None = None
        self.calls = 0
        self.stats = type("Metadata", (), {"stats": type("Stats", (), {"median": 2.0})})

    def __call__(self, function: object) -> object:
        self.calls += 1
        return None


def test_a_case_is_called_before_it_is_timed_and_files_its_columns() -> None:
    benchmark, calls = FakeBenchmark(), []
    Measuring(benchmark).case(lambda: calls.append(1), items=11, item="image", device=CPU)
    assert len(calls) == 2  # warm, and once under the memory profile
    assert benchmark.calls == 1
    info = benchmark.extra_info
    assert info["items_per_second"] == 5.5
    assert (info["items"], info["item"], info["device"]) == (11, "image", "cpu")
    assert info["threads"] == torch.get_num_threads()


def test_what_does_not_hold_is_not_timed() -> None:
    assert checked("one is one", 1 == 1) == "one is one"
    with pytest.raises(AssertionError, match="not timed, because this does not hold: one is two"):
        checked("one is two", 1 == 2)
