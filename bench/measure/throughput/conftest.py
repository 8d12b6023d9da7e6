"""Fixtures of the throughput suite, and what it adds to pytest-benchmark's JSON.

`calibration` (a fixed piece of work, before and after), `compiler_start_seconds` (loading torch.compile's machinery, once)
and `not_measured` (what could not be timed, with its reason).
"""

import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch

from bench.measure.throughput.calibration import Calibration, calibrate
from bench.measure.throughput.case import Benchmark, Measuring

_BEFORE = pytest.StashKey[Calibration]()
_COMPILER = pytest.StashKey[float]()
_MISSING = pytest.StashKey[list[dict[str, str]]]()


def measures(config: pytest.Config) -> bool:
    """Whether bodies are timed in this run, not merely called once."""
    return config.pluginmanager.hasplugin("benchmark") and not (
        config.getoption("benchmark_disable") and not config.getoption("benchmark_enable")
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measure the scaling curve only where it was asked for."""
    if not measures(config) or config.getoption("--throughput-scaling"):
        return
    scaling = [item for item in items if item.name.startswith("test_scaling[")]
    config.hook.pytest_deselected(items=scaling)
    items[:] = [item for item in items if item not in scaling]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of this run."""
    return torch.device(request.config.getoption("--throughput-device"))


@pytest.fixture(scope="session", autouse=True)
def _one_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fixed thread count, cold compilation, calibration before: for the whole run."""
    if not measures(request.config):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--throughput-threads") or threads)
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cold-compile-cache")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
        request.config.stash[_BEFORE] = calibrate()
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def copies() -> dict[tuple[int, torch.dtype, str], float]:
    """Copy times of this run, by size: the memory speed that all cases are held against."""
    return {}


@pytest.fixture
def measuring(benchmark: Benchmark, copies: dict[tuple[int, torch.dtype, str], float]) -> Measuring:
    """Times a case and files its columns."""
    return Measuring(benchmark, copies)


@pytest.fixture(scope="session")
def started_compiler(request: pytest.FixtureRequest, device: torch.device) -> None:
    """Let the compiler load itself once, for a trivial graph: not to be charged to the first case that compiles."""
    if not measures(request.config):
        return
    start = time.perf_counter()
    torch.compile(lambda x: x + 1)(torch.ones(3, device=device))
    request.config.stash[_COMPILER] = time.perf_counter() - start


@pytest.fixture
def fresh_compiler(started_compiler: None) -> Iterator[None]:
    """No graph of another case, in memory or counted against the recompilation limit."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember each case that was not measured, and why."""
    report = yield
    if not report.passed:
        missing = item.config.stash.setdefault(_MISSING, [])
        reason = str(call.excinfo.value) if call.excinfo else report.longreprtext
        missing.append(
            {
                "name": item.name,
                "module": item.path.stem.removeprefix("bench_"),
                "outcome": report.outcome,
                "reason": (reason.splitlines() or [report.outcome])[0][:300],
            }
        )
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add calibration, the compiler's own start, and the cases that were not measured."""
    output_json["compiler_start_seconds"] = config.stash.get(_COMPILER, None)
    output_json["not_measured"] = config.stash.get(_MISSING, [])
    before = config.stash.get(_BEFORE, None)
    if before is not None:
        output_json["calibration"] = {
            "before": before.as_json(),
            "after": calibrate().as_json(),
        }
