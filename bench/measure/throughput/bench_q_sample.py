"""Noising a batch: with the noise given, and with drawing it.

A case is one contender at one shape. Measured: the two shapes of the contest, bf16 for ours, and on request
(`--throughput-scaling 1e8`) the curve from 10⁴ elements upwards. Untimed: one tiny shape with odd sizes.
"""

from collections.abc import Callable

import pytest
import torch

from bench.measure.throughput.case import Measuring
from bench.measure.throughput.conftest import measures
from bench.measure.throughput.contenders import FORMING, NOISING, Contender
from bench.measure.throughput.problem import Problem, problem

Batch = Callable[..., Problem]

MEASURED = ("256x3x64x64", "128x3x32x32")
ONCE = ("5x3x7x7",)
SCALING_SAMPLE = "3x32x32"
SCALING = {10**4: 3, 10**5: 33, 10**6: 325, 10**7: 3255, 10**8: 32552}
"""Elements → samples of 3 × 32 × 32, rounded."""
SCALED = ("native", "cuda", "torch textbook", "torch randn + compile", "diffusers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize by strings: contender, shape and dtype name the case in the record."""
    measured = measures(metafunc.config)
    shapes = MEASURED if measured else ONCE
    if metafunc.function is test_scaling:
        limit = metafunc.config.getoption("--throughput-scaling") or 0
        sizes = [n for elements, n in SCALING.items() if elements <= max(limit, min(SCALING))]
        metafunc.parametrize("shape", [f"{n}x{SCALING_SAMPLE}" for n in sizes])
    elif "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", shapes)


@pytest.fixture
def batch(request: pytest.FixtureRequest, device: torch.device) -> Callable[..., Problem]:
    """`batch(shape, dtype="float32")` → the problem, on this run's device."""
    backend = "inductor" if measures(request.config) else "eager"

    def make(shape: str, dtype: str = "float32") -> Problem:
        return problem(shape, dtype=dtype, device=device.type, backend=backend)

    return make


def _available(contender: Contender, device: torch.device) -> None:
    reason = contender.unavailable(device)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("name", NOISING)
def test_noise_and_q_sample(
    measuring: Measuring,
    device: torch.device,
    batch: Batch,
    fresh_compiler: None,
    name: str,
    shape: str,
) -> None:
    measuring.benchmark.group = f"noise + q_sample {shape} float32"
    _available(NOISING[name], device)
    measuring.noising(NOISING[name], batch(shape))


@pytest.mark.parametrize("dtype", ["bfloat16"])
@pytest.mark.parametrize("name", ["native", "cuda", "torch textbook"])
def test_noise_and_q_sample_short_dtype(
    measuring: Measuring, device: torch.device, batch: Batch, name: str, shape: str, dtype: str
) -> None:
    measuring.benchmark.group = f"noise + q_sample {shape} {dtype}"
    _available(NOISING[name], device)
    measuring.noising(NOISING[name], batch(shape, dtype))


@pytest.mark.parametrize("name", FORMING)
def test_q_sample_given_noise(
    measuring: Measuring,
    device: torch.device,
    batch: Batch,
    fresh_compiler: None,
    name: str,
    shape: str,
) -> None:
    measuring.benchmark.group = f"q_sample, noise given {shape} float32"
    _available(FORMING[name], device)
    measuring.noising(FORMING[name], batch(shape))


@pytest.mark.parametrize("name", SCALED)
def test_scaling(
    measuring: Measuring,
    device: torch.device,
    batch: Batch,
    fresh_compiler: None,
    name: str,
    shape: str,
) -> None:
    measuring.benchmark.group = f"scaling {shape} float32"
    _available(NOISING[name], device)
    measuring.noising(NOISING[name], batch(shape))
